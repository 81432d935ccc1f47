/* The read quorum: each clause on its own, and whole reads against replicas whose contents are known.
 *
 * In the model a version is a pair of small numbers and the merge takes the higher of each, so that the merge may be
 * held by nobody. A read is driven to its end with messages delivered in any order; what the machine decides is
 * judged by what the replicas really hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "quorum/get.h"

static struct version version_of(uint64_t value, uint64_t override)
{
    return (struct version){.value = {.time = value}, .override = {.time = override}};
}

static struct version merge(struct version a, struct version b)
{
    return (struct version){.value = stamp_max(a.value, b.value),
                            .override = stamp_max(a.override, b.override)};
}

/* ---- clauses -------------------------------------------------------------------------------------------- */

static void ask(struct get_quorum *get, uint8_t count)
{
    for (uint8_t i = 0; i < count; i++) {
        assert_int_equal(get_decide(get, false), GET_ASK);
        assert_int_equal(get->chosen, i);
        get_sent(get, i);
    }
    assert_int_equal(get_decide(get, false), GET_WAIT);
}

static void answer(struct get_quorum *get, uint8_t replica, uint64_t held, bool counts)
{
    struct version version = version_of(held, 0);
    struct get_answer answered = {
        .counts = counts, .has_record = true, .version = version, .merged = merge(get->merged, version)};
    get_answered(get, replica, &answered);
}

static void answer_digest(struct get_quorum *get, uint8_t replica, uint64_t held)
{
    struct get_answer answered = {.counts = true, .version = version_of(held, 0)};
    get_answered(get, replica, &answered);
}

static void get_asks_r_replicas_and_is_done_when_they_agree(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 5, true);
    assert_int_equal(get_decide(&get, false), GET_WAIT);
    answer_digest(&get, 1, 5);
    assert_int_equal(get_decide(&get, false), GET_DONE);
    assert_int_equal(get_answers_counted(&get), 2);
    assert_int_equal(get.merged.value.time, 5);
}

static void get_of_a_key_that_nobody_holds_is_done(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 0, true);
    answer(&get, 1, 0, true);
    assert_int_equal(get_decide(&get, false), GET_DONE);
}

static void get_with_a_stale_replica_is_written_back_before_it_is_done(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 5, true);
    answer(&get, 1, 3, true);
    assert_int_equal(get_decide(&get, false), GET_WRITE_BACK);
    assert_int_equal(get.chosen, 1);
    get_write_sent(&get, 1);
    assert_int_equal(get_decide(&get, false), GET_WAIT);
    get_write_acked(&get, 1);
    assert_int_equal(get_decide(&get, false), GET_DONE);
}

static void get_whose_write_back_fails_chooses_another_replica(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 5, true);
    answer(&get, 1, 3, true);
    assert_int_equal(get_decide(&get, false), GET_WRITE_BACK);
    get_write_sent(&get, get.chosen);
    get_write_failed(&get, 1);
    assert_int_equal(get_decide(&get, false), GET_WRITE_BACK);
    assert_int_equal(get.chosen, 2);
    get_write_sent(&get, 2);
    get_write_failed(&get, 2);
    assert_int_equal(get_decide(&get, false), GET_FAILED);
}

static void get_fetches_a_version_that_nobody_sent(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 5, true);
    answer_digest(&get, 1, 7);
    assert_int_equal(get_decide(&get, false), GET_FETCH);
    assert_int_equal(get.chosen, 1);
    get_sent(&get, 1);
    assert_int_equal(get_decide(&get, false), GET_WAIT);
    answer_digest(&get, 1, 7); /* a repetition is not the record */
    assert_int_equal(get_decide(&get, false), GET_WAIT);
    answer(&get, 1, 7, true);
    assert_int_equal(get_decide(&get, false), GET_WRITE_BACK);
    assert_int_equal(get.chosen, 0);
}

static void get_whose_fetch_fails_asks_another_replica(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 5, true);
    answer_digest(&get, 1, 7);
    assert_int_equal(get_decide(&get, false), GET_FETCH);
    get_sent(&get, 1);
    get_gone(&get, 1, STATUS_UNAVAILABLE);
    assert_int_equal(get_answers_counted(&get), 1);
    assert_int_equal(get_decide(&get, false), GET_ASK);
    assert_int_equal(get.chosen, 2);
}

