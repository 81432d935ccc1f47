/* The shard: one deterministic state machine with one door.
 *
 *     shard_step(shard, event, effects)
 *
 * An event is something that happened; effects are what the world must do about it. The edge and the simulator
 * are the two worlds. The same options, seed and events give the same effects, bit for bit (invariant 10).
 *
 * A world works in turns: it passes every event that is waiting, then EVENT_TURN_END. Most effects are gathered
 * during a turn and given out at its end, one per destination (one write per peer, one log batch, one message
 * per other shard). The contract of a turn:
 *  - effects are carried out in order, before the next shard_step of this shard; every span and pointer in them
 *    is valid until then, so the world copies what it keeps;
 *  - effects_clear is called once they are carried out;
 *  - timers: the world ends a turn no later than shard_next_deadline_us, even if nothing happened.
 *
 * The connections of a node. Every shard keeps one outgoing connection to every other node (EFFECT_PEER_CONNECT
 * asks for it once; the world reconnects with a backoff for as long as the process lives). All that a shard has
 * to say to a node, requests and answers, goes out there (EFFECT_PEER_SEND). Incoming peer connections ("links")
 * are accepted for shard 0, which reads the sender's HELLO and either refuses it or hands the link to the shard
 * that the sender asked for (EFFECT_LINK_MOVE). On a link only the greeting is ever written. */
#ifndef RONDO_SHARD_SHARD_H
#define RONDO_SHARD_SHARD_H

#include "base/limits.h"
#include "base/span.h"
#include "model/key.h"
#include "model/record.h"
#include "ring/ring.h"
#include "store/flush.h"
#include "store/memtable.h"
#include "store/meta.h"

struct shard;

struct now {
    uint64_t wall_ms; /* real time; may step */
    uint64_t mono_us; /* monotonic; starts anywhere */
};

enum client_protocol {
    CLIENT_RESP = 1,
    CLIENT_HTTP = 2,
};

enum event_kind {
    EVENT_TURN_END = 1,  /* nothing else is waiting: time has passed, gathered effects leave */
    EVENT_CLIENT_OPEN,   /* client, protocol */
    EVENT_CLIENT_DATA,   /* client, bytes -> consumed */
    EVENT_CLIENT_CLOSED, /* client: gone; nothing more is sent to it */
    EVENT_PEER_UP,       /* node: the outgoing connection is established */
    EVENT_PEER_DATA,     /* node, bytes -> consumed: the greeting's answer, on the outgoing connection */
    EVENT_PEER_DOWN,     /* node: the outgoing connection was lost (or could not be made, after an UP) */
    EVENT_LINK_OPEN,     /* link: a peer connection was accepted (shard 0 only) */
    EVENT_LINK_MOVED,    /* link, node: shard 0 accepted the sender's HELLO; what follows is ours */
    EVENT_LINK_DATA,     /* link, bytes -> consumed */
    EVENT_LINK_CLOSED,   /* link */
    EVENT_LOCAL,         /* bytes: what another shard of this node sent, whole frames */
    EVENT_LOG_DURABLE,   /* sequence: batches up to it are as durable as the node's mode asks */
    EVENT_LOG_FULL,      /* flag: the log cannot grow (true), or can again (false) */
    EVENT_COLD_RESULT,   /* ticket, status (OK, NOT_FOUND, or an error), bytes: the record */
    EVENT_FLUSH_DONE,    /* status: the job of the last EFFECT_FLUSH is in the cold tier (OK) or is not */
    EVENT_META_DURABLE,  /* sequence: that of the EFFECT_META_WRITE (shard 0 only) */
};

struct event {
    enum event_kind kind;
    enum client_protocol protocol;
    enum status status;
    bool flag;
    struct now now;
    uint64_t client; /* the world's number of a client connection; never reused while the process lives */
    uint64_t link;   /* likewise of an incoming peer connection */
    uint64_t node;   /* id of a node */
    uint64_t sequence;
    uint64_t ticket;
    struct span bytes; /* valid during the call only */
    /* Out, for *_DATA: how many bytes were used. The world keeps the rest and passes it again, from the same
     * byte on, once more has arrived (at least `need` bytes in all, when need > 0). If `paused` is set, the client
     * has as many commands in flight as it may: the world stops reading from it and passes the rest again after
     * EFFECT_CLIENT_RESUME. */
    bool paused;
    /* Out, for EVENT_CLIENT_DATA: every command read so far has been answered. */
    bool idle;
    size_t consumed;
    size_t need;
};

enum effect_kind {
    EFFECT_CLIENT_SEND = 1, /* client, bytes; with flag the connection is closed after them */
    EFFECT_CLIENT_RESUME,   /* client: no longer paused */
    EFFECT_PEER_CONNECT, /* node, bytes: its "host:port"; keep an outgoing connection to it from now on; asked for
                             * again: it answers now, so dial at once if it is not connected */
    EFFECT_PEER_SEND,   /* node, bytes: whole frames; dropped if there is no connection */
    EFFECT_PEER_DROP,   /* node: close the outgoing connection; it is made anew after a backoff */
    EFFECT_LINK_SEND,   /* link, bytes; with flag it is closed after them */
    EFFECT_LINK_MOVE,   /* link, shard, node: hand it (and its unconsumed bytes) to that shard of this node */
    EFFECT_LOCAL_SEND,  /* shard, bytes: whole frames for another shard of this node; never lost */
    EFFECT_LOG_APPEND,  /* sequence, bytes: payload of one batch; entries; flag: it holds clock bounds */
    EFFECT_COLD_READ,   /* ticket, bytes: the cold key */
    EFFECT_FLUSH,       /* job: sort it off this thread, ingest it, then EVENT_FLUSH_DONE */
    EFFECT_LOG_FLUSHED, /* sequence: what this shard appended up to it is in the cold tier */
    EFFECT_META_WRITE,  /* sequence, bytes: replace the meta file atomically and durably (shard 0 only) */
    EFFECT_SAY,         /* level, bytes: one line for the node's log */
};

