/* The commands that Rondo knows: names, arities, keys, documentation.
 *
 * COMMAND_MAP holds them in order of the length of their names: a lookup compares only the few of the same
 * length, the most used first. Arity and keys as Redis counts them: arity includes the name, negative means at
 * least; key positions are argument numbers, first 0 means no keys, last -1 means up to the end. */
#ifndef RONDO_PROTO_COMMAND_TABLE_H
#define RONDO_PROTO_COMMAND_TABLE_H

#include "base/span.h"

enum command_flags {
    COMMAND_FLAG_WRITE = 1,
    COMMAND_FLAG_READONLY = 2,
    COMMAND_FLAG_FAST = 4,
    COMMAND_FLAG_ADMIN = 8,
    COMMAND_FLAG_LOADING = 16, /* answered also while the node starts */
    COMMAND_FLAG_STALE = 32,
    COMMAND_FLAG_NOSCRIPT = 64,
    COMMAND_FLAG_DENYOOM = 128,
    COMMAND_FLAG_NO_AUTH = 256,
};

#define COMMAND_FLAGS_CONNECTION (COMMAND_FLAG_LOADING | COMMAND_FLAG_STALE | COMMAND_FLAG_FAST)
#define COMMAND_FLAGS_READ (COMMAND_FLAG_READONLY | COMMAND_FLAG_FAST)
#define COMMAND_FLAGS_WRITE (COMMAND_FLAG_WRITE | COMMAND_FLAG_FAST)
#define COMMAND_FLAGS_PUT (COMMAND_FLAG_WRITE | COMMAND_FLAG_DENYOOM)
#define COMMAND_FLAGS_INTERNAL (COMMAND_FLAG_LOADING | COMMAND_FLAG_STALE)
#define COMMAND_FLAGS_ADMIN (COMMAND_FLAGS_INTERNAL | COMMAND_FLAG_ADMIN)
#define COMMAND_FLAGS_HELLO (COMMAND_FLAGS_CONNECTION | COMMAND_FLAG_NO_AUTH | COMMAND_FLAG_NOSCRIPT)