static void get_from_an_amnesiac_replica_counts_towards_no_r_but_is_read(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 9, false);
    answer(&get, 1, 5, true);
    assert_int_equal(get_answers_counted(&get), 1);
    assert_int_equal(get_decide(&get, false), GET_ASK);
    get_sent(&get, 2);
    answer(&get, 2, 9, true);
    /* Replicas 0 and 2 durably hold it: that is N - R + 1, though only 1 and 2 count as answers. */
    assert_int_equal(get_decide(&get, false), GET_DONE);
    assert_int_equal(get.merged.value.time, 9);
}

static void get_with_too_few_that_count_fails_with_the_reason(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 9, false);
    assert_int_equal(get_decide(&get, false), GET_ASK);
    get_sent(&get, 2);
    answer(&get, 2, 9, false);
    answer(&get, 1, 9, true);
    assert_int_equal(get_decide(&get, false), GET_FAILED);
    assert_int_equal(get.refusal, STATUS_QUARANTINED);
}

static void get_that_fails_names_a_refusal_before_who_is_unreachable(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 1);
    ask(&get, 1);
    get_gone(&get, 0, STATUS_STARTING);
    for (uint8_t i = 1; i < 3; i++) {
        assert_int_equal(get_decide(&get, false), GET_ASK);
        get_sent(&get, i);
        get_gone(&get, i, STATUS_UNAVAILABLE);
    }
    assert_int_equal(get_decide(&get, false), GET_FAILED);
    assert_int_equal(get.refusal, STATUS_STARTING);
}

static void get_from_an_unreachable_replica_asks_the_next(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    get_gone(&get, 0, STATUS_UNAVAILABLE);
    assert_int_equal(get_decide(&get, false), GET_ASK);
    assert_int_equal(get.chosen, 2);
    get_sent(&get, 2);
    get_gone(&get, 1, STATUS_OVERLOADED);
    assert_int_equal(get_decide(&get, false), GET_FAILED);
    assert_int_equal(get.refusal, STATUS_OVERLOADED);
}

static void get_late_answer_of_a_replica_thought_gone_counts(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 2, 2);
    ask(&get, 2);
    answer(&get, 0, 5, true);
    get_gone(&get, 1, STATUS_UNAVAILABLE);
    answer(&get, 1, 5, true);
    assert_int_equal(get_decide(&get, false), GET_DONE);
}

static void get_answered_twice_by_one_replica_counts_once(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    answer(&get, 0, 5, true);
    answer(&get, 0, 5, true);
    assert_int_equal(get_answers_counted(&get), 1);
    assert_int_equal(get_decide(&get, false), GET_WAIT);
}

static void get_with_half_or_less_promises_no_more_than_r_answers(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 4, 2);
    ask(&get, 2);
    answer(&get, 0, 5, true);
    answer(&get, 1, 3, true);
    assert_int_equal(get_decide(&get, false), GET_DONE);
    assert_int_equal(get.merged.value.time, 5);
}

static void get_past_its_deadline_fails_whatever_is_known(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 1, 1);
    assert_int_equal(get_decide(&get, true), GET_FAILED);
}

static void get_hedge_is_a_replica_that_was_not_asked(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    assert_int_equal(get_hedge(&get), 2);
    get_sent(&get, 2);
    assert_int_equal(get_hedge(&get), REPLICAS_MAX);
    answer(&get, 2, 5, true);
    answer(&get, 0, 5, true);
    assert_int_equal(get_decide(&get, false), GET_DONE);
}

