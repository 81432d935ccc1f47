/* A simulated disk under the log's writer and recovery, and a model of what must survive: shared by the tests of the
 * log. The disk keeps, drops, tears or garbles every unsynced write when it crashes. */
#ifndef RONDO_TESTS_LOG_WORLD_H
#define RONDO_TESTS_LOG_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "model/key.h"
#include "store/log_recovery.h"
#include "store/log_writer.h"

#define SEGMENT_BYTES 12288u
#define FILE_BYTES_MAX 65536u
#define FILES_MAX 64
#define WRITES_MAX 64
#define ROWS_MAX 20000

/* ---- the disk ------------------------------------------------------------------------------------------- */

struct file {
    uint64_t number; /* 0 = free */
    size_t size;
    uint8_t *seen;    /* what a reader sees */
    uint8_t *durable; /* what survives a power loss for sure */
};

struct write {
    uint64_t segment;
    uint64_t offset;
    uint8_t *bytes;
    size_t size;
};

struct disk {
    struct file files[FILES_MAX];
    struct write writes[WRITES_MAX]; /* unsynced */
    size_t write_count;
};

static inline struct file *disk_file(struct disk *disk, uint64_t number)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (disk->files[i].number == number)
            return &disk->files[i];
    }
    return NULL;
}

static inline void disk_remove(struct disk *disk, uint64_t number)
{
    struct file *file = disk_file(disk, number);
    assert_non_null(file);
    free(file->seen);
    free(file->durable);
    *file = (struct file){0};
}

static inline void disk_create(struct disk *disk, uint64_t number, size_t size)
{
    assert_null(disk_file(disk, number));
    struct file *file = disk_file(disk, 0);
    assert_non_null(file);
    assert_true(size <= FILE_BYTES_MAX);
    *file = (struct file){.number = number,
                          .size = size,
                          .seen = calloc(1, FILE_BYTES_MAX),
                          .durable = calloc(1, FILE_BYTES_MAX)};
}

static inline void disk_sync(struct disk *disk, uint64_t number)
{
    struct file *file = disk_file(disk, number);
    assert_non_null(file);
    memcpy(file->durable, file->seen, FILE_BYTES_MAX);
    for (size_t i = disk->write_count; i-- > 0;) {
        if (disk->writes[i].segment != number)
            continue;
        free(disk->writes[i].bytes);
        disk->writes[i] = disk->writes[--disk->write_count];
    }
}

static inline void disk_write(struct disk *disk, const struct log_io *io)
{
    struct file *file = disk_file(disk, io->segment);
    assert_non_null(file);
    assert_true(io->offset + io->bytes.size <= file->size);
    memcpy(file->seen + io->offset, io->bytes.data, io->bytes.size);
    assert_true(disk->write_count < WRITES_MAX);
    struct write *write = &disk->writes[disk->write_count++];
    *write = (struct write){io->segment, io->offset, malloc(io->bytes.size), io->bytes.size};
    memcpy(write->bytes, io->bytes.data, io->bytes.size);
}

static inline void disk_perform(struct disk *disk, const struct log_io *io)
{
    switch (io->kind) {
    case LOG_IO_CREATE:
        disk_create(disk, io->segment, io->size);
        break;
    case LOG_IO_RECYCLE:
        assert_null(disk_file(disk, io->segment));
        disk_file(disk, io->segment_old)->number = io->segment;
        break;
    case LOG_IO_WRITE:
        disk_write(disk, io);
        break;
    case LOG_IO_SYNC:
        disk_sync(disk, io->segment);
        break;
    case LOG_IO_DELETE:
        disk_remove(disk, io->segment);
        break;
    }
}

