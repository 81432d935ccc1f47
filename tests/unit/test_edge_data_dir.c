/* The data directory: who may open it, what a start makes of the last stop, and what becomes of a damaged
 * log. */
#include "dir_world.h"

/* ---- tests: identity ------------------------------------------------------------------------------------ */

static void test_dir_new_one_serves_alone_and_is_unproven_among_others(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    assert_true(dir->was_new);
    assert_int_equal(dir->meta.state, META_SERVING);
    assert_string_equal(dir->meta.name, "n1");
    uint64_t directory_id = dir->meta.directory_id;
    uint64_t actor_id = dir->meta.actor_id;
    assert_true(directory_id != 0 && actor_id != 0 && directory_id != actor_id);
    struct run run = dir->meta.runs.now;
    assert_true(run.count == 1 && run.id != 0);
    data_dir_close(dir, true);

    dir = must_open(fixture, (struct opening){0});
    assert_false(dir->was_new);
    assert_true(dir->meta.directory_id == directory_id && dir->meta.actor_id == actor_id);
    assert_true(dir->meta.runs.now.count == 2 && dir->meta.runs.now.id != run.id);
    data_dir_close(dir, true);

    (void)nftw(fixture->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    dir = must_open(fixture, (struct opening){.name = "n2", .ring = fixture->three, .given = true});
    assert_int_equal(dir->meta.state, META_UNPROVEN);
    assert_string_equal(dir->meta.name, "n2");
    data_dir_close(dir, true);
}

static void test_dir_second_process_is_told_who_holds_it(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    char holder[64];
    (void)snprintf(holder, sizeof(holder), "another rondod (pid %ld) uses", (long)getpid());
    expect_refusal(fixture, (struct opening){0}, STATUS_BAD_REQUEST, holder);
    data_dir_close(dir, true);
}

static void test_dir_of_another_node_or_cluster_is_refused(void **state)
{
    struct fixture *fixture = *state;
    data_dir_close(must_open(fixture, (struct opening){.name = "n1", .ring = fixture->three, .given = true}),
                   true);
    expect_refusal(fixture, (struct opening){.name = "n2", .ring = fixture->three, .given = true},
                   STATUS_BAD_REQUEST, "belongs to node n1, and --name says n2");
    expect_refusal(fixture, (struct opening){.name = "n1", .ring = fixture->elsewhere, .given = true},
                   STATUS_WRONG_CLUSTER, "127.0.0.1:22");
    expect_refusal(fixture, (struct opening){.name = "n1", .ring = fixture->elsewhere, .given = true},
                   STATUS_WRONG_CLUSTER, "n2");
    /* Without the flags the directory knows best. */
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    assert_string_equal(dir->meta.name, "n1");
    assert_int_equal(dir->ring->node_count, 3);
    data_dir_close(dir, true);
}

static void test_dir_with_other_peoples_files_is_not_taken(void **state)
{
    struct fixture *fixture = *state;
    char *path = files_join(fixture->path, "thesis.tex");
    assert_int_equal(files_replace(path, span_of_text("x"), NULL), STATUS_OK);
    expect_refusal(fixture, (struct opening){0}, STATUS_BAD_REQUEST, "thesis.tex");
    char *lock = files_join(fixture->path, "lock");
    assert_int_not_equal(access(lock, F_OK), 0); /* nothing was added to it */
    free(lock);
    assert_int_equal(unlink(path), 0);
    free(path);
    data_dir_close(must_open(fixture, (struct opening){0}), true);
}

static void test_dir_damaged_or_missing_meta_stops_the_start(void **state)
{
    struct fixture *fixture = *state;
    data_dir_close(must_open(fixture, (struct opening){0}), true);
    char *path = files_join(fixture->path, "meta");
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(files_write_at(descriptor, "\xff", 1, 40), 0);
    (void)close(descriptor);
    expect_refusal(fixture, (struct opening){0}, STATUS_CORRUPT, "is damaged: put back a copy");
    assert_int_equal(truncate(path, 0), 0);
    expect_refusal(fixture, (struct opening){0}, STATUS_CORRUPT, "is damaged");
    assert_int_equal(unlink(path), 0);
    expect_refusal(fixture, (struct opening){0}, STATUS_CORRUPT, "meta is missing although");
    free(path);
}

static void test_dir_full_or_read_only_says_what_to_do(void **state)
{
    struct fixture *fixture = *state;
    if (mount("tmpfs", fixture->path, "tmpfs", 0, "size=16k") != 0)
        skip(); /* only root may mount */
    expect_refusal(fixture, (struct opening){0}, STATUS_DISK_FULL, "; make room there");
    assert_int_equal(umount(fixture->path), 0);
    assert_int_equal(mount("tmpfs", fixture->path, "tmpfs", MS_RDONLY, "size=1m"), 0);
    expect_refusal(fixture, (struct opening){0}, STATUS_IO_ERROR, "choose another directory with --data");
    assert_int_equal(umount(fixture->path), 0);
}

/* ---- tests: recovery ------------------------------------------------------------------------------------ */

static void test_dir_actor_is_new_after_an_unclean_stop_unless_always(void **state)
{
    static const struct {
        enum durability_mode mode;
        bool clean;
        bool same;
    } cases[] = {
        {DURABILITY_ALWAYS, true, true},   {DURABILITY_ALWAYS, false, true},
        {DURABILITY_OS, true, true},       {DURABILITY_OS, false, false},
        {DURABILITY_INTERVAL, true, true}, {DURABILITY_INTERVAL, false, false},
    };
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct data_dir *dir = must_open(fixture, (struct opening){.mode = cases[i].mode});
        uint64_t actor_id = dir->meta.actor_id;
        log_rows(fixture, dir, 7);
        assert_int_equal(data_dir_log_begun(dir, NULL), STATUS_OK);
        data_dir_close(dir, cases[i].clean);
        /* What counts is the mode of the run that stopped, not of the one that starts. */
        dir = must_open(fixture, (struct opening){0});
        assert_int_equal(dir->meta.actor_id == actor_id, cases[i].same);
        data_dir_close(dir, true);
    }
}

