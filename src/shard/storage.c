/* Rows: merging and reading them, and waiting for the cold tier.
 *
 * A task on a key whose row is not resident waits for a cold read; all tasks on that key wait behind it, in
 * order, so a write is always merged with everything this replica holds (invariant 1). Every answer then waits
 * until the log is durable up to the batch that carries the row's last change (invariant 5; durable.c). */
#include <assert.h>

#include "shard/state.h"

void storage_refuse(struct shard *shard, const struct task *task, enum status status)
{
    bool reads = task->kind == TASK_GET || task->kind == TASK_HINT_GET;
    struct replica_answer answer = {.kind = reads ? TASK_GET : TASK_PUT, .status = status};
    replica_answered(shard, &task->origin, &answer);
}

bool storage_slot_quarantined(const struct shard *shard, uint16_t slot)
{
    return shard->quarantine_any && (shard->quarantine[slot / 8] >> (slot % 8) & 1) != 0;
}

bool storage_slot_serves(const struct shard *shard, uint16_t slot)
{
    return shard->serving && !storage_slot_quarantined(shard, slot);
}

struct stamp storage_stamp(struct shard *shard, struct span key, uint32_t hash)
{
    const struct row *row = memtable_peek(&shard->memtable, key, hash);
    struct record record = {0};
    if (row == NULL || record_parse(row_record(row), &record) != STATUS_OK)
        return (struct stamp){0};
    return record_stamp_max(&record);
}

/* A write that loses to, or replaces, another actor's write of almost the same time: the two were probably
 * concurrent, and last-write-wins drops one of them. */
static bool overwrites_concurrent(const struct shard *shard, const struct record *held,
                                  const struct record *incoming)
{
    if (stamp_none(held->stamp) || stamp_none(incoming->stamp))
        return false;
    int order = stamp_compare(incoming->stamp, held->stamp);
    if (order < 0)
        return true;
    return order > 0 && held->stamp.actor != incoming->stamp.actor &&
           stamp_ms(incoming->stamp) - stamp_ms(held->stamp) <= shard->options.clock_skew_max_ms;
}

/* ---- one row -------------------------------------------------------------------------------------------- */

static void answer_get(struct shard *shard, const struct task *task, const struct held *held)
{
    struct record record;
    /* Rows are validated when they enter the memtable. */
    enum status status = record_parse(held->record, &record);
    assert(status == STATUS_OK);
    struct replica_answer answer = {
        .kind = TASK_GET,
        .status = storage_slot_serves(shard, task->slot) ? STATUS_OK : STATUS_QUARANTINED,
        .version = record_version(&record),
    };
    answer.has_record = !task->digest || held->record.size <= SMALL_RECORD_BYTES_MAX;
    if (answer.has_record)
        answer.record = held->record;
    wait_durable(shard, held->sequence, &task->origin, &answer);
}

/* The bytes of the merge: those of the incoming record if it won whole, as it mostly does. */
static struct span merged_bytes(struct shard *shard, const struct task *task, const struct record *merged,
                                const struct record *incoming)
{
    if (merged->flags == incoming->flags && version_equal(record_version(merged), record_version(incoming)))
        return task->record;
    buf_clear(&shard->scratch);
    record_put(&shard->scratch, merged);
    return shard->scratch.failed ? (struct span){0} : buf_span(&shard->scratch);
}

/* known: 0 where it is not. */
static uint32_t hash_of(const struct shard *shard, struct span key, bool reserved, uint32_t known)
{
    if (reserved)
        return memtable_hash_reserved(&shard->memtable, key);
    return known != 0 ? known : memtable_hash(&shard->memtable, key);
}

/* The log has the row before the world is asked for anything else; on failure nothing has changed. */
enum status storage_store(struct shard *shard, const struct stored *stored)
{
    bool erase = stored->record.size == 0;
    size_t log_bytes = LOG_ROW_OVERHEAD_BYTES + VERSION_BYTES + stored->key.size + stored->record.size;
    if (!log_reserve(shard, log_bytes))
        return STATUS_OVERLOADED;
    struct memtable_put put = {
        .key = stored->key,
        .record = stored->record,
        .hash = hash_of(shard, stored->key, stored->reserved, stored->hash),
        .slot = stored->reserved ? SLOTS_COUNT : stored->slot,
        .sequence = shard->log.open,
        .live = stored->live,
        .in_cold = stored->in_cold,
    };
    enum status status = memtable_put(&shard->memtable, &put);
    if (status != STATUS_OK) {
        shard->flush.wanted = true;
        return status;
    }
    if (stored->reserved)
        log_put_reserved(&shard->log.payload, stored->slot, stored->key, stored->record);
    else if (erase)
        log_put_erase(&shard->log.payload, stored->slot, stored->key, stored->version);
    else
        log_put_row(&shard->log.payload, stored->slot, stored->key, stored->record);
    assert(!shard->log.payload.failed);
    shard->log.entries++;
    return STATUS_OK;
}

