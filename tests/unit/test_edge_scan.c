/* Range scans of the cold tier: against a sorted table of what was ingested, while tables are ingested, and over
 * damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "scan_world.h"
#include "shard/shard.h"

static struct cold_scan *scan_open(struct world *world, struct span first, struct span end)
{
    struct cold_scan *scan = NULL;
    assert_int_equal(cold_scan_open(world->cold, first, end, &scan), STATUS_OK);
    assert_non_null(scan);
    return scan;
}

/* One page; whether more follow. */
static bool scan_page_of(struct cold_scan *scan, size_t page_bytes, struct expected *expected)
{
    struct alloc alloc;
    struct buf page;
    bool more = false;
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&page, &alloc);
    assert_int_equal(cold_scan_next(scan, page_bytes, &page, &more), STATUS_OK);
    unsigned rows = check_page(expected, buf_span(&page));
    assert_true(rows <= 1 || page.size <= page_bytes);
    skip_missing(expected);
    assert_int_equal(more, expected->at < expected->end);
    assert_true(rows > 0 || !more);
    buf_free(&page);
    return more;
}

static unsigned scan_to_end(struct cold_scan *scan, size_t page_bytes, struct expected *expected)
{
    unsigned pages = 1;
    while (scan_page_of(scan, page_bytes, expected))
        pages++;
    return pages;
}

static void check_all(struct world *world)
{
    struct expected expected;
    expect_all(&expected, world);
    struct cold_scan *scan = scan_open(world, FIRST, LAST);
    (void)scan_to_end(scan, COLD_SCAN_PAGE_BYTES, &expected);
    cold_scan_close(scan);
}

/* ---- ranges and pages -------------------------------------------------------------------------------------- */

static void test_any_range_in_any_page_size_gives_its_rows_in_order(void **state)
{
    struct world world;
    struct prng prng;
    (void)state;
    world_open(&world);
    prng_seed(&prng, 5);
    for (uint32_t version = 1; version <= 60; version++) {
        if (version % 10 == 1) {
            for (uint32_t number = 0; number < KEYS; number++) {
                if (prng_chance(&prng, 1, 4))
                    put_row(&world, number, version, (size_t)prng_below(&prng, 200));
            }
            flush_all(&world);
        }
        struct expected expected;
        expect_all(&expected, &world);
        expected.at = (uint32_t)prng_below(&prng, KEYS);
        expected.end = expected.at + (uint32_t)prng_below(&prng, KEYS - expected.at);
        uint8_t first[COLD_KEY_BYTES];
        uint8_t end[COLD_KEY_BYTES];
        struct cold_scan *scan = scan_open(&world, cold_key(first, world.sorted[expected.at]),
                                           cold_key(end, world.sorted[expected.end]));
        (void)scan_to_end(scan, (size_t)prng_below(&prng, 3000), &expected);
        cold_scan_close(scan);
    }
    check_all(&world);
    world_close(&world);
}

static void test_ranges_without_rows_give_one_page_without_rows(void **state)
{
    struct world world;
    struct expected nothing = {.world = &world};
    uint8_t block[COLD_KEY_BYTES];
    (void)state;
    world_open(&world);
    for (unsigned filled = 0; filled < 2; filled++) {
        struct span some = cold_key(block, 7);
        const struct span ranges[][2] = {
            {some, some}, {LAST, some}, {some, FIRST}, {FIRST, FIRST}, {LAST, LAST}, {FIRST, span_of("", 1)},
        };
        for (unsigned i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
            struct cold_scan *scan = scan_open(&world, ranges[i][0], ranges[i][1]);
            assert_false(scan_page_of(scan, 1000, &nothing));
            cold_scan_close(scan);
        }
        ingest(&world, 0, 100, 1, 10);
    }
    world_close(&world);
}

