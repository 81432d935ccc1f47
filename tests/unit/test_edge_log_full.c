/* The log thread and a disk that is full, or only slow; and what it tells before its first write. */
#include "edge_log_world.h"

/* A file system of 1 MiB for the log, and a file that fills it but for `left` bytes. Only root may mount: skips. */
static void mount_small(struct world *world)
{
    if (mount("tmpfs", world->directory, "tmpfs", 0, "size=1m") == 0)
        return;
    world_close(world);
    skip();
}

static void put_ballast(const struct world *world, char ballast[128], off_t left)
{
    (void)snprintf(ballast, 128, "%s/ballast", world->directory);
    int descriptor = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(posix_fallocate(descriptor, 0, (1 << 20) - left), 0);
    (void)close(descriptor);
}

static void test_log_full_disk_is_told_and_survived(void **state)
{
    struct world world;
    struct alloc alloc;
    struct found found;
    (void)state;
    world_open(&world);
    mount_small(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    char ballast[128];
    put_ballast(&world, ballast, 324 << 10);
    world_start(&world, DURABILITY_ALWAYS, (uint64_t)128 << 10, NULL);
    for (uint64_t sequence = 2; sequence < 502; sequence++)
        append_row(&world, &alloc, 0, sequence, 1000);
    WAIT_FOR(&world, world.full_count == 1);
    pthread_mutex_lock(&world.lock);
    assert_true(world.durable[0] > 2 && world.durable[0] < 400);
    assert_int_equal(world.room_count, 0);
    pthread_mutex_unlock(&world.lock);
    assert_int_equal(unlink(ballast), 0);
    WAIT_FOR(&world, world.durable[0] == 501);
    assert_int_equal(world.room_count, 1);
    assert_int_equal(world.full_count, 1);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    assert_string_equal(world.fatal, "");
    read_back(world.directory, &found, NULL);
    assert_int_equal(found.rows, 500);
    assert_int_equal(umount(world.directory), 0);
    world_close(&world);
}

static void test_log_disk_full_at_the_start_is_told_before_any_append(void **state)
{
    struct world world;
    struct alloc alloc;
    struct log_thread_stats stats;
    (void)state;
    world_open(&world);
    mount_small(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    char ballast[128];
    for (unsigned round = 0; round < 2; round++) {
        put_ballast(&world, ballast, 64 << 10);
        world_start(&world, DURABILITY_ALWAYS, (uint64_t)128 << 10, NULL);
        log_thread_stats(world.log, &stats);
        assert_true(stats.full);
        assert_int_equal(world.full_count, round + 1);
        if (round == 0) /* stopped as it is: nothing was lost */
            assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    }
    assert_int_equal(world.room_count, 0);
    assert_int_equal(unlink(ballast), 0);
    WAIT_FOR(&world, world.room_count == 1);
    assert_int_equal(count_files(world.directory), 0);
    append_row(&world, &alloc, 0, 2, 10);
    WAIT_FOR(&world, world.durable[0] == 2);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    assert_int_equal(world.full_count, 2);
    assert_int_equal(world.room_count, 1);
    assert_string_equal(world.fatal, "");
    assert_int_equal(umount(world.directory), 0);
    world_close(&world);
}

/* More than 64 MiB wait for the disk; that is the disk's pace, not its size. */
static void test_log_long_queue_is_no_full_disk(void **state)
{
    struct world world;
    struct alloc alloc;
    struct log_thread_stats stats;
    uint64_t most = 0;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)64 << 20);
    world_start(&world, DURABILITY_ALWAYS, 0, NULL);
    for (uint64_t sequence = 2; sequence < 14; sequence++) {
        append_row(&world, &alloc, 0, sequence, (size_t)12 << 20);
        log_thread_stats(world.log, &stats);
        most = stats.queued_bytes > most ? stats.queued_bytes : most;
        assert_false(stats.full);
    }
    print_message("up to %llu MiB waited\n", (unsigned long long)(most >> 20));
    WAIT_FOR(&world, world.durable[0] == 13);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    assert_int_equal(world.full_count, 0);
    world_close(&world);
}

static void test_log_tells_once_and_first_that_it_has_begun(void **state)
{
    struct world world;
    struct alloc alloc;
    (void)state;
    for (unsigned no_room = 0; no_room < 2; no_room++) {
        world_open(&world);
        world.no_room_to_begin = no_room == 1;
        alloc_init(&alloc, (size_t)16 << 20);
        world_start(&world, DURABILITY_ALWAYS, (uint64_t)64 << 10, NULL);
        for (uint64_t sequence = 2; sequence < 202; sequence++)
            append_row(&world, &alloc, 0, sequence, 1000);
        WAIT_FOR(&world, world.durable[0] == 201);
        assert_int_equal(log_thread_stop(world.log), STATUS_OK);
        assert_int_equal(world.begun_count, 1 + no_room);
        assert_int_equal(world.full_count, no_room);
        assert_int_equal(world.room_count, no_room);
        world_close(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_full_disk_is_told_and_survived),
        cmocka_unit_test(test_log_disk_full_at_the_start_is_told_before_any_append),
        cmocka_unit_test(test_log_long_queue_is_no_full_disk),
        cmocka_unit_test(test_log_tells_once_and_first_that_it_has_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
