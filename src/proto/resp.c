/* RESP request parsing. Array headers and arguments are read strictly left to right, so that the outcome depends
 * on the bytes alone and not on how they were split into reads. Where Redis is lax (it never looks at the bytes
 * that should be CRLF) this parser is strict: a stream out of step is better refused than guessed at. */
#include "proto/resp.h"

#include <assert.h>

/* Digits of a count or size; 18 never overflow, and no limit needs as many. */
#define NUMBER_DIGITS_MAX 18

/* Larger argument arrays are given back when the next command begins. */
#define ARGUMENTS_KEEP_MAX 1024

/* "$0\r\n\r\n": what each argument still to come takes at least. */
#define ARGUMENT_BYTES_MIN 6

_Static_assert(sizeof(union resp_argument) == sizeof(struct span),
               "an array of arguments is an array of spans");

void resp_parser_init(struct resp_parser *parser, struct alloc *alloc, const struct resp_limits *limits)
{
    *parser = (struct resp_parser){.alloc = alloc, .limits = *limits};
    parser->arguments = parser->arguments_inline;
    parser->arguments_capacity = RESP_ARGUMENTS_INLINE;
    buf_init(&parser->inline_bytes, alloc);
}

static void arguments_release(struct resp_parser *parser)
{
    if (parser->arguments == parser->arguments_inline)
        return;
    alloc_put(parser->alloc, parser->arguments, parser->arguments_capacity * sizeof parser->arguments[0]);
    parser->arguments = parser->arguments_inline;
    parser->arguments_capacity = RESP_ARGUMENTS_INLINE;
}

void resp_parser_free(struct resp_parser *parser)
{
    arguments_release(parser);
    buf_free(&parser->inline_bytes);
}

/* Makes room for one more argument. Grows with what has arrived, never with what a header promises. */
static bool arguments_grow(struct resp_parser *parser)
{
    if (parser->arguments_count < parser->arguments_capacity)
        return true;
    size_t size = parser->arguments_capacity * sizeof parser->arguments[0];
    union resp_argument *grown = NULL;
    if (parser->arguments == parser->arguments_inline) {
        grown = alloc_get(parser->alloc, size * 2);
        if (grown != NULL)
            memcpy(grown, parser->arguments, size);
    } else {
        grown = alloc_resize(parser->alloc, parser->arguments, size, size * 2);
    }
    if (grown == NULL)
        return false;
    parser->arguments = grown;
    parser->arguments_capacity *= 2;
    return true;
}

/* The next command starts at the next call. */
static void parser_rewind(struct resp_parser *parser)
{
    parser->offset = 0;
    parser->line_scanned = 0;
    parser->arguments_total = 0;
    parser->arguments_count = 0;
    parser->bulk_open = false;
}

void resp_parser_restart(struct resp_parser *parser)
{
    parser_rewind(parser);
}

static enum status refuse(struct resp_parser *parser, struct resp_request *request, enum status status,
                          const char *error)
{
    parser_rewind(parser);
    request->error = span_of_text(error);
    return status;
}

static enum status refuse_overloaded(struct resp_parser *parser, struct resp_request *request)
{
    return refuse(parser, request, STATUS_OVERLOADED, "OVERLOADED no memory for the command's arguments");
}

static enum status refuse_byte(struct resp_parser *parser, struct resp_request *request, uint8_t byte)
{
    static const char text[] = "ERR Protocol error: expected '$', got ' '";
    _Static_assert(sizeof text <= RESP_ERROR_BYTES_MAX, "the text fits");
    memcpy(parser->error, text, sizeof text);
    parser->error[sizeof text - 3] = (char)(byte == 0 ? ' ' : byte);
    return refuse(parser, request, STATUS_MALFORMED, parser->error);
}

static enum status want(struct resp_request *request, size_t need_bytes)
{
    request->need_bytes = need_bytes;
    return STATUS_MORE;
}

/* ---- arrays --------------------------------------------------------------------------------------------- */

struct number_line {
    int64_t number;
    size_t end; /* offset behind its CRLF */
};

/* The number and CRLF at an offset. Strict as Redis is: no plus sign, no leading zeros. */
static inline enum status number_line_parse(struct span input, size_t at, struct number_line *line)
{
    size_t i = at;
    uint64_t number = 0;
    bool negative = i < input.size && input.data[i] == '-';
    if (negative)
        i++;
    size_t digits_at = i;
    for (; i < input.size; i++) {
        uint8_t digit = (uint8_t)(input.data[i] - '0');
        if (digit > 9)
            break;
        if (i - digits_at == NUMBER_DIGITS_MAX)
            return STATUS_MALFORMED;
        number = number * 10 + digit;
    }
    size_t digits = i - digits_at;
    if (digits > 0 && input.data[digits_at] == '0' && (digits > 1 || negative))
        return STATUS_MALFORMED;
    if (i == input.size)
        return STATUS_MORE;
    if (digits == 0 || input.data[i] != '\r')
        return STATUS_MALFORMED;
    if (i + 1 == input.size)
        return STATUS_MORE;
    if (input.data[i + 1] != '\n')
        return STATUS_MALFORMED;
    line->number = negative ? -(int64_t)number : (int64_t)number;
    line->end = i + 2;
    return STATUS_OK;
}

