/* GET /ring to a struct ring: the ring's own code then says who replicates a slot. */
#include "cli/cluster_view.h"

/* The index of the node of this name among the members, or NODES_MAX. */
static uint16_t find_member(const struct ring_member *members, uint16_t count, const char *name)
{
    for (uint16_t i = 0; name != NULL && i < count; i++) {
        if (span_is(members[i].name, name))
            return i;
    }
    return NODES_MAX;
}

/* Runs [first slot, last slot, node] to one owner for each slot; false if a slot has none. */
static bool read_owners(const json_t *runs, const struct ring_member *members, uint16_t count,
                        uint16_t *owner)
{
    size_t index;
    json_t *run;
    for (size_t slot = 0; slot < SLOTS_COUNT; slot++)
        owner[slot] = NODES_MAX;
    json_array_foreach(runs, index, run)
    {
        json_int_t first = json_integer_value(json_array_get(run, 0));
        json_int_t last = json_integer_value(json_array_get(run, 1));
        uint16_t node = find_member(members, count, json_string_value(json_array_get(run, 2)));
        for (json_int_t slot = first < 0 ? 0 : first; slot <= last && slot < SLOTS_COUNT; slot++)
            owner[slot] = node;
    }
    for (size_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (owner[slot] == NODES_MAX)
            return false;
    }
    return true;
}

static const char *text_or_empty(const json_t *node, const char *name)
{
    const char *text = json_string_value(json_object_get(node, name));
    return text == NULL ? "" : text;
}

static enum status read_ring(struct cluster_view *view, const json_t *nodes)
{
    struct scratch {
        struct ring_member members[NODES_MAX];
        uint16_t owner[SLOTS_COUNT];
    };
    size_t count = json_array_size(nodes);
    json_int_t replicas = cli_json_number(view->json, "n");
    if (count == 0 || count > NODES_MAX || replicas < 1 || replicas > REPLICAS_MAX)
        return STATUS_MALFORMED;
    struct scratch *scratch = alloc_get_zeroed(view->alloc, sizeof(*scratch));
    if (scratch == NULL)
        return STATUS_OVERLOADED;
    for (size_t i = 0; i < count; i++) {
        const json_t *node = json_array_get(nodes, i);
        struct ring_member *member = &scratch->members[i];
        json_int_t weight = cli_json_number(node, "weight");
        *member = ring_member_of(span_of_text(text_or_empty(node, "name")),
                                 span_of_text(text_or_empty(node, "peer")));
        member->zone = span_of_text(text_or_empty(node, "zone"));
        member->weight = weight > 0 && weight <= UINT32_MAX ? (uint32_t)weight : 1;
    }
    struct ring_options options = {.members = scratch->members,
                                   .member_count = (uint16_t)count,
                                   .replicas = (uint8_t)replicas,
                                   .owner = scratch->owner};
    enum status status = STATUS_MALFORMED;
    if (read_owners(json_object_get(view->json, "owners"), scratch->members, (uint16_t)count, scratch->owner))
        status = ring_initial(view->alloc, &options, NULL, &view->ring);
    alloc_put(view->alloc, scratch, sizeof(*scratch));
    return status;
}

static enum status read_nodes(struct cluster_view *view, const json_t *nodes)
{
    view->nodes = alloc_get_zeroed(view->alloc, view->ring->node_count * sizeof(*view->nodes));
    if (view->nodes == NULL)
        return STATUS_OVERLOADED;
    view->self = RING_NODE_NONE;
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *json = json_array_get(nodes, i);
        const char *name = text_or_empty(json, "name");
        const char *resp = text_or_empty(json, "resp");
        const char *http = text_or_empty(json, "http");
        uint16_t index = ring_node_index(view->ring, ring_node_id(span_of_text(name)));
        if (index == RING_NODE_NONE)
            return STATUS_MALFORMED;
        bool self = json_is_true(json_object_get(json, "self"));
        view->nodes[index] =
            (struct cluster_node){.name = name,
                                  .resp = resp[0] == 0 ? NULL : resp,
                                  .http = http[0] == 0 ? NULL : http,
                                  .reachable = self || json_is_true(json_object_get(json, "reachable"))};
        if (self)
            view->self = index;
    }
    return view->self == RING_NODE_NONE ? STATUS_MALFORMED : STATUS_OK;
}

enum cli_exit cluster_view_get(struct cli *cli, struct cluster_view *view)
{
    *view = (struct cluster_view){.alloc = &cli->alloc};
    enum cli_exit code = cli_request_json(cli, "/ring", &view->json);
    if (code != CLI_OK)
        return code;
    const json_t *nodes = json_object_get(view->json, "nodes");
    view->cluster_id = cli_json_text(view->json, "cluster");
    enum status status = read_ring(view, nodes);
    if (status == STATUS_OK)
        status = read_nodes(view, nodes);
    if (status == STATUS_OK)
        return CLI_OK;
    cluster_view_free(view);
    if (status == STATUS_OVERLOADED)
        return cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    return cli_fail(
        cli, CLI_NOT_APPLIED, "BAD_ANSWER",
        "%s does not describe its ring as this version of Rondo does; use the rondo of its version",
        cli->address);
}

void cluster_view_free(struct cluster_view *view)
{
    if (view->nodes != NULL)
        alloc_put(view->alloc, view->nodes, view->ring->node_count * sizeof(*view->nodes));
    ring_free(view->ring);
    json_decref(view->json);
}
