/* Incoming peer connections. */
#include "edge/link_conn.h"

#include <assert.h>
#include <fcntl.h>
#include <unistd.h>

#include "edge/loop.h"
#include "edge/say.h"

static struct link_conn *link_conn_of(struct conn *conn)
{
    return LIST_ENTRY(conn, struct link_conn, conn);
}

static struct link_conn *link_conn_find(struct loop *loop, uint64_t id)
{
    struct list_link *all = &loop->links.all;
    for (struct list_link *at = all->next; at != all; at = at->next) {
        struct link_conn *link = LIST_ENTRY(at, struct link_conn, list);
        if (link->id == id && !link->conn.closing)
            return link;
    }
    return NULL;
}

void link_conns_init(struct link_conns *links)
{
    list_init(&links->all);
}

/* ---- ending --------------------------------------------------------------------------------------------- */

static void greeting_over(struct link_conn *link)
{
    if (timer_armed(&link->timer)) {
        timer_disarm(&link->loop->timers, &link->timer);
        link->loop->links.greeting_count--;
    }
}

static void link_conn_close(struct link_conn *link)
{
    greeting_over(link);
    conn_close(&link->conn);
}

static void link_conn_end(struct conn *conn)
{
    conn_fail(conn, "closed by the peer");
}

/* Sends the socket and what was read but not used to its shard. The number stays. */
static void depart(struct link_conn *link)
{
    struct conn *conn = &link->conn;
    struct inbox_message message = {
        .kind = INBOX_LINK, .link = link->id, .node = link->node, .bytes = buf_span(&conn->in)};
    uv_os_fd_t descriptor;
    link->silent = true;
    if (conn->ended || conn_output_bytes(conn) > 0 ||
        uv_fileno((uv_handle_t *)&conn->tcp, &descriptor) != 0) {
        link_conn_close(link);
        return;
    }
    /* Not F_DUPFD_CLOEXEC: ThreadSanitizer follows dup only (tools/tsan.supp). */
    message.fd = dup(descriptor);
    if (message.fd >= 0 && fcntl(message.fd, F_SETFD, FD_CLOEXEC) == 0)
        inbox_push(&link->loop->shared->loops[link->target].inbox, &message);
    else
        loop_say(link->loop, SAY_WARNING, "cannot hand a peer connection to its shard: out of descriptors");
    link_conn_close(link);
}

static void link_conn_settle(struct conn *conn)
{
    struct link_conn *link = link_conn_of(conn);
    if (link->moving && conn->failure == NULL) {
        depart(link);
        return;
    }
    if (conn->failure == NULL && !(link->ending && conn_output_bytes(conn) == 0))
        return;
    if (!link->silent && !link->moving) {
        struct event event = {.kind = EVENT_LINK_CLOSED, .link = link->id};
        loop_step(link->loop, &event);
    }
    link_conn_close(link);
}

static void link_conn_closed(struct conn *conn)
{
    struct link_conn *link = link_conn_of(conn);
    list_remove(&link->list);
    alloc_put(&link->loop->alloc, link, sizeof *link);
}

void link_conn_timer(struct link_conn *link)
{
    link->loop->links.greeting_count--;
    conn_fail(&link->conn, "its greeting took too long");
}

/* ---- data ----------------------------------------------------------------------------------------------- */

static void link_conn_bytes(struct conn *conn, struct span bytes, size_t *consumed, size_t *need)
{
    struct link_conn *link = link_conn_of(conn);
    struct event event = {.kind = EVENT_LINK_DATA, .link = link->id, .node = link->node, .bytes = bytes};
    loop_step(link->loop, &event);
    *consumed = event.consumed;
    *need = event.need;
}

void link_conn_send(struct loop *loop, uint64_t id, struct span bytes, bool end)
{
    struct link_conn *link = link_conn_find(loop, id);
    if (link == NULL || link->ending || link->moving)
        return;
    conn_send(&link->conn, bytes);
    if (end) {
        link->ending = true;
        link->conn.discard = true;
        conn_settle_later(&link->conn);
    }
}

void link_conn_move(struct loop *loop, uint64_t id, uint16_t shard, uint64_t node)
{
    struct link_conn *link = link_conn_find(loop, id);
    assert(shard < loop->shared->shards);
    if (link == NULL || link->ending || link->moving)
        return;
    link->moving = true;
    link->target = shard;
    link->node = node;
    conn_pause(&link->conn, CONN_PAUSE_MOVING);
    conn_settle_later(&link->conn);
}

/* ---- life ----------------------------------------------------------------------------------------------- */

static const struct conn_handler handler = {
    .bytes = link_conn_bytes, .end = link_conn_end, .settle = link_conn_settle, .closed = link_conn_closed};

static struct link_conn *link_conn_new(struct loop *loop)
{
    struct link_conn *link = alloc_get_zeroed(&loop->alloc, sizeof *link);
    if (link == NULL ||
        conn_init(&link->conn, &loop->pool, &handler, FRAME_BYTES_MAX, LINK_OUTPUT_BYTES_MAX) != 0)
        say_and_exit(&loop->shared->say, loop->number,
                     span_of_text("out of memory for a peer connection; ending"));
    link->loop = loop;
    list_push_back(&loop->links.all, &link->list);
    return link;
}

void link_conn_accept(struct loop *loop, uv_stream_t *listener)
{
    struct link_conn *link = link_conn_new(loop);
    struct link_conns *links = &loop->links;
    if (uv_accept(listener, (uv_stream_t *)&link->conn.tcp) != 0 ||
        links->greeting_count >= LINKS_GREETING_MAX ||
        !loop_arm(loop, &link->timer, LOOP_TIMER_LINK, LINK_GREETING_MS)) {
        link_conn_close(link);
        return;
    }
    links->greeting_count++;
    link->id = ++links->serial;
    uv_tcp_nodelay(&link->conn.tcp, 1);
    uv_tcp_keepalive(&link->conn.tcp, 1, 10);
    struct event event = {.kind = EVENT_LINK_OPEN, .link = link->id};
    loop_step(loop, &event);
    conn_start(&link->conn);
}

void link_conn_arrive(struct loop *loop, const struct inbox_message *message)
{
    struct link_conn *link = link_conn_new(loop);
    if (uv_tcp_open(&link->conn.tcp, message->fd) != 0) {
        link_conn_discard(message);
        link->silent = true;
        link_conn_close(link);
        return;
    }
    link->id = message->link;
    link->node = message->node;
    struct event event = {.kind = EVENT_LINK_MOVED, .link = link->id, .node = link->node};
    loop_step(loop, &event);
    conn_keep(&link->conn, message->bytes, 0);
    conn_deliver_kept(&link->conn);
    conn_start(&link->conn);
}

void link_conn_discard(const struct inbox_message *message)
{
    close(message->fd);
}

void link_conns_close(struct loop *loop)
{
    struct list_link *all = &loop->links.all;
    for (struct list_link *at = all->next; at != all; at = at->next)
        link_conn_close(LIST_ENTRY(at, struct link_conn, list));
}
