/* Pages of a scan from arbitrary bytes: rows are views into the page, in order and without gaps, and what parses is
 * what cold_page_put writes. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "store/cold_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct alloc alloc;
    struct buf again;
    struct reader reader = reader_of(span_of(data, size));
    struct span key;
    struct span record;
    enum status status;
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&again, &alloc);
    while ((status = cold_page_next(&reader, &key, &record)) == STATUS_OK)
        cold_page_put(&again, key, record);
    if (again.size > size || !span_equal(buf_span(&again), span_of(data, again.size)))
        abort();
    if ((status == STATUS_NOT_FOUND) != (again.size == size))
        abort();
    buf_free(&again);
    return 0;
}
