/* The memtable's memory: what rows cost, and which of them go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memtable_rows.h"
#include "model/key.h"
#include "store/flush.h"

#define FULL_BYTES (UINT64_C(8) << 20)

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

/* A clean row of the number, with a record of `size` bytes. */
static enum status load_number(struct memtable *memtable, uint64_t number, size_t size)
{
    static const uint8_t record[2000] = {1};
    struct span key = span_of(&number, sizeof number);
    struct memtable_put put = {
        .key = key, .record = span_of(record, size), .hash = memtable_hash(memtable, key), .live = true};
    return memtable_load(memtable, &put);
}

static bool number_resident(struct memtable *memtable, uint64_t number)
{
    struct span key = span_of(&number, sizeof number);
    return memtable_find(memtable, key, memtable_hash(memtable, key)) != NULL;
}

/* Of the rows numbered 0 to count - 1, how many are there; nothing is used by that. */
static uint64_t resident_of(const struct memtable *memtable, uint64_t count)
{
    uint64_t resident = 0;
    for (uint64_t number = 0; number < count; number++) {
        struct span key = span_of(&number, sizeof number);
        resident += memtable_peek(memtable, key, memtable_hash(memtable, key)) != NULL;
    }
    return resident;
}

/* The working set is used, then twice as many rows as fit pass once, each used as it comes, and so on. Last recently
 * used first would keep nothing of it in any round. */
static void a_scan_of_twice_the_memory_leaves_the_working_set(void **state)
{
    (void)state;
    enum {
        SET = 1000,
        SCANNED = 14000,
        ROUNDS = 20
    };
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 1u << 20};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    uint64_t scanned = SET;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t resident = resident_of(&memtable, SET);
        if (round > 0)
            assert_true(resident > SET / 10 * 9);
        for (uint64_t number = 0; number < SET; number++) {
            assert_int_equal(load_number(&memtable, number, 100), STATUS_OK);
            for (int used = 0; used < 2; used++)
                assert_true(number_resident(&memtable, number));
        }
        uint64_t evicted = memtable_counters(&memtable)->evictions;
        for (int i = 0; i < SCANNED; i++)
            assert_int_equal(load_number(&memtable, scanned++, 100), STATUS_OK);
        uint64_t others = memtable_counters(&memtable)->rows - SET;
        assert_true(SCANNED > 2 * others);
        assert_true(round == 0 || memtable_counters(&memtable)->evictions - evicted > SCANNED * 9 / 10);
    }
    memtable_free(&memtable);
}

/* Slot of each number's key as a user's. */
static void a_slot_is_noted_when_a_row_of_it_is_evicted(void **state)
{
    (void)state;
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 1u << 20};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    uint64_t number = 0;
    while (memtable_counters(&memtable)->evictions < 500)
        assert_int_equal(load_number(&memtable, number++, 100), STATUS_OK);
    uint64_t noted = 0;
    for (uint16_t slot = 0; slot < SLOTS_COUNT; slot++)
        noted += memtable_slot_evicted(&memtable, slot);
    assert_true(noted > 400 && noted <= memtable_counters(&memtable)->evictions);
    while (number-- > 0) {
        struct span key = span_of(&number, sizeof number);
        if (memtable_peek(&memtable, key, memtable_hash(&memtable, key)) == NULL)
            assert_true(memtable_slot_evicted(&memtable, key_slot(key)));
    }
    memtable_free(&memtable);
}

static void rows_make_room_when_the_target_falls(void **state)
{
    (void)state;
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 8u << 20};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    for (uint64_t number = 0; number < 60000; number++)
        assert_int_equal(load_number(&memtable, number, 100), STATUS_OK);
    assert_true(memtable_counters(&memtable)->bytes > 7u << 20);
    memtable_set_target(&memtable, 2u << 20);
    /* A put need not wait until all of the room is made. */
    struct memtable_put put = plain_put(&memtable, "written", "meanwhile", 2);
    assert_int_equal(memtable_put(&memtable, &put), STATUS_OK);
    while (memtable_upkeep(&memtable))
        continue;
    assert_true(memtable_counters(&memtable)->bytes <= 2u << 20);
    assert_non_null(plain_find(&memtable, "written"));
    memtable_set_target(&memtable, UINT64_MAX);
    assert_int_equal(memtable_target(&memtable), options.budget_bytes);
    memtable_free(&memtable);
    assert_int_equal(alloc.used_bytes, 0);
}

