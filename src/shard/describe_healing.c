/* Hints, repair and tombstones in the JSON of /status.
 *
 * Every shard counts its own; the one that has the client adds them up (FRAME_HEALING_ASK, FRAME_HEALING), as
 * info.c does with the counters. What is kept for each other node is bounded by the nodes of the ring; hints for
 * nodes that are no longer in it are told together. */
#include <assert.h>
#include <inttypes.h>

#include "shard/state.h"

/* Of a node: sums over the shards. */
#define NODE_SUMS(X) \
    X(hint_count)    \
    X(hint_bytes)    \
    X(sync_slots)    \
    X(up)            \
    X(slots)         \
    X(verified)      \
    X(never)

struct node_healing {
#define NODE_MEMBER(name) uint64_t name;
    NODE_SUMS(NODE_MEMBER)
#undef NODE_MEMBER
    uint64_t oldest_verified_ms; /* the longest ago of the slots that were verified */
    uint64_t blocked_slots[PURGE_BLOCKERS];
    uint64_t blocked_ms[PURGE_BLOCKERS]; /* the longest, of those slots */
};

/* Of the shard: sums. */
#define HEALING_SUMS(X)  \
    X(hints_count)       \
    X(hints_bytes)       \
    X(hints_replayed)    \
    X(hints_converted)   \
    X(hints_refused)     \
    X(exchanges)         \
    X(exchanges_failed)  \
    X(bytes_sent)        \
    X(bytes_received)    \
    X(records_sent)      \
    X(records_received)  \
    X(slots_not_serving) \
    X(rescans)           \
    X(leaves_wrong)      \
    X(tombstones)        \
    X(mortal)            \
    X(purgeable)         \
    X(purged)            \
    X(floor_refusals)

struct healing_sum {
#define HEALING_MEMBER(name) uint64_t name;
    HEALING_SUMS(HEALING_MEMBER)
#undef HEALING_MEMBER
    uint64_t rounds_least; /* of a shard */
    uint64_t round_ms;     /* since the round of a shard began: the longest */
    uint64_t oldest_ms;    /* since the oldest dead row became dead; 0 = none */
    uint16_t node_count;   /* by index in the ring; one more: nodes that are not in it */
    struct node_healing nodes[];
};

static size_t sum_size(uint16_t node_count)
{
    return sizeof(struct healing_sum) + ((size_t)node_count + 1) * sizeof(struct node_healing);
}

static struct healing_sum *sum_new(struct shard *shard)
{
    struct healing_sum *sum = alloc_get_zeroed(&shard->alloc, sum_size(shard->ring->node_count));
    if (sum == NULL)
        return NULL;
    sum->node_count = shard->ring->node_count;
    sum->rounds_least = UINT64_MAX;
    return sum;
}

void healing_free(struct shard *shard, struct healing_sum *sum)
{
    if (sum != NULL)
        alloc_put(&shard->alloc, sum, sum_size(sum->node_count));
}

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- this shard's part ---------------------------------------------------------------------------------- */

static void count_hints(const struct shard *shard, struct healing_sum *sum)
{
    const struct hints *books = &shard->repairing.handoff.books;
    sum->hints_count += books->count;
    sum->hints_bytes += books->bytes;
    sum->hints_replayed += books->replayed;
    sum->hints_converted += books->converted;
    sum->hints_refused += books->refused;
    for (uint64_t id = hints_target_next(books, 0); id != 0; id = hints_target_next(books, id)) {
        struct hint_target_info target = hints_target(books, id);
        uint16_t index = ring_node_index(shard->ring, id);
        struct node_healing *node = &sum->nodes[index == RING_NODE_NONE ? sum->node_count : index];
        node->hint_count += target.count;
        node->hint_bytes += target.bytes;
        node->sync_slots += target.syncs;
        node->up += target.up;
    }
}

