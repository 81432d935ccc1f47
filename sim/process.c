/* Processes: how a node starts from its disk, and the ways in which it ends.
 *
 * Starting is what edge/data_dir.c does: read the meta file or make one, recover the log, draw a new actor where a
 * stamp could otherwise be made twice, quarantine what may be lost, persist that, cut the log off, then merge its
 * rows into new shards, flushing where memory runs out. It takes no simulated time. */
#include <assert.h>
#include <inttypes.h>

#include "model/reserved.h"
#include "sim/world.h"

uint64_t node_wall_ms(const struct world *world, const struct sim_node *node)
{
    int64_t drift_us = (int64_t)world->now_us / 1000 * node->clock_drift_ppm / 1000;
    return (uint64_t)((int64_t)(SIM_EPOCH_MS * 1000 + world->now_us) + node->clock_offset_us + drift_us) /
           1000;
}

struct now node_now(const struct world *world, const struct sim_node *node)
{
    return (struct now){.wall_ms = node_wall_ms(world, node), .mono_us = node->mono_base_us + world->now_us};
}

/* drift_ppm counts from time 0, so what it has brought so far is taken out of the new offset. */
void node_clock_set(struct world *world, struct sim_node *node, int64_t offset_us, int64_t drift_ppm)
{
    int64_t drifted_us = (int64_t)world->now_us / 1000 * drift_ppm / 1000;
    node->clock_drift_ppm = drift_ppm;
    node->clock_offset_us = offset_us - drifted_us;
    /* What a run can drift until its end counts as error from the start. */
    uint64_t error_us = (uint64_t)(offset_us < 0 ? -offset_us : offset_us) +
                        (uint64_t)(drift_ppm < 0 ? -drift_ppm : drift_ppm) * 30;
    if (error_us > world->clock_error_max_us)
        world->clock_error_max_us = error_us;
}

/* ---- recovery ------------------------------------------------------------------------------------------- */

struct recovery {
    struct world *world;
    struct sim_node *node;
};

static enum status recover_entry(const struct recovery *recovery, const struct log_entry *entry)
{
    struct sim_node *node = recovery->node;
    struct shard *shard = node->shard[slot_shard(entry->slot, node->shards)].shard;
    if (entry->type == LOG_ENTRY_RESERVED)
        return shard_recover_reserved(shard, entry->slot, entry->key, entry->record);
    if (entry->type == LOG_ENTRY_ERASE)
        return shard_recover_erase(shard, entry->slot, entry->key, entry->version);
    return shard_recover_row(shard, entry->key, entry->record);
}

static enum status recover_with_room(const struct recovery *recovery, const struct log_entry *entry)
{
    struct sim_node *node = recovery->node;
    struct shard *shard = node->shard[slot_shard(entry->slot, node->shards)].shard;
    recovery->world->totals.recovered_rows++;
    enum status status = recover_entry(recovery, entry);
    for (int tries = 0; status == STATUS_OVERLOADED && tries < 100; tries++) {
        struct flush_job *job = NULL;
        if (shard_recover_freeze(shard, &job) == STATUS_OK) {
            storage_ingest(recovery->world, node, job);
            shard_recover_flushed(shard);
        }
        status = recover_entry(recovery, entry);
    }
    return status;
}

static enum status recover_row(void *context, uint16_t slot, struct span key, struct span record)
{
    struct log_entry entry = {.type = LOG_ENTRY_ROW, .slot = slot, .key = key, .record = record};
    return recover_with_room(context, &entry);
}

static enum status recover_reserved(void *context, uint16_t slot, struct span key, struct span record)
{
    struct log_entry entry = {.type = LOG_ENTRY_RESERVED, .slot = slot, .key = key, .record = record};
    return recover_with_room(context, &entry);
}

static enum status recover_erase(void *context, uint16_t slot, struct span key, struct version version)
{
    struct log_entry entry = {.type = LOG_ENTRY_ERASE, .slot = slot, .key = key, .version = version};
    return recover_with_room(context, &entry);
}

