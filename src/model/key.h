/* Keys: their place on the ring, among a node's shards and in the cold tier. */
#ifndef RONDO_MODEL_KEY_H
#define RONDO_MODEL_KEY_H

#include "base/limits.h"
#include "base/span.h"

/* The part of the key between the first '{' and the next '}' if that is not empty, else the whole key. */
struct span key_tag(struct span key);

/* crc16(tag) mod 16384: Redis Cluster's function to the bit. */
uint16_t key_slot(struct span key);

/* The shard that owns a slot on a node with this many shards (1 to SHARDS_MAX): a fixed mixing function, even
 * for any claim. */
uint16_t slot_shard(uint16_t slot, uint16_t shards);

/* The cold tier's key: slot (2 bytes, big endian) | 16 bits of XXH3(tag), big endian | key. A slot is one
 * contiguous range, and so is a tag within it. */
#define COLD_KEY_PREFIX_BYTES 4
void cold_key_prefix(struct span key, uint16_t slot, uint8_t prefix[COLD_KEY_PREFIX_BYTES]);

#endif
