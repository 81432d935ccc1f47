/* What a shard is made of, for the files of this folder only.
 *
 *   shard.c        the door: events in, effects out, turns, timers, recovery
 *   storage.c      rows: merging, reading, waiting for the cold tier
 *   durable.c      the log's open batch, answers that wait for it, flushing
 *   peers.c        other nodes: connections, greetings, reachability
 *   frames.c       what nodes and sibling shards send
 *   membership.c   shard 0's part: who may connect, directory ids, amnesia, clocks
 *   coordinator.c  requests: beginning, answers, deadlines (request.h)
 *   write.c        the put machine wired to replicas
 *   read.c         the get machine wired to replicas
 *   client.c       client connections: parsing, order of answers
 *   execute.c      commands: immediate answers, or operations
 *   reply.c        results to RESP and HTTP answers
 *   describe.c     CLUSTER, and the JSON of /status and /ring
 *   info.c         INFO, CONFIG GET, CLIENT INFO and statistics of all shards */
#ifndef RONDO_SHARD_STATE_H
#define RONDO_SHARD_STATE_H

#include "base/limits.h"
#include "base/list.h"
#include "base/map.h"
#include "base/prng.h"
#include "base/timer.h"
#include "model/key.h"
#include "model/operation.h"
#include "model/record.h"
#include "model/stamp.h"
#include "proto/command.h"
#include "proto/frame.h"
#include "proto/http.h"
#include "proto/http_reply.h"
#include "proto/json.h"
#include "proto/resp.h"
#include "proto/resp_reply.h"
#include "quorum/get.h"
#include "quorum/put.h"
#include "ring/client_map.h"
#include "ring/ring.h"
#include "shard/shard.h"
#include "store/flush.h"
#include "store/log_format.h"
#include "store/memtable.h"
#include "store/meta.h"

/* Housekeeping: clock pings, flush by age, retries. */
#define TICK_INTERVAL_US 200000u

/* Lines that one step may say; more would only repeat. */
#define SAID_MAX 16

enum timer_kind {
    TIMER_TICK = 1,
    TIMER_REQUEST_DEADLINE,
    TIMER_REQUEST_HEDGE,
};

/* ---- other nodes ---------------------------------------------------------------------------------------- */

#define CLOCK_SAMPLES 8

/* One measurement of a peer's clock: its reading minus ours, and how long the question took. */
struct clock_sample {
    int64_t offset_ms;
    uint64_t round_trip_us;
    uint64_t taken_us;
};

struct peer {
    uint64_t node;
    uint16_t index;     /* in the ring */
    bool connected;     /* the outgoing connection stands */
    bool reachable;     /* and the greeting was accepted */
    bool asked_connect; /* EFFECT_PEER_CONNECT was emitted */
    bool asked_redial;  /* and once more since it was lost, because the node showed that it is there */
    bool vouched;       /* shard 0: says that it never knew this node under another directory */
    bool remembers;     /* shard 0: has durably noted this directory */
    uint64_t ring_asked_us;
    struct buf out;      /* frames gathered in this turn */
    struct buf held;     /* answers to a node that reached us before we reached it */
    struct buf greeting; /* HELLO, sent before anything else */
    char resp_address[ADDRESS_BYTES_MAX + 1];
    char http_address[ADDRESS_BYTES_MAX + 1];
    char refusal[256]; /* the last refusal that was said, so that it is said once */
    struct clock_sample samples[CLOCK_SAMPLES];
    uint32_t samples_taken;
};

/* An incoming peer connection. */
struct link {
    uint64_t id;
    uint64_t node; /* 0 = no greeting yet */
    uint16_t for_shard;
    uint8_t from_shard;
    bool knew_other_directory;
    bool superseded;
    uint64_t waits_for_meta; /* greeted once this meta version is durable; 0 = does not wait */
};

/* ---- rows ----------------------------------------------------------------------------------------------- */

/* Where an answer of this replica goes: to a coordinator here (node 0) or elsewhere. */
struct replica_origin {
    uint64_t node;
    uint64_t request;
    uint8_t shard;
};

enum task_kind {
    TASK_PUT = 1,
    TASK_GET,
};

