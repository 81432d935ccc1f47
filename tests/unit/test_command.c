/* The command table, RESP arguments to commands, and what COMMAND answers. Error texts were compared with
 * Redis 7.0.15. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/command_admin.h"
#include "proto/glob.h"
#include "proto/resp.h"

#define BUDGET ((size_t)64 << 20)
#define NOW UINT64_C(1700000000000)

static const struct command_limits limits = {
    .key_bytes_max = 8, .value_bytes_max = 16, .timeout_ms_max = 60000};

struct fixture {
    struct alloc alloc;
    struct resp_parser parser;
    struct buf error;
    struct buf line;
    struct command command;
    enum status status;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    if (fixture == NULL)
        return -1;
    alloc_init(&fixture->alloc, BUDGET);
    struct resp_limits resp_limits = {.bulk_bytes_max = 1 << 20, .command_bytes_max = 1 << 20};
    resp_parser_init(&fixture->parser, &fixture->alloc, &resp_limits);
    buf_init(&fixture->error, &fixture->alloc);
    buf_init(&fixture->line, &fixture->alloc);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    resp_parser_free(&fixture->parser);
    buf_free(&fixture->error);
    buf_free(&fixture->line);
    int leaked = fixture->alloc.used_bytes != 0;
    free(fixture);
    return leaked;
}

/* Runs one line as an inline command. */
static const struct command *run(void **state, const char *line)
{
    struct fixture *fixture = *state;
    struct resp_request request;
    buf_clear(&fixture->line);
    buf_clear(&fixture->error);
    buf_append_text(&fixture->line, line);
    buf_append_text(&fixture->line, "\r\n");
    assert_int_equal(resp_parse(&fixture->parser, buf_span(&fixture->line), &request), STATUS_OK);
    assert_true(request.argc > 0);
    fixture->status =
        command_parse(&limits, request.argc, request.argv, NOW, &fixture->command, &fixture->error);
    return &fixture->command;
}

static const struct command *run_ok(void **state, const char *line)
{
    struct fixture *fixture = *state;
    const struct command *command = run(state, line);
    if (fixture->status != STATUS_OK)
        print_error("%s: %.*s\n", line, (int)fixture->error.size, (const char *)fixture->error.data);
    assert_int_equal(fixture->status, STATUS_OK);
    assert_int_equal(fixture->error.size, 0);
    return command;
}

static void run_error(void **state, const char *line, enum status status, const char *error)
{
    struct fixture *fixture = *state;
    run(state, line);
    if (!span_is(buf_span(&fixture->error), error))
        print_error("%s: '%.*s'\n", line, (int)fixture->error.size, (const char *)fixture->error.data);
    assert_true(span_is(buf_span(&fixture->error), error));
    assert_int_equal(fixture->status, status);
}

static void bad(void **state, const char *line, const char *error)
{
    run_error(state, line, STATUS_BAD_REQUEST, error);
}

/* ---- CLIENT KILL and LIST ------------------------------------------------------------------------------- */

static bool kills(void **state, const char *line, const struct client_identity *client)
{
    struct fixture *fixture = *state;
    struct client_filter filter;
    const struct command *command = run_ok(state, line);
    assert_int_equal(command_client_filter(command, &filter, &fixture->error), STATUS_OK);
    return client_filter_matches(&filter, client);
}

static void client_kill_means_who_fits_all_of_its_filters(void **state)
{
    struct client_identity client = {
        .id = 7, .address = span_of_text("1.2.3.4:5"), .local = span_of_text("h:1"), .age_s = 60};
    static const char *const fits[] = {
        "client kill 1.2.3.4:5",        "client kill id 7",
        "client kill addr 1.2.3.4:5",   "client kill laddr h:1 id 7",
        "client kill type normal",      "client kill user default",
        "client kill maxage 60",        "client kill skipme yes id 7",
        "client kill ID 7 TYPE Normal", "client list",
        "client list type normal",      "client kill skipme no maxage 1",
    };
    static const char *const does_not[] = {
        "client kill 1.2.3.4:6", "client kill id 8",         "client kill addr 1.2.3.4:5 id 8",
        "client kill laddr h:2", "client kill type replica", "client kill type pubsub id 7",
        "client kill maxage 61", "client list type master",  "client kill addr 1.2.3.4:5 laddr x",
    };
    for (size_t i = 0; i < sizeof fits / sizeof fits[0]; i++)
        assert_true(kills(state, fits[i], &client));
    for (size_t i = 0; i < sizeof does_not / sizeof does_not[0]; i++)
        assert_false(kills(state, does_not[i], &client));
    client.self = true;
    assert_false(kills(state, "client kill id 7", &client));
    assert_true(kills(state, "client kill id 7 skipme no", &client));
    assert_true(kills(state, "client kill 1.2.3.4:5", &client));
    assert_true(kills(state, "client list", &client));
}

