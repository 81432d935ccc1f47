/* Scenarios of purge: what is deleted or has expired goes for good, from everywhere, and not before it may. */
#include "sim/scenarios.h"

#define SECOND UINT64_C(1000000)

/* Older than request_timeout_max and twice the skew, and verified with everybody. */
#define PURGED_US (15 * SECOND)

static bool holds(const struct world *world, uint16_t node, uint32_t key)
{
    const struct version *held = &world->oracles.replica[node][key].held;
    return !stamp_none(held->value) || !stamp_none(held->override);
}

static uint32_t holders(const struct world *world, uint32_t key)
{
    uint32_t count = 0;
    for (uint16_t node = 0; node < world->node_count; node++)
        count += holds(world, node, key);
    return count;
}

static void expect_absent(struct world *world, uint32_t key)
{
    for (uint16_t node = 0; node < world->node_count && !world->failed; node++) {
        struct script_result read = script_get(world, node, key, 2);
        script_expect(world, read.outcome == HISTORY_DONE && read.value == VALUE_ABSENT,
                      "the key stays deleted");
    }
}

static void delete_everywhere(struct world *world, uint32_t key)
{
    script_expect(world, script_delete(world, 0, key, 3).outcome == HISTORY_DONE, "the delete is done");
}

static uint64_t floor_refusals(const struct world *world)
{
    uint64_t refusals = 0;
    for (uint16_t node = 0; node < world->node_count; node++)
        refusals += healing_of(world, node).floor_refusals;
    return refusals;
}

/* Runs until so many nodes hold the key, at most a minute. */
static void wait_for_holders(struct world *world, uint32_t key, uint32_t count)
{
    uint64_t until_us = world->now_us + 60 * SECOND;
    while (holders(world, key) > count && world->now_us < until_us && !world->failed)
        world_run_for(world, SECOND / 10);
    if (holders(world, key) != count)
        script_expect(world, false,
                      count == 0 ? "the key is purged from all" : "the key is purged from the others");
}

/* ---- what blocks ---------------------------------------------------------------------------------------- */

void scenario_purge_waits(struct world *world)
{
    script_start(world);
    for (uint32_t key = 0; key < world->swarm.keys; key++) {
        script_expect(world, script_set(world, 0, key, 3).outcome == HISTORY_DONE, "the value is there");
        delete_everywhere(world, key);
    }
    node_crash(world, &world->nodes[2], false);
    world_run_for(world, 4 * PURGED_US);
    script_expect(world,
                  world->totals.purged + healing_of(world, 0).purged + healing_of(world, 1).purged == 0,
                  "nothing is purged while a replica is away");
    node_start(world, &world->nodes[2]);
    oracle_converge(world);
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        script_expect(world, holders(world, key) == 0, "then every tombstone goes");
        expect_absent(world, key);
    }
}

static bool lose_puts_to_n3(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    (void)world;
    (void)from;
    return to == 2 && bytes.size > 4 && bytes.data[4] == FRAME_PUT;
}

/* n3 misses every tombstone, and was compared with the others now and then before that. */
void scenario_purge_waits_for_an_exchange(struct world *world)
{
    script_start(world);
    for (uint32_t key = 0; key < world->swarm.keys; key++) {
        script_expect(world, script_set(world, 0, key, 3).outcome == HISTORY_DONE, "the value is there");
        world->network.filter = lose_puts_to_n3;
        script_expect(world, script_delete(world, 0, key, 2).outcome == HISTORY_DONE, "n3 misses the delete");
        world->network.filter = NULL;
        world_run_for(world, 4 * SECOND);
    }
    for (uint32_t key = 0; key < world->swarm.keys; key++) {
        wait_for_holders(world, key, 0);
        expect_absent(world, key);
    }
}

static bool lose_hints_held_to_n3(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    (void)world;
    (void)from;
    return to == 2 && bytes.size > 4 && bytes.data[4] == FRAME_HINTS_HELD;
}

