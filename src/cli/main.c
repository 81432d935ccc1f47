/* rondo: reads the command line and runs one command. */
#include <curl/curl.h>
#include <locale.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "cli/cli.h"

/* The largest value, its form as JSON, and what libcurl keeps. */
#define MEMORY_BYTES_MAX (16u * (size_t)VALUE_BYTES_MAX_HARD)

struct option_spec {
    const char *name;
    const char *example; /* NULL: it takes no value */
    enum cli_option bit; /* 0 for -h */
    size_t offset;       /* of its value in struct cli */
};

static const struct option_spec option_specs[] = {
    {"-h", "-h 127.0.0.1:7380", 0, offsetof(struct cli, address)},
    {"--r", "--r 2, --r one, --r quorum or --r all", CLI_OPTION_R, offsetof(struct cli, r)},
    {"--w", "--w 2, --w one, --w quorum or --w all", CLI_OPTION_W, offsetof(struct cli, w)},
    {"--ttl", "--ttl 3600", CLI_OPTION_TTL, offsetof(struct cli, ttl)},
    {"--timeout", "--timeout 2000", CLI_OPTION_TIMEOUT, offsetof(struct cli, timeout)},
    {"--retry-for", "--retry-for 60", CLI_OPTION_RETRY_FOR, offsetof(struct cli, retry_for)},
    {"--skip-bad", NULL, CLI_OPTION_SKIP_BAD, 0},
    {"--restart", NULL, CLI_OPTION_RESTART, 0},
    {"--no-resume", NULL, CLI_OPTION_NO_RESUME, 0},
    {"--local", NULL, CLI_OPTION_LOCAL, 0},
    {"--repair", NULL, CLI_OPTION_REPAIR, 0},
    {"--tombstones", NULL, CLI_OPTION_TOMBSTONES, 0},
    {"--connections", "--connections 50", CLI_OPTION_LOAD, offsetof(struct cli, bench.connections)},
    {"--depth", "--depth 16", CLI_OPTION_LOAD, offsetof(struct cli, bench.depth)},
    {"--threads", "--threads 2", CLI_OPTION_LOAD, offsetof(struct cli, bench.threads)},
    {"--keys", "--keys 1000000", CLI_OPTION_LOAD, offsetof(struct cli, bench.keys)},
    {"--prefix", "--prefix bench:", CLI_OPTION_LOAD, offsetof(struct cli, bench.prefix)},
    {"--distribution", "--distribution uniform, sequential or zipf:0.99", CLI_OPTION_LOAD,
     offsetof(struct cli, bench.distribution)},
    {"--reads", "--reads 95", CLI_OPTION_LOAD, offsetof(struct cli, bench.reads)},
    {"--size", "--size 100 or --size 24-4096", CLI_OPTION_LOAD, offsetof(struct cli, bench.size)},
    {"--requests", "--requests 1000000", CLI_OPTION_LOAD, offsetof(struct cli, bench.requests)},
    {"--duration", "--duration 30", CLI_OPTION_LOAD, offsetof(struct cli, bench.duration)},
    {"--rate", "--rate 10000", CLI_OPTION_LOAD, offsetof(struct cli, bench.rate)},
    {"--seed", "--seed 42", CLI_OPTION_LOAD, offsetof(struct cli, bench.seed)},
    {"--fill", NULL, CLI_OPTION_FILL, 0},
    {"--interval", "--interval 2", CLI_OPTION_INTERVAL, offsetof(struct cli, interval)},
    {"--once", NULL, CLI_OPTION_ONCE, 0},
};

/* Takes one option, with its value if it has one ("--w 2" or "--w=2"); *at moves over the value. */
static enum cli_exit take_option(struct cli *cli, int count, char **words, int *at)
{
    const char *word = words[*at];
    for (size_t i = 0; i < sizeof(option_specs) / sizeof(option_specs[0]); i++) {
        const struct option_spec *spec = &option_specs[i];
        size_t size = strlen(spec->name);
        if (strncmp(word, spec->name, size) != 0 || (word[size] != 0 && (word[size] != '=' || size == 2)))
            continue;
        if (spec->example == NULL && word[size] == '=')
            return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "%s takes no value", spec->name);
        if (spec->example == NULL) {
            cli->options_given |= spec->bit;
            return CLI_OK;
        }
        const char *value = word[size] == '=' ? word + size + 1 : NULL;
        if (value == NULL && *at + 1 < count)
            value = words[++*at];
        if (value == NULL || value[0] == 0)
            return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "%s needs a value: %s", spec->name, spec->example);
        memcpy((char *)cli + spec->offset, &value, sizeof(value));
        cli->options_given |= spec->bit;
        if (spec->bit == CLI_OPTION_LOAD)
            cli->load_option = spec->name;
        return CLI_OK;
    }
    return cli_fail(
        cli, CLI_USAGE, "BAD_REQUEST",
        "unknown option '%s'; rondo help lists them ('--' goes before a value that starts with '-')", word);
}

