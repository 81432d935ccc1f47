/* What a shard is made of, for the files of this folder only.
 *
 *   shard.c        the door: events in, effects out, turns, timers, recovery
 *   recover.c      what recovery hands over before the first turn
 *   storage.c      rows: merging, reading, waiting for the cold tier
 *   durable.c      the log's open batch, answers that wait for it, flushing
 *   peers.c        other nodes: connections, greetings, reachability
 *   frames.c       what nodes and sibling shards send
 *   membership.c   shard 0's part: who may connect, directory ids, amnesia, clocks
 *   liveness.c     shard 0's part: gossip, and what it says of each node
 *   coordinator.c  requests: beginning, answers, deadlines (request.h)
 *   write.c        the put machine wired to replicas
 *   read.c         the get machine wired to replicas
 *   alone.c        reads that one row answers, without a request
 *   client.c       client connections: parsing
 *   answers.c      and what they are answered, in order
 *   key_order.c    a connection's commands on a key, one after the other (key_order.h)
 *   keys.c         CLUSTER GETKEYSINSLOT, RANDOMKEY
 *   execute.c      commands: immediate answers, or operations
 *   reply.c        results to RESP and HTTP answers
 *   reply_key.c    answers about one key: times, types, parts of values
 *   trace.c        timelines of requests
 *   describe.c     CLUSTER, and the JSON of /status and /ring
 *   info.c         INFO and statistics of all shards
 *   gather.c       commands that every shard of the node carries out
 *   clients.c      CLIENT
 *   settings.c     CONFIG
 *   watch.c        what is counted for INFO; slowlog.c, latency.c: what took long (watch.h)
 *   metrics.c      what is counted, and /metrics (metrics.h, metrics_table.h)
 *   inspect.c      healing as oracles and tests see it
 *
 * How it heals, and those files: healing.h. Tasks, cold reads, log and flush: tasks.h. */
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
#include "model/reserved.h"
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
#include "quorum/replica_choice.h"
#include "ring/client_map.h"
#include "ring/ring.h"
#include "shard/clients.h"
#include "shard/healing.h"
#include "shard/metrics.h"
#include "shard/shard.h"
#include "shard/tasks.h"
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
    TIMER_LIVENESS,
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
    uint16_t index;           /* in the ring */
    bool connected;           /* the outgoing connection stands */
    bool greeted;             /* and the greeting was accepted */
    bool reachable;           /* and gossip does not hold the node dead: requests may use it */
    bool asked_connect;       /* EFFECT_PEER_CONNECT was emitted */
    bool asked_redial;        /* and once more since it was lost, because the node showed that it is there */
    bool vouched;             /* shard 0: says that it never knew this node under another directory */
    bool remembers;           /* shard 0: has durably noted this directory */
    uint64_t greeted_as;      /* the directory that the last HELLO named */
    enum swim_state liveness; /* as gossip has it */
    uint64_t incarnation;
    uint64_t since_ms; /* of that state: wall clock */
    uint64_t ring_asked_us;
    uint16_t shards;     /* of that node; 0 = not known yet */
    uint64_t urgent_us;  /* no urgent exchange with it before */
    uint8_t *hints_held; /* bitmap of slots with hints there, as last told; or NULL */
    struct begun *begun; /* for each of its shards: the last exchange it began with us; or NULL */
    uint16_t begun_shards;
    decisecond *hints_asked; /* for each of its shards: when it was asked for what it told */
    struct buf out;          /* frames gathered in this turn */
    struct buf held;         /* answers to a node that reached us before we reached it */
    struct buf greeting;     /* HELLO, sent before anything else */
    char resp_address[ADDRESS_BYTES_MAX + 1];
    char http_address[ADDRESS_BYTES_MAX + 1];
    char refusal[256]; /* the last refusal that was said, so that it is said once */
    struct clock_sample samples[CLOCK_SAMPLES];
    uint32_t samples_taken;

    struct replica_timing timing; /* of its answers to reads */
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
    REQUEST_LINGERING, /* a write that was answered: who does not acknowledge it in time gets a hint */
};

