/* The command table and its lookups. */
#include "proto/command_table.h"

#include <assert.h>

static const struct command_spec specs[COMMAND_NAMED_COUNT] = {
#define COMMAND_SPEC(id, name, arity, flags, first, last, step, group, summary) \
    {COMMAND_##id, name, arity, flags, first, last, step, group, summary},
    COMMAND_MAP(COMMAND_SPEC)
#undef COMMAND_SPEC
};

static const struct subcommand_spec subcommand_specs[SUBCOMMAND_END - 1] = {
#define SUBCOMMAND_SPEC(container, id, name, arity, summary) \
    {COMMAND_##container, SUBCOMMAND_##id, name, arity, summary},
    SUBCOMMAND_MAP(SUBCOMMAND_SPEC)
#undef SUBCOMMAND_SPEC
};

const struct command_spec *command_spec_of(enum command_id id)
{
    assert(id > COMMAND_NONE);
    assert(id < COMMAND_NAMED_END);
    return &specs[id - 1];
}

const struct subcommand_spec *subcommand_spec_of(enum subcommand_id id)
{
    assert(id > SUBCOMMAND_NONE);
    assert(id < SUBCOMMAND_END);
    return &subcommand_specs[id - 1];
}

static const struct command_spec *find_between(struct span name, enum command_id first, enum command_id last)
{
    for (enum command_id id = first; id <= last; id++) {
        if (span_is_nocase(name, specs[id - 1].name))
            return &specs[id - 1];
    }
    return NULL;
}

const struct command_spec *command_find(struct span name)
{
    switch (name.size) {
    case 3:
        return find_between(name, COMMAND_GET, COMMAND_TTL);
    case 4:
        return find_between(name, COMMAND_MGET, COMMAND_AUTH);
    case 5:
        return find_between(name, COMMAND_HELLO, COMMAND_TOUCH);
    case 6:
        return find_between(name, COMMAND_EXISTS, COMMAND_ASKING);
    case 7:
        return find_between(name, COMMAND_PERSIST, COMMAND_COMMAND);
    case 8:
        return find_between(name, COMMAND_READONLY, COMMAND_EXPIREAT);
    case 9:
        return find_between(name, COMMAND_READWRITE, COMMAND_RONDO_PUT);
    case 10:
        return find_between(name, COMMAND_EXPIRETIME, COMMAND_EXPIRETIME);
    case 11:
        return find_between(name, COMMAND_PEXPIRETIME, COMMAND_RONDO_TRACE);
    case 17:
        return find_between(name, COMMAND_RONDO_CONSISTENCY, COMMAND_RONDO_CONSISTENCY);
    default:
        return NULL;
    }
}

const struct subcommand_spec *subcommand_find(enum command_id container, struct span name)
{
    for (size_t i = 0; i < SUBCOMMAND_END - 1; i++) {
        if (subcommand_specs[i].container == container && span_is_nocase(name, subcommand_specs[i].name))
            return &subcommand_specs[i];
    }
    return NULL;
}

bool subcommand_names_key(enum subcommand_id id)
{
    enum command_id container = subcommand_spec_of(id)->container;
    bool about_key = container == COMMAND_OBJECT || container == COMMAND_MEMORY;
    return about_key && id != SUBCOMMAND_OBJECT_HELP && id != SUBCOMMAND_MEMORY_HELP;
}

uint32_t command_keys_count(const struct command_spec *spec, uint32_t argc)
{
    assert(command_arity_fits(spec->arity, argc));
    if (spec->key_first == 0)
        return 0;
    uint32_t first = (uint32_t)spec->key_first;
    uint32_t step = (uint32_t)spec->key_step;
    uint32_t last = spec->key_last < 0 ? argc - (uint32_t)-spec->key_last : (uint32_t)spec->key_last;
    return (last - first) / step + 1;
}

/* Redis's commands that are refused for a reason of their own, in bytewise order for the binary search. */
struct refused {
    const char *name;
    enum command_refusal refusal;
};

#define ATOMIC COMMAND_REFUSAL_ATOMIC
#define TRANSACTION COMMAND_REFUSAL_TRANSACTION
#define TYPE COMMAND_REFUSAL_TYPE
#define DEBUG COMMAND_REFUSAL_DEBUG

/* clang-format off */
static const struct refused refused_commands[] = {
    {"append", ATOMIC}, {"bitcount", TYPE}, {"bitfield", ATOMIC}, {"bitfield_ro", TYPE}, {"bitop", TYPE},
    {"bitpos", TYPE}, {"blmove", TYPE}, {"blmpop", TYPE}, {"blpop", TYPE}, {"brpop", TYPE}, {"brpoplpush", TYPE},
    {"bzmpop", TYPE}, {"bzpopmax", TYPE}, {"bzpopmin", TYPE}, {"copy", ATOMIC}, {"debug", DEBUG}, {"decr", ATOMIC},
    {"decrby", ATOMIC}, {"discard", TRANSACTION}, {"eval", TRANSACTION}, {"eval_ro", TRANSACTION},
    {"evalsha", TRANSACTION}, {"evalsha_ro", TRANSACTION}, {"exec", TRANSACTION}, {"fcall", TRANSACTION},
    {"fcall_ro", TRANSACTION}, {"function", TRANSACTION}, {"geoadd", TYPE}, {"geodist", TYPE}, {"geohash", TYPE},
    {"geopos", TYPE}, {"georadius", TYPE}, {"georadius_ro", TYPE}, {"georadiusbymember", TYPE},
    {"georadiusbymember_ro", TYPE}, {"geosearch", TYPE}, {"geosearchstore", TYPE}, {"getbit", TYPE},
    {"getdel", ATOMIC}, {"getset", ATOMIC}, {"hdel", TYPE}, {"hexists", TYPE},
    {"hexpire", TYPE}, {"hget", TYPE}, {"hgetall", TYPE}, {"hincrby", TYPE}, {"hincrbyfloat", TYPE},
    {"hkeys", TYPE}, {"hlen", TYPE}, {"hmget", TYPE}, {"hmset", TYPE}, {"hrandfield", TYPE}, {"hscan", TYPE},
    {"hset", TYPE}, {"hsetnx", TYPE}, {"hstrlen", TYPE}, {"httl", TYPE}, {"hvals", TYPE}, {"incr", ATOMIC},
    {"incrby", ATOMIC}, {"incrbyfloat", ATOMIC}, {"lindex", TYPE}, {"linsert", TYPE}, {"llen", TYPE},
    {"lmove", TYPE}, {"lmpop", TYPE}, {"lpop", TYPE}, {"lpos", TYPE}, {"lpush", TYPE}, {"lpushx", TYPE},
    {"lrange", TYPE}, {"lrem", TYPE}, {"lset", TYPE}, {"ltrim", TYPE}, {"msetnx", TRANSACTION},
    {"multi", TRANSACTION}, {"pfadd", TYPE}, {"pfcount", TYPE}, {"pfmerge", TYPE}, {"rename", TRANSACTION},
    {"renamenx", TRANSACTION}, {"rpop", TYPE}, {"rpoplpush", TYPE}, {"rpush", TYPE}, {"rpushx", TYPE},
    {"sadd", TYPE}, {"scard", TYPE}, {"script", TRANSACTION}, {"sdiff", TYPE}, {"sdiffstore", TYPE},
    {"setbit", ATOMIC}, {"setnx", ATOMIC}, {"setrange", ATOMIC}, {"sinter", TYPE}, {"sintercard", TYPE},
    {"sinterstore", TYPE}, {"sismember", TYPE}, {"smembers", TYPE}, {"smismember", TYPE}, {"smove", TYPE},
    {"sort", TYPE}, {"sort_ro", TYPE}, {"spop", TYPE}, {"srandmember", TYPE}, {"srem", TYPE}, {"sscan", TYPE},
    {"sunion", TYPE}, {"sunionstore", TYPE}, {"unwatch", TRANSACTION}, {"watch", TRANSACTION}, {"xack", TYPE},
    {"xadd", TYPE}, {"xautoclaim", TYPE}, {"xclaim", TYPE}, {"xdel", TYPE}, {"xgroup", TYPE}, {"xinfo", TYPE},
    {"xlen", TYPE}, {"xpending", TYPE}, {"xrange", TYPE}, {"xread", TYPE}, {"xreadgroup", TYPE},
    {"xrevrange", TYPE}, {"xsetid", TYPE}, {"xtrim", TYPE}, {"zadd", TYPE}, {"zcard", TYPE}, {"zcount", TYPE},
    {"zdiff", TYPE}, {"zdiffstore", TYPE}, {"zincrby", TYPE}, {"zinter", TYPE}, {"zintercard", TYPE},
    {"zinterstore", TYPE}, {"zlexcount", TYPE}, {"zmpop", TYPE}, {"zmscore", TYPE}, {"zpopmax", TYPE},
    {"zpopmin", TYPE}, {"zrandmember", TYPE}, {"zrange", TYPE}, {"zrangebylex", TYPE}, {"zrangebyscore", TYPE},
    {"zrangestore", TYPE}, {"zrank", TYPE}, {"zrem", TYPE}, {"zremrangebylex", TYPE}, {"zremrangebyrank", TYPE},
    {"zremrangebyscore", TYPE}, {"zrevrange", TYPE}, {"zrevrangebylex", TYPE}, {"zrevrangebyscore", TYPE},
    {"zrevrank", TYPE}, {"zscan", TYPE}, {"zscore", TYPE}, {"zunion", TYPE}, {"zunionstore", TYPE},
};
/* clang-format on */

#undef ATOMIC
#undef TRANSACTION
#undef TYPE
#undef DEBUG

#define REFUSED_NAME_BYTES_MAX 32

enum command_refusal command_refusal_of(struct span name)
{
    uint8_t lower[REFUSED_NAME_BYTES_MAX];
    size_t low = 0;
    size_t high = sizeof refused_commands / sizeof refused_commands[0];
    if (name.size == 0 || name.size > sizeof lower)
        return COMMAND_REFUSAL_NONE;
    for (size_t i = 0; i < name.size; i++) {
        uint8_t byte = name.data[i];
        lower[i] = byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = span_compare(span_of(lower, name.size), span_of_text(refused_commands[middle].name));
        if (order == 0)
            return refused_commands[middle].refusal;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return COMMAND_REFUSAL_NONE;
}
