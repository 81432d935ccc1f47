/* Replica choice against naive references: the average, the usual latency, the order, the budget; and how a replica
 * that turns slow is found out, left alone, and taken back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "quorum/replica_choice.h"

#define START_US UINT64_C(1000000)
#define SECOND_US UINT64_C(1000000)

/* One read that took so long; the next begins `gap_us` after its answer. */
static uint64_t read_once(struct replica_timing *timing, uint64_t now_us, uint64_t took_us, uint64_t gap_us)
{
    replica_asked(timing, now_us + 1, now_us);
    replica_heard(timing, now_us + 1, now_us + took_us);
    return now_us + took_us + gap_us;
}

/* ---- latency -------------------------------------------------------------------------------------------- */

static void unknown_replica_is_expected_at_once_and_late_after_40_ms(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    assert_int_equal(replica_expected_us(&timing, START_US), 0);
    assert_int_equal(replica_late_after_us(&timing), 40000);
    assert_false(replica_wants_probe(&timing, START_US + SECOND_US));
}

static void only_one_answer_at_a_time_is_measured(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    replica_asked(&timing, 1, START_US);
    replica_asked(&timing, 2, START_US + 100);
    replica_heard(&timing, 2, START_US + 150);
    assert_false(timing.known);
    replica_heard(&timing, 1, START_US + 400);
    assert_int_equal(replica_expected_us(&timing, START_US + 400), 400);
    replica_heard(&timing, 1, START_US + 900); /* a second copy of the answer */
    assert_int_equal(replica_expected_us(&timing, START_US + 900), 400);
}

static void replica_that_stalls_is_slow_before_it_answers(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    uint64_t now_us = read_once(&timing, START_US, 300, 0);
    replica_asked(&timing, 7, now_us);
    assert_int_equal(replica_expected_us(&timing, now_us + 200), 300);
    assert_int_equal(replica_expected_us(&timing, now_us + 5000), 5000);
}

static void average_agrees_with_a_naive_one(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 5);
    for (int run = 0; run < 200; run++) {
        struct replica_timing timing = {0};
        double naive_us = 0;
        double sampled_us = 0;
        uint64_t now_us = START_US;
        for (int i = 0; i < 200; i++) {
            uint64_t took_us = prng_below(&prng, prng_chance(&prng, 1, 10) ? 900000 : 2000);
            double silence_us = (double)(now_us + took_us) - sampled_us;
            double weight = (silence_us + 12500) / (silence_us + 100000);
            naive_us += ((double)took_us - naive_us) * (i == 0 ? 1 : weight);
            sampled_us = (double)(now_us + took_us);
            now_us = read_once(&timing, now_us, took_us, prng_below(&prng, 50000));
            double differs_us = (double)replica_expected_us(&timing, now_us) - naive_us;
            assert_true(differs_us < 2 && differs_us > -2);
        }
    }
}

static void first_sample_after_a_silence_counts_almost_alone(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    uint64_t now_us = START_US;
    for (int i = 0; i < 50; i++)
        now_us = read_once(&timing, now_us, 500000, 100);
    now_us = read_once(&timing, now_us + 10 * SECOND_US, 300, 0);
    assert_in_range(replica_expected_us(&timing, now_us), 300, 6000);
}

static void answer_that_never_comes_counts_as_slow_and_does_not_raise_the_trigger(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    uint64_t now_us = START_US;
    for (int i = 0; i < 200; i++)
        now_us = read_once(&timing, now_us, 2000, 100);
    uint64_t late_us = replica_late_after_us(&timing);
    for (uint64_t number = 1; number < 20; number++) {
        replica_asked(&timing, number, now_us);
        now_us += 3 * SECOND_US;
    }
    replica_asked(&timing, 99, now_us);
    assert_true(replica_expected_us(&timing, now_us) > SECOND_US);
    assert_int_equal(replica_late_after_us(&timing), late_us);
}

