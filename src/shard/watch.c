/* Counting commands, errors and bytes, and their rates. */
#include "shard/watch.h"

#include <assert.h>

#include "shard/state.h"

static const char *const error_names[WATCH_ERRORS_COUNT] = {
#define WATCH_ERROR_NAME(text) text,
    WATCH_ERRORS(WATCH_ERROR_NAME)
#undef WATCH_ERROR_NAME
};

/* ---- bounds --------------------------------------------------------------------------------------------- */

void watch_set(struct shard *shard, const struct watch_bounds *bounds)
{
    struct watch *watch = &shard->watch;
    watch->bounds = *bounds;
    watch->event_us = bounds->threshold_ms == 0 ? UINT64_MAX : bounds->threshold_ms * 1000u;
    watch->log_us = bounds->log_off || bounds->entries_max == 0 ? UINT64_MAX : bounds->slower_us;
    watch->slow_us = watch->log_us < watch->event_us ? watch->log_us : watch->event_us;
    slowlog_trim(shard);
}

void watch_init(struct shard *shard, const struct watch_bounds *bounds)
{
    list_init(&shard->watch.slow);
    watch_set(shard, bounds);
}

void watch_free(struct shard *shard)
{
    slowlog_reset(shard);
}

/* ---- counting ------------------------------------------------------------------------------------------- */

static void count_error(struct shard *shard, struct span reply)
{
    uint32_t index = 0;
    for (; index < WATCH_ERRORS_COUNT - 1; index++) {
        size_t size = strlen(error_names[index]);
        if (reply.size > size + 1 && memcmp(reply.data + 1, error_names[index], size) == 0 &&
            (reply.data[size + 1] == ' ' || reply.data[size + 1] == '\r'))
            break;
    }
    shard->watch.figures.errors[index]++;
}

void watch_answered_late(struct shard *shard, struct pending *pending, uint64_t took_us)
{
    struct watch *watch = &shard->watch;
    uint32_t bucket = took_us == 0 ? 0 : 64u - (uint32_t)__builtin_clzll(took_us);
    struct command_figures *figures = &watch->figures.command[pending->row];
    figures->us += took_us;
    figures->took[bucket < WATCH_BUCKETS ? bucket : WATCH_BUCKETS - 1]++;
    if (pending->reply.size > 0 && pending->reply.data[0] == '-') {
        figures->failed++;
        count_error(shard, buf_span(&pending->reply));
    }
    if (took_us < watch->slow_us)
        return;
    if (took_us >= watch->event_us)
        latency_note(shard, WATCH_COMMAND, took_us);
    if (took_us >= watch->log_us)
        slowlog_add(shard, pending, took_us);
}

uint64_t watch_calls(const struct command_figures *command)
{
    uint64_t calls = 0;
    for (uint32_t i = 0; i < WATCH_BUCKETS; i++)
        calls += command->took[i];
    return calls;
}

void watch_rejected(struct shard *shard, const struct command *command)
{
    shard->watch.figures.command[watch_row(command->id, command->subcommand)].rejected++;
}

void watch_tick(struct shard *shard)
{
    struct watch *watch = &shard->watch;
    watch->samples[watch->samples_taken++ % WATCH_SAMPLES] = (struct watch_sample){
        .at_us = shard->now.mono_us,
        .commands = shard->counters.commands - watch->commands_before,
        .bytes_in = watch->figures.bytes_in,
        .bytes_out = watch->figures.bytes_out,
    };
}

void watch_reset(struct shard *shard)
{
    struct watch *watch = &shard->watch;
    memset(&watch->figures, 0, sizeof watch->figures);
    watch->commands_before = shard->counters.commands;
    watch->refused_before = shard->facts.clients_refused;
    watch->samples_taken = 0;
}

/* ---- names ---------------------------------------------------------------------------------------------- */

