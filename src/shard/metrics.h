/* Metrics: requests by operation, outcome and consistency, times of their stages, and the text at GET /metrics.
 *
 * Counting is an increment in an array; times come from the step's clock reading, never from a clock of their own. The
 * lists are in metrics_table.h. */
#ifndef RONDO_SHARD_METRICS_H
#define RONDO_SHARD_METRICS_H

#include "base/histogram.h"
#include "base/limits.h"
#include "model/operation.h"
#include "shard/metrics_table.h"
#include "shard/watch.h"

enum metrics_time {
#define METRICS_TIME_ENUM(id, name, label, help) METRICS_TIME_##id,
    METRICS_TIMES(METRICS_TIME_ENUM)
#undef METRICS_TIME_ENUM
    METRICS_TIMES_COUNT,
};

/* The consistency that was asked for: quorum (also where nothing was), all, or 1 to REPLICAS_MAX. */
#define METRICS_CONSISTENCIES (2u + REPLICAS_MAX)
#define METRICS_OPERATIONS ((unsigned)OPERATION_EXPIRE)
#define METRICS_OUTCOMES ((unsigned)OUTCOME_UNKNOWN)

/* What a shard counts besides struct shard_counters. */
struct metrics {
    uint64_t requests[METRICS_OPERATIONS][METRICS_OUTCOMES][METRICS_CONSISTENCIES];
    struct histogram times[METRICS_TIMES_COUNT];
};

/* Facts of one shard, summed over the shards for INFO, DBSIZE, /status and /metrics. */
struct stats_sum {
#define METRICS_MEMBER(field, ...) uint64_t field;
    METRICS_COUNTED(METRICS_MEMBER)
    METRICS_READ(METRICS_MEMBER)
    METRICS_MOST(METRICS_MEMBER)
#undef METRICS_MEMBER
    struct metrics metrics;
};

struct shard;
struct request;

/* A request has its result (coordinator.c). `asked` is its R (a read) or W as the client gave it. */
void metrics_result(struct shard *shard, enum operation_kind kind, uint8_t asked,
                    const struct result *result);
/* The same for one that was begun: also the times it took. */
void metrics_ended(struct shard *shard, const struct request *request, const struct result *result);

/* `since_us` was the step's clock when it began; 0 = it did not. */
void metrics_time(struct shard *shard, enum metrics_time time, uint64_t since_us);

/* The same of what the latency monitor watches too. */
void metrics_event(struct shard *shard, enum metrics_time time, enum watch_event event, uint64_t since_us);

/* This shard's facts, and what other shards' add to them. */
void metrics_collect(const struct shard *shard, struct stats_sum *stats);
void metrics_add(struct stats_sum *stats, const struct stats_sum *other);

/* The body of a FRAME_STATS: of bounded size, as all numbers have their place or are written once. */
void metrics_put(struct buf *buf, const struct stats_sum *stats);
MUST_CHECK enum status metrics_read(struct span body, struct stats_sum *stats);

/* The text exposition format 0.0.4, of the sum over all shards and of what this shard knows of the node. */
#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
void metrics_text(struct shard *shard, const struct stats_sum *stats, struct buf *text);

#endif
