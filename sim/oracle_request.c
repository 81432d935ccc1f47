/* Requests and bounds (invariant 9): every request ends by its deadline with exactly one reply, in order; memory
 * stays within its budget; nothing is left in flight once the clients are quiet.
 *
 * What a process cannot help does not count: the time it was paused, and its turns that came late. A reply waits for
 * those before it on the same connection, so the time also counts from the last reply. */
#include <inttypes.h>

#include "sim/world.h"

/* A few turns, timers' grain, and the way to the client and back. */
#define SLACK_US 250000

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void oracle_request_time(struct world *world, const struct sim_client *client)
{
    if (!client->connected || client->commands_count == 0)
        return;
    const struct sim_command *command = &client->commands[client->commands_head];
    const struct sim_node *node = &world->nodes[client->node];
    uint64_t since_us = later(later(command->sent_us, client->last_reply_us), node->stalled_until_us);
    uint64_t slack_us = SLACK_US + 8 * world->swarm.turn_delay_us;
    if (world->now_us <= since_us + (uint64_t)command->timeout_ms * 1000 + slack_us)
        return;
    uint32_t key = HISTORY_KEY_NONE;
    if (command->operations > 0)
        key = world->history.ops[command->operation_first].key;
    world_fail(world, key, "requests: n%u.%u has not answered client %u for %" PRIu64 " ms, timeout %u ms",
               client->node + 1u, client->shard, client->index, (world->now_us - since_us) / 1000,
               command->timeout_ms);
}

void oracle_turn(struct world *world, const struct sim_node *node, uint16_t shard)
{
    const struct alloc *alloc = shard_alloc(node->shard[shard].shard);
    if (alloc->peak_bytes > alloc->budget_bytes || alloc->budget_bytes > world->swarm.memory_bytes)
        world_fail(world, HISTORY_KEY_NONE, "bounds: %s.%u used %zu bytes of its %" PRIu64, node->name, shard,
                   alloc->peak_bytes, world->swarm.memory_bytes);
}

void oracle_quiet(struct world *world)
{
    for (uint16_t i = 0; i < world->node_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        for (uint16_t shard = 0; shard < node->shards && node->running; shard++) {
            uint32_t left = shard_requests_in_flight(node->shard[shard].shard);
            if (left > 0)
                world_fail(world, HISTORY_KEY_NONE, "requests: %s.%u still has %u requests in flight",
                           node->name, shard, left);
        }
    }
}
