/* Scenarios of disks: wiped, torn, damaged, flushed, opened with another number of shards. */
#include <assert.h>
#include <stdio.h>

#include "sim/scenarios.h"

void prepare_little_memory(struct swarm *swarm)
{
    swarm->row_bytes = 64 << 10;
    swarm->keys = 24;
    swarm->value_bytes_max = 3000;
    swarm->log_segment_bytes = 16 << 10;
    swarm->flush_us = 20000;
    for (int i = 0; i < 5; i++)
        swarm->shards[i] = 2;
}

void prepare_very_little_memory(struct swarm *swarm)
{
    prepare_little_memory(swarm);
    swarm->keys = 48;
    swarm->slow_log_only = true;
    swarm->flush_us = 200;
    swarm->disk_crash.lost = 1000000;
}

void prepare_torn(struct swarm *swarm)
{
    swarm->value_bytes_max = 600;
    swarm->sync_us = 4000;
    swarm->disk_crash = (struct disk_crash){.lost = 300000, .partial = 700000, .garbled = 500000};
}

void prepare_three_shards(struct swarm *swarm)
{
    for (int i = 0; i < 5; i++)
        swarm->shards[i] = 3;
    swarm->keys = 24;
}

static void restart_all(struct world *world, bool power)
{
    for (uint16_t i = 0; i < world->node_count; i++) {
        if (world->nodes[i].running)
            node_crash(world, &world->nodes[i], power);
    }
    script_start(world);
}

static void expect_readable(struct world *world)
{
    for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++) {
        struct script_result read = {.outcome = HISTORY_OPEN};
        /* With little memory a replica may have to make room first, which takes a flush or two. */
        for (int tries = 0; tries < 20 && read.outcome != HISTORY_DONE && !world->failed; tries++) {
            read = script_get(world, (uint16_t)(key % world->node_count), key, 2);
            if (read.outcome != HISTORY_DONE)
                world_run_for(world, 10000);
        }
        script_expect(world, read.outcome == HISTORY_DONE, "every key is readable");
    }
}

/* W = {A, C}; A is wiped; {A, B} must not agree that there is nothing. */
void scenario_empty_disk(struct world *world)
{
    script_start(world);
    script_part(world, 0, 1, true);
    script_part(world, 2, 1, true);
    struct script_result write = script_set(world, 0, 0, 2);
    script_expect(world, write.outcome == HISTORY_DONE, "A and C hold the write");
    node_crash(world, &world->nodes[0], true);
    node_wipe(world, &world->nodes[0]);
    script_part(world, 0, 1, false);
    script_part(world, 2, 1, false);
    script_part(world, 2, 0, true);
    node_crash(world, &world->nodes[2], true);
    node_start(world, &world->nodes[0]);
    world_run_for(world, 2500000);
    struct script_result read = script_get(world, 1, 0, 2);
    script_expect(world, read.outcome != HISTORY_DONE, "A and B alone answer no read of R = 2");
    script_part(world, 2, 0, false);
    node_start(world, &world->nodes[2]);
    world_run_for(world, 2500000);
    for (uint16_t node = 0; node < 3; node++)
        script_expect(world, script_get(world, node, 0, 2).value == write.value,
                      "B and C answer with the write");
    script_expect(world, script_set(world, 0, 0, 3).outcome == HISTORY_DONE, "A takes writes");
}

/* Writes without waiting, so that rows change while their flush is under way. */
static void write_burst(struct world *world, uint32_t rounds)
{
    for (uint32_t round = 0; round < rounds && !world->failed; round++) {
        for (uint32_t key = 0; key < world->swarm.keys && !world->failed; key++)
            (void)script_set(world, (uint16_t)((key + round) % world->node_count), key, 2);
    }
}

void scenario_row_updated_while_flushed(struct world *world)
{
    script_start(world);
    for (int round = 0; round < 3; round++) {
        write_burst(world, 6);
        expect_readable(world);
        restart_all(world, true);
        expect_readable(world);
    }
    script_expect(world, world->totals.flushes > 10, "rows were flushed");
    script_expect(world, world->totals.cold_reads > 10, "rows were read cold");
}

void scenario_segments_out_of_order(struct world *world)
{
    script_start(world);
    for (int round = 0; round < 3; round++) {
        write_burst(world, 8);
        world->nodes[0].slow_until_us = world->now_us + 300000;
        restart_all(world, round % 2 == 0);
        expect_readable(world);
    }
    script_expect(world, world->totals.segments_freed > 3, "log segments were freed");
}

static void write_slowly(struct world *world, uint32_t count)
{
    for (uint32_t key = 0; key < count && !world->failed; key++) {
        (void)script_set(world, 1, key % world->swarm.keys, 2);
        world_run_for(world, 5000);
    }
}

/* n1's log stalls while its rows go cold, are evicted and read again; then the power fails. What went cold before the
 * log had it would be hidden by what the log has: the last writes before the stall. */
