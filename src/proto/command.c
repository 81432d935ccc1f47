/* RESP arguments to a command. Errors have Redis 7's texts wherever Redis has the error. */
#include "proto/command.h"

#include <assert.h>

#include "proto/command_admin.h"
#include "proto/command_fields.h"

/* Redis shows this many bytes of an unknown command, and of its arguments together. */
#define UNKNOWN_BYTES_SHOWN 128

/* What a command's options may be. */
enum option_set {
    OPTION_R = 1,
    OPTION_W = 2,
    OPTION_TIMEOUT = 4,
    OPTION_EXPIRY = 8,
    OPTION_REDIS = 16, /* SET's NX, XX, GET, KEEPTTL: known, and refused */
    OPTION_SLOPPY = 32,
};

struct parse {
    const struct command_limits *limits;
    const struct command_spec *spec;
    uint64_t now_ms;
    struct command *command;
    struct buf *error;
};

static enum status refuse(struct parse *parse, const char *text)
{
    buf_append_text(parse->error, text);
    return STATUS_BAD_REQUEST;
}

/* text with a name in it: "ERR … '" name "'…". */
static enum status refuse_named(struct parse *parse, const char *before, const char *name, const char *after)
{
    buf_append_text(parse->error, before);
    buf_append_text(parse->error, name);
    buf_append_text(parse->error, after);
    return STATUS_BAD_REQUEST;
}

static enum status refuse_quoting(struct parse *parse, const char *before, struct span quoted,
                                  const char *after)
{
    if (quoted.size > UNKNOWN_BYTES_SHOWN)
        quoted.size = UNKNOWN_BYTES_SHOWN;
    buf_append_text(parse->error, before);
    buf_append_span(parse->error, quoted);
    buf_append_text(parse->error, after);
    return STATUS_BAD_REQUEST;
}

static enum status refuse_arity(struct parse *parse)
{
    return refuse_named(parse, "ERR wrong number of arguments for '", parse->spec->name, "' command");
}

static enum status refuse_syntax(struct parse *parse)
{
    return refuse(parse, "ERR syntax error");
}

static void append_upper(struct buf *buf, struct span name)
{
    for (size_t i = 0; i < name.size; i++) {
        uint8_t byte = name.data[i];
        byte = byte >= 'a' && byte <= 'z' ? (uint8_t)(byte - 0x20) : byte;
        buf_append(buf, &byte, 1);
    }
}

static const char *const atomic_text =
    " needs an atomic read-modify-write, which Rondo does not offer yet: read the key, then SET it";

/* A name that is not in the table: refused for a reason, or unknown. */
static enum status command_unknown(uint32_t argc, const struct span *argv, struct buf *error)
{
    enum command_refusal refusal = command_refusal_of(argv[0]);
    buf_append_text(error, "ERR ");
    if (refusal != COMMAND_REFUSAL_NONE) {
        append_upper(error, argv[0]);
        if (refusal == COMMAND_REFUSAL_ATOMIC)
            buf_append_text(error, atomic_text);
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

/* ---- keys, values, options ------------------------------------------------------------------------------ */

/* Puts a code before the sentence that a shared check appended. */
static enum status check_key(struct parse *parse, struct span key)
{
    if (key.size <= parse->limits->key_bytes_max)
        return STATUS_OK;
    buf_append_text(parse->error, "ERR ");
    return command_key_check(parse->limits, key, parse->error);
}

static enum status check_value(struct parse *parse, struct span value)
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

struct options {
    struct span expiry; /* its number; data NULL = none */
    bool expiry_seconds;
    bool expiry_absolute;
    const char *refused; /* NX, XX, GET or KEEPTTL was given */
    bool nx;
    bool xx;
};

/* EX, PX, EXAT, PXAT and their number. */
static bool option_expiry(struct span name, struct span number, struct options *options)
{
    bool ex = span_is_nocase(name, "ex");
    bool exat = span_is_nocase(name, "exat");
    bool pxat = span_is_nocase(name, "pxat");
    if (!ex && !exat && !pxat && !span_is_nocase(name, "px"))
        return false;
    options->expiry = number;
    options->expiry_seconds = ex || exat;
    options->expiry_absolute = exat || pxat;
    return true;
}

static bool option_redis(struct span name, struct options *options)
{
    static const char *const names[] = {"NX", "XX", "GET", "KEEPTTL"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!span_is_nocase(name, names[i]))
            continue;
        options->refused = names[i];
        options->nx = options->nx || i == 0;
        options->xx = options->xx || i == 1;
        return true;
    }
    return false;
}

/* R, W, TIMEOUT or SLOPPY and its value; NOT_FOUND when the name is none that is allowed. */
static enum status option_count(struct parse *parse, unsigned allowed, struct span name, struct span value)
{
    struct command *command = parse->command;
    struct buf *error = parse->error;
    unsigned given = 0;
    if ((allowed & OPTION_R) != 0 && span_is_nocase(name, "r"))
        given = COMMAND_GIVEN_R;
    else if ((allowed & OPTION_W) != 0 && span_is_nocase(name, "w"))
        given = COMMAND_GIVEN_W;
    else if ((allowed & OPTION_TIMEOUT) != 0 && span_is_nocase(name, "timeout"))
        given = COMMAND_GIVEN_TIMEOUT;
    else if ((allowed & OPTION_SLOPPY) != 0 && span_is_nocase(name, "sloppy"))
        given = COMMAND_GIVEN_SLOPPY;
    if (given == 0)
        return STATUS_NOT_FOUND;
    if ((command->given & given) != 0)
        return refuse_quoting(parse, "ERR syntax error: '", name, "' is given twice");

