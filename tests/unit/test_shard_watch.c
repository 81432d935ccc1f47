/* What a shard notes and shows of itself: slow requests, latencies, figures, its clients; and silence. */
#include <stdio.h>

#include "shard_world.h"

#define ALLOCATION_FAILURES 120u

static const struct world_options one_node = {.nodes = 1, .cold_empty = true};

/* A SET whose log takes `ms`. */
static void slow_set(struct world *world, const char *command, uint64_t ms)
{
    world->node[0].log_held = true;
    world_say(world, 0, 0, command);
    world_pass(world, ms);
    world->node[0].log_held = false;
    world_settle(world);
    assert_string_equal(world_heard(world, 0), "+OK\r\n");
}

static void expect(struct world *world, const char *command, const char *answer)
{
    world_say(world, 0, 1, command);
    assert_string_equal(world_heard(world, 1), answer);
}

static bool answers_with(struct world *world, const char *command, const char *part)
{
    world_say(world, 0, 1, command);
    const char *heard = world_heard(world, 1);
    bool found = strstr(heard, part) != NULL;
    if (!found)
        print_error("%s: no '%s' in '%s'\n", command, part, heard);
    return found;
}

static void open_world(struct world *world)
{
    world_open(world, &one_node);
    warm_up(world);
}

/* ---- the slow log --------------------------------------------------------------------------------------- */

static void request_is_logged_from_its_bound_on_with_the_time_until_its_answer(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    expect(&world, "CONFIG SET slowlog-log-slower-than 5000 slowlog-max-len 10\r\n", "+OK\r\n");
    slow_set(&world, "SET quick v\r\n", 4);
    expect(&world, "SLOWLOG LEN\r\n", ":0\r\n");
    slow_set(&world, "SET exact v\r\n", 5);
    slow_set(&world, "SET slower v EX 100\r\n", 7);
    expect(
        &world, "SLOWLOG GET\r\n",
        "*2\r\n*6\r\n:1\r\n:1700000000\r\n:7000\r\n*5\r\n$3\r\nSET\r\n$6\r\nslower\r\n$1\r\nv\r\n$2\r\nEX\r\n"
        "$3\r\n100\r\n$3\r\n?:0\r\n$0\r\n\r\n"
        "*6\r\n:0\r\n:1700000000\r\n:5000\r\n*3\r\n$3\r\nSET\r\n$5\r\nexact\r\n$1\r\nv\r\n$3\r\n?:0\r\n$"
        "0\r\n\r\n");
    expect(&world, "SLOWLOG RESET\r\n", "+OK\r\n");
    expect(&world, "SLOWLOG GET -1\r\n", "*0\r\n");
    world_close(&world);
}

static void slow_log_keeps_the_newest_entries_that_its_bounds_allow(void **state)
{
    (void)state;
    struct world world;
    char command[64];
    open_world(&world);
    expect(&world, "CONFIG SET slowlog-log-slower-than 1000 slowlog-max-len 3\r\n", "+OK\r\n");
    for (int i = 0; i < 7; i++) {
        (void)snprintf(command, sizeof command, "SET k%d v\r\n", i);
        slow_set(&world, command, 1);
    }
    expect(&world, "SLOWLOG LEN\r\n", ":3\r\n");
    assert_true(answers_with(&world, "SLOWLOG GET 1\r\n", "*1\r\n*6\r\n:6\r\n"));
    expect(&world, "CONFIG SET slowlog-max-len 1\r\n", "+OK\r\n");
    expect(&world, "SLOWLOG LEN\r\n", ":1\r\n");
    expect(&world, "CONFIG SET slowlog-max-len 0\r\n", "+OK\r\n");
    slow_set(&world, "SET k v\r\n", 1);
    expect(&world, "SLOWLOG LEN\r\n", ":0\r\n");
    world_close(&world);
}

static void slow_log_takes_no_more_memory_than_its_part(void **state)
{
    (void)state;
    struct world world;
    char command[3000];
    open_world(&world);
    size_t budget = shard_alloc(world.node[0].shard)->budget_bytes;
    size_t used = shard_alloc(world.node[0].shard)->used_bytes;
    expect(&world, "CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 60000\r\n", "+OK\r\n");
    for (int i = 0; i < 400; i++) {
        int size = snprintf(command, sizeof command, "EXISTS");
        for (int k = 0; k < 20; k++)
            size += snprintf(command + size, sizeof command - (size_t)size, " %0120d", i);
        (void)snprintf(command + size, sizeof command - (size_t)size, "\r\n");
        expect(&world, command, ":0\r\n");
    }
    assert_true(shard_alloc(world.node[0].shard)->used_bytes < used + budget / SLOWLOG_DIVISOR + (64u << 10));
    world_say(&world, 0, 1, "SLOWLOG LEN\r\n");
    assert_int_not_equal(strcmp(world_heard(&world, 1), ":401\r\n"), 0);
    expect(&world, "CONFIG SET slowlog-log-slower-than -1\r\n", "+OK\r\n");
    expect(&world, "SLOWLOG RESET\r\n", "+OK\r\n");
    world_close(&world);
}

