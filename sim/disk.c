/* The simulated disk. */
#include "sim/disk.h"

#include <assert.h>

#include "store/cold_page.h"

void disk_init(struct sim_disk *disk, struct alloc *alloc)
{
    *disk = (struct sim_disk){.alloc = alloc};
    buf_init(&disk->meta, alloc);
}

static void writes_clear(struct sim_disk *disk, struct disk_file *file)
{
    (void)disk;
    for (uint32_t i = 0; i < file->write_count; i++)
        buf_free(&file->writes[i].bytes);
    file->write_count = 0;
}

static void file_free(struct sim_disk *disk, struct disk_file *file)
{
    writes_clear(disk, file);
    alloc_put(disk->alloc, file->writes, file->write_capacity * sizeof *file->writes);
    buf_free(&file->now);
    buf_free(&file->synced);
    alloc_put(disk->alloc, file, sizeof *file);
}

void disk_wipe(struct sim_disk *disk)
{
    for (uint32_t i = 0; i < disk->file_count; i++)
        file_free(disk, disk->files[i]);
    disk->file_count = 0;
    buf_clear(&disk->meta);
    disk_cold_discard(disk);
}

void disk_free(struct sim_disk *disk)
{
    disk_wipe(disk);
    buf_free(&disk->meta);
    alloc_put(disk->alloc, disk->files, disk->file_capacity * sizeof(struct disk_file *));
    alloc_put(disk->alloc, disk->cold, disk->cold_capacity * sizeof *disk->cold);
}

struct disk_file *disk_file(struct sim_disk *disk, uint64_t number)
{
    for (uint32_t i = 0; i < disk->file_count; i++) {
        if (disk->files[i]->number == number)
            return disk->files[i];
    }
    return NULL;
}

/* Puts a file at its place in the order of numbers. */
static void file_insert(struct sim_disk *disk, struct disk_file *file)
{
    if (disk->file_count == disk->file_capacity) {
        uint32_t capacity = disk->file_capacity == 0 ? 8 : 2 * disk->file_capacity;
        disk->files = alloc_resize(disk->alloc, disk->files, disk->file_capacity * sizeof(struct disk_file *),
                                   capacity * sizeof(struct disk_file *));
        assert(disk->files != NULL);
        disk->file_capacity = capacity;
    }
    uint32_t at = disk->file_count++;
    for (; at > 0 && disk->files[at - 1]->number > file->number; at--)
        disk->files[at] = disk->files[at - 1];
    disk->files[at] = file;
}

void disk_copy(struct sim_disk *disk, const struct sim_disk *from)
{
    disk_wipe(disk);
    buf_append_span(&disk->meta, buf_span(&from->meta));
    for (uint32_t i = 0; i < from->file_count; i++) {
        disk_create(disk, from->files[i]->number, 0);
        struct disk_file *file = disk_file(disk, from->files[i]->number);
        buf_append_span(&file->now, buf_span(&from->files[i]->now));
        buf_append_span(&file->synced, buf_span(&from->files[i]->now));
    }
    for (uint32_t i = 0; i < from->cold_count; i++)
        disk_cold_put(disk, buf_span(&from->cold[i].key), (struct span){0}, buf_span(&from->cold[i].record));
}

static struct disk_file *file_take(struct sim_disk *disk, uint64_t number)
{
    for (uint32_t i = 0; i < disk->file_count; i++) {
        struct disk_file *file = disk->files[i];
        if (file->number != number)
            continue;
        for (; i + 1 < disk->file_count; i++)
            disk->files[i] = disk->files[i + 1];
        disk->file_count--;
        return file;
    }
    return NULL;
}

static void pad_zeros(struct buf *buf, uint64_t size)
{
    if (buf->size >= size)
        return;
    size_t before = buf->size;
    bool fits = buf_reserve(buf, size - before);
    assert(fits);
    (void)fits;
    memset(buf->data + before, 0, size - before);
    buf->size = size;
}

