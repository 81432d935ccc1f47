/* A cluster of swim machines in an invented network: virtual time, seeded loss, delay, pauses and partitions. Included
 * by the one test that runs it, after cmocka.h. */
#ifndef RONDO_TESTS_GOSSIP_WORLD_H
#define RONDO_TESTS_GOSSIP_WORLD_H

#include <stdlib.h>

#include "base/prng.h"
#include "gossip/swim.h"

#define NODES_SIM 500u
#define NOBODY UINT32_MAX

struct happening {
    uint64_t at_ms;
    uint64_t sequence;
    uint32_t node;
    uint32_t from; /* NOBODY: a tick */
    bool over_connection;
    size_t size;
    uint8_t *bytes;
};

struct sim_node {
    struct swim swim;
    struct alloc alloc;
    bool up;
    uint64_t paused_until_ms;
    uint64_t wake_ms;            /* the tick that is scheduled */
    uint64_t dead_ms[NODES_SIM]; /* when it learnt that the node is dead; 0 = it does not hold it dead */
};

struct world {
    struct prng prng;
    uint64_t now_ms;
    uint32_t count;
    struct sim_node *nodes;
    struct happening *heap;
    size_t heap_count;
    size_t heap_capacity;
    uint64_t sequence_next;
    uint64_t loss_percent;
    bool connections; /* peer connections work */
    uint32_t cut;     /* nodes below and from here on cannot reach each other; 0 = no partition */
    uint32_t pausing; /* this node pauses now and then; NOBODY */
    uint64_t pause_at_ms;
    uint64_t messages;
    uint64_t false_deaths;            /* a node learnt of the death of a node that is up and never pauses */
    uint64_t false_deaths_at_pausing; /* the pausing node did */
};

struct world_options {
    uint32_t count;
    uint64_t seed;
    uint64_t loss_percent;
    bool no_connections;
    bool plain_swim;
};

static uint64_t id_of(uint32_t node)
{
    return 1000u + node * 7u;
}

static uint32_t node_of(uint64_t id)
{
    return (uint32_t)(id - 1000u) / 7u;
}

static bool earlier(const struct happening *a, const struct happening *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->sequence < b->sequence;
}

static void heap_push(struct world *world, struct happening happening)
{
    if (world->heap_count == world->heap_capacity) {
        world->heap_capacity = world->heap_capacity == 0 ? 1024 : world->heap_capacity * 2;
        world->heap = realloc(world->heap, world->heap_capacity * sizeof *world->heap);
        assert_non_null(world->heap);
    }
    happening.sequence = world->sequence_next++;
    size_t at = world->heap_count++;
    while (at > 0 && earlier(&happening, &world->heap[(at - 1) / 2])) {
        world->heap[at] = world->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world->heap[at] = happening;
}

static struct happening heap_pop(struct world *world)
{
    struct happening first = world->heap[0];
    struct happening last = world->heap[--world->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= world->heap_count)
            break;
        if (child + 1 < world->heap_count && earlier(&world->heap[child + 1], &world->heap[child]))
            child++;
        if (!earlier(&world->heap[child], &last))
            break;
        world->heap[at] = world->heap[child];
        at = child;
    }
    world->heap[at] = last;
    return first;
}

static bool lost(struct world *world)
{
    return prng_chance(&world->prng, world->loss_percent, 100);
}

/* Datagrams are lost; a connection repeats what is, ever later. */
static void world_send(struct world *world, uint32_t from, const struct swim_send *send)
{
    uint32_t to = node_of(send->node);
    uint64_t delay_ms = 1 + prng_below(&world->prng, 5);
    world->messages++;
    if (world->cut != 0 && (from < world->cut) != (to < world->cut))
        return;
    if (!send->over_connection) {
        assert_true(send->bytes.size <= MESSAGE_DATAGRAM_BYTES_MAX);
        if (lost(world))
            return;
    } else {
        if (!world->connections || !world->nodes[to].up)
            return;
        for (uint64_t retry_ms = 200; lost(world); retry_ms *= 2)
            delay_ms += retry_ms;
    }
    struct happening happening = {
        .at_ms = world->now_ms + delay_ms,
        .node = to,
        .from = from,
        .over_connection = send->over_connection,
        .size = send->bytes.size,
        .bytes = malloc(send->bytes.size),
    };
    assert_non_null(happening.bytes);
    memcpy(happening.bytes, send->bytes.data, send->bytes.size);
    heap_push(world, happening);
}

