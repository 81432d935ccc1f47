/* Reads that one row answers: of a key whose only replica is this shard (N = 1), while the row is resident, durable,
 * and of a slot that may be served. R and N - R + 1 are 1 then, so this is all that read.c would come to, without a
 * request and a deadline, and for a GET to which nothing is ahead also without a place among the client's answers
 * (docs/architecture.md has figures). Whatever does not fit answers NULL or false here and goes the long way. */
#include <assert.h>

#include "shard/request.h"

/* Whether a write of some key has still to be stamped, or something of the cold tier to be merged: reads wait their
 * turn behind it. */
static bool rows_settled(const struct shard *shard)
{
    return list_empty(&shard->stamp_waiters) && shard->cold_tickets.count == 0;
}

/* R as it was asked for; every way to say 1. */
static bool asks_for_one(uint8_t r)
{
    return r == COUNT_DEFAULT || r == COUNT_QUORUM || r == COUNT_ALL || r == 1;
}

/* The row; NULL where this shard alone cannot answer for the key at once. */
static const struct row *row_alone(struct shard *shard, uint16_t slot, struct span key, uint32_t hash)
{
    if (!rows_settled(shard) || memory_short(shard))
        return NULL;
    if (ring_replicas(shard->ring, slot)[0] != shard->self || !storage_slot_serves(shard, slot))
        return NULL;
    const struct row *row = memtable_find(&shard->memtable, key, hash);
    return row != NULL && memtable_row_sequence(&shard->memtable, row) <= shard->log.durable ? row : NULL;
}

/* The value is a view of the row. */
static struct result result_of_row(const struct shard *shard, const struct row *row)
{
    struct record record;
    enum status parsed = record_parse(row_record(row), &record);
    assert(parsed == STATUS_OK); /* rows are validated when they enter the memtable */
    bool live = record_live(&record, shard->now.wall_ms);
    return (struct result){
        .outcome = OUTCOME_DONE,
        .status = STATUS_OK,
        .needed = 1,
        .acks = 1,
        .found = live,
        .version = record_version(&record),
        .expiry_ms = record_expiry_ms(&record),
        .value = live ? record.value : (struct span){0},
    };
}

static void count(struct shard *shard, uint8_t asked, const struct result *result)
{
    metrics_result(shard, OPERATION_GET, asked, result);
    metrics_time(shard, METRICS_TIME_READ, shard->now.mono_us);
    metrics_time(shard, METRICS_TIME_READ_REPLICAS, shard->now.mono_us);
}

bool read_alone(struct shard *shard, uint16_t slot, uint32_t hash, const struct operation *operation,
                struct result *result)
{
    bool plain = operation->kind == OPERATION_GET && !operation->trace && shard->watch.slow_us > 0;
    if (!plain || ring_replica_count(shard->ring) != 1)
        return false;
    const struct row *row = row_alone(shard, slot, operation->key, hash);
    if (row == NULL)
        return false;
    *result = result_of_row(shard, row);
    count(shard, operation->r, result);
    return true;
}

bool answer_alone(struct shard *shard, struct client *client, const struct command *command)
{
    uint8_t r = command->r != COUNT_DEFAULT ? command->r : client->r;
    bool plain = command->id == COMMAND_GET && !command->trace && asks_for_one(r) &&
                 client->silence == SILENCE_NONE && shard->watch.slow_us > 0 &&
                 client->timeout_ms <= shard->options.healing.request_timeout_max_ms;
    /* Answers leave in the order of the commands. */
    if (!plain || ring_replica_count(shard->ring) != 1 || !list_empty(&client->pending))
        return false;
    uint16_t slot = key_slot(command->key);
    if (slot_shard(slot, shard->options.shards) != shard->options.shard)
        return false;
    const struct row *row =
        row_alone(shard, slot, command->key, memtable_hash(&shard->memtable, command->key));
    if (row == NULL)
        return false;
    struct result result = result_of_row(shard, row);
    if (!buf_reserve(&client->out, RESP_BULK_BYTES_MAX(result.value.size))) {
        client->out.failed = false;
        return false;
    }
    if (result.found)
        resp_reply_bulk(&client->out, result.value);
    else
        resp_reply_null(&client->out, client->proto);
    count(shard, r, &result);
    client->last_row = watch_row(COMMAND_GET, SUBCOMMAND_NONE);
    shard->watch.figures.command[client->last_row].took[0]++;
    shard->counters.commands++;
    client_touched(shard, client);
    return true;
}
