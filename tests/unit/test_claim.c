/* The claim's numbers, for every cluster of 3 to 300 nodes, grown one by one and shrunk one by one: balance,
 * data moved, ranges for clients, neighbours. Replicas are computed here by a naive walk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "base/prng.h"
#include "ring/claim.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD 1
#else
#define SLOW_BUILD 0
#endif

/* Figures are measured at every size in a fast build, at every seventh under sanitizers. */
#define STRIDE (SLOW_BUILD ? 7 : 1)

#define NODES 300

/* Ranges are bounded for clusters up to this size. */
#define RANGES_NODES 120
#define RANGES_MAX 500

/* A shrunk ring has more: at 100 nodes a leaver's slots must go to nearly all others singly. Shrunk from 120 nodes
 * (the worst is near 50), and from 300 (near 120). */
#define RANGES_SHRUNK_MAX 850
#define RANGES_SHRUNK_FROM_300_MAX 3300

struct table {
    uint16_t count; /* nodes */
    uint8_t replicas;
    uint16_t owner[SLOTS_COUNT];
    uint16_t sets[SLOTS_COUNT][REPLICAS_MAX];
};

struct figures {
    double load;     /* highest replica load over the mean */
    double moved;    /* replica pairs that appeared over the least possible */
    double repeated; /* share of windows of N positions with a node twice */
    int ranges;
    int neighbours; /* fewest nodes that share slots with one */
};

static struct table now;
static struct table last;
static struct claim_node nodes[NODES_MAX];

static uint8_t effective(const struct table *table)
{
    return table->count < table->replicas ? (uint8_t)table->count : table->replicas;
}

static bool holds(const uint16_t *set, uint8_t count, uint16_t node)
{
    for (uint8_t i = 0; i < count; i++) {
        if (set[i] == node)
            return true;
    }
    return false;
}

/* Fills sets by walking; returns the number of windows with a node twice. */
static int walk_all(struct table *table)
{
    uint8_t wanted = effective(table);
    int repeated = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        uint8_t count = 0;
        uint32_t step = 0;
        for (; count < wanted; step++) {
            assert_true(step < SLOTS_COUNT / SLOT_STRIDE);
            uint16_t node = table->owner[(slot + step * SLOT_STRIDE) % SLOTS_COUNT];
            assert_true(node < table->count);
            if (!holds(table->sets[slot], count, node))
                table->sets[slot][count++] = node;
        }
        repeated += step > wanted;
    }
    return repeated;
}

static double load_ratio(const struct table *table)
{
    static uint32_t load[NODES_MAX];
    uint32_t most = 0;
    memset(load, 0, sizeof load);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        for (uint8_t i = 0; i < effective(table); i++)
            load[table->sets[slot][i]]++;
    }
    for (uint16_t node = 0; node < table->count; node++)
        most = load[node] > most ? load[node] : most;
    return (double)most * table->count / ((double)SLOTS_COUNT * effective(table));
}

/* Fewest ranges of slots with a common replica, longest first from the start (optimal without balance). */
static int count_ranges(const struct table *table)
{
    int ranges = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; ranges++) {
        uint32_t furthest = slot;
        for (uint8_t i = 0; i < effective(table); i++) {
            uint32_t end = slot;
            while (end < SLOTS_COUNT && holds(table->sets[end], effective(table), table->sets[slot][i]))
                end++;
            furthest = end > furthest ? end : furthest;
        }
        slot = furthest;
    }
    return ranges;
}

/* The fewest distinct nodes that are in some replica set together with one node: those that take over its
 * requests and re-replicate its data when it fails. */
static int count_neighbours(const struct table *table)
{
    static bool together[NODES_MAX][NODES_MAX];
    int fewest = table->count;
    memset(together, 0, sizeof together);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        for (uint8_t i = 0; i < effective(table); i++) {
            for (uint8_t j = 0; j < effective(table); j++)
                together[table->sets[slot][i]][table->sets[slot][j]] = true;
        }
    }
    for (uint16_t node = 0; node < table->count; node++) {
        int count = -1;
        for (uint16_t other = 0; other < table->count; other++)
            count += together[node][other];
        fewest = count < fewest ? count : fewest;
    }
    return fewest;
}

/* Replica pairs of `now` that `last` did not have, where gone is a node of last that is not in now and whose
 * number the last node took (or CLAIM_OWNER_NONE). */