/* Hands the reserved rows of the cold tier to their shards. */
static enum status recover_cold(struct sim_node *node)
{
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < node->disk.cold_count && status == STATUS_OK; i++) {
        struct span key = buf_span(&node->disk.cold[i].key);
        uint16_t slot = 0;
        if (!key_reserved(key))
            continue;
        status = reserved_key_slot(key, &slot);
        for (uint16_t s = 0; s < node->shards && reserved_key_prefix(key) == RESERVED_TREE; s++)
            shard_recover_trees_kept(node->shard[s].shard);
        if (status == STATUS_OK)
            status = shard_recover_cold(node->shard[slot_shard(slot, node->shards)].shard, key,
                                        buf_span(&node->disk.cold[i].record));
    }
    return status;
}

/* replay: into the shards; else only the report is made. */
static enum status scan_log(struct world *world, struct sim_node *node, const struct meta *meta, bool replay,
                            struct log_recovery_report *report)
{
    uint32_t count = node->disk.file_count;
    struct log_file *files = alloc_get_zeroed(&world->alloc, (count + 1) * sizeof *files);
    assert(files != NULL);
    for (uint32_t i = 0; i < count; i++) {
        files[i].number = node->disk.files[i]->number;
        files[i].bytes = buf_span(&node->disk.files[i]->now);
    }
    struct recovery recovery = {.world = world, .node = node};
    struct log_recovery_options options = {
        .identity = {.cluster_id = meta->cluster_id, .directory_id = meta->directory_id},
        .row = replay ? recover_row : NULL,
        .reserved = replay ? recover_reserved : NULL,
        .erase = replay ? recover_erase : NULL,
        .context = &recovery,
    };
    enum status status = log_recover(&options, files, count, report);
    alloc_put(&world->alloc, files, (count + 1) * sizeof *files);
    return status;
}

static void make_meta(struct world *world, struct sim_node *node, struct meta *meta)
{
    struct buf ring;
    buf_init(&ring, &world->alloc);
    ring_encode(world->ring, &ring);
    meta->cluster_id = world->ring->cluster_id;
    meta->node_id = node->id;
    meta->directory_id = prng_u64(&world->prng) | 1;
    meta->actor_id = prng_u64(&world->prng) | 1;
    meta->state = META_UNPROVEN;
    bool set = meta_name_set(meta, span_of_text(node->name)) == STATUS_OK &&
               meta_ring_set(meta, buf_span(&ring)) == STATUS_OK;
    assert(set);
    (void)set;
    buf_free(&ring);
}

/* What the log's state means for the directory (DESIGN sections 3 and 6). */
static void judge(struct world *world, struct sim_node *node, struct meta *meta,
                  const struct log_recovery_report *report)
{
    bool unsure = !meta->clean_stop && world->swarm.durability != SIM_DURABILITY_ALWAYS;
    bool all = node->disk.cold_noted;
    for (uint32_t slot = 0; (report->damage_count > 0 || all) && slot < SLOTS_COUNT; slot++) {
        if (!slot_bitmap_test(report->quarantined, (uint16_t)slot) && !all)
            continue;
        enum status status = meta_quarantine_set(meta, (uint16_t)slot);
        assert(status == STATUS_OK);
        (void)status;
    }
    if (report->damage_count > 0 || report->torn_bytes > 0 || unsure || all)
        meta->actor_id = prng_u64(&world->prng) | 1;
    world->totals.torn_tails += report->torn_bytes > 0;
    world->totals.damages += report->damage_count;
    /* Nothing in a random world touches what was synced: damage there is a torn tail taken for damage. */
    if (report->damage_count > 0 && !world->damage_expected)
        world_fail(world, HISTORY_KEY_NONE, "recovery: %s finds damage where there is none", node->name);
    if (report->damage_count > 0)
        world_say(world, HISTORY_KEY_NONE, "%s: the log is DAMAGED (%u)", node->name, report->damage_count);
    if (report->torn_bytes > 0)
        world_say(world, HISTORY_KEY_NONE, "%s: cuts %" PRIu64 " bytes off the log", node->name,
                  report->torn_bytes);
}

