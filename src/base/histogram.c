/* Log-linear histograms. */
#include "base/histogram.h"

#include <assert.h>

void histogram_merge(struct histogram *histogram, const struct histogram *other)
{
    histogram->sum += other->sum;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        histogram->counts[i] += other->counts[i];
}

static uint64_t count_before(const struct histogram *histogram, uint32_t bucket)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < bucket; i++)
        count += histogram->counts[i];
    return count;
}

uint64_t histogram_count(const struct histogram *histogram)
{
    return count_before(histogram, HISTOGRAM_BUCKETS);
}

uint64_t histogram_count_below(const struct histogram *histogram, uint32_t exponent)
{
    assert(exponent < HISTOGRAM_VALUE_BITS);
    return count_before(histogram, histogram_bucket(UINT64_C(1) << exponent));
}

/* The greatest value that a bucket is meant for. */
static uint64_t bucket_last(uint32_t bucket)
{
    if (bucket < HISTOGRAM_PART)
        return bucket;
    uint32_t shift = bucket / HISTOGRAM_PART - 1u;
    return ((uint64_t)(HISTOGRAM_PART + bucket % HISTOGRAM_PART + 1u) << shift) - 1u;
}

uint64_t histogram_quantile(const struct histogram *histogram, uint32_t part_per_million)
{
    assert(part_per_million > 0 && part_per_million <= 1000000u);
    uint64_t count = histogram_count(histogram);
    if (count == 0)
        return 0;
    /* The rank, rounded up, without a product that could overflow. */
    uint64_t rank =
        count / 1000000u * part_per_million + (count % 1000000u * part_per_million + 999999u) / 1000000u;
    uint32_t bucket = 0;
    for (uint64_t seen = histogram->counts[0]; seen < rank; seen += histogram->counts[bucket])
        bucket++;
    return bucket_last(bucket);
}

void histogram_put(struct buf *buf, const struct histogram *histogram)
{
    uint16_t used = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        used = (uint16_t)(used + (histogram->counts[i] != 0));
    buf_put_u64(buf, histogram->sum);
    buf_put_u16(buf, used);
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (histogram->counts[i] == 0)
            continue;
        buf_put_u8(buf, (uint8_t)i);
        buf_put_u64(buf, histogram->counts[i]);
    }
}

void histogram_read(struct reader *reader, struct histogram *histogram)
{
    *histogram = (struct histogram){.sum = reader_u64(reader)};
    uint32_t used = reader_u16(reader);
    uint32_t next = 0; /* buckets come in order, each once */
    for (uint32_t i = 0; i < used && !reader->failed; i++) {
        uint32_t bucket = reader_u8(reader);
        uint64_t count = reader_u64(reader);
        if (bucket < next || bucket >= HISTOGRAM_BUCKETS || count == 0) {
            reader->failed = true;
            return;
        }
        histogram->counts[bucket] = count;
        next = bucket + 1u;
    }
}
