/* The shard through its one door: situations in a tiny world, and golden traces of what leaves the nodes. */
#include "shard_world.h"

static const struct world_options one_node = {.nodes = 1, .cold_empty = true};
static const struct world_options three_nodes = {.nodes = 3, .cold_empty = true};

static const struct shard_counters *counters(const struct world *world, uint8_t node)
{
    return shard_counters(world->node[node].shard);
}

static uint64_t rows(const struct world *world, uint8_t node)
{
    return memtable_counters(shard_memtable(world->node[node].shard))->rows;
}

/* ---- writes --------------------------------------------------------------------------------------------- */

static void put_answers_only_after_its_batch_is_durable(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    world_pass(&world, 100);
    assert_string_equal(world_heard(&world, 0), "");
    world.node[0].log_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_close(&world);
}

static void get_of_a_value_that_is_not_durable_waits_for_it(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    world_say(&world, 0, 1, "GET k\r\n");
    assert_string_equal(world_heard(&world, 1), "");
    world.node[0].log_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 1), "$1\r\nv\r\n");
    world_close(&world);
}

static void put_first_ever_waits_for_the_bound_of_its_clock(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    world.node[0].log_held = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_int_equal(rows(&world, 0), 0);
    assert_string_equal(world_trace(&world), "n0 log\n"); /* the bound alone */
    world.node[0].log_held = false;
    world_settle(&world);
    assert_string_equal(world_trace(&world), "n0 log\nc0< +OK\n");
    world_close(&world);
}

static void put_goes_to_all_replicas_and_is_done_at_two(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world.node[0].held[2] = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_trace(&world), "n0 log\n"
                                             "n0>n1 PUT\n"
                                             "n0>n2 PUT\n"
                                             "n1 log\n"
                                             "n1>n0 PUT_ACK\n"
                                             "c0< +OK\n");
    world.node[0].held[2] = false;
    world_settle(&world);
    assert_string_equal(world_trace(&world), "n2 log\nn2>n0 PUT_ACK\n");
    world_close(&world);
}

static void put_with_one_durable_copy_is_not_acknowledged(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world.node[0].log_held = true; /* its own copy does not count while it is not durable */
    world.node[0].held[2] = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "");
    world_pass(&world, WORLD_TIMEOUT_MS + 1);
    assert_true(begins(world_heard(&world, 0), "-UNKNOWN "));
    assert_int_equal(counters(&world, 0)->requests_unknown, 1);
    world_close(&world);
}

static void put_below_the_stamp_a_replica_holds_is_restamped_once(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    /* A fast clock wrote first, and node 0 has not heard of it. */
    world.node[1].now.wall_ms += 200;
    world.node[1].held[0] = true;
    world_say(&world, 1, 1, "SET k fast\r\n");
    assert_string_equal(world_heard(&world, 1), "+OK\r\n");
    (void)world_trace(&world);
    world.node[1].held[0] = false;
    buf_clear(&world.node[1].pipe[0]); /* lost */
    world_say(&world, 0, 0, "SET k slow\r\n");
    assert_string_equal(world_trace(&world), "n0 log\n"
                                             "n0>n1 PUT\n"
                                             "n0>n2 PUT\n"
                                             "n1>n0 PUT_ACK\n"
                                             "n2>n0 PUT_ACK\n"
                                             "n0 log\n"
                                             "n0>n1 PUT\n"
                                             "n0>n2 PUT\n"
                                             "n1 log\n"
                                             "n2 log\n"
                                             "n1>n0 PUT_ACK\n"
                                             "n2>n0 PUT_ACK\n"
                                             "c0< +OK\n");
    assert_int_equal(counters(&world, 0)->restamps, 1);
    world_say(&world, 2, 2, "GET k\r\n");
    assert_string_equal(world_heard(&world, 2), "$4\r\nslow\r\n");
    world_close(&world);
}

static void put_that_cannot_reach_w_replicas_appends_nothing(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_cut(&world, 0, 1);
    world_cut(&world, 0, 2);
    (void)world_trace(&world);
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_true(begins(world_heard(&world, 0), "-CLUSTERDOWN 1 of 2 needed replicas can answer"));
    assert_null(strstr(world_trace(&world), "log"));
    world_join(&world, 0, 1);
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_close(&world);
}

static void put_whose_replicas_vanish_is_unknown_at_once(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world.node[0].held[1] = world.node[0].held[2] = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    world_cut(&world, 0, 1);
    assert_string_equal(world_heard(&world, 0), "");
    world_cut(&world, 0, 2);
    assert_true(begins(world_heard(&world, 0), "-UNKNOWN "));
    world_close(&world);
}

