/* One swim machine in dialogue with invented others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "gossip/swim.h"
#include "gossip_message.h"

/* ---- one machine ---------------------------------------------------------------------------------------- */

#define SELF 1u
#define START_MS 10000u

struct dialogue {
    struct alloc alloc;
    struct swim swim;
    struct buf text;        /* what the machine said and reported, one line each */
    uint32_t sequence_base; /* sequence numbers are noted from 0 on */
    uint32_t last_sequence;
    uint64_t last_target;
};

static void dialogue_begin(struct dialogue *dialogue, uint16_t nodes)
{
    static const uint64_t ids[] = {3, 1, 2, 5, 4};
    *dialogue = (struct dialogue){0};
    alloc_init(&dialogue->alloc, 1u << 20);
    buf_init(&dialogue->text, &dialogue->alloc);
    struct swim_options options = {
        .alloc = &dialogue->alloc,
        .cluster = cluster,
        .self = SELF,
        .incarnation = 1,
        .seed = 6,
        .now_ms = START_MS,
        .nodes = ids,
        .node_count = nodes,
        .tuning = swim_tuning_default(),
    };
    assert_int_equal(swim_init(&dialogue->swim, &options), STATUS_OK);
    /* Full exchanges and the start's gossip have tests of their own. */
    dialogue->swim.exchange_at_ms = UINT64_MAX;
    struct rumour rumour;
    while (rumours_take(&dialogue->swim.rumours, &rumour, 1) > 0)
        ;
    dialogue->swim.probe_at_ms = START_MS;
    dialogue->sequence_base = dialogue->swim.sequence_next;
}

static void dialogue_end(struct dialogue *dialogue)
{
    swim_free(&dialogue->swim);
    buf_free(&dialogue->text);
    assert_int_equal(dialogue->alloc.used_bytes, 0);
}

static void note_send(struct dialogue *dialogue, const struct swim_send *send)
{
    struct message message;
    assert_int_equal(message_decode(send->bytes, cluster, &message), STATUS_OK);
    assert_int_equal(message.from, SELF);
    buf_append_format(&dialogue->text, "%u to %u%s: %s", (unsigned)(dialogue->swim.now_ms - START_MS),
                      (unsigned)send->node, send->over_connection ? " (connection)" : "",
                      message_type_name(message.type));
    if (message.target != 0)
        buf_append_format(&dialogue->text, " %u", (unsigned)message.target);
    for (uint16_t i = 0; i < message.rumour_count; i++) {
        struct rumour rumour = message_rumour(&message, i);
        buf_append_format(&dialogue->text, ", %u is %s in %u", (unsigned)rumour.node,
                          swim_state_name(rumour.state), (unsigned)rumour.incarnation);
        if (rumour.accuser != 0)
            buf_append_format(&dialogue->text, " says %u", (unsigned)rumour.accuser);
    }
    buf_append_text(&dialogue->text, "\n");
    dialogue->last_sequence = message.sequence;
    dialogue->last_target = message.target;
}

static void note(struct dialogue *dialogue)
{
    struct swim_send send;
    struct swim_change change;
    while (swim_next_send(&dialogue->swim, &send))
        note_send(dialogue, &send);
    while (swim_next_change(&dialogue->swim, &change))
        buf_append_format(&dialogue->text, "%u: %u is %s in %u; health %u\n",
                          (unsigned)(dialogue->swim.now_ms - START_MS), (unsigned)change.node,
                          swim_state_name(change.state), (unsigned)change.incarnation,
                          (unsigned)swim_health(&dialogue->swim));
}

/* Ticks when the machine wants to, up to the time. */
static void run_until(struct dialogue *dialogue, uint64_t at_ms)
{
    while (swim_deadline_ms(&dialogue->swim) <= START_MS + at_ms) {
        uint64_t deadline_ms = swim_deadline_ms(&dialogue->swim);
        swim_tick(&dialogue->swim, deadline_ms > dialogue->swim.now_ms ? deadline_ms : dialogue->swim.now_ms);
        note(dialogue);
    }
    swim_tick(&dialogue->swim, START_MS + at_ms);
    note(dialogue);
}

static void hear(struct dialogue *dialogue, const struct message *message, const struct rumour *rumours,
                 size_t count, bool over_connection)
{
    struct buf buf;
    buf_init(&buf, &dialogue->alloc);
    write_message(&buf, message, rumours, count);
    struct swim_received received = {
        .now_ms = dialogue->swim.now_ms,
        .node = over_connection ? message->from : 0,
        .over_connection = over_connection,
        .bytes = buf_span(&buf),
    };
    swim_receive(&dialogue->swim, &received);
    buf_free(&buf);
    note(dialogue);
}

