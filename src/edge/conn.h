/* One TCP connection with bounded buffers: what client connections, peer connections and links have in common.
 *
 * Input is parsed right out of the loop's shared read buffer; only what is left unconsumed is copied and kept, and a
 * connection without a partial command holds no buffer. Output is written at once; only what the socket did not take
 * is copied and written as the socket drains.
 *
 * Carrying out an effect must never step the shard. So whatever a connection learns meanwhile (a failed write, the
 * last byte written) is noted, and its `settle` handler is called from conn_pool_settle, outside of any effect.
 * Belongs to one loop. */
#ifndef RONDO_EDGE_CONN_H
#define RONDO_EDGE_CONN_H

#include <uv.h>

#include "base/list.h"
#include "base/span.h"

/* The loop's shared read buffer: one read of libuv. */
#define CONN_READ_BYTES (64u << 10)

/* A connection with more unsent output than this is not read from until half of it is gone: who does not read
 * answers may not ask for more. With little memory the mark is this part of the pool: sixteen such connections fill
 * half of it. */
#define CONN_OUTPUT_PAUSE_BYTES (1u << 20)
#define CONN_OUTPUT_PAUSE_DIVISOR 32u

/* What one read takes may have to be kept, when its connection waits for its turn. So that all connections together
 * keep no more than this part of the pool (half of what clients may fill), a read takes at most a connection's share
 * of that, and no less than the bytes below: a command of usual size. */
#define CONN_READ_DIVISOR 4u
#define CONN_READ_BYTES_MIN 512u

struct conn;

struct conn_handler {
    /* Bytes arrived: all that was kept, and what is new. Sets how many were used, and the least total to wait for
     * (0 = any). May send, pause and end, but not close. */
    void (*bytes)(struct conn *conn, struct span bytes, size_t *consumed, size_t *need);
    /* Its input is past in_max or the pool's memory; some of it is lost. NULL: the connection fails. */
    void (*overflow)(struct conn *conn);
    /* The other side will send nothing more. */
    void (*end)(struct conn *conn);
    /* Called outside of effects after conn_settle_later, a failure (conn->failure is set) or the last byte of
     * queued output was written. */
    void (*settle)(struct conn *conn);
    /* After conn_close: the memory may be freed. */
    void (*closed)(struct conn *conn);
    /* There is no memory for its output. True: something was freed for it. NULL: the connection fails. */
    bool (*starved)(struct conn *conn);
};

/* What the connections of one loop share. */
struct conn_pool {
    uv_loop_t *uv;
    struct alloc alloc; /* of all buffers */
    struct list_link unsettled;
    uint32_t count; /* connections */
    uint8_t read_buffer[CONN_READ_BYTES];
};

enum conn_pause {
    CONN_PAUSE_OUTPUT = 1,   /* too much unsent output */
    CONN_PAUSE_MOVING = 2,   /* the link is leaving for another shard */
    CONN_PAUSE_STOPPING = 4, /* the node stops */
    CONN_PAUSE_SHARD = 8,    /* the shard takes no further commands for now */
};

struct conn {
    uv_tcp_t tcp;
    uv_write_t write;
    struct conn_pool *pool;
    const struct conn_handler *handler;
    struct list_link unsettled;
    struct buf in;  /* unconsumed bytes */
    size_t in_need; /* least total before the handler is called again */
    size_t in_max;
    struct buf flying;  /* being written by libuv */
    struct buf waiting; /* to be written afterwards */
    size_t out_max;
    size_t leave_free;   /* of the pool's memory: its buffers grow no further than this */
    uint64_t received;   /* bytes, in all */
    uint64_t queued;     /* bytes that the socket did not take at once, in all */
    const char *failure; /* why the connection is lost; static text */
    unsigned pauses;     /* enum conn_pause */
    bool reading;
    bool started;
    bool ended;   /* the other side sent its end */
    bool discard; /* input is read and thrown away */
    bool overrun; /* it failed for its output */
    bool closing;
};

void conn_pool_init(struct conn_pool *pool, uv_loop_t *uv, size_t buffer_bytes_max);

/* Calls settle for every connection that asked for it, until none is left. */
void conn_pool_settle(struct conn_pool *pool);

/* in_max bounds unconsumed input, out_max unsent output. Returns a libuv error; on one nothing is open. */
int conn_init(struct conn *conn, struct conn_pool *pool, const struct conn_handler *handler, size_t in_max,
              size_t out_max);

/* Starts to read. */
void conn_start(struct conn *conn);
void conn_pause(struct conn *conn, enum conn_pause reason);
void conn_resume(struct conn *conn, enum conn_pause reason);

/* Writes or queues the bytes. Past out_max, or past the pool's memory, the connection fails. Dropped on a
 * connection that has failed. */
void conn_send(struct conn *conn, struct span bytes);

/* Unsent bytes. */
size_t conn_output_bytes(const struct conn *conn);

/* Forgets the unsent bytes that are not being written; the connection must have failed. */
void conn_drop_output(struct conn *conn);

/* Whether the connection waits for bytes of the other side, with nothing in their way. */
bool conn_listens(const struct conn *conn);

/* Takes the bytes as unconsumed input (of a moved link). */
void conn_keep(struct conn *conn, struct span bytes, size_t need);

/* Passes the kept input to the handler again. */
void conn_deliver_kept(struct conn *conn);

/* Marks it as lost and has it settled. `why` is static. */
void conn_fail(struct conn *conn, const char *why);
void conn_settle_later(struct conn *conn);

/* Closes at once; unsent output is lost, `closed` follows. One that has failed with or for it is reset.
 * Harmless when called again. */
void conn_close(struct conn *conn);

#endif
