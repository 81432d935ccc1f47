/* The memtable: its table, its rows and their eviction. */
#include "base/hash.h"
#include "base/limits.h"
#include "store/memtable_internal.h"

#define BUCKETS_MIN UINT64_C(1024)
#define BUCKETS_MAX (UINT64_C(1) << 31) /* by the bits of a hash below ROW_HASH_RESERVED */

/* The table doubles at 3/2 rows per bucket: chains stay at one or two rows and a bucket costs 5 to 11 bytes per row. */
#define LOAD_NUMERATOR 3
#define LOAD_DENOMINATOR 2

/* Old buckets moved per operation. Two would do to finish before the next doubling. */
/* Of the processors that it usually runs on; elsewhere prefetches only hint at less. */
#define CACHE_LINE_BYTES 64

#define REHASH_BUCKETS 8
#define REHASH_BUCKETS_UPKEEP 512

/* Buckets that the clock hand passes per call, and one more per so many bytes wanted: some tens of microseconds. */
#define CLOCK_BUCKETS 256
#define CLOCK_BYTES_PER_BUCKET 128

/* Upkeep keeps 1/32 of the budget free, so that a put seldom evicts. */
#define HEADROOM_SHIFT 5

_Static_assert(KEY_BYTES_MAX_HARD <= UINT16_MAX, "a row's key size fits its field");

/* ---- counters ------------------------------------------------------------------------------------------- */

/* Adds (or, with minus, takes away) a row in the table. */
void memtable_count_row(struct memtable *memtable, const struct row *row, bool minus)
{
    struct memtable_counters *counters = &memtable->counters;
    uint64_t one = minus ? UINT64_MAX : 1; /* modulo 2^64 */
    bool live = (row->flags & ROW_LIVE) != 0;
    counters->rows += one;
    if (row_reserved(row))
        counters->rows_reserved += one;
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
struct row **memtable_link_find(struct memtable *memtable, struct span key, uint32_t hash)
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

struct row **memtable_link_of(struct memtable *memtable, const struct row *row)
{
    struct row **link = memtable_link_find(memtable, row_key(row), row->hash);
    assert(link != NULL && *link == row);
    return link;
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
            memtable_count_row(memtable, row, true);
            memtable->counters.evictions++;
            row_free(memtable, row);
        }
    }
}

bool memtable_evictable(const struct memtable *memtable)
{
    return memtable->counters.rows > memtable->counters.rows_dirty;
}

/* Evicts until `bytes` more fit below limit or the slice is used up; pinned (may be NULL) stays. */
bool memtable_make_room(struct memtable *memtable, uint64_t bytes, uint64_t limit, const struct row *pinned)
{
    uint64_t slice = CLOCK_BUCKETS + bytes / CLOCK_BYTES_PER_BUCKET;
    while (memtable->counters.bytes + bytes > limit && slice > 0 && memtable_evictable(memtable)) {
        /* The hand sees only the new table, so the old one must empty into it. */
        rehash_step(memtable, 1);
        clock_visit_bucket(memtable, pinned);
        slice--;
    }
    return memtable->counters.bytes + bytes <= limit;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

enum status memtable_init(struct memtable *memtable, const struct memtable_options *options)
{
    memset(memtable, 0, sizeof *memtable);
    memtable->alloc = options->alloc;
    memtable->seed = options->seed;
    memtable->budget_bytes = options->budget_bytes;
    memtable->dirty.base = 1;
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
    memtable_queue_free(memtable);
    assert(memtable->counters.bytes == 0);
}

/* ---- rows ----------------------------------------------------------------------------------------------- */

uint32_t memtable_hash(const struct memtable *memtable, struct span key)
{
    return (uint32_t)hash_64(key, memtable->seed) & ~ROW_HASH_RESERVED;
}

uint32_t memtable_hash_reserved(const struct memtable *memtable, struct span key)
{
    return (uint32_t)hash_64(key, memtable->seed) | ROW_HASH_RESERVED;
}

void memtable_prefetch(const struct memtable *memtable, uint32_t hash)
{
    /* While the table grows, a row that has not moved yet is simply not prefetched. */
    if (memtable->table.bucket_count > 0)
        __builtin_prefetch(bucket_of(&memtable->table, hash));
}

void memtable_prefetch_row(const struct memtable *memtable, uint32_t hash)
{
    const struct row *row = memtable->table.bucket_count == 0 ? NULL : *bucket_of(&memtable->table, hash);
    if (row == NULL)
        return;
    /* The head with the key, and the beginning of the record. */
    __builtin_prefetch(row);
    __builtin_prefetch((const uint8_t *)row + CACHE_LINE_BYTES);
    __builtin_prefetch((const uint8_t *)row + (size_t)2 * CACHE_LINE_BYTES);
}

struct row *memtable_find(struct memtable *memtable, struct span key, uint32_t hash)
{
    rehash_step(memtable, REHASH_BUCKETS);
    struct row **link = memtable_link_find(memtable, key, hash);
    if (link == NULL)
        return NULL;
    /* Tested first: a hot row's line is then only read. */
    if (((*link)->flags & ROW_REFERENCED) == 0)
        (*link)->flags |= ROW_REFERENCED;
    return *link;
}

struct row *memtable_row_new(struct memtable *memtable, const struct memtable_put *put)
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

/* What a put leaves as it was. */
#define ROW_KEPT_FLAGS (ROW_IN_COLD | ROW_REFERENCED | ROW_BEHIND)

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
    if (bytes > 0 && !memtable_make_room(memtable, bytes, memtable->budget_bytes, pinned))
        return false;
    return !queued || memtable_queue_reserve(memtable);
}

