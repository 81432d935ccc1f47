/* The parts of one HTTP request over libcurl, for who runs several at once. */
#ifndef RONDO_CLI_HTTP_CURL_H
#define RONDO_CLI_HTTP_CURL_H

#include <curl/curl.h>

#include "cli/http_client.h"

/* An answer nothing has arrived for yet; freed by http_answer_free. */
void http_answer_init(struct http_answer *answer, struct alloc *alloc);

/* Sets everything but the headers of a body on a handle that is new or reset. request and answer must outlive the
 * transfer; libcurl copies the url. */
void http_prepare(CURL *curl, const struct http_request *request, const char *url,
                  struct http_answer *answer);

/* Fills in how the transfer ended. */
void http_conclude(CURL *curl, CURLcode code, struct http_answer *answer);

#endif
