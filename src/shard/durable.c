/* Durability: the log batch that a turn gathers, the answers that wait for it, and flushing to the cold tier.
 *
 * Invariant 5 is kept here: an answer that rests on a row leaves only when the log is durable up to the batch
 * that carries the row's last change. Waiting answers form one queue in the order of those batches, so a
 * durable event costs nothing but the answers it releases. */
#include <assert.h>
#include <inttypes.h>

#include "shard/state.h"

/* Stamps wanted within this time keep the persisted clock bound ahead of the clock. */
#define STAMPING_LATELY_US 1000000u

/* A flush starts when this share of the row memory is dirty, or the oldest change is this old: a quiet shard must
 * not hold on to log segments for ever. */
#define FLUSH_DIRTY_DIVISOR 3u
#define FLUSH_AGE_US 10000000u
#define FLUSH_RETRY_US 1000000u

/* A job for which there was no memory is tried again at half the size, after upkeep had some turns; after so many that
 * had it, twice as large a one is tried again. */
#define FLUSH_SMALLER_US 10000u
#define FLUSH_GOOD_JOBS 16u

/* One flush is about this part of the row memory, so that its frozen rows cannot fill it. */
#define FLUSH_JOB_DIVISOR 4u

/* Rows made clean, or dirty as before, per turn after a flush: well below a millisecond. */
#define FLUSH_SETTLE_ROWS 2048u

/* A payload buffer that grew past this is given back after its turn. */
#define LOG_PAYLOAD_KEEP_BYTES (1u << 20)

static bool waiter_room(struct shard *shard);

/* ---- the open batch ------------------------------------------------------------------------------------- */

bool log_reserve(struct shard *shard, size_t bytes)
{
    struct buf *payload = &shard->log.payload;
    uint64_t waiting = shard->log.unsynced_bytes + payload->size;
    uint64_t bytes_max = shard->options.memory_bytes / LOG_UNSYNCED_DIVISOR;
    if (bytes_max > LOG_UNSYNCED_BYTES_MAX)
        bytes_max = LOG_UNSYNCED_BYTES_MAX;
    /* An empty log takes anything, so the largest row is never locked out. */
    if (waiting > 0 && waiting + bytes > bytes_max)
        return false;
    /* Nothing is appended whose answer could not wait. */
    if (!waiter_room(shard))
        return false;
    if (buf_reserve(payload, bytes))
        return true;
    payload->failed = false;
    return false;
}

uint64_t log_last(const struct shard *shard)
{
    const struct log_state *log = &shard->log;
    return log->payload.size > 0 && !log->emitted ? log->open : log->open - 1;
}

static struct batch_note *note_at(struct log_state *log, uint32_t index)
{
    return &log->notes[(log->notes_first + index) & (log->notes_capacity - 1)];
}

static bool note_room(struct shard *shard)
{
    struct log_state *log = &shard->log;
    if (log->notes_count < log->notes_capacity)
        return true;
    uint32_t capacity = log->notes_capacity == 0 ? 64 : log->notes_capacity * 2;
    struct batch_note *notes = alloc_get(&shard->alloc, capacity * sizeof *notes);
    if (notes == NULL)
        return false;
    for (uint32_t i = 0; i < log->notes_count; i++)
        notes[i] = *note_at(log, i);
    alloc_put(&shard->alloc, log->notes, log->notes_capacity * sizeof *notes);
    log->notes = notes;
    log->notes_capacity = capacity;
    log->notes_first = 0;
    return true;
}

static void add_bounds(struct shard *shard)
{
    struct log_state *log = &shard->log;
    bool stamping = shard->stamped_us != 0 && shard->now.mono_us - shard->stamped_us < STAMPING_LATELY_US;
    if (log->has_bounds || !buf_reserve(&log->payload, 64)) {
        log->payload.failed = false;
        return;
    }
    if (!hlc_wants_bounds(&shard->hlc, shard->now.wall_ms, stamping, &log->bounds))
        return;
    log_put_bounds(&log->payload, log->bounds);
    log->has_bounds = true;
    log->entries++;
}

