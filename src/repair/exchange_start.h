/* The side of an exchange that starts: its state, shared by exchange.c (what to do next) and exchange_take.c
 * (what an answer says). */
#ifndef RONDO_REPAIR_EXCHANGE_START_H
#define RONDO_REPAIR_EXCHANGE_START_H

#include "repair/exchange_internal.h"

/* Branches with no more rows than this on our side are listed rather than divided: eight digests of rows cost
 * what eight digests of children would. */
#define LIST_ROWS_MAX 8u
/* The other side may hold so many more. */
#define LIST_PEER_ROWS_MAX 64u
/* A branch that one side holds nothing of is sent whole up to here; so many 100-byte records are 64 KiB. */
#define FILL_ROWS_MAX 512u
/* A branch whose answers keep being cut short is given up: its rows change faster than they can be sent. */
#define TRIES_MAX 64u

enum phase {
    PHASE_COMPARE,
    PHASE_LIST,
    PHASE_PUSH, /* the other side holds nothing of it: our rows go at once */
};

struct work {
    struct branch branch;
    uint32_t count; /* ours, or COUNT_UNKNOWN */
    uint32_t count_peer;
    enum phase phase;
    uint8_t tries;
    uint8_t step;        /* COMPARE: of the message under way */
    bool again;          /* not all of it fitted: once more */
    bool moved;          /* some of it did fit */
    bool wants;          /* keys of it are in the RECORDS under way */
    bool ready;          /* needs no (more) rows */
    uint32_t list_first; /* its part of digests */
    uint32_t list_count;
    uint32_t rows_first; /* its part of peer_rows */
    uint32_t rows_count;
};

struct peer_row {
    struct span key; /* view into answer */
    struct version version;
    bool wanted;
};

struct slot_state {
    uint32_t open; /* branches that are not done */
    uint16_t slot;
    bool differed;
    bool gave_up;
};

/* A growing array of one type. */
struct work_list {
    struct work *items;
    uint32_t count;
    uint32_t capacity;
};

/* What the rows being read are for. */
enum reading {
    READING_REQUEST, /* the COMPARE or LIST to send */
    READING_RECORDS, /* the RECORDS to send */
};

struct exchange {
    struct alloc *alloc;
    const struct merkle *merkle;
    uint64_t session;
    uint64_t started_us;
    uint32_t step;
    enum exchange_state state;
    enum status status;
    enum exchange_type awaited; /* SENDING: the request's type */
    enum reading reading;
    struct exchange_counters counters;
    struct slot_state *slots; /* in ascending order */
    uint32_t slot_count;
    struct work_list todo;        /* a stack: depth first, so it stays small */
    struct work_list batch;       /* what the request under way is about */
    uint32_t at;                  /* READING: the current one */
    struct merkle_node *children; /* COMPARE: CHILDREN_MAX for each of the batch */
    uint32_t child_capacity;
    struct buf digests;   /* LIST: u64s of our rows, then */
    struct buf lacked;    /* a byte for each: the other side lacks it */
    struct buf peer_rows; /* struct peer_row: what the other side holds and we may lack */
    struct buf pushes;
    uint32_t push_count;
    struct buf wants;
    uint32_t want_count;
    struct buf out;
    struct buf answer; /* a copy of the last one, while it is used */
    struct buf merges; /* struct exchange_record: what the answer brought, views into it */
    uint32_t merge_at;
    bool merges_end_batch; /* after these the batch is done; else its RECORDS are still to be made */
};

static inline uint64_t *exchange_digests(struct exchange *exchange)
{
    return (uint64_t *)(void *)exchange->digests.data;
}

static inline struct peer_row *exchange_peer_rows(struct exchange *exchange)
{
    return (struct peer_row *)(void *)exchange->peer_rows.data;
}

/* The exchange ends with this status. */
void exchange_fail(struct exchange *exchange, enum status status);

struct slot_state *exchange_slot(struct exchange *exchange, uint16_t slot);

MUST_CHECK bool work_push(struct exchange *exchange, struct work_list *list, const struct work *work);

/* A branch that differs: what to do about it, by how many rows each side holds.
 * */
enum phase exchange_phase(const struct branch *branch, uint32_t count, uint32_t count_peer);

/* Next, the rows of those of the batch that are not ready are read. */
void exchange_read(struct exchange *exchange, enum reading reading);

/* The batch is done: repeats what was cut short, takes up the next, or ends. */
void exchange_batch_done(struct exchange *exchange);

/* Goes on as far as possible without rows and answers. */
void exchange_go_on(struct exchange *exchange);

void exchange_start_message(struct exchange *exchange, enum exchange_type type);
void exchange_end_message(struct exchange *exchange);

/* One row for the RECORDS to send; and their message (false: there is nothing to send). */
void exchange_push_row(struct exchange *exchange, struct work *work, const struct fed_row *row);
bool exchange_send_records(struct exchange *exchange);

#endif
