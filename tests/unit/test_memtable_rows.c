/* The memtable in single situations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memtable_rows.h"
#include "model/reserved.h"
#include "store/flush.h"

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
    assert_true(memtable_flush_failed(&memtable, &job, UINT64_MAX));
    assert_int_equal(memtable_flushed_sequence(&memtable, 4), 3);
    memtable_free(&memtable);
    assert_int_equal(alloc.used_bytes, 0);
}

/* ---- erased and reserved rows --------------------------------------------------------------------------- */

struct small {
    struct alloc alloc;
    struct memtable memtable;
    struct flush_job job;
    uint64_t sequence;
};

static struct small *small_make(void)
{
    struct small *small = calloc(1, sizeof *small);
    assert_non_null(small);
    alloc_init(&small->alloc, (size_t)8 << 20);
    struct memtable_options options = {.alloc = &small->alloc, .budget_bytes = 8u << 20};
    assert_int_equal(memtable_init(&small->memtable, &options), STATUS_OK);
    small->sequence = 1;
    return small;
}

static void small_free(struct small *small)
{
    memtable_free(&small->memtable);
    assert_int_equal(small->alloc.used_bytes, 0);
    free(small);
}

static void small_put(struct small *small, const char *key, const char *record)
{
    struct memtable_put put = plain_put(&small->memtable, key, record, ++small->sequence);
    put.live = put.record.size > 0;
    assert_int_equal(memtable_put(&small->memtable, &put), STATUS_OK);
}

static void small_freeze(struct small *small)
{
    assert_int_equal(memtable_freeze(&small->memtable, &small->job, UINT64_MAX, small->sequence), STATUS_OK);
}

static void small_flush(struct small *small)
{
    small_freeze(small);
    assert_true(memtable_flush_done(&small->memtable, &small->job, UINT64_MAX));
}

static void an_erased_row_stays_until_the_cold_tier_has_deleted_it(void **state)
{
    (void)state;
    struct small *small = small_make();
    small_put(small, "key", "one");
    small_flush(small);
    small_put(small, "key", "");
    assert_true(row_erased(plain_find(&small->memtable, "key")));
    assert_int_equal(memtable_counters(&small->memtable)->rows_live, 0);
    small_freeze(small);
    flush_sort(&small->job);
    assert_int_equal(flush_count(&small->job), 1);
    assert_true(flush_row(&small->job, 0).erased);
    assert_true(memtable_flush_done(&small->memtable, &small->job, UINT64_MAX));
    assert_null(plain_find(&small->memtable, "key"));
    assert_int_equal(memtable_counters(&small->memtable)->rows, 0);
    small_free(small);
}

static void a_row_erased_while_its_first_version_is_flushed_is_deleted_by_the_next(void **state)
{
    (void)state;
    struct small *small = small_make();
    small_put(small, "key", "one");
    small_freeze(small);
    small_put(small, "key", "two");
    small_put(small, "key", "");
    assert_true(row_erased(plain_find(&small->memtable, "key")));
    assert_false(row_in_cold(plain_find(&small->memtable, "key")));
    assert_true(memtable_flush_done(&small->memtable, &small->job, UINT64_MAX));
    assert_true(row_erased(plain_find(&small->memtable, "key")));
    assert_true(row_in_cold(plain_find(&small->memtable, "key")));
    small_flush(small);
    assert_null(plain_find(&small->memtable, "key"));
    small_free(small);
}

static void a_row_erased_during_a_flush_that_fails_is_gone(void **state)
{
    (void)state;
    struct small *small = small_make();
    small_put(small, "key", "one");
    small_freeze(small);
    small_put(small, "key", "");
    assert_true(memtable_flush_failed(&small->memtable, &small->job, UINT64_MAX));
    assert_null(plain_find(&small->memtable, "key"));
    assert_int_equal(memtable_counters(&small->memtable)->rows_dirty, 0);
    assert_int_equal(memtable_flushed_sequence(&small->memtable, small->sequence), small->sequence);
    assert_int_equal(memtable_freeze(&small->memtable, &small->job, UINT64_MAX, 1), STATUS_NOT_FOUND);
    small_free(small);
}

