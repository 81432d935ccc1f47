/* Keys that this node holds: those of a slot (CLUSTER GETKEYSINSLOT), or any one (RANDOMKEY).
 *
 * Both are pages of rows.c that keep only the keys of live values. For RANDOMKEY every shard is asked; one picks a
 * slot, each with a chance by the number of its keys, begins somewhere in it, and goes on to the slots behind while it
 * finds only what is dead. Of the shards' answers one is taken, with chances by the numbers of their keys. */
#include <assert.h>

#include "shard/state.h"

/* ---- the slot's shard ----------------------------------------------------------------------------------- */

bool keys_row(struct shard *shard, struct rows_page *page, struct span key, struct span row)
{
    struct record record;
    enum status status = record_parse(row, &record);
    assert(status == STATUS_OK); /* a scan feeds what was checked when it came in */
    if (!record_live(&record, shard->now.wall_ms))
        return true;
    page->count++;
    buf_put_short(&page->rows, key);
    buf_put_long(&page->rows, (struct span){0});
    return !page->rows.failed && page->count < page->keys_max;
}

/* The slot's keys, if they may be shown. */
static uint64_t keys_of(const struct shard *shard, uint16_t slot, bool *refused)
{
    const struct slot_state *state = slot_state_of(shard, slot);
    uint64_t keys = state == NULL ? 0 : slot_keys(shard, state);
    if (keys == 0 || storage_slot_serves(shard, slot))
        return keys;
    *refused = true;
    return 0;
}

void keys_any_asked(struct shard *shard, const struct rows_page *wanted)
{
    uint16_t chosen = SLOTS_COUNT;
    uint64_t total = 0;
    bool refused = false;
    for (uint16_t slot = 0; slot < SLOTS_COUNT; slot++) {
        uint64_t keys = keys_of(shard, slot, &refused);
        total += keys;
        if (keys > 0 && prng_below(&shard->prng, total) < keys)
            chosen = slot;
    }
    if (chosen == SLOTS_COUNT) {
        rows_answer_short(shard, wanted, refused ? STATUS_QUARANTINED : STATUS_OK, 0);
        return;
    }
    struct rows_page *page = rows_page_new(shard, wanted, chosen);
    if (page == NULL) {
        rows_answer_short(shard, wanted, STATUS_OVERLOADED, 0);
        return;
    }
    page->keys = total;
    page->slots_left = SLOTS_COUNT - 1;
    page->tag_first = (uint16_t)prng_below(&shard->prng, UINT16_MAX + UINT64_C(1));
    enum status status = rows_scan(shard, page, (struct span){0});
    if (status == STATUS_OK)
        return;
    rows_page_free(page);
    rows_answer_short(shard, wanted, status, 0);
}

enum status keys_go_on(struct shard *shard, struct rows_page *page)
{
    bool refused = false;
    bool more = page->tag_first > 0;
    page->tag_first = 0;
    while (!more && page->slots_left > 0) {
        page->slots_left--;
        page->slot = page->slot + 1u < SLOTS_COUNT ? (uint16_t)(page->slot + 1) : 0;
        more = keys_of(shard, page->slot, &refused) > 0;
    }
    if (!more)
        return STATUS_OK;
    enum status status = rows_scan(shard, page, (struct span){0});
    return status == STATUS_OK ? STATUS_WAIT : status;
}

/* ---- the client's shard --------------------------------------------------------------------------------- */

void keys_slot_ask(struct shard *shard, struct pending *pending, const struct command *command)
{
    struct rows_page wanted = {.keys_max = command->keys_max};
    if (command->keys_max == 0)
        resp_reply_array(&pending->reply, 0);
    else
        rows_ask(shard, pending, slot_shard(command->slot, shard->options.shards), command->slot, &wanted,
                 (struct span){0});
}

void keys_random_ask(struct shard *shard, struct pending *pending)
{
    struct rows_page wanted = {.keys_max = 1};
    pending->parts = alloc_get_zeroed(&shard->alloc, sizeof *pending->parts);
    if (pending->parts == NULL) {
        pending_overloaded(pending);
        return;
    }
    pending->parts_total = 1;
    for (uint16_t i = 0; i < shard->options.shards; i++)
        rows_ask(shard, pending, i, SLOTS_COUNT, &wanted, (struct span){0});
}

/* Takes the key instead of the one that was taken before, with the chance of its shard. */
static void take_random(struct shard *shard, struct pending *pending, uint64_t keys, struct span key)
{
    struct part *part = &pending->parts[0];
    uint64_t total = (uint64_t)pending->count + keys;
    pending->count = (int64_t)total;
    if (part->found && prng_below(&shard->prng, total) >= keys)
        return;
    uint8_t *taken = key.size == 0 ? NULL : alloc_get(&shard->alloc, key.size);
    if (taken == NULL && key.size > 0) {
        pending_overloaded(pending);
        return;
    }
    if (key.size > 0)
        memcpy(taken, key.data, key.size);
    alloc_put(&shard->alloc, part->value, part->size);
    *part = (struct part){.found = true, .value = taken, .size = key.size};
}

static uint64_t count_keys(struct reader rows)
{
    uint64_t count = 0;
    while (reader_left(&rows) > 0) {
        (void)reader_short(&rows);
        (void)reader_long(&rows);
        count++;
    }
    assert(!rows.failed); /* a sibling wrote it */
    return count;
}

void keys_answered(struct shard *shard, struct pending *pending, uint64_t keys, struct reader *rows)
{
    uint64_t count = count_keys(*rows);
    if (pending->command == COMMAND_CLUSTER)
        resp_reply_array(&pending->reply, count);
    for (uint64_t i = 0; i < count; i++) {
        struct span key = reader_short(rows);
        (void)reader_long(rows);
        if (pending->command == COMMAND_CLUSTER)
            resp_reply_bulk(&pending->reply, key);
        else
            take_random(shard, pending, keys, key);
    }
}
