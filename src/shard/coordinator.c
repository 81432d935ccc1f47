/* Requests: how they begin, who their answers are for, how they end.
 *
 * A request lives from coordinate() to exactly one result, at its deadline at the latest (invariant 9). Answers of
 * replicas find it by its id, which also carries the round or write-back generation they belong to, so that a late
 * answer never counts for something it did not answer. The replica on this node is asked like any other, only
 * without a frame. write.c and read.c do the work in between. */
#include "shard/request.h"

#include <assert.h>

/* Values gathered for a sibling in one turn: at most this part of the shard's memory, or one value. */
#define GATHERED_DIVISOR 8u

/* ---- life of a request ---------------------------------------------------------------------------------- */

static void deliver(struct shard *shard, const struct origin *origin, const struct result *result)
{
    if (!origin->sibling) {
        client_part_done(shard, origin->ticket, result);
        return;
    }
    struct frame_head head = frame_head_of(shard, origin->shard, origin->ticket);
    struct buf *out = &shard->locals[origin->shard];
    /* Values that wait for a sibling are nobody's memory yet: past a bound a read is refused instead. */
    bool refused = result->value.size > 0 && out->size > 0 &&
                   out->size + result->value.size > shard->options.memory_bytes / GATHERED_DIVISOR;
    struct result refusal = {.outcome = OUTCOME_NOT_APPLIED, .status = STATUS_OVERLOADED};
    frame_put_exec_done(out, head, refused ? &refusal : result);
}

static void count_outcome(struct shard *shard, const struct result *result)
{
    if (result->outcome == OUTCOME_DONE)
        shard->counters.requests_done++;
    else if (result->outcome == OUTCOME_UNKNOWN)
        shard->counters.requests_unknown++;
    else
        shard->counters.requests_not_applied++;
    if (result->status == STATUS_OVERLOADED)
        shard->counters.overloads++;
}

static void request_free(struct shard *shard, struct request *request)
{
    timer_disarm(&shard->timers, &request->deadline);
    timer_disarm(&shard->timers, &request->hedge);
    list_remove(&request->parked);
    alloc_put(&shard->alloc, request->bytes, request->bytes_size);
    buf_free(&request->record);
    alloc_put(&shard->alloc, request, sizeof *request);
}

void request_end(struct shard *shard, struct request *request, struct result *result)
{
    count_outcome(shard, result);
    deliver(shard, &request->origin, result);
    struct request *taken = map_take(&shard->requests, request->id);
    assert(taken == request);
    request_free(shard, request);
}

static void refuse(struct shard *shard, const struct origin *origin, enum status status, uint8_t needed,
                   uint8_t acks)
{
    struct result result = {.outcome = OUTCOME_NOT_APPLIED, .status = status, .needed = needed, .acks = acks};
    count_outcome(shard, &result);
    deliver(shard, origin, &result);
}

void request_fail(struct shard *shard, struct request *request, enum outcome outcome, enum status status)
{
    bool writing = request->phase != REQUEST_GETTING && request->phase != REQUEST_WAITS_TURN;
    struct result result = {
        .outcome = outcome,
        .status = status,
        .needed = writing ? request->w : request->r,
        .acks = writing && request->put.replicas > 0 ? put_acks(&request->put) : 0,
    };
    if (!writing)
        result.acks = get_answers_counted(&request->get);
    request_end(shard, request, &result);
}

/* ---- replicas ------------------------------------------------------------------------------------------- */

uint8_t request_place(const struct request *request, uint16_t node)
{
    for (uint8_t i = 0; i < request->n; i++) {
        if (request->node[i] == node)
            return i;
    }
    return REPLICAS_MAX;
}

bool request_send_record(struct shard *shard, struct request *request, uint8_t place, uint32_t tag,
                         bool write_back)
{
    if (request->node[place] == shard->self) {
        struct task task = {
            .kind = TASK_PUT,
            .origin = {.request = request_number(request, tag)},
            .deadline_ms = request->deadline_ms,
            .slot = request->slot,
            .write_back = write_back,
            .key = request->key,
            .record = buf_span(&request->record),
        };
        storage_do(shard, &task);
        return true;
    }
    struct peer *peer = peer_of_index(shard, request->node[place]);
    struct buf *out = peer_output(peer);
    if (out == NULL)
        return false;
    struct frame_put put = {
        .slot = request->slot,
        .deadline_ms = request->deadline_ms,
        .write_back = write_back,
        .key = request->key,
        .record = buf_span(&request->record),
    };
    frame_put_put(out, frame_head_of(shard, FRAME_BY_SLOT, request_number(request, tag)), &put);
    bool sent = !out->failed;
    out->failed = false;
    return sent;
}

/* ---- events --------------------------------------------------------------------------------------------- */

