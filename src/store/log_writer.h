/* The writing side of the node's one log, as a pure state machine.
 *
 * Shards' batches are framed into a pending buffer as they come. log_writer_next_io says what the world must do
 * next, one thing at a time; log_writer_io_done reports it done. Whatever was appended while one write and sync
 * were under way goes into the next write, under the next sync: group commit.
 *
 * Invariants (DESIGN 4, 5 of §7): a segment is synced to its end before anything is written to the next one; an end
 * is named durable only after a sync that began after it was written; segments go strictly oldest first, each only
 * when every shard has everything in it in the cold tier and a later segment is durable; files on disk always have
 * contiguous numbers (spares are the oldest files, recycled oldest first), except for what recovery cut off.
 *
 * After recovery a shard counts all recovered rows as sequence 1 and starts its batches at sequence 2: inherited
 * segments count as sequence 1 of every shard. Belongs to one thread. */
#ifndef RONDO_STORE_LOG_WRITER_H
#define RONDO_STORE_LOG_WRITER_H

#include "store/log_format.h"

/* The sequence of everything that was in the log at the start. */
#define LOG_SEQUENCE_INHERITED 1u

struct log_writer_options {
    struct alloc *alloc;
    struct log_identity identity;
    uint16_t shards;
    uint64_t segment_bytes;     /* LOG_SEGMENT_BYTES_DEFAULT; at least 2 * LOG_HEADER_BYTES */
    uint64_t pending_bytes_max; /* an append past this is refused while something is pending */
    uint32_t spares_max;        /* old segments kept for recycling */
    bool sync_always;      /* sync after every write; else only when a segment ends or log_writer_sync asks */
    uint64_t segment_next; /* the following as recovery reported them (1, 1, zeros for a new log) */
    uint64_t batch_next;
    struct log_place end;
    struct hlc_bounds bounds;
    const uint64_t *inherited; /* numbers of the files on disk up to end.segment, ascending; not kept */
    size_t inherited_count;
};

enum log_io_kind {
    LOG_IO_CREATE = 1, /* make segment, preallocated to size bytes; its name must be durable when done */
    LOG_IO_RECYCLE =
        2, /* rename the file of segment_old to segment; likewise; its bytes may stay as they are */
    LOG_IO_WRITE = 3,  /* write bytes at offset of segment */
    LOG_IO_SYNC = 4,   /* make all that was written to segment durable */
    LOG_IO_DELETE = 5, /* remove the file of segment; must be durable before the next DELETE or RECYCLE is */
};

struct log_io {
    enum log_io_kind kind;
    uint64_t segment;
    uint64_t segment_old;
    uint64_t offset;
    uint64_t size;     /* CREATE: of the file */
    struct span bytes; /* WRITE: view, valid until log_writer_io_done */
};

struct log_writer_segment {
    uint64_t number;
    uint64_t bytes;                /* of the file; 0 = not known */
    uint64_t sequence[SHARDS_MAX]; /* highest of each shard in it */
};

/* A stretch of the pending or in-flight buffer that goes to one segment. */
struct log_writer_stretch {
    uint64_t segment;
    uint64_t offset;
    size_t begin; /* in the buffer */
    size_t size;
    struct log_place end_of_batches; /* end of its last batch that is not a marker; zeros if it has none */
    uint64_t sequence[SHARDS_MAX];   /* highest of each shard in it; 0 = none */
};

/* Stretches of one buffer: pending bytes may span several segments. */
#define LOG_STRETCHES_MAX 16

struct log_writer_group {
    struct buf bytes;
    struct log_writer_stretch stretches[LOG_STRETCHES_MAX];
    uint32_t stretch_count;
    uint32_t stretch_at; /* in flight: the next to write */
};

struct log_writer {
    struct alloc *alloc;
    struct log_identity identity;
    uint16_t shards;
    uint64_t segment_bytes;
    uint64_t pending_bytes_max;
    uint32_t spares_max;
    bool sync_always;
    bool disk_full;

