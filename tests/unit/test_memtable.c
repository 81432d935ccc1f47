/* The memtable against a naive model: the newest record of each key, a cold tier, and the history of changes. */
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
#define KEY_BYTES_MAX 24
#define RECORD_BYTES_MAX 200

struct blob {
    uint64_t sequence; /* 0 = none */
    uint16_t size;
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
    uint64_t job_sequence;
    uint64_t sequence;
    uint64_t overloaded;
    uint64_t flushes;
    uint64_t failures;
    struct blob latest[KEYS];
    struct blob frozen[KEYS]; /* copies of what the job holds */
    struct blob cold[KEYS];
    uint64_t flushed_due[KEYS]; /* newest change at or below the sequence under test */
    struct change changes[STEPS + 1];
    size_t change_count;
};

static struct span key_of(size_t index, char text[KEY_BYTES_MAX])
{
    /* Some share a tag, so some shard of the cold order has many rows. */
    size_t size = 0;
    if (index % 3 == 0) {
        memcpy(text, "{tag}", 5);
        size = 5;
    }
    for (size_t rest = index + 1; rest > 0; rest /= 7)
        text[size++] = (char)('a' + rest % 7);
    return span_of(text, size);
}

static struct memtable_put put_of(struct world *world, size_t index, const struct blob *blob, char *text)
{
    struct memtable_put put = {.key = key_of(index, text), .record = span_of(blob->bytes, blob->size)};
    put.hash = memtable_hash(&world->memtable, put.key);
    put.sequence = blob->sequence;
    put.live = blob->size % 2 == 0;
    put.in_cold = world->cold[index].sequence != 0;
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
}

/* What is resident is the newest; what is not is in the cold tier, to the byte. */
static void check_key(struct world *world, size_t index)
{
    char text[KEY_BYTES_MAX];
    struct span key = key_of(index, text);
    const struct row *row = memtable_find(&world->memtable, key, memtable_hash(&world->memtable, key));
    if (row == NULL) {
        assert_int_equal(world->latest[index].sequence, world->cold[index].sequence);
        return;
    }
    assert_true(span_equal(row_key(row), key));
    assert_true(same(&world->latest[index], row_record(row)));
    if (row_dirty(row))
        assert_int_equal(row_sequence(row), world->latest[index].sequence);
    if (!row_dirty(row))
        assert_int_equal(world->latest[index].sequence, world->cold[index].sequence);
    if (row_in_cold(row))
        assert_int_not_equal(world->cold[index].sequence, 0);
}

static void do_load(struct world *world)
{
    size_t index = prng_below(&world->prng, KEYS);
    if (world->cold[index].sequence == 0)
        return;
    char text[KEY_BYTES_MAX];
    struct memtable_put put = put_of(world, index, &world->cold[index], text);
    enum status status = memtable_load(&world->memtable, &put);
    assert_true(status == STATUS_OK || status == STATUS_OVERLOADED);
    check_key(world, index);
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
}

static void check_flushed(struct world *world, uint64_t sequence)
{
    memset(world->flushed_due, 0, sizeof world->flushed_due);
    for (size_t i = 0; i < world->change_count && world->changes[i].sequence <= sequence; i++)
        world->flushed_due[world->changes[i].key] = world->changes[i].sequence;
    for (size_t i = 0; i < KEYS; i++)
        assert_true(world->cold[i].sequence >= world->flushed_due[i]);
}

static size_t index_of(struct span key)
{
    size_t at =
        span_compare(span_of(key.data, key.size < 5 ? key.size : 5), span_of("{tag}", 5)) == 0 ? 5 : 0;
    size_t index = 0;
    for (size_t i = key.size; i > at; i--)
        index = index * 7 + (size_t)(key.data[i - 1] - 'a');
    return index - 1;
}

/* The flush happens: rows are as they were when frozen, in the order of their cold keys. */
static void flush_into_cold(struct world *world)
{
    flush_sort(&world->job);
    uint8_t before[COLD_KEY_PREFIX_BYTES + KEY_BYTES_MAX];
    size_t before_size = 0;
    for (uint64_t i = 0; i < flush_count(&world->job); i++) {
        struct flush_row row = flush_row(&world->job, i);
        uint8_t prefix[COLD_KEY_PREFIX_BYTES];
        cold_key_prefix(row.key, key_slot(row.key), prefix);
        assert_memory_equal(prefix, row.prefix, sizeof prefix);
        uint8_t cold_key[COLD_KEY_PREFIX_BYTES + KEY_BYTES_MAX];
        memcpy(cold_key, prefix, sizeof prefix);
        memcpy(cold_key + sizeof prefix, row.key.data, row.key.size);
        size_t size = sizeof prefix + row.key.size;
        assert_true(span_compare(span_of(before, before_size), span_of(cold_key, size)) < 0);
        memcpy(before, cold_key, size);
        before_size = size;
        size_t index = index_of(row.key);
        assert_true(same(&world->frozen[index], row.record));
        world->cold[index] = world->frozen[index];
    }
}

