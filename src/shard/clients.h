/* Client connections, and their commands that are under way. */
#ifndef RONDO_SHARD_CLIENTS_H
#define RONDO_SHARD_CLIENTS_H

#include "base/list.h"
#include "model/operation.h"
#include "proto/command.h"
#include "proto/http.h"
#include "proto/resp.h"
#include "shard/shard.h"

/* A part of a multi-key command. */
struct part {
    bool found;
    uint8_t *value; /* owned */
    size_t size;
};

/* A command that every shard carries out: what it was, and what they said so far (gather.c). */
struct gathering {
    struct buf question;
    struct buf answers; /* long each */
};

/* CLIENT REPLY */
enum silence {
    SILENCE_NONE = 0,
    SILENCE_NEXT, /* the next command is not answered */
    SILENCE_ALL,
};

/* A command that has been read and not been answered. */
struct pending {
    struct list_link in_order; /* of its client */
    uint64_t id;
    uint64_t begun_us;               /* when it was read */
    struct client *client;           /* NULL once it has gone */
    struct waiting_command *waiting; /* its turn has not come (key_order.h); or NULL */
    enum command_id command;
    uint16_t row;      /* where it is counted (watch.h) */
    uint16_t sections; /* INFO: which */
    uint8_t proto;
    bool silent; /* CLIENT REPLY: the client hears nothing of it */
    enum subcommand_id subcommand;
    uint8_t access;    /* enum key_access (key_order.h) */
    uint16_t slot;     /* of its last key */
    uint16_t key_size; /* of its first key */
    bool done;
    bool failed;
    bool traced; /* the answer carries the timeline */
    bool close;  /* close the connection after the answer */
    bool http;
    bool http_head;
    bool http_keep_alive;
    uint8_t http_minor;
    uint64_t slot_mask; /* a bit for each of its slots, modulo 64 */
    uint32_t parts_total;
    uint32_t parts_left;
    uint32_t trace_size;
    int64_t count;       /* DEL, EXISTS, statistics */
    int64_t range_first; /* GETRANGE */
    int64_t range_last;
    const char *found_error;     /* the answer where there is a value; NULL = the usual one */
    struct result failure;       /* of the first part that failed */
    struct part *parts;          /* MGET */
    struct stats_sum *stats;     /* INFO, DBSIZE, /status: what the shards said so far */
    struct healing_sum *healing; /* /status: likewise */
    size_t forwarded_bytes;      /* of its operations on other shards */
    uint8_t *trace;              /* owned: the timeline, once it is there */
    struct gathering *gathering; /* owned: a command of all shards */
    uint8_t *arguments;          /* owned: what an entry of the slow log would show (slowlog.c); or NULL */
    uint32_t arguments_size;
    struct buf reply;
};

/* There is no room to carry it out, or to keep its answer: that is its answer. */
static inline void pending_overloaded(struct pending *pending)
{
    pending->failed = true;
    pending->failure = (struct result){.outcome = OUTCOME_NOT_APPLIED, .status = STATUS_OVERLOADED};
}

struct client {
    uint64_t id;
    enum client_protocol protocol;
    uint8_t proto; /* RESP 2 or 3 */
    uint8_t r;     /* RONDO.CONSISTENCY */
    uint8_t w;
    uint32_t timeout_ms;
    bool sloppy;
    bool broken;  /* nothing more is read */
    bool closing; /* and nothing more is answered: closed after what is in `out` */
    bool paused;
    bool held_back; /* finished answers wait until those in `out` have left */
    bool in_dirty;  /* has output to be given out at the turn's end */
    bool gone;      /* there is nobody to answer, but commands that wait for their turn */
    uint32_t pending_count;
    uint32_t reads;           /* those that only read, and are not done */
    uint32_t ordered;         /* those that read first, and those that wait: not 0 while order needs care */
    uint32_t waiting_count;   /* those that wait */
    struct list_link pending; /* in order */
    struct list_link woken;   /* something of it is done, and something waits */
    struct list_link dirty;
    struct resp_parser resp;
    struct http_parser *http;
    struct buf out;
    uint64_t opened_us; /* monotonic; likewise active_us: when it last sent something */
    uint64_t active_us;
    size_t unread; /* of what it sent: the beginning of a command, or commands that wait for their turn */
    size_t unsent; /* of what it was answered, as the world last told */
    enum silence silence;
    uint16_t last_row; /* of its last command: watch_command_name() */
    int descriptor;
    bool no_evict;
    bool no_touch;
    char address[CLIENT_ADDRESS_BYTES_MAX];
    char local[CLIENT_ADDRESS_BYTES_MAX];
    uint8_t name_size;
    uint8_t lib_name_size;
    uint8_t lib_version_size;
    char name[NAME_BYTES_MAX];
    char lib_name[NAME_BYTES_MAX];
    char lib_version[NAME_BYTES_MAX];
};

#endif
