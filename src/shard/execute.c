/* Commands: answered at once, or turned into one operation for each key. */
#include <assert.h>
#include <inttypes.h>

#include "base/version.h"
#include "shard/admin.h"
#include "shard/state.h"

/* ---- commands on keys ----------------------------------------------------------------------------------- */

static void refuse_all(struct shard *shard, struct pending *pending, const struct command *command)
{
    struct result refused = {.outcome = OUTCOME_NOT_APPLIED, .status = STATUS_OVERLOADED};
    for (uint32_t i = 0; i < command->keys_count; i++)
        metrics_result(shard, command->operation,
                       command->operation == OPERATION_GET ? command->r : command->w, &refused);
    shard->counters.overloads++;
    pending->failed = true;
    pending->failure = refused;
}

static void operate(struct shard *shard, struct client *client, struct pending *pending,
                    const struct command *command)
{
    if (memory_short(shard)) {
        refuse_all(shard, pending, command);
        return;
    }
    pending->parts_total = command->keys_count;
    pending->traced = command->trace;
    pending->range_first = command->range_first;
    pending->range_last = command->range_last;
    pending->found_error = command->found_error;
    pending->key_size = (uint16_t)command->key.size;
    /* The command's own reply, then the timeline. */
    if (pending->traced && !pending->http)
        resp_reply_array(&pending->reply, 2);
    if (command->id == COMMAND_MGET) {
        pending->parts = alloc_get_zeroed(&shard->alloc, command->keys_count * sizeof *pending->parts);
        if (pending->parts == NULL) {
            pending_overloaded(pending);
            return;
        }
    }
    for (uint32_t i = 0; i < command->keys_count; i++) {
        struct operation operation = {
            .kind = command->operation,
            .flags = command->flags,
            .r = command->r != COUNT_DEFAULT ? command->r : client->r,
            .w = command->w != COUNT_DEFAULT ? command->w : client->w,
            .sloppy = (command->given & COMMAND_GIVEN_SLOPPY) != 0 ? command->sloppy : client->sloppy,
            .timeout_ms = command->timeout_ms != 0 ? command->timeout_ms : client->timeout_ms,
            .expiry_ms = command->expiry_ms,
            .trace = command->trace,
            .key = command_key(command, i),
        };
        if (command->operation == OPERATION_PUT)
            operation.value = command_value(command, i);
        pending_operate(shard, pending, i, &operation);
    }
}

/* ---- commands on the connection ------------------------------------------------------------------------- */

static void hello(struct client *client, struct pending *pending, const struct command *command)
{
    if (command->hello_proto != 0)
        client->proto = command->hello_proto;
    if (command->name.data != NULL)
        client_set_name(client, command->name);
    struct buf *reply = &pending->reply;
    pending->proto = client->proto;
    resp_reply_map(reply, client->proto, 7);
    resp_reply_text(reply, "server");
    resp_reply_text(reply, "rondo");
    resp_reply_text(reply, "version");
    resp_reply_text(reply, REDIS_VERSION_FOLLOWED);
    resp_reply_text(reply, "proto");
    resp_reply_integer(reply, client->proto);
    resp_reply_text(reply, "id");
    resp_reply_integer(reply, (int64_t)client->id);
    resp_reply_text(reply, "mode");
    resp_reply_text(reply, "cluster");
    resp_reply_text(reply, "role");
    resp_reply_text(reply, "master");
    resp_reply_text(reply, "modules");
    resp_reply_array(reply, 0);
}

static void auth(struct pending *pending, const struct command *command)
{
    /* AUTH with a password only is refused where it is parsed. As in Redis the default user has no password, and
     * takes any. */
    if (command->argc == 3 && span_is(command->argv[1], "default"))
        resp_reply_ok(&pending->reply);
    else
        resp_reply_error(&pending->reply,
                         span_of_text("WRONGPASS invalid username-password pair or user is disabled."));
}

