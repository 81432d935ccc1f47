/* HTTP requests over llhttp. llhttp finds the pieces; this file collects them into owned buffers, keeps the limits
 * and decodes the target once the headers are complete. Limits are counted in bytes of the stream, so whether a
 * request is accepted depends on its bytes alone and not on how they were split into reads. (Of two faults in one
 * request, the split can decide which is told.) */
#include "proto/http.h"

#include <assert.h>
#include <llhttp.h>

/* The longest header name that is looked at: "Rondo-Context" and its like. */
#define FIELD_BYTES_MAX 16

/* A body's buffer starts at most this large, so that a Content-Length alone reserves nothing much. */
#define BODY_START_BYTES ((size_t)64 << 10)

enum phase {
    PHASE_IDLE, /* no byte of a request has come yet */
    PHASE_HEADERS,
    PHASE_BODY,
    PHASE_DONE, /* the request is whole and in use */
    PHASE_FAILED,
};

enum header {
    HEADER_HOST,
    HEADER_EXPECT,
    HEADER_CONTENT_TYPE,
    HEADER_CONTEXT,
    HEADER_TRACE,
    HEADER_COUNT,
    HEADER_OTHER = HEADER_COUNT,
};

static const char *const header_names[HEADER_COUNT] = {"host", "expect", "content-type", "rondo-context",
                                                       "rondo-trace"};

/* A header's value inside the text buffer, which may still move. */
struct piece {
    size_t offset;
    size_t size;
    bool seen;
};

struct http_parser {
    struct alloc *alloc;
    struct http_limits limits;
    llhttp_t llhttp;
    enum phase phase;
    size_t head_bytes;    /* of the stream, up to the end of the headers */
    size_t headers_bytes; /* header names and values, chunk extensions, trailers */
    struct buf target;
    struct buf text; /* header values, then the decoded path and parameters */
    struct buf body;
    struct http_request request;
    struct piece headers[HEADER_COUNT];
    char field[FIELD_BYTES_MAX];
    size_t field_size; /* also counts what did not fit */
    bool field_open;   /* on_header_field comes in pieces */
    enum header header;
    bool continue_expected;
    uint64_t body_bytes_announced; /* Content-Length, else 0 */

    enum status failure; /* OK, or why the parser is of no further use */
    uint16_t http_status;
    struct buf error;
};

/* ---- failing -------------------------------------------------------------------------------------------- */

/* Callbacks end with this; llhttp then stops. The first failure is the one told. */
static int fail(struct http_parser *parser, enum status status, uint16_t http_status, const char *text)
{
    if (parser->failure == STATUS_OK) {
        parser->failure = status;
        parser->http_status = http_status;
        buf_clear(&parser->error);
        buf_append_text(&parser->error, text);
    }
    parser->phase = PHASE_FAILED;
    return -1;
}

static int fail_limit(struct http_parser *parser, uint16_t http_status, const char *what, size_t limit)
{
    int result = fail(parser, STATUS_TOO_LARGE, http_status, what);
    buf_append_format(&parser->error, "; the limit is %zu bytes", limit);
    return result;
}

static int fail_memory(struct http_parser *parser)
{
    return fail(parser, STATUS_OVERLOADED, 503, "no memory for the request; try again later");
}

/* ---- pieces from llhttp --------------------------------------------------------------------------------- */

static int on_message_begin(llhttp_t *llhttp)
{
    struct http_parser *parser = llhttp->data;
    parser->phase = PHASE_HEADERS;
    return 0;
}

static int on_url(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *parser = llhttp->data;
    if (size > parser->limits.target_bytes_max - parser->target.size)
        return fail_limit(parser, 414, "the request target is too long", parser->limits.target_bytes_max);
    buf_append(&parser->target, at, size);
    return parser->target.failed ? fail_memory(parser) : 0;
}

static bool count_header_bytes(struct http_parser *parser, size_t size)
{
    if (size > parser->limits.headers_bytes_max - parser->headers_bytes) {
        fail_limit(parser, 431, "the headers are too large", parser->limits.headers_bytes_max);
        return false;
    }
    parser->headers_bytes += size;
    return true;
}

