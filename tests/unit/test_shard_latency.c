/* Slow replicas, seen from a coordinator: who is asked, who gets company, and what that may cost. */
#include <stdio.h>

#include "shard_world.h"

static const struct world_options three_nodes = {.nodes = 3, .cold_empty = true};

static const struct shard_counters *counters(const struct world *world, uint8_t node)
{
    return shard_counters(world->node[node].shard);
}

/* Which of the other two nodes a read at node 0 goes to, whose answer is on its way. */
static uint8_t asked_by_node_0(const struct world *world)
{
    return world->node[0].pipe[1].size > 0 ? 1 : 2;
}

static void read_all(struct world *world, int reads)
{
    for (int i = 0; i < reads; i++) {
        world_say(world, 0, 0, "GET warm\r\n");
        assert_string_equal(world_heard(world, 0), "$2\r\nup\r\n");
    }
}

static uint32_t count_of(const char *trace, const char *line)
{
    uint32_t count = 0;
    for (const char *at = strstr(trace, line); at != NULL; at = strstr(at + 1, line))
        count++;
    return count;
}

/* Node 0 waits for a node that says nothing; the other one helps. Returns the silent one. */
static uint8_t silence_one(struct world *world)
{
    world->node[0].held[1] = world->node[0].held[2] = true;
    world_say(world, 0, 0, "GET warm\r\n");
    uint8_t silent = asked_by_node_0(world);
    world->node[0].held[3 - silent] = false;
    world_pass(world, 45);
    assert_string_equal(world_heard(world, 0), "$2\r\nup\r\n");
    assert_int_equal(counters(world, 0)->hedges, 1);
    assert_int_equal(counters(world, 0)->hedges_won, 1);
    return silent;
}

static void replicas_alike_are_read_in_turn(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    read_all(&world, 60);
    const char *trace = world_trace(&world);
    assert_in_range(count_of(trace, "n0>n1 GET\n"), 15, 45);
    assert_int_equal(count_of(trace, "n0>n1 GET\n") + count_of(trace, "n0>n2 GET\n"), 60);
    world_close(&world);
}

static void replica_that_was_late_is_not_asked_again_but_for_probes(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    uint8_t silent = silence_one(&world);
    read_all(&world, 200);
    assert_int_equal(counters(&world, 0)->hedges, 1);
    assert_int_equal(counters(&world, 0)->read_probes, 0); /* its first answer is still awaited */
    world_pass(&world, 455);
    world.node[0].held[silent] = false;
    world_pass(&world, 1); /* there it is, after half a second */
    world.node[0].held[silent] = true;
    read_all(&world, 200);
    assert_int_equal(counters(&world, 0)->hedges, 1);
    world_pass(&world, 300);
    read_all(&world, 200);
    assert_int_equal(counters(&world, 0)->hedges, 1);
    assert_int_equal(counters(&world, 0)->read_probes, 1);
    world_close(&world);
}

static void replica_that_is_well_again_is_asked_again(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    uint8_t silent = silence_one(&world);
    world_pass(&world, 455);
    world.node[0].held[silent] = false;
    for (int i = 0; i < 10; i++) {
        world_pass(&world, 300);
        read_all(&world, 50);
    }
    assert_in_range(counters(&world, 0)->read_probes, 1, 9);
    (void)world_trace(&world);
    read_all(&world, 60);
    const char *trace = world_trace(&world);
    assert_in_range(count_of(trace, silent == 1 ? "n0>n1 GET\n" : "n0>n2 GET\n"), 15, 45);
    world_close(&world);
}

/* All replicas but this node's own are silent, and many read. */
static void hedges_stay_within_their_budget(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world.node[0].held[1] = world.node[0].held[2] = true;
    for (int i = 0; i < 100; i++)
        world_say(&world, 0, 0, "GET warm\r\n");
    for (int i = 0; i < 20; i++)
        world_pass(&world, 40);
    assert_int_equal(counters(&world, 0)->hedges, 10);
    assert_true(counters(&world, 0)->hedges_refused >= 90);
    world.node[0].held[1] = world.node[0].held[2] = false;
    world_pass(&world, 1);
    assert_int_equal(count_of(world_heard(&world, 0), "$2\r\nup\r\n"), 100);
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 0);
    world_close(&world);
}

/* Node 0 was to bring the whole record and its disk does not answer; a version from each other node would not do. */
static void hedge_asks_for_the_whole_record_where_none_has_come(void **state)
{
    (void)state;
    static char set[4200];
    static char value[4000];
    struct world_options options = {.nodes = 3};
    struct world world;
    world_open(&world, &options);
    warm_up(&world);
    world_cut(&world, 0, 1);
    world_cut(&world, 0, 2);
    memset(value, 'v', sizeof value - 1);
    (void)snprintf(set, sizeof set, "SET big %s\r\n", value);
    world_say(&world, 1, 1, set);
    assert_string_equal(world_heard(&world, 1), "+OK\r\n");
    world_join(&world, 0, 1);
    world_join(&world, 0, 2);
    (void)world_trace(&world);
    world.node[0].cold_held = true;
    world_say(&world, 0, 0, "GET big\r\n");
    world_pass(&world, 45);
    assert_true(begins(world_heard(&world, 0), "$3999\r\nvvv"));
    const char *trace = world_trace(&world);
    assert_int_equal(count_of(trace, "n0>n1 GET\n"), 1);
    assert_int_equal(count_of(trace, "n0>n2 GET\n"), 1);
    world.node[0].cold_held = false;
    world_settle(&world);
    world_close(&world);
}

/* Nodes 0 and 1 disagree, and node 1's disk does not sync what is written back to it. */
static void write_back_that_is_late_goes_to_another_replica_too(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_cut(&world, 0, 1);
    world_cut(&world, 1, 2);
    world_say(&world, 0, 0, "SET k v\r\n"); /* at nodes 0 and 2 */
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_join(&world, 0, 1);
    world_cut(&world, 0, 2);
    world_pass(&world, 1000);
    world.node[1].log_held = true;
    world_say(&world, 0, 0, "GET k\r\n");
    assert_string_equal(world_heard(&world, 0), "");
    assert_int_equal(counters(&world, 0)->write_backs, 1);
    world_join(&world, 0, 2);
    world_pass(&world, 20);
    assert_string_equal(world_heard(&world, 0), "");
    world_pass(&world, 25);
    assert_string_equal(world_heard(&world, 0), "$1\r\nv\r\n");
    assert_int_equal(counters(&world, 0)->hedges, 1);
    assert_int_equal(counters(&world, 0)->hedges_won, 1);
    world.node[1].log_held = false;
    world_settle(&world);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_alike_are_read_in_turn),
        cmocka_unit_test(replica_that_was_late_is_not_asked_again_but_for_probes),
        cmocka_unit_test(replica_that_is_well_again_is_asked_again),
        cmocka_unit_test(hedges_stay_within_their_budget),
        cmocka_unit_test(hedge_asks_for_the_whole_record_where_none_has_come),
        cmocka_unit_test(write_back_that_is_late_goes_to_another_replica_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
