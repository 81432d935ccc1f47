/* The progress of a long command on the terminal: one line, drawn over itself, with rate and time left. */
#ifndef RONDO_CLI_PROGRESS_H
#define RONDO_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    bool shown;         /* standard error is a terminal */
    const char *verb;   /* "loading" */
    const char *unit;   /* "records" */
    uint64_t total;     /* of what `done` counts; 0 = not known */
    uint64_t done_from; /* where this run began */
    uint64_t started_ms;
    uint64_t drawn_ms;
};

/* started_ms: a monotonic clock, as for the others. */
void progress_start(struct progress *progress, const char *verb, uint64_t done, uint64_t total,
                    uint64_t now_ms);

/* Draws the line, at most ten times a second. `records` counts those of this run. `trouble` (NULL = none) is
 * shown behind it: why nothing moves. */
void progress_show(struct progress *progress, uint64_t done, uint64_t records, uint64_t now_ms,
                   const char *trouble);

/* Wipes the line, before other text. */
void progress_clear(const struct progress *progress);

/* The line itself, terminated, at most `width` columns: "loading [####    ]  50%  1,234 records/s  0:12 left". */
#define PROGRESS_BYTES_MAX 512
struct progress_view {
    const char *verb;
    const char *unit; /* NULL: "records" */
    uint64_t done_from;
    uint64_t done;
    uint64_t total;
    uint64_t records;
    uint64_t elapsed_ms;
    const char *trouble;
    int width;
};
void progress_line(const struct progress_view *view, char line[PROGRESS_BYTES_MAX]);

/* "0:07", "12:05", "3:00:00". */
#define DURATION_BYTES_MAX 32
const char *progress_duration(uint64_t ms, char text[DURATION_BYTES_MAX]);

/* Events per second over a time; 0 where no time has passed. */
uint64_t progress_rate(uint64_t count, uint64_t elapsed_ms);

#endif
