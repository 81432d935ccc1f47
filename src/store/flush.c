/* Sorting a flush job. Rows fall into buckets by slot, in place; each bucket, a thousandth of the rows, is then
 * heap-sorted inside the cache. Reserved rows, past every slot, share the last bucket. No allocation, no recursion,
 * n log n whatever the keys. */
#include "store/flush.h"

#include <assert.h>

#include "model/reserved.h"

#define BUCKET_BITS 10u
#define BUCKET_COUNT (1u << BUCKET_BITS)
#define ORDER_BYTES 8u

_Static_assert(SLOTS_COUNT == 1u << 14, "bucket_of takes the upper bits of a 14-bit slot");
_Static_assert((RESERVED_FLOOR >> 4 & (BUCKET_COUNT - 1)) == BUCKET_COUNT - 1,
               "reserved rows: the last bucket");

static uint32_t bucket_of(const struct flush_entry *entry)
{
    /* The slot stands in the 16 upper bits, of which it uses 14. */
    return (uint32_t)(entry->order >> (64 - 2 - BUCKET_BITS)) & (BUCKET_COUNT - 1);
}

static int entry_compare(const struct flush_entry *a, const struct flush_entry *b)
{
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return span_compare(row_key(a->row), row_key(b->row));
}

static void entry_swap(struct flush_entry *a, struct flush_entry *b)
{
    struct flush_entry held = *a;
    *a = *b;
    *b = held;
}

static uint64_t order_of(const struct row *row)
{
    uint8_t bytes[ORDER_BYTES] = {0};
    struct span key = row_key(row);
    size_t at = 0;
    if (!row_reserved(row)) {
        cold_key_prefix(key, key_slot(key), bytes);
        at = COLD_KEY_PREFIX_BYTES;
    }
    size_t size = key.size < ORDER_BYTES - at ? key.size : ORDER_BYTES - at;
    if (size > 0)
        memcpy(bytes + at, key.data, size);
    uint64_t order = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        order = order << 8 | bytes[i];
    return order;
}

static void heap_sift(struct flush_entry *entries, uint64_t at, uint64_t count)
{
    for (;;) {
        uint64_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && entry_compare(&entries[child], &entries[child + 1]) < 0)
            child++;
        if (entry_compare(&entries[at], &entries[child]) >= 0)
            return;
        entry_swap(&entries[at], &entries[child]);
        at = child;
    }
}

static void heap_sort(struct flush_entry *entries, uint64_t count)
{
    for (uint64_t i = count / 2; i > 0; i--)
        heap_sift(entries, i - 1, count);
    for (uint64_t end = count; end > 1; end--) {
        entry_swap(&entries[0], &entries[end - 1]);
        heap_sift(entries, 0, end - 1);
    }
}

/* Permutes the entries into their buckets; ends[b] becomes the end of bucket b. */
static void bucket_sort(struct flush_entry *entries, uint64_t count, uint64_t ends[BUCKET_COUNT])
{
    uint64_t next[BUCKET_COUNT];
    memset(ends, 0, BUCKET_COUNT * sizeof ends[0]);
    for (uint64_t i = 0; i < count; i++)
        ends[bucket_of(&entries[i])]++;
    uint64_t start = 0;
    for (uint32_t b = 0; b < BUCKET_COUNT; b++) {
        next[b] = start;
        start += ends[b];
        ends[b] = start;
    }
    for (uint32_t b = 0; b < BUCKET_COUNT; b++) {
        while (next[b] < ends[b]) {
            uint32_t home = bucket_of(&entries[next[b]]);
            if (home == b)
                next[b]++;
            else
                entry_swap(&entries[next[b]], &entries[next[home]++]);
        }
    }
}

static void entry_add(struct flush_job *job, const struct row *row)
{
    assert(job->entry_count < job->rows);
    job->entries[job->entry_count++] = (struct flush_entry){.order = order_of(row), .row = row};
}

void flush_sort(struct flush_job *job)
{
    job->entry_count = 0;
    for (uint32_t c = 0; c < job->chunk_count; c++) {
        const struct dirty_chunk *chunk = job->chunks[c];
        for (uint32_t i = 0; i < chunk->count; i++) {
            if (chunk->rows[i] != NULL)
                entry_add(job, chunk->rows[i]);
        }
    }
    for (uint64_t i = 0; i < job->added_count; i++)
        entry_add(job, job->added[i]);
    uint64_t ends[BUCKET_COUNT];
    bucket_sort(job->entries, job->entry_count, ends);
    uint64_t start = 0;
    for (uint32_t b = 0; b < BUCKET_COUNT; b++) {
        heap_sort(job->entries + start, ends[b] - start);
        start = ends[b];
    }
}

struct flush_row flush_row(const struct flush_job *job, uint64_t index)
{
    assert(index < job->entry_count);
    const struct flush_entry *entry = &job->entries[index];
    struct flush_row row = {
        .prefix_size = row_reserved(entry->row) ? 0 : COLD_KEY_PREFIX_BYTES,
        .erased = row_erased(entry->row),
        .key = row_key(entry->row),
        .record = row_record(entry->row),
    };
    for (size_t i = 0; i < row.prefix_size; i++)
        row.prefix[i] = (uint8_t)(entry->order >> (56 - 8 * i));
    return row;
}
