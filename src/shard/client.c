/* Client connections: bytes to commands, and answers in the order of the commands.
 *
 * A command that was read and not yet answered is a struct pending; a client's pendings are a list in order, and an
 * answer leaves when all before it have left. A pending counts its parts: one for each key (or shard) it waits for,
 * and one held by execute() while it starts them, so that it cannot end under its feet. */
#include <assert.h>

#include "shard/admin.h"
#include "shard/key_order.h"

/* A value this little past its limit is read whole, so that the client gets an error and keeps its connection. */
#define BULK_SLACK_BYTES (1u << 20)

/* Operations that were forwarded to other shards hold at most this part of the shard's memory. */
#define FORWARDED_DIVISOR 8u

/* A timeout longer than this is a mistake: nothing a client waits for takes an hour. */
#define TIMEOUT_MS_MAX 3600000u

/* Commands are read some at a time before the first of them is begun, so that the rows they name come into the
 * processor's cache together: a row that is not there costs as much as all the rest of a pipelined command. Those with
 * more arguments end their stage. */
#define STAGE_COMMANDS 16u
#define STAGE_ARGUMENTS 5u

struct staged {
    struct resp_request request;
    struct span argv[STAGE_ARGUMENTS];
};

struct stage {
    uint32_t count;
    struct resp_request last; /* of the attempt that gave no command */
    struct staged commands[STAGE_COMMANDS];
};

/* ---- pendings ------------------------------------------------------------------------------------------- */

static void note_silence(struct client *client, struct pending *pending)
{
    pending->silent = true;
    if (client->silence == SILENCE_NEXT)
        client->silence = SILENCE_NONE;
}

static struct pending *pending_new(struct shard *shard, struct client *client)
{
    struct pending *pending = alloc_get_zeroed(&shard->alloc, sizeof *pending);
    if (pending == NULL)
        return NULL;
    pending->id = shard->pending_next;
    if (map_put(&shard->pendings, pending->id, pending) != STATUS_OK) {
        alloc_put(&shard->alloc, pending, sizeof *pending);
        return NULL;
    }
    shard->pending_next++;
    buf_init(&pending->reply, &shard->alloc);
    pending->begun_us = shard->now.mono_us;
    pending->client = client;
    pending->proto = client->proto;
    if (client->silence != SILENCE_NONE)
        note_silence(client, pending);
    pending->parts_left = 1;
    list_push_back(&client->pending, &pending->in_order);
    client->pending_count++;
    shard->counters.commands++;
    return pending;
}

/* What most commands do not have. */
static void free_kept(struct shard *shard, struct pending *pending)
{
    for (uint32_t i = 0; pending->parts != NULL && i < pending->parts_total; i++)
        alloc_put(&shard->alloc, pending->parts[i].value, pending->parts[i].size);
    alloc_put(&shard->alloc, pending->parts, pending->parts_total * sizeof *pending->parts);
    alloc_put(&shard->alloc, pending->stats, sizeof *pending->stats);
    alloc_put(&shard->alloc, pending->trace, pending->trace_size);
    alloc_put(&shard->alloc, pending->arguments, pending->arguments_size);
    healing_free(shard, pending->healing);
    gathering_free(shard, pending->gathering);
}

void pending_free(struct shard *shard, struct pending *pending)
{
    struct pending *taken = map_take(&shard->pendings, pending->id);
    assert(taken == pending);
    list_remove(&pending->in_order);
    shard->forwarded_bytes -= pending->forwarded_bytes;
    if (pending->parts != NULL || pending->stats != NULL || pending->trace != NULL ||
        pending->arguments != NULL || pending->healing != NULL || pending->gathering != NULL)
        free_kept(shard, pending);
    buf_free(&pending->reply);
    key_order_free(shard, pending);
    alloc_put(&shard->alloc, pending, sizeof *pending);
}