/* The log ends where recovery says, and all of it is on the platter. */
static void adopt_log(struct sim_node *node, const struct log_recovery_report *report)
{
    struct sim_disk *disk = &node->disk;
    disk_sync_all(disk);
    while (disk->file_count > 0 && disk->files[disk->file_count - 1]->number > report->end.segment)
        disk_delete(disk, disk->files[disk->file_count - 1]->number);
    if (disk_file(disk, report->end.segment) != NULL)
        disk_truncate(disk, report->end.segment, report->end.offset);
}

static void save_meta(struct sim_node *node, struct meta *meta)
{
    buf_clear(&node->disk.meta);
    meta_encode(meta, &node->disk.meta);
    assert(!node->disk.meta.failed);
}

/* ---- start ---------------------------------------------------------------------------------------------- */

static void make_shards(struct world *world, struct sim_node *node, const struct meta *meta,
                        struct hlc_bounds bounds)
{
    char resp[32];
    struct buf address;
    buf_init(&address, &world->alloc);
    buf_append_format(&address, "sim%u:7379", node->index + 1u);
    memcpy(resp, address.data, address.size);
    struct span resp_address = span_of(resp, address.size);
    buf_free(&address);
    struct ring *ring = NULL;
    enum status status = ring_decode(&world->alloc, buf_span(&meta->ring), &ring);
    assert(status == STATUS_OK);
    (void)status;
    for (uint16_t i = 0; i < node->shards; i++) {
        struct shard_options options = {
            .shard = i,
            .shards = node->shards,
            .ring = ring,
            .meta = meta,
            .bounds = bounds,
            .resp_address = resp_address,
            .http_address = resp_address,
            .memory_bytes = world->swarm.memory_bytes,
            .row_bytes_max = world->swarm.row_bytes,
            .key_bytes_max = KEY_BYTES_MAX_DEFAULT,
            .value_bytes_max = 64u << 10,
            .clock_skew_max_ms = world->swarm.clock_skew_max_ms,
            .request_timeout_ms = world->swarm.request_timeout_ms,
            .healing = world->swarm.healing,
            .blind_writes = world->swarm.blind_writes,
            .cold_empty = node->disk.cold_count == 0,
            .durability_always = world->swarm.durability == SIM_DURABILITY_ALWAYS,
            .durability = span_of_text("simulated"),
            .seed = prng_u64(&world->prng),
            .now = node_now(world, node),
            .started_wall_ms = node->started_wall_ms,
            .process_id = 1,
        };
        struct sim_shard *shard = &node->shard[i];
        *shard = (struct sim_shard){.turn_at_us = UINT64_MAX};
        shard->shard = shard_new(&options);
        assert(shard->shard != NULL);
        effects_init(&shard->effects, &world->alloc);
    }
    ring_free(ring);
}

