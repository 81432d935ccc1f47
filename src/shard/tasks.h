/* What a shard does with one row, and what waits meanwhile: tasks, cold reads, the open log batch, the flush. For the
 * files of this folder only; storage.c and durable.c do it. */
#ifndef RONDO_SHARD_TASKS_H
#define RONDO_SHARD_TASKS_H

#include "model/record.h"
#include "model/stamp.h"
#include "store/flush.h"

/* Where an answer of this replica goes: to a coordinator here (node 0) or elsewhere. */
struct replica_origin {
    uint64_t node;
    uint64_t request;
    uint8_t shard;
    uint8_t kind; /* of node 0: enum origin_kind */
};

enum origin_kind {
    ORIGIN_REQUEST = 0, /* a request coordinated here */
    ORIGIN_INITIATING,  /* a merge of the exchange begun here; request: its session */
    ORIGIN_SERVING,     /* a merge of an exchange served; request: its number */
    ORIGIN_ROWS,        /* a page of rows; request: its number */
    ORIGIN_NOBODY,
};

enum task_kind {
    TASK_PUT = 1,
    TASK_GET,
    TASK_ERASE,      /* purge: the row goes if it is still of this version */
    TASK_DROP,       /* purged elsewhere: the row goes if its stamps are not above the floor */
    TASK_HINT_PUT,   /* from here on the key is a reserved one: a hint's */
    TASK_HINT_GET,   /* answers as TASK_GET, but never "not found" */
    TASK_HINT_ERASE, /* the hint goes if it is still of this version */
};

/* One thing to do with one row of this replica. */
struct task {
    enum task_kind kind;
    struct replica_origin origin;
    uint64_t deadline_ms;
    uint32_t hash; /* memtable_hash of a key that is not reserved, if it is known; else 0 */
    uint16_t slot;
    bool digest;
    bool write_back;
    bool repair;            /* PUT: by anti-entropy, from a replica with this purge floor */
    bool counted;           /* HINT_PUT: it counts towards a sloppy W */
    struct stamp floor;     /* of a repair's sender, or DROP */
    struct version version; /* ERASE, HINT_ERASE */
    struct span key;
    struct span record; /* PUT, HINT_PUT */
};

/* What this replica holds of a key: a resident row, or what the cold tier said. */
struct held {
    struct span record;
    uint64_t sequence;
    bool in_cold;
    bool unseen; /* nobody has looked what the cold tier holds: whatever it is, it is older (blind.c) */
};

/* A row on its way into memtable and log. */
struct stored {
    uint32_t hash; /* memtable_hash of a key that is not reserved, if it is known; else 0 */
    uint16_t slot;
    bool reserved;
    bool live;
    bool in_cold;
    struct span key;
    struct span record;     /* empty: the row is erased */
    struct version version; /* of the row erased, unless it is a reserved one */
};

/* What a replica says to a task. */
struct replica_answer {
    enum task_kind kind;
    enum status status;
    bool was_live;
    bool has_record;
    struct version version;
    struct span record;
};

/* An answer that waits until the log is durable up to a sequence. */
struct waiter {
    uint64_t sequence;
    struct replica_origin origin;
    struct replica_answer answer;
    uint8_t *record; /* owned copy of answer.record, or NULL */
};

struct waiter_queue {
    struct waiter *items; /* ring buffer */
    uint32_t capacity;    /* a power of two, or 0 */
    uint32_t first;
    uint32_t count;
};

/* A task that waits for a cold read; owns its bytes, which follow it. */
struct cold_waiter {
    struct cold_waiter *next;
    size_t size;
    struct task task;
};

/* A cold read under way. Tasks on its key wait in order. */
struct cold_read {
    uint64_t ticket;
    uint32_t hash;
    uint64_t asked_us;
    struct cold_read *next; /* in its bucket */
    struct cold_waiter *first;
    struct cold_waiter **last;
    uint32_t cold_key_size;
    uint16_t slot;       /* of all its waiters; there is none when there was no memory for the first */
    uint8_t prefix_size; /* 0: a reserved key, which is its own cold key */
    uint8_t cold_key[];  /* prefix, then the key */
};

#define COLD_BUCKETS 1024u

/* Batches appended and not durable yet, and clock bounds on their way. */
struct batch_note {
    uint64_t sequence;
    uint64_t bytes;
    uint64_t given_us;
    bool has_bounds;
    struct hlc_bounds bounds;
};

struct log_state {
    uint64_t open; /* sequence of the batch being gathered */
    uint64_t durable;
    struct buf payload;
    uint32_t entries;
    bool has_bounds;
    struct hlc_bounds bounds;
    bool full; /* the disk is; writes are refused */
    uint64_t unsynced_bytes;
    struct batch_note *notes; /* ring buffer */
    uint32_t notes_capacity;
    uint32_t notes_first;
    uint32_t notes_count;
    uint64_t flushed; /* as last told to the world */
    bool emitted;     /* the payload has been given out: clear it at the next step */
};

struct flush_state {
    struct flush_job job;
    bool running;      /* there is a job */
    bool settling;     /* it is in the cold tier; rows are being made clean */
    bool failing;      /* it did not get there; rows are being made dirty as before */
    bool wanted;       /* writes find no room */
    bool was_running;  /* at the last turn's end */
    uint32_t trees_at; /* the trees of the slots before this place are in the job */
    bool trees_done;
    bool given_out;     /* the world has the job */
    uint64_t bytes_max; /* of the next job, since there was no memory for a larger one; 0: as large as any */
    uint32_t good;      /* jobs that had memory, since bytes_max changed */
    uint64_t held_for;  /* the job is not given out before the log is durable up to this batch */
    uint64_t begun_us;  /* when the job was made */
    uint64_t clean_us;  /* when nothing was dirty, or the last flush began */
    uint64_t retry_us;  /* not before this, after a failure */
};

#endif
