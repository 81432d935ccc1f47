/* The cold tier: RocksDB as a sorted store that only ingests.
 *
 * A failure in the background (a disk that was full during a compaction) leaves RocksDB refusing work until
 * it is opened again, so the next ingestion does that: readers wait for it behind a read-write lock, and the scans
 * that were open are lost. */
#include "edge/cold.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "edge/cold_internal.h"
#include "edge/files.h"
#include "model/reserved.h"
#include "store/flush.h"

/* After a failure the database is opened anew at most so often. */
#define COLD_REOPEN_SECONDS 1

/* RocksDB tells kinds of errors by the beginning of a text. */
enum status cold_error(struct cold *cold, char *error, struct buf *why, const char *action)
{
    enum status status = STATUS_IO_ERROR;
    if (strncmp(error, "Corruption", 10) == 0)
        status = STATUS_CORRUPT;
    else if (strstr(error, "No space left") != NULL || strstr(error, "Space limit") != NULL ||
             strstr(error, "quota exceeded") != NULL)
        status = STATUS_DISK_FULL;
    if (why != NULL)
        buf_append_format(why, "cannot %s the cold tier %s: %s", action, cold->path, error);
    rocksdb_free(error);
    /* A database that cannot even be opened is for people to look at. */
    if (status == STATUS_CORRUPT && cold->opened && cold->damaged != NULL)
        cold->damaged(cold->context);
    return status;
}

static void cold_free(struct cold *cold)
{
    rocksdb_envoptions_destroy(cold->environment);
    rocksdb_ingestexternalfileoptions_destroy(cold->ingest_options);
    rocksdb_readoptions_destroy(cold->read_options);
    rocksdb_options_destroy(cold->options);
    rocksdb_block_based_options_destroy(cold->table_options);
    rocksdb_cache_destroy(cold->cache);
    pthread_rwlock_destroy(&cold->lock);
    pthread_mutex_destroy(&cold->state_lock);
    free(cold->path);
    free(cold->temporary_path);
    free(cold);
}

enum status cold_open(const struct cold_options *wanted, struct cold **out, struct buf *why)
{
    enum status status = files_make_directory(wanted->path, NULL, why);
    if (status == STATUS_OK)
        status = files_make_directory(wanted->temporary_path, NULL, why);
    if (status == STATUS_OK)
        status = files_empty_directory(wanted->temporary_path, why);
    if (status != STATUS_OK)
        return status;
    struct cold *cold = calloc(1, sizeof(*cold));
    if (cold == NULL)
        return STATUS_OVERLOADED;
    pthread_rwlock_init(&cold->lock, NULL);
    pthread_mutex_init(&cold->state_lock, NULL);
    list_init(&cold->scans);
    cold->path = files_join(wanted->path, ".");
    cold->path[strlen(wanted->path)] = '\0';
    cold->temporary_path = files_join(wanted->temporary_path, ".");
    cold->temporary_path[strlen(wanted->temporary_path)] = '\0';
    cold->context = wanted->context;
    cold->damaged = wanted->damaged;
    cold_options_make(cold, wanted);

    char *error = NULL;
    cold->database = rocksdb_open(cold->options, cold->path, &error);
    if (error != NULL && strstr(error, "not linked") != NULL) {
        /* A RocksDB built without this compression. */
        rocksdb_free(error);
        error = NULL;
        rocksdb_options_set_compression(cold->options, rocksdb_no_compression);
        cold->database = rocksdb_open(cold->options, cold->path, &error);
    }
    if (error != NULL) {
        status = cold_error(cold, error, why, "open");
        cold_free(cold);
        return status;
    }
    cold->opened = true;
    *out = cold;
    return STATUS_OK;
}

void cold_close(struct cold *cold)
{
    if (cold == NULL)
        return;
    assert(list_empty(&cold->scans));
    if (cold->database != NULL)
        rocksdb_close(cold->database);
    cold_free(cold);
}

enum status cold_get(struct cold *cold, struct span key, struct buf *record)
{
    pthread_rwlock_rdlock(&cold->lock);
    if (cold->database == NULL) {
        pthread_rwlock_unlock(&cold->lock);
        return STATUS_IO_ERROR;
    }
    char *error = NULL;
    rocksdb_pinnableslice_t *slice =
        rocksdb_get_pinned(cold->database, cold->read_options, (const char *)key.data, key.size, &error);
    enum status status = STATUS_OK;
    if (error != NULL) {
        status = cold_error(cold, error, NULL, "read");
    } else if (slice == NULL) {
        status = STATUS_NOT_FOUND;
    } else {
        size_t size = 0;
        const char *value = rocksdb_pinnableslice_value(slice, &size);
        buf_append(record, value, size);
        if (record->failed)
            status = STATUS_OVERLOADED;
    }
    rocksdb_pinnableslice_destroy(slice);
    pthread_rwlock_unlock(&cold->lock);
    return status;
}

