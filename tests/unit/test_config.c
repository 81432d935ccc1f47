/* The configuration: where a value comes from, which one wins, and what people are told when it is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edge/files.h"
#include "server/config.h"
#include "server/config_text.h"

#define ARGUMENTS_MAX 32

struct fixture {
    struct alloc alloc;
    struct buf why;
    struct config config;
    char path[64];
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    alloc_init(&fixture->alloc, (size_t)4 << 20);
    buf_init(&fixture->why, &fixture->alloc);
    (void)snprintf(fixture->path, sizeof(fixture->path), "/tmp/rondo-test-config-XXXXXX");
    int descriptor = mkstemp(fixture->path);
    (void)close(descriptor);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    config_free(&fixture->config);
    buf_free(&fixture->why);
    assert_int_equal(fixture->alloc.used_bytes, 0);
    (void)unlink(fixture->path);
    free(fixture);
    return 0;
}

/* Parses arguments separated by single blanks; "@" stands for the file's path. */
static enum status parse(struct fixture *fixture, const char *line)
{
    char *copy = strdup(line);
    const char *argv[ARGUMENTS_MAX];
    int argc = 0;
    config_free(&fixture->config);
    buf_clear(&fixture->why);
    for (char *part = strtok(copy, " "); part != NULL; part = strtok(NULL, " "))
        argv[argc++] = strcmp(part, "@") == 0 ? fixture->path : part;
    enum status status = config_parse(&fixture->config, argc, argv, 6, &fixture->why);
    free(copy);
    return status;
}

static void write_file(struct fixture *fixture, const char *text)
{
    assert_int_equal(files_replace(fixture->path, span_of_text(text), NULL), STATUS_OK);
}

static const char *why_text(struct fixture *fixture)
{
    buf_put_u8(&fixture->why, 0);
    return (const char *)fixture->why.data;
}

/* Refused, with a sentence that holds all these words ("|" separates them). */
static void expect_refusal(struct fixture *fixture, const char *line, const char *words)
{
    assert_int_equal(parse(fixture, line), STATUS_BAD_REQUEST);
    const char *why = why_text(fixture);
    char *copy = strdup(words);
    for (char *word = strtok(copy, "|"); word != NULL; word = strtok(NULL, "|")) {
        if (strstr(why, word) == NULL)
            fail_msg("\"%s\" is not in \"%s\"", word, why);
    }
    free(copy);
}

static void test_config_nothing_given_means_one_node_on_loopback(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(parse(fixture, ""), STATUS_OK);
    const struct config *config = &fixture->config;
    assert_int_equal(config->action, CONFIG_RUN);
    assert_null(config->name);
    assert_string_equal(config->data, "./rondo-data");
    assert_string_equal(config->resp, "127.0.0.1:7379");
    assert_string_equal(config->http, "127.0.0.1:7380");
    assert_string_equal(config->peer, "127.0.0.1:7381");
    assert_int_equal(config->member_count, 1);
    assert_true(span_is(config->members[0].name, "n1"));
    assert_true(span_is(config->members[0].peer_address, "127.0.0.1:7381"));
    assert_int_equal(config->shards, 5);
    assert_int_equal(config->durability, DURABILITY_ALWAYS);
    assert_int_equal(config->memory_bytes, 1 << 30);
    assert_int_equal(config->key_bytes_max, KEY_BYTES_MAX_DEFAULT);
    assert_int_equal(config->value_bytes_max, VALUE_BYTES_MAX_DEFAULT);
    assert_int_equal(config->clock_skew_max_ms, 500);
    assert_int_equal(config->say.level_max, SAY_INFO);
    assert_false(config->initial_given || config->insecure);
    struct shard_healing healing = shard_healing_default();
    assert_true(config->healing.hints && config->healing.repair);
    assert_int_equal(config->healing.request_timeout_max_ms, healing.request_timeout_max_ms);
    assert_int_equal(config->healing.repair_interval_ms, healing.repair_interval_ms);
    assert_int_equal(config->healing.rescan_interval_ms, healing.rescan_interval_ms);
    assert_int_equal(config->healing.repair_bytes_per_s, healing.repair_bytes_per_s);
    assert_int_equal(config->healing.hint_bytes_max, healing.hint_bytes_max);
    assert_int_equal(config->healing.hint_bytes_per_s, healing.hint_bytes_per_s);
}

