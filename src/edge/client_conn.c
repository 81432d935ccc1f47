/* Client connections. */
#include "edge/client_conn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "edge/loop.h"
#include "edge/say.h"

/* A number is serial | index | shard: never reused, found without a search, unique in the node. */
#define ID_SHARD_BITS 6
_Static_assert(SHARDS_MAX <= 1u << ID_SHARD_BITS, "a shard's number fits");

/* Commands have arguments besides the value: many keys, or many small values. */
#define COMMAND_BYTES_MAX ((size_t)64 << 20)

static const char refusal_resp[] = "-ERR max number of clients reached\r\n";
#define HTTP_503                                                                               \
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n" \
    "Connection: close\r\n"
static const char refusal_http[] = HTTP_503
    "Content-Length: 64\r\n\r\n{\"error\":\"OVERLOADED\",\"message\":\"max number of clients reached\"}";

/* A command that does not fit the memory for connections. */
static const char overflow_resp[] = "-OVERLOADED no memory for this command; try again later\r\n";
static const char overflow_http[] = HTTP_503
    "Content-Length: 61\r\n\r\n{\"error\":\"OVERLOADED\",\"message\":\"no memory for this request\"}";

static void client_conn_closed(struct conn *conn);

void client_conns_init(struct client_conns *clients)
{
    list_init(&clients->leaving);
}

static struct client_conn *client_conn_of(struct conn *conn)
{
    return LIST_ENTRY(conn, struct client_conn, conn);
}

/* ---- numbers -------------------------------------------------------------------------------------------- */

static struct client_conn *client_conn_find(struct loop *loop, uint64_t id)
{
    struct client_conns *clients = &loop->clients;
    uint32_t index = (uint32_t)(id >> ID_SHARD_BITS) & ((1u << CLIENT_INDEX_BITS) - 1);
    if (index >= clients->capacity || clients->slots[index] == NULL || clients->slots[index]->id != id)
        return NULL;
    return clients->slots[index];
}

/* Doubles the table. False without memory. */
static bool client_conns_grow(struct loop *loop)
{
    struct client_conns *clients = &loop->clients;
    uint32_t capacity = clients->capacity == 0 ? 64 : clients->capacity * 2;
    if (capacity > CLIENTS_PER_LOOP_MAX)
        return false;
    struct client_conn **slots = alloc_get_zeroed(&loop->alloc, capacity * sizeof *slots);
    uint32_t *free_slots = alloc_get(&loop->alloc, capacity * sizeof *free_slots);
    if (slots == NULL || free_slots == NULL) {
        alloc_put(&loop->alloc, slots, capacity * sizeof *slots);
        alloc_put(&loop->alloc, free_slots, capacity * sizeof *free_slots);
        return false;
    }
    assert(clients->free_count == 0);
    for (uint32_t i = 0; i < clients->capacity; i++)
        slots[i] = clients->slots[i];
    for (uint32_t i = capacity; i > clients->capacity; i--)
        free_slots[clients->free_count++] = i - 1;
    alloc_put(&loop->alloc, clients->slots, clients->capacity * sizeof *clients->slots);
    alloc_put(&loop->alloc, clients->free, clients->capacity * sizeof *clients->free);
    clients->slots = slots;
    clients->free = free_slots;
    clients->capacity = capacity;
    return true;
}

static bool client_conn_number(struct loop *loop, struct client_conn *client)
{
    struct client_conns *clients = &loop->clients;
    if (clients->free_count == 0 && !client_conns_grow(loop))
        return false;
    uint32_t index = clients->free[--clients->free_count];
    clients->slots[index] = client;
    clients->count++;
    client->id = ++clients->serial << (CLIENT_INDEX_BITS + ID_SHARD_BITS) | (uint64_t)index << ID_SHARD_BITS |
                 loop->number;
    return true;
}

static void client_conn_forget(struct client_conn *client)
{
    struct client_conns *clients = &client->loop->clients;
    uint32_t index = (uint32_t)(client->id >> ID_SHARD_BITS) & ((1u << CLIENT_INDEX_BITS) - 1);
    assert(clients->slots[index] == client);
    clients->slots[index] = NULL;
    clients->free[clients->free_count++] = index;
    clients->count--;
}

/* ---- ending --------------------------------------------------------------------------------------------- */

static void tell_closed(struct client_conn *client)
{
    struct event event = {.kind = EVENT_CLIENT_CLOSED, .client = client->id};
    if (client->told_closed)
        return;
    client->told_closed = true;
    loop_step(client->loop, &event);
}