/* Power loss: each 512-byte piece of each unsynced write is kept, dropped, torn or garbled, by itself. */
static inline void disk_crash(struct disk *disk, struct prng *prng, bool power_loss)
{
    uint64_t mood = prng_below(prng, 4); /* some crashes keep nearly all, some drop nearly all */
    for (size_t i = 0; i < disk->write_count; i++) {
        struct write *write = &disk->writes[i];
        struct file *file = disk_file(disk, write->segment);
        for (size_t at = 0; file != NULL && at < write->size; at += 512) {
            size_t size = write->size - at < 512 ? write->size - at : 512;
            uint64_t fate = prng_below(prng, 8);
            if (fate < mood * 2)
                memcpy(file->durable + write->offset + at, write->bytes + at, size);
            else if (fate == 6)
                memcpy(file->durable + write->offset + at, write->bytes + at, prng_below(prng, size));
            else if (fate == 7)
                file->durable[write->offset + at + prng_below(prng, size)] ^=
                    (uint8_t)(1 + prng_below(prng, 255));
        }
        free(write->bytes);
    }
    disk->write_count = 0;
    for (size_t i = 0; i < FILES_MAX; i++) {
        struct file *file = &disk->files[i];
        if (file->number == 0)
            continue;
        if (power_loss)
            memcpy(file->seen, file->durable, FILE_BYTES_MAX);
        else
            memcpy(file->durable, file->seen, FILE_BYTES_MAX);
    }
}

static inline size_t disk_list(struct disk *disk, struct log_file files[FILES_MAX])
{
    size_t count = 0;
    uint64_t last = 0;
    for (;;) {
        struct file *next = NULL;
        for (size_t i = 0; i < FILES_MAX; i++) {
            struct file *file = &disk->files[i];
            if (file->number > last && (next == NULL || file->number < next->number))
                next = file;
        }
        if (next == NULL)
            return count;
        files[count++] = (struct log_file){.number = next->number, .bytes = span_of(next->seen, next->size)};
        last = next->number;
    }
}

static inline void disk_free(struct disk *disk)
{
    for (size_t i = 0; i < disk->write_count; i++)
        free(disk->writes[i].bytes);
    for (size_t i = 0; i < FILES_MAX; i++) {
        free(disk->files[i].seen);
        free(disk->files[i].durable);
    }
}

/* ---- the world: what was appended, what must be there ------------------------------------------------------ */

enum fate {
    FATE_APPENDED = 1, /* may or may not survive */
    FATE_DURABLE,      /* must be recovered */
    FATE_COLD,         /* need not be recovered */
    FATE_LOST,         /* was not recovered once: must never come back */
};

struct row {
    enum fate fate;
    uint16_t shard;
    uint64_t sequence; /* in this life */
    uint16_t slot;
    uint32_t size;
    bool recovered;
};

struct world {
    struct prng prng;
    struct alloc alloc;
    struct disk disk;
    struct log_writer writer;
    struct log_recovery_report report;
    struct log_identity identity;
    uint16_t shards;
    bool always;
    struct row rows[ROWS_MAX];
    uint32_t row_count;
    uint64_t sequences[SHARDS_MAX];
    uint64_t flushed[SHARDS_MAX];
    uint64_t bound_appended;
    uint64_t bound_sequence[SHARDS_MAX]; /* batch of each shard that carried its last bound */
    uint64_t bound_of[SHARDS_MAX];
    uint64_t bound_durable;
    uint64_t recoveries;
    uint64_t recycled;
};

static inline struct span row_record(uint32_t id, uint32_t size, uint8_t bytes[FILE_BYTES_MAX])
{
    struct prng prng;
    prng_seed(&prng, id);
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)prng_u64(&prng);
    return span_of(bytes, size);
}

/* Every third row is a reserved one, and every third an erased one. */
static inline enum log_entry_type row_type(uint32_t id)
{
    static const enum log_entry_type types[] = {LOG_ENTRY_ROW, LOG_ENTRY_RESERVED, LOG_ENTRY_ERASE};
    return types[id % 3];
}

/* A sync mark whose target says which row it is. */
static inline struct span row_reserved_key(uint32_t id, uint16_t slot, uint8_t key[RESERVED_SYNC_KEY_BYTES])
{
    memset(key, 0, RESERVED_SYNC_KEY_BYTES);
    key[0] = (uint8_t)(RESERVED_SYNC >> 8);
    key[1] = (uint8_t)RESERVED_SYNC;
    store_u32(key + 3, id);
    key[7] = 1; /* no target is 0 */
    key[10] = (uint8_t)(slot >> 8);
    key[11] = (uint8_t)slot;
    return span_of(key, RESERVED_SYNC_KEY_BYTES);
}

