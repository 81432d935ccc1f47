/* Erased and reserved rows over restarts: what the log and the cold tier say of them is what the shards take over. */
#include "dir_world.h"

#include "model/reserved.h"
#include "store/flush.h"

static struct version version_at(uint64_t time)
{
    return (struct version){.value = {.time = time << 16 | 1, .actor = 5}};
}

/* ---- writing the log ------------------------------------------------------------------------------------ */

struct writing {
    struct log_thread *log;
    struct alloc *alloc;
    uint64_t sequence[2];
};

static struct writing writing_begin(struct fixture *fixture, struct data_dir *dir)
{
    return (struct writing){.log = log_start(dir),
                            .alloc = &fixture->alloc,
                            .sequence = {LOG_SEQUENCE_INHERITED, LOG_SEQUENCE_INHERITED}};
}

static void write_entry(struct writing *writing, const struct log_entry *entry)
{
    struct buf payload;
    buf_init(&payload, writing->alloc);
    if (entry->type == LOG_ENTRY_ROW)
        log_put_row(&payload, entry->slot, entry->key, entry->record);
    else if (entry->type == LOG_ENTRY_RESERVED)
        log_put_reserved(&payload, entry->slot, entry->key, entry->record);
    else
        log_put_erase(&payload, entry->slot, entry->key, entry->version);
    uint16_t shard = slot_shard(entry->slot, 2);
    log_thread_append(writing->log, shard, ++writing->sequence[shard], 1, false, buf_span(&payload));
    (void)log_thread_write(writing->log, shard);
    buf_free(&payload);
}

static void write_row(struct writing *writing, unsigned number, uint64_t time)
{
    char text[32];
    struct span key = span_of(text, row_key_text(text, number));
    struct buf bytes;
    buf_init(&bytes, writing->alloc);
    put_record(&bytes, number, time);
    write_entry(writing,
                &(struct log_entry){
                    .type = LOG_ENTRY_ROW, .slot = key_slot(key), .key = key, .record = buf_span(&bytes)});
    buf_free(&bytes);
}

static void write_erase(struct writing *writing, unsigned number, uint64_t time)
{
    char text[32];
    struct span key = span_of(text, row_key_text(text, number));
    write_entry(writing,
                &(struct log_entry){
                    .type = LOG_ENTRY_ERASE, .slot = key_slot(key), .key = key, .version = version_at(time)});
}

static void write_reserved(struct writing *writing, uint16_t slot, const char *record)
{
    uint8_t key[RESERVED_SYNC_KEY_BYTES] = {RESERVED_SYNC >> 8, RESERVED_SYNC & 0xff, 7};
    key[RESERVED_SYNC_KEY_BYTES - 2] = (uint8_t)(slot >> 8);
    key[RESERVED_SYNC_KEY_BYTES - 1] = (uint8_t)slot;
    write_entry(writing, &(struct log_entry){.type = LOG_ENTRY_RESERVED,
                                             .slot = slot,
                                             .key = span_of(key, sizeof key),
                                             .record = span_of_text(record)});
}

static void writing_end(struct writing *writing)
{
    assert_int_equal(log_thread_stop(writing->log), STATUS_OK);
}

/* ---- recovering ----------------------------------------------------------------------------------------- */

/* Recovers into so many shards and puts everything into the cold tier. */
static void recover_into_cold(struct fixture *fixture, struct data_dir *dir, uint16_t shards_count)
{
    struct shard *shards[SHARDS_MAX] = {0};
    make_shards(dir, shards_count, shards);
    if (data_dir_recover(dir, shards, shards_count, &fixture->why) != STATUS_OK)
        fail_msg("%.*s", (int)fixture->why.size, (const char *)fixture->why.data);
    for (uint16_t i = 0; i < shards_count; i++) {
        struct flush_job *job;
        while (shard_recover_freeze(shards[i], &job) == STATUS_OK) {
            assert_int_equal(cold_ingest(dir->cold, i, job, NULL), STATUS_OK);
            shard_recover_flushed(shards[i]);
        }
        shard_free(shards[i]);
    }
}

/* The time of the version that the cold tier holds; 0 = none. */
static uint64_t cold_time(struct fixture *fixture, struct data_dir *dir, unsigned number)
{
    char text[32];
    uint8_t key[64];
    struct buf bytes;
    struct record record;
    struct span name = span_of(text, row_key_text(text, number));
    cold_key_prefix(name, key_slot(name), key);
    memcpy(key + COLD_KEY_PREFIX_BYTES, name.data, name.size);
    buf_init(&bytes, &fixture->alloc);
    enum status status = cold_get(dir->cold, span_of(key, COLD_KEY_PREFIX_BYTES + name.size), &bytes);
    if (status == STATUS_OK)
        assert_int_equal(record_parse(buf_span(&bytes), &record), STATUS_OK);
    else
        assert_int_equal(status, STATUS_NOT_FOUND);
    buf_free(&bytes);
    return status == STATUS_OK ? stamp_ms(record.stamp) : 0;
}

