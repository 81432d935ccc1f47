/* RESP answers about one key that was read: its size, its times, its type, a part of its value. */
#include "shard/state.h"

/* Redis holds a string of up to so many bytes in one piece with its head. */
#define EMBEDDED_BYTES_MAX 44u

static int64_t seconds_of(int64_t ms)
{
    return ms / 1000 + (ms % 1000 >= 500);
}

/* TTL, PTTL, EXPIRETIME, PEXPIRETIME: -2 without a value, -1 without an expiry. */
static int64_t time_of(const struct shard *shard, const struct pending *pending, const struct result *result)
{
    bool left = pending->command == COMMAND_TTL || pending->command == COMMAND_PTTL;
    bool seconds = pending->command == COMMAND_TTL || pending->command == COMMAND_EXPIRETIME;
    if (!result->found || result->expiry_ms == 0)
        return result->found ? -1 : -2;
    int64_t ms = (int64_t)result->expiry_ms;
    if (left)
        ms = result->expiry_ms < shard->now.wall_ms ? 0 : (int64_t)(result->expiry_ms - shard->now.wall_ms);
    return seconds ? seconds_of(ms) : ms;
}

/* GETRANGE: positions from 0, negative ones from the end; what lies outside is cut off. */
static struct span range_of(struct span value, int64_t first, int64_t last)
{
    int64_t size = (int64_t)value.size;
    if (first < 0 && last < 0 && first > last)
        return (struct span){0};
    if (first < 0)
        first = first < -size ? 0 : size + first;
    if (last < 0)
        last = last < -size ? 0 : size + last;
    if (last >= size)
        last = size - 1;
    if (size == 0 || first > last)
        return (struct span){0};
    return span_of(value.data + first, (size_t)(last - first + 1));
}

/* As Redis would hold it: integers as such, else by size. */
static const char *encoding_of(struct span value)
{
    int64_t number;
    if (span_parse_i64(value, &number) == STATUS_OK)
        return "int";
    return value.size <= EMBEDDED_BYTES_MAX ? "embstr" : "raw";
}

/* A replica's row in memory. Where an expiry was set later, the value may have one of its own besides: not counted. */
static uint64_t row_bytes_of(const struct shard *shard, const struct pending *pending,
                             const struct result *result)
{
    bool overridden = !stamp_none(result->version.override);
    struct record record = {
        .flags = RECORD_VALUE,
        .stamp = result->version.value,
        .expiry_ms = result->expiry_ms,
        .override_stamp = result->version.override,
        .value = result->value,
    };
    if (overridden)
        record.flags |= RECORD_OVERRIDE;
    else if (result->expiry_ms != 0)
        record.flags |= RECORD_EXPIRY;
    return memtable_bytes_of(&shard->memtable, pending->key_size, record_size(&record));
}

static void reply_facts(const struct shard *shard, struct pending *pending, const struct result *result)
{
    struct buf *reply = &pending->reply;
    if (!result->found)
        resp_reply_null(reply, pending->proto);
    else if (pending->found_error != NULL)
        resp_reply_error(reply, span_of_text(pending->found_error));
    else if (pending->subcommand == SUBCOMMAND_OBJECT_ENCODING)
        resp_reply_text(reply, encoding_of(result->value));
    else if (pending->subcommand == SUBCOMMAND_MEMORY_USAGE)
        resp_reply_integer(reply, (int64_t)row_bytes_of(shard, pending, result));
    else
        resp_reply_integer(reply, 1); /* OBJECT REFCOUNT: no value is shared */
}

bool reply_key(struct shard *shard, struct pending *pending, const struct result *result)
{
    struct buf *reply = &pending->reply;
    switch (pending->command) {
    case COMMAND_STRLEN:
        resp_reply_integer(reply, result->found ? (int64_t)result->value.size : 0);
        return true;
    case COMMAND_TTL:
    case COMMAND_PTTL:
    case COMMAND_EXPIRETIME:
    case COMMAND_PEXPIRETIME:
        resp_reply_integer(reply, time_of(shard, pending, result));
        return true;
    case COMMAND_TYPE:
        resp_reply_simple(reply, span_of_text(result->found ? "string" : "none"));
        return true;
    case COMMAND_GETRANGE:
    case COMMAND_SUBSTR:
        resp_reply_bulk(reply, range_of(result->value, pending->range_first, pending->range_last));
        return true;
    case COMMAND_OBJECT:
    case COMMAND_MEMORY:
        reply_facts(shard, pending, result);
        return true;
    default:
        return false;
    }
}