static inline struct version row_version(uint32_t id)
{
    return (struct version){.value = {.time = id + 1, .actor = 3}, .override = {.time = id, .actor = 4}};
}

static inline enum status on_row(void *context, uint16_t slot, struct span key, struct span record)
{
    struct world *world = context;
    uint8_t bytes[FILE_BYTES_MAX];
    assert_int_equal(key.size, 4);
    uint32_t id = load_u32(key.data);
    assert_true(id < world->row_count && row_type(id) == LOG_ENTRY_ROW);
    struct row *row = &world->rows[id];
    assert_int_equal(slot, row->slot);
    assert_true(span_equal(record, row_record(id, row->size, bytes)));
    row->recovered = true;
    return STATUS_OK;
}

static inline enum status on_reserved(void *context, uint16_t slot, struct span key, struct span record)
{
    struct world *world = context;
    uint8_t bytes[FILE_BYTES_MAX];
    uint8_t expected[RESERVED_SYNC_KEY_BYTES];
    assert_int_equal(key.size, RESERVED_SYNC_KEY_BYTES);
    uint32_t id = load_u32(key.data + 3);
    assert_true(id < world->row_count && row_type(id) == LOG_ENTRY_RESERVED);
    struct row *row = &world->rows[id];
    assert_int_equal(slot, row->slot);
    assert_true(span_equal(key, row_reserved_key(id, slot, expected)));
    assert_true(span_equal(record, row_record(id, row->size, bytes)));
    row->recovered = true;
    return STATUS_OK;
}

static inline enum status on_erase(void *context, uint16_t slot, struct span key, struct version version)
{
    struct world *world = context;
    assert_int_equal(key.size, 4);
    uint32_t id = load_u32(key.data);
    assert_true(id < world->row_count && row_type(id) == LOG_ENTRY_ERASE);
    assert_int_equal(slot, world->rows[id].slot);
    assert_true(version_equal(version, row_version(id)));
    world->rows[id].recovered = true;
    return STATUS_OK;
}

static inline struct log_recovery_options recovery_options(struct world *world)
{
    return (struct log_recovery_options){.identity = world->identity,
                                         .row = on_row,
                                         .reserved = on_reserved,
                                         .erase = on_erase,
                                         .context = world};
}

static inline void recover(struct world *world)
{
    struct log_file files[FILES_MAX];
    size_t count = disk_list(&world->disk, files);
    for (uint32_t i = 0; i < world->row_count; i++)
        world->rows[i].recovered = false;
    struct log_recovery_options options = recovery_options(world);
    assert_int_equal(log_recover(&options, files, count, &world->report), STATUS_OK);
    world->recoveries++;
}

/* ---- a life of the node ----------------------------------------------------------------------------------- */

static inline void life_begin(struct world *world)
{
    struct log_file files[FILES_MAX];
    uint64_t inherited[FILES_MAX];
    size_t inherited_count = 0;
    const struct log_recovery_report *report = &world->report;
    size_t count = disk_list(&world->disk, files);
    for (size_t i = 0; i < count; i++) {
        if (files[i].number > report->end.segment) {
            disk_remove(&world->disk, files[i].number);
            continue;
        }
        inherited[inherited_count++] = files[i].number;
        struct file *file = disk_file(&world->disk, files[i].number);
        /* The chain of headers also stands without the cut. */
        if (file->number == report->end.segment && prng_chance(&world->prng, 1, 2)) {
            file->size = report->end.offset;
            memset(file->seen + file->size, 0, FILE_BYTES_MAX - file->size);
        }
        disk_sync(&world->disk, files[i].number);
    }
    world->shards = (uint16_t)(1 + prng_below(&world->prng, 4));
    world->always = prng_chance(&world->prng, 2, 3);
    struct log_writer_options options = {
        .alloc = &world->alloc,
        .identity = world->identity,
        .shards = world->shards,
        .segment_bytes = SEGMENT_BYTES,
        .pending_bytes_max = 30000,
        .spares_max = 2,
        .sync_always = world->always,
        .segment_next = report->segment_next,
        .batch_next = report->batch_next,
        .end = report->end,
        .bounds = report->bounds,
        .inherited = inherited,
        .inherited_count = inherited_count,
    };
    assert_int_equal(log_writer_init(&world->writer, &options), STATUS_OK);
    for (uint32_t i = 0; i < world->row_count; i++) {
        world->rows[i].sequence = LOG_SEQUENCE_INHERITED;
        world->rows[i].shard = slot_shard(world->rows[i].slot, world->shards);
    }
    for (size_t i = 0; i < SHARDS_MAX; i++) {
        world->sequences[i] = LOG_SEQUENCE_INHERITED;
        world->flushed[i] = 0;
        world->bound_sequence[i] = UINT64_MAX;
    }
}

