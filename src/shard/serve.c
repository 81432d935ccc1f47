/* Anti-entropy begun elsewhere: one request in, one answer out.
 *
 * What a request brings is merged and durable before the rows it asks about are read; and the answer leaves once all
 * that it was made from is durable: the asker may purge what this node holds, by its word. Nothing is remembered
 * between requests (repair/exchange.h), so one that is answered twice does no harm. */
#include <assert.h>

#include "shard/state.h"

/* A serving that takes longer has been given up by its asker. */
#define SERVING_MAX_US 20000000u

/* A merge's number: its place in the request, the serving's count (it tells late merges of an earlier one apart), and
 * the serving's place. */
#define SERVING_PLACE_BITS 8
#define SERVING_COUNT_BITS 24
#define SERVING_MERGE_SHIFT (SERVING_PLACE_BITS + SERVING_COUNT_BITS)

static void serving_free(struct shard *shard, struct serving *serving)
{
    if (serving->scan != NULL)
        scan_stop(shard, serving->scan);
    exchange_serve_free(serving->serve);
    buf_free(&serving->merges);
    buf_free(&serving->floors);
    buf_free(&serving->refused);
    buf_free(&serving->answer);
    *serving = (struct serving){.number = serving->number};
}

void servings_stop(struct shard *shard)
{
    for (uint32_t i = 0; i < SERVINGS_MAX; i++) {
        if (shard->repairing.servings[i].serve != NULL)
            serving_free(shard, &shard->repairing.servings[i]);
    }
}

void servings_free(struct shard *shard)
{
    for (uint32_t i = 0; i < SERVINGS_MAX; i++) {
        struct serving *serving = &shard->repairing.servings[i];
        if (serving->serve == NULL)
            continue;
        exchange_serve_free(serving->serve);
        buf_free(&serving->merges);
        buf_free(&serving->floors);
        buf_free(&serving->refused);
        buf_free(&serving->answer);
    }
}

/* The body of an answer: floors | u32 refused, each u16 slot and key | message. */
static void send_answer(struct shard *shard, const struct serving *serving, struct span message)
{
    struct peer *peer = peer_of_node(shard, serving->node);
    struct buf *out = peer_answer_output(shard, peer);
    struct buf body;
    if (out == NULL)
        return;
    buf_init(&body, &shard->alloc);
    floors_put_list(&body, buf_span(&serving->floors));
    buf_put_u32(&body, serving->refused_count);
    buf_append_span(&body, buf_span(&serving->refused));
    buf_append_span(&body, message);
    if (!body.failed)
        frame_put_raw(out, FRAME_REPAIR_ANSWER, frame_head_of(shard, serving->shard, serving->request),
                      buf_span(&body));
    out->failed = false; /* an answer lost is asked for again */
    buf_free(&body);
}

static void refuse(struct shard *shard, const struct serving *asked, struct span message, enum status status)
{
    struct buf answer;
    buf_init(&answer, &shard->alloc);
    exchange_serve_refuse(message, status, &answer);
    if (!answer.failed && answer.size > 0)
        send_answer(shard, asked, buf_span(&answer));
    buf_free(&answer);
}

/* Whether this shard may answer for the slots: OK, or why not. */
static enum status judge(struct shard *shard, const struct frame *frame, struct serving *serving)
{
    uint16_t slot;
    for (uint32_t i = 0; exchange_serve_slot(serving->serve, i, &slot); i++) {
        if (slot_state_of(shard, slot) == NULL)
            return STATUS_BAD_REQUEST;
        if (frame->epoch < ring_changed_epoch(shard->ring, slot))
            return STATUS_STALE_EPOCH;
    }
    return STATUS_OK;
}

static void note_floor(struct shard *shard, struct serving *serving, uint16_t slot)
{
    for (size_t at = 0; at < serving->floors.size; at += FLOOR_BYTES) {
        if (load_u16(serving->floors.data + at) == slot)
            return;
    }
    floors_put(shard, &serving->floors, slot);
}

static void note_floors(struct shard *shard, struct serving *serving)
{
    uint16_t last = SLOTS_COUNT;
    uint16_t slot;
    for (uint32_t i = 0; exchange_serve_slot(serving->serve, i, &slot); i++) {
        if (slot != last)
            note_floor(shard, serving, slot);
        last = slot;
    }
}

static uint64_t number_of(const struct shard *shard, const struct serving *serving, uint32_t merge)
{
    uint64_t count = serving->number & ((1u << SERVING_COUNT_BITS) - 1);
    return (uint64_t)merge << SERVING_MERGE_SHIFT | count << SERVING_PLACE_BITS |
           (uint64_t)(serving - shard->repairing.servings);
}

