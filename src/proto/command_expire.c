/* EXPIRE, PEXPIRE, EXPIREAT and PEXPIREAT, with their conditions. */
#include "proto/command_parse.h"

struct condition {
    const char *name;
    uint8_t flag;
};

static const struct condition conditions[] = {
    {"nx", OPERATION_IF_NONE},
    {"xx", OPERATION_IF_SOME},
    {"gt", OPERATION_IF_LATER},
    {"lt", OPERATION_IF_SOONER},
};

static uint8_t condition_of(struct span name)
{
    for (size_t i = 0; i < sizeof conditions / sizeof conditions[0]; i++) {
        if (span_is_nocase(name, conditions[i].name))
            return conditions[i].flag;
    }
    return 0;
}

static enum status parse_conditions(struct parse *parse)
{
    struct command *command = parse->command;
    static const uint8_t not_with_none = OPERATION_IF_SOME | OPERATION_IF_LATER | OPERATION_IF_SOONER;
    static const uint8_t both = OPERATION_IF_LATER | OPERATION_IF_SOONER;
    for (uint32_t i = 3; i < command->argc; i++) {
        uint8_t flag = condition_of(command->argv[i]);
        if (flag == 0)
            return refuse_quoting(parse, "ERR Unsupported option ", command->argv[i], "");
        command->flags |= flag;
    }
    if ((command->flags & OPERATION_IF_NONE) != 0 && (command->flags & not_with_none) != 0)
        return refuse(parse, "ERR NX and XX, GT or LT options at the same time are not compatible");
    if ((command->flags & both) == both)
        return refuse(parse, "ERR GT and LT options at the same time are not compatible");
    return STATUS_OK;
}

enum status parse_expire(struct parse *parse)
{
    struct command *command = parse->command;
    struct command_expiry expiry = {
        .seconds = command->id == COMMAND_EXPIRE || command->id == COMMAND_EXPIREAT,
        .absolute = command->id == COMMAND_EXPIREAT || command->id == COMMAND_PEXPIREAT,
    };
    int64_t expiry_ms = 0;
    enum status status = parse_conditions(parse);
    if (status != STATUS_OK)
        return status;
    if (span_parse_i64(command->argv[2], &expiry.amount) != STATUS_OK)
        return refuse_integer(parse);
    if (command_expiry_resolve(&expiry, parse->now_ms, &expiry_ms) != STATUS_OK)
        return refuse_expiry(parse);
    bool passed = expiry_ms <= (int64_t)parse->now_ms;
    /* With a condition the key is looked at first, and an expiry that has passed ends it. */
    command->operation = passed && command->flags == 0 ? OPERATION_DELETE : OPERATION_EXPIRE;
    if (command->operation == OPERATION_EXPIRE)
        command->expiry_ms = command_expiry_past(expiry_ms);
    return STATUS_OK;
}