struct request {
    uint64_t id;
    struct timer deadline;
    struct timer hedge;
    struct list_link parked;
    struct origin origin;
    enum operation_kind kind;
    uint8_t flags; /* enum operation_flags */
    enum request_phase phase;
    uint32_t hash; /* memtable_hash of the key */
    uint16_t slot;
    uint8_t n;
    uint8_t r;
    uint8_t w;
    uint8_t asked;       /* R of a GET, W of others, as the client gave it */
    uint8_t write_backs; /* write-back generations, to tell late acknowledgements apart */
    bool sending;        /* answers are noted, decisions wait */
    bool asked_whole;    /* some replica was asked for its whole record */
    bool sloppy;
    /* Reads, one bit for each place: */
    uint8_t waits;  /* counted as in flight */
    uint8_t hedged; /* asked, or written to, because others were late */
    uint8_t hedge_tries;
    uint16_t node[REPLICAS_MAX];     /* ring indices, in the order asked */
    uint64_t hint_for[REPLICAS_MAX]; /* the node at this place stands in for that one; 0 = it is natural */
    uint64_t deadline_ms;            /* wall clock, for the other nodes */
    uint64_t expiry_ms;
    uint64_t begun_us;       /* monotonic */
    uint32_t sent_us;        /* since then, and 1 more: something was sent to a replica; 0 = nothing yet */
    uint32_t parked_us;      /* likewise: it waits for a stamp; 0 = it does not */
    struct trace *trace;     /* NULL: nobody asked for it */
    struct stamp applies_to; /* EXPIRE, KEEP_EXPIRY: the stamp of the value that was read */
    size_t size;             /* of this block: key and value stand behind the request */
    struct span key;
    struct span value; /* PUT: kept for restamping; EXPIRE that wants it: the one read, a view of `read` */
    struct buf record; /* PUT: what is written; GET: the merge so far */
    struct buf read;   /* what was read, while a value of it is wanted */
    struct put_quorum put;
    struct get_quorum get; /* last: but for its head it is what get_start makes it */
};

/* ---- the shard ------------------------------------------------------------------------------------------ */

/* Gossip, as far as it is this shard's. */
struct liveness {
    struct swim *swim; /* shard 0's; NULL on other shards */
    struct timer timer;
    bool touched;         /* sends, changes or another deadline may be waiting */
    bool members_stale;   /* there was no memory for the members of the ring in force */
    uint64_t incarnation; /* this node's own */
    uint64_t since_ms;
};

struct shard {
    struct shard_options
        options;        /* spans and pointers in it are not to be used after shard_new, but for `about` */
    struct alloc alloc; /* everything but rows */
    struct alloc_cache alloc_cache;
    struct alloc row_alloc;
    size_t row_bytes_min;     /* rows get so much whatever else is used, */
    size_t row_bytes_max;     /* and so much without what else is used */
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
    struct metrics metrics;
    struct watch watch;
    struct node_facts facts;

    struct ring *ring;
    struct ring *ring_before; /* while a newer one is being installed */
    uint16_t self;            /* index in the ring */
    uint64_t self_id;
    char resp_address[ADDRESS_BYTES_MAX + 1];
    char http_address[ADDRESS_BYTES_MAX + 1];
    char durability[32];

    struct memtable memtable;
    bool has_memtable;
    bool row_upkeep; /* slices of it are left */
    struct hlc hlc;
    uint64_t stamped_us; /* when a stamp was last wanted */
    struct list_link stamp_waiters;
    struct log_state log;
    struct waiter_queue waiters;
    struct buf scratch; /* a merged record on its way into row and log */
    struct map scans;   /* by ticket */
    struct list_link scans_ready;
    struct list_link scans_ended;
    uint64_t scan_ticket_last;
    struct rows_page rows_pages[ROWS_PAGES_MAX];
    struct repairing repairing;
    struct cold_read *cold_buckets[COLD_BUCKETS];
    struct map cold_tickets;
    uint64_t cold_ticket_next;
    uint32_t cold_waiting;
    struct flush_state flush;
    bool cold_empty;

