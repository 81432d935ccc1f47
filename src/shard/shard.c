/* The door: one event in, effects out. */
#include <assert.h>

#include "base/hash.h"
#include "shard/key_order.h"

/* Of the shard's memory, the part for everything but rows: requests, connections, buffers. */
#define OTHER_MEMORY_DIVISOR 4u

/* Of all the memory, the part that rows leave free, for what comes before they have made room. */
#define ROWS_LEAVE_DIVISOR 32u

/* Beside the rows' budget, the part for flush jobs: 16 bytes for each of their rows, and the trees of all slots that
 * changed, which cannot wait. Where all rows are dirty, as in a recovery with little memory, nothing gives way. */
#define FLUSH_JOB_DIVISOR 8u

/* Tables and buffers that every shard has, before the first row; and those of all slots, twice while the ring changes,
 * which the shards of a node divide among them. */
#define SHARD_MEMORY_BYTES_MIN (4u << 20)
#define SLOTS_MEMORY_BYTES (12u << 20)

/* ---- making and freeing --------------------------------------------------------------------------------- */

static enum status copy_ring(struct shard *shard, const struct ring *ring)
{
    struct buf bytes;
    buf_init(&bytes, &shard->alloc);
    ring_encode(ring, &bytes);
    enum status status =
        bytes.failed ? STATUS_OVERLOADED : ring_decode(&shard->alloc, buf_span(&bytes), &shard->ring);
    buf_free(&bytes);
    return status;
}

static enum status copy_meta(struct shard *shard, const struct meta *meta)
{
    struct buf bytes;
    buf_init(&bytes, &shard->alloc);
    meta_encode(meta, &bytes);
    enum status status = bytes.failed ? STATUS_OVERLOADED : meta_decode(buf_span(&bytes), &shard->meta);
    buf_free(&bytes);
    return status;
}

static void init_lists(struct shard *shard)
{
    timer_heap_init(&shard->timers, &shard->alloc);
    map_init(&shard->requests, &shard->alloc);
    map_init(&shard->clients, &shard->alloc);
    map_init(&shard->pendings, &shard->alloc);
    map_init(&shard->links, &shard->alloc);
    map_init(&shard->cold_tickets, &shard->alloc);
    map_init(&shard->scans, &shard->alloc);
    list_init(&shard->scans_ready);
    list_init(&shard->scans_ended);
    buf_init(&shard->repairing.purge_keys, &shard->alloc);
    list_init(&shard->stamp_waiters);
    list_init(&shard->dirty_clients);
    list_init(&shard->clients_woken);
    list_init(&shard->clients_leaving);
    list_init(&shard->sent_clients);
    buf_init(&shard->log.payload, &shard->alloc);
    buf_init(&shard->scratch, &shard->alloc);
    buf_init(&shard->meta_bytes, &shard->alloc);
    buf_init(&shard->greeting_bytes, &shard->alloc);
    for (uint32_t i = 0; i < SAID_MAX; i++)
        buf_init(&shard->said[i], &shard->local_alloc);
    shard->client_map.alloc = &shard->alloc;
}

static void init_state(struct shard *shard, const struct shard_options *options)
{
    /* What a recovered row rests on is durable: sequence 1. */
    shard->log.durable = 1;
    shard->log.open = 2;
    shard->cold_empty = options->cold_empty;
    shard->cold_ticket_next = 1;
    /* Not from 1: an answer to a request of the process before must never count for one of this process. */
    shard->request_next = prng_u64(&shard->prng) >> 16 | 1;
    shard->pending_next = 1;
    shard->clock_trusted = true;
    /* After amnesia all slots are marked; what is not marked serves. */
    shard->serving = options->meta->state != META_UNPROVEN;
    shard->takes_writes = options->meta->state == META_SERVING;
    shard->flush.clean_us = options->now.mono_us;
    shard->quarantine_any = meta_quarantine_any(options->meta);
    if (shard->quarantine_any)
        memcpy(shard->quarantine, options->meta->quarantine, sizeof shard->quarantine);
    span_copy_text(options->resp_address, shard->resp_address, sizeof shard->resp_address);
    span_copy_text(options->http_address, shard->http_address, sizeof shard->http_address);
    span_copy_text(options->durability, shard->durability, sizeof shard->durability);
    shard->run = options->meta->runs.now;
    shard->run_us = options->now.mono_us;
    /* Stamps are the run's, not the directory's: an older copy of a directory, or its far-future register, could make
     * those of the newer one again before anybody has said that it is old (invariant 4). */
    hlc_init(&shard->hlc, options->meta->runs.now.id, options->clock_skew_max_ms, options->bounds);
    shard->tick.kind = TIMER_TICK;
}

