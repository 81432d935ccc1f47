/* The memtable: one shard's rows in memory, both its newest data and its cache of the cold tier.
 *
 * A hash table with chains. A row is one allocation: a 32-byte head, the key, the record. Growing moves a few
 * buckets per operation from the old table to the new one, so nothing ever stops for a rehash.
 *
 * Dirty rows (changed since they last went cold) have a place in a queue ordered by when they first became dirty.
 * A flush freezes the oldest part of that queue: a row there is frozen, and its key and record bytes are
 * immutable, so another thread reads them without locks. A write to a frozen row makes a new row, which takes the
 * old one's place in the table and a new place in the queue; the old one lives until the flush ends. So after a
 * flush a row is clean only if it did not change since its snapshot, by construction.
 *
 * Clean rows are evicted by a clock hand that skips (and clears) referenced rows. A row read from the cold tier
 * starts unreferenced and is referenced by its second use, so one scan cannot push out the working set.
 *
 * Belongs to one thread; only flush_sort and flush_row (store/flush.h) run elsewhere. */
#ifndef RONDO_STORE_MEMTABLE_H
#define RONDO_STORE_MEMTABLE_H

#include "base/alloc.h"
#include "base/span.h"

enum row_flags {
    ROW_DIRTY = 1,      /* holds changes that the cold tier lacks; has a place in the dirty queue */
    ROW_REFERENCED = 2, /* used since the clock hand last came by */
    ROW_IN_COLD = 4,    /* the cold tier holds some version of the key */
    ROW_LIVE = 8,       /* as the caller said: holds a value, not a tombstone; expiry is not looked at */
    ROW_RETIRED = 16,   /* replaced while frozen; only the flush still reads it */
};

/* Read through the accessors below. The key and record follow the head. */
struct row {
    struct row *next;  /* in its bucket; of a retired row: the next retired row */
    uint64_t sequence; /* the shard's log batch that last changed it */
    uint32_t hash;
    uint32_t dirty_index; /* place in the dirty queue; means nothing while not dirty */
    uint32_t record_size;
    uint16_t key_size;
    uint8_t flags;
    uint8_t bytes[]; /* starts inside the head's padding */
};

/* All views of a row are valid until the next call that is given the memtable, except memtable_find and
 * memtable_hash. */
static inline struct span row_key(const struct row *row)
{
    return span_of(row->bytes, row->key_size);
}

static inline struct span row_record(const struct row *row)
{
    return span_of(row->bytes + row->key_size, row->record_size);
}

static inline uint64_t row_sequence(const struct row *row)
{
    return row->sequence;
}

static inline bool row_dirty(const struct row *row)
{
    return (row->flags & ROW_DIRTY) != 0;
}

static inline bool row_in_cold(const struct row *row)
{
    return (row->flags & ROW_IN_COLD) != 0;
}

struct memtable_counters {
    uint64_t rows;
    uint64_t rows_dirty;       /* frozen ones included */
    uint64_t rows_not_in_cold; /* no version of them is in the cold tier */
    uint64_t rows_live;        /* ROW_LIVE */
    uint64_t rows_live_not_in_cold;
    uint64_t bytes; /* everything: rows, retired rows, tables, dirty queue, flush job; 8 per allocation */
    uint64_t bytes_dirty; /* of the dirty rows, frozen ones included */
    uint64_t bytes_retired;
    uint64_t evictions;
};

/* Places of the dirty queue that are allocated together. */
#define DIRTY_CHUNK_ROWS 1024u

struct dirty_chunk {
    uint64_t
        sequence_first; /* every change that only this or a later chunk holds has at least this sequence */
    uint64_t bytes;     /* of its rows, as they were when they became dirty */
    uint32_t count;     /* places used; some may be NULL */
    struct row *rows[DIRTY_CHUNK_ROWS];
};

/* A queue of chunks; place number p is in chunk (p - base) / DIRTY_CHUNK_ROWS. Places are counted modulo 2^32. */
struct dirty_queue {
    struct dirty_chunk **chunks;
    uint32_t chunk_count;
    uint32_t chunk_capacity;
    uint32_t base;          /* place number of chunks[0]'s first row */
    uint32_t frozen_chunks; /* the first so many belong to the flush job */
};

struct memtable_table {
    struct row **buckets;
    uint64_t bucket_count; /* a power of two, or 0 */
};

