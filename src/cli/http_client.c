/* One HTTP request to one node, over libcurl. Proxies are never used: a node is spoken to directly. */
#include "cli/http_client.h"

#include <stdlib.h>
#include <strings.h>

#include "cli/http_curl.h"

/* A node on the same network answers a connection at once or not at all. */
#define CONNECT_TIMEOUT_S 5L

/* An answer of which nothing moves for this long is lost; nodes end every request well before. */
#define SILENCE_MAX_S 60L

void http_append_encoded(struct buf *buf, struct span bytes)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < bytes.size; i++) {
        uint8_t byte = bytes.data[i];
        bool letter = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
        if (letter || (byte >= '0' && byte <= '9') || (byte != 0 && strchr("-._~", byte) != NULL)) {
            buf_append(buf, &byte, 1);
        } else {
            char encoded[3] = {'%', hex[byte >> 4], hex[byte & 15]};
            buf_append(buf, encoded, sizeof(encoded));
        }
    }
}

static size_t body_arrived(char *data, size_t unit, size_t count, void *context)
{
    struct http_answer *answer = context;
    buf_append(&answer->body, data, unit * count);
    return answer->body.failed ? 0 : unit * count;
}

/* If the header line is `name: value`, its value without blanks around it. */
static bool header_value(struct span line, const char *name, struct span *value)
{
    size_t name_size = strlen(name);
    if (line.size <= name_size || line.data[name_size] != ':' ||
        strncasecmp((const char *)line.data, name, name_size) != 0)
        return false;
    *value = span_of(line.data + name_size + 1, line.size - name_size - 1);
    while (value->size > 0 && (value->data[0] == ' ' || value->data[0] == '\t'))
        *value = span_of(value->data + 1, value->size - 1);
    while (value->size > 0 && strchr(" \t\r\n", value->data[value->size - 1]) != NULL)
        value->size--;
    return true;
}

static size_t header_arrived(char *data, size_t unit, size_t count, void *context)
{
    struct http_answer *answer = context;
    struct span line = span_of(data, unit * count);
    struct span value;
    if (header_value(line, "Rondo-Context", &value)) {
        buf_clear(&answer->context);
        buf_append_span(&answer->context, value);
    } else if (header_value(line, "Rondo-Expiry-Ms", &value)) {
        if (span_parse_u64(value, &answer->expiry_ms) != STATUS_OK)
            answer->expiry_ms = 0;
    } else if (header_value(line, "Retry-After", &value)) {
        uint64_t seconds = 0;
        if (span_parse_u64(value, &seconds) == STATUS_OK && seconds < 86400)
            answer->retry_after_s = (long)seconds;
    }
    return unit * count;
}

static void set_request(CURL *curl, const struct http_request *request, const char *url)
{
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, SILENCE_MAX_S);
    if (request->has_body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.size);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                         request->body.size > 0 ? (const char *)request->body.data : "");
    }
}

static enum http_fault fault_of(CURLcode code, const struct http_answer *answer)
{
    switch (code) {
    case CURLE_OK:
        return HTTP_FAULT_NONE;
    case CURLE_URL_MALFORMAT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return HTTP_FAULT_CONNECT;
    case CURLE_WRITE_ERROR:
        return answer->body.failed ? HTTP_FAULT_MEMORY : HTTP_FAULT_LOST;
    default:
        return HTTP_FAULT_LOST;
    }
}

void http_answer_init(struct http_answer *answer, struct alloc *alloc)
{
    *answer = (struct http_answer){.fault = HTTP_FAULT_NONE};
    buf_init(&answer->body, alloc);
    buf_init(&answer->context, alloc);
}

void http_prepare(CURL *curl, const struct http_request *request, const char *url, struct http_answer *answer)
{
    set_request(curl, request, url);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, body_arrived);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, header_arrived);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, answer);
}

void http_conclude(CURL *curl, CURLcode code, struct http_answer *answer)
{
    long connect_errno = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->status);
    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &connect_errno);
    answer->fault = fault_of(code, answer);
    /* A connection that could not be made within its timeout is no lost answer. */
    curl_off_t connect_us = 0;
    curl_easy_getinfo(curl, CURLINFO_CONNECT_TIME_T, &connect_us);
    if (code == CURLE_OPERATION_TIMEDOUT && connect_us == 0)
        answer->fault = HTTP_FAULT_CONNECT;
    if (answer->fault == HTTP_FAULT_CONNECT && connect_errno != 0)
        answer->fault_text = strerror((int)connect_errno);
    else if (answer->fault != HTTP_FAULT_NONE)
        answer->fault_text = curl_easy_strerror(code);
}

void http_send(struct alloc *alloc, const struct http_request *request, struct http_answer *answer)
{
    struct buf url;
    http_answer_init(answer, alloc);
    buf_init(&url, alloc);
    buf_append_text(&url, "http://");
    buf_append_text(&url, request->address);
    buf_append_text(&url, request->target);
    buf_append(&url, "", 1);

    CURL *curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/octet-stream");
    if (curl == NULL || headers == NULL || url.failed) {
        answer->fault = HTTP_FAULT_MEMORY;
        answer->fault_text = "out of memory";
    } else {
        http_prepare(curl, request, (const char *)url.data, answer);
        if (request->has_body)
            curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        http_conclude(curl, curl_easy_perform(curl), answer);
    }
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    buf_free(&url);
}

void http_answer_free(struct http_answer *answer)
{
    buf_free(&answer->body);
    buf_free(&answer->context);
}
