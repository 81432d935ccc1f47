/* For the unit tests of src/repair/exchange: two replicas with trees and rows, and a channel between them that loses,
 * repeats and keeps order. */
#ifndef RONDO_TESTS_EXCHANGE_WORLD_H
#define RONDO_TESTS_EXCHANGE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "repair/exchange.h"

#define BUDGET_BYTES ((size_t)512 << 20)
#define VALUE_BYTES 100
#define VALUE_BYTES_LARGE (400u << 10) /* more than a message */
#define KEY_BYTES_MAX 24

#if defined(__SANITIZE_ADDRESS__)
#define SEEDS 6
#else
#define SEEDS 20
#endif

struct held {
    struct version version; /* a value stamp of time 0 = nothing held */
    bool tombstone;
};

/* The keys of a world, in the order of the cold tier; a replica's rows stand at the same places. */
struct world_key {
    uint16_t slot;
    uint16_t tag;
    uint8_t size;
    char text[KEY_BYTES_MAX];
};

struct replica {
    struct alloc alloc; /* of trees */
    struct merkle merkle;
    struct held *rows;
    uint64_t merges;
};

struct world {
    struct prng prng;
    struct alloc alloc; /* of exchanges and answers */
    struct world_key *keys;
    uint32_t key_count;
    uint32_t value_bytes;
    uint16_t slots[EXCHANGE_SLOTS_MAX];
    uint32_t slot_count;
    struct replica a;
    struct replica b;
    uint64_t session;
    uint64_t clock;
    uint32_t loss_percent;
    bool writes;     /* go on while the exchange runs */
    struct buf late; /* an answer that arrives a second time */
    struct exchange_counters counters;
    uint64_t wire_bytes;
    uint32_t slots_verified;
    uint32_t slots_differed;
};

/* ---- keys and rows ------------------------------------------------------------------------------------- */

static struct span key_span(const struct world_key *key)
{
    return span_of(key->text, key->size);
}

static int compare_keys(const void *left, const void *right)
{
    const struct world_key *a = left;
    const struct world_key *b = right;
    if (a->slot != b->slot)
        return a->slot < b->slot ? -1 : 1;
    if (a->tag != b->tag)
        return a->tag < b->tag ? -1 : 1;
    return span_compare(key_span(a), key_span(b));
}

/* A key of this slot: its last two bytes put the checksum right. */
static void make_key(struct world_key *key, uint32_t number, uint16_t slot, const uint16_t *inverse)
{
    for (uint32_t try = 0;; try++) {
        int size = snprintf(key->text, sizeof key->text, "k%06u%02u:", number, try);
        uint16_t crc = hash_crc16(span_of(key->text, (size_t)size));
        uint16_t last = crc ^ inverse[slot];
        key->text[size] = (char)(last >> 8);
        key->text[size + 1] = (char)last;
        key->size = (uint8_t)(size + 2);
        if (key_slot(key_span(key)) == slot)
            break;
    }
    key->slot = slot;
}

