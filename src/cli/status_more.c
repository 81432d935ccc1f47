/* status: hints, repair and tombstones. Members that a node does not tell are left out, never invented. */
#include "cli/status_more.h"

#include <stdio.h>

void status_print_bytes(json_int_t bytes)
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

/* The text of a duration in at most two units. */
static const char *duration_text(json_int_t ms, char text[48])
{
    long long s = (long long)ms / 1000;
    if (s >= 86400)
        snprintf(text, 48, "%lld d %lld h", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        snprintf(text, 48, "%lld h %lld min", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        snprintf(text, 48, "%lld min %lld s", s / 60, s % 60);
    else
        snprintf(text, 48, "%lld s", s);
    return text;
}

void status_print_duration(json_int_t ms)
{
    char text[48];
    fputs(duration_text(ms, text), stdout);
}

/* "12 s ago", or "never" where the member is absent or null. */
static const char *ago_text(const json_t *object, const char *name, char text[64])
{
    char duration[48];
    if (!json_is_integer(json_object_get(object, name)))
        return "never";
    snprintf(text, 64, "%s ago", duration_text(cli_json_number(object, name), duration));
    return text;
}

static const char *count_text(const json_t *object, const char *name, char text[CLI_NUMBER_BYTES_MAX])
{
    return cli_number(cli_json_number(object, name), text);
}

/* ---- hints ---------------------------------------------------------------------------------------------- */

static void print_hints(const json_t *hints)
{
    char a[CLI_NUMBER_BYTES_MAX];
    size_t index;
    json_t *target;
    if (!json_is_object(hints))
        return;
    printf("%-10s %s kept (", "hints", count_text(hints, "count", a));
    status_print_bytes(cli_json_number(hints, "bytes"));
    printf("), %s replayed", count_text(hints, "replayed", a));
    if (cli_json_number(hints, "converted") > 0)
        printf(", %s turned into repair of whole slots", count_text(hints, "converted", a));
    if (cli_json_number(hints, "refused") > 0)
        printf(", %s refused", count_text(hints, "refused", a));
    printf("\n");
    json_array_foreach(json_object_get(hints, "targets"), index, target)
    {
        printf("%-10s   for %s (%s): %s, ", "", cli_json_text(target, "node"),
               json_is_true(json_object_get(target, "up")) ? "up" : "down", count_text(target, "count", a));
        status_print_bytes(cli_json_number(target, "bytes"));
        if (cli_json_number(target, "sync_slots") > 0)
            printf(", and %s slots to repair", count_text(target, "sync_slots", a));
        printf("\n");
    }
}

/* ---- repair --------------------------------------------------------------------------------------------- */

static void sum_peers(const json_t *peers, json_int_t *slots, json_int_t *verified)
{
    size_t index;
    json_t *peer;
    *slots = 0;
    *verified = 0;
    json_array_foreach(peers, index, peer)
    {
        *slots += cli_json_number(peer, "slots");
        *verified += cli_json_number(peer, "verified");
    }
}

/* Whether the node says that it does not repair. */
static bool repair_off(const json_t *repair)
{
    return json_is_false(json_object_get(repair, "enabled"));
}

static void print_not_serving(const json_t *repair)
{
    char number[CLI_NUMBER_BYTES_MAX];
    if (cli_json_number(repair, "slots_not_serving") > 0)
        printf(
            "WARNING: %s slots are being rebuilt from the other replicas: until then they count towards no R "
            "here\n",
            count_text(repair, "slots_not_serving", number));
}

static void print_repair_line(const json_t *repair)
{
    char number[CLI_NUMBER_BYTES_MAX];
    json_int_t slots;
    json_int_t verified;
    if (!json_is_object(repair))
        return;
    sum_peers(json_object_get(repair, "peers"), &slots, &verified);
    printf("%-10s ", "repair");
    if (repair_off(repair))
        printf("is switched off; ");
    if (slots > 0)
        printf("%.1f%% of shared slots verified within ", 100.0 * (double)verified / (double)slots);
    else
        printf("no shared slots; a round takes ");
    status_print_duration(cli_json_number(repair, "interval_ms"));
    printf(", %s records received", count_text(repair, "records_received", number));
    printf(", %s sent\n", count_text(repair, "records_sent", number));
}

void status_print_repair(const json_t *status)
{
    const json_t *repair = json_object_get(status, "repair");
    const json_t *peers = json_object_get(repair, "peers");
    char text[64];
    char number[CLI_NUMBER_BYTES_MAX];
    size_t index;
    json_t *peer;
    if (!json_is_object(repair)) {
        printf("%s says nothing of repair: it is of an older version\n", cli_json_text(status, "node"));
        return;
    }
    printf("repair at %s: %s, a round every ", cli_json_text(status, "node"),
           repair_off(repair) ? "OFF" : "on");
    status_print_duration(cli_json_number(repair, "interval_ms"));
    printf(", this one began %s\n", ago_text(repair, "round_started_ms_ago", text));
    print_not_serving(repair);
    printf("\n%-12s %9s %9s %9s  %-20s %s\n", "peer", "slots", "verified", "never", "oldest verified",
           "to repair now");
    json_array_foreach(peers, index, peer)
    {
        printf("%-12s ", cli_json_text(peer, "node"));
        printf("%9s ", count_text(peer, "slots", number));
        printf("%9s ", count_text(peer, "verified", number));
        printf("%9s  ", count_text(peer, "never", number));
        printf("%-20s ", ago_text(peer, "oldest_verified_ms_ago", text));
        printf("%s\n", count_text(peer, "sync_slots", number));
    }
    if (json_array_size(peers) == 0)
        printf("(this node shares slots with nobody)\n");
    printf("\nslots: shared with the peer; verified: found equal within the last round; never: not yet "
           "compared;\n"
           "to repair now: marked by hints that grew too many\n");
    printf("\n%s exchanges; ", count_text(repair, "exchanges", number));
    status_print_bytes(cli_json_number(repair, "bytes_sent"));
    printf(" and %s records sent, ", count_text(repair, "records_sent", number));
    status_print_bytes(cli_json_number(repair, "bytes_received"));
    printf(" and %s records received\n", count_text(repair, "records_received", number));
}

/* ---- tombstones ----------------------------------------------------------------------------------------- */

static void print_tombstones_line(const json_t *tombstones)
{
    char number[CLI_NUMBER_BYTES_MAX];
    char text[64];
    size_t blockers = json_array_size(json_object_get(tombstones, "blockers"));
    if (!json_is_object(tombstones))
        return;
    printf("%-10s %s kept", "tombstones", count_text(tombstones, "count", number));
    if (cli_json_number(tombstones, "count") > 0 &&
        json_is_integer(json_object_get(tombstones, "oldest_age_ms")))
        printf(", the oldest %s old", duration_text(cli_json_number(tombstones, "oldest_age_ms"), text));
    printf(", %s purged", count_text(tombstones, "purged_total", number));
    if (blockers > 0)
        printf("; %zu node%s hold%s up their purge (rondo status --tombstones)", blockers,
               blockers == 1 ? "" : "s", blockers == 1 ? "s" : "");
    printf("\n");
}

void status_print_tombstones(const json_t *status)
{
    const json_t *tombstones = json_object_get(status, "tombstones");
    const json_t *blockers = json_object_get(tombstones, "blockers");
    char number[CLI_NUMBER_BYTES_MAX];
    char text[64];
    size_t index;
    json_t *blocker;
    if (!json_is_object(tombstones)) {
        printf("%s says nothing of tombstones: it is of an older version\n", cli_json_text(status, "node"));
        return;
    }
    printf("tombstones at %s: %s kept", cli_json_text(status, "node"),
           count_text(tombstones, "count", number));
    if (json_is_integer(json_object_get(tombstones, "purgeable")))
        printf(", %s of them can go now", count_text(tombstones, "purgeable", number));
    if (cli_json_number(tombstones, "count") > 0 &&
        json_is_integer(json_object_get(tombstones, "oldest_age_ms")))
        printf("; the oldest is %s old", duration_text(cli_json_number(tombstones, "oldest_age_ms"), text));
    printf("\n%s purged so far", count_text(tombstones, "purged_total", number));
    printf("; %s late writes of purged keys refused\n", count_text(tombstones, "floor_refusals", number));
    if (json_array_size(blockers) == 0) {
        printf("no node holds up a purge\n");
        return;
    }
    printf("\n%-12s %9s  %-20s %s\n", "held up by", "slots", "since", "because");
    json_array_foreach(blockers, index, blocker)
    {
        printf("%-12s ", cli_json_text(blocker, "node"));
        printf("%9s  ", count_text(blocker, "slots", number));
        printf("%-20s ", ago_text(blocker, "since_ms_ago", text));
        printf("%s\n", cli_json_text(blocker, "reason"));
    }
}

void status_print_healing(const json_t *status)
{
    print_hints(json_object_get(status, "hints"));
    print_repair_line(json_object_get(status, "repair"));
    print_tombstones_line(json_object_get(status, "tombstones"));
}
