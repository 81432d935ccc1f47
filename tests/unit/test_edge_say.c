/* Log lines: what a message, a name and a time become in logfmt and in JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "edge/say.h"

/* 2026-11-22T06:00:00.007Z */
#define WALL_MS UINT64_C(1795327200007)

static struct alloc test_alloc;

static void expect_line(const struct say_sink *sink, struct span message, const char *expected)
{
    struct buf line;
    buf_init(&line, &test_alloc);
    say_put_line(&line, sink, SAY_WARNING, 3, WALL_MS, message);
    buf_put_u8(&line, 0);
    assert_string_equal((const char *)line.data, expected);
    buf_free(&line);
}

static void logfmt_line_has_time_level_node_shard_and_message(void **state)
{
    (void)state;
    struct say_sink sink = {.shape = SAY_LOGFMT, .node = "n1"};
    expect_line(&sink, span_of_text("the disk is full"),
                "ts=2026-11-22T06:00:00.007Z level=warning node=n1 shard=3 msg=\"the disk is full\"\n");
}

static void json_line_has_the_same(void **state)
{
    (void)state;
    struct say_sink sink = {.shape = SAY_JSON, .node = "n1"};
    expect_line(&sink, span_of_text("the disk is full"),
                "{\"ts\":\"2026-11-22T06:00:00.007Z\",\"level\":\"warning\",\"node\":\"n1\",\"shard\":3,"
                "\"msg\":\"the disk is full\"}\n");
}

static void node_is_left_out_while_it_is_not_known(void **state)
{
    (void)state;
    struct say_sink sink = {.shape = SAY_LOGFMT};
    expect_line(&sink, span_of_text("x"), "ts=2026-11-22T06:00:00.007Z level=warning shard=3 msg=\"x\"\n");
    sink.shape = SAY_JSON;
    expect_line(&sink, span_of_text("x"),
                "{\"ts\":\"2026-11-22T06:00:00.007Z\",\"level\":\"warning\",\"shard\":3,\"msg\":\"x\"}\n");
}

static void line_stays_one_line_whatever_message_and_name_hold(void **state)
{
    (void)state;
    struct say_sink sink = {.shape = SAY_LOGFMT, .node = "a=\"b\""};
    expect_line(&sink, span_of_text("say \"hi\"\\\n\x7f"),
                "ts=2026-11-22T06:00:00.007Z level=warning node=\"a=\\\"b\\\"\" shard=3 "
                "msg=\"say \\\"hi\\\"\\\\\\x0a\\x7f\"\n");
    sink.shape = SAY_JSON;
    expect_line(
        &sink, span_of_text("say \"hi\"\\\n\x7f\xff"),
        "{\"ts\":\"2026-11-22T06:00:00.007Z\",\"level\":\"warning\",\"node\":\"a=\\\"b\\\"\",\"shard\":3,"
        "\"msg\":\"say \\\"hi\\\"\\\\\\n\\u007f\xef\xbf\xbd\"}\n");
}

static void long_message_is_cut(void **state)
{
    (void)state;
    static char text[2 * SAY_BYTES_MAX];
    for (enum say_shape shape = SAY_LOGFMT; shape <= SAY_JSON; shape++) {
        struct say_sink sink = {.shape = shape};
        struct buf line;
        memset(text, 1, sizeof text); /* each needs the longest escape */
        buf_init(&line, &test_alloc);
        say_put_line(&line, &sink, SAY_ERROR, 0, WALL_MS, span_of(text, sizeof text));
        assert_false(line.failed);
        assert_in_range(line.size, SAY_BYTES_MAX, 6 * SAY_BYTES_MAX + 128);
        assert_int_equal(line.data[line.size - 1], '\n');
        buf_free(&line);
    }
}

int main(void)
{
    alloc_init(&test_alloc, SIZE_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logfmt_line_has_time_level_node_shard_and_message),
        cmocka_unit_test(json_line_has_the_same),
        cmocka_unit_test(node_is_left_out_while_it_is_not_known),
        cmocka_unit_test(line_stays_one_line_whatever_message_and_name_hold),
        cmocka_unit_test(long_message_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
