/* Which replicas to ask first, when to ask one more, and how often that may be done.
 *
 * Pure: the caller keeps time. Of each replica one answer at a time is measured, the one to the next request after
 * the last measurement ended, so that measuring costs a comparison per message and no memory per request. Known of a
 * replica are
 *  - its smoothed latency: an average in which the past fades with time, so that the first sample after a silence
 *    counts almost alone. While an answer is awaited, the wait so far counts if it is longer: a replica that stalls
 *    is known to be slow before it has answered;
 *  - its usual latency, about the 95th percentile: the time after which an answer is late. It is followed by steps
 *    (up by 19 parts where a sample is above, down by one where it is below), so that one enormous sample moves it
 *    no more than any other; what was slow enough to be hedged, and what never came, does not raise it at all.
 *
 * A slow replica is ranked last and then hardly ever asked. It is neither forgotten nor forgiven after a time (a
 * periodic reset sends real requests back to the slow node): an extra small read, a probe, is sent to it now and then,
 * for which nobody waits. Probes and hedges come from one budget. */
#ifndef RONDO_QUORUM_REPLICA_CHOICE_H
#define RONDO_QUORUM_REPLICA_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"

/* ---- what is known of a replica ------------------------------------------------------------------------- */

/* All zero: nothing is known. */
struct replica_timing {
    uint64_t measured; /* number of the request whose answer is measured; 0 = none */
    uint64_t asked_us; /* when that was sent */
    uint64_t sampled_us;
    uint32_t smoothed; /* in 1/16 us */
    uint32_t usual;    /* in 1/16 us; 0 = nothing is known */
    uint32_t in_flight;
    uint8_t samples; /* up to the end of the warm-up */
    bool known;      /* has been sampled */
    bool extra;      /* what is measured is late or a probe: it may not raise `usual` */
};

/* A request left for the replica. number: not 0, and never used twice. */
void replica_asked(struct replica_timing *timing, uint64_t number, uint64_t now_us);

/* As replica_asked, for a probe. */
void replica_probed(struct replica_timing *timing, uint64_t number, uint64_t now_us);

/* An answer came, perhaps long after its request ended. */
void replica_heard(struct replica_timing *timing, uint64_t number, uint64_t now_us);

/* The request was hedged because this replica had not answered it. */
void replica_late(struct replica_timing *timing, uint64_t number);

/* What was noted as asked could not be sent. */
void replica_unsent(struct replica_timing *timing, uint64_t number);

/* Nothing that is awaited will come: the connection broke. */
void replica_lost(struct replica_timing *timing);

/* 0 while nothing is known. */
uint64_t replica_expected_us(const struct replica_timing *timing, uint64_t now_us);

/* After how long an answer is late. */
uint64_t replica_late_after_us(const struct replica_timing *timing);

/* It has not been measured for so long that it should be. */
bool replica_wants_probe(const struct replica_timing *timing, uint64_t now_us);

/* ---- order ---------------------------------------------------------------------------------------------- */

struct replica_candidate {
    uint16_t node;
    uint8_t rank; /* lower ones are asked first, whatever their latency */
    bool self;    /* costs no message */
    bool slow;    /* set by replica_order: much slower than the best of its rank */
    uint32_t in_flight;
    uint64_t expected_us;
};

struct replica_candidates {
    struct replica_candidate items[REPLICAS_MAX];
    uint8_t count;
};

/* Sorts by rank; then those about as fast as the best before slow ones; then self before others; then the fast by how
 * much is in flight, the slow by expected latency x (in flight + 1). Latencies that differ little count as equal: else
 * all would go to one replica. What is in flight never outweighs slowness: else a burst would flow over to the slow
 * replica. Equal ones keep their order. */
void replica_order(struct replica_candidates *candidates);

/* ---- budget --------------------------------------------------------------------------------------------- */

/* Extra reads in requests: one for HEDGE_READS_PER_EXTRA reads (2 %), of which HEDGE_BURST may be saved up. */
#define HEDGE_READS_PER_EXTRA 50u
#define HEDGE_BURST 10u

struct hedge_budget {
    uint32_t credit; /* in parts of an extra read */
};

void hedge_budget_init(struct hedge_budget *budget);
void hedge_budget_earn(struct hedge_budget *budget);

/* Takes one extra read, if there is one. The last half of the burst is kept for those that are pressing. */
bool hedge_budget_take(struct hedge_budget *budget, bool pressing);

#endif