static void a_row_written_while_its_deletion_is_flushed_is_new_to_the_cold_tier(void **state)
{
    (void)state;
    struct small *small = small_make();
    small_put(small, "written", "one");
    small_put(small, "erased again", "one");
    small_flush(small);
    small_put(small, "written", "");
    small_put(small, "erased again", "");
    small_freeze(small);
    small_put(small, "written", "two");
    small_put(small, "erased again", "two");
    small_put(small, "erased again", "");
    assert_true(row_in_cold(plain_find(&small->memtable, "written")));
    assert_true(memtable_flush_done(&small->memtable, &small->job, UINT64_MAX));
    assert_false(row_in_cold(plain_find(&small->memtable, "written")));
    assert_int_equal(memtable_counters(&small->memtable)->rows_live_not_in_cold, 1);
    assert_null(plain_find(&small->memtable, "erased again"));
    small_free(small);
}

static void rows_that_come_and_go_between_flushes_leave_nothing_behind(void **state)
{
    (void)state;
    struct small *small = small_make();
    small_put(small, "warm", "up");
    small_put(small, "warm", "");
    uint64_t bytes = memtable_counters(&small->memtable)->bytes;
    for (int i = 0; i < 100000; i++) {
        small_put(small, i % 2 == 0 ? "a" : "b", "record");
        small_put(small, i % 2 == 0 ? "a" : "b", "");
    }
    assert_int_equal(memtable_counters(&small->memtable)->bytes, bytes);
    assert_int_equal(memtable_flushed_sequence(&small->memtable, small->sequence), small->sequence);
    struct memtable_slot_cursor cursor = {0};
    assert_null(memtable_slot_dirty(&small->memtable, 0, &cursor));
    small_free(small);
}

static void slot_put(struct small *small, uint16_t slot, const char *key, const char *record)
{
    struct memtable_put put = plain_put(&small->memtable, key, record, ++small->sequence);
    put.slot = slot;
    assert_int_equal(memtable_put(&small->memtable, &put), STATUS_OK);
}

/* The keys of the slot's dirty rows, in order. */
static void expect_slot(struct small *small, uint16_t slot, const char *expected)
{
    struct memtable_slot_cursor cursor = {0};
    char text[64] = "";
    const struct row *row;
    while ((row = memtable_slot_dirty(&small->memtable, slot, &cursor)) != NULL)
        strncat(text, (const char *)row_key(row).data, row_key(row).size);
    assert_string_equal(text, expected);
}

static void the_chain_of_a_slot_never_leads_into_another(void **state)
{
    (void)state;
    struct small *small = small_make();
    slot_put(small, 7, "a", "gone before the flush");
    slot_put(small, 7, "a", "");
    slot_put(small, 9, "b", "one");
    slot_put(small, 7, "c", "one");
    slot_put(small, 7, "d", "one");
    slot_put(small, 7, "c", "two");
    expect_slot(small, 7, "dc");
    expect_slot(small, 9, "b");
    small_freeze(small);
    slot_put(small, 7, "c", "three");
    expect_slot(small, 7, "cd");
    assert_true(memtable_flush_failed(&small->memtable, &small->job, UINT64_MAX));
    expect_slot(small, 7, "dc");
    small_flush(small);
    expect_slot(small, 7, "");
    /* So long afterwards that the lower halves of the places' numbers come round. */
    small->memtable.dirty.base = small->memtable.dirty.slot_last[7] + (UINT64_C(1) << 32);
    slot_put(small, 9, "e", "one");
    slot_put(small, 7, "f", "one");
    expect_slot(small, 7, "f");
    expect_slot(small, 9, "e");
    small_free(small);
}