void disk_create(struct sim_disk *disk, uint64_t number, uint64_t size)
{
    struct disk_file *old = file_take(disk, number);
    if (old != NULL)
        file_free(disk, old);
    struct disk_file *file = alloc_get_zeroed(disk->alloc, sizeof *file);
    assert(file != NULL);
    file->number = number;
    buf_init(&file->now, disk->alloc);
    buf_init(&file->synced, disk->alloc);
    pad_zeros(&file->now, size);
    pad_zeros(&file->synced, size);
    file_insert(disk, file);
}

void disk_rename(struct sim_disk *disk, uint64_t number_old, uint64_t number)
{
    struct disk_file *file = file_take(disk, number_old);
    assert(file != NULL);
    file->number = number;
    file_insert(disk, file);
}

void disk_delete(struct sim_disk *disk, uint64_t number)
{
    struct disk_file *file = file_take(disk, number);
    if (file != NULL)
        file_free(disk, file);
}

static void bytes_put(struct buf *buf, uint64_t offset, struct span bytes)
{
    pad_zeros(buf, offset + bytes.size);
    if (bytes.size > 0)
        memcpy(buf->data + offset, bytes.data, bytes.size);
}

void disk_write(struct sim_disk *disk, uint64_t number, uint64_t offset, struct span bytes)
{
    struct disk_file *file = disk_file(disk, number);
    assert(file != NULL);
    bytes_put(&file->now, offset, bytes);
    if (file->write_count == file->write_capacity) {
        uint32_t capacity = file->write_capacity == 0 ? 4 : 2 * file->write_capacity;
        file->writes = alloc_resize(disk->alloc, file->writes, file->write_capacity * sizeof *file->writes,
                                    capacity * sizeof *file->writes);
        assert(file->writes != NULL);
        file->write_capacity = capacity;
    }
    struct disk_write *write = &file->writes[file->write_count++];
    write->offset = offset;
    buf_init(&write->bytes, disk->alloc);
    buf_append_span(&write->bytes, bytes);
}

void disk_sync(struct sim_disk *disk, uint64_t number)
{
    struct disk_file *file = disk_file(disk, number);
    assert(file != NULL);
    for (uint32_t i = 0; i < file->write_count; i++)
        bytes_put(&file->synced, file->writes[i].offset, buf_span(&file->writes[i].bytes));
    writes_clear(disk, file);
}

void disk_sync_all(struct sim_disk *disk)
{
    for (uint32_t i = 0; i < disk->file_count; i++)
        disk_sync(disk, disk->files[i]->number);
}

void disk_truncate(struct sim_disk *disk, uint64_t number, uint64_t size)
{
    struct disk_file *file = disk_file(disk, number);
    assert(file != NULL && file->write_count == 0);
    if (file->now.size > size)
        file->now.size = size;
    if (file->synced.size > size)
        file->synced.size = size;
}

/* ---- the machine stops ---------------------------------------------------------------------------------- */

static void write_survives(struct disk_file *file, const struct disk_write *write,
                           const struct disk_crash *crash, struct prng *prng)
{
    struct span bytes = buf_span(&write->bytes);
    if (bytes.size == 0 || prng_chance(prng, crash->lost, 1000000))
        return;
    if (prng_chance(prng, crash->partial, 1000000)) {
        /* Whole sectors arrive in any order: some part in the middle, most often the beginning. */
        size_t begin = prng_chance(prng, 1, 4) ? prng_below(prng, bytes.size) : 0;
        size_t size = prng_below(prng, bytes.size - begin + 1);
        bytes_put(&file->synced, write->offset + begin, span_of(bytes.data + begin, size));
        return;
    }
    bytes_put(&file->synced, write->offset, bytes);
    if (!prng_chance(prng, crash->garbled, 1000000))
        return;
    size_t begin = prng_below(prng, bytes.size);
    size_t size = 1 + prng_below(prng, bytes.size - begin);
    for (size_t i = 0; i < size; i++)
        file->synced.data[write->offset + begin + i] ^= (uint8_t)prng_u64(prng);
}

