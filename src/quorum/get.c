/* The read quorum. The order of the clauses of get_decide is the quorum rule. */
#include "quorum/get.h"

#include <assert.h>

void get_start(struct get_quorum *get, uint8_t replicas, uint8_t needed)
{
    assert(replicas >= 1 && replicas <= REPLICAS_MAX);
    assert(needed >= 1 && needed <= replicas);
    *get = (struct get_quorum){.replicas = replicas, .needed = needed, .refusal = STATUS_OK};
}

void get_sent(struct get_quorum *get, uint8_t replica)
{
    assert(replica < get->replicas);
    struct get_replica *asked = &get->replica[replica];
    assert(asked->state == GET_IDLE || asked->state == GET_ANSWERED);
    asked->state = asked->state == GET_IDLE ? GET_ASKED : GET_FETCHING;
}

void get_write_sent(struct get_quorum *get, uint8_t replica)
{
    assert(replica < get->replicas);
    get->replica[replica].write = GET_WRITE_SENT;
}

void get_answered(struct get_quorum *get, uint8_t replica, const struct get_answer *answer)
{
    assert(replica < get->replicas);
    struct get_replica *from = &get->replica[replica];
    bool expected = from->state == GET_ASKED || from->state == GET_GONE ||
                    (from->state == GET_FETCHING && answer->has_record);
    if (answer->has_record) {
        bool merge_grew = !version_equal(get->merged, answer->merged);
        get->merged = answer->merged;
        /* Whoever acknowledged the smaller merge may not hold the larger one. */
        for (uint8_t i = 0; merge_grew && i < get->replicas; i++)
            get->replica[i].write = GET_WRITE_NONE;
    }
    if (!expected)
        return;
    from->state = GET_ANSWERED;
    from->counts = answer->counts;
    from->version = answer->version;
    from->unseen = !answer->has_record;
    if (!answer->counts)
        get->refusal = STATUS_QUARANTINED;
}

void get_gone(struct get_quorum *get, uint8_t replica, enum status reason)
{
    assert(replica < get->replicas);
    struct get_replica *gone = &get->replica[replica];
    if (gone->state == GET_ANSWERED)
        return;
    /* A fetch that failed leaves a version without a record: it can count no longer. */
    gone->state = GET_GONE;
    gone->counts = false;
    /* That data may be lost is the news; that somebody is also unreachable is not. */
    bool news = reason != STATUS_UNAVAILABLE || get->refusal == STATUS_OK;
    if (get->refusal != STATUS_QUARANTINED && news)
        get->refusal = reason;
}

void get_write_acked(struct get_quorum *get, uint8_t replica)
{
    assert(replica < get->replicas);
    if (get->replica[replica].write == GET_WRITE_SENT)
        get->replica[replica].write = GET_WRITE_HELD;
}

void get_write_failed(struct get_quorum *get, uint8_t replica)
{
    assert(replica < get->replicas);
    if (get->replica[replica].write == GET_WRITE_SENT)
        get->replica[replica].write = GET_WRITE_FAILED;
}

void get_write_refused(struct get_quorum *get, uint8_t replica, enum status reason)
{
    get_write_failed(get, replica);
    if (get->refusal != STATUS_QUARANTINED)
        get->refusal = reason;
}

static bool has_answered(const struct get_replica *replica)
{
    return replica->state == GET_ANSWERED || replica->state == GET_FETCHING;
}

uint8_t get_answers_counted(const struct get_quorum *get)
{
    uint8_t count = 0;
    for (uint8_t i = 0; i < get->replicas; i++)
        count = (uint8_t)(count + (has_answered(&get->replica[i]) && get->replica[i].counts));
    return count;
}

static uint8_t first_in_state(const struct get_quorum *get, enum get_state state)
{
    for (uint8_t i = 0; i < get->replicas; i++) {
        if (get->replica[i].state == state)
            return i;
    }
    return REPLICAS_MAX;
}

uint8_t get_hedge(const struct get_quorum *get)
{
    return first_in_state(get, GET_IDLE);
}

