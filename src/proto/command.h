/* The one command type: what RESP and HTTP requests both become, validated, for the shard to execute.
 *
 * A struct command is plain data of views into the request it came from, and valid as long as that. Where it is
 * about keys, `operation` says what to do to each of them, whatever the command was called; `id` says how to
 * answer. */
#ifndef RONDO_PROTO_COMMAND_H
#define RONDO_PROTO_COMMAND_H

#include "model/operation.h"
#include "proto/command_table.h"
#include "proto/http.h"

/* What a page of /local/rows may be asked to hold; its first row may be larger. */
#define ROWS_BYTES_MAX (4u << 20)

struct command_limits {
    size_t key_bytes_max;
    size_t value_bytes_max;
    uint32_t timeout_ms_max;
};

enum command_given {
    COMMAND_GIVEN_R = 1,
    COMMAND_GIVEN_W = 2,
    COMMAND_GIVEN_TIMEOUT = 4,
    COMMAND_GIVEN_SLOT = 8,
    COMMAND_GIVEN_SLOPPY = 16,
};

struct command {
    enum command_id id;
    enum subcommand_id subcommand; /* of a container such as CLUSTER; NONE for a bare COMMAND */

    /* The operation on each key, or 0 for a command without keys. An EXPIRE without a condition, and a SET, to a
     * time that has passed are OPERATION_DELETE: as in Redis the key is gone at once (EXPIRE then answers whether
     * it existed, SET answers OK). What asks about a key is OPERATION_GET; PERSIST is OPERATION_EXPIRE with
     * expiry_ms 0. */
    enum operation_kind operation;
    uint8_t flags; /* enum operation_flags */
    uint32_t keys_count;
    uint32_t key_first; /* argv[key_first + i * key_step] is key i */
    uint32_t key_step;
    struct span key;   /* key 0 */
    struct span value; /* of key 0, for OPERATION_PUT; ECHO's and PING's text */

    /* COUNT_DEFAULT and 0 where not given. `given` (enum command_given) tells RONDO.CONSISTENCY R default from
     * no R. */
    uint8_t given;
    uint8_t r;
    uint8_t w;
    uint32_t timeout_ms;
    uint64_t expiry_ms; /* absolute wall clock; 0 = none */
    bool sloppy;

    int64_t range_first; /* GETRANGE: byte positions, negative ones from the end */
    int64_t range_last;
    const char *found_error; /* the answer where there is a value; NULL = the usual one */

    uint16_t slot;     /* /local/rows, CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT */
    uint32_t keys_max; /* CLUSTER GETKEYSINSLOT */
    uint32_t bytes;    /* /local/rows: of a page; 0 = not given */
    struct span after; /* /local/rows: base64url of a key; empty = from the first */

    uint8_t hello_proto; /* HELLO: 2 or 3; 0 = not given */
    struct span name;    /* HELLO SETNAME, CLIENT SETNAME; data NULL = not given */

    struct span context; /* HTTP: Rondo-Context */
    bool trace;          /* RONDO.TRACE, or Rondo-Trace: 1: the answer carries the timeline */
    bool head;           /* HTTP: answer without the body */

    uint32_t argc; /* RESP: all arguments, name included (CONFIG GET's patterns, INFO's sections …) */
    const struct span *argv;
};

static inline struct span command_key(const struct command *command, uint32_t index)
{
    return index == 0 ? command->key : command->argv[command->key_first + index * command->key_step];
}

/* The value for key index: MSET's, or the only one. */
static inline struct span command_value(const struct command *command, uint32_t index)
{
    return index == 0 ? command->value : command->argv[command->key_first + index * command->key_step + 1];
}

/* RESP arguments (argc >= 1) to a command. now_ms is the wall clock, for relative expiries.
 * BAD_REQUEST, TOO_LARGE (a key or value) or UNSUPPORTED: the error's text, code first ("ERR …"), is appended to
 * error, ready for resp_reply_error; the connection goes on. */
MUST_CHECK enum status command_parse(const struct command_limits *limits, uint32_t argc,
                                     const struct span *argv, uint64_t now_ms, struct command *command,
                                     struct buf *error);

/* What http_command found wrong. */
struct http_refusal {
    uint16_t http_status; /* 400, 404, 405, 411 or 413 */
    const char *allow;    /* with 405: the value of the Allow header; else NULL */
};

/* An HTTP request to a command: GET (HEAD) /get is RONDO_GET, PUT (POST) /put is RONDO_PUT, DELETE (POST) /delete
 * is DEL, GET (HEAD) /healthz, /status, /ring and /metrics are theirs, as GET /local/rows. Parameters: key, r, w,
 * timeout (ms), ttl (s), ttl_ms, sloppy; slot, after, bytes.
 * NOT_FOUND, BAD_REQUEST, TOO_LARGE: a sentence for people is appended to error and refusal says the rest. */
MUST_CHECK enum status http_command(const struct command_limits *limits, const struct http_request *request,
                                    uint64_t now_ms, struct command *command, struct http_refusal *refusal,
                                    struct buf *error);

/* Appends the answer to COMMAND and its subcommands, and to the HELP of every container. */
void command_introspect(const struct command *command, uint8_t proto, struct buf *reply);

#endif
