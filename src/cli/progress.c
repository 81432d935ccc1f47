/* Progress: the rate is that of the whole run, so that the time left does not jump about. */
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DRAW_INTERVAL_MS 100
#define BAR_WIDTH 30
#define BAR_WIDTH_MIN 6

/* Before this much time has passed, a rate says nothing about the time left. */
#define ESTIMATE_MS_MIN 1000

void progress_start(struct progress *progress, const char *verb, uint64_t done, uint64_t total,
                    uint64_t now_ms)
{
    *progress = (struct progress){.shown = isatty(STDERR_FILENO),
                                  .verb = verb,
                                  .unit = "records",
                                  .total = total,
                                  .done_from = done,
                                  .started_ms = now_ms};
}

uint64_t progress_rate(uint64_t count, uint64_t elapsed_ms)
{
    return elapsed_ms == 0 ? 0 : (uint64_t)((double)count * 1000 / (double)elapsed_ms);
}

const char *progress_duration(uint64_t ms, char text[DURATION_BYTES_MAX])
{
    uint64_t s = ms / 1000;
    if (s >= 3600)
        snprintf(text, DURATION_BYTES_MAX, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s % 3600 / 60,
                 s % 60);
    else
        snprintf(text, DURATION_BYTES_MAX, "%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
    return text;
}

/* "1234567" with its thousands set apart. */
static void put_number(uint64_t number, char text[DURATION_BYTES_MAX])
{
    char digits[DURATION_BYTES_MAX];
    int count = snprintf(digits, sizeof(digits), "%" PRIu64, number);
    int written = 0;
    for (int i = 0; i < count; i++) {
        text[written++] = digits[i];
        if (i + 1 < count && (count - i - 1) % 3 == 0)
            text[written++] = ',';
    }
    text[written] = 0;
}

/* "[####    ]  50%"; nothing where the total is not known or the terminal too narrow. */
static void put_bar(const struct progress_view *view, int room, char text[BAR_WIDTH + 16])
{
    int width = room - 8 > BAR_WIDTH ? BAR_WIDTH : room - 8;
    text[0] = 0;
    if (view->total == 0)
        return;
    double part = view->done >= view->total ? 1 : (double)view->done / (double)view->total;
    if (width < BAR_WIDTH_MIN) {
        snprintf(text, BAR_WIDTH + 16, " %3d%%", (int)(part * 100));
        return;
    }
    char bar[BAR_WIDTH + 1];
    memset(bar, ' ', (size_t)width);
    memset(bar, '#', (size_t)(part * width));
    bar[width] = 0;
    snprintf(text, BAR_WIDTH + 16, " [%s] %3d%%", bar, (int)(part * 100));
}

void progress_line(const struct progress_view *view, char line[PROGRESS_BYTES_MAX])
{
    char rate[DURATION_BYTES_MAX];
    char left[DURATION_BYTES_MAX];
    char figures[128];
    char bar[BAR_WIDTH + 16];
    const char *unit = view->unit == NULL ? "records" : view->unit;
    uint64_t moved = view->done - view->done_from;
    put_number(progress_rate(view->records, view->elapsed_ms), rate);
    if (view->total > 0 && moved > 0 && view->elapsed_ms >= ESTIMATE_MS_MIN && view->done <= view->total) {
        double ms = (double)view->elapsed_ms * (double)(view->total - view->done) / (double)moved;
        snprintf(figures, sizeof(figures), "  %s %s/s  %s left", rate, unit,
                 progress_duration((uint64_t)ms, left));
    } else {
        snprintf(figures, sizeof(figures), "  %s %s/s", rate, unit);
    }
    put_bar(view, view->width - (int)strlen(view->verb) - (int)strlen(figures), bar);
    int size = snprintf(line, PROGRESS_BYTES_MAX, "%s%s%s%s%s", view->verb, bar, figures,
                        view->trouble == NULL ? "" : "  ", view->trouble == NULL ? "" : view->trouble);
    if (size > view->width && view->width < PROGRESS_BYTES_MAX)
        line[view->width] = 0;
}

/* Columns of the terminal on standard error, less one, so that the line never wraps. */
static int terminal_width(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 20)
        return 79;
    return size.ws_col - 1;
}

void progress_show(struct progress *progress, uint64_t done, uint64_t records, uint64_t now_ms,
                   const char *trouble)
{
    char line[PROGRESS_BYTES_MAX];
    if (!progress->shown || now_ms < progress->drawn_ms + DRAW_INTERVAL_MS)
        return;
    progress->drawn_ms = now_ms;
    struct progress_view view = {.verb = progress->verb,
                                 .unit = progress->unit,
                                 .done_from = progress->done_from,
                                 .done = done,
                                 .total = progress->total,
                                 .records = records,
                                 .elapsed_ms = now_ms - progress->started_ms,
                                 .trouble = trouble,
                                 .width = terminal_width()};
    progress_line(&view, line);
    fprintf(stderr, "\r\033[K%s", line);
}

void progress_clear(const struct progress *progress)
{
    if (progress->shown && progress->drawn_ms != 0)
        fputs("\r\033[K", stderr);
}
