/* The network: connections that are made, break and vanish; frames and datagrams that are lost, doubled, late and out
 * of order.
 *
 * A connection carries the sender's frames forward and nothing but the greeting's answer back. The greeting itself
 * stays whole and in order; every frame after it is on its own, which is worse than TCP. A link's unconsumed bytes
 * stay with its connection and move with it. */
#include <assert.h>
#include <inttypes.h>

#include "gossip/message.h"
#include "proto/frame.h"
#include "sim/world.h"

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000
#define CONNECT_TIMEOUT_US 2000000
#define DEAD_US 2000000

/* About a megabyte: what a socket keeps for a process that does not read. */
#define DATAGRAMS_WAITING_MAX 700

static void connect_due(struct world *world, struct happening *happening);

/* ---- little things -------------------------------------------------------------------------------------- */

static uint64_t delay_us(struct world *world, uint16_t from, uint16_t to)
{
    uint64_t us = world_draw(world, world->swarm.delay_us / 2, world->swarm.delay_us * 2);
    return us + world->network.extra_delay_us[from][to];
}

static bool blocked(const struct world *world, uint16_t from, uint16_t to)
{
    return world->network.blocked_until_us[from][to] > world->now_us;
}

static struct sim_connection *connection_of(struct world *world, uint64_t link)
{
    return link == 0 || link > world->network.count ? NULL : world->network.connections[link - 1];
}

static bool sender_lives(const struct world *world, const struct sim_connection *connection)
{
    const struct sim_node *node = &world->nodes[connection->from];
    return node->running && node->life == connection->from_life;
}

static bool receiver_lives(const struct world *world, const struct sim_connection *connection)
{
    const struct sim_node *node = &world->nodes[connection->to];
    return node->running && node->life == connection->to_life;
}

static struct sim_outgoing *outgoing_of(struct world *world, const struct sim_connection *connection)
{
    return &world->nodes[connection->from].outgoing[connection->from_shard][connection->to];
}

static struct happening *plan_for(struct world *world, struct sim_connection *connection, uint64_t at_us,
                                  void (*fire)(struct world *, struct happening *))
{
    struct happening *happening = world_plan(world, at_us, fire);
    happening->object = connection;
    return happening;
}

/* ---- ends ----------------------------------------------------------------------------------------------- */

static void plan_connect(struct world *world, uint16_t from, uint16_t shard, uint16_t to)
{
    struct sim_outgoing *outgoing = &world->nodes[from].outgoing[shard][to];
    uint64_t backoff_us = (uint64_t)outgoing->backoff_ms * 1000;
    uint32_t next_ms = 2 * outgoing->backoff_ms;
    outgoing->backoff_ms = next_ms > BACKOFF_MAX_MS   ? BACKOFF_MAX_MS
                           : next_ms < BACKOFF_MIN_MS ? BACKOFF_MIN_MS
                                                      : next_ms;
    uint64_t at_us = world->now_us + backoff_us + world_draw(world, 0, backoff_us / 2 + 100);
    struct happening *happening = world_plan(world, at_us, connect_due);
    happening->object = &world->nodes[from];
    happening->number = world->nodes[from].life;
    happening->index = shard;
    happening->index2 = to;
}

/* The sender notices the end of its connection. */
static void from_ends(struct world *world, struct sim_connection *connection)
{
    if (!connection->from_open)
        return;
    connection->from_open = false;
    buf_free(&connection->from_input);
    if (!sender_lives(world, connection))
        return;
    struct sim_node *node = &world->nodes[connection->from];
    struct sim_outgoing *outgoing = outgoing_of(world, connection);
    assert(outgoing->connection == connection);
    outgoing->connection = NULL;
    if (connection->up)
        shard_post(world, node, connection->from_shard, EVENT_PEER_DOWN, (struct span){0})->node =
            world->nodes[connection->to].id;
    plan_connect(world, connection->from, connection->from_shard, connection->to);
}

/* The receiver notices. */
static void to_ends(struct world *world, struct sim_connection *connection)
{
    if (!connection->to_open)
        return;
    connection->to_open = false;
    buf_free(&connection->to_input);
    if (receiver_lives(world, connection) && !connection->moving)
        shard_post(world, &world->nodes[connection->to], connection->to_shard, EVENT_LINK_CLOSED,
                   (struct span){0})
            ->link = connection->link;
}

