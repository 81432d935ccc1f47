/* A suspicion: the time that a node has to refute before it is declared dead (Lifeguard, section IV-B).
 *
 * One accuser may be the slow one itself, so the first accusation gives the accused a long time; each further
 * independent accuser shortens it, down to the minimum at the k-th confirmation:
 *
 *     min     = factor * max(1, log10 n) * probe interval
 *     max     = max factor * min
 *     timeout = max - (max - min) * ln(c + 1) / ln(k + 1)     after c confirmations, at least min
 *
 * Logarithms are computed in fixed point, so that every machine rounds alike (invariant 10). */
#ifndef RONDO_GOSSIP_SUSPICION_H
#define RONDO_GOSSIP_SUSPICION_H

#include <stdbool.h>
#include <stdint.h>

/* Most confirmations that can be asked for; with each an accuser is kept, to count it once. */
#define SUSPICION_CONFIRMATIONS_MAX 7

struct suspicion_options {
    uint64_t now_ms;
    uint64_t min_ms;
    uint64_t max_ms;
    uint64_t accuser;
    uint8_t confirmations; /* k; 0: the timeout is min at once */
};

struct suspicion {
    uint64_t started_ms;
    uint64_t min_ms;
    uint64_t max_ms;
    uint8_t confirmations;
    uint8_t accuser_count; /* from 1 */
    uint64_t accusers[SUSPICION_CONFIRMATIONS_MAX + 1];
};

/* min for a cluster of nodes (>= 1). */
uint64_t suspicion_min_ms(uint32_t factor, uint32_t nodes, uint64_t probe_interval_ms);

void suspicion_start(struct suspicion *suspicion, const struct suspicion_options *options);

/* Another accusation. True if it counts: its accuser is new and a confirmation was still wanted. */
bool suspicion_confirm(struct suspicion *suspicion, uint64_t accuser);

/* The accused did not refute by then: it is dead. */
uint64_t suspicion_deadline_ms(const struct suspicion *suspicion);

/* This node slept: the accused gets the time that its refutation could not be heard in. */
void suspicion_extend(struct suspicion *suspicion, uint64_t duration_ms);

#endif
