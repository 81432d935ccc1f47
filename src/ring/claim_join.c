/* A node joins a claim (claim.c): takes its share from those who own most, whole anchors first, then slots of
 * mixed runs. */
#include "ring/claim_internal.h"

/* Rounds in which a join asks other donors because slots of the first were too near its own. */
#define JOIN_ROUNDS_MAX 8

/* Joins to come that must stay even when a donor falls behind by a whole run: it takes the longer to be even again
 * the more nodes there are. */
static uint32_t joins_ahead(uint32_t present)
{
    return present / 6 + 4;
}

/* Whether the next joins (of average nodes) could still stay within the limits, once the newcomer has its share
 * and `spare` slots that are in no quota yet were taken from those who own most. */
static bool joins_ahead_even(const struct claim *claim, uint16_t newcomer, uint32_t spare)
{
    uint32_t present = claim->present_count;
    for (uint32_t joins = 1; joins <= joins_ahead(present); joins++) {
        uint64_t kept = (uint64_t)joins * (SLOTS_COUNT / (present + joins));
        uint64_t over = 0;
        for (uint16_t node = 0; node < claim->options->node_count; node++) {
            const struct claimant *claimant = &claim->nodes[node];
            if (!claimant->present)
                continue;
            uint32_t limit = claim_share_limit(claimant->share * present / (present + joins));
            uint32_t count =
                node == newcomer ? share_floor(claimant->share) : claimant->count - claimant->quota;
            kept += count;
            over += count > limit ? count - limit : 0;
        }
        if (kept - (over > spare ? over : spare) < SLOTS_COUNT)
            return false;
    }
    return true;
}

/* The node with the most whole anchors for its share that may fall behind by a run. */
static uint16_t anchor_donor(const struct claim *claim, uint16_t newcomer, uint32_t spare)
{
    uint16_t best = CLAIM_OWNER_NONE;
    uint32_t anchors = RUNS_COUNT / claim->options->replicas;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        const struct claimant *donor = &claim->nodes[node];
        if (!donor->present || node == newcomer || donor->stuck || donor->anchors == 0 ||
            donor->count < RUN_SLOTS)
            continue;
        bool many = donor->anchors * (uint64_t)SLOTS_COUNT > (donor->share >> SHARE_SHIFT) * anchors;
        bool low = (donor->count - RUN_SLOTS) * UINT64_C(5) < share_floor(donor->share) * UINT64_C(4);
        if (!many || low || RUN_SLOTS > donor->quota + spare)
            continue;
        if (best == CLAIM_OWNER_NONE || donor->anchors > claim->nodes[best].anchors)
            best = node;
    }
    return best;
}

static uint16_t anchor_of(struct claim *claim, uint16_t donor, uint16_t newcomer)
{
    uint16_t offset = (uint16_t)prng_below(&claim->prng, RUNS_COUNT);
    for (uint16_t i = 0; i < RUNS_COUNT; i++) {
        uint16_t run = (uint16_t)((i + offset) % RUNS_COUNT);
        if (run_anchor(claim, run) && claim_run_owner(claim, run) == donor &&
            !claim_run_near(claim, run, newcomer))
            return run;
    }
    return RUNS_COUNT;
}

/* Hands the newcomer its share of whole anchors, as far as the balance allows. `left` is what it may still
 * take, `spare` what of that no donor's quota binds. */
static void take_anchors(struct claim *claim, uint16_t newcomer, uint32_t *left, uint32_t *spare)
{
    uint32_t anchors = RUNS_COUNT / claim->options->replicas;
    uint32_t wanted = (uint32_t)((claim->nodes[newcomer].share >> SHARE_SHIFT) * anchors / SLOTS_COUNT);
    while (wanted > 0) {
        uint16_t node = anchor_donor(claim, newcomer, *spare);
        if (node == CLAIM_OWNER_NONE)
            return;
        struct claimant *donor = &claim->nodes[node];
        uint16_t run = anchor_of(claim, node, newcomer);
        if (run == RUNS_COUNT) {
            donor->stuck = true;
            continue;
        }
        struct claimant before = *donor;
        uint32_t bound = donor->quota < RUN_SLOTS ? donor->quota : RUN_SLOTS;
        donor->quota -= bound;
        donor->count -= RUN_SLOTS;
        donor->anchors--;
        if (RUN_SLOTS > bound && !joins_ahead_even(claim, newcomer, *spare - (RUN_SLOTS - bound))) {
            *donor = before;
            donor->stuck = true;
            continue;
        }
        *spare -= RUN_SLOTS - bound;
        *left -= RUN_SLOTS;
        claim_run_give(claim, run, newcomer);
        claim->nodes[newcomer].count += RUN_SLOTS;
        wanted--;
    }
}

/* Spreads `slots` over the quotas of those who own most for their share. Less is spread if that would leave a
 * donor with less than the newcomer. */
static void spread_quotas(struct claim *claim, uint16_t newcomer, uint32_t slots)
{
    const struct claimant *taker = &claim->nodes[newcomer];
    uint32_t planned = taker->count;
    for (uint16_t node = 0; node < claim->options->node_count; node++)
        planned += claim->nodes[node].quota;
    while (slots > 0) {
        uint16_t top = CLAIM_OWNER_NONE;
        uint64_t top_ratio = 0;
        for (uint16_t node = 0; node < claim->options->node_count; node++) {
            const struct claimant *donor = &claim->nodes[node];
            if (!donor->present || node == newcomer || donor->stuck || donor->count <= donor->quota + 1)
                continue;
            uint64_t ratio = owned_ratio(donor, donor->count - donor->quota);
            if (top == CLAIM_OWNER_NONE || ratio > top_ratio) {
                top = node;
                top_ratio = ratio;
            }
        }
        if (top == CLAIM_OWNER_NONE)
            return;
        struct claimant *donor = &claim->nodes[top];
        planned++;
        if (owned_ratio(donor, donor->count - donor->quota - 1) < owned_ratio(taker, planned))
            return;
        donor->quota++;
        slots--;
    }
}

