/* The shard's side of flushing. */
#include "base/limits.h"
#include "store/flush.h"
#include "store/memtable_internal.h"

/* Added rows come one by one: there is room for so many more each time, and for as many again as there are. */
#define JOB_ADDED_STEP 64u

/* So much is evicted at a time where the job finds no memory. */
#define JOB_ROOM_BYTES (UINT64_C(64) << 10)
#define JOB_ROOM_TRIES 64u

/* Everything up to this sequence is only in the first `chunks` of the queue, or in the cold tier. */
static uint64_t sequence_before(const struct dirty_queue *queue, uint32_t chunks, uint64_t sequence_closed)
{
    if (chunks == queue->chunk_count || queue->chunks[chunks]->count == 0)
        return sequence_closed;
    uint64_t first = queue->chunks[chunks]->sequence_first;
    return first <= sequence_closed && first > 0 ? first - 1 : sequence_closed;
}

uint64_t memtable_flushed_sequence(const struct memtable *memtable, uint64_t sequence_closed)
{
    return sequence_before(&memtable->dirty, 0, sequence_closed);
}

static void job_free(struct memtable *memtable, struct flush_job *job)
{
    assert(job->added_count == 0);
    block_put(memtable, job->added, job->added_capacity * sizeof(struct row *));
    block_put(memtable, job->entries, job->entry_capacity * sizeof *job->entries);
    block_put(memtable, job->chunks, job->chunk_count * sizeof(struct dirty_chunk *));
    /* The sequence stays: the caller tells it to the log. */
    *job = (struct flush_job){.sequence = job->sequence};
}

uint64_t memtable_job_bytes(const struct memtable *memtable)
{
    const struct flush_job *job = memtable->job;
    if (job == NULL)
        return 0;
    return job->entry_capacity * sizeof *job->entries + job->added_capacity * sizeof *job->added +
           job->chunk_count * sizeof *job->chunks;
}

/* The job's memory is outside the budget: a flush is what makes room. */
static bool job_allocate(struct memtable *memtable, struct flush_job *job, uint32_t chunk_count)
{
    *job = (struct flush_job){.chunk_count = chunk_count};
    for (uint32_t i = 0; i < chunk_count; i++)
        job->rows += memtable->dirty.chunks[i]->count;
    job->entry_capacity = job->rows;
    job->entries = block_get(memtable, job->entry_capacity * sizeof *job->entries, false);
    job->chunks = block_get(memtable, chunk_count * sizeof(struct dirty_chunk *), false);
    if (job->entries != NULL && job->chunks != NULL)
        return true;
    job_free(memtable, job);
    return false;
}

/* A flush makes room: clean rows give way to it. tries counts those in a row that brought nothing; false: enough. */
static bool job_make_room(struct memtable *memtable, uint32_t *tries)
{
    struct memtable_need need = {.bytes = JOB_ROOM_BYTES, .limit = memtable->counters.bytes};
    *tries = memtable_make_room(memtable, &need) ? 0 : *tries + 1;
    return memtable_evictable(memtable) && *tries < JOB_ROOM_TRIES;
}

enum status memtable_freeze(struct memtable *memtable, struct flush_job *job, uint64_t bytes_max,
                            uint64_t sequence_closed)
{
    struct dirty_queue *queue = &memtable->dirty;
    if (memtable->job != NULL)
        return STATUS_WAIT;
    if (queue->chunk_count == 0 || queue->chunks[0]->count == 0)
        return STATUS_NOT_FOUND;
    uint32_t take = 0;
    uint32_t tries = 0;
    uint64_t bytes = 0;
    while (take < queue->chunk_count && queue->chunks[take]->count > 0 && (take == 0 || bytes < bytes_max))
        bytes += queue->chunks[take++]->bytes;
    while (!job_allocate(memtable, job, take)) {
        if (take > 1)
            take /= 2;
        else if (!job_make_room(memtable, &tries))
            return STATUS_OVERLOADED;
    }
    memcpy(job->chunks, queue->chunks, take * sizeof(struct dirty_chunk *));
    job->sequence = sequence_before(queue, take, sequence_closed);
    queue->frozen_chunks = take;
    memtable->job = job;
    return STATUS_OK;
}

