/* Scenarios of nodes that come back with less than they had: nothing, or an older copy of their disk. Each ends with
 * the node repaired from the others, serving, and holding everything. */
#include "sim/scenarios.h"

#define HEALING_US_MAX 60000000u

void prepare_healing(struct swarm *swarm)
{
    swarm->healing.repair = true;
}

void prepare_healing_of_two_shards(struct swarm *swarm)
{
    prepare_healing(swarm);
    for (int i = 0; i < 5; i++)
        swarm->shards[i] = 2;
}

static bool serves_all(const struct world *world, const struct sim_node *node)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        const struct sim_shard *shard = &node->shard[slot_shard((uint16_t)slot, node->shards)];
        uint16_t index = ring_node_index(world->ring, node->id);
        if (ring_replicates(world->ring, (uint16_t)slot, index) &&
            !shard_slot_serves(shard->shard, (uint16_t)slot))
            return false;
    }
    return true;
}

static uint32_t serving_count(const struct sim_node *node)
{
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        count +=
            shard_slot_serves(node->shard[slot_shard((uint16_t)slot, node->shards)].shard, (uint16_t)slot);
    return count;
}

/* Then the others go away: what n1 says is what n1 has. */
static void expect_repaired(struct world *world, const uint32_t *values)
{
    struct sim_node *node = &world->nodes[0];
    uint64_t until_us = world->now_us + HEALING_US_MAX;
    while (!world->failed && !serves_all(world, node) && world->now_us < until_us)
        world_run_for(world, 200000);
    script_expect(world, serves_all(world, node), "n1 serves again");
    /* Everybody connects anew, and nobody holds the repaired directory for an old one. */
    for (uint16_t i = 1; i < world->node_count && !world->failed; i++)
        network_break(world, 0, i);
    world_run_for(world, 3000000);
    script_expect(world, serves_all(world, node), "n1 still serves after it was greeted again");
    for (uint16_t i = 1; i < world->node_count && !world->failed; i++)
        node_crash(world, &world->nodes[i], false);
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result read = script_get(world, 0, key, 1);
        script_expect(world, read.outcome == HISTORY_DONE && read.value == values[key], "n1 has every value");
    }
}

static void write_all(struct world *world, uint16_t node, uint8_t w, uint32_t *values)
{
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result write = script_set(world, node, key, w);
        script_expect(world, write.outcome == HISTORY_DONE, "the write is done");
        values[key] = write.value;
    }
}

static bool lose_puts_to_n2(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    (void)world;
    (void)from;
    return to == 1 && bytes.size > 4 && bytes.data[4] == FRAME_PUT;
}

/* n1 and n3 hold the newest values; n2 does not. */
static void write_past_n2(struct world *world, uint32_t *values)
{
    world->network.filter = lose_puts_to_n2;
    write_all(world, 0, 2, values);
    world_run_for(world, 1500000);
    world->network.filter = NULL;
}

/* What n2 says of n1's disk takes a third of a second; what n2 asks n1 comes at once. */
static void start_with_a_late_verdict(struct world *world)
{
    struct sim_node *node = &world->nodes[0];
    bool on_its_way = false;
    world->network.extra_delay_us[1][0] = 300000;
    node_start(world, node);
    for (uint32_t us = 0; us < 20000 && !on_its_way && !world->failed; us++) {
        const struct sim_connection *connection = node->outgoing[0][1].connection;
        on_its_way = connection != NULL && connection->backward_order_us > world->now_us;
        world_run_for(world, 1);
    }
    script_expect(world, on_its_way, "n2 answers n1's greeting");
    world->network.extra_delay_us[1][0] = 0;
    world_run_for(world, 5000);
}

/* n3 is away: no two of the nodes that are left may agree on a value that is not the newest. */
static void expect_no_old_reads(struct world *world)
{
    struct sim_node *node = &world->nodes[0];
    start_with_a_late_verdict(world);
    for (int round = 0; round < 30 && !world->failed; round++) {
        uint32_t key = (uint32_t)round % world->swarm.keys;
        struct script_result read = script_get(world, (uint16_t)(round % 4 != 3), key, 2);
        script_expect(world, read.outcome != HISTORY_DONE,
                      "the older disk and n2 alone answer no read of R = 2");
        world_run_for(world, 7000);
    }
    /* Long enough to be compared with n2, over and over. */
    world_run_for(world, 5000000);
    script_expect(world, serving_count(node) == 0, "no slot serves that was compared with n2 alone");
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result read = script_get(world, 1, key, 2);
        script_expect(world, read.outcome != HISTORY_DONE, "n1 is not repaired from n2 alone");
    }
}

void scenario_amnesia_empty_disk(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    script_start(world);
    write_past_n2(world, values);
    node_crash(world, &world->nodes[0], true);
    node_wipe(world, &world->nodes[0]);
    script_part(world, 2, 1, true);
    script_part(world, 2, 0, true);
    expect_no_old_reads(world);
    script_part(world, 2, 1, false);
    script_part(world, 2, 0, false);
    expect_repaired(world, values);
}

/* Both n2 and n3 take the key an hour ahead, so that n1 stamps it from its far-future register. */
static void make_far_future(struct world *world)
{
    for (uint16_t i = 1; i < 3; i++)
        node_clock_set(world, &world->nodes[i], INT64_C(3600000000), 0);
    world_run_for(world, 12000000);
    for (uint32_t key = 0; key < world->swarm.keys; key++)
        script_expect(world, script_set(world, 1, key, 2).outcome == HISTORY_DONE, "n2 writes an hour ahead");
    for (uint16_t i = 1; i < 3; i++)
        node_clock_set(world, &world->nodes[i], 0, 0);
    world_run_for(world, 12000000);
}