/* `$size\r\n` of the next argument. */
static inline enum status bulk_header_parse(struct resp_parser *parser, struct span input,
                                            struct resp_request *request)
{
    struct number_line line;
    if (parser->offset == input.size)
        return want(request, input.size + 1);
    if (input.data[parser->offset] != '$')
        return refuse_byte(parser, request, input.data[parser->offset]);
    enum status status = number_line_parse(input, parser->offset + 1, &line);
    if (status == STATUS_MORE)
        return want(request, input.size + 1);
    if (status != STATUS_OK || line.number < 0)
        return refuse(parser, request, STATUS_MALFORMED, "ERR Protocol error: invalid bulk length");
    if ((uint64_t)line.number > parser->limits.bulk_bytes_max)
        return refuse(parser, request, STATUS_TOO_LARGE, "ERR Protocol error: invalid bulk length");

    size_t rest = (size_t)(parser->arguments_total - parser->arguments_count - 1) * ARGUMENT_BYTES_MIN;
    size_t total = line.end + (size_t)line.number + 2 + rest;
    if (total > parser->limits.command_bytes_max)
        return refuse(parser, request, STATUS_TOO_LARGE, "ERR Protocol error: the command is too large");
    parser->offset = line.end;
    parser->bulk_size = (size_t)line.number;
    parser->bulk_open = true;
    return STATUS_OK;
}

/* The bytes and CRLF of an argument whose size is known. */
static inline enum status bulk_bytes_parse(struct resp_parser *parser, struct span input,
                                           struct resp_request *request)
{
    size_t end = parser->offset + parser->bulk_size;
    if (input.size < end + 2)
        return want(request, end + 2);
    if (input.data[end] != '\r' || input.data[end + 1] != '\n')
        return refuse(parser, request, STATUS_MALFORMED,
                      "ERR Protocol error: expected CRLF behind an argument of the announced length");
    if (!arguments_grow(parser))
        return refuse_overloaded(parser, request);
    union resp_argument *argument = &parser->arguments[parser->arguments_count++];
    argument->at.offset = parser->offset;
    argument->at.size = parser->bulk_size;
    parser->offset = end + 2;
    parser->bulk_open = false;
    return STATUS_OK;
}

/* `*count\r\n`. A count of zero or less is a complete, empty command. */
static inline enum status array_header_parse(struct resp_parser *parser, struct span input,
                                             struct resp_request *request)
{
    struct number_line line;
    enum status status = number_line_parse(input, 1, &line);
    if (status == STATUS_MORE)
        return want(request, input.size + 1);
    if (status != STATUS_OK || line.number > COMMAND_ARGUMENTS_MAX)
        return refuse(parser, request, STATUS_MALFORMED, "ERR Protocol error: invalid multibulk length");
    parser->offset = line.end;
    parser->arguments_total = line.number > 0 ? (uint32_t)line.number : 0;
    return STATUS_OK;
}

/* Turns offsets into views; only now is it known where the bytes stay. */
static inline enum status command_complete(struct resp_parser *parser, struct span input,
                                           struct resp_request *request)
{
    for (uint32_t i = 0; i < parser->arguments_count; i++) {
        union resp_argument *argument = &parser->arguments[i];
        struct span span = span_of(input.data + argument->at.offset, argument->at.size);
        argument->span = span;
    }
    request->argc = parser->arguments_count;
    request->argv = &parser->arguments[0].span;
    request->consumed = parser->offset;
    parser_rewind(parser);
    return STATUS_OK;
}

static inline enum status array_parse(struct resp_parser *parser, struct span input,
                                      struct resp_request *request)
{
    if (parser->arguments_total == 0) {
        enum status status = array_header_parse(parser, input, request);
        if (status != STATUS_OK)
            return status;
    }
    while (parser->arguments_count < parser->arguments_total) {
        if (!parser->bulk_open) {
            enum status status = bulk_header_parse(parser, input, request);
            if (status != STATUS_OK)
                return status;
        }
        enum status status = bulk_bytes_parse(parser, input, request);
        if (status != STATUS_OK)
            return status;
    }
    return command_complete(parser, input, request);
}

/* ---- inline commands ------------------------------------------------------------------------------------ */

