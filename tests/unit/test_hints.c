/* Unit tests of src/repair/hints: against a model store, over targets that come and go, answers that get
 * lost, and crashes after which the books are rebuilt from the store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "repair/hints.h"

#define BUDGET_BYTES ((size_t)16 << 20)
#define TARGETS 3
#define KEYS 300
#define BYTES_MAX 12000
#define RATE_BYTES_PER_S 100000
#define BURST_BYTES 2000
#define PAUSE_US 1000000

struct stored {
    uint64_t bytes; /* 0 = none */
    struct version version;
    bool counted;
    uint32_t promised; /* the newest write of it that counted towards a sloppy W */
};

/* A hint under way, as the network sees it. */
struct message {
    uint64_t target;
    uint64_t id;
    uint32_t key;
    struct version version;
};

struct world {
    struct prng prng;
    struct alloc alloc;
    struct hints hints;
    uint64_t now_us;
    uint64_t started_us;
    uint64_t clock;
    struct stored store[TARGETS][KEYS];
    bool up[TARGETS];
    bool marks[TARGETS][SLOTS_COUNT];  /* durable sync marks */
    uint64_t delivered[TARGETS][KEYS]; /* newest version the target holds */
    struct message network[2 * HINT_WINDOW_MAX];
    uint32_t network_count;
    uint64_t sent_bytes[TARGETS];
    uint64_t refused;
};

static struct span key_text(uint32_t key, char text[16])
{
    return span_of(text, (size_t)snprintf(text, 16, "key%u", key));
}

static void hint_bytes(const struct world *world, uint32_t t, uint32_t key, struct buf *buf)
{
    char text[16];
    (void)world;
    struct hint_key hint = {.target = t + 1, .key = key_text(key, text)};
    hint.slot = key_slot(hint.key);
    buf_clear(buf);
    hint_key_put(buf, &hint);
    assert_false(buf->failed);
}

static void books_make(struct world *world)
{
    struct hints_options options = {.alloc = &world->alloc,
                                    .bytes_max = BYTES_MAX,
                                    .replay_bytes_per_s = RATE_BYTES_PER_S,
                                    .replay_burst_bytes = BURST_BYTES,
                                    .pass_pause_us = PAUSE_US};
    hints_init(&world->hints, &options);
}

static struct hint_change change_of(uint32_t t, uint32_t key)
{
    char text[16];
    return (struct hint_change){.target = t + 1, .slot = key_slot(key_text(key, text))};
}

static void check_books(const struct world *world)
{
    for (uint32_t t = 0; t < TARGETS; t++) {
        uint64_t bytes = 0;
        uint64_t count = 0;
        uint32_t syncs = 0;
        for (uint32_t k = 0; k < KEYS; k++) {
            bytes += world->store[t][k].bytes;
            count += world->store[t][k].bytes != 0;
            if (world->store[t][k].bytes != 0)
                assert_true(hints_slot_held(&world->hints, change_of(t, k).slot));
        }
        for (uint32_t s = 0; s < SLOTS_COUNT; s++)
            syncs += world->marks[t][s];
        struct hint_target_info info = hints_target(&world->hints, t + 1);
        assert_int_equal(info.bytes, bytes);
        assert_int_equal(info.count, count);
        assert_int_equal(info.syncs, syncs);
        assert_true(bytes <= BYTES_MAX);
    }
}