void node_start(struct world *world, struct sim_node *node)
{
    assert(!node->running);
    node->life++;
    node->running = true;
    node->doomed = false;
    node->started_wall_ms = node_wall_ms(world, node);
    node->mono_base_us = world_draw(world, 1, 1000000000);
    node->stalled_until_us = world->now_us;
    if (world->swarm.shards_change && world->now_us > 0)
        node->shards = (uint16_t)world_draw(world, 1, SIM_SHARDS_MAX);
    struct meta meta;
    struct log_recovery_report *report = alloc_get_zeroed(&world->alloc, sizeof *report);
    assert(report != NULL);
    meta_init(&meta, &world->alloc);
    enum status status = STATUS_OK;
    if (node->disk.meta.size == 0)
        make_meta(world, node, &meta);
    else
        status = meta_decode(buf_span(&node->disk.meta), &meta);
    assert(status == STATUS_OK);
    status = scan_log(world, node, &meta, false, report);
    assert(status == STATUS_OK);
    judge(world, node, &meta, report);
    meta.clean_stop = false;
    meta.shards = node->shards;
    run_begin(&meta.runs, prng_u64(&world->prng) | 1);
    oracle_run(world, meta.runs.now.id, meta.actor_id ^ node->disk_life);
    save_meta(node, &meta);
    if (node->disk.cold_noted)
        disk_cold_discard(&node->disk);
    adopt_log(node, report);
    make_shards(world, node, &meta, report->bounds);
    node->recovering = true;
    status = recover_cold(node);
    if (status == STATUS_OK)
        status = scan_log(world, node, &meta, true, report);
    node->recovering = false;
    if (status != STATUS_OK)
        world_fail(world, HISTORY_KEY_NONE, "%s cannot recover: %s", node->name, status_text(status));
    world_say(world, HISTORY_KEY_NONE, "%s: started with %u shards, %" PRIu64 " rows in the log, %u cold",
              node->name, node->shards, report->rows, node->disk.cold_count);
    oracle_node_recovered(world, node);
    logger_start(world, node, report);
    meta_free(&meta);
    alloc_put(&world->alloc, report, sizeof *report);
    for (uint16_t i = 0; i < node->shards && !world->failed; i++) {
        shard_start(node->shard[i].shard, node_now(world, node), &node->shard[i].effects);
        shard_perform(world, node, i);
        shard_plan_turn(world, node, i, world->now_us);
    }
}

/* ---- the ways to end ------------------------------------------------------------------------------------ */

void totals_add_shards(struct world *world, struct sim_node *node)
{
    struct totals *totals = &world->totals;
    for (uint16_t i = 0; i < node->shards && node->running; i++) {
        const struct shard_counters *counters = shard_counters(node->shard[i].shard);
        totals->restamps += counters->restamps;
        totals->write_backs += counters->write_backs;
        totals->cold_reads += counters->cold_reads;
        totals->blind_writes += counters->blind_writes;
        totals->flushes += counters->flushes;
        totals->overloads += counters->overloads;
        totals->deadline_drops += counters->deadline_drops;
        totals->stale_epochs += counters->stale_epochs;
        totals->hedges += counters->hedges;
        const struct swim *swim = shard_gossip(node->shard[i].shard);
        if (swim != NULL) {
            totals->suspicions += swim->counters.suspicions;
            totals->deaths += swim->counters.deaths;
            totals->refutations += swim->counters.refutations;
        }
        totals->hedges_won += counters->hedges_won;
        totals->hedges_refused += counters->hedges_refused;
        totals->read_probes += counters->read_probes;
        struct shard_healing_state healing = shard_healing_state(node->shard[i].shard);
        totals->hints_stored += healing.hints_stored;
        totals->hints_replayed += healing.hints_replayed;
        totals->hints_converted += healing.hints_converted;
        totals->hints_discarded += healing.hints_discarded;
        totals->exchanges += healing.exchanges;
        totals->exchanges_failed += healing.exchanges_failed;
        totals->records_sent += healing.records_sent;
        totals->records_received += healing.records_received;
        totals->rescans += healing.rescans;
        totals->leaves_wrong += healing.leaves_wrong;
        totals->purged += healing.purged;
        totals->worlds_purged = totals->purged > 0;
        totals->floor_refusals += healing.floor_refusals;
        totals->slots_healed += healing.slots_healed;
        oracle_trees(world, node, i);
        totals->evictions += memtable_counters(shard_memtable(node->shard[i].shard))->evictions;
    }
}

/* The process's memory is gone. */
static void end_process(struct world *world, struct sim_node *node, bool at_once)
{
    totals_add_shards(world, node);
    node->running = false;
    node->life++;
    node->meta_pending = false;
    node->paused_until_us = world->now_us;
    clients_node_gone(world, node);
    network_node_gone(world, node, at_once);
    oracle_node_gone(world, node);
    oracle_liveness_gone(world, node);
    logger_free(world, node);
    for (uint16_t i = 0; i < node->shards; i++) {
        struct sim_shard *shard = &node->shard[i];
        shard_inbox_free(world, shard);
        storage_scans_free(world, shard);
        shard_free(shard->shard);
        effects_free(&shard->effects);
        *shard = (struct sim_shard){.turn_at_us = UINT64_MAX};
    }
}

