/* The node's log thread, and shards that write by themselves.
 *
 * Shards append to a queue of plain bytes under a short lock; whoever writes swaps the queue with an empty one, frames
 * what it took through the log writer, and carries out one IO at a time. Because the thread looks at the queue again
 * between any two IOs, all that came during a sync goes into the next write: group commit without a timer.
 *
 * Where nobody waits for a sync, what a turn appended is mostly one copy into the page cache; to wake this thread for
 * it, and to be woken by it, costs several times that. So a shard then writes by itself, unless somebody else is
 * writing. All else (new segments, syncs, markers, a full disk) stays this thread's. */
#include "edge/log_thread.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "edge/log_internal.h"

/* A shard's write that took so long met a disk that cannot keep up. The thread then writes for LOG_WRITE_REST_US: no
 * shard waits for the disk more than once in that time. */
#define LOG_WRITE_SLOW_US 10000u

/* How long the thread may sleep: a deadline in microseconds, UINT64_MAX for none. */
static uint64_t log_deadline_us(const struct log_thread *log)
{
    uint64_t deadline = UINT64_MAX;
    if (log->retry_due_us != 0)
        deadline = log->retry_due_us;
    if (log->probe_due_us != 0 && log->probe_due_us < deadline)
        deadline = log->probe_due_us;
    if (log->sync_due_us != 0 && log->sync_due_us < deadline)
        deadline = log->sync_due_us;
    if (!log->marked && log_writer_idle(&log->writer)) {
        uint64_t idle = log->idle_since_us + LOG_IDLE_MS * 1000u;
        if (idle < deadline)
            deadline = idle;
    }
    return deadline;
}

/* Whether something waits; the queue only where it can be taken. `lock` is held. */
static bool log_has_news(const struct log_thread *log, bool takes)
{
    return (log->queue.size > 0 && takes) || log->flushed_changed || log->nudged ||
           (log->stopping && !log->stop_asked);
}

/* Sleeps until there is news or a deadline. Whatever else wants to write may do so meanwhile. */
static void log_sleep(struct log_thread *log)
{
    uint64_t deadline_us = log_deadline_us(log);
    /* A full queue of a full disk is no news. A shard that leaves something in `taken` nudges. */
    bool takes = log->taken_at == log->taken.size;
    pthread_mutex_unlock(&log->writer_lock);
    pthread_mutex_lock(&log->lock);
    while (!log_has_news(log, takes)) {
        log->sleeping = true;
        int error = 0;
        if (deadline_us == UINT64_MAX) {
            error = pthread_cond_wait(&log->wake, &log->lock);
        } else {
            struct timespec until = {.tv_sec = (time_t)(deadline_us / 1000000u),
                                     .tv_nsec = (long)(deadline_us % 1000000u * 1000u)};
            error = pthread_cond_timedwait(&log->wake, &log->lock, &until);
        }
        log->sleeping = false;
        if (error == ETIMEDOUT)
            break;
    }
    log->nudged = false;
    pthread_mutex_unlock(&log->lock);
    pthread_mutex_lock(&log->writer_lock);
}

/* `lock` is held. */
static void log_take_queue(struct log_thread *log)
{
    if (log->taken_at < log->taken.size)
        return;
    log_queue_take(&log->queue, &log->taken);
    log->taken_at = 0;
}

/* Takes what came. */
static void log_take(struct log_thread *log, bool *stopping)
{
    uint64_t flushed[SHARDS_MAX];
    bool flushed_changed;
    pthread_mutex_lock(&log->lock);
    log_take_queue(log);
    *stopping = log->stopping;
    flushed_changed = log->flushed_changed;
    log->flushed_changed = false;
    memcpy(flushed, log->flushed, sizeof(flushed));
    pthread_mutex_unlock(&log->lock);
    for (uint16_t shard = 0; flushed_changed && shard < log->options.shards; shard++) {
        if (flushed[shard] > 0)
            log_writer_flushed(&log->writer, shard, flushed[shard]);
    }
}

/* Timers: the retry of a full disk, the interval's sync, the idle marker. */
static void log_timers(struct log_thread *log)
{
    bool interval = log->options.mode == DURABILITY_INTERVAL;
    bool idle = log_writer_idle(&log->writer);
    /* Without a timer to look at, the clock is not read. */
    if (log->retry_due_us == 0 && log->probe_due_us == 0 && !(interval && log->unsynced) &&
        !(idle && !log->marked))
        return;
    uint64_t now_us = log_clock_us();
    if (log->retry_due_us != 0 && now_us >= log->retry_due_us) {
        log->retry_due_us = now_us + LOG_FULL_RETRY_MS * 1000u;
        log_writer_retry(&log->writer);
    }
    if (log->probe_due_us != 0 && now_us >= log->probe_due_us)
        log_probe(log);
    if (interval && log->unsynced && log->sync_due_us == 0)
        log->sync_due_us = now_us + (uint64_t)log->options.interval_ms * 1000u;
    if (log->sync_due_us != 0 && now_us >= log->sync_due_us) {
        log->sync_due_us = 0;
        log->unsynced = false;
        log->marked = false;
        log_writer_sync(&log->writer);
    }
    if (idle && !log->marked && log->idle_since_us != 0 &&
        now_us >= log->idle_since_us + LOG_IDLE_MS * 1000u) {
        /* Out of memory is no harm here: the marker only helps to tell damage from a torn tail. */
        (void)!log_writer_mark(&log->writer);
        log->marked = true;
    }
}

