/* What merkle.c and merkle_rescan.c share: the layout of a tree. */
#ifndef RONDO_REPAIR_MERKLE_INTERNAL_H
#define RONDO_REPAIR_MERKLE_INTERNAL_H

#include "repair/merkle.h"

struct merkle_leaf {
    struct hash_128 sum;
    uint32_t count;
    uint32_t dirty; /* 0 or 1 */
};

/* The tree of a slot, or the new leaves of a rescan (which may be only a run of them). One allocation. */
struct merkle_tree {
    struct merkle_tree *fresh; /* the rescan under way, or NULL */
    uint64_t count;            /* sum of the leaves' counts */
    uint32_t first;            /* index of leaves[0]; 0 unless it is a rescan */
    uint32_t leaf_count;
    uint32_t dirty_count;
    uint16_t slot;
    uint8_t depth;
    struct merkle_leaf leaves[];
};

size_t merkle_tree_size(uint32_t leaf_count);
struct merkle_tree *merkle_tree_make(struct merkle *merkle, uint16_t slot, struct merkle_range range);
void merkle_tree_drop(struct merkle *merkle, struct merkle_tree *tree);

/* The slot's tree, or NULL. */
struct merkle_tree *merkle_tree_of(const struct merkle *merkle, uint16_t slot);

/* Makes it the slot's tree; a previous one is the caller's to drop. */
void merkle_tree_install(struct merkle *merkle, struct merkle_tree *tree);

/* A first tree of one clean leaf; NULL without memory: the slot is then lost. */
struct merkle_tree *merkle_tree_first(struct merkle *merkle, uint16_t slot);

/* The leaf that covers a tag, or NULL outside the run. */
struct merkle_leaf *merkle_tree_leaf(struct merkle_tree *tree, uint16_t tag);
void merkle_leaf_set_dirty(struct merkle_tree *tree, struct merkle_leaf *leaf);

/* No set of rows has this count and sum. */
bool merkle_leaf_impossible(const struct merkle_leaf *leaf);

/* The depth a tree with so many keys should have, given the one it has. */
uint8_t merkle_depth_wanted(uint8_t depth, uint64_t count);

bool merkle_lost(const struct merkle *merkle, uint16_t slot);
void merkle_set_lost(struct merkle *merkle, uint16_t slot, bool lost);

#endif