void scenario_half_done_purge(struct world *world)
{
    script_start(world);
    script_expect(world, script_set(world, 0, 0, 3).outcome == HISTORY_DONE, "the value is there");
    world->network.filter = lose_hints_held_to_n3;
    delete_everywhere(world, 0);
    wait_for_holders(world, 0, 1);
    script_expect(world, !holds(world, 0, 0) && !holds(world, 1, 0) && holds(world, 2, 0),
                  "two of three have purged");
    expect_absent(world, 0);
    for (uint16_t node = 0; node < 3; node++) {
        struct script_result read = script_get(world, node, 0, 3);
        script_expect(world, read.outcome == HISTORY_DONE && !read.found,
                      "all three agree that there is nothing");
    }
    world_run_for(world, PURGED_US);
    expect_absent(world, 0);
    world->network.filter = NULL;
    oracle_converge(world);
    script_expect(world, holders(world, 0) == 0, "the third purges too");
}

/* Two keys of one slot, by their tag. */
#define KEY_OF_SLOT 2
#define KEY_OF_SAME_SLOT 8

void prepare_repair_shared_slot(struct swarm *swarm)
{
    prepare_repair(swarm);
    swarm->keys = KEY_OF_SAME_SLOT + 1;
}

/* All floors of a slot are above the stamp of a value that expires late. Two replicas purge it, the third cannot yet:
 * what it still holds must not come back to them, or it goes round for ever (seed 50001953). */
void scenario_purged_row_stays_out(struct world *world)
{
    script_start(world);
    script_expect(world, oracle_key_slot(world, KEY_OF_SLOT) == oracle_key_slot(world, KEY_OF_SAME_SLOT),
                  "both keys are of one slot");
    script_expect(world, script_set_ttl(world, 0, KEY_OF_SLOT, 3, 40000).outcome == HISTORY_DONE,
                  "the value is there");
    delete_everywhere(world, KEY_OF_SAME_SLOT);
    wait_for_holders(world, KEY_OF_SAME_SLOT, 0);
    script_expect(world, holders(world, KEY_OF_SLOT) == 3, "the value lives on");
    world->network.filter = lose_hints_held_to_n3;
    wait_for_holders(world, KEY_OF_SLOT, 1);
    for (int i = 0; i < 150 && !world->failed; i++) {
        world_run_for(world, SECOND / 10);
        script_expect(world, holders(world, KEY_OF_SLOT) == 1,
                      "those that have purged it do not take it back");
    }
    world->network.filter = NULL;
    oracle_converge(world);
    script_expect(world, holders(world, KEY_OF_SLOT) == 0, "the third purges too");
}

void prepare_lone_replica(struct swarm *swarm)
{
    prepare_repair(swarm);
    swarm->replicas = 1;
    swarm->healing.rescan_interval_ms = 86400000;
}

/* The only replica of its keys reads damage for a while: once it reads its slots again it purges them (40010287). */
void scenario_lone_replica_reads_again(struct world *world)
{
    script_start(world);
    for (uint32_t key = 0; key < world->swarm.keys; key++)
        script_expect(world, script_set_ttl(world, 0, key, 1, 1000).outcome == HISTORY_DONE,
                      "the value is there");
    world->swarm.cold_read_fails = 1000000;
    world->faults_on = true;
    world_run_for(world, PURGED_US);
    script_expect(world, holders(world, 0) == 1, "what cannot be read is not purged");
    world->faults_on = false;
    for (uint32_t key = 0; key < world->swarm.keys; key++)
        wait_for_holders(world, key, 0);
}

void scenario_expired_value(struct world *world)
{
    script_start(world);
    script_expect(world, script_set_ttl(world, 0, 0, 3, 1000).outcome == HISTORY_DONE, "the value is there");
    script_settle(world);
    uint64_t logged = world->oracles.rows_logged;
    wait_for_holders(world, 0, 0);
    script_expect(world, world->oracles.rows_logged == logged, "and nothing was written for it");
    expect_absent(world, 0);
}

void prepare_slow_flushes(struct swarm *swarm)
{
    prepare_repair(swarm);
    swarm->flush_us = SECOND;
}

