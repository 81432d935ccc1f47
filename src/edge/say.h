/* The node's own log: one line per event on standard error, in logfmt or as JSON.
 *
 *     ts=2026-01-01T00:00:00.000Z level=info node=n1 shard=0 msg="listening on 127.0.0.1:7379"
 *     {"ts":"2026-01-01T00:00:00.000Z","level":"info","node":"n1","shard":0,"msg":"listening on 127.0.0.1:7379"}
 *
 * A line is one write, so lines of different threads never mix. Quotes, backslashes and control characters of
 * the message are escaped, so a line is always one line. Longer messages are cut at SAY_BYTES_MAX. */
#ifndef RONDO_EDGE_SAY_H
#define RONDO_EDGE_SAY_H

#include "base/limits.h"
#include "shard/shard.h"

#define SAY_BYTES_MAX 2048

enum say_shape {
    SAY_LOGFMT,
    SAY_JSON,
};

/* How the lines of a process are written. Made once at the start; threads only read it. */
struct say_sink {
    enum say_level level_max; /* lines above it are not written */
    enum say_shape shape;
    char node[NAME_BYTES_MAX + 1]; /* empty: not known yet, and left out */
};

/* Writes the line if `level` is at most the sink's. */
void say_line(const struct say_sink *sink, enum say_level level, uint16_t shard, struct span message);

/* The same with printf's formatting; for cold paths. */
void say_format(const struct say_sink *sink, enum say_level level, uint16_t shard, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The text of a line, with its line end, for a time. */
void say_put_line(struct buf *line, const struct say_sink *sink, enum say_level level, uint16_t shard,
                  uint64_t wall_ms, struct span message);

/* Says why at level error and ends the process at once with status 1: nothing more is acknowledged. */
_Noreturn void say_and_exit(const struct say_sink *sink, uint16_t shard, struct span reason);

#endif
