/* The cold tier against a plain table of what was ingested: versions replace each other, a full disk is told
 * and healed, damage is told from absence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/prng.h"
#include "edge/cold.h"
#include "edge/files.h"
#include "model/reserved.h"
#include "store/flush.h"

#define KEYS 4000
#define WORLD_CACHE_BYTES ((size_t)4 << 20)

struct world {
    char directory[64];
    char *path;
    char *temporary_path;
    struct cold *cold;
    struct alloc alloc;
    struct memtable memtable;
    uint64_t sequence;
    uint32_t version[KEYS]; /* 0 = never ingested */
};

static void world_reopen(struct world *world)
{
    struct cold_options options = {.path = world->path,
                                   .temporary_path = world->temporary_path,
                                   .memory_bytes = WORLD_CACHE_BYTES,
                                   .files_open_max = 64};
    assert_int_equal(cold_open(&options, &world->cold, NULL), STATUS_OK);
}

static void world_open(struct world *world, const char *tmpfs_size)
{
    memset(world, 0, sizeof(*world));
    (void)snprintf(world->directory, sizeof(world->directory), "/tmp/rondo-test-cold-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    if (tmpfs_size != NULL && mount("tmpfs", world->directory, "tmpfs", 0, tmpfs_size) != 0) {
        (void)rmdir(world->directory);
        skip(); /* only root may mount */
    }
    world->path = files_join(world->directory, "cold");
    world->temporary_path = files_join(world->directory, "cold-tmp");
    alloc_init(&world->alloc, (size_t)256 << 20);
    struct memtable_options options = {.alloc = &world->alloc, .seed = 1, .budget_bytes = (size_t)128 << 20};
    assert_int_equal(memtable_init(&world->memtable, &options), STATUS_OK);
    world_reopen(world);
}

static void world_close(struct world *world, bool mounted)
{
    cold_close(world->cold);
    memtable_free(&world->memtable);
    if (mounted)
        assert_int_equal(umount(world->directory), 0);
    assert_int_equal(files_empty_directory(world->path, NULL), STATUS_OK);
    assert_int_equal(files_empty_directory(world->temporary_path, NULL), STATUS_OK);
    (void)rmdir(world->path);
    (void)rmdir(world->temporary_path);
    assert_int_equal(rmdir(world->directory), 0);
    free(world->path);
    free(world->temporary_path);
}

/* ---- rows: key "k N", record of N and its version ------------------------------------------------------- */

static size_t row_key_text(char text[32], uint32_t number)
{
    return (size_t)snprintf(text, 32, "k %u", number);
}

static size_t row_record_make(uint8_t *record, uint32_t number, uint32_t version, size_t padding)
{
    struct prng prng;
    store_u32(record, number);
    store_u32(record + 4, version);
    prng_seed(&prng, (uint64_t)number << 32 | version);
    for (size_t i = 0; i < padding; i++)
        record[8 + i] = (uint8_t)prng_u64(&prng); /* does not compress */
    return 8 + padding;
}

static void put_row(struct world *world, uint32_t number, uint32_t version, size_t padding)
{
    char text[32];
    uint8_t *record = malloc(8 + padding);
    assert_non_null(record);
    struct span key = span_of(text, row_key_text(text, number));
    struct memtable_put put = {
        .key = key,
        .record = span_of(record, row_record_make(record, number, version, padding)),
        .hash = memtable_hash(&world->memtable, key),
        .slot = key_slot(key),
        .sequence = ++world->sequence,
        .live = true,
    };
    assert_int_equal(memtable_put(&world->memtable, &put), STATUS_OK);
    free(record);
}

static void erase_row(struct world *world, uint32_t number)
{
    char text[32];
    struct span key = span_of(text, row_key_text(text, number));
    struct memtable_put put = {
        .key = key,
        .hash = memtable_hash(&world->memtable, key),
        .slot = key_slot(key),
        .sequence = ++world->sequence,
        .in_cold = true,
    };
    assert_int_equal(memtable_put(&world->memtable, &put), STATUS_OK);
}