    size_t start = error->size;
    enum status status = STATUS_OK;
    command->given |= (uint8_t)given;
    buf_append_text(error, "ERR ");
    if (given == COMMAND_GIVEN_R)
        status = command_count_parse(value, "R", &command->r, error);
    else if (given == COMMAND_GIVEN_W)
        status = command_count_parse(value, "W", &command->w, error);
    else if (given == COMMAND_GIVEN_SLOPPY)
        status = command_yes_no_parse(value, "SLOPPY", &command->sloppy, error);
    else
        status = command_timeout_parse(parse->limits, value, "TIMEOUT", &command->timeout_ms, error);
    if (status == STATUS_OK)
        error->size = start;
    return status;
}

/* An option that no branch knew. Rondo's own commands say what they take. */
static enum status refuse_option(struct parse *parse, unsigned allowed, struct span name)
{
    if ((allowed & OPTION_TIMEOUT) == 0)
        return refuse_syntax(parse);
    struct buf *error = parse->error;
    buf_append_text(error, "ERR syntax error: ");
    append_upper(error, span_of_text(parse->spec->name));
    buf_append_text(error, " takes");
    if ((allowed & OPTION_R) != 0)
        buf_append_text(error, " R count,");
    if ((allowed & OPTION_W) != 0)
        buf_append_text(error, " W count,");
    if ((allowed & OPTION_SLOPPY) != 0)
        buf_append_text(error, " SLOPPY yes|no,");
    buf_append_text(error, " TIMEOUT ms");
    if ((allowed & OPTION_EXPIRY) != 0)
        buf_append_text(error, ", EX s, PX ms, EXAT s, PXAT ms");
    buf_append_text(error, ", each with a value; not '");
    command_quote(error, name);
    buf_append_text(error, "'");
    return STATUS_BAD_REQUEST;
}

/* The options from argument `first` on. Redis checks the syntax of all before the number of any. */
static enum status parse_options(struct parse *parse, uint32_t first, unsigned allowed,
                                 struct options *options)
{
    struct command *command = parse->command;
    for (uint32_t i = first; i < command->argc; i++) {
        struct span name = command->argv[i];
        bool paired = i + 1 < command->argc;
        if ((allowed & OPTION_REDIS) != 0 && option_redis(name, options))
            continue;
        if (!paired)
            return refuse_option(parse, allowed, name);
        if ((allowed & OPTION_EXPIRY) != 0) {
            struct span before = options->expiry;
            if (option_expiry(name, command->argv[i + 1], options)) {
                if (before.data != NULL)
                    return refuse_syntax(parse);
                i++;
                continue;
            }
        }
        enum status status = option_count(parse, allowed, name, command->argv[i + 1]);
        if (status == STATUS_NOT_FOUND)
            return refuse_option(parse, allowed, name);
        if (status != STATUS_OK)
            return status;
        i++;
    }
    return STATUS_OK;
}

static enum status refuse_expiry(struct parse *parse)
{
    return refuse_named(parse, "ERR invalid expire time in '", parse->spec->name, "' command");
}

/* The expiry of SET and RONDO.PUT: one that has passed makes the command a delete. */
static enum status apply_expiry(struct parse *parse, const struct options *options)
{
    struct command_expiry expiry = {.seconds = options->expiry_seconds, .absolute = options->expiry_absolute};
    int64_t expiry_ms = 0;
    if (options->expiry.data == NULL)
        return STATUS_OK;
    if (span_parse_i64(options->expiry, &expiry.amount) != STATUS_OK)
        return refuse(parse, "ERR value is not an integer or out of range");
    if (expiry.amount <= 0 || command_expiry_resolve(&expiry, parse->now_ms, &expiry_ms) != STATUS_OK)
        return refuse_expiry(parse);
    if ((uint64_t)expiry_ms <= parse->now_ms) {
        parse->command->operation = OPERATION_DELETE;
        parse->command->value = (struct span){0};
    } else {
        parse->command->expiry_ms = (uint64_t)expiry_ms;
    }
    return STATUS_OK;
}

/* ---- commands with keys --------------------------------------------------------------------------------- */

static enum status parse_put(struct parse *parse, unsigned allowed)
{
    struct command *command = parse->command;
    struct options options = {0};
    command->operation = OPERATION_PUT;
    command->value = command->argv[2];
    enum status status = check_value(parse, command->value);
    if (status != STATUS_OK || command->argc == 3)
        return status;
    status = parse_options(parse, 3, allowed, &options);
    if (status != STATUS_OK)
        return status;
    if (options.nx && options.xx)
        return refuse_syntax(parse);
    if (options.refused != NULL) {
        buf_append_text(parse->error, "ERR SET with ");
        buf_append_text(parse->error, options.refused);
        buf_append_text(parse->error, atomic_text);
        return STATUS_UNSUPPORTED;
    }
    return apply_expiry(parse, &options);
}

static enum status parse_mset(struct parse *parse)
{
    struct command *command = parse->command;
    command->operation = OPERATION_PUT;
    if (command->argc % 2 == 0)
        return refuse_arity(parse);
    command->value = command->argv[2];
    for (uint32_t i = 0; i < command->keys_count; i++) {
        enum status status = check_value(parse, command_value(command, i));
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status parse_expire(struct parse *parse)
{
    struct command *command = parse->command;
    struct command_expiry expiry = {.seconds = true};
    int64_t expiry_ms = 0;
    const char *refused = NULL;
    command->operation = OPERATION_EXPIRE;
    for (uint32_t i = 3; i < command->argc; i++) {
        static const char *const names[] = {"NX", "XX", "GT", "LT"};
        const char *known = NULL;
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
            known = span_is_nocase(command->argv[i], names[k]) ? names[k] : known;
        if (known == NULL)
            return refuse_quoting(parse, "ERR Unsupported option ", command->argv[i], "");
        refused = known;
    }
    if (span_parse_i64(command->argv[2], &expiry.amount) != STATUS_OK)
        return refuse(parse, "ERR value is not an integer or out of range");
    if (refused != NULL) {
        (void)refuse_named(
            parse, "ERR EXPIRE with ", refused,
            " needs an atomic read-modify-write, which Rondo does not offer yet: read the TTL, then"
            " EXPIRE without it");
        return STATUS_UNSUPPORTED;
    }
    if (command_expiry_resolve(&expiry, parse->now_ms, &expiry_ms) != STATUS_OK)
        return refuse_expiry(parse);
    if (expiry.amount <= 0)
        command->operation = OPERATION_DELETE;
    else
        command->expiry_ms = (uint64_t)expiry_ms;
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
    if (sub->id == SUBCOMMAND_CLIENT_SETNAME)
        return parse_name(parse, command->argv[2]);
    if (sub->id == SUBCOMMAND_CLUSTER_KEYSLOT)
        command->key = command->argv[2];
    if (sub->id == SUBCOMMAND_CLUSTER_COUNTKEYSINSLOT &&
        command_slot_parse(command->argv[2], &command->slot) != STATUS_OK)
        return refuse(parse, "ERR Invalid slot");
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
    struct options options = {0};
    switch (command->id) {
    case COMMAND_GET:
    case COMMAND_MGET:
    case COMMAND_EXISTS:
    case COMMAND_STRLEN:
    case COMMAND_TTL:
    case COMMAND_PTTL:
        command->operation = OPERATION_GET;
        return STATUS_OK;
    case COMMAND_SET:
        return parse_put(parse, OPTION_EXPIRY | OPTION_REDIS);
    case COMMAND_MSET:
        return parse_mset(parse);
    case COMMAND_DEL:
    case COMMAND_UNLINK:
        command->operation = OPERATION_DELETE;
        return STATUS_OK;
    case COMMAND_EXPIRE:
        return parse_expire(parse);
    case COMMAND_PERSIST:
        command->operation = OPERATION_EXPIRE;
        return STATUS_OK;
    case COMMAND_RONDO_GET:
        command->operation = OPERATION_GET;
        return parse_options(parse, 2, OPTION_R | OPTION_TIMEOUT | OPTION_SLOPPY, &options);
    case COMMAND_RONDO_PUT:
        return parse_put(parse, OPTION_W | OPTION_TIMEOUT | OPTION_EXPIRY | OPTION_SLOPPY);
    case COMMAND_RONDO_CONSISTENCY:
        return parse_options(parse, 1, OPTION_R | OPTION_W | OPTION_TIMEOUT | OPTION_SLOPPY, &options);
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
        return parse_container(parse);
    default: /* INFO, QUIT, RESET, DBSIZE, READONLY, READWRITE, ASKING: their arity says it all */
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