uint64_t memtable_job_half(const struct flush_job *job)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < job->chunk_count / 2; i++)
        bytes += job->chunks[i]->bytes;
    return bytes;
}

/* Entries hold nothing before flush_sort: the old ones, which are most of what a job takes, go first. */
static bool entries_allocate(struct memtable *memtable, struct flush_job *job, uint64_t capacity)
{
    block_put(memtable, job->entries, job->entry_capacity * sizeof *job->entries);
    job->entries = block_get(memtable, capacity * sizeof *job->entries, false);
    job->entry_capacity = job->entries != NULL ? capacity : 0;
    return job->entries != NULL;
}

static bool added_grow(struct memtable *memtable, struct flush_job *job)
{
    uint64_t capacity = 2 * job->added_capacity + JOB_ADDED_STEP;
    struct row **added = block_get(memtable, capacity * sizeof *added, false);
    if (added == NULL)
        return false;
    if (job->added_count > 0)
        memcpy(added, job->added, job->added_count * sizeof *added);
    block_put(memtable, job->added, job->added_capacity * sizeof *added);
    job->added = added;
    job->added_capacity = capacity;
    return true;
}

/* Room for one more entry and one more added row. */
static bool job_grow(struct memtable *memtable, struct flush_job *job)
{
    uint64_t entries_before = job->entry_capacity;
    if (job->rows >= job->entry_capacity &&
        !entries_allocate(memtable, job, job->rows + job->added_count + JOB_ADDED_STEP)) {
        if (entries_before > 0)
            (void)entries_allocate(memtable, job, entries_before);
        return false;
    }
    return job->added_count < job->added_capacity || added_grow(memtable, job);
}

enum status memtable_job_add(struct memtable *memtable, struct flush_job *job, struct span reserved_key,
                             struct span record)
{
    struct memtable_put put = {
        .key = reserved_key, .record = record, .hash = memtable_hash_reserved(memtable, reserved_key)};
    assert(memtable->job == job && !job->settling && !job->failing && job->entry_count == 0);
    assert(reserved_key.size <= KEY_BYTES_MAX_HARD && record.size < UINT32_MAX);
    assert(memtable_link_find(memtable, put.key, put.hash) == NULL);
    row_ref ref = 0;
    uint32_t tries = 0;
    while (!job_grow(memtable, job) || (ref = memtable_row_new(memtable, &put)) == 0) {
        if (!job_make_room(memtable, &tries))
            return STATUS_OVERLOADED;
    }
    struct row *row = row_at(memtable, ref);
    row->flags = ROW_RETIRED;
    row->next = ref;
    job->added[job->added_count++] = row;
    job->rows++;
    return STATUS_OK;
}

static bool row_first_in_cold(const struct row *row)
{
    return (row->flags & (ROW_LIVE | ROW_IN_COLD)) == ROW_LIVE;
}

/* The row in the table that replaced a frozen one. */
static struct row *replacement_of(struct memtable *memtable, const struct row *retired)
{
    uint32_t hash = row_reserved(retired) ? memtable_hash_reserved(memtable, row_key(retired))
                                          : memtable_hash(memtable, row_key(retired));
    const row_ref *link = memtable_link_find(memtable, row_key(retired), hash);
    assert(link != NULL);
    struct row *row = row_at(memtable, *link);
    assert(row_dirty(row));
    return row;
}

/* The key's row in the table replaced a frozen one that is in the cold tier now: as a version, or, erased, as none. */
static void settle_replacement(struct memtable *memtable, const struct row *retired)
{
    struct row *row = replacement_of(memtable, retired);
    assert((row->flags & ROW_BEHIND) != 0);
    memtable_count_row(memtable, row, true);
    unsigned flags = row->flags & ~(unsigned)(ROW_BEHIND | ROW_IN_COLD);
    memtable->counters.cold_added += !row_erased(retired) && row_first_in_cold(row);
    memtable->counters.cold_deleted += row_erased(retired) && !row_reserved(retired);
    row->flags = (uint8_t)(flags | (row_erased(retired) ? 0 : (unsigned)ROW_IN_COLD));
    memtable_count_row(memtable, row, false);
    if (row_erased(row) && !row_in_cold(row))
        memtable_row_remove(memtable, row);
}

