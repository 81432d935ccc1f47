/* Scenarios of hints and of repair: what a node missed, or lost, it gets again. */
#include "sim/scenarios.h"

#define SECOND UINT64_C(1000000)

/* Noticed by everybody that a node is gone, and its requests given up: hints are kept. */
#define NOTICED_US (8 * SECOND)

void prepare_hints(struct swarm *swarm)
{
    swarm->healing.hints = true;
}

void prepare_slow_repair(struct swarm *swarm)
{
    swarm->healing.repair = true;
    swarm->healing.repair_interval_ms = 25000;
}

void prepare_sloppy(struct swarm *swarm)
{
    prepare_five_of_three(swarm);
    swarm->healing.hints = true;
}

/* Every tree is compared with its rows, over and over. */
void prepare_repair(struct swarm *swarm)
{
    swarm->healing.repair = true;
    swarm->healing.repair_interval_ms = 3000;
    swarm->healing.rescan_interval_ms = 20000;
}

/* As many keys as there can be: slots of several keys, which exchanges divide before they list them. */
void prepare_repair_many_keys(struct swarm *swarm)
{
    prepare_repair(swarm);
    swarm->keys = HISTORY_KEYS_MAX;
}

void prepare_hints_many_keys(struct swarm *swarm)
{
    prepare_hints(swarm);
    swarm->keys = HISTORY_KEYS_MAX;
}

void prepare_hints_and_repair(struct swarm *swarm)
{
    prepare_repair(swarm);
    swarm->healing.hints = true;
}

void prepare_few_hints(struct swarm *swarm)
{
    prepare_hints_and_repair(swarm);
    swarm->healing.hint_bytes_max = 250;
}

void prepare_slow_hints(struct swarm *swarm)
{
    prepare_hints(swarm);
    swarm->healing.hint_bytes_per_s = 100;
}

void prepare_repair_little_memory(struct swarm *swarm)
{
    prepare_little_memory(swarm);
    prepare_repair(swarm);
}

void prepare_repair_slow_log(struct swarm *swarm)
{
    prepare_very_little_memory(swarm);
    prepare_repair(swarm);
}

struct shard_healing_state healing_of(const struct world *world, uint16_t node)
{
    struct shard_healing_state sum = {0};
    for (uint16_t s = 0; world->nodes[node].running && s < world->nodes[node].shards; s++) {
        struct shard_healing_state state = shard_healing_state(world->nodes[node].shard[s].shard);
        sum.hints += state.hints;
        sum.hints_stored += state.hints_stored;
        sum.hints_replayed += state.hints_replayed;
        sum.hints_converted += state.hints_converted;
        sum.slots_marked += state.slots_marked;
        sum.slots_healed += state.slots_healed;
        sum.records_received += state.records_received;
        sum.purged += state.purged;
        sum.floor_refusals += state.floor_refusals;
        sum.rescans += state.rescans;
    }
    return sum;
}

/* Every node holds the value that was written last. */
static void expect_held(struct world *world, const uint32_t *values)
{
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        const struct oracle_replica *replicas[SIM_NODES_MAX];
        struct stamp stamp = world->oracles.values[values[key]].highest;
        for (uint16_t node = 0; node < world->node_count; node++) {
            replicas[node] = &world->oracles.replica[node][key];
            script_expect(world, stamp_compare(replicas[node]->durable.value, stamp) == 0,
                          "every replica holds the value");
        }
    }
}

static void write_at(struct world *world, uint16_t node, uint8_t w, uint32_t *values)
{
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result write = script_set(world, node, key, w);
        /* With little memory a replica may have to make room first. */
        for (int tries = 0; tries < 20 && write.outcome != HISTORY_DONE && !world->failed; tries++) {
            script_settle(world);
            write = script_set(world, node, key, w);
        }
        script_expect(world, write.outcome == HISTORY_DONE, "the write is done");
        values[key] = write.value;
    }
}

/* n3 misses a value of every key. */
static void write_past_n3(struct world *world, uint32_t *values)
{
    script_start(world);
    node_crash(world, &world->nodes[2], false);
    write_at(world, 0, 2, values);
    world_run_for(world, NOTICED_US);
}

/* ---- hints ---------------------------------------------------------------------------------------------- */

void scenario_hinted_handoff(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    write_past_n3(world, values);
    script_expect(world, healing_of(world, 0).hints == world->swarm.keys, "n1 keeps a hint for every key");
    node_start(world, &world->nodes[2]);
    oracle_converge(world);
    script_expect(world, healing_of(world, 0).hints_replayed == world->swarm.keys, "all were replayed");
    script_expect(world, healing_of(world, 2).records_received == 0, "without any repair");
    expect_held(world, values);
}