static enum cli_exit read_arguments(struct cli *cli, int count, char **words)
{
    bool options_ended = false;
    for (int at = 1; at < count; at++) {
        const char *word = words[at];
        if (options_ended || word[0] != '-' || word[1] == 0) {
            cli->arguments[cli->argument_count++] = word;
        } else if (strcmp(word, "--") == 0) {
            options_ended = true;
        } else if (strcmp(word, "--json") == 0) {
            cli->json = true;
        } else if (strcmp(word, "--help") == 0) {
            cli->help = true;
        } else if (strcmp(word, "--version") == 0) {
            cli->arguments[0] = "version";
            cli->argument_count = 1;
            return CLI_OK;
        } else {
            enum cli_exit code = take_option(cli, count, words, &at);
            if (code != CLI_OK)
                return code;
        }
    }
    return CLI_OK;
}

/* Checks "host", "host:port" and "[v6]:port", and completes it with the default port in `whole`. */
static enum cli_exit complete_address(struct cli *cli, char whole[ADDRESS_BYTES_MAX])
{
    const char *address = cli->address;
    const char *bracket = strrchr(address, ']');
    const char *colon = strrchr(bracket == NULL ? address : bracket, ':');
    const char *port = colon == NULL ? CLI_PORT_DEFAULT : colon + 1;
    int host_size = colon == NULL ? (int)strlen(address) : (int)(colon - address);
    uint64_t number = 0;
    bool host_clear = strcspn(address, "/ @?#%") == strlen(address) &&
                      (address[0] == '[') == (bracket != NULL) &&
                      (bracket != NULL || memchr(address, ':', (size_t)host_size) == NULL);
    if (!host_clear || strlen(address) > ADDRESS_BYTES_MAX - 16 ||
        span_parse_u64(span_of_text(port), &number) != STATUS_OK || number == 0 || number > 65535)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                        "'%.200s' is not HOST:HTTPPORT; write for example -h 127.0.0.1:7380", address);
    snprintf(whole, ADDRESS_BYTES_MAX, "%.*s:%s", host_size == 0 ? (int)strlen(CLI_HOST_DEFAULT) : host_size,
             host_size == 0 ? CLI_HOST_DEFAULT : address, port);
    cli->address = whole;
    return CLI_OK;
}

/* Options and arguments that the command does not take. */
static enum cli_exit check_command(struct cli *cli, const struct cli_command *command)
{
    unsigned foreign = cli->options_given & ~command->options;
    for (size_t i = 0; i < sizeof(option_specs) / sizeof(option_specs[0]); i++) {
        if ((foreign & option_specs[i].bit) != 0)
            return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "%s takes no %s; its form is: rondo %s",
                            command->name,
                            option_specs[i].bit == CLI_OPTION_LOAD ? cli->load_option : option_specs[i].name,
                            command->usage);
    }
    if (cli->argument_count < command->arguments_min)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "%s needs %s; its form is: rondo %s", command->name,
                        command->needs, command->usage);
    if (cli->argument_count > command->arguments_max)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                        "too many words for %s (quote a value with blanks); its form is: rondo %s",
                        command->name, command->usage);
    return CLI_OK;
}

static enum cli_exit run_command(struct cli *cli)
{
    char whole[ADDRESS_BYTES_MAX];
    const char *name = cli->argument_count > 0 ? cli->arguments[0] : "help";
    const struct cli_command *command = cli_command_find(name);
    if (command == NULL) {
        const struct cli_command *nearest = cli_command_nearest(name);
        if (nearest != NULL)
            return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "there is no command '%.100s'; did you mean '%s'?",
                            name, nearest->name);
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                        "there is no command '%.100s'; rondo help lists them all", name);
    }
    if (cli->help && cli->argument_count > 0) {
        cli->arguments[0] = command->name;
        cli->argument_count = 1;
        return cli_help(cli);
    }
    if (cli->argument_count > 0) {
        cli->arguments++;
        cli->argument_count--;
    }
    enum cli_exit code = check_command(cli, command);
    if (code == CLI_OK)
        code = complete_address(cli, whole);
    return code == CLI_OK ? command->run(cli) : code;
}

int main(int count, char **words)
{
    struct cli cli = {.address = getenv("RONDO_HOST")};
    if (cli.address == NULL || cli.address[0] == 0)
        cli.address = CLI_HOST_DEFAULT ":" CLI_PORT_DEFAULT;
    setlocale(LC_CTYPE, "");
    alloc_init(&cli.alloc, MEMORY_BYTES_MAX);
    size_t arguments_size = (size_t)(count + 1) * sizeof(const char *);
    const char **arguments = alloc_get(&cli.alloc, arguments_size);
    if (arguments == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
        fprintf(stderr, "rondo: out of memory\n");
        return CLI_NOT_APPLIED;
    }
    cli.arguments = arguments;
    /* So that an error in an earlier word is JSON too. */
    for (int i = 1; i < count && strcmp(words[i], "--") != 0; i++)
        cli.json = cli.json || strcmp(words[i], "--json") == 0;
    enum cli_exit code = read_arguments(&cli, count, words);
    if (code == CLI_OK)
        code = run_command(&cli);
    curl_global_cleanup();
    alloc_put(&cli.alloc, arguments, arguments_size);
    return (int)code;
}
