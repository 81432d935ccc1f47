/* The log thread with real files: what it says is durable is found again, also after a kill; segments are
 * recycled; a full disk is told and survived. */
#include "edge_log_world.h"

/* ---- tests ---------------------------------------------------------------------------------------------- */

static void test_log_everything_is_found_again_after_a_clean_stop(void **state)
{
    static const enum durability_mode modes[] = {DURABILITY_ALWAYS, DURABILITY_INTERVAL, DURABILITY_OS};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct world world;
        struct alloc alloc;
        struct found found;
        world_open(&world);
        alloc_init(&alloc, (size_t)16 << 20);
        world_start(&world, modes[i], (uint64_t)1 << 20, NULL);
        for (uint64_t sequence = 2; sequence <= 400; sequence++)
            append_row(&world, &alloc, (uint16_t)(i % SHARDS), sequence, 1000);
        assert_int_equal(log_thread_stop(world.log), STATUS_OK);
        assert_int_equal(world.durable[i % SHARDS], 400);
        assert_false(world.backwards);
        assert_string_equal(world.fatal, "");
        read_back(world.directory, &found, NULL);
        assert_int_equal(found.rows, 399);
        assert_false(found.gap);
        assert_int_equal(found.report.bounds.bound, 400);
        assert_int_equal(found.report.torn_bytes, 0);
        world_close(&world);
    }
}

static void test_log_batch_is_durable_without_anything_that_follows_it(void **state)
{
    static const enum durability_mode modes[] = {DURABILITY_ALWAYS, DURABILITY_INTERVAL, DURABILITY_OS};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct world world;
        struct alloc alloc;
        world_open(&world);
        alloc_init(&alloc, (size_t)16 << 20);
        world_start(&world, modes[i], 0, NULL);
        for (uint64_t sequence = 2; sequence < 12; sequence++) {
            append_row(&world, &alloc, 1, sequence, 10);
            WAIT_FOR(&world, world.durable[1] == sequence);
        }
        assert_int_equal(log_thread_stop(world.log), STATUS_OK);
        world_close(&world);
    }
}

static void test_log_idle_thread_writes_one_marker_and_then_nothing(void **state)
{
    struct world world;
    struct alloc alloc;
    struct log_thread_stats before;
    struct log_thread_stats after;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    world_start(&world, DURABILITY_ALWAYS, 0, NULL);
    append_row(&world, &alloc, 0, 2, 10);
    WAIT_FOR(&world, world.durable[0] == 2);
    do {
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        log_thread_stats(world.log, &before);
    } while (before.writes < 2);
    (void)nanosleep(&(struct timespec){.tv_nsec = 10 * LOG_IDLE_MS * 1000000L}, NULL);
    log_thread_stats(world.log, &after);
    assert_int_equal(after.writes, 2);
    assert_int_equal(after.batches, 1);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    world_close(&world);
}

struct producer {
    struct world *world;
    uint16_t shard;
    uint64_t count;
    size_t size;
};

static void *produce(void *argument)
{
    struct producer *producer = argument;
    struct alloc alloc;
    struct prng prng;
    alloc_init(&alloc, (size_t)16 << 20);
    prng_seed(&prng, producer->shard);
    for (uint64_t sequence = 2; sequence < producer->count + 2; sequence++) {
        append_row(producer->world, &alloc, producer->shard, sequence,
                   1 + (size_t)prng_below(&prng, producer->size));
        pthread_mutex_lock(&producer->world->lock);
        uint64_t durable = producer->world->durable[producer->shard];
        pthread_mutex_unlock(&producer->world->lock);
        /* No further ahead than a shard's requests in flight would be. */
        if (sequence > durable + 500)
            WAIT_FOR(producer->world, producer->world->durable[producer->shard] + 500 >= sequence);
        if (sequence % 16 == 0 && durable > 100)
            log_thread_flushed(producer->world->log, producer->shard, durable - 100);
    }
    return NULL;
}

static void run_producers(struct world *world, uint64_t count, size_t size)
{
    pthread_t threads[SHARDS];
    struct producer producers[SHARDS];
    for (uint16_t shard = 0; shard < SHARDS; shard++) {
        producers[shard] = (struct producer){.world = world, .shard = shard, .count = count, .size = size};
        assert_int_equal(pthread_create(&threads[shard], NULL, produce, &producers[shard]), 0);
    }
    for (uint16_t shard = 0; shard < SHARDS; shard++)
        (void)pthread_join(threads[shard], NULL);
}