/* Thousands of hints: each of them brings the only copy that its target will get. */
void scenario_every_hint_counts(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    for (uint16_t round = 0; round < 96 && !world->failed; round++) {
        struct sim_node *away = &world->nodes[round % 3];
        node_crash(world, away, false);
        write_at(world, (uint16_t)((round + 1) % 3), 2, values);
        world_run_for(world, NOTICED_US / 2);
        node_start(world, away);
        oracle_converge(world);
        script_settle(world);
        expect_held(world, values);
    }
}

/* n3 holds a value of every key, but not the last: slots are compared branch by branch. */
void scenario_anti_entropy_alone(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    write_at(world, 0, 3, values);
    write_past_n3(world, values);
    script_expect(world, healing_of(world, 0).hints_stored == 0, "no hints are kept");
    node_start(world, &world->nodes[2]);
    oracle_converge(world);
    expect_held(world, values);
}

void scenario_hint_bound(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    write_past_n3(world, values);
    struct shard_healing_state state = healing_of(world, 0);
    script_expect(world, state.hints_stored > 0 && state.hints_converted > 0, "some hints became sync marks");
    node_crash(world, &world->nodes[0], true);
    node_start(world, &world->nodes[0]);
    world_run_for(world, 2 * SECOND);
    node_start(world, &world->nodes[2]);
    oracle_converge(world);
    expect_held(world, values);
}

void scenario_throttled_replay(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    write_past_n3(world, values);
    node_start(world, &world->nodes[2]);
    world_run_for(world, SECOND);
    uint64_t left = healing_of(world, 0).hints;
    script_expect(world, left > 0 && left < world->swarm.keys, "replay is under way");
    write_at(world, 1, 3, values);
    oracle_converge(world);
    expect_held(world, values);
}

void scenario_crash_during_replay(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    write_past_n3(world, values);
    node_start(world, &world->nodes[2]);
    for (int round = 0; round < 6 && !world->failed; round++) {
        struct sim_node *node = &world->nodes[round % 2 == 0 ? 0 : 2];
        world_run_for(world, SECOND);
        if (healing_of(world, 0).hints == 0)
            break;
        node_crash(world, node, true);
        world_run_for(world, SECOND);
        node_start(world, node);
    }
    oracle_converge(world);
    expect_held(world, values);
}

/* ---- damage --------------------------------------------------------------------------------------------- */

void damage_log(struct world *world, struct sim_node *node)
{
    struct disk_file *file = node->disk.files[0];
    /* The first batch: it was synced long ago, as later ones say. */
    for (size_t at = LOG_HEADER_BYTES + LOG_BATCH_HEADER_BYTES; at + 2 < file->now.size; at++) {
        if (memcmp(file->now.data + at, "v1.", 3) == 0) {
            file->now.data[at] ^= 0x40;
            file->synced.data[at] ^= 0x40;
            break;
        }
    }
    world->damage_expected = true;
}

void scenario_damage_heals(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    write_at(world, 0, 3, values);
    script_settle(world);
    struct sim_node *node = &world->nodes[0];
    node_crash(world, node, false);
    damage_log(world, node);
    /* Alone with its damage it serves nothing of what it may have lost. */
    script_part(world, 0, 1, true);
    script_part(world, 0, 2, true);
    node_start(world, node);
    world_run_for(world, 3 * SECOND);
    script_expect(world, world->totals.damages == 1 && healing_of(world, 0).slots_marked > 0,
                  "the damage is found");
    script_part(world, 0, 1, false);
    script_part(world, 0, 2, false);
    oracle_converge(world);
    for (uint16_t asked = 0; asked < 3; asked++)
        script_expect(world, script_get(world, asked, 0, 3).value == values[0], "all three answer again");
}

/* Whatever n1 answers is the value, or an error: never nothing. False: there were errors. */
static bool right_answers(struct world *world, const uint32_t *values)
{
    bool all = true;
    for (uint8_t r = 1; r <= 3; r++) {
        for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
            struct script_result read = script_get(world, 0, key, r);
            bool done = read.outcome == HISTORY_DONE;
            script_expect(world, !done || read.value == values[key], "no answer is wrong");
            all &= done;
        }
    }
    return all;
}

static bool resident(const struct sim_node *node, struct span cold_key)
{
    struct span key = span_of(cold_key.data + COLD_KEY_PREFIX_BYTES, cold_key.size - COLD_KEY_PREFIX_BYTES);
    const struct memtable *memtable =
        shard_memtable(node->shard[slot_shard(key_slot(key), node->shards)].shard);
    struct memtable_cursor cursor = {0};
    const struct row *row = memtable_scan(memtable, &cursor);
    while (row != NULL && !span_equal(row_key(row), key))
        row = memtable_scan(memtable, &cursor);
    return row != NULL;
}

