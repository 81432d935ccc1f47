/* Hints: keys, and the books of what each target is owed. */
#include "repair/hints.h"

#include <assert.h>

#include "repair/hints_internal.h"

/* ---- the reserved keys --------------------------------------------------------------------------------- */

static void put_head(struct buf *buf, uint16_t prefix, uint64_t target)
{
    uint8_t head[10] = {(uint8_t)(prefix >> 8), (uint8_t)prefix};
    for (int i = 0; i < 8; i++)
        head[2 + i] = (uint8_t)(target >> (56 - 8 * i));
    buf_append(buf, head, sizeof head);
}

void hint_key_put(struct buf *buf, const struct hint_key *key)
{
    assert(key->slot < SLOTS_COUNT && key->target != 0);
    assert(key->key.size <= HINTED_KEY_BYTES_MAX && (!key->sync || key->key.size == 0));
    uint8_t slot[2] = {(uint8_t)(key->slot >> 8), (uint8_t)key->slot};
    if (!buf_reserve(buf, HINT_KEY_HEAD_BYTES + key->key.size))
        return;
    put_head(buf, key->sync ? HINT_SYNC_PREFIX : HINT_PREFIX, key->target);
    buf_append(buf, slot, sizeof slot);
    buf_append_span(buf, key->key);
}

enum status hint_key_read(struct span bytes, struct hint_key *key)
{
    if (bytes.size < HINT_KEY_HEAD_BYTES || bytes.size > KEY_BYTES_MAX_HARD)
        return STATUS_MALFORMED;
    uint32_t prefix = (uint32_t)bytes.data[0] << 8 | bytes.data[1];
    *key = (struct hint_key){.sync = prefix == HINT_SYNC_PREFIX};
    for (int i = 2; i < 10; i++)
        key->target = key->target << 8 | bytes.data[i];
    key->slot = (uint16_t)(bytes.data[10] << 8 | bytes.data[11]);
    key->key = span_of(bytes.data + HINT_KEY_HEAD_BYTES, bytes.size - HINT_KEY_HEAD_BYTES);
    if ((prefix != HINT_PREFIX && prefix != HINT_SYNC_PREFIX) || key->target == 0 || key->slot >= SLOTS_COUNT)
        return STATUS_MALFORMED;
    bool fits = key->sync ? key->key.size == 0 : key_slot(key->key) == key->slot;
    return fits ? STATUS_OK : STATUS_MALFORMED;
}

_Static_assert(SLOTS_COUNT <= 0xffff, "no slot's cold keys come behind those of hints");

void hint_range_put(struct buf *first, struct buf *end, uint64_t target)
{
    static const uint8_t past_slots[2] = {0xff, 0xff};
    put_head(first, HINT_PREFIX, target);
    put_head(end, HINT_PREFIX, target);
    buf_append(end, past_slots, sizeof past_slots);
}

void hint_row_put(struct buf *buf, uint8_t flags, struct span record)
{
    assert((flags & ~HINT_COUNTED) == 0);
    if (!buf_reserve(buf, 1 + record.size))
        return;
    buf_put_u8(buf, flags);
    buf_append_span(buf, record);
}

enum status hint_row_read(struct span bytes, uint8_t *flags, struct span *record)
{
    struct reader reader = reader_of(bytes);
    struct record parsed;
    *flags = reader_u8(&reader);
    *record = reader_bytes(&reader, reader_left(&reader));
    if (reader.failed || (*flags & ~HINT_COUNTED) != 0 || record_parse(*record, &parsed) != STATUS_OK ||
        record_empty(&parsed))
        return STATUS_MALFORMED;
    return STATUS_OK;
}

/* ---- accounts ------------------------------------------------------------------------------------------ */

void hints_init(struct hints *hints, const struct hints_options *options)
{
    assert(options->replay_bytes_per_s > 0 && options->replay_burst_bytes > 0);
    *hints = (struct hints){.options = *options};
    map_init(&hints->targets, options->alloc);
}

