/* One shard's loop: turns what happens in the world into events, and effects into what happens.
 *
 * An iteration of libuv is a turn of the shard (shard.h). Every callback steps the shard at once, with the one clock
 * reading of the iteration; what a step emits is carried out before the next step. After polling, a uv_check ends
 * the turn; a uv_prepare does so before the next poll if anything was stepped outside of it. One uv_timer stands for
 * the earliest of the shard's deadline and the edge's own (lingering clients, greetings, reconnects).
 *
 * Invariant: the shard is stepped neither while effects are carried out nor by another thread than the loop's.
 * Nothing of a loop but its inbox and its uv_async is touched by other threads. */
#ifndef RONDO_EDGE_LOOP_H
#define RONDO_EDGE_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "base/timer.h"
#include "edge/client_conn.h"
#include "edge/conn.h"
#include "edge/data_dir.h"
#include "edge/datagram.h"
#include "edge/facts.h"
#include "edge/inbox.h"
#include "edge/link_conn.h"
#include "edge/listener.h"
#include "edge/peer_conn.h"
#include "edge/say.h"
#include "edge/scan_work.h"
#include "edge/work.h"
#include "shard/shard.h"

/* How long requests in flight may still take once the node was told to stop. */
#define STOP_WAIT_MS 2000

/* Kinds of the edge's timers (struct timer.kind). */
enum loop_timer {
    LOOP_TIMER_CLIENT = 1, /* struct client_conn: lingered, or waited for answers, long enough */
    LOOP_TIMER_LINK,       /* struct link_conn: its greeting took too long */
    LOOP_TIMER_PEER,  /* struct peer_conn: connect, give up connecting or being greeted, or it has held */
    LOOP_TIMER_FLUSH, /* struct work: try the flush again */
    LOOP_TIMER_META,  /* struct work: try the meta file again */
    LOOP_TIMER_FACTS, /* struct facts: gather them anew */
    LOOP_TIMER_WATCH, /* struct loop: look at a part of the clients */
    LOOP_TIMER_STOP,  /* struct loop: requests in flight had their time */
};

enum loop_listener {
    LISTENER_RESP,
    LISTENER_HTTP,
    LISTENER_PEER, /* shard 0 only */
    LISTENER_KINDS,
};

/* What all loops of a node share; nothing in it changes while they run but what is atomic. */
struct loop_shared {
    struct loop *loops; /* one per shard */
    uint16_t shards;
    struct data_dir *dir;
    struct log_thread *log;
    struct say_sink say;
    struct client_limits limits;
    struct client_cuts cuts;
    uint32_t key_bytes_max;
    uint32_t value_bytes_max;
    uint32_t request_timeout_ms;
    _Atomic uint32_t clients_open; /* over all loops: the bound is the node's */
    size_t resident_max;           /* what the process should take at most; 0 = it is not looked at */
    _Atomic size_t resident_over;  /* what rows give up for what nobody counts (facts.c) */
};

struct loop {
    uint16_t number; /* the shard's */
    struct loop_shared *shared;
    struct shard *shard;
    struct inbox inbox;
    pthread_t thread;

    uv_loop_t uv;
    uv_async_t wake;
    uv_timer_t timer;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_signal_t signals[2]; /* shard 0: SIGTERM, SIGINT */
    uv_tcp_t listeners[LISTENER_KINDS][LISTENER_ADDRESSES_MAX];
    uint16_t listener_counts[LISTENER_KINDS];

    struct alloc alloc; /* of what is not connection buffers: effects, timers, connections */
    struct effects effects;
    struct timer_heap timers;
    struct now now;
    bool now_read;     /* the clock was read in this iteration */
    bool stepped;      /* something was stepped since the last EVENT_TURN_END */
    bool performing;   /* effects are being carried out */
    bool appended;     /* to the log, and log_thread_write was not called since */
    uint64_t armed_us; /* when the uv_timer fires; UINT64_MAX = not armed */

    struct conn_pool pool;
    struct client_conns clients;
    struct client_watch watch;
    struct peer_conns peers;
    struct link_conns links;
    struct datagrams datagrams; /* shard 0 */
    struct work work;
    struct facts facts; /* shard 0 */
    struct scan_work scans;

    _Atomic size_t buffer_bytes; /* of the pool, for those who look */
    bool stopping;               /* nothing new is accepted or read */
    bool idle_told;              /* INBOX_IDLE was sent */
    bool closing;
    uint16_t idle_count; /* shard 0: shards that have ended their requests */
    struct timer stop_timer;
};

/* Prepares the loop of a recovered shard (owned by the caller). buffer_bytes_max bounds connection buffers.
 * Returns a libuv error. loop_free also after an error. */
int loop_init(struct loop *loop, struct loop_shared *shared, uint16_t number, size_t buffer_bytes_max);

/* Starts to listen on the loop's copy of the sockets. Returns a libuv error. */
int loop_listen(struct loop *loop, enum loop_listener kind, struct listener_sockets *sockets);

/* Runs until INBOX_CLOSE came and everything but `wake` is closed. On shard 0 it handles the signals. */
void loop_run(struct loop *loop);

/* Once no thread can push to its inbox any more. */
void loop_free(struct loop *loop);

/* Passes one event to the shard and carries out what it emits. Not while effects are carried out. */
void loop_step(struct loop *loop, struct event *event);

/* The iteration's clock reading. */
struct now loop_now(struct loop *loop);

/* Arms a timer delay_ms from now; a failure to (no memory) makes it fire at once instead: false. */
bool loop_arm(struct loop *loop, struct timer *timer, enum loop_timer kind, uint64_t delay_ms);

/* Tells the node's log. */
void loop_say(const struct loop *loop, enum say_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