/* One thing to do with one row of this replica. */
struct task {
    enum task_kind kind;
    struct replica_origin origin;
    uint64_t deadline_ms;
    uint16_t slot;
    bool digest;
    bool write_back;
    struct span key;
    struct span record; /* PUT */
};

/* What a replica says to a task. */
struct replica_answer {
    enum task_kind kind;
    enum status status;
    bool was_live;
    bool has_record;
    struct version version;
    struct span record;
};

/* An answer that waits until the log is durable up to a sequence. */
struct waiter {
    uint64_t sequence;
    struct replica_origin origin;
    struct replica_answer answer;
    uint8_t *record; /* owned copy of answer.record, or NULL */
};

struct waiter_queue {
    struct waiter *items; /* ring buffer */
    uint32_t capacity;    /* a power of two, or 0 */
    uint32_t first;
    uint32_t count;
};

/* A task that waits for a cold read; owns its bytes, which follow it. */
struct cold_waiter {
    struct cold_waiter *next;
    size_t size;
    struct task task;
};

/* A cold read under way. Tasks on its key wait in order. */
struct cold_read {
    uint64_t ticket;
    uint32_t hash;
    struct cold_read *next; /* in its bucket */
    struct cold_waiter *first;
    struct cold_waiter **last;
    uint32_t cold_key_size;
    uint8_t cold_key[]; /* prefix, then the key */
};

#define COLD_BUCKETS 1024u

/* Batches appended and not durable yet, and clock bounds on their way. */
struct batch_note {
    uint64_t sequence;
    uint64_t bytes;
    bool has_bounds;
    struct hlc_bounds bounds;
};

struct log_state {
    uint64_t open; /* sequence of the batch being gathered */
    uint64_t durable;
    struct buf payload;
    uint32_t entries;
    bool has_bounds;
    struct hlc_bounds bounds;
    bool full; /* the disk is; writes are refused */
    uint64_t unsynced_bytes;
    struct batch_note *notes; /* ring buffer */
    uint32_t notes_capacity;
    uint32_t notes_first;
    uint32_t notes_count;
    uint64_t flushed; /* as last told to the world */
    bool emitted;     /* the payload has been given out: clear it at the next step */
};

struct flush_state {
    struct flush_job job;
    bool running;      /* the world has the job */
    bool settling;     /* it is in the cold tier; rows are being made clean */
    bool wanted;       /* writes find no room */
    bool was_running;  /* at the last turn's end */
    uint64_t held_for; /* the job is not given out before the log is durable up to this batch; 0 = it is */
    uint64_t clean_us; /* when nothing was dirty, or the last flush began */
    uint64_t retry_us; /* not before this, after a failure */
};

/* ---- requests ------------------------------------------------------------------------------------------- */

/* Where the result of an operation goes. */
struct origin {
    bool sibling; /* another shard of this node asked; else a client here */
    uint8_t shard;
    uint64_t ticket; /* pending << 20 | part */
};

enum request_phase {
    REQUEST_WAITS_TURN,  /* a read, parked behind a write of its key that waits for a stamp */
    REQUEST_WANTS_STAMP, /* parked until the clock may give one */
    REQUEST_WANTS_RESTAMP,
    REQUEST_PUTTING,
    REQUEST_GETTING,
};

struct request {
    uint64_t id;
    struct timer deadline;
    struct timer hedge;
    struct list_link parked;
    struct origin origin;
    enum operation_kind kind;
    enum request_phase phase;
    uint16_t slot;
    uint8_t n;
    uint8_t r;
    uint8_t w;
    uint8_t write_backs;  /* write-back generations, to tell late acknowledgements apart */
    bool sending;         /* answers are noted, decisions wait */
    bool asked_whole;     /* some replica was asked for its whole record */
    uint64_t deadline_ms; /* wall clock, for the other nodes */
    uint64_t expiry_ms;
    uint16_t node[REPLICAS_MAX]; /* ring indices, in the order asked */
    struct put_quorum put;
    struct get_quorum get;
    struct stamp applies_to; /* EXPIRE: the value's stamp */
    uint8_t *bytes;          /* owned: key, value */
    size_t bytes_size;
    struct span key;
    struct span value; /* PUT: kept for restamping */
    struct buf record; /* PUT: what is written; GET: the merge so far */
};

