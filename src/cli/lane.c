/* Pipelined writes over a socket that never blocks. */
#include "cli/lane.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "proto/resp_reply.h"

#define BACKOFF_MS_MIN 50u
#define BACKOFF_MS_MAX 2000u
#define CONNECT_MS_MAX 5000u

/* A node ends every request well before; what is silent for longer is gone. */
#define SILENCE_MS_MAX 20000u

/* An answer to SET is a short line. */
#define ANSWER_BYTES_MAX (64u << 10)

/* Acknowledged writes leave the buffer in pieces of this size, so that each is moved once. */
#define OUTPUT_DROP_BYTES (1u << 20)

void lane_init(struct lane *lane, struct alloc *alloc, const struct lane_options *options, uint16_t target)
{
    memset(lane, 0, sizeof(*lane));
    lane->options = options;
    lane->fd = -1;
    lane->target = target;
    lane->window = LANE_WINDOW_MAX;
    lane->backoff_ms = BACKOFF_MS_MIN;
    buf_init(&lane->output, alloc);
    buf_init(&lane->input, alloc);
}

static void close_connection(struct lane *lane)
{
    if (lane->fd >= 0)
        close(lane->fd);
    lane->fd = -1;
    lane->state = LANE_CLOSED;
    lane->draining = false;
    lane->admitted = 0;
    lane->admitted_bytes = 0;
    lane->sent = 0;
    buf_clear(&lane->input);
}

void lane_free(struct lane *lane)
{
    close_connection(lane);
    buf_free(&lane->output);
    buf_free(&lane->input);
}

const struct lane_command *lane_head(const struct lane *lane)
{
    return lane->count == 0 ? NULL : &lane->commands[lane->head];
}

enum status lane_add(struct lane *lane, const struct plain_row *row, uint64_t offset, uint64_t line,
                     uint64_t now_ms)
{
    size_t waiting = lane->output.size - lane->head_at;
    if (lane->count == LANE_COMMANDS_MAX ||
        (lane->count > 0 && waiting + row->key.size + row->value.size > LANE_BYTES_MAX))
        return STATUS_OVERLOADED;
    size_t start = lane->output.size;
    resp_reply_array(&lane->output, row->ttl_ms > 0 ? 5 : 3);
    resp_reply_text(&lane->output, "SET");
    resp_reply_bulk(&lane->output, buf_span(&row->key));
    resp_reply_bulk(&lane->output, buf_span(&row->value));
    if (row->ttl_ms > 0) {
        char digits[24];
        snprintf(digits, sizeof(digits), "%" PRIu64, row->ttl_ms);
        resp_reply_text(&lane->output, "PX");
        resp_reply_text(&lane->output, digits);
    }
    if (lane->output.failed) {
        lane->output.failed = false;
        lane->output.size = start;
        return STATUS_OVERLOADED;
    }
    lane->commands[(lane->head + lane->count) % LANE_COMMANDS_MAX] =
        (struct lane_command){.size = lane->output.size - start, .offset = offset, .line = line};
    if (lane->count == 0)
        lane->progress_ms = now_ms;
    lane->count++;
    return STATUS_OK;
}

/* ---- failures ------------------------------------------------------------------------------------------- */

static void note_trouble(struct lane *lane, struct span text, uint64_t now_ms)
{
    char shown[160];
    span_copy_text(text, shown, sizeof(shown));
    snprintf(lane->trouble, sizeof(lane->trouble), "%.80s: %s", lane->options->targets[lane->target], shown);
    lane->retry_at_ms = now_ms + lane->backoff_ms;
    lane->backoff_ms = lane->backoff_ms * 2 > BACKOFF_MS_MAX ? BACKOFF_MS_MAX : lane->backoff_ms * 2;
}

static void to_next_target(struct lane *lane)
{
    close_connection(lane);
    lane->target = (uint16_t)((lane->target + 1) % lane->options->target_count);
}

static void connection_failed(struct lane *lane, const char *text, uint64_t now_ms)
{
    note_trouble(lane, span_of_text(text), now_ms);
    to_next_target(lane);
}

static bool starts_with(struct span text, const char *word)
{
    size_t size = strlen(word);
    return text.size >= size && memcmp(text.data, word, size) == 0;
}

bool lane_error_passes(struct span text)
{
    static const char *const words[] = {"OVERLOADED", "TRYAGAIN",  "CLUSTERDOWN", "UNKNOWN",     "TIMEOUT",
                                        "CLOCK_SKEW", "DISK_FULL", "STARTING",    "QUARANTINED", "EXPIRED"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (starts_with(text, words[i]))
            return true;
    }
    return false;
}