static void client_conn_close(struct client_conn *client)
{
    if (client->state == CLIENT_GONE)
        return;
    client->state = CLIENT_GONE;
    list_remove(&client->leaving);
    timer_disarm(&client->loop->timers, &client->timer);
    conn_close(&client->conn);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct client_conn *client = request->data;
    if (status < 0 && status != UV_ECANCELED)
        conn_fail(&client->conn, "its end could not be sent");
}

/* All is said: shuts our side down and waits for the client to close. */
static void start_to_linger(struct client_conn *client)
{
    client->state = CLIENT_LINGERING;
    client->shutdown.data = client;
    client->conn.pauses = 0;
    conn_start(&client->conn);
    conn_resume(&client->conn, CONN_PAUSE_OUTPUT);
    if (client->conn.ended || !loop_arm(client->loop, &client->timer, LOOP_TIMER_CLIENT, CLIENT_LINGER_MS) ||
        uv_shutdown(&client->shutdown, (uv_stream_t *)&client->conn.tcp, on_shutdown) != 0)
        client_conn_close(client);
}

/* Whether a client that has sent its end got all that it asked for: nothing it sent waits to be passed to the shard,
 * or to be answered, or to be sent at the end of the turn. */
static bool served(const struct client_conn *client)
{
    return client->conn.ended && client->idle && client->turn_over &&
           (client->conn.pauses & CONN_PAUSE_SHARD) == 0;
}

static void client_conn_settle(struct conn *conn)
{
    struct client_conn *client = client_conn_of(conn);
    if (client->state == CLIENT_GONE)
        return;
    if (conn->failure != NULL) {
        if (conn->overrun)
            client_watch_overrun(client);
        loop_say(client->loop, SAY_DEBUG, "a client's connection is lost: %s", conn->failure);
        tell_closed(client);
        client_conn_close(client);
        return;
    }
    /* Who does not take its answers gets no further ones made, not even for what was read already. */
    bool may_go_on = (conn->pauses & CONN_PAUSE_OUTPUT) == 0;
    if (client->resumed && may_go_on && client->state == CLIENT_OPEN) {
        client->resumed = false;
        conn_resume(conn, CONN_PAUSE_SHARD);
        conn_deliver_kept(conn);
    }
    if (conn_output_bytes(conn) > 0)
        return;
    if (client->state == CLIENT_ENDING) {
        tell_closed(client);
        if (conn->failure == NULL)
            start_to_linger(client);
        else
            client_conn_close(client);
    } else if (client->given_up || (client->state == CLIENT_LINGERING && conn->ended) ||
               (client->state == CLIENT_OPEN && served(client))) {
        tell_closed(client);
        client_conn_close(client);
    }
}

/* Waits for further answers to a client that has sent its end. */
static void await_answers(struct client_conn *client)
{
    uint64_t wait_ms = (uint64_t)client->loop->shared->request_timeout_ms + CLIENT_ANSWER_MARGIN_MS;
    if (!loop_arm(client->loop, &client->timer, LOOP_TIMER_CLIENT, wait_ms))
        conn_fail(&client->conn, "no memory for a timer");
}

/* It has sent its end: it goes at the end of this turn if it is served, or else with an answer. */
static void leave_with_turn(struct client_conn *client)
{
    client->turn_over = false;
    if (list_empty(&client->leaving))
        list_push_back(&client->loop->clients.leaving, &client->leaving);
    await_answers(client);
    conn_settle_later(&client->conn); /* so that a turn ends */
}

void client_conns_turn_ended(struct loop *loop)
{
    struct list_link *link;
    while ((link = list_pop_front(&loop->clients.leaving)) != NULL) {
        struct client_conn *client = LIST_ENTRY(link, struct client_conn, leaving);
        client->turn_over = true;
        conn_settle_later(&client->conn);
    }
}

void client_conn_timer(struct client_conn *client)
{
    uint64_t now_us = loop_now(client->loop).mono_us;
    bool draining = client->state == CLIENT_OPEN && conn_output_bytes(&client->conn) > 0;
    if (draining && now_us < client->drain_until_us) {
        await_answers(client);
        return;
    }
    client->given_up = true;
    if (draining && client->conn.failure == NULL)
        client->conn.overrun = true;
    if (draining || client->state == CLIENT_LINGERING)
        conn_fail(&client->conn, "the client did not take its answers or close in time");
    conn_settle_later(&client->conn);
}

/* ---- data ----------------------------------------------------------------------------------------------- */

static void client_conn_bytes(struct conn *conn, struct span bytes, size_t *consumed, size_t *need)
{
    struct client_conn *client = client_conn_of(conn);
    struct event event = {
        .kind = EVENT_CLIENT_DATA, .client = client->id, .protocol = client->protocol, .bytes = bytes};
    client->resumed = false;
    loop_step(client->loop, &event);
    client->idle = event.idle;
    client_watch_heard(client, event.partial);
    *consumed = event.consumed;
    *need = event.need;
    if (event.paused)
        conn_pause(conn, CONN_PAUSE_SHARD); /* client_conn_settle takes it back if it is resumed already */
    if (conn->ended && client->state == CLIENT_OPEN)
        leave_with_turn(client);
}

