/* Other nodes: connections, greetings, reachability.
 *
 * A node is reachable while this shard's connection to it stands, its greeting was accepted, and gossip does not hold
 * it dead (liveness.c): a stopped process keeps its connections. Frames for it are gathered during a turn and leave in
 * one write; what comes in is frames.c's. */
#include <assert.h>

#include "shard/state.h"

/* Answers kept for a node that is not reached yet; its requests are few before it has greeted everybody. */
#define HELD_ANSWERS_BYTES_MAX (256u << 10)

/* Buffers that grew past this are given back when they have been sent. */
#define OUTPUT_KEEP_BYTES (256u << 10)

struct frame_head frame_head_of(const struct shard *shard, uint8_t to_shard, uint64_t request)
{
    return (struct frame_head){
        .from_shard = (uint8_t)shard->options.shard,
        .to_shard = to_shard,
        .request = request,
        .epoch = shard->ring->epoch,
    };
}

struct peer *peer_of_node(struct shard *shard, uint64_t node)
{
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        if (shard->peers[i].node == node)
            return &shard->peers[i];
    }
    return NULL;
}

struct peer *peer_of_index(struct shard *shard, uint16_t index)
{
    assert(index < shard->ring->node_count && index != shard->self);
    /* The peers are the ring's nodes in order, without this one. */
    struct peer *peer = &shard->peers[index < shard->self ? index : index - 1];
    assert(peer->index == index);
    return peer;
}

bool node_reachable(struct shard *shard, uint16_t index)
{
    return index == shard->self || peer_of_index(shard, index)->reachable;
}

uint32_t peers_connected(const struct shard *shard)
{
    uint32_t connected = 0;
    for (uint16_t i = 0; i < shard->peer_count; i++)
        connected += shard->peers[i].connected;
    return connected;
}

bool node_suspect(struct shard *shard, uint16_t index)
{
    return index != shard->self && peer_of_index(shard, index)->liveness == SWIM_SUSPECT;
}

struct buf *peer_gossip_output(struct peer *peer)
{
    if (peer == NULL || !peer->greeted || peer->out.size > PEER_OUTPUT_BYTES_MAX)
        return NULL;
    return &peer->out;
}

struct buf *peer_output(struct peer *peer)
{
    return peer != NULL && peer->reachable ? peer_gossip_output(peer) : NULL;
}

/* ---- the table of peers --------------------------------------------------------------------------------- */

static void peer_free(struct peer *peer)
{
    buf_free(&peer->out);
    buf_free(&peer->held);
    buf_free(&peer->greeting);
    alloc_put(peer->out.alloc, peer->begun, peer->begun_shards * sizeof *peer->begun);
    alloc_put(peer->out.alloc, peer->hints_held, SLOTS_COUNT / 8);
    alloc_put(peer->out.alloc, peer->hints_asked, SHARDS_MAX * sizeof *peer->hints_asked);
}

static void peer_init(struct shard *shard, struct peer *peer, uint64_t node)
{
    *peer = (struct peer){.node = node, .liveness = SWIM_ALIVE, .since_ms = shard->now.wall_ms};
    buf_init(&peer->out, &shard->alloc);
    buf_init(&peer->held, &shard->alloc);
    buf_init(&peer->greeting, &shard->alloc);
    const struct meta_member *member = meta_member_find(&shard->meta, node);
    if (member == NULL)
        return;
    span_copy_text(span_of_text(member->resp), peer->resp_address, sizeof peer->resp_address);
    span_copy_text(span_of_text(member->http), peer->http_address, sizeof peer->http_address);
}

