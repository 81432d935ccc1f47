/* Scenarios of quorums and rings. */
#include "sim/scenarios.h"

#include <assert.h>
#include <string.h>

void prepare_five(struct swarm *swarm)
{
    swarm->nodes = 5;
    swarm->replicas = 5;
}

void prepare_five_of_three(struct swarm *swarm)
{
    swarm->nodes = 5;
    swarm->replicas = 3;
}

static bool is_frame(struct span bytes, enum frame_type type)
{
    return bytes.size > 4 && bytes.data[4] == type;
}

/* The puts of n1 reach n2 only. */
static bool only_to_n2(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    (void)world;
    return from == 0 && to != 1 && is_frame(bytes, FRAME_PUT);
}

/* N = 5, R = 3: a write that only n1 and n2 hold is read; then both of them are gone. */
void scenario_partial_write_then_two_reads(struct world *world)
{
    script_start(world);
    script_expect(world, script_set(world, 2, 0, 5).outcome == HISTORY_DONE, "the first write is done");
    world->network.filter = only_to_n2;
    struct script_result partial = script_set(world, 0, 0, 4);
    script_expect(world, partial.outcome == HISTORY_UNKNOWN, "the second write's outcome is unknown");
    world->network.filter = NULL;
    struct script_result first = script_get(world, 0, 0, 3);
    script_expect(world, first.value == partial.value, "the partial write is read where it is held");
    node_crash(world, &world->nodes[0], true);
    node_crash(world, &world->nodes[1], true);
    world_run_for(world, 2500000);
    struct script_result second = script_get(world, 3, 0, 3);
    script_expect(world, second.outcome == HISTORY_DONE && second.value == first.value,
                  "a value once read stays read");
    /* And R = 2 with W = 4: what was acknowledged is seen by any two. */
    node_start(world, &world->nodes[0]);
    node_start(world, &world->nodes[1]);
    world_run_for(world, 1500000);
    struct script_result write = script_set(world, 4, 1, 4);
    for (uint16_t node = 0; node < 5; node++)
        script_expect(world, script_get(world, node, 1, 2).value == write.value,
                      "R + W > N reads what was written");
}

/* n2's log stalls, so that its answer to n1's first request finds n1 restarted and waiting for its first request. */
void scenario_answer_to_an_earlier_process(struct world *world)
{
    struct sim_node *n1 = &world->nodes[0];
    script_start(world);
    node_crash(world, &world->nodes[2], false);
    for (uint32_t round = 0; round < 24 && !world->failed; round++) {
        world->nodes[1].slow_until_us = world->now_us + 4000000;
        (void)script_set_begin(world, 0, round % world->swarm.keys, 2, 1000);
        world_run_for(world, 20000);
        node_crash(world, n1, false);
        node_start(world, n1);
        world_run_for(world, 1500000);
    }
    world->nodes[1].slow_until_us = 0;
    script_start(world);
    script_settle(world);
    script_expect(world, script_set(world, 0, 0, 3).outcome == HISTORY_DONE, "all three serve again");
}

/* The path from n1 to n3 stalls: what arrives seconds later must not be applied. */
void scenario_late_write_back(struct world *world)
{
    script_start(world);
    world->network.extra_delay_us[0][2] = 2500000;
    struct script_result write = script_set(world, 0, 0, 2);
    script_expect(world, write.outcome == HISTORY_DONE, "the write is done without n3");
    world->network.extra_delay_us[0][2] = 0;
    world_run_for(world, 4000000);
    script_expect(world, stamp_none(world->oracles.replica[2][0].durable.value), "the late put was dropped");
    script_expect(world, shard_counters(world->nodes[2].shard[0].shard)->deadline_drops > 0, "and counted");
}

void prepare_single_replica(struct swarm *swarm)
{
    swarm->replicas = 1;
}

/* The only replica's disk takes a third of a second, so that the put is sent to it once more, and is full when that
 * comes. (Seed 70012286 of an earlier swarm.) */
void scenario_refused_once_of_twice(struct world *world)
{
    script_start(world);
    uint16_t replica = script_replica(world, 0, 0);
    uint16_t other = replica == 0;
    struct sim_node *node = &world->nodes[replica];
    script_expect(world, script_set(world, other, 0, 1).outcome == HISTORY_DONE, "a write is done");
    world->swarm.sync_us = 300000;
    uint32_t write = script_set_begin(world, other, 0, 1, 2000);
    world_run_for(world, 5000);
    network_break_from(world, replica, other);
    shard_post(world, node, 0, EVENT_LOG_FULL, (struct span){0})->flag = true;
    world_run_for(world, 150000);
    shard_post(world, node, 0, EVENT_LOG_FULL, (struct span){0})->flag = false;
    world->swarm.sync_us = 100;
    world_run_for(world, 3000000);
    const struct history_op *op = &world->history.ops[write];
    script_expect(world, world->totals.puts_refused == 1, "the second copy was refused");
    script_expect(world, op->outcome == HISTORY_DONE, "the first copy was taken");
    struct script_result read = script_get(world, other, 0, 1);
    script_expect(world, read.outcome == HISTORY_DONE && read.value == op->value, "it is held");
}