/* Merges what the request brought. A slot that is not ours, or older than its last change, ends the request. */
static void give_merges(struct shard *shard, const struct frame *frame, struct serving *serving,
                        struct span floors)
{
    struct exchange_record record;
    while (exchange_serve_merge_next(serving->serve, &record)) {
        bool ours = slot_state_of(shard, record.slot) != NULL && key_slot(record.key) == record.slot &&
                    frame->epoch >= ring_changed_epoch(shard->ring, record.slot);
        serving->merge_failed |= !ours;
        buf_append(&serving->merges, &record, sizeof record);
        note_floor(shard, serving, record.slot);
    }
    serving->merge_failed |= serving->merges.failed;
    if (serving->merge_failed)
        return;
    uint32_t count = (uint32_t)(serving->merges.size / sizeof record);
    serving->merging = 1; /* the loop itself */
    for (uint32_t i = 0; i < count; i++) {
        struct replica_origin origin = {.kind = ORIGIN_SERVING, .request = number_of(shard, serving, i)};
        serving->merging++;
        memcpy(&record, serving->merges.data + i * sizeof record, sizeof record);
        repair_merge(shard, &record, floors, &origin);
    }
    serving->merging--;
}

static void finish(struct shard *shard, struct serving *serving)
{
    bool failed = serving->merge_failed || serving->refused.failed || serving->floors.failed;
    /* Without an answer the asker sends again, and gives up after a few times. */
    if (failed || exchange_serve_finish(serving->serve, &serving->answer) != STATUS_OK) {
        serving_free(shard, serving);
        return;
    }
    struct replica_origin origin = {.kind = ORIGIN_SERVING, .request = number_of(shard, serving, 0)};
    struct replica_answer durable = {.kind = TASK_PUT, .status = STATUS_OK};
    serving->answered = true;
    serving->merging++;
    wait_durable(shard, log_last(shard), &origin, &durable);
}

static void answer_durable(struct shard *shard, struct serving *serving)
{
    if (!serving->merge_failed)
        send_answer(shard, serving, buf_span(&serving->answer));
    serving_free(shard, serving);
}

/* Reads the next rows that are needed, or answers. */
static void go_on(struct shard *shard, struct serving *serving)
{
    struct exchange_need need;
    if (serving->merging > 0 || serving->scan != NULL)
        return;
    if (serving->merge_failed || !exchange_serve_need(serving->serve, 0, &need)) {
        finish(shard, serving);
        return;
    }
    serving->scan = scan_need(shard, SCAN_SERVE, serving, &need);
    if (serving->scan == NULL)
        serving_free(shard, serving);
}

void serving_row(struct serving *serving, struct span key, struct span record)
{
    exchange_serve_row(serving->serve, key, record);
}

void serving_read(struct shard *shard, struct serving *serving, enum status status)
{
    struct exchange_need need;
    serving->scan = NULL;
    if (status == STATUS_CORRUPT && exchange_serve_need(serving->serve, 0, &need))
        heal_scan_damaged(shard, need.slot);
    if (status != STATUS_OK) {
        serving_free(shard, serving);
        return;
    }
    exchange_serve_need_done(serving->serve);
    go_on(shard, serving);
}

void serving_merged(struct shard *shard, uint64_t request, enum status status)
{
    struct serving *serving = &shard->repairing.servings[request & ((1u << SERVING_PLACE_BITS) - 1)];
    uint32_t merge = (uint32_t)(request >> SERVING_MERGE_SHIFT);
    if (serving->serve == NULL || number_of(shard, serving, merge) != request)
        return;
    assert(serving->merging > 0);
    serving->merging--;
    if (status == STATUS_PURGED) {
        struct exchange_record record;
        memcpy(&record, serving->merges.data + merge * sizeof record, sizeof record);
        buf_put_u16(&serving->refused, record.slot);
        buf_put_short(&serving->refused, record.key);
        serving->refused_count++;
    } else {
        serving->merge_failed |= status != STATUS_OK;
    }
    if (serving->merging == 0 && serving->answered)
        answer_durable(shard, serving);
    else if (serving->merging == 0 && serving->given)
        go_on(shard, serving);
}

static struct serving *free_place(struct shard *shard, uint64_t node, const struct frame *frame)
{
    struct serving *found = NULL;
    for (uint32_t i = 0; i < SERVINGS_MAX; i++) {
        struct serving *serving = &shard->repairing.servings[i];
        if (serving->serve != NULL && shard->now.mono_us - serving->began_us > SERVING_MAX_US)
            serving_free(shard, serving);
        /* It asks again because it heard nothing; its first question is still being answered. */
        if (serving->serve != NULL && serving->node == node && serving->request == frame->request)
            return NULL;
        if (serving->serve == NULL)
            found = serving;
    }
    return found;
}

