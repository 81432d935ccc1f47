/* Binary heap with positions, so that disarming is O(log n) without a search. */
#include "base/timer.h"

#include <assert.h>

void timer_heap_init(struct timer_heap *heap, struct alloc *alloc)
{
    *heap = (struct timer_heap){.alloc = alloc};
}

void timer_heap_free(struct timer_heap *heap)
{
    alloc_put(heap->alloc, heap->timers, heap->capacity * sizeof *heap->timers);
    timer_heap_init(heap, heap->alloc);
}

static bool fires_before(const struct timer *a, const struct timer *b)
{
    if (a->deadline_us != b->deadline_us)
        return a->deadline_us < b->deadline_us;
    return a->sequence < b->sequence;
}

static void place(struct timer_heap *heap, struct timer *timer, uint32_t position)
{
    heap->timers[position - 1] = timer;
    timer->position = position;
}

static void sift_up(struct timer_heap *heap, struct timer *timer, uint32_t position)
{
    while (position > 1) {
        struct timer *parent = heap->timers[position / 2 - 1];
        if (!fires_before(timer, parent))
            break;
        place(heap, parent, position);
        position /= 2;
    }
    place(heap, timer, position);
}

static void sift_down(struct timer_heap *heap, struct timer *timer, uint32_t position)
{
    for (;;) {
        uint32_t child = position * 2;
        if (child > heap->count)
            break;
        if (child < heap->count && fires_before(heap->timers[child], heap->timers[child - 1]))
            child++;
        if (!fires_before(heap->timers[child - 1], timer))
            break;
        place(heap, heap->timers[child - 1], position);
        position = child;
    }
    place(heap, timer, position);
}

void timer_disarm(struct timer_heap *heap, struct timer *timer)
{
    if (timer->position == 0)
        return;
    uint32_t hole = timer->position;
    assert(hole <= heap->count && heap->timers[hole - 1] == timer);
    struct timer *last = heap->timers[heap->count - 1];
    heap->count--;
    timer->position = 0;
    if (last == timer)
        return;
    if (hole > 1 && fires_before(last, heap->timers[hole / 2 - 1]))
        sift_up(heap, last, hole);
    else
        sift_down(heap, last, hole);
}

enum status timer_arm(struct timer_heap *heap, struct timer *timer, uint64_t deadline_us)
{
    timer_disarm(heap, timer);
    if (heap->count == heap->capacity) {
        uint32_t capacity = heap->capacity == 0 ? 64 : heap->capacity * 2;
        struct timer **timers = alloc_resize(heap->alloc, heap->timers, heap->capacity * sizeof *timers,
                                             capacity * sizeof *timers);
        if (timers == NULL)
            return STATUS_OVERLOADED;
        heap->timers = timers;
        heap->capacity = capacity;
    }
    timer->deadline_us = deadline_us;
    timer->sequence = heap->sequence_next++;
    heap->count++;
    sift_up(heap, timer, heap->count);
    return STATUS_OK;
}

uint64_t timer_heap_next_us(const struct timer_heap *heap)
{
    return heap->count == 0 ? UINT64_MAX : heap->timers[0]->deadline_us;
}

struct timer *timer_heap_pop_due(struct timer_heap *heap, uint64_t now_us)
{
    if (heap->count == 0 || heap->timers[0]->deadline_us > now_us)
        return NULL;
    struct timer *timer = heap->timers[0];
    timer_disarm(heap, timer);
    return timer;
}
