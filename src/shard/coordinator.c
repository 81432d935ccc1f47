/* Requests: the put and get machines wired to replicas here and elsewhere.
 *
 * A request lives from coordinate() to exactly one result, at its deadline at the latest (invariant 9). Answers of
 * replicas find it by its id, which also carries the round or write-back generation they belong to, so that a late
 * answer never counts for something it did not answer. The replica on this node is asked like any other, only
 * without a frame. */
#include <assert.h>

#include "base/hash.h"
#include "shard/state.h"

/* A replica that has not answered within this time gets company: one more is asked. */
#define HEDGE_DELAY_US 40000u

/* The low byte of a request number in frames: what the answer is for. */
#define TAG_BITS 8
#define TAG_PUT_ROUND_1 1u
#define TAG_PUT_ROUND_2 2u
#define TAG_GET 3u
#define TAG_WRITE_BACK 4u /* and above: its generation */
#define WRITE_BACKS_MAX (255u - TAG_WRITE_BACK)

static void put_advance(struct shard *shard, struct request *request);
static void get_advance(struct shard *shard, struct request *request);

/* ---- life of a request ---------------------------------------------------------------------------------- */

static void deliver(struct shard *shard, const struct origin *origin, const struct result *result)
{
    if (!origin->sibling) {
        client_part_done(shard, origin->ticket, result);
        return;
    }
    struct frame_head head = frame_head_of(shard, origin->shard, origin->ticket);
    frame_put_exec_done(&shard->locals[origin->shard], head, result);
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

static void request_end(struct shard *shard, struct request *request, struct result *result)
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
    struct result result = {
        .outcome = OUTCOME_NOT_APPLIED, .status = status, .needed = needed, .acks = acks};
    count_outcome(shard, &result);
    deliver(shard, origin, &result);
}

