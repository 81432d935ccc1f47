/* From the text of /metrics to the figures of a row. */
#include <math.h>
#include <stdlib.h>

#include "cli/metrics_text.h"
#include "cli/top.h"

static const struct {
    const char *name;
    enum top_figure figure;
} metric_figures[] = {
    {"rondo_overloads_total", TOP_OVERLOADS},
    {"rondo_log_written_bytes_total", TOP_LOG_BYTES},
    {"process_cpu_seconds_total", TOP_CPU_S},
    {"rondo_memory_used_bytes", TOP_MEMORY_USED},
    {"rondo_memory_budget_bytes", TOP_MEMORY_BUDGET},
    {"process_resident_memory_bytes", TOP_RESIDENT},
    {"rondo_cold_tier_bytes", TOP_COLD_BYTES},
    {"rondo_cold_tier_level0_files", TOP_LEVEL0},
    {"rondo_serving", TOP_SERVING},
    {"rondo_disk_full", TOP_DISK_FULL},
    {"rondo_slots_not_serving", TOP_SLOTS_NOT_SERVING},
    {"process_start_time_seconds", TOP_STARTED},
};

static void add_request(struct top_sample *sample, const struct metric *metric)
{
    bool read = span_is(metric_label(metric, "operation"), "get");
    sample->figures[read ? TOP_READS : TOP_WRITES] += metric->value;
    if (!span_is(metric_label(metric, "outcome"), "done"))
        sample->figures[TOP_FAILED] += metric->value;
}

static void add_bucket(struct top_sample *sample, const struct metric *metric)
{
    bool read = span_is(metric_label(metric, "operation"), "read");
    struct top_buckets *buckets = read ? &sample->reads : &sample->writes;
    struct span until = metric_label(metric, "le");
    char text[32];
    if (buckets->count == TOP_BUCKETS_MAX)
        return;
    span_copy_text(until, text, sizeof(text));
    buckets->until_s[buckets->count] = span_is(until, "+Inf") ? INFINITY : strtod(text, NULL);
    buckets->counts[buckets->count++] = metric->value;
}

bool top_sample_read(struct span body, struct top_sample *sample)
{
    struct metric metric;
    bool known = false;
    memset(sample, 0, sizeof(*sample));
    while (metrics_next(&body, &metric)) {
        if (span_is(metric.name, "rondo_requests_total")) {
            add_request(sample, &metric);
            known = true;
        } else if (span_is(metric.name, "rondo_request_duration_seconds_bucket")) {
            add_bucket(sample, &metric);
        }
        for (size_t i = 0; i < sizeof(metric_figures) / sizeof(metric_figures[0]); i++) {
            if (span_is(metric.name, metric_figures[i].name))
                sample->figures[metric_figures[i].figure] = metric.value;
        }
    }
    return known;
}

double top_quantile(const struct top_buckets *before, const struct top_buckets *now, double part)
{
    if (now->count == 0 || before->count != now->count)
        return 0;
    double all = now->counts[now->count - 1] - before->counts[before->count - 1];
    if (all <= 0)
        return 0;
    for (uint32_t i = 0; i < now->count; i++) {
        if (now->counts[i] - before->counts[i] >= part * all)
            return now->until_s[i];
    }
    return INFINITY;
}

double top_rate(const struct top_node *node, enum top_figure figure)
{
    uint64_t ms = node->now.at_ms - node->before.at_ms;
    if (!node->answered || !node->has_before || ms == 0)
        return 0;
    double grown = node->now.figures[figure] - node->before.figures[figure];
    return grown < 0 ? 0 : grown * 1000 / (double)ms;
}

const char *top_state(const struct top_node *node)
{
    const double *figures = node->now.figures;
    if (!node->answered)
        return node->fault;
    if (figures[TOP_DISK_FULL] != 0)
        return "disk full";
    if (figures[TOP_SERVING] == 0)
        return "not serving";
    return figures[TOP_SLOTS_NOT_SERVING] > 0 ? "rebuilding" : "serving";
}
