/* Arguments of the commands that look after a node: CLIENT, CONFIG, SLOWLOG, LATENCY. */
#ifndef RONDO_PROTO_COMMAND_ADMIN_H
#define RONDO_PROTO_COMMAND_ADMIN_H

#include "proto/command.h"

/* Whether the arguments of a subcommand suit it; its arity does. BAD_REQUEST or UNSUPPORTED: the error's text, code
 * first, is appended. */
MUST_CHECK enum status command_admin_check(const struct command *command, struct buf *error);

/* Printable ASCII without spaces, as names of clients and libraries are. */
bool command_name_plain(struct span name);

/* Which connections CLIENT KILL and CLIENT LIST mean. All are "normal" clients: those of another type are none. */
struct client_filter {
    uint64_t id;         /* 0 = any */
    struct span address; /* of the client; data NULL = any; likewise local */
    struct span local;
    uint64_t age_s;   /* at least so old */
    bool other_type;  /* of a type that no connection has */
    bool spares_self; /* CLIENT KILL: not the one that asks */
};

/* What the filter is held against. */
struct client_identity {
    uint64_t id;
    struct span address;
    struct span local;
    uint64_t age_s;
    bool self;
};

/* The filter of a CLIENT KILL or CLIENT LIST, whose arguments it keeps views of; the ids of LIST ID are left to
 * the caller. Errors as above. */
MUST_CHECK enum status command_client_filter(const struct command *command, struct client_filter *filter,
                                             struct buf *error);

bool client_filter_matches(const struct client_filter *filter, const struct client_identity *client);

/* ON or OFF; MALFORMED for anything else. */
MUST_CHECK enum status command_on_off(struct span text, bool *on);

/* How many entries a SLOWLOG GET asks for; UINT64_MAX for all. Its arguments have been checked. */
uint64_t command_slowlog_count(const struct command *command);

#endif
