/* A tiny world for the tests of the shard: one or three nodes of one shard each, N = 3, whose messages, log and cold
 * tier move only when the test says so. Every frame, batch and answer that leaves a node is written to a trace. */
#ifndef RONDO_TESTS_SHARD_WORLD_H
#define RONDO_TESTS_SHARD_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/frame.h"
#include "shard/shard.h"
#include "shard_world_cold.h"

#define WORLD_NODES_MAX 3
#define WORLD_CLIENTS_MAX 8
#define WORLD_WALL_MS UINT64_C(1700000000000)
#define WORLD_SKEW_MAX_MS 500u
#define WORLD_TIMEOUT_MS 1000u
#define WORLD_ROUNDS_MAX 1000

struct world_client {
    size_t need; /* fewer bytes than these are not passed again */
    bool open;
    bool closed_by_server;
    bool paused;
    uint8_t node;
    struct buf input;  /* given and not used yet */
    struct buf output; /* what the server said and was not looked at yet */
    struct buf heard;
};

struct world_node {
    struct shard *shard;
    struct effects effects;
    struct now now;
    bool touched; /* its turn must end */
    bool log_held;
    uint64_t log_appended;
    uint64_t log_durable;
    bool cold_held;
    uint64_t cold[16]; /* tickets not answered yet */
    struct buf cold_keys[16];
    uint32_t cold_count;
    struct world_cold tier;
    bool flush_held;
    struct flush_job *flush;
    bool linked[WORLD_NODES_MAX];     /* the connection to that node stands */
    bool held[WORLD_NODES_MAX];       /* what is sent to that node waits */
    struct buf pipe[WORLD_NODES_MAX]; /* sent to that node and not delivered yet */
};

struct world_options {
    uint8_t nodes;       /* 1 or 3 */
    size_t memory_bytes; /* 0 = enough */
    size_t row_bytes;    /* of it for rows; 0 = their usual part */
    bool cold_empty;     /* of all nodes */
    bool blind_writes;
    bool repair;                     /* a round in two seconds */
    enum meta_state state_of_node_0; /* 0 = serving */
    uint64_t fail_at_call;           /* of node 0's allocator, counted from its start; 0 = never */
};

struct world {
    struct alloc alloc; /* no budget */
    const struct ring *ring;
    uint8_t nodes;
    bool no_datagrams; /* a firewall */
    struct world_node node[WORLD_NODES_MAX];
    struct world_client client[WORLD_CLIENTS_MAX];
    struct buf trace;
    struct buf traced;
};

/* The claim takes long: each ring is made once for all tests. */
static const struct ring *world_ring(uint8_t nodes)
{
    static struct alloc alloc;
    static struct ring *rings[WORLD_NODES_MAX + 1];
    static const char *const names[WORLD_NODES_MAX] = {"n0", "n1", "n2"};
    if (rings[nodes] != NULL)
        return rings[nodes];
    struct ring_member members[WORLD_NODES_MAX];
    for (uint8_t i = 0; i < nodes; i++)
        members[i] = ring_member_of(span_of_text(names[i]), span_of_text(names[i]));
    static const char *const addresses[WORLD_NODES_MAX] = {"h:10", "h:11", "h:12"};
    for (uint8_t i = 0; i < nodes; i++)
        members[i].peer_address = span_of_text(addresses[i]);
    struct ring_options options = {.members = members, .member_count = nodes, .replicas = 3};
    alloc_init(&alloc, SIZE_MAX);
    assert_int_equal(ring_initial(&alloc, &options, NULL, &rings[nodes]), STATUS_OK);
    return rings[nodes];
}

static uint8_t world_index(const struct world *world, uint64_t id)
{
    uint16_t index = ring_node_index(world->ring, id);
    assert_true(index < world->nodes);
    return (uint8_t)index;
}

/* A link's number names both ends. */
static uint64_t world_link(uint8_t from, uint8_t to)
{
    return 1u + (uint64_t)from * WORLD_NODES_MAX + to;
}

static void world_perform(struct world *world, uint8_t index);

static void world_event(struct world *world, uint8_t index, struct event *event)
{
    struct world_node *node = &world->node[index];
    event->now = node->now;
    shard_step(node->shard, event, &node->effects);
    if (event->kind != EVENT_TURN_END)
        node->touched = true;
    world_perform(world, index);
}

/* ---- effects -------------------------------------------------------------------------------------------- */

