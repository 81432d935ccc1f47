/* Merkle trees: leaves, folding and changes. Rescans and persistence are in merkle_rescan.c. */
#include "repair/merkle_internal.h"

#include <assert.h>

_Static_assert(MERKLE_LEAF_KEYS_MIN * 2 <= MERKLE_LEAF_KEYS_GROWN / 2,
               "a tree that grew does not shrink at once");
_Static_assert(MERKLE_LEAF_KEYS_GROWN < MERKLE_LEAF_KEYS_MAX, "growing leaves room to grow into");

void merkle_init(struct merkle *merkle, struct alloc *alloc)
{
    *merkle = (struct merkle){.alloc = alloc};
}

void merkle_free(struct merkle *merkle)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        merkle_clear(merkle, (uint16_t)slot);
}

/* ---- hashes -------------------------------------------------------------------------------------------- */

struct hash_128 merkle_key_hash(struct span key)
{
    return hash_128_of(key, 0);
}

struct hash_128 merkle_version_hash(struct hash_128 key_hash, struct version version)
{
    uint64_t words[6] = {key_hash.low,        key_hash.high,         version.value.time,
                         version.value.actor, version.override.time, version.override.actor};
    uint8_t bytes[sizeof words];
    for (size_t i = 0; i < 6; i++)
        store_u64(bytes + 8 * i, words[i]);
    return hash_128_of(span_of(bytes, sizeof bytes), 1);
}

struct hash_128 merkle_row_hash(struct span key, struct version version)
{
    /* The key is hashed first, alone, so that neither it nor the version must be copied beside the other. */
    return merkle_version_hash(merkle_key_hash(key), version);
}

uint16_t merkle_tag(struct span key)
{
    uint8_t prefix[COLD_KEY_PREFIX_BYTES];
    cold_key_prefix(key, 0, prefix);
    return (uint16_t)(prefix[2] << 8 | prefix[3]);
}

struct hash_128 merkle_sum_add(struct hash_128 a, struct hash_128 b)
{
    struct hash_128 sum = {.low = a.low + b.low, .high = a.high + b.high};
    sum.high += sum.low < a.low;
    return sum;
}

static struct hash_128 sum_subtract(struct hash_128 a, struct hash_128 b)
{
    struct hash_128 sum = {.low = a.low - b.low, .high = a.high - b.high};
    sum.high -= a.low < b.low;
    return sum;
}

/* ---- trees --------------------------------------------------------------------------------------------- */

size_t merkle_tree_size(uint32_t leaf_count)
{
    return sizeof(struct merkle_tree) + leaf_count * sizeof(struct merkle_leaf);
}

struct merkle_tree *merkle_tree_make(struct merkle *merkle, uint16_t slot, struct merkle_range range)
{
    struct merkle_tree *tree = alloc_get_zeroed(merkle->alloc, merkle_tree_size(range.count));
    if (tree == NULL)
        return NULL;
    tree->slot = slot;
    tree->depth = range.depth;
    tree->first = range.first;
    tree->leaf_count = range.count;
    return tree;
}

void merkle_tree_drop(struct merkle *merkle, struct merkle_tree *tree)
{
    if (tree != NULL)
        alloc_put(merkle->alloc, tree, merkle_tree_size(tree->leaf_count));
}

struct merkle_tree *merkle_tree_of(const struct merkle *merkle, uint16_t slot)
{
    assert(slot < SLOTS_COUNT);
    return merkle->trees[slot];
}

bool merkle_lost(const struct merkle *merkle, uint16_t slot)
{
    return (merkle->lost[slot / 8] >> (slot % 8) & 1) != 0;
}

void merkle_set_lost(struct merkle *merkle, uint16_t slot, bool lost)
{
    uint8_t bit = (uint8_t)(1u << (slot % 8));
    merkle->lost[slot / 8] = (uint8_t)(lost ? merkle->lost[slot / 8] | bit : merkle->lost[slot / 8] & ~bit);
}

void merkle_clear(struct merkle *merkle, uint16_t slot)
{
    struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    merkle_set_lost(merkle, slot, false);
    if (tree == NULL)
        return;
    merkle->trees[slot] = NULL;
    merkle_tree_drop(merkle, tree->fresh);
    merkle_tree_drop(merkle, tree);
}

