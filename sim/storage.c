/* The cold tier and the meta file of a running process: slow, sometimes failing, never torn. */
#include <assert.h>

#include "sim/world.h"

static uint64_t disk_time_us(struct world *world, const struct sim_node *node, uint64_t typical_us)
{
    uint64_t us = world_draw(world, typical_us / 2, typical_us * 2);
    if (node->slow_until_us > world->now_us && !world->swarm.slow_log_only)
        us += world_draw(world, 0, node->slow_until_us - world->now_us);
    return us;
}

static struct happening *plan_io(struct world *world, struct sim_node *node, uint16_t shard, uint64_t us,
                                 void (*fire)(struct world *, struct happening *))
{
    struct happening *happening = world_plan(world, world->now_us + us, fire);
    happening->object = node;
    happening->index = shard;
    happening->number = node->life;
    return happening;
}

/* ---- cold reads ----------------------------------------------------------------------------------------- */

static void cold_read_done(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    struct span record = {0};
    enum status status = STATUS_OK;
    if (world->faults_on && world_chance(world, world->swarm.cold_read_fails))
        status = world_chance(world, 500000) ? STATUS_IO_ERROR : STATUS_CORRUPT;
    else if (!disk_cold_get(&node->disk, buf_span(&happening->bytes), &record))
        status = STATUS_NOT_FOUND;
    struct event *event = shard_post(world, node, (uint16_t)happening->index, EVENT_COLD_RESULT, record);
    event->ticket = happening->number2;
    event->status = status;
}

void storage_cold_read(struct world *world, struct sim_node *node, uint16_t shard,
                       const struct effect *effect)
{
    struct happening *happening =
        plan_io(world, node, shard, disk_time_us(world, node, world->swarm.cold_read_us), cold_read_done);
    happening->number2 = effect->ticket;
    buf_append_span(&happening->bytes, effect->bytes);
}

/* ---- flushes -------------------------------------------------------------------------------------------- */

void storage_ingest(struct world *world, struct sim_node *node, struct flush_job *job)
{
    flush_sort(job);
    for (uint64_t i = 0; i < flush_count(job); i++) {
        struct flush_row row = flush_row(job, i);
        disk_cold_put(&node->disk, span_of(row.prefix, COLD_KEY_PREFIX_BYTES), row.key, row.record);
        oracle_row_cold(world, node, row.key, row.record);
        uint32_t key = history_key_of(row.key);
        if (world_traces(world, key))
            world_say(world, key, "%s: key %u goes cold", node->name, key);
    }
}

static void flush_told(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    shard_post(world, node, (uint16_t)happening->index, EVENT_FLUSH_DONE, (struct span){0})->status =
        (enum status)happening->index2;
}

static void flush_carried_out(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    uint16_t shard = (uint16_t)happening->index;
    if (happening->number != node->life)
        return;
    struct sim_flush *flush = &node->shard[shard].flush;
    enum status status = STATUS_OK;
    if (node->full)
        status = STATUS_DISK_FULL;
    else if (world->faults_on && world_chance(world, world->swarm.flush_fails))
        status = STATUS_OVERLOADED;
    else
        storage_ingest(world, node, flush->job);
    flush->job = NULL;
    /* The shard hears of it later: writes come in between, and so may a crash. */
    struct happening *told =
        plan_io(world, node, shard, disk_time_us(world, node, world->swarm.flush_us), flush_told);
    told->index2 = status;
}

void storage_flush(struct world *world, struct sim_node *node, uint16_t shard, struct flush_job *job)
{
    assert(node->shard[shard].flush.job == NULL);
    node->shard[shard].flush.job = job;
    (void)plan_io(world, node, shard, disk_time_us(world, node, world->swarm.flush_us), flush_carried_out);
}

/* ---- the meta file -------------------------------------------------------------------------------------- */

static void meta_written(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    buf_clear(&node->disk.meta);
    buf_append_span(&node->disk.meta, buf_span(&happening->bytes));
    if (node->meta_sequence == happening->number2)
        node->meta_pending = false;
    shard_post(world, node, 0, EVENT_META_DURABLE, (struct span){0})->sequence = happening->number2;
}

void storage_meta_write(struct world *world, struct sim_node *node, const struct effect *effect)
{
    node->meta_pending = true;
    node->meta_sequence = effect->sequence;
    buf_clear(&node->meta_bytes);
    buf_append_span(&node->meta_bytes, effect->bytes);
    /* One after the other: always the same time. */
    struct happening *happening = plan_io(world, node, 0, 2 * world->swarm.sync_us, meta_written);
    happening->number2 = effect->sequence;
    buf_append_span(&happening->bytes, effect->bytes);
}
