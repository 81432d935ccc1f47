/* Building ring records and walking the ring.
 *
 * A ring is built in one order of nodes (by name) whatever order they were given in, so that all nodes of a
 * cluster make the same bytes. Replica sets are computed once, when a record is made. */
#include "ring/ring.h"

#include "ring/claim.h"
#include "ring/ring_internal.h"

#define RUNS_COUNT (SLOTS_COUNT / SLOT_STRIDE)

/* A set of node indices. */
struct node_set {
    uint64_t bits[(NODES_MAX + 63) / 64];
};

static bool set_has(const struct node_set *set, uint16_t node)
{
    return (set->bits[node / 64] >> (node % 64) & 1) != 0;
}

static void set_add(struct node_set *set, uint16_t node)
{
    set->bits[node / 64] |= UINT64_C(1) << (node % 64);
}

uint64_t ring_node_id(struct span name)
{
    uint64_t id = hash_64(name, 0);
    return id == 0 ? 1 : id;
}

bool ring_name_allowed(struct span text, bool empty_allowed)
{
    if (text.size > NAME_BYTES_MAX || (text.size == 0 && !empty_allowed))
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] <= ' ' || text.data[i] > '~')
            return false;
    }
    return true;
}

bool ring_address_allowed(struct span text)
{
    size_t colon = text.size;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] <= ' ' || text.data[i] > '~')
            return false;
        if (text.data[i] == ':')
            colon = i;
    }
    uint64_t port = 0;
    if (colon == 0 || colon == text.size || text.size >= ADDRESS_BYTES_MAX)
        return false;
    struct span digits = span_of(text.data + colon + 1, text.size - colon - 1);
    return span_parse_u64(digits, &port) == STATUS_OK && port >= 1 && port <= 65535;
}

struct ring *ring_new(struct alloc *alloc, uint16_t node_count)
{
    struct ring *ring = alloc_get_zeroed(alloc, sizeof *ring);
    if (ring == NULL)
        return NULL;
    ring->alloc = alloc;
    ring->node_count = node_count;
    ring->nodes = alloc_get_zeroed(alloc, node_count * sizeof *ring->nodes);
    ring->by_id = alloc_get_zeroed(alloc, node_count * sizeof *ring->by_id);
    if (ring->nodes == NULL || ring->by_id == NULL) {
        ring_free(ring);
        return NULL;
    }
    return ring;
}

void ring_free(struct ring *ring)
{
    if (ring == NULL)
        return;
    size_t table_bytes = (size_t)SLOTS_COUNT * ring->replicas * sizeof *ring->replica_table;
    alloc_put(ring->alloc, ring->replica_table, table_bytes);
    alloc_put(ring->alloc, ring->by_id, ring->node_count * sizeof *ring->by_id);
    alloc_put(ring->alloc, ring->nodes, ring->node_count * sizeof *ring->nodes);
    alloc_put(ring->alloc, ring, sizeof *ring);
}

/* ---- walking -------------------------------------------------------------------------------------------- */

static bool zone_used(const struct ring *ring, const uint16_t *chosen, uint16_t count, uint16_t node)
{
    for (uint16_t i = 0; i < count; i++) {
        if (strcmp(ring->nodes[chosen[i]].zone, ring->nodes[node].zone) == 0)
            return true;
    }
    return false;
}

/* The number of zones among the nodes that own slots. */
static uint16_t count_zones(const struct ring *ring, const struct node_set *owners)
{
    uint16_t zones = 0;
    for (uint16_t node = 0; node < ring->node_count; node++) {
        bool first = set_has(owners, node);
        for (uint16_t other = 0; first && other < node; other++)
            first = !set_has(owners, other) || strcmp(ring->nodes[other].zone, ring->nodes[node].zone) != 0;
        zones = (uint16_t)(zones + first);
    }
    return zones;
}

/* The first `wanted` distinct nodes clockwise, each of a zone not used yet until all `zones` are; those passed
 * over by then come first among the rest. Returns how many there are. */
