/* The memtable: table, eviction, dirty queue, and the shard's side of flushing. */
#include "store/memtable.h"

#include <assert.h>

#include "base/hash.h"
#include "base/limits.h"
#include "store/flush.h"

#define BUCKETS_MIN UINT64_C(1024)
#define BUCKETS_MAX (UINT64_C(1) << 32)

/* The table doubles at 3/2 rows per bucket: chains stay at one or two rows and a bucket costs 5 to 11 bytes per row. */
#define LOAD_NUMERATOR 3
#define LOAD_DENOMINATOR 2

/* Old buckets moved per operation. Two would do to finish before the next doubling. */
#define REHASH_BUCKETS 8
#define REHASH_BUCKETS_UPKEEP 512

/* Buckets that the clock hand passes per call, and one more per so many bytes wanted: some tens of microseconds. */
#define CLOCK_BUCKETS 256
#define CLOCK_BYTES_PER_BUCKET 128

/* Upkeep keeps 1/32 of the budget free, so that a put seldom evicts. */
#define HEADROOM_SHIFT 5

_Static_assert(KEY_BYTES_MAX_HARD <= UINT16_MAX, "a row's key size fits its field");

/* ---- memory --------------------------------------------------------------------------------------------- */

static uint64_t block_bytes(size_t size)
{
    return size + ALLOC_OVERHEAD_BYTES;
}

static void *block_get(struct memtable *memtable, size_t size, bool zeroed)
{
    void *block = zeroed ? alloc_get_zeroed(memtable->alloc, size) : alloc_get(memtable->alloc, size);
    if (block != NULL)
        memtable->counters.bytes += block_bytes(size);
    return block;
}

static void block_put(struct memtable *memtable, void *block, size_t size)
{
    if (block == NULL)
        return;
    assert(memtable->counters.bytes >= block_bytes(size));
    memtable->counters.bytes -= block_bytes(size);
    alloc_put(memtable->alloc, block, size);
}

static size_t row_size(size_t key_size, size_t record_size)
{
    size_t size = offsetof(struct row, bytes) + key_size + record_size;
    return size < sizeof(struct row) ? sizeof(struct row) : size;
}

static uint64_t row_bytes(const struct row *row)
{
    return block_bytes(row_size(row->key_size, row->record_size));
}

static void row_free(struct memtable *memtable, struct row *row)
{
    block_put(memtable, row, row_size(row->key_size, row->record_size));
}

/* ---- counters ------------------------------------------------------------------------------------------- */

/* Adds (or, with minus, takes away) a row in the table. */
static void count_row(struct memtable *memtable, const struct row *row, bool minus)
{
    struct memtable_counters *counters = &memtable->counters;
    uint64_t one = minus ? UINT64_MAX : 1; /* modulo 2^64 */
    bool live = (row->flags & ROW_LIVE) != 0;
    counters->rows += one;
    if (row_dirty(row)) {
        counters->rows_dirty += one;
        counters->bytes_dirty += minus ? 0 - row_bytes(row) : row_bytes(row);
    }
    if (!row_in_cold(row))
        counters->rows_not_in_cold += one;
    if (live)
        counters->rows_live += one;
    if (live && !row_in_cold(row))
        counters->rows_live_not_in_cold += one;
}

/* ---- the table ------------------------------------------------------------------------------------------ */

static struct row **bucket_of(const struct memtable_table *table, uint32_t hash)
{
    return &table->buckets[hash & (table->bucket_count - 1)];
}

/* The pointer that points to the key's row, or NULL. */
static struct row **link_find(struct memtable *memtable, struct span key, uint32_t hash)
{
    struct memtable_table *tables[2] = {&memtable->table, &memtable->table_old};
    for (size_t i = 0; i < 2; i++) {
        if (tables[i]->bucket_count == 0)
            continue;
        for (struct row **link = bucket_of(tables[i], hash); *link != NULL; link = &(*link)->next) {
            if ((*link)->hash == hash && span_equal(row_key(*link), key))
                return link;
        }
    }
    return NULL;
}

static void row_insert(struct memtable *memtable, struct row *row)
{
    struct row **bucket = bucket_of(&memtable->table, row->hash);
    row->next = *bucket;
    *bucket = row;
}

