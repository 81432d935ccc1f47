/* Status codes: every operation that can fail answers one of these.
 *
 * One X-macro holds the codes, their wire names (used in RESP error prefixes,
 * HTTP "error" fields and logs) and a short text. Codes are part of the peer
 * protocol: append only, never renumber. */
#ifndef RONDO_BASE_STATUS_H
#define RONDO_BASE_STATUS_H

#define STATUS_MAP(X)                                                                      \
    X(OK, 0, "OK", "done")                                                                 \
    X(MORE, 1, "MORE", "more input is needed")                                             \
    X(MALFORMED, 2, "MALFORMED", "the input does not follow the format")                   \
    X(OVERLOADED, 3, "OVERLOADED", "a memory or queue limit is reached; try again later")  \
    X(TOO_LARGE, 4, "TOO_LARGE", "a size is past its limit")                               \
    X(NOT_FOUND, 5, "NOT_FOUND", "no such key")                                            \
    X(BAD_REQUEST, 6, "BAD_REQUEST", "the request makes no sense")                         \
    X(UNAVAILABLE, 7, "UNAVAILABLE", "too few replicas can answer; nothing was applied")   \
    X(OUTCOME_UNKNOWN, 8, "UNKNOWN", "the write may still take effect")                    \
    X(TIMED_OUT, 9, "TIMEOUT", "too few replicas answered in time")                        \
    X(CLOCK_SKEW, 10, "CLOCK_SKEW", "this node's clock disagrees with its peers")          \
    X(STALE_EPOCH, 11, "STALE_EPOCH", "the sender's ring record is older than the slot")   \
    X(QUARANTINED, 12, "QUARANTINED", "the node may have lost this key's data")            \
    X(DISK_FULL, 13, "DISK_FULL", "the data directory has no room")                        \
    X(CORRUPT, 14, "CORRUPT", "stored bytes do not match their checksum")                  \
    X(IO_ERROR, 15, "IO_ERROR", "the operating system refused the operation")              \
    X(WRONG_CLUSTER, 16, "WRONG_CLUSTER", "the peer or directory is of another cluster")   \
    X(WRONG_PROTOCOL, 17, "WRONG_PROTOCOL", "the peer speaks another protocol or version") \
    X(UNSUPPORTED, 18, "UNSUPPORTED", "this version of Rondo does not do that")            \
    X(WAIT, 19, "WAIT", "not yet; asked again when its cause is gone")                     \
    X(EXPIRED, 20, "EXPIRED", "the request's deadline passed before it was applied")       \
    X(STARTING, 21, "STARTING", "the node is not ready yet")                               \
    X(PURGED, 22, "PURGED", "the write is older than a delete that has been purged")

enum status {
#define STATUS_ENUM(name, number, wire, text) STATUS_##name = number,
    STATUS_MAP(STATUS_ENUM)
#undef STATUS_ENUM
};

#define STATUS_COUNT 23

#define MUST_CHECK __attribute__((warn_unused_result))

/* The code's name as users see it ("OVERLOADED"); "INVALID" outside the range. Static storage. */
const char *status_name(enum status status);

/* One sentence for people; static storage. */
const char *status_text(enum status status);

#endif
