/* The ring record: who owns which slot (DESIGN section 2; Dynamo 6.2, third strategy).
 *
 * A struct ring is one immutable value. Code never changes one: it builds the next (ring_next). Every
 * constructor makes the same bytes from the same members in any order, because nodes are sorted by name. It
 * is freed by its owner with ring_free; everything reached through it is valid until then, and any number of
 * readers may share it (one that changes threads must be freed on the thread of its allocator).
 *
 * Clockwise from slot s is slot s + SLOT_STRIDE, wrapping inside the same remainder. The replicas of a slot are
 * the first ring_replica_count distinct nodes clockwise from it, preferring zones not yet used until every
 * zone is; they are precomputed. */
#ifndef RONDO_RING_RING_H
#define RONDO_RING_RING_H

#include <assert.h>

#include "base/hash.h"
#include "base/limits.h"
#include "base/span.h"

/* No node: never an index. */
#define RING_NODE_NONE UINT16_MAX

/* Nodes that decide the next ring record (DESIGN section 6). */
#define RING_VOTERS_MAX 5

enum ring_node_state {
    RING_NODE_ACTIVE = 1,
    RING_NODE_JOINING = 2, /* named in the record; given slots by a later one */
    RING_NODE_LEAVING = 3, /* to be given no slots by a later one */
};

struct ring_node {
    uint64_t id;                          /* ring_node_id of the name */
    char name[NAME_BYTES_MAX + 1];        /* terminated; printable ASCII without blanks */
    char peer_address[ADDRESS_BYTES_MAX]; /* terminated "host:port" */
    char zone[NAME_BYTES_MAX + 1];        /* terminated; "" = no zone */
    uint32_t weight;                      /* relative share of slots; 0 = none */
    uint8_t state;                        /* enum ring_node_state */
};

struct ring {
    struct alloc *alloc;
    uint64_t epoch;              /* from 1 */
    struct hash_128 cluster_id;  /* hash of the cluster's first record */
    uint8_t replicas_configured; /* N as configured */
    uint8_t replicas;            /* N in force: no more than nodes that own slots */
    uint8_t voter_count;
    uint16_t node_count;
    uint64_t voters[RING_VOTERS_MAX];    /* node ids, ascending */
    struct ring_node *nodes;             /* sorted by name */
    uint16_t *by_id;                     /* node indices sorted by id */
    uint16_t *replica_table;             /* replicas of slot 0, of slot 1, ... */
    uint16_t owner[SLOTS_COUNT];         /* node indices */
    uint64_t changed_epoch[SLOTS_COUNT]; /* the epoch at which the slot's replica set last changed */
};

/* What a node is described by when a ring is built; the spans are copied. */
struct ring_member {
    struct span name;
    struct span peer_address; /* "host:port" */
    struct span zone;         /* may be empty */
    uint32_t weight;
    uint8_t state; /* enum ring_node_state */
};

struct ring_options {
    const struct ring_member *members; /* in any order */
    uint16_t member_count;             /* 1 .. NODES_MAX */
    uint8_t replicas;                  /* N: 1 .. REPLICAS_MAX */
    const uint16_t *owner;             /* SLOTS_COUNT indices into members, or NULL: claimed (ring/claim.h) */
};

/* An equal, active node without a zone. */
static inline struct ring_member ring_member_of(struct span name, struct span peer_address)
{
    return (struct ring_member){
        .name = name, .peer_address = peer_address, .weight = 1, .state = RING_NODE_ACTIVE};
}

/* The id of a node of this name: a 64-bit hash, never 0. */
uint64_t ring_node_id(struct span name);

/* The record of epoch 1. BAD_REQUEST: a name, address or number is not allowed, or one is given twice; `why`
 * (may be NULL) then gets a sentence for people. OVERLOADED: out of memory. *ring is set on OK only. */
MUST_CHECK enum status ring_initial(struct alloc *alloc, const struct ring_options *options, struct buf *why,
                                    struct ring **ring);

/* The record of the epoch after old's, of the same cluster. changed_epoch becomes the new epoch where the set of
 * replicas (node ids) differs from old's. Errors as ring_initial. */
MUST_CHECK enum status ring_next(struct alloc *alloc, const struct ring *old,
                                 const struct ring_options *options, struct buf *why, struct ring **ring);

/* NULL is ignored. */
void ring_free(struct ring *ring);

/* The record's canonical bytes: equal records have equal bytes. */
void ring_encode(const struct ring *ring, struct buf *buf);

/* MALFORMED for anything that ring_encode would not have written; OVERLOADED: out of memory. */
MUST_CHECK enum status ring_decode(struct alloc *alloc, struct span bytes, struct ring **ring);

/* The number of replicas of every slot: N, or the number of nodes that own slots if that is less. */
static inline uint8_t ring_replica_count(const struct ring *ring)
{
    return ring->replicas;
}

/* The natural replicas of a slot: ring_replica_count distinct node indices in preference order. */
static inline const uint16_t *ring_replicas(const struct ring *ring, uint16_t slot)
{
    assert(slot < SLOTS_COUNT);
    return ring->replica_table + (size_t)slot * ring->replicas;
}

/* Whether the node (index) is a natural replica of the slot. */
static inline bool ring_replicates(const struct ring *ring, uint16_t slot, uint16_t node)
{
    const uint16_t *replicas = ring_replicas(ring, slot);
    for (uint8_t i = 0; i < ring->replicas; i++) {
        if (replicas[i] == node)
            return true;
    }
    return false;
}

/* The slot's preference list: its natural replicas, then every other node that owns slots of the same
 * remainder, clockwise: the fallbacks. Writes at most max indices; returns how many. */
uint16_t ring_preflist(const struct ring *ring, uint16_t slot, uint16_t *preflist, uint16_t max);

/* The index of the node with this id, or RING_NODE_NONE. */
uint16_t ring_node_index(const struct ring *ring, uint64_t id);

/* The epoch at which the slot's replica set last changed: older messages about it are refused (STALE_EPOCH). */
static inline uint64_t ring_changed_epoch(const struct ring *ring, uint16_t slot)
{
    assert(slot < SLOTS_COUNT);
    return ring->changed_epoch[slot];
}

/* Text that names the first thing in which two records differ, for "wrong cluster" errors, as seen by a:
 * "n2 is 127.0.0.1:1 here, 127.0.0.1:2 there". Appends nothing and answers false when they are equal. */
bool ring_difference(const struct ring *a, const struct ring *b, struct buf *text);

#endif
