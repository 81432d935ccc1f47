/* What is known of each slot that this node replicates in this shard: its purge floor, when it was last verified equal
 * with each other replica, and about how many of its rows are dead.
 *
 * The table follows the ring. A slot whose replicas changed starts anew, except for its floor, which is about the rows
 * held here (DESIGN section 6, Purge). */
#include <assert.h>

#include "shard/state.h"

decisecond slots_then(const struct shard *shard, uint64_t mono_us)
{
    return (decisecond)((mono_us - shard->options.now.mono_us) / (DECISECOND_MS * 1000u) + 1);
}

decisecond slots_now(const struct shard *shard)
{
    return slots_then(shard, shard->now.mono_us);
}

uint64_t slots_wall_ms(const struct shard *shard, decisecond then)
{
    uint64_t ago_ms = (uint64_t)(slots_now(shard) - then + 1) * (DECISECOND_MS);
    return shard->now.wall_ms > ago_ms ? shard->now.wall_ms - ago_ms : 0;
}

decisecond slots_since(const struct shard *shard, uint64_t ago_ms)
{
    uint64_t ago = ago_ms / (DECISECOND_MS);
    decisecond now = slots_now(shard);
    return ago >= now ? 1 : now - (decisecond)ago + 1;
}

struct slot_state *slot_state_of(const struct shard *shard, uint16_t slot)
{
    const struct slots *slots = &shard->repairing.slots;
    uint16_t place = slots->index[slot];
    return place == UINT16_MAX ? NULL : &slots->states[place];
}

void slot_prefetch(const struct shard *shard, uint16_t slot)
{
    const struct slot_state *state = slot_state_of(shard, slot);
    if (state == NULL)
        return;
    __builtin_prefetch(state, 1);
    __builtin_prefetch((const uint8_t *)(state + 1) - 1, 1);
    merkle_prefetch(&shard->repairing.merkle, slot);
}

bool slot_resident(const struct shard *shard, uint16_t slot)
{
    const struct slot_state *state = slot_state_of(shard, slot);
    return state != NULL && state->began_empty && !memtable_slot_evicted(&shard->memtable, slot);
}

static uint32_t slot_place(const struct shard *shard, const struct slot_state *state)
{
    return (uint32_t)(state - shard->repairing.slots.states);
}

/* Which of the slot's other replicas the node is, or REPLICAS_MAX. */
static uint8_t other_of(const struct shard *shard, uint16_t slot, uint16_t node)
{
    const uint16_t *replicas = ring_replicas(shard->ring, slot);
    uint8_t other = 0;
    for (uint8_t i = 0; i < ring_replica_count(shard->ring); i++) {
        if (replicas[i] == node)
            return node == shard->self ? REPLICAS_MAX : other;
        other = (uint8_t)(other + (replicas[i] != shard->self));
    }
    return REPLICAS_MAX;
}

decisecond slot_verified(const struct shard *shard, const struct slot_state *state, uint16_t node)
{
    const struct slots *slots = &shard->repairing.slots;
    uint8_t other = other_of(shard, state->slot, node);
    return other == REPLICAS_MAX ? 0 : slots->verified[slot_place(shard, state) * slots->others + other];
}

void slot_note_verified(struct shard *shard, uint16_t slot, uint16_t node, decisecond started)
{
    struct slots *slots = &shard->repairing.slots;
    const struct slot_state *state = slot_state_of(shard, slot);
    uint8_t other = other_of(shard, slot, node);
    if (state == NULL || other == REPLICAS_MAX)
        return;
    decisecond *verified = &slots->verified[slot_place(shard, state) * slots->others + other];
    if (*verified < started)
        *verified = started;
}

decisecond slot_verified_by_all(const struct shard *shard, const struct slot_state *state)
{
    const struct slots *slots = &shard->repairing.slots;
    const decisecond *verified = &slots->verified[slot_place(shard, state) * slots->others];
    decisecond least = UINT32_MAX;
    for (uint8_t i = 0; i < slots->others; i++)
        least = verified[i] < least ? verified[i] : least;
    return least;
}

/* ---- sums, for those who look --------------------------------------------------------------------------- */

uint64_t slots_dead(const struct shard *shard)
{
    const struct slots *slots = &shard->repairing.slots;
    uint64_t dead = 0;
    for (uint32_t i = 0; i < slots->count; i++)
        dead += slots->states[i].dead;
    return dead;
}

uint64_t slots_expiring(const struct shard *shard)
{
    const struct slots *slots = &shard->repairing.slots;
    uint64_t expiring = 0;
    for (uint32_t i = 0; i < slots->count; i++) {
        const struct slot_state *state = &slots->states[i];
        expiring += state->dead > state->tombstones ? state->dead - state->tombstones : 0;
    }
    return expiring;
}

