/* The claim for equal nodes, with weights and zones as far as they allow.
 *
 * The table is 1024 runs of 16 slots; clockwise from a slot is the same column of the next run. Nodes are added
 * one at a time, each taking slots from those that own most for their share, never within N - 1 runs of its
 * own slots in that column; the slots of nodes that left are handed to others by the same rule. Replacing the
 * owner of one position by a node that is not near changes exactly N replica sets by exactly that node, so a
 * join or leave moves nothing but the share of the one that came or went.
 *
 * Every N-th run is an anchor: kept whole, handed over whole. Its owner replicates it and the N - 1 runs
 * before it, so anchors alone give the client map about 1024 / N ranges, however mixed the runs between are.
 * Whole runs are too coarse for an even claim once a share is below a hundred runs or so; up to 1 % of slack
 * lets a few donors fall behind by a run while the others stay below the limit, and single slots of runs that
 * are not anchors do the rest, from runs already mixed where there are any.
 *
 * With N replicas on distinct nodes a node's load is N times its slots, so the finest balance possible is
 * ceil(16384 / S) * S / 16384. The files: claim_share.c (spacing,
 * shares), claim_join.c, claim_leave.c, claim_reach.c (leaving, with few ranges for clients). */
#include "ring/claim.h"

#include <assert.h>

#include "ring/claim_internal.h"

/* ---- a new ring ----------------------------------------------------------------------------------------- */

/* The next node to add: of the zone with the fewest nodes present, so that zones grow together. */
static uint16_t next_absent(const struct claim *claim)
{
    uint16_t best = CLAIM_OWNER_NONE;
    uint32_t best_peers = UINT32_MAX;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        if (claim->nodes[node].present || claim->options->nodes[node].weight == 0)
            continue;
        uint32_t peers = 0;
        for (uint16_t other = 0; other < claim->options->node_count; other++)
            peers += claim->nodes[other].present && zone_of(claim, other) == zone_of(claim, node);
        if (peers < best_peers) {
            best = node;
            best_peers = peers;
        }
    }
    return best;
}

static uint16_t zones_of_all(const struct claim *claim)
{
    uint16_t zones = 0;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        bool first = claim->options->nodes[node].weight > 0;
        for (uint16_t other = 0; first && other < node; other++)
            first = claim->options->nodes[other].weight == 0 || zone_of(claim, other) != zone_of(claim, node);
        zones = (uint16_t)(zones + first);
    }
    return zones;
}

/* How many nodes the periodic pattern of a new ring has: N + 1, so that it can have blocks of two lengths; with
 * few zones a multiple of their number, so that every window has them all. */
static uint16_t base_count(const struct claim *claim)
{
    uint16_t zones = zones_of_all(claim);
    uint16_t replicas = claim->options->replicas;
    assert(zones > 0);
    if (zones == 1 || zones > replicas)
        return (uint16_t)(replicas + 1);
    return (uint16_t)((replicas + zones - 1) / zones * zones);
}

/* Fills the ring with a repeating pattern of the first nodes. Where their number is N + 1 but does not divide
 * the runs, the first blocks leave one node out each, which keeps all distances at N or more. */
static void fill_base(struct claim *claim)
{
    uint16_t pattern[REPLICAS_MAX * 2];
    uint16_t count = 0;
    for (uint16_t size = base_count(claim); count < size; count++) {
        uint16_t node = next_absent(claim);
        if (node == CLAIM_OWNER_NONE)
            break;
        pattern[count] = node;
        claim->nodes[node].present = true;
    }
    assert(count > 0);
    claim_set_members(claim);
    bool two_lengths = count == claim->options->replicas + 1 && claim->zone_reach == 0;
    uint32_t length = count;
    uint32_t short_blocks = two_lengths ? (length - RUNS_COUNT % length) % length : 0;
    uint16_t run = 0;
    for (uint32_t block = 0; run < RUNS_COUNT; block++) {
        for (uint16_t i = 0; i < count && run < RUNS_COUNT; i++) {
            if (block >= short_blocks || i != block)
                claim_run_give(claim, run++, pattern[i]);
        }
    }
    claim_count(claim);
}