/* X(id, name, arity, flags, key first, key last, key step, group, summary) */
/* clang-format off */
#define COMMAND_MAP(X)                                                                                                \
    X(GET, "get", 2, COMMAND_FLAGS_READ, 1, 1, 1, "string", "Returns the value of a key")                             \
    X(SET, "set", -3, COMMAND_FLAGS_PUT, 1, 1, 1, "string", "Sets the value of a key, optionally with an expiry")     \
    X(DEL, "del", -2, COMMAND_FLAG_WRITE, 1, -1, 1, "generic", "Deletes keys")                                        \
    X(TTL, "ttl", 2, COMMAND_FLAGS_READ, 1, 1, 1, "generic", "Returns the seconds until a key expires")               \
    X(MGET, "mget", -2, COMMAND_FLAGS_READ, 1, -1, 1, "string", "Returns the values of several keys")                 \
    X(MSET, "mset", -3, COMMAND_FLAGS_PUT, 1, -1, 2, "string", "Sets several keys, each on its own")                  \
    X(PING, "ping", -1, COMMAND_FLAGS_CONNECTION, 0, 0, 0, "connection", "Answers PONG")                              \
    X(PTTL, "pttl", 2, COMMAND_FLAGS_READ, 1, 1, 1, "generic", "Returns the milliseconds until a key expires")        \
    X(TYPE, "type", 2, COMMAND_FLAGS_READ, 1, 1, 1, "generic", "Returns string for a key that exists")                \
    X(ECHO, "echo", 2, COMMAND_FLAGS_CONNECTION, 0, 0, 0, "connection", "Answers with its argument")                  \
    X(INFO, "info", -1, COMMAND_FLAGS_INTERNAL, 0, 0, 0, "server", "Returns facts and counters of this node")         \
    X(QUIT, "quit", -1, COMMAND_FLAGS_HELLO, 0, 0, 0, "connection", "Closes the connection")                          \
    X(TIME, "time", 1, COMMAND_FLAGS_CONNECTION, 0, 0, 0, "server", "Returns the clock of this node")                 \
    X(AUTH, "auth", -2, COMMAND_FLAGS_HELLO, 0, 0, 0, "connection", "Authenticates the connection")                   \
    X(HELLO, "hello", -1, COMMAND_FLAGS_HELLO, 0, 0, 0, "connection", "Greets the server and chooses RESP2 or RESP3") \
    X(RESET, "reset", 1, COMMAND_FLAGS_HELLO, 0, 0, 0, "connection", "Puts the connection into its first state")       \
    X(SETEX, "setex", 4, COMMAND_FLAGS_PUT, 1, 1, 1, "string", "Sets a key that expires after seconds")               \
    X(GETEX, "getex", -2, COMMAND_FLAGS_WRITE, 1, 1, 1, "string", "Returns a value and changes its expiry")           \
    X(TOUCH, "touch", -2, COMMAND_FLAGS_READ, 1, -1, 1, "generic", "Counts the keys that exist")                      \
    X(EXISTS, "exists", -2, COMMAND_FLAGS_READ, 1, -1, 1, "generic", "Counts the keys that exist")                    \
    X(EXPIRE, "expire", -3, COMMAND_FLAGS_WRITE, 1, 1, 1, "generic", "Sets the seconds until a key expires")          \
    X(STRLEN, "strlen", 2, COMMAND_FLAGS_READ, 1, 1, 1, "string", "Returns the size of a value")                      \
    X(UNLINK, "unlink", -2, COMMAND_FLAGS_WRITE, 1, -1, 1, "generic", "Deletes keys")                                 \
    X(DBSIZE, "dbsize", 1, COMMAND_FLAGS_READ, 0, 0, 0, "server", "Returns the number of keys on this node")          \
    X(PSETEX, "psetex", 4, COMMAND_FLAGS_PUT, 1, 1, 1, "string", "Sets a key that expires after milliseconds")        \
    X(SUBSTR, "substr", 4, COMMAND_FLAG_READONLY, 1, 1, 1, "string", "Returns a part of a value")                     \
    X(OBJECT, "object", -2, 0, 0, 0, 0, "generic", "Facts about the value of a key")                                  \
    X(MEMORY, "memory", -2, 0, 0, 0, 0, "server", "Facts about memory")                                               \
    X(SELECT, "select", 2, COMMAND_FLAGS_CONNECTION, 0, 0, 0, "connection", "Accepts database 0, the only one")       \
    X(CLIENT, "client", -2, COMMAND_FLAGS_INTERNAL, 0, 0, 0, "connection", "Facts about this connection")             \
    X(CONFIG, "config", -2, COMMAND_FLAGS_INTERNAL | COMMAND_FLAG_ADMIN, 0, 0, 0, "server", "Returns settings")       \
    X(ASKING, "asking", 1, COMMAND_FLAG_FAST, 0, 0, 0, "cluster", "Accepted; every node serves every key")            \
    X(PERSIST, "persist", 2, COMMAND_FLAGS_WRITE, 1, 1, 1, "generic", "Removes the expiry of a key")                  \
    X(PEXPIRE, "pexpire", -3, COMMAND_FLAGS_WRITE, 1, 1, 1, "generic", "Sets the milliseconds until a key expires")   \
    X(CLUSTER, "cluster", -2, COMMAND_FLAGS_INTERNAL, 0, 0, 0, "cluster", "Describes the cluster")                    \
    X(SLOWLOG, "slowlog", -2, COMMAND_FLAGS_ADMIN, 0, 0, 0, "server", "Shows the slowest requests of this node")      \
    X(LATENCY, "latency", -2, COMMAND_FLAGS_ADMIN, 0, 0, 0, "server", "Shows what took this node long")               \
    X(COMMAND, "command", -1, COMMAND_FLAGS_INTERNAL, 0, 0, 0, "server", "Describes the commands")                    \
    X(READONLY, "readonly", 1, COMMAND_FLAGS_CONNECTION, 0, 0, 0, "cluster", "Accepted; every replica serves reads")  \
    X(GETRANGE, "getrange", 4, COMMAND_FLAG_READONLY, 1, 1, 1, "string", "Returns a part of a value")                 \
    X(EXPIREAT, "expireat", -3, COMMAND_FLAGS_WRITE, 1, 1, 1, "generic", "Sets the second at which a key expires")    \
    X(READWRITE, "readwrite", 1, COMMAND_FLAGS_CONNECTION, 0, 0, 0, "cluster", "Accepted; the opposite of READONLY")  \
    X(PEXPIREAT, "pexpireat", -3, COMMAND_FLAGS_WRITE, 1, 1, 1, "generic", "Sets when a key expires, in ms")          \
    X(RANDOMKEY, "randomkey", 1, COMMAND_FLAG_READONLY, 0, 0, 0, "generic", "Returns some key of this node")          \
    X(RONDO_GET, "rondo.get", -2, COMMAND_FLAGS_READ, 1, 1, 1, "rondo", "Returns a key's value and version")          \
    X(RONDO_PUT, "rondo.put", -3, COMMAND_FLAGS_PUT, 1, 1, 1, "rondo", "Sets a key; answers the version written")     \
    X(EXPIRETIME, "expiretime", 2, COMMAND_FLAGS_READ, 1, 1, 1, "generic", "Returns when a key expires, in seconds")  \
    X(PEXPIRETIME, "pexpiretime", 2, COMMAND_FLAGS_READ, 1, 1, 1, "generic", "Returns when a key expires, in ms")     \
    X(RONDO_TRACE, "rondo.trace", -3, COMMAND_FLAG_WRITE, 2, 2, 1, "rondo",                                           \
      "Runs a command on one key; answers its reply and the timeline of its replicas")                                \
    X(RONDO_CONSISTENCY, "rondo.consistency", -1, COMMAND_FLAGS_CONNECTION, 0, 0, 0, "rondo",                         \
      "Shows or sets R, W, the timeout and SLOPPY of this connection")
