/* HTTP requests to commands. An unknown parameter is refused by name: `?tll=60` must not store a value for ever. */
#include <assert.h>

#include "proto/command_fields.h"

enum parameter_set {
    PARAMETER_KEY = 1,
    PARAMETER_R = 2,
    PARAMETER_W = 4,
    PARAMETER_TIMEOUT = 8,
    PARAMETER_TTL = 16,
    PARAMETER_TTL_MS = 32,
    PARAMETER_SLOPPY = 64,
    PARAMETER_SLOT = 128,
    PARAMETER_AFTER = 256,
    PARAMETER_BYTES = 512,
};

struct parameter_name {
    unsigned parameter;
    const char *name;
};

static const struct parameter_name parameter_names[] = {
    {PARAMETER_KEY, "key"},         {PARAMETER_R, "r"},       {PARAMETER_W, "w"},
    {PARAMETER_TIMEOUT, "timeout"}, {PARAMETER_TTL, "ttl"},   {PARAMETER_TTL_MS, "ttl_ms"},
    {PARAMETER_SLOPPY, "sloppy"},   {PARAMETER_SLOT, "slot"}, {PARAMETER_AFTER, "after"},
    {PARAMETER_BYTES, "bytes"},
};

#define PARAMETER_NAMES_COUNT (sizeof parameter_names / sizeof parameter_names[0])

#define METHOD(name) (1u << HTTP_METHOD_##name)

struct endpoint {
    const char *path;
    unsigned methods;
    const char *allow;
    unsigned parameters;
    enum command_id id;
    enum operation_kind operation;
};

static const struct endpoint endpoints[] = {
    {"/get", METHOD(GET) | METHOD(HEAD), "GET, HEAD",
     PARAMETER_KEY | PARAMETER_R | PARAMETER_TIMEOUT | PARAMETER_SLOPPY, COMMAND_RONDO_GET, OPERATION_GET},
    {"/put", METHOD(PUT) | METHOD(POST), "PUT, POST",
     PARAMETER_KEY | PARAMETER_W | PARAMETER_TIMEOUT | PARAMETER_TTL | PARAMETER_TTL_MS | PARAMETER_SLOPPY,
     COMMAND_RONDO_PUT, OPERATION_PUT},
    {"/delete", METHOD(DELETE) | METHOD(POST), "DELETE, POST",
     PARAMETER_KEY | PARAMETER_W | PARAMETER_TIMEOUT | PARAMETER_SLOPPY, COMMAND_DEL, OPERATION_DELETE},
    {"/healthz", METHOD(GET) | METHOD(HEAD), "GET, HEAD", 0, COMMAND_HTTP_HEALTHZ, 0},
    {"/status", METHOD(GET) | METHOD(HEAD), "GET, HEAD", 0, COMMAND_HTTP_STATUS, 0},
    {"/ring", METHOD(GET) | METHOD(HEAD), "GET, HEAD", 0, COMMAND_HTTP_RING, 0},
    {"/metrics", METHOD(GET) | METHOD(HEAD), "GET, HEAD", 0, COMMAND_HTTP_METRICS, 0},
    {"/local/rows", METHOD(GET), "GET", PARAMETER_SLOT | PARAMETER_AFTER | PARAMETER_BYTES,
     COMMAND_HTTP_LOCAL_ROWS, 0},
};

#define ENDPOINTS_COUNT (sizeof endpoints / sizeof endpoints[0])

struct parse {
    const struct command_limits *limits;
    const struct endpoint *endpoint;
    uint64_t now_ms;
    struct command *command;
    struct buf *error;
};

static enum status refuse_parameter(const struct parse *parse, struct span name)
{
    struct buf *error = parse->error;
    const char *between = " takes ";
    buf_append_text(error, "unknown parameter '");
    command_quote(error, name);
    buf_append_text(error, "': ");
    buf_append_text(error, parse->endpoint->path);
    if (parse->endpoint->parameters == 0)
        buf_append_text(error, " takes none");
    for (size_t i = 0; i < PARAMETER_NAMES_COUNT; i++) {
        if ((parse->endpoint->parameters & parameter_names[i].parameter) == 0)
            continue;
        buf_append_text(error, between);
        buf_append_text(error, parameter_names[i].name);
        between = ", ";
    }
    return STATUS_BAD_REQUEST;
}