/* Whether the node's cold tier has a row of the key. */
static bool in_cold_tier(struct world *world, const struct sim_node *node, uint32_t key)
{
    struct buf name;
    struct buf cold_key;
    struct span record;
    uint8_t prefix[COLD_KEY_PREFIX_BYTES];
    buf_init(&name, &world->alloc);
    buf_init(&cold_key, &world->alloc);
    history_key_name(key, &name);
    cold_key_prefix(buf_span(&name), key_slot(buf_span(&name)), prefix);
    buf_append(&cold_key, prefix, sizeof prefix);
    buf_append_span(&cold_key, buf_span(&name));
    bool found = disk_cold_get(&node->disk, buf_span(&cold_key), &record) == STATUS_OK;
    buf_free(&name);
    buf_free(&cold_key);
    return found;
}

/* n1's cold tier takes a value and reports a failure; then it fails for long. The value was deleted meanwhile, and its
 * tombstone is purged from memory. */
void scenario_flush_failed_and_arrived(struct world *world)
{
    struct sim_node *node = &world->nodes[0];
    script_start(world);
    node->flush_fails = node->flush_arrives = true;
    script_expect(world, script_set(world, 0, 0, 3).outcome == HISTORY_DONE, "the value is there");
    uint64_t until_us = world->now_us + 30 * SECOND;
    while (!in_cold_tier(world, node, 0) && world->now_us < until_us && !world->failed)
        world_run_for(world, SECOND / 100);
    script_expect(world, in_cold_tier(world, node, 0), "the value is in the cold tier");
    node->flush_arrives = false;
    delete_everywhere(world, 0);
    wait_for_holders(world, 0, 0);
    world_run_for(world, PURGED_US);
    expect_absent(world, 0);
    node->flush_fails = false;
    world_run_for(world, 2 * PURGED_US);
    /* While the slot is known to be in memory, a read does not look there; after a restart it does. */
    script_expect(world, !in_cold_tier(world, node, 0), "the cold tier has lost it, too");
    struct script_result read = script_get(world, 0, 0, 1);
    script_expect(world, read.outcome == HISTORY_DONE && read.value == VALUE_ABSENT,
                  "the cold tier does not bring it back");
}

/* ---- what comes late ------------------------------------------------------------------------------------ */

/* Frames of one kind from n1 to n3 with a value in them: they get lost, and their bytes are kept, one by one. */
struct kept {
    struct buf frames;
    struct buf value;
    uint8_t type;
};

static bool contains(struct span bytes, struct span part)
{
    for (size_t at = 0; at + part.size <= bytes.size; at++) {
        if (memcmp(bytes.data + at, part.data, part.size) == 0)
            return true;
    }
    return false;
}

static bool keep_frames(struct world *world, uint16_t from, uint16_t to, struct span bytes)
{
    struct kept *kept = world->network.filter_context;
    if (from != 0 || to != 2 || bytes.size < 5)
        return false;
    /* n1 is to begin the exchange that is cut off. */
    if (kept->type == FRAME_REPAIR && bytes.data[4] == FRAME_REPAIR_ANSWER)
        return true;
    if (bytes.data[4] != kept->type || !contains(bytes, buf_span(&kept->value)))
        return false;
    buf_append_span(&kept->frames, bytes);
    return true;
}

static void keep(struct world *world, struct kept *kept, uint8_t type, uint32_t value)
{
    *kept = (struct kept){.type = type};
    buf_init(&kept->frames, &world->alloc);
    buf_init(&kept->value, &world->alloc);
    history_value_put(value, world->swarm.value_bytes_max, &kept->value);
    world->network.filter_context = kept;
    world->network.filter = keep_frames;
}

static void deliver(struct world *world, struct kept *kept)
{
    struct span bytes = buf_span(&kept->frames);
    script_expect(world, bytes.size > 0, "frames were kept");
    while (bytes.size > 0) {
        struct frame frame;
        size_t need;
        enum status status = frame_cut(bytes, &frame, &need);
        script_expect(world, status == STATUS_OK, "they are frames");
        if (status != STATUS_OK)
            break;
        network_deliver(world, 0, 2, frame.whole);
        bytes = span_of(bytes.data + frame.whole.size, bytes.size - frame.whole.size);
    }
    buf_free(&kept->frames);
    buf_free(&kept->value);
    world_run_for(world, SECOND);
}

/* A put that hung in a connection comes after the purge; n3's clock has been set back, so that its deadline says
 * nothing: the purge floor does. */
