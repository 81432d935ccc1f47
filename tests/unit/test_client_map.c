/* The client map: a cover without holes, ranges whose node replicates all of them, even and small; with every
 * node up, with each one down, and with most of them down. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "ring/client_map.h"

#define NODES 120
#define BUDGET (64u << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define DOWN_STRIDE 7
#else
#define DOWN_STRIDE 1
#endif

struct names {
    char name[NODES][16];
    char address[NODES][32];
    struct ring_member members[NODES];
};

static struct ring *make_ring(struct alloc *alloc, uint16_t count, uint8_t replicas)
{
    static struct names names;
    struct ring *ring = NULL;
    for (uint16_t i = 0; i < count; i++) {
        snprintf(names.name[i], sizeof names.name[i], "n%u", i + 1u);
        snprintf(names.address[i], sizeof names.address[i], "127.0.0.1:%u", 7000u + i);
        names.members[i] = ring_member_of(span_of_text(names.name[i]), span_of_text(names.address[i]));
    }
    struct ring_options options = {.members = names.members, .member_count = count, .replicas = replicas};
    assert_int_equal(ring_initial(alloc, &options, NULL, &ring), STATUS_OK);
    return ring;
}

static bool any_reachable(const struct ring *ring, uint16_t slot, const bool *reachable)
{
    for (uint8_t i = 0; i < ring_replica_count(ring); i++) {
        if (reachable[ring_replicas(ring, slot)[i]])
            return true;
    }
    return false;
}

/* Checks the map and returns the most loaded node's slots over the mean of the reachable nodes. */
static double check(const struct ring *ring, const bool *reachable, const struct client_map *map)
{
    uint32_t slots[NODES] = {0};
    uint32_t next = 0;
    uint32_t up = 0;
    uint32_t most = 0;
    for (uint32_t i = 0; i < map->count; i++) {
        const struct client_range *range = &map->ranges[i];
        assert_int_equal(range->start, next);
        assert_true(range->end >= range->start);
        assert_true(reachable[range->node]);
        if (i > 0) /* neighbours of one node would be one range */
            assert_int_not_equal(range->node, map->ranges[i - 1].node);
        for (uint32_t slot = range->start; slot <= range->end; slot++) {
            assert_int_equal(client_map_node(map, (uint16_t)slot), range->node);
            if (any_reachable(ring, (uint16_t)slot, reachable))
                assert_true(ring_replicates(ring, (uint16_t)slot, range->node));
        }
        slots[range->node] += range->end - range->start + 1u;
        next = range->end + 1u;
    }
    assert_int_equal(next, SLOTS_COUNT);
    for (uint16_t node = 0; node < ring->node_count; node++) {
        up += reachable[node];
        most = slots[node] > most ? slots[node] : most;
    }
    return (double)most * up / SLOTS_COUNT;
}

static void check_cluster(uint16_t count)
{
    struct alloc alloc;
    struct client_map map;
    bool reachable[NODES];
    alloc_init(&alloc, BUDGET);
    struct ring *ring = make_ring(&alloc, count, 3);
    memset(reachable, true, sizeof reachable);
    assert_int_equal(client_map_build(&alloc, ring, reachable, &map), STATUS_OK);
    double even = check(ring, reachable, &map);
    uint32_t ranges = map.count;
    client_map_free(&map);
    uint32_t ranges_down = 0;
    double even_down = 0;
    for (uint16_t down = 0; down < count && count > 1; down = (uint16_t)(down + DOWN_STRIDE)) {
        reachable[down] = false;
        assert_int_equal(client_map_build(&alloc, ring, reachable, &map), STATUS_OK);
        double load = check(ring, reachable, &map);
        even_down = load > even_down ? load : even_down;
        ranges_down = map.count > ranges_down ? map.count : ranges_down;
        client_map_free(&map);
        reachable[down] = true;
    }
    print_message("%u nodes: %u ranges, max/mean %.3f; one down: %u ranges, max/mean %.3f\n", count, ranges,
                  even, ranges_down, even_down);
    assert_true(ranges <= 500);
    assert_true(ranges_down <= 550);
    assert_true(count > 60 || even <= 1.05);
    assert_true(even <= 1.5 && even_down <= 1.6);
    ring_free(ring);
    assert_int_equal(alloc.used_bytes, 0);
}

static void test_any_size_with_each_node_down(void **state)
{
    (void)state;
    const uint16_t counts[] = {1, 2, 3, 4, 5, 7, 10, 16, 30, 60, 100, 120};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        check_cluster(counts[i]);
}

static void test_three_nodes_have_a_third_each(void **state)
{
    (void)state;
    struct alloc alloc;
    struct client_map map;
    const bool reachable[3] = {true, true, true};
    alloc_init(&alloc, BUDGET);
    struct ring *ring = make_ring(&alloc, 3, 3);
    assert_int_equal(client_map_build(&alloc, ring, reachable, &map), STATUS_OK);
    assert_int_equal(map.count, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_in_range(map.ranges[i].end - map.ranges[i].start + 1, SLOTS_COUNT / 3 - 1,
                        SLOTS_COUNT / 3 + 1);
    client_map_free(&map);
    ring_free(ring);
}

/* Slots whose replicas are all down go to somebody; a node that sees nobody answers for everything. */
static void test_most_nodes_down(void **state)
{
    (void)state;
    struct alloc alloc;
    struct client_map map;
    bool reachable[NODES] = {false};
    alloc_init(&alloc, BUDGET);
    struct ring *ring = make_ring(&alloc, 12, 3);
    reachable[5] = true;
    assert_int_equal(client_map_build(&alloc, ring, reachable, &map), STATUS_OK);
    assert_int_equal(map.count, 1);
    (void)check(ring, reachable, &map);
    client_map_free(&map);
    reachable[2] = reachable[9] = true;
    assert_int_equal(client_map_build(&alloc, ring, reachable, &map), STATUS_OK);
    assert_true(check(ring, reachable, &map) <= 1.1);
    client_map_free(&map);
    ring_free(ring);
    assert_int_equal(alloc.used_bytes, 0);
}

static void test_out_of_memory_leaves_an_empty_map(void **state)
{
    (void)state;
    struct alloc alloc;
    struct client_map map;
    bool reachable[NODES];
    memset(reachable, true, sizeof reachable);
    alloc_init(&alloc, BUDGET);
    struct ring *ring = make_ring(&alloc, 120, 3);
    size_t used = alloc.used_bytes;
    enum status status = STATUS_OVERLOADED;
    for (uint64_t n = 1; status == STATUS_OVERLOADED; n++) {
        alloc.fail_at_call = alloc.calls + n;
        status = client_map_build(&alloc, ring, reachable, &map);
        assert_true(status == STATUS_OK || (map.count == 0 && alloc.used_bytes == used));
    }
    assert_int_equal(status, STATUS_OK);
    client_map_free(&map);
    ring_free(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_size_with_each_node_down),
        cmocka_unit_test(test_three_nodes_have_a_third_each),
        cmocka_unit_test(test_most_nodes_down),
        cmocka_unit_test(test_out_of_memory_leaves_an_empty_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
