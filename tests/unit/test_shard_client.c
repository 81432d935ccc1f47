/* The shard as its clients see it: order of answers, pausing, leaving; flushes, and running out of memory. */
#include <stdio.h>

#include "shard_world.h"

#include "base/prng.h"

#define ALLOCATION_FAILURES 200u

static const struct world_options one_node = {.nodes = 1, .cold_empty = true};
static const struct world_options three_nodes = {.nodes = 3, .cold_empty = true};

/* ---- clients -------------------------------------------------------------------------------------------- */

static void pipelined_commands_answer_in_order(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "PING\r\nSET k v\r\nPING\r\nNONSENSE\r\nGET k\r\n");
    assert_string_equal(world_heard(&world, 0), "+PONG\r\n");
    world.node[0].log_held = false;
    world_settle(&world);
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "+OK\r\n+PONG\r\n-ERR unknown command"));
    assert_non_null(strstr(heard, "\r\n$1\r\nv\r\n"));
    world_close(&world);
}

static void the_clock_is_told_as_redis_tells_it(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    world.node[0].now.wall_ms = 1790000000012;
    world_say(&world, 0, 0, "TIME\r\n");
    assert_string_equal(world_heard(&world, 0), "*2\r\n$10\r\n1790000000\r\n$5\r\n12000\r\n");
    world_close(&world);
}

static void pipelined_get_reads_the_set_before_it_even_while_that_waits_for_the_clock(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    /* The first write of a shard waits until a clock bound is durable. */
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "SET k v\r\nGET k\r\nEXPIRE k 100\r\nGET other\r\n");
    assert_string_equal(world_heard(&world, 0), "");
    world.node[0].log_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 0), "+OK\r\n$1\r\nv\r\n:1\r\n$-1\r\n");
    world_close(&world);
}

static void client_that_leaves_with_commands_in_flight_leaves_nothing_behind(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    size_t used = shard_alloc(world.node[0].shard)->used_bytes;
    for (uint8_t i = 0; i < 3; i++)
        world.node[i].log_held = true;
    world_say(&world, 0, 0, "SET k v\r\nGET k\r\nMGET a b c\r\nMSET a 1 b 2\r\nDBSIZE\r\nPING\r\n");
    world_leave(&world, 0);
    assert_true(shard_requests_in_flight(world.node[0].shard) > 0);
    for (uint8_t i = 0; i < 3; i++)
        world.node[i].log_held = false;
    world_settle(&world);
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 0);
    assert_string_equal(world_heard(&world, 0), "");
    /* Tables may have grown; nothing of the size of the requests is left. */
    assert_true(shard_alloc(world.node[0].shard)->used_bytes < used + (64u << 10));
    world_say(&world, 0, 1, "MGET a b k\r\n");
    assert_string_equal(world_heard(&world, 1), "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\nv\r\n");
    world_close(&world);
}

static void client_with_too_many_commands_in_flight_is_paused_and_resumed(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world.node[0].log_held = true;
    for (uint32_t i = 0; i < CLIENT_COMMANDS_MAX + 10; i++)
        world_say(&world, 0, 0, "SET k v\r\n");
    assert_true(world.client[0].paused);
    assert_true(world.client[0].input.size > 0);
    world.node[0].log_held = false;
    world_settle(&world);
    assert_false(world.client[0].paused);
    assert_int_equal(strlen(world_heard(&world, 0)), 5 * (CLIENT_COMMANDS_MAX + 10));
    world_close(&world);
}

/* Commands are read some at a time; the pause falls among those that were read, and half a command follows them. */
static void a_pause_within_what_was_read_loses_no_command(void **state)
{
    static const char set[] = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    static const char mset[] =
        "*7\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n$1\r\nc\r\n$1\r\n3\r\n";
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world.node[0].log_held = true;
    for (uint32_t i = 0; i < CLIENT_COMMANDS_MAX - 5; i++)
        world_say(&world, 0, 0, set);
    char text[1024];
    int size =
        snprintf(text, sizeof text, "%sPING\r\n%s%s%s%s*2\r\n$3\r\nGET\r\n$1", mset, set, set, set, set);
    assert_true(size > 0 && (size_t)size < sizeof text);
    world_say(&world, 0, 0, text);
    assert_true(world.client[0].paused);
    world.node[0].log_held = false;
    world_settle(&world);
    assert_false(world.client[0].paused);
    world_say(&world, 0, 0, "\r\nb\r\n");
    const char *heard = world_heard(&world, 0);
    for (uint32_t i = 0; i < CLIENT_COMMANDS_MAX - 4; i++, heard += 5)
        assert_true(begins(heard, "+OK\r\n"));
    assert_string_equal(heard, "+PONG\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n$1\r\n2\r\n");
    world_close(&world);
}