static enum status init_parts(struct shard *shard, const struct shard_options *options)
{
    enum status status = copy_ring(shard, options->ring);
    if (status == STATUS_OK)
        status = copy_meta(shard, options->meta);
    if (status != STATUS_OK)
        return status;
    shard->self_id = options->meta->node_id;
    shard->self = ring_node_index(shard->ring, shard->self_id);
    if (shard->self == RING_NODE_NONE)
        return STATUS_WRONG_CLUSTER;
    shard->locals = alloc_get(&shard->alloc, options->shards * sizeof *shard->locals);
    if (shard->locals == NULL)
        return STATUS_OVERLOADED;
    for (uint16_t i = 0; i < options->shards; i++)
        buf_init(&shard->locals[i], &shard->local_alloc);
    struct memtable_options rows = {
        .alloc = &shard->row_alloc,
        .seed = prng_u64(&shard->prng),
        .budget_bytes = shard->row_bytes_max,
    };
    status = memtable_init(&shard->memtable, &rows);
    shard->has_memtable = status == STATUS_OK;
    trees_init(shard);
    handoff_init(shard);
    antientropy_init(shard);
    struct slots slots;
    if (status == STATUS_OK)
        status = slots_make(shard, &slots);
    if (status == STATUS_OK)
        slots_adopt(shard, &slots);
    if (status == STATUS_OK)
        status = peers_init(shard);
    if (status == STATUS_OK)
        status = liveness_init(shard, options);
    if (status == STATUS_OK)
        status = timer_arm(&shard->timers, &shard->tick, options->now.mono_us + TICK_INTERVAL_US);
    return status;
}

struct shard_healing shard_healing_default(void)
{
    return (struct shard_healing){
        .hints = true,
        .repair = true,
        .request_timeout_max_ms = 60000,
        .repair_interval_ms = 600000,
        .rescan_interval_ms = 86400000,
        .repair_bytes_per_s = UINT64_C(32) << 20,
        .hint_bytes_max = HINT_BYTES_MAX_DEFAULT,
        .hint_bytes_per_s = UINT64_C(16) << 20,
    };
}

struct shard *shard_new(const struct shard_options *options)
{
    assert(options->shards > 0 && options->shards <= SHARDS_MAX && options->shard < options->shards);
    if (options->memory_bytes < SHARD_MEMORY_BYTES_MIN + SLOTS_MEMORY_BYTES / options->shards)
        return NULL;
    struct alloc alloc;
    size_t other_bytes =
        options->memory_bytes / OTHER_MEMORY_DIVISOR + SLOTS_MEMORY_BYTES / 4 / options->shards;
    alloc_init(&alloc, other_bytes);
    struct shard *shard = alloc_get_zeroed(&alloc, sizeof *shard);
    if (shard == NULL)
        return NULL;
    shard->alloc = alloc;
    _Static_assert(sizeof *shard > ALLOC_CACHE_STEP * ALLOC_CACHE_CLASSES,
                   "the shard itself is no small block");
    alloc_cache_start(&shard->alloc, &shard->alloc_cache);
    size_t all_bytes = options->memory_bytes + options->buffer_bytes;
    shard->row_bytes_max = all_bytes - all_bytes / ROWS_LEAVE_DIVISOR;
    shard->row_bytes_min = options->memory_bytes - other_bytes;
    if (options->row_bytes_max != 0 && options->row_bytes_max < shard->row_bytes_min) {
        shard->row_bytes_max = options->row_bytes_max;
        shard->row_bytes_min = options->row_bytes_max;
    }
    alloc_init(&shard->row_alloc, shard->row_bytes_max + shard->row_bytes_max / FLUSH_JOB_DIVISOR);
    alloc_init(&shard->local_alloc, SIZE_MAX);
    shard->options = *options;
    shard->now = options->now;
    prng_seed(&shard->prng, options->seed);
    hedge_budget_init(&shard->hedge_budget);
    meta_init(&shard->meta, &shard->alloc);
    init_lists(shard);
    watch_init(shard, &options->watch);
    init_state(shard, options);
    if (init_parts(shard, options) == STATUS_OK)
        return shard;
    shard_free(shard);
    return NULL;
}