/* The row is not frozen and its record keeps its size. */
static enum status put_in_place(struct memtable *memtable, struct row *row, const struct memtable_put *put)
{
    bool was_dirty = row_dirty(row);
    if (!was_dirty && !put_make_room(memtable, 0, true, row))
        return STATUS_OVERLOADED;
    memtable_count_row(memtable, row, true);
    if (put->record.size > 0)
        memmove(row->bytes + row->key_size, put->record.data, put->record.size);
    row->sequence = put->sequence;
    row->flags = flags_of(put, row->flags & ROW_KEPT_FLAGS);
    memtable_count_row(memtable, row, false);
    if (!was_dirty)
        memtable_queue_append(memtable, row, put->slot);
    return STATUS_OK;
}

/* A new row takes the old one's place. */
static enum status put_replace(struct memtable *memtable, struct row *old, const struct memtable_put *put)
{
    bool keeps_place = row_dirty(old) && !row_frozen(memtable, old);
    if (!put_make_room(memtable, row_size(put->key.size, put->record.size), !keeps_place, old))
        return STATUS_OVERLOADED;
    struct row *row = memtable_row_new(memtable, put);
    if (row == NULL)
        return STATUS_OVERLOADED;
    row->flags = flags_of(put, old->flags & ROW_KEPT_FLAGS);
    if (row_frozen(memtable, old))
        row->flags |= ROW_BEHIND;
    struct row **link = memtable_link_of(memtable, old);
    memtable_count_row(memtable, old, true);
    row->next = old->next;
    *link = row;
    memtable_count_row(memtable, row, false);
    if (keeps_place) {
        row->dirty_index = old->dirty_index;
        *queue_place(&memtable->dirty, row) = row;
        row_free(memtable, old);
    } else if (row_dirty(old)) {
        memtable_queue_append(memtable, row, put->slot);
        old->flags |= ROW_RETIRED;
        old->next = memtable->retired;
        memtable->retired = old;
        memtable->counters.bytes_retired += row_bytes(old);
    } else {
        memtable_queue_append(memtable, row, put->slot);
        row_free(memtable, old);
    }
    return STATUS_OK;
}

/* An erased row has something to do only where the cold tier holds a version, or will. */
static bool erase_forgets(const struct memtable *memtable, const struct row *row,
                          const struct memtable_put *put)
{
    if (put->record.size > 0 || put->in_cold)
        return false;
    return row == NULL || ((row->flags & (ROW_IN_COLD | ROW_BEHIND)) == 0 && !row_frozen(memtable, row));
}

void memtable_row_remove(struct memtable *memtable, struct row *row)
{
    struct row **link = memtable_link_of(memtable, row);
    *link = row->next;
    memtable_count_row(memtable, row, true);
    if (row_dirty(row) && !row_frozen(memtable, row))
        memtable_queue_leave(memtable, row);
    row_free(memtable, row);
}

enum status memtable_put(struct memtable *memtable, const struct memtable_put *put)
{
    assert(put->key.size <= KEY_BYTES_MAX_HARD);
    assert(put->record.size < UINT32_MAX);
    assert((put->slot == SLOTS_COUNT) == ((put->hash & ROW_HASH_RESERVED) != 0));
    rehash_step(memtable, REHASH_BUCKETS);
    struct row **link = memtable_link_find(memtable, put->key, put->hash);
    if (link != NULL) {
        struct row *row = *link;
        assert(put->sequence >= row->sequence);
        if (erase_forgets(memtable, row, put)) {
            memtable_row_remove(memtable, row);
            return STATUS_OK;
        }
        if (row->record_size == put->record.size && !row_frozen(memtable, row))
            return put_in_place(memtable, row, put);
        return put_replace(memtable, row, put);
    }
    if (erase_forgets(memtable, NULL, put))
        return STATUS_OK;
    if (!put_make_room(memtable, row_size(put->key.size, put->record.size), true, NULL))
        return STATUS_OVERLOADED;
    struct row *row = memtable_row_new(memtable, put);
    if (row == NULL)
        return STATUS_OVERLOADED;
    row->flags = flags_of(put, 0);
    row_insert(memtable, row);
    memtable_count_row(memtable, row, false);
    memtable_queue_append(memtable, row, put->slot);
    grow_if_full(memtable);
    return STATUS_OK;
}

enum status memtable_load(struct memtable *memtable, const struct memtable_put *put)
{
    assert(put->key.size <= KEY_BYTES_MAX_HARD);
    assert(put->record.size > 0 && put->record.size < UINT32_MAX);
    rehash_step(memtable, REHASH_BUCKETS);
    if (memtable_link_find(memtable, put->key, put->hash) != NULL)
        return STATUS_OK;
    if (!put_make_room(memtable, row_size(put->key.size, put->record.size), false, NULL))
        return STATUS_OVERLOADED;
    struct row *row = memtable_row_new(memtable, put);
    if (row == NULL)
        return STATUS_OVERLOADED;
    row->sequence = 0;
    row->flags = (uint8_t)(ROW_IN_COLD | (put->live ? ROW_LIVE : 0));
    row_insert(memtable, row);
    memtable_count_row(memtable, row, false);
    grow_if_full(memtable);
    return STATUS_OK;
}

uint64_t memtable_row_bytes(size_t key_size, size_t record_size)
{
    return block_bytes(row_size(key_size, record_size));
}

bool memtable_upkeep(struct memtable *memtable)
{
    rehash_step(memtable, REHASH_BUCKETS_UPKEEP);
    uint64_t target = memtable->budget_bytes - (memtable->budget_bytes >> HEADROOM_SHIFT);
    bool roomy = memtable_make_room(memtable, 0, target, NULL);
    return memtable->table_old.bucket_count != 0 || (!roomy && memtable_evictable(memtable));
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