/* ---- the latency monitor -------------------------------------------------------------------------------- */

static void latencies_are_kept_by_event_and_second(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    slow_set(&world, "SET unwatched v\r\n", 100);
    expect(&world, "LATENCY LATEST\r\n", "*0\r\n");
    expect(&world, "CONFIG SET latency-monitor-threshold 10\r\n", "+OK\r\n");
    slow_set(&world, "SET k v\r\n", 9);
    expect(&world, "LATENCY LATEST\r\n", "*0\r\n");
    slow_set(&world, "SET k v\r\n", 30);
    slow_set(&world, "SET k v\r\n", 20);
    expect(&world, "LATENCY HISTORY command\r\n", "*1\r\n*2\r\n:1700000000\r\n:30\r\n");
    world_pass(&world, 1000);
    slow_set(&world, "SET k v\r\n", 10);
    expect(&world, "LATENCY HISTORY log-sync\r\n",
           "*2\r\n*2\r\n:1700000000\r\n:30\r\n*2\r\n:1700000001\r\n:10\r\n");
    struct event turn = {.kind = EVENT_TURN_TOOK, .sequence = 9999};
    world_event(&world, 0, &turn);
    assert_int_equal(shard_slow_turn_us(world.node[0].shard), 10000);
    turn.sequence = 55555;
    world_event(&world, 0, &turn);
    expect(&world, "LATENCY LATEST\r\n",
           "*3\r\n*4\r\n$7\r\ncommand\r\n:1700000001\r\n:10\r\n:30\r\n*4\r\n$8\r\nlog-sync\r\n:"
           "1700000001\r\n:10\r\n:30\r\n"
           "*4\r\n$9\r\nloop-turn\r\n:1700000001\r\n:55\r\n:55\r\n");
    assert_true(answers_with(&world, "LATENCY DOCTOR\r\n", "log-sync: 2 seconds"));
    expect(&world, "LATENCY RESET command nonsense\r\n", ":1\r\n");
    expect(&world, "LATENCY RESET\r\n", ":2\r\n");
    expect(&world, "LATENCY RESET\r\n", ":0\r\n");
    expect(&world, "CONFIG SET latency-monitor-threshold 0\r\n", "+OK\r\n");
    assert_true(shard_slow_turn_us(world.node[0].shard) == UINT64_MAX);
    world_close(&world);
}

static void latency_series_end_with_their_newest_samples(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    expect(&world, "CONFIG SET latency-monitor-threshold 1\r\n", "+OK\r\n");
    for (uint32_t i = 0; i < LATENCY_SAMPLES_MAX + 5; i++) {
        struct event turn = {.kind = EVENT_TURN_TOOK, .sequence = UINT64_C(1000) * (i + 1)};
        world_event(&world, 0, &turn);
        world_pass(&world, 1000);
    }
    assert_true(answers_with(&world, "LATENCY HISTORY loop-turn\r\n", "*160\r\n*2\r\n:1700000005\r\n:6\r\n"));
    assert_true(answers_with(&world, "LATENCY HISTORY loop-turn\r\n", "*2\r\n:1700000164\r\n:165\r\n"));
    world_close(&world);
}

/* ---- figures -------------------------------------------------------------------------------------------- */

static void commands_and_errors_are_counted_by_name(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    expect(&world, "CONFIG RESETSTAT\r\n", "+OK\r\n");
    slow_set(&world, "SET k v\r\n", 3);
    world_say(&world, 0, 0,
              "GET k\r\nGET none\r\nGET\r\nNOSUCH\r\nCLIENT NO-EVICT x\r\nCLIENT KILL 1.1.1.1:1\r\n");
    (void)world_heard(&world, 0);
    assert_true(answers_with(
        &world, "INFO commandstats\r\n",
        "cmdstat_set:calls=1,usec=3000,usec_per_call=3000.00,rejected_calls=0,failed_calls=0\r\n"));
    assert_true(
        answers_with(&world, "INFO commandstats\r\n",
                     "cmdstat_get:calls=2,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0\r\n"));
    assert_true(answers_with(&world, "INFO commandstats\r\n",
                             "cmdstat_client|kill:calls=1,usec=0,usec_per_call=0.00,"
                             "rejected_calls=0,failed_calls=1\r\n"));
    expect(&world, "INFO errorstats\r\n", "$37\r\n# Errorstats\r\nerrorstat_ERR:count=4\r\n\r\n");
    assert_true(answers_with(&world, "INFO stats\r\n", "keyspace_hits:1\r\nkeyspace_misses:1\r\n"));
    expect(&world, "LATENCY HISTOGRAM set\r\n",
           "*2\r\n$3\r\nset\r\n*4\r\n$5\r\ncalls\r\n:1\r\n$14\r\nhistogram_usec\r\n*2\r\n:4096\r\n:1\r\n");
    expect(&world, "CONFIG RESETSTAT\r\n", "+OK\r\n");
    expect(&world, "INFO errorstats\r\n", "$14\r\n# Errorstats\r\n\r\n");
    world_close(&world);
}

