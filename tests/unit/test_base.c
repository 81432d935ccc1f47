/* Unit tests of src/base: what everything else stands on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/prng.h"
#include "base/span.h"
#include "base/status.h"
#include "base/timer.h"

#define BUDGET_BYTES (1u << 20)

/* ---- status --------------------------------------------------------------------------------------------- */

static void status_every_code_has_its_number_and_texts(void **state)
{
    (void)state;
    assert_int_equal(STATUS_OK, 0);
    assert_int_equal(STATUS_PURGED, STATUS_COUNT - 1);
    for (int i = 0; i < STATUS_COUNT; i++) {
        assert_string_not_equal(status_name((enum status)i), "INVALID");
        assert_string_not_equal(status_text((enum status)i), "not a status code");
        for (int j = 0; j < i; j++)
            assert_string_not_equal(status_name((enum status)i), status_name((enum status)j));
    }
    assert_string_equal(status_name(STATUS_OUTCOME_UNKNOWN), "UNKNOWN");
}

static void status_outside_the_range_is_named_so(void **state)
{
    (void)state;
    assert_string_equal(status_name((enum status)STATUS_COUNT), "INVALID");
    assert_string_equal(status_text((enum status)STATUS_COUNT), "not a status code");
}

/* ---- alloc ---------------------------------------------------------------------------------------------- */

static void alloc_counts_bytes_and_gives_them_back(void **state)
{
    (void)state;
    struct alloc alloc;
    alloc_init(&alloc, BUDGET_BYTES);
    void *a = alloc_get(&alloc, 100);
    uint8_t *b = alloc_get_zeroed(&alloc, 200);
    assert_non_null(a);
    assert_non_null(b);
    for (int i = 0; i < 200; i++)
        assert_int_equal(b[i], 0);
    assert_int_equal(alloc.used_bytes, 300 + 2 * ALLOC_OVERHEAD_BYTES);
    alloc_put(&alloc, a, 100);
    alloc_put(&alloc, b, 200);
    alloc_put(&alloc, NULL, 50);
    assert_int_equal(alloc.used_bytes, 0);
    assert_int_equal(alloc.peak_bytes, 300 + 2 * ALLOC_OVERHEAD_BYTES);
    assert_int_equal(alloc.calls, 2);
}

static void alloc_past_the_budget_answers_null(void **state)
{
    (void)state;
    struct alloc alloc;
    alloc_init(&alloc, 100 + ALLOC_OVERHEAD_BYTES);
    assert_true(alloc_fits(&alloc, 100));
    assert_false(alloc_fits(&alloc, 101));
    assert_false(alloc_fits(&alloc, SIZE_MAX));
    assert_false(alloc_fits(&alloc, SIZE_MAX - ALLOC_OVERHEAD_BYTES + 1));
    assert_null(alloc_get(&alloc, 101));
    assert_null(alloc_get_zeroed(&alloc, 101));
    void *block = alloc_get(&alloc, 100);
    assert_non_null(block);
    assert_null(alloc_get(&alloc, 1));
    assert_false(alloc_fits(&alloc, 0));
    alloc_put(&alloc, block, 100);
    assert_int_equal(alloc.used_bytes, 0);
}

static void alloc_resize_keeps_the_bytes_and_on_failure_the_block(void **state)
{
    (void)state;
    struct alloc alloc;
    alloc_init(&alloc, 1000 + ALLOC_OVERHEAD_BYTES);
    char *block = alloc_resize(&alloc, NULL, 0, 10);
    assert_non_null(block);
    memcpy(block, "0123456789", 10);
    block = alloc_resize(&alloc, block, 10, 1000);
    assert_non_null(block);
    assert_memory_equal(block, "0123456789", 10);
    assert_int_equal(alloc.used_bytes, 1000 + ALLOC_OVERHEAD_BYTES);
    assert_null(alloc_resize(&alloc, block, 1000, 1001));
    assert_memory_equal(block, "0123456789", 10);
    block = alloc_resize(&alloc, block, 1000, 5);
    assert_non_null(block);
    assert_int_equal(alloc.used_bytes, 5 + ALLOC_OVERHEAD_BYTES);
    alloc_put(&alloc, block, 5);
    assert_int_equal(alloc.used_bytes, 0);
}

