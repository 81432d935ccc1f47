/* Hinted handoff: writes that replicas missed, kept here as rows of a reserved range and replayed.
 *
 * The coordinator of a write keeps a hint for every replica that did not acknowledge it by its deadline; a fallback
 * keeps one for the replica it stands in for (a sloppy write). A hint is an ordinary row: logged, flushed, recovered.
 * Its version is the write's own, so replaying it late or twice does no harm (DESIGN section 6; PROTOCOLS C).
 *
 * A hint is erased only once its target holds it durably, and only if it is still the version that was sent. */
#include <assert.h>

#include "shard/state.h"

/* Numbers in frames that are answers to replayed hints: the top bit, then the target's place in the ring plus one (0:
 * it is no member any more), then the hint's id, moved by a number drawn at the start: an answer to an earlier process,
 * or from before the ring changed, names no hint of this one. */
#define HINT_NUMBER_BIT (UINT64_C(1) << 63)
#define HINT_TARGET_SHIFT 46
#define HINT_ID_MASK ((UINT64_C(1) << HINT_TARGET_SHIFT) - 1)

/* Replayed hints that nobody answers for so long are sent again. */
#define REPLAY_SILENCE_US 10000000u

#define REPLAY_BURST_MS 250u
#define REPLAY_PASS_PAUSE_US 1000000u

void handoff_init(struct shard *shard)
{
    uint64_t rate = shard->options.healing.hint_bytes_per_s / shard->options.shards + 1;
    struct hints_options options = {
        .alloc = &shard->alloc,
        .bytes_max = shard->options.healing.hint_bytes_max / shard->options.shards,
        .replay_bytes_per_s = rate,
        .replay_burst_bytes = rate * REPLAY_BURST_MS / 1000 + 1,
        .pass_pause_us = REPLAY_PASS_PAUSE_US,
    };
    hints_init(&shard->repairing.handoff.books, &options);
    buf_init(&shard->repairing.handoff.counted, &shard->alloc);
    shard->repairing.handoff.number_base = prng_u64(&shard->prng) & HINT_ID_MASK;
}

/* Once recovery is over: is there anything to count? */
void handoff_start(struct shard *shard)
{
    struct memtable_slot_cursor cursor = {0};
    shard->repairing.handoff.unknown =
        !shard->cold_empty || memtable_slot_dirty(&shard->memtable, SLOTS_COUNT, &cursor) != NULL;
    marks_sweep(shard);
}

void handoff_free(struct shard *shard)
{
    buf_free(&shard->repairing.handoff.counted);
    hints_free(&shard->repairing.handoff.books);
}

static struct hints *books_of(struct shard *shard)
{
    return &shard->repairing.handoff.books;
}

/* ---- rows ----------------------------------------------------------------------------------------------- */

/* What the hint row holds: the record of a write, or nothing. */
static void read_hint(struct span bytes, uint8_t *flags, struct span *record)
{
    *flags = 0;
    *record = (struct span){0};
    if (bytes.size > 0 && hint_row_read(bytes, flags, record) != STATUS_OK)
        *record = (struct span){0}; /* damaged: what it was for is anti-entropy's now */
}

/* A hint of a write so old that it may have been purged since would bring back the dead: the slot is compared
 * instead. */
static bool past_every_deadline(const struct shard *shard, const struct record *record)
{
    uint64_t last_ms = stamp_ms(record_stamp_max(record)) + shard->options.healing.request_timeout_max_ms +
                       shard->options.clock_skew_max_ms;
    return shard->now.wall_ms > last_ms;
}

static enum status store_hint(struct shard *shard, const struct task *task, const struct hint_key *hint,
                              const struct held *held, struct span row)
{
    uint64_t before = held->record.size == 0 ? 0 : task->key.size + held->record.size;
    struct hint_change change = {.target = hint->target,
                                 .slot = hint->slot,
                                 .counted = (row.data[0] & HINT_COUNTED) != 0,
                                 .bytes_before = before,
                                 .bytes_after = task->key.size + row.size};
    uint32_t marks = hints_target(books_of(shard), hint->target).syncs;
    enum hint_verdict verdict = hints_add(books_of(shard), &change);
    if (verdict == HINT_SYNC)
        marks_converted(shard, hint->target, hint->slot, marks);
    if (verdict != HINT_STORE)
        return STATUS_OVERLOADED;
    struct stored stored = {
        .slot = hint->slot, .reserved = true, .key = task->key, .record = row, .in_cold = held->in_cold};
    enum status status = storage_store(shard, &stored);
    if (status == STATUS_OK) {
        shard->repairing.handoff.stored++;
        shard->repairing.handoff.again_us = 0;
        return STATUS_OK;
    }
    change = (struct hint_change){.target = hint->target,
                                  .slot = hint->slot,
                                  .bytes_before = change.bytes_after,
                                  .bytes_after = before};
    enum status booked = hints_book(books_of(shard), &change);
    assert(booked == STATUS_OK); /* the target has its account */
    marks_set(shard, hint->target, hint->slot);
    return status;
}

