/* Unit tests of src/repair/merkle: against a naive model that sums all rows again each time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "repair/merkle.h"

#define BUDGET_BYTES ((size_t)64 << 20)
#define SLOTS 3
#define KEYS 6000

struct model_row {
    uint16_t slot;
    uint16_t tag;
    bool counted;
    bool counted_snapshot;
    struct hash_128 hash;
    struct hash_128 hash_snapshot;
};

struct world {
    struct prng prng;
    struct alloc alloc;
    struct merkle merkle;
    uint64_t version_next;
    bool rescanning[SLOTS];
    uint32_t fed[SLOTS]; /* rows below this index were fed */

    bool dirty_again[SLOTS]; /* a blind write since the rescan began */
    struct model_row rows[KEYS];
};

static struct world *world_make(uint64_t seed)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    prng_seed(&world->prng, seed);
    alloc_init(&world->alloc, BUDGET_BYTES);
    merkle_init(&world->merkle, &world->alloc);
    for (uint32_t i = 0; i < KEYS; i++) {
        /* The first slot has few keys, the last most; some share a tag. */
        uint64_t pick = prng_below(&world->prng, 100);
        world->rows[i].slot = pick < 1 ? 0 : pick < 15 ? 1 : 2;
        world->rows[i].tag = (uint16_t)(i % 5 == 0 ? 12345 : prng_u64(&world->prng));
    }
    return world;
}

static void world_free(struct world *world)
{
    merkle_free(&world->merkle);
    assert_int_equal(world->alloc.used_bytes, 0);
    free(world);
}

static void write_row(struct world *world, uint32_t remove_percent, uint32_t blind_in_thousand)
{
    struct model_row *row = &world->rows[prng_below(&world->prng, KEYS)];
    struct merkle_change change = {
        .slot = row->slot, .tag = row->tag, .before_counted = row->counted, .before = row->hash};
    struct version version = {.value = {.time = ++world->version_next, .actor = 1}};
    row->counted = !prng_chance(&world->prng, remove_percent, 100);
    row->hash = merkle_row_hash(span_of(&row->tag, sizeof row->tag), version);
    change.after_counted = row->counted;
    change.after = row->hash;
    if (prng_chance(&world->prng, blind_in_thousand, 1000)) {
        world->dirty_again[row->slot] = true;
        merkle_mark_dirty(&world->merkle, row->slot, row->tag);
    } else {
        merkle_apply(&world->merkle, &change);
    }
}

static void rescan_begin(struct world *world, uint16_t slot)
{
    struct merkle_info info = merkle_info(&world->merkle, slot);
    uint32_t leaves = UINT32_C(1) << info.depth;
    struct merkle_range range = {.count = leaves, .depth = info.depth};
    if (info.depth_wanted != info.depth) {
        range = (struct merkle_range){.count = UINT32_C(1) << info.depth_wanted, .depth = info.depth_wanted};
    } else if (!merkle_dirty_next(&world->merkle, slot, 0, 1 + (uint32_t)prng_below(&world->prng, 8),
                                  &range)) {
        range.first = (uint32_t)prng_below(&world->prng, leaves);
        range.count = 1 + (uint32_t)prng_below(&world->prng, leaves - range.first);
    }
    assert_int_equal(merkle_rescan_begin(&world->merkle, slot, range), STATUS_OK);
    assert_true(merkle_info(&world->merkle, slot).rescanning);
    for (uint32_t i = 0; i < KEYS; i++) {
        world->rows[i].counted_snapshot =
            world->rows[i].slot == slot ? world->rows[i].counted : world->rows[i].counted_snapshot;
        if (world->rows[i].slot == slot)
            world->rows[i].hash_snapshot = world->rows[i].hash;
    }
    world->rescanning[slot] = true;
    world->dirty_again[slot] = false;
    world->fed[slot] = 0;
}

/* Feeds some rows as they were when it began; at the end checks what became of the dirty marks. */
static void rescan_some(struct world *world, uint16_t slot)
{
    uint32_t end = world->fed[slot] + (uint32_t)prng_below(&world->prng, 2000);
    for (; world->fed[slot] < end && world->fed[slot] < KEYS; world->fed[slot]++) {
        const struct model_row *row = &world->rows[world->fed[slot]];
        if (row->slot == slot && row->counted_snapshot)
            merkle_rescan_add(&world->merkle, slot, row->tag, row->hash_snapshot);
    }
    if (world->fed[slot] < KEYS)
        return;
    struct merkle_rescan_result result = merkle_rescan_finish(&world->merkle, slot);
    assert_true(result.finished);
    assert_int_equal(result.leaves_wrong, 0);
    if (!world->dirty_again[slot])
        assert_int_equal(result.leaves_again, 0);
    world->rescanning[slot] = false;
}

/* Every node of every level is the sum of its rows, or says that it is not known. Answers how many leaves
 * were not. */
