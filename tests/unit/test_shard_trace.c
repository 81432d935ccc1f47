/* Metrics and timelines of the shard, in a world that moves only when the test says so. */
#include "shard_world.h"

#include "shard/metrics.h"
#include "shard/state.h"

static const struct world_options one_node = {.nodes = 1, .cold_empty = true};
static const struct world_options three_nodes = {.nodes = 3, .cold_empty = true};

/* Every event of a timeline but its numbers and versions, one in a line; the nodes' order is the ring's. */
static void expect_in_order(const char *text, const char *const *events, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *at = strstr(text, events[i]);
        if (at == NULL)
            print_message("missing: %s\nin: %s\n", events[i], text);
        assert_non_null(at);
        text = at + strlen(events[i]);
    }
}

#define EXPECT_IN_ORDER(text, ...)                                           \
    do {                                                                     \
        static const char *const events[] = {__VA_ARGS__};                   \
        expect_in_order((text), events, sizeof(events) / sizeof(events[0])); \
    } while (false)

static void set_tells_stamp_sends_and_who_was_durable(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_say(&world, 0, 0, "RONDO.TRACE SET k v\r\n");
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "*2\r\n+OK\r\n*"));
    EXPECT_IN_ORDER(heard, "begun at n0 shard 0", "us stamped ", "us sent n", "us sent n", "us sent n",
                    "us durable at n", " OK ", "us durable at n", " OK ", "us done\r\n");
    world_close(&world);
}

static void get_tells_whom_it_asked_and_what_they_said(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_say(&world, 0, 0, "RONDO.TRACE GET k\r\n");
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "*2\r\n$-1\r\n*"));
    EXPECT_IN_ORDER(heard, "us asked n0\r\n", "us answered n0 OK nothing\r\n", "us asked for the version n",
                    "us answered n", "us done\r\n");
    world_close(&world);
}

static void failed_request_has_its_error_and_its_timeline(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    for (uint8_t i = 0; i < 3; i++)
        world.node[i].log_held = true;
    world_say(&world, 0, 0, "RONDO.TRACE SET k v\r\n");
    world_pass(&world, WORLD_TIMEOUT_MS + 1);
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "*2\r\n-UNKNOWN "));
    EXPECT_IN_ORDER(heard, "us sent n", "us deadline\r\n", "us outcome unknown\r\n");
    for (uint8_t i = 0; i < 3; i++)
        world.node[i].log_held = false;
    world_settle(&world);
    world_close(&world);
}

static void commands_that_have_no_timeline_are_refused(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world_say(&world, 0, 0, "RONDO.TRACE PING x\r\n");
    assert_true(begins(world_heard(&world, 0), "-ERR RONDO.TRACE takes a command on one key"));
    world_say(&world, 0, 0, "RONDO.TRACE DEL a b\r\n");
    assert_true(begins(world_heard(&world, 0), "-ERR RONDO.TRACE takes a command on one key"));
    world_say(&world, 0, 0, "RONDO.TRACE RONDO.TRACE GET k\r\n");
    assert_true(begins(world_heard(&world, 0), "-ERR RONDO.TRACE takes a command on one key"));
    world_say(&world, 0, 0, "RONDO.TRACE GET\r\n");
    assert_true(begins(world_heard(&world, 0), "-ERR wrong number of arguments for 'rondo.trace'"));
    world_say(&world, 0, 0, "RONDO.TRACE SET k\r\n");
    assert_true(begins(world_heard(&world, 0), "-ERR wrong number of arguments for 'set'"));
    world_say(&world, 0, 0, "RONDO.TRACE INCR k\r\n");
    assert_true(begins(world_heard(&world, 0), "-ERR INCR needs an atomic"));
    world_close(&world);
}

static void http_answers_carry_the_timeline_in_a_header(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world_say_as(&world, CLIENT_HTTP, 0, 0,
                 "PUT /put?key=k HTTP/1.1\r\nHost: h\r\nRondo-Trace: 1\r\nContent-Length: 1\r\n\r\nv");
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "HTTP/1.1 200 "));
    EXPECT_IN_ORDER(heard, "\r\nRondo-Trace: 0us begun at n0 shard 0, ", "us stamped ", ", ",
                    "us durable at n0 OK ", "us done\r\n");
    world_say_as(&world, CLIENT_HTTP, 0, 0, "GET /get?key=k HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_null(strstr(world_heard(&world, 0), "Rondo-Trace"));
    world_close(&world);
}

