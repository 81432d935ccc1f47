/* The rows of one slot, merged from the pages of several replicas.
 *
 * Pure: pages in, rows out. Each replica's rows arrive in the cold tier's order (16 bits of the tag's hash, then the
 * key), so the merge holds one page of each replica and never the whole slot. A replica that drops out is replaced
 * by another one, which is asked for what follows the last merged key. */
#ifndef RONDO_CLI_ROW_MERGE_H
#define RONDO_CLI_ROW_MERGE_H

#include "base/limits.h"
#include "cli/row_text.h"

/* The rows of one replica. */
struct row_stream {
    struct buf page;
    size_t at;       /* of the first line of the page that was not read */
    size_t rows_end; /* where the page's last line starts */
    struct page_end end;
    bool paged;       /* a page is there; else the first one, or the next one, is wanted */
    bool has_row;     /* the row read last is not merged yet */
    struct span line; /* its text, a view of the page */
    struct local_row row;
};

struct row_merge {
    uint16_t slot;
    uint8_t stream_count;
    bool any_merged;
    struct buf last_key; /* the last key merged, if any_merged */
    struct row_stream streams[REPLICAS_MAX];
};

enum merge_step {
    MERGE_PAGE,      /* merge->streams[*which] wants a page, after its end.next if that is not empty */
    MERGE_SAME,      /* all hold merge->streams[*which].row; row_merge_next goes on */
    MERGE_DIFFER,    /* they do not: read the key of merge->streams[*which].row; row_merge_next goes on */
    MERGE_END,       /* that was the slot */
    MERGE_MALFORMED, /* merge->streams[*which] sent what is no row of this slot, in order */
};

void row_merge_init(struct row_merge *merge, struct alloc *alloc, uint16_t slot, uint8_t stream_count);
void row_merge_free(struct row_merge *merge);

/* Takes the page (whole body) that the stream's replica sent; the bytes move into the stream. MALFORMED: it does not
 * end as a page does, so it was cut off; the stream then still wants a page. */
MUST_CHECK enum status row_merge_page(struct row_merge *merge, uint8_t which, struct buf *body);

/* The stream's replica is another one from now on: it wants a page, after merge->last_key if any was merged. */
void row_merge_replace(struct row_merge *merge, uint8_t which);

/* Says where the merge stands. `why` is set for MALFORMED. Until row_merge_next the answer stays the same. */
enum merge_step row_merge_step(struct row_merge *merge, uint8_t *which, char why[ROW_WHY_BYTES_MAX]);

/* The row of the last SAME or DIFFER is done with. */
void row_merge_next(struct row_merge *merge, uint8_t which);

/* Whether the stream wants a page. */
bool row_stream_wants_page(const struct row_stream *stream);

#endif