static void test_config_healing_takes_times_and_sizes(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(parse(fixture, "--hints off --repair no --repair-interval 90s --repair-bandwidth 1M "
                                    "--rescan-interval 2d --hint-bytes-max 2G --hint-bandwidth 64K "
                                    "--request-timeout-max 5000 --request-timeout 5s"),
                     STATUS_OK);
    const struct shard_healing *healing = &fixture->config.healing;
    assert_false(healing->hints || healing->repair);
    assert_int_equal(healing->repair_interval_ms, 90000);
    assert_int_equal(healing->repair_bytes_per_s, 1 << 20);
    assert_int_equal(healing->rescan_interval_ms, 172800000);
    assert_int_equal(healing->hint_bytes_max, UINT64_C(2) << 30);
    assert_int_equal(healing->hint_bytes_per_s, 64 << 10);
    assert_int_equal(healing->request_timeout_max_ms, 5000);
    assert_int_equal(fixture->config.request_timeout_ms, 5000);
    expect_refusal(fixture, "--request-timeout-max 1s", "2000 ms|request-timeout-max, 1000 ms|on all nodes");
    expect_refusal(fixture, "--repair-interval 10", "\"10\" is not a time from 1s to 7d|for example 10m");
    expect_refusal(fixture, "--repair-interval 10y", "1s to 7d");
    expect_refusal(fixture, "--rescan-interval 999999999999999999d", "1m to 30d");
    expect_refusal(fixture, "--hints maybe", "neither yes nor no");
    expect_refusal(fixture, "--hint-bandwidth 1", "1K to 1024G");
}

static void test_config_both_forms_of_a_flag_say_the_same(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(parse(fixture, "--memory=512MB --durability interval:50 --shards=2"), STATUS_OK);
    assert_int_equal(fixture->config.memory_bytes, 512 << 20);
    assert_int_equal(fixture->config.durability, DURABILITY_INTERVAL);
    assert_int_equal(fixture->config.durability_interval_ms, 50);
    assert_int_equal(fixture->config.shards, 2);
    assert_int_equal(parse(fixture, "--shards 2 --shards=5"), STATUS_OK);
    assert_int_equal(fixture->config.shards, 5);
}

static void test_config_flags_win_over_the_file_and_the_file_over_defaults(void **state)
{
    struct fixture *fixture = *state;
    write_file(fixture, "# a comment\n\nshards = 3\nmemory=2G ; enough\nlog-level = debug\n");
    assert_int_equal(parse(fixture, "--shards 4 --config @"), STATUS_OK);
    assert_int_equal(fixture->config.shards, 4);
    assert_int_equal(fixture->config.memory_bytes, UINT64_C(2) << 30);
    assert_int_equal(fixture->config.say.level_max, SAY_DEBUG);

    struct buf text;
    buf_init(&text, &fixture->alloc);
    config_print(&fixture->config, &text);
    buf_put_u8(&text, 0);
    char expected[160];
    (void)snprintf(expected, sizeof(expected), "memory              = 2G ; %s:4\n", fixture->path);
    assert_non_null(strstr((const char *)text.data, expected));
    assert_non_null(strstr((const char *)text.data, "shards              = 4 ; --shards\n"));
    assert_non_null(strstr((const char *)text.data, "durability          = always ; default\n"));
    buf_free(&text);
}

static void test_config_what_is_printed_is_a_file_that_says_the_same(void **state)
{
    struct fixture *fixture = *state;
    char line[2048] = "--name n7 --resp [::1]:7379 --durability os --initial-cluster ";
    for (unsigned i = 1; i <= 30; i++) {
        char member[64];
        (void)snprintf(member, sizeof(member), "%sn%u=127.0.0.1:%u", i > 1 ? "," : "", i, 8000 + i);
        (void)strcat(line, member);
    }
    assert_int_equal(parse(fixture, line), STATUS_OK);
    struct buf text;
    buf_init(&text, &fixture->alloc);
    config_print(&fixture->config, &text);
    buf_put_u8(&text, 0);
    write_file(fixture, (const char *)text.data);
    if (parse(fixture, "--config @") != STATUS_OK)
        fail_msg("%s", why_text(fixture));
    assert_int_equal(fixture->config.member_count, 30);
    assert_true(span_is(fixture->config.members[29].peer_address, "127.0.0.1:8030"));
    assert_string_equal(fixture->config.peer, "127.0.0.1:8007");
    assert_string_equal(fixture->config.resp, "[::1]:7379");
    assert_int_equal(fixture->config.durability, DURABILITY_OS);
    buf_free(&text);
}