void pending_operate(struct shard *shard, struct pending *pending, uint32_t part,
                     const struct operation *operation)
{
    uint16_t slot = key_slot(operation->key);
    uint16_t target = slot_shard(slot, shard->options.shards);
    uint64_t ticket = pending->id << TICKET_PART_BITS | part;
    pending->parts_left++;
    key_order_slot(pending, slot);
    if (target == shard->options.shard) {
        struct origin origin = {.ticket = ticket};
        coordinate(shard, slot, operation, &origin);
        return;
    }
    /* What is on its way to siblings is nobody's memory yet: it has a bound of its own. */
    size_t bytes = operation->key.size + operation->value.size;
    if (shard->forwarded_bytes + bytes > shard->options.memory_bytes / FORWARDED_DIVISOR) {
        struct result refused = {.outcome = OUTCOME_NOT_APPLIED, .status = STATUS_OVERLOADED};
        metrics_result(shard, operation->kind, operation_asked(operation), &refused);
        client_part_done(shard, ticket, &refused);
        return;
    }
    shard->forwarded_bytes += bytes;
    pending->forwarded_bytes += bytes;
    struct frame_head head = frame_head_of(shard, (uint8_t)target, ticket);
    frame_put_exec(&shard->locals[target], head, slot, operation);
}

/* ---- RESP ----------------------------------------------------------------------------------------------- */

static struct command_limits limits_of(const struct shard *shard)
{
    return (struct command_limits){
        .key_bytes_max = shard->options.key_bytes_max,
        .value_bytes_max = shard->options.value_bytes_max,
        .timeout_ms_max = TIMEOUT_MS_MAX,
    };
}

/* Without memory to note a command nothing can be answered in order. */
static void out_of_memory(struct shard *shard, struct client *client)
{
    shard->counters.overloads++;
    client->closing = true;
    client_touched(shard, client);
}

/* Whether a command that was carried out waits for something, so that its arguments must be kept in case it becomes
 * slow. Where every command is logged they were kept before, as those of one that changes the bounds may have been. */
static inline bool may_become_slow(const struct shard *shard, const struct client *client,
                                   const struct pending *pending, uint32_t argc)
{
    uint64_t log_us = shard->watch.log_us;
    return log_us != UINT64_MAX && log_us != 0 && client->pending.prev == &pending->in_order &&
           !pending->done && !slowlog_plain(pending, argc) && pending->arguments == NULL;
}

struct parsed {
    enum status status;
    struct command command;
    struct buf error;
};

static void parse_words(struct shard *shard, struct words words, struct parsed *parsed)
{
    struct command_limits limits = limits_of(shard);
    buf_init(&parsed->error, &shard->alloc);
    parsed->status =
        command_parse(&limits, words.argc, words.argv, shard->now.wall_ms, &parsed->command, &parsed->error);
}

static void refuse_words(struct shard *shard, struct pending *pending, const struct parsed *parsed)
{
    watch_rejected(shard, &parsed->command);
    pending->reply.failed = parsed->error.failed;
    if (!parsed->error.failed)
        resp_reply_error(&pending->reply, buf_span(&parsed->error));
    pending_finish(shard, pending);
}

void client_run(struct shard *shard, struct client *client, struct pending *pending, struct words words)
{
    struct parsed parsed;
    parse_words(shard, words, &parsed);
    if (parsed.status == STATUS_OK)
        execute(shard, client, pending, &parsed.command);
    else
        refuse_words(shard, pending, &parsed);
    buf_free(&parsed.error);
}

/* A command that is not answered by one row: it waits among the client's, or is over at once. */
static void run_parsed(struct shard *shard, struct client *client, struct words words,
                       const struct parsed *parsed)
{
    const struct command *command = &parsed->command;
    struct pending *pending = pending_new(shard, client);
    if (pending == NULL) {
        out_of_memory(shard, client);
        return;
    }
    if (parsed->status != STATUS_OK) {
        refuse_words(shard, pending, parsed);
        return;
    }
    /* AUTH and HELLO may hold a password, and never wait for anything. */
    if (shard->watch.log_us == 0 && command->id != COMMAND_AUTH && command->id != COMMAND_HELLO)
        slowlog_keep(shard, pending, words.argc, words.argv);
    if (!key_order_matters(pending, command) || !key_order_waits(shard, pending, command, words))
        execute(shard, client, pending, command);
    if (may_become_slow(shard, client, pending, words.argc))
        slowlog_keep(shard, pending, words.argc, words.argv);
}

static void run_resp(struct shard *shard, struct client *client, const struct resp_request *request)
{
    struct parsed parsed;
    struct words words = {.argc = request->argc, .argv = request->argv};
    parse_words(shard, words, &parsed);
    if (parsed.status != STATUS_OK || !answer_alone(shard, client, &parsed.command))
        run_parsed(shard, client, words, &parsed);
    buf_free(&parsed.error);
}