void merkle_forget(struct merkle *merkle, uint16_t slot)
{
    merkle_clear(merkle, slot);
    merkle_set_lost(merkle, slot, true);
}

void merkle_tree_install(struct merkle *merkle, struct merkle_tree *tree)
{
    assert(tree->first == 0 && tree->leaf_count == UINT32_C(1) << tree->depth);
    merkle->trees[tree->slot] = tree;
    merkle_set_lost(merkle, tree->slot, false);
}

struct merkle_tree *merkle_tree_first(struct merkle *merkle, uint16_t slot)
{
    struct merkle_tree *tree = merkle_tree_make(merkle, slot, (struct merkle_range){.count = 1});
    if (tree == NULL) {
        merkle_set_lost(merkle, slot, true);
        merkle->slots_lost_for_memory++;
        return NULL;
    }
    merkle_tree_install(merkle, tree);
    return tree;
}

struct merkle_leaf *merkle_tree_leaf(struct merkle_tree *tree, uint16_t tag)
{
    uint32_t index = (uint32_t)tag >> (MERKLE_DEPTH_MAX - tree->depth);
    if (index < tree->first || index - tree->first >= tree->leaf_count)
        return NULL;
    return &tree->leaves[index - tree->first];
}

void merkle_leaf_set_dirty(struct merkle_tree *tree, struct merkle_leaf *leaf)
{
    tree->dirty_count += leaf->dirty == 0;
    leaf->dirty = 1;
}

/* ---- shape --------------------------------------------------------------------------------------------- */

uint8_t merkle_depth_wanted(uint8_t depth, uint64_t count)
{
    bool full = count > (uint64_t)MERKLE_LEAF_KEYS_MAX << depth;
    bool sparse = depth > 0 && count < (uint64_t)MERKLE_LEAF_KEYS_MIN << depth;
    if (!full && !sparse)
        return depth;
    uint8_t wanted = 0;
    while (wanted < MERKLE_DEPTH_MAX && count > (uint64_t)MERKLE_LEAF_KEYS_GROWN << wanted)
        wanted++;
    return wanted;
}

static void leaf_fold(struct merkle_leaf *into, const struct merkle_leaf *from)
{
    into->sum = merkle_sum_add(into->sum, from->sum);
    into->count += from->count;
    into->dirty |= from->dirty;
}

/* Folds a tree that has become sparse; without memory for the smaller one it stays as it is. An empty one
 * goes. */
static void shrink(struct merkle *merkle, struct merkle_tree *tree)
{
    if (tree->fresh != NULL)
        return;
    if (tree->count == 0 && tree->dirty_count == 0) {
        merkle_clear(merkle, tree->slot);
        return;
    }
    uint8_t wanted = merkle_depth_wanted(tree->depth, tree->count);
    if (wanted >= tree->depth)
        return;
    struct merkle_range whole = {.count = UINT32_C(1) << wanted, .depth = wanted};
    struct merkle_tree *small = merkle_tree_make(merkle, tree->slot, whole);
    if (small == NULL)
        return;
    uint32_t shift = (uint32_t)tree->depth - wanted;
    for (uint32_t i = 0; i < tree->leaf_count; i++)
        leaf_fold(&small->leaves[i >> shift], &tree->leaves[i]);
    for (uint32_t i = 0; i < small->leaf_count; i++)
        small->dirty_count += small->leaves[i].dirty;
    small->count = tree->count;
    merkle_tree_install(merkle, small);
    merkle_tree_drop(merkle, tree);
}

/* ---- changes ------------------------------------------------------------------------------------------- */

static void leaf_apply(struct merkle_tree *tree, struct merkle_leaf *leaf, const struct merkle_change *change)
{
    if (change->before_counted)
        leaf->sum = sum_subtract(leaf->sum, change->before);
    if (change->after_counted)
        leaf->sum = merkle_sum_add(leaf->sum, change->after);
    /* In a leaf that is being rescanned the count may pass through numbers below zero. */
    leaf->count += (uint32_t)change->after_counted - (uint32_t)change->before_counted;
    tree->count += (uint64_t)change->after_counted - (uint64_t)change->before_counted;
}

