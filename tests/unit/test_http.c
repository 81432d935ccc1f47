/* HTTP requests, fed whole, byte by byte and at random splits, HTTP answers and JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/prng.h"
#include "proto/http.h"
#include "proto/http_reply.h"
#include "proto/json.h"

#define BUDGET ((size_t)64 << 20)
#define HOST "Host: x\r\n"

static const struct http_limits limits = {
    .target_bytes_max = 100, .headers_bytes_max = 200, .body_bytes_max = 50};

enum splitting {
    WHOLE,
    BYTES,
    RANDOM
};

static void field(struct buf *out, const char *name, struct span value)
{
    if (value.size == 0)
        return;
    buf_append_text(out, name);
    buf_append_text(out, "=");
    buf_append_span(out, value);
    buf_append_text(out, " ");
}

static void render(struct buf *out, const struct http_request *request)
{
    buf_append_text(out, "[");
    buf_append_span(out, request->method_text);
    buf_append_text(out, " ");
    buf_append_span(out, request->path);
    buf_append_text(out, " ");
    for (uint32_t i = 0; i < request->parameters_count; i++) {
        buf_append_text(out, "(");
        buf_append_span(out, request->parameters[i].name);
        buf_append_text(out, ":");
        buf_append_span(out, request->parameters[i].value);
        buf_append_text(out, ") ");
    }
    field(out, "context", request->context);
    field(out, "trace", request->trace);
    field(out, "type", request->content_type);
    field(out, "body", request->body);
    buf_append_text(out, request->body_announced ? "announced " : "");
    buf_append_text(out, request->keep_alive ? "keep]" : "close]");
}

/* Feeds a stream and renders every request; "!400 text" for an error, "..." when a request has begun. Each part is
 * a block of its own that is freed at once: nothing may point into it afterwards. */
static void feed(struct alloc *alloc, struct span stream, enum splitting splitting, struct prng *prng,
                 struct buf *out)
{
    struct http_parser *parser = http_parser_new(alloc, &limits);
    struct http_progress progress;
    assert_non_null(parser);
    size_t at = 0;
    while (at < stream.size) {
        size_t left = stream.size - at;
        size_t size = splitting == WHOLE ? left : splitting == BYTES ? 1 : 1 + prng_below(prng, left);
        uint8_t *block = malloc(size);
        assert_non_null(block);
        memcpy(block, stream.data + at, size);
        enum status status = http_parse(parser, span_of(block, size), &progress);
        free(block);
        if (status == STATUS_MORE) {
            assert_int_equal(progress.consumed, size);
        } else if (status == STATUS_OK) {
            render(out, http_parser_request(parser));
        } else {
            buf_append_format(out, "!%u ", progress.http_status);
            buf_append_span(out, progress.error);
            break;
        }
        at += progress.consumed;
    }
    if (http_parser_busy(parser))
        buf_append_text(out, "...");
    http_parser_free(parser);
}

static void check_stream(struct span stream, struct span expected)
{
    struct alloc alloc;
    struct prng prng;
    struct buf out;
    alloc_init(&alloc, BUDGET);
    prng_seed(&prng, stream.size);
    for (int round = 0; round < 8; round++) {
        buf_init(&out, &alloc);
        feed(&alloc, stream, round < 2 ? (enum splitting)round : RANDOM, &prng, &out);
        if (!span_equal(buf_span(&out), expected))
            print_error("got '%.*s'\nnot '%.*s'\n", (int)out.size, (const char *)out.data, (int)expected.size,
                        (const char *)expected.data);
        assert_true(span_equal(buf_span(&out), expected));
        buf_free(&out);
    }
    assert_int_equal(alloc.used_bytes, 0);
}

static void check_text(const char *stream, const char *expected)
{
    check_stream(span_of_text(stream), span_of_text(expected));
}

/* What llhttp refuses; the reason behind the colon is its own and differs between its versions. */
static void check_not_http(const char *stream)
{
    static const char prefix[] = "!400 this is not an HTTP/1.1 request: ";
    struct alloc alloc;
    struct buf whole;
    struct prng prng;
    alloc_init(&alloc, BUDGET);
    buf_init(&whole, &alloc);
    prng_seed(&prng, 1);
    feed(&alloc, span_of_text(stream), WHOLE, &prng, &whole);
    assert_true(whole.size > strlen(prefix) && memcmp(whole.data, prefix, strlen(prefix)) == 0);
    check_stream(span_of_text(stream), buf_span(&whole));
    buf_free(&whole);
}

