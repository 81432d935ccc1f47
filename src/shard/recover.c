/* Recovery: what a shard takes over from the cold tier and the log before its first step. */
#include <assert.h>

#include "model/reserved.h"
#include "shard/state.h"

/* What is known by a reserved row; hints themselves are counted once the shard runs (handoff.c). The log's rows come
 * after those of the cold tier, in the order in which they were written. */
static enum status take_reserved(struct shard *shard, uint16_t slot, struct span key, struct span record)
{
    switch (reserved_key_prefix(key)) {
    case RESERVED_FLOOR:
        return slot_floor_found(shard, slot, record);
    case RESERVED_TREE:
        trees_found(shard, slot, record);
        return STATUS_OK;
    case RESERVED_SYNC:
        return marks_found(shard, key, record);
    default:
        return STATUS_OK;
    }
}

enum status shard_recover_cold(struct shard *shard, struct span reserved_key, struct span record)
{
    uint16_t slot;
    if (reserved_key_slot(reserved_key, &slot) != STATUS_OK || record.size == 0)
        return STATUS_CORRUPT;
    assert(slot_shard(slot, shard->options.shards) == shard->options.shard);
    return take_reserved(shard, slot, reserved_key, record);
}

void shard_recover_trees_kept(struct shard *shard)
{
    shard->repairing.trees_kept = true;
}

enum status shard_recover_row(struct shard *shard, struct span key, struct span bytes)
{
    uint32_t hash = memtable_hash(&shard->memtable, key);
    const struct row *row = memtable_peek(&shard->memtable, key, hash);
    struct record held = {0};
    struct record record;
    if (row != NULL && record_parse(row_record(row), &held) != STATUS_OK)
        return STATUS_CORRUPT;
    if (record_parse(bytes, &record) != STATUS_OK || record_empty(&record))
        return STATUS_CORRUPT;
    struct record merged = record_merge(&held, &record);
    hlc_observe(&shard->hlc, shard->now.wall_ms, record_stamp_max(&merged));
    buf_clear(&shard->scratch);
    record_put(&shard->scratch, &merged);
    if (shard->scratch.failed)
        return STATUS_OVERLOADED;
    struct memtable_put put = {
        .key = key,
        .record = buf_span(&shard->scratch),
        .hash = hash,
        .slot = key_slot(key),
        .sequence = 1,
        .live = record_holds_value(&merged),
        /* Whether the cold tier has it is not known: yes is the answer that loses nothing. */
        .in_cold = !shard->cold_empty,
    };
    trees_row_replayed(shard, put.slot, key);
    blind_stored(shard, put.slot, &merged);
    return memtable_put(&shard->memtable, &put);
}

enum status shard_recover_reserved(struct shard *shard, uint16_t slot, struct span key, struct span record)
{
    uint16_t named;
    if (reserved_key_slot(key, &named) != STATUS_OK || named != slot)
        return STATUS_CORRUPT;
    struct memtable_put put = {
        .key = key,
        .record = record,
        .hash = memtable_hash_reserved(&shard->memtable, key),
        .slot = SLOTS_COUNT,
        .sequence = 1,
        .in_cold = !shard->cold_empty,
    };
    enum status status = take_reserved(shard, slot, key, record);
    return status == STATUS_OK ? memtable_put(&shard->memtable, &put) : status;
}

/* Whether a record is of a newer version than one that was purged. */
static bool newer_than(const struct record *record, struct version version)
{
    return stamp_compare(record->stamp, version.value) > 0 ||
           stamp_compare(record->override_stamp, version.override) > 0;
}

enum status shard_recover_erase(struct shard *shard, uint16_t slot, struct span key, struct version version)
{
    uint32_t hash = memtable_hash(&shard->memtable, key);
    const struct row *row = memtable_peek(&shard->memtable, key, hash);
    struct record held = {0};
    if (row != NULL && record_parse(row_record(row), &held) != STATUS_OK)
        return STATUS_CORRUPT;
    if (newer_than(&held, version))
        return STATUS_OK;
    struct memtable_put put = {
        .key = key,
        .hash = hash,
        .slot = slot,
        .sequence = 1,
        .in_cold = !shard->cold_empty,
    };
    trees_row_replayed(shard, slot, key);
    return memtable_put(&shard->memtable, &put);
}

enum status shard_recover_freeze(struct shard *shard, struct flush_job **job)
{
    struct flush_state *flush = &shard->flush;
    uint64_t bytes_max = UINT64_MAX;
    for (;;) {
        enum status status = memtable_freeze(&shard->memtable, &flush->job, bytes_max, 0);
        if (status != STATUS_OK)
            return status;
        flush->trees_at = 0;
        if (trees_flush_slice(shard, UINT32_MAX))
            break;
        /* No memory for their trees beside so many rows: half of them, then. */
        bytes_max = memtable_job_half(&flush->job);
        shard_recover_flush_failed(shard);
        if (bytes_max == 0)
            return STATUS_OVERLOADED;
    }
    shard->cold_empty = false;
    *job = &flush->job;
    return STATUS_OK;
}

void shard_recover_flush_failed(struct shard *shard)
{
    trees_flush_over(shard, false);
    bool over = memtable_flush_failed(&shard->memtable, &shard->flush.job, UINT64_MAX);
    assert(over);
}

void shard_recover_flushed(struct shard *shard)
{
    trees_flush_over(shard, true);
    bool over = memtable_flush_done(&shard->memtable, &shard->flush.job, UINT64_MAX);
    assert(over);
}
