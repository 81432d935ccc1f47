/* Rows of a range, in the order of their cold keys, as they were when the scan began.
 *
 * What the memtable holds of the range and the cold tier lacks (the dirty rows) is copied at the start and laid over
 * the cold tier's snapshot, which the world takes when it carries out the same step's effects. A flush that is under
 * way may or may not be in that snapshot; its rows are dirty until it ends, so the overlay has them either way.
 *
 * Nothing is fed while a scan is started: rows come at the end of a turn, a bounded number at a time. */
#include <assert.h>

#include "shard/state.h"
#include "store/cold_page.h"

/* Rows fed in one turn by one scan: well below a millisecond. */
#define SCAN_FEED_ROWS 4096u

/* Scans looked after in one turn; most are of a few rows. */
#define SCANS_PER_TURN 64u

/* ---- who wants the rows --------------------------------------------------------------------------------- */

/* False: the owner has enough; the scan ends, truncated. */
static bool feed(struct shard *shard, struct scan *scan, struct span cold_key, struct span record)
{
    struct span key = cold_key;
    if (scan->slot != SLOTS_COUNT)
        key = span_of(cold_key.data + COLD_KEY_PREFIX_BYTES, cold_key.size - COLD_KEY_PREFIX_BYTES);
    switch (scan->kind) {
    case SCAN_RESCAN:
        trees_rescan_row(shard, key, record);
        return true;
    case SCAN_EXCHANGE:
        initiating_row(shard, key, record);
        return true;
    case SCAN_SERVE:
        serving_row(scan->owner, key, record);
        return true;
    case SCAN_HINTS:
        return handoff_row(shard, key, record);
    case SCAN_PURGE:
        purge_row(shard, key, record);
        return true;
    case SCAN_ROWS:
        return rows_row(shard, scan->owner, key, record);
    }
    return false;
}

static struct span entry_key(const struct scan *scan, uint32_t index)
{
    const struct scan_entry *entry = &scan->entries[index];
    return span_of(scan->overlay.data + entry->key_at, entry->key_size);
}

/* The scan is freed before its owner hears of it, at the next turn's begin: what it needs is passed. */
static void end(struct shard *shard, struct scan *scan)
{
    enum scan_kind kind = scan->kind;
    void *owner = scan->owner;
    enum status status = scan->status;
    bool truncated = scan->truncated;
    struct span reached = scan->entry_at == 0 ? (struct span){0} : entry_key(scan, scan->entry_at - 1);
    scan_stop(shard, scan);
    switch (kind) {
    case SCAN_RESCAN:
        trees_rescan_done(shard, status);
        return;
    case SCAN_EXCHANGE:
        initiating_read(shard, status);
        return;
    case SCAN_SERVE:
        serving_read(shard, owner, status);
        return;
    case SCAN_HINTS:
        handoff_read(shard, status, truncated);
        return;
    case SCAN_PURGE:
        purge_scanned(shard, status);
        return;
    case SCAN_ROWS:
        rows_read(shard, owner, status, truncated, reached);
        return;
    }
}

/* ---- the overlay ---------------------------------------------------------------------------------------- */

static struct span entry_record(const struct scan *scan, uint32_t index)
{
    const struct scan_entry *entry = &scan->entries[index];
    return span_of(scan->overlay.data + entry->key_at + entry->key_size, entry->record_size);
}

static void sift(struct scan *scan, uint32_t at, uint32_t count)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && span_compare(entry_key(scan, child), entry_key(scan, child + 1)) < 0)
            child++;
        if (span_compare(entry_key(scan, at), entry_key(scan, child)) >= 0)
            return;
        struct scan_entry held = scan->entries[at];
        scan->entries[at] = scan->entries[child];
        scan->entries[child] = held;
        at = child;
    }
}

static void sort_entries(struct scan *scan)
{
    for (uint32_t i = scan->entry_count / 2; i > 0; i--)
        sift(scan, i - 1, scan->entry_count);
    for (uint32_t end_at = scan->entry_count; end_at > 1; end_at--) {
        struct scan_entry held = scan->entries[0];
        scan->entries[0] = scan->entries[end_at - 1];
        scan->entries[end_at - 1] = held;
        sift(scan, 0, end_at - 1);
    }
}

