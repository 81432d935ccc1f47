/* The cold tier and the meta file of a running process: slow, sometimes failing, never torn. */
#include <assert.h>

#include "sim/world.h"
#include "store/cold_page.h"

/* Pages are small so that ranges take many. */
#define SCAN_PAGE_BYTES_LEAST 200
#define SCAN_PAGE_BYTES_MOST 4000

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

static void cold_read_told(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    enum status status = (enum status)happening->index2;
    struct span record = status == STATUS_OK ? buf_span(&happening->bytes) : (struct span){0};
    node->disk.cold_noted |= status == STATUS_CORRUPT;
    struct event *event = shard_post(world, node, (uint16_t)happening->index, EVENT_COLD_RESULT, record);
    event->ticket = happening->number2;
    event->status = status;
}

/* What is read is what is there now; the shard hears of it later, and by then it may have been flushed over. */
static void cold_read_done(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    struct span record = {0};
    enum status status = STATUS_OK;
    if (world->faults_on && world_chance(world, world->swarm.cold_read_fails))
        status = STATUS_IO_ERROR; /* a damaged row is a row lost: scenarios have those */
    else
        status = disk_cold_get(&node->disk, buf_span(&happening->bytes), &record);
    uint64_t us = disk_time_us(world, node, world->swarm.cold_read_us / 2);
    struct happening *told = plan_io(world, node, (uint16_t)happening->index, us, cold_read_told);
    told->number2 = happening->number2;
    told->index2 = status;
    buf_append_span(&told->bytes, record);
}

void storage_cold_read(struct world *world, struct sim_node *node, uint16_t shard,
                       const struct effect *effect)
{
    uint64_t us = disk_time_us(world, node, world->swarm.cold_read_us / 2);
    struct happening *happening = plan_io(world, node, shard, us, cold_read_done);
    happening->number2 = effect->ticket;
    buf_append_span(&happening->bytes, effect->bytes);
}

/* ---- range scans ---------------------------------------------------------------------------------------- */

static struct sim_scan **scan_by_ticket(struct sim_shard *shard, uint64_t ticket)
{
    struct sim_scan **at = &shard->scans;
    while (*at != NULL && (*at)->ticket != ticket)
        at = &(*at)->next;
    return at;
}

static struct sim_scan **scan_by_serial(struct sim_shard *shard, uint64_t serial)
{
    struct sim_scan **at = &shard->scans;
    while (*at != NULL && (*at)->serial != serial)
        at = &(*at)->next;
    return at;
}

static void scan_free(struct world *world, struct sim_scan **at)
{
    struct sim_scan *scan = *at;
    *at = scan->next;
    buf_free(&scan->rows);
    alloc_put(&world->alloc, scan, sizeof *scan);
}

/* Whole rows from where the scan stands: at least one, more as far as they fit. */
static struct span scan_page_bytes(const struct sim_scan *scan, size_t page_bytes)
{
    struct span rest = span_of(scan->rows.data + scan->told, scan->rows.size - scan->told);
    struct reader reader = reader_of(rest);
    struct span key;
    struct span record;
    size_t used = 0;
    while (cold_page_next(&reader, &key, &record) == STATUS_OK) {
        size_t bytes = cold_page_row_bytes(key, record);
        if (used > 0 && used + bytes > page_bytes)
            break;
        used += bytes;
    }
    return span_of(rest.data, used);
}

