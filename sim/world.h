/* The simulated world: whole clusters in one thread, driven by one seed.
 *
 * Everything that happens is a struct happening in one queue, ordered by (time, sequence). The shards, the log
 * writer, recovery and the memtable are the real ones; this folder is only another edge around them (DESIGN section
 * 4): clocks, processes, disks, the network, clients, and the faults of all of these. What must hold is checked by
 * the oracles (sim/oracle.h). A world never looks at the outside: the same configuration gives the same run. */
#ifndef RONDO_SIM_WORLD_H
#define RONDO_SIM_WORLD_H

#include "base/prng.h"
#include "base/span.h"
#include "ring/ring.h"
#include "shard/shard.h"
#include "sim/disk.h"
#include "sim/history.h"
#include "sim/oracle.h"
#include "sim/swarm.h"
#include "store/log_writer.h"

#define SIM_NODES_MAX 5
#define SIM_SHARDS_MAX 3
#define SIM_CLIENTS_MAX 12

/* True time 0 of a world in wall-clock milliseconds. */
#define SIM_EPOCH_MS UINT64_C(1700000000000)

struct world;

/* ---- happenings ----------------------------------------------------------------------------------------- */

struct happening {
    uint64_t at_us;
    uint64_t sequence;
    void (*fire)(struct world *world, struct happening *happening);
    void *object;
    uint64_t number;
    uint64_t number2;
    uint32_t index;
    uint32_t index2;
    struct buf bytes; /* owned */
    struct happening *next_free;
};

struct happening_queue {
    struct happening **items; /* a heap, from 0 */
    uint32_t count;
    uint32_t capacity;
    uint64_t sequence_next;
    struct happening *free;
};

/* ---- processes ------------------------------------------------------------------------------------------ */

/* An event that waits for its shard's next turn; the bytes are owned. */
struct sim_event {
    struct event event;
    struct buf bytes;
};

struct sim_flush {
    struct flush_job *job; /* NULL = none */
    bool ingested;
};

/* An open scan of the cold tier: a snapshot of its rows, as pages have them (store/cold_page.h). */
struct sim_scan {
    uint64_t ticket;
    uint64_t serial; /* of all scans of the shard */
    struct buf rows;
    size_t told;  /* bytes of them that the shard has got */
    bool damaged; /* behind them */
    bool waiting; /* for EFFECT_COLD_SCAN_NEXT */
    struct sim_scan *next;
};

struct sim_shard {
    struct shard *shard;
    struct effects effects;
    struct sim_event *inbox;
    uint32_t inbox_count;
    uint32_t inbox_capacity;
    uint64_t turn_at_us;  /* when the next turn is due; UINT64_MAX = none planned */
    uint64_t turn_serial; /* only the newest planned turn happens */
    struct sim_flush flush;
    struct sim_scan *scans;
    uint64_t scan_serial;
};

/* A shard's batch that the log writer could not take yet. */
struct sim_batch {
    uint16_t shard;
    bool has_bounds;
    uint32_t entries;
    uint64_t sequence;
    struct buf payload;
};

/* The node's log thread. */
struct sim_log {
    struct log_writer writer;
    struct sim_batch *queue;
    uint32_t queue_count;
    uint32_t queue_capacity;
    bool full_told;
    bool io_busy;
    bool unsynced; /* durability interval: written since the last sync was asked for */
    bool mark_planned;
    uint64_t reported[SIM_SHARDS_MAX];
};

struct sim_outgoing {
    bool wanted;
    uint32_t backoff_ms;
    struct sim_connection *connection; /* under way or up, or NULL */
};

struct sim_node {
    uint16_t index;
    uint64_t id;
    char name[16];
    bool running;
    bool recovering;
    bool doomed;       /* the process ends as soon as the step under way is over */
    bool doomed_power; /* and the machine with it */
    uint64_t life;     /* counts starts and ends: what belongs to an older life is dropped */
    uint16_t shards;   /* K of this run */
    uint64_t paused_until_us;
    uint64_t stalled_until_us; /* end of its last pause, disk stall or start: deadlines count from here */
    int64_t clock_offset_us;
    int64_t clock_drift_ppm;
    uint64_t mono_base_us;
    uint64_t started_wall_ms;
    uint64_t directory_serial;
    bool wiped;
    bool dead_for_good; /* nobody starts it again */
    bool served;        /* its directory was accepted by the others */
    uint64_t
        disk_life; /* another one after an older disk was put back: what it makes again was made by another */
    bool full;     /* its disk has no room */
    bool flush_fails;   /* scenarios: every flush fails, */
    bool flush_arrives; /* and yet is in the cold tier */
    uint64_t slow_until_us;
    struct sim_shard shard[SIM_SHARDS_MAX];
    struct sim_log log;
    struct sim_disk disk;
    struct sim_disk copy; /* of an earlier time */
    struct sim_outgoing outgoing[SIM_SHARDS_MAX][SIM_NODES_MAX];
    bool meta_pending;
    uint64_t meta_sequence;
    struct buf meta_bytes;
};

