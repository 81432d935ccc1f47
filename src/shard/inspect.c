/* Looking into a shard's healing from outside: for the simulator's oracles, tests and statistics. */
#include "shard/state.h"

struct shard_healing_state shard_healing_state(const struct shard *shard)
{
    const struct repairing *repairing = &shard->repairing;
    const struct hints *books = &repairing->handoff.books;
    const struct repair_counters *counters = &repairing->counters;
    struct shard_healing_state state = {
        .hints = books->count,
        .hints_counted = !repairing->handoff.unknown,
        .slots_marked = heal_slots_left(shard),
        .hints_stored = repairing->handoff.stored,
        .hints_replayed = books->replayed,
        .hints_converted = books->converted,
        .hints_discarded = repairing->handoff.discarded,
        .exchanges = counters->exchanges,
        .exchanges_failed = counters->exchanges_failed,
        .records_sent = counters->records_sent,
        .records_received = counters->records_received,
        .rescans = counters->rescans,
        .leaves_wrong = counters->leaves_wrong,
        .purged = counters->purged,
        .floor_refusals = counters->floor_refusals,
        .slots_healed = counters->slots_healed,
    };
    for (uint64_t node = hints_target_next(books, 0); node != 0; node = hints_target_next(books, node))
        state.syncs += hints_target(books, node).syncs;
    return state;
}

uint64_t shard_hints_for(const struct shard *shard, uint64_t node, uint32_t *syncs)
{
    struct hint_target_info info = hints_target(&shard->repairing.handoff.books, node);
    *syncs = info.syncs;
    return info.count;
}

bool shard_slot_root(const struct shard *shard, uint16_t slot, struct hash_128 *sum, uint64_t *rows)
{
    const struct merkle *merkle = &shard->repairing.merkle;
    if (merkle_info(merkle, slot).lost)
        return false;
    struct merkle_node root = merkle_node(merkle, slot, 0, 0);
    *sum = root.sum;
    *rows = root.count;
    return root.known;
}

uint64_t shard_slot_high_water(const struct shard *shard, uint16_t slot)
{
    const struct slot_state *state = slot_state_of(shard, slot);
    return state == NULL ? HIGH_WATER_UNKNOWN : state->high_water;
}

struct stamp shard_slot_floor(const struct shard *shard, uint16_t slot)
{
    const struct slot_state *state = slot_state_of(shard, slot);
    return state == NULL ? (struct stamp){0} : state->floor;
}
