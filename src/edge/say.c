/* Log lines. */
#include "edge/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "edge/clock.h"

static const char *const level_names[] = {"error", "warning", "info", "debug"};

/* Escapes one byte into `at` (room for 4); returns how many bytes that took. */
static size_t escape_byte(uint8_t byte, char *at)
{
    if (byte == '"' || byte == '\\') {
        at[0] = '\\';
        at[1] = (char)byte;
        return 2;
    }
    if (byte < 0x20 || byte == 0x7f)
        return (size_t)snprintf(at, 5, "\\x%02x", byte);
    at[0] = (char)byte;
    return 1;
}

void say_line(enum say_level level_max, enum say_level level, uint16_t shard, struct span message)
{
    char line[SAY_BYTES_MAX + 128];
    struct tm tm;
    if (level > level_max)
        return;
    uint64_t wall_ms = clock_read().wall_ms;
    time_t seconds = (time_t)(wall_ms / 1000);
    gmtime_r(&seconds, &tm);
    size_t size = strftime(line, 32, "ts=%Y-%m-%dT%H:%M:%S", &tm);
    size += (size_t)snprintf(line + size, 64, ".%03uZ level=%s shard=%u msg=\"", (unsigned)(wall_ms % 1000),
                             level_names[level], shard);
    for (size_t i = 0; i < message.size && size < SAY_BYTES_MAX; i++)
        size += escape_byte(message.data[i], line + size);
    line[size++] = '"';
    line[size++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, size);
    (void)written; /* a log that cannot be written must not stop the node */
}

void say_format(enum say_level level_max, enum say_level level, uint16_t shard, const char *format, ...)
{
    char text[SAY_BYTES_MAX];
    va_list arguments;
    if (level > level_max)
        return;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (size < 0)
        return;
    size_t kept = (size_t)size < sizeof text ? (size_t)size : sizeof text - 1;
    say_line(level_max, level, shard, span_of(text, kept));
}

_Noreturn void say_and_exit(uint16_t shard, struct span reason)
{
    say_line(SAY_ERROR, SAY_ERROR, shard, reason);
    _exit(1);
}
