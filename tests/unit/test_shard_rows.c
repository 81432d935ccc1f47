/* Pages of rows (GET /local/rows), and the number of keys (DBSIZE, CLUSTER COUNTKEYSINSLOT). */
#include <stdio.h>

#include "shard_world.h"

static const struct world_options one_node = {.nodes = 1, .cold_empty = true};
static const struct world_options three_nodes = {.nodes = 3, .cold_empty = true};

/* The answer's body to GET /local/rows?slot=(the slot of {t})rest; head says with what status. */
static const char *rows_of(struct world *world, uint8_t node, const char *rest, const char *status)
{
    struct buf request;
    buf_init(&request, &world->alloc);
    buf_append_format(&request, "GET /local/rows?slot=%u%s HTTP/1.1\r\nHost: h\r\n\r\n",
                      key_slot(span_of_text("t")), rest);
    buf_put_u8(&request, 0);
    world_say_as(world, CLIENT_HTTP, node, node, (const char *)request.data);
    buf_free(&request);
    const char *answer = world_heard(world, node);
    assert_true(begins(answer, "HTTP/1.1 "));
    assert_true(begins(answer + strlen("HTTP/1.1 "), status));
    const char *body = strstr(answer, "\r\n\r\n");
    assert_non_null(body);
    return body + 4;
}

static uint32_t count_lines(const char *text)
{
    uint32_t lines = 0;
    for (; *text != 0; text++)
        lines += *text == '\n';
    return lines;
}

static void say_resp(struct world *world, uint8_t node, const char *command, const char *answer)
{
    world_say(world, node, 7u, command);
    assert_string_equal(world_heard(world, 7), answer);
}

static void rows_of_a_slot_are_the_same_on_all_replicas(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    say_resp(&world, 0, "SET {t}b 1\r\n", "+OK\r\n");
    say_resp(&world, 0, "SET {t}a \"\\xff\\x00\"\r\n", "+OK\r\n");
    say_resp(&world, 0, "SET {t}c \"q\\\"\" PX 5000\r\n", "+OK\r\n");
    say_resp(&world, 0, "SET {t}d 4\r\n", "+OK\r\n");
    say_resp(&world, 0, "DEL {t}d\r\n", ":1\r\n");
    say_resp(&world, 0, "SET {t}e 5\r\n", "+OK\r\n");
    say_resp(&world, 0, "EXPIRE {t}e 9\r\n", ":1\r\n");
    char first[4096];
    span_copy_text(span_of_text(rows_of(&world, 0, "", "200")), first, sizeof first);
    assert_int_equal(count_lines(first), 6);
    assert_true(begins(first, "{\"key\":\"{t}a\",\"value_base64\":\"/wA=\",\"stamp\":\"1700000000"));
    assert_non_null(strstr(first, "{\"key\":\"{t}c\",\"value\":\"q\\\"\",\"stamp\":"));
    assert_non_null(
        strstr(first, ",\"expiry_ms\":1700000005000,\"live\":true}\n{\"key\":\"{t}d\",\"tombstone\":true,"));
    assert_non_null(strstr(first, ",\"live\":false}\n{\"key\":\"{t}e\",\"value\":\"5\",\"stamp\":"));
    assert_non_null(strstr(first, ",\"override\":{\"stamp\":"));
    assert_non_null(strstr(first, ",\"expiry_ms\":1700000009000},\"live\":true}\n{\"end\":true}\n"));
    assert_string_equal(rows_of(&world, 1, "", "200"), first);
    assert_string_equal(rows_of(&world, 2, "", "200"), first);
    world_close(&world);
}

static void an_expiry_without_its_value_has_no_stamp(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    world_cut(&world, 0, 2);
    world_cut(&world, 1, 2);
    say_resp(&world, 0, "SET {t}a 1\r\n", "+OK\r\n");
    world_join(&world, 0, 2);
    world_join(&world, 1, 2);
    world.node[0].held[2] = true;
    world_say(&world, 0, 7, "EXPIRE {t}a 9\r\n");
    assert_string_equal(world_heard(&world, 7), ":1\r\n");
    world.node[0].held[2] = false;
    world_settle(&world);
    const char *rows = rows_of(&world, 2, "", "200");
    assert_true(begins(rows, "{\"key\":\"{t}a\",\"override\":{\"stamp\":\"1700000000"));
    assert_non_null(strstr(rows, "\"applies_to\":\"1700000000"));
    assert_non_null(strstr(rows, "},\"live\":false}\n{\"end\":true}\n"));
    world_close(&world);
}

