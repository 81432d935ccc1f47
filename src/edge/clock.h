/* The clocks: read once per loop iteration, handed to the core as data. */
#ifndef RONDO_EDGE_CLOCK_H
#define RONDO_EDGE_CLOCK_H

#include "shard/shard.h"

/* CLOCK_REALTIME in milliseconds and CLOCK_MONOTONIC in microseconds. */
struct now clock_read(void);

#endif
