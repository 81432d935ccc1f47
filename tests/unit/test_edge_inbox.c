/* Inboxes: order, coalescing, one wake per batch, and nothing lost between threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>

#include "base/prng.h"
#include "edge/inbox.h"

static void count_wake(void *context)
{
    ++*(unsigned *)context;
}

static void push_text(struct inbox *inbox, uint64_t node, const char *text)
{
    const struct inbox_message message = {
        .kind = INBOX_LOCAL, .fd = -1, .node = node, .bytes = span_of_text(text)};
    inbox_push(inbox, &message);
}

static void test_messages_come_in_order_with_their_bytes(void **state)
{
    struct inbox inbox;
    unsigned wakes = 0;
    (void)state;
    inbox_init(&inbox, count_wake, &wakes);
    push_text(&inbox, 1, "one");
    push_text(&inbox, 2, "");
    push_text(&inbox, 3, "three");
    struct inbox_batch *batch = inbox_take(&inbox);
    assert_int_equal(batch->count, 3);
    assert_true(span_is(inbox_message_at(batch, 0).bytes, "one"));
    assert_int_equal(inbox_message_at(batch, 1).bytes.size, 0);
    assert_true(span_is(inbox_message_at(batch, 2).bytes, "three"));
    assert_int_equal(inbox_message_at(batch, 2).node, 3);
    inbox_free(&inbox);
}

static void test_wakes_once_until_taken(void **state)
{
    struct inbox inbox;
    unsigned wakes = 0;
    (void)state;
    inbox_init(&inbox, count_wake, &wakes);
    push_text(&inbox, 1, "a");
    push_text(&inbox, 2, "b");
    inbox_push_durable(&inbox, 7);
    assert_int_equal(wakes, 1);
    assert_int_equal(inbox_take(&inbox)->count, 2);
    push_text(&inbox, 3, "c");
    assert_int_equal(wakes, 2);
    assert_int_equal(inbox_take(&inbox)->count, 1);
    assert_int_equal(inbox_take(&inbox)->count, 0);
    inbox_free(&inbox);
}

static void test_log_news_is_coalesced_and_told_once(void **state)
{
    struct inbox inbox;
    unsigned wakes = 0;
    (void)state;
    inbox_init(&inbox, count_wake, &wakes);
    inbox_push_durable(&inbox, 5);
    inbox_push_durable(&inbox, 9);
    inbox_push_durable(&inbox, 8);
    inbox_push_full(&inbox, true);
    inbox_push_full(&inbox, false);
    struct inbox_batch *batch = inbox_take(&inbox);
    assert_int_equal(batch->durable_sequence, 9);
    assert_true(batch->full_changed);
    assert_false(batch->full);
    batch = inbox_take(&inbox);
    assert_int_equal(batch->durable_sequence, 0);
    assert_false(batch->full_changed);
    inbox_free(&inbox);
}

static void test_push_while_a_batch_is_read_goes_to_the_next(void **state)
{
    struct inbox inbox;
    unsigned wakes = 0;
    (void)state;
    inbox_init(&inbox, count_wake, &wakes);
    push_text(&inbox, 1, "first");
    struct inbox_batch *batch = inbox_take(&inbox);
    for (unsigned i = 0; i < 1000; i++)
        push_text(&inbox, 2, "later");
    assert_int_equal(batch->count, 1);
    assert_true(span_is(inbox_message_at(batch, 0).bytes, "first"));
    assert_int_equal(inbox_take(&inbox)->count, 1000);
    inbox_free(&inbox);
}

static void test_memory_of_a_burst_is_given_back(void **state)
{
    static uint8_t large[INBOX_KEPT_BYTES_MAX + 1];
    struct inbox inbox;
    unsigned wakes = 0;
    (void)state;
    inbox_init(&inbox, count_wake, &wakes);
    const struct inbox_message message = {
        .kind = INBOX_LOCAL, .fd = -1, .bytes = span_of(large, sizeof large)};
    inbox_push(&inbox, &message);
    struct inbox_batch *batch = inbox_take(&inbox);
    assert_true(batch->alloc.used_bytes > INBOX_KEPT_BYTES_MAX);
    inbox_take(&inbox);
    assert_int_equal(batch->alloc.used_bytes, 0);
    inbox_free(&inbox);
}

/* ---- threads -------------------------------------------------------------------------------------------- */

#define SENDERS 4
#define SENDS 20000

struct crowd {
    struct inbox inbox;
    sem_t woken;
};

struct sender {
    struct crowd *crowd;
    pthread_t thread;
    uint64_t number;
};

static void post_wake(void *context)
{
    sem_post(context);
}

static void *send_all(void *context)
{
    struct sender *sender = context;
    struct prng prng;
    uint8_t bytes[64];
    prng_seed(&prng, sender->number);
    for (uint64_t i = 1; i <= SENDS; i++) {
        size_t size = 8 + (size_t)prng_below(&prng, sizeof bytes - 8);
        memset(bytes, (int)sender->number, sizeof bytes);
        store_u64(bytes, i);
        const struct inbox_message message = {
            .kind = INBOX_LOCAL, .fd = -1, .node = sender->number, .bytes = span_of(bytes, size)};
        inbox_push(&sender->crowd->inbox, &message);
        if (i % 16 == 0)
            inbox_push_durable(&sender->crowd->inbox, i);
    }
    return NULL;
}

static void check_message(const struct inbox_message *message, uint64_t *next)
{
    assert_in_range(message->node, 0, SENDERS - 1);
    assert_true(message->bytes.size >= 8);
    assert_int_equal(load_u64(message->bytes.data), ++next[message->node]);
    for (size_t i = 8; i < message->bytes.size; i++)
        assert_int_equal(message->bytes.data[i], (uint8_t)message->node);
}

static void test_many_senders_lose_nothing_and_keep_their_order(void **state)
{
    struct crowd crowd;
    struct sender senders[SENDERS];
    uint64_t next[SENDERS] = {0};
    uint64_t received = 0;
    uint64_t durable = 0;
    (void)state;
    sem_init(&crowd.woken, 0, 0);
    inbox_init(&crowd.inbox, post_wake, &crowd.woken);
    for (uint64_t i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.crowd = &crowd, .number = i};
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]), 0);
    }
    while (received < SENDERS * SENDS || durable < SENDS) {
        sem_wait(&crowd.woken); /* a lost wake would hang here */
        struct inbox_batch *batch = inbox_take(&crowd.inbox);
        for (size_t i = 0; i < batch->count; i++) {
            struct inbox_message message = inbox_message_at(batch, i);
            check_message(&message, next);
        }
        received += batch->count;
        if (durable < batch->durable_sequence)
            durable = batch->durable_sequence;
    }
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
    assert_int_equal(inbox_take(&crowd.inbox)->count, 0);
    inbox_free(&crowd.inbox);
    sem_destroy(&crowd.woken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_come_in_order_with_their_bytes),
        cmocka_unit_test(test_wakes_once_until_taken),
        cmocka_unit_test(test_log_news_is_coalesced_and_told_once),
        cmocka_unit_test(test_push_while_a_batch_is_read_goes_to_the_next),
        cmocka_unit_test(test_memory_of_a_burst_is_given_back),
        cmocka_unit_test(test_many_senders_lose_nothing_and_keep_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
