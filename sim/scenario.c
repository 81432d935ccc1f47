/* The scripts' vocabulary, and how a scenario runs. */
#include "sim/scenario.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define COMMAND_US_MAX 3000000
#define START_US 1500000

const struct scenario *scenario_find(const char *name)
{
    for (uint32_t i = 0; i < scenario_count; i++) {
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
    }
    return NULL;
}

void scenario_run(struct world *world, const struct scenario *scenario)
{
    world_say(world, HISTORY_KEY_NONE, "scenario %s: %s", scenario->name, scenario->text);
    scenario->run(world);
    if (!world->failed)
        oracle_merge_laws(world);
    oracle_register_check(world);
    world->totals.simulated_us = world->now_us;
    for (uint16_t i = 0; i < world->node_count; i++)
        totals_add_shards(world, &world->nodes[i]);
}

void script_start(struct world *world)
{
    for (uint16_t i = 0; i < world->node_count; i++) {
        if (!world->nodes[i].running)
            node_start(world, &world->nodes[i]);
    }
    world_run_for(world, START_US);
}

void script_settle(struct world *world)
{
    world_run_for(world, 300000);
}

void script_expect(struct world *world, bool condition, const char *text)
{
    if (!condition)
        world_fail(world, HISTORY_KEY_NONE, "scenario: expected that %s", text);
}

/* ---- commands ------------------------------------------------------------------------------------------- */

/* The shard of a node does not matter: any shard coordinates any key. The last one makes it go the longest way. */
static struct sim_client *open_at(struct world *world, uint16_t node)
{
    return client_open(world, node, (uint16_t)(world->nodes[node].shards - 1));
}

static void wait_for(struct world *world, struct sim_client *client)
{
    uint64_t until_us = world->now_us + COMMAND_US_MAX;
    while (client->connected && client->commands_count > 0 && world->now_us < until_us && !world->failed)
        world_run_for(world, 100);
}

static struct script_result run_plan(struct world *world, uint16_t node, const struct operation_plan *plan,
                                     uint8_t r, uint8_t w)
{
    struct script_result result = {.outcome = HISTORY_OPEN};
    if (world->failed || !world->nodes[node].running)
        return result;
    struct sim_client *client = open_at(world, node);
    client_issue_consistency(world, client, r, w, world->swarm.request_timeout_ms);
    uint32_t index = world->history.count;
    client_issue(world, client, plan);
    client_send(world, client);
    wait_for(world, client);
    if (client->connected && !world->failed)
        client_close(world, client);
    const struct history_op *op = &world->history.ops[index];
    result = (struct script_result){.outcome = op->outcome, .value = op->value, .found = op->found};
    return result;
}

struct script_result script_set_ttl(struct world *world, uint16_t node, uint32_t key, uint8_t w,
                                    uint64_t ttl_ms)
{
    struct operation_plan plan = {.kind = HISTORY_SET,
                                  .keys = {key},
                                  .key_count = 1,
                                  .ttl_ms = ttl_ms,
                                  .value_bytes = world->swarm.value_bytes_max};
    return run_plan(world, node, &plan, 1, w);
}

struct script_result script_set(struct world *world, uint16_t node, uint32_t key, uint8_t w)
{
    return script_set_ttl(world, node, key, w, 0);
}

struct script_result script_get(struct world *world, uint16_t node, uint32_t key, uint8_t r)
{
    struct operation_plan plan = {.kind = HISTORY_GET, .keys = {key}, .key_count = 1};
    return run_plan(world, node, &plan, r, 1);
}

struct script_result script_expire_of(struct world *world, uint16_t node, uint32_t key, uint64_t seconds,
                                      uint8_t replicas)
{
    struct operation_plan plan = {
        .kind = HISTORY_EXPIRE, .keys = {key}, .key_count = 1, .ttl_ms = 1000 * seconds};
    return run_plan(world, node, &plan, replicas, replicas);
}

struct script_result script_expire(struct world *world, uint16_t node, uint32_t key, uint64_t seconds)
{
    return script_expire_of(world, node, key, seconds, (uint8_t)(world->ring->replicas / 2 + 1));
}

struct script_result script_delete(struct world *world, uint16_t node, uint32_t key, uint8_t w)
{
    struct operation_plan plan = {.kind = HISTORY_DEL, .keys = {key}, .key_count = 1};
    return run_plan(world, node, &plan, 1, w);
}

uint32_t script_set_begin(struct world *world, uint16_t node, uint32_t key, uint8_t w, uint32_t timeout_ms)
{
    struct operation_plan plan = {.kind = HISTORY_SET, .keys = {key}, .key_count = 1, .value_bytes = 16};
    struct sim_client *client = open_at(world, node);
    client_issue_consistency(world, client, 1, w, timeout_ms);
    uint32_t index = world->history.count;
    client_issue(world, client, &plan);
    client_send(world, client);
    return index;
}

uint32_t script_set_get_begin(struct world *world, uint16_t node, uint32_t set_key, uint32_t get_key)
{
    struct operation_plan set = {.kind = HISTORY_SET, .keys = {set_key}, .key_count = 1, .value_bytes = 16};
    struct operation_plan get = {.kind = HISTORY_GET, .keys = {get_key}, .key_count = 1};
    struct sim_client *client = open_at(world, node);
    client_issue_consistency(world, client, 1, 1, 2000);
    uint32_t index = world->history.count;
    client_issue(world, client, &set);
    client_issue(world, client, &get);
    client_send(world, client);
    return index;
}

const char *script_command(struct world *world, uint16_t node, const char *inline_command)
{
    struct sim_client *client = open_at(world, node);
    buf_append_text(&client->sending, inline_command);
    buf_append_text(&client->sending, "\r\n");
    client_send(world, client);
    /* No operation and no reply that could be judged: the bytes are taken as they come. */
    client->raw = true;
    world_run_for(world, 100000);
    buf_clear(&client->last_reply);
    buf_append_span(&client->last_reply, buf_span(&client->from_server));
    buf_put_u8(&client->last_reply, 0);
    client->raw = false;
    buf_clear(&client->from_server);
    if (client->connected)
        client_close(world, client);
    return (const char *)client->last_reply.data;
}

/* ---- places --------------------------------------------------------------------------------------------- */

void script_part(struct world *world, uint16_t a, uint16_t b, bool parted)
{
    uint64_t until_us = parted ? UINT64_MAX / 2 : 0;
    network_block(world, a, b, until_us);
    network_block(world, b, a, until_us);
    world_say(world, HISTORY_KEY_NONE, "%s and %s are %s", world->nodes[a].name, world->nodes[b].name,
              parted ? "parted" : "together again");
}

uint16_t script_replica(struct world *world, uint32_t key, uint8_t place)
{
    struct buf name;
    buf_init(&name, &world->alloc);
    history_key_name(key, &name);
    uint16_t slot = key_slot(buf_span(&name));
    buf_free(&name);
    assert(place < world->ring->replicas);
    uint16_t index = ring_replicas(world->ring, slot)[place];
    return world_node_index(world, world->ring->nodes[index].id);
}