static void http_continue_takes_its_place_among_the_answers(void **state)
{
    (void)state;
    struct world world;
    struct world_options options = {.nodes = 1};
    world_open(&world, &options);
    warm_up(&world);
    world.node[0].cold_held = true;
    world_say_as(
        &world, CLIENT_HTTP, 0, 0,
        "GET /get?key=k HTTP/1.1\r\nHost: h\r\n\r\n"
        "PUT /put?key=other HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_string_equal(world_heard(&world, 0), "");
    world.node[0].cold_held = false;
    world_settle(&world);
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "HTTP/1.1 404 "));
    const char *go_on = strstr(heard, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_non_null(go_on);
    assert_string_equal(go_on, "HTTP/1.1 100 Continue\r\n\r\n");
    world_say_as(&world, CLIENT_HTTP, 0, 0, "abcGET /get?key=other HTTP/1.1\r\nHost: h\r\n\r\n");
    heard = world_heard(&world, 0);
    assert_true(begins(heard, "HTTP/1.1 200 "));
    assert_string_equal(heard + strlen(heard) - 7, "\r\n\r\nabc");
    world_close(&world);
}

static void expire_of_a_value_that_was_just_replaced_leaves_the_new_one(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_say(&world, 0, 0, "SET k old\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    /* EXPIRE has read the old value and its override is on the way when the SET is acknowledged. */
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "PEXPIRE k 10\r\n");
    world_say(&world, 1, 1, "SET k new\r\n");
    assert_string_equal(world_heard(&world, 1), "+OK\r\n");
    world.node[0].log_held = false;
    world_settle(&world);
    world_pass(&world, 50);
    world_say(&world, 2, 2, "RONDO.CONSISTENCY R 3\r\nGET k\r\nTTL k\r\n");
    assert_string_equal(world_heard(&world, 2), "+OK\r\n$3\r\nnew\r\n:-1\r\n");
    world_close(&world);
}

/* ---- flushing ------------------------------------------------------------------------------------------- */

static uint64_t rows_dirty(const struct world *world)
{
    return memtable_counters(shard_memtable(world->node[0].shard))->rows_dirty;
}

static void flush_of_a_row_that_changed_meanwhile_leaves_it_dirty(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    world_say(&world, 0, 0, "SET a 1\r\nSET b 1\r\n");
    assert_int_equal(rows_dirty(&world), 2);
    world.node[0].flush_held = true;
    for (int i = 0; i < 12; i++)
        world_pass(&world, 1000);
    assert_non_null(world.node[0].flush);
    assert_int_equal(flush_count(world.node[0].flush), 4); /* and the trees of their slots */
    world_say(&world, 0, 0, "SET b 2\r\n");
    world.node[0].flush_held = false;
    world_settle(&world);
    assert_int_equal(rows_dirty(&world), 1);
    world_close(&world);
}

static void flush_that_fails_leaves_all_rows_dirty_and_is_tried_again(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    world_say(&world, 0, 0, "SET a 1\r\nSET b 1\r\n");
    world.node[0].flush_held = true;
    for (int i = 0; i < 12; i++)
        world_pass(&world, 1000);
    assert_non_null(world.node[0].flush);
    world.node[0].flush = NULL;
    struct event failed = {.kind = EVENT_FLUSH_DONE, .status = STATUS_IO_ERROR};
    world_event(&world, 0, &failed);
    assert_int_equal(rows_dirty(&world), 2);
    world.node[0].flush_held = false;
    world_pass(&world, 500);
    assert_int_equal(rows_dirty(&world), 2);
    world_pass(&world, 1000);
    assert_int_equal(rows_dirty(&world), 0);
    world_close(&world);
}

/* ---- memory and determinism ----------------------------------------------------------------------------- */