static void emit_batch(struct shard *shard)
{
    struct log_state *log = &shard->log;
    /* Without room for its note the batch stays open and leaves with the next turn. */
    if (log->payload.size == 0 || !note_room(shard))
        return;
    struct effect *effect = effects_add(shard->effects, EFFECT_LOG_APPEND);
    effect->sequence = log->open;
    effect->bytes = buf_span(&log->payload);
    effect->entries = log->entries;
    effect->flag = log->has_bounds;
    log->notes_count++;
    *note_at(log, log->notes_count - 1) = (struct batch_note){
        .sequence = log->open,
        .bytes = log->payload.size,
        .given_us = shard->now.mono_us,
        .has_bounds = log->has_bounds,
        .bounds = log->bounds,
    };
    log->unsynced_bytes += log->payload.size;
    log->open++;
    log->entries = 0;
    log->has_bounds = false;
    log->emitted = true;
}

void log_turn_end(struct shard *shard)
{
    if (!shard->log.full)
        add_bounds(shard);
    emit_batch(shard);
}

void log_turn_begin(struct shard *shard)
{
    if (!shard->log.emitted)
        return;
    shard->log.emitted = false;
    if (shard->log.payload.capacity > LOG_PAYLOAD_KEEP_BYTES)
        buf_free(&shard->log.payload);
    else
        buf_clear(&shard->log.payload);
}

/* ---- waiting answers ------------------------------------------------------------------------------------ */

static struct waiter *waiter_at(struct waiter_queue *queue, uint32_t index)
{
    return &queue->items[(queue->first + index) & (queue->capacity - 1)];
}

static bool waiter_room(struct shard *shard)
{
    struct waiter_queue *queue = &shard->waiters;
    if (queue->count < queue->capacity)
        return true;
    uint32_t capacity = queue->capacity == 0 ? 64 : queue->capacity * 2;
    if (capacity > DURABLE_WAITERS_MAX)
        return false;
    struct waiter *items = alloc_get(&shard->alloc, capacity * sizeof *items);
    if (items == NULL)
        return false;
    for (uint32_t i = 0; i < queue->count; i++)
        items[i] = *waiter_at(queue, i);
    alloc_put(&shard->alloc, queue->items, queue->capacity * sizeof *items);
    queue->items = items;
    queue->capacity = capacity;
    queue->first = 0;
    return true;
}

static void cannot_wait(struct shard *shard, const struct replica_origin *origin,
                        const struct replica_answer *answer)
{
    shard->counters.overloads++;
    /* A write that was appended has no honest answer before it is durable: its coordinator's deadline answers
     * "unknown". A read has lost nothing, and an exchange begins anew; it has no deadline. */
    bool deadline = origin->node != 0 || origin->kind == ORIGIN_REQUEST;
    if (answer->kind == TASK_PUT && deadline)
        return;
    struct replica_answer refused = {.kind = answer->kind, .status = STATUS_OVERLOADED};
    replica_answered(shard, origin, &refused);
}

void wait_durable(struct shard *shard, uint64_t sequence, const struct replica_origin *origin,
                  const struct replica_answer *answer)
{
    if (sequence <= shard->log.durable) {
        replica_answered(shard, origin, answer);
        return;
    }
    struct waiter_queue *queue = &shard->waiters;
    uint8_t *record = NULL;
    bool room = waiter_room(shard);
    if (room && answer->record.size > 0) {
        record = alloc_get(&shard->alloc, answer->record.size);
        room = record != NULL;
    }
    if (!room) {
        cannot_wait(shard, origin, answer);
        return;
    }
    if (record != NULL)
        memcpy(record, answer->record.data, answer->record.size);
    /* The queue stays in order: an answer that could leave before one that is already waiting waits with it. */
    if (queue->count > 0 && waiter_at(queue, queue->count - 1)->sequence > sequence)
        sequence = waiter_at(queue, queue->count - 1)->sequence;
    queue->count++;
    struct waiter *waiter = waiter_at(queue, queue->count - 1);
    *waiter = (struct waiter){.sequence = sequence, .origin = *origin, .answer = *answer, .record = record};
    waiter->answer.record.data = record;
}

void wait_durable_quarantine(struct shard *shard)
{
    struct waiter_queue *queue = &shard->waiters;
    for (uint32_t i = 0; i < queue->count; i++) {
        struct replica_answer *answer = &waiter_at(queue, i)->answer;
        if (answer->kind == TASK_GET && answer->status == STATUS_OK)
            answer->status = STATUS_QUARANTINED;
    }
}

