/* Scenarios of what one node takes for proven of another: that it is equal, that it has a hint. */
#include "proto/frame.h"
#include "repair/exchange.h"
#include "sim/scenarios.h"

#define SECOND UINT64_C(1000000)

/* A tombstone of this age may be purged. */
#define OLD_US (6 * SECOND)

/* Long enough to purge whatever nothing keeps. */
#define PURGED_US (25 * SECOND)

/* u16 slot | u8 serves | floor, in front of a repair message. */
#define FLOOR_BYTES 19u

#define NODES 3

/* Which exchanges may be begun, by whom (from) with whom (to); and the answer that is late. */
struct paths {
    bool closed[NODES][NODES];
    bool lose_puts[NODES]; /* to this node */
    bool stall;            /* n1's log, once n3 sends records to n1 */
    bool keep;             /* the answer of n2 to n1's first question about the key */
    uint64_t session;      /* of that exchange; 0: not begun */
    uint32_t answers;      /* of n2 in that exchange: all are lost, the first one is kept */
    struct buf kept;
};

void prepare_verified(struct swarm *swarm)
{
    prepare_repair(swarm);
    swarm->slow_log_only = true;
}

static struct span message_of(const struct frame *frame)
{
    struct reader body = reader_of(frame->body);
    size_t floors = reader_u16(&body);
    (void)reader_bytes(&body, floors * FLOOR_BYTES);
    return reader_bytes(&body, reader_left(&body));
}

static bool brings_records(const struct frame *frame)
{
    struct exchange_head head;
    return exchange_read_head(message_of(frame), &head) == STATUS_OK && head.type == EXCHANGE_RECORDS;
}

/* Whether a repair request begins an exchange that compares the slot. */
static bool begins_with(struct world *world, const struct frame *frame, uint16_t slot)
{
    static struct merkle none;
    struct exchange_serve *serve;
    merkle_init(&none, &world->alloc);
    if (exchange_serve_begin(&world->alloc, &none, message_of(frame), &serve) != STATUS_OK)
        return false;
    uint16_t asked;
    bool found = false;
    for (uint32_t i = 0; exchange_serve_begins(serve) && exchange_serve_slot(serve, i, &asked); i++)
        found |= asked == slot;
    exchange_serve_free(serve);
    return found;
}

static bool on_a_path(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    struct paths *paths = world->network.filter_context;
    struct frame frame;
    size_t need;
    if (frame_cut(bytes, &frame, &need) != STATUS_OK)
        return false;
    if (frame.type == FRAME_PUT)
        return paths->lose_puts[to];
    if (frame.type == FRAME_REPAIR) {
        bool first = paths->keep && paths->session == 0 && from == 0 && to == 1 && !paths->closed[0][1];
        if (first && begins_with(world, &frame, oracle_key_slot(world, 0)))
            paths->session = frame.request;
        if (paths->stall && from == 2 && to == 0 && brings_records(&frame))
            world->nodes[0].slow_until_us = world->now_us + 600 * SECOND;
        return paths->closed[from][to];
    }
    if (frame.type != FRAME_REPAIR_ANSWER || from != 1 || to != 0 || paths->session == 0 ||
        frame.request != paths->session)
        return false;
    if (paths->answers++ == 0)
        buf_append_span(&paths->kept, bytes);
    return true;
}

static void close_all(struct world *world, struct paths *paths)
{
    *paths = (struct paths){0};
    for (int from = 0; from < NODES; from++) {
        for (int to = 0; to < NODES; to++)
            paths->closed[from][to] = true;
    }
    buf_init(&paths->kept, &world->alloc);
    world->network.filter_context = paths;
    world->network.filter = on_a_path;
}

static bool holds_delete(const struct world *world, uint16_t node, struct version value, bool durable)
{
    const struct oracle_replica *replica = &world->oracles.replica[node][0];
    const struct version *held = durable ? &replica->durable : &replica->held;
    return stamp_compare(held->value, value.value) > 0;
}

/* Until n2 or n1 has got the delete; at most half a minute. */
static void wait_for_delete(struct world *world, uint16_t node, struct version value, bool durable)
{
    uint64_t until_us = world->now_us + 30 * SECOND;
    while (!holds_delete(world, node, value, durable) && world->now_us < until_us && !world->failed)
        world_run_for(world, SECOND / 100);
    script_expect(world, holds_delete(world, node, value, durable), "the delete gets there");
}

static struct version write_everywhere(struct world *world)
{
    script_start(world);
    script_expect(world, script_set(world, 0, 0, 3).outcome == HISTORY_DONE, "the value is there");
    script_settle(world);
    return world->oracles.replica[0][0].held;
}

/* All is well again: the key stays deleted, and its tombstone goes. */
static void expect_gone(struct world *world)
{
    world->network.filter = NULL;
    oracle_converge(world);
    for (uint16_t node = 0; node < NODES && !world->failed; node++) {
        struct script_result read = script_get(world, node, 0, 2);
        script_expect(world, read.outcome == HISTORY_DONE && read.value == VALUE_ABSENT,
                      "the key stays deleted");
    }
}

/* n1 has a delete in memory only: its log stalls. It compares itself with n2, and they are equal. n2 must not purge the
 * tombstone on that word. */
