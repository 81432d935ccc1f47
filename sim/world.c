/* The world's queue of happenings, its time, its life from the first start to the last check. */
#include "sim/world.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* A run that needs more than this many happenings is stuck in a loop that takes no time. */
#define HAPPENINGS_MAX UINT64_C(20000000)

uint64_t world_draw(struct world *world, uint64_t least, uint64_t most)
{
    return most <= least ? least : least + prng_below(&world->prng, most - least + 1);
}

bool world_chance(struct world *world, uint32_t per_million)
{
    return per_million > 0 && prng_below(&world->prng, 1000000) < per_million;
}

/* ---- the queue ------------------------------------------------------------------------------------------ */

static bool happens_before(const struct happening *a, const struct happening *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->sequence < b->sequence;
}

static void queue_push(struct world *world, struct happening *happening)
{
    struct happening_queue *queue = &world->queue;
    if (queue->count == queue->capacity) {
        uint32_t capacity = queue->capacity == 0 ? 256 : 2 * queue->capacity;
        queue->items = alloc_resize(&world->alloc, queue->items, queue->capacity * sizeof *queue->items,
                                    capacity * sizeof *queue->items);
        assert(queue->items != NULL);
        queue->capacity = capacity;
    }
    uint32_t at = queue->count++;
    while (at > 0 && happens_before(happening, queue->items[(at - 1) / 2])) {
        queue->items[at] = queue->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    queue->items[at] = happening;
}

static struct happening *queue_pop(struct happening_queue *queue)
{
    struct happening *first = queue->items[0];
    struct happening *last = queue->items[--queue->count];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= queue->count)
            break;
        if (child + 1 < queue->count && happens_before(queue->items[child + 1], queue->items[child]))
            child++;
        if (!happens_before(queue->items[child], last))
            break;
        queue->items[at] = queue->items[child];
        at = child;
    }
    queue->items[at] = last;
    return first;
}

struct happening *world_plan(struct world *world, uint64_t at_us,
                             void (*fire)(struct world *, struct happening *))
{
    struct happening_queue *queue = &world->queue;
    struct happening *happening = queue->free;
    if (happening != NULL) {
        queue->free = happening->next_free;
        struct buf bytes = happening->bytes;
        *happening = (struct happening){.bytes = bytes};
        buf_clear(&happening->bytes);
    } else {
        happening = alloc_get_zeroed(&world->alloc, sizeof *happening);
        assert(happening != NULL);
        buf_init(&happening->bytes, &world->alloc);
    }
    happening->at_us = at_us > world->now_us ? at_us : world->now_us;
    happening->sequence = queue->sequence_next++;
    happening->fire = fire;
    queue_push(world, happening);
    return happening;
}

/* Large buffers are given back, small ones are kept with their happening. */
#define KEEP_BYTES 1024

static void happening_put(struct happening_queue *queue, struct happening *happening)
{
    if (happening->bytes.capacity > KEEP_BYTES)
        buf_free(&happening->bytes);
    happening->next_free = queue->free;
    queue->free = happening;
}

void world_run_until(struct world *world, uint64_t at_us)
{
    struct happening_queue *queue = &world->queue;
    while (!world->failed && queue->count > 0 && queue->items[0]->at_us <= at_us) {
        struct happening *happening = queue_pop(queue);
        assert(happening->at_us >= world->now_us);
        world->now_us = happening->at_us;
        happening->fire(world, happening);
        happening_put(queue, happening);
        if (++world->totals.happenings > HAPPENINGS_MAX)
            world_fail(world, HISTORY_KEY_NONE, "liveness: %" PRIu64 " happenings and no end",
                       HAPPENINGS_MAX);
    }
    if (!world->failed && world->now_us < at_us)
        world->now_us = at_us;
}

void world_run_for(struct world *world, uint64_t us)
{
    world_run_until(world, world->now_us + us);
}

/* ---- making and ending ---------------------------------------------------------------------------------- */

void ring_shelf_init(struct ring_shelf *shelf)
{
    *shelf = (struct ring_shelf){0};
    alloc_init(&shelf->alloc, SIZE_MAX);
}

