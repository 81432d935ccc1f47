/* The load generator's parts: Zipf's law against its definition, percentiles against sorted lists, values that are
 * known again, and the text of /metrics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "cli/bench_data.h"
#include "cli/latency.h"
#include "cli/metrics_text.h"
#include "proto/resp.h"

#define DRAWS 1000000u

/* Pearson's chi-square of the draws over ranks (the tail in one cell) stays within five standard deviations of its
 * mean, the number of cells less one. */
static void zipf_draws_follow_the_law(void **state)
{
    (void)state;
    static const struct {
        uint64_t count;
        double theta;
    } laws[] = {{1, 0.99}, {2, 1}, {10, 0}, {100, 0.5}, {1000, 0.99}, {1000, 1}, {1000, 1.01}, {5000, 2.5}};
    for (size_t i = 0; i < sizeof(laws) / sizeof(laws[0]); i++) {
        static uint32_t seen[5000];
        struct zipf zipf;
        struct prng prng;
        double all = 0;
        double left = DRAWS;
        double left_seen = DRAWS;
        double chi_square = 0;
        double cells = 0;
        memset(seen, 0, sizeof(seen));
        prng_seed(&prng, 5 + i);
        zipf_init(&zipf, laws[i].count, laws[i].theta);
        for (uint32_t draw = 0; draw < DRAWS; draw++) {
            uint64_t rank = zipf_draw(&zipf, &prng);
            assert_true(rank < laws[i].count);
            seen[rank]++;
        }
        for (uint64_t k = 1; k <= laws[i].count; k++)
            all += pow((double)k, -laws[i].theta);
        for (uint64_t k = 1; k <= laws[i].count; k++) {
            double expected = DRAWS * pow((double)k, -laws[i].theta) / all;
            if (expected < 20)
                break;
            chi_square += (seen[k - 1] - expected) * (seen[k - 1] - expected) / expected;
            cells++;
            left -= expected;
            left_seen -= seen[k - 1];
        }
        if (left > 20) {
            chi_square += (left_seen - left) * (left_seen - left) / left;
            cells++;
        }
        assert_true(chi_square <= cells - 1 + 5 * sqrt(2 * cells) + 1e-6);
    }
}

static void zipf_takes_more_keys_than_a_table_could(void **state)
{
    (void)state;
    struct zipf zipf;
    struct prng prng;
    uint64_t greatest = 0;
    prng_seed(&prng, 3);
    zipf_init(&zipf, UINT64_C(1000000000000), 0.5);
    for (uint32_t i = 0; i < 1000; i++) {
        uint64_t rank = zipf_draw(&zipf, &prng);
        assert_true(rank < UINT64_C(1000000000000));
        greatest = rank > greatest ? rank : greatest;
    }
    assert_true(greatest > UINT64_C(500000000000));
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void percentiles_are_within_a_hundredth(void **state)
{
    (void)state;
    static uint64_t values[5000];
    static const uint32_t parts[] = {1, 500000, 900000, 990000, 999000, 999900, 1000000};
    struct prng prng;
    prng_seed(&prng, 7);
    for (uint32_t round = 0; round < 40; round++) {
        static struct latency halves[2];
        uint32_t count = 1 + (uint32_t)prng_below(&prng, 5000);
        memset(halves, 0, sizeof(halves));
        for (uint32_t i = 0; i < count; i++) {
            values[i] = prng_u64(&prng) >> (24 + prng_below(&prng, 40));
            latency_add(&halves[i % 2], values[i]);
        }
        latency_merge(&halves[0], &halves[1]);
        qsort(values, count, sizeof(values[0]), compare_numbers);
        assert_int_equal(halves[0].count, count);
        assert_int_equal(halves[0].least_ns, values[0]);
        assert_int_equal(halves[0].greatest_ns, values[count - 1]);
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
            uint64_t exact = values[((uint64_t)count * parts[i] + 999999) / 1000000 - 1];
            uint64_t told = latency_quantile(&halves[0], parts[i]);
            assert_true(fabs((double)told - (double)exact) <= (double)exact / 100);
        }
    }
    static struct latency empty;
    assert_int_equal(latency_quantile(&empty, 500000), 0);
}