static uint16_t walk_replicas(const struct ring *ring, uint16_t slot, uint16_t zones, uint16_t wanted,
                              uint16_t *chosen)
{
    struct node_set seen = {.bits = {0}};
    uint16_t passed[REPLICAS_MAX];
    uint16_t passed_count = 0;
    uint16_t zones_used = 0;
    uint16_t count = 0;
    for (uint32_t step = 0; step < RUNS_COUNT && count < wanted; step++) {
        uint16_t node = ring->owner[(slot + step * SLOT_STRIDE) % SLOTS_COUNT];
        if (set_has(&seen, node))
            continue;
        set_add(&seen, node);
        if (zones_used < zones && zone_used(ring, chosen, count, node)) {
            if (passed_count < REPLICAS_MAX)
                passed[passed_count++] = node;
            continue;
        }
        chosen[count++] = node;
        zones_used = (uint16_t)(zones_used + (zones_used < zones));
        for (uint16_t i = 0; zones_used == zones && i < passed_count && count < wanted; i++)
            chosen[count++] = passed[i];
        if (zones_used == zones)
            passed_count = 0;
    }
    /* A remainder that lacks a zone altogether: those passed over after all. */
    for (uint16_t i = 0; i < passed_count && count < wanted; i++)
        chosen[count++] = passed[i];
    return count;
}

uint16_t ring_preflist(const struct ring *ring, uint16_t slot, uint16_t *preflist, uint16_t max)
{
    const uint16_t *replicas = ring_replicas(ring, slot);
    struct node_set seen = {.bits = {0}};
    uint16_t count = 0;
    for (; count < ring->replicas && count < max; count++) {
        preflist[count] = replicas[count];
        set_add(&seen, replicas[count]);
    }
    for (uint32_t step = 0; step < RUNS_COUNT && count < max; step++) {
        uint16_t node = ring->owner[(slot + step * SLOT_STRIDE) % SLOTS_COUNT];
        if (set_has(&seen, node))
            continue;
        set_add(&seen, node);
        preflist[count++] = node;
    }
    return count;
}

uint16_t ring_node_index(const struct ring *ring, uint64_t id)
{
    uint16_t low = 0;
    uint16_t high = ring->node_count;
    while (low < high) {
        uint16_t middle = (uint16_t)((low + high) / 2);
        uint64_t found = ring->nodes[ring->by_id[middle]].id;
        if (found == id)
            return ring->by_id[middle];
        if (found < id)
            low = (uint16_t)(middle + 1);
        else
            high = middle;
    }
    return RING_NODE_NONE;
}

/* ---- what follows from the record ----------------------------------------------------------------------- */

static enum status derive_ids(struct ring *ring)
{
    for (uint16_t node = 0; node < ring->node_count; node++) {
        uint64_t id = ring_node_id(span_of_text(ring->nodes[node].name));
        ring->nodes[node].id = id;
        uint16_t at = node;
        while (at > 0 && ring->nodes[ring->by_id[at - 1]].id > id) {
            ring->by_id[at] = ring->by_id[at - 1];
            at--;
        }
        if (at > 0 && ring->nodes[ring->by_id[at - 1]].id == id)
            return STATUS_MALFORMED;
        ring->by_id[at] = node;
    }
    return STATUS_OK;
}

enum status ring_derive(struct ring *ring)
{
    struct node_set owners = {.bits = {0}};
    uint16_t owner_count = 0;
    if (derive_ids(ring) != STATUS_OK)
        return STATUS_MALFORMED;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (!set_has(&owners, ring->owner[slot]))
            owner_count++;
        set_add(&owners, ring->owner[slot]);
    }
    uint8_t replicas =
        owner_count < ring->replicas_configured ? (uint8_t)owner_count : ring->replicas_configured;
    ring->replica_table =
        alloc_get(ring->alloc, (size_t)SLOTS_COUNT * replicas * sizeof *ring->replica_table);
    if (ring->replica_table == NULL)
        return STATUS_OVERLOADED;
    ring->replicas = replicas;
    uint16_t zones = count_zones(ring, &owners);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        uint16_t *chosen = ring->replica_table + slot * replicas;
        if (walk_replicas(ring, (uint16_t)slot, zones, replicas, chosen) < replicas)
            return STATUS_MALFORMED;
    }
    return STATUS_OK;
}

/* ---- building ------------------------------------------------------------------------------------------- */

static enum status refuse(struct buf *why, const char *what, struct span value)
{
    if (why != NULL) {
        buf_append_text(why, what);
        buf_append_text(why, ": \"");
        buf_append_span(why, value);
        buf_append_text(why, "\"");
    }
    return STATUS_BAD_REQUEST;
}