static void retired_free(struct memtable *memtable, const struct row *retired)
{
    memtable->counters.bytes_retired -= memtable_row_bytes(memtable, retired);
    memtable_cell_put(memtable, retired->next);
}

/* The flush no longer reads this chunk: frees what was retired or erased, cleans the rest. */
static void settle_chunk(struct memtable *memtable, struct dirty_chunk *chunk)
{
    for (uint32_t i = 0; i < chunk->count; i++) {
        struct row *row = chunk->rows[i];
        if (row == NULL)
            continue;
        if ((row->flags & ROW_RETIRED) != 0) {
            settle_replacement(memtable, row);
            retired_free(memtable, row);
        } else if (row_erased(row)) {
            memtable->counters.cold_deleted += !row_reserved(row);
            memtable_row_remove(memtable, row);
        } else {
            memtable->counters.cold_added += row_first_in_cold(row);
            memtable_count_row(memtable, row, true);
            row->flags = (uint8_t)((row->flags & ~ROW_DIRTY) | ROW_IN_COLD);
            memtable_count_row(memtable, row, false);
        }
    }
}

/* Once no chunk is frozen: frees what was added to the job, at most so many rows at a time. True: the job is over. */
static bool job_end(struct memtable *memtable, struct flush_job *job, uint64_t rows, uint64_t rows_max)
{
    if (memtable->dirty.frozen_chunks > 0)
        return false;
    for (; job->added_count > 0 && rows < rows_max; rows++)
        memtable_cell_put(memtable, job->added[--job->added_count]->next);
    if (job->added_count > 0)
        return false;
    memtable->job = NULL;
    memtable->hand_idle = 0;
    job_free(memtable, job);
    memtable_queue_trim(memtable);
    return true;
}

bool memtable_flush_done(struct memtable *memtable, struct flush_job *job, uint64_t rows_max)
{
    assert(memtable->job == job);
    assert(!job->failing);
    struct dirty_queue *queue = &memtable->dirty;
    job->settling = true;
    uint64_t rows = 0;
    while (queue->frozen_chunks > 0 && (rows == 0 || rows < rows_max)) {
        rows += queue->chunks[0]->count;
        settle_chunk(memtable, queue->chunks[0]);
        memtable->hand_idle = 0;
        memtable_queue_drop_first(memtable);
        queue->frozen_chunks--;
    }
    return job_end(memtable, job, rows, rows_max);
}

/* The chunk, the last frozen one, is as before: a replacement moves back to the place of what it replaced, so places
 * stay ordered by first unflushed change. */
static void thaw_chunk(struct memtable *memtable, struct dirty_chunk *chunk)
{
    for (uint32_t i = 0; i < chunk->count; i++) {
        struct row *old = chunk->rows[i];
        if (old == NULL || (old->flags & ROW_RETIRED) == 0)
            continue;
        struct row *row = replacement_of(memtable, old);
        memtable_queue_leave(memtable, row);
        row->dirty_index = old->dirty_index;
        row->flags = (uint8_t)(row->flags & ~ROW_BEHIND);
        chunk->rows[i] = row;
        retired_free(memtable, old);
        if (!row_erased(row) || row_in_cold(row))
            continue;
        chunk->rows[i] = NULL;
        chunk->rows_left--;
        memtable_row_remove(memtable, row);
    }
}

bool memtable_flush_failed(struct memtable *memtable, struct flush_job *job, uint64_t rows_max)
{
    assert(memtable->job == job);
    assert(!job->settling);
    struct dirty_queue *queue = &memtable->dirty;
    job->failing = true;
    uint64_t rows = 0;
    /* From the last one back: what is still frozen is the front of the queue, as ever. */
    while (queue->frozen_chunks > 0 && (rows == 0 || rows < rows_max)) {
        rows += queue->chunks[queue->frozen_chunks - 1]->count;
        thaw_chunk(memtable, queue->chunks[queue->frozen_chunks - 1]);
        queue->frozen_chunks--;
    }
    return job_end(memtable, job, rows, rows_max);
}
