/* The lww record: merging against its three laws, the canonical form against every near miss, and visibility. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "model/record.h"

#define NOW_MS 100000u

static struct alloc test_alloc;

static struct stamp stamp_of(uint64_t time)
{
    return (struct stamp){.time = time, .actor = 1 + time % 3};
}

/* ---- random records ------------------------------------------------------------------------------------- */

/* What a stamp stands for follows from the stamp: none is made twice for a key. Few stamps, so that they meet. */
static struct record draw_value(struct prng *prng)
{
    static const uint8_t bytes[9] = "12345678";
    uint64_t time = 1 + prng_below(prng, 8);
    struct record record = {.flags = RECORD_VALUE, .stamp = stamp_of(time)};
    if (time % 3 == 0) {
        record.flags |= RECORD_TOMBSTONE;
        return record;
    }
    record.value = span_of(bytes, time % 2 == 0 ? 0 : time);
    if (time % 4 == 1) {
        record.flags |= RECORD_EXPIRY;
        record.expiry_ms = NOW_MS + time;
    }
    return record;
}

static struct record draw_record(struct prng *prng)
{
    struct record record = {0};
    uint64_t kind = prng_below(prng, 4);
    if (kind != 0)
        record = draw_value(prng);
    uint64_t time = 20 + prng_below(prng, 8);
    struct stamp applies_to = stamp_of(1 + time * 5 % 8);
    bool allowed = stamp_none(record.stamp) || stamp_compare(applies_to, record.stamp) >= 0;
    if (kind == 0 || (kind > 1 && allowed)) {
        record.flags |= RECORD_OVERRIDE;
        record.override_applies_to = applies_to;
        record.override_stamp = stamp_of(time);
        record.override_expiry_ms = time % 2 == 0 ? 0 : NOW_MS + time;
    }
    return prng_chance(prng, 1, 10) ? (struct record){0} : record;
}

static void put(struct buf *buf, const struct record *record)
{
    buf_clear(buf);
    record_put(buf, record);
    assert_false(buf->failed);
    assert_int_equal(buf->size, record_size(record));
}

static void assert_same(const struct record *a, const struct record *b)
{
    struct buf x;
    struct buf y;
    buf_init(&x, &test_alloc);
    buf_init(&y, &test_alloc);
    put(&x, a);
    put(&y, b);
    assert_true(span_equal(buf_span(&x), buf_span(&y)));
    assert_true(version_equal(record_version(a), record_version(b)));
    assert_int_equal(record_live(a, NOW_MS + 22), record_live(b, NOW_MS + 22));
    buf_free(&x);
    buf_free(&y);
}

/* ---- merging -------------------------------------------------------------------------------------------- */

static void merge_is_commutative_associative_and_idempotent(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 11);
    for (int i = 0; i < 100000; i++) {
        struct record a = draw_record(&prng);
        struct record b = draw_record(&prng);
        struct record c = draw_record(&prng);
        struct record ab = record_merge(&a, &b);
        struct record ba = record_merge(&b, &a);
        struct record bc = record_merge(&b, &c);
        struct record left = record_merge(&ab, &c);
        struct record right = record_merge(&a, &bc);
        struct record again = record_merge(&ab, &a);
        assert_same(&ab, &ba);
        assert_same(&left, &right);
        assert_same(&again, &ab);
    }
}

/* All orders of the same five records, doubled at random, end in the same bytes, whatever goes missing in between. */
static void merge_of_the_same_records_in_any_order_gives_the_same_bytes(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 12);
    for (int i = 0; i < 5000; i++) {
        struct record records[5];
        for (int at = 0; at < 5; at++)
            records[at] = draw_record(&prng);
        struct record first = {0};
        for (int at = 0; at < 5; at++)
            first = record_merge(&first, &records[at]);
        struct record other = {0};
        uint32_t seen = 0;
        while (seen != 31) {
            uint64_t at = prng_below(&prng, 5);
            seen |= 1u << at;
            other = record_merge(&records[at], &other);
        }
        assert_same(&first, &other);
    }
}

