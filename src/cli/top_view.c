/* rondo top: the table, and the same for programs. */
#include <math.h>
#include <stdio.h>

#include "cli/top.h"

#define CELL_BYTES_MAX 32

static const char *bytes_text(double bytes, char text[CELL_BYTES_MAX])
{
    static const char *const units[] = {"B", "K", "M", "G", "T"};
    size_t unit = 0;
    while (bytes >= 1000 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        bytes /= 1024;
        unit++;
    }
    snprintf(text, CELL_BYTES_MAX, unit == 0 || bytes >= 10 ? "%.0f%s" : "%.1f%s", bytes, units[unit]);
    return text;
}

/* Buckets end at powers of two microseconds: "<1.02ms". */
static const char *time_text(double seconds, char text[CELL_BYTES_MAX])
{
    if (seconds == 0)
        snprintf(text, CELL_BYTES_MAX, "-");
    else if (isinf(seconds))
        snprintf(text, CELL_BYTES_MAX, ">16s");
    else if (seconds < 1e-3)
        snprintf(text, CELL_BYTES_MAX, "<%.0fus", seconds * 1e6);
    else if (seconds < 1)
        snprintf(text, CELL_BYTES_MAX, seconds < 0.1 ? "<%.1fms" : "<%.0fms", seconds * 1e3);
    else
        snprintf(text, CELL_BYTES_MAX, "<%.1fs", seconds);
    return text;
}

static void put_times(struct buf *out, const struct top_buckets *before, const struct top_buckets *now)
{
    char text[CELL_BYTES_MAX];
    buf_append_format(out, " %8s", time_text(top_quantile(before, now, 0.5), text));
    buf_append_format(out, " %8s", time_text(top_quantile(before, now, 0.99), text));
}

static void put_node(struct buf *out, const struct top_node *node)
{
    char text[CELL_BYTES_MAX];
    const double *figures = node->now.figures;
    buf_append_format(out, "%-10.20s ", node->name);
    if (!node->answered) {
        buf_append_format(out, "NO ANSWER from %s: %s\n", node->http, node->fault);
        return;
    }
    buf_append_format(out, "%-11s %9.0f", top_state(node), top_rate(node, TOP_READS));
    put_times(out, &node->before.reads, &node->now.reads);
    buf_append_format(out, " %9.0f", top_rate(node, TOP_WRITES));
    put_times(out, &node->before.writes, &node->now.writes);
    buf_append_format(out, " %8.0f", top_rate(node, TOP_FAILED));
    buf_append_format(out, " %5s", bytes_text(figures[TOP_MEMORY_USED], text));
    buf_append_format(out, "/%-5s", bytes_text(figures[TOP_MEMORY_BUDGET], text));
    buf_append_format(out, " %5s", bytes_text(figures[TOP_RESIDENT], text));
    buf_append_format(out, " %6s", bytes_text(top_rate(node, TOP_LOG_BYTES), text));
    buf_append_format(out, " %6s %4.0f %5.0f%%\n", bytes_text(figures[TOP_COLD_BYTES], text),
                      figures[TOP_LEVEL0], 100 * top_rate(node, TOP_CPU_S));
}

void top_view_text(struct buf *out, const struct top_node *nodes, uint32_t count)
{
    buf_append_format(out, "%-10s %-11s %9s %8s %8s %9s %8s %8s %8s %11s %5s %6s %6s %4s %6s\n", "node",
                      "state", "reads/s", "p50", "p99", "writes/s", "p50", "p99", "failed/s", "memory", "RSS",
                      "log/s", "cold", "L0", "CPU");
    for (uint32_t i = 0; i < count; i++)
        put_node(out, &nodes[i]);
}

/* null where there is none, or where it is past all buckets. */
static json_t *time_json(double seconds)
{
    return seconds == 0 || isinf(seconds) ? json_null() : json_real(seconds * 1e6);
}

static json_t *node_json(const struct top_node *node)
{
    static const struct {
        const char *name;
        enum top_figure figure;
    } rates[] = {{"reads_per_s", TOP_READS},         {"writes_per_s", TOP_WRITES},
                 {"failed_per_s", TOP_FAILED},       {"overloads_per_s", TOP_OVERLOADS},
                 {"log_bytes_per_s", TOP_LOG_BYTES}, {"cpu_cores", TOP_CPU_S}},
      gauges[] = {{"memory_used_bytes", TOP_MEMORY_USED},
                  {"memory_budget_bytes", TOP_MEMORY_BUDGET},
                  {"resident_bytes", TOP_RESIDENT},
                  {"cold_tier_bytes", TOP_COLD_BYTES},
                  {"level0_files", TOP_LEVEL0}};
    json_t *json =
        json_pack("{s:s, s:s, s:b}", "node", node->name, "http", node->http, "answered", node->answered);
    if (!node->answered) {
        json_object_set_new(json, "fault", json_string(node->fault));
        return json;
    }
    json_object_set_new(json, "state", json_string(top_state(node)));
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++)
        json_object_set_new(json, rates[i].name, json_real(top_rate(node, rates[i].figure)));
    for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++)
        json_object_set_new(json, gauges[i].name,
                            json_integer((json_int_t)node->now.figures[gauges[i].figure]));
    const struct top_sample *before = &node->before;
    const struct top_sample *now = &node->now;
    json_object_set_new(json, "read_p50_us", time_json(top_quantile(&before->reads, &now->reads, 0.5)));
    json_object_set_new(json, "read_p99_us", time_json(top_quantile(&before->reads, &now->reads, 0.99)));
    json_object_set_new(json, "write_p50_us", time_json(top_quantile(&before->writes, &now->writes, 0.5)));
    json_object_set_new(json, "write_p99_us", time_json(top_quantile(&before->writes, &now->writes, 0.99)));
    return json;
}

json_t *top_view_json(const struct top_node *nodes, uint32_t count)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(list, node_json(&nodes[i]));
    return json_pack("{s:o}", "nodes", list);
}