void scenario_late_put_after_purge(struct world *world)
{
    struct kept kept;
    script_start(world);
    keep(world, &kept, FRAME_PUT, world->history.value_next);
    uint64_t written_us = world->now_us;
    script_expect(world, script_set(world, 0, 0, 2).outcome == HISTORY_DONE, "the value is at n1 and n2");
    world->network.filter = NULL;
    delete_everywhere(world, 0);
    wait_for_holders(world, 0, 0);
    node_clock_set(world, &world->nodes[2], (int64_t)written_us + 300000 - (int64_t)world->now_us, 0);
    uint64_t refusals = floor_refusals(world);
    deliver(world, &kept);
    script_expect(world, floor_refusals(world) > refusals, "the floor refuses the late put");
    node_clock_set(world, &world->nodes[2], 0, 0);
    world_run_for(world, 13 * SECOND);
    expect_absent(world, 0);
    script_expect(world, holders(world, 0) == 0, "nobody holds it again");
}

/* Records of an exchange that was cut off, from before the purge. */
void scenario_late_repair_after_purge(struct world *world)
{
    struct kept kept;
    script_start(world);
    script_part(world, 0, 2, true);
    script_part(world, 1, 2, true);
    keep(world, &kept, FRAME_REPAIR, world->history.value_next);
    script_expect(world, script_set(world, 0, 0, 2).outcome == HISTORY_DONE, "the value is at n1 and n2");
    script_part(world, 0, 2, false);
    uint64_t until_us = world->now_us + 30 * SECOND;
    while (kept.frames.size == 0 && world->now_us < until_us && !world->failed)
        world_run_for(world, SECOND / 10);
    world->network.filter = NULL;
    script_part(world, 1, 2, false);
    oracle_converge(world);
    delete_everywhere(world, 0);
    wait_for_holders(world, 0, 0);
    uint64_t refusals = floor_refusals(world);
    deliver(world, &kept);
    script_expect(world, floor_refusals(world) > refusals, "the floor refuses the late record");
    expect_absent(world, 0);
    oracle_converge(world);
    script_expect(world, holders(world, 0) == 0, "nobody holds it again");
}

/* n1's disk is an old one: it knows of a hint that was replayed long ago, for a key that was purged since. */
void scenario_old_hint_after_purge(struct world *world)
{
    struct sim_node *node = &world->nodes[0];
    script_start(world);
    node_crash(world, &world->nodes[2], false);
    script_expect(world, script_set(world, 0, 0, 2).outcome == HISTORY_DONE, "n3 misses the value");
    world_run_for(world, 8 * SECOND);
    script_expect(world, healing_of(world, 0).hints == 1, "n1 keeps a hint");
    node_copy_disk(world, node);
    /* A clean start and a minute of running make the copy an old one. */
    node_crash(world, node, false);
    node_start(world, node);
    node_start(world, &world->nodes[2]);
    oracle_converge(world);
    delete_everywhere(world, 0);
    wait_for_holders(world, 0, 0);
    node_crash(world, node, false);
    node_put_back(world, node);
    uint64_t refusals = floor_refusals(world);
    node_start(world, node);
    oracle_converge(world);
    script_expect(world, floor_refusals(world) > refusals, "the floor refuses what comes from the old disk");
    expect_absent(world, 0);
    script_expect(world, holders(world, 0) == 0, "nobody holds it again, nor the old disk");
}

/* n3's disk is an old one: it holds a value that was deleted and purged since. */
void scenario_stale_row_on_marked_slot(struct world *world)
{
    struct sim_node *node = &world->nodes[2];
    script_start(world);
    script_expect(world, script_set(world, 0, 0, 3).outcome == HISTORY_DONE, "the value is there");
    script_settle(world);
    node_copy_disk(world, node);
    node_crash(world, node, false);
    node_start(world, node);
    world_run_for(world, 2 * SECOND);
    delete_everywhere(world, 0);
    wait_for_holders(world, 0, 0);
    node_crash(world, node, false);
    node_put_back(world, node);
    node_start(world, node);
    script_expect(world, holds(world, 2, 0), "the old disk holds the value");
    oracle_converge(world);
    script_expect(world, holders(world, 0) == 0, "it is dropped before the slot serves");
    expect_absent(world, 0);
}
