/* The commands, and help that teaches them by example. */
#include <stdio.h>

#include "cli/cli.h"

const struct cli_command cli_commands[] = {
    {.name = "put",
     .usage = "put KEY [VALUE|-] [--w W] [--ttl SECONDS] [--timeout MS]",
     .summary = "store a value; '-' or no VALUE reads it from standard input",
     .examples = "  rondo put greeting 'hello ring'        store a text\n"
                 "  rondo put photo < photo.jpg            store a file, byte for byte\n"
                 "  rondo put session:7 open --ttl 3600    gone after an hour\n"
                 "  rondo put ledger 12 --w all            answer only when every replica has it on disk\n"
                 "  rondo put -- balance -5                '--' before a value that starts with '-'\n",
     .needs = "a KEY",
     .options = CLI_OPTION_W | CLI_OPTION_TTL | CLI_OPTION_TIMEOUT,
     .arguments_min = 1,
     .arguments_max = 2,
     .run = cli_put},
    {.name = "get",
     .usage = "get KEY [--r R] [--timeout MS]",
     .summary = "write a key's value to standard output, byte for byte",
     .examples = "  rondo get greeting                     print a text\n"
                 "  rondo get photo > photo.jpg            fetch a file\n"
                 "  rondo get greeting --r one             ask one replica only: fast, maybe old\n"
                 "  rondo get greeting || echo 'no value'  the exit code is 1 when there is none\n"
                 "  rondo --json get greeting              the value with its version\n",
     .needs = "a KEY",
     .options = CLI_OPTION_R | CLI_OPTION_TIMEOUT,
     .arguments_min = 1,
     .arguments_max = 1,
     .run = cli_get},
    {.name = "del",
     .usage = "del KEY [--w W] [--timeout MS]",
     .summary = "delete a key; says whether it had a value",
     .examples = "  rondo del greeting\n",
     .needs = "a KEY",
     .options = CLI_OPTION_W | CLI_OPTION_TIMEOUT,
     .arguments_min = 1,
     .arguments_max = 1,
     .run = cli_del},
    {.name = "load",
     .usage =
         "load FILE|- [--skip-bad] [--restart] [--no-resume] [--w W] [--timeout MS] [--retry-for SECONDS]",
     .summary = "store the records of a file of JSON lines; goes on where it was interrupted",
     .examples =
         "  rondo load records.jsonl               each line: {\"key\":\"k\",\"value\":\"v\",\"ttl\":60}\n"
         "  zcat records.gz | rondo load -         from a pipe\n"
         "  rondo load records.jsonl               again after Ctrl-C: goes on, does not start over\n"
         "  rondo load x.jsonl --restart           from the first line all the same\n"
         "  rondo load x.jsonl --no-resume         neither reads nor writes x.jsonl.rondo-progress\n"
         "  rondo load x.jsonl --skip-bad          names lines that are no records, and goes on\n"
         "Bytes that are not UTF-8 go into key_base64 and value_base64. ttl is in seconds, absent: never\n"
         "expires. Of several lines with one key the last one wins.\n",
     .needs = "a FILE",
     .options = CLI_OPTION_W | CLI_OPTION_TIMEOUT | CLI_OPTION_RETRY_FOR | CLI_OPTION_SKIP_BAD |
                CLI_OPTION_RESTART | CLI_OPTION_NO_RESUME,
     .arguments_min = 1,
     .arguments_max = 1,
     .run = cli_load},
    {.name = "dump",
     .usage = "dump FILE|- [--r R | --local] [--restart] [--no-resume] [--timeout MS] [--retry-for SECONDS]",
     .summary = "write all records of the cluster to a file that load reads",
     .examples =
         "  rondo dump records.jsonl               everything, as R replicas agree on it\n"
         "  rondo dump - | gzip > records.gz       into a pipe\n"
         "  rondo dump records.jsonl               again after Ctrl-C: goes on, does not start over\n"
         "  rondo dump n1.jsonl --local            what this node alone holds, with versions and tombstones\n"
         "  cmp n1.jsonl n2.jsonl                  two nodes that hold the same say the same\n"
         "FILE appears when it is complete; until then there is FILE.partial.\n",
     .needs = "a FILE",
     .options = CLI_OPTION_R | CLI_OPTION_TIMEOUT | CLI_OPTION_RETRY_FOR | CLI_OPTION_LOCAL |
                CLI_OPTION_RESTART | CLI_OPTION_NO_RESUME,
     .arguments_min = 1,
     .arguments_max = 1,
     .run = cli_dump},
    {.name = "status",
     .usage = "status [--repair | --tombstones]",
     .summary = "show the cluster as a node sees it, and how that node is",
     .options = CLI_OPTION_REPAIR | CLI_OPTION_TOMBSTONES,
     .examples = "  rondo status                           the node on this machine\n"
                 "  rondo status --repair                  when each peer was last found to hold the same\n"
                 "  rondo status --tombstones              how many deletes are kept, and who holds them up\n"
                 "  rondo -h 127.0.0.1:7480 status         another node\n"
                 "  rondo --json status | jq .requests     for programs\n",
     .run = cli_status},
    {.name = "ring",
     .usage = "ring",
     .summary = "draw who owns and who replicates which part of the ring",
     .examples = "  rondo ring\n"
                 "  rondo --json ring | jq '.nodes[] | {name, slots}'\n",
     .run = cli_ring},
    {.name = "bench",
     .usage = "bench [HOST:RESPPORT...] [--connections N] [--depth N] [--threads N] [--reads PERCENT] "
              "[--size N[-N]] "
              "[--keys N] [--prefix TEXT] [--distribution D] [--fill] [--requests N] [--duration SECONDS] "
              "[--rate N] "
              "[--r R] [--w W] [--seed N] [--retry-for SECONDS]",
     .summary = "load nodes over the Redis protocol, time the answers and check them",
     .options = CLI_OPTION_LOAD | CLI_OPTION_FILL | CLI_OPTION_R | CLI_OPTION_W | CLI_OPTION_RETRY_FOR,
     .examples =
         "  rondo bench --fill                     write 100,000 keys, then half reads, half writes for 10 "
         "s\n"
         "  rondo bench 10.0.0.1:7379 10.0.0.2:7379 --reads 95 --depth 16\n"
         "                                         two nodes; without an address that of the node of -h\n"
         "  rondo bench --rate 20000 --duration 60 20,000 commands a second, whatever the node does: "
         "latency\n"
         "                                         counts from when a command was due, so no delay is "
         "hidden\n"
         "  rondo bench --keys 5000000 --size 24-4096 --distribution zipf:0.99 --fill\n"
         "  rondo bench --keys 5000000 --distribution sequential --reads 100 --requests 5000000\n"
         "                                         read every key once: misses are keys that are not there\n"
         "  rondo --json bench --requests 1000000  for programs; all times in microseconds\n"
         "Defaults: 50 connections, depth 1, 1 thread, half reads, 100,000 keys 'bench:0000000000' and on, "
         "drawn\n"
         "uniformly, values of 100 bytes, 10 seconds. It overwrites the keys of its prefix and leaves them "
         "there.\n"
         "Values carry their key and a checksum: one that is torn, cut short or another key's is a wrong "
         "value, and\n"
         "the exit code is 3. At a depth above 1 a connection sends that many commands in one write, and the "
         "next\n"
         "ones when all are answered. Error answers are counted by their code.\n",
     .arguments_max = 64,
     .run = cli_bench},
    {.name = "top",
     .usage = "top [--interval SECONDS] [--once]",
     .summary = "show what every node does, live",
     .options = CLI_OPTION_INTERVAL | CLI_OPTION_ONCE,
     .examples =
         "  rondo top                              all nodes that the node of -h knows, every 2 seconds\n"
         "  rondo top --once                       one table, over one interval\n"
         "  rondo --json top --interval 10         one JSON object, for programs\n"
         "Into a pipe it prints one table and ends, as with --once. Ctrl-C ends it. Times are percentiles "
         "over\n"
         "the interval, from a node's first look at a request to its result, to a factor of two.\n",
     .run = cli_top},
    {.name = "help",
     .usage = "help [COMMAND]",
     .summary = "explain a command by example",
     .examples = "  rondo help put\n",
     .arguments_max = 1,
     .run = cli_help},
    {.name = "version",
     .usage = "version",
     .summary = "print the version of this program",
     .examples = "  rondo version\n",
     .run = cli_version},
    {.name = NULL},
};

