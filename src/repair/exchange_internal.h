/* What both sides of an exchange share: branches, digests and the parts of messages. */
#ifndef RONDO_REPAIR_EXCHANGE_INTERNAL_H
#define RONDO_REPAIR_EXCHANGE_INTERNAL_H

#include "repair/exchange.h"

#define POSITION_BITS 48
#define CHILDREN_MAX 16u
#define STEP_MAX 4 /* CHILDREN_MAX = 2^STEP_MAX */

/* A branch whose rows were not counted: a leaf under it is dirty. */
#define COUNT_UNKNOWN UINT32_MAX

struct branch {
    uint64_t index; /* < 2^level */
    uint16_t slot;
    uint8_t level; /* 0 to POSITION_BITS */
};

/* A (key, version) or record as it stands in a message. */
enum row_form {
    ROW_VERSION = 0,  /* key, value stamp */
    ROW_VERSIONS = 1, /* key, value stamp, override stamp */
    ROW_RECORD = 2,   /* key, record */
};

struct message_row {
    struct span key; /* views into the message */
    struct span record;
    struct version version;
    enum row_form form;
};

/* A row that was fed, taken apart. */
struct fed_row {
    struct span key;
    struct span record;
    struct version version;
    struct hash_128 hash;
    uint64_t position;
    uint16_t tag;
};

/* False for bytes that are no record: such a row never was in a tree. */
bool fed_row_of(struct span key, struct span record, struct fed_row *row);

uint64_t position_of(struct span key, uint16_t tag);
bool branch_holds(const struct branch *branch, uint64_t position);
void branch_need(const struct branch *branch, struct exchange_need *need);

/* 64 bits of a node, never 0 (which stands for "unknown"), and of a row. */
uint64_t node_digest(const struct merkle_node *node, uint64_t salt);
uint64_t row_digest(const struct hash_128 *row, uint64_t salt);

/* 48 bits of a root, never 0; in ROOTS there is one for every slot, in every round. */
uint64_t root_digest(const struct merkle_node *root, uint64_t salt);

/* The children of a branch after `step` levels: from the tree (true), or zeroed to be summed from rows
 * (false). */
bool children_from_tree(const struct merkle *merkle, const struct branch *branch, uint8_t step,
                        struct merkle_node *children);
void children_add(const struct branch *branch, uint8_t step, struct merkle_node *children,
                  const struct fed_row *row);
uint32_t node_count(const struct merkle_node *node);

/* Ascending. */
void sort_u64(uint64_t *numbers, uint32_t count);
/* Its index, or count when absent. */
uint32_t find_u64(const uint64_t *numbers, uint32_t count, uint64_t number);

/* ---- parts of messages --------------------------------------------------------------------------------- */

void put_head(struct buf *buf, enum exchange_type type, uint64_t session, uint32_t step);

/* Numbers of 1 to 10 bytes, 7 bits in each, low ones first, the shortest form only. */
void put_varint(struct buf *buf, uint64_t number);
uint64_t read_varint(struct reader *reader, uint64_t max);

/* A slot as its distance from the one before, SLOTS_COUNT for none; and its root's digest, 0 = unknown. */
void put_root(struct buf *buf, uint16_t before, uint16_t slot, uint64_t digest);
uint16_t read_root(struct reader *reader, uint16_t before, uint64_t *digest);

void put_branch(struct buf *buf, const struct branch *branch);
void read_branch(struct reader *reader, struct branch *branch);

size_t row_bytes_max(struct span key, struct span record);
void put_row_version(struct buf *buf, struct span key, struct version version);
void put_row_record(struct buf *buf, struct span key, struct span record);
/* Fails the reader unless the row is valid and belongs to the branch. */
void read_row(struct reader *reader, const struct branch *branch, struct message_row *row);

/* A record with its slot, in RECORDS and its answer. */
void put_record(struct buf *buf, uint16_t slot, struct span key, struct span record);
void read_record(struct reader *reader, struct exchange_record *record);
void put_key(struct buf *buf, uint16_t slot, struct span key);
void read_key(struct reader *reader, uint16_t *slot, struct span *key);

#endif