static void count_exchanges(const struct shard *shard, struct healing_sum *sum)
{
    const struct repairing *repairing = &shard->repairing;
    const struct repair_counters *counters = &repairing->counters;
    uint64_t began_us =
        repairing->round_began_us != 0 ? repairing->round_began_us : shard->options.now.mono_us;
    sum->exchanges += counters->exchanges;
    sum->exchanges_failed += counters->exchanges_failed;
    sum->bytes_sent += counters->bytes_sent;
    sum->bytes_received += counters->bytes_received;
    sum->records_sent += counters->records_sent;
    sum->records_received += counters->records_received;
    sum->slots_not_serving += heal_slots_left(shard);
    sum->rescans += counters->rescans;
    sum->leaves_wrong += counters->leaves_wrong;
    sum->purged += counters->purged;
    sum->floor_refusals += counters->floor_refusals;
    sum->rounds_least = repairing->rounds < sum->rounds_least ? repairing->rounds : sum->rounds_least;
    sum->round_ms = greater(sum->round_ms, (shard->now.mono_us - began_us) / 1000);
}

static void count_verified(const struct shard *shard, const struct slot_state *state, struct healing_sum *sum)
{
    /* A round is never quite on time: a tenth is allowed. */
    uint64_t lately_ms = (uint64_t)shard->options.healing.repair_interval_ms / 10 * 11;
    const uint16_t *replicas = ring_replicas(shard->ring, state->slot);
    for (uint8_t i = 0; i < ring_replica_count(shard->ring); i++) {
        if (replicas[i] == shard->self)
            continue;
        struct node_healing *node = &sum->nodes[replicas[i]];
        decisecond when = slot_verified(shard, state, replicas[i]);
        uint64_t ago_ms = shard->now.wall_ms - slots_wall_ms(shard, when);
        node->slots++;
        node->never += when == 0;
        node->verified += when != 0 && ago_ms <= lately_ms;
        if (when != 0)
            node->oldest_verified_ms = greater(node->oldest_verified_ms, ago_ms);
    }
}

static void count_dead(struct shard *shard, const struct slot_state *state, struct healing_sum *sum)
{
    uint64_t now_ms = shard->now.wall_ms;
    sum->tombstones += state->tombstones;
    sum->mortal += state->dead > state->tombstones ? state->dead - state->tombstones : 0;
    if (state->dead == 0 || state->purge_at_ms == 0 || state->purge_at_ms == UINT64_MAX)
        return;
    uint64_t died_ms = state->purge_at_ms - slot_dead_age_ms(shard);
    if (died_ms < now_ms)
        sum->oldest_ms = greater(sum->oldest_ms, now_ms - died_ms);
    uint64_t late_ms = now_ms - state->purge_at_ms;
    if (state->purge_at_ms > now_ms)
        return;
    uint64_t node_id;
    enum purge_blocker blocker = purge_blocked(shard, state, slots_since(shard, late_ms), &node_id);
    if (blocker == PURGE_FREE) {
        sum->purgeable += state->tombstones;
        return;
    }
    struct node_healing *node = &sum->nodes[ring_node_index(shard->ring, node_id)];
    node->blocked_slots[blocker]++;
    node->blocked_ms[blocker] = greater(node->blocked_ms[blocker], late_ms);
}

static void collect(struct shard *shard, struct healing_sum *sum)
{
    const struct slots *slots = &shard->repairing.slots;
    count_hints(shard, sum);
    count_exchanges(shard, sum);
    for (uint32_t i = 0; i < slots->count; i++) {
        count_verified(shard, &slots->states[i], sum);
        count_dead(shard, &slots->states[i], sum);
    }
}

/* ---- between the shards --------------------------------------------------------------------------------- */

static void sum_put(struct buf *body, const struct healing_sum *sum)
{
    buf_put_u16(body, sum->node_count);
#define HEALING_PUT(name) buf_put_u64(body, sum->name);
    HEALING_SUMS(HEALING_PUT)
#undef HEALING_PUT
    buf_put_u64(body, sum->rounds_least);
    buf_put_u64(body, sum->round_ms);
    buf_put_u64(body, sum->oldest_ms);
    for (uint32_t i = 0; i <= sum->node_count; i++) {
        const struct node_healing *node = &sum->nodes[i];
#define NODE_PUT(name) buf_put_u64(body, node->name);
        NODE_SUMS(NODE_PUT)
#undef NODE_PUT
        buf_put_u64(body, node->oldest_verified_ms);
        for (uint32_t b = 0; b < PURGE_BLOCKERS; b++) {
            buf_put_u64(body, node->blocked_slots[b]);
            buf_put_u64(body, node->blocked_ms[b]);
        }
    }
}