static void world_drain(struct world *world, uint32_t at)
{
    struct sim_node *node = &world->nodes[at];
    struct swim_send send;
    struct swim_change change;
    while (swim_next_send(&node->swim, &send))
        world_send(world, at, &send);
    while (swim_next_change(&node->swim, &change)) {
        uint32_t about = node_of(change.node);
        bool dead = change.state == SWIM_DEAD;
        assert_int_equal(swim_reachable(&node->swim, change.node), !dead);
        node->dead_ms[about] = dead ? world->now_ms : 0;
        bool wrong = dead && world->nodes[about].up && about != world->pausing;
        world->false_deaths_at_pausing += wrong && at == world->pausing;
        world->false_deaths += wrong && at != world->pausing;
    }
    uint64_t deadline_ms = swim_deadline_ms(&node->swim);
    if (deadline_ms <= world->now_ms)
        deadline_ms = world->now_ms + 1;
    if (node->wake_ms <= world->now_ms || deadline_ms < node->wake_ms) {
        node->wake_ms = deadline_ms;
        heap_push(world, (struct happening){.at_ms = deadline_ms, .node = at, .from = NOBODY});
    }
}

static void world_start_node(struct world *world, uint32_t at, const struct world_options *options)
{
    uint64_t ids[NODES_SIM];
    struct sim_node *node = &world->nodes[at];
    for (uint32_t i = 0; i < world->count; i++)
        ids[i] = id_of(i);
    alloc_init(&node->alloc, 1u << 20);
    struct swim_options swim_options = {
        .alloc = &node->alloc,
        .cluster = {11, 22},
        .self = id_of(at),
        .incarnation = 1,
        .seed = options->seed * 1000 + at + world->now_ms,
        .now_ms = world->now_ms,
        .nodes = ids,
        .node_count = (uint16_t)world->count,
        .tuning = swim_tuning_default(),
    };
    if (options->plain_swim) {
        swim_options.tuning.health_max = 0;
        swim_options.tuning.suspicion_max_factor = 1;
        swim_options.tuning.sleep_min_ms = 0;
        swim_options.tuning.suspect_pings = 0;
    }
    assert_int_equal(swim_init(&node->swim, &swim_options), STATUS_OK);
    memset(node->dead_ms, 0, sizeof node->dead_ms);
    node->up = true;
    node->wake_ms = 0;
    world_drain(world, at);
}

static void world_stop_node(struct world *world, uint32_t at)
{
    swim_free(&world->nodes[at].swim);
    assert_int_equal(world->nodes[at].alloc.used_bytes, 0);
    world->nodes[at].up = false;
}

static void world_init(struct world *world, const struct world_options *options)
{
    *world = (struct world){
        .count = options->count,
        .now_ms = 1000000,
        .loss_percent = options->loss_percent,
        .connections = !options->no_connections,
        .pausing = NOBODY,
    };
    prng_seed(&world->prng, options->seed);
    world->nodes = calloc(options->count, sizeof *world->nodes);
    assert_non_null(world->nodes);
    for (uint32_t i = 0; i < options->count; i++)
        world_start_node(world, i, options);
}

static void world_free(struct world *world)
{
    for (uint32_t i = 0; i < world->count; i++) {
        if (world->nodes[i].up)
            world_stop_node(world, i);
    }
    for (size_t i = 0; i < world->heap_count; i++)
        free(world->heap[i].bytes);
    free(world->heap);
    free(world->nodes);
}

/* One node stops for 2 to 6 seconds, every 4 to 10; its socket keeps what comes meanwhile. */
static void world_pause(struct world *world)
{
    if (world->pausing == NOBODY || world->now_ms < world->pause_at_ms)
        return;
    world->nodes[world->pausing].paused_until_ms = world->now_ms + 2000 + prng_below(&world->prng, 4000);
    world->pause_at_ms = world->now_ms + 4000 + prng_below(&world->prng, 6000);
}

static void world_handle(struct world *world, struct happening *happening)
{
    struct sim_node *node = &world->nodes[happening->node];
    if (!node->up || (happening->from == NOBODY && happening->at_ms != node->wake_ms)) {
        free(happening->bytes);
        return;
    }
    if (world->now_ms < node->paused_until_ms) {
        happening->at_ms = node->paused_until_ms;
        if (happening->from == NOBODY)
            node->wake_ms = happening->at_ms;
        heap_push(world, *happening);
        return;
    }
    if (happening->from == NOBODY) {
        swim_tick(&node->swim, world->now_ms);
    } else {
        struct swim_received received = {
            .now_ms = world->now_ms,
            .node = happening->over_connection ? id_of(happening->from) : 0,
            .over_connection = happening->over_connection,
            .bytes = span_of(happening->bytes, happening->size),
        };
        swim_receive(&node->swim, &received);
        free(happening->bytes);
    }
    world_drain(world, happening->node);
}

static void world_run(struct world *world, uint64_t duration_ms)
{
    uint64_t end_ms = world->now_ms + duration_ms;
    while (world->heap_count > 0 && world->heap[0].at_ms < end_ms) {
        struct happening happening = heap_pop(world);
        world->now_ms = happening.at_ms;
        world_pause(world);
        world_handle(world, &happening);
    }
    world->now_ms = end_ms;
}

#endif
