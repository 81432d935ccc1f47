/* Stamps and the hybrid logical clock: random clocks, crashes and keys against a list of every stamp handed out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "model/stamp.h"

#define SKEW_MAX_MS 500u
#define LEAD_MS (SKEW_MAX_MS / 2)
#define START_MS UINT64_C(1700000000000)
#define KEYS 4
#define STEPS 4000
#define SEEDS 300

static struct stamp at_time(uint64_t ms, uint64_t counter)
{
    return (struct stamp){.time = ms << 16 | counter, .actor = 77};
}

/* A clock with a disk: what it asked to persist, and what survives a crash. */
struct clock {
    struct hlc hlc;
    struct prng prng;
    struct hlc_bounds disk;
    struct hlc_bounds asked; /* on its way; all zeros = nothing */
    uint64_t now_ms;
    uint64_t highest_ms; /* of the real clock, over all steps */
};

static void clock_begin(struct clock *clock, uint64_t seed)
{
    *clock = (struct clock){.now_ms = START_MS, .highest_ms = START_MS};
    prng_seed(&clock->prng, seed);
    hlc_init(&clock->hlc, 1, SKEW_MAX_MS, clock->disk);
}

static void clock_ask(struct clock *clock)
{
    struct hlc_bounds bounds;
    if (hlc_wants_bounds(&clock->hlc, clock->now_ms, true, &bounds))
        clock->asked = bounds;
}

static void clock_sync(struct clock *clock)
{
    if (clock->asked.bound == 0 && clock->asked.future == 0)
        return;
    clock->disk = clock->asked;
    clock->asked = (struct hlc_bounds){0};
    hlc_bounds_durable(&clock->hlc, clock->disk);
}

/* The process ends; what it had asked for may have reached the disk or not. */
static void clock_crash(struct clock *clock)
{
    if (prng_chance(&clock->prng, 1, 2) && (clock->asked.bound != 0 || clock->asked.future != 0))
        clock->disk = clock->asked;
    clock->asked = (struct hlc_bounds){0};
    hlc_init(&clock->hlc, 1, SKEW_MAX_MS, clock->disk);
}

/* Time passes, mostly a little; now and then it steps, either way. */
static void clock_move(struct clock *clock)
{
    uint64_t draw = prng_below(&clock->prng, 100);
    if (draw < 70)
        clock->now_ms += prng_below(&clock->prng, 3);
    else if (draw < 90)
        clock->now_ms += prng_below(&clock->prng, 2 * SKEW_MAX_MS);
    else if (draw < 95)
        clock->now_ms -= prng_below(&clock->prng, 2 * SKEW_MAX_MS);
    else if (draw < 97)
        clock->now_ms += prng_below(&clock->prng, 20 * SKEW_MAX_MS);
    if (clock->now_ms > clock->highest_ms)
        clock->highest_ms = clock->now_ms;
}

/* What a replica may say it holds: nothing, something recent, something from the far future, or the very edge of
 * what the clock still calls near. */
static struct stamp draw_seen(struct clock *clock, struct stamp held)
{
    uint64_t near_max = (clock->now_ms + SKEW_MAX_MS) << 16 | 0xffff;
    switch (prng_below(&clock->prng, 8)) {
    case 0:
        return (struct stamp){0};
    case 1:
        return (struct stamp){.time = near_max, .actor = 9};
    case 2:
        return (struct stamp){.time = near_max + 1 + prng_below(&clock->prng, 3), .actor = 9};
    case 3:
        return at_time(clock->now_ms + prng_below(&clock->prng, 10 * SKEW_MAX_MS), 0xffff);
    case 4:
        return at_time(clock->now_ms + prng_below(&clock->prng, SKEW_MAX_MS), prng_below(&clock->prng, 3));
    default:
        return held;
    }
}

static int compare_times(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;
    return (*x > *y) - (*x < *y);
}

static void check_distinct(uint64_t *times, size_t count, uint64_t seed)
{
    qsort(times, count, sizeof *times, compare_times);
    for (size_t i = 1; i < count; i++) {
        if (times[i] == times[i - 1])
            fail_msg("seed %llu: the stamp %llx was handed out twice", (unsigned long long)seed,
                     (unsigned long long)times[i]);
    }
}

