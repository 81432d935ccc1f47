/* Anti-entropy begun here: which slots are compared with whom, and when.
 *
 * One exchange at a time: some slots that this shard and one shard of a peer both hold. A round over all slots and
 * peers takes repair_interval when nothing is urgent, spread evenly. Urgent are slots that do not serve, then those
 * that hints flagged. All of it stays within a budget of bytes per second. (DESIGN section 6; PROTOCOLS D.) */
#include <assert.h>
#include <inttypes.h>

#include "shard/state.h"

/* Slots looked at for one exchange: those that were compared lately are passed over. */
#define ROUND_LOOKS_MAX 2048u

/* A message is sent again after this time, so many times. */
#define ANSWER_TIMEOUT_US 4000000u
#define SENDS_MAX 3u

/* With a peer that failed an urgent exchange nothing urgent is tried before. */
#define URGENT_RETRY_US 1000000u

/* A quarter of a second's budget may go at once. */
#define BUDGET_BURST_DIVISOR 4

void antientropy_init(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    buf_init(&initiating->floors, &shard->alloc);
    buf_init(&initiating->peer_floors, &shard->alloc);
    /* Never used before between two nodes: it salts digests. */
    initiating->session = prng_u64(&shard->prng) >> 8;
}

void antientropy_free(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    exchange_free(initiating->exchange);
    buf_free(&initiating->floors);
    buf_free(&initiating->peer_floors);
}

/* ---- budget --------------------------------------------------------------------------------------------- */

static bool budget_left(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    int64_t rate = (int64_t)(shard->options.healing.repair_bytes_per_s / shard->options.shards + 1);
    int64_t burst = rate / BUDGET_BURST_DIVISOR + 1;
    uint64_t passed_us = shard->now.mono_us - repairing->budget_us;
    if (passed_us > 1000000)
        passed_us = 1000000;
    repairing->budget_us = shard->now.mono_us;
    repairing->budget_bytes += (int64_t)passed_us * rate / 1000000;
    if (repairing->budget_bytes > burst)
        repairing->budget_bytes = burst;
    return repairing->budget_bytes > 0;
}

/* Whoever begins an exchange pays for both directions: what others begin must not starve what is urgent here. */
static void spend(struct shard *shard, size_t bytes)
{
    shard->repairing.budget_bytes -= (int64_t)bytes;
}

/* ---- choosing ------------------------------------------------------------------------------------------- */

static bool shares(const struct shard *shard, const struct slot_state *state, const struct peer *peer,
                   uint16_t peer_shard)
{
    return ring_replicates(shard->ring, state->slot, peer->index) &&
           slot_shard(state->slot, peer->shards) == peer_shard;
}

struct choice {
    uint16_t slots[EXCHANGE_SLOTS];
    uint32_t count;
    uint16_t peer_shard;
};

static void take(const struct shard *shard, const struct slot_state *state, const struct peer *peer,
                 struct choice *choice)
{
    if (choice->count < EXCHANGE_SLOTS && shares(shard, state, peer, choice->peer_shard))
        choice->slots[choice->count++] = state->slot;
}

/* The first urgent slot says which of the peer's shards the exchange is with. */
static void take_urgent(const struct shard *shard, const struct slot_state *state, const struct peer *peer,
                        struct choice *choice)
{
    if (choice->count == 0)
        choice->peer_shard = slot_shard(state->slot, peer->shards);
    take(shard, state, peer, choice);
}

static bool start(struct shard *shard, const struct peer *peer, const struct choice *choice)
{
    struct repairing *repairing = &shard->repairing;
    struct initiating *initiating = &repairing->initiating;
    struct exchange_options options = {
        .alloc = &shard->alloc,
        .merkle = &repairing->merkle,
        .session = ++initiating->session,
        .started_us = shard->now.mono_us,
        .slots = choice->slots,
        .slot_count = choice->count,
    };
    initiating->exchange = exchange_start(&options);
    if (initiating->exchange == NULL)
        return false;
    initiating->node = peer->node;
    initiating->peer_shard = (uint8_t)choice->peer_shard;
    initiating->started = slots_now(shard);
    initiating->sent = false;
    initiating->tries = 0;
    initiating->merging = 0;
    initiating->settling = 0;
    initiating->merges_given = false;
    initiating->merge_failed = false;
    initiating->given_up = false;
    initiating->ending = false;
    buf_clear(&initiating->floors);
    buf_clear(&initiating->peer_floors);
    for (uint32_t i = 0; i < choice->count; i++) {
        floors_put(shard, &initiating->floors, choice->slots[i]);
        /* A mark that comes while the exchange is at work marks the slot anew. */
        (void)hints_sync_begin(&repairing->handoff.books, peer->node, choice->slots[i]);
    }
    repairing->counters.exchanges++;
    repairing->counters.exchange_slots += choice->count;
    return true;
}

