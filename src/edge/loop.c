/* A shard's loop: turns, timers, the inbox and the stop. */
#include "edge/loop.h"

#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#include "edge/clock.h"
#include "edge/perform.h"
#include "edge/say.h"

void loop_say(const struct loop *loop, enum say_level level, const char *format, ...)
{
    char text[SAY_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (size > 0)
        say_line(&loop->shared->say, level, loop->number, span_of_text(text));
}

/* ---- stepping ------------------------------------------------------------------------------------------- */

struct now loop_now(struct loop *loop)
{
    if (!loop->now_read)
        loop->now = clock_read();
    loop->now_read = true;
    return loop->now;
}

void loop_step(struct loop *loop, struct event *event)
{
    assert(!loop->performing);
    event->now = loop_now(loop);
    event->paused = false;
    event->idle = false;
    event->partial = false;
    event->consumed = 0;
    event->need = 0;
    loop->stepped = event->kind != EVENT_TURN_END;
    shard_step(loop->shard, event, &loop->effects);
    perform_effects(loop);
}

/* ---- timers --------------------------------------------------------------------------------------------- */

bool loop_arm(struct loop *loop, struct timer *timer, enum loop_timer kind, uint64_t delay_ms)
{
    timer->kind = (uint32_t)kind;
    return timer_arm(&loop->timers, timer, loop_now(loop).mono_us + delay_ms * 1000) == STATUS_OK;
}

static void push_to_all(struct loop *loop, enum inbox_kind kind)
{
    const struct inbox_message message = {.kind = kind, .fd = -1};
    for (uint16_t i = 0; i < loop->shared->shards; i++)
        inbox_push(&loop->shared->loops[i].inbox, &message);
}

static void fire(struct loop *loop, struct timer *timer)
{
    switch ((enum loop_timer)timer->kind) {
    case LOOP_TIMER_CLIENT:
        client_conn_timer(LIST_ENTRY(timer, struct client_conn, timer));
        return;
    case LOOP_TIMER_LINK:
        link_conn_timer(LIST_ENTRY(timer, struct link_conn, timer));
        return;
    case LOOP_TIMER_PEER:
        peer_conn_timer(LIST_ENTRY(timer, struct peer_conn, timer));
        return;
    case LOOP_TIMER_FLUSH:
        work_flush_timer(loop);
        return;
    case LOOP_TIMER_META:
        work_meta_timer(loop);
        return;
    case LOOP_TIMER_FACTS:
        facts_gather(loop);
        return;
    case LOOP_TIMER_WATCH:
        client_watch_timer(loop);
        return;
    case LOOP_TIMER_STOP:
        loop_say(loop, SAY_WARNING, "requests are still in flight after %d ms; stopping without them",
                 STOP_WAIT_MS);
        push_to_all(loop, INBOX_CLOSE);
        return;
    }
    assert(0 && "a timer of unknown kind");
}

static void on_timer(uv_timer_t *handle);

/* One uv_timer stands for all deadlines. It is moved only to an earlier time: most deadlines are those of requests
 * that end long before, and moving it back each turn would cost more than one early turn now and then. */
static void arm_timer(struct loop *loop)
{
    uint64_t deadline_us = shard_next_deadline_us(loop->shard);
    uint64_t own_us = timer_heap_next_us(&loop->timers);
    if (own_us < deadline_us)
        deadline_us = own_us;
    if (deadline_us >= loop->armed_us)
        return;
    uint64_t now_us = loop_now(loop).mono_us;
    uint64_t delay_ms = deadline_us <= now_us ? 0 : (deadline_us - now_us + 999) / 1000;
    /* libuv counts from its own reading of the clock, which may be older than ours. */
    uv_update_time(&loop->uv);
    loop->armed_us = deadline_us;
    uv_timer_start(&loop->timer, on_timer, delay_ms, 0);
}

static void on_timer(uv_timer_t *handle)
{
    struct loop *loop = handle->data;
    loop->armed_us = UINT64_MAX;
    loop->stepped = true; /* time has passed: the turn must end although nothing else happened */
}

static void run_due_timers(struct loop *loop)
{
    struct timer *timer;
    while ((timer = timer_heap_pop_due(&loop->timers, loop_now(loop).mono_us)) != NULL)
        fire(loop, timer);
}

/* ---- turns ---------------------------------------------------------------------------------------------- */

static void tell_idle(struct loop *loop)
{
    if (!loop->stopping || loop->idle_told || shard_requests_in_flight(loop->shard) > 0 ||
        !client_conns_drained(loop))
        return;
    loop->idle_told = true;
    const struct inbox_message message = {.kind = INBOX_IDLE, .fd = -1};
    inbox_push(&loop->shared->loops[0].inbox, &message);
}

/* What it made durable at once is answered in a turn that follows this one. */
static void write_log(struct loop *loop)
{
    if (!loop->appended)
        return;
    loop->appended = false;
    struct event event = {.kind = EVENT_LOG_DURABLE};
    event.sequence = log_thread_write(loop->shared->log, loop->number);
    if (event.sequence > 0)
        loop_step(loop, &event);
}

/* Whether this iteration took so long that somebody wants to know; costs a clock reading only then. */
static void tell_slow_turn(struct loop *loop)
{
    uint64_t slow_us = shard_slow_turn_us(loop->shard);
    if (slow_us == UINT64_MAX || !loop->now_read)
        return;
    uint64_t took_us = clock_read().mono_us - loop->now.mono_us;
    if (took_us < slow_us)
        return;
    bool stepped = loop->stepped;
    struct event event = {.kind = EVENT_TURN_TOOK, .sequence = took_us};
    loop_step(loop, &event);
    loop->stepped = stepped; /* nothing was given out that a turn would have to end for */
}

static void end_turn(struct loop *loop)
{
    bool again = loop->stepped || !list_empty(&loop->pool.unsettled);
    while (again && !loop->closing) {
        struct event event = {.kind = EVENT_TURN_END};
        run_due_timers(loop);
        conn_pool_settle(&loop->pool);
        event.buffer_bytes =
            loop->pool.alloc.used_bytes +
            atomic_load_explicit(&loop->shared->resident_over, memory_order_relaxed) / loop->shared->shards;
        loop_step(loop, &event);
        client_conns_turn_ended(loop);
        write_log(loop);
        /* What the effects broke is told to the shard in a turn of its own. */
        conn_pool_settle(&loop->pool);
        again = loop->stepped;
    }
    if (!loop->closing) {
        tell_slow_turn(loop);
        work_submit(loop);
        tell_idle(loop);
        arm_timer(loop);
    }
    atomic_store_explicit(&loop->buffer_bytes, loop->pool.alloc.used_bytes, memory_order_relaxed);
    loop->now_read = false;
}

/* After polling: everything that was waiting has been stepped. */
static void on_check(uv_check_t *handle)
{
    end_turn(handle->data);
}

/* Before polling: what timers and closing handles stepped or armed must not wait for the next event. */
static void on_prepare(uv_prepare_t *handle)
{
    struct loop *loop = handle->data;
    end_turn(loop);
}

/* ---- the inbox ------------------------------------------------------------------------------------------ */

static void wake(void *context)
{
    struct loop *loop = context;
    uv_async_send(&loop->wake);
}

static void close_listeners(struct loop *loop)
{
    for (unsigned kind = 0; kind < LISTENER_KINDS; kind++) {
        for (uint16_t i = 0; i < loop->listener_counts[kind]; i++)
            uv_close((uv_handle_t *)&loop->listeners[kind][i], NULL);
        loop->listener_counts[kind] = 0;
    }
}

static void stop_loop(struct loop *loop)
{
    if (loop->stopping)
        return;
    loop->stopping = true;
    loop->stepped = true; /* so that a turn ends and looks whether it is idle */
    close_listeners(loop);
    client_conns_stop(loop);
    if (loop->number == 0 && !loop_arm(loop, &loop->stop_timer, LOOP_TIMER_STOP, STOP_WAIT_MS))
        push_to_all(loop, INBOX_CLOSE);
}

static void close_loop(struct loop *loop)
{
    if (loop->closing)
        return;
    loop->closing = true;
    loop->stopping = true;
    close_listeners(loop);
    client_conns_close(loop);
    link_conns_close(loop);
    peer_conns_close(loop);
    scan_work_close(&loop->scans);
    datagrams_close(loop);
    uv_close((uv_handle_t *)&loop->timer, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->check, NULL);
    if (loop->number == 0) {
        uv_close((uv_handle_t *)&loop->signals[0], NULL);
        uv_close((uv_handle_t *)&loop->signals[1], NULL);
    }
    /* Other threads may still wake it, so it stays open until they have ended (loop_free). */
    uv_unref((uv_handle_t *)&loop->wake);
}

static void receive(struct loop *loop, const struct inbox_message *message)
{
    struct event event = {.kind = EVENT_LOCAL, .bytes = message->bytes};
    switch (message->kind) {
    case INBOX_LOCAL:
        loop_step(loop, &event);
        return;
    case INBOX_LINK:
        link_conn_arrive(loop, message);
        return;
    case INBOX_STOP:
        stop_loop(loop);
        return;
    case INBOX_IDLE:
        if (++loop->idle_count == loop->shared->shards)
            push_to_all(loop, INBOX_CLOSE);
        return;
    case INBOX_CLOSE:
        close_loop(loop);
        return;
    }
    assert(0 && "a message of unknown kind");
}

static void on_wake(uv_async_t *handle)
{
    struct loop *loop = handle->data;
    struct inbox_batch *batch = inbox_take(&loop->inbox);
    for (size_t i = 0; i < batch->count; i++) {
        struct inbox_message message = inbox_message_at(batch, i);
        if (!loop->closing)
            receive(loop, &message);
        else if (message.kind == INBOX_LINK)
            link_conn_discard(&message);
    }
    if (loop->closing)
        return;
    if (batch->durable_sequence > 0) {
        struct event event = {.kind = EVENT_LOG_DURABLE, .sequence = batch->durable_sequence};
        loop_step(loop, &event);
    }
    if (batch->full_changed) {
        struct event event = {.kind = EVENT_LOG_FULL, .flag = batch->full};
        loop_step(loop, &event);
    }
}

/* ---- life ----------------------------------------------------------------------------------------------- */

static void on_signal(uv_signal_t *handle, int number)
{
    struct loop *loop = handle->data;
    loop_say(loop, SAY_INFO, "%s: stopping%s", number == SIGINT ? "SIGINT" : "SIGTERM",
             loop->stopping ? " at once" : "");
    push_to_all(loop, loop->stopping ? INBOX_CLOSE : INBOX_STOP);
}

static int init_handles(struct loop *loop)
{
    int error = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (error != 0)
        return error;
    uv_timer_init(&loop->uv, &loop->timer);
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_check_init(&loop->uv, &loop->check);
    loop->wake.data = loop;
    loop->timer.data = loop;
    loop->prepare.data = loop;
    loop->check.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);
    for (unsigned i = 0; loop->number == 0 && i < 2; i++) {
        error = uv_signal_init(&loop->uv, &loop->signals[i]);
        loop->signals[i].data = loop;
        if (error == 0)
            error = uv_signal_start(&loop->signals[i], on_signal, i == 0 ? SIGTERM : SIGINT);
        if (error != 0)
            return error;
    }
    return 0;
}

