/* The memtable: its table, its rows and their eviction. */
#include "base/hash.h"
#include "base/limits.h"
#include "model/key.h"
#include "store/memtable_internal.h"

#define BUCKETS_MIN UINT64_C(1024)
#define BUCKETS_MAX (UINT64_C(1) << 31) /* by the bits of a hash below ROW_HASH_RESERVED */

/* The table doubles at 3/2 rows per bucket: chains stay at one or two rows, and a bucket costs 3 to 5 bytes per row. */
#define LOAD_NUMERATOR 3
#define LOAD_DENOMINATOR 2

/* Of the processors that it usually runs on; elsewhere prefetches only hint at less. */
#define CACHE_LINE_BYTES 64

/* Old buckets moved per operation. Two would do to finish before the next doubling. */
#define REHASH_BUCKETS 8
#define REHASH_BUCKETS_UPKEEP 512

/* Cells that the clock hand passes per call, and one more per so many bytes wanted. Passing one that stays costs some
 * nanoseconds; evicting or moving its row counts for more. A call takes a fraction of a millisecond at most, and some
 * microseconds where a third of the rows can go. */
#define CLOCK_CELLS 8192
#define CLOCK_CELLS_EVICTED 8
#define CLOCK_CELLS_STEP 16
#define CLOCK_BYTES_PER_CELL 128

/* Upkeep keeps 1/128 of the budget free, so that a put seldom evicts. */
#define HEADROOM_SHIFT 7

/* Where no row can be evicted, rows are still moved together while more than this part of the memory is free cells. */
#define FREE_CELLS_DIVISOR 8

/* So much of the memory may be dirty; a flush needs some of the rest for its job, and evicts clean rows for it. */
#define DIRTY_NUMERATOR 3
#define DIRTY_DENOMINATOR 4

/* Past this part nothing more is evicted. */
#define FREE_CELLS_EVICT_DIVISOR 4

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
        uint64_t bytes = memtable_row_bytes(memtable, row);
        counters->bytes_dirty += minus ? 0 - bytes : bytes;
    }
    if (!row_in_cold(row))
        counters->rows_not_in_cold += one;
    if (live)
        counters->rows_live += one;
    if (live && !row_in_cold(row))
        counters->rows_live_not_in_cold += one;
}

/* ---- the table ------------------------------------------------------------------------------------------ */

static uint8_t tag_of(uint32_t hash)
{
    return (uint8_t)(hash >> ROW_TAG_SHIFT);
}

static uint32_t hash_of(const struct memtable *memtable, const struct row *row)
{
    return row_reserved(row) ? memtable_hash_reserved(memtable, row_key(row))
                             : memtable_hash(memtable, row_key(row));
}

static row_ref *bucket_of(const struct memtable_table *table, uint32_t hash)
{
    return &table->buckets[hash & (table->bucket_count - 1)];
}

row_ref *memtable_link_find(const struct memtable *memtable, struct span key, uint32_t hash)
{
    const struct memtable_table *tables[2] = {&memtable->table, &memtable->table_old};
    uint8_t tag = tag_of(hash);
    for (size_t i = 0; i < 2; i++) {
        if (tables[i]->bucket_count == 0)
            continue;
        row_ref *link = bucket_of(tables[i], hash);
        while (*link != 0) {
            struct row *row = row_at(memtable, *link);
            if (row->tag == tag && span_equal(row_key(row), key))
                return link;
            link = &row->next;
        }
    }
    return NULL;
}

row_ref *memtable_link_of(struct memtable *memtable, const struct row *row)
{
    row_ref *link = memtable_link_find(memtable, row_key(row), hash_of(memtable, row));
    assert(link != NULL && row_at(memtable, *link) == row);
    return link;
}

static void row_insert(struct memtable *memtable, row_ref ref, uint32_t hash)
{
    row_ref *bucket = bucket_of(&memtable->table, hash);
    row_at(memtable, ref)->next = *bucket;
    *bucket = ref;
}

static void table_free(struct memtable *memtable, struct memtable_table *table)
{
    block_put(memtable, table->buckets, table->bucket_count * sizeof(row_ref));
    *table = (struct memtable_table){0};
}