uint32_t slots_not_serving(const struct shard *shard)
{
    return shard->serving ? heal_slots_left(shard) : shard->repairing.slots.count;
}

decisecond slots_age(const struct shard *shard)
{
    const struct slots *slots = &shard->repairing.slots;
    decisecond now = slots_now(shard);
    decisecond least = now;
    for (size_t i = 0; i < (size_t)slots->count * slots->others; i++)
        least = slots->verified[i] < least ? slots->verified[i] : least;
    return now - least;
}

/* ---- dead rows ------------------------------------------------------------------------------------------ */

uint64_t slot_dead_age_ms(const struct shard *shard)
{
    return shard->options.healing.request_timeout_max_ms + (uint64_t)2 * shard->options.clock_skew_max_ms + 1;
}

uint64_t slot_dead_ms(const struct shard *shard, const struct record *record)
{
    uint64_t from_ms = stamp_ms(record_stamp_max(record));
    if (record_holds_value(record)) {
        uint64_t expiry_ms = record_expiry_ms(record);
        if (expiry_ms == 0)
            return UINT64_MAX;
        if (expiry_ms > STAMP_MS_MAX)
            return UINT64_MAX;
        expiry_ms += shard->options.clock_skew_max_ms;
        from_ms = expiry_ms > from_ms ? expiry_ms : from_ms;
    }
    return from_ms + slot_dead_age_ms(shard);
}

void slot_row_changed(struct shard *shard, uint16_t slot, const struct record *before,
                      const struct record *after)
{
    struct slot_state *state = slot_state_of(shard, slot);
    if (state == NULL)
        return;
    if (!record_empty(before) && !record_holds_value(before) && state->tombstones > 0)
        state->tombstones--;
    if (!record_empty(after) && !record_holds_value(after))
        state->tombstones++;
    uint64_t before_ms = record_empty(before) ? UINT64_MAX : slot_dead_ms(shard, before);
    uint64_t after_ms = record_empty(after) ? UINT64_MAX : slot_dead_ms(shard, after);
    if (before_ms != UINT64_MAX && state->dead > 0)
        state->dead--;
    if (after_ms == UINT64_MAX)
        return;
    state->dead++;
    /* 0 says that nobody has looked yet: it stays. */
    if (after_ms < state->purge_at_ms)
        state->purge_at_ms = after_ms;
}

void slot_tombstones_counted(struct slot_state *state, uint32_t before, uint32_t counted)
{
    /* Rows that changed since the scan began are not in it: they have moved the counter. */
    int64_t count = (int64_t)counted + state->tombstones - before;
    state->tombstones = count > 0 ? (uint32_t)count : 0;
}

uint64_t slot_keys(const struct shard *shard, const struct slot_state *state)
{
    uint64_t rows = merkle_info(&shard->repairing.merkle, state->slot).count + blind_rows(shard, state);
    return rows > state->tombstones ? rows - state->tombstones : 0;
}

uint64_t slots_keys(const struct shard *shard)
{
    const struct slots *slots = &shard->repairing.slots;
    uint64_t keys = 0;
    for (uint32_t i = 0; i < slots->count; i++)
        keys += slot_keys(shard, &slots->states[i]);
    return keys;
}

void slot_row_came(struct shard *shard, uint16_t slot, const struct record *record)
{
    struct slot_state *state = slot_state_of(shard, slot);
    if (state == NULL || record_empty(record) || slot_dead_ms(shard, record) == UINT64_MAX)
        return;
    /* A write that is acknowledged or refused by its deadline comes early; what comes later is repair or a hint. */
    uint64_t old_ms = stamp_ms(record_stamp_max(record)) + shard->options.clock_skew_max_ms;
    if (shard->now.wall_ms > old_ms)
        state->late = slots_now(shard);
}

/* ---- the table ------------------------------------------------------------------------------------------ */

static bool ours(const struct shard *shard, uint16_t slot)
{
    return slot_shard(slot, shard->options.shards) == shard->options.shard &&
           ring_replicates(shard->ring, slot, shard->self);
}

static void table_free(struct shard *shard, struct slots *slots)
{
    alloc_put(&shard->alloc, slots->states, slots->count * sizeof *slots->states);
    alloc_put(&shard->alloc, slots->verified, (size_t)slots->count * slots->others * sizeof *slots->verified);
    alloc_put(&shard->alloc, slots->index, SLOTS_COUNT * sizeof *slots->index);
    *slots = (struct slots){0};
}