static void test_dir_rows_come_back_under_any_number_of_shards(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    assert_int_equal(recover_rows(fixture, dir, 2, 7), 0);
    log_rows(fixture, dir, 7);
    data_dir_close(dir, true);
    for (uint16_t shards = 1; shards <= 5; shards += 2) {
        dir = must_open(fixture, (struct opening){.shards = shards});
        assert_int_equal(recover_rows(fixture, dir, shards, 7), ROWS);
        assert_int_equal(fixture->said.size, 0);
        data_dir_close(dir, false);
    }
}

/* The path of a segment that is neither the first nor the last. */
static void middle_segment(struct data_dir *dir, char path[160])
{
    assert_true(dir->log.inherited_count > 3);
    (void)snprintf(path, 160, "%s/%012llu.log", dir->log_path,
                   (unsigned long long)dir->log.inherited[dir->log.inherited_count / 2]);
}

/* Damages one row in the middle of the log; path: of its segment. */
static void damage_row(struct fixture *fixture, char path[160])
{
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    middle_segment(dir, path);
    data_dir_close(dir, true);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;
    assert_int_equal(pread(descriptor, &byte, 1, 10000), 1);
    byte ^= 1;
    assert_int_equal(files_write_at(descriptor, &byte, 1, 10000), 0);
    (void)close(descriptor);
}

static void test_dir_damage_is_named_quarantined_and_kept_aside_once(void **state)
{
    struct fixture *fixture = *state;
    char path[160];
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    uint64_t actor_id = dir->meta.actor_id;
    log_rows(fixture, dir, 7);
    assert_int_equal(data_dir_log_begun(dir, NULL), STATUS_OK);
    data_dir_close(dir, true);
    damage_row(fixture, path);

    dir = must_open(fixture, (struct opening){.shards = 3});
    assert_true(dir->damaged);
    assert_true(has_text(&fixture->said, path));
    assert_true(dir->meta.actor_id != actor_id);
    actor_id = dir->meta.actor_id;
    assert_true(meta_quarantine_any(&dir->meta));
    assert_int_equal(recover_rows(fixture, dir, 3, 7), ROWS - 1);
    assert_int_equal(dir->log.inherited_count, 0);
    assert_int_not_equal(access(path, F_OK), 0);
    data_dir_close(dir, true);
    char *quarantine = files_join(fixture->path, "quarantine");
    assert_int_not_equal(rmdir(quarantine), 0); /* it holds the file */
    free(quarantine);

    dir = must_open(fixture, (struct opening){0});
    assert_false(dir->damaged);
    assert_true(meta_quarantine_any(&dir->meta));
    assert_false(has_text(&fixture->said, "LOST")); /* the log was emptied by us */
    assert_int_equal(dir->meta.actor_id, actor_id);
    assert_int_equal(recover_rows(fixture, dir, 2, 7), ROWS - 1);
    /* The log that follows the damage is a log like any other. */
    log_rows(fixture, dir, 8);
    data_dir_close(dir, true);
    dir = must_open(fixture, (struct opening){0});
    assert_false(dir->damaged);
    assert_int_equal(recover_rows(fixture, dir, 2, 8), ROWS);
    data_dir_close(dir, true);
}

