/* Anti-entropy between two replicas: finds the records that differ, and moves just those, both ways.
 *
 * One side starts an exchange of some slots; the other serves its messages one by one and remembers nothing
 * between them. So a lost message is sent again, a duplicate does no harm, and an exchange that was cut off
 * is simply started anew: what is already equal costs a digest.
 *
 * A row's position is 48 bits: its 16-bit tag hash, then 32 bits of its key's hash. A branch (slot, level,
 * index) holds the rows whose first `level` bits are index. Down to a tree's depth a branch is folded from
 * the tree; below that, or where a leaf is dirty, it is summed from rows, so trees of any depth meet, and a
 * leaf grown large (a hot tag) is divided like any other. Four kinds of message, each with its answer:
 *
 *   ROOTS    a digest for each slot
 *            -> the slots that differ, with the other side's counts
 *   COMPARE  for each branch, digests of its 2 to 16 children
 *            -> the children that differ, with the other side's counts
 *   LIST     for each small branch, 64 bits for each of our rows
 *            -> which of them the other side lacks; and of its rows that we lack the (key, version), or the
 *               whole record where we have nothing to weigh it against
 *   RECORDS  records that the other side lacks, and the keys of those that we lack
 *            -> merged durably; the records of those keys
 *
 * A branch that one side holds nothing of skips the steps in between, so that filling an empty node costs
 * little more than its records.
 *
 * Digests are 64 bits, salted with the session's number: if two different sums ever agree, another session
 * tells them apart. When every branch of a slot is done, every version that either side held when the
 * exchange STARTED is held, or was superseded, on both: that start is the time to note as "verified equal"
 * (DESIGN section 6, Purge).
 *
 * Pure: where rows are needed, the caller is told which and feeds them. It feeds exactly the rows that count
 * in its tree. Merging is the caller's: by the usual rules, logged, durable before it goes on.
 * Method: Dynamo
 * section 4.7; row-level repair as in Scylla; the salt and the empty-side short cuts are ours. */
#ifndef RONDO_REPAIR_EXCHANGE_H
#define RONDO_REPAIR_EXCHANGE_H

#include "repair/merkle.h"

/* A message stops growing here; only one record larger than that makes a longer one, which still fits a
 * frame. */
#define EXCHANGE_MESSAGE_BYTES_MAX (256u << 10)

/* Slots of one exchange; branches of one LIST or RECORDS; branches of one COMPARE (each has up to 16
 * children, so all their digests are 32 KiB). */
#define EXCHANGE_SLOTS_MAX 1024u
#define EXCHANGE_BRANCHES_MAX 1024u
#define EXCHANGE_COMPARE_MAX 256u

enum exchange_type {
    EXCHANGE_ROOTS = 1,
    EXCHANGE_ROOTS_ANSWER = 2,
    EXCHANGE_COMPARE = 3,
    EXCHANGE_COMPARE_ANSWER = 4,
    EXCHANGE_LIST = 5,
    EXCHANGE_LIST_ANSWER = 6,
    EXCHANGE_RECORDS = 7,
    EXCHANGE_RECORDS_ANSWER = 8,
    EXCHANGE_REFUSED = 9, /* the answer to any of them: u8 status */
};

/* What every message starts with: u8 type | u64 session | u32 step. */
struct exchange_head {
    enum exchange_type type;
    uint64_t session; /* of the side that started; also the salt */
    uint32_t step;    /* rises with each request; an answer repeats it */
};
#define EXCHANGE_HEAD_BYTES 13u

/* MALFORMED unless a head of a known type. */
MUST_CHECK enum status exchange_read_head(struct span message, struct exchange_head *head);

/* Rows that are needed: all of a slot between two tags, both included, or (point) the one with this key. */
struct exchange_need {
    struct span key; /* view into the exchange; valid until exchange_need_done or exchange_serve_need_done */
    uint16_t slot;
    uint16_t tag_first;
    uint16_t tag_last;
    bool point;
};

struct exchange_record {
    struct span key; /* views into the message */
    struct span record;
    uint16_t slot;
};

/* ---- the side that starts ------------------------------------------------------------------------------ */

enum exchange_state {
    EXCHANGE_READING, /* feed the rows of exchange_need, in that order */
    EXCHANGE_SENDING, /* send exchange_message (again, if no answer comes); give the answer to exchange_answer */
    EXCHANGE_MERGING, /* merge the records of exchange_merge_next; once all are durable, exchange_merged */
    EXCHANGE_DONE,
    EXCHANGE_FAILED, /* out of memory, or the other side refused: see status; slots done before stay verified */
};