static enum status write_number(struct memtable *memtable, uint64_t number, size_t size)
{
    uint8_t record[100] = {1};
    assert_true(size <= sizeof record);
    struct span key = span_of(&number, sizeof number);
    struct memtable_put put = {.key = key,
                               .record = span_of(record, size),
                               .hash = memtable_hash(memtable, key),
                               .sequence = 2,
                               .live = true};
    return memtable_put(memtable, &put);
}

/* A memtable of FULL_BYTES into which so many clean rows were read: more than fit. */
static void open_full(struct memtable *memtable, struct alloc *alloc, uint64_t count)
{
    alloc_init(alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = alloc, .budget_bytes = FULL_BYTES};
    assert_int_equal(memtable_init(memtable, &options), STATUS_OK);
    for (uint64_t number = 0; number < count; number++)
        assert_int_equal(load_number(memtable, number, 100), STATUS_OK);
}

/* The job comes on top of the budget; the rows that give way to it go a slice at a time. */
static void puts_go_on_when_a_flush_begins_in_full_memory(void **state)
{
    (void)state;
    enum {
        ROWS = 60000
    };
    struct alloc alloc;
    struct memtable memtable;
    open_full(&memtable, &alloc, ROWS);
    for (uint64_t number = ROWS / 2; number < ROWS; number++)
        assert_int_equal(write_number(&memtable, number, 100), STATUS_OK);
    while (memtable_upkeep(&memtable))
        continue;
    struct flush_job job;
    assert_int_equal(memtable_freeze(&memtable, &job, UINT64_MAX, 2), STATUS_OK);
    assert_true(memtable_counters(&memtable)->bytes > FULL_BYTES);
    for (uint64_t number = ROWS; number < ROWS + 1000; number++)
        assert_int_equal(write_number(&memtable, number, 100), STATUS_OK);
    while (!memtable_flush_done(&memtable, &job, 1000))
        continue;
    while (memtable_upkeep(&memtable))
        continue;
    assert_true(memtable_counters(&memtable)->bytes <= FULL_BYTES);
    memtable_free(&memtable);
    assert_int_equal(alloc.used_bytes, 0);
}

/* Frozen rows stand in every page, so no page can be given back: evicting more than the target asks for, or looking for
 * what to evict, would be for nothing. */
static void a_target_that_falls_during_a_flush_waits_for_its_end(void **state)
{
    (void)state;
    enum {
        ROWS = 60000,
        LATER = 1000
    };
    struct alloc alloc;
    struct memtable memtable;
    open_full(&memtable, &alloc, ROWS);
    for (uint64_t number = 0; number < ROWS; number += 10)
        assert_int_equal(write_number(&memtable, number, 100), STATUS_OK);
    while (memtable_upkeep(&memtable))
        continue;
    struct flush_job job;
    assert_int_equal(memtable_freeze(&memtable, &job, UINT64_MAX, 2), STATUS_OK);
    const struct memtable_counters *counters = memtable_counters(&memtable);
    uint64_t before = counters->rows;
    memtable_set_target(&memtable, FULL_BYTES - (512u << 10));
    for (uint64_t number = ROWS; number < ROWS + LATER; number++) {
        assert_int_equal(load_number(&memtable, number, 100), STATUS_OK);
        for (int turns = 0; memtable_upkeep(&memtable); turns++)
            assert_true(turns < 100);
    }
    /* A sixteenth for the target and as much for the headroom; a quarter went when free cells were no room. */
    assert_true(counters->rows >= before - before / 8);
    assert_int_equal(counters->bytes, alloc.used_bytes);
    while (!memtable_flush_done(&memtable, &job, 1000))
        continue;
    while (memtable_upkeep(&memtable))
        continue;
    assert_true(counters->bytes <= memtable_target(&memtable));
    memtable_free(&memtable);
    assert_int_equal(alloc.used_bytes, 0);
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

/* Also where the last of its rows outweigh all others. */
static void a_job_is_halved_until_it_is_the_smallest(void **state)
{
    (void)state;
    struct alloc alloc;
    struct memtable memtable;
    struct flush_job job;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 8u << 20};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    for (uint64_t number = 0; number < UINT64_C(4) * DIRTY_CHUNK_ROWS; number++)
        assert_int_equal(write_number(&memtable, number, number < 3 * DIRTY_CHUNK_ROWS ? 1 : 100), STATUS_OK);
    uint64_t bytes_max = UINT64_MAX;
    for (uint32_t chunks = 4; chunks > 0; chunks /= 2) {
        assert_int_equal(memtable_freeze(&memtable, &job, bytes_max, 2), STATUS_OK);
        assert_int_equal(job.chunk_count, chunks);
        bytes_max = memtable_job_half(&job);
        while (!memtable_flush_failed(&memtable, &job, 1000))
            continue;
    }
    assert_int_equal(bytes_max, 0);
    memtable_free(&memtable);
    assert_int_equal(alloc.used_bytes, 0);
}

