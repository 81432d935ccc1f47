/* Sync marks: slots to be compared with a node, where hints were not kept (repair/hints.h).
 *
 * Only a replica can compare, and only with a replica: for the others there is no mark. The round over all slots comes
 * by within its interval in any case. */
#include "shard/state.h"

static struct hints *books_of(struct shard *shard)
{
    return &shard->repairing.handoff.books;
}

static bool comparable(const struct shard *shard, uint64_t target, uint16_t slot)
{
    uint16_t node = ring_node_index(shard->ring, target);
    return slot_state_of(shard, slot) != NULL && node != RING_NODE_NONE && node != shard->self &&
           ring_replicates(shard->ring, slot, node);
}

/* Durable, as the hint would have been; or its end. */
static void store(struct shard *shard, uint64_t target, uint16_t slot, bool on)
{
    static const uint8_t marked = 1;
    struct hint_key mark = {.target = target, .slot = slot, .sync = true};
    struct buf key;
    buf_init(&key, &shard->alloc);
    hint_key_put(&key, &mark);
    struct stored stored = {.slot = slot, .reserved = true, .in_cold = true, .key = buf_span(&key)};
    if (on)
        stored.record = span_of(&marked, sizeof marked);
    /* Without room a mark is in the books only, and one that could not be erased costs one exchange after the next
     * start. */
    enum status status = key.failed ? STATUS_OVERLOADED : storage_store(shard, &stored);
    (void)status;
    buf_free(&key);
}

static void forget(struct shard *shard, uint64_t target, uint16_t slot)
{
    (void)hints_sync_begin(books_of(shard), target, slot);
    (void)hints_sync_end(books_of(shard), target, slot, true);
}

void marks_set(struct shard *shard, uint64_t target, uint16_t slot)
{
    if (!comparable(shard, target, slot))
        return;
    uint32_t before = hints_target(books_of(shard), target).syncs;
    if (hints_mark(books_of(shard), target, slot) != STATUS_OK)
        return;
    if (hints_target(books_of(shard), target).syncs > before)
        store(shard, target, slot, true);
}

void marks_converted(struct shard *shard, uint64_t target, uint16_t slot, uint32_t before)
{
    if (!comparable(shard, target, slot))
        forget(shard, target, slot);
    else if (hints_target(books_of(shard), target).syncs > before)
        store(shard, target, slot, true);
}

enum status marks_found(struct shard *shard, struct span key, struct span record)
{
    struct hint_key hint;
    if (hint_key_read(key, &hint) != STATUS_OK || !hint.sync)
        return STATUS_CORRUPT;
    if (record.size > 0)
        return hints_mark(books_of(shard), hint.target, hint.slot);
    forget(shard, hint.target, hint.slot);
    return STATUS_OK;
}

void marks_sweep(struct shard *shard)
{
    for (uint64_t target = hints_target_next(books_of(shard), 0); target != 0;
         target = hints_target_next(books_of(shard), target)) {
        for (uint16_t slot = hints_sync_next(books_of(shard), target, 0); slot < SLOTS_COUNT;
             slot = hints_sync_next(books_of(shard), target, (uint16_t)(slot + 1))) {
            if (comparable(shard, target, slot))
                continue;
            forget(shard, target, slot);
            store(shard, target, slot, false);
        }
    }
}

void marks_compared(struct shard *shard, uint64_t target, uint16_t slot, bool verified)
{
    if (hints_sync_end(books_of(shard), target, slot, verified))
        store(shard, target, slot, false);
}

uint32_t marks_count(const struct shard *shard)
{
    const struct hints *books = &shard->repairing.handoff.books;
    uint32_t syncs = 0;
    for (uint64_t target = hints_target_next(books, 0); target != 0;
         target = hints_target_next(books, target))
        syncs += hints_target(books, target).syncs;
    return syncs;
}
