/* Scenarios of purged rows: whatever comes back from a disk or a message of before, they do not. */
#include "sim/scenarios.h"

#define PURGE_US 60000000u
#define SERVING_US_MAX UINT64_C(60000000)

void prepare_purging(struct swarm *swarm)
{
    swarm->healing.repair = true;
    swarm->healing.repair_interval_ms = 1000;
}

static void await_serving(struct world *world, const struct sim_node *node)
{
    uint64_t until_us = world->now_us + SERVING_US_MAX;
    bool serves = false;
    while (!serves && !world->failed && world->now_us < until_us) {
        world_run_for(world, 200000);
        serves = true;
        for (uint32_t slot = 0; slot < SLOTS_COUNT && serves; slot++) {
            const struct sim_shard *shard = &node->shard[slot_shard((uint16_t)slot, node->shards)];
            serves = shard_slot_serves(shard->shard, (uint16_t)slot);
        }
    }
    script_expect(world, serves, "the node serves again");
}

/* n1 loses its disk after the deletes were purged, and is rebuilt; then n3 comes back with a disk of before them. What
 * n1 knows of purged rows it has from n2. */
void scenario_old_disk_after_a_rebuilt_one(struct world *world)
{
    script_start(world);
    for (uint32_t key = 0; key < world->swarm.keys; key++)
        script_expect(world, script_set(world, 0, key, 3).outcome == HISTORY_DONE, "the write is done");
    node_copy_disk(world, &world->nodes[2]);
    node_crash(world, &world->nodes[2], false);
    node_start(world, &world->nodes[2]);
    world_run_for(world, 3000000);
    for (uint32_t key = 0; key < world->swarm.keys; key++)
        script_expect(world, script_delete(world, 0, key, 3).outcome == HISTORY_DONE, "the delete is done");
    world_run_for(world, PURGE_US);

    node_crash(world, &world->nodes[0], true);
    node_wipe(world, &world->nodes[0]);
    node_start(world, &world->nodes[0]);
    await_serving(world, &world->nodes[0]);

    node_stop(world, &world->nodes[2]);
    node_put_back(world, &world->nodes[2]);
    node_start(world, &world->nodes[2]);
    await_serving(world, &world->nodes[2]);
    world_run_for(world, 10000000);
    for (uint16_t node = 0; node < 3 && !world->failed; node++) {
        for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++)
            script_expect(world, script_get(world, node, key, 1).value == 0, "nothing deleted comes back");
    }
}
