/* Flushing where memory is short. */
#include <inttypes.h>

#include "shard_world.h"

enum {
    KEYS = 60000,
    SLOTS = 16000,
    PIPELINED = 200,
    OVERWRITES = 3 * KEYS,
    STEP_US = 2000,
    STUCK_US_MAX = 500000,
    DRAINED_US_MAX = 30000000
};

/* Pipelines SETs of these keys, in so many slots, and returns how many were refused for want of room; no other answer
 * comes. */
static uint32_t set_keys(struct world *world, uint32_t first, uint32_t stride, uint32_t slots)
{
    struct buf commands;
    uint32_t refused = 0;
    buf_init(&commands, &world->alloc);
    for (uint32_t i = 0; i < PIPELINED; i++) {
        uint32_t key = (first + i * stride) % KEYS;
        buf_append_format(&commands, "SET {%u}%05u v\r\n", key % slots, key);
    }
    buf_put_u8(&commands, 0);
    world_say(world, 0, 0, (const char *)commands.data);
    buf_free(&commands);
    uint32_t answers = 0;
    for (const char *line = world_heard(world, 0); *line != 0; line = strchr(line, '\n') + 1) {
        bool no_room = begins(line, "-OVERLOADED");
        assert_true(no_room || begins(line, "+OK\r\n"));
        refused += no_room;
        answers++;
    }
    assert_int_equal(answers, PIPELINED);
    return refused;
}

/* What a flush takes for a row, 16 bytes and its part of the dirty queue, is much beside a row of few bytes. Memory
 * is full of clean ones when they are overwritten, so that a flush finds only what rows may not have. */
static void small_rows_in_full_memory_are_flushed(void **state)
{
    (void)state;
    static const struct world_options options = {
        .nodes = 1, .row_bytes = (size_t)2 << 20, .cold_empty = true, .blind_writes = true};
    struct world world;
    world_open(&world, &options);
    warm_up(&world);
    const struct memtable_counters *rows = memtable_counters(shard_memtable(world.node[0].shard));
    uint64_t stuck_us = 0;
    uint64_t refused = 0;
    for (uint32_t written = 0; written < KEYS + OVERWRITES; written += PIPELINED) {
        uint32_t stride = written < KEYS ? 1 : 7919;
        uint32_t refused_now = set_keys(&world, written * stride, stride, 1);
        refused += refused_now;
        stuck_us = refused_now > PIPELINED / 2 ? stuck_us + STEP_US : 0;
        assert_true(stuck_us < STUCK_US_MAX);
        world_pass(&world, STEP_US / 1000);
    }
    print_message("%" PRIu64 " refused, %" PRIu64 " rows at the end, %" PRIu64 " evicted\n", refused,
                  rows->rows, rows->evictions);
    assert_true(rows->evictions > KEYS); /* there were more of them than fit */
    world_close(&world);
}

/* Nothing is clean that could give way, and the trees of many slots go with each flush: beside the rows of a job of
 * usual size there is no memory for them. */
static void a_flush_without_memory_is_tried_with_fewer_rows(void **state)
{
    (void)state;
    static const struct world_options options = {
        .nodes = 1, .row_bytes = (size_t)2 << 20, .cold_empty = true, .blind_writes = true};
    struct world world;
    world_open(&world, &options);
    warm_up(&world);
    const struct memtable_counters *rows = memtable_counters(shard_memtable(world.node[0].shard));
    world.node[0].flush_held = true;
    uint32_t written = 0;
    while (set_keys(&world, written, 1, SLOTS) == 0) {
        written += PIPELINED;
        assert_true(written < KEYS);
        world_pass(&world, STEP_US / 1000);
    }
    world.node[0].flush_held = false;
    for (uint64_t waited_us = 0; rows->rows_dirty > 0; waited_us += STEP_US) {
        assert_true(waited_us < DRAINED_US_MAX);
        world_pass(&world, STEP_US / 1000);
    }
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_rows_in_full_memory_are_flushed),
        cmocka_unit_test(a_flush_without_memory_is_tried_with_fewer_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