static void hear_gossip(struct dialogue *dialogue, uint64_t from, struct rumour rumour)
{
    hear(dialogue, &(struct message){.type = MESSAGE_GOSSIP, .from = from}, &rumour, 1, false);
}

static void assert_said(struct dialogue *dialogue, const char *expected)
{
    buf_put_u8(&dialogue->text, 0);
    assert_string_equal((const char *)dialogue->text.data, expected);
    buf_clear(&dialogue->text);
}

static enum swim_state state_of(struct dialogue *dialogue, uint64_t node)
{
    return swim_member_of(&dialogue->swim, node)->state;
}

static void test_probe_goes_over_helpers_to_suspicion_and_refutation(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    dialogue.swim.tuning.suspect_pings = 0;
    run_until(&dialogue, 0);
    uint64_t target = dialogue.last_target;
    uint32_t sequence = dialogue.last_sequence;
    run_until(&dialogue, 950);
    /* Two of the three helpers heard nothing either; the third is silent. */
    const uint64_t helpers[] = {dialogue.swim.probe.helpers[0], dialogue.swim.probe.helpers[1]};
    for (int i = 0; i < 2; i++)
        hear(&dialogue,
             &(struct message){
                 .type = MESSAGE_NACK, .from = helpers[i], .target = target, .sequence = sequence},
             NULL, 0, false);
    run_until(&dialogue, 1100);
    /* It answers late: it is told, and refutes. */
    hear(&dialogue,
         &(struct message){.type = MESSAGE_ACK, .from = target, .target = target, .sequence = sequence}, NULL,
         0, false);
    run_until(&dialogue, 1350);
    hear(&dialogue,
         &(struct message){.type = MESSAGE_ACK, .from = target, .target = target, .sequence = sequence}, NULL,
         0, false);
    hear_gossip(&dialogue, target, (struct rumour){.node = target, .incarnation = 1, .state = SWIM_ALIVE});
    run_until(&dialogue, 1400);
    assert_int_equal(target, 5);
    assert_said(&dialogue, "0 to 5: PING 5\n"
                           "500 to 4: PING_ASK 5\n"
                           "500 to 2: PING_ASK 5\n"
                           "500 to 3: PING_ASK 5\n"
                           "500 to 5 (connection): PING 5\n"
                           "1000 to 3: PING 3, 5 is suspect in 0 says 1\n"
                           "1000 to 3: GOSSIP, 5 is suspect in 0 says 1\n"
                           "1000 to 5: GOSSIP, 5 is suspect in 0 says 1\n"
                           "1000 to 2: GOSSIP, 5 is suspect in 0 says 1\n"
                           "1000: 5 is suspect in 0; health 1\n"
                           "1100 to 5: GOSSIP, 5 is suspect in 0 says 1\n"
                           "1350 to 5: GOSSIP, 5 is suspect in 0 says 1\n"
                           "1350: 5 is alive in 1; health 1\n"
                           "1400 to 3: GOSSIP, 5 is alive in 1\n"
                           "1400 to 5: GOSSIP, 5 is alive in 1\n"
                           "1400 to 4: GOSSIP, 5 is alive in 1\n");
    dialogue_end(&dialogue);
}

static void test_accused_node_answers_with_a_greater_incarnation(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    dialogue.swim.probe_at_ms = START_MS + 900;
    struct rumour accusation = {.node = SELF, .incarnation = 7, .accuser = 3, .state = SWIM_SUSPECT};
    struct message ping = {.type = MESSAGE_PING, .from = 2, .target = SELF, .sequence = 9};
    dialogue.swim.gossip_at_ms = START_MS + 200;
    hear(&dialogue, &ping, &accusation, 1, false);
    assert_int_equal(swim_health(&dialogue.swim), 1);
    /* A stale accusation is answered, and changes nothing. */
    hear(&dialogue, &ping, &accusation, 1, true);
    hear_gossip(&dialogue, 4, accusation);
    /* An earlier run of this node came further. */
    hear_gossip(&dialogue, 4, (struct rumour){.node = SELF, .incarnation = 20, .state = SWIM_ALIVE});
    hear(&dialogue, &ping, NULL, 0, false);
    assert_int_equal(swim_health(&dialogue.swim), 1);
    assert_int_equal(dialogue.swim.counters.refutations, 1);
    assert_said(&dialogue, "0 to 2: ACK 1, 1 is alive in 8\n"
                           "0 to 2 (connection): ACK 1, 1 is alive in 8\n"
                           "0 to 4: GOSSIP, 1 is alive in 8\n"
                           "0 to 2: ACK 1, 1 is alive in 21\n");
    dialogue_end(&dialogue);
}

