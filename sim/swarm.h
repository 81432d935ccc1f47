/* What one seed's world is like: sizes, rates of faults, limits. Swarm testing (Groce et al., 2012): every seed draws
 * its own switches, so that rare combinations, and whole classes of fault being absent, come up too. */
#ifndef RONDO_SIM_SWARM_H
#define RONDO_SIM_SWARM_H

#include "base/prng.h"
#include "shard/shard.h"
#include "sim/disk.h"

enum sim_durability {
    SIM_DURABILITY_ALWAYS,
    SIM_DURABILITY_INTERVAL,
    SIM_DURABILITY_OS,
};

/* Chances are per million; times in microseconds. */
struct swarm {
    /* the cluster */
    uint16_t nodes;
    uint8_t replicas;
    uint16_t shards[5];
    bool shards_change; /* K may differ after a restart */
    enum sim_durability durability;
    uint64_t memory_bytes; /* of each shard */
    uint64_t row_bytes;    /* of it at most so much for rows; 0 = the usual part */
    uint64_t log_segment_bytes;
    uint32_t clock_skew_max_ms;
    uint32_t request_timeout_ms;
    struct shard_healing healing;
    bool blind_writes;

    /* the work */
    uint16_t clients;
    uint16_t http_clients; /* of them */
    uint16_t keys;
    uint32_t operations; /* of all clients together */
    uint32_t value_bytes_max;
    uint32_t pipeline_max;
    uint64_t think_us_max;
    bool ttl;         /* keys with expiries exist */
    bool weak;        /* R and W below quorums are drawn too */
    bool sloppy;      /* some clients take fallbacks for replicas */
    uint32_t reads;   /* share of reads */
    uint32_t deletes; /* share of deletes among the rest */
    uint32_t client_leaves;

    /* the network */
    uint64_t delay_us;
    uint32_t loss;
    uint32_t duplicate;
    uint32_t reorder;
    uint32_t straggler; /* a frame that takes very long */
    uint64_t straggler_us;
    uint64_t partition_every_us; /* mean; 0 = never */
    uint64_t partition_us;
    bool partition_one_way;
    bool partition_stalls; /* frames wait for its end instead of being lost */
    uint64_t break_every_us;

    /* processes and machines */
    uint64_t crash_every_us;
    uint32_t power; /* share of crashes that take the machine along */
    uint32_t clean; /* share of ends that are clean */
    uint64_t down_us;
    uint64_t pause_every_us;
    uint64_t pause_us;
    bool wipe;
    uint32_t left_dead;     /* when the faults end, a minority is not started again */
    bool older_disk;        /* an older copy of a disk is put back */
    uint64_t turn_delay_us; /* how long a shard may take to get to its next turn */

    /* clocks */
    uint64_t clock_offset_us;
    uint64_t clock_drift_ppm;
    uint64_t clock_step_every_us;
    uint64_t clock_step_us;

    /* disks */
    uint64_t write_us;
    uint64_t sync_us;
    uint64_t cold_read_us;
    uint64_t flush_us;
    uint32_t flush_fails;
    uint32_t cold_read_fails;
    uint32_t sync_fails;
    uint64_t slow_every_us;
    uint64_t slow_us;
    bool slow_log_only; /* a slow disk is the log's, not the cold tier's */
    uint64_t full_every_us;
    uint64_t full_us;
    struct disk_crash disk_crash;
};

/* The swarm of a seed. */
void swarm_draw(struct swarm *swarm, struct prng *prng);

/* A calm cluster for scenarios: no faults, short delays. */
void swarm_calm(struct swarm *swarm, uint16_t nodes, uint8_t replicas, uint16_t shards);

/* One line for people. */
void swarm_format(const struct swarm *swarm, struct buf *text);

#endif