/* What a stop still wants once everything is written: a sync, then the marker, then a sync of the marker.
 * True when there is nothing left to do. */
static bool log_finish(struct log_thread *log, unsigned *step)
{
    switch ((*step)++) {
    case 0:
        log_writer_sync(&log->writer);
        return false;
    case 1:
        (void)!log_writer_mark(&log->writer);
        return false;
    case 2:
        log_writer_sync(&log->writer);
        return false;
    default:
        return true;
    }
}

/* The thread's life, with writer_lock held but for its sleep. */
static void log_run(struct log_thread *log)
{
    bool stopping = false;
    bool busy = false;
    unsigned finish_step = 0;
    for (;;) {
        if (!busy && !(stopping && log->retry_due_us == 0))
            log_sleep(log);
        log_take(log, &stopping);
        log->stop_asked = stopping;
        if (!log_frame(log))
            return;
        log_timers(log);
        struct log_io io;
        busy = log_writer_next_io(&log->writer, &io);
        if (busy) {
            if (!log_perform(log, &io))
                return;
            (void)log_report(log, LOG_NO_SHARD);
            log->idle_since_us = 0;
            continue;
        }
        busy = log->taken_at < log->taken.size && log->retry_due_us == 0;
        if (busy)
            continue;
        if (stopping && log->retry_due_us != 0)
            return; /* the disk is full: what waits was never acknowledged */
        if (stopping && log_finish(log, &finish_step)) {
            log->stopped_clean = true;
            return;
        }
        if (log->idle_since_us == 0)
            log->idle_since_us = log_clock_us();
    }
}

static void *log_thread_main(void *argument)
{
    struct log_thread *log = argument;
    pthread_mutex_lock(&log->writer_lock);
    log_run(log);
    pthread_mutex_unlock(&log->writer_lock);
    return NULL;
}

/* ---- shards that write ---------------------------------------------------------------------------------- */

static void log_nudge(struct log_thread *log)
{
    pthread_mutex_lock(&log->lock);
    log->nudged = true;
    if (log->sleeping)
        pthread_cond_signal(&log->wake);
    pthread_mutex_unlock(&log->lock);
}

/* Writes what waits as far as that takes no more than writes. */
static bool log_write_waiting(struct log_thread *log)
{
    pthread_mutex_lock(&log->lock);
    log_take_queue(log);
    pthread_mutex_unlock(&log->lock);
    if (!log_frame(log))
        return false;
    while (log_writer_wants_write(&log->writer)) {
        struct log_io io;
        bool some = log_writer_next_io(&log->writer, &io);
        assert(some);
        if (!log_perform(log, &io) || !log_frame(log))
            return false;
    }
    return true;
}

/* What a write leaves to the thread: whatever is not a write, and its timers, if it does not know of them yet. */
static bool log_leaves_work(struct log_thread *log, bool was_marked, bool sync_was_due)
{
    bool interval = log->options.mode == DURABILITY_INTERVAL;
    return (was_marked && !log->marked) || (interval && !sync_was_due) || log->retry_due_us != 0 ||
           log->taken_at < log->taken.size || !log_writer_idle(&log->writer);
}

uint64_t log_thread_write(struct log_thread *log, uint16_t shard)
{
    uint64_t durable = 0;
    bool thread_wanted = true;
    if (log->options.mode == DURABILITY_ALWAYS)
        return 0; /* log_thread_append has woken the thread */
    if (pthread_mutex_trylock(&log->writer_lock) == 0) {
        uint64_t begun_us = log_clock_us();
        if (log->retry_due_us == 0 && begun_us >= log->rest_until_us) {
            bool was_marked = log->marked;
            bool sync_was_due = log->sync_due_us != 0;
            if (log_write_waiting(log)) {
                durable = log_report(log, shard);
                log->idle_since_us = log_clock_us();
                if (log->idle_since_us - begun_us >= log->options.write_slow_us)
                    log->rest_until_us = log->idle_since_us + LOG_WRITE_REST_US;
                thread_wanted = log_leaves_work(log, was_marked, sync_was_due);
            }
        }
        pthread_mutex_unlock(&log->writer_lock);
    }
    if (thread_wanted)
        log_nudge(log);
    return durable;
}

/* ---- the interface -------------------------------------------------------------------------------------- */

