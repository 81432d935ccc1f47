/* rondo top: what its files share. Two samples of a node's /metrics make one row of the table. */
#ifndef RONDO_CLI_TOP_H
#define RONDO_CLI_TOP_H

#include "base/limits.h"
#include "cli/cli.h"

/* Nodes write 20 finite buckets, and the infinite one. */
#define TOP_BUCKETS_MAX 32u
#define TOP_NAME_BYTES_MAX 64u

enum top_figure {
    TOP_READS, /* counters */
    TOP_WRITES,
    TOP_FAILED,
    TOP_OVERLOADS,
    TOP_LOG_BYTES,
    TOP_CPU_S,
    TOP_MEMORY_USED, /* gauges, from here on */
    TOP_MEMORY_BUDGET,
    TOP_RESIDENT,
    TOP_COLD_BYTES,
    TOP_LEVEL0,
    TOP_SERVING,
    TOP_DISK_FULL,
    TOP_SLOTS_NOT_SERVING,
    TOP_STARTED,
    TOP_FIGURES,
};

/* Cumulative counts, as in Prometheus. */
struct top_buckets {
    uint32_t count;
    double until_s[TOP_BUCKETS_MAX];
    double counts[TOP_BUCKETS_MAX];
};

struct top_sample {
    uint64_t at_ms;
    double figures[TOP_FIGURES];
    struct top_buckets reads;
    struct top_buckets writes;
};

struct top_node {
    char name[TOP_NAME_BYTES_MAX];
    char http[ADDRESS_BYTES_MAX];
    bool answered;
    bool has_before; /* and the node did not start again since */
    char fault[96];  /* why it did not answer */
    struct top_sample before;
    struct top_sample now;
};

/* Reads a body of /metrics; false if it is none of a Rondo node. */
bool top_sample_read(struct span body, struct top_sample *sample);

/* Seconds that a part (0 to 1) of the interval's requests did not take longer than: the end of a bucket; INFINITY past
 * the last, 0 where there was none. */
double top_quantile(const struct top_buckets *before, const struct top_buckets *now, double part);

/* A counter's growth per second of the interval; 0 without an earlier sample. */
double top_rate(const struct top_node *node, enum top_figure figure);

/* "serving", "disk full", … or why there is no answer. */
const char *top_state(const struct top_node *node);

/* The table. */
void top_view_text(struct buf *out, const struct top_node *nodes, uint32_t count);
json_t *top_view_json(const struct top_node *nodes, uint32_t count);

#endif
