/* Logs that were damaged: what was durable is either replayed or named and quarantined; what was not is cut off. */
#include "log_world.h"

/* ---- damage ----------------------------------------------------------------------------------------------- */

/* A log of several segments, two lives with different shard counts, whose last durable end is named. */
static struct world *world_with_log(uint64_t seed)
{
    struct world *world = world_make(seed);
    for (int lives = 0; lives < 2; lives++) {
        life_begin(world);
        for (int i = 0; i < 40; i++) {
            life_append(world);
            while (i % 3 == 0 && life_io(world, false))
                continue;
        }
        log_writer_sync(&world->writer);
        while (life_io(world, false))
            continue;
        assert_int_equal(log_writer_mark(&world->writer), STATUS_OK);
        log_writer_sync(&world->writer);
        while (life_io(world, false))
            continue;
        log_writer_free(&world->writer);
        life_check_recovery(world);
    }
    return world;
}

/* Whatever is not recovered is quarantined; returns how many rows are missing. */
static uint32_t check_missing_rows_are_quarantined(struct world *world)
{
    uint32_t missing = 0;
    for (uint32_t i = 0; i < world->row_count; i++) {
        if (world->rows[i].recovered)
            continue;
        missing++;
        assert_true(slot_bitmap_test(world->report.quarantined, world->rows[i].slot));
    }
    return missing;
}

static void check_quarantine_is_exactly(struct world *world, const struct log_damage *damage)
{
    for (uint16_t slot = 0; slot < SLOTS_COUNT; slot++) {
        bool expected = damage->kind != LOG_DAMAGE_HEADER &&
                        (damage->shards == 0 || slot_shard(slot, damage->shards) == damage->shard);
        assert_int_equal(slot_bitmap_test(world->report.quarantined, slot), expected);
    }
}

static void any_damaged_byte_before_the_durable_end_is_named(void **state)
{
    (void)state;
    uint32_t seen[LOG_DAMAGE_ENTRY + 1] = {0};
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct world *world = world_with_log(seed);
        struct log_file files[FILES_MAX];
        size_t count = disk_list(&world->disk, files);
        assert_true(count >= 4);
        struct log_recovery_report whole = world->report;
        uint64_t checked_to[FILES_MAX];
        for (size_t f = 0; f < count; f++) {
            struct log_header next;
            checked_to[f] =
                whole.end.offset - LOG_BATCH_HEADER_BYTES; /* the marker itself may go unnoticed */
            if (f + 1 < count) {
                assert_int_equal(log_header_read(files[f + 1].bytes, files[f + 1].number,
                                                 world->identity.directory_id, &next),
                                 STATUS_OK);
                checked_to[f] = next.previous_end.offset;
            }
        }
        for (size_t f = 0; f < count; f++) {
            struct file *file = disk_file(&world->disk, files[f].number);
            uint64_t step = 1 + prng_below(&world->prng, 23);
            for (uint64_t at = 0; at < checked_to[f]; at += step) {
                uint8_t flip = (uint8_t)(1 + prng_below(&world->prng, 255));
                file->seen[at] ^= flip;
                recover(world);
                file->seen[at] ^= flip;
                assert_true(world->report.damage_count >= 1);
                const struct log_damage *damage = &world->report.damages[0];
                seen[damage->kind]++;
                assert_int_equal(damage->place.segment, file->number);
                assert_true(damage->place.offset <= at && at < damage->place.offset + damage->length);
                assert_int_equal(log_place_compare(world->report.end, whole.end), 0);
                uint32_t missing = check_missing_rows_are_quarantined(world);
                if (damage->kind == LOG_DAMAGE_HEADER)
                    assert_int_equal(missing, 0);
                if (world->report.damage_count == 1)
                    check_quarantine_is_exactly(world, damage);
                if (damage->kind == LOG_DAMAGE_BATCH || damage->kind == LOG_DAMAGE_GAP)
                    assert_int_equal(world->report.batches + damage->batches_lost, whole.batches);
                step = 1 + prng_below(&world->prng, 23);
            }
        }
        world_free(world);
    }
    assert_true(seen[LOG_DAMAGE_BATCH] > 100);
    assert_true(seen[LOG_DAMAGE_GAP] > 100);
    assert_true(seen[LOG_DAMAGE_HEADER] > 100);
}

static void a_missing_segment_quarantines_everything_and_the_rest_is_replayed(void **state)
{
    (void)state;
    struct world *world = world_with_log(5);
    struct log_file files[FILES_MAX];
    size_t count = disk_list(&world->disk, files);
    struct log_recovery_report whole = world->report;
    for (size_t f = 1; f + 1 < count; f++) {
        struct file *file = disk_file(&world->disk, files[f].number);
        file->number += 1000000; /* out of sight: listed last, but its checksums no longer fit */
        size_t size = file->size;
        file->size = 0;
        recover(world);
        assert_int_equal(world->report.damage_count, 1);
        assert_int_equal(world->report.damages[0].kind, LOG_DAMAGE_MISSING);
        assert_int_equal(world->report.damages[0].place.segment, files[f].number);
        assert_int_equal(world->report.batches + world->report.damages[0].batches_lost, whole.batches);
        check_quarantine_is_exactly(world, &world->report.damages[0]);
        (void)check_missing_rows_are_quarantined(world);
        file->size = size;
        file->number -= 1000000;
    }
    world_free(world);
}