static void put_reserved(struct world *world, uint16_t prefix, uint16_t slot, const char *record)
{
    uint8_t bytes[RESERVED_SLOT_KEY_BYTES];
    struct span key = span_of(bytes, sizeof bytes);
    reserved_slot_key(prefix, slot, bytes);
    struct memtable_put put = {
        .key = key,
        .record = span_of_text(record),
        .hash = memtable_hash_reserved(&world->memtable, key),
        .slot = SLOTS_COUNT,
        .sequence = ++world->sequence,
        .in_cold = true,
    };
    assert_int_equal(memtable_put(&world->memtable, &put), STATUS_OK);
}

static enum status flush_all(struct world *world, struct buf *why)
{
    struct flush_job job;
    assert_int_equal(memtable_freeze(&world->memtable, &job, UINT64_MAX, world->sequence), STATUS_OK);
    enum status status = cold_ingest(world->cold, 0, &job, why);
    if (status != STATUS_OK) {
        assert_true(memtable_flush_failed(&world->memtable, &job, UINT64_MAX));
        return status;
    }
    while (!memtable_flush_done(&world->memtable, &job, 1000)) {
    }
    return STATUS_OK;
}

static enum status get_row(struct world *world, uint32_t number, uint32_t *version)
{
    char text[32];
    uint8_t key[64];
    struct buf record;
    struct span name = span_of(text, row_key_text(text, number));
    cold_key_prefix(name, key_slot(name), key);
    memcpy(key + COLD_KEY_PREFIX_BYTES, name.data, name.size);
    buf_init(&record, &world->alloc);
    enum status status = cold_get(world->cold, span_of(key, COLD_KEY_PREFIX_BYTES + name.size), &record);
    if (status == STATUS_OK) {
        assert_true(record.size >= 8);
        assert_int_equal(load_u32(record.data), number);
        *version = load_u32(record.data + 4);
        uint8_t *expected = malloc(record.size);
        assert_non_null(expected);
        (void)row_record_make(expected, number, *version, record.size - 8);
        assert_memory_equal(record.data, expected, record.size);
        free(expected);
    }
    buf_free(&record);
    return status;
}

static void check_all(struct world *world)
{
    for (uint32_t number = 0; number < KEYS; number++) {
        uint32_t version = 0;
        enum status status = get_row(world, number, &version);
        assert_int_equal(status, world->version[number] == 0 ? STATUS_NOT_FOUND : STATUS_OK);
        assert_int_equal(version, world->version[number]);
    }
}

/* ---- tests ---------------------------------------------------------------------------------------------- */

static void test_cold_newest_version_wins_over_many_ingestions_and_restarts(void **state)
{
    struct world world;
    struct prng prng;
    (void)state;
    world_open(&world, NULL);
    prng_seed(&prng, 11);
    assert_true(cold_empty(world.cold));
    check_all(&world);
    for (uint32_t version = 1; version <= 40; version++) {
        for (uint32_t number = 0; number < KEYS; number++) {
            if (!prng_chance(&prng, 1, 4))
                continue;
            put_row(&world, number, version, (size_t)prng_below(&prng, 100));
            world.version[number] = version;
        }
        enum status status = flush_all(&world, NULL);
        while (status == STATUS_OVERLOADED) {
            (void)nanosleep(&(struct timespec){.tv_nsec = COLD_RETRY_MS * 1000000L}, NULL);
            status = flush_all(&world, NULL);
        }
        assert_int_equal(status, STATUS_OK);
        if (version % 10 == 0) {
            cold_close(world.cold);
            world_reopen(&world);
            check_all(&world);
        }
    }
    struct cold_stats stats;
    cold_stats(world.cold, &stats);
    assert_true(stats.table_bytes > 0 && stats.keys_estimate > 0 && stats.memory_bytes > 0);
    assert_true(stats.level0_files <= COLD_LEVEL0_FILES_MAX);
    assert_false(cold_empty(world.cold));
    /* Nothing is left behind where tables are made. */
    assert_int_equal(rmdir(world.temporary_path), 0);
    assert_int_equal(mkdir(world.temporary_path, 0700), 0);
    world_close(&world, false);
}

