/* One HTTP request to one node, over libcurl. */
#ifndef RONDO_CLI_HTTP_CLIENT_H
#define RONDO_CLI_HTTP_CLIENT_H

#include <stdbool.h>

#include "base/span.h"

struct http_request {
    const char *method;
    const char *address; /* "host:port" */
    const char *target;  /* path and query, percent-encoded */
    bool has_body;
    struct span body; /* valid during the call */
};

enum http_fault {
    HTTP_FAULT_NONE = 0,
    HTTP_FAULT_CONNECT, /* nothing was sent */
    HTTP_FAULT_LOST,    /* the request may have been sent; no whole answer came */
    HTTP_FAULT_MEMORY,  /* the answer does not fit */
};

struct http_answer {
    enum http_fault fault;
    const char *fault_text; /* static storage; NULL without a fault */
    long status;
    long retry_after_s; /* 0 = not said */
    struct buf body;
    struct buf context; /* the Rondo-Context header */
    uint64_t expiry_ms; /* the Rondo-Expiry-Ms header; 0 = none */
};

/* Sends the request and waits for the answer, of whatever status. The answer is freed by http_answer_free. */
void http_send(struct alloc *alloc, const struct http_request *request, struct http_answer *answer);

void http_answer_free(struct http_answer *answer);

/* Appends bytes as a query's value: all but unreserved characters percent-encoded (RFC 3986, 2.3). */
void http_append_encoded(struct buf *buf, struct span bytes);

#endif