static void test_config_file_mistakes_name_the_line(void **state)
{
    struct fixture *fixture = *state;
    char where[128];
    (void)snprintf(where, sizeof(where), "%s:2: |shardz|did you mean shards?", fixture->path);
    write_file(fixture, "memory = 1G\nshardz = 3\n");
    expect_refusal(fixture, "--config @", where);
    (void)snprintf(where, sizeof(where), "%s:2: |set already|line 1", fixture->path);
    write_file(fixture, "shards = 1\nshards = 3\n");
    expect_refusal(fixture, "--config @", where);
    (void)snprintf(where, sizeof(where), "%s:1: |sections", fixture->path);
    write_file(fixture, "[node]\nshards = 1\n");
    expect_refusal(fixture, "--config @", "sections");
    (void)snprintf(where, sizeof(where), "%s:3: |NAME = VALUE", fixture->path);
    write_file(fixture, "shards = 1\n\nnonsense\n");
    expect_refusal(fixture, "--config @", where);
    (void)snprintf(where, sizeof(where), "%s:1: shards|seven", fixture->path);
    write_file(fixture, "shards = seven\n");
    expect_refusal(fixture, "--config @", where);
    char longer[400];
    memset(longer, 'x', sizeof(longer));
    memcpy(longer, "name = ", 7);
    longer[sizeof(longer) - 1] = '\0';
    write_file(fixture, longer);
    expect_refusal(fixture, "--config @", ":1: |longer than|next line");
    expect_refusal(fixture, "--config /nowhere/rondod.ini", "/nowhere/rondod.ini|No such file");
}

static void test_config_unknown_flag_gets_the_nearest_name(void **state)
{
    struct fixture *fixture = *state;
    expect_refusal(fixture, "--memroy 1G", "no flag --memroy|did you mean --memory?");
    expect_refusal(fixture, "--durable always", "did you mean --durability?");
    expect_refusal(fixture, "--initial n1=a:1", "did you mean --initial-cluster?");
    expect_refusal(fixture, "--frobnicate", "--help");
    expect_refusal(fixture, "start", "unexpected \"start\"");
    expect_refusal(fixture, "--resp", "--resp needs a value, for example --resp 127.0.0.1:7379");
    expect_refusal(fixture, "--resp --http 127.0.0.1:1", "--resp needs a value");
}

static void test_config_values_out_of_range_show_the_right_form(void **state)
{
    struct fixture *fixture = *state;
    expect_refusal(fixture, "--shards 0", "--shards|\"0\"|1 to 64");
    expect_refusal(fixture, "--shards 65", "1 to 64");
    expect_refusal(fixture, "--memory 1", "64M|512M");
    expect_refusal(fixture, "--memory 1T", "512M");
    expect_refusal(fixture, "--memory 99999999999999999999G", "512M");
    expect_refusal(fixture, "--durability never", "always|interval:MS|os");
    expect_refusal(fixture, "--durability interval:", "interval:MS");
    expect_refusal(fixture, "--durability interval:0", "interval:MS");
    expect_refusal(fixture, "--value-bytes-max 65M", "64M");
    expect_refusal(fixture, "--log-level loud", "error, warning, info or debug");
    expect_refusal(fixture, "--log-format xml", "logfmt or json");
    expect_refusal(fixture, "--insecure=perhaps", "neither yes nor no");
    expect_refusal(fixture, "--clock-skew-max -5", "--clock-skew-max");
}

static void test_config_addresses_that_make_no_sense(void **state)
{
    static const char *const addresses[] = {
        "7379",           ":7379",    "localhost", "localhost:", "localhost:0", "localhost:65536",
        "localhost:http", "::1:7379", "[::1]",     "a b:1",      "[]:1",        "host/x:1"};
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        char line[64];
        (void)snprintf(line, sizeof(line), "--insecure --resp=%s", addresses[i]);
        if (strchr(addresses[i], ' ') == NULL)
            expect_refusal(fixture, line, "--resp|HOST:PORT|127.0.0.1:7379");
    }
    expect_refusal(fixture, "--resp localhost:7 --http localhost:7",
                   "--resp and --http are both localhost:7");
}