static void world_sent(struct world *world, uint8_t from, uint8_t to, struct span bytes)
{
    if (!world->node[from].linked[to])
        return;
    buf_append_span(&world->node[from].pipe[to], bytes);
    while (bytes.size > 0) {
        struct frame frame;
        size_t need;
        assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_OK);
        bytes = span_of(bytes.data + frame.whole.size, bytes.size - frame.whole.size);
        if (frame.type != FRAME_PING && frame.type != FRAME_PONG && frame.type != FRAME_GOSSIP)
            buf_append_format(&world->trace, "n%u>n%u %s\n", from, to, frame_type_name(frame.type));
    }
}

static void world_answered(struct world *world, const struct effect *effect)
{
    struct world_client *client = &world->client[effect->client - 1];
    buf_append_span(&client->output, effect->bytes);
    if (effect->bytes.size > 0)
        buf_append_format(&world->trace, "c%u< %.*s\n", (unsigned)effect->client - 1,
                          (int)effect->bytes.size - 2, (const char *)effect->bytes.data);
    client->closed_by_server |= effect->flag;
}

/* What leads to an event of this node is done after all its effects have been looked at. */
static void world_after(struct world *world, uint8_t index, const struct effect *effect)
{
    struct event event = {.sequence = effect->sequence, .link = effect->link, .node = effect->node};
    if (effect->kind == EFFECT_META_WRITE)
        event.kind = EVENT_META_DURABLE;
    else if (effect->kind == EFFECT_LINK_MOVE)
        event.kind = EVENT_LINK_MOVED;
    else
        return;
    world_event(world, index, &event);
}

/* The greeting's answer goes to the sender's own connection. */
static void world_link_sent(struct world *world, uint8_t index, const struct effect *effect)
{
    uint8_t from = (uint8_t)((effect->link - 1) / WORLD_NODES_MAX);
    uint64_t id = world->ring->nodes[index].id;
    uint8_t block[1024];
    assert_true(effect->bytes.size <= sizeof block);
    memcpy(block, effect->bytes.data, effect->bytes.size);
    struct event answer = {.kind = EVENT_PEER_DATA, .node = id, .bytes = span_of(block, effect->bytes.size)};
    world_event(world, from, &answer);
}

/* A datagram is there at once, or lost where a connection would be cut or held. */
static void world_datagram(struct world *world, uint8_t from, const struct effect *effect)
{
    uint8_t to = world_index(world, effect->node);
    struct event event = {.kind = EVENT_DATAGRAM, .bytes = effect->bytes};
    if (world->node[from].linked[to] && !world->node[from].held[to] && !world->no_datagrams)
        world_event(world, to, &event);
}

static void world_effect(struct world *world, uint8_t index, const struct effect *effect)
{
    struct world_node *node = &world->node[index];
    switch (effect->kind) {
    case EFFECT_CLIENT_SEND:
        world_answered(world, effect);
        return;
    case EFFECT_CLIENT_RESUME:
        world->client[effect->client - 1].paused = false;
        return;
    case EFFECT_CLIENT_DROP:
        world->client[effect->client - 1].closed_by_server = true;
        return;
    case EFFECT_PEER_SEND:
        world_sent(world, index, world_index(world, effect->node), effect->bytes);
        return;
    case EFFECT_PEER_CONNECT:
        buf_append_format(&world->trace, "n%u dials n%u\n", index, world_index(world, effect->node));
        return;
    case EFFECT_PEER_DROP:
        buf_append_format(&world->trace, "n%u drops n%u\n", index, world_index(world, effect->node));
        node->linked[world_index(world, effect->node)] = false;
        buf_clear(&node->pipe[world_index(world, effect->node)]);
        return;
    case EFFECT_DATAGRAM_SEND:
        world_datagram(world, index, effect);
        return;
    case EFFECT_LINK_SEND:
        if (effect->bytes.size > 0)
            world_link_sent(world, index, effect);
        return;
    case EFFECT_LOG_APPEND:
        node->log_appended = effect->sequence;
        buf_append_format(&world->trace, "n%u log\n", index);
        return;
    case EFFECT_COLD_READ:
        assert_true(node->cold_count < 16);
        buf_clear(&node->cold_keys[node->cold_count]);
        buf_append_span(&node->cold_keys[node->cold_count], effect->bytes);
        node->cold[node->cold_count++] = effect->ticket;
        return;
    case EFFECT_COLD_SCAN:
    case EFFECT_COLD_SCAN_NEXT:
    case EFFECT_COLD_SCAN_STOP:
        world_scan_effect(&node->tier, effect);
        return;
    case EFFECT_FLUSH:
        assert_null(node->flush);
        node->flush = effect->job;
        flush_sort(node->flush);
        return;
    default:
        return;
    }
}

