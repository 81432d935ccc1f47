/* Metrics: counting, gathering, and the text exposition format of Prometheus, version 0.0.4. */
#include "shard/metrics.h"

#include <assert.h>
#include <inttypes.h>

#include "base/version.h"
#include "shard/request.h"

/* Edges of the buckets shown: powers of two from 32 microseconds to 16.8 seconds. They are edges of the histograms too,
 * so the counts are exact. */
#define EDGE_EXPONENT_MIN 5u
#define EDGE_EXPONENT_MAX 24u
_Static_assert(EDGE_EXPONENT_MAX < HISTOGRAM_VALUE_BITS, "every edge is one of the histogram's");

#define MICROSECOND_DECIMALS 6u

/* ---- counting ------------------------------------------------------------------------------------------- */

static uint32_t consistency_index(uint8_t asked)
{
    if (asked == COUNT_DEFAULT || asked == COUNT_QUORUM)
        return 0;
    if (asked == COUNT_ALL)
        return 1;
    assert(asked <= REPLICAS_MAX);
    return 1u + asked;
}

void metrics_result(struct shard *shard, enum operation_kind kind, uint8_t asked, const struct result *result)
{
    struct shard_counters *counters = &shard->counters;
    shard->metrics.requests[kind - 1][result->outcome - 1][consistency_index(asked)]++;
    if (result->outcome == OUTCOME_DONE) {
        counters->requests_done++;
        if (kind == OPERATION_GET)
            shard->watch.figures.reads[result->found]++;
        return;
    }
    if (result->outcome == OUTCOME_UNKNOWN)
        counters->requests_unknown++;
    else
        counters->requests_not_applied++;
    if (result->status == STATUS_OVERLOADED)
        counters->overloads++;
    else if (result->status == STATUS_UNAVAILABLE)
        counters->quorum_shortfalls++;
}

void metrics_ended(struct shard *shard, const struct request *request, const struct result *result)
{
    bool read = request->kind == OPERATION_GET;
    metrics_result(shard, request->kind, request->asked, result);
    metrics_time(shard, read ? METRICS_TIME_READ : METRICS_TIME_WRITE, request->begun_us);
    if (request->sent_us != 0)
        metrics_time(shard, read ? METRICS_TIME_READ_REPLICAS : METRICS_TIME_WRITE_REPLICAS,
                     request->begun_us + request->sent_us - 1);
}

void metrics_time(struct shard *shard, enum metrics_time time, uint64_t since_us)
{
    if (since_us != 0)
        histogram_add(&shard->metrics.times[time], shard->now.mono_us - since_us);
}

void metrics_event(struct shard *shard, enum metrics_time time, enum watch_event event, uint64_t since_us)
{
    metrics_time(shard, time, since_us);
    if (since_us != 0 && shard->now.mono_us - since_us >= shard->watch.event_us)
        latency_note(shard, event, shard->now.mono_us - since_us);
}

/* ---- gathering ------------------------------------------------------------------------------------------ */

void metrics_collect(const struct shard *shard, struct stats_sum *stats)
{
#define METRICS_FROM_COUNTER(field, ...) .field = shard->counters.field,
#define METRICS_FROM_VALUE(field, type, decimals, name, help, value) .field = (value),
    *stats = (struct stats_sum){
        METRICS_COUNTED(METRICS_FROM_COUNTER) METRICS_READ(METRICS_FROM_VALUE)
            METRICS_MOST(METRICS_FROM_VALUE)
                .metrics = shard->metrics,
    };
#undef METRICS_FROM_COUNTER
#undef METRICS_FROM_VALUE
}

void metrics_add(struct stats_sum *stats, const struct stats_sum *other)
{
#define METRICS_SUM(field, ...) stats->field += other->field;
    METRICS_COUNTED(METRICS_SUM)
    METRICS_READ(METRICS_SUM)
#undef METRICS_SUM
#define METRICS_GREATER(field, ...) stats->field = other->field > stats->field ? other->field : stats->field;
    METRICS_MOST(METRICS_GREATER)
#undef METRICS_GREATER
    for (uint32_t i = 0; i < METRICS_OPERATIONS; i++) {
        for (uint32_t k = 0; k < METRICS_OUTCOMES; k++) {
            for (uint32_t m = 0; m < METRICS_CONSISTENCIES; m++)
                stats->metrics.requests[i][k][m] += other->metrics.requests[i][k][m];
        }
    }
    for (uint32_t i = 0; i < METRICS_TIMES_COUNT; i++)
        histogram_merge(&stats->metrics.times[i], &other->metrics.times[i]);
}

