/* Answers on their way out: in the order of the commands, gathered for each client and given out at a turn's end. */
#include <assert.h>

#include "shard/key_order.h"

/* Buffers that grew past this are given back when they have been sent. */
#define CLIENT_BUFFER_KEEP_BYTES (16u << 10)

void client_touched(struct shard *shard, struct client *client)
{
    if (client->in_dirty || client->gone)
        return;
    client->in_dirty = true;
    list_remove(&client->dirty);
    list_push_back(&shard->dirty_clients, &client->dirty);
}

/* Appends an answer to the output. False: what is there already must leave first; it goes on with the next turn. An
 * answer that was lost would shift all that follow: then the connection ends with the answers before it. */
static bool take_answer(struct shard *shard, struct client *client, struct pending *head)
{
    if (head->silent)
        buf_clear(&head->reply);
    bool complete = !head->reply.failed && buf_reserve(&client->out, head->reply.size);
    if (complete) {
        buf_append_span(&client->out, buf_span(&head->reply));
    } else if (!head->reply.failed && client->out.size > 0) {
        client->out.failed = false;
        client->held_back = true;
        shard->answers_held = true;
        client_touched(shard, client);
        return false;
    } else if (!head->reply.failed) {
        struct buf empty = client->out;
        empty.failed = false;
        client->out = head->reply;
        head->reply = empty;
        complete = true;
    }
    client->closing = !complete || head->close;
    return true;
}

/* Moves finished answers at the head of the list to the output. */
static void move_answers(struct shard *shard, struct client *client)
{
    while (!list_empty(&client->pending)) {
        struct pending *head = LIST_ENTRY(list_first(&client->pending), struct pending, in_order);
        if (!head->done)
            return;
        if (!client->closing && !take_answer(shard, client, head))
            return;
        client->pending_count--;
        pending_free(shard, head);
        client_touched(shard, client);
    }
}

void pending_finish(struct shard *shard, struct pending *pending)
{
    pending->done = true;
    if (pending->reply.failed)
        reply_out_of_memory(pending);
    watch_answered(shard, pending);
    if (pending->client == NULL) {
        pending_free(shard, pending);
        return;
    }
    key_order_finished(shard, pending);
    move_answers(shard, pending->client);
}

void pending_part_over(struct shard *shard, struct pending *pending)
{
    assert(pending->parts_left > 0);
    pending->parts_left--;
    if (pending->parts_left > 0)
        return;
    reply_parts_over(shard, pending);
    pending_finish(shard, pending);
}

static struct pending *pending_of_ticket(struct shard *shard, uint64_t ticket)
{
    return map_get(&shard->pendings, ticket >> TICKET_PART_BITS);
}

void client_part_done(struct shard *shard, uint64_t ticket, const struct result *result)
{
    struct pending *pending = pending_of_ticket(shard, ticket);
    /* A pending outlives its client until its last part. */
    assert(pending != NULL);
    reply_part(shard, pending, (uint32_t)(ticket & ((1u << TICKET_PART_BITS) - 1)), result);
    pending_part_over(shard, pending);
}

void client_stats_part(struct shard *shard, uint64_t ticket, const struct stats_sum *stats)
{
    struct pending *pending = pending_of_ticket(shard, ticket);
    assert(pending != NULL && pending->stats != NULL);
    metrics_add(pending->stats, stats);
    pending_part_over(shard, pending);
}

/* Whether a paused client may go on: it has room again, or nothing of it is left that could make some. */
static bool may_resume(const struct shard *shard, const struct client *client)
{
    if (!client->paused || client->closing)
        return false;
    return client->pending_count == 0 ||
           (client->pending_count < CLIENT_COMMANDS_MAX / 2 && !memory_busy(shard));
}

void clients_turn_end(struct shard *shard)
{
    while (!list_empty(&shard->dirty_clients)) {
        struct client *client = LIST_ENTRY(list_pop_front(&shard->dirty_clients), struct client, dirty);
        struct effect *effect = effects_add(shard->effects, EFFECT_CLIENT_SEND);
        effect->client = client->id;
        effect->bytes = buf_span(&client->out);
        effect->flag = client->closing;
        shard->watch.figures.bytes_out += client->out.size;
        effect->idle = client->pending_count == 0;
        list_push_back(&shard->sent_clients, &client->dirty);
        if (!may_resume(shard, client))
            continue;
        client->paused = false;
        effects_add(shard->effects, EFFECT_CLIENT_RESUME)->client = client->id;
    }
}

void clients_turn_begin(struct shard *shard)
{
    shard->answers_held = false;
    while (!list_empty(&shard->sent_clients)) {
        struct client *client = LIST_ENTRY(list_pop_front(&shard->sent_clients), struct client, dirty);
        client->in_dirty = false;
        if (client->out.capacity > CLIENT_BUFFER_KEEP_BYTES || memory_busy(shard))
            buf_free(&client->out);
        else
            buf_clear(&client->out);
        if (client->held_back) {
            client->held_back = false;
            move_answers(shard, client);
        }
    }
}
