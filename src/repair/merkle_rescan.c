/* Merkle trees: rescans and persistence. */
#include <assert.h>

#include "repair/merkle_internal.h"

bool merkle_dirty_next(const struct merkle *merkle, uint16_t slot, uint32_t from, uint32_t leaves_max,
                       struct merkle_range *range)
{
    assert(leaves_max > 0);
    const struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    if (tree == NULL) {
        *range = (struct merkle_range){.count = 1};
        return from == 0 && merkle_lost(merkle, slot);
    }
    if (tree->dirty_count == 0)
        return false;
    uint32_t first = from;
    while (first < tree->leaf_count && tree->leaves[first].dirty == 0)
        first++;
    uint32_t end = first;
    while (end < tree->leaf_count && end - first < leaves_max && tree->leaves[end].dirty != 0)
        end++;
    *range = (struct merkle_range){.first = first, .count = end - first, .depth = tree->depth};
    return end > first;
}

/* A lost slot gets a tree of one dirty leaf, for the rescan to hang on. */
static struct merkle_tree *tree_to_rescan(struct merkle *merkle, uint16_t slot)
{
    struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    if (tree != NULL)
        return tree;
    bool lost = merkle_lost(merkle, slot);
    tree = merkle_tree_first(merkle, slot);
    if (tree != NULL && lost)
        merkle_leaf_set_dirty(tree, &tree->leaves[0]);
    if (tree == NULL)
        merkle_set_lost(merkle, slot, lost);
    return tree;
}

enum status merkle_rescan_begin(struct merkle *merkle, uint16_t slot, struct merkle_range range)
{
    assert(range.depth <= MERKLE_DEPTH_MAX && range.count > 0);
    assert(range.first + range.count <= UINT32_C(1) << range.depth);
    struct merkle_tree *tree = tree_to_rescan(merkle, slot);
    if (tree == NULL)
        return STATUS_OVERLOADED;
    assert(tree->fresh == NULL);
    assert(range.depth == tree->depth || range.count == UINT32_C(1) << range.depth);
    tree->fresh = merkle_tree_make(merkle, slot, range);
    if (tree->fresh != NULL)
        return STATUS_OK;
    if (tree->count == 0 && tree->leaf_count == 1) {
        bool lost = tree->dirty_count != 0;
        merkle_clear(merkle, slot);
        merkle_set_lost(merkle, slot, lost);
    }
    return STATUS_OVERLOADED;
}

void merkle_rescan_add(struct merkle *merkle, uint16_t slot, uint16_t tag, struct hash_128 row)
{
    struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    if (tree == NULL || tree->fresh == NULL)
        return;
    struct merkle_leaf *leaf = merkle_tree_leaf(tree->fresh, tag);
    if (leaf == NULL)
        return;
    leaf->sum = merkle_sum_add(leaf->sum, row);
    leaf->count++;
    tree->fresh->count++;
}

/* A leaf that no rows can give was fed wrongly: it stays dirty. Answers whether it is dirty. */
static bool settle_leaf(struct merkle *merkle, struct merkle_leaf *leaf)
{
    if (leaf->dirty == 0 && merkle_leaf_impossible(leaf)) {
        merkle->changes_inconsistent++;
        leaf->dirty = 1;
    }
    if (leaf->count > INT32_MAX)
        leaf->count = 0;
    return leaf->dirty != 0;
}

static bool leaf_wrong(const struct merkle_leaf *held, const struct merkle_leaf *fresh)
{
    if (held->dirty != 0 || fresh->dirty != 0)
        return false;
    return held->count != fresh->count || held->sum.low != fresh->sum.low ||
           held->sum.high != fresh->sum.high;
}

static void recount(struct merkle_tree *tree)
{
    tree->count = 0;
    tree->dirty_count = 0;
    for (uint32_t i = 0; i < tree->leaf_count; i++) {
        tree->count += tree->leaves[i].count;
        tree->dirty_count += tree->leaves[i].dirty;
    }
}

