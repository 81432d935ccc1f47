/* The shard's side of flushing. */
#include "base/limits.h"
#include "store/flush.h"
#include "store/memtable_internal.h"

/* Entries are made anew in steps of this and an eighth of what there is. */
#define JOB_ENTRIES_STEP 64u

/* So much is evicted at a time where the job finds no memory. */
#define JOB_ROOM_BYTES (UINT64_C(64) << 10)

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
    while (job->added != NULL) {
        struct row *row = job->added;
        job->added = row->next;
        row_free(memtable, row);
    }
    block_put(memtable, job->entries, job->entry_capacity * sizeof *job->entries);
    block_put(memtable, job->chunks, job->chunk_count * sizeof(struct dirty_chunk *));
    /* The sequence stays: the caller tells it to the log. */
    *job = (struct flush_job){.sequence = job->sequence};
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

enum status memtable_freeze(struct memtable *memtable, struct flush_job *job, uint64_t bytes_max,
                            uint64_t sequence_closed)
{
    struct dirty_queue *queue = &memtable->dirty;
    if (memtable->job != NULL)
        return STATUS_WAIT;
    if (queue->chunk_count == 0 || queue->chunks[0]->count == 0)
        return STATUS_NOT_FOUND;
    uint32_t take = 0;
    uint64_t bytes = 0;
    while (take < queue->chunk_count && queue->chunks[take]->count > 0 && (take == 0 || bytes < bytes_max))
        bytes += queue->chunks[take++]->bytes;
    while (!job_allocate(memtable, job, take)) {
        if (take > 1)
            take /= 2;
        else if (!memtable_evictable(memtable) ||
                 !memtable_make_room(memtable, JOB_ROOM_BYTES, memtable->counters.bytes, NULL))
            return STATUS_OVERLOADED;
    }
    memcpy(job->chunks, queue->chunks, take * sizeof(struct dirty_chunk *));
    job->sequence = sequence_before(queue, take, sequence_closed);
    queue->frozen_chunks = take;
    memtable->job = job;
    return STATUS_OK;
}

/* Room for one more entry; they hold nothing before flush_sort. */
static bool job_grow(struct memtable *memtable, struct flush_job *job)
{
    if (job->rows < job->entry_capacity)
        return true;
    uint64_t capacity = job->entry_capacity + job->entry_capacity / 8 + JOB_ENTRIES_STEP;
    struct flush_entry *entries = block_get(memtable, capacity * sizeof *entries, false);
    if (entries == NULL)
        return false;
    block_put(memtable, job->entries, job->entry_capacity * sizeof *entries);
    job->entries = entries;
    job->entry_capacity = capacity;
    return true;
}

enum status memtable_job_add(struct memtable *memtable, struct flush_job *job, struct span reserved_key,
                             struct span record)
{
    struct memtable_put put = {
        .key = reserved_key, .record = record, .hash = memtable_hash_reserved(memtable, reserved_key)};
    assert(memtable->job == job && !job->settling && job->entry_count == 0);
    assert(reserved_key.size <= KEY_BYTES_MAX_HARD && record.size < UINT32_MAX);
    assert(memtable_link_find(memtable, put.key, put.hash) == NULL);
    struct row *row = NULL;
    /* A flush makes room: clean rows give way to it. */
    while (!job_grow(memtable, job) || (row = memtable_row_new(memtable, &put)) == NULL) {
        if (!memtable_evictable(memtable))
            return STATUS_OVERLOADED;
        (void)memtable_make_room(memtable, JOB_ROOM_BYTES, memtable->counters.bytes, NULL);
    }
    row->next = job->added;
    job->added = row;
    job->rows++;
    return STATUS_OK;
}

static bool row_first_in_cold(const struct row *row)
{
    return (row->flags & (ROW_LIVE | ROW_IN_COLD)) == ROW_LIVE;
}

/* The key's row in the table replaced a frozen one that is in the cold tier now: as a version, or, erased, as none. */
static void settle_replacement(struct memtable *memtable, const struct row *retired)
{
    struct row **link = memtable_link_find(memtable, row_key(retired), retired->hash);
    assert(link != NULL && row_dirty(*link) && ((*link)->flags & ROW_BEHIND) != 0);
    struct row *row = *link;
    memtable_count_row(memtable, row, true);
    unsigned flags = row->flags & ~(unsigned)(ROW_BEHIND | ROW_IN_COLD);
    memtable->counters.cold_added += !row_erased(retired) && row_first_in_cold(row);
    memtable->counters.cold_deleted += row_erased(retired) && !row_reserved(retired);
    row->flags = (uint8_t)(flags | (row_erased(retired) ? 0 : (unsigned)ROW_IN_COLD));
    memtable_count_row(memtable, row, false);
    if (row_erased(row) && !row_in_cold(row))
        memtable_row_remove(memtable, row);
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
            memtable->counters.bytes_retired -= row_bytes(row);
            row_free(memtable, row);
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

bool memtable_flush_done(struct memtable *memtable, struct flush_job *job, uint64_t rows_max)
{
    assert(memtable->job == job);
    struct dirty_queue *queue = &memtable->dirty;
    job->settling = true;
    memtable->retired = NULL; /* each retired row still has its place in the queue */
    uint64_t rows = 0;
    while (queue->frozen_chunks > 0 && (rows == 0 || rows < rows_max)) {
        rows += queue->chunks[0]->count;
        settle_chunk(memtable, queue->chunks[0]);
        memtable_queue_drop_first(memtable);
        queue->frozen_chunks--;
    }
    if (queue->frozen_chunks > 0)
        return false;
    memtable->job = NULL;
    job_free(memtable, job);
    memtable_queue_trim(memtable);
    return true;
}

void memtable_flush_failed(struct memtable *memtable, struct flush_job *job)
{
    assert(memtable->job == job);
    assert(!job->settling);
    memtable->dirty.frozen_chunks = 0;
    memtable->job = NULL;
    /* A replacement moves back to the place of what it replaced: places stay ordered by first unflushed change. */
    while (memtable->retired != NULL) {
        struct row *old = memtable->retired;
        memtable->retired = old->next;
        struct row **link = memtable_link_find(memtable, row_key(old), old->hash);
        assert(link != NULL && row_dirty(*link));
        struct row *row = *link;
        memtable_queue_leave(memtable, row);
        row->dirty_index = old->dirty_index;
        row->flags = (uint8_t)(row->flags & ~ROW_BEHIND);
        *queue_place(&memtable->dirty, row) = row;
        memtable->counters.bytes_retired -= row_bytes(old);
        row_free(memtable, old);
        if (row_erased(row) && !row_in_cold(row))
            memtable_row_remove(memtable, row);
    }
    job_free(memtable, job);
}
