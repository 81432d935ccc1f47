/* Which nodes are reachable, as gossip says: shard 0 drives the machine of gossip/swim.h, and all shards act on it.
 *
 * Messages, greetings, answers to clock pings and a timer go into the machine as they come. What it wants to send, and
 * what it has found out, is taken from it once at each turn's end: datagrams leave as effects, messages for the peer
 * connection as FRAME_GOSSIP, and every change of a node's state goes to this shard's table of peers (peer_liveness)
 * and to the sibling shards (FRAME_LIVENESS), which have no machine of their own.
 *
 * Gossip says who can be reached, never who owns what. */
#include <assert.h>
#include <inttypes.h>

#include "shard/state.h"

static uint64_t now_ms(const struct shard *shard)
{
    return shard->now.mono_us / 1000;
}

/* The ids of the ring's nodes; returns how many. */
static uint16_t member_nodes(const struct shard *shard, uint64_t nodes[NODES_MAX])
{
    for (uint16_t i = 0; i < shard->ring->node_count; i++)
        nodes[i] = shard->ring->nodes[i].id;
    return shard->ring->node_count;
}

enum status liveness_init(struct shard *shard, const struct shard_options *options)
{
    struct liveness *liveness = &shard->liveness;
    uint64_t nodes[NODES_MAX];
    liveness->timer.kind = TIMER_LIVENESS;
    liveness->since_ms = options->now.wall_ms;
    if (options->shard != 0)
        return STATUS_OK;
    struct swim *swim = alloc_get(&shard->alloc, sizeof *swim);
    if (swim == NULL)
        return STATUS_OVERLOADED;
    /* The clock makes a restart greater than the run before. One that was set to nonsense costs a refutation. */
    uint64_t wall_ms = options->now.wall_ms;
    struct swim_options swim_options = {
        .alloc = &shard->alloc,
        .cluster = shard->ring->cluster_id,
        .self = shard->self_id,
        .incarnation = wall_ms >= 1 && wall_ms <= STAMP_MS_MAX ? wall_ms : 1,
        .seed = prng_u64(&shard->prng),
        .now_ms = options->now.mono_us / 1000,
        .nodes = nodes,
        .node_count = member_nodes(shard, nodes),
        .tuning = swim_tuning_default(),
    };
    enum status status = swim_init(swim, &swim_options);
    if (status != STATUS_OK) {
        alloc_put(&shard->alloc, swim, sizeof *swim);
        return status;
    }
    liveness->swim = swim;
    liveness->touched = true;
    return STATUS_OK;
}

void liveness_free(struct shard *shard)
{
    struct liveness *liveness = &shard->liveness;
    if (liveness->swim == NULL)
        return;
    swim_free(liveness->swim);
    alloc_put(&shard->alloc, liveness->swim, sizeof *liveness->swim);
}

/* ---- what the machine says ------------------------------------------------------------------------------ */

static void tell_siblings(struct shard *shard, uint64_t node, uint64_t incarnation, enum swim_state state)
{
    struct buf body;
    if (shard->options.shards == 1)
        return;
    buf_init(&body, &shard->local_alloc);
    buf_put_u64(&body, node);
    buf_put_u64(&body, incarnation);
    buf_put_u8(&body, (uint8_t)state);
    for (uint16_t i = 1; i < shard->options.shards; i++)
        frame_put_raw(&shard->locals[i], FRAME_LIVENESS, frame_head_of(shard, (uint8_t)i, 0),
                      buf_span(&body));
    buf_free(&body);
}

static void note(struct shard *shard, uint64_t node, uint64_t incarnation, enum swim_state state)
{
    if (node == shard->self_id) {
        shard->liveness.incarnation = incarnation;
        return;
    }
    struct peer *peer = peer_of_node(shard, node);
    if (peer == NULL)
        return; /* of a ring that this shard is about to learn, or has left behind */
    peer->incarnation = incarnation;
    peer_liveness(shard, peer, state);
}

static void say_change(struct shard *shard, const struct peer *peer, enum swim_state state)
{
    const char *name = shard->ring->nodes[peer->index].name;
    if (state == SWIM_DEAD)
        say(shard, SAY_WARNING,
            "node %s is dead: no node has heard from it for a while; requests do without it", name);
    else if (state == SWIM_SUSPECT)
        say(shard, SAY_INFO, "node %s is suspect: it does not answer, and has a while to", name);
    else
        say(shard, SAY_INFO, "node %s is alive again", name);
}