static void world_perform(struct world *world, uint8_t index)
{
    struct effects taken = world->node[index].effects;
    effects_init(&world->node[index].effects, &world->alloc);
    for (uint32_t i = 0; i < taken.count; i++)
        world_effect(world, index, &taken.items[i]);
    for (uint32_t i = 0; i < taken.count; i++)
        world_after(world, index, &taken.items[i]);
    effects_free(&taken);
}

/* ---- moving --------------------------------------------------------------------------------------------- */

static bool world_deliver(struct world *world, uint8_t from, uint8_t to)
{
    struct world_node *node = &world->node[from];
    struct buf *pipe = &node->pipe[to];
    if (pipe->size == 0 || node->held[to] || !node->linked[to])
        return false;
    struct buf bytes = *pipe;
    buf_init(pipe, &world->alloc);
    size_t used = 0;
    while (used < bytes.size) {
        struct event data = {.kind = EVENT_LINK_DATA,
                             .link = world_link(from, to),
                             .bytes = span_of(bytes.data + used, bytes.size - used)};
        world_event(world, to, &data);
        if (data.consumed == 0)
            break;
        used += data.consumed;
    }
    assert_int_equal(used, bytes.size);
    buf_free(&bytes);
    return true;
}

/* Reads and pages of scans. */
static bool world_move_cold(struct world *world, uint8_t index)
{
    struct world_node *node = &world->node[index];
    struct event event;
    struct buf page;
    bool moved = false;
    while (!node->cold_held && node->cold_count > 0) {
        uint32_t last = --node->cold_count;
        event = (struct event){.kind = EVENT_COLD_RESULT, .ticket = node->cold[last]};
        if (!world_cold_get(&node->tier, buf_span(&node->cold_keys[last]), &event.bytes))
            event.status = STATUS_NOT_FOUND;
        world_event(world, index, &event);
        moved = true;
    }
    for (uint32_t i = 0; i < COLD_SCANS_MAX && world_scan_answer(&node->tier, &event, &page); i++) {
        world_event(world, index, &event);
        buf_free(&page);
        moved = true;
    }
    return moved;
}

static bool world_move_node(struct world *world, uint8_t index)
{
    struct world_node *node = &world->node[index];
    bool moved = node->touched;
    if (node->touched) {
        struct event end = {.kind = EVENT_TURN_END};
        node->touched = false;
        world_event(world, index, &end);
    }
    if (!node->log_held && node->log_durable < node->log_appended) {
        node->log_durable = node->log_appended;
        struct event durable = {.kind = EVENT_LOG_DURABLE, .sequence = node->log_durable};
        world_event(world, index, &durable);
        moved = true;
    }
    moved |= world_move_cold(world, index);
    if (!node->flush_held && node->flush != NULL) {
        struct event done = {.kind = EVENT_FLUSH_DONE, .status = STATUS_OK};
        world_cold_ingest(&node->tier, node->flush);
        node->flush = NULL;
        world_event(world, index, &done);
        moved = true;
    }
    return moved;
}

static void world_feed(struct world *world, uint32_t number)
{
    struct world_client *client = &world->client[number];
    while (client->open && !client->paused && !client->closed_by_server && client->input.size > 0 &&
           client->input.size >= client->need) {
        struct event data = {
            .kind = EVENT_CLIENT_DATA, .client = number + 1, .bytes = buf_span(&client->input)};
        world_event(world, client->node, &data);
        client->paused = data.paused;
        client->need = data.need;
        buf_drop(&client->input, data.consumed);
        if (data.consumed == 0)
            return;
    }
}

/* Carries out everything that is not held, until nothing moves. */
static void world_settle(struct world *world)
{
    bool moved = true;
    for (int round = 0; moved; round++) {
        assert_true(round < WORLD_ROUNDS_MAX);
        moved = false;
        for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++)
            world_feed(world, i);
        for (uint8_t i = 0; i < world->nodes; i++)
            moved |= world_move_node(world, i);
        for (uint8_t from = 0; from < world->nodes; from++) {
            for (uint8_t to = 0; to < world->nodes; to++)
                moved |= world_deliver(world, from, to);
        }
    }
}

