/* crc16 by table; XXH3 from the xxHash library. */
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/* One table step handles four bits; 16 entries stay in one or two cache lines. */
static const uint16_t crc16_nibble[16] = {
    0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
    0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
};

uint16_t hash_crc16(struct span bytes)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < bytes.size; i++) {
        crc = (uint16_t)(crc << 4) ^ crc16_nibble[(crc >> 12) ^ (bytes.data[i] >> 4)];
        crc = (uint16_t)(crc << 4) ^ crc16_nibble[(crc >> 12) ^ (bytes.data[i] & 15)];
    }
    return crc;
}

uint64_t hash_64(struct span bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(bytes.data, bytes.size, seed);
}

struct hash_128 hash_128_of(struct span bytes, uint64_t seed)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(bytes.data, bytes.size, seed);
    return (struct hash_128){.low = hash.low64, .high = hash.high64};
}
