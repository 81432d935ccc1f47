/* A small deterministic random generator (xoshiro256**, Blackman and Vigna 2018), seeded by splitmix64. */
#ifndef RONDO_BASE_PRNG_H
#define RONDO_BASE_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct prng {
    uint64_t state[4];
};

void prng_seed(struct prng *prng, uint64_t seed);
uint64_t prng_u64(struct prng *prng);

/* Uniform in [0, bound); bound > 0. */
uint64_t prng_below(struct prng *prng, uint64_t bound);

/* True with probability numerator / denominator. */
bool prng_chance(struct prng *prng, uint64_t numerator, uint64_t denominator);

#endif