/* A number that RocksDB gives as text or integer; 0 when it has none. The read lock is held. */
static uint64_t cold_property(const struct cold *cold, const char *name)
{
    char *text = cold->database != NULL ? rocksdb_property_value(cold->database, name) : NULL;
    if (text == NULL)
        return 0;
    uint64_t number = strtoull(text, NULL, 10);
    rocksdb_free(text);
    return number;
}

static uint64_t cold_level0_files(const struct cold *cold)
{
    return cold_property(cold, "rocksdb.num-files-at-level0");
}

/* Whether level 0 is larger than it may be. The read lock is held. */
static bool cold_level0_large(const struct cold *cold)
{
    if (cold->database == NULL)
        return false;
    uint64_t level0_bytes = 0;
    uint64_t rest_bytes = 0;
    const rocksdb_livefiles_t *files = rocksdb_livefiles(cold->database);
    int count = rocksdb_livefiles_count(files);
    for (int i = 0; i < count; i++) {
        uint64_t *bytes = rocksdb_livefiles_level(files, i) == 0 ? &level0_bytes : &rest_bytes;
        *bytes += rocksdb_livefiles_size(files, i);
    }
    rocksdb_livefiles_destroy(files);
    return level0_bytes > COLD_LEVEL0_BYTES && level0_bytes > rest_bytes;
}

bool cold_pressure(struct cold *cold)
{
    pthread_rwlock_rdlock(&cold->lock);
    uint64_t files = cold_level0_files(cold);
    bool pressure =
        files >= COLD_LEVEL0_FILES_MAX || (files >= COLD_LEVEL0_COMPACT && cold_level0_large(cold));
    pthread_rwlock_unlock(&cold->lock);
    return pressure;
}

bool cold_empty(struct cold *cold)
{
    pthread_rwlock_rdlock(&cold->lock);
    bool empty = false;
    if (cold->database != NULL) {
        rocksdb_iterator_t *iterator = rocksdb_create_iterator(cold->database, cold->read_options);
        rocksdb_iter_seek_to_first(iterator);
        char *error = NULL;
        rocksdb_iter_get_error(iterator, &error);
        empty = !rocksdb_iter_valid(iterator) && error == NULL;
        rocksdb_free(error);
        rocksdb_iter_destroy(iterator);
    }
    pthread_rwlock_unlock(&cold->lock);
    return empty;
}

enum status cold_reserved_rows(struct cold *cold, void *context,
                               enum status (*row)(void *context, struct span key, struct span record),
                               struct buf *why)
{
    static const char first[] = {(char)(RESERVED_FLOOR >> 8), (char)(RESERVED_FLOOR & 0xff)};
    pthread_rwlock_rdlock(&cold->lock);
    if (cold->database == NULL) {
        pthread_rwlock_unlock(&cold->lock);
        return STATUS_IO_ERROR;
    }
    enum status status = STATUS_OK;
    rocksdb_iterator_t *iterator = rocksdb_create_iterator(cold->database, cold->read_options);
    for (rocksdb_iter_seek(iterator, first, sizeof(first));
         status == STATUS_OK && rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
        size_t key_size = 0;
        size_t size = 0;
        const char *key = rocksdb_iter_key(iterator, &key_size);
        const char *record = rocksdb_iter_value(iterator, &size);
        status = row(context, span_of(key, key_size), span_of(record, size));
    }
    char *error = NULL;
    rocksdb_iter_get_error(iterator, &error);
    if (error != NULL && status == STATUS_OK)
        status = cold_error(cold, error, why, "read");
    else
        rocksdb_free(error);
    rocksdb_iter_destroy(iterator);
    pthread_rwlock_unlock(&cold->lock);
    return status;
}

void cold_stats(struct cold *cold, struct cold_stats *stats)
{
    pthread_rwlock_rdlock(&cold->lock);
    stats->table_bytes = cold_property(cold, "rocksdb.live-sst-files-size");
    stats->level0_files = cold_level0_files(cold);
    stats->keys_estimate = cold_property(cold, "rocksdb.estimate-num-keys");
    stats->memory_bytes =
        rocksdb_cache_get_usage(cold->cache) + cold_property(cold, "rocksdb.estimate-table-readers-mem");
    pthread_rwlock_unlock(&cold->lock);
}

