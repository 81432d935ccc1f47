/* Replica choice: averages, steps and thresholds; the reasons are in replica_choice.h. */
#include "quorum/replica_choice.h"

#include <assert.h>

#define SCALE 16u

/* A sample is at most this: what is slower is not told apart. Its parts of 1/16 us fit 32 bits. */
#define SAMPLE_US_MAX 60000000u

/* An answer awaited for so long is taken for lost; one that comes later says nothing. */
#define LOST_US 2000000u

/* The average forgets: the weight of a sample goes from 1/8 (in a stream of them) to 1 (after a silence). */
#define FADE_US 100000u
#define WEIGHT_LEAST_DIVISOR 8u

/* The usual latency moves by these parts of itself; wider at first, so that it gets there. Down by 1/256 and up by
 * 19/256 balance where about 95 of 100 samples are below. */
#define USUAL_UP_PARTS 19u
#define USUAL_DIVISOR 256u
#define USUAL_WARM_UP_DIVISOR 32u
#define USUAL_WARM_UP_SAMPLES 64u
#define USUAL_LEAST (SCALE * SCALE) /* its smallest step is one part */

/* Below the least, hedges would chase scheduling noise; nobody wants to wait longer than the most; and before
 * anything is known, a healthy replica of the same region has answered by then. */
#define LATE_US_MIN 1000u
#define LATE_US_MAX 1000000u
#define LATE_US_UNKNOWN 40000u

/* How long a slow replica is left alone. With FADE_US, four or five good answers put it back: about 1.2 s. */
#define PROBE_INTERVAL_US 250000u

/* Slow: beyond the best of its rank by this factor and this noise. Self needs more, since it costs no message. */
#define SLOW_FACTOR 2u
#define SLOW_NOISE_US 200u
#define SLOW_SELF_FACTOR 4u
#define SLOW_SELF_NOISE_US 5000u

/* ---- what is known of a replica ------------------------------------------------------------------------- */

static uint64_t elapsed_us(uint64_t since_us, uint64_t now_us)
{
    uint64_t us = now_us > since_us ? now_us - since_us : 0;
    return us < SAMPLE_US_MAX ? us : SAMPLE_US_MAX;
}

static void smooth(struct replica_timing *timing, uint64_t sample_us, uint64_t now_us)
{
    int64_t sample = (int64_t)(sample_us * SCALE);
    int64_t before = timing->smoothed;
    int64_t silence_us = (int64_t)elapsed_us(timing->sampled_us, now_us);
    int64_t weight = silence_us + FADE_US / WEIGHT_LEAST_DIVISOR;
    int64_t whole = silence_us + FADE_US;
    if (!timing->known || weight > whole)
        weight = whole;
    timing->smoothed = (uint32_t)(before + (sample - before) * weight / whole);
    timing->sampled_us = now_us;
    timing->known = true;
}

static void follow_usual(struct replica_timing *timing, uint64_t sample_us, bool may_raise)
{
    uint32_t sample = (uint32_t)(sample_us * SCALE);
    if (timing->usual == 0) {
        if (may_raise)
            timing->usual = sample > USUAL_LEAST ? sample : USUAL_LEAST;
        return;
    }
    bool warm_up = timing->samples < USUAL_WARM_UP_SAMPLES;
    uint32_t part = timing->usual / (warm_up ? USUAL_WARM_UP_DIVISOR : USUAL_DIVISOR);
    if (sample <= timing->usual)
        timing->usual -= part;
    else if (may_raise)
        timing->usual += USUAL_UP_PARTS * part;
    if (timing->usual < USUAL_LEAST)
        timing->usual = USUAL_LEAST;
    if (timing->usual > SAMPLE_US_MAX * SCALE)
        timing->usual = SAMPLE_US_MAX * SCALE;
    timing->samples = (uint8_t)(timing->samples + warm_up);
}

static bool awaits(const struct replica_timing *timing, uint64_t now_us)
{
    return timing->measured != 0 && elapsed_us(timing->asked_us, now_us) < LOST_US;
}

static void measure(struct replica_timing *timing, uint64_t number, uint64_t now_us, bool extra)
{
    assert(number != 0);
    if (awaits(timing, now_us))
        return;
    if (timing->measured != 0)
        smooth(timing, elapsed_us(timing->asked_us, now_us), now_us);
    timing->measured = number;
    timing->asked_us = now_us;
    timing->extra = extra;
}

void replica_asked(struct replica_timing *timing, uint64_t number, uint64_t now_us)
{
    measure(timing, number, now_us, false);
}

