/* Local health: how much this node should doubt itself before it doubts others (Dadgar, Phillips, Currey,
 * "Lifeguard: Local Health Awareness for More Accurate Failure Detection", 2017, section IV-A).
 *
 * 0 is healthy. A successful probe takes one off; what hints that this node is the slow one adds to it: a failed probe
 * whose helpers did not even say "no answer", an accusation that had to be refuted, a pause. */
#ifndef RONDO_GOSSIP_AWARENESS_H
#define RONDO_GOSSIP_AWARENESS_H

#include <stdint.h>

struct awareness {
    uint8_t health;     /* 0 .. health_max */
    uint8_t health_max; /* 0: always healthy, as in plain SWIM */
};

void awareness_init(struct awareness *awareness, uint8_t health_max);

/* Adds, within the bounds. */
void awareness_add(struct awareness *awareness, int delta);

/* duration * (health + 1). */
uint64_t awareness_scale_ms(const struct awareness *awareness, uint64_t duration_ms);

#endif
