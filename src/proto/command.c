/* RESP arguments to a command. Errors have Redis 7's texts wherever Redis has the error. */
#include "proto/command.h"

#include <assert.h>

#include "proto/command_admin.h"
#include "proto/command_parse.h"

/* A name that is not in the table: refused for a reason, or unknown. */
static enum status command_unknown(uint32_t argc, const struct span *argv, struct buf *error)
{
    enum command_refusal refusal = command_refusal_of(argv[0]);
    buf_append_text(error, "ERR ");
    if (refusal != COMMAND_REFUSAL_NONE) {
        append_upper(error, argv[0]);
        if (refusal == COMMAND_REFUSAL_ATOMIC)
            buf_append_text(error, ATOMIC_TEXT);
        else if (refusal == COMMAND_REFUSAL_TYPE)
            buf_append_text(error, " works on a data type that Rondo does not have: values are opaque bytes");
        else if (refusal == COMMAND_REFUSAL_DEBUG)
            buf_append_text(error,
                            " makes a server stop or misbehave for tests of it, which Rondo does not offer");
        else
            buf_append_text(error,
                            " needs several steps to take effect as one, which Rondo does not offer yet:"
                            " send single commands, each is atomic for its key");
        return STATUS_UNSUPPORTED;
    }
    struct span name = argv[0];
    if (name.size > UNKNOWN_BYTES_SHOWN)
        name.size = UNKNOWN_BYTES_SHOWN;
    buf_append_text(error, "unknown command '");
    buf_append_span(error, name);
    buf_append_text(error, "', with args beginning with: ");
    size_t start = error->size;
    for (uint32_t i = 1; i < argc && error->size - start < UNKNOWN_BYTES_SHOWN && !error->failed; i++) {
        struct span shown = argv[i];
        size_t room = UNKNOWN_BYTES_SHOWN - (error->size - start);
        if (shown.size > room)
            shown.size = room;
        buf_append_text(error, "'");
        buf_append_span(error, shown);
        buf_append_text(error, "' ");
    }
    return STATUS_BAD_REQUEST;
}

/* ---- keys and values ------------------------------------------------------------------------------------ */

/* Puts a code before the sentence that a shared check appended. */
enum status check_key(struct parse *parse, struct span key)
{
    if (key.size <= parse->limits->key_bytes_max)
        return STATUS_OK;
    buf_append_text(parse->error, "ERR ");
    return command_key_check(parse->limits, key, parse->error);
}

enum status check_value(struct parse *parse, struct span value)
{
    if (value.size <= parse->limits->value_bytes_max)
        return STATUS_OK;
    buf_append_text(parse->error, "ERR ");
    return command_value_check(parse->limits, value, parse->error);
}

