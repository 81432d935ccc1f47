/* What the world knows about disk, log and process, told to shard 0 now and then as EVENT_FACTS for its metrics.
 *
 * It is gathered on libuv's thread pool, since RocksDB and the file system may make it wait; one at a time. */
#ifndef RONDO_EDGE_FACTS_H
#define RONDO_EDGE_FACTS_H

#include <uv.h>

#include "base/timer.h"
#include "shard/shard.h"

/* Pause between two: what monitoring sees is at most about this old. */
#define FACTS_INTERVAL_MS 2000

struct loop;

struct facts {
    struct node_facts found; /* the worker's while it runs, as the next */
    uint32_t untrimmed;      /* gathered so often since free memory was given back */
    uv_work_t work;
    struct timer timer;
};

/* Gathers them now, and again after each pause: on the loop of shard 0, once it runs and at LOOP_TIMER_FACTS. */
void facts_gather(struct loop *loop);

#endif
