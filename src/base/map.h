/* A hash map from 64-bit numbers to pointers: open addressing, linear probing, backward-shift deletion (so no
 * tombstones pile up). Keys are any number but 0. The map does not own what it points to. */
#ifndef RONDO_BASE_MAP_H
#define RONDO_BASE_MAP_H

#include "base/alloc.h"
#include "base/status.h"

struct map_entry {
    uint64_t key; /* 0 = free */
    void *value;
};

struct map {
    struct alloc *alloc;
    struct map_entry *entries;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t count;
};

void map_init(struct map *map, struct alloc *alloc);
void map_free(struct map *map);

/* NULL when absent. */
void *map_get(const struct map *map, uint64_t key);

/* Sets a key that is absent to a value that is not NULL. OVERLOADED when the map cannot grow. */
MUST_CHECK enum status map_put(struct map *map, uint64_t key, void *value);

/* Takes the key out and answers its value, or NULL. */
void *map_take(struct map *map, uint64_t key);

/* Some entry's value from position *at on (start with 0), or NULL at the end. The map must not change in
 * between. */
void *map_next(const struct map *map, uint32_t *at);

#endif