static int count_moved(uint16_t gone)
{
    int moved = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        for (uint8_t i = 0; i < effective(&now); i++) {
            uint16_t node = now.sets[slot][i];
            uint16_t before = gone != CLAIM_OWNER_NONE && node == gone ? now.count : node;
            moved += !holds(last.sets[slot], effective(&last), before);
        }
    }
    return moved;
}

static int count_pairs(const struct table *table, uint16_t node)
{
    int pairs = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        pairs += holds(table->sets[slot], effective(table), node);
    return pairs;
}

static void claim_now(const uint16_t *before)
{
    struct alloc alloc;
    alloc_init(&alloc, 1 << 20);
    struct claim_options options = {
        .nodes = nodes, .node_count = now.count, .replicas = now.replicas, .before = before};
    assert_int_equal(claim_slots(&alloc, &options, now.owner), STATUS_OK);
    assert_int_equal(alloc.used_bytes, 0);
}

static void start(uint16_t count, uint8_t replicas)
{
    for (uint16_t node = 0; node < NODES_MAX; node++)
        nodes[node] = (struct claim_node){.weight = 1};
    now.count = count;
    now.replicas = replicas;
    claim_now(NULL);
    (void)walk_all(&now);
}

static void join_one(void)
{
    last = now;
    now.count++;
    claim_now(last.owner);
}

static void leave_one(uint16_t gone)
{
    static uint16_t before[SLOTS_COUNT];
    last = now;
    now.count--;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        uint16_t node = last.owner[slot];
        before[slot] = node == gone ? CLAIM_OWNER_NONE : node == now.count ? gone : node;
    }
    claim_now(before);
}

static struct figures measure(uint16_t gone)
{
    struct figures figures = {.repeated = (double)walk_all(&now) / SLOTS_COUNT};
    bool grown = now.count > last.count;
    int least = grown ? count_pairs(&now, last.count) : 0;
    if (!grown) /* what the leaver had must appear elsewhere, as far as there are more nodes than replicas */
        least = count_pairs(&last, gone) - (last.count <= last.replicas ? SLOTS_COUNT : 0);
    int moved = count_moved(gone);
    figures.moved = least == 0 ? (moved == 0 ? 1 : 1e9) : (double)moved / least;
    figures.load = load_ratio(&now);
    figures.ranges = count_ranges(&now);
    figures.neighbours = count_neighbours(&now);
    return figures;
}

/* 1.01, or, where one slot weighs more than that, what whole slots on distinct nodes allow: N x ceil(16384 / S)
 * replicas. That is so for 43 of the sizes, from 178 nodes on, and never above 1.0165. */
static double load_limit(uint16_t count)
{
    double ceiling = (double)((SLOTS_COUNT + count - 1) / count) * count / SLOTS_COUNT;
    return ceiling > 1.01 ? ceiling : 1.01;
}

static void keep_worst(struct figures *worst, const struct figures *figures)
{
    worst->load = figures->load > worst->load ? figures->load : worst->load;
    worst->moved = figures->moved > worst->moved ? figures->moved : worst->moved;
    worst->repeated = figures->repeated > worst->repeated ? figures->repeated : worst->repeated;
    worst->ranges = figures->ranges > worst->ranges ? figures->ranges : worst->ranges;
}

static void say(const char *what, const struct figures *worst)
{
    print_message("%s: load max/mean %.4f, moved/least %.4f, ranges %d, repeated windows %.4f\n", what,
                  worst->load, worst->moved, worst->ranges, worst->repeated);
}

/* The worst figures of three bands of sizes. */
struct bands {
    struct figures to_120;
    struct figures to_165;
    struct figures to_300;
};

static void check_size(struct bands *bands, uint16_t gone, int ranges_max)
{
    struct figures figures = measure(gone);
    keep_worst(now.count <= 120   ? &bands->to_120
               : now.count <= 165 ? &bands->to_165
                                  : &bands->to_300,
               &figures);
    assert_true(figures.load <= load_limit(now.count) + 1e-9);
    assert_true(figures.moved <= 1.01);
    if (now.count == 100)
        print_message("100 nodes: at least %d share work with a failed one\n", figures.neighbours);
    int neighbours = now.count / 10 * 3 < 30 ? now.count / 10 * 3 : 30;
    assert_true(figures.neighbours >= neighbours);
    assert_true(now.count > RANGES_NODES || figures.ranges <= ranges_max);
    if (now.count > last.count)
        assert_true(figures.repeated <= 0.0); /* joins never bring a node near itself */
}