void coordinator_answer(struct shard *shard, uint64_t number, uint16_t index,
                        const struct replica_answer *answer)
{
    uint64_t id = number >> TAG_BITS;
    uint32_t tag = (uint32_t)(number & ((1u << TAG_BITS) - 1));
    struct request *request = id == 0 ? NULL : map_get(&shard->requests, id);
    if (request == NULL)
        return;
    uint8_t place = request_place(request, index);
    if (place == REPLICAS_MAX)
        return;
    bool is_put = answer->kind == TASK_PUT;
    if (request->phase == REQUEST_PUTTING && is_put) {
        if (tag == (request->put.round == 1 ? TAG_PUT_ROUND_1 : TAG_PUT_ROUND_2))
            write_answer(shard, request, place, answer);
    } else if (request->phase == REQUEST_GETTING && !is_put && tag == TAG_GET) {
        read_answer(shard, request, place, answer);
    } else if (request->phase == REQUEST_GETTING && is_put && tag == TAG_WRITE_BACK + request->write_backs) {
        read_write_answer(shard, request, place, answer->status);
    }
}

/* Runs act over all requests; each may end its request and others, so their ids are taken first. */
static void for_each_request(struct shard *shard, uint16_t index,
                             void (*act)(struct shard *, struct request *, uint16_t))
{
    uint32_t count = shard->requests.count;
    uint64_t *ids = count == 0 ? NULL : alloc_get(&shard->alloc, count * sizeof *ids);
    if (ids == NULL)
        return; /* no requests; or no memory, and the deadlines will end them */
    uint32_t at = 0;
    uint32_t taken = 0;
    for (struct request *request = map_next(&shard->requests, &at); request != NULL;
         request = map_next(&shard->requests, &at))
        ids[taken++] = request->id;
    for (uint32_t i = 0; i < taken; i++) {
        struct request *request = map_get(&shard->requests, ids[i]);
        if (request != NULL)
            act(shard, request, index);
    }
    alloc_put(&shard->alloc, ids, count * sizeof *ids);
}

static void act_peer_down(struct shard *shard, struct request *request, uint16_t index)
{
    uint8_t place = request_place(request, index);
    if (place == REPLICAS_MAX)
        return;
    if (request->phase == REQUEST_PUTTING)
        write_peer_down(shard, request, place);
    else if (request->phase == REQUEST_GETTING)
        read_peer_down(shard, request, place);
}

void coordinator_peer_down(struct shard *shard, uint16_t index)
{
    for_each_request(shard, index, act_peer_down);
}

/* The replicas of the slot are others now: what was counted so far means nothing. Else only the numbers of the
 * nodes may have changed. */
static void act_ring_changed(struct shard *shard, struct request *request, uint16_t index)
{
    (void)index;
    bool same = ring_changed_epoch(shard->ring, request->slot) <= shard->ring_before->epoch;
    for (uint8_t i = 0; same && i < request->n; i++) {
        uint64_t node = shard->ring_before->nodes[request->node[i]].id;
        request->node[i] = ring_node_index(shard->ring, node);
        same = request->node[i] != RING_NODE_NONE;
    }
    if (same)
        return;
    bool maybe_applied = request->phase == REQUEST_PUTTING || request->phase == REQUEST_WANTS_RESTAMP;
    if (maybe_applied)
        request_fail(shard, request, OUTCOME_UNKNOWN, STATUS_OUTCOME_UNKNOWN);
    else
        request_fail(shard, request, OUTCOME_NOT_APPLIED, STATUS_STALE_EPOCH);
}

void coordinator_ring_changed(struct shard *shard)
{
    for_each_request(shard, 0, act_ring_changed);
}

void coordinator_deadline(struct shard *shard, struct request *request)
{
    switch (request->phase) {
    case REQUEST_WAITS_TURN:
    case REQUEST_WANTS_STAMP:
        request_fail(shard, request, OUTCOME_NOT_APPLIED, STATUS_TIMED_OUT);
        return;
    case REQUEST_WANTS_RESTAMP:
        request_fail(shard, request, OUTCOME_UNKNOWN, STATUS_OUTCOME_UNKNOWN);
        return;
    case REQUEST_PUTTING:
        write_deadline(shard, request);
        return;
    case REQUEST_GETTING:
        read_deadline(shard, request);
        return;
    }
}

void coordinator_hedge(struct shard *shard, struct request *request)
{
    if (request->phase == REQUEST_GETTING)
        read_hedge(shard, request);
}

/* A client that pipelines SET k and GET k reads its own write: the GET does not overtake a SET that waits for a
 * stamp. (Past that point they keep their order by themselves, on the links and at the replicas.) True if it was
 * parked. */