static uint8_t count_asked(const struct get_quorum *get)
{
    uint8_t count = 0;
    for (uint8_t i = 0; i < get->replicas; i++)
        count = (uint8_t)(count + (get->replica[i].state == GET_ASKED));
    return count;
}

static bool holds_merged(const struct get_quorum *get, const struct get_replica *replica)
{
    bool by_answer = has_answered(replica) && version_equal(replica->version, get->merged);
    return by_answer || replica->write == GET_WRITE_HELD;
}

/* A version that differs from the merge and whose record has not been seen must be fetched: it may be newer. */
static uint8_t find_unseen(const struct get_quorum *get)
{
    for (uint8_t i = 0; i < get->replicas; i++) {
        const struct get_replica *replica = &get->replica[i];
        if (replica->state == GET_ANSWERED && replica->unseen &&
            !version_equal(replica->version, get->merged))
            return i;
    }
    return REPLICAS_MAX;
}

/* A record on its way is waited for, unless another replica has brought that version meanwhile. */
static bool awaits_record(const struct get_quorum *get)
{
    for (uint8_t i = 0; i < get->replicas; i++) {
        const struct get_replica *replica = &get->replica[i];
        if (replica->state == GET_FETCHING && !version_equal(replica->version, get->merged))
            return true;
    }
    return false;
}

/* Replicas that answered with something older come first, then those not asked. */
static uint8_t find_write_target(const struct get_quorum *get)
{
    uint8_t idle = REPLICAS_MAX;
    for (uint8_t i = 0; i < get->replicas; i++) {
        const struct get_replica *replica = &get->replica[i];
        if (replica->write != GET_WRITE_NONE || replica->state == GET_GONE || holds_merged(get, replica))
            continue;
        if (has_answered(replica))
            return i;
        if (idle == REPLICAS_MAX)
            idle = i;
    }
    return idle;
}

uint8_t get_hedge_write(const struct get_quorum *get)
{
    bool reading =
        get_answers_counted(get) < get->needed || find_unseen(get) != REPLICAS_MAX || awaits_record(get);
    bool writing = false;
    for (uint8_t i = 0; i < get->replicas; i++)
        writing |= get->replica[i].write == GET_WRITE_SENT;
    return writing && !reading ? find_write_target(get) : REPLICAS_MAX;
}

static enum get_decision decide_holders(struct get_quorum *get)
{
    if (2 * get->needed <= get->replicas)
        return GET_DONE;
    uint8_t wanted = (uint8_t)(get->replicas - get->needed + 1);
    uint8_t holders = 0;
    uint8_t writing = 0;
    for (uint8_t i = 0; i < get->replicas; i++) {
        bool holds = holds_merged(get, &get->replica[i]);
        holders = (uint8_t)(holders + holds);
        writing = (uint8_t)(writing + (!holds && get->replica[i].write == GET_WRITE_SENT));
    }
    if (holders >= wanted)
        return GET_DONE;
    if (holders + writing >= wanted)
        return GET_WAIT;
    get->chosen = find_write_target(get);
    if (get->chosen != REPLICAS_MAX)
        return GET_WRITE_BACK;
    /* Nobody is left to write to: an answer that is still on its way may yet agree. */
    return writing > 0 || count_asked(get) > 0 ? GET_WAIT : GET_FAILED;
}

enum get_decision get_decide(struct get_quorum *get, bool deadline_passed)
{
    if (deadline_passed)
        return GET_FAILED;
    uint8_t counted = get_answers_counted(get);
    if (counted < get->needed) {
        if (counted + count_asked(get) >= get->needed)
            return GET_WAIT;
        get->chosen = first_in_state(get, GET_IDLE);
        return get->chosen != REPLICAS_MAX ? GET_ASK : GET_FAILED;
    }
    get->chosen = find_unseen(get);
    if (get->chosen != REPLICAS_MAX)
        return GET_FETCH;
    if (awaits_record(get))
        return GET_WAIT;
    return decide_holders(get);
}