struct flush_job;

struct memtable {
    struct alloc *alloc;
    uint64_t seed;
    uint64_t budget_bytes;
    struct memtable_table table;     /* all new rows go here */
    struct memtable_table table_old; /* being emptied; bucket_count 0 when there is no rehash */
    uint64_t rehash_at;              /* buckets of table_old below this are empty */
    uint64_t clock_hand;
    struct dirty_queue dirty;
    struct flush_job *job; /* the one under way, or NULL */
    struct row *retired;
    struct memtable_counters counters;
};

struct memtable_options {
    struct alloc *alloc; /* must outlive the memtable */
    uint64_t seed;       /* of the hash: random, so that nobody can aim at one bucket */
    uint64_t budget_bytes;
};

/* OVERLOADED when the first table does not fit. */
MUST_CHECK enum status memtable_init(struct memtable *memtable, const struct memtable_options *options);

/* Frees everything; a flush job must have ended. */
void memtable_free(struct memtable *memtable);

static inline const struct memtable_counters *memtable_counters(const struct memtable *memtable)
{
    return &memtable->counters;
}

/* The hash that the calls below want. */
uint32_t memtable_hash(const struct memtable *memtable, struct span key);

/* The key's row, now referenced, or NULL when it is not resident. */
struct row *memtable_find(struct memtable *memtable, struct span key, uint32_t hash);

struct memtable_put {
    struct span key; /* up to KEY_BYTES_MAX_HARD */
    struct span record;
    uint32_t hash;
    uint64_t sequence; /* of the log batch that carries the change; never falls */
    bool live;         /* the record holds a value, not a tombstone */
    bool in_cold;      /* the cold tier holds a version of the key; once true stays true */
};

/* Writes the key's row and makes it dirty. On OVERLOADED (past the budget although some eviction was tried, or no
 * memory) nothing has changed; a later call may succeed, since each evicts a bounded slice. The caller's key and
 * record are copied and may be views of the row itself. */
MUST_CHECK enum status memtable_put(struct memtable *memtable, const struct memtable_put *put);

/* Adds a clean row that was read from the cold tier (sequence and in_cold of put are not looked at: the row counts
 * as sequence 0). A key that is resident is left as it is. OVERLOADED as above. */
MUST_CHECK enum status memtable_load(struct memtable *memtable, const struct memtable_put *put);

/* A bounded slice of upkeep (rehash, eviction down to a little below the budget); true when more is to be done.
 * Once per loop iteration. */
bool memtable_upkeep(struct memtable *memtable);

/* ---- flush ---------------------------------------------------------------------------------------------- */

/* The highest sequence such that every change up to it is in the cold tier; sequence_closed: the highest sequence
 * that will never be given to memtable_put again. */
uint64_t memtable_flushed_sequence(const struct memtable *memtable, uint64_t sequence_closed);

/* Freezes the oldest dirty rows, about bytes_max of them (at least one chunk; UINT64_MAX: all) into job, which the
 * caller provides and keeps in place until the job ends. NOT_FOUND: nothing is dirty; WAIT: a job is under way;
 * OVERLOADED: no memory for even the smallest job. Work per call is proportional to rows / DIRTY_CHUNK_ROWS. */
MUST_CHECK enum status memtable_freeze(struct memtable *memtable, struct flush_job *job, uint64_t bytes_max,
                                       uint64_t sequence_closed);

/* The job's rows are in the cold tier: makes them clean (at most rows_max per call), except those that changed.
 * Returns true when that is finished: the job is then over and its memory freed. Call again until it is. */
bool memtable_flush_done(struct memtable *memtable, struct flush_job *job, uint64_t rows_max);

/* The job did not happen: its rows are dirty as before, and the job is over. Not after memtable_flush_done. */
void memtable_flush_failed(struct memtable *memtable, struct flush_job *job);

/* ---- iteration ------------------------------------------------------------------------------------------ */

struct memtable_cursor {
    const struct row *row;
    uint64_t bucket; /* the next; those of table_old follow those of table */
};

/* Every row once, in no order, starting from a zeroed cursor; NULL at the end. Nothing but reads may happen to the
 * memtable in between (memtable_find is not a read here: it may move buckets). */
const struct row *memtable_scan(const struct memtable *memtable, struct memtable_cursor *cursor);

#endif