static bool is_space(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Fewer bytes end a word than may stand before one. */
static bool ends_word(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* The byte that an escape behind a backslash in double quotes stands for; at moves behind it. */
static uint8_t escape_parse(const uint8_t **at, const uint8_t *end)
{
    static const char letters[] = "nrtba";
    static const uint8_t bytes[] = {'\n', '\r', '\t', '\b', '\a'};
    const uint8_t *p = *at;
    if (*p == 'x' && end - p > 2 && hex_digit(p[1]) >= 0 && hex_digit(p[2]) >= 0) {
        *at = p + 3;
        return (uint8_t)(hex_digit(p[1]) << 4 | hex_digit(p[2]));
    }
    *at = p + 1;
    const char *letter = *p == 0 ? NULL : strchr(letters, *p);
    return letter == NULL ? *p : bytes[letter - letters];
}

/* One argument, unquoted into out (which has room for all of it). MALFORMED for unbalanced quotes, also where
 * text follows a closing quote. Quoting as redis-cli's: "…" with escapes, '…' with only \' in it. */
static enum status inline_argument_parse(const uint8_t **at, const uint8_t *end, struct buf *out)
{
    const uint8_t *p = *at;
    uint8_t quote = 0;
    for (; p < end && (quote != 0 || !ends_word(*p));) {
        uint8_t byte = *p++;
        if (quote == 0 && (byte == '"' || byte == '\'')) {
            quote = byte;
            continue;
        }
        if (quote != 0 && byte == quote) {
            if (p < end && !is_space(*p))
                return STATUS_MALFORMED;
            quote = 0;
            break;
        }
        if (quote == '"' && byte == '\\' && p < end)
            byte = escape_parse(&p, end);
        else if (quote == '\'' && byte == '\\' && p < end && *p == '\'')
            byte = *p++;
        out->data[out->size++] = byte;
    }
    *at = p;
    return quote == 0 ? STATUS_OK : STATUS_MALFORMED;
}

/* A browser, curl or a load balancer's check that was pointed at the wrong port. */
static bool line_is_http(struct span line)
{
    static const char version[] = " HTTP/1.";
    size_t size = sizeof version - 1;
    return line.size > size + 1 && memcmp(line.data + line.size - size - 1, version, size) == 0;
}

static enum status inline_line_parse(struct resp_parser *parser, struct span line,
                                     struct resp_request *request)
{
    const uint8_t *at = line.data;
    const uint8_t *end = line.data + line.size;
    struct buf *out = &parser->inline_bytes;

    if (line_is_http(line))
        return refuse(parser, request, STATUS_MALFORMED,
                      "ERR Protocol error: this is HTTP, but this port speaks RESP (the Redis protocol)");
    buf_clear(out);
    if (!buf_reserve(out, line.size + 1))
        return refuse_overloaded(parser, request);
    for (;;) {
        while (at < end && is_space(*at))
            at++;
        if (at == end)
            break;
        size_t start = out->size;
        if (inline_argument_parse(&at, end, out) != STATUS_OK)
            return refuse(parser, request, STATUS_MALFORMED,
                          "ERR Protocol error: unbalanced quotes in request");
        if (!arguments_grow(parser))
            return refuse_overloaded(parser, request);
        assert(out->size <= out->capacity);
        parser->arguments[parser->arguments_count++].span = span_of(out->data + start, out->size - start);
    }
    request->argc = parser->arguments_count;
    request->argv = &parser->arguments[0].span;
    return STATUS_OK;
}

static enum status inline_parse(struct resp_parser *parser, struct span input, struct resp_request *request)
{
    size_t scanned = parser->line_scanned;
    size_t limit = input.size > RESP_INLINE_BYTES_MAX ? RESP_INLINE_BYTES_MAX : input.size;
    const uint8_t *newline = scanned == limit ? NULL : memchr(input.data + scanned, '\n', limit - scanned);
    if (newline == NULL && input.size > RESP_INLINE_BYTES_MAX)
        return refuse(parser, request, STATUS_MALFORMED, "ERR Protocol error: too big inline request");
    if (newline == NULL) {
        parser->line_scanned = limit;
        return want(request, input.size + 1);
    }
    struct span line = span_of(input.data, (size_t)(newline - input.data));
    request->consumed = line.size + 1;
    if (line.size > 0 && line.data[line.size - 1] == '\r')
        line.size--;
    enum status status = inline_line_parse(parser, line, request);
    parser_rewind(parser);
    return status;
}

enum status resp_parse(struct resp_parser *parser, struct span input, struct resp_request *request)
{
    request->argc = 0;
    request->argv = NULL;
    request->consumed = 0;
    request->need_bytes = 0;
    request->error = (struct span){0};

    assert(parser->offset <= input.size);
    assert(parser->line_scanned <= input.size);
    if (input.size == 0)
        return want(request, 1);
    if (parser->offset == 0 && parser->arguments_capacity > ARGUMENTS_KEEP_MAX)
        arguments_release(parser);
    if (input.data[0] == '*')
        return array_parse(parser, input, request);
    return inline_parse(parser, input, request);
}