/* ---- network -------------------------------------------------------------------------------------------- */

/* One attempt to connect; kept until the world ends, so that happenings may point at it. */
struct sim_connection {
    uint16_t from;
    uint16_t to;
    uint16_t from_shard;
    uint16_t to_shard; /* which shard of the receiver has the link */
    uint64_t from_life;
    uint64_t to_life;
    bool up;        /* the sender was told UP */
    bool from_open; /* the sender's end */
    bool to_open;   /* the receiver's end: the link exists */
    bool cut;       /* nothing gets through any more */
    bool greeted;   /* the answer to the HELLO was passed on */
    bool moving;    /* between two shards of the receiver */
    bool silent;    /* shard 0 has handed it over */
    uint64_t link;  /* its number at the receiver */
    uint64_t forward_order_us;
    uint64_t backward_order_us;
    struct buf to_input;
    struct buf from_input;
};

struct sim_network {
    struct sim_connection **connections; /* by link number - 1 */
    uint32_t count;
    uint32_t capacity;
    uint64_t blocked_until_us[SIM_NODES_MAX][SIM_NODES_MAX]; /* from, to */
    uint64_t extra_delay_us[SIM_NODES_MAX][SIM_NODES_MAX];   /* scenarios: a slow path */
    /* Scenarios: looks at each frame; true = it is lost here. */
    bool (*filter)(struct world *world, uint16_t from, uint16_t to, struct span frame);
    void *filter_context;
};

/* ---- clients -------------------------------------------------------------------------------------------- */

/* A command that waits for its reply; the operations are next to each other in the history. */
struct sim_command {
    uint32_t operation_first;
    uint32_t operations; /* 0: a command that is no operation */
    uint64_t sent_us;
    uint32_t timeout_ms;
};

#define SIM_PIPELINE_MAX 16

struct sim_client {
    uint16_t index;
    enum client_protocol protocol;
    bool connected;
    bool scripted;   /* issues nothing by itself */
    bool raw;        /* its replies are not looked at */
    bool checked;    /* every request must succeed (after the healing) */
    uint64_t number; /* of the connection, as the server knows it */
    uint16_t node;
    uint16_t shard;
    uint64_t life;
    bool paused; /* the server reads no more */
    uint8_t r;
    uint8_t w;
    uint32_t timeout_ms;
    bool consistency_sent;
    bool sloppy;
    uint8_t depth;          /* of its pipeline */
    uint32_t budget;        /* operations still to issue */
    struct buf sending;     /* issued, not given to the network yet */
    struct buf to_server;   /* at the server, not used by it yet */
    size_t shown;           /* of them the server has seen so many */
    struct buf from_server; /* here, not a whole reply yet */
    struct sim_command commands[SIM_PIPELINE_MAX];
    uint32_t commands_head;
    uint32_t commands_count;
    uint64_t last_reply_us;
    uint64_t order_us;
    uint64_t serial;       /* of the planned look */
    struct buf last_reply; /* scripted: the raw bytes of the last reply */
};

/* ---- the world ------------------------------------------------------------------------------------------ */

/* Counted over a run, and summed over runs: what shows that the runs exercise things. */
#define TOTALS_MAP(X)   \
    X(requests)         \
    X(acked)            \
    X(reads)            \
    X(unknown)          \
    X(refused)          \
    X(frames)           \
    X(frames_lost)      \
    X(datagrams)        \
    X(datagrams_lost)   \
    X(suspicions)       \
    X(deaths)           \
    X(refutations)      \
    X(crashes)          \
    X(power_losses)     \
    X(clean_stops)      \
    X(recovered_rows)   \
    X(torn_tails)       \
    X(damages)          \
    X(failed_syncs)     \
    X(wipes)            \
    X(older_disks)      \
    X(partitions)       \
    X(pauses)           \
    X(clock_steps)      \
    X(flushes)          \
    X(cold_reads)       \
    X(blind_writes)     \
    X(cold_scans)       \
    X(cold_pages)       \
    X(evictions)        \
    X(overloads)        \
    X(puts_refused)     \
    X(restamps)         \
    X(write_backs)      \
    X(deadline_drops)   \
    X(stale_epochs)     \
    X(hedges)           \
    X(hedges_won)       \
    X(hedges_refused)   \
    X(read_probes)      \
    X(segments_freed)   \
    X(hints_stored)     \
    X(hints_replayed)   \
    X(hints_converted)  \
    X(hints_discarded)  \
    X(exchanges)        \
    X(exchanges_failed) \
    X(records_sent)     \
    X(records_received) \
    X(rescans)          \
    X(leaves_wrong)     \
    X(purged)           \
    X(floor_refusals)   \
    X(slots_healed)     \
    X(left_dead)        \
    X(worlds_purged)    \
    X(worlds_converged)