static enum status list_row(void *context, struct span key, struct span record)
{
    uint16_t slot = 0;
    assert_int_equal(reserved_key_slot(key, &slot), STATUS_OK);
    buf_append_format(context, "%u=%.*s ", slot, (int)record.size, (const char *)record.data);
    return STATUS_OK;
}

static void expect_reserved(struct fixture *fixture, struct data_dir *dir, const char *expected)
{
    struct buf listing;
    buf_init(&listing, &fixture->alloc);
    assert_int_equal(cold_reserved_rows(dir->cold, &listing, list_row, NULL), STATUS_OK);
    assert_true(span_is(buf_span(&listing), expected));
    buf_free(&listing);
}

/* ---- tests ---------------------------------------------------------------------------------------------- */

static void test_recover_erased_row_is_gone_unless_a_newer_one_is_held(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    log_rows(fixture, dir, 7);
    data_dir_close(dir, true);
    dir = must_open(fixture, (struct opening){0});
    recover_into_cold(fixture, dir, 2);
    assert_int_equal(cold_time(fixture, dir, 1), 7);
    struct writing writing = writing_begin(fixture, dir);
    write_erase(&writing, 1, 7); /* held in the cold tier alone, as far as memory knows */
    write_row(&writing, 2, 8);
    write_erase(&writing, 2, 8); /* of just this version */
    write_row(&writing, 3, 9);
    write_erase(&writing, 3, 8); /* a newer one is held */
    write_erase(&writing, 4, 7);
    write_row(&writing, 4, 9); /* written again afterwards */
    write_row(&writing, 5, 8);
    write_erase(&writing, 5, 9); /* an older one is held */
    write_row(&writing, ROWS, 8);
    write_erase(&writing, ROWS, 8);
    writing_end(&writing);
    data_dir_close(dir, true);
    /* Not flushed in between: the log says the same twice. */
    for (uint16_t shards = 1; shards <= 3; shards += 2) {
        dir = must_open(fixture, (struct opening){.shards = shards});
        recover_into_cold(fixture, dir, shards);
        static const uint64_t expected[] = {7, 0, 0, 9, 9, 0, 7};
        for (unsigned number = 0; number < sizeof expected / sizeof expected[0]; number++)
            assert_int_equal(cold_time(fixture, dir, number), expected[number]);
        assert_int_equal(cold_time(fixture, dir, ROWS), 0);
        data_dir_close(dir, true);
    }
}

static void test_recover_reserved_rows_come_back_under_any_number_of_shards(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    struct writing writing = writing_begin(fixture, dir);
    write_reserved(&writing, 1, "one");
    write_reserved(&writing, 2, "two");
    write_reserved(&writing, 16383, "last");
    write_reserved(&writing, 1, "one again");
    write_reserved(&writing, 2, "");
    writing_end(&writing);
    data_dir_close(dir, true);
    dir = must_open(fixture, (struct opening){.shards = 3});
    recover_into_cold(fixture, dir, 3);
    expect_reserved(fixture, dir, "1=one again 16383=last ");
    writing = writing_begin(fixture, dir);
    write_reserved(&writing, 1, "");
    write_reserved(&writing, 5, "five");
    writing_end(&writing);
    data_dir_close(dir, true);
    dir = must_open(fixture, (struct opening){.shards = 1});
    recover_into_cold(fixture, dir, 1);
    expect_reserved(fixture, dir, "5=five 16383=last ");
    data_dir_close(dir, true);
}

/* A batch that was flushed may be lost from the log: an older erasure there must not delete what it wrote. */
static void test_recover_newer_row_in_the_cold_tier_outlives_an_erasure_in_a_torn_log(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned torn = 0; torn < 2; torn++) {
        struct data_dir *dir = must_open(fixture, (struct opening){0});
        log_rows(fixture, dir, 9);
        data_dir_close(dir, true);
        dir = must_open(fixture, (struct opening){0});
        recover_into_cold(fixture, dir, 2);
        data_dir_close(dir, true);
        char *log_path = files_join(fixture->path, "log");
        assert_int_equal(files_empty_directory(log_path, NULL), STATUS_OK);
        free(log_path);
        dir = must_open(fixture, (struct opening){0});
        struct writing writing = writing_begin(fixture, dir);
        write_erase(&writing, 1, 8);
        write_erase(&writing, 2, 9);
        writing_end(&writing);
        data_dir_close(dir, torn == 0);
        dir = must_open(fixture, (struct opening){0});
        dir->merge_cold = torn == 1;
        recover_into_cold(fixture, dir, 2);
        assert_int_equal(cold_time(fixture, dir, 1), torn == 1 ? 9 : 0);
        assert_int_equal(cold_time(fixture, dir, 2), 0);
        data_dir_close(dir, true);
    }
}

