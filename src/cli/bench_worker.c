/* One thread of rondo bench: its connections over epoll.
 *
 * Closed loop: a connection sends `depth` commands in one write and the next ones when all of them are answered.
 * Open loop (--rate): the k-th command of a worker is due at its start + k periods, on connection k modulo their
 * number, whatever the server does. A connection that has no room, or is lost, sends later what became due, and the
 * latency still counts from the time at which it was due: waiting in the client is waiting (Tene's "coordinated
 * omission"). What is due and not sent is two counters, not a queue. */
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/limits.h"
#include "cli/bench.h"
#include "proto/resp_read.h"

#define EVENTS_MAX 256
#define READ_BYTES_MIN (16u << 10)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* The longest sleep: a stop is seen by then. */
#define SLEEP_NS_MAX (20u * NS_PER_MS)

/* A lost connection is made again after this time. */
#define RECONNECT_NS (100u * NS_PER_MS)

/* How long answers are waited for once nothing more is sent. */
#define DRAIN_NS (5u * NS_PER_S)

/* Of one worker; bench_options.c refuses what needs more. */
#define MEMORY_BYTES_MAX ((size_t)16 << 30)

enum flight_kind {
    FLIGHT_READ,
    FLIGHT_WRITE,
    FLIGHT_PREFACE,
};

/* A command that was sent and not answered. */
struct flight {
    uint64_t since_ns; /* sent, or due */
    uint64_t number;   /* of its key */
    enum flight_kind kind;
};

struct connection {
    int fd; /* -1: none */
    bool connecting;
    bool wants_write;
    uint32_t target;
    uint64_t retry_at_ns;
    uint64_t due;    /* open loop: commands due so far */
    uint64_t issued; /* and sent */
    struct buf out;
    size_t out_sent;
    struct buf in;
    struct resp_reader reader;
    struct flight *flights; /* a ring of depth + 1: the preface is one more */
    uint32_t head;
    uint32_t count;
};

struct bench_worker {
    pthread_t thread;
    struct bench_run *run;
    const struct bench_plan *plan;
    struct alloc alloc;
    struct prng prng;
    int epoll;
    struct connection *connections;
    uint32_t connection_count;
    uint32_t flights_max;
    double period_ns;  /* open loop */
    uint64_t next_due; /* the number of the next command */
    uint64_t due_end;
    bool exhausted; /* all requests were begun */
    struct bench_counts counts;
};

uint64_t bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* ---- connections ---------------------------------------------------------------------------------------- */

static void watch(struct bench_worker *worker, struct connection *connection, int operation, bool write)
{
    struct epoll_event event = {.events = write ? EPOLLIN | EPOLLOUT : EPOLLIN, .data = {.ptr = connection}};
    connection->wants_write = write;
    (void)epoll_ctl(worker->epoll, operation, connection->fd, &event);
}

static void lose_connection(struct bench_worker *worker, struct connection *connection, uint64_t now_ns)
{
    if (!connection->connecting)
        atomic_fetch_sub(&worker->run->connected, 1);
    worker->counts.lost_connections++;
    for (uint32_t i = 0; i < connection->count; i++) {
        const struct flight *flight = &connection->flights[(connection->head + i) % worker->flights_max];
        worker->counts.unanswered += flight->kind != FLIGHT_PREFACE;
    }
    atomic_fetch_add(&worker->run->failed, connection->count);
    close(connection->fd);
    connection->fd = -1;
    connection->count = 0;
    connection->out_sent = 0;
    connection->reader = (struct resp_reader){.bulk_bytes_max = VALUE_BYTES_MAX_HARD};
    connection->retry_at_ns = now_ns + RECONNECT_NS;
    buf_clear(&connection->out);
    buf_clear(&connection->in);
}

static void start_connection(struct bench_worker *worker, struct connection *connection, uint64_t now_ns)
{
    const struct bench_target *target = &worker->plan->targets[connection->target];
    int on = 1;
    connection->connecting = true;
    connection->fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) {
        connection->retry_at_ns = now_ns + RECONNECT_NS;
        return;
    }
    (void)setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(connection->fd, (const struct sockaddr *)&target->address, target->address_bytes) != 0 &&
        errno != EINPROGRESS)
        lose_connection(worker, connection, now_ns);
    else
        watch(worker, connection, EPOLL_CTL_ADD, true);
}