static bool usable(struct shard *shard, const struct peer *peer)
{
    return peer->shards > 0 && node_reachable(shard, peer->index);
}

/* Slots that do not serve, and have not been compared with this peer since. */
static void choose_healing(const struct shard *shard, const struct peer *peer, struct choice *choice)
{
    const struct slots *slots = &shard->repairing.slots;
    for (uint32_t i = 0; i < slots->count && choice->count < EXCHANGE_SLOTS; i++) {
        const struct slot_state *state = &slots->states[i];
        if (!storage_slot_quarantined(shard, state->slot) ||
            slot_verified(shard, state, peer->index) > state->tainted)
            continue;
        if (ring_replicates(shard->ring, state->slot, peer->index))
            take_urgent(shard, state, peer, choice);
    }
}

static void choose_flagged(const struct shard *shard, const struct peer *peer, struct choice *choice)
{
    const struct hints *books = &shard->repairing.handoff.books;
    for (uint16_t slot = hints_sync_next(books, peer->node, 0);
         slot < SLOTS_COUNT && choice->count < EXCHANGE_SLOTS;
         slot = hints_sync_next(books, peer->node, (uint16_t)(slot + 1))) {
        const struct slot_state *state = slot_state_of(shard, slot);
        if (state != NULL && ring_replicates(shard->ring, slot, peer->index))
            take_urgent(shard, state, peer, choice);
    }
}

static bool start_urgent(struct shard *shard)
{
    struct choice choice;
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        struct peer *peer = &shard->peers[i];
        if (!usable(shard, peer) || shard->now.mono_us < peer->urgent_us)
            continue;
        choice.count = 0;
        if (shard->quarantine_any)
            choose_healing(shard, peer, &choice);
        if (choice.count == 0)
            choose_flagged(shard, peer, &choice);
        if (choice.count == 0)
            continue;
        /* Others get their turn, should this one come to nothing. */
        peer->urgent_us = shard->now.mono_us + URGENT_RETRY_US;
        if (start(shard, peer, &choice))
            return true;
    }
    return false;
}

/* About how many exchanges a round takes. */
static uint64_t round_batches(const struct shard *shard)
{
    const struct slots *slots = &shard->repairing.slots;
    uint64_t pairs = (uint64_t)slots->count * slots->others;
    return pairs / EXCHANGE_SLOTS + shard->peer_count + 1;
}

/* The next slots of the round: for each peer, for each of its shards, the slots that both hold. False when the round
 * has come to its end. */
static bool start_next(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    const struct slots *slots = &repairing->slots;
    struct choice choice = {0};
    /* What the other side compared lately is left out: each pair of replicas is compared about once. */
    decisecond interval = shard->options.healing.repair_interval_ms / DECISECOND_MS;
    decisecond now = slots_now(shard);
    decisecond recent = now > interval / 2 ? now - interval / 2 : 0;
    uint32_t looks = ROUND_LOOKS_MAX;
    for (; repairing->round_peer < shard->peer_count; repairing->round_peer++, repairing->round_shard = 0) {
        const struct peer *peer = &shard->peers[repairing->round_peer];
        if (!usable(shard, peer))
            continue;
        for (; repairing->round_shard < peer->shards; repairing->round_shard++, repairing->round_slot = 0) {
            choice.peer_shard = repairing->round_shard;
            while (repairing->round_slot < slots->count && choice.count < EXCHANGE_SLOTS && looks-- > 0) {
                const struct slot_state *state = &slots->states[repairing->round_slot++];
                if (slot_verified(shard, state, peer->index) <= recent && !heal_scan_hopeless(shard, state))
                    take(shard, state, peer, &choice);
            }
            if (choice.count > 0)
                return start(shard, peer, &choice);
            if (repairing->round_slot < slots->count)
                return false; /* and goes on from here */
        }
    }
    repairing->round_peer = 0;
    repairing->rounds++;
    repairing->round_began_us = shard->now.mono_us;
    return false;
}

