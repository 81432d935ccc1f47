/* The node's small durable state: round trips, and every way in which a blob can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "store/meta.h"

#define BUDGET_BYTES ((size_t)4 << 20)

static void fill(struct meta *meta)
{
    meta->cluster_id = (struct hash_128){11, 12};
    meta->node_id = 21;
    meta->directory_id = 22;
    meta->actor_id = 23;
    meta->known_as = 24;
    meta->runs =
        (struct run_history){.now = {25, 26}, .forgotten = 22, .past_count = 2, .past = {{24, 27}, {23, 28}}};
    meta->state = META_SERVING;
    meta->clean_stop = true;
    meta->shards = 3;
    assert_int_equal(meta_name_set(meta, span_of_text("n1")), STATUS_OK);
    assert_int_equal(meta_ring_set(meta, span_of_text("a ring record")), STATUS_OK);
    for (uint64_t id = 100; id < 110; id++) {
        struct meta_member *member = meta_member_add(meta, id);
        assert_non_null(member);
        assert_true(meta_member_ran_on(member, id * 2, (struct run){id, 1}));
        assert_true(meta_member_ran_on(member, id * 3, (struct run){id, id + 1}));
        assert_int_equal(
            meta_member_set_addresses(member, span_of_text("127.0.0.1:7379"), span_of_text("127.0.0.1:7380")),
            STATUS_OK);
    }
    assert_int_equal(meta_quarantine_set(meta, 0), STATUS_OK);
    assert_int_equal(meta_quarantine_set(meta, SLOTS_COUNT - 1), STATUS_OK);
}

static void what_is_encoded_is_decoded(void **state)
{
    (void)state;
    struct alloc alloc;
    struct meta meta;
    struct meta copy;
    struct buf blob;
    struct buf again;
    alloc_init(&alloc, BUDGET_BYTES);
    meta_init(&meta, &alloc);
    meta_init(&copy, &alloc);
    buf_init(&blob, &alloc);
    buf_init(&again, &alloc);
    meta_encode(&meta, &blob);
    assert_int_equal(meta_decode(buf_span(&blob), &copy), STATUS_OK);
    assert_int_equal(copy.state, META_UNPROVEN);
    assert_null(copy.quarantine);
    fill(&meta);
    buf_clear(&blob);
    buf_append_text(&blob, "before");
    meta_encode(&meta, &blob);
    buf_drop(&blob, 6);
    assert_int_equal(meta_decode(buf_span(&blob), &copy), STATUS_OK);
    assert_string_equal(copy.name, "n1");
    assert_true(span_is(buf_span(&copy.ring), "a ring record"));
    assert_true(copy.cluster_id.low == 11 && copy.cluster_id.high == 12);
    assert_true(copy.node_id == 21 && copy.directory_id == 22 && copy.actor_id == 23);
    assert_true(copy.known_as == 24 && copy.runs.now.count == 25 && copy.runs.now.id == 26);
    assert_true(copy.runs.forgotten == 22 && copy.runs.past_count == 2);
    assert_true(copy.runs.past[1].count == 23 && copy.runs.past[1].id == 28);
    assert_true(copy.state == META_SERVING && copy.clean_stop && copy.shards == 3);
    struct meta_member *member = meta_member_find(&copy, 105);
    assert_non_null(member);
    assert_string_equal(member->resp, "127.0.0.1:7379");
    assert_string_equal(member->http, "127.0.0.1:7380");
    assert_true(meta_member_knows(member, 210) && meta_member_knows(member, 315));
    assert_false(meta_member_knows(member, 1));
    assert_true(member->run.count == 105 && member->run.id == 106);
    assert_null(meta_member_find(&copy, 99));
    assert_true(meta_quarantine_test(&copy, 0) && meta_quarantine_test(&copy, SLOTS_COUNT - 1));
    assert_false(meta_quarantine_test(&copy, 1));
    meta_encode(&copy, &again);
    assert_true(span_equal(buf_span(&again), buf_span(&blob)));
    buf_free(&blob);
    buf_free(&again);
    meta_free(&meta);
    meta_free(&copy);
    assert_int_equal(alloc.used_bytes, 0);
}

static void a_damaged_or_shortened_blob_is_refused(void **state)
{
    (void)state;
    struct alloc alloc;
    struct meta meta;
    struct buf blob;
    alloc_init(&alloc, BUDGET_BYTES);
    meta_init(&meta, &alloc);
    buf_init(&blob, &alloc);
    fill(&meta);
    meta_encode(&meta, &blob);
    for (size_t at = 0; at < blob.size; at++) {
        blob.data[at] ^= 0x10;
        enum status expected = at < 4 ? STATUS_MALFORMED : at < 8 ? STATUS_WRONG_PROTOCOL : STATUS_CORRUPT;
        assert_int_equal(meta_decode(buf_span(&blob), &meta), expected);
        assert_int_equal(meta.node_id, 0);
        blob.data[at] ^= 0x10;
        enum status cut = meta_decode(span_of(blob.data, at), &meta);
        assert_int_equal(cut, at < 16 ? STATUS_MALFORMED : STATUS_CORRUPT);
    }
    assert_int_equal(meta_decode(buf_span(&blob), &meta), STATUS_OK);
    buf_free(&blob);
    meta_free(&meta);
    assert_int_equal(alloc.used_bytes, 0);
}

/* The checksum is made to fit again: only validation stands between such a blob and the node. */
static void a_blob_of_nonsense_with_a_fitting_checksum_is_corrupt_or_sane(void **state)
{
    (void)state;
    struct alloc alloc;
    struct meta meta;
    struct buf blob;
    struct buf again;
    struct prng prng;
    prng_seed(&prng, 1);
    alloc_init(&alloc, BUDGET_BYTES);
    meta_init(&meta, &alloc);
    buf_init(&blob, &alloc);
    buf_init(&again, &alloc);
    uint32_t accepted = 0;
    for (int i = 0; i < 20000; i++) {
        meta_free(&meta);
        fill(&meta);
        buf_clear(&blob);
        meta_encode(&meta, &blob);
        size_t at = 16 + prng_below(&prng, blob.size - 16);
        blob.data[at] = (uint8_t)prng_u64(&prng);
        store_u64(blob.data + 8, hash_64(span_of(blob.data + 16, blob.size - 16), META_CHECKSUM_SEED));
        enum status status = meta_decode(buf_span(&blob), &meta);
        assert_true(status == STATUS_OK || status == STATUS_CORRUPT);
        if (status != STATUS_OK)
            continue;
        accepted++;
        buf_clear(&again);
        meta_encode(&meta, &again);
        assert_true(span_equal(buf_span(&again), buf_span(&blob)));
    }
    assert_true(accepted > 1000 && accepted < 20000);
    buf_free(&blob);
    buf_free(&again);
    meta_free(&meta);
    assert_int_equal(alloc.used_bytes, 0);
}