struct merkle_rescan_result merkle_rescan_finish(struct merkle *merkle, uint16_t slot)
{
    struct merkle_rescan_result result = {0};
    struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    if (tree == NULL || tree->fresh == NULL)
        return result;
    struct merkle_tree *fresh = tree->fresh;
    bool same_depth = fresh->depth == tree->depth;
    result.finished = true;
    tree->fresh = NULL;
    for (uint32_t i = 0; i < fresh->leaf_count; i++) {
        result.leaves_again += settle_leaf(merkle, &fresh->leaves[i]);
        if (same_depth) {
            struct merkle_leaf *held = &tree->leaves[fresh->first + i];
            result.leaves_wrong += leaf_wrong(held, &fresh->leaves[i]);
            *held = fresh->leaves[i];
        }
    }
    if (same_depth) {
        merkle_tree_drop(merkle, fresh);
    } else {
        merkle_tree_install(merkle, fresh);
        merkle_tree_drop(merkle, tree);
        tree = merkle_tree_of(merkle, slot);
    }
    if (tree != NULL)
        recount(tree);
    if (tree != NULL && tree->count == 0 && tree->dirty_count == 0)
        merkle_clear(merkle, slot);
    return result;
}

void merkle_rescan_abort(struct merkle *merkle, uint16_t slot)
{
    struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    if (tree == NULL || tree->fresh == NULL)
        return;
    merkle_tree_drop(merkle, tree->fresh);
    tree->fresh = NULL;
    if (tree->count == 0 && tree->dirty_count == 0)
        merkle_clear(merkle, slot);
}

/* ---- persistence --------------------------------------------------------------------------------------- */

static void put_leaf(struct buf *buf, const struct merkle_leaf *leaf)
{
    buf_put_u32(buf, leaf->count << 1 | leaf->dirty);
    if (leaf->count == 0 && leaf->dirty == 0)
        return;
    buf_put_u64(buf, leaf->sum.low);
    buf_put_u64(buf, leaf->sum.high);
}

void merkle_put(const struct merkle *merkle, uint16_t slot, struct buf *buf)
{
    const struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    struct merkle_leaf only = {.dirty = merkle_lost(merkle, slot) ? 1 : 0};
    uint32_t leaf_count = tree == NULL ? 1 : tree->leaf_count;
    if (!buf_reserve(buf, MERKLE_HEAD_BYTES + (size_t)leaf_count * MERKLE_LEAF_BYTES))
        return;
    buf_put_u16(buf, slot);
    buf_put_u8(buf, tree == NULL ? 0 : tree->depth);
    for (uint32_t i = 0; i < leaf_count; i++)
        put_leaf(buf, tree == NULL ? &only : &tree->leaves[i]);
}

/* Reads one leaf; false if it is none that put_leaf writes. */
static bool read_leaf(struct reader *reader, struct merkle_leaf *leaf)
{
    uint32_t head = reader_u32(reader);
    *leaf = (struct merkle_leaf){.count = head >> 1, .dirty = head & 1};
    if (head == 0)
        return !reader->failed;
    leaf->sum.low = reader_u64(reader);
    leaf->sum.high = reader_u64(reader);
    return !reader->failed && (leaf->dirty != 0 || !merkle_leaf_impossible(leaf));
}

enum status merkle_read(struct merkle *merkle, struct span bytes, uint16_t *slot)
{
    struct reader reader = reader_of(bytes);
    uint16_t of = reader_u16(&reader);
    uint8_t depth = reader_u8(&reader);
    if (reader.failed || of >= SLOTS_COUNT || depth > MERKLE_DEPTH_MAX)
        return STATUS_MALFORMED;
    struct merkle_range whole = {.count = UINT32_C(1) << depth, .depth = depth};
    struct merkle_leaf leaf;
    struct reader ahead = reader;
    for (uint32_t i = 0; i < whole.count; i++) {
        if (!read_leaf(&ahead, &leaf))
            return STATUS_MALFORMED;
    }
    if (reader_finish(&ahead) != STATUS_OK)
        return STATUS_MALFORMED;
    *slot = of;
    merkle_forget(merkle, of);
    struct merkle_tree *tree = merkle_tree_make(merkle, of, whole);
    if (tree == NULL) {
        merkle->slots_lost_for_memory++;
        return STATUS_OVERLOADED;
    }
    for (uint32_t i = 0; i < whole.count; i++)
        (void)read_leaf(&reader, &tree->leaves[i]);
    recount(tree);
    merkle_tree_install(merkle, tree);
    if (merkle_lost(merkle, of))
        return STATUS_OVERLOADED;
    if (tree->count == 0 && tree->dirty_count == 0)
        merkle_clear(merkle, of);
    return STATUS_OK;
}