/* Time passes on all nodes. */
static void world_pass(struct world *world, uint64_t ms)
{
    for (uint8_t i = 0; i < world->nodes; i++) {
        world->node[i].now.wall_ms += ms;
        world->node[i].now.mono_us += 1000 * ms;
        world->node[i].touched = true;
    }
    world_settle(world);
}

/* Bytes of a client (opened at its first use) to a node. */
static __attribute__((unused)) void world_say_as(struct world *world, enum client_protocol protocol,
                                                 uint8_t node, uint32_t number, const char *bytes)
{
    struct world_client *client = &world->client[number];
    if (!client->open) {
        struct event open = {.kind = EVENT_CLIENT_OPEN, .client = number + 1, .protocol = protocol};
        client->open = true;
        client->node = node;
        world_event(world, node, &open);
    }
    buf_append_text(&client->input, bytes);
    world_settle(world);
}

static __attribute__((unused)) void world_say(struct world *world, uint8_t node, uint32_t client,
                                              const char *bytes)
{
    world_say_as(world, CLIENT_RESP, node, client, bytes);
}

static __attribute__((unused)) void world_leave(struct world *world, uint32_t number)
{
    struct event closed = {.kind = EVENT_CLIENT_CLOSED, .client = number + 1};
    world->client[number].open = false;
    world_event(world, world->client[number].node, &closed);
    world_settle(world);
}

/* What a client heard since the last call; valid until the next. */
static const char *world_heard(struct world *world, uint32_t number)
{
    struct world_client *client = &world->client[number];
    buf_clear(&client->heard);
    buf_append_span(&client->heard, buf_span(&client->output));
    buf_put_u8(&client->heard, 0);
    buf_clear(&client->output);
    return (const char *)client->heard.data;
}

/* What left the nodes since the last call; valid until the next. */
static __attribute__((unused)) const char *world_trace(struct world *world)
{
    buf_clear(&world->traced);
    buf_append_span(&world->traced, buf_span(&world->trace));
    buf_put_u8(&world->traced, 0);
    buf_clear(&world->trace);
    return (const char *)world->traced.data;
}

/* ---- connections ---------------------------------------------------------------------------------------- */

static void world_cut_one_way(struct world *world, uint8_t from, uint8_t to)
{
    struct event down = {.kind = EVENT_PEER_DOWN, .node = world->ring->nodes[to].id};
    struct event closed = {.kind = EVENT_LINK_CLOSED, .link = world_link(from, to)};
    world->node[from].linked[to] = false;
    buf_clear(&world->node[from].pipe[to]);
    world_event(world, from, &down);
    world_event(world, to, &closed);
}

static __attribute__((unused)) void world_cut(struct world *world, uint8_t a, uint8_t b)
{
    world_cut_one_way(world, a, b);
    world_cut_one_way(world, b, a);
    world_settle(world);
}

static void world_join_one_way(struct world *world, uint8_t from, uint8_t to)
{
    struct event open = {.kind = EVENT_LINK_OPEN, .link = world_link(from, to)};
    struct event up = {.kind = EVENT_PEER_UP, .node = world->ring->nodes[to].id};
    world->node[from].linked[to] = true;
    world_event(world, to, &open);
    world_event(world, from, &up);
}

static __attribute__((unused)) void world_join(struct world *world, uint8_t a, uint8_t b)
{
    world_join_one_way(world, a, b);
    world_join_one_way(world, b, a);
    world_settle(world);
}

/* ---- making and freeing --------------------------------------------------------------------------------- */

