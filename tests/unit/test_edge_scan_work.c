/* Range scans of the cold tier as work of a loop: pages, stops at any time, and the loop's end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "edge/say.h"
#include "edge/scan_work.h"
#include "scan_world.h"

#define TICKETS (COLD_SCANS_MAX + 10)

struct scans_world {
    struct world world;
    uv_loop_t uv;
    struct alloc alloc;
    struct scan_work work;
    struct expected expected[TICKETS];
    unsigned pages[TICKETS];
    bool over[TICKETS];
    unsigned stop_after; /* pages of each scan; 0 = never */
    unsigned hold_after; /* pages after which nothing more is asked for; 0 = never */
    enum status status;
};

static void on_tell(void *context, struct event *event)
{
    struct scans_world *world = context;
    uint64_t ticket = event->ticket;
    assert_int_equal(event->kind, EVENT_COLD_SCAN);
    assert_true(ticket < TICKETS);
    assert_false(world->over[ticket]);
    assert_int_equal(event->status, world->status);
    (void)check_page(&world->expected[ticket], event->bytes);
    world->pages[ticket]++;
    if (!event->flag) {
        world->over[ticket] = true;
        scan_work_stop(&world->work, ticket); /* crosses the last page: nothing */
    } else if (world->pages[ticket] == world->stop_after) {
        world->over[ticket] = true;
        scan_work_stop(&world->work, ticket);
    } else if (world->pages[ticket] != world->hold_after) {
        scan_work_next(&world->work, ticket);
    }
}

static void scans_open(struct scans_world *world, size_t padding)
{
    memset(world, 0, sizeof *world);
    world_open(&world->world);
    if (padding > 0)
        ingest(&world->world, 0, KEYS, 1, padding);
    alloc_init(&world->alloc, SIZE_MAX);
    assert_int_equal(uv_loop_init(&world->uv), 0);
    static const struct say_sink say = {.level_max = SAY_DEBUG};
    const struct scan_work_options options = {.uv = &world->uv,
                                              .cold = world->world.cold,
                                              .alloc = &world->alloc,
                                              .say = &say,
                                              .context = world,
                                              .tell = on_tell};
    scan_work_init(&world->work, &options);
}

static void scans_close(struct scans_world *world)
{
    scan_work_close(&world->work);
    uv_run(&world->uv, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world->uv), 0);
    scan_work_free(&world->work);
    assert_int_equal(world->alloc.used_bytes, 0);
    world_close(&world->world);
}

static void begin_scan(struct scans_world *world, uint64_t ticket)
{
    expect_all(&world->expected[ticket], &world->world);
    scan_work_open(&world->work, ticket, FIRST, LAST);
}

static void test_loop_tells_every_page_of_many_scans_at_once(void **state)
{
    static struct scans_world world;
    (void)state;
    scans_open(&world, 1000);
    for (uint64_t ticket = 0; ticket < COLD_SCANS_MAX; ticket++)
        begin_scan(&world, ticket);
    ingest(&world.world, 0, KEYS, 2, 20);
    uv_run(&world.uv, UV_RUN_DEFAULT);
    for (uint64_t ticket = 0; ticket < COLD_SCANS_MAX; ticket++) {
        assert_true(world.over[ticket]);
        assert_int_equal(world.expected[ticket].at, KEYS);
        assert_int_equal(world.pages[ticket], 6); /* 1500 rows of a little over 1 KiB */
    }
    assert_int_equal(world.work.open, 0);
    begin_scan(&world, COLD_SCANS_MAX);
    uv_run(&world.uv, UV_RUN_DEFAULT);
    assert_int_equal(world.pages[COLD_SCANS_MAX], 1);
    scans_close(&world);
}

static void test_loop_reads_on_only_when_asked(void **state)
{
    static struct scans_world world;
    (void)state;
    scans_open(&world, 1000);
    world.hold_after = 2;
    begin_scan(&world, 1);
    uv_run(&world.uv, UV_RUN_DEFAULT);
    assert_int_equal(world.pages[1], 2);
    scan_work_next(&world.work, 1);
    uv_run(&world.uv, UV_RUN_DEFAULT);
    assert_int_equal(world.pages[1], 6);
    assert_true(world.over[1]);
    scans_close(&world);
}

static void test_loop_stops_scans_at_any_time(void **state)
{
    static struct scans_world world;
    (void)state;
    scans_open(&world, 1000);
    world.stop_after = 2;
    begin_scan(&world, 0); /* stopped while it is told of a page */
    begin_scan(&world, 1); /* stopped while it waits for the pool */
    scan_work_stop(&world.work, 1);
    uv_run(&world.uv, UV_RUN_DEFAULT);
    assert_int_equal(world.pages[0], 2);
    assert_int_equal(world.pages[1], 0);
    world.stop_after = 0;
    world.hold_after = 1;
    begin_scan(&world,
               2); /* stopped in the pool, or where it waits for it; its ticket is used again at once */
    scan_work_stop(&world.work, 2);
    begin_scan(&world, 2);
    uv_run(&world.uv, UV_RUN_DEFAULT);
    assert_int_equal(world.pages[2], 1);
    scan_work_stop(&world.work, 2); /* while it waits to be asked */
    scan_work_stop(&world.work, 2);
    uv_run(&world.uv, UV_RUN_DEFAULT);
    assert_int_equal(world.pages[2], 1);
    assert_int_equal(world.work.open, 0);
    assert_true(list_empty(&world.work.scans));
    scans_close(&world);
}

static void test_loop_ends_with_scans_in_every_state(void **state)
{
    static struct scans_world world;
    (void)state;
    scans_open(&world, 1000);
    world.hold_after = 1;
    begin_scan(&world, 0);
    uv_run(&world.uv, UV_RUN_DEFAULT);
    for (uint64_t ticket = 1; ticket < 8; ticket++)
        begin_scan(&world, ticket);
    scan_work_stop(&world.work, 1);
    scan_work_stop(&world.work, 5);
    scans_close(&world);
    assert_int_equal(world.pages[0], 1);
    for (uint64_t ticket = 1; ticket < 8; ticket++)
        assert_int_equal(world.pages[ticket], 0);
}

static void test_loop_tells_of_a_scan_that_could_not_be_opened(void **state)
{
    static struct scans_world world;
    (void)state;
    scans_open(&world, 0);
    world.status = STATUS_OVERLOADED;
    pthread_rwlock_wrlock(&world.world.cold->lock);
    begin_scan(&world, 3);
    pthread_rwlock_unlock(&world.world.cold->lock);
    assert_int_equal(world.pages[3], 0); /* later, not from within */
    uv_run(&world.uv, UV_RUN_DEFAULT);
    assert_true(world.over[3]);
    scans_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loop_tells_every_page_of_many_scans_at_once),
        cmocka_unit_test(test_loop_reads_on_only_when_asked),
        cmocka_unit_test(test_loop_stops_scans_at_any_time),
        cmocka_unit_test(test_loop_ends_with_scans_in_every_state),
        cmocka_unit_test(test_loop_tells_of_a_scan_that_could_not_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