static void commands_that_look_after_a_node_are_checked_before_they_travel(void **state)
{
    bad(state, "client kill id 0", "ERR client-id should be greater than 0");
    bad(state, "client kill id x", "ERR client-id should be greater than 0");
    bad(state, "client kill maxage 0", "ERR maxage should be greater than 0");
    bad(state, "client kill id 1 addr", "ERR syntax error");
    bad(state, "client kill nonsense 1", "ERR syntax error");
    bad(state, "client kill user bob", "ERR No such user 'bob'");
    bad(state, "client list type x", "ERR Unknown client type 'x'");
    bad(state, "client list id", "ERR syntax error");
    bad(state, "client list id 1 x", "ERR Invalid client ID");
    bad(state, "client reply maybe", "ERR syntax error");
    bad(state, "slowlog get -2", "ERR count should be greater than or equal to -1");
    bad(state, "config set a b c", "ERR syntax error");
    run_ok(state, "slowlog get");
    assert_int_equal(command_slowlog_count(&((struct fixture *)*state)->command), 10);
    run_ok(state, "slowlog get -1");
    assert_true(command_slowlog_count(&((struct fixture *)*state)->command) == UINT64_MAX);
    run_error(state, "debug sleep 1", STATUS_UNSUPPORTED,
              "ERR DEBUG makes a server stop or misbehave for tests of it, which Rondo does not offer");
}

/* ---- the table ------------------------------------------------------------------------------------------ */

static void every_command_is_found_by_its_name_in_any_case(void **state)
{
    (void)state;
    for (enum command_id id = 1; id < COMMAND_NAMED_END; id++) {
        const struct command_spec *spec = command_spec_of(id);
        char upper[64] = {0};
        assert_int_equal(spec->id, id);
        for (size_t i = 0; spec->name[i] != 0; i++)
            upper[i] =
                spec->name[i] >= 'a' && spec->name[i] <= 'z' ? (char)(spec->name[i] - 32) : spec->name[i];
        assert_ptr_equal(command_find(span_of_text(spec->name)), spec);
        assert_ptr_equal(command_find(span_of_text(upper)), spec);
        assert_int_equal(command_refusal_of(span_of_text(spec->name)), COMMAND_REFUSAL_NONE);
        assert_true(spec->key_first == 0 || (spec->key_step > 0 && (spec->arity >= 2 || spec->arity <= -2)));
        assert_true((spec->key_first != 0) ==
                    ((spec->flags & (COMMAND_FLAG_WRITE | COMMAND_FLAG_READONLY)) != 0 &&
                     id != COMMAND_DBSIZE && id != COMMAND_RANDOMKEY));
    }
    assert_null(command_find(span_of_text("ge")));
    assert_null(command_find(span_of_text("gex")));
    assert_null(command_find((struct span){0}));
}

static void every_subcommand_is_found_in_its_container(void **state)
{
    (void)state;
    for (enum subcommand_id id = 1; id < SUBCOMMAND_END; id++) {
        const struct subcommand_spec *spec = subcommand_spec_of(id);
        assert_int_equal(spec->id, id);
        assert_ptr_equal(subcommand_find(spec->container, span_of_text(spec->name)), spec);
        assert_null(subcommand_find(COMMAND_GET, span_of_text(spec->name)));
    }
}

