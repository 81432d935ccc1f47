/* TCP connections with bounded buffers. */
#include "edge/conn.h"

#include <assert.h>

/* The least room offered to a read that continues kept input. */
#define READ_MORE_BYTES (16u << 10)

static void conn_write_waiting(struct conn *conn);

void conn_pool_init(struct conn_pool *pool, uv_loop_t *uv, size_t buffer_bytes_max)
{
    pool->uv = uv;
    alloc_init(&pool->alloc, buffer_bytes_max);
    list_init(&pool->unsettled);
}

void conn_pool_settle(struct conn_pool *pool)
{
    struct list_link *link;
    while ((link = list_pop_front(&pool->unsettled)) != NULL) {
        struct conn *conn = LIST_ENTRY(link, struct conn, unsettled);
        conn->handler->settle(conn);
    }
}

int conn_init(struct conn *conn, struct conn_pool *pool, const struct conn_handler *handler, size_t in_max,
              size_t out_max)
{
    *conn = (struct conn){.pool = pool, .handler = handler, .in_max = in_max, .out_max = out_max};
    list_init(&conn->unsettled);
    buf_init(&conn->in, &pool->alloc);
    buf_init(&conn->flying, &pool->alloc);
    buf_init(&conn->waiting, &pool->alloc);
    int error = uv_tcp_init(pool->uv, &conn->tcp);
    pool->count += error == 0;
    return error;
}

void conn_settle_later(struct conn *conn)
{
    if (!conn->closing && list_empty(&conn->unsettled))
        list_push_back(&conn->pool->unsettled, &conn->unsettled);
}

void conn_fail(struct conn *conn, const char *why)
{
    if (conn->failure == NULL)
        conn->failure = why;
    conn_settle_later(conn);
}

/* ---- reading -------------------------------------------------------------------------------------------- */

/* Makes room for size more bytes if that leaves enough of the pool to others. */
static bool reserve(struct conn *conn, struct buf *buf, size_t size)
{
    if (size <= buf->capacity - buf->size)
        return true;
    return alloc_fits(&conn->pool->alloc, size + conn->leave_free) && buf_reserve(buf, size);
}

/* The most that one read should take. What nodes send is never left waiting. */
static size_t read_share(const struct conn *conn)
{
    const struct conn_pool *pool = conn->pool;
    if (conn->leave_free == 0)
        return CONN_READ_BYTES;
    size_t share = pool->alloc.budget_bytes / CONN_READ_DIVISOR / (pool->count > 0 ? pool->count : 1);
    if (share > CONN_READ_BYTES)
        return CONN_READ_BYTES;
    return share > CONN_READ_BYTES_MIN ? share : CONN_READ_BYTES_MIN;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct conn *conn = LIST_ENTRY(handle, struct conn, tcp);
    struct buf *in = &conn->in;
    (void)suggested;
    size_t share = read_share(conn);
    if (in->size == 0 || conn->discard) {
        *buffer = uv_buf_init((char *)conn->pool->read_buffer, (unsigned)share);
        return;
    }
    size_t target = in->size + (share < READ_MORE_BYTES ? share : READ_MORE_BYTES);
    if (target < conn->in_need)
        target = conn->in_need;
    if (target > conn->in_max)
        target = conn->in_max;
    *buffer = uv_buf_init(NULL, 0);
    if (in->size >= target || !reserve(conn, in, target - in->size))
        return; /* libuv then reports UV_ENOBUFS */
    *buffer = uv_buf_init((char *)in->data + in->size, (unsigned)(in->capacity - in->size));
}

static void overflow(struct conn *conn)
{
    if (conn->handler->overflow != NULL)
        conn->handler->overflow(conn);
    else
        conn_fail(conn, "its input is past a limit");
}