static int on_header_field(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *parser = llhttp->data;
    if (!count_header_bytes(parser, size))
        return -1;
    if (!parser->field_open)
        parser->field_size = 0;
    parser->field_open = true;
    for (size_t i = 0; i < size && parser->field_size + i < FIELD_BYTES_MAX; i++)
        parser->field[parser->field_size + i] = at[i];
    parser->field_size += size;
    return 0;
}

static int on_header_field_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = llhttp->data;
    parser->field_open = false;
    parser->header = HEADER_OTHER;
    /* Trailers are counted and otherwise ignored. */
    if (parser->phase != PHASE_HEADERS || parser->field_size > FIELD_BYTES_MAX)
        return 0;
    struct span field = span_of(parser->field, parser->field_size);
    for (int i = 0; i < HEADER_COUNT; i++) {
        if (!span_is_nocase(field, header_names[i]))
            continue;
        if (parser->headers[i].seen) {
            int result = fail(parser, STATUS_MALFORMED, 400, "a header is given twice: ");
            buf_append_text(&parser->error, header_names[i]);
            return result;
        }
        parser->header = (enum header)i;
        parser->headers[i] = (struct piece){.offset = parser->text.size, .seen = true};
    }
    return 0;
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *parser = llhttp->data;
    if (!count_header_bytes(parser, size))
        return -1;
    if (parser->header == HEADER_OTHER)
        return 0;
    buf_append(&parser->text, at, size);
    parser->headers[parser->header].size += size;
    return parser->text.failed ? fail_memory(parser) : 0;
}

static int on_chunk_extension(llhttp_t *llhttp, const char *at, size_t size)
{
    (void)at;
    return count_header_bytes(llhttp->data, size) ? 0 : -1;
}

/* Makes room for size more body bytes: doubling, so that memory follows what has arrived, but straight to the
 * announced size once an eighth of it is there. */
static bool body_reserve(struct http_parser *parser, size_t size)
{
    struct buf *body = &parser->body;
    if (size <= body->capacity - body->size)
        return true;
    size_t capacity = body->capacity * 8 < BODY_START_BYTES ? BODY_START_BYTES : body->capacity * 8;
    size_t whole = (size_t)parser->body_bytes_announced;
    if (whole >= body->size + size && whole <= capacity)
        return buf_reserve(body, whole - body->size);
    return buf_reserve(body, size);
}

static int on_body(llhttp_t *llhttp, const char *at, size_t size)
{
    struct http_parser *parser = llhttp->data;
    if (size > parser->limits.body_bytes_max - parser->body.size)
        return fail_limit(parser, 413, "the body is too large", parser->limits.body_bytes_max);
    if (!body_reserve(parser, size))
        return fail_memory(parser);
    buf_append(&parser->body, at, size);
    return 0;
}

/* ---- the target ----------------------------------------------------------------------------------------- */

static int hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Appends the decoded text to parser->text, where room was reserved, and gives a view of it. */
static bool decode(struct http_parser *parser, struct span encoded, bool query, struct span *decoded)
{
    struct buf *text = &parser->text;
    const uint8_t *start = text->data + text->size;
    assert(encoded.size <= text->capacity - text->size);
    for (size_t i = 0; i < encoded.size; i++) {
        uint8_t byte = encoded.data[i];
        if (byte == '+' && query) {
            byte = ' ';
        } else if (byte == '%') {
            if (encoded.size - i < 3 || hex_digit(encoded.data[i + 1]) < 0 ||
                hex_digit(encoded.data[i + 2]) < 0) {
                fail(parser, STATUS_MALFORMED, 400,
                     "the target has a '%' that no two hex digits follow; a percent sign is written %25");
                return false;
            }
            byte = (uint8_t)(hex_digit(encoded.data[i + 1]) << 4 | hex_digit(encoded.data[i + 2]));
            i += 2;
        }
        text->data[text->size++] = byte;
    }
    *decoded = span_of(start, (size_t)(text->data + text->size - start));
    return true;
}