/* clang-format on */

enum command_id {
    COMMAND_NONE = 0,
#define COMMAND_ENUM(id, name, arity, flags, first, last, step, group, summary) COMMAND_##id,
    COMMAND_MAP(COMMAND_ENUM)
#undef COMMAND_ENUM
    COMMAND_NAMED_END, /* the ids from 1 to here have a RESP name */
    /* HTTP only */
    COMMAND_HTTP_HEALTHZ = COMMAND_NAMED_END,
    COMMAND_HTTP_STATUS,
    COMMAND_HTTP_RING,
    COMMAND_HTTP_METRICS,
    COMMAND_HTTP_LOCAL_ROWS,
    COMMAND_ID_END,
};

#define COMMAND_NAMED_COUNT (COMMAND_NAMED_END - 1)

/* X(container, id, name, arity as the whole command's, summary) */
/* clang-format off */
#define SUBCOMMAND_MAP(X)                                                                                             \
    X(CLIENT, CLIENT_ID, "id", 2, "Returns this connection's number")                                                 \
    X(CLIENT, CLIENT_INFO, "info", 2, "Returns facts about this connection")                                          \
    X(CLIENT, CLIENT_GETNAME, "getname", 2, "Returns this connection's name")                                         \
    X(CLIENT, CLIENT_SETNAME, "setname", 3, "Names this connection")                                                  \
    X(CLIENT, CLIENT_SETINFO, "setinfo", 4, "Notes the client's library: LIB-NAME or LIB-VER")                        \
    X(CLIENT, CLIENT_LIST, "list", -2, "Lists this node's connections: TYPE type, or ID id...")                       \
    X(CLIENT, CLIENT_KILL, "kill", -3, "Ends connections: ADDRESS, or ID, ADDR, LADDR, TYPE, USER, MAXAGE, SKIPME")   \
    X(CLIENT, CLIENT_REPLY, "reply", 3, "Answers commands (ON), none (OFF), or not the next one (SKIP)")              \
    X(CLIENT, CLIENT_NO_EVICT, "no-evict", 3, "ON or OFF: accepted and shown; no client is evicted")                  \
    X(CLIENT, CLIENT_NO_TOUCH, "no-touch", 3, "ON or OFF: accepted and shown; no key's age is kept")                  \
    X(CLIENT, CLIENT_TRACKING, "tracking", -3, "Accepts OFF; there is no client-side caching")                        \
    X(CLIENT, CLIENT_TRACKINGINFO, "trackinginfo", 2, "Says that keys are not tracked")                               \
    X(CLIENT, CLIENT_GETREDIR, "getredir", 2, "Answers -1: keys are not tracked")                                     \
    X(CLIENT, CLIENT_UNBLOCK, "unblock", -3, "Answers 0: no client is blocked by a command")                          \
    X(CLIENT, CLIENT_PAUSE, "pause", -3, "Refused: clients of a cluster cannot be paused at one node")                \
    X(CLIENT, CLIENT_UNPAUSE, "unpause", 2, "Accepted: no client is ever paused")                                     \
    X(CLIENT, CLIENT_HELP, "help", 2, "Prints this help")                                                             \
    X(CLUSTER, CLUSTER_SLOTS, "slots", 2, "Returns slot ranges and their nodes")                                      \
    X(CLUSTER, CLUSTER_SHARDS, "shards", 2, "Returns nodes and their slot ranges")                                    \
    X(CLUSTER, CLUSTER_NODES, "nodes", 2, "Returns nodes and their slots as text")                                    \
    X(CLUSTER, CLUSTER_INFO, "info", 2, "Returns the cluster's state")                                                \
    X(CLUSTER, CLUSTER_MYID, "myid", 2, "Returns this node's id")                                                     \
    X(CLUSTER, CLUSTER_KEYSLOT, "keyslot", 3, "Returns the slot of a key")                                            \
    X(CLUSTER, CLUSTER_COUNTKEYSINSLOT, "countkeysinslot", 3, "Returns the number of keys of a slot on this node")    \
    X(CLUSTER, CLUSTER_GETKEYSINSLOT, "getkeysinslot", 4, "Returns keys of a slot on this node")                      \
    X(CLUSTER, CLUSTER_HELP, "help", 2, "Prints this help")                                                           \
    X(CONFIG, CONFIG_GET, "get", -3, "Returns the settings whose names match a pattern")                              \
    X(CONFIG, CONFIG_SET, "set", -4, "Sets the slow log's and the latency monitor's bounds, until the next start")    \
    X(CONFIG, CONFIG_RESETSTAT, "resetstat", 2, "Begins INFO's counters anew")                                        \
    X(CONFIG, CONFIG_HELP, "help", 2, "Prints this help")                                                             \
    X(SLOWLOG, SLOWLOG_GET, "get", -2, "Returns the newest entries: 10, or as many as asked for; -1: all")            \
    X(SLOWLOG, SLOWLOG_LEN, "len", 2, "Returns the number of entries")                                                \
    X(SLOWLOG, SLOWLOG_RESET, "reset", 2, "Forgets all entries")                                                      \
    X(SLOWLOG, SLOWLOG_HELP, "help", 2, "Prints this help")                                                           \
    X(LATENCY, LATENCY_LATEST, "latest", 2, "Returns each event's newest and longest time")                           \
    X(LATENCY, LATENCY_HISTORY, "history", 3, "Returns the newest times of an event")                                 \
    X(LATENCY, LATENCY_RESET, "reset", -2, "Forgets the times of all events, or of those named")                      \
    X(LATENCY, LATENCY_HISTOGRAM, "histogram", -2, "Returns how long commands took: all, or those named")             \
    X(LATENCY, LATENCY_DOCTOR, "doctor", 2, "Returns what was slow, in words")                                        \
    X(LATENCY, LATENCY_HELP, "help", 2, "Prints this help")                                                           \
    X(OBJECT, OBJECT_ENCODING, "encoding", 3, "Returns how Redis would hold the value")                               \
    X(OBJECT, OBJECT_FREQ, "freq", 3, "Refused: how often keys are read is not noted")                                \
    X(OBJECT, OBJECT_IDLETIME, "idletime", 3, "Refused: when keys were read is not noted")                            \
    X(OBJECT, OBJECT_REFCOUNT, "refcount", 3, "Returns 1: values are not shared")                                     \
    X(OBJECT, OBJECT_HELP, "help", 2, "Prints this help")                                                             \
    X(MEMORY, MEMORY_USAGE, "usage", -3, "Returns the bytes of a key's row in memory at a replica")                   \
    X(MEMORY, MEMORY_HELP, "help", 2, "Prints this help")                                                             \
    X(COMMAND, COMMAND_COUNT, "count", 2, "Returns the number of commands")                                           \
    X(COMMAND, COMMAND_DOCS, "docs", -2, "Returns documentation of commands")                                         \
    X(COMMAND, COMMAND_INFO, "info", -2, "Returns arity, flags and keys of commands")                                 \
    X(COMMAND, COMMAND_LIST, "list", -2, "Returns the names of all commands")                                         \
    X(COMMAND, COMMAND_GETKEYS, "getkeys", -3, "Returns the keys of a full command")                                  \
    X(COMMAND, COMMAND_HELP, "help", 2, "Prints this help")
