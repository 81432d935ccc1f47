/* The data directory after something was lost: by the machine's memory, by the log, by the disk. */
#include "dir_world.h"

/* ---- tests: lost writes ---------------------------------------------------------------------------------- */

static void expect_all_quarantined(struct data_dir *dir, bool expected)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot += 1000)
        assert_int_equal(meta_quarantine_test(&dir->meta, (uint16_t)slot), expected);
    assert_int_equal(meta_quarantine_any(&dir->meta), expected);
}

/* As if the last run had run during another boot of the machine. */
static void pretend_reboot(struct fixture *fixture)
{
    struct durability_note note;
    char *path = files_join(fixture->path, "durability");
    durability_note_read(&note, path);
    assert_true(note.mode != 0 && note.boot[0] != '\0');
    note.boot[0] = note.boot[0] == 'a' ? 'b' : 'a';
    assert_int_equal(durability_note_write(&note, path, NULL), STATUS_OK);
    free(path);
}

static void test_dir_power_loss_quarantines_what_was_not_synced(void **state)
{
    static const struct {
        enum durability_mode mode;
        bool begun;
        bool clean;
        bool reboot;
        bool lost;
    } cases[] = {
        {DURABILITY_OS, true, false, false, false},     {DURABILITY_OS, true, true, true, false},
        {DURABILITY_OS, false, false, true, false}, /* it never wrote anything */
        {DURABILITY_ALWAYS, true, false, true, false},  {DURABILITY_INTERVAL, true, true, true, false},
        {DURABILITY_INTERVAL, true, false, true, true}, {DURABILITY_OS, true, false, true, true},
    };
    struct fixture *fixture = *state;
    struct ring *three = make_ring(fixture, 3, "127.0.0.1:2");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct data_dir *dir = must_open(fixture, (struct opening){.ring = three, .mode = cases[i].mode});
        log_rows(fixture, dir, 7);
        if (cases[i].begun)
            assert_int_equal(data_dir_log_begun(dir, NULL), STATUS_OK);
        data_dir_close(dir, cases[i].clean);
        if (cases[i].reboot)
            pretend_reboot(fixture);
        dir = must_open(fixture, (struct opening){.ring = three});
        expect_all_quarantined(dir, cases[i].lost);
        assert_int_equal(has_text(&fixture->said, "the machine went down"), cases[i].lost);
        data_dir_close(dir, false);
        /* Told once, remembered for ever. */
        dir = must_open(fixture, (struct opening){.ring = three});
        expect_all_quarantined(dir, cases[i].lost);
        assert_false(has_text(&fixture->said, "the machine went down"));
        data_dir_close(dir, true);
        if (cases[i].lost)
            (void)nftw(fixture->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
    ring_free(three);
}

/* Nobody could repair it, and refusing every read for ever would help nobody. */
static void test_dir_of_a_node_alone_serves_what_it_has_after_a_power_loss(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){.mode = DURABILITY_OS});
    log_rows(fixture, dir, 7);
    assert_int_equal(data_dir_log_begun(dir, NULL), STATUS_OK);
    data_dir_close(dir, false);
    pretend_reboot(fixture);
    dir = must_open(fixture, (struct opening){0});
    assert_true(has_text(&fixture->said, "the machine went down"));
    expect_all_quarantined(dir, false);
    data_dir_close(dir, true);
}

static void test_dir_without_a_note_promises_nothing_after_an_unclean_stop(void **state)
{
    struct fixture *fixture = *state;
    struct ring *three = make_ring(fixture, 3, "127.0.0.1:2");
    char *path = files_join(fixture->path, "durability");
    for (unsigned clean = 2; clean-- > 0;) {
        data_dir_close(must_open(fixture, (struct opening){.ring = three}), clean == 1);
        assert_int_equal(unlink(path), 0);
        struct data_dir *dir = must_open(fixture, (struct opening){.ring = three});
        expect_all_quarantined(dir, clean == 0);
        data_dir_close(dir, true);
    }
    free(path);
    ring_free(three);
}

