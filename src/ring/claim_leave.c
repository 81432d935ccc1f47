/* Nodes left a claim (claim.c): their slots go to the nodes present. Any heir that is not near moves no more than
 * what the leaver had, so the choice is free to keep runs and loads. */
#include <assert.h>

#include "ring/claim_internal.h"

/* Loads up to 1/200 over the mean are level enough. */
#define LOAD_SLACK 200

/* Passes of the last levelling of true loads. */
#define LEVEL_PASSES_MAX 8

/* Whole runs go to nodes that are a whole run below their limit, anchors first. */
static void settle_whole_runs(struct claim *claim)
{
    for (int anchors = 1; anchors >= 0; anchors--) {
        for (uint16_t run = 0; run < RUNS_COUNT; run++) {
            if (run_anchor(claim, run) != (anchors == 1) || !claim_run_orphaned(claim, run))
                continue;
            uint16_t best = CLAIM_OWNER_NONE;
            uint64_t best_ratio = UINT64_MAX;
            for (uint16_t node = 0; node < claim->options->node_count; node++) {
                const struct claimant *heir = &claim->nodes[node];
                if (!heir->present || heir->count + RUN_SLOTS > claim_share_limit(heir->share))
                    continue;
                uint64_t ratio = owned_ratio(heir, heir->count);
                if (ratio < best_ratio && !claim_run_near(claim, run, node)) {
                    best = node;
                    best_ratio = ratio;
                }
            }
            if (best == CLAIM_OWNER_NONE)
                continue;
            claim_run_give(claim, run, best);
            claim->nodes[best].count += RUN_SLOTS;
        }
    }
}

/* Who is given slots next: those who own most, up to their limits, so that the others fall behind until they can
 * take a whole run. */
static uint16_t next_heir(const struct claim *claim)
{
    uint16_t best = CLAIM_OWNER_NONE;
    uint64_t best_ratio = 0;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        const struct claimant *heir = &claim->nodes[node];
        if (!heir->present || heir->count + heir->quota >= claim_share_limit(heir->share))
            continue;
        uint64_t ratio = owned_ratio(heir, heir->count + heir->quota);
        if (best == CLAIM_OWNER_NONE || ratio > best_ratio) {
            best = node;
            best_ratio = ratio;
        }
    }
    assert(best != CLAIM_OWNER_NONE); /* the limits add up to all slots */
    return best;
}

/* Quotas for all slots that still have no owner. */
static void spread_quotas(struct claim *claim)
{
    uint32_t slots = 0;
    for (uint16_t i = 0; i < claim->orphan_count; i++)
        slots += claim->owner[claim->orphans[i]] == CLAIM_OWNER_NONE;
    for (uint16_t node = 0; node < claim->options->node_count; node++)
        claim->nodes[node].quota = 0;
    for (; slots > 0; slots--)
        claim->nodes[next_heir(claim)].quota++;
}

static void inherit(struct claim *claim, uint16_t slot, uint16_t node)
{
    claim->owner[slot] = node;
    claim->nodes[node].count++;
    if (claim->nodes[node].quota > 0)
        claim->nodes[node].quota--;
}

/* Frees an heir for a slot that is near all nodes with quotas: another orphan's heir takes it and gives that
 * orphan up to one of them. */
static bool settle_by_exchange(struct claim *claim, uint16_t slot)
{
    uint16_t offset = (uint16_t)prng_below(&claim->prng, claim->orphan_count);
    for (uint16_t i = 0; i < claim->orphan_count; i++) {
        uint16_t other = claim->orphans[(i + offset) % claim->orphan_count];
        uint16_t heir = claim->owner[other];
        if (heir == CLAIM_OWNER_NONE || claim_slot_near(claim, slot, heir))
            continue;
        for (uint16_t node = 0; node < claim->options->node_count; node++) {
            if (claim->nodes[node].quota == 0 || claim_slot_near(claim, other, node))
                continue;
            inherit(claim, other, node);
            claim->owner[slot] = heir;
            return true;
        }
    }
    return false;
}