static void test_log_shards_share_syncs_and_segments_are_recycled(void **state)
{
    struct world world;
    struct log_thread_stats stats;
    struct found found;
    (void)state;
    world_open(&world);
    world_start(&world, DURABILITY_ALWAYS, (uint64_t)256 << 10, NULL);
    run_producers(&world, 4000, 600);
    WAIT_FOR(&world, world.durable[0] == 4001 && world.durable[1] == 4001 && world.durable[2] == 4001);
    log_thread_stats(world.log, &stats);
    assert_int_equal(stats.batches, 3 * 4000);
    assert_true(stats.syncs < stats.batches / 2);
    assert_int_equal(stats.queued_bytes, 0);
    for (uint16_t shard = 0; shard < SHARDS; shard++)
        log_thread_flushed(world.log, shard, 4001);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    assert_false(world.backwards);
    /* About 4 MB were written in segments of 256 KiB; what was flushed is gone or waits to be recycled. */
    assert_in_range(count_files(world.directory), 1, 3);
    read_back(world.directory, &found, NULL);
    assert_int_equal(found.report.bounds.bound, 4000); /* known although its batch may be gone */
    world_close(&world);
}

static void test_log_shards_that_write_by_themselves_lose_and_reorder_nothing(void **state)
{
    static const enum durability_mode modes[] = {DURABILITY_INTERVAL, DURABILITY_OS};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct world world;
        struct found found;
        world_open(&world);
        world_start(&world, modes[i], (uint64_t)256 << 10, NULL);
        run_producers(&world, 4000, 600);
        WAIT_FOR(&world, world.durable[0] == 4001 && world.durable[1] == 4001 && world.durable[2] == 4001);
        assert_int_equal(log_thread_stop(world.log), STATUS_OK);
        assert_false(world.backwards);
        read_back(world.directory, &found, NULL);
        assert_false(found.gap);
        assert_int_equal(found.report.torn_bytes, 0);
        assert_int_equal(found.report.bounds.bound, 4000);
        world_close(&world);
    }
}

/* The first batch is the thread's, which makes the segment; the next one does not wait for it. */
static void test_log_shard_hears_at_once_of_what_it_wrote(void **state)
{
    struct world world;
    struct alloc alloc;
    struct log_thread_stats stats;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    world_start(&world, DURABILITY_OS, 0, NULL);
    append_row(&world, &alloc, 0, 2, 10);
    WAIT_FOR(&world, world.durable[0] == 2);
    /* The thread may just be awake, for its marker: then it writes. */
    uint64_t sequence = 3;
    for (bool at_once = false; !at_once && sequence < 1000; sequence++) {
        append_row(&world, &alloc, 0, sequence, 10);
        pthread_mutex_lock(&world.lock);
        at_once = world.durable[0] == sequence;
        pthread_mutex_unlock(&world.lock);
        WAIT_FOR(&world, world.durable[0] == sequence);
    }
    assert_true(sequence < 1000);
    log_thread_stats(world.log, &stats);
    assert_int_equal(stats.syncs, 0);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    assert_false(world.backwards);
    world_close(&world);
}

static uint64_t monotonic_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Every write counts as slow here: after one of them the thread does all writing for a while. */
static void test_log_slow_disk_holds_a_shard_back_once_in_a_while(void **state)
{
    struct world world;
    struct alloc alloc;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    world.write_slow_us = 1;
    world_start(&world, DURABILITY_OS, 0, NULL);
    /* The thread may just be awake and take the row; the shard that finds nothing left counts as slow, too. So there
     * is time for the thread to fall asleep, and for more than one such pause to pass. */
    uint64_t sequence = 2;
    for (; world.written_by_shards == 0 && sequence < 1000; sequence++) {
        append_row(&world, &alloc, 0, sequence, 1000);
        WAIT_FOR(&world, world.durable[0] == sequence);
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    assert_int_equal(world.written_by_shards, 1);
    uint64_t begun_us = monotonic_us();
    for (uint64_t end = sequence + 100; sequence < end; sequence++) {
        append_row(&world, &alloc, 0, sequence, 1000);
        WAIT_FOR(&world, world.durable[0] == sequence);
    }
    assert_true(world.written_by_shards <= 2 + (monotonic_us() - begun_us) / LOG_WRITE_REST_US);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    assert_false(world.backwards);
    world_close(&world);
}

static void test_log_interval_syncs_what_a_shard_wrote(void **state)
{
    struct world world;
    struct alloc alloc;
    struct log_thread_stats stats;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    world_start(&world, DURABILITY_INTERVAL, 0, NULL);
    uint64_t syncs = 0;
    for (uint64_t sequence = 2; sequence < 6; sequence++) {
        append_row(&world, &alloc, 0, sequence, 10);
        WAIT_FOR(&world, world.durable[0] == sequence);
        do {
            (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            log_thread_stats(world.log, &stats);
        } while (stats.syncs == syncs);
        syncs = stats.syncs;
    }
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    world_close(&world);
}

static void test_log_batch_larger_than_a_segment_gets_its_own(void **state)
{
    struct world world;
    struct alloc alloc;
    struct found found;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)64 << 20);
    world_start(&world, DURABILITY_ALWAYS, (uint64_t)64 << 10, NULL);
    append_row(&world, &alloc, 0, 2, 100);
    append_row(&world, &alloc, 0, 3, (size_t)12 << 20);
    append_row(&world, &alloc, 0, 4, (size_t)9 << 20);
    append_row(&world, &alloc, 0, 5, 100);
    WAIT_FOR(&world, world.durable[0] == 5);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    read_back(world.directory, &found, NULL);
    assert_int_equal(found.rows, 4);
    world_close(&world);
}