static void test_dir_newer_row_in_the_cold_tier_outlives_a_log_that_lost_it(void **state)
{
    static const struct {
        enum durability_mode mode;
        bool clean;
        bool torn;
        bool merged;
    } cases[] = {
        {DURABILITY_OS, false, false, true},
        {DURABILITY_ALWAYS, false, true, true},
        /* Nothing was lost: what is in the log is the newest there is. */
        {DURABILITY_ALWAYS, false, false, false},
        {DURABILITY_OS, true, false, false},
    };
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct data_dir *dir = must_open(fixture, (struct opening){.mode = cases[i].mode});
        log_rows(fixture, dir, 7);
        ingest_rows(fixture, dir, 9);
        assert_int_equal(data_dir_log_begun(dir, NULL), STATUS_OK);
        data_dir_close(dir, cases[i].clean);
        if (cases[i].torn) {
            dir = must_open(fixture, (struct opening){.mode = cases[i].mode});
            char *path = segment_file_path(dir->log_path, dir->log.end.segment);
            int descriptor = open(path, O_WRONLY | O_CLOEXEC);
            assert_int_equal(files_write_at(descriptor, "torn torn torn", 14, (off_t)dir->log.end.offset), 0);
            (void)close(descriptor);
            free(path);
            data_dir_close(dir, false);
        }
        dir = must_open(fixture, (struct opening){0});
        assert_int_equal(dir->merge_cold, cases[i].merged);
        assert_int_equal(recover_rows(fixture, dir, 2, 7), cases[i].merged ? 0 : ROWS);
        data_dir_close(dir, true);
        (void)nftw(fixture->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}

/* ---- tests: lost parts ---------------------------------------------------------------------------------- */

static void remove_part(struct fixture *fixture, const char *name)
{
    char *path = files_join(fixture->path, name);
    assert_int_equal(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(path);
}

static void remove_segments(struct fixture *fixture)
{
    char *path = files_join(fixture->path, "log");
    assert_int_equal(files_empty_directory(path, NULL), STATUS_OK);
    free(path);
}

static void test_dir_lost_part_quarantines_all_slots(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned part = 0; part < 4; part++) {
        static const char *const texts[] = {"/log is MISSING", "/log has LOST its segments",
                                            "/cold is MISSING", "/cold has LOST its file CURRENT"};
        struct data_dir *dir = must_open(fixture, (struct opening){0});
        uint64_t actor_id = dir->meta.actor_id;
        log_rows(fixture, dir, 7);
        assert_int_equal(data_dir_log_begun(dir, NULL), STATUS_OK);
        data_dir_close(dir, part % 2 == 0);
        if (part == 0)
            remove_part(fixture, "log");
        else if (part == 1)
            remove_segments(fixture);
        else
            remove_part(fixture, part == 2 ? "cold" : "cold/CURRENT");
        dir = must_open(fixture, (struct opening){0});
        assert_true(has_text(&fixture->said, texts[part]));
        expect_all_quarantined(dir, true);
        assert_true(dir->meta.actor_id != actor_id);
        data_dir_close(dir, false);
        /* The part is there again, what it held is not. */
        dir = must_open(fixture, (struct opening){0});
        assert_int_equal(fixture->said.size, 0);
        expect_all_quarantined(dir, true);
        data_dir_close(dir, true);
        (void)nftw(fixture->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}

static void test_dir_crash_during_the_first_start_is_no_loss(void **state)
{
    struct fixture *fixture = *state;
    struct buf blob;
    buf_init(&blob, &fixture->alloc);
    /* Before anything was logged, however often. */
    for (unsigned i = 0; i < 3; i++) {
        struct data_dir *dir = must_open(fixture, (struct opening){.mode = DURABILITY_OS});
        assert_int_equal(fixture->said.size, 0);
        expect_all_quarantined(dir, false);
        /* The first segment was made, but the note does not say so yet. */
        char *path = segment_file_path(dir->log_path, i + 1);
        int descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(ftruncate(descriptor, 1 << 20), 0);
        (void)close(descriptor);
        free(path);
        /* Only meta was written before the crash. */
        if (i == 1) {
            dir->meta.shards = 0;
            meta_encode(&dir->meta, &blob);
            assert_int_equal(data_dir_meta_write(dir, buf_span(&blob), NULL), STATUS_OK);
        }
        data_dir_close(dir, false);
        remove_segments(fixture);
        if (i == 1) {
            remove_part(fixture, "log");
            remove_part(fixture, "cold");
            remove_part(fixture, "cold-tmp");
            remove_part(fixture, "durability");
        }
    }
    /* The note says so, but nothing was written into the segment: that is no loss either. */
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    char *path = segment_file_path(dir->log_path, 1);
    int descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(descriptor, 1 << 20), 0);
    (void)close(descriptor);
    assert_int_equal(data_dir_log_begun(dir, NULL), STATUS_OK);
    data_dir_close(dir, false);
    for (unsigned i = 0; i < 2; i++) {
        dir = must_open(fixture, (struct opening){0});
        expect_all_quarantined(dir, false);
        data_dir_close(dir, false);
    }
    free(path);
    buf_free(&blob);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_dir_power_loss_quarantines_what_was_not_synced),
        CASE(test_dir_of_a_node_alone_serves_what_it_has_after_a_power_loss),
        CASE(test_dir_without_a_note_promises_nothing_after_an_unclean_stop),
        CASE(test_dir_newer_row_in_the_cold_tier_outlives_a_log_that_lost_it),
        CASE(test_dir_lost_part_quarantines_all_slots),
        CASE(test_dir_crash_during_the_first_start_is_no_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