static void from_end_due(struct world *world, struct happening *happening)
{
    from_ends(world, happening->object);
}

static void to_end_due(struct world *world, struct happening *happening)
{
    to_ends(world, happening->object);
}

/* Nothing gets through any more; each side notices after its time. */
static void cut(struct world *world, struct sim_connection *connection, uint64_t from_us, uint64_t to_us)
{
    connection->cut = true;
    (void)plan_for(world, connection, world->now_us + from_us, from_end_due);
    (void)plan_for(world, connection, world->now_us + to_us, to_end_due);
}

/* ---- connecting ----------------------------------------------------------------------------------------- */

static struct sim_connection *connection_new(struct world *world)
{
    struct sim_network *network = &world->network;
    if (network->count == network->capacity) {
        uint32_t capacity = network->capacity == 0 ? 64 : 2 * network->capacity;
        network->connections = alloc_resize(&world->alloc, network->connections,
                                            network->capacity * sizeof(struct sim_connection *),
                                            capacity * sizeof(struct sim_connection *));
        assert(network->connections != NULL);
        network->capacity = capacity;
    }
    struct sim_connection *connection = alloc_get_zeroed(&world->alloc, sizeof *connection);
    assert(connection != NULL);
    network->connections[network->count++] = connection;
    connection->link = network->count;
    buf_init(&connection->to_input, &world->alloc);
    buf_init(&connection->from_input, &world->alloc);
    return connection;
}

static void connected(struct world *world, struct happening *happening)
{
    struct sim_connection *connection = happening->object;
    struct sim_node *to = &world->nodes[connection->to];
    if (!sender_lives(world, connection) || !connection->from_open)
        return;
    bool path = !blocked(world, connection->from, connection->to) &&
                !blocked(world, connection->to, connection->from);
    if (!path || !to->running || to->paused_until_us > world->now_us) {
        from_ends(world, connection);
        return;
    }
    connection->to_life = to->life;
    connection->to_open = true;
    connection->up = true;
    outgoing_of(world, connection)->backoff_ms = BACKOFF_MIN_MS;
    shard_post(world, to, 0, EVENT_LINK_OPEN, (struct span){0})->link = connection->link;
    shard_post(world, &world->nodes[connection->from], connection->from_shard, EVENT_PEER_UP,
               (struct span){0})
        ->node = to->id;
}

static void connect_due(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    if (happening->number != node->life || !node->running)
        return;
    struct sim_outgoing *outgoing = &node->outgoing[happening->index][happening->index2];
    if (outgoing->connection != NULL)
        return;
    struct sim_connection *connection = connection_new(world);
    connection->from = node->index;
    connection->from_shard = (uint16_t)happening->index;
    connection->to = (uint16_t)happening->index2;
    connection->from_life = node->life;
    connection->from_open = true;
    outgoing->connection = connection;
    bool path = !blocked(world, connection->from, connection->to) &&
                !blocked(world, connection->to, connection->from);
    uint64_t us = delay_us(world, connection->from, connection->to);
    (void)plan_for(world, connection, world->now_us + (path ? us : CONNECT_TIMEOUT_US), connected);
}

/* Asked for again, it is tried at once; a plan that waits for its backoff finds the connection made. */
void network_want(struct world *world, struct sim_node *node, uint16_t shard, uint64_t peer)
{
    uint16_t to = world_node_index(world, peer);
    assert(to < world->node_count && to != node->index);
    struct sim_outgoing *outgoing = &node->outgoing[shard][to];
    if (outgoing->connection != NULL)
        return;
    *outgoing = (struct sim_outgoing){.wanted = true};
    plan_connect(world, node->index, shard, to);
}

void network_drop(struct world *world, struct sim_node *node, uint16_t shard, uint64_t peer)
{
    struct sim_connection *connection = node->outgoing[shard][world_node_index(world, peer)].connection;
    if (connection != NULL && connection->up && !connection->cut)
        cut(world, connection, 0, delay_us(world, connection->from, connection->to));
}