static const char help_head[] = "rondo talks to a Rondo node over HTTP.\n"
                                "\n"
                                "  rondo put greeting 'hello ring'\n"
                                "  rondo get greeting\n"
                                "  rondo ring\n"
                                "\n"
                                "Commands:\n";

static const char help_tail[] =
    "\n"
    "Options, before or after the command:\n"
    "  -h HOST:HTTPPORT  the node to talk to (default 127.0.0.1:7380, or the variable RONDO_HOST)\n"
    "  --json            print JSON, errors too\n"
    "  --w W, --r R      replicas that must answer: a number, one, quorum or all (default quorum)\n"
    "  --ttl SECONDS     the value expires after this time\n"
    "  --timeout MS      the node gives up after this time\n"
    "  --retry-for S     load, dump and bench give up after this time without progress (default 60)\n"
    "\n"
    "Exit codes: 0 done, 1 not found, 2 the command makes no sense, 3 nothing was applied (or a read got no\n"
    "answer), 4 outcome unknown: the write may still take effect, 5 the node cannot be reached, 130 "
    "interrupted.\n"
    "\n"
    "rondo help COMMAND shows examples of a command.\n";

const struct cli_command *cli_command_find(const char *name)
{
    for (const struct cli_command *command = cli_commands; command->name != NULL; command++) {
        if (strcmp(command->name, name) == 0)
            return command;
    }
    return NULL;
}

