/* Outgoing peer connections. */
#include "edge/peer_conn.h"

#include <assert.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "edge/listener.h"
#include "edge/loop.h"
#include "edge/say.h"

static void start_attempt(struct peer_conn *peer);

static struct peer_conn *peer_conn_of(struct conn *conn)
{
    return LIST_ENTRY(conn, struct peer_conn, conn);
}

/* The position of the node, or where it would be inserted. */
static uint32_t peer_conn_position(const struct peer_conns *peers, uint64_t node)
{
    uint32_t low = 0;
    uint32_t high = peers->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (peers->items[middle]->node < node)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct peer_conn *peer_conn_find(const struct peer_conns *peers, uint64_t node)
{
    uint32_t position = peer_conn_position(peers, node);
    if (position == peers->count || peers->items[position]->node != node)
        return NULL;
    return peers->items[position];
}

void peer_conns_init(struct peer_conns *peers, uint64_t seed)
{
    prng_seed(&peers->prng, seed);
}

/* ---- attempts ------------------------------------------------------------------------------------------- */

static void arm_peer(struct peer_conn *peer, uint64_t delay_ms)
{
    if (!loop_arm(peer->loop, &peer->timer, LOOP_TIMER_PEER, delay_ms))
        say_and_exit(&peer->loop->shared->say, peer->loop->number,
                     span_of_text("out of memory for a timer; ending"));
}

/* Waits for the backoff, with jitter so that nodes that lost one peer together do not return together. */
static void wait_to_retry(struct peer_conn *peer)
{
    struct peer_conns *peers = &peer->loop->peers;
    peer->state = PEER_WAITING;
    if (peers->stopping)
        return;
    uint64_t half = peer->backoff_ms / 2;
    arm_peer(peer, peer->backoff_ms - half + prng_below(&peers->prng, half + 1));
    peer->backoff_ms =
        peer->backoff_ms * 2 < PEER_BACKOFF_MAX_MS ? peer->backoff_ms * 2 : PEER_BACKOFF_MAX_MS;
}

/* Says why a peer cannot be reached, once per outage and shard. */
static void say_failure(struct peer_conn *peer, const char *why)
{
    if (!peer->told_failure && !peer->loop->peers.stopping)
        loop_say(peer->loop, SAY_WARNING, "no connection to peer %s:%s: %s; trying again", peer->host,
                 peer->port, why);
    peer->told_failure = true;
}

static void close_attempt(struct peer_conn *peer)
{
    timer_disarm(&peer->loop->timers, &peer->timer);
    peer->state = PEER_CLOSING;
    conn_close(&peer->conn);
}

static void peer_conn_closed(struct conn *conn)
{
    wait_to_retry(peer_conn_of(conn));
}

static void peer_conn_end(struct conn *conn)
{
    conn_fail(conn, "closed by the peer");
}

static void peer_conn_settle(struct conn *conn)
{
    struct peer_conn *peer = peer_conn_of(conn);
    if (conn->failure == NULL && !peer->dropped)
        return;
    if (peer->state == PEER_UP) {
        struct event event = {.kind = EVENT_PEER_DOWN, .node = peer->node};
        peer->state = PEER_CLOSING; /* before the step: what it sends to this node is dropped */
        loop_step(peer->loop, &event);
    }
    if (!peer->dropped)
        say_failure(peer, conn->failure);
    close_attempt(peer);
}

static void peer_conn_bytes(struct conn *conn, struct span bytes, size_t *consumed, size_t *need)
{
    struct peer_conn *peer = peer_conn_of(conn);
    struct event event = {.kind = EVENT_PEER_DATA, .node = peer->node, .bytes = bytes};
    if (!peer->greeted)
        arm_peer(peer, PEER_STABLE_MS);
    peer->greeted = true;
    loop_step(peer->loop, &event);
    *consumed = event.consumed;
    *need = event.need;
}

static const struct conn_handler handler = {
    .bytes = peer_conn_bytes, .end = peer_conn_end, .settle = peer_conn_settle, .closed = peer_conn_closed};

static void set_options(struct peer_conn *peer)
{
    uv_os_fd_t descriptor;
    unsigned dead_ms = PEER_DEAD_MS;
    int probes = 2;
    int linear = 1;
    uv_tcp_nodelay(&peer->conn.tcp, 1);
    uv_tcp_keepalive(&peer->conn.tcp, 1, 1);
    if (uv_fileno((uv_handle_t *)&peer->conn.tcp, &descriptor) != 0)
        return;
    setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof dead_ms);
    setsockopt(descriptor, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    setsockopt(descriptor, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, &linear, sizeof linear);
}

static void on_connect(uv_connect_t *request, int status)
{
    struct peer_conn *peer = LIST_ENTRY(request, struct peer_conn, connect);
    if (peer->state != PEER_CONNECTING || status == UV_ECANCELED)
        return;
    if (status != 0) {
        say_failure(peer, uv_strerror(status));
        close_attempt(peer);
        return;
    }
    set_options(peer);
    peer->state = PEER_UP;
    peer->greeted = false;
    arm_peer(peer, PEER_GREETING_MS);
    struct event event = {.kind = EVENT_PEER_UP, .node = peer->node};
    loop_step(peer->loop, &event);
    conn_start(&peer->conn);
}

static void connect_to(struct peer_conn *peer, const struct sockaddr *address)
{
    peer->dropped = false;
    if (conn_init(&peer->conn, &peer->loop->pool, &handler, PEER_INPUT_BYTES_MAX, PEER_UNSENT_BYTES_MAX) !=
        0) {
        wait_to_retry(peer);
        return;
    }
    peer->state = PEER_CONNECTING;
    peer->attempted_us = loop_now(peer->loop).mono_us;
    memcpy(&peer->address, address,
           address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    int error = uv_tcp_connect(&peer->connect, &peer->conn.tcp, address, on_connect);
    if (error != 0) {
        say_failure(peer, uv_strerror(error));
        close_attempt(peer);
        return;
    }
    arm_peer(peer, PEER_CONNECT_MS);
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *addresses)
{
    struct peer_conn *peer = LIST_ENTRY(request, struct peer_conn, resolve);
    if (peer->loop->peers.stopping) {
        peer->state = PEER_WAITING;
    } else if (status != 0 || addresses == NULL) {
        say_failure(peer, status != 0 ? uv_strerror(status) : "the name has no address");
        wait_to_retry(peer);
    } else {
        connect_to(peer, addresses->ai_addr);
    }
    uv_freeaddrinfo(addresses);
}

/* A number is connected to at once; a name is looked up anew for each attempt, because it may have moved. */
static void start_attempt(struct peer_conn *peer)
{
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
    uint64_t port = 0;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    enum status status = span_parse_u64(span_of_text(peer->port), &port);
    assert(status == STATUS_OK);
    if (uv_ip4_addr(peer->host, (int)port, &ipv4) == 0) {
        connect_to(peer, (const struct sockaddr *)&ipv4);
    } else if (uv_ip6_addr(peer->host, (int)port, &ipv6) == 0) {
        connect_to(peer, (const struct sockaddr *)&ipv6);
    } else {
        peer->state = PEER_RESOLVING;
        if (uv_getaddrinfo(&peer->loop->uv, &peer->resolve, on_resolved, peer->host, peer->port, &hints) != 0)
            wait_to_retry(peer);
    }
}

/* The connection has held: the next outage is a new one. */
static void become_stable(struct peer_conn *peer)
{
    peer->backoff_ms = PEER_BACKOFF_MIN_MS;
    if (peer->told_failure)
        loop_say(peer->loop, SAY_INFO, "connected to peer %s:%s again", peer->host, peer->port);
    peer->told_failure = false;
}

void peer_conn_timer(struct peer_conn *peer)
{
    if (peer->state == PEER_CONNECTING) {
        say_failure(peer, "no answer");
        peer->backoff_ms = PEER_BACKOFF_MIN_MS;
        close_attempt(peer);
    } else if (peer->state == PEER_WAITING) {
        start_attempt(peer);
    } else if (peer->state == PEER_UP && !peer->greeted) {
        conn_fail(&peer->conn, "it does not answer the greeting");
    } else if (peer->state == PEER_UP) {
        become_stable(peer);
    }
}

/* ---- effects -------------------------------------------------------------------------------------------- */

static bool peer_conns_reserve(struct loop *loop)
{
    struct peer_conns *peers = &loop->peers;
    if (peers->count < peers->capacity)
        return true;
    uint32_t capacity = peers->capacity == 0 ? 8 : peers->capacity * 2;
    struct peer_conn **items =
        alloc_resize(&loop->alloc, peers->items, peers->capacity * sizeof(struct peer_conn *),
                     capacity * sizeof(struct peer_conn *));
    if (items == NULL)
        return false;
    peers->items = items;
    peers->capacity = capacity;
    return true;
}

/* The node has shown that it is there: the backoff has served its purpose, and so has an attempt whose first packets
 * were lost, because the kernel repeats them ever more rarely. */
static void dial_now(struct peer_conn *peer)
{
    if (peer->loop->peers.stopping)
        return;
    uint64_t waited_us = loop_now(peer->loop).mono_us - peer->attempted_us;
    if (peer->state == PEER_WAITING) {
        peer->backoff_ms = PEER_BACKOFF_MIN_MS;
        arm_peer(peer, 0);
    } else if (peer->state == PEER_CONNECTING && waited_us >= PEER_REDIAL_MS * UINT64_C(1000)) {
        peer->backoff_ms = PEER_BACKOFF_MIN_MS;
        close_attempt(peer);
    }
}

void peer_conn_connect(struct loop *loop, uint64_t node, struct span address)
{
    struct peer_conns *peers = &loop->peers;
    uint32_t position = peer_conn_position(peers, node);
    struct peer_conn *known = peer_conn_find(peers, node);
    if (known != NULL) {
        dial_now(known);
        return;
    }
    struct peer_conn *peer = alloc_get_zeroed(&loop->alloc, sizeof *peer);
    if (peer == NULL || !peer_conns_reserve(loop))
        say_and_exit(&loop->shared->say, loop->number, span_of_text("out of memory for a peer; ending"));
    peer->loop = loop;
    peer->node = node;
    peer->backoff_ms = PEER_BACKOFF_MIN_MS;
    if (listener_split(address, peer->host, peer->port) != STATUS_OK) {
        loop_say(loop, SAY_ERROR, "peer address %.*s is not HOST:PORT; it is never connected to",
                 (int)address.size, (const char *)address.data);
        alloc_put(&loop->alloc, peer, sizeof *peer);
        return;
    }
    for (uint32_t i = peers->count; i > position; i--)
        peers->items[i] = peers->items[i - 1];
    peers->items[position] = peer;
    peers->count++;
    peer->state = PEER_WAITING;
    arm_peer(peer, 0);
}

void peer_conn_send(struct loop *loop, uint64_t node, struct span bytes)
{
    struct peer_conn *peer = peer_conn_find(&loop->peers, node);
    if (peer != NULL && peer->state == PEER_UP && !peer->dropped)
        conn_send(&peer->conn, bytes);
}

const struct sockaddr *peer_conn_address(const struct loop *loop, uint64_t node)
{
    const struct peer_conn *peer = peer_conn_find(&loop->peers, node);
    bool known = peer != NULL && peer->address.ss_family != AF_UNSPEC;
    return known ? (const struct sockaddr *)&peer->address : NULL;
}

void peer_conn_drop(struct loop *loop, uint64_t node)
{
    struct peer_conn *peer = peer_conn_find(&loop->peers, node);
    if (peer == NULL || peer->state != PEER_UP)
        return;
    peer->dropped = true;
    conn_settle_later(&peer->conn);
}

void peer_conns_close(struct loop *loop)
{
    struct peer_conns *peers = &loop->peers;
    peers->stopping = true;
    for (uint32_t i = 0; i < peers->count; i++) {
        struct peer_conn *peer = peers->items[i];
        timer_disarm(&loop->timers, &peer->timer);
        if (peer->state == PEER_RESOLVING)
            uv_cancel((uv_req_t *)&peer->resolve);
        else if (peer->state == PEER_CONNECTING || peer->state == PEER_UP)
            close_attempt(peer);
    }
}

void peer_conns_free(struct loop *loop)
{
    struct peer_conns *peers = &loop->peers;
    for (uint32_t i = 0; i < peers->count; i++)
        alloc_put(&loop->alloc, peers->items[i], sizeof(struct peer_conn));
    alloc_put(&loop->alloc, peers->items, peers->capacity * sizeof(struct peer_conn *));
}
