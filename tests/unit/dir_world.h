/* A data directory of its own for each test, and rows in its log and cold tier as a node would leave them. For
 * test_edge_data_dir.c and test_edge_lost.c. */
#ifndef RONDO_TESTS_DIR_WORLD_H
#define RONDO_TESTS_DIR_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge/data_dir.h"
#include "edge/files.h"
#include "store/log_writer.h"

#define ROWS 600
#define SHARD_MEMORY_BYTES ((size_t)32 << 20)

struct fixture {
    struct alloc alloc;
    struct buf why;
    struct buf said;
    char path[64];
    struct ring *one;       /* n1 alone */
    struct ring *three;     /* n1, n2, n3 */
    struct ring *elsewhere; /* the same three, n2 at another port */
};

/* ---- fixture -------------------------------------------------------------------------------------------- */

static inline struct ring *make_ring(struct fixture *fixture, uint16_t count, const char *second)
{
    struct ring_member members[] = {
        ring_member_of(span_of_text("n1"), span_of_text("127.0.0.1:1")),
        ring_member_of(span_of_text("n2"), span_of_text(second)),
        ring_member_of(span_of_text("n3"), span_of_text("127.0.0.1:3")),
    };
    struct ring_options options = {.members = members, .member_count = count, .replicas = 3};
    struct ring *ring = NULL;
    assert_int_equal(ring_initial(&fixture->alloc, &options, NULL, &ring), STATUS_OK);
    return ring;
}

static inline int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    alloc_init(&fixture->alloc, (size_t)64 << 20);
    buf_init(&fixture->why, &fixture->alloc);
    buf_init(&fixture->said, &fixture->alloc);
    (void)snprintf(fixture->path, sizeof(fixture->path), "/tmp/rondo-test-dir-XXXXXX");
    assert_non_null(mkdtemp(fixture->path));
    fixture->one = make_ring(fixture, 1, "127.0.0.1:2");
    fixture->three = make_ring(fixture, 3, "127.0.0.1:2");
    fixture->elsewhere = make_ring(fixture, 3, "127.0.0.1:22");
    *state = fixture;
    return 0;
}

static inline int remove_entry(const char *path, const struct stat *stat_of, int type, struct FTW *at)
{
    (void)stat_of;
    (void)type;
    (void)at;
    return remove(path);
}