void scenario_verified_before_the_log(struct world *world)
{
    struct paths paths;
    struct sim_node *node = &world->nodes[0];
    struct version value = write_everywhere(world);
    node_crash(world, node, false);
    script_expect(world, script_delete(world, 2, 0, 2).outcome == HISTORY_DONE, "n1 misses the delete");
    world_run_for(world, 3 * OLD_US);
    close_all(world, &paths);
    paths.closed[2][1] = false;
    node_start(world, node);
    world_run_for(world, SECOND);
    paths.stall = true;
    paths.closed[2][0] = false;
    wait_for_delete(world, 0, value, false);
    script_expect(world, !holds_delete(world, 0, value, true), "n1 has the delete in memory only");
    paths.stall = false;
    memset(paths.closed, 0, sizeof paths.closed);
    world_run_for(world, PURGED_US);
    script_expect(world, !holds_delete(world, 0, value, true), "n1's log still stalls");
    node_crash(world, node, true);
    node->slow_until_us = 0;
    node_start(world, node);
    world_run_for(world, PURGED_US);
    expect_gone(world);
}

/* n2's answer to n1's question is late; n1 asks again. Meanwhile an old delete has come to n2. What n1 makes of the
 * first answer is no proof of what n2 held at the second. */
void scenario_verified_by_a_late_answer(struct world *world)
{
    struct paths paths;
    struct version value = write_everywhere(world);
    close_all(world, &paths);
    paths.lose_puts[0] = paths.lose_puts[1] = true;
    script_expect(world, script_delete(world, 2, 0, 1).outcome == HISTORY_DONE, "only n3 has the delete");
    script_part(world, 0, 2, true);
    network_break(world, 0, 2);
    world_run_for(world, OLD_US);
    paths.keep = true;
    paths.closed[0][1] = false;
    for (uint32_t ms = 0; ms < 30000 && paths.answers == 0 && !world->failed; ms++)
        world_run_for(world, 1000);
    script_expect(world, paths.answers == 1, "n2 has answered n1");
    paths.closed[0][1] = true;
    paths.closed[2][1] = false;
    wait_for_delete(world, 1, value, true);
    paths.closed[0][1] = false;
    for (uint32_t ms = 0; ms < 10000 && paths.answers == 1 && !world->failed; ms++)
        world_run_for(world, 1000);
    script_expect(world, paths.answers == 2, "n2 has answered n1 once more");
    paths.closed[0][1] = true;
    network_deliver(world, 1, 0, buf_span(&paths.kept));
    buf_free(&paths.kept);
    world_run_for(world, PURGED_US);
    script_expect(world, holds_delete(world, 1, value, true), "n2 keeps the tombstone that n1 lacks");
    script_part(world, 0, 2, false);
    expect_gone(world);
}

/* n1 holds an expiry for a value that only n3 had, and n3 is gone; n2 holds a later expiry for the value that both
 * have. Each is older than the other in one way: they must become equal all the same. */
void scenario_expiries_that_cross(struct world *world)
{
    struct paths paths;
    (void)write_everywhere(world);
    close_all(world, &paths);
    paths.lose_puts[0] = paths.lose_puts[1] = true;
    script_expect(world, script_set(world, 2, 0, 1).outcome == HISTORY_DONE, "n3 alone has a newer value");
    paths.lose_puts[0] = false;
    script_expect(world, script_expire_of(world, 2, 0, 1000, 1).outcome == HISTORY_DONE,
                  "n3 and n1 have an expiry for it");
    script_settle(world);
    script_expect(world, script_expire_of(world, 1, 0, 2000, 1).outcome == HISTORY_DONE,
                  "n2 has one for the older value");
    script_settle(world);
    const struct version *held[2] = {&world->oracles.replica[0][0].held, &world->oracles.replica[1][0].held};
    script_expect(world,
                  stamp_compare(held[0]->value, held[1]->value) == 0 &&
                      stamp_compare(held[0]->override, held[1]->override) < 0,
                  "n1 and n2 have the same value, and n2 the later expiry");
    node_crash(world, &world->nodes[2], true);
    world->network.filter = NULL;
    oracle_converge(world);
}

/* The first put to n3 is a hint's; all others get lost. */
static bool only_the_hint_to_n3(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    uint32_t *puts = world->network.filter_context;
    (void)from;
    return to == 2 && bytes.size > 4 && bytes.data[4] == FRAME_PUT && (*puts)++ > 0;
}

/* n1 replays a hint to n3, whose answer is late. Meanwhile n3 misses a newer write of the key, which goes into the same
 * hint: the answer is not about that one. */
void scenario_hint_renewed_while_replayed(struct world *world)
{
    uint32_t puts = 0;
    script_start(world);
    node_crash(world, &world->nodes[2], false);
    script_expect(world, script_set(world, 0, 0, 2).outcome == HISTORY_DONE, "n3 misses the value");
    world_run_for(world, 8 * SECOND);
    script_expect(world, healing_of(world, 0).hints == 1, "n1 keeps a hint");
    world->network.filter_context = &puts;
    world->network.filter = only_the_hint_to_n3;
    world->network.extra_delay_us[2][0] = 400000;
    node_start(world, &world->nodes[2]);
    for (uint32_t ms = 0; ms < 10000 && puts == 0 && !world->failed; ms++)
        world_run_for(world, 1000);
    script_expect(world, puts == 1, "the hint is on its way");
    uint32_t newer = script_set_begin(world, 0, 0, 2, 100);
    world_run_for(world, 250000);
    script_expect(world, world->history.ops[newer].outcome == HISTORY_DONE, "n3 misses a newer value");
    world_run_for(world, SECOND);
    world->network.extra_delay_us[2][0] = 0;
    world->network.filter = NULL;
    oracle_converge(world);
}