static void request_fail(struct shard *shard, struct request *request, enum outcome outcome, enum status status)
{
    bool writing = request->phase != REQUEST_GETTING;
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

static bool is_self(const struct shard *shard, uint16_t node)
{
    return node == shard->self;
}

/* The place of a node in the request's list, or REPLICAS_MAX. */
static uint8_t place_of(const struct request *request, uint16_t node)
{
    for (uint8_t i = 0; i < request->n; i++) {
        if (request->node[i] == node)
            return i;
    }
    return REPLICAS_MAX;
}

static uint64_t tagged(const struct request *request, uint32_t tag)
{
    return request->id << TAG_BITS | tag;
}

/* Sends the request's record to a replica; false if it cannot be reached. */
static bool send_put(struct shard *shard, struct request *request, uint8_t place, uint32_t tag, bool write_back)
{
    if (is_self(shard, request->node[place])) {
        struct task task = {
            .kind = TASK_PUT,
            .origin = {.request = tagged(request, tag)},
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
    struct buf *out = peer_output(shard, peer);
    if (out == NULL)
        return false;
    struct frame_put put = {
        .slot = request->slot,
        .deadline_ms = request->deadline_ms,
        .write_back = write_back,
        .key = request->key,
        .record = buf_span(&request->record),
    };
    frame_put_put(out, frame_head_of(shard, FRAME_BY_SLOT, tagged(request, tag)), &put);
    bool sent = !out->failed;
    out->failed = false;
    return sent;
}

static bool send_get(struct shard *shard, struct request *request, uint8_t place, bool digest)
{
    if (is_self(shard, request->node[place])) {
        struct task task = {
            .kind = TASK_GET,
            .origin = {.request = tagged(request, TAG_GET)},
            .deadline_ms = request->deadline_ms,
            .slot = request->slot,
            .key = request->key,
        };
        storage_do(shard, &task);
        return true;
    }
    struct buf *out = peer_output(shard, peer_of_index(shard, request->node[place]));
    if (out == NULL)
        return false;
    struct frame_get get = {
        .slot = request->slot,
        .deadline_ms = request->deadline_ms,
        .digest = digest,
        .key = request->key,
    };
    frame_put_get(out, frame_head_of(shard, FRAME_BY_SLOT, tagged(request, TAG_GET)), &get);
    bool sent = !out->failed;
    out->failed = false;
    return sent;
}

/* ---- writes --------------------------------------------------------------------------------------------- */

/* Serialises what is to be written, under this stamp. */
static bool build_record(struct request *request, struct stamp stamp)
{
    struct record record = {0};
    if (request->kind == OPERATION_EXPIRE) {
        record.flags = RECORD_OVERRIDE;
        record.override_applies_to = request->applies_to;
        record.override_stamp = stamp;
        record.override_expiry_ms = request->expiry_ms;
    } else {
        record.flags = RECORD_VALUE;
        record.stamp = stamp;
        if (request->kind == OPERATION_DELETE)
            record.flags |= RECORD_TOMBSTONE;
        else if (request->expiry_ms != 0)
            record.flags |= RECORD_EXPIRY;
        record.expiry_ms = request->expiry_ms;
        record.value = request->value;
    }
    buf_clear(&request->record);
    record_put(&request->record, &record);
    return !request->record.failed;
}

static void put_send_all(struct shard *shard, struct request *request)
{
    uint32_t tag = request->put.round == 1 ? TAG_PUT_ROUND_1 : TAG_PUT_ROUND_2;
    request->phase = REQUEST_PUTTING;
    request->sending = true;
    for (uint8_t i = 0; i < request->n; i++) {
        if (!is_self(shard, request->node[i]) && !node_reachable(shard, request->node[i]))
            continue;
        put_sent(&request->put, i);
        if (!send_put(shard, request, i, tag, false))
            put_refused(&request->put, i, STATUS_OVERLOADED);
    }
    request->sending = false;
    put_advance(shard, request);
}

/* Stamps and sends; parks the request if the clock cannot stamp yet. */
static void put_stamp(struct shard *shard, struct request *request)
{
    struct stamp stamp;
    bool again = request->phase == REQUEST_WANTS_RESTAMP;
    struct stamp above = again ? request->put.highest : storage_stamp(shard, request->key);
    if (request->kind == OPERATION_EXPIRE)
        above = stamp_max(above, request->applies_to);
    shard->stamped_us = shard->now.mono_us;
    enum status status = hlc_stamp(&shard->hlc, shard->now.wall_ms, above, &stamp);
    if (status == STATUS_WAIT) {
        list_remove(&request->parked);
        list_push_back(&shard->stamp_waiters, &request->parked);
        return;
    }
    list_remove(&request->parked);
    if (status == STATUS_OK && !build_record(request, stamp))
        status = STATUS_OVERLOADED;
    if (status != STATUS_OK) {
        request_fail(shard, request, again ? OUTCOME_UNKNOWN : OUTCOME_NOT_APPLIED, status);
        return;
    }
    if (again) {
        put_restart(&request->put, stamp);
        shard->counters.restamps++;
    } else {
        struct put_options options = {.replicas = request->n, .needed = request->w, .own = stamp};
        put_start(&request->put, &options);
    }
    put_send_all(shard, request);
}

static uint8_t count_reachable(struct shard *shard, const struct request *request)
{
    uint8_t count = 0;
    for (uint8_t i = 0; i < request->n; i++)
        count = (uint8_t)(count + (is_self(shard, request->node[i]) || node_reachable(shard, request->node[i])));
    return count;
}

static void put_begin(struct shard *shard, struct request *request)
{
    request->phase = REQUEST_WANTS_STAMP;
    request->put.replicas = 0;
    if (!shard->clock_trusted) {
        request_fail(shard, request, OUTCOME_NOT_APPLIED, STATUS_CLOCK_SKEW);
        return;
    }
    /* Nothing is sent where W cannot be reached: then the answer can be "not applied". */
    uint8_t reachable = count_reachable(shard, request);
    if (reachable < request->w) {
        struct result result = {
            .outcome = OUTCOME_NOT_APPLIED, .status = STATUS_UNAVAILABLE, .needed = request->w, .acks = reachable};
        request_end(shard, request, &result);
        return;
    }
    put_stamp(shard, request);
}

static void put_done(struct shard *shard, struct request *request)
{
    struct result result = {
        .outcome = OUTCOME_DONE,
        .status = STATUS_OK,
        .needed = request->w,
        .acks = put_acks(&request->put),
        .found = request->kind == OPERATION_EXPIRE || request->put.was_live,
    };
    if (request->kind == OPERATION_EXPIRE)
        result.version = (struct version){.value = request->applies_to, .override = request->put.own};
    else
        result.version.value = request->put.own;
    request_end(shard, request, &result);
}

static void put_decided(struct shard *shard, struct request *request, bool deadline_passed)
{
    enum put_decision decision = put_decide(&request->put, deadline_passed);
    enum status why = request->put.refusal != STATUS_OK ? request->put.refusal : STATUS_UNAVAILABLE;
    switch (decision) {
    case PUT_WAIT:
        return;
    case PUT_DONE:
        put_done(shard, request);
        return;
    case PUT_RESTAMP:
        hlc_observe(&shard->hlc, shard->now.wall_ms, request->put.highest);
        request->phase = REQUEST_WANTS_RESTAMP;
        put_stamp(shard, request);
        return;
    case PUT_NOT_APPLIED:
        request_fail(shard, request, OUTCOME_NOT_APPLIED, why);
        return;
    case PUT_UNKNOWN:
        request_fail(shard, request, OUTCOME_UNKNOWN, STATUS_OUTCOME_UNKNOWN);
        return;
    }
}

static void put_advance(struct shard *shard, struct request *request)
{
    if (!request->sending)
        put_decided(shard, request, false);
}

/* The stamp a replica holds in the register that the request writes: what could beat it. */
static struct stamp held_stamp(const struct request *request, struct version held)
{
    if (request->kind != OPERATION_EXPIRE)
        return held.value;
    /* A newer value is a concurrent SET that comes after this EXPIRE; an override only competes for one value. */
    return stamp_compare(held.value, request->applies_to) == 0 ? held.override : (struct stamp){0};
}

static void put_answer(struct shard *shard, struct request *request, uint8_t place,
                       const struct replica_answer *answer)
{
    if (answer->status == STATUS_OK)
        put_acked(&request->put, place, held_stamp(request, answer->version), answer->was_live);
    else
        put_refused(&request->put, place, answer->status);
    put_advance(shard, request);
}

/* ---- reads ---------------------------------------------------------------------------------------------- */

/* Self first (it costs no message), then the others, starting at a different one for each request, reachable
 * ones before the rest. */
static void order_replicas(struct shard *shard, struct request *request)
{
    uint16_t ordered[REPLICAS_MAX];
    uint8_t count = 0;
    for (int pass = 0; pass < 3; pass++) {
        for (uint8_t i = 0; i < request->n; i++) {
            uint16_t node = request->node[(i + request->id) % request->n];
            bool self = is_self(shard, node);
            int rank = self ? 0 : node_reachable(shard, node) ? 1 : 2;
            if (rank == pass)
                ordered[count++] = node;
        }
    }
    assert(count == request->n);
    memcpy(request->node, ordered, count * sizeof *ordered);
}

/* Merges a whole record into what has been read so far. */
static bool merge_read(struct shard *shard, struct request *request, struct span bytes, struct version *merged)
{
    struct record so_far;
    struct record read;
    enum status parsed = record_parse(buf_span(&request->record), &so_far);
    assert(parsed == STATUS_OK);
    parsed = record_parse(bytes, &read);
    assert(parsed == STATUS_OK);
    struct record both = record_merge(&so_far, &read);
    *merged = record_version(&both);
    if (version_equal(*merged, record_version(&so_far)))
        return true;
    struct buf grown;
    buf_init(&grown, &shard->alloc);
    record_put(&grown, &both);
    if (grown.failed) {
        buf_free(&grown);
        return false;
    }
    buf_free(&request->record);
    request->record = grown;
    return true;
}

static void get_answer(struct shard *shard, struct request *request, uint8_t place,
                       const struct replica_answer *answer)
{
    if (answer->status != STATUS_OK && answer->status != STATUS_QUARANTINED) {
        get_gone(&request->get, place, answer->status);
        get_advance(shard, request);
        return;
    }
    struct get_answer seen = {
        .counts = answer->status == STATUS_OK,
        .has_record = answer->has_record,
        .version = answer->version,
    };
    if (seen.has_record && !merge_read(shard, request, answer->record, &seen.merged)) {
        get_gone(&request->get, place, STATUS_OVERLOADED);
        get_advance(shard, request);
        return;
    }
    hlc_observe(&shard->hlc, shard->now.wall_ms, stamp_max(answer->version.value, answer->version.override));
    if (seen.has_record && !version_equal(seen.merged, request->get.merged))
        request->write_backs++;
    get_answered(&request->get, place, &seen);
    get_advance(shard, request);
}

static void get_done(struct shard *shard, struct request *request)
{
    struct record record;
    enum status parsed = record_parse(buf_span(&request->record), &record);
    assert(parsed == STATUS_OK);
    bool live = record_live(&record, shard->now.wall_ms);
    uint64_t expiry_ms = record_expiry_ms(&record);
    bool changes_expiry = request->kind == OPERATION_EXPIRE && live && (request->expiry_ms != 0 || expiry_ms != 0);
    if (changes_expiry) {
        request->applies_to = record.stamp;
        put_begin(shard, request);
        return;
    }
    struct result result = {
        .outcome = OUTCOME_DONE,
        .status = STATUS_OK,
        .needed = request->r,
        .acks = get_answers_counted(&request->get),
        .found = live && request->kind == OPERATION_GET,
        .version = record_version(&record),
        .expiry_ms = expiry_ms,
        .value = live ? record.value : (struct span){0},
    };
    request_end(shard, request, &result);
}

static void get_failed(struct shard *shard, struct request *request, bool deadline_passed)
{
    enum status status = request->get.refusal != STATUS_OK ? request->get.refusal : STATUS_UNAVAILABLE;
    if (deadline_passed)
        status = STATUS_TIMED_OUT;
    request_fail(shard, request, OUTCOME_NOT_APPLIED, status);
}

static void get_ask(struct shard *shard, struct request *request, uint8_t place, bool digest)
{
    get_sent(&request->get, place);
    if (!send_get(shard, request, place, digest))
        get_gone(&request->get, place, STATUS_UNAVAILABLE);
}

static void get_write_back(struct shard *shard, struct request *request, uint8_t place)
{
    get_write_sent(&request->get, place);
    shard->counters.write_backs++;
    bool sent = request->write_backs <= WRITE_BACKS_MAX &&
                send_put(shard, request, place, TAG_WRITE_BACK + request->write_backs, true);
    if (!sent)
        get_write_failed(&request->get, place);
}

/* Carries out decisions until there is something to wait for. Answers of this node's own replica may come while
 * one is being carried out; they are noted, and the loop sees them. */
static void get_decided(struct shard *shard, struct request *request, bool deadline_passed)
{
    for (;;) {
        enum get_decision decision = get_decide(&request->get, deadline_passed);
        uint8_t chosen = request->get.chosen;
        request->sending = true;
        switch (decision) {
        case GET_WAIT:
            request->sending = false;
            return;
        case GET_ASK:
            /* One whole record is enough where all agree. */
            get_ask(shard, request, chosen, request->asked_whole);
            request->asked_whole = true;
            break;
        case GET_FETCH:
            get_ask(shard, request, chosen, false);
            break;
        case GET_WRITE_BACK:
            get_write_back(shard, request, chosen);
            break;
        case GET_DONE:
            request->sending = false;
            get_done(shard, request);
            return;
        case GET_FAILED:
            request->sending = false;
            get_failed(shard, request, deadline_passed);
            return;
        }
        request->sending = false;
    }
}

static void get_advance(struct shard *shard, struct request *request)
{
    if (!request->sending)
        get_decided(shard, request, false);
}

static void get_begin(struct shard *shard, struct request *request)
{
    request->phase = REQUEST_GETTING;
    order_replicas(shard, request);
    get_start(&request->get, request->n, request->r);
    if (request->r < request->n) {
        enum status armed = timer_arm(&shard->timers, &request->hedge, shard->now.mono_us + HEDGE_DELAY_US);
        /* Without memory for the timer there is no hedge; the deadline stands. */
        (void)armed;
    }
    get_decided(shard, request, false);
}

/* ---- events --------------------------------------------------------------------------------------------- */

void coordinator_answer(struct shard *shard, uint64_t number, uint16_t index, const struct replica_answer *answer)
{
    uint64_t id = number >> TAG_BITS;
    uint32_t tag = (uint32_t)(number & ((1u << TAG_BITS) - 1));
    struct request *request = id == 0 ? NULL : map_get(&shard->requests, id);
    if (request == NULL)
        return;
    uint8_t place = place_of(request, index);
    if (place == REPLICAS_MAX)
        return;
    bool is_put = answer->kind == TASK_PUT;
    if (request->phase == REQUEST_PUTTING && is_put) {
        if (tag == (request->put.round == 1 ? TAG_PUT_ROUND_1 : TAG_PUT_ROUND_2))
            put_answer(shard, request, place, answer);
    } else if (request->phase == REQUEST_GETTING && !is_put && tag == TAG_GET) {
        get_answer(shard, request, place, answer);
    } else if (request->phase == REQUEST_GETTING && is_put && tag == TAG_WRITE_BACK + request->write_backs) {
        if (answer->status == STATUS_OK)
            get_write_acked(&request->get, place);
        else
            get_write_failed(&request->get, place);
        get_advance(shard, request);
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
    uint8_t place = place_of(request, index);
    if (place == REPLICAS_MAX)
        return;
    if (request->phase == REQUEST_PUTTING) {
        put_lost(&request->put, place);
        put_advance(shard, request);
    } else if (request->phase == REQUEST_GETTING) {
        get_write_failed(&request->get, place);
        if (request->get.replica[place].state != GET_IDLE)
            get_gone(&request->get, place, STATUS_UNAVAILABLE);
        get_advance(shard, request);
    }
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
    case REQUEST_WANTS_STAMP:
        request_fail(shard, request, OUTCOME_NOT_APPLIED, STATUS_TIMED_OUT);
        return;
    case REQUEST_WANTS_RESTAMP:
        request_fail(shard, request, OUTCOME_UNKNOWN, STATUS_OUTCOME_UNKNOWN);
        return;
    case REQUEST_PUTTING:
        put_decided(shard, request, true);
        return;
    case REQUEST_GETTING:
        get_decided(shard, request, true);
        return;
    }
}

void coordinator_hedge(struct shard *shard, struct request *request)
{
    uint8_t place = request->phase == REQUEST_GETTING ? get_hedge(&request->get) : REPLICAS_MAX;
    if (place == REPLICAS_MAX || get_answers_counted(&request->get) >= request->r)
        return;
    shard->counters.hedges++;
    request->sending = true;
    get_ask(shard, request, place, request->asked_whole);
    request->asked_whole = true;
    request->sending = false;
    enum status armed = timer_arm(&shard->timers, &request->hedge, shard->now.mono_us + HEDGE_DELAY_US);
    (void)armed;
    get_advance(shard, request);
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
        put_stamp(shard, request);
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
    if (copy_bytes(shard, operation, request) && map_put(&shard->requests, request->id, request) == STATUS_OK) {
        shard->request_next++;
        return request;
    }
    request_free(shard, request);
    return NULL;
}

void coordinate(struct shard *shard, uint16_t slot, const struct operation *operation, const struct origin *origin)
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
    if (place_of(request, shard->self) == REPLICAS_MAX)
        shard->counters.requests_forwarded++;
    uint64_t deadline_us = shard->now.mono_us + (uint64_t)timeout_ms * 1000;
    if (timer_arm(&shard->timers, &request->deadline, deadline_us) != STATUS_OK) {
        request_fail(shard, request, OUTCOME_NOT_APPLIED, STATUS_OVERLOADED);
        return;
    }
    if (operation->kind == OPERATION_GET || operation->kind == OPERATION_EXPIRE)
        get_begin(shard, request);
    else
        put_begin(shard, request);
}
