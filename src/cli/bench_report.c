/* rondo bench: the result as a table or as JSON. */
#include <stdio.h>

#include "cli/bench.h"

#define TIME_BYTES_MAX 24

static const struct {
    const char *title;
    const char *member;
    uint32_t part_per_million;
} quantiles[] = {{"p50", "p50_us", 500000},
                 {"p90", "p90_us", 900000},
                 {"p99", "p99_us", 990000},
                 {"p99.9", "p999_us", 999000},
                 {"p99.99", "p9999_us", 999900}};
#define QUANTILES (sizeof(quantiles) / sizeof(quantiles[0]))

static double seconds(const struct bench_result *result)
{
    return result->elapsed_ns == 0 ? 1e-9 : (double)result->elapsed_ns / 1e9;
}

static json_int_t per_second(uint64_t count, const struct bench_result *result)
{
    return (json_int_t)((double)count / seconds(result));
}

static uint64_t answered(const struct bench_counts *counts)
{
    return counts->reads.count + counts->writes.count;
}

static uint64_t error_count(const struct bench_counts *counts)
{
    return counts->read_errors + counts->write_errors;
}

/* What the load generator itself used, for each answer. */
static double own_cpu_us(const struct bench_counts *counts)
{
    uint64_t answers = answered(counts) + error_count(counts);
    return answers == 0 ? 0 : counts->cpu_s * 1e6 / (double)answers;
}

/* ---- JSON ----------------------------------------------------------------------------------------------- */

static json_t *latency_json(const struct latency *latency, const struct bench_result *result)
{
    json_t *json = json_pack("{s:I, s:I, s:f, s:f}", "count", (json_int_t)latency->count, "per_second",
                             per_second(latency->count, result), "mean_us",
                             (double)latency_mean(latency) / 1e3, "min_us", (double)latency->least_ns / 1e3);
    for (size_t i = 0; i < QUANTILES; i++)
        json_object_set_new(
            json, quantiles[i].member,
            json_real((double)latency_quantile(latency, quantiles[i].part_per_million) / 1e3));
    json_object_set_new(json, "max_us", json_real((double)latency->greatest_ns / 1e3));
    return json;
}

static json_t *errors_json(const struct bench_counts *counts)
{
    json_t *json = json_object();
    for (uint32_t i = 0; i < counts->error_count; i++)
        json_object_set_new(json, counts->errors[i].code, json_integer((json_int_t)counts->errors[i].count));
    if (counts->errors_other > 0)
        json_object_set_new(json, "other", json_integer((json_int_t)counts->errors_other));
    return json;
}

static json_t *report_json(const struct bench_plan *plan, const struct bench_result *result)
{
    const struct bench_counts *counts = &result->counts;
    json_t *json = json_pack(
        "{s:f, s:I, s:I, s:o, s:o, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:b}", "seconds", seconds(result),
        "answered", (json_int_t)answered(counts), "per_second", per_second(answered(counts), result), "reads",
        latency_json(&counts->reads, result), "writes", latency_json(&counts->writes, result), "misses",
        (json_int_t)counts->misses, "damaged_values", (json_int_t)counts->damaged, "foreign_values",
        (json_int_t)counts->foreign, "errors", errors_json(counts), "unanswered",
        (json_int_t)counts->unanswered, "unsent", (json_int_t)counts->unsent, "lost_connections",
        (json_int_t)counts->lost_connections, "interrupted", result->interrupted);
    json_object_update_new(json, json_pack("{s:I, s:I, s:f, s:I, s:I, s:I, s:I}", "bytes_sent",
                                           (json_int_t)counts->bytes_sent, "bytes_received",
                                           (json_int_t)counts->bytes_received, "client_cpu_us_per_command",
                                           own_cpu_us(counts), "connections", (json_int_t)plan->connections,
                                           "depth", (json_int_t)plan->depth, "threads",
                                           (json_int_t)plan->threads, "rate", (json_int_t)plan->rate));
    return json;
}

/* ---- text ----------------------------------------------------------------------------------------------- */

/* Three digits and a unit: "41.2 us". */
static const char *time_text(uint64_t ns, char text[TIME_BYTES_MAX])
{
    double us = (double)ns / 1e3;
    double scaled = us < 1e3 ? us : us < 1e6 ? us / 1e3 : us / 1e6;
    const char *unit = us < 1e3 ? "us" : us < 1e6 ? "ms" : "s";
    snprintf(text, TIME_BYTES_MAX, "%.*f %s", scaled < 10 ? 2 : scaled < 100 ? 1 : 0, scaled, unit);
    return text;
}

