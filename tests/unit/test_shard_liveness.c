/* What a shard does with what gossip says: silent nodes whose connections stand, suspects, and nodes that come back. */
#include "shard_world.h"

#include "gossip/message.h"

static const struct world_options three_nodes = {.nodes = 3, .cold_empty = true};

/* By the formulas: the first probe within two rounds of the two others, its end an interval later, and the longest
 * suspicion, 6 * 4 intervals. */
#define DEATH_MS (2 * 2 * 1000 + 1000 + 24000)

static enum swim_state state_of(const struct world *world, uint8_t at, uint8_t node)
{
    const struct swim *swim = shard_gossip(world->node[at].shard);
    return swim_member_of(swim, world->ring->nodes[node].id)->state;
}

static void world_pass_slowly(struct world *world, uint64_t ms)
{
    for (uint64_t passed = 0; passed < ms; passed += 50)
        world_pass(world, 50);
}

/* Nothing from or to a node moves any more, and no connection breaks: as if its process were stopped. */
static void world_silence(struct world *world, uint8_t node, bool silent)
{
    for (uint8_t other = 0; other < world->nodes; other++) {
        world->node[node].held[other] = silent;
        world->node[other].held[node] = silent;
    }
}

/* A new connection; the other end has noticed that the old one was dropped. */
static void world_reconnect(struct world *world, uint8_t from, uint8_t to)
{
    struct event closed = {.kind = EVENT_LINK_CLOSED, .link = world_link(from, to)};
    world_event(world, to, &closed);
    world_join_one_way(world, from, to);
    world_settle(world);
}

/* A datagram of node `from` with one rumour. */
static void world_rumour(struct world *world, uint8_t at, uint8_t from, const struct rumour *rumour)
{
    struct message message = {.type = MESSAGE_GOSSIP, .from = world->ring->nodes[from].id};
    struct buf made;
    buf_init(&made, &world->alloc);
    message_begin(&made, world->ring->cluster_id, &message);
    message_add_rumour(&made, rumour);
    message_seal(&made, 0, world->ring->cluster_id);
    struct event event = {.kind = EVENT_DATAGRAM, .bytes = buf_span(&made)};
    world_event(world, at, &event);
    buf_free(&made);
}

static uint64_t incarnation_of(const struct world *world, uint8_t at, uint8_t node)
{
    const struct swim *swim = shard_gossip(world->node[at].shard);
    return swim_member_of(swim, world->ring->nodes[node].id)->incarnation;
}

static void suspect(struct world *world, uint8_t at, uint8_t from, uint8_t node)
{
    struct rumour rumour = {.node = world->ring->nodes[node].id,
                            .incarnation = incarnation_of(world, at, node),
                            .accuser = world->ring->nodes[from].id,
                            .state = SWIM_SUSPECT};
    world_rumour(world, at, from, &rumour);
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

/* ---- situations ----------------------------------------------------------------------------------------- */

static void nodes_that_hear_each_other_stay_alive(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    world_pass_slowly(&world, 60000);
    for (uint8_t at = 0; at < 3; at++) {
        const struct swim *swim = shard_gossip(world.node[at].shard);
        assert_int_equal(swim->counters.suspicions, 0);
        assert_true(swim->counters.probes > 50);
        assert_int_equal(swim->counters.malformed + swim->counters.foreign + swim->counters.dropped, 0);
        for (uint8_t node = 0; node < 3; node++)
            assert_true(incarnation_of(&world, at, node) >= WORLD_WALL_MS);
    }
    world_close(&world);
}

static void nodes_without_datagrams_gossip_over_their_connections(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    world.no_datagrams = true;
    world_pass_slowly(&world, 60000);
    for (uint8_t at = 0; at < 3; at++)
        assert_int_equal(shard_gossip(world.node[at].shard)->counters.deaths, 0);
    for (uint8_t node = 0; node < 3; node++)
        assert_int_equal(state_of(&world, 0, node), SWIM_ALIVE);
    world_close(&world);
}

static void node_that_is_silent_on_open_connections_is_done_without(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_say(&world, 0, 0, "RONDO.CONSISTENCY W 3\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    world_silence(&world, 2, true);
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), ""); /* it may answer yet */
    world_pass_slowly(&world, DEATH_MS);
    assert_true(begins(world_heard(&world, 0), "-UNKNOWN "));
    assert_int_equal(state_of(&world, 0, 2), SWIM_DEAD);
    assert_int_equal(state_of(&world, 1, 2), SWIM_DEAD);
    const char *trace = world_trace(&world);
    assert_true(has(trace, "n0 drops n2\n"));
    assert_true(has(trace, "n1 drops n2\n"));
    /* No time passes: what needs it is refused at once, what does not goes on without it. */
    world_say(&world, 0, 0, "SET k v\r\n");

    assert_true(begins(world_heard(&world, 0), "-CLUSTERDOWN 2 of 3 "));
    world_say(&world, 0, 1, "SET k w\r\n");
    assert_string_equal(world_heard(&world, 1), "+OK\r\n");
    world_say(&world, 0, 1, "GET k\r\n");
    assert_string_equal(world_heard(&world, 1), "$1\r\nw\r\n");
    assert_false(has(world_trace(&world), ">n2 "));
    world_close(&world);
}

