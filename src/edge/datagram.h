/* Gossip datagrams: one UDP socket for each address of the peer listener, at the same port, in the loop of shard 0.
 *
 * A datagram that cannot leave at once is dropped, as the network might drop it: what needs it asks again. The address
 * of a peer is the one that its TCP connection was last tried at (peer_conn.h), so nothing is looked up here, and the
 * loop never waits. What comes in is judged by the shard; one that is longer than any that nodes send is dropped. */
#ifndef RONDO_EDGE_DATAGRAM_H
#define RONDO_EDGE_DATAGRAM_H

#include <uv.h>

#include "base/span.h"
#include "edge/listener.h"
#include "gossip/message.h"

/* Asked of the kernel for what comes while the loop is busy: some 700 of the largest, a second's worth where every
 * other of NODES_MAX nodes has something to say. */
#define DATAGRAM_RECEIVE_BYTES (1 << 20)

struct loop;

struct datagrams {
    uv_udp_t sockets[LISTENER_ADDRESSES_MAX];
    int families[LISTENER_ADDRESSES_MAX];
    uint16_t count;
    uint8_t input[MESSAGE_DATAGRAM_BYTES_MAX + 1];
};

/* Binds to the addresses of the bound (not yet handed over) listener. Returns a libuv error. */
int datagrams_open(struct loop *loop, const struct listener_sockets *listener);

/* EFFECT_DATAGRAM_SEND. */
void datagram_send(struct loop *loop, uint64_t node, struct span bytes);

void datagrams_close(struct loop *loop);

#endif
