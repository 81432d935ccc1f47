/* Results to answers: RESP values and errors, HTTP statuses and bodies.
 *
 * The three outcomes are told apart everywhere. RESP: an error whose code is UNKNOWN says that the write may still
 * take effect; CLUSTERDOWN and TRYAGAIN, which cluster clients retry by themselves, are only used where nothing was
 * applied. HTTP: 504 is "unknown", 503 and 507 are "not applied". */
#include <assert.h>

#include "shard/admin.h"
#include "shard/state.h"

/* ---- errors --------------------------------------------------------------------------------------------- */

static bool is_write(enum command_id command)
{
    switch (command) {
    case COMMAND_SET:
    case COMMAND_MSET:
    case COMMAND_DEL:
    case COMMAND_UNLINK:
    case COMMAND_SETEX:
    case COMMAND_PSETEX:
    case COMMAND_EXPIRE:
    case COMMAND_PEXPIRE:
    case COMMAND_EXPIREAT:
    case COMMAND_PEXPIREAT:
    case COMMAND_PERSIST:
    case COMMAND_GETEX:
    case COMMAND_RONDO_PUT:
        return true;
    default:
        return false;
    }
}

/* One sentence: what happened, and what that means for the client. */
static void explain(const struct pending *pending, const struct result *result, struct buf *text)
{
    const char *nothing = is_write(pending->command) ? "; nothing was applied" : "";
    switch (result->status) {
    case STATUS_OUTCOME_UNKNOWN:
        buf_append_format(text, "the write may still take effect: %u of %u replicas acknowledged it in time",
                          result->acks, result->needed);
        break;
    case STATUS_UNAVAILABLE:
        buf_append_format(text, "%u of %u needed replicas can answer%s", result->acks, result->needed,
                          nothing);
        break;
    case STATUS_TIMED_OUT:
        buf_append_format(text, "%u of %u needed replicas answered in time%s", result->acks, result->needed,
                          nothing);
        break;
    case STATUS_BAD_REQUEST:
        buf_append_format(text, "%u replicas were asked for, but a key has only %u", result->needed,
                          result->acks);
        break;
    case STATUS_TOO_LARGE:
        buf_append_format(text, "the timeout is longer than this node's request-timeout-max%s", nothing);
        break;
    case STATUS_QUARANTINED:
        if (result->needed == 0) { /* this node alone was asked */
            buf_append_text(text, "this node may have lost data of that slot, and is not repaired yet");
            break;
        }
        buf_append_format(text,
                          "%u of %u needed replicas can answer; others may have lost this key's data and are "
                          "not repaired yet",
                          result->acks, result->needed);
        break;
    case STATUS_STARTING:
        if (is_write(pending->command)) {
            buf_append_format(text, "%s%s", status_text(result->status), nothing);
            break;
        }
        buf_append_format(text,
                          "%u of %u needed replicas can answer; others have just started, and do not count "
                          "before another node has said that their data is current",
                          result->acks, result->needed);
        break;
    default:
        buf_append_format(text, "%s%s", status_text(result->status), nothing);
        break;
    }
    if (pending->parts_total > 1 && is_write(pending->command))
        buf_append_text(text, " (for one of the keys; each key is written on its own)");
}

/* The first word of a RESP error. */
static const char *resp_code(const struct result *result)
{
    if (result->outcome == OUTCOME_UNKNOWN)
        return "UNKNOWN";
    switch (result->status) {
    case STATUS_UNAVAILABLE:
        return "CLUSTERDOWN";
    case STATUS_STALE_EPOCH:
    case STATUS_WAIT:
    case STATUS_STARTING:
        return "TRYAGAIN";
    case STATUS_BAD_REQUEST:
    case STATUS_TOO_LARGE:
        return "ERR";
    default:
        return status_name(result->status);
    }
}