static void test_row_larger_than_a_page_comes_alone(void **state)
{
    struct world world;
    struct expected expected;
    (void)state;
    world_open(&world);
    ingest(&world, 0, 20, 1, 100);
    put_row(&world, world.sorted[0], 2,
            5000); /* sorted[0] need not be below 20: one large row stands first */
    for (uint32_t number = 3; number < 20; number += 4)
        put_row(&world, number, 2, 5000);
    flush_all(&world);
    expect_all(&expected, &world);
    struct cold_scan *scan = scan_open(&world, FIRST, LAST);
    assert_true(scan_page_of(scan, 1000, &expected));
    assert_int_equal(expected.version[world.sorted[0]], 2);
    assert_true(scan_to_end(scan, 1000, &expected) >= 5);
    cold_scan_close(scan);
    world_close(&world);
}

static void test_page_is_as_full_as_it_can_be(void **state)
{
    struct world world;
    struct expected expected;
    uint8_t block[COLD_KEY_BYTES];
    (void)state;
    world_open(&world);
    for (uint32_t number = 100; number < 110; number++) /* keys of one size */
        put_row(&world, number, 1, 42);
    flush_all(&world);
    size_t row = COLD_PAGE_ROW_HEADER_BYTES + cold_key(block, 100).size + 50;
    const struct {
        size_t page_bytes;
        unsigned pages;
    } cases[] = {{5 * row, 2}, {5 * row - 1, 3}, {10 * row, 1}, {10 * row - 1, 2}, {1, 10}, {0, 10}};
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_all(&expected, &world);
        struct cold_scan *scan = scan_open(&world, FIRST, LAST);
        assert_int_equal(scan_to_end(scan, cases[i].page_bytes, &expected), cases[i].pages);
        cold_scan_close(scan);
    }
    world_close(&world);
}

static void test_range_of_many_blocks_is_read_to_its_end(void **state)
{
    struct world world;
    (void)state;
    world_open(&world);
    ingest(&world, 0, KEYS, 1, 8000); /* 12 MB: long enough to be read ahead in large strides */
    check_all(&world);
    world_close(&world);
}

/* ---- snapshots --------------------------------------------------------------------------------------------- */

static void test_what_is_ingested_after_the_opening_is_not_seen(void **state)
{
    struct world world;
    struct expected empty;
    struct expected before;
    struct expected after;
    (void)state;
    world_open(&world);
    expect_all(&empty, &world);
    struct cold_scan *of_nothing = scan_open(&world, FIRST, LAST);
    ingest(&world, 0, 700, 1,
           20); /* overlaps nothing: tables like this one need no sequence number of their own */
    expect_all(&before, &world);
    struct cold_scan *not_begun = scan_open(&world, FIRST, LAST);
    struct expected begun_expected = before;
    struct cold_scan *begun = scan_open(&world, FIRST, LAST);
    assert_true(scan_page_of(begun, 500, &begun_expected));
    ingest(&world, 300, 1100, 2, 20);
    ingest(&world, 1100, KEYS, 3, 20);
    expect_all(&after, &world);
    struct cold_scan *late = scan_open(&world, FIRST, LAST);
    ingest(&world, 0, KEYS, 4, 20);
    assert_int_equal(scan_to_end(of_nothing, 1000, &empty), 1);
    assert_true(scan_to_end(not_begun, 1000, &before) > 10);
    assert_true(scan_to_end(begun, 1000, &begun_expected) > 10);
    assert_true(scan_to_end(late, 1000, &after) > 10);
    check_all(&world);
    cold_scan_close(of_nothing);
    cold_scan_close(not_begun);
    cold_scan_close(begun);
    cold_scan_close(late);
    world_close(&world);
}

struct ingester {
    struct world *world;
    bool over;
    pthread_mutex_t lock;
};

static void *ingest_versions(void *argument)
{
    struct ingester *ingester = argument;
    for (uint32_t version = 2; version <= 25; version++)
        ingest(ingester->world, 0, KEYS, version, 20);
    pthread_mutex_lock(&ingester->lock);
    ingester->over = true;
    pthread_mutex_unlock(&ingester->lock);
    return NULL;
}