static void tell_shard(void *context, struct event *event)
{
    loop_step(context, event);
}

static void init_scans(struct loop *loop)
{
    const struct scan_work_options options = {
        .uv = &loop->uv,
        .cold = loop->shared->dir->cold,
        .alloc = &loop->alloc,
        .say = &loop->shared->say,
        .shard = loop->number,
        .context = loop,
        .tell = tell_shard,
    };
    scan_work_init(&loop->scans, &options);
}

int loop_init(struct loop *loop, struct loop_shared *shared, uint16_t number, size_t buffer_bytes_max)
{
    loop->number = number;
    loop->shared = shared;
    loop->armed_us = UINT64_MAX;
    alloc_init(&loop->alloc, SIZE_MAX); /* everything in it is bounded by counts; effects may not be lost */
    effects_init(&loop->effects, &loop->alloc);
    timer_heap_init(&loop->timers, &loop->alloc);
    inbox_init(&loop->inbox, wake, loop);
    conn_pool_init(&loop->pool, &loop->uv, buffer_bytes_max);
    client_conns_init(&loop->clients);
    peer_conns_init(&loop->peers, loop_now(loop).mono_us + number);
    link_conns_init(&loop->links);
    work_init(loop);
    init_scans(loop);
    int error = uv_loop_init(&loop->uv);
    return error != 0 ? error : init_handles(loop);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct loop *loop = listener->data;
    if (status < 0) {
        loop_say(loop, SAY_WARNING, "cannot accept a connection: %s", uv_strerror(status));
        return;
    }
    uv_tcp_t *handle = (uv_tcp_t *)listener;
    if (handle >= loop->listeners[LISTENER_PEER])
        link_conn_accept(loop, listener);
    else
        client_conn_accept(loop, listener,
                           handle >= loop->listeners[LISTENER_HTTP] ? CLIENT_HTTP : CLIENT_RESP);
}

int loop_listen(struct loop *loop, enum loop_listener kind, struct listener_sockets *sockets)
{
    return listener_open(sockets, kind == LISTENER_PEER ? 0 : loop->number, &loop->uv, loop->listeners[kind],
                         loop, on_connection, &loop->listener_counts[kind]);
}

void loop_run(struct loop *loop)
{
    loop->now_read = false;
    shard_start(loop->shard, loop_now(loop), &loop->effects);
    perform_effects(loop);
    loop->stepped = true;
    client_watch_start(loop);
    if (loop->number == 0)
        facts_gather(loop);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    assert(loop->closing);
}

void loop_free(struct loop *loop)
{
    uv_close((uv_handle_t *)&loop->wake, NULL);
    if (!loop->closing)
        close_loop(loop);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    int busy = uv_loop_close(&loop->uv);
    assert(busy == 0);
    client_conns_free(loop);
    peer_conns_free(loop);
    work_free(loop);
    scan_work_free(&loop->scans);
    inbox_free(&loop->inbox);
    timer_heap_free(&loop->timers);
    effects_free(&loop->effects);
}
