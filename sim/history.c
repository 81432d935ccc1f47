/* The history of operations, and the texts of keys and values. */
#include "sim/history.h"

#include <assert.h>

void history_init(struct history *history, struct alloc *alloc)
{
    *history = (struct history){.alloc = alloc, .value_next = 1};
}

void history_free(struct history *history)
{
    alloc_put(history->alloc, history->ops, history->capacity * sizeof *history->ops);
}

uint32_t history_add(struct history *history, const struct history_op *op)
{
    if (history->count == history->capacity) {
        uint32_t capacity = history->capacity == 0 ? 512 : 2 * history->capacity;
        history->ops = alloc_resize(history->alloc, history->ops, history->capacity * sizeof *history->ops,
                                    capacity * sizeof *history->ops);
        assert(history->ops != NULL);
        history->capacity = capacity;
    }
    history->ops[history->count] = *op;
    return history->count++;
}

/* Digits from *at on, at least one. */
static bool read_number(struct span text, size_t *at, uint32_t *number)
{
    size_t start = *at;
    uint64_t value = 0;
    while (*at < text.size && text.data[*at] >= '0' && text.data[*at] <= '9' && *at - start < 9)
        value = 10 * value + (uint64_t)(text.data[(*at)++] - '0');
    *number = (uint32_t)value;
    return *at > start;
}

/* Some keys share a tag, and so a slot and a shard. */
void history_key_name(uint32_t key, struct buf *name)
{
    if (key % 3 == 2)
        buf_append_format(name, "{t%u}:%u", key % 2, key);
    else
        buf_append_format(name, "key:%u", key);
}

uint32_t history_key_of(struct span name)
{
    size_t at = name.size;
    while (at > 0 && name.data[at - 1] != ':')
        at--;
    uint32_t key;
    bool ours = at > 0 && read_number(name, &at, &key) && at == name.size && key < HISTORY_KEYS_MAX;
    return ours ? key : HISTORY_KEY_NONE;
}

void history_value_put(uint32_t value, uint32_t bytes, struct buf *text)
{
    size_t start = text->size;
    buf_append_format(text, "v%u.", value);
    /* The padding depends on the value, so that bytes of two values are never mixed unseen. */
    while (text->size - start < bytes)
        buf_put_u8(text, (uint8_t)('a' + (value + (text->size - start)) % 26));
}

uint32_t history_value_of(struct span text)
{
    size_t at = 1;
    uint32_t value;
    if (text.size < 3 || text.data[0] != 'v' || !read_number(text, &at, &value) || at == text.size ||
        text.data[at] != '.')
        return VALUE_UNREAD;
    for (at++; at < text.size; at++) {
        if (text.data[at] != (uint8_t)('a' + (value + at) % 26))
            return VALUE_UNREAD;
    }
    return value;
}

const char *history_kind_name(enum history_kind kind)
{
    static const char *const names[] = {"?", "GET", "SET", "DEL", "EXPIRE", "PERSIST"};
    return names[kind];
}

const char *history_outcome_name(enum history_outcome outcome)
{
    static const char *const names[] = {"no answer", "done", "not applied", "unknown"};
    return names[outcome];
}