void replica_probed(struct replica_timing *timing, uint64_t number, uint64_t now_us)
{
    measure(timing, number, now_us, true);
}

void replica_heard(struct replica_timing *timing, uint64_t number, uint64_t now_us)
{
    if (number == 0 || timing->measured != number)
        return;
    uint64_t sample_us = elapsed_us(timing->asked_us, now_us);
    timing->measured = 0;
    smooth(timing, sample_us, now_us);
    follow_usual(timing, sample_us, !timing->extra);
}

void replica_late(struct replica_timing *timing, uint64_t number)
{
    if (timing->measured == number)
        timing->extra = true;
}

void replica_unsent(struct replica_timing *timing, uint64_t number)
{
    if (timing->measured == number)
        timing->measured = 0;
}

void replica_lost(struct replica_timing *timing)
{
    timing->measured = 0;
    timing->in_flight = 0;
}

uint64_t replica_expected_us(const struct replica_timing *timing, uint64_t now_us)
{
    uint64_t smoothed_us = timing->smoothed / SCALE;
    uint64_t waited_us = timing->measured == 0 ? 0 : elapsed_us(timing->asked_us, now_us);
    return waited_us > smoothed_us ? waited_us : smoothed_us;
}

uint64_t replica_late_after_us(const struct replica_timing *timing)
{
    uint64_t us = timing->usual == 0 ? LATE_US_UNKNOWN : timing->usual / SCALE;
    return us < LATE_US_MIN ? LATE_US_MIN : us > LATE_US_MAX ? LATE_US_MAX : us;
}

bool replica_wants_probe(const struct replica_timing *timing, uint64_t now_us)
{
    return timing->known && !awaits(timing, now_us) &&
           elapsed_us(timing->sampled_us, now_us) >= PROBE_INTERVAL_US;
}

/* ---- order ---------------------------------------------------------------------------------------------- */

/* The best expected latency among the others of the same rank; UINT64_MAX if there are none. */
static uint64_t best_of_rank(const struct replica_candidates *candidates, uint8_t rank)
{
    uint64_t best_us = UINT64_MAX;
    for (uint8_t i = 0; i < candidates->count; i++) {
        const struct replica_candidate *one = &candidates->items[i];
        if (one->rank == rank && !one->self && one->expected_us < best_us)
            best_us = one->expected_us;
    }
    return best_us;
}

static bool is_slow(const struct replica_candidate *one, uint64_t best_us)
{
    if (best_us == UINT64_MAX)
        return false;
    uint64_t factor = one->self ? SLOW_SELF_FACTOR : SLOW_FACTOR;
    uint64_t noise_us = one->self ? SLOW_SELF_NOISE_US : SLOW_NOISE_US;
    return one->expected_us > factor * best_us + noise_us;
}

static bool comes_before(const struct replica_candidate *a, const struct replica_candidate *b)
{
    if (a->rank != b->rank)
        return a->rank < b->rank;
    if (a->slow != b->slow)
        return b->slow;
    if (!a->slow)
        return a->self != b->self ? a->self : a->in_flight < b->in_flight;
    return a->expected_us * (a->in_flight + UINT64_C(1)) < b->expected_us * (b->in_flight + UINT64_C(1));
}

void replica_order(struct replica_candidates *candidates)
{
    assert(candidates->count <= REPLICAS_MAX);
    struct replica_candidate *items = candidates->items;
    for (uint8_t i = 0; i < candidates->count; i++)
        items[i].slow = is_slow(&items[i], best_of_rank(candidates, items[i].rank));
    for (uint8_t i = 1; i < candidates->count; i++) {
        struct replica_candidate placed = items[i];
        uint8_t at = i;
        for (; at > 0 && comes_before(&placed, &items[at - 1]); at--)
            items[at] = items[at - 1];
        items[at] = placed;
    }
}

/* ---- budget --------------------------------------------------------------------------------------------- */

void hedge_budget_init(struct hedge_budget *budget)
{
    budget->credit = HEDGE_BURST * HEDGE_READS_PER_EXTRA;
}

void hedge_budget_earn(struct hedge_budget *budget)
{
    if (budget->credit < HEDGE_BURST * HEDGE_READS_PER_EXTRA)
        budget->credit++;
}

bool hedge_budget_take(struct hedge_budget *budget, bool pressing)
{
    uint32_t kept = pressing ? 0 : HEDGE_BURST / 2 * HEDGE_READS_PER_EXTRA;
    if (budget->credit < kept + HEDGE_READS_PER_EXTRA)
        return false;
    budget->credit -= HEDGE_READS_PER_EXTRA;
    return true;
}
