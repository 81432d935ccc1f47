/* The cluster as one node's GET /ring describes it: who keeps which slot, and where to reach whom. */
#ifndef RONDO_CLI_CLUSTER_VIEW_H
#define RONDO_CLI_CLUSTER_VIEW_H

#include "cli/cli.h"
#include "ring/ring.h"

struct cluster_node {
    const char *name; /* views of the ring's JSON, as the following */
    const char *resp; /* "host:port"; NULL when not known */
    const char *http; /* likewise */
    bool reachable;   /* by the node that was asked */
};

struct cluster_view {
    struct alloc *alloc;
    json_t *json;
    struct ring *ring;
    struct cluster_node *nodes; /* ring->node_count of them, in the ring's order */
    uint16_t self;              /* the node that was asked */
    const char *cluster_id;
};

/* Asks cli->address. On CLI_OK the caller frees it with cluster_view_free; else the error was printed. */
enum cli_exit cluster_view_get(struct cli *cli, struct cluster_view *view);

void cluster_view_free(struct cluster_view *view);

#endif
