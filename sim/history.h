/* What the clients did and saw: every operation with the time it was asked and the time it was answered. */
#ifndef RONDO_SIM_HISTORY_H
#define RONDO_SIM_HISTORY_H

#include "base/span.h"

#define HISTORY_KEY_NONE UINT32_MAX
#define HISTORY_KEYS_MAX 64
#define HISTORY_NEVER UINT64_MAX

/* The value number of "absent", and of "nothing is known". */
#define VALUE_ABSENT 0u
#define VALUE_UNREAD UINT32_MAX

enum history_kind {
    HISTORY_GET = 1,
    HISTORY_SET,
    HISTORY_DEL,
    HISTORY_EXPIRE, /* ttl_ms from when it is carried out */
    HISTORY_PERSIST,
};

enum history_outcome {
    HISTORY_OPEN = 0, /* no answer (yet): may take effect at any time */
    HISTORY_DONE,
    HISTORY_NOT_APPLIED, /* promised to have had no effect; of a read: failed */
    HISTORY_UNKNOWN,     /* may take effect at any time */
};

struct history_op {
    uint32_t key;
    uint32_t value; /* written or read: unique for each write of a value */
    enum history_kind kind;
    enum history_outcome outcome;
    uint8_t r; /* as numbers of replicas */
    uint8_t w;
    uint16_t client;
    uint16_t node;         /* that was asked */
    bool sloppy;           /* fallbacks count: it promises nothing of the replicas */
    bool found;            /* EXPIRE, PERSIST, DEL: answered 1 */
    uint16_t wiped_at_ask; /* disks lost when it was asked, and when it was answered */
    uint16_t wiped_at_answer;
    uint64_t ttl_ms; /* 0 = none */
    uint64_t asked_us;
    uint64_t answered_us; /* HISTORY_NEVER while open */
};

struct history {
    struct alloc *alloc;
    struct history_op *ops;
    uint32_t count;
    uint32_t capacity;
    uint32_t value_next;
};

/* What to do next, for one command. Several keys: MGET or MSET. */
struct operation_plan {
    enum history_kind kind;
    uint32_t keys[4];
    uint32_t key_count;
    uint64_t ttl_ms;
    uint32_t value_bytes;
};

void history_init(struct history *history, struct alloc *alloc);
void history_free(struct history *history);
/* The index of a new operation. */
uint32_t history_add(struct history *history, const struct history_op *op);

/* Key names and the way back; HISTORY_KEY_NONE for a name that is not ours. */
void history_key_name(uint32_t key, struct buf *name);
uint32_t history_key_of(struct span name);
/* The value's bytes, and the way back (VALUE_UNREAD for bytes that nobody wrote). */
void history_value_put(uint32_t value, uint32_t bytes, struct buf *text);
uint32_t history_value_of(struct span text);

const char *history_kind_name(enum history_kind kind);
const char *history_outcome_name(enum history_outcome outcome);

#endif
