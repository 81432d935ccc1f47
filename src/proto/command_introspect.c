/* COMMAND and its subcommands, and HELP: answers that follow from the table alone. Entries have ten fields as in
 * Redis 7; clients accept six or ten, nothing between. */
#include <assert.h>

#include "proto/command.h"
#include "proto/glob.h"
#include "proto/resp_reply.h"

/* Since when Rondo has its commands: its first version. */
#define DOCS_SINCE "0.1.0"

/* Names that one COMMAND INFO or DOCS may ask for: several times all there are, and a bounded answer. */
#define NAMES_MAX 1024

struct flag_name {
    unsigned flag;
    const char *name;
};

static const struct flag_name flag_names[] = {
    {COMMAND_FLAG_WRITE, "write"}, {COMMAND_FLAG_READONLY, "readonly"}, {COMMAND_FLAG_DENYOOM, "denyoom"},
    {COMMAND_FLAG_ADMIN, "admin"}, {COMMAND_FLAG_NOSCRIPT, "noscript"}, {COMMAND_FLAG_LOADING, "loading"},
    {COMMAND_FLAG_STALE, "stale"}, {COMMAND_FLAG_FAST, "fast"},         {COMMAND_FLAG_NO_AUTH, "no_auth"},
};

#define FLAG_NAMES_COUNT (sizeof flag_names / sizeof flag_names[0])

static void reply_flags(struct buf *reply, uint8_t proto, unsigned flags)
{
    resp_reply_set(reply, proto, (size_t)__builtin_popcount(flags));
    for (size_t i = 0; i < FLAG_NAMES_COUNT; i++) {
        if ((flags & flag_names[i].flag) != 0)
            resp_reply_simple(reply, span_of_text(flag_names[i].name));
    }
}

/* "@read", "@string", "@fast": by Redis's rules from the flags and the group. */
static void reply_categories(struct buf *reply, uint8_t proto, const struct command_spec *spec)
{
    bool read = (spec->flags & COMMAND_FLAG_READONLY) != 0;
    bool write = (spec->flags & COMMAND_FLAG_WRITE) != 0;
    bool admin = (spec->flags & COMMAND_FLAG_ADMIN) != 0;
    const char *name = strcmp(spec->group, "generic") == 0 ? "keyspace" : spec->group;
    char group[32] = "@";
    size_t size = strlen(name);
    assert(size + 2 <= sizeof group);
    memcpy(group + 1, name, size + 1);

    resp_reply_set(reply, proto, 2u + (read ? 1u : 0u) + (write ? 1u : 0u) + (admin ? 2u : 0u));
    if (read)
        resp_reply_simple(reply, span_of_text("@read"));
    if (write)
        resp_reply_simple(reply, span_of_text("@write"));
    if (admin) {
        resp_reply_simple(reply, span_of_text("@admin"));
        resp_reply_simple(reply, span_of_text("@dangerous"));
    }
    resp_reply_simple(reply, span_of_text((spec->flags & COMMAND_FLAG_FAST) != 0 ? "@fast" : "@slow"));
    resp_reply_simple(reply, span_of_text(group));
}

static size_t subcommands_count(enum command_id container)
{
    size_t count = 0;
    for (enum subcommand_id id = 1; id < SUBCOMMAND_END; id++)
        count += subcommand_spec_of(id)->container == container ? 1u : 0u;
    return count;
}

/* "client|id" */
static void reply_subcommand_name(struct buf *reply, const struct command_spec *spec,
                                  const struct subcommand_spec *sub)
{
    resp_reply_header(reply, '$', (int64_t)(strlen(spec->name) + 1 + strlen(sub->name)));
    buf_append_text(reply, spec->name);
    buf_append_text(reply, "|");
    buf_append_text(reply, sub->name);
    buf_append_text(reply, "\r\n");
}

/* Fields three to nine of an entry. */
static void reply_info_middle(struct buf *reply, uint8_t proto, const struct command_spec *spec)
{
    reply_flags(reply, proto, spec->flags);
    resp_reply_integer(reply, spec->key_first);
    resp_reply_integer(reply, spec->key_last);
    resp_reply_integer(reply, spec->key_step);
    reply_categories(reply, proto, spec);
    resp_reply_array(reply, 0); /* tips */
    resp_reply_array(reply, 0); /* key specifications: the positions above say it all */
}

