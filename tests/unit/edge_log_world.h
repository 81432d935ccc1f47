/* A log thread with real files, and a listener to what it says. For test_edge_log_thread.c and test_edge_log_full.c. */
#ifndef RONDO_TESTS_EDGE_LOG_WORLD_H
#define RONDO_TESTS_EDGE_LOG_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/prng.h"
#include "edge/files.h"
#include "edge/log_thread.h"
#include "model/key.h"
#include "store/log_recovery.h"

#define SHARDS 3
#define WAIT_MS_MAX 20000

static const struct log_identity identity = {.cluster_id = {.low = 7, .high = 9}, .directory_id = 42};

/* ---- a listener ----------------------------------------------------------------------------------------- */

struct world {
    char directory[64];
    pthread_mutex_t lock;
    uint64_t durable[SHARDS];
    bool backwards;
    unsigned full_count;
    unsigned room_count;
    unsigned begun_count;
    bool no_room_to_begin; /* the first try finds the disk full */
    char fatal[256];
    int pipe;               /* when > 0: durable sequences are written here, for a parent that survives us */
    uint32_t write_slow_us; /* for the next start */
    unsigned written_by_shards;
    struct log_thread *log;
};

static inline void on_durable(void *context, uint16_t shard, uint64_t sequence)
{
    struct world *world = context;
    pthread_mutex_lock(&world->lock);
    world->backwards = world->backwards || sequence <= world->durable[shard];
    world->durable[shard] = sequence;
    pthread_mutex_unlock(&world->lock);
    if (world->pipe > 0) {
        uint64_t message[2] = {shard, sequence};
        if (write(world->pipe, message, sizeof(message)) != (ssize_t)sizeof(message))
            abort();
    }
}

static inline void on_full(void *context, bool full)
{
    struct world *world = context;
    pthread_mutex_lock(&world->lock);
    world->full_count += full;
    world->room_count += !full;
    pthread_mutex_unlock(&world->lock);
}

static inline enum status on_begun(void *context, struct buf *why)
{
    struct world *world = context;
    (void)why;
    pthread_mutex_lock(&world->lock);
    bool first = world->begun_count++ == 0;
    bool any_durable = world->durable[0] + world->durable[1] + world->durable[2] > 0;
    pthread_mutex_unlock(&world->lock);
    assert_false(any_durable);
    return first && world->no_room_to_begin ? STATUS_DISK_FULL : STATUS_OK;
}

static inline void on_fatal(void *context, const char *text)
{
    struct world *world = context;
    pthread_mutex_lock(&world->lock);
    (void)snprintf(world->fatal, sizeof(world->fatal), "%s", text);
    pthread_mutex_unlock(&world->lock);
}

