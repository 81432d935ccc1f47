/* Gossip datagrams. */
#include "edge/datagram.h"

#include <sys/socket.h>

#include "edge/loop.h"

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct loop *loop = handle->data;
    (void)suggested;
    *buffer = uv_buf_init((char *)loop->datagrams.input, sizeof loop->datagrams.input);
}

static void on_datagram(uv_udp_t *socket, ssize_t size, const uv_buf_t *buffer, const struct sockaddr *from,
                        unsigned flags)
{
    struct loop *loop = socket->data;
    bool whole = size > 0 && (flags & UV_UDP_PARTIAL) == 0 && (size_t)size <= MESSAGE_DATAGRAM_BYTES_MAX;
    if (!whole || from == NULL)
        return; /* nothing more to read, an error of an earlier send, or none of ours */
    struct event event = {.kind = EVENT_DATAGRAM,
                          .bytes = span_of((const uint8_t *)buffer->base, (size_t)size)};
    loop_step(loop, &event);
}

/* A larger buffer than the kernel's limit needs a privilege or a setting; less of it only loses more in bursts. */
static void enlarge_buffer(struct loop *loop, uv_udp_t *socket)
{
    int bytes = DATAGRAM_RECEIVE_BYTES;
    int given = 0;
    uv_recv_buffer_size((uv_handle_t *)socket, &bytes);
    uv_recv_buffer_size((uv_handle_t *)socket, &given);
    if (given < DATAGRAM_RECEIVE_BYTES)
        loop_say(loop, SAY_DEBUG,
                 "the kernel gives gossip a receive buffer of %d bytes, not %d; in large clusters raise "
                 "net.core.rmem_max",
                 given, DATAGRAM_RECEIVE_BYTES);
}

static int open_socket(struct loop *loop, int listener)
{
    struct datagrams *datagrams = &loop->datagrams;
    struct sockaddr_storage address = {0};
    socklen_t address_size = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &address_size) != 0)
        return UV_EINVAL;
    uv_udp_t *socket = &datagrams->sockets[datagrams->count];
    int error = uv_udp_init(&loop->uv, socket);
    if (error != 0)
        return error;
    socket->data = loop;
    datagrams->families[datagrams->count++] = address.ss_family;
    unsigned flags = address.ss_family == AF_INET6 ? UV_UDP_IPV6ONLY : 0;
    error = uv_udp_bind(socket, (const struct sockaddr *)&address, flags);
    if (error != 0)
        return error;
    enlarge_buffer(loop, socket);
    return uv_udp_recv_start(socket, give_buffer, on_datagram);
}

int datagrams_open(struct loop *loop, const struct listener_sockets *listener)
{
    int error = 0;
    for (uint16_t i = 0; i < listener->addresses && error == 0; i++)
        error = open_socket(loop, listener->descriptors[i]);
    return error;
}

void datagram_send(struct loop *loop, uint64_t node, struct span bytes)
{
    struct datagrams *datagrams = &loop->datagrams;
    const struct sockaddr *address = peer_conn_address(loop, node);
    for (uint16_t i = 0; address != NULL && i < datagrams->count; i++) {
        if (datagrams->families[i] != address->sa_family)
            continue;
        uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)bytes.data, (unsigned)bytes.size);
        (void)uv_udp_try_send(&datagrams->sockets[i], &buffer, 1, address);
        return;
    }
}

void datagrams_close(struct loop *loop)
{
    struct datagrams *datagrams = &loop->datagrams;
    for (uint16_t i = 0; i < datagrams->count; i++)
        uv_close((uv_handle_t *)&datagrams->sockets[i], NULL);
    datagrams->count = 0;
}
