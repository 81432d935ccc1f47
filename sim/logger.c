/* The node's log thread, with the real log writer: one IO at a time, each taking its time, and any of them may meet
 * a full disk, a failing sync or the end of the process. */
#include <assert.h>
#include <inttypes.h>

#include "sim/world.h"

#define PENDING_BYTES_MAX (UINT64_C(256) << 10)
#define QUEUE_BATCHES_FULL 64
#define FULL_RETRY_US 200000
#define IDLE_US 20000
#define INTERVAL_US 50000

static void logger_run(struct world *world, struct sim_node *node);

void logger_start(struct world *world, struct sim_node *node, const struct log_recovery_report *report)
{
    struct sim_log *log = &node->log;
    *log = (struct sim_log){0};
    struct meta meta;
    meta_init(&meta, &world->alloc);
    enum status status = meta_decode(buf_span(&node->disk.meta), &meta);
    assert(status == STATUS_OK);
    uint32_t count = node->disk.file_count;
    uint64_t *inherited = alloc_get(&world->alloc, (count + 1) * sizeof *inherited);
    assert(inherited != NULL);
    for (uint32_t i = 0; i < count; i++)
        inherited[i] = node->disk.files[i]->number;
    struct log_writer_options options = {
        .alloc = &world->alloc,
        .identity = {.cluster_id = meta.cluster_id, .directory_id = meta.directory_id},
        .shards = node->shards,
        .segment_bytes = world->swarm.log_segment_bytes,
        .pending_bytes_max = PENDING_BYTES_MAX,
        .spares_max = 2,
        .sync_always = world->swarm.durability == SIM_DURABILITY_ALWAYS,
        .segment_next = report->segment_next,
        .batch_next = report->batch_next,
        .end = report->end,
        .bounds = report->bounds,
        .inherited = inherited,
        .inherited_count = count,
    };
    status = log_writer_init(&log->writer, &options);
    assert(status == STATUS_OK);
    (void)status;
    alloc_put(&world->alloc, inherited, (count + 1) * sizeof *inherited);
    meta_free(&meta);
}

void logger_free(struct world *world, struct sim_node *node)
{
    struct sim_log *log = &node->log;
    log_writer_free(&log->writer);
    for (uint32_t i = 0; i < log->queue_count; i++)
        buf_free(&log->queue[i].payload);
    alloc_put(&world->alloc, log->queue, log->queue_capacity * sizeof *log->queue);
    *log = (struct sim_log){0};
}

/* ---- what the shards hear ------------------------------------------------------------------------------- */

static void tell_full(struct world *world, struct sim_node *node, bool full)
{
    if (node->log.full_told == full)
        return;
    node->log.full_told = full;
    world_say(world, HISTORY_KEY_NONE, "%s: the log %s", node->name, full ? "is full" : "has room again");
    for (uint16_t i = 0; i < node->shards; i++)
        shard_post(world, node, i, EVENT_LOG_FULL, (struct span){0})->flag = full;
}

static void tell_durable(struct world *world, struct sim_node *node)
{
    struct sim_log *log = &node->log;
    bool always = world->swarm.durability == SIM_DURABILITY_ALWAYS;
    for (uint16_t i = 0; i < node->shards; i++) {
        uint64_t sequence =
            always ? log_writer_durable(&log->writer, i) : log_writer_written(&log->writer, i);
        if (sequence <= log->reported[i] || sequence <= LOG_SEQUENCE_INHERITED)
            continue;
        log->reported[i] = sequence;
        oracle_log_durable(world, node, i, sequence);
        shard_post(world, node, i, EVENT_LOG_DURABLE, (struct span){0})->sequence = sequence;
    }
}

/* ---- one IO --------------------------------------------------------------------------------------------- */

