/* Runs of a data directory: which state came from which. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "model/run.h"

#define COPIES_MAX 24
#define SEEN_MAX 200

static void a_restart_follows_what_was_seen_before(void **state)
{
    (void)state;
    struct run_history history = {0};
    run_begin(&history, 5);
    assert_int_equal(history.past_count, 0);
    assert_true(run_follows(&history, (struct run){1, 5}));
    assert_false(run_follows(&history, (struct run){1, 6}));
    history.now.count += 2;
    run_begin(&history, 6);
    assert_true(history.now.count == 4 && history.past_count == 1 && history.past[0].count == 3);
    assert_true(run_follows(&history, (struct run){3, 5}));
    /* It went on where this directory does not. */
    assert_false(run_follows(&history, (struct run){4, 5}));
    assert_false(run_follows(&history, (struct run){3, 7}));
    /* Nothing was seen. */
    assert_true(run_follows(&history, (struct run){0, 0}));
}

/* A directory and its copies, each a history and the true list of states it has come through. */
struct branch {
    struct run_history history;
    struct run through[SEEN_MAX];
    uint32_t count;
};

static void go_on(struct branch *branch, struct prng *prng, uint64_t *ids)
{
    if (branch->count == 0 || prng_below(prng, 3) == 0)
        run_begin(&branch->history, ++*ids);
    else
        branch->history.now.count++;
    branch->through[branch->count++] = branch->history.now;
}

static bool came_through(const struct branch *branch, struct run seen)
{
    for (uint32_t i = 0; i < branch->count; i++) {
        if (branch->through[i].id == seen.id && branch->through[i].count == seen.count)
            return true;
    }
    return false;
}

/* Of all copies of copies, each knows exactly the states that it came through, for as long as it remembers them. */
static void every_copy_knows_where_it_came_from(void **state)
{
    (void)state;
    static struct branch branches[COPIES_MAX];
    struct prng prng;
    prng_seed(&prng, 77);
    uint32_t complete = 0;
    for (int round = 0; round < 200; round++) {
        uint64_t ids = 0;
        uint32_t count = 1;
        memset(branches, 0, sizeof branches);
        go_on(&branches[0], &prng, &ids);
        for (int i = 0; i < 60; i++) {
            struct branch *branch = &branches[prng_below(&prng, count)];
            if (count < COPIES_MAX && prng_below(&prng, 4) == 0) {
                branches[count] = *branch;
                /* A copy that is used was started. */
                run_begin(&branches[count].history, ++ids);
                branches[count].through[branches[count].count++] = branches[count].history.now;
                count++;
            } else {
                go_on(branch, &prng, &ids);
            }
        }
        for (uint32_t a = 0; a < count; a++) {
            if (branches[a].history.forgotten != 0)
                continue;
            complete++;
            for (uint32_t b = 0; b < count; b++) {
                for (uint32_t i = 0; i < branches[b].count; i++) {
                    struct run seen = branches[b].through[i];
                    bool follows = run_follows(&branches[a].history, seen);
                    assert_true(follows == came_through(&branches[a], seen));
                }
            }
        }
    }
    assert_in_range(complete, 1000, 200 * COPIES_MAX);
}

static void only_the_last_runs_are_remembered(void **state)
{
    (void)state;
    struct run_history history = {0};
    for (uint64_t id = 1; id <= RUNS_PAST_MAX + 5; id++)
        run_begin(&history, id);
    assert_int_equal(history.past_count, RUNS_PAST_MAX);
    assert_int_equal(history.past[0].id, RUNS_PAST_MAX + 4);
    assert_int_equal(history.past[RUNS_PAST_MAX - 1].id, 5);
    assert_int_equal(history.forgotten, 4);
    assert_true(run_follows(&history, (struct run){5, 5}));
    assert_false(run_follows(&history, (struct run){5, 99}));
    assert_true(run_follows(&history, (struct run){4, 99}));
}

static void a_history_is_read_as_it_was_written(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    struct run_history history = {0};
    alloc_init(&alloc, 4096);
    buf_init(&buf, &alloc);
    for (uint64_t id = 1; id <= RUNS_PAST_MAX + 1; id++) {
        run_begin(&history, id);
        buf_clear(&buf);
        run_history_put(&buf, &history);
        struct run_history copy = {0};
        struct reader reader = reader_of(buf_span(&buf));
        run_history_read(&reader, &copy);
        assert_int_equal(reader_finish(&reader), STATUS_OK);
        assert_memory_equal(&copy.now, &history.now, sizeof copy.now);
        assert_true(copy.forgotten == history.forgotten && copy.past_count == history.past_count);
        assert_memory_equal(copy.past, history.past, sizeof copy.past);
    }
    buf.data[24] = RUNS_PAST_MAX + 1;
    struct reader reader = reader_of(buf_span(&buf));
    run_history_read(&reader, &history);
    assert_int_equal(reader_finish(&reader), STATUS_MALFORMED);
    assert_int_equal(history.past_count, 0);
    buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restart_follows_what_was_seen_before),
        cmocka_unit_test(every_copy_knows_where_it_came_from),
        cmocka_unit_test(only_the_last_runs_are_remembered),
        cmocka_unit_test(a_history_is_read_as_it_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
