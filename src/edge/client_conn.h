/* Client connections of one loop.
 *
 * The shard sees each connection as EVENT_CLIENT_OPEN, data, and exactly one EVENT_CLIENT_CLOSED, also after it
 * ended the connection itself (EFFECT_CLIENT_SEND with flag). Ends of a connection:
 *  - the shard ends it: what it said is written, then our side is shut down; the client's bytes are read and thrown
 *    away until it closes too (CLIENT_LINGER_MS at most), so that no reset overtakes the last answer;
 *  - the client ends its side (a full close looks the same): the connection is closed as soon as every command is
 *    answered (the shard says so: "idle") and every answer written. No command lasts longer than its timeout, so who
 *    has heard nothing for the request timeout and CLIENT_ANSWER_MARGIN_MS more waits in vain; output in the way of
 *    that may take CLIENT_DRAIN_MS;
 *  - somebody ends it (CLIENT KILL): at once, with what was not sent;
 *  - it is too slow or idle for too long (edge/client_watch.h);
 *  - its unsent answers are past their bound, or there is no memory for answers and it holds the most of it;
 *  - anything else that fails ends it at once. */
#ifndef RONDO_EDGE_CLIENT_CONN_H
#define RONDO_EDGE_CLIENT_CONN_H

#include "base/timer.h"
#include "edge/client_watch.h"
#include "edge/conn.h"
#include "shard/shard.h"

#define CLIENT_LINGER_MS 1000
#define CLIENT_ANSWER_MARGIN_MS 1000
#define CLIENT_DRAIN_MS 30000

/* Connections of one loop: what fits the index part of a connection's number. */
#define CLIENT_INDEX_BITS 20
#define CLIENTS_PER_LOOP_MAX (1u << CLIENT_INDEX_BITS)

struct loop;

enum client_state {
    CLIENT_OPEN = 1,
    CLIENT_ENDING,    /* the shard ended it; its last output is being written */
    CLIENT_LINGERING, /* our side is shut down; waiting for the client to close */
    CLIENT_GONE,      /* closing */
};

struct client_conn {
    struct conn conn;
    struct loop *loop;
    uint64_t id;
    enum client_protocol protocol;
    enum client_state state;
    bool told_closed;
    bool idle;                /* every command read so far is answered */
    bool turn_over;           /* since bytes were last passed a turn has ended: what it answered was sent */
    bool resumed;             /* EFFECT_CLIENT_RESUME came and is not yet acted upon */
    bool given_up;            /* the linger time is over */
    uint64_t drain_until_us;  /* after the client's end: 0 = not ended */
    struct list_link leaving; /* in client_conns: it has sent its end, and a turn must end before it goes */
    struct client_seen seen;
    struct timer timer;
    uv_shutdown_t shutdown;
};

struct client_conns {
    struct client_conn **slots; /* by the index part of their numbers; NULL = free */
    uint32_t *free;             /* stack of free indices */
    uint32_t free_count;
    uint32_t capacity;
    uint32_t count;
    uint64_t serial;
    struct list_link leaving;
};

void client_conns_init(struct client_conns *clients);

/* A connection waits on the listening socket: takes it, or refuses it past the node's bound. */
void client_conn_accept(struct loop *loop, uv_stream_t *listener, enum client_protocol protocol);

/* The last bytes that an open client gets. */
void client_conn_say_last(struct client_conn *client, struct span bytes);

/* EFFECT_CLIENT_SEND. Nothing happens if the client is gone. */
void client_conn_send(struct loop *loop, const struct effect *effect);

/* What the turn gathered for clients was sent: those that have sent their end may go. */
void client_conns_turn_ended(struct loop *loop);

/* EFFECT_CLIENT_RESUME: reads on, and passes what was kept again. */
void client_conn_resume(struct loop *loop, uint64_t id);

/* EFFECT_CLIENT_DROP. Nothing happens if the client is gone. */
void client_conn_drop(struct loop *loop, uint64_t id);

/* LOOP_TIMER_CLIENT. */
void client_conn_timer(struct client_conn *client);

/* Reads no further commands. */
void client_conns_stop(struct loop *loop);
void client_conns_close(struct loop *loop);
/* Whether every answer was written. */
bool client_conns_drained(const struct loop *loop);
void client_conns_free(struct loop *loop);

#endif
