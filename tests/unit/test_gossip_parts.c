/* The parts of gossip: local health, suspicion timeouts, rumours, the format of messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "gossip/awareness.h"
#include "gossip/rumours.h"
#include "gossip/suspicion.h"
#include "gossip_message.h"

/* ---- awareness ------------------------------------------------------------------------------------------ */

static void test_awareness_stays_in_bounds_and_stretches_durations(void **state)
{
    (void)state;
    struct awareness awareness;
    awareness_init(&awareness, 7);
    awareness_add(&awareness, -1);
    assert_int_equal(awareness_scale_ms(&awareness, 1000), 1000);
    awareness_add(&awareness, 3);
    assert_int_equal(awareness_scale_ms(&awareness, 1000), 4000);
    awareness_add(&awareness, 30);
    assert_int_equal(awareness_scale_ms(&awareness, 1000), 8000);
    awareness_init(&awareness, 0);
    awareness_add(&awareness, 3);
    assert_int_equal(awareness_scale_ms(&awareness, 1000), 1000);
}

/* ---- suspicion ------------------------------------------------------------------------------------------ */

static void assert_about(uint64_t value, uint64_t expected)
{
    assert_in_range(value, expected - 2, expected + 2);
}

static void test_suspicion_minimum_follows_the_formula(void **state)
{
    (void)state;
    /* 4000 * max(1, log10 n) */
    assert_about(suspicion_min_ms(4, 1, 1000), 4000);
    assert_about(suspicion_min_ms(4, 10, 1000), 4000);
    assert_about(suspicion_min_ms(4, 11, 1000), 4166);
    assert_about(suspicion_min_ms(4, 50, 1000), 6796);
    assert_about(suspicion_min_ms(4, 100, 1000), 8000);
    assert_about(suspicion_min_ms(4, 500, 1000), 10796);
    assert_about(suspicion_min_ms(4, 512, 1000), 10837);
    for (uint32_t nodes = 2; nodes <= NODES_MAX; nodes++)
        assert_true(suspicion_min_ms(4, nodes, 1000) >= suspicion_min_ms(4, nodes - 1, 1000));
}

static void test_suspicion_shrinks_with_each_accuser_as_the_formula_says(void **state)
{
    (void)state;
    /* max - (max - min) * ln(c + 1) / ln(k + 1), for min 4000, max 24000 */
    static const uint64_t timeouts_ms[4][4] = {
        {4000}, {24000, 4000}, {24000, 11381, 4000}, {24000, 14000, 8150, 4000}};
    for (uint8_t k = 0; k < 4; k++) {
        struct suspicion suspicion;
        struct suspicion_options options = {
            .now_ms = 50, .min_ms = 4000, .max_ms = 24000, .accuser = 1, .confirmations = k};
        suspicion_start(&suspicion, &options);
        for (uint8_t c = 0; c <= k; c++) {
            assert_about(suspicion_deadline_ms(&suspicion) - 50, timeouts_ms[k][c]);
            assert_false(suspicion_confirm(&suspicion, 1));
            assert_int_equal(suspicion_confirm(&suspicion, 2u + c), c < k);
        }
        assert_about(suspicion_deadline_ms(&suspicion) - 50, 4000);
    }
}

static void test_suspicion_is_extended_by_a_sleep(void **state)
{
    (void)state;
    struct suspicion suspicion;
    suspicion_start(&suspicion,
                    &(struct suspicion_options){.now_ms = 5, .min_ms = 10, .max_ms = 10, .accuser = 1});
    suspicion_extend(&suspicion, 7);
    assert_int_equal(suspicion_deadline_ms(&suspicion), 22);
}

/* ---- rumours -------------------------------------------------------------------------------------------- */