static uint32_t check_slot(const struct world *world, const struct merkle *merkle, uint16_t slot)
{
    struct merkle_info info = merkle_info(merkle, slot);
    uint32_t unknown = 0;
    for (uint8_t level = 0; level <= info.depth; level++) {
        uint32_t nodes = UINT32_C(1) << level;
        struct merkle_node *naive = calloc(nodes, sizeof *naive);
        assert_non_null(naive);
        for (uint32_t i = 0; i < KEYS; i++) {
            const struct model_row *row = &world->rows[i];
            if (row->slot != slot || !row->counted)
                continue;
            struct merkle_node *node = &naive[row->tag >> (16 - level)];
            node->sum = merkle_sum_add(node->sum, row->hash);
            node->count++;
        }
        unknown = 0;
        for (uint32_t n = 0; n < nodes; n++) {
            struct merkle_node node = merkle_node(merkle, slot, level, n);
            unknown += !node.known;
            if (!node.known)
                continue;
            assert_int_equal(node.count, naive[n].count);
            assert_int_equal(node.sum.low, naive[n].sum.low);
            assert_int_equal(node.sum.high, naive[n].sum.high);
            if (level == 0)
                assert_int_equal(node.count, info.count);
        }
        free(naive);
    }
    assert_int_equal(unknown, info.leaves_dirty);
    return unknown;
}

static void check_put_and_read(const struct world *world, uint16_t slot)
{
    struct alloc alloc;
    struct merkle other;
    struct buf first;
    struct buf second;
    uint16_t read = 0;
    alloc_init(&alloc, BUDGET_BYTES);
    merkle_init(&other, &alloc);
    buf_init(&first, &alloc);
    buf_init(&second, &alloc);
    merkle_put(&world->merkle, slot, &first);
    assert_true(first.size <= MERKLE_TREE_BYTES_MAX);
    for (size_t size = 0; size < first.size; size += 1 + size / 20)
        assert_int_equal(merkle_read(&other, span_of(first.data, size), &read), STATUS_MALFORMED);
    assert_int_equal(merkle_read(&other, buf_span(&first), &read), STATUS_OK);
    assert_int_equal(read, slot);
    merkle_put(&other, slot, &second);
    assert_true(span_equal(buf_span(&first), buf_span(&second)));
    assert_int_equal(check_slot(world, &other, slot), merkle_info(&world->merkle, slot).leaves_dirty);
    buf_free(&first);
    buf_free(&second);
    merkle_free(&other);
    assert_int_equal(alloc.used_bytes, 0);
}

static void tree_agrees_with_a_naive_sum_while_it_is_written_grown_shrunk_and_rescanned(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct world *world = world_make(seed);
        uint8_t depth_max = 0;
        uint32_t rescans = 0;
        for (uint32_t step = 0; step < 60000; step++) {
            /* Grow for a while, then be emptied. */
            write_row(world, step < 30000 ? 5 : 99, 4);
            uint16_t slot = (uint16_t)prng_below(&world->prng, SLOTS);
            if (prng_chance(&world->prng, 1, 50) && !world->rescanning[slot]) {
                rescan_begin(world, slot);
                rescans++;
            } else if (prng_chance(&world->prng, 1, 20) && world->rescanning[slot]) {
                rescan_some(world, slot);
            }
            if (step % 1500 == 0) {
                (void)check_slot(world, &world->merkle, slot);
                check_put_and_read(world, slot);
            }
            uint8_t depth = merkle_info(&world->merkle, 2).depth;
            depth_max = depth > depth_max ? depth : depth_max;
        }
        assert_true(rescans > 50);
        assert_in_range(depth_max, 7, 9);
        assert_true(merkle_info(&world->merkle, 2).depth < depth_max);
        assert_int_equal(world->merkle.changes_inconsistent, 0);
        world_free(world);
    }
}

static void rescans_make_every_leaf_known_again(void **state)
{
    (void)state;
    struct world *world = world_make(7);
    for (uint32_t i = 0; i < 20000; i++)
        write_row(world, 10, 20);
    for (uint16_t slot = 0; slot < SLOTS; slot++) {
        for (int i = 0; i < 2000 && (merkle_info(&world->merkle, slot).leaves_dirty > 0 ||
                                     merkle_info(&world->merkle, slot).depth_wanted !=
                                         merkle_info(&world->merkle, slot).depth);
             i++) {
            rescan_begin(world, slot);
            while (world->rescanning[slot])
                rescan_some(world, slot);
        }
        assert_int_equal(check_slot(world, &world->merkle, slot), 0);
        struct merkle_info info = merkle_info(&world->merkle, slot);
        assert_true(info.count <= (uint64_t)MERKLE_LEAF_KEYS_MAX << info.depth);
    }
    world_free(world);
}