static enum status parse_ttl(const struct parse *parse, struct span text, bool seconds)
{
    struct command_expiry expiry = {.seconds = seconds};
    int64_t expiry_ms = 0;
    const char *unit = seconds ? "ttl must be a whole number of seconds above 0, not '"
                               : "ttl_ms must be a whole number of milliseconds above 0, not '";
    if (span_parse_i64(text, &expiry.amount) != STATUS_OK || expiry.amount <= 0 ||
        command_expiry_resolve(&expiry, parse->now_ms, &expiry_ms) != STATUS_OK) {
        buf_append_text(parse->error, unit);
        command_quote(parse->error, text);
        buf_append_text(parse->error, "'");
        return STATUS_BAD_REQUEST;
    }
    parse->command->expiry_ms = (uint64_t)expiry_ms;
    return STATUS_OK;
}

static enum status refuse_number(const struct parse *parse, const char *range, struct span text)
{
    buf_append_text(parse->error, range);
    buf_append_text(parse->error, ", not '");
    command_quote(parse->error, text);
    buf_append_text(parse->error, "'");
    return STATUS_BAD_REQUEST;
}

static enum status parse_slot(const struct parse *parse, struct span text)
{
    parse->command->given |= COMMAND_GIVEN_SLOT;
    if (command_slot_parse(text, &parse->command->slot) == STATUS_OK)
        return STATUS_OK;
    return refuse_number(parse, "slot must be a whole number from 0 to 16383", text);
}

_Static_assert(SLOTS_COUNT == 16384 && ROWS_BYTES_MAX == 4194304, "the texts say so");

static enum status parse_bytes(const struct parse *parse, struct span text)
{
    uint64_t number = 0;
    if (span_parse_u64(text, &number) != STATUS_OK || number < 1 || number > ROWS_BYTES_MAX)
        return refuse_number(parse, "bytes must be a whole number from 1 to 4194304", text);
    parse->command->bytes = (uint32_t)number;
    return STATUS_OK;
}

static enum status parse_value(const struct parse *parse, unsigned parameter, struct span value)
{
    struct command *command = parse->command;
    switch (parameter) {
    case PARAMETER_SLOT:
        return parse_slot(parse, value);
    case PARAMETER_BYTES:
        return parse_bytes(parse, value);
    case PARAMETER_AFTER:
        command->after = value;
        return STATUS_OK;
    case PARAMETER_SLOPPY:
        command->given |= COMMAND_GIVEN_SLOPPY;
        return command_yes_no_parse(value, "sloppy", &command->sloppy, parse->error);
    case PARAMETER_KEY:
        command->key = value;
        command->keys_count = 1;
        return command_key_check(parse->limits, value, parse->error);
    case PARAMETER_R:
        command->given |= COMMAND_GIVEN_R;
        return command_count_parse(value, "r", &command->r, parse->error);
    case PARAMETER_W:
        command->given |= COMMAND_GIVEN_W;
        return command_count_parse(value, "w", &command->w, parse->error);
    case PARAMETER_TIMEOUT:
        command->given |= COMMAND_GIVEN_TIMEOUT;
        return command_timeout_parse(parse->limits, value, "timeout", &command->timeout_ms, parse->error);
    default:
        assert(parameter == PARAMETER_TTL || parameter == PARAMETER_TTL_MS);
        return parse_ttl(parse, value, parameter == PARAMETER_TTL);
    }
}

static unsigned parameter_find(struct span name)
{
    for (size_t i = 0; i < PARAMETER_NAMES_COUNT; i++) {
        if (span_is(name, parameter_names[i].name))
            return parameter_names[i].parameter;
    }
    return 0;
}