static void probe_is_wanted_a_quarter_second_after_the_last_sample_and_one_at_a_time(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    uint64_t now_us = read_once(&timing, START_US, 300, 0);
    assert_false(replica_wants_probe(&timing, now_us + 249999));
    assert_true(replica_wants_probe(&timing, now_us + 250000));
    replica_probed(&timing, 7, now_us + 250000);
    assert_false(replica_wants_probe(&timing, now_us + 900000));
    replica_unsent(&timing, 7);
    assert_true(replica_wants_probe(&timing, now_us + 900000));
}

static void connection_that_broke_leaves_nothing_awaited(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    uint64_t now_us = read_once(&timing, START_US, 300, 0);
    replica_asked(&timing, 7, now_us);
    timing.in_flight = 3;
    replica_lost(&timing);
    assert_int_equal(timing.in_flight, 0);
    assert_int_equal(replica_expected_us(&timing, now_us + SECOND_US), 300);
}

/* ---- the usual latency ---------------------------------------------------------------------------------- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

enum shape {
    SHAPE_EVEN,
    SHAPE_TAILED,
    SHAPE_TWO_HUMPS,
    SHAPES
};

static uint64_t draw_us(struct prng *prng, enum shape shape, uint64_t scale_us)
{
    uint64_t us = scale_us + prng_below(prng, scale_us);
    if (shape == SHAPE_TAILED) {
        while (prng_chance(prng, 1, 2) && us < 100 * scale_us)
            us += scale_us;
    } else if (shape == SHAPE_TWO_HUMPS && prng_chance(prng, 1, 50)) {
        us += 100 * scale_us;
    }
    return us;
}

/* At every step after the start, the true rank of the trigger lies near the 95th percentile, on average over time. */
static void trigger_follows_the_95th_percentile_of_a_naive_sort(void **state)
{
    (void)state;
    enum {
        SAMPLES = 20000,
        SKIPPED = 5000
    };
    static uint64_t samples_us[SAMPLES];
    static uint64_t sorted_us[SAMPLES];
    struct prng prng;
    prng_seed(&prng, 6);
    for (int run = 0; run < 12; run++) {
        enum shape shape = (enum shape)(run % SHAPES);
        uint64_t scale_us = 1000 + prng_below(&prng, 3000);
        struct replica_timing timing = {0};
        uint64_t now_us = START_US;
        uint64_t above = 0;
        uint64_t sum_us = 0;
        for (int i = 0; i < SAMPLES; i++) {
            samples_us[i] = draw_us(&prng, shape, scale_us);
            above += i >= SKIPPED && samples_us[i] > replica_late_after_us(&timing);
            now_us = read_once(&timing, now_us, samples_us[i], 100);
            sum_us += i >= SKIPPED ? replica_late_after_us(&timing) : 0;
        }
        /* Of all answers, about one in twenty was late. */
        assert_in_range(above, (SAMPLES - SKIPPED) * 3 / 100, (SAMPLES - SKIPPED) * 8 / 100);
        memcpy(sorted_us, samples_us, sizeof sorted_us);
        qsort(sorted_us, SAMPLES, sizeof *sorted_us, compare_u64);
        assert_in_range(sum_us / (SAMPLES - SKIPPED), sorted_us[SAMPLES * 90 / 100],
                        sorted_us[SAMPLES * 975 / 1000] * 5 / 4);
    }
}

static void trigger_learns_that_all_became_slower(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    uint64_t now_us = START_US;
    for (int i = 0; i < 1000; i++)
        now_us = read_once(&timing, now_us, 2000, 100);
    for (int i = 0; i < 1000; i++)
        now_us = read_once(&timing, now_us, 200000, 100);
    assert_in_range(replica_late_after_us(&timing), 200000, 220000);
}