/* Adds a sibling's part. One of another ring is left out: the next look has it. */
static void sum_add(struct healing_sum *sum, struct span bytes)
{
    struct reader body = reader_of(bytes);
    if (reader_u16(&body) != sum->node_count)
        return;
#define HEALING_ADD(name) sum->name += reader_u64(&body);
    HEALING_SUMS(HEALING_ADD)
#undef HEALING_ADD
    uint64_t rounds = reader_u64(&body);
    sum->rounds_least = rounds < sum->rounds_least ? rounds : sum->rounds_least;
    sum->round_ms = greater(sum->round_ms, reader_u64(&body));
    sum->oldest_ms = greater(sum->oldest_ms, reader_u64(&body));
    for (uint32_t i = 0; i <= sum->node_count; i++) {
        struct node_healing *node = &sum->nodes[i];
#define NODE_ADD(name) node->name += reader_u64(&body);
        NODE_SUMS(NODE_ADD)
#undef NODE_ADD
        node->oldest_verified_ms = greater(node->oldest_verified_ms, reader_u64(&body));
        for (uint32_t b = 0; b < PURGE_BLOCKERS; b++) {
            node->blocked_slots[b] += reader_u64(&body);
            node->blocked_ms[b] = greater(node->blocked_ms[b], reader_u64(&body));
        }
    }
    enum status status = reader_finish(&body);
    assert(status == STATUS_OK);
}

void healing_ask(struct shard *shard, struct pending *pending)
{
    uint64_t ticket = pending->id << TICKET_PART_BITS;
    pending->healing = sum_new(shard);
    if (pending->healing == NULL) {
        pending_overloaded(pending);
        return;
    }
    collect(shard, pending->healing);
    for (uint16_t i = 0; i < shard->options.shards; i++) {
        if (i == shard->options.shard)
            continue;
        pending->parts_left++;
        frame_put_raw(&shard->locals[i], FRAME_HEALING_ASK, frame_head_of(shard, (uint8_t)i, ticket),
                      (struct span){0});
    }
}

void healing_asked(struct shard *shard, const struct frame *frame)
{
    struct healing_sum *sum = sum_new(shard);
    struct buf body;
    buf_init(&body, &shard->local_alloc);
    if (sum != NULL) {
        collect(shard, sum);
        sum_put(&body, sum);
    }
    frame_put_raw(&shard->locals[frame->from_shard], FRAME_HEALING,
                  frame_head_of(shard, frame->from_shard, frame->request), buf_span(&body));
    buf_free(&body);
    healing_free(shard, sum);
}

void healing_answered(struct shard *shard, const struct frame *frame)
{
    struct pending *pending = map_get(&shard->pendings, frame->request >> TICKET_PART_BITS);
    assert(pending != NULL && pending->healing != NULL);
    if (frame->body.size == 0) {
        pending_overloaded(pending);
    } else {
        sum_add(pending->healing, frame->body);
    }
    pending_part_over(shard, pending);
}

/* ---- JSON ----------------------------------------------------------------------------------------------- */

static void put_name(const struct shard *shard, const struct healing_sum *sum, uint16_t index,
                     const char **between, struct buf *json)
{
    buf_append_format(json, "%s{\"node\":", *between);
    json_put_string(json,
                    span_of_text(index == sum->node_count ? "(removed)" : shard->ring->nodes[index].name));
    *between = ",";
}

static void put_hints(const struct shard *shard, const struct healing_sum *sum, struct buf *json)
{
    const char *between = "";
    buf_append_format(json,
                      ",\"hints\":{\"enabled\":%s,\"count\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"targets\":[",
                      shard->options.healing.hints ? "true" : "false", sum->hints_count, sum->hints_bytes);
    for (uint16_t i = 0; i <= sum->node_count; i++) {
        const struct node_healing *node = &sum->nodes[i];
        if (node->hint_count == 0 && node->sync_slots == 0)
            continue;
        put_name(shard, sum, i, &between, json);
        buf_append_format(
            json, ",\"count\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"sync_slots\":%" PRIu64 ",\"up\":%s}",
            node->hint_count, node->hint_bytes, node->sync_slots, node->up > 0 ? "true" : "false");
    }
    buf_append_format(json, "],\"replayed\":%" PRIu64 ",\"converted\":%" PRIu64 ",\"refused\":%" PRIu64 "}",
                      sum->hints_replayed, sum->hints_converted, sum->hints_refused);
}

