/* Invariant 2: replicas that have exchanged everything are byte-identical; and that they do exchange everything.
 *
 * Once nothing goes wrong any more, what heals must heal: hints reach their targets and go, marked slots are compared,
 * slots that lost data serve again, the trees of replicas agree, their rows are the same bytes, and dead rows leave.
 * How long that takes depends on the rates of the swarm, so the bound counts from the last progress that anybody made.
 *
 * A node that is left dead for good holds up what needs everybody: hints for it stay, dead rows may stay. */
#include <inttypes.h>
#include <stdio.h>

#include "sim/world.h"

#define LOOK_US 200000

/* No world needs longer, however slowly it makes progress. */
#define CONVERGE_US_MAX UINT64_C(1200000000)

#define TEXT_BYTES 160

/* What changes when something heals. */
struct progress {
    uint64_t hints;
    uint64_t syncs;
    uint64_t slots_marked;
    uint64_t purged;
    uint64_t rows_logged;
    uint64_t exchanges; /* while slots are marked */
    uint64_t rescans;   /* while nothing but what is unknown is rescanned */
};

static bool all_running(const struct world *world)
{
    bool all = true;
    for (uint16_t i = 0; i < world->node_count; i++)
        all &= world->nodes[i].running;
    return all;
}

static struct progress look(const struct world *world)
{
    struct progress progress = {.rows_logged = world->oracles.rows_logged};
    for (uint16_t i = 0; i < world->node_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        for (uint16_t shard = 0; node->running && shard < node->shards; shard++) {
            struct shard_healing_state state = shard_healing_state(node->shard[shard].shard);
            progress.hints += state.hints;
            progress.syncs += state.syncs;
            progress.slots_marked += state.slots_marked;
            progress.purged += state.purged;
            progress.exchanges += state.slots_marked > 0 ? state.exchanges : 0;
            progress.rescans +=
                world->swarm.healing.rescan_interval_ms > CONVERGE_US_MAX / 1000 ? state.rescans : 0;
        }
    }
    return progress;
}

/* The trees are compared with the rows in every run: nothing but damage makes them differ. */
void oracle_trees(struct world *world, const struct sim_node *node, uint16_t shard)
{
    struct shard_healing_state state = shard_healing_state(node->shard[shard].shard);
    if (state.leaves_wrong > 0 && !world->damage_expected)
        world_fail(world, HISTORY_KEY_NONE,
                   "trees: %s.%u found %" PRIu64 " leaves that do not count its rows", node->name, shard,
                   state.leaves_wrong);
}

/* ---- what is owed --------------------------------------------------------------------------------------- */

static bool nothing_owed(const struct world *world, char text[TEXT_BYTES])
{
    bool repair = world->swarm.healing.repair;
    for (uint16_t i = 0; i < world->node_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        for (uint16_t s = 0; node->running && s < node->shards; s++) {
            const struct shard *shard = node->shard[s].shard;
            struct shard_healing_state state = shard_healing_state(shard);
            if (!state.hints_counted) {
                (void)snprintf(text, TEXT_BYTES, "%s.%u has not counted its hints", node->name, s);
                return false;
            }
            if (repair && state.slots_marked > 0) {
                (void)snprintf(text, TEXT_BYTES, "%s.%u has %u slots that do not serve", node->name, s,
                               state.slots_marked);
                return false;
            }
            for (uint16_t other = 0; other < world->node_count; other++) {
                uint32_t syncs;
                uint64_t hints = shard_hints_for(shard, world->nodes[other].id, &syncs);
                if (!world->nodes[other].running || (hints == 0 && (syncs == 0 || !repair)))
                    continue;
                (void)snprintf(text, TEXT_BYTES, "%s.%u keeps %" PRIu64 " hints and %u marks for %s",
                               node->name, s, hints, syncs, world->nodes[other].name);
                return false;
            }
        }
    }
    return true;
}

/* ---- rows ----------------------------------------------------------------------------------------------- */

struct rows {
    struct span of[SIM_NODES_MAX][HISTORY_KEYS_MAX]; /* no bytes: there is none */
};

