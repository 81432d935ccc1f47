/* A flush job: frozen rows on their way to the cold tier as one sorted table.
 *
 * memtable_freeze fills it on the shard's thread. Then one other thread may call flush_sort and flush_row: they
 * read only the immutable part of the rows (sizes, key, record) and the job itself. memtable_flush_done or
 * memtable_flush_failed ends it on the shard's thread. */
#ifndef RONDO_STORE_FLUSH_H
#define RONDO_STORE_FLUSH_H

#include "model/key.h"
#include "store/memtable.h"

struct flush_entry {
    uint64_t order; /* the cold key's first eight bytes as one big-endian number */
    const struct row *row;
};

struct flush_job {
    uint64_t sequence; /* once this job is done, every change up to this sequence is in the cold tier */
    uint64_t rows;     /* at most so many entries */
    uint64_t entry_capacity;
    struct flush_entry *entries;
    uint64_t entry_count; /* set by flush_sort */
    struct dirty_chunk **chunks;
    uint32_t chunk_count;
    struct row **added; /* by memtable_job_add; owned */
    uint64_t added_count;
    uint64_t added_capacity;
    bool settling; /* memtable_flush_done has begun */
    bool failing;  /* memtable_flush_failed has begun */
};

/* One row of the sorted table; the cold key is prefix then key. Views into the frozen row. */
struct flush_row {
    uint8_t prefix[COLD_KEY_PREFIX_BYTES];
    uint8_t prefix_size; /* 0 for a reserved row: its key is the whole cold key */
    bool erased;         /* the cold key is to be deleted; the record is empty */
    struct span key;
    struct span record;
};

/* Puts the job's rows into the order of their cold keys. In place: allocates nothing. */
void flush_sort(struct flush_job *job);

/* How many rows there are, after flush_sort. */
static inline uint64_t flush_count(const struct flush_job *job)
{
    return job->entry_count;
}

/* The row at index (< flush_count), after flush_sort. */
struct flush_row flush_row(const struct flush_job *job, uint64_t index);

#endif
