/* Arguments of CLIENT, CONFIG, SLOWLOG and LATENCY. Errors have Redis 7's texts wherever Redis has the error. */
#include "proto/command_admin.h"

#include "proto/command_fields.h"

#define SLOWLOG_COUNT_DEFAULT 10

static enum status refuse(struct buf *error, const char *text)
{
    buf_append_text(error, text);
    return STATUS_BAD_REQUEST;
}

static enum status refuse_quoting(struct buf *error, const char *before, struct span quoted,
                                  const char *after)
{
    buf_append_text(error, before);
    command_quote(error, quoted);
    return refuse(error, after);
}

static enum status refuse_syntax(struct buf *error)
{
    return refuse(error, "ERR syntax error");
}

bool command_name_plain(struct span name)
{
    for (size_t i = 0; i < name.size; i++) {
        if (name.data[i] < '!' || name.data[i] > '~')
            return false;
    }
    return true;
}

enum status command_on_off(struct span text, bool *on)
{
    *on = span_is_nocase(text, "on");
    return *on || span_is_nocase(text, "off") ? STATUS_OK : STATUS_MALFORMED;
}

/* ---- CLIENT --------------------------------------------------------------------------------------------- */

/* jedis and others ignore an error here only if it says "unknown". */
static enum status check_setinfo(const struct command *command, struct buf *error)
{
    if (!span_is_nocase(command->argv[2], "lib-name") && !span_is_nocase(command->argv[2], "lib-ver"))
        return refuse_quoting(error, "ERR unknown option '", command->argv[2],
                              "': CLIENT SETINFO takes LIB-NAME or LIB-VER");
    if (!command_name_plain(command->argv[3]))
        return refuse(error,
                      "ERR unknown kind of character: CLIENT SETINFO takes no spaces, newlines or special"
                      " characters");
    return STATUS_OK;
}

/* Redis's types; connections here are all normal ones. */
static enum status filter_type(struct span type, struct client_filter *filter, struct buf *error)
{
    static const char *const others[] = {"master", "replica", "slave", "pubsub"};
    if (span_is_nocase(type, "normal"))
        return STATUS_OK;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (span_is_nocase(type, others[i])) {
            filter->other_type = true;
            return STATUS_OK;
        }
    }
    return refuse_quoting(error, "ERR Unknown client type '", type, "'");
}

static enum status filter_list(const struct command *command, struct client_filter *filter, struct buf *error)
{
    if (command->argc == 2)
        return STATUS_OK;
    if (command->argc == 4 && span_is_nocase(command->argv[2], "type"))
        return filter_type(command->argv[3], filter, error);
    if (command->argc < 4 || !span_is_nocase(command->argv[2], "id"))
        return refuse_syntax(error);
    for (uint32_t i = 3; i < command->argc; i++) {
        int64_t id = 0;
        if (span_parse_i64(command->argv[i], &id) != STATUS_OK)
            return refuse(error, "ERR Invalid client ID");
    }
    return STATUS_OK;
}

static enum status filter_number(struct span text, const char *what, uint64_t *number, struct buf *error)
{
    int64_t given = 0;
    if (span_parse_i64(text, &given) != STATUS_OK || given < 1) {
        buf_append_format(error, "ERR %s should be greater than 0", what);
        return STATUS_BAD_REQUEST;
    }
    *number = (uint64_t)given;
    return STATUS_OK;
}

/* One pair of CLIENT KILL's filters. */
static enum status filter_pair(struct span name, struct span value, struct client_filter *filter,
                               struct buf *error)
{
    if (span_is_nocase(name, "id"))
        return filter_number(value, "client-id", &filter->id, error);
    if (span_is_nocase(name, "maxage"))
        return filter_number(value, "maxage", &filter->age_s, error);
    if (span_is_nocase(name, "type"))
        return filter_type(value, filter, error);
    if (span_is_nocase(name, "addr")) {
        filter->address = value;
    } else if (span_is_nocase(name, "laddr")) {
        filter->local = value;
    } else if (span_is_nocase(name, "user")) {
        if (!span_is(value, "default"))
            return refuse_quoting(error, "ERR No such user '", value, "'");
    } else if (span_is_nocase(name, "skipme")) {
        filter->spares_self = span_is_nocase(value, "yes");
        if (!filter->spares_self && !span_is_nocase(value, "no"))
            return refuse_syntax(error);
    } else {
        return refuse_syntax(error);
    }
    return STATUS_OK;
}

