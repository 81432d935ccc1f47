/* A bounded counter that stretches durations. */
#include "gossip/awareness.h"

void awareness_init(struct awareness *awareness, uint8_t health_max)
{
    *awareness = (struct awareness){.health_max = health_max};
}

void awareness_add(struct awareness *awareness, int delta)
{
    int health = awareness->health + delta;
    if (health < 0)
        health = 0;
    if (health > awareness->health_max)
        health = awareness->health_max;
    awareness->health = (uint8_t)health;
}

uint64_t awareness_scale_ms(const struct awareness *awareness, uint64_t duration_ms)
{
    return duration_ms * (awareness->health + 1u);
}