struct totals {
    uint64_t seeds;
    uint64_t happenings;
    uint64_t simulated_us;
#define TOTALS_MEMBER(name) uint64_t name;
    TOTALS_MAP(TOTALS_MEMBER)
#undef TOTALS_MEMBER
};

struct world {
    struct alloc alloc; /* no budget */
    struct swarm swarm;
    struct prng prng;
    uint64_t seed;
    uint64_t now_us;
    uint64_t digest; /* of all events and effects (invariant 10) */
    struct happening_queue queue;
    uint16_t node_count;
    struct sim_node nodes[SIM_NODES_MAX];
    const struct ring *ring; /* in force; the first one is shared by worlds */
    struct ring *ring_made;  /* by a scenario; owned */
    struct sim_network network;
    struct sim_client clients[SIM_CLIENTS_MAX];
    uint16_t client_count;
    uint64_t client_serial;
    struct history history;
    struct oracles oracles;
    struct totals totals;
    bool damage_expected;        /* a scenario has damaged a log */
    uint64_t clock_error_max_us; /* of any node at any time */
    uint16_t wiped_count;
    bool faults_on;
    bool failed;
    char failure[512];
    uint32_t failure_key; /* HISTORY_KEY_NONE if it is about no key */
    /* The timeline: */
    bool trace;
    uint32_t trace_key; /* only this key's; HISTORY_KEY_NONE = all keys */
};

/* Makes a world from a swarm; nothing runs yet. rings are kept for later worlds by the caller. */
struct ring_shelf;
void world_init(struct world *world, uint64_t seed, const struct swarm *swarm, struct ring_shelf *shelf);
void world_free(struct world *world);

/* Rings made once and used by many worlds: claims take long compared with a run. */
struct ring_shelf {
    struct alloc alloc;
    struct ring *rings[SIM_NODES_MAX + 1][SIM_NODES_MAX + 1]; /* by nodes, N */
};
void ring_shelf_init(struct ring_shelf *shelf);
void ring_shelf_free(struct ring_shelf *shelf);
const struct ring *ring_shelf_get(struct ring_shelf *shelf, uint16_t nodes, uint8_t replicas);

/* Plans something; the caller fills in the rest. */
struct happening *world_plan(struct world *world, uint64_t at_us,
                             void (*fire)(struct world *, struct happening *));

/* Runs until this time, or until something failed. */
void world_run_until(struct world *world, uint64_t at_us);
void world_run_for(struct world *world, uint64_t us);

/* The whole life of a random world: faults, healing, last checks. */
void world_run_swarm(struct world *world);