/* Keeps what is known of a slot whose replicas are the same as in the old table's ring. */
static void carry_over(struct shard *shard, const struct slots *old, struct slots *slots)
{
    for (uint32_t i = 0; i < slots->count; i++) {
        uint16_t slot = slots->states[i].slot;
        uint16_t place = old->index[slot];
        if (place == UINT16_MAX)
            continue;
        bool same = shard->ring_before != NULL && old->others == slots->others &&
                    ring_changed_epoch(shard->ring, slot) <= shard->ring_before->epoch;
        slots->states[i] = old->states[place];
        if (same)
            memcpy(slots->verified + i * slots->others, old->verified + (size_t)place * old->others,
                   slots->others * sizeof *slots->verified);
    }
}

void slots_drop(struct shard *shard, struct slots *slots)
{
    table_free(shard, slots);
}

enum status slots_make(struct shard *shard, struct slots *slots)
{
    *slots = (struct slots){.others = (uint8_t)(ring_replica_count(shard->ring) - 1)};
    slots->index = alloc_get(&shard->alloc, SLOTS_COUNT * sizeof *slots->index);
    if (slots->index == NULL)
        return STATUS_OVERLOADED;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        slots->index[slot] = ours(shard, (uint16_t)slot) ? (uint16_t)slots->count++ : UINT16_MAX;
    if (slots->count > 0)
        slots->states = alloc_get_zeroed(&shard->alloc, slots->count * sizeof *slots->states);
    size_t verified_size = (size_t)slots->count * slots->others * sizeof *slots->verified;
    if (verified_size > 0)
        slots->verified = alloc_get_zeroed(&shard->alloc, verified_size);
    if ((slots->count > 0 && slots->states == NULL) || (verified_size > 0 && slots->verified == NULL)) {
        table_free(shard, slots);
        return STATUS_OVERLOADED;
    }
    /* Of an empty cold tier all is known: nothing. What was stored of a slot that becomes ours only now is not. */
    bool first = shard->repairing.slots.index == NULL;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (slots->index[slot] != UINT16_MAX)
            slots->states[slots->index[slot]] =
                (struct slot_state){.slot = (uint16_t)slot,
                                    .late = 1,
                                    .purge_at_ms = shard->cold_empty ? UINT64_MAX : 0,
                                    .high_water = first && shard->cold_empty ? 0 : HIGH_WATER_UNKNOWN,
                                    .began_empty = first && shard->cold_empty};
    }
    return STATUS_OK;
}

/* Trees are added to a flush in the order of slots, over several turns: it goes on where it is in the new table. */
static void flush_follows(struct flush_state *flush, const struct slots *from, const struct slots *to)
{
    uint32_t done = flush->trees_at;
    uint32_t at = 0;
    while (done > 0 && at < to->count && to->states[at].slot <= from->states[done - 1].slot)
        at++;
    flush->trees_at = at;
}

void slots_adopt(struct shard *shard, struct slots *slots)
{
    if (shard->repairing.slots.index != NULL) {
        flush_follows(&shard->flush, &shard->repairing.slots, slots);
        carry_over(shard, &shard->repairing.slots, slots);
        table_free(shard, &shard->repairing.slots);
    }
    shard->repairing.slots = *slots;
}

void slots_free(struct shard *shard)
{
    if (shard->repairing.slots.index != NULL)
        table_free(shard, &shard->repairing.slots);
}

/* ---- purge floors --------------------------------------------------------------------------------------- */

/* Raises the slot's floor durably: its row goes into the open batch, before whatever the floor is about. False: no
 * room, nothing changed. */
bool slot_raise_floor(struct shard *shard, struct slot_state *state, struct stamp stamp)
{
    uint8_t key[RESERVED_SLOT_KEY_BYTES];
    uint8_t bytes[STAMP_BYTES];
    if (stamp_compare(stamp, state->floor) <= 0)
        return true;
    reserved_slot_key(RESERVED_FLOOR, state->slot, key);
    store_u64(bytes, stamp.time);
    store_u64(bytes + 8, stamp.actor);
    struct stored row = {.slot = state->slot,
                         .reserved = true,
                         .key = span_of(key, sizeof key),
                         .record = span_of(bytes, sizeof bytes),
                         .in_cold = true};
    if (storage_store(shard, &row) != STATUS_OK)
        return false;
    state->floor = stamp;
    return true;
}

enum status slot_floor_found(struct shard *shard, uint16_t slot, struct span record)
{
    struct slot_state *state = slot_state_of(shard, slot);
    if (record.size != STAMP_BYTES)
        return STATUS_CORRUPT;
    struct stamp floor = {.time = load_u64(record.data), .actor = load_u64(record.data + 8)};
    if (state != NULL)
        state->floor = stamp_max(state->floor, floor);
    return STATUS_OK;
}