/* All rows of one scan are of one table; the version, which never goes back from scan to scan. */
static uint32_t scan_one_version(struct world *world)
{
    struct alloc alloc;
    struct buf page;
    struct cold_scan *scan = scan_open(world, FIRST, LAST);
    uint32_t version = 0;
    uint32_t rows = 0;
    bool more = true;
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&page, &alloc);
    while (more) {
        struct span key;
        struct span record;
        buf_clear(&page);
        assert_int_equal(cold_scan_next(scan, 4000, &page, &more), STATUS_OK);
        struct reader reader = reader_of(buf_span(&page));
        while (cold_page_next(&reader, &key, &record) == STATUS_OK) {
            uint32_t found = load_u32(record.data + 4);
            assert_true(version == 0 || version == found);
            version = found;
            rows++;
        }
    }
    assert_int_equal(rows, KEYS);
    buf_free(&page);
    cold_scan_close(scan);
    return version;
}

static void test_each_scan_sees_whole_tables_while_another_thread_ingests(void **state)
{
    struct world world;
    struct ingester ingester = {.world = &world};
    pthread_t thread;
    (void)state;
    world_open(&world);
    ingest(&world, 0, KEYS, 1, 20);
    pthread_mutex_init(&ingester.lock, NULL);
    assert_int_equal(pthread_create(&thread, NULL, ingest_versions, &ingester), 0);
    uint32_t version = 0;
    for (bool over = false; !over;) {
        pthread_mutex_lock(&ingester.lock);
        over = ingester.over;
        pthread_mutex_unlock(&ingester.lock);
        uint32_t next = scan_one_version(&world);
        assert_true(next >= version);
        version = next;
    }
    assert_int_equal(version, 25);
    (void)pthread_join(thread, NULL);
    pthread_mutex_destroy(&ingester.lock);
    world_close(&world);
}

/* ---- ends -------------------------------------------------------------------------------------------------- */

static void test_scan_closed_midway_leaves_the_others(void **state)
{
    struct world world;
    struct expected expected[3];
    struct cold_scan *scan[3];
    (void)state;
    world_open(&world);
    ingest(&world, 0, KEYS, 1, 20);
    for (unsigned i = 0; i < 3; i++) {
        expect_all(&expected[i], &world);
        scan[i] = scan_open(&world, FIRST, LAST);
    }
    assert_true(scan_page_of(scan[0], 300, &expected[0]));
    assert_true(scan_page_of(scan[1], 700, &expected[1]));
    cold_scan_close(scan[0]);
    cold_scan_close(scan[2]); /* never begun */
    ingest(&world, 0, KEYS, 2, 20);
    (void)scan_to_end(scan[1], 700, &expected[1]);
    cold_scan_close(scan[1]);
    cold_scan_close(NULL);
    world_close(&world);
}

static void test_page_without_memory_is_overload(void **state)
{
    struct world world;
    struct alloc alloc;
    struct buf page;
    bool more = false;
    (void)state;
    world_open(&world);
    ingest(&world, 0, 100, 1, 500);
    alloc_init(&alloc, 2000);
    buf_init(&page, &alloc);
    struct cold_scan *scan = scan_open(&world, FIRST, LAST);
    assert_int_equal(cold_scan_next(scan, COLD_SCAN_PAGE_BYTES, &page, &more), STATUS_OVERLOADED);
    assert_false(more);
    cold_scan_close(scan);
    buf_free(&page);
    world_close(&world);
}