/* The stream cannot be followed any further: say why, then close. */
static void resp_broken(struct shard *shard, struct client *client, struct span error)
{
    struct pending *pending = pending_new(shard, client);
    if (pending == NULL) {
        out_of_memory(shard, client);
        return;
    }
    resp_reply_error(&pending->reply, error);
    pending->close = true;
    client->broken = true;
    pending_finish(shard, pending);
}

static bool must_pause(const struct shard *shard, const struct client *client)
{
    size_t output_max = shard->alloc.budget_bytes / CLIENT_OUTPUT_DIVISOR;
    if (output_max > CLIENT_OUTPUT_BYTES_MAX)
        output_max = CLIENT_OUTPUT_BYTES_MAX;
    if (client->pending_count >= CLIENT_COMMANDS_MAX || client->out.size >= output_max)
        return true;
    /* All clients' answers, refusals too, must fit together until the turn's end. */
    return memory_busy(shard) &&
           (client->pending_count > 0 ||
            client->out.size > shard->alloc.budget_bytes / CLIENT_OUTPUTS_DIVISOR / shard->clients.count);
}

/* Whether nothing that the client still sends will be looked at. */
static bool deaf(const struct client *client)
{
    return client->closing || client->broken;
}

/* Parses commands until the stage is full or no whole one is left; the status is that of the last attempt. */
static enum status stage_fill(struct client *client, struct span input, struct stage *stage)
{
    enum status status = STATUS_OK;
    size_t at = 0;
    stage->count = 0;
    while (stage->count < STAGE_COMMANDS && at < input.size) {
        struct staged *staged = &stage->commands[stage->count];
        struct span rest = span_of(input.data + at, input.size - at);
        status = resp_parse(&client->resp, rest, &staged->request);
        if (status != STATUS_OK) {
            stage->last = staged->request;
            return status;
        }
        at += staged->request.consumed;
        stage->count++;
        /* Inline and long commands are the parser's until it is called again. */
        if (rest.data[0] != '*' || staged->request.argc > STAGE_ARGUMENTS)
            return STATUS_OK;
        for (uint32_t i = 0; i < staged->request.argc; i++)
            staged->argv[i] = staged->request.argv[i];
        staged->request.argv = staged->argv;
    }
    return status;
}

/* Most commands name one key, as their second argument. */
static void stage_prefetch(const struct shard *shard, const struct stage *stage)
{
    uint32_t hash[STAGE_COMMANDS];
    if (stage->count < 2)
        return; /* the processor would not be ahead */
    for (uint32_t i = 0; i < stage->count; i++) {
        const struct resp_request *request = &stage->commands[i].request;
        hash[i] = request->argc < 2 ? 0 : memtable_hash(&shard->memtable, request->argv[1]);
        memtable_prefetch(&shard->memtable, hash[i]);
    }
    for (uint32_t i = 0; i < stage->count; i++)
        memtable_prefetch_row(&shard->memtable, hash[i]);
}

/* False: the client has as much unanswered as it may; what is left of the stage is read again later. */
static bool stage_run(struct shard *shard, struct client *client, const struct stage *stage,
                      struct event *event)
{
    for (uint32_t i = 0; i < stage->count && !deaf(client); i++) {
        if (must_pause(shard, client))
            return false;
        const struct resp_request *request = &stage->commands[i].request;
        event->consumed += request->consumed;
        if (request->argc > 0)
            run_resp(shard, client, request);
    }
    return true;
}

static void read_resp(struct shard *shard, struct client *client, struct event *event)
{
    struct stage stage;
    while (!deaf(client) && event->consumed < event->bytes.size) {
        struct span rest = span_of(event->bytes.data + event->consumed, event->bytes.size - event->consumed);
        bool full = must_pause(shard, client);
        enum status status = full ? STATUS_OK : stage_fill(client, rest, &stage);
        if (!full)
            stage_prefetch(shard, &stage);
        if (full || !stage_run(shard, client, &stage, event)) {
            resp_parser_restart(&client->resp);
            client->paused = true;
            event->paused = true;
            return;
        }
        if (status == STATUS_MORE) {
            event->need = stage.last.need_bytes;
            event->partial = true;
            break;
        }
        if (status != STATUS_OK && !deaf(client))
            resp_broken(shard, client, stage.last.error);
    }
    if (deaf(client))
        event->consumed = event->bytes.size;
}

