/* Log recovery on arbitrary bytes. The first byte chooses: the rest is one raw segment file; or a valid log of a few
 * segments is written first and the rest says which of its bytes change and where files are cut off.
 * Recovery must end, stay in bounds and keep its promises: nothing but what was written is replayed, and whatever
 * is missing before the last named end is quarantined. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/key.h"
#include "store/log_recovery.h"
#include "store/log_writer.h"

#define SEGMENT_BYTES (2u * LOG_HEADER_BYTES)
#define FILES_MAX 8
#define ROWS 24
#define SHARDS 2

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct log_on_disk {
    uint8_t bytes[FILES_MAX][SEGMENT_BYTES];
    size_t count;
    bool replayed[ROWS];
};

static const struct log_identity identity = {.cluster_id = {1, 2}, .directory_id = 3};

static uint16_t slot_of_row(uint8_t row)
{
    return (uint16_t)(row * 613u);
}

static size_t size_of_row(uint8_t row)
{
    return 200u + row * 37u;
}

static enum log_entry_type type_of_row(uint8_t row)
{
    return row % 4 == 1 ? LOG_ENTRY_RESERVED : row % 4 == 2 ? LOG_ENTRY_ERASE : LOG_ENTRY_ROW;
}

static enum status on_row(void *context, uint16_t slot, struct span key, struct span record)
{
    struct log_on_disk *disk = context;
    assert(key.size == 1 && key.data[0] < ROWS);
    assert(slot == slot_of_row(key.data[0]) && type_of_row(key.data[0]) == LOG_ENTRY_ROW);
    assert(record.size == size_of_row(key.data[0]));
    for (size_t i = 0; i < record.size; i++)
        assert(record.data[i] == key.data[0]);
    disk->replayed[key.data[0]] = true;
    return STATUS_OK;
}

/* A slot's Merkle tree: the rows' slots are all different. */
static enum status on_reserved(void *context, uint16_t slot, struct span key, struct span record)
{
    struct log_on_disk *disk = context;
    uint16_t named;
    assert(reserved_key_slot(key, &named) == STATUS_OK && named == slot);
    assert(record.size > 0 && record.data[0] < ROWS);
    uint8_t row = record.data[0];
    assert(type_of_row(row) == LOG_ENTRY_RESERVED && slot == slot_of_row(row));
    assert(record.size == size_of_row(row));
    disk->replayed[row] = true;
    return STATUS_OK;
}

static enum status on_erase(void *context, uint16_t slot, struct span key, struct version version)
{
    struct log_on_disk *disk = context;
    assert(key.size == 1 && key.data[0] < ROWS && type_of_row(key.data[0]) == LOG_ENTRY_ERASE);
    assert(slot == slot_of_row(key.data[0]));
    assert(version.value.time == key.data[0] && version.override.actor == slot);
    disk->replayed[key.data[0]] = true;
    return STATUS_OK;
}

static enum status on_any_reserved(void *context, uint16_t slot, struct span key, struct span record)
{
    uint64_t *sum = context;
    uint16_t named;
    assert(reserved_key_slot(key, &named) == STATUS_OK && named == slot);
    *sum += record.size > 0 ? record.data[record.size - 1] : 0;
    return STATUS_OK;
}

static enum status on_any_erase(void *context, uint16_t slot, struct span key, struct version version)
{
    uint64_t *sum = context;
    *sum += slot + key.size + version.value.time;
    return STATUS_OK;
}

static enum status on_any_row(void *context, uint16_t slot, struct span key, struct span record)
{
    uint64_t *sum = context;
    *sum += slot;
    for (size_t i = 0; i < key.size; i++)
        *sum += key.data[i];
    for (size_t i = 0; i < record.size; i++)
        *sum += record.data[i];
    return STATUS_OK;
}

static void perform(struct log_writer *writer, struct log_on_disk *disk)
{
    struct log_io io;
    while (log_writer_next_io(writer, &io)) {
        assert(io.segment <= FILES_MAX);
        if (io.kind == LOG_IO_CREATE)
            disk->count = io.segment;
        if (io.kind == LOG_IO_WRITE)
            memcpy(disk->bytes[io.segment - 1] + io.offset, io.bytes.data, io.bytes.size);
        enum status status = log_writer_io_done(writer, STATUS_OK);
        assert(status == STATUS_OK);
    }
}