static void release_waiters(struct shard *shard)
{
    struct waiter_queue *queue = &shard->waiters;
    while (queue->count > 0 && waiter_at(queue, 0)->sequence <= shard->log.durable) {
        /* Taken out first: answering may add waiters. */
        struct waiter waiter = *waiter_at(queue, 0);
        queue->first = (queue->first + 1) & (queue->capacity - 1);
        queue->count--;
        replica_answered(shard, &waiter.origin, &waiter.answer);
        alloc_put(&shard->alloc, waiter.record, waiter.answer.record.size);
    }
}

void log_durable(struct shard *shard, uint64_t sequence)
{
    struct log_state *log = &shard->log;
    assert(sequence < log->open);
    if (sequence <= log->durable)
        return;
    log->durable = sequence;
    while (log->notes_count > 0 && note_at(log, 0)->sequence <= sequence) {
        const struct batch_note *note = note_at(log, 0);
        log->unsynced_bytes -= note->bytes;
        metrics_event(shard, METRICS_TIME_LOG, WATCH_LOG_SYNC, note->given_us);
        if (note->has_bounds)
            hlc_bounds_durable(&shard->hlc, note->bounds);
        log->notes_first = (log->notes_first + 1) & (log->notes_capacity - 1);
        log->notes_count--;
    }
    release_waiters(shard);
    coordinator_stamps(shard);
}

void log_free(struct shard *shard)
{
    struct waiter_queue *queue = &shard->waiters;
    for (uint32_t i = 0; i < queue->count; i++) {
        struct waiter *waiter = waiter_at(queue, i);
        alloc_put(&shard->alloc, waiter->record, waiter->answer.record.size);
    }
    alloc_put(&shard->alloc, queue->items, queue->capacity * sizeof *queue->items);
    alloc_put(&shard->alloc, shard->log.notes, shard->log.notes_capacity * sizeof *shard->log.notes);
    buf_free(&shard->log.payload);
}

/* ---- flushing ------------------------------------------------------------------------------------------- */

static bool flush_due(const struct shard *shard)
{
    const struct flush_state *flush = &shard->flush;
    const struct memtable_counters *rows = memtable_counters(&shard->memtable);
    if (rows->rows_dirty == 0 || shard->now.mono_us < flush->retry_us)
        return false;
    if (flush->wanted || rows->bytes_dirty > memtable_target(&shard->memtable) / FLUSH_DIRTY_DIVISOR)
        return true;
    return shard->now.mono_us - flush->clean_us > FLUSH_AGE_US;
}

static void flush_start(struct shard *shard)
{
    struct flush_state *flush = &shard->flush;
    uint64_t bytes_max = memtable_target(&shard->memtable) / FLUSH_JOB_DIVISOR;
    if (flush->bytes_max != 0 && flush->bytes_max < bytes_max)
        bytes_max = flush->bytes_max;
    if (memtable_freeze(&shard->memtable, &flush->job, bytes_max, shard->log.open - 1) != STATUS_OK)
        return;
    flush->running = true;
    flush->begun_us = shard->now.mono_us;
    /* What a small job leaves does not wait for its age. */
    flush->wanted =
        flush->bytes_max != 0 && flush->job.rows < memtable_counters(&shard->memtable)->rows_dirty;
    flush->trees_at = 0;
    flush->trees_done = false;
    flush->given_out = false;
    /* From here on a row may be in the cold tier and nowhere else. */
    shard->cold_empty = false;
    shard->counters.flushes++;
}

/* The job takes its memory from what rows may not have; where that is too little for so many of them, fewer go. */
static void flush_lacks_memory(struct shard *shard)
{
    struct flush_state *flush = &shard->flush;
    uint64_t half = memtable_job_half(&flush->job);
    if (half == 0) {
        flush_done(shard, STATUS_OVERLOADED);
        return;
    }
    say(shard, SAY_DEBUG, "no memory to flush %" PRIu64 " rows at once; trying half as many",
        flush->job.rows);
    trees_flush_over(shard, false);
    flush->failing = true;
    flush->wanted = true;
    flush->good = 0;
    flush->bytes_max = half;
    flush->retry_us = shard->now.mono_us + FLUSH_SMALLER_US;
}

