/* Replies: cutting them off the stream, and what they say about the operations they answer. */
#include <assert.h>
#include <inttypes.h>

#include "sim/world.h"

/* ---- RESP ----------------------------------------------------------------------------------------------- */

/* A line from `at` on, without its end; false if it is not all here. *at moves past it. */
static bool take_line(struct span bytes, size_t *at, struct span *line)
{
    for (size_t i = *at; i + 1 < bytes.size; i++) {
        if (bytes.data[i] != '\r' || bytes.data[i + 1] != '\n')
            continue;
        *line = span_of(bytes.data + *at, i - *at);
        *at = i + 2;
        return true;
    }
    return false;
}

/* One element that is no array: its type, its text (of a bulk string: the string; data NULL for null). */
struct element {
    char type;
    struct span text;
};

static bool take_element(struct span bytes, size_t *at, struct element *element)
{
    struct span line;
    if (!take_line(bytes, at, &line) || line.size == 0)
        return false;
    element->type = (char)line.data[0];
    element->text = span_of(line.data + 1, line.size - 1);
    if (element->type != '$')
        return true;
    int64_t size;
    if (span_parse_i64(element->text, &size) != STATUS_OK || size < 0) {
        element->text = (struct span){0};
        return true;
    }
    if (bytes.size - *at < (size_t)size + 2)
        return false;
    element->text = span_of(bytes.data + *at, (size_t)size);
    *at += (size_t)size + 2;
    return true;
}

#define ELEMENTS_MAX 4

struct reply {
    struct element elements[ELEMENTS_MAX]; /* of an array, or the only one */
    uint32_t count;
    bool array;
    size_t size;
};

static bool take_resp(struct span bytes, struct reply *reply)
{
    size_t at = 0;
    *reply = (struct reply){.count = 1};
    if (!take_element(bytes, &at, &reply->elements[0]))
        return false;
    if (reply->elements[0].type == '*') {
        int64_t count;
        reply->array = true;
        if (span_parse_i64(reply->elements[0].text, &count) != STATUS_OK || count < 0 || count > ELEMENTS_MAX)
            return false;
        reply->count = (uint32_t)count;
        for (uint32_t i = 0; i < reply->count; i++) {
            if (!take_element(bytes, &at, &reply->elements[i]))
                return false;
        }
    }
    reply->size = at;
    return true;
}

/* ---- HTTP ----------------------------------------------------------------------------------------------- */

static bool contains(struct span text, const char *words)
{
    struct span wanted = span_of_text(words);
    for (size_t i = 0; i + wanted.size <= text.size; i++) {
        if (memcmp(text.data + i, wanted.data, wanted.size) == 0)
            return true;
    }
    return false;
}

static size_t content_length(struct span line)
{
    static const char name[] = "content-length: ";
    size_t size = sizeof name - 1;
    uint64_t number = 0;
    bool is_it = line.size > size && span_is_nocase(span_of(line.data, size), name);
    return is_it && span_parse_u64(span_of(line.data + size, line.size - size), &number) == STATUS_OK ? number
                                                                                                      : 0;
}

/* As if it had come as RESP: an element '$' for a value, '+' for done, '-' for an error. */
static bool take_http(struct span bytes, struct reply *reply)
{
    size_t at = 0;
    struct span line;
    if (!take_line(bytes, &at, &line) || line.size < 12)
        return false;
    uint64_t code = 0;
    bool parsed = span_parse_u64(span_of(line.data + 9, 3), &code) == STATUS_OK;
    size_t length = 0;
    do {
        if (!take_line(bytes, &at, &line))
            return false;
        length += content_length(line);
    } while (line.size > 0);
    if (bytes.size - at < length)
        return false;
    struct span body = span_of(bytes.data + at, length);
    *reply = (struct reply){.count = 1, .size = at + length};
    struct element *element = &reply->elements[0];
    if (parsed && code == 200)
        *element = (struct element){.type = '$', .text = body};
    else if (parsed && code == 404 && contains(body, "NOT_FOUND"))
        *element = (struct element){.type = '$'};
    else
        *element = (struct element){.type = '-',
                                    .text = contains(body, "\"UNKNOWN\"") ? span_of_text("UNKNOWN") : body};
    return true;
}

/* ---- meaning -------------------------------------------------------------------------------------------- */

static bool starts_with(struct span text, const char *start)
{
    struct span wanted = span_of_text(start);
    return text.size >= wanted.size && memcmp(text.data, wanted.data, wanted.size) == 0;
}

