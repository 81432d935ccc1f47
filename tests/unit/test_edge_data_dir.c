/* The data directory: who may open it, what a start makes of the last stop, and what becomes of a damaged
 * log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "edge/data_dir.h"
#include "edge/files.h"
#include "store/log_writer.h"

#define ROWS 600
#define SHARD_MEMORY_BYTES ((size_t)32 << 20)

struct fixture {
    struct alloc alloc;
    struct buf why;
    struct buf said;
    char path[64];
    struct ring *one;       /* n1 alone */
    struct ring *three;     /* n1, n2, n3 */
    struct ring *elsewhere; /* the same three, n2 at another port */
};

/* ---- fixture -------------------------------------------------------------------------------------------- */

static struct ring *make_ring(struct fixture *fixture, uint16_t count, const char *second)
{
    struct ring_member members[] = {
        ring_member_of(span_of_text("n1"), span_of_text("127.0.0.1:1")),
        ring_member_of(span_of_text("n2"), span_of_text(second)),
        ring_member_of(span_of_text("n3"), span_of_text("127.0.0.1:3")),
    };
    struct ring_options options = {.members = members, .member_count = count, .replicas = 3};
    struct ring *ring = NULL;
    assert_int_equal(ring_initial(&fixture->alloc, &options, NULL, &ring), STATUS_OK);
    return ring;
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    alloc_init(&fixture->alloc, (size_t)64 << 20);
    buf_init(&fixture->why, &fixture->alloc);
    buf_init(&fixture->said, &fixture->alloc);
    (void)snprintf(fixture->path, sizeof(fixture->path), "/tmp/rondo-test-dir-XXXXXX");
    assert_non_null(mkdtemp(fixture->path));
    fixture->one = make_ring(fixture, 1, "127.0.0.1:2");
    fixture->three = make_ring(fixture, 3, "127.0.0.1:2");
    fixture->elsewhere = make_ring(fixture, 3, "127.0.0.1:22");
    *state = fixture;
    return 0;
}

