/* Requests: how they begin, who their answers are for, how they end.
 *
 * A request lives from coordinate() to exactly one result, at its deadline at the latest (invariant 9). Answers of
 * replicas find it by its id, which also carries the round or write-back generation they belong to, so that a late
 * answer never counts for something it did not answer. The replica on this node is asked like any other, only
 * without a frame. write.c and read.c do the work in between. */
#include "shard/request.h"

#include <assert.h>
#include <stddef.h>

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
    struct result refusal = {
        .outcome = OUTCOME_NOT_APPLIED, .status = STATUS_OVERLOADED, .trace = result->trace};
    frame_put_exec_done(out, head, refused ? &refusal : result);
}

static void request_free(struct shard *shard, struct request *request)
{
    timer_disarm(&shard->timers, &request->deadline);
    timer_disarm(&shard->timers, &request->hedge);
    list_remove(&request->parked);
    buf_free(&request->record);
    buf_free(&request->read);
    trace_free(shard, request);
    alloc_put(&shard->alloc, request, request->size);
}

void request_deliver(struct shard *shard, struct request *request, struct result *result)
{
    metrics_ended(shard, request, result);
    if (shard->now.mono_us - request->begun_us >= shard->watch.log_us)
        slowlog_request(shard, request);
    trace_end(request, result, shard->now.mono_us);
    deliver(shard, &request->origin, result);
    trace_free(shard, request);
}

void request_drop(struct shard *shard, struct request *request)
{
    read_over(shard, request);
    struct request *taken = map_take(&shard->requests, request->id);
    assert(taken == request);
    shard->lingering -= request->phase == REQUEST_LINGERING;
    request_free(shard, request);
}

void request_end(struct shard *shard, struct request *request, struct result *result)
{
    request_deliver(shard, request, result);
    request_drop(shard, request);
}