/* ---- frames forward ------------------------------------------------------------------------------------- */

static void post_link_data(struct world *world, struct sim_connection *connection)
{
    if (!connection->moving)
        shard_post(world, &world->nodes[connection->to], connection->to_shard, EVENT_LINK_DATA,
                   (struct span){0})
            ->link = connection->link;
}

static void arrives(struct world *world, struct happening *happening)
{
    struct sim_connection *connection = happening->object;
    if (connection->cut || !connection->to_open || !receiver_lives(world, connection))
        return;
    buf_append_span(&connection->to_input, buf_span(&happening->bytes));
    post_link_data(world, connection);
}

static void send_bytes(struct world *world, struct sim_connection *connection, struct span bytes,
                       bool in_order)
{
    uint16_t from = connection->from;
    uint16_t to = connection->to;
    uint64_t at_us = world->now_us + delay_us(world, from, to);
    uint64_t stall_us = world->network.blocked_until_us[from][to];
    if (stall_us > world->now_us)
        at_us += stall_us - world->now_us;
    if (world->faults_on && !in_order && world_chance(world, world->swarm.straggler))
        at_us += world_draw(world, 0, world->swarm.straggler_us);
    else if (in_order || !world->faults_on || !world_chance(world, world->swarm.reorder)) {
        at_us = at_us < connection->forward_order_us ? connection->forward_order_us : at_us;
        connection->forward_order_us = at_us;
    }
    struct happening *happening = plan_for(world, connection, at_us, arrives);
    buf_append_span(&happening->bytes, bytes);
}

static void send_frame(struct world *world, struct sim_connection *connection, struct span frame)
{
    world->totals.frames++;
    struct sim_network *network = &world->network;
    bool lost = world->faults_on && world_chance(world, world->swarm.loss);
    if (blocked(world, connection->from, connection->to) &&
        !(world->faults_on && world->swarm.partition_stalls))
        lost = true;
    if (network->filter != NULL && network->filter(world, connection->from, connection->to, frame))
        lost = true;
    if (lost) {
        world->totals.frames_lost++;
        return;
    }
    send_bytes(world, connection, frame, false);
    if (world->faults_on && world_chance(world, world->swarm.duplicate))
        send_bytes(world, connection, frame, false);
}

void network_send(struct world *world, struct sim_node *node, uint16_t shard, const struct effect *effect)
{
    uint16_t to = world_node_index(world, effect->node);
    struct sim_connection *connection = node->outgoing[shard][to].connection;
    bool open = connection != NULL && connection->up;
    struct span bytes = effect->bytes;
    while (bytes.size > 0) {
        struct frame frame;
        size_t need;
        enum status status = frame_cut(bytes, &frame, &need);
        if (status != STATUS_OK) {
            world_fail(world, HISTORY_KEY_NONE, "%s sends what is no frame", node->name);
            return;
        }
        bytes = span_of(bytes.data + frame.whole.size, bytes.size - frame.whole.size);
        oracle_frame_sent(world, node, &world->nodes[to], &frame);
        if (!open || connection->cut)
            continue;
        if (frame.type == FRAME_HELLO) {
            send_bytes(world, connection, frame.whole, true);
        } else {
            send_frame(world, connection, frame.whole);
        }
    }
}

void network_deliver(struct world *world, uint16_t from, uint16_t to, struct span frame)
{
    struct sim_connection *connection = world->nodes[from].outgoing[0][to].connection;
    if (connection != NULL && connection->up && !connection->cut)
        send_bytes(world, connection, frame, false);
}

/* ---- datagrams ------------------------------------------------------------------------------------------ */

static void datagram_arrives(struct world *world, struct happening *happening)
{
    struct sim_node *to = happening->object;
    if (to->running && to->shard[0].inbox_count < DATAGRAMS_WAITING_MAX)
        (void)shard_post(world, to, 0, EVENT_DATAGRAM, buf_span(&happening->bytes));
}

