/* The order of a connection's commands on a key, where some read a quorum and then write. */
#include "shard_world.h"

static const struct world_options one_node = {.nodes = 1, .cold_empty = true};
static const struct world_options three_nodes = {.nodes = 3, .cold_empty = true};

/* What node 0 sends to the others waits, so that no quorum answers. */
static void hold_quorums(struct world *world, bool held)
{
    world->node[0].held[1] = held;
    world->node[0].held[2] = held;
    if (!held)
        world_settle(world);
}

static void pipelined_commands_on_a_key_answer_as_if_sent_one_by_one(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    hold_quorums(&world, true);
    world_say(
        &world, 0, 0,
        "SET k 1\r\nEXPIRE k 100\r\nTTL k\r\nSET k 2 KEEPTTL\r\nGET k\r\nTTL k\r\nGETEX k PERSIST\r\nTTL "
        "k\r\n"
        "PEXPIREAT k 4102444800000\r\nPEXPIREAT k 4102444800007 GT\r\nPEXPIRETIME k\r\nSET k 3 KEEPTTL\r\n"
        "SET k 4\r\nSET k 5 KEEPTTL\r\nTTL k\r\nGET k\r\nGETEX k EXAT 1\r\nEXISTS k\r\nSET k 6 KEEPTTL\r\n"
        "DEL k\r\nGET k\r\n");
    assert_string_equal(world_heard(&world, 0), "");
    hold_quorums(&world, false);
    assert_string_equal(world_heard(&world, 0),
                        "+OK\r\n:1\r\n:100\r\n+OK\r\n$1\r\n2\r\n:100\r\n$1\r\n2\r\n:-1\r\n"
                        ":1\r\n:1\r\n:4102444800007\r\n+OK\r\n"
                        "+OK\r\n+OK\r\n:-1\r\n$1\r\n5\r\n$1\r\n5\r\n:0\r\n+OK\r\n"
                        ":1\r\n$-1\r\n");
    world_close(&world);
}

static void commands_on_other_slots_do_not_wait(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    hold_quorums(&world, true);
    world_say(&world, 0, 0, "EXPIRE k 10\r\n");
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 1);
    world_say(&world, 0, 0, "GET k\r\nSET k v\r\nEXPIRE k 10\r\n");
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 1);
    world_say(&world, 0, 0, "GET other\r\nEXPIRE another 10\r\n");
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 3);
    /* Another connection waits for none of it. */
    world_say(&world, 0, 1, "GET k\r\n");
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 4);
    hold_quorums(&world, false);
    assert_string_equal(world_heard(&world, 0), ":0\r\n$-1\r\n+OK\r\n:1\r\n$-1\r\n:0\r\n");
    assert_string_equal(world_heard(&world, 1), "$-1\r\n");
    world_close(&world);
}

static void reads_do_not_wait_for_plain_writes_nor_those_for_each_other(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    hold_quorums(&world, true);
    world_say(&world, 0, 0, "SET k 1\r\nSET k 2\r\nGET k\r\nGET k\r\nMGET k l\r\nSET other 3\r\n");
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 7);
    hold_quorums(&world, false);
    assert_string_equal(world_heard(&world, 0),
                        "+OK\r\n+OK\r\n$1\r\n2\r\n$1\r\n2\r\n*2\r\n$1\r\n2\r\n$-1\r\n+OK\r\n");
    world_close(&world);
}

/* A read that asks one more replica later must not find there what was written after it. */
static void a_write_waits_for_the_reads_before_it(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_say(&world, 0, 0, "SET k 1\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    hold_quorums(&world, true);
    world_say(&world, 0, 0, "GET k\r\nDEL k\r\nGET k\r\n");
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 1);
    world.node[0].held[1] = false;
    world_settle(&world);
    world_pass(&world, 100); /* the hedge, if the one that is held was asked */
    hold_quorums(&world, false);
    assert_string_equal(world_heard(&world, 0), "$1\r\n1\r\n:1\r\n$-1\r\n");
    world_close(&world);
}

static void commands_on_several_keys_keep_their_place(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    hold_quorums(&world, true);
    /* The MSET waits for the first command, and the GET of another of its keys for the MSET. */
    world_say(&world, 0, 0,
              "GETEX a EX 10\r\nMSET a 1 b 2\r\nGET b\r\nEXPIRE b 100\r\nMGET a b\r\nTTL b\r\n");
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 1);
    hold_quorums(&world, false);
    assert_string_equal(world_heard(&world, 0),
                        "$-1\r\n+OK\r\n$1\r\n2\r\n:1\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n:100\r\n");
    world_close(&world);
}