static void scan_page_read(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life)
        return;
    uint16_t shard = (uint16_t)happening->index;
    struct sim_scan **at = scan_by_serial(&node->shard[shard], happening->number2);
    struct sim_scan *scan = *at;
    if (scan == NULL)
        return; /* stopped meanwhile */
    enum status status = STATUS_OK;
    struct span page = {0};
    if (world->faults_on && world_chance(world, world->swarm.cold_read_fails))
        status =
            world_chance(world, 500000) && world->swarm.healing.repair ? STATUS_CORRUPT : STATUS_IO_ERROR;
    else if (scan->rows.size > 0)
        page = scan_page_bytes(scan, world_draw(world, SCAN_PAGE_BYTES_LEAST, SCAN_PAGE_BYTES_MOST));
    if (status == STATUS_OK && scan->damaged && scan->told == scan->rows.size) {
        status = STATUS_CORRUPT;
        node->disk.cold_noted = true;
    }
    scan->told += page.size;
    /* Like a reader that only finds out by going on: after the last row it sometimes promises more. */
    bool rest = scan->told < scan->rows.size || scan->damaged;
    bool more = status == STATUS_OK && page.size > 0 && (rest || world_chance(world, 200000));
    struct event *event = shard_post(world, node, shard, EVENT_COLD_SCAN, page);
    event->ticket = scan->ticket;
    event->status = status;
    event->flag = more;
    scan->waiting = more;
    world->totals.cold_pages++;
    if (!more)
        scan_free(world, at);
}

static void scan_page_plan(struct world *world, struct sim_node *node, uint16_t shard,
                           const struct sim_scan *scan)
{
    plan_io(world, node, shard, disk_time_us(world, node, world->swarm.cold_read_us), scan_page_read)
        ->number2 = scan->serial;
}

void storage_scan_open(struct world *world, struct sim_node *node, uint16_t number,
                       const struct effect *effect)
{
    struct sim_shard *shard = &node->shard[number];
    uint32_t open = 0;
    for (const struct sim_scan *scan = shard->scans; scan != NULL; scan = scan->next)
        open++;
    assert(open < COLD_SCANS_MAX);
    struct sim_scan **end = scan_by_ticket(shard, effect->ticket);
    assert(*end == NULL);
    struct sim_scan *scan = alloc_get_zeroed(&world->alloc, sizeof *scan);
    assert(scan != NULL);
    scan->ticket = effect->ticket;
    scan->serial = ++shard->scan_serial;
    buf_init(&scan->rows, &world->alloc);
    scan->damaged = !disk_cold_pack(&node->disk, effect->bytes, effect->end, &scan->rows);
    *end = scan;
    world->totals.cold_scans++;
    scan_page_plan(world, node, number, scan);
}

void storage_scan_next(struct world *world, struct sim_node *node, uint16_t shard, uint64_t ticket)
{
    struct sim_scan *scan = *scan_by_ticket(&node->shard[shard], ticket);
    assert(scan != NULL);
    assert(scan->waiting);
    scan->waiting = false;
    scan_page_plan(world, node, shard, scan);
}

/* The page that ended it may be in the shard's inbox still. */
void storage_scan_stop(struct world *world, struct sim_node *node, uint16_t shard, uint64_t ticket)
{
    struct sim_scan **at = scan_by_ticket(&node->shard[shard], ticket);
    if (*at != NULL)
        scan_free(world, at);
}

void storage_scans_free(struct world *world, struct sim_shard *shard)
{
    while (shard->scans != NULL)
        scan_free(world, &shard->scans);
}

/* ---- flushes -------------------------------------------------------------------------------------------- */

void storage_ingest(struct world *world, struct sim_node *node, struct flush_job *job)
{
    flush_sort(job);
    for (uint64_t i = 0; i < flush_count(job); i++) {
        struct flush_row row = flush_row(job, i);
        struct span prefix = span_of(row.prefix, row.prefix_size);
        if (row.erased)
            disk_cold_delete(&node->disk, prefix, row.key);
        else
            disk_cold_put(&node->disk, prefix, row.key, row.record);
        /* What the oracles follow is the users' versions. */
        if (row.erased || row.prefix_size == 0)
            continue;
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
    else if (node->flush_fails || (world->faults_on && world_chance(world, world->swarm.flush_fails)))
        status = STATUS_OVERLOADED;
    if (status == STATUS_OK || (node->flush_fails && node->flush_arrives))
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
