/* Histograms against sorted lists of the same numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/histogram.h"
#include "base/prng.h"

#define VALUES 2000u
#define ROUNDS 60u

static struct alloc test_alloc;

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Numbers of every size: a random number of bits, then that many random bits. */
static uint64_t draw(struct prng *prng)
{
    uint64_t bits = prng_u64(prng) % (HISTOGRAM_VALUE_BITS + 1u);
    return bits == 0 ? 0 : prng_u64(prng) >> (64u - bits);
}

static void fill(struct prng *prng, struct histogram *histogram, uint64_t *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        values[i] = draw(prng);
        histogram_add(histogram, values[i]);
    }
}

static void quantiles_are_those_of_the_sorted_list_to_an_eighth(void **state)
{
    (void)state;
    struct prng prng;
    static const uint32_t parts[] = {1, 10000, 500000, 950000, 990000, 999000, 1000000};
    prng_seed(&prng, 11);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        static uint64_t values[VALUES];
        struct histogram histogram = {0};
        uint32_t count = 1u + (uint32_t)(prng_u64(&prng) % VALUES);
        fill(&prng, &histogram, values, count);
        qsort(values, count, sizeof *values, compare_numbers);
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            uint64_t rank = ((uint64_t)count * parts[i] + 999999u) / 1000000u;
            uint64_t exact = values[rank - 1];
            uint64_t quantile = histogram_quantile(&histogram, parts[i]);
            assert_true(quantile >= exact);
            assert_true(quantile - exact <= exact / HISTOGRAM_PART);
        }
    }
}

static void counts_and_sums_are_exact_below_powers_of_two(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 12);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        static uint64_t values[VALUES];
        struct histogram histogram = {0};
        fill(&prng, &histogram, values, VALUES);
        uint64_t sum = 0;
        for (uint32_t i = 0; i < VALUES; i++)
            sum += values[i];
        assert_int_equal(histogram.sum, sum);
        assert_int_equal(histogram_count(&histogram), VALUES);
        for (uint32_t exponent = 0; exponent < HISTOGRAM_VALUE_BITS; exponent++) {
            uint64_t below = 0;
            for (uint32_t i = 0; i < VALUES; i++)
                below += values[i] < UINT64_C(1) << exponent;
            assert_int_equal(histogram_count_below(&histogram, exponent), below);
        }
    }
}

static void merging_is_the_same_as_adding_to_one(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 13);
    struct histogram both = {0};
    struct histogram parts[2] = {0};
    for (uint32_t i = 0; i < VALUES; i++) {
        uint64_t value = draw(&prng);
        histogram_add(&both, value);
        histogram_add(&parts[i % 2], value);
    }
    histogram_merge(&parts[0], &parts[1]);
    assert_memory_equal(&parts[0], &both, sizeof both);
}

static void every_edge_has_the_bucket_after_the_number_before_it(void **state)
{
    (void)state;
    uint32_t before = histogram_bucket(0);
    assert_int_equal(before, 0);
    for (uint64_t value = 1; value < UINT64_C(1) << 16; value++) {
        uint32_t bucket = histogram_bucket(value);
        assert_true(bucket == before || bucket == before + 1u);
        before = bucket;
    }
    assert_int_equal(histogram_bucket((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1u), HISTOGRAM_BUCKETS - 1u);
    assert_int_equal(histogram_bucket(UINT64_C(1) << HISTOGRAM_VALUE_BITS), HISTOGRAM_BUCKETS - 1u);
    assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1u);
}

static void empty_one_has_no_quantile(void **state)
{
    (void)state;
    struct histogram histogram = {0};
    assert_int_equal(histogram_quantile(&histogram, 1000000), 0);
    assert_int_equal(histogram_count(&histogram), 0);
}

static void serialised_reads_back_the_same(void **state)
{
    (void)state;
    struct prng prng;
    struct buf buf;
    prng_seed(&prng, 14);
    buf_init(&buf, &test_alloc);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct histogram histogram = {0};
        struct histogram read;
        for (uint32_t i = 0; i < round * round; i++)
            histogram_add(&histogram, draw(&prng));
        buf_clear(&buf);
        histogram_put(&buf, &histogram);
        assert_true(buf.size <= HISTOGRAM_BYTES_MAX);
        struct reader reader = reader_of(buf_span(&buf));
        histogram_read(&reader, &read);
        assert_int_equal(reader_finish(&reader), STATUS_OK);
        assert_memory_equal(&read, &histogram, sizeof read);
        /* Cut anywhere, it fails. */
        for (size_t size = 0; size < buf.size; size++) {
            struct reader cut = reader_of(span_of(buf.data, size));
            histogram_read(&cut, &read);
            assert_int_equal(reader_finish(&cut), STATUS_MALFORMED);
        }
    }
    buf_free(&buf);
}

static void bytes_that_no_histogram_has_are_refused(void **state)
{
    (void)state;
    static const uint8_t buckets[][2] = {{5, 5}, {6, 5}, {HISTOGRAM_BUCKETS, 0}, {0, HISTOGRAM_BUCKETS}};
    struct buf buf;
    struct histogram read;
    buf_init(&buf, &test_alloc);
    for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
        buf_clear(&buf);
        buf_put_u64(&buf, 1);
        buf_put_u16(&buf, 2);
        for (size_t k = 0; k < 2; k++) {
            buf_put_u8(&buf, buckets[i][k]);
            buf_put_u64(&buf, 1);
        }
        struct reader reader = reader_of(buf_span(&buf));
        histogram_read(&reader, &read);
        assert_int_equal(reader_finish(&reader), STATUS_MALFORMED);
    }
    buf_clear(&buf);
    buf_put_u64(&buf, 1);
    buf_put_u16(&buf, 1);
    buf_put_u8(&buf, 1);
    buf_put_u64(&buf, 0);
    struct reader reader = reader_of(buf_span(&buf));
    histogram_read(&reader, &read);
    assert_int_equal(reader_finish(&reader), STATUS_MALFORMED);
    buf_free(&buf);
}

int main(void)
{
    alloc_init(&test_alloc, SIZE_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_those_of_the_sorted_list_to_an_eighth),
        cmocka_unit_test(counts_and_sums_are_exact_below_powers_of_two),
        cmocka_unit_test(merging_is_the_same_as_adding_to_one),
        cmocka_unit_test(every_edge_has_the_bucket_after_the_number_before_it),
        cmocka_unit_test(empty_one_has_no_quantile),
        cmocka_unit_test(serialised_reads_back_the_same),
        cmocka_unit_test(bytes_that_no_histogram_has_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