/* Edit distance (Levenshtein) of two short words; anything longer than the table is far away. */
static size_t word_distance(const char *a, const char *b)
{
    enum {
        WORD_MAX = 16
    };
    size_t row[WORD_MAX + 1];
    size_t a_size = strlen(a);
    size_t b_size = strlen(b);
    if (a_size > WORD_MAX || b_size > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= b_size; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
            size_t shorter = row[j - 1] < row[j] ? row[j - 1] : row[j];
            diagonal = row[j];
            row[j] = substituted < shorter + 1 ? substituted : shorter + 1;
        }
    }
    return row[b_size];
}

const struct cli_command *cli_command_nearest(const char *name)
{
    /* The commands, and what people type who come from elsewhere. */
    static const char *const words[][2] = {
        {"put", "put"},         {"get", "get"},     {"del", "del"},     {"status", "status"},
        {"ring", "ring"},       {"help", "help"},   {"set", "put"},     {"write", "put"},
        {"store", "put"},       {"read", "get"},    {"fetch", "get"},   {"delete", "del"},
        {"remove", "del"},      {"rm", "del"},      {"unlink", "del"},  {"info", "status"},
        {"stats", "status"},    {"nodes", "ring"},  {"slots", "ring"},  {"cluster", "ring"},
        {"version", "version"}, {"load", "load"},   {"import", "load"}, {"restore", "load"},
        {"dump", "dump"},       {"export", "dump"}, {"backup", "dump"}, {"bench", "bench"},
        {"benchmark", "bench"}, {"top", "top"},     {"watch", "top"},   {"monitor", "top"}};
    const char *nearest = NULL;
    size_t nearest_distance = 3;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t distance = word_distance(name, words[i][0]);
        if (distance < nearest_distance && distance < strlen(words[i][0])) {
            nearest = words[i][1];
            nearest_distance = distance;
        }
    }
    return nearest == NULL ? NULL : cli_command_find(nearest);
}

static enum cli_exit help_json(const struct cli_command *only)
{
    json_t *commands = json_array();
    for (const struct cli_command *command = cli_commands; command->name != NULL; command++) {
        if (only != NULL && command != only)
            continue;
        json_array_append_new(commands, json_pack("{s:s, s:s, s:s}", "name", command->name, "usage",
                                                  command->usage, "summary", command->summary));
    }
    json_t *json = json_pack("{s:o}", "commands", commands);
    enum cli_exit code = cli_print_json(json);
    json_decref(json);
    return code;
}

enum cli_exit cli_help(struct cli *cli)
{
    const struct cli_command *command = NULL;
    if (cli->argument_count > 0) {
        command = cli_command_find(cli->arguments[0]);
        if (command == NULL)
            return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                            "there is no command '%s'; rondo help lists them all", cli->arguments[0]);
    }
    if (cli->json)
        return help_json(command);
    if (command != NULL) {
        printf("rondo %s\n%s\n\nExamples:\n%s", command->usage, command->summary, command->examples);
        return CLI_OK;
    }
    fputs(help_head, stdout);
    for (command = cli_commands; command->name != NULL; command++)
        printf("  %-8s %s\n", command->name, command->summary);
    fputs(help_tail, stdout);
    return CLI_OK;
}

enum cli_exit cli_version(struct cli *cli)
{
    if (!cli->json) {
        printf("rondo " CLI_VERSION "\n");
        return CLI_OK;
    }
    json_t *json = json_pack("{s:s}", "version", CLI_VERSION);
    enum cli_exit code = cli_print_json(json);
    json_decref(json);
    return code;
}
