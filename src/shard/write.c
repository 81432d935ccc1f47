/* Writes: a stamp, the record to every reachable replica, and what their answers make of it.
 *
 * The machine of quorum/put.h decides; here its decisions are carried out. A write is sent only where W replicas can
 * be reached, so that "not applied" can be said; it is stamped above whatever this node holds of the key, and once
 * more above what the replicas turned out to hold. */
#include "shard/request.h"

#include <assert.h>

static void advance(struct shard *shard, struct request *request);

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

static void send_all(struct shard *shard, struct request *request)
{
    uint32_t tag = request->put.round == 1 ? TAG_PUT_ROUND_1 : TAG_PUT_ROUND_2;
    request->phase = REQUEST_PUTTING;
    request->sending = true;
    request_sends(shard, request);
    for (uint8_t i = 0; i < request->n; i++) {
        if (request->node[i] != shard->self && !node_reachable(shard, request->node[i]))
            continue;
        put_sent(&request->put, i);
        trace_node(shard, request, "sent", i);
        if (!request_send_record(shard, request, i, tag, false))
            put_refused(&request->put, i, STATUS_OVERLOADED);
    }
    request->sending = false;
    advance(shard, request);
}

/* Stamps and sends; parks the request if the clock cannot stamp yet. */
void write_stamp(struct shard *shard, struct request *request)
{
    struct stamp stamp;
    bool again = request->phase == REQUEST_WANTS_RESTAMP;
    slot_prefetch(shard, request->slot);
    struct stamp above = again ? request->put.highest : storage_stamp(shard, request->key, request->hash);
    above = stamp_max(above, request->applies_to);
    shard->stamped_us = shard->now.mono_us;
    enum status status = hlc_stamp(&shard->hlc, shard->now.wall_ms, above, &stamp);
    if (status == STATUS_WAIT && shard->log.full)
        status = STATUS_DISK_FULL; /* the bound that it waits for cannot be persisted */
    if (status == STATUS_WAIT) {
        list_remove(&request->parked);
        list_push_back(&shard->stamp_waiters, &request->parked);
        request_waits_for_stamp(shard, request);
        trace_event(shard, request, "waits for a stamp");
        return;
    }
    list_remove(&request->parked);
    request_has_stamp(shard, request);
    if (status == STATUS_OK && !build_record(request, stamp))
        status = STATUS_OVERLOADED;
    if (status != STATUS_OK) {
        request_fail(shard, request, again ? OUTCOME_UNKNOWN : OUTCOME_NOT_APPLIED, status);
        return;
    }
    trace_stamped(shard, request, stamp, again);
    if (again) {
        put_restart(&request->put, stamp);
        shard->counters.restamps++;
    } else {
        struct put_options options = {.replicas = request->n, .needed = request->w, .own = stamp};
        put_start(&request->put, &options);
    }
    send_all(shard, request);
}

static uint8_t count_reachable(struct shard *shard, const struct request *request)
{
    uint8_t count = 0;
    for (uint8_t i = 0; i < request->n; i++)
        count =
            (uint8_t)(count + (request->node[i] == shard->self || node_reachable(shard, request->node[i])));
    return count;
}

void write_begin(struct shard *shard, struct request *request)
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
        struct result result = {.outcome = OUTCOME_NOT_APPLIED,
                                .status = STATUS_UNAVAILABLE,
                                .needed = request->w,
                                .acks = reachable};
        request_end(shard, request, &result);
        return;
    }
    write_stamp(shard, request);
}

/* The replica that is owed the write, or 0. One that refused because the slot is not its, or was purged, is owed
 * nothing; one for which a fallback was asked, unless that keeps the hint. */
static uint64_t owed(const struct shard *shard, const struct request *request, uint8_t place)
{
    if (request->put.state[place] == PUT_ACKED)
        return 0;
    if (request->hint_for[place] != 0)
        return request->hint_for[place];
    bool refused =
        request->put.reason[place] == STATUS_STALE_EPOCH || request->put.reason[place] == STATUS_PURGED;
    return refused || request->node[place] == shard->self ? 0 : shard->ring->nodes[request->node[place]].id;
}

void write_settle(struct shard *shard, struct request *request)
{
    for (uint8_t i = 0; i < request->n; i++) {
        uint64_t target = owed(shard, request, i);
        if (target != 0)
            handoff_keep(shard, target, request->slot, request->key, buf_span(&request->record));
    }
    request_drop(shard, request);
}