/* Splits at the first separator; without one, the second part is empty. */
static bool split(struct span whole, char separator, struct span *first, struct span *second)
{
    const uint8_t *at = whole.size == 0 ? NULL : memchr(whole.data, separator, whole.size);
    size_t size = at == NULL ? whole.size : (size_t)(at - whole.data);
    *first = span_of(whole.data, size);
    *second = at == NULL ? span_of(whole.data + size, 0) : span_of(at + 1, whole.size - size - 1);
    return at != NULL;
}

static bool parameter_add(struct http_parser *parser, struct span text)
{
    struct http_request *request = &parser->request;
    struct http_parameter parameter;
    struct span name;
    struct span value;
    (void)split(text, '=', &name, &value);
    if (!decode(parser, name, true, &parameter.name) || !decode(parser, value, true, &parameter.value))
        return false;
    for (uint32_t i = 0; i < request->parameters_count; i++) {
        if (span_equal(request->parameters[i].name, parameter.name)) {
            fail(parser, STATUS_MALFORMED, 400, "a parameter is given twice in the target");
            return false;
        }
    }
    if (request->parameters_count == HTTP_PARAMETERS_MAX) {
        fail(parser, STATUS_MALFORMED, 400, "the target has too many parameters");
        return false;
    }
    request->parameters[request->parameters_count++] = parameter;
    return true;
}

/* The part of the target from its path on: proxies may send "http://host/path". */
static struct span target_without_authority(struct span target)
{
    size_t at = 0;
    if (target.size == 0 || target.data[0] == '/')
        return target;
    while (at + 3 <= target.size && memcmp(target.data + at, "://", 3) != 0)
        at++;
    if (at + 3 > target.size)
        return target;
    at += 3;
    while (at < target.size && target.data[at] != '/' && target.data[at] != '?')
        at++;
    return span_of(target.data + at, target.size - at);
}

static bool target_parse(struct http_parser *parser)
{
    struct http_request *request = &parser->request;
    struct span path;
    struct span query;
    struct span rest;

    request->target = buf_span(&parser->target);
    /* A client drops a fragment before it sends; one here is a key with a '#' in it. */
    if (request->target.size > 0 && memchr(request->target.data, '#', request->target.size) != NULL) {
        fail(parser, STATUS_MALFORMED, 400, "the target has a raw '#'; in a key it is written %23");
        return false;
    }
    (void)split(target_without_authority(request->target), '?', &path, &query);
    if (!decode(parser, path, false, &request->path))
        return false;
    if (path.size == 0)
        request->path = span_of_text("/");
    while (query.size > 0) {
        struct span parameter;
        rest = query;
        (void)split(rest, '&', &parameter, &query);
        if (parameter.size > 0 && !parameter_add(parser, parameter))
            return false;
    }
    return true;
}

/* ---- the end of the headers, and of the request --------------------------------------------------------- */

static enum http_method method_of(uint8_t method)
{
    switch (method) {
    case HTTP_GET:
        return HTTP_METHOD_GET;
    case HTTP_HEAD:
        return HTTP_METHOD_HEAD;
    case HTTP_PUT:
        return HTTP_METHOD_PUT;
    case HTTP_POST:
        return HTTP_METHOD_POST;
    case HTTP_DELETE:
        return HTTP_METHOD_DELETE;
    case HTTP_OPTIONS:
        return HTTP_METHOD_OPTIONS;
    default:
        return HTTP_METHOD_OTHER;
    }
}

/* A header's value without white space at its end. */
static struct span header_value(const struct http_parser *parser, enum header header)
{
    const struct piece *piece = &parser->headers[header];
    if (!piece->seen || piece->size == 0)
        return (struct span){0};
    struct span value = span_of(parser->text.data + piece->offset, piece->size);
    while (value.size > 0 && (value.data[value.size - 1] == ' ' || value.data[value.size - 1] == '\t'))
        value.size--;
    return value;
}

