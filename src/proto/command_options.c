/* Commands that write a value or take options: SET and its like, GETEX, RONDO.PUT, RONDO.GET, RONDO.CONSISTENCY. */
#include "proto/command_parse.h"

/* ---- expiries ------------------------------------------------------------------------------------------- */

struct expiry_option {
    struct span number; /* data NULL = none */
    bool seconds;
    bool absolute;
};

enum expiry_check {
    EXPIRY_NONE,
    EXPIRY_COMING,
    EXPIRY_PASSED,
    EXPIRY_NOT_INTEGER,
    EXPIRY_INVALID,
};

/* Redis takes no expiry that is not positive, though it may have passed. */
static enum expiry_check expiry_check(const struct parse *parse, const struct expiry_option *option,
                                      int64_t *expiry_ms)
{
    struct command_expiry expiry = {.seconds = option->seconds, .absolute = option->absolute};
    if (option->number.data == NULL)
        return EXPIRY_NONE;
    if (span_parse_i64(option->number, &expiry.amount) != STATUS_OK)
        return EXPIRY_NOT_INTEGER;
    if (expiry.amount <= 0 || command_expiry_resolve(&expiry, parse->now_ms, expiry_ms) != STATUS_OK)
        return EXPIRY_INVALID;
    return (uint64_t)*expiry_ms <= parse->now_ms ? EXPIRY_PASSED : EXPIRY_COMING;
}

/* Of a command that writes a value: an expiry that has passed makes it a delete. */
static enum status apply_expiry(struct parse *parse, const struct expiry_option *option)
{
    int64_t expiry_ms = 0;
    switch (expiry_check(parse, option, &expiry_ms)) {
    case EXPIRY_NONE:
        return STATUS_OK;
    case EXPIRY_COMING:
        parse->command->expiry_ms = (uint64_t)expiry_ms;
        return STATUS_OK;
    case EXPIRY_PASSED:
        parse->command->operation = OPERATION_DELETE;
        parse->command->value = (struct span){0};
        return STATUS_OK;
    case EXPIRY_NOT_INTEGER:
        return refuse_integer(parse);
    case EXPIRY_INVALID:
        break;
    }
    return refuse_expiry(parse);
}

/* ---- the options of SET and GETEX ----------------------------------------------------------------------- */

enum redis_option {
    REDIS_NX = 1,
    REDIS_XX = 2,
    REDIS_GET = 4,
    REDIS_KEEPTTL = 8,
    REDIS_PERSIST = 16,
    REDIS_EX = 32,
    REDIS_PX = 64,
    REDIS_EXAT = 128,
    REDIS_PXAT = 256,
};

#define REDIS_EXPIRIES ((unsigned)REDIS_EX | REDIS_PX | REDIS_EXAT | REDIS_PXAT)
#define REDIS_OF_SET ((unsigned)REDIS_NX | REDIS_XX | REDIS_GET | REDIS_KEEPTTL | REDIS_EXPIRIES)
#define REDIS_OF_GETEX ((unsigned)REDIS_PERSIST | REDIS_EXPIRIES)

/* As in Redis each may be repeated, and the last expiry counts. */
static const struct {
    const char *name;
    unsigned option;
    unsigned not_with;
} redis_options[] = {
    {"EX", REDIS_EX, REDIS_KEEPTTL | REDIS_PERSIST | (REDIS_EXPIRIES & ~(unsigned)REDIS_EX)},
    {"PX", REDIS_PX, REDIS_KEEPTTL | REDIS_PERSIST | (REDIS_EXPIRIES & ~(unsigned)REDIS_PX)},
    {"EXAT", REDIS_EXAT, REDIS_KEEPTTL | REDIS_PERSIST | (REDIS_EXPIRIES & ~(unsigned)REDIS_EXAT)},
    {"PXAT", REDIS_PXAT, REDIS_KEEPTTL | REDIS_PERSIST | (REDIS_EXPIRIES & ~(unsigned)REDIS_PXAT)},
    {"NX", REDIS_NX, REDIS_XX},
    {"XX", REDIS_XX, REDIS_NX},
    {"GET", REDIS_GET, 0},
    {"KEEPTTL", REDIS_KEEPTTL, REDIS_EXPIRIES},
    {"PERSIST", REDIS_PERSIST, REDIS_EXPIRIES},
};

#define REDIS_OPTIONS_COUNT (sizeof redis_options / sizeof redis_options[0])

static size_t redis_option_find(struct span name, unsigned allowed)
{
    for (size_t i = 0; i < REDIS_OPTIONS_COUNT; i++) {
        if ((redis_options[i].option & allowed) != 0 && span_is_nocase(name, redis_options[i].name))
            return i;
    }
    return REDIS_OPTIONS_COUNT;
}