static void request_under_way_goes_on_when_its_replica_is_declared_dead(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_silence(&world, 2, true);
    world_say(&world, 0, 0, "RONDO.CONSISTENCY W 3 TIMEOUT 60000\r\n");
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n");
    struct rumour death = {.node = world.ring->nodes[2].id,
                           .incarnation = incarnation_of(&world, 0, 2),
                           .accuser = world.ring->nodes[1].id,
                           .state = SWIM_DEAD};
    world_rumour(&world, 0, 1, &death);
    world_settle(&world);
    assert_true(begins(world_heard(&world, 0), "-UNKNOWN "));
    world_close(&world);
}

static void node_that_is_back_is_dialled_and_used_at_once(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_silence(&world, 2, true);
    world_pass_slowly(&world, DEATH_MS);
    assert_int_equal(state_of(&world, 0, 2), SWIM_DEAD);
    (void)world_trace(&world);
    world_silence(&world, 2, false);
    world_reconnect(&world, 0, 2);
    world_reconnect(&world, 2, 0);
    /* A greeting is a sign of life: each is told that it is held dead, and refutes. */
    world_pass_slowly(&world, 2000);
    assert_int_equal(state_of(&world, 0, 2), SWIM_ALIVE);
    assert_int_equal(state_of(&world, 2, 0), SWIM_ALIVE);
    world_say(&world, 0, 0, "RONDO.CONSISTENCY W 3\r\n");
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_string_equal(world_heard(&world, 0), "+OK\r\n+OK\r\n");
    /* n1 has no connection yet; a datagram is enough for it to dial. */
    world.node[1].linked[2] = world.node[2].linked[1] = true;
    world_pass_slowly(&world, 2000);
    assert_int_equal(state_of(&world, 1, 2), SWIM_ALIVE);
    assert_true(has(world_trace(&world), "n1 dials n2\n"));
    world_close(&world);
}

static void suspect_is_written_to_and_read_from_only_where_it_must_be(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    warm_up(&world);
    world_pass_slowly(&world, 2000);
    suspect(&world, 0, 1, 2);
    assert_int_equal(state_of(&world, 0, 2), SWIM_SUSPECT);
    world.no_datagrams = true; /* so that it does not hear of it */
    world_settle(&world);
    (void)world_trace(&world);
    for (int i = 0; i < 6; i++) {
        world_say(&world, 0, 0, "GET k\r\n");
        const char *trace = world_trace(&world);
        assert_true(has(trace, "n0>n1 GET\n"));
        assert_false(has(trace, "n0>n2"));
    }
    world_say(&world, 0, 0, "SET k v\r\n");
    assert_true(has(world_trace(&world), "n0>n2 PUT\n"));
    world_cut(&world, 0, 1);
    (void)world_trace(&world);
    world_say(&world, 0, 0, "GET k\r\n");
    assert_true(has(world_trace(&world), "n0>n2 GET\n"));
    world_close(&world);
}

static void status_shows_state_incarnation_and_counters(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    world_pass_slowly(&world, 3000);
    suspect(&world, 0, 1, 2);
    world.no_datagrams = true;
    world_settle(&world);
    world_say_as(&world, CLIENT_HTTP, 0, 0, "GET /status HTTP/1.1\r\nHost: h\r\n\r\n");
    const char *answer = world_heard(&world, 0);
    assert_true(
        has(answer, "\"liveness\":\"alive\",\"incarnation\":1700000000000,\"since_ms\":1700000000000,"));
    assert_true(
        has(answer, "\"liveness\":\"suspect\",\"incarnation\":1700000000000,\"since_ms\":1700000003000,"));
    assert_true(
        has(answer, "\"gossip\":{\"state\":\"suspect\",\"incarnation\":1700000000000,\"since_ms_ago\":"));
    assert_true(has(answer, "\"gossip\":{\"sent\":"));
    assert_true(has(answer, "\"suspicions\":1,\"deaths\":0,\"refutations\":0,\"health\":0}"));
    world_close(&world);
}

static void datagrams_of_strangers_change_nothing(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, &three_nodes);
    const struct swim *swim = shard_gossip(world.node[0].shard);
    uint64_t received = swim->counters.received;
    uint8_t bytes[2000];
    memset(bytes, 0x5a, sizeof bytes);
    for (size_t size = 0; size <= sizeof bytes; size += 50) {
        struct event event = {.kind = EVENT_DATAGRAM, .bytes = span_of(bytes, size)};
        world_event(&world, 0, &event);
    }
    assert_int_equal(swim->counters.received, received);
    assert_int_equal(swim->counters.malformed + swim->counters.foreign, 41);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_that_hear_each_other_stay_alive),
        cmocka_unit_test(nodes_without_datagrams_gossip_over_their_connections),
        cmocka_unit_test(node_that_is_silent_on_open_connections_is_done_without),
        cmocka_unit_test(request_under_way_goes_on_when_its_replica_is_declared_dead),
        cmocka_unit_test(node_that_is_back_is_dialled_and_used_at_once),
        cmocka_unit_test(suspect_is_written_to_and_read_from_only_where_it_must_be),
        cmocka_unit_test(status_shows_state_incarnation_and_counters),
        cmocka_unit_test(datagrams_of_strangers_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