static void defaults_of_the_connection_count_from_where_they_were_changed(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_cut(&world, 0, 2);
    hold_quorums(&world, true);
    world_say(&world, 0, 0, "GETEX k EX 10\r\nSET k v\r\nRONDO.CONSISTENCY W 3\r\nSET k w\r\n");
    hold_quorums(&world, false);
    assert_true(begins(world_heard(&world, 0), "$-1\r\n+OK\r\n+OK\r\n-CLUSTERDOWN 2 of 3 needed"));
    world_close(&world);
}

static void waiting_commands_of_a_client_that_leaves_are_carried_out_in_order(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    size_t used = shard_alloc(world.node[0].shard)->used_bytes;
    hold_quorums(&world, true);
    world_say(&world, 0, 0,
              "SET k 1\r\nSET k 2 KEEPTTL\r\nDEL k\r\nSET l 3 KEEPTTL\r\nEXPIRE l 100\r\nPING\r\n");
    world_leave(&world, 0);
    hold_quorums(&world, false);
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 0);
    assert_true(shard_alloc(world.node[0].shard)->used_bytes < used + (64u << 10));
    world_say(&world, 0, 1, "GET k\r\nGET l\r\nTTL l\r\n");
    assert_string_equal(world_heard(&world, 1), "$-1\r\n$1\r\n3\r\n:100\r\n");
    world_close(&world);
}

static void clients_with_waiting_commands_end_with_the_shard(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    hold_quorums(&world, true);
    world_say(&world, 0, 0, "EXPIRE k 1\r\nSET k v\r\n");
    world_say(&world, 0, 1, "EXPIRE k 1\r\nSET k v\r\n");
    world_leave(&world, 0);
    world_close(&world); /* which looks for what was not freed */
}

static void a_long_chain_of_commands_that_read_first_ends(void **state)
{
    enum {
        COUNT = 500
    };
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world_say(&world, 0, 0, "SET k v\r\n");
    world.node[0].log_held = true;
    for (int i = 0; i < COUNT; i++)
        world_say(&world, 0, 0, "EXPIRE k 100\r\nGET k\r\n");
    world.node[0].log_held = false;
    world_settle(&world);
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "+OK\r\n"));
    heard += 5;
    for (int i = 0; i < COUNT; i++, heard += 11)
        assert_true(begins(heard, ":1\r\n$1\r\nv\r\n"));
    assert_string_equal(heard, "");
    world_close(&world);
}

static void an_expiry_for_a_value_that_was_replaced_after_it_was_read_counts_for_nothing(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_say(&world, 0, 0, "SET k old\r\n");
    /* GETEX has read the old value and its override is on the way when the SET is acknowledged. */
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "GETEX k EXAT 1\r\n");
    world_say(&world, 1, 1, "SET k new\r\n");
    assert_string_equal(world_heard(&world, 1), "+OK\r\n");
    world.node[0].log_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 0), "+OK\r\n$3\r\nold\r\n");
    world_pass(&world, 50);
    world_say(&world, 2, 2, "RONDO.CONSISTENCY R 3\r\nGET k\r\nTTL k\r\n");
    assert_string_equal(world_heard(&world, 2), "+OK\r\n$3\r\nnew\r\n:-1\r\n");
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelined_commands_on_a_key_answer_as_if_sent_one_by_one),
        cmocka_unit_test(commands_on_other_slots_do_not_wait),
        cmocka_unit_test(reads_do_not_wait_for_plain_writes_nor_those_for_each_other),
        cmocka_unit_test(a_write_waits_for_the_reads_before_it),
        cmocka_unit_test(commands_on_several_keys_keep_their_place),
        cmocka_unit_test(defaults_of_the_connection_count_from_where_they_were_changed),
        cmocka_unit_test(waiting_commands_of_a_client_that_leaves_are_carried_out_in_order),
        cmocka_unit_test(clients_with_waiting_commands_end_with_the_shard),
        cmocka_unit_test(a_long_chain_of_commands_that_read_first_ends),
        cmocka_unit_test(an_expiry_for_a_value_that_was_replaced_after_it_was_read_counts_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