static enum status store_merged(struct shard *shard, const struct task *task, const struct held *held,
                                const struct record *before, const struct record *merged, struct span record)
{
    if (record.size == 0)
        return STATUS_OVERLOADED;
    struct stored stored = {
        .hash = task->hash,
        .slot = task->slot,
        .key = task->key,
        .record = record,
        .live = record_holds_value(merged),
        .in_cold = held->in_cold,
    };
    enum status status = storage_store(shard, &stored);
    if (status != STATUS_OK)
        return status;
    blind_stored(shard, task->slot, merged);
    if (held->unseen)
        blind_written(shard, task->slot, task->key);
    else
        trees_row_changed(shard, task->slot, task->key, before, merged);
    slot_row_changed(shard, task->slot, before, merged);
    return STATUS_OK;
}

/* The purge floor (DESIGN section 6): a key without a row whose version was purged must not come back, unless it is
 * repaired by a replica that has purged as much and still holds it. */
static bool below_floor(struct shard *shard, const struct task *task, const struct record *before,
                        const struct record *incoming)
{
    const struct slot_state *state = slot_state_of(shard, task->slot);
    if (state == NULL || stamp_none(state->floor) || !record_empty(before) ||
        stamp_compare(record_stamp_max(incoming), state->floor) > 0)
        return false;
    /* A slot that is being rebuilt takes whatever there is. */
    if (task->repair && !storage_slot_serves(shard, task->slot))
        return false;
    /* A dead row of an age to be purged was purged here: when the floor was raised past it, all replicas held the same
     * of what is that old. Taken back it would go round for ever between those that purge it one after the other. */
    bool purged = shard->clock_trusted && slot_dead_ms(shard, incoming) <= shard->now.wall_ms;
    if (task->repair && !purged && stamp_compare(task->floor, state->floor) >= 0)
        return false;
    shard->repairing.counters.floor_refusals++;
    return true;
}

static void do_put(struct shard *shard, const struct task *task, const struct held *held)
{
    struct record before;
    struct record incoming;
    enum status parsed = record_parse(held->record, &before);
    assert(parsed == STATUS_OK);
    /* Frames are validated where they are read, and a coordinator here made its own record. */
    parsed = record_parse(task->record, &incoming);
    assert(parsed == STATUS_OK && !record_empty(&incoming));
    hlc_observe(&shard->hlc, shard->now.wall_ms, record_stamp_max(&incoming));
    struct record merged = record_merge(&before, &incoming);
    struct replica_answer answer = {
        .kind = TASK_PUT,
        .was_live = record_live(&before, shard->now.wall_ms),
        .version = record_version(&merged),
    };
    uint64_t sequence = held->sequence;
    if (!task->write_back && overwrites_concurrent(shard, &before, &incoming))
        shard->counters.overwritten_concurrent++;
    bool changed = !version_equal(record_version(&before), answer.version);
    /* Repair brings what is resident: so the cold tier has lost it. It is written there again. */
    bool again = !changed && task->repair && held->in_cold && storage_slot_quarantined(shard, task->slot);
    if (changed || again) {
        if (changed && below_floor(shard, task, &before, &incoming)) {
            /* The floor goes back with the refusal: a write of now is stamped above it. Others purge by its word, so it
             * waits until the floor is durable. */
            answer.status = STATUS_PURGED;
            answer.version.value = slot_state_of(shard, task->slot)->floor;
            wait_durable(shard, log_last(shard), &task->origin, &answer);
            return;
        }
        struct span record = merged_bytes(shard, task, &merged, &incoming);
        answer.status = store_merged(shard, task, held, &before, &merged, record);
        sequence = shard->log.open;
        slot_row_came(shard, task->slot, &incoming);
        if (again)
            trees_row_replayed(shard, task->slot, task->key);
    }
    if (answer.status != STATUS_OK) {
        shard->counters.overloads++;
        storage_refuse(shard, task, answer.status);
        return;
    }
    wait_durable(shard, sequence, &task->origin, &answer);
}