/* Node 0 hears no answers, because the connections that the others have to it break; then they make new ones. */
static void lose_the_answers_to(struct world *world, const char *command)
{
    world->node[1].held[0] = world->node[2].held[0] = true;
    world_say(world, 0, 0, command);
    assert_string_equal(world_heard(world, 0), "");
    for (uint8_t other = 1; other <= 2; other++) {
        world_cut_one_way(world, other, 0);
        world->node[other].held[0] = false;
        world_join_one_way(world, other, 0);
    }
    world_settle(world);
}

static void put_whose_answers_are_lost_is_sent_again_once_they_can_come(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    lose_the_answers_to(&world, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_close(&world);
}

static void get_whose_answers_are_lost_is_sent_again_once_they_can_come(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    lose_the_answers_to(&world, "GET warm\r\n");
    assert_string_equal(world_heard(&world, 0), "$2\r\nup\r\n");
    assert_int_equal(counters(&world, 0)->hedges, 0);
    world_close(&world);
}

static void put_past_its_deadline_is_dropped_by_the_replica(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world.node[0].held[1] = world.node[0].held[2] = true;
    world_say(&world, 0, 0, "SET late v\r\n");
    world_pass(&world, WORLD_TIMEOUT_MS + 1);
    assert_true(begins(world_heard(&world, 0), "-UNKNOWN "));
    world.node[0].held[1] = world.node[0].held[2] = false;
    world_settle(&world);
    assert_int_equal(counters(&world, 1)->deadline_drops, 1);
    assert_int_equal(counters(&world, 2)->deadline_drops, 1);
    assert_int_equal(rows(&world, 1), 1); /* the one of the warm-up */
    world_close(&world);
}

static void put_while_the_clock_is_off_is_refused_and_reads_go_on(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world.node[0].now.wall_ms += WORLD_SKEW_MAX_MS;
    for (int i = 0; i < 20; i++)
        world_pass(&world, 200);
    world_say(&world, 0, 0, "SET k v\r\nGET warm\r\n");
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "-CLOCK_SKEW "));
    assert_non_null(strstr(heard, "\r\n$2\r\nup\r\n"));
    world_say(&world, 1, 1, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 1), "+OK\r\n");
    world.node[0].now.wall_ms -= WORLD_SKEW_MAX_MS;
    for (int i = 0; i < 80; i++)
        world_pass(&world, 200);
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_close(&world);
}

static void put_while_the_disk_is_full_is_refused_and_reads_go_on(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &one_node);
    warm_up(&world);
    struct event full = {.kind = EVENT_LOG_FULL, .flag = true};
    world_event(&world, 0, &full);
    (void)world_trace(&world);
    world_say(&world, 0, 0, "SET k v\r\nGET warm\r\nGET k\r\n");
    const char *heard = world_heard(&world, 0);
    assert_true(begins(heard, "-DISK_FULL "));
    assert_non_null(strstr(heard, "\r\n$2\r\nup\r\n$-1\r\n"));
    assert_null(strstr(world_trace(&world), "log"));
    struct event room = {.kind = EVENT_LOG_FULL, .flag = false};
    world_event(&world, 0, &room);
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_close(&world);
}

/* ---- reads ---------------------------------------------------------------------------------------------- */

static void get_writes_a_stale_replica_back_before_it_answers(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world.node[0].held[2] = true;
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    buf_clear(&world.node[0].pipe[2]); /* lost */
    world.node[0].held[2] = false;
    (void)world_trace(&world);
    /* Node 2 reads: it holds nothing itself, and what it merges is not yet on enough disks. */
    world.node[2].log_held = true;
    world_say(&world, 2, 2, "GET k\r\n");
    assert_string_equal(world_heard(&world, 2), "");
    assert_non_null(strstr(world_trace(&world), "n2 log\n"));
    world.node[2].log_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 2), "$1\r\nv\r\n");
    assert_int_equal(counters(&world, 2)->write_backs, 1);
    assert_int_equal(rows(&world, 2), 2);
    world_close(&world);
}

static void get_of_agreeing_replicas_writes_nothing(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_say(&world, 0, 0, "GET warm\r\n");
    const char *trace = world_trace(&world);
    bool asked_1 = strcmp(trace, "n0>n1 GET\nn1>n0 GET_ANSWER\nc0< $2\r\nup\n") == 0;
    bool asked_2 = strcmp(trace, "n0>n2 GET\nn2>n0 GET_ANSWER\nc0< $2\r\nup\n") == 0;
    assert_true(asked_1 || asked_2);
    world_close(&world);
}