void scenario_flush_overtakes_the_log(struct world *world)
{
    script_start(world);
    for (int round = 0; round < 3 && !world->failed; round++) {
        write_slowly(world, world->swarm.keys);
        write_slowly(world, 4);
        script_settle(world);
        world->nodes[0].slow_until_us = world->now_us + 60000000;
        write_slowly(world, 2 * world->swarm.keys);
        for (uint32_t key = 0; key < 8 && !world->failed; key++)
            (void)script_get(world, 1, key, 3);
        world->nodes[0].slow_until_us = 0;
        node_crash(world, &world->nodes[0], true);
        script_start(world);
        expect_readable(world);
    }
}

/* A power loss of everybody in the middle of writes, again and again. */
void scenario_torn_tail(struct world *world)
{
    script_start(world);
    for (int round = 0; !world->failed && (round < 12 || (world->totals.torn_tails < 3 && round < 100));
         round++) {
        for (uint32_t key = 0; key < 6; key++)
            (void)script_set_begin(world, (uint16_t)(key % 3), key, 2, 1000);
        world_run_for(world, world_draw(world, 500, 9000));
        restart_all(world, true);
        expect_readable(world);
    }
    script_expect(world, world->totals.torn_tails > 2, "torn tails were cut off");
    script_expect(world, world->totals.damages == 0, "a torn tail is no damage");
}

/* In the log of a node that is down. What was written later names the batch durable, so it is no torn tail. */
static void damage_value(struct sim_node *node, uint32_t value)
{
    char text[16];
    size_t size = (size_t)snprintf(text, sizeof text, "v%u.", value);
    struct disk_file *file = node->disk.files[0];
    size_t at = LOG_HEADER_BYTES + LOG_BATCH_HEADER_BYTES;
    while (at + size < file->now.size && memcmp(file->now.data + at, text, size) != 0)
        at++;
    assert(at + size < file->now.size);
    file->now.data[at] ^= 0x40;
    file->synced.data[at] ^= 0x40;
}

void scenario_damage(struct world *world)
{
    script_start(world);
    struct script_result write = script_set(world, 0, 0, 3);
    script_expect(world, write.outcome == HISTORY_DONE, "the write is done");
    script_settle(world);
    struct sim_node *node = &world->nodes[0];
    node_crash(world, node, false);
    damage_value(node, write.value);
    world->damage_expected = true;
    node_start(world, node);
    world_run_for(world, 1500000);
    script_expect(world, world->totals.damages == 1, "the damage is found");
    struct script_result all = script_get(world, 1, 0, 3);
    script_expect(world, all.outcome == HISTORY_NOT_APPLIED,
                  "a read that needs the damaged node is an error");
    for (uint16_t asked = 0; asked < 3; asked++)
        script_expect(world, script_get(world, asked, 0, 2).value == write.value, "the others answer for it");
}

/* The newest value is damaged, the one before is in memory: the only replica must not answer from it. */
void scenario_damage_of_a_lone_replica(struct world *world)
{
    script_start(world);
    uint16_t replica = script_replica(world, 0, 0);
    struct sim_node *node = &world->nodes[replica];
    script_expect(world, script_set(world, replica, 0, 1).outcome == HISTORY_DONE, "the first write is done");
    struct script_result newest = script_set(world, replica, 0, 1);
    script_expect(world, script_get(world, replica, 0, 1).value == newest.value, "so is the second");
    script_settle(world);
    node_crash(world, node, false);
    damage_value(node, newest.value);
    world->damage_expected = true;
    node_start(world, node);
    world_run_for(world, 1500000);
    script_expect(world, world->totals.damages == 1, "the damage is found");
    for (uint16_t asked = 0; asked < world->node_count; asked++)
        script_expect(world, script_get(world, asked, 0, 1).outcome == HISTORY_NOT_APPLIED,
                      "a read that needs it is an error");
}

void prepare_shards_that_become_one(struct swarm *swarm)
{
    swarm->row_bytes = 58 << 10;
    swarm->keys = 60;
    swarm->value_bytes_max = 1100;
    swarm->blind_writes = false;
    swarm->flush_us = 60000000;
    for (int i = 0; i < 5; i++)
        swarm->shards[i] = 2;
}

/* What two shards had unflushed is all dirty in the memory of one: its first flush still has room for all trees. (Seed
 * 130002637 of an earlier swarm.) */
void scenario_shards_become_one(struct world *world)
{
    script_start(world);
    for (int round = 0; round < 8 && !world->failed; round++) {
        write_burst(world, 2);
        for (uint16_t i = 0; i < world->node_count; i++) {
            node_crash(world, &world->nodes[i], false);
            world->nodes[i].shards = round % 2 == 0 ? 1 : 2;
        }
        script_start(world);
    }
}

void scenario_k_changes(struct world *world)
{
    script_start(world);
    static const uint16_t shards[] = {1, 3, 2, 3, 1};
    for (int round = 0; round < 5 && !world->failed; round++) {
        write_burst(world, 1);
        for (uint16_t i = 0; i < world->node_count; i++) {
            if ((round + i) % 2 == 0)
                node_stop(world, &world->nodes[i]);
            else
                node_crash(world, &world->nodes[i], true);
            world->nodes[i].shards = shards[(round + i) % 5];
        }
        script_start(world);
        expect_readable(world);
    }
}
