/* Which slots of nodes that left go to whom, so that clients see few ranges (claim_leave.c gives the quotas).
 *
 * A node serves the slots that it replicates; a stretch is a series of slots that one node serves. Loads level to
 * 1 % leave room for a whole run at few nodes, and where a share is small nearly all slots must go out singly: then
 * first those go where few complete a run that nobody serves whole, the others where they lengthen stretches most. */
#include "ring/claim_internal.h"

/* Stretches longer than this are as good. */
#define STRETCH_MAX (3 * RUN_SLOTS)

/* Keeps the fractions of an offer. */
#define OFFER_ONE 256

static bool serves(const struct claim *claim, uint16_t slot, uint16_t node)
{
    for (uint16_t step = 0; step < claim->options->replicas; step++) {
        if (claim->owner[slot_clockwise(slot, step)] == node)
            return true;
    }
    return false;
}

/* ---- runs that few slots complete ----------------------------------------------------------------------- */

/* How many slots of the run each node serves (`used`). Answers whether it is to be completed: nobody serves all of
 * it, and there are orphans to change that. */
static bool count_served(struct claim *claim, uint16_t run)
{
    bool orphan = false;
    for (uint16_t node = 0; node < claim->options->node_count; node++)
        claim->nodes[node].used = 0;
    for (uint16_t i = 0; i < RUN_SLOTS; i++) {
        uint16_t slot = (uint16_t)(run * RUN_SLOTS + i);
        uint16_t seen[REPLICAS_MAX];
        uint16_t count = 0;
        for (uint16_t step = 0; step < claim->options->replicas; step++) {
            uint16_t node = claim->owner[slot_clockwise(slot, step)];
            uint16_t j = 0;
            while (j < count && seen[j] != node)
                j++;
            if (node == CLAIM_OWNER_NONE)
                orphan = true;
            else if (j == count)
                claim->nodes[seen[count++] = node].used++;
        }
    }
    bool served = false;
    for (uint16_t node = 0; node < claim->options->node_count; node++)
        served = served || claim->nodes[node].used == RUN_SLOTS;
    return orphan && !served;
}

/* The orphans that would let the node serve the run whole, at most one of each column; none if it cannot. */
static uint16_t completing_slots(const struct claim *claim, uint16_t run, uint16_t node, uint16_t *slots)
{
    uint16_t count = 0;
    for (uint16_t i = 0; i < RUN_SLOTS; i++) {
        uint16_t slot = (uint16_t)(run * RUN_SLOTS + i);
        if (serves(claim, slot, node))
            continue;
        uint16_t step = claim->options->replicas;
        while (step > 0) {
            uint16_t orphan = slot_clockwise(slot, --step);
            if (claim->owner[orphan] == CLAIM_OWNER_NONE && !claim_slot_near(claim, orphan, node)) {
                slots[count++] = orphan;
                break;
            }
            if (step == 0)
                return 0;
        }
    }
    return count;
}

/* The fewest slots, fewer than `most`, that let a node with room for them serve the run whole; 0 = none do. */
static uint16_t complete_run(struct claim *claim, uint16_t run, uint16_t most, uint16_t *heir,
                             uint16_t *slots)
{
    uint16_t best = 0;
    if (!count_served(claim, run))
        return 0;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        const struct claimant *claimant = &claim->nodes[node];
        uint32_t lacking = RUN_SLOTS - claimant->used;
        if (!claimant->present || lacking >= most ||
            claimant->count + lacking > claim_share_limit(claimant->share))
            continue;
        uint16_t found[RUN_SLOTS];
        uint16_t count = completing_slots(claim, run, node, found);
        if (count == 0)
            continue;
        *heir = node;
        for (uint16_t i = 0; i < count; i++)
            slots[i] = found[i];
        most = best = count;
    }
    return best;
}

void claim_complete_runs(struct claim *claim)
{
    for (;;) {
        uint16_t slots[RUN_SLOTS];
        uint16_t heir = 0;
        uint16_t count = 0;
        for (uint16_t run = 0; run < RUNS_COUNT; run++) {
            uint16_t fewer = complete_run(claim, run, count > 0 ? count : RUN_SLOTS + 1, &heir, slots);
            count = fewer > 0 ? fewer : count;
        }
        if (count == 0)
            break;
        for (uint16_t i = 0; i < count; i++)
            claim->owner[slots[i]] = heir;
        claim->nodes[heir].count += count;
    }
    for (uint16_t node = 0; node < claim->options->node_count; node++)
        claim->nodes[node].used = 0;
}

