/* The node's log thread: the world around the pure log writer (store/log_writer.h).
 *
 * Shards hand over batches from their own threads and never wait for a sync; this thread takes everything
 * that is waiting, writes it with one write and syncs it once (group commit), then says what is durable.
 * Segments are preallocated files, recycled by renaming once everything in them is in the cold tier. A failed
 * sync ends the process (the pages that failed may be gone: a second try would succeed and lie), a full disk
 * does not. */
#ifndef RONDO_EDGE_LOG_THREAD_H
#define RONDO_EDGE_LOG_THREAD_H

#include "store/log_format.h"

struct log_thread;

/* Where recovery left the log. Everything in it is synced; the file of end.segment is cut off at
 * end.offset. */
struct log_resume {
    uint64_t segment_next;
    uint64_t batch_next;
    struct log_place end;
    struct hlc_bounds bounds;
    uint64_t *inherited; /* numbers of the files in the directory, ascending */
    size_t inherited_count;
};

/* When a batch counts as durable. */
enum durability_mode {
    DURABILITY_ALWAYS = 1,   /* on the disk */
    DURABILITY_INTERVAL = 2, /* handed to the operating system; the thread syncs every interval_ms */
    DURABILITY_OS = 3,       /* handed to the operating system */
};

/* The queue has no limit of its own: a slow disk is not a full one. Each shard answers OVERLOADED to writes past
 * LOG_UNSYNCED_BYTES_MAX of its own that are not durable yet, so the queue holds at most that of every shard, and 32
 * bytes more a batch. */

/* While the disk is full: how often a new segment is tried. */
#define LOG_FULL_RETRY_MS 200

/* After this long without work a marker says that everything before it is durable. */
#define LOG_IDLE_MS 20

#define LOG_WRITE_REST_US 1000000u /* that while */

struct log_thread_options {
    const char *directory; /* DIR/log; exists */
    struct log_identity identity;
    const struct log_resume *resume; /* NULL: an empty log; not kept */
    enum durability_mode mode;
    uint32_t interval_ms;
    uint16_t shards;
    uint64_t segment_bytes; /* 0 = LOG_SEGMENT_BYTES_DEFAULT; a larger batch gets a larger segment */
    uint32_t
        write_slow_us; /* a shard's write that took so long leaves writing to the thread for a while; 0: 10 ms */
    void *context;
    /* Called on the thread that writes: the log's, or that of a shard in log_thread_write (full(true) also by
     * log_thread_start). They must not call back into the log. */
    enum status (*begun)(void *context,
                         struct buf *why); /* this run's first segment is there, nothing is in it;
                                                           * may be NULL; DISK_FULL: called again later */
    void (*durable)(void *context, uint16_t shard,
                    uint64_t sequence);             /* batches of the shard up to sequence */
    void (*full)(void *context, bool full);         /* the disk has no room for the log, or has again */
    void (*fatal)(void *context, const char *text); /* nothing is durable any more: end the process */
};

/* Starts the thread. On an error nothing runs and `why` has a sentence. A disk without room for the next segment is
 * no error: full(true) is then called before this returns. */
MUST_CHECK enum status log_thread_start(const struct log_thread_options *options, struct log_thread **log,
                                        struct buf *why);

/* Queues one batch, copied; from any thread. The batches of one shard come in the order of their sequences.
 * Ends in durable(), or log_thread_write's answer, or in fatal(). */
void log_thread_append(struct log_thread *log, uint16_t shard, uint64_t sequence, uint32_t entries,
                       bool has_bounds, struct span payload);

/* Must follow appends, on the thread that made them, before it waits for anything; one call for many is enough. Where
 * durability needs no sync it writes what waits, if nobody else is doing so, and returns the sequence up to which the
 * shard's batches became durable; 0: durable() will tell. */
uint64_t log_thread_write(struct log_thread *log, uint16_t shard);

/* What the shard appended up to sequence is in the cold tier: older segments may go. From any thread. */
void log_thread_flushed(struct log_thread *log, uint16_t shard, uint64_t sequence);

struct log_thread_stats {
    uint64_t batches;
    uint64_t bytes;
    uint64_t writes;
    uint64_t syncs;
    uint64_t segments; /* files in use, with those kept for recycling */
    uint64_t queued_bytes;
    bool full;
};
void log_thread_stats(struct log_thread *log, struct log_thread_stats *stats);

/* Writes and syncs everything that is queued (in every mode), writes the final marker, joins and frees. No
 * append may run or follow. OK only if all of it is on the disk. */
MUST_CHECK enum status log_thread_stop(struct log_thread *log);

#endif