void metrics_put(struct buf *buf, const struct stats_sum *stats)
{
#define METRICS_PUT(field, ...) buf_put_u64(buf, stats->field);
    METRICS_COUNTED(METRICS_PUT)
    METRICS_READ(METRICS_PUT)
    METRICS_MOST(METRICS_PUT)
#undef METRICS_PUT
    for (uint32_t i = 0; i < METRICS_OPERATIONS; i++) {
        for (uint32_t k = 0; k < METRICS_OUTCOMES; k++) {
            for (uint32_t m = 0; m < METRICS_CONSISTENCIES; m++)
                buf_put_u64(buf, stats->metrics.requests[i][k][m]);
        }
    }
    for (uint32_t i = 0; i < METRICS_TIMES_COUNT; i++)
        histogram_put(buf, &stats->metrics.times[i]);
}

enum status metrics_read(struct span body, struct stats_sum *stats)
{
    struct reader reader = reader_of(body);
#define METRICS_TAKE(field, ...) stats->field = reader_u64(&reader);
    METRICS_COUNTED(METRICS_TAKE)
    METRICS_READ(METRICS_TAKE)
    METRICS_MOST(METRICS_TAKE)
#undef METRICS_TAKE
    for (uint32_t i = 0; i < METRICS_OPERATIONS; i++) {
        for (uint32_t k = 0; k < METRICS_OUTCOMES; k++) {
            for (uint32_t m = 0; m < METRICS_CONSISTENCIES; m++)
                stats->metrics.requests[i][k][m] = reader_u64(&reader);
        }
    }
    for (uint32_t i = 0; i < METRICS_TIMES_COUNT; i++)
        histogram_read(&reader, &stats->metrics.times[i]);
    return reader_finish(&reader);
}

/* ---- text ----------------------------------------------------------------------------------------------- */

/* HELP and TYPE, once for each name, whose labels are left out. No help has a backslash or a line end, which would have
 * to be escaped. */
static void put_family(struct buf *text, const char *name, const char *type, const char *help)
{
    int size = (int)strcspn(name, "{");
    if (help[0] != '\0')
        buf_append_format(text, "# HELP %.*s %s\n# TYPE %.*s %s\n", size, name, help, size, name, type);
}

/* A number of which the last digits stand behind the point. */
static void put_number(struct buf *text, int64_t number, uint32_t decimals)
{
    uint64_t unit = 1;
    for (uint32_t i = 0; i < decimals; i++)
        unit *= 10u;
    uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    buf_append_text(text, number < 0 ? "-" : "");
    buf_append_u64(text, magnitude / unit);
    if (decimals > 0)
        buf_append_format(text, ".%0*" PRIu64, (int)decimals, magnitude % unit);
}

static void put_single(struct buf *text, const char *name, int64_t number, uint32_t decimals)
{
    buf_append_text(text, name);
    buf_append_text(text, " ");
    put_number(text, number, decimals);
    buf_append_text(text, "\n");
}

/* name="value", escaped. */
static void put_label(struct buf *text, const char *name, const char *value)
{
    buf_append_text(text, name);
    buf_append_text(text, "=\"");
    for (; *value != '\0'; value++) {
        if (*value == '\n')
            buf_append_text(text, "\\n");
        else if (*value == '"' || *value == '\\')
            buf_append_format(text, "\\%c", *value);
        else
            buf_append(text, value, 1);
    }
    buf_append_text(text, "\"");
}

static void put_info(const struct shard *shard, struct buf *text)
{
    put_family(text, "rondo_build_info", "gauge", "Always 1; the label is the version that runs.");
    buf_append_text(text, "rondo_build_info{version=\"" RONDO_VERSION "\"} 1\n");
    put_family(text, "rondo_node_info", "gauge",
               "Always 1; the labels say which node of which cluster this is.");
    buf_append_text(text, "rondo_node_info{");
    put_label(text, "node", shard->ring->nodes[shard->self].name);
    buf_append_format(text, ",id=\"%016" PRIx64 "\",cluster=\"%016" PRIx64 "%016" PRIx64 "\",",
                      shard->self_id, shard->ring->cluster_id.high, shard->ring->cluster_id.low);
    put_label(text, "durability", shard->durability);
    buf_append_text(text, "} 1\n");
}

static void put_peers(struct shard *shard, struct buf *text)
{
    put_family(text, "rondo_peer_reachable", "gauge", "1 if this node reaches the peer.");
    for (uint16_t i = 0; i < shard->ring->node_count; i++) {
        if (i == shard->self)
            continue;
        buf_append_text(text, "rondo_peer_reachable{");
        put_label(text, "peer", shard->ring->nodes[i].name);
        buf_append_format(text, "} %d\n", node_reachable(shard, i));
    }
}