/* Brings the tables of all shards to what the machine knows of a node. */
static void follow(struct shard *shard, uint64_t node)
{
    const struct swim_member *member = swim_member_of(shard->liveness.swim, node);
    struct peer *peer = peer_of_node(shard, node);
    bool self = node == shard->self_id;
    if (member == NULL || (peer == NULL && !self))
        return;
    uint64_t known = self ? shard->liveness.incarnation : peer->incarnation;
    enum swim_state state = self ? SWIM_ALIVE : peer->liveness;
    if (member->state == state && member->incarnation == known)
        return;
    if (member->state != state && peer != NULL)
        say_change(shard, peer, member->state);
    tell_siblings(shard, node, member->incarnation, member->state);
    note(shard, node, member->incarnation, member->state);
}

static void follow_all(struct shard *shard)
{
    for (uint16_t i = 0; i < shard->ring->node_count; i++)
        follow(shard, shard->ring->nodes[i].id);
}

static void send_message(struct shard *shard, const struct swim_send *send)
{
    struct buf *out = send->over_connection ? peer_gossip_output(peer_of_node(shard, send->node)) : NULL;
    if (out != NULL) {
        frame_put_raw(out, FRAME_GOSSIP, frame_head_of(shard, 0, 0), send->bytes);
        out->failed = false; /* no memory: as if the network had lost it */
    } else if (!send->large) {
        struct effect *effect = effects_add(shard->effects, EFFECT_DATAGRAM_SEND);
        effect->node = send->node;
        effect->bytes = send->bytes;
    }
}

void liveness_turn_end(struct shard *shard)
{
    struct liveness *liveness = &shard->liveness;
    struct swim_change change;
    struct swim_send send;
    if (!liveness->touched)
        return;
    while (swim_next_change(liveness->swim, &change))
        follow(shard, change.node);
    /* Nothing else goes into the machine in this turn, so the bytes stay in place until the world has sent them. */
    while (swim_next_send(liveness->swim, &send))
        send_message(shard, &send);
    uint64_t deadline_us = swim_deadline_ms(liveness->swim) * 1000;
    /* No memory for the timer: the tick comes soon, and its turn tries again. */
    liveness->touched = timer_arm(&shard->timers, &liveness->timer, deadline_us) != STATUS_OK;
}

void liveness_told(struct shard *shard, const struct frame *frame)
{
    struct reader reader = reader_of(frame->body);
    uint64_t node = reader_u64(&reader);
    uint64_t incarnation = reader_u64(&reader);
    enum swim_state state = (enum swim_state)reader_u8(&reader);
    assert(reader_finish(&reader) == STATUS_OK);
    note(shard, node, incarnation, state);
}

/* ---- what goes in --------------------------------------------------------------------------------------- */

static void take_members(struct shard *shard)
{
    struct liveness *liveness = &shard->liveness;
    uint64_t nodes[NODES_MAX];
    uint16_t count = member_nodes(shard, nodes);
    liveness->members_stale = swim_set_members(liveness->swim, nodes, count) != STATUS_OK;
    liveness->touched = true;
}

void liveness_ring(struct shard *shard)
{
    take_members(shard);
    follow_all(shard);
}

void liveness_timer(struct shard *shard)
{
    struct liveness *liveness = &shard->liveness;
    if (liveness->members_stale)
        take_members(shard);
    swim_tick(liveness->swim, now_ms(shard));
    liveness->touched = true;
    /* Incarnations grow without a change of state. */
    follow_all(shard);
}

void liveness_datagram(struct shard *shard, struct span bytes)
{
    assert(shard->liveness.swim != NULL);
    struct swim_received received = {.now_ms = now_ms(shard), .bytes = bytes};
    swim_receive(shard->liveness.swim, &received);
    shard->liveness.touched = true;
}

void liveness_gossip(struct shard *shard, uint64_t node, struct span bytes)
{
    struct swim_received received = {
        .now_ms = now_ms(shard), .node = node, .over_connection = true, .bytes = bytes};
    swim_receive(shard->liveness.swim, &received);
    shard->liveness.touched = true;
}

void liveness_heard(struct shard *shard, uint64_t node)
{
    assert(shard->liveness.swim != NULL);
    swim_heard(shard->liveness.swim, node, now_ms(shard));
    shard->liveness.touched = true;
}

/* ---- for observers -------------------------------------------------------------------------------------- */

const struct swim_counters *liveness_counters(const struct shard *shard)
{
    static const struct swim_counters none;
    const struct swim *swim = shard->liveness.swim;
    return swim == NULL ? &none : &swim->counters;
}

uint32_t liveness_health(const struct shard *shard)
{
    const struct swim *swim = shard->liveness.swim;
    return swim == NULL ? 0 : swim_health(swim);
}

uint32_t liveness_nodes(const struct shard *shard, enum swim_state state)
{
    const struct swim *swim = shard->liveness.swim;
    if (swim == NULL)
        return 0;
    if (state == SWIM_SUSPECT)
        return swim->suspects;
    return state == SWIM_DEAD ? swim->dead : (uint32_t)(swim->member_count - swim->suspects - swim->dead);
}
