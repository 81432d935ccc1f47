/* Keys: ring positions against values that Redis Cluster gives, shares of shards, cold keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/prng.h"
#include "model/key.h"

static uint16_t slot_of(const char *key)
{
    return key_slot(span_of_text(key));
}

/* CRC-16/XMODEM bit by bit, as its definition reads. */
static uint16_t crc16_naive(struct span bytes)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < bytes.size; i++) {
        crc = (uint16_t)(crc ^ bytes.data[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)((crc & 0x8000) != 0 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

static void slot_of_known_keys_is_that_of_redis_cluster(void **state)
{
    (void)state;
    assert_int_equal(slot_of("123456789"), 12739);
    assert_int_equal(slot_of("foo"), 12182);
    assert_int_equal(slot_of("bar"), 5061);
    assert_int_equal(slot_of("hello"), 866);
    assert_int_equal(slot_of(""), 0);
}

static void slot_of_a_tagged_key_is_that_of_its_tag(void **state)
{
    (void)state;
    assert_int_equal(slot_of("{user1000}.following"), slot_of("user1000"));
    assert_int_equal(slot_of("{user1000}.followers"), slot_of("user1000"));
    assert_int_equal(slot_of("a{foo}b{bar}"), slot_of("foo"));
    assert_int_equal(slot_of("foo{bar}{zap}"), slot_of("bar"));
}

static void tag_is_what_stands_between_the_first_braces(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"foo{}{bar}", "foo{}{bar}"},
        {"foo{{bar}}zap", "{bar"},
        {"foo{bar", "foo{bar"},
        {"foo}bar{", "foo}bar{"},
        {"}{a}", "a"},
        {"{}", "{}"},
        {"{", "{"},
        {"{a}", "a"},
        {"x{a", "x{a"},
        {"", ""},
        {"a}b{c}d", "c"},
        {"{a}{b}", "a"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        assert_true(span_is(key_tag(span_of_text(pairs[i][0])), pairs[i][1]));
    assert_int_equal(slot_of("foo{}{bar}"), hash_crc16(span_of_text("foo{}{bar}")) % SLOTS_COUNT);
    assert_int_equal(slot_of("foo{{bar}}zap"), slot_of("{bar"));
}

static void slot_of_random_keys_agrees_with_the_naive_checksum(void **state)
{
    (void)state;
    struct prng prng;
    uint8_t bytes[64];
    prng_seed(&prng, 5);
    for (int i = 0; i < 20000; i++) {
        size_t size = prng_below(&prng, sizeof bytes + 1);
        /* Few different bytes, so that braces are frequent. */
        for (size_t at = 0; at < size; at++)
            bytes[at] =
                prng_chance(&prng, 1, 3) ? (uint8_t) "{}"[prng_below(&prng, 2)] : (uint8_t)prng_u64(&prng);
        struct span key = span_of(bytes, size);
        struct span tag = key;
        const uint8_t *open = size == 0 ? NULL : memchr(bytes, '{', size);
        if (open != NULL) {
            const uint8_t *close = memchr(open, '}', size - (size_t)(open - bytes));
            if (close != NULL && close > open + 1)
                tag = span_of(open + 1, (size_t)(close - open - 1));
        }
        assert_int_equal(key_slot(key), crc16_naive(tag) % 16384);
    }
}

static void shards_share_all_slots_evenly_for_any_number_of_shards(void **state)
{
    (void)state;
    for (uint16_t shards = 1; shards <= SHARDS_MAX; shards++) {
        uint32_t counts[SHARDS_MAX] = {0};
        for (uint16_t slot = 0; slot < SLOTS_COUNT; slot++) {
            uint16_t shard = slot_shard(slot, shards);
            assert_true(shard < shards);
            counts[shard]++;
        }
        /* Five standard deviations of a random choice. */
        double mean = (double)SLOTS_COUNT / shards;
        for (uint16_t i = 0; i < shards; i++)
            assert_true((counts[i] - mean) * (counts[i] - mean) <= 25 * mean);
    }
}

/* A node owns runs of slots with some stride; its shards must share those too. */
static void shards_share_evenly_what_a_claim_gives_a_node(void **state)
{
    (void)state;
    for (uint16_t shards = 2; shards <= 16; shards++) {
        for (uint16_t nodes = 2; nodes <= 8; nodes++) {
            uint32_t counts[SHARDS_MAX] = {0};
            uint32_t total = 0;
            for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
                if (slot / SLOT_STRIDE % nodes != 0)
                    continue;
                counts[slot_shard((uint16_t)slot, shards)]++;
                total++;
            }
            double mean = (double)total / shards;
            for (uint16_t i = 0; i < shards; i++)
                assert_true((counts[i] - mean) * (counts[i] - mean) <= 25 * mean);
        }
    }
}

static void cold_keys_stand_in_order_of_slot_then_tag(void **state)
{
    (void)state;
    uint8_t low[COLD_KEY_PREFIX_BYTES];
    uint8_t high[COLD_KEY_PREFIX_BYTES];
    struct prng prng;
    prng_seed(&prng, 8);
    for (int i = 0; i < 2000; i++) {
        uint16_t a = (uint16_t)prng_below(&prng, SLOTS_COUNT - 1);
        uint16_t b = (uint16_t)(a + 1 + prng_below(&prng, (uint64_t)(SLOTS_COUNT - 1 - a)));
        uint64_t key_low = prng_u64(&prng);
        uint64_t key_high = prng_u64(&prng);
        cold_key_prefix(span_of(&key_low, sizeof key_low), a, low);
        cold_key_prefix(span_of(&key_high, sizeof key_high), b, high);
        assert_true(memcmp(low, high, COLD_KEY_PREFIX_BYTES) < 0);
        assert_int_equal(low[0] << 8 | low[1], a);
    }
    struct span one = span_of_text("{user}:1");
    struct span two = span_of_text("{user}:2");
    cold_key_prefix(one, key_slot(one), low);
    cold_key_prefix(two, key_slot(two), high);
    assert_memory_equal(low, high, COLD_KEY_PREFIX_BYTES);
    uint64_t hash = hash_64(span_of_text("user"), 0);
    assert_int_equal(low[2] << 8 | low[3], hash & 0xffff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slot_of_known_keys_is_that_of_redis_cluster),
        cmocka_unit_test(slot_of_a_tagged_key_is_that_of_its_tag),
        cmocka_unit_test(tag_is_what_stands_between_the_first_braces),
        cmocka_unit_test(slot_of_random_keys_agrees_with_the_naive_checksum),
        cmocka_unit_test(shards_share_all_slots_evenly_for_any_number_of_shards),
        cmocka_unit_test(shards_share_evenly_what_a_claim_gives_a_node),
        cmocka_unit_test(cold_keys_stand_in_order_of_slot_then_tag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
