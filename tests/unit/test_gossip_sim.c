/* Whole clusters of swim machines in an invented network: virtual time, seeded loss, delay, pauses and partitions.
 *
 * Bounds asserted here follow from the constants (swim.h); what was measured is printed. The figure of false deaths is
 * Lifeguard's: "reduce by 50x the false positives" against plain SWIM (HashiCorp, on Dadgar, Phillips, Currey, 2017),
 * that is 2 % of it. Plain SWIM is the same machine with its tuning: no local health, suspicion max = min, no notice
 * of its own sleeps, no pings to suspects beyond the probes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gossip_world.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS_SMALL 4u
#else
#define SEEDS_SMALL 6u
#endif

#define LARGE_RUN_MS 16000u

/* Whether every node that is up holds `about` dead; *last_ms: since when. */
static bool known_dead_everywhere(const struct world *world, uint32_t about, uint64_t *first_ms,
                                  uint64_t *last_ms)
{
    *first_ms = UINT64_MAX;
    *last_ms = 0;
    for (uint32_t i = 0; i < world->count; i++) {
        if (!world->nodes[i].up || i == about)
            continue;
        uint64_t at_ms = world->nodes[i].dead_ms[about];
        if (at_ms == 0)
            return false;
        *first_ms = at_ms < *first_ms ? at_ms : *first_ms;
        *last_ms = at_ms > *last_ms ? at_ms : *last_ms;
    }
    return true;
}

/* How many pairs of nodes that are up think each other dead. */
static uint32_t held_dead(const struct world *world)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->count; i++) {
        for (uint32_t j = 0; j < world->count; j++) {
            if (world->nodes[i].up && world->nodes[j].up)
                count += !swim_reachable(&world->nodes[i].swim, id_of(j));
        }
    }
    return count;
}

/* ---- a dead node ---------------------------------------------------------------------------------------- */

/* Each living node picks the dead one with probability 1/(n-1) in an interval, so accusers come at about one an
 * interval. The first three (k = 2) are there within 12 intervals but for one time in 2,000 (Poisson); 3 nodes: the
 * round robin of two takes at most 3 intervals, and one accuser is enough. Then the last probe's interval, the
 * suspicion minimum, and 2 * ceil(log2 n) rounds of gossip for the accusations and the death. */
static uint64_t detection_bound_ms(uint32_t nodes)
{
    uint64_t rounds = 0;
    for (uint32_t reached = 1; reached < nodes; reached *= 2)
        rounds++;
    uint64_t accusers_ms = nodes <= 3 ? 3000 : 12000;
    return accusers_ms + 1000 + suspicion_min_ms(4, nodes, 1000) + 2 * rounds * 200;
}

static void check_detection(uint32_t count, uint64_t seeds, uint64_t loss_percent)
{
    uint64_t worst_ms = 0;
    uint64_t sum_ms = 0;
    uint64_t worst_spread_ms = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct world world;
        world_init(&world,
                   &(struct world_options){.count = count, .seed = seed, .loss_percent = loss_percent});
        world_run(&world, 3000 + seed * 137);
        assert_int_equal(world.false_deaths, 0);
        uint64_t killed_ms = world.now_ms;
        uint32_t victim = (uint32_t)(seed * 31) % count;
        world_stop_node(&world, victim);
        uint64_t first_ms;
        uint64_t last_ms;
        while (!known_dead_everywhere(&world, victim, &first_ms, &last_ms)) {
            assert_true(world.now_ms - killed_ms < 60000);
            world_run(&world, 100);
        }
        uint64_t took_ms = last_ms - killed_ms;
        sum_ms += took_ms;
        worst_ms = took_ms > worst_ms ? took_ms : worst_ms;
        worst_spread_ms = last_ms - first_ms > worst_spread_ms ? last_ms - first_ms : worst_spread_ms;
        /* Not before it had its time to refute. */
        assert_true(first_ms - killed_ms >= suspicion_min_ms(4, count, 1000));
        assert_int_equal(world.false_deaths, 0);
        world_free(&world);
    }
    print_message(
        "%u nodes, %u %% loss: dead known everywhere after %.1f s on average, %.1f s at worst (bound %.1f "
        "s); last %.1f s after the first\n",
        count, (unsigned)loss_percent, (double)sum_ms / (double)seeds / 1e3, (double)worst_ms / 1e3,
        (double)detection_bound_ms(count) / 1e3, (double)worst_spread_ms / 1e3);
    assert_true(worst_ms <= detection_bound_ms(count));
}

static void test_dead_node_is_known_everywhere_in_time(void **state)
{
    (void)state;
    check_detection(3, SEEDS_SMALL * 4, 0);
    check_detection(50, SEEDS_SMALL, 0);
    check_detection(500, 1, 0);
    check_detection(50, SEEDS_SMALL / 2, 10);
}

