/* The cold tier of a node of shard_world.h: what its shard flushed, or a test put there, in the order of cold keys;
 * scans of it with snapshots, answered page by page when the world moves. */
#ifndef RONDO_TESTS_SHARD_WORLD_COLD_H
#define RONDO_TESTS_SHARD_WORLD_COLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/key.h"
#include "shard/shard.h"
#include "store/cold_page.h"

struct world_scan {
    uint64_t ticket;
    bool wanted;     /* a page of it is asked for */
    struct buf rows; /* the snapshot, as pages have them */
    size_t told;
};

struct world_cold {
    struct alloc *alloc;
    struct buf rows; /* all, as pages have them */
    struct world_scan scans[COLD_SCANS_MAX];
    uint32_t scan_count;    /* open ones, in the order of their opening */
    uint32_t scans_opened;  /* in all */
    bool scans_held;        /* pages wait */
    size_t page_bytes;      /* 0 = COLD_SCAN_PAGE_BYTES */
    enum status page_fails; /* what pages answer instead; 0 = they do not fail */
};

static inline void world_cold_init(struct world_cold *cold, struct alloc *alloc)
{
    *cold = (struct world_cold){.alloc = alloc};
    buf_init(&cold->rows, alloc);
}

static inline void world_cold_free(struct world_cold *cold)
{
    while (cold->scan_count > 0)
        buf_free(&cold->scans[--cold->scan_count].rows);
    buf_free(&cold->rows);
}

/* ---- rows ------------------------------------------------------------------------------------------------ */

/* The next row of a well-formed page; false at its end. */
static inline bool world_cold_row(struct reader *reader, struct span *key, struct span *record)
{
    enum status status = cold_page_next(reader, key, record);
    assert_true(status == STATUS_OK || status == STATUS_NOT_FOUND);
    return status == STATUS_OK;
}

static inline bool world_cold_get(const struct world_cold *cold, struct span wanted, struct span *record)
{
    struct reader reader = reader_of(buf_span(&cold->rows));
    struct span key;
    while (world_cold_row(&reader, &key, record)) {
        if (span_equal(key, wanted))
            return true;
    }
    return false;
}

/* Merges a packed page into the rows: its records replace those of the same keys. */
static inline void world_cold_merge(struct world_cold *cold, struct span page)
{
    struct buf merged;
    struct reader old = reader_of(buf_span(&cold->rows));
    struct reader new = reader_of(page);
    struct span key[2];
    struct span record[2];
    bool left[2] = {world_cold_row(&old, &key[0], &record[0]), world_cold_row(&new, &key[1], &record[1])};
    buf_init(&merged, cold->alloc);
    while (left[0] || left[1]) {
        int order = !left[0] ? 1 : !left[1] ? -1 : span_compare(key[0], key[1]);
        unsigned taken = order < 0 ? 0 : 1;
        cold_page_put(&merged, key[taken], record[taken]);
        if (order <= 0)
            left[0] = world_cold_row(&old, &key[0], &record[0]);
        if (order >= 0)
            left[1] = world_cold_row(&new, &key[1], &record[1]);
    }
    buf_free(&cold->rows);
    cold->rows = merged;
}

static inline void world_cold_pack(struct buf *page, const uint8_t prefix[COLD_KEY_PREFIX_BYTES],
                                   struct span key, struct span record)
{
    struct buf cold_key;
    buf_init(&cold_key, page->alloc);
    buf_append(&cold_key, prefix, COLD_KEY_PREFIX_BYTES);
    buf_append_span(&cold_key, key);
    cold_page_put(page, buf_span(&cold_key), record);
    buf_free(&cold_key);
}

/* A row that the shard knows nothing of. */
static inline void world_cold_put(struct world_cold *cold, struct span key, struct span record)
{
    struct buf page;
    uint8_t prefix[COLD_KEY_PREFIX_BYTES];
    cold_key_prefix(key, key_slot(key), prefix);
    buf_init(&page, cold->alloc);
    world_cold_pack(&page, prefix, key, record);
    world_cold_merge(cold, buf_span(&page));
    buf_free(&page);
}