static void refused_commands_say_why(void **state)
{
    run_error(
        state, "incr a", STATUS_UNSUPPORTED,
        "ERR INCR needs an atomic read-modify-write, which last-write-wins keys cannot give: it waits for "
        "strong keys, which Rondo does not have yet");
    run_error(state, "HSET a b c", STATUS_UNSUPPORTED,
              "ERR HSET works on a data type that Rondo does not have: values are opaque bytes");
    run_error(
        state, "multi", STATUS_UNSUPPORTED,
        "ERR MULTI needs several steps to take effect as one, which Rondo does not offer yet: send single "
        "commands, each is atomic for its key");
    /* The first, the last and every kind of the list: it is in order. */
    static const char *const atomic[] = {"append", "decr",   "decrby",   "incrby", "incrbyfloat", "setnx",
                                         "getset", "getdel", "setrange", "setbit", "copy"};
    static const char *const transaction[] = {"exec",   "watch",    "eval",   "msetnx",
                                              "rename", "renamenx", "discard"};
    static const char *const type[] = {"bitcount", "zunionstore", "lpush", "sadd", "zadd",  "xadd",
                                       "hgetall",  "geoadd",      "pfadd", "hset", "blpop", "sort"};
    for (size_t i = 0; i < sizeof atomic / sizeof atomic[0]; i++)
        assert_int_equal(command_refusal_of(span_of_text(atomic[i])), COMMAND_REFUSAL_ATOMIC);
    for (size_t i = 0; i < sizeof transaction / sizeof transaction[0]; i++)
        assert_int_equal(command_refusal_of(span_of_text(transaction[i])), COMMAND_REFUSAL_TRANSACTION);
    for (size_t i = 0; i < sizeof type / sizeof type[0]; i++)
        assert_int_equal(command_refusal_of(span_of_text(type[i])), COMMAND_REFUSAL_TYPE);
    assert_int_equal(command_refusal_of(span_of_text("nosuch")), COMMAND_REFUSAL_NONE);
}

