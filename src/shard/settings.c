/* CONFIG: what tools ask for, under Redis's names and rondod's own, and the few bounds that may be changed.
 *
 * The list is the process's (shard_options.about); a setting that CONFIG SET may change is the shard's own. It is
 * checked where the command was read, and then carried out by all shards; it lasts until the node starts again. */
#include <assert.h>
#include <inttypes.h>

#include "proto/glob.h"
#include "shard/admin.h"

enum bound {
    BOUND_SLOWER = 0,
    BOUND_ENTRIES,
    BOUND_THRESHOLD,
    BOUNDS_COUNT,
};

/* An hour is as good as never. */
#define BOUND_US_MAX INT64_C(3600000000)
#define BOUND_MS_MAX INT64_C(3600000)

static const struct {
    const char *name;
    int64_t min;
    int64_t max;
} bounds[BOUNDS_COUNT] = {
    [BOUND_SLOWER] = {"slowlog-log-slower-than", -1, BOUND_US_MAX},
    [BOUND_ENTRIES] = {"slowlog-max-len", 0, SLOWLOG_ENTRIES_MAX},
    [BOUND_THRESHOLD] = {"latency-monitor-threshold", 0, BOUND_MS_MAX},
};

/* ---- CONFIG GET ----------------------------------------------------------------------------------------- */

static int64_t bound_value(const struct shard *shard, enum bound bound)
{
    const struct watch_bounds *values = &shard->watch.bounds;
    if (bound == BOUND_SLOWER)
        return values->log_off ? -1 : (int64_t)values->slower_us;
    return bound == BOUND_ENTRIES ? (int64_t)values->entries_max : (int64_t)values->threshold_ms;
}

static bool matches_any(const struct command *command, const char *name)
{
    for (uint32_t i = 2; i < command->argc; i++) {
        if (glob_match(command->argv[i], span_of_text(name)))
            return true;
    }
    return false;
}

void settings_get(const struct shard *shard, const struct command *command, uint8_t proto, struct buf *reply)
{
    const struct node_about *about = &shard->options.about;
    size_t matching = 0;
    struct buf pairs;
    buf_init(&pairs, reply->alloc);
    for (uint32_t i = 0; i < about->settings_count; i++) {
        if (!matches_any(command, about->settings[i].name))
            continue;
        matching++;
        resp_reply_text(&pairs, about->settings[i].name);
        resp_reply_text(&pairs, about->settings[i].value);
    }
    for (uint32_t i = 0; i < BOUNDS_COUNT; i++) {
        struct buf value;
        if (!matches_any(command, bounds[i].name))
            continue;
        matching++;
        buf_init(&value, reply->alloc);
        buf_append_i64(&value, bound_value(shard, (enum bound)i));
        resp_reply_text(&pairs, bounds[i].name);
        resp_reply_bulk(&pairs, buf_span(&value));
        pairs.failed |= value.failed;
        buf_free(&value);
    }
    resp_reply_map(reply, proto, matching);
    buf_append_span(reply, buf_span(&pairs));
    reply->failed |= pairs.failed;
    buf_free(&pairs);
}

/* ---- CONFIG SET ----------------------------------------------------------------------------------------- */

static enum bound bound_of(struct span name)
{
    uint32_t bound = 0;
    while (bound < BOUNDS_COUNT && !span_is_nocase(name, bounds[bound].name))
        bound++;
    return (enum bound)bound;
}

static bool setting_known(const struct shard *shard, struct span name)
{
    const struct node_about *about = &shard->options.about;
    for (uint32_t i = 0; i < about->settings_count; i++) {
        if (span_is_nocase(name, about->settings[i].name))
            return true;
    }
    return false;
}

static void refuse(struct span name, const char *why, struct buf *error)
{
    buf_append_text(error, "ERR CONFIG SET failed (possibly related to argument '");
    buf_append_span(error, name);
    buf_append_text(error, "') - ");
    buf_append_text(error, why);
}

static void refuse_range(enum bound bound, struct buf *error)
{
    refuse(span_of_text(bounds[bound].name), "", error);
    buf_append_format(error, "argument must be between %" PRId64 " and %" PRId64 " inclusive",
                      bounds[bound].min, bounds[bound].max);
}

/* The value of one pair; nothing is appended to error if it can be set. */
static void check_pair(const struct shard *shard, struct span name, struct span value, struct buf *error)
{
    enum bound bound = bound_of(name);
    int64_t number = 0;
    if (bound == BOUNDS_COUNT && setting_known(shard, name)) {
        refuse(name,
               "can't set immutable config: it is a setting of rondod, and changes when the node is started "
               "with another",
               error);
    } else if (bound == BOUNDS_COUNT) {
        buf_append_text(error, "ERR Unknown option or number of arguments for CONFIG SET - '");
        buf_append_span(error, name);
        buf_append_text(error, "'");
    } else if (span_parse_i64(value, &number) != STATUS_OK) {
        refuse(name, "argument couldn't be parsed into an integer", error);
    } else if (number < bounds[bound].min || number > bounds[bound].max) {
        refuse_range(bound, error);
    }
}

bool settings_check(const struct shard *shard, const struct command *command, struct buf *error)
{
    for (uint32_t i = 2; i + 1 < command->argc && error->size == 0; i += 2) {
        check_pair(shard, command->argv[i], command->argv[i + 1], error);
        for (uint32_t k = 2; k < i && error->size == 0; k += 2) {
            if (bound_of(command->argv[k]) == bound_of(command->argv[i]))
                refuse(command->argv[i], "duplicate parameter", error);
        }
    }
    return error->size == 0 && !error->failed;
}

void settings_answer(struct shard *shard, const struct command *command)
{
    if (command->subcommand == SUBCOMMAND_CONFIG_RESETSTAT) {
        watch_reset(shard);
        return;
    }
    struct watch_bounds changed = shard->watch.bounds;
    for (uint32_t i = 2; i + 1 < command->argc; i += 2) {
        int64_t number = 0;
        enum status status = span_parse_i64(command->argv[i + 1], &number);
        enum bound bound = bound_of(command->argv[i]);
        assert(status == STATUS_OK && bound < BOUNDS_COUNT); /* settings_check() said so */
        if (bound == BOUND_SLOWER) {
            changed.log_off = number < 0;
            changed.slower_us = number < 0 ? 0 : (uint64_t)number;
        } else if (bound == BOUND_ENTRIES) {
            changed.entries_max = (uint32_t)number;
        } else {
            changed.threshold_ms = (uint64_t)number;
        }
    }
    watch_set(shard, &changed);
}
