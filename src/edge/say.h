/* The node's own log: one logfmt line per event on standard error.
 *
 *     ts=2026-01-01T00:00:00.000Z level=info shard=0 msg="listening on 127.0.0.1:7379"
 *
 * A line is one write, so lines of different threads never mix. Quotes, backslashes and control characters of
 * the message are escaped, so a line is always one line. Longer messages are cut at SAY_BYTES_MAX. */
#ifndef RONDO_EDGE_SAY_H
#define RONDO_EDGE_SAY_H

#include "shard/shard.h"

#define SAY_BYTES_MAX 2048

/* Writes the line if `level` is at most `level_max`. */
void say_line(enum say_level level_max, enum say_level level, uint16_t shard, struct span message);

/* The same with printf's formatting; for cold paths. */
void say_format(enum say_level level_max, enum say_level level, uint16_t shard, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Says why at level error and ends the process at once with status 1: nothing more is acknowledged. */
_Noreturn void say_and_exit(uint16_t shard, struct span reason);

#endif
