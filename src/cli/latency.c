/* A log-linear histogram of nanoseconds (as Tene's HdrHistogram). */
#include "cli/latency.h"

#include <assert.h>

static uint32_t bucket_of(uint64_t ns)
{
    if (ns < LATENCY_PART)
        return (uint32_t)ns;
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(ns);
    if (exponent >= LATENCY_VALUE_BITS)
        return LATENCY_BUCKETS - 1u;
    uint32_t part = (uint32_t)(ns >> (exponent - LATENCY_PART_BITS)) & (LATENCY_PART - 1u);
    return (exponent - LATENCY_PART_BITS + 1u) * LATENCY_PART + part;
}

static uint64_t bucket_middle(uint32_t bucket)
{
    if (bucket < LATENCY_PART)
        return bucket;
    uint32_t shift = bucket / LATENCY_PART - 1u;
    uint64_t first = (uint64_t)(LATENCY_PART + bucket % LATENCY_PART) << shift;
    return first + (((UINT64_C(1) << shift) - 1u) / 2u);
}

void latency_add(struct latency *latency, uint64_t ns)
{
    if (latency->count == 0 || ns < latency->least_ns)
        latency->least_ns = ns;
    if (ns > latency->greatest_ns)
        latency->greatest_ns = ns;
    latency->count++;
    latency->sum_ns += ns;
    latency->counts[bucket_of(ns)]++;
}

void latency_merge(struct latency *latency, const struct latency *other)
{
    if (other->count == 0)
        return;
    if (latency->count == 0 || other->least_ns < latency->least_ns)
        latency->least_ns = other->least_ns;
    if (other->greatest_ns > latency->greatest_ns)
        latency->greatest_ns = other->greatest_ns;
    latency->count += other->count;
    latency->sum_ns += other->sum_ns;
    for (uint32_t i = 0; i < LATENCY_BUCKETS; i++)
        latency->counts[i] += other->counts[i];
}

uint64_t latency_quantile(const struct latency *latency, uint32_t part_per_million)
{
    assert(part_per_million > 0 && part_per_million <= 1000000u);
    uint64_t count = latency->count;
    if (count == 0)
        return 0;
    /* The rank, rounded up, without a product that could overflow. */
    uint64_t rank =
        count / 1000000u * part_per_million + (count % 1000000u * part_per_million + 999999u) / 1000000u;
    uint32_t bucket = 0;
    for (uint64_t seen = latency->counts[0]; seen < rank; seen += latency->counts[bucket])
        bucket++;
    uint64_t middle = bucket == LATENCY_BUCKETS - 1u ? latency->greatest_ns : bucket_middle(bucket);
    if (middle < latency->least_ns)
        return latency->least_ns;
    return middle > latency->greatest_ns ? latency->greatest_ns : middle;
}

uint64_t latency_mean(const struct latency *latency)
{
    return latency->count == 0 ? 0 : latency->sum_ns / latency->count;
}