/* ---- answers -------------------------------------------------------------------------------------------- */

static void pop_head(struct lane *lane)
{
    size_t size = lane->commands[lane->head].size;
    lane->head = (lane->head + 1) % LANE_COMMANDS_MAX;
    lane->count--;
    lane->admitted--;
    lane->admitted_bytes -= size;
    lane->sent -= size;
    lane->head_at += size;
    if (lane->count == 0 || lane->head_at >= OUTPUT_DROP_BYTES) {
        buf_drop(&lane->output, lane->head_at);
        lane->head_at = 0;
    }
}

static void take_ok(struct lane *lane, uint64_t now_ms)
{
    pop_head(lane);
    lane->acked++;
    lane->progress_ms = now_ms;
    lane->backoff_ms = BACKOFF_MS_MIN;
    lane->trouble[0] = 0;
    if (++lane->window_acked >= lane->window) {
        lane->window_acked = 0;
        lane->window += lane->window < LANE_WINDOW_MAX;
    }
}

static void take_refusal(struct lane *lane, struct span text, uint64_t now_ms)
{
    note_trouble(lane, text, now_ms);
    if (!lane_error_passes(text)) {
        lane->refused = true;
        return;
    }
    lane->draining = true;
    lane->ignored = 1;
    /* Overload and a full disk pass by waiting; for the rest another node may know better. */
    lane->move = !starts_with(text, "OVERLOADED") && !starts_with(text, "DISK_FULL");
    lane->window = lane->window > 1 ? lane->window / 2 : 1;
    lane->window_acked = 0;
}

/* One answer, without its line end. */
static void take_answer(struct lane *lane, struct span line, uint64_t now_ms)
{
    bool good = line.size > 0 && line.data[0] == '+';
    bool error = line.size > 0 && line.data[0] == '-';
    struct span text = line.size > 0 ? span_of(line.data + 1, line.size - 1) : line;
    if ((!good && !error) || (lane->preface_answered && lane->admitted == 0)) {
        connection_failed(lane, "it does not answer as a Rondo node does on its RESP port", now_ms);
    } else if (!lane->preface_answered) {
        lane->preface_answered = good;
        if (error && lane_error_passes(text))
            connection_failed(lane, "it is not ready", now_ms);
        else if (error)
            take_refusal(lane, text, now_ms);
    } else if (lane->draining) {
        lane->ignored++;
    } else if (good) {
        take_ok(lane, now_ms);
    } else {
        take_refusal(lane, text, now_ms);
    }
}

static void take_input(struct lane *lane, uint64_t now_ms)
{
    size_t at = 0;
    while (lane->state == LANE_READY && !lane->refused && at < lane->input.size) {
        const uint8_t *start = lane->input.data + at;
        const uint8_t *end = memchr(start, '\n', lane->input.size - at);
        if (end == NULL)
            break;
        size_t size = (size_t)(end - start);
        at += size + 1;
        take_answer(lane, span_of(start, size > 0 && start[size - 1] == '\r' ? size - 1 : size), now_ms);
    }
    if (lane->state == LANE_READY)
        buf_drop(&lane->input, at);
    if (lane->input.size > ANSWER_BYTES_MAX + LANE_WINDOW_MAX * LANE_TEXT_BYTES_MAX)
        connection_failed(lane, "its answer has no end", now_ms);
}

