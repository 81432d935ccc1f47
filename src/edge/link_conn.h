/* Incoming peer connections ("links").
 *
 * Shard 0 accepts them all, reads the greeting and hands each link to the shard that the sender asked for
 * (EFFECT_LINK_MOVE): the socket is duplicated, the old handle closed, and the duplicate and all unconsumed bytes
 * travel through the target's inbox, also when the target is shard 0 itself. A link keeps its number. The shard that
 * has it when it ends gets EVENT_LINK_CLOSED; shard 0 hears no more of one that it has moved. A link that is not
 * moved LINK_GREETING_MS after it was accepted is closed, and so is one whose greeting's answer could not be written
 * at once: the sender tries again. */
#ifndef RONDO_EDGE_LINK_CONN_H
#define RONDO_EDGE_LINK_CONN_H

#include "base/timer.h"
#include "edge/conn.h"
#include "edge/inbox.h"

#define LINK_GREETING_MS 5000

/* Links of a loop that have not finished their greeting: every shard of many nodes may connect at once, and a
 * greeting takes milliseconds. One more is closed; its sender tries again. */
#define LINKS_GREETING_MAX 1024

/* Only a greeting's answer is ever written on a link. */
#define LINK_OUTPUT_BYTES_MAX ((size_t)1 << 20)

struct loop;

struct link_conn {
    struct conn conn;
    struct loop *loop;
    struct list_link list;
    uint64_t id;
    uint64_t node; /* the sender; known once it is moved */
    uint16_t target;
    bool moving; /* leaves at the next settling */
    bool ending; /* the shard ended it */
    bool silent; /* the shard is not told of its end: another one has it */
    struct timer timer;
};

struct link_conns {
    struct list_link all;
    uint32_t greeting_count;
    uint64_t serial;
};

void link_conns_init(struct link_conns *links);
void link_conn_accept(struct loop *loop, uv_stream_t *listener);

/* EFFECT_LINK_SEND and EFFECT_LINK_MOVE; nothing happens if the link is gone. */
void link_conn_send(struct loop *loop, uint64_t id, struct span bytes, bool end);
void link_conn_move(struct loop *loop, uint64_t id, uint16_t shard, uint64_t node);

/* INBOX_LINK: a moved link arrives. */
void link_conn_arrive(struct loop *loop, const struct inbox_message *message);

/* Closes the socket of an INBOX_LINK that cannot be taken any more. */
void link_conn_discard(const struct inbox_message *message);

/* LOOP_TIMER_LINK. */
void link_conn_timer(struct link_conn *link);

void link_conns_close(struct loop *loop);

#endif
