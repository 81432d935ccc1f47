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
 * Range scans of the cold tier. EFFECT_COLD_SCAN opens one, under a ticket that no other open scan of the shard has.
 * The world takes a snapshot of the cold tier at the moment at which it carries the effect out: a flush that had
 * finished is in it, a flush that a later effect asks for is not. It reads the range on another thread and answers
 * with one page, an EVENT_COLD_SCAN, whose rows store/cold_page.h takes apart: in the order of their cold keys, each
 * key once with its newest record; what was deleted is not there. A page has at least one row if one is left and, but
 * for a single row that is larger, at most COLD_SCAN_PAGE_BYTES. With `flag` more may follow (the next page can be
 * empty), and the world reads on only after EFFECT_COLD_SCAN_NEXT. A page without `flag`, or with another status than
 * OK (then it has no rows), is the last: the scan is over and the world has freed it. OVERLOADED and IO_ERROR also
 * stand for a cold tier that was opened anew meanwhile: scan again. EFFECT_COLD_SCAN_STOP ends a scan early; a page
 * that is already under way may still come, and a stop that crosses the last page is nothing. At most COLD_SCANS_MAX
 * scans are open; the shard keeps to that.
 *
 * The connections of a node. Every shard keeps one outgoing connection to every other node (EFFECT_PEER_CONNECT
 * asks for it once; the world reconnects with a backoff for as long as the process lives). All that a shard has
 * to say to a node, requests and answers, goes out there (EFFECT_PEER_SEND). Incoming peer connections ("links")
 * are accepted for shard 0, which reads the sender's HELLO and either refuses it or hands the link to the shard
 * that the sender asked for (EFFECT_LINK_MOVE). On a link only the greeting is ever written. */
#ifndef RONDO_SHARD_SHARD_H
#define RONDO_SHARD_SHARD_H

#include "base/hash.h"
#include "base/limits.h"
#include "base/span.h"
#include "gossip/swim.h"
#include "model/key.h"
#include "model/record.h"
#include "ring/ring.h"
#include "shard/metrics_table.h"
#include "shard/watch.h"
#include "store/flush.h"
#include "store/memtable.h"
#include "store/meta.h"

/* Bytes of one page of a scan of the cold tier; a row that is larger comes alone. */
#define COLD_SCAN_PAGE_BYTES ((size_t)256 << 10)

/* Scans that a shard has open at once. Each holds a snapshot, and with it what compaction could drop. */
#define COLD_SCANS_MAX 64u

struct shard;

struct now {
    uint64_t wall_ms; /* real time; may step */
    uint64_t mono_us; /* monotonic; starts anywhere */
};

enum client_protocol {
    CLIENT_RESP = 1,
    CLIENT_HTTP = 2,
};

/* What the world knows about disk, log and process: for those who look, never for decisions. */
struct node_facts {
    uint64_t cold_bytes;        /* the cold tier's tables */
    uint64_t cold_level0_files; /* those that wait for compaction */
    uint64_t cold_memory_bytes;
    uint64_t log_bytes; /* written since the start */
    uint64_t log_syncs;
    uint64_t log_segments;
    uint64_t disk_free_bytes;
    uint64_t clients_cut_output; /* of all shards: did not take their answers */
    uint64_t clients_cut_request;
    uint64_t clients_cut_idle;
    uint64_t clients_refused;
    uint64_t buffer_bytes; /* of connections: unread input, unsent output */
    uint64_t buffer_bytes_max;
    uint64_t resident_bytes;
    uint64_t cpu_us; /* user and system */
    uint64_t cpu_system_us;
};

/* What a connection is, for those who look. */
struct client_origin {
    struct span address; /* "host:port" of the client */
    struct span local;   /* and of this side */
    int descriptor;
};

/* A setting as CONFIG GET shows it. */
struct node_setting {
    const char *name;
    const char *value;
};

/* What the process knows of itself, for INFO and CONFIG GET. Texts and list outlive the shards; zeros where there is no
 * process. */
struct node_about {
    const char *system;           /* "Linux 6.1.0 x86_64" */
    uint64_t memory_bytes;        /* the budget of the whole node */
    uint64_t system_memory_bytes; /* of the machine */
    uint32_t clients_max;
    const struct node_setting *settings;
    uint32_t settings_count;
};

