/* The log's IO: one thing at a time, what became of it, and who is told. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "edge/log_internal.h"

uint64_t log_clock_us(void)
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

void log_fatal(struct log_thread *log, const char *text)
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

void log_probe(struct log_thread *log)
{
    uint64_t number = log->writer.segment_next;
    int error = segment_files_create(&log->files, number, log->options.segment_bytes);
    if (error == 0)
        (void)segment_files_remove(&log->files, number);
    bool full = error != 0 && files_status(error) == STATUS_DISK_FULL;
    log->probe_due_us = full ? log_clock_us() + LOG_FULL_RETRY_MS * 1000u : 0;
    log_full_set(log, full);
}

bool log_perform(struct log_thread *log, const struct log_io *io)
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

uint64_t log_report(struct log_thread *log, uint16_t own)
{
    bool always = log->options.mode == DURABILITY_ALWAYS;
    uint64_t returned = 0;
    for (uint16_t shard = 0; shard < log->options.shards; shard++) {
        uint64_t sequence =
            always ? log_writer_durable(&log->writer, shard) : log_writer_written(&log->writer, shard);
        if (sequence <= log->reported[shard] || sequence <= LOG_SEQUENCE_INHERITED)
            continue;
        log->reported[shard] = sequence;
        if (shard == own)
            returned = sequence;
        else
            log->options.durable(log->options.context, shard, sequence);
    }
    return returned;
}

bool log_frame(struct log_thread *log)
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