static void test_config_other_addresses_than_loopback_need_insecure(void **state)
{
    struct fixture *fixture = *state;
    expect_refusal(fixture, "--http 0.0.0.0:7380", "--http would listen on 0.0.0.0|--insecure");
    expect_refusal(fixture, "--resp [::]:7379", "would listen on ::|--insecure");
    expect_refusal(fixture, "--peer db1.example:7381", "db1.example|--insecure");
    assert_int_equal(parse(fixture, "--resp 127.9.9.9:7379 --http [::1]:7380 --peer localhost:1"), STATUS_OK);
    assert_int_equal(parse(fixture, "--http 0.0.0.0:7380 --insecure"), STATUS_OK);
    assert_int_equal(parse(fixture, "--http 0.0.0.0:7380 --insecure=yes"), STATUS_OK);
}

static void test_config_initial_cluster_finds_this_node(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(parse(fixture, "--name n2 --initial-cluster n1=127.0.0.1:1,n2=127.0.0.1:2"), STATUS_OK);
    assert_int_equal(fixture->config.member_count, 2);
    assert_string_equal(fixture->config.peer, "127.0.0.1:2");
    assert_true(fixture->config.initial_given);
    assert_int_equal(
        parse(fixture, "--name n2 --initial-cluster n1=127.0.0.1:1,n2=127.0.0.1:2 --peer 127.0.0.1:9"),
        STATUS_OK);
    assert_string_equal(fixture->config.peer, "127.0.0.1:9");

    expect_refusal(fixture, "--initial-cluster n1=127.0.0.1:1", "needs --name");
    expect_refusal(fixture, "--name n3 --initial-cluster n1=127.0.0.1:1,n2=127.0.0.1:2", "\"n3\"|n1, n2");
    expect_refusal(fixture, "--name n1 --initial-cluster 127.0.0.1:1", "NAME=HOST:PEERPORT");
    expect_refusal(fixture, "--name n1 --initial-cluster n1=127.0.0.1", "HOST:PORT");
    expect_refusal(fixture, "--name n1 --initial-cluster n1=127.0.0.1:1,", "NAME=HOST:PEERPORT");
    expect_refusal(fixture, "--name n1 --initial-cluster n1=10.0.0.1:1,n2=10.0.0.2:1", "10.0.0.1|--insecure");
}

static void test_config_clients_are_told_an_address_that_they_can_use(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(parse(fixture, "--name n1 --initial-cluster n1=10.0.0.1:1,n2=10.0.0.2:1 --insecure "
                                    "--resp 0.0.0.0:7379 --http 10.0.0.9:80"),
                     STATUS_OK);
    assert_string_equal(fixture->config.resp_advertise, "10.0.0.1:7379");
    assert_string_equal(fixture->config.http_advertise, "10.0.0.9:80");
    assert_int_equal(parse(fixture, "--name n1 --initial-cluster n1=[fe80::1]:1 --insecure --resp [::]:7379"),
                     STATUS_OK);
    assert_string_equal(fixture->config.resp_advertise, "[fe80::1]:7379");
}

static void test_config_help_and_version_come_before_everything_else(void **state)
{
    struct fixture *fixture = *state;
    assert_int_equal(parse(fixture, "--shards 0 --help"), STATUS_OK);
    assert_int_equal(fixture->config.action, CONFIG_HELP);
    assert_int_equal(parse(fixture, "--version --config /nowhere"), STATUS_OK);
    assert_int_equal(fixture->config.action, CONFIG_VERSION);
    assert_int_equal(parse(fixture, "-h"), STATUS_OK);
    assert_int_equal(fixture->config.action, CONFIG_HELP);
    assert_int_equal(parse(fixture, "--print-config"), STATUS_OK);
    assert_int_equal(fixture->config.action, CONFIG_PRINT);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_config_nothing_given_means_one_node_on_loopback),
        CASE(test_config_healing_takes_times_and_sizes),
        CASE(test_config_both_forms_of_a_flag_say_the_same),
        CASE(test_config_flags_win_over_the_file_and_the_file_over_defaults),
        CASE(test_config_what_is_printed_is_a_file_that_says_the_same),
        CASE(test_config_file_mistakes_name_the_line),
        CASE(test_config_unknown_flag_gets_the_nearest_name),
        CASE(test_config_values_out_of_range_show_the_right_form),
        CASE(test_config_addresses_that_make_no_sense),
        CASE(test_config_other_addresses_than_loopback_need_insecure),
        CASE(test_config_initial_cluster_finds_this_node),
        CASE(test_config_clients_are_told_an_address_that_they_can_use),
        CASE(test_config_help_and_version_come_before_everything_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
