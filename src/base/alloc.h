/* Allocation with a budget.
 *
 * Every allocation in the core goes through a struct alloc that knows how many bytes it may hand out.
 * Running out is an ordinary outcome (NULL, which callers turn into OVERLOADED), never a crash. Sizes are
 * given back by the caller, so no header is stored. A struct alloc belongs to one thread. */
#ifndef RONDO_BASE_ALLOC_H
#define RONDO_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

struct alloc {
    size_t budget_bytes; /* never exceeded by used_bytes */
    size_t used_bytes;   /* handed out, with ALLOC_OVERHEAD_BYTES for each allocation */
    size_t peak_bytes;
    uint64_t calls;
    uint64_t fail_at_call; /* tests: the call with this number (from 1) fails; 0 = never */
};

/* What the C library keeps beside each block; counted so that the budget speaks of real memory. */
#define ALLOC_OVERHEAD_BYTES 8

void alloc_init(struct alloc *alloc, size_t budget_bytes);

/* Uninitialised memory for size bytes (> 0), aligned for any type, or NULL past the budget.
 * The caller frees it with alloc_put and the same size. */
void *alloc_get(struct alloc *alloc, size_t size);

/* As alloc_get, zeroed. */
void *alloc_get_zeroed(struct alloc *alloc, size_t size);

/* Grows or shrinks a block. NULL past the budget: the old block then stays valid. block may be NULL with
 * size_old 0. */
void *alloc_resize(struct alloc *alloc, void *block, size_t size_old, size_t size_new);

/* Gives a block back; NULL is ignored. */
void alloc_put(struct alloc *alloc, void *block, size_t size);

/* Whether size more bytes would fit. */
int alloc_fits(const struct alloc *alloc, size_t size);

#endif
