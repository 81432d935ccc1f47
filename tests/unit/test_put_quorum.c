/* The write quorum: each clause on its own, and every order of answers against a naive model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "quorum/put.h"

#define OWN 100u

static struct stamp at(uint64_t time)
{
    return (struct stamp){.time = time, .actor = 1};
}

static struct put_quorum started(uint8_t replicas, uint8_t needed)
{
    struct put_quorum put;
    struct put_options options = {.replicas = replicas, .needed = needed, .own = at(OWN)};
    put_start(&put, &options);
    return put;
}

static struct put_quorum sent_to_all(uint8_t replicas, uint8_t needed)
{
    struct put_quorum put = started(replicas, needed);
    for (uint8_t i = 0; i < replicas; i++)
        put_sent(&put, i);
    return put;
}

/* ---- clauses -------------------------------------------------------------------------------------------- */

static void put_is_done_at_w_acknowledgements_and_not_before(void **state)
{
    (void)state;
    struct put_quorum put = sent_to_all(3, 2);
    assert_int_equal(put_decide(&put, false), PUT_WAIT);
    put_acked(&put, 1, at(OWN), false);
    assert_int_equal(put_decide(&put, false), PUT_WAIT);
    put_acked(&put, 2, at(OWN), false);
    assert_int_equal(put_decide(&put, false), PUT_DONE);
    assert_int_equal(put_acks(&put), 2);
    /* Also when the deadline passes in the same moment. */
    assert_int_equal(put_decide(&put, true), PUT_DONE);
}

static void put_acknowledged_twice_by_one_replica_counts_once(void **state)
{
    (void)state;
    struct put_quorum put = sent_to_all(3, 2);
    put_acked(&put, 1, at(OWN), false);
    put_acked(&put, 1, at(OWN), false);
    put_acked(&put, 1, at(OWN + 9), false);
    assert_int_equal(put_acks(&put), 1);
    assert_int_equal(put_decide(&put, false), PUT_WAIT);
}

static void put_acknowledged_by_a_replica_that_was_not_asked_does_not_count(void **state)
{
    (void)state;
    struct put_quorum put = started(3, 1);
    put_sent(&put, 0);
    put_acked(&put, 2, at(OWN), true);
    assert_int_equal(put_acks(&put), 0);
    assert_false(put.was_live);
    assert_int_equal(put_decide(&put, false), PUT_WAIT);
}

static void put_late_acknowledgement_of_a_lost_replica_counts(void **state)
{
    (void)state;
    struct put_quorum put = sent_to_all(3, 2);
    put_acked(&put, 0, at(OWN), false);
    put_lost(&put, 1);
    assert_int_equal(put_decide(&put, false), PUT_WAIT);
    put_acked(&put, 1, at(OWN), false);
    assert_int_equal(put_decide(&put, false), PUT_DONE);
}

static void put_refused_by_all_is_not_applied(void **state)
{
    (void)state;
    struct put_quorum put = sent_to_all(3, 2);
    put_refused(&put, 0, STATUS_OVERLOADED);
    assert_int_equal(put_decide(&put, false), PUT_WAIT);
    put_refused(&put, 1, STATUS_DISK_FULL);
    put_refused(&put, 2, STATUS_STALE_EPOCH);
    assert_int_equal(put_decide(&put, false), PUT_NOT_APPLIED);
    assert_int_equal(put.refusal, STATUS_STALE_EPOCH);
}