static void show_count(struct buf *reply, uint8_t count)
{
    if (count == COUNT_DEFAULT || count == COUNT_QUORUM)
        resp_reply_text(reply, "quorum");
    else if (count == COUNT_ALL)
        resp_reply_text(reply, "all");
    else
        resp_reply_integer(reply, count);
}

static void consistency(struct shard *shard, struct client *client, struct pending *pending,
                        const struct command *command)
{
    struct buf *reply = &pending->reply;
    if ((command->given & COMMAND_GIVEN_R) != 0)
        client->r = command->r;
    if ((command->given & COMMAND_GIVEN_W) != 0)
        client->w = command->w;
    if ((command->given & COMMAND_GIVEN_TIMEOUT) != 0)
        client->timeout_ms = command->timeout_ms;
    if ((command->given & COMMAND_GIVEN_SLOPPY) != 0)
        client->sloppy = command->sloppy;
    if (command->given != 0) {
        resp_reply_ok(reply);
        return;
    }
    resp_reply_map(reply, client->proto, 4);
    resp_reply_text(reply, "R");
    show_count(reply, client->r);
    resp_reply_text(reply, "W");
    show_count(reply, client->w);
    resp_reply_text(reply, "TIMEOUT");
    resp_reply_integer(reply,
                       client->timeout_ms != 0 ? client->timeout_ms : shard->options.request_timeout_ms);
    resp_reply_text(reply, "SLOPPY");
    resp_reply_text(reply, client->sloppy ? "yes" : "no");
}

static void ping(struct pending *pending, const struct command *command)
{
    if (command->argc > 1)
        resp_reply_bulk(&pending->reply, command->value);
    else
        buf_append_text(&pending->reply, "+PONG\r\n");
}

static void reply_number_text(struct buf *reply, uint64_t number)
{
    struct buf text;
    buf_init(&text, reply->alloc);
    buf_append_format(&text, "%" PRIu64, number);
    resp_reply_bulk(reply, buf_span(&text));
    reply->failed |= text.failed;
    buf_free(&text);
}

/* Seconds and microseconds, as Redis answers; the clock that shards are given counts milliseconds. */
static void tell_time(const struct shard *shard, struct buf *reply)
{
    resp_reply_array(reply, 2);
    reply_number_text(reply, shard->now.wall_ms / 1000);
    reply_number_text(reply, shard->now.wall_ms % 1000 * 1000);
}

/* ---- HTTP pages ----------------------------------------------------------------------------------------- */

static void ring_page(struct shard *shard, struct pending *pending)
{
    struct buf json;
    buf_init(&json, &shard->alloc);
    describe_ring_json(shard, &json);
    reply_http_json(pending, 200, buf_span(&json));
    pending->reply.failed |= json.failed;
    buf_free(&json);
}

static void health_page(struct shard *shard, struct pending *pending)
{
    /* Alive, and of use to clients: enough nodes for the default quorum can be reached. */
    uint16_t reachable = 1;
    for (uint16_t i = 0; i < shard->peer_count; i++)
        reachable = (uint16_t)(reachable + shard->peers[i].reachable);
    uint16_t needed = (uint16_t)(ring_replica_count(shard->ring) / 2 + 1);
    struct buf json;
    buf_init(&json, &shard->alloc);
    bool healthy = reachable >= needed && !shard->log.full;
    buf_append_format(&json, "{\"healthy\":%s,\"reachable\":%u,\"needed\":%u,\"disk_full\":%s}\n",
                      healthy ? "true" : "false", reachable, needed, shard->log.full ? "true" : "false");
    reply_http_json(pending, healthy ? 200 : 503, buf_span(&json));
    pending->reply.failed |= json.failed;
    buf_free(&json);
}

/* ---- dispatch ------------------------------------------------------------------------------------------- */