static void print_row(const char *title, const struct latency *latency, const struct bench_result *result)
{
    char text[TIME_BYTES_MAX];
    char number[CLI_NUMBER_BYTES_MAX];
    if (latency->count == 0)
        return;
    printf("%-7s %13s", title, cli_number((json_int_t)latency->count, number));
    printf(" %11s", cli_number(per_second(latency->count, result), number));
    printf(" %9s", time_text(latency_mean(latency), text));
    for (size_t i = 0; i < QUANTILES; i++)
        printf(" %9s", time_text(latency_quantile(latency, quantiles[i].part_per_million), text));
    printf(" %9s\n", time_text(latency->greatest_ns, text));
}

static void print_heading(const struct bench_plan *plan)
{
    static const char *const orders[] = {"uniform", "zipf", "sequential"};
    char number[CLI_NUMBER_BYTES_MAX];
    for (uint32_t i = 0; i < plan->target_count; i++)
        printf("%s%s", i == 0 ? "" : ", ", plan->targets[i].text);
    printf(": %u connection%s, depth %u, %u thread%s", plan->connections, plan->connections == 1 ? "" : "s",
           plan->depth, plan->threads, plan->threads == 1 ? "" : "s");
    if (plan->rate > 0)
        printf(", %s commands/s (latency counts from when each was due)",
               cli_number((json_int_t)plan->rate, number));
    printf("\n%s keys, %s", cli_number((json_int_t)plan->data.keys, number), orders[plan->data.order]);
    if (plan->data.order == BENCH_ORDER_ZIPF)
        printf(" %.2f", plan->data.zipf.theta);
    printf("; values of %zu", plan->data.value_bytes_min);
    if (plan->data.value_bytes_max > plan->data.value_bytes_min)
        printf(" to %zu", plan->data.value_bytes_max);
    printf(" bytes\n\n");
}

static void print_failures(const struct bench_counts *counts)
{
    char number[CLI_NUMBER_BYTES_MAX];
    uint64_t wrong = counts->damaged + counts->foreign;
    printf("\nwrong values %s", cli_number((json_int_t)wrong, number));
    if (wrong > 0)
        printf(" (%llu torn or not written by rondo bench, %llu of another key)",
               (unsigned long long)counts->damaged, (unsigned long long)counts->foreign);
    printf(", misses %s", cli_number((json_int_t)counts->misses, number));
    printf(", errors %s", cli_number((json_int_t)error_count(counts), number));
    for (uint32_t i = 0; i < counts->error_count; i++)
        printf("%s%s %s", i == 0 ? " (" : ", ", counts->errors[i].code,
               cli_number((json_int_t)counts->errors[i].count, number));
    if (counts->errors_other > 0)
        printf("%sother %s", counts->error_count == 0 ? " (" : ", ",
               cli_number((json_int_t)counts->errors_other, number));
    printf("%s", error_count(counts) > 0 ? ")" : "");
    if (counts->unanswered > 0)
        printf(", unanswered %s", cli_number((json_int_t)counts->unanswered, number));
    if (counts->unsent > 0)
        printf(", due but never sent %s", cli_number((json_int_t)counts->unsent, number));
    if (counts->lost_connections > 0)
        printf(", lost connections %s", cli_number((json_int_t)counts->lost_connections, number));
    printf("\n");
}

static void print_report(const struct bench_plan *plan, const struct bench_result *result)
{
    const struct bench_counts *counts = &result->counts;
    char number[CLI_NUMBER_BYTES_MAX];
    print_heading(plan);
    printf("%-7s %13s %11s %9s", "", "answered", "per second", "mean");
    for (size_t i = 0; i < QUANTILES; i++)
        printf(" %9s", quantiles[i].title);
    printf(" %9s\n", "max");
    print_row("reads", &counts->reads, result);
    print_row("writes", &counts->writes, result);
    if (counts->reads.count > 0 && counts->writes.count > 0) {
        printf("%-7s %13s", "all", cli_number((json_int_t)answered(counts), number));
        printf(" %11s\n", cli_number(per_second(answered(counts), result), number));
    }
    print_failures(counts);
    printf("%.1f s; this program used %.2f us of CPU for each command, %.0f %% of its threads' time\n",
           seconds(result), own_cpu_us(counts),
           100 * counts->cpu_s / seconds(result) / (double)plan->threads);
}

enum cli_exit bench_report(const struct cli *cli, const struct bench_plan *plan,
                           const struct bench_result *result)
{
    const struct bench_counts *counts = &result->counts;
    enum cli_exit code = CLI_OK;
    if (cli->json) {
        json_t *json = report_json(plan, result);
        code = cli_print_json(json);
        json_decref(json);
    } else {
        print_report(plan, result);
    }
    /* Wrong values, or nothing but errors, must not look like success to a script. */
    bool failed = counts->damaged + counts->foreign > 0 || answered(counts) == 0;
    return code == CLI_OK && failed ? CLI_NOT_APPLIED : code;
}
