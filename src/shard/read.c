/* Reads: as many replicas as R asks for, the merge of what they hold, and writing it back where too few hold it.
 *
 * The machine of quorum/get.h decides; here its decisions are carried out. */
#include "shard/request.h"

#include <assert.h>

/* A write-back waits for a disk too; one that takes longer than this gets company. */
#define WRITE_BACK_LATE_US 40000u

/* A hedge that was refused, or did not help either, is followed by the next after twice the time, up to this often. */
#define HEDGE_DOUBLINGS_MAX 6

static void advance(struct shard *shard, struct request *request);

/* ---- replicas and their latencies ----------------------------------------------------------------------- */

static struct replica_timing *timing_of(struct shard *shard, uint16_t node)
{
    return node == shard->self ? &shard->self_timing : &peer_of_index(shard, node)->timing;
}

/* Where every replica must answer there is nothing to choose, and nothing is measured. */
static bool has_choice(const struct request *request)
{
    return request->r < request->n;
}

static bool waits_for(const struct request *request, uint8_t place)
{
    return (request->waits >> place & 1) != 0;
}

static void wait_begin(struct shard *shard, struct request *request, uint8_t place)
{
    _Static_assert(REPLICAS_MAX <= 8, "one bit for each place");
    if (!has_choice(request) || waits_for(request, place))
        return;
    request->waits |= (uint8_t)(1u << place);
    timing_of(shard, request->node[place])->in_flight++;
}

static void wait_end(struct shard *shard, struct request *request, uint8_t place)
{
    if (!waits_for(request, place))
        return;
    request->waits &= (uint8_t) ~(1u << place);
    struct replica_timing *timing = timing_of(shard, request->node[place]);
    timing->in_flight -= timing->in_flight > 0; /* it began anew if the connection was lost */
}

void read_over(struct shard *shard, struct request *request)
{
    for (uint8_t i = 0; request->waits != 0; i++)
        wait_end(shard, request, i);
}

void read_heard(struct shard *shard, uint64_t number, uint16_t node)
{
    replica_heard(timing_of(shard, node), number, shard->now.mono_us);
}

/* What comes before latency. */
static uint8_t node_rank(struct shard *shard, uint16_t node)
{
    if (!node_reachable(shard, node))
        return 2;
    return node_suspect(shard, node) ? 1 : 0;
}

static bool send_get(struct shard *shard, struct request *request, uint16_t node, uint64_t hint_for,
                     uint32_t tag, bool digest)
{
    if (node == shard->self) {
        struct task task = {
            .kind = TASK_GET,
            .origin = {.request = request_number(request, tag)},
            .deadline_ms = request->deadline_ms,
            .hash = request->hash,
            .slot = request->slot,
            .key = request->key,
        };
        if (hint_for == 0)
            storage_do(shard, &task);
        else
            request_hint_task(shard, hint_for, &task);
        return true;
    }
    struct buf *out = peer_output(peer_of_index(shard, node));
    if (out == NULL)
        return false;
    struct frame_get get = {
        .slot = request->slot,
        .deadline_ms = request->deadline_ms,
        .digest = digest,
        .hint_for = hint_for,
        .key = request->key,
    };
    frame_put_get(out, frame_head_of(shard, FRAME_BY_SLOT, request_number(request, tag)), &get);
    bool sent = !out->failed;
    out->failed = false;
    return sent;
}

/* Measures a slow replica by a read that nobody waits for. */
static void probe(struct shard *shard, struct request *request, uint16_t node)
{
    struct replica_timing *timing = timing_of(shard, node);
    if (!replica_wants_probe(timing, shard->now.mono_us) || !hedge_budget_take(&shard->hedge_budget, false))
        return;
    uint64_t number = request_number(request, TAG_PROBE);
    shard->counters.read_probes++;
    replica_probed(timing, number, shard->now.mono_us);
    if (!send_get(shard, request, node, 0, TAG_PROBE, true))
        replica_unsent(timing, number);
}