static void requests_give_their_fields(void **state)
{
    (void)state;
    check_text("GET /get?key=a&r=2 HTTP/1.1\r\n" HOST "\r\n", "[GET /get (key:a) (r:2) keep]");
    check_text("PUT /put?key=a HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Type: text/plain \r\n"
               "RONDO-CONTEXT:  1-2-3\r\nRondo-Trace: t\r\n\r\nvalue",
               "[PUT /put (key:a) context=1-2-3 trace=t type=text/plain body=value announced keep]");
    check_text("PUT /put?key=a HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n",
               "[PUT /put (key:a) announced keep]");
    check_text("DELETE /delete?key=a HTTP/1.1\r\n" HOST "\r\n", "[DELETE /delete (key:a) keep]");
    check_text("GET /get?key HTTP/1.1\r\n" HOST "\r\n", "[GET /get (key:) keep]");
    check_text("GET /ring?&& HTTP/1.1\r\n" HOST "\r\n", "[GET /ring keep]");
    check_text("GET http://h:1/get?key=a HTTP/1.1\r\n" HOST "\r\n", "[GET /get (key:a) keep]");
    check_text("GET http://h:1 HTTP/1.1\r\n" HOST "\r\n", "[GET / keep]");
    check_text("OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "[OPTIONS * keep]");
    check_text("GET /a HTTP/1.1\r\n" HOST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
               "HTTP2-Settings: AA\r\n\r\n",
               "[GET /a keep]");
    check_text("CONNECT h:1 HTTP/1.1\r\n" HOST "\r\n", "[CONNECT h:1 keep]");
}

static void keys_are_decoded_to_any_bytes(void **state)
{
    (void)state;
    check_text("GET /get?key=a+b%2Bc%20d%26%3D HTTP/1.1\r\n" HOST "\r\n", "[GET /get (key:a b+c d&=) keep]");
    check_text("GET /a+%2Fb HTTP/1.1\r\n" HOST "\r\n", "[GET /a+/b keep]");
    check_text("GET /get?k%65y=a=b HTTP/1.1\r\n" HOST "\r\n", "[GET /get (key:a=b) keep]");
    const char stream[] = "GET /get?key=%00%ff%C3 HTTP/1.1\r\n" HOST "\r\n";
    const char expected[] = "[GET /get (key:\0\xff\xc3) keep]";
    check_stream(span_of(stream, sizeof stream - 1), span_of(expected, sizeof expected - 1));
}

static void bad_targets_are_refused(void **state)
{
    (void)state;
    const char *percent =
        "!400 the target has a '%' that no two hex digits follow; a percent sign is written %25";
    check_text("GET /get?key=% HTTP/1.1\r\n" HOST "\r\n", percent);
    check_text("GET /get?key=%4 HTTP/1.1\r\n" HOST "\r\n", percent);
    check_text("GET /get?key=%4&r=1 HTTP/1.1\r\n" HOST "\r\n", percent);
    check_text("GET /get?key=%xy HTTP/1.1\r\n" HOST "\r\n", percent);
    check_text("GET /get?key=a#b HTTP/1.1\r\n" HOST "\r\n",
               "!400 the target has a raw '#'; in a key it is written %23");
    check_text("GET /get?key=a&key=b HTTP/1.1\r\n" HOST "\r\n",
               "!400 a parameter is given twice in the target");
    check_text("GET /?a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p&q HTTP/1.1\r\n" HOST "\r\n",
               "!400 the target has too many parameters");
}

static void pipelined_requests_come_one_by_one(void **state)
{
    (void)state;
    check_text("GET /a HTTP/1.1\r\n" HOST "\r\nPUT /b HTTP/1.1\r\n" HOST
               "Content-Length: 3\r\n\r\nxyzGET /c HTTP/1.1\r\n" HOST "\r\n",
               "[GET /a keep][PUT /b body=xyz announced keep][GET /c keep]");
    check_text("\r\n\r\nGET /a HTTP/1.1\r\n" HOST "\r\n\r\nGET /b HTTP/1.1\r\n" HOST "\r\n",
               "[GET /a keep][GET /b keep]");
    check_text("GET /a HTTP/1.1\r\n" HOST "\r\nGET /b HT", "[GET /a keep]...");
    check_text("POST /a HTTP/1.1\r\n" HOST
               "Transfer-Encoding: chunked\r\n\r\n3;e=v\r\nabc\r\n2\r\nde\r\n0\r\n"
               "Trailer: rondo\r\n\r\nGET /b HTTP/1.1\r\n" HOST "\r\n",
               "[POST /a body=abcde announced keep][GET /b keep]");
}

static void the_connection_is_kept_by_the_rules_of_its_version(void **state)
{
    (void)state;
    check_text("GET /a HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", "[GET /a close]");
    check_text("GET /a HTTP/1.0\r\n\r\n", "[GET /a close]");
    check_text("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "[GET /a keep]");
    check_text("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
               "[GET /a keep][GET /b close]");
}

static void bad_requests_say_what_is_wrong(void **state)
{
    (void)state;
    check_text("GET /a HTTP/1.1\r\n\r\n", "!400 an HTTP/1.1 request needs a Host header");
    check_text("GET /a HTTP/1.1\r\n" HOST HOST "\r\n", "!400 a header is given twice: host");
    check_text("GET /a HTTP/2.0\r\n" HOST "\r\n", "!505 only HTTP/1.1 and HTTP/1.0 are spoken here");
    check_text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "!505 only HTTP/1.1 and HTTP/1.0 are spoken here");
    check_text("GET /a HTTP/1.1\r\n" HOST "Expect: miracles\r\n\r\n",
               "!417 the only expectation understood is 100-continue");
    check_not_http("*1\r\n$4\r\nPING\r\n");
    check_not_http("\x16\x03\x01");
    check_not_http("GET a HTTP/1.1\r\n\r\n");
    check_not_http("GET /a HTTP/1.1\r\nHost x\r\n\r\n");
    check_not_http("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n");
    check_not_http("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 4\r\n\r\n");
    check_not_http("PUT /a HTTP/1.1\r\n" HOST "Content-Length: -3\r\n\r\n");
    check_not_http("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n\r\n");
    check_not_http("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nxx\r\n");
}

static void limits_hold_to_the_byte(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf stream;
    alloc_init(&alloc, BUDGET);
    buf_init(&stream, &alloc);
    char a[512];
    memset(a, 'a', sizeof a);

    check_text("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 51\r\n\r\n",
               "!413 the body is too large; the limit is 50 bytes");
    check_text("PUT /a HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1e\r\n"
               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n1e\r\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
               "!413 the body is too large; the limit is 50 bytes");
    for (size_t over = 0; over <= 1; over++) {
        buf_clear(&stream);
        buf_append_text(&stream, "GET /");
        buf_append(&stream, a, 99 + over);
        buf_append_text(&stream, " HTTP/1.0\r\n\r\n");
        if (over == 1) {
            check_stream(buf_span(&stream),
                         span_of_text("!414 the request target is too long; the limit is 100 bytes"));
        }
        buf_clear(&stream);
        buf_append_text(&stream, "GET /a HTTP/1.0\r\nX: ");
        buf_append(&stream, a, 199 + over);
        buf_append_text(&stream, "\r\n\r\n");
        check_stream(buf_span(&stream),
                     span_of_text(over == 0 ? "[GET /a close]"
                                            : "!431 the headers are too large; the limit is 200 bytes"));
    }
    /* White space that no callback ever shows is counted as well. */
    buf_clear(&stream);
    buf_append_text(&stream, "GET /a HTTP/1.0\r\nX: ");
    memset(a, ' ', sizeof a);
    buf_append(&stream, a, 400);
    buf_append_text(&stream, "\r\n\r\n");
    check_stream(buf_span(&stream),
                 span_of_text("!431 the request's head is too large; the limit is 300 bytes"));
    buf_free(&stream);
}

static void a_client_that_waits_for_100_continue_is_told_once(void **state)
{
    (void)state;
    struct alloc alloc;
    struct http_progress progress;
    alloc_init(&alloc, BUDGET);
    struct http_parser *parser = http_parser_new(&alloc, &limits);
    struct span head =
        span_of_text("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n");
    for (int round = 0; round < 2; round++) {
        assert_int_equal(http_parse(parser, span_of(head.data, 20), &progress), STATUS_MORE);
        assert_false(progress.send_continue);
        assert_int_equal(http_parse(parser, span_of(head.data + 20, head.size - 20), &progress), STATUS_MORE);
        assert_true(progress.send_continue);
        assert_int_equal(http_parse(parser, span_of_text("x"), &progress), STATUS_MORE);
        assert_false(progress.send_continue);
        assert_int_equal(http_parse(parser, span_of_text("y"), &progress), STATUS_OK);
        assert_true(span_is(http_parser_request(parser)->body, "xy"));
    }
    /* With the body already there nobody waits. */
    struct buf stream;
    buf_init(&stream, &alloc);
    buf_append_span(&stream, head);
    buf_append_text(&stream, "x");
    assert_int_equal(http_parse(parser, buf_span(&stream), &progress), STATUS_MORE);
    assert_false(progress.send_continue);
    buf_free(&stream);
    http_parser_free(parser);
    assert_int_equal(alloc.used_bytes, 0);
}

static void a_small_connection_does_not_allocate_for_its_second_request(void **state)
{
    (void)state;
    struct alloc alloc;
    struct http_progress progress;
    alloc_init(&alloc, BUDGET);
    struct http_parser *parser = http_parser_new(&alloc, &limits);
    struct span request = span_of_text("PUT /put?key=k HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nvalue");
    assert_int_equal(http_parse(parser, request, &progress), STATUS_OK);
    uint64_t calls = alloc.calls;
    for (int i = 0; i < 10; i++)
        assert_int_equal(http_parse(parser, request, &progress), STATUS_OK);
    assert_int_equal(alloc.calls, calls);
    http_parser_free(parser);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct span request =
        span_of_text("PUT /put?key=k HTTP/1.1\r\n" HOST "Rondo-Context: c\r\nContent-Length: 5\r\n\r\nvalue");
    bool passed = false;
    for (uint64_t nth = 1; nth < 20 && !passed; nth++) {
        struct alloc alloc;
        struct http_progress progress;
        alloc_init(&alloc, BUDGET);
        alloc.fail_at_call = nth;
        struct http_parser *parser = http_parser_new(&alloc, &limits);
        if (parser != NULL) {
            enum status status = http_parse(parser, request, &progress);
            passed = status == STATUS_OK;
            if (!passed) {
                assert_int_equal(status, STATUS_OVERLOADED);
                assert_int_equal(progress.http_status, 503);
            }
        }
        http_parser_free(parser);
        assert_int_equal(alloc.used_bytes, 0);
        assert_true(passed == (alloc.calls < nth));
    }
    assert_true(passed);
}

static void a_large_body_is_gathered_and_its_memory_given_back(void **state)
{
    (void)state;
    struct alloc alloc;
    struct http_progress progress;
    size_t size = (size_t)16 << 20;
    struct http_limits wide = {.target_bytes_max = 100, .headers_bytes_max = 200, .body_bytes_max = size};
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 31 >> 3);
    alloc_init(&alloc, size + (1 << 20));
    struct http_parser *parser = http_parser_new(&alloc, &wide);
    size_t before = alloc.used_bytes;
    assert_int_equal(http_parse(parser,
                                span_of_text("PUT /a HTTP/1.1\r\n" HOST "Content-Length: 16777216\r\n\r\n"),
                                &progress),
                     STATUS_MORE);
    assert_true(alloc.used_bytes < before + 1024);
    for (size_t at = 0; at < size; at += 65536) {
        enum status status = http_parse(parser, span_of(bytes + at, 65536), &progress);
        assert_int_equal(status, at + 65536 == size ? STATUS_OK : STATUS_MORE);
    }
    assert_true(span_equal(http_parser_request(parser)->body, span_of(bytes, size)));
    assert_int_equal(http_parse(parser, span_of_text("GET /a HTTP/1.0\r\n\r\n"), &progress), STATUS_OK);
    assert_true(alloc.used_bytes < before + 1024);
    http_parser_free(parser);
    free(bytes);
}