static void test_transmits_follow_the_formula(void **state)
{
    (void)state;
    for (uint32_t nodes = 1; nodes <= NODES_MAX; nodes++)
        assert_int_equal(rumours_transmits_max(4, nodes), nodes < 10 ? 4 : nodes < 100 ? 8 : 12);
    assert_int_equal(rumours_transmits_max(0, 100), 1);
    assert_int_equal(rumours_transmits_max(1000, 100), RUMOUR_TRANSMITS_MAX);
}

#define RUMOURS 40

/* Against a naive list: least told first; which of those told equally often is free. */
static void test_rumours_are_told_as_often_as_allowed_and_newest_wins(void **state)
{
    (void)state;
    struct prng prng;
    struct alloc alloc;
    struct rumours rumours;
    uint64_t newest[RUMOURS] = {0};
    int told[RUMOURS];
    prng_seed(&prng, 3);
    alloc_init(&alloc, 1u << 20);
    assert_int_equal(rumours_init(&rumours, &alloc, RUMOURS, 5), STATUS_OK);
    for (int i = 0; i < RUMOURS; i++)
        told[i] = 5;
    for (uint64_t step = 1; step <= 20000; step++) {
        if (prng_chance(&prng, 1, 3)) {
            uint16_t at = (uint16_t)prng_below(&prng, RUMOURS);
            newest[at] = step;
            told[at] = 0;
            rumours_put(&rumours, at,
                        &(struct rumour){.node = at + 1u, .incarnation = step, .state = SWIM_ALIVE});
            continue;
        }
        struct rumour taken[RUMOURS];
        uint16_t max = (uint16_t)prng_below(&prng, 10);
        uint16_t count = rumours_take(&rumours, taken, max);
        int told_most = 0;
        for (uint16_t i = 0; i < count; i++) {
            uint64_t at = taken[i].node - 1;
            assert_int_equal(taken[i].incarnation, newest[at]);
            assert_true(told[at] < 5);
            told_most = told[at] > told_most ? told[at] : told_most;
            told[at] += 100; /* taken: not twice in one call */
        }
        int left = 0;
        for (int i = 0; i < RUMOURS; i++) {
            if (told[i] >= 100)
                told[i] -= 99;
            else if (told[i] < 5 && count > 0 && max == count)
                assert_true(told[i] >= told_most);
            else
                assert_true(told[i] == 5 || max == 0);
            left += told[i] < 5;
        }
        assert_int_equal(rumours.count, left);
    }
    rumours_free(&rumours);
    assert_int_equal(alloc.used_bytes, 0);
}

/* ---- messages ------------------------------------------------------------------------------------------- */