static void unknown_commands_get_the_text_of_redis(void **state)
{
    bad(state, "foo a b", "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
    bad(state, "foo", "ERR unknown command 'foo', with args beginning with: ");
    char line[512];
    char expected[512];
    memset(line, 'x', 200);
    line[200] = ' ';
    memset(line + 201, 'y', 100);
    line[301] = ' ';
    memset(line + 302, 'z', 100);
    memcpy(line + 402, " q", 3);
    (void)snprintf(expected, sizeof expected,
                   "ERR unknown command '%.128s', with args beginning with: '%.100s' '%.25s' ", line,
                   line + 201, line + 302);
    bad(state, line, expected);
}

static void arity_errors_name_the_command(void **state)
{
    bad(state, "GET", "ERR wrong number of arguments for 'get' command");
    bad(state, "get a b", "ERR wrong number of arguments for 'get' command");
    bad(state, "set a", "ERR wrong number of arguments for 'set' command");
    bad(state, "mset a b c", "ERR wrong number of arguments for 'mset' command");
    bad(state, "ping a b", "ERR wrong number of arguments for 'ping' command");
    bad(state, "client", "ERR wrong number of arguments for 'client' command");
    bad(state, "client setname", "ERR wrong number of arguments for 'client|setname' command");
    bad(state, "config get", "ERR wrong number of arguments for 'config|get' command");
    bad(state, "command count x", "ERR wrong number of arguments for 'command|count' command");
    bad(state, "command getkeys", "ERR wrong number of arguments for 'command|getkeys' command");
    for (enum command_id id = 1; id < COMMAND_NAMED_END; id++) {
        if (!command_arity_fits(command_spec_of(id)->arity, 1)) {
            char expected[128];
            (void)snprintf(expected, sizeof expected, "ERR wrong number of arguments for '%s' command",
                           command_spec_of(id)->name);
            bad(state, command_spec_of(id)->name, expected);
        }
    }
}

/* ---- commands with keys --------------------------------------------------------------------------------- */

static void commands_name_their_keys_and_values(void **state)
{
    const struct command *command = run_ok(state, "get a");
    assert_int_equal(command->id, COMMAND_GET);
    assert_int_equal(command->operation, OPERATION_GET);
    assert_int_equal(command->keys_count, 1);
    assert_true(span_is(command->key, "a"));

    command = run_ok(state, "MSET a 1 b 2 c 3");
    assert_int_equal(command->operation, OPERATION_PUT);
    assert_int_equal(command->keys_count, 3);
    assert_true(span_is(command_key(command, 0), "a") && span_is(command_value(command, 0), "1"));
    assert_true(span_is(command_key(command, 2), "c") && span_is(command_value(command, 2), "3"));

    command = run_ok(state, "DEL a b c d");
    assert_int_equal(command->operation, OPERATION_DELETE);
    assert_int_equal(command->keys_count, 4);
    assert_true(span_is(command_key(command, 3), "d"));

    assert_int_equal(run_ok(state, "set a b")->operation, OPERATION_PUT);
    assert_int_equal(run_ok(state, "unlink a")->operation, OPERATION_DELETE);
    assert_int_equal(run_ok(state, "exists a a")->keys_count, 2);
    assert_int_equal(run_ok(state, "mget a b")->operation, OPERATION_GET);
    assert_int_equal(run_ok(state, "strlen a")->operation, OPERATION_GET);
    assert_int_equal(run_ok(state, "ttl a")->operation, OPERATION_GET);
    assert_int_equal(run_ok(state, "pttl a")->operation, OPERATION_GET);
    command = run_ok(state, "persist a");
    assert_int_equal(command->operation, OPERATION_EXPIRE);
    assert_int_equal(command->expiry_ms, 0);
    assert_int_equal(run_ok(state, "ping")->operation, 0);
    assert_true(span_is(run_ok(state, "echo \"a b\"")->value, "a b"));
    assert_int_equal(run_ok(state, "get ''")->key.size, 0);
}

static void keys_and_values_past_their_limits_are_named(void **state)
{
    run_ok(state, "get 12345678");
    run_error(state, "get 123456789", STATUS_TOO_LARGE,
              "ERR the key has 9 bytes; the limit is 8 (key-bytes-max)");
    run_error(state, "del a 123456789", STATUS_TOO_LARGE,
              "ERR the key has 9 bytes; the limit is 8 (key-bytes-max)");
    run_ok(state, "set a 1234567812345678");
    run_error(state, "set a 12345678123456781", STATUS_TOO_LARGE,
              "ERR the value has 17 bytes; the limit is 16 (value-bytes-max)");
    run_error(state, "mset a b c 12345678123456781", STATUS_TOO_LARGE,
              "ERR the value has 17 bytes; the limit is 16 (value-bytes-max)");
}

static void expiries_become_absolute(void **state)
{
    assert_int_equal(run_ok(state, "set a b ex 10")->expiry_ms, NOW + 10000);
    assert_int_equal(run_ok(state, "set a b PX 10")->expiry_ms, NOW + 10);
    assert_int_equal(run_ok(state, "set a b exat 1700000001")->expiry_ms, NOW + 1000);
    assert_int_equal(run_ok(state, "set a b pxat 1700000000001")->expiry_ms, NOW + 1);
    assert_int_equal(run_ok(state, "rondo.put a b px 5 w 1")->expiry_ms, NOW + 5);
    assert_int_equal(run_ok(state, "expire a 10")->expiry_ms, NOW + 10000);
    assert_int_equal(run_ok(state, "expire a 10")->operation, OPERATION_EXPIRE);

    const char *invalid = "ERR invalid expire time in 'set' command";
    bad(state, "set a b ex 0", invalid);
    bad(state, "set a b ex -1", invalid);
    bad(state, "set a b ex 9223372036854775807", invalid);
    bad(state, "set a b px 9223372036854775807", invalid);
    bad(state, "rondo.put a b ex 0", "ERR invalid expire time in 'rondo.put' command");
    bad(state, "expire a 9223372036854775807", "ERR invalid expire time in 'expire' command");
    bad(state, "set a b ex abc", "ERR value is not an integer or out of range");
    bad(state, "expire a x", "ERR value is not an integer or out of range");
    bad(state, "set a b foo", "ERR syntax error");
    bad(state, "set a b foo bar", "ERR syntax error");
    bad(state, "set a b ex", "ERR syntax error");
    bad(state, "set a b ex 10 px 10", "ERR syntax error");
    bad(state, "set a b r 1", "ERR syntax error");
}

static void an_expiry_that_has_passed_is_a_delete(void **state)
{
    const struct command *command = run_ok(state, "set a b exat 1");
    assert_int_equal(command->id, COMMAND_SET);
    assert_int_equal(command->operation, OPERATION_DELETE);
    assert_int_equal(command->value.size, 0);
    assert_int_equal(run_ok(state, "set a b pxat 1700000000000")->operation, OPERATION_DELETE);
    command = run_ok(state, "expire a 0");
    assert_int_equal(command->id, COMMAND_EXPIRE);
    assert_int_equal(command->operation, OPERATION_DELETE);
    assert_int_equal(run_ok(state, "expire a -5")->operation, OPERATION_DELETE);
}

static void conditional_writes_are_refused_clearly(void **state)
{
    static const char *const options[] = {"NX", "XX", "GET"};
    char line[64];
    char expected[200];
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(line, sizeof line, "set a b %s", options[i]);
        (void)snprintf(
            expected, sizeof expected,
            "ERR SET with %s needs an atomic read-modify-write, which last-write-wins keys cannot give: it "
            "waits for strong keys, which Rondo does not have yet",
            options[i]);
        run_error(state, line, STATUS_UNSUPPORTED, expected);
    }
    bad(state, "set a b nx xx", "ERR syntax error");
    bad(state, "set a b nx foo", "ERR syntax error");
    run_error(
        state, "set a b get keepttl", STATUS_UNSUPPORTED,
        "ERR SET with GET needs an atomic read-modify-write, which last-write-wins keys cannot give: it "
        "waits for strong keys, which Rondo does not have yet");
}

