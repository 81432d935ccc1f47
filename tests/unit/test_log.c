/* The log: writer and recovery together over lives and crashes, and the writer alone. */
#include "log_world.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RUNS 60
#else
#define RUNS 400
#endif

static void random_lives_and_crashes_lose_nothing_durable(void **state)
{
    (void)state;
    uint64_t recycled = 0;
    uint64_t recoveries = 0;
    for (uint64_t seed = 1; seed <= RUNS; seed++) {
        struct world *world = world_make(seed);
        uint64_t lives = 1 + prng_below(&world->prng, 12);
        for (uint64_t i = 0; i < lives; i++) {
            life(world);
            life_check_recovery(world);
        }
        recycled += world->recycled;
        recoveries += world->recoveries;
        world_free(world);
    }
    print_message("%llu recoveries, %llu segments recycled\n", (unsigned long long)recoveries,
                  (unsigned long long)recycled);
    assert_true(recycled > RUNS / 10);
}

/* ---- single situations -------------------------------------------------------------------------------------- */

static void nothing_is_written_or_durable_before_its_io_is_done(void **state)
{
    (void)state;
    struct world *world = world_make(11);
    struct log_writer_options options = {.alloc = &world->alloc,
                                         .shards = 1,
                                         .segment_bytes = SEGMENT_BYTES,
                                         .pending_bytes_max = 1000,
                                         .sync_always = true,
                                         .segment_next = 1,
                                         .batch_next = 1};
    struct log_writer *writer = &world->writer;
    assert_int_equal(log_writer_init(writer, &options), STATUS_OK);
    struct log_append append = {.sequence = 2, .payload = span_of_text("")};
    struct log_io io;
    assert_int_equal(log_writer_append(writer, &append), STATUS_OK);
    assert_true(log_writer_next_io(writer, &io));
    assert_int_equal(io.kind, LOG_IO_CREATE);
    assert_int_equal(log_writer_io_done(writer, STATUS_DISK_FULL), STATUS_DISK_FULL);
    assert_false(log_writer_next_io(writer, &io));
    assert_int_equal(log_writer_written(writer, 0), LOG_SEQUENCE_INHERITED);
    log_writer_retry(writer);
    assert_true(log_writer_next_io(writer, &io));
    assert_int_equal(io.kind, LOG_IO_CREATE);
    assert_int_equal(log_writer_io_done(writer, STATUS_OK), STATUS_OK);
    assert_true(log_writer_next_io(writer, &io));
    assert_int_equal(io.kind, LOG_IO_WRITE);
    append.sequence = 3; /* comes during the write: shares the next one */
    assert_int_equal(log_writer_append(writer, &append), STATUS_OK);
    assert_false(log_writer_next_io(writer, &io));
    assert_int_equal(log_writer_written(writer, 0), LOG_SEQUENCE_INHERITED);
    assert_int_equal(log_writer_io_done(writer, STATUS_OK), STATUS_OK);
    assert_int_equal(log_writer_written(writer, 0), 2);
    assert_int_equal(log_writer_durable(writer, 0), LOG_SEQUENCE_INHERITED);
    assert_true(log_writer_next_io(writer, &io));
    assert_int_equal(io.kind, LOG_IO_SYNC);
    assert_int_equal(log_writer_io_done(writer, STATUS_OK), STATUS_OK);
    assert_int_equal(log_writer_durable(writer, 0), 2);
    assert_true(log_writer_next_io(writer, &io));
    assert_int_equal(io.kind, LOG_IO_WRITE);
    assert_int_equal(log_writer_io_done(writer, STATUS_OK), STATUS_OK);
    assert_true(log_writer_next_io(writer, &io));
    assert_int_equal(io.kind, LOG_IO_SYNC);
    assert_int_equal(log_writer_io_done(writer, STATUS_IO_ERROR), STATUS_IO_ERROR);
    assert_int_equal(log_writer_durable(writer, 0), 2);
    log_writer_free(writer);
    world_free(world);
}

static void a_marker_is_written_once_and_only_when_idle(void **state)
{
    (void)state;
    struct world *world = world_make(14);
    struct log_io io;
    life_begin(world);
    world->writer.sync_always = true;
    assert_int_equal(log_writer_mark(&world->writer), STATUS_OK);
    assert_false(log_writer_next_io(&world->writer, &io)); /* an empty log has nothing to name */
    life_append(world);
    assert_int_equal(log_writer_mark(&world->writer), STATUS_OK);
    while (life_io(world, false))
        continue;
    recover(world);
    uint64_t batches = world->report.batches;
    assert_int_equal(batches, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(log_writer_mark(&world->writer), STATUS_OK);
        while (life_io(world, false))
            continue;
    }
    recover(world);
    assert_int_equal(world->report.batches, batches + 1);
    log_writer_free(&world->writer);
    world_free(world);
}

