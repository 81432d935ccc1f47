/* HTTP answers, appended to a struct buf. */
#ifndef RONDO_PROTO_HTTP_REPLY_H
#define RONDO_PROTO_HTTP_REPLY_H

#include "base/span.h"

struct http_reply {
    uint16_t http_status;
    uint8_t version_minor;    /* of the request: HTTP/1.0 needs "Connection: keep-alive" spelt out */
    bool keep_alive;          /* false: "Connection: close", and the caller closes */
    bool head;                /* the request was HEAD: all headers, no body */
    uint32_t retry_after_s;   /* 0 = no such header */
    const char *content_type; /* NULL = none, as the following */
    const char *allow;
    const char *location;
    struct span context; /* Rondo-Context; empty = none */
    struct span trace;   /* Rondo-Trace; likewise */
    uint64_t expiry_ms;  /* Rondo-Expiry-Ms, absolute; 0 = none */
    struct span body;
};

/* The whole answer. Content-Length is always given, except with 204 and 304. */
void http_reply(struct buf *buf, const struct http_reply *reply);

/* An error body: {"error":"UNAVAILABLE","message":"…","needed":2,"acks":1}. */
struct http_error {
    const char *error;   /* a status name */
    struct span message; /* a sentence for people */
    bool counted;        /* needed and acks apply */
    uint8_t needed;
    uint8_t acks;
};

/* The JSON of an error, with a line end. */
void http_error_json(struct buf *buf, const struct http_error *error);

/* An error answer: `reply` gives status, connection and headers; its content_type and body are ignored. Memory for
 * the body comes from buf's allocator. */
void http_reply_error(struct buf *buf, const struct http_reply *reply, const struct http_error *error);

/* The HTTP status of a failed operation: 504 only where the outcome is unknown; 503 and 507 where nothing was
 * applied and trying again can help; 4xx where the request must change. */
uint16_t http_status_of(enum status status);

/* "Not Found"; "Unknown" for codes that Rondo never sends. Static storage. */
const char *http_status_reason(uint16_t http_status);

/* "HTTP/1.1 100 Continue\r\n\r\n" */
void http_reply_continue(struct buf *buf);

#endif