static void consistency_is_given_per_request_and_per_connection(void **state)
{
    const struct command *command = run_ok(state, "RONDO.GET a");
    assert_int_equal(command->r, COUNT_DEFAULT);
    assert_int_equal(command->given, 0);
    assert_int_equal(run_ok(state, "rondo.get a R 2 timeout 100")->r, 2);
    assert_int_equal(run_ok(state, "rondo.get a r one")->r, 1);
    assert_int_equal(run_ok(state, "rondo.get a r QUORUM")->r, COUNT_QUORUM);
    assert_int_equal(run_ok(state, "rondo.put a b w all")->w, COUNT_ALL);
    command = run_ok(state, "rondo.consistency R default W 3 TIMEOUT 250");
    assert_int_equal(command->given, COMMAND_GIVEN_R | COMMAND_GIVEN_W | COMMAND_GIVEN_TIMEOUT);
    assert_int_equal(command->r, COUNT_DEFAULT);
    assert_int_equal(command->w, 3);
    assert_int_equal(command->timeout_ms, 250);
    assert_int_equal(run_ok(state, "rondo.consistency")->given, 0);
    assert_true(run_ok(state, "rondo.put a b sloppy YES")->sloppy);
    command = run_ok(state, "rondo.consistency SLOPPY no");
    assert_int_equal(command->given, COMMAND_GIVEN_SLOPPY);
    assert_false(command->sloppy);
    bad(state, "rondo.get a sloppy on", "ERR SLOPPY must be yes or no, not 'on'");

    bad(state, "rondo.get a r 0", "ERR R must be a number from 1 to 7, one, quorum, all or default, not '0'");
    bad(state, "rondo.get a r 8", "ERR R must be a number from 1 to 7, one, quorum, all or default, not '8'");
    bad(state, "rondo.put a b w \"x\\x00\"",
        "ERR W must be a number from 1 to 7, one, quorum, all or default, not 'x?'");
    bad(state, "rondo.get a timeout 60001",
        "ERR TIMEOUT must be from 1 to 60000 milliseconds or default, not '60001'");
    bad(state, "rondo.get a w 1",
        "ERR syntax error: RONDO.GET takes R count, SLOPPY yes|no, TIMEOUT ms, each with a value; not 'w'");
    bad(state, "rondo.get a r",
        "ERR syntax error: RONDO.GET takes R count, SLOPPY yes|no, TIMEOUT ms, each with a value; not 'r'");
    bad(state, "rondo.get a r 1 r 2", "ERR syntax error: 'r' is given twice");
}

/* ---- commands without keys ------------------------------------------------------------------------------ */

static void hello_and_auth_answer_as_redis_without_a_password(void **state)
{
    assert_int_equal(run_ok(state, "hello")->hello_proto, 0);
    assert_int_equal(run_ok(state, "hello 3")->hello_proto, 3);
    const struct command *command = run_ok(state, "hello 2 AUTH default x SETNAME me");
    assert_int_equal(command->hello_proto, 2);
    assert_true(span_is(command->name, "me"));
    bad(state, "hello 4", "NOPROTO unsupported protocol version");
    bad(state, "hello 1", "NOPROTO unsupported protocol version");
    bad(state, "hello a", "ERR Protocol version is not an integer or out of range");
    bad(state, "hello 3 foo", "ERR Syntax error in HELLO option 'foo'");
    bad(state, "hello 3 setname", "ERR Syntax error in HELLO option 'setname'");
    bad(state, "hello 3 auth a b", "WRONGPASS invalid username-password pair or user is disabled.");
    bad(state, "hello 3 setname \"a b\"",
        "ERR Client names cannot contain spaces, newlines or special characters.");
    bad(state, "auth x",
        "ERR AUTH <password> called without any password configured for the default user. Are you "
        "sure your configuration is correct?");
    run_ok(state, "auth default x");
    bad(state, "auth foo x", "WRONGPASS invalid username-password pair or user is disabled.");
    bad(state, "auth a b c", "ERR syntax error");
    run_ok(state, "select 0");
    bad(state, "select 1", "ERR SELECT is not allowed in cluster mode");
    bad(state, "select a", "ERR value is not an integer or out of range");
}