static enum status check_member(const struct ring_options *options, uint16_t index, struct buf *why)
{
    const struct ring_member *member = &options->members[index];
    if (!ring_name_allowed(member->name, false))
        return refuse(why, "a node's name must be 1 to 64 printable characters without blanks", member->name);
    if (!ring_name_allowed(member->zone, true))
        return refuse(why, "a zone must be at most 64 printable characters without blanks", member->zone);
    if (!ring_address_allowed(member->peer_address))
        return refuse(why, "a node's address must be HOST:PORT", member->peer_address);
    if (member->state < RING_NODE_ACTIVE || member->state > RING_NODE_LEAVING)
        return refuse(why, "the node's state is unknown", member->name);
    if (member->weight > CLAIM_WEIGHT_MAX)
        return refuse(why, "a node's weight must be at most 1000000", member->name);
    for (uint16_t other = 0; other < index; other++) {
        if (span_equal(options->members[other].name, member->name))
            return refuse(why, "two nodes have the same name", member->name);
        if (span_equal(options->members[other].peer_address, member->peer_address))
            return refuse(why, "two nodes have the same address", member->peer_address);
    }
    return STATUS_OK;
}

static enum status check_options(const struct ring_options *options, struct buf *why)
{
    uint32_t weight = 0;
    if (options->member_count < 1 || options->member_count > NODES_MAX)
        return refuse(why, "a cluster has 1 to 512 nodes", span_of_text(""));
    if (options->replicas < 1 || options->replicas > REPLICAS_MAX)
        return refuse(why, "the number of replicas must be 1 to 7", span_of_text(""));
    for (uint16_t i = 0; i < options->member_count; i++) {
        enum status status = check_member(options, i, why);
        if (status != STATUS_OK)
            return status;
        weight |= options->members[i].weight;
    }
    return weight == 0 ? refuse(why, "no node has a weight", span_of_text("")) : STATUS_OK;
}

/* place[i] = the index in the ring of the options' i-th member. */
static void sort_members(const struct ring_options *options, uint16_t *place)
{
    for (uint16_t i = 0; i < options->member_count; i++) {
        place[i] = 0;
        for (uint16_t j = 0; j < options->member_count; j++)
            place[i] =
                (uint16_t)(place[i] + (span_compare(options->members[j].name, options->members[i].name) < 0));
    }
}

static void copy_text(char *to, struct span from)
{
    if (from.size > 0)
        memcpy(to, from.data, from.size);
    to[from.size] = 0;
}

static void fill_node(struct ring_node *node, const struct ring_member *member)
{
    copy_text(node->name, member->name);
    copy_text(node->peer_address, member->peer_address);
    copy_text(node->zone, member->zone);
    node->weight = member->weight;
    node->state = member->state;
}

static enum status claim_owners(struct ring *ring, const struct ring *old)
{
    struct claim_node nodes[NODES_MAX];
    size_t before_bytes = SLOTS_COUNT * sizeof(uint16_t);
    for (uint16_t node = 0; node < ring->node_count; node++) {
        bool owns = ring->nodes[node].state == RING_NODE_ACTIVE;
        nodes[node] = (struct claim_node){.weight = owns ? ring->nodes[node].weight : 0, .zone = node};
        for (uint16_t other = 0; other < node; other++) {
            if (strcmp(ring->nodes[other].zone, ring->nodes[node].zone) == 0)
                nodes[node].zone = nodes[other].zone;
        }
    }
    uint16_t *before = NULL;
    if (old != NULL) {
        before = alloc_get(ring->alloc, before_bytes);
        if (before == NULL)
            return STATUS_OVERLOADED;
        for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
            before[slot] = ring_node_index(ring, old->nodes[old->owner[slot]].id);
    }
    struct claim_options options = {.nodes = nodes,
                                    .node_count = ring->node_count,
                                    .replicas = ring->replicas_configured,
                                    .before = before};
    enum status status = claim_slots(ring->alloc, &options, ring->owner);
    alloc_put(ring->alloc, before, before_bytes);
    return status;
}