/* The "next" of a page's last line, for the next request; false at the end. */
static bool next_of(const char *page, char after[128])
{
    const char *last = strstr(page, "{\"next\":\"");
    if (last == NULL)
        return false;
    last += strlen("{\"next\":\"");
    snprintf(after, 128, "&bytes=1&after=%.*s", (int)strcspn(last, "\""), last);
    return true;
}

static void pages_of_one_row_hold_all_rows_in_order(void **state)
{
    (void)state;
    struct world world;
    char after[128] = "&bytes=1";
    world_open(&world, &one_node);
    for (int i = 0; i < 30; i++) {
        char command[64];
        snprintf(command, sizeof command, "SET {t}%02d v\r\n", 29 - i);
        say_resp(&world, 0, command, "+OK\r\n");
    }
    bool more = true;
    for (int i = 0; i < 30; i++) {
        char key[32];
        snprintf(key, sizeof key, "{\"key\":\"{t}%02d\"", i);
        assert_true(more);
        const char *page = rows_of(&world, 0, after, "200");
        assert_int_equal(count_lines(page), 2);
        assert_true(begins(page, key));
        more = next_of(page, after);
    }
    if (more)
        assert_string_equal(rows_of(&world, 0, after, "200"), "{\"end\":true}\n");
    world_close(&world);
}

/* More dirty rows than a scan copies at once. */
static void page_ends_early_where_many_rows_are_dirty(void **state)
{
    (void)state;
    struct world world;
    char after[128] = "";
    uint32_t rows = 0;
    uint32_t pages = 0;
    world_open(&world, &one_node);
    for (int i = 0; i < 2500; i++) {
        char command[64];
        snprintf(command, sizeof command, "SET {t}%d v\r\n", i);
        say_resp(&world, 0, command, "+OK\r\n");
    }
    for (bool more = true; more; pages++) {
        const char *page = rows_of(&world, 0, after, "200");
        rows += count_lines(page) - 1;
        more = next_of(page, after);
        char *bytes = strstr(after, "&bytes=1");
        if (bytes != NULL)
            memmove(bytes, bytes + strlen("&bytes=1"), strlen(bytes + strlen("&bytes=1")) + 1);
    }
    assert_int_equal(rows, 2500);
    assert_int_equal(pages, 3);
    say_resp(&world, 0, "DBSIZE\r\n", ":2500\r\n");
    world_close(&world);
}

static void page_waits_until_its_rows_are_durable(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    say_resp(&world, 0, "SET warm up\r\n", "+OK\r\n");
    world.node[0].log_held = true;
    say_resp(&world, 0, "SET {t}a 1\r\n", "");
    char request[128];
    snprintf(request, sizeof request, "GET /local/rows?slot=%u HTTP/1.1\r\nHost: h\r\n\r\n",
             key_slot(span_of_text("t")));
    world_say_as(&world, CLIENT_HTTP, 0, 0, request);
    assert_string_equal(world_heard(&world, 0), "");
    world.node[0].log_held = false;
    world_settle(&world);
    assert_non_null(strstr(world_heard(&world, 0), "{\"key\":\"{t}a\",\"value\":\"1\""));
    world_close(&world);
}

static void pages_past_the_bound_are_refused_and_those_within_answered(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    say_resp(&world, 0, "SET warm up\r\n", "+OK\r\n");
    world.node[0].log_held = true;
    say_resp(&world, 0, "SET {t}a 1\r\n", "");
    struct buf requests;
    buf_init(&requests, &world.alloc);
    for (int i = 0; i < 9; i++)
        buf_append_format(&requests, "GET /local/rows?slot=%u HTTP/1.1\r\nHost: h\r\n\r\n",
                          key_slot(span_of_text("t")));
    buf_put_u8(&requests, 0);
    world_say_as(&world, CLIENT_HTTP, 0, 0, (const char *)requests.data);
    buf_free(&requests);
    world.node[0].log_held = false;
    world_settle(&world);
    uint32_t pages = 0;
    const char *heard = world_heard(&world, 0);
    for (const char *at = strstr(heard, "200 OK"); at != NULL; at = strstr(at + 1, "200 OK"))
        pages++;
    assert_int_equal(pages, 8);
    assert_non_null(strstr(heard, "503 Service Unavailable"));
    assert_non_null(strstr(heard, "Retry-After: 1"));
    assert_non_null(strstr(heard, "{\"error\":\"OVERLOADED\""));
    world_close(&world);
}