static bool in_range(const struct scan *scan, struct span cold_key)
{
    return span_compare(cold_key, buf_span(&scan->first)) >= 0 &&
           span_compare(cold_key, buf_span(&scan->end)) < 0;
}

static bool add_entry(struct shard *shard, struct scan *scan, const struct row *row)
{
    struct span key = row_key(row);
    struct span record = row_record(row);
    uint8_t prefix[COLD_KEY_PREFIX_BYTES];
    size_t at = scan->overlay.size;
    if (scan->slot != SLOTS_COUNT) {
        cold_key_prefix(key, scan->slot, prefix);
        buf_append(&scan->overlay, prefix, sizeof prefix);
    }
    buf_append_span(&scan->overlay, key);
    if (scan->overlay.failed)
        return false;
    struct span cold_key = span_of(scan->overlay.data + at, scan->overlay.size - at);
    if (!in_range(scan, cold_key)) {
        scan->overlay.size = at;
        return true;
    }
    size_t key_size = cold_key.size;
    buf_append_span(&scan->overlay, record);
    if (scan->entry_count == scan->entry_capacity) {
        uint32_t capacity = scan->entry_capacity == 0 ? 16 : scan->entry_capacity * 2;
        struct scan_entry *entries = alloc_resize(
            &shard->alloc, scan->entries, scan->entry_capacity * sizeof *entries, capacity * sizeof *entries);
        if (entries == NULL)
            return false;
        scan->entries = entries;
        scan->entry_capacity = capacity;
    }
    scan->entries[scan->entry_count++] = (struct scan_entry){
        .key_at = at, .key_size = (uint32_t)key_size, .record_size = (uint32_t)record.size};
    return !scan->overlay.failed;
}

/* Keeps the first SCAN_OVERLAY_ROWS entries; the range ends behind them. */
static bool cut_overlay(struct shard *shard, struct scan *scan)
{
    struct buf kept;
    buf_init(&kept, &shard->alloc);
    sort_entries(scan);
    buf_clear(&scan->end);
    buf_append_span(&scan->end, entry_key(scan, SCAN_OVERLAY_ROWS));
    for (uint32_t i = 0; i < SCAN_OVERLAY_ROWS; i++) {
        struct scan_entry *entry = &scan->entries[i];
        size_t at = kept.size;
        buf_append(&kept, scan->overlay.data + entry->key_at, entry->key_size + (size_t)entry->record_size);
        entry->key_at = at;
    }
    buf_free(&scan->overlay);
    scan->overlay = kept;
    scan->entry_count = SCAN_OVERLAY_ROWS;
    scan->truncated = true;
    return !kept.failed && !scan->end.failed;
}

/* Of one key: without a walk over all dirty rows of its slot. */
static bool collect_point(struct shard *shard, struct scan *scan, struct span key)
{
    const struct row *row = memtable_peek(&shard->memtable, key, memtable_hash(&shard->memtable, key));
    return row == NULL || !row_dirty(row) || add_entry(shard, scan, row);
}

