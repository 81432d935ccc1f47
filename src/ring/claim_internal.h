/* What the parts of the claim share: its state while it is made, and the rules of spacing and shares. */
#ifndef RONDO_RING_CLAIM_INTERNAL_H
#define RONDO_RING_CLAIM_INTERNAL_H

#include <stdbool.h>

#include "base/prng.h"
#include "ring/claim.h"

#define RUN_SLOTS SLOT_STRIDE
#define RUNS_COUNT (SLOTS_COUNT / SLOT_STRIDE)

/* Shares are fixed-point numbers of slots. */
#define SHARE_SHIFT 20

_Static_assert((UINT64_MAX >> SHARE_SHIFT) / SLOTS_COUNT / NODES_MAX >= CLAIM_WEIGHT_MAX, "shares fit");

struct claimant {
    uint64_t share;   /* of the nodes present, in slots << SHARE_SHIFT */
    uint32_t count;   /* slots owned */
    uint32_t quota;   /* slots still to give (join) or to receive (leave) */
    uint32_t load;    /* slots replicated; kept by level_loads only */
    uint32_t used;    /* scratch of run_offer and count_served */
    uint16_t anchors; /* whole anchors owned */
    bool present;
    bool stuck; /* has no slot that the newcomer may take */
};

/* Who would best have an orphan. */
struct heir_offer {
    uint32_t offer; /* 0 = nobody can */
    uint16_t node;
    bool current; /* still so */
};

struct claim {
    const struct claim_options *options;
    struct prng prng; /* fixed seed: spreads choices, the same everywhere */
    uint16_t *owner;
    uint16_t present_count;
    uint16_t zone_count; /* among nodes present */
    uint16_t node_reach; /* a node's slots in one column are further apart than this where possible */
    uint16_t zone_reach; /* likewise for zones */
    struct claimant nodes[NODES_MAX];
    uint16_t orphans[SLOTS_COUNT]; /* slots of nodes that left, ascending */
    uint16_t orphan_count;
    struct heir_offer offers[SLOTS_COUNT]; /* for each orphan; kept by claim_settle_singles only */
};

static inline uint16_t slot_clockwise(uint16_t slot, uint32_t steps)
{
    return (uint16_t)((slot + steps * SLOT_STRIDE) % SLOTS_COUNT);
}

static inline uint16_t slot_back(uint16_t slot, uint32_t steps)
{
    return (uint16_t)((slot + (RUNS_COUNT - steps % RUNS_COUNT) * SLOT_STRIDE) % SLOTS_COUNT);
}

static inline uint16_t zone_of(const struct claim *claim, uint16_t node)
{
    return claim->options->nodes[node].zone;
}

static inline uint32_t share_floor(uint64_t share)
{
    return (uint32_t)(share >> SHARE_SHIFT);
}

/* Slots for a share, comparable between nodes. */
static inline uint64_t owned_ratio(const struct claimant *claimant, uint32_t slots)
{
    return ((uint64_t)slots << 40) / ((claimant->share >> 8) + 1);
}

static inline bool run_anchor(const struct claim *claim, uint16_t run)
{
    return run % claim->options->replicas == 0;
}

/* Whether the node, or with zones one of its zone, owns a slot too near in the same column. */
bool claim_slot_near(const struct claim *claim, uint16_t slot, uint16_t node);

/* The most slots that a node of this share may own. */
uint32_t claim_share_limit(uint64_t share);

/* The owner of the whole run, or CLAIM_OWNER_NONE. */
uint16_t claim_run_owner(const struct claim *claim, uint16_t run);

/* Whether no slot of the run has an owner. */
bool claim_run_orphaned(const struct claim *claim, uint16_t run);

/* claim_slot_near for any slot of the run. */
bool claim_run_near(const struct claim *claim, uint16_t run, uint16_t node);

void claim_run_give(struct claim *claim, uint16_t run, uint16_t node);

/* Counts slots and whole anchors of every node. */
void claim_count(struct claim *claim);

/* Takes note of who is present: spacing and shares. */
void claim_set_members(struct claim *claim);

/* Adds a node: it takes slots without an owner first, then its share of the others'. */
void claim_join(struct claim *claim, uint16_t newcomer);

/* Gives the node at most `slots` slots of those who own most for their share. */
void claim_take_share(struct claim *claim, uint16_t newcomer, uint32_t left);

/* Hands the slots without an owner to the nodes present. */
void claim_settle_orphans(struct claim *claim);

/* Gives orphans to nodes below their limits, where few let a node serve a whole run that nobody serves. */
void claim_complete_runs(struct claim *claim);

/* Gives orphans to heirs as their quotas and the spacing allow, where they lengthen stretches most. */
void claim_settle_singles(struct claim *claim);

#endif
