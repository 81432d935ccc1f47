/* HTTP/1.0 and 1.1 requests, over llhttp.
 *
 * A parser belongs to one connection and is pure. It is fed whatever arrived, consumes bytes up to the end of one
 * request and stops there, so pipelined requests are taken one by one. A request's fields are views that the
 * parser owns; they stay valid until http_parse is called again, so a request may be answered much later.
 *
 * Decoding. In the path "%XX" is a byte and '+' is a plus. In the query "%XX" is a byte, '+' is a space and "%2B"
 * a plus, as every client library's form encoding writes them (Python's requests, Go's url.Values, browsers). A
 * broken escape, a raw '#' and a parameter given twice are refused, never guessed at. */
#ifndef RONDO_PROTO_HTTP_H
#define RONDO_PROTO_HTTP_H

#include "base/limits.h"
#include "base/span.h"

/* Parameters of one request; no endpoint knows half as many. */
#define HTTP_PARAMETERS_MAX 16

/* A body buffer, or one of decoded text, past this size is given back after its request. */
#define HTTP_BUFFER_KEEP_BYTES_MAX (64u << 10)

struct http_limits {
    size_t target_bytes_max;  /* the request target; past it 414 */
    size_t headers_bytes_max; /* header names and values (and trailers) together; past it 431 */
    size_t body_bytes_max;    /* past it 413, told from Content-Length before the body is read */
};

enum http_method {
    HTTP_METHOD_OTHER = 0,
    HTTP_METHOD_GET,
    HTTP_METHOD_HEAD,
    HTTP_METHOD_PUT,
    HTTP_METHOD_POST,
    HTTP_METHOD_DELETE,
    HTTP_METHOD_OPTIONS,
};

struct http_parameter {
    struct span name; /* decoded */
    struct span value;
};

struct http_request {
    enum http_method method;
    uint8_t version_minor; /* HTTP/1.0 or HTTP/1.1 */
    bool keep_alive;       /* what the client asks for, by the rules of its version */
    bool body_announced;   /* Content-Length or chunked was given, perhaps of no bytes */
    struct span method_text;
    struct span target; /* as sent */
    struct span path;   /* decoded, without the query */
    struct span body;
    struct span context; /* Rondo-Context; empty when absent, as the following */
    struct span trace;   /* Rondo-Trace */
    struct span content_type;
    uint32_t parameters_count;
    struct http_parameter parameters[HTTP_PARAMETERS_MAX];
};

struct http_progress {
    size_t consumed;      /* bytes of the input that were used; all of them unless OK or an error */
    bool send_continue;   /* MORE: the client waits for "HTTP/1.1 100 Continue\r\n\r\n"; told once */
    uint16_t http_status; /* an error: the status to answer with before closing */
    struct span error;    /* an error: a sentence for people, valid until the next call */
};

struct http_parser;

/* NULL past the budget. */
struct http_parser *http_parser_new(struct alloc *alloc, const struct http_limits *limits);

/* NULL is ignored. */
void http_parser_free(struct http_parser *parser);

/* Feeds bytes; they are not needed afterwards. After OK the next call begins the next request.
 * OK: a request is complete (http_parser_request). MORE: feed the bytes that follow. MALFORMED (400, 417, 505),
 * TOO_LARGE (413, 414, 431), OVERLOADED (503): answer with http_status, then close; the parser is of no further
 * use. */
MUST_CHECK enum status http_parse(struct http_parser *parser, struct span input,
                                  struct http_progress *progress);

/* The request of the last OK. */
const struct http_request *http_parser_request(const struct http_parser *parser);

/* Whether a request has begun and is not complete (else an idle connection may be closed silently). */
bool http_parser_busy(const struct http_parser *parser);

#endif