static void gather_rows(const struct world *world, struct rows *rows)
{
    memset(rows, 0, sizeof *rows);
    for (uint16_t i = 0; i < world->node_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        for (uint32_t c = 0; node->running && c < node->disk.cold_count; c++) {
            struct span name = buf_span(&node->disk.cold[c].key);
            if (key_reserved(name))
                continue;
            name = span_of(name.data + COLD_KEY_PREFIX_BYTES, name.size - COLD_KEY_PREFIX_BYTES);
            rows->of[i][history_key_of(name)] = buf_span(&node->disk.cold[c].record);
        }
        for (uint16_t s = 0; node->running && s < node->shards; s++) {
            struct memtable_cursor cursor = {0};
            const struct row *row;
            while ((row = memtable_scan(shard_memtable(node->shard[s].shard), &cursor)) != NULL) {
                if (!row_reserved(row))
                    rows->of[i][history_key_of(row_key(row))] = row_record(row);
            }
        }
    }
}

/* When a row may be purged by its age; UINT64_MAX: it lives. As DESIGN section 6 says it. */
static uint64_t dead_ms(const struct world *world, struct span bytes)
{
    struct record record;
    uint64_t skew_ms = world->swarm.clock_skew_max_ms;
    uint64_t age_ms = world->swarm.healing.request_timeout_max_ms + 2 * skew_ms;
    if (bytes.size == 0 || record_parse(bytes, &record) != STATUS_OK)
        return UINT64_MAX;
    uint64_t from_ms = stamp_ms(record_stamp_max(&record));
    if (!record_holds_value(&record))
        return from_ms + age_ms;
    uint64_t expiry_ms = record_expiry_ms(&record);
    if (expiry_ms == 0)
        return UINT64_MAX;
    return (expiry_ms + skew_ms > from_ms ? expiry_ms + skew_ms : from_ms) + age_ms;
}

/* Whether the running replicas of a key agree, in rows and trees. */
static bool key_equal(struct world *world, const struct rows *rows, uint32_t key, char text[TEXT_BYTES])
{
    uint16_t slot = oracle_key_slot(world, key);
    uint64_t now_ms = SIM_EPOCH_MS + world->now_us / 1000;
    bool all = all_running(world);
    const struct sim_node *first = NULL;
    struct hash_128 sum_first = {0};
    uint64_t count_first = 0;
    for (uint16_t i = 0; i < world->node_count; i++) {
        const struct sim_node *node = &world->nodes[i];
        struct hash_128 sum;
        uint64_t count;
        if (!node->running || !ring_replicates(world->ring, slot, ring_node_index(world->ring, node->id)))
            continue;
        if (all && dead_ms(world, rows->of[i][key]) < now_ms) {
            (void)snprintf(text, TEXT_BYTES, "%s still has a dead row of key %u", node->name, key);
            return false;
        }
        if (!shard_slot_root(node->shard[slot_shard(slot, node->shards)].shard, slot, &sum, &count)) {
            (void)snprintf(text, TEXT_BYTES, "%s does not know its tree of slot %u", node->name, slot);
            return false;
        }
        if (first == NULL) {
            first = node;
            sum_first = sum;
            count_first = count;
            continue;
        }
        struct span a = rows->of[first->index][key];
        struct span b = rows->of[i][key];
        /* Half of a purge was done when a replica died. */
        bool half = !all && ((a.size == 0 && dead_ms(world, b) < now_ms) ||
                             (b.size == 0 && dead_ms(world, a) < now_ms));
        if (half)
            return true;
        if (!span_equal(a, b)) {
            (void)snprintf(text, TEXT_BYTES, "%s and %s hold different rows of key %u", first->name,
                           node->name, key);
            return false;
        }
        if (all && (count != count_first || memcmp(&sum, &sum_first, sizeof sum) != 0)) {
            (void)snprintf(text, TEXT_BYTES, "%s and %s have different trees of slot %u", first->name,
                           node->name, slot);
            return false;
        }
    }
    return true;
}

static bool converged(struct world *world, char text[TEXT_BYTES])
{
    static struct rows rows; /* large; one world at a time */
    if (!nothing_owed(world, text))
        return false;
    if (!world->swarm.healing.repair)
        return true;
    gather_rows(world, &rows);
    for (uint32_t key = 0; key < world->swarm.keys; key++) {
        if (!key_equal(world, &rows, key, text))
            return false;
    }
    return true;
}

