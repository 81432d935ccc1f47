/* The memtable against a naive model: the newest record of each key, a cold tier, and the history of changes. Some
 * keys are reserved, with the same bytes as keys of users. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "store/flush.h"
#include "store/memtable.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEPS 60000
#else
#define STEPS 250000
#endif

#define KEYS 6000
#define KEYS_RESERVED 1500 /* the last */
#define KEYS_USER (KEYS - KEYS_RESERVED)
#define ADDED_MAX 200
#define KEY_BYTES_MAX 24
#define RECORD_BYTES_MAX 200

struct blob {
    uint64_t sequence; /* 0 = none */
    uint16_t size;     /* 0 = there is no such key */
    uint8_t bytes[RECORD_BYTES_MAX];
};

struct change {
    uint64_t sequence;
    uint16_t key;
};

struct world {
    struct prng prng;
    struct alloc alloc;
    struct memtable memtable;
    struct flush_job job;
    bool flushing;
    bool settling;
    bool failing;
    uint64_t job_sequence;
    uint64_t sequence;
    uint64_t overloaded;
    uint64_t cold_deleted;
    uint64_t flushes;
    uint64_t failures;
    struct blob latest[KEYS];
    struct blob frozen[KEYS]; /* copies of what the job holds */
    bool in_job[KEYS];
    uint32_t added;        /* reserved rows that only the job has */
    uint64_t erased[KEYS]; /* sequence of the newest erase */
    uint64_t erased_kept;  /* erases whose row was not gone at once */
    struct blob cold[KEYS];
    uint64_t flushed_due[KEYS]; /* newest change at or below the sequence under test */
    struct change changes[STEPS + 1];
    size_t change_count;
};

static bool reserved(size_t index)
{
    return index >= KEYS_USER;
}

static struct span key_of(size_t index, char text[KEY_BYTES_MAX])
{
    if (reserved(index))
        index = 3 * (index - KEYS_USER) + 1;
    /* Some share a tag, so some shard of the cold order has many rows. */
    size_t size = 0;
    if (index % 3 == 0) {
        memcpy(text, "{tag}", 5);
        size = 5;
    } else if (index % 3 == 1) {
        memcpy(text, "\xff\xfd", 2);
        size = 2;
    }
    for (size_t rest = index + 1; rest > 0; rest /= 7)
        text[size++] = (char)('a' + rest % 7);
    return span_of(text, size);
}

static uint32_t hash_of(const struct world *world, size_t index, struct span key)
{
    return reserved(index) ? memtable_hash_reserved(&world->memtable, key)
                           : memtable_hash(&world->memtable, key);
}

static uint16_t slot_of(size_t index, struct span key)
{
    return reserved(index) ? SLOTS_COUNT : key_slot(key);
}

static struct memtable_put put_of(struct world *world, size_t index, const struct blob *blob, char *text)
{
    struct memtable_put put = {.key = key_of(index, text), .record = span_of(blob->bytes, blob->size)};
    put.hash = hash_of(world, index, put.key);
    put.slot = slot_of(index, put.key);
    put.sequence = blob->sequence;
    put.live = blob->size > 0 && blob->size % 2 == 0 && !reserved(index);
    put.in_cold = world->cold[index].size != 0;
    return put;
}

static bool same(const struct blob *blob, struct span bytes)
{
    return blob->sequence != 0 && span_equal(span_of(blob->bytes, blob->size), bytes);
}

static void do_put(struct world *world)
{
    size_t index = prng_below(&world->prng, KEYS);
    struct blob blob = {.sequence = world->sequence};
    /* Often the same size, so that rows are overwritten in place. */
    blob.size =
        (uint16_t)(prng_chance(&world->prng, 1, 2) ? 40 : 8 + prng_below(&world->prng, RECORD_BYTES_MAX - 8));
    if (prng_chance(&world->prng, 1, 4))
        blob.size = 0;
    for (size_t i = 0; i < blob.size; i++)
        blob.bytes[i] = (uint8_t)prng_u64(&world->prng);
    char text[KEY_BYTES_MAX];
    struct memtable_put put = put_of(world, index, &blob, text);
    enum status status = memtable_put(&world->memtable, &put);
    if (status == STATUS_OVERLOADED) {
        world->overloaded++;
        return;
    }
    assert_int_equal(status, STATUS_OK);
    world->latest[index] = blob;
    world->changes[world->change_count++] = (struct change){world->sequence, (uint16_t)index};
    if (blob.size > 0)
        return;
    bool gone = memtable_find(&world->memtable, put.key, put.hash) == NULL;
    world->erased[index] = world->sequence;
    world->erased_kept += !gone;
    if (!world->settling && !world->failing)
        assert_int_equal(gone, world->cold[index].size == 0 && !world->in_job[index]);
}