static void do_flush(struct world *world)
{
    if (!world->flushing)
        return;
    if (!world->settling && prng_chance(&world->prng, 1, 4)) {
        memtable_flush_failed(&world->memtable, &world->job);
        world->flushing = false;
        world->failures++;
        return;
    }
    if (!world->settling)
        flush_into_cold(world);
    world->settling = true;
    if (!memtable_flush_done(&world->memtable, &world->job, prng_below(&world->prng, 3000)))
        return;
    world->flushing = false;
    world->settling = false;
    world->flushes++;
    check_flushed(world, world->job_sequence);
}

static void check_counters(struct world *world)
{
    struct memtable_counters seen = {0};
    struct memtable_cursor cursor = {0};
    for (const struct row *row; (row = memtable_scan(&world->memtable, &cursor)) != NULL;) {
        seen.rows++;
        seen.rows_dirty += row_dirty(row);
        if (!world->flushing)
            assert_int_equal(row_in_cold(row), world->cold[index_of(row_key(row))].sequence != 0);
        seen.rows_not_in_cold += !row_in_cold(row);
        bool live = (row->flags & ROW_LIVE) != 0;
        assert_int_equal(live, row->record_size % 2 == 0);
        seen.rows_live += live;
        seen.rows_live_not_in_cold += live && !row_in_cold(row);
    }
    const struct memtable_counters *counters = memtable_counters(&world->memtable);
    assert_int_equal(seen.rows, counters->rows);
    assert_int_equal(seen.rows_dirty, counters->rows_dirty);
    assert_int_equal(seen.rows_not_in_cold, counters->rows_not_in_cold);
    assert_int_equal(seen.rows_live, counters->rows_live);
    assert_int_equal(seen.rows_live_not_in_cold, counters->rows_live_not_in_cold);
    assert_int_equal(counters->bytes, world->alloc.used_bytes);
    if (counters->rows_dirty == 0)
        assert_int_equal(counters->bytes_dirty, 0);
    if (!world->flushing)
        assert_int_equal(counters->bytes_retired, 0);
    check_flushed(world, memtable_flushed_sequence(&world->memtable, world->sequence - 1));
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
        memtable_flush_failed(&world->memtable, &world->job);
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

/* ---- single situations ---------------------------------------------------------------------------------- */

static struct memtable_put plain_put(struct memtable *memtable, const char *key, const char *record,
                                     uint64_t sequence)
{
    struct span span = span_of_text(key);
    return (struct memtable_put){.key = span,
                                 .record = span_of_text(record),
                                 .hash = memtable_hash(memtable, span),
                                 .sequence = sequence,
                                 .live = true};
}

static struct row *plain_find(struct memtable *memtable, const char *key)
{
    return memtable_find(memtable, span_of_text(key), memtable_hash(memtable, span_of_text(key)));
}

static void a_row_that_changes_during_its_flush_stays_dirty(void **state)
{
    (void)state;
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, 1u << 20);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 1u << 20};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    struct memtable_put put = plain_put(&memtable, "changes", "one", 2);
    assert_int_equal(memtable_put(&memtable, &put), STATUS_OK);
    put = plain_put(&memtable, "stays", "one", 3);
    assert_int_equal(memtable_put(&memtable, &put), STATUS_OK);
    assert_int_equal(memtable_flushed_sequence(&memtable, 3), 1);
    struct flush_job job;
    assert_int_equal(memtable_freeze(&memtable, &job, UINT64_MAX, 3), STATUS_OK);
    assert_int_equal(job.sequence, 3);
    put = plain_put(&memtable, "changes", "two", 4);
    assert_int_equal(memtable_put(&memtable, &put), STATUS_OK);
    flush_sort(&job);
    assert_int_equal(flush_count(&job), 2);
    for (uint64_t i = 0; i < 2; i++)
        assert_true(span_is(flush_row(&job, i).record, "one"));
    assert_true(memtable_flush_done(&memtable, &job, UINT64_MAX));
    assert_true(row_dirty(plain_find(&memtable, "changes")));
    assert_true(row_in_cold(plain_find(&memtable, "changes")));
    assert_true(span_is(row_record(plain_find(&memtable, "changes")), "two"));
    assert_false(row_dirty(plain_find(&memtable, "stays")));
    assert_int_equal(memtable_flushed_sequence(&memtable, 4), 3);
    assert_int_equal(memtable_freeze(&memtable, &job, UINT64_MAX, 4), STATUS_OK);
    memtable_flush_failed(&memtable, &job);
    assert_int_equal(memtable_flushed_sequence(&memtable, 4), 3);
    memtable_free(&memtable);
    assert_int_equal(alloc.used_bytes, 0);
}