void node_crash(struct world *world, struct sim_node *node, bool power)
{
    assert(node->running);
    world_say(world, HISTORY_KEY_NONE, "%s: %s", node->name, power ? "POWER LOSS" : "KILLED");
    /* A file that is being replaced is the old one or the new one. */
    if (node->meta_pending && world_chance(world, 500000)) {
        buf_clear(&node->disk.meta);
        buf_append_span(&node->disk.meta, buf_span(&node->meta_bytes));
    }
    logger_interrupt(world, node);
    end_process(world, node, power);
    if (power)
        disk_power_loss(&node->disk, &world->swarm.disk_crash, &world->prng);
    world->totals.crashes++;
    world->totals.power_losses += power;
}

void node_stop(struct world *world, struct sim_node *node)
{
    assert(node->running);
    world_say(world, HISTORY_KEY_NONE, "%s: stopped cleanly", node->name);
    logger_drain(world, node);
    if (node->meta_pending) {
        buf_clear(&node->disk.meta);
        buf_append_span(&node->disk.meta, buf_span(&node->meta_bytes));
    }
    struct meta meta;
    meta_init(&meta, &world->alloc);
    enum status status = meta_decode(buf_span(&node->disk.meta), &meta);
    assert(status == STATUS_OK);
    (void)status;
    meta.clean_stop = true;
    save_meta(node, &meta);
    meta_free(&meta);
    end_process(world, node, false);
    world->totals.clean_stops++;
}

void node_wipe(struct world *world, struct sim_node *node)
{
    assert(!node->running);
    world_say(world, HISTORY_KEY_NONE, "%s: DISK WIPED", node->name);
    disk_wipe(&node->disk);
    oracle_node_wiped(world, node);
    if (!node->wiped)
        world->wiped_count++;
    node->wiped = true;
    world->totals.wipes++;
}

void node_copy_disk(struct world *world, struct sim_node *node)
{
    world_say(world, HISTORY_KEY_NONE, "%s: its disk is copied", node->name);
    disk_copy(&node->copy, &node->disk);
}

bool node_copy_is_known_old(struct world *world, const struct sim_node *node)
{
    struct meta copy;
    meta_init(&copy, &world->alloc);
    bool old = node->copy.meta.size > 0 && meta_decode(buf_span(&node->copy.meta), &copy) == STATUS_OK;
    run_begin(&copy.runs, UINT64_MAX);
    for (uint16_t i = 0; i < world->node_count && old; i++) {
        if (i == node->index)
            continue;
        struct meta meta;
        meta_init(&meta, &world->alloc);
        old = world->nodes[i].disk.meta.size > 0 &&
              meta_decode(buf_span(&world->nodes[i].disk.meta), &meta) == STATUS_OK;
        const struct meta_member *member = old ? meta_member_find(&meta, node->id) : NULL;
        old = member != NULL && !meta_member_current(member, meta_known_as(&copy), &copy.runs);
        meta_free(&meta);
    }
    meta_free(&copy);
    return old;
}

void node_put_back(struct world *world, struct sim_node *node)
{
    assert(!node->running && node->copy.meta.size > 0);
    world_say(world, HISTORY_KEY_NONE, "%s: an OLDER DISK is put back", node->name);
    disk_copy(&node->disk, &node->copy);
    oracle_node_wiped(world, node);
    node->disk_life = prng_u64(&world->prng);
    if (!node->wiped)
        world->wiped_count++;
    node->wiped = true;
    world->totals.older_disks++;
}

void node_pause(struct world *world, struct sim_node *node, uint64_t us)
{
    node->paused_until_us = world->now_us + us;
    if (node->stalled_until_us < node->paused_until_us)
        node->stalled_until_us = node->paused_until_us;
    world->totals.pauses++;
    world_say(world, HISTORY_KEY_NONE, "%s: paused for %" PRIu64 " ms", node->name, us / 1000);
}