static void client_conn_end(struct conn *conn)
{
    struct client_conn *client = client_conn_of(conn);
    client->drain_until_us = loop_now(client->loop).mono_us + UINT64_C(1000) * CLIENT_DRAIN_MS;
    if (client->state == CLIENT_OPEN)
        leave_with_turn(client);
    else
        conn_settle_later(conn);
}

void client_conn_say_last(struct client_conn *client, struct span bytes)
{
    conn_send(&client->conn, bytes);
    client->state = CLIENT_ENDING;
    client->conn.discard = true;
    timer_disarm(&client->loop->timers, &client->timer);
    conn_settle_later(&client->conn);
}

void client_conn_send(struct loop *loop, const struct effect *effect)
{
    struct client_conn *client = client_conn_find(loop, effect->client);
    if (client == NULL || client->state != CLIENT_OPEN)
        return;
    client->idle = effect->idle;
    client_watch_answered(client);
    if (effect->flag) {
        client_conn_say_last(client, effect->bytes);
        return;
    }
    conn_send(&client->conn, effect->bytes);
    if (client->conn.ended) {
        await_answers(client);
        conn_settle_later(&client->conn);
    }
}

/* Says that its input does not fit, and ends it: what follows cannot be understood any more. */
static void client_conn_overflow(struct conn *conn)
{
    struct client_conn *client = client_conn_of(conn);
    bool http = client->protocol == CLIENT_HTTP;
    if (client->state == CLIENT_OPEN)
        client_conn_say_last(client, http ? span_of(overflow_http, sizeof overflow_http - 1)
                                          : span_of(overflow_resp, sizeof overflow_resp - 1));
}

/* No memory for an answer: whoever holds most of it for answers that it does not take must go. False: that is the
 * one who asks. */
static bool client_conn_starved(struct conn *conn)
{
    const struct client_conns *clients = &client_conn_of(conn)->loop->clients;
    struct conn *greatest = conn;
    for (uint32_t i = 0; i < clients->capacity; i++) {
        struct client_conn *client = clients->slots[i];
        if (client != NULL && client->conn.waiting.capacity > greatest->waiting.capacity)
            greatest = &client->conn;
    }
    if (greatest == conn)
        return false;
    if (greatest->failure == NULL)
        greatest->overrun = true;
    conn_fail(greatest, "others need the memory of its unsent output");
    conn_drop_output(greatest);
    return true;
}

void client_conn_resume(struct loop *loop, uint64_t id)
{
    struct client_conn *client = client_conn_find(loop, id);
    if (client == NULL || client->state != CLIENT_OPEN)
        return;
    client->resumed = true;
    conn_settle_later(&client->conn);
}

void client_conn_drop(struct loop *loop, uint64_t id)
{
    struct client_conn *client = client_conn_find(loop, id);
    if (client == NULL || client->state == CLIENT_GONE)
        return;
    conn_fail(&client->conn, "somebody ended it");
    conn_drop_output(&client->conn);
}

/* ---- life ----------------------------------------------------------------------------------------------- */

static const struct conn_handler handler = {
    .bytes = client_conn_bytes,
    .overflow = client_conn_overflow,
    .end = client_conn_end,
    .settle = client_conn_settle,
    .closed = client_conn_closed,
    .starved = client_conn_starved,
};

static void client_conn_closed(struct conn *conn)
{
    struct client_conn *client = client_conn_of(conn);
    struct loop *loop = client->loop;
    if (client->id != 0) {
        client_conn_forget(client);
        atomic_fetch_sub_explicit(&loop->shared->clients_open, 1, memory_order_relaxed);
    }
    alloc_put(&loop->alloc, client, sizeof *client);
}

/* Says why not, and closes; without lingering, so that refusing costs little. */
static void refuse(struct client_conn *client)
{
    struct span text = client->protocol == CLIENT_HTTP ? span_of(refusal_http, sizeof refusal_http - 1)
                                                       : span_of(refusal_resp, sizeof refusal_resp - 1);
    client->told_closed = true;
    client_watch_refused(client->loop);
    conn_send(&client->conn, text);
    client_conn_close(client);
}

static bool admit(struct loop *loop, struct client_conn *client)
{
    struct loop_shared *shared = loop->shared;
    uint32_t open = atomic_fetch_add_explicit(&shared->clients_open, 1, memory_order_relaxed);
    if (open < shared->limits.clients_max && !loop->stopping && client_conn_number(loop, client))
        return true;
    atomic_fetch_sub_explicit(&shared->clients_open, 1, memory_order_relaxed);
    return false;
}