static void put_that_somebody_may_hold_is_unknown(void **state)
{
    (void)state;
    /* Two refused, one still out: hopeless at once, and the third may apply it. */
    struct put_quorum put = sent_to_all(3, 2);
    put_refused(&put, 0, STATUS_OVERLOADED);
    put_refused(&put, 1, STATUS_OVERLOADED);
    assert_int_equal(put_decide(&put, false), PUT_UNKNOWN);
    /* One acknowledged. */
    put = sent_to_all(3, 2);
    put_acked(&put, 2, at(OWN), false);
    put_refused(&put, 0, STATUS_OVERLOADED);
    put_refused(&put, 1, STATUS_OVERLOADED);
    assert_int_equal(put_decide(&put, false), PUT_UNKNOWN);
    /* One lost after it was asked. */
    put = sent_to_all(3, 2);
    put_refused(&put, 0, STATUS_OVERLOADED);
    put_lost(&put, 1);
    put_refused(&put, 2, STATUS_OVERLOADED);
    assert_int_equal(put_decide(&put, false), PUT_UNKNOWN);
    /* The deadline. */
    put = sent_to_all(3, 2);
    assert_int_equal(put_decide(&put, true), PUT_UNKNOWN);
}

static void put_sent_twice_is_refused_when_both_copies_are(void **state)
{
    (void)state;
    struct put_quorum put = sent_to_all(1, 1);
    put_sent_again(&put, 0);
    put_refused(&put, 0, STATUS_OVERLOADED);
    assert_int_equal(put_decide(&put, false), PUT_WAIT);
    assert_int_equal(put_decide(&put, true), PUT_UNKNOWN);
    struct put_quorum other = put;
    put_acked(&other, 0, at(OWN), false);
    assert_int_equal(put_decide(&other, false), PUT_DONE);
    other = put;
    put_lost(&other, 0);
    assert_int_equal(put_decide(&other, false), PUT_UNKNOWN);
    put_refused(&put, 0, STATUS_OVERLOADED);
    assert_int_equal(put_decide(&put, false), PUT_NOT_APPLIED);
    /* Under a higher stamp at once; should that not be taken, the other copy may still have been. */
    put = sent_to_all(1, 1);
    put_sent_again(&put, 0);
    put_purged(&put, 0, at(OWN + 5));
    assert_int_equal(put_decide(&put, false), PUT_RESTAMP);
    assert_int_equal(put_decide(&put, true), PUT_UNKNOWN);
}

static void put_sent_to_too_few_fails_at_once_and_to_none_is_not_applied(void **state)
{
    (void)state;
    struct put_quorum put = started(3, 2);
    assert_int_equal(put_decide(&put, false), PUT_NOT_APPLIED);
    put_lost(&put, 1); /* was never asked */
    assert_int_equal(put_decide(&put, true), PUT_NOT_APPLIED);
    put_sent(&put, 0);
    assert_int_equal(put_decide(&put, false), PUT_UNKNOWN);
}

static void put_below_a_stamp_held_is_stamped_anew_once(void **state)
{
    (void)state;
    struct put_quorum put = sent_to_all(3, 2);
    put_acked(&put, 0, at(OWN), false);
    put_acked(&put, 1, at(OWN + 50), true);
    assert_int_equal(put_decide(&put, false), PUT_RESTAMP);
    assert_int_equal(put.highest.time, OWN + 50);
    put_restart(&put, at(OWN + 51));
    assert_int_equal(put_acks(&put), 0);
    assert_true(put.was_live);
    for (uint8_t i = 0; i < 3; i++)
        put_sent(&put, i);
    assert_int_equal(put_decide(&put, false), PUT_WAIT);
    /* Beaten again by a concurrent write: that one simply comes later. */
    put_acked(&put, 0, at(OWN + 99), false);
    put_acked(&put, 2, at(OWN + 51), false);
    assert_int_equal(put_decide(&put, false), PUT_DONE);
}

static void put_refused_in_its_second_round_stays_unknown(void **state)
{
    (void)state;
    struct put_quorum put = sent_to_all(1, 1);
    put_acked(&put, 0, at(OWN + 1), false);
    assert_int_equal(put_decide(&put, false), PUT_RESTAMP);
    put_restart(&put, at(OWN + 2));
    put_sent(&put, 0);
    put_refused(&put, 0, STATUS_OVERLOADED);
    assert_int_equal(put_decide(&put, false), PUT_UNKNOWN);
}

