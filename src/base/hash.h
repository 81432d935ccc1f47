/* Hashes: crc16 places keys on the ring, XXH3 does everything else (checksums, tables, ids). */
#ifndef RONDO_BASE_HASH_H
#define RONDO_BASE_HASH_H

#include "base/span.h"

/* CRC-16/XMODEM (polynomial 0x1021, start 0): Redis Cluster's key hash to the bit. */
uint16_t hash_crc16(struct span bytes);

/* XXH3, 64 bits, with a seed. */
uint64_t hash_64(struct span bytes, uint64_t seed);

struct hash_128 {
    uint64_t low;
    uint64_t high;
};

/* XXH3, 128 bits, with a seed. */
struct hash_128 hash_128_of(struct span bytes, uint64_t seed);

/* A bijective mixer (splitmix64's finaliser). */
static inline uint64_t hash_mix_u64(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

#endif