/* Makes the table for the ring in force, keeping what is known of nodes that stay. */
enum status peers_init(struct shard *shard)
{
    uint16_t count = (uint16_t)(shard->ring->node_count - 1);
    struct peer *peers = NULL;
    if (count > 0) {
        peers = alloc_get(&shard->alloc, count * sizeof *peers);
        if (peers == NULL)
            return STATUS_OVERLOADED;
    }
    uint16_t at = 0;
    for (uint16_t i = 0; i < shard->ring->node_count; i++) {
        uint64_t node = shard->ring->nodes[i].id;
        if (node == shard->self_id)
            continue;
        assert(peers != NULL && at < count);
        struct peer *known = peer_of_node(shard, node);
        if (known != NULL) {
            peers[at] = *known;
            known->node = 0;
        } else {
            peer_init(shard, &peers[at], node);
        }
        peers[at].index = i;
        peers[at].timing.in_flight = 0; /* coordinator.c forgets what it counted */
        at++;
    }
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        if (shard->peers[i].node != 0)
            peer_free(&shard->peers[i]);
    }
    alloc_put(&shard->alloc, shard->peers, shard->peer_count * sizeof *shard->peers);
    shard->peers = peers;
    shard->peer_count = count;
    shard->client_map_stale = true;
    return STATUS_OK;
}

void peers_free(struct shard *shard)
{
    for (uint16_t i = 0; i < shard->peer_count; i++)
        peer_free(&shard->peers[i]);
    alloc_put(&shard->alloc, shard->peers, shard->peer_count * sizeof *shard->peers);
    uint32_t at = 0;
    for (struct link *link = map_next(&shard->links, &at); link != NULL; link = map_next(&shard->links, &at))
        alloc_put(&shard->alloc, link, sizeof *link);
    map_free(&shard->links);
}

static void connect_peer(struct shard *shard, struct peer *peer)
{
    peer->asked_connect = true;
    struct effect *effect = effects_add(shard->effects, EFFECT_PEER_CONNECT);
    effect->node = peer->node;
    effect->bytes = span_of_text(shard->ring->nodes[peer->index].peer_address);
}

/* A node that reaches us can be reached: its answers come by our connection to it. */
static void redial(struct shard *shard, struct peer *peer)
{
    if (peer->connected || peer->asked_redial)
        return;
    peer->asked_redial = true;
    connect_peer(shard, peer);
}

struct buf *peer_answer_output(struct shard *shard, struct peer *peer)
{
    if (peer == NULL || peer->greeted)
        return peer_gossip_output(peer);
    /* A node that starts reaches us a moment before we reach it: what it asks meanwhile is answered then. */
    redial(shard, peer);
    return peer->held.size < HELD_ANSWERS_BYTES_MAX ? &peer->held : NULL;
}

void peers_start(struct shard *shard)
{
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        struct peer *peer = &shard->peers[i];
        if (!peer->asked_connect)
            connect_peer(shard, peer);
    }
}

static void send_gathered(struct shard *shard, struct peer *peer, struct buf *bytes)
{
    struct effect *effect = effects_add(shard->effects, EFFECT_PEER_SEND);
    effect->node = peer->node;
    effect->bytes = buf_span(bytes);
}

void peers_turn_end(struct shard *shard)
{
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        struct peer *peer = &shard->peers[i];
        if (peer->greeting.size > 0)
            send_gathered(shard, peer, &peer->greeting);
        if (peer->out.size > 0)
            send_gathered(shard, peer, &peer->out);
    }
    for (uint16_t i = 0; i < shard->options.shards; i++) {
        if (shard->locals[i].size == 0)
            continue;
        struct effect *effect = effects_add(shard->effects, EFFECT_LOCAL_SEND);
        effect->shard = i;
        effect->bytes = buf_span(&shard->locals[i]);
    }
}

static void clear_output(struct buf *buf)
{
    if (buf->capacity > OUTPUT_KEEP_BYTES)
        buf_free(buf);
    else
        buf_clear(buf);
}

void peers_turn_begin(struct shard *shard)
{
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        clear_output(&shard->peers[i].out);
        clear_output(&shard->peers[i].greeting);
    }
    for (uint16_t i = 0; i < shard->options.shards; i++)
        clear_output(&shard->locals[i]);
}

