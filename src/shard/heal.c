/* Slots that do not serve, because this node may have lost rows of them: after amnesia, or damage on the disk.
 *
 * Such a slot takes writes and contributes what it has, and its answers count towards no R (DESIGN section 6). It
 * serves again once it has been compared with every other replica in exchanges that began after it was found wanting,
 * and after the last row that came from a replica which did not serve either. */
#include <assert.h>
#include <inttypes.h>

#include "shard/state.h"

/* How often healed slots are looked for, and their marks taken off the disk. */
#define HEAL_INTERVAL_US 500000u

static void mark(struct shard *shard, uint16_t slot, bool on)
{
    uint8_t bit = (uint8_t)(1u << (slot % 8));
    uint8_t *byte = &shard->quarantine[slot / 8];
    *byte = (uint8_t)(on ? *byte | bit : *byte & ~bit);
}

void heal_recount(struct shard *shard)
{
    shard->quarantine_any = false;
    for (size_t i = 0; i < sizeof shard->quarantine && !shard->quarantine_any; i++)
        shard->quarantine_any = shard->quarantine[i] != 0;
}

uint32_t heal_slots_left(const struct shard *shard)
{
    const struct slots *slots = &shard->repairing.slots;
    uint32_t left = 0;
    for (uint32_t i = 0; shard->quarantine_any && i < slots->count; i++)
        left += storage_slot_quarantined(shard, slots->states[i].slot);
    return left;
}

/* Everything this node holds, by the verdict of amnesia. Answers that it has prepared, and not given, rest on what it
 * was before: they do not count either. */
void heal_everything(struct shard *shard)
{
    wait_durable_quarantine(shard);
    peers_drop_held(shard);
    coordinator_amnesia(shard);
    /* Exchanges under way have said that the slots serve. */
    antientropy_node_down(shard, shard->repairing.initiating.node);
    servings_stop(shard);
    const struct slots *slots = &shard->repairing.slots;
    for (uint32_t i = 0; i < slots->count; i++) {
        mark(shard, slots->states[i].slot, true);
        slots->states[i].tainted = slots_now(shard);
    }
    shard->quarantine_any = slots->count > 0;
    shard->repairing.look_us = 0;
}

/* Marks of slots that are not this shard's, or not this node's, are nobody's to heal here. */
void heal_start(struct shard *shard)
{
    bool marked = shard->quarantine_any || meta_quarantine_any(&shard->meta);
    for (uint32_t slot = 0; marked && slot < SLOTS_COUNT; slot++) {
        if (slot_state_of(shard, (uint16_t)slot) == NULL)
            mark(shard, (uint16_t)slot, false);
        if (!ring_replicates(shard->ring, (uint16_t)slot, shard->self) &&
            meta_quarantine_test(&shard->meta, (uint16_t)slot)) {
            meta_quarantine_clear(&shard->meta, (uint16_t)slot);
            shard->meta_dirty = true;
        }
    }
    heal_recount(shard);
    /* The version before marked the directory only. */
    if (shard->meta.state == META_AMNESIAC && !meta_quarantine_any(&shard->meta))
        heal_everything(shard);
}

/* Body: u8 on | u16 slots. From any shard to shard 0, which keeps the durable marks. */
static void tell_shard_0(struct shard *shard, bool on, struct span slots)
{
    struct buf body;
    buf_init(&body, &shard->local_alloc);
    buf_put_u8(&body, on);
    buf_append_span(&body, slots);
    struct frame frame = {.body = buf_span(&body)};
    if (shard->options.shard == 0) {
        enum status status = heal_marks(shard, &frame);
        assert(status == STATUS_OK);
    } else {
        frame_put_raw(&shard->locals[0], FRAME_QUARANTINE, frame_head_of(shard, 0, 0), buf_span(&body));
    }
    buf_free(&body);
}