/* ---- sending -------------------------------------------------------------------------------------------- */

static void flush_output(struct bench_worker *worker, struct connection *connection, uint64_t now_ns)
{
    size_t left = connection->out.size - connection->out_sent;
    ssize_t sent = left == 0 ? 0
                             : send(connection->fd, connection->out.data + connection->out_sent, left,
                                    MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        lose_connection(worker, connection, now_ns);
        return;
    }
    if (sent > 0) {
        worker->counts.bytes_sent += (uint64_t)sent;
        connection->out_sent += (size_t)sent;
    }
    bool more = connection->out_sent < connection->out.size;
    if (!more) {
        buf_clear(&connection->out);
        connection->out_sent = 0;
    }
    if (more != connection->wants_write)
        watch(worker, connection, EPOLL_CTL_MOD, more);
}

static void add_flight(struct bench_worker *worker, struct connection *connection, struct flight flight)
{
    connection->flights[(connection->head + connection->count) % worker->flights_max] = flight;
    connection->count++;
}

static void add_command(struct bench_worker *worker, struct connection *connection, uint64_t since_ns,
                        uint64_t order)
{
    const struct bench_plan *plan = worker->plan;
    uint64_t number = bench_draw(&plan->data, &worker->prng, order);
    bool read = (prng_u64(&worker->prng) >> 32) < plan->reads_per_2_32;
    if (read)
        bench_put_get(&plan->data, number, &connection->out);
    else
        bench_put_set(&plan->data, number, &worker->prng, &connection->out);
    add_flight(
        worker, connection,
        (struct flight){.since_ns = since_ns, .number = number, .kind = read ? FLIGHT_READ : FLIGHT_WRITE});
}

/* How many of `wanted` commands may still begin; *order is the number of the first. */
static uint64_t take_requests(struct bench_worker *worker, uint64_t wanted, uint64_t *order)
{
    const struct bench_plan *plan = worker->plan;
    *order = atomic_fetch_add_explicit(&worker->run->taken, wanted, memory_order_relaxed);
    if (plan->requests == 0)
        return wanted;
    uint64_t left = *order >= plan->requests ? 0 : plan->requests - *order;
    worker->exhausted = worker->exhausted || left <= wanted;
    return left < wanted ? left : wanted;
}

static bool stopping(const struct bench_worker *worker, uint64_t now_ns)
{
    const struct bench_plan *plan = worker->plan;
    return atomic_load_explicit(&worker->run->stop, memory_order_relaxed) ||
           (plan->duration_ns > 0 && now_ns >= worker->run->started_ns + plan->duration_ns);
}

static uint64_t due_ns(const struct bench_worker *worker, uint64_t command)
{
    return worker->run->started_ns + (uint64_t)((double)command * worker->period_ns);
}

/* Sends what the connection may send now. */
static void issue(struct bench_worker *worker, struct connection *connection, uint64_t now_ns)
{
    const struct bench_plan *plan = worker->plan;
    uint64_t order;
    if (connection->fd < 0 || connection->connecting || stopping(worker, now_ns))
        return;
    if (plan->rate > 0) {
        uint64_t index = (uint64_t)(connection - worker->connections);
        while (connection->count < plan->depth && connection->issued < connection->due) {
            uint64_t command = connection->issued++ * worker->connection_count + index;
            (void)take_requests(worker, 1, &order);
            add_command(worker, connection, due_ns(worker, command), order);
        }
    } else if (connection->count == 0) {
        uint64_t taken = take_requests(worker, plan->depth, &order);
        for (uint64_t i = 0; i < taken; i++)
            add_command(worker, connection, now_ns, order + i);
    }
    if (connection->out.failed) {
        snprintf(worker->counts.refused, sizeof(worker->counts.refused), "out of memory");
        atomic_store(&worker->run->stop, true);
        return;
    }
    if (connection->out.size > 0 && !connection->wants_write)
        flush_output(worker, connection, now_ns);
}

