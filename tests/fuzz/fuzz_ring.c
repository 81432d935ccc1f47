/* Decodes arbitrary bytes as a ring record, with the checksum put right so that the parser is reached. What is
 * accepted must encode to the same bytes. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "ring/ring.h"

#define CHECKSUM_BYTES 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct alloc alloc;
    struct buf bytes;
    struct buf again;
    struct ring *ring = NULL;
    alloc_init(&alloc, 16u << 20);
    buf_init(&bytes, &alloc);
    buf_init(&again, &alloc);
    buf_append(&bytes, data, size);
    if (size >= CHECKSUM_BYTES) {
        size_t body = size - CHECKSUM_BYTES;
        store_u64(bytes.data + body, hash_64(span_of(bytes.data, body), 0));
    }
    if (ring_decode(&alloc, buf_span(&bytes), &ring) == STATUS_OK) {
        ring_encode(ring, &again);
        if (again.failed || !span_equal(buf_span(&bytes), buf_span(&again)))
            abort();
        ring_free(ring);
    }
    buf_free(&again);
    buf_free(&bytes);
    assert(alloc.used_bytes == 0);
    return 0;
}