enum status command_client_filter(const struct command *command, struct client_filter *filter,
                                  struct buf *error)
{
    *filter = (struct client_filter){0};
    if (command->subcommand == SUBCOMMAND_CLIENT_LIST)
        return filter_list(command, filter, error);
    if (command->argc == 3) { /* the old form, with which one may end oneself */
        filter->address = command->argv[2];
        return STATUS_OK;
    }
    filter->spares_self = true;
    for (uint32_t i = 2; i < command->argc; i += 2) {
        if (i + 1 == command->argc)
            return refuse_syntax(error);
        enum status status = filter_pair(command->argv[i], command->argv[i + 1], filter, error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

bool client_filter_matches(const struct client_filter *filter, const struct client_identity *client)
{
    return !filter->other_type && (filter->id == 0 || filter->id == client->id) &&
           (filter->address.data == NULL || span_equal(filter->address, client->address)) &&
           (filter->local.data == NULL || span_equal(filter->local, client->local)) &&
           client->age_s >= filter->age_s && !(filter->spares_self && client->self);
}

static enum status check_reply(struct span mode, struct buf *error)
{
    bool known = span_is_nocase(mode, "on") || span_is_nocase(mode, "off") || span_is_nocase(mode, "skip");
    return known ? STATUS_OK : refuse_syntax(error);
}

static enum status check_tracking(const struct command *command, struct buf *error)
{
    bool on = false;
    if (command_on_off(command->argv[2], &on) != STATUS_OK)
        return refuse_syntax(error);
    if (!on)
        return STATUS_OK;
    (void)refuse(error,
                 "ERR CLIENT TRACKING ON needs a server that knows of every write of a key, which no node of "
                 "Rondo does: keep client-side caches by time");
    return STATUS_UNSUPPORTED;
}

static enum status check_client(const struct command *command, struct buf *error)
{
    struct client_filter filter;
    bool on = false;
    switch (command->subcommand) {
    case SUBCOMMAND_CLIENT_SETINFO:
        return check_setinfo(command, error);
    case SUBCOMMAND_CLIENT_LIST:
    case SUBCOMMAND_CLIENT_KILL:
        return command_client_filter(command, &filter, error);
    case SUBCOMMAND_CLIENT_REPLY:
        return check_reply(command->argv[2], error);
    case SUBCOMMAND_CLIENT_NO_EVICT:
    case SUBCOMMAND_CLIENT_NO_TOUCH:
        return command_on_off(command->argv[2], &on) == STATUS_OK ? STATUS_OK : refuse_syntax(error);
    case SUBCOMMAND_CLIENT_TRACKING:
        return check_tracking(command, error);
    case SUBCOMMAND_CLIENT_UNBLOCK: {
        int64_t id = 0;
        if (span_parse_i64(command->argv[2], &id) != STATUS_OK)
            return refuse(error, "ERR value is not an integer or out of range");
        if (command->argc > 4 || (command->argc == 4 && !span_is_nocase(command->argv[3], "timeout") &&
                                  !span_is_nocase(command->argv[3], "error")))
            return refuse(error, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        return STATUS_OK;
    }
    case SUBCOMMAND_CLIENT_PAUSE:
        (void)refuse(error,
                     "ERR CLIENT PAUSE would stop the clients of one node, while those of the others go on: "
                     "Rondo does not offer it");
        return STATUS_UNSUPPORTED;
    default:
        return STATUS_OK;
    }
}

/* ---- the others ----------------------------------------------------------------------------------------- */

static enum status check_slowlog_get(const struct command *command, struct buf *error)
{
    int64_t count = 0;
    if (command->argc > 3)
        return refuse_quoting(error, "ERR unknown subcommand or wrong number of arguments for '",
                              command->argv[1], "'. Try SLOWLOG HELP.");
    if (command->argc == 3 && (span_parse_i64(command->argv[2], &count) != STATUS_OK || count < -1))
        return refuse(error, "ERR count should be greater than or equal to -1");
    return STATUS_OK;
}

uint64_t command_slowlog_count(const struct command *command)
{
    int64_t count = SLOWLOG_COUNT_DEFAULT;
    if (command->argc == 3 && span_parse_i64(command->argv[2], &count) != STATUS_OK)
        return 0;
    return count < 0 ? UINT64_MAX : (uint64_t)count;
}

enum status command_admin_check(const struct command *command, struct buf *error)
{
    if (command->id == COMMAND_CLIENT)
        return check_client(command, error);
    if (command->subcommand == SUBCOMMAND_SLOWLOG_GET)
        return check_slowlog_get(command, error);
    if (command->subcommand == SUBCOMMAND_CONFIG_SET && command->argc % 2 != 0)
        return refuse_syntax(error);
    return STATUS_OK;
}