static void miss_a_write(struct world *world)
{
    uint32_t t = (uint32_t)prng_below(&world->prng, TARGETS);
    uint32_t key = (uint32_t)prng_below(&world->prng, KEYS);
    struct stored *stored = &world->store[t][key];
    struct hint_change change = change_of(t, key);
    bool promise = prng_chance(&world->prng, 1, 3);
    change.counted = promise || stored->counted;
    change.bytes_before = stored->bytes;
    change.bytes_after = 50 + prng_below(&world->prng, 200);
    enum hint_verdict verdict = hints_add(&world->hints, &change);
    world->clock++;
    if (verdict == HINT_STORE) {
        stored->bytes = change.bytes_after;
        stored->version.value = (struct stamp){.time = world->clock, .actor = 1};
        stored->counted = change.counted;
        stored->promised = promise ? (uint32_t)world->clock : stored->promised;
    } else if (verdict == HINT_SYNC) {
        assert_false(change.counted);
        world->marks[t][change.slot] = true;
    } else {
        world->refused++;
    }
    bool up = hints_target(&world->hints, t + 1).up;
    if (up != world->up[t])
        hints_target_up(&world->hints, t + 1, world->up[t], world->now_us);
}

/* Sends what one turn allows, in the order of the keys. */
static void replay(struct world *world, uint32_t t)
{
    struct hint_turn turn = hints_turn(&world->hints, t + 1, world->now_us);
    if (!turn.send)
        return;
    assert_true(world->up[t]);
    struct alloc alloc;
    struct buf next;
    struct buf after;
    struct buf key;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&next, &alloc);
    buf_init(&after, &alloc);
    buf_init(&key, &alloc);
    buf_append_span(&after, turn.after);
    uint64_t bytes = 0;
    bool more = true;
    for (uint32_t n = 0; n < turn.hints && bytes < turn.bytes && more; n++) {
        uint32_t best = KEYS;
        for (uint32_t k = 0; k < KEYS; k++) {
            hint_bytes(world, t, k, &key);
            if (world->store[t][k].bytes == 0 || span_compare(buf_span(&key), buf_span(&after)) <= 0 ||
                (best < KEYS && span_compare(buf_span(&key), buf_span(&next)) > 0))
                continue;
            best = k;
            buf_clear(&next);
            buf_append_span(&next, buf_span(&key));
        }
        more = best < KEYS;
        if (!more) {
            hints_pass_done(&world->hints, t + 1, world->now_us);
            break;
        }
        struct hint_send send = {.target = t + 1,
                                 .hint_key = buf_span(&next),
                                 .acks = 1,
                                 .version = world->store[t][best].version,
                                 .bytes = world->store[t][best].bytes};
        uint64_t id;
        if (hints_sent(&world->hints, &send, world->now_us, &id) != STATUS_OK)
            break;
        bytes += send.bytes;
        world->sent_bytes[t] += send.bytes;
        assert_true(world->network_count < 2 * HINT_WINDOW_MAX);
        world->network[world->network_count++] =
            (struct message){.target = t + 1, .id = id, .key = best, .version = send.version};
        buf_clear(&after);
        buf_append_span(&after, buf_span(&next));
    }
    buf_free(&next);
    buf_free(&after);
    buf_free(&key);
}

static void answer_one(struct world *world)
{
    if (world->network_count == 0)
        return;
    struct message message = world->network[0];
    world->network_count--;
    memmove(world->network, world->network + 1, world->network_count * sizeof *world->network);
    uint32_t t = (uint32_t)(message.target - 1);
    bool durable = world->up[t] && prng_chance(&world->prng, 9, 10);
    if (durable && world->delivered[t][message.key] < message.version.value.time)
        world->delivered[t][message.key] = message.version.value.time;
    struct hint_done done;
    if (hints_answered(&world->hints, message.target, message.id, durable, &done) != STATUS_OK || !done.erase)
        return;
    struct alloc alloc;
    struct buf key;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&key, &alloc);
    hint_bytes(world, t, message.key, &key);
    assert_true(span_equal(done.hint_key, buf_span(&key)));
    buf_free(&key);
    assert_true(durable);
    struct stored *stored = &world->store[t][message.key];
    if (stored->bytes == 0 || !version_equal(stored->version, done.version))
        return;
    struct hint_change change = change_of(t, message.key);
    change.bytes_before = stored->bytes;
    assert_int_equal(hints_book(&world->hints, &change), STATUS_OK);
    *stored = (struct stored){.promised = stored->promised};
}