/* What must hold before the target is looked at. */
static bool headers_check(struct http_parser *parser)
{
    const llhttp_t *llhttp = &parser->llhttp;
    struct span expect = header_value(parser, HEADER_EXPECT);
    bool body = (llhttp->flags & F_CHUNKED) != 0 || llhttp->content_length > 0;

    if (llhttp->http_major != 1 || llhttp->http_minor > 1) {
        fail(parser, STATUS_MALFORMED, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
        return false;
    }
    if (llhttp->http_minor == 1 && !parser->headers[HEADER_HOST].seen) {
        fail(parser, STATUS_MALFORMED, 400, "an HTTP/1.1 request needs a Host header");
        return false;
    }
    if (parser->headers[HEADER_EXPECT].seen && !span_is_nocase(expect, "100-continue")) {
        fail(parser, STATUS_MALFORMED, 417, "the only expectation understood is 100-continue");
        return false;
    }
    if ((llhttp->flags & F_CONTENT_LENGTH) != 0 && llhttp->content_length > parser->limits.body_bytes_max) {
        fail_limit(parser, 413, "the body is too large", parser->limits.body_bytes_max);
        return false;
    }
    /* HTTP/1.0 knows no interim answers. */
    parser->continue_expected = expect.size > 0 && body && llhttp->http_minor == 1;
    return true;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = llhttp->data;
    struct http_request *request = &parser->request;

    if (!headers_check(parser))
        return -1;
    /* Decoded text is never longer than the target; from here on the buffer does not move. */
    if (!buf_reserve(&parser->text, parser->target.size + 1))
        return fail_memory(parser);
    if (!target_parse(parser))
        return -1;
    /* An offer to change protocol (curl --http2) may be ignored, and is. */
    llhttp->upgrade = 0;
    request->method = method_of(llhttp->method);
    request->method_text = span_of_text(llhttp_method_name((llhttp_method_t)llhttp->method));
    request->version_minor = llhttp->http_minor;
    request->keep_alive = llhttp_should_keep_alive(llhttp) != 0;
    request->body_announced = (llhttp->flags & (F_CHUNKED | F_CONTENT_LENGTH)) != 0;
    request->context = header_value(parser, HEADER_CONTEXT);
    request->trace = header_value(parser, HEADER_TRACE);
    request->content_type = header_value(parser, HEADER_CONTENT_TYPE);
    parser->body_bytes_announced = (llhttp->flags & F_CONTENT_LENGTH) != 0 ? llhttp->content_length : 0;
    parser->phase = PHASE_BODY;
    return 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
    struct http_parser *parser = llhttp->data;
    parser->request.body = buf_span(&parser->body);
    parser->phase = PHASE_DONE;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_message_begin = on_message_begin,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_field_complete = on_header_field_complete,
    .on_header_value = on_header_value,
    .on_chunk_extension_name = on_chunk_extension,
    .on_chunk_extension_value = on_chunk_extension,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* ---- the parser ----------------------------------------------------------------------------------------- */

static void buf_recycle(struct buf *buf)
{
    if (buf->capacity > HTTP_BUFFER_KEEP_BYTES_MAX)
        buf_free(buf);
    else
        buf_clear(buf);
}

static void request_begin(struct http_parser *parser)
{
    llhttp_init(&parser->llhttp, HTTP_REQUEST, &settings);
    parser->llhttp.data = parser;
    parser->phase = PHASE_IDLE;
    parser->head_bytes = 0;
    parser->headers_bytes = 0;
    parser->field_size = 0;
    parser->field_open = false;
    parser->header = HEADER_OTHER;
    parser->continue_expected = false;
    parser->body_bytes_announced = 0;
    memset(parser->headers, 0, sizeof parser->headers);
    parser->request = (struct http_request){0};
    buf_recycle(&parser->target);
    buf_recycle(&parser->text);
    buf_recycle(&parser->body);
}

struct http_parser *http_parser_new(struct alloc *alloc, const struct http_limits *limits)
{
    struct http_parser *parser = alloc_get_zeroed(alloc, sizeof *parser);
    if (parser == NULL)
        return NULL;
    parser->alloc = alloc;
    parser->limits = *limits;
    buf_init(&parser->target, alloc);
    buf_init(&parser->text, alloc);
    buf_init(&parser->body, alloc);
    buf_init(&parser->error, alloc);
    request_begin(parser);
    return parser;
}

void http_parser_free(struct http_parser *parser)
{
    if (parser == NULL)
        return;
    buf_free(&parser->target);
    buf_free(&parser->text);
    buf_free(&parser->body);
    buf_free(&parser->error);
    alloc_put(parser->alloc, parser, sizeof *parser);
}

static enum status progress_failed(const struct http_parser *parser, struct http_progress *progress)
{
    assert(parser->failure != STATUS_OK);
    progress->http_status = parser->http_status;
    progress->error =
        parser->error.failed ? span_of_text("the request is refused") : buf_span(&parser->error);
    return parser->failure;
}

/* llhttp stopped: at the wish of a callback that failed, or because the stream itself is wrong. */
static void fail_stream(struct http_parser *parser, llhttp_errno_t error)
{
    if (parser->failure != STATUS_OK)
        return;
    if (error == HPE_PAUSED_H2_UPGRADE) {
        fail(parser, STATUS_MALFORMED, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
        return;
    }
    const char *reason = llhttp_get_error_reason(&parser->llhttp);
    fail(parser, STATUS_MALFORMED, 400, "this is not an HTTP/1.1 request: ");
    buf_append_text(&parser->error, reason != NULL && *reason != 0 ? reason : llhttp_errno_name(error));
}

/* Feeds one stretch that does not reach past the limit of the head. */
static size_t feed(struct http_parser *parser, struct span input)
{
    const char *start = (const char *)input.data;
    llhttp_errno_t error = llhttp_execute(&parser->llhttp, start, input.size);
    if (error == HPE_PAUSED && parser->phase == PHASE_DONE)
        return (size_t)(llhttp_get_error_pos(&parser->llhttp) - start);
    if (error != HPE_OK)
        fail_stream(parser, error);
    return input.size;
}

enum status http_parse(struct http_parser *parser, struct span input, struct http_progress *progress)
{
    size_t head_bytes_max = parser->limits.target_bytes_max + parser->limits.headers_bytes_max;
    *progress = (struct http_progress){0};
    if (parser->phase == PHASE_DONE)
        request_begin(parser);
    while (parser->phase != PHASE_FAILED && parser->phase != PHASE_DONE && progress->consumed < input.size) {
        struct span part = span_of(input.data + progress->consumed, input.size - progress->consumed);
        bool head = parser->phase != PHASE_BODY;
        if (head && part.size > head_bytes_max - parser->head_bytes)
            part.size = head_bytes_max - parser->head_bytes;
        progress->consumed += feed(parser, part);
        if (!head || parser->phase == PHASE_BODY)
            continue;
        /* White space and line ends count here too, which llhttp never hands out. */
        parser->head_bytes += part.size;
        if (parser->head_bytes == head_bytes_max && parser->phase <= PHASE_HEADERS)
            fail_limit(parser, 431, "the request's head is too large", head_bytes_max);
    }
    if (parser->phase == PHASE_DONE)
        return STATUS_OK;
    if (parser->phase == PHASE_FAILED)
        return progress_failed(parser, progress);
    if (parser->phase == PHASE_BODY && parser->continue_expected) {
        progress->send_continue = parser->body.size == 0;
        parser->continue_expected = false;
    }
    return STATUS_MORE;
}

const struct http_request *http_parser_request(const struct http_parser *parser)
{
    assert(parser->phase == PHASE_DONE);
    return &parser->request;
}

bool http_parser_busy(const struct http_parser *parser)
{
    return parser->phase == PHASE_HEADERS || parser->phase == PHASE_BODY;
}