/* ---- acknowledged writes, by hints alone ---------------------------------------------------------------- */

/* A hint for which there was no room has become a mark, which is repair's. */
static bool marks_for_nobody(const struct world *world)
{
    uint64_t converted = 0;
    for (uint16_t i = 0; i < world->node_count; i++) {
        for (uint16_t s = 0; s < world->nodes[i].shards; s++)
            converted += shard_healing_state(world->nodes[i].shard[s].shard).hints_converted;
    }
    return converted > 0 && !world->swarm.healing.repair;
}

/* Where nothing but the network fails every write that a coordinator acknowledged becomes a hint for each replica that
 * it did not hear from. */
static bool hints_are_enough(const struct world *world)
{
    const struct swarm *swarm = &world->swarm;
    return swarm->healing.hints && swarm->crash_every_us == 0 && swarm->pause_every_us == 0 &&
           swarm->sync_fails == 0 && swarm->full_every_us == 0 && swarm->row_bytes == 0 &&
           swarm->slow_every_us == 0 && world->clock_error_max_us == 0 && all_running(world) &&
           !marks_for_nobody(world);
}

static void check_acknowledged(struct world *world)
{
    struct oracles *oracles = &world->oracles;
    for (uint32_t i = 0; i < world->history.count && !world->failed; i++) {
        const struct history_op *op = &world->history.ops[i];
        if (op->kind != HISTORY_SET || op->outcome != HISTORY_DONE || op->value >= oracles->value_capacity)
            continue;
        struct stamp stamp = oracles->values[op->value].highest;
        uint16_t slot = oracle_key_slot(world, op->key);
        for (uint16_t n = 0; n < world->node_count; n++) {
            uint16_t index = ring_node_index(world->ring, world->nodes[n].id);
            if (ring_replicates(world->ring, slot, index) &&
                stamp_compare(oracles->replica[n][op->key].ever.value, stamp) < 0)
                world_fail(world, op->key, "hints: %s never got value %u of key %u, which was acknowledged",
                           world->nodes[n].name, op->value, op->key);
        }
    }
}

/* ---- the last phase ------------------------------------------------------------------------------------- */

/* Two rounds of anti-entropy, a message that is answered at its third try, a replay that nobody answered, a clock that
 * was judged anew; the age of the last dead rows; and the largest row or message at the lowest rate. */
static uint64_t bound_us(const struct world *world)
{
    const struct shard_healing *healing = &world->swarm.healing;
    uint64_t bound_ms = 3 * (uint64_t)healing->repair_interval_ms + 60000;
    bound_ms += healing->request_timeout_max_ms + 3 * (uint64_t)world->swarm.clock_skew_max_ms;
    bound_ms += 2 * UINT64_C(1000) * SIM_SHARDS_MAX * (world->swarm.value_bytes_max + 200) /
                healing->hint_bytes_per_s;
    bound_ms += 2 * UINT64_C(1000) * SIM_SHARDS_MAX * (256 << 10) / healing->repair_bytes_per_s;
    return 1000 * bound_ms + 2 * world->clock_error_max_us;
}

void oracle_converge(struct world *world)
{
    char text[TEXT_BYTES] = "";
    struct progress before = look(world);
    uint64_t began_us = world->now_us;
    uint64_t progress_us = world->now_us;
    if (!world->swarm.healing.repair && !world->swarm.healing.hints)
        return;
    while (!world->failed && !converged(world, text)) {
        struct progress now = look(world);
        if (memcmp(&now, &before, sizeof now) != 0)
            progress_us = world->now_us;
        before = now;
        if (world->now_us - progress_us > bound_us(world) || world->now_us - began_us > CONVERGE_US_MAX) {
            world_fail(world, HISTORY_KEY_NONE, "healing: %s, %" PRIu64 " ms after the last progress", text,
                       (world->now_us - progress_us) / 1000);
            return;
        }
        world_run_for(world, LOOK_US);
    }
    if (!world->failed && hints_are_enough(world))
        check_acknowledged(world);
}