static void decoding_survives_the_failure_of_any_allocation(void **state)
{
    (void)state;
    struct alloc alloc;
    struct meta meta;
    struct buf blob;
    alloc_init(&alloc, BUDGET_BYTES);
    meta_init(&meta, &alloc);
    buf_init(&blob, &alloc);
    fill(&meta);
    meta_encode(&meta, &blob);
    uint64_t failed = 0;
    enum status status;
    do {
        alloc.fail_at_call = alloc.calls + ++failed;
        status = meta_decode(buf_span(&blob), &meta);
        assert_true(status == STATUS_OK || status == STATUS_OVERLOADED);
        alloc.fail_at_call = 0;
    } while (status != STATUS_OK);
    assert_true(failed > 3);
    buf_free(&blob);
    meta_free(&meta);
    assert_int_equal(alloc.used_bytes, 0);
}

/* Version 1 as it was written: without known_as and runs. */
static void a_blob_of_version_1_is_read(void **state)
{
    (void)state;
    struct alloc alloc;
    struct meta meta;
    struct buf old;
    alloc_init(&alloc, BUDGET_BYTES);
    meta_init(&meta, &alloc);
    buf_init(&old, &alloc);
    buf_put_u32(&old, 0x4154454d);
    buf_put_u32(&old, 1);
    buf_put_u64(&old, 0);
    for (uint64_t number = 11; number <= 15; number++)
        buf_put_u64(&old, number); /* cluster, node, directory, actor */
    buf_put_u8(&old, META_SERVING);
    buf_put_u8(&old, 1);
    buf_put_u16(&old, 2);
    buf_put_short(&old, span_of_text("n1"));
    buf_put_long(&old, span_of_text("ring"));
    buf_put_u16(&old, 1);
    buf_put_u64(&old, 31);
    buf_put_u8(&old, 1);
    buf_put_u64(&old, 32);
    buf_put_short(&old, span_of_text("resp"));
    buf_put_short(&old, span_of_text("http"));
    buf_put_u8(&old, 0);
    store_u64(old.data + 8, hash_64(span_of(old.data + 16, old.size - 16), META_CHECKSUM_SEED));
    assert_int_equal(meta_decode(buf_span(&old), &meta), STATUS_OK);
    assert_true(meta.actor_id == 15 && meta.runs.now.count == 0 && meta_known_as(&meta) == 14 &&
                meta.shards == 2);
    struct meta_member *member = meta_member_find(&meta, 31);
    assert_non_null(member);
    assert_string_equal(member->http, "http");
    /* How far that directory had come was not noted: its next start is believed. */
    assert_true(meta_member_current(member, 32, &(struct run_history){.now = {1, 2}}));
    store_u32(old.data + 4, META_VERSION + 1);
    assert_int_equal(meta_decode(buf_span(&old), &meta), STATUS_WRONG_PROTOCOL);
    store_u32(old.data + 4, 0);
    assert_int_equal(meta_decode(buf_span(&old), &meta), STATUS_WRONG_PROTOCOL);
    buf_free(&old);
    meta_free(&meta);
    assert_int_equal(alloc.used_bytes, 0);
}