/* What the only replica can answer from one row still waits for the log, and for the commands in front of it. */
void scenario_lone_replica_in_turn(struct world *world)
{
    script_start(world);
    uint16_t replica = script_replica(world, 0, 0);
    uint32_t other = 1;
    while (script_replica(world, other, 0) != replica)
        other++;
    struct script_result written = script_set(world, replica, other, 1);
    uint64_t asked_us = world->now_us;
    script_expect(world, script_get(world, replica, other, 1).value == written.value, "a write is read");
    script_expect(world, world->now_us - asked_us < 50000, "at once");
    world->swarm.sync_us = 200000;
    uint32_t write = script_set_get_begin(world, replica, 0, other);
    world_run_for(world, 5000);
    asked_us = world->now_us;
    struct script_result read = script_get(world, replica, 0, 1);
    const struct history_op *ops = world->history.ops;
    script_expect(world, world->now_us - asked_us > 50000, "a read of what is not durable waits");
    script_expect(world, read.outcome == HISTORY_DONE && read.value == ops[write].value, "and reads it");
    script_settle(world);
    script_expect(world, ops[write].outcome == HISTORY_DONE, "the pipelined write is done");
    script_expect(world, ops[write + 1].value == written.value, "and what was behind it is read, in turn");
}

void scenario_client_map_with_dead_nodes(struct world *world)
{
    script_start(world);
    script_expect(world, strstr(script_command(world, 0, "CLUSTER SLOTS"), "sim3") != NULL,
                  "n3 is in the map");
    node_crash(world, &world->nodes[2], true);
    world_run_for(world, 2500000);
    script_expect(world, strstr(script_command(world, 0, "CLUSTER SLOTS"), "sim3") == NULL,
                  "a dead n3 is not");
    script_expect(world, strstr(script_command(world, 1, "CLUSTER SLOTS"), "sim2") != NULL, "a live n2 is");
    for (uint32_t key = 0; key < 8; key++)
        script_expect(world, script_set(world, (uint16_t)(key % 2), key, 2).outcome == HISTORY_DONE,
                      "the others take every write");
    node_start(world, &world->nodes[2]);
    world_run_for(world, 2500000);
    script_expect(world, strstr(script_command(world, 0, "CLUSTER SLOTS"), "sim3") != NULL,
                  "n3 is back in it");
}

static bool lose_all_puts(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    (void)world;
    (void)from;
    (void)to;
    return is_frame(bytes, FRAME_PUT);
}

void scenario_coordinator_counted_twice(struct world *world)
{
    script_start(world);
    world->network.filter = lose_all_puts;
    for (uint16_t node = 0; node < 3; node++) {
        struct script_result write = script_set(world, node, node, 2);
        script_expect(world, write.outcome == HISTORY_UNKNOWN, "one copy is not W = 2");
    }
    world->network.filter = NULL;
}

/* ---- rings ---------------------------------------------------------------------------------------------- */

/* n1 hears nothing of new rings. */
static bool no_rings_to_n1(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    (void)world;
    (void)from;
    return to == 0 && is_frame(bytes, FRAME_RING);
}

/* The next ring: every slot's owner moves on by two, so that of its three replicas at most two stay. */
static struct ring *next_ring(struct world *world)
{
    static uint16_t owner[SLOTS_COUNT];
    const struct ring *old = world->ring;
    struct ring_member members[SIM_NODES_MAX];
    for (uint16_t i = 0; i < old->node_count; i++)
        members[i] =
            ring_member_of(span_of_text(old->nodes[i].name), span_of_text(old->nodes[i].peer_address));
    assert(old->node_count > 0);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        owner[slot] = (uint16_t)((old->owner[slot] + 2) % old->node_count);
    struct ring_options options = {.members = members,
                                   .member_count = old->node_count,
                                   .replicas = old->replicas_configured,
                                   .owner = owner};
    struct ring *ring = NULL;
    enum status status = ring_next(&world->alloc, old, &options, NULL, &ring);
    assert(status == STATUS_OK);
    (void)status;
    return ring;
}

static void install(struct world *world, uint16_t node, const struct ring *ring)
{
    struct sim_node *on = &world->nodes[node];
    for (uint16_t shard = 0; shard < on->shards; shard++) {
        shard_install_ring(on->shard[shard].shard, ring, &on->shard[shard].effects);
        shard_perform(world, on, shard);
        shard_plan_turn(world, on, shard, world->now_us);
    }
}

void scenario_stale_coordinator(struct world *world)
{
    script_start(world);
    world->ring_made = next_ring(world);
    world->ring = world->ring_made;
    world->network.filter = no_rings_to_n1;
    for (uint16_t node = 1; node < world->node_count; node++)
        install(world, node, world->ring);
    script_settle(world);
    uint64_t refused = 0;
    for (uint32_t key = 0; key < 8 && !world->failed; key++) {
        struct script_result write = script_set(world, 1, key, 2);
        script_expect(world, write.outcome == HISTORY_DONE, "the new ring takes the write");
        struct script_result read = script_get(world, 0, key, 2);
        script_expect(world, read.outcome != HISTORY_DONE || read.value == write.value,
                      "the stale coordinator reads nothing that is too old");
        refused += script_set(world, 0, key, 2).outcome != HISTORY_DONE;
        struct script_result again = script_get(world, 2, key, 2);
        script_expect(world, again.outcome == HISTORY_DONE, "the new ring answers");
    }
    script_expect(world, refused > 0, "the stale coordinator was refused");
    world->network.filter = NULL;
    world_run_for(world, 3000000);
    for (uint32_t key = 0; key < 8 && !world->failed; key++) {
        (void)script_set(world, 0, key, 2);
        world_run_for(world, 200000);
        script_expect(world, script_set(world, 0, key, 2).outcome == HISTORY_DONE,
                      "it learns the ring and goes on");
    }
}