/* Whether the cold tier may have a row that is purged. A flush that failed may have come there all the same, and so may
 * the tree that counts the row: yes is the answer that loses nothing, and keeps the log until both are right. */
static bool erased_in_cold(const struct shard *shard, const struct held *held)
{
    return held->in_cold || !shard->cold_empty;
}

/* Takes a dead row out for good. The floor is raised first, in the same batch: an older version that comes later finds
 * one or the other. */
static void do_erase(struct shard *shard, const struct task *task, const struct held *held)
{
    static const struct record nothing;
    struct slot_state *state = slot_state_of(shard, task->slot);
    struct record before;
    enum status status = record_parse(held->record, &before);
    assert(status == STATUS_OK);
    struct version version = record_version(&before);
    if (state == NULL || record_empty(&before) || !version_equal(version, task->version) ||
        slot_dead_ms(shard, &before) > shard->now.wall_ms) {
        storage_refuse(shard, task, STATUS_NOT_FOUND);
        return;
    }
    struct stored stored = {
        .slot = task->slot, .key = task->key, .version = version, .in_cold = erased_in_cold(shard, held)};
    status = slot_raise_floor(shard, state, record_stamp_max(&before)) ? storage_store(shard, &stored)
                                                                       : STATUS_OVERLOADED;
    if (status != STATUS_OK) {
        storage_refuse(shard, task, status);
        return;
    }
    trees_row_changed(shard, task->slot, task->key, &before, &nothing);
    slot_row_changed(shard, task->slot, &before, &nothing);
    shard->repairing.counters.purged++;
    struct replica_answer answer = {.kind = TASK_PUT, .status = STATUS_OK};
    wait_durable(shard, shard->log.open, &task->origin, &answer);
}

/* A row of a slot that was being rebuilt, which a replica that serves has purged. */
static void do_drop(struct shard *shard, const struct task *task, const struct held *held)
{
    static const struct record nothing;
    struct record before;
    struct replica_answer answer = {.kind = TASK_PUT, .status = STATUS_OK};
    enum status status = record_parse(held->record, &before);
    assert(status == STATUS_OK);
    if (record_empty(&before) || stamp_compare(record_stamp_max(&before), task->floor) > 0) {
        wait_durable(shard, held->sequence, &task->origin, &answer);
        return;
    }
    struct stored stored = {.slot = task->slot,
                            .key = task->key,
                            .version = record_version(&before),
                            .in_cold = erased_in_cold(shard, held)};
    status = storage_store(shard, &stored);
    if (status != STATUS_OK) {
        storage_refuse(shard, task, status); /* it is refused once more in the next exchange */
        return;
    }
    trees_row_changed(shard, task->slot, task->key, &before, &nothing);
    slot_row_changed(shard, task->slot, &before, &nothing);
    wait_durable(shard, shard->log.open, &task->origin, &answer);
}

static void do_task(struct shard *shard, const struct task *task, const struct held *held)
{
    /* Checked again after a wait: a late write could bring back what was purged meanwhile. */
    if (task->deadline_ms != 0 && shard->now.wall_ms > task->deadline_ms) {
        shard->counters.deadline_drops++;
        storage_refuse(shard, task, STATUS_EXPIRED);
        return;
    }
    bool writes = task->kind != TASK_GET && task->kind != TASK_HINT_GET;
    if (writes && !shard->takes_writes) {
        storage_refuse(shard, task, STATUS_STARTING);
        return;
    }
    if (writes && shard->log.full) {
        storage_refuse(shard, task, STATUS_DISK_FULL);
        return;
    }
    switch (task->kind) {
    case TASK_PUT:
        do_put(shard, task, held);
        return;
    case TASK_GET:
        answer_get(shard, task, held);
        return;
    case TASK_ERASE:
        do_erase(shard, task, held);
        return;
    case TASK_DROP:
        do_drop(shard, task, held);
        return;
    case TASK_HINT_PUT:
        handoff_put(shard, task, held);
        return;
    case TASK_HINT_GET:
        handoff_get(shard, task, held);
        return;
    case TASK_HINT_ERASE:
        handoff_erase(shard, task, held);
        return;
    }
}

/* ---- cold reads ----------------------------------------------------------------------------------------- */

static bool task_reserved(const struct task *task)
{
    return task->kind >= TASK_HINT_PUT;
}

