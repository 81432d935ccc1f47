/* RESP requests, fed whole, byte by byte and at random splits, and RESP answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "base/prng.h"
#include "proto/resp.h"
#include "proto/resp_reply.h"

#define BUDGET ((size_t)256 << 20)

static const struct resp_limits limits = {.bulk_bytes_max = 1 << 20, .command_bytes_max = 4 << 20};

enum splitting {
    WHOLE,
    BYTES,
    RANDOM
};

/* Appends "[arg|arg]" or "!text" for one outcome. */
static void render(struct buf *out, enum status status, const struct resp_request *request)
{
    if (status != STATUS_OK) {
        buf_append_text(out, "!");
        buf_append_span(out, request->error);
        return;
    }
    buf_append_text(out, "[");
    for (uint32_t i = 0; i < request->argc; i++) {
        buf_append_text(out, i == 0 ? "" : "|");
        buf_append_span(out, request->argv[i]);
    }
    buf_append_text(out, "]");
}

/* Feeds a stream as a connection does, in a fresh block of exact size each time: a view kept from an earlier call,
 * or a read past the end, is then found by the sanitizer. Ends with "…" when more is wanted. */
static void feed(struct alloc *alloc, struct span stream, enum splitting splitting, struct prng *prng,
                 struct buf *out)
{
    struct resp_parser parser;
    struct resp_request request;
    resp_parser_init(&parser, alloc, &limits);
    size_t start = 0;
    size_t end = splitting == WHOLE ? stream.size : 0;
    enum status status = STATUS_MORE;
    for (;;) {
        uint8_t *block = malloc(end - start + 1);
        assert_non_null(block);
        uint8_t *input = block + 1;
        memcpy(input, stream.data + start, end - start);
        status = resp_parse(&parser, span_of(input, end - start), &request);
        if (status == STATUS_MORE) {
            assert_true(request.need_bytes > end - start);
        } else {
            render(out, status, &request);
        }
        free(block);
        if (status == STATUS_MORE && end == stream.size)
            break;
        if (status == STATUS_MORE)
            end += splitting == BYTES ? 1 : 1 + prng_below(prng, stream.size - end);
        else if (status != STATUS_OK)
            break;
        else
            start += request.consumed;
        if (status == STATUS_OK && start == stream.size)
            break;
    }
    if (status == STATUS_MORE)
        buf_append_text(out, "...");
    resp_parser_free(&parser);
}

static void check_stream(struct span stream, struct span expected)
{
    struct alloc alloc;
    struct prng prng;
    struct buf out;
    alloc_init(&alloc, BUDGET);
    prng_seed(&prng, stream.size);
    for (int round = 0; round < 6; round++) {
        buf_init(&out, &alloc);
        feed(&alloc, stream, round < 2 ? (enum splitting)round : RANDOM, &prng, &out);
        assert_int_equal(out.size, expected.size);
        if (expected.size > 0)
            assert_memory_equal(out.data, expected.data, expected.size);
        buf_free(&out);
    }
    assert_int_equal(alloc.used_bytes, 0);
}

static void check_text(const char *stream, const char *expected)
{
    check_stream(span_of_text(stream), span_of_text(expected));
}

static void arrays_become_arguments(void **state)
{
    (void)state;
    check_text("*1\r\n$4\r\nPING\r\n", "[PING]");
    check_text("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\nb\n\r\n", "[SET|k|a\r\nb\n]");
    check_text("*2\r\n$3\r\nGET\r\n$0\r\n\r\n", "[GET|]");
    check_text("*1\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n*1\r\n$1\r\nc\r\n", "[a][b][c]");
    check_text(
        "*10\r\n$1\r\n0\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$1\r\n6\r\n$1\r\n7\r\n"
        "$1\r\n8\r\n$1\r\n9\r\n*1\r\n$1\r\nx\r\n",
        "[0|1|2|3|4|5|6|7|8|9][x]");
    check_text("*0\r\n*-1\r\n*1\r\n$1\r\na\r\n", "[][][a]");
}

