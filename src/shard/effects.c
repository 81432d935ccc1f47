/* The list of effects. */
#include <assert.h>

#include "shard/state.h"

void effects_init(struct effects *effects, struct alloc *alloc)
{
    *effects = (struct effects){.alloc = alloc};
}

void effects_clear(struct effects *effects)
{
    effects->count = 0;
}

void effects_free(struct effects *effects)
{
    alloc_put(effects->alloc, effects->items, effects->capacity * sizeof *effects->items);
    effects_init(effects, effects->alloc);
}

struct effect *effects_add(struct effects *effects, enum effect_kind kind)
{
    if (effects->count == effects->capacity) {
        uint32_t capacity = effects->capacity == 0 ? 64 : effects->capacity * 2;
        struct effect *items = alloc_resize(effects->alloc, effects->items, effects->capacity * sizeof *items,
                                            capacity * sizeof *items);
        /* Losing an effect would lose an acknowledgement or a log batch: the world gives this list an alloc
         * without a budget. */
        assert(items != NULL);
        effects->items = items;
        effects->capacity = capacity;
    }
    struct effect *effect = &effects->items[effects->count++];
    *effect = (struct effect){.kind = kind};
    return effect;
}

void say(struct shard *shard, enum say_level level, const char *format, ...)
{
    /* Each text of a step has a buffer of its own, so that none moves. */
    if (shard->said_count == SAID_MAX)
        return;
    struct buf *text = &shard->said[shard->said_count];
    va_list arguments;
    va_start(arguments, format);
    buf_clear(text);
    buf_append_arguments(text, format, arguments);
    va_end(arguments);
    if (text->failed)
        return;
    shard->said_count++;
    struct effect *effect = effects_add(shard->effects, EFFECT_SAY);
    effect->level = level;
    effect->bytes = buf_span(text);
}
