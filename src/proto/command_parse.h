/* What the parsers of RESP commands share, for the files command*.c only: refusals, and who parses what. */
#ifndef RONDO_PROTO_COMMAND_PARSE_H
#define RONDO_PROTO_COMMAND_PARSE_H

#include "proto/command_fields.h"

/* Redis shows this many bytes of an unknown command, and of its arguments together. */
#define UNKNOWN_BYTES_SHOWN 128

/* What follows the name of a command that is refused for want of atomicity. */
#define ATOMIC_TEXT                                                                            \
    " needs an atomic read-modify-write, which last-write-wins keys cannot give: it waits for" \
    " strong keys, which Rondo does not have yet"

/* The options of Rondo's own commands. */
enum option_set {
    OPTION_R = 1,
    OPTION_W = 2,
    OPTION_TIMEOUT = 4,
    OPTION_EXPIRY = 8,
    OPTION_SLOPPY = 16,
};

struct parse {
    const struct command_limits *limits;
    const struct command_spec *spec;
    uint64_t now_ms;
    struct command *command;
    struct buf *error;
};

static inline enum status refuse(struct parse *parse, const char *text)
{
    buf_append_text(parse->error, text);
    return STATUS_BAD_REQUEST;
}

/* text with a name in it: "ERR … '" name "'…". */
static inline enum status refuse_named(struct parse *parse, const char *before, const char *name,
                                       const char *after)
{
    buf_append_text(parse->error, before);
    buf_append_text(parse->error, name);
    buf_append_text(parse->error, after);
    return STATUS_BAD_REQUEST;
}

static inline enum status refuse_quoting(struct parse *parse, const char *before, struct span quoted,
                                         const char *after)
{
    if (quoted.size > UNKNOWN_BYTES_SHOWN)
        quoted.size = UNKNOWN_BYTES_SHOWN;
    buf_append_text(parse->error, before);
    buf_append_span(parse->error, quoted);
    buf_append_text(parse->error, after);
    return STATUS_BAD_REQUEST;
}

static inline enum status refuse_arity(struct parse *parse)
{
    return refuse_named(parse, "ERR wrong number of arguments for '", parse->spec->name, "' command");
}

static inline enum status refuse_syntax(struct parse *parse)
{
    return refuse(parse, "ERR syntax error");
}

static inline enum status refuse_integer(struct parse *parse)
{
    return refuse(parse, "ERR value is not an integer or out of range");
}

static inline enum status refuse_expiry(struct parse *parse)
{
    return refuse_named(parse, "ERR invalid expire time in '", parse->spec->name, "' command");
}

static inline void append_upper(struct buf *buf, struct span name)
{
    for (size_t i = 0; i < name.size; i++) {
        uint8_t byte = name.data[i];
        byte = byte >= 'a' && byte <= 'z' ? (uint8_t)(byte - 0x20) : byte;
        buf_append(buf, &byte, 1);
    }
}

/* command.c: past their limits a key and a value are refused with a code before the sentence. */
enum status check_key(struct parse *parse, struct span key);
enum status check_value(struct parse *parse, struct span value);

/* command_options.c: SET and its like, GETEX, and the options of Rondo's own commands from argument `first` on. */
enum status parse_set(struct parse *parse);
enum status parse_setex(struct parse *parse, bool seconds);
enum status parse_getex(struct parse *parse);
enum status parse_mset(struct parse *parse);
enum status parse_rondo_put(struct parse *parse);
enum status parse_options(struct parse *parse, uint32_t first, unsigned allowed);

/* command_key.c: GETRANGE; OBJECT and MEMORY on a key; keys of a slot. */
enum status parse_range(struct parse *parse);
enum status parse_key_facts(struct parse *parse);
/* CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT. */
enum status parse_keys_in_slot(struct parse *parse);

/* command_expire.c: EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT. */
enum status parse_expire(struct parse *parse);

#endif
