/* RESP arguments to commands about expiries, and to those that take Redis's options for them. Error texts were
 * compared with Redis 7.0.15. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "proto/command.h"

#define BUDGET ((size_t)1 << 20)
#define NOW UINT64_C(1700000000000)
#define WORDS_MAX 16

static const struct command_limits limits = {
    .key_bytes_max = 64, .value_bytes_max = 64, .timeout_ms_max = 60000};

struct fixture {
    struct alloc alloc;
    struct buf error;
    struct span words[WORDS_MAX];
    struct command command;
    enum status status;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    if (fixture == NULL)
        return -1;
    alloc_init(&fixture->alloc, BUDGET);
    buf_init(&fixture->error, &fixture->alloc);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    buf_free(&fixture->error);
    free(fixture);
    return 0;
}

/* Words that blanks separate. */
static const struct command *run(void **state, const char *line)
{
    struct fixture *fixture = *state;
    uint32_t count = 0;
    for (const char *at = line; *at != 0; count++) {
        size_t size = strcspn(at, " ");
        assert_true(count < WORDS_MAX);
        fixture->words[count] = span_of(at, size);
        at += size + (at[size] == ' ');
    }
    buf_clear(&fixture->error);
    fixture->status = command_parse(&limits, count, fixture->words, NOW, &fixture->command, &fixture->error);
    return &fixture->command;
}

static const struct command *good(void **state, const char *line)
{
    struct fixture *fixture = *state;
    const struct command *command = run(state, line);
    if (fixture->status != STATUS_OK)
        print_error("%s: %.*s\n", line, (int)fixture->error.size, (const char *)fixture->error.data);
    assert_int_equal(fixture->status, STATUS_OK);
    return command;
}

static void bad(void **state, const char *line, const char *error)
{
    struct fixture *fixture = *state;
    run(state, line);
    if (!span_is(buf_span(&fixture->error), error))
        print_error("%s: '%.*s'\n", line, (int)fixture->error.size, (const char *)fixture->error.data);
    assert_true(span_is(buf_span(&fixture->error), error));
    assert_int_equal(fixture->status, STATUS_BAD_REQUEST);
}

static void expire(void **state, const char *line, uint64_t expiry_ms, unsigned flags)
{
    const struct command *command = good(state, line);
    assert_int_equal(command->operation, OPERATION_EXPIRE);
    assert_int_equal(command->expiry_ms, expiry_ms);
    assert_int_equal(command->flags, flags);
}

static void the_expire_family_differs_in_unit_and_origin(void **state)
{
    expire(state, "EXPIRE k 10", NOW + 10000, 0);
    expire(state, "PEXPIRE k 10", NOW + 10, 0);
    expire(state, "EXPIREAT k 1700000001", NOW + 1000, 0);
    expire(state, "PEXPIREAT k 1700000000001", NOW + 1, 0);
    expire(state, "PEXPIREAT k 9223372036854775807", INT64_MAX, 0);
    expire(state, "PERSIST k", 0, 0);
}

static void conditions_are_flags_and_some_exclude_others(void **state)
{
    expire(state, "EXPIRE k 10 NX", NOW + 10000, OPERATION_IF_NONE);
    expire(state, "EXPIRE k 10 xx", NOW + 10000, OPERATION_IF_SOME);
    expire(state, "EXPIRE k 10 GT gt", NOW + 10000, OPERATION_IF_LATER);
    expire(state, "EXPIRE k 10 XX LT", NOW + 10000, OPERATION_IF_SOME | OPERATION_IF_SOONER);
    const char *nx = "ERR NX and XX, GT or LT options at the same time are not compatible";
    bad(state, "EXPIRE k 10 NX XX", nx);
    bad(state, "EXPIRE k 10 GT NX", nx);
    bad(state, "PEXPIRE k abc NX LT GT", nx);
    bad(state, "EXPIRE k 10 GT LT", "ERR GT and LT options at the same time are not compatible");
    bad(state, "EXPIREAT k 10 NX FOO", "ERR Unsupported option FOO");
    bad(state, "EXPIRE k", "ERR wrong number of arguments for 'expire' command");
}