struct exchange_options {
    struct alloc *alloc;         /* must outlive the exchange */
    const struct merkle *merkle; /* likewise */
    uint64_t session;            /* never used before between these two nodes; also the repair session */
    uint64_t started_us;         /* for the caller: handed back */
    const uint16_t *slots;       /* each once; copied; both nodes hold them, in one shard each */
    uint32_t slot_count;         /* 1 to EXCHANGE_SLOTS_MAX */
};

struct exchange_counters {
    uint64_t bytes_sent; /* of messages that were answered; without frames */
    uint64_t bytes_received;
    uint64_t messages;
    uint64_t records_sent;
    uint64_t records_received;
    uint64_t rows_read;
    uint64_t branches; /* compared or listed */
};

struct exchange_slot_result {
    uint16_t slot;
    bool verified; /* both sides hold what either held at started_us, or newer */
    bool differed;
};

struct exchange;

/* Makes an exchange; NULL without memory. It starts SENDING. */
struct exchange *exchange_start(const struct exchange_options *options);
void exchange_free(struct exchange *exchange);

enum exchange_state exchange_state(const struct exchange *exchange);
enum status exchange_status(const struct exchange *exchange); /* why it failed; OK otherwise */
const struct exchange_counters *exchange_counters(const struct exchange *exchange);
uint64_t exchange_started_us(const struct exchange *exchange);

/* READING: the need that comes `ahead` needs after the current one (0), to fetch several at once. False past
 * the last of this batch. */
bool exchange_need(const struct exchange *exchange, uint32_t ahead, struct exchange_need *need);

/* READING: one row of the current need; the spans are only looked at. Rows outside of the need are ignored. */
void exchange_row(struct exchange *exchange, struct span key, struct span record);
void exchange_need_done(struct exchange *exchange);

/* SENDING: the message; valid until exchange_answer takes its answer. */
struct span exchange_message(const struct exchange *exchange);

/* SENDING: an answer came. MALFORMED: not an answer of ours; nothing changed. NOT_FOUND: of another session
 * or step (late, or a duplicate), or none is awaited; nothing changed. OVERLOADED: the exchange has failed
 * for want of memory; likewise, with its status, if the other side refused. */
MUST_CHECK enum status exchange_answer(struct exchange *exchange, struct span answer);

/* MERGING: the next record, or false after the last. */
bool exchange_merge_next(struct exchange *exchange, struct exchange_record *record);
void exchange_merged(struct exchange *exchange);

uint32_t exchange_slot_count(const struct exchange *exchange);

/* The result of the slot at index (< slot_count), in any state. */
struct exchange_slot_result exchange_slot_result(const struct exchange *exchange, uint32_t index);

/* ---- the side that serves ------------------------------------------------------------------------------ */

struct exchange_serve;

/* Takes a request apart. The message is copied. MALFORMED: no request that exchange_message would give;
 * OVERLOADED. */
MUST_CHECK enum status exchange_serve_begin(struct alloc *alloc, const struct merkle *merkle,
                                            struct span message, struct exchange_serve **serve);
void exchange_serve_free(struct exchange_serve *serve);

/* Whether it begins an exchange: it is about its slots, each once. */
bool exchange_serve_begins(const struct exchange_serve *serve);

/* The slots it is about, with repetitions: false past the last. The caller checks them, and refuses. */
bool exchange_serve_slot(const struct exchange_serve *serve, uint32_t index, uint16_t *slot);

/* First the records to merge; answer only when all are durable. False after the last. */
bool exchange_serve_merge_next(struct exchange_serve *serve, struct exchange_record *record);

/* Then the rows, as on the other side. */
bool exchange_serve_need(const struct exchange_serve *serve, uint32_t ahead, struct exchange_need *need);
void exchange_serve_row(struct exchange_serve *serve, struct span key, struct span record);
void exchange_serve_need_done(struct exchange_serve *serve);

/* Then, with no need left, the answer is appended to out. OVERLOADED: no memory (out is as before): refuse. */
MUST_CHECK enum status exchange_serve_finish(struct exchange_serve *serve, struct buf *out);

/* Instead of all that: appends an answer that ends the exchange with this status (not OK). */
void exchange_serve_refuse(struct span message, enum status status, struct buf *out);

#endif
