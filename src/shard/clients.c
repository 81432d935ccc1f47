/* Connections as CLIENT INFO, CLIENT LIST and CLIENT KILL show and end them.
 *
 * Answers of a shard: CLIENT LIST: text; CLIENT KILL: u64 how many were ended | u8 whether the one that asks is among
 * them, which ends once it has its answer. */
#include <assert.h>
#include <inttypes.h>

#include "proto/command_admin.h"
#include "shard/admin.h"

/* ---- one line ------------------------------------------------------------------------------------------- */

static void put_flags(const struct client *client, struct buf *text)
{
    size_t start = text->size;
    if (client->closing || client->broken)
        buf_append_text(text, "c");
    if (client->no_evict)
        buf_append_text(text, "e");
    if (client->no_touch)
        buf_append_text(text, "T");
    if (text->size == start)
        buf_append_text(text, "N");
}

static void put_last_command(const struct client *client, struct buf *text)
{
    if (!watch_command_name(client->last_row, text))
        buf_append_text(text, "NULL");
}

void client_line(const struct shard *shard, const struct client *client, struct buf *text)
{
    uint64_t age_s = (shard->now.mono_us - client->opened_us) / 1000000u;
    uint64_t idle_s = (shard->now.mono_us - client->active_us) / 1000000u;
    size_t output = client->out.capacity + client->unsent;
    buf_append_format(
        text,
        "id=%" PRIu64 " addr=%s laddr=%s fd=%d name=%.*s age=%" PRIu64 " idle=%" PRIu64 " flags=", client->id,
        client->address, client->local, client->descriptor, client->name_size, client->name, age_s, idle_s);
    put_flags(client, text);
    buf_append_format(
        text,
        " db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=%zu qbuf-free=0 argv-mem=0 multi-mem=0 rbs=%zu rbp=0 "
        "obl=%zu oll=%d omem=%zu tot-mem=%zu events=r cmd=",
        client->unread, client->out.capacity, client->out.size, client->unsent > 0, output,
        sizeof *client + client->unread + output);
    put_last_command(client, text);
    buf_append_format(text, " user=default redir=-1 resp=%u lib-name=%.*s lib-ver=%.*s", client->proto,
                      client->lib_name_size, client->lib_name, client->lib_version_size, client->lib_version);
    if (client->protocol == CLIENT_HTTP)
        buf_append_text(text, " proto=http");
    buf_append_text(text, "\n");
}

/* ---- of all connections --------------------------------------------------------------------------------- */

static void list_ids(struct shard *shard, const struct command *command, struct buf *body)
{
    for (uint32_t i = 3; i < command->argc; i++) {
        int64_t id = 0;
        if (span_parse_i64(command->argv[i], &id) != STATUS_OK || id <= 0)
            continue; /* nobody's */
        const struct client *client = map_get(&shard->clients, (uint64_t)id);
        if (client != NULL)
            client_line(shard, client, body);
    }
}

/* The world ends it; until it says so nothing of the client is read or answered. */
static void end(struct shard *shard, struct client *client)
{
    client->broken = true;
    client->closing = true;
    effects_add(shard->effects, EFFECT_CLIENT_DROP)->client = client->id;
}

void clients_answer(struct shard *shard, const struct command *command, uint64_t asker, struct buf *body)
{
    struct client_filter filter;
    struct buf error;
    uint64_t ended = 0;
    bool self = false;
    bool kill = command->subcommand == SUBCOMMAND_CLIENT_KILL;
    buf_init(&error, &shard->alloc);
    enum status status = command_client_filter(command, &filter, &error);
    assert(status == STATUS_OK); /* it was, where the command was read */
    buf_free(&error);
    if (!kill && command->argc > 3 && span_is_nocase(command->argv[2], "id")) {
        list_ids(shard, command, body);
        return;
    }
    uint32_t at = 0;
    for (struct client *client = map_next(&shard->clients, &at); client != NULL;
         client = map_next(&shard->clients, &at)) {
        const struct client_identity identity = {
            .id = client->id,
            .address = span_of_text(client->address),
            .local = span_of_text(client->local),
            .age_s = (shard->now.mono_us - client->opened_us) / 1000000u,
            .self = client->id == asker,
        };
        if (client->closing || !client_filter_matches(&filter, &identity))
            continue;
        if (!kill) {
            client_line(shard, client, body);
            continue;
        }
        ended++;
        self = self || identity.self;
        if (!identity.self)
            end(shard, client);
    }
    if (kill) {
        buf_put_u64(body, ended);
        buf_put_u8(body, self);
    }
}