static void an_expiry_that_has_passed_deletes_unless_there_is_a_condition(void **state)
{
    static const char *const lines[] = {"EXPIRE k 0", "EXPIRE k -1", "PEXPIRE k -9223372036854775808",
                                        "EXPIREAT k 1", "PEXPIREAT k 1700000000000"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_int_equal(good(state, lines[i])->operation, OPERATION_DELETE);
    expire(state, "EXPIREAT k 1 LT", 1000, OPERATION_IF_SOONER);
    expire(state, "EXPIREAT k 0 LT", 1, OPERATION_IF_SOONER);
    expire(state, "PEXPIREAT k -5 XX", 1, OPERATION_IF_SOME);
}

static void expiries_that_do_not_fit_are_refused(void **state)
{
    bad(state, "EXPIRE k 9223372036854775807", "ERR invalid expire time in 'expire' command");
    bad(state, "EXPIRE k -9223372036854775808", "ERR invalid expire time in 'expire' command");
    bad(state, "PEXPIRE k 9223372036854775807", "ERR invalid expire time in 'pexpire' command");
    bad(state, "EXPIREAT k 9223372036854775807", "ERR invalid expire time in 'expireat' command");
    bad(state, "PEXPIREAT k 9223372036854775808", "ERR value is not an integer or out of range");
    bad(state, "PEXPIREAT k 1.5", "ERR value is not an integer or out of range");
    bad(state, "SETEX k 0 v", "ERR invalid expire time in 'setex' command");
    bad(state, "SETEX k 9223372036854775807 v", "ERR invalid expire time in 'setex' command");
    bad(state, "SETEX k v 10", "ERR value is not an integer or out of range");
    bad(state, "PSETEX k -1 v", "ERR invalid expire time in 'psetex' command");
}

static void setex_names_its_value_last(void **state)
{
    const struct command *command = good(state, "SETEX k 10 v");
    assert_int_equal(command->operation, OPERATION_PUT);
    assert_int_equal(command->expiry_ms, NOW + 10000);
    assert_true(span_is(command_value(command, 0), "v"));
    assert_int_equal(good(state, "PSETEX k 10 v")->expiry_ms, NOW + 10);
}

static void options_of_set_may_be_repeated_and_the_last_expiry_counts(void **state)
{
    assert_int_equal(good(state, "SET k v EX 10 ex 20")->expiry_ms, NOW + 20000);
    assert_int_equal(good(state, "SET k v KEEPTTL keepttl")->flags, OPERATION_KEEP_EXPIRY);
    assert_int_equal(good(state, "SET k v KEEPTTL")->operation, OPERATION_PUT);
    static const char *const lines[] = {"SET k v KEEPTTL EX 10",
                                        "SET k v PX 10 KEEPTTL",
                                        "SET k v EX 10 PX 10",
                                        "SET k v EXAT 10 PXAT 10",
                                        "SET k v PERSIST",
                                        "SET k v NX XX",
                                        "SET k v EX",
                                        "SET k v GET FOO",
                                        "GETEX k KEEPTTL",
                                        "GETEX k PERSIST EX 10",
                                        "GETEX k EX 10 PERSIST",
                                        "GETEX k NX",
                                        "GETEX k PXAT"};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        bad(state, lines[i], "ERR syntax error");
}

static void getex_reads_or_changes_the_expiry_of_what_it_read(void **state)
{
    const struct command *command = good(state, "GETEX k");
    assert_int_equal(command->operation, OPERATION_GET);
    assert_int_equal(command->flags, 0);
    expire(state, "GETEX k PERSIST", 0, OPERATION_WANT_VALUE);
    expire(state, "GETEX k EX 10", NOW + 10000, OPERATION_WANT_VALUE);
    expire(state, "GETEX k PX 10", NOW + 10, OPERATION_WANT_VALUE);
    expire(state, "GETEX k EXAT 1", 1000, OPERATION_WANT_VALUE);
    expire(state, "GETEX k PXAT 1700000000001", NOW + 1, OPERATION_WANT_VALUE);
    /* Redis answers null for a key that is not there, whatever the number is. */
    command = good(state, "GETEX k EX abc");
    assert_int_equal(command->operation, OPERATION_GET);
    assert_string_equal(command->found_error, "ERR value is not an integer or out of range");
    assert_string_equal(good(state, "GETEX k PX 0")->found_error,
                        "ERR invalid expire time in 'getex' command");
}

static void getrange_takes_two_integers(void **state)
{
    const struct command *command = good(state, "GETRANGE k -5 9223372036854775807");
    assert_int_equal(command->operation, OPERATION_GET);
    assert_int_equal(command->range_first, -5);
    assert_true(command->range_last == INT64_MAX);
    assert_int_equal(good(state, "SUBSTR k 1 2")->range_last, 2);
    bad(state, "GETRANGE k a 1", "ERR value is not an integer or out of range");
    bad(state, "SUBSTR k 1 9223372036854775808", "ERR value is not an integer or out of range");
    bad(state, "SUBSTR k 1", "ERR wrong number of arguments for 'substr' command");
}

static void object_and_memory_usage_read_one_key(void **state)
{
    const struct command *command = good(state, "OBJECT ENCODING k");
    assert_int_equal(command->operation, OPERATION_GET);
    assert_int_equal(command->subcommand, SUBCOMMAND_OBJECT_ENCODING);
    assert_int_equal(command->keys_count, 1);
    assert_true(span_is(command_key(command, 0), "k"));
    assert_null(command->found_error);
    assert_non_null(good(state, "OBJECT FREQ k")->found_error);
    assert_non_null(good(state, "OBJECT IDLETIME k")->found_error);
    assert_int_equal(good(state, "OBJECT HELP")->operation, 0);
    assert_int_equal(good(state, "MEMORY USAGE k SAMPLES 0 samples 7")->operation, OPERATION_GET);
    bad(state, "MEMORY USAGE k SAMPLES", "ERR syntax error");
    bad(state, "MEMORY USAGE k SAMPLES -1", "ERR syntax error");
    bad(state, "MEMORY USAGE k SAMPLES x", "ERR value is not an integer or out of range");
    bad(state, "MEMORY STATS", "ERR unknown subcommand 'STATS'. Try MEMORY HELP.");
    bad(state, "OBJECT FREQ", "ERR wrong number of arguments for 'object|freq' command");
}

static void keys_of_a_slot_are_asked_for_by_number(void **state)
{
    const struct command *command = good(state, "CLUSTER GETKEYSINSLOT 16383 9223372036854775807");
    assert_int_equal(command->slot, 16383);
    assert_int_equal(command->keys_max, UINT32_MAX);
    assert_int_equal(good(state, "CLUSTER GETKEYSINSLOT 0 10")->keys_max, 10);
    assert_int_equal(good(state, "CLUSTER COUNTKEYSINSLOT 7")->slot, 7);
    bad(state, "CLUSTER GETKEYSINSLOT 16384 1", "ERR Invalid slot or number of keys");
    bad(state, "CLUSTER GETKEYSINSLOT 1 -1", "ERR Invalid slot or number of keys");
    bad(state, "CLUSTER GETKEYSINSLOT x -1", "ERR value is not an integer or out of range");
    bad(state, "CLUSTER GETKEYSINSLOT -1 x", "ERR value is not an integer or out of range");
    bad(state, "CLUSTER COUNTKEYSINSLOT -1", "ERR Invalid slot");
    bad(state, "CLUSTER COUNTKEYSINSLOT x", "ERR value is not an integer or out of range");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_expire_family_differs_in_unit_and_origin, setup, teardown),
        cmocka_unit_test_setup_teardown(conditions_are_flags_and_some_exclude_others, setup, teardown),
        cmocka_unit_test_setup_teardown(an_expiry_that_has_passed_deletes_unless_there_is_a_condition, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(expiries_that_do_not_fit_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(setex_names_its_value_last, setup, teardown),
        cmocka_unit_test_setup_teardown(options_of_set_may_be_repeated_and_the_last_expiry_counts, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(getex_reads_or_changes_the_expiry_of_what_it_read, setup, teardown),
        cmocka_unit_test_setup_teardown(object_and_memory_usage_read_one_key, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_of_a_slot_are_asked_for_by_number, setup, teardown),
        cmocka_unit_test_setup_teardown(getrange_takes_two_integers, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
