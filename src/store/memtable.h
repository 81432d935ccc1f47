/* The memtable: one shard's rows in memory, both its newest data and its cache of the cold tier.
 *
 * A hash table with chains. A row is an 18-byte head, the key, the record. Growing moves a few buckets per operation
 * from the old table to the new one, so nothing ever stops for a rehash.
 *
 * Rows live in cells of pages: all cells of a page have one size, which is at most an eighth more than what is in it,
 * so that nothing is lost between rows. A row is named by 32 bits (row_ref), in which buckets and chains are half as
 * large as with pointers. A row too large for a cell is a block of its own, and its cell is the pointer to it. Pages go
 * back when they are empty; where rows of another size need the memory, the rows of a page move together with those of
 * others of their size, so in no size is much more than a page free.
 *
 * Dirty rows (changed since they last went cold) have a place in a queue ordered by when they first became dirty.
 * A flush freezes the oldest part of that queue: a row there is frozen, and its key and record bytes are
 * immutable, so another thread reads them without locks. A write to a frozen row makes a new row, which takes the
 * old one's place in the table and a new place in the queue; the old one lives until the flush ends. So after a
 * flush a row is clean only if it did not change since its snapshot, by construction.
 *
 * The dirty rows of one slot are chained through the queue, newest first, so that a slot's unflushed part can be
 * read without a scan of the table.
 *
 * A row may be erased: its record is empty, and a flush deletes the key from the cold tier; then the row leaves the
 * table. An erased row that the cold tier has no version of, now or once the flush under way is over, is gone at
 * once.
 *
 * Reserved rows (model/reserved.h) live in the same table. Their hashes have the upper bit set and those of users'
 * keys have it clear, so the two never meet although their bytes could.
 *
 * Clean rows are evicted by a clock hand that goes from page to page and takes a reference from each row that has one.
 * A row read from the cold tier starts without, gets one with its second use and another with its third; so a scan that
 * passes each row once must go round memory three times before it pushes out the working set, where evicting what was
 * not used for longest would leave nothing of it after one round. A slot of which a row was evicted is noted: whoever
 * knows that the cold tier had nothing of another slot at first, knows that what is not in the table is nowhere.
 *
 * Belongs to one thread; only flush_sort and flush_row (store/flush.h) run elsewhere. */
#ifndef RONDO_STORE_MEMTABLE_H
#define RONDO_STORE_MEMTABLE_H

#include "base/alloc.h"
#include "base/limits.h"
#include "base/span.h"

enum row_flags {
    ROW_DIRTY = 1,      /* holds changes that the cold tier lacks; has a place in the dirty queue */
    ROW_REFERENCED = 2, /* used since the clock hand last came by */
    ROW_AGAIN = 64,     /* and once more, or before it came by: it must come twice */
    ROW_IN_COLD = 4,    /* the cold tier holds some version of the key */
    ROW_LIVE = 8,       /* as the caller said: holds a value, not a tombstone; expiry is not looked at */
    ROW_RETIRED = 16,   /* replaced while frozen; only the flush still reads it */
    ROW_BEHIND = 32,    /* replaced a frozen row: the flush under way carries an older version of the key */
};

/* Names a row: a page and a cell in it; 0 = none. */
typedef uint32_t row_ref;