static void crash(struct world *world)
{
    hints_free(&world->hints);
    assert_int_equal(world->alloc.used_bytes, 0);
    books_make(world);
    world->started_us = world->now_us;
    memset(world->sent_bytes, 0, sizeof world->sent_bytes);
    world->network_count = 0;
    for (uint32_t t = 0; t < TARGETS; t++) {
        for (uint32_t k = 0; k < KEYS; k++) {
            struct hint_change change = change_of(t, k);
            change.bytes_after = world->store[t][k].bytes;
            if (change.bytes_after != 0)
                assert_int_equal(hints_book(&world->hints, &change), STATUS_OK);
        }
        for (uint32_t s = 0; s < SLOTS_COUNT; s++) {
            if (world->marks[t][s])
                assert_int_equal(hints_mark(&world->hints, t + 1, (uint16_t)s), STATUS_OK);
        }
        hints_target_up(&world->hints, t + 1, world->up[t], world->now_us);
    }
}

static void sync_a_slot(struct world *world)
{
    uint32_t t = (uint32_t)prng_below(&world->prng, TARGETS);
    uint16_t slot = hints_sync_next(&world->hints, t + 1, (uint16_t)prng_below(&world->prng, SLOTS_COUNT));
    if (slot == SLOTS_COUNT)
        return;
    assert_true(world->marks[t][slot]);
    assert_true(hints_sync_begin(&world->hints, t + 1, slot));
    assert_false(hints_sync_begin(&world->hints, t + 1, slot));
    bool again = prng_chance(&world->prng, 1, 4);
    if (again)
        assert_int_equal(hints_mark(&world->hints, t + 1, slot), STATUS_OK);
    bool verified = prng_chance(&world->prng, 1, 2);
    bool cleared = hints_sync_end(&world->hints, t + 1, slot, verified);
    assert_int_equal(cleared, verified && !again);
    world->marks[t][slot] = !cleared;
}

static void step(struct world *world, bool writes)
{
    uint64_t pick = prng_below(&world->prng, 100);
    uint32_t t = (uint32_t)prng_below(&world->prng, TARGETS);
    world->now_us += prng_below(&world->prng, 5000);
    if (pick < 40 && writes) {
        miss_a_write(world);
    } else if (pick < 70) {
        replay(world, t);
    } else if (pick < 95) {
        for (int i = 0; i < 5; i++)
            answer_one(world);
    } else if (pick < 97) {
        sync_a_slot(world);
    } else if (pick < 99 && writes) {
        world->up[t] = !world->up[t];
        hints_target_up(&world->hints, t + 1, world->up[t], world->now_us);
    } else if (writes && prng_chance(&world->prng, 1, 10)) {
        crash(world);
    }
    /* Whatever happened, the rate was kept: one burst, and one hint beyond it. */
    uint64_t earned = (world->now_us - world->started_us) * RATE_BYTES_PER_S / 1000000;
    for (uint32_t i = 0; i < TARGETS; i++)
        assert_true(world->sent_bytes[i] <= earned + BURST_BYTES + 300);
}

static void hints_reach_targets_that_come_and_go_and_are_deleted_only_then(void **state)
{
    (void)state;
    uint64_t refused = 0;
    uint64_t converted = 0;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct world *world = calloc(1, sizeof *world);
        assert_non_null(world);
        prng_seed(&world->prng, seed);
        alloc_init(&world->alloc, BUDGET_BYTES);
        books_make(world);
        for (int i = 0; i < 8000; i++) {
            step(world, true);
            if (i % 200 == 0)
                check_books(world);
        }
        converted += world->hints.converted;
        for (uint32_t t = 0; t < TARGETS; t++) {
            world->up[t] = true;
            hints_target_up(&world->hints, t + 1, true, world->now_us);
        }
        for (int i = 0; i < 20000 && world->hints.count > 0; i++)
            step(world, false);
        check_books(world);
        assert_int_equal(world->hints.count, 0);
        assert_int_equal(world->hints.bytes, 0);
        for (uint32_t t = 0; t < TARGETS; t++) {
            for (uint32_t k = 0; k < KEYS; k++)
                assert_true(world->delivered[t][k] >= world->store[t][k].promised);
        }
        refused += world->refused;
        hints_free(&world->hints);
        assert_int_equal(world->alloc.used_bytes, 0);
        free(world);
    }
    assert_true(refused > 0);
    assert_true(converted > 0);
}

