/* Work that blocks, done by libuv's thread pool: cold reads, flushes, the meta file.
 *
 * Cold reads of a turn are gathered into batches of at most COLD_BATCH_READS, each one item of work; their results
 * are events of one later turn. A batch whose results reach COLD_BATCH_BYTES hands them over before it reads on, and
 * COLD_BATCHES_MAX are under way at once: a loop's results take no more than that many times COLD_BATCH_BYTES and one
 * value. Batches that wait hold keys only; the shard bounds how many reads it asks for (COLD_WAITERS_MAX).
 *
 * One flush and one write of the meta file are under way at most. A meta write that is overtaken by a newer one before
 * it starts is never made: the newer one's sequence stands for both.
 *
 * The pool runs cold reads, the meta file and, for each shard, one flush and one page of a scan (edge/scan_work.h);
 * work_threads says how many threads that takes. */
#ifndef RONDO_EDGE_WORK_H
#define RONDO_EDGE_WORK_H

#include <uv.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/timer.h"
#include "shard/shard.h"

#define COLD_BATCH_READS 16
#define COLD_BATCH_BYTES ((size_t)2 << 20)
#define COLD_BATCHES_MAX 4

/* After a failed meta write nothing is tried again sooner: a full disk must not keep a core busy. */
#define META_RETRY_MS 1000

struct loop;
struct cold_batch;

struct work {
    struct cold_batch *gathering; /* the turn's reads, not yet handed over; or NULL */
    struct list_link waiting;     /* batches for which none of COLD_BATCHES_MAX is free */
    uint32_t batches_busy;

    struct flush_job *job; /* under way, or waiting for another try; or NULL */
    enum status flush_status;
    struct alloc flush_alloc; /* of flush_why: while work is under way it belongs to the worker */
    struct buf flush_why;
    uv_work_t flush_work;
    struct timer flush_timer;

    bool meta_busy; /* being written, or waiting for another try */
    uint64_t meta_sequence;
    struct alloc meta_alloc; /* of meta_why, likewise */
    struct buf meta_bytes;
    struct buf meta_why;
    enum status meta_status;
    uv_work_t meta_work;
    struct timer meta_timer;
    bool meta_waiting; /* a newer one came meanwhile */
    uint64_t meta_next_sequence;
    struct buf meta_next;
};

/* Threads for a node of so many shards: UV_THREADPOOL_SIZE. */
static inline unsigned work_threads(uint16_t shards)
{
    return 4u + 2u * shards;
}

void work_init(struct loop *loop);

/* EFFECT_COLD_READ, EFFECT_FLUSH, EFFECT_META_WRITE. */
void work_cold_read(struct loop *loop, uint64_t ticket, struct span key);
void work_flush(struct loop *loop, struct flush_job *job);
void work_meta_write(struct loop *loop, uint64_t sequence, struct span bytes);

/* Hands over the reads gathered so far. */
void work_submit(struct loop *loop);

/* LOOP_TIMER_FLUSH and LOOP_TIMER_META. */
void work_flush_timer(struct loop *loop);
void work_meta_timer(struct loop *loop);

/* After the loop has ended. */
void work_free(struct loop *loop);

#endif