void handoff_put(struct shard *shard, const struct task *task, const struct held *held)
{
    struct hint_key hint;
    struct span held_bytes;
    struct record before;
    struct record incoming;
    uint8_t flags;
    enum status status = hint_key_read(task->key, &hint);
    assert(status == STATUS_OK);
    status = record_parse(task->record, &incoming);
    assert(status == STATUS_OK);
    read_hint(held->record, &flags, &held_bytes);
    status = record_parse(held_bytes, &before);
    assert(status == STATUS_OK);
    struct record merged = record_merge(&before, &incoming);
    struct replica_answer answer = {.kind = TASK_PUT, .version = record_version(&merged)};
    uint64_t sequence = held->sequence;
    uint8_t flags_wanted = (uint8_t)(flags | (task->counted ? HINT_COUNTED : 0));
    if (shard->repairing.handoff.unknown || past_every_deadline(shard, &merged)) {
        shard->repairing.handoff.discarded++;
        marks_set(shard, hint.target, hint.slot);
        answer.status = shard->repairing.handoff.unknown ? STATUS_STARTING : STATUS_EXPIRED;
    } else if (!version_equal(record_version(&before), answer.version) || flags != flags_wanted) {
        struct buf bytes;
        struct buf row;
        buf_init(&bytes, &shard->alloc);
        buf_init(&row, &shard->alloc);
        record_put(&bytes, &merged);
        hint_row_put(&row, flags_wanted, buf_span(&bytes));
        bool made = !bytes.failed && !row.failed;
        answer.status = made ? store_hint(shard, task, &hint, held, buf_span(&row)) : STATUS_OVERLOADED;
        sequence = shard->log.open;
        buf_free(&bytes);
        buf_free(&row);
    }
    if (answer.status != STATUS_OK)
        storage_refuse(shard, task, answer.status);
    else
        wait_durable(shard, sequence, &task->origin, &answer);
}

/* A sloppy read: what a fallback holds for the replica it stands in for. That it holds nothing says nothing, and must
 * not be told to the client as "no such key" either. */
void handoff_get(struct shard *shard, const struct task *task, const struct held *held)
{
    uint8_t flags;
    struct span bytes;
    struct record record;
    read_hint(held->record, &flags, &bytes);
    enum status status = record_parse(bytes, &record);
    assert(status == STATUS_OK);
    if (record_empty(&record)) {
        storage_refuse(shard, task, shard->repairing.handoff.unknown ? STATUS_STARTING : STATUS_UNAVAILABLE);
        return;
    }
    struct replica_answer answer = {
        .kind = TASK_GET, .version = record_version(&record), .has_record = true, .record = bytes};
    wait_durable(shard, held->sequence, &task->origin, &answer);
}

void handoff_erase(struct shard *shard, const struct task *task, const struct held *held)
{
    struct hint_key hint;
    uint8_t flags;
    struct span bytes;
    struct record record;
    enum status status = hint_key_read(task->key, &hint);
    assert(status == STATUS_OK);
    read_hint(held->record, &flags, &bytes);
    status = record_parse(bytes, &record);
    assert(status == STATUS_OK);
    if (held->record.size == 0 || !version_equal(record_version(&record), task->version))
        return; /* a newer write was merged meanwhile: it is sent in the next pass */
    struct hint_change change = {
        .target = hint.target, .slot = hint.slot, .bytes_before = task->key.size + held->record.size};
    struct stored stored = {.slot = hint.slot, .reserved = true, .key = task->key, .in_cold = held->in_cold};
    if (storage_store(shard, &stored) != STATUS_OK)
        return; /* likewise */
    status = hints_book(books_of(shard), &change);
    assert(status == STATUS_OK);
}

/* ---- hints of writes coordinated here ------------------------------------------------------------------- */