static void alloc_fails_at_the_call_asked_for(void **state)
{
    (void)state;
    for (uint64_t fail = 1; fail <= 4; fail++) {
        struct alloc alloc;
        alloc_init(&alloc, BUDGET_BYTES);
        alloc.fail_at_call = fail;
        void *a = alloc_get(&alloc, 8);
        void *b = alloc_get_zeroed(&alloc, 8);
        assert_int_equal(a == NULL, fail == 1);
        assert_int_equal(b == NULL, fail == 2);
        void *c = alloc_resize(&alloc, a, a == NULL ? 0 : 8, 16);
        assert_int_equal(c == NULL, fail == 3);
        if (c == NULL)
            alloc_put(&alloc, a, 8);
        else
            alloc_put(&alloc, c, 16);
        alloc_put(&alloc, b, 8);
        assert_int_equal(alloc.used_bytes, 0);
    }
}

/* ---- spans and numbers ---------------------------------------------------------------------------------- */

static void span_comparisons_follow_memcmp_and_length(void **state)
{
    (void)state;
    assert_true(span_equal(span_of(NULL, 0), span_of_text("")));
    assert_true(span_is(span_of_text("abc"), "abc"));
    assert_false(span_is(span_of_text("abc"), "abcd"));
    assert_true(span_compare(span_of_text("ab"), span_of_text("abc")) < 0);
    assert_true(span_compare(span_of_text("abc"), span_of_text("ab")) > 0);
    assert_true(span_compare(span_of_text("b"), span_of_text("abc")) > 0);
    assert_true(span_compare(span_of_text("\xff"), span_of_text("a")) > 0);
    assert_int_equal(span_compare(span_of(NULL, 0), span_of_text("")), 0);
}

static void span_is_nocase_folds_ascii_letters_only(void **state)
{
    (void)state;
    assert_true(span_is_nocase(span_of_text("gEt"), "GET"));
    assert_true(span_is_nocase(span_of_text(""), ""));
    assert_false(span_is_nocase(span_of_text("ge"), "get"));
    assert_false(span_is_nocase(span_of_text("gett"), "get"));
    assert_false(span_is_nocase(span_of("get\0x", 5), "get"));
    assert_false(span_is_nocase(span_of_text("@"), "`"));
    assert_false(span_is_nocase(span_of_text("["), "{"));
}

static void numbers_at_their_bounds_parse(void **state)
{
    (void)state;
    uint64_t u = 0;
    int64_t i = 0;
    assert_int_equal(span_parse_u64(span_of_text("0"), &u), STATUS_OK);
    assert_int_equal(u, 0);
    assert_int_equal(span_parse_u64(span_of_text("18446744073709551615"), &u), STATUS_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(span_parse_i64(span_of_text("9223372036854775807"), &i), STATUS_OK);
    assert_true(i == INT64_MAX);
    assert_int_equal(span_parse_i64(span_of_text("-9223372036854775808"), &i), STATUS_OK);
    assert_true(i == INT64_MIN);
}

static void numbers_that_are_none_are_malformed_and_change_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "-", "+1", " 1", "1 ", "1a", "0x10", "18446744073709551616", "99999999999999999999", "--1", "1.0",
    };
    for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++) {
        uint64_t u = 7;
        int64_t i = 7;
        assert_int_equal(span_parse_u64(span_of_text(bad[n]), &u), STATUS_MALFORMED);
        assert_int_equal(span_parse_i64(span_of_text(bad[n]), &i), STATUS_MALFORMED);
        assert_int_equal(u, 7);
        assert_int_equal(i, 7);
    }
    static const char *const bad_signed[] = {"-0", "00", "007", "-01"};
    int64_t i = 7;
    for (size_t n = 0; n < sizeof bad_signed / sizeof bad_signed[0]; n++)
        assert_int_equal(span_parse_i64(span_of_text(bad_signed[n]), &i), STATUS_MALFORMED);
    assert_int_equal(span_parse_i64(span_of_text("9223372036854775808"), &i), STATUS_MALFORMED);
    assert_int_equal(span_parse_i64(span_of_text("-9223372036854775809"), &i), STATUS_MALFORMED);
    assert_int_equal(i, 7);
}