/* ---- HTTP ----------------------------------------------------------------------------------------------- */

static void run_http(struct shard *shard, struct client *client)
{
    const struct http_request *request = http_parser_request(client->http);
    struct pending *pending = pending_new(shard, client);
    if (pending == NULL) {
        out_of_memory(shard, client);
        return;
    }
    pending->http = true;
    pending->http_minor = request->version_minor;
    pending->http_keep_alive = request->keep_alive;
    pending->http_head = request->method == HTTP_METHOD_HEAD;
    pending->close = !request->keep_alive;
    client->broken = !request->keep_alive;
    struct command command;
    struct http_refusal refusal;
    struct command_limits limits = limits_of(shard);
    struct buf error;
    buf_init(&error, &shard->alloc);
    enum status status = http_command(&limits, request, shard->now.wall_ms, &command, &refusal, &error);
    if (status == STATUS_OK) {
        const struct span argv[] = {request->method_text, request->target};
        if (shard->watch.log_us == 0)
            slowlog_keep(shard, pending, 2, argv);
        execute(shard, client, pending, &command);
        if (may_become_slow(shard, client, pending, 2))
            slowlog_keep(shard, pending, 2, argv);
    } else {
        pending->reply.failed = error.failed;
        reply_http_refusal(pending, &refusal, status, buf_span(&error));
        pending_finish(shard, pending);
    }
    buf_free(&error);
}

static void http_broken(struct shard *shard, struct client *client, enum status status,
                        const struct http_progress *progress)
{
    struct pending *pending = pending_new(shard, client);
    if (pending == NULL) {
        out_of_memory(shard, client);
        return;
    }
    struct http_refusal refusal = {.http_status = progress->http_status};
    pending->http = true;
    pending->http_minor = 1;
    pending->close = true;
    client->broken = true;
    reply_http_refusal(pending, &refusal, status, progress->error);
    pending_finish(shard, pending);
}

/* "100 Continue" takes its place among the answers. */
static void say_continue(struct shard *shard, struct client *client)
{
    struct pending *pending = pending_new(shard, client);
    if (pending == NULL) {
        out_of_memory(shard, client);
        return;
    }
    http_reply_continue(&pending->reply);
    pending_finish(shard, pending);
}

static void read_http(struct shard *shard, struct client *client, struct event *event)
{
    while (!deaf(client) && event->consumed < event->bytes.size) {
        if (must_pause(shard, client)) {
            client->paused = true;
            event->paused = true;
            return;
        }
        struct http_progress progress;
        struct span rest = span_of(event->bytes.data + event->consumed, event->bytes.size - event->consumed);
        enum status status = http_parse(client->http, rest, &progress);
        event->consumed += progress.consumed;
        if (status == STATUS_MORE && progress.send_continue)
            say_continue(shard, client);
        event->partial = status == STATUS_MORE;
        if (status == STATUS_MORE)
            return;
        if (status == STATUS_OK)
            run_http(shard, client);
        else
            http_broken(shard, client, status, &progress);
    }
    if (deaf(client))
        event->consumed = event->bytes.size;
}

/* ---- connections ---------------------------------------------------------------------------------------- */

static struct client *client_new(struct shard *shard, const struct event *event)
{
    struct client *client = alloc_get_zeroed(&shard->alloc, sizeof *client);
    if (client == NULL)
        return NULL;
    client->id = event->client;
    client->protocol = event->protocol;
    client->proto = RESP_PROTO_2;
    client->opened_us = shard->now.mono_us;
    client->active_us = shard->now.mono_us;
    client->descriptor = -1;
    span_copy_text(span_of_text("?:0"), client->address, sizeof client->address);
    span_copy_text(span_of_text(shard->resp_address), client->local, sizeof client->local);
    if (event->origin != NULL) {
        client->descriptor = event->origin->descriptor;
        span_copy_text(event->origin->address, client->address, sizeof client->address);
        span_copy_text(event->origin->local, client->local, sizeof client->local);
    }
    list_init(&client->pending);
    list_init(&client->dirty);
    list_init(&client->woken);
    buf_init(&client->out, &shard->alloc);
    struct resp_limits resp = {
        .bulk_bytes_max = shard->options.value_bytes_max + BULK_SLACK_BYTES,
        .command_bytes_max = shard->options.memory_bytes,
    };
    resp_parser_init(&client->resp, &shard->alloc, &resp);
    bool complete = true;
    if (event->protocol == CLIENT_HTTP) {
        struct http_limits http = {
            .target_bytes_max = HTTP_TARGET_BYTES_MAX,
            .headers_bytes_max = HTTP_HEADERS_BYTES_MAX,
            .body_bytes_max = shard->options.value_bytes_max,
        };
        client->http = http_parser_new(&shard->alloc, &http);
        complete = client->http != NULL;
    }
    if (complete && map_put(&shard->clients, client->id, client) == STATUS_OK)
        return client;
    http_parser_free(client->http);
    resp_parser_free(&client->resp);
    alloc_put(&shard->alloc, client, sizeof *client);
    return NULL;
}