static void hlc_under_random_clocks_and_crashes_never_repeats_a_stamp(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        static uint64_t given[STEPS];
        size_t count = 0;
        struct stamp held[KEYS] = {0};
        struct clock clock;
        clock_begin(&clock, seed);
        for (int step = 0; step < STEPS; step++) {
            clock_move(&clock);
            struct stamp *key = &held[prng_below(&clock.prng, KEYS)];
            struct stamp seen = draw_seen(&clock, *key);
            struct stamp stamp;
            if (prng_chance(&clock.prng, 1, 3))
                hlc_observe(&clock.hlc, clock.now_ms, seen);
            struct stamp above = prng_chance(&clock.prng, 1, 2) ? seen : (struct stamp){0};
            if (hlc_stamp(&clock.hlc, clock.now_ms, above, &stamp) == STATUS_OK) {
                assert_true(stamp.time > above.time);
                assert_true(stamp.time <= clock.disk.bound || stamp.time <= clock.disk.future);
                given[count++] = stamp.time;
                *key = stamp_max(*key, stamp);
            }
            clock_ask(&clock);
            if (prng_chance(&clock.prng, 2, 3))
                clock_sync(&clock);
            if (prng_chance(&clock.prng, 1, 200))
                clock_crash(&clock);
        }
        assert_true(count > STEPS / 10);
        check_distinct(given, count, seed);
    }
}

static void hlc_ordinary_stamps_never_go_backwards_and_stay_near_real_time(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t last = 0;
        struct clock clock;
        clock_begin(&clock, seed);
        for (int step = 0; step < STEPS; step++) {
            clock_move(&clock);
            struct stamp stamp;
            struct stamp seen = at_time(clock.now_ms + prng_below(&clock.prng, 4 * SKEW_MAX_MS), 5);
            if (prng_chance(&clock.prng, 1, 2))
                hlc_observe(&clock.hlc, clock.now_ms, seen);
            if (hlc_stamp(&clock.hlc, clock.now_ms, (struct stamp){0}, &stamp) == STATUS_OK) {
                assert_true(stamp.time > last);
                last = stamp.time;
                /* Counters may run over into the next millisecond. */
                assert_true(stamp_ms(stamp) <= clock.highest_ms + SKEW_MAX_MS + 1);
            }
            clock_ask(&clock);
            if (prng_chance(&clock.prng, 2, 3))
                clock_sync(&clock);
            if (prng_chance(&clock.prng, 1, 200))
                clock_crash(&clock);
        }
    }
}

static void hlc_new_waits_until_its_bound_is_durable(void **state)
{
    (void)state;
    struct hlc hlc;
    struct hlc_bounds bounds;
    struct stamp stamp;
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
    assert_int_equal(hlc_stamp(&hlc, START_MS, (struct stamp){0}, &stamp), STATUS_WAIT);
    assert_true(hlc_wants_bounds(&hlc, START_MS, true, &bounds));
    assert_true(bounds.bound >= START_MS << 16);
    assert_true(bounds.bound >> 16 <= START_MS + LEAD_MS);
    assert_int_equal(bounds.future, 0);
    /* Asked for is not durable. */
    assert_int_equal(hlc_stamp(&hlc, START_MS, (struct stamp){0}, &stamp), STATUS_WAIT);
    hlc_bounds_durable(&hlc, bounds);
    assert_int_equal(hlc_stamp(&hlc, START_MS, (struct stamp){0}, &stamp), STATUS_OK);
    assert_int_equal(stamp.actor, 7);
    assert_int_equal(stamp_ms(stamp), START_MS);
    struct stamp next;
    assert_int_equal(hlc_stamp(&hlc, START_MS, (struct stamp){0}, &next), STATUS_OK);
    assert_int_equal(next.time, stamp.time + 2);
}

static void hlc_past_its_durable_bound_waits_again(void **state)
{
    (void)state;
    struct hlc hlc;
    struct stamp stamp;
    struct hlc_bounds bounds = {.bound = START_MS << 16 | 4};
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
    hlc_bounds_durable(&hlc, bounds);
    for (int i = 0; i < 3; i++)
        assert_int_equal(hlc_stamp(&hlc, START_MS, (struct stamp){0}, &stamp), STATUS_OK);
    assert_int_equal(stamp.time, bounds.bound);
    assert_int_equal(hlc_stamp(&hlc, START_MS, (struct stamp){0}, &stamp), STATUS_WAIT);
}