/* The log goes only once its rows are in the cold tier. */
static void test_dir_damaged_log_stays_while_the_cold_tier_takes_nothing(void **state)
{
    struct fixture *fixture = *state;
    char path[160];
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    log_rows(fixture, dir, 7);
    assert_int_equal(data_dir_log_begun(dir, NULL), STATUS_OK);
    data_dir_close(dir, true);
    damage_row(fixture, path);
    dir = must_open(fixture, (struct opening){0});
    struct shard *shards[2] = {0};
    make_shards(dir, 2, shards);
    char *tables = files_join(fixture->path, "cold-tmp");
    assert_int_equal(rmdir(tables), 0);
    assert_int_not_equal(data_dir_recover(dir, shards, 2, &fixture->why), STATUS_OK);
    assert_true(has_text(&fixture->why, "cold-tmp"));
    for (uint16_t i = 0; i < 2; i++)
        shard_free(shards[i]);
    data_dir_close(dir, false);
    assert_int_equal(access(path, F_OK), 0);
    free(tables);
    buf_clear(&fixture->why);
    dir = must_open(fixture, (struct opening){0});
    assert_int_equal(recover_rows(fixture, dir, 2, 7), ROWS - 1);
    assert_int_not_equal(access(path, F_OK), 0);
    data_dir_close(dir, true);
}

static void test_dir_noise_past_the_end_is_cut_off(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    log_rows(fixture, dir, 7);
    data_dir_close(dir, false);
    dir = must_open(fixture, (struct opening){0});
    struct log_place end = dir->log.end;
    char path[160];
    (void)snprintf(path, sizeof(path), "%s/%012llu.log", dir->log_path, (unsigned long long)end.segment);
    data_dir_close(dir, false);
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    uint8_t noise[3000];
    memset(noise, 0x5a, sizeof(noise));
    assert_int_equal(files_write_at(descriptor, noise, sizeof(noise), (off_t)end.offset), 0);
    (void)close(descriptor);

    dir = must_open(fixture, (struct opening){0});
    assert_false(dir->damaged);
    assert_false(meta_quarantine_any(&dir->meta));
    assert_int_equal(dir->log.end.offset, end.offset);
    assert_int_equal(recover_rows(fixture, dir, 2, 7), ROWS);
    data_dir_close(dir, false);
    struct stat stat_of;
    assert_int_equal(stat(path, &stat_of), 0);
    assert_int_equal(stat_of.st_size, end.offset);
}

static void test_dir_written_meta_is_what_the_next_start_reads(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir =
        must_open(fixture, (struct opening){.name = "n1", .ring = fixture->three, .given = true});
    struct buf blob;
    buf_init(&blob, &fixture->alloc);
    dir->meta.state = META_AMNESIAC;
    struct meta_member *member = meta_member_add(&dir->meta, 77);
    assert_non_null(member);
    assert_true(meta_member_saw(member, 123, &(struct run_history){.now = {1, 2}}));
    meta_encode(&dir->meta, &blob);
    assert_int_equal(data_dir_meta_write(dir, buf_span(&blob), NULL), STATUS_OK);
    buf_free(&blob);
    data_dir_close(dir, true);
    dir = must_open(fixture, (struct opening){0});
    assert_int_equal(dir->meta.state, META_AMNESIAC);
    assert_true(meta_member_knows(meta_member_find(&dir->meta, 77), 123));
    data_dir_close(dir, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_dir_new_one_serves_alone_and_is_unproven_among_others),
        CASE(test_dir_second_process_is_told_who_holds_it),
        CASE(test_dir_of_another_node_or_cluster_is_refused),
        CASE(test_dir_with_other_peoples_files_is_not_taken),
        CASE(test_dir_damaged_or_missing_meta_stops_the_start),
        CASE(test_dir_full_or_read_only_says_what_to_do),
        CASE(test_dir_actor_is_new_after_an_unclean_stop_unless_always),
        CASE(test_dir_rows_come_back_under_any_number_of_shards),
        CASE(test_dir_damage_is_named_quarantined_and_kept_aside_once),
        CASE(test_dir_damaged_log_stays_while_the_cold_tier_takes_nothing),
        CASE(test_dir_noise_past_the_end_is_cut_off),
        CASE(test_dir_written_meta_is_what_the_next_start_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