static void rehash_step(struct memtable *memtable, uint64_t buckets)
{
    struct memtable_table *old = &memtable->table_old;
    if (old->bucket_count == 0)
        return;
    for (; buckets > 0 && memtable->rehash_at < old->bucket_count; buckets--, memtable->rehash_at++) {
        row_ref ref = old->buckets[memtable->rehash_at];
        old->buckets[memtable->rehash_at] = 0;
        while (ref != 0) {
            const struct row *row = row_at(memtable, ref);
            row_ref next = row->next;
            row_insert(memtable, ref, hash_of(memtable, row));
            ref = next;
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
    size_t size = count * 2 * sizeof(row_ref);
    if (memtable->counters.bytes + block_bytes(size) > memtable->target_bytes)
        return;
    row_ref *buckets = block_get(memtable, size, true);
    if (buckets == NULL)
        return;
    memtable->table_old = memtable->table;
    memtable->rehash_at = 0;
    memtable->table = (struct memtable_table){.buckets = buckets, .bucket_count = count * 2};
}

/* ---- eviction ------------------------------------------------------------------------------------------- */

static void slot_note_evicted(struct memtable *memtable, uint16_t slot)
{
    memtable->slots_evicted[slot / 8] |= (uint8_t)(1u << slot % 8);
}

/* The hand passes one cell; what that counts for. One that stays for now, but not for ever, makes the page useful. */
static uint32_t clock_visit(struct memtable *memtable, uint32_t page, uint32_t cell, const struct row *pinned)
{
    struct row *row = memtable_page_row(memtable, page, cell);
    if (row == NULL || row == pinned || (row->flags & (ROW_DIRTY | ROW_RETIRED)) != 0)
        return 1;
    if ((row->flags & ROW_REFERENCED) != 0) {
        memtable->hand_useful = true;
        row->flags = (uint8_t)(row->flags & ~((row->flags & ROW_AGAIN) != 0 ? ROW_AGAIN : ROW_REFERENCED));
        return 1;
    }
    /* So much has been evicted that only moving rows helps, or waiting for a flush whose rows must stay. */
    if (memtable->cells.bytes_free > memtable->counters.bytes / FREE_CELLS_EVICT_DIVISOR)
        return 1;
    memtable->hand_useful = true;
    memtable->counters.evictions++;
    if (!row_reserved(row))
        slot_note_evicted(memtable, key_slot(row_key(row)));
    memtable_row_remove(memtable, row);
    return CLOCK_CELLS_EVICTED;
}

/* The hand goes to each page in the order of its number's bits read backwards: rows that came together stand together,
 * and it must not pass all dirty ones, or all of a working set, in a row. */
static uint32_t hand_page(const struct memtable *memtable)
{
    uint32_t page = 0;
    for (uint32_t bit = 1; bit < memtable->cells.page_capacity; bit <<= 1)
        page = page << 1 | ((memtable->hand & bit) != 0);
    return page < memtable->cells.page_count ? page : 0;
}

/* Passes the rest of the hand's page, or as many cells as are left; behind the last one the page is given back if its
 * rows have room elsewhere. */
static uint64_t clock_step(struct memtable *memtable, uint64_t cells_max, const struct row *pinned)
{
    uint64_t passed = 0;
    uint32_t page = hand_page(memtable);
    while (passed < cells_max && memtable->hand_cell < memtable_page_cells(memtable, page))
        passed += clock_visit(memtable, page, memtable->hand_cell++, pinned);
    if (memtable->hand_cell < memtable_page_cells(memtable, page))
        return passed;
    uint32_t moved =
        memtable_page_cells(memtable, page) > 0 ? memtable_page_vacate(memtable, page, pinned) : 0;
    memtable->hand_idle = memtable->hand_useful || moved > 0 ? 0 : memtable->hand_idle + 1;
    memtable->hand_useful = false;
    memtable->hand_cell = 0;
    memtable->hand++;
    return passed + CLOCK_CELLS_EVICTED * (uint64_t)moved + 1;
}

bool memtable_evictable(const struct memtable *memtable)
{
    return memtable->counters.rows > memtable->counters.rows_dirty;
}

/* Whether passing the hand can make room at all. Where it has gone around for nothing, as beside a flush whose rows
 * stand in most pages, it waits for the flush to end, but for the page that each put gives it. */
static bool clock_helps(const struct memtable *memtable)
{
    bool work = memtable_evictable(memtable) ||
                memtable->cells.bytes_free > memtable->counters.bytes / FREE_CELLS_DIVISOR;
    return work && memtable->hand_idle < memtable->cells.page_capacity;
}

static bool need_fits(const struct memtable *memtable, const struct memtable_need *need)
{
    uint64_t bytes = need->bytes + (need->row_size == 0 ? 0 : memtable_cell_cost(memtable, need->row_size));
    bool cells_are_room = need->cells_are_room && (need->row_size == 0 || bytes == 0);
    uint64_t held = memtable->counters.bytes - (cells_are_room ? memtable->cells.bytes_free : 0);
    return held + bytes <= need->limit;
}

bool memtable_make_room(struct memtable *memtable, const struct memtable_need *need)
{
    uint64_t slice = CLOCK_CELLS + (need->bytes + need->row_size) / CLOCK_BYTES_PER_CELL;
    while (!need_fits(memtable, need)) {
        if (slice == 0 || memtable->cells.page_count <= 1 || !clock_helps(memtable))
            return memtable_spare_drop(memtable) && need_fits(memtable, need);
        /* As many at a time as free a cell or two of the size that is needed. */
        uint64_t passed =
            clock_step(memtable, slice < CLOCK_CELLS_STEP ? slice : CLOCK_CELLS_STEP, need->pinned);
        slice -= passed < slice ? passed : slice;
    }
    return true;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

enum status memtable_init(struct memtable *memtable, const struct memtable_options *options)
{
    memset(memtable, 0, sizeof *memtable);
    memtable->alloc = options->alloc;
    memtable->seed = options->seed;
    memtable->budget_bytes = options->budget_bytes;
    memtable->target_bytes = options->budget_bytes;
    memtable->dirty.base = 1;
    if (memtable_cells_init(memtable) != STATUS_OK)
        return STATUS_OVERLOADED;
    memtable->table.buckets = block_get(memtable, BUCKETS_MIN * sizeof(row_ref), true);
    if (memtable->table.buckets == NULL) {
        memtable_cells_free(memtable);
        return STATUS_OVERLOADED;
    }
    memtable->table.bucket_count = BUCKETS_MIN;
    return STATUS_OK;
}

void memtable_free(struct memtable *memtable)
{
    assert(memtable->job == NULL);
    memtable_cells_free(memtable);
    table_free(memtable, &memtable->table);
    table_free(memtable, &memtable->table_old);
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
    row_ref ref = memtable->table.bucket_count == 0 ? 0 : *bucket_of(&memtable->table, hash);
    if (ref == 0)
        return;
    const struct row *row = row_at(memtable, ref);
    /* The head with the key, and the beginning of the record. */
    __builtin_prefetch(row);
    __builtin_prefetch((const uint8_t *)row + CACHE_LINE_BYTES);
    __builtin_prefetch((const uint8_t *)row + (size_t)2 * CACHE_LINE_BYTES);
}

struct row *memtable_find(struct memtable *memtable, struct span key, uint32_t hash)
{
    rehash_step(memtable, REHASH_BUCKETS);
    const row_ref *link = memtable_link_find(memtable, key, hash);
    if (link == NULL)
        return NULL;
    struct row *row = row_at(memtable, *link);
    /* Tested first: a hot row's line is then only read. */
    if ((row->flags & ROW_AGAIN) == 0)
        row->flags =
            (uint8_t)(row->flags | ((row->flags & ROW_REFERENCED) != 0 ? ROW_AGAIN : ROW_REFERENCED));
    return row;
}

const struct row *memtable_peek(const struct memtable *memtable, struct span key, uint32_t hash)
{
    const row_ref *link = memtable_link_find(memtable, key, hash);
    return link == NULL ? NULL : row_at(memtable, *link);
}

uint64_t memtable_row_sequence(const struct memtable *memtable, const struct row *row)
{
    if (!row_dirty(row))
        return 0;
    return memtable->sequence_newest - (uint16_t)((uint16_t)memtable->sequence_newest - row->sequence);
}

row_ref memtable_row_new(struct memtable *memtable, const struct memtable_put *put)
{
    row_ref ref = memtable_cell_get(memtable, row_size(put->key.size, put->record.size));
    if (ref == 0)
        return 0;
    struct row *row = row_at(memtable, ref);
    *row = (struct row){.sequence = (uint16_t)put->sequence,
                        .tag = tag_of(put->hash),
                        .record_size = (uint32_t)put->record.size,
                        .key_size = (uint16_t)put->key.size};
    if (put->key.size > 0)
        memcpy(row->bytes, put->key.data, put->key.size);
    if (put->record.size > 0)
        memcpy(row->bytes + put->key.size, put->record.data, put->record.size);
    return ref;
}

/* What a put leaves as it was. */
#define ROW_KEPT_FLAGS (ROW_IN_COLD | ROW_REFERENCED | ROW_AGAIN | ROW_BEHIND)

static uint8_t flags_of(const struct memtable_put *put, unsigned keep)
{
    return (uint8_t)(keep | ROW_DIRTY | (put->live ? (unsigned)ROW_LIVE : 0) |
                     (put->in_cold ? (unsigned)ROW_IN_COLD : 0));
}

/* Whether one more row of this size would be more than may be dirty. */
static bool dirty_full(const struct memtable *memtable, size_t size)
{
    uint64_t dirty = memtable->counters.bytes_dirty + memtable->counters.bytes_retired + size;
    return dirty > memtable->target_bytes / DIRTY_DENOMINATOR * DIRTY_NUMERATOR;
}

/* Room for a row of this size (0: none needed) and for a place in the dirty queue if needed. */
static bool put_make_room(struct memtable *memtable, size_t size, bool queued, const struct row *pinned)
{
    struct memtable_need need = {.row_size = size,
                                 .limit = memtable->target_bytes,
                                 .cells_are_room = memtable->job != NULL,
                                 .pinned = pinned};
    memtable->hand_idle -= memtable->hand_idle > 0;
    if (queued && queue_needs_chunk(&memtable->dirty))
        need.bytes += block_bytes(sizeof(struct dirty_chunk));
    if (queued && dirty_full(memtable, size))
        return false;
    if ((size > 0 || need.bytes > 0) && !memtable_make_room(memtable, &need)) {
        /* The target may just have fallen far, or a flush begun: what can be evicted is, a slice with each put. */
        need.limit = memtable->budget_bytes + memtable_job_bytes(memtable);
        if (memtable->target_bytes == need.limit || !need_fits(memtable, &need))
            return false;
    }
    return !queued || memtable_queue_reserve(memtable);
}

/* The row is not frozen and its cell is as large as the new record wants it. */
static enum status put_in_place(struct memtable *memtable, struct row *row, const struct memtable_put *put)
{
    bool was_dirty = row_dirty(row);
    if (!was_dirty && !put_make_room(memtable, 0, true, row))
        return STATUS_OVERLOADED;
    memtable_count_row(memtable, row, true);
    if (put->record.size > 0)
        memmove(row->bytes + row->key_size, put->record.data, put->record.size);
    row->record_size = (uint32_t)put->record.size;
    row->sequence = (uint16_t)put->sequence;
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
    row_ref ref = memtable_row_new(memtable, put);
    if (ref == 0)
        return STATUS_OVERLOADED;
    struct row *row = row_at(memtable, ref);
    row->flags = flags_of(put, old->flags & ROW_KEPT_FLAGS);
    if (row_frozen(memtable, old))
        row->flags |= ROW_BEHIND;
    row_ref *link = memtable_link_of(memtable, old);
    row_ref old_ref = *link;
    memtable_count_row(memtable, old, true);
    row->next = old->next;
    *link = ref;
    memtable_count_row(memtable, row, false);
    if (keeps_place) {
        row->dirty_index = old->dirty_index;
        *queue_place(&memtable->dirty, row) = row;
        memtable_cell_put(memtable, old_ref);
        return STATUS_OK;
    }
    memtable_queue_append(memtable, row, put->slot);
    if (row_dirty(old)) {
        old->flags |= ROW_RETIRED;
        old->next = old_ref;
        memtable->counters.bytes_retired += memtable_row_bytes(memtable, old);
    } else {
        memtable_cell_put(memtable, old_ref);
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

void memtable_row_remove(struct memtable *memtable, const struct row *row)
{
    row_ref *link = memtable_link_of(memtable, row);
    row_ref ref = *link;
    *link = row->next;
    memtable_count_row(memtable, row, true);
    if (row_dirty(row) && !row_frozen(memtable, row))
        memtable_queue_leave(memtable, row);
    memtable_cell_put(memtable, ref);
}

enum status memtable_put(struct memtable *memtable, const struct memtable_put *put)
{
    assert(put->key.size <= KEY_BYTES_MAX_HARD);
    assert(put->record.size < UINT32_MAX);
    assert((put->slot == SLOTS_COUNT) == ((put->hash & ROW_HASH_RESERVED) != 0));
    assert(put->sequence >= memtable->sequence_newest);
    memtable->sequence_newest = put->sequence;
    rehash_step(memtable, REHASH_BUCKETS);
    const row_ref *link = memtable_link_find(memtable, put->key, put->hash);
    if (link != NULL) {
        struct row *row = row_at(memtable, *link);
        if (erase_forgets(memtable, row, put)) {
            memtable_row_remove(memtable, row);
            return STATUS_OK;
        }
        size_t held = row_size(row->key_size, row->record_size);
        if (memtable_cell_same(memtable, held, row_size(put->key.size, put->record.size)) &&
            !row_frozen(memtable, row))
            return put_in_place(memtable, row, put);
        return put_replace(memtable, row, put);
    }
    if (erase_forgets(memtable, NULL, put))
        return STATUS_OK;
    if (!put_make_room(memtable, row_size(put->key.size, put->record.size), true, NULL))
        return STATUS_OVERLOADED;
    row_ref ref = memtable_row_new(memtable, put);
    if (ref == 0)
        return STATUS_OVERLOADED;
    struct row *row = row_at(memtable, ref);
    row->flags = flags_of(put, 0);
    row_insert(memtable, ref, put->hash);
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
    row_ref ref = memtable_row_new(memtable, put);
    if (ref == 0)
        return STATUS_OVERLOADED;
    struct row *row = row_at(memtable, ref);
    row->flags = (uint8_t)(ROW_IN_COLD | (put->live ? ROW_LIVE : 0));
    row_insert(memtable, ref, put->hash);
    memtable_count_row(memtable, row, false);
    grow_if_full(memtable);
    return STATUS_OK;
}

void memtable_set_target(struct memtable *memtable, uint64_t bytes)
{
    memtable->target_bytes = bytes < memtable->budget_bytes ? bytes : memtable->budget_bytes;
}

bool memtable_upkeep(struct memtable *memtable)
{
    rehash_step(memtable, REHASH_BUCKETS_UPKEEP);
    struct memtable_need need = {
        .limit = memtable->target_bytes - (memtable->target_bytes >> HEADROOM_SHIFT),
        .cells_are_room = memtable->counters.bytes <= memtable->target_bytes || memtable->job != NULL,
    };
    bool roomy = memtable_make_room(memtable, &need);
    return memtable->table_old.bucket_count != 0 || (!roomy && clock_helps(memtable));
}

const struct row *memtable_scan(const struct memtable *memtable, struct memtable_cursor *cursor)
{
    row_ref ref = cursor->row == 0 ? 0 : row_at(memtable, cursor->row)->next;
    uint64_t first = memtable->table.bucket_count;
    uint64_t total = first + memtable->table_old.bucket_count;
    for (; ref == 0 && cursor->bucket < total; cursor->bucket++) {
        uint64_t bucket = cursor->bucket;
        ref = bucket < first ? memtable->table.buckets[bucket] : memtable->table_old.buckets[bucket - first];
    }
    cursor->row = ref;
    return ref == 0 ? NULL : row_at(memtable, ref);
}
