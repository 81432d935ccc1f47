/* The read quorum of one request.
 *
 * Pure: the caller asks, merges records and keeps time; this machine knows who answered with which version, and
 * says what to do next. A value is answered once N - R + 1 natural replicas durably hold it, so that whichever R
 * replicas answer the next read, one of them holds it: a value once read stays read. Agreeing answers count, and
 * the merge is written back to as many more as it takes. Where 2R <= N that is not promised, and nothing is
 * written back. (DESIGN section 5; order of the clauses after Riak's get core.)
 *
 * An answer that does not count towards R (amnesiac or quarantined replica) still contributes its data, and such
 * a replica still counts as a holder of what it durably holds. */
#ifndef RONDO_QUORUM_GET_H
#define RONDO_QUORUM_GET_H

#include "base/limits.h"
#include "model/record.h"

enum get_decision {
    GET_WAIT,
    GET_ASK,        /* ask get->chosen for the key */
    GET_FETCH,      /* get->chosen holds a version that nobody sent: ask it for the whole record */
    GET_WRITE_BACK, /* send the merged record to get->chosen */
    GET_DONE,
    GET_FAILED, /* R cannot be reached, or the deadline passed */
};

enum get_state {
    GET_IDLE,     /* not asked */
    GET_ASKED,    /* an answer may come */
    GET_FETCHING, /* answered with a version; asked again for the record */
    GET_ANSWERED,
    GET_GONE, /* unreachable, refused or failed */
};

enum get_write {
    GET_WRITE_NONE,
    GET_WRITE_SENT,
    GET_WRITE_HELD, /* it holds the merged record (by a write-back) */
    GET_WRITE_FAILED,
};

struct get_replica {
    uint8_t state; /* enum get_state */
    uint8_t write; /* enum get_write */
    bool counts;   /* its answer counts towards R */
    bool unseen;   /* it told its version only; its record is not in the merge */
    struct version version;
};

struct get_quorum {
    uint8_t replicas;
    uint8_t needed;
    uint8_t chosen;                           /* the replica that a decision is about */
    enum status refusal;                      /* the last reason given for not answering; OK when none */
    struct version merged;                    /* of the merge of all whole records so far */
    struct get_replica replica[REPLICAS_MAX]; /* in the order in which they are to be asked */
};

/* replicas: N that exists; needed: R. */
void get_start(struct get_quorum *get, uint8_t replicas, uint8_t needed);

/* The caller carried out GET_ASK or GET_FETCH, or hedges by asking one more. */
void get_sent(struct get_quorum *get, uint8_t replica);
void get_write_sent(struct get_quorum *get, uint8_t replica);

struct get_answer {
    bool counts;            /* towards R */
    bool has_record;        /* the caller merged the record; merged is the version of the merge so far */
    struct version version; /* what the replica holds */
    struct version merged;
};

/* Answers are taken once; a second one replaces the first only if it brings the record. */
void get_answered(struct get_quorum *get, uint8_t replica, const struct get_answer *answer);
void get_gone(struct get_quorum *get, uint8_t replica, enum status reason);
void get_write_acked(struct get_quorum *get, uint8_t replica);
void get_write_failed(struct get_quorum *get,
                      uint8_t replica); /* it could not be sent, or no answer will come */
void get_write_refused(struct get_quorum *get, uint8_t replica, enum status reason);

uint8_t get_answers_counted(const struct get_quorum *get);

/* A replica that can be asked as a hedge, or REPLICAS_MAX. */
uint8_t get_hedge(const struct get_quorum *get);

/* While only write-backs are waited for: one more replica that can be written to, or REPLICAS_MAX. */
uint8_t get_hedge_write(const struct get_quorum *get);

/* What to do next; after ASK, FETCH or WRITE_BACK it is carried out and this is called again, until WAIT, DONE
 * or FAILED. */
enum get_decision get_decide(struct get_quorum *get, bool deadline_passed);

#endif
