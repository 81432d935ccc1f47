/* Peer frames: what nodes, and the shards of one node, say to each other.
 *
 * A frame is: u32 size (of what follows) | u8 type | u8 from_shard | u8 to_shard | u8 zero | u64 request |
 * u64 epoch | body. to_shard is the shard it is for, or FRAME_BY_SLOT: then the body starts with a u16 slot and
 * the receiving node finds the shard. request is the sender's number for the exchange; an answer repeats it.
 * epoch is the sender's ring epoch (DESIGN "epoch fencing").
 *
 * A connection starts with HELLO from the side that opened it; the other side answers WELCOME or REFUSE on the
 * same connection, and nothing else ever goes in that direction. Version 2; a peer of another version is refused
 * with a text that says so. Bodies are little endian; docs/peer-protocol.md has the tables.
 *
 * Encoders append one whole frame to a struct buf, which fails stickily when its budget is used up. Decoders give
 * views into the frame and answer MALFORMED for anything that the encoder would not have written. */
#ifndef RONDO_PROTO_FRAME_H
#define RONDO_PROTO_FRAME_H

#include "base/hash.h"
#include "base/limits.h"
#include "model/operation.h"
#include "model/record.h"
#include "model/run.h"

#define FRAME_HEADER_BYTES 24
#define FRAME_PROTOCOL_VERSION 3
#define FRAME_HELLO_MAGIC 0x4f444e52u /* "RNDO" */
#define FRAME_BY_SLOT 0xff

enum frame_type {
    FRAME_HELLO = 1,   /* opens a connection */
    FRAME_WELCOME = 2, /* accepts it */
    FRAME_REFUSE = 3,  /* refuses it, and says why */
    FRAME_PING = 4,    /* clock reading */
    FRAME_PONG = 5,    /* clock readings of both sides */
    FRAME_PUT = 6,     /* merge this record; also write-backs */
    FRAME_PUT_ACK = 7, /* done durably, or why not, and the version held */
    FRAME_GET = 8,     /* the record of a key, or only its version */
    FRAME_GET_ANSWER = 9,
    FRAME_RING_ASK = 10, /* send me your ring record */
    FRAME_RING = 11,     /* here it is */
    FRAME_EXEC = 12,     /* between the shards of a node: coordinate this operation */
    FRAME_EXEC_DONE = 13,
    FRAME_STATE = 14,     /* shard 0 to its siblings: whether this node's answers count */
    FRAME_STATS_ASK = 15, /* between the shards of a node: counters for INFO and /status */
    FRAME_STATS = 16,
    FRAME_PASSED = 17, /* between the shards of a node: a frame of another node that came to the wrong one */
    FRAME_GOSSIP = 18, /* what would be a gossip datagram, over the connection */
    FRAME_LIVENESS = 19, /* shard 0 to its siblings: what gossip says of a node */
    FRAME_REPAIR = 20,   /* anti-entropy: purge floors and a message of repair/exchange.h */
    FRAME_REPAIR_ANSWER = 21,
    FRAME_HINTS_ASK = 22,  /* which slots have hints with you? */
    FRAME_HINTS_HELD = 23, /* these */
    FRAME_QUARANTINE = 24, /* to shard 0 from its siblings: slots that are damaged, or healed */
    FRAME_ROWS_ASK =
        25, /* between the shards of a node: a slot's rows, for /local/rows, or how many keys it has */
    FRAME_ROWS = 26,
    FRAME_HEALING_ASK = 27, /* between the shards of a node: hints, repair and tombstones, for /status */
    FRAME_HEALING = 28,
    FRAME_RUN = 29,         /* to shard 0: how far the sender's data directory has come */
    FRAME_REPAIR_DONE = 30, /* an exchange ended: all its slots are equal but these */
    FRAME_QUESTION = 31,    /* between the shards of a node: carry this command out for yourself */
    FRAME_ANSWER = 32,
};
#define FRAME_TYPE_MAX 32

struct frame {
    enum frame_type type;
    uint8_t from_shard;
    uint8_t to_shard;
    uint64_t request;
    uint64_t epoch;
    struct span body;
    struct span whole; /* the frame with its size, to pass on */
};

/* Cuts the first frame off bytes. MORE: *need is the least total size to try again with. MALFORMED: the sender
 * does not speak this protocol; close the connection. On OK frame->whole.size bytes are consumed. */
MUST_CHECK enum status frame_cut(struct span bytes, struct frame *frame, size_t *need);

/* The slot a FRAME_BY_SLOT frame is about; MALFORMED if it has none in range. */
MUST_CHECK enum status frame_slot(const struct frame *frame, uint16_t *slot);

/* What every encoder needs besides the body. */
struct frame_head {
    uint8_t from_shard;
    uint8_t to_shard;
    uint64_t request;
    uint64_t epoch;
};

/* ---- greeting ------------------------------------------------------------------------------------------- */

struct frame_hello {
    struct hash_128 cluster; /* the cluster's id */
    uint64_t node;
    uint64_t directory;      /* id of the sender's data directory */
    struct run_history runs; /* how far that has come */
    uint16_t shards;         /* K of the sender */
    uint16_t shard;          /* the sender's shard; the link is for shard mod the receiver's K */
    struct span name;
    struct span resp_address; /* where clients reach the sender */
    struct span http_address;
    struct span ring; /* the sender's ring record: lets a refusal name the differing member */
};