/* What is resident is the newest; what is not is in the cold tier, to the byte. */
static void check_key(struct world *world, size_t index)
{
    char text[KEY_BYTES_MAX];
    struct span key = key_of(index, text);
    const struct blob *latest = &world->latest[index];
    const struct row *row = memtable_find(&world->memtable, key, hash_of(world, index, key));
    if (row == NULL) {
        if (latest->size > 0 || world->cold[index].size > 0)
            assert_int_equal(latest->sequence, world->cold[index].sequence);
        return;
    }
    assert_true(span_equal(row_key(row), key));
    assert_true(same(latest, row_record(row)));
    assert_int_equal(row_reserved(row), reserved(index));
    assert_int_equal(row_erased(row), latest->size == 0);
    assert_true(row_dirty(row) || !row_erased(row));
    if (row_dirty(row))
        assert_int_equal(memtable_row_sequence(&world->memtable, row), world->latest[index].sequence);
    if (!row_dirty(row))
        assert_int_equal(world->latest[index].sequence, world->cold[index].sequence);
    if (row_in_cold(row) && !world->settling)
        assert_int_not_equal(world->cold[index].size, 0);
}

static void do_load(struct world *world)
{
    size_t index = prng_below(&world->prng, KEYS);
    if (world->cold[index].size == 0)
        return;
    char text[KEY_BYTES_MAX];
    struct memtable_put put = put_of(world, index, &world->cold[index], text);
    enum status status = memtable_load(&world->memtable, &put);
    assert_true(status == STATUS_OK || status == STATUS_OVERLOADED);
    check_key(world, index);
}

static size_t index_of(struct span key, bool is_reserved)
{
    size_t at = key.data[0] == '{' ? 5 : key.data[0] == 0xff ? 2 : 0;
    size_t index = 0;
    for (size_t i = key.size; i > at; i--)
        index = index * 7 + (size_t)(key.data[i - 1] - 'a');
    return is_reserved ? KEYS_USER + (index - 2) / 3 : index - 1;
}

/* What only the job has. */
static bool flush_row_added(const struct flush_row *row)
{
    return row->prefix_size == 0 && row->key.data[1] == 0xfe;
}

static void do_add(struct world *world)
{
    world->added = 0;
    uint64_t count = prng_chance(&world->prng, 1, 2) ? 0 : prng_below(&world->prng, ADDED_MAX);
    for (uint32_t i = 0; i < count; i++) {
        /* Not in their order. */
        uint8_t key[3] = {0xff, 0xfe, (uint8_t)(world->added * 7)};
        struct span record = span_of(key, world->added % 3);
        enum status status =
            memtable_job_add(&world->memtable, &world->job, span_of(key, sizeof key), record);
        if (status == STATUS_OK)
            world->added++;
        else
            assert_int_equal(status, STATUS_OVERLOADED);
    }
}

static void do_freeze(struct world *world)
{
    uint64_t bytes_max = prng_chance(&world->prng, 1, 2) ? UINT64_MAX : prng_below(&world->prng, 400000);
    enum status status = memtable_freeze(&world->memtable, &world->job, bytes_max, world->sequence - 1);
    if (world->flushing) {
        assert_int_equal(status, STATUS_WAIT);
        return;
    }
    if (status != STATUS_OK) {
        assert_true(status == STATUS_NOT_FOUND || status == STATUS_OVERLOADED);
        return;
    }
    world->flushing = true;
    world->job_sequence = world->job.sequence;
    memcpy(world->frozen, world->latest, sizeof world->frozen);
    do_add(world);
    flush_sort(&world->job);
    for (uint64_t i = 0; i < flush_count(&world->job); i++) {
        struct flush_row row = flush_row(&world->job, i);
        if (!flush_row_added(&row))
            world->in_job[index_of(row.key, row.prefix_size == 0)] = true;
    }
}