void disk_power_loss(struct sim_disk *disk, const struct disk_crash *crash, struct prng *prng)
{
    for (uint32_t i = 0; i < disk->file_count; i++) {
        struct disk_file *file = disk->files[i];
        for (uint32_t k = 0; k < file->write_count; k++)
            write_survives(file, &file->writes[k], crash, prng);
        writes_clear(disk, file);
        buf_clear(&file->now);
        buf_append_span(&file->now, buf_span(&file->synced));
    }
}

/* ---- the cold tier -------------------------------------------------------------------------------------- */

/* The first row at or above the key. */
static uint32_t cold_find(const struct sim_disk *disk, struct span key)
{
    uint32_t low = 0;
    uint32_t high = disk->cold_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (span_compare(buf_span(&disk->cold[middle].key), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void disk_cold_discard(struct sim_disk *disk)
{
    for (uint32_t i = 0; i < disk->cold_count; i++) {
        buf_free(&disk->cold[i].key);
        buf_free(&disk->cold[i].record);
    }
    disk->cold_count = 0;
    disk->cold_noted = false;
}

enum status disk_cold_get(const struct sim_disk *disk, struct span key, struct span *record)
{
    uint32_t at = cold_find(disk, key);
    if (at == disk->cold_count || !span_equal(buf_span(&disk->cold[at].key), key))
        return STATUS_NOT_FOUND;
    if (disk->cold[at].lost)
        return STATUS_CORRUPT;
    *record = buf_span(&disk->cold[at].record);
    return STATUS_OK;
}

bool disk_cold_pack(const struct sim_disk *disk, struct span first, struct span end, struct buf *rows)
{
    for (uint32_t at = cold_find(disk, first); at < disk->cold_count; at++) {
        const struct cold_row *row = &disk->cold[at];
        if (span_compare(buf_span(&row->key), end) >= 0)
            return true;
        if (row->damaged)
            return false;
        cold_page_put(rows, buf_span(&row->key), buf_span(&row->record));
    }
    return true;
}

void disk_cold_delete(struct sim_disk *disk, struct span prefix, struct span key)
{
    struct buf cold_key;
    buf_init(&cold_key, disk->alloc);
    buf_append_span(&cold_key, prefix);
    buf_append_span(&cold_key, key);
    uint32_t at = cold_find(disk, buf_span(&cold_key));
    bool found = at < disk->cold_count && span_equal(buf_span(&disk->cold[at].key), buf_span(&cold_key));
    buf_free(&cold_key);
    if (!found)
        return;
    buf_free(&disk->cold[at].key);
    buf_free(&disk->cold[at].record);
    disk->cold_count--;
    for (uint32_t i = at; i < disk->cold_count; i++)
        disk->cold[i] = disk->cold[i + 1];
}

void disk_cold_put(struct sim_disk *disk, struct span prefix, struct span key, struct span record)
{
    struct buf cold_key;
    buf_init(&cold_key, disk->alloc);
    buf_append_span(&cold_key, prefix);
    buf_append_span(&cold_key, key);
    uint32_t at = cold_find(disk, buf_span(&cold_key));
    bool found = at < disk->cold_count && span_equal(buf_span(&disk->cold[at].key), buf_span(&cold_key));
    if (found) {
        buf_free(&cold_key);
        disk->cold[at].lost = false;
        buf_clear(&disk->cold[at].record);
        buf_append_span(&disk->cold[at].record, record);
        return;
    }
    if (disk->cold_count == disk->cold_capacity) {
        uint32_t capacity = disk->cold_capacity == 0 ? 16 : 2 * disk->cold_capacity;
        disk->cold = alloc_resize(disk->alloc, disk->cold, disk->cold_capacity * sizeof *disk->cold,
                                  capacity * sizeof *disk->cold);
        assert(disk->cold != NULL);
        disk->cold_capacity = capacity;
    }
    for (uint32_t i = disk->cold_count++; i > at; i--)
        disk->cold[i] = disk->cold[i - 1];
    disk->cold[at] = (struct cold_row){.key = cold_key};
    buf_init(&disk->cold[at].record, disk->alloc);
    buf_append_span(&disk->cold[at].record, record);
}
