/* Log lines. */
#include "edge/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "edge/clock.h"
#include "proto/json.h"

/* Every byte of message and name escaped in the longest way, and the rest of the line. */
#define LINE_BYTES_MAX (6u * (SAY_BYTES_MAX + NAME_BYTES_MAX) + 128u)

static const char *const level_names[] = {"error", "warning", "info", "debug"};

static void put_time(struct buf *line, uint64_t wall_ms)
{
    char text[32];
    struct tm tm;
    time_t seconds = (time_t)(wall_ms / 1000);
    gmtime_r(&seconds, &tm);
    size_t size = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_append(line, text, size);
    buf_append_format(line, ".%03uZ", (unsigned)(wall_ms % 1000));
}

/* A value of logfmt, in quotes. */
static void put_quoted(struct buf *line, struct span text)
{
    buf_append_text(line, "\"");
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.data[i];
        if (byte == '"' || byte == '\\')
            buf_append_format(line, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f)
            buf_append_format(line, "\\x%02x", byte);
        else
            buf_append(line, &byte, 1);
    }
    buf_append_text(line, "\"");
}

/* Whether logfmt can do without quotes. */
static bool is_word(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text <= ' ' || *text == '=' || *text == '"' || *text == '\\' || *text == 0x7f)
            return false;
    }
    return true;
}

static void put_logfmt(struct buf *line, const struct say_sink *sink, enum say_level level, uint16_t shard,
                       uint64_t wall_ms, struct span message)
{
    buf_append_text(line, "ts=");
    put_time(line, wall_ms);
    buf_append_format(line, " level=%s ", level_names[level]);
    if (sink->node[0] != '\0') {
        buf_append_text(line, "node=");
        if (is_word(sink->node))
            buf_append_text(line, sink->node);
        else
            put_quoted(line, span_of_text(sink->node));
        buf_append_text(line, " ");
    }
    buf_append_format(line, "shard=%u msg=", shard);
    put_quoted(line, message);
    buf_append_text(line, "\n");
}

static void put_json(struct buf *line, const struct say_sink *sink, enum say_level level, uint16_t shard,
                     uint64_t wall_ms, struct span message)
{
    buf_append_text(line, "{\"ts\":\"");
    put_time(line, wall_ms);
    buf_append_format(line, "\",\"level\":\"%s\",", level_names[level]);
    if (sink->node[0] != '\0') {
        buf_append_text(line, "\"node\":");
        json_put_string(line, span_of_text(sink->node));
        buf_append_text(line, ",");
    }
    buf_append_format(line, "\"shard\":%u,\"msg\":", shard);
    json_put_string(line, message);
    buf_append_text(line, "}\n");
}

void say_put_line(struct buf *line, const struct say_sink *sink, enum say_level level, uint16_t shard,
                  uint64_t wall_ms, struct span message)
{
    if (message.size > SAY_BYTES_MAX)
        message.size = SAY_BYTES_MAX;
    if (sink->shape == SAY_JSON)
        put_json(line, sink, level, shard, wall_ms, message);
    else
        put_logfmt(line, sink, level, shard, wall_ms, message);
}

void say_line(const struct say_sink *sink, enum say_level level, uint16_t shard, struct span message)
{
    uint8_t bytes[LINE_BYTES_MAX];
    struct alloc none;
    if (level > sink->level_max)
        return;
    /* On the stack: out of memory must be sayable. */
    alloc_init(&none, 0);
    struct buf line = {.alloc = &none, .data = bytes, .capacity = sizeof bytes};
    say_put_line(&line, sink, level, shard, clock_read().wall_ms, message);
    ssize_t written = write(STDERR_FILENO, line.data, line.size);
    (void)written; /* a log that cannot be written must not stop the node */
}

void say_format(const struct say_sink *sink, enum say_level level, uint16_t shard, const char *format, ...)
{
    char text[SAY_BYTES_MAX];
    va_list arguments;
    if (level > sink->level_max)
        return;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (size < 0)
        return;
    size_t kept = (size_t)size < sizeof text ? (size_t)size : sizeof text - 1;
    say_line(sink, level, shard, span_of(text, kept));
}

_Noreturn void say_and_exit(const struct say_sink *sink, uint16_t shard, struct span reason)
{
    say_line(sink, SAY_ERROR, shard, reason);
    _exit(1);
}
