/* The node's small durable state: who it is, what it knows of the others, how it stopped.
 *
 * One blob that the edge rewrites atomically. Serialised, little endian: u32 magic | u32 version | u64 checksum of
 * what follows | 16 bytes cluster id | u64 node id | u64 directory id | u64 actor id | u64 known as | runs |
 * u8 state | u8 clean stop | u16 shards | short name | long ring | u16 members, each u64 node id | u8 directories,
 * each u64 | u64 count | u64 id of the newest run | short resp | short http | u8 has quarantine [bitmap of SLOTS_COUNT
 * bits]. Runs are as model/run.h says. Versions 1 and 2 are read too: 1 has neither `known as` nor runs, 2 no past
 * ones. */
#ifndef RONDO_STORE_META_H
#define RONDO_STORE_META_H

#include "base/hash.h"
#include "base/limits.h"
#include "base/span.h"
#include "model/run.h"

#define META_VERSION 3u
#define META_CHECKSUM_SEED UINT64_C(0x6f646e6f72)
#define META_DIRECTORIES_MAX 8 /* of one member, the newest ones: who was replaced oftener was surely known */
#define META_QUARANTINE_BYTES (SLOTS_COUNT / 8)

/* Whether this directory may count towards R (DESIGN §6, amnesia). */
enum meta_state {
    META_UNPROVEN = 1, /* new: not yet known whether the others knew this node under another directory */
    META_SERVING = 2,
    META_AMNESIAC = 3, /* the node had data elsewhere: takes writes, counts towards no R */
};

struct meta_member {
    uint64_t node_id;
    uint8_t directory_count;
    uint64_t directories[META_DIRECTORIES_MAX]; /* ids of data directories it was seen with, oldest first */
    struct run run;                             /* the newest seen of the newest directory */
    char resp[ADDRESS_BYTES_MAX + 1];
    char http[ADDRESS_BYTES_MAX + 1];
};

struct meta {
    struct alloc *alloc;
    struct hash_128 cluster_id;
    char name[NAME_BYTES_MAX + 1];
    uint64_t node_id;
    uint64_t directory_id; /* of the log's segments: never changes */
    uint64_t known_as; /* what the others know it as, after an older copy was put back; 0 = directory_id */
    uint64_t actor_id;
    struct run_history runs;
    enum meta_state state;
    bool clean_stop;
    uint16_t shards;             /* at the last run; 0 = never ran */
    struct buf ring;             /* the newest ring record, serialised; owned */
    struct meta_member *members; /* owned; see meta_member_add */
    uint16_t member_count;
    uint16_t member_capacity;
    uint8_t *quarantine; /* owned bitmap, or NULL: none */
};

/* All zero, UNPROVEN. */
void meta_init(struct meta *meta, struct alloc *alloc);
void meta_free(struct meta *meta);

/* Appends the blob; out->failed tells whether it fit. */
void meta_encode(const struct meta *meta, struct buf *out);

/* Reads a blob into an initialised meta, replacing what it held; nothing is borrowed. MALFORMED: not such a blob;
 * WRONG_PROTOCOL: of another version; CORRUPT: the checksum or a value is wrong; OVERLOADED: no memory. On failure the
 * meta is as after meta_init. */
MUST_CHECK enum status meta_decode(struct span blob, struct meta *meta);

/* The id under which the other nodes know this directory. */
uint64_t meta_known_as(const struct meta *meta);

/* TOO_LARGE, OVERLOADED (ring), or MALFORMED (a name with a zero byte); then the old one stays. */
MUST_CHECK enum status meta_ring_set(struct meta *meta, struct span ring);
MUST_CHECK enum status meta_name_set(struct meta *meta, struct span name);

/* The member, or NULL. Valid until members are added. */
struct meta_member *meta_member_find(struct meta *meta, uint64_t node_id);

/* The member, added if it was not there; NULL when there is no memory or NODES_MAX are known. */
struct meta_member *meta_member_add(struct meta *meta, uint64_t node_id);

/* Whether the member was seen with this directory. */
bool meta_member_knows(const struct meta_member *member, uint64_t directory_id);

/* Whether a node that says this of its directory is not older than what the member was seen with: the directory is the
 * one first seen last, or a new one, and its runs follow the newest seen. Else an old directory, or an older copy, was
 * put back. */
bool meta_member_current(const struct meta_member *member, uint64_t directory_id,
                         const struct run_history *runs);

/* Notes a directory and its run, if they are current; true if that was not known. */
bool meta_member_saw(struct meta_member *member, uint64_t directory_id, const struct run_history *runs);

/* Notes how far a run has come that was seen already, or the first run of a directory that was not; true if that was
 * not known. */
bool meta_member_ran_on(struct meta_member *member, uint64_t directory_id, struct run run);

/* Sets a member's address texts. TOO_LARGE past ADDRESS_BYTES_MAX, MALFORMED with a zero
 * byte; nothing then changed. */
MUST_CHECK enum status meta_member_set_addresses(struct meta_member *member, struct span resp,
                                                 struct span http);

/* OVERLOADED: no memory. */
MUST_CHECK enum status meta_quarantine_set(struct meta *meta, uint16_t slot);
void meta_quarantine_clear(struct meta *meta, uint16_t slot);
bool meta_quarantine_test(const struct meta *meta, uint16_t slot);
bool meta_quarantine_any(const struct meta *meta);

#endif