static void put_row(struct buf *payload, uint8_t row, struct span record)
{
    uint16_t slot = slot_of_row(row);
    uint8_t key[RESERVED_SLOT_KEY_BYTES];
    struct version version = {.value = {.time = row}, .override = {.time = 1, .actor = slot}};
    reserved_slot_key(RESERVED_TREE, slot, key);
    if (type_of_row(row) == LOG_ENTRY_ROW)
        log_put_row(payload, slot, span_of(&row, 1), record);
    else if (type_of_row(row) == LOG_ENTRY_RESERVED)
        log_put_reserved(payload, slot, span_of(key, sizeof key), record);
    else
        log_put_erase(payload, slot, span_of(&row, 1), version);
}

/* Twenty-four rows of all kinds, one batch each, two shards, every end but the last named. */
static void write_log(struct log_on_disk *disk)
{
    struct alloc alloc;
    struct log_writer writer;
    alloc_init(&alloc, (size_t)1 << 20);
    struct log_writer_options options = {.alloc = &alloc,
                                         .identity = identity,
                                         .shards = SHARDS,
                                         .segment_bytes = SEGMENT_BYTES,
                                         .pending_bytes_max = SEGMENT_BYTES,
                                         .sync_always = true,
                                         .segment_next = 1,
                                         .batch_next = 1};
    enum status status = log_writer_init(&writer, &options);
    assert(status == STATUS_OK);
    for (uint8_t row = 0; row < ROWS; row++) {
        uint8_t record[2048];
        memset(record, row, sizeof record);
        struct buf payload;
        buf_init(&payload, &alloc);
        put_row(&payload, row, span_of(record, size_of_row(row)));
        struct log_append append = {.shard = slot_shard(slot_of_row(row), SHARDS),
                                    .sequence = LOG_SEQUENCE_INHERITED + 1u + row,
                                    .entries = 1,
                                    .payload = buf_span(&payload)};
        status = log_writer_append(&writer, &append);
        assert(status == STATUS_OK);
        buf_free(&payload);
        perform(&writer, disk);
    }
    status = log_writer_mark(&writer);
    assert(status == STATUS_OK);
    perform(&writer, disk);
    log_writer_free(&writer);
    assert(alloc.used_bytes == 0);
}

static void fuzz_raw(struct span bytes)
{
    uint64_t sum = 0;
    struct log_recovery_options options = {.identity = identity,
                                           .row = on_any_row,
                                           .reserved = on_any_reserved,
                                           .erase = on_any_erase,
                                           .context = &sum};
    struct log_file file = {.number = 1, .bytes = bytes};
    struct log_recovery_report report;
    (void)log_recover(&options, &file, 1, &report);
}

/* Each change is five bytes: file, offset (2), kind, value. */
static void fuzz_changed(struct span changes)
{
    struct log_on_disk *disk = calloc(1, sizeof *disk);
    struct log_file files[FILES_MAX];
    struct log_recovery_report report;
    struct log_recovery_options options = {
        .identity = identity, .row = on_row, .reserved = on_reserved, .erase = on_erase, .context = disk};
    assert(disk != NULL);
    write_log(disk);
    for (size_t i = 0; i < disk->count; i++)
        files[i] = (struct log_file){.number = i + 1, .bytes = span_of(disk->bytes[i], SEGMENT_BYTES)};
    enum status status = log_recover(&options, files, disk->count, &report);
    assert(status == STATUS_OK && report.damage_count == 0 && report.rows == ROWS && report.torn_bytes == 0);
    memset(disk->replayed, 0, sizeof disk->replayed);
    struct reader reader = reader_of(changes);
    bool marker_hit = false;
    while (reader_left(&reader) >= 5) {
        size_t file = reader_u8(&reader) % disk->count;
        size_t at = reader_u16(&reader) % SEGMENT_BYTES;
        uint8_t kind = reader_u8(&reader);
        uint8_t value = reader_u8(&reader);
        bool last = file + 1 == disk->count;
        if (kind < 4) {
            files[file].bytes.size = at; /* cut off */
            marker_hit = marker_hit || last;
        } else {
            disk->bytes[file][at] ^= value;
            marker_hit = marker_hit || (last && at + LOG_BATCH_HEADER_BYTES >= report.end.offset);
        }
    }
    status = log_recover(&options, files, disk->count, &report);
    assert(status == STATUS_OK);
    for (uint8_t row = 0; row < ROWS; row++) {
        /* With the marker goes the proof for what it alone named. */
        if (!disk->replayed[row] && !marker_hit)
            assert(slot_bitmap_test(report.quarantined, slot_of_row(row)));
    }
    assert(report.rows <= ROWS);
    free(disk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct span rest = span_of(data + 1, size - 1);
    if (data[0] % 4 == 0)
        fuzz_raw(rest);
    else
        fuzz_changed(rest);
    return 0;
}
