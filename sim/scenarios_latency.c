/* Scenarios of slow nodes. Times are simulated ones, so that they can be asserted. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "quorum/replica_choice.h"
#include "sim/scenarios.h"

#define BURSTS 100u
#define BURST_READS 8u
#define READS (BURSTS * BURST_READS)
#define KEYS 8u
#define SLOW_NODE 2u
#define SLOW_US 500000u

/* Between bursts, so that a phase lasts for several of the slow node's answers. */
#define PAUSE_US 25000u

/* Nobody needs so long to be told apart from half a second. */
#define TAKEN_BACK_US 4000000u

static void delay_slow_node(struct world *world, uint64_t us)
{
    for (uint16_t node = 0; node < SLOW_NODE; node++)
        world->network.extra_delay_us[node][SLOW_NODE] = world->network.extra_delay_us[SLOW_NODE][node] = us;
}

static struct sim_client *begin_read(struct world *world, uint16_t node, uint32_t key)
{
    struct operation_plan plan = {.kind = HISTORY_GET, .keys = {key}, .key_count = 1};
    struct sim_client *client = client_open(world, node, 0);
    client_issue_consistency(world, client, 2, 2, world->swarm.request_timeout_ms);
    client_issue(world, client, &plan);
    client_send(world, client);
    return client;
}

/* Reads at once through both healthy nodes, R = 2, until all are answered; their latencies go to `us`. */
static void read_burst(struct world *world, uint64_t *us)
{
    struct sim_client *clients[BURST_READS];
    uint32_t first = world->history.count;
    for (uint32_t i = 0; i < BURST_READS; i++)
        clients[i] = begin_read(world, (uint16_t)(i % SLOW_NODE), i % KEYS);
    uint64_t until_us = world->now_us + UINT64_C(3000) * 1000;
    for (uint32_t i = 0; i < BURST_READS; i++) {
        while (clients[i]->commands_count > 0 && world->now_us < until_us && !world->failed)
            world_run_for(world, 100);
        const struct history_op *op = &world->history.ops[first + i];
        script_expect(world, op->outcome == HISTORY_DONE, "every read is answered");
        us[i] = op->answered_us - op->asked_us;
    }
    for (uint32_t i = 0; i < BURST_READS && !world->failed; i++)
        client_close(world, clients[i]);
}

static int compare_us(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The 99th percentile of reads, with a write now and then. */
static uint64_t p99_us(struct world *world, const char *when)
{
    static uint64_t us[READS];
    for (uint32_t burst = 0; burst < BURSTS && !world->failed; burst++) {
        read_burst(world, us + burst * BURST_READS);
        world_run_for(world, PAUSE_US);
        if (burst % 10 == 0)
            script_expect(world,
                          script_set(world, (uint16_t)(burst / 10 % SLOW_NODE), burst % KEYS, 2).outcome ==
                              HISTORY_DONE,
                          "writes go on");
    }
    qsort(us, READS, sizeof *us, compare_us);
    world_say(world, HISTORY_KEY_NONE, "%s: read p50 %" PRIu64 " us, p99 %" PRIu64 " us, most %" PRIu64 " us",
              when, us[READS / 2], us[READS * 99 / 100], us[READS - 1]);
    return us[READS * 99 / 100];
}

static uint64_t extra_reads(const struct world *world)
{
    uint64_t extra = 0;
    for (uint16_t node = 0; node < SLOW_NODE; node++) {
        const struct shard_counters *counters = shard_counters(world->nodes[node].shard[0].shard);
        extra += counters->hedges + counters->read_probes;
    }
    return extra;
}

/* n3 answers half a second late, in both directions, while reads go through the others; then it is well again. */
void scenario_slow_replica(struct world *world)
{
    script_start(world);
    for (uint32_t key = 0; key < KEYS; key++)
        script_expect(world, script_set(world, (uint16_t)(key % 3), key, 3).outcome == HISTORY_DONE,
                      "the first writes are done");
    uint64_t healthy_us = p99_us(world, "all well");
    uint64_t extra = extra_reads(world);
    delay_slow_node(world, SLOW_US);
    uint64_t slow_us = p99_us(world, "n3 slow");
    script_expect(world, slow_us <= 3 * healthy_us,
                  "a slow replica does not raise p99 above three times itself");
    script_expect(world, extra_reads(world) - extra <= 2 * HEDGE_BURST + READS / HEDGE_READS_PER_EXTRA,
                  "at most 2 % of the reads and two bursts are extra");
    delay_slow_node(world, 0);
    uint64_t until_us = world->now_us + TAKEN_BACK_US;
    while (world->now_us < until_us && !world->failed) {
        uint64_t us[BURST_READS];
        read_burst(world, us);
        world_run_for(world, PAUSE_US);
    }
    uint64_t again_us = p99_us(world, "n3 well again");
    script_expect(world, again_us <= 3 * healthy_us, "and it is as it was");
}
