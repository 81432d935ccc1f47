/* The ring record: the same bytes on every node, a codec that accepts nothing else, preference lists as a naive
 * walk gives them, epochs of change, and the sentence that names a difference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/prng.h"
#include "ring/ring.h"

#define NODES 24
#define RUNS_COUNT (SLOTS_COUNT / SLOT_STRIDE)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FLIP_STRIDE 7
#else
#define FLIP_STRIDE 1
#endif

struct fixture {
    struct alloc alloc;
    struct buf text;
    char name[NODES][16];
    char address[NODES][32];
    struct ring_member members[NODES];
};

static struct fixture fixture;

static int setup(void **state)
{
    (void)state;
    alloc_init(&fixture.alloc, 64u << 20);
    buf_init(&fixture.text, &fixture.alloc);
    for (uint16_t i = 0; i < NODES; i++) {
        snprintf(fixture.name[i], sizeof fixture.name[i], "n%u", i + 1u);
        snprintf(fixture.address[i], sizeof fixture.address[i], "127.0.0.1:%u", 7381u + i);
        fixture.members[i] = ring_member_of(span_of_text(fixture.name[i]), span_of_text(fixture.address[i]));
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_free(&fixture.text);
    return fixture.alloc.used_bytes == 0 ? 0 : -1;
}

static struct ring *initial(uint16_t count, uint8_t replicas)
{
    struct ring *ring = NULL;
    struct ring_options options = {.members = fixture.members, .member_count = count, .replicas = replicas};
    assert_int_equal(ring_initial(&fixture.alloc, &options, NULL, &ring), STATUS_OK);
    return ring;
}

static struct ring *next(const struct ring *old, uint16_t count, const uint16_t *owner)
{
    struct ring *ring = NULL;
    struct ring_options options = {.members = fixture.members,
                                   .member_count = count,
                                   .replicas = old->replicas_configured,
                                   .owner = owner};
    assert_int_equal(ring_next(&fixture.alloc, old, &options, NULL, &ring), STATUS_OK);
    return ring;
}

static void encode(const struct ring *ring, struct buf *buf)
{
    buf_init(buf, &fixture.alloc);
    ring_encode(ring, buf);
    assert_false(buf->failed);
}

static void assert_same(const struct ring *a, const struct ring *b)
{
    struct buf bytes_a, bytes_b;
    encode(a, &bytes_a);
    encode(b, &bytes_b);
    assert_true(span_equal(buf_span(&bytes_a), buf_span(&bytes_b)));
    buf_free(&bytes_a);
    buf_free(&bytes_b);
    assert_false(ring_difference(a, b, &fixture.text));
}

static void test_members_in_any_order_make_the_same_record(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 3);
    struct ring *first = initial(NODES, 3);
    for (int round = 0; round < 10; round++) {
        for (uint16_t i = NODES - 1; i > 0; i--) {
            uint64_t j = prng_below(&prng, i + 1u);
            struct ring_member swapped = fixture.members[i];
            fixture.members[i] = fixture.members[j];
            fixture.members[j] = swapped;
        }
        struct ring *other = initial(NODES, 3);
        assert_same(first, other);
        ring_free(other);
    }
    ring_free(first);
}

static void test_record_survives_its_bytes(void **state)
{
    (void)state;
    fixture.members[1].zone = span_of_text("rack-2");
    fixture.members[4].weight = 7;
    struct ring *rings[4] = {initial(1, 3), initial(3, 3), initial(NODES, 5), NULL};
    rings[3] = next(rings[2], NODES - 1, NULL);
    for (int i = 0; i < 4; i++) {
        struct buf bytes;
        struct ring *decoded = NULL;
        encode(rings[i], &bytes);
        assert_int_equal(ring_decode(&fixture.alloc, buf_span(&bytes), &decoded), STATUS_OK);
        assert_same(rings[i], decoded);
        for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
            assert_memory_equal(ring_replicas(rings[i], (uint16_t)slot),
                                ring_replicas(decoded, (uint16_t)slot),
                                ring_replica_count(decoded) * sizeof(uint16_t));
        ring_free(decoded);
        ring_free(rings[i]);
        buf_free(&bytes);
    }
}

/* Puts the checksum right, so that what lies behind it is tested too. */
static void seal(struct buf *bytes)
{
    size_t body = bytes->size - 8;
    store_u64(bytes->data + body, hash_64(span_of(bytes->data, body), 0));
}