static void empty_slot_costs_nothing(void **state)
{
    (void)state;
    struct alloc alloc;
    struct merkle merkle;
    alloc_init(&alloc, BUDGET_BYTES);
    merkle_init(&merkle, &alloc);
    struct merkle_change change = {.slot = 9, .tag = 1, .after_counted = true, .after = {1, 2}};
    merkle_apply(&merkle, &change);
    assert_int_equal(merkle_info(&merkle, 9).count, 1);
    assert_true(alloc.used_bytes < 400);
    struct merkle_change back = {.slot = 9, .tag = 1, .before_counted = true, .before = {1, 2}};
    merkle_apply(&merkle, &back);
    assert_int_equal(alloc.used_bytes, 0);
    assert_true(merkle_node(&merkle, 9, 0, 0).known);
    merkle_free(&merkle);
}

static void row_that_changed_without_notice_is_found_by_a_full_rescan(void **state)
{
    (void)state;
    struct world *world = world_make(8);
    for (uint32_t i = 0; i < 9000; i++)
        write_row(world, 10, 0);
    uint32_t victim = 0;
    while (world->rows[victim].slot != 2 || !world->rows[victim].counted)
        victim++;
    world->rows[victim].hash.low ^= 4;
    struct merkle_range whole = {.count = UINT32_C(1) << merkle_info(&world->merkle, 2).depth,
                                 .depth = merkle_info(&world->merkle, 2).depth};
    assert_int_equal(merkle_rescan_begin(&world->merkle, 2, whole), STATUS_OK);
    for (uint32_t i = 0; i < KEYS; i++) {
        if (world->rows[i].slot == 2 && world->rows[i].counted)
            merkle_rescan_add(&world->merkle, 2, world->rows[i].tag, world->rows[i].hash);
    }
    assert_int_equal(merkle_rescan_finish(&world->merkle, 2).leaves_wrong, 1);
    assert_int_equal(check_slot(world, &world->merkle, 2), 0);
    world_free(world);
}

static void old_version_that_the_tree_never_held_makes_its_leaf_dirty(void **state)
{
    (void)state;
    struct alloc alloc;
    struct merkle merkle;
    alloc_init(&alloc, BUDGET_BYTES);
    merkle_init(&merkle, &alloc);
    struct merkle_change wrong = {.slot = 1, .tag = 5, .before_counted = true, .before = {7, 7}};
    merkle_apply(&merkle, &wrong);
    assert_false(merkle_node(&merkle, 1, 0, 0).known);
    assert_int_equal(merkle_info(&merkle, 1).count, 0);
    assert_int_equal(merkle.changes_inconsistent, 1);
    merkle_free(&merkle);
}

static void lost_slot_is_known_again_after_its_rescan(void **state)
{
    (void)state;
    struct world *world = world_make(12);
    for (uint32_t i = 0; i < 5000; i++)
        write_row(world, 10, 0);
    for (uint16_t slot = 0; slot < SLOTS; slot++) {
        merkle_forget(&world->merkle, slot);
        assert_true(merkle_info(&world->merkle, slot).lost);
        write_row(world, 10, 0);
        assert_false(merkle_node(&world->merkle, slot, 0, 0).known);
        rescan_begin(world, slot);
        while (world->rescanning[slot]) {
            write_row(world, 10, 0);
            rescan_some(world, slot);
        }
        assert_int_equal(check_slot(world, &world->merkle, slot), 0);
        assert_int_equal(merkle_rescan_finish(&world->merkle, slot).finished, false);
    }
    world_free(world);
}

static void failed_allocation_loses_knowledge_but_never_tells_a_lie(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 60; n++) {
        struct world *world = world_make(100 + n);
        world->alloc.fail_at_call = n;
        for (uint32_t i = 0; i < 3000; i++)
            write_row(world, i < 2000 ? 10 : 95, 2);
        for (uint16_t slot = 0; slot < SLOTS; slot++) {
            struct merkle_info info = merkle_info(&world->merkle, slot);
            struct merkle_range whole = {.count = UINT32_C(1) << info.depth_wanted,
                                         .depth = info.depth_wanted};
            if (merkle_rescan_begin(&world->merkle, slot, whole) != STATUS_OK)
                continue;
            for (uint32_t i = 0; i < KEYS; i++) {
                if (world->rows[i].slot == slot && world->rows[i].counted)
                    merkle_rescan_add(&world->merkle, slot, world->rows[i].tag, world->rows[i].hash);
            }
            (void)merkle_rescan_finish(&world->merkle, slot);
            write_row(world, 99, 0);
        }
        for (uint16_t slot = 0; slot < SLOTS; slot++)
            (void)check_slot(world, &world->merkle, slot);
        world_free(world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_agrees_with_a_naive_sum_while_it_is_written_grown_shrunk_and_rescanned),
        cmocka_unit_test(rescans_make_every_leaf_known_again),
        cmocka_unit_test(empty_slot_costs_nothing),
        cmocka_unit_test(row_that_changed_without_notice_is_found_by_a_full_rescan),
        cmocka_unit_test(old_version_that_the_tree_never_held_makes_its_leaf_dirty),
        cmocka_unit_test(lost_slot_is_known_again_after_its_rescan),
        cmocka_unit_test(failed_allocation_loses_knowledge_but_never_tells_a_lie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
