/* Who is reachable, as gossip says.
 *
 * What a process knows of a node only grows, in the order (incarnation, state): news may be old, doubled or out of
 * order. Where nothing goes wrong nobody is declared dead. Once everything is healed all running nodes hold each other
 * alive within a bound that follows from the constants of gossip/swim.h. */
#include <inttypes.h>

#include "sim/world.h"

bool oracle_nobody_dies(const struct swarm *swarm)
{
    return swarm->crash_every_us == 0 && swarm->pause_every_us == 0 && swarm->partition_every_us == 0 &&
           swarm->sync_fails == 0 && swarm->loss == 0;
}

static bool went_back(const struct oracle_liveness *before, const struct swim_member *now)
{
    if (now->incarnation != before->incarnation)
        return now->incarnation < before->incarnation;
    return now->state < before->state;
}

void oracle_liveness_turn(struct world *world, const struct sim_node *node)
{
    const struct swim *swim = shard_gossip(node->shard[0].shard);
    for (uint16_t i = 0; i < world->node_count; i++) {
        const struct swim_member *member = swim_member_of(swim, world->nodes[i].id);
        struct oracle_liveness *before = &world->oracles.liveness[node->index][i];
        if (went_back(before, member))
            world_fail(world, HISTORY_KEY_NONE,
                       "gossip went back: %s held %s %s at incarnation %" PRIu64 ", and now %s at %" PRIu64,
                       node->name, world->nodes[i].name, swim_state_name(before->state), before->incarnation,
                       swim_state_name(member->state), member->incarnation);
        *before = (struct oracle_liveness){.incarnation = member->incarnation, .state = member->state};
        if (member->state == SWIM_DEAD && world->oracles.nobody_dies)
            world_fail(world, HISTORY_KEY_NONE, "gossip: %s holds %s dead, and nothing was wrong with it",
                       node->name, world->nodes[i].name);
    }
}

void oracle_liveness_gone(struct world *world, const struct sim_node *node)
{
    for (uint16_t i = 0; i < world->node_count; i++)
        world->oracles.liveness[node->index][i] = (struct oracle_liveness){0};
}

/* Whoever is held dead pings the one that holds it so within two shuffled rounds of probes, and is told; a probe that
 * is under way may take as long as a sick node's; then the refutation travels for an interval. */
uint64_t oracle_liveness_bound_us(const struct world *world)
{
    struct swim_tuning tuning = swim_tuning_default();
    uint64_t intervals = 2 * (world->node_count - 1u) + tuning.health_max + 2u;
    return intervals * tuning.probe_interval_ms * 1000;
}

bool oracle_all_alive(const struct world *world)
{
    for (uint16_t a = 0; a < world->node_count; a++) {
        for (uint16_t b = 0; b < world->node_count && world->nodes[a].running; b++) {
            const struct swim *swim = shard_gossip(world->nodes[a].shard[0].shard);
            if (world->nodes[b].running && swim_member_of(swim, world->nodes[b].id)->state != SWIM_ALIVE)
                return false;
        }
    }
    return true;
}