static void random_streams_have_one_outcome(void **state)
{
    (void)state;
    static const char *const tokens[] = {"GET /a",
                                         "PUT /b?key=",
                                         "POST ",
                                         " HTTP/1.1\r\n",
                                         " HTTP/1.0\r\n",
                                         "Host: x\r\n",
                                         "Content-Length: 2\r\n",
                                         "Transfer-Encoding: chunked\r\n",
                                         "\r\n",
                                         "\r\n\r\n",
                                         "ab",
                                         "2\r\nab\r\n",
                                         "0\r\n\r\n",
                                         "%41",
                                         "&r=1",
                                         "X: y\r\n",
                                         "Connection: close\r\n",
                                         "Expect: 100-continue\r\n",
                                         "\n",
                                         " ",
                                         "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
                                         ":",
                                         "\xff"};
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
        if (prng_chance(&prng, 2, 3))
            buf_append_text(&stream, "PUT /a?key=b HTTP/1.1\r\nHost: x\r\n");
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
    if (!span_is(buf_span(buf), expected))
        print_error("got '%.*s'\nnot '%s'\n", (int)buf->size, (const char *)buf->data, expected);
    assert_true(span_is(buf_span(buf), expected));
    buf_clear(buf);
}

static void answers_have_their_headers(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    alloc_init(&alloc, BUDGET);
    buf_init(&buf, &alloc);
    struct http_reply reply = {.http_status = 200,
                               .version_minor = 1,
                               .keep_alive = true,
                               .body = span_of_text("ab"),
                               .content_type = "application/octet-stream",
                               .context = span_of_text("1-0-a")};
    http_reply(&buf, &reply);
    check_reply(&buf, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 2\r\n"
                      "Rondo-Context: 1-0-a\r\n\r\nab");
    reply.head = true;
    reply.version_minor = 0;
    http_reply(&buf, &reply);
    check_reply(&buf, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 2\r\n"
                      "Rondo-Context: 1-0-a\r\nConnection: keep-alive\r\n\r\n");
    http_reply(&buf, &(struct http_reply){.http_status = 204, .keep_alive = true, .version_minor = 1});
    check_reply(&buf, "HTTP/1.1 204 No Content\r\n\r\n");

    struct http_error error = {.error = "UNAVAILABLE",
                               .message = span_of_text("a \"b\"\n"),
                               .counted = true,
                               .needed = 2,
                               .acks = 1};
    http_reply_error(&buf, &(struct http_reply){.http_status = 503, .retry_after_s = 1, .allow = "GET"},
                     &error);
    check_reply(&buf,
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 66\r\n"
                "Retry-After: 1\r\nAllow: GET\r\nConnection: close\r\n\r\n"
                "{\"error\":\"UNAVAILABLE\",\"message\":\"a \\\"b\\\"\\n\",\"needed\":2,\"acks\":1}\n");
    http_reply_continue(&buf);
    check_reply(&buf, "HTTP/1.1 100 Continue\r\n\r\n");
    buf_free(&buf);
    assert_int_equal(alloc.used_bytes, 0);
}