/* One join to every size up to `top`, then random nodes leave one by one. */
static void grow_and_shrink(uint16_t top, uint64_t seed)
{
    struct prng prng;
    struct bands grown = {.to_120 = {0}};
    struct bands shrunk = {.to_120 = {0}};
    int shrunk_max = top > RANGES_NODES ? RANGES_SHRUNK_FROM_300_MAX
                     : top > 12         ? RANGES_SHRUNK_MAX
                                        : RANGES_MAX;
    prng_seed(&prng, seed);
    start(3, 3);
    while (now.count < top) {
        join_one();
        (void)walk_all(&now);
        if (now.count % STRIDE == 0)
            check_size(&grown, CLAIM_OWNER_NONE, RANGES_MAX);
    }
    say("grown to 120", &grown.to_120);
    if (top > 165) {
        say("grown from 121 to 165", &grown.to_165);
        say("grown from 166 to 300", &grown.to_300);
    }
    while (now.count > 3) {
        uint16_t gone = (uint16_t)prng_below(&prng, now.count);
        leave_one(gone);
        (void)walk_all(&now);
        if (now.count % STRIDE == 0 || now.count < 8)
            check_size(&shrunk, gone, shrunk_max);
    }
    if (top > 165) {
        say("shrunk from 300", &shrunk.to_300);
        say("shrunk from 165", &shrunk.to_165);
    }
    say("shrunk from 120", &shrunk.to_120);
}

static void test_grown_to_300_and_shrunk(void **state)
{
    (void)state;
    grow_and_shrink(NODES, 1);
}

static void test_120_nodes_shrink_in_any_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (SLOW_BUILD ? 1 : 3); seed++)
        grow_and_shrink(RANGES_NODES, seed);
}

static void test_small_clusters_shrink_in_any_order(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= (SLOW_BUILD ? 3 : 30); seed++)
        grow_and_shrink(12, seed);
}

/* Joins and leaves in random order between two sizes. Few nodes leave few choices, and what one step could not
 * make even the next inherits: the bounds are those of pure growth and shrinking plus `slack`. */
static void wander(uint16_t low, uint16_t high, double slack, uint64_t seed)
{
    struct prng prng;
    struct figures worst = {0};
    prng_seed(&prng, seed);
    start(low, 3);
    (void)walk_all(&now);
    for (int step = 0; step < (SLOW_BUILD ? 20 : 300); step++) {
        bool grow = now.count == low || (now.count < high && prng_chance(&prng, 1, 2));
        uint16_t gone = grow ? CLAIM_OWNER_NONE : (uint16_t)prng_below(&prng, now.count);
        if (grow)
            join_one();
        else
            leave_one(gone);
        struct figures figures = measure(gone);
        keep_worst(&worst, &figures);
        assert_true(figures.load <= load_limit(now.count) + slack);
        assert_true(figures.moved <= 1.01 + slack);
    }
    say("joins and leaves", &worst);
}

static void test_joins_and_leaves_in_random_order(void **state)
{
    (void)state;
    wander(3, 8, 0.06, 1);
    wander(5, 20, 0.01, 2);
    wander(20, 120, 0.005, 3);
}

/* Leaving and joining at once: the newcomer takes exactly what the other had. */
static void test_replaced_node(void **state)
{
    (void)state;
    static uint16_t before[SLOTS_COUNT];
    start(10, 3);
    (void)walk_all(&now);
    last = now;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        before[slot] = last.owner[slot] == 4 ? CLAIM_OWNER_NONE : last.owner[slot];
    claim_now(before); /* 4 is a new node now */
    uint32_t same = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        same += now.owner[slot] == last.owner[slot];
    assert_true(same >= SLOTS_COUNT - SLOTS_COUNT / 1000);
}

static void test_one_and_two_nodes(void **state)
{
    (void)state;
    for (uint16_t count = 1; count <= 2; count++) {
        start(count, 3);
        assert_true(load_ratio(&now) <= 1.0);
        uint32_t owned = 0;
        for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
            owned += now.owner[slot] == 0;
        assert_int_equal(owned, SLOTS_COUNT / count);
    }
    join_one();
    (void)walk_all(&now);
    assert_true(load_ratio(&now) <= 1.0);
    leave_one(0);
    leave_one(1);
    assert_int_equal(now.owner[1234], 0);
}

static void test_same_arguments_same_claim(void **state)
{
    (void)state;
    static uint16_t first[SLOTS_COUNT];
    start(57, 3);
    memcpy(first, now.owner, sizeof first);
    start(57, 3);
    assert_memory_equal(first, now.owner, sizeof first);
}