static struct span cold_read_key(const struct cold_read *read)
{
    return span_of(read->cold_key + read->prefix_size, read->cold_key_size - read->prefix_size);
}

static size_t cold_read_size(const struct cold_read *read)
{
    return sizeof *read + read->cold_key_size;
}

static struct cold_read **cold_find(struct shard *shard, struct span key, uint32_t hash)
{
    struct cold_read **at = &shard->cold_buckets[hash % COLD_BUCKETS];
    while (*at != NULL && !((*at)->hash == hash && span_equal(cold_read_key(*at), key)))
        at = &(*at)->next;
    return at;
}

static struct cold_read *cold_start(struct shard *shard, const struct task *task, uint32_t hash)
{
    uint8_t prefix_size = task_reserved(task) ? 0 : COLD_KEY_PREFIX_BYTES;
    size_t cold_key_size = prefix_size + task->key.size;
    struct cold_read *read = alloc_get(&shard->alloc, sizeof *read + cold_key_size);
    if (read == NULL)
        return NULL;
    *read = (struct cold_read){
        .ticket = shard->cold_ticket_next,
        .hash = hash,
        .slot = task->slot,
        .prefix_size = prefix_size,
        .asked_us = shard->now.mono_us,
        .cold_key_size = (uint32_t)cold_key_size,
    };
    read->last = &read->first;
    if (prefix_size > 0)
        cold_key_prefix(task->key, task->slot, read->cold_key);
    memcpy(read->cold_key + prefix_size, task->key.data, task->key.size);
    if (map_put(&shard->cold_tickets, read->ticket, read) != STATUS_OK) {
        alloc_put(&shard->alloc, read, cold_read_size(read));
        return NULL;
    }
    shard->cold_ticket_next++;
    read->next = shard->cold_buckets[hash % COLD_BUCKETS];
    shard->cold_buckets[hash % COLD_BUCKETS] = read;
    shard->counters.cold_reads++;
    struct effect *effect = effects_add(shard->effects, EFFECT_COLD_READ);
    effect->ticket = read->ticket;
    effect->bytes = span_of(read->cold_key, cold_key_size);
    return read;
}

/* Copies the task behind those that wait for the same key. */
static enum status cold_wait(struct shard *shard, struct cold_read *read, const struct task *task)
{
    size_t size = sizeof(struct cold_waiter) + task->key.size + task->record.size;
    struct cold_waiter *waiter = NULL;
    if (shard->cold_waiting < COLD_WAITERS_MAX)
        waiter = alloc_get(&shard->alloc, size);
    if (waiter == NULL)
        return STATUS_OVERLOADED;
    *waiter = (struct cold_waiter){.size = size, .task = *task};
    uint8_t *bytes = (uint8_t *)(waiter + 1);
    memcpy(bytes, task->key.data, task->key.size);
    if (task->record.size > 0)
        memcpy(bytes + task->key.size, task->record.data, task->record.size);
    waiter->task.key = span_of(bytes, task->key.size);
    waiter->task.record = span_of(bytes + task->key.size, task->record.size);
    *read->last = waiter;
    read->last = &waiter->next;
    shard->cold_waiting++;
    trace_cold(shard, task);
    return STATUS_OK;
}

static void wait_for_cold(struct shard *shard, const struct task *task, uint32_t hash, struct cold_read *read)
{
    enum status status = STATUS_OVERLOADED;
    if (read == NULL)
        read = cold_start(shard, task, hash);
    if (read != NULL)
        status = cold_wait(shard, read, task);
    if (status == STATUS_OK)
        return;
    shard->counters.overloads++;
    storage_refuse(shard, task, status);
}

/* Whether a row that is not resident may be in the cold tier. Most hints are new: where the books have none for the
 * slot there is none. The cold tier has nothing of a wholly resident slot that is not in memory too. */
static bool may_be_cold(const struct shard *shard, const struct task *task)
{
    if (shard->cold_empty)
        return false;
    if (task_reserved(task))
        return hints_slot_held(&shard->repairing.handoff.books, task->slot);
    return !slot_resident(shard, task->slot);
}

