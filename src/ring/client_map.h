/* The client map: what CLUSTER SLOTS, SHARDS and NODES say. Contiguous ranges that cover every slot once,
 * each given to one reachable node that replicates all of it, evenly and as few as possible. Only client
 * routing uses it: any node coordinates any request. */
#ifndef RONDO_RING_CLIENT_MAP_H
#define RONDO_RING_CLIENT_MAP_H

#include "ring/ring.h"

struct client_range {
    uint16_t start; /* inclusive, as is end */
    uint16_t end;
    uint16_t node; /* index into the ring's nodes */
};

struct client_map {
    struct alloc *alloc;
    struct client_range *ranges; /* ascending, without holes or overlaps */
    uint32_t count;
    uint32_t capacity;
};

/* Builds the map of a ring; reachable has one element for each node and names at least one (the caller's own).
 * A slot without a reachable replica goes to some reachable node. The map keeps no reference to the ring.
 * OVERLOADED: out of memory; the map is then empty. Freed by client_map_free. */
MUST_CHECK enum status client_map_build(struct alloc *alloc, const struct ring *ring, const bool *reachable,
                                        struct client_map *map);

/* The map can be built again afterwards. */
void client_map_free(struct client_map *map);

/* The node that the map gives the slot to. */
uint16_t client_map_node(const struct client_map *map, uint16_t slot);

#endif
