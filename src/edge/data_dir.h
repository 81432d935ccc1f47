/* The data directory: who may use it, what it remembers, and how a node comes back from it.
 *
 *     DIR/lock          held while a rondod runs
 *     DIR/meta          identity and state (store/meta.h), replaced atomically
 *     DIR/durability    what the last run promised, and what it made (durability_note.h)
 *     DIR/log/N.log     the write-ahead log's segments, N with twelve digits
 *     DIR/cold/         RocksDB
 *     DIR/cold-damaged  that cold/ is damaged and to be rebuilt (cold_damage.h)
 *     DIR/cold-tmp/     tables on their way into it
 *     DIR/quarantine/   damaged segments, kept for people; never deleted
 *
 * Start: data_dir_open (locks, checks, reads the log once to learn what it holds and whether it is whole, and
 * persists what that means: new actor id, quarantined slots), then one shard_new for each shard with
 * dir->meta and dir->bounds, then data_dir_recover (merges the log's rows into the shards), then
 * log_thread_start with dir->log. */
#ifndef RONDO_EDGE_DATA_DIR_H
#define RONDO_EDGE_DATA_DIR_H

#include "base/span.h"
#include "edge/cold.h"
#include "edge/cold_damage.h"
#include "edge/durability_note.h"
#include "edge/log_thread.h"
#include "model/stamp.h"
#include "ring/ring.h"
#include "shard/shard.h"
#include "store/log_recovery.h"
#include "store/meta.h"

struct data_dir_options {
    const char *path;
    const char *name;           /* of this node; NULL = not given: the meta's */
    const struct ring *initial; /* what --initial-cluster says, or the one-node ring */
    bool initial_given; /* whether --initial-cluster was given: only then is it compared with the meta */
    uint16_t shards;    /* K of this run */
    enum durability_mode durability;
    size_t cold_memory_bytes;
    void *context;
    void (*say)(void *context, enum say_level level,
                const char *text); /* one line; called by open and recover, and on damage from any thread */
};

struct data_dir {
    struct alloc alloc; /* of everything here */
    char *path;
    char *log_path; /* DIR/log, for log_thread_options */
    char *note_path;
    enum durability_mode mode;   /* of this run */
    struct durability_note note; /* what DIR/durability says; the log thread's while that runs */
    int lock;
    struct meta meta;             /* as read, or made, and persisted by data_dir_open; clean_stop is false */
    struct ring *ring;            /* the meta's ring, decoded */
    struct log_identity identity; /* for log_thread_options */
    struct hlc_bounds bounds;     /* the highest found, for shard_options */
    bool was_new;                 /* the directory was empty or missing */
    bool damaged;                 /* this start found damage in the log */
    bool merge_cold;              /* the log may hold older rows than the cold tier */
    bool discard_cold;            /* the cold tier is given up at this start */
    struct cold_damage cold_damage;
    struct cold *cold;
    uint16_t shards; /* of this run */
    void *say_context;
    void (*say)(void *context, enum say_level level, const char *text);
    struct log_file *files; /* the log's segments, mapped, until data_dir_recover */
    size_t file_count;
    struct log_recovery_report *report;
    struct buf blob;       /* of the newest meta file */
    struct log_resume log; /* for log_thread_options; final after data_dir_recover */
};

/* Opens or creates the directory. Errors have a text in `why` that says what to do: BAD_REQUEST (in use, or
 * of another node), WRONG_CLUSTER, CORRUPT (meta or cold tier), DISK_FULL, IO_ERROR. *dir is set on OK
 * only. */
MUST_CHECK enum status data_dir_open(const struct data_dir_options *options, struct data_dir **dir,
                                     struct buf *why);

/* Hands the reserved rows of the cold tier to their shards, then replays the log into shards[slot_shard(slot,
 * shards_count)], flushing into the cold tier where memory runs out. Afterwards the rows are dirty in memory or in the
 * cold tier; the log's segments stay until what replaces them is durable. */
MUST_CHECK enum status data_dir_recover(struct data_dir *dir, struct shard *const *shards,
                                        uint16_t shards_count, struct buf *why);

/* The log is about to hold what this run appends: from now on only this run's mode is promised, and a log without a
 * segment has lost it. To be called before the first write to the log, from any one thread. Errors as of
 * files_replace; then it is to be called again. */
MUST_CHECK enum status data_dir_log_begun(struct data_dir *dir, struct buf *why);

/* Replaces the meta file with what EFFECT_META_WRITE gave. From any thread, one call at a time. */
MUST_CHECK enum status data_dir_meta_write(struct data_dir *dir, struct span bytes, struct buf *why);

/* Closes the cold tier and releases the lock. After log_thread_stop answered OK pass clean: the next start
 * then knows that nothing was lost. */
void data_dir_close(struct data_dir *dir, bool clean);

#endif
