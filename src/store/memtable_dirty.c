/* The memtable's dirty queue, and in it the chains of each slot's rows. */
#include "base/limits.h"
#include "store/memtable_internal.h"

bool memtable_queue_reserve(struct memtable *memtable)
{
    struct dirty_queue *queue = &memtable->dirty;
    if (!queue_needs_chunk(queue))
        return true;
    if (queue->chunk_count == queue->chunk_capacity) {
        uint32_t capacity = queue->chunk_capacity == 0 ? 16 : queue->chunk_capacity * 2;
        size_t size_old = queue->chunk_capacity * sizeof(struct dirty_chunk *);
        size_t size = capacity * sizeof(struct dirty_chunk *);
        struct dirty_chunk **chunks = alloc_resize(memtable->alloc, queue->chunks, size_old, size);
        if (chunks == NULL)
            return false;
        memtable->counters.bytes += block_bytes(size) - (size_old == 0 ? 0 : block_bytes(size_old));
        queue->chunks = chunks;
        queue->chunk_capacity = capacity;
    }
    struct dirty_chunk *chunk = block_get(memtable, sizeof *chunk, true);
    if (chunk == NULL)
        return false;
    queue->chunks[queue->chunk_count++] = chunk;
    return true;
}

void memtable_queue_append(struct memtable *memtable, struct row *row, uint16_t slot)
{
    struct dirty_queue *queue = &memtable->dirty;
    assert(!queue_needs_chunk(queue));
    assert(slot <= SLOTS_COUNT);
    struct dirty_chunk *chunk = queue->chunks[queue->chunk_count - 1];
    if (chunk->count == 0)
        chunk->sequence_first = memtable->sequence_newest;
    uint64_t place = queue->base + (uint64_t)(queue->chunk_count - 1) * DIRTY_CHUNK_ROWS + chunk->count;
    uint64_t last = queue->slot_last[slot];
    queue->slot_last[slot] = place;
    /* A place that left the queue is left out: in time its number would look like one of the queue again. */
    chunk->previous[chunk->count] = last < queue->base ? 0 : (uint32_t)(place - last);
    chunk->rows[chunk->count++] = row;
    chunk->rows_left++;
    chunk->bytes += memtable_row_bytes(memtable, row);
    row->dirty_index = (uint32_t)place;
}

void memtable_queue_leave(struct memtable *memtable, const struct row *row)
{
    assert(!row_frozen(memtable, row));
    struct dirty_chunk *chunk = queue_chunk(&memtable->dirty, row);
    assert(chunk->rows_left > 0);
    *queue_place(&memtable->dirty, row) = NULL;
    chunk->rows_left--;
    memtable_queue_trim(memtable);
}

void memtable_queue_drop_first(struct memtable *memtable)
{
    struct dirty_queue *queue = &memtable->dirty;
    block_put(memtable, queue->chunks[0], sizeof(struct dirty_chunk));
    queue->chunk_count--;
    queue->base += DIRTY_CHUNK_ROWS;
    memmove(queue->chunks, queue->chunks + 1, queue->chunk_count * sizeof queue->chunks[0]);
}

/* Without this, rows that come and go between two flushes would let the queue grow, and its first sequence stay. */
void memtable_queue_trim(struct memtable *memtable)
{
    struct dirty_queue *queue = &memtable->dirty;
    if (queue->frozen_chunks > 0)
        return;
    while (queue->chunk_count > 1 && queue->chunks[0]->rows_left == 0)
        memtable_queue_drop_first(memtable);
    if (queue->chunk_count != 1 || queue->chunks[0]->rows_left > 0)
        return;
    /* The last chunk stays for the rows to come; numbers of places are never used twice. */
    queue->base += queue->chunks[0]->count;
    queue->chunks[0]->count = 0;
    queue->chunks[0]->bytes = 0;
}

void memtable_queue_free(struct memtable *memtable)
{
    struct dirty_queue *queue = &memtable->dirty;
    while (queue->chunk_count > 0)
        memtable_queue_drop_first(memtable);
    block_put(memtable, queue->chunks, queue->chunk_capacity * sizeof queue->chunks[0]);
}

/* ---- the rows of a slot --------------------------------------------------------------------------------- */

const struct row *memtable_slot_dirty(const struct memtable *memtable, uint16_t slot,
                                      struct memtable_slot_cursor *cursor)
{
    const struct dirty_queue *queue = &memtable->dirty;
    assert(slot <= SLOTS_COUNT);
    uint64_t place = cursor->begun ? cursor->place : queue->slot_last[slot];
    const struct row *row = NULL;
    while (row == NULL && place >= queue->base) {
        const struct dirty_chunk *chunk = queue->chunks[(place - queue->base) / DIRTY_CHUNK_ROWS];
        uint64_t at = (place - queue->base) % DIRTY_CHUNK_ROWS;
        row = chunk->rows[at];
        if (row != NULL && (row->flags & ROW_RETIRED) != 0)
            row = NULL;
        place = chunk->previous[at] == 0 ? 0 : place - chunk->previous[at];
    }
    *cursor = (struct memtable_slot_cursor){.begun = true, .place = place};
    return row;
}
