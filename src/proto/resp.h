/* RESP requests: arrays of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`) and inline commands (`GET k\r\n`).
 *
 * A parser belongs to one connection and is pure: it sees bytes, never a socket. The caller always passes the
 * unconsumed bytes from the start of the current command; they may have moved in memory since the last call, so
 * progress is kept as offsets and nothing is scanned twice. A command of a few arguments allocates nothing. */
#ifndef RONDO_PROTO_RESP_H
#define RONDO_PROTO_RESP_H

#include "base/limits.h"
#include "base/span.h"

#define RESP_ARGUMENTS_INLINE 8
#define RESP_ERROR_BYTES_MAX 48

struct resp_limits {
    size_t bulk_bytes_max;    /* one argument */
    size_t command_bytes_max; /* all bytes of one command, with its framing */
};

/* An argument: an offset while its command is incomplete, a view once it is complete. */
union resp_argument {
    struct {
        size_t offset;
        size_t size;
    } at;
    struct span span;
};

struct resp_parser {
    struct alloc *alloc;
    struct resp_limits limits;
    size_t offset;            /* parsed up to here, from the command's start */
    size_t line_scanned;      /* inline: no line end before this offset */
    uint32_t arguments_total; /* of the array being read; 0 = its header is still to come */
    uint32_t arguments_count; /* parsed so far */
    uint32_t arguments_capacity;
    bool bulk_open; /* the size of the next argument is known, its bytes are not all here */
    size_t bulk_size;
    union resp_argument *arguments; /* arguments_inline, or an allocation when there are more */
    union resp_argument arguments_inline[RESP_ARGUMENTS_INLINE];
    struct buf inline_bytes;          /* unquoted arguments of an inline command */
    char error[RESP_ERROR_BYTES_MAX]; /* where the error names a byte of the input */
};

struct resp_request {
    uint32_t argc;           /* 0: an empty line or array, to be skipped without an answer */
    const struct span *argv; /* valid until the next call on this parser, or until the input moves */
    size_t consumed;         /* OK: bytes of this command */
    size_t need_bytes;       /* MORE: calling again with fewer input bytes is useless */
    struct span
        error; /* otherwise: code first ("ERR Protocol error: …", Redis's texts), for resp_reply_error */
};

/* In place; the parser must not move afterwards. limits may be changed between commands. */
void resp_parser_init(struct resp_parser *parser, struct alloc *alloc, const struct resp_limits *limits);
void resp_parser_free(struct resp_parser *parser);

/* Forgets what it saw of an incomplete command: the next call's input begins elsewhere. */
void resp_parser_restart(struct resp_parser *parser);

/* Parses one command from the start of input.
 * OK: argc, argv, consumed. MORE: need_bytes (> input.size). MALFORMED, TOO_LARGE (an argument or command past
 * its limit), OVERLOADED (no memory for the arguments): error; the stream cannot be followed any further, so the
 * connection is answered and closed. */
MUST_CHECK enum status resp_parse(struct resp_parser *parser, struct span input,
                                  struct resp_request *request);

#endif