static void an_older_copy_of_a_directory_is_not_current(void **state)
{
    (void)state;
    struct meta_member member = {0};
    struct run_history runs = {0};
    run_begin(&runs, 100);
    assert_true(meta_member_current(&member, 7, &runs));
    assert_true(meta_member_saw(&member, 7, &runs));
    /* Greeted again, in the same run: known, and current. */
    assert_false(meta_member_saw(&member, 7, &runs));
    assert_true(meta_member_current(&member, 7, &runs));
    struct run_history copy = runs;
    /* A restart of the directory itself. */
    run_begin(&runs, 101);
    assert_true(meta_member_saw(&member, 7, &runs));
    assert_int_equal(member.run.count, 2);
    /* The copy starts: the same count, another run. */
    run_begin(&copy, 102);
    assert_false(meta_member_current(&member, 7, &copy));
    assert_false(meta_member_saw(&member, 7, &copy));
    assert_int_equal(member.run.id, 101);
    /* However far it comes. */
    assert_false(meta_member_ran_on(&member, 7, (struct run){9, 102}));
    run_begin(&copy, 103);
    copy.now.count = 99;
    assert_false(meta_member_saw(&member, 7, &copy));
    /* The count is raised during a run; a greeting of that run may still say the one before. */
    assert_true(meta_member_ran_on(&member, 7, (struct run){3, 101}));
    assert_false(meta_member_saw(&member, 7, &runs));
    assert_true(meta_member_current(&member, 7, &runs));
    assert_int_equal(member.run.count, 3);
    /* Known by a new id the copy is the newest directory, and what it is a copy of an old one. */
    assert_true(meta_member_saw(&member, 8, &copy));
    assert_true(meta_member_current(&member, 8, &copy));
    runs.now.count = 200;
    assert_false(meta_member_current(&member, 7, &runs));
    assert_false(meta_member_ran_on(&member, 7, runs.now));
    assert_int_equal(member.run.id, 103);
}