/* The best first (replica_choice.h), starting at a different one for each request where all are equal. */
static void order_replicas(struct shard *shard, struct request *request)
{
    struct replica_candidates candidates = {.count = request->n};
    uint8_t at = (uint8_t)(request->id % request->n);
    for (uint8_t i = 0; i < request->n; i++) {
        uint16_t node = request->node[at];
        const struct replica_timing *timing = timing_of(shard, node);
        candidates.items[i] = (struct replica_candidate){
            .node = node,
            .rank = node_rank(shard, node),
            .self = node == shard->self,
            .in_flight = timing->in_flight,
            .expected_us = replica_expected_us(timing, shard->now.mono_us),
        };
        at = at + 1u < request->n ? (uint8_t)(at + 1) : 0;
    }
    replica_order(&candidates);
    for (uint8_t i = 0; i < request->n; i++) {
        const struct replica_candidate *candidate = &candidates.items[i];
        request->node[i] = candidate->node;
        if (i >= request->r && candidate->slow && candidate->rank == 0)
            probe(shard, request, candidate->node);
    }
}

/* ---- answers -------------------------------------------------------------------------------------------- */

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

/* What this node holds may be an older copy until another one has said otherwise. At other nodes nothing counts before
 * they have said it (peers.c); here R = 1 could be answered from it, and W = N promised more. A key that has no other
 * replica was promised nothing beyond this disk. */
static bool may_be_old(const struct shard *shard, const struct request *request, uint8_t place)
{
    return request->node[place] == shard->self && request->n > 1 && !shard->judged;
}