static void hedged_answers_do_not_raise_the_trigger(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    uint64_t now_us = START_US;
    for (int i = 0; i < 1000; i++)
        now_us = read_once(&timing, now_us, 2000, 100);
    uint64_t late_us = replica_late_after_us(&timing);
    for (uint64_t number = 1; number < 1000; number++) {
        replica_asked(&timing, number, now_us);
        replica_late(&timing, number);
        now_us += 500000;
        replica_heard(&timing, number, now_us);
    }
    assert_int_equal(replica_late_after_us(&timing), late_us);
    assert_in_range(replica_expected_us(&timing, now_us), 490000, 500000); /* but they tell how slow it is */
}

static void trigger_has_bounds(void **state)
{
    (void)state;
    struct replica_timing timing = {0};
    uint64_t now_us = START_US;
    for (int i = 0; i < 5000; i++)
        now_us = read_once(&timing, now_us, 0, 1);
    assert_int_equal(replica_late_after_us(&timing), 1000);
    for (int i = 0; i < 5000; i++)
        now_us = read_once(&timing, now_us, 1900000, 1);
    assert_int_equal(replica_late_after_us(&timing), 1000000);
}

/* ---- order ---------------------------------------------------------------------------------------------- */

static struct replica_candidate candidate(uint16_t node, uint64_t expected_us, uint32_t in_flight)
{
    return (struct replica_candidate){.node = node, .expected_us = expected_us, .in_flight = in_flight};
}

static void assert_order(struct replica_candidates *candidates, const char *nodes)
{
    replica_order(candidates);
    assert_int_equal(strlen(nodes), candidates->count);
    for (uint8_t i = 0; i < candidates->count; i++)
        assert_int_equal(candidates->items[i].node, nodes[i] - '0');
}

static void self_comes_first_although_others_answer_sooner(void **state)
{
    (void)state;
    struct replica_candidates three = {
        .items = {candidate(1, 300, 0), candidate(2, 200, 0), candidate(3, 4000, 9)}, .count = 3};
    three.items[2].self = true;
    assert_order(&three, "312");
}

static void self_whose_disk_is_slow_comes_last(void **state)
{
    (void)state;
    struct replica_candidates three = {
        .items = {candidate(3, 7000, 0), candidate(1, 300, 5), candidate(2, 300, 2)}, .count = 3};
    three.items[0].self = true;
    assert_order(&three, "213");
    assert_true(three.items[2].slow);
}

static void slow_replica_comes_last_however_much_is_in_flight_elsewhere(void **state)
{
    (void)state;
    struct replica_candidates two = {.items = {candidate(1, 500000, 0), candidate(2, 300, 5000)}, .count = 2};
    assert_order(&two, "21");
    assert_true(two.items[1].slow);
}

static void about_equal_replicas_share_by_what_is_in_flight_and_then_by_turn(void **state)
{
    (void)state;
    struct replica_candidates three = {
        .items = {candidate(1, 300, 2), candidate(2, 420, 1), candidate(3, 250, 2)}, .count = 3};
    assert_order(&three, "213");
}

static void rank_comes_before_everything(void **state)
{
    (void)state;
    struct replica_candidates three = {
        .items = {candidate(1, 0, 0), candidate(2, 500000, 9), candidate(3, 600000, 0)}, .count = 3};
    three.items[0].rank = 1;
    assert_order(&three, "321");
}

/* The place of each is the number of those that come before it, by the rule as the header says it. */
static bool naive_before(const struct replica_candidates *all, uint8_t a, uint8_t b)
{
    const struct replica_candidate *x = &all->items[a];
    const struct replica_candidate *y = &all->items[b];
    bool slow[REPLICAS_MAX] = {false};
    for (uint8_t i = 0; i < all->count; i++) {
        const struct replica_candidate *one = &all->items[i];
        for (uint8_t k = 0; k < all->count; k++) {
            const struct replica_candidate *other = &all->items[k];
            if (other->rank == one->rank && !other->self)
                slow[i] |= one->self ? one->expected_us > 4 * other->expected_us + 5000
                                     : one->expected_us > 2 * other->expected_us + 200;
        }
    }
    if (x->rank != y->rank)
        return x->rank < y->rank;
    if (slow[a] != slow[b])
        return slow[b];
    if (slow[a]) {
        uint64_t cost_x = x->expected_us * (x->in_flight + 1);
        uint64_t cost_y = y->expected_us * (y->in_flight + 1);
        return cost_x != cost_y ? cost_x < cost_y : a < b;
    }
    if (x->self || y->self)
        return x->self;
    return x->in_flight != y->in_flight ? x->in_flight < y->in_flight : a < b;
}