static void get_whose_replica_is_slow_hedges_to_another(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world.node[0].held[1] = world.node[0].held[2] = true;
    world_say(&world, 0, 0, "GET warm\r\n");
    uint8_t asked = world.node[0].pipe[1].size > 0 ? 1 : 2;
    uint8_t other = (uint8_t)(3 - asked);
    world.node[0].held[other] = false;
    world_pass(&world, 100);
    assert_string_equal(world_heard(&world, 0), "$2\r\nup\r\n");
    assert_int_equal(counters(&world, 0)->hedges, 1);
    world_close(&world);
}

static void get_from_an_amnesiac_replica_counts_towards_no_r(void **state)
{
    (void)state;
    struct world world;
    struct world_options options = three_nodes;
    options.state_of_node_0 = META_AMNESIAC;
    world_open(&world, &options);
    world_say(&world, 0, 0, "SET k v\r\n"); /* takes writes */
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_say(&world, 0, 0, "GET k\r\n");
    assert_string_equal(world_heard(&world, 0), "$1\r\nv\r\n");
    assert_false(shard_slot_serves(world.node[0].shard, 0));
    world_cut(&world, 0, 2);
    world_say(&world, 0, 0, "GET k\r\n");
    assert_true(begins(world_heard(&world, 0), "-QUARANTINED "));
    world_cut(&world, 1, 2);
    world_say(&world, 1, 1, "GET k\r\n"); /* asks node 0, which does not count */
    assert_true(begins(world_heard(&world, 1), "-QUARANTINED "));
    world_close(&world);
}

static void node_with_a_new_directory_serves_once_a_majority_has_vouched(void **state)
{
    (void)state;
    struct world world;
    struct world_options options = three_nodes;
    options.state_of_node_0 = META_UNPROVEN;
    world_open(&world, &options);
    assert_true(shard_slot_serves(world.node[0].shard, 0));
    world_close(&world);
}

static void get_of_a_cold_key_waits_for_its_read_and_answers_in_order(void **state)
{
    (void)state;
    struct world world;
    struct world_options options = {.nodes = 1};
    world_open(&world, &options);
    warm_up(&world);
    world.node[0].cold_held = true;
    world_say(&world, 0, 0, "GET cold\r\nSET cold 1\r\nGET cold\r\nPING\r\n");
    assert_string_equal(world_heard(&world, 0), "");
    assert_int_equal(world.node[0].cold_count, 1); /* one read for all three */
    world.node[0].cold_held = false;
    world_settle(&world);
    assert_string_equal(world_heard(&world, 0), "$-1\r\n+OK\r\n$1\r\n1\r\n+PONG\r\n");
    world_close(&world);
}

static void get_whose_cold_read_fails_answers_an_error_and_never_not_found(void **state)
{
    (void)state;
    struct world world;
    struct world_options options = {.nodes = 1};
    world_open(&world, &options);
    world.node[0].cold_held = true;
    world_say(&world, 0, 0, "GET cold\r\n");
    struct event broken = {
        .kind = EVENT_COLD_RESULT, .status = STATUS_CORRUPT, .ticket = world.node[0].cold[0]};
    world.node[0].cold_count = 0;
    world_event(&world, 0, &broken);
    world_settle(&world);
    assert_true(begins(world_heard(&world, 0), "-CORRUPT "));
    world_close(&world);
}

/* ---- frames of other nodes ------------------------------------------------------------------------------ */

static void frame_to(struct world *world, uint8_t from, uint8_t to, struct span bytes)
{
    struct event data = {.kind = EVENT_LINK_DATA, .link = world_link(from, to), .bytes = bytes};
    world_event(world, to, &data);
    assert_int_equal(data.consumed, bytes.size);
    world_settle(world);
}

static void put_of_epoch(struct world *world, uint64_t epoch)
{
    struct buf frame;
    struct buf bytes;
    struct span key = span_of_text("fenced");
    struct record record = {.flags = RECORD_VALUE,
                            .stamp = {.time = WORLD_WALL_MS << 16, .actor = 9},
                            .value = span_of_text("v")};
    buf_init(&frame, &world->alloc);
    buf_init(&bytes, &world->alloc);
    record_put(&bytes, &record);
    struct frame_put put = {.slot = key_slot(key), .key = key, .record = buf_span(&bytes)};
    frame_put_put(&frame, (struct frame_head){.to_shard = FRAME_BY_SLOT, .request = 1 << 8, .epoch = epoch},
                  &put);
    frame_to(world, 0, 1, buf_span(&frame));
    buf_free(&frame);
    buf_free(&bytes);
}

