/* Pages of a scan of the cold tier: rows in the order of their cold keys, packed.
 *
 * Each row, little endian: u32 size of the cold key | u32 size of the record | cold key | record. */
#ifndef RONDO_STORE_COLD_PAGE_H
#define RONDO_STORE_COLD_PAGE_H

#include "base/span.h"

#define COLD_PAGE_ROW_HEADER_BYTES 8u

/* What a row takes in a page. */
static inline size_t cold_page_row_bytes(struct span key, struct span record)
{
    return COLD_PAGE_ROW_HEADER_BYTES + key.size + record.size;
}

/* Appends a row (each part below 4 GiB); when it does not fit the budget the page is as before and `failed`. */
void cold_page_put(struct buf *page, struct span key, struct span record);

/* The next row; its parts are views into the page. NOT_FOUND at the end; MALFORMED when a row is not whole, and at
 * every call after that. Both are empty unless it answers OK. */
MUST_CHECK enum status cold_page_next(struct reader *page, struct span *key, struct span *record);

#endif