static void numbers_printed_parse_to_themselves(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    struct prng prng;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&buf, &alloc);
    prng_seed(&prng, 1);
    for (int n = 0; n < 10000; n++) {
        uint64_t drawn = prng_u64(&prng) >> prng_below(&prng, 64);
        uint64_t u = 0;
        int64_t i = 0;
        buf_clear(&buf);
        buf_append_u64(&buf, drawn);
        assert_int_equal(span_parse_u64(buf_span(&buf), &u), STATUS_OK);
        assert_true(u == drawn);
        buf_clear(&buf);
        buf_append_i64(&buf, (int64_t)drawn);
        assert_int_equal(span_parse_i64(buf_span(&buf), &i), STATUS_OK);
        assert_true(i == (int64_t)drawn);
    }
    buf_clear(&buf);
    buf_append_i64(&buf, INT64_MIN);
    assert_true(span_is(buf_span(&buf), "-9223372036854775808"));
    buf_free(&buf);
}

/* ---- buf ------------------------------------------------------------------------------------------------ */

static void buf_grows_and_drops_from_its_front(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&buf, &alloc);
    for (int i = 0; i < 1000; i++)
        buf_append_format(&buf, "%03d,", i);
    assert_false(buf.failed);
    assert_int_equal(buf.size, 4000);
    buf_drop(&buf, 3992);
    assert_true(span_is(buf_span(&buf), "998,999,"));
    buf_drop(&buf, 8);
    buf_drop(&buf, 0);
    assert_int_equal(buf.size, 0);
    buf_append(&buf, NULL, 0);
    assert_false(buf.failed);
    buf_free(&buf);
    assert_int_equal(alloc.used_bytes, 0);
    buf_append_text(&buf, "again");
    assert_true(span_is(buf_span(&buf), "again"));
    buf_free(&buf);
}

static void buf_past_the_budget_fails_and_keeps_what_it_held(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    alloc_init(&alloc, 256);
    buf_init(&buf, &alloc);
    buf_append_text(&buf, "kept");
    assert_false(buf_reserve(&buf, 1000));
    assert_true(buf.failed);
    assert_true(span_is(buf_span(&buf), "kept"));
    assert_false(buf_reserve(&buf, SIZE_MAX));
    buf_clear(&buf);
    assert_false(buf.failed);
    uint8_t large[300] = {0};
    buf_put_long(&buf, span_of(large, sizeof large));
    assert_true(buf.failed);
    assert_int_equal(buf.size, 0);
    buf_free(&buf);
    assert_int_equal(alloc.used_bytes, 0);
}

static void buf_survives_every_failing_allocation(void **state)
{
    (void)state;
    int failures = 0;
    for (uint64_t fail = 1; fail <= 10; fail++) {
        struct alloc alloc;
        struct buf buf;
        alloc_init(&alloc, BUDGET_BYTES);
        alloc.fail_at_call = fail;
        buf_init(&buf, &alloc);
        for (int i = 0; i < 100; i++)
            buf_append_text(&buf, "0123456789");
        /* 64, 128, ... 1024 bytes: five allocations; later ones never happen. */
        assert_int_equal(buf.failed, fail <= 5);
        assert_int_equal(buf.size % 10, 0);
        failures += buf.failed;
        buf_free(&buf);
        assert_int_equal(alloc.used_bytes, 0);
    }
    assert_int_equal(failures, 5);
}

/* ---- cursors -------------------------------------------------------------------------------------------- */