static void slot_that_does_not_serve_gives_out_no_rows(void **state)
{
    (void)state;
    struct world world;
    const struct world_options amnesiac = {.nodes = 3, .cold_empty = true, .state_of_node_0 = META_AMNESIAC};
    world_open(&world, &amnesiac);
    say_resp(&world, 1, "SET {t}a 1\r\n", "+OK\r\n");
    assert_true(begins(rows_of(&world, 0, "", "503"), "{\"error\":\"QUARANTINED\""));
    assert_true(begins(rows_of(&world, 1, "", "200"), "{\"key\":\"{t}a\""));
    world_close(&world);
}

static void after_must_be_a_key_of_the_slot(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    assert_non_null(strstr(rows_of(&world, 0, "&after=a+b", "400"), "base64url"));
    assert_non_null(strstr(rows_of(&world, 0, "&after=YQ", "400"), "a key of the slot"));
    assert_string_equal(rows_of(&world, 0, "&after=dA", "200"), "{\"end\":true}\n"); /* "t" */
    world_close(&world);
}

static void keys_are_counted_without_tombstones(void **state)
{
    (void)state;
    struct world world;
    char count[64];
    world_open(&world, &three_nodes);
    snprintf(count, sizeof count, "CLUSTER COUNTKEYSINSLOT %u\r\n", key_slot(span_of_text("t")));
    say_resp(&world, 0, count, ":0\r\n");
    say_resp(&world, 0, "SET {t}a 1\r\n", "+OK\r\n");
    say_resp(&world, 0, "SET {t}b 1\r\n", "+OK\r\n");
    say_resp(&world, 0, "SET other 1\r\n", "+OK\r\n");
    say_resp(&world, 0, "DEL {t}a {t}never\r\n", ":1\r\n");
    say_resp(&world, 0, "DEL {t}a\r\n", ":0\r\n");
    say_resp(&world, 0, count, ":1\r\n");
    say_resp(&world, 0, "DBSIZE\r\n", ":2\r\n");
    say_resp(&world, 0, "SET {t}a 1\r\n", "+OK\r\n");
    say_resp(&world, 0, count, ":2\r\n");
    world_pass(&world, 200);
    world_say(&world, 1, 6, count);
    assert_string_equal(world_heard(&world, 6), ":2\r\n");
    say_resp(&world, 0, "CLUSTER COUNTKEYSINSLOT 16384\r\n", "-ERR Invalid slot\r\n");
    world_close(&world);
}

static void keys_of_a_slot_are_the_live_ones(void **state)
{
    (void)state;
    struct world world;
    char list[64];
    world_open(&world, &three_nodes);
    snprintf(list, sizeof list, "CLUSTER GETKEYSINSLOT %u 10\r\n", key_slot(span_of_text("t")));
    say_resp(&world, 0, list, "*0\r\n");
    say_resp(&world, 0, "MSET {t}c 1 {t}a 2 {t}d 3 {t}b 4 other 5\r\n", "+OK\r\n");
    say_resp(&world, 0, "DEL {t}c\r\n", ":1\r\n");
    say_resp(&world, 0, "PEXPIRE {t}d 100\r\n", ":1\r\n");
    world_pass(&world, 200);
    say_resp(&world, 0, list, "*2\r\n$4\r\n{t}a\r\n$4\r\n{t}b\r\n");
    snprintf(list, sizeof list, "CLUSTER GETKEYSINSLOT %u 1\r\n", key_slot(span_of_text("t")));
    say_resp(&world, 0, list, "*1\r\n$4\r\n{t}a\r\n");
    snprintf(list, sizeof list, "CLUSTER GETKEYSINSLOT %u 0\r\n", key_slot(span_of_text("t")));
    say_resp(&world, 0, list, "*0\r\n");
    /* It reads the cold tier, too. */
    world_pass(&world, 12000);
    world_pass(&world, 1000);
    snprintf(list, sizeof list, "CLUSTER GETKEYSINSLOT %u 4000000000\r\n", key_slot(span_of_text("t")));
    world_say(&world, 1, 6, list);
    assert_string_equal(world_heard(&world, 6), "*2\r\n$4\r\n{t}a\r\n$4\r\n{t}b\r\n");
    world_close(&world);
}

