/* The fields that RESP and HTTP requests share: replica counts, timeouts, expiries, sizes. Errors are sentences
 * without a code. */
#ifndef RONDO_PROTO_COMMAND_FIELDS_H
#define RONDO_PROTO_COMMAND_FIELDS_H

#include "proto/command.h"

/* 1 to REPLICAS_MAX, "one", "quorum", "all" or "default". BAD_REQUEST with an error that names what is allowed;
 * `what` is the parameter's name there. */
MUST_CHECK enum status command_count_parse(struct span text, const char *what, uint8_t *count,
                                           struct buf *error);

/* 1 to limits->timeout_ms_max, or "default" (0). */
MUST_CHECK enum status command_timeout_parse(const struct command_limits *limits, struct span text,
                                             const char *what, uint32_t *timeout_ms, struct buf *error);

/* 0 to SLOTS_COUNT - 1; BAD_REQUEST for anything else. */
MUST_CHECK enum status command_slot_parse(struct span text, uint16_t *slot);

/* "yes" or "no". */
MUST_CHECK enum status command_yes_no_parse(struct span text, const char *what, bool *yes, struct buf *error);

/* An expiry as clients give it. */
struct command_expiry {
    int64_t amount;
    bool seconds;  /* else milliseconds */
    bool absolute; /* else from now */
};

/* To absolute milliseconds, which may be in the past. BAD_REQUEST when it does not fit 63 bits. */
MUST_CHECK enum status command_expiry_resolve(const struct command_expiry *expiry, uint64_t now_ms,
                                              int64_t *expiry_ms);

/* The expiry of an operation that may name one that has passed: 0 would be none. */
static inline uint64_t command_expiry_past(int64_t expiry_ms)
{
    return expiry_ms > 0 ? (uint64_t)expiry_ms : 1;
}

/* TOO_LARGE past the limit. */
MUST_CHECK enum status command_key_check(const struct command_limits *limits, struct span key,
                                         struct buf *error);
MUST_CHECK enum status command_value_check(const struct command_limits *limits, struct span value,
                                           struct buf *error);

/* The text for an error: at most 64 of its bytes, those that are not printable as '?'. */
void command_quote(struct buf *error, struct span text);

#endif
