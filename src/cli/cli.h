/* rondo, the command-line client: what its files share.
 *
 * The client speaks HTTP to one node and decides nothing: it turns arguments into one request, and the answer
 * into text, JSON and an exit code. Every error is one line that says what to do. */
#ifndef RONDO_CLI_CLI_H
#define RONDO_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>

#include "base/span.h"
#include "cli/http_client.h"

#define CLI_VERSION "0.1.0"
#define CLI_HOST_DEFAULT "127.0.0.1"
#define CLI_PORT_DEFAULT "7380"

/* Exit codes; `rondo help` and docs/http.md list them. */
enum cli_exit {
    CLI_OK = 0,
    CLI_NOT_FOUND = 1,     /* get: the key has no value */
    CLI_USAGE = 2,         /* the command line or the request makes no sense */
    CLI_NOT_APPLIED = 3,   /* nothing was applied; for reads: no answer in time */
    CLI_UNKNOWN = 4,       /* the write may still take effect */
    CLI_NO_NODE = 5,       /* the node cannot be reached */
    CLI_INTERRUPTED = 130, /* by Ctrl-C or SIGTERM, as shells count it */
};

enum cli_option {
    CLI_OPTION_R = 1,
    CLI_OPTION_W = 2,
    CLI_OPTION_TTL = 4,
    CLI_OPTION_TIMEOUT = 8,
    CLI_OPTION_RETRY_FOR = 16,
    CLI_OPTION_SKIP_BAD = 32, /* this and the following take no value */
    CLI_OPTION_RESTART = 64,
    CLI_OPTION_NO_RESUME = 128,
    CLI_OPTION_LOCAL = 256,
    CLI_OPTION_REPAIR = 512,
    CLI_OPTION_TOMBSTONES = 1024,
    CLI_OPTION_LOAD = 2048, /* those of struct bench_words */
    CLI_OPTION_FILL = 4096,
    CLI_OPTION_INTERVAL = 8192,
    CLI_OPTION_ONCE = 16384,
};

/* What says how bench loads; NULL where not given. */
struct bench_words {
    const char *connections;
    const char *depth;
    const char *threads;
    const char *keys;
    const char *prefix;
    const char *distribution;
    const char *reads;
    const char *size;
    const char *requests;
    const char *duration;
    const char *rate;
    const char *seed;
};

/* What the command line said. Strings are those of main's arguments, or NULL when not given. */
struct cli {
    const char *address; /* "host:port" */
    const char *r;
    const char *w;
    const char *ttl;
    const char *timeout;
    const char *retry_for;
    const char *interval;
    struct bench_words bench;
    const char *load_option; /* the last of those that was given */
    bool json;
    bool help;
    unsigned options_given; /* enum cli_option */
    int argument_count;     /* of the command, without its name */
    const char **arguments;
    struct alloc alloc;
};

typedef enum cli_exit cli_command_run(struct cli *cli);

struct cli_command {
    const char *name;
    const char *usage;
    const char *summary;
    const char *examples;
    const char *needs; /* its first argument: "a KEY" */
    unsigned options;  /* enum cli_option it takes */
    int arguments_min;
    int arguments_max;
    cli_command_run *run;
};

/* All commands, ended by one without a name. */
extern const struct cli_command cli_commands[];

/* The command of this name, or NULL. */
const struct cli_command *cli_command_find(const char *name);

/* The command whose name is nearest to a mistyped one, or NULL if none is near. */
const struct cli_command *cli_command_nearest(const char *name);

cli_command_run cli_put;
cli_command_run cli_get;
cli_command_run cli_del;
cli_command_run cli_load;
cli_command_run cli_dump;
cli_command_run cli_status;
cli_command_run cli_ring;
cli_command_run cli_bench;
cli_command_run cli_top;
cli_command_run cli_help;
cli_command_run cli_version;

/* ---- output --------------------------------------------------------------------------------------------- */

/* Prints one line on standard error (or, with --json, {"error","message"} on standard output); returns code. */
enum cli_exit cli_fail(const struct cli *cli, enum cli_exit code, const char *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Writes bytes to standard output; false (and a line on standard error) if that fails. */
bool cli_write(struct span bytes);

/* Prints a JSON value, indented, on standard output. */
enum cli_exit cli_print_json(const json_t *json);

/* Whether standard output wants colours: a terminal, and NO_COLOR is not set. */
bool cli_colours(void);

/* Whether standard output can show UTF-8. */
bool cli_utf8(void);

/* Columns of the terminal; COLUMNS or 80 where there is none. */
int cli_width(void);

/* A member of an object as text or number; "?" or 0 where it is missing or of another type. */
const char *cli_json_text(const json_t *object, const char *name);
json_int_t cli_json_number(const json_t *object, const char *name);

/* A number with its thousands set apart: "16,384". Needs CLI_NUMBER_BYTES_MAX. */
#define CLI_NUMBER_BYTES_MAX 32
const char *cli_number(json_int_t number, char text[CLI_NUMBER_BYTES_MAX]);

/* ---- requests ------------------------------------------------------------------------------------------- */

/* Sends a request and explains everything but success: returns CLI_OK with the answer in *answer (the caller
 * frees it with http_answer_free in either case), or the exit code after the error was printed. `write` says
 * whether a lost answer means an unknown outcome. */
enum cli_exit cli_request(struct cli *cli, const struct http_request *request, bool write,
                          struct http_answer *answer);

/* As cli_request for a GET without parameters whose answer is a JSON object; the caller decrefs *json. */
enum cli_exit cli_request_json(struct cli *cli, const char *path, json_t **json);

#endif