/* "Not applied" rests on a frame arriving once: a second copy, which TCP never makes, may be taken where the first was
 * refused. In worlds whose network doubles frames it is not a promise, so there the outcome counts as unknown. */
static bool refusal_is_final(const struct world *world)
{
    return world->swarm.duplicate == 0;
}

static void judge_error(struct world *world, const struct sim_client *client, struct history_op *op,
                        struct span text, bool alone)
{
    bool write = op->kind != HISTORY_GET;
    bool unknown = write && (starts_with(text, "UNKNOWN") || !alone || !refusal_is_final(world));
    op->outcome = unknown ? HISTORY_UNKNOWN : HISTORY_NOT_APPLIED;
    if (op->outcome == HISTORY_UNKNOWN)
        world->totals.unknown++;
    else
        world->totals.refused++;
    if (client->checked)
        world_fail(world, op->key, "liveness: after the healing n%u answers %.*s", client->node + 1u,
                   (int)(text.size < 120 ? text.size : 120), (const char *)text.data);
}

static void judge_read(struct world *world, struct history_op *op, const struct element *element)
{
    op->outcome = HISTORY_DONE;
    op->value = element->text.data == NULL ? VALUE_ABSENT : history_value_of(element->text);
    world->totals.reads++;
    if (op->value == VALUE_UNREAD)
        world_fail(world, op->key, "register: a read returned bytes that nobody wrote");
    else
        oracle_read_answered(world, op);
}

static void judge_op(struct world *world, const struct sim_client *client, struct history_op *op,
                     const struct element *element, bool alone)
{
    op->answered_us = world->now_us;
    op->wiped_at_answer = world->wiped_count;
    if (element->type == '-') {
        judge_error(world, client, op, element->text, alone);
    } else if (op->kind == HISTORY_GET) {
        judge_read(world, op, element);
    } else {
        op->outcome = HISTORY_DONE;
        op->found = element->type == ':' && span_is(element->text, "1");
        world->totals.acked++;
        oracle_write_acked(world, op);
    }
    if (world_traces(world, op->key))
        world_say(world, op->key, "client %u <- n%u.%u  #%u %s key %u: %s, value %u %.*s", client->index,
                  client->node + 1u, client->shard, (uint32_t)(op - world->history.ops),
                  history_kind_name(op->kind), op->key, history_outcome_name(op->outcome),
                  op->value == VALUE_UNREAD ? 0 : op->value,
                  element->type == '-' ? (int)(element->text.size < 80 ? element->text.size : 80) : 0,
                  (const char *)element->text.data);
}

static void judge_command(struct world *world, struct sim_client *client, const struct sim_command *command,
                          const struct reply *reply)
{
    if (command->operations == 0) {
        if (reply->elements[0].type == '-')
            world_fail(world, HISTORY_KEY_NONE, "requests: RONDO.CONSISTENCY was refused: %.*s",
                       (int)reply->elements[0].text.size, (const char *)reply->elements[0].text.data);
        return;
    }
    bool one_each = reply->array && reply->count == command->operations;
    bool error = reply->elements[0].type == '-' && !reply->array;
    for (uint32_t i = 0; i < command->operations; i++) {
        struct history_op *op = &world->history.ops[command->operation_first + i];
        bool wants_array = command->operations > 1 && op->kind == HISTORY_GET;
        if (wants_array && !one_each && !error) {
            world_fail(world, op->key, "requests: a reply of another shape than its command");
            return;
        }
        const struct element *element = &reply->elements[one_each ? i : 0];
        judge_op(world, client, op, element, command->operations == 1);
    }
}

void client_take_replies(struct world *world, struct sim_client *client)
{
    struct reply reply;
    while (client->connected && !client->raw && client->from_server.size > 0 && !world->failed) {
        struct span bytes = buf_span(&client->from_server);
        bool whole = client->protocol == CLIENT_HTTP ? take_http(bytes, &reply) : take_resp(bytes, &reply);
        if (!whole)
            return;
        if (client->commands_count == 0) {
            world_fail(world, HISTORY_KEY_NONE, "requests: a reply to nothing");
            return;
        }
        oracle_request_time(world, client);
        struct sim_command command = client->commands[client->commands_head];
        client->commands_head = (client->commands_head + 1) % SIM_PIPELINE_MAX;
        client->commands_count--;
        client->last_reply_us = world->now_us;
        if (client->scripted) {
            buf_clear(&client->last_reply);
            buf_append_span(&client->last_reply, span_of(bytes.data, reply.size));
        }
        judge_command(world, client, &command, &reply);
        buf_drop(&client->from_server, reply.size);
    }
}