/* A sorted job. */
static inline void world_cold_ingest(struct world_cold *cold, const struct flush_job *job)
{
    struct buf page;
    buf_init(&page, cold->alloc);
    for (uint64_t i = 0; i < flush_count(job); i++) {
        struct flush_row row = flush_row(job, i);
        world_cold_pack(&page, row.prefix, row.key, row.record);
    }
    world_cold_merge(cold, buf_span(&page));
    buf_free(&page);
}

/* ---- scans ------------------------------------------------------------------------------------------------ */

static inline struct world_scan *world_scan_find(struct world_cold *cold, uint64_t ticket)
{
    for (uint32_t i = 0; i < cold->scan_count; i++) {
        if (cold->scans[i].ticket == ticket)
            return &cold->scans[i];
    }
    return NULL;
}

static inline void world_scan_forget(struct world_cold *cold, struct world_scan *scan)
{
    buf_free(&scan->rows);
    cold->scan_count--;
    memmove(scan, scan + 1, (size_t)(&cold->scans[cold->scan_count] - scan) * sizeof *scan);
}

/* EFFECT_COLD_SCAN, EFFECT_COLD_SCAN_NEXT, EFFECT_COLD_SCAN_STOP. */
static inline void world_scan_effect(struct world_cold *cold, const struct effect *effect)
{
    struct world_scan *scan = world_scan_find(cold, effect->ticket);
    if (effect->kind == EFFECT_COLD_SCAN_STOP) {
        if (scan != NULL)
            world_scan_forget(cold, scan);
        return;
    }
    if (effect->kind == EFFECT_COLD_SCAN_NEXT) {
        assert_non_null(scan);
        assert_false(scan->wanted);
        scan->wanted = true;
        return;
    }
    assert_int_equal(effect->kind, EFFECT_COLD_SCAN);
    assert_null(scan);
    assert_true(cold->scan_count < COLD_SCANS_MAX);
    cold->scans_opened++;
    scan = &cold->scans[cold->scan_count++];
    *scan = (struct world_scan){.ticket = effect->ticket, .wanted = true};
    buf_init(&scan->rows, cold->alloc);
    struct reader reader = reader_of(buf_span(&cold->rows));
    struct span key;
    struct span record;
    while (world_cold_row(&reader, &key, &record)) {
        if (span_compare(key, effect->bytes) >= 0 && span_compare(key, effect->end) < 0)
            cold_page_put(&scan->rows, key, record);
    }
}

/* Moves the rows of a scan's next page into `page`; whether more follow. */
static inline bool world_scan_read(const struct world_cold *cold, struct world_scan *scan, struct buf *page)
{
    size_t page_bytes = cold->page_bytes != 0 ? cold->page_bytes : COLD_SCAN_PAGE_BYTES;
    struct reader reader = reader_of(buf_span(&scan->rows));
    struct span key;
    struct span record;
    (void)reader_bytes(&reader, scan->told);
    while (world_cold_row(&reader, &key, &record)) {
        size_t bytes = cold_page_row_bytes(key, record);
        if (page->size > 0 && page->size + bytes > page_bytes)
            return true;
        cold_page_put(page, key, record);
        scan->told += bytes;
    }
    return false;
}

/* The event of the first page that is asked for, with `page` behind it; false when there is none. */
static inline bool world_scan_answer(struct world_cold *cold, struct event *event, struct buf *page)
{
    struct world_scan *scan = cold->scans;
    while (scan < cold->scans + cold->scan_count && !scan->wanted)
        scan++;
    if (cold->scans_held || scan == cold->scans + cold->scan_count)
        return false;
    buf_init(page, cold->alloc);
    *event = (struct event){.kind = EVENT_COLD_SCAN, .ticket = scan->ticket, .status = cold->page_fails};
    if (cold->page_fails == STATUS_OK)
        event->flag = world_scan_read(cold, scan, page);
    event->bytes = buf_span(page);
    scan->wanted = false;
    if (!event->flag)
        world_scan_forget(cold, scan);
    return true;
}

#endif
