/* What a damaged cold tier means: the note, and the start that finds it. */
#include "dir_world.h"

#include <dirent.h>

static bool exists(const struct fixture *fixture, const char *name)
{
    char *path = files_join(fixture->path, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

/* Flips bits in the first half of every table. */
static void damage_tables(const struct fixture *fixture)
{
    char *cold = files_join(fixture->path, "cold");
    DIR *directory = opendir(cold);
    assert_non_null(directory);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (strstr(entry->d_name, ".sst") == NULL)
            continue;
        char *path = files_join(cold, entry->d_name);
        int descriptor = open(path, O_RDWR | O_CLOEXEC);
        struct stat of;
        assert_int_equal(fstat(descriptor, &of), 0);
        for (off_t offset = 100; offset < of.st_size / 2; offset += 1024) {
            uint8_t byte;
            assert_int_equal(pread(descriptor, &byte, 1, offset), 1);
            byte ^= 0x10;
            assert_int_equal(files_write_at(descriptor, &byte, 1, offset), 0);
        }
        (void)close(descriptor);
        free(path);
    }
    (void)closedir(directory);
    free(cold);
}

/* How many rows of the cold tier answer, and how many are damaged. */
static void read_rows(struct fixture *fixture, struct data_dir *dir, unsigned *found, unsigned *corrupt)
{
    *found = *corrupt = 0;
    for (unsigned number = 0; number < ROWS; number++) {
        char text[32];
        uint8_t bytes[COLD_KEY_PREFIX_BYTES + 32];
        struct span key = span_of(text, row_key_text(text, number));
        struct buf record;
        buf_init(&record, &fixture->alloc);
        cold_key_prefix(key, key_slot(key), bytes);
        memcpy(bytes + COLD_KEY_PREFIX_BYTES, key.data, key.size);
        enum status status = cold_get(dir->cold, span_of(bytes, COLD_KEY_PREFIX_BYTES + key.size), &record);
        assert_true(status == STATUS_OK || status == STATUS_CORRUPT || status == STATUS_NOT_FOUND);
        *found += status == STATUS_OK;
        *corrupt += status == STATUS_CORRUPT;
        buf_free(&record);
    }
}

/* A run of a node that ends with all rows in a damaged cold tier. */
static void leave_damage(struct fixture *fixture, const struct ring *ring)
{
    struct data_dir *dir = must_open(fixture, (struct opening){.ring = ring});
    ingest_rows(fixture, dir, 9);
    assert_false(exists(fixture, "cold-damaged"));
    data_dir_close(dir, true);
    damage_tables(fixture);
}

static void test_cold_damage_is_noted_once_and_the_next_start_gives_the_cold_tier_up(void **state)
{
    struct fixture *fixture = *state;
    unsigned found;
    unsigned corrupt;
    leave_damage(fixture, fixture->three);
    struct data_dir *dir = must_open(fixture, (struct opening){.ring = fixture->three});
    uint64_t actor = dir->meta.actor_id;
    assert_false(meta_quarantine_any(&dir->meta));
    read_rows(fixture, dir, &found, &corrupt);
    assert_true(corrupt > 0);
    assert_true(exists(fixture, "cold-damaged"));
    assert_true(has_text(&fixture->said, "is DAMAGED; its slots are repaired"));
    buf_clear(&fixture->said);
    read_rows(fixture, dir, &found, &corrupt);
    assert_int_equal(fixture->said.size, 0);
    data_dir_close(dir, true);

    dir = must_open(fixture, (struct opening){.ring = fixture->three});
    assert_true(has_text(&fixture->said, "it is deleted and rebuilt"));
    assert_true(dir->meta.actor_id != actor);
    assert_true(cold_empty(dir->cold));
    assert_false(exists(fixture, "cold-damaged"));
    data_dir_close(dir, true);

    /* Told once, remembered for ever. */
    dir = must_open(fixture, (struct opening){.ring = fixture->three});
    assert_false(has_text(&fixture->said, "DAMAGED"));
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++)
        assert_true(meta_quarantine_test(&dir->meta, (uint16_t)slot));
    data_dir_close(dir, true);
}

static void test_cold_damage_of_a_node_alone_is_told_and_nothing_is_deleted(void **state)
{
    struct fixture *fixture = *state;
    unsigned found;
    unsigned corrupt;
    leave_damage(fixture, NULL);
    for (unsigned start = 0; start < 2; start++) {
        struct data_dir *dir = must_open(fixture, (struct opening){0});
        read_rows(fixture, dir, &found, &corrupt);
        assert_true(corrupt > 0);
        assert_int_equal(found + corrupt, ROWS);
        assert_true(has_text(&fixture->said, "cannot be rebuilt"));
        assert_false(exists(fixture, "cold-damaged"));
        assert_false(meta_quarantine_any(&dir->meta));
        data_dir_close(dir, true);
    }
    /* Nor where a note is there, from when it had company. */
    char *path = files_join(fixture->path, "cold-damaged");
    assert_int_equal(files_replace(path, span_of_text("x"), NULL), STATUS_OK);
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    assert_true(has_text(&fixture->said, "cannot be rebuilt"));
    assert_false(cold_empty(dir->cold));
    data_dir_close(dir, true);
    free(path);
}

/* The machine stops while the tables are deleted. */
static void test_cold_damage_half_deleted_is_deleted_by_the_next_start(void **state)
{
    struct fixture *fixture = *state;
    leave_damage(fixture, fixture->three);
    char *note = files_join(fixture->path, "cold-damaged");
    char *current = files_join(fixture->path, "cold/CURRENT");
    assert_int_equal(files_replace(note, span_of_text("x"), NULL), STATUS_OK);
    assert_int_equal(unlink(current), 0);
    struct data_dir *dir = must_open(fixture, (struct opening){.ring = fixture->three});
    assert_true(cold_empty(dir->cold));
    assert_true(meta_quarantine_any(&dir->meta));
    assert_false(exists(fixture, "cold-damaged"));
    data_dir_close(dir, true);
    free(note);
    free(current);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_cold_damage_is_noted_once_and_the_next_start_gives_the_cold_tier_up),
        CASE(test_cold_damage_of_a_node_alone_is_told_and_nothing_is_deleted),
        CASE(test_cold_damage_half_deleted_is_deleted_by_the_next_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