    struct replica_timing self_timing;
    struct hedge_budget hedge_budget;
    struct peer *peers; /* one for each other node of the ring */
    uint16_t peer_count;
    struct liveness liveness;
    struct map links;
    struct buf *locals; /* for each shard of this node */
    struct client_map client_map;
    bool client_map_stale;
    bool takes_writes;       /* enough nodes durably know this directory (membership.c) */
    bool serving;            /* not amnesiac, not unproven */
    bool judged;             /* some other node has said since the start whether this directory is current */
    bool clock_trusted;      /* within the bound of the peers' median */
    int64_t clock_offset_ms; /* of the peers' median to ours */
    uint8_t quarantine[META_QUARANTINE_BYTES];
    bool quarantine_any;

    struct meta meta; /* shard 0's is the one that is written */
    struct run run;   /* the newest that is durable: what other nodes may be told */
    uint64_t
        run_version; /* shard 0: the meta version that makes a newer one durable; 0 = none is waited for */
    uint64_t run_us; /* shard 0: when it was made */
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
    uint32_t traced_requests; /* of them */
    uint32_t lingering;       /* of them */
    uint64_t request_next;
    struct map clients;
    struct map pendings;
    uint64_t pending_next;
    struct list_link dirty_clients;
    struct list_link clients_woken;
    struct list_link clients_leaving; /* gone, with commands that wait */
    bool answers_held;                /* of some client: a turn must follow */
    struct list_link sent_clients;    /* output given out in the turn that just ended */
};

/* ---- between the files ---------------------------------------------------------------------------------- */

/* Half of the memory for all but rows is in use: clients wait for their turn. */
static inline bool memory_busy(const struct shard *shard)
{
    return shard->alloc.used_bytes > shard->alloc.budget_bytes / MEMORY_BUSY_DIVISOR;
}

/* So little of it is left that it is kept for what is under way. */
static inline bool memory_short(const struct shard *shard)
{
    size_t kept = shard->alloc.budget_bytes / MEMORY_SHORT_DIVISOR;
    return shard->alloc.used_bytes > shard->alloc.budget_bytes - kept;
}

/* A command was answered: `pending` has its reply. */
static inline void watch_answered(struct shard *shard, struct pending *pending)
{
    uint64_t took_us = shard->now.mono_us - pending->begun_us;
    bool error = pending->reply.size > 0 && pending->reply.data[0] == '-';
    if (took_us == 0 && !error && shard->watch.slow_us > 0)
        shard->watch.figures.command[pending->row].took[0]++;
    else
        watch_answered_late(shard, pending, took_us);
}

/* A plain GET or SET that this shard coordinates: its request has all that it said, so that the slow log need not keep
 * it. */
static inline bool slowlog_plain(const struct pending *pending, uint32_t argc)
{
    bool plain =
        (pending->command == COMMAND_SET && argc == 3) || (pending->command == COMMAND_GET && argc == 2);
    return plain && pending->waiting == NULL && !pending->traced && !pending->http &&
           pending->forwarded_bytes == 0;
}

