/* status: one node for people. */
#include <stdio.h>

#include "cli/cli.h"

static void print_bytes(json_int_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double scaled = (double)bytes;
    size_t unit = 0;
    while (scaled >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        scaled /= 1024;
        unit++;
    }
    printf(unit == 0 ? "%.0f %s" : "%.1f %s", scaled, units[unit]);
}

static void print_uptime(json_int_t seconds)
{
    if (seconds >= 86400)
        printf("%lld d %lld h", (long long)(seconds / 86400), (long long)(seconds % 86400 / 3600));
    else if (seconds >= 3600)
        printf("%lld h %lld min", (long long)(seconds / 3600), (long long)(seconds % 3600 / 60));
    else if (seconds >= 60)
        printf("%lld min %lld s", (long long)(seconds / 60), (long long)(seconds % 60));
    else
        printf("%lld s", (long long)seconds);
}

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

static void print_nodes(const json_t *nodes)
{
    size_t index;
    json_t *node;
    printf("\n%-12s %-22s %-22s %-22s\n", "node", "RESP", "HTTP", "peer");
    json_array_foreach(nodes, index, node)
    {
        const char *note = json_is_true(json_object_get(node, "self"))        ? "this node"
                           : json_is_true(json_object_get(node, "reachable")) ? "reachable"
                                                                              : "UNREACHABLE";
        printf("%-12s %-22s %-22s %-22s %s\n", cli_json_text(node, "name"), cli_json_text(node, "resp"),
               cli_json_text(node, "http"), cli_json_text(node, "peer"), note);
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
    print_bytes(cli_json_number(status, "memory_used_bytes"));
    printf(" of ");
    print_bytes(cli_json_number(status, "memory_budget_bytes"));
    printf("\n%-10s %lld ms from its peers\n%-10s ", "clock",
           (long long)cli_json_number(status, "clock_skew_ms"), "requests");
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        printf("%s%s %s", i == 0 ? "" : ", ", cli_number(cli_json_number(counts, requests[i].member), number),
               requests[i].title);
    printf("\n");
}

enum cli_exit cli_status(struct cli *cli)
{
    json_t *status;
    enum cli_exit code = cli_request_json(cli, "/status", &status);
    if (code != CLI_OK)
        return code;
    if (cli->json) {
        code = cli_print_json(status);
        json_decref(status);
        return code;
    }
    const char *state = cli_json_text(status, "state");
    const char *advice = state_advice(state);
    json_int_t shards = cli_json_number(status, "shards");
    json_int_t quarantined = cli_json_number(status, "quarantined_slots");
    printf("%s is %s: rondod %s, up ", cli_json_text(status, "node"), state,
           cli_json_text(status, "version"));
    print_uptime(cli_json_number(status, "uptime_s"));
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
    json_decref(status);
    return CLI_OK;
}
