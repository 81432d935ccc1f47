/* Reads: as many replicas as R asks for, the merge of what they hold, and writing it back where too few hold it.
 *
 * The machine of quorum/get.h decides; here its decisions are carried out. */
#include "shard/request.h"

#include <assert.h>

/* A replica that has not answered within this time gets company: one more is asked. */
#define HEDGE_DELAY_US 40000u

static void advance(struct shard *shard, struct request *request);

static bool send_get(struct shard *shard, struct request *request, uint8_t place, bool digest)
{
    if (request->node[place] == shard->self) {
        struct task task = {
            .kind = TASK_GET,
            .origin = {.request = request_number(request, TAG_GET)},
            .deadline_ms = request->deadline_ms,
            .slot = request->slot,
            .key = request->key,
        };
        storage_do(shard, &task);
        return true;
    }
    struct buf *out = peer_output(peer_of_index(shard, request->node[place]));
    if (out == NULL)
        return false;
    struct frame_get get = {
        .slot = request->slot,
        .deadline_ms = request->deadline_ms,
        .digest = digest,
        .key = request->key,
    };
    frame_put_get(out, frame_head_of(shard, FRAME_BY_SLOT, request_number(request, TAG_GET)), &get);
    bool sent = !out->failed;
    out->failed = false;
    return sent;
}

/* Self first (it costs no message), then the others, starting at a different one for each request, reachable
 * ones before the rest. */
static void order_replicas(struct shard *shard, struct request *request)
{
    uint16_t ordered[REPLICAS_MAX];
    uint8_t count = 0;
    for (int pass = 0; pass < 3; pass++) {
        for (uint8_t i = 0; i < request->n; i++) {
            uint16_t node = request->node[(i + request->id) % request->n];
            bool self = node == shard->self;
            int rank = self ? 0 : node_reachable(shard, node) ? 1 : 2;
            if (rank == pass)
                ordered[count++] = node;
        }
    }
    assert(count == request->n);
    memcpy(request->node, ordered, count * sizeof *ordered);
}

/* Merges a whole record into what has been read so far. */
static bool merge_read(struct shard *shard, struct request *request, struct span bytes,
                       struct version *merged)
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

void read_answer(struct shard *shard, struct request *request, uint8_t place,
                 const struct replica_answer *answer)
{
    if (answer->status != STATUS_OK && answer->status != STATUS_QUARANTINED) {
        get_gone(&request->get, place, answer->status);
        advance(shard, request);
        return;
    }
    struct get_answer seen = {
        .counts = answer->status == STATUS_OK,
        .has_record = answer->has_record,
        .version = answer->version,
    };
    if (seen.has_record && !merge_read(shard, request, answer->record, &seen.merged)) {
        get_gone(&request->get, place, STATUS_OVERLOADED);
        advance(shard, request);
        return;
    }
    hlc_observe(&shard->hlc, shard->now.wall_ms, stamp_max(answer->version.value, answer->version.override));
    bool grew = seen.has_record && !version_equal(seen.merged, request->get.merged);
    if (grew && request->write_backs < WRITE_BACKS_MAX)
        request->write_backs++;
    get_answered(&request->get, place, &seen);
    advance(shard, request);
}

static void done(struct shard *shard, struct request *request)
{
    struct record record;
    enum status parsed = record_parse(buf_span(&request->record), &record);
    assert(parsed == STATUS_OK);
    bool live = record_live(&record, shard->now.wall_ms);
    uint64_t expiry_ms = record_expiry_ms(&record);
    bool changes_expiry =
        request->kind == OPERATION_EXPIRE && live && (request->expiry_ms != 0 || expiry_ms != 0);
    if (changes_expiry) {
        request->applies_to = record.stamp;
        write_begin(shard, request);
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

static void failed(struct shard *shard, struct request *request, bool deadline_passed)
{
    enum status status = request->get.refusal != STATUS_OK ? request->get.refusal : STATUS_UNAVAILABLE;
    if (deadline_passed)
        status = STATUS_TIMED_OUT;
    request_fail(shard, request, OUTCOME_NOT_APPLIED, status);
}

static void ask(struct shard *shard, struct request *request, uint8_t place, bool digest)
{
    get_sent(&request->get, place);
    if (!send_get(shard, request, place, digest))
        get_gone(&request->get, place, STATUS_UNAVAILABLE);
}

static void write_back(struct shard *shard, struct request *request, uint8_t place)
{
    get_write_sent(&request->get, place);
    shard->counters.write_backs++;
    bool sent = request->write_backs < WRITE_BACKS_MAX &&
                request_send_record(shard, request, place, TAG_WRITE_BACK + request->write_backs, true);
    if (!sent)
        get_write_failed(&request->get, place);
}

/* Carries out decisions until there is something to wait for. Answers of this node's own replica may come while
 * one is being carried out; they are noted, and the loop sees them. */
static void decide(struct shard *shard, struct request *request, bool deadline_passed)
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
            ask(shard, request, chosen, request->asked_whole);
            request->asked_whole = true;
            break;
        case GET_FETCH:
            ask(shard, request, chosen, false);
            break;
        case GET_WRITE_BACK:
            write_back(shard, request, chosen);
            break;
        case GET_DONE:
            request->sending = false;
            done(shard, request);
            return;
        case GET_FAILED:
            request->sending = false;
            failed(shard, request, deadline_passed);
            return;
        }
        request->sending = false;
    }
}

static void advance(struct shard *shard, struct request *request)
{
    if (!request->sending)
        decide(shard, request, false);
}

void read_begin(struct shard *shard, struct request *request)
{
    request->phase = REQUEST_GETTING;
    order_replicas(shard, request);
    get_start(&request->get, request->n, request->r);
    if (request->r < request->n) {
        enum status armed = timer_arm(&shard->timers, &request->hedge, shard->now.mono_us + HEDGE_DELAY_US);
        /* Without memory for the timer there is no hedge; the deadline stands. */
        (void)armed;
    }
    decide(shard, request, false);
}

void read_write_answer(struct shard *shard, struct request *request, uint8_t place, enum status status)
{
    if (status == STATUS_OK)
        get_write_acked(&request->get, place);
    else
        get_write_refused(&request->get, place, status);
    advance(shard, request);
}

void read_peer_down(struct shard *shard, struct request *request, uint8_t place)
{
    get_write_failed(&request->get, place);
    if (request->get.replica[place].state != GET_IDLE)
        get_gone(&request->get, place, STATUS_UNAVAILABLE);
    advance(shard, request);
}

void read_deadline(struct shard *shard, struct request *request)
{
    decide(shard, request, true);
}

void read_hedge(struct shard *shard, struct request *request)
{
    uint8_t place = get_hedge(&request->get);
    if (place == REPLICAS_MAX || get_answers_counted(&request->get) >= request->r)
        return;
    shard->counters.hedges++;
    request->sending = true;
    ask(shard, request, place, request->asked_whole);
    request->asked_whole = true;
    request->sending = false;
    enum status armed = timer_arm(&shard->timers, &request->hedge, shard->now.mono_us + HEDGE_DELAY_US);
    (void)armed;
    advance(shard, request);
}