/* Walks clockwise from a slot to its natural replicas (no zones); returns the number of positions walked. */
static uint32_t walk(const struct claim *claim, uint16_t slot, uint16_t *replicas)
{
    uint16_t wanted = (uint16_t)(claim->node_reach + 1);
    uint16_t count = 0;
    uint32_t steps = 0;
    for (; count < wanted && steps < RUNS_COUNT; steps++) {
        uint16_t node = claim->owner[slot_clockwise(slot, steps)];
        uint16_t i = 0;
        while (i < count && replicas[i] != node)
            i++;
        if (i == count)
            replicas[count++] = node;
    }
    for (; count < wanted; count++)
        replicas[count] = replicas[0];
    return steps;
}

/* Adds (or takes away) what the owner of one slot contributes to the loads of all; returns the change of the
 * sum of squares. `steps` gets how far back it was looked. */
static int64_t load_around(struct claim *claim, uint16_t slot, uint32_t steps, bool add)
{
    int64_t change = 0;
    uint16_t replicas[REPLICAS_MAX];
    for (uint32_t step = 0; step < steps; step++) {
        (void)walk(claim, slot_back(slot, step), replicas);
        for (uint16_t i = 0; i <= claim->node_reach; i++) {
            uint32_t *load = &claim->nodes[replicas[i]].load;
            int64_t before = (int64_t)*load * *load;
            *load = add ? *load + 1 : *load - 1;
            change += (int64_t)*load * *load - before;
        }
    }
    return change;
}

/* How many slots, going back, have the slot in their walk. */
static uint32_t reach_back(const struct claim *claim, uint16_t slot)
{
    uint16_t replicas[REPLICAS_MAX];
    uint32_t step = 1;
    while (step < RUNS_COUNT && walk(claim, slot_back(slot, step), replicas) > step)
        step++;
    return step;
}

/* Where orphans had to go near other slots of their heirs, loads are not N times the slots: moves orphans on as
 * long as that levels the loads. */
static void level_loads(struct claim *claim)
{
    for (uint16_t node = 0; node < claim->options->node_count; node++)
        claim->nodes[node].load = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        (void)load_around(claim, (uint16_t)slot, 1, true);
    uint32_t enough = SLOTS_COUNT * (claim->node_reach + 1u) / claim->present_count;
    enough += enough / LOAD_SLACK;
    bool changed = true;
    for (int pass = 0; pass < LEVEL_PASSES_MAX && changed; pass++) {
        changed = false;
        for (uint16_t i = 0; i < claim->orphan_count; i++) {
            uint16_t slot = claim->orphans[i];
            for (uint16_t node = 0; node < claim->options->node_count; node++) {
                uint16_t heir = claim->owner[slot];
                if (!claim->nodes[node].present || claim->nodes[heir].load <= enough ||
                    claim->nodes[node].load >= claim->nodes[heir].load)
                    continue;
                uint32_t steps = reach_back(claim, slot);
                claim->owner[slot] = node;
                uint32_t steps_after = reach_back(claim, slot);
                claim->owner[slot] = heir;
                steps = steps > steps_after ? steps : steps_after;
                int64_t change = load_around(claim, slot, steps, false);
                claim->owner[slot] = node;
                change += load_around(claim, slot, steps, true);
                if (change < 0) {
                    changed = true;
                    continue;
                }
                (void)load_around(claim, slot, steps, false);
                claim->owner[slot] = heir;
                (void)load_around(claim, slot, steps, true);
            }
        }
    }
}

void claim_settle_orphans(struct claim *claim)
{
    claim_set_members(claim);
    claim_count(claim);
    settle_whole_runs(claim);
    claim->orphan_count = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (claim->owner[slot] == CLAIM_OWNER_NONE)
            claim->orphans[claim->orphan_count++] = (uint16_t)slot;
    }
    claim_complete_runs(claim);
    spread_quotas(claim);
    claim_settle_singles(claim);
    bool crowded = false;
    for (uint16_t i = 0; i < claim->orphan_count; i++) {
        uint16_t slot = claim->orphans[i];
        if (claim->owner[slot] != CLAIM_OWNER_NONE || settle_by_exchange(claim, slot))
            continue;
        uint16_t most = 0;
        for (uint16_t node = 1; node < claim->options->node_count; node++) {
            if (claim->nodes[node].quota > claim->nodes[most].quota)
                most = node;
        }
        inherit(claim, slot, most);
        crowded = true;
    }
    if (crowded && claim->zone_count == 1)
        level_loads(claim);
}