/* "host:port", or nothing where the socket is gone already. */
static struct span address_text(const struct sockaddr_storage *address, char text[CLIENT_ADDRESS_BYTES_MAX])
{
    char host[INET6_ADDRSTRLEN];
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
    const struct sockaddr_in *four = (const struct sockaddr_in *)address;
    int size = 0;
    if (address->ss_family == AF_INET6 && uv_ip6_name(six, host, sizeof host) == 0)
        size = snprintf(text, CLIENT_ADDRESS_BYTES_MAX, "[%s]:%u", host, ntohs(six->sin6_port));
    else if (address->ss_family == AF_INET && uv_ip4_name(four, host, sizeof host) == 0)
        size = snprintf(text, CLIENT_ADDRESS_BYTES_MAX, "%s:%u", host, ntohs(four->sin_port));
    return span_of(text, size > 0 ? (size_t)size : 0);
}

static void tell_opened(struct client_conn *client)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_storage local = {0};
    char address_room[CLIENT_ADDRESS_BYTES_MAX];
    char local_room[CLIENT_ADDRESS_BYTES_MAX];
    int size = sizeof address;
    int descriptor = -1;
    (void)uv_tcp_getpeername(&client->conn.tcp, (struct sockaddr *)&address, &size);
    size = sizeof local;
    (void)uv_tcp_getsockname(&client->conn.tcp, (struct sockaddr *)&local, &size);
    (void)uv_fileno((uv_handle_t *)&client->conn.tcp, &descriptor);
    const struct client_origin origin = {
        .address = address_text(&address, address_room),
        .local = address_text(&local, local_room),
        .descriptor = descriptor,
    };
    struct event event = {
        .kind = EVENT_CLIENT_OPEN, .client = client->id, .protocol = client->protocol, .origin = &origin};
    loop_step(client->loop, &event);
}

void client_conn_accept(struct loop *loop, uv_stream_t *listener, enum client_protocol protocol)
{
    struct client_conn *client = alloc_get_zeroed(&loop->alloc, sizeof *client);
    size_t value_bytes = loop->shared->value_bytes_max;
    if (client == NULL)
        say_and_exit(&loop->shared->say, loop->number,
                     span_of_text("out of memory for a connection; ending"));
    client->loop = loop;
    client->protocol = protocol;
    client->state = CLIENT_OPEN;
    client->idle = true;
    client->seen.active_us = loop_now(loop).mono_us;
    list_init(&client->leaving);
    if (conn_init(&client->conn, &loop->pool, &handler, COMMAND_BYTES_MAX + value_bytes,
                  loop->shared->limits.output_bytes_max + value_bytes) != 0) {
        alloc_put(&loop->alloc, client, sizeof *client);
        return;
    }
    /* Clients may fill half of it: the other nodes' frames must still get through then. */
    client->conn.leave_free = loop->pool.alloc.budget_bytes / 2;
    if (uv_accept(listener, (uv_stream_t *)&client->conn.tcp) != 0) {
        client_conn_close(client);
        return;
    }
    if (!admit(loop, client)) {
        refuse(client);
        return;
    }
    uv_tcp_nodelay(&client->conn.tcp, 1);
    uv_tcp_keepalive(&client->conn.tcp, 1, 60);
    tell_opened(client);
    conn_start(&client->conn);
}

void client_conns_stop(struct loop *loop)
{
    for (uint32_t i = 0; i < loop->clients.capacity; i++) {
        if (loop->clients.slots[i] != NULL)
            conn_pause(&loop->clients.slots[i]->conn, CONN_PAUSE_STOPPING);
    }
}

void client_conns_close(struct loop *loop)
{
    for (uint32_t i = 0; i < loop->clients.capacity; i++) {
        if (loop->clients.slots[i] != NULL)
            client_conn_close(loop->clients.slots[i]);
    }
}

bool client_conns_drained(const struct loop *loop)
{
    for (uint32_t i = 0; i < loop->clients.capacity; i++) {
        const struct client_conn *client = loop->clients.slots[i];
        if (client != NULL && client->state != CLIENT_GONE && conn_output_bytes(&client->conn) > 0)
            return false;
    }
    return true;
}

void client_conns_free(struct loop *loop)
{
    struct client_conns *clients = &loop->clients;
    assert(clients->count == 0);
    alloc_put(&loop->alloc, clients->slots, clients->capacity * sizeof *clients->slots);
    alloc_put(&loop->alloc, clients->free, clients->capacity * sizeof *clients->free);
}