static inline void world_open(struct world *world)
{
    *world = (struct world){0};
    (void)snprintf(world->directory, sizeof(world->directory), "/tmp/rondo-test-log-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    pthread_mutex_init(&world->lock, NULL);
}

static inline void world_close(struct world *world)
{
    assert_int_equal(files_empty_directory(world->directory, NULL), STATUS_OK);
    (void)rmdir(world->directory);
    pthread_mutex_destroy(&world->lock);
}

static inline void world_start(struct world *world, enum durability_mode mode, uint64_t segment_bytes,
                               const struct log_resume *resume)
{
    struct log_thread_options options = {
        .directory = world->directory,
        .identity = identity,
        .resume = resume,
        .mode = mode,
        .interval_ms = 30,
        .shards = SHARDS,
        .segment_bytes = segment_bytes,
        .write_slow_us = world->write_slow_us,
        .context = world,
        .begun = on_begun,
        .durable = on_durable,
        .full = on_full,
        .fatal = on_fatal,
    };
    memset(world->durable, 0, sizeof(world->durable));
    assert_int_equal(log_thread_start(&options, &world->log, NULL), STATUS_OK);
}

/* Waits until the condition holds; the log thread has no other way to be watched. */
#define WAIT_FOR(world, condition)                                             \
    do {                                                                       \
        bool met_ = false;                                                     \
        for (unsigned ms_ = 0; ms_ < WAIT_MS_MAX && !met_; ms_++) {            \
            pthread_mutex_lock(&(world)->lock);                                \
            met_ = (condition);                                                \
            pthread_mutex_unlock(&(world)->lock);                              \
            if (!met_)                                                         \
                (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); \
        }                                                                      \
        assert_true(met_);                                                     \
    } while (0)

/* ---- batches of one row: key "{TAG} SHARD SEQUENCE", whose tag puts it into the shard --------------------- */

static inline int row_key_format(char *key, size_t size, uint16_t shard, uint64_t sequence)
{
    for (unsigned tag = 0;; tag++) {
        int length = snprintf(key, size, "{%u} %u %llu", tag, shard, (unsigned long long)sequence);
        if (slot_shard(key_slot(span_of(key, (size_t)length)), SHARDS) == shard)
            return length;
    }
}

/* As a shard does it: appends, then offers to write. */
static inline void append_row(struct world *world, struct alloc *alloc, uint16_t shard, uint64_t sequence,
                              size_t size)
{
    char key[64];
    int key_size = row_key_format(key, sizeof(key), shard, sequence);
    struct span key_span = span_of(key, (size_t)key_size);
    struct buf payload;
    buf_init(&payload, alloc);
    uint8_t *record = calloc(1, size);
    assert_non_null(record);
    memset(record, 'a' + (int)(sequence % 26), size);
    log_put_row(&payload, key_slot(key_span), key_span, span_of(record, size));
    if (sequence % 10 == 0)
        log_put_bounds(&payload, (struct hlc_bounds){.bound = sequence, .future = 0});
    assert_false(payload.failed);
    log_thread_append(world->log, shard, sequence, 1 + (sequence % 10 == 0), sequence % 10 == 0,
                      buf_span(&payload));
    uint64_t durable = log_thread_write(world->log, shard);
    if (durable > 0) {
        on_durable(world, shard, durable);
        pthread_mutex_lock(&world->lock);
        world->written_by_shards++;
        pthread_mutex_unlock(&world->lock);
    }
    free(record);
    buf_free(&payload);
}

struct found {
    struct log_recovery_report report;
    uint64_t highest[SHARDS];
    uint64_t rows;
    bool gap;
};

static inline enum status found_row(void *context, uint16_t slot, struct span key, struct span record)
{
    struct found *found = context;
    char text[64] = "";
    unsigned shard = 0;
    unsigned long long sequence = 0;
    assert_true(key.size < sizeof(text));
    memcpy(text, key.data, key.size);
    assert_int_equal(sscanf(text, "{%*u} %u %llu", &shard, &sequence), 2);
    assert_int_equal(slot, key_slot(key));
    assert_true(shard < SHARDS);
    for (size_t i = 0; i < record.size; i++)
        assert_int_equal(record.data[i], 'a' + (int)(sequence % 26));
    if (found->highest[shard] != 0 && sequence != found->highest[shard] + 1)
        found->gap = true;
    found->highest[shard] = sequence;
    found->rows++;
    return STATUS_OK;
}

/* Reads the directory back. *resume (may be NULL) gets what a next log thread needs; free its `inherited`. */
static inline void read_back(const char *directory, struct found *found, struct log_resume *resume)
{
    struct alloc alloc;
    alloc_init(&alloc, (size_t)1 << 30);
    struct log_file files[256] = {0};
    struct buf bytes[256];
    size_t count = 0;
    /* Numbers are contiguous and small here. */
    for (uint64_t number = 1; number < 4000 && count < 256; number++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%012llu.log", directory, (unsigned long long)number);
        buf_init(&bytes[count], &alloc);
        enum status status = files_read(path, (size_t)1 << 28, &bytes[count], NULL);
        if (status == STATUS_NOT_FOUND)
            continue;
        assert_int_equal(status, STATUS_OK);
        files[count].number = number;
        files[count].bytes = buf_span(&bytes[count]);
        count++;
    }
    memset(found, 0, sizeof(*found));
    struct log_recovery_options options = {.identity = identity, .row = found_row, .context = found};
    assert_int_equal(log_recover(&options, files, count, &found->report), STATUS_OK);
    assert_int_equal(found->report.damage_count, 0);
    if (resume != NULL) {
        *resume = (struct log_resume){
            .segment_next = found->report.segment_next,
            .batch_next = found->report.batch_next,
            .end = found->report.end,
            .bounds = found->report.bounds,
            .inherited = calloc(count + 1, sizeof(uint64_t)),
        };
        for (size_t i = 0; i < count; i++)
            resume->inherited[resume->inherited_count++] = files[i].number;
    }
    for (size_t i = 0; i < count; i++)
        buf_free(&bytes[i]);
}

static inline size_t count_files(const char *directory)
{
    DIR *opened = opendir(directory);
    assert_non_null(opened);
    size_t count = 0;
    struct dirent *entry;
    while ((entry = readdir(opened)) != NULL)
        count += entry->d_name[0] != '.';
    (void)closedir(opened);
    return count;
}

#endif
