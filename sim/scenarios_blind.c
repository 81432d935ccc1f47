/* Scenarios of writes that win without a look at what is in the cold tier. */
#include "sim/scenarios.h"

#define SECOND UINT64_C(1000000)

void prepare_blind_hints(struct swarm *swarm)
{
    prepare_little_memory(swarm);
    swarm->healing.hints = true;
    swarm->healing.hint_bytes_per_s = 2000;
}

/* A flush is done while a cold read is still under way. */
void prepare_blind_slow_reads(struct swarm *swarm)
{
    prepare_very_little_memory(swarm);
    swarm->cold_read_us = 600000;
    swarm->request_timeout_ms = 2000;
}

void prepare_blind_repair(struct swarm *swarm)
{
    prepare_little_memory(swarm);
    prepare_repair(swarm);
}

/* Purged before the tombstone has gone cold. */
void prepare_blind_purge(struct swarm *swarm)
{
    prepare_blind_repair(swarm);
    swarm->keys = 64;
    swarm->value_bytes_max = 1000;
    swarm->healing.repair_interval_ms = 1000;
}

static uint64_t blind_writes(const struct world *world, uint16_t node)
{
    uint64_t writes = 0;
    for (uint16_t s = 0; world->nodes[node].running && s < world->nodes[node].shards; s++)
        writes += shard_counters(world->nodes[node].shard[s].shard)->blind_writes;
    return writes;
}

/* With little memory a replica may have to make room first. */
static uint32_t write_one(struct world *world, uint16_t node, uint32_t key, uint8_t w)
{
    struct script_result write = script_set(world, node, key, w);
    for (int tries = 0; tries < 20 && write.outcome != HISTORY_DONE && !world->failed; tries++) {
        script_settle(world);
        write = script_set(world, node, key, w);
    }
    script_expect(world, write.outcome == HISTORY_DONE, "the write is done");
    return write.value;
}

static void write_all(struct world *world, uint16_t node, uint8_t w, uint32_t *values)
{
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++)
        values[key] = write_one(world, node, key, w);
}

static void restart(struct world *world, uint16_t node)
{
    node_crash(world, &world->nodes[node], true);
    node_start(world, &world->nodes[node]);
    script_settle(world);
}

/* Every row goes cold (the oldest change is flushed after ten seconds), then out of memory. */
static void all_cold(struct world *world)
{
    world_run_for(world, 25 * SECOND);
    for (uint16_t i = 0; i < world->node_count; i++)
        node_stop(world, &world->nodes[i]);
    script_start(world);
}

static void expect_read(struct world *world, const uint32_t *values)
{
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result read = {.outcome = HISTORY_OPEN};
        for (int tries = 0; tries < 20 && read.outcome != HISTORY_DONE && !world->failed; tries++)
            read = script_get(world, (uint16_t)(key % world->node_count), key, 3);
        script_expect(world, read.outcome == HISTORY_DONE && read.value == values[key],
                      "all replicas answer with the last value");
    }
}

/* X@200 goes cold at n3, which then loses its memory; a hint of X@180 comes. */
void scenario_blind_write_after_a_crash(struct world *world)
{
    uint32_t old[HISTORY_KEYS_MAX] = {0};
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    node_crash(world, &world->nodes[2], false);
    write_all(world, 0, 2, old);
    world_run_for(world, 8 * SECOND);
    node_start(world, &world->nodes[2]);
    world_run_for(world, SECOND);
    uint64_t left = healing_of(world, 0).hints;
    script_expect(world, left > 0 && left < world->swarm.keys,
                  "n1 has hints for n3, and replays them slowly");
    write_all(world, 1, 3, values);
    world_run_for(world, 12 * SECOND);
    script_expect(world, healing_of(world, 0).hints > 0, "hints are left when n3's rows are cold");
    restart(world, 2);
    oracle_converge(world);
    expect_read(world, values);
    script_expect(world, blind_writes(world, 2) == 0, "no old hint was taken for a fresh write");
}

/* An expiry without its value, of a key whose row is cold. */
void scenario_blind_override(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    write_all(world, 0, 3, values);
    all_cold(world);
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result expire = script_expire(world, 1, key, 1000);
        for (int tries = 0; tries < 20 && expire.outcome != HISTORY_DONE && !world->failed; tries++) {
            script_settle(world);
            expire = script_expire(world, 1, key, 1000);
        }
        script_expect(world, expire.outcome == HISTORY_DONE, "the expiry is set");
    }
    all_cold(world);
    expect_read(world, values);
}

/* n1 and n2 write blindly what n3 misses: their trees must show it. */
void scenario_blind_writes_differ(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    write_all(world, 0, 3, values);
    oracle_converge(world);
    all_cold(world);
    world_run_for(world, SECOND);
    node_crash(world, &world->nodes[2], false);
    write_all(world, 0, 2, values);
    script_expect(world, blind_writes(world, 0) > 0 && blind_writes(world, 1) > 0, "writes were blind");
    node_start(world, &world->nodes[2]);
    oracle_converge(world);
    world_run_for(world, 25 * SECOND);
    expect_read(world, values);
}

/* What was written blindly is deleted and purged: its older version in the cold tier goes with it. */
void scenario_blind_write_purged(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    write_all(world, 0, 3, values);
    all_cold(world);
    world_run_for(world, 13 * SECOND); /* what was left of the log goes cold too, and clocks are trusted */
    for (uint32_t key = 0; key < 4 && !world->failed; key++) {
        (void)write_one(world, 0, key, 3);
        script_expect(world, script_delete(world, 0, key, 3).outcome == HISTORY_DONE, "the delete is done");
    }
    for (uint16_t node = 0; node < 3; node++)
        script_expect(world, blind_writes(world, node) >= 4, "the writes were blind");
    oracle_converge(world);
    script_expect(world, healing_of(world, 0).purged >= 4, "the tombstones are purged");
    for (uint32_t key = 0; key < 4 && !world->failed; key++) {
        struct script_result read = script_get(world, 1, key, 3);
        script_expect(world, read.outcome == HISTORY_DONE && read.value == VALUE_ABSENT,
                      "the keys stay deleted");
    }
}

static void begin_reads(struct world *world, uint32_t key)
{
    struct buf get;
    buf_init(&get, &world->alloc);
    buf_append_text(&get, "GET ");
    history_key_name(key, &get);
    buf_put_u8(&get, 0);
    for (uint16_t node = 0; node < 3 && !world->failed; node++)
        (void)script_command(world, node, (const char *)get.data);
    buf_free(&get);
}

/* A key is read from the cold tier, and written while that takes: what is read must not come after the write. */
void scenario_blind_write_during_a_cold_read(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    write_all(world, 0, 3, values);
    all_cold(world);
    for (uint32_t key = 0; key < 8 && !world->failed; key++) {
        begin_reads(world, key);
        uint32_t value = write_one(world, 0, key, 3);
        /* It goes cold, and out of memory. */
        for (uint32_t i = 8; i < 3 * world->swarm.keys && !world->failed; i++)
            (void)script_set(world, 0, 8 + i % (world->swarm.keys - 8u), 2);
        world_run_for(world, 3 * SECOND);
        for (uint16_t node = 0; node < 3 && !world->failed; node++) {
            struct script_result read = script_get(world, node, key, 1);
            script_expect(world, read.outcome == HISTORY_DONE && read.value == value,
                          "every replica has the write");
        }
    }
}
