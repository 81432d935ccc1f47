/* The write quorum. The order of the clauses of put_decide is the quorum rule. */
#include "quorum/put.h"

#include <assert.h>

void put_start(struct put_quorum *put, const struct put_options *options)
{
    assert(options->replicas >= 1 && options->replicas <= REPLICAS_MAX);
    assert(options->needed >= 1 && options->needed <= options->replicas);
    *put = (struct put_quorum){
        .replicas = options->replicas,
        .needed = options->needed,
        .round = 1,
        .refusal = STATUS_OK,
        .own = options->own,
    };
}

void put_sent(struct put_quorum *put, uint8_t replica)
{
    assert(replica < put->replicas);
    assert(put->state[replica] == PUT_UNSENT);
    put->state[replica] = PUT_ASKED;
    put->copies[replica] = 1;
}

void put_sent_again(struct put_quorum *put, uint8_t replica)
{
    assert(replica < put->replicas);
    assert(put->state[replica] == PUT_ASKED);
    if (put->copies[replica] < UINT8_MAX)
        put->copies[replica]++;
}

void put_acked(struct put_quorum *put, uint8_t replica, struct stamp held, bool was_live)
{
    assert(replica < put->replicas);
    /* A late answer of a replica thought lost counts; a repeated one does not. */
    if (put->state[replica] == PUT_ACKED || put->state[replica] == PUT_UNSENT)
        return;
    put->state[replica] = PUT_ACKED;
    put->highest = stamp_max(put->highest, held);
    put->was_live |= was_live;
}

void put_refused(struct put_quorum *put, uint8_t replica, enum status reason)
{
    assert(replica < put->replicas);
    if (put->state[replica] != PUT_ASKED && put->state[replica] != PUT_LOST)
        return;
    put->reason[replica] = (uint8_t)reason;
    put->refusal = reason;
    put->copies[replica]--;
    if (put->copies[replica] > 0 && reason != STATUS_PURGED)
        return;
    put->maybe_applied |= put->copies[replica] > 0;
    put->state[replica] = PUT_REFUSED;
}

void put_purged(struct put_quorum *put, uint8_t replica, struct stamp floor)
{
    put_refused(put, replica, STATUS_PURGED);
    put->highest = stamp_max(put->highest, floor);
}

void put_lost(struct put_quorum *put, uint8_t replica)
{
    assert(replica < put->replicas);
    if (put->state[replica] == PUT_ASKED)
        put->state[replica] = PUT_LOST;
}

static uint8_t count_state(const struct put_quorum *put, enum put_state state)
{
    uint8_t count = 0;
    for (uint8_t i = 0; i < put->replicas; i++)
        count = (uint8_t)(count + (put->state[i] == state));
    return count;
}

uint8_t put_acks(const struct put_quorum *put)
{
    return count_state(put, PUT_ACKED);
}

enum put_decision put_decide(const struct put_quorum *put, bool deadline_passed)
{
    uint8_t acks = put_acks(put);
    uint8_t asked = count_state(put, PUT_ASKED);
    if (acks >= put->needed) {
        bool beaten = stamp_compare(put->highest, put->own) > 0;
        return beaten && put->round == 1 ? PUT_RESTAMP : PUT_DONE;
    }
    /* Those that purged take it under a higher stamp. */
    uint8_t purged = 0;
    for (uint8_t i = 0; i < put->replicas; i++)
        purged = (uint8_t)(purged + (put->state[i] == PUT_REFUSED && put->reason[i] == STATUS_PURGED));
    if (purged > 0 && acks + purged >= put->needed && put->round == 1 && !deadline_passed)
        return PUT_RESTAMP;
    if (acks + asked >= put->needed && !deadline_passed)
        return PUT_WAIT;
    bool maybe_held = put->maybe_applied || acks > 0 || asked > 0 || count_state(put, PUT_LOST) > 0;
    return maybe_held ? PUT_UNKNOWN : PUT_NOT_APPLIED;
}

void put_restart(struct put_quorum *put, struct stamp own)
{
    assert(put->round == 1);
    assert(stamp_compare(own, put->highest) > 0);
    put->round = 2;
    put->maybe_applied = true;
    put->own = own;
    put->highest = own;
    for (uint8_t i = 0; i < put->replicas; i++) {
        put->state[i] = PUT_UNSENT;
        put->reason[i] = STATUS_OK;
        put->copies[i] = 0;
    }
}
