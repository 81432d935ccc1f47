/* What the memtable's files share: its memory, its counters, finding a row, and the dirty queue. */
#ifndef RONDO_STORE_MEMTABLE_INTERNAL_H
#define RONDO_STORE_MEMTABLE_INTERNAL_H

#include <assert.h>

#include "store/memtable.h"

/* ---- memory --------------------------------------------------------------------------------------------- */

static inline uint64_t block_bytes(size_t size)
{
    return size + ALLOC_OVERHEAD_BYTES;
}

static inline void *block_get(struct memtable *memtable, size_t size, bool zeroed)
{
    void *block = zeroed ? alloc_get_zeroed(memtable->alloc, size) : alloc_get(memtable->alloc, size);
    if (block != NULL)
        memtable->counters.bytes += block_bytes(size);
    return block;
}

static inline void block_put(struct memtable *memtable, void *block, size_t size)
{
    if (block == NULL)
        return;
    assert(memtable->counters.bytes >= block_bytes(size));
    memtable->counters.bytes -= block_bytes(size);
    alloc_put(memtable->alloc, block, size);
}

static inline size_t row_size(size_t key_size, size_t record_size)
{
    size_t size = offsetof(struct row, bytes) + key_size + record_size;
    return size < sizeof(struct row) ? sizeof(struct row) : size;
}

/* ---- cells ---------------------------------------------------------------------------------------------- */

#define CELL_UNIT 8u

/* The row of a name that is not 0. */
static inline struct row *row_at(const struct memtable *memtable, row_ref ref)
{
    const struct cells *cells = &memtable->cells;
    uintptr_t base = cells->bases[ref >> cells->cell_shift];
    size_t at = (size_t)(ref & ((UINT32_C(1) << cells->cell_shift) - 1)) * CELL_UNIT;
    if ((base & 1) == 0)
        return (struct row *)(base + at);
    return *(struct row **)(base - 1 + at);
}

enum status memtable_cells_init(struct memtable *memtable);

/* Frees all pages, and the large rows. */
void memtable_cells_free(struct memtable *memtable);

/* Gives the empty page back that is kept; whether there was one. */
bool memtable_spare_drop(struct memtable *memtable);

/* What a row of this size, which is not 0, would add to the memtable's bytes now. */
uint64_t memtable_cell_cost(const struct memtable *memtable, size_t size);

/* A place for a row of this size: of its flags, size and key nothing is set. 0 without memory. */
row_ref memtable_cell_get(struct memtable *memtable, size_t size);

/* Frees the row, which is in no table. */
void memtable_cell_put(struct memtable *memtable, row_ref ref);

/* What it takes while it is there. */
uint64_t memtable_row_bytes(const struct memtable *memtable, const struct row *row);

/* Whether a row of `size` fits where one of `held` is. */
bool memtable_cell_same(const struct memtable *memtable, size_t held, size_t size);

/* The page that the number is of, for those who go through all: the number of its cells that may hold rows. */
uint32_t memtable_page_cells(const struct memtable *memtable, uint32_t page);
row_ref memtable_page_ref(const struct memtable *memtable, uint32_t page, uint32_t cell);

/* The row of a cell that was carved, or NULL where it is free. */
struct row *memtable_page_row(const struct memtable *memtable, uint32_t page, uint32_t cell);

/* Moves the rows of the page to others of the same size and frees it, if they have room and none of its rows must stay:
 * frozen or retired ones, and pinned (may be NULL). Returns how many were moved. */
uint32_t memtable_page_vacate(struct memtable *memtable, uint32_t page, const struct row *pinned);

/* ---- the table ------------------------------------------------------------------------------------------ */

/* A row of the put's key and record, without flags and in no table; 0 without memory. */
row_ref memtable_row_new(struct memtable *memtable, const struct memtable_put *put);

/* Adds a row that is in the table to the counters (or, with minus, takes it away). */
void memtable_count_row(struct memtable *memtable, const struct row *row, bool minus);

/* Where the name of the key's row stands, or NULL. */
row_ref *memtable_link_find(const struct memtable *memtable, struct span key, uint32_t hash);

/* Where the name of this row stands, which is in the table. */
row_ref *memtable_link_of(struct memtable *memtable, const struct row *row);

/* Takes the row out of the table, and out of the dirty queue unless it is frozen, and frees it. */
void memtable_row_remove(struct memtable *memtable, const struct row *row);

/* Whether there is a clean row. */
bool memtable_evictable(const struct memtable *memtable);

struct memtable_need {
    size_t row_size;          /* of a row to come, or 0 */
    uint64_t bytes;           /* and so many beside it */
    uint64_t limit;           /* of the memtable's bytes with both */
    bool cells_are_room;      /* free cells count as such, for a row if one of them is of its size */
    const struct row *pinned; /* stays where it is; may be NULL */
};

/* Evicts until what is needed fits or the slice is used up. */
bool memtable_make_room(struct memtable *memtable, const struct memtable_need *need);

/* What the flush under way holds beside the rows; it may be above the budget. */
uint64_t memtable_job_bytes(const struct memtable *memtable);

/* ---- the dirty queue ------------------------------------------------------------------------------------ */

static inline bool queue_needs_chunk(const struct dirty_queue *queue)
{
    return queue->chunk_count == queue->frozen_chunks ||
           queue->chunks[queue->chunk_count - 1]->count == DIRTY_CHUNK_ROWS;
}

/* A row keeps the lower half of its place's number, which is enough to tell the places of one queue apart. */
static inline uint32_t queue_offset(const struct dirty_queue *queue, const struct row *row)
{
    return row->dirty_index - (uint32_t)queue->base;
}

static inline struct dirty_chunk *queue_chunk(const struct dirty_queue *queue, const struct row *row)
{
    uint32_t chunk = queue_offset(queue, row) / DIRTY_CHUNK_ROWS;
    assert(chunk < queue->chunk_count);
    return queue->chunks[chunk];
}

static inline struct row **queue_place(const struct dirty_queue *queue, const struct row *row)
{
    return &queue_chunk(queue, row)->rows[queue_offset(queue, row) % DIRTY_CHUNK_ROWS];
}

static inline bool row_frozen(const struct memtable *memtable, const struct row *row)
{
    const struct dirty_queue *queue = &memtable->dirty;
    return row_dirty(row) && queue_offset(queue, row) / DIRTY_CHUNK_ROWS < queue->frozen_chunks;
}

/* Makes sure that the next place exists. */
bool memtable_queue_reserve(struct memtable *memtable);

/* The next place, which exists, is the row's; slot as in struct memtable_put. */
void memtable_queue_append(struct memtable *memtable, struct row *row, uint16_t slot);

/* The row's place, which is not frozen, is nobody's from now on. */
void memtable_queue_leave(struct memtable *memtable, const struct row *row);

/* Drops what is empty at the front of the queue, if that is not frozen. */
void memtable_queue_trim(struct memtable *memtable);

void memtable_queue_drop_first(struct memtable *memtable);
void memtable_queue_free(struct memtable *memtable);

#endif