static inline void life_append(struct world *world)
{
    uint16_t shard = (uint16_t)prng_below(&world->prng, world->shards);
    struct buf payload;
    buf_init(&payload, &world->alloc);
    struct log_append append = {.shard = shard, .sequence = world->sequences[shard] + 1};
    uint32_t first = world->row_count;
    uint64_t wanted = prng_below(&world->prng, 4);
    uint64_t size_max = prng_chance(&world->prng, 1, 40) ? 18000 : 300;
    uint8_t bytes[FILE_BYTES_MAX];
    while (wanted-- > 0 && world->row_count < ROWS_MAX) {
        uint32_t id = world->row_count++;
        uint8_t key[4];
        store_u32(key, id);
        struct row *row = &world->rows[id];
        *row = (struct row){.fate = FATE_APPENDED, .shard = shard, .sequence = append.sequence};
        row->size = (uint32_t)prng_below(&world->prng, size_max);
        do
            row->slot = (uint16_t)prng_below(&world->prng, SLOTS_COUNT);
        while (slot_shard(row->slot, world->shards) != shard);
        uint8_t reserved[RESERVED_SYNC_KEY_BYTES];
        if (row_type(id) == LOG_ENTRY_ROW)
            log_put_row(&payload, row->slot, span_of(key, 4), row_record(id, row->size, bytes));
        else if (row_type(id) == LOG_ENTRY_RESERVED)
            log_put_reserved(&payload, row->slot, row_reserved_key(id, row->slot, reserved),
                             row_record(id, row->size, bytes));
        else
            log_put_erase(&payload, row->slot, span_of(key, 4), row_version(id));
        append.entries++;
    }
    if (prng_chance(&world->prng, 1, 10)) {
        append.has_bounds = true;
        append.entries++;
        log_put_bounds(&payload, (struct hlc_bounds){.bound = world->bound_appended + 1});
    }
    append.payload = buf_span(&payload);
    enum status status = log_writer_append(&world->writer, &append);
    buf_free(&payload);
    if (status != STATUS_OK) {
        assert_int_equal(status, STATUS_OVERLOADED);
        world->row_count = first;
        return;
    }
    world->sequences[shard]++;
    if (append.has_bounds) {
        world->bound_of[shard] = ++world->bound_appended;
        world->bound_sequence[shard] = append.sequence;
    }
}

static inline void life_note_durable(struct world *world)
{
    for (uint32_t i = 0; i < world->row_count; i++) {
        struct row *row = &world->rows[i];
        if (row->fate == FATE_APPENDED && row->sequence <= log_writer_durable(&world->writer, row->shard))
            row->fate = FATE_DURABLE;
    }
    for (uint16_t s = 0; s < world->shards; s++) {
        assert_true(log_writer_durable(&world->writer, s) <= log_writer_written(&world->writer, s));
        assert_true(log_writer_written(&world->writer, s) <= world->sequences[s]);
        if (world->bound_sequence[s] <= log_writer_durable(&world->writer, s) &&
            world->bound_of[s] > world->bound_durable)
            world->bound_durable = world->bound_of[s];
    }
}