static void a_scan_does_not_push_out_rows_in_use(void **state)
{
    (void)state;
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 1u << 20};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    char text[32];
    char record[101];
    memset(record, 'r', 100);
    record[100] = 0;
    for (int scanned = 0; scanned < 200000; scanned++) {
        size_t size = 0;
        for (int rest = scanned + 1; rest > 0; rest /= 10)
            text[size++] = (char)('0' + rest % 10);
        text[size] = 0;
        struct memtable_put put = plain_put(&memtable, text, record, 0);
        assert_int_equal(memtable_load(&memtable, &put), STATUS_OK);
        /* The working set: rows 1 to 1000 (digits reversed) are used now and then. */
        int used = scanned % 1000 + 1;
        size = 0;
        for (int rest = used; rest > 0; rest /= 10)
            text[size++] = (char)('0' + rest % 10);
        text[size] = 0;
        if (scanned >= 1000)
            assert_non_null(plain_find(&memtable, text));
        else
            (void)plain_find(&memtable, text);
    }
    assert_true(memtable_counters(&memtable)->evictions > 150000);
    assert_true(memtable_counters(&memtable)->bytes <= 1u << 20);
    memtable_free(&memtable);
}

static void memory_full_of_dirty_rows_is_overloaded_until_a_flush(void **state)
{
    (void)state;
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 200000};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    char text[3] = {0};
    int written = 0;
    enum status status = STATUS_OK;
    for (int i = 0; status == STATUS_OK; i++) {
        text[0] = (char)(1 + i % 200);
        text[1] = (char)(1 + i / 200);
        struct memtable_put put = plain_put(&memtable, text, "a record of some bytes", 2);
        status = memtable_put(&memtable, &put);
        written += status == STATUS_OK;
    }
    assert_int_equal(status, STATUS_OVERLOADED);
    assert_int_equal(memtable_counters(&memtable)->rows, written);
    assert_true(memtable_counters(&memtable)->bytes <= 200000);
    struct memtable_put again = plain_put(&memtable, text, "a record of some bytes", 3);
    assert_int_equal(memtable_put(&memtable, &again), STATUS_OVERLOADED);
    struct flush_job job;
    assert_int_equal(memtable_freeze(&memtable, &job, UINT64_MAX, 2), STATUS_OK);
    while (!memtable_flush_done(&memtable, &job, 100))
        continue;
    assert_int_equal(memtable_put(&memtable, &again), STATUS_OK);
    memtable_free(&memtable);
    assert_int_equal(alloc.used_bytes, 0);
}

static void a_row_of_100_bytes_costs_little_more(void **state)
{
    (void)state;
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = UINT64_C(1) << 30};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    uint8_t record[118] = {0};
    double worst = 1;
    for (uint64_t i = 0; i < 120000; i++) {
        uint64_t key[2] = {i, i * 77};
        struct span span = span_of(key, sizeof key);
        struct memtable_put put = {.key = span,
                                   .record = span_of(record, sizeof record),
                                   .hash = memtable_hash(&memtable, span),
                                   .live = true};
        assert_int_equal(memtable_load(&memtable, &put), STATUS_OK);
        double ratio = (double)(116 * (i + 1)) / (double)memtable_counters(&memtable)->bytes;
        if (i > 20000 && ratio < worst)
            worst = ratio;
    }
    print_message(
        "data / memory, worst from 20,000 to 120,000 rows: %.3f; %.1f bytes beside key and record\n", worst,
        (double)memtable_counters(&memtable)->bytes / 120000 - 134);
    assert_true(worst >= 0.6);
    memtable_free(&memtable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_a_naive_map_with_room_for_all),
        cmocka_unit_test(against_a_naive_map_with_eviction),
        cmocka_unit_test(against_a_naive_map_with_failing_allocations),
        cmocka_unit_test(a_row_that_changes_during_its_flush_stays_dirty),
        cmocka_unit_test(a_scan_does_not_push_out_rows_in_use),
        cmocka_unit_test(memory_full_of_dirty_rows_is_overloaded_until_a_flush),
        cmocka_unit_test(a_row_of_100_bytes_costs_little_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
