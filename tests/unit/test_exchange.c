/* Unit tests of src/repair/exchange: two replicas over a channel that loses, repeats and keeps order;
 * afterwards both hold the same, and little more than the records that differed was sent. */
#include "exchange_world.h"

static void replicas_that_differ_at_random_become_equal_over_a_lossy_channel(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct prng prng;
        prng_seed(&prng, seed);
        uint32_t slots = seed % 3 == 0 ? 1 : (uint32_t)(1 + prng_below(&prng, 200));
        uint32_t keys = (uint32_t)(1 + prng_below(&prng, 5000));
        struct world *world = world_make(seed, keys, slots, seed % 4 == 0);
        uint64_t differ = 1000000 / (1 + prng_below(&prng, 1000));
        (void)fill(world, (uint32_t)prng_below(&prng, 101), differ);
        world->loss_percent = 20;
        assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
        assert_int_equal(world->slots_verified, world->slot_count);
        check_equal(world);
        /* Once more: nothing is left to do. Dirty leaves may still raise false alarms, but no record moves. */
        assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
        assert_int_equal(world->counters.records_sent + world->counters.records_received, 0);
        world_free(world);
    }
}

static void versions_held_at_the_start_are_on_both_sides_although_writes_go_on(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world *world = world_make(seed, 3000, 20, seed % 2 == 0);
        (void)fill(world, 90, 50000);
        size_t bytes = world->key_count * sizeof(struct held);
        struct held *a = malloc(bytes);
        struct held *b = malloc(bytes);
        assert_non_null(a);
        assert_non_null(b);
        memcpy(a, world->a.rows, bytes);
        memcpy(b, world->b.rows, bytes);
        world->writes = true;
        world->loss_percent = 10;
        assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
        assert_int_equal(world->slots_verified, world->slot_count);
        for (uint32_t i = 0; i < world->key_count; i++) {
            struct stamp start = stamp_max(a[i].version.value, b[i].version.value);
            assert_true(stamp_compare(world->a.rows[i].version.value, start) >= 0);
            assert_true(stamp_compare(world->b.rows[i].version.value, start) >= 0);
        }
        free(a);
        free(b);
        world_free(world);
    }
}

static void exchange_that_was_cut_off_is_started_anew_and_ends(void **state)
{
    (void)state;
    struct world *world = world_make(5, 20000, 10, false);
    (void)fill(world, 100, 100000);
    for (uint32_t steps = 1; steps < 40; steps++) {
        (void)run(world, steps);
        assert_true(world->slots_verified < world->slot_count);
    }
    assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
    assert_int_equal(world->slots_verified, world->slot_count);
    check_equal(world);
    world_free(world);
}

/* One percent of 100,000 records of 100 bytes. */
static void bytes_sent_are_at_most_three_times_those_of_the_records_that_differ(void **state)
{
    (void)state;
    static const uint32_t slot_counts[] = {1, 64, 1000};
    for (size_t s = 0; s < sizeof slot_counts / sizeof slot_counts[0]; s++) {
        struct world *world = world_make(11 + s, 100000, slot_counts[s], false);
        uint64_t differing = fill(world, 100, 10000);
        for (uint32_t i = 0; i < world->slot_count; i++) {
            rescan(world, &world->a, world->slots[i]);
            rescan(world, &world->b, world->slots[i]);
        }
        assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
        check_equal(world);
        uint64_t bytes = world->counters.bytes_sent + world->counters.bytes_received;
        assert_int_equal(bytes, world->wire_bytes);
        print_message("%u slots: %llu bytes for %llu of differing records (%.2f), "
                      "%llu messages, "
                      "%llu + %llu records, %llu rows read\n",
                      slot_counts[s], (unsigned long long)bytes, (unsigned long long)differing,
                      (double)bytes / (double)differing, (unsigned long long)world->counters.messages,
                      (unsigned long long)world->counters.records_sent,
                      (unsigned long long)world->counters.records_received,
                      (unsigned long long)world->counters.rows_read);
        assert_true(bytes <= 3 * differing);
        world_free(world);
    }
}

/* An empty node is filled, from either side, for little more than its records.
 * */
static void empty_replica_is_filled_for_little_more_than_the_records(void **state)
{
    (void)state;
    for (int way = 0; way < 2; way++) {
        struct world *world = world_make(3, 20000, 30, way == 1);
        (void)fill(world, 100, 0);
        empty(world, way == 0 ? &world->a : &world->b);
        assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
        check_equal(world);
        uint64_t record_bytes = (uint64_t)world->key_count * (KEY_BYTES_MAX / 2 + VALUE_BYTES + 18);
        print_message("filled %s: %llu bytes for about %llu\n", way == 0 ? "the asker" : "the other",
                      (unsigned long long)world->wire_bytes, (unsigned long long)record_bytes);
        assert_true(world->wire_bytes * 10 <= record_bytes * 13);
        world_free(world);
    }
}