static void table_free(struct memtable *memtable, struct memtable_table *table)
{
    block_put(memtable, table->buckets, table->bucket_count * sizeof(struct row *));
    *table = (struct memtable_table){0};
}

static void rehash_step(struct memtable *memtable, uint64_t buckets)
{
    struct memtable_table *old = &memtable->table_old;
    if (old->bucket_count == 0)
        return;
    for (; buckets > 0 && memtable->rehash_at < old->bucket_count; buckets--, memtable->rehash_at++) {
        struct row *row = old->buckets[memtable->rehash_at];
        old->buckets[memtable->rehash_at] = NULL;
        while (row != NULL) {
            struct row *next = row->next;
            row_insert(memtable, row);
            row = next;
        }
    }
    if (memtable->rehash_at == old->bucket_count)
        table_free(memtable, old);
}

/* Starts a doubling when the load asks for it and the memory is there; without it chains just get longer. */
static void grow_if_full(struct memtable *memtable)
{
    uint64_t count = memtable->table.bucket_count;
    if (memtable->table_old.bucket_count != 0 || count >= BUCKETS_MAX ||
        memtable->counters.rows * LOAD_DENOMINATOR < count * LOAD_NUMERATOR)
        return;
    size_t size = count * 2 * sizeof(struct row *);
    if (memtable->counters.bytes + block_bytes(size) > memtable->budget_bytes)
        return;
    struct row **buckets = block_get(memtable, size, true);
    if (buckets == NULL)
        return;
    memtable->table_old = memtable->table;
    memtable->rehash_at = 0;
    memtable->table = (struct memtable_table){.buckets = buckets, .bucket_count = count * 2};
}

/* ---- eviction ------------------------------------------------------------------------------------------- */

static void clock_visit_bucket(struct memtable *memtable, const struct row *pinned)
{
    struct row **link = &memtable->table.buckets[memtable->clock_hand & (memtable->table.bucket_count - 1)];
    memtable->clock_hand++;
    while (*link != NULL) {
        struct row *row = *link;
        if (row_dirty(row) || row == pinned) {
            link = &row->next;
        } else if ((row->flags & ROW_REFERENCED) != 0) {
            row->flags = (uint8_t)(row->flags & ~ROW_REFERENCED);
            link = &row->next;
        } else {
            *link = row->next;
            count_row(memtable, row, true);
            memtable->counters.evictions++;
            row_free(memtable, row);
        }
    }
}

static bool evictable(const struct memtable *memtable)
{
    return memtable->counters.rows > memtable->counters.rows_dirty;
}

/* Evicts until `bytes` more fit below limit or the slice is used up; pinned (may be NULL) stays. */
static bool make_room(struct memtable *memtable, uint64_t bytes, uint64_t limit, const struct row *pinned)
{
    uint64_t slice = CLOCK_BUCKETS + bytes / CLOCK_BYTES_PER_BUCKET;
    while (memtable->counters.bytes + bytes > limit && slice > 0 && evictable(memtable)) {
        /* The hand sees only the new table, so the old one must empty into it. */
        rehash_step(memtable, 1);
        clock_visit_bucket(memtable, pinned);
        slice--;
    }
    return memtable->counters.bytes + bytes <= limit;
}

/* ---- the dirty queue ------------------------------------------------------------------------------------ */

static bool queue_needs_chunk(const struct dirty_queue *queue)
{
    return queue->chunk_count == queue->frozen_chunks ||
           queue->chunks[queue->chunk_count - 1]->count == DIRTY_CHUNK_ROWS;
}

/* Makes sure that the next place exists. */
static bool queue_reserve(struct memtable *memtable)
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

static struct row **queue_place(const struct dirty_queue *queue, uint32_t dirty_index)
{
    uint32_t offset = dirty_index - queue->base;
    assert(offset / DIRTY_CHUNK_ROWS < queue->chunk_count);
    return &queue->chunks[offset / DIRTY_CHUNK_ROWS]->rows[offset % DIRTY_CHUNK_ROWS];
}