static void put_beaten_by_the_actor_alone_is_stamped_anew(void **state)
{
    (void)state;
    struct put_quorum put = sent_to_all(1, 1);
    put_acked(&put, 0, (struct stamp){.time = OWN, .actor = 2}, false);
    assert_int_equal(put_decide(&put, false), PUT_RESTAMP);
}

/* ---- against a naive model ------------------------------------------------------------------------------ */

/* What can come from one replica, once. */
enum answer {
    ANSWER_ACK,
    ANSWER_ACK_HIGHER,
    ANSWER_REFUSAL,
    ANSWER_LOSS,
    ANSWER_LOSS_THEN_ACK,
    ANSWER_SILENCE,
    ANSWER_UNSENT,
    ANSWERS_COUNT,
};

/* The outcomes by sets of replicas, as DESIGN says them, with no counters kept along the way. */
struct model {
    uint8_t replicas;
    uint8_t needed;
    bool second_round;
    bool sent[REPLICAS_MAX];
    bool acked[REPLICAS_MAX];
    bool refused[REPLICAS_MAX];
    bool answer_due[REPLICAS_MAX];
    bool higher_acked;
};

static enum put_decision model_decide(const struct model *model, bool deadline_passed)
{
    int acks = 0;
    int due = 0;
    bool nobody_can_hold_it = !model->second_round;
    for (uint8_t i = 0; i < model->replicas; i++) {
        acks += model->acked[i];
        due += model->answer_due[i];
        if (model->sent[i] && !model->refused[i])
            nobody_can_hold_it = false;
    }
    if (acks >= model->needed)
        return model->higher_acked && !model->second_round ? PUT_RESTAMP : PUT_DONE;
    if (acks + due >= model->needed && !deadline_passed)
        return PUT_WAIT;
    return nobody_can_hold_it ? PUT_NOT_APPLIED : PUT_UNKNOWN;
}

static void send_round(struct put_quorum *put, struct model *model, const enum answer *answers)
{
    model->higher_acked = false;
    for (uint8_t i = 0; i < model->replicas; i++) {
        model->sent[i] = answers[i] != ANSWER_UNSENT;
        model->answer_due[i] = model->sent[i];
        model->acked[i] = model->refused[i] = false;
        if (model->sent[i])
            put_sent(put, i);
    }
}

static void take_answer(struct put_quorum *put, struct model *model, uint8_t replica, enum answer answer)
{
    struct stamp own = put->own;
    switch (answer) {
    case ANSWER_ACK:
    case ANSWER_ACK_HIGHER:
        own.time += answer == ANSWER_ACK_HIGHER;
        put_acked(put, replica, own, false);
        model->acked[replica] = true;
        model->answer_due[replica] = false;
        model->higher_acked |= answer == ANSWER_ACK_HIGHER;
        break;
    case ANSWER_REFUSAL:
        put_refused(put, replica, STATUS_OVERLOADED);
        model->refused[replica] = true;
        model->answer_due[replica] = false;
        break;
    case ANSWER_LOSS:
    case ANSWER_LOSS_THEN_ACK:
        put_lost(put, replica);
        model->answer_due[replica] = false;
        break;
    case ANSWER_SILENCE:
    case ANSWER_UNSENT:
    case ANSWERS_COUNT:
        break;
    }
    if (answer == ANSWER_LOSS_THEN_ACK && replica % 2 == 0) {
        put_acked(put, replica, own, false);
        model->acked[replica] = true;
    }
}

static void check_both_ways(const struct put_quorum *put, const struct model *model)
{
    assert_int_equal(put_decide(put, false), model_decide(model, false));
    assert_int_equal(put_decide(put, true), model_decide(model, true));
}