static void trees_that_are_lost_are_compared_by_rows(void **state)
{
    (void)state;
    struct world *world = world_make(9, 4000, 8, false);
    (void)fill(world, 95, 20000);
    for (uint32_t i = 0; i < world->slot_count; i++)
        merkle_forget(i % 2 == 0 ? &world->a.merkle : &world->b.merkle, world->slots[i]);
    assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
    assert_int_equal(world->slots_verified, world->slot_count);
    check_equal(world);
    assert_true(world->counters.records_sent + world->counters.records_received < 400);
    world_free(world);
}

static void values_larger_than_a_message_travel_one_by_one(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct world *world = world_make(2, 150, 2, false);
        world->value_bytes = VALUE_BYTES_LARGE;
        (void)fill(world, 100, way == 0 ? 300000 : 0);
        if (way > 0)
            empty(world, way == 1 ? &world->a : &world->b);
        assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
        assert_int_equal(world->slots_verified, world->slot_count);
        check_equal(world);
        world_free(world);
    }
}

static void differences_under_dirty_leaves_are_found(void **state)
{
    (void)state;
    struct world *world = world_make(6, 20000, 4, false);
    (void)fill(world, 100, 0);
    for (uint32_t i = 0; i < world->slot_count; i++) {
        rescan(world, &world->a, world->slots[i]);
        rescan(world, &world->b, world->slots[i]);
    }
    for (int i = 0; i < 60; i++) {
        struct replica *side = i % 2 == 0 ? &world->a : &world->b;
        uint32_t index = (uint32_t)prng_below(&world->prng, world->key_count);
        side->rows[index] = newer(world, 1);
        merkle_mark_dirty(&side->merkle, world->keys[index].slot, world->keys[index].tag);
    }
    assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
    assert_int_equal(world->slots_verified, world->slot_count);
    check_equal(world);
    world_free(world);
}

static void exchange_survives_the_failure_of_any_allocation(void **state)
{
    (void)state;
    struct world *world = world_make(21, 400, 3, false);
    uint64_t failures = 0;
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        (void)fill(world, 60, 200000);
        world->alloc.calls = 0;
        world->alloc.fail_at_call = n;
        enum status status = run(world, UINT32_MAX);
        done = world->alloc.calls < n;
        world->alloc.fail_at_call = 0;
        failures += status != STATUS_OK;
        if (status == STATUS_OK)
            check_equal(world);
        else
            assert_int_equal(status, STATUS_OVERLOADED);
    }
    assert_true(failures > 20);
    assert_int_equal(run(world, UINT32_MAX), STATUS_OK);
    check_equal(world);
    world_free(world);
}

static void answers_cut_short_anywhere_change_nothing(void **state)
{
    (void)state;
    struct world *world = world_make(4, 2000, 4, false);
    (void)fill(world, 100, 50000);
    struct exchange_options options = {.alloc = &world->alloc,
                                       .merkle = &world->a.merkle,
                                       .session = 9,
                                       .slots = world->slots,
                                       .slot_count = world->slot_count};
    struct exchange *exchange = exchange_start(&options);
    struct exchange_record record;
    struct buf out;
    buf_init(&out, &world->alloc);
    while (exchange_state(exchange) != EXCHANGE_DONE) {
        if (exchange_state(exchange) == EXCHANGE_READING) {
            read_rows(world, exchange);
        } else if (exchange_state(exchange) == EXCHANGE_SENDING) {
            buf_clear(&out);
            assert_int_equal(serve(world, exchange_message(exchange), &out), STATUS_OK);
            for (size_t size = 0; size < out.size; size += 1 + size / 50)
                assert_int_equal(exchange_answer(exchange, span_of(out.data, size)), STATUS_MALFORMED);
            assert_int_equal(exchange_answer(exchange, buf_span(&out)), STATUS_OK);
        } else {
            while (exchange_merge_next(exchange, &record))
                merge(world, &world->a, &record);
            exchange_merged(exchange);
        }
    }
    buf_free(&out);
    exchange_free(exchange);
    check_equal(world);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replicas_that_differ_at_random_become_equal_over_a_lossy_channel),
        cmocka_unit_test(versions_held_at_the_start_are_on_both_sides_although_writes_go_on),
        cmocka_unit_test(exchange_that_was_cut_off_is_started_anew_and_ends),
        cmocka_unit_test(bytes_sent_are_at_most_three_times_those_of_the_records_that_differ),
        cmocka_unit_test(empty_replica_is_filled_for_little_more_than_the_records),
        cmocka_unit_test(trees_that_are_lost_are_compared_by_rows),
        cmocka_unit_test(values_larger_than_a_message_travel_one_by_one),
        cmocka_unit_test(differences_under_dirty_leaves_are_found),
        cmocka_unit_test(exchange_survives_the_failure_of_any_allocation),
        cmocka_unit_test(answers_cut_short_anywhere_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