/* A subcommand shares them with its container, unless it names a key. */
static void reply_subcommand_middle(struct buf *reply, uint8_t proto, const struct command_spec *container,
                                    enum subcommand_id id)
{
    struct command_spec spec = *container;
    if (subcommand_names_key(id)) {
        spec.flags = COMMAND_FLAG_READONLY;
        spec.key_first = 2;
        spec.key_last = 2;
        spec.key_step = 1;
    }
    reply_info_middle(reply, proto, &spec);
}

static void reply_info_entry(struct buf *reply, uint8_t proto, const struct command_spec *spec)
{
    resp_reply_array(reply, 10);
    resp_reply_text(reply, spec->name);
    resp_reply_integer(reply, spec->arity);
    reply_info_middle(reply, proto, spec);
    resp_reply_array(reply, subcommands_count(spec->id));
    for (enum subcommand_id id = 1; id < SUBCOMMAND_END; id++) {
        const struct subcommand_spec *sub = subcommand_spec_of(id);
        if (sub->container != spec->id)
            continue;
        resp_reply_array(reply, 10);
        reply_subcommand_name(reply, spec, sub);
        resp_reply_integer(reply, sub->arity);
        reply_subcommand_middle(reply, proto, spec, sub->id);
        resp_reply_array(reply, 0);
    }
}

static void reply_info_all(struct buf *reply, uint8_t proto)
{
    resp_reply_array(reply, COMMAND_NAMED_COUNT);
    for (enum command_id id = 1; id < COMMAND_NAMED_END; id++)
        reply_info_entry(reply, proto, command_spec_of(id));
}

static void reply_info(struct buf *reply, uint8_t proto, const struct command *command)
{
    if (command->argc == 2) {
        reply_info_all(reply, proto);
        return;
    }
    resp_reply_array(reply, command->argc - 2);
    for (uint32_t i = 2; i < command->argc; i++) {
        const struct command_spec *spec = command_find(command->argv[i]);
        if (spec == NULL)
            resp_reply_null(reply, proto);
        else
            reply_info_entry(reply, proto, spec);
    }
}

static void reply_docs_fields(struct buf *reply, const char *summary, const char *group)
{
    resp_reply_text(reply, "summary");
    resp_reply_text(reply, summary);
    resp_reply_text(reply, "since");
    resp_reply_text(reply, DOCS_SINCE);
    resp_reply_text(reply, "group");
    resp_reply_text(reply, group);
}

static void reply_docs_entry(struct buf *reply, uint8_t proto, const struct command_spec *spec)
{
    size_t subcommands = subcommands_count(spec->id);
    resp_reply_text(reply, spec->name);
    resp_reply_map(reply, proto, subcommands > 0 ? 4 : 3);
    reply_docs_fields(reply, spec->summary, spec->group);
    if (subcommands == 0)
        return;
    resp_reply_text(reply, "subcommands");
    resp_reply_map(reply, proto, subcommands);
    for (enum subcommand_id id = 1; id < SUBCOMMAND_END; id++) {
        const struct subcommand_spec *sub = subcommand_spec_of(id);
        if (sub->container != spec->id)
            continue;
        reply_subcommand_name(reply, spec, sub);
        resp_reply_map(reply, proto, 3);
        reply_docs_fields(reply, sub->summary, spec->group);
    }
}

/* Names that are unknown are left out, as Redis does. */
static void reply_docs(struct buf *reply, uint8_t proto, const struct command *command)
{
    if (command->argc == 2) {
        resp_reply_map(reply, proto, COMMAND_NAMED_COUNT);
        for (enum command_id id = 1; id < COMMAND_NAMED_END; id++)
            reply_docs_entry(reply, proto, command_spec_of(id));
        return;
    }
    size_t known = 0;
    for (uint32_t i = 2; i < command->argc; i++)
        known += command_find(command->argv[i]) != NULL ? 1u : 0u;
    resp_reply_map(reply, proto, known);
    for (uint32_t i = 2; i < command->argc; i++) {
        const struct command_spec *spec = command_find(command->argv[i]);
        if (spec != NULL)
            reply_docs_entry(reply, proto, spec);
    }
}