static void incomplete_commands_want_more(void **state)
{
    (void)state;
    const char *text = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    for (size_t size = 1; size < strlen(text); size++)
        check_stream(span_of(text, size), span_of_text("..."));
    check_text("PING", "...");
    check_text("*1\r\n$4\r\nPING\r\n*1", "[PING]...");
}

static void malformed_arrays_get_the_texts_of_redis(void **state)
{
    (void)state;
    const char *count = "!ERR Protocol error: invalid multibulk length";
    const char *bulk = "!ERR Protocol error: invalid bulk length";
    check_text("*x\r\n", count);
    check_text("*\r\n", count);
    check_text("*01\r\n", count);
    check_text("*+1\r\n", count);
    check_text("*-0\r\n", count);
    check_text("*1 \r\n", count);
    check_text("*1\n$4\nping\n", count);
    check_text("*1\rX", count);
    check_text("*1048577\r\n", count);
    check_text("*3000000000\r\n", count);
    check_text("*11111111111111111111111111111111\r\n", count);
    check_text("*1\r\n$-1\r\n", bulk);
    check_text("*1\r\n$x\r\n", bulk);
    check_text("*1\r\n$04\r\nping\r\n", bulk);
    check_text("*1\r\n$\r\n", bulk);
    check_text("*1\r\nfoo\r\n", "!ERR Protocol error: expected '$', got 'f'");
    check_text("*1\r\n*1\r\n", "!ERR Protocol error: expected '$', got '*'");
    check_text("*1\r\n$4\r\npingxx",
               "!ERR Protocol error: expected CRLF behind an argument of the announced length");
    check_text("*1\r\n$1\r\na\r\n*2\r\n$1\r\na\r\n:1\r\n", "[a]!ERR Protocol error: expected '$', got ':'");
}

static void inline_commands_are_split_and_unquoted(void **state)
{
    (void)state;
    check_text("PING\r\n", "[PING]");
    check_text("PING\n", "[PING]");
    check_text("\r\n\n   \r\nPING\r\n", "[][][][PING]");
    check_text("  set \t k  v \r\n", "[set|k|v]");
    check_text("ping \"\"\r\n", "[ping|]");
    check_text("ping \"a b\\x41\\n\\\"\\q\\x4\"\r\n", "[ping|a bA\n\"qx4]");
    check_text("ping 'a\\'b\\n'\r\n", "[ping|a'b\\n]");
    check_text("ping a\"b c\"\r\n", "[ping|ab c]");
    check_text("a b c d e f g h i j k\r\nPING\r\n", "[a|b|c|d|e|f|g|h|i|j|k][PING]");
    const char *unbalanced = "!ERR Protocol error: unbalanced quotes in request";
    check_text("ping \"a\r\n", unbalanced);
    check_text("ping \"a\"b\r\n", unbalanced);
    check_text("ping 'a\r\n", unbalanced);
    check_text("ping 'a'b\r\n", unbalanced);
    check_text("ping \"a\\\r\n", unbalanced);
}

static void http_on_the_wrong_port_is_told_so(void **state)
{
    (void)state;
    check_text("GET /get?key=a HTTP/1.1\r\nHost: x\r\n\r\n",
               "!ERR Protocol error: this is HTTP, but this port speaks RESP (the Redis protocol)");
}

