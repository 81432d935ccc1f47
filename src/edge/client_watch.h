/* Which clients are cut off: those that do not take their answers, leave a request half sent, or are idle for longer
 * than they may be.
 *
 * No command arms a timer for that. Connections note what they did and when; a loop looks at a part of its connections
 * every WATCH_INTERVAL_MS, at each once in WATCH_PARTS of them, so a limit holds to about a second. Whoever is cut is
 * counted (rondo_clients_cut_total), and said in at most one line for each loop and second. */
#ifndef RONDO_EDGE_CLIENT_WATCH_H
#define RONDO_EDGE_CLIENT_WATCH_H

#include <stdatomic.h>

#include "base/timer.h"
#include "edge/conn.h"

#define WATCH_INTERVAL_MS 250
#define WATCH_PARTS 4
#define WATCH_SAY_INTERVAL_US 1000000u

/* A request that comes slowly goes on if so much of it came within the time for requests: a large value over a thin
 * line does, a byte now and then does not. */
#define WATCH_PROGRESS_BYTES (16u << 10)

enum client_cut {
    CUT_OUTPUT, /* its answers were not taken */
    CUT_REQUEST,
    CUT_IDLE,
    CUT_KINDS,
};

/* 0 = no limit. */
struct client_limits {
    uint32_t clients_max;
    uint32_t resp_idle_ms;
    uint32_t http_idle_ms;
    uint32_t request_ms; /* for a request that has begun to come whole, or to go on */
    uint32_t output_ms;  /* without a byte of the answers taken */
    uint64_t output_bytes_max;
};

/* Of all loops of a node. */
struct client_cuts {
    _Atomic uint64_t cut[CUT_KINDS];
    _Atomic uint64_t refused;
};

struct client_watch {
    struct timer timer;
    uint32_t part; /* looked at next */
    uint64_t said_us;
    uint32_t unsaid[CUT_KINDS];
    uint32_t refused_unsaid;
};

/* What is known of one client; times are monotonic. */
struct client_seen {
    uint64_t active_us;        /* it was opened, sent something, or was sent an answer */
    uint64_t request_us;       /* the request half sent began, or went on; 0 = there is none */
    uint64_t request_received; /* what the connection had received then */
    uint64_t taken_us;         /* the last byte of its answers was taken, or nothing waited */
    uint64_t taken;
    size_t told; /* of its unsent output, to the shard */
};

struct loop;
struct client_conn;

/* Begins to look. */
void client_watch_start(struct loop *loop);

/* LOOP_TIMER_WATCH. */
void client_watch_timer(struct loop *loop);

/* Ends the client for this reason, which `why` (static) says. */
void client_watch_cut(struct client_conn *client, enum client_cut kind, const char *why);

/* A client is ended for its output; the connection has failed already. */
void client_watch_overrun(struct client_conn *client);

/* A client was not accepted. */
void client_watch_refused(struct loop *loop);

/* Bytes came; partial: the last of them are the beginning of a request. */
void client_watch_heard(struct client_conn *client, bool partial);

/* An answer goes out. */
void client_watch_answered(struct client_conn *client);

#endif