static void choose(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    if (!shard->options.healing.repair || shard->now.mono_us < repairing->look_us || start_urgent(shard))
        return;
    /* Urgent work is looked for once per tick when there is none. */
    repairing->look_us = shard->now.mono_us + TICK_INTERVAL_US;
    if (shard->now.mono_us >= repairing->round_next_us) {
        repairing->round_next_us = shard->now.mono_us + (uint64_t)shard->options.healing.repair_interval_ms *
                                                            1000 / round_batches(shard);
        (void)start_next(shard); /* a round that ended begins anew in its time */
    }
    if (repairing->round_next_us < repairing->look_us)
        repairing->look_us = repairing->round_next_us;
}

uint64_t antientropy_due_us(const struct shard *shard)
{
    const struct repairing *repairing = &shard->repairing;
    if (repairing->initiating.exchange != NULL || !shard->options.healing.repair)
        return UINT64_MAX;
    return repairing->look_us;
}

/* ---- one exchange --------------------------------------------------------------------------------------- */

static void count(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    const struct exchange_counters *counters = exchange_counters(initiating->exchange);
    struct repair_counters *total = &shard->repairing.counters;
    total->bytes_sent += counters->bytes_sent;
    total->bytes_received += counters->bytes_received;
    total->records_sent += counters->records_sent;
    total->rows_read += counters->rows_read;
}

/* The other side learns what is equal, and need not compare it by itself. Body: u16 slots that are not. */
static void tell_done(struct shard *shard, struct peer *peer)
{
    const struct initiating *initiating = &shard->repairing.initiating;
    struct buf *out = peer_output(peer);
    struct buf body;
    if (out == NULL)
        return;
    buf_init(&body, &shard->alloc);
    for (uint32_t i = 0; i < exchange_slot_count(initiating->exchange); i++) {
        struct exchange_slot_result result = exchange_slot_result(initiating->exchange, i);
        if (!result.verified)
            buf_put_u16(&body, result.slot);
    }
    if (!body.failed)
        frame_put_raw(out, FRAME_REPAIR_DONE,
                      frame_head_of(shard, initiating->peer_shard, initiating->session), buf_span(&body));
    out->failed = false;
    buf_free(&body);
}

static void finish(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    struct initiating *initiating = &repairing->initiating;
    struct exchange *exchange = initiating->exchange;
    struct peer *peer = peer_of_node(shard, initiating->node);
    bool whole =
        exchange_state(exchange) == EXCHANGE_DONE && !initiating->merge_failed && !initiating->given_up;
    count(shard);
    repairing->counters.exchanges_failed += !whole;
    bool all_verified = whole;
    for (uint32_t i = 0; i < exchange_slot_count(exchange); i++) {
        struct exchange_slot_result result = exchange_slot_result(exchange, i);
        bool verified = result.verified && !initiating->merge_failed && peer != NULL;
        repairing->counters.slots_differed += result.differed;
        all_verified = all_verified && verified;
        if (verified)
            slot_note_verified(shard, result.slot, peer->index, initiating->started);
        marks_compared(shard, initiating->node, result.slot, verified);
    }
    if (peer != NULL && whole)
        tell_done(shard, peer);
    /* Else what is urgent and cannot be done is tried again after a while. */
    if (peer != NULL && all_verified)
        peer->urgent_us = 0;
    if (initiating->scan != NULL)
        scan_stop(shard, initiating->scan);
    initiating->scan = NULL;
    exchange_free(exchange);
    initiating->exchange = NULL;
    repairing->look_us = 0;
}

/* Slots that were done with stay verified, or one that cannot be read would keep the others of its exchange from it. */
static void give_up(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    initiating->merge_failed |= initiating->merging > 0 || initiating->settling > 0;
    initiating->given_up = true;
    finish(shard);
}

