/* rondo bench: from the command line to a plan. */
#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli/bench.h"
#include "cli/job.h"
#include "model/key.h"
#include "proto/resp_reply.h"

#define CONNECTIONS_DEFAULT 50u
#define DEPTH_DEFAULT 1u
#define KEYS_DEFAULT UINT64_C(100000)
#define KEYS_MAX UINT64_C(1000000000000)
#define SIZE_DEFAULT 100u
#define READS_DEFAULT 50u
#define DURATION_S_DEFAULT 10u
#define COUNT_MAX UINT64_C(1000000000000000)
#define RATE_MAX UINT64_C(100000000)
#define THETA_DEFAULT 0.99
#define THETA_MAX 10.0
#define PREFIX_DEFAULT "bench:"

/* Commands that wait to be sent, of all connections together. */
#define OUTPUT_BYTES_MAX ((uint64_t)4 << 30)

struct number_option {
    const char *name;
    const char *text;
    uint64_t least;
    uint64_t greatest;
    uint64_t usual;
};

static enum cli_exit read_number(const struct cli *cli, const struct number_option *option, uint64_t *number)
{
    *number = option->usual;
    if (option->text == NULL)
        return CLI_OK;
    if (span_parse_u64(span_of_text(option->text), number) != STATUS_OK || *number < option->least ||
        *number > option->greatest)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "%s is a number from %llu to %llu, not '%.40s'",
                        option->name, (unsigned long long)option->least, (unsigned long long)option->greatest,
                        option->text);
    return CLI_OK;
}

static enum cli_exit read_numbers(const struct cli *cli, struct bench_plan *plan)
{
    const struct bench_words *words = &cli->bench;
    uint64_t connections;
    uint64_t depth;
    uint64_t threads;
    uint64_t reads;
    uint64_t seconds;
    bool endless = words->duration == NULL && words->requests == NULL;
    const struct {
        struct number_option option;
        uint64_t *number;
    } numbers[] = {
        {{"--connections", words->connections, 1, BENCH_CONNECTIONS_MAX, CONNECTIONS_DEFAULT}, &connections},
        {{"--depth", words->depth, 1, BENCH_DEPTH_MAX, DEPTH_DEFAULT}, &depth},
        {{"--threads", words->threads, 1, BENCH_THREADS_MAX, 1}, &threads},
        {{"--keys", words->keys, 1, KEYS_MAX, KEYS_DEFAULT}, &plan->data.keys},
        {{"--reads", words->reads, 0, 100, READS_DEFAULT}, &reads},
        {{"--requests", words->requests, 0, COUNT_MAX, 0}, &plan->requests},
        {{"--duration", words->duration, 1, 86400u * 30u, endless ? DURATION_S_DEFAULT : 0}, &seconds},
        {{"--rate", words->rate, 1, RATE_MAX, 0}, &plan->rate},
        {{"--seed", words->seed, 0, UINT64_MAX, bench_now_ns()}, &plan->seed},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        enum cli_exit code = read_number(cli, &numbers[i].option, numbers[i].number);
        if (code != CLI_OK)
            return code;
    }
    plan->connections = (uint32_t)connections;
    plan->depth = (uint32_t)depth;
    plan->threads = (uint32_t)threads;
    plan->reads_per_2_32 = reads * (UINT64_C(1) << 32) / 100;
    plan->duration_ns = seconds * UINT64_C(1000000000);
    if (plan->threads > plan->connections)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                        "%u threads for %u connections: each thread needs one of its own", plan->threads,
                        plan->connections);
    if (words->requests != NULL && plan->requests == 0 && !plan->fill)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                        "--requests 0 does nothing; with --fill it only writes every key once");
    return CLI_OK;
}

/* "100" or "24-4096". */
static enum cli_exit read_sizes(const struct cli *cli, struct bench_plan *plan)
{
    const char *text = cli->bench.size;
    uint64_t least = SIZE_DEFAULT;
    uint64_t greatest = SIZE_DEFAULT;
    if (text != NULL) {
        size_t dash = strcspn(text, "-");
        bool good = span_parse_u64(span_of(text, dash), &least) == STATUS_OK;
        greatest = least;
        if (good && text[dash] != 0)
            good = span_parse_u64(span_of_text(text + dash + 1), &greatest) == STATUS_OK;
        if (!good || least < BENCH_VALUE_BYTES_MIN || greatest < least || greatest > VALUE_BYTES_MAX_HARD)
            return cli_fail(
                cli, CLI_USAGE, "BAD_REQUEST",
                "--size is a number of bytes or a range, like 100 or 24-4096, from %u (the values' "
                "checksums need that much) to %u, not '%.40s'",
                BENCH_VALUE_BYTES_MIN, VALUE_BYTES_MAX_HARD, text);
    }
    plan->data.value_bytes_min = (size_t)least;
    plan->data.value_bytes_max = (size_t)greatest;
    return CLI_OK;
}

static enum cli_exit read_order(const struct cli *cli, struct bench_plan *plan)
{
    const char *text = cli->bench.distribution;
    double theta = THETA_DEFAULT;
    plan->data.order = BENCH_ORDER_UNIFORM;
    if (text == NULL || strcmp(text, "uniform") == 0)
        return CLI_OK;
    if (strcmp(text, "sequential") == 0) {
        plan->data.order = BENCH_ORDER_SEQUENTIAL;
        return CLI_OK;
    }
    bool good = strncmp(text, "zipf", 4) == 0 && (text[4] == 0 || text[4] == ':');
    if (good && text[4] == ':') {
        char *end;
        theta = strtod(text + 5, &end);
        good = end != text + 5 && *end == 0 && isfinite(theta) && theta >= 0 && theta <= THETA_MAX;
    }
    if (!good)
        return cli_fail(
            cli, CLI_USAGE, "BAD_REQUEST",
            "--distribution is uniform, sequential, zipf or zipf:THETA (0 to 10; %.2f is usual), not "
            "'%.40s'",
            THETA_DEFAULT, text);
    plan->data.order = BENCH_ORDER_ZIPF;
    zipf_init(&plan->data.zipf, plan->data.keys, theta);
    return CLI_OK;
}