void shard_free(struct shard *shard)
{
    if (shard == NULL)
        return;
    coordinator_free(shard);
    clients_free(shard);
    antientropy_free(shard);
    servings_free(shard);
    purge_free(shard);
    rows_free(shard);
    watch_free(shard);
    scans_free(shard);
    handoff_free(shard);
    trees_free(shard);
    slots_free(shard);
    storage_free(shard);
    liveness_free(shard);
    peers_free(shard);
    if (shard->flush.settling) {
        bool over = memtable_flush_done(&shard->memtable, &shard->flush.job, UINT64_MAX);
        assert(over);
    } else if (shard->flush.running) {
        bool over = memtable_flush_failed(&shard->memtable, &shard->flush.job, UINT64_MAX);
        assert(over);
    }
    if (shard->has_memtable)
        memtable_free(&shard->memtable);
    client_map_free(&shard->client_map);
    timer_heap_free(&shard->timers);
    for (uint16_t i = 0; shard->locals != NULL && i < shard->options.shards; i++)
        buf_free(&shard->locals[i]);
    alloc_put(&shard->alloc, shard->locals, shard->options.shards * sizeof *shard->locals);
    for (uint32_t i = 0; i < SAID_MAX; i++)
        buf_free(&shard->said[i]);
    buf_free(&shard->scratch);
    buf_free(&shard->meta_bytes);
    buf_free(&shard->greeting_bytes);
    meta_free(&shard->meta);
    ring_free(shard->ring);
    alloc_cache_stop(&shard->alloc);
    struct alloc alloc = shard->alloc;
    alloc_put(&alloc, shard, sizeof *shard);
    assert(alloc.used_bytes == 0);
}

/* ---- running -------------------------------------------------------------------------------------------- */

/* What the last turn gave out has been carried out by now. */
static void turn_begin(struct shard *shard)
{
    for (uint32_t i = 0; i < shard->said_count; i++)
        buf_clear(&shard->said[i]);
    shard->said_count = 0;
    buf_clear(&shard->greeting_bytes);
    if (!shard->turn_ended)
        return;
    shard->turn_ended = false;
    log_turn_begin(shard);
    peers_turn_begin(shard);
    clients_turn_begin(shard);
    scans_turn_begin(shard);
}

static void fire_timers(struct shard *shard)
{
    for (;;) {
        struct timer *timer = timer_heap_pop_due(&shard->timers, shard->now.mono_us);
        if (timer == NULL)
            return;
        if (timer->kind == TIMER_REQUEST_DEADLINE) {
            coordinator_deadline(shard, LIST_ENTRY(timer, struct request, deadline));
        } else if (timer->kind == TIMER_REQUEST_HEDGE) {
            coordinator_hedge(shard, LIST_ENTRY(timer, struct request, hedge));
        } else if (timer->kind == TIMER_LIVENESS) {
            liveness_timer(shard);
        } else {
            coordinator_stamps(shard);
            membership_tick(shard);
            watch_tick(shard);
            enum status armed = timer_arm(&shard->timers, timer, shard->now.mono_us + TICK_INTERVAL_US);
            /* The heap had room for it a moment ago. */
            assert(armed == STATUS_OK);
        }
    }
}

/* Rows get what nothing else uses. */
static void share_memory(struct shard *shard, size_t buffer_bytes)
{
    size_t used = shard->alloc.used_bytes + shard->repairing.tree_alloc.used_bytes + buffer_bytes;
    size_t row_bytes = shard->row_bytes_max > used ? shard->row_bytes_max - used : 0;
    memtable_set_target(&shard->memtable,
                        row_bytes > shard->row_bytes_min ? row_bytes : shard->row_bytes_min);
}

static void turn_end(struct shard *shard, size_t buffer_bytes)
{
    fire_timers(shard);
    key_order_turn_end(shard);
    liveness_turn_end(shard);
    scans_turn_end(shard);
    handoff_turn_end(shard);
    antientropy_turn_end(shard);
    heal_turn_end(shard);
    trees_turn_end(shard);
    purge_turn_end(shard);
    log_turn_end(shard);
    flush_turn_end(shard);
    share_memory(shard, buffer_bytes);
    shard->row_upkeep = memtable_upkeep(&shard->memtable);
    membership_turn_end(shard);
    clients_turn_end(shard);
    peers_turn_end(shard);
    shard->turn_ended = true;
}

void shard_start(struct shard *shard, struct now now, struct effects *effects)
{
    shard->now = now;
    shard->effects = effects;
    turn_begin(shard);
    trees_start(shard);
    handoff_start(shard);
    heal_start(shard);
    peers_start(shard);
    membership_start(shard);
    turn_end(shard, 0);
    shard->effects = NULL;
}

