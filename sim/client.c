/* Clients: connections that come and go, commands in pipelines, and what is remembered of each for the oracles.
 *
 * An operation is asked when its bytes leave here and answered when its reply is here again; what was asked on a
 * connection that ended stays open for ever. */
#include "sim/world.h"

#include <assert.h>
#include <inttypes.h>

#define LOOK_US 50000
#define RECONNECT_US 20000

/* The nodes have mostly found each other by then. */
#define START_US 150000

static void look_due(struct world *world, struct happening *happening);

struct sim_client *client_by_number(struct world *world, uint64_t number)
{
    for (uint16_t i = 0; i < world->client_count; i++) {
        if (world->clients[i].connected && world->clients[i].number == number)
            return &world->clients[i];
    }
    return NULL;
}

void client_plan(struct world *world, struct sim_client *client, uint64_t at_us)
{
    struct happening *happening = world_plan(world, at_us, look_due);
    happening->object = client;
    happening->number = ++client->serial;
}

static void forget_connection(struct sim_client *client)
{
    client->connected = false;
    client->paused = false;
    client->shown = 0;
    client->consistency_sent = false;
    client->sloppy = false;
    client->commands_count = 0;
    buf_clear(&client->sending);
    buf_clear(&client->to_server);
    buf_clear(&client->from_server);
}

static void connect_to(struct world *world, struct sim_client *client, uint16_t node, uint16_t shard)
{
    assert(!client->connected && world->nodes[node].running && shard < world->nodes[node].shards);
    client->connected = true;
    client->number = ++world->client_serial;
    client->node = node;
    client->shard = shard;
    client->life = world->nodes[node].life;
    client->last_reply_us = world->now_us;
    client->order_us = world->now_us;
    struct event *event = shard_post(world, &world->nodes[node], shard, EVENT_CLIENT_OPEN, (struct span){0});
    event->client = client->number;
    event->protocol = client->protocol;
}

void client_close(struct world *world, struct sim_client *client)
{
    assert(client->connected);
    shard_post(world, &world->nodes[client->node], client->shard, EVENT_CLIENT_CLOSED, (struct span){0})
        ->client = client->number;
    forget_connection(client);
}

void clients_node_gone(struct world *world, struct sim_node *node)
{
    for (uint16_t i = 0; i < world->client_count; i++) {
        struct sim_client *client = &world->clients[i];
        if (!client->connected || client->node != node->index)
            continue;
        forget_connection(client);
        if (!client->scripted)
            client_plan(world, client, world->now_us + world_draw(world, 1000, RECONNECT_US));
    }
}

/* ---- bytes ---------------------------------------------------------------------------------------------- */

static void bytes_at_server(struct world *world, struct happening *happening)
{
    struct sim_client *client = client_by_number(world, happening->number);
    if (client == NULL)
        return;
    buf_append_span(&client->to_server, buf_span(&happening->bytes));
    if (!client->paused)
        shard_post(world, &world->nodes[client->node], client->shard, EVENT_CLIENT_DATA, (struct span){0})
            ->client = client->number;
}

void client_send(struct world *world, struct sim_client *client)
{
    if (client->sending.size == 0)
        return;
    /* In order: a constant way there. */
    struct happening *happening = world_plan(world, world->now_us + 50, bytes_at_server);
    happening->number = client->number;
    buf_append_span(&happening->bytes, buf_span(&client->sending));
    buf_clear(&client->sending);
}

void client_resumed(struct world *world, uint64_t number)
{
    struct sim_client *client = client_by_number(world, number);
    if (client == NULL)
        return;
    client->paused = false;
    shard_post(world, &world->nodes[client->node], client->shard, EVENT_CLIENT_DATA, (struct span){0})
        ->client = number;
}

static void bytes_at_client(struct world *world, struct happening *happening)
{
    struct sim_client *client = client_by_number(world, happening->number);
    if (client == NULL)
        return;
    buf_append_span(&client->from_server, buf_span(&happening->bytes));
    client_take_replies(world, client);
    if (happening->number2 != 0 && client->connected) {
        if (client->commands_count > 0)
            world_fail(world, HISTORY_KEY_NONE,
                       "requests: a connection was closed with %u commands unanswered",
                       client->commands_count);
        forget_connection(client);
    }
    if (!client->scripted && client->connected)
        client_plan(world, client, world->now_us + world_draw(world, 0, world->swarm.think_us_max));
}