static bool collect_overlay(struct shard *shard, struct scan *scan)
{
    struct memtable_slot_cursor cursor = {0};
    for (const struct row *row = memtable_slot_dirty(&shard->memtable, scan->slot, &cursor); row != NULL;
         row = memtable_slot_dirty(&shard->memtable, scan->slot, &cursor)) {
        if (!add_entry(shard, scan, row))
            return false;
        if (scan->may_end_early && scan->entry_count >= 2 * SCAN_OVERLAY_ROWS && !cut_overlay(shard, scan))
            return false;
    }
    if (scan->may_end_early && scan->entry_count > SCAN_OVERLAY_ROWS && !cut_overlay(shard, scan))
        return false;
    if (scan->entry_count > 0)
        sort_entries(scan);
    return true;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

/* A cold key of the slot with nothing but a tag; past the last tag: the next slot's first. */
static void put_tag_key(struct buf *buf, uint16_t slot, uint32_t tag)
{
    uint32_t prefix = ((uint32_t)slot << 16) + tag;
    uint8_t bytes[COLD_KEY_PREFIX_BYTES] = {(uint8_t)(prefix >> 24), (uint8_t)(prefix >> 16),
                                            (uint8_t)(prefix >> 8), (uint8_t)prefix};
    buf_append(buf, bytes, sizeof bytes);
}

static void put_range(struct scan *scan, const struct scan_options *options)
{
    static const uint8_t after = 0;
    if (options->slot == SLOTS_COUNT) {
        buf_append_span(&scan->first, options->first);
        buf_append_span(&scan->end, options->end);
    } else if (options->point) {
        uint8_t prefix[COLD_KEY_PREFIX_BYTES];
        cold_key_prefix(options->first, options->slot, prefix);
        buf_append(&scan->first, prefix, sizeof prefix);
        buf_append_span(&scan->first, options->first);
        buf_append_span(&scan->end, buf_span(&scan->first));
        buf_append(&scan->end, &after, 1);
    } else {
        if (options->first.size > 0) {
            buf_append_span(&scan->first, options->first);
            buf_append(&scan->first, &after, 1);
        } else {
            put_tag_key(&scan->first, options->slot, options->tag_first);
        }
        put_tag_key(&scan->end, options->slot, (uint32_t)options->tag_last + 1);
    }
}

static void read_cold(struct shard *shard, struct scan *scan)
{
    if (shard->cold_empty) {
        scan->finished = true;
        list_push_back(&shard->scans_ready, &scan->ready);
        return;
    }
    struct effect *effect = effects_add(shard->effects, EFFECT_COLD_SCAN);
    effect->ticket = scan->ticket;
    effect->bytes = buf_span(&scan->first);
    effect->end = buf_span(&scan->end);
    scan->opened = true;
    scan->reading = true;
}

static void scan_free(struct shard *shard, struct scan *scan)
{
    list_remove(&scan->ready);
    buf_free(&scan->first);
    buf_free(&scan->end);
    buf_free(&scan->overlay);
    buf_free(&scan->page);
    alloc_put(&shard->alloc, scan->entries, scan->entry_capacity * sizeof *scan->entries);
    alloc_put(&shard->alloc, scan, sizeof *scan);
}

struct scan *scan_start(struct shard *shard, const struct scan_options *options)
{
    struct scan *scan = NULL;
    if (shard->scans.count < COLD_SCANS_MAX)
        scan = alloc_get_zeroed(&shard->alloc, sizeof *scan);
    if (scan == NULL)
        return NULL;
    list_init(&scan->ready);
    buf_init(&scan->first, &shard->alloc);
    buf_init(&scan->end, &shard->alloc);
    buf_init(&scan->overlay, &shard->alloc);
    buf_init(&scan->page, &shard->alloc);
    scan->kind = options->kind;
    scan->owner = options->owner;
    scan->slot = options->slot;
    scan->may_end_early = options->may_end_early;
    scan->ticket = ++shard->scan_ticket_last;
    put_range(scan, options);
    bool collected =
        !scan->first.failed && !scan->end.failed &&
        (options->point ? collect_point(shard, scan, options->first) : collect_overlay(shard, scan));
    if (!collected || map_put(&shard->scans, scan->ticket, scan) != STATUS_OK) {
        /* Too much of the range is dirty for the memory there is: once it is flushed there is less. */
        shard->flush.wanted = true;
        scan_free(shard, scan);
        return NULL;
    }
    read_cold(shard, scan);
    return scan;
}

struct scan *scan_need(struct shard *shard, enum scan_kind kind, void *owner,
                       const struct exchange_need *need)
{
    struct scan_options options = {
        .kind = kind,
        .owner = owner,
        .slot = need->slot,
        .tag_first = need->tag_first,
        .tag_last = need->tag_last,
        .point = need->point,
    };
    if (need->point)
        options.first = need->key;
    return scan_start(shard, &options);
}

void scan_stop(struct shard *shard, struct scan *scan)
{
    struct scan *taken = map_take(&shard->scans, scan->ticket);
    assert(taken == scan);
    if (scan->opened)
        effects_add(shard->effects, EFFECT_COLD_SCAN_STOP)->ticket = scan->ticket;
    /* The effect that opens it may still point to its range. */
    list_remove(&scan->ready);
    list_push_back(&shard->scans_ended, &scan->ready);
}

void scans_turn_begin(struct shard *shard)
{
    while (!list_empty(&shard->scans_ended))
        scan_free(shard, LIST_ENTRY(list_pop_front(&shard->scans_ended), struct scan, ready));
}

void scans_free(struct shard *shard)
{
    scans_turn_begin(shard);
    uint32_t at = 0;
    for (struct scan *scan = map_next(&shard->scans, &at); scan != NULL; scan = map_next(&shard->scans, &at))
        scan_free(shard, scan);
    map_free(&shard->scans);
}

/* ---- feeding -------------------------------------------------------------------------------------------- */

/* Feeds overlay rows below the key (all of them without one). Erased rows only hide what the cold tier has. */
static bool feed_overlay(struct shard *shard, struct scan *scan, const struct span *below, uint32_t *budget)
{
    while (scan->entry_at<scan->entry_count && * budget> 0) {
        struct span key = entry_key(scan, scan->entry_at);
        if (below != NULL && span_compare(key, *below) >= 0)
            return true;
        struct span record = entry_record(scan, scan->entry_at);
        scan->entry_at++;
        (*budget)--;
        if (record.size > 0 && !feed(shard, scan, key, record))
            return false;
    }
    return true;
}

/* One row of a page, after the overlay's rows before it. */
static bool feed_cold(struct shard *shard, struct scan *scan, struct span key, struct span record,
                      uint32_t *budget)
{
    if (!feed_overlay(shard, scan, &key, budget))
        return false;
    bool hidden = scan->entry_at < scan->entry_count && span_equal(entry_key(scan, scan->entry_at), key);
    return hidden || feed(shard, scan, key, record);
}

static void run(struct shard *shard, struct scan *scan)
{
    uint32_t budget = UINT32_MAX; /* within a page: the page bounds it, and the overlay among its keys */
    struct reader page = reader_of(buf_span(&scan->page));
    struct span key;
    struct span record;
    enum status status = cold_page_next(&page, &key, &record);
    while (status == STATUS_OK) {
        if (!feed_cold(shard, scan, key, record, &budget)) {
            scan->truncated = true;
            end(shard, scan);
            return;
        }
        status = cold_page_next(&page, &key, &record);
    }
    assert(status == STATUS_NOT_FOUND); /* the world made the page */
    buf_clear(&scan->page);
    if (!scan->finished) {
        effects_add(shard->effects, EFFECT_COLD_SCAN_NEXT)->ticket = scan->ticket;
        scan->reading = true;
        return;
    }
    budget = SCAN_FEED_ROWS;
    if (!feed_overlay(shard, scan, NULL, &budget)) {
        scan->truncated = true;
        end(shard, scan);
    } else if (scan->entry_at < scan->entry_count) {
        list_push_back(&shard->scans_ready, &scan->ready);
    } else {
        end(shard, scan);
    }
}

/* Bounded: a scan that ends is often followed by the next of the same owner, which may be ready at once. */
void scans_turn_end(struct shard *shard)
{
    for (uint32_t i = 0; i < SCANS_PER_TURN && !list_empty(&shard->scans_ready); i++) {
        struct scan *scan = LIST_ENTRY(list_pop_front(&shard->scans_ready), struct scan, ready);
        if (scan->status != STATUS_OK)
            end(shard, scan);
        else
            run(shard, scan);
    }
}

void scan_page(struct shard *shard, const struct event *event)
{
    struct scan *scan = map_get(&shard->scans, event->ticket);
    if (scan == NULL)
        return; /* it was stopped while the page was on its way */
    assert(scan->reading);
    scan->reading = false;
    scan->status = event->status;
    scan->finished = event->status != STATUS_OK || !event->flag;
    scan->opened = !scan->finished;
    if (event->status == STATUS_OK)
        buf_append_span(&scan->page, event->bytes);
    if (scan->page.failed)
        scan->status = STATUS_OVERLOADED;
    list_push_back(&shard->scans_ready, &scan->ready);
}