/* Open loop: hands what has become due to the connections. */
static void advance_schedule(struct bench_worker *worker, uint64_t now_ns)
{
    uint64_t touched = 0;
    while (worker->next_due < worker->due_end && due_ns(worker, worker->next_due) <= now_ns) {
        worker->connections[worker->next_due % worker->connection_count].due++;
        worker->next_due++;
        touched++;
    }
    uint64_t all = worker->connection_count;
    uint64_t first = touched >= all ? 0 : (worker->next_due - touched) % all;
    for (uint64_t i = 0; i < touched && i < all; i++)
        issue(worker, &worker->connections[(first + i) % all], now_ns);
}

/* ---- answers -------------------------------------------------------------------------------------------- */

static void take_value(struct bench_worker *worker, const struct flight *flight,
                       const struct resp_answer *answer)
{
    if (answer->null) {
        worker->counts.misses++;
        return;
    }
    enum bench_verdict verdict = answer->type == '$'
                                     ? bench_check(&worker->plan->data, flight->number, answer->text)
                                     : BENCH_VALUE_DAMAGED;
    worker->counts.damaged += verdict == BENCH_VALUE_DAMAGED;
    worker->counts.foreign += verdict == BENCH_VALUE_FOREIGN;
    if (verdict != BENCH_VALUE_GOOD)
        atomic_fetch_add_explicit(&worker->run->failed, 1, memory_order_relaxed);
}

static void refuse_run(struct bench_worker *worker, const char *lead, struct span text)
{
    char shown[160];
    span_copy_text(text, shown, sizeof(shown));
    snprintf(worker->counts.refused, sizeof(worker->counts.refused), "%s%s", lead, shown);
    atomic_store(&worker->run->stop, true);
}

static void take_answer(struct bench_worker *worker, struct connection *connection,
                        const struct resp_answer *answer, uint64_t now_ns)
{
    struct flight flight = connection->flights[connection->head];
    bool error = answer->type == '-' || answer->type == '!';
    connection->head = (connection->head + 1) % worker->flights_max;
    connection->count--;
    if (flight.kind == FLIGHT_PREFACE) {
        if (error)
            refuse_run(worker, "the node takes no --r or --w: ", answer->text);
        return;
    }
    if (error) {
        bench_count_error(&worker->counts, answer->text, 1);
        worker->counts.read_errors += flight.kind == FLIGHT_READ;
        worker->counts.write_errors += flight.kind == FLIGHT_WRITE;
        atomic_fetch_add_explicit(&worker->run->failed, 1, memory_order_relaxed);
        return;
    }
    uint64_t took_ns = now_ns > flight.since_ns ? now_ns - flight.since_ns : 0;
    latency_add(flight.kind == FLIGHT_READ ? &worker->counts.reads : &worker->counts.writes, took_ns);
    if (flight.kind == FLIGHT_READ)
        take_value(worker, &flight, answer);
}

/* Takes all whole answers; false if the stream makes no sense. */
static bool take_answers(struct bench_worker *worker, struct connection *connection, uint64_t now_ns)
{
    size_t at = 0;
    uint64_t taken = 0;
    struct resp_answer answer;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && at < connection->in.size) {
        struct span rest = span_of(connection->in.data + at, connection->in.size - at);
        status = resp_read(&connection->reader, rest, &answer);
        if (status != STATUS_OK)
            break;
        if (connection->count == 0 || answer.type == '>') {
            refuse_run(worker, "the server sent something that nobody asked for: ", answer.text);
            return false;
        }
        take_answer(worker, connection, &answer, now_ns);
        at += answer.consumed;
        taken++;
    }
    buf_drop(&connection->in, at);
    if (taken > 0) {
        atomic_fetch_add_explicit(&worker->run->answered, taken, memory_order_relaxed);
        atomic_store_explicit(&worker->run->last_ns, now_ns, memory_order_relaxed);
    }
    if (status == STATUS_OK || status == STATUS_MORE)
        return true;
    refuse_run(worker, "the server's answers are not of the Redis protocol; is it the RESP port of a node?",
               span_of_text(""));
    return false;
}