static void merge_keeps_the_higher_value_and_its_own_expiry(void **state)
{
    (void)state;
    struct record old = {.flags = RECORD_VALUE | RECORD_EXPIRY,
                         .stamp = stamp_of(5),
                         .expiry_ms = 9,
                         .value = span_of_text("old")};
    struct record new = {.flags = RECORD_VALUE, .stamp = stamp_of(6), .value = span_of_text("new")};
    struct record merged = record_merge(&old, &new);
    assert_same(&merged, &new);
    assert_true(span_is(merged.value, "new"));
    assert_int_equal(record_expiry_ms(&merged), 0);
}

static void merge_with_a_newer_tombstone_deletes_and_with_an_older_one_does_not(void **state)
{
    (void)state;
    struct record value = {.flags = RECORD_VALUE, .stamp = stamp_of(5), .value = span_of_text("v")};
    struct record newer = {.flags = RECORD_VALUE | RECORD_TOMBSTONE, .stamp = stamp_of(6)};
    struct record older = {.flags = RECORD_VALUE | RECORD_TOMBSTONE, .stamp = stamp_of(4)};
    struct record deleted = record_merge(&value, &newer);
    struct record kept = record_merge(&value, &older);
    assert_false(record_live(&deleted, NOW_MS));
    assert_true(record_live(&kept, NOW_MS));
}

/* ---- EXPIRE and a concurrent SET ------------------------------------------------------------------------ */

static struct record value_at(uint64_t time)
{
    return (struct record){.flags = RECORD_VALUE, .stamp = stamp_of(time), .value = span_of_text("v")};
}

static struct record override_at(uint64_t applies_to, uint64_t time, uint64_t expiry_ms)
{
    return (struct record){.flags = RECORD_OVERRIDE,
                           .override_applies_to = stamp_of(applies_to),
                           .override_stamp = stamp_of(time),
                           .override_expiry_ms = expiry_ms};
}

static void expire_counts_for_the_value_that_it_names(void **state)
{
    (void)state;
    struct record value = value_at(5);
    struct record expire = override_at(5, 9, NOW_MS);
    struct record merged = record_merge(&value, &expire);
    assert_true(record_live(&merged, NOW_MS - 1));
    assert_false(record_live(&merged, NOW_MS));
    struct record persist = override_at(5, 10, 0);
    merged = record_merge(&persist, &merged);
    assert_true(record_live(&merged, NOW_MS));
    assert_int_equal(record_stamp_max(&merged).time, 10);
}

static void expire_of_an_older_value_neither_expires_nor_outlives_a_set(void **state)
{
    (void)state;
    /* The override's own stamp is higher than the SET's: what it names decides, not when it was made. */
    struct record set = value_at(7);
    struct record expire = override_at(5, 9, 1);
    struct record merged = record_merge(&set, &expire);
    assert_same(&merged, &set);
    assert_true(record_live(&merged, NOW_MS));
    /* In whatever order the three arrive. */
    struct record value = value_at(5);
    struct record early = record_merge(&value, &expire);
    merged = record_merge(&early, &set);
    assert_same(&merged, &set);
}

static void expire_that_arrives_before_its_value_is_kept_and_not_seen(void **state)
{
    (void)state;
    struct record old = value_at(5);
    struct record expire = override_at(7, 9, 1);
    struct record waiting = record_merge(&old, &expire);
    assert_true(record_live(&waiting, NOW_MS));
    assert_int_equal(record_expiry_ms(&waiting), 0);
    struct record value = value_at(7);
    struct record merged = record_merge(&waiting, &value);
    assert_false(record_live(&merged, NOW_MS));
    assert_int_equal(record_expiry_ms(&merged), 1);
}