static enum status parse_keys(struct parse *parse)
{
    struct command *command = parse->command;
    command->keys_count = command_keys_count(parse->spec, command->argc);
    if (command->keys_count == 0)
        return STATUS_OK;
    command->key_first = (uint32_t)parse->spec->key_first;
    command->key_step = (uint32_t)parse->spec->key_step;
    command->key = command->argv[command->key_first];
    for (uint32_t i = 0; i < command->keys_count; i++) {
        enum status status = check_key(parse, command_key(command, i));
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---- commands without keys ------------------------------------------------------------------------------ */

static enum status parse_name(struct parse *parse, struct span name)
{
    if (!command_name_plain(name))
        return refuse(parse, "ERR Client names cannot contain spaces, newlines or special characters.");
    parse->command->name = name;
    return STATUS_OK;
}

/* There are no passwords yet: as in Redis without one, the user "default" may have any. */
static enum status check_user(struct parse *parse, struct span user)
{
    if (span_is(user, "default"))
        return STATUS_OK;
    return refuse(parse, "WRONGPASS invalid username-password pair or user is disabled.");
}

static enum status parse_auth(struct parse *parse)
{
    struct command *command = parse->command;
    if (command->argc > 3)
        return refuse_syntax(parse);
    if (command->argc == 3)
        return check_user(parse, command->argv[1]);
    return refuse(parse, "ERR AUTH <password> called without any password configured for the default user. "
                         "Are you sure your configuration is correct?");
}

static enum status parse_hello(struct parse *parse)
{
    struct command *command = parse->command;
    int64_t proto = 0;
    if (command->argc == 1)
        return STATUS_OK;
    if (span_parse_i64(command->argv[1], &proto) != STATUS_OK)
        return refuse(parse, "ERR Protocol version is not an integer or out of range");
    if (proto < 2 || proto > 3)
        return refuse(parse, "NOPROTO unsupported protocol version");
    command->hello_proto = (uint8_t)proto;
    for (uint32_t i = 2; i < command->argc; i++) {
        struct span option = command->argv[i];
        uint32_t left = command->argc - i - 1;
        enum status status = STATUS_OK;
        if (span_is_nocase(option, "auth") && left >= 2) {
            status = check_user(parse, command->argv[i + 1]);
            i += 2;
        } else if (span_is_nocase(option, "setname") && left >= 1) {
            status = parse_name(parse, command->argv[i + 1]);
            i++;
        } else {
            return refuse_quoting(parse, "ERR Syntax error in HELLO option '", option, "'");
        }
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status parse_select(struct parse *parse)
{
    int64_t index = 0;
    if (span_parse_i64(parse->command->argv[1], &index) != STATUS_OK)
        return refuse(parse, "ERR value is not an integer or out of range");
    if (index != 0)
        return refuse(parse, "ERR SELECT is not allowed in cluster mode");
    return STATUS_OK;
}

static enum status parse_container(struct parse *parse)
{
    struct command *command = parse->command;
    if (command->argc == 1) /* only COMMAND may stand alone; the others' arity is at least 2 */
        return STATUS_OK;
    const struct subcommand_spec *sub = subcommand_find(command->id, command->argv[1]);
    if (sub == NULL) {
        (void)refuse_quoting(parse, "ERR unknown subcommand '", command->argv[1], "'. Try ");
        append_upper(parse->error, span_of_text(parse->spec->name));
        return refuse(parse, " HELP.");
    }
    if (!command_arity_fits(sub->arity, command->argc)) {
        buf_append_text(parse->error, "ERR wrong number of arguments for '");
        buf_append_text(parse->error, parse->spec->name);
        return refuse_named(parse, "|", sub->name, "' command");
    }
    command->subcommand = sub->id;
    if (subcommand_names_key(sub->id))
        return parse_key_facts(parse);
    if (sub->id == SUBCOMMAND_CLIENT_SETNAME)
        return parse_name(parse, command->argv[2]);
    if (sub->id == SUBCOMMAND_CLUSTER_KEYSLOT)
        command->key = command->argv[2];
    if (sub->id == SUBCOMMAND_CLUSTER_COUNTKEYSINSLOT || sub->id == SUBCOMMAND_CLUSTER_GETKEYSINSLOT)
        return parse_keys_in_slot(parse);
    return command_admin_check(command, parse->error);
}

static enum status parse_ping(struct parse *parse)
{
    struct command *command = parse->command;
    if (command->argc > 2)
        return refuse_arity(parse);
    if (command->argc == 2)
        command->value = command->argv[1];
    return STATUS_OK;
}

static enum status parse_command(struct parse *parse)
{
    struct command *command = parse->command;
    switch (command->id) {
    case COMMAND_GET:
    case COMMAND_MGET:
    case COMMAND_EXISTS:
    case COMMAND_STRLEN:
    case COMMAND_TTL:
    case COMMAND_PTTL:
    case COMMAND_EXPIRETIME:
    case COMMAND_PEXPIRETIME:
    case COMMAND_TYPE:
    case COMMAND_TOUCH:
        command->operation = OPERATION_GET;
        return STATUS_OK;
    case COMMAND_SET:
        return parse_set(parse);
    case COMMAND_SETEX:
    case COMMAND_PSETEX:
        return parse_setex(parse, command->id == COMMAND_SETEX);
    case COMMAND_GETEX:
        return parse_getex(parse);
    case COMMAND_GETRANGE:
    case COMMAND_SUBSTR:
        return parse_range(parse);
    case COMMAND_MSET:
        return parse_mset(parse);
    case COMMAND_DEL:
    case COMMAND_UNLINK:
        command->operation = OPERATION_DELETE;
        return STATUS_OK;
    case COMMAND_EXPIRE:
    case COMMAND_PEXPIRE:
    case COMMAND_EXPIREAT:
    case COMMAND_PEXPIREAT:
        return parse_expire(parse);
    case COMMAND_PERSIST:
        command->operation = OPERATION_EXPIRE;
        return STATUS_OK;
    case COMMAND_RONDO_GET:
        command->operation = OPERATION_GET;
        return parse_options(parse, 2, OPTION_R | OPTION_TIMEOUT | OPTION_SLOPPY);
    case COMMAND_RONDO_PUT:
        return parse_rondo_put(parse);
    case COMMAND_RONDO_CONSISTENCY:
        return parse_options(parse, 1, OPTION_R | OPTION_W | OPTION_TIMEOUT | OPTION_SLOPPY);
    case COMMAND_PING:
    case COMMAND_ECHO:
        return parse_ping(parse);
    case COMMAND_AUTH:
        return parse_auth(parse);
    case COMMAND_HELLO:
        return parse_hello(parse);
    case COMMAND_SELECT:
        return parse_select(parse);
    case COMMAND_CLIENT:
    case COMMAND_CLUSTER:
    case COMMAND_CONFIG:
    case COMMAND_SLOWLOG:
    case COMMAND_LATENCY:
    case COMMAND_COMMAND:
    case COMMAND_OBJECT:
    case COMMAND_MEMORY:
        return parse_container(parse);
    default: /* INFO, QUIT, RESET, TIME, DBSIZE, READONLY, READWRITE, ASKING: their arity says it all */
        return STATUS_OK;
    }
}

/* RONDO.TRACE command args...: from here on the traced command is the command. */
static enum status unwrap_trace(struct parse *parse)
{
    struct command *command = parse->command;
    struct span name = command->argv[1];
    command->argc--;
    command->argv++;
    const struct command_spec *spec = command_find(name);
    if (spec == NULL)
        return command_unknown(command->argc, command->argv, parse->error);
    bool fits = command_arity_fits(spec->arity, command->argc);
    if (spec->id == COMMAND_RONDO_TRACE || spec->key_first == 0 ||
        (fits && command_keys_count(spec, command->argc) != 1))
        return refuse_quoting(parse, "ERR RONDO.TRACE takes a command on one key, such as GET key; '", name,
                              "' here is not one");
    parse->spec = spec;
    command->id = spec->id;
    command->trace = true;
    return STATUS_OK;
}

enum status command_parse(const struct command_limits *limits, uint32_t argc, const struct span *argv,
                          uint64_t now_ms, struct command *command, struct buf *error)
{
    assert(argc > 0);
    *command = (struct command){.argc = argc, .argv = argv};
    const struct command_spec *spec = command_find(argv[0]);
    if (spec == NULL)
        return command_unknown(argc, argv, error);
    command->id = spec->id;
    struct parse parse = {
        .limits = limits, .spec = spec, .now_ms = now_ms, .command = command, .error = error};
    if (spec->id == COMMAND_RONDO_TRACE && command_arity_fits(spec->arity, argc)) {
        enum status unwrapped = unwrap_trace(&parse);
        if (unwrapped != STATUS_OK)
            return unwrapped;
    }
    if (!command_arity_fits(parse.spec->arity, command->argc))
        return refuse_arity(&parse);
    enum status status = parse_keys(&parse);
    return status == STATUS_OK ? parse_command(&parse) : status;
}