static void world_open_node(struct world *world, uint8_t index, const struct world_options *options)
{
    struct world_node *node = &world->node[index];
    struct meta meta;
    meta_init(&meta, &world->alloc);
    meta.cluster_id = world->ring->cluster_id;
    meta.node_id = world->ring->nodes[index].id;
    meta.directory_id = 100u + index;
    meta.actor_id = 200u + index;
    meta.runs.now = (struct run){.count = 1, .id = meta.actor_id};
    meta.state = index == 0 && options->state_of_node_0 != 0 ? options->state_of_node_0 : META_SERVING;
    meta.shards = 1;
    assert_int_equal(meta_name_set(&meta, span_of_text(world->ring->nodes[index].name)), STATUS_OK);
    node->now = (struct now){.wall_ms = WORLD_WALL_MS, .mono_us = 1000000};
    effects_init(&node->effects, &world->alloc);
    for (uint8_t i = 0; i < WORLD_NODES_MAX; i++)
        buf_init(&node->pipe[i], &world->alloc);
    for (uint32_t i = 0; i < 16; i++)
        buf_init(&node->cold_keys[i], &world->alloc);
    world_cold_init(&node->tier, &world->alloc);
    struct shard_options shard = {
        .shards = 1,
        .ring = world->ring,
        .meta = &meta,
        .resp_address = span_of_text("h:1"),
        .http_address = span_of_text("h:2"),
        .memory_bytes = options->memory_bytes != 0 ? options->memory_bytes : (size_t)16 << 20,
        .row_bytes_max = options->row_bytes,
        .key_bytes_max = 1024,
        .value_bytes_max = 1u << 20,
        .clock_skew_max_ms = WORLD_SKEW_MAX_MS,
        .request_timeout_ms = WORLD_TIMEOUT_MS,
        .healing = {.request_timeout_max_ms = 600000,
                    .repair = options->repair,
                    .repair_interval_ms = 2000,
                    .rescan_interval_ms = 86400000,
                    .repair_bytes_per_s = UINT64_C(32) << 20},
        .blind_writes = options->blind_writes,
        .cold_empty = options->cold_empty,
        .durability_always = true,
        .durability = span_of_text("always"),
        .seed = 40u + index,
        .now = node->now,
        .started_wall_ms = WORLD_WALL_MS,
    };
    node->shard = shard_new(&shard);
    assert_non_null(node->shard);
    meta_free(&meta);
    if (index == 0 && options->fail_at_call != 0) {
        /* The test reaches into the allocator that shard.h only lets it read. */
        struct alloc *alloc = (struct alloc *)(uintptr_t)shard_alloc(node->shard);
        alloc->fail_at_call = alloc->calls + options->fail_at_call;
    }
    shard_start(node->shard, node->now, &node->effects);
    world_perform(world, index);
}

static void world_open(struct world *world, const struct world_options *options)
{
    *world = (struct world){.nodes = options->nodes, .ring = world_ring(options->nodes)};
    alloc_init(&world->alloc, SIZE_MAX);
    buf_init(&world->trace, &world->alloc);
    buf_init(&world->traced, &world->alloc);
    for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++) {
        buf_init(&world->client[i].input, &world->alloc);
        buf_init(&world->client[i].output, &world->alloc);
        buf_init(&world->client[i].heard, &world->alloc);
    }
    for (uint8_t i = 0; i < world->nodes; i++)
        world_open_node(world, i, options);
    for (uint8_t a = 0; a < world->nodes; a++) {
        for (uint8_t b = (uint8_t)(a + 1); b < world->nodes; b++)
            world_join(world, a, b);
    }
    world_settle(world);
    (void)world_trace(world);
}

static void world_close(struct world *world)
{
    for (uint8_t i = 0; i < world->nodes; i++) {
        shard_free(world->node[i].shard);
        effects_free(&world->node[i].effects);
        for (uint8_t to = 0; to < WORLD_NODES_MAX; to++)
            buf_free(&world->node[i].pipe[to]);
        for (uint32_t k = 0; k < 16; k++)
            buf_free(&world->node[i].cold_keys[k]);
        world_cold_free(&world->node[i].tier);
    }
    for (uint32_t i = 0; i < WORLD_CLIENTS_MAX; i++) {
        buf_free(&world->client[i].input);
        buf_free(&world->client[i].output);
        buf_free(&world->client[i].heard);
    }
    buf_free(&world->trace);
    buf_free(&world->traced);
    assert_int_equal(world->alloc.used_bytes, 0);
}

/* ---- for the tests --------------------------------------------------------------------------------------- */

static __attribute__((unused)) bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* The first write of a shard waits for its clock's bound; later ones are what the tests look at. */
static __attribute__((unused)) void warm_up(struct world *world)
{
    for (uint8_t i = 0; i < world->nodes; i++) {
        world_say(world, i, WORLD_CLIENTS_MAX - 1u - i, "SET warm up\r\n");
        assert_string_equal(world_heard(world, WORLD_CLIENTS_MAX - 1u - i), "+OK\r\n");
    }
    (void)world_trace(world);
}

#endif