/* COMMAND LIST [FILTERBY PATTERN pattern] */
static void reply_list(struct buf *reply, const struct command *command)
{
    struct span pattern = span_of_text("*");
    size_t count = 0;
    if (command->argc == 5 && span_is_nocase(command->argv[2], "filterby") &&
        span_is_nocase(command->argv[3], "pattern")) {
        pattern = command->argv[4];
    } else if (command->argc != 2) {
        resp_reply_error(reply, span_of_text("ERR syntax error"));
        return;
    }
    /* No name is longer than a pattern needs to be; this keeps the work bounded. */
    if (pattern.size > 256) {
        resp_reply_array(reply, 0);
        return;
    }
    for (enum command_id id = 1; id < COMMAND_NAMED_END; id++)
        count += glob_match(pattern, span_of_text(command_spec_of(id)->name)) ? 1u : 0u;
    resp_reply_array(reply, count);
    for (enum command_id id = 1; id < COMMAND_NAMED_END; id++) {
        struct span name = span_of_text(command_spec_of(id)->name);
        if (glob_match(pattern, name))
            resp_reply_bulk(reply, name);
    }
}

static void reply_getkeys(struct buf *reply, const struct command *command)
{
    uint32_t argc = command->argc - 2;
    const struct span *argv = command->argv + 2;
    const struct command_spec *spec = command_find(argv[0]);
    if (spec == NULL) {
        resp_reply_error(reply, span_of_text("ERR Invalid command specified"));
        return;
    }
    const struct subcommand_spec *sub = argc < 2 ? NULL : subcommand_find(spec->id, argv[1]);
    if (sub != NULL && subcommand_names_key(sub->id) && command_arity_fits(sub->arity, argc)) {
        resp_reply_array(reply, 1);
        resp_reply_bulk(reply, argv[2]);
        return;
    }
    if (spec->key_first == 0) {
        resp_reply_error(reply, span_of_text("ERR The command has no key arguments"));
        return;
    }
    if (!command_arity_fits(spec->arity, argc)) {
        resp_reply_error(reply, span_of_text("ERR Invalid number of arguments specified for command"));
        return;
    }
    uint32_t count = command_keys_count(spec, argc);
    size_t first = (size_t)spec->key_first;
    size_t step = (size_t)spec->key_step;
    resp_reply_array(reply, count);
    for (size_t i = 0; i < count; i++)
        resp_reply_bulk(reply, argv[first + i * step]);
}

static void reply_upper(struct buf *reply, const char *before, const char *name, const char *after)
{
    buf_append_text(reply, before);
    for (; *name != 0; name++) {
        char byte = *name >= 'a' && *name <= 'z' ? (char)(*name - 0x20) : *name;
        buf_append(reply, &byte, 1);
    }
    buf_append_text(reply, after);
}

static void reply_help(struct buf *reply, enum command_id container)
{
    resp_reply_array(reply, 1 + 2 * subcommands_count(container));
    reply_upper(reply, "+", command_spec_of(container)->name,
                " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n");
    for (enum subcommand_id id = 1; id < SUBCOMMAND_END; id++) {
        const struct subcommand_spec *sub = subcommand_spec_of(id);
        if (sub->container != container)
            continue;
        reply_upper(reply, "+", sub->name, "\r\n");
        buf_append_text(reply, "+    ");
        buf_append_text(reply, sub->summary);
        buf_append_text(reply, "\r\n");
    }
}

void command_introspect(const struct command *command, uint8_t proto, struct buf *reply)
{
    if (command->id == COMMAND_COMMAND && command->subcommand != SUBCOMMAND_COMMAND_GETKEYS &&
        command->argc > NAMES_MAX) {
        resp_reply_error(reply, span_of_text("ERR too many commands are named at once"));
        return;
    }
    switch (command->subcommand) {
    case SUBCOMMAND_NONE:
        assert(command->id == COMMAND_COMMAND);
        reply_info_all(reply, proto);
        break;
    case SUBCOMMAND_COMMAND_COUNT:
        resp_reply_integer(reply, COMMAND_NAMED_COUNT);
        break;
    case SUBCOMMAND_COMMAND_DOCS:
        reply_docs(reply, proto, command);
        break;
    case SUBCOMMAND_COMMAND_INFO:
        reply_info(reply, proto, command);
        break;
    case SUBCOMMAND_COMMAND_LIST:
        reply_list(reply, command);
        break;
    case SUBCOMMAND_COMMAND_GETKEYS:
        reply_getkeys(reply, command);
        break;
    default: /* a HELP */
        reply_help(reply, command->id);
        break;
    }
}