static void test_300_nodes_at_once(void **state)
{
    (void)state;
    clock_t begin = clock();
    start(NODES, 3);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    print_message("claim for 300 nodes: %.3f s\n", seconds);
    assert_true(load_ratio(&now) <= load_limit(NODES) + 1e-9);
}

static void test_other_replica_counts(void **state)
{
    (void)state;
    for (uint8_t replicas = 1; replicas <= REPLICAS_MAX; replicas++) {
        start(replicas, replicas);
        for (int size = replicas + 1; size <= 40; size++) {
            join_one();
            int repeated = walk_all(&now);
            double load = load_ratio(&now);
            if (load > 1.02 || repeated > 0)
                print_message("N=%d S=%d: load %.4f, repeated %d\n", replicas, size, load, repeated);
            assert_true(load <= 1.02);
        }
    }
}

static void test_weights_give_shares(void **state)
{
    (void)state;
    uint32_t owned[20] = {0};
    start(20, 3);
    for (uint16_t node = 0; node < 20; node++)
        nodes[node].weight = node < 10 ? 100 : 200;
    claim_now(NULL);
    (void)walk_all(&now);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        owned[now.owner[slot]]++;
    for (uint16_t node = 0; node < 20; node++) {
        double share = SLOTS_COUNT * (node < 10 ? 1.0 : 2.0) / 30;
        assert_true(owned[node] < share * 1.02 && owned[node] > share * 0.9);
    }
    nodes[3].weight = 0; /* it must give up everything */
    last = now;
    claim_now(last.owner);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        assert_int_not_equal(now.owner[slot], 3);
}

/* The most loaded node over the mean where every zone can have its full part, and how many windows of N have
 * two of one zone. */
static void check_zones(uint16_t count, uint16_t zones)
{
    start(count, 3);
    for (uint16_t node = 0; node < count; node++)
        nodes[node].zone = node % zones;
    claim_now(NULL);
    uint32_t owned[NODES_MAX] = {0};
    uint32_t most = 0;
    uint32_t shared = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        uint16_t a = nodes[now.owner[slot]].zone;
        uint16_t b = nodes[now.owner[(slot + SLOT_STRIDE) % SLOTS_COUNT]].zone;
        uint16_t c = nodes[now.owner[(slot + 2 * SLOT_STRIDE) % SLOTS_COUNT]].zone;
        shared += zones >= 3 ? a == b || b == c || a == c : a == b && b == c;
        owned[now.owner[slot]]++;
    }
    for (uint16_t node = 0; node < count; node++)
        most = owned[node] > most ? owned[node] : most;
    double load = (double)most * count / SLOTS_COUNT;
    print_message("%u nodes in %u zones: owned max/mean %.4f, %u windows with too few zones\n", count, zones,
                  load, shared);
    assert_true(load <= 1.02);
    assert_true(shared <= SLOT_STRIDE * 2); /* 1024 positions are no multiple of 3 */
}

static void test_zones_alternate(void **state)
{
    (void)state;
    check_zones(6, 2);
    check_zones(12, 2);
    check_zones(6, 3);
    check_zones(9, 3);
    check_zones(30, 3);
    check_zones(20, 4);
    check_zones(30, 5);
}

static void test_out_of_memory_is_reported(void **state)
{
    (void)state;
    struct alloc alloc;
    start(5, 3);
    alloc_init(&alloc, 1 << 20);
    alloc.fail_at_call = 1;
    struct claim_options options = {.nodes = nodes, .node_count = 5, .replicas = 3};
    assert_int_equal(claim_slots(&alloc, &options, now.owner), STATUS_OVERLOADED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grown_to_300_and_shrunk),
        cmocka_unit_test(test_120_nodes_shrink_in_any_order),
        cmocka_unit_test(test_small_clusters_shrink_in_any_order),
        cmocka_unit_test(test_joins_and_leaves_in_random_order),
        cmocka_unit_test(test_replaced_node),
        cmocka_unit_test(test_one_and_two_nodes),
        cmocka_unit_test(test_same_arguments_same_claim),
        cmocka_unit_test(test_300_nodes_at_once),
        cmocka_unit_test(test_other_replica_counts),
        cmocka_unit_test(test_weights_give_shares),
        cmocka_unit_test(test_zones_alternate),
        cmocka_unit_test(test_out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