static void get_merge_that_grows_makes_earlier_write_backs_worthless(void **state)
{
    (void)state;
    struct get_quorum get;
    get_start(&get, 3, 2);
    ask(&get, 2);
    get_sent(&get, 2); /* a hedge */
    answer(&get, 0, 5, true);
    answer(&get, 1, 3, true);
    assert_int_equal(get_decide(&get, false), GET_WRITE_BACK);
    get_write_sent(&get, get.chosen);
    answer(&get, 2, 7, true);
    get_write_acked(&get, 1); /* of the smaller merge */
    assert_int_equal(get_decide(&get, false), GET_WRITE_BACK);
    assert_int_equal(get.replica[1].write, GET_WRITE_NONE);
    /* 5 replicas, R = 3: three holders are needed, two partial ones agreeing are not enough (PROTOCOLS L). */
    get_start(&get, 5, 3);
    ask(&get, 3);
    answer(&get, 0, 9, true);
    answer(&get, 1, 9, true);
    answer(&get, 2, 0, true);
    assert_int_equal(get_decide(&get, false), GET_WRITE_BACK);
}

/* ---- whole reads ---------------------------------------------------------------------------------------- */

enum fate {
    FATE_ANSWERS,
    FATE_ANSWERS_WITH_DIGEST,
    FATE_GONE,
    FATE_GONE_THEN_ANSWERS,
    FATE_DIGEST_THEN_GONE,
    FATES_COUNT,
};

struct replica {
    enum fate fate;
    bool quarantined;
    bool write_fails;
    struct version holds;
};

enum message_kind {
    MESSAGE_ANSWER,
    MESSAGE_FETCHED,
    MESSAGE_GONE,
    MESSAGE_WRITTEN,
};

struct message {
    enum message_kind kind;
    uint8_t replica;
    bool digest;
    struct version version; /* as the replica held it when it answered */
    struct version written;
};

#define MESSAGES_MAX 64

struct read {
    struct prng *prng;
    struct get_quorum get;
    struct replica replica[REPLICAS_MAX];
    struct version merged;
    struct message messages[MESSAGES_MAX];
    uint32_t messages_count;
    bool known[REPLICAS_MAX];   /* its record is in the merge, or equal to it */
    bool counted[REPLICAS_MAX]; /* answered, and counts */
    bool refused_write[REPLICAS_MAX];
    bool unreachable[REPLICAS_MAX];
};

static void post(struct read *read, enum message_kind kind, uint8_t replica)
{
    assert_true(read->messages_count < MESSAGES_MAX);
    read->messages[read->messages_count++] = (struct message){
        .kind = kind,
        .replica = replica,
        .version = read->replica[replica].holds,
        .written = read->merged,
    };
}

static void replica_asked(struct read *read, uint8_t replica)
{
    enum fate fate = read->replica[replica].fate;
    if (fate == FATE_GONE || fate == FATE_GONE_THEN_ANSWERS)
        post(read, MESSAGE_GONE, replica);
    if (fate == FATE_GONE)
        return;
    post(read, MESSAGE_ANSWER, replica);
    read->messages[read->messages_count - 1].digest =
        fate == FATE_ANSWERS_WITH_DIGEST || fate == FATE_DIGEST_THEN_GONE;
}

static void deliver_answer(struct read *read, const struct message *message)
{
    uint8_t from = message->replica;
    struct get_answer answer = {.counts = !read->replica[from].quarantined,
                                .has_record = message->kind == MESSAGE_FETCHED || !message->digest,
                                .version = message->version};
    if (answer.has_record) {
        struct version grown = merge(read->merged, message->version);
        if (!version_equal(grown, read->merged))
            memset(read->refused_write, 0, sizeof read->refused_write);
        read->merged = grown;
        answer.merged = grown;
        read->known[from] = true;
    }
    read->counted[from] = answer.counts;
    read->unreachable[from] = false;
    get_answered(&read->get, from, &answer);
}

static void deliver(struct read *read)
{
    uint32_t at = (uint32_t)prng_below(read->prng, read->messages_count);
    struct message message = read->messages[at];
    read->messages[at] = read->messages[--read->messages_count];
    uint8_t from = message.replica;
    switch (message.kind) {
    case MESSAGE_ANSWER:
    case MESSAGE_FETCHED:
        deliver_answer(read, &message);
        break;
    case MESSAGE_GONE:
        /* A connection that breaks after the answer takes nothing back. */
        if (!read->known[from] && !(read->counted[from] && read->get.replica[from].state == GET_ANSWERED)) {
            read->unreachable[from] = true;
            read->counted[from] = false;
        }
        get_gone(&read->get, from, STATUS_UNAVAILABLE);
        break;
    case MESSAGE_WRITTEN:
        if (read->replica[from].write_fails) {
            if (version_equal(message.written, read->merged)) {
                read->refused_write[from] = true;
                get_write_failed(&read->get, from);
            }
            break;
        }
        read->replica[from].holds = merge(read->replica[from].holds, message.written);
        /* The coordinator drops acknowledgements of a merge that has grown since. */
        if (version_equal(message.written, read->merged))
            get_write_acked(&read->get, from);
        break;
    }
}

