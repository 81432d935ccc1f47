/* The write quorum of one request: who was asked, who answered, and what follows from it.
 *
 * Pure: the caller sends, merges and keeps time; this machine counts. A write is done once W natural replicas
 * hold it durably. Each answer carries the stamp held there; if one of them is higher than the write's own, the
 * write is stamped anew above it and sent once more before it is acknowledged (DESIGN section 3), so that with
 * 2W > N sequential writes are ordered by real time and not by clocks. One second round is enough: whatever was
 * acknowledged before this write began is held by W replicas, and any W answers include one of them. */
#ifndef RONDO_QUORUM_PUT_H
#define RONDO_QUORUM_PUT_H

#include "base/limits.h"
#include "model/stamp.h"

enum put_decision {
    PUT_WAIT,
    PUT_DONE,
    PUT_RESTAMP,     /* stamp above put->highest, put_restart, send to all again */
    PUT_NOT_APPLIED, /* nobody appended it and nobody can */
    PUT_UNKNOWN,     /* too few answered; it may be held somewhere */
};

enum put_state {
    PUT_UNSENT, /* nothing has left for this replica in this round */
    PUT_ASKED,
    PUT_ACKED,
    PUT_REFUSED, /* it says that it applied nothing, of no copy */
    PUT_LOST,    /* asked, and no answer will come */
};

struct put_quorum {
    uint8_t replicas;
    uint8_t needed;
    uint8_t round; /* 1 or 2 */
    bool
        maybe_applied; /* some replica may hold this write from an earlier round, or another copy of the message */
    bool was_live;       /* an acknowledging replica held a live value before */
    enum status refusal; /* the last reason given; OK when none */
    struct stamp own;
    struct stamp highest;         /* held by those who acknowledged, in this round */
    uint8_t state[REPLICAS_MAX];  /* enum put_state */
    uint8_t reason[REPLICAS_MAX]; /* enum status: why it was refused there, in this round */
    uint8_t copies[REPLICAS_MAX]; /* sent there in this round, and not refused */
};

struct put_options {
    uint8_t replicas; /* 1 .. REPLICAS_MAX */
    uint8_t needed;   /* W: 1 .. replicas */
    struct stamp own;
};

void put_start(struct put_quorum *put, const struct put_options *options);

/* The message for this replica is about to leave (or the local merge is about to be appended). */
void put_sent(struct put_quorum *put, uint8_t replica);

/* The message leaves for this replica once more, because its answer may have been lost. From now on one refusal says
 * nothing of the other copy. */
void put_sent_again(struct put_quorum *put, uint8_t replica);

/* The replica holds the write durably, or something newer: `held` is the stamp it holds in the register written.
 * Counts once however often it is said. */
void put_acked(struct put_quorum *put, uint8_t replica, struct stamp held, bool was_live);

/* The replica applied nothing of one copy. */
void put_refused(struct put_quorum *put, uint8_t replica, enum status reason);

/* The replica applied nothing because it has purged something newer under this key: the write is to be stamped above
 * `floor`. */
void put_purged(struct put_quorum *put, uint8_t replica, struct stamp floor);

/* No answer will come: the connection broke. A replica that was never asked stays PUT_UNSENT. */
void put_lost(struct put_quorum *put, uint8_t replica);

uint8_t put_acks(const struct put_quorum *put);

/* What follows from the answers so far. Call it only after every message of the round has been sent: an unsent
 * replica is one that will not answer. */
enum put_decision put_decide(const struct put_quorum *put, bool deadline_passed);

/* The second round, with a stamp above put->highest. */
void put_restart(struct put_quorum *put, struct stamp own);

#endif
