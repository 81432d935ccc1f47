/* Blocking work on libuv's thread pool. */
#include "edge/work.h"

#include <assert.h>

#include "edge/loop.h"
#include "edge/say.h"

/* A batch's keys and results, doubled as buffers grow; before its last read it has less than COLD_BATCH_BYTES. */
#define COLD_BATCH_MEMORY_BYTES \
    (4 * COLD_BATCH_BYTES + (size_t)2 * COLD_BATCH_READS * KEY_BYTES_MAX_HARD + (size_t)FRAME_BYTES_MAX)

struct cold_read {
    uint64_t ticket;
    enum status status;
    size_t key_offset; /* in keys */
    size_t key_size;
    size_t record_offset; /* in records */
    size_t record_size;
};

/* On its way it belongs to the worker, allocator included. */
struct cold_batch {
    struct loop *loop;
    struct cold *cold;
    uv_work_t work;
    struct list_link waiting; /* in struct work */
    struct alloc alloc;
    struct buf keys;
    struct buf records; /* of reads from `told` to `done` */
    uint32_t count;
    uint32_t done;
    uint32_t told;
    struct cold_read reads[COLD_BATCH_READS];
};

static _Noreturn void out_of_memory(const struct loop *loop)
{
    say_and_exit(&loop->shared->say, loop->number,
                 span_of_text("out of memory for work of the disk; ending"));
}

/* ---- cold reads ----------------------------------------------------------------------------------------- */

static void read_cold(uv_work_t *work)
{
    struct cold_batch *batch = work->data;
    while (batch->done < batch->count && batch->records.size < COLD_BATCH_BYTES) {
        struct cold_read *read = &batch->reads[batch->done++];
        struct span key = span_of(batch->keys.data + read->key_offset, read->key_size);
        read->record_offset = batch->records.size;
        read->status = cold_get(batch->cold, key, &batch->records);
        read->record_size = batch->records.size - read->record_offset;
        batch->records.failed = false;
    }
}

static void batch_free(struct cold_batch *batch)
{
    struct loop *loop = batch->loop;
    buf_free(&batch->keys);
    buf_free(&batch->records);
    alloc_put(&loop->alloc, batch, sizeof *batch);
}

static void on_cold_read(uv_work_t *work, int status);

static void batch_start(struct cold_batch *batch)
{
    struct loop *loop = batch->loop;
    loop->work.batches_busy++;
    if (uv_queue_work(&loop->uv, &batch->work, read_cold, on_cold_read) != 0)
        out_of_memory(loop);
}

static void start_waiting(struct loop *loop)
{
    struct list_link *link;
    while (loop->work.batches_busy < COLD_BATCHES_MAX && (link = list_pop_front(&loop->work.waiting)) != NULL)
        batch_start(LIST_ENTRY(link, struct cold_batch, waiting));
}

static void on_cold_read(uv_work_t *work, int status)
{
    struct cold_batch *batch = work->data;
    struct loop *loop = batch->loop;
    (void)status;
    for (; batch->told < batch->done && !loop->closing; batch->told++) {
        const struct cold_read *read = &batch->reads[batch->told];
        struct event event = {.kind = EVENT_COLD_RESULT, .ticket = read->ticket, .status = read->status};
        if (read->status == STATUS_OK && read->record_size > 0)
            event.bytes = span_of(batch->records.data + read->record_offset, read->record_size);
        loop_step(loop, &event);
    }
    loop->work.batches_busy--;
    buf_free(&batch->records);
    if (loop->closing || batch->told == batch->count)
        batch_free(batch);
    else
        list_push_back(&loop->work.waiting, &batch->waiting);
    if (!loop->closing)
        start_waiting(loop);
}

void work_submit(struct loop *loop)
{
    struct cold_batch *batch = loop->work.gathering;
    if (batch == NULL)
        return;
    loop->work.gathering = NULL;
    list_push_back(&loop->work.waiting, &batch->waiting);
    start_waiting(loop);
}

void work_cold_read(struct loop *loop, uint64_t ticket, struct span key)
{
    struct cold_batch *batch = loop->work.gathering;
    if (batch == NULL) {
        batch = alloc_get_zeroed(&loop->alloc, sizeof *batch);
        if (batch == NULL)
            out_of_memory(loop);
        batch->loop = loop;
        batch->cold = loop->shared->dir->cold;
        batch->work.data = batch;
        list_init(&batch->waiting);
        alloc_init(&batch->alloc, COLD_BATCH_MEMORY_BYTES);
        buf_init(&batch->keys, &batch->alloc);
        buf_init(&batch->records, &batch->alloc);
        loop->work.gathering = batch;
    }
    struct cold_read *read = &batch->reads[batch->count++];
    *read = (struct cold_read){.ticket = ticket, .key_offset = batch->keys.size, .key_size = key.size};
    buf_append_span(&batch->keys, key);
    if (batch->keys.failed)
        out_of_memory(loop);
    if (batch->count == COLD_BATCH_READS)
        work_submit(loop);
}

/* ---- flushes -------------------------------------------------------------------------------------------- */

static void run_flush(uv_work_t *request)
{
    struct loop *loop = request->data;
    struct work *work = &loop->work;
    work->flush_status = cold_ingest(loop->shared->dir->cold, loop->number, work->job, &work->flush_why);
}

