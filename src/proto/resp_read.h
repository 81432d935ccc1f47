/* RESP replies, as a client reads them: RESP2 and RESP3, whole or in any parts.
 *
 * A reader belongs to one connection, allocates nothing and is pure. As with requests (proto/resp.h) the caller always
 * passes the unconsumed bytes from the start of the current reply; they may have moved since the last call, so progress
 * is kept as offsets and nothing is scanned twice. Aggregates are walked without recursion: an array adds its elements
 * to what is still to come. */
#ifndef RONDO_PROTO_RESP_READ_H
#define RONDO_PROTO_RESP_READ_H

#include "base/span.h"

/* A line (a status, an error, a number) without its CRLF. */
#define RESP_READ_LINE_BYTES_MAX (64u << 10)

/* Zeroed, it waits for a reply. */
struct resp_reader {
    size_t bulk_bytes_max; /* larger ones are refused; 0 = none is */
    size_t offset;         /* read up to here, from the reply's start */
    size_t line_scanned;   /* no line end before this offset */
    uint64_t items_left;   /* of the reply's aggregates */
    bool bulk_open;        /* the size of a bulk is known, its bytes are not all here */
    bool begun;            /* the reply's own header was read: the four members below */
    char type;
    bool null;
    int64_t number;
    size_t text_at;
    size_t text_size;
    size_t bulk_size;
};

struct resp_answer {
    char type;        /* the first byte: + - : $ * _ # , ( = ! % ~ > */
    bool null;        /* $-1, *-1 or _ */
    int64_t number;   /* : its value; of an aggregate: its elements (a map's pairs count twice); # 1 or 0 */
    struct span text; /* of a line or bulk; of an aggregate all bytes of its elements */
    size_t consumed;
};

/* Reads one reply from the start of input.
 * OK: answer, a view of input. MORE. MALFORMED, TOO_LARGE: the stream cannot be followed any further. */
MUST_CHECK enum status resp_read(struct resp_reader *reader, struct span input, struct resp_answer *answer);

#endif