static const char *const one_line_commands =
    "SET k v\r\nEXISTS k\r\nSTRLEN k\r\nEXPIRE k 100\r\nTTL k\r\nDBSIZE\r\n"
    "DEL k\r\nMSET a 1 b 2\r\nPING\r\nSET k again\r\n";
#define ONE_LINE_COMMANDS 10u

static uint32_t count_lines(const char *text)
{
    uint32_t count = 0;
    for (; (text = strstr(text, "\r\n")) != NULL; text += 2)
        count++;
    return count;
}

/* Whatever allocation fails: no crash, and every command is answered once, or its connection closed. */
static void allocation_that_fails_never_leaves_a_command_without_an_answer(void **state)
{
    (void)state;
    uint32_t untouched = 0;
    for (uint64_t call = 1; call <= ALLOCATION_FAILURES; call++) {
        struct world world;
        struct world_options options = {.nodes = 3, .cold_empty = call % 2 == 0, .fail_at_call = call};
        world_open(&world, &options);
        world_say(&world, 0, 0, one_line_commands);
        world_say_as(&world, CLIENT_HTTP, 0, 1, "GET /status HTTP/1.1\r\nHost: h\r\n\r\n");
        world_say(&world, 1, 2, "SET k other\r\n");
        for (int i = 0; i < 4; i++)
            world_pass(&world, WORLD_TIMEOUT_MS);
        uint32_t answers = count_lines(world_heard(&world, 0));
        assert_true(answers == ONE_LINE_COMMANDS || world.client[0].closed_by_server);
        assert_true(answers <= ONE_LINE_COMMANDS);
        bool page = begins(world_heard(&world, 1), "HTTP/1.1 ");
        assert_true(page || world.client[1].closed_by_server);
        assert_string_equal(world_heard(&world, 2), "+OK\r\n");
        assert_int_equal(shard_requests_in_flight(world.node[0].shard), 0);
        untouched += shard_alloc(world.node[0].shard)->calls < shard_alloc(world.node[0].shard)->fail_at_call;
        world_close(&world);
    }
    assert_in_range(untouched, 1, ALLOCATION_FAILURES * 3 / 4); /* all that there are were tried */
}

static struct alloc *memory_of(struct world *world)
{
    return (struct alloc *)(uintptr_t)shard_alloc(world->node[0].shard);
}

/* Fills a text with as many commands. */
static void repeat(struct buf *text, const char *command, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        buf_append_text(text, command);
    buf_put_u8(text, 0);
}

/* More is asked for than memory holds: clients wait for their turn, and nobody is refused or cut off. */
static void clients_share_the_memory_for_requests(void **state)
{
    enum {
        clients = 6,
        commands = 500
    };
    (void)state;
    struct world world;
    char set[4100] = "SET k ";
    struct buf text;
    memset(set + strlen(set), 'x', 4000);
    memcpy(set + 4006, "\r\n", 3);
    world_open(&world, &one_node);
    warm_up(&world);
    buf_init(&text, &world.alloc);
    repeat(&text, set, commands);
    world.node[0].log_held = true;
    const struct alloc *alloc = memory_of(&world);
    size_t wanted = (size_t)clients * commands * 4000;
    assert_true(wanted > alloc->budget_bytes);
    for (uint32_t i = 0; i < clients; i++)
        world_say(&world, 0, i, (const char *)text.data);
    assert_true(alloc->used_bytes > alloc->budget_bytes / MEMORY_BUSY_DIVISOR);
    assert_true(alloc->used_bytes < alloc->budget_bytes - alloc->budget_bytes / MEMORY_SHORT_DIVISOR);
    for (uint32_t i = 0; i < clients; i++)
        assert_true(world.client[i].paused);
    world.node[0].log_held = false;
    for (int i = 0; i < 1000; i++)
        world_pass(&world, 1);
    for (uint32_t i = 0; i < clients; i++) {
        assert_int_equal(strlen(world_heard(&world, i)), 5 * commands);
        assert_false(world.client[i].closed_by_server);
    }
    assert_int_equal(shard_counters(world.node[0].shard)->overloads, 0);
    buf_free(&text);
    world_close(&world);
}

