/* Times in nanoseconds, counted so that percentiles are within a hundredth of the truth.
 *
 * base/histogram.h is what nodes keep for each kind of request, an eighth wide; a load generator can afford more.
 * Buckets are log-linear as there: below LATENCY_PART each number has its own, and every power of two above is cut
 * into LATENCY_PART equal parts. A percentile is answered with the middle of its bucket: off by at most 0.8 %. The
 * greatest and least are exact. */
#ifndef RONDO_CLI_LATENCY_H
#define RONDO_CLI_LATENCY_H

#include <stdbool.h>
#include <stdint.h>

#define LATENCY_PART_BITS 6u
#define LATENCY_PART (1u << LATENCY_PART_BITS)

/* Up to 2^40 ns, 18 minutes; the last bucket holds whatever is greater. */
#define LATENCY_VALUE_BITS 40u
#define LATENCY_BUCKETS ((LATENCY_VALUE_BITS - LATENCY_PART_BITS + 1u) * LATENCY_PART)

/* Zeroed, it is empty. */
struct latency {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t least_ns;
    uint64_t greatest_ns;
    uint64_t counts[LATENCY_BUCKETS];
};

void latency_add(struct latency *latency, uint64_t ns);

void latency_merge(struct latency *latency, const struct latency *other);

/* The time that part_per_million (1 to 1,000,000) of all are not above; 0 if there is none. */
uint64_t latency_quantile(const struct latency *latency, uint32_t part_per_million);

uint64_t latency_mean(const struct latency *latency);

#endif
