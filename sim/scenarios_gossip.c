/* Scenarios of gossip: who is reachable, and what requests make of it. */
#include "gossip/message.h"
#include "sim/scenarios.h"

#define STEP_US 50000

static const struct swim *gossip_of(const struct world *world, uint16_t node)
{
    return shard_gossip(world->nodes[node].shard[0].shard);
}

static const struct swim_member *known(const struct world *world, uint16_t at, uint16_t node)
{
    return swim_member_of(gossip_of(world, at), world->nodes[node].id);
}

/* All other running nodes hold the node to be so. */
static bool everywhere(const struct world *world, uint16_t node, enum swim_state state)
{
    for (uint16_t i = 0; i < world->node_count; i++) {
        if (i != node && world->nodes[i].running && known(world, i, node)->state != state)
            return false;
    }
    return true;
}

static void run_until_everywhere(struct world *world, uint16_t node, enum swim_state state, uint64_t us)
{
    uint64_t until_us = world->now_us + us;
    while (!world->failed && !everywhere(world, node, state) && world->now_us < until_us)
        world_run_for(world, STEP_US);
}

/* At the latest: the first probe of it within two shuffled rounds, at its interval's end the accusation, the longest
 * suspicion (nobody confirms it), and an interval for the news. */
static uint64_t death_us(const struct world *world)
{
    struct swim_tuning tuning = swim_tuning_default();
    uint64_t least_ms =
        suspicion_min_ms(tuning.suspicion_factor, world->node_count, tuning.probe_interval_ms);
    uint64_t intervals = 2 * (world->node_count - 1u) + 2u;
    return 1000 * (intervals * tuning.probe_interval_ms + tuning.suspicion_max_factor * least_ms);
}

static uint64_t sum_suspicions(const struct world *world)
{
    uint64_t sum = 0;
    for (uint16_t i = 0; i < world->node_count; i++)
        sum += gossip_of(world, i)->counters.suspicions;
    return sum;
}

void scenario_gossip_quiet(struct world *world)
{
    world->oracles.nobody_dies = true;
    script_start(world);
    world_run_for(world, UINT64_C(120000000));
    script_expect(world, sum_suspicions(world) == 0, "nobody is suspected");
    for (uint16_t at = 0; at < world->node_count; at++) {
        for (uint16_t node = 0; node < world->node_count; node++)
            script_expect(world, known(world, at, node)->incarnation > 0, "everybody has heard of everybody");
    }
}

void scenario_gossip_dead_node_is_known(struct world *world)
{
    script_start(world);
    uint64_t incarnation = known(world, 0, 4)->incarnation;
    node_crash(world, &world->nodes[4], true);
    run_until_everywhere(world, 4, SWIM_DEAD, death_us(world));
    script_expect(world, everywhere(world, 4, SWIM_DEAD), "the dead node is known to be dead in time");
    for (uint16_t node = 0; node < 4; node++)
        script_expect(world, everywhere(world, node, SWIM_ALIVE) || node == 4, "the others are alive");
    node_start(world, &world->nodes[4]);
    run_until_everywhere(world, 4, SWIM_ALIVE, 2000000);
    script_expect(world, everywhere(world, 4, SWIM_ALIVE),
                  "it is alive everywhere soon after it has started");
    script_expect(world, known(world, 0, 4)->incarnation > incarnation, "with a greater incarnation");
}

