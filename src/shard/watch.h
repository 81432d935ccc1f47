/* What a shard notes for the people who look after a node: commands by name, error replies, the slow log, and the
 * latency monitor's events.
 *
 * Every command is counted with its time, from when it was read to when its answer was ready: one addition for those
 * that are answered at once, and one comparison for the others, with the least time that anybody wants to hear of. A
 * shard notes what happened to its own clients; a question to the node goes to all its shards (gather.c). */
#ifndef RONDO_SHARD_WATCH_H
#define RONDO_SHARD_WATCH_H

#include "base/limits.h"
#include "base/list.h"
#include "proto/command.h"

/* Events of the latency monitor. */
enum watch_event {
    WATCH_COMMAND = 0, /* from reading a command to its answer */
    WATCH_LOG_SYNC,    /* from giving a batch to the log until it is durable */
    WATCH_COLD_READ,   /* from asking the cold tier for a record to its answer */
    WATCH_FLUSH,       /* from freezing rows until they are in the cold tier */
    WATCH_LOOP_TURN,   /* a turn of the shard's thread, in which nothing else of it moves */
    WATCH_EVENTS_COUNT,
};

/* Commands and subcommands have one row of numbers each. */
#define WATCH_COMMANDS ((unsigned)COMMAND_ID_END + (unsigned)SUBCOMMAND_END)

/* Times fall into the bucket of their highest bit; 2^27 us is two minutes. */
#define WATCH_BUCKETS 28u

struct command_figures {
    uint64_t took[WATCH_BUCKETS]; /* calls, by their time; bucket 0 has those answered at once */
    uint64_t us;                  /* of all of them */
    uint64_t rejected;            /* before they were begun */
    uint64_t failed;              /* answered with an error */
};

/* First words of error replies. X(text) */
#define WATCH_ERRORS(X) \
    X("ERR")            \
    X("NOPROTO")        \
    X("WRONGPASS")      \
    X("CLUSTERDOWN")    \
    X("TRYAGAIN")       \
    X("OVERLOADED") X("UNKNOWN") X("TIMEOUT") X("CLOCK_SKEW") X("QUARANTINED") X("DISK_FULL") X("OTHER")
#define WATCH_ONE_MORE(text) +1u
#define WATCH_ERRORS_COUNT (0u WATCH_ERRORS(WATCH_ONE_MORE))

/* What is counted for INFO and can be begun anew (CONFIG RESETSTAT). */
struct watch_figures {
    uint64_t commands;
    uint64_t connections;
    uint64_t refused_connections;
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t reads[2]; /* of keys that there are not, and are */
    /* In a second, lately. */
    uint64_t commands_rate;
    uint64_t bytes_in_rate;
    uint64_t bytes_out_rate;
    uint64_t errors[WATCH_ERRORS_COUNT];
    struct command_figures command[WATCH_COMMANDS];
};

/* Rates are over the last samples, one each tick: about 1.6 seconds. */
#define WATCH_SAMPLES 8u

struct watch_sample {
    uint64_t at_us;
    uint64_t commands;
    uint64_t bytes_in;
    uint64_t bytes_out;
};

/* A ring of times of one event; those of the same second are one, the longest. */
struct latency_sample {
    uint64_t at_s;
    uint64_t ms;
};

struct latency_series {
    uint32_t count;
    uint32_t next;
    uint64_t max_ms;
    struct latency_sample samples[LATENCY_SAMPLES_MAX];
};

/* Bounds that CONFIG SET may change. */
struct watch_bounds {
    bool log_off;          /* slowlog-log-slower-than is negative */
    uint64_t slower_us;    /* slowlog-log-slower-than */
    uint32_t entries_max;  /* slowlog-max-len */
    uint64_t threshold_ms; /* latency-monitor-threshold; 0 = off */
};

struct watch {
    struct watch_bounds bounds;
    uint64_t log_us;   /* a command that took so long goes to the slow log; UINT64_MAX = none does */
    uint64_t event_us; /* likewise an event of the latency monitor, which a command is too */
    uint64_t slow_us;  /* the lesser of the two */
    struct watch_figures figures;
    uint64_t
        commands_before; /* of shard_counters.commands, when figures were begun; likewise of node_facts */
    uint64_t refused_before;
    struct watch_sample samples[WATCH_SAMPLES];
    uint32_t samples_taken;
    struct latency_series series[WATCH_EVENTS_COUNT];
    struct list_link slow; /* entries of the slow log, oldest first */
    uint32_t slow_count;
    size_t slow_bytes;
    uint64_t slow_serial;
};

struct shard;
struct pending;
struct client;
struct request;

/* watch.c */
void watch_init(struct shard *shard, const struct watch_bounds *bounds);
void watch_free(struct shard *shard);
void watch_set(struct shard *shard, const struct watch_bounds *bounds);
/* Where a command is counted. */
static inline uint16_t watch_row(enum command_id id, enum subcommand_id subcommand)
{
    return (uint16_t)(subcommand == SUBCOMMAND_NONE ? (unsigned)id
                                                    : (unsigned)COMMAND_ID_END + (unsigned)subcommand);
}

/* A command was answered after took_us > 0, or with an error. watch_answered() in state.h sees to the others. */
void watch_answered_late(struct shard *shard, struct pending *pending, uint64_t took_us);
uint64_t watch_calls(const struct command_figures *command);
/* A command that was known was refused before it was begun. */
void watch_rejected(struct shard *shard, const struct command *command);
void watch_tick(struct shard *shard);
void watch_reset(struct shard *shard);
/* "get", "client|list"; false for what has no name. */
bool watch_command_name(uint32_t index, struct buf *name);
const char *watch_error_name(uint32_t index);
/* A body of bounded size, and adding it up. */
void watch_figures_put(struct shard *shard, struct buf *body);
void watch_figures_add(struct reader *body, struct watch_figures *sum);

/* latency.c */
void latency_note(struct shard *shard, enum watch_event event, uint64_t took_us);
void latency_answer(struct shard *shard, const struct command *command, struct buf *body);
void latency_reply(struct shard *shard, struct pending *pending, const struct command *command);
/* commandstats' times of LATENCY HISTOGRAM. */
void latency_histogram(const struct watch_figures *figures, const struct command *command, uint8_t proto,
                       struct buf *reply);

/* slowlog.c */
/* Keeps of a command what an entry would show, in case it takes long. Without memory it is not kept. */
void slowlog_keep(struct shard *shard, struct pending *pending, uint32_t argc, const struct span *argv);
/* The request of a plain GET or SET (slowlog_plain() in state.h) took long: keeps it after all. */
void slowlog_request(struct shard *shard, const struct request *request);
void slowlog_add(struct shard *shard, const struct pending *pending, uint64_t took_us);
void slowlog_trim(struct shard *shard);
void slowlog_reset(struct shard *shard);
void slowlog_answer(struct shard *shard, const struct command *command, struct buf *body);
void slowlog_reply(struct shard *shard, struct pending *pending, const struct command *command);

#endif