static void check_done(const struct read *read)
{
    const struct get_quorum *get = &read->get;
    uint8_t counted = 0;
    uint8_t holders = 0;
    for (uint8_t i = 0; i < get->replicas; i++) {
        const struct replica *replica = &read->replica[i];
        counted = (uint8_t)(counted + read->counted[i]);
        holders = (uint8_t)(holders + version_equal(merge(replica->holds, read->merged), replica->holds));
        /* Whatever answered is in what is answered to the client. */
        if (read->counted[i])
            assert_true(version_equal(merge(read->merged, get->replica[i].version), read->merged));
        if (read->counted[i])
            assert_false(replica->quarantined);
    }
    assert_true(counted >= get->needed);
    if (2 * get->needed > get->replicas)
        assert_true(holders >= get->replicas - get->needed + 1);
}

/* It gave up: then it could not have succeeded with those that are left. */
static void check_failed(const struct read *read)
{
    const struct get_quorum *get = &read->get;
    uint8_t can_count = 0;
    uint8_t can_hold = 0;
    for (uint8_t i = 0; i < get->replicas; i++) {
        bool holds = version_equal(get->replica[i].version, read->merged) && read->known[i];
        bool written = get->replica[i].write == GET_WRITE_HELD;
        bool answered = get->replica[i].state == GET_ANSWERED || get->replica[i].state == GET_FETCHING;
        can_count =
            (uint8_t)(can_count + !(read->unreachable[i] || (answered && read->replica[i].quarantined)));
        can_hold =
            (uint8_t)(can_hold + (holds || written || !(read->unreachable[i] || read->refused_write[i])));
    }
    assert_true(can_count < get->needed || can_hold < get->replicas - get->needed + 1);
}

/* Drives one read to its end. True if it was done. */
static bool run(struct read *read, uint8_t n, uint8_t r)
{
    get_start(&read->get, n, r);
    for (int step = 0; step < 1000; step++) {
        enum get_decision decision = get_decide(&read->get, false);
        uint8_t chosen = read->get.chosen;
        switch (decision) {
        case GET_ASK:
            get_sent(&read->get, chosen);
            replica_asked(read, chosen);
            break;
        case GET_FETCH:
            get_sent(&read->get, chosen);
            post(read, read->replica[chosen].fate == FATE_DIGEST_THEN_GONE ? MESSAGE_GONE : MESSAGE_FETCHED,
                 chosen);
            break;
        case GET_WRITE_BACK:
            assert_true(2 * r > n);
            get_write_sent(&read->get, chosen);
            post(read, MESSAGE_WRITTEN, chosen);
            break;
        case GET_DONE:
            check_done(read);
            return true;
        case GET_FAILED:
            check_failed(read);
            return false;
        case GET_WAIT:
            /* Something is on its way, or it would wait for ever. */
            assert_true(read->messages_count > 0);
            chosen = get_hedge_write(&read->get);
            if (prng_chance(read->prng, 1, 8) && chosen != REPLICAS_MAX) {
                get_write_sent(&read->get, chosen);
                post(read, MESSAGE_WRITTEN, chosen);
            } else if (prng_chance(read->prng, 1, 8) && get_hedge(&read->get) != REPLICAS_MAX) {
                chosen = get_hedge(&read->get);
                get_sent(&read->get, chosen);
                replica_asked(read, chosen);
            }
            deliver(read);
            break;
        }
    }
    fail_msg("the read of %u from %u never ended", r, n);
    return false;
}