/* Flushes one reserved row, of any bytes, into the cold tier. */
static void ingest_reserved(struct data_dir *dir, struct span key)
{
    struct alloc alloc;
    struct memtable *memtable = malloc(sizeof *memtable);
    struct flush_job job;
    assert_non_null(memtable);
    alloc_init(&alloc, (size_t)1 << 20);
    struct memtable_options options = {.alloc = &alloc, .budget_bytes = (size_t)1 << 20};
    assert_int_equal(memtable_init(memtable, &options), STATUS_OK);
    struct memtable_put put = {.key = key,
                               .record = span_of_text("row"),
                               .hash = memtable_hash_reserved(memtable, key),
                               .slot = SLOTS_COUNT,
                               .sequence = 1};
    assert_int_equal(memtable_put(memtable, &put), STATUS_OK);
    assert_int_equal(memtable_freeze(memtable, &job, UINT64_MAX, 1), STATUS_OK);
    assert_int_equal(cold_ingest(dir->cold, 0, &job, NULL), STATUS_OK);
    assert_true(memtable_flush_done(memtable, &job, UINT64_MAX));
    memtable_free(memtable);
    free(memtable);
}

static void test_recover_strange_row_in_the_reserved_range_stops_the_start(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    ingest_reserved(dir, span_of("\xff\xfd\0", 3));
    data_dir_close(dir, true);
    dir = must_open(fixture, (struct opening){0});
    struct shard *shards[2] = {0};
    make_shards(dir, 2, shards);
    assert_int_equal(data_dir_recover(dir, shards, 2, &fixture->why), STATUS_CORRUPT);
    assert_true(has_text(&fixture->why, "start the version that wrote it"));
    for (uint16_t i = 0; i < 2; i++)
        shard_free(shards[i]);
    data_dir_close(dir, false);
}

/* Small rows: what a flush takes for each is a good part of the row. */
static void test_recover_memory_full_of_small_rows_flushes_all_of_them(void **state)
{
    struct fixture *fixture = *state;
    struct data_dir *dir = must_open(fixture, (struct opening){0});
    struct shard *shard = NULL;
    struct flush_job *job = NULL;
    uint64_t flushes = 0;
    uint64_t flushed = 0;
    make_shards(dir, 1, &shard);
    struct buf bytes;
    buf_init(&bytes, &fixture->alloc);
    struct record record = {.flags = RECORD_VALUE,
                            .stamp = {.time = (uint64_t)1000 << 16, .actor = 5},
                            .value = span_of_text("value")};
    record_put(&bytes, &record);
    uint32_t number = 0;
    enum status status;
    do {
        struct span key = span_of(&number, sizeof number);
        status = shard_recover_row(shard, key, buf_span(&bytes));
        number += status == STATUS_OK;
    } while (status == STATUS_OK);
    assert_int_equal(status, STATUS_OVERLOADED);
    uint64_t dirty = memtable_counters(shard_memtable(shard))->rows_dirty;
    assert_int_equal(dirty, number);
    while ((status = shard_recover_freeze(shard, &job)) == STATUS_OK) {
        flushes++;
        flushed += job->rows - job->added_count;
        shard_recover_flushed(shard);
    }
    assert_int_equal(status, STATUS_NOT_FOUND);
    assert_int_equal(memtable_counters(shard_memtable(shard))->rows_dirty, 0);
    assert_int_equal(flushed, number);
    assert_true(flushes > 1); /* or there was memory for all at once */
    buf_free(&bytes);
    shard_free(shard);
    data_dir_close(dir, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_recover_erased_row_is_gone_unless_a_newer_one_is_held),
        CASE(test_recover_reserved_rows_come_back_under_any_number_of_shards),
        CASE(test_recover_newer_row_in_the_cold_tier_outlives_an_erasure_in_a_torn_log),
        CASE(test_recover_strange_row_in_the_reserved_range_stops_the_start),
        CASE(test_recover_memory_full_of_small_rows_flushes_all_of_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