static void reader_reads_what_buf_put_wrote(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&buf, &alloc);
    buf_put_u8(&buf, 0xab);
    buf_put_u16(&buf, 0x1234);
    buf_put_u32(&buf, 0x89abcdef);
    buf_put_u64(&buf, UINT64_C(0xfedcba9876543210));
    buf_put_short(&buf, span_of_text("short"));
    buf_put_long(&buf, span_of_text("long"));
    assert_int_equal(buf.data[1], 0x34);
    assert_int_equal(buf.data[2], 0x12);
    struct reader reader = reader_of(buf_span(&buf));
    assert_int_equal(reader_u8(&reader), 0xab);
    assert_int_equal(reader_u16(&reader), 0x1234);
    assert_true(reader_u32(&reader) == 0x89abcdef);
    assert_true(reader_u64(&reader) == UINT64_C(0xfedcba9876543210));
    assert_true(span_is(reader_short(&reader), "short"));
    assert_int_equal(reader_finish(&reader), STATUS_MALFORMED);
    assert_true(span_is(reader_long(&reader), "long"));
    assert_int_equal(reader_finish(&reader), STATUS_OK);
    buf_free(&buf);
}

static void reader_failure_is_sticky(void **state)
{
    (void)state;
    const uint8_t bytes[] = {1, 2, 3};
    struct reader reader = reader_of(span_of(bytes, sizeof bytes));
    assert_int_equal(reader_u16(&reader), 0x0201);
    assert_int_equal(reader_u32(&reader), 0);
    assert_true(reader.failed);
    assert_int_equal(reader_u8(&reader), 0);
    assert_null(reader_bytes(&reader, 0).data);
    assert_int_equal(reader_finish(&reader), STATUS_MALFORMED);
}

static void reader_refuses_a_length_past_the_end(void **state)
{
    (void)state;
    const uint8_t short_of_one[] = {3, 0, 'a', 'b'};
    struct reader reader = reader_of(span_of(short_of_one, sizeof short_of_one));
    assert_int_equal(reader_short(&reader).size, 0);
    assert_true(reader.failed);
    const uint8_t far_too_long[] = {0xff, 0xff, 0xff, 0xff, 'a'};
    reader = reader_of(span_of(far_too_long, sizeof far_too_long));
    assert_int_equal(reader_long(&reader).size, 0);
    assert_true(reader.failed);
    reader = reader_of(span_of(far_too_long, 0));
    assert_int_equal(reader_finish(&reader), STATUS_OK);
    assert_int_equal(reader_u8(&reader), 0);
    assert_true(reader.failed);
}

static void stores_and_loads_are_little_endian(void **state)
{
    (void)state;
    uint8_t bytes[8];
    store_u64(bytes, UINT64_C(0x0807060504030201));
    for (int i = 0; i < 8; i++)
        assert_int_equal(bytes[i], i + 1);
    assert_true(load_u64(bytes) == UINT64_C(0x0807060504030201));
    store_u32(bytes, 0xfffefdfcu);
    assert_true(load_u32(bytes) == 0xfffefdfcu);
    store_u16(bytes, 0xfffe);
    assert_int_equal(load_u16(bytes), 0xfffe);
}

/* ---- hash and prng -------------------------------------------------------------------------------------- */

static uint16_t crc16_bit_by_bit(struct span bytes)
{
    unsigned crc = 0;
    for (size_t i = 0; i < bytes.size; i++) {
        crc ^= (unsigned)bytes.data[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc & 0x8000) != 0 ? crc << 1 ^ 0x1021 : crc << 1;
    }
    return (uint16_t)crc;
}

static void crc16_has_its_published_check_value(void **state)
{
    (void)state;
    assert_int_equal(hash_crc16(span_of_text("123456789")), 0x31c3);
    assert_int_equal(hash_crc16(span_of(NULL, 0)), 0);
}

static void crc16_agrees_with_the_definition(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 2);
    for (int n = 0; n < 2000; n++) {
        uint8_t bytes[64];
        size_t size = (size_t)prng_below(&prng, sizeof bytes + 1);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)prng_u64(&prng);
        assert_int_equal(hash_crc16(span_of(bytes, size)), crc16_bit_by_bit(span_of(bytes, size)));
    }
}