static enum cli_exit read_keys(const struct cli *cli, struct bench_plan *plan)
{
    const char *prefix = cli->bench.prefix == NULL ? PREFIX_DEFAULT : cli->bench.prefix;
    plan->data.prefix = span_of_text(prefix);
    if (plan->data.prefix.size > BENCH_PREFIX_BYTES_MAX)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "--prefix has at most %u bytes",
                        BENCH_PREFIX_BYTES_MAX);
    plan->data.digits = bench_key_digits(plan->data.prefix.size, plan->data.keys);
    return CLI_OK;
}

/* ---- whom to load --------------------------------------------------------------------------------------- */

/* "host:port" or "[v6]:port" to an address. */
static enum cli_exit resolve(const struct cli *cli, const char *text, struct bench_target *target)
{
    char host[ADDRESS_BYTES_MAX];
    const char *colon = strrchr(text, ':');
    uint64_t port = 0;
    if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof(host) ||
        span_parse_u64(span_of_text(colon + 1), &port) != STATUS_OK || port == 0 || port > 65535 ||
        strpbrk(text, "/ @") != NULL)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                        "'%.200s' is not HOST:RESPPORT; write for example rondo bench 127.0.0.1:7379", text);
    bool bracketed = text[0] == '[' && colon[-1] == ']';
    span_copy_text(span_of(text + bracketed, (size_t)(colon - text) - 2u * bracketed), host, sizeof(host));
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, colon + 1, &hints, &found);
    if (error != 0)
        return cli_fail(cli, CLI_NO_NODE, "NO_NODE", "cannot find %.200s: %s", text, gai_strerror(error));
    target->text = text;
    memcpy(&target->address, found->ai_addr, found->ai_addrlen);
    target->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return CLI_OK;
}

/* One connection on trial, so that a wrong address is one clear line. */
static enum cli_exit try_target(const struct cli *cli, const struct bench_target *target)
{
    int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected =
        fd >= 0 && connect(fd, (const struct sockaddr *)&target->address, target->address_bytes) == 0;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (connected)
        return CLI_OK;
    return cli_fail(cli, CLI_NO_NODE, "NO_NODE",
                    "cannot connect to %.200s (%s); name a RESP address, like rondo bench 127.0.0.1:7379",
                    target->text, strerror(error));
}

/* The RESP address of the node that -h names. */
static enum cli_exit ask_node(struct cli *cli, struct bench_plan *plan)
{
    char *address = plan->node_address;
    json_t *status;
    size_t index;
    json_t *node;
    enum cli_exit code = cli_request_json(cli, "/status", &status);
    if (code != CLI_OK)
        return code;
    address[0] = 0;
    json_array_foreach(json_object_get(status, "nodes"), index, node)
    {
        if (json_is_true(json_object_get(node, "self")))
            span_copy_text(span_of_text(cli_json_text(node, "resp")), address, ADDRESS_BYTES_MAX);
    }
    json_decref(status);
    plan->target_count = 1;
    return resolve(cli, address, &plan->targets[0]);
}

static enum cli_exit read_targets(struct cli *cli, struct bench_plan *plan)
{
    enum cli_exit code = CLI_OK;
    if (cli->argument_count == 0)
        code = ask_node(cli, plan);
    for (int i = 0; i < cli->argument_count && code == CLI_OK; i++)
        code = resolve(cli, cli->arguments[i], &plan->targets[plan->target_count++]);
    for (uint32_t i = 0; i < plan->target_count && code == CLI_OK; i++)
        code = try_target(cli, &plan->targets[i]);
    return code;
}

static void write_preface(const struct cli *cli, struct buf *preface)
{
    if (cli->r == NULL && cli->w == NULL)
        return;
    resp_reply_array(preface, 1u + (cli->r != NULL ? 2u : 0u) + (cli->w != NULL ? 2u : 0u));
    resp_reply_text(preface, "RONDO.CONSISTENCY");
    if (cli->r != NULL) {
        resp_reply_text(preface, "R");
        resp_reply_text(preface, cli->r);
    }
    if (cli->w != NULL) {
        resp_reply_text(preface, "W");
        resp_reply_text(preface, cli->w);
    }
}

enum cli_exit bench_plan_read(struct cli *cli, struct bench_plan *plan, struct buf *preface)
{
    plan->fill = (cli->options_given & CLI_OPTION_FILL) != 0;
    enum cli_exit code = read_numbers(cli, plan);
    if (code == CLI_OK)
        code = read_sizes(cli, plan);
    if (code == CLI_OK)
        code = read_order(cli, plan);
    if (code == CLI_OK)
        code = read_keys(cli, plan);
    if (code == CLI_OK)
        code = job_retry_ms(cli, &plan->retry_ms);
    if (code != CLI_OK)
        return code;
    uint64_t output = bench_command_bytes_max(&plan->data) * (uint64_t)plan->depth * plan->connections;
    if (output > OUTPUT_BYTES_MAX)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                        "%u connections of depth %u with values of %zu bytes need %llu MiB at once; at most "
                        "%llu MiB may",
                        plan->connections, plan->depth, plan->data.value_bytes_max,
                        (unsigned long long)(output >> 20), (unsigned long long)(OUTPUT_BYTES_MAX >> 20));
    write_preface(cli, preface);
    plan->preface = buf_span(preface);
    return read_targets(cli, plan);
}
