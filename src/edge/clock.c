/* The clocks. */
#include "edge/clock.h"

#include <assert.h>
#include <time.h>

struct now clock_read(void)
{
    struct timespec wall;
    struct timespec mono;
    int failed = clock_gettime(CLOCK_REALTIME, &wall);
    failed |= clock_gettime(CLOCK_MONOTONIC, &mono);
    assert(failed == 0);
    return (struct now){
        .wall_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000,
        .mono_us = (uint64_t)mono.tv_sec * 1000000 + (uint64_t)mono.tv_nsec / 1000,
    };
}