static void hint_keys_are_contiguous_by_target_and_past_every_slot(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf key;
    struct buf first;
    struct buf end;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&key, &alloc);
    buf_init(&first, &alloc);
    buf_init(&end, &alloc);
    for (uint32_t i = 0; i < 1000; i++) {
        char text[16];
        struct hint_key hint = {.target = 0x100 + i % 3, .key = key_text(i, text)};
        struct hint_key read;
        hint.slot = key_slot(hint.key);
        hint.sync = i % 10 == 0;
        if (hint.sync)
            hint.key.size = 0;
        buf_clear(&key);
        buf_clear(&first);
        buf_clear(&end);
        hint_key_put(&key, &hint);
        assert_int_equal(hint_key_read(buf_span(&key), &read), STATUS_OK);
        assert_int_equal(read.target, hint.target);
        assert_int_equal(read.slot, hint.slot);
        assert_int_equal(read.sync, hint.sync);
        assert_true(span_equal(read.key, hint.key));
        assert_true(key.data[0] == 0xff && key.data[1] >= 0xfe);
        hint_range_put(&first, &end, 0x101);
        bool inside = span_compare(buf_span(&first), buf_span(&key)) <= 0 &&
                      span_compare(buf_span(&key), buf_span(&end)) < 0;
        assert_int_equal(inside, hint.target == 0x101 && !hint.sync);
        for (size_t size = 0; size < HINT_KEY_HEAD_BYTES; size++)
            assert_int_equal(hint_key_read(span_of(key.data, size), &read), STATUS_MALFORMED);
        key.data[10] ^= 0x10; /* another slot than the key's; of a mark, just another slot */
        assert_int_equal(hint_key_read(buf_span(&key), &read), hint.sync ? STATUS_OK : STATUS_MALFORMED);
    }
    buf_free(&key);
    buf_free(&first);
    buf_free(&end);
}

static void hint_is_deleted_only_when_every_replica_it_was_sent_to_has_it(void **state)
{
    (void)state;
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    alloc_init(&world->alloc, BUDGET_BYTES);
    books_make(world);
    struct hint_change change = change_of(0, 1);
    change.bytes_after = 100;
    assert_int_equal(hints_add(&world->hints, &change), HINT_STORE);
    hints_target_up(&world->hints, 1, true, 0);
    assert_true(hints_turn(&world->hints, 1, 0).send);
    struct hint_send send = {.target = 1, .hint_key = span_of_text("some key"), .bytes = 100, .acks = 3};
    struct hint_done done;
    uint64_t id;
    assert_int_equal(hints_sent(&world->hints, &send, 0, &id), STATUS_OK);
    assert_int_equal(hints_answered(&world->hints, 1, id, true, &done), STATUS_OK);
    assert_int_equal(hints_answered(&world->hints, 1, id, false, &done), STATUS_OK);
    assert_false(done.erase);
    assert_int_equal(hints_answered(&world->hints, 1, id, true, &done), STATUS_OK);
    assert_false(done.erase); /* one refused */
    assert_int_equal(hints_answered(&world->hints, 1, id, true, &done), STATUS_NOT_FOUND);
    hints_pass_done(&world->hints, 1, 10);
    assert_int_equal(hints_turn(&world->hints, 1, 20).again_at_us, 10 + PAUSE_US);
    assert_true(hints_turn(&world->hints, 1, 10 + PAUSE_US).send);
    send.acks = 2;
    assert_int_equal(hints_sent(&world->hints, &send, 0, &id), STATUS_OK);
    assert_int_equal(hints_answered(&world->hints, 1, id, true, &done), STATUS_OK);
    assert_false(done.erase);
    assert_int_equal(hints_answered(&world->hints, 1, id, true, &done), STATUS_OK);
    assert_true(done.erase);
    assert_true(span_equal(done.hint_key, span_of_text("some key")));
    hints_free(&world->hints);
    assert_int_equal(world->alloc.used_bytes, 0);
    free(world);
}