struct hint_target *hints_find(const struct hints *hints, uint64_t target)
{
    assert(target != 0);
    return map_get(&hints->targets, target);
}

static struct hint_target *find_or_make(struct hints *hints, uint64_t node)
{
    struct hint_target *target = hints_find(hints, node);
    if (target != NULL)
        return target;
    target = alloc_get_zeroed(hints->options.alloc, sizeof *target);
    if (target == NULL)
        return NULL;
    target->node = node;
    target->id_next = 1;
    target->tokens = (int64_t)hints->options.replay_burst_bytes;
    buf_init(&target->cursor, hints->options.alloc);
    buf_init(&target->done, hints->options.alloc);
    if (map_put(&hints->targets, node, target) == STATUS_OK)
        return target;
    alloc_put(hints->options.alloc, target, sizeof *target);
    return NULL;
}

static void target_free(struct hints *hints, struct hint_target *target)
{
    struct alloc *alloc = hints->options.alloc;
    hint_window_clear(hints, target);
    alloc_put(alloc, target->window, HINT_WINDOW_MAX * sizeof *target->window);
    alloc_put(alloc, target->marked, SYNC_BITMAP_BYTES);
    alloc_put(alloc, target->syncing, SYNC_BITMAP_BYTES);
    buf_free(&target->cursor);
    buf_free(&target->done);
    alloc_put(alloc, target, sizeof *target);
}

void hints_free(struct hints *hints)
{
    uint32_t at = 0;
    for (struct hint_target *target = map_next(&hints->targets, &at); target != NULL;
         target = map_next(&hints->targets, &at))
        target_free(hints, target);
    map_free(&hints->targets);
    alloc_put(hints->options.alloc, hints->slot_hints, SLOTS_COUNT * sizeof *hints->slot_hints);
    hints->slot_hints = NULL;
}

void hints_drop_target(struct hints *hints, uint64_t node)
{
    struct hint_target *target = hints_find(hints, node);
    if (target == NULL)
        return;
    assert(target->count == 0 && target->bytes == 0);
    (void)map_take(&hints->targets, node);
    target_free(hints, target);
}

enum status hints_book(struct hints *hints, const struct hint_change *change)
{
    assert(change->slot < SLOTS_COUNT);
    size_t slots_size = SLOTS_COUNT * sizeof *hints->slot_hints;
    struct hint_target *target = find_or_make(hints, change->target);
    if (hints->slot_hints == NULL)
        hints->slot_hints = alloc_get_zeroed(hints->options.alloc, slots_size);
    if (target == NULL || hints->slot_hints == NULL)
        return STATUS_OVERLOADED;
    assert(target->bytes >= change->bytes_before);
    target->bytes = target->bytes - change->bytes_before + change->bytes_after;
    hints->bytes = hints->bytes - change->bytes_before + change->bytes_after;
    if (change->bytes_before == 0 && change->bytes_after != 0) {
        target->count++;
        hints->count++;
        hints->slot_hints[change->slot]++;
    } else if (change->bytes_before != 0 && change->bytes_after == 0) {
        assert(target->count > 0 && hints->slot_hints[change->slot] > 0);
        target->count--;
        hints->count--;
        hints->slot_hints[change->slot]--;
    }
    return STATUS_OK;
}

enum hint_verdict hints_add(struct hints *hints, const struct hint_change *change)
{
    assert(change->bytes_after > 0);
    struct hint_target *target = find_or_make(hints, change->target);
    uint64_t held = target == NULL ? 0 : target->bytes - change->bytes_before;
    bool fits = target != NULL && change->bytes_after <= hints->options.bytes_max &&
                held <= hints->options.bytes_max - change->bytes_after;
    if (fits && hints_book(hints, change) == STATUS_OK)
        return HINT_STORE;
    if (!change->counted && hints_mark(hints, change->target, change->slot) == STATUS_OK) {
        hints->converted++;
        return HINT_SYNC;
    }
    hints->refused++;
    return HINT_REFUSED;
}

