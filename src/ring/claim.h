/* The claim: which node owns which slot.
 *
 * A pure function of the members and the owners before; the same arguments give the same claim on every node. */
#ifndef RONDO_RING_CLAIM_H
#define RONDO_RING_CLAIM_H

#include "base/alloc.h"
#include "base/limits.h"
#include "base/status.h"

/* A slot without an owner, in the owners before. */
#define CLAIM_OWNER_NONE UINT16_MAX

/* Keeps products of shares and sums of weights within 64 bits. */
#define CLAIM_WEIGHT_MAX 1000000

struct claim_node {
    uint32_t weight; /* relative share, to CLAIM_WEIGHT_MAX; 0 = owns nothing */
    uint16_t zone;   /* nodes with equal numbers share a zone; any numbers */
};

struct claim_options {
    const struct claim_node *nodes;
    uint16_t node_count;    /* 1 .. NODES_MAX; at least one has a weight */
    uint8_t replicas;       /* N: 1 .. REPLICAS_MAX */
    const uint16_t *before; /* SLOTS_COUNT owners before, in today's indices, CLAIM_OWNER_NONE for those of
                             * nodes that left; NULL: a new ring */
};

/* Fills owner[SLOTS_COUNT]. OVERLOADED: out of memory; owner is then undefined. */
MUST_CHECK enum status claim_slots(struct alloc *alloc, const struct claim_options *options, uint16_t *owner);

#endif