static void expire_loses_to_a_later_one_for_the_same_value_and_to_any_for_a_newer(void **state)
{
    (void)state;
    struct record earlier = override_at(5, 8, 111);
    struct record later = override_at(5, 9, 222);
    struct record newer_value = override_at(6, 7, 333);
    struct record merged = record_merge(&earlier, &later);
    assert_int_equal(merged.override_expiry_ms, 222);
    merged = record_merge(&merged, &newer_value);
    assert_int_equal(merged.override_expiry_ms, 333);
}

static void expire_alone_or_on_a_tombstone_makes_nothing_live(void **state)
{
    (void)state;
    struct record alone = override_at(5, 9, 0);
    struct record tombstone = {.flags = RECORD_VALUE | RECORD_TOMBSTONE, .stamp = stamp_of(5)};
    struct record merged = record_merge(&alone, &tombstone);
    assert_false(record_live(&alone, 0));
    assert_false(record_live(&merged, 0));
}

static void expiry_hides_a_value_from_its_millisecond_on(void **state)
{
    (void)state;
    struct record record = value_at(5);
    record.flags |= RECORD_EXPIRY;
    record.expiry_ms = NOW_MS;
    assert_true(record_live(&record, NOW_MS - 1));
    assert_false(record_live(&record, NOW_MS));
    assert_false(record_live(&record, UINT64_MAX));
    struct record none = {0};
    assert_false(record_live(&none, 0));
    assert_true(record_empty(&none));
}

/* ---- bytes ---------------------------------------------------------------------------------------------- */

static void bytes_of_a_random_record_parse_to_the_same_record(void **state)
{
    (void)state;
    struct prng prng;
    struct buf buf;
    prng_seed(&prng, 13);
    buf_init(&buf, &test_alloc);
    for (int i = 0; i < 20000; i++) {
        struct record record = draw_record(&prng);
        struct record back;
        put(&buf, &record);
        assert_int_equal(record_parse(buf_span(&buf), &back), STATUS_OK);
        assert_same(&record, &back);
    }
    buf_free(&buf);
}

static void bytes_of_a_known_record_stand_as_documented(void **state)
{
    (void)state;
    static const uint8_t expected[] = {1, 5, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0,   0,
                                       0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 'h', 'i'};
    struct record record = {.flags = RECORD_VALUE | RECORD_EXPIRY,
                            .stamp = {.time = 2, .actor = 3},
                            .expiry_ms = 4,
                            .value = span_of_text("hi")};
    struct buf buf;
    buf_init(&buf, &test_alloc);
    put(&buf, &record);
    assert_int_equal(buf.size, sizeof expected);
    assert_memory_equal(buf.data, expected, sizeof expected);
    buf_free(&buf);
}

/* Refused, or the very same bytes again. */
static bool check_canonical(struct span bytes)
{
    struct record record;
    struct buf again;
    if (record_parse(bytes, &record) != STATUS_OK) {
        assert_true(record_empty(&record));
        return false;
    }
    buf_init(&again, &test_alloc);
    put(&again, &record);
    assert_true(span_equal(buf_span(&again), bytes));
    buf_free(&again);
    return true;
}

static void bytes_changed_anywhere_are_refused_or_canonical(void **state)
{
    (void)state;
    struct prng prng;
    struct buf buf;
    int refused = 0;
    prng_seed(&prng, 14);
    buf_init(&buf, &test_alloc);
    for (int i = 0; i < 100; i++) {
        struct record record = draw_record(&prng);
        put(&buf, &record);
        for (size_t at = 0; at < buf.size; at++) {
            uint8_t was = buf.data[at];
            for (int value = 0; value < 256; value++) {
                buf.data[at] = (uint8_t)value;
                refused += !check_canonical(buf_span(&buf));
            }
            buf.data[at] = was;
            (void)check_canonical(span_of(buf.data, at));
        }
        for (int tail = 0; tail < 20; tail++) {
            buf_put_u8(&buf, 0);
            (void)check_canonical(buf_span(&buf));
        }
    }
    assert_true(refused > 100 * 2 * 240);
    buf_free(&buf);
}