static void values_are_known_again(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf out;
    struct prng prng;
    struct resp_parser parser;
    struct resp_request request;
    struct resp_limits limits = {.bulk_bytes_max = 4096, .command_bytes_max = 8192};
    struct bench_data data = {.prefix = span_of_text("bench:"),
                              .keys = 1000,
                              .digits = bench_key_digits(6, 1000),
                              .value_bytes_min = BENCH_VALUE_BYTES_MIN,
                              .value_bytes_max = 300};
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&out, &alloc);
    prng_seed(&prng, 9);
    assert_true(bench_data_init(&data, &alloc));
    resp_parser_init(&parser, &alloc, &limits);
    for (uint64_t number = 0; number < 1000; number++) {
        buf_clear(&out);
        bench_put_set(&data, number, &prng, &out);
        assert_true(out.size <= bench_command_bytes_max(&data));
        assert_int_equal(resp_parse(&parser, buf_span(&out), &request), STATUS_OK);
        assert_int_equal(request.consumed, out.size);
        assert_true(request.argc == 3 && span_is(request.argv[0], "SET") && request.argv[1].size == 16);
        struct span value = request.argv[2];
        assert_int_equal(bench_check(&data, number, value), BENCH_VALUE_GOOD);
        assert_int_equal(bench_check(&data, number + 1, value), BENCH_VALUE_FOREIGN);
        assert_int_equal(bench_check(&data, number, span_of(value.data, value.size - 1)),
                         BENCH_VALUE_DAMAGED);
        size_t at = (size_t)prng_below(&prng, value.size);
        out.data[(size_t)(value.data - out.data) + at] ^= 1;
        assert_int_equal(bench_check(&data, number, value), BENCH_VALUE_DAMAGED);
    }
    buf_clear(&out);
    bench_put_get(&data, 42, &out);
    assert_true(span_is(buf_span(&out), "*2\r\n$3\r\nGET\r\n$16\r\nbench:0000000042\r\n"));
    assert_int_equal(bench_key_digits(16, 1001), 4);
    assert_int_equal(bench_key_digits(100, 1), 1);
    resp_parser_free(&parser);
    bench_data_free(&data, &alloc);
    buf_free(&out);
    assert_int_equal(alloc.used_bytes, 0);
}

static void metrics_are_read_line_by_line(void **state)
{
    (void)state;
    struct span text = span_of_text("# HELP a b\na 1\nnonsense\nb{x=\"1\",le=\"+Inf\"} 2.5\n"
                                    "c{x=\"a}\\\"b\",y=\"z\"} 3\nd{ 4\n");
    struct metric metric;
    assert_true(metrics_next(&text, &metric));
    assert_true(span_is(metric.name, "a") && metric.value == 1 && metric.labels.size == 0);
    assert_int_equal(metric_label(&metric, "x").size, 0);
    assert_true(metrics_next(&text, &metric));
    assert_true(span_is(metric.name, "b") && metric.value == 2.5);
    assert_true(span_is(metric_label(&metric, "x"), "1") && span_is(metric_label(&metric, "le"), "+Inf"));
    assert_true(metrics_next(&text, &metric));
    assert_true(span_is(metric_label(&metric, "x"), "a}\\\"b") && span_is(metric_label(&metric, "y"), "z"));
    assert_true(metric.value == 3);
    assert_false(metrics_next(&text, &metric));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zipf_draws_follow_the_law),
        cmocka_unit_test(zipf_takes_more_keys_than_a_table_could),
        cmocka_unit_test(percentiles_are_within_a_hundredth),
        cmocka_unit_test(values_are_known_again),
        cmocka_unit_test(metrics_are_read_line_by_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
