/* Many HTTP GETs at once, over libcurl's multi interface, on one thread. */
#ifndef RONDO_CLI_DUMP_FETCH_H
#define RONDO_CLI_DUMP_FETCH_H

#include "cli/http_curl.h"

struct fetch {
    CURL *curl; /* made by the first start, used again */
    bool busy;
    bool done;     /* it ended, and its answer was not looked at yet */
    uint16_t node; /* whom it asks, for its owner */
    struct http_request request;
    struct http_answer answer;
};

struct fetcher {
    CURLM *multi;
};

/* False: out of memory. */
bool fetcher_init(struct fetcher *fetcher);

/* After all of its fetches were freed. */
void fetcher_free(struct fetcher *fetcher);

void fetch_init(struct fetch *fetch, struct alloc *alloc);
void fetch_free(struct fetcher *fetcher, struct fetch *fetch);

/* Asks address ("host:port") for the target (path and query). If that cannot even be started, the fetch is done at
 * once with a fault. address must stay valid until the end. */
void fetch_start(struct fetcher *fetcher, struct fetch *fetch, const char *address, struct span target);

/* Moves all that can be moved, waiting for at most wait_ms; those that ended are then `done`. */
void fetcher_turn(struct fetcher *fetcher, int wait_ms);

#endif