static void put_requests(const struct metrics *metrics, struct buf *text)
{
    static const char *const operations[METRICS_OPERATIONS] = {"get", "put", "delete", "expire"};
    static const char *const outcomes[METRICS_OUTCOMES] = {"done", "not_applied", "unknown"};
    static const char *const consistencies[METRICS_CONSISTENCIES] = {"quorum", "all", "one", "2", "3",
                                                                     "4",      "5",   "6",   "7"};
    put_family(text, "rondo_requests_total", "counter",
               "Requests by operation, outcome, and the R (get) or W (others) that was asked for.");
    for (uint32_t i = 0; i < METRICS_OPERATIONS; i++) {
        for (uint32_t k = 0; k < METRICS_OUTCOMES; k++) {
            for (uint32_t m = 0; m < METRICS_CONSISTENCIES; m++) {
                uint64_t count = metrics->requests[i][k][m];
                /* The usual ones are always there, so that their rate is known from the start. */
                if (count == 0 && m != 0)
                    continue;
                buf_append_format(text,
                                  "rondo_requests_total{operation=\"%s\",outcome=\"%s\",consistency=\"%s\"} "
                                  "%" PRIu64 "\n",
                                  operations[i], outcomes[k], consistencies[m], count);
            }
        }
    }
}

static void put_histogram(struct buf *text, const char *name, const char *label,
                          const struct histogram *histogram)
{
    const char *comma = label[0] == '\0' ? "" : ",";
    for (uint32_t exponent = EDGE_EXPONENT_MIN; exponent <= EDGE_EXPONENT_MAX; exponent++) {
        buf_append_format(text, "%s_bucket{%s%sle=\"", name, label, comma);
        put_number(text, (int64_t)(UINT64_C(1) << exponent), MICROSECOND_DECIMALS);
        buf_append_format(text, "\"} %" PRIu64 "\n", histogram_count_below(histogram, exponent));
    }
    uint64_t count = histogram_count(histogram);
    const char *open = label[0] == '\0' ? "" : "{";
    const char *close = label[0] == '\0' ? "" : "}";
    buf_append_format(text, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n%s_sum%s%s%s ", name, label, comma,
                      count, name, open, label, close);
    put_number(text, (int64_t)histogram->sum, MICROSECOND_DECIMALS);
    buf_append_format(text, "\n%s_count%s%s%s %" PRIu64 "\n", name, open, label, close, count);
}

static void put_times(const struct metrics *metrics, struct buf *text)
{
    static const struct {
        const char *name;
        const char *label;
        const char *help;
    } times[METRICS_TIMES_COUNT] = {
#define METRICS_TIME_ROW(id, name, label, help) {name, label, help},
        METRICS_TIMES(METRICS_TIME_ROW)
#undef METRICS_TIME_ROW
    };
    for (uint32_t i = 0; i < METRICS_TIMES_COUNT; i++) {
        if (i == 0 || !span_is(span_of_text(times[i].name), times[i - 1].name))
            put_family(text, times[i].name, "histogram", times[i].help);
        put_histogram(text, times[i].name, times[i].label, &metrics->times[i]);
    }
}

void metrics_text(struct shard *shard, const struct stats_sum *stats, struct buf *text)
{
    put_info(shard, text);
#define METRICS_NODE_LINE(type, decimals, name, help, value) \
    put_family(text, name, #type, help);                     \
    put_single(text, name, (value), decimals);
    METRICS_NODE(METRICS_NODE_LINE)
#undef METRICS_NODE_LINE
    put_peers(shard, text);
    put_requests(&stats->metrics, text);
#define METRICS_COUNTED_LINE(field, type, name, help)     \
    if (sizeof(name) > 1) {                               \
        put_family(text, name, #type, help);              \
        put_single(text, name, (int64_t)stats->field, 0); \
    }
#define METRICS_READ_LINE(field, type, decimals, name, help, value) \
    if (sizeof(name) > 1) {                                         \
        put_family(text, name, #type, help);                        \
        put_single(text, name, (int64_t)stats->field, decimals);    \
    }
    METRICS_COUNTED(METRICS_COUNTED_LINE)
    METRICS_READ(METRICS_READ_LINE)
    METRICS_MOST(METRICS_READ_LINE)
#undef METRICS_COUNTED_LINE
#undef METRICS_READ_LINE
    put_times(&stats->metrics, text);
}
