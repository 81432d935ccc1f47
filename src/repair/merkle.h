/* Merkle trees: what a shard holds, slot by slot, summed up so that two replicas find their differences
 * cheaply.
 *
 * A slot's tree has 2^depth leaves (depth 0 to 16); a leaf covers a range of the 16-bit tag hash, so it is
 * one contiguous range of the cold tier. A leaf is the sum modulo 2^128 of a hash of every (key, version) in
 * it, and their number. Addition (and not exclusive or, in which doubles cancel) makes three things possible:
 * a write whose old version is known updates its leaf in place; a leaf is rebuilt alone; trees of different
 * depth are compared by folding the leaves of the deeper one. Inner nodes are folded on demand, never stored.
 *
 * A leaf is dirty when a write's old version was not known: its sum means nothing until it is rescanned. A
 * slot without a tree is empty, unless it is lost (no memory, or never scanned): then nothing is known of it.
 * So a missing or failed allocation costs work later, never a wrong answer.
 *
 * A rescan builds new leaves beside the old ones from rows that the caller feeds; meanwhile changes go to
 * both. The old tree serves until the rescan ends. Growing is a rescan of the whole slot at another depth;
 * shrinking folds.
 *
 * A row counts in a tree until the caller takes it out: tombstones and expired rows that every replica
 * confirmed leave the sum, so that a purge half done is no difference.
 *
 * Method: Riak's hashtree (dirty segments), Dynamo section 4.7; additive leaves are ours. */
#ifndef RONDO_REPAIR_MERKLE_H
#define RONDO_REPAIR_MERKLE_H

#include "base/hash.h"
#include "model/key.h"
#include "model/record.h"

#define MERKLE_DEPTH_MAX 16

/* Keys of a leaf, on average: a slot grows past the first, to at most the second, and shrinks below the
 * third. */
#define MERKLE_LEAF_KEYS_MAX 64u
#define MERKLE_LEAF_KEYS_GROWN 32u
#define MERKLE_LEAF_KEYS_MIN 8u

/* Most bytes of a serialised tree: its head, and a count and a sum for each leaf. */
#define MERKLE_HEAD_BYTES 3u
#define MERKLE_LEAF_BYTES 20u
#define MERKLE_TREE_BYTES_MAX (MERKLE_HEAD_BYTES + ((size_t)MERKLE_LEAF_BYTES << MERKLE_DEPTH_MAX))

struct merkle_tree;

struct merkle {
    struct alloc *alloc;
    struct merkle_tree *trees[SLOTS_COUNT]; /* by slot: every write looks here, so it is a table and no map */
    uint8_t lost[SLOTS_COUNT / 8];          /* a bit for each slot of which nothing is known */
    uint64_t changes_blind;                 /* writes that made or found a leaf dirty */
    uint64_t changes_inconsistent;  /* a known old version that the tree cannot have held: a bug or bit rot */
    uint64_t slots_lost_for_memory; /* trees given up because their memory could not be had */
};

/* alloc must outlive it; its budget is that of all trees together. Every slot starts empty and known. */
void merkle_init(struct merkle *merkle, struct alloc *alloc);
void merkle_free(struct merkle *merkle);

/* ---- hashes -------------------------------------------------------------------------------------------- */

/* What a row adds to its leaf. */
struct hash_128 merkle_row_hash(struct span key, struct version version);

/* The same in two steps, for one key in several versions. */
struct hash_128 merkle_key_hash(struct span key);
struct hash_128 merkle_version_hash(struct hash_128 key_hash, struct version version);

/* The 16-bit tag hash of a key: its place in the tree; bytes 2 and 3 of its cold key. */
uint16_t merkle_tag(struct span key);

/* ---- changes ------------------------------------------------------------------------------------------- */

struct merkle_change {
    uint16_t slot;
    uint16_t tag;           /* merkle_tag */
    bool before_counted;    /* the row was in the sum, with this hash */
    bool after_counted;     /* the row is in the sum from now on, with this hash */
    struct hash_128 before; /* merkle_row_hash of the old version */
    struct hash_128 after;
};

/* A change of the slot follows soon: its tree comes into the processor's cache while the caller does other work. */
void merkle_prefetch(const struct merkle *merkle, uint16_t slot);

/* A row changed and its old version is known (or it is known that there was none). Without memory for a
 * slot's first tree the slot becomes lost. */