/* ---- clients -------------------------------------------------------------------------------------------- */

/* A part of a multi-key command. */
struct part {
    bool found;
    uint8_t *value; /* owned */
    size_t size;
};

/* A command that has been read and not been answered. */
struct pending {
    struct list_link in_order; /* of its client */
    uint64_t id;
    struct client *client; /* NULL once it has gone */
    enum command_id command;
    uint8_t proto;
    bool done;
    bool close; /* close the connection after the answer */
    bool http;
    bool http_head;
    bool http_keep_alive;
    uint8_t http_minor;
    uint32_t parts_total;
    uint32_t parts_left;
    int64_t count; /* DEL, EXISTS, statistics */
    bool failed;
    struct result failure;   /* of the first part that failed */
    struct part *parts;      /* MGET */
    struct stats_sum *stats; /* INFO, DBSIZE, /status: what the shards said so far */
    uint8_t section;         /* INFO: which sections */
    size_t forwarded_bytes;  /* of its operations on other shards */
    struct buf reply;
};

struct client {
    uint64_t id;
    enum client_protocol protocol;
    uint8_t proto; /* RESP 2 or 3 */
    uint8_t r;     /* RONDO.CONSISTENCY */
    uint8_t w;
    uint32_t timeout_ms;
    bool broken;  /* nothing more is read */
    bool closing; /* and nothing more is answered: closed after what is in `out` */
    bool paused;
    bool in_dirty; /* has output to be given out at the turn's end */
    uint32_t pending_count;
    struct list_link pending; /* in order */
    struct list_link dirty;
    struct resp_parser resp;
    struct http_parser *http;
    struct buf out;
    uint64_t opened_ms;
    uint64_t commands;
    uint8_t name_size;
    uint8_t lib_name_size;
    uint8_t lib_version_size;
    char name[NAME_BYTES_MAX];
    char lib_name[NAME_BYTES_MAX];
    char lib_version[NAME_BYTES_MAX];
};

/* Facts of one shard, summed over the shards for INFO, DBSIZE and /status. */
#define STATS_FIELDS(X)       \
    X(commands)               \
    X(requests_forwarded)     \
    X(requests_done)          \
    X(requests_not_applied)   \
    X(requests_unknown)       \
    X(restamps)               \
    X(write_backs)            \
    X(overwritten_concurrent) \
    X(stale_epochs)           \
    X(deadline_drops)         \
    X(cold_reads)             \
    X(flushes)                \
    X(overloads)              \
    X(clients)                \
    X(misdirected_frames)     \
    X(hedges)                 \
    X(keys)                   \
    X(rows)                   \
    X(rows_dirty)             \
    X(memory_used)            \
    X(memory_budget)          \
    X(in_flight)

struct stats_sum {
#define STATS_MEMBER(name) uint64_t name;
    STATS_FIELDS(STATS_MEMBER)
#undef STATS_MEMBER
};

/* ---- the shard ------------------------------------------------------------------------------------------ */

struct shard {
    struct shard_options options; /* spans and pointers in it are not to be used after shard_new */
    struct alloc alloc;           /* everything but rows */
    struct alloc row_alloc;
    struct alloc local_alloc; /* messages between shards: never lost, so without a budget; bounded by what the
                                   * shards have in flight */
    struct now now;
    struct prng prng;
    struct timer_heap timers;
    struct timer tick;
    struct effects *effects;   /* of the step under way */
    struct buf said[SAID_MAX]; /* lines for the node's log, of this step */
    uint32_t said_count;
    bool turn_ended; /* what was gathered has been given out: clear it at the next step */
    struct shard_counters counters;

    struct ring *ring;
    struct ring *ring_before; /* while a newer one is being installed */
    uint16_t self;            /* index in the ring */
    uint64_t self_id;
    char resp_address[ADDRESS_BYTES_MAX + 1];
    char http_address[ADDRESS_BYTES_MAX + 1];
    char durability[32];
    uint64_t cold_keys; /* keys that went cold: an estimate after a restart */

