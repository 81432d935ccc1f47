/* Fresh writes that win without a look at the cold tier.
 *
 * For each slot the high water is kept: no stamp in any row of it that is, or is about to be, in the cold tier is
 * higher. A value with a higher stamp than that, for a key that is not resident, replaces whatever the cold tier holds
 * of the key: an older value, an expiry for an older value, or nothing. So the value alone is the merge of the two.
 * Everything else looks: a stamp at or below the high water (a hint, a repair), an override (it says nothing without
 * its value), a delete (it answers whether there was a value), a stamp at or below the purge floor.
 *
 * Only times are kept, not actors: a stamp of the same time looks.
 *
 * How it stays true (DESIGN section 4):
 *  - `newest` is the highest time stored in any row of the slot, by whatever path. What goes cold was stored before.
 *  - A slot's tree goes cold in the same table as its rows, and with it the high water: `newest` at that moment. So it
 *    is durable no later than the rows, also where recovery flushes.
 *  - What the disk says nothing of, or cannot be believed, is unknown: infinitely high. A scan of the whole slot finds
 *    it out.
 * It never falls. */
#include "shard/state.h"

/* What was counted longer ago than so many writes has less say in what new ones are taken for. */
#define BLIND_COUNTED_MAX 4096u

void blind_stored(struct shard *shard, uint16_t slot, const struct record *record)
{
    struct slot_state *state = slot_state_of(shard, slot);
    uint64_t time = record_stamp_max(record).time;
    if (state != NULL && time > state->newest)
        state->newest = time;
}

uint64_t blind_goes_cold(struct slot_state *state)
{
    if (state->high_water != HIGH_WATER_UNKNOWN)
        state->high_water = state->newest;
    return state->high_water;
}

void blind_found(struct slot_state *state, uint64_t high_water)
{
    state->high_water = high_water;
    if (high_water != HIGH_WATER_UNKNOWN && state->newest < high_water)
        state->newest = high_water;
}

void blind_scanned(struct slot_state *state, uint64_t newest)
{
    if (state->high_water != HIGH_WATER_UNKNOWN)
        return;
    /* What went cold since the scan began was stored here: it is in `newest` already. */
    if (state->newest < newest)
        state->newest = newest;
    state->high_water = state->newest;
}

bool blind_wins(const struct shard *shard, const struct task *task)
{
    const struct slot_state *state = slot_state_of(shard, task->slot);
    struct record record;
    if (!shard->options.blind_writes || task->kind != TASK_PUT || state == NULL ||
        record_parse(task->record, &record) != STATUS_OK || !record_holds_value(&record))
        return false;
    return record.stamp.time > state->high_water && stamp_compare(record.stamp, state->floor) > 0;
}

void blind_written(struct shard *shard, uint16_t slot, struct span key)
{
    struct slot_state *state = slot_state_of(shard, slot);
    merkle_mark_dirty(&shard->repairing.merkle, slot, merkle_tag(key));
    state->tree_changed = true;
    state->blind_last = slots_now(shard);
    if (state->blind_first == 0)
        state->blind_first = state->blind_last;
    state->blind += state->blind < UINT32_MAX;
    shard->counters.blind_writes++;
}

/* ---- their number --------------------------------------------------------------------------------------- */

void blind_counted(struct shard *shard, struct slot_state *state, uint32_t writes, int64_t rows_more)
{
    struct repairing *repairing = &shard->repairing;
    uint64_t more = rows_more < 0 ? 0 : (uint64_t)rows_more;
    state->blind -= writes < state->blind ? writes : state->blind;
    repairing->blind_counted += writes;
    repairing->blind_new += more < writes ? more : writes;
    while (repairing->blind_counted > BLIND_COUNTED_MAX) {
        repairing->blind_counted /= 2;
        repairing->blind_new /= 2;
    }
}

uint64_t blind_rows(const struct shard *shard, const struct slot_state *state)
{
    const struct repairing *repairing = &shard->repairing;
    /* As long as nothing is known they are of new keys: a store is filled before it is overwritten. */
    if (repairing->blind_counted == 0)
        return state->blind;
    return state->blind * repairing->blind_new / repairing->blind_counted;
}
