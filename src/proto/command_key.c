/* Commands that ask for a part of a value, for facts about a key, or for the keys of a slot. */
#include "proto/command_parse.h"

enum status parse_range(struct parse *parse)
{
    struct command *command = parse->command;
    command->operation = OPERATION_GET;
    if (span_parse_i64(command->argv[2], &command->range_first) != STATUS_OK ||
        span_parse_i64(command->argv[3], &command->range_last) != STATUS_OK)
        return refuse_integer(parse);
    return STATUS_OK;
}

/* MEMORY USAGE key [SAMPLES count]...: the count is checked, and without meaning for values that are bytes. */
static enum status check_samples(struct parse *parse)
{
    const struct command *command = parse->command;
    int64_t count = 0;
    for (uint32_t i = 3; i < command->argc; i += 2) {
        if (!span_is_nocase(command->argv[i], "samples") || i + 1 == command->argc)
            return refuse_syntax(parse);
        if (span_parse_i64(command->argv[i + 1], &count) != STATUS_OK)
            return refuse_integer(parse);
        if (count < 0)
            return refuse_syntax(parse);
    }
    return STATUS_OK;
}

/* As in Redis a key that is not there is null before anything is refused. */
enum status parse_key_facts(struct parse *parse)
{
    struct command *command = parse->command;
    command->operation = OPERATION_GET;
    command->keys_count = 1;
    command->key_first = 2;
    command->key_step = 1;
    command->key = command->argv[2];
    enum status status = check_key(parse, command->key);
    if (status == STATUS_OK && command->subcommand == SUBCOMMAND_MEMORY_USAGE)
        status = check_samples(parse);
    if (command->subcommand == SUBCOMMAND_OBJECT_FREQ)
        command->found_error =
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when"
            " switching between policies at runtime LRU and LFU data will take some time to adjust.";
    else if (command->subcommand == SUBCOMMAND_OBJECT_IDLETIME)
        command->found_error = "ERR OBJECT IDLETIME has no answer: replicas do not note when a key was read";
    return status;
}

enum status parse_keys_in_slot(struct parse *parse)
{
    struct command *command = parse->command;
    bool lists = command->subcommand == SUBCOMMAND_CLUSTER_GETKEYSINSLOT;
    int64_t slot = 0;
    int64_t count = 0;
    if (span_parse_i64(command->argv[2], &slot) != STATUS_OK)
        return refuse_integer(parse);
    if (lists && span_parse_i64(command->argv[3], &count) != STATUS_OK)
        return refuse_integer(parse);
    if (slot < 0 || slot >= SLOTS_COUNT || count < 0)
        return refuse(parse, lists ? "ERR Invalid slot or number of keys" : "ERR Invalid slot");
    command->slot = (uint16_t)slot;
    command->keys_max = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
    return STATUS_OK;
}