static void cold_read_is_told(void **state)
{
    (void)state;
    struct world world;
    struct world_options options = {.nodes = 1};
    world_open(&world, &options);
    warm_up(&world);
    world_say(&world, 0, 0, "RONDO.TRACE GET unseen\r\n");
    EXPECT_IN_ORDER(world_heard(&world, 0), "us asked n0\r\n", "us reads its cold tier: n0\r\n",
                    "us answered n0 OK nothing\r\n", "us done\r\n");
    world_close(&world);
}

/* Whatever runs out while a request is traced, it is answered, and nothing is left. */
static void traced_request_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (uint64_t call = 1; call < 200; call++) {
        struct world world;
        struct world_options options = {.nodes = 1, .cold_empty = true};
        world_open(&world, &options);
        warm_up(&world);
        struct alloc *alloc = &world.node[0].shard->alloc;
        alloc->fail_at_call = alloc->calls + call;
        world_say(&world, 0, 0, "RONDO.TRACE SET k v\r\nRONDO.TRACE GET k\r\n");
        alloc->fail_at_call = 0;
        world_settle(&world);
        assert_int_equal(shard_requests_in_flight(world.node[0].shard), 0);
        assert_int_equal(world.node[0].shard->traced_requests, 0);
        world_close(&world);
    }
}

static void times_are_those_of_the_steps_clock(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    const struct metrics *metrics = &world.node[0].shard->metrics;
    const struct histogram *writes = &metrics->times[METRICS_TIME_WRITE];
    const struct histogram *log = &metrics->times[METRICS_TIME_LOG];
    uint64_t writes_before = histogram_count(writes);
    uint64_t sum_before = writes->sum;
    uint64_t log_before = log->sum;
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    world_pass(&world, 30);
    world.node[0].log_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    assert_int_equal(histogram_count(writes), writes_before + 1);
    assert_true(writes->sum - sum_before >= 30000);
    assert_true(log->sum - log_before >= 30000);
    world_close(&world);
}

static void metrics_of_shards_survive_their_frame_and_add_up(void **state)
{
    (void)state;
    struct world world;
    struct buf buf;
    struct stats_sum sum = {0};
    struct stats_sum read;
    world_open(&world, &one_node);
    warm_up(&world);
    world_say(&world, 0, 0, "SET k v\r\nGET k\r\nEXPIRE k 10\r\nDEL k\r\nRONDO.GET k R all\r\n");
    struct stats_sum own;
    metrics_collect(world.node[0].shard, &own);
    assert_int_equal(own.metrics.requests[OPERATION_GET - 1][OUTCOME_DONE - 1][1], 1);
    own.repair_age = 7;
    buf_init(&buf, &world.alloc);
    metrics_put(&buf, &own);
    assert_int_equal(metrics_read(buf_span(&buf), &read), STATUS_OK);
    assert_memory_equal(&read, &own, sizeof own);
    assert_int_equal(metrics_read(span_of(buf.data, buf.size - 1), &read), STATUS_MALFORMED);
    metrics_add(&sum, &own);
    metrics_add(&sum, &own);
    assert_int_equal(sum.commands, 2 * own.commands);
    assert_int_equal(sum.repair_age, 7);
    assert_int_equal(sum.metrics.requests[OPERATION_PUT - 1][OUTCOME_DONE - 1][0],
                     2 * own.metrics.requests[OPERATION_PUT - 1][OUTCOME_DONE - 1][0]);
    assert_int_equal(histogram_count(&sum.metrics.times[METRICS_TIME_WRITE]),
                     2 * histogram_count(&own.metrics.times[METRICS_TIME_WRITE]));
    buf_free(&buf);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_tells_stamp_sends_and_who_was_durable),
        cmocka_unit_test(get_tells_whom_it_asked_and_what_they_said),
        cmocka_unit_test(failed_request_has_its_error_and_its_timeline),
        cmocka_unit_test(commands_that_have_no_timeline_are_refused),
        cmocka_unit_test(http_answers_carry_the_timeline_in_a_header),
        cmocka_unit_test(cold_read_is_told),
        cmocka_unit_test(traced_request_survives_every_failed_allocation),
        cmocka_unit_test(times_are_those_of_the_steps_clock),
        cmocka_unit_test(metrics_of_shards_survive_their_frame_and_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
