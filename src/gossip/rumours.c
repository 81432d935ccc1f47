/* Lists of entries by the number of times they were told; newest first within each. */
#include "gossip/rumours.h"

#include <assert.h>

#define NONE UINT16_MAX

uint8_t rumours_transmits_max(uint32_t factor, uint32_t nodes)
{
    uint32_t digits = 0; /* ceil(log10(nodes + 1)) */
    for (uint64_t power = 1; power < (uint64_t)nodes + 1; power *= 10)
        digits++;
    uint64_t transmits = (uint64_t)factor * digits;
    if (transmits < 1)
        return 1;
    return transmits > RUMOUR_TRANSMITS_MAX ? RUMOUR_TRANSMITS_MAX : (uint8_t)transmits;
}

enum status rumours_init(struct rumours *rumours, struct alloc *alloc, uint16_t capacity,
                         uint8_t transmits_max)
{
    assert(capacity >= 1 && capacity <= NODES_MAX);
    assert(transmits_max >= 1 && transmits_max <= RUMOUR_TRANSMITS_MAX);
    *rumours = (struct rumours){.alloc = alloc, .capacity = capacity, .transmits_max = transmits_max};
    for (uint8_t i = 0; i < RUMOUR_TRANSMITS_MAX; i++)
        rumours->lists[i] = (struct rumour_list){NONE, NONE};
    rumours->entries = alloc_get_zeroed(alloc, capacity * sizeof *rumours->entries);
    return rumours->entries == NULL ? STATUS_OVERLOADED : STATUS_OK;
}

void rumours_free(struct rumours *rumours)
{
    alloc_put(rumours->alloc, rumours->entries, rumours->capacity * sizeof *rumours->entries);
    rumours->entries = NULL;
}

static void unlink_entry(struct rumours *rumours, uint16_t index)
{
    struct rumour_entry *entry = &rumours->entries[index];
    struct rumour_list *list = &rumours->lists[entry->transmits];
    if (entry->prev == NONE)
        list->first = entry->next;
    else
        rumours->entries[entry->prev].next = entry->next;
    if (entry->next == NONE)
        list->last = entry->prev;
    else
        rumours->entries[entry->next].prev = entry->prev;
}

static void link_first(struct rumours *rumours, uint16_t index)
{
    struct rumour_entry *entry = &rumours->entries[index];
    struct rumour_list *list = &rumours->lists[entry->transmits];
    entry->prev = NONE;
    entry->next = list->first;
    if (list->first == NONE)
        list->last = index;
    else
        rumours->entries[list->first].prev = index;
    list->first = index;
}

static void link_last(struct rumours *rumours, uint16_t index)
{
    struct rumour_entry *entry = &rumours->entries[index];
    struct rumour_list *list = &rumours->lists[entry->transmits];
    entry->next = NONE;
    entry->prev = list->last;
    if (list->last == NONE)
        list->first = index;
    else
        rumours->entries[list->last].next = index;
    list->last = index;
}

void rumours_put(struct rumours *rumours, uint16_t index, const struct rumour *rumour)
{
    assert(index < rumours->capacity);
    struct rumour_entry *entry = &rumours->entries[index];
    if (entry->queued)
        unlink_entry(rumours, index);
    else
        rumours->count++;
    entry->rumour = *rumour;
    entry->queued = true;
    entry->transmits = 0;
    link_first(rumours, index);
}

static void told_once_more(struct rumours *rumours, uint16_t index)
{
    struct rumour_entry *entry = &rumours->entries[index];
    unlink_entry(rumours, index);
    entry->transmits++;
    if (entry->transmits < rumours->transmits_max) {
        link_last(rumours, index);
        return;
    }
    entry->queued = false;
    rumours->count--;
}

uint16_t rumours_take(struct rumours *rumours, struct rumour *taken, uint16_t max)
{
    uint16_t indices[NODES_MAX];
    uint16_t count = 0;
    /* All are chosen before any moves to the next list, or one would be taken twice. */
    for (uint8_t level = 0; level < rumours->transmits_max && count < max && count < rumours->count;
         level++) {
        for (uint16_t at = rumours->lists[level].first; at != NONE && count < max;
             at = rumours->entries[at].next)
            indices[count++] = at;
    }
    for (uint16_t i = 0; i < count; i++) {
        taken[i] = rumours->entries[indices[i]].rumour;
        told_once_more(rumours, indices[i]);
    }
    return count;
}