/* Bytes that this process has asked the system for, by read and pread. */
static uint64_t bytes_read(void)
{
    char text[512] = {0};
    int file = open("/proc/self/io", O_RDONLY);
    if (file < 0)
        skip(); /* not where /proc is hidden */
    ssize_t size = read(file, text, sizeof text - 1);
    assert_int_equal(close(file), 0);
    assert_true(size > 0);
    unsigned long long bytes = 0;
    assert_int_equal(sscanf(text, "rchar: %llu", &bytes), 1);
    return bytes;
}

/* The filters of this many keys take a megabyte. */
#define MANY_KEYS 800000u
#define MISSES 20000u

/* A filter that did not fit its part of the cache would be read whole for each key: a megabyte, where a few blocks for
 * the one key in a hundred that it does not tell apart, and parts that are not in the cache yet, are all there is. */
static void test_cold_missing_keys_are_told_by_a_filter_that_stays_in_a_small_cache(void **state)
{
    struct world world;
    uint32_t version = 0;
    (void)state;
    world_open(&world, NULL);
    for (uint32_t number = 0; number < MANY_KEYS; number++)
        put_row(&world, number, 1, 0);
    assert_int_equal(flush_all(&world, NULL), STATUS_OK);
    for (uint32_t i = 0; i < MISSES; i++)
        assert_int_equal(get_row(&world, MANY_KEYS + i, &version), STATUS_NOT_FOUND);
    uint64_t before = bytes_read();
    for (uint32_t i = 0; i < MISSES; i++)
        assert_int_equal(get_row(&world, MANY_KEYS + MISSES + i, &version), STATUS_NOT_FOUND);
    assert_true((bytes_read() - before) / MISSES < 400);
    struct cold_stats stats;
    cold_stats(world.cold, &stats);
    assert_true(stats.memory_bytes <= WORLD_CACHE_BYTES + ((size_t)1 << 20));
    world_close(&world, false);
}

static void test_cold_job_without_rows_is_done(void **state)
{
    struct world world;
    (void)state;
    world_open(&world, NULL);
    struct flush_job job = {0};
    assert_int_equal(cold_ingest(world.cold, 0, &job, NULL), STATUS_OK);
    assert_true(cold_empty(world.cold));
    world_close(&world, false);
}

static void test_cold_erased_rows_are_gone_and_stay_gone(void **state)
{
    struct world world;
    (void)state;
    world_open(&world, NULL);
    for (uint32_t number = 0; number < KEYS; number++) {
        put_row(&world, number, 1, 20);
        world.version[number] = 1;
    }
    assert_int_equal(flush_all(&world, NULL), STATUS_OK);
    for (uint32_t number = 0; number < KEYS; number += 3) {
        erase_row(&world, number);
        world.version[number] = 0;
    }
    assert_int_equal(flush_all(&world, NULL), STATUS_OK);
    check_all(&world);
    for (uint32_t number = 0; number < KEYS; number += 6) {
        put_row(&world, number, 2, 20);
        world.version[number] = 2;
    }
    assert_int_equal(flush_all(&world, NULL), STATUS_OK);
    cold_close(world.cold);
    world_reopen(&world);
    check_all(&world);
    for (uint32_t number = 0; number < KEYS; number++)
        erase_row(&world, number);
    assert_int_equal(flush_all(&world, NULL), STATUS_OK);
    assert_true(cold_empty(world.cold));
    world_close(&world, false);
}

struct listing {
    char text[256];
    unsigned stop_after;
};

static enum status list_row(void *context, struct span key, struct span record)
{
    struct listing *listing = context;
    uint16_t slot = 0;
    assert_int_equal(reserved_key_slot(key, &slot), STATUS_OK);
    size_t size = strlen(listing->text);
    (void)snprintf(listing->text + size, sizeof(listing->text) - size, "%x/%u=%.*s ",
                   key.data[0] << 8 | key.data[1], slot, (int)record.size, (const char *)record.data);
    return listing->stop_after-- == 1 ? STATUS_TOO_LARGE : STATUS_OK;
}

