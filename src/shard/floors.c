/* Purge floors between replicas, and what they decide.
 *
 * A record travels with its sender's purge floor for the slot, taken before the record was read: that is how the
 * receiver tells a row that it lacks from one that it has purged. A slot that is rebuilt takes the floors of the
 * replicas that serve over, with their rows: without them it would take back what they have purged. */
#include <assert.h>

#include "shard/state.h"

/* u16 count | for each: u16 slot | u8 serves | floor. Slots that serve and never purged are left out. */
void floors_put(const struct shard *shard, struct buf *buf, uint16_t slot)
{
    const struct slot_state *state = slot_state_of(shard, slot);
    bool serves = storage_slot_serves(shard, slot);
    if (state == NULL || (serves && stamp_none(state->floor)))
        return;
    buf_put_u16(buf, slot);
    buf_put_u8(buf, serves);
    stamp_put(buf, state->floor);
}

/* Reads the list off the front of a body. */
enum status floors_read(struct reader *reader, struct span *floors)
{
    uint16_t count = reader_u16(reader);
    *floors = reader_bytes(reader, (size_t)count * FLOOR_BYTES);
    for (uint16_t i = 0; i < count && !reader->failed; i++) {
        if (load_u16(floors->data + (size_t)i * FLOOR_BYTES) >= SLOTS_COUNT ||
            floors->data[(size_t)i * FLOOR_BYTES + 2] > 1)
            return STATUS_MALFORMED;
    }
    return reader->failed ? STATUS_MALFORMED : STATUS_OK;
}

void floors_put_list(struct buf *buf, struct span floors)
{
    assert(floors.size % FLOOR_BYTES == 0 && floors.size / FLOOR_BYTES <= UINT16_MAX);
    buf_put_u16(buf, (uint16_t)(floors.size / FLOOR_BYTES));
    buf_append_span(buf, floors);
}

/* What the sender said of a slot; *serves is true and the floor none if it said nothing. */
struct stamp floors_of(struct span floors, uint16_t slot, bool *serves)
{
    *serves = true;
    for (size_t at = 0; at < floors.size; at += FLOOR_BYTES) {
        if (load_u16(floors.data + at) != slot)
            continue;
        *serves = floors.data[at + 2] != 0;
        return (struct stamp){.time = load_u64(floors.data + at + 3),
                              .actor = load_u64(floors.data + at + 11)};
    }
    return (struct stamp){0};
}

void repair_merge(struct shard *shard, const struct exchange_record *record, struct span floors,
                  const struct replica_origin *origin)
{
    bool serves;
    struct task task = {
        .kind = TASK_PUT,
        .origin = *origin,
        .slot = record->slot,
        .write_back = true,
        .repair = true,
        .floor = floors_of(floors, record->slot, &serves),
        .key = record->key,
        .record = record->record,
    };
    struct slot_state *state = slot_state_of(shard, record->slot);
    /* What such a replica holds may have been purged elsewhere: it proves nothing, and it must be compared with the
     * others once more. */
    if (!serves)
        task.floor = (struct stamp){0};
    if (!serves && state != NULL)
        state->tainted = slots_now(shard);
    shard->repairing.counters.records_received++;
    storage_do(shard, &task);
}

/* ---- a slot that is rebuilt ----------------------------------------------------------------------------- */

/* The floors that came with an answer, for slots that do not serve here. */
void floors_adopt(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    struct span floors = buf_span(&initiating->peer_floors);
    bool raised = false;
    for (size_t at = 0; at < floors.size; at += FLOOR_BYTES) {
        uint16_t slot = load_u16(floors.data + at);
        struct slot_state *state = slot_state_of(shard, slot);
        bool serves = floors.data[at + 2] != 0;
        struct stamp floor = {.time = load_u64(floors.data + at + 3),
                              .actor = load_u64(floors.data + at + 11)};
        if (!serves || state == NULL || storage_slot_serves(shard, slot) ||
            stamp_compare(floor, state->floor) <= 0)
            continue;
        if (shard->takes_writes && !shard->log.full && slot_raise_floor(shard, state, floor))
            raised = true;
        else
            initiating->merge_failed = true;
    }
    if (!raised)
        return;
    struct replica_origin origin = initiating_settles(initiating);
    struct replica_answer answer = {.kind = TASK_PUT, .status = STATUS_OK};
    wait_durable(shard, shard->log.open, &origin, &answer);
}

/* Rows that a replica which serves has purged, and this one, which does not, still held. */
enum status floors_drop_refused(struct shard *shard, struct reader *reader)
{
    uint32_t refused = reader_u32(reader);
    struct initiating *initiating = &shard->repairing.initiating;
    for (uint32_t i = 0; i < refused && !reader->failed; i++) {
        bool serves;
        uint16_t slot = reader_u16(reader);
        struct span key = reader_short(reader);
        if (reader->failed || slot >= SLOTS_COUNT || key_slot(key) != slot)
            return STATUS_MALFORMED;
        struct stamp floor = floors_of(buf_span(&initiating->peer_floors), slot, &serves);
        if (!serves || storage_slot_serves(shard, slot) || slot_state_of(shard, slot) == NULL)
            continue;
        struct task task = {.kind = TASK_DROP,
                            .origin = initiating_settles(initiating),
                            .slot = slot,
                            .floor = floor,
                            .key = key};
        storage_do(shard, &task);
    }
    return reader->failed ? STATUS_MALFORMED : STATUS_OK;
}
