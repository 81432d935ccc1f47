/* Keys: ring position, shard, cold key. */
#include "model/key.h"

#include <assert.h>

#include "base/hash.h"

struct span key_tag(struct span key)
{
    size_t open = 0;
    while (open < key.size && key.data[open] != '{')
        open++;
    size_t close = open + 1;
    while (close < key.size && key.data[close] != '}')
        close++;
    if (close >= key.size || close == open + 1)
        return key;
    return span_of(key.data + open + 1, close - open - 1);
}

uint16_t key_slot(struct span key)
{
    return hash_crc16(key_tag(key)) % SLOTS_COUNT;
}

uint16_t slot_shard(uint16_t slot, uint16_t shards)
{
    assert(slot < SLOTS_COUNT);
    assert(shards > 0 && shards <= SHARDS_MAX);
    /* Multiplying the mixed high bits down keeps the shares even for any number of shards. */
    uint32_t mixed = (uint32_t)(hash_mix_u64(slot) >> 32);
    return (uint16_t)((uint64_t)mixed * shards >> 32);
}

void cold_key_prefix(struct span key, uint16_t slot, uint8_t prefix[COLD_KEY_PREFIX_BYTES])
{
    uint64_t tag_hash = hash_64(key_tag(key), 0);
    prefix[0] = (uint8_t)(slot >> 8);
    prefix[1] = (uint8_t)slot;
    prefix[2] = (uint8_t)(tag_hash >> 8);
    prefix[3] = (uint8_t)tag_hash;
}