/* What a finished IO has done to the disk. */
static void apply_io(struct world *world, struct sim_node *node, const struct log_io *io)
{
    switch (io->kind) {
    case LOG_IO_CREATE:
        disk_create(&node->disk, io->segment, io->size);
        break;
    case LOG_IO_RECYCLE:
        disk_rename(&node->disk, io->segment_old, io->segment);
        world->totals.segments_freed++;
        break;
    case LOG_IO_WRITE:
        disk_write(&node->disk, io->segment, io->offset, io->bytes);
        break;
    case LOG_IO_SYNC:
        disk_sync(&node->disk, io->segment);
        break;
    case LOG_IO_DELETE:
        disk_delete(&node->disk, io->segment);
        world->totals.segments_freed++;
        break;
    }
}

static void retry(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    log_writer_retry(&node->log.writer);
    logger_run(world, node);
}

static void plan(struct world *world, struct sim_node *node, uint64_t us,
                 void (*fire)(struct world *, struct happening *))
{
    struct happening *happening = world_plan(world, world->now_us + us, fire);
    happening->object = node;
    happening->number = node->life;
}

static void finish_io(struct world *world, struct sim_node *node, const struct log_io *io)
{
    struct sim_log *log = &node->log;
    enum status status = STATUS_OK;
    bool takes_room = io->kind == LOG_IO_CREATE || io->kind == LOG_IO_RECYCLE || io->kind == LOG_IO_WRITE;
    if (node->full && takes_room)
        status = STATUS_DISK_FULL;
    else if (io->kind == LOG_IO_SYNC && world->faults_on && world_chance(world, world->swarm.sync_fails))
        status = STATUS_IO_ERROR;
    if (status == STATUS_OK)
        apply_io(world, node, io);
    enum status outcome = log_writer_io_done(&log->writer, status);
    if (outcome == STATUS_DISK_FULL) {
        tell_full(world, node, true);
        plan(world, node, FULL_RETRY_US, retry);
    } else if (outcome != STATUS_OK) {
        world_say(world, HISTORY_KEY_NONE, "%s: a SYNC FAILED; the process ends", node->name);
        world->totals.failed_syncs++;
        /* After a failed sync the unsynced pages are as uncertain as after a power loss. */
        node_crash(world, node, true);
    }
}

static void io_due(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    struct sim_log *log = &node->log;
    log->io_busy = false;
    finish_io(world, node, &log->writer.io);
    if (happening->number != node->life)
        return;
    if (log->full_told && !log_writer_disk_full(&log->writer) && log->queue_count < QUEUE_BATCHES_FULL / 2)
        tell_full(world, node, false);
    tell_durable(world, node);
    logger_run(world, node);
}

static uint64_t io_us(struct world *world, const struct sim_node *node, const struct log_io *io)
{
    uint64_t typical = io->kind == LOG_IO_WRITE ? world->swarm.write_us : world->swarm.sync_us;
    uint64_t us = world_draw(world, typical / 2, typical * 2);
    if (node->slow_until_us > world->now_us)
        us += world_draw(world, 0, node->slow_until_us - world->now_us);
    return us;
}

/* ---- the thread's loop ---------------------------------------------------------------------------------- */

static void mark_due(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    node->log.mark_planned = false;
    if (!log_writer_idle(&node->log.writer) || node->log.queue_count > 0)
        return;
    enum status status = log_writer_mark(&node->log.writer);
    assert(status == STATUS_OK);
    (void)status;
    logger_run(world, node);
}

static void sync_due(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    node->log.unsynced = false;
    log_writer_sync(&node->log.writer);
    logger_run(world, node);
}