static bool waits_behind_write(struct shard *shard, struct request *request)
{
    for (struct list_link *at = shard->stamp_waiters.next; at != &shard->stamp_waiters; at = at->next) {
        const struct request *parked = LIST_ENTRY(at, struct request, parked);
        if (parked->slot != request->slot || !span_equal(parked->key, request->key))
            continue;
        request->phase = REQUEST_WAITS_TURN;
        list_push_back(&shard->stamp_waiters, &request->parked);
        return true;
    }
    return false;
}

void coordinator_stamps(struct shard *shard)
{
    struct list_link waiting;
    list_init(&waiting);
    /* Those that must still wait go back to the shard's list. */
    while (!list_empty(&shard->stamp_waiters))
        list_push_back(&waiting, list_pop_front(&shard->stamp_waiters));
    while (!list_empty(&waiting)) {
        struct request *request = LIST_ENTRY(list_pop_front(&waiting), struct request, parked);
        if (request->phase != REQUEST_WAITS_TURN)
            write_stamp(shard, request);
        else if (!waits_behind_write(shard, request))
            read_begin(shard, request);
    }
}

void coordinator_free(struct shard *shard)
{
    uint32_t at = 0;
    for (struct request *request = map_next(&shard->requests, &at); request != NULL;
         request = map_next(&shard->requests, &at))
        request_free(shard, request);
    map_free(&shard->requests);
}

/* ---- beginning ------------------------------------------------------------------------------------------ */

static uint8_t resolve_count(uint8_t asked, uint8_t n)
{
    if (asked == COUNT_DEFAULT || asked == COUNT_QUORUM)
        return (uint8_t)(n / 2 + 1);
    return asked == COUNT_ALL ? n : asked;
}

/* Key and value stand behind each other in one block. */
static bool copy_bytes(struct shard *shard, const struct operation *operation, struct request *request)
{
    request->bytes_size = operation->key.size + operation->value.size + 1;
    request->bytes = alloc_get(&shard->alloc, request->bytes_size);
    if (request->bytes == NULL)
        return false;
    uint8_t *value = request->bytes + operation->key.size;
    if (operation->key.size > 0)
        memcpy(request->bytes, operation->key.data, operation->key.size);
    if (operation->value.size > 0)
        memcpy(value, operation->value.data, operation->value.size);
    request->key = span_of(request->bytes, operation->key.size);
    request->value = span_of(value, operation->value.size);
    return true;
}

/* Copies what the operation borrows; NULL when there is no memory. */
static struct request *request_new(struct shard *shard, const struct operation *operation)
{
    struct request *request = alloc_get_zeroed(&shard->alloc, sizeof *request);
    if (request == NULL)
        return NULL;
    list_init(&request->parked);
    buf_init(&request->record, &shard->alloc);
    request->deadline.kind = TIMER_REQUEST_DEADLINE;
    request->hedge.kind = TIMER_REQUEST_HEDGE;
    request->id = shard->request_next;
    request->kind = operation->kind;
    request->expiry_ms = operation->expiry_ms;
    if (copy_bytes(shard, operation, request) &&
        map_put(&shard->requests, request->id, request) == STATUS_OK) {
        shard->request_next++;
        return request;
    }
    request_free(shard, request);
    return NULL;
}

void coordinate(struct shard *shard, uint16_t slot, const struct operation *operation,
                const struct origin *origin)
{
    uint8_t n = ring_replica_count(shard->ring);
    uint8_t r = resolve_count(operation->r, n);
    uint8_t w = resolve_count(operation->w, n);
    if (r > n || w > n) {
        refuse(shard, origin, STATUS_BAD_REQUEST, r > n ? r : w, n);
        return;
    }
    struct request *request = NULL;
    if (shard->requests.count < REQUESTS_IN_FLIGHT_MAX)
        request = request_new(shard, operation);
    if (request == NULL) {
        refuse(shard, origin, STATUS_OVERLOADED, 0, 0);
        return;
    }
    uint32_t timeout_ms =
        operation->timeout_ms != 0 ? operation->timeout_ms : shard->options.request_timeout_ms;
    request->origin = *origin;
    request->slot = slot;
    request->n = n;
    request->r = r;
    request->w = w;
    request->deadline_ms = shard->now.wall_ms + timeout_ms;
    memcpy(request->node, ring_replicas(shard->ring, slot), n * sizeof *request->node);
    if (request_place(request, shard->self) == REPLICAS_MAX)
        shard->counters.requests_forwarded++;
    uint64_t deadline_us = shard->now.mono_us + (uint64_t)timeout_ms * 1000;
    if (timer_arm(&shard->timers, &request->deadline, deadline_us) != STATUS_OK) {
        request_fail(shard, request, OUTCOME_NOT_APPLIED, STATUS_OVERLOADED);
        return;
    }
    if (operation->kind != OPERATION_GET && operation->kind != OPERATION_EXPIRE)
        write_begin(shard, request);
    else if (!waits_behind_write(shard, request))
        read_begin(shard, request);
}
