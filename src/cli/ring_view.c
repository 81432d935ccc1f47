/* ring: ownership on the terminal.
 *
 * Each node gets a letter and a line with a bar of its share. Below them stands the ring itself: 1024
 * positions, clockwise from the top left, each lettered by the owner of most of its 16 slots, in as few lines
 * as the terminal's width allows. (One line for all would mix owners: neighbours on the ring differ.) */
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "cli/cli.h"

#define POSITIONS (SLOTS_COUNT / SLOT_STRIDE)
#define NO_OWNER UINT16_MAX
#define BAR_WIDTH_MAX 40

struct ring_view {
    const json_t *nodes;
    size_t node_count;
    bool colours;
    uint16_t owner[SLOTS_COUNT]; /* index into nodes, or NO_OWNER */
    uint16_t shown[POSITIONS];   /* likewise */
    uint16_t votes[NODES_MAX];
};

static char node_letter(uint16_t node)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    return node == NO_OWNER ? '.' : letters[node % (sizeof(letters) - 1)];
}

/* The 256-colour palette's number for a node: six plain colours first, then the cube's brighter part. */
static int node_colour(uint16_t node)
{
    return node < 6 ? 1 + node : 40 + (node * 37) % 190;
}

static void print_cell(const struct ring_view *view, uint16_t node)
{
    if (view->colours && node != NO_OWNER)
        printf("\033[38;5;%dm%c\033[0m", node_colour(node), node_letter(node));
    else
        putchar(node_letter(node));
}

static uint16_t find_node(const struct ring_view *view, const char *name)
{
    for (size_t i = 0; i < view->node_count; i++) {
        if (strcmp(cli_json_text(json_array_get(view->nodes, i), "name"), name) == 0)
            return (uint16_t)i;
    }
    return NO_OWNER;
}

/* Fills owner from [[first, last, "name"], ...]. */
static void read_owners(struct ring_view *view, const json_t *owners)
{
    size_t index;
    json_t *run;
    for (size_t slot = 0; slot < SLOTS_COUNT; slot++)
        view->owner[slot] = NO_OWNER;
    json_array_foreach(owners, index, run)
    {
        json_int_t first = json_integer_value(json_array_get(run, 0));
        json_int_t last = json_integer_value(json_array_get(run, 1));
        const char *name = json_string_value(json_array_get(run, 2));
        uint16_t node = name == NULL ? NO_OWNER : find_node(view, name);
        for (json_int_t slot = first < 0 ? 0 : first; slot <= last && slot < SLOTS_COUNT; slot++)
            view->owner[slot] = node;
    }
}

/* The node that owns most slots of each position. */
static void choose_shown(struct ring_view *view)
{
    for (size_t position = 0; position < POSITIONS; position++) {
        uint16_t best = NO_OWNER;
        memset(view->votes, 0, sizeof(view->votes));
        for (size_t i = 0; i < SLOT_STRIDE; i++) {
            uint16_t node = view->owner[position * SLOT_STRIDE + i];
            if (node == NO_OWNER)
                continue;
            view->votes[node]++;
            if (best == NO_OWNER || view->votes[node] > view->votes[best])
                best = node;
        }
        view->shown[position] = best;
    }
}

static void print_bar(const struct ring_view *view, uint16_t node, int filled, int width)
{
    bool utf8 = cli_utf8();
    if (view->colours)
        printf("\033[38;5;%dm", node_colour(node));
    for (int i = 0; i < filled; i++)
        fputs(utf8 ? "\u2588" : "#", stdout);
    if (view->colours)
        fputs("\033[0m", stdout);
    for (int i = filled; i < width; i++)
        putchar(' ');
}

static void print_nodes(const struct ring_view *view, int width)
{
    json_int_t most = 1;
    int name_width = 4;
    for (size_t i = 0; i < view->node_count; i++) {
        const json_t *node = json_array_get(view->nodes, i);
        int size = (int)strlen(cli_json_text(node, "name"));
        json_int_t slots = cli_json_number(node, "slots");
        name_width = size > name_width ? size : name_width;
        most = slots > most ? slots : most;
    }
    int bar_width = width - name_width - 46;
    bar_width = bar_width > BAR_WIDTH_MAX ? BAR_WIDTH_MAX : bar_width < 5 ? 5 : bar_width;
    printf("  %-*s  %-*s   share    owns  replicates\n", name_width, "node", bar_width, "");
    for (size_t i = 0; i < view->node_count; i++) {
        const json_t *node = json_array_get(view->nodes, i);
        json_int_t slots = cli_json_number(node, "slots");
        print_cell(view, (uint16_t)i);
        printf(" %-*s  ", name_width, cli_json_text(node, "name"));
        print_bar(view, (uint16_t)i, (int)(slots * bar_width / most), bar_width);
        printf("  %5.2f%%  %6lld  %10lld%s\n", 100.0 * (double)slots / SLOTS_COUNT, (long long)slots,
               (long long)cli_json_number(node, "replicates"),
               json_is_true(json_object_get(node, "reachable")) ? "" : "  UNREACHABLE");
    }
}

static void print_positions(const struct ring_view *view, int width)
{
    int columns = 1;
    while (columns * 2 + 7 <= width && columns * 2 <= POSITIONS)
        columns *= 2;
    for (int position = 0; position < POSITIONS; position++) {
        if (position % columns == 0)
            printf("%6d ", position * SLOT_STRIDE);
        print_cell(view, view->shown[position]);
        if (position % columns == columns - 1)
            putchar('\n');
    }
}

enum cli_exit cli_ring(struct cli *cli)
{
    json_t *ring;
    enum cli_exit code = cli_request_json(cli, "/ring", &ring);
    if (code != CLI_OK)
        return code;
    struct ring_view *view = cli->json ? NULL : alloc_get_zeroed(&cli->alloc, sizeof(*view));
    if (cli->json) {
        code = cli_print_json(ring);
    } else if (view == NULL) {
        code = cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    } else {
        int width = cli_width();
        view->nodes = json_object_get(ring, "nodes");
        view->node_count = json_array_size(view->nodes);
        view->node_count = view->node_count > NODES_MAX ? NODES_MAX : view->node_count;
        view->colours = cli_colours();
        read_owners(view, json_object_get(ring, "owners"));
        choose_shown(view);
        printf("cluster %s, epoch %lld, N = %lld, %zu node%s\n\n", cli_json_text(ring, "cluster"),
               (long long)cli_json_number(ring, "epoch"), (long long)cli_json_number(ring, "n"),
               view->node_count, view->node_count == 1 ? "" : "s");
        print_nodes(view, width);
        printf("\nthe ring, clockwise: each letter is the owner of %d slots, each number a slot\n",
               SLOT_STRIDE);
        print_positions(view, width);
        printf("\nclients are told %zu range%s (CLUSTER SLOTS)\n",
               json_array_size(json_object_get(ring, "client_map")),
               json_array_size(json_object_get(ring, "client_map")) == 1 ? "" : "s");
    }
    if (view != NULL)
        alloc_put(&cli->alloc, view, sizeof(*view));
    json_decref(ring);
    return code;
}