static void client_free(struct shard *shard, struct client *client)
{
    /* Unanswered commands end on their own; their answers go nowhere. */
    while (!list_empty(&client->pending)) {
        struct pending *pending = LIST_ENTRY(list_pop_front(&client->pending), struct pending, in_order);
        pending->client = NULL;
        if (pending->done)
            pending_free(shard, pending);
    }
    list_remove(&client->dirty);
    list_remove(&client->woken);
    resp_parser_free(&client->resp);
    http_parser_free(client->http);
    buf_free(&client->out);
    alloc_put(&shard->alloc, client, sizeof *client);
}

/* What it sent whole is carried out, and in order: if some of that waits for its turn, the client stays for it. */
static void client_leaves(struct shard *shard, struct client *client)
{
    struct client *taken = map_take(&shard->clients, client->id);
    assert(taken == client);
    if (client->waiting_count == 0) {
        client_free(shard, client);
        return;
    }
    client->gone = true;
    client->closing = true;
    buf_free(&client->out);
    list_remove(&client->dirty);
    list_push_back(&shard->clients_leaving, &client->dirty);
}

void clients_left(struct shard *shard)
{
    struct list_link *at = shard->clients_leaving.next;
    while (at != &shard->clients_leaving) {
        struct client *client = LIST_ENTRY(at, struct client, dirty);
        at = at->next;
        if (list_empty(&client->pending))
            client_free(shard, client);
    }
}

static void client_refused(struct shard *shard, uint64_t id)
{
    shard->counters.overloads++;
    struct effect *effect = effects_add(shard->effects, EFFECT_CLIENT_SEND);
    effect->client = id;
    effect->flag = true;
}

void client_event(struct shard *shard, struct event *event)
{
    struct client *client = map_get(&shard->clients, event->client);
    if (event->kind == EVENT_CLIENT_OPEN) {
        assert(client == NULL);
        if (client_new(shard, event) == NULL)
            client_refused(shard, event->client);
        else
            shard->counters.clients++;
        shard->watch.figures.connections++;
        return;
    }
    if (client == NULL) {
        event->consumed = event->bytes.size;
        return;
    }
    if (event->kind == EVENT_CLIENT_CLOSED) {
        shard->counters.clients--;
        client_leaves(shard, client);
        return;
    }
    if (event->kind == EVENT_CLIENT_UNSENT) {
        client->unsent = event->sequence;
        return;
    }
    client->active_us = shard->now.mono_us;
    if (client->protocol == CLIENT_RESP)
        read_resp(shard, client, event);
    else
        read_http(shard, client, event);
    event->idle = client->pending_count == 0;
    client->unread = event->bytes.size - event->consumed;
    shard->watch.figures.bytes_in += event->consumed;
}

void clients_free(struct shard *shard)
{
    uint32_t at = 0;
    for (struct client *client = map_next(&shard->clients, &at); client != NULL;
         client = map_next(&shard->clients, &at)) {
        struct client *taken = map_take(&shard->clients, client->id);
        assert(taken == client);
        client_free(shard, client);
        at = 0;
    }
    while (!list_empty(&shard->clients_leaving))
        client_free(shard, LIST_ENTRY(list_first(&shard->clients_leaving), struct client, dirty));
    at = 0;
    for (struct pending *pending = map_next(&shard->pendings, &at); pending != NULL;
         pending = map_next(&shard->pendings, &at)) {
        pending_free(shard, pending);
        at = 0;
    }
    map_free(&shard->clients);
    map_free(&shard->pendings);
}
