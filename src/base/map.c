/* Open addressing at no more than half full: a miss looks at 1.5 entries on average. */
#include "base/map.h"

#include <assert.h>

#include "base/hash.h"

#define MAP_CAPACITY_FIRST 16u

void map_init(struct map *map, struct alloc *alloc)
{
    *map = (struct map){.alloc = alloc};
}

void map_free(struct map *map)
{
    alloc_put(map->alloc, map->entries, map->capacity * sizeof *map->entries);
    map_init(map, map->alloc);
}

static uint32_t home_of(const struct map *map, uint64_t key)
{
    return (uint32_t)hash_mix_u64(key) & (map->capacity - 1);
}

/* The entry of the key, or the free one where it would go. */
static uint32_t probe(const struct map *map, uint64_t key)
{
    uint32_t at = home_of(map, key);
    while (map->entries[at].key != 0 && map->entries[at].key != key)
        at = (at + 1) & (map->capacity - 1);
    return at;
}

void *map_get(const struct map *map, uint64_t key)
{
    assert(key != 0);
    return map->count == 0 ? NULL : map->entries[probe(map, key)].value;
}

static enum status grow(struct map *map)
{
    uint32_t capacity = map->capacity == 0 ? MAP_CAPACITY_FIRST : map->capacity * 2;
    struct map grown = {.alloc = map->alloc, .capacity = capacity, .count = map->count};
    grown.entries = alloc_get_zeroed(map->alloc, capacity * sizeof *grown.entries);
    if (grown.entries == NULL)
        return STATUS_OVERLOADED;
    for (uint32_t i = 0; i < map->capacity; i++) {
        if (map->entries[i].key != 0)
            grown.entries[probe(&grown, map->entries[i].key)] = map->entries[i];
    }
    alloc_put(map->alloc, map->entries, map->capacity * sizeof *map->entries);
    *map = grown;
    return STATUS_OK;
}

enum status map_put(struct map *map, uint64_t key, void *value)
{
    assert(key != 0 && value != NULL);
    if (map->count + 1 > map->capacity / 2) {
        enum status status = grow(map);
        if (status != STATUS_OK)
            return status;
    }
    uint32_t at = probe(map, key);
    assert(map->entries[at].key == 0);
    map->entries[at] = (struct map_entry){.key = key, .value = value};
    map->count++;
    return STATUS_OK;
}

void *map_take(struct map *map, uint64_t key)
{
    assert(key != 0);
    if (map->count == 0)
        return NULL;
    uint32_t hole = probe(map, key);
    void *value = map->entries[hole].value;
    if (map->entries[hole].key == 0)
        return NULL;
    uint32_t mask = map->capacity - 1;
    for (uint32_t at = (hole + 1) & mask; map->entries[at].key != 0; at = (at + 1) & mask) {
        uint32_t home = home_of(map, map->entries[at].key);
        /* An entry may move into the hole unless its home lies between the hole and itself. */
        if (((at - home) & mask) < ((at - hole) & mask))
            continue;
        map->entries[hole] = map->entries[at];
        hole = at;
    }
    map->entries[hole] = (struct map_entry){0};
    map->count--;
    return value;
}

void *map_next(const struct map *map, uint32_t *at)
{
    while (*at < map->capacity) {
        void *value = map->entries[(*at)++].value;
        if (value != NULL)
            return value;
    }
    return NULL;
}
