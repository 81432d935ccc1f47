/* Operations on one key and their results: what the protocols ask for and what coordinators answer. */
#ifndef RONDO_MODEL_OPERATION_H
#define RONDO_MODEL_OPERATION_H

#include "model/record.h"

enum operation_kind {
    OPERATION_GET = 1,
    OPERATION_PUT = 2,
    OPERATION_DELETE = 3,
    OPERATION_EXPIRE = 4, /* sets, or with expiry_ms 0 removes, the expiry of the value a quorum holds */
};

enum operation_flags {
    /* EXPIRE: only where the value read has no expiry; has one; has an earlier one; has a later one or none. */
    OPERATION_IF_NONE = 1,
    OPERATION_IF_SOME = 2,
    OPERATION_IF_LATER = 4,
    OPERATION_IF_SOONER = 8,
    OPERATION_KEEP_EXPIRY = 16, /* PUT: reads first; the new value expires when the one read would have */
    OPERATION_WANT_VALUE = 32,  /* EXPIRE: the result has the value, whether or not its expiry changed */
};
#define OPERATION_FLAGS_ALL 63

/* Replica counts asked for. QUORUM is N / 2 + 1 and ALL is N, of the N that exists. */
#define COUNT_DEFAULT 0
#define COUNT_QUORUM 254
#define COUNT_ALL 255

struct operation {
    enum operation_kind kind;
    uint8_t flags; /* enum operation_flags */
    uint8_t r;     /* 1 .. REPLICAS_MAX, COUNT_DEFAULT, COUNT_QUORUM or COUNT_ALL */
    uint8_t w;
    bool sloppy;         /* where a replica cannot be reached, a fallback's durable hint stands in for it */
    bool trace;          /* the result tells how it came about */
    uint32_t timeout_ms; /* 0 = the node's default */
    uint64_t expiry_ms;  /* absolute wall clock; 0 = none */
    struct span key;     /* views; the callee copies what it keeps */
    struct span value;
};

/* The replica count that matters to the operation, as it was asked for. */
static inline uint8_t operation_asked(const struct operation *operation)
{
    return operation->kind == OPERATION_GET ? operation->r : operation->w;
}

/* Whether it reads a quorum, and then writes what follows from that. */
static inline bool operation_reads_first(enum operation_kind kind, uint8_t flags)
{
    return kind == OPERATION_EXPIRE || (flags & OPERATION_KEEP_EXPIRY) != 0;
}

/* How a write ended (DESIGN "three outcomes"). For reads: DONE, or NOT_APPLIED with the status as reason. */
enum outcome {
    OUTCOME_DONE = 1,
    OUTCOME_NOT_APPLIED = 2,
    OUTCOME_UNKNOWN = 3,
};

#define TRACE_SEPARATOR ", "

struct result {
    enum outcome outcome;
    enum status status; /* OK when done; else why not */
    uint8_t needed;     /* R or W of the request */
    uint8_t acks;       /* answers that counted */
    bool found; /* GET, or with WANT_VALUE: a live value; DELETE: one was deleted; EXPIRE: it was set */
    struct version version; /* of the record read or written */
    uint64_t expiry_ms;     /* GET: 0 = never */
    struct span trace;      /* events of a traced operation, joined by TRACE_SEPARATOR; a view as value */
    struct span value;      /* GET, WANT_VALUE: view, valid during the call that delivers the result */
};

#endif