static void refuse(uint8_t kind, uint8_t flags, const uint64_t *numbers, size_t count, const char *value)
{
    struct buf buf;
    struct record record;
    buf_init(&buf, &test_alloc);
    buf_put_u8(&buf, kind);
    buf_put_u8(&buf, flags);
    for (size_t i = 0; i < count; i++)
        buf_put_u64(&buf, numbers[i]);
    buf_append_text(&buf, value);
    assert_int_equal(record_parse(buf_span(&buf), &record), STATUS_MALFORMED);
    buf_free(&buf);
}

static void bytes_that_no_record_would_give_are_refused(void **state)
{
    (void)state;
    static const uint64_t ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const uint64_t no_stamp[2] = {0, 5};
    static const uint64_t no_expiry[3] = {1, 1, 0};
    static const uint64_t no_override[5] = {1, 1, 0, 1, 1};
    static const uint64_t names_nothing[5] = {0, 1, 1, 1, 1};
    static const uint64_t older[7] = {2, 1, 1, 9, 3, 1, 1};
    refuse(2, RECORD_VALUE, ones, 2, "");
    refuse(0, RECORD_VALUE, ones, 2, "");
    refuse(1, 0, ones, 0, "");
    refuse(1, RECORD_VALUE | 16, ones, 2, "");
    refuse(1, RECORD_TOMBSTONE, ones, 0, "");
    refuse(1, RECORD_EXPIRY | RECORD_OVERRIDE, ones, 6, "");
    refuse(1, RECORD_VALUE | RECORD_TOMBSTONE, ones, 2, "x");
    refuse(1, RECORD_VALUE | RECORD_TOMBSTONE | RECORD_EXPIRY, ones, 3, "");
    refuse(1, RECORD_OVERRIDE, ones, 5, "x");
    refuse(1, RECORD_VALUE, no_stamp, 2, "v");
    refuse(1, RECORD_VALUE | RECORD_EXPIRY, no_expiry, 3, "v");
    refuse(1, RECORD_OVERRIDE, no_override, 5, "");
    refuse(1, RECORD_OVERRIDE, names_nothing, 5, "");
    refuse(1, RECORD_VALUE | RECORD_OVERRIDE, older, 7, "v");
    refuse(1, RECORD_VALUE, ones, 1, "short");
}

static void bytes_that_do_not_fit_the_budget_fail_the_buffer(void **state)
{
    (void)state;
    struct alloc small;
    struct buf buf;
    struct record record = value_at(5);
    alloc_init(&small, 8);
    buf_init(&buf, &small);
    record_put(&buf, &record);
    assert_true(buf.failed);
    assert_int_equal(buf.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_is_commutative_associative_and_idempotent),
        cmocka_unit_test(merge_of_the_same_records_in_any_order_gives_the_same_bytes),
        cmocka_unit_test(merge_keeps_the_higher_value_and_its_own_expiry),
        cmocka_unit_test(merge_with_a_newer_tombstone_deletes_and_with_an_older_one_does_not),
        cmocka_unit_test(expire_counts_for_the_value_that_it_names),
        cmocka_unit_test(expire_of_an_older_value_neither_expires_nor_outlives_a_set),
        cmocka_unit_test(expire_that_arrives_before_its_value_is_kept_and_not_seen),
        cmocka_unit_test(expire_loses_to_a_later_one_for_the_same_value_and_to_any_for_a_newer),
        cmocka_unit_test(expire_alone_or_on_a_tombstone_makes_nothing_live),
        cmocka_unit_test(expiry_hides_a_value_from_its_millisecond_on),
        cmocka_unit_test(bytes_of_a_random_record_parse_to_the_same_record),
        cmocka_unit_test(bytes_of_a_known_record_stand_as_documented),
        cmocka_unit_test(bytes_changed_anywhere_are_refused_or_canonical),
        cmocka_unit_test(bytes_that_no_record_would_give_are_refused),
        cmocka_unit_test(bytes_that_do_not_fit_the_budget_fail_the_buffer),
    };
    alloc_init(&test_alloc, SIZE_MAX);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