void ring_shelf_free(struct ring_shelf *shelf)
{
    for (size_t i = 0; i <= SIM_NODES_MAX; i++) {
        for (size_t k = 0; k <= SIM_NODES_MAX; k++)
            ring_free(shelf->rings[i][k]);
    }
}

const struct ring *ring_shelf_get(struct ring_shelf *shelf, uint16_t nodes, uint8_t replicas)
{
    assert(nodes <= SIM_NODES_MAX && replicas <= SIM_NODES_MAX);
    struct ring **ring = &shelf->rings[nodes][replicas];
    if (*ring != NULL)
        return *ring;
    static const char *const names[SIM_NODES_MAX] = {"n1", "n2", "n3", "n4", "n5"};
    static const char *const addresses[SIM_NODES_MAX] = {"sim1:7381", "sim2:7381", "sim3:7381", "sim4:7381",
                                                         "sim5:7381"};
    struct ring_member members[SIM_NODES_MAX];
    for (uint16_t i = 0; i < nodes; i++)
        members[i] = ring_member_of(span_of_text(names[i]), span_of_text(addresses[i]));
    struct ring_options options = {.members = members, .member_count = nodes, .replicas = replicas};
    enum status status = ring_initial(&shelf->alloc, &options, NULL, ring);
    assert(status == STATUS_OK);
    (void)status;
    return *ring;
}

uint16_t world_node_index(const struct world *world, uint64_t id)
{
    for (uint16_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].id == id)
            return i;
    }
    return SIM_NODES_MAX;
}

static void node_init(struct world *world, uint16_t index)
{
    struct sim_node *node = &world->nodes[index];
    node->index = index;
    (void)snprintf(node->name, sizeof node->name, "n%u", index + 1u);
    node->id = ring_node_id(span_of_text(node->name));
    node->shards = world->swarm.shards[index];
    disk_init(&node->disk, &world->alloc);
    disk_init(&node->copy, &world->alloc);
    buf_init(&node->meta_bytes, &world->alloc);
    int64_t offset = (int64_t)world_draw(world, 0, 2 * world->swarm.clock_offset_us) -
                     (int64_t)world->swarm.clock_offset_us;
    int64_t drift = (int64_t)world_draw(world, 0, 2 * world->swarm.clock_drift_ppm) -
                    (int64_t)world->swarm.clock_drift_ppm;
    node_clock_set(world, node, offset, drift);
}

void world_init(struct world *world, uint64_t seed, const struct swarm *swarm, struct ring_shelf *shelf)
{
    *world = (struct world){.swarm = *swarm, .seed = seed, .failure_key = HISTORY_KEY_NONE};
    world->trace_key = HISTORY_KEY_NONE;
    alloc_init(&world->alloc, SIZE_MAX);
    prng_seed(&world->prng, seed);
    world->node_count = swarm->nodes;
    world->ring = ring_shelf_get(shelf, swarm->nodes, swarm->replicas);
    history_init(&world->history, &world->alloc);
    oracles_init(&world->oracles, &world->alloc);
    for (uint16_t i = 0; i < world->node_count; i++)
        node_init(world, i);
}

void world_free(struct world *world)
{
    for (uint16_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].running)
            node_crash(world, &world->nodes[i], false);
        disk_free(&world->nodes[i].disk);
        disk_free(&world->nodes[i].copy);
        buf_free(&world->nodes[i].meta_bytes);
    }
    ring_free(world->ring_made);
    clients_end(world);
    network_free(world);
    oracles_free(&world->oracles);
    history_free(&world->history);
    struct happening_queue *queue = &world->queue;
    while (queue->count > 0)
        happening_put(queue, queue->items[--queue->count]);
    while (queue->free != NULL) {
        struct happening *happening = queue->free;
        queue->free = happening->next_free;
        buf_free(&happening->bytes);
        alloc_put(&world->alloc, happening, sizeof *happening);
    }
    alloc_put(&world->alloc, queue->items, queue->capacity * sizeof *queue->items);
    assert(world->alloc.used_bytes == 0);
}

void totals_add(struct totals *totals, const struct totals *more)
{
    totals->seeds += more->seeds;
    totals->happenings += more->happenings;
    totals->simulated_us += more->simulated_us;
#define TOTALS_ADD(name) totals->name += more->name;
    TOTALS_MAP(TOTALS_ADD)
#undef TOTALS_ADD
}