static void decode_damaged(struct buf *bytes, bool harmless_allowed)
{
    struct ring *ring = NULL;
    enum status status = ring_decode(&fixture.alloc, buf_span(bytes), &ring);
    if (status != STATUS_OK) {
        assert_int_equal(status, STATUS_MALFORMED);
        return;
    }
    assert_true(harmless_allowed);
    struct buf again;
    encode(ring, &again);
    assert_true(span_equal(buf_span(bytes), buf_span(&again)));
    buf_free(&again);
    ring_free(ring);
}

static void test_every_truncation_and_bit_flip_is_refused(void **state)
{
    (void)state;
    struct ring *ring = initial(3, 3);
    struct buf bytes;
    encode(ring, &bytes);
    size_t size = bytes.size;
    for (bytes.size = 0; bytes.size < size; bytes.size++)
        decode_damaged(&bytes, false);
    for (size_t bit = 0; bit < size * 8; bit += FLIP_STRIDE) {
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        decode_damaged(&bytes, false);
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buf_free(&bytes);
    ring_free(ring);
}

/* With the checksum put right, damage is refused or gives a record that is valid and canonical. The cluster id
 * covers all of a first record, so there nothing passes. */
static void test_damage_behind_a_right_checksum_is_refused_or_harmless(void **state)
{
    (void)state;
    struct ring *first = initial(4, 3);
    struct ring *second = next(first, 5, NULL);
    for (int i = 0; i < 2; i++) {
        struct buf bytes;
        encode(i == 0 ? first : second, &bytes);
        size_t stride = FLIP_STRIDE * (i == 0 ? 11 : 23);
        for (size_t bit = 0; bit < (bytes.size - 8) * 8; bit += bit < 4000 ? 1 : stride) {
            bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            seal(&bytes);
            decode_damaged(&bytes, i == 1 || bit / 8 < 9);
            bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        buf_free(&bytes);
    }
    ring_free(second);
    ring_free(first);
}

/* DESIGN section 2 word for word, one list at a time. */
static uint16_t naive_preflist(const struct ring *ring, uint16_t slot, uint16_t *list)
{
    uint16_t walked[NODES];
    uint16_t count = 0;
    uint16_t zones = 0;
    bool taken[NODES] = {false};
    for (uint32_t step = 0; step < RUNS_COUNT; step++) {
        uint16_t node = ring->owner[(slot + step * SLOT_STRIDE) % SLOTS_COUNT];
        bool seen = false;
        for (uint16_t i = 0; i < count; i++)
            seen = seen || walked[i] == node;
        if (!seen)
            walked[count++] = node;
    }
    for (uint16_t i = 0; i < count; i++) {
        bool first = true;
        for (uint16_t j = 0; j < i; j++)
            first = first && strcmp(ring->nodes[walked[i]].zone, ring->nodes[walked[j]].zone) != 0;
        zones = (uint16_t)(zones + first);
    }
    uint16_t chosen = 0;
    uint16_t zones_used = 0;
    while (chosen < ring_replica_count(ring)) { /* the next of an unused zone, or any once all are used */
        for (uint16_t i = 0; i < count; i++) {
            bool used = taken[i];
            for (uint16_t j = 0; j < chosen && zones_used < zones; j++)
                used = used || strcmp(ring->nodes[walked[i]].zone, ring->nodes[list[j]].zone) == 0;
            if (used)
                continue;
            taken[i] = true;
            list[chosen++] = walked[i];
            zones_used = (uint16_t)(zones_used + (zones_used < zones));
            break;
        }
    }
    for (uint16_t i = 0; i < count; i++) {
        if (!taken[i])
            list[chosen++] = walked[i];
    }
    return chosen;
}

static void check_preflists(const struct ring *ring)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        uint16_t expected[NODES];
        uint16_t list[NODES];
        uint16_t count = naive_preflist(ring, (uint16_t)slot, expected);
        assert_int_equal(ring_preflist(ring, (uint16_t)slot, list, NODES), count);
        assert_memory_equal(list, expected, count * sizeof *list);
        assert_int_equal(ring_preflist(ring, (uint16_t)slot, list, 2), count < 2 ? count : 2);
        assert_memory_equal(ring_replicas(ring, (uint16_t)slot), expected,
                            ring_replica_count(ring) * sizeof *list);
        for (uint16_t node = 0; node < ring->node_count; node++) {
            bool replica = false;
            for (uint8_t i = 0; i < ring_replica_count(ring); i++)
                replica = replica || expected[i] == node;
            assert_int_equal(ring_replicates(ring, (uint16_t)slot, node), replica);
        }
    }
}