static void reply_failure(struct pending *pending, const struct result *result)
{
    struct buf text;
    buf_init(&text, pending->reply.alloc);
    if (!pending->http)
        buf_append_format(&text, "%s ", resp_code(result));
    explain(pending, result, &text);
    if (text.failed) {
        pending->reply.failed = true;
        buf_free(&text);
        return;
    }
    if (!pending->http) {
        resp_reply_error(&pending->reply, buf_span(&text));
        buf_free(&text);
        return;
    }
    enum status status = result->outcome == OUTCOME_UNKNOWN ? STATUS_OUTCOME_UNKNOWN : result->status;
    bool read_timed_out = status == STATUS_TIMED_OUT && !is_write(pending->command);
    struct http_reply reply = {
        .http_status = read_timed_out ? 504 : http_status_of(status),
        .version_minor = pending->http_minor,
        .keep_alive = pending->http_keep_alive,
        .head = pending->http_head,
        .retry_after_s = status == STATUS_OVERLOADED ? 1 : 0,
        .trace = span_of(pending->trace, pending->trace_size),
    };
    struct http_error error = {
        .error = status_name(status),
        .message = buf_span(&text),
        .counted = result->needed > 0,
        .needed = result->needed,
        .acks = result->acks,
    };
    http_reply_error(&pending->reply, &reply, &error);
    buf_free(&text);
}

/* An answer that did not fit becomes an error that does. A write's is left as it is: it ends the connection, which is
 * the honest answer where the client must not believe that nothing happened. */
void reply_out_of_memory(struct pending *pending)
{
    if (is_write(pending->command))
        return;
    buf_free(&pending->reply);
    if (!pending->http) {
        buf_append_text(&pending->reply,
                        "-OVERLOADED there is no memory for the answer; try again later\r\n");
        return;
    }
    struct http_refusal refusal = {.http_status = http_status_of(STATUS_OVERLOADED)};
    reply_http_refusal(pending, &refusal, STATUS_OVERLOADED,
                       span_of_text("there is no memory for the answer; try again later"));
}

void reply_http_refusal(struct pending *pending, const struct http_refusal *refusal, enum status status,
                        struct span message)
{
    struct http_reply reply = {
        .http_status = refusal->http_status,
        .version_minor = pending->http_minor,
        .keep_alive = !pending->close,
        .head = pending->http_head,
        .allow = refusal->allow,
    };
    struct http_error error = {.error = status_name(status), .message = message};
    http_reply_error(&pending->reply, &reply, &error);
}

/* ---- versions ------------------------------------------------------------------------------------------- */

size_t version_format(struct version version, char text[VERSION_TEXT_BYTES_MAX])
{
    text[0] = 0;
    if (stamp_none(version.value))
        return 0;
    size_t size = stamp_format(version.value, text);
    if (stamp_none(version.override))
        return size;
    text[size++] = '+';
    return size + stamp_format(version.override, text + size);
}

/* ---- HTTP ----------------------------------------------------------------------------------------------- */

void reply_http_page(struct pending *pending, uint16_t http_status, const char *content_type,
                     struct span body)
{
    struct http_reply reply = {
        .http_status = http_status,
        .version_minor = pending->http_minor,
        .keep_alive = pending->http_keep_alive,
        .head = pending->http_head,
        .content_type = content_type,
        .body = body,
    };
    http_reply(&pending->reply, &reply);
}

void reply_http_json(struct pending *pending, uint16_t http_status, struct span body)
{
    reply_http_page(pending, http_status, "application/json", body);
}