/* Notes the slots of an exchange that begins: its end names only those that are not equal. */
static void note_begun(struct shard *shard, const struct serving *serving)
{
    struct peer *peer = peer_of_node(shard, serving->node);
    if (peer == NULL)
        return;
    if (serving->shard >= peer->begun_shards) {
        size_t size = (serving->shard + 1u) * sizeof *peer->begun;
        size_t size_old = peer->begun_shards * sizeof *peer->begun;
        struct begun *grown = alloc_resize(&shard->alloc, peer->begun, size_old, size);
        if (grown == NULL)
            return; /* this node compares them by itself */
        memset(grown + peer->begun_shards, 0, size - size_old);
        peer->begun = grown;
        peer->begun_shards = (uint16_t)(serving->shard + 1u);
    }
    struct begun *begun = &peer->begun[serving->shard];
    /* Asked again: it may go by the answer to its first question. */
    if (begun->session == serving->request)
        return;
    *begun = (struct begun){.session = serving->request, .when = slots_now(shard)};
    uint16_t slot;
    for (uint32_t i = 0; i < EXCHANGE_SLOTS && exchange_serve_slot(serving->serve, i, &slot); i++)
        begun->slots[begun->count++] = slot;
}

/* What either side held when the roots were compared here is on both. That says nothing of what came to the other side
 * between its start and then, so it is no proof for a slot that is being rebuilt here. */
enum status serve_done(struct shard *shard, struct peer *peer, const struct frame *frame)
{
    struct reader reader = reader_of(frame->body);
    struct begun *begun =
        peer == NULL || frame->from_shard >= peer->begun_shards ? NULL : &peer->begun[frame->from_shard];
    uint32_t next = 0;
    if (frame->body.size % 2 != 0)
        return STATUS_MALFORMED;
    if (begun == NULL || begun->session != frame->request)
        return STATUS_OK;
    uint16_t differs = reader_left(&reader) > 0 ? reader_u16(&reader) : SLOTS_COUNT;
    for (; next < begun->count; next++) {
        uint16_t slot = begun->slots[next];
        if (slot == differs)
            differs = reader_left(&reader) > 0 ? reader_u16(&reader) : SLOTS_COUNT;
        else if (slot_state_of(shard, slot) != NULL && storage_slot_serves(shard, slot) &&
                 frame->epoch >= ring_changed_epoch(shard->ring, slot))
            slot_note_verified(shard, slot, peer->index, begun->when);
    }
    begun->session = 0;
    return differs == SLOTS_COUNT ? STATUS_OK : STATUS_MALFORMED;
}

enum status serve_request(struct shard *shard, uint64_t node, const struct frame *frame)
{
    struct reader reader = reader_of(frame->body);
    struct span floors;
    struct exchange_head head;
    struct serving asked = {.node = node, .request = frame->request, .shard = frame->from_shard};
    if (floors_read(&reader, &floors) != STATUS_OK)
        return STATUS_MALFORMED;
    struct span message = reader_bytes(&reader, reader_left(&reader));
    if (exchange_read_head(message, &head) != STATUS_OK)
        return STATUS_MALFORMED;
    struct serving *serving = free_place(shard, node, frame);
    if (serving == NULL)
        return STATUS_OK;
    enum status status = STATUS_STARTING;
    if (shard->takes_writes)
        status = exchange_serve_begin(&shard->alloc, &shard->repairing.merkle, message, &serving->serve);
    if (status != STATUS_OK) {
        serving->serve = NULL;
        if (status == STATUS_MALFORMED)
            return STATUS_MALFORMED;
        refuse(shard, &asked, message, status);
        return STATUS_OK;
    }
    serving->number++;
    serving->node = node;
    serving->request = frame->request;
    serving->shard = frame->from_shard;
    serving->began_us = shard->now.mono_us;
    serving->given = false;
    buf_init(&serving->merges, &shard->alloc);
    buf_init(&serving->floors, &shard->alloc);
    buf_init(&serving->refused, &shard->alloc);
    buf_init(&serving->answer, &shard->alloc);
    status = judge(shard, frame, serving);
    if (status != STATUS_OK) {
        refuse(shard, &asked, message, status);
        serving_free(shard, serving);
        return STATUS_OK;
    }
    note_floors(shard, serving);
    if (exchange_serve_begins(serving->serve))
        note_begun(shard, serving);
    give_merges(shard, frame, serving, floors);
    serving->given = true;
    go_on(shard, serving);
    return STATUS_OK;
}