/* ---- our connection to a node --------------------------------------------------------------------------- */

static void greet(struct shard *shard, struct peer *peer)
{
    struct buf ring;
    buf_init(&ring, &shard->alloc);
    ring_encode(shard->ring, &ring);
    struct frame_hello hello = {
        .cluster = shard->meta.cluster_id,
        .node = shard->self_id,
        .directory = meta_known_as(&shard->meta),
        .runs = shard->meta.runs,
        .shards = shard->options.shards,
        .shard = shard->options.shard,
        .name = span_of_text(shard->ring->nodes[shard->self].name),
        .resp_address = span_of_text(shard->resp_address),
        .http_address = span_of_text(shard->http_address),
        .ring = buf_span(&ring),
    };
    hello.runs.now = shard->run;
    peer->greeted_as = hello.directory;
    buf_clear(&peer->greeting);
    frame_put_hello(&peer->greeting, frame_head_of(shard, 0, 0), &hello);
    buf_free(&ring);
    peer->greeting.failed = false; /* no memory: nothing is sent, and the connection is tried again later */
}

/* Whether requests may use the node, after the connection or what gossip says of it has changed. */
static void judge_peer(struct shard *shard, struct peer *peer)
{
    bool reachable = peer->greeted && peer->liveness != SWIM_DEAD;
    if (reachable == peer->reachable)
        return;
    peer->reachable = reachable;
    shard->client_map_stale = true;
    if (shard->options.shard == 0)
        say(shard, reachable ? SAY_INFO : SAY_WARNING, "node %s is %s", shard->ring->nodes[peer->index].name,
            reachable ? "reachable" : "unreachable");
    if (!reachable)
        coordinator_peer_down(shard, peer->index);
    handoff_node_changed(shard, peer->node, reachable);
    if (reachable)
        antientropy_node_up(shard, peer->node);
    else
        antientropy_node_down(shard, peer->node);
}

static void peer_lost(struct shard *shard, struct peer *peer)
{
    if (peer->greeted)
        buf_free(&peer->held);
    peer->connected = false;
    peer->greeted = false;
    peer->asked_redial = false;
    buf_clear(&peer->out);
    buf_clear(&peer->greeting);
    judge_peer(shard, peer);
    replica_lost(&peer->timing);
}

void peers_drop_held(struct shard *shard)
{
    for (uint16_t i = 0; i < shard->peer_count; i++)
        buf_free(&shard->peers[i].held);
}

/* No answer reaches a node before it has welcomed this one: what is held for it leaves below, unless it says here that
 * this directory is not current. Then nothing that any shard holds counts, from this moment on. */
static void peer_welcomed(struct shard *shard, struct peer *peer, const struct frame_welcome *welcome)
{
    bool superseded = welcome->superseded && peer->greeted_as == meta_known_as(&shard->meta);
    if (superseded && shard->options.shard != 0)
        heal_everything(shard); /* durably by shard 0, which hears the same */
    else if (superseded)
        membership_superseded(shard, peer);
    peer->greeted = true;
    /* What was said of an id that is this node's no more was said of the same disk. */
    shard->judged = true;
    peer->refusal[0] = 0;
    /* What each of its shards said of its hints was about other slots. */
    if (peer->shards != welcome->shards && peer->hints_asked != NULL)
        memset(peer->hints_asked, 0, SHARDS_MAX * sizeof *peer->hints_asked);
    peer->shards = welcome->shards;
    span_copy_text(welcome->resp_address, peer->resp_address, sizeof peer->resp_address);
    span_copy_text(welcome->http_address, peer->http_address, sizeof peer->http_address);
    shard->client_map_stale = true;
    buf_append_span(&peer->out, buf_span(&peer->held));
    peer->out.failed = false;
    buf_free(&peer->held);
    judge_peer(shard, peer);
    if (shard->options.shard != 0)
        return;
    liveness_heard(shard, peer->node);
    membership_welcomed(shard, peer, welcome);
}