static uint16_t *make_inverse(void)
{
    uint16_t *inverse = calloc(65536, sizeof *inverse);
    assert_non_null(inverse);
    for (uint32_t i = 0; i < 65536; i++) {
        uint8_t bytes[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        inverse[hash_crc16(span_of(bytes, 2))] = (uint16_t)i;
    }
    return inverse;
}

static struct span put_held(const struct world *world, struct buf *buf, const struct held *held)
{
    static const uint8_t letters[VALUE_BYTES_LARGE] = {'v'};
    struct record record = {
        .flags = (uint8_t)(RECORD_VALUE | (held->tombstone ? RECORD_TOMBSTONE : 0)),
        .stamp = held->version.value,
    };
    if (!held->tombstone)
        record.value = span_of(letters, world->value_bytes);
    if (!stamp_none(held->version.override)) {
        record.flags |= RECORD_OVERRIDE;
        record.override_applies_to = held->version.value;
        record.override_stamp = held->version.override;
        record.override_expiry_ms = held->version.override.time;
    }
    buf_clear(buf);
    record_put(buf, &record);
    assert_false(buf->failed);
    return buf_span(buf);
}

static struct merkle_change change_of(const struct world_key *key, const struct held *before,
                                      const struct held *after)
{
    struct merkle_change change = {.slot = key->slot, .tag = key->tag};
    change.before_counted = before->version.value.time != 0;
    change.after_counted = after->version.value.time != 0;
    change.before = merkle_row_hash(key_span(key), before->version);
    change.after = merkle_row_hash(key_span(key), after->version);
    return change;
}

static void set_row(struct world *world, struct replica *replica, uint32_t index, struct held held)
{
    struct merkle_change change = change_of(&world->keys[index], &replica->rows[index], &held);
    replica->rows[index] = held;
    if (prng_chance(&world->prng, 1, 500))
        merkle_mark_dirty(&replica->merkle, change.slot, change.tag);
    else
        merkle_apply(&replica->merkle, &change);
}

static uint32_t lower_bound(const struct world *world, uint16_t slot, uint16_t tag)
{
    uint32_t low = 0;
    uint32_t high = world->key_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct world_key *key = &world->keys[middle];
        if (key->slot < slot || (key->slot == slot && key->tag < tag))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Grows trees as a shard would, some of them only. */
static void rescan(struct world *world, struct replica *replica, uint16_t slot)
{
    struct merkle_info info = merkle_info(&replica->merkle, slot);
    struct merkle_range whole = {.count = UINT32_C(1) << info.depth_wanted, .depth = info.depth_wanted};
    if (merkle_rescan_begin(&replica->merkle, slot, whole) != STATUS_OK)
        return;
    for (uint32_t i = lower_bound(world, slot, 0); i < world->key_count && world->keys[i].slot == slot; i++) {
        if (replica->rows[i].version.value.time != 0)
            merkle_rescan_add(&replica->merkle, slot, world->keys[i].tag,
                              merkle_row_hash(key_span(&world->keys[i]), replica->rows[i].version));
    }
    (void)merkle_rescan_finish(&replica->merkle, slot);
}

static struct world *world_make(uint64_t seed, uint32_t keys, uint32_t slots, bool hot_tag)
{
    struct world *world = calloc(1, sizeof *world);
    uint16_t *inverse = make_inverse();
    assert_non_null(world);
    prng_seed(&world->prng, seed);
    alloc_init(&world->alloc, BUDGET_BYTES);
    buf_init(&world->late, &world->alloc);
    world->value_bytes = VALUE_BYTES;
    world->slot_count = slots;
    for (uint32_t i = 0; i < slots; i++)
        world->slots[i] = (uint16_t)(i * (SLOTS_COUNT / slots));
    world->key_count = keys;
    world->keys = calloc(keys, sizeof *world->keys);
    for (uint32_t i = 0; i < keys; i++) {
        struct world_key *key = &world->keys[i];
        if (hot_tag && i % 2 == 0) {
            key->size = (uint8_t)snprintf(key->text, sizeof key->text, "{3560}%u", i); /* any tag */
            key->slot = key_slot(key_span(key));
        } else {
            make_key(key, i, world->slots[prng_below(&world->prng, slots)], inverse);
        }
        key->tag = merkle_tag(key_span(key));
    }
    if (hot_tag)
        world->slots[0] = key_slot(span_of_text("{3560}"));
    qsort(world->keys, keys, sizeof *world->keys, compare_keys);
    struct replica *replicas[2] = {&world->a, &world->b};
    for (int r = 0; r < 2; r++) {
        alloc_init(&replicas[r]->alloc, BUDGET_BYTES);
        merkle_init(&replicas[r]->merkle, &replicas[r]->alloc);
        replicas[r]->rows = calloc(keys, sizeof *replicas[r]->rows);
    }
    free(inverse);
    return world;
}

static void world_free(struct world *world)
{
    struct replica *replicas[2] = {&world->a, &world->b};
    for (int r = 0; r < 2; r++) {
        merkle_free(&replicas[r]->merkle);
        assert_int_equal(replicas[r]->alloc.used_bytes, 0);
        free(replicas[r]->rows);
    }
    buf_free(&world->late);
    assert_int_equal(world->alloc.used_bytes, 0);
    free(world->keys);
    free(world);
}

static struct held newer(struct world *world, uint64_t actor)
{
    return (struct held){.version.value = {.time = ++world->clock, .actor = actor},
                         .tombstone = prng_chance(&world->prng, 1, 10)};
}

/* Both hold the same, then some differ in one of five ways. Answers the bytes of the records that differ. */
static uint64_t fill(struct world *world, uint32_t held_percent, uint64_t differ_of_million)
{
    struct buf buf;
    uint64_t bytes = 0;
    buf_init(&buf, &world->alloc);
    for (uint32_t i = 0; i < world->key_count; i++) {
        if (!prng_chance(&world->prng, held_percent, 100))
            continue;
        struct held held = {.version.value = {.time = ++world->clock, .actor = 7}};
        set_row(world, &world->a, i, held);
        set_row(world, &world->b, i, held);
        if (!prng_chance(&world->prng, differ_of_million, 1000000))
            continue;
        struct replica *side = prng_chance(&world->prng, 1, 2) ? &world->a : &world->b;
        uint64_t kind = prng_below(&world->prng, 3);
        if (kind == 0) {
            set_row(world, side, i, (struct held){0});
        } else if (kind == 1) {
            set_row(world, side, i, newer(world, side == &world->a ? 1 : 2));
        } else {
            held.version.override = (struct stamp){.time = ++world->clock, .actor = 1};
            set_row(world, side, i, held);
        }
        struct held *ours = &side->rows[i];
        bytes += world->keys[i].size + put_held(world, &buf, ours->version.value.time ? ours : &held).size;
    }
    buf_free(&buf);
    for (uint32_t s = 0; s < world->slot_count; s++) {
        if (prng_chance(&world->prng, 9, 10))
            rescan(world, &world->a, world->slots[s]);
        if (prng_chance(&world->prng, 9, 10))
            rescan(world, &world->b, world->slots[s]);
    }
    return bytes;
}

static void empty(struct world *world, struct replica *replica)
{
    for (uint32_t i = 0; i < world->key_count; i++)
        replica->rows[i] = (struct held){0};
    for (uint32_t i = 0; i < world->slot_count; i++)
        merkle_clear(&replica->merkle, world->slots[i]);
}

/* ---- the exchange -------------------------------------------------------------------------------------- */

static void merge(struct world *world, struct replica *replica, const struct exchange_record *record)
{
    struct record incoming;
    assert_int_equal(record_parse(record->record, &incoming), STATUS_OK);
    assert_int_equal(key_slot(record->key), record->slot);
    uint32_t i = lower_bound(world, record->slot, merkle_tag(record->key));
    while (i < world->key_count && !span_equal(key_span(&world->keys[i]), record->key))
        i++;
    assert_true(i < world->key_count);
    struct alloc alloc; /* of its own: world->alloc may be told to fail */
    struct buf buf;
    alloc_init(&alloc, BUDGET_BYTES);
    buf_init(&buf, &alloc);
    struct record held = {0};
    if (replica->rows[i].version.value.time != 0)
        assert_int_equal(record_parse(put_held(world, &buf, &replica->rows[i]), &held), STATUS_OK);
    struct record merged = record_merge(&held, &incoming);
    struct held after = {.version = record_version(&merged),
                         .tombstone = (merged.flags & RECORD_TOMBSTONE) != 0};
    set_row(world, replica, i, after);
    replica->merges++;
    buf_free(&buf);
}

static void random_writes(struct world *world)
{
    for (int i = 0; world->writes && i < 3; i++) {
        bool on_a = prng_chance(&world->prng, 1, 2);
        uint32_t index = (uint32_t)prng_below(&world->prng, world->key_count);
        set_row(world, on_a ? &world->a : &world->b, index, newer(world, on_a ? 1 : 2));
    }
}

/* Calls feed for each row of the need. */
#define FEED(world, replica, need, buf, call)                                                               \
    for (uint32_t i_ = lower_bound(world, (need).slot, (need).tag_first);                                   \
         i_ < (world)->key_count && (world)->keys[i_].slot == (need).slot &&                                \
         (world)->keys[i_].tag <= (need).tag_last;                                                          \
         i_++) {                                                                                            \
        struct span key_ = key_span(&(world)->keys[i_]);                                                    \
        if ((replica)->rows[i_].version.value.time == 0 || ((need).point && !span_equal(key_, (need).key))) \
            continue;                                                                                       \
        struct span record_ = put_held(world, buf, &(replica)->rows[i_]);                                   \
        call;                                                                                               \
    }

static enum status serve(struct world *world, struct span message, struct buf *out)
{
    struct exchange_serve *serve = NULL;
    enum status status = exchange_serve_begin(&world->alloc, &world->b.merkle, message, &serve);
    if (status != STATUS_OK)
        return status;
    struct exchange_record record;
    while (exchange_serve_merge_next(serve, &record))
        merge(world, &world->b, &record);
    struct exchange_need need;
    struct alloc rows_alloc;
    struct buf buf;
    alloc_init(&rows_alloc, BUDGET_BYTES);
    buf_init(&buf, &rows_alloc);
    while (exchange_serve_need(serve, 0, &need)) {
        FEED(world, &world->b, need, &buf, exchange_serve_row(serve, key_, record_));
        exchange_serve_need_done(serve);
    }
    status = exchange_serve_finish(serve, out);
    buf_free(&buf);
    exchange_serve_free(serve);
    return status;
}

static void read_rows(struct world *world, struct exchange *exchange)
{
    struct exchange_need need;
    struct exchange_need ahead;
    struct alloc rows_alloc;
    struct buf buf;
    alloc_init(&rows_alloc, BUDGET_BYTES);
    buf_init(&buf, &rows_alloc);
    assert_true(exchange_need(exchange, 0, &need));
    bool two = exchange_need(exchange, 1, &ahead);
    FEED(world, &world->a, need, &buf, exchange_row(exchange, key_, record_));
    exchange_need_done(exchange);
    struct exchange_need next;
    if (two && exchange_state(exchange) == EXCHANGE_READING) {
        assert_true(exchange_need(exchange, 0, &next));
        assert_int_equal(next.slot, ahead.slot);
        assert_int_equal(next.tag_first, ahead.tag_first);
    }
    buf_free(&buf);
}

static bool lost(struct world *world)
{
    return prng_chance(&world->prng, world->loss_percent, 100);
}

/* One message there and its answer back, either of which may get lost; then an older answer, late. */
static void send(struct world *world, struct exchange *exchange)
{
    struct buf out;
    struct span message = exchange_message(exchange);
    buf_init(&out, &world->alloc);
    world->wire_bytes += message.size;
    assert_true(message.size <= 2 * EXCHANGE_MESSAGE_BYTES_MAX);
    random_writes(world);
    if (!lost(world)) {
        enum status status = serve(world, message, &out);
        if (status != STATUS_OK) {
            assert_int_equal(status, STATUS_OVERLOADED);
            exchange_serve_refuse(message, status, &out);
        }
        world->wire_bytes += out.size;
        assert_true(out.size <= 2 * EXCHANGE_MESSAGE_BYTES_MAX);
        random_writes(world);
        if (!lost(world) && out.size > 0) {
            status = exchange_answer(exchange, buf_span(&out));
            assert_int_equal(status, exchange_status(exchange));
            if (world->late.size > 0 && exchange_state(exchange) == EXCHANGE_SENDING)
                assert_int_equal(exchange_answer(exchange, buf_span(&world->late)), STATUS_NOT_FOUND);
            buf_clear(&world->late);
            buf_append_span(&world->late, buf_span(&out)); /* without memory there is no late one */
        }
    }
    buf_free(&out);
}

/* One exchange from start to end; steps_max cuts it off. Answers how it ended.
 * */
static enum status run(struct world *world, uint32_t steps_max)
{
    struct exchange_options options = {
        .alloc = &world->alloc,
        .merkle = &world->a.merkle,
        .session = prng_u64(&world->prng),
        .slots = world->slots,
        .slot_count = world->slot_count,
    };
    struct exchange *exchange = exchange_start(&options);
    if (exchange == NULL)
        return STATUS_OVERLOADED;
    while (steps_max-- > 0 && exchange_state(exchange) != EXCHANGE_DONE &&
           exchange_state(exchange) != EXCHANGE_FAILED) {
        struct exchange_record record;
        if (exchange_state(exchange) == EXCHANGE_READING) {
            read_rows(world, exchange);
        } else if (exchange_state(exchange) == EXCHANGE_SENDING) {
            send(world, exchange);
        } else {
            while (exchange_merge_next(exchange, &record))
                merge(world, &world->a, &record);
            exchange_merged(exchange);
        }
    }
    world->slots_verified = world->slots_differed = 0;
    for (uint32_t i = 0; i < world->slot_count; i++) {
        world->slots_verified += exchange_slot_result(exchange, i).verified;
        world->slots_differed += exchange_slot_result(exchange, i).differed;
    }
    world->counters = *exchange_counters(exchange);
    enum status status = exchange_status(exchange);
    exchange_free(exchange);
    return status;
}

static void check_equal(const struct world *world)
{
    for (uint32_t i = 0; i < world->key_count; i++) {
        assert_true(version_equal(world->a.rows[i].version, world->b.rows[i].version));
        assert_int_equal(world->a.rows[i].tombstone, world->b.rows[i].tombstone);
    }
}

#endif
