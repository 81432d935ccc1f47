/* Frames that come in: from other nodes, and from the other shards of this one.
 *
 * A frame about a slot is checked against the ring's epochs before it touches anything (invariant 8). One that came
 * to the wrong shard is passed on. What another node sends is validated, and a connection that sends nonsense is
 * closed; what a sibling writes is known to be right. */
#include <assert.h>

#include "shard/admin.h"
#include "shard/request.h"

/* A newer ring record is asked for once in this time, however many frames show that there is one. */
#define RING_ASK_INTERVAL_US 1000000u

void replica_answered(struct shard *shard, const struct replica_origin *origin,
                      const struct replica_answer *answer)
{
    if (origin->node == 0) {
        switch ((enum origin_kind)origin->kind) {
        case ORIGIN_REQUEST:
            coordinator_answer(shard, origin->request, shard->self, answer);
            return;
        case ORIGIN_INITIATING:
            initiating_merged(shard, origin->request, answer->status);
            return;
        case ORIGIN_SERVING:
            serving_merged(shard, origin->request, answer->status);
            return;
        case ORIGIN_ROWS:
            rows_durable(shard, origin->request, answer->status);
            return;
        case ORIGIN_NOBODY:
            return;
        }
    }
    struct buf *out = peer_answer_output(shard, peer_of_node(shard, origin->node));
    if (out == NULL)
        return;
    struct frame_head head = frame_head_of(shard, origin->shard, origin->request);
    if (answer->kind == TASK_PUT) {
        struct frame_put_ack ack = {
            .status = answer->status, .was_live = answer->was_live, .version = answer->version};
        frame_put_put_ack(out, head, &ack);
    } else {
        struct frame_get_answer found = {
            .status = answer->status,
            .has_record = answer->has_record,
            .version = answer->version,
            .record = answer->record,
        };
        frame_put_get_answer(out, head, &found);
    }
    out->failed = false; /* no memory for an answer is an answer lost; the coordinator has its deadline */
}

static void ask_ring(struct shard *shard, struct peer *peer)
{
    struct buf *out = peer_output(peer);
    bool asked_lately = peer != NULL && peer->ring_asked_us != 0 &&
                        shard->now.mono_us - peer->ring_asked_us < RING_ASK_INTERVAL_US;
    if (out == NULL || asked_lately)
        return;
    peer->ring_asked_us = shard->now.mono_us;
    frame_put_ring_ask(out, frame_head_of(shard, 0, 0));
    out->failed = false;
}

/* Epoch fencing: OK, or why this replica must not touch the slot for that sender. */
static enum status fence(struct shard *shard, uint64_t node, const struct frame *frame,
                         const struct task *task, bool hint)
{
    uint16_t slot = task->slot;
    if (frame->epoch > shard->ring->epoch) {
        ask_ring(shard, peer_of_node(shard, node));
        return STATUS_WAIT;
    }
    if (frame->epoch < ring_changed_epoch(shard->ring, slot)) {
        shard->counters.stale_epochs++;
        return STATUS_STALE_EPOCH;
    }
    /* Any node keeps hints. */
    bool ours = hint || ring_replicates(shard->ring, slot, shard->self);
    return ours ? STATUS_OK : STATUS_BAD_REQUEST;
}

static enum status replica_frame(struct shard *shard, uint64_t node, const struct frame *frame)
{
    struct task task = {.origin = {.node = node, .request = frame->request, .shard = frame->from_shard}};
    struct frame_put put;
    struct frame_get get;
    uint64_t hint_for = 0;
    enum status status = STATUS_OK;
    if (frame->type == FRAME_PUT) {
        status = frame_read_put(frame, &put);
        if (status == STATUS_OK)
            task = (struct task){
                .kind = TASK_PUT,
                .origin = task.origin,
                .deadline_ms = put.deadline_ms,
                .slot = put.slot,
                .write_back = put.write_back,
                .key = put.key,
                .record = put.record,
            };
        hint_for = put.hint_for;
    } else {
        status = frame_read_get(frame, &get);
        if (status == STATUS_OK)
            task = (struct task){
                .kind = TASK_GET,
                .origin = task.origin,
                .deadline_ms = get.deadline_ms,
                .slot = get.slot,
                .digest = get.digest,
                .key = get.key,
            };
        hint_for = get.hint_for;
    }
    /* Its place in the table comes into the processor's cache during the checks. */
    if (status == STATUS_OK && hint_for == 0) {
        task.hash = memtable_hash(&shard->memtable, task.key);
        memtable_prefetch(&shard->memtable, task.hash);
    }
    if (status != STATUS_OK || key_slot(task.key) != task.slot)
        return STATUS_MALFORMED;
    enum status fenced = fence(shard, node, frame, &task, hint_for != 0);
    if (fenced == STATUS_OK && hint_for != 0 && !shard->options.healing.hints)
        fenced = STATUS_UNSUPPORTED;
    /* Each target has its own bound: only members are targets. */
    if (fenced == STATUS_OK && hint_for != 0 &&
        (hint_for == shard->self_id || ring_node_index(shard->ring, hint_for) == RING_NODE_NONE))
        fenced = STATUS_BAD_REQUEST;
    if (fenced != STATUS_OK)
        storage_refuse(shard, &task, fenced);
    else if (hint_for != 0)
        request_hint_task(shard, hint_for, &task);
    else
        storage_do(shard, &task);
    return STATUS_OK;
}