static struct replica replica_of(uint32_t choice)
{
    static const struct {
        uint8_t value;
        uint8_t override;
    } versions[3] = {{0, 0}, {2, 0}, {1, 3}};
    uint32_t version = choice % 3;
    choice /= 3;
    return (struct replica){
        .holds = version_of(versions[version].value, versions[version].override),
        .fate = (enum fate)(choice % FATES_COUNT),
        .quarantined = choice / FATES_COUNT % 2 == 1,
        .write_fails = choice / FATES_COUNT / 2 == 1,
    };
}
#define REPLICA_CHOICES (3u * FATES_COUNT * 4)

static void get_of_up_to_three_replicas_keeps_its_promises_in_all_cases(void **state)
{
    (void)state;
    struct prng prng;
    uint32_t done = 0;
    uint32_t runs = 0;
    prng_seed(&prng, 31);
    for (uint8_t n = 1; n <= 3; n++) {
        uint32_t choices = 1;
        for (uint8_t i = 0; i < n; i++)
            choices *= REPLICA_CHOICES;
        for (uint8_t r = 1; r <= n; r++) {
            for (uint32_t choice = 0; choice < choices; choice++) {
                struct read read = {.prng = &prng};
                uint32_t rest = choice;
                for (uint8_t i = 0; i < n; i++, rest /= REPLICA_CHOICES)
                    read.replica[i] = replica_of(rest % REPLICA_CHOICES);
                done += run(&read, n, r);
                runs++;
            }
        }
    }
    assert_int_equal(runs, 60 + 2 * 3600 + 3 * 216000);
    assert_in_range(done, runs / 5, runs);
}

static void get_of_up_to_seven_replicas_keeps_its_promises(void **state)
{
    (void)state;
    struct prng prng;
    uint32_t done = 0;
    prng_seed(&prng, 32);
    for (int i = 0; i < 200000; i++) {
        uint8_t n = (uint8_t)(1 + prng_below(&prng, REPLICAS_MAX));
        struct read read = {.prng = &prng};
        bool calm = prng_chance(&prng, 1, 4);
        for (uint8_t at = 0; at < n; at++) {
            read.replica[at] = replica_of((uint32_t)prng_below(&prng, REPLICA_CHOICES));
            if (!calm)
                continue;
            read.replica[at].quarantined = read.replica[at].write_fails = false;
            if (read.replica[at].fate != FATE_ANSWERS_WITH_DIGEST)
                read.replica[at].fate = FATE_ANSWERS;
        }
        bool ok = run(&read, n, (uint8_t)(1 + prng_below(&prng, n)));
        if (calm)
            assert_true(ok);
        done += ok;
    }
    assert_in_range(done, 50000, 200000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(get_asks_r_replicas_and_is_done_when_they_agree),
        cmocka_unit_test(get_of_a_key_that_nobody_holds_is_done),
        cmocka_unit_test(get_with_a_stale_replica_is_written_back_before_it_is_done),
        cmocka_unit_test(get_whose_write_back_fails_chooses_another_replica),
        cmocka_unit_test(get_fetches_a_version_that_nobody_sent),
        cmocka_unit_test(get_whose_fetch_fails_asks_another_replica),
        cmocka_unit_test(get_from_an_amnesiac_replica_counts_towards_no_r_but_is_read),
        cmocka_unit_test(get_with_too_few_that_count_fails_with_the_reason),
        cmocka_unit_test(get_that_fails_names_a_refusal_before_who_is_unreachable),
        cmocka_unit_test(get_from_an_unreachable_replica_asks_the_next),
        cmocka_unit_test(get_late_answer_of_a_replica_thought_gone_counts),
        cmocka_unit_test(get_answered_twice_by_one_replica_counts_once),
        cmocka_unit_test(get_with_half_or_less_promises_no_more_than_r_answers),
        cmocka_unit_test(get_past_its_deadline_fails_whatever_is_known),
        cmocka_unit_test(get_hedge_is_a_replica_that_was_not_asked),
        cmocka_unit_test(get_merge_that_grows_makes_earlier_write_backs_worthless),
        cmocka_unit_test(get_of_up_to_three_replicas_keeps_its_promises_in_all_cases),
        cmocka_unit_test(get_of_up_to_seven_replicas_keeps_its_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
