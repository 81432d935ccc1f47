/* HTTP answers. */
#include "proto/http_reply.h"

#include <assert.h>

#include "proto/json.h"

const char *http_status_reason(uint16_t http_status)
{
    switch (http_status) {
    case 200:
        return "OK";
    case 201:
        return "Created";
    case 204:
        return "No Content";
    case 304:
        return "Not Modified";
    case 307:
        return "Temporary Redirect";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 411:
        return "Length Required";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 417:
        return "Expectation Failed";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    case 505:
        return "HTTP Version Not Supported";
    case 507:
        return "Insufficient Storage";
    default:
        return "Unknown";
    }
}

uint16_t http_status_of(enum status status)
{
    switch (status) {
    case STATUS_OK:
        return 200;
    case STATUS_NOT_FOUND:
        return 404;
    case STATUS_MALFORMED:
    case STATUS_BAD_REQUEST:
        return 400;
    case STATUS_TOO_LARGE:
        return 413;
    case STATUS_UNSUPPORTED:
        return 501;
    case STATUS_OUTCOME_UNKNOWN:
        return 504;
    case STATUS_DISK_FULL:
        return 507;
    case STATUS_CORRUPT:
    case STATUS_IO_ERROR:
        return 500;
    default:
        return 503;
    }
}

static void header(struct buf *buf, const char *name, struct span value)
{
    buf_append_text(buf, name);
    buf_append(buf, ": ", 2);
    buf_append_span(buf, value);
    buf_append(buf, "\r\n", 2);
}

static void header_text(struct buf *buf, const char *name, const char *value)
{
    if (value != NULL)
        header(buf, name, span_of_text(value));
}

static void header_number(struct buf *buf, const char *name, uint64_t value)
{
    buf_append_text(buf, name);
    buf_append(buf, ": ", 2);
    buf_append_u64(buf, value);
    buf_append(buf, "\r\n", 2);
}

void http_reply(struct buf *buf, const struct http_reply *reply)
{
    bool bodiless = reply->http_status == 204 || reply->http_status == 304;
    assert(reply->http_status >= 200 && reply->http_status <= 599);
    assert(!bodiless || reply->body.size == 0);

    size_t start = buf->size;
    if (!buf_reserve(buf,
                     256 + reply->context.size + reply->trace.size + (reply->head ? 0 : reply->body.size)))
        return;
    buf_append_text(buf, "HTTP/1.1 ");
    buf_append_u64(buf, reply->http_status);
    buf_append(buf, " ", 1);
    buf_append_text(buf, http_status_reason(reply->http_status));
    buf_append(buf, "\r\n", 2);
    header_text(buf, "Content-Type", reply->content_type);
    if (!bodiless)
        header_number(buf, "Content-Length", reply->body.size);
    if (reply->context.size > 0)
        header(buf, "Rondo-Context", reply->context);
    if (reply->trace.size > 0)
        header(buf, "Rondo-Trace", reply->trace);
    if (reply->expiry_ms > 0)
        header_number(buf, "Rondo-Expiry-Ms", reply->expiry_ms);
    if (reply->retry_after_s > 0)
        header_number(buf, "Retry-After", reply->retry_after_s);
    header_text(buf, "Allow", reply->allow);
    header_text(buf, "Location", reply->location);
    if (!reply->keep_alive)
        header_text(buf, "Connection", "close");
    else if (reply->version_minor == 0)
        header_text(buf, "Connection", "keep-alive");
    buf_append(buf, "\r\n", 2);
    if (!reply->head)
        buf_append_span(buf, reply->body);
    /* Half an answer would be taken for part of the next. */
    if (buf->failed)
        buf->size = start;
}

void http_error_json(struct buf *buf, const struct http_error *error)
{
    buf_append_text(buf, "{\"error\":");
    json_put_string(buf, span_of_text(error->error));
    buf_append_text(buf, ",\"message\":");
    json_put_string(buf, error->message);
    if (error->counted) {
        buf_append_text(buf, ",\"needed\":");
        buf_append_u64(buf, error->needed);
        buf_append_text(buf, ",\"acks\":");
        buf_append_u64(buf, error->acks);
    }
    buf_append_text(buf, "}\n");
}

void http_reply_error(struct buf *buf, const struct http_reply *reply, const struct http_error *error)
{
    struct http_reply full = *reply;
    struct buf body;
    buf_init(&body, buf->alloc);
    http_error_json(&body, error);
    full.content_type = "application/json";
    full.body = buf_span(&body);
    if (body.failed)
        buf->failed = true;
    else
        http_reply(buf, &full);
    buf_free(&body);
}

void http_reply_continue(struct buf *buf)
{
    buf_append_text(buf, "HTTP/1.1 100 Continue\r\n\r\n");
}