/* ---- clients -------------------------------------------------------------------------------------------- */

static void killed_client_is_dropped_and_hears_nothing_more(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "SET k v\r\nPING\r\n");
    expect(&world, "CLIENT KILL ID 1\r\n", ":1\r\n");
    assert_true(world.client[0].closed_by_server);
    world.node[0].log_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 0), "");
    expect(&world, "CLIENT KILL ID 1\r\n", ":0\r\n");
    world_leave(&world, 0);
    expect(&world, "CLIENT LIST ID 1\r\n", "$0\r\n\r\n");
    expect(&world, "GET k\r\n", "$1\r\nv\r\n");
    world_close(&world);
}

static void client_that_kills_itself_hears_so_and_no_more(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    world_say(&world, 0, 0, "PING\r\nCLIENT KILL SKIPME no ID 1\r\nPING\r\n");
    assert_string_equal(world_heard(&world, 0), "+PONG\r\n:1\r\n");
    assert_true(world.client[0].closed_by_server);
    world_close(&world);
}

static void unsent_answers_are_shown_as_the_world_tells(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    world_say(&world, 0, 0, "PING\r\n");
    struct event unsent = {.kind = EVENT_CLIENT_UNSENT, .client = 1, .sequence = 123456789};
    world_event(&world, 0, &unsent);
    assert_true(answers_with(&world, "CLIENT LIST ID 1\r\n", " oll=1 omem=12345"));
    assert_true(answers_with(&world, "CLIENT LIST ID 1\r\n", " cmd=ping "));
    world_close(&world);
}

static void silence_is_of_the_commands_that_follow_also_while_they_wait(void **state)
{
    (void)state;
    struct world world;
    open_world(&world);
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "CLIENT REPLY SKIP\r\nSET k v\r\nPING\r\nCLIENT REPLY OFF\r\nSET k w\r\n");
    world.node[0].log_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 0), "+PONG\r\n");
    world_say(&world, 0, 0, "NOSUCH\r\nCLIENT REPLY ON\r\nGET k\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n$1\r\nw\r\n");
    world_close(&world);
}

/* ---- memory --------------------------------------------------------------------------------------------- */

/* Whatever allocation fails: every command has an answer, or its connection is closed. */
static void allocation_that_fails_never_leaves_a_question_without_an_answer(void **state)
{
    static const char commands[] =
        "INFO everything\r\nCLIENT LIST\r\nCLIENT KILL ID 77\r\nSLOWLOG GET\r\nLATENCY LATEST\r\nLATENCY "
        "HISTOGRAM\r\n"
        "LATENCY DOCTOR\r\nCONFIG SET slowlog-max-len 5\r\nCONFIG GET *\r\nCLIENT INFO\r\n";
    (void)state;
    uint32_t untouched = 0;
    for (uint64_t call = 1; call <= ALLOCATION_FAILURES; call++) {
        struct world world;
        open_world(&world);
        expect(&world, "CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 20\r\n", "+OK\r\n");
        expect(&world, "SET k v\r\n", "+OK\r\n");
        struct alloc *alloc = (struct alloc *)(uintptr_t)shard_alloc(world.node[0].shard);
        alloc->fail_at_call = alloc->calls + call;
        world_say(&world, 0, 0, commands);
        untouched += alloc->calls < alloc->fail_at_call;
        alloc->fail_at_call = 0;
        (void)world_heard(&world, 0);
        if (!world.client[0].closed_by_server) {
            world_say(&world, 0, 0, "PING\r\n");
            assert_string_equal(world_heard(&world, 0), "+PONG\r\n");
        }
        world_close(&world);
    }
    assert_true(untouched < ALLOCATION_FAILURES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_logged_from_its_bound_on_with_the_time_until_its_answer),
        cmocka_unit_test(slow_log_keeps_the_newest_entries_that_its_bounds_allow),
        cmocka_unit_test(slow_log_takes_no_more_memory_than_its_part),
        cmocka_unit_test(latencies_are_kept_by_event_and_second),
        cmocka_unit_test(latency_series_end_with_their_newest_samples),
        cmocka_unit_test(commands_and_errors_are_counted_by_name),
        cmocka_unit_test(killed_client_is_dropped_and_hears_nothing_more),
        cmocka_unit_test(client_that_kills_itself_hears_so_and_no_more),
        cmocka_unit_test(unsent_answers_are_shown_as_the_world_tells),
        cmocka_unit_test(silence_is_of_the_commands_that_follow_also_while_they_wait),
        cmocka_unit_test(allocation_that_fails_never_leaves_a_question_without_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