static void peer_refused(struct shard *shard, struct peer *peer, const struct frame_refuse *refuse)
{
    char text[sizeof peer->refusal];
    span_copy_text(refuse->text, text, sizeof text);
    if (strcmp(text, peer->refusal) == 0)
        return;
    memcpy(peer->refusal, text, sizeof text);
    if (shard->options.shard == 0)
        say(shard, SAY_ERROR, "node %s at %s refuses this node: %s", shard->ring->nodes[peer->index].name,
            shard->ring->nodes[peer->index].peer_address, text);
}

static void drop_peer(struct shard *shard, struct peer *peer)
{
    effects_add(shard->effects, EFFECT_PEER_DROP)->node = peer->node;
    peer_lost(shard, peer);
}

void peer_liveness(struct shard *shard, struct peer *peer, enum swim_state state)
{
    bool was_dead = peer->liveness == SWIM_DEAD;
    if (state == peer->liveness)
        return;
    peer->liveness = state;
    peer->since_ms = shard->now.wall_ms;
    /* The connection of a node that does not answer is half open at best: another one shows when it is back. */
    if (state == SWIM_DEAD && peer->connected)
        drop_peer(shard, peer);
    judge_peer(shard, peer);
    if (was_dead && !peer->connected)
        connect_peer(shard, peer);
}

/* The answer to the greeting; nothing else comes on this connection. */
static void peer_answer(struct shard *shard, struct peer *peer, const struct frame *frame)
{
    struct frame_welcome welcome;
    struct frame_refuse refuse;
    if (frame->type == FRAME_WELCOME && frame_read_welcome(frame, &welcome) == STATUS_OK &&
        welcome.node == peer->node) {
        peer_welcomed(shard, peer, &welcome);
        return;
    }
    if (frame->type == FRAME_REFUSE && frame_read_refuse(frame, &refuse) == STATUS_OK) {
        peer_refused(shard, peer, &refuse);
    } else {
        struct frame_refuse other = {.text = span_of_text("what answers there is not that Rondo node")};
        peer_refused(shard, peer, &other);
    }
    drop_peer(shard, peer);
}

static void peer_data(struct shard *shard, struct peer *peer, struct event *event)
{
    struct frame frame;
    struct span bytes = event->bytes;
    while (peer->connected) {
        enum status status = frame_cut(bytes, &frame, &event->need);
        if (status == STATUS_MORE)
            return;
        if (status != STATUS_OK) {
            struct frame_refuse other = {
                .text = span_of_text("what answers there does not speak Rondo's protocol")};
            peer_refused(shard, peer, &other);
            drop_peer(shard, peer);
            event->consumed = event->bytes.size;
            return;
        }
        bytes = span_of(bytes.data + frame.whole.size, bytes.size - frame.whole.size);
        event->consumed += frame.whole.size;
        peer_answer(shard, peer, &frame);
    }
}

void peer_event(struct shard *shard, struct event *event)
{
    struct peer *peer = peer_of_node(shard, event->node);
    if (peer == NULL) {
        event->consumed = event->bytes.size;
        return;
    }
    if (event->kind == EVENT_PEER_UP) {
        peer_lost(shard, peer);
        peer->connected = true;
        greet(shard, peer);
    } else if (event->kind == EVENT_PEER_DOWN) {
        peer_lost(shard, peer);
    } else if (peer->connected) {
        peer_data(shard, peer, event);
    } else {
        event->consumed = event->bytes.size;
    }
}

/* ---- connections of nodes to us ------------------------------------------------------------------------- */

static struct link *link_add(struct shard *shard, uint64_t id, uint64_t node)
{
    struct link *link = alloc_get_zeroed(&shard->alloc, sizeof *link);
    if (link == NULL)
        return NULL;
    link->id = id;
    link->node = node;
    if (map_put(&shard->links, id, link) == STATUS_OK)
        return link;
    alloc_put(&shard->alloc, link, sizeof *link);
    return NULL;
}