/* Keeps what was left over of bytes that are not ours. */
static void keep_rest(struct conn *conn, struct span rest)
{
    if (rest.size == 0)
        return;
    size_t room = rest.size;
    if (room < conn->in_need)
        room = conn->in_need < conn->in_max ? conn->in_need : conn->in_max;
    if (room < rest.size || !reserve(conn, &conn->in, room)) {
        overflow(conn);
        return;
    }
    buf_append_span(&conn->in, rest);
}

void conn_keep(struct conn *conn, struct span bytes, size_t need)
{
    assert(conn->in.size == 0);
    conn->in_need = need;
    keep_rest(conn, bytes);
}

static void deliver(struct conn *conn, struct span bytes)
{
    size_t consumed = 0;
    size_t need = 0;
    bool kept = bytes.data == conn->in.data && conn->in.size > 0;
    if (!conn->discard)
        conn->handler->bytes(conn, bytes, &consumed, &need);
    if (conn->discard)
        consumed = bytes.size;
    assert(consumed <= bytes.size);
    conn->in_need = need;
    if (!kept) {
        keep_rest(conn, span_of(bytes.data + consumed, bytes.size - consumed));
    } else if (consumed == bytes.size) {
        buf_free(&conn->in);
    } else {
        buf_drop(&conn->in, consumed);
    }
}

void conn_deliver_kept(struct conn *conn)
{
    if (conn->in.size > 0 && conn->in.size >= conn->in_need)
        deliver(conn, buf_span(&conn->in));
}

/* libuv will read no more, or has no room to. */
static void on_read_end(struct conn *conn, int error)
{
    if (error == UV_ENOBUFS) {
        buf_free(&conn->in);
        overflow(conn);
        return;
    }
    uv_read_stop((uv_stream_t *)&conn->tcp);
    conn->reading = false;
    conn->ended = true;
    if (error == UV_EOF)
        conn->handler->end(conn);
    else
        conn_fail(conn, uv_strerror(error));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct conn *conn = LIST_ENTRY(stream, struct conn, tcp);
    if (size == 0 || conn->closing || conn->failure != NULL)
        return;
    if (size < 0) {
        on_read_end(conn, (int)size);
        return;
    }
    conn->received += (uint64_t)size;
    if (conn->in.size == 0 || conn->discard) {
        deliver(conn, span_of(buffer->base, (size_t)size));
        return;
    }
    conn->in.size += (size_t)size;
    conn_deliver_kept(conn);
}

/* Reads exactly when nothing speaks against it. */
static void update_reading(struct conn *conn)
{
    bool want = conn->started && conn->pauses == 0 && !conn->ended && !conn->closing && conn->failure == NULL;
    if (want == conn->reading)
        return;
    conn->reading = want;
    if (!want)
        uv_read_stop((uv_stream_t *)&conn->tcp);
    else if (uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read) != 0)
        conn_fail(conn, "cannot be read");
}

void conn_start(struct conn *conn)
{
    conn->started = true;
    update_reading(conn);
}

void conn_pause(struct conn *conn, enum conn_pause reason)
{
    conn->pauses |= (unsigned)reason;
    update_reading(conn);
}

void conn_resume(struct conn *conn, enum conn_pause reason)
{
    conn->pauses &= ~(unsigned)reason;
    update_reading(conn);
}

/* ---- writing -------------------------------------------------------------------------------------------- */

size_t conn_output_bytes(const struct conn *conn)
{
    return conn->waiting.size + (conn->flying.size > 0 ? conn->tcp.write_queue_size : 0);
}

void conn_drop_output(struct conn *conn)
{
    assert(conn->failure != NULL || conn->closing);
    buf_free(&conn->waiting);
}

bool conn_listens(const struct conn *conn)
{
    return conn->reading;
}

static size_t output_pause_bytes(const struct conn *conn)
{
    size_t bytes = conn->pool->alloc.budget_bytes / CONN_OUTPUT_PAUSE_DIVISOR;
    return bytes < CONN_OUTPUT_PAUSE_BYTES ? bytes : CONN_OUTPUT_PAUSE_BYTES;
}