static void test_message_is_read_as_written_and_any_changed_byte_is_refused(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    struct message read;
    struct rumour rumours[] = {
        {.node = 5, .incarnation = 9, .state = SWIM_ALIVE},
        {.node = 6, .incarnation = 0, .accuser = 5, .state = SWIM_SUSPECT},
        {.node = 7, .incarnation = INCARNATION_MAX, .accuser = 6, .state = SWIM_DEAD},
    };
    struct message message = {.type = MESSAGE_PING_ASK, .from = 3, .target = 4, .sequence = 0xfffffff0};
    alloc_init(&alloc, 1u << 20);
    buf_init(&buf, &alloc);
    write_message(&buf, &message, rumours, 3);
    assert_int_equal(buf.size, MESSAGE_HEADER_BYTES + 3 * MESSAGE_RUMOUR_BYTES);
    assert_int_equal(message_decode(buf_span(&buf), cluster, &read), STATUS_OK);
    assert_int_equal(read.type, message.type);
    assert_int_equal(read.from, 3);
    assert_int_equal(read.target, 4);
    assert_int_equal(read.sequence, message.sequence);
    assert_int_equal(read.rumour_count, 3);
    for (uint16_t i = 0; i < 3; i++) {
        struct rumour rumour = message_rumour(&read, i);
        assert_int_equal(rumour.node, rumours[i].node);
        assert_int_equal(rumour.incarnation, rumours[i].incarnation);
        assert_int_equal(rumour.accuser, rumours[i].accuser);
        assert_int_equal(rumour.state, rumours[i].state);
    }
    for (size_t i = 0; i < buf.size; i++) {
        assert_int_not_equal(message_decode(span_of(buf.data, i), cluster, &read), STATUS_OK);
        for (int bit = 0; bit < 8; bit++) {
            buf.data[i] ^= (uint8_t)(1 << bit);
            assert_int_not_equal(message_decode(buf_span(&buf), cluster, &read), STATUS_OK);
            buf.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buf.data[4]++;
    assert_int_equal(message_decode(buf_span(&buf), cluster, &read), STATUS_WRONG_PROTOCOL);
    buf.data[4]--;
    assert_int_equal(message_decode(buf_span(&buf), (struct hash_128){77, 89}, &read), STATUS_WRONG_CLUSTER);
    buf_free(&buf);
}

static void test_message_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf buf;
    struct message read;
    alloc_init(&alloc, 1u << 20);
    buf_init(&buf, &alloc);
    const struct message ping = {.type = MESSAGE_PING, .from = 3, .target = 4, .sequence = 1};
    const struct message gossip = {.type = MESSAGE_GOSSIP, .from = 3};
    struct message messages[] = {ping, ping, ping, ping, gossip, gossip};
    messages[0].type = 0;
    messages[1].type = MESSAGE_TYPE_MAX + 1;
    messages[2].from = 0;
    messages[3].target = 0;
    messages[4].target = 1;
    messages[5].sequence = 1;
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        write_message(&buf, &messages[i], NULL, 0);
        assert_int_equal(message_decode(buf_span(&buf), cluster, &read), STATUS_MALFORMED);
    }
    const struct rumour rumours[] = {
        {.node = 0, .incarnation = 1, .state = SWIM_ALIVE},
        {.node = 1, .incarnation = 0, .state = SWIM_ALIVE},
        {.node = 1, .incarnation = 1, .accuser = 2, .state = SWIM_ALIVE},
        {.node = 1, .incarnation = 1, .accuser = 0, .state = SWIM_DEAD},
        {.node = 1, .incarnation = INCARNATION_MAX + 1, .accuser = 2, .state = SWIM_SUSPECT},
        {.node = 1, .incarnation = 1, .accuser = 2, .state = (enum swim_state)4},
    };
    for (size_t i = 0; i < sizeof rumours / sizeof *rumours; i++) {
        write_message(&buf, &gossip, &rumours[i], 1);
        assert_int_equal(message_decode(buf_span(&buf), cluster, &read), STATUS_MALFORMED);
    }
    struct rumour many[MESSAGE_DATAGRAM_RUMOURS_MAX + 1];
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        many[i] = (struct rumour){.node = i + 1, .incarnation = 1, .state = SWIM_ALIVE};
    write_message(&buf, &gossip, many, MESSAGE_DATAGRAM_RUMOURS_MAX);
    assert_true(buf.size <= MESSAGE_DATAGRAM_BYTES_MAX);
    assert_int_equal(message_decode(buf_span(&buf), cluster, &read), STATUS_OK);
    write_message(&buf, &gossip, many, MESSAGE_DATAGRAM_RUMOURS_MAX + 1);
    assert_int_equal(message_decode(buf_span(&buf), cluster, &read), STATUS_MALFORMED);
    buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_awareness_stays_in_bounds_and_stretches_durations),
        cmocka_unit_test(test_suspicion_minimum_follows_the_formula),
        cmocka_unit_test(test_suspicion_shrinks_with_each_accuser_as_the_formula_says),
        cmocka_unit_test(test_suspicion_is_extended_by_a_sleep),
        cmocka_unit_test(test_transmits_follow_the_formula),
        cmocka_unit_test(test_rumours_are_told_as_often_as_allowed_and_newest_wins),
        cmocka_unit_test(test_message_is_read_as_written_and_any_changed_byte_is_refused),
        cmocka_unit_test(test_message_that_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
