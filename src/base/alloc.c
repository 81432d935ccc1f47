/* Budgeted allocation over the C library's allocator: the only file of the core that calls it. */
#include "base/alloc.h"

#include <assert.h>
#include <stdbool.h>
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

/* ---- blocks --------------------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#define KEEPS_BLOCKS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS_BLOCKS 0
#endif
#endif
#ifndef KEEPS_BLOCKS
#define KEEPS_BLOCKS 1
#endif

static int cached_size(const struct alloc *alloc, size_t size)
{
    return alloc->cache != NULL && size <= (size_t)ALLOC_CACHE_STEP * ALLOC_CACHE_CLASSES;
}

static size_t class_of(size_t size)
{
    return (size - 1) / ALLOC_CACHE_STEP;
}

/* Of what the C library is asked for. */
static size_t block_size(const struct alloc *alloc, size_t size)
{
    return cached_size(alloc, size) ? (class_of(size) + 1) * ALLOC_CACHE_STEP : size;
}

static void *block_get(struct alloc *alloc, size_t size)
{
    if (!cached_size(alloc, size))
        return malloc(size);
    void **kept = &alloc->cache->free[class_of(size)];
    void *block = *kept;
    if (block == NULL)
        return malloc(block_size(alloc, size));
    memcpy(kept, block, sizeof *kept);
    alloc->cache->bytes -= block_size(alloc, size);
    return block;
}

static void block_put(struct alloc *alloc, void *block, size_t size)
{
    size_t bytes = block_size(alloc, size);
    if (!cached_size(alloc, size) || alloc->cache->bytes + bytes > ALLOC_CACHE_BYTES_MAX) {
        free(block);
        return;
    }
    void **kept = &alloc->cache->free[class_of(size)];
    memcpy(block, kept, sizeof *kept);
    *kept = block;
    alloc->cache->bytes += bytes;
}

void alloc_cache_start(struct alloc *alloc, struct alloc_cache *cache)
{
    assert(alloc->cache == NULL);
    *cache = (struct alloc_cache){0};
    if (KEEPS_BLOCKS)
        alloc->cache = cache;
}

void alloc_cache_stop(struct alloc *alloc)
{
    for (size_t i = 0; alloc->cache != NULL && i < ALLOC_CACHE_CLASSES; i++) {
        for (void *block = alloc->cache->free[i]; block != NULL;) {
            void *next;
            memcpy(&next, block, sizeof next);
            free(block);
            block = next;
        }
    }
    alloc->cache = NULL;
}

void *alloc_get(struct alloc *alloc, size_t size)
{
    assert(size > 0);
    if (call_fails(alloc) || !alloc_fits(alloc, size))
        return NULL;
    void *block = block_get(alloc, size);
    if (block != NULL)
        count_used(alloc, size);
    return block;
}

void *alloc_get_zeroed(struct alloc *alloc, size_t size)
{
    assert(size > 0);
    if (cached_size(alloc, size)) {
        void *small = alloc_get(alloc, size);
        return small == NULL ? NULL : memset(small, 0, size);
    }
    if (call_fails(alloc) || !alloc_fits(alloc, size))
        return NULL;
    /* calloc leaves large untouched tables out of the resident set. */
    void *block = calloc(1, size);
    if (block != NULL)
        count_used(alloc, size);
    return block;
}

/* Another block, where one of the two sizes is that of a kept one. */
static void *move(struct alloc *alloc, void *block, size_t size_old, size_t size_new)
{
    if (block_size(alloc, size_old) == block_size(alloc, size_new))
        return block;
    void *moved = block_get(alloc, size_new);
    if (moved == NULL)
        return NULL;
    memcpy(moved, block, size_old < size_new ? size_old : size_new);
    block_put(alloc, block, size_old);
    return moved;
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
    bool kept = cached_size(alloc, size_old) || cached_size(alloc, size_new);
    void *moved = kept ? move(alloc, block, size_old, size_new) : realloc(block, size_new);
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
    block_put(alloc, block, size);
}