static void check_flushed(struct world *world, uint64_t sequence)
{
    memset(world->flushed_due, 0, sizeof world->flushed_due);
    for (size_t i = 0; i < world->change_count && world->changes[i].sequence <= sequence; i++)
        world->flushed_due[world->changes[i].key] = world->changes[i].sequence;
    for (size_t i = 0; i < KEYS; i++) {
        uint64_t due = world->flushed_due[i];
        bool absent = world->cold[i].size == 0;
        /* What was erased before it went cold is nowhere. */
        assert_true(world->cold[i].sequence >= due || (absent && world->erased[i] >= due));
    }
}

/* The flush happens: rows are as they were when frozen, in the order of their cold keys. */
static void flush_into_cold(struct world *world)
{
    flush_sort(&world->job);
    uint8_t before[COLD_KEY_PREFIX_BYTES + KEY_BYTES_MAX];
    size_t before_size = 0;
    uint32_t added = 0;
    for (uint64_t i = 0; i < flush_count(&world->job); i++) {
        struct flush_row row = flush_row(&world->job, i);
        uint8_t prefix[COLD_KEY_PREFIX_BYTES];
        cold_key_prefix(row.key, key_slot(row.key), prefix);
        assert_true(row.prefix_size == 0 || row.prefix_size == sizeof prefix);
        assert_memory_equal(prefix, row.prefix, row.prefix_size);
        assert_int_equal(row.erased, row.record.size == 0);
        uint8_t cold_key[COLD_KEY_PREFIX_BYTES + KEY_BYTES_MAX];
        memcpy(cold_key, prefix, row.prefix_size);
        memcpy(cold_key + row.prefix_size, row.key.data, row.key.size);
        size_t size = row.prefix_size + row.key.size;
        assert_true(span_compare(span_of(before, before_size), span_of(cold_key, size)) < 0);
        memcpy(before, cold_key, size);
        before_size = size;
        if (flush_row_added(&row)) {
            added++;
            continue;
        }
        size_t index = index_of(row.key, row.prefix_size == 0);
        assert_true(same(&world->frozen[index], row.record));
        world->cold_deleted += row.erased && !reserved(index);
        world->cold[index] = world->frozen[index];
    }
    assert_int_equal(added, world->added);
}

static void do_flush(struct world *world)
{
    if (!world->flushing)
        return;
    if (world->failing || (!world->settling && prng_chance(&world->prng, 1, 4))) {
        world->failing = true;
        if (!memtable_flush_failed(&world->memtable, &world->job, prng_below(&world->prng, 3000)))
            return;
        world->failing = false;
        world->flushing = false;
        world->failures++;
        memset(world->in_job, 0, sizeof world->in_job);
        return;
    }
    if (!world->settling)
        flush_into_cold(world);
    world->settling = true;
    if (!memtable_flush_done(&world->memtable, &world->job, prng_below(&world->prng, 3000)))
        return;
    world->flushing = false;
    world->settling = false;
    memset(world->in_job, 0, sizeof world->in_job);
    world->flushes++;
    check_flushed(world, world->job_sequence);
}

/* The chains of all slots together hold each dirty row once. */
static void check_slots(struct world *world)
{
    bool seen[KEYS] = {false};
    uint64_t count = 0;
    for (uint32_t slot = 0; slot <= SLOTS_COUNT; slot++) {
        struct memtable_slot_cursor cursor = {0};
        const struct row *row;
        while ((row = memtable_slot_dirty(&world->memtable, (uint16_t)slot, &cursor)) != NULL) {
            size_t index = index_of(row_key(row), row_reserved(row));
            assert_int_equal(slot_of(index, row_key(row)), slot);
            assert_true(row_dirty(row) && !seen[index]);
            assert_true(same(&world->latest[index], row_record(row)));
            seen[index] = true;
            count++;
        }
        assert_null(memtable_slot_dirty(&world->memtable, (uint16_t)slot, &cursor));
    }
    assert_int_equal(count, memtable_counters(&world->memtable)->rows_dirty);
}