/* ---- the claim ------------------------------------------------------------------------------------------ */

/* Weights or zones may have changed for nodes that stay: then the lowest take from those past their limits. */
static void even_out(struct claim *claim)
{
    bool tried[NODES_MAX] = {false};
    for (uint16_t round = 0; round < claim->options->node_count; round++) {
        uint32_t over = 0;
        uint16_t low = CLAIM_OWNER_NONE;
        uint64_t low_ratio = UINT64_MAX;
        for (uint16_t node = 0; node < claim->options->node_count; node++) {
            const struct claimant *claimant = &claim->nodes[node];
            uint32_t limit = claim_share_limit(claimant->share);
            if (!claimant->present)
                continue;
            over += claimant->count > limit ? claimant->count - limit : 0;
            uint64_t ratio = owned_ratio(claimant, claimant->count);
            if (!tried[node] && claimant->count < share_floor(claimant->share) && ratio < low_ratio) {
                low = node;
                low_ratio = ratio;
            }
        }
        if (over * 100 < SLOTS_COUNT || low == CLAIM_OWNER_NONE)
            return;
        uint32_t wanted = share_floor(claim->nodes[low].share) - claim->nodes[low].count;
        claim_take_share(claim, low, wanted < over ? wanted : over);
        tried[low] = true;
    }
}

/* Copies the owners before; whoever owns slots and still may is present. Answers whether they can be built
 * upon: with no more nodes than replicas everybody has everything, and the best pattern costs nothing. */
static bool take_over(struct claim *claim)
{
    const struct claim_options *options = claim->options;
    uint16_t members = 0;
    uint16_t survivors = 0;
    bool orphans = false;
    if (options->before == NULL)
        return false;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        uint16_t node = options->before[slot];
        assert(node == CLAIM_OWNER_NONE || node < options->node_count);
        if (node != CLAIM_OWNER_NONE && options->nodes[node].weight == 0) /* it must leave */
            node = CLAIM_OWNER_NONE;
        claim->owner[slot] = node;
        orphans = orphans || node == CLAIM_OWNER_NONE;
        if (node != CLAIM_OWNER_NONE)
            claim->nodes[node].present = true;
    }
    for (uint16_t node = 0; node < options->node_count; node++) {
        survivors = (uint16_t)(survivors + claim->nodes[node].present);
        members = (uint16_t)(members + (options->nodes[node].weight > 0));
    }
    if (survivors > 0 && members > options->replicas && (orphans || survivors > options->replicas))
        return true;
    for (uint16_t node = 0; node < options->node_count; node++)
        claim->nodes[node].present = false;
    return false;
}

enum status claim_slots(struct alloc *alloc, const struct claim_options *options, uint16_t *owner)
{
    assert(options->node_count >= 1 && options->node_count <= NODES_MAX);
    assert(options->replicas >= 1 && options->replicas <= REPLICAS_MAX);
    for (uint16_t node = 0; node < options->node_count; node++)
        assert(options->nodes[node].weight <= CLAIM_WEIGHT_MAX);
    struct claim *claim = alloc_get_zeroed(alloc, sizeof *claim);
    if (claim == NULL)
        return STATUS_OVERLOADED;
    claim->options = options;
    claim->owner = owner;
    prng_seed(&claim->prng, options->node_count);
    if (!take_over(claim))
        fill_base(claim);
    for (uint16_t node = next_absent(claim); node != CLAIM_OWNER_NONE; node = next_absent(claim))
        claim_join(claim, node);
    claim_settle_orphans(claim);
    even_out(claim);
    alloc_put(alloc, claim, sizeof *claim);
    return STATUS_OK;
}