static void only_an_unknown_outcome_is_504(void **state)
{
    (void)state;
    for (int status = 0; status < STATUS_COUNT; status++) {
        uint16_t http_status = http_status_of((enum status)status);
        assert_true((http_status == 504) == (status == STATUS_OUTCOME_UNKNOWN));
        assert_string_not_equal(http_status_reason(http_status), "Unknown");
    }
}

static void strings_become_valid_json(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    alloc_init(&alloc, BUDGET);
    buf_init(&buf, &alloc);
    json_put_string(&buf, span_of_text("a\"\\/\b\f\n\r\t\x01\x7f"));
    check_reply(&buf, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u007f\"");
    json_put_escaped(&buf, span_of("\0", 1));
    check_reply(&buf, "\\u0000");
    /* Well-formed: two, three and four bytes. */
    json_put_escaped(&buf, span_of_text("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"));
    check_reply(&buf, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
#define BAD "\xef\xbf\xbd"
    /* The Unicode standard's example of maximal parts, overlong forms, surrogates, past the end, cut off. */
    json_put_escaped(&buf, span_of_text("a\xf1\x80\x80\xe1\x80\xc2"
                                        "b\x80"
                                        "c\x80\xbf"
                                        "d"));
    check_reply(&buf, "a" BAD BAD BAD "b" BAD "c" BAD BAD "d");
    json_put_escaped(&buf, span_of_text("\xc0\xaf\xe0\x80\xed\xa0\x80\xf4\x90\xff"));
    check_reply(&buf, BAD BAD BAD BAD BAD BAD BAD BAD BAD BAD);
    json_put_escaped(&buf, span_of_text("x\xe2\x82"));
    check_reply(&buf, "x" BAD);
    buf_free(&buf);
    assert_true(json_is_text(span_of_text("")));
    assert_true(json_is_text(span_of("a\0\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 11)));
    assert_false(json_is_text(span_of_text("x\xe2\x82")));
    assert_false(json_is_text(span_of_text("\xed\xa0\x80")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_give_their_fields),
        cmocka_unit_test(keys_are_decoded_to_any_bytes),
        cmocka_unit_test(bad_targets_are_refused),
        cmocka_unit_test(pipelined_requests_come_one_by_one),
        cmocka_unit_test(the_connection_is_kept_by_the_rules_of_its_version),
        cmocka_unit_test(bad_requests_say_what_is_wrong),
        cmocka_unit_test(limits_hold_to_the_byte),
        cmocka_unit_test(a_client_that_waits_for_100_continue_is_told_once),
        cmocka_unit_test(a_small_connection_does_not_allocate_for_its_second_request),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_large_body_is_gathered_and_its_memory_given_back),
        cmocka_unit_test(random_streams_have_one_outcome),
        cmocka_unit_test(answers_have_their_headers),
        cmocka_unit_test(only_an_unknown_outcome_is_504),
        cmocka_unit_test(strings_become_valid_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