void handoff_keep(struct shard *shard, uint64_t target, uint16_t slot, struct span key, struct span record)
{
    struct hint_key hint = {.target = target, .slot = slot, .key = key};
    struct buf hint_key;
    if (!shard->options.healing.hints)
        return;
    if (key.size > HINTED_KEY_BYTES_MAX) {
        marks_set(shard, hint.target, hint.slot);
        return;
    }
    buf_init(&hint_key, &shard->alloc);
    hint_key_put(&hint_key, &hint);
    if (hint_key.failed) {
        marks_set(shard, hint.target, hint.slot);
    } else {
        struct task task = {.kind = TASK_HINT_PUT,
                            .origin = {.kind = ORIGIN_NOBODY},
                            .slot = slot,
                            .key = buf_span(&hint_key),
                            .record = record};
        storage_do(shard, &task);
    }
    buf_free(&hint_key);
}

void handoff_flag(struct shard *shard, uint64_t target, uint16_t slot)
{
    if (shard->options.healing.hints)
        marks_set(shard, target, slot);
}

/* A fallback's task for another coordinator, or for one here: `hint` gets the key, which the task borrows. */
bool handoff_task(struct buf *hint, uint64_t target, struct task *task)
{
    struct hint_key key = {.target = target, .slot = task->slot, .key = task->key};
    if (task->key.size > HINTED_KEY_BYTES_MAX || target == 0)
        return false;
    hint_key_put(hint, &key);
    if (hint->failed)
        return false;
    task->key = buf_span(hint);
    task->hash = 0;
    return true;
}

/* ---- after a restart ------------------------------------------------------------------------------------ */

/* The books are not on the disk: every hint is counted once, in the background. */
static void count_hints(struct shard *shard)
{
    static const uint8_t first[2] = {RESERVED_HINT >> 8, RESERVED_HINT & 0xff};
    static const uint8_t end[12] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct handoff *handoff = &shard->repairing.handoff;
    struct scan_options options = {
        .kind = SCAN_HINTS,
        .slot = SLOTS_COUNT,
        .first = handoff->counted.size > 0 ? buf_span(&handoff->counted) : span_of(first, sizeof first),
        .end = span_of(end, sizeof end),
        .may_end_early = true,
    };
    handoff->scan = scan_start(shard, &options);
    handoff->again_us = shard->now.mono_us + TICK_INTERVAL_US;
}

static bool count_hint(struct shard *shard, struct span key, struct span row)
{
    struct handoff *handoff = &shard->repairing.handoff;
    struct hint_key hint;
    /* A hint is counted once, or the books would not hold when it is erased: all that may fail comes first. */
    if (!buf_reserve(&handoff->counted, key.size + 1)) {
        handoff->counted.failed = false;
        return false;
    }
    bool ours = hint_key_read(key, &hint) == STATUS_OK &&
                slot_shard(hint.slot, shard->options.shards) == shard->options.shard;
    struct hint_change change = {.bytes_after = key.size + row.size};
    if (ours) {
        change.target = hint.target;
        change.slot = hint.slot;
    }
    if (ours && hints_book(books_of(shard), &change) != STATUS_OK)
        return false;
    buf_clear(&handoff->counted);
    buf_append_span(&handoff->counted, key);
    buf_put_u8(&handoff->counted, 0); /* the next scan starts behind it */
    return true;
}

/* ---- replay --------------------------------------------------------------------------------------------- */

static void send_to(struct shard *shard, uint16_t node, uint64_t number, const struct hint_key *hint,
                    struct span record)
{
    struct buf *out = peer_output(peer_of_index(shard, node));
    if (out == NULL)
        return; /* its silence is noticed: the window is cleared when it goes down */
    struct frame_put put = {
        .slot = hint->slot,
        .deadline_ms = shard->now.wall_ms + shard->options.request_timeout_ms,
        .write_back = true,
        .key = hint->key,
        .record = record,
    };
    frame_put_put(out, frame_head_of(shard, FRAME_BY_SLOT, number), &put);
    out->failed = false;
}

/* To the target, or, if it replicates the slot no more, to all that do. */
static uint16_t recipients(const struct shard *shard, const struct hint_key *hint,
                           uint16_t nodes[REPLICAS_MAX])
{
    uint16_t target = ring_node_index(shard->ring, hint->target);
    if (target != RING_NODE_NONE && ring_replicates(shard->ring, hint->slot, target)) {
        nodes[0] = target;
        return 1;
    }
    memcpy(nodes, ring_replicas(shard->ring, hint->slot), ring_replica_count(shard->ring) * sizeof *nodes);
    return ring_replica_count(shard->ring);
}