bool hints_slot_held(const struct hints *hints, uint16_t slot)
{
    assert(slot < SLOTS_COUNT);
    return hints->slot_hints != NULL && hints->slot_hints[slot] > 0;
}

struct hint_target_info hints_target(const struct hints *hints, uint64_t node)
{
    const struct hint_target *target = hints_find(hints, node);
    if (target == NULL)
        return (struct hint_target_info){0};
    return (struct hint_target_info){
        .bytes = target->bytes,
        .count = target->count,
        .syncs = target->syncs,
        .window = target->window_count,
        .up = target->up,
    };
}

uint64_t hints_target_next(const struct hints *hints, uint64_t after)
{
    uint64_t next = 0;
    uint32_t at = 0;
    for (const struct hint_target *target = map_next(&hints->targets, &at); target != NULL;
         target = map_next(&hints->targets, &at)) {
        if (target->node > after && (next == 0 || target->node < next))
            next = target->node;
    }
    return next;
}

/* ---- sync marks ---------------------------------------------------------------------------------------- */

static bool bit_get(const uint8_t *bitmap, uint16_t slot)
{
    return bitmap != NULL && (bitmap[slot / 8] >> (slot % 8) & 1) != 0;
}

static void bit_set(uint8_t *bitmap, uint16_t slot, bool on)
{
    uint8_t bit = (uint8_t)(1u << (slot % 8));
    bitmap[slot / 8] = (uint8_t)(on ? bitmap[slot / 8] | bit : bitmap[slot / 8] & ~bit);
}

enum status hints_mark(struct hints *hints, uint64_t node, uint16_t slot)
{
    assert(slot < SLOTS_COUNT);
    struct hint_target *target = find_or_make(hints, node);
    if (target == NULL)
        return STATUS_OVERLOADED;
    /* Both bitmaps at once, so that beginning an exchange cannot fail. */
    if (target->syncing == NULL)
        target->syncing = alloc_get_zeroed(hints->options.alloc, SYNC_BITMAP_BYTES);
    if (target->marked == NULL)
        target->marked = alloc_get_zeroed(hints->options.alloc, SYNC_BITMAP_BYTES);
    if (target->syncing == NULL || target->marked == NULL)
        return STATUS_OVERLOADED;
    target->syncs += !bit_get(target->marked, slot) && !bit_get(target->syncing, slot);
    bit_set(target->marked, slot, true);
    return STATUS_OK;
}

bool hints_sync_begin(struct hints *hints, uint64_t node, uint16_t slot)
{
    struct hint_target *target = hints_find(hints, node);
    if (target == NULL || !bit_get(target->marked, slot) || target->syncing == NULL)
        return false;
    bit_set(target->marked, slot, false);
    bit_set(target->syncing, slot, true);
    return true;
}

bool hints_sync_end(struct hints *hints, uint64_t node, uint16_t slot, bool verified)
{
    struct hint_target *target = hints_find(hints, node);
    if (target == NULL || !bit_get(target->syncing, slot))
        return false;
    bit_set(target->syncing, slot, false);
    if (!verified)
        bit_set(target->marked, slot, true);
    if (bit_get(target->marked, slot))
        return false;
    target->syncs--;
    return true;
}

uint16_t hints_sync_next(const struct hints *hints, uint64_t node, uint16_t from)
{
    const struct hint_target *target = hints_find(hints, node);
    if (target == NULL || target->marked == NULL)
        return SLOTS_COUNT;
    uint32_t slot = from;
    while (slot < SLOTS_COUNT &&
           (!bit_get(target->marked, (uint16_t)slot) || bit_get(target->syncing, (uint16_t)slot)))
        slot += slot % 8 == 0 && target->marked[slot / 8] == 0 ? 8 : 1;
    return (uint16_t)slot;
}