static void read_input(struct bench_worker *worker, struct connection *connection)
{
    if (!buf_reserve(&connection->in, READ_BYTES_MIN)) {
        refuse_run(worker, "out of memory", span_of_text(""));
        return;
    }
    ssize_t got = recv(connection->fd, connection->in.data + connection->in.size,
                       connection->in.capacity - connection->in.size, MSG_DONTWAIT);
    uint64_t now_ns = bench_now_ns();
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        lose_connection(worker, connection, now_ns);
        return;
    }
    connection->in.size += (size_t)got;
    worker->counts.bytes_received += (uint64_t)got;
    if (take_answers(worker, connection, now_ns))
        issue(worker, connection, now_ns);
    else
        lose_connection(worker, connection, now_ns);
}

static void finish_connecting(struct bench_worker *worker, struct connection *connection, uint64_t now_ns)
{
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
        lose_connection(worker, connection, now_ns);
        return;
    }
    connection->connecting = false;
    atomic_fetch_add(&worker->run->connected, 1);
    if (worker->plan->preface.size > 0) {
        buf_append_span(&connection->out, worker->plan->preface);
        add_flight(worker, connection, (struct flight){.since_ns = now_ns, .kind = FLIGHT_PREFACE});
    }
    watch(worker, connection, EPOLL_CTL_MOD, false);
    /* In a closed loop the preface is answered first, then the first commands go. */
    issue(worker, connection, now_ns);
}

static void take_event(struct bench_worker *worker, const struct epoll_event *event)
{
    struct connection *connection = event->data.ptr;
    if (connection->fd < 0)
        return;
    if (connection->connecting) {
        finish_connecting(worker, connection, bench_now_ns());
        return;
    }
    if ((event->events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0)
        read_input(worker, connection);
    if ((event->events & EPOLLOUT) != 0 && connection->fd >= 0)
        flush_output(worker, connection, bench_now_ns());
}

/* ---- the loop ------------------------------------------------------------------------------------------- */

static uint64_t in_flight(const struct bench_worker *worker)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < worker->connection_count; i++)
        count += worker->connections[i].count;
    return count;
}

/* Closed loop: all was begun. Open loop: all that will ever be due was sent. */
static bool all_begun(const struct bench_worker *worker)
{
    if (worker->plan->rate == 0)
        return worker->exhausted;
    if (worker->next_due < worker->due_end)
        return false;
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        if (worker->connections[i].issued < worker->connections[i].due)
            return false;
    }
    return true;
}

static void reconnect(struct bench_worker *worker, uint64_t now_ns)
{
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        struct connection *connection = &worker->connections[i];
        if (connection->fd < 0 && connection->retry_at_ns <= now_ns)
            start_connection(worker, connection, now_ns);
    }
}

static void wait_for_events(struct bench_worker *worker, uint64_t now_ns)
{
    struct epoll_event events[EVENTS_MAX];
    uint64_t sleep_ns = SLEEP_NS_MAX;
    if (worker->plan->rate > 0 && worker->next_due < worker->due_end) {
        uint64_t next_ns = due_ns(worker, worker->next_due);
        uint64_t left_ns = next_ns > now_ns ? next_ns - now_ns : 0;
        sleep_ns = left_ns < sleep_ns ? left_ns : sleep_ns;
    }
    struct timespec timeout = {.tv_sec = 0, .tv_nsec = (long)sleep_ns};
    int count = epoll_pwait2(worker->epoll, events, EVENTS_MAX, &timeout, NULL);
    if (count < 0 && errno == ENOSYS) /* before Linux 5.11 */
        count = epoll_wait(worker->epoll, events, EVENTS_MAX, (int)(sleep_ns / NS_PER_MS));
    for (int i = 0; i < count; i++)
        take_event(worker, &events[i]);
}