static void reply_http(struct pending *pending, const struct result *result)
{
    char version[VERSION_TEXT_BYTES_MAX];
    size_t size = version_format(result->version, version);
    struct http_reply reply = {
        .http_status = 200,
        .version_minor = pending->http_minor,
        .keep_alive = pending->http_keep_alive,
        .head = pending->http_head,
        .content_type = "application/json",
        .context = span_of(version, size),
        .trace = span_of(pending->trace, pending->trace_size),
    };
    struct buf json;
    buf_init(&json, pending->reply.alloc);
    if (pending->command == COMMAND_RONDO_GET && result->found) {
        reply.content_type = "application/octet-stream";
        reply.expiry_ms = result->expiry_ms;
        reply.body = result->value;
        http_reply(&pending->reply, &reply);
        return;
    }
    if (pending->command == COMMAND_RONDO_GET) {
        reply.http_status = 404;
        struct http_error error = {.error = status_name(STATUS_NOT_FOUND),
                                   .message = span_of_text(status_text(STATUS_NOT_FOUND))};
        http_reply_error(&pending->reply, &reply, &error);
        return;
    }
    if (pending->command == COMMAND_DEL)
        buf_append_format(&json, "{\"deleted\":%s,\"version\":\"%s\"}\n", result->found ? "true" : "false",
                          version);
    else
        buf_append_format(&json, "{\"version\":\"%s\"}\n", version);
    reply.body = buf_span(&json);
    http_reply(&pending->reply, &reply);
    pending->reply.failed |= json.failed;
    buf_free(&json);
}

/* ---- RESP ----------------------------------------------------------------------------------------------- */

static void reply_value(struct pending *pending, const struct result *result)
{
    if (result->found)
        resp_reply_bulk(&pending->reply, result->value);
    else
        resp_reply_null(&pending->reply, pending->proto);
}

static void reply_resp(struct shard *shard, struct pending *pending, const struct result *result)
{
    char version[VERSION_TEXT_BYTES_MAX];
    struct buf *reply = &pending->reply;
    switch (pending->command) {
    case COMMAND_GET:
        reply_value(pending, result);
        return;
    case COMMAND_GETEX:
        if (result->found && pending->found_error != NULL)
            resp_reply_error(reply, span_of_text(pending->found_error));
        else
            reply_value(pending, result);
        return;
    case COMMAND_SET:
    case COMMAND_SETEX:
    case COMMAND_PSETEX:
        resp_reply_ok(reply);
        return;
    case COMMAND_EXPIRE:
    case COMMAND_PEXPIRE:
    case COMMAND_EXPIREAT:
    case COMMAND_PEXPIREAT:
    case COMMAND_PERSIST:
        resp_reply_integer(reply, result->found);
        return;
    case COMMAND_RONDO_GET:
        resp_reply_array(reply, 2);
        reply_value(pending, result);
        resp_reply_bulk(reply, span_of(version, version_format(result->version, version)));
        return;
    case COMMAND_RONDO_PUT:
        resp_reply_bulk(reply, span_of(version, version_format(result->version, version)));
        return;
    default:
        /* DEL, UNLINK, EXISTS, TOUCH, MGET and MSET are answered when all their parts are over. */
        if (!reply_key(shard, pending, result))
            pending->count += result->found;
        return;
    }
}

/* ---- parts ---------------------------------------------------------------------------------------------- */

/* Keeps an MGET value until all are there. */
static void keep_part(struct shard *shard, struct pending *pending, uint32_t part,
                      const struct result *result)
{
    struct part *kept = &pending->parts[part];
    kept->found = result->found;
    if (!result->found || result->value.size == 0)
        return;
    kept->value = alloc_get(&shard->alloc, result->value.size);
    if (kept->value == NULL) {
        pending_overloaded(pending);
        return;
    }
    kept->size = result->value.size;
    memcpy(kept->value, result->value.data, kept->size);
}

/* The result's timeline, which is its own no longer than this call. */
static void keep_trace(struct shard *shard, struct pending *pending, const struct result *result)
{
    if (result->trace.size == 0 || pending->trace != NULL)
        return;
    pending->trace = alloc_get(&shard->alloc, result->trace.size);
    if (pending->trace == NULL)
        return; /* an answer without its timeline is better than none */
    pending->trace_size = (uint32_t)result->trace.size;
    memcpy(pending->trace, result->trace.data, result->trace.size);
}