struct frame_welcome {
    uint64_t node;
    uint64_t directory;
    uint16_t shards;
    /* The answerer remembers the asker under another directory id: the asker has lost its disk. */
    bool knew_other_directory;
    /* It saw a newer directory of the asker before, or a newer state of this one: an old one was put back. */
    bool superseded;
    struct span resp_address;
    struct span http_address;
    uint64_t ring_epoch;
};

struct frame_refuse {
    enum status status;
    struct span text;
};

void frame_put_hello(struct buf *buf, struct frame_head head, const struct frame_hello *hello);
MUST_CHECK enum status frame_read_hello(const struct frame *frame, struct frame_hello *hello);
void frame_put_welcome(struct buf *buf, struct frame_head head, const struct frame_welcome *welcome);
MUST_CHECK enum status frame_read_welcome(const struct frame *frame, struct frame_welcome *welcome);
void frame_put_refuse(struct buf *buf, struct frame_head head, const struct frame_refuse *refuse);
MUST_CHECK enum status frame_read_refuse(const struct frame *frame, struct frame_refuse *refuse);

/* How far the run has come that HELLO named. */
struct frame_run {
    uint64_t directory;
    struct run run;
};

void frame_put_run(struct buf *buf, struct frame_head head, const struct frame_run *run);
MUST_CHECK enum status frame_read_run(const struct frame *frame, struct frame_run *run);

/* ---- clocks --------------------------------------------------------------------------------------------- */

/* Four readings as in NTP: the asker's send time goes out and comes back with the answerer's clock. */
struct frame_ping {
    uint64_t sent_mono_us; /* of the asker; only echoed */
    uint64_t sent_wall_ms;
    uint64_t answered_wall_ms; /* PONG only */
};

void frame_put_ping(struct buf *buf, struct frame_head head, const struct frame_ping *ping);
void frame_put_pong(struct buf *buf, struct frame_head head, const struct frame_ping *pong);
MUST_CHECK enum status frame_read_ping(const struct frame *frame, struct frame_ping *ping); /* either */

/* ---- requests to replicas ------------------------------------------------------------------------------- */

struct frame_put {
    uint16_t slot;
    uint64_t deadline_ms; /* wall clock; dropped past it */
    bool write_back;      /* read repair: not counted as a client's write */
    uint64_t hint_for;    /* keep it as a hint for this node, which cannot be reached; 0 = merge it */
    struct span key;
    struct span record;
};

struct frame_put_ack {
    enum status status;     /* OK: merged and durable */
    bool was_live;          /* a live value was held before */
    struct version version; /* held now */
};

struct frame_get {
    uint16_t slot;
    uint64_t deadline_ms;
    bool digest;       /* the version will do, unless the record is small */
    uint64_t hint_for; /* what is kept as a hint for this node; 0 = what the replica holds */
    struct span key;
};

struct frame_get_answer {
    enum status status; /* OK; QUARANTINED: data that does not count towards R; else why not */
    bool has_record;    /* record is present (it may be empty: nothing is held) */
    struct version version;
    struct span record;
};

void frame_put_put(struct buf *buf, struct frame_head head, const struct frame_put *put);
MUST_CHECK enum status frame_read_put(const struct frame *frame, struct frame_put *put);
void frame_put_put_ack(struct buf *buf, struct frame_head head, const struct frame_put_ack *ack);
MUST_CHECK enum status frame_read_put_ack(const struct frame *frame, struct frame_put_ack *ack);
void frame_put_get(struct buf *buf, struct frame_head head, const struct frame_get *get);
MUST_CHECK enum status frame_read_get(const struct frame *frame, struct frame_get *get);
void frame_put_get_answer(struct buf *buf, struct frame_head head, const struct frame_get_answer *answer);
MUST_CHECK enum status frame_read_get_answer(const struct frame *frame, struct frame_get_answer *answer);

/* ---- ring ----------------------------------------------------------------------------------------------- */

void frame_put_ring_ask(struct buf *buf, struct frame_head head);
void frame_put_ring(struct buf *buf, struct frame_head head, struct span ring);
/* The body of a FRAME_RING is the encoded record itself. */

/* ---- between the shards of one node --------------------------------------------------------------------- */

void frame_put_exec(struct buf *buf, struct frame_head head, uint16_t slot,
                    const struct operation *operation);
MUST_CHECK enum status frame_read_exec(const struct frame *frame, uint16_t *slot,
                                       struct operation *operation);
void frame_put_exec_done(struct buf *buf, struct frame_head head, const struct result *result);
MUST_CHECK enum status frame_read_exec_done(const struct frame *frame, struct result *result);

/* The largest frame that can be passed on inside another; those that nodes have reason to send are smaller. */
#define FRAME_PASSED_BYTES_MAX (FRAME_BYTES_MAX - FRAME_HEADER_BYTES - 8u)

/* A whole frame that node sent, for the sibling that it is about; of at most FRAME_PASSED_BYTES_MAX. */
void frame_put_passed(struct buf *buf, struct frame_head head, uint64_t node, struct span frame);
MUST_CHECK enum status frame_read_passed(const struct frame *frame, uint64_t *node, struct frame *passed);

/* A frame whose body is bytes known only to the two ends (STATE, STATS_ASK, STATS, LIVENESS; GOSSIP). */
void frame_put_raw(struct buf *buf, enum frame_type type, struct frame_head head, struct span body);

/* The type's name for logs and timelines ("PUT_ACK"); static storage. */
const char *frame_type_name(enum frame_type type);

#endif