static void replica_refuses_an_older_epoch_and_learns_a_newer_one_first(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    put_of_epoch(&world, 0);
    assert_string_equal(world_trace(&world), "n1>n0 PUT_ACK\nn0>n1 RING_ASK\nn1>n0 RING\n");
    assert_int_equal(counters(&world, 1)->stale_epochs, 1);
    assert_int_equal(rows(&world, 1), 0);
    put_of_epoch(&world, 2);
    assert_string_equal(world_trace(&world), "n1>n0 RING_ASK\nn1>n0 PUT_ACK\nn0>n1 RING\n");
    assert_int_equal(rows(&world, 1), 0);
    put_of_epoch(&world, 1);
    assert_string_equal(world_trace(&world), "n1 log\nn1>n0 PUT_ACK\n");
    assert_int_equal(rows(&world, 1), 1);
    world_close(&world);
}

static void replica_closes_a_link_that_sends_nonsense_and_changes_nothing(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    static const uint8_t nonsense[64] = {60, 0, 0, 0, FRAME_EXEC};
    frame_to(&world, 0, 1, span_of(nonsense, sizeof nonsense));
    assert_int_equal(rows(&world, 1), 0);
    world_cut(&world, 0, 1);
    world_join(&world, 0, 1);
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_close(&world);
}

static void clock_readings_that_are_none_are_ignored(void **state)
{
    (void)state;
    struct world world;
    struct buf frame;
    world_open(&world, &three_nodes);
    buf_init(&frame, &world.alloc);
    struct frame_ping pong = {
        .sent_mono_us = 1, .sent_wall_ms = UINT64_MAX, .answered_wall_ms = UINT64_C(1) << 63};
    frame_put_pong(&frame, (struct frame_head){.epoch = 1}, &pong);
    for (uint8_t from = 0; from < 3; from += 2)
        frame_to(&world, from, 1, buf_span(&frame));
    world_pass(&world, 1500);
    world_say(&world, 1, 1, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 1), "+OK\r\n");
    buf_free(&frame);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_answers_only_after_its_batch_is_durable),
        cmocka_unit_test(get_of_a_value_that_is_not_durable_waits_for_it),
        cmocka_unit_test(put_first_ever_waits_for_the_bound_of_its_clock),
        cmocka_unit_test(put_goes_to_all_replicas_and_is_done_at_two),
        cmocka_unit_test(put_with_one_durable_copy_is_not_acknowledged),
        cmocka_unit_test(put_below_the_stamp_a_replica_holds_is_restamped_once),
        cmocka_unit_test(put_that_cannot_reach_w_replicas_appends_nothing),
        cmocka_unit_test(put_whose_replicas_vanish_is_unknown_at_once),
        cmocka_unit_test(put_whose_answers_are_lost_is_sent_again_once_they_can_come),
        cmocka_unit_test(get_whose_answers_are_lost_is_sent_again_once_they_can_come),
        cmocka_unit_test(put_past_its_deadline_is_dropped_by_the_replica),
        cmocka_unit_test(put_while_the_clock_is_off_is_refused_and_reads_go_on),
        cmocka_unit_test(put_while_the_disk_is_full_is_refused_and_reads_go_on),
        cmocka_unit_test(get_writes_a_stale_replica_back_before_it_answers),
        cmocka_unit_test(get_of_agreeing_replicas_writes_nothing),
        cmocka_unit_test(get_whose_replica_is_slow_hedges_to_another),
        cmocka_unit_test(get_from_an_amnesiac_replica_counts_towards_no_r),
        cmocka_unit_test(node_with_a_new_directory_serves_once_a_majority_has_vouched),
        cmocka_unit_test(get_of_a_cold_key_waits_for_its_read_and_answers_in_order),
        cmocka_unit_test(get_whose_cold_read_fails_answers_an_error_and_never_not_found),
        cmocka_unit_test(replica_refuses_an_older_epoch_and_learns_a_newer_one_first),
        cmocka_unit_test(replica_closes_a_link_that_sends_nonsense_and_changes_nothing),
        cmocka_unit_test(clock_readings_that_are_none_are_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