/* The second element of RONDO.TRACE's answer: one text for each event. */
static void reply_trace(struct pending *pending)
{
    static const size_t separator = sizeof TRACE_SEPARATOR - 1;
    struct span events[TRACE_EVENTS_MAX];
    uint32_t count = 0;
    size_t start = 0;
    for (size_t at = 0; at < pending->trace_size && count < TRACE_EVENTS_MAX; at++) {
        bool ends = at + separator <= pending->trace_size &&
                    memcmp(pending->trace + at, TRACE_SEPARATOR, separator) == 0;
        if (!ends && at + 1 < pending->trace_size)
            continue;
        events[count++] = span_of(pending->trace + start, (ends ? at : at + 1) - start);
        start = at + separator;
    }
    resp_reply_array(&pending->reply, count);
    for (uint32_t i = 0; i < count; i++)
        resp_reply_bulk(&pending->reply, events[i]);
}

void reply_part(struct shard *shard, struct pending *pending, uint32_t part, const struct result *result)
{
    keep_trace(shard, pending, result);
    if (result->outcome != OUTCOME_DONE) {
        /* One key whose write may have happened makes the whole answer "unknown". */
        if (!pending->failed || result->outcome == OUTCOME_UNKNOWN)
            pending->failure = *result;
        pending->failed = true;
        return;
    }
    if (pending->client == NULL)
        return;
    if (pending->parts != NULL)
        keep_part(shard, pending, part, result);
    else if (pending->http)
        reply_http(pending, result);
    else
        reply_resp(shard, pending, result);
}

static void reply_stats(struct shard *shard, struct pending *pending)
{
    struct buf text;
    buf_init(&text, &shard->alloc);
    if (pending->command == COMMAND_DBSIZE) {
        resp_reply_integer(&pending->reply, (int64_t)pending->stats->keys);
    } else if (pending->command == COMMAND_HTTP_STATUS) {
        describe_status_json(shard, pending, &text);
        reply_http_json(pending, 200, buf_span(&text));
    } else if (pending->command == COMMAND_HTTP_METRICS) {
        metrics_text(shard, pending->stats, &text);
        reply_http_page(pending, 200, METRICS_CONTENT_TYPE, buf_span(&text));
    } else {
        info_text(shard, pending, &text);
        resp_reply_verbatim(&pending->reply, pending->proto, buf_span(&text));
    }
    pending->reply.failed |= text.failed;
    buf_free(&text);
}

static void reply_whole(struct shard *shard, struct pending *pending)
{
    struct buf *reply = &pending->reply;
    if (pending->failed) {
        reply_failure(pending, &pending->failure);
        return;
    }
    if (pending->stats != NULL) {
        reply_stats(shard, pending);
        return;
    }
    if (pending->gathering != NULL) {
        gather_reply(shard, pending);
        return;
    }
    if (pending->http)
        return;
    switch (pending->command) {
    case COMMAND_MSET:
        resp_reply_ok(reply);
        return;
    case COMMAND_DEL:
    case COMMAND_UNLINK:
    case COMMAND_EXISTS:
    case COMMAND_TOUCH:
        resp_reply_integer(reply, pending->count);
        return;
    case COMMAND_RANDOMKEY:
        if (pending->parts[0].found)
            resp_reply_bulk(reply, span_of(pending->parts[0].value, pending->parts[0].size));
        else
            resp_reply_null(reply, pending->proto);
        return;
    case COMMAND_MGET:
        resp_reply_array(reply, pending->parts_total);
        for (uint32_t i = 0; i < pending->parts_total; i++) {
            const struct part *part = &pending->parts[i];
            if (part->found)
                resp_reply_bulk(reply, span_of(part->value, part->size));
            else
                resp_reply_null(reply, pending->proto);
        }
        return;
    default:
        return;
    }
}

void reply_parts_over(struct shard *shard, struct pending *pending)
{
    if (pending->client == NULL)
        return;
    reply_whole(shard, pending);
    if (pending->traced && !pending->http)
        reply_trace(pending);
}
