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
    for (uint16_t down = 0; down < count && count > 1; down++) {
        reachable[down] = false;
        assert_int_equal(client_map_build(&alloc, ring, reachable, &map), STATUS_OK);
        double load = check(ring, reachable, &map);
        even_down = load > even_down ? load : even_down;
        ranges_down = map.count > ranges_down ? map.count : ranges_down;
        client_map_free(&map);
        reachable[down] = true;
    }
    print_message("%u nodes: %u ranges, max/mean %.3f; one down: %u ranges, max/mean %.3f\n", count, ranges, even,
                  ranges_down, even_down);
    assert_true(ranges <= 500);
    assert_true(ranges_down <= 500);
    ring_free(ring);
    assert_int_equal(alloc.used_bytes, 0);
}

static void test_figures(void **state)
{
    (void)state;
    const uint16_t counts[] = {1, 2, 3, 4, 5, 7, 10, 16, 30, 60, 100, 120};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        check_cluster(counts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