static void the_newest_directories_of_a_member_are_kept(void **state)
{
    (void)state;
    struct meta_member member = {0};
    const struct run_history run = {.now = {1, 1}};
    for (uint64_t id = 1; id <= META_DIRECTORIES_MAX; id++)
        assert_true(meta_member_saw(&member, id, &run));
    assert_false(meta_member_saw(&member, META_DIRECTORIES_MAX, &run));
    /* Seen again: known, and still the oldest. */
    assert_false(meta_member_saw(&member, 1, &run));
    assert_int_equal(member.directory_count, META_DIRECTORIES_MAX);
    assert_int_equal(member.directories[0], 1);
    assert_true(meta_member_saw(&member, 99, &run));
    assert_int_equal(member.directory_count, META_DIRECTORIES_MAX);
    assert_int_equal(member.directories[META_DIRECTORIES_MAX - 1], 99);
    assert_false(meta_member_knows(&member, 1));
    for (uint64_t id = 2; id <= META_DIRECTORIES_MAX; id++)
        assert_true(meta_member_knows(&member, id));
}

static void limits_are_kept(void **state)
{
    (void)state;
    struct alloc alloc;
    struct meta meta;
    char text[400];
    memset(text, 'x', sizeof text);
    alloc_init(&alloc, BUDGET_BYTES);
    meta_init(&meta, &alloc);
    assert_int_equal(meta_name_set(&meta, span_of(text, NAME_BYTES_MAX + 1)), STATUS_TOO_LARGE);
    assert_int_equal(meta_name_set(&meta, span_of("a\0b", 3)), STATUS_MALFORMED);
    assert_int_equal(meta_name_set(&meta, span_of(text, NAME_BYTES_MAX)), STATUS_OK);
    for (uint64_t id = 0; id < NODES_MAX; id++)
        assert_non_null(meta_member_add(&meta, id));
    assert_null(meta_member_add(&meta, NODES_MAX));
    struct meta_member *member = meta_member_add(&meta, 5);
    assert_ptr_equal(member, meta_member_find(&meta, 5));
    assert_int_equal(
        meta_member_set_addresses(member, span_of(text, 1), span_of(text, ADDRESS_BYTES_MAX + 1)),
        STATUS_TOO_LARGE);
    assert_int_equal(meta_member_set_addresses(member, span_of(text, 1), span_of("\0", 1)), STATUS_MALFORMED);
    assert_string_equal(member->resp, "");
    meta_free(&meta);
    assert_int_equal(alloc.used_bytes, 0);
}

static void quarantine_ends_when_its_last_slot_is_cleared(void **state)
{
    (void)state;
    struct alloc alloc;
    struct meta meta;
    alloc_init(&alloc, BUDGET_BYTES);
    meta_init(&meta, &alloc);
    meta_quarantine_clear(&meta, 7);
    assert_int_equal(meta_quarantine_set(&meta, 7), STATUS_OK);
    assert_int_equal(meta_quarantine_set(&meta, 8), STATUS_OK);
    meta_quarantine_clear(&meta, 7);
    assert_false(meta_quarantine_test(&meta, 7));
    assert_true(meta_quarantine_test(&meta, 8) && meta_quarantine_any(&meta));
    meta_quarantine_clear(&meta, 8);
    assert_false(meta_quarantine_any(&meta));
    assert_int_equal(alloc.used_bytes, 0);
    meta_free(&meta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(a_damaged_or_shortened_blob_is_refused),
        cmocka_unit_test(a_blob_of_nonsense_with_a_fitting_checksum_is_corrupt_or_sane),
        cmocka_unit_test(decoding_survives_the_failure_of_any_allocation),
        cmocka_unit_test(a_blob_of_version_1_is_read),
        cmocka_unit_test(an_older_copy_of_a_directory_is_not_current),
        cmocka_unit_test(the_newest_directories_of_a_member_are_kept),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(quarantine_ends_when_its_last_slot_is_cleared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