static void subcommands_are_told_apart(void **state)
{
    assert_int_equal(run_ok(state, "client id")->subcommand, SUBCOMMAND_CLIENT_ID);
    assert_true(span_is(run_ok(state, "client setname me")->name, "me"));
    assert_non_null(run_ok(state, "client setname ''")->name.data);
    run_ok(state, "client setinfo LIB-NAME redis-py");
    assert_int_equal(run_ok(state, "CLUSTER SLOTS")->subcommand, SUBCOMMAND_CLUSTER_SLOTS);
    assert_true(span_is(run_ok(state, "cluster keyslot a")->key, "a"));
    assert_int_equal(run_ok(state, "config get a b")->subcommand, SUBCOMMAND_CONFIG_GET);
    assert_int_equal(run_ok(state, "command")->subcommand, SUBCOMMAND_NONE);
    bad(state, "client foo", "ERR unknown subcommand 'foo'. Try CLIENT HELP.");
    bad(state, "cluster foo", "ERR unknown subcommand 'foo'. Try CLUSTER HELP.");
    bad(state, "command foo", "ERR unknown subcommand 'foo'. Try COMMAND HELP.");
    bad(state, "config rewrite", "ERR unknown subcommand 'rewrite'. Try CONFIG HELP.");
    bad(state, "client setname \"a b\"",
        "ERR Client names cannot contain spaces, newlines or special characters.");
    bad(state, "client setinfo a b", "ERR unknown option 'a': CLIENT SETINFO takes LIB-NAME or LIB-VER");
    bad(state, "client setinfo lib-ver \"a b\"",
        "ERR unknown kind of character: CLIENT SETINFO takes no spaces, newlines or special characters");
}

/* ---- COMMAND -------------------------------------------------------------------------------------------- */

/* Skips one reply (arrays with all that is in them) and gives how many elements an array had; the text must
 * be well-formed. */
static long skip_reply(const char **at, const char *end)
{
    long pending = 1;
    long elements = -1;
    while (pending > 0) {
        assert_true(*at < end);
        char type = **at;
        long number = strtol(*at + 1, NULL, 10);
        const char *line = memchr(*at, '\n', (size_t)(end - *at));
        assert_non_null(line);
        *at = line + 1;
        pending--;
        if (type == '*' || type == '~' || type == '%') {
            elements = elements < 0 ? number : elements;
            pending += type == '%' ? 2 * number : number;
        } else if (type == '$' && number >= 0) {
            *at += number + 2;
        } else {
            assert_non_null(strchr("+-:_$", type));
        }
    }
    return elements;
}

static long introspect(void **state, const char *line, uint8_t proto, const char *expected)
{
    struct fixture *fixture = *state;
    struct buf reply;
    const struct command *command = run_ok(state, line);
    buf_init(&reply, &fixture->alloc);
    command_introspect(command, proto, &reply);
    const char *at = (const char *)reply.data;
    const char *end = at + reply.size;
    if (expected != NULL) {
        if (!span_is(buf_span(&reply), expected))
            print_error("%.*s\n", (int)reply.size, (const char *)reply.data);
        assert_true(span_is(buf_span(&reply), expected));
    }
    long elements = skip_reply(&at, end);
    assert_ptr_equal(at, end);
    buf_free(&reply);
    return elements;
}