static inline int teardown(void **state)
{
    struct fixture *fixture = *state;
    (void)nftw(fixture->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    ring_free(fixture->one);
    ring_free(fixture->three);
    ring_free(fixture->elsewhere);
    buf_free(&fixture->why);
    buf_free(&fixture->said);
    free(fixture);
    return 0;
}

static inline void on_say(void *context, enum say_level level, const char *text)
{
    struct fixture *fixture = context;
    (void)level;
    buf_append_text(&fixture->said, text);
    buf_append_text(&fixture->said, "\n");
}

struct opening {
    const char *name;
    const struct ring *ring; /* NULL: one */
    bool given;
    enum durability_mode mode; /* 0: always */
    uint16_t shards;           /* 0: 2 */
};

static inline enum status open_dir(struct fixture *fixture, struct opening opening, struct data_dir **dir)
{
    struct data_dir_options options = {
        .path = fixture->path,
        .name = opening.name,
        .initial = opening.ring != NULL ? opening.ring : fixture->one,
        .initial_given = opening.given,
        .shards = opening.shards != 0 ? opening.shards : 2,
        .durability = opening.mode != 0 ? opening.mode : DURABILITY_ALWAYS,
        .cold_memory_bytes = (size_t)2 << 20,
        .context = fixture,
        .say = on_say,
    };
    buf_clear(&fixture->why);
    buf_clear(&fixture->said);
    return data_dir_open(&options, dir, &fixture->why);
}

static inline struct data_dir *must_open(struct fixture *fixture, struct opening opening)
{
    struct data_dir *dir = NULL;
    enum status status = open_dir(fixture, opening, &dir);
    if (status != STATUS_OK)
        fail_msg("%.*s", (int)fixture->why.size, (const char *)fixture->why.data);
    return dir;
}

static inline bool has_text(struct buf *buf, const char *text)
{
    return memmem(buf->data, buf->size, text, strlen(text)) != NULL;
}

static inline void expect_refusal(struct fixture *fixture, struct opening opening, enum status expected,
                                  const char *text)
{
    struct data_dir *dir = NULL;
    assert_int_equal(open_dir(fixture, opening, &dir), expected);
    if (!has_text(&fixture->why, text))
        fail_msg("\"%s\" is not in \"%.*s\"", text, (int)fixture->why.size, (const char *)fixture->why.data);
}

/* ---- rows, written as a shard would --------------------------------------------------------------------- */

static inline void on_durable(void *context, uint16_t shard, uint64_t sequence)
{
    (void)context;
    (void)shard;
    (void)sequence;
}

static inline void on_full(void *context, bool full)
{
    (void)context;
    (void)full;
}

static inline void on_fatal(void *context, const char *text)
{
    (void)context;
    fail_msg("%s", text);
}

static inline size_t row_key_text(char text[32], unsigned number)
{
    return (size_t)snprintf(text, 32, "key-%u", number);
}

static inline void put_record(struct buf *bytes, unsigned number, uint64_t time)
{
    uint8_t value[150];
    memset(value, (int)number, sizeof(value));
    struct record record = {
        .flags = RECORD_VALUE,
        .stamp = {.time = time << 16 | 1, .actor = 5},
        .value = span_of(value, sizeof(value)),
    };
    record_put(bytes, &record);
}

static inline struct log_thread *log_start(struct data_dir *dir)
{
    struct log_thread_options options = {
        .directory = dir->log_path,
        .identity = dir->identity,
        .resume = &dir->log,
        .mode = DURABILITY_ALWAYS,
        .shards = 2,
        .segment_bytes = (uint64_t)32 << 10,
        .durable = on_durable,
        .full = on_full,
        .fatal = on_fatal,
    };
    struct log_thread *log = NULL;
    assert_int_equal(log_thread_start(&options, &log, NULL), STATUS_OK);
    return log;
}

/* Appends rows 0 .. ROWS - 1 with this stamp through a log thread, from two shards. */
static inline void log_rows(struct fixture *fixture, struct data_dir *dir, uint64_t time)
{
    struct log_thread *log = log_start(dir);
    uint64_t sequence[2] = {LOG_SEQUENCE_INHERITED, LOG_SEQUENCE_INHERITED};
    for (unsigned number = 0; number < ROWS; number++) {
        char text[32];
        struct span key = span_of(text, row_key_text(text, number));
        struct buf bytes;
        struct buf payload;
        buf_init(&bytes, &fixture->alloc);
        buf_init(&payload, &fixture->alloc);
        put_record(&bytes, number, time);
        log_put_row(&payload, key_slot(key), key, buf_span(&bytes));
        uint16_t shard = slot_shard(key_slot(key), 2);
        log_thread_append(log, shard, ++sequence[shard], 1, false, buf_span(&payload));
        buf_free(&bytes);
        buf_free(&payload);
    }
    assert_int_equal(log_thread_stop(log), STATUS_OK);
}

static inline void make_shards(struct data_dir *dir, uint16_t shards_count, struct shard **shards)
{
    for (uint16_t i = 0; i < shards_count; i++) {
        struct shard_options options = {
            .shard = i,
            .shards = shards_count,
            .ring = dir->ring,
            .meta = &dir->meta,
            .bounds = dir->bounds,
            .resp_address = span_of_text("127.0.0.1:1"),
            .http_address = span_of_text("127.0.0.1:2"),
            .memory_bytes = SHARD_MEMORY_BYTES,
            .key_bytes_max = KEY_BYTES_MAX_DEFAULT,
            .value_bytes_max = 1 << 20,
            .clock_skew_max_ms = 500,
            .request_timeout_ms = 1000,
            .healing = {.request_timeout_max_ms = 600000},
            .cold_empty = cold_empty(dir->cold),
            .durability_always = true,
            .seed = i + 1u,
        };
        shards[i] = shard_new(&options);
        assert_non_null(shards[i]);
    }
}

/* Recovers into new shards and counts the rows found, in memory or in the cold tier, with this stamp. */
static inline unsigned recover_rows(struct fixture *fixture, struct data_dir *dir, uint16_t shards_count,
                                    uint64_t time)
{
    struct shard *shards[SHARDS_MAX] = {0};
    make_shards(dir, shards_count, shards);
    assert_int_equal(data_dir_recover(dir, shards, shards_count, &fixture->why), STATUS_OK);
    bool found[ROWS] = {false};
    for (uint16_t i = 0; i < shards_count; i++) {
        struct memtable_cursor cursor = {0};
        const struct row *row;
        while ((row = memtable_scan(shard_memtable(shards[i]), &cursor)) != NULL) {
            struct record record;
            char text[32] = "";
            unsigned number = 0;
            memcpy(text, row_key(row).data, row_key(row).size);
            assert_int_equal(sscanf(text, "key-%u", &number), 1);
            assert_int_equal(slot_shard(key_slot(row_key(row)), shards_count), i);
            assert_int_equal(record_parse(row_record(row), &record), STATUS_OK);
            found[number] = stamp_ms(record.stamp) == time;
        }
    }
    unsigned count = 0;
    for (unsigned number = 0; number < ROWS; number++) {
        char text[32];
        uint8_t key[64];
        struct buf bytes;
        struct span name = span_of(text, row_key_text(text, number));
        cold_key_prefix(name, key_slot(name), key);
        memcpy(key + COLD_KEY_PREFIX_BYTES, name.data, name.size);
        buf_init(&bytes, &fixture->alloc);
        struct record record;
        if (!found[number] &&
            cold_get(dir->cold, span_of(key, COLD_KEY_PREFIX_BYTES + name.size), &bytes) == STATUS_OK &&
            record_parse(buf_span(&bytes), &record) == STATUS_OK)
            found[number] = stamp_ms(record.stamp) == time;
        buf_free(&bytes);
        count += found[number];
    }
    for (uint16_t i = 0; i < shards_count; i++)
        shard_free(shards[i]);
    return count;
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Puts all rows with this stamp into the cold tier. */
static inline void ingest_rows(struct fixture *fixture, struct data_dir *dir, uint64_t time)
{
    struct shard *shards[2] = {0};
    make_shards(dir, 2, shards);
    for (unsigned number = 0; number < ROWS; number++) {
        char text[32];
        struct span key = span_of(text, row_key_text(text, number));
        struct buf bytes;
        buf_init(&bytes, &fixture->alloc);
        put_record(&bytes, number, time);
        assert_int_equal(shard_recover_row(shards[slot_shard(key_slot(key), 2)], key, buf_span(&bytes)),
                         STATUS_OK);
        buf_free(&bytes);
    }
    for (uint16_t i = 0; i < 2; i++) {
        struct flush_job *job;
        while (shard_recover_freeze(shards[i], &job) == STATUS_OK) {
            assert_int_equal(cold_ingest(dir->cold, i, job, NULL), STATUS_OK);
            shard_recover_flushed(shards[i]);
        }
        shard_free(shards[i]);
    }
}

#endif