static void test_preflist_is_a_walk_clockwise(void **state)
{
    (void)state;
    const uint16_t counts[] = {1, 2, 3, 4, 5, 10, NODES};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct ring *ring = initial(counts[i], 3);
        assert_int_equal(ring_replica_count(ring), counts[i] < 3 ? counts[i] : 3);
        check_preflists(ring);
        ring_free(ring);
    }
}

/* Zones at random, also owners: windows then repeat nodes and zones in every way. */
static void test_preflist_prefers_unused_zones(void **state)
{
    (void)state;
    static const char *const zones[] = {"east", "west", "north", "south"};
    static uint16_t owner[SLOTS_COUNT];
    struct prng prng;
    prng_seed(&prng, 11);
    for (int round = 0; round < 6; round++) {
        uint16_t count = (uint16_t)(4 + prng_below(&prng, 6));
        for (uint16_t i = 0; i < count; i++)
            fixture.members[i].zone = span_of_text(zones[prng_below(&prng, 1 + (uint64_t)round % 4)]);
        for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
            owner[slot] = (uint16_t)prng_below(&prng, count);
        struct ring_options options = {
            .members = fixture.members, .member_count = count, .replicas = 3, .owner = owner};
        struct ring *ring = NULL;
        assert_int_equal(ring_initial(&fixture.alloc, &options, NULL, &ring), STATUS_OK);
        check_preflists(ring);
        ring_free(ring);
    }
}

static void test_nodes_are_found_by_id(void **state)
{
    (void)state;
    struct ring *ring = initial(NODES, 3);
    for (uint16_t i = 0; i < NODES; i++) {
        uint16_t index = ring_node_index(ring, ring_node_id(fixture.members[i].name));
        assert_int_not_equal(index, RING_NODE_NONE);
        assert_true(span_is(fixture.members[i].name, ring->nodes[index].name));
        if (i > 0)
            assert_true(strcmp(ring->nodes[i - 1].name, ring->nodes[i].name) < 0);
    }
    assert_int_equal(ring_node_index(ring, ring_node_id(span_of_text("stranger"))), RING_NODE_NONE);
    assert_int_equal(ring->voter_count, 5);
    ring_free(ring);
}

static void test_changed_epoch_follows_replica_sets(void **state)
{
    (void)state;
    struct ring *first = initial(5, 3);
    struct ring *same = next(first, 5, first->owner);
    struct ring *grown = next(same, 6, NULL);
    uint32_t changed = 0;
    assert_int_equal(same->epoch, 2);
    assert_int_equal(grown->epoch, 3);
    assert_int_equal(grown->cluster_id.low, first->cluster_id.low);
    assert_int_equal(grown->cluster_id.high, first->cluster_id.high);
    uint16_t newcomer = ring_node_index(grown, ring_node_id(span_of_text("n6")));
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        assert_int_equal(ring_changed_epoch(same, (uint16_t)slot), 1);
        bool moved = ring_replicates(grown, (uint16_t)slot, newcomer);
        assert_int_equal(ring_changed_epoch(grown, (uint16_t)slot), moved ? 3 : 1);
        changed += moved;
    }
    assert_in_range(changed, SLOTS_COUNT * 3 / 6 - 3, SLOTS_COUNT * 3 / 6);
    ring_free(grown);
    ring_free(same);
    ring_free(first);
}

static void expect_difference(const struct ring *a, const struct ring *b, const char *text)
{
    buf_clear(&fixture.text);
    assert_true(ring_difference(a, b, &fixture.text));
    if (!span_is(buf_span(&fixture.text), text))
        fail_msg("said: %.*s", (int)fixture.text.size, (const char *)fixture.text.data);
}

static void test_difference_names_the_member(void **state)
{
    (void)state;
    struct ring *ring = initial(3, 3);
    struct ring *larger = initial(4, 3);
    struct ring *fewer = initial(3, 2);
    struct ring *later = next(ring, 3, ring->owner);
    fixture.members[1].peer_address = span_of_text("127.0.0.1:2");
    struct ring *moved = initial(3, 3);
    fixture.members[1].peer_address = span_of_text(fixture.address[1]);
    fixture.members[2].zone = span_of_text("attic");
    struct ring *zoned = initial(3, 3);
    expect_difference(ring, moved, "n2 is 127.0.0.1:7382 here, 127.0.0.1:2 there");
    expect_difference(ring, larger, "n4 is a member only there");
    expect_difference(larger, ring, "n4 is a member only here");
    expect_difference(ring, fewer, "the number of replicas is 3 here, 2 there");
    expect_difference(ring, zoned, "n3's zone is none here, attic there");
    expect_difference(ring, later, "the epoch is 1 here, 2 there");
    assert_int_not_equal(ring->cluster_id.low, moved->cluster_id.low);
    ring_free(zoned);
    ring_free(moved);
    ring_free(later);
    ring_free(fewer);
    ring_free(larger);
    ring_free(ring);
}