enum status heal_marks(struct shard *shard, const struct frame *frame)
{
    struct reader reader = reader_of(frame->body);
    bool on = reader_u8(&reader) != 0;
    while (reader_left(&reader) > 0 && !reader.failed) {
        uint16_t slot = reader_u16(&reader);
        if (reader.failed || slot >= SLOTS_COUNT)
            return STATUS_MALFORMED;
        if (!on)
            meta_quarantine_clear(&shard->meta, slot);
        else if (meta_quarantine_set(&shard->meta, slot) != STATUS_OK)
            say(shard, SAY_ERROR, "no memory to note durably that slot %u is damaged", slot);
    }
    shard->meta_dirty = true;
    membership_healed(shard);
    return reader_finish(&reader);
}

void heal_damaged(struct shard *shard, uint16_t slot, const char *why)
{
    struct slot_state *state = slot_state_of(shard, slot);
    if (state == NULL)
        return;
    state->began_empty = false;
    /* Without repair the slot would never serve again; what is damaged answers an error by itself. */
    if (shard->repairing.slots.others == 0 || !shard->options.healing.repair) {
        say(shard, SAY_ERROR, "slot %u: %s, and %s", slot, why,
            shard->options.healing.repair ? "no other node has a replica to repair it from"
                                          : "repair is off");
        return;
    }
    /* Each read of a row that the damage took finds it anew: while the slot is rebuilt that is no news. */
    if (state->cold_damaged != 0 && storage_slot_quarantined(shard, slot))
        return;
    state->tainted = slots_now(shard);
    merkle_forget(&shard->repairing.merkle, slot);
    state->tree_changed = true;
    if (storage_slot_quarantined(shard, slot))
        return;
    say(shard, SAY_ERROR,
        "slot %u: %s; it is rebuilt from the other replicas and counts towards no R until then", slot, why);
    mark(shard, slot, true);
    shard->quarantine_any = true;
    shard->repairing.look_us = 0;
    uint8_t bytes[2];
    store_u16(bytes, slot);
    tell_shard_0(shard, true, span_of(bytes, sizeof bytes));
}

/* RocksDB keeps a damaged table until the cold tier is rebuilt (edge/cold_damage.h). So the damage counts once, and
 * what scans cannot reach is looked at again once in a round of repair: damage that is gone is found out so. */
void heal_scan_damaged(struct shard *shard, uint16_t slot)
{
    struct slot_state *state = slot_state_of(shard, slot);
    if (state == NULL)
        return;
    state->began_empty = false;
    if (state->cold_damaged == 0)
        heal_damaged(shard, slot, "a checksum in the cold tier does not match");
    /* Also where nobody could repair it: until all of it has been read nothing of it is purged. */
    merkle_forget(&shard->repairing.merkle, slot);
    state->tree_changed = true;
    state->cold_damaged = slots_now(shard);
}

bool heal_scan_hopeless(const struct shard *shard, const struct slot_state *state)
{
    uint64_t wait = shard->options.healing.repair_interval_ms / DECISECOND_MS;
    return state->cold_damaged != 0 && slots_now(shard) - state->cold_damaged <= wait;
}

static bool healed(const struct shard *shard, const struct slot_state *state)
{
    return shard->repairing.slots.others > 0 && slot_verified_by_all(shard, state) > state->tainted;
}

void heal_turn_end(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    const struct slots *slots = &repairing->slots;
    if (!shard->quarantine_any || shard->now.mono_us < repairing->heal_us)
        return;
    repairing->heal_us = shard->now.mono_us + HEAL_INTERVAL_US;
    struct buf list;
    uint32_t count = 0;
    buf_init(&list, &shard->alloc);
    for (uint32_t i = 0; i < slots->count; i++) {
        const struct slot_state *state = &slots->states[i];
        if (!storage_slot_quarantined(shard, state->slot) || !healed(shard, state))
            continue;
        buf_put_u16(&list, state->slot);
        if (list.failed)
            break;
        mark(shard, state->slot, false);
        count++;
    }
    if (count > 0) {
        repairing->counters.slots_healed += count;
        heal_recount(shard);
        uint32_t left = heal_slots_left(shard);
        tell_shard_0(shard, false, buf_span(&list));
        if (left == 0)
            say(shard, SAY_INFO,
                "all slots of this shard are repaired from their other replicas and serve again");
    }
    buf_free(&list);
}
