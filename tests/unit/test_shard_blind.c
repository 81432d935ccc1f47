/* Which reads and writes look what the cold tier holds of a key that is not resident, and which do not. */
#include <stdio.h>

#include "shard_world.h"
#include "store/memtable.h"

#define LITTLE_BYTES ((size_t)64 << 10)
#define LARGE_BYTES 4000

static const struct world_options blind = {
    .nodes = 1, .cold_empty = true, .repair = true, .blind_writes = true, .row_bytes = LITTLE_BYTES};
static const struct world_options looking = {
    .nodes = 1, .cold_empty = true, .repair = true, .row_bytes = LITTLE_BYTES};
static const struct world_options unknown = {.nodes = 1, .blind_writes = true};

static void say_resp(struct world *world, const char *command, const char *answer)
{
    world_say(world, 0, 7u, command);
    assert_string_equal(world_heard(world, 7), answer);
}

static void pass_seconds(struct world *world, uint32_t seconds)
{
    for (uint32_t i = 0; i < 10 * seconds; i++)
        world_pass(world, 100);
}

static void expect_counts(const struct world *world, uint64_t blind_writes, uint64_t cold_reads)
{
    const struct shard_counters *counters = shard_counters(world->node[0].shard);
    assert_int_equal(counters->blind_writes, blind_writes);
    assert_int_equal(counters->cold_reads, cold_reads);
}

/* A row of the slot of {t} is in the cold tier and in memory. */
static void open_with_row(struct world *world, const struct world_options *options)
{
    world_open(world, options);
    say_resp(world, "SET {t}a 1\r\n", "+OK\r\n");
    pass_seconds(world, 12);
    assert_int_equal(shard_counters(world->node[0].shard)->flushes, 1);
}

static bool evicted(const struct world *world)
{
    return memtable_slot_evicted(shard_memtable(world->node[0].shard), key_slot(span_of_text("t")));
}

/* And has gone from there: from now on others of the slot may have. Returns how many keys took its place. */
static uint32_t open_with_cold_row(struct world *world, const struct world_options *options)
{
    char value[LARGE_BYTES + 1];
    char command[LARGE_BYTES + 64];
    open_with_row(world, options);
    memset(value, 'v', LARGE_BYTES);
    value[LARGE_BYTES] = '\0';
    uint32_t keys = 0;
    for (; !evicted(world) && keys < 100; keys++) {
        (void)snprintf(command, sizeof command, "SET {%u} %s\r\n", keys, value);
        say_resp(world, command, "+OK\r\n");
    }
    assert_true(evicted(world));
    expect_counts(world, 0, 0);
    return keys;
}

static void a_resident_slot_is_never_looked_at(void **state)
{
    (void)state;
    struct world world;
    open_with_row(&world, &looking);
    say_resp(&world, "GET {t}b\r\n", "$-1\r\n");
    say_resp(&world, "SET {t}b 2\r\n", "+OK\r\n");
    say_resp(&world, "DEL {t}c\r\n", ":0\r\n");
    say_resp(&world, "GET {t}a\r\n", "$1\r\n1\r\n");
    expect_counts(&world, 0, 0);
    assert_int_equal(shard_counters(world.node[0].shard)->cold_reads_spared, 3);
    world_close(&world);
}

static void once_a_row_was_evicted_the_slot_is_looked_at(void **state)
{
    (void)state;
    struct world world;
    (void)open_with_cold_row(&world, &looking);
    say_resp(&world, "GET {t}a\r\n", "$1\r\n1\r\n");
    expect_counts(&world, 0, 1);
    say_resp(&world, "GET {t}b\r\n", "$-1\r\n");
    expect_counts(&world, 0, 2);
    /* Of other slots nothing was. */
    say_resp(&world, "GET {u}b\r\n", "$-1\r\n");
    expect_counts(&world, 0, 2);
    world_close(&world);
}

static void a_fresh_value_does_not_look(void **state)
{
    (void)state;
    struct world world;
    (void)open_with_cold_row(&world, &blind);
    say_resp(&world, "SET {t}b 2\r\n", "+OK\r\n");
    expect_counts(&world, 1, 0);
    say_resp(&world, "GET {t}b\r\n", "$1\r\n2\r\n");
    say_resp(&world, "SET {t}b 3\r\n", "+OK\r\n");
    expect_counts(&world, 1, 0);
    world_close(&world);
}

static void with_blind_writes_off_it_looks(void **state)
{
    (void)state;
    struct world world;
    (void)open_with_cold_row(&world, &looking);
    say_resp(&world, "SET {t}b 2\r\n", "+OK\r\n");
    expect_counts(&world, 0, 1);
    world_close(&world);
}

static void a_delete_looks_for_what_it_answers(void **state)
{
    (void)state;
    struct world world;
    (void)open_with_cold_row(&world, &blind);
    say_resp(&world, "DEL {t}b\r\n", ":0\r\n");
    expect_counts(&world, 0, 1);
    world_close(&world);
}

static void a_slot_of_which_nothing_is_known_looks(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &unknown);
    uint16_t slot = key_slot(span_of_text("t"));
    assert_true(shard_slot_high_water(world.node[0].shard, slot) == UINT64_MAX);
    say_resp(&world, "SET {t}a 1\r\n", "+OK\r\n");
    expect_counts(&world, 0, 1);
    say_resp(&world, "SET {t}b 2\r\n", "+OK\r\n");
    expect_counts(&world, 0, 2);
    world_close(&world);
}

static void the_number_of_keys_is_guessed_then_counted(void **state)
{
    (void)state;
    struct world world;
    uint64_t rows = 0;
    struct hash_128 sum;
    uint16_t slot = key_slot(span_of_text("t"));
    uint32_t others = open_with_cold_row(&world, &blind);
    char counted[32];
    (void)snprintf(counted, sizeof counted, ":%u\r\n", others + 4);
    say_resp(&world, "SET {t}b 2\r\nSET {t}c 3\r\nSET {t}d 4\r\n", "+OK\r\n+OK\r\n+OK\r\n");
    expect_counts(&world, 3, 0);
    say_resp(&world, "DBSIZE\r\n", counted);
    pass_seconds(&world, 30);
    assert_true(shard_slot_root(world.node[0].shard, slot, &sum, &rows));
    assert_int_equal(rows, 4);
    say_resp(&world, "DBSIZE\r\n", counted);
    say_resp(&world, "CLUSTER COUNTKEYSINSLOT 15891\r\n", ":4\r\n");
    world_close(&world);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_resident_slot_is_never_looked_at),
        cmocka_unit_test(once_a_row_was_evicted_the_slot_is_looked_at),
        cmocka_unit_test(a_fresh_value_does_not_look),
        cmocka_unit_test(with_blind_writes_off_it_looks),
        cmocka_unit_test(a_delete_looks_for_what_it_answers),
        cmocka_unit_test(a_slot_of_which_nothing_is_known_looks),
        cmocka_unit_test(the_number_of_keys_is_guessed_then_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
