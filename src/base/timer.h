/* A heap of timers, ordered by deadline, ties broken by the order in which they were armed (as libuv does), so
 * that the same events always fire them in the same order. Timers are embedded in what they time. */
#ifndef RONDO_BASE_TIMER_H
#define RONDO_BASE_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/status.h"

struct timer {
    uint64_t deadline_us; /* monotonic */
    uint64_t sequence;
    uint32_t position; /* in the heap, from 1; 0 = not armed */
    uint32_t kind;     /* the owner's: what to do when it fires */
};

struct timer_heap {
    struct alloc *alloc;
    struct timer **timers;
    uint32_t count;
    uint32_t capacity;
    uint64_t sequence_next;
};

void timer_heap_init(struct timer_heap *heap, struct alloc *alloc);
void timer_heap_free(struct timer_heap *heap);

/* Arms (or re-arms) a timer. OVERLOADED when the heap cannot grow; the timer is then not armed. */
MUST_CHECK enum status timer_arm(struct timer_heap *heap, struct timer *timer, uint64_t deadline_us);

/* Harmless on a timer that is not armed. */
void timer_disarm(struct timer_heap *heap, struct timer *timer);

static inline bool timer_armed(const struct timer *timer)
{
    return timer->position != 0;
}

/* The earliest deadline, or UINT64_MAX when none is armed. */
uint64_t timer_heap_next_us(const struct timer_heap *heap);

/* Takes the earliest timer that is due at now_us out of the heap, or NULL. */
struct timer *timer_heap_pop_due(struct timer_heap *heap, uint64_t now_us);

#endif