static void check_counters(struct world *world)
{
    struct memtable_counters seen = {0};
    struct memtable_cursor cursor = {0};
    for (const struct row *row; (row = memtable_scan(&world->memtable, &cursor)) != NULL;) {
        seen.rows++;
        seen.rows_dirty += row_dirty(row);
        if (!world->flushing)
            assert_int_equal(row_in_cold(row),
                             world->cold[index_of(row_key(row), row_reserved(row))].size != 0);
        seen.rows_reserved += row_reserved(row);
        seen.rows_not_in_cold += !row_in_cold(row);
        bool live = (row->flags & ROW_LIVE) != 0;
        assert_int_equal(live, row->record_size > 0 && row->record_size % 2 == 0 && !row_reserved(row));
        seen.rows_live += live;
        seen.rows_live_not_in_cold += live && !row_in_cold(row);
    }
    const struct memtable_counters *counters = memtable_counters(&world->memtable);
    assert_int_equal(seen.rows, counters->rows);
    assert_int_equal(seen.rows_reserved, counters->rows_reserved);
    assert_int_equal(seen.rows_dirty, counters->rows_dirty);
    check_slots(world);
    assert_int_equal(seen.rows_not_in_cold, counters->rows_not_in_cold);
    assert_int_equal(seen.rows_live, counters->rows_live);
    assert_int_equal(seen.rows_live_not_in_cold, counters->rows_live_not_in_cold);
    assert_int_equal(counters->bytes, world->alloc.used_bytes);
    if (counters->rows_dirty == 0)
        assert_int_equal(counters->bytes_dirty, 0);
    check_flushed(world, memtable_flushed_sequence(&world->memtable, world->sequence - 1));
    if (world->flushing)
        return;
    assert_int_equal(counters->bytes_retired, 0);
    assert_int_equal(counters->cold_deleted, world->cold_deleted);
}

static struct world *world_make(uint64_t seed, uint64_t budget)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    prng_seed(&world->prng, seed);
    alloc_init(&world->alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &world->alloc, .seed = seed, .budget_bytes = budget};
    assert_int_equal(memtable_init(&world->memtable, &options), STATUS_OK);
    /* Places of the dirty queue wrap around soon. */
    world->memtable.dirty.base = UINT32_MAX - 5000;
    world->sequence = 2;
    return world;
}

static void world_free(struct world *world)
{
    if (world->settling) {
        while (!memtable_flush_done(&world->memtable, &world->job, 1))
            continue;
    } else if (world->flushing) {
        assert_true(memtable_flush_failed(&world->memtable, &world->job, UINT64_MAX));
    }
    memtable_free(&world->memtable);
    assert_int_equal(world->alloc.used_bytes, 0);
    free(world);
}

/* fail_one_in: 0 = no allocation fails. */
static void run(uint64_t seed, uint64_t budget, uint64_t fail_one_in)
{
    struct world *world = world_make(seed, budget);
    for (size_t step = 0; step < STEPS; step++) {
        if (fail_one_in > 0 && prng_chance(&world->prng, 1, fail_one_in))
            world->alloc.fail_at_call = world->alloc.calls + 1 + prng_below(&world->prng, 3);
        uint64_t dice = prng_below(&world->prng, 10000);
        if (dice < 6000)
            do_put(world);
        else if (dice < 8000)
            check_key(world, prng_below(&world->prng, KEYS));
        else if (dice < 9500)
            do_load(world);
        else if (dice < 9900)
            world->sequence++;
        else if (dice < 9930)
            do_freeze(world);
        else if (dice < 9980)
            do_flush(world);
        else if (dice < 9990)
            (void)memtable_upkeep(&world->memtable);
        else if (dice < 9993)
            check_counters(world);
    }
    for (size_t i = 0; i < KEYS; i++)
        check_key(world, i);
    check_counters(world);
    assert_true(world->flushes > 5);
    assert_true(world->failures > 1);
    assert_true(world->erased_kept > 100);
    world_free(world);
}

static void against_a_naive_map_with_room_for_all(void **state)
{
    (void)state;
    run(1, UINT64_C(64) << 20, 0);
}

static void against_a_naive_map_with_eviction(void **state)
{
    (void)state;
    run(2, 900000, 0);
    run(3, 500000, 0);
}

static void against_a_naive_map_with_failing_allocations(void **state)
{
    (void)state;
    run(4, 900000, 20);
    run(5, UINT64_C(64) << 20, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_a_naive_map_with_room_for_all),
        cmocka_unit_test(against_a_naive_map_with_eviction),
        cmocka_unit_test(against_a_naive_map_with_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