static enum status answer_frame(struct shard *shard, uint64_t node, const struct frame *frame)
{
    struct replica_answer answer = {0};
    struct frame_put_ack ack;
    struct frame_get_answer found;
    enum status status;
    if (frame->type == FRAME_PUT_ACK) {
        status = frame_read_put_ack(frame, &ack);
        if (status == STATUS_OK)
            answer = (struct replica_answer){
                .kind = TASK_PUT, .status = ack.status, .was_live = ack.was_live, .version = ack.version};
    } else {
        status = frame_read_get_answer(frame, &found);
        if (status == STATUS_OK)
            answer = (struct replica_answer){
                .kind = TASK_GET,
                .status = found.status,
                .has_record = found.has_record,
                .version = found.version,
                .record = found.record,
            };
    }
    if (status != STATUS_OK)
        return status;
    struct peer *peer = peer_of_node(shard, node);
    if (peer == NULL)
        return STATUS_OK;
    if (answer.status == STATUS_STALE_EPOCH)
        ask_ring(shard, peer);
    coordinator_answer(shard, frame->request, peer->index, &answer);
    return STATUS_OK;
}

static void send_ring(struct shard *shard, struct peer *peer, uint8_t to_shard)
{
    struct buf *out = peer_output(peer);
    struct buf ring;
    if (out == NULL)
        return;
    buf_init(&ring, &shard->alloc);
    ring_encode(shard->ring, &ring);
    if (!ring.failed)
        frame_put_ring(out, frame_head_of(shard, to_shard, 0), buf_span(&ring));
    out->failed = false;
    buf_free(&ring);
}

/* from_node: siblings tell nobody, or two of them could tell each other for ever. */
static enum status learn_ring(struct shard *shard, const struct frame *frame, bool from_node)
{
    struct ring *ring;
    enum status status = ring_decode(&shard->alloc, frame->body, &ring);
    if (status != STATUS_OK)
        return status == STATUS_OVERLOADED ? STATUS_OK : status;
    bool tell = ring_install(shard, ring) && from_node;
    for (uint16_t i = 0; tell && i < shard->options.shards; i++) {
        if (i != shard->options.shard)
            frame_put_ring(&shard->locals[i], frame_head_of(shard, (uint8_t)i, 0), frame->body);
    }
    ring_free(ring);
    return STATUS_OK;
}

static enum status clock_frame(struct shard *shard, struct peer *peer, const struct frame *frame)
{
    struct frame_ping ping;
    enum status status = frame_read_ping(frame, &ping);
    if (status != STATUS_OK || peer == NULL)
        return status;
    if (frame->type == FRAME_PONG) {
        membership_pong(shard, peer, &ping);
        return STATUS_OK;
    }
    struct buf *out = peer_output(peer);
    if (out == NULL)
        return STATUS_OK;
    ping.answered_wall_ms = shard->now.wall_ms;
    frame_put_pong(out, frame_head_of(shard, frame->from_shard, 0), &ping);
    out->failed = false;
    return STATUS_OK;
}

static enum status hints_frame(struct shard *shard, struct peer *peer, const struct frame *frame)
{
    if (peer == NULL)
        return STATUS_OK;
    return frame->type == FRAME_HINTS_ASK ? purge_hints_asked(shard, peer, frame)
                                          : purge_hints_held(shard, peer, frame);
}

static bool is_answer(enum frame_type type)
{
    return type == FRAME_PUT_ACK || type == FRAME_GET_ANSWER || type == FRAME_PONG || type == FRAME_RING ||
           type == FRAME_REPAIR_ANSWER || type == FRAME_HINTS_HELD;
}

/* The shard of this node that a frame is for, or SHARDS_MAX if it says none that exists. */
static uint16_t frame_shard(const struct shard *shard, const struct frame *frame)
{
    uint16_t slot;
    if (frame->to_shard != FRAME_BY_SLOT)
        return frame->to_shard < shard->options.shards ? frame->to_shard : SHARDS_MAX;
    if (frame_slot(frame, &slot) != STATUS_OK)
        return SHARDS_MAX;
    return slot_shard(slot, shard->options.shards);
}

