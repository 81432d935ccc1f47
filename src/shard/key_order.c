/* The order of a connection's commands on a key (key_order.h). */
#include "shard/key_order.h"

#include <assert.h>

/* A command that waits; its words, then their bytes, follow it in its block. */
struct waiting_command {
    size_t size;
    uint64_t behind; /* the pending command that it was last found to wait for */
    uint32_t argc;
    struct span argv[];
};

/* What a command of this connection changes for those behind it, although it has no key. */
static bool changes_defaults(const struct command *command)
{
    return (command->id == COMMAND_RONDO_CONSISTENCY && command->given != 0) || command->id == COMMAND_RESET;
}

static void note_slots(struct pending *pending, const struct command *command)
{
    pending->parts_total = command->keys_count;
    for (uint32_t i = 0; i < command->keys_count; i++)
        key_order_slot(pending, key_slot(command_key(command, i)));
    if (changes_defaults(command))
        pending->slot_mask = UINT64_MAX;
}

/* Whether the two may have a slot in common. */
static bool meet(const struct pending *a, const struct pending *b)
{
    bool single = a->parts_total == 1 && b->parts_total == 1;
    return single ? a->slot == b->slot : (a->slot_mask & b->slot_mask) != 0;
}

/* Whether `later` must not begin before `earlier` is done (or, if that waits itself, has begun). */
static bool must_follow(const struct pending *later, const struct pending *earlier)
{
    if (earlier->done || earlier->slot_mask == 0 || !meet(earlier, later))
        return false;
    return earlier->waiting != NULL || earlier->access == KEY_ACCESS_READS_FIRST ||
           later->access == KEY_ACCESS_READS_FIRST ||
           (earlier->access == KEY_ACCESS_READS && later->access == KEY_ACCESS_WRITES);
}

/* The id of the last command before this one that it must follow; 0 = none. */
static uint64_t find_earlier(const struct pending *pending)
{
    for (struct list_link *at = pending->in_order.prev; at != &pending->client->pending; at = at->prev) {
        const struct pending *earlier = LIST_ENTRY(at, struct pending, in_order);
        if (must_follow(pending, earlier))
            return earlier->id;
    }
    return 0;
}

static struct waiting_command *words_copy(struct shard *shard, struct words words)
{
    size_t size = sizeof(struct waiting_command) + words.argc * sizeof(struct span);
    size_t at = size;
    for (uint32_t i = 0; i < words.argc; i++)
        size += words.argv[i].size;
    struct waiting_command *waiting = alloc_get(&shard->alloc, size);
    if (waiting == NULL)
        return NULL;
    waiting->size = size;
    waiting->argc = words.argc;
    for (uint32_t i = 0; i < words.argc; i++) {
        struct span word = words.argv[i];
        uint8_t *bytes = (uint8_t *)waiting + at;
        if (word.size > 0)
            memcpy(bytes, word.data, word.size);
        waiting->argv[i] = span_of(bytes, word.size);
        at += word.size;
    }
    assert(at == size);
    return waiting;
}

bool key_order_waits(struct shard *shard, struct pending *pending, const struct command *command,
                     struct words words)
{
    struct client *client = pending->client;
    note_slots(pending, command);
    client->ordered += pending->access == KEY_ACCESS_READS_FIRST;
    uint64_t behind = find_earlier(pending);
    if (behind == 0)
        return false;
    pending->command = command->id;
    pending->waiting = words_copy(shard, words);
    if (pending->waiting == NULL) {
        shard->counters.overloads++;
        pending_overloaded(pending);
        pending_part_over(shard, pending);
        return true;
    }
    pending->waiting->behind = behind;
    client->ordered++;
    client->waiting_count++;
    return true;
}

void key_order_free(struct shard *shard, struct pending *pending)
{
    if (pending->waiting != NULL)
        alloc_put(&shard->alloc, pending->waiting, pending->waiting->size);
    pending->waiting = NULL;
}

void key_order_finished_slowly(struct shard *shard, struct pending *pending)
{
    struct client *client = pending->client;
    client->ordered -= pending->access == KEY_ACCESS_READS_FIRST;
    if (client->waiting_count == 0)
        return;
    list_remove(&client->woken);
    list_push_back(&shard->clients_woken, &client->woken);
}

/* ---- turns ---------------------------------------------------------------------------------------------- */

static bool still_behind(struct shard *shard, struct pending *pending)
{
    const struct pending *earlier = map_get(&shard->pendings, pending->waiting->behind);
    if (earlier != NULL && must_follow(pending, earlier))
        return true;
    pending->waiting->behind = find_earlier(pending);
    return pending->waiting->behind != 0;
}

static void begin(struct shard *shard, struct pending *pending)
{
    struct waiting_command *waiting = pending->waiting;
    struct client *client = pending->client;
    pending->waiting = NULL;
    client->ordered--;
    client->waiting_count--;
    client_run(shard, client, pending, (struct words){.argc = waiting->argc, .argv = waiting->argv});
    alloc_put(&shard->alloc, waiting, waiting->size);
}

/* Looks at all that wait, in order: each that begins may let later ones begin. */
static void go_on(struct shard *shard, struct client *client)
{
    struct list_link *at = client->pending.next;
    while (at != &client->pending && client->waiting_count > 0) {
        struct pending *pending = LIST_ENTRY(at, struct pending, in_order);
        struct list_link *next = at->next;
        uint64_t next_id = next == &client->pending ? 0 : LIST_ENTRY(next, struct pending, in_order)->id;
        if (pending->waiting != NULL && !still_behind(shard, pending))
            begin(shard, pending);
        /* Commands leave the list from its start on: if the next one has, the first one left follows it. */
        bool gone = next_id != 0 && map_get(&shard->pendings, next_id) == NULL;
        at = gone ? client->pending.next : next;
    }
}

void key_order_turn_end(struct shard *shard)
{
    while (!list_empty(&shard->clients_woken))
        go_on(shard, LIST_ENTRY(list_pop_front(&shard->clients_woken), struct client, woken));
    clients_left(shard);
}