void client_from_server(struct world *world, const struct effect *effect)
{
    struct sim_client *client = client_by_number(world, effect->client);
    if (client == NULL)
        return;
    uint64_t at_us = world->now_us + world_draw(world, 20, 100);
    client->order_us = at_us > client->order_us ? at_us : client->order_us;
    struct happening *happening = world_plan(world, client->order_us, bytes_at_client);
    happening->number = effect->client;
    happening->number2 = effect->flag;
    buf_append_span(&happening->bytes, effect->bytes);
}

/* ---- commands ------------------------------------------------------------------------------------------- */

static void put_argument(struct buf *out, struct span argument)
{
    buf_append_format(out, "$%zu\r\n", argument.size);
    buf_append_span(out, argument);
    buf_append_text(out, "\r\n");
}

static void put_text(struct buf *out, const char *text)
{
    put_argument(out, span_of_text(text));
}

static void put_number(struct buf *out, uint64_t number)
{
    struct buf text;
    buf_init(&text, out->alloc);
    buf_append_u64(&text, number);
    put_argument(out, buf_span(&text));
    buf_free(&text);
}

static void put_key(struct buf *out, uint32_t key)
{
    struct buf name;
    buf_init(&name, out->alloc);
    history_key_name(key, &name);
    put_argument(out, buf_span(&name));
    buf_free(&name);
}

static void put_value(struct buf *out, uint32_t value, uint32_t bytes)
{
    struct buf text;
    buf_init(&text, out->alloc);
    history_value_put(value, bytes, &text);
    put_argument(out, buf_span(&text));
    buf_free(&text);
}

static void note_command(struct world *world, struct sim_client *client, uint32_t first, uint32_t operations)
{
    assert(client->commands_count < SIM_PIPELINE_MAX);
    uint32_t at = (client->commands_head + client->commands_count++) % SIM_PIPELINE_MAX;
    client->commands[at] = (struct sim_command){
        .operation_first = first,
        .operations = operations,
        .sent_us = world->now_us,
        .timeout_ms = client->timeout_ms != 0 ? client->timeout_ms : world->swarm.request_timeout_ms,
    };
    world->totals.requests += operations > 0;
}

void client_issue_consistency(struct world *world, struct sim_client *client, uint8_t r, uint8_t w,
                              uint32_t timeout_ms)
{
    assert(client->protocol == CLIENT_RESP);
    client->r = r;
    client->w = w;
    client->timeout_ms = timeout_ms;
    client->consistency_sent = true;
    struct buf *out = &client->sending;
    buf_append_text(out, client->sloppy ? "*9\r\n" : "*7\r\n");
    put_text(out, "RONDO.CONSISTENCY");
    if (client->sloppy) {
        put_text(out, "SLOPPY");
        put_text(out, "yes");
    }
    put_text(out, "R");
    put_number(out, r);
    put_text(out, "W");
    put_number(out, w);
    put_text(out, "TIMEOUT");
    put_number(out, timeout_ms);
    note_command(world, client, 0, 0);
}

static uint32_t remember(struct world *world, const struct sim_client *client,
                         const struct operation_plan *plan, uint32_t key)
{
    uint8_t quorum = (uint8_t)(world->ring->replicas / 2 + 1);
    struct history_op op = {
        .key = key,
        .kind = plan->kind,
        .value = plan->kind == HISTORY_SET ? world->history.value_next++ : VALUE_ABSENT,
        .r = client->consistency_sent ? client->r : quorum,
        .w = client->consistency_sent ? client->w : quorum,
        .client = client->index,
        .node = client->node,
        .sloppy = client->sloppy,
        .ttl_ms = plan->ttl_ms,
        .asked_us = world->now_us,
        .answered_us = HISTORY_NEVER,
        .wiped_at_ask = world->wiped_count,
    };
    if (plan->kind == HISTORY_GET)
        op.value = VALUE_UNREAD;
    uint32_t index = history_add(&world->history, &op);
    if (world_traces(world, key)) {
        world_say(world, key, "client %u -> n%u.%u  #%u %s key %u value %u  R=%u W=%u%s%" PRIu64,
                  client->index, client->node + 1u, client->shard, index, history_kind_name(op.kind), key,
                  op.value == VALUE_UNREAD ? 0 : op.value, op.r, op.w, op.ttl_ms ? " ttl ms " : " ",
                  op.ttl_ms);
    }
    return index;
}