enum event_kind {
    EVENT_TURN_END = 1,  /* nothing else is waiting: time has passed, gathered effects leave */
    EVENT_CLIENT_OPEN,   /* client, protocol, origin */
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
    EVENT_COLD_SCAN,     /* ticket, status, bytes: rows (store/cold_page.h), flag: more follow */
    EVENT_FLUSH_DONE,    /* status: the job of the last EFFECT_FLUSH is in the cold tier (OK) or is not */
    EVENT_META_DURABLE,  /* sequence: that of the EFFECT_META_WRITE (shard 0 only) */
    EVENT_FACTS,         /* facts: as the world finds them, now and then (shard 0 only) */
    EVENT_DATAGRAM,      /* bytes: one whole datagram, of anybody (shard 0 only) */
    EVENT_CLIENT_UNSENT, /* client, sequence: bytes of its answers that its socket has not taken, now and then */
    EVENT_TURN_TOOK,     /* sequence: microseconds of a turn of at least shard_slow_turn_us */
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
    size_t buffer_bytes; /* EVENT_TURN_END: what the world holds of shard_options' */
    const struct node_facts *facts;
    const struct client_origin *origin; /* NULL: not known */
    struct span bytes;                  /* valid during the call only; likewise facts and origin */
    /* Out, for *_DATA: how many bytes were used. The world keeps the rest and passes it again, from the same
     * byte on, once more has arrived (at least `need` bytes in all, when need > 0). If `paused` is set, the client
     * has as many commands in flight as it may: the world stops reading from it and passes the rest again after
     * EFFECT_CLIENT_RESUME. */
    bool paused;
    /* Out, for EVENT_CLIENT_DATA: every command read so far has been answered. */
    bool idle;
    /* Likewise: the last bytes are the beginning of a request that is not whole yet. */
    bool partial;
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
    /* Scans of the cold tier. SCAN: ticket, bytes: the first cold key, end: the cold key before which it ends; NEXT
     * and STOP: ticket. */
    EFFECT_COLD_SCAN,
    EFFECT_COLD_SCAN_NEXT,
    EFFECT_COLD_SCAN_STOP,
    EFFECT_DATAGRAM_SEND, /* node, bytes: a datagram to its peer address; may be lost, must not wait (shard 0) */
    EFFECT_CLIENT_DROP, /* client: end the connection at once, unsent answers and all */
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
    struct span end; /* COLD_SCAN */
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

/* How the node heals; all rates and bounds are the node's, shared by its shards. */
struct shard_healing {
    bool hints;  /* keep hints for replicas that missed a write */
    bool repair; /* anti-entropy, and with it purge and the rebuilding of lost data */
    uint32_t
        request_timeout_max_ms; /* longest timeout of a request: no write is applied later than that. The same on
                                      * all nodes: purge rests on it */
    uint32_t repair_interval_ms; /* every slot is compared with every replica once in this time */
    uint32_t rescan_interval_ms; /* every tree is compared with its rows once in this time */
    uint64_t repair_bytes_per_s;
    uint64_t hint_bytes_max; /* for each target */
    uint64_t hint_bytes_per_s;
};

/* What rondod uses unless told otherwise. */
struct shard_healing shard_healing_default(void);

struct shard_options {
    uint16_t shard;           /* this shard's number */
    uint16_t shards;          /* K of this node */
    const struct ring *ring;  /* copied */
    const struct meta *meta;  /* the node's durable state as read at start; copied */
    struct hlc_bounds bounds; /* what recovery found */
    struct span resp_address; /* what clients are told to connect to; copied */
    struct span http_address;
    size_t memory_bytes; /* this shard's share of the node's budget */
    size_t
        buffer_bytes; /* beside it, what the world may take for this shard's connections; rows use what it does not */
    size_t
        row_bytes_max; /* rows get this and no more; 0 = what nothing else uses of both, and always their share */
    uint32_t key_bytes_max;
    uint32_t value_bytes_max;
    uint32_t clock_skew_max_ms;
    uint32_t request_timeout_ms; /* default of a request */
    struct shard_healing healing;
    bool blind_writes; /* writes newer than all that the cold tier may hold do not read it */
    bool cold_empty;   /* the cold tier holds nothing of this shard */
    bool durability_always;
    struct span durability; /* as configured, for INFO: "always", "interval:100", "os"; copied */
    uint64_t seed;          /* of the shard's own random generator */
    struct now now;
    uint64_t started_wall_ms; /* of the process, for INFO */
    uint32_t process_id;      /* for INFO */
    struct node_about about;
    struct watch_bounds watch; /* of the slow log and the latency monitor, until CONFIG SET says otherwise */
};

/* A shard, or NULL if memory_bytes is too small for its tables. Everything it owns is freed by shard_free. */
struct shard *shard_new(const struct shard_options *options);
void shard_free(struct shard *shard);

/* ---- recovery: before the first shard_step ------------------------------------------------------------- */

/* Merges a row that the log held (sequence 1 of this run). OVERLOADED when the memtable is full: flush with
 * shard_recover_freeze, then call again. */
MUST_CHECK enum status shard_recover_row(struct shard *shard, struct span key, struct span record);

/* Replaces a reserved row (record empty: erases it), or erases a key's row unless it is newer than this version in
 * either register, as the log says. CORRUPT: the key is none of the slot's reserved ones, or a row held does not
 * parse; OVERLOADED as above. */
MUST_CHECK enum status shard_recover_reserved(struct shard *shard, uint16_t slot, struct span key,
                                              struct span record);
MUST_CHECK enum status shard_recover_erase(struct shard *shard, uint16_t slot, struct span key,
                                           struct version version);

/* Before all of those, once for each reserved row that the cold tier holds, on the shard of the slot that the key
 * names (reserved_key_slot). CORRUPT when the key or the record cannot be. */
MUST_CHECK enum status shard_recover_cold(struct shard *shard, struct span reserved_key, struct span record);

/* The cold tier holds the tree of some slot, of whichever shard: its rows never go there without theirs, so that of a
 * slot without a tree it holds nothing. */
void shard_recover_trees_kept(struct shard *shard);

/* Rows to write to the cold tier now, as many as there is memory for; then shard_recover_flushed, or
 * shard_recover_flush_failed if they did not get there. NOT_FOUND: nothing is dirty; OVERLOADED: no memory even for few
 * of them, which are still nowhere but in memory. */
MUST_CHECK enum status shard_recover_freeze(struct shard *shard, struct flush_job **job);
void shard_recover_flushed(struct shard *shard);
void shard_recover_flush_failed(struct shard *shard);

/* ---- running ------------------------------------------------------------------------------------------- */

/* Emits EFFECT_PEER_CONNECT for every peer and whatever else starts the shard; call once, as a turn's first. */
void shard_start(struct shard *shard, struct now now, struct effects *effects);

void shard_step(struct shard *shard, struct event *event, struct effects *effects);

/* When the next timer is due (monotonic), UINT64_MAX for never. */
uint64_t shard_next_deadline_us(const struct shard *shard);

/* A turn of the world that takes so long is worth an EVENT_TURN_TOOK; UINT64_MAX: none is. */
uint64_t shard_slow_turn_us(const struct shard *shard);

/* ---- looking in: for the simulator's oracles, tests and statistics -------------------------------------- */

/* metrics_table.h says what each counts. */
struct shard_counters {
#define SHARD_COUNTER(field, ...) uint64_t field;
    METRICS_COUNTED(SHARD_COUNTER)
#undef SHARD_COUNTER
};
const struct shard_counters *shard_counters(const struct shard *shard);
const struct memtable *shard_memtable(const struct shard *shard);
const struct alloc *shard_alloc(const struct shard *shard);
uint32_t shard_requests_in_flight(const struct shard *shard);
/* Whether this node's answers for the slot count towards R (not amnesiac, not quarantined). */
bool shard_slot_serves(const struct shard *shard, uint16_t slot);

/* How far this shard is with healing what it holds. */
struct shard_healing_state {
    uint64_t hints;        /* kept for others */
    bool hints_counted;    /* false: after a start, not all of them have been found yet */
    uint32_t syncs;        /* slots to be compared because a hint could not be kept */
    uint32_t slots_marked; /* that do not serve */
    uint64_t hints_stored;
    uint64_t hints_replayed;
    uint64_t hints_converted; /* became sync marks */
    uint64_t hints_discarded;
    uint64_t exchanges;
    uint64_t exchanges_failed;
    uint64_t records_sent;
    uint64_t records_received;
    uint64_t rescans;
    uint64_t leaves_wrong;
    uint64_t purged;
    uint64_t floor_refusals;
    uint64_t slots_healed;
};
struct shard_healing_state shard_healing_state(const struct shard *shard);
/* Hints kept for one node, and slots marked for it. */
uint64_t shard_hints_for(const struct shard *shard, uint64_t node, uint32_t *syncs);
/* The root of a slot's tree; false while it is not known (a leaf waits to be rescanned). */
bool shard_slot_root(const struct shard *shard, uint16_t slot, struct hash_128 *sum, uint64_t *rows);

/* No row of the slot in the cold tier has a stamp of a higher time; UINT64_MAX: not known, or no slot of this shard. */
uint64_t shard_slot_high_water(const struct shard *shard, uint16_t slot);

/* The slot's purge floor; none for no slot of this shard. */
struct stamp shard_slot_floor(const struct shard *shard, uint16_t slot);

/* What gossip knows (shard 0's; NULL on other shards). Valid until the next step. */
const struct swim *shard_gossip(const struct shard *shard);

/* Installs a newer ring record (a decided one); older or equal epochs are ignored. */
void shard_install_ring(struct shard *shard, const struct ring *ring, struct effects *effects);

#endif