/* effects.c */
void say(struct shard *shard, enum say_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* storage.c: every task is answered once, perhaps before these return, by replica_answered. */
void storage_do(struct shard *shard, const struct task *task);
void storage_cold_result(struct shard *shard, const struct event *event);
void storage_free(struct shard *shard);
/* The stamp of a resident row's registers, or none. hash: memtable_hash of the key. */
struct stamp storage_stamp(struct shard *shard, struct span key, uint32_t hash);
bool storage_slot_serves(const struct shard *shard, uint16_t slot);
bool storage_slot_quarantined(const struct shard *shard, uint16_t slot);
/* Writes the row to memtable and log. OVERLOADED: nothing has changed. */
MUST_CHECK enum status storage_store(struct shard *shard, const struct stored *stored);
void storage_refuse(struct shard *shard, const struct task *task, enum status status);

/* durable.c */
/* Makes room in the open batch for one more entry; false when too much is not durable yet, or no memory. */
bool log_reserve(struct shard *shard, size_t bytes);
/* The batch of the last change so far. */
uint64_t log_last(const struct shard *shard);
void log_turn_begin(struct shard *shard);
void log_turn_end(struct shard *shard);
void log_durable(struct shard *shard, uint64_t sequence);
void log_free(struct shard *shard);
/* Reads that wait for the log count towards no R any more. */
void wait_durable_quarantine(struct shard *shard);
/* Gives the answer to replica_answered once the log is durable up to sequence; copies what it keeps. */
void wait_durable(struct shard *shard, uint64_t sequence, const struct replica_origin *origin,
                  const struct replica_answer *answer);
void flush_turn_end(struct shard *shard);

/* Whether the flush has a slice to do at once, whatever happens. */
bool flush_has_slices(const struct shard *shard);
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
/* How many outgoing connections stand. */
uint32_t peers_connected(const struct shard *shard);
/* Usually it is well, but it is asked only where nobody else can answer. */
bool node_suspect(struct shard *shard, uint16_t index);
/* Where to append a frame for this node; NULL when it is unreachable or has too much waiting. */
struct buf *peer_output(struct peer *peer);
/* The same for an answer, which may also wait until the node is reached. */
struct buf *peer_answer_output(struct shard *shard, struct peer *peer);
/* The same for gossip, which goes wherever there is a connection. */
struct buf *peer_gossip_output(struct peer *peer);
/* What gossip says of the node now: what requests do with it follows from that and from the connection. */
void peer_liveness(struct shard *shard, struct peer *peer, enum swim_state state);
void peer_event(struct shard *shard, struct event *event);
void link_event(struct shard *shard, struct event *event);
struct frame_head frame_head_of(const struct shard *shard, uint8_t to_shard, uint64_t request);
/* Answers to nodes that have not welcomed this one yet are dropped. */
void peers_drop_held(struct shard *shard);
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
void membership_healed(struct shard *shard);
/* The peer knows a newer directory of this node, or a newer state of this one. */
void membership_superseded(struct shard *shard, const struct peer *peer);
enum status membership_run(struct shard *shard, uint64_t node, const struct frame *frame);

/* liveness.c */
enum status liveness_init(struct shard *shard, const struct shard_options *options);
void liveness_free(struct shard *shard);
void liveness_timer(struct shard *shard);
void liveness_turn_end(struct shard *shard);
void liveness_ring(struct shard *shard);
void liveness_datagram(struct shard *shard, struct span bytes);
/* A FRAME_GOSSIP of a node. */
void liveness_gossip(struct shard *shard, uint64_t node, struct span bytes);
/* The node answered over a connection, or was just greeted. */
void liveness_heard(struct shard *shard, uint64_t node);
/* A FRAME_LIVENESS of shard 0. */
void liveness_told(struct shard *shard, const struct frame *frame);
/* For those who look; zeros on shards without gossip. */
const struct swim_counters *liveness_counters(const struct shard *shard);
uint32_t liveness_health(const struct shard *shard);
uint32_t liveness_nodes(const struct shard *shard, enum swim_state state);

/* coordinator.c */
void coordinate(struct shard *shard, uint16_t slot, const struct operation *operation,
                const struct origin *origin);
void coordinator_answer(struct shard *shard, uint64_t number, uint16_t index,
                        const struct replica_answer *answer);
void coordinator_peer_down(struct shard *shard, uint16_t index);
/* The node answers by a new connection: what waited on its last one is lost, so what it was asked is sent again. */
void coordinator_peer_again(struct shard *shard, uint16_t index);
void coordinator_ring_changed(struct shard *shard);
/* What this replica has said to reads under way must not count. */
void coordinator_amnesia(struct shard *shard);
void coordinator_deadline(struct shard *shard, struct request *request);
void coordinator_hedge(struct shard *shard, struct request *request);
void coordinator_stamps(struct shard *shard);
void coordinator_free(struct shard *shard);

/* alone.c */
/* True: this is the operation's result, and it is counted; the value is a view of a row. R, W and the timeout are
 * allowed. hash: memtable_hash of the key. */
bool read_alone(struct shard *shard, uint16_t slot, uint32_t hash, const struct operation *operation,
                struct result *result);
/* False: the command needs a pending. Else it is answered. */
bool answer_alone(struct shard *shard, struct client *client, const struct command *command);

/* client.c */
void client_event(struct shard *shard, struct event *event);
void clients_free(struct shard *shard);
/* Forgets clients that have gone, once nothing of them is under way. */
void clients_left(struct shard *shard);
/* Carries out a command whose turn has come, or answers what is wrong with it. */
struct words;
void client_run(struct shard *shard, struct client *client, struct pending *pending, struct words words);
void client_part_done(struct shard *shard, uint64_t ticket, const struct result *result);
void client_stats_part(struct shard *shard, uint64_t ticket, const struct stats_sum *stats);
void pending_free(struct shard *shard, struct pending *pending);
void pending_part_over(struct shard *shard, struct pending *pending);
/* Sends the operation on part `part` of a pending command to the shard of its slot. */
void pending_operate(struct shard *shard, struct pending *pending, uint32_t part,
                     const struct operation *operation);

/* answers.c */
void clients_turn_begin(struct shard *shard);
void clients_turn_end(struct shard *shard);
/* The client has output, or is to be looked at, at the turn's end. */
void client_touched(struct shard *shard, struct client *client);
void pending_finish(struct shard *shard, struct pending *pending);

/* execute.c */
void execute(struct shard *shard, struct client *client, struct pending *pending,
             const struct command *command);

/* trace.c */
/* A task of this node's coordinator waits for the cold tier. */
void trace_cold(struct shard *shard, const struct task *task);

/* reply.c */
/* "STAMP", or "STAMP+STAMP" with that of an expiry set later; nothing for a key never heard of. Returns its size. */
#define VERSION_TEXT_BYTES_MAX (2 * STAMP_TEXT_BYTES_MAX)
size_t version_format(struct version version, char text[VERSION_TEXT_BYTES_MAX]);
/* reply_key.c; false: the command is none of its. */
bool reply_key(struct shard *shard, struct pending *pending, const struct result *result);
void reply_part(struct shard *shard, struct pending *pending, uint32_t part, const struct result *result);
void reply_parts_over(struct shard *shard, struct pending *pending);
void reply_out_of_memory(struct pending *pending);
void reply_http_refusal(struct pending *pending, const struct http_refusal *refusal, enum status status,
                        struct span message);
void reply_http_page(struct pending *pending, uint16_t http_status, const char *content_type,
                     struct span body);
void reply_http_json(struct pending *pending, uint16_t http_status, struct span body);

/* describe.c */
void describe_cluster(struct shard *shard, const struct command *command, uint8_t proto, struct buf *reply);
void describe_ring_json(struct shard *shard, struct buf *json);
void describe_status_json(struct shard *shard, const struct pending *pending, struct buf *json);
const struct client_map *describe_client_map(struct shard *shard);

/* info.c */
void info_text(struct shard *shard, struct pending *pending, struct buf *text);
void info_ask(struct shard *shard, struct pending *pending);
void info_stats_ask(struct shard *shard, const struct frame *frame);
void info_stats(struct shard *shard, const struct frame *frame);
uint16_t info_sections(const struct command *command);

#define TICKET_PART_BITS 20
_Static_assert(COMMAND_ARGUMENTS_MAX >> TICKET_PART_BITS <= 1, "a part's number fits its ticket");

#endif