static void on_written(uv_write_t *write, int status)
{
    struct conn *conn = LIST_ENTRY(write, struct conn, write);
    buf_free(&conn->flying);
    if (conn->closing)
        return;
    if (status < 0) {
        conn_fail(conn, uv_strerror(status));
        return;
    }
    if (conn->waiting.size > 0 && conn->failure == NULL)
        conn_write_waiting(conn);
    if ((conn->pauses & CONN_PAUSE_OUTPUT) != 0 && conn_output_bytes(conn) <= output_pause_bytes(conn) / 2) {
        conn_resume(conn, CONN_PAUSE_OUTPUT);
        conn_settle_later(conn); /* what was kept meanwhile */
    }
    if (conn_output_bytes(conn) == 0)
        conn_settle_later(conn);
}

static void conn_write_waiting(struct conn *conn)
{
    struct buf written = conn->flying;
    assert(written.size == 0);
    conn->flying = conn->waiting;
    conn->waiting = written;
    uv_buf_t buffer = uv_buf_init((char *)conn->flying.data, (unsigned)conn->flying.size);
    int status = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, &buffer, 1, on_written);
    if (status < 0) {
        buf_free(&conn->flying);
        conn_fail(conn, uv_strerror(status));
    }
}

/* Makes room for output, at the cost of others if its owner says so. */
static bool reserve_output(struct conn *conn, size_t size)
{
    while (!reserve(conn, &conn->waiting, size)) {
        conn->waiting.failed = false;
        if (conn->handler->starved == NULL || !conn->handler->starved(conn) || conn->failure != NULL)
            return false;
    }
    return true;
}

void conn_send(struct conn *conn, struct span bytes)
{
    if (conn->failure != NULL || conn->closing || bytes.size == 0)
        return;
    size_t taken = 0;
    if (conn->flying.size == 0) {
        size_t chunk = bytes.size < (1u << 30) ? bytes.size : 1u << 30;
        uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)bytes.data, (unsigned)chunk);
        int written = uv_try_write((uv_stream_t *)&conn->tcp, &buffer, 1);
        if (written < 0 && written != UV_EAGAIN) {
            conn_fail(conn, uv_strerror(written));
            return;
        }
        taken = written > 0 ? (size_t)written : 0;
    }
    struct span rest = span_of(bytes.data + taken, bytes.size - taken);
    if (rest.size == 0)
        return;
    if (rest.size > conn->out_max || conn_output_bytes(conn) > conn->out_max - rest.size) {
        conn->overrun = true;
        conn_fail(conn, "its unsent output is past the limit");
        return;
    }
    if (!reserve_output(conn, rest.size)) {
        conn->overrun = true;
        conn_fail(conn, "no memory for its unsent output");
        return;
    }
    buf_append_span(&conn->waiting, rest);
    conn->queued += rest.size;
    if (conn->flying.size == 0)
        conn_write_waiting(conn);
    if (conn_output_bytes(conn) > output_pause_bytes(conn))
        conn_pause(conn, CONN_PAUSE_OUTPUT);
}

/* ---- closing -------------------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    struct conn *conn = LIST_ENTRY(handle, struct conn, tcp);
    conn->pool->count--;
    buf_free(&conn->in);
    buf_free(&conn->flying);
    buf_free(&conn->waiting);
    conn->handler->closed(conn);
}

void conn_close(struct conn *conn)
{
    if (conn->closing)
        return;
    conn->closing = true;
    conn->reading = false;
    list_remove(&conn->unsettled);
    /* Who is cut off while it takes nothing would not hear of it: our end would stand behind bytes for which it has no
     * room, and the kernel would keep them for many minutes. */
    bool not_taken = conn->failure != NULL && (conn->overrun || conn_output_bytes(conn) > 0);
    if (!not_taken || uv_tcp_close_reset(&conn->tcp, on_closed) != 0)
        uv_close((uv_handle_t *)&conn->tcp, on_closed);
}