static void expect_refusal(const struct ring_options *options, const char *text)
{
    struct ring *ring = NULL;
    buf_clear(&fixture.text);
    assert_int_equal(ring_initial(&fixture.alloc, options, &fixture.text, &ring), STATUS_BAD_REQUEST);
    assert_null(ring);
    assert_int_equal(ring_initial(&fixture.alloc, options, NULL, &ring), STATUS_BAD_REQUEST);
    if (!span_is(buf_span(&fixture.text), text))
        fail_msg("said: %.*s", (int)fixture.text.size, (const char *)fixture.text.data);
}

static void test_bad_members_are_refused(void **state)
{
    (void)state;
    struct ring_options options = {.members = fixture.members, .member_count = 3, .replicas = 3};
    fixture.members[1].name = span_of_text("n1");
    expect_refusal(&options, "two nodes have the same name: \"n1\"");
    fixture.members[1].name = span_of_text("n 1");
    expect_refusal(&options, "a node's name must be 1 to 64 printable characters without blanks: \"n 1\"");
    fixture.members[1].name = span_of_text("n2");
    fixture.members[1].peer_address = fixture.members[0].peer_address;
    expect_refusal(&options, "two nodes have the same address: \"127.0.0.1:7381\"");
    const char *const addresses[] = {"", "host", "host:", ":1", "host:0", "host:65536", "host:1x", "ho st:1"};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        struct ring *ring = NULL;
        fixture.members[1].peer_address = span_of_text(addresses[i]);
        assert_int_equal(ring_initial(&fixture.alloc, &options, NULL, &ring), STATUS_BAD_REQUEST);
    }
    fixture.members[1].peer_address = span_of_text("[::1]:7382");
    struct ring *ring = NULL;
    assert_int_equal(ring_initial(&fixture.alloc, &options, NULL, &ring), STATUS_OK);
    ring_free(ring);
    options.replicas = REPLICAS_MAX + 1;
    expect_refusal(&options, "the number of replicas must be 1 to 7: \"\"");
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    struct ring *first = initial(5, 3);
    struct ring_options options = {.members = fixture.members, .member_count = 6, .replicas = 3};
    struct buf bytes;
    encode(first, &bytes);
    size_t used = fixture.alloc.used_bytes;
    enum status status = STATUS_OVERLOADED;
    for (uint64_t n = 1; status == STATUS_OVERLOADED; n++) {
        struct ring *ring = NULL;
        fixture.alloc.fail_at_call = fixture.alloc.calls + n;
        status = ring_next(&fixture.alloc, first, &options, NULL, &ring);
        assert_true(status == STATUS_OK || fixture.alloc.used_bytes == used);
        ring_free(ring);
    }
    assert_int_equal(status, STATUS_OK);
    status = STATUS_OVERLOADED;
    for (uint64_t n = 1; status == STATUS_OVERLOADED; n++) {
        struct ring *ring = NULL;
        fixture.alloc.fail_at_call = fixture.alloc.calls + n;
        status = ring_decode(&fixture.alloc, buf_span(&bytes), &ring);
        assert_true(status == STATUS_OK || fixture.alloc.used_bytes == used);
        ring_free(ring);
    }
    assert_int_equal(status, STATUS_OK);
    fixture.alloc.fail_at_call = 0;
    buf_free(&bytes);
    ring_free(first);
}

#define RING_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RING_TEST(test_members_in_any_order_make_the_same_record),
        RING_TEST(test_record_survives_its_bytes),
        RING_TEST(test_every_truncation_and_bit_flip_is_refused),
        RING_TEST(test_damage_behind_a_right_checksum_is_refused_or_harmless),
        RING_TEST(test_preflist_is_a_walk_clockwise),
        RING_TEST(test_preflist_prefers_unused_zones),
        RING_TEST(test_nodes_are_found_by_id),
        RING_TEST(test_changed_epoch_follows_replica_sets),
        RING_TEST(test_difference_names_the_member),
        RING_TEST(test_bad_members_are_refused),
        RING_TEST(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
