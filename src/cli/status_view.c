/* status: the cluster as a node sees it, and that node, for people. */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/status_more.h"

/* What the state means for whoever reads from this node. */
static const char *state_advice(const char *state)
{
    if (strcmp(state, "unproven") == 0)
        return "its data directory is new, and it has not heard from a majority of the others yet: it takes "
               "writes, "
               "but counts towards no R";
    if (strcmp(state, "amnesiac") == 0)
        return "its data directory was emptied or replaced: it takes writes, but counts towards no R";
    return NULL;
}

/* "reachable", and what gossip thinks: "alive for 3 min 2 s". */
static void print_liveness(const json_t *node)
{
    const json_t *gossip = json_object_get(node, "gossip");
    bool self = json_is_true(json_object_get(node, "self"));
    fputs(self                                               ? "this node"
          : json_is_true(json_object_get(node, "reachable")) ? "reachable"
                                                             : "UNREACHABLE",
          stdout);
    if (!self && json_is_object(gossip)) {
        printf(", gossip: %s", cli_json_text(gossip, "state"));
        if (json_is_integer(json_object_get(gossip, "since_ms_ago"))) {
            printf(" for ");
            status_print_duration(cli_json_number(gossip, "since_ms_ago"));
        }
    }
    if (json_is_integer(json_object_get(node, "clock_offset_ms")))
        printf(", clock %+lld ms", (long long)cli_json_number(node, "clock_offset_ms"));
}

static void print_nodes(const json_t *nodes)
{
    size_t index;
    json_t *node;
    bool slots = json_is_integer(json_object_get(json_array_get(nodes, 0), "slots"));
    printf("\n%-12s %-22s %-22s %-22s%s\n", "node", "RESP", "HTTP", "peer", slots ? "  slots" : "");
    json_array_foreach(nodes, index, node)
    {
        printf("%-12s %-22s %-22s %-22s ", cli_json_text(node, "name"), cli_json_text(node, "resp"),
               cli_json_text(node, "http"), cli_json_text(node, "peer"));
        if (slots)
            printf("%6lld  ", (long long)cli_json_number(node, "slots"));
        print_liveness(node);
        printf("\n");
    }
}

static void print_figures(const json_t *status)
{
    static const struct {
        const char *member;
        const char *title;
    } requests[] = {{"done", "done"},          {"not_applied", "not applied"},
                    {"unknown", "unknown"},    {"forwarded", "forwarded"},
                    {"restamps", "restamped"}, {"write_backs", "written back"},
                    {"overloads", "overloads"}};
    char number[CLI_NUMBER_BYTES_MAX];
    const json_t *counts = json_object_get(status, "requests");
    printf("\n%-10s about %s keys; ", "data", cli_number(cli_json_number(status, "keys"), number));
    printf("%s rows in memory, ", cli_number(cli_json_number(status, "rows"), number));
    printf("%s of them not yet in the cold tier\n",
           cli_number(cli_json_number(status, "dirty_rows"), number));
    printf("%-10s ", "memory");
    status_print_bytes(cli_json_number(status, "memory_used_bytes"));
    printf(" of ");
    status_print_bytes(cli_json_number(status, "memory_budget_bytes"));
    printf("\n%-10s %lld ms from its peers\n%-10s ", "clock",
           (long long)cli_json_number(status, "clock_skew_ms"), "requests");
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        printf("%s%s %s", i == 0 ? "" : ", ", cli_number(cli_json_number(counts, requests[i].member), number),
               requests[i].title);
    printf("\n");
}

static void print_status(const json_t *status)
{
    const char *state = cli_json_text(status, "state");
    const char *advice = state_advice(state);
    json_int_t shards = cli_json_number(status, "shards");
    json_int_t quarantined = cli_json_number(status, "quarantined_slots");
    printf("%s is %s: rondod %s, up ", cli_json_text(status, "node"), state,
           cli_json_text(status, "version"));
    status_print_duration(cli_json_number(status, "uptime_s") * 1000);
    printf(", %lld shard%s, durability %s\n", (long long)shards, shards == 1 ? "" : "s",
           cli_json_text(status, "durability"));
    printf("cluster %s, epoch %lld, N = %lld\n", cli_json_text(status, "cluster"),
           (long long)cli_json_number(status, "epoch"), (long long)cli_json_number(status, "n"));
    if (advice != NULL)
        printf("WARNING: %s\n", advice);
    if (quarantined > 0)
        printf("WARNING: %lld slots are quarantined: damage was found, and their keys answer an error here; "
               "the node's log names it\n",
               (long long)quarantined);
    print_nodes(json_object_get(status, "nodes"));
    print_figures(status);
    status_print_healing(status);
}

enum cli_exit cli_status(struct cli *cli)
{
    json_t *status;
    enum cli_exit code = cli_request_json(cli, "/status", &status);
    if (code != CLI_OK)
        return code;
    if (cli->json) {
        code = cli_print_json(status);
    } else if (cli->options_given == 0) {
        print_status(status);
    } else {
        if ((cli->options_given & CLI_OPTION_REPAIR) != 0)
            status_print_repair(status);
        if (cli->options_given == (CLI_OPTION_REPAIR | CLI_OPTION_TOMBSTONES))
            printf("\n");
        if ((cli->options_given & CLI_OPTION_TOMBSTONES) != 0)
            status_print_tombstones(status);
    }
    json_decref(status);
    return code;
}