static void xxh3_has_its_published_values_and_heeds_its_seed(void **state)
{
    (void)state;
    assert_true(hash_64(span_of_text(""), 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(hash_64(span_of_text("key"), 0) != hash_64(span_of_text("key"), 1));
    struct hash_128 empty = hash_128_of(span_of_text(""), 0);
    assert_true(empty.high == UINT64_C(0x99aa06d3014798d8) && empty.low == UINT64_C(0x6001c324468d497f));
}

static void prng_repeats_itself_for_one_seed_only(void **state)
{
    (void)state;
    struct prng a;
    struct prng b;
    struct prng other;
    prng_seed(&a, 42);
    prng_seed(&b, 42);
    prng_seed(&other, 43);
    int equal = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t drawn = prng_u64(&a);
        assert_true(drawn == prng_u64(&b));
        equal += drawn == prng_u64(&other);
    }
    assert_int_equal(equal, 0);
}

static void prng_below_is_even_and_stays_below(void **state)
{
    (void)state;
    struct prng prng;
    int seen[10] = {0};
    prng_seed(&prng, 3);
    for (int i = 0; i < 100000; i++) {
        uint64_t drawn = prng_below(&prng, 10);
        assert_true(drawn < 10);
        seen[drawn]++;
    }
    for (int i = 0; i < 10; i++)
        assert_in_range(seen[i], 9600, 10400); /* over four standard deviations (95) from 10000 */
    assert_int_equal(prng_below(&prng, 1), 0);
    assert_false(prng_chance(&prng, 0, 5));
    assert_true(prng_chance(&prng, 5, 5));
}

/* ---- lists ---------------------------------------------------------------------------------------------- */

static void list_keeps_the_order_of_arrival(void **state)
{
    (void)state;
    struct item {
        int number;
        struct list_link link;
    } items[3] = {{.number = 0}, {.number = 1}, {.number = 2}};
    struct list_link list;
    list_init(&list);
    assert_true(list_empty(&list));
    assert_null(list_pop_front(&list));
    for (int i = 0; i < 3; i++)
        list_push_back(&list, &items[i].link);
    list_remove(&items[1].link);
    list_remove(&items[1].link);
    assert_int_equal(LIST_ENTRY(list_first(&list), struct item, link)->number, 0);
    assert_ptr_equal(list_pop_front(&list), &items[0].link);
    assert_ptr_equal(list_pop_front(&list), &items[2].link);
    assert_true(list_empty(&list));
}

/* ---- timers --------------------------------------------------------------------------------------------- */

#define TIMERS_COUNT 200

struct naive_timer {
    uint64_t deadline_us;
    uint64_t sequence;
    bool armed;
};

static int naive_first(const struct naive_timer *naive)
{
    int first = -1;
    for (int i = 0; i < TIMERS_COUNT; i++) {
        if (!naive[i].armed)
            continue;
        if (first < 0 || naive[i].deadline_us < naive[first].deadline_us ||
            (naive[i].deadline_us == naive[first].deadline_us && naive[i].sequence < naive[first].sequence))
            first = i;
    }
    return first;
}

static void pop_all_due(struct timer_heap *heap, struct timer *timers, struct naive_timer *naive,
                        uint64_t now)
{
    for (;;) {
        int first = naive_first(naive);
        assert_true(timer_heap_next_us(heap) == (first < 0 ? UINT64_MAX : naive[first].deadline_us));
        bool due = first >= 0 && naive[first].deadline_us <= now;
        struct timer *popped = timer_heap_pop_due(heap, now);
        assert_ptr_equal(popped, due ? &timers[first] : NULL);
        if (!due)
            return;
        assert_false(timer_armed(popped));
        naive[first].armed = false;
    }
}

static void timers_fire_as_in_a_naive_list_with_ties_in_arming_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        static struct timer timers[TIMERS_COUNT];
        static struct naive_timer naive[TIMERS_COUNT];
        struct alloc alloc;
        struct timer_heap heap;
        struct prng prng;
        uint64_t now = 1000;
        uint64_t sequence = 0;
        memset(timers, 0, sizeof timers);
        memset(naive, 0, sizeof naive);
        alloc_init(&alloc, BUDGET_BYTES);
        timer_heap_init(&heap, &alloc);
        prng_seed(&prng, seed);
        for (int step = 0; step < 5000; step++) {
            size_t i = (size_t)prng_below(&prng, TIMERS_COUNT);
            uint64_t draw = prng_below(&prng, 10);
            if (draw < 7) {
                /* Few distinct deadlines: many ties. */
                uint64_t deadline = now + prng_below(&prng, 20);
                assert_int_equal(timer_arm(&heap, &timers[i], deadline), STATUS_OK);
                naive[i] =
                    (struct naive_timer){.deadline_us = deadline, .sequence = sequence++, .armed = true};
            } else if (draw < 9) {
                timer_disarm(&heap, &timers[i]);
                naive[i].armed = false;
            } else {
                now += prng_below(&prng, 10);
                pop_all_due(&heap, timers, naive, now);
            }
            assert_int_equal(timer_armed(&timers[i]), naive[i].armed);
        }
        pop_all_due(&heap, timers, naive, UINT64_MAX - 1);
        assert_int_equal(heap.count, 0);
        timer_heap_free(&heap);
        assert_int_equal(alloc.used_bytes, 0);
    }
}

