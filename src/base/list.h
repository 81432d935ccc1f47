/* Intrusive doubly linked lists. A list is a link whose neighbours are its first and last element; an
 * element embeds a struct list_link. Nothing is allocated. */
#ifndef RONDO_BASE_LIST_H
#define RONDO_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_link {
    struct list_link *next;
    struct list_link *prev;
};

static inline void list_init(struct list_link *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool list_empty(const struct list_link *list)
{
    return list->next == list;
}

static inline void list_push_back(struct list_link *list, struct list_link *link)
{
    link->next = list;
    link->prev = list->prev;
    list->prev->next = link;
    list->prev = link;
}

/* The link may be removed again without harm. */
static inline void list_remove(struct list_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

static inline struct list_link *list_first(struct list_link *list)
{
    return list_empty(list) ? NULL : list->next;
}

static inline struct list_link *list_pop_front(struct list_link *list)
{
    struct list_link *link = list_first(list);
    if (link != NULL)
        list_remove(link);
    return link;
}

#define LIST_ENTRY(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

#endif
