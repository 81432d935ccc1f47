/* A lane: writes that travel one after the other, over one pipelined RESP connection, until each is acknowledged.
 *
 * Rows of one key always share a lane, and a lane keeps their order, also over failures: the first write that is
 * not acknowledged, and all after it, are sent again ("go back n"), if need be to another node. So the last row of a
 * key in the file wins, and a write that is sent twice does no harm. How much is on the way follows what the node
 * takes: refusals halve the window, acknowledgements widen it. */
#ifndef RONDO_CLI_LANE_H
#define RONDO_CLI_LANE_H

#include "cli/row_text.h"

/* Writes waiting in one lane, and their bytes (a larger one is taken alone). Enough to keep a node busy while the
 * next rows are parsed. */
#define LANE_COMMANDS_MAX 1024u
#define LANE_BYTES_MAX (4u << 20)

/* Writes on the way. Nodes take up to 1024 of a client; beyond this, nothing is gained. */
#define LANE_WINDOW_MAX 256u

#define LANE_TEXT_BYTES_MAX 256

/* What all lanes share; it outlives them. */
struct lane_options {
    const char *const *targets; /* RESP addresses, "host:port" */
    uint16_t target_count;
    struct span preface; /* a command that opens each connection; may be empty */
};

enum lane_state {
    LANE_CLOSED,
    LANE_CONNECTING,
    LANE_READY,
};

struct lane_command {
    size_t size;
    uint64_t offset; /* of its line in the file */
    uint64_t line;
};

struct lane {
    const struct lane_options *options;
    enum lane_state state;
    int fd;
    uint16_t target;
    bool preface_answered;
    size_t preface_sent;
    bool draining; /* a write was refused for now: answers are awaited and ignored, then all are sent again */
    uint32_t ignored;  /* answers ignored so far */
    bool move;         /* then to another node */
    bool refused;      /* the head was refused for good; lane_skip or the end follows */
    struct buf output; /* the encoded writes, from head_at */
    size_t head_at;
    size_t sent;           /* bytes sent, from the head on */
    size_t admitted_bytes; /* of the admitted writes */
    uint32_t admitted;     /* writes that may be sent, from the head on */
    uint32_t window;
    uint32_t window_acked;
    struct buf input;
    struct lane_command commands[LANE_COMMANDS_MAX]; /* a ring */
    uint32_t head;
    uint32_t count;
    uint64_t acked;
    uint64_t retry_at_ms;
    uint64_t backoff_ms;
    uint64_t heard_ms;    /* when the node last said something, or the first of what is on the way was sent */
    uint64_t progress_ms; /* when a write was last acknowledged, or the lane ceased to be empty */
    char trouble[LANE_TEXT_BYTES_MAX]; /* the last thing that went wrong; empty after an acknowledgement */
};

void lane_init(struct lane *lane, struct alloc *alloc, const struct lane_options *options, uint16_t target);
void lane_free(struct lane *lane);

/* Appends SET key value [PX ttl]. OVERLOADED: the lane is full, or (if it is empty) there is no memory. */
MUST_CHECK enum status lane_add(struct lane *lane, const struct plain_row *row, uint64_t offset,
                                uint64_t line, uint64_t now_ms);

/* What to poll the lane's fd for; 0 = not at all. */
short lane_events(const struct lane *lane);

/* Does what can be done: `revents` is what poll answered. */
void lane_turn(struct lane *lane, short revents, uint64_t now_ms);

/* The refused head is given up. */
void lane_skip(struct lane *lane);

/* The write that waits longest, or NULL. */
const struct lane_command *lane_head(const struct lane *lane);

/* Whether the text of a RESP error, without '-', says that the same write may succeed later or elsewhere. */
bool lane_error_passes(struct span text);

#endif