static int remove_entry(const char *path, const struct stat *stat_of, int type, struct FTW *at)
{
    (void)stat_of;
    (void)type;
    (void)at;
    return remove(path);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    (void)nftw(fixture->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    ring_free(fixture->one);
    ring_free(fixture->three);
    ring_free(fixture->elsewhere);
    buf_free(&fixture->why);
    buf_free(&fixture->said);
    free(fixture);
    return 0;
}

static void on_say(void *context, enum say_level level, const char *text)
{
    struct fixture *fixture = context;
    (void)level;
    buf_append_text(&fixture->said, text);
    buf_append_text(&fixture->said, "\n");
}

struct opening {
    const char *name;
    const struct ring *ring; /* NULL: one */
    bool given;
    enum durability_mode mode; /* 0: always */
    uint16_t shards;           /* 0: 2 */
};

static enum status open_dir(struct fixture *fixture, struct opening opening, struct data_dir **dir)
{
    struct data_dir_options options = {
        .path = fixture->path,
        .name = opening.name,
        .initial = opening.ring != NULL ? opening.ring : fixture->one,
        .initial_given = opening.given,
        .shards = opening.shards != 0 ? opening.shards : 2,
        .durability = opening.mode != 0 ? opening.mode : DURABILITY_ALWAYS,
        .cold_memory_bytes = (size_t)2 << 20,
        .context = fixture,
        .say = on_say,
    };
    buf_clear(&fixture->why);
    buf_clear(&fixture->said);
    return data_dir_open(&options, dir, &fixture->why);
}

static struct data_dir *must_open(struct fixture *fixture, struct opening opening)
{
    struct data_dir *dir = NULL;
    enum status status = open_dir(fixture, opening, &dir);
    if (status != STATUS_OK)
        fail_msg("%.*s", (int)fixture->why.size, (const char *)fixture->why.data);
    return dir;
}

static bool has_text(struct buf *buf, const char *text)
{
    return memmem(buf->data, buf->size, text, strlen(text)) != NULL;
}

static void expect_refusal(struct fixture *fixture, struct opening opening, enum status expected,
                           const char *text)
{
    struct data_dir *dir = NULL;
    assert_int_equal(open_dir(fixture, opening, &dir), expected);
    if (!has_text(&fixture->why, text))
        fail_msg("\"%s\" is not in \"%.*s\"", text, (int)fixture->why.size, (const char *)fixture->why.data);
}

/* ---- rows, written as a shard would --------------------------------------------------------------------- */

static void on_durable(void *context, uint16_t shard, uint64_t sequence)
{
    (void)context;
    (void)shard;
    (void)sequence;
}

static void on_full(void *context, bool full)
{
    (void)context;
    (void)full;
}

static void on_fatal(void *context, const char *text)
{
    (void)context;
    fail_msg("%s", text);
}

static size_t row_key_text(char text[32], unsigned number)
{
    return (size_t)snprintf(text, 32, "key-%u", number);
}

/* Appends rows 0 .. ROWS - 1 with this stamp through a log thread, from two shards. */
static void log_rows(struct fixture *fixture, struct data_dir *dir, uint64_t time)
{
    struct log_thread_options options = {
        .directory = dir->log_path,
        .identity = dir->identity,
        .resume = &dir->log,
        .mode = DURABILITY_ALWAYS,
        .shards = 2,
        .segment_bytes = (uint64_t)32 << 10,
        .durable = on_durable,
        .full = on_full,
        .fatal = on_fatal,
    };
    struct log_thread *log = NULL;
    assert_int_equal(log_thread_start(&options, &log, NULL), STATUS_OK);
    uint64_t sequence[2] = {LOG_SEQUENCE_INHERITED, LOG_SEQUENCE_INHERITED};
    for (unsigned number = 0; number < ROWS; number++) {
        char text[32];
        uint8_t value[150];
        struct span key = span_of(text, row_key_text(text, number));
        memset(value, (int)number, sizeof(value));
        struct record record = {
            .flags = RECORD_VALUE,
            .stamp = {.time = time << 16 | 1, .actor = 5},
            .value = span_of(value, sizeof(value)),
        };
        struct buf bytes;
        struct buf payload;
        buf_init(&bytes, &fixture->alloc);
        buf_init(&payload, &fixture->alloc);
        record_put(&bytes, &record);
        log_put_row(&payload, key_slot(key), key, buf_span(&bytes));
        uint16_t shard = slot_shard(key_slot(key), 2);
        log_thread_append(log, shard, ++sequence[shard], 1, false, buf_span(&payload));
        buf_free(&bytes);
        buf_free(&payload);
    }
    assert_int_equal(log_thread_stop(log), STATUS_OK);
}

/* Recovers into new shards and counts the rows found, in memory or in the cold tier, with this stamp. */
static unsigned recover_rows(struct fixture *fixture, struct data_dir *dir, uint16_t shards_count,
                             uint64_t time)
{
    struct shard *shards[SHARDS_MAX] = {0};
    for (uint16_t i = 0; i < shards_count; i++) {
        struct shard_options options = {
            .shard = i,
            .shards = shards_count,
            .ring = dir->ring,
            .meta = &dir->meta,
            .bounds = dir->bounds,
            .resp_address = span_of_text("127.0.0.1:1"),
            .http_address = span_of_text("127.0.0.1:2"),
            .memory_bytes = SHARD_MEMORY_BYTES,
            .key_bytes_max = KEY_BYTES_MAX_DEFAULT,
            .value_bytes_max = 1 << 20,
            .clock_skew_max_ms = 500,
            .request_timeout_ms = 1000,
            .cold_empty = cold_empty(dir->cold),
            .durability_always = true,
            .seed = i + 1u,
        };
        shards[i] = shard_new(&options);
        assert_non_null(shards[i]);
    }
    assert_int_equal(data_dir_recover(dir, shards, shards_count, &fixture->why), STATUS_OK);
    bool found[ROWS] = {false};
    for (uint16_t i = 0; i < shards_count; i++) {
        struct memtable_cursor cursor = {0};
        const struct row *row;
        while ((row = memtable_scan(shard_memtable(shards[i]), &cursor)) != NULL) {
            struct record record;
            char text[32] = "";
            unsigned number = 0;
            memcpy(text, row_key(row).data, row_key(row).size);
            assert_int_equal(sscanf(text, "key-%u", &number), 1);
            assert_int_equal(slot_shard(key_slot(row_key(row)), shards_count), i);
            assert_int_equal(record_parse(row_record(row), &record), STATUS_OK);
            found[number] = stamp_ms(record.stamp) == time;
        }
    }
    unsigned count = 0;
    for (unsigned number = 0; number < ROWS; number++) {
        char text[32];
        uint8_t key[64];
        struct buf bytes;
        struct span name = span_of(text, row_key_text(text, number));
        cold_key_prefix(name, key_slot(name), key);
        memcpy(key + COLD_KEY_PREFIX_BYTES, name.data, name.size);
        buf_init(&bytes, &fixture->alloc);
        struct record record;
        if (!found[number] &&
            cold_get(dir->cold, span_of(key, COLD_KEY_PREFIX_BYTES + name.size), &bytes) == STATUS_OK &&
            record_parse(buf_span(&bytes), &record) == STATUS_OK)
            found[number] = stamp_ms(record.stamp) == time;
        buf_free(&bytes);
        count += found[number];
    }
    for (uint16_t i = 0; i < shards_count; i++)
        shard_free(shards[i]);
    return count;
}

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
    data_dir_close(dir, true);

    dir = must_open(fixture, (struct opening){0});
    assert_false(dir->was_new);
    assert_true(dir->meta.directory_id == directory_id && dir->meta.actor_id == actor_id);
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

static void test_dir_damage_is_named_quarantined_and_kept_aside_once(void **state)
{
    struct fixture *fixture = *state;
    char path[160];
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    uint64_t actor_id = dir->meta.actor_id;
    log_rows(fixture, dir, 7);
    data_dir_close(dir, true);
    dir = must_open(fixture, (struct opening){0});
    middle_segment(dir, path);
    data_dir_close(dir, true);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;
    assert_int_equal(pread(descriptor, &byte, 1, 10000), 1);
    byte ^= 1;
    assert_int_equal(files_write_at(descriptor, &byte, 1, 10000), 0);
    (void)close(descriptor);

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
    assert_true(meta_member_saw(member, 123));
    meta_encode(&dir->meta, &blob);
    assert_int_equal(data_dir_meta_write(dir, buf_span(&blob), NULL), STATUS_OK);
    buf_free(&blob);
    data_dir_close(dir, true);
    dir = must_open(fixture, (struct opening){0});
    assert_int_equal(dir->meta.state, META_AMNESIAC);
    assert_true(meta_member_knows(meta_member_find(&dir->meta, 77), 123));
    data_dir_close(dir, true);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

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
        CASE(test_dir_noise_past_the_end_is_cut_off),
        CASE(test_dir_written_meta_is_what_the_next_start_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