static void an_inline_line_has_a_limit(void **state)
{
    (void)state;
    char *line = malloc(RESP_INLINE_BYTES_MAX + 2);
    assert_non_null(line);
    memset(line, 'a', RESP_INLINE_BYTES_MAX + 2);
    struct alloc alloc;
    struct resp_parser parser;
    struct resp_request request;
    alloc_init(&alloc, BUDGET);
    resp_parser_init(&parser, &alloc, &limits);
    assert_int_equal(resp_parse(&parser, span_of(line, RESP_INLINE_BYTES_MAX), &request), STATUS_MORE);
    assert_int_equal(resp_parse(&parser, span_of(line, RESP_INLINE_BYTES_MAX + 1), &request),
                     STATUS_MALFORMED);
    assert_true(span_is(request.error, "ERR Protocol error: too big inline request"));
    line[RESP_INLINE_BYTES_MAX - 1] = '\n';
    assert_int_equal(resp_parse(&parser, span_of(line, RESP_INLINE_BYTES_MAX + 2), &request), STATUS_OK);
    assert_int_equal(request.argv[0].size, RESP_INLINE_BYTES_MAX - 1);
    resp_parser_free(&parser);
    free(line);
}

static void sizes_past_a_limit_are_refused_before_their_bytes(void **state)
{
    (void)state;
    struct alloc alloc;
    struct resp_parser parser;
    struct resp_request request;
    struct resp_limits small = {.bulk_bytes_max = 10, .command_bytes_max = 60};
    alloc_init(&alloc, BUDGET);
    resp_parser_init(&parser, &alloc, &small);
    assert_int_equal(resp_parse(&parser, span_of_text("*1\r\n$10\r\n"), &request), STATUS_MORE);
    resp_parser_init(&parser, &alloc, &small);
    assert_int_equal(resp_parse(&parser, span_of_text("*1\r\n$11\r\n"), &request), STATUS_TOO_LARGE);
    assert_true(span_is(request.error, "ERR Protocol error: invalid bulk length"));
    /* Ten arguments of at least six bytes cannot fit in 60 with their header. */
    assert_int_equal(resp_parse(&parser, span_of_text("*10\r\n$0\r\n"), &request), STATUS_TOO_LARGE);
    assert_true(span_is(request.error, "ERR Protocol error: the command is too large"));
    resp_parser_free(&parser);
}

static void a_large_value_is_asked_for_once(void **state)
{
    (void)state;
    struct alloc alloc;
    struct resp_parser parser;
    struct resp_request request;
    size_t value = (size_t)16 << 20;
    struct resp_limits wide = {.bulk_bytes_max = value, .command_bytes_max = 2 * value};
    const char *head = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$16777216\r\n";
    size_t total = strlen(head) + value + 2;
    uint8_t *bytes = calloc(1, total);
    assert_non_null(bytes);
    memcpy(bytes, head, strlen(head));
    memcpy(bytes + total - 2, "\r\n", 2);
    alloc_init(&alloc, 0); /* and it allocates nothing */
    resp_parser_init(&parser, &alloc, &wide);
    assert_int_equal(resp_parse(&parser, span_of(bytes, strlen(head)), &request), STATUS_MORE);
    assert_int_equal(request.need_bytes, total);
    assert_int_equal(resp_parse(&parser, span_of(bytes, total), &request), STATUS_OK);
    assert_int_equal(request.argv[2].size, value);
    assert_int_equal(request.consumed, total);
    free(bytes);
}

static void many_arguments_grow_with_the_bytes_and_are_given_back(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf stream;
    struct resp_parser parser;
    struct resp_request request;
    alloc_init(&alloc, BUDGET);
    buf_init(&stream, &alloc);
    resp_parser_init(&parser, &alloc,
                     &(struct resp_limits){.bulk_bytes_max = 10, .command_bytes_max = 16 << 20});

    buf_append_text(&stream, "*1048576\r\n");
    size_t used = alloc.used_bytes;
    assert_int_equal(resp_parse(&parser, buf_span(&stream), &request), STATUS_MORE);
    assert_int_equal(alloc.used_bytes, used);
    for (uint32_t i = 0; i < COMMAND_ARGUMENTS_MAX; i++)
        buf_append_text(&stream, "$1\r\nx\r\n");
    for (size_t size = 4096; size < stream.size; size += 65536)
        assert_int_equal(resp_parse(&parser, span_of(stream.data, size), &request), STATUS_MORE);
    assert_int_equal(resp_parse(&parser, buf_span(&stream), &request), STATUS_OK);
    assert_int_equal(request.argc, COMMAND_ARGUMENTS_MAX);
    assert_true(span_is(request.argv[COMMAND_ARGUMENTS_MAX - 1], "x"));

    assert_int_equal(resp_parse(&parser, span_of_text("PING\r\n"), &request), STATUS_OK);
    assert_ptr_equal(parser.arguments, parser.arguments_inline);
    buf_free(&stream);
    resp_parser_free(&parser);
    assert_int_equal(alloc.used_bytes, 0);
}