bool handoff_row(struct shard *shard, struct span hint_key, struct span row)
{
    struct handoff *handoff = &shard->repairing.handoff;
    struct hint_key hint;
    struct span bytes;
    struct record record;
    uint8_t flags;
    uint64_t id;
    uint16_t nodes[REPLICAS_MAX];
    if (handoff->unknown)
        return count_hint(shard, hint_key, row);
    if (hint_key_read(hint_key, &hint) != STATUS_OK ||
        slot_shard(hint.slot, shard->options.shards) != shard->options.shard)
        return true;
    read_hint(row, &flags, &bytes);
    if (record_parse(bytes, &record) != STATUS_OK || record_empty(&record))
        return true;
    bool up = hints_target(books_of(shard), hint.target).up;
    if (!up || handoff->hints_left == 0 || handoff->bytes_left == 0)
        return false;
    uint16_t count = recipients(shard, &hint, nodes);
    struct hint_send send = {
        .target = hint.target,
        .hint_key = hint_key,
        .version = record_version(&record),
        .bytes = hint_key.size + row.size,
        .acks = (uint8_t)count,
    };
    if (hints_sent(books_of(shard), &send, shard->now.mono_us, &id) != STATUS_OK)
        return false;
    handoff->hints_left--;
    handoff->bytes_left -= handoff->bytes_left < send.bytes ? handoff->bytes_left : send.bytes;
    uint16_t place = ring_node_index(shard->ring, hint.target);
    uint64_t number = HINT_NUMBER_BIT | ((id + handoff->number_base) & HINT_ID_MASK);
    if (place != RING_NODE_NONE)
        number |= (uint64_t)(place + 1u) << HINT_TARGET_SHIFT;
    handoff->sent_us = shard->now.mono_us;
    for (uint16_t i = 0; i < count; i++) {
        if (nodes[i] == shard->self) {
            struct task task = {.kind = TASK_PUT,
                                .origin = {.kind = ORIGIN_REQUEST, .request = number},
                                .slot = hint.slot,
                                .write_back = true,
                                .key = hint.key,
                                .record = bytes};
            storage_do(shard, &task);
        } else {
            send_to(shard, nodes[i], number, &hint, bytes);
        }
    }
    return handoff->hints_left > 0 && handoff->bytes_left > 0;
}

void handoff_read(struct shard *shard, enum status status, bool truncated)
{
    struct handoff *handoff = &shard->repairing.handoff;
    handoff->scan = NULL;
    if (handoff->unknown) {
        handoff->unknown = status != STATUS_OK || truncated;
        handoff->again_us = status == STATUS_OK ? 0 : shard->now.mono_us + TICK_INTERVAL_US;
        return;
    }
    if (status == STATUS_OK && !truncated)
        hints_pass_done(books_of(shard), handoff->target, shard->now.mono_us);
    if (status != STATUS_OK)
        handoff->again_us = shard->now.mono_us + TICK_INTERVAL_US;
}

static void erase_hint(struct shard *shard, const struct hint_done *done)
{
    struct hint_key hint;
    struct buf key;
    enum status status = hint_key_read(done->hint_key, &hint);
    assert(status == STATUS_OK);
    /* The view into the books would not outlive the erasing. */
    buf_init(&key, &shard->alloc);
    buf_append_span(&key, done->hint_key);
    if (!key.failed) {
        struct task task = {.kind = TASK_HINT_ERASE,
                            .origin = {.kind = ORIGIN_NOBODY},
                            .slot = hint.slot,
                            .version = done->version,
                            .key = buf_span(&key)};
        storage_do(shard, &task);
    }
    buf_free(&key);
}

/* An answer to a replayed hint; false if the number is not one of those. */
bool handoff_answered(struct shard *shard, uint64_t number, enum status status)
{
    struct handoff *handoff = &shard->repairing.handoff;
    struct hint_done done;
    if ((number & HINT_NUMBER_BIT) == 0)
        return false;
    uint64_t place = (number & ~HINT_NUMBER_BIT) >> HINT_TARGET_SHIFT;
    uint64_t id = (number - handoff->number_base) & HINT_ID_MASK;
    /* What was purged there is owed no more. */
    bool durable = status == STATUS_OK || status == STATUS_PURGED;
    for (uint64_t target = hints_target_next(books_of(shard), 0); target != 0;
         target = hints_target_next(books_of(shard), target)) {
        uint16_t node = ring_node_index(shard->ring, target);
        uint64_t place_now = node == RING_NODE_NONE ? 0 : node + UINT64_C(1);
        if (place_now != place || hints_answered(books_of(shard), target, id, durable, &done) != STATUS_OK)
            continue;
        handoff->again_us = 0;
        handoff->sent_us = shard->now.mono_us;
        if (done.erase)
            erase_hint(shard, &done);
        return true;
    }
    return true;
}