static void issue_resp(struct world *world, struct sim_client *client, const struct operation_plan *plan,
                       uint32_t first)
{
    struct buf *out = &client->sending;
    const struct history_op *ops = world->history.ops + first;
    bool set = plan->kind == HISTORY_SET;
    if (plan->key_count > 1) {
        buf_append_format(out, "*%u\r\n", 1 + plan->key_count * (set ? 2u : 1u));
        put_text(out, set ? "MSET" : "MGET");
        for (uint32_t i = 0; i < plan->key_count; i++) {
            put_key(out, plan->keys[i]);
            if (set)
                put_value(out, ops[i].value, plan->value_bytes);
        }
        return;
    }
    uint32_t extra = set ? (plan->ttl_ms != 0 ? 3u : 1u) : plan->kind == HISTORY_EXPIRE ? 1u : 0u;
    buf_append_format(out, "*%u\r\n", 2 + extra);
    put_text(out, history_kind_name(plan->kind));
    put_key(out, plan->keys[0]);
    if (set)
        put_value(out, ops[0].value, plan->value_bytes);
    if (set && plan->ttl_ms != 0)
        put_text(out, "PX");
    if (plan->ttl_ms != 0)
        put_number(out, set ? plan->ttl_ms : plan->ttl_ms / 1000);
}

static void put_encoded(struct buf *out, uint32_t key)
{
    struct buf name;
    buf_init(&name, out->alloc);
    history_key_name(key, &name);
    for (size_t i = 0; i < name.size; i++)
        buf_append_format(out, "%%%02X", name.data[i]);
    buf_free(&name);
}

static void issue_http(struct world *world, struct sim_client *client, const struct operation_plan *plan,
                       uint32_t first)
{
    struct buf *out = &client->sending;
    const char *start = plan->kind == HISTORY_GET   ? "GET /get"
                        : plan->kind == HISTORY_SET ? "PUT /put"
                                                    : "DELETE /delete";
    buf_append_format(out, "%s?key=", start);
    put_encoded(out, plan->keys[0]);
    buf_append_text(out, " HTTP/1.1\r\nHost: sim\r\n");
    struct buf body;
    buf_init(&body, out->alloc);
    if (plan->kind == HISTORY_SET) {
        history_value_put(world->history.ops[first].value, plan->value_bytes, &body);
        buf_append_format(out, "Content-Length: %zu\r\n", body.size);
    }
    buf_append_text(out, "\r\n");
    buf_append_span(out, buf_span(&body));
    buf_free(&body);
}

void client_issue(struct world *world, struct sim_client *client, const struct operation_plan *plan)
{
    assert(plan->key_count >= 1 && plan->key_count <= 4);
    uint32_t first = world->history.count;
    for (uint32_t i = 0; i < plan->key_count; i++)
        (void)remember(world, client, plan, plan->keys[i]);
    note_command(world, client, first, plan->key_count);
    if (client->protocol == CLIENT_HTTP)
        issue_http(world, client, plan, first);
    else
        issue_resp(world, client, plan, first);
}

/* ---- what a random client does next --------------------------------------------------------------------- */

/* Mostly a quorum. */
static uint8_t draw_count(struct world *world, uint8_t least)
{
    uint8_t n = world->ring->replicas;
    if (world_chance(world, 600000))
        return (uint8_t)(n / 2 + 1);
    return (uint8_t)world_draw(world, least, n);
}

static void draw_consistency(struct world *world, struct sim_client *client)
{
    uint8_t n = world->ring->replicas;
    uint8_t least = world->swarm.weak && world_chance(world, 400000) ? 1 : (uint8_t)(n / 2 + 1);
    uint8_t r = draw_count(world, least);
    uint8_t w = draw_count(world, least);
    uint32_t timeout_ms = (uint32_t)world_draw(world, world->swarm.request_timeout_ms / 2,
                                               world->swarm.request_timeout_ms * 3 / 2);
    if (world->swarm.sloppy && !client->sloppy)
        client->sloppy = world_chance(world, 400000);
    client_issue_consistency(world, client, r, w, timeout_ms);
}

static bool key_has_ttl(const struct world *world, uint32_t key)
{
    return world->swarm.ttl && key % 2 == 1;
}