/* Blocks of the cold tier are damaged: their rows are lost, and every scan ends there, whatever is written later. What
 * the node answers heals while it runs; the damage itself goes with the cold tier at the next start. */
void scenario_cold_damage_heals(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    for (int round = 0; round < 4; round++)
        write_at(world, 0, 3, values);
    script_settle(world);
    uint32_t damaged = 0;
    uint32_t seen = 0;
    struct sim_disk *disk = &world->nodes[0].disk;
    for (uint32_t i = 0; i < disk->cold_count && damaged < 4; i++) {
        struct cold_row *row = &disk->cold[i];
        row->damaged = row->lost = !key_reserved(buf_span(&row->key)) && row->record.size > 0;
        damaged += row->damaged;
        seen += row->damaged && !resident(&world->nodes[0], buf_span(&row->key));
    }
    world->damage_expected = true;
    script_expect(world, damaged == 4, "rows are cold");
    for (uint32_t key = 0; key < world->swarm.keys; key++)
        (void)script_get(world, 1, key, 3);
    world_run_for(world, 25 * SECOND);
    script_expect(world, seen == 0 || disk->cold_noted, "the damage is found");
    /* A row that was resident hid its damage: reads find it later. */
    bool healed = false;
    for (int wait = 0; wait < 60 && !healed && !world->failed; wait++) {
        healed = right_answers(world, values) && healing_of(world, 0).slots_marked == 0;
        world_run_for(world, healed ? 0 : SECOND);
    }
    script_expect(world, healed, "all slots serve again");
    disk->cold_noted = true; /* also where memory hid all of it */
    node_crash(world, &world->nodes[0], false);
    node_start(world, &world->nodes[0]);
    script_expect(world, disk->cold_count == 0, "the cold tier is given up");
    oracle_converge(world);
    script_expect(world, right_answers(world, values), "every value is there");
}

/* ---- trees ---------------------------------------------------------------------------------------------- */

/* Rows change after the flush that took their trees, and the machine stops: the trees on the disk do not count them. */
void scenario_dirty_marks(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    for (int round = 0; round < 4 && !world->failed; round++) {
        write_at(world, 0, 3, values);
        write_at(world, 1, 3, values);
        for (uint16_t i = 0; i < world->node_count; i++)
            node_crash(world, &world->nodes[i], round % 2 == 0);
        script_start(world);
        oracle_converge(world);
        world_run_for(world, 21 * SECOND);
    }
    script_expect(world, world->totals.flushes + healing_of(world, 0).rescans > 0, "trees were rescanned");
    expect_held(world, values);
}

/* n1's log stalls while its rows are flushed, then the power fails: a tree must not count what the log has lost. */
void scenario_tree_ahead_of_the_log(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    for (int round = 0; round < 3 && !world->failed; round++) {
        write_at(world, 1, 2, values);
        script_settle(world);
        world->nodes[0].slow_until_us = world->now_us + 60 * SECOND;
        write_at(world, 1, 2, values);
        world->nodes[0].slow_until_us = 0;
        node_crash(world, &world->nodes[0], true);
        script_start(world);
        oracle_converge(world);
        world_run_for(world, 21 * SECOND);
    }
}

/* ---- sloppy reads --------------------------------------------------------------------------------------- */

/* No replica can be reached, only nodes that might stand in for them: they know of nothing, and that says nothing. */
void scenario_fallbacks_know_nothing(struct world *world)
{
    script_start(world);
    uint16_t node = 0;
    while (node == script_replica(world, 0, 0) || node == script_replica(world, 0, 1) ||
           node == script_replica(world, 0, 2))
        node++;
    script_expect(world, script_set(world, node, 0, 3).outcome == HISTORY_DONE, "all three hold the value");
    for (uint8_t place = 0; place < 3; place++)
        node_crash(world, &world->nodes[script_replica(world, 0, place)], false);
    world_run_for(world, 2 * NOTICED_US);
    struct buf command;
    buf_init(&command, &world->alloc);
    buf_append_text(&command, "RONDO.GET ");
    history_key_name(0, &command);
    buf_append_text(&command, " R 2 TIMEOUT 50 SLOPPY yes");
    buf_put_u8(&command, 0);
    script_expect(world, script_command(world, node, (const char *)command.data)[0] == '-',
                  "a sloppy read that meets fallbacks alone is an error");
    buf_free(&command);
}