static void test_cold_reserved_rows_are_listed_in_order_beside_those_of_users(void **state)
{
    struct world world;
    struct flush_job job;
    (void)state;
    world_open(&world, NULL);
    struct listing listing = {.text = ""};
    assert_int_equal(cold_reserved_rows(world.cold, &listing, list_row, NULL), STATUS_OK);
    assert_string_equal(listing.text, "");
    for (uint32_t number = 0; number < KEYS; number++) {
        put_row(&world, number, 1, 20);
        world.version[number] = 1;
    }
    put_reserved(&world, RESERVED_TREE, 7, "tree");
    put_reserved(&world, RESERVED_FLOOR, 16383, "last");
    put_reserved(&world, RESERVED_FLOOR, 3, "floor");
    assert_int_equal(memtable_freeze(&world.memtable, &job, UINT64_MAX, world.sequence), STATUS_OK);
    assert_int_equal(
        memtable_job_add(&world.memtable, &job, span_of("\xff\xfd\0\1", 4), span_of_text("added")),
        STATUS_OK);
    assert_int_equal(cold_ingest(world.cold, 0, &job, NULL), STATUS_OK);
    assert_true(memtable_flush_done(&world.memtable, &job, UINT64_MAX));
    check_all(&world);
    cold_close(world.cold);
    world_reopen(&world);
    assert_int_equal(cold_reserved_rows(world.cold, &listing, list_row, NULL), STATUS_OK);
    assert_string_equal(listing.text, "fffc/3=floor fffc/16383=last fffd/1=added fffd/7=tree ");
    listing = (struct listing){.stop_after = 2};
    assert_int_equal(cold_reserved_rows(world.cold, &listing, list_row, NULL), STATUS_TOO_LARGE);
    assert_string_equal(listing.text, "fffc/3=floor fffc/16383=last ");

    put_reserved(&world, RESERVED_FLOOR, 3, "");
    put_reserved(&world, RESERVED_TREE, 7, "new");
    assert_int_equal(flush_all(&world, NULL), STATUS_OK);
    listing = (struct listing){.text = ""};
    assert_int_equal(cold_reserved_rows(world.cold, &listing, list_row, NULL), STATUS_OK);
    assert_string_equal(listing.text, "fffc/16383=last fffd/1=added fffd/7=new ");
    check_all(&world);
    world_close(&world, false);
}

static void test_cold_full_disk_is_told_and_the_same_job_succeeds_later(void **state)
{
    struct world world;
    struct buf why;
    (void)state;
    world_open(&world, "size=12m");
    buf_init(&why, &world.alloc);
    for (uint32_t number = 0; number < KEYS / 2; number++) {
        put_row(&world, number, 1, 100);
        world.version[number] = 1;
    }
    assert_int_equal(flush_all(&world, &why), STATUS_OK);

    char *ballast = files_join(world.directory, "ballast");
    int descriptor = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(descriptor >= 0);
    for (off_t size = (off_t)16 << 20; size >= 4096; size /= 2) {
        struct stat stat_of;
        assert_int_equal(fstat(descriptor, &stat_of), 0);
        while (posix_fallocate(descriptor, stat_of.st_size, size) == 0)
            assert_int_equal(fstat(descriptor, &stat_of), 0);
    }
    (void)close(descriptor);

    for (uint32_t number = 0; number < KEYS; number++)
        put_row(&world, number, 2, 100);
    for (unsigned i = 0; i < 3; i++) {
        buf_clear(&why);
        assert_int_equal(flush_all(&world, &why), STATUS_DISK_FULL);
        assert_true(why.size > 0);
    }
    check_all(&world); /* what was there is still read */
    assert_int_equal(unlink(ballast), 0);
    (void)nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 100000000}, NULL);
    assert_int_equal(flush_all(&world, &why), STATUS_OK);
    for (uint32_t number = 0; number < KEYS; number++)
        world.version[number] = 2;
    check_all(&world);
    free(ballast);
    buf_free(&why);
    world_close(&world, true);
}