enum status node_frame(struct shard *shard, uint64_t node, const struct frame *frame)
{
    uint16_t target = frame_shard(shard, frame);
    /* This node may have had more shards when it asked. */
    if (target == SHARDS_MAX)
        return is_answer(frame->type) ? STATUS_OK : STATUS_MALFORMED;
    if (target != shard->options.shard && frame->whole.size > FRAME_PASSED_BYTES_MAX)
        return STATUS_MALFORMED;
    if (target != shard->options.shard) {
        shard->counters.misdirected_frames++;
        struct frame_head head = frame_head_of(shard, (uint8_t)target, 0);
        frame_put_passed(&shard->locals[target], head, node, frame->whole);
        return STATUS_OK;
    }
    switch (frame->type) {
    case FRAME_PUT:
    case FRAME_GET:
        return replica_frame(shard, node, frame);
    case FRAME_PUT_ACK:
    case FRAME_GET_ANSWER:
        return answer_frame(shard, node, frame);
    case FRAME_PING:
    case FRAME_PONG:
        return clock_frame(shard, peer_of_node(shard, node), frame);
    case FRAME_RING_ASK:
        send_ring(shard, peer_of_node(shard, node), frame->from_shard);
        return STATUS_OK;
    case FRAME_RING:
        return learn_ring(shard, frame, true);
    case FRAME_REPAIR:
        return serve_request(shard, node, frame);
    case FRAME_REPAIR_ANSWER:
        return initiating_answer(shard, node, frame);
    case FRAME_REPAIR_DONE:
        return serve_done(shard, peer_of_node(shard, node), frame);
    case FRAME_HINTS_ASK:
    case FRAME_HINTS_HELD:
        return hints_frame(shard, peer_of_node(shard, node), frame);
    case FRAME_RUN:
        return membership_run(shard, node, frame);
    case FRAME_GOSSIP:
        if (shard->options.shard != 0)
            return STATUS_MALFORMED;
        liveness_gossip(shard, node, frame->body);
        return STATUS_OK;
    default:
        return STATUS_MALFORMED;
    }
}

/* ---- the shards of this node ---------------------------------------------------------------------------- */

static enum status sibling_frame(struct shard *shard, const struct frame *frame)
{
    struct operation operation;
    struct result result;
    struct frame passed;
    uint64_t node;
    uint16_t slot;
    enum status status;
    switch (frame->type) {
    case FRAME_EXEC:
        status = frame_read_exec(frame, &slot, &operation);
        if (status == STATUS_OK) {
            struct origin origin = {.sibling = true, .shard = frame->from_shard, .ticket = frame->request};
            coordinate(shard, slot, &operation, &origin);
        }
        return status;
    case FRAME_EXEC_DONE:
        status = frame_read_exec_done(frame, &result);
        if (status == STATUS_OK)
            client_part_done(shard, frame->request, &result);
        return status;
    case FRAME_PASSED:
        status = frame_read_passed(frame, &node, &passed);
        return status == STATUS_OK ? node_frame(shard, node, &passed) : status;
    case FRAME_RING:
        return learn_ring(shard, frame, false);
    case FRAME_STATE:
        membership_state(shard, frame);
        return STATUS_OK;
    case FRAME_LIVENESS:
        liveness_told(shard, frame);
        return STATUS_OK;
    case FRAME_STATS_ASK:
        info_stats_ask(shard, frame);
        return STATUS_OK;
    case FRAME_STATS:
        info_stats(shard, frame);
        return STATUS_OK;
    case FRAME_ROWS_ASK:
        rows_asked(shard, frame);
        return STATUS_OK;
    case FRAME_ROWS:
        rows_answered(shard, frame->request, frame->body);
        return STATUS_OK;
    case FRAME_HEALING_ASK:
        healing_asked(shard, frame);
        return STATUS_OK;
    case FRAME_HEALING:
        healing_answered(shard, frame);
        return STATUS_OK;
    case FRAME_QUESTION:
        gather_asked(shard, frame);
        return STATUS_OK;
    case FRAME_ANSWER:
        gather_answered(shard, frame);
        return STATUS_OK;
    case FRAME_QUARANTINE:
        return heal_marks(shard, frame);
    default:
        return STATUS_MALFORMED;
    }
}

void local_event(struct shard *shard, struct span bytes)
{
    struct frame frame;
    size_t need;
    while (bytes.size > 0) {
        enum status cut = frame_cut(bytes, &frame, &need);
        assert(cut == STATUS_OK);
        bytes = span_of(bytes.data + frame.whole.size, bytes.size - frame.whole.size);
        /* What a sibling passes on was written by another node: it may be malformed. What it wrote itself is not. */
        enum status status = sibling_frame(shard, &frame);
        assert(status == STATUS_OK || frame.type == FRAME_PASSED);
    }
}
