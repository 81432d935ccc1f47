/* The node's log thread.
 *
 * Shards append to a queue of plain bytes under a short lock; the thread swaps the queue with an empty one,
 * frames what it took through the log writer, and carries out one IO at a time. Because it looks at the queue
 * again between any two IOs, all that came during a sync goes into the next write: group commit without a
 * timer. */
#include "edge/log_thread.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "edge/files.h"
#include "edge/log_queue.h"
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

    pthread_mutex_t lock; /* guards what follows, up to the line */
    pthread_cond_t wake;
    struct log_queue queue;
    size_t queued_bytes; /* in the queue or taken from it, and not framed yet */
    uint64_t flushed[SHARDS_MAX];
    bool flushed_changed;
    bool sleeping;
    bool stopping;
    bool dead; /* after fatal(): nothing is taken any more */
    bool full; /* what the shards were told */
    struct log_thread_stats stats;
    /* ---- below: the thread's own ---- */

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
    uint64_t sync_due_us;  /* interval; 0 = nothing to sync */
    uint64_t retry_due_us; /* disk full; 0 = it is not */
    uint64_t probe_due_us; /* it was so at the start, before anything was to be written; 0 = it is not */
    bool begun;            /* options.begun answered OK */
};

static uint64_t log_clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* ---- one IO ---------------------------------------------------------------------------------------------- */

static const char *const log_io_names[] = {
    [LOG_IO_CREATE] = "create", [LOG_IO_RECYCLE] = "rename into", [LOG_IO_WRITE] = "write",
    [LOG_IO_SYNC] = "sync",     [LOG_IO_DELETE] = "delete",
};

/* Tells the world that the log holds something from now on. Returns 0 or an errno. */
static int log_begin(struct log_thread *log)
{
    if (log->begun || log->options.begun == NULL)
        return 0;
    enum status status = log->options.begun(log->options.context, NULL);
    log->begun = status == STATUS_OK;
    if (log->begun)
        return 0;
    return status == STATUS_DISK_FULL ? ENOSPC : EIO;
}

/* A segment that nobody was told of would be missed by nobody if it was lost. */
static int log_create(struct log_thread *log, uint64_t segment, uint64_t size)
{
    int error = segment_files_create(&log->files, segment, size);
    if (error != 0)
        return error;
    error = log_begin(log);
    if (error != 0)
        (void)segment_files_remove(&log->files, segment);
    return error;
}

/* Returns 0 or an errno. */
static int log_io_run(struct log_thread *log, const struct log_io *io)
{
    int descriptor;
    int error;
    switch (io->kind) {
    case LOG_IO_CREATE:
        return log_create(log, io->segment, io->size);
    case LOG_IO_RECYCLE:
        error = log_begin(log);
        return error != 0 ? error : segment_files_rename(&log->files, io->segment_old, io->segment);
    case LOG_IO_DELETE:
        return segment_files_remove(&log->files, io->segment);
    case LOG_IO_WRITE:
        descriptor = segment_files_get(&log->files, io->segment);
        if (descriptor < 0)
            return errno;
        return files_write_at(descriptor, io->bytes.data, io->bytes.size, (off_t)io->offset);
    case LOG_IO_SYNC:
        descriptor = segment_files_get(&log->files, io->segment);
        if (descriptor < 0)
            return errno;
        return fdatasync(descriptor) == 0 ? 0 : errno;
    }
    return EINVAL;
}

/* ---- the thread ----------------------------------------------------------------------------------------- */

static void log_fatal(struct log_thread *log, const char *text)
{
    pthread_mutex_lock(&log->lock);
    bool first = !log->dead;
    log->dead = true;
    pthread_mutex_unlock(&log->lock);
    if (first)
        log->options.fatal(log->options.context, text);
}

/* Calls out with the lock held, so that the shards hear of changes in the order in which they happened. */
static void log_full_set(struct log_thread *log, bool full)
{
    pthread_mutex_lock(&log->lock);
    bool changed = log->full != full;
    log->full = full;
    if (changed)
        log->options.full(log->options.context, full);
    pthread_mutex_unlock(&log->lock);
}

/* Whether there is room for the next segment: makes and removes it. A node that could not write anything says so when
 * it starts, not to the first client. Errors that the writer will run into too are left to it. */
static void log_probe(struct log_thread *log)
{
    uint64_t number = log->writer.segment_next;
    int error = segment_files_create(&log->files, number, log->options.segment_bytes);
    if (error == 0)
        (void)segment_files_remove(&log->files, number);
    bool full = error != 0 && files_status(error) == STATUS_DISK_FULL;
    log->probe_due_us = full ? log_clock_us() + LOG_FULL_RETRY_MS * 1000u : 0;
    log_full_set(log, full);
}