static void frame_queued(struct world *world, struct sim_node *node)
{
    struct sim_log *log = &node->log;
    uint32_t taken = 0;
    for (; taken < log->queue_count; taken++) {
        struct sim_batch *batch = &log->queue[taken];
        struct log_append append = {
            .shard = batch->shard,
            .sequence = batch->sequence,
            .entries = batch->entries,
            .payload = buf_span(&batch->payload),
            .has_bounds = batch->has_bounds,
        };
        enum status status = log_writer_append(&log->writer, &append);
        if (status == STATUS_OVERLOADED)
            break;
        assert(status == STATUS_OK);
        buf_free(&batch->payload);
        if (world->swarm.durability == SIM_DURABILITY_INTERVAL && !log->unsynced) {
            log->unsynced = true;
            plan(world, node, INTERVAL_US, sync_due);
        }
    }
    for (uint32_t i = taken; i < log->queue_count; i++)
        log->queue[i - taken] = log->queue[i];
    log->queue_count -= taken;
    if (log->queue_count >= QUEUE_BATCHES_FULL)
        tell_full(world, node, true);
}

static void logger_run(struct world *world, struct sim_node *node)
{
    struct sim_log *log = &node->log;
    if (log->io_busy)
        return;
    frame_queued(world, node);
    struct log_io io;
    if (log_writer_next_io(&log->writer, &io)) {
        log->io_busy = true;
        plan(world, node, io_us(world, node, &io), io_due);
    } else if (!log->mark_planned && log->queue_count == 0 && log_writer_idle(&log->writer)) {
        log->mark_planned = true;
        plan(world, node, IDLE_US, mark_due);
    }
}

void logger_append(struct world *world, struct sim_node *node, uint16_t shard, const struct effect *effect)
{
    struct sim_log *log = &node->log;
    if (log->queue_count == log->queue_capacity) {
        uint32_t capacity = log->queue_capacity == 0 ? 16 : 2 * log->queue_capacity;
        log->queue = alloc_resize(&world->alloc, log->queue, log->queue_capacity * sizeof *log->queue,
                                  capacity * sizeof *log->queue);
        assert(log->queue != NULL);
        log->queue_capacity = capacity;
    }
    struct sim_batch *batch = &log->queue[log->queue_count++];
    *batch = (struct sim_batch){
        .shard = shard, .sequence = effect->sequence, .entries = effect->entries, .has_bounds = effect->flag};
    buf_init(&batch->payload, &world->alloc);
    buf_append_span(&batch->payload, effect->bytes);
    oracle_log_append(world, node, shard, effect->sequence, effect->bytes);
    logger_run(world, node);
}

/* A write that was under way has reached the page cache in part. */
void logger_interrupt(struct world *world, struct sim_node *node)
{
    const struct log_io *io = &node->log.writer.io;
    if (!node->log.io_busy || io->kind != LOG_IO_WRITE || node->full)
        return;
    size_t size = world_draw(world, 0, io->bytes.size);
    disk_write(&node->disk, io->segment, io->offset, span_of(io->bytes.data, size));
}

void logger_flushed(struct world *world, struct sim_node *node, uint16_t shard, uint64_t sequence)
{
    log_writer_flushed(&node->log.writer, shard, sequence);
    logger_run(world, node);
}

void logger_drain(struct world *world, struct sim_node *node)
{
    struct sim_log *log = &node->log;
    bool full = node->full;
    node->full = false;
    for (int round = 0; round < 4; round++) {
        log_writer_retry(&log->writer);
        for (;;) {
            struct log_io io;
            if (!log->io_busy) {
                frame_queued(world, node);
                if (!log_writer_next_io(&log->writer, &io))
                    break;
            } else {
                io = log->writer.io;
            }
            apply_io(world, node, &io);
            log->io_busy = false;
            enum status status = log_writer_io_done(&log->writer, STATUS_OK);
            assert(status == STATUS_OK);
            (void)status;
        }
        if (round == 1 && log_writer_idle(&log->writer) && log_writer_mark(&log->writer) != STATUS_OK)
            break;
        log_writer_sync(&log->writer);
    }
    for (uint16_t i = 0; i < node->shards; i++)
        oracle_log_durable(world, node, i, log_writer_written(&log->writer, i));
    node->full = full;
}
