/* Reserved cold keys. */
#include "model/reserved.h"

#include <assert.h>

static uint16_t u16_at(struct span key, size_t at)
{
    return (uint16_t)(key.data[at] << 8 | key.data[at + 1]);
}

static bool has_target(struct span key)
{
    for (size_t i = RESERVED_PREFIX_BYTES; i < RESERVED_SYNC_KEY_BYTES - 2; i++) {
        if (key.data[i] != 0)
            return true;
    }
    return false;
}

bool key_reserved(struct span cold_key)
{
    return cold_key.size >= RESERVED_PREFIX_BYTES && u16_at(cold_key, 0) >= RESERVED_FLOOR;
}

enum status reserved_key_slot(struct span key, uint16_t *slot)
{
    if (!key_reserved(key) || key.size > KEY_BYTES_MAX_HARD)
        return STATUS_MALFORMED;
    uint16_t prefix = u16_at(key, 0);
    if (prefix == RESERVED_FLOOR || prefix == RESERVED_TREE) {
        if (key.size != RESERVED_SLOT_KEY_BYTES)
            return STATUS_MALFORMED;
        *slot = u16_at(key, RESERVED_PREFIX_BYTES);
        return *slot < SLOTS_COUNT ? STATUS_OK : STATUS_MALFORMED;
    }
    if (key.size < RESERVED_SYNC_KEY_BYTES || !has_target(key))
        return STATUS_MALFORMED;
    *slot = u16_at(key, RESERVED_SYNC_KEY_BYTES - 2);
    struct span rest = span_of(key.data + RESERVED_HINT_HEAD_BYTES, key.size - RESERVED_HINT_HEAD_BYTES);
    bool fits = prefix == RESERVED_SYNC ? rest.size == 0 : key_slot(rest) == *slot;
    return fits && *slot < SLOTS_COUNT ? STATUS_OK : STATUS_MALFORMED;
}

void reserved_slot_key(uint16_t prefix, uint16_t slot, uint8_t key[RESERVED_SLOT_KEY_BYTES])
{
    assert((prefix == RESERVED_FLOOR || prefix == RESERVED_TREE) && slot < SLOTS_COUNT);
    key[0] = (uint8_t)(prefix >> 8);
    key[1] = (uint8_t)prefix;
    key[2] = (uint8_t)(slot >> 8);
    key[3] = (uint8_t)slot;
}
