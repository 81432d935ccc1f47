/* Fuzzes RESP requests and their commands. The input is a stream, its first two bytes say how it is split. Besides
 * not crashing: split or whole, the stream gives the same commands, each parsed command keeps what its type
 * promises, and every error can be sent. */
#include <stdint.h>
#include <stdlib.h>

#include "proto/command.h"
#include "proto/resp.h"
#include "proto/resp_reply.h"

#define BUDGET ((size_t)64 << 20)
#define NOW UINT64_C(1700000000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct command_limits command_limits = {
    .key_bytes_max = 64, .value_bytes_max = 256, .timeout_ms_max = 60000};

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void try_command(const struct resp_request *request, struct buf *out)
{
    struct command command;
    struct buf error;
    buf_init(&error, out->alloc);
    enum status status = command_parse(&command_limits, request->argc, request->argv, NOW, &command, &error);
    require((status == STATUS_OK) == (error.size == 0));
    if (status != STATUS_OK) {
        resp_reply_error(out, buf_span(&error));
    } else {
        require((command.operation != 0) == (command.keys_count > 0));
        for (uint32_t i = 0; i < command.keys_count; i++) {
            require(command_key(&command, i).size <= command_limits.key_bytes_max);
            if (command.operation == OPERATION_PUT)
                require(command_value(&command, i).size <= command_limits.value_bytes_max);
        }
        require((command.flags & ~OPERATION_FLAGS_ALL) == 0);
        require(command.flags == 0 || operation_reads_first(command.operation, command.flags));
        require(command.found_error == NULL || command.operation == OPERATION_GET);
        if (command.id == COMMAND_COMMAND)
            command_introspect(&command, RESP_PROTO_3, out);
        buf_append_format(out, "%d %llu\n", (int)command.id, (unsigned long long)command.expiry_ms);
    }
    buf_free(&error);
}

/* Runs the stream in parts of step bytes (each in a block of its own size) and notes every outcome. */
static void run(struct span stream, size_t step, struct buf *out)
{
    struct resp_parser parser;
    struct resp_request request;
    struct resp_limits limits = {.bulk_bytes_max = 512, .command_bytes_max = 4096};
    resp_parser_init(&parser, out->alloc, &limits);
    size_t start = 0;
    size_t end = step < stream.size ? step : stream.size;
    while (start < stream.size) {
        uint8_t *block = malloc(end - start + 1);
        require(block != NULL);
        memcpy(block + 1, stream.data + start, end - start);
        enum status status = resp_parse(&parser, span_of(block + 1, end - start), &request);
        if (status == STATUS_OK && request.argc > 0)
            try_command(&request, out);
        else if (status != STATUS_OK && status != STATUS_MORE)
            resp_reply_error(out, request.error);
        free(block);
        if (status == STATUS_OK) {
            require(request.consumed > 0 && request.consumed <= end - start);
            start += request.consumed;
        } else if (status != STATUS_MORE || end == stream.size) {
            break;
        } else {
            require(request.need_bytes > end - start);
            end = stream.size - end > step ? end + step : stream.size;
        }
    }
    resp_parser_free(&parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct alloc alloc;
    struct buf whole;
    struct buf parts;
    if (size < 2)
        return 0;
    alloc_init(&alloc, BUDGET);
    buf_init(&whole, &alloc);
    buf_init(&parts, &alloc);
    struct span stream = span_of(data + 2, size - 2);
    run(stream, stream.size + 1, &whole);
    run(stream, 1 + (size_t)load_u16(data) % 97, &parts);
    require(span_equal(buf_span(&whole), buf_span(&parts)));
    buf_free(&whole);
    buf_free(&parts);
    require(alloc.used_bytes == 0);
    return 0;
}
