/* Range scans of the cold tier: a snapshot of RocksDB, and one iterator over it that lives from page to page.
 *
 * A table that is ingested while a snapshot exists gets a sequence number above it (RocksDB's snapshot_consistency, on
 * by default), so the snapshot alone fixes what is seen: the iterator is made with the first page, where disk time may
 * be taken. Blocks that a scan reads do not displace those of single reads from the cache. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "edge/cold_internal.h"
#include "store/cold_page.h"

/* RocksDB reads ahead by itself, from 8 KiB doubling up to 256 KiB, once blocks are asked for in order. A range of
 * COLD_SCAN_LONG_BYTES or more is read in these strides from the start. */
#define COLD_SCAN_LONG_BYTES ((uint64_t)8 << 20)
#define COLD_SCAN_READAHEAD_BYTES ((size_t)1 << 20)

struct cold_scan {
    struct cold *cold;
    struct list_link open; /* in struct cold */
    bool lost;             /* the database was closed under it */
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *options; /* points to the end key */
    rocksdb_iterator_t *iterator;   /* NULL before the first page */
    size_t first_size;
    size_t end_size;
    uint8_t keys[]; /* first, then end */
};

static const char *scan_first(const struct cold_scan *scan)
{
    return (const char *)scan->keys;
}

static const char *scan_end(const struct cold_scan *scan)
{
    return (const char *)scan->keys + scan->first_size;
}

static struct cold_scan *scan_make(struct cold *cold, struct span first, struct span end)
{
    struct cold_scan *scan = calloc(1, sizeof *scan + first.size + end.size);
    if (scan == NULL)
        return NULL;
    scan->cold = cold;
    scan->first_size = first.size;
    scan->end_size = end.size;
    if (first.size > 0)
        memcpy(scan->keys, first.data, first.size);
    if (end.size > 0)
        memcpy(scan->keys + first.size, end.data, end.size);
    return scan;
}

enum status cold_scan_open(struct cold *cold, struct span first, struct span end, struct cold_scan **out)
{
    struct cold_scan *scan = scan_make(cold, first, end);
    if (scan == NULL)
        return STATUS_OVERLOADED;
    /* Whoever opens the database anew may take long. */
    if (pthread_rwlock_tryrdlock(&cold->lock) != 0) {
        free(scan);
        return STATUS_OVERLOADED;
    }
    if (cold->database == NULL) {
        pthread_rwlock_unlock(&cold->lock);
        free(scan);
        return STATUS_IO_ERROR;
    }
    scan->snapshot = rocksdb_create_snapshot(cold->database);
    pthread_mutex_lock(&cold->state_lock);
    list_push_back(&cold->scans, &scan->open);
    pthread_mutex_unlock(&cold->state_lock);
    pthread_rwlock_unlock(&cold->lock);
    *out = scan;
    return STATUS_OK;
}

/* How much of the tables the range takes, roughly; 0 when that cannot be told. */
static uint64_t scan_bytes(const struct cold_scan *scan)
{
    const char *first = scan_first(scan);
    const char *end = scan_end(scan);
    uint64_t bytes = 0;
    char *error = NULL;
    rocksdb_approximate_sizes(scan->cold->database, 1, &first, &scan->first_size, &end, &scan->end_size,
                              &bytes, &error);
    if (error == NULL)
        return bytes;
    rocksdb_free(error);
    return 0;
}

static void scan_start(struct cold_scan *scan)
{
    scan->options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_snapshot(scan->options, scan->snapshot);
    rocksdb_readoptions_set_iterate_upper_bound(scan->options, scan_end(scan), scan->end_size);
    rocksdb_readoptions_set_verify_checksums(scan->options, 1);
    rocksdb_readoptions_set_fill_cache(scan->options, 0);
    if (scan_bytes(scan) >= COLD_SCAN_LONG_BYTES)
        rocksdb_readoptions_set_readahead_size(scan->options, COLD_SCAN_READAHEAD_BYTES);
    scan->iterator = rocksdb_create_iterator(scan->cold->database, scan->options);
    rocksdb_iter_seek(scan->iterator, scan_first(scan), scan->first_size);
}

/* The iterator stands on the first row that is not in a page yet. */
static enum status scan_fill(struct cold_scan *scan, size_t page_bytes, struct buf *page, bool *more)
{
    for (; rocksdb_iter_valid(scan->iterator); rocksdb_iter_next(scan->iterator)) {
        size_t key_size = 0;
        size_t record_size = 0;
        const char *key_data = rocksdb_iter_key(scan->iterator, &key_size);
        const char *record_data = rocksdb_iter_value(scan->iterator, &record_size);
        struct span key = span_of(key_data, key_size);
        struct span record = span_of(record_data, record_size);
        if (page->size > 0 && page->size + cold_page_row_bytes(key, record) > page_bytes) {
            *more = true;
            return STATUS_OK;
        }
        cold_page_put(page, key, record);
        if (page->failed)
            return STATUS_OVERLOADED;
    }
    char *error = NULL;
    rocksdb_iter_get_error(scan->iterator, &error);
    return error != NULL ? cold_error(scan->cold, error, NULL, "scan") : STATUS_OK;
}

static bool scan_range_is_empty(const struct cold_scan *scan)
{
    return span_compare(span_of(scan_first(scan), scan->first_size),
                        span_of(scan_end(scan), scan->end_size)) >= 0;
}

enum status cold_scan_next(struct cold_scan *scan, size_t page_bytes, struct buf *page, bool *more)
{
    assert(page->size == 0);
    *more = false;
    pthread_rwlock_rdlock(&scan->cold->lock);
    enum status status = STATUS_OK;
    if (scan->lost) {
        status = STATUS_IO_ERROR;
    } else if (!scan_range_is_empty(scan)) {
        if (scan->iterator == NULL)
            scan_start(scan);
        status = scan_fill(scan, page_bytes, page, more);
    }
    pthread_rwlock_unlock(&scan->cold->lock);
    return status;
}

/* Gives back all that is the database's. */
static void scan_release(struct cold_scan *scan)
{
    if (scan->lost)
        return;
    if (scan->iterator != NULL) {
        rocksdb_iter_destroy(scan->iterator);
        rocksdb_readoptions_destroy(scan->options);
    }
    rocksdb_release_snapshot(scan->cold->database, scan->snapshot);
    scan->lost = true;
}

void cold_scan_close(struct cold_scan *scan)
{
    if (scan == NULL)
        return;
    struct cold *cold = scan->cold;
    pthread_rwlock_rdlock(&cold->lock);
    pthread_mutex_lock(&cold->state_lock);
    list_remove(&scan->open);
    pthread_mutex_unlock(&cold->state_lock);
    scan_release(scan);
    pthread_rwlock_unlock(&cold->lock);
    free(scan);
}

void cold_scans_lose(struct cold *cold)
{
    for (struct list_link *link = cold->scans.next; link != &cold->scans; link = link->next)
        scan_release(LIST_ENTRY(link, struct cold_scan, open));
}