    struct memtable memtable;
    bool has_memtable;
    bool row_upkeep; /* slices of it are left */
    struct hlc hlc;
    uint64_t stamped_us; /* when a stamp was last wanted */
    struct list_link stamp_waiters;
    struct log_state log;
    struct waiter_queue waiters;
    struct buf scratch; /* a merged record on its way into row and log */
    struct cold_read *cold_buckets[COLD_BUCKETS];
    struct map cold_tickets;
    uint64_t cold_ticket_next;
    uint32_t cold_waiting;
    struct flush_state flush;
    bool cold_empty;

    struct peer *peers; /* one for each other node of the ring */
    uint16_t peer_count;
    struct map links;
    struct buf *locals; /* for each shard of this node */
    struct client_map client_map;
    bool client_map_stale;
    bool takes_writes;       /* enough nodes durably know this directory (membership.c) */
    bool serving;            /* not amnesiac, not unproven */
    bool clock_trusted;      /* within the bound of the peers' median */
    int64_t clock_offset_ms; /* of the peers' median to ours */
    uint8_t quarantine[META_QUARANTINE_BYTES];
    bool quarantine_any;

    struct meta meta;      /* shard 0's is the one that is written */
    uint64_t meta_written; /* version last sent to the disk */
    uint64_t meta_durable;
    bool meta_dirty;
    uint64_t serving_version; /* shard 0: the meta version that says SERVING; 0 = none is waited for */
    uint64_t pinged_us;
    int64_t wall_ahead_ms; /* real minus monotonic time, at the last ping */
    struct buf meta_bytes;
    struct buf greeting_bytes; /* WELCOME and REFUSE frames of this step */
    size_t greeting_start;

    size_t forwarded_bytes; /* of operations that other shards carry out for clients here */
    struct map requests;
    uint64_t request_next;
    struct map clients;
    struct map pendings;
    uint64_t pending_next;
    struct list_link dirty_clients;
    struct list_link sent_clients; /* output given out in the turn that just ended */
};

/* ---- between the files ---------------------------------------------------------------------------------- */

