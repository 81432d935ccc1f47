/* Scenarios of slots that are wholly in memory: what is not there is nowhere, until a row of the slot was evicted. */
#include "sim/scenarios.h"

#define SECOND UINT64_C(1000000)

/* With blind writes off every write of a key that is not in memory asks where else it may be. */
void prepare_resident(struct swarm *swarm)
{
    prepare_little_memory(swarm);
    swarm->keys = 48;
    swarm->value_bytes_max = 6000;
    swarm->blind_writes = false;
}

/* Of all shards that run, since they started. */
static struct shard_counters counted(const struct world *world)
{
    struct shard_counters sum = {0};
    for (uint16_t i = 0; i < world->node_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        for (uint16_t s = 0; node->running && s < node->shards; s++) {
            sum.cold_reads += shard_counters(node->shard[s].shard)->cold_reads;
            sum.cold_reads_spared += shard_counters(node->shard[s].shard)->cold_reads_spared;
        }
    }
    return sum;
}

static void write_keys(struct world *world, uint32_t first, uint32_t *values)
{
    for (uint32_t key = first; key < world->swarm.keys && !world->failed; key += 2) {
        struct script_result write = script_set(world, 0, key, 3);
        for (int tries = 0; tries < 20 && write.outcome != HISTORY_DONE && !world->failed; tries++) {
            script_settle(world);
            write = script_set(world, 0, key, 3);
        }
        script_expect(world, write.outcome == HISTORY_DONE, "the write is done");
        values[key] = write.value;
    }
}

/* Each replica has the last value of each key, or knows of none. */
static void expect_values(struct world *world, const uint32_t *values)
{
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result read = {.outcome = HISTORY_OPEN};
        for (int tries = 0; tries < 20 && read.outcome != HISTORY_DONE && !world->failed; tries++) {
            read = script_get(world, (uint16_t)(key % world->node_count), key, 3);
            if (read.outcome != HISTORY_DONE)
                world_run_for(world, 10000);
        }
        script_expect(world, read.outcome == HISTORY_DONE && read.value == values[key],
                      "all replicas answer with the last value, or that there is none");
    }
}

/* Half of the keys go cold and the others are asked for; all are written until most are evicted; all nodes start again
 * with cold tiers of which they know nothing. */
void scenario_resident_slots(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    write_keys(world, 0, values);
    world_run_for(world, 15 * SECOND); /* the oldest change is flushed after ten seconds */
    expect_values(world, values);
    script_expect(world, counted(world).cold_reads_spared > 0,
                  "of keys that were never written nothing was read");
    for (int round = 0; round < 4; round++) {
        write_keys(world, 1, values);
        write_keys(world, 0, values);
        expect_values(world, values);
    }
    script_expect(world, counted(world).cold_reads > 10, "rows were evicted, and read again");
    world_run_for(world, 15 * SECOND);
    for (uint16_t i = 0; i < world->node_count; i++) {
        node_crash(world, &world->nodes[i], true);
        node_start(world, &world->nodes[i]);
    }
    script_settle(world);
    script_expect(world, counted(world).cold_reads_spared == 0,
                  "nothing is known of a cold tier that was there before");
    expect_values(world, values);
    script_expect(world, counted(world).cold_reads > 10, "rows were read cold");
}