/* Each call looks at a chunk, whatever there is to do: so a turn's part of it is bounded. */
static void the_end_of_a_flush_comes_in_slices(void **state)
{
    (void)state;
    enum {
        CHUNKS = 5,
        ROWS = CHUNKS * DIRTY_CHUNK_ROWS,
        ADDED = 2500
    };
    for (int fails = 0; fails < 2; fails++) {
        struct small *small = small_make();
        char key[16];
        for (int i = 0; i < ROWS; i++) {
            (void)snprintf(key, sizeof key, "%d", i);
            small_put(small, key, "one");
        }
        small_freeze(small);
        for (uint32_t i = 0; i < ADDED; i++) {
            uint8_t reserved[4] = {0xff, 0xfe, (uint8_t)(i >> 8), (uint8_t)i};
            assert_int_equal(memtable_job_add(&small->memtable, &small->job,
                                              span_of(reserved, sizeof reserved), span_of_text("tree")),
                             STATUS_OK);
        }
        for (int i = 0; i < ROWS; i += 2) {
            (void)snprintf(key, sizeof key, "%d", i);
            small_put(small, key, "two");
        }
        uint32_t calls = 0;
        for (bool over = false; !over; calls++) {
            uint64_t rows = memtable_counters(&small->memtable)->bytes;
            over = fails == 1 ? memtable_flush_failed(&small->memtable, &small->job, 1000)
                              : memtable_flush_done(&small->memtable, &small->job, 1000);
            assert_true(rows >= memtable_counters(&small->memtable)->bytes);
            /* One written between two slices is not forgotten. */
            (void)snprintf(key, sizeof key, "%u", 2 * calls + 1);
            small_put(small, key, "three");
        }
        assert_int_equal(calls, CHUNKS + (ADDED + 999) / 1000);
        assert_int_equal(memtable_counters(&small->memtable)->bytes_retired, 0);
        for (uint32_t i = 0; i < ROWS; i++) {
            (void)snprintf(key, sizeof key, "%u", i);
            struct row *row = plain_find(&small->memtable, key);
            bool third = i % 2 == 1 && i < 2 * calls;
            assert_true(span_is(row_record(row), third ? "three" : i % 2 == 0 ? "two" : "one"));
            assert_int_equal(row_dirty(row), fails == 1 || i % 2 == 0 || third);
        }
        small_free(small);
    }
}

static void reserved_row_and_key_of_the_same_bytes_are_two_rows(void **state)
{
    (void)state;
    struct small *small = small_make();
    uint8_t bytes[RESERVED_SLOT_KEY_BYTES];
    reserved_slot_key(RESERVED_FLOOR, 7, bytes);
    struct span key = span_of(bytes, sizeof bytes);
    struct memtable_put put = {.key = key,
                               .record = span_of_text("reserved"),
                               .hash = memtable_hash_reserved(&small->memtable, key),
                               .slot = SLOTS_COUNT,
                               .sequence = ++small->sequence};
    assert_int_equal(memtable_put(&small->memtable, &put), STATUS_OK);
    assert_null(memtable_find(&small->memtable, key, memtable_hash(&small->memtable, key)));
    put.record = span_of_text("user");
    put.hash = memtable_hash(&small->memtable, key);
    put.slot = key_slot(key);
    put.live = true;
    assert_int_equal(memtable_put(&small->memtable, &put), STATUS_OK);
    const struct memtable_counters *counters = memtable_counters(&small->memtable);
    assert_true(counters->rows == 2 && counters->rows_reserved == 1 && counters->rows_live == 1);
    small_freeze(small);
    assert_int_equal(
        memtable_job_add(&small->memtable, &small->job, span_of("\xff\xfd\0\1", 4), span_of_text("tree")),
        STATUS_OK);
    flush_sort(&small->job);
    static const char *const expected[] = {"user", "reserved", "tree"};
    assert_int_equal(flush_count(&small->job), 3);
    for (uint64_t i = 0; i < 3; i++)
        assert_true(span_is(flush_row(&small->job, i).record, expected[i]));
    assert_true(memtable_flush_failed(&small->memtable, &small->job, UINT64_MAX));
    assert_int_equal(counters->rows, 2);
    small_flush(small);
    small_free(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_that_changes_during_its_flush_stays_dirty),
        cmocka_unit_test(an_erased_row_stays_until_the_cold_tier_has_deleted_it),
        cmocka_unit_test(a_row_erased_while_its_first_version_is_flushed_is_deleted_by_the_next),
        cmocka_unit_test(a_row_erased_during_a_flush_that_fails_is_gone),
        cmocka_unit_test(a_row_written_while_its_deletion_is_flushed_is_new_to_the_cold_tier),
        cmocka_unit_test(rows_that_come_and_go_between_flushes_leave_nothing_behind),
        cmocka_unit_test(the_chain_of_a_slot_never_leads_into_another),
        cmocka_unit_test(the_end_of_a_flush_comes_in_slices),
        cmocka_unit_test(reserved_row_and_key_of_the_same_bytes_are_two_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