static void noise_after_the_durable_end_is_a_torn_tail(void **state)
{
    (void)state;
    struct world *world = world_with_log(6);
    struct log_recovery_report whole = world->report;
    assert_int_equal(whole.torn_bytes, 0);
    struct file *file = disk_file(&world->disk, whole.end.segment);
    for (uint64_t at = whole.end.offset; at < file->size; at++)
        file->seen[at] = (uint8_t)prng_u64(&world->prng);
    recover(world);
    assert_int_equal(world->report.damage_count, 0);
    assert_int_equal(log_place_compare(world->report.end, whole.end), 0);
    assert_true(world->report.torn_bytes > 0);
    assert_int_equal(world->report.batches, whole.batches);
    world_free(world);
}

static void the_last_batch_without_a_marker_is_a_torn_tail_when_it_breaks(void **state)
{
    (void)state;
    struct world *world = world_make(9);
    life_begin(world);
    for (int i = 0; i < 6; i++)
        life_append(world);
    while (life_io(world, false))
        continue;
    recover(world);
    struct log_place end = world->report.end;
    uint64_t batches = world->report.batches;
    disk_file(&world->disk, end.segment)->seen[end.offset - 1] ^= 1;
    recover(world);
    assert_int_equal(world->report.damage_count, 0);
    assert_true(world->report.torn_bytes > 0);
    assert_int_equal(world->report.batches, batches - 1);
    log_writer_free(&world->writer);
    world_free(world);
}

/* Batch 3 of 4 is torn, so 4 is cut off, though intact; the file is not shortened. Then 2 is damaged: the search
 * for what follows must pass over the old 4. */
static void damage_does_not_bring_back_what_an_earlier_recovery_cut_off(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 130; seed++) {
        struct world *world = world_make(seed);
        struct log_place ends[4];
        life_begin(world);
        for (int i = 0; i < 4; i++) {
            life_append(world);
            ends[i] = world->writer.end;
        }
        while (life_io(world, false))
            continue;
        log_writer_free(&world->writer);
        if (ends[3].segment != 1) {
            world_free(world);
            continue;
        }
        struct file *file = disk_file(&world->disk, 1);
        file->seen[ends[1].offset + 20] ^= 1;
        recover(world);
        assert_int_equal(world->report.damage_count, 0);
        assert_int_equal(log_place_compare(world->report.end, ends[1]), 0);
        for (uint32_t i = 0; i < world->row_count; i++)
            world->rows[i].fate = world->rows[i].recovered ? FATE_COLD : FATE_LOST;
        uint8_t tail[FILE_BYTES_MAX];
        size_t size = file->size;
        memcpy(tail, file->seen, FILE_BYTES_MAX);
        life_begin(world);
        memcpy(file->seen, tail, FILE_BYTES_MAX);
        file->size = size;
        for (int i = 0; i < 5; i++)
            life_append(world);
        while (life_io(world, false))
            continue;
        log_writer_free(&world->writer);
        file->seen[ends[0].offset + 20] ^= 1;
        recover(world);
        assert_int_equal(world->report.damage_count, 1);
        for (uint32_t i = 0; i < world->row_count; i++) {
            if (world->rows[i].fate == FATE_LOST)
                assert_false(world->rows[i].recovered);
            if (world->rows[i].fate == FATE_APPENDED)
                assert_true(world->rows[i].recovered);
        }
        world_free(world);
    }
}

static void a_log_of_another_cluster_is_refused(void **state)
{
    (void)state;
    struct world *world = world_with_log(13);
    struct log_file files[FILES_MAX];
    size_t count = disk_list(&world->disk, files);
    struct log_recovery_options options = recovery_options(world);
    options.identity.cluster_id.low++;
    assert_int_equal(log_recover(&options, files, count, &world->report), STATUS_WRONG_CLUSTER);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_does_not_bring_back_what_an_earlier_recovery_cut_off),
        cmocka_unit_test(any_damaged_byte_before_the_durable_end_is_named),
        cmocka_unit_test(a_missing_segment_quarantines_everything_and_the_rest_is_replayed),
        cmocka_unit_test(noise_after_the_durable_end_is_a_torn_tail),
        cmocka_unit_test(the_last_batch_without_a_marker_is_a_torn_tail_when_it_breaks),
        cmocka_unit_test(a_log_of_another_cluster_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