void clients_reply(struct pending *pending, const struct command *command)
{
    struct reader answers = reader_of(buf_span(&pending->gathering->answers));
    struct buf *reply = &pending->reply;
    uint64_t ended = 0;
    struct buf text;
    buf_init(&text, reply->alloc);
    while (reader_left(&answers) > 0) {
        struct span answer = reader_long(&answers);
        if (command->subcommand == SUBCOMMAND_CLIENT_LIST) {
            buf_append_span(&text, answer);
            continue;
        }
        struct reader reader = reader_of(answer);
        ended += reader_u64(&reader);
        if (reader_u8(&reader) != 0 && pending->client != NULL) {
            pending->close = true;
            pending->client->broken = true;
        }
    }
    if (command->subcommand == SUBCOMMAND_CLIENT_LIST)
        resp_reply_verbatim(reply, pending->proto, buf_span(&text));
    else if (command->argc > 3)
        resp_reply_integer(reply, (int64_t)ended);
    else if (ended > 0)
        resp_reply_ok(reply);
    else
        resp_reply_error(reply, span_of_text("ERR No such client"));
    reply->failed |= text.failed;
    buf_free(&text);
}

/* ---- CLIENT, and RESET, of the connection itself -------------------------------------------------------- */

static void set_field(struct span value, char *field, uint8_t *size)
{
    *size = (uint8_t)(value.size < NAME_BYTES_MAX ? value.size : NAME_BYTES_MAX);
    if (*size > 0)
        memcpy(field, value.data, *size);
}

void client_set_name(struct client *client, struct span name)
{
    set_field(name, client->name, &client->name_size);
}

static void reply_info(struct shard *shard, const struct client *client, struct pending *pending)
{
    struct buf text;
    buf_init(&text, &shard->alloc);
    client_line(shard, client, &text);
    resp_reply_verbatim(&pending->reply, client->proto, buf_span(&text));
    pending->reply.failed |= text.failed;
    buf_free(&text);
}

static void reply_tracking(const struct client *client, struct buf *reply)
{
    resp_reply_map(reply, client->proto, 3);
    resp_reply_text(reply, "flags");
    resp_reply_set(reply, client->proto, 1);
    resp_reply_text(reply, "off");
    resp_reply_text(reply, "redirect");
    resp_reply_integer(reply, -1);
    resp_reply_text(reply, "prefixes");
    resp_reply_array(reply, 0);
}

/* ON answers; OFF and SKIP do not. A SKIP after OFF changes nothing. */
static void set_silence(struct client *client, struct pending *pending, struct span mode)
{
    if (span_is_nocase(mode, "on")) {
        client->silence = SILENCE_NONE;
        pending->silent = false;
        resp_reply_ok(&pending->reply);
        return;
    }
    pending->silent = true;
    if (span_is_nocase(mode, "off"))
        client->silence = SILENCE_ALL;
    else if (client->silence != SILENCE_ALL)
        client->silence = SILENCE_NEXT;
}

void client_reset(struct client *client, struct pending *pending)
{
    client->proto = RESP_PROTO_2;
    pending->proto = RESP_PROTO_2;
    client->r = COUNT_DEFAULT;
    client->w = COUNT_DEFAULT;
    client->timeout_ms = 0;
    client->sloppy = false;
    client->name_size = 0;
    client->no_evict = false;
    client->no_touch = false;
    client->silence = SILENCE_NONE;
    pending->silent = false;
    buf_append_text(&pending->reply, "+RESET\r\n");
}

void client_command(struct shard *shard, struct client *client, struct pending *pending,
                    const struct command *command)
{
    struct buf *reply = &pending->reply;
    bool on = command->argc > 2 && span_is_nocase(command->argv[2], "on");
    switch (command->subcommand) {
    case SUBCOMMAND_CLIENT_ID:
        resp_reply_integer(reply, (int64_t)client->id);
        return;
    case SUBCOMMAND_CLIENT_GETNAME:
        if (client->name_size == 0)
            resp_reply_null(reply, client->proto);
        else
            resp_reply_bulk(reply, span_of(client->name, client->name_size));
        return;
    case SUBCOMMAND_CLIENT_SETINFO:
        if (span_is_nocase(command->argv[2], "lib-name"))
            set_field(command->argv[3], client->lib_name, &client->lib_name_size);
        else
            set_field(command->argv[3], client->lib_version, &client->lib_version_size);
        break;
    case SUBCOMMAND_CLIENT_SETNAME:
        client_set_name(client, command->name);
        break;
    case SUBCOMMAND_CLIENT_NO_EVICT:
        client->no_evict = on;
        break;
    case SUBCOMMAND_CLIENT_NO_TOUCH:
        client->no_touch = on;
        break;
    case SUBCOMMAND_CLIENT_TRACKING:
    case SUBCOMMAND_CLIENT_UNPAUSE:
        break;
    case SUBCOMMAND_CLIENT_INFO:
        reply_info(shard, client, pending);
        return;
    case SUBCOMMAND_CLIENT_REPLY:
        set_silence(client, pending, command->argv[2]);
        return;
    case SUBCOMMAND_CLIENT_TRACKINGINFO:
        reply_tracking(client, reply);
        return;
    case SUBCOMMAND_CLIENT_GETREDIR:
        resp_reply_integer(reply, -1);
        return;
    case SUBCOMMAND_CLIENT_UNBLOCK:
        resp_reply_integer(reply, 0);
        return;
    default:
        command_introspect(command, client->proto, reply);
        return;
    }
    resp_reply_ok(reply);
}