enum say_level {
    SAY_ERROR,
    SAY_WARNING,
    SAY_INFO,
    SAY_DEBUG,
};

struct effect {
    enum effect_kind kind;
    bool flag;
    bool idle; /* CLIENT_SEND: every command read so far has been answered */
    uint16_t shard;
    enum say_level level;
    uint32_t entries;
    uint64_t client;
    uint64_t link;
    uint64_t node;
    uint64_t sequence;
    uint64_t ticket;
    struct flush_job *job;
    struct span bytes;
};

struct effects {
    struct alloc *alloc;
    struct effect *items;
    uint32_t count;
    uint32_t capacity;
};

/* A shard that cannot note an effect cannot go on: the world gives the list an alloc without a budget. */
struct effect *effects_add(struct effects *effects, enum effect_kind kind);

void effects_init(struct effects *effects, struct alloc *alloc);
void effects_clear(struct effects *effects);
void effects_free(struct effects *effects);

struct shard_options {
    uint16_t shard;           /* this shard's number */
    uint16_t shards;          /* K of this node */
    const struct ring *ring;  /* copied */
    const struct meta *meta;  /* the node's durable state as read at start; copied */
    struct hlc_bounds bounds; /* what recovery found */
    struct span resp_address; /* what clients are told to connect to; copied */
    struct span http_address;
    size_t memory_bytes;  /* this shard's share of the node's budget */
    size_t row_bytes_max; /* rows get no more than this of it; 0 = their usual part */
    uint32_t key_bytes_max;
    uint32_t value_bytes_max;
    uint32_t clock_skew_max_ms;
    uint32_t request_timeout_ms; /* default of a request */
    bool cold_empty;             /* the cold tier holds nothing of this shard */
    uint64_t cold_keys;          /* estimate of the keys that the cold tier holds for this shard */
    bool durability_always;
    struct span durability; /* as configured, for INFO: "always", "interval:100", "os"; copied */
    uint64_t seed;          /* of the shard's own random generator */
    struct now now;
    uint64_t started_wall_ms; /* of the process, for INFO */
    uint32_t process_id;      /* for INFO */
};

/* A shard, or NULL if memory_bytes is too small for its tables. Everything it owns is freed by shard_free. */
struct shard *shard_new(const struct shard_options *options);
void shard_free(struct shard *shard);

/* ---- recovery: before the first shard_step ------------------------------------------------------------- */

/* Merges a row that the log held (sequence 1 of this run). OVERLOADED when the memtable is full: flush with
 * shard_recover_freeze, then call again. */
MUST_CHECK enum status shard_recover_row(struct shard *shard, struct span key, struct span record);

/* Rows to write to the cold tier now, or NULL if nothing is dirty; then shard_recover_flushed. */
struct flush_job *shard_recover_freeze(struct shard *shard);
void shard_recover_flushed(struct shard *shard);

/* ---- running ------------------------------------------------------------------------------------------- */

/* Emits EFFECT_PEER_CONNECT for every peer and whatever else starts the shard; call once, as a turn's first. */
void shard_start(struct shard *shard, struct now now, struct effects *effects);

void shard_step(struct shard *shard, struct event *event, struct effects *effects);

/* When the next timer is due (monotonic), UINT64_MAX for never. */
uint64_t shard_next_deadline_us(const struct shard *shard);

/* ---- looking in: for the simulator's oracles, tests and statistics -------------------------------------- */

struct shard_counters {
    uint64_t commands;
    uint64_t requests_forwarded; /* coordinated here for a key that this node does not replicate */
    uint64_t requests_done;
    uint64_t requests_not_applied;
    uint64_t requests_unknown;
    uint64_t restamps;
    uint64_t write_backs;
    uint64_t
        overwritten_concurrent; /* writes that lost to, or replaced, another actor's within the skew bound */
    uint64_t stale_epochs;
    uint64_t deadline_drops;
    uint64_t cold_reads;
    uint64_t flushes;
    uint64_t overloads;
    uint64_t clients;
    uint64_t misdirected_frames;
    uint64_t hedges;
};
const struct shard_counters *shard_counters(const struct shard *shard);
const struct memtable *shard_memtable(const struct shard *shard);
const struct alloc *shard_alloc(const struct shard *shard);
uint32_t shard_requests_in_flight(const struct shard *shard);
/* Whether this node's answers for the slot count towards R (not amnesiac, not quarantined). */
bool shard_slot_serves(const struct shard *shard, uint16_t slot);

/* Installs a newer ring record (a decided one); older or equal epochs are ignored. */
void shard_install_ring(struct shard *shard, const struct ring *ring, struct effects *effects);

#endif