static bool anybody_asked(const struct request *request)
{
    for (uint8_t i = 0; i < request->n; i++) {
        if (request->put.state[i] == PUT_ASKED)
            return true;
    }
    return false;
}

/* Answered, and some replicas have not acknowledged: their answers are waited for until the deadline, unless so many
 * writes wait already that the slot is better compared later. */
static void linger(struct shard *shard, struct request *request)
{
    request->phase = REQUEST_LINGERING;
    shard->lingering++;
    if (!anybody_asked(request)) {
        write_settle(shard, request);
        return;
    }
    if (shard->lingering <= REQUESTS_LINGERING_MAX)
        return;
    for (uint8_t i = 0; i < request->n; i++) {
        uint64_t target = owed(shard, request, i);
        if (target != 0)
            handoff_flag(shard, target, request->slot);
    }
    request_drop(shard, request);
}

static void done(struct shard *shard, struct request *request)
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
    if ((request->flags & OPERATION_WANT_VALUE) != 0)
        result.value = request->value;
    request_deliver(shard, request, &result);
    linger(shard, request);
}

/* It may take effect; then it should everywhere. */
static void unknown(struct shard *shard, struct request *request)
{
    struct result result = {
        .outcome = OUTCOME_UNKNOWN,
        .status = STATUS_OUTCOME_UNKNOWN,
        .needed = request->w,
        .acks = put_acks(&request->put),
    };
    request_deliver(shard, request, &result);
    request->phase = REQUEST_LINGERING;
    shard->lingering++;
    write_settle(shard, request);
}

static void decide(struct shard *shard, struct request *request, bool deadline_passed)
{
    enum put_decision decision = put_decide(&request->put, deadline_passed);
    enum status why = request->put.refusal != STATUS_OK ? request->put.refusal : STATUS_UNAVAILABLE;
    switch (decision) {
    case PUT_WAIT:
        return;
    case PUT_DONE:
        done(shard, request);
        return;
    case PUT_RESTAMP:
        hlc_observe(&shard->hlc, shard->now.wall_ms, request->put.highest);
        request->phase = REQUEST_WANTS_RESTAMP;
        write_stamp(shard, request);
        return;
    case PUT_NOT_APPLIED:
        request_fail(shard, request, OUTCOME_NOT_APPLIED, why);
        return;
    case PUT_UNKNOWN:
        unknown(shard, request);
        return;
    }
}

static void advance(struct shard *shard, struct request *request)
{
    if (request->sending)
        return;
    if (request->phase != REQUEST_LINGERING)
        decide(shard, request, false);
    else if (!anybody_asked(request))
        write_settle(shard, request);
}

/* The stamp a replica holds in the register that the request writes: what could beat it. */
static struct stamp held_stamp(const struct request *request, struct version held)
{
    if (request->kind != OPERATION_EXPIRE)
        return held.value;
    /* A newer value is a concurrent SET that comes after this EXPIRE; an override only competes for one value. */
    return stamp_compare(held.value, request->applies_to) == 0 ? held.override : (struct stamp){0};
}

void write_answer(struct shard *shard, struct request *request, uint8_t place,
                  const struct replica_answer *answer)
{
    if (answer->status == STATUS_OK)
        put_acked(&request->put, place, held_stamp(request, answer->version), answer->was_live);
    else if (answer->status == STATUS_PURGED)
        put_purged(&request->put, place, answer->version.value);
    else
        put_refused(&request->put, place, answer->status);
    advance(shard, request);
}

void write_peer_down(struct shard *shard, struct request *request, uint8_t place)
{
    put_lost(&request->put, place);
    advance(shard, request);
}

void write_peer_again(struct shard *shard, struct request *request, uint8_t place)
{
    uint32_t tag = request->put.round == 1 ? TAG_PUT_ROUND_1 : TAG_PUT_ROUND_2;
    if (request->put.state[place] != PUT_ASKED)
        return;
    trace_node(shard, request, "asked again", place);
    if (request_send_record(shard, request, place, tag, false))
        put_sent_again(&request->put, place);
    else
        write_peer_down(shard, request, place);
}

void write_deadline(struct shard *shard, struct request *request)
{
    decide(shard, request, true);
}