static void hlc_restarted_waits_until_real_time_has_passed_its_bound(void **state)
{
    (void)state;
    struct hlc hlc;
    struct hlc_bounds bounds;
    struct stamp stamp;
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){.bound = (START_MS + 200) << 16 | 0xffff});
    assert_int_equal(hlc_stamp(&hlc, START_MS, (struct stamp){0}, &stamp), STATUS_WAIT);
    assert_int_equal(hlc_stamp(&hlc, START_MS + 200, (struct stamp){0}, &stamp), STATUS_WAIT);
    assert_int_equal(hlc_stamp(&hlc, START_MS + 201, (struct stamp){0}, &stamp), STATUS_WAIT);
    assert_true(hlc_wants_bounds(&hlc, START_MS + 201, true, &bounds));
    hlc_bounds_durable(&hlc, bounds);
    assert_int_equal(hlc_stamp(&hlc, START_MS + 201, (struct stamp){0}, &stamp), STATUS_OK);
    assert_int_equal(stamp_ms(stamp), START_MS + 201);
}

static void hlc_under_steady_load_renews_its_bound_before_it_is_used_up(void **state)
{
    (void)state;
    struct hlc hlc;
    struct hlc_bounds bounds;
    struct stamp stamp;
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
    assert_true(hlc_wants_bounds(&hlc, START_MS, true, &bounds));
    hlc_bounds_durable(&hlc, bounds);
    int renewals = 0;
    for (uint64_t ms = 0; ms < 10000; ms++) {
        assert_int_equal(hlc_stamp(&hlc, START_MS + ms, (struct stamp){0}, &stamp), STATUS_OK);
        if (!hlc_wants_bounds(&hlc, START_MS + ms, true, &bounds))
            continue;
        renewals++;
        assert_true(bounds.bound >> 16 <= START_MS + ms + LEAD_MS);
        hlc_bounds_durable(&hlc, bounds);
    }
    assert_in_range(renewals, 10000 / LEAD_MS, 2 * 10000 / LEAD_MS + 2);
}

static void hlc_idle_persists_nothing(void **state)
{
    (void)state;
    struct hlc hlc;
    struct hlc_bounds bounds;
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
    assert_false(hlc_wants_bounds(&hlc, START_MS, false, &bounds));
    assert_false(hlc_wants_bounds(&hlc, START_MS + 100000, false, &bounds));
}

/* A stamp of this clock with everything it needs made durable first. */
static struct stamp stamp_surely(struct hlc *hlc, uint64_t now_ms, struct stamp above)
{
    struct stamp stamp = {0};
    struct hlc_bounds bounds;
    enum status status = hlc_stamp(hlc, now_ms, above, &stamp);
    if (status == STATUS_WAIT) {
        assert_true(hlc_wants_bounds(hlc, now_ms, true, &bounds));
        hlc_bounds_durable(hlc, bounds);
        status = hlc_stamp(hlc, now_ms, above, &stamp);
    }
    assert_int_equal(status, STATUS_OK);
    return stamp;
}

static void hlc_above_a_far_future_stamp_leaves_the_ordinary_clock_alone(void **state)
{
    (void)state;
    struct hlc hlc;
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
    struct stamp far = at_time(START_MS + 3600000, 3);
    hlc_observe(&hlc, START_MS, far);
    struct stamp poisoned = stamp_surely(&hlc, START_MS, far);
    assert_int_equal(poisoned.time, far.time + 2); /* odd: the far-future register's */
    struct stamp ordinary = stamp_surely(&hlc, START_MS, (struct stamp){0});
    assert_int_equal(stamp_ms(ordinary), START_MS);
}