static void timer_without_memory_is_not_armed(void **state)
{
    (void)state;
    struct alloc alloc;
    struct timer_heap heap;
    struct timer timer = {0};
    alloc_init(&alloc, 0);
    timer_heap_init(&heap, &alloc);
    assert_int_equal(timer_arm(&heap, &timer, 5), STATUS_OVERLOADED);
    assert_false(timer_armed(&timer));
    assert_true(timer_heap_next_us(&heap) == UINT64_MAX);
    timer_disarm(&heap, &timer);
    timer_heap_free(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_every_code_has_its_number_and_texts),
        cmocka_unit_test(status_outside_the_range_is_named_so),
        cmocka_unit_test(alloc_counts_bytes_and_gives_them_back),
        cmocka_unit_test(alloc_past_the_budget_answers_null),
        cmocka_unit_test(alloc_resize_keeps_the_bytes_and_on_failure_the_block),
        cmocka_unit_test(alloc_fails_at_the_call_asked_for),
        cmocka_unit_test(span_comparisons_follow_memcmp_and_length),
        cmocka_unit_test(span_is_nocase_folds_ascii_letters_only),
        cmocka_unit_test(numbers_at_their_bounds_parse),
        cmocka_unit_test(numbers_that_are_none_are_malformed_and_change_nothing),
        cmocka_unit_test(numbers_printed_parse_to_themselves),
        cmocka_unit_test(buf_grows_and_drops_from_its_front),
        cmocka_unit_test(buf_past_the_budget_fails_and_keeps_what_it_held),
        cmocka_unit_test(buf_survives_every_failing_allocation),
        cmocka_unit_test(reader_reads_what_buf_put_wrote),
        cmocka_unit_test(reader_failure_is_sticky),
        cmocka_unit_test(reader_refuses_a_length_past_the_end),
        cmocka_unit_test(stores_and_loads_are_little_endian),
        cmocka_unit_test(crc16_has_its_published_check_value),
        cmocka_unit_test(crc16_agrees_with_the_definition),
        cmocka_unit_test(xxh3_has_its_published_values_and_heeds_its_seed),
        cmocka_unit_test(prng_repeats_itself_for_one_seed_only),
        cmocka_unit_test(prng_below_is_even_and_stays_below),
        cmocka_unit_test(list_keeps_the_order_of_arrival),
        cmocka_unit_test(timers_fire_as_in_a_naive_list_with_ties_in_arming_order),
        cmocka_unit_test(timer_without_memory_is_not_armed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