/* How good a run is to take from: many slots at once, ideally all of it; from mixed runs rather than by mixing
 * another; an anchor only whole. 0 = nothing to take. */
static int32_t run_offer(struct claim *claim, uint16_t run, uint16_t newcomer)
{
    const uint16_t *owner = claim->owner + run * RUN_SLOTS;
    int32_t gain = 0;
    int32_t held = 0;
    for (uint16_t i = 0; i < RUN_SLOTS; i++) {
        struct claimant *donor = &claim->nodes[owner[i]];
        if (owner[i] == newcomer)
            held++;
        else if (donor->used < donor->quota &&
                 !claim_slot_near(claim, (uint16_t)(run * RUN_SLOTS + i), newcomer)) {
            donor->used++;
            gain++;
        }
    }
    for (uint16_t i = 0; i < RUN_SLOTS; i++)
        claim->nodes[owner[i]].used = 0;
    if (gain == 0)
        return 0;
    int32_t offer = 10000 + gain * 4;
    if (gain + held == RUN_SLOTS)
        return offer + 64;
    if (claim_run_owner(claim, run) != CLAIM_OWNER_NONE)
        offer -= run_anchor(claim, run) ? 4000 : 40;
    return held > 0 ? offer + 8 : offer;
}

/* Takes what the quotas give, best runs first; returns how much. */
static uint32_t take_quotas(struct claim *claim, uint16_t newcomer)
{
    uint32_t taken = 0;
    for (;;) {
        uint16_t offset = (uint16_t)prng_below(&claim->prng, RUNS_COUNT);
        uint16_t best = RUNS_COUNT;
        int32_t best_offer = 0;
        for (uint16_t i = 0; i < RUNS_COUNT; i++) {
            uint16_t run = (uint16_t)((i + offset) % RUNS_COUNT);
            int32_t offer = run_offer(claim, run, newcomer);
            if (offer > best_offer) {
                best = run;
                best_offer = offer;
            }
        }
        if (best == RUNS_COUNT)
            return taken;
        for (uint16_t i = 0; i < RUN_SLOTS; i++) {
            uint16_t slot = (uint16_t)(best * RUN_SLOTS + i);
            struct claimant *donor = &claim->nodes[claim->owner[slot]];
            if (donor->quota == 0 || claim_slot_near(claim, slot, newcomer))
                continue;
            donor->quota--;
            donor->count--;
            claim->owner[slot] = newcomer;
            claim->nodes[newcomer].count++;
            taken++;
        }
    }
}

/* Gives the newcomer (or a node below its share) `left` slots of the others'. */
void claim_take_share(struct claim *claim, uint16_t newcomer, uint32_t left)
{
    uint32_t bound = 0;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        struct claimant *donor = &claim->nodes[node];
        uint32_t limit = claim_share_limit(donor->share);
        donor->stuck = false;
        donor->quota = 0;
        if (!donor->present || node == newcomer || donor->count <= limit)
            continue;
        uint32_t over = donor->count - limit;
        donor->quota = over < left - bound ? over : left - bound;
        bound += donor->quota;
    }
    uint32_t spare = left - bound;
    take_anchors(claim, newcomer, &left, &spare);
    for (uint16_t node = 0; node < claim->options->node_count; node++)
        claim->nodes[node].stuck = false;
    for (int round = 0; round < JOIN_ROUNDS_MAX && left > 0; round++) {
        spread_quotas(claim, newcomer, spare);
        left -= take_quotas(claim, newcomer);
        spare = left;
        for (uint16_t node = 0; node < claim->options->node_count; node++) {
            claim->nodes[node].stuck = claim->nodes[node].stuck || claim->nodes[node].quota > 0;
            claim->nodes[node].quota = 0;
        }
    }
}

/* Slots without an owner that are free for the node, best whole runs first; at most `left`. */
static void adopt_orphans(struct claim *claim, uint16_t node, uint32_t left)
{
    for (int whole = 1; whole >= 0; whole--) {
        for (uint32_t slot = 0; slot < SLOTS_COUNT && left > 0; slot++) {
            uint16_t run = (uint16_t)(slot / RUN_SLOTS);
            if (claim->owner[slot] != CLAIM_OWNER_NONE || claim_slot_near(claim, (uint16_t)slot, node))
                continue;
            if (whole && (slot % RUN_SLOTS != 0 || left < RUN_SLOTS || !claim_run_orphaned(claim, run)))
                continue;
            uint32_t slots = whole ? RUN_SLOTS : 1;
            if (whole && claim_run_near(claim, run, node))
                continue;
            for (uint32_t i = 0; i < slots; i++)
                claim->owner[slot + i] = node;
            claim->nodes[node].count += slots;
            left -= slots;
        }
    }
}

void claim_join(struct claim *claim, uint16_t newcomer)
{
    claim->nodes[newcomer].present = true;
    claim_set_members(claim);
    claim_count(claim);
    struct claimant *claimant = &claim->nodes[newcomer];
    uint32_t target = share_floor(claimant->share);
    if (target > claimant->count)
        adopt_orphans(claim, newcomer, target - claimant->count);
    if (target > claimant->count)
        claim_take_share(claim, newcomer, target - claimant->count);
}