static void dispatch(struct shard *shard, struct event *event)
{
    switch (event->kind) {
    case EVENT_TURN_END:
        turn_end(shard, event->buffer_bytes);
        return;
    case EVENT_CLIENT_OPEN:
    case EVENT_CLIENT_DATA:
    case EVENT_CLIENT_CLOSED:
    case EVENT_CLIENT_UNSENT:
        client_event(shard, event);
        return;
    case EVENT_PEER_UP:
    case EVENT_PEER_DATA:
    case EVENT_PEER_DOWN:
        peer_event(shard, event);
        return;
    case EVENT_LINK_OPEN:
    case EVENT_LINK_MOVED:
    case EVENT_LINK_DATA:
    case EVENT_LINK_CLOSED:
        link_event(shard, event);
        return;
    case EVENT_LOCAL:
        local_event(shard, event->bytes);
        return;
    case EVENT_LOG_DURABLE:
        log_durable(shard, event->sequence);
        return;
    case EVENT_LOG_FULL:
        if (shard->log.full != event->flag)
            say(shard, SAY_ERROR,
                event->flag ? "the disk is full: writes are refused" : "the disk has room again");
        shard->log.full = event->flag;
        coordinator_stamps(shard);
        return;
    case EVENT_COLD_RESULT:
        storage_cold_result(shard, event);
        return;
    case EVENT_COLD_SCAN:
        scan_page(shard, event);
        return;
    case EVENT_FLUSH_DONE:
        flush_done(shard, event->status);
        return;
    case EVENT_META_DURABLE:
        membership_meta_durable(shard, event->sequence);
        return;
    case EVENT_FACTS:
        shard->facts = *event->facts;
        return;
    case EVENT_TURN_TOOK:
        if (event->sequence >= shard->watch.event_us)
            latency_note(shard, WATCH_LOOP_TURN, event->sequence);
        return;
    case EVENT_DATAGRAM:
        liveness_datagram(shard, event->bytes);
        return;
    }
    assert(0 && "an event of a kind that there is");
}

void shard_step(struct shard *shard, struct event *event, struct effects *effects)
{
    assert(shard->effects == NULL);
    shard->effects = effects;
    shard->now = event->now;
    event->consumed = 0;
    event->need = 0;
    event->paused = false;
    event->partial = false;
    turn_begin(shard);
    dispatch(shard, event);
    shard->effects = NULL;
}

uint64_t shard_next_deadline_us(const struct shard *shard)
{
    /* Slices of upkeep go on at once, between the events of others. */
    bool healing = !list_empty(&shard->scans_ready) || antientropy_runs(shard) || purge_runs(shard);
    if (shard->answers_held || !list_empty(&shard->clients_woken) || shard->row_upkeep ||
        flush_has_slices(shard) || healing)
        return shard->now.mono_us;
    uint64_t timer_us = timer_heap_next_us(&shard->timers);
    uint64_t exchange_us = antientropy_due_us(shard);
    uint64_t purge_us = purge_due_us(shard);
    uint64_t hints_us = handoff_due_us(shard);
    uint64_t healing_us = exchange_us < purge_us ? exchange_us : purge_us;
    healing_us = hints_us < healing_us ? hints_us : healing_us;
    uint64_t rescan_us = trees_due_us(shard);
    healing_us = rescan_us < healing_us ? rescan_us : healing_us;
    return timer_us < healing_us ? timer_us : healing_us;
}

void shard_install_ring(struct shard *shard, const struct ring *ring, struct effects *effects)
{
    assert(shard->effects == NULL);
    shard->effects = effects;
    turn_begin(shard);
    bool installed = ring_install(shard, ring);
    (void)installed; /* an older one is nothing new */
    shard->effects = NULL;
}

uint64_t shard_slow_turn_us(const struct shard *shard)
{
    return shard->watch.event_us;
}

/* ---- looking in ----------------------------------------------------------------------------------------- */

const struct shard_counters *shard_counters(const struct shard *shard)
{
    return &shard->counters;
}

const struct memtable *shard_memtable(const struct shard *shard)
{
    return &shard->memtable;
}

const struct alloc *shard_alloc(const struct shard *shard)
{
    return &shard->alloc;
}

const struct swim *shard_gossip(const struct shard *shard)
{
    return shard->liveness.swim;
}

uint32_t shard_requests_in_flight(const struct shard *shard)
{
    return shard->requests.count;
}

bool shard_slot_serves(const struct shard *shard, uint16_t slot)
{
    return storage_slot_serves(shard, slot);
}