static void queue_append(struct memtable *memtable, struct row *row)
{
    struct dirty_queue *queue = &memtable->dirty;
    assert(!queue_needs_chunk(queue));
    struct dirty_chunk *chunk = queue->chunks[queue->chunk_count - 1];
    if (chunk->count == 0)
        chunk->sequence_first = row->sequence;
    row->dirty_index = queue->base + (queue->chunk_count - 1) * DIRTY_CHUNK_ROWS + chunk->count;
    chunk->rows[chunk->count++] = row;
    chunk->bytes += row_bytes(row);
}

static bool row_frozen(const struct memtable *memtable, const struct row *row)
{
    const struct dirty_queue *queue = &memtable->dirty;
    return row_dirty(row) && (row->dirty_index - queue->base) / DIRTY_CHUNK_ROWS < queue->frozen_chunks;
}

static void queue_drop_first(struct memtable *memtable)
{
    struct dirty_queue *queue = &memtable->dirty;
    block_put(memtable, queue->chunks[0], sizeof(struct dirty_chunk));
    queue->chunk_count--;
    queue->base += DIRTY_CHUNK_ROWS;
    memmove(queue->chunks, queue->chunks + 1, queue->chunk_count * sizeof queue->chunks[0]);
}

/* ---- life ----------------------------------------------------------------------------------------------- */

enum status memtable_init(struct memtable *memtable, const struct memtable_options *options)
{
    *memtable = (struct memtable){
        .alloc = options->alloc, .seed = options->seed, .budget_bytes = options->budget_bytes};
    memtable->table.buckets = block_get(memtable, BUCKETS_MIN * sizeof(struct row *), true);
    if (memtable->table.buckets == NULL)
        return STATUS_OVERLOADED;
    memtable->table.bucket_count = BUCKETS_MIN;
    return STATUS_OK;
}

void memtable_free(struct memtable *memtable)
{
    assert(memtable->job == NULL);
    assert(memtable->retired == NULL);
    struct memtable_table *tables[2] = {&memtable->table, &memtable->table_old};
    for (size_t i = 0; i < 2; i++) {
        for (uint64_t b = 0; b < tables[i]->bucket_count; b++) {
            for (struct row *row = tables[i]->buckets[b]; row != NULL;) {
                struct row *next = row->next;
                row_free(memtable, row);
                row = next;
            }
        }
        table_free(memtable, tables[i]);
    }
    struct dirty_queue *queue = &memtable->dirty;
    while (queue->chunk_count > 0)
        queue_drop_first(memtable);
    block_put(memtable, queue->chunks, queue->chunk_capacity * sizeof queue->chunks[0]);
    assert(memtable->counters.bytes == 0);
}

/* ---- rows ----------------------------------------------------------------------------------------------- */

uint32_t memtable_hash(const struct memtable *memtable, struct span key)
{
    return (uint32_t)hash_64(key, memtable->seed);
}

struct row *memtable_find(struct memtable *memtable, struct span key, uint32_t hash)
{
    rehash_step(memtable, REHASH_BUCKETS);
    struct row **link = link_find(memtable, key, hash);
    if (link == NULL)
        return NULL;
    /* Tested first: a hot row's line is then only read. */
    if (((*link)->flags & ROW_REFERENCED) == 0)
        (*link)->flags |= ROW_REFERENCED;
    return *link;
}

static struct row *row_new(struct memtable *memtable, const struct memtable_put *put)
{
    struct row *row = block_get(memtable, row_size(put->key.size, put->record.size), false);
    if (row == NULL)
        return NULL;
    *row = (struct row){.sequence = put->sequence,
                        .hash = put->hash,
                        .record_size = (uint32_t)put->record.size,
                        .key_size = (uint16_t)put->key.size};
    if (put->key.size > 0)
        memcpy(row->bytes, put->key.data, put->key.size);
    if (put->record.size > 0)
        memcpy(row->bytes + put->key.size, put->record.data, put->record.size);
    return row;
}

static uint8_t flags_of(const struct memtable_put *put, unsigned keep)
{
    return (uint8_t)(keep | ROW_DIRTY | (put->live ? (unsigned)ROW_LIVE : 0) |
                     (put->in_cold ? (unsigned)ROW_IN_COLD : 0));
}

