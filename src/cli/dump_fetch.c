/* HTTP GETs at once. */
#include "cli/dump_fetch.h"

/* Connections to one node; more fetches than that wait for one. */
#define CONNECTIONS_PER_NODE 8L

bool fetcher_init(struct fetcher *fetcher)
{
    fetcher->multi = curl_multi_init();
    return fetcher->multi != NULL &&
           curl_multi_setopt(fetcher->multi, CURLMOPT_MAX_HOST_CONNECTIONS, CONNECTIONS_PER_NODE) == CURLM_OK;
}

void fetcher_free(struct fetcher *fetcher)
{
    if (fetcher->multi != NULL)
        curl_multi_cleanup(fetcher->multi);
}

void fetch_init(struct fetch *fetch, struct alloc *alloc)
{
    *fetch = (struct fetch){.busy = false};
    http_answer_init(&fetch->answer, alloc);
}

void fetch_free(struct fetcher *fetcher, struct fetch *fetch)
{
    if (fetch->busy)
        curl_multi_remove_handle(fetcher->multi, fetch->curl);
    if (fetch->curl != NULL)
        curl_easy_cleanup(fetch->curl);
    http_answer_free(&fetch->answer);
}

/* The handle, as new but with the answer's buffers kept. */
static bool make_ready(struct fetch *fetch)
{
    struct http_answer *answer = &fetch->answer;
    buf_clear(&answer->body);
    buf_clear(&answer->context);
    *answer = (struct http_answer){.body = answer->body, .context = answer->context};
    if (fetch->curl == NULL)
        fetch->curl = curl_easy_init();
    else
        curl_easy_reset(fetch->curl);
    return fetch->curl != NULL;
}

void fetch_start(struct fetcher *fetcher, struct fetch *fetch, const char *address, struct span target)
{
    struct buf url;
    bool started = make_ready(fetch);
    buf_init(&url, fetch->answer.body.alloc);
    buf_append_text(&url, "http://");
    buf_append_text(&url, address);
    buf_append_span(&url, target);
    buf_append(&url, "", 1);
    if (started && !url.failed) {
        fetch->request = (struct http_request){.method = "GET", .address = address};
        http_prepare(fetch->curl, &fetch->request, (const char *)url.data, &fetch->answer);
        curl_easy_setopt(fetch->curl, CURLOPT_PRIVATE, fetch);
        started = curl_multi_add_handle(fetcher->multi, fetch->curl) == CURLM_OK;
    }
    fetch->busy = started && !url.failed;
    fetch->done = !fetch->busy;
    if (fetch->done) {
        fetch->answer.fault = HTTP_FAULT_MEMORY;
        fetch->answer.fault_text = "out of memory";
    }
    buf_free(&url);
}

void fetcher_turn(struct fetcher *fetcher, int wait_ms)
{
    int running;
    int left;
    (void)curl_multi_poll(fetcher->multi, NULL, 0, wait_ms, NULL);
    (void)curl_multi_perform(fetcher->multi, &running);
    for (CURLMsg *message = curl_multi_info_read(fetcher->multi, &left); message != NULL;
         message = curl_multi_info_read(fetcher->multi, &left)) {
        struct fetch *fetch = NULL;
        if (message->msg != CURLMSG_DONE)
            continue;
        /* The message is gone once the handle is removed. */
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &fetch);
        curl_multi_remove_handle(fetcher->multi, fetch->curl);
        http_conclude(fetch->curl, code, &fetch->answer);
        fetch->busy = false;
        fetch->done = true;
    }
}