/* ---- healthy nodes -------------------------------------------------------------------------------------- */

struct tally {
    uint64_t false_deaths;
    uint64_t at_pausing;
    uint64_t suspicions;
    double messages; /* per node and second */
};

static struct tally run_with_loss_and_pauses(const struct world_options *options, uint64_t duration_ms)
{
    struct world world;
    struct tally tally = {0};
    world_init(&world, options);
    world.pausing = options->count / 2;
    world.pause_at_ms = world.now_ms + 3000;
    world_run(&world, duration_ms);
    tally.false_deaths = world.false_deaths;
    tally.at_pausing = world.false_deaths_at_pausing;
    tally.messages = (double)world.messages / options->count / ((double)duration_ms / 1e3);
    for (uint32_t i = 0; i < options->count; i++)
        tally.suspicions += world.nodes[i].swim.counters.suspicions;
    world_free(&world);
    return tally;
}

static void tally_add(struct tally *sum, const struct tally *tally)
{
    sum->false_deaths += tally->false_deaths;
    sum->at_pausing += tally->at_pausing;
    sum->suspicions += tally->suspicions;
    sum->messages += tally->messages;
}

static void check_false_deaths(uint32_t count, uint64_t seeds, uint64_t duration_ms, bool no_connections)
{
    struct tally swim = {0};
    struct tally lifeguard = {0};
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct world_options options = {
            .count = count, .seed = seed, .loss_percent = 30, .no_connections = no_connections};
        struct tally tally = run_with_loss_and_pauses(&options, duration_ms);
        tally_add(&lifeguard, &tally);
        options.plain_swim = true;
        tally = run_with_loss_and_pauses(&options, duration_ms);
        tally_add(&swim, &tally);
    }
    print_message(
        "%u nodes, 30 %% loss, one pausing, %s, %u s: deaths of healthy nodes noted by healthy nodes + the "
        "pausing one: %u + %u (plain SWIM: %u + %u), suspicions %u (%u), messages per node and second %.1f\n",
        count, no_connections ? "UDP only" : "with connections", (unsigned)(seeds * duration_ms / 1000),
        (unsigned)lifeguard.false_deaths, (unsigned)lifeguard.at_pausing, (unsigned)swim.false_deaths,
        (unsigned)swim.at_pausing, (unsigned)lifeguard.suspicions, (unsigned)swim.suspicions,
        lifeguard.messages / (double)seeds);
    assert_true(lifeguard.false_deaths * 50 <= swim.false_deaths);
    assert_true(lifeguard.at_pausing * 50 <= swim.at_pausing);
    /* Else this scenario would show nothing. */
    assert_true(count == 3 || swim.false_deaths > 0);
    assert_true(lifeguard.messages / (double)seeds <= 15 + 2 + 10 + 8 + 2);
}

static void test_healthy_nodes_live_through_loss_and_a_pausing_node(void **state)
{
    (void)state;
    check_false_deaths(3, SEEDS_SMALL, 120000, false);
    check_false_deaths(3, SEEDS_SMALL, 120000, true);
    check_false_deaths(50, SEEDS_SMALL / 2, 60000, false);
    check_false_deaths(50, SEEDS_SMALL / 2, 60000, true);
    check_false_deaths(500, 1, LARGE_RUN_MS, false);
}

/* ---- load ----------------------------------------------------------------------------------------------- */

static double messages_per_node_second(uint32_t count, uint64_t loss_percent, uint64_t duration_ms)
{
    struct world world;
    world_init(&world, &(struct world_options){.count = count, .seed = 5, .loss_percent = loss_percent});
    /* The rumours of the start. */
    world_run(&world, 15000);
    world.messages = 0;
    world_run(&world, duration_ms);
    double messages = (double)world.messages / count / ((double)duration_ms / 1e3);
    world_free(&world);
    return messages;
}

static void test_load_of_a_node_does_not_grow_with_the_cluster(void **state)
{
    (void)state;
    static const uint32_t counts[] = {3, 50, 500};
    for (uint32_t i = 0; i < 3; i++) {
        double quiet = messages_per_node_second(counts[i], 0, LARGE_RUN_MS);
        double lossy = messages_per_node_second(counts[i], 5, LARGE_RUN_MS);
        print_message("%u nodes: %.2f messages per node and second when quiet, %.2f at 5 %% loss\n",
                      counts[i], quiet, lossy);
        /* Quiet: a ping and an ack, and a few exchanges. At any time at most, on average: 15 of gossip (3 every 200
         * ms), a ping and its ack, 5 pings to suspects and their acks, 8 for a failed ping and its detours, and a
         * ping to a dead node and its ack. */
        assert_true(quiet >= 1.9 && quiet <= 2.3);
        assert_true(lossy <= 15 + 2 + 10 + 8 + 2);
    }
}