static bool same_replicas(const struct ring *a, const struct ring *b, uint16_t slot)
{
    const uint16_t *replicas = ring_replicas(a, slot);
    if (a->replicas != b->replicas)
        return false;
    for (uint8_t i = 0; i < a->replicas; i++) {
        uint16_t node = ring_node_index(b, a->nodes[replicas[i]].id);
        if (node == RING_NODE_NONE || !ring_replicates(b, slot, node))
            return false;
    }
    return true;
}

/* Old voters that are still members stay, then others in order of name, of new zones first. An odd number: one
 * more than that would bear no more failures. */
static void choose_voters(struct ring *ring, const struct ring *old)
{
    uint16_t chosen[RING_VOTERS_MAX];
    uint16_t wanted = ring->node_count < RING_VOTERS_MAX ? ring->node_count : RING_VOTERS_MAX;
    uint16_t count = 0;
    wanted = (uint16_t)(wanted % 2 == 0 ? wanted - 1 : wanted);
    for (uint8_t i = 0; old != NULL && i < old->voter_count && count < wanted; i++) {
        uint16_t node = ring_node_index(ring, old->voters[i]);
        if (node != RING_NODE_NONE)
            chosen[count++] = node;
    }
    for (int any_zone = 0; any_zone <= 1; any_zone++) {
        for (uint16_t node = 0; node < ring->node_count && count < wanted; node++) {
            bool taken = !any_zone && zone_used(ring, chosen, count, node);
            for (uint16_t i = 0; i < count; i++)
                taken = taken || chosen[i] == node;
            if (!taken)
                chosen[count++] = node;
        }
    }
    for (uint16_t i = 0; i < count; i++) {
        uint64_t id = ring->nodes[chosen[i]].id;
        uint16_t at = i;
        for (; at > 0 && ring->voters[at - 1] > id; at--)
            ring->voters[at] = ring->voters[at - 1];
        ring->voters[at] = id;
    }
    ring->voter_count = (uint8_t)count;
}

static enum status fill_ring(struct ring *ring, const struct ring *old, const struct ring_options *options)
{
    uint16_t place[NODES_MAX];
    sort_members(options, place);
    for (uint16_t i = 0; i < options->member_count; i++)
        fill_node(&ring->nodes[place[i]], &options->members[i]);
    ring->replicas_configured = options->replicas;
    ring->epoch = old == NULL ? 1 : old->epoch + 1;
    enum status status = derive_ids(ring);
    if (status != STATUS_OK)
        return status;
    if (options->owner == NULL)
        status = claim_owners(ring, old);
    for (uint32_t slot = 0; options->owner != NULL && slot < SLOTS_COUNT; slot++) {
        if (options->owner[slot] >= options->member_count)
            return STATUS_MALFORMED;
        ring->owner[slot] = place[options->owner[slot]];
    }
    if (status == STATUS_OK)
        status = ring_derive(ring);
    if (status != STATUS_OK)
        return status;
    choose_voters(ring, old);
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        bool same = old != NULL && same_replicas(ring, old, (uint16_t)slot);
        ring->changed_epoch[slot] = same ? old->changed_epoch[slot] : ring->epoch;
    }
    if (old == NULL)
        return ring_hash(ring, &ring->cluster_id);
    ring->cluster_id = old->cluster_id;
    return STATUS_OK;
}

static enum status build(struct alloc *alloc, const struct ring *old, const struct ring_options *options,
                         struct buf *why, struct ring **out)
{
    enum status status = check_options(options, why);
    if (status != STATUS_OK)
        return status;
    struct ring *ring = ring_new(alloc, options->member_count);
    if (ring == NULL)
        return STATUS_OVERLOADED;
    status = fill_ring(ring, old, options);
    if (status != STATUS_OK) {
        ring_free(ring);
        if (status == STATUS_MALFORMED)
            return refuse(why, "the owners given leave a slot with too few replicas", span_of_text(""));
        return status;
    }
    *out = ring;
    return STATUS_OK;
}

enum status ring_initial(struct alloc *alloc, const struct ring_options *options, struct buf *why,
                         struct ring **ring)
{
    return build(alloc, NULL, options, why, ring);
}

enum status ring_next(struct alloc *alloc, const struct ring *old, const struct ring_options *options,
                      struct buf *why, struct ring **ring)
{
    assert(old != NULL && old->epoch < UINT64_MAX);
    return build(alloc, old, options, why, ring);
}
