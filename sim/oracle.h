/* The oracles: what must hold (DESIGN section 7), each in a file of its own.
 *
 *   oracle_register.c  1 and "real time": what reads may return, from the clients' histories alone
 *   oracle_durable.c   1, 5: what was promised is on the disk when it is promised, and after every recovery
 *   oracle_stamp.c     4: no stamp is made twice for one key; 3: merge laws on the records seen
 *   oracle_request.c   9: one reply to each request, in time; bounded memory
 *   oracle_liveness.c  gossip: knowledge only grows, the healthy live, the healed are alive again
 *   oracle_purge.c     6: nothing is purged too early, nothing purged comes back
 *   oracle_healing.c   2: after the faults hints drain, and replicas become equal in time
 *
 * 8 (epochs) is a scenario; 10 (same seed, same run) is the digest of the world. */
#ifndef RONDO_SIM_ORACLE_H
#define RONDO_SIM_ORACLE_H

#include "gossip/swim.h"
#include "model/record.h"
#include "proto/frame.h"
#include "sim/history.h"
#include "store/log_format.h"

struct world;
struct swarm;
struct sim_node;
struct sim_client;

#define ORACLE_NODES_MAX 5
#define ORACLE_SAMPLES 6

/* A row that is in the log but perhaps not on the disk. */
struct oracle_row {
    uint16_t shard;
    bool purged; /* it was taken out when it had this version */
    bool hint;   /* no row of the key, but one that is kept for another node */
    uint32_t key;
    uint64_t sequence;
    struct version version;
};

/* What is known of one key on one node. */
struct oracle_replica {
    struct version durable;  /* highest registers on its disk; empty after a wipe */
    struct version ever;     /* the same, wipes forgotten */
    struct version promised; /* highest told to anybody */
    struct version held;     /* of the row that it logged last, or recovered; none once it is purged */
    struct version hinted;   /* highest that was on its disk as a hint for somebody */
    struct version purged;   /* highest that it took out, since it has this disk */
    struct version dropped;  /* likewise, of a slot that was being rebuilt */
};

struct oracle_stamp {
    uint64_t key; /* of the table: a hash of (key, stamp); 0 = free */
    uint64_t content;
    struct stamp applies_to; /* of an override */
};

/* The stamps under which a value was written: at its acknowledgement the highest is that of the write's last round. */
struct oracle_value {
    struct stamp lowest;
    struct stamp highest;
};

/* A run's stamps are made under its own id; where its disk is whole, their times are not those of an earlier run
 * either. So the stamps of all runs from one disk are taken for one actor's. */
struct oracle_run {
    uint64_t id;
    uint64_t origin;
};

struct oracle_exchange {
    uint64_t id; /* a hash of who asked whom, with which number; 0 = free */
    uint32_t key;
};

/* What a node knows of another. */
struct oracle_liveness {
    uint64_t incarnation;
    enum swim_state state;
};

struct oracles {
    struct alloc *alloc;
    /* By node, target and key: what a node keeps for another, as its log says. */
    struct version hints[ORACLE_NODES_MAX][ORACLE_NODES_MAX][HISTORY_KEYS_MAX];
    struct oracle_liveness liveness[ORACLE_NODES_MAX][ORACLE_NODES_MAX];
    bool nobody_dies; /* nothing that goes wrong in this world may make gossip declare a node dead */
    struct oracle_replica replica[ORACLE_NODES_MAX][HISTORY_KEYS_MAX];
    struct oracle_row *rows[ORACLE_NODES_MAX]; /* waiting for their sync */
    uint32_t row_count[ORACLE_NODES_MAX];
    uint32_t row_capacity[ORACLE_NODES_MAX];
    struct oracle_stamp *stamps; /* open addressing */
    uint32_t stamp_count;
    uint32_t stamp_capacity;
    struct oracle_run *runs;
    uint32_t run_count;
    uint32_t run_capacity;
    struct oracle_exchange *exchanges;
    uint32_t exchange_count;
    uint32_t exchange_capacity;
    struct oracle_value *values; /* by number */
    uint32_t value_capacity;
    struct buf samples[HISTORY_KEYS_MAX][ORACLE_SAMPLES];
    uint32_t sample_next[HISTORY_KEYS_MAX];
    uint64_t rows_logged;
};