static void *run_worker(void *context)
{
    struct bench_worker *worker = context;
    struct rusage usage;
    uint64_t stopped_ns = 0;
    uint64_t looked_ns = 0;
    (void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    for (;;) {
        uint64_t now_ns = bench_now_ns();
        bool ending = stopping(worker, now_ns) || all_begun(worker);
        if (ending && stopped_ns == 0)
            stopped_ns = now_ns;
        if (ending && (in_flight(worker) == 0 || now_ns > stopped_ns + DRAIN_NS))
            break;
        if (!ending && worker->plan->rate > 0)
            advance_schedule(worker, now_ns);
        if (!ending && now_ns >= looked_ns + SLEEP_NS_MAX) {
            looked_ns = now_ns;
            reconnect(worker, now_ns);
        }
        wait_for_events(worker, now_ns);
    }
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        worker->counts.unanswered += worker->connections[i].count;
        worker->counts.unsent += worker->connections[i].due - worker->connections[i].issued;
    }
    if (getrusage(RUSAGE_THREAD, &usage) == 0)
        worker->counts.cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                               (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    atomic_fetch_sub(&worker->run->workers_left, 1);
    return NULL;
}

/* ---- start and end -------------------------------------------------------------------------------------- */

static void free_worker(struct bench_worker *worker)
{
    for (uint32_t i = 0; worker->connections != NULL && i < worker->connection_count; i++) {
        struct connection *connection = &worker->connections[i];
        if (connection->fd >= 0)
            close(connection->fd);
        alloc_put(&worker->alloc, connection->flights, worker->flights_max * sizeof(struct flight));
        buf_free(&connection->out);
        buf_free(&connection->in);
    }
    alloc_put(&worker->alloc, worker->connections, worker->connection_count * sizeof(struct connection));
    if (worker->epoll >= 0)
        close(worker->epoll);
    struct alloc alloc = worker->alloc;
    alloc_put(&alloc, worker, sizeof(*worker));
}

static bool prepare_connections(struct bench_worker *worker, uint32_t index)
{
    const struct bench_plan *plan = worker->plan;
    worker->connections =
        alloc_get_zeroed(&worker->alloc, worker->connection_count * sizeof(struct connection));
    if (worker->connections == NULL)
        return false;
    for (uint32_t i = 0; i < worker->connection_count; i++)
        worker->connections[i].fd = -1;
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        struct connection *connection = &worker->connections[i];
        connection->target = (index + i * plan->threads) % plan->target_count;
        connection->reader.bulk_bytes_max = VALUE_BYTES_MAX_HARD;
        buf_init(&connection->out, &worker->alloc);
        buf_init(&connection->in, &worker->alloc);
        connection->flights = alloc_get(&worker->alloc, worker->flights_max * sizeof(struct flight));
        if (connection->flights == NULL)
            return false;
    }
    return true;
}

struct bench_worker *bench_worker_start(struct bench_run *run, uint32_t index)
{
    const struct bench_plan *plan = run->plan;
    struct alloc alloc;
    alloc_init(&alloc, MEMORY_BYTES_MAX);
    struct bench_worker *worker = alloc_get_zeroed(&alloc, sizeof(*worker));
    if (worker == NULL)
        return NULL;
    worker->alloc = alloc;
    worker->run = run;
    worker->plan = plan;
    worker->flights_max = plan->depth + 1;
    worker->connection_count =
        plan->connections / plan->threads + (index < plan->connections % plan->threads);
    prng_seed(&worker->prng, plan->seed + index);
    if (plan->rate > 0)
        worker->period_ns =
            1e9 * (double)plan->connections / ((double)plan->rate * (double)worker->connection_count);
    worker->due_end = plan->requests == 0
                          ? UINT64_MAX
                          : plan->requests / plan->threads + (index < plan->requests % plan->threads);
    worker->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (worker->epoll >= 0 && prepare_connections(worker, index) &&
        pthread_create(&worker->thread, NULL, run_worker, worker) == 0)
        return worker;
    free_worker(worker);
    return NULL;
}

void bench_worker_join(struct bench_worker *worker, struct bench_counts *counts)
{
    (void)pthread_join(worker->thread, NULL);
    bench_counts_merge(counts, &worker->counts);
    free_worker(worker);
}