static bool target_up(struct shard *shard, uint64_t target)
{
    uint16_t node = ring_node_index(shard->ring, target);
    return node == RING_NODE_NONE || node == shard->self || node_reachable(shard, node);
}

/* Where replay of this target can go on: from its cursor. */
static bool replay(struct shard *shard, uint64_t target, const struct hint_turn *turn)
{
    struct handoff *handoff = &shard->repairing.handoff;
    struct buf first;
    struct buf end;
    buf_init(&first, &shard->alloc);
    buf_init(&end, &shard->alloc);
    hint_range_put(&first, &end, target);
    if (turn->after.size > 0) {
        buf_clear(&first);
        buf_append_span(&first, turn->after);
        buf_put_u8(&first, 0);
    }
    if (!first.failed && !end.failed) {
        struct scan_options options = {
            .kind = SCAN_HINTS,
            .slot = SLOTS_COUNT,
            .first = buf_span(&first),
            .end = buf_span(&end),
            .may_end_early = true,
        };
        handoff->bytes_left = turn->bytes;
        handoff->hints_left = turn->hints;
        handoff->target = target;
        handoff->scan = scan_start(shard, &options);
    }
    buf_free(&first);
    buf_free(&end);
    return handoff->scan != NULL;
}

/* Dirty hints in memory, erased ones included, beyond which a flush is worth it. */
#define REPLAY_DIRTY_ROWS_MAX (64u << 10)

/* Nanoseconds until the next scan for each row that this one walked over: about a tenth of the time goes there. */
#define REPLAY_PAUSE_NS_PER_ROW 500u

static void pace(struct shard *shard)
{
    const struct memtable_counters *rows = memtable_counters(&shard->memtable);
    uint64_t walked = rows->rows_reserved < rows->rows_dirty ? rows->rows_reserved : rows->rows_dirty;
    shard->repairing.handoff.scan_us = shard->now.mono_us + walked * REPLAY_PAUSE_NS_PER_ROW / 1000;
    if (walked > REPLAY_DIRTY_ROWS_MAX)
        shard->flush.wanted = true;
}

uint64_t handoff_due_us(const struct shard *shard)
{
    const struct handoff *handoff = &shard->repairing.handoff;
    bool waits = handoff->scan != NULL || (handoff->books.count == 0 && !handoff->unknown);
    return waits ? UINT64_MAX : handoff->again_us;
}

void handoff_turn_end(struct shard *shard)
{
    struct handoff *handoff = &shard->repairing.handoff;
    uint64_t now_us = shard->now.mono_us;
    if (handoff->scan != NULL || now_us < handoff->again_us)
        return;
    if (handoff->unknown) {
        count_hints(shard);
        return;
    }
    if (books_of(shard)->count == 0)
        return;
    handoff->again_us = now_us + TICK_INTERVAL_US;
    bool silent = now_us - handoff->sent_us > REPLAY_SILENCE_US;
    uint64_t target = handoff->target;
    do {
        target = hints_target_next(books_of(shard), target);
        if (target == 0)
            continue; /* from the first one on */
        bool up = target_up(shard, target);
        if (silent && hints_target(books_of(shard), target).window > 0)
            hints_target_up(books_of(shard), target, false, now_us);
        hints_target_up(books_of(shard), target, up, now_us);
        struct hint_turn turn = hints_turn(books_of(shard), target, now_us);
        /* A scan costs a walk over the dirty reserved rows, so it is for many hints, and for a share of the time. */
        bool worth = turn.hints >= HINT_WINDOW_MAX / 2;
        if (turn.send && worth && now_us < handoff->scan_us) {
            handoff->again_us = handoff->scan_us < handoff->again_us ? handoff->scan_us : handoff->again_us;
            continue;
        }
        if (turn.send && worth && replay(shard, target, &turn)) {
            pace(shard);
            return;
        }
        if (turn.again_at_us < handoff->again_us)
            handoff->again_us = turn.again_at_us;
    } while (target != handoff->target);
}

void handoff_node_changed(struct shard *shard, uint64_t node, bool up)
{
    hints_target_up(books_of(shard), node, up, shard->now.mono_us);
    shard->repairing.handoff.again_us = 0;
}

/* Places in the ring name the targets of what is under way. */
void handoff_ring_changed(struct shard *shard)
{
    for (uint64_t target = hints_target_next(books_of(shard), 0); target != 0;
         target = hints_target_next(books_of(shard), target))
        hints_target_up(books_of(shard), target, false, shard->now.mono_us);
    shard->repairing.handoff.number_base = prng_u64(&shard->prng) & HINT_ID_MASK;
    shard->repairing.handoff.again_us = 0;
    marks_sweep(shard);
}