static void too_much_pending_is_overloaded_and_too_large_is_said(void **state)
{
    (void)state;
    struct world *world = world_make(12);
    life_begin(world);
    uint8_t bytes[8192] = {0};
    struct log_append append = {.sequence = 1, .payload = span_of(bytes, sizeof bytes)};
    enum status status = STATUS_OK;
    while (status == STATUS_OK) {
        append.sequence++;
        status = log_writer_append(&world->writer, &append);
    }
    assert_int_equal(status, STATUS_OVERLOADED);
    assert_true(append.sequence > 3);
    append.payload.size = (size_t)LOG_PAYLOAD_BYTES_MAX + 1;
    assert_int_equal(log_writer_append(&world->writer, &append), STATUS_TOO_LARGE);
    log_writer_free(&world->writer);
    world_free(world);
}

static struct reader reader_at(const struct buf *payload, size_t from)
{
    return reader_of(span_of(payload->data + from, payload->size - from));
}

static void entries_that_nobody_writes_are_malformed(void **state)
{
    (void)state;
    struct alloc alloc;
    struct buf payload;
    struct log_entry entry;
    struct version version = {.value = {7, 8}, .override = {9, 10}};
    struct span floor = span_of("\xff\xfc\0\x4d", 4);
    size_t ends[5] = {0};
    alloc_init(&alloc, 1u << 20);
    buf_init(&payload, &alloc);
    log_put_row(&payload, 77, span_of_text("key"), span_of_text("record"));
    ends[0] = payload.size;
    log_put_bounds(&payload, (struct hlc_bounds){5, 6});
    ends[1] = payload.size;
    log_put_reserved(&payload, 77, floor, span_of_text("row"));
    ends[2] = payload.size;
    log_put_reserved(&payload, 77, floor, span_of_text(""));
    ends[3] = payload.size;
    log_put_erase(&payload, 77, span_of_text("key"), version);
    ends[4] = payload.size;
    assert_int_equal(ends[0], LOG_ROW_OVERHEAD_BYTES + 9);
    assert_int_equal(ends[4] - ends[3], LOG_ERASE_OVERHEAD_BYTES + 3);
    struct reader reader = reader_at(&payload, 0);
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_OK);
    assert_true(entry.type == LOG_ENTRY_ROW && entry.slot == 77 && span_is(entry.record, "record"));
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_OK);
    assert_true(entry.type == LOG_ENTRY_BOUNDS && entry.bounds.bound == 5 && entry.bounds.future == 6);
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_OK);
    assert_true(entry.type == LOG_ENTRY_RESERVED && entry.slot == 77 && span_equal(entry.key, floor));
    assert_true(span_is(entry.record, "row"));
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_OK);
    assert_true(entry.type == LOG_ENTRY_RESERVED && entry.record.size == 0);
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_OK);
    assert_true(entry.type == LOG_ENTRY_ERASE && entry.slot == 77 && span_is(entry.key, "key"));
    assert_true(version_equal(entry.version, version));
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_NOT_FOUND);
    for (size_t size = 1; size < payload.size; size++) {
        reader = reader_of(span_of(payload.data, size));
        enum status status;
        while ((status = log_entry_next(&reader, &entry)) == STATUS_OK)
            continue;
        bool whole = false;
        for (size_t i = 0; i < 5; i++)
            whole = whole || size == ends[i];
        assert_int_equal(status, whole ? STATUS_NOT_FOUND : STATUS_MALFORMED);
    }
    payload.data[0] = 99;
    reader = reader_at(&payload, 0);
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_MALFORMED);
    /* A reserved key of another slot than the entry's, and one that is not reserved. */
    payload.data[ends[1] + 8] = 0x4e;
    reader = reader_at(&payload, ends[1]);
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_MALFORMED);
    payload.data[ends[1] + 8] = 0x4d;
    payload.data[ends[1] + 6] = 0xfb;
    reader = reader_at(&payload, ends[1]);
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_MALFORMED);
    /* The version of nothing. */
    memset(payload.data + ends[4] - VERSION_BYTES, 0, VERSION_BYTES);
    reader = reader_at(&payload, ends[3]);
    assert_int_equal(log_entry_next(&reader, &entry), STATUS_MALFORMED);
    buf_free(&payload);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_that_nobody_writes_are_malformed),
        cmocka_unit_test(nothing_is_written_or_durable_before_its_io_is_done),
        cmocka_unit_test(a_marker_is_written_once_and_only_when_idle),
        cmocka_unit_test(too_much_pending_is_overloaded_and_too_large_is_said),
        cmocka_unit_test(random_lives_and_crashes_lose_nothing_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