static void send_message(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    struct peer *peer = peer_of_node(shard, initiating->node);
    struct buf *out = peer_output(peer);
    struct exchange_head head;
    struct span message = exchange_message(initiating->exchange);
    struct span none = {0};
    if (out == NULL) {
        give_up(shard);
        return;
    }
    enum status status = exchange_read_head(message, &head);
    assert(status == STATUS_OK);
    struct buf body;
    buf_init(&body, &shard->alloc);
    floors_put_list(&body, head.type == EXCHANGE_RECORDS ? buf_span(&initiating->floors) : none);
    buf_append_span(&body, message);
    if (!body.failed)
        frame_put_raw(out, FRAME_REPAIR, frame_head_of(shard, initiating->peer_shard, initiating->session),
                      buf_span(&body));
    spend(shard, body.size);
    out->failed = false;
    buf_free(&body);
    initiating->sent = true;
    initiating->sent_us = shard->now.mono_us;
    initiating->tries++;
}

static void give_merges(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    struct replica_origin origin = {.kind = ORIGIN_INITIATING, .request = initiating->session};
    struct exchange_record record;
    initiating->merges_given = true;
    initiating->merging =
        1; /* the loop itself, so that the last answer cannot come before the last question */
    while (exchange_merge_next(initiating->exchange, &record)) {
        initiating->merging++;
        repair_merge(shard, &record, buf_span(&initiating->peer_floors), &origin);
    }
    initiating->merging--;
}

/* The exchange goes on only once what waits for the log by this origin is durable. */
struct replica_origin initiating_settles(struct initiating *initiating)
{
    initiating->settling++;
    return (struct replica_origin){.kind = ORIGIN_INITIATING,
                                   .request = initiating->session | INITIATING_SETTLES_BIT};
}

/* What was compared here may be in memory only: the other side may purge by the word that this one holds it. */
static void end(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    if (!initiating->ending) {
        initiating->ending = true;
        struct replica_origin origin = initiating_settles(initiating);
        struct replica_answer durable = {.kind = TASK_PUT, .status = STATUS_OK};
        wait_durable(shard, log_last(shard), &origin, &durable);
    }
    if (initiating->settling == 0)
        finish(shard);
}

void initiating_merged(struct shard *shard, uint64_t session, enum status status)
{
    struct initiating *initiating = &shard->repairing.initiating;
    bool settles = (session & INITIATING_SETTLES_BIT) != 0;
    uint32_t *left = settles ? &initiating->settling : &initiating->merging;
    if (initiating->exchange == NULL || (session & ~INITIATING_SETTLES_BIT) != initiating->session)
        return;
    assert(*left > 0);
    (*left)--;
    initiating->merge_failed |= status != STATUS_OK && status != STATUS_PURGED;
}

static void read_need(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    struct exchange_need need;
    bool needed = exchange_need(initiating->exchange, 0, &need);
    assert(needed);
    initiating->scan = scan_need(shard, SCAN_EXCHANGE, NULL, &need);
    if (initiating->scan == NULL)
        give_up(shard);
}

void initiating_row(struct shard *shard, struct span key, struct span record)
{
    exchange_row(shard->repairing.initiating.exchange, key, record);
}

void initiating_read(struct shard *shard, enum status status)
{
    struct initiating *initiating = &shard->repairing.initiating;
    struct exchange_need need;
    initiating->scan = NULL;
    bool needed = exchange_need(initiating->exchange, 0, &need);
    assert(needed);
    if (status == STATUS_CORRUPT) {
        heal_scan_damaged(shard, need.slot);
        /* What cannot be read of a slot that does not serve is absent: the other side sends it. */
        if (storage_slot_quarantined(shard, need.slot))
            status = STATUS_OK;
    }
    if (status != STATUS_OK) {
        give_up(shard);
        return;
    }
    exchange_need_done(initiating->exchange);
    if (exchange_state(initiating->exchange) == EXCHANGE_READING)
        read_need(shard);
}

