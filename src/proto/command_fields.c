/* Fields that RESP and HTTP requests share. */
#include "proto/command_fields.h"

#define QUOTE_BYTES_MAX 64

void command_quote(struct buf *error, struct span text)
{
    size_t size = text.size < QUOTE_BYTES_MAX ? text.size : QUOTE_BYTES_MAX;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = text.data[i] >= 0x20 && text.data[i] < 0x7f ? text.data[i] : '?';
        buf_append(error, &byte, 1);
    }
    if (size < text.size)
        buf_append_text(error, "...");
}

enum status command_count_parse(struct span text, const char *what, uint8_t *count, struct buf *error)
{
    uint64_t number = 0;
    if (span_is_nocase(text, "default")) {
        *count = COUNT_DEFAULT;
    } else if (span_is_nocase(text, "one")) {
        *count = 1;
    } else if (span_is_nocase(text, "quorum")) {
        *count = COUNT_QUORUM;
    } else if (span_is_nocase(text, "all")) {
        *count = COUNT_ALL;
    } else if (span_parse_u64(text, &number) == STATUS_OK && number >= 1 && number <= REPLICAS_MAX) {
        *count = (uint8_t)number;
    } else {
        buf_append_format(error, "%s must be a number from 1 to %d, one, quorum, all or default, not '", what,
                          REPLICAS_MAX);
        command_quote(error, text);
        buf_append_text(error, "'");
        return STATUS_BAD_REQUEST;
    }
    return STATUS_OK;
}

enum status command_timeout_parse(const struct command_limits *limits, struct span text, const char *what,
                                  uint32_t *timeout_ms, struct buf *error)
{
    uint64_t number = 0;
    if (span_is_nocase(text, "default")) {
        *timeout_ms = 0;
        return STATUS_OK;
    }
    if (span_parse_u64(text, &number) == STATUS_OK && number >= 1 && number <= limits->timeout_ms_max) {
        *timeout_ms = (uint32_t)number;
        return STATUS_OK;
    }
    buf_append_format(error, "%s must be from 1 to %u milliseconds or default, not '", what,
                      limits->timeout_ms_max);
    command_quote(error, text);
    buf_append_text(error, "'");
    return STATUS_BAD_REQUEST;
}

enum status command_slot_parse(struct span text, uint16_t *slot)
{
    uint64_t number = 0;
    if (span_parse_u64(text, &number) != STATUS_OK || number >= SLOTS_COUNT)
        return STATUS_BAD_REQUEST;
    *slot = (uint16_t)number;
    return STATUS_OK;
}

enum status command_yes_no_parse(struct span text, const char *what, bool *yes, struct buf *error)
{
    *yes = span_is_nocase(text, "yes");
    if (*yes || span_is_nocase(text, "no"))
        return STATUS_OK;
    buf_append_format(error, "%s must be yes or no, not '", what);
    command_quote(error, text);
    buf_append_text(error, "'");
    return STATUS_BAD_REQUEST;
}

enum status command_expiry_resolve(const struct command_expiry *expiry, uint64_t now_ms, int64_t *expiry_ms)
{
    int64_t when = expiry->amount;
    if (expiry->seconds && __builtin_mul_overflow(when, 1000, &when))
        return STATUS_BAD_REQUEST;
    if (!expiry->absolute && __builtin_add_overflow(when, now_ms, &when))
        return STATUS_BAD_REQUEST;
    *expiry_ms = when;
    return STATUS_OK;
}

enum status command_key_check(const struct command_limits *limits, struct span key, struct buf *error)
{
    if (key.size <= limits->key_bytes_max)
        return STATUS_OK;
    buf_append_format(error, "the key has %zu bytes; the limit is %zu (key-bytes-max)", key.size,
                      limits->key_bytes_max);
    return STATUS_TOO_LARGE;
}

enum status command_value_check(const struct command_limits *limits, struct span value, struct buf *error)
{
    if (value.size <= limits->value_bytes_max)
        return STATUS_OK;
    buf_append_format(error, "the value has %zu bytes; the limit is %zu (value-bytes-max)", value.size,
                      limits->value_bytes_max);
    return STATUS_TOO_LARGE;
}