void scenario_gossip_stopped_node(struct world *world)
{
    script_start(world);
    node_pause(world, &world->nodes[2], UINT64_C(100000000));
    script_expect(world, script_set(world, 0, 0, 3).outcome == HISTORY_UNKNOWN,
                  "a write to all of three waits for the one that has just stopped");
    run_until_everywhere(world, 2, SWIM_DEAD, death_us(world));
    script_expect(world, everywhere(world, 2, SWIM_DEAD), "a stopped process is dead in time");
    script_settle(world);
    for (uint32_t key = 0; key < 8 && !world->failed; key++) {
        uint64_t begun_us = world->now_us;
        uint16_t at = (uint16_t)(key % 2);
        script_expect(world, script_set(world, at, key, 3).outcome == HISTORY_NOT_APPLIED,
                      "a write to all of three is refused");
        script_expect(world, script_set(world, at, key, 2).outcome == HISTORY_DONE, "one to two is done");
        script_expect(world, script_get(world, at, key, 2).outcome == HISTORY_DONE, "and read");
        script_expect(world, world->now_us - begun_us < 30000, "none of this waits for the stopped process");
    }
    world->nodes[2].paused_until_us = world->now_us;
    for (uint16_t shard = 0; shard < world->nodes[2].shards; shard++)
        shard_plan_turn(world, &world->nodes[2], shard, world->now_us);
    run_until_everywhere(world, 2, SWIM_ALIVE, 2000000);
    script_expect(world, everywhere(world, 2, SWIM_ALIVE), "it is alive as soon as it goes on");
    world_run_for(world, 3000000);
    script_expect(world, script_set(world, 0, 0, 3).outcome == HISTORY_DONE, "and takes writes again");
}

void scenario_gossip_one_way_partition(struct world *world)
{
    world->oracles.nobody_dies = true;
    script_start(world);
    network_block(world, 0, 1, UINT64_MAX / 2);
    world_run_for(world, UINT64_C(120000000));
    for (uint16_t node = 0; node < world->node_count && !world->failed; node++)
        script_expect(world, gossip_of(world, node)->counters.deaths == 0, "a third node speaks for it");
    network_block(world, 0, 1, 0);
    world_run_for(world, 3000000);
    for (uint16_t node = 0; node < world->node_count && !world->failed; node++)
        script_expect(world, everywhere(world, node, SWIM_ALIVE), "all hold each other alive");
}

/* A datagram of n3 to n1. */
static void tell_n1(struct world *world, const struct rumour *rumour)
{
    struct message message = {.type = MESSAGE_GOSSIP, .from = world->nodes[2].id};
    struct buf made;
    buf_init(&made, &world->alloc);
    message_begin(&made, world->ring->cluster_id, &message);
    message_add_rumour(&made, rumour);
    message_seal(&made, 0, world->ring->cluster_id);
    (void)shard_post(world, &world->nodes[0], 0, EVENT_DATAGRAM, buf_span(&made));
    buf_free(&made);
    script_settle(world);
}

void scenario_gossip_old_incarnation(struct world *world)
{
    script_start(world);
    uint64_t old = known(world, 0, 1)->incarnation;
    node_crash(world, &world->nodes[1], false);
    world_run_for(world, 100000);
    node_start(world, &world->nodes[1]);
    world_run_for(world, 3000000);
    uint64_t incarnation = known(world, 0, 1)->incarnation;
    script_expect(world, old > 0 && incarnation > old, "the later run has a greater incarnation");
    struct rumour rumour = {.node = world->nodes[1].id, .accuser = world->nodes[2].id};
    for (uint64_t i = 0; i < 2 && !world->failed; i++) {
        rumour.incarnation = i == 0 ? old : incarnation - 1;
        rumour.state = SWIM_DEAD;
        tell_n1(world, &rumour);
        rumour.state = SWIM_SUSPECT;
        tell_n1(world, &rumour);
        script_expect(world, known(world, 0, 1)->state == SWIM_ALIVE, "it is still alive");
        script_expect(world, known(world, 0, 1)->incarnation == incarnation, "and need not refute");
        script_expect(world, gossip_of(world, 1)->counters.refutations == 0, "what nobody believes");
    }
    /* Not even a greater state of its own earlier run can shorten its life, and the present one must be refuted. */
    rumour.incarnation = incarnation;
    rumour.state = SWIM_DEAD;
    tell_n1(world, &rumour);
    world_run_for(world, 2000000);
    script_expect(world, known(world, 0, 1)->state == SWIM_ALIVE, "it refutes the present one");
    script_expect(world, known(world, 0, 1)->incarnation > incarnation, "with a greater incarnation");
}