void storage_do(struct shard *shard, const struct task *task)
{
    if (task->kind == TASK_PUT)
        slot_prefetch(shard, task->slot);
    uint32_t hash = hash_of(shard, task->key, task_reserved(task), task->hash);
    struct cold_read *read = shard->cold_tickets.count == 0 ? NULL : *cold_find(shard, task->key, hash);
    if (read != NULL) {
        wait_for_cold(shard, task, hash, read);
        return;
    }
    const struct row *row = memtable_find(&shard->memtable, task->key, hash);
    bool unseen = row == NULL && may_be_cold(shard, task);
    if (row == NULL && !unseen && !shard->cold_empty)
        shard->counters.cold_reads_spared++;
    if (unseen && !blind_wins(shard, task)) {
        wait_for_cold(shard, task, hash, NULL);
        return;
    }
    /* Its cold version counts as one that there is: should the row be erased, so must that be. */
    struct held held = {.in_cold = unseen, .unseen = unseen};
    if (row != NULL) {
        held.record = row_record(row);
        held.sequence = memtable_row_sequence(&shard->memtable, row);
        held.in_cold = row_in_cold(row);
    }
    do_task(shard, task, &held);
}

/* Takes a finished read out of its bucket and the ticket map. */
static struct cold_read *cold_take(struct shard *shard, uint64_t ticket)
{
    struct cold_read *read = map_take(&shard->cold_tickets, ticket);
    if (read == NULL)
        return NULL;
    struct cold_read **at = cold_find(shard, cold_read_key(read), read->hash);
    assert(*at == read);
    *at = read->next;
    return read;
}

void storage_cold_result(struct shard *shard, const struct event *event)
{
    struct cold_read *read = cold_take(shard, event->ticket);
    if (read == NULL)
        return;
    metrics_event(shard, METRICS_TIME_COLD, WATCH_COLD_READ, read->asked_us);
    enum status status = event->status;
    struct span bytes = status == STATUS_OK ? event->bytes : (struct span){0};
    struct record record = {0};
    bool reserved = read->prefix_size == 0;
    if (status == STATUS_OK && !reserved && (bytes.size == 0 || record_parse(bytes, &record) != STATUS_OK))
        status = STATUS_CORRUPT;
    if (status == STATUS_CORRUPT && !reserved)
        heal_damaged(shard, read->slot, "a row in the cold tier is damaged");
    /* A row that cannot be read is a row lost. Its slot is being rebuilt; what comes for the key takes its place. */
    bool lost = status == STATUS_CORRUPT && !reserved;
    struct held cold = {.in_cold = status == STATUS_OK || lost};
    if (status == STATUS_OK)
        cold.record = bytes;
    if (status == STATUS_OK) {
        struct memtable_put put = {
            .key = cold_read_key(read),
            .record = bytes,
            .hash = read->hash,
            .slot = reserved ? SLOTS_COUNT : read->slot,
            .live = record_holds_value(&record),
        };
        /* Only a cache: without room for it the tasks work on the bytes themselves. */
        enum status loaded = memtable_load(&shard->memtable, &put);
        (void)loaded;
    }
    if (status != STATUS_OK && status != STATUS_NOT_FOUND)
        say(shard, SAY_ERROR, "cold read failed: %s; the key answers an error", status_text(status));
    struct cold_waiter *waiter = read->first;
    while (waiter != NULL) {
        struct cold_waiter *next = waiter->next;
        shard->cold_waiting--;
        /* An earlier task of this list may have written the row. */
        const struct row *row = memtable_peek(&shard->memtable, waiter->task.key, read->hash);
        struct held held = cold;
        if (row != NULL)
            held = (struct held){row_record(row), memtable_row_sequence(&shard->memtable, row),
                                 row_in_cold(row), false};
        bool replaces =
            lost && waiter->task.kind == TASK_PUT && storage_slot_quarantined(shard, waiter->task.slot);
        if (status == STATUS_OK || status == STATUS_NOT_FOUND || replaces)
            do_task(shard, &waiter->task, &held);
        else
            storage_refuse(shard, &waiter->task, status);
        alloc_put(&shard->alloc, waiter, waiter->size);
        waiter = next;
    }
    alloc_put(&shard->alloc, read, cold_read_size(read));
}

void storage_free(struct shard *shard)
{
    uint32_t at = 0;
    for (struct cold_read *read = map_next(&shard->cold_tickets, &at); read != NULL;
         read = map_next(&shard->cold_tickets, &at)) {
        while (read->first != NULL) {
            struct cold_waiter *waiter = read->first;
            read->first = waiter->next;
            alloc_put(&shard->alloc, waiter, waiter->size);
        }
        alloc_put(&shard->alloc, read, cold_read_size(read));
    }
    map_free(&shard->cold_tickets);
    log_free(shard);
}