static void flush_had_memory(struct shard *shard)
{
    struct flush_state *flush = &shard->flush;
    if (flush->bytes_max == 0 || ++flush->good < FLUSH_GOOD_JOBS)
        return;
    flush->good = 0;
    flush->bytes_max *= 2;
    if (flush->bytes_max >= memtable_target(&shard->memtable) / FLUSH_JOB_DIVISOR)
        flush->bytes_max = 0;
}

/* The trees of the slots that changed go with the rows, a slice per turn. */
static void flush_add_trees(struct shard *shard)
{
    struct flush_state *flush = &shard->flush;
    if (!flush->running || flush->failing || flush->trees_done)
        return;
    if (!trees_flush_slice(shard, TREES_PER_TURN)) {
        flush_lacks_memory(shard);
        return;
    }
    if (flush->trees_at < shard->repairing.slots.count)
        return;
    flush->trees_done = true;
    flush_had_memory(shard);
    flush->held_for = log_last(shard);
}

/* Nothing goes cold before the log has it: after a power loss an older version from the log would stand in memory
 * and hide the newer one in the cold tier, which had been answered from there. A tree counts rows up to the moment it
 * was written, so the log must be durable up to then. */
static void flush_give_out(struct shard *shard)
{
    struct flush_state *flush = &shard->flush;
    if (!flush->running || flush->failing || !flush->trees_done || flush->given_out ||
        flush->held_for > shard->log.durable)
        return;
    flush->given_out = true;
    effects_add(shard->effects, EFFECT_FLUSH)->job = &flush->job;
}

/* Tells the world how far the log is not needed any more. */
static void tell_flushed(struct shard *shard)
{
    struct log_state *log = &shard->log;
    uint64_t flushed = memtable_flushed_sequence(&shard->memtable, log->open - 1);
    /* Not past what is durable: a batch that is still being written is nobody's to forget. */
    if (flushed > log->durable)
        flushed = log->durable;
    if (flushed <= log->flushed)
        return;
    log->flushed = flushed;
    effects_add(shard->effects, EFFECT_LOG_FLUSHED)->sequence = flushed;
}

void flush_done(struct shard *shard, enum status status)
{
    struct flush_state *flush = &shard->flush;
    assert(flush->running && !flush->settling && !flush->failing);
    trees_flush_over(shard, status == STATUS_OK);
    if (shard->now.mono_us - flush->begun_us >= shard->watch.event_us)
        latency_note(shard, WATCH_FLUSH, shard->now.mono_us - flush->begun_us);
    if (status == STATUS_OK) {
        flush->settling = true;
        return;
    }
    say(shard, SAY_WARNING, "flush to the cold tier failed (%s); trying again", status_text(status));
    flush->failing = true;
    flush->wanted = true;
    flush->retry_us = shard->now.mono_us + FLUSH_RETRY_US;
}

/* Makes a slice of the job's rows clean, or dirty as before. */
static void settle(struct shard *shard)
{
    struct flush_state *flush = &shard->flush;
    bool over = flush->failing ? memtable_flush_failed(&shard->memtable, &flush->job, FLUSH_SETTLE_ROWS)
                               : memtable_flush_done(&shard->memtable, &flush->job, FLUSH_SETTLE_ROWS);
    if (!over)
        return;
    flush->settling = false;
    flush->failing = false;
    flush->running = false;
}

bool flush_has_slices(const struct shard *shard)
{
    const struct flush_state *flush = &shard->flush;
    return flush->settling || flush->failing || (flush->running && !flush->trees_done);
}

void flush_turn_end(struct shard *shard)
{
    struct flush_state *flush = &shard->flush;
    if (flush->settling || flush->failing)
        settle(shard);
    if (memtable_counters(&shard->memtable)->rows_dirty == 0 || (flush->running && !flush->was_running))
        flush->clean_us = shard->now.mono_us;
    flush->was_running = flush->running;
    if (!flush->running && flush_due(shard))
        flush_start(shard);
    flush_add_trees(shard);
    flush_give_out(shard);
    if (!flush->running || flush->settling)
        tell_flushed(shard);
}