/* Room for a row of this size (0: none needed) and for a place in the dirty queue if needed. */
static bool put_make_room(struct memtable *memtable, size_t size, bool queued, const struct row *pinned)
{
    uint64_t bytes = size == 0 ? 0 : block_bytes(size);
    if (queued && queue_needs_chunk(&memtable->dirty))
        bytes += block_bytes(sizeof(struct dirty_chunk));
    if (bytes > 0 && !make_room(memtable, bytes, memtable->budget_bytes, pinned))
        return false;
    return !queued || queue_reserve(memtable);
}

/* The row is not frozen and its record keeps its size. */
static enum status put_in_place(struct memtable *memtable, struct row *row, const struct memtable_put *put)
{
    bool was_dirty = row_dirty(row);
    if (!was_dirty && !put_make_room(memtable, 0, true, row))
        return STATUS_OVERLOADED;
    count_row(memtable, row, true);
    if (put->record.size > 0)
        memmove(row->bytes + row->key_size, put->record.data, put->record.size);
    row->sequence = put->sequence;
    row->flags = flags_of(put, row->flags & (ROW_IN_COLD | ROW_REFERENCED));
    count_row(memtable, row, false);
    if (!was_dirty)
        queue_append(memtable, row);
    return STATUS_OK;
}

/* A new row takes the old one's place. */
static enum status put_replace(struct memtable *memtable, struct row *old, const struct memtable_put *put)
{
    bool keeps_place = row_dirty(old) && !row_frozen(memtable, old);
    if (!put_make_room(memtable, row_size(put->key.size, put->record.size), !keeps_place, old))
        return STATUS_OVERLOADED;
    struct row *row = row_new(memtable, put);
    if (row == NULL)
        return STATUS_OVERLOADED;
    row->flags = flags_of(put, old->flags & (ROW_IN_COLD | ROW_REFERENCED));
    struct row **link = link_find(memtable, row_key(row), row->hash);
    assert(link != NULL && *link == old);
    count_row(memtable, old, true);
    row->next = old->next;
    *link = row;
    count_row(memtable, row, false);
    if (keeps_place) {
        row->dirty_index = old->dirty_index;
        *queue_place(&memtable->dirty, row->dirty_index) = row;
        row_free(memtable, old);
    } else if (row_dirty(old)) {
        queue_append(memtable, row);
        old->flags |= ROW_RETIRED;
        old->next = memtable->retired;
        memtable->retired = old;
        memtable->counters.bytes_retired += row_bytes(old);
    } else {
        queue_append(memtable, row);
        row_free(memtable, old);
    }
    return STATUS_OK;
}

enum status memtable_put(struct memtable *memtable, const struct memtable_put *put)
{
    assert(put->key.size <= KEY_BYTES_MAX_HARD);
    assert(put->record.size < UINT32_MAX);
    rehash_step(memtable, REHASH_BUCKETS);
    struct row **link = link_find(memtable, put->key, put->hash);
    if (link != NULL) {
        struct row *row = *link;
        assert(put->sequence >= row->sequence);
        if (row->record_size == put->record.size && !row_frozen(memtable, row))
            return put_in_place(memtable, row, put);
        return put_replace(memtable, row, put);
    }
    if (!put_make_room(memtable, row_size(put->key.size, put->record.size), true, NULL))
        return STATUS_OVERLOADED;
    struct row *row = row_new(memtable, put);
    if (row == NULL)
        return STATUS_OVERLOADED;
    row->flags = flags_of(put, 0);
    row_insert(memtable, row);
    count_row(memtable, row, false);
    queue_append(memtable, row);
    grow_if_full(memtable);
    return STATUS_OK;
}

enum status memtable_load(struct memtable *memtable, const struct memtable_put *put)
{
    assert(put->key.size <= KEY_BYTES_MAX_HARD);
    assert(put->record.size < UINT32_MAX);
    rehash_step(memtable, REHASH_BUCKETS);
    if (link_find(memtable, put->key, put->hash) != NULL)
        return STATUS_OK;
    if (!put_make_room(memtable, row_size(put->key.size, put->record.size), false, NULL))
        return STATUS_OVERLOADED;
    struct row *row = row_new(memtable, put);
    if (row == NULL)
        return STATUS_OVERLOADED;
    row->sequence = 0;
    row->flags = (uint8_t)(ROW_IN_COLD | (put->live ? ROW_LIVE : 0));
    row_insert(memtable, row);
    count_row(memtable, row, false);
    grow_if_full(memtable);
    return STATUS_OK;
}