/* Gives the answers in this order and compares after each; at RESTAMP the second round gives the same answers again. */
static void run(uint8_t n, uint8_t w, const enum answer *answers, const uint8_t *order)
{
    struct put_quorum put = started(n, w);
    struct model model = {.replicas = n, .needed = w};
    send_round(&put, &model, answers);
    check_both_ways(&put, &model);
    for (uint8_t i = 0; i < n; i++) {
        take_answer(&put, &model, order[i], answers[order[i]]);
        if (answers[order[i]] == ANSWER_ACK)
            put_acked(&put, order[i], at(OWN * 100), true); /* a repetition changes nothing */
        check_both_ways(&put, &model);
        if (put_decide(&put, false) != PUT_RESTAMP || put.round == 2)
            continue;
        put_restart(&put, at(put.highest.time + 1));
        model.second_round = true;
        send_round(&put, &model, answers);
        check_both_ways(&put, &model);
        i = UINT8_MAX; /* from the first answer again */
    }
}

static void next_order(uint8_t *order, uint8_t n, uint32_t number)
{
    for (uint8_t i = 0; i < REPLICAS_MAX; i++)
        order[i] = i;
    for (uint8_t i = n; i > 1; i--) {
        uint8_t other = (uint8_t)(number % i);
        number /= i;
        uint8_t swapped = order[i - 1];
        order[i - 1] = order[other];
        order[other] = swapped;
    }
}

static void put_of_up_to_three_replicas_decides_as_the_model_in_every_order(void **state)
{
    (void)state;
    static const uint32_t orders[4] = {1, 1, 2, 6};
    uint32_t runs = 0;
    for (uint8_t n = 1; n <= 3; n++) {
        uint32_t choices = 1;
        for (uint8_t i = 0; i < n; i++)
            choices *= ANSWERS_COUNT;
        for (uint8_t w = 1; w <= n; w++) {
            for (uint32_t choice = 0; choice < choices; choice++) {
                enum answer answers[REPLICAS_MAX];
                uint32_t rest = choice;
                for (uint8_t i = 0; i < n; i++, rest /= ANSWERS_COUNT)
                    answers[i] = (enum answer)(rest % ANSWERS_COUNT);
                for (uint32_t number = 0; number < orders[n]; number++) {
                    uint8_t order[REPLICAS_MAX];
                    next_order(order, n, number);
                    run(n, w, answers, order);
                    runs++;
                }
            }
        }
    }
    assert_int_equal(runs, 7 + 2 * 49 * 2 + 3 * 343 * 6);
}

static void put_of_up_to_seven_replicas_decides_as_the_model(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 21);
    for (int i = 0; i < 200000; i++) {
        uint8_t n = (uint8_t)(1 + prng_below(&prng, REPLICAS_MAX));
        uint8_t w = (uint8_t)(1 + prng_below(&prng, n));
        enum answer answers[REPLICAS_MAX];
        uint8_t order[REPLICAS_MAX];
        for (uint8_t at_replica = 0; at_replica < n; at_replica++)
            answers[at_replica] = (enum answer)prng_below(&prng, ANSWERS_COUNT);
        next_order(order, n, (uint32_t)prng_below(&prng, 5040));
        run(n, w, answers, order);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_is_done_at_w_acknowledgements_and_not_before),
        cmocka_unit_test(put_acknowledged_twice_by_one_replica_counts_once),
        cmocka_unit_test(put_acknowledged_by_a_replica_that_was_not_asked_does_not_count),
        cmocka_unit_test(put_late_acknowledgement_of_a_lost_replica_counts),
        cmocka_unit_test(put_refused_by_all_is_not_applied),
        cmocka_unit_test(put_that_somebody_may_hold_is_unknown),
        cmocka_unit_test(put_sent_twice_is_refused_when_both_copies_are),
        cmocka_unit_test(put_sent_to_too_few_fails_at_once_and_to_none_is_not_applied),
        cmocka_unit_test(put_below_a_stamp_held_is_stamped_anew_once),
        cmocka_unit_test(put_refused_in_its_second_round_stays_unknown),
        cmocka_unit_test(put_beaten_by_the_actor_alone_is_stamped_anew),
        cmocka_unit_test(put_of_up_to_three_replicas_decides_as_the_model_in_every_order),
        cmocka_unit_test(put_of_up_to_seven_replicas_decides_as_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