/* Carries out one IO and tells the writer. False after a fatal error. */
static bool log_perform(struct log_thread *log, const struct log_io *io)
{
    int error = log_io_run(log, io);
    pthread_mutex_lock(&log->lock);
    log->stats.writes += io->kind == LOG_IO_WRITE;
    log->stats.syncs += io->kind == LOG_IO_SYNC;
    log->stats.bytes += io->kind == LOG_IO_WRITE ? io->bytes.size : 0;
    log->stats.segments = log->writer.segment_count;
    pthread_mutex_unlock(&log->lock);

    /* Only making room may find none: a sync that says so has lost pages. */
    bool may_be_full = io->kind == LOG_IO_CREATE || io->kind == LOG_IO_RECYCLE || io->kind == LOG_IO_WRITE;
    enum status status = STATUS_OK;
    if (error != 0)
        status = may_be_full && files_status(error) == STATUS_DISK_FULL ? STATUS_DISK_FULL : STATUS_IO_ERROR;
    enum log_io_kind kind = io->kind;
    uint64_t segment = io->segment;
    enum status outcome = log_writer_io_done(&log->writer, status);
    if (outcome == STATUS_OK) {
        if (log->retry_due_us != 0 && !log_writer_disk_full(&log->writer)) {
            log->retry_due_us = 0;
            log->probe_due_us = 0;
            log_full_set(log, false);
        }
        return true;
    }
    if (outcome == STATUS_DISK_FULL) {
        log_full_set(log, true);
        log->probe_due_us = 0; /* the writer's own attempts take over */
        log->retry_due_us = log_clock_us() + LOG_FULL_RETRY_MS * 1000u;
        return true;
    }
    char *path = segment_file_path(log->directory, segment);
    char reason[128];
    struct buf text;
    buf_init(&text, &log->alloc);
    buf_append_format(&text, "cannot %s the log %s: %s", log_io_names[kind], path,
                      strerror_r(error, reason, sizeof(reason)));
    buf_put_u8(&text, 0);
    free(path);
    log_fatal(log, text.failed ? "cannot write the log" : (const char *)text.data);
    buf_free(&text);
    return false;
}

/* Tells the shards what became durable since the last time. */
static void log_report(struct log_thread *log)
{
    bool always = log->options.mode == DURABILITY_ALWAYS;
    for (uint16_t shard = 0; shard < log->options.shards; shard++) {
        uint64_t sequence =
            always ? log_writer_durable(&log->writer, shard) : log_writer_written(&log->writer, shard);
        if (sequence > log->reported[shard] && sequence > LOG_SEQUENCE_INHERITED) {
            log->reported[shard] = sequence;
            log->options.durable(log->options.context, shard, sequence);
        }
    }
}

/* Frames taken batches until the writer has enough. False after a fatal error. */
static bool log_frame(struct log_thread *log)
{
    size_t framed = 0;
    uint64_t batches = 0;
    while (log->taken_at < log->taken.size) {
        size_t next = log->taken_at;
        struct span payload;
        struct log_queued head = log_queue_next(&log->taken, &next, &payload);
        struct log_append append = {
            .shard = head.shard,
            .sequence = head.sequence,
            .entries = head.entries,
            .has_bounds = head.has_bounds,
            .payload = payload,
        };
        enum status status = log_writer_append(&log->writer, &append);
        if (status == STATUS_OVERLOADED && !log_writer_idle(&log->writer))
            break;
        if (status != STATUS_OK) {
            log_fatal(log, status == STATUS_TOO_LARGE ? "a batch is larger than the log can hold"
                                                      : "out of memory for the log");
            return false;
        }
        framed += next - log->taken_at;
        log->taken_at = next;
        batches++;
        log->marked = false;
        log->unsynced = true;
    }
    if (framed == 0)
        return true;
    pthread_mutex_lock(&log->lock);
    log->stats.batches += batches;
    log->queued_bytes -= framed;
    pthread_mutex_unlock(&log->lock);
    return true;
}

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

/* Whether something waits that can be taken: the queue only once what was taken before is framed. The lock is
 * held. */
static bool log_has_news(const struct log_thread *log)
{
    return (log->queue.size > 0 && log->taken_at == log->taken.size) || log->flushed_changed ||
           (log->stopping && !log->stop_asked);
}

/* Takes what came, sleeping first (until a deadline) if there is nothing to do. */
static void log_take(struct log_thread *log, bool may_sleep, bool *stopping)
{
    uint64_t deadline_us = may_sleep ? log_deadline_us(log) : 0;
    uint64_t flushed[SHARDS_MAX];
    bool flushed_changed;
    pthread_mutex_lock(&log->lock);
    while (may_sleep && !log_has_news(log)) {
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
    if (log->taken_at == log->taken.size) {
        log_queue_take(&log->queue, &log->taken);
        log->taken_at = 0;
    }
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

static void *log_thread_main(void *argument)
{
    struct log_thread *log = argument;
    bool stopping = false;
    bool busy = false;
    unsigned finish_step = 0;
    for (;;) {
        log_take(log, !busy && !(stopping && log->retry_due_us == 0), &stopping);
        log->stop_asked = stopping;
        if (!log_frame(log))
            return NULL;
        log_timers(log);
        struct log_io io;
        busy = log_writer_next_io(&log->writer, &io);
        if (busy) {
            if (!log_perform(log, &io))
                return NULL;
            log_report(log);
            log->idle_since_us = 0;
            continue;
        }
        busy = log->taken_at < log->taken.size && log->retry_due_us == 0;
        if (busy)
            continue;
        if (stopping && log->retry_due_us != 0)
            return NULL; /* the disk is full: what waits was never acknowledged */
        if (stopping && log_finish(log, &finish_step)) {
            log->stopped_clean = true;
            return NULL;
        }
        if (log->idle_since_us == 0)
            log->idle_since_us = log_clock_us();
    }
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
    if (size > 0 && log->sleeping)
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