/* All options from argument `first` on: Redis checks the syntax of all before the number of any. */
static enum status parse_redis_options(struct parse *parse, uint32_t first, unsigned allowed, unsigned *given,
                                       struct expiry_option *expiry)
{
    const struct command *command = parse->command;
    for (uint32_t i = first; i < command->argc; i++) {
        size_t at = redis_option_find(command->argv[i], allowed);
        if (at == REDIS_OPTIONS_COUNT || (redis_options[at].not_with & *given) != 0)
            return refuse_syntax(parse);
        unsigned option = redis_options[at].option;
        *given |= option;
        if ((option & REDIS_EXPIRIES) == 0)
            continue;
        if (i + 1 == command->argc)
            return refuse_syntax(parse);
        expiry->number = command->argv[++i];
        expiry->seconds = option == REDIS_EX || option == REDIS_EXAT;
        expiry->absolute = option == REDIS_EXAT || option == REDIS_PXAT;
    }
    return STATUS_OK;
}

enum status parse_set(struct parse *parse)
{
    struct command *command = parse->command;
    struct expiry_option expiry = {0};
    unsigned given = 0;
    command->operation = OPERATION_PUT;
    command->value = command->argv[2];
    enum status status = check_value(parse, command->value);
    if (status != STATUS_OK || command->argc == 3)
        return status;
    status = parse_redis_options(parse, 3, REDIS_OF_SET, &given, &expiry);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; i < REDIS_OPTIONS_COUNT; i++) {
        if ((redis_options[i].option & given & (REDIS_NX | REDIS_XX | REDIS_GET)) == 0)
            continue;
        (void)refuse_named(parse, "ERR SET with ", redis_options[i].name, ATOMIC_TEXT);
        return STATUS_UNSUPPORTED;
    }
    if ((given & REDIS_KEEPTTL) != 0)
        command->flags = OPERATION_KEEP_EXPIRY;
    return apply_expiry(parse, &expiry);
}

enum status parse_setex(struct parse *parse, bool seconds)
{
    struct command *command = parse->command;
    struct expiry_option expiry = {.number = command->argv[2], .seconds = seconds};
    command->operation = OPERATION_PUT;
    command->value = command->argv[3];
    enum status status = check_value(parse, command->value);
    return status == STATUS_OK ? apply_expiry(parse, &expiry) : status;
}

/* Redis looks for the key before it looks at the number: a wrong one is an error only where there is a value. */
enum status parse_getex(struct parse *parse)
{
    struct command *command = parse->command;
    struct expiry_option expiry = {0};
    unsigned given = 0;
    int64_t expiry_ms = 0;
    command->operation = OPERATION_GET;
    enum status status = parse_redis_options(parse, 2, REDIS_OF_GETEX, &given, &expiry);
    if (status != STATUS_OK || given == 0)
        return status;
    switch (expiry_check(parse, &expiry, &expiry_ms)) {
    case EXPIRY_NOT_INTEGER:
        command->found_error = "ERR value is not an integer or out of range";
        return STATUS_OK;
    case EXPIRY_INVALID:
        command->found_error = "ERR invalid expire time in 'getex' command";
        return STATUS_OK;
    case EXPIRY_COMING:
    case EXPIRY_PASSED:
        command->expiry_ms = command_expiry_past(expiry_ms);
        break;
    case EXPIRY_NONE: /* PERSIST */
        break;
    }
    command->operation = OPERATION_EXPIRE;
    command->flags = OPERATION_WANT_VALUE;
    return STATUS_OK;
}

enum status parse_mset(struct parse *parse)
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

/* ---- the options of Rondo's own commands ---------------------------------------------------------------- */

/* EX, PX, EXAT, PXAT and their number. */
static bool option_expiry(struct span name, struct span number, struct expiry_option *option)
{
    bool ex = span_is_nocase(name, "ex");
    bool exat = span_is_nocase(name, "exat");
    bool pxat = span_is_nocase(name, "pxat");
    if (!ex && !exat && !pxat && !span_is_nocase(name, "px"))
        return false;
    option->number = number;
    option->seconds = ex || exat;
    option->absolute = exat || pxat;
    return true;
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

/* Each option once, with its value. */
static enum status parse_pairs(struct parse *parse, uint32_t first, unsigned allowed,
                               struct expiry_option *expiry)
{
    struct command *command = parse->command;
    for (uint32_t i = first; i < command->argc; i += 2) {
        struct span name = command->argv[i];
        if (i + 1 == command->argc)
            return refuse_option(parse, allowed, name);
        if ((allowed & OPTION_EXPIRY) != 0) {
            bool given = expiry->number.data != NULL;
            if (option_expiry(name, command->argv[i + 1], expiry)) {
                if (given)
                    return refuse_syntax(parse);
                continue;
            }
        }
        enum status status = option_count(parse, allowed, name, command->argv[i + 1]);
        if (status == STATUS_NOT_FOUND)
            return refuse_option(parse, allowed, name);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

enum status parse_options(struct parse *parse, uint32_t first, unsigned allowed)
{
    struct expiry_option none = {0};
    return parse_pairs(parse, first, allowed, &none);
}

enum status parse_rondo_put(struct parse *parse)
{
    struct command *command = parse->command;
    struct expiry_option expiry = {0};
    command->operation = OPERATION_PUT;
    command->value = command->argv[2];
    enum status status = check_value(parse, command->value);
    if (status == STATUS_OK)
        status = parse_pairs(parse, 3, OPTION_W | OPTION_TIMEOUT | OPTION_EXPIRY | OPTION_SLOPPY, &expiry);
    return status == STATUS_OK ? apply_expiry(parse, &expiry) : status;
}