/* Goes on as far as it can: one step of the exchange, or none. */
static void step(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    if (initiating->settling > 0)
        return;
    switch (exchange_state(initiating->exchange)) {
    case EXCHANGE_READING:
        if (initiating->scan == NULL)
            read_need(shard);
        return;
    case EXCHANGE_SENDING:
        if (!initiating->sent) {
            if (budget_left(shard))
                send_message(shard);
        } else if (shard->now.mono_us - initiating->sent_us > ANSWER_TIMEOUT_US) {
            if (initiating->tries < SENDS_MAX)
                send_message(shard);
            else
                give_up(shard);
        }
        return;
    case EXCHANGE_MERGING:
        if (!initiating->merges_given)
            give_merges(shard);
        if (initiating->merging > 0)
            return;
        initiating->merges_given = false;
        if (initiating->merge_failed)
            finish(shard);
        else
            exchange_merged(initiating->exchange);
        return;
    case EXCHANGE_DONE:
        end(shard);
        return;
    case EXCHANGE_FAILED:
        finish(shard);
        return;
    }
}

enum status initiating_answer(struct shard *shard, uint64_t node, const struct frame *frame)
{
    struct initiating *initiating = &shard->repairing.initiating;
    struct reader reader = reader_of(frame->body);
    struct span floors;
    struct exchange_head head;
    if (floors_read(&reader, &floors) != STATUS_OK)
        return STATUS_MALFORMED;
    if (initiating->exchange == NULL || node != initiating->node || frame->request != initiating->session ||
        exchange_state(initiating->exchange) != EXCHANGE_SENDING)
        return STATUS_OK; /* late, or a duplicate */
    spend(shard, frame->body.size);
    buf_clear(&initiating->peer_floors);
    buf_append_span(&initiating->peer_floors, floors);
    if (initiating->peer_floors.failed) {
        give_up(shard);
        return STATUS_OK;
    }
    floors_adopt(shard);
    if (floors_drop_refused(shard, &reader) != STATUS_OK)
        return STATUS_MALFORMED;
    struct span message = reader_bytes(&reader, reader_left(&reader));
    if (exchange_read_head(message, &head) != STATUS_OK)
        return STATUS_MALFORMED;
    enum status status = exchange_answer(initiating->exchange, message);
    if (status == STATUS_MALFORMED)
        return STATUS_MALFORMED;
    if (status != STATUS_NOT_FOUND) {
        initiating->sent = false;
        initiating->tries = 0;
    }
    return STATUS_OK;
}

void antientropy_turn_end(struct shard *shard)
{
    struct initiating *initiating = &shard->repairing.initiating;
    /* After one that ends the next begins at once: nothing else may come to wake this shard. */
    for (uint32_t i = 0; i < 2; i++) {
        if (initiating->exchange == NULL)
            choose(shard);
        if (initiating->exchange == NULL)
            return;
        step(shard);
        if (initiating->exchange != NULL)
            return;
    }
}

/* Whether the exchange can go on in another turn without anything happening. */
bool antientropy_runs(const struct shard *shard)
{
    const struct initiating *initiating = &shard->repairing.initiating;
    if (initiating->exchange == NULL || initiating->settling > 0)
        return false;
    switch (exchange_state(initiating->exchange)) {
    case EXCHANGE_READING:
        return initiating->scan == NULL;
    case EXCHANGE_SENDING:
        return !initiating->sent && shard->repairing.budget_bytes > 0;
    case EXCHANGE_MERGING:
        return initiating->merging == 0;
    case EXCHANGE_DONE:
    case EXCHANGE_FAILED:
        return true;
    }
    return false;
}

void antientropy_ring_changed(struct shard *shard)
{
    shard->repairing.initiating.merge_failed =
        true; /* whom it was with is not in the table of slots any more */
    if (shard->repairing.initiating.exchange != NULL)
        give_up(shard);
    shard->repairing.round_peer = 0;
    shard->repairing.round_shard = 0;
    shard->repairing.round_slot = 0;
}

void antientropy_node_down(struct shard *shard, uint64_t node)
{
    if (shard->repairing.initiating.exchange != NULL && shard->repairing.initiating.node == node)
        give_up(shard);
}

void antientropy_node_up(struct shard *shard, uint64_t node)
{
    struct peer *peer = peer_of_node(shard, node);
    if (peer != NULL)
        peer->urgent_us = 0;
    shard->repairing.look_us = 0;
}