static void receive(struct lane *lane, uint64_t now_ms)
{
    uint8_t chunk[16 << 10];
    for (int i = 0; i < 4; i++) {
        ssize_t got = recv(lane->fd, chunk, sizeof(chunk), 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (got <= 0) {
            take_input(lane, now_ms);
            if (lane->state == LANE_READY && !lane->refused)
                connection_failed(lane, got == 0 ? "it closed the connection" : strerror(errno), now_ms);
            return;
        }
        buf_append(&lane->input, chunk, (size_t)got);
        lane->heard_ms = now_ms;
        if ((size_t)got < sizeof(chunk))
            break;
    }
    take_input(lane, now_ms);
}

/* ---- sending -------------------------------------------------------------------------------------------- */

static void start_connection(struct lane *lane, uint64_t now_ms)
{
    char host[ADDRESS_BYTES_MAX];
    const char *address = lane->options->targets[lane->target];
    const char *colon = strrchr(address, ':');
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int one = 1;
    struct span host_span = span_of(address, colon == NULL ? strlen(address) : (size_t)(colon - address));
    if (host_span.size >= 2 && host_span.data[0] == '[')
        host_span = span_of(host_span.data + 1, host_span.size - 2);
    span_copy_text(host_span, host, sizeof(host));
    int failure = getaddrinfo(host, colon == NULL ? "7379" : colon + 1, &hints, &found);
    if (failure != 0) {
        connection_failed(lane, gai_strerror(failure), now_ms);
        return;
    }
    lane->fd =
        socket(found->ai_family, found->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, found->ai_protocol);
    if (lane->fd >= 0)
        (void)setsockopt(lane->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    bool started =
        lane->fd >= 0 && (connect(lane->fd, found->ai_addr, found->ai_addrlen) == 0 || errno == EINPROGRESS);
    freeaddrinfo(found);
    if (!started) {
        connection_failed(lane, strerror(errno), now_ms);
        return;
    }
    lane->state = LANE_CONNECTING;
    lane->heard_ms = now_ms;
    lane->preface_sent = 0;
    lane->preface_answered = lane->options->preface.size == 0;
}

static void finish_connection(struct lane *lane, uint64_t now_ms)
{
    int failure = 0;
    socklen_t size = sizeof(failure);
    if (getsockopt(lane->fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0 || failure != 0) {
        connection_failed(lane, strerror(failure == 0 ? errno : failure), now_ms);
        return;
    }
    lane->state = LANE_READY;
    lane->heard_ms = now_ms;
}

static void admit(struct lane *lane, uint64_t now_ms)
{
    if (lane->draining || lane->refused || now_ms < lane->retry_at_ms)
        return;
    if (lane->admitted == 0)
        lane->heard_ms = now_ms;
    while (lane->admitted < lane->window && lane->admitted < lane->count) {
        lane->admitted_bytes += lane->commands[(lane->head + lane->admitted) % LANE_COMMANDS_MAX].size;
        lane->admitted++;
    }
}

/* Bytes that may go out now. */
static struct span to_send(const struct lane *lane)
{
    struct span preface = lane->options->preface;
    if (lane->preface_sent < preface.size)
        return span_of(preface.data + lane->preface_sent, preface.size - lane->preface_sent);
    if (lane->sent == lane->admitted_bytes)
        return span_of(NULL, 0);
    return span_of(lane->output.data + lane->head_at + lane->sent, lane->admitted_bytes - lane->sent);
}

static void transmit(struct lane *lane, uint64_t now_ms)
{
    for (struct span bytes = to_send(lane); bytes.size > 0; bytes = to_send(lane)) {
        ssize_t done = send(lane->fd, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (done < 0) {
            connection_failed(lane, strerror(errno), now_ms);
            return;
        }
        lane->heard_ms = now_ms;
        if (lane->preface_sent < lane->options->preface.size)
            lane->preface_sent += (size_t)done;
        else
            lane->sent += (size_t)done;
    }
}

short lane_events(const struct lane *lane)
{
    if (lane->state == LANE_CONNECTING)
        return POLLOUT;
    if (lane->state == LANE_CLOSED || lane->refused)
        return 0;
    return (short)(POLLIN | (to_send(lane).size > 0 ? POLLOUT : 0));
}

void lane_turn(struct lane *lane, short revents, uint64_t now_ms)
{
    if (lane->refused)
        return;
    if (lane->state == LANE_CLOSED && lane->count > 0 && now_ms >= lane->retry_at_ms)
        start_connection(lane, now_ms);
    if (lane->state == LANE_CONNECTING) {
        if ((revents & (POLLOUT | POLLERR | POLLHUP)) != 0)
            finish_connection(lane, now_ms);
        else if (now_ms > lane->heard_ms + CONNECT_MS_MAX)
            connection_failed(lane, "it does not answer", now_ms);
    }
    if (lane->state == LANE_READY && (revents & (POLLIN | POLLERR | POLLHUP)) != 0)
        receive(lane, now_ms);
    else if (lane->state == LANE_READY && lane->input.size > 0)
        take_input(lane, now_ms);
    if (lane->state == LANE_READY && lane->draining && lane->ignored == lane->admitted) {
        lane->draining = false;
        lane->admitted = 0;
        lane->admitted_bytes = 0;
        lane->sent = 0;
        if (lane->move)
            to_next_target(lane);
    }
    if (lane->state != LANE_READY)
        return;
    if (lane->admitted > 0 && now_ms > lane->heard_ms + SILENCE_MS_MAX) {
        connection_failed(lane, "it is silent", now_ms);
        return;
    }
    admit(lane, now_ms);
    transmit(lane, now_ms);
}

void lane_skip(struct lane *lane)
{
    pop_head(lane);
    lane->refused = false;
    lane->retry_at_ms = 0;
    lane->trouble[0] = 0;
}