static void order_agrees_with_counting_who_comes_before(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 7);
    for (int run = 0; run < 100000; run++) {
        struct replica_candidates drawn = {.count = (uint8_t)(1 + prng_below(&prng, REPLICAS_MAX))};
        uint8_t self = (uint8_t)prng_below(&prng, REPLICAS_MAX + 2);
        uint64_t scale_us = prng_chance(&prng, 1, 2) ? 1500 : 30000;
        for (uint8_t i = 0; i < drawn.count; i++) {
            drawn.items[i] = candidate(i, prng_below(&prng, scale_us), (uint32_t)prng_below(&prng, 4));
            drawn.items[i].self = i == self;
            drawn.items[i].rank = (uint8_t)prng_below(&prng, prng_chance(&prng, 1, 2) ? 1 : 3);
        }
        struct replica_candidates ordered = drawn;
        replica_order(&ordered);
        for (uint8_t i = 0; i < drawn.count; i++) {
            uint8_t place = 0;
            for (uint8_t k = 0; k < drawn.count; k++)
                place = (uint8_t)(place + (k != i && naive_before(&drawn, k, i)));
            assert_int_equal(ordered.items[place].node, i);
        }
    }
}

/* ---- budget --------------------------------------------------------------------------------------------- */

static void extra_reads_stay_within_two_percent_and_a_burst(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 8);
    struct hedge_budget budget;
    hedge_budget_init(&budget);
    uint64_t reads = 0;
    uint64_t extra = 0;
    for (int i = 0; i < 200000; i++) {
        if (prng_chance(&prng, 1, 2)) {
            hedge_budget_earn(&budget);
            reads++;
        } else {
            extra += hedge_budget_take(&budget, prng_chance(&prng, 1, 2));
        }
        assert_true(extra * 50 <= reads + HEDGE_BURST * 50);
    }
    assert_true(extra * 50 >= reads - 50);
}

static void last_half_of_the_burst_is_kept_for_the_pressing(void **state)
{
    (void)state;
    struct hedge_budget budget;
    hedge_budget_init(&budget);
    uint32_t taken = 0;
    while (hedge_budget_take(&budget, false))
        taken++;
    assert_int_equal(taken, HEDGE_BURST / 2);
    while (hedge_budget_take(&budget, true))
        taken++;
    assert_int_equal(taken, HEDGE_BURST);
}

static void credit_saved_up_is_bounded(void **state)
{
    (void)state;
    struct hedge_budget budget;
    hedge_budget_init(&budget);
    for (int i = 0; i < 1000000; i++)
        hedge_budget_earn(&budget);
    uint32_t taken = 0;
    while (hedge_budget_take(&budget, true))
        taken++;
    assert_int_equal(taken, HEDGE_BURST);
}

/* ---- all together --------------------------------------------------------------------------------------- */

/* Two replicas and one reader, a read per 200 us; the second takes half a second for a while. Returns how many reads
 * were given to it. */
