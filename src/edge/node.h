/* A running node: its shards' loops and threads, listeners, log thread and cold tier, from start to clean stop.
 *
 * node_run takes over the calling thread (it becomes shard 0's) until SIGTERM or SIGINT has stopped the node:
 *  1. SIGPIPE is ignored, the limit of open files raised, every listening address bound (a port in use is told
 *     before any recovery starts);
 *  2. the shards are made and recovered from the log (data_dir.h);
 *  3. the log thread starts, the listeners open, one thread and one libuv loop per shard run;
 *  4. on a signal nothing new is accepted or read, requests in flight may end (STOP_WAIT_MS), the loops close,
 *     the log is flushed. The caller's data_dir_close then notes the clean stop.
 * A second signal skips the wait. Threads share nothing mutable but the inboxes, the log thread's queue, the
 * cold tier (thread safe) and one atomic count of open client connections. */
#ifndef RONDO_EDGE_NODE_H
#define RONDO_EDGE_NODE_H

#include "edge/client_watch.h"
#include "edge/data_dir.h"
#include "edge/say.h"

struct node_options {
    const char *resp_address; /* "host:port", "[ipv6]:port" */
    const char *http_address;
    const char *resp_advertise; /* what clients are told */
    const char *http_advertise;
    const char *peer_address;
    uint16_t shards;     /* 1 .. SHARDS_MAX */
    size_t memory_bytes; /* for shards and connection buffers; the cold tier's is the caller's affair */
    size_t resident_max; /* what the process should take at most, as the system counts it; 0 = whatever */
    struct client_limits limits;
    enum durability_mode durability;
    uint32_t durability_interval_ms; /* with DURABILITY_INTERVAL */
    uint32_t key_bytes_max;
    uint32_t value_bytes_max;
    uint32_t clock_skew_max_ms;
    uint32_t request_timeout_ms;
    struct shard_healing healing;
    bool blind_writes;
    struct say_sink say;
    uint64_t started_wall_ms;
    struct node_about about; /* its texts outlive node_run */
    struct watch_bounds watch;
    uint64_t seed; /* of the shards' random generators; from the operating system */
    /* From data_dir_open; the caller closes it afterwards with clean = (the answer was OK). */
    struct data_dir *dir;
};

/* Bounds what the C library's allocator keeps for itself, as far as it lets; before the first thread is started. */
void node_bound_arenas(uint16_t shards);

/* Runs the node. OK after a clean stop. Anything else is a failure to start or to stop, and `why` then holds one
 * sentence for people, such as "cannot listen on 127.0.0.1:7379 (--resp): address already in use; stop the other
 * process or choose another port". */
MUST_CHECK enum status node_run(const struct node_options *options, struct buf *why);

#endif