static void test_log_goes_on_where_the_last_run_stopped(void **state)
{
    struct world world;
    struct alloc alloc;
    struct found found;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    for (uint64_t run = 1; run <= 5; run++) {
        struct log_resume resume;
        read_back(world.directory, &found, &resume);
        assert_int_equal(found.rows, (run - 1) * 100);
        world_start(&world, DURABILITY_ALWAYS, (uint64_t)64 << 10, &resume);
        free(resume.inherited);
        for (uint64_t sequence = 2; sequence < 102; sequence++)
            append_row(&world, &alloc, 2, sequence, 200);
        assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    }
    read_back(world.directory, &found, NULL);
    assert_int_equal(found.rows, 500);
    world_close(&world);
}

/* The child appends until it is killed; what it reported durable must be there. */
static void test_log_killed_process_loses_nothing_that_it_acknowledged(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 5);
    for (unsigned round = 0; round < 8; round++) {
        struct world world;
        int ends[2];
        world_open(&world);
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)close(ends[0]);
            world.pipe = ends[1];
            world_start(&world, DURABILITY_ALWAYS, (uint64_t)128 << 10, NULL);
            run_producers(&world, 1000000, 300);
            _exit(0);
        }
        (void)close(ends[1]);
        uint64_t acknowledged[SHARDS] = {0};
        uint64_t message[2];
        uint64_t until = 50 + prng_below(&prng, 400);
        for (uint64_t count = 0; read(ends[0], message, sizeof(message)) == (ssize_t)sizeof(message);
             count++) {
            acknowledged[message[0]] = message[1];
            if (count == until)
                (void)kill(child, SIGKILL);
        }
        (void)close(ends[0]);
        (void)waitpid(child, NULL, 0);
        struct found found;
        read_back(world.directory, &found, NULL);
        assert_false(found.gap);
        for (uint16_t shard = 0; shard < SHARDS; shard++)
            assert_true(found.highest[shard] >= acknowledged[shard]);
        world_close(&world);
    }
}

static void test_log_missing_directory_is_fatal_and_acknowledges_nothing(void **state)
{
    struct world world;
    struct alloc alloc;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)1 << 20);
    assert_int_equal(rmdir(world.directory), 0);
    world_start(&world, DURABILITY_ALWAYS, 0, NULL);
    append_row(&world, &alloc, 0, 2, 10);
    WAIT_FOR(&world, world.fatal[0] != '\0');
    append_row(&world, &alloc, 0, 3, 10);
    assert_int_equal(log_thread_stop(world.log), STATUS_IO_ERROR);
    assert_int_equal(world.durable[0], 0);
    assert_non_null(strstr(world.fatal, world.directory));
    assert_int_equal(mkdir(world.directory, 0700), 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_everything_is_found_again_after_a_clean_stop),
        cmocka_unit_test(test_log_batch_is_durable_without_anything_that_follows_it),
        cmocka_unit_test(test_log_idle_thread_writes_one_marker_and_then_nothing),
        cmocka_unit_test(test_log_shards_share_syncs_and_segments_are_recycled),
        cmocka_unit_test(test_log_shards_that_write_by_themselves_lose_and_reorder_nothing),
        cmocka_unit_test(test_log_shard_hears_at_once_of_what_it_wrote),
        cmocka_unit_test(test_log_slow_disk_holds_a_shard_back_once_in_a_while),
        cmocka_unit_test(test_log_interval_syncs_what_a_shard_wrote),
        cmocka_unit_test(test_log_batch_larger_than_a_segment_gets_its_own),
        cmocka_unit_test(test_log_goes_on_where_the_last_run_stopped),
        cmocka_unit_test(test_log_killed_process_loses_nothing_that_it_acknowledged),
        cmocka_unit_test(test_log_missing_directory_is_fatal_and_acknowledges_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
