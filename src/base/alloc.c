/* Budgeted allocation over the C library's allocator: the only file of the core that calls it. */
#include "base/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void alloc_init(struct alloc *alloc, size_t budget_bytes)
{
    *alloc = (struct alloc){.budget_bytes = budget_bytes};
}

int alloc_fits(const struct alloc *alloc, size_t size)
{
    size_t room = alloc->budget_bytes - alloc->used_bytes;
    return size <= SIZE_MAX - ALLOC_OVERHEAD_BYTES && size + ALLOC_OVERHEAD_BYTES <= room;
}

static void count_used(struct alloc *alloc, size_t size)
{
    alloc->used_bytes += size + ALLOC_OVERHEAD_BYTES;
    if (alloc->used_bytes > alloc->peak_bytes)
        alloc->peak_bytes = alloc->used_bytes;
}

static int call_fails(struct alloc *alloc)
{
    alloc->calls++;
    return alloc->fail_at_call != 0 && alloc->calls == alloc->fail_at_call;
}

void *alloc_get(struct alloc *alloc, size_t size)
{
    assert(size > 0);
    if (call_fails(alloc) || !alloc_fits(alloc, size))
        return NULL;
    void *block = malloc(size);
    if (block != NULL)
        count_used(alloc, size);
    return block;
}

void *alloc_get_zeroed(struct alloc *alloc, size_t size)
{
    assert(size > 0);
    if (call_fails(alloc) || !alloc_fits(alloc, size))
        return NULL;
    /* calloc leaves large untouched tables out of the resident set. */
    void *block = calloc(1, size);
    if (block != NULL)
        count_used(alloc, size);
    return block;
}

void *alloc_resize(struct alloc *alloc, void *block, size_t size_old, size_t size_new)
{
    assert(size_new > 0);
    if (block == NULL) {
        assert(size_old == 0);
        return alloc_get(alloc, size_new);
    }
    if (call_fails(alloc))
        return NULL;
    if (size_new > size_old && size_new - size_old > alloc->budget_bytes - alloc->used_bytes)
        return NULL;
    void *moved = realloc(block, size_new);
    if (moved == NULL)
        return NULL;
    alloc->used_bytes -= size_old + ALLOC_OVERHEAD_BYTES;
    count_used(alloc, size_new);
    return moved;
}

void alloc_put(struct alloc *alloc, void *block, size_t size)
{
    if (block == NULL)
        return;
    assert(alloc->used_bytes >= size + ALLOC_OVERHEAD_BYTES);
    alloc->used_bytes -= size + ALLOC_OVERHEAD_BYTES;
    free(block);
}