static void link_close(struct shard *shard, uint64_t id)
{
    struct effect *effect = effects_add(shard->effects, EFFECT_LINK_SEND);
    effect->link = id;
    effect->flag = true;
}

static void link_data(struct shard *shard, struct link *link, struct event *event)
{
    struct frame frame;
    struct span bytes = event->bytes;
    /* A link that waits to be handed over is read by its new shard. */
    while (link->waits_for_meta == 0) {
        enum status status = frame_cut(bytes, &frame, &event->need);
        if (status == STATUS_MORE)
            return;
        if (status == STATUS_OK) {
            bytes = span_of(bytes.data + frame.whole.size, bytes.size - frame.whole.size);
            event->consumed += frame.whole.size;
            if (link->node == 0) {
                membership_hello(shard, link, &frame);
                event->need = 0;
                return;
            }
            status = node_frame(shard, link->node, &frame);
        }
        if (status != STATUS_OK) {
            say(shard, SAY_ERROR,
                "a peer connection sent bytes that are not Rondo's protocol (version %d); closed",
                FRAME_PROTOCOL_VERSION);
            event->consumed = event->bytes.size;
            link_close(shard, link->id);
            return;
        }
    }
    event->need = 0;
}

static void link_moved(struct shard *shard, const struct event *event)
{
    struct peer *peer = peer_of_node(shard, event->node);
    if (link_add(shard, event->link, event->node) == NULL)
        link_close(shard, event->link);
    else if (peer != NULL && !peer->greeted)
        redial(shard, peer);
    else if (peer != NULL)
        coordinator_peer_again(shard, peer->index); /* answers that waited on its last connection are lost */
}

void link_event(struct shard *shard, struct event *event)
{
    struct link *link = map_get(&shard->links, event->link);
    switch (event->kind) {
    case EVENT_LINK_OPEN:
        if (link_add(shard, event->link, 0) == NULL)
            link_close(shard, event->link);
        return;
    case EVENT_LINK_MOVED:
        link_moved(shard, event);
        return;
    case EVENT_LINK_CLOSED:
        alloc_put(&shard->alloc, map_take(&shard->links, event->link), sizeof *link);
        return;
    default:
        if (link != NULL)
            link_data(shard, link, event);
        else
            event->consumed = event->bytes.size;
        return;
    }
}

/* ---- the ring ------------------------------------------------------------------------------------------- */

bool ring_install(struct shard *shard, const struct ring *ring)
{
    bool same_cluster = ring->cluster_id.low == shard->ring->cluster_id.low &&
                        ring->cluster_id.high == shard->ring->cluster_id.high;
    uint16_t self = ring_node_index(ring, shard->self_id);
    if (!same_cluster || ring->epoch <= shard->ring->epoch || self == RING_NODE_NONE)
        return false;
    struct buf bytes;
    struct ring *copy = NULL;
    buf_init(&bytes, &shard->alloc);
    ring_encode(ring, &bytes);
    enum status status =
        bytes.failed ? STATUS_OVERLOADED : ring_decode(&shard->alloc, buf_span(&bytes), &copy);
    buf_free(&bytes);
    if (status != STATUS_OK)
        return false; /* asked for again by the next message that shows it */
    shard->ring_before = shard->ring;
    shard->ring = copy;
    antientropy_ring_changed(shard);
    uint16_t self_before = shard->self;
    struct slots slots;
    shard->self = self;
    bool made = slots_make(shard, &slots) == STATUS_OK;
    if (!made || peers_init(shard) != STATUS_OK) {
        if (made)
            slots_drop(shard, &slots);
        shard->self = self_before;
        shard->ring = shard->ring_before;
        ring_free(copy);
        return false;
    }
    slots_adopt(shard, &slots);
    coordinator_ring_changed(shard);
    handoff_ring_changed(shard);
    ring_free(shard->ring_before);
    shard->ring_before = NULL;
    peers_start(shard);
    membership_ring(shard);
    return true;
}