/* Why a compaction failed is told to whoever writes: a write of nothing asks. */
static void cold_ask_background(struct cold *cold)
{
    char *error = NULL;
    rocksdb_writeoptions_t *options = rocksdb_writeoptions_create();
    rocksdb_writebatch_t *nothing = rocksdb_writebatch_create();
    rocksdb_writeoptions_disable_WAL(options, 1);
    rocksdb_write(cold->database, options, nothing, &error);
    rocksdb_writebatch_destroy(nothing);
    rocksdb_writeoptions_destroy(options);
    if (error != NULL)
        (void)cold_error(cold, error, NULL, "compact");
}

/* Opens the database anew if something failed in it since the last time. */
static enum status cold_heal(struct cold *cold, struct buf *why)
{
    pthread_rwlock_rdlock(&cold->lock);
    bool background_failed = cold_property(cold, "rocksdb.background-errors") > 0;
    if (background_failed)
        cold_ask_background(cold);
    pthread_rwlock_unlock(&cold->lock);

    time_t now = time(NULL);
    pthread_mutex_lock(&cold->state_lock);
    bool reopen = (cold->failed || background_failed) && now - cold->reopened_at >= COLD_REOPEN_SECONDS;
    if (reopen) {
        cold->failed = false;
        cold->reopened_at = now;
    }
    pthread_mutex_unlock(&cold->state_lock);
    if (!reopen)
        return STATUS_OK;

    pthread_rwlock_wrlock(&cold->lock);
    cold_scans_lose(cold);
    if (cold->database != NULL)
        rocksdb_close(cold->database);
    char *error = NULL;
    cold->database = rocksdb_open(cold->options, cold->path, &error);
    pthread_rwlock_unlock(&cold->lock);
    if (error == NULL)
        return STATUS_OK;
    pthread_mutex_lock(&cold->state_lock);
    cold->failed = true;
    pthread_mutex_unlock(&cold->state_lock);
    return cold_error(cold, error, why, "open");
}

/* Writes the sorted rows as one table and syncs it. */
static enum status cold_write_table(struct cold *cold, const struct flush_job *job, const char *path,
                                    struct buf *why)
{
    uint8_t *key = malloc(COLD_KEY_PREFIX_BYTES + KEY_BYTES_MAX_HARD);
    if (key == NULL)
        return STATUS_OVERLOADED;
    rocksdb_sstfilewriter_t *writer = rocksdb_sstfilewriter_create(cold->environment, cold->options);
    char *error = NULL;
    rocksdb_sstfilewriter_open(writer, path, &error);
    uint64_t count = flush_count(job);
    for (uint64_t i = 0; i < count && error == NULL; i++) {
        struct flush_row row = flush_row(job, i);
        memcpy(key, row.prefix, row.prefix_size);
        if (row.key.size > 0)
            memcpy(key + row.prefix_size, row.key.data, row.key.size);
        size_t size = row.prefix_size + row.key.size;
        if (row.erased)
            rocksdb_sstfilewriter_delete(writer, (const char *)key, size, &error);
        else
            rocksdb_sstfilewriter_put(writer, (const char *)key, size, (const char *)row.record.data,
                                      row.record.size, &error);
    }
    if (error == NULL)
        rocksdb_sstfilewriter_finish(writer, &error); /* syncs the file */
    rocksdb_sstfilewriter_destroy(writer);
    free(key);
    return error != NULL ? cold_error(cold, error, why, "write a table for") : STATUS_OK;
}

enum status cold_ingest(struct cold *cold, uint16_t shard, struct flush_job *job, struct buf *why)
{
    enum status status = cold_heal(cold, why);
    if (status != STATUS_OK)
        return status;
    if (cold_pressure(cold)) {
        if (why != NULL)
            buf_append_text(why, "the cold tier is still merging what it was given before");
        return STATUS_OVERLOADED;
    }
    flush_sort(job);
    if (flush_count(job) == 0)
        return STATUS_OK;
    pthread_mutex_lock(&cold->state_lock);
    uint64_t number = ++cold->table_next;
    pthread_mutex_unlock(&cold->state_lock);
    char name[64];
    (void)snprintf(name, sizeof(name), "%u-%llu.sst", (unsigned)shard, (unsigned long long)number);
    char *path = files_join(cold->temporary_path, name);

    pthread_rwlock_rdlock(&cold->lock);
    status = cold->database != NULL ? cold_write_table(cold, job, path, why) : STATUS_IO_ERROR;
    if (status == STATUS_OK) {
        char *error = NULL;
        const char *files[] = {path};
        rocksdb_ingest_external_file(cold->database, files, 1, cold->ingest_options, &error);
        if (error != NULL) {
            status = cold_error(cold, error, why, "add a table to");
            pthread_mutex_lock(&cold->state_lock);
            cold->failed = true;
            pthread_mutex_unlock(&cold->state_lock);
        }
    }
    pthread_rwlock_unlock(&cold->lock);
    (void)unlink(path); /* moved away already if all went well */
    free(path);
    return status;
}
