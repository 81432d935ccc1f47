/* Limits of clients in time, and what is said of those that are cut off. */
#include "edge/client_watch.h"

#include <assert.h>

#include "edge/loop.h"

static const char timeout_http[] =
    "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
    "Content-Length: 75\r\n\r\n"
    "{\"error\":\"TIMEOUT\",\"message\":\"the request did not come whole in its time\"}\n";
_Static_assert(sizeof "{\"error\":\"TIMEOUT\",\"message\":\"the request did not come whole in its time\"}\n" -
                       1 ==
                   75,
               "the length that the head says");

/* ---- counting and saying -------------------------------------------------------------------------------- */

/* One line for all that happened since the last. */
static void say_cuts(struct loop *loop)
{
    struct client_watch *watch = &loop->watch;
    uint64_t now_us = loop_now(loop).mono_us;
    uint32_t count = watch->refused_unsaid;
    for (unsigned kind = 0; kind < CUT_KINDS; kind++)
        count += watch->unsaid[kind];
    if (count == 0 || (watch->said_us != 0 && now_us - watch->said_us < WATCH_SAY_INTERVAL_US))
        return;
    loop_say(
        loop, SAY_WARNING,
        "clients cut off: %u did not take their answers, %u left a request half sent, %u were idle; %u were "
        "refused",
        watch->unsaid[CUT_OUTPUT], watch->unsaid[CUT_REQUEST], watch->unsaid[CUT_IDLE],
        watch->refused_unsaid);
    *watch = (struct client_watch){.timer = watch->timer, .part = watch->part, .said_us = now_us};
}

static void count_cut(struct loop *loop, enum client_cut kind)
{
    atomic_fetch_add_explicit(&loop->shared->cuts.cut[kind], 1, memory_order_relaxed);
    loop->watch.unsaid[kind]++;
}

void client_watch_refused(struct loop *loop)
{
    atomic_fetch_add_explicit(&loop->shared->cuts.refused, 1, memory_order_relaxed);
    loop->watch.refused_unsaid++;
}

void client_watch_overrun(struct client_conn *client)
{
    count_cut(client->loop, CUT_OUTPUT);
}

void client_watch_cut(struct client_conn *client, enum client_cut kind, const char *why)
{
    struct conn *conn = &client->conn;
    if (conn->failure != NULL)
        return;
    count_cut(client->loop, kind);
    bool alone = client->idle && conn_output_bytes(conn) == 0;
    if (kind == CUT_REQUEST && client->protocol == CLIENT_HTTP && alone)
        client_conn_say_last(client, span_of(timeout_http, sizeof timeout_http - 1));
    else
        conn_fail(conn, why);
}

/* ---- noting --------------------------------------------------------------------------------------------- */

void client_watch_heard(struct client_conn *client, bool partial)
{
    struct client_seen *seen = &client->seen;
    seen->active_us = loop_now(client->loop).mono_us;
    if (!partial) {
        seen->request_us = 0;
    } else if (seen->request_us == 0) {
        seen->request_us = seen->active_us;
        seen->request_received = client->conn.received;
    }
}

void client_watch_answered(struct client_conn *client)
{
    struct client_seen *seen = &client->seen;
    seen->active_us = loop_now(client->loop).mono_us;
    /* What was asked for is answered: what is half sent now has begun since. */
    if (seen->request_us != 0) {
        seen->request_us = seen->active_us;
        seen->request_received = client->conn.received;
    }
}

/* ---- looking -------------------------------------------------------------------------------------------- */

static bool past(uint64_t now_us, uint64_t since_us, uint32_t limit_ms)
{
    return limit_ms != 0 && now_us - since_us > (uint64_t)limit_ms * 1000;
}

/* Its answers are taken, be it slowly. */
static void look_at_output(struct client_conn *client, const struct client_limits *limits, uint64_t now_us)
{
    struct client_seen *seen = &client->seen;
    size_t waiting = conn_output_bytes(&client->conn);
    uint64_t taken = client->conn.queued - waiting;
    if (waiting == 0 || taken != seen->taken || seen->taken_us == 0) {
        seen->taken = taken;
        seen->taken_us = now_us;
    } else if (past(now_us, seen->taken_us, limits->output_ms)) {
        client_watch_cut(client, CUT_OUTPUT, "the client did not take its answers in time");
    }
}

static void look_at_input(struct client_conn *client, const struct client_limits *limits, uint64_t now_us)
{
    struct client_seen *seen = &client->seen;
    uint32_t idle_ms = client->protocol == CLIENT_HTTP ? limits->http_idle_ms : limits->resp_idle_ms;
    if (client->state != CLIENT_OPEN)
        return;
    if (seen->request_us != 0) {
        uint64_t came = client->conn.received - seen->request_received;
        /* While we do not read, the time is ours, not the client's. */
        if (!conn_listens(&client->conn) || came >= WATCH_PROGRESS_BYTES) {
            seen->request_us = now_us;
            seen->request_received = client->conn.received;
        } else if (past(now_us, seen->request_us, limits->request_ms)) {
            client_watch_cut(client, CUT_REQUEST, "the client left a request half sent");
        }
    } else if (client->idle && conn_output_bytes(&client->conn) == 0 &&
               past(now_us, seen->active_us, idle_ms)) {
        client_watch_cut(client, CUT_IDLE, "the client was idle");
    }
}

/* Whoever lists clients hears how much of their answers waits: most have nothing, and cost nothing. */
static void tell_unsent(struct client_conn *client)
{
    size_t unsent = conn_output_bytes(&client->conn);
    if (unsent == client->seen.told || client->told_closed)
        return;
    client->seen.told = unsent;
    struct event event = {.kind = EVENT_CLIENT_UNSENT, .client = client->id, .sequence = unsent};
    loop_step(client->loop, &event);
}

static void look(struct client_conn *client, const struct client_limits *limits, uint64_t now_us)
{
    if (client->state == CLIENT_GONE || client->conn.failure != NULL)
        return;
    tell_unsent(client);
    look_at_output(client, limits, now_us);
    if (client->conn.failure == NULL)
        look_at_input(client, limits, now_us);
}

void client_watch_start(struct loop *loop)
{
    /* A heap without room for one timer is that of a node that cannot start. */
    bool armed = loop_arm(loop, &loop->watch.timer, LOOP_TIMER_WATCH, WATCH_INTERVAL_MS);
    assert(armed);
}

void client_watch_timer(struct loop *loop)
{
    struct client_watch *watch = &loop->watch;
    const struct client_conns *clients = &loop->clients;
    uint64_t now_us = loop_now(loop).mono_us;
    for (uint32_t i = watch->part; i < clients->capacity && !loop->stopping; i += WATCH_PARTS) {
        if (clients->slots[i] != NULL)
            look(clients->slots[i], &loop->shared->limits, now_us);
    }
    watch->part = (watch->part + 1) % WATCH_PARTS;
    say_cuts(loop);
    if (!loop->closing)
        client_watch_start(loop);
}