/* clang-format on */

enum subcommand_id {
    SUBCOMMAND_NONE = 0,
#define SUBCOMMAND_ENUM(container, id, name, arity, summary) SUBCOMMAND_##id,
    SUBCOMMAND_MAP(SUBCOMMAND_ENUM)
#undef SUBCOMMAND_ENUM
    SUBCOMMAND_END,
};

struct command_spec {
    enum command_id id;
    const char *name; /* lower case */
    int8_t arity;
    uint16_t flags;
    int8_t key_first;
    int8_t key_last;
    int8_t key_step;
    const char *group;
    const char *summary;
};

struct subcommand_spec {
    enum command_id container;
    enum subcommand_id id;
    const char *name;
    int8_t arity;
    const char *summary;
};

/* What a command with this name is (any case), or NULL. */
const struct command_spec *command_find(struct span name);

/* The spec of an id from 1 to COMMAND_NAMED_COUNT. */
const struct command_spec *command_spec_of(enum command_id id);

/* The subcommand of a container (CLIENT, CLUSTER, CONFIG, SLOWLOG, LATENCY, COMMAND), or NULL. */
const struct subcommand_spec *subcommand_find(enum command_id container, struct span name);

/* The spec of an id from 1 to SUBCOMMAND_END - 1. */
const struct subcommand_spec *subcommand_spec_of(enum subcommand_id id);

/* Whether the subcommand names one key, as its first argument: it then is a command on a key, and only reads. */
bool subcommand_names_key(enum subcommand_id id);

/* Why Rondo refuses a command that Redis has. */
enum command_refusal {
    COMMAND_REFUSAL_NONE = 0,
    COMMAND_REFUSAL_ATOMIC,      /* needs an atomic read-modify-write of one key */
    COMMAND_REFUSAL_TRANSACTION, /* needs several commands or keys to take effect as one */
    COMMAND_REFUSAL_TYPE,        /* works on a data type other than bytes */
    COMMAND_REFUSAL_DEBUG,       /* makes a server misbehave, for tests of it */
};

/* NONE for a name that Redis does not have or that Rondo knows or that is just not built. */
enum command_refusal command_refusal_of(struct span name);

/* Whether argc arguments, name included, suit an arity. */
static inline bool command_arity_fits(int arity, uint32_t argc)
{
    return arity >= 0 ? argc == (uint32_t)arity : argc >= (uint32_t)-arity;
}

/* How many keys a command with argc arguments names; argc must suit its arity. */
uint32_t command_keys_count(const struct command_spec *spec, uint32_t argc);

#endif
