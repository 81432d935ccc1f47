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

static inline uint64_t row_bytes(const struct row *row)
{
    return block_bytes(row_size(row->key_size, row->record_size));
}

static inline void row_free(struct memtable *memtable, struct row *row)
{
    block_put(memtable, row, row_size(row->key_size, row->record_size));
}

/* A row of the put's key and record, without flags and in no table; NULL without memory. */
struct row *memtable_row_new(struct memtable *memtable, const struct memtable_put *put);

/* ---- the table ------------------------------------------------------------------------------------------ */

/* Adds a row that is in the table to the counters (or, with minus, takes it away). */
void memtable_count_row(struct memtable *memtable, const struct row *row, bool minus);

/* The pointer that points to the key's row, or NULL. */
struct row **memtable_link_find(struct memtable *memtable, struct span key, uint32_t hash);

/* The pointer to this row, which is in the table. */
struct row **memtable_link_of(struct memtable *memtable, const struct row *row);

/* Takes the row out of the table, and out of the dirty queue unless it is frozen, and frees it. */
void memtable_row_remove(struct memtable *memtable, struct row *row);

/* Whether there is a clean row. */
bool memtable_evictable(const struct memtable *memtable);

/* Evicts until `bytes` more fit below limit or the slice is used up; pinned (may be NULL) stays. */
bool memtable_make_room(struct memtable *memtable, uint64_t bytes, uint64_t limit, const struct row *pinned);

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