static void hlc_far_future_register_is_durable_before_use_and_survives_a_restart(void **state)
{
    (void)state;
    struct hlc hlc;
    struct hlc_bounds bounds;
    struct stamp stamp;
    struct stamp far = at_time(START_MS + 3600000, 0);
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
    hlc_bounds_durable(&hlc, (struct hlc_bounds){.bound = (START_MS + LEAD_MS) << 16});
    assert_int_equal(hlc_stamp(&hlc, START_MS, far, &stamp), STATUS_WAIT);
    assert_true(hlc_wants_bounds(&hlc, START_MS, true, &bounds));
    assert_true(bounds.future > far.time);
    hlc_bounds_durable(&hlc, bounds);
    assert_int_equal(hlc_stamp(&hlc, START_MS, far, &stamp), STATUS_OK);
    hlc_init(&hlc, 7, SKEW_MAX_MS, bounds);
    struct stamp after = stamp_surely(&hlc, START_MS + 1000, far);
    assert_true(after.time > stamp.time);
    assert_true(after.time > bounds.future);
}

/* The ordinary clock runs into the times that the far-future register gave out: at every distance around the edge
 * the two must stay apart. */
static void hlc_real_time_that_reaches_far_future_stamps_never_repeats_them(void **state)
{
    (void)state;
    for (uint64_t counter = 0xfff0; counter <= 0xffff; counter++) {
        for (uint64_t step = 0; step <= 2; step++) {
            for (int observed = 0; observed <= 1; observed++) {
                struct hlc hlc;
                hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
                struct stamp far = at_time(START_MS + 2000, counter);
                struct stamp given = stamp_surely(&hlc, START_MS, far);
                uint64_t now_ms = START_MS + 2000 - SKEW_MAX_MS - 1 + step;
                if (observed)
                    hlc_observe(&hlc, now_ms, far);
                struct stamp later = stamp_surely(&hlc, now_ms, far);
                assert_int_not_equal(later.time, given.time);
                assert_true(later.time > far.time);
            }
        }
    }
}

static void hlc_stamp_at_the_end_of_time_is_refused(void **state)
{
    (void)state;
    struct hlc hlc;
    struct stamp stamp;
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
    struct stamp end = {.time = UINT64_MAX, .actor = UINT64_MAX};
    assert_int_equal(hlc_stamp(&hlc, START_MS, end, &stamp), STATUS_CLOCK_SKEW);
    assert_int_equal(hlc_stamp(&hlc, START_MS, at_time(STAMP_MS_MAX, 0), &stamp), STATUS_CLOCK_SKEW);
    /* The highest that is not refused gets what it needs, and does not wait for ever. */
    struct stamp highest = at_time(STAMP_MS_MAX, 0);
    while (hlc_stamp(&hlc, START_MS, highest, &stamp) == STATUS_CLOCK_SKEW)
        highest.time -= UINT64_C(1) << 16;
    stamp = stamp_surely(&hlc, START_MS, highest);
    assert_true(stamp.time > highest.time);
    assert_true(stamp_ms(highest) > STAMP_MS_MAX / 2);
}

static void hlc_observes_only_within_the_skew_bound(void **state)
{
    (void)state;
    struct hlc hlc;
    hlc_init(&hlc, 7, SKEW_MAX_MS, (struct hlc_bounds){0});
    hlc_observe(&hlc, START_MS, at_time(START_MS + SKEW_MAX_MS + 1, 0));
    struct stamp stamp = stamp_surely(&hlc, START_MS, (struct stamp){0});
    assert_int_equal(stamp_ms(stamp), START_MS);
    hlc_observe(&hlc, START_MS, at_time(START_MS + SKEW_MAX_MS, 0xffff));
    stamp = stamp_surely(&hlc, START_MS, (struct stamp){0});
    assert_int_equal(stamp.time, (START_MS + SKEW_MAX_MS + 1) << 16);
    hlc_observe(&hlc, START_MS, at_time(START_MS - 5, 9));
    struct stamp next = stamp_surely(&hlc, START_MS, (struct stamp){0});
    assert_int_equal(next.time, stamp.time + 2);
}

/* ---- order and forms ------------------------------------------------------------------------------------ */

static void stamp_order_is_time_then_actor(void **state)
{
    (void)state;
    struct stamp a = {.time = 5, .actor = 9};
    struct stamp b = {.time = 6, .actor = 1};
    struct stamp c = {.time = 6, .actor = 2};
    assert_true(stamp_compare(a, b) < 0 && stamp_compare(b, a) > 0);
    assert_true(stamp_compare(b, c) < 0 && stamp_compare(c, b) > 0);
    assert_int_equal(stamp_compare(c, c), 0);
    assert_int_equal(stamp_max(a, c).actor, 2);
    assert_true(stamp_none((struct stamp){0}));
}

