/* What nodes say to each other about who is alive: the format of gossip datagrams.
 *
 * Little endian: u32 magic | u8 version | u8 type | u16 rumours | u64 checksum of all the rest, seeded with the
 * cluster | 16 bytes cluster id | u64 from | u64 target | u32 sequence | rumours, each u64 node | u64 incarnation |
 * u64 accuser | u8 state. Fields that a type does not use are zero. Every message but the two EXCHANGE fits a datagram
 * of MESSAGE_DATAGRAM_BYTES_MAX; those travel over peer connections only, as may the others.
 *
 * Messages come from anybody who can send UDP: everything is validated, nothing asserted. */
#ifndef RONDO_GOSSIP_MESSAGE_H
#define RONDO_GOSSIP_MESSAGE_H

#include "base/hash.h"
#include "gossip/rumours.h"

#define MESSAGE_VERSION 1u
#define MESSAGE_HEADER_BYTES 52u
#define MESSAGE_RUMOUR_BYTES 25u

/* Below every usual MTU (1500, less tunnels and headers), so that no datagram is fragmented. */
#define MESSAGE_DATAGRAM_BYTES_MAX 1400u
#define MESSAGE_DATAGRAM_RUMOURS_MAX \
    ((MESSAGE_DATAGRAM_BYTES_MAX - MESSAGE_HEADER_BYTES) / MESSAGE_RUMOUR_BYTES)

/* An EXCHANGE names every member once. */
#define MESSAGE_BYTES_MAX (MESSAGE_HEADER_BYTES + NODES_MAX * MESSAGE_RUMOUR_BYTES)

/* A node can always take a greater incarnation than any it is accused of: counting up by one never gets here. */
#define INCARNATION_MAX (UINT64_C(1) << 62)

enum message_type {
    MESSAGE_PING = 1,     /* sequence, target: are you there? */
    MESSAGE_ACK = 2,      /* sequence: yes; target: who is there (a helper passes it on) */
    MESSAGE_PING_ASK = 3, /* sequence, target: ask it for me */
    MESSAGE_NACK = 4,     /* sequence, target: I asked it, and it has not answered so far */
    MESSAGE_GOSSIP = 5,   /* only rumours */
    MESSAGE_EXCHANGE = 6, /* all that the sender knows; answered by the next */
    MESSAGE_EXCHANGE_ANSWER = 7,
};
#define MESSAGE_TYPE_MAX 7

struct message {
    enum message_type type;
    uint64_t from;
    uint64_t target;       /* a node; 0 for GOSSIP and EXCHANGE */
    uint32_t sequence;     /* 0 likewise */
    uint16_t rumour_count; /* decoded */
    struct span rumours;   /* decoded: a view into the bytes */
};

/* Appends the header; message_add_rumour any number of times follows, then message_seal, with the size that the buf
 * had before. Out of memory shows in buf->failed. */
void message_begin(struct buf *buf, struct hash_128 cluster, const struct message *message);
void message_add_rumour(struct buf *buf, const struct rumour *rumour);
void message_seal(struct buf *buf, size_t start, struct hash_128 cluster);

/* Reads one whole message. WRONG_CLUSTER and WRONG_PROTOCOL: of another cluster or version; CORRUPT: the checksum is
 * wrong; MALFORMED: anything else that the encoder would not have written. */
MUST_CHECK enum status message_decode(struct span bytes, struct hash_128 cluster, struct message *message);

/* The rumour number `at` of a decoded message. */
struct rumour message_rumour(const struct message *message, uint16_t at);

/* "PING_ASK"; static storage. */
const char *message_type_name(enum message_type type);

#endif