static void send_datagram(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    uint64_t at_us = world->now_us + delay_us(world, from, to);
    if (world->faults_on && world_chance(world, world->swarm.straggler))
        at_us += world_draw(world, 0, world->swarm.straggler_us);
    struct happening *happening = world_plan(world, at_us, datagram_arrives);
    happening->object = &world->nodes[to];
    buf_append_span(&happening->bytes, bytes);
}

/* Nothing keeps datagrams in order, and no partition makes them wait: they are lost. */
void network_datagram(struct world *world, struct sim_node *node, const struct effect *effect)
{
    uint16_t to = world_node_index(world, effect->node);
    assert(to < world->node_count && to != node->index);
    world->totals.datagrams++;
    if (effect->bytes.size > MESSAGE_DATAGRAM_BYTES_MAX)
        world_fail(world, HISTORY_KEY_NONE, "%s sends a datagram of %zu bytes", node->name,
                   effect->bytes.size);
    if (blocked(world, node->index, to) || (world->faults_on && world_chance(world, world->swarm.loss))) {
        world->totals.datagrams_lost++;
        return;
    }
    send_datagram(world, node->index, to, effect->bytes);
    if (world->faults_on && world_chance(world, world->swarm.duplicate))
        send_datagram(world, node->index, to, effect->bytes);
}

/* ---- links ---------------------------------------------------------------------------------------------- */

static void answer_arrives(struct world *world, struct happening *happening)
{
    struct sim_connection *connection = happening->object;
    if (connection->cut || !connection->from_open || !sender_lives(world, connection))
        return;
    buf_append_span(&connection->from_input, buf_span(&happening->bytes));
    shard_post(world, &world->nodes[connection->from], connection->from_shard, EVENT_PEER_DATA,
               (struct span){0})
        ->node = world->nodes[connection->to].id;
}

void network_link_send(struct world *world, struct sim_node *node, const struct effect *effect)
{
    struct sim_connection *connection = connection_of(world, effect->link);
    if (connection == NULL || connection->to != node->index || !connection->to_open || connection->cut)
        return;
    uint64_t at_us = world->now_us + delay_us(world, connection->to, connection->from);
    uint64_t stall_us = world->network.blocked_until_us[connection->to][connection->from];
    if (stall_us > world->now_us)
        at_us += stall_us - world->now_us;
    at_us = at_us < connection->backward_order_us ? connection->backward_order_us : at_us;
    connection->backward_order_us = at_us;
    struct happening *happening = plan_for(world, connection, at_us, answer_arrives);
    buf_append_span(&happening->bytes, effect->bytes);
    if (!effect->flag)
        return;
    /* Closed behind what was sent: the sender reads it first. */
    to_ends(world, connection);
    (void)plan_for(world, connection, at_us + 1, from_end_due);
}

static void moved(struct world *world, struct happening *happening)
{
    struct sim_connection *connection = happening->object;
    connection->moving = false;
    if (!receiver_lives(world, connection))
        return;
    struct sim_node *node = &world->nodes[connection->to];
    struct event *event = shard_post(world, node, connection->to_shard, EVENT_LINK_MOVED, (struct span){0});
    event->link = connection->link;
    event->node = happening->number;
    if (connection->to_open)
        post_link_data(world, connection);
    else
        shard_post(world, node, connection->to_shard, EVENT_LINK_CLOSED, (struct span){0})->link =
            connection->link;
}

void network_link_move(struct world *world, struct sim_node *node, const struct effect *effect)
{
    struct sim_connection *connection = connection_of(world, effect->link);
    if (connection == NULL || connection->to != node->index || !connection->to_open)
        return;
    assert(effect->shard < node->shards);
    connection->moving = true;
    connection->to_shard = effect->shard;
    uint64_t at_us = world->now_us + world_draw(world, 1, world->swarm.turn_delay_us);
    plan_for(world, connection, at_us, moved)->number = effect->node;
}

struct span network_link_bytes(struct world *world, uint64_t link)
{
    struct sim_connection *connection = connection_of(world, link);
    bool readable = connection != NULL && connection->to_open && !connection->moving;
    return readable ? buf_span(&connection->to_input) : (struct span){0};
}

void network_link_used(struct world *world, uint64_t link, size_t size)
{
    struct sim_connection *connection = connection_of(world, link);
    assert(connection != NULL);
    if (!connection->to_open)
        return;
    assert(size <= connection->to_input.size);
    buf_drop(&connection->to_input, size);
}