static void test_scans_are_lost_when_the_database_is_opened_anew(void **state)
{
    struct world world;
    struct expected expected;
    struct alloc alloc;
    struct buf page;
    bool more = false;
    (void)state;
    world_open(&world);
    ingest(&world, 0, 500, 1, 20);
    expect_all(&expected, &world);
    struct cold_scan *begun = scan_open(&world, FIRST, LAST);
    struct cold_scan *not_begun = scan_open(&world, FIRST, LAST);
    assert_true(scan_page_of(begun, 300, &expected));
    world.cold->failed = true; /* as a failed ingestion leaves it */
    ingest(&world, 400, 600, 2, 20);
    assert_false(world.cold->failed);
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&page, &alloc);
    assert_int_equal(cold_scan_next(begun, 300, &page, &more), STATUS_IO_ERROR);
    assert_int_equal(cold_scan_next(not_begun, 300, &page, &more), STATUS_IO_ERROR);
    check_all(&world); /* a new one sees everything */
    cold_scan_close(begun);
    cold_scan_close(not_begun);
    buf_free(&page);
    world_close(&world);
}

static void test_scan_does_not_wait_for_a_database_that_is_being_opened(void **state)
{
    struct world world;
    struct cold_scan *scan = NULL;
    (void)state;
    world_open(&world);
    pthread_rwlock_wrlock(&world.cold->lock);
    assert_int_equal(cold_scan_open(world.cold, FIRST, LAST, &scan), STATUS_OVERLOADED);
    pthread_rwlock_unlock(&world.cold->lock);
    assert_null(scan);
    check_all(&world);
    world_close(&world);
}

/* One byte in every 4 KiB of the first half of each table: data blocks. */
static void damage_tables(struct world *world)
{
    DIR *directory = opendir(world->path);
    assert_non_null(directory);
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        size_t size = strlen(entry->d_name);
        if (size < 4 || strcmp(entry->d_name + size - 4, ".sst") != 0)
            continue;
        char *path = files_join(world->path, entry->d_name);
        int descriptor = open(path, O_RDWR | O_CLOEXEC);
        struct stat stat_of;
        assert_int_equal(fstat(descriptor, &stat_of), 0);
        for (off_t offset = stat_of.st_size / 4; offset < stat_of.st_size / 2; offset += 4096) {
            uint8_t byte;
            assert_int_equal(pread(descriptor, &byte, 1, offset), 1);
            byte ^= 0x10;
            assert_int_equal(files_write_at(descriptor, &byte, 1, offset), 0);
        }
        (void)close(descriptor);
        free(path);
    }
    (void)closedir(directory);
}

static void test_damage_is_told_and_never_the_end_of_the_range(void **state)
{
    struct world world;
    struct alloc alloc;
    struct buf page;
    unsigned pages = 0;
    bool more = true;
    (void)state;
    world_open(&world);
    ingest(&world, 0, KEYS, 1, 200);
    cold_close(world.cold);
    damage_tables(&world);
    world_reopen(&world);
    struct cold_scan *scan = scan_open(&world, FIRST, LAST);
    enum status status = STATUS_OK;
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&page, &alloc);
    for (; status == STATUS_OK && more; pages++) {
        buf_clear(&page);
        status = cold_scan_next(scan, 2000, &page, &more);
    }
    assert_int_equal(status, STATUS_CORRUPT);
    assert_true(pages > 3); /* what stands before the damage is read */
    assert_false(more);
    cold_scan_close(scan);
    buf_free(&page);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_range_in_any_page_size_gives_its_rows_in_order),
        cmocka_unit_test(test_ranges_without_rows_give_one_page_without_rows),
        cmocka_unit_test(test_row_larger_than_a_page_comes_alone),
        cmocka_unit_test(test_page_is_as_full_as_it_can_be),
        cmocka_unit_test(test_range_of_many_blocks_is_read_to_its_end),
        cmocka_unit_test(test_what_is_ingested_after_the_opening_is_not_seen),
        cmocka_unit_test(test_each_scan_sees_whole_tables_while_another_thread_ingests),
        cmocka_unit_test(test_scan_closed_midway_leaves_the_others),
        cmocka_unit_test(test_page_without_memory_is_overload),
        cmocka_unit_test(test_scans_are_lost_when_the_database_is_opened_anew),
        cmocka_unit_test(test_scan_does_not_wait_for_a_database_that_is_being_opened),
        cmocka_unit_test(test_damage_is_told_and_never_the_end_of_the_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