static void test_answer_over_the_peer_connection_counts(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    run_until(&dialogue, 600);
    swim_heard(&dialogue.swim, dialogue.last_target, START_MS + 600);
    run_until(&dialogue, 999);
    assert_int_equal(dialogue.swim.counters.suspicions, 0);
    assert_int_equal(dialogue.swim.counters.probes, 1);
    dialogue_end(&dialogue);
}

static void test_helper_passes_the_ping_and_its_answer_on(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    dialogue.swim.probe_at_ms = START_MS + 900;
    struct message ask = {.type = MESSAGE_PING_ASK, .from = 2, .target = 5, .sequence = 1234};
    hear(&dialogue, &ask, NULL, 0, false);
    uint32_t sequence = dialogue.last_sequence;
    /* An answer of somebody else is none. */
    hear(&dialogue, &(struct message){.type = MESSAGE_ACK, .from = 4, .target = 5, .sequence = sequence},
         NULL, 0, false);
    run_until(&dialogue, 450);
    hear(&dialogue, &(struct message){.type = MESSAGE_ACK, .from = 5, .target = 5, .sequence = sequence},
         NULL, 0, false);
    assert_int_equal(dialogue.last_sequence, 1234);
    assert_int_equal(dialogue.swim.relay_count, 0);
    assert_said(&dialogue, "0 to 5: PING 5\n"
                           "400 to 2: NACK 5\n"
                           "450 to 2: ACK 5\n");
    for (int i = 0; i < SWIM_RELAYS_MAX + 5; i++) {
        hear(&dialogue, &ask, NULL, 0, false);
        buf_clear(&dialogue.text);
    }
    assert_int_equal(dialogue.swim.relay_count, SWIM_RELAYS_MAX);
    assert_int_equal(dialogue.swim.counters.dropped, 5);
    dialogue_end(&dialogue);
}

static void test_confirmations_shorten_the_suspicion_and_death_needs_one_accuser_no_more(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    struct rumour accusation = {.node = 5, .incarnation = 0, .accuser = 2, .state = SWIM_SUSPECT};
    dialogue.swim.tuning.suspect_pings = 0;
    dialogue.swim.probe_at_ms = UINT64_MAX;
    hear_gossip(&dialogue, 2, accusation);
    const struct swim_member *member = swim_member_of(&dialogue.swim, 5);
    assert_int_equal(suspicion_deadline_ms(&member->suspicion), START_MS + 24000);
    assert_true(swim_reachable(&dialogue.swim, 5));
    hear_gossip(&dialogue, 3, accusation); /* the same accuser */
    assert_int_equal(suspicion_deadline_ms(&member->suspicion), START_MS + 24000);
    accusation.accuser = 3;
    hear_gossip(&dialogue, 3, accusation);
    accusation.accuser = 4;
    hear_gossip(&dialogue, 3, accusation);
    assert_int_equal(suspicion_deadline_ms(&member->suspicion), START_MS + 4000);
    run_until(&dialogue, 3999);
    assert_true(swim_reachable(&dialogue.swim, 5));
    run_until(&dialogue, 4000);
    assert_false(swim_reachable(&dialogue.swim, 5));
    /* Alive in the same incarnation does not bring it back; in the next one it does. */
    hear_gossip(&dialogue, 2, (struct rumour){.node = 5, .incarnation = 1, .state = SWIM_ALIVE});
    assert_int_equal(state_of(&dialogue, 5), SWIM_ALIVE);
    hear_gossip(&dialogue, 2, (struct rumour){.node = 5, .incarnation = 1, .accuser = 3, .state = SWIM_DEAD});
    assert_int_equal(state_of(&dialogue, 5), SWIM_DEAD);
    hear_gossip(&dialogue, 2, (struct rumour){.node = 5, .incarnation = 1, .state = SWIM_ALIVE});
    assert_int_equal(state_of(&dialogue, 5), SWIM_DEAD);
    dialogue_end(&dialogue);
}

