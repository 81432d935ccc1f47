/* RESP answers about one key that was read: its size, its times, its type, a part of its value. */
#include "shard/state.h"

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
    default:
        return false;
    }
}
