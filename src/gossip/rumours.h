/* Rumours on their way: what this node still has to tell, each a limited number of times (SWIM, section 4.1).
 *
 * There is at most one rumour about a node, the newest: a later one replaces it. Those told least often go first,
 * among them the newest. A rumour is dropped once it was told
 *
 *     factor * ceil(log10(n + 1))
 *
 * times, which reaches all n nodes with high probability. Memory is one entry for each node. */
#ifndef RONDO_GOSSIP_RUMOURS_H
#define RONDO_GOSSIP_RUMOURS_H

#include "base/limits.h"
#include "base/span.h"

/* A bound for any factor: more would not help. 4 * ceil(log10(NODES_MAX + 1)) is 12. */
#define RUMOUR_TRANSMITS_MAX 64

/* Ordered: of two rumours with one incarnation the greater state wins. */
enum swim_state {
    SWIM_ALIVE = 1,
    SWIM_SUSPECT = 2,
    SWIM_DEAD = 3,
};

struct rumour {
    uint64_t node;
    uint64_t incarnation;
    uint64_t accuser; /* who suspects it or declared it dead; 0 for ALIVE */
    enum swim_state state;
};

struct rumour_entry {
    struct rumour rumour;
    bool queued;
    uint8_t transmits;
    uint16_t next; /* in the list of its number of transmits */
    uint16_t prev;
};

struct rumour_list {
    uint16_t first;
    uint16_t last;
};

struct rumours {
    struct alloc *alloc;
    struct rumour_entry *entries; /* one for each node of the caller's table */
    uint16_t capacity;
    uint16_t count;
    uint8_t transmits_max;
    struct rumour_list lists[RUMOUR_TRANSMITS_MAX];
};

/* How often a rumour is told in a cluster of nodes; 1 .. RUMOUR_TRANSMITS_MAX. */
uint8_t rumours_transmits_max(uint32_t factor, uint32_t nodes);

/* For rumours about `capacity` (1 .. NODES_MAX) nodes. OVERLOADED: no memory. */
MUST_CHECK enum status rumours_init(struct rumours *rumours, struct alloc *alloc, uint16_t capacity,
                                    uint8_t transmits_max);
void rumours_free(struct rumours *rumours);

/* Has the rumour told, in place of any other about the node with this index. */
void rumours_put(struct rumours *rumours, uint16_t index, const struct rumour *rumour);

/* The next rumours to tell, at most max; each counts as told once. Returns how many. */
uint16_t rumours_take(struct rumours *rumours, struct rumour *taken, uint16_t max);

#endif