static void counted_hint_at_the_bound_is_refused_and_another_one_converted(void **state)
{
    (void)state;
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    alloc_init(&world->alloc, BUDGET_BYTES);
    books_make(world);
    struct hint_change change = change_of(0, 1);
    change.bytes_after = BYTES_MAX;
    change.counted = true;
    assert_int_equal(hints_add(&world->hints, &change), HINT_STORE);
    struct hint_change next = change_of(0, 2);
    next.bytes_after = 1;
    next.counted = true;
    assert_int_equal(hints_add(&world->hints, &next), HINT_REFUSED);
    next.counted = false;
    assert_int_equal(hints_add(&world->hints, &next), HINT_SYNC);
    assert_int_equal(hints_sync_next(&world->hints, 1, 0), next.slot);
    /* What is stored is replaced by its merge, and the other targets have bounds of their own. */
    change.bytes_before = change.bytes_after;
    assert_int_equal(hints_add(&world->hints, &change), HINT_STORE);
    next.target = 2;
    assert_int_equal(hints_add(&world->hints, &next), HINT_STORE);
    hints_free(&world->hints);
    free(world);
}

static void failed_allocation_refuses_and_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 40; n++) {
        struct world *world = calloc(1, sizeof *world);
        assert_non_null(world);
        prng_seed(&world->prng, n);
        alloc_init(&world->alloc, BUDGET_BYTES);
        books_make(world);
        world->alloc.fail_at_call = n;
        for (uint32_t t = 0; t < TARGETS; t++)
            world->up[t] = true;
        for (int i = 0; i < 1000; i++) {
            uint64_t pick = prng_below(&world->prng, 10);
            world->now_us += 3000;
            if (pick < 5)
                miss_a_write(world);
            else if (pick < 7)
                replay(world, (uint32_t)prng_below(&world->prng, TARGETS));
            else
                answer_one(world);
        }
        check_books(world);
        hints_free(&world->hints);
        assert_int_equal(world->alloc.used_bytes, 0);
        free(world);
    }
}

static void hint_row_keeps_the_record_as_it_was_written(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf record;
    struct buf row;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&record, &alloc);
    buf_init(&row, &alloc);
    struct record held = {.flags = RECORD_VALUE, .stamp = {5, 6}, .value = span_of_text("v")};
    record_put(&record, &held);
    hint_row_put(&row, HINT_COUNTED, buf_span(&record));
    uint8_t flags;
    struct span read;
    assert_int_equal(hint_row_read(buf_span(&row), &flags, &read), STATUS_OK);
    assert_int_equal(flags, HINT_COUNTED);
    assert_true(span_equal(read, buf_span(&record)));
    assert_int_equal(hint_row_read(span_of(row.data, 1), &flags, &read), STATUS_MALFORMED);
    row.data[0] = 2;
    assert_int_equal(hint_row_read(buf_span(&row), &flags, &read), STATUS_MALFORMED);
    buf_free(&record);
    buf_free(&row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hints_reach_targets_that_come_and_go_and_are_deleted_only_then),
        cmocka_unit_test(hint_keys_are_contiguous_by_target_and_past_every_slot),
        cmocka_unit_test(hint_is_deleted_only_when_every_replica_it_was_sent_to_has_it),
        cmocka_unit_test(counted_hint_at_the_bound_is_refused_and_another_one_converted),
        cmocka_unit_test(failed_allocation_refuses_and_changes_nothing),
        cmocka_unit_test(hint_row_keeps_the_record_as_it_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