static enum status log_writer_begin(struct log_thread *log, struct buf *why)
{
    static const struct log_resume empty = {.segment_next = 1, .batch_next = 1};
    const struct log_resume *resume = log->options.resume != NULL ? log->options.resume : &empty;
    alloc_init(&log->alloc, LOG_MEMORY_BYTES_MAX);
    struct log_writer_options options = {
        .alloc = &log->alloc,
        .identity = log->options.identity,
        .shards = log->options.shards,
        .segment_bytes = log->options.segment_bytes,
        .pending_bytes_max = LOG_PENDING_BYTES_MAX,
        .spares_max = LOG_SPARES_MAX,
        .sync_always = log->options.mode == DURABILITY_ALWAYS,
        .segment_next = resume->segment_next,
        .batch_next = resume->batch_next,
        .end = resume->end,
        .bounds = resume->bounds,
        .inherited = resume->inherited,
        .inherited_count = resume->inherited_count,
    };
    enum status status = log_writer_init(&log->writer, &options);
    if (status != STATUS_OK && why != NULL)
        buf_append_format(why, "cannot start the log in %s: %s", log->directory, status_text(status));
    log->options.resume = NULL; /* not kept */
    return status;
}

static void log_free(struct log_thread *log)
{
    segment_files_close(&log->files);
    log_writer_free(&log->writer);
    pthread_cond_destroy(&log->wake);
    pthread_mutex_destroy(&log->lock);
    pthread_mutex_destroy(&log->writer_lock);
    log_queue_free(&log->queue);
    log_queue_free(&log->taken);
    free(log->directory);
    free(log);
}

enum status log_thread_start(const struct log_thread_options *options, struct log_thread **out,
                             struct buf *why)
{
    assert(options->shards >= 1 && options->shards <= SHARDS_MAX);
    assert(options->durable != NULL && options->full != NULL && options->fatal != NULL);
    struct log_thread *log = calloc(1, sizeof(*log));
    if (log == NULL)
        return STATUS_OVERLOADED;
    log->options = *options;
    if (log->options.segment_bytes == 0)
        log->options.segment_bytes = LOG_SEGMENT_BYTES_DEFAULT;
    if (log->options.write_slow_us == 0)
        log->options.write_slow_us = LOG_WRITE_SLOW_US;
    log->directory = strdup(options->directory);
    if (log->directory == NULL) {
        free(log);
        return STATUS_OVERLOADED;
    }
    log->options.directory = NULL;
    log->files.directory = log->directory;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&log->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&log->lock, NULL);
    pthread_mutex_init(&log->writer_lock, NULL);
    enum status status = log_writer_begin(log, why);
    if (status == STATUS_OK) {
        log_probe(log);
        int error = pthread_create(&log->thread, NULL, log_thread_main, log);
        if (error != 0)
            status = files_fail(why, "start the thread of the log in", log->directory, error);
    }
    if (status != STATUS_OK) {
        log_free(log);
        return status;
    }
    *out = log;
    return STATUS_OK;
}

void log_thread_append(struct log_thread *log, uint16_t shard, uint64_t sequence, uint32_t entries,
                       bool has_bounds, struct span payload)
{
    assert(shard < log->options.shards);
    assert(sequence > LOG_SEQUENCE_INHERITED);
    struct log_queued head = {.sequence = sequence,
                              .size = payload.size,
                              .entries = entries,
                              .shard = shard,
                              .has_bounds = has_bounds};
    pthread_mutex_lock(&log->lock);
    if (log->dead) {
        pthread_mutex_unlock(&log->lock);
        return;
    }
    assert(!log->stopping);
    size_t size = log_queue_append(&log->queue, &head, payload);
    log->queued_bytes += size;
    bool thread_writes = log->options.mode == DURABILITY_ALWAYS;
    if (size > 0 && log->sleeping && thread_writes)
        pthread_cond_signal(&log->wake);
    pthread_mutex_unlock(&log->lock);
    if (size == 0)
        log_fatal(log, "out of memory for the log's queue");
}

void log_thread_flushed(struct log_thread *log, uint16_t shard, uint64_t sequence)
{
    assert(shard < log->options.shards);
    pthread_mutex_lock(&log->lock);
    if (sequence > log->flushed[shard]) {
        log->flushed[shard] = sequence;
        log->flushed_changed = true;
        if (log->sleeping)
            pthread_cond_signal(&log->wake);
    }
    pthread_mutex_unlock(&log->lock);
}

void log_thread_stats(struct log_thread *log, struct log_thread_stats *stats)
{
    pthread_mutex_lock(&log->lock);
    *stats = log->stats;
    stats->queued_bytes = log->queued_bytes;
    stats->full = log->full;
    pthread_mutex_unlock(&log->lock);
}

enum status log_thread_stop(struct log_thread *log)
{
    pthread_mutex_lock(&log->lock);
    log->stopping = true;
    pthread_cond_signal(&log->wake);
    pthread_mutex_unlock(&log->lock);
    (void)pthread_join(log->thread, NULL);
    enum status status = log->stopped_clean && !log->dead ? STATUS_OK : STATUS_IO_ERROR;
    log_free(log);
    return status;
}