/* ---- findings and the timeline -------------------------------------------------------------------------- */

void world_fail(struct world *world, uint32_t key, const char *format, ...)
{
    if (world->failed)
        return;
    world->failed = true;
    world->failure_key = key;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(world->failure, sizeof world->failure, format, arguments);
    va_end(arguments);
    world_say(world, key, "FINDING %s", world->failure);
}

void world_say(struct world *world, uint32_t key, const char *format, ...)
{
    if (!world_traces(world, key))
        return;
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    (void)printf("%6" PRIu64 ".%03" PRIu64 " ms  %s\n", world->now_us / 1000, world->now_us % 1000, line);
}

/* ---- a random world ------------------------------------------------------------------------------------- */

#define FAULTS_US_MAX UINT64_C(20000000)
#define LOOK_US 20000

/* Sometimes a minority of the replicas stays dead for good: the rest must get along. Not where a disk was lost or read
 * wrongly: what it held is rebuilt from all the others. */
static void leave_some_dead(struct world *world)
{
    uint16_t most = (uint16_t)((world->ring->replicas - 1) / 2);
    for (uint16_t i = 0; i < world->node_count; i++) {
        if (!world->nodes[i].served)
            most = 0; /* it may need whoever is left dead to be told that it is new */
    }
    if (most == 0 || world->wiped_count > 0 || world->swarm.cold_read_fails > 0 ||
        !world_chance(world, world->swarm.left_dead))
        return;
    for (uint64_t left = world_draw(world, 1, most); left > 0; left--) {
        struct sim_node *node = &world->nodes[world_draw(world, 0, world->node_count - 1u)];
        node->dead_for_good = true;
        world->oracles.nobody_dies = false;
        if (node->running)
            node_crash(world, node, false);
        world_say(world, HISTORY_KEY_NONE, "%s is left dead for good", node->name);
        world->totals.left_dead++;
    }
}

static void heal(struct world *world)
{
    world->faults_on = false;
    leave_some_dead(world);
    network_heal(world);
    world_say(world, HISTORY_KEY_NONE, "HEALED: network, disks, clocks; everybody is started");
    for (uint16_t i = 0; i < world->node_count; i++) {
        struct sim_node *node = &world->nodes[i];
        node->paused_until_us = world->now_us;
        node->slow_until_us = 0;
        node->full = false;
        node_clock_set(world, node, 0, 0);
        if (!node->running && !node->dead_for_good)
            node_start(world, node);
    }
}

static uint64_t grace_us(const struct world *world)
{
    /* Reconnecting takes at most a second, noticing a silent peer two. */
    uint64_t grace = UINT64_C(4000000);
    /* A clock that was ahead leaves a bound that real time must pass before anything is stamped, and measurements of
     * a clock that was set since are believed for ten seconds. */
    if (world->clock_error_max_us > 0)
        grace += world->clock_error_max_us + UINT64_C(10000000);
    return grace;
}

/* After the healing gossip finds everybody again: a coordinator asks nobody that it holds dead. */
static void check_alive(struct world *world, uint64_t until_us)
{
    while (!world->failed && !oracle_all_alive(world) && world->now_us < until_us)
        world_run_for(world, LOOK_US);
    if (!world->failed && !oracle_all_alive(world))
        world_fail(world, HISTORY_KEY_NONE, "gossip: not all are alive %" PRIu64 " ms after the healing",
                   oracle_liveness_bound_us(world) / 1000);
}

/* Asks the client for every key of the list and drops those that were answered. Returns how many are left. */
static uint32_t ask_keys(struct world *world, struct sim_client *client, uint32_t *keys, uint32_t count,
                         bool write)
{
    uint32_t first[HISTORY_KEYS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        struct operation_plan plan = {.kind = HISTORY_GET, .keys = {keys[i]}, .key_count = 1};
        first[i] = world->history.count;
        client_issue(world, client, &plan);
        plan.kind = HISTORY_SET;
        plan.value_bytes = 16;
        if (write && keys[i] % world->node_count == client->node)
            client_issue(world, client, &plan);
        client_send(world, client);
        while (client->commands_count > SIM_PIPELINE_MAX / 2 && !world->failed)
            world_run_for(world, 1000);
    }
    while (client->commands_count > 0 && !world->failed)
        world_run_for(world, 1000);
    uint32_t left = 0;
    for (uint32_t i = 0; i < count && !world->failed; i++) {
        if (world->history.ops[first[i]].outcome != HISTORY_DONE)
            keys[left++] = keys[i];
    }
    return left;
}