static void test_cold_flipped_byte_is_corruption_and_never_absence(void **state)
{
    struct world world;
    (void)state;
    world_open(&world, NULL);
    for (uint32_t number = 0; number < KEYS; number++)
        put_row(&world, number, 1, 200);
    assert_int_equal(flush_all(&world, NULL), STATUS_OK);
    cold_close(world.cold);
    /* One byte in every 4 KiB of the first half of the table: data blocks. */
    DIR *directory = opendir(world.path);
    assert_non_null(directory);
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        size_t size = strlen(entry->d_name);
        if (size < 4 || strcmp(entry->d_name + size - 4, ".sst") != 0)
            continue;
        char *path = files_join(world.path, entry->d_name);
        int descriptor = open(path, O_RDWR | O_CLOEXEC);
        struct stat stat_of;
        assert_int_equal(fstat(descriptor, &stat_of), 0);
        for (off_t offset = 100; offset < stat_of.st_size / 2; offset += 4096) {
            uint8_t byte;
            assert_int_equal(pread(descriptor, &byte, 1, offset), 1);
            byte ^= 0x10;
            assert_int_equal(files_write_at(descriptor, &byte, 1, offset), 0);
        }
        (void)close(descriptor);
        free(path);
    }
    (void)closedir(directory);
    world_reopen(&world);
    unsigned corrupt = 0;
    for (uint32_t number = 0; number < KEYS; number++) {
        uint32_t version = 0;
        enum status status = get_row(&world, number, &version);
        assert_true(status == STATUS_OK || status == STATUS_CORRUPT);
        corrupt += status == STATUS_CORRUPT;
    }
    assert_true(corrupt > KEYS / 10);
    world_close(&world, false);
}

struct reader_thread {
    struct world *world;
    struct alloc alloc;
    bool stop;
    pthread_mutex_t lock;
};

static void *read_rows(void *argument)
{
    struct reader_thread *reader = argument;
    struct prng prng;
    prng_seed(&prng, 3);
    for (bool stop = false; !stop;) {
        char text[32];
        uint8_t key[64];
        struct buf record;
        struct span name = span_of(text, row_key_text(text, (uint32_t)prng_below(&prng, KEYS)));
        cold_key_prefix(name, key_slot(name), key);
        memcpy(key + COLD_KEY_PREFIX_BYTES, name.data, name.size);
        buf_init(&record, &reader->alloc);
        enum status status =
            cold_get(reader->world->cold, span_of(key, COLD_KEY_PREFIX_BYTES + name.size), &record);
        if (status != STATUS_OK && status != STATUS_NOT_FOUND)
            return reader;
        buf_free(&record);
        pthread_mutex_lock(&reader->lock);
        stop = reader->stop;
        pthread_mutex_unlock(&reader->lock);
    }
    return NULL;
}

static void test_cold_reads_go_on_while_tables_are_ingested(void **state)
{
    struct world world;
    pthread_t thread;
    struct reader_thread reader = {.world = &world};
    (void)state;
    world_open(&world, NULL);
    pthread_mutex_init(&reader.lock, NULL);
    alloc_init(&reader.alloc, (size_t)1 << 20);
    assert_int_equal(pthread_create(&thread, NULL, read_rows, &reader), 0);
    for (uint32_t version = 1; version <= 15; version++) {
        for (uint32_t number = 0; number < KEYS; number++)
            put_row(&world, number, version, 20);
        assert_int_equal(flush_all(&world, NULL), STATUS_OK);
    }
    pthread_mutex_lock(&reader.lock);
    reader.stop = true;
    pthread_mutex_unlock(&reader.lock);
    void *result = NULL;
    (void)pthread_join(thread, &result);
    assert_null(result);
    for (uint32_t number = 0; number < KEYS; number++)
        world.version[number] = 15;
    check_all(&world);
    pthread_mutex_destroy(&reader.lock);
    world_close(&world, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cold_newest_version_wins_over_many_ingestions_and_restarts),
        cmocka_unit_test(test_cold_missing_keys_are_told_by_a_filter_that_stays_in_a_small_cache),
        cmocka_unit_test(test_cold_job_without_rows_is_done),
        cmocka_unit_test(test_cold_erased_rows_are_gone_and_stay_gone),
        cmocka_unit_test(test_cold_reserved_rows_are_listed_in_order_beside_those_of_users),
        cmocka_unit_test(test_cold_full_disk_is_told_and_the_same_job_succeeds_later),
        cmocka_unit_test(test_cold_flipped_byte_is_corruption_and_never_absence),
        cmocka_unit_test(test_cold_reads_go_on_while_tables_are_ingested),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