/* ---- coming back ---------------------------------------------------------------------------------------- */

static uint64_t time_until_nobody_is_held_dead_ms(struct world *world, uint64_t limit_ms)
{
    uint64_t start_ms = world->now_ms;
    while (held_dead(world) > 0) {
        assert_true(world->now_ms - start_ms <= limit_ms);
        world_run(world, 20);
    }
    return world->now_ms - start_ms;
}

static void check_partition(uint32_t count, uint64_t loss_percent)
{
    struct world world;
    world_init(&world, &(struct world_options){.count = count, .seed = count, .loss_percent = loss_percent});
    world_run(&world, 5000);
    world.cut = count / 2;
    world_run(&world, 90000);
    uint32_t cut_off = 0;
    for (uint32_t j = world.cut; j < count; j++)
        cut_off += !swim_reachable(&world.nodes[0].swim, id_of(j));
    assert_int_equal(cut_off, count - world.cut);
    world.cut = 0;
    world.false_deaths = 0;
    /* Some single node may miss the news where datagrams are lost: at the latest a full exchange brings it. */
    uint64_t limit_ms = loss_percent == 0 ? 4000 : swim_exchange_interval_ms(&world.nodes[0].swim);
    uint64_t took_ms = time_until_nobody_is_held_dead_ms(&world, limit_ms);
    print_message("%u nodes, halves apart for 90 s, %u %% loss: all alive everywhere %.2f s after healing\n",
                  count, (unsigned)loss_percent, (double)took_ms / 1e3);
    world_free(&world);
}

static void test_halves_that_were_apart_find_each_other(void **state)
{
    (void)state;
    check_partition(4, 0);
    check_partition(50, 0);
    check_partition(50, 20);
}

/* What the shard does when a peer connection comes up. */
static void world_connect(struct world *world, uint32_t at)
{
    for (uint32_t i = 0; i < world->count; i++) {
        if (i == at)
            continue;
        swim_heard(&world->nodes[i].swim, id_of(at), world->now_ms);
        world_drain(world, i);
        swim_heard(&world->nodes[at].swim, id_of(i), world->now_ms);
        world_drain(world, at);
    }
}

static void check_restart(uint64_t seeds, bool connect, uint64_t limit_ms)
{
    uint64_t worst_ms = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct world_options options = {.count = 20, .seed = seed};
        struct world world;
        uint64_t first_ms;
        uint64_t last_ms;
        world_init(&world, &options);
        world_run(&world, 5000);
        world_stop_node(&world, 3);
        world_run(&world, 45000);
        assert_true(known_dead_everywhere(&world, 3, &first_ms, &last_ms));
        /* It has forgotten everything, its incarnation too. */
        world_start_node(&world, 3, &options);
        if (connect)
            world_connect(&world, 3);
        uint64_t took_ms = time_until_nobody_is_held_dead_ms(&world, limit_ms);
        worst_ms = took_ms > worst_ms ? took_ms : worst_ms;
        assert_true(swim_incarnation(&world.nodes[3].swim) >= 2);
        /* And it is not accused again. */
        world.false_deaths = 0;
        world_run(&world, 10000);
        assert_int_equal(world.false_deaths, 0);
        assert_int_equal(held_dead(&world), 0);
        world_free(&world);
    }
    print_message("restarted, %s: alive everywhere after %.2f s at worst\n",
                  connect ? "peer connections made at once" : "gossip alone", (double)worst_ms / 1e3);
}

static void test_restarted_node_is_alive_at_once(void **state)
{
    (void)state;
    check_restart(SEEDS_SMALL, false, 5000);
    /* One round trip. */
    check_restart(SEEDS_SMALL, true, 40);
}

static void test_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    uint64_t messages[2];
    uint64_t rolls[2];
    for (int i = 0; i < 2; i++) {
        struct world world;
        world_init(&world, &(struct world_options){.count = 20, .seed = 9, .loss_percent = 30});
        world.pausing = 2;
        world_run(&world, 20000);
        messages[i] = world.messages;
        rolls[i] = prng_u64(&world.prng);
        world_free(&world);
    }
    assert_int_equal(messages[0], messages[1]);
    assert_int_equal(rolls[0], rolls[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dead_node_is_known_everywhere_in_time),
        cmocka_unit_test(test_healthy_nodes_live_through_loss_and_a_pausing_node),
        cmocka_unit_test(test_load_of_a_node_does_not_grow_with_the_cluster),
        cmocka_unit_test(test_halves_that_were_apart_find_each_other),
        cmocka_unit_test(test_restarted_node_is_alive_at_once),
        cmocka_unit_test(test_same_seed_gives_the_same_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
