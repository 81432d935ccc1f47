/* Rows: merging and reading them, and waiting for the cold tier.
 *
 * A task on a key whose row is not resident waits for a cold read; all tasks on that key wait behind it, in
 * order, so a write is always merged with everything this replica holds (invariant 1). Every answer then waits
 * until the log is durable up to the batch that carries the row's last change (invariant 5; durable.c). */
#include <assert.h>

#include "shard/state.h"

static void answer_status(struct shard *shard, const struct task *task, enum status status)
{
    struct replica_answer answer = {.kind = task->kind, .status = status};
    replica_answered(shard, &task->origin, &answer);
}

bool storage_slot_serves(const struct shard *shard, uint16_t slot)
{
    if (!shard->serving)
        return false;
    return !shard->quarantine_any || (shard->quarantine[slot / 8] >> (slot % 8) & 1) == 0;
}

struct stamp storage_stamp(struct shard *shard, struct span key)
{
    const struct row *row = memtable_find(&shard->memtable, key, memtable_hash(&shard->memtable, key));
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

/* What this replica holds of a key: a resident row, or what the cold tier said. */
struct held {
    struct span record;
    uint64_t sequence;
    bool in_cold;
};

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

/* Stores the merged record and appends it to the log. On failure nothing has changed. */
static enum status store_row(struct shard *shard, const struct task *task, struct span record, bool live,
                             bool in_cold)
{
    size_t log_bytes = LOG_ROW_OVERHEAD_BYTES + task->key.size + record.size;
    if (record.size == 0 || !log_reserve(shard, log_bytes))
        return STATUS_OVERLOADED;
    struct memtable_put put = {
        .key = task->key,
        .record = record,
        .hash = memtable_hash(&shard->memtable, task->key),
        .sequence = shard->log.open,
        .live = live,
        .in_cold = in_cold,
    };
    enum status status = memtable_put(&shard->memtable, &put);
    if (status != STATUS_OK) {
        shard->flush.wanted = true;
        return status;
    }
    log_put_row(&shard->log.payload, task->slot, task->key, record);
    assert(!shard->log.payload.failed);
    shard->log.entries++;
    return STATUS_OK;
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
    if (!version_equal(record_version(&before), answer.version)) {
        struct span record = merged_bytes(shard, task, &merged, &incoming);
        answer.status = store_row(shard, task, record, record_holds_value(&merged), held->in_cold);
        sequence = shard->log.open;
    }
    if (answer.status != STATUS_OK) {
        shard->counters.overloads++;
        answer_status(shard, task, answer.status);
        return;
    }
    wait_durable(shard, sequence, &task->origin, &answer);
}

static void do_task(struct shard *shard, const struct task *task, const struct held *held)
{
    /* Checked again after a wait: a late write could bring back what was purged meanwhile. */
    if (task->deadline_ms != 0 && shard->now.wall_ms > task->deadline_ms) {
        shard->counters.deadline_drops++;
        answer_status(shard, task, STATUS_EXPIRED);
        return;
    }
    if (task->kind == TASK_GET)
        answer_get(shard, task, held);
    else if (!shard->takes_writes)
        answer_status(shard, task, STATUS_STARTING);
    else if (shard->log.full)
        answer_status(shard, task, STATUS_DISK_FULL);
    else
        do_put(shard, task, held);
}

/* ---- cold reads ----------------------------------------------------------------------------------------- */

static struct span cold_read_key(const struct cold_read *read)
{
    return span_of(read->cold_key + COLD_KEY_PREFIX_BYTES, read->cold_key_size - COLD_KEY_PREFIX_BYTES);
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
    size_t cold_key_size = COLD_KEY_PREFIX_BYTES + task->key.size;
    struct cold_read *read = alloc_get(&shard->alloc, sizeof *read + cold_key_size);
    if (read == NULL)
        return NULL;
    *read = (struct cold_read){
        .ticket = shard->cold_ticket_next, .hash = hash, .cold_key_size = (uint32_t)cold_key_size};
    read->last = &read->first;
    cold_key_prefix(task->key, task->slot, read->cold_key);
    memcpy(read->cold_key + COLD_KEY_PREFIX_BYTES, task->key.data, task->key.size);
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
    answer_status(shard, task, status);
}

void storage_do(struct shard *shard, const struct task *task)
{
    uint32_t hash = memtable_hash(&shard->memtable, task->key);
    struct cold_read *read = shard->cold_tickets.count == 0 ? NULL : *cold_find(shard, task->key, hash);
    if (read != NULL) {
        wait_for_cold(shard, task, hash, read);
        return;
    }
    const struct row *row = memtable_find(&shard->memtable, task->key, hash);
    if (row == NULL && !shard->cold_empty) {
        wait_for_cold(shard, task, hash, NULL);
        return;
    }
    struct held held = {0};
    if (row != NULL) {
        held.record = row_record(row);
        held.sequence = row_sequence(row);
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
    enum status status = event->status;
    struct span bytes = status == STATUS_OK ? event->bytes : (struct span){0};
    struct record record;
    if (status == STATUS_OK && (bytes.size == 0 || record_parse(bytes, &record) != STATUS_OK))
        status = STATUS_CORRUPT;
    struct held cold = {.record = bytes, .in_cold = status == STATUS_OK};
    if (status == STATUS_OK) {
        struct memtable_put put = {
            .key = cold_read_key(read),
            .record = bytes,
            .hash = read->hash,
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
        const struct row *row = memtable_find(&shard->memtable, waiter->task.key, read->hash);
        struct held held = cold;
        if (row != NULL)
            held = (struct held){row_record(row), row_sequence(row), row_in_cold(row)};
        if (status == STATUS_OK || status == STATUS_NOT_FOUND)
            do_task(shard, &waiter->task, &held);
        else
            answer_status(shard, &waiter->task, status);
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
