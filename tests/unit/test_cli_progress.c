/* The client's progress line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "cli/progress.h"

static void the_line_has_bar_rate_and_time_left(void **state)
{
    char line[PROGRESS_BYTES_MAX];
    struct progress_view view = {
        .verb = "loading", .done = 50, .total = 100, .records = 4000, .elapsed_ms = 2000, .width = 80};
    (void)state;
    progress_line(&view, line);
    assert_string_equal(line, "loading [###############               ]  50%  2,000 records/s  0:02 left");
    /* What an earlier run did counts towards the bar, not towards the time left. */
    view.done_from = 40;
    progress_line(&view, line);
    assert_non_null(strstr(line, "0:10 left"));
    view.done = 100;
    progress_line(&view, line);
    assert_non_null(strstr(line, "] 100%"));
    view.total = 0;
    progress_line(&view, line);
    assert_string_equal(line, "loading  2,000 records/s");
    view.trouble = "n2: OVERLOADED";
    progress_line(&view, line);
    assert_string_equal(line, "loading  2,000 records/s  n2: OVERLOADED");
}

static void the_line_fits_every_terminal(void **state)
{
    char line[PROGRESS_BYTES_MAX];
    char trouble[400];
    (void)state;
    memset(trouble, 'x', sizeof(trouble) - 1);
    trouble[sizeof(trouble) - 1] = 0;
    for (int width = 20; width < 600; width++) {
        struct progress_view view = {.verb = "dumping",
                                     .done = 7,
                                     .total = 9,
                                     .records = 123456789,
                                     .elapsed_ms = 1000,
                                     .trouble = trouble,
                                     .width = width};
        progress_line(&view, line);
        assert_true(strlen(line) <= (size_t)width);
    }
}

static void durations_and_rates(void **state)
{
    char text[DURATION_BYTES_MAX];
    (void)state;
    assert_string_equal(progress_duration(7999, text), "0:07");
    assert_string_equal(progress_duration(725000, text), "12:05");
    assert_string_equal(progress_duration(10800000, text), "3:00:00");
    assert_int_equal(progress_rate(10, 0), 0);
    assert_int_equal(progress_rate(10, 500), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_has_bar_rate_and_time_left),
        cmocka_unit_test(the_line_fits_every_terminal),
        cmocka_unit_test(durations_and_rates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