static void test_dead_by_full_exchange_is_only_suspect(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    dialogue.swim.probe_at_ms = START_MS + 900;
    struct rumour all[] = {
        {.node = 5, .incarnation = 3, .accuser = 4, .state = SWIM_DEAD},
        {.node = 2, .incarnation = 6, .state = SWIM_ALIVE},
        {.node = 999, .incarnation = 6, .state = SWIM_ALIVE},
    };
    struct message exchange = {.type = MESSAGE_EXCHANGE, .from = 2};
    hear(&dialogue, &exchange, all, 3, false);
    assert_int_equal(dialogue.swim.counters.malformed, 1); /* over a connection only */
    hear(&dialogue, &exchange, all, 3, true);
    assert_said(&dialogue,
                "0 to 2 (connection): EXCHANGE_ANSWER, 1 is alive in 1, 2 is alive in 6, 5 is suspect in 3 "
                "says 2\n"
                "0: 5 is suspect in 3; health 0\n");
    dialogue_end(&dialogue);
}

static void test_node_that_slept_judges_nobody_by_that_time(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    hear_gossip(&dialogue, 2,
                (struct rumour){.node = 5, .incarnation = 0, .accuser = 2, .state = SWIM_SUSPECT});
    run_until(&dialogue, 10);
    uint64_t deadline_ms = suspicion_deadline_ms(&swim_member_of(&dialogue.swim, 5)->suspicion);
    uint64_t due_ms = swim_deadline_ms(&dialogue.swim);
    swim_tick(&dialogue.swim, START_MS + 60000);
    assert_int_equal(dialogue.swim.counters.sleeps, 1);
    assert_int_equal(dialogue.swim.counters.probes_failed, 0);
    assert_int_equal(state_of(&dialogue, 5), SWIM_SUSPECT);
    assert_int_equal(suspicion_deadline_ms(&swim_member_of(&dialogue.swim, 5)->suspicion),
                     deadline_ms + START_MS + 60000 - due_ms);
    assert_int_equal(swim_health(&dialogue.swim), 1);
    dialogue_end(&dialogue);
}

static void test_node_held_dead_is_told_when_it_is_heard(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    dialogue.swim.probe_at_ms = START_MS + 900;
    dialogue.swim.gossip_at_ms = START_MS + 900;
    struct rumour death = {.node = 5, .incarnation = 2, .accuser = 3, .state = SWIM_DEAD};
    hear_gossip(&dialogue, 3, death);
    swim_heard(&dialogue.swim, 5, START_MS);
    swim_heard(&dialogue.swim, 5, START_MS); /* once is enough for now */
    note(&dialogue);
    hear_gossip(&dialogue, 5, (struct rumour){.node = 5, .incarnation = 3, .state = SWIM_ALIVE});
    swim_heard(&dialogue.swim, 5, START_MS + 300);
    note(&dialogue);
    assert_said(&dialogue, "0: 5 is dead in 2; health 0\n"
                           "0 to 5 (connection): GOSSIP, 5 is dead in 2 says 1\n"
                           "0: 5 is alive in 3; health 0\n");
    dialogue_end(&dialogue);
}

static void test_foreign_and_malformed_messages_are_counted_and_ignored(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    dialogue.swim.probe_at_ms = START_MS + 900;
    struct message ping = {.type = MESSAGE_PING, .from = 77, .target = SELF, .sequence = 1};
    hear(&dialogue, &ping, NULL, 0, false); /* no member */
    ping.from = SELF;
    hear(&dialogue, &ping, NULL, 0, false); /* its own, come back */
    assert_int_equal(dialogue.swim.counters.foreign, 2);
    ping.from = 2;
    struct buf buf;
    buf_init(&buf, &dialogue.alloc);
    write_message(&buf, &ping, NULL, 0);
    struct swim_received received = {
        .now_ms = START_MS, .node = 3, .over_connection = true, .bytes = buf_span(&buf)};
    swim_receive(&dialogue.swim, &received); /* in another's name */
    received.bytes.size--;
    swim_receive(&dialogue.swim, &received);
    assert_int_equal(dialogue.swim.counters.malformed, 2);
    assert_int_equal(dialogue.swim.counters.received, 0);
    buf_free(&buf);
    ping.target = 4;
    hear(&dialogue, &ping, NULL, 0, false); /* for somebody else: not answered */
    assert_int_equal(dialogue.swim.counters.received, 1);
    assert_said(&dialogue, "");
    dialogue_end(&dialogue);
}

