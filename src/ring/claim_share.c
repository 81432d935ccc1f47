/* Spacing and shares: what every step of the claim (claim.c) keeps to. */
#include <string.h>

#include "ring/claim_internal.h"

#include <assert.h>

/* A node may own this many ten-thousandths of its share before it must give: 1.01 less rounding. */
#define SLACK_LIMIT 10095
#define SLACK_ONE 10000

/* Larger shares need no slack: a run is under 2 % of them. */
#define SLACK_SHARE_MAX (SLOTS_COUNT / 16)

bool claim_slot_near(const struct claim *claim, uint16_t slot, uint16_t node)
{
    for (uint16_t step = 1; step <= claim->node_reach; step++) {
        if (claim->owner[slot_clockwise(slot, step)] == node || claim->owner[slot_back(slot, step)] == node)
            return true;
    }
    for (uint16_t step = 1; step <= claim->zone_reach; step++) {
        uint16_t ahead = claim->owner[slot_clockwise(slot, step)];
        uint16_t behind = claim->owner[slot_back(slot, step)];
        if (ahead != CLAIM_OWNER_NONE && zone_of(claim, ahead) == zone_of(claim, node))
            return true;
        if (behind != CLAIM_OWNER_NONE && zone_of(claim, behind) == zone_of(claim, node))
            return true;
    }
    return false;
}

bool claim_run_near(const struct claim *claim, uint16_t run, uint16_t node)
{
    for (uint16_t i = 0; i < RUN_SLOTS; i++) {
        if (claim_slot_near(claim, (uint16_t)(run * RUN_SLOTS + i), node))
            return true;
    }
    return false;
}

uint16_t claim_run_owner(const struct claim *claim, uint16_t run)
{
    const uint16_t *owner = claim->owner + run * RUN_SLOTS;
    for (uint16_t i = 1; i < RUN_SLOTS; i++) {
        if (owner[i] != owner[0])
            return CLAIM_OWNER_NONE;
    }
    return owner[0];
}

bool claim_run_orphaned(const struct claim *claim, uint16_t run)
{
    const uint16_t *owner = claim->owner + run * RUN_SLOTS;
    return owner[0] == CLAIM_OWNER_NONE && memcmp(owner, owner + 1, (RUN_SLOTS - 1) * sizeof *owner) == 0;
}

void claim_run_give(struct claim *claim, uint16_t run, uint16_t node)
{
    for (uint16_t i = 0; i < RUN_SLOTS; i++)
        claim->owner[run * RUN_SLOTS + i] = node;
}

uint32_t claim_share_limit(uint64_t share)
{
    uint32_t ceiling = (uint32_t)((share + (UINT64_C(1) << SHARE_SHIFT) - 1) >> SHARE_SHIFT);
    if (ceiling > SLACK_SHARE_MAX)
        return ceiling;
    uint32_t slack = share_floor(share * SLACK_LIMIT / SLACK_ONE);
    return slack > ceiling ? slack : ceiling;
}

void claim_count(struct claim *claim)
{
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        claim->nodes[node].count = 0;
        claim->nodes[node].anchors = 0;
    }
    for (uint16_t run = 0; run < RUNS_COUNT; run++) {
        uint16_t whole = claim_run_owner(claim, run);
        if (whole != CLAIM_OWNER_NONE && run_anchor(claim, run))
            claim->nodes[whole].anchors++;
    }
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (claim->owner[slot] != CLAIM_OWNER_NONE)
            claim->nodes[claim->owner[slot]].count++;
    }
}

static bool zone_first(const struct claim *claim, uint16_t node)
{
    for (uint16_t other = 0; other < node; other++) {
        if (claim->nodes[other].present && zone_of(claim, other) == zone_of(claim, node))
            return false;
    }
    return true;
}

/* Weight of the present nodes of one zone that are not yet held at a limit (share set). */
static uint64_t zone_weight(const struct claim *claim, uint16_t zone)
{
    uint64_t weight = 0;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        if (claim->nodes[node].present && claim->nodes[node].share == 0 && zone_of(claim, node) == zone)
            weight += claim->options->nodes[node].weight;
    }
    return weight;
}

static void zone_set_shares(struct claim *claim, uint16_t zone, uint64_t share, uint64_t weight)
{
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        if (claim->nodes[node].present && zone_of(claim, node) == zone)
            claim->nodes[node].share = share * claim->options->nodes[node].weight / weight;
    }
}

/* Shares by weight, but no zone beyond what it can use: a slot has one replica in each of min(N, zones) zones. */
static void set_shares(struct claim *claim)
{
    uint64_t left = (uint64_t)SLOTS_COUNT << SHARE_SHIFT;
    uint16_t spread =
        claim->zone_count < claim->options->replicas ? claim->zone_count : claim->options->replicas;
    assert(spread > 0);
    uint64_t zone_limit = left / spread;
    for (uint16_t node = 0; node < claim->options->node_count; node++)
        claim->nodes[node].share = 0;
    bool limited = claim->zone_count > 1;
    while (limited) {
        limited = false;
        uint64_t total = 0;
        for (uint16_t node = 0; node < claim->options->node_count; node++) {
            if (claim->nodes[node].present && claim->nodes[node].share == 0)
                total += claim->options->nodes[node].weight;
        }
        for (uint16_t node = 0; node < claim->options->node_count && !limited; node++) {
            if (!claim->nodes[node].present || claim->nodes[node].share != 0)
                continue;
            uint64_t weight = zone_weight(claim, zone_of(claim, node));
            if (left * weight / total < zone_limit)
                continue;
            zone_set_shares(claim, zone_of(claim, node), zone_limit, weight);
            left -= zone_limit < left ? zone_limit : left;
            limited = true;
        }
    }
    uint64_t total = 0;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        if (claim->nodes[node].present && claim->nodes[node].share == 0)
            total += claim->options->nodes[node].weight;
    }
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        if (claim->nodes[node].present && claim->nodes[node].share == 0)
            claim->nodes[node].share = left * claim->options->nodes[node].weight / total;
    }
}

void claim_set_members(struct claim *claim)
{
    claim->present_count = 0;
    claim->zone_count = 0;
    for (uint16_t node = 0; node < claim->options->node_count; node++) {
        if (!claim->nodes[node].present)
            continue;
        claim->present_count++;
        if (zone_first(claim, node))
            claim->zone_count++;
    }
    uint16_t replicas = claim->options->replicas;
    claim->node_reach = (uint16_t)((replicas < claim->present_count ? replicas : claim->present_count) - 1);
    claim->zone_reach = (uint16_t)((replicas < claim->zone_count ? replicas : claim->zone_count) - 1);
    set_shares(claim);
}