struct buf *network_peer_input(struct world *world, struct sim_node *node, uint16_t shard, uint64_t peer)
{
    struct sim_connection *connection = node->outgoing[shard][world_node_index(world, peer)].connection;
    return connection != NULL && connection->from_open ? &connection->from_input : NULL;
}

/* ---- faults --------------------------------------------------------------------------------------------- */

void network_node_gone(struct world *world, struct sim_node *node, bool at_once)
{
    struct sim_network *network = &world->network;
    for (uint32_t i = 0; i < network->count; i++) {
        struct sim_connection *connection = network->connections[i];
        /* A machine that vanished says nothing: its peers find out by themselves. */
        uint64_t us = at_once ? world_draw(world, 1000, DEAD_US) : delay_us(world, 0, 0);
        if (connection->from == node->index && connection->from_open) {
            connection->from_open = false;
            buf_free(&connection->from_input);
            /* What a killed process had sent is still on its way. */
            connection->cut = connection->cut || at_once || world_chance(world, 500000);
            uint64_t order_us = connection->forward_order_us;
            uint64_t end_us = world->now_us + us;
            (void)plan_for(world, connection, end_us > order_us ? end_us : order_us + 1, to_end_due);
        }
        if (connection->to == node->index && connection->to_open) {
            connection->to_open = false;
            buf_free(&connection->to_input);
            connection->cut = true;
            (void)plan_for(world, connection, world->now_us + us, from_end_due);
        }
    }
    for (uint16_t shard = 0; shard < SIM_SHARDS_MAX; shard++) {
        for (uint16_t peer = 0; peer < SIM_NODES_MAX; peer++)
            node->outgoing[shard][peer] = (struct sim_outgoing){0};
    }
}

void network_block(struct world *world, uint16_t from, uint16_t to, uint64_t until_us)
{
    world->network.blocked_until_us[from][to] = until_us;
}

static void break_connections(struct world *world, uint16_t a, uint16_t b, bool both_ways)
{
    struct sim_network *network = &world->network;
    for (uint32_t i = 0; i < network->count; i++) {
        struct sim_connection *connection = network->connections[i];
        bool between = (connection->from == a && connection->to == b) ||
                       (both_ways && connection->from == b && connection->to == a);
        if (between && connection->up && !connection->cut && (connection->from_open || connection->to_open))
            cut(world, connection, world_draw(world, 0, 5000), world_draw(world, 0, 5000));
    }
}

void network_break(struct world *world, uint16_t a, uint16_t b)
{
    break_connections(world, a, b, true);
}

void network_break_from(struct world *world, uint16_t from, uint16_t to)
{
    break_connections(world, from, to, false);
}

/* What waits for the end of a partition that is over now would come when that was planned to end, and all that is sent
 * after it: a connection that stalls for so long is made anew. */
void network_heal(struct world *world)
{
    struct sim_network *network = &world->network;
    for (uint32_t i = 0; i < network->count; i++) {
        struct sim_connection *connection = network->connections[i];
        uint64_t stalls_until_us = connection->forward_order_us > connection->backward_order_us
                                       ? connection->forward_order_us
                                       : connection->backward_order_us;
        if (stalls_until_us > world->now_us + CONNECT_TIMEOUT_US && connection->up && !connection->cut)
            cut(world, connection, 0, 0);
    }
    for (uint16_t a = 0; a < SIM_NODES_MAX; a++) {
        for (uint16_t b = 0; b < SIM_NODES_MAX; b++)
            world->network.blocked_until_us[a][b] = 0;
    }
}

void network_free(struct world *world)
{
    struct sim_network *network = &world->network;
    for (uint32_t i = 0; i < network->count; i++) {
        buf_free(&network->connections[i]->to_input);
        buf_free(&network->connections[i]->from_input);
        alloc_put(&world->alloc, network->connections[i], sizeof(struct sim_connection));
    }
    alloc_put(&world->alloc, network->connections, network->capacity * sizeof(struct sim_connection *));
    *network = (struct sim_network){0};
}