static void test_members_come_and_go_and_what_is_known_of_the_rest_stays(void **state)
{
    (void)state;
    struct dialogue dialogue;
    dialogue_begin(&dialogue, 5);
    struct rumour death = {.node = 5, .incarnation = 2, .accuser = 3, .state = SWIM_DEAD};
    struct buf buf;
    buf_init(&buf, &dialogue.alloc);
    write_message(&buf, &(struct message){.type = MESSAGE_GOSSIP, .from = 3}, &death, 1);
    swim_receive(&dialogue.swim, &(struct swim_received){.now_ms = START_MS, .bytes = buf_span(&buf)});
    buf_free(&buf);
    const uint64_t nodes[] = {9, 5, 1, 8};
    dialogue.alloc.fail_at_call = dialogue.alloc.calls + 3;
    assert_int_equal(swim_set_members(&dialogue.swim, nodes, 4), STATUS_OVERLOADED);
    assert_true(swim_reachable(&dialogue.swim, 3));
    dialogue.alloc.fail_at_call = 0;
    assert_int_equal(swim_set_members(&dialogue.swim, nodes, 4), STATUS_OK);
    assert_false(swim_reachable(&dialogue.swim, 3));
    assert_false(swim_reachable(&dialogue.swim, 5));
    assert_true(swim_reachable(&dialogue.swim, 8));
    note(&dialogue); /* the change is not lost */
    assert_said(&dialogue, "0: 5 is dead in 2; health 0\n");
    run_until(&dialogue, 5000);
    assert_int_equal(dialogue.swim.counters.dropped, 0);
    dialogue_end(&dialogue);
}

static void test_start_without_memory_fails_cleanly(void **state)
{
    (void)state;
    static const uint64_t ids[] = {1, 2, 3};
    for (uint64_t call = 1;; call++) {
        struct alloc alloc;
        struct swim swim;
        alloc_init(&alloc, 1u << 20);
        alloc.fail_at_call = call;
        struct swim_options options = {.alloc = &alloc,
                                       .self = 1,
                                       .incarnation = 1,
                                       .nodes = ids,
                                       .node_count = 3,
                                       .tuning = swim_tuning_default()};
        if (swim_init(&swim, &options) == STATUS_OK) {
            assert_true(call > 3);
            swim_free(&swim);
            assert_int_equal(alloc.used_bytes, 0);
            return;
        }
        assert_int_equal(alloc.used_bytes, 0);
    }
}

/* News in any order and number gives the same state. */
static void test_news_in_any_order_lead_to_the_same_state(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 12);
    for (int round = 0; round < 300; round++) {
        struct rumour news[12];
        for (int i = 0; i < 12; i++) {
            news[i] = (struct rumour){.node = 2 + prng_below(&prng, 4),
                                      .incarnation = 1 + prng_below(&prng, 3),
                                      .state = (enum swim_state)(1 + prng_below(&prng, 3))};
            news[i].accuser = news[i].state == SWIM_ALIVE ? 0 : 2 + prng_below(&prng, 4);
        }
        uint64_t incarnation[2][6];
        enum swim_state states[2][6];
        for (int run = 0; run < 2; run++) {
            struct dialogue dialogue;
            dialogue_begin(&dialogue, 5);
            for (int i = 0; i < 12; i++)
                hear_gossip(&dialogue, 3, news[run == 0 ? i : 11 - i]);
            for (int i = 0; run == 1 && i < 30; i++)
                hear_gossip(&dialogue, 3, news[prng_below(&prng, 12)]);
            for (uint64_t node = 2; node <= 5; node++) {
                incarnation[run][node] = swim_member_of(&dialogue.swim, node)->incarnation;
                states[run][node] = state_of(&dialogue, node);
            }
            dialogue_end(&dialogue);
        }
        for (uint64_t node = 2; node <= 5; node++) {
            assert_int_equal(incarnation[0][node], incarnation[1][node]);
            assert_int_equal(states[0][node], states[1][node]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe_goes_over_helpers_to_suspicion_and_refutation),
        cmocka_unit_test(test_accused_node_answers_with_a_greater_incarnation),
        cmocka_unit_test(test_answer_over_the_peer_connection_counts),
        cmocka_unit_test(test_helper_passes_the_ping_and_its_answer_on),
        cmocka_unit_test(test_confirmations_shorten_the_suspicion_and_death_needs_one_accuser_no_more),
        cmocka_unit_test(test_dead_by_full_exchange_is_only_suspect),
        cmocka_unit_test(test_node_that_slept_judges_nobody_by_that_time),
        cmocka_unit_test(test_node_held_dead_is_told_when_it_is_heard),
        cmocka_unit_test(test_foreign_and_malformed_messages_are_counted_and_ignored),
        cmocka_unit_test(test_members_come_and_go_and_what_is_known_of_the_rest_stays),
        cmocka_unit_test(test_start_without_memory_fails_cleanly),
        cmocka_unit_test(test_news_in_any_order_lead_to_the_same_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