static void put_repair(const struct shard *shard, const struct healing_sum *sum, struct buf *json)
{
    const char *between = "";
    buf_append_format(json,
                      ",\"repair\":{\"enabled\":%s,\"interval_ms\":%" PRIu32 ",\"exchanges\":%" PRIu64
                      ",\"exchanges_failed\":%" PRIu64 ",\"bytes_sent\":%" PRIu64
                      ",\"bytes_received\":%" PRIu64 ",\"records_sent\":%" PRIu64
                      ",\"records_received\":%" PRIu64,
                      shard->options.healing.repair ? "true" : "false",
                      shard->options.healing.repair_interval_ms, sum->exchanges, sum->exchanges_failed,
                      sum->bytes_sent, sum->bytes_received, sum->records_sent, sum->records_received);
    buf_append_format(json,
                      ",\"slots_not_serving\":%" PRIu64 ",\"rescans\":%" PRIu64 ",\"leaves_wrong\":%" PRIu64
                      ",\"rounds\":%" PRIu64 ",\"round_started_ms_ago\":%" PRIu64 ",\"peers\":[",
                      sum->slots_not_serving, sum->rescans, sum->leaves_wrong, sum->rounds_least,
                      sum->round_ms);
    for (uint16_t i = 0; i < sum->node_count; i++) {
        const struct node_healing *node = &sum->nodes[i];
        if (i == shard->self || node->slots == 0)
            continue;
        put_name(shard, sum, i, &between, json);
        buf_append_format(json, ",\"slots\":%" PRIu64 ",\"verified\":%" PRIu64 ",\"never\":%" PRIu64,
                          node->slots, node->verified, node->never);
        if (node->never < node->slots)
            buf_append_format(json, ",\"oldest_verified_ms_ago\":%" PRIu64, node->oldest_verified_ms);
        buf_append_format(json, ",\"sync_slots\":%" PRIu64 "}", node->sync_slots);
    }
    buf_append_text(json, "]}");
}

static void put_blockers(const struct shard *shard, const struct healing_sum *sum, struct buf *json)
{
    const char *between = "";
    for (uint16_t i = 0; i < sum->node_count; i++) {
        for (uint32_t b = 0; b < PURGE_BLOCKERS; b++) {
            if (sum->nodes[i].blocked_slots[b] == 0)
                continue;
            put_name(shard, sum, i, &between, json);
            buf_append_format(json, ",\"reason\":\"%s\",\"slots\":%" PRIu64 ",\"since_ms_ago\":%" PRIu64 "}",
                              purge_blocker_name((enum purge_blocker)b), sum->nodes[i].blocked_slots[b],
                              sum->nodes[i].blocked_ms[b]);
        }
    }
}

static void put_tombstones(const struct shard *shard, const struct healing_sum *sum, struct buf *json)
{
    buf_append_format(json,
                      ",\"tombstones\":{\"count\":%" PRIu64 ",\"mortal\":%" PRIu64 ",\"purgeable\":%" PRIu64,
                      sum->tombstones, sum->mortal, sum->purgeable);
    if (sum->oldest_ms > 0)
        buf_append_format(json, ",\"oldest_age_ms\":%" PRIu64, sum->oldest_ms);
    buf_append_format(json, ",\"purged_total\":%" PRIu64 ",\"floor_refusals\":%" PRIu64 ",\"blockers\":[",
                      sum->purged, sum->floor_refusals);
    put_blockers(shard, sum, json);
    buf_append_text(json, "]}");
}

void healing_json(const struct shard *shard, const struct healing_sum *sum, struct buf *json)
{
    /* The ring may have changed while the shards were asked: then there is nothing to name them by. */
    if (sum->node_count != shard->ring->node_count)
        return;
    put_hints(shard, sum, json);
    put_repair(shard, sum, json);
    put_tombstones(shard, sum, json);
}
