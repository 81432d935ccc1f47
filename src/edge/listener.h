/* Listening sockets: addresses, binding, and words for what goes wrong. */
#ifndef RONDO_EDGE_LISTENER_H
#define RONDO_EDGE_LISTENER_H

#include <uv.h>

#include "base/limits.h"
#include "base/span.h"

/* A host name may stand for several addresses; all are listened on. */
#define LISTENER_ADDRESSES_MAX 8
#define LISTENER_BACKLOG 511

/* Splits "host:port" or "[ipv6]:port"; both parts are terminated. BAD_REQUEST if it is neither. */
MUST_CHECK enum status listener_split(struct span address, char host[ADDRESS_BYTES_MAX], char port[8]);

/* Bound, not yet listening sockets for one address: `copies` of each of its addresses. */
struct listener_sockets {
    int descriptors[LISTENER_ADDRESSES_MAX * SHARDS_MAX]; /* all addresses of copy 0, of copy 1, ... */
    uint16_t copies;
    uint16_t addresses; /* per copy */
};

/* Binds `copies` sockets per address; more than one share the port (SO_REUSEPORT), and the kernel spreads clients
 * over them. A port that another process listens on is refused all the same. On an error nothing stays open and
 * `why` gets the sentence: "cannot listen on ADDRESS (FLAG): REASON; ADVICE". */
MUST_CHECK enum status listener_bind(struct listener_sockets *sockets, const char *address, const char *flag,
                                     uint16_t copies, struct buf *why);

/* Closes what was not handed over (descriptors of -1 were). */
void listener_close(struct listener_sockets *sockets);

/* Puts a libuv error of listener_open into the same words. */
void listener_describe(const char *address, const char *flag, int error, struct buf *why);

/* Hands the sockets of one copy to the loop and starts to listen. handles has room for LISTENER_ADDRESSES_MAX; their
 * data becomes `data`. *count says how many were opened, also on an error. Returns a libuv error. */
int listener_open(struct listener_sockets *sockets, uint16_t copy, uv_loop_t *uv, uv_tcp_t *handles,
                  void *data, uv_connection_cb callback, uint16_t *count);

#endif
