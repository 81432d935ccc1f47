/* Pages of a scan of the cold tier. */
#include "store/cold_page.h"

#include <assert.h>

void cold_page_put(struct buf *page, struct span key, struct span record)
{
    assert(key.size <= UINT32_MAX);
    assert(record.size <= UINT32_MAX);
    if (!buf_reserve(page, cold_page_row_bytes(key, record)))
        return;
    buf_put_u32(page, (uint32_t)key.size);
    buf_put_u32(page, (uint32_t)record.size);
    buf_append_span(page, key);
    buf_append_span(page, record);
}

enum status cold_page_next(struct reader *page, struct span *key, struct span *record)
{
    *key = *record = (struct span){0};
    if (!page->failed && reader_left(page) == 0)
        return STATUS_NOT_FOUND;
    size_t key_size = reader_u32(page);
    size_t record_size = reader_u32(page);
    struct span key_read = reader_bytes(page, key_size);
    struct span record_read = reader_bytes(page, record_size);
    if (page->failed)
        return STATUS_MALFORMED;
    *key = key_read;
    *record = record_read;
    return STATUS_OK;
}
