/* Range scans of the cold tier for one shard: pages are read on libuv's thread pool, and each is one event of a later
 * turn.
 *
 * A scan is opened on the loop's thread, because its snapshot belongs between the effects around it (shard.h). Its
 * pages are asked for one by one. SCAN_PAGES_MAX are under way at once, so that scans leave the pool's other threads to
 * reads and flushes; scans whose page waits take turns, and hold no page. Scans are closed by the pool too. A page is
 * freed once the shard has seen it: all scans together take the room of SCAN_PAGES_MAX pages (or single large rows). */
#ifndef RONDO_EDGE_SCAN_WORK_H
#define RONDO_EDGE_SCAN_WORK_H

#include <uv.h>

#include "base/list.h"
#include "shard/shard.h"

#define SCAN_PAGES_MAX 1u

struct cold;
struct say_sink;

struct scan_work_options {
    uv_loop_t *uv;
    struct cold *cold;
    struct alloc *alloc; /* the loop's; what it holds is bounded by counts */
    const struct say_sink *say;
    uint16_t shard;
    void *context;
    void (*tell)(void *context, struct event *event); /* an EVENT_COLD_SCAN for the shard; may call back */
};

struct scan_work {
    struct scan_work_options options;
    struct list_link scans;   /* all, in the order of their opening */
    struct list_link waiting; /* those that wait for the pool */
    uint32_t open;            /* scans that the shard knows as open */
    uint32_t busy;            /* those in the pool */
    bool telling;             /* the shard is being told of a page */
    bool closing;
};

void scan_work_init(struct scan_work *work, const struct scan_work_options *options);

/* EFFECT_COLD_SCAN, EFFECT_COLD_SCAN_NEXT, EFFECT_COLD_SCAN_STOP. The answers come later, never from these calls. */
void scan_work_open(struct scan_work *work, uint64_t ticket, struct span first, struct span end);
void scan_work_next(struct scan_work *work, uint64_t ticket);
void scan_work_stop(struct scan_work *work, uint64_t ticket);

/* The loop ends: nothing is told or started any more. What is in the pool keeps the loop running until it is done. */
void scan_work_close(struct scan_work *work);

/* After the loop has ended, and before the cold tier is closed: frees what is left. */
void scan_work_free(struct scan_work *work);

#endif
