/* The latency monitor: events of a shard that took at least latency-monitor-threshold, as Redis's.
 *
 * An answer to LATENCY LATEST, HISTORY and DOCTOR holds every event's series: u32 count | u64 longest ever | for each
 * sample, oldest first: u64 seconds since 1970 | u64 milliseconds. LATENCY RESET: u32, a bit for each event that had
 * samples. */
#include <assert.h>
#include <inttypes.h>

#include "shard/state.h"

static const char *const event_names[WATCH_EVENTS_COUNT] = {
    [WATCH_COMMAND] = "command", [WATCH_LOG_SYNC] = "log-sync",   [WATCH_COLD_READ] = "cold-read",
    [WATCH_FLUSH] = "flush",     [WATCH_LOOP_TURN] = "loop-turn",
};

/* What somebody might do about it. */
static const char *const event_advice[WATCH_EVENTS_COUNT] = {
    [WATCH_COMMAND] =
        "requests wait for their replicas, the log, or the disk: SLOWLOG GET names them, RONDO.TRACE "
        "shows where one spends its time, `rondo status` which nodes are slow or away",
    [WATCH_LOG_SYNC] =
        "the disk syncs slowly: look for other writers on it, or choose durability interval:MS if a "
        "power loss may cost that much",
    [WATCH_COLD_READ] =
        "keys that are not in memory are read from the disk: give the node more memory, or a faster "
        "disk",
    [WATCH_FLUSH] = "rows go to the cold tier slowly: the disk is busy, perhaps with compaction",
    [WATCH_LOOP_TURN] =
        "a shard's thread did not come round in time: the processor is shared with others, or one "
        "turn had very large requests",
};

/* ---- noting --------------------------------------------------------------------------------------------- */

void latency_note(struct shard *shard, enum watch_event event, uint64_t took_us)
{
    struct latency_series *series = &shard->watch.series[event];
    struct latency_sample sample = {.at_s = shard->now.wall_ms / 1000, .ms = took_us / 1000};
    if (sample.ms > series->max_ms)
        series->max_ms = sample.ms;
    struct latency_sample *last =
        &series->samples[(series->next + LATENCY_SAMPLES_MAX - 1) % LATENCY_SAMPLES_MAX];
    if (series->count > 0 && last->at_s == sample.at_s) {
        last->ms = sample.ms > last->ms ? sample.ms : last->ms;
        return;
    }
    series->samples[series->next] = sample;
    series->next = (series->next + 1) % LATENCY_SAMPLES_MAX;
    series->count += series->count < LATENCY_SAMPLES_MAX;
}

static void series_put(const struct latency_series *series, struct buf *body)
{
    buf_put_u32(body, series->count);
    buf_put_u64(body, series->max_ms);
    for (uint32_t i = 0; i < series->count; i++) {
        uint32_t at = (series->next + LATENCY_SAMPLES_MAX - series->count + i) % LATENCY_SAMPLES_MAX;
        buf_put_u64(body, series->samples[at].at_s);
        buf_put_u64(body, series->samples[at].ms);
    }
}

static bool is_named(const struct command *command, const char *name)
{
    for (uint32_t i = 2; i < command->argc; i++) {
        if (span_is_nocase(command->argv[i], name))
            return true;
    }
    return command->argc == 2;
}

void latency_answer(struct shard *shard, const struct command *command, struct buf *body)
{
    if (command->subcommand != SUBCOMMAND_LATENCY_RESET) {
        for (uint32_t i = 0; i < WATCH_EVENTS_COUNT; i++)
            series_put(&shard->watch.series[i], body);
        return;
    }
    uint32_t had = 0;
    for (uint32_t i = 0; i < WATCH_EVENTS_COUNT; i++) {
        if (shard->watch.series[i].count == 0 || !is_named(command, event_names[i]))
            continue;
        had |= 1u << i;
        shard->watch.series[i] = (struct latency_series){0};
    }
    buf_put_u32(body, had);
}

/* ---- of the whole node ---------------------------------------------------------------------------------- */

/* The samples of one event of one shard; the newest of those left is the last. */
struct stream {
    struct span samples;
};

#define SAMPLE_BYTES 16u

static struct latency_sample stream_last(const struct stream *stream)
{
    const uint8_t *at = stream->samples.data + stream->samples.size - SAMPLE_BYTES;
    return (struct latency_sample){.at_s = load_u64(at), .ms = load_u64(at + 8)};
}