bool memtable_upkeep(struct memtable *memtable)
{
    rehash_step(memtable, REHASH_BUCKETS_UPKEEP);
    uint64_t target = memtable->budget_bytes - (memtable->budget_bytes >> HEADROOM_SHIFT);
    bool roomy = make_room(memtable, 0, target, NULL);
    return memtable->table_old.bucket_count != 0 || (!roomy && evictable(memtable));
}

const struct row *memtable_scan(const struct memtable *memtable, struct memtable_cursor *cursor)
{
    const struct row *row = cursor->row == NULL ? NULL : cursor->row->next;
    uint64_t first = memtable->table.bucket_count;
    uint64_t total = first + memtable->table_old.bucket_count;
    for (; row == NULL && cursor->bucket < total; cursor->bucket++) {
        uint64_t bucket = cursor->bucket;
        row = bucket < first ? memtable->table.buckets[bucket] : memtable->table_old.buckets[bucket - first];
    }
    cursor->row = row;
    return row;
}

/* ---- flush ---------------------------------------------------------------------------------------------- */

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
    block_put(memtable, job->entries, job->rows * sizeof *job->entries);
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
    job->entries = block_get(memtable, job->rows * sizeof *job->entries, false);
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
        else if (!evictable(memtable) ||
                 !make_room(memtable, UINT64_C(64) << 10, memtable->counters.bytes, NULL))
            return STATUS_OVERLOADED;
    }
    memcpy(job->chunks, queue->chunks, take * sizeof(struct dirty_chunk *));
    job->sequence = sequence_before(queue, take, sequence_closed);
    queue->frozen_chunks = take;
    memtable->job = job;
    return STATUS_OK;
}

/* The flush no longer reads this chunk: frees what was retired, cleans the rest. */
static void settle_chunk(struct memtable *memtable, struct dirty_chunk *chunk)
{
    for (uint32_t i = 0; i < chunk->count; i++) {
        struct row *row = chunk->rows[i];
        if (row == NULL)
            continue;
        if ((row->flags & ROW_RETIRED) != 0) {
            /* Its replacement changed after the snapshot and stays dirty, but a version is in the cold tier. */
            struct row **link = link_find(memtable, row_key(row), row->hash);
            assert(link != NULL);
            count_row(memtable, *link, true);
            (*link)->flags |= ROW_IN_COLD;
            count_row(memtable, *link, false);
            memtable->counters.bytes_retired -= row_bytes(row);
            row_free(memtable, row);
        } else {
            count_row(memtable, row, true);
            row->flags = (uint8_t)((row->flags & ~ROW_DIRTY) | ROW_IN_COLD);
            count_row(memtable, row, false);
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
        queue_drop_first(memtable);
        queue->frozen_chunks--;
    }
    if (queue->frozen_chunks > 0)
        return false;
    memtable->job = NULL;
    job_free(memtable, job);
    return true;
}

void memtable_flush_failed(struct memtable *memtable, struct flush_job *job)
{
    assert(memtable->job == job);
    assert(!job->settling);
    /* A replacement moves back to the place of what it replaced: places stay ordered by first unflushed change. */
    while (memtable->retired != NULL) {
        struct row *old = memtable->retired;
        memtable->retired = old->next;
        struct row **link = link_find(memtable, row_key(old), old->hash);
        assert(link != NULL && row_dirty(*link));
        *queue_place(&memtable->dirty, (*link)->dirty_index) = NULL;
        (*link)->dirty_index = old->dirty_index;
        *queue_place(&memtable->dirty, old->dirty_index) = *link;
        memtable->counters.bytes_retired -= row_bytes(old);
        row_free(memtable, old);
    }
    memtable->dirty.frozen_chunks = 0;
    memtable->job = NULL;
    job_free(memtable, job);
}