void scenario_amnesia_older_disk(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    struct sim_node *node = &world->nodes[0];
    script_start(world);
    make_far_future(world);
    write_all(world, 0, 3, values);
    node_copy_disk(world, node);
    script_expect(world, !node_copy_is_known_old(world, node), "a copy of the newest state is not old");
    node_crash(world, node, false);
    node_start(world, node);
    world_run_for(world, 2500000);
    write_past_n2(world, values);
    node_stop(world, node);
    script_expect(world, node_copy_is_known_old(world, node), "the others know that the copy is old");
    node_put_back(world, node);
    script_part(world, 2, 1, true);
    script_part(world, 2, 0, true);
    expect_no_old_reads(world);
    /* What it stamps lies where its newer self has stamped. */
    for (uint32_t key = 0; key < world->swarm.keys; key++)
        (void)script_set(world, 0, key, 1);
    script_part(world, 2, 1, false);
    script_part(world, 2, 0, false);
    world_run_for(world, 3000000);
    write_all(world, 2, 3, values);
    expect_repaired(world, values);
}

/* Each start, and each minute, raises the copy's count past that of the disk it stands for. (Seed 40020621 of an
 * earlier swarm.) */
void scenario_amnesia_restarted_copy(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    struct sim_node *node = &world->nodes[0];
    script_start(world);
    write_all(world, 0, 3, values);
    node_copy_disk(world, node);
    node_stop(world, node);
    node_start(world, node);
    world_run_for(world, 2500000);
    write_past_n2(world, values);
    for (uint16_t i = 0; i < 3; i++)
        node_stop(world, &world->nodes[i]);
    node_put_back(world, node);
    for (int start = 0; start < 3; start++) {
        node_start(world, node);
        world_run_for(world, start == 0 ? 130000000 : 1000000);
        node_crash(world, node, start == 1);
    }
    node_start(world, &world->nodes[1]);
    node_start(world, &world->nodes[2]);
    world_run_for(world, 2000000);
    script_part(world, 2, 1, true);
    script_part(world, 2, 0, true);
    expect_no_old_reads(world);
    script_part(world, 2, 1, false);
    script_part(world, 2, 0, false);
    expect_repaired(world, values);
    for (uint16_t i = 1; i < world->node_count && !world->failed; i++)
        node_start(world, &world->nodes[i]);
}

void scenario_amnesia_restored_copy(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    struct sim_node *node = &world->nodes[0];
    script_start(world);
    write_all(world, 0, 3, values);
    node_copy_disk(world, node);
    /* No restart: the count that is raised every minute is all that tells the two apart. */
    world_run_for(world, 65000000);
    write_past_n2(world, values);
    node_crash(world, node, true);
    node_put_back(world, node);
    script_part(world, 2, 1, true);
    script_part(world, 2, 0, true);
    expect_no_old_reads(world);
    script_part(world, 2, 1, false);
    script_part(world, 2, 0, false);
    expect_repaired(world, values);
    for (uint16_t i = 1; i < world->node_count && !world->failed; i++)
        node_start(world, &world->nodes[i]);
}

/* The other nodes are away: nobody can say whether n1's disk is current. */
static void start_alone(struct world *world)
{
    node_start(world, &world->nodes[0]);
    world_run_for(world, 2000000);
}

static void expect_reads_of_n1(struct world *world, const uint32_t *values, const char *text)
{
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result read = script_get(world, 0, key, 1);
        bool none = values == NULL && read.outcome == HISTORY_NOT_APPLIED;
        bool newest = values != NULL && read.outcome == HISTORY_DONE && read.value == values[key];
        script_expect(world, none || newest, text);
    }
}

/* W = N holds over any one lost disk, and an older copy is one: R = 1 may not miss it. (Seed 7000528 of an earlier
 * swarm.) */
void scenario_amnesia_alone(struct world *world)
{
    uint32_t values[HISTORY_KEYS_MAX] = {0};
    struct sim_node *node = &world->nodes[0];
    script_start(world);
    write_all(world, 0, 3, values);
    node_copy_disk(world, node);
    node_crash(world, node, false);
    node_start(world, node);
    world_run_for(world, 2500000);
    write_all(world, 1, 3, values);
    node_stop(world, node);
    script_expect(world, node_copy_is_known_old(world, node), "the others know that the copy is old");
    for (uint16_t i = 1; i < 3; i++)
        node_stop(world, &world->nodes[i]);
    /* Its newest disk is no better known than an older one. */
    start_alone(world);
    expect_reads_of_n1(world, NULL, "a disk that nobody has judged answers nobody");
    node_start(world, &world->nodes[1]);
    world_run_for(world, 2000000);
    expect_reads_of_n1(world, values, "n2 is back: n1 answers");
    node_stop(world, &world->nodes[1]);
    world_run_for(world, 2000000);
    expect_reads_of_n1(world, values, "once judged it answers alone");
    node_stop(world, node);
    node_put_back(world, node);
    start_alone(world);
    expect_reads_of_n1(world, NULL, "an older disk answers nobody");
    node_start(world, &world->nodes[1]);
    world_run_for(world, 2000000);
    expect_reads_of_n1(world, values, "n2 is back: it answers for n1");
    node_start(world, &world->nodes[2]);
    world_run_for(world, 2000000);
    expect_repaired(world, values);
}