static void running_out_of_memory_is_an_outcome(void **state)
{
    (void)state;
    struct alloc alloc;
    struct resp_parser parser;
    struct resp_request request;
    alloc_init(&alloc, 16);
    resp_parser_init(&parser, &alloc, &limits);
    assert_int_equal(resp_parse(&parser, span_of_text("PING a b c d e f g h i j\r\n"), &request),
                     STATUS_OVERLOADED);
    assert_true(request.error.size > 11 && memcmp(request.error.data, "OVERLOADED ", 11) == 0);
    assert_int_equal(
        resp_parse(
            &parser,
            span_of_text("*9\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n"
                         "\r\n$0\r\n\r\n"),
            &request),
        STATUS_OVERLOADED);
    resp_parser_free(&parser);
}

static void random_pipelines_come_out_as_they_went_in(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct prng prng;
        struct alloc alloc;
        struct buf stream;
        struct buf expected;
        prng_seed(&prng, seed);
        alloc_init(&alloc, BUDGET);
        buf_init(&stream, &alloc);
        buf_init(&expected, &alloc);
        uint64_t commands = 1 + prng_below(&prng, 5);
        for (uint64_t i = 0; i < commands; i++) {
            uint64_t count = 1 + prng_below(&prng, 20);
            resp_reply_array(&stream, count);
            buf_append_text(&expected, "[");
            for (uint64_t k = 0; k < count; k++) {
                uint8_t bytes[40];
                size_t size = prng_below(&prng, sizeof bytes);
                for (size_t b = 0; b < size; b++)
                    bytes[b] = (uint8_t) "\r\n$*0a\0\xff"[prng_below(&prng, 8)];
                resp_reply_bulk(&stream, span_of(bytes, size));
                buf_append_text(&expected, k == 0 ? "" : "|");
                buf_append(&expected, bytes, size);
            }
            buf_append_text(&expected, "]");
        }
        check_stream(buf_span(&stream), buf_span(&expected));
        buf_free(&stream);
        buf_free(&expected);
    }
}

/* Any bytes at all: the same outcome however they are split. */
static void random_bytes_have_one_outcome(void **state)
{
    (void)state;
    static const char *const tokens[] = {"*",
                                         "$",
                                         "\r\n",
                                         "1",
                                         "2",
                                         "0",
                                         "-",
                                         "a",
                                         "\"",
                                         "PING",
                                         " ",
                                         "'",
                                         "\\",
                                         "\n",
                                         "\r",
                                         "*1\r\n",
                                         "$1\r\n",
                                         "x\r\n",
                                         "*2\r\n$1\r\na\r\n",
                                         "\\x4"};
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct prng prng;
        struct alloc alloc;
        struct buf stream;
        struct buf whole;
        prng_seed(&prng, seed);
        alloc_init(&alloc, BUDGET);
        buf_init(&stream, &alloc);
        buf_init(&whole, &alloc);
        uint64_t count = 1 + prng_below(&prng, 12);
        for (uint64_t i = 0; i < count; i++)
            buf_append_text(&stream, tokens[prng_below(&prng, sizeof tokens / sizeof tokens[0])]);
        feed(&alloc, buf_span(&stream), WHOLE, &prng, &whole);
        check_stream(buf_span(&stream), buf_span(&whole));
        buf_free(&stream);
        buf_free(&whole);
    }
}