void merkle_prefetch(const struct merkle *merkle, uint16_t slot)
{
    const struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    if (tree == NULL)
        return;
    /* The head, and the leaf of a tree that has one: of others the leaf is not known yet. */
    __builtin_prefetch(tree, 1);
    __builtin_prefetch(tree->leaves, 1);
}

bool merkle_leaf_impossible(const struct merkle_leaf *leaf)
{
    return leaf->count > INT32_MAX || (leaf->count == 0 && (leaf->sum.low | leaf->sum.high) != 0);
}

void merkle_apply(struct merkle *merkle, const struct merkle_change *change)
{
    if (!change->before_counted && !change->after_counted)
        return;
    struct merkle_tree *tree = merkle_tree_of(merkle, change->slot);
    if (tree == NULL && !merkle_lost(merkle, change->slot))
        tree = merkle_tree_first(merkle, change->slot);
    if (tree == NULL)
        return;
    struct merkle_leaf *leaf = merkle_tree_leaf(tree, change->tag);
    struct merkle_leaf *fresh = tree->fresh == NULL ? NULL : merkle_tree_leaf(tree->fresh, change->tag);
    if (fresh != NULL)
        leaf_apply(tree->fresh, fresh, change);
    /* The sum of a dirty leaf means nothing, but keeping its count going gives the best guess there is. */
    if (leaf->dirty != 0 && change->before_counted && !change->after_counted && leaf->count == 0)
        return;
    leaf_apply(tree, leaf, change);
    if (leaf->dirty == 0 && merkle_leaf_impossible(leaf)) {
        merkle->changes_inconsistent++;
        tree->count -= leaf->count > INT32_MAX ? (uint64_t)(int64_t)(int32_t)leaf->count : 0;
        leaf->count = leaf->count > INT32_MAX ? 0 : leaf->count;
        merkle_leaf_set_dirty(tree, leaf);
    }
    if (!change->after_counted)
        shrink(merkle, tree);
}

void merkle_mark_dirty(struct merkle *merkle, uint16_t slot, uint16_t tag)
{
    struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    merkle->changes_blind++;
    if (tree == NULL && !merkle_lost(merkle, slot))
        tree = merkle_tree_first(merkle, slot);
    if (tree == NULL)
        return;
    struct merkle_leaf *fresh = tree->fresh == NULL ? NULL : merkle_tree_leaf(tree->fresh, tag);
    merkle_leaf_set_dirty(tree, merkle_tree_leaf(tree, tag));
    if (fresh != NULL)
        merkle_leaf_set_dirty(tree->fresh, fresh);
}

/* ---- nodes --------------------------------------------------------------------------------------------- */

struct merkle_info merkle_info(const struct merkle *merkle, uint16_t slot)
{
    const struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    if (tree == NULL) {
        bool lost = merkle_lost(merkle, slot);
        return (struct merkle_info){.lost = lost, .leaves_dirty = lost ? 1 : 0};
    }
    return (struct merkle_info){
        .count = tree->count,
        .leaves_dirty = tree->dirty_count,
        .depth = tree->depth,
        .depth_wanted = merkle_depth_wanted(tree->depth, tree->count),
        .rescanning = tree->fresh != NULL,
    };
}

struct merkle_node merkle_node(const struct merkle *merkle, uint16_t slot, uint8_t level, uint32_t index)
{
    const struct merkle_tree *tree = merkle_tree_of(merkle, slot);
    uint8_t depth = tree == NULL ? 0 : tree->depth;
    assert(level <= depth);
    assert(index >> level == 0);
    if (tree == NULL)
        return (struct merkle_node){.known = !merkle_lost(merkle, slot)};
    struct merkle_leaf folded = {0};
    uint32_t span = UINT32_C(1) << (depth - level);
    for (uint32_t i = index * span; i < (index + 1) * span; i++)
        leaf_fold(&folded, &tree->leaves[i]);
    return (struct merkle_node){.sum = folded.sum, .count = folded.count, .known = folded.dirty == 0};
}
