/* Base64 from arbitrary bytes: what decodes encodes to the same text, padding aside, in either alphabet. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base64.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct alloc alloc;
    struct buf bytes;
    struct buf text;
    alloc_init(&alloc, (size_t)16 << 20);
    for (int url = 0; url < 2; url++) {
        struct span input = span_of(data, size);
        buf_init(&bytes, &alloc);
        buf_init(&text, &alloc);
        if ((url ? base64_url_decode : base64_decode)(&bytes, input) == STATUS_OK) {
            (url ? base64_url_put : base64_put)(&text, buf_span(&bytes));
            while (input.size > 0 && input.data[input.size - 1] == '=')
                input.size--;
            while (text.size > 0 && text.data[text.size - 1] == '=')
                text.size--;
            assert(span_equal(input, buf_span(&text)));
        }
        buf_free(&bytes);
        buf_free(&text);
    }
    assert(alloc.used_bytes == 0);
    return 0;
}
