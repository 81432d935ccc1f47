/* The client map: fewest ranges first, then evened out.
 *
 * Going along the slots and always taking the node whose replicas reach furthest gives the fewest ranges
 * possible. Then the node with the most slots hands parts of its ranges to nodes with too few that replicate
 * them, the parts that even out most for each range they add, as long as the map stays small. */
#include "ring/client_map.h"

/* Evening out may let the map grow to this many ranges (clients hold them all; DESIGN section 9 allows 500 up to
 * 120 nodes), or by a quarter where it had more to begin with. */
#define RANGES_TARGET 496

/* A node with at most this much over its even share, in hundredths, hands nothing on. */
#define EXCESS_HUNDREDTHS 2

/* Parts handed on at most: the map is small, and a part evens out at least one slot. */
#define HAND_ON_MAX 8192

struct tally {
    uint32_t slots;
    bool settled; /* nothing more can be handed on */
};

struct work {
    const struct ring *ring;
    const bool *reachable;
    struct client_map *map;
    uint32_t share; /* slots for each node that can have any, rounded up */
    struct tally nodes[NODES_MAX];
};

/* A part of a range that another node could have. */
struct part {
    uint32_t range;
    uint16_t start;
    uint16_t slots;
    uint16_t node;
    uint16_t added; /* ranges that handing it on adds */
};

static bool replica_reachable(const struct work *work, uint16_t slot)
{
    const uint16_t *replicas = ring_replicas(work->ring, slot);
    for (uint8_t i = 0; i < ring_replica_count(work->ring); i++) {
        if (work->reachable[replicas[i]])
            return true;
    }
    return false;
}

/* Whether the map may give the slot to the node: one without reachable replicas can go to anybody. */
static bool serves(const struct work *work, uint16_t slot, uint16_t node)
{
    if (!work->reachable[node])
        return false;
    return ring_replicates(work->ring, slot, node) || !replica_reachable(work, slot);
}

static uint16_t least_loaded(const struct work *work)
{
    uint16_t least = RING_NODE_NONE;
    for (uint16_t node = 0; node < work->ring->node_count; node++) {
        if (work->reachable[node] &&
            (least == RING_NODE_NONE || work->nodes[node].slots < work->nodes[least].slots))
            least = node;
    }
    assert(least != RING_NODE_NONE); /* the caller itself is reachable */
    return least;
}

/* Makes room for one range at an index. */
static bool insert_range(struct client_map *map, uint32_t at, struct client_range range)
{
    if (map->count == map->capacity) {
        uint32_t capacity = map->capacity == 0 ? 512 : map->capacity * 2;
        struct client_range *ranges =
            alloc_resize(map->alloc, map->ranges, map->capacity * sizeof *ranges, capacity * sizeof *ranges);
        if (ranges == NULL)
            return false;
        map->ranges = ranges;
        map->capacity = capacity;
    }
    memmove(map->ranges + at + 1, map->ranges + at, (map->count - at) * sizeof *map->ranges);
    map->ranges[at] = range;
    map->count++;
    return true;
}

static void remove_range(struct client_map *map, uint32_t at)
{
    map->count--;
    memmove(map->ranges + at, map->ranges + at + 1, (map->count - at) * sizeof *map->ranges);
}

/* The end of the stretch from a slot on that the node serves. */
static uint16_t stretch_end(const struct work *work, uint16_t start, uint16_t node)
{
    uint32_t end = start;
    while (end + 1 < SLOTS_COUNT && serves(work, (uint16_t)(end + 1), node))
        end++;
    return (uint16_t)end;
}

static bool cover(struct work *work)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT;) {
        const uint16_t *replicas = ring_replicas(work->ring, (uint16_t)slot);
        struct client_range best = {.start = (uint16_t)slot, .node = RING_NODE_NONE};
        for (uint8_t i = 0; i < ring_replica_count(work->ring); i++) {
            uint16_t node = replicas[i];
            if (!work->reachable[node])
                continue;
            uint16_t end = stretch_end(work, (uint16_t)slot, node);
            bool tied = best.node != RING_NODE_NONE && end == best.end;
            if (best.node == RING_NODE_NONE || end > best.end ||
                (tied && work->nodes[node].slots < work->nodes[best.node].slots)) {
                best.end = end;
                best.node = node;
            }
        }
        if (best.node == RING_NODE_NONE) {
            best.node = least_loaded(work);
            best.end = stretch_end(work, (uint16_t)slot, best.node);
        }
        if (!insert_range(work->map, work->map->count, best))
            return false;
        work->nodes[best.node].slots += (uint32_t)best.end - best.start + 1;
        slot = (uint32_t)best.end + 1;
    }
    return true;
}

/* The most loaded node that may still hand on. */
static uint16_t most_loaded(const struct work *work)
{
    uint16_t most = RING_NODE_NONE;
    uint32_t enough = work->share + work->share * EXCESS_HUNDREDTHS / 100;
    for (uint16_t node = 0; node < work->ring->node_count; node++) {
        if (work->nodes[node].settled || work->nodes[node].slots <= enough)
            continue;
        if (most == RING_NODE_NONE || work->nodes[node].slots > work->nodes[most].slots)
            most = node;
    }
    return most;
}