void oracles_init(struct oracles *oracles, struct alloc *alloc);
void oracles_free(struct oracles *oracles);

/* A process starts; origin: what its disk is. */
void oracle_run(struct world *world, uint64_t id, uint64_t origin);
/* A record was seen on its way somewhere (a frame or the log). */
void oracle_record_seen(struct world *world, uint32_t key, struct span bytes);
/* The value that an override seen before applies to; none if it was not seen. */
struct stamp oracle_override_applies_to(struct world *world, uint32_t key, struct stamp override);
/* A frame leaves a node for another. */
void oracle_frame_sent(struct world *world, struct sim_node *from, struct sim_node *to,
                       const struct frame *frame);
/* A batch was handed to the log; all of a shard's up to a sequence is durable. */
void oracle_log_append(struct world *world, struct sim_node *node, uint16_t shard, uint64_t sequence,
                       struct span payload);
void oracle_log_durable(struct world *world, struct sim_node *node, uint16_t shard, uint64_t sequence);
/* A row is written to the cold tier. */
void oracle_row_cold(struct world *world, struct sim_node *node, struct span name, struct span bytes);
/* The process ended: rows that were not durable are forgotten. */
void oracle_node_gone(struct world *world, struct sim_node *node);
void oracle_node_wiped(struct world *world, struct sim_node *node);
/* The node has recovered, but not run yet: everything promised must be there. */
void oracle_node_recovered(struct world *world, struct sim_node *node);
/* A client was told that a write is done. */
void oracle_write_acked(struct world *world, const struct history_op *op);
/* A client was told a value. */
void oracle_read_answered(struct world *world, const struct history_op *op);
/* A reply came late, or not at all: called at each reply and whenever a client looks. */
void oracle_request_time(struct world *world, const struct sim_client *client);
/* After each turn of a shard. */
void oracle_turn(struct world *world, const struct sim_node *node, uint16_t shard);
/* The same, for shard 0; and its process ended. */
void oracle_liveness_turn(struct world *world, const struct sim_node *node);
void oracle_liveness_gone(struct world *world, const struct sim_node *node);
/* Whether the faults of a swarm leave every node alive and heard. */
bool oracle_nobody_dies(const struct swarm *swarm);
/* All running nodes hold each other alive; they must within the bound after everything was healed. */
bool oracle_all_alive(const struct world *world);
uint64_t oracle_liveness_bound_us(const struct world *world);
/* Shared by the oracles of rows. */
bool oracle_covers(struct world *world, uint32_t key, struct version held, struct version promised);
uint16_t oracle_key_slot(struct world *world, uint32_t key);
void oracle_version_raise(struct world *world, uint32_t key, struct version *version, struct version seen);
/* oracle_purge.c: a log entry that erases a row, or one that keeps or erases a hint; a row that is logged. */
void oracle_purged(struct world *world, struct sim_node *node, uint16_t shard, const struct log_entry *entry);
bool oracle_hint_logged(struct world *world, struct sim_node *node, struct span hint_key, struct span row,
                        struct oracle_row *logged);
void oracle_came_back(struct world *world, struct sim_node *node, uint16_t shard, uint32_t key,
                      struct version version);
void oracle_hints_recovered(struct world *world, struct sim_node *node);
/* oracle_healing.c: what a shard counted, before it ends. */
void oracle_trees(struct world *world, const struct sim_node *node, uint16_t shard);
/* Once nothing goes wrong any more: runs the world until everything that heals is healed. */
void oracle_converge(struct world *world);
/* At the end of a run. */
void oracle_merge_laws(struct world *world);
void oracle_register_check(struct world *world);
void oracle_quiet(struct world *world);

#endif