    struct log_writer_group groups[2]; /* one is being written, the other takes appends */
    uint8_t group_writing;

    struct log_place append_at; /* where the next batch goes; segment 0 before the first */
    uint64_t append_capacity;   /* file size of append_at.segment */
    uint64_t segment_next;
    uint64_t batch_next;
    struct log_place end; /* end of the last framed batch */
    struct hlc_bounds bounds;

    uint64_t created;               /* the newest segment whose file exists */
    struct log_place written;       /* end of what is written */
    struct log_place written_batch; /* end of the last written batch that is not a marker */
    struct log_place durable;
    struct log_place named;       /* the highest durable end that a framed batch or header names */
    struct log_place sync_target; /* log_writer_sync asked for durability up to here */
    uint64_t sequence_written[SHARDS_MAX];
    uint64_t sequence_durable[SHARDS_MAX];
    uint64_t sequence_flushed[SHARDS_MAX];

    struct log_writer_segment *segments; /* on disk or to be created, ascending */
    uint32_t segment_count;
    uint32_t segment_capacity;

    struct log_io io; /* under way when io_busy */
    bool io_busy;
};

/* OVERLOADED when there is no memory for the list of inherited segments. The caller has synced what recovery read,
 * cut the file of end.segment off at end.offset and deleted every later file. */
MUST_CHECK enum status log_writer_init(struct log_writer *writer, const struct log_writer_options *options);
void log_writer_free(struct log_writer *writer);

struct log_append {
    uint16_t shard;
    uint64_t sequence;   /* rises with each batch of the shard; above LOG_SEQUENCE_INHERITED */
    uint32_t entries;    /* in the payload */
    struct span payload; /* made by log_put_...; copied */
    bool has_bounds;     /* the payload has a BOUNDS entry: segment headers repeat the highest */
};

/* Frames one batch. OVERLOADED: too much is pending or no memory, nothing has changed; TOO_LARGE: payload past
 * LOG_PAYLOAD_BYTES_MAX. */
MUST_CHECK enum status log_writer_append(struct log_writer *writer, const struct log_append *append);

/* The next thing to do; false when there is none now or one is under way. */
bool log_writer_next_io(struct log_writer *writer, struct log_io *io);

/* Whether that is a write. */
bool log_writer_wants_write(const struct log_writer *writer);

/* What became of it. Returns OK to go on. DISK_FULL given for CREATE, RECYCLE or WRITE: returned as it is, the
 * batches stay pending and it is tried again after log_writer_retry (deletions still happen). Anything else that
 * failed: IO_ERROR is returned and the caller must end the process, since after a failed sync nobody knows what the
 * disk holds. */
MUST_CHECK enum status log_writer_io_done(struct log_writer *writer, enum status status);

/* Highest sequence of the shard that is written, or durable. */
uint64_t log_writer_written(const struct log_writer *writer, uint16_t shard);
uint64_t log_writer_durable(const struct log_writer *writer, uint16_t shard);

/* Whether there is nothing to do and nothing under way. */
bool log_writer_idle(const struct log_writer *writer);
bool log_writer_disk_full(const struct log_writer *writer);
void log_writer_retry(struct log_writer *writer);

/* Asks for a sync of everything appended so far, markers included (a timer of durability interval; a clean stop). */
void log_writer_sync(struct log_writer *writer);

/* Idle timer, and before a clean stop: if no batch names the last durable end yet, writes an empty one that does,
 * so that damage of the last batch can be told from a torn tail. Does nothing unless idle. OVERLOADED: no memory. */
MUST_CHECK enum status log_writer_mark(struct log_writer *writer);

/* Everything of the shard up to this sequence is in the cold tier. */
void log_writer_flushed(struct log_writer *writer, uint16_t shard, uint64_t sequence);

#endif