/* Read through the accessors below. The key and record follow the head. */
struct row {
    row_ref next;         /* in its bucket; of a retired row: itself */
    uint32_t dirty_index; /* place in the dirty queue; means nothing while not dirty */
    uint32_t record_size;
    uint16_t key_size;
    uint8_t flags; /* 0 = a free cell */
    uint8_t tag;   /* the upper bits of the hash */
    uint16_t
        sequence; /* of the shard's log batch that last changed it, the lower bits; memtable_row_sequence */
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

static inline bool row_dirty(const struct row *row)
{
    return (row->flags & ROW_DIRTY) != 0;
}

static inline bool row_in_cold(const struct row *row)
{
    return (row->flags & ROW_IN_COLD) != 0;
}

/* Its record is empty, and the key is to be deleted from the cold tier. */
static inline bool row_erased(const struct row *row)
{
    return row->record_size == 0;
}

#define ROW_HASH_RESERVED (UINT32_C(1) << 31)
#define ROW_TAG_SHIFT 24

/* Its key is a whole cold key, no user's. Never changes, as all that a flush reads. */
static inline bool row_reserved(const struct row *row)
{
    return (row->tag & ROW_HASH_RESERVED >> ROW_TAG_SHIFT) != 0;
}

struct memtable_counters {
    uint64_t rows;             /* erased and reserved ones included */
    uint64_t rows_reserved;    /* erased ones included */
    uint64_t rows_dirty;       /* frozen ones included */
    uint64_t rows_not_in_cold; /* no version of them is in the cold tier */
    uint64_t rows_live;        /* ROW_LIVE */
    uint64_t rows_live_not_in_cold;
    uint64_t bytes; /* everything: pages, large rows, tables, dirty queue, flush job; 8 per allocation */
    uint64_t bytes_dirty; /* of the dirty rows, frozen ones included */
    uint64_t bytes_retired;
    uint64_t evictions;
    uint64_t cold_added;   /* live rows whose first version a flush took to the cold tier; never falls */
    uint64_t cold_deleted; /* users' keys that a flush deleted from there; never falls */
};

/* Places of the dirty queue that are allocated together. */
#define DIRTY_CHUNK_ROWS 1024u

struct dirty_chunk {
    uint64_t
        sequence_first; /* every change that only this or a later chunk holds has at least this sequence */
    uint64_t bytes;     /* of its rows, as they were when they became dirty */
    uint32_t count;     /* places used; some may be NULL */
    uint32_t rows_left; /* places that are not NULL; not kept once the chunk is frozen */
    struct row *rows[DIRTY_CHUNK_ROWS];
    uint32_t previous[DIRTY_CHUNK_ROWS]; /* so many places back is the slot's one before; 0 = there is none */
};

/* A queue of chunks; place number p is in chunk (p - base) / DIRTY_CHUNK_ROWS. No number is used twice. */
struct dirty_queue {
    struct dirty_chunk **chunks;
    uint32_t chunk_count;
    uint32_t chunk_capacity;
    uint32_t frozen_chunks; /* the first so many belong to the flush job */
    uint64_t base;          /* place number of chunks[0]'s first row; > 0 */
    uint64_t
        slot_last[SLOTS_COUNT + 1]; /* each slot's newest place; below base = none; last: reserved rows */
};

/* Sizes of cells: multiples of 8 to 128, then sixteen to each doubling; the first is for pointers to large rows. */
#define CELL_CLASSES 113u

struct cell_page {
    uint8_t class;
    uint16_t carved;     /* cells that were ever used */
    uint16_t used;       /* cells with a row */
    uint16_t free_first; /* a free cell's number + 1, the head of a list; 0 = only what is not carved */
    uint32_t next;       /* in the list of its class's pages with a free cell */
    uint32_t previous;
};

struct cell_class {
    uint32_t partial;    /* the first page with a free cell; 0 = none */
    uint64_t free_cells; /* of all of its pages */
};

struct cells {
    uintptr_t *bases;        /* of each page; 0 = no such page; odd: its cells are pointers */
    struct cell_page *pages; /* page 0 is none */
    uint32_t page_count;     /* highest number of a page + 1 */
    uint32_t page_capacity;
    uint32_t numbers_free; /* pages without memory: the head of a list */
    uintptr_t spare;       /* memory of an empty page, or 0 */
    uint8_t page_shift;    /* of the size of a page */
    uint8_t cell_shift;    /* of the number of 8 bytes in a page */
    struct cell_class classes[CELL_CLASSES];
    uint64_t bytes_free; /* of free cells */
};

struct memtable_table {
    row_ref *buckets;
    uint64_t bucket_count; /* a power of two, or 0 */
};

struct flush_job;

struct memtable {
    struct alloc *alloc;
    uint64_t seed;
    uint64_t budget_bytes;
    uint64_t target_bytes;
    struct memtable_table table;     /* all new rows go here */
    struct memtable_table table_old; /* being emptied; bucket_count 0 when there is no rehash */
    uint64_t rehash_at;              /* buckets of table_old below this are empty */
    struct cells cells;
    uint32_t hand;            /* the clock hand: counts the pages that it has passed */
    uint32_t hand_cell;       /* the next cell of the page whose turn it is */
    uint32_t hand_idle;       /* pages in a row, up to that one, with which nothing could be done */
    bool hand_useful;         /* something was done with a cell of that page */
    uint64_t sequence_newest; /* the highest that was put */
    struct dirty_queue dirty;
    struct flush_job *job; /* the one under way, or NULL */
    uint8_t slots_evicted[SLOTS_COUNT / 8];
    struct memtable_counters counters;
};

struct memtable_options {
    struct alloc *alloc; /* must outlive the memtable */
    uint64_t seed;       /* of the hash: random, so that nobody can aim at one bucket */
    /* Exceeded only by flush jobs, which need memory to make room, and by the dirty queue while there is one; `alloc`
     * bounds that. */
    uint64_t budget_bytes;
};

/* OVERLOADED when the first table does not fit. */
MUST_CHECK enum status memtable_init(struct memtable *memtable, const struct memtable_options *options);

/* Frees everything; a flush job must have ended. */
void memtable_free(struct memtable *memtable);

/* What it should take at most from now on; the budget before the first call, and never more. If that is less than it
 * takes, upkeep and each put evict their slices. */
void memtable_set_target(struct memtable *memtable, uint64_t bytes);

static inline uint64_t memtable_target(const struct memtable *memtable)
{
    return memtable->target_bytes;
}

static inline const struct memtable_counters *memtable_counters(const struct memtable *memtable)
{
    return &memtable->counters;
}

/* The hashes that the calls below want: of a user's key, and of a reserved row's. */
uint32_t memtable_hash(const struct memtable *memtable, struct span key);
uint32_t memtable_hash_reserved(const struct memtable *memtable, struct span key);

/* The key with this hash is looked up soon: its bucket comes into the processor's cache meanwhile. */
void memtable_prefetch(const struct memtable *memtable, uint32_t hash);

/* The same of the row, once its bucket is there: a moment after memtable_prefetch. */
void memtable_prefetch_row(const struct memtable *memtable, uint32_t hash);

/* A batch that holds the row's last change, or a later one that was already put then: lower bits are kept of it. 0 of a
 * clean row: the cold tier has it. */
uint64_t memtable_row_sequence(const struct memtable *memtable, const struct row *row);

/* The key's row (it may be an erased one), now referenced, or NULL when it is not resident. */
struct row *memtable_find(struct memtable *memtable, struct span key, uint32_t hash);

/* The same for those who only look, or will use it only later: it is as it was. */
const struct row *memtable_peek(const struct memtable *memtable, struct span key, uint32_t hash);

/* What a row of a key and a record of these sizes takes, outside the table. */
uint64_t memtable_bytes_of(const struct memtable *memtable, size_t key_size, size_t record_size);

/* Whether a user's row of the slot was ever evicted. */
static inline bool memtable_slot_evicted(const struct memtable *memtable, uint16_t slot)
{
    return (memtable->slots_evicted[slot / 8] >> (slot % 8) & 1) != 0;
}

struct memtable_put {
    struct span key;    /* up to KEY_BYTES_MAX_HARD */
    struct span record; /* empty: the key is erased */
    uint32_t hash;
    uint16_t slot;     /* of the key; SLOTS_COUNT of a reserved row */
    uint64_t sequence; /* of the log batch that carries the change; never falls */
    bool live;    /* the record holds a value, not a tombstone; false for reserved rows and erased ones */
    bool in_cold; /* the cold tier may hold a version of the key; once true it stays until a deletion */
};

/* Writes the key's row and makes it dirty; a row that is erased before any version of it went, or is going, to the
 * cold tier leaves the table instead. On OVERLOADED (too much is dirty, or past the budget although some eviction was
 * tried, or no memory) nothing has changed; a later call may succeed, since each evicts a bounded slice. The caller's
 * key and record are copied and may be views of the row itself. */
MUST_CHECK enum status memtable_put(struct memtable *memtable, const struct memtable_put *put);

/* Adds a clean row that was read from the cold tier (sequence, slot and in_cold of put are not looked at: the row
 * counts as sequence 0; the record is not empty). A key that is resident is left as it is. OVERLOADED as above. */
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

/* The bytes_max with which memtable_freeze would take half of the job's chunks, once it was failed; 0: there is no
 * smaller job than this. */
uint64_t memtable_job_half(const struct flush_job *job);

/* Between memtable_freeze and the moment when the job is given out: the job also writes this reserved row (an empty
 * record: deletes it), which is copied and never in the table. The key must be neither in the table nor added twice.
 * OVERLOADED: no memory; the job can only be failed then, so that a smaller one may be tried. */
MUST_CHECK enum status memtable_job_add(struct memtable *memtable, struct flush_job *job,
                                        struct span reserved_key, struct span record);

/* The job's rows are in the cold tier: makes them clean, except those that changed. A call looks at about rows_max of
 * them, and DIRTY_CHUNK_ROWS at least. True when that is finished: the job is then over and its memory freed. Call
 * again until it is. */
bool memtable_flush_done(struct memtable *memtable, struct flush_job *job, uint64_t rows_max);

/* The job did not happen: its rows are dirty as before, once it is over. Slices as above. Not after
 * memtable_flush_done. */
bool memtable_flush_failed(struct memtable *memtable, struct flush_job *job, uint64_t rows_max);

/* ---- the dirty rows of a slot --------------------------------------------------------------------------- */

struct memtable_slot_cursor {
    uint64_t place; /* the next */
    bool begun;
};

/* Every dirty row of the slot (SLOTS_COUNT: the reserved ones) once, frozen and erased ones included, starting from a
 * zeroed cursor; NULL at the end. The cursor stays good whatever happens to the memtable in between, but rows that
 * change meanwhile may then be missed or seen twice. Takes time for each row that was made dirty in the slot and is
 * still in the queue, also for those that left the table since. */
const struct row *memtable_slot_dirty(const struct memtable *memtable, uint16_t slot,
                                      struct memtable_slot_cursor *cursor);

/* ---- iteration ------------------------------------------------------------------------------------------ */

struct memtable_cursor {
    row_ref row;
    uint64_t bucket; /* the next; those of table_old follow those of table */
};

/* Every row once, in no order, starting from a zeroed cursor; NULL at the end. Nothing but reads may happen to the
 * memtable in between (memtable_find is not a read here: it may move buckets). */
const struct row *memtable_scan(const struct memtable *memtable, struct memtable_cursor *cursor);

#endif
