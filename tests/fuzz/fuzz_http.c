/* Fuzzes HTTP requests and their commands. The input is a stream, its first two bytes say how it is split. Besides
 * not crashing: split or whole, the stream gives the same requests and fails or not alike, each parsed command keeps
 * what its type promises, and every error can be sent. */
#include <stdint.h>
#include <stdlib.h>

#include "proto/command.h"
#include "proto/http.h"
#include "proto/http_reply.h"

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

static void reply_error(struct buf *out, uint16_t http_status, const char *allow, struct span message)
{
    struct http_reply reply = {.http_status = http_status, .allow = allow};
    struct http_error error = {.error = "BAD_REQUEST", .message = message};
    require(message.size > 0);
    http_reply_error(out, &reply, &error);
    require(!out->failed);
}

static void try_command(const struct http_request *request, struct buf *out)
{
    struct command command;
    struct http_refusal refusal;
    struct buf error;
    buf_init(&error, out->alloc);
    enum status status = http_command(&command_limits, request, NOW, &command, &refusal, &error);
    require((status == STATUS_OK) == (error.size == 0));
    if (status != STATUS_OK) {
        reply_error(out, refusal.http_status, refusal.allow, buf_span(&error));
    } else {
        require((command.operation != 0) == (command.keys_count == 1));
        struct http_reply reply = {.http_status = 200,
                                   .keep_alive = request->keep_alive,
                                   .context = command.context,
                                   .body = command.value,
                                   .head = command.head};
        http_reply(out, &reply);
        buf_append_span(out, command.key);
    }
    buf_append_span(out, request->target);
    buf_append_span(out, request->body);
    buf_free(&error);
}

static void run(struct span stream, size_t step, struct buf *out)
{
    struct http_progress progress;
    struct http_limits limits = {.target_bytes_max = 256, .headers_bytes_max = 512, .body_bytes_max = 512};
    struct http_parser *parser = http_parser_new(out->alloc, &limits);
    require(parser != NULL);
    for (size_t at = 0; at < stream.size;) {
        size_t size = stream.size - at > step ? step : stream.size - at;
        uint8_t *block = malloc(size);
        require(block != NULL);
        memcpy(block, stream.data + at, size);
        enum status status = http_parse(parser, span_of(block, size), &progress);
        free(block);
        require(progress.consumed <= size);
        require(status != STATUS_MORE || progress.consumed == size);
        at += progress.consumed;
        if (status == STATUS_OK) {
            require(progress.consumed > 0);
            try_command(http_parser_request(parser), out);
        } else if (status != STATUS_MORE) {
            struct buf error;
            buf_init(&error, out->alloc);
            reply_error(&error, progress.http_status, NULL, progress.error);
            buf_free(&error);
            buf_append_text(out, "refused");
            break;
        }
    }
    http_parser_free(parser);
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
