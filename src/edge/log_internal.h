/* What the files of the log share.
 *
 * Two locks. `lock` guards the queue and what others ask of the log; it is held for moments. `writer_lock` is held by
 * whoever writes, over the whole of it: the log thread whenever it does not sleep, or a shard that writes what waits
 * by itself (log_thread_write). Taken in the order writer_lock, lock. */
#ifndef RONDO_EDGE_LOG_INTERNAL_H
#define RONDO_EDGE_LOG_INTERNAL_H

#include <pthread.h>

#include "edge/files.h"
#include "edge/log_queue.h"
#include "edge/log_thread.h"
#include "store/log_writer.h"

/* Bytes framed at once: what one write takes. Twice this and two of the largest payloads bound the writer's
 * memory. */
#define LOG_PENDING_BYTES_MAX ((uint64_t)8 << 20)
#define LOG_MEMORY_BYTES_MAX (4 * (size_t)LOG_PAYLOAD_BYTES_MAX + 4 * (size_t)LOG_PENDING_BYTES_MAX)

/* Old segments kept to be recycled: each saves making and preallocating a file. */
#define LOG_SPARES_MAX 2

struct log_thread {
    struct log_thread_options options;
    char *directory;
    pthread_t thread;

    pthread_mutex_t writer_lock; /* guards what stands below the line */
    pthread_mutex_t lock;        /* guards what follows, up to the line */
    pthread_cond_t wake;
    struct log_queue queue;
    size_t queued_bytes; /* in the queue or taken from it, and not framed yet */
    uint64_t flushed[SHARDS_MAX];
    bool flushed_changed;
    bool sleeping;
    bool nudged; /* the thread is to look again: a shard wrote, or could not */
    bool stopping;
    bool dead; /* after fatal(): nothing is taken any more */
    bool full; /* what the shards were told */
    struct log_thread_stats stats;
    /* ---- below: whose is writer_lock ---- */

    struct alloc alloc;
    struct log_writer writer;
    struct log_queue taken;
    size_t taken_at;
    uint64_t reported[SHARDS_MAX];
    struct segment_files files;
    bool marked;     /* the idle marker was written since the last batch */
    bool unsynced;   /* interval: something was written since the last sync was asked */
    bool stop_asked; /* the last sync and mark were asked for */
    bool stopped_clean;
    uint64_t idle_since_us;
    uint64_t sync_due_us;   /* interval; 0 = nothing to sync */
    uint64_t retry_due_us;  /* disk full; 0 = it is not */
    uint64_t probe_due_us;  /* it was so at the start, before anything was to be written; 0 = it is not */
    uint64_t rest_until_us; /* a shard's write took long: the thread writes until then */
    bool begun;             /* options.begun answered OK */
};

uint64_t log_clock_us(void);

/* The rest wants writer_lock. */

/* Carries out one IO and tells the writer. False after a fatal error. */
bool log_perform(struct log_thread *log, const struct log_io *io);

/* Whether there is room for the next segment: makes and removes it. A node that could not write anything says so when
 * it starts, not to the first client. Errors that the writer will run into too are left to it. */
void log_probe(struct log_thread *log);

/* Ends the process, once. */
void log_fatal(struct log_thread *log, const char *text);

/* Frames taken batches until the writer has enough. False after a fatal error. */
bool log_frame(struct log_thread *log);

#define LOG_NO_SHARD UINT16_MAX

/* Tells the shards what became durable since the last time; what `own` should hear is returned instead; 0: nothing. */
uint64_t log_report(struct log_thread *log, uint16_t own);

#endif