void read_answer(struct shard *shard, struct request *request, uint8_t place,
                 const struct replica_answer *answer)
{
    wait_end(shard, request, place);
    if (may_be_old(shard, request, place)) {
        get_gone(&request->get, place, STATUS_STARTING);
        advance(shard, request);
        return;
    }
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

/* Whether a hedge's answer counted while one that was asked before it has not come. */
static bool hedge_won(const struct request *request)
{
    bool used = false;
    bool late = false;
    for (uint8_t i = 0; i < request->n; i++) {
        const struct get_replica *replica = &request->get.replica[i];
        bool waits = replica->state == GET_ASKED || replica->write == GET_WRITE_SENT;
        if ((request->hedged >> i & 1) == 0)
            late |= waits;
        else
            used |= replica->state == GET_ANSWERED || replica->write == GET_WRITE_HELD;
    }
    return used && late;
}

/* Whether an EXPIRE is to change the expiry of the value that was read (Redis: none counts as the latest). */
static bool changes_expiry(const struct request *request, uint64_t expiry_ms)
{
    if (request->expiry_ms == 0) /* PERSIST */
        return expiry_ms != 0;
    if ((request->flags & OPERATION_IF_NONE) != 0 && expiry_ms != 0)
        return false;
    if ((request->flags & OPERATION_IF_SOME) != 0 && expiry_ms == 0)
        return false;
    if ((request->flags & OPERATION_IF_LATER) != 0 && (expiry_ms == 0 || request->expiry_ms <= expiry_ms))
        return false;
    return (request->flags & OPERATION_IF_SOONER) == 0 || expiry_ms == 0 || request->expiry_ms < expiry_ms;
}

/* A read that a write follows from: begins that, and says so. The value of `record` is a view of what was read. */
static bool write_follows(struct shard *shard, struct request *request, const struct record *record,
                          bool live)
{
    uint64_t expiry_ms = live ? record_expiry_ms(record) : 0;
    request->applies_to = record->stamp;
    if (request->kind == OPERATION_PUT) {
        request->expiry_ms = expiry_ms;
        request->applies_to = record_stamp_max(record);
    } else if (!live || !changes_expiry(request, expiry_ms)) {
        return false;
    } else if ((request->flags & OPERATION_WANT_VALUE) != 0) {
        request->value = record->value;
        request->read = request->record;
        buf_init(&request->record, &shard->alloc);
    }
    write_begin(shard, request);
    return true;
}

static void done(struct shard *shard, struct request *request)
{
    if (request->hedged != 0 && hedge_won(request))
        shard->counters.hedges_won++;
    struct record record;
    enum status parsed = record_parse(buf_span(&request->record), &record);
    assert(parsed == STATUS_OK);
    bool live = record_live(&record, shard->now.wall_ms);
    if (operation_reads_first(request->kind, request->flags) && write_follows(shard, request, &record, live))
        return;
    bool wants_value = request->kind == OPERATION_GET || (request->flags & OPERATION_WANT_VALUE) != 0;
    struct result result = {
        .outcome = OUTCOME_DONE,
        .status = STATUS_OK,
        .needed = request->r,
        .acks = get_answers_counted(&request->get),
        .found = live && wants_value,
        .version = record_version(&record),
        .expiry_ms = record_expiry_ms(&record),
        .value = live && wants_value ? record.value : (struct span){0},
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
    uint64_t number = request_number(request, TAG_GET);
    get_sent(&request->get, place);
    trace_node(shard, request, digest ? "asked for the version" : "asked", place);
    wait_begin(shard, request, place);
    struct replica_timing *timing = timing_of(shard, request->node[place]);
    if (has_choice(request))
        replica_asked(timing, number, shard->now.mono_us);
    if (send_get(shard, request, request->node[place], request->hint_for[place], TAG_GET, digest))
        return;
    replica_unsent(timing, number);
    wait_end(shard, request, place);
    get_gone(&request->get, place, STATUS_UNAVAILABLE);
}

static void write_back(struct shard *shard, struct request *request, uint8_t place)
{
    if (has_choice(request)) {
        enum status armed =
            timer_arm(&shard->timers, &request->hedge, shard->now.mono_us + WRITE_BACK_LATE_US);
        (void)armed; /* without memory for the timer there is no hedge; the deadline stands */
    }
    get_write_sent(&request->get, place);
    trace_node(shard, request, "write-back", place);
    shard->counters.write_backs++;
    bool sent = request->write_backs < WRITE_BACKS_MAX &&
                request_send_record(shard, request, place, TAG_WRITE_BACK + request->write_backs, true);
    if (!sent)
        get_write_failed(&request->get, place);
}

/* Carries out decisions until there is something to wait for. Answers of this node's own replica may come while
 * one is being carried out; they are noted, and the loop sees them. False once the read is over: the request may be
 * gone. */
static bool decide(struct shard *shard, struct request *request, bool deadline_passed)
{
    for (;;) {
        enum get_decision decision = get_decide(&request->get, deadline_passed);
        uint8_t chosen = request->get.chosen;
        request->sending = true;
        switch (decision) {
        case GET_WAIT:
            request->sending = false;
            return true;
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
            return false;
        case GET_FAILED:
            request->sending = false;
            failed(shard, request, deadline_passed);
            return false;
        }
        request->sending = false;
    }
}

static void advance(struct shard *shard, struct request *request)
{
    if (!request->sending)
        (void)decide(shard, request, false);
}

/* ---- hedges --------------------------------------------------------------------------------------------- */

/* Which replica can help where others are late: to be asked, or to be written to. REPLICAS_MAX: none. */
static uint8_t hedge_place(struct shard *shard, const struct request *request, bool *write)
{
    uint8_t place = get_hedge_write(&request->get);
    *write = place != REPLICAS_MAX;
    if (!*write)
        place = get_hedge(&request->get);
    bool reachable = place != REPLICAS_MAX && node_reachable(shard, request->node[place]);
    return reachable ? place : REPLICAS_MAX;
}

/* A read is late once the first of those it waits for is; and one more is asked no sooner than that one would take:
 * a slow replica cannot help with a short delay. */
static uint64_t hedge_delay_us(struct shard *shard, const struct request *request)
{
    bool write;
    uint8_t place = hedge_place(shard, request, &write);
    uint64_t delay_us = UINT64_MAX;
    for (uint8_t i = 0; i < request->n && !write; i++) {
        uint64_t late_us =
            waits_for(request, i) ? replica_late_after_us(timing_of(shard, request->node[i])) : UINT64_MAX;
        delay_us = late_us < delay_us ? late_us : delay_us;
    }
    if (delay_us == UINT64_MAX)
        delay_us = WRITE_BACK_LATE_US;
    if (place == REPLICAS_MAX || write)
        return delay_us;
    uint64_t expected_us = replica_expected_us(timing_of(shard, request->node[place]), shard->now.mono_us);
    return delay_us > expected_us ? delay_us : expected_us;
}

static void hedge_arm(struct shard *shard, struct request *request)
{
    uint64_t delay_us = hedge_delay_us(shard, request) << request->hedge_tries;
    enum status armed = timer_arm(&shard->timers, &request->hedge, shard->now.mono_us + delay_us);
    (void)armed; /* without memory for the timer there is no hedge; the deadline stands */
}

static void hedge(struct shard *shard, struct request *request, uint8_t place, bool write)
{
    shard->counters.hedges++;
    trace_event(shard, request, "hedge");
    request->hedged |= (uint8_t)(1u << place);
    for (uint8_t i = 0; i < request->n; i++) {
        if (waits_for(request, i))
            replica_late(timing_of(shard, request->node[i]), request_number(request, TAG_GET));
    }
    request->sending = true;
    if (write) {
        write_back(shard, request, place);
    } else {
        /* Whoever was to send the whole record may be the one that is late. */
        ask(shard, request, place, request->record.size > 0);
        request->asked_whole = true;
    }
    request->sending = false;
}

void read_hedge(struct shard *shard, struct request *request)
{
    bool write;
    uint8_t place = hedge_place(shard, request, &write);
    bool sent = place != REPLICAS_MAX && hedge_budget_take(&shard->hedge_budget, request->hedge_tries > 0);
    if (sent)
        hedge(shard, request, place, write);
    else if (place != REPLICAS_MAX)
        shard->counters.hedges_refused++;
    if (request->hedge_tries < HEDGE_DOUBLINGS_MAX)
        request->hedge_tries++;
    hedge_arm(shard, request);
    if (sent)
        advance(shard, request);
}

/* ---- events --------------------------------------------------------------------------------------------- */

void read_begin(struct shard *shard, struct request *request)
{
    request->phase = REQUEST_GETTING;
    request_sends(shard, request);
    hedge_budget_earn(&shard->hedge_budget);
    order_replicas(shard, request);
    if (request->sloppy)
        request_name_stand_ins(shard, request);
    get_start(&request->get, request->n, request->r);
    if (decide(shard, request, false) && has_choice(request))
        hedge_arm(shard, request);
}

void read_write_answer(struct shard *shard, struct request *request, uint8_t place, enum status status)
{
    struct record record;
    enum status parsed = record_parse(buf_span(&request->record), &record);
    assert(parsed == STATUS_OK);
    /* A replica that has purged a dead row knows of it as well as one that holds it. */
    bool purged = status == STATUS_PURGED && !record_live(&record, shard->now.wall_ms);
    if (status == STATUS_OK || purged)
        get_write_acked(&request->get, place);
    else
        get_write_refused(&request->get, place, status);
    advance(shard, request);
}

void read_peer_down(struct shard *shard, struct request *request, uint8_t place)
{
    wait_end(shard, request, place);
    get_write_failed(&request->get, place);
    if (request->get.replica[place].state != GET_IDLE)
        get_gone(&request->get, place, STATUS_UNAVAILABLE);
    advance(shard, request);
}

void read_peer_again(struct shard *shard, struct request *request, uint8_t place)
{
    const struct get_replica *replica = &request->get.replica[place];
    bool asked = replica->state == GET_ASKED || replica->state == GET_FETCHING;
    if (asked || replica->write == GET_WRITE_SENT)
        trace_node(shard, request, "asked again", place);
    bool sent =
        !asked || send_get(shard, request, request->node[place], request->hint_for[place], TAG_GET, false);
    if (replica->write == GET_WRITE_SENT)
        sent =
            sent && request_send_record(shard, request, place, TAG_WRITE_BACK + request->write_backs, true);
    if (!sent)
        read_peer_down(shard, request, place);
}

void read_deadline(struct shard *shard, struct request *request)
{
    (void)decide(shard, request, true);
}