static void stamp_as_text_and_bytes_comes_back_the_same(void **state)
{
    (void)state;
    struct prng prng;
    struct alloc alloc;
    struct buf buf;
    prng_seed(&prng, 3);
    alloc_init(&alloc, 1 << 20);
    buf_init(&buf, &alloc);
    for (int i = 0; i < 2000; i++) {
        struct stamp stamp = {.time = prng_u64(&prng) >> prng_below(&prng, 64),
                              .actor = prng_u64(&prng) >> prng_below(&prng, 64)};
        struct stamp back = {0};
        char text[STAMP_TEXT_BYTES_MAX];
        size_t size = stamp_format(stamp, text);
        assert_int_equal(size, strlen(text));
        assert_int_equal(stamp_parse(span_of(text, size), &back), STATUS_OK);
        assert_int_equal(stamp_compare(stamp, back), 0);
        buf_clear(&buf);
        stamp_put(&buf, stamp);
        assert_int_equal(buf.size, STAMP_BYTES);
        struct reader reader = reader_of(buf_span(&buf));
        assert_int_equal(stamp_compare(stamp, stamp_read(&reader)), 0);
        assert_int_equal(reader_finish(&reader), STATUS_OK);
    }
    buf_free(&buf);
}

static void stamp_text_has_its_documented_form(void **state)
{
    (void)state;
    char text[STAMP_TEXT_BYTES_MAX];
    struct stamp stamp = {.time = UINT64_C(1700000000000) << 16 | 12, .actor = 0xabc};
    stamp_format(stamp, text);
    assert_string_equal(text, "1700000000000-12-0000000000000abc");
    stamp_format((struct stamp){.time = UINT64_MAX, .actor = UINT64_MAX}, text);
    assert_string_equal(text, "281474976710655-65535-ffffffffffffffff");
}

static void stamp_text_that_is_none_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "-",
        "--",
        "1",
        "1-2",
        "1-2-",
        "1-2-abc",
        "1-2-00000000000000000",
        "1-2-000000000000000g",
        "1-2-000000000000000A",
        "-1-2-0000000000000001",
        "1--0000000000000001",
        "1-65536-0000000000000001",
        "281474976710656-0-0000000000000001",
        "1-2-0000000000000001 ",
        " 1-2-0000000000000001",
        "1-2-3-0000000000000001",
        "99999999999999999999999-2-0000000000000001",
        "1-+2-0000000000000001",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct stamp stamp;
        assert_int_equal(stamp_parse(span_of_text(bad[i]), &stamp), STATUS_MALFORMED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hlc_under_random_clocks_and_crashes_never_repeats_a_stamp),
        cmocka_unit_test(hlc_ordinary_stamps_never_go_backwards_and_stay_near_real_time),
        cmocka_unit_test(hlc_new_waits_until_its_bound_is_durable),
        cmocka_unit_test(hlc_past_its_durable_bound_waits_again),
        cmocka_unit_test(hlc_restarted_waits_until_real_time_has_passed_its_bound),
        cmocka_unit_test(hlc_under_steady_load_renews_its_bound_before_it_is_used_up),
        cmocka_unit_test(hlc_idle_persists_nothing),
        cmocka_unit_test(hlc_above_a_far_future_stamp_leaves_the_ordinary_clock_alone),
        cmocka_unit_test(hlc_far_future_register_is_durable_before_use_and_survives_a_restart),
        cmocka_unit_test(hlc_real_time_that_reaches_far_future_stamps_never_repeats_them),
        cmocka_unit_test(hlc_stamp_at_the_end_of_time_is_refused),
        cmocka_unit_test(hlc_observes_only_within_the_skew_bound),
        cmocka_unit_test(stamp_order_is_time_then_actor),
        cmocka_unit_test(stamp_as_text_and_bytes_comes_back_the_same),
        cmocka_unit_test(stamp_text_has_its_documented_form),
        cmocka_unit_test(stamp_text_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
