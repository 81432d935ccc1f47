/* Scenarios of clocks and expiries. */
#include "sim/scenarios.h"

static void expect_value(struct world *world, uint32_t key, uint32_t value, const char *text)
{
    for (uint16_t node = 0; node < world->node_count; node++) {
        struct script_result read = script_get(world, node, key, 2);
        script_expect(world, read.outcome == HISTORY_DONE && read.value == value, text);
    }
}

/* n1's clock is ahead; n2's is behind, and n2 has not seen n1's write when it coordinates the next one. */
void scenario_fast_clock_slow_clock(struct world *world)
{
    script_start(world);
    node_clock_set(world, &world->nodes[0], 200000, 0);
    node_clock_set(world, &world->nodes[1], -40000, 0);
    script_part(world, 0, 1, true);
    struct script_result first = script_set(world, 0, 0, 2);
    script_part(world, 0, 1, false);
    struct script_result second = script_set(world, 1, 0, 2);
    script_expect(world, first.outcome == HISTORY_DONE && second.outcome == HISTORY_DONE,
                  "both writes are done");
    script_settle(world);
    script_expect(world, shard_counters(world->nodes[1].shard[0].shard)->restamps == 1,
                  "the second write was stamped anew");
    expect_value(world, 0, second.value, "the later write is read");
}

static bool lose_puts_of_n1(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    (void)world;
    (void)to;
    return from == 0 && bytes.size > 4 && bytes.data[4] == FRAME_PUT;
}

/* The EXPIRE found value 1; its override stays on n1 alone while the value is replaced. */
void scenario_expire_of_an_old_value(struct world *world)
{
    script_start(world);
    struct script_result first = script_set(world, 1, 1, 3);
    script_expect(world, first.outcome == HISTORY_DONE, "the first write is done");
    world->network.filter = lose_puts_of_n1;
    (void)script_expire(world, 0, 1, 1);
    world->network.filter = NULL;
    struct script_result second = script_set(world, 1, 1, 2);
    script_expect(world, second.outcome == HISTORY_DONE, "the second write is done");
    world_run_for(world, 2500000);
    expect_value(world, 1, second.value, "the second value has no expiry");
}

void scenario_expiry_is_not_a_write(struct world *world)
{
    script_start(world);
    node_clock_set(world, &world->nodes[0], 150000, 0);
    node_clock_set(world, &world->nodes[1], -90000, 0);
    struct script_result first = script_set_ttl(world, 0, 1, 3, 300);
    script_expect(world, first.outcome == HISTORY_DONE, "the first write is done");
    struct version before = world->oracles.replica[1][1].durable;
    world_run_for(world, 800000);
    expect_value(world, 1, VALUE_ABSENT, "the value has expired everywhere");
    script_expect(world, version_equal(before, world->oracles.replica[1][1].durable),
                  "reading an expired row writes nothing");
    struct script_result second = script_set(world, 1, 1, 2);
    script_expect(world, second.outcome == HISTORY_DONE, "the second write is done");
    script_settle(world);
    expect_value(world, 1, second.value, "a write at a slow clock wins over what has expired");
}

void scenario_persisted_clock_bound_ahead(struct world *world)
{
    script_start(world);
    for (int round = 0; round < 3; round++) {
        script_expect(world, script_set(world, 0, 0, 2).outcome == HISTORY_DONE, "n1 writes");
        node_crash(world, &world->nodes[0], false);
        node_start(world, &world->nodes[0]);
        /* Half of the skew bound at most, and some time to connect. */
        world_run_for(world, 600000);
        struct script_result write = script_set(world, 0, 0, 3);
        script_expect(world, write.outcome == HISTORY_DONE, "n1 writes again soon after its restart");
        expect_value(world, 0, write.value, "that write is read");
    }
    /* A node that crashes again and again must not push its bound ahead of itself. */
    for (int round = 0; round < 30; round++) {
        world_run_for(world, 20000);
        (void)script_set_begin(world, 0, 0, 2, 1000);
        world_run_for(world, 20000);
        node_crash(world, &world->nodes[0], false);
        node_start(world, &world->nodes[0]);
    }
    world_run_for(world, 600000);
    script_expect(world, script_set(world, 0, 0, 2).outcome == HISTORY_DONE,
                  "n1 writes soon after many restarts");
}

/* n1 coordinates for a key that it does not hold, so nothing but the persisted bound remembers its stamps. Its clock
 * is set back while it is down. */
static bool lose_answers_to_n1(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    (void)world;
    (void)from;
    return to == 0 && bytes.size > 4 && bytes.data[4] == FRAME_PUT_ACK;
}

/* Writes close behind each other, each given up after two milliseconds. */
static void write_densely(struct world *world, uint32_t key, int count)
{
    uint32_t timeout_ms = world->swarm.request_timeout_ms;
    world->swarm.request_timeout_ms = 2;
    for (int i = 0; i < count && !world->failed; i++)
        (void)script_set(world, 0, key, 2);
    world->swarm.request_timeout_ms = timeout_ms;
}

/* n1 holds nothing of the key, and hears of no stamp after its restart: only its persisted clock bound keeps it from
 * living through the same milliseconds twice. */
void scenario_stamps_after_a_restart(struct world *world)
{
    script_start(world);
    uint32_t key = 0;
    while (script_replica(world, key, 0) == 0 || script_replica(world, key, 1) == 0 ||
           script_replica(world, key, 2) == 0)
        key++;
    write_densely(world, key, 60);
    node_crash(world, &world->nodes[0], false);
    node_clock_set(world, &world->nodes[0], -120000, 0);
    node_start(world, &world->nodes[0]);
    world_run_for(world, 10000);
    world->network.filter = lose_answers_to_n1;
    write_densely(world, key, 120);
    world->network.filter = NULL;
    world_run_for(world, 600000);
    uint32_t done = 0;
    for (int i = 0; i < 100 && !world->failed; i++)
        done += script_set(world, 0, key, 2).outcome == HISTORY_DONE;
    script_expect(world, done > 50, "n1 writes again");
}