/* The part of stretch start..end of a range that would best go to the node. */
static struct part part_of(const struct work *work, uint32_t index, uint16_t start, uint16_t end,
                           uint16_t node)
{
    const struct client_map *map = work->map;
    const struct client_range *range = &map->ranges[index];
    uint32_t slots = (uint32_t)end - start + 1;
    uint32_t excess = work->nodes[range->node].slots - work->share;
    uint32_t room = work->share - work->nodes[node].slots;
    slots = slots < excess ? slots : excess;
    slots = slots < room ? slots : room;
    struct part part = {.range = index, .start = start, .slots = (uint16_t)slots, .node = node, .added = 2};
    bool left = start == range->start;
    bool right = end == range->end;
    if (left)
        part.added = index > 0 && map->ranges[index - 1].node == node ? 0 : 1;
    if (right && (!left || (index + 1 < map->count && map->ranges[index + 1].node == node))) {
        part.added = index + 1 < map->count && map->ranges[index + 1].node == node ? 0 : 1;
        part.start = (uint16_t)(end + 1 - slots);
    }
    return part;
}

static bool part_better(const struct part *a, const struct part *b)
{
    return (uint32_t)a->slots * (b->added + 1u) > (uint32_t)b->slots * (a->added + 1u);
}

/* Looks through one range for the best part that adds at most `added_max` ranges. */
static void search_range(const struct work *work, uint32_t index, uint32_t added_max, struct part *best)
{
    const struct client_range *range = &work->map->ranges[index];
    for (uint32_t slot = range->start; slot <= range->end; slot++) {
        const uint16_t *replicas = ring_replicas(work->ring, (uint16_t)slot);
        for (uint8_t i = 0; i < ring_replica_count(work->ring); i++) {
            uint16_t node = replicas[i];
            if (node == range->node || !work->reachable[node] || work->nodes[node].slots >= work->share)
                continue;
            if (slot > range->start && serves(work, (uint16_t)(slot - 1), node))
                continue; /* not where its stretch starts */
            uint16_t end = stretch_end(work, (uint16_t)slot, node);
            end = end < range->end ? end : range->end;
            struct part part = part_of(work, index, (uint16_t)slot, end, node);
            if (part.added <= added_max && part_better(&part, best))
                *best = part;
        }
    }
}

static bool hand_on(struct work *work, const struct part *part)
{
    struct client_map *map = work->map;
    uint32_t at = part->range;
    struct client_range old = map->ranges[at];
    uint16_t end = (uint16_t)(part->start + part->slots - 1);
    work->nodes[old.node].slots -= part->slots;
    work->nodes[part->node].slots += part->slots;
    map->ranges[at] = (struct client_range){.start = part->start, .end = end, .node = part->node};
    if (end < old.end) {
        struct client_range rest = {.start = (uint16_t)(end + 1), .end = old.end, .node = old.node};
        if (!insert_range(map, at + 1, rest))
            return false;
    } else if (at + 1 < map->count && map->ranges[at + 1].node == part->node) {
        map->ranges[at].end = map->ranges[at + 1].end;
        remove_range(map, at + 1);
    }
    if (part->start > old.start) {
        struct client_range rest = {.start = old.start, .end = (uint16_t)(part->start - 1), .node = old.node};
        return insert_range(map, at, rest);
    }
    if (at > 0 && map->ranges[at - 1].node == part->node) {
        map->ranges[at - 1].end = map->ranges[at].end;
        remove_range(map, at);
    }
    return true;
}

/* Most loaded first, until nobody has more than enough or nothing helps. */
static bool even_out(struct work *work)
{
    uint32_t ranges_max = work->map->count;
    ranges_max = ranges_max > RANGES_TARGET ? ranges_max + ranges_max / 4 : RANGES_TARGET;
    for (uint32_t round = 0; round < HAND_ON_MAX; round++) {
        uint16_t from = most_loaded(work);
        if (from == RING_NODE_NONE)
            return true;
        uint32_t added_max = ranges_max > work->map->count ? ranges_max - work->map->count : 0;
        struct part best = {.slots = 0};
        for (uint32_t i = 0; i < work->map->count; i++) {
            if (work->map->ranges[i].node == from)
                search_range(work, i, added_max, &best);
        }
        if (best.slots == 0)
            work->nodes[from].settled = true;
        else if (!hand_on(work, &best))
            return false;
    }
    return true;
}

/* Slots for each reachable node that replicates any, rounded up. */
static uint32_t even_share(const struct ring *ring, const bool *reachable)
{
    bool counted[NODES_MAX] = {false};
    uint32_t nodes = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        uint16_t node = ring->owner[slot];
        if (reachable[node] && !counted[node]) {
            counted[node] = true;
            nodes++;
        }
    }
    return nodes == 0 ? SLOTS_COUNT : (SLOTS_COUNT + nodes - 1) / nodes;
}

enum status client_map_build(struct alloc *alloc, const struct ring *ring, const bool *reachable,
                             struct client_map *map)
{
    *map = (struct client_map){.alloc = alloc};
    struct work *work = alloc_get_zeroed(alloc, sizeof *work);
    if (work == NULL)
        return STATUS_OVERLOADED;
    work->ring = ring;
    work->reachable = reachable;
    work->map = map;
    work->share = even_share(ring, reachable);
    bool built = cover(work) && even_out(work);
    alloc_put(alloc, work, sizeof *work);
    if (!built) {
        client_map_free(map);
        return STATUS_OVERLOADED;
    }
    return STATUS_OK;
}

void client_map_free(struct client_map *map)
{
    alloc_put(map->alloc, map->ranges, map->capacity * sizeof *map->ranges);
    *map = (struct client_map){.alloc = map->alloc};
}

uint16_t client_map_node(const struct client_map *map, uint16_t slot)
{
    uint32_t low = 0;
    uint32_t high = map->count - 1;
    assert(slot < SLOTS_COUNT && map->count > 0);
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (map->ranges[middle].end < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return map->ranges[low].node;
}
