/* A histogram of times (or of any numbers) in a fixed number of buckets.
 *
 * Buckets are log-linear, as in Tene's HdrHistogram: every power of two is cut into HISTOGRAM_PART equal parts, so a
 * bucket is at most an eighth of its values wide, from 1 up to 2^27 (134 s in microseconds); below 8 each number has
 * its own, and what is greater than all counts in the last. Powers of two are edges of buckets, so the counts below
 * them are exact. Two histograms are merged by adding; nothing is allocated. */
#ifndef RONDO_BASE_HISTOGRAM_H
#define RONDO_BASE_HISTOGRAM_H

#include "base/span.h"

#define HISTOGRAM_PART_BITS 3u
#define HISTOGRAM_PART (1u << HISTOGRAM_PART_BITS)
#define HISTOGRAM_VALUE_BITS 27u
#define HISTOGRAM_BUCKETS ((HISTOGRAM_VALUE_BITS - HISTOGRAM_PART_BITS + 1u) * HISTOGRAM_PART)

/* Zeroed, it is empty. */
struct histogram {
    uint64_t sum; /* of all values */
    uint64_t counts[HISTOGRAM_BUCKETS];
};

/* The bucket of a value. */
static inline uint32_t histogram_bucket(uint64_t value)
{
    if (value < HISTOGRAM_PART)
        return (uint32_t)value;
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(value);
    if (exponent >= HISTOGRAM_VALUE_BITS)
        return HISTOGRAM_BUCKETS - 1u;
    uint32_t part = (uint32_t)(value >> (exponent - HISTOGRAM_PART_BITS)) & (HISTOGRAM_PART - 1u);
    return (exponent - HISTOGRAM_PART_BITS + 1u) * HISTOGRAM_PART + part;
}

static inline void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->counts[histogram_bucket(value)]++;
    histogram->sum += value;
}

void histogram_merge(struct histogram *histogram, const struct histogram *other);

uint64_t histogram_count(const struct histogram *histogram);

/* How many values are below 2^exponent; exponent < HISTOGRAM_VALUE_BITS. */
uint64_t histogram_count_below(const struct histogram *histogram, uint32_t exponent);

/* The greatest number that shares a bucket with the value at this rank: at least part_per_million of all values (1 to
 * 1,000,000) are at most that. 0 when it is empty; 2^27 - 1 also for whatever is greater. */
uint64_t histogram_quantile(const struct histogram *histogram, uint32_t part_per_million);

/* The sum, then number and count of each bucket that has any; at most HISTOGRAM_BYTES_MAX bytes. */
#define HISTOGRAM_BYTES_MAX (8u + 2u + HISTOGRAM_BUCKETS * 9u)
void histogram_put(struct buf *buf, const struct histogram *histogram);

/* What histogram_put wrote; anything else makes the reader fail. */
void histogram_read(struct reader *reader, struct histogram *histogram);

_Static_assert(HISTOGRAM_BUCKETS <= 256, "a bucket's number is serialised as one byte");

#endif