/* ---- single slots --------------------------------------------------------------------------------------- */

/* Slots in a row that the node serves, after the slot or before it. */
static uint32_t stretch_after(const struct claim *claim, uint16_t slot, uint16_t node)
{
    uint32_t length = 0;
    while (length < STRETCH_MAX && slot + length + 1 < SLOTS_COUNT &&
           serves(claim, (uint16_t)(slot + length + 1), node))
        length++;
    return length;
}

static uint32_t stretch_before(const struct claim *claim, uint16_t slot, uint16_t node)
{
    uint32_t length = 0;
    while (length < STRETCH_MAX && slot > length && serves(claim, (uint16_t)(slot - length - 1), node))
        length++;
    return length;
}

/* The longest stretch that the slot is in. */
static uint32_t longest_stretch(const struct claim *claim, uint16_t slot)
{
    uint32_t longest = 0;
    for (uint16_t step = 0; step < claim->options->replicas; step++) {
        uint16_t node = claim->owner[slot_clockwise(slot, step)];
        if (node == CLAIM_OWNER_NONE)
            continue;
        uint32_t length = stretch_before(claim, slot, node) + 1 + stretch_after(claim, slot, node);
        longest = length > longest ? length : longest;
    }
    return longest;
}

/* What the node would add to the squares of stretches by owning the slot, and so serving it and those behind; the
 * more where no long stretch is there yet (`longest`, for each of these). */
static uint32_t stretch_offer(const struct claim *claim, uint16_t slot, uint16_t node,
                              const uint32_t *longest)
{
    uint32_t offer = 1;
    for (uint16_t step = 0; step < claim->options->replicas; step++) {
        uint16_t served = slot_back(slot, step);
        if (serves(claim, served, node))
            continue;
        uint32_t before = stretch_before(claim, served, node);
        uint32_t after = stretch_after(claim, served, node);
        uint32_t whole = before + 1 + after;
        whole = whole > STRETCH_MAX ? STRETCH_MAX : whole;
        uint32_t parts = before * before + after * after;
        if (whole * whole > parts)
            offer += (whole * whole - parts) * OFFER_ONE / (longest[step] + 1);
    }
    return offer;
}

/* Finds the best heir for an orphan among the nodes with quotas. */
static void find_heir(struct claim *claim, uint16_t orphan)
{
    uint16_t slot = claim->orphans[orphan];
    struct heir_offer *best = &claim->offers[orphan];
    uint32_t longest[REPLICAS_MAX];
    for (uint16_t step = 0; step < claim->options->replicas; step++)
        longest[step] = longest_stretch(claim, slot_back(slot, step));
    *best = (struct heir_offer){.current = true};
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        if (claim->nodes[node].quota == 0 || claim_slot_near(claim, slot, node))
            continue;
        uint32_t offer = stretch_offer(claim, slot, node, longest);
        if (offer > best->offer) {
            best->offer = offer;
            best->node = node;
        }
    }
}

/* Offers for slots in runs around one that was given away are to be made anew. */
static void outdate_offers(struct claim *claim, uint16_t slot)
{
    uint16_t reach = (uint16_t)(2 * claim->options->replicas);
    uint16_t from = slot_back(slot, reach) / RUN_SLOTS;
    for (uint16_t i = 0; i < claim->orphan_count; i++) {
        uint16_t distance = (uint16_t)((claim->orphans[i] / RUN_SLOTS + RUNS_COUNT - from) % RUNS_COUNT);
        if (distance <= 2 * reach)
            claim->offers[i].current = false;
    }
}

void claim_settle_singles(struct claim *claim)
{
    for (uint16_t i = 0; i < claim->orphan_count; i++)
        claim->offers[i].current = false;
    for (;;) {
        uint32_t best = 0;
        uint16_t best_orphan = 0;
        for (uint16_t i = 0; i < claim->orphan_count; i++) {
            struct heir_offer *offer = &claim->offers[i];
            if (claim->owner[claim->orphans[i]] != CLAIM_OWNER_NONE)
                continue;
            if (!offer->current || (offer->offer > 0 && claim->nodes[offer->node].quota == 0))
                find_heir(claim, i);
            if (offer->offer > best) {
                best = offer->offer;
                best_orphan = i;
            }
        }
        if (best == 0)
            return;
        uint16_t slot = claim->orphans[best_orphan];
        uint16_t heir = claim->offers[best_orphan].node;
        claim->owner[slot] = heir;
        claim->nodes[heir].count++;
        claim->nodes[heir].quota--;
        outdate_offers(claim, slot);
    }
}