static void random_key_is_a_live_one_wherever_it_is(void **state)
{
    (void)state;
    struct world world;
    char command[64];
    bool seen[3] = {false};
    world_open(&world, &one_node);
    say_resp(&world, 0, "RANDOMKEY\r\n", "$-1\r\n");
    for (int i = 0; i < 50; i++) {
        snprintf(command, sizeof command, "SET dead:%d v PX 10\r\n", i);
        say_resp(&world, 0, command, "+OK\r\n");
    }
    world_pass(&world, 100);
    say_resp(&world, 0, "RANDOMKEY\r\n", "$-1\r\n");
    say_resp(&world, 0, "SET live v\r\n", "+OK\r\n");
    for (int i = 0; i < 20; i++)
        say_resp(&world, 0, "RANDOMKEY\r\n", "$4\r\nlive\r\n");
    say_resp(&world, 0, "MSET a 1 b 2\r\nDEL live\r\nSET c 3\r\n", "+OK\r\n:1\r\n+OK\r\n");
    for (int i = 0; i < 200; i++) {
        world_say(&world, 0, 7, "RANDOMKEY\r\n");
        const char *heard = world_heard(&world, 7);
        assert_true(begins(heard, "$1\r\n"));
        assert_in_range(heard[4], 'a', 'c');
        seen[heard[4] - 'a'] = true;
    }
    assert_true(seen[0] && seen[1] && seen[2]);
    world_close(&world);
}

static void node_that_does_not_serve_gives_out_no_keys(void **state)
{
    (void)state;
    struct world world;
    struct world_options options = three_nodes;
    char list[64];
    options.state_of_node_0 = META_AMNESIAC;
    world_open(&world, &options);
    say_resp(&world, 0, "SET {t}a 1\r\n", "+OK\r\n");
    say_resp(&world, 0, "RANDOMKEY\r\n",
             "-QUARANTINED this node may have lost data of that slot, and is not repaired yet\r\n");
    snprintf(list, sizeof list, "CLUSTER GETKEYSINSLOT %u 10\r\n", key_slot(span_of_text("t")));
    world_say(&world, 0, 7, list);
    assert_true(begins(world_heard(&world, 7), "-QUARANTINED "));
    world_close(&world);
}

static void status_tells_of_hints_repair_and_tombstones(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    say_resp(&world, 0, "SET {t}a 1\r\n", "+OK\r\n");
    say_resp(&world, 0, "DEL {t}a {t}b\r\n", ":1\r\n");
    say_resp(&world, 0, "SET {t}c 1 EX 100\r\n", "+OK\r\n");
    world_say_as(&world, CLIENT_HTTP, 0, 0, "GET /status HTTP/1.1\r\nHost: h\r\n\r\n");
    const char *answer = world_heard(&world, 0);
    assert_non_null(strstr(answer, "\"hints\":{\"enabled\":false,\"count\":0,\"bytes\":0,\"targets\":[],"));
    assert_non_null(strstr(answer,
                           "\"peers\":[{\"node\":\"n1\",\"slots\":16384,\"verified\":0,\"never\":16384,"
                           "\"sync_slots\":0},{\"node\":\"n2\","));
    assert_non_null(strstr(answer, "\"tombstones\":{\"count\":2,\"mortal\":1,\"purgeable\":0,"));
    assert_non_null(strstr(answer, "\"blockers\":[]}}\n"));
    /* The request timeout of this world is ten minutes at most, and nobody exchanges anything. */
    world_pass(&world, 700000);
    world_say_as(&world, CLIENT_HTTP, 0, 0, "GET /status HTTP/1.1\r\nHost: h\r\n\r\n");
    answer = world_heard(&world, 0);
    assert_non_null(strstr(answer, "\"oldest_age_ms\":700000,"));
    assert_non_null(strstr(answer, "\"blockers\":[{\"node\":\"n"));
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_a_slot_are_the_same_on_all_replicas),
        cmocka_unit_test(an_expiry_without_its_value_has_no_stamp),
        cmocka_unit_test(pages_of_one_row_hold_all_rows_in_order),
        cmocka_unit_test(page_ends_early_where_many_rows_are_dirty),
        cmocka_unit_test(page_waits_until_its_rows_are_durable),
        cmocka_unit_test(pages_past_the_bound_are_refused_and_those_within_answered),
        cmocka_unit_test(slot_that_does_not_serve_gives_out_no_rows),
        cmocka_unit_test(after_must_be_a_key_of_the_slot),
        cmocka_unit_test(keys_are_counted_without_tombstones),
        cmocka_unit_test(keys_of_a_slot_are_the_live_ones),
        cmocka_unit_test(random_key_is_a_live_one_wherever_it_is),
        cmocka_unit_test(node_that_does_not_serve_gives_out_no_keys),
        cmocka_unit_test(status_tells_of_hints_repair_and_tombstones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