static void command_answers_from_the_table(void **state)
{
    for (uint8_t proto = 2; proto <= 3; proto++) {
        long pairs = proto == 3 ? 1 : 2;
        assert_int_equal(introspect(state, "command", proto, NULL), COMMAND_NAMED_COUNT);
        assert_int_equal(introspect(state, "command info", proto, NULL), COMMAND_NAMED_COUNT);
        assert_int_equal(introspect(state, "command docs", proto, NULL), pairs * COMMAND_NAMED_COUNT);
        assert_int_equal(introspect(state, "command docs get nosuch client", proto, NULL), pairs * 2);
        assert_int_equal(introspect(state, "command list", proto, NULL), COMMAND_NAMED_COUNT);
        assert_int_equal(introspect(state, "command info get nosuch client", proto, NULL), 3);
        assert_int_equal(introspect(state, "client help", proto, NULL), 35);
        assert_int_equal(introspect(state, "config help", proto, NULL), 9);
        assert_int_equal(introspect(state, "slowlog help", proto, NULL), 9);
    }
    introspect(state, "command count", 2, ":50\r\n");
    introspect(state, "command info get nosuch", 2,
               "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n"
               "*3\r\n+@read\r\n+@fast\r\n+@string\r\n*0\r\n*0\r\n*0\r\n$-1\r\n");
    introspect(state, "command list filterby pattern RONDO.?E*", 2, "*1\r\n$9\r\nrondo.get\r\n");
    introspect(state, "command list filterby module x", 2, "-ERR syntax error\r\n");
    introspect(state, "command getkeys mset a b c d", 2, "*2\r\n$1\r\na\r\n$1\r\nc\r\n");
    introspect(state, "command getkeys object freq k", 2, "*1\r\n$1\r\nk\r\n");
    introspect(state, "command getkeys memory usage k samples 5", 2, "*1\r\n$1\r\nk\r\n");
    introspect(state, "command getkeys object help", 2, "-ERR The command has no key arguments\r\n");
    introspect(state, "command getkeys ping x", 2, "-ERR The command has no key arguments\r\n");
    introspect(state, "command getkeys foo x", 2, "-ERR Invalid command specified\r\n");
    introspect(state, "command getkeys get x y", 2,
               "-ERR Invalid number of arguments specified for command\r\n");
}

static void globs_match_as_in_redis(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        const char *text;
        bool matches;
    } cases[] = {
        {"*", "", true},
        {"*", "abc", true},
        {"a*c", "abbc", true},
        {"a*c", "abcd", false},
        {"a?c", "abc", true},
        {"a?c", "ac", false},
        {"A", "a", true},
        {"[a-c]x", "bx", true},
        {"[^a-c]x", "bx", false},
        {"[^a-c]x", "dx", true},
        {"\\*", "*", true},
        {"\\*", "a", false},
        {"a*b*c", "aXbYbZc", true},
        {"a*b*c", "acb", false},
        {"", "", true},
        {"", "a", false},
        {"a**", "a", true},
        {"[ab", "b", true},
        {"[c-a]", "b", true},
        {"x[\\]]", "x]", true},
        {"maxmemory*", "maxmemory-policy", true},
        {"*a", "aaab", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool matches = glob_match(span_of_text(cases[i].pattern), span_of_text(cases[i].text));
        if (matches != cases[i].matches)
            print_error("%s %s\n", cases[i].pattern, cases[i].text);
        assert_true(matches == cases[i].matches);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(client_kill_means_who_fits_all_of_its_filters, setup, teardown),
        cmocka_unit_test_setup_teardown(commands_that_look_after_a_node_are_checked_before_they_travel, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(every_command_is_found_by_its_name_in_any_case, setup, teardown),
        cmocka_unit_test_setup_teardown(every_subcommand_is_found_in_its_container, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_commands_say_why, setup, teardown),
        cmocka_unit_test_setup_teardown(unknown_commands_get_the_text_of_redis, setup, teardown),
        cmocka_unit_test_setup_teardown(arity_errors_name_the_command, setup, teardown),
        cmocka_unit_test_setup_teardown(commands_name_their_keys_and_values, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_and_values_past_their_limits_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(expiries_become_absolute, setup, teardown),
        cmocka_unit_test_setup_teardown(an_expiry_that_has_passed_is_a_delete, setup, teardown),
        cmocka_unit_test_setup_teardown(conditional_writes_are_refused_clearly, setup, teardown),
        cmocka_unit_test_setup_teardown(consistency_is_given_per_request_and_per_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(hello_and_auth_answer_as_redis_without_a_password, setup, teardown),
        cmocka_unit_test_setup_teardown(subcommands_are_told_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(command_answers_from_the_table, setup, teardown),
        cmocka_unit_test_setup_teardown(globs_match_as_in_redis, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