static uint32_t read_for(struct replica_timing timing[2], uint64_t *now_us, uint64_t until_us,
                         uint64_t second_us, struct hedge_budget *budget, uint64_t due_us[2],
                         uint32_t *probes)
{
    static uint64_t number = 1;
    uint32_t given = 0;
    for (; *now_us < until_us; *now_us += 200, number++) {
        for (int i = 0; i < 2; i++) {
            if (timing[i].measured != 0 && due_us[i] <= *now_us)
                replica_heard(&timing[i], timing[i].measured, due_us[i]);
        }
        struct replica_candidates two = {.count = 2};
        for (uint16_t i = 0; i < 2; i++)
            two.items[i] = candidate((uint16_t)((i + number) % 2),
                                     replica_expected_us(&timing[(i + number) % 2], *now_us), 0);
        hedge_budget_earn(budget);
        replica_order(&two);
        uint16_t best = two.items[0].node;
        given += best == 1;
        if (timing[best].measured == 0)
            due_us[best] = *now_us + (best == 0 ? 300 : second_us);
        replica_asked(&timing[best], number, *now_us);
        uint16_t other = (uint16_t)(1 - best);
        if (two.items[1].slow && replica_wants_probe(&timing[other], *now_us) &&
            hedge_budget_take(budget, false)) {
            ++*probes;
            replica_probed(&timing[other], number, *now_us);
            due_us[other] = *now_us + (other == 0 ? 300 : second_us);
        }
    }
    return given;
}

static void slow_replica_is_left_alone_but_for_probes_and_taken_back_when_it_is_well(void **state)
{
    (void)state;
    struct replica_timing timing[2] = {{0}};
    struct hedge_budget budget;
    uint64_t due_us[2] = {0};
    uint64_t now_us = START_US;
    uint32_t probes = 0;
    hedge_budget_init(&budget);
    uint32_t given = read_for(timing, &now_us, now_us + SECOND_US, 300, &budget, due_us, &probes);
    assert_in_range(given, 2000, 3000);
    uint64_t late_us = replica_late_after_us(&timing[1]);
    given = read_for(timing, &now_us, now_us + 60 * SECOND_US, 500000, &budget, due_us, &probes);
    assert_in_range(given, 1, 5); /* of 300,000: until the first was late */
    assert_in_range(probes, 60, 130);
    assert_in_range(replica_late_after_us(&timing[1]), 1000, 2 * late_us);
    given = read_for(timing, &now_us, now_us + 3 * SECOND_US, 300, &budget, due_us, &probes);
    assert_in_range(given, 2000, 7500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_replica_is_expected_at_once_and_late_after_40_ms),
        cmocka_unit_test(only_one_answer_at_a_time_is_measured),
        cmocka_unit_test(replica_that_stalls_is_slow_before_it_answers),
        cmocka_unit_test(average_agrees_with_a_naive_one),
        cmocka_unit_test(first_sample_after_a_silence_counts_almost_alone),
        cmocka_unit_test(answer_that_never_comes_counts_as_slow_and_does_not_raise_the_trigger),
        cmocka_unit_test(probe_is_wanted_a_quarter_second_after_the_last_sample_and_one_at_a_time),
        cmocka_unit_test(connection_that_broke_leaves_nothing_awaited),
        cmocka_unit_test(trigger_follows_the_95th_percentile_of_a_naive_sort),
        cmocka_unit_test(trigger_learns_that_all_became_slower),
        cmocka_unit_test(hedged_answers_do_not_raise_the_trigger),
        cmocka_unit_test(trigger_has_bounds),
        cmocka_unit_test(self_comes_first_although_others_answer_sooner),
        cmocka_unit_test(self_whose_disk_is_slow_comes_last),
        cmocka_unit_test(slow_replica_comes_last_however_much_is_in_flight_elsewhere),
        cmocka_unit_test(about_equal_replicas_share_by_what_is_in_flight_and_then_by_turn),
        cmocka_unit_test(rank_comes_before_everything),
        cmocka_unit_test(order_agrees_with_counting_who_comes_before),
        cmocka_unit_test(extra_reads_stay_within_two_percent_and_a_burst),
        cmocka_unit_test(last_half_of_the_burst_is_kept_for_the_pressing),
        cmocka_unit_test(credit_saved_up_is_bounded),
        cmocka_unit_test(slow_replica_is_left_alone_but_for_probes_and_taken_back_when_it_is_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