static void tell_flush_done(struct loop *loop)
{
    struct event event = {.kind = EVENT_FLUSH_DONE, .status = loop->work.flush_status};
    loop->work.job = NULL; /* the step may start the next flush */
    loop_step(loop, &event);
}

/* A full level 0 is waited for. Other errors are the shard's to handle: it keeps the rows and tries again later. */
static void on_flush(uv_work_t *request, int status)
{
    struct loop *loop = request->data;
    struct work *work = &loop->work;
    (void)status;
    if (loop->closing)
        return;
    if (work->flush_status == STATUS_OVERLOADED) {
        if (!loop_arm(loop, &work->flush_timer, LOOP_TIMER_FLUSH, COLD_RETRY_MS))
            out_of_memory(loop);
        return;
    }
    if (work->flush_status != STATUS_OK)
        loop_say(loop, SAY_ERROR, "rows could not be written to the cold tier: %.*s",
                 (int)work->flush_why.size, (const char *)work->flush_why.data);
    tell_flush_done(loop);
}

static void start_flush(struct loop *loop)
{
    buf_clear(&loop->work.flush_why);
    loop->work.flush_work.data = loop;
    if (uv_queue_work(&loop->uv, &loop->work.flush_work, run_flush, on_flush) != 0)
        out_of_memory(loop);
}

void work_flush(struct loop *loop, struct flush_job *job)
{
    assert(loop->work.job == NULL);
    loop->work.job = job;
    start_flush(loop);
}

void work_flush_timer(struct loop *loop)
{
    start_flush(loop);
}

/* ---- the meta file -------------------------------------------------------------------------------------- */

static void run_meta(uv_work_t *request)
{
    struct loop *loop = request->data;
    struct work *work = &loop->work;
    work->meta_status = data_dir_meta_write(loop->shared->dir, buf_span(&work->meta_bytes), &work->meta_why);
}

static void on_meta(uv_work_t *request, int status);

static void start_meta(struct loop *loop)
{
    struct work *work = &loop->work;
    buf_clear(&work->meta_why);
    work->meta_work.data = loop;
    if (uv_queue_work(&loop->uv, &work->meta_work, run_meta, on_meta) != 0)
        out_of_memory(loop);
}

/* Moves the newest waiting blob to where the worker reads it. */
static void take_next_meta(struct work *work)
{
    struct buf spare = work->meta_bytes;
    work->meta_bytes = work->meta_next;
    work->meta_next = spare;
    work->meta_sequence = work->meta_next_sequence;
    work->meta_waiting = false;
    buf_clear(&work->meta_next);
}

static void on_meta(uv_work_t *request, int status)
{
    struct loop *loop = request->data;
    struct work *work = &loop->work;
    (void)status;
    if (loop->closing)
        return;
    if (work->meta_status != STATUS_OK) {
        loop_say(loop, SAY_ERROR, "the meta file could not be written: %.*s; trying again",
                 (int)work->meta_why.size, (const char *)work->meta_why.data);
        if (!loop_arm(loop, &work->meta_timer, LOOP_TIMER_META, META_RETRY_MS))
            out_of_memory(loop);
        return;
    }
    struct event event = {.kind = EVENT_META_DURABLE, .sequence = work->meta_sequence};
    work->meta_busy = work->meta_waiting;
    if (work->meta_waiting) {
        take_next_meta(work);
        start_meta(loop);
    }
    loop_step(loop, &event);
}

void work_meta_write(struct loop *loop, uint64_t sequence, struct span bytes)
{
    struct work *work = &loop->work;
    buf_clear(&work->meta_next);
    buf_append_span(&work->meta_next, bytes);
    if (work->meta_next.failed)
        out_of_memory(loop);
    work->meta_next_sequence = sequence;
    work->meta_waiting = true;
    if (work->meta_busy)
        return;
    work->meta_busy = true;
    take_next_meta(work);
    start_meta(loop);
}

void work_meta_timer(struct loop *loop)
{
    if (loop->work.meta_waiting)
        take_next_meta(&loop->work);
    start_meta(loop);
}

/* ---- life ----------------------------------------------------------------------------------------------- */

void work_init(struct loop *loop)
{
    struct work *work = &loop->work;
    list_init(&work->waiting);
    alloc_init(&work->flush_alloc, SAY_BYTES_MAX * 2);
    alloc_init(&work->meta_alloc, SAY_BYTES_MAX * 2);
    buf_init(&work->flush_why, &work->flush_alloc);
    buf_init(&work->meta_why, &work->meta_alloc);
    buf_init(&work->meta_bytes, &loop->alloc);
    buf_init(&work->meta_next, &loop->alloc);
}

void work_free(struct loop *loop)
{
    struct work *work = &loop->work;
    struct list_link *link;
    while ((link = list_pop_front(&work->waiting)) != NULL)
        batch_free(LIST_ENTRY(link, struct cold_batch, waiting));
    if (work->gathering != NULL)
        batch_free(work->gathering);
    buf_free(&work->flush_why);
    buf_free(&work->meta_why);
    buf_free(&work->meta_bytes);
    buf_free(&work->meta_next);
}