static void answer_now(struct shard *shard, struct client *client, struct pending *pending,
                       const struct command *command)
{
    switch (command->id) {
    case COMMAND_PING:
        ping(pending, command);
        return;
    case COMMAND_ECHO:
        resp_reply_bulk(&pending->reply, command->value);
        return;
    case COMMAND_QUIT:
        resp_reply_ok(&pending->reply);
        pending->close = true;
        client->broken = true;
        return;
    case COMMAND_TIME:
        tell_time(shard, &pending->reply);
        return;
    case COMMAND_HELLO:
        hello(client, pending, command);
        return;
    case COMMAND_RESET:
        client_reset(client, pending);
        return;
    case COMMAND_AUTH:
        auth(pending, command);
        return;
    case COMMAND_SELECT:
    case COMMAND_READONLY:
    case COMMAND_READWRITE:
    case COMMAND_ASKING:
        resp_reply_ok(&pending->reply);
        return;
    case COMMAND_CLIENT:
        client_command(shard, client, pending, command);
        return;
    case COMMAND_COMMAND:
    case COMMAND_SLOWLOG: /* HELP; the rest is all shards' */
    case COMMAND_LATENCY:
    case COMMAND_OBJECT:
    case COMMAND_MEMORY:
        command_introspect(command, client->proto, &pending->reply);
        return;
    case COMMAND_CONFIG:
        if (command->subcommand == SUBCOMMAND_CONFIG_GET)
            settings_get(shard, command, client->proto, &pending->reply);
        else
            command_introspect(command, client->proto, &pending->reply);
        return;
    case COMMAND_CLUSTER:
        if (command->subcommand == SUBCOMMAND_CLUSTER_HELP)
            command_introspect(command, client->proto, &pending->reply);
        else
            describe_cluster(shard, command, client->proto, &pending->reply);
        return;
    case COMMAND_RONDO_CONSISTENCY:
        consistency(shard, client, pending, command);
        return;
    case COMMAND_HTTP_RING:
        ring_page(shard, pending);
        return;
    case COMMAND_HTTP_HEALTHZ:
        health_page(shard, pending);
        return;
    default:
        assert(0 && "a command that execute() knows");
    }
}

/* If not, it is answered why. */
static bool config_set_allowed(const struct shard *shard, struct pending *pending,
                               const struct command *command)
{
    struct buf error;
    buf_init(&error, pending->reply.alloc);
    bool allowed = settings_check(shard, command, &error);
    if (!allowed)
        resp_reply_error(&pending->reply, buf_span(&error));
    pending->reply.failed |= error.failed;
    buf_free(&error);
    return allowed;
}

void execute(struct shard *shard, struct client *client, struct pending *pending,
             const struct command *command)
{
    pending->command = command->id;
    pending->row = watch_row(command->id, command->subcommand);
    client->last_row = pending->row;
    pending->subcommand = command->subcommand;
    pending->http_head = command->head;
    if (command->operation != 0) {
        operate(shard, client, pending, command);
    } else if (command->id == COMMAND_INFO || command->id == COMMAND_DBSIZE ||
               command->id == COMMAND_HTTP_STATUS || command->id == COMMAND_HTTP_METRICS) {
        pending->sections = info_sections(command);
        info_ask(shard, pending);
        if (command->id == COMMAND_INFO && !pending->failed)
            gather_ask(shard, client, pending, command);
        if (command->id == COMMAND_HTTP_STATUS && !pending->failed)
            healing_ask(shard, pending);
    } else if (command->id == COMMAND_HTTP_LOCAL_ROWS) {
        rows_page_ask(shard, pending, command);
    } else if (command->subcommand == SUBCOMMAND_CONFIG_SET && !config_set_allowed(shard, pending, command)) {
        pending_finish(shard, pending);
        return;
    } else if (gather_wanted(command)) {
        gather_ask(shard, client, pending, command);
    } else if (command->subcommand == SUBCOMMAND_CLUSTER_COUNTKEYSINSLOT) {
        rows_count_ask(shard, pending, command);
    } else if (command->subcommand == SUBCOMMAND_CLUSTER_GETKEYSINSLOT) {
        keys_slot_ask(shard, pending, command);
    } else if (command->id == COMMAND_RANDOMKEY) {
        keys_random_ask(shard, pending);
    } else {
        answer_now(shard, client, pending, command);
        pending_finish(shard, pending);
        return;
    }
    pending_part_over(shard, pending);
}
