/* Lines of a file or pipe, with their offsets and numbers. */
#ifndef RONDO_CLI_LINE_READER_H
#define RONDO_CLI_LINE_READER_H

#include <stdbool.h>

#include "base/limits.h"
#include "base/span.h"

/* Room for the largest key and value as base64, or as JSON text of which a third needs escapes. */
#define LINE_BYTES_MAX (2u * (VALUE_BYTES_MAX_HARD + KEY_BYTES_MAX_HARD) + 1024u)

struct line_reader {
    int fd;
    struct buf bytes;
    size_t at;       /* where the next line starts in bytes */
    size_t searched; /* no line end before this place */
    uint64_t offset; /* of the next line in the file */
    uint64_t line;   /* its number, from 1 */
    bool ended;      /* the file has no more bytes than those here */
};

enum line_answer {
    LINE_HERE, /* *line is the next line, without its end, valid until line_reader_fill */
    LINE_MORE, /* call line_reader_fill first */
    LINE_END,
    LINE_TOO_LONG,
};

/* Reads fd, whose position is `offset`, at the start of line number `line`. */
void line_reader_init(struct line_reader *reader, struct alloc *alloc, int fd, uint64_t offset,
                      uint64_t line);
void line_reader_free(struct line_reader *reader);

/* The next line; it stays the next one until line_reader_consume. */
enum line_answer line_reader_next(struct line_reader *reader, struct span *line);

/* Goes past the line that line_reader_next gave. */
void line_reader_consume(struct line_reader *reader, struct span line);

/* Reads once. IO_ERROR: errno says why; OVERLOADED: no memory. */
MUST_CHECK enum status line_reader_fill(struct line_reader *reader);

#endif