/* effects.c */
void say(struct shard *shard, enum say_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* storage.c: every task is answered once, perhaps before these return, by replica_answered. */
void storage_do(struct shard *shard, const struct task *task);
void storage_cold_result(struct shard *shard, const struct event *event);
void storage_free(struct shard *shard);
/* The stamp of a resident row's registers, or none. */
struct stamp storage_stamp(struct shard *shard, struct span key);
bool storage_slot_serves(const struct shard *shard, uint16_t slot);

/* durable.c */
/* Makes room in the open batch for one more entry; false when too much is not durable yet, or no memory. */
bool log_reserve(struct shard *shard, size_t bytes);
void log_turn_begin(struct shard *shard);
void log_turn_end(struct shard *shard);
void log_durable(struct shard *shard, uint64_t sequence);
void log_free(struct shard *shard);
/* Gives the answer to replica_answered once the log is durable up to sequence; copies what it keeps. */
void wait_durable(struct shard *shard, uint64_t sequence, const struct replica_origin *origin,
                  const struct replica_answer *answer);
void flush_turn_end(struct shard *shard);
void flush_done(struct shard *shard, enum status status);

/* peers.c */
enum status peers_init(struct shard *shard);
void peers_free(struct shard *shard);
void peers_start(struct shard *shard);
void peers_turn_end(struct shard *shard);
void peers_turn_begin(struct shard *shard);
struct peer *peer_of_node(struct shard *shard, uint64_t node);
struct peer *peer_of_index(struct shard *shard, uint16_t index);
bool node_reachable(struct shard *shard, uint16_t index);
/* Where to append a frame for this node; NULL when it is unreachable or has too much waiting. */
struct buf *peer_output(struct peer *peer);
/* The same for an answer, which may also wait until the node is reached. */
struct buf *peer_answer_output(struct shard *shard, struct peer *peer);
void peer_event(struct shard *shard, struct event *event);
void link_event(struct shard *shard, struct event *event);
struct frame_head frame_head_of(const struct shard *shard, uint8_t to_shard, uint64_t request);
/* Whether the record was installed: it is newer, of this cluster, and names this node. */
bool ring_install(struct shard *shard, const struct ring *ring);

/* frames.c */
/* A frame that node sent. MALFORMED: it is not what a Rondo of this version sends. */
enum status node_frame(struct shard *shard, uint64_t node, const struct frame *frame);
void local_event(struct shard *shard, struct span bytes);
/* The answer of this replica to a task (from storage.c): to the coordinator. */
void replica_answered(struct shard *shard, const struct replica_origin *origin,
                      const struct replica_answer *answer);

/* membership.c (shard 0) */
void membership_hello(struct shard *shard, struct link *link, const struct frame *frame);
void membership_welcomed(struct shard *shard, struct peer *peer, const struct frame_welcome *welcome);
void membership_meta_durable(struct shard *shard, uint64_t version);
void membership_tick(struct shard *shard);
void membership_turn_end(struct shard *shard);
void membership_pong(struct shard *shard, struct peer *peer, const struct frame_ping *pong);
void membership_state(struct shard *shard, const struct frame *frame);
void membership_start(struct shard *shard);
void membership_ring(struct shard *shard);

/* coordinator.c */
void coordinate(struct shard *shard, uint16_t slot, const struct operation *operation,
                const struct origin *origin);
void coordinator_answer(struct shard *shard, uint64_t number, uint16_t index,
                        const struct replica_answer *answer);
void coordinator_peer_down(struct shard *shard, uint16_t index);
void coordinator_ring_changed(struct shard *shard);
void coordinator_deadline(struct shard *shard, struct request *request);
void coordinator_hedge(struct shard *shard, struct request *request);
void coordinator_stamps(struct shard *shard);
void coordinator_free(struct shard *shard);

/* client.c */
void client_event(struct shard *shard, struct event *event);
void clients_turn_begin(struct shard *shard);
void clients_turn_end(struct shard *shard);
void clients_free(struct shard *shard);
void client_part_done(struct shard *shard, uint64_t ticket, const struct result *result);
void client_stats_part(struct shard *shard, uint64_t ticket, const struct stats_sum *stats);
void pending_finish(struct shard *shard, struct pending *pending);
void pending_part_over(struct shard *shard, struct pending *pending);
/* Sends the operation on part `part` of a pending command to the shard of its slot. */
void pending_operate(struct shard *shard, struct pending *pending, uint32_t part,
                     const struct operation *operation);

/* execute.c */
void execute(struct shard *shard, struct client *client, struct pending *pending,
             const struct command *command);

/* reply.c */
void reply_part(struct shard *shard, struct pending *pending, uint32_t part, const struct result *result);
void reply_parts_over(struct shard *shard, struct pending *pending);
void reply_out_of_memory(struct pending *pending);
void reply_http_refusal(struct pending *pending, const struct http_refusal *refusal, enum status status,
                        struct span message);
void reply_http_json(struct pending *pending, uint16_t http_status, struct span body);

/* describe.c */
void describe_cluster(struct shard *shard, const struct command *command, uint8_t proto, struct buf *reply);
void describe_ring_json(struct shard *shard, struct buf *json);
void describe_status_json(struct shard *shard, const struct stats_sum *stats, struct buf *json);
const struct client_map *describe_client_map(struct shard *shard);

/* info.c */
void info_collect(struct shard *shard, struct stats_sum *stats);
void info_text(struct shard *shard, const struct pending *pending, struct buf *text);
void info_ask(struct shard *shard, struct pending *pending);
void info_stats_ask(struct shard *shard, const struct frame *frame);
void info_stats(struct shard *shard, const struct frame *frame);
uint8_t info_sections(const struct command *command);
void info_config_get(struct shard *shard, const struct command *command, uint8_t proto, struct buf *reply);
void info_client(struct shard *shard, const struct client *client, struct buf *text);

#define TICKET_PART_BITS 20
_Static_assert(COMMAND_ARGUMENTS_MAX >> TICKET_PART_BITS <= 1, "a part's number fits its ticket");

#endif
