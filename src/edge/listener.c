/* Listening sockets. */
#include "edge/listener.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum status listener_split(struct span address, char host[ADDRESS_BYTES_MAX], char port[8])
{
    uint64_t number;
    size_t colon = address.size;
    while (colon > 0 && address.data[colon - 1] != ':')
        colon--;
    if (colon < 2)
        return STATUS_BAD_REQUEST;
    struct span host_text = span_of(address.data, colon - 1);
    struct span port_text = span_of(address.data + colon, address.size - colon);
    if (host_text.data[0] == '[') {
        if (host_text.size < 3 || host_text.data[host_text.size - 1] != ']')
            return STATUS_BAD_REQUEST;
        host_text = span_of(host_text.data + 1, host_text.size - 2);
    } else if (memchr(host_text.data, ':', host_text.size) != NULL) {
        return STATUS_BAD_REQUEST; /* an IPv6 address without brackets: where does the port start? */
    }
    if (host_text.size >= ADDRESS_BYTES_MAX || port_text.size > 5 ||
        memchr(host_text.data, 0, host_text.size) || span_parse_u64(port_text, &number) != STATUS_OK ||
        number > 65535)
        return STATUS_BAD_REQUEST;
    memcpy(host, host_text.data, host_text.size);
    host[host_text.size] = 0;
    memcpy(port, port_text.data, port_text.size);
    port[port_text.size] = 0;
    return STATUS_OK;
}

static const char *advice(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "stop the other process or choose another port";
    case EACCES:
        return "ports below 1024 need privileges: choose a higher one";
    case EADDRNOTAVAIL:
        return "this machine has no such address: choose one of its own";
    case EMFILE:
    case ENFILE:
        return "raise the limit of open files (ulimit -n)";
    default:
        return "choose another address";
    }
}

/* The operating system's words, in lower case as part of a sentence. */
static void append_reason(struct buf *why, const char *address, const char *flag, const char *reason,
                          const char *what_to_do)
{
    char text[128];
    size_t size = strlen(reason) < sizeof text ? strlen(reason) : sizeof text - 1;
    memcpy(text, reason, size);
    text[size] = 0;
    if (text[0] >= 'A' && text[0] <= 'Z')
        text[0] = (char)(text[0] | 0x20);
    buf_append_format(why, "cannot listen on %s (%s): %s; %s", address, flag, text, what_to_do);
}

/* One bound socket; -1 with errno set. Sockets that share a port say so; those that probe must not. */
static int bind_one(const struct addrinfo *info, const struct sockaddr *address, bool share)
{
    int on = 1;
    int descriptor = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0)
        return -1;
    bool bound = setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
                 (!share || setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
    if (bound && info->ai_family == AF_INET6)
        bound = setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0;
    if (bound && bind(descriptor, address, info->ai_addrlen) == 0)
        return descriptor;
    int error = errno;
    close(descriptor);
    errno = error;
    return -1;
}

/* Binds all copies to one address; 0 or an errno, then with nothing open. */
static int bind_address(const struct addrinfo *info, uint16_t copies, int descriptors[SHARDS_MAX])
{
    struct sockaddr_storage address;
    socklen_t address_size = sizeof address;
    /* Sockets that share a port would also share it with another rondod of the same user: this probe does not. */
    int probe = bind_one(info, info->ai_addr, false);
    if (probe < 0)
        return errno;
    if (getsockname(probe, (struct sockaddr *)&address, &address_size) != 0) { /* port 0: one port for all */
        close(probe);
        return EINVAL;
    }
    if (copies == 1) {
        descriptors[0] = probe;
        return 0;
    }
    close(probe);
    for (uint16_t i = 0; i < copies; i++) {
        descriptors[i] = bind_one(info, (const struct sockaddr *)&address, true);
        if (descriptors[i] < 0) {
            int error = errno;
            while (i-- > 0)
                close(descriptors[i]);
            return error;
        }
    }
    return 0;
}

static int bind_all(struct listener_sockets *sockets, const struct addrinfo *first)
{
    int bound[LISTENER_ADDRESSES_MAX][SHARDS_MAX] = {{0}};
    int error = 0;
    for (const struct addrinfo *info = first; info != NULL && sockets->addresses < LISTENER_ADDRESSES_MAX;
         info = info->ai_next) {
        int failed = bind_address(info, sockets->copies, bound[sockets->addresses]);
        if (failed == 0)
            sockets->addresses++;
        else if (error == 0 || failed == EADDRINUSE)
            error = failed;
    }
    for (uint16_t copy = 0; copy < sockets->copies; copy++) {
        for (uint16_t i = 0; i < sockets->addresses; i++)
            sockets->descriptors[copy * sockets->addresses + i] = bound[i][copy];
    }
    /* A name may stand for an address that this machine lacks; but a port that is taken is never passed over. */
    if (sockets->addresses > 0 && error != EADDRINUSE)
        return 0;
    listener_close(sockets);
    return error != 0 ? error : EADDRNOTAVAIL;
}

enum status listener_bind(struct listener_sockets *sockets, const char *address, const char *flag,
                          uint16_t copies, struct buf *why)
{
    char host[ADDRESS_BYTES_MAX];
    char port[8];
    struct addrinfo *found = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE};
    assert(copies >= 1 && copies <= SHARDS_MAX);
    *sockets = (struct listener_sockets){.copies = copies};
    if (listener_split(span_of_text(address), host, port) != STATUS_OK) {
        append_reason(why, address, flag, "not an address", "write HOST:PORT or [IPV6]:PORT");
        return STATUS_BAD_REQUEST;
    }
    int failed = getaddrinfo(host, port, &hints, &found);
    if (failed != 0) {
        append_reason(why, address, flag, gai_strerror(failed), "check the host's name");
        return STATUS_BAD_REQUEST;
    }
    int error = bind_all(sockets, found);
    freeaddrinfo(found);
    if (error == 0)
        return STATUS_OK;
    append_reason(why, address, flag, strerror(error), advice(error));
    return STATUS_IO_ERROR;
}

void listener_close(struct listener_sockets *sockets)
{
    for (int i = 0; i < sockets->copies * sockets->addresses; i++) {
        if (sockets->descriptors[i] >= 0)
            close(sockets->descriptors[i]);
    }
    sockets->addresses = 0;
}

void listener_describe(const char *address, const char *flag, int error, struct buf *why)
{
    append_reason(why, address, flag, uv_strerror(error), advice(-error));
}

int listener_open(struct listener_sockets *sockets, uint16_t copy, uv_loop_t *uv, uv_tcp_t *handles,
                  void *data, uv_connection_cb callback, uint16_t *count)
{
    assert(copy < sockets->copies);
    for (uint16_t i = 0; i < sockets->addresses; i++) {
        int *descriptor = &sockets->descriptors[copy * sockets->addresses + i];
        int error = uv_tcp_init(uv, &handles[i]);
        if (error != 0)
            return error;
        handles[i].data = data;
        ++*count;
        error = uv_tcp_open(&handles[i], *descriptor);
        if (error != 0)
            return error;
        *descriptor = -1;
        error = uv_listen((uv_stream_t *)&handles[i], LISTENER_BACKLOG, callback);
        if (error != 0)
            return error;
    }
    return 0;
}
