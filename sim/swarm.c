/* Drawing a swarm. */
#include "sim/swarm.h"

#include <inttypes.h>

#include "repair/hints.h"
#include "sim/history.h"

static uint64_t draw(struct prng *prng, uint64_t least, uint64_t most)
{
    return most <= least ? least : least + prng_below(prng, most - least + 1);
}

/* One of the values with a chance of one in so many, else 0. */
static bool one_in(struct prng *prng, uint32_t count)
{
    return prng_below(prng, count) == 0;
}

static void draw_cluster(struct swarm *swarm, struct prng *prng)
{
    static const uint16_t sizes[] = {1, 2, 3, 3, 3, 3, 3, 4, 5, 5};
    swarm->nodes = sizes[prng_below(prng, 10)];
    uint8_t replicas = one_in(prng, 4) ? (uint8_t)draw(prng, 1, 5) : 3;
    swarm->replicas = replicas > swarm->nodes ? (uint8_t)swarm->nodes : replicas;
    uint16_t shards = (uint16_t)draw(prng, 1, 3);
    for (int i = 0; i < 5; i++)
        swarm->shards[i] = one_in(prng, 4) ? (uint16_t)draw(prng, 1, 3) : shards;
    swarm->shards_change = one_in(prng, 2);
    swarm->durability = SIM_DURABILITY_ALWAYS;
    if (one_in(prng, 6))
        swarm->durability = one_in(prng, 2) ? SIM_DURABILITY_INTERVAL : SIM_DURABILITY_OS;
    swarm->memory_bytes = UINT64_C(16) << 20;
    swarm->log_segment_bytes = one_in(prng, 2) ? UINT64_C(32) << 10 : draw(prng, 8 << 10, 64 << 10);
    swarm->clock_skew_max_ms = 500;
    swarm->request_timeout_ms = one_in(prng, 3) ? 1000 : (uint32_t)draw(prng, 100, 500);
}

/* Everything heals within the seconds that a run lasts: purge waits for request_timeout_max and twice the skew. */
static void draw_healing(struct swarm *swarm, struct prng *prng)
{
    swarm->healing = shard_healing_default();
    swarm->healing.hints = !one_in(prng, 6);
    swarm->healing.repair = !one_in(prng, 6);
    swarm->healing.request_timeout_max_ms = 2000;
    swarm->healing.repair_interval_ms = (uint32_t)draw(prng, 4000, one_in(prng, 3) ? 20000 : 9000);
    swarm->healing.rescan_interval_ms = one_in(prng, 4) ? (uint32_t)draw(prng, 20000, 100000) : 86400000;
    swarm->healing.repair_bytes_per_s = one_in(prng, 4) ? draw(prng, 20000, 200000) : UINT64_C(32) << 20;
    swarm->healing.hint_bytes_per_s = one_in(prng, 4) ? draw(prng, 1000, 20000) : UINT64_C(16) << 20;
    swarm->healing.hint_bytes_max = one_in(prng, 4) ? draw(prng, 200, 5000) : HINT_BYTES_MAX_DEFAULT;
}

static void draw_work(struct swarm *swarm, struct prng *prng)
{
    swarm->clients = (uint16_t)draw(prng, 2, 8);
    swarm->http_clients = one_in(prng, 3) ? (uint16_t)draw(prng, 1, 2) : 0;
    swarm->keys = (uint16_t)draw(prng, 1, 8);
    swarm->operations = (uint32_t)draw(prng, 100, 400);
    swarm->value_bytes_max = one_in(prng, 3) ? (uint32_t)draw(prng, 100, 2000) : 32;
    swarm->pipeline_max = one_in(prng, 2) ? (uint32_t)draw(prng, 2, 6) : 1;
    /* Mostly so that the run lasts a few seconds, and faults have time to come. */
    swarm->think_us_max = one_in(prng, 6) ? 0 : draw(prng, 10000, 150000);
    swarm->ttl = one_in(prng, 3);
    swarm->weak = one_in(prng, 3);
    swarm->sloppy = swarm->healing.hints && one_in(prng, 4);
    swarm->deletes = one_in(prng, 2) ? (uint32_t)draw(prng, 200000, 600000) : 150000;
    swarm->reads = (uint32_t)draw(prng, 200000, 700000);
    swarm->client_leaves = one_in(prng, 2) ? (uint32_t)draw(prng, 1000, 30000) : 0;
    /* Little memory: rows go cold, are evicted and read again, and writes are refused for want of room. */
    if (one_in(prng, 4)) {
        swarm->keys = (uint16_t)draw(prng, 20, HISTORY_KEYS_MAX);
        swarm->value_bytes_max = (uint32_t)draw(prng, 2000, 8000);
        swarm->row_bytes = draw(prng, 56, 168) << 10;
    }
}