static void refuse(struct shard *shard, const struct operation *operation, const struct origin *origin,
                   enum status status, uint8_t needed, uint8_t acks)
{
    struct result result = {.outcome = OUTCOME_NOT_APPLIED, .status = status, .needed = needed, .acks = acks};
    metrics_result(shard, operation->kind, operation_asked(operation), &result);
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

void request_hint_task(struct shard *shard, uint64_t hint_for, struct task *task)
{
    struct buf hint_key;
    task->kind = task->kind == TASK_PUT ? TASK_HINT_PUT : TASK_HINT_GET;
    task->counted = true;
    buf_init(&hint_key, &shard->alloc);
    if (handoff_task(&hint_key, hint_for, task))
        storage_do(shard, task);
    else
        storage_refuse(shard, task, STATUS_OVERLOADED);
    buf_free(&hint_key);
}

bool request_send_record(struct shard *shard, struct request *request, uint8_t place, uint32_t tag,
                         bool write_back)
{
    if (request->node[place] == shard->self) {
        struct task task = {
            .kind = TASK_PUT,
            .origin = {.request = request_number(request, tag)},
            .deadline_ms = request->deadline_ms,
            .hash = request->hash,
            .slot = request->slot,
            .write_back = write_back,
            .key = request->key,
            .record = buf_span(&request->record),
        };
        if (request->hint_for[place] == 0)
            storage_do(shard, &task);
        else
            request_hint_task(shard, request->hint_for[place], &task);
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
        .hint_for = request->hint_for[place],
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
    if (handoff_answered(shard, number, answer->status))
        return;
    uint64_t id = number >> TAG_BITS;
    uint32_t tag = (uint32_t)(number & ((1u << TAG_BITS) - 1));
    if (answer->kind == TASK_GET)
        read_heard(shard, number, index);
    struct request *request = id == 0 ? NULL : map_get(&shard->requests, id);
    if (request == NULL)
        return;
    uint8_t place = request_place(request, index);
    if (place == REPLICAS_MAX)
        return;
    bool is_put = answer->kind == TASK_PUT;
    trace_answer(shard, request, place, answer);
    if ((request->phase == REQUEST_PUTTING || request->phase == REQUEST_LINGERING) && is_put) {
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
    trace_node(shard, request, "lost", place);
    if (request->phase == REQUEST_PUTTING || request->phase == REQUEST_LINGERING)
        write_peer_down(shard, request, place);
    else if (request->phase == REQUEST_GETTING)
        read_peer_down(shard, request, place);
}

void coordinator_peer_down(struct shard *shard, uint16_t index)
{
    for_each_request(shard, index, act_peer_down);
}

static void act_peer_again(struct shard *shard, struct request *request, uint16_t index)
{
    uint8_t place = request_place(request, index);
    if (place == REPLICAS_MAX)
        return;
    if (request->phase == REQUEST_PUTTING || request->phase == REQUEST_LINGERING)
        write_peer_again(shard, request, place);
    else if (request->phase == REQUEST_GETTING)
        read_peer_again(shard, request, place);
}

void coordinator_peer_again(struct shard *shard, uint16_t index)
{
    for_each_request(shard, index, act_peer_again);
}

/* The replicas of the slot are others now: what was counted so far means nothing. Else only the numbers of the
 * nodes may have changed. */
static void act_ring_changed(struct shard *shard, struct request *request, uint16_t index)
{
    (void)index;
    bool same = ring_changed_epoch(shard->ring, request->slot) <= shard->ring_before->epoch;
    request->waits = 0; /* all counts of requests in flight begin anew */
    for (uint8_t i = 0; same && i < request->n; i++) {
        uint64_t node = shard->ring_before->nodes[request->node[i]].id;
        request->node[i] = ring_node_index(shard->ring, node);
        same = request->node[i] != RING_NODE_NONE;
    }
    if (same)
        return;
    if (request->phase == REQUEST_LINGERING) {
        request_drop(shard, request); /* whoever replicates the slot now is given all of it */
        return;
    }
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

static void act_amnesia(struct shard *shard, struct request *request, uint16_t index)
{
    (void)index;
    if (request->phase == REQUEST_GETTING)
        request_fail(shard, request, OUTCOME_NOT_APPLIED, STATUS_QUARANTINED);
}

void coordinator_amnesia(struct shard *shard)
{
    for_each_request(shard, 0, act_amnesia);
}

void coordinator_deadline(struct shard *shard, struct request *request)
{
    trace_event(shard, request, "deadline");
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
    case REQUEST_LINGERING:
        write_settle(shard, request);
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
        trace_event(shard, request, "waits behind a write of its key");
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

/* Key and value stand behind the request, in its block. */
static void copy_bytes(const struct operation *operation, struct request *request)
{
    uint8_t *key = (uint8_t *)(request + 1);
    uint8_t *value = key + operation->key.size;
    if (operation->key.size > 0)
        memcpy(key, operation->key.data, operation->key.size);
    if (operation->value.size > 0)
        memcpy(value, operation->value.data, operation->value.size);
    request->key = span_of(key, operation->key.size);
    request->value = span_of(value, operation->value.size);
}

/* Copies what the operation borrows; NULL when there is no memory. */
static struct request *request_new(struct shard *shard, const struct operation *operation)
{
    size_t size = sizeof(struct request) + operation->key.size + operation->value.size;
    struct request *request = alloc_get(&shard->alloc, size);
    if (request == NULL)
        return NULL;
    memset(request, 0, offsetof(struct request, get) + offsetof(struct get_quorum, replica));
    list_init(&request->parked);
    buf_init(&request->record, &shard->alloc);
    buf_init(&request->read, &shard->alloc);
    request->deadline.kind = TIMER_REQUEST_DEADLINE;
    request->hedge.kind = TIMER_REQUEST_HEDGE;
    request->size = size;
    request->id = shard->request_next;
    request->kind = operation->kind;
    request->flags = operation->flags;
    request->asked = operation_asked(operation);
    request->begun_us = shard->now.mono_us;
    request->expiry_ms = operation->expiry_ms;
    copy_bytes(operation, request);
    if (map_put(&shard->requests, request->id, request) == STATUS_OK) {
        shard->request_next++;
        return request;
    }
    request_free(shard, request);
    return NULL;
}

/* A sloppy request: the next nodes on the ring stand in for replicas that cannot be reached (Dynamo section
 * 4.6). Which one for which goes by the order of the ring, not by that in which replicas are asked: a read must
 * find with a fallback what a write left there. */
void request_name_stand_ins(struct shard *shard, struct request *request)
{
    uint16_t preflist[NODES_MAX];
    uint16_t count = ring_preflist(shard->ring, request->slot, preflist, NODES_MAX);
    uint16_t next = request->n;
    for (uint8_t i = 0; i < request->n; i++) {
        if (node_reachable(shard, preflist[i]))
            continue;
        while (next < count && !node_reachable(shard, preflist[next]))
            next++;
        if (next == count)
            return;
        uint8_t place = request_place(request, preflist[i]);
        assert(place < request->n);
        request->hint_for[place] = shard->ring->nodes[preflist[i]].id;
        request->node[place] = preflist[next++];
    }
}

void coordinate(struct shard *shard, uint16_t slot, const struct operation *operation,
                const struct origin *origin)
{
    uint8_t n = ring_replica_count(shard->ring);
    uint8_t r = resolve_count(operation->r, n);
    uint8_t w = resolve_count(operation->w, n);
    if (r > n || w > n) {
        refuse(shard, operation, origin, STATUS_BAD_REQUEST, r > n ? r : w, n);
        return;
    }
    if (operation->timeout_ms > shard->options.healing.request_timeout_max_ms) {
        refuse(shard, operation, origin, STATUS_TOO_LARGE, 0, 0);
        return;
    }
    uint32_t hash = memtable_hash(&shard->memtable, operation->key);
    memtable_prefetch(&shard->memtable, hash);
    struct result result;
    if (read_alone(shard, slot, hash, operation, &result)) {
        deliver(shard, origin, &result);
        return;
    }
    struct request *request = NULL;
    if (!memory_short(shard) && shard->requests.count - shard->lingering < REQUESTS_IN_FLIGHT_MAX)
        request = request_new(shard, operation);
    if (request == NULL) {
        refuse(shard, operation, origin, STATUS_OVERLOADED, 0, 0);
        return;
    }
    uint32_t timeout_ms =
        operation->timeout_ms != 0 ? operation->timeout_ms : shard->options.request_timeout_ms;
    request->origin = *origin;
    request->hash = hash;
    request->slot = slot;
    request->n = n;
    request->r = r;
    request->w = w;
    request->deadline_ms = shard->now.wall_ms + timeout_ms;
    memcpy(request->node, ring_replicas(shard->ring, slot), n * sizeof *request->node);
    if (operation->trace)
        trace_begin(shard, request);
    if (request_place(request, shard->self) == REPLICAS_MAX)
        shard->counters.requests_forwarded++;
    request->sloppy = operation->sloppy && shard->options.healing.hints;
    uint64_t deadline_us = shard->now.mono_us + (uint64_t)timeout_ms * 1000;
    if (timer_arm(&shard->timers, &request->deadline, deadline_us) != STATUS_OK) {
        request_fail(shard, request, OUTCOME_NOT_APPLIED, STATUS_OVERLOADED);
        return;
    }
    bool reads = operation->kind == OPERATION_GET || operation_reads_first(operation->kind, operation->flags);
    if (!reads && request->sloppy)
        request_name_stand_ins(shard, request);
    if (!reads)
        write_begin(shard, request);
    else if (!waits_behind_write(shard, request))
        read_begin(shard, request);
}