/* With so little memory for rows a replica refuses while it makes room; it must have made some soon: once two flushes
 * are over, the one under way and the next, each of them two waits for the disk of up to twice flush_us. */
#define LITTLE_MEMORY_TRIES 20
#define FLUSHES_WAITS 8
#define TRY_US 50000

/* Long enough for the slowest disk and network of a swarm. */
#define LIVENESS_TIMEOUT_MS 2000

/* A node answers for every key, and (write) takes writes. */
static void check_answers(struct world *world, uint16_t node, bool write)
{
    uint8_t quorum = (uint8_t)(world->ring->replicas / 2 + 1);
    uint16_t shard = (uint16_t)world_draw(world, 0, world->nodes[node].shards - 1u);
    struct sim_client *client = client_open(world, node, shard);
    client_issue_consistency(world, client, quorum, quorum, LIVENESS_TIMEOUT_MS);
    uint32_t keys[HISTORY_KEYS_MAX];
    uint32_t left = world->swarm.keys;
    for (uint32_t key = 0; key < left; key++)
        keys[key] = key;
    uint32_t tries = 1;
    if (world->swarm.row_bytes != 0)
        tries = LITTLE_MEMORY_TRIES + (uint32_t)(FLUSHES_WAITS * world->swarm.flush_us / TRY_US);
    for (uint32_t k = 0; k < tries && left > 0 && !world->failed; k++) {
        client->checked = k + 1 == tries;
        left = ask_keys(world, client, keys, left, write);
        world_run_for(world, TRY_US);
    }
    if (!world->failed)
        client_close(world, client);
}

/* After the healing every node answers for every key. */
static void check_liveness(struct world *world)
{
    for (uint16_t i = 0; i < world->node_count && !world->failed; i++) {
        if (world->nodes[i].running)
            check_answers(world, i, true);
    }
}

/* Once everything has healed and the dead are purged: what is read now is judged with all that was ever answered. */
static void check_after_healing(struct world *world)
{
    uint16_t node = (uint16_t)world_draw(world, 0, world->node_count - 1u);
    while (!world->nodes[node].running)
        node = (uint16_t)((node + 1u) % world->node_count);
    check_answers(world, node, false);
}

void world_run_swarm(struct world *world)
{
    world->faults_on = true;
    world->oracles.nobody_dies = oracle_nobody_dies(&world->swarm);
    for (uint16_t i = 0; i < world->node_count; i++)
        node_start(world, &world->nodes[i]);
    clients_start(world);
    faults_start(world);
    while (!world->failed && world->now_us < FAULTS_US_MAX && !clients_idle(world))
        world_run_for(world, LOOK_US);
    if (!world->failed)
        heal(world);
    uint64_t alive_us = world->now_us + oracle_liveness_bound_us(world);
    world_run_for(world, grace_us(world));
    check_alive(world, alive_us);
    /* A slot that was found damaged takes all other replicas to rebuild, and answers for nothing until then. */
    if (!world->failed && world->swarm.cold_read_fails > 0)
        oracle_converge(world);
    if (!world->failed)
        check_liveness(world);
    if (!world->failed)
        world_run_for(world, 2 * (uint64_t)LIVENESS_TIMEOUT_MS * 1000);
    if (!world->failed)
        oracle_converge(world);
    world->totals.worlds_converged += !world->failed && world->swarm.healing.repair;
    if (!world->failed)
        check_after_healing(world);
    if (!world->failed)
        oracle_quiet(world);
    if (!world->failed)
        oracle_merge_laws(world);
    oracle_register_check(world);
    world->totals.simulated_us = world->now_us;
    for (uint16_t i = 0; i < world->node_count; i++)
        totals_add_shards(world, &world->nodes[i]);
}
