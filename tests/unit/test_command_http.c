/* HTTP requests to commands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "proto/command.h"
#include "proto/http.h"

#define BUDGET ((size_t)64 << 20)
#define NOW UINT64_C(1700000000000)

static const struct command_limits limits = {
    .key_bytes_max = 8, .value_bytes_max = 16, .timeout_ms_max = 60000};

struct fixture {
    struct alloc alloc;
    struct buf error;
    struct buf line;
    struct command command;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    if (fixture == NULL)
        return -1;
    alloc_init(&fixture->alloc, BUDGET);
    buf_init(&fixture->error, &fixture->alloc);
    buf_init(&fixture->line, &fixture->alloc);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    buf_free(&fixture->error);
    buf_free(&fixture->line);
    int leaked = fixture->alloc.used_bytes != 0;
    free(fixture);
    return leaked;
}

struct http_case {
    const char *request;  /* method and target */
    uint16_t http_status; /* 0 = a command */
    const char *error;
};

/* Runs a request of this method and target; its body, unless NULL, is sent with a length. */
static enum status http_run(struct fixture *fixture, const char *request, const char *body,
                            struct http_refusal *refusal, struct http_parser **parser)
{
    struct http_limits http_limits = {
        .target_bytes_max = 500, .headers_bytes_max = 500, .body_bytes_max = 100};
    struct http_progress progress;
    *parser = http_parser_new(&fixture->alloc, &http_limits);
    assert_non_null(*parser);
    buf_clear(&fixture->line);
    buf_clear(&fixture->error);
    buf_append_format(&fixture->line, "%s HTTP/1.1\r\nHost: x\r\nRondo-Context: c\r\nRondo-Trace: 1\r\n",
                      request);
    if (body != NULL)
        buf_append_format(&fixture->line, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    else
        buf_append_text(&fixture->line, "\r\n");
    assert_int_equal(http_parse(*parser, buf_span(&fixture->line), &progress), STATUS_OK);
    return http_command(&limits, http_parser_request(*parser), NOW, &fixture->command, refusal,
                        &fixture->error);
}

static void http_requests_become_the_same_commands(void **state)
{
    struct fixture *fixture = *state;
    struct http_refusal refusal;
    struct http_parser *parser;
    const struct command *command = &fixture->command;

    assert_int_equal(http_run(fixture, "GET /get?key=a%20b&r=one&timeout=50", NULL, &refusal, &parser),
                     STATUS_OK);
    assert_int_equal(command->id, COMMAND_RONDO_GET);
    assert_int_equal(command->operation, OPERATION_GET);
    assert_int_equal(command->keys_count, 1);
    assert_true(span_is(command_key(command, 0), "a b"));
    assert_int_equal(command->r, 1);
    assert_int_equal(command->timeout_ms, 50);
    assert_true(span_is(command->context, "c") && command->trace);
    http_parser_free(parser);

    assert_int_equal(http_run(fixture, "PUT /put?key=a&w=all&ttl=5", "value", &refusal, &parser), STATUS_OK);
    assert_int_equal(command->id, COMMAND_RONDO_PUT);
    assert_int_equal(command->operation, OPERATION_PUT);
    assert_true(span_is(command_value(command, 0), "value"));
    assert_int_equal(command->w, COUNT_ALL);
    assert_int_equal(command->expiry_ms, NOW + 5000);
    http_parser_free(parser);

    assert_int_equal(http_run(fixture, "POST /put?key=a&ttl_ms=5", "", &refusal, &parser), STATUS_OK);
    assert_int_equal(command->expiry_ms, NOW + 5);
    assert_int_equal(command->value.size, 0);
    http_parser_free(parser);

    assert_int_equal(http_run(fixture, "DELETE /delete?key=a&w=quorum", NULL, &refusal, &parser), STATUS_OK);
    assert_int_equal(command->id, COMMAND_DEL);
    assert_int_equal(command->operation, OPERATION_DELETE);
    assert_int_equal(command->w, COUNT_QUORUM);
    http_parser_free(parser);

    assert_int_equal(http_run(fixture, "HEAD /healthz", NULL, &refusal, &parser), STATUS_OK);
    assert_int_equal(command->id, COMMAND_HTTP_HEALTHZ);
    assert_true(command->head);
    http_parser_free(parser);
    assert_int_equal(http_run(fixture, "GET /status", NULL, &refusal, &parser), STATUS_OK);
    assert_int_equal(command->id, COMMAND_HTTP_STATUS);
    http_parser_free(parser);
    assert_int_equal(http_run(fixture, "GET /ring", NULL, &refusal, &parser), STATUS_OK);
    assert_int_equal(command->id, COMMAND_HTTP_RING);
    http_parser_free(parser);
    assert_int_equal(
        http_run(fixture, "GET /local/rows?slot=16383&bytes=9&after=a2V5", NULL, &refusal, &parser),
        STATUS_OK);
    assert_int_equal(command->id, COMMAND_HTTP_LOCAL_ROWS);
    assert_int_equal(command->slot, 16383);
    assert_int_equal(command->bytes, 9);
    assert_true(span_is(command->after, "a2V5"));
    http_parser_free(parser);
    assert_int_equal(http_run(fixture, "GET /get?key=a&sloppy=yes", NULL, &refusal, &parser), STATUS_OK);
    assert_true(command->sloppy);
    http_parser_free(parser);
}

static void http_refusals_say_what_to_do(void **state)
{
    struct fixture *fixture = *state;
    static const struct http_case cases[] = {
        {"GET /", 404,
         "there is nothing at '/'; there are /get, /put, /delete, /healthz, /status, /ring, "
         "/metrics, /local/rows"},
        {"POST /get?key=a", 405, "/get takes GET, HEAD, not POST"},
        {"GET /put?key=a", 405, "/put takes PUT, POST, not GET"},
        {"PATCH /put?key=a", 405, "/put takes PUT, POST, not PATCH"},
        {"PUT /put?key=a", 411,
         "the value is missing: send it as the body, with Content-Length (0 for none)"},
        {"GET /get", 400, "the parameter key is missing: /get?key=K"},
        {"GET /get?key=a&ttl=5", 400, "unknown parameter 'ttl': /get takes key, r, timeout, sloppy"},
        {"PUT /put?key=a&tll=5", 400,
         "unknown parameter 'tll': /put takes key, w, timeout, ttl, ttl_ms, sloppy"},
        {"GET /ring?x", 400, "unknown parameter 'x': /ring takes none"},
        {"GET /get?key=a&r=9", 400, "r must be a number from 1 to 7, one, quorum, all or default, not '9'"},
        {"GET /get?key=a&timeout=0", 400, "timeout must be from 1 to 60000 milliseconds or default, not '0'"},
        {"PUT /put?key=a&ttl=0", 400, "ttl must be a whole number of seconds above 0, not '0'"},
        {"PUT /put?key=a&ttl=1.5", 400, "ttl must be a whole number of seconds above 0, not '1.5'"},
        {"PUT /put?key=a&ttl_ms=9223372036854775807", 400,
         "ttl_ms must be a whole number of milliseconds above 0, not '9223372036854775807'"},
        {"PUT /put?key=a&ttl=1&ttl_ms=1", 400, "give ttl or ttl_ms, not both"},
        {"GET /get?key=a&sloppy=1", 400, "sloppy must be yes or no, not '1'"},
        {"GET /local/rows", 400, "the parameter slot is missing: /local/rows?slot=S"},
        {"GET /local/rows?slot=16384", 400, "slot must be a whole number from 0 to 16383, not '16384'"},
        {"GET /local/rows?slot=1&bytes=0", 400, "bytes must be a whole number from 1 to 4194304, not '0'"},
        {"GET /local/rows?slot=1&key=a", 400,
         "unknown parameter 'key': /local/rows takes slot, after, bytes"},
        {"HEAD /local/rows?slot=1", 405, "/local/rows takes GET, not HEAD"},
        {"GET /get?key=123456789", 413, "the key has 9 bytes; the limit is 8 (key-bytes-max)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_refusal refusal;
        struct http_parser *parser;
        enum status status = http_run(fixture, cases[i].request, NULL, &refusal, &parser);
        assert_int_not_equal(status, STATUS_OK);
        if (!span_is(buf_span(&fixture->error), cases[i].error))
            print_error("%.*s\n", (int)fixture->error.size, (const char *)fixture->error.data);
        assert_true(span_is(buf_span(&fixture->error), cases[i].error));
        assert_int_equal(refusal.http_status, cases[i].http_status);
        assert_true((refusal.allow != NULL) == (refusal.http_status == 405));
        http_parser_free(parser);
    }
    struct http_refusal refusal;
    struct http_parser *parser;
    assert_int_equal(http_run(fixture, "PUT /put?key=a", "12345678123456781", &refusal, &parser),
                     STATUS_TOO_LARGE);
    assert_int_equal(refusal.http_status, 413);
    http_parser_free(parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(http_requests_become_the_same_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(http_refusals_say_what_to_do, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
