/* Allocation with a budget.
 *
 * Every allocation in the core goes through a struct alloc that knows how many bytes it may hand out.
 * Running out is an ordinary outcome (NULL, which callers turn into OVERLOADED), never a crash. Sizes are
 * given back by the caller, so no header is stored. A struct alloc belongs to one thread.
 *
 * Small blocks that come and go with every request may be kept for the next one (alloc_cache_start): lists of free
 * blocks by size, which cost a few instructions where the C library costs a hundred. What is kept is not counted as
 * used; it is bounded by ALLOC_CACHE_BYTES_MAX. Builds with AddressSanitizer keep nothing, so that it sees every use
 * after a block was given back. */
#ifndef RONDO_BASE_ALLOC_H
#define RONDO_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

/* Sizes that are kept, in steps of one class. A class holds blocks of its upper bound. */
#define ALLOC_CACHE_STEP 64u
#define ALLOC_CACHE_CLASSES 24u

/* All free blocks together: what a shard has in flight when it is busy, and far less than any budget. */
#define ALLOC_CACHE_BYTES_MAX ((size_t)1 << 20)

struct alloc_cache {
    size_t bytes;                    /* of the blocks kept */
    void *free[ALLOC_CACHE_CLASSES]; /* each block begins with the pointer to the next */
};

struct alloc {
    size_t budget_bytes; /* never exceeded by used_bytes */
    size_t used_bytes;   /* handed out, with ALLOC_OVERHEAD_BYTES for each allocation */
    size_t peak_bytes;
    uint64_t calls;
    uint64_t fail_at_call;     /* tests: the call with this number (from 1) fails; 0 = never */
    struct alloc_cache *cache; /* NULL: every block goes back at once */
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

/* Keeps small blocks from now on, in `cache`, which outlives the last call. Before the first small block is taken:
 * a block goes back as it came. */
void alloc_cache_start(struct alloc *alloc, struct alloc_cache *cache);

/* Gives back what is kept, and keeps nothing more. */
void alloc_cache_stop(struct alloc *alloc);

/* Whether size more bytes would fit. */
int alloc_fits(const struct alloc *alloc, size_t size);

#endif