/* An oracle's finding; the first one counts. */
void world_fail(struct world *world, uint32_t key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* One line of the timeline, about a key or (HISTORY_KEY_NONE) about all. */
void world_say(struct world *world, uint32_t key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static inline bool world_traces(const struct world *world, uint32_t key)
{
    return world->trace &&
           (world->trace_key == HISTORY_KEY_NONE || key == HISTORY_KEY_NONE || world->trace_key == key);
}

/* Random numbers from ranges. */
uint64_t world_draw(struct world *world, uint64_t least, uint64_t most);
bool world_chance(struct world *world, uint32_t per_million);

/* ---- sim/process.c -------------------------------------------------------------------------------------- */

struct now node_now(const struct world *world, const struct sim_node *node);
uint64_t node_wall_ms(const struct world *world, const struct sim_node *node);
void node_start(struct world *world, struct sim_node *node);
/* power: the machine stops too, unsynced writes are uncertain. */
void node_crash(struct world *world, struct sim_node *node, bool power);
void node_stop(struct world *world, struct sim_node *node);
void node_wipe(struct world *world, struct sim_node *node);
/* Keeps a copy of the disk as it is now, and, while the node is down, puts it back. */
void node_copy_disk(struct world *world, struct sim_node *node);
void node_put_back(struct world *world, struct sim_node *node);
/* Whether every other node durably knows that the copy is old: those who do not could only believe it. */
bool node_copy_is_known_old(struct world *world, const struct sim_node *node);
void node_clock_set(struct world *world, struct sim_node *node, int64_t offset_us, int64_t drift_ppm);
void node_pause(struct world *world, struct sim_node *node, uint64_t us);

/* ---- sim/turn.c ----------------------------------------------------------------------------------------- */

/* An event for a shard's next turn; bytes are copied. */
struct event *shard_post(struct world *world, struct sim_node *node, uint16_t shard, enum event_kind kind,
                         struct span bytes);
void shard_plan_turn(struct world *world, struct sim_node *node, uint16_t number, uint64_t at_us);
void shard_perform(struct world *world, struct sim_node *node, uint16_t shard);
void shard_inbox_free(struct world *world, struct sim_shard *shard);

/* ---- sim/logger.c --------------------------------------------------------------------------------------- */

struct log_recovery_report;
void logger_start(struct world *world, struct sim_node *node, const struct log_recovery_report *report);
void logger_append(struct world *world, struct sim_node *node, uint16_t shard, const struct effect *effect);
void logger_flushed(struct world *world, struct sim_node *node, uint16_t shard, uint64_t sequence);
/* The process ends in the middle of whatever is under way. */
void logger_interrupt(struct world *world, struct sim_node *node);
/* Carries out all that is left at once (clean stop). */
void logger_drain(struct world *world, struct sim_node *node);
void logger_free(struct world *world, struct sim_node *node);

/* ---- sim/storage.c: cold tier and meta file of a running process ----------------------------------------- */

void storage_cold_read(struct world *world, struct sim_node *node, uint16_t shard,
                       const struct effect *effect);
void storage_scan_open(struct world *world, struct sim_node *node, uint16_t number,
                       const struct effect *effect);
void storage_scan_next(struct world *world, struct sim_node *node, uint16_t shard, uint64_t ticket);
void storage_scan_stop(struct world *world, struct sim_node *node, uint16_t shard, uint64_t ticket);
/* The process ends: open scans are forgotten. */
void storage_scans_free(struct world *world, struct sim_shard *shard);
void storage_flush(struct world *world, struct sim_node *node, uint16_t shard, struct flush_job *job);
void storage_meta_write(struct world *world, struct sim_node *node, const struct effect *effect);
void storage_ingest(struct world *world, struct sim_node *node, struct flush_job *job);

/* ---- sim/network.c -------------------------------------------------------------------------------------- */

void network_want(struct world *world, struct sim_node *node, uint16_t shard, uint64_t peer);
void network_send(struct world *world, struct sim_node *node, uint16_t shard, const struct effect *effect);
void network_drop(struct world *world, struct sim_node *node, uint16_t shard, uint64_t peer);
void network_datagram(struct world *world, struct sim_node *node, const struct effect *effect);
void network_link_send(struct world *world, struct sim_node *node, const struct effect *effect);
void network_link_move(struct world *world, struct sim_node *node, const struct effect *effect);
/* Bytes for a shard whose turn it is: how much of them its event used. */
struct span network_link_bytes(struct world *world, uint64_t link);
void network_link_used(struct world *world, uint64_t link, size_t size);
struct buf *network_peer_input(struct world *world, struct sim_node *node, uint16_t shard, uint64_t peer);
void network_node_gone(struct world *world, struct sim_node *node, bool at_once);
/* Scenarios: a frame that comes from a node's first shard, whether that has sent it or not. */
void network_deliver(struct world *world, uint16_t from, uint16_t to, struct span frame);
void network_block(struct world *world, uint16_t from, uint16_t to, uint64_t until_us);
void network_break(struct world *world, uint16_t a, uint16_t b);
/* Those that `from` opened only. */
void network_break_from(struct world *world, uint16_t from, uint16_t to);
void network_heal(struct world *world);
void network_free(struct world *world);
uint16_t world_node_index(const struct world *world, uint64_t id);

/* ---- sim/client.c --------------------------------------------------------------------------------------- */

void clients_start(struct world *world);
struct sim_client *client_by_number(struct world *world, uint64_t number);
void client_plan(struct world *world, struct sim_client *client, uint64_t at_us);
void client_from_server(struct world *world, const struct effect *effect);
void client_resumed(struct world *world, uint64_t number);
void clients_node_gone(struct world *world, struct sim_node *node);
bool clients_idle(const struct world *world);
void clients_end(struct world *world);
/* A connection to a shard for scripts, and one command of it: see sim/scenario.h. */
struct sim_client *client_open(struct world *world, uint16_t node, uint16_t shard);
void client_close(struct world *world, struct sim_client *client);
void client_issue(struct world *world, struct sim_client *client, const struct operation_plan *plan);
void client_issue_consistency(struct world *world, struct sim_client *client, uint8_t r, uint8_t w,
                              uint32_t timeout_ms);
void client_send(struct world *world, struct sim_client *client);
/* sim/client_reply.c */
void client_take_replies(struct world *world, struct sim_client *client);

/* ---- sim/faults.c --------------------------------------------------------------------------------------- */

void faults_start(struct world *world);

/* Adds what the shards counted to the totals (before they end). */
void totals_add_shards(struct world *world, struct sim_node *node);
void totals_add(struct totals *totals, const struct totals *more);

#endif
