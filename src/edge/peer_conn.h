/* Outgoing connections to the other nodes: one per node and shard, kept up for as long as the process lives.
 *
 * A lost or refused connection is tried again after PEER_BACKOFF_MIN_MS, doubling to PEER_BACKOFF_MAX_MS, each with
 * jitter of up to a half; one that held for PEER_STABLE_MS starts over at the minimum, and so does an attempt that got
 * no answer at all within PEER_CONNECT_MS, because that wait was its backoff. The shard gets exactly one
 * EVENT_PEER_DOWN for each EVENT_PEER_UP, also after EFFECT_PEER_DROP. Bytes for a node without a connection are
 * dropped, and so are those past PEER_UNSENT_BYTES_MAX, with the connection: a stalled peer must not grow memory.
 * A peer that takes the connection and answers nothing to the shard's greeting within PEER_GREETING_MS is dropped too:
 * what the shard would say to it meanwhile would wait for an answer that never comes.
 * A peer whose host vanished is noticed by unacknowledged data (PEER_DEAD_MS), without traffic by keepalive.
 *
 * Once a broken network works again, a peer is reached within a second (`./dev faults`). So no wait may be much longer
 * than half of one: neither between two attempts nor, which the kernel would double each time, between two
 * transmissions: first of what opens a connection (an attempt lasts PEER_CONNECT_MS), then of data (thin streams repeat
 * them at an even pace until PEER_DEAD_MS is over). */
#ifndef RONDO_EDGE_PEER_CONN_H
#define RONDO_EDGE_PEER_CONN_H

#include "base/limits.h"
#include "base/prng.h"
#include "base/timer.h"
#include "edge/conn.h"

#define PEER_BACKOFF_MIN_MS 50
#define PEER_BACKOFF_MAX_MS 500
#define PEER_STABLE_MS 1000

/* Longer than any round trip of the kind that one cluster spans; shorter than the second after which the kernel would
 * repeat a lost SYN, so it is us who repeat it. */
#define PEER_CONNECT_MS 500

/* Outlasts heavy loss: at 30 % each way a transmission goes unacknowledged with probability 0.51, and the ten that fit
 * in here (one every 200 ms or so, see above) all do once in 840 times. */
#define PEER_DEAD_MS 2000
#define PEER_GREETING_MS 5000

/* An attempt that has waited longer for an answer is given up for another one when the node turns out to be there. */
#define PEER_REDIAL_MS 100

/* Unsent bytes to one peer: what a shard may gather for it in one turn. */
#define PEER_UNSENT_BYTES_MAX PEER_OUTPUT_BYTES_MAX

/* A greeting's answer: a header and a few fields, or a text that says why not. */
#define PEER_INPUT_BYTES_MAX ((size_t)1 << 20)

struct loop;

enum peer_state {
    PEER_WAITING = 1, /* for the backoff */
    PEER_RESOLVING,
    PEER_CONNECTING,
    PEER_UP,
    PEER_CLOSING, /* the handle closes; then it waits */
};

struct peer_conn {
    struct conn conn;
    struct loop *loop;
    uint64_t node;
    char host[ADDRESS_BYTES_MAX];
    char port[8];
    struct sockaddr_storage address; /* of the last attempt; AF_UNSPEC before the first */
    enum peer_state state;
    bool dropped;      /* EFFECT_PEER_DROP */
    bool greeted;      /* bytes came from the peer on this connection */
    bool told_failure; /* one line per outage; it ends once a connection has held */
    uint32_t backoff_ms;
    uint64_t attempted_us; /* when the last attempt began */
    struct timer timer;
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
};

struct peer_conns {
    struct peer_conn **items; /* ascending by node */
    uint32_t count;
    uint32_t capacity;
    bool stopping;
    struct prng prng; /* jitter */
};

void peer_conns_init(struct peer_conns *peers, uint64_t seed);

/* EFFECT_PEER_CONNECT: address is "host:port". Once per node. */
void peer_conn_connect(struct loop *loop, uint64_t node, struct span address);

/* EFFECT_PEER_SEND and EFFECT_PEER_DROP. */
void peer_conn_send(struct loop *loop, uint64_t node, struct span bytes);
void peer_conn_drop(struct loop *loop, uint64_t node);

/* Where the node was last dialled, or NULL; valid until the loop goes on. */
const struct sockaddr *peer_conn_address(const struct loop *loop, uint64_t node);

/* LOOP_TIMER_PEER. */
void peer_conn_timer(struct peer_conn *peer);

void peer_conns_close(struct loop *loop);
void peer_conns_free(struct loop *loop);

#endif