static inline void life_flush(struct world *world)
{
    uint16_t shard = (uint16_t)prng_below(&world->prng, world->shards);
    uint64_t sequence = world->flushed[shard] + prng_below(&world->prng, world->sequences[shard] + 1);
    if (sequence > log_writer_durable(&world->writer, shard))
        sequence = log_writer_durable(&world->writer, shard);
    world->flushed[shard] = sequence;
    for (uint32_t i = 0; i < world->row_count; i++) {
        struct row *row = &world->rows[i];
        if (row->fate == FATE_DURABLE && row->shard == shard && row->sequence <= sequence)
            row->fate = FATE_COLD;
    }
    log_writer_flushed(&world->writer, shard, sequence);
}

/* One step of the disk; a disk that is full for a while refuses new bytes. */
static inline bool life_io(struct world *world, bool full)
{
    struct log_io io;
    if (!log_writer_next_io(&world->writer, &io)) {
        log_writer_retry(&world->writer);
        return false;
    }
    if (full && (io.kind == LOG_IO_CREATE || io.kind == LOG_IO_WRITE)) {
        assert_int_equal(log_writer_io_done(&world->writer, STATUS_DISK_FULL), STATUS_DISK_FULL);
        assert_true(log_writer_disk_full(&world->writer));
        return true;
    }
    disk_perform(&world->disk, &io);
    world->recycled += io.kind == LOG_IO_RECYCLE;
    assert_int_equal(log_writer_io_done(&world->writer, STATUS_OK), STATUS_OK);
    life_note_durable(world);
    return true;
}

/* A crash may catch one operation at its start. */
static inline void life_crash(struct world *world)
{
    struct log_io io;
    if (prng_chance(&world->prng, 1, 2) && log_writer_next_io(&world->writer, &io) && io.kind != LOG_IO_SYNC)
        disk_perform(&world->disk, &io);
    log_writer_free(&world->writer);
    disk_crash(&world->disk, &world->prng, prng_chance(&world->prng, 3, 4));
}

static inline void life_check_recovery(struct world *world)
{
    recover(world);
    assert_int_equal(world->report.damage_count, 0);
    for (uint32_t i = 0; i < world->row_count; i++) {
        struct row *row = &world->rows[i];
        if (row->fate == FATE_DURABLE)
            assert_true(row->recovered);
        if (row->fate == FATE_LOST)
            assert_false(row->recovered);
        if (row->fate == FATE_APPENDED)
            row->fate = row->recovered ? FATE_DURABLE : FATE_LOST;
    }
    assert_true(world->report.bounds.bound >= world->bound_durable);
    assert_true(world->report.bounds.bound <= world->bound_appended);
    world->bound_durable = world->report.bounds.bound;
}

static inline void life(struct world *world)
{
    life_begin(world);
    bool full = false;
    uint64_t steps = prng_below(&world->prng, prng_chance(&world->prng, 1, 4) ? 900 : 90);
    for (uint64_t step = 0; step < steps; step++) {
        uint64_t dice = prng_below(&world->prng, 100);
        if (dice < 35)
            life_append(world);
        else if (dice < 80)
            (void)life_io(world, full);
        else if (dice < 86)
            life_flush(world);
        else if (dice < 92)
            assert_int_equal(log_writer_mark(&world->writer), STATUS_OK);
        else if (dice < 96)
            log_writer_sync(&world->writer);
        else
            full = !full && dice == 99;
    }
    life_crash(world);
}

static inline struct world *world_make(uint64_t seed)
{
    struct world *world = calloc(1, sizeof *world);
    assert_non_null(world);
    prng_seed(&world->prng, seed);
    alloc_init(&world->alloc, SIZE_MAX / 2);
    world->identity = (struct log_identity){.cluster_id = {7, seed}, .directory_id = seed * 31};
    world->report = (struct log_recovery_report){.segment_next = 1, .batch_next = 1};
    return world;
}

static inline void world_free(struct world *world)
{
    assert_int_equal(world->alloc.used_bytes, 0);
    disk_free(&world->disk);
    free(world);
}

#endif