void merkle_apply(struct merkle *merkle, const struct merkle_change *change);

/* A row changed and its old version is not known: its leaf is dirty until rescanned. */
void merkle_mark_dirty(struct merkle *merkle, uint16_t slot, uint16_t tag);

/* Nothing is known of the slot any more (its rows are to be scanned, or it was quarantined). */
void merkle_forget(struct merkle *merkle, uint16_t slot);

/* The slot holds no rows: they were dropped. */
void merkle_clear(struct merkle *merkle, uint16_t slot);

/* ---- nodes --------------------------------------------------------------------------------------------- */

struct merkle_node {
    struct hash_128 sum;
    uint32_t count;
    bool known; /* no leaf under it is dirty; else sum and count are only the last that were known */
};

struct hash_128 merkle_sum_add(struct hash_128 a, struct hash_128 b);

struct merkle_info {
    uint64_t count; /* rows in the sum; exact if known */
    uint32_t leaves_dirty;
    uint8_t depth;
    uint8_t depth_wanted; /* greater than depth: rescan the whole slot at this depth when convenient */
    bool lost;
    bool rescanning;
};

struct merkle_info merkle_info(const struct merkle *merkle, uint16_t slot);

/* The node with this index (< 2^level) at a level no deeper than the slot's tree: the fold of the leaves
 * under it. Level 0 is the root. Time is proportional to those leaves. */
struct merkle_node merkle_node(const struct merkle *merkle, uint16_t slot, uint8_t level, uint32_t index);

/* ---- rescans ------------------------------------------------------------------------------------------- */

/* A run of leaves of a tree of this depth. */
struct merkle_range {
    uint32_t first;
    uint32_t count;
    uint8_t depth;
};

static inline uint16_t merkle_range_tag_first(struct merkle_range range)
{
    return (uint16_t)(range.first << (MERKLE_DEPTH_MAX - range.depth));
}

static inline uint16_t merkle_range_tag_last(struct merkle_range range)
{
    return (uint16_t)(((range.first + range.count) << (MERKLE_DEPTH_MAX - range.depth)) - 1);
}

/* The first run of dirty leaves at or after leaf `from`, of at most leaves_max (> 0). False when there is
 * none. A lost slot is one dirty leaf. */
bool merkle_dirty_next(const struct merkle *merkle, uint16_t slot, uint32_t from, uint32_t leaves_max,
                       struct merkle_range *range);

/* Starts a rescan of a slot that has none under way. A range of another depth than the tree's must cover the
 * whole slot (it grows or shrinks). Then feed every row of the range that counts, as it was at this moment,
 * and report changes to merkle_apply and merkle_mark_dirty as always. OVERLOADED: no memory; nothing changed. */
MUST_CHECK enum status merkle_rescan_begin(struct merkle *merkle, uint16_t slot, struct merkle_range range);

/* One row, in any order; a tag outside the range, or a slot whose rescan was given up, is ignored. */
void merkle_rescan_add(struct merkle *merkle, uint16_t slot, uint16_t tag, struct hash_128 row);

struct merkle_rescan_result {
    bool finished;         /* false: the rescan had been given up (the slot was forgotten or cleared) */
    uint32_t leaves_wrong; /* were not dirty and yet differ from the rows: bit rot, or a bug */
    uint32_t leaves_again; /* became dirty meanwhile and still are */
};

/* Every row was fed: the new leaves take the old ones' place. */
struct merkle_rescan_result merkle_rescan_finish(struct merkle *merkle, uint16_t slot);

/* Gives the rescan up, if there is one; the tree stays as it is. */
void merkle_rescan_abort(struct merkle *merkle, uint16_t slot);

/* ---- persistence --------------------------------------------------------------------------------------- */

/* Appends a slot's tree with its dirty marks: u16 slot | u8 depth | for each leaf u32 count * 2 + dirty, and
 * 16 bytes of sum unless the leaf is clean and empty. A rescan under way is not saved: its leaves are still
 * marked. A lost slot is one dirty leaf; an empty one is one clean leaf. */
void merkle_put(const struct merkle *merkle, uint16_t slot, struct buf *buf);

/* Reads what merkle_put wrote and puts it in place of whatever the slot had. MALFORMED (nothing changed);
 * OVERLOADED (the slot is lost). */
MUST_CHECK enum status merkle_read(struct merkle *merkle, struct span bytes, uint16_t *slot);

#endif