/* The last quarter of the memory is for what is under way. */
static void command_that_comes_when_memory_is_short_is_refused_before_anything_is_done(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world_say(&world, 0, 0, "PING\r\n");
    world_heard(&world, 0);
    struct alloc *alloc = memory_of(&world);
    size_t budget_bytes = alloc->budget_bytes;
    alloc->budget_bytes = alloc->used_bytes / 7 * 8;
    uint64_t done = shard_counters(world.node[0].shard)->requests_done;
    world_say(&world, 0, 0, "SET k v\r\nGET k\r\nMGET k l\r\nPING\r\n");
    const char *heard = world_heard(&world, 0);
    for (int i = 0; i < 3; i++) {
        assert_true(begins(heard, "-OVERLOADED "));
        heard = strstr(heard, "\r\n") + 2;
    }
    assert_string_equal(heard, "+PONG\r\n");
    assert_int_equal(shard_counters(world.node[0].shard)->requests_done, done);
    assert_int_equal(shard_requests_in_flight(world.node[0].shard), 0);
    alloc->budget_bytes = budget_bytes;
    world_say(&world, 0, 0, "GET k\r\nSET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "$-1\r\n+OK\r\n");
    world_close(&world);
}

/* Answers that do not fit together leave one after the other. */
static void answers_without_memory_to_gather_them_leave_in_turns(void **state)
{
    enum {
        size = 300000,
        gets = 10
    };
    (void)state;
    struct world world;
    struct buf text;
    world_open(&world, &one_node);
    warm_up(&world);
    buf_init(&text, &world.alloc);
    buf_append_text(&text, "*3\r\n$3\r\nSET\r\n$1\r\nl\r\n$300000\r\n");
    for (int i = 0; i < size; i++)
        buf_put_u8(&text, 'x');
    buf_append_text(&text, "\r\n");
    buf_put_u8(&text, 0);
    world_say(&world, 0, 0, (const char *)text.data);
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    buf_clear(&text);
    buf_append_text(&text, "SET k v\r\n");
    repeat(&text, "GET l\r\n", gets);
    world.node[0].log_held = true;
    world_say(&world, 0, 0, (const char *)text.data);
    assert_string_equal(world_heard(&world, 0), "");
    struct alloc *alloc = memory_of(&world);
    size_t budget_bytes = alloc->budget_bytes;
    alloc->budget_bytes = alloc->used_bytes + size / 2;
    world.node[0].log_held = false;
    for (int i = 0; i < 2 * gets; i++)
        world_pass(&world, 1);
    assert_false(world.client[0].closed_by_server);
    assert_int_equal(strlen(world_heard(&world, 0)), 5 + gets * (size + strlen("$300000\r\n\r\n")));
    alloc->budget_bytes = budget_bytes;
    buf_free(&text);
    world_close(&world);
}

/* A cold read that was asked for, but for whose waiter there was no memory, comes back to nobody. */
static void cold_row_that_nobody_waits_for_is_taken(void **state)
{
    (void)state;
    uint32_t refused = 0;
    uint64_t untouched = 0;
    for (uint64_t call = 1; call <= 20; call++) {
        struct world world;
        struct world_options options = {.nodes = 1};
        world_open(&world, &options);
        warm_up(&world);
        world_say(&world, 0, 1, "PING\r\n");
        struct buf row;
        struct record record = {
            .flags = RECORD_VALUE, .stamp = {.time = 1 << 16, .actor = 7}, .value = span_of_text("v")};
        buf_init(&row, &world.alloc);
        record_put(&row, &record);
        world_cold_put(&world.node[0].tier, span_of_text("cold"), buf_span(&row));
        struct alloc *alloc = (struct alloc *)(uintptr_t)shard_alloc(world.node[0].shard);
        alloc->fail_at_call = alloc->calls + call;
        world_say(&world, 0, 0, "GET cold\r\n");
        bool heard = strcmp(world_heard(&world, 0), "$1\r\nv\r\n") == 0;
        refused += !heard;
        untouched += alloc->calls < alloc->fail_at_call;
        alloc->fail_at_call = 0;
        world_say(&world, 0, 1, "GET cold\r\n");
        world_heard(&world, 1);
        world_say(&world, 0, 1, "GET cold\r\n");
        assert_string_equal(world_heard(&world, 1), "$1\r\nv\r\n");
        buf_free(&row);
        world_close(&world);
    }
    assert_in_range(refused, 5, 19);
    assert_true(untouched > 0); /* all that there are were tried */
}

/* Rows that cannot be flushed fill the memory: writes are refused, what was acknowledged stays readable. */
static void put_that_finds_no_memory_is_refused_and_reads_go_on(void **state)
{
    (void)state;
    struct world world;
    struct world_options options = {.nodes = 1, .memory_bytes = (size_t)16 << 20, .cold_empty = true};
    char value[40000];
    uint32_t stored = 0;
    world_open(&world, &options);
    warm_up(&world);
    world.node[0].flush_held = true;
    memset(value, 'x', sizeof value - 1);
    value[sizeof value - 1] = 0;
    struct buf line;
    buf_init(&line, &world.alloc);
    for (;; stored++) {
        assert_true(stored < 500);
        buf_clear(&line);
        buf_append_format(&line, "SET k%u %s\r\n", stored, value);
        buf_put_u8(&line, 0);
        world_say(&world, 0, 0, (const char *)line.data);
        const char *heard = world_heard(&world, 0);
        if (begins(heard, "-OVERLOADED "))
            break;
        assert_string_equal(heard, "+OK\r\n");
    }
    assert_true(stored > 20);
    world_say(&world, 0, 0, "STRLEN k0\r\nEXISTS k1000\r\n");
    assert_string_equal(world_heard(&world, 0), ":39999\r\n:0\r\n");
    world.node[0].flush_held = false;
    for (int i = 0; i < 5; i++)
        world_pass(&world, 1000);
    world_say(&world, 0, 0, (const char *)line.data);
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    buf_free(&line);
    world_close(&world);
}

static void same_events_give_the_same_trace(void **state)
{
    (void)state;
    uint64_t digests[2];
    for (size_t run = 0; run < 2; run++) {
        struct world world;
        struct prng prng;
        world_open(&world, &three_nodes);
        prng_seed(&prng, 9);
        for (int i = 0; i < 200; i++) {
            struct buf line;
            uint8_t node = (uint8_t)prng_below(&prng, 3);
            uint64_t key = prng_below(&prng, 10);
            buf_init(&line, &world.alloc);
            buf_append_format(&line, "%s k%u %d\r\nGET k%u", prng_chance(&prng, 1, 2) ? "SET" : "EXPIRE",
                              (unsigned)key, i, (unsigned)key);
            buf_append(&line, "\r\n", 3);
            world.node[node].log_held = prng_chance(&prng, 1, 4);
            world_say(&world, node, node, (const char *)line.data);
            buf_free(&line);
            world_pass(&world, prng_below(&prng, 50));
        }
        digests[run] = hash_64(buf_span(&world.trace), 1);
        assert_true(world.trace.size > 1000);
        world_close(&world);
    }
    assert_int_equal(digests[0], digests[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelined_commands_answer_in_order),
        cmocka_unit_test(the_clock_is_told_as_redis_tells_it),
        cmocka_unit_test(pipelined_get_reads_the_set_before_it_even_while_that_waits_for_the_clock),
        cmocka_unit_test(client_that_leaves_with_commands_in_flight_leaves_nothing_behind),
        cmocka_unit_test(client_with_too_many_commands_in_flight_is_paused_and_resumed),
        cmocka_unit_test(a_pause_within_what_was_read_loses_no_command),
        cmocka_unit_test(http_continue_takes_its_place_among_the_answers),
        cmocka_unit_test(expire_of_a_value_that_was_just_replaced_leaves_the_new_one),
        cmocka_unit_test(flush_of_a_row_that_changed_meanwhile_leaves_it_dirty),
        cmocka_unit_test(flush_that_fails_leaves_all_rows_dirty_and_is_tried_again),
        cmocka_unit_test(allocation_that_fails_never_leaves_a_command_without_an_answer),
        cmocka_unit_test(clients_share_the_memory_for_requests),
        cmocka_unit_test(command_that_comes_when_memory_is_short_is_refused_before_anything_is_done),
        cmocka_unit_test(answers_without_memory_to_gather_them_leave_in_turns),
        cmocka_unit_test(cold_row_that_nobody_waits_for_is_taken),
        cmocka_unit_test(put_that_finds_no_memory_is_refused_and_reads_go_on),
        cmocka_unit_test(same_events_give_the_same_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