static void draw_network(struct swarm *swarm, struct prng *prng)
{
    swarm->delay_us = one_in(prng, 3) ? draw(prng, 1000, 20000) : draw(prng, 50, 1000);
    swarm->loss = one_in(prng, 3) ? (uint32_t)draw(prng, 0, 300000) : 0;
    swarm->duplicate = one_in(prng, 3) ? (uint32_t)draw(prng, 0, 100000) : 0;
    swarm->reorder = one_in(prng, 2) ? (uint32_t)draw(prng, 0, 500000) : 0;
    swarm->straggler = one_in(prng, 2) ? (uint32_t)draw(prng, 0, 50000) : 0;
    swarm->straggler_us = draw(prng, 50000, 1500000);
    swarm->partition_every_us = one_in(prng, 3) ? draw(prng, 200000, 2000000) : 0;
    swarm->partition_us = draw(prng, 20000, 1500000);
    swarm->partition_one_way = one_in(prng, 2);
    swarm->partition_stalls = one_in(prng, 2);
    swarm->break_every_us = one_in(prng, 3) ? draw(prng, 100000, 1000000) : 0;
}

static void draw_machines(struct swarm *swarm, struct prng *prng)
{
    swarm->crash_every_us = one_in(prng, 2) ? draw(prng, 60000, 1000000) : 0;
    /* Below `always` a power loss counts as a lost disk: there only processes die. */
    swarm->power = swarm->durability == SIM_DURABILITY_ALWAYS ? (uint32_t)draw(prng, 0, 1000000) : 0;
    swarm->clean = one_in(prng, 2) ? (uint32_t)draw(prng, 0, 500000) : 0;
    swarm->down_us = one_in(prng, 2) ? draw(prng, 100, 20000) : draw(prng, 20000, 800000);
    swarm->pause_every_us = one_in(prng, 3) ? draw(prng, 200000, 2000000) : 0;
    swarm->pause_us = draw(prng, 10000, 1200000);
    /* One disk at most is lost. */
    bool loses_disk = one_in(prng, 5) && swarm->replicas >= 3;
    swarm->wipe = loses_disk && one_in(prng, 2);
    swarm->older_disk = loses_disk && !swarm->wipe;
    swarm->left_dead = one_in(prng, 3) ? 1000000 : 0;
    swarm->turn_delay_us = one_in(prng, 3) ? draw(prng, 100, 5000) : 20;
    swarm->clock_offset_us = one_in(prng, 2) ? 0 : draw(prng, 1000, one_in(prng, 3) ? 600000 : 120000);
    swarm->clock_drift_ppm = one_in(prng, 2) ? 0 : draw(prng, 10, 5000);
    swarm->clock_step_every_us = one_in(prng, 4) ? draw(prng, 200000, 2000000) : 0;
    swarm->clock_step_us = draw(prng, 1000, one_in(prng, 3) ? 3000000 : 200000);
}

static void draw_disks(struct swarm *swarm, struct prng *prng)
{
    swarm->write_us = draw(prng, 10, 200);
    swarm->sync_us = one_in(prng, 4) ? draw(prng, 1000, 30000) : draw(prng, 50, 1000);
    swarm->cold_read_us = one_in(prng, 3) ? draw(prng, 1000, 30000) : draw(prng, 20, 500);
    swarm->flush_us = one_in(prng, 2) ? draw(prng, 1000, 300000) : draw(prng, 100, 5000);
    swarm->flush_fails = one_in(prng, 4) ? (uint32_t)draw(prng, 0, 300000) : 0;
    swarm->cold_read_fails = one_in(prng, 6) ? (uint32_t)draw(prng, 0, 50000) : 0;
    /* A failed sync is as bad as a power loss, which worlds below `always` do not have. */
    bool always = swarm->durability == SIM_DURABILITY_ALWAYS;
    swarm->sync_fails = always && one_in(prng, 5) ? (uint32_t)draw(prng, 0, 5000) : 0;
    swarm->slow_every_us = one_in(prng, 4) ? draw(prng, 200000, 2000000) : 0;
    swarm->slow_us = draw(prng, 10000, 800000);
    swarm->slow_log_only = one_in(prng, 2);
    swarm->full_every_us = one_in(prng, 5) ? draw(prng, 300000, 2000000) : 0;
    swarm->full_us = draw(prng, 10000, 600000);
    swarm->disk_crash.lost = (uint32_t)draw(prng, 0, 700000);
    swarm->disk_crash.partial = (uint32_t)draw(prng, 0, 500000);
    swarm->disk_crash.garbled = (uint32_t)draw(prng, 0, 300000);
}