/* ---- answers -------------------------------------------------------------------------------------------- */

static void check_reply(struct buf *buf, const char *expected)
{
    assert_int_equal(buf->size, strlen(expected));
    assert_memory_equal(buf->data, expected, buf->size);
    buf_clear(buf);
}

static void answers_are_encoded_for_both_protocols(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    alloc_init(&alloc, BUDGET);
    buf_init(&buf, &alloc);
    resp_reply_ok(&buf);
    check_reply(&buf, "+OK\r\n");
    resp_reply_simple(&buf, span_of_text("a\r\nb"));
    check_reply(&buf, "+a  b\r\n");
    resp_reply_error(&buf, span_of_text("ERR got '\n'"));
    check_reply(&buf, "-ERR got ' '\r\n");
    resp_reply_integer(&buf, INT64_MIN);
    check_reply(&buf, ":-9223372036854775808\r\n");
    resp_reply_integer(&buf, 0);
    check_reply(&buf, ":0\r\n");
    resp_reply_bulk(&buf, (struct span){0});
    check_reply(&buf, "$0\r\n\r\n");
    resp_reply_text(&buf, "hello");
    check_reply(&buf, "$5\r\nhello\r\n");
    resp_reply_null(&buf, 2);
    resp_reply_null(&buf, 3);
    check_reply(&buf, "$-1\r\n_\r\n");
    resp_reply_null_array(&buf, 2);
    resp_reply_null_array(&buf, 3);
    check_reply(&buf, "*-1\r\n_\r\n");
    resp_reply_array(&buf, 12);
    check_reply(&buf, "*12\r\n");
    resp_reply_map(&buf, 2, 3);
    resp_reply_map(&buf, 3, 3);
    check_reply(&buf, "*6\r\n%3\r\n");
    resp_reply_set(&buf, 2, 3);
    resp_reply_set(&buf, 3, 3);
    check_reply(&buf, "*3\r\n~3\r\n");
    resp_reply_double(&buf, 2, 1.5);
    resp_reply_double(&buf, 3, 1.5);
    check_reply(&buf, "$3\r\n1.5\r\n,1.5\r\n");
    resp_reply_double(&buf, 3, -(double)INFINITY);
    resp_reply_double(&buf, 3, (double)NAN);
    check_reply(&buf, ",-inf\r\n,nan\r\n");
    resp_reply_boolean(&buf, 2, true);
    resp_reply_boolean(&buf, 3, false);
    check_reply(&buf, ":1\r\n#f\r\n");
    resp_reply_verbatim(&buf, 2, span_of_text("ab"));
    resp_reply_verbatim(&buf, 3, span_of_text("ab"));
    check_reply(&buf, "$2\r\nab\r\n=6\r\ntxt:ab\r\n");
    buf_free(&buf);
    assert_int_equal(alloc.used_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_become_arguments),
        cmocka_unit_test(incomplete_commands_want_more),
        cmocka_unit_test(malformed_arrays_get_the_texts_of_redis),
        cmocka_unit_test(inline_commands_are_split_and_unquoted),
        cmocka_unit_test(http_on_the_wrong_port_is_told_so),
        cmocka_unit_test(an_inline_line_has_a_limit),
        cmocka_unit_test(sizes_past_a_limit_are_refused_before_their_bytes),
        cmocka_unit_test(a_large_value_is_asked_for_once),
        cmocka_unit_test(many_arguments_grow_with_the_bytes_and_are_given_back),
        cmocka_unit_test(running_out_of_memory_is_an_outcome),
        cmocka_unit_test(random_pipelines_come_out_as_they_went_in),
        cmocka_unit_test(random_bytes_have_one_outcome),
        cmocka_unit_test(answers_are_encoded_for_both_protocols),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
