/* A cold tier of its own for each test of scans, beside a table of what was ingested into it. For test_edge_scan.c and
 * test_edge_scan_work.c. */
#ifndef RONDO_TESTS_SCAN_WORLD_H
#define RONDO_TESTS_SCAN_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/prng.h"
#include "edge/cold_internal.h"
#include "edge/files.h"
#include "store/cold_page.h"
#include "store/flush.h"

#define KEYS 1500
#define COLD_KEY_BYTES 16

struct world {
    char directory[64];
    char *path;
    char *temporary_path;
    struct cold *cold;
    struct alloc alloc;
    struct memtable memtable;
    uint64_t sequence;
    uint32_t version[KEYS]; /* by number; 0 = never ingested */
    uint32_t sorted[KEYS];  /* numbers in the order of their cold keys */
};

/* ---- rows: key "k N", record of N, its version and padding ------------------------------------------------ */

static inline struct span name_of(char text[32], uint32_t number)
{
    return span_of(text, (size_t)snprintf(text, 32, "k %u", number));
}

static inline struct span cold_key(uint8_t block[COLD_KEY_BYTES], uint32_t number)
{
    char text[32];
    struct span key = name_of(text, number);
    cold_key_prefix(key, key_slot(key), block);
    memcpy(block + COLD_KEY_PREFIX_BYTES, key.data, key.size);
    return span_of(block, COLD_KEY_PREFIX_BYTES + key.size);
}

static inline int compare_numbers(const void *a, const void *b)
{
    uint8_t block_a[COLD_KEY_BYTES];
    uint8_t block_b[COLD_KEY_BYTES];
    return span_compare(cold_key(block_a, *(const uint32_t *)a), cold_key(block_b, *(const uint32_t *)b));
}

static inline void put_row(struct world *world, uint32_t number, uint32_t version, size_t padding)
{
    char text[32];
    struct prng prng;
    uint8_t *record = malloc(8 + padding);
    assert_non_null(record);
    store_u32(record, number);
    store_u32(record + 4, version);
    prng_seed(&prng, number);
    for (size_t i = 0; i < padding; i++)
        record[8 + i] = (uint8_t)prng_u64(&prng); /* does not compress */
    struct span key = name_of(text, number);
    struct memtable_put put = {
        .key = key,
        .record = span_of(record, 8 + padding),
        .hash = memtable_hash(&world->memtable, key),
        .sequence = ++world->sequence,
        .live = true,
    };
    assert_int_equal(memtable_put(&world->memtable, &put), STATUS_OK);
    world->version[number] = version;
    free(record);
}

static inline void flush_all(struct world *world)
{
    struct flush_job job;
    assert_int_equal(memtable_freeze(&world->memtable, &job, UINT64_MAX, world->sequence), STATUS_OK);
    enum status status;
    while ((status = cold_ingest(world->cold, 0, &job, NULL)) == STATUS_OVERLOADED)
        (void)nanosleep(&(struct timespec){.tv_nsec = COLD_RETRY_MS * 1000000L}, NULL);
    assert_int_equal(status, STATUS_OK);
    while (!memtable_flush_done(&world->memtable, &job, 1000)) {
    }
}

static inline void ingest(struct world *world, uint32_t begin, uint32_t end, uint32_t version, size_t padding)
{
    for (uint32_t number = begin; number < end; number++)
        put_row(world, number, version, padding);
    flush_all(world);
}

/* ---- world ------------------------------------------------------------------------------------------------ */

static inline void world_reopen(struct world *world)
{
    struct cold_options options = {.path = world->path,
                                   .temporary_path = world->temporary_path,
                                   .memory_bytes = (size_t)4 << 20,
                                   .files_open_max = 64};
    assert_int_equal(cold_open(&options, &world->cold, NULL), STATUS_OK);
}

static inline void world_open(struct world *world)
{
    memset(world, 0, sizeof *world);
    (void)snprintf(world->directory, sizeof world->directory, "/tmp/rondo-test-scan-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    world->path = files_join(world->directory, "cold");
    world->temporary_path = files_join(world->directory, "cold-tmp");
    alloc_init(&world->alloc, (size_t)256 << 20);
    struct memtable_options options = {.alloc = &world->alloc, .seed = 1, .budget_bytes = (size_t)128 << 20};
    assert_int_equal(memtable_init(&world->memtable, &options), STATUS_OK);
    for (uint32_t i = 0; i < KEYS; i++)
        world->sorted[i] = i;
    qsort(world->sorted, KEYS, sizeof world->sorted[0], compare_numbers);
    world_reopen(world);
}

static inline void world_close(struct world *world)
{
    cold_close(world->cold);
    memtable_free(&world->memtable);
    assert_int_equal(files_empty_directory(world->path, NULL), STATUS_OK);
    assert_int_equal(files_empty_directory(world->temporary_path, NULL), STATUS_OK);
    (void)rmdir(world->path);
    (void)rmdir(world->temporary_path);
    assert_int_equal(rmdir(world->directory), 0);
    free(world->path);
    free(world->temporary_path);
}

/* ---- scans ------------------------------------------------------------------------------------------------ */

#define FIRST ((struct span){0})
#define LAST span_of_text("\xff\xff\xff")

/* What a scan must give: the rows at positions from `at` to `end` of `sorted` whose version is not 0. */
struct expected {
    const struct world *world;
    uint32_t version[KEYS]; /* as they were when it was opened */
    uint32_t at;
    uint32_t end;
};

static inline void expect_all(struct expected *expected, const struct world *world)
{
    expected->world = world;
    memcpy(expected->version, world->version, sizeof expected->version);
    expected->at = 0;
    expected->end = KEYS;
}

static inline void skip_missing(struct expected *expected)
{
    while (expected->at < expected->end && expected->version[expected->world->sorted[expected->at]] == 0)
        expected->at++;
}

static inline void check_row(struct expected *expected, struct span key, struct span record)
{
    uint8_t block[COLD_KEY_BYTES];
    skip_missing(expected);
    assert_true(expected->at < expected->end);
    uint32_t number = expected->world->sorted[expected->at++];
    assert_true(span_equal(key, cold_key(block, number)));
    assert_true(record.size >= 8);
    assert_int_equal(load_u32(record.data), number);
    assert_int_equal(load_u32(record.data + 4), expected->version[number]);
}

static inline unsigned check_page(struct expected *expected, struct span page)
{
    struct reader reader = reader_of(page);
    struct span key;
    struct span record;
    unsigned rows = 0;
    enum status status;
    while ((status = cold_page_next(&reader, &key, &record)) == STATUS_OK) {
        check_row(expected, key, record);
        rows++;
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    return rows;
}

#endif