/* A node that lost its disk looks at every slot of its own and of the others: at the slowest reads for half an hour. */
static void limit_reads(struct swarm *swarm)
{
    if ((swarm->wipe || swarm->older_disk || swarm->cold_read_fails > 0) && swarm->cold_read_us > 1000)
        swarm->cold_read_us = 1000;
}

/* Long enough for gossip to declare nodes dead, and then to be wrong about it. */
static void draw_outages(struct swarm *swarm, struct prng *prng)
{
    if (!one_in(prng, 10))
        return;
    swarm->partition_us = draw(prng, 2000000, 6000000);
    swarm->pause_us = draw(prng, 2000000, 6000000);
    swarm->down_us = draw(prng, 1000000, 6000000);
    swarm->think_us_max = draw(prng, 150000, 400000);
}

void swarm_draw(struct swarm *swarm, struct prng *prng)
{
    *swarm = (struct swarm){0};
    draw_cluster(swarm, prng);
    draw_healing(swarm, prng);
    draw_work(swarm, prng);
    draw_network(swarm, prng);
    draw_machines(swarm, prng);
    draw_disks(swarm, prng);
    limit_reads(swarm);
    draw_outages(swarm, prng);
    swarm->blind_writes = !one_in(prng, 4); /* last, so that nothing else depends on it */
}

void swarm_calm(struct swarm *swarm, uint16_t nodes, uint8_t replicas, uint16_t shards)
{
    *swarm = (struct swarm){
        .nodes = nodes,
        .replicas = replicas,
        .shards = {shards, shards, shards, shards, shards},
        .durability = SIM_DURABILITY_ALWAYS,
        .memory_bytes = UINT64_C(16) << 20,
        .log_segment_bytes = UINT64_C(32) << 10,
        .clock_skew_max_ms = 500,
        .request_timeout_ms = 1000,
        .keys = 8,
        .value_bytes_max = 32,
        .deletes = 150000,
        .pipeline_max = 1,
        .delay_us = 200,
        .turn_delay_us = 20,
        .write_us = 20,
        .sync_us = 100,
        .cold_read_us = 100,
        .flush_us = 1000,
        .down_us = 10000,
        .healing = shard_healing_default(),
        .blind_writes = true,
    };
    swarm->healing.request_timeout_max_ms = 2000;
    /* Scenarios are about one thing: those about healing turn it on. */
    swarm->healing.hints = false;
    swarm->healing.repair = false;
}

void swarm_format(const struct swarm *swarm, struct buf *text)
{
    static const char *const durability[] = {"always", "interval", "os"};
    buf_append_format(
        text, "%u nodes, N=%u, K=%u%s, %s, %" PRIu64 " KiB for rows, %u clients, %u keys, %u operations",
        swarm->nodes, swarm->replicas, swarm->shards[0], swarm->shards_change ? " changing" : "",
        durability[swarm->durability], (swarm->row_bytes ? swarm->row_bytes : swarm->memory_bytes) >> 10,
        swarm->clients, swarm->keys, swarm->operations);
    buf_append_format(
        text, ", loss %u%%, %s%s%s%s%s%s%s%s%s%s", swarm->loss / 10000,
        swarm->blind_writes ? "blind writes, " : "", swarm->partition_every_us ? "partitions, " : "",
        swarm->break_every_us ? "breaks, " : "", swarm->crash_every_us ? "crashes, " : "",
        swarm->pause_every_us ? "pauses, " : "", swarm->clock_step_every_us ? "clock steps, " : "",
        swarm->full_every_us ? "full disks, " : "", swarm->slow_every_us ? "slow disks, " : "",
        swarm->wipe ? "a wiped disk, " : "", swarm->older_disk ? "an older disk, " : "");
}
