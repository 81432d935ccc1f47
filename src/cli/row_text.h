/* Rows as JSON lines: what `rondo load` reads, what `rondo dump` writes, and what a node says of the rows it holds.
 *
 * Pure: bytes in, bytes out. A line of load and dump is {"key":…,"value":…,"ttl":…}; bytes that are not UTF-8 stand
 * in key_base64 and value_base64; ttl is in seconds, absent for a value that never expires. */
#ifndef RONDO_CLI_ROW_TEXT_H
#define RONDO_CLI_ROW_TEXT_H

#include <stdbool.h>

#include "model/record.h"

/* A row that is loaded or dumped. */
struct plain_row {
    struct buf key;
    struct buf value;
    uint64_t ttl_ms; /* 0 = never expires */
};

void plain_row_init(struct plain_row *row, struct alloc *alloc);
void plain_row_free(struct plain_row *row);

/* Parses one line, without its line end. MALFORMED: `why` gets what is wrong and what to do; OVERLOADED: the row does
 * not fit into memory. */
#define ROW_WHY_BYTES_MAX 256
MUST_CHECK enum status plain_row_parse(struct plain_row *row, struct span line, char why[ROW_WHY_BYTES_MAX]);

/* Appends the line that plain_row_parse reads, with its line end. */
void plain_row_put(struct buf *buf, struct span key, struct span value, uint64_t ttl_ms);

/* A row as one node holds it (GET /local/rows). */
struct local_row {
    struct buf key;
    struct buf value;
    bool has_value; /* and no tombstone */
    bool tombstone;
    bool has_override;
    bool override_applies; /* it is for this value */
    struct version version;
    uint64_t expiry_ms;          /* of the value; 0 = never */
    uint64_t override_expiry_ms; /* 0 = never */
};

void local_row_init(struct local_row *row, struct alloc *alloc);
void local_row_free(struct local_row *row);
MUST_CHECK enum status local_row_parse(struct local_row *row, struct span line, char why[ROW_WHY_BYTES_MAX]);

/* Whether a reader sees a value now, and for how long still: *ttl_ms is 0 for one that never expires. */
bool local_row_live(const struct local_row *row, uint64_t now_ms, uint64_t *ttl_ms);

/* The last line of a page: whether rows follow, and the text to ask for them with. */
struct page_end {
    bool more;
    struct buf next; /* as given, to be percent-encoded; empty at the end */
};

/* MALFORMED: the line ends no page (then the page was cut off). */
MUST_CHECK enum status page_end_parse(struct page_end *end, struct span line);

#endif