bool watch_command_name(uint32_t index, struct buf *name)
{
    static const char *const pages[] = {"http|healthz", "http|status", "http|ring", "http|metrics",
                                        "http|local-rows"};
    _Static_assert(sizeof pages / sizeof pages[0] == COMMAND_ID_END - COMMAND_NAMED_END, "one name each");
    if (index == 0 || index == COMMAND_ID_END || index >= WATCH_COMMANDS)
        return false;
    if (index < COMMAND_NAMED_END) {
        buf_append_text(name, command_spec_of((enum command_id)index)->name);
    } else if (index < COMMAND_ID_END) {
        buf_append_text(name, pages[index - COMMAND_NAMED_END]);
    } else {
        const struct subcommand_spec *sub = subcommand_spec_of((enum subcommand_id)(index - COMMAND_ID_END));
        buf_append_text(name, command_spec_of(sub->container)->name);
        buf_append_text(name, "|");
        buf_append_text(name, sub->name);
    }
    return true;
}

const char *watch_error_name(uint32_t index)
{
    assert(index < WATCH_ERRORS_COUNT);
    return error_names[index];
}

/* ---- gathering ------------------------------------------------------------------------------------------ */

/* X(member) */
#define FIGURES_SINGLE(X)  \
    X(commands)            \
    X(connections)         \
    X(refused_connections) \
    X(bytes_in) X(bytes_out) X(reads[0]) X(reads[1]) X(commands_rate) X(bytes_in_rate) X(bytes_out_rate)

static uint64_t rate(uint64_t now, uint64_t before, uint64_t time_us)
{
    return time_us == 0 ? 0 : (now - before) * 1000000u / time_us;
}

/* Rates from the oldest sample that is kept to the newest. */
static void find_rates(const struct watch *watch, struct watch_figures *figures)
{
    if (watch->samples_taken < 2)
        return;
    uint32_t oldest = watch->samples_taken < WATCH_SAMPLES ? 0 : watch->samples_taken;
    const struct watch_sample *from = &watch->samples[oldest % WATCH_SAMPLES];
    const struct watch_sample *to = &watch->samples[(watch->samples_taken - 1) % WATCH_SAMPLES];
    uint64_t time_us = to->at_us - from->at_us;
    figures->commands_rate = rate(to->commands, from->commands, time_us);
    figures->bytes_in_rate = rate(to->bytes_in, from->bytes_in, time_us);
    figures->bytes_out_rate = rate(to->bytes_out, from->bytes_out, time_us);
}

/* Whether a row has anything to say. */
static bool command_used(const struct command_figures *figures)
{
    return watch_calls(figures) > 0 || figures->rejected > 0;
}

void watch_figures_put(struct shard *shard, struct buf *body)
{
    struct watch_figures *figures = &shard->watch.figures;
    figures->commands = shard->counters.commands - shard->watch.commands_before;
    figures->refused_connections = shard->facts.clients_refused - shard->watch.refused_before;
    find_rates(&shard->watch, figures);
#define FIGURES_PUT(member) buf_put_u64(body, figures->member);
    FIGURES_SINGLE(FIGURES_PUT)
#undef FIGURES_PUT
    for (uint32_t i = 0; i < WATCH_ERRORS_COUNT; i++)
        buf_put_u64(body, figures->errors[i]);
    for (uint32_t i = 1; i < WATCH_COMMANDS; i++) {
        const struct command_figures *command = &figures->command[i];
        if (!command_used(command))
            continue;
        buf_put_u16(body, (uint16_t)i);
        buf_put_u64(body, command->us);
        buf_put_u64(body, command->rejected);
        buf_put_u64(body, command->failed);
        for (uint32_t k = 0; k < WATCH_BUCKETS; k++)
            buf_put_u64(body, command->took[k]);
    }
}

void watch_figures_add(struct reader *body, struct watch_figures *sum)
{
#define FIGURES_TAKE(member) sum->member += reader_u64(body);
    FIGURES_SINGLE(FIGURES_TAKE)
#undef FIGURES_TAKE
    for (uint32_t i = 0; i < WATCH_ERRORS_COUNT; i++)
        sum->errors[i] += reader_u64(body);
    while (reader_left(body) > 0 && !body->failed) {
        uint16_t index = reader_u16(body);
        assert(index < WATCH_COMMANDS); /* a sibling wrote it */
        struct command_figures *command = &sum->command[index];
        command->us += reader_u64(body);
        command->rejected += reader_u64(body);
        command->failed += reader_u64(body);
        for (uint32_t k = 0; k < WATCH_BUCKETS; k++)
            command->took[k] += reader_u64(body);
    }
    assert(!body->failed);
}