/* The event's samples in all answers. */
static uint32_t find_streams(const struct pending *pending, enum watch_event event, struct stream *streams,
                             uint64_t *max_ms)
{
    struct reader answers = reader_of(buf_span(&pending->gathering->answers));
    uint32_t count = 0;
    while (reader_left(&answers) > 0) {
        struct reader answer = reader_of(reader_long(&answers));
        for (uint32_t i = 0; i <= (uint32_t)event; i++) {
            uint32_t samples = reader_u32(&answer);
            uint64_t longest_ms = reader_u64(&answer);
            streams[count].samples = reader_bytes(&answer, (size_t)samples * SAMPLE_BYTES);
            if (i == (uint32_t)event && longest_ms > *max_ms)
                *max_ms = longest_ms;
        }
        assert(!answer.failed); /* a sibling wrote it */
        count++;
    }
    return count;
}

/* The newest samples of the whole node, newest first; those of a second are one, the longest. */
static void merge(const struct pending *pending, enum watch_event event, struct latency_series *merged)
{
    struct stream streams[SHARDS_MAX];
    *merged = (struct latency_series){0};
    uint32_t count = find_streams(pending, event, streams, &merged->max_ms);
    for (;;) {
        struct stream *newest = NULL;
        for (uint32_t i = 0; i < count; i++) {
            if (streams[i].samples.size > 0 &&
                (newest == NULL || stream_last(&streams[i]).at_s > stream_last(newest).at_s))
                newest = &streams[i];
        }
        if (newest == NULL)
            return;
        struct latency_sample sample = stream_last(newest);
        newest->samples.size -= SAMPLE_BYTES;
        struct latency_sample *last = merged->count == 0 ? NULL : &merged->samples[merged->count - 1];
        if (last != NULL && last->at_s == sample.at_s)
            last->ms = sample.ms > last->ms ? sample.ms : last->ms;
        else if (merged->count == LATENCY_SAMPLES_MAX)
            return;
        else
            merged->samples[merged->count++] = sample;
    }
}

static void reply_latest(const struct pending *pending, struct buf *reply)
{
    struct latency_series merged;
    uint32_t events = 0;
    struct buf rows;
    buf_init(&rows, reply->alloc);
    for (uint32_t i = 0; i < WATCH_EVENTS_COUNT; i++) {
        merge(pending, (enum watch_event)i, &merged);
        if (merged.count == 0)
            continue;
        events++;
        resp_reply_array(&rows, 4);
        resp_reply_text(&rows, event_names[i]);
        resp_reply_integer(&rows, (int64_t)merged.samples[0].at_s);
        resp_reply_integer(&rows, (int64_t)merged.samples[0].ms);
        resp_reply_integer(&rows, (int64_t)merged.max_ms);
    }
    resp_reply_array(reply, events);
    buf_append_span(reply, buf_span(&rows));
    reply->failed |= rows.failed;
    buf_free(&rows);
}

static void reply_history(const struct pending *pending, struct span name, struct buf *reply)
{
    struct latency_series merged = {0};
    for (uint32_t i = 0; i < WATCH_EVENTS_COUNT; i++) {
        if (span_is_nocase(name, event_names[i]))
            merge(pending, (enum watch_event)i, &merged);
    }
    resp_reply_array(reply, merged.count);
    for (uint32_t i = merged.count; i > 0; i--) {
        resp_reply_array(reply, 2);
        resp_reply_integer(reply, (int64_t)merged.samples[i - 1].at_s);
        resp_reply_integer(reply, (int64_t)merged.samples[i - 1].ms);
    }
}

static void reply_reset(const struct pending *pending, struct buf *reply)
{
    struct reader answers = reader_of(buf_span(&pending->gathering->answers));
    uint32_t had = 0;
    while (reader_left(&answers) > 0) {
        struct reader answer = reader_of(reader_long(&answers));
        had |= reader_u32(&answer);
    }
    resp_reply_integer(reply, __builtin_popcount(had));
}

static void describe(const struct latency_series *merged, uint32_t event, struct buf *text)
{
    uint64_t sum_ms = 0;
    for (uint32_t i = 0; i < merged->count; i++)
        sum_ms += merged->samples[i].ms;
    buf_append_format(text,
                      "%s: %" PRIu32 " second%s with times over the threshold, the last at %" PRIu64
                      " (seconds since 1970), %" PRIu64 " ms on average of the longest of each, %" PRIu64
                      " ms at most since the start or the last reset; %s.\n",
                      event_names[event], merged->count, merged->count == 1 ? "" : "s",
                      merged->samples[0].at_s, sum_ms / merged->count, merged->max_ms, event_advice[event]);
}

