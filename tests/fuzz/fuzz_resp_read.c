/* Fuzzes RESP replies. The input is a stream, its first byte says how it is split. Besides not crashing: split or
 * whole, the stream gives the same replies and ends the same way. */
#include <stdint.h>
#include <stdlib.h>

#include "proto/resp_read.h"

#define BUDGET ((size_t)64 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* Reads the stream in parts of step bytes, each in a block of its own size, and notes every outcome. */
static void run(struct span stream, size_t step, struct buf *out)
{
    struct resp_reader reader = {.bulk_bytes_max = 4096};
    size_t start = 0;
    size_t end = step < stream.size ? step : stream.size;
    enum status status = STATUS_MORE;
    while (start < stream.size) {
        struct resp_answer answer;
        uint8_t *block = malloc(end - start + 1);
        require(block != NULL);
        memcpy(block + 1, stream.data + start, end - start);
        status = resp_read(&reader, span_of(block + 1, end - start), &answer);
        if (status == STATUS_OK) {
            require(answer.consumed > 0 && answer.consumed <= end - start);
            require(answer.text.size < answer.consumed);
            buf_append_format(out, "%c%d%lld ", answer.type, answer.null, (long long)answer.number);
            buf_append_span(out, answer.text);
            start += answer.consumed;
        }
        free(block);
        if (status != STATUS_OK && (status != STATUS_MORE || end == stream.size))
            break;
        if (status == STATUS_MORE)
            end = stream.size - end > step ? end + step : stream.size;
    }
    buf_append_format(out, "%d at %zu", (int)status, start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct alloc alloc;
    struct buf whole;
    struct buf parts;
    if (size < 1)
        return 0;
    alloc_init(&alloc, BUDGET);
    buf_init(&whole, &alloc);
    buf_init(&parts, &alloc);
    struct span stream = span_of(data + 1, size - 1);
    run(stream, stream.size + 1, &whole);
    run(stream, 1 + (size_t)data[0] % 97, &parts);
    require(span_equal(buf_span(&whole), buf_span(&parts)));
    buf_free(&whole);
    buf_free(&parts);
    require(alloc.used_bytes == 0);
    return 0;
}