/* Sizes come one after the other, and each gets the memory of those before it. */
static void rows_of_another_size_get_the_memory(void **state)
{
    (void)state;
    static const size_t sizes[] = {100, 2000, 20, 300, 700, 900, 40, 100};
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 4u << 20};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    uint64_t number = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t count = 3 * options.budget_bytes / sizes[i];
        for (uint64_t k = 0; k < count; k++) {
            assert_int_equal(load_number(&memtable, ++number, sizes[i]), STATUS_OK);
            assert_true(memtable_counters(&memtable)->bytes <= options.budget_bytes);
            assert_int_equal(memtable_counters(&memtable)->bytes, alloc.used_bytes);
        }
        /* Rows of nothing else are left by now but for few, and they fill most of the memory. */
        uint64_t bytes = memtable_counters(&memtable)->rows * sizes[i];
        print_message("records of %zu bytes: %.2f of the memory\n", sizes[i],
                      (double)bytes / (double)options.budget_bytes);
        assert_true(bytes > options.budget_bytes * (sizes[i] < 100 ? 2u : 5u) / 8);
    }
    memtable_free(&memtable);
    assert_int_equal(alloc.used_bytes, 0);
}

/* Rows stay where they are found while those around them go. */
static void what_is_left_of_many_rows_moves_together(void **state)
{
    (void)state;
    enum {
        ROWS = 20000,
        KEPT = 37
    };
    struct alloc alloc;
    struct memtable memtable;
    alloc_init(&alloc, SIZE_MAX / 2);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = 4u << 20};
    assert_int_equal(memtable_init(&memtable, &options), STATUS_OK);
    for (uint64_t number = 0; number < ROWS; number++)
        assert_int_equal(load_number(&memtable, number, 100), STATUS_OK);
    uint64_t number = ROWS;
    for (int round = 0; round < 40; round++) {
        for (uint64_t kept = 0; kept < ROWS; kept += KEPT)
            assert_true(number_resident(&memtable, kept));
        for (int k = 0; k < 100; k++)
            assert_int_equal(load_number(&memtable, number++, 2000), STATUS_OK);
        while (memtable_upkeep(&memtable))
            continue;
    }
    /* The 541 rows take 70 KB; had they stayed where they were, their pages would take 2.6 MB. */
    uint64_t large = memtable_counters(&memtable)->rows - (ROWS / KEPT + 1);
    assert_true(large * 2000 > options.budget_bytes / 5 * 4);
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
    assert_true(worst >= 0.7);
    memtable_free(&memtable);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scan_does_not_push_out_rows_in_use),
        cmocka_unit_test(a_scan_of_twice_the_memory_leaves_the_working_set),
        cmocka_unit_test(a_slot_is_noted_when_a_row_of_it_is_evicted),
        cmocka_unit_test(rows_make_room_when_the_target_falls),
        cmocka_unit_test(puts_go_on_when_a_flush_begins_in_full_memory),
        cmocka_unit_test(a_target_that_falls_during_a_flush_waits_for_its_end),
        cmocka_unit_test(memory_full_of_dirty_rows_is_overloaded_until_a_flush),
        cmocka_unit_test(a_job_is_halved_until_it_is_the_smallest),
        cmocka_unit_test(rows_of_another_size_get_the_memory),
        cmocka_unit_test(what_is_left_of_many_rows_moves_together),
        cmocka_unit_test(a_row_of_100_bytes_costs_little_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