static void reply_doctor(const struct shard *shard, const struct pending *pending, struct buf *reply)
{
    struct latency_series merged;
    struct buf text;
    buf_init(&text, reply->alloc);
    for (uint32_t i = 0; i < WATCH_EVENTS_COUNT; i++) {
        merge(pending, (enum watch_event)i, &merged);
        if (merged.count > 0)
            describe(&merged, i, &text);
    }
    uint64_t threshold_ms = shard->watch.bounds.threshold_ms;
    if (threshold_ms == 0)
        buf_append_text(
            &text, "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> turns "
                   "it on until the next start.\n");
    else if (text.size == 0)
        buf_append_format(
            &text, "Nothing has taken %" PRIu64 " ms or longer since the monitor was turned on or reset.\n",
            threshold_ms);
    resp_reply_verbatim(reply, pending->proto, buf_span(&text));
    reply->failed |= text.failed;
    buf_free(&text);
}

void latency_reply(struct shard *shard, struct pending *pending, const struct command *command)
{
    switch (command->subcommand) {
    case SUBCOMMAND_LATENCY_LATEST:
        reply_latest(pending, &pending->reply);
        return;
    case SUBCOMMAND_LATENCY_HISTORY:
        reply_history(pending, command->argv[2], &pending->reply);
        return;
    case SUBCOMMAND_LATENCY_RESET:
        reply_reset(pending, &pending->reply);
        return;
    default:
        assert(command->subcommand == SUBCOMMAND_LATENCY_DOCTOR);
        reply_doctor(shard, pending, &pending->reply);
        return;
    }
}

/* ---- LATENCY HISTOGRAM ---------------------------------------------------------------------------------- */

/* "client|list" by its own name, or by its container's. */
static bool asked_for(const struct command *command, struct span name)
{
    if (name.size == 0)
        return false; /* there was no memory for it */
    const uint8_t *bar = memchr(name.data, '|', name.size);
    size_t container = bar == NULL ? name.size : (size_t)(bar - name.data);
    char text[64];
    char shorter[64];
    span_copy_text(name, text, sizeof text);
    span_copy_text(span_of(name.data, container), shorter, sizeof shorter);
    return is_named(command, text) || is_named(command, shorter);
}

/* How many calls took less than 2^k microseconds, where that is more than took less than half. */
static void reply_buckets(const struct command_figures *figures, uint8_t proto, struct buf *reply)
{
    uint32_t pairs = 0;
    uint64_t below = 0;
    for (uint32_t k = 0; k < WATCH_BUCKETS; k++)
        pairs += figures->took[k] > 0;
    resp_reply_text(reply, "calls");
    resp_reply_integer(reply, (int64_t)watch_calls(figures));
    resp_reply_text(reply, "histogram_usec");
    resp_reply_map(reply, proto, pairs);
    for (uint32_t k = 0; k < WATCH_BUCKETS; k++) {
        below += figures->took[k];
        if (figures->took[k] == 0)
            continue;
        resp_reply_integer(reply, INT64_C(1) << k);
        resp_reply_integer(reply, (int64_t)below);
    }
}

void latency_histogram(const struct watch_figures *figures, const struct command *command, uint8_t proto,
                       struct buf *reply)
{
    struct buf name;
    struct buf rows;
    size_t commands = 0;
    buf_init(&name, reply->alloc);
    buf_init(&rows, reply->alloc);
    for (uint32_t i = 0; i < WATCH_COMMANDS; i++) {
        buf_clear(&name);
        if (watch_calls(&figures->command[i]) == 0 || !watch_command_name(i, &name) ||
            !asked_for(command, buf_span(&name)))
            continue;
        commands++;
        resp_reply_bulk(&rows, buf_span(&name));
        resp_reply_map(&rows, proto, 2);
        reply_buckets(&figures->command[i], proto, &rows);
    }
    resp_reply_map(reply, proto, commands);
    buf_append_span(reply, buf_span(&rows));
    reply->failed |= rows.failed || name.failed;
    buf_free(&rows);
    buf_free(&name);
}
