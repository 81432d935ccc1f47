/* What goes wrong, and when: each kind of fault comes by itself, at random times around its mean. */
#include <inttypes.h>

#include "sim/world.h"

/* Rarely enough that nodes start again, and are greeted, before the copy is another. */
#define COPY_EVERY_US 1500000u

static uint64_t some_time(struct world *world, uint64_t mean_us)
{
    return world_draw(world, mean_us / 4, mean_us * 2);
}

static struct sim_node *some_node(struct world *world)
{
    return &world->nodes[world_draw(world, 0, world->node_count - 1u)];
}

static void again(struct world *world, uint64_t mean_us, void (*fire)(struct world *, struct happening *))
{
    if (mean_us > 0)
        (void)world_plan(world, world->now_us + some_time(world, mean_us), fire);
}

/* ---- processes ------------------------------------------------------------------------------------------ */

static void start_due(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (!node->running && !node->dead_for_good)
        node_start(world, node);
}

/* Also after a process ended by itself: somebody starts it again. */
static void revive(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on)
        return;
    for (uint16_t i = 0; i < world->node_count; i++) {
        if (!world->nodes[i].running && world_chance(world, 300000))
            node_start(world, &world->nodes[i]);
    }
    (void)world_plan(world, world->now_us + 200000, revive);
}

/* One disk at most is lost in a run, and only where a quorum of the others remains (invariant 1 allows no more). */
static bool may_wipe(struct world *world)
{
    return world->swarm.wipe && world->wiped_count == 0 && world->now_us > 1000000 &&
           world_chance(world, 400000);
}

/* The same for an older disk; only a node that somebody can tell it from a newer one. */
static bool may_put_back(struct world *world, const struct sim_node *node)
{
    return world->swarm.older_disk && world->wiped_count == 0 && world_chance(world, 700000) &&
           node_copy_is_known_old(world, node);
}

static void copy_due(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on || world->wiped_count > 0)
        return;
    again(world, COPY_EVERY_US, copy_due);
    node_copy_disk(world, some_node(world));
}

static void crash_due(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on)
        return;
    again(world, world->swarm.crash_every_us, crash_due);
    struct sim_node *node = some_node(world);
    if (!node->running)
        return;
    if (world_chance(world, world->swarm.clean))
        node_stop(world, node);
    else
        node_crash(world, node, world_chance(world, world->swarm.power));
    if (may_wipe(world))
        node_wipe(world, node);
    if (may_put_back(world, node))
        node_put_back(world, node);
    struct happening *start =
        world_plan(world, world->now_us + some_time(world, world->swarm.down_us), start_due);
    start->object = node;
}

static void pause_due(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on)
        return;
    again(world, world->swarm.pause_every_us, pause_due);
    struct sim_node *node = some_node(world);
    if (node->running && node->paused_until_us <= world->now_us)
        node_pause(world, node, some_time(world, world->swarm.pause_us));
}

/* ---- network -------------------------------------------------------------------------------------------- */

static void partition_due(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on)
        return;
    again(world, world->swarm.partition_every_us, partition_due);
    if (world->node_count < 2)
        return;
    uint32_t side = (uint32_t)world_draw(world, 1, (1u << world->node_count) - 2);
    bool one_way = world->swarm.partition_one_way && world_chance(world, 500000);
    bool breaks = world_chance(world, 300000);
    uint64_t until_us = world->now_us + some_time(world, world->swarm.partition_us);
    world->totals.partitions++;
    world_say(world, HISTORY_KEY_NONE, "PARTITION of nodes %#x from the rest%s for %" PRIu64 " ms", side,
              one_way ? ", one way" : "", (until_us - world->now_us) / 1000);
    for (uint16_t a = 0; a < world->node_count; a++) {
        for (uint16_t b = 0; b < world->node_count; b++) {
            bool out = (side >> a & 1) != 0 && (side >> b & 1) == 0;
            bool in = (side >> a & 1) == 0 && (side >> b & 1) != 0;
            if (out || (in && !one_way))
                network_block(world, a, b, until_us);
            if (out && breaks)
                network_break(world, a, b);
        }
    }
}

static void break_due(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on)
        return;
    again(world, world->swarm.break_every_us, break_due);
    struct sim_node *a = some_node(world);
    struct sim_node *b = some_node(world);
    if (a == b)
        return;
    world_say(world, HISTORY_KEY_NONE, "connections between %s and %s break", a->name, b->name);
    network_break(world, a->index, b->index);
}

/* ---- clocks and disks ----------------------------------------------------------------------------------- */

static void clock_step_due(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on)
        return;
    again(world, world->swarm.clock_step_every_us, clock_step_due);
    struct sim_node *node = some_node(world);
    uint64_t bound = world->swarm.clock_step_us;
    /* Steps both ways; often back to right. */
    int64_t offset = (int64_t)world_draw(world, 0, 2 * bound) - (int64_t)bound;
    if (world_chance(world, 400000))
        offset = 0;
    node_clock_set(world, node, offset, node->clock_drift_ppm);
    world->totals.clock_steps++;
    world_say(world, HISTORY_KEY_NONE, "%s: clock stepped to %+" PRId64 " ms", node->name, offset / 1000);
}

static void slow_due(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on)
        return;
    again(world, world->swarm.slow_every_us, slow_due);
    struct sim_node *node = some_node(world);
    node->slow_until_us = world->now_us + some_time(world, world->swarm.slow_us);
    world_say(world, HISTORY_KEY_NONE, "%s: disk is slow until %" PRIu64 " ms", node->name,
              node->slow_until_us / 1000);
}

static void room_due(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (node->full)
        world_say(world, HISTORY_KEY_NONE, "%s: disk has room", node->name);
    node->full = false;
}

static void full_due(struct world *world, struct happening *happening)
{
    (void)happening;
    if (!world->faults_on)
        return;
    again(world, world->swarm.full_every_us, full_due);
    struct sim_node *node = some_node(world);
    node->full = true;
    world_say(world, HISTORY_KEY_NONE, "%s: disk is FULL", node->name);
    world_plan(world, world->now_us + some_time(world, world->swarm.full_us), room_due)->object = node;
}

void faults_start(struct world *world)
{
    again(world, world->swarm.crash_every_us, crash_due);
    again(world, world->swarm.pause_every_us, pause_due);
    again(world, world->swarm.partition_every_us, partition_due);
    again(world, world->swarm.break_every_us, break_due);
    again(world, world->swarm.clock_step_every_us, clock_step_due);
    again(world, world->swarm.slow_every_us, slow_due);
    again(world, world->swarm.full_every_us, full_due);
    again(world, world->swarm.older_disk ? COPY_EVERY_US : 0, copy_due);
    (void)world_plan(world, 200000, revive);
}