static enum status parse_parameters(const struct parse *parse, const struct http_request *request)
{
    for (uint32_t i = 0; i < request->parameters_count; i++) {
        unsigned parameter = parameter_find(request->parameters[i].name);
        if ((parameter & parse->endpoint->parameters) == 0)
            return refuse_parameter(parse, request->parameters[i].name);
        if ((parameter & (PARAMETER_TTL | PARAMETER_TTL_MS)) != 0 && parse->command->expiry_ms != 0) {
            buf_append_text(parse->error, "give ttl or ttl_ms, not both");
            return STATUS_BAD_REQUEST;
        }
        enum status status = parse_value(parse, parameter, request->parameters[i].value);
        if (status != STATUS_OK)
            return status;
    }
    if ((parse->endpoint->parameters & PARAMETER_KEY) != 0 && parse->command->keys_count == 0) {
        buf_append_text(parse->error, "the parameter key is missing: ");
        buf_append_text(parse->error, parse->endpoint->path);
        buf_append_text(parse->error, "?key=K");
        return STATUS_BAD_REQUEST;
    }
    if ((parse->endpoint->parameters & PARAMETER_SLOT) != 0 &&
        (parse->command->given & COMMAND_GIVEN_SLOT) == 0) {
        buf_append_text(parse->error, "the parameter slot is missing: ");
        buf_append_text(parse->error, parse->endpoint->path);
        buf_append_text(parse->error, "?slot=S");
        return STATUS_BAD_REQUEST;
    }
    return STATUS_OK;
}

/* Only requests about a key have a timeline. */
static enum status parse_trace(const struct parse *parse, struct span text)
{
    parse->command->trace = span_is(text, "1") && parse->endpoint->operation != 0;
    if (text.size == 0 || span_is(text, "0") || span_is(text, "1"))
        return STATUS_OK;
    buf_append_text(parse->error, "Rondo-Trace must be 1 (this request is traced) or 0, not '");
    command_quote(parse->error, text);
    buf_append_text(parse->error, "'");
    return STATUS_BAD_REQUEST;
}

static const struct endpoint *endpoint_find(struct span path)
{
    for (size_t i = 0; i < ENDPOINTS_COUNT; i++) {
        if (span_is(path, endpoints[i].path))
            return &endpoints[i];
    }
    return NULL;
}

static enum status refuse_path(struct span path, struct buf *error)
{
    buf_append_text(error, "there is nothing at '");
    command_quote(error, path);
    buf_append_text(error, "'; there are");
    for (size_t i = 0; i < ENDPOINTS_COUNT; i++) {
        buf_append_text(error, i == 0 ? " " : ", ");
        buf_append_text(error, endpoints[i].path);
    }
    return STATUS_NOT_FOUND;
}

static enum status refuse_method(const struct endpoint *endpoint, const struct http_request *request,
                                 struct http_refusal *refusal, struct buf *error)
{
    refusal->http_status = 405;
    refusal->allow = endpoint->allow;
    buf_append_text(error, endpoint->path);
    buf_append_text(error, " takes ");
    buf_append_text(error, endpoint->allow);
    buf_append_text(error, ", not ");
    command_quote(error, request->method_text);
    return STATUS_BAD_REQUEST;
}

enum status http_command(const struct command_limits *limits, const struct http_request *request,
                         uint64_t now_ms, struct command *command, struct http_refusal *refusal,
                         struct buf *error)
{
    const struct endpoint *endpoint = endpoint_find(request->path);
    *command = (struct command){0};
    *refusal = (struct http_refusal){.http_status = 400};
    if (endpoint == NULL) {
        refusal->http_status = 404;
        return refuse_path(request->path, error);
    }
    if ((endpoint->methods & (1u << request->method)) == 0)
        return refuse_method(endpoint, request, refusal, error);

    struct parse parse = {
        .limits = limits, .endpoint = endpoint, .now_ms = now_ms, .command = command, .error = error};
    command->id = endpoint->id;
    command->operation = endpoint->operation;
    command->head = request->method == HTTP_METHOD_HEAD;
    command->context = request->context;
    enum status status = parse_trace(&parse, request->trace);
    if (status == STATUS_OK)
        status = parse_parameters(&parse, request);
    if (status == STATUS_OK && endpoint->operation == OPERATION_PUT) {
        /* A forgotten body would quietly store an empty value. */
        if (!request->body_announced) {
            refusal->http_status = 411;
            buf_append_text(error,
                            "the value is missing: send it as the body, with Content-Length (0 for none)");
            return STATUS_BAD_REQUEST;
        }
        command->value = request->body;
        status = command_value_check(limits, command->value, error);
    }
    if (status == STATUS_TOO_LARGE)
        refusal->http_status = 413;
    return status;
}