static void draw_operation(struct world *world, const struct sim_client *client, struct operation_plan *plan)
{
    uint32_t key = (uint32_t)world_draw(world, 0, world->swarm.keys - 1u);
    *plan = (struct operation_plan){.kind = HISTORY_SET, .keys = {key}, .key_count = 1};
    plan->value_bytes = (uint32_t)world_draw(world, 8, world->swarm.value_bytes_max);
    bool resp = client->protocol == CLIENT_RESP;
    if (world_chance(world, world->swarm.reads))
        plan->kind = HISTORY_GET;
    else if (world_chance(world, world->swarm.deletes))
        plan->kind = HISTORY_DEL;
    else if (resp && key_has_ttl(world, key) && world_chance(world, 300000)) {
        plan->kind = world_chance(world, 700000) ? HISTORY_EXPIRE : HISTORY_PERSIST;
        if (plan->kind == HISTORY_EXPIRE)
            plan->ttl_ms = world_draw(world, 1, 3) * 1000;
        return;
    } else if (resp && key_has_ttl(world, key) && world_chance(world, 400000)) {
        plan->ttl_ms = world_draw(world, 20, 2000);
        return;
    }
    if (!resp || plan->kind == HISTORY_DEL || !world_chance(world, 100000))
        return;
    /* Several keys, each once: an MSET that named a key twice would write two values for it in no order. */
    uint32_t most = world->swarm.keys < 4 ? world->swarm.keys : 4;
    plan->key_count = (uint32_t)world_draw(world, 1, most);
    for (uint32_t i = 1; i < plan->key_count; i++)
        plan->keys[i] = (key + i) % world->swarm.keys;
}

static void issue_some(struct world *world, struct sim_client *client)
{
    if (client->protocol == CLIENT_RESP && (!client->consistency_sent || world_chance(world, 50000)))
        draw_consistency(world, client);
    while (client->budget > 0 && client->commands_count < client->depth) {
        struct operation_plan plan;
        draw_operation(world, client, &plan);
        client_issue(world, client, &plan);
        client->budget--;
    }
    client_send(world, client);
}

static void try_connect(struct world *world, struct sim_client *client)
{
    uint16_t node = (uint16_t)world_draw(world, 0, world->node_count - 1u);
    if (world->nodes[node].running)
        connect_to(world, client, node, (uint16_t)world_draw(world, 0, world->nodes[node].shards - 1u));
}

static void look_due(struct world *world, struct happening *happening)
{
    struct sim_client *client = happening->object;
    if (happening->number != client->serial)
        return;
    oracle_request_time(world, client);
    if (!client->scripted && world->faults_on) {
        if (client->connected && client->commands_count > 0 &&
            world_chance(world, world->swarm.client_leaves))
            client_close(world, client);
        if (!client->connected && client->budget > 0)
            try_connect(world, client);
        /* One command is always free for a change of consistency. */
        if (client->connected && client->commands_count < client->depth)
            issue_some(world, client);
    }
    if (client->connected || client->budget > 0)
        client_plan(world, client, world->now_us + LOOK_US);
}

/* ---- beginnings and ends -------------------------------------------------------------------------------- */

static struct sim_client *client_new(struct world *world, enum client_protocol protocol)
{
    struct sim_client *client = NULL;
    for (uint16_t i = 0; i < world->client_count && client == NULL; i++) {
        if (world->clients[i].scripted && !world->clients[i].connected)
            client = &world->clients[i];
    }
    if (client == NULL) {
        assert(world->client_count < SIM_CLIENTS_MAX);
        client = &world->clients[world->client_count];
        client->index = world->client_count++;
        buf_init(&client->sending, &world->alloc);
        buf_init(&client->to_server, &world->alloc);
        buf_init(&client->from_server, &world->alloc);
        buf_init(&client->last_reply, &world->alloc);
    }
    client->protocol = protocol;
    client->checked = false;
    return client;
}

void clients_start(struct world *world)
{
    for (uint16_t i = 0; i < world->swarm.clients; i++) {
        bool http = i < world->swarm.http_clients;
        struct sim_client *client = client_new(world, http ? CLIENT_HTTP : CLIENT_RESP);
        client->depth = (uint8_t)world_draw(world, 1, world->swarm.pipeline_max);
        client->budget = world->swarm.operations / world->swarm.clients;
        client_plan(world, client, START_US + world_draw(world, 0, 50000));
    }
}

struct sim_client *client_open(struct world *world, uint16_t node, uint16_t shard)
{
    struct sim_client *client = client_new(world, CLIENT_RESP);
    client->scripted = true;
    client->depth = SIM_PIPELINE_MAX;
    connect_to(world, client, node, shard);
    client_plan(world, client, world->now_us + LOOK_US);
    return client;
}

bool clients_idle(const struct world *world)
{
    for (uint16_t i = 0; i < world->client_count; i++) {
        const struct sim_client *client = &world->clients[i];
        if (!client->scripted && (client->budget > 0 || client->commands_count > 0))
            return false;
    }
    return true;
}

void clients_end(struct world *world)
{
    for (uint16_t i = 0; i < world->client_count; i++) {
        buf_free(&world->clients[i].sending);
        buf_free(&world->clients[i].to_server);
        buf_free(&world->clients[i].from_server);
        buf_free(&world->clients[i].last_reply);
    }
}
