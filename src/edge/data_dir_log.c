/* The recovery of the log in a data directory.
 *
 * The log is read twice. The scan decides what is torn and what is damaged, so that the meta file can say so
 * before the shards exist; the replay then merges rows into the shards. An undamaged log stays in place: its
 * segments go when a flush has put their rows into the cold tier. A damaged one is emptied right away (all
 * rows flushed) and its damaged files are moved aside, so that its damage is found once and not at every
 * start. */
#include "edge/data_dir_log.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "edge/files.h"
#include "store/flush.h"

#define READ_AHEAD_BYTES ((size_t)1 << 20)

static char *log_segment_path(const struct data_dir *dir, uint64_t number)
{
    return segment_file_path(dir->log_path, number);
}

static int log_file_compare(const void *a, const void *b)
{
    uint64_t left = ((const struct log_file *)a)->number;
    uint64_t right = ((const struct log_file *)b)->number;
    return (left > right) - (left < right);
}

/* Lists the segments, ascending. */
static enum status log_list(struct data_dir *dir, struct buf *why)
{
    DIR *directory = opendir(dir->log_path);
    if (directory == NULL)
        return errno == ENOENT ? STATUS_OK : files_fail(why, "read", dir->log_path, errno);
    size_t capacity = 0;
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        uint64_t number = segment_file_number(entry->d_name);
        if (number == 0)
            continue;
        if (dir->file_count == capacity) {
            capacity = capacity > 0 ? capacity * 2 : 64;
            struct log_file *files = realloc(dir->files, capacity * sizeof(*files));
            if (files == NULL) {
                (void)closedir(directory);
                return STATUS_OVERLOADED;
            }
            dir->files = files;
        }
        dir->files[dir->file_count++] = (struct log_file){.number = number};
    }
    (void)closedir(directory);
    if (dir->file_count > 0)
        qsort(dir->files, dir->file_count, sizeof(*dir->files), log_file_compare);
    return STATUS_OK;
}

static void log_unmap(struct log_file *file)
{
    if (file->bytes.size > 0)
        (void)munmap((void *)(uintptr_t)file->bytes.data, file->bytes.size);
    file->bytes = span_of(NULL, 0);
}

/* Maps one segment. It is read once beforehand: a bad sector is then an error with a text, not a signal. */
static enum status log_map(struct data_dir *dir, struct log_file *file, uint8_t *block, struct buf *why)
{
    char *path = log_segment_path(dir, file->number);
    int error = 0;
    struct stat stat_of = {0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0 || fstat(descriptor, &stat_of) != 0)
        error = errno;
    for (off_t offset = 0; error == 0 && offset < stat_of.st_size;) {
        ssize_t got = pread(descriptor, block, READ_AHEAD_BYTES, offset);
        if (got < 0 && errno != EINTR)
            error = errno;
        if (got == 0)
            error = EIO;
        offset += got > 0 ? got : 0;
    }
    if (error == 0 && stat_of.st_size > 0) {
        void *bytes = mmap(NULL, (size_t)stat_of.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (bytes == MAP_FAILED)
            error = errno;
        else
            file->bytes = span_of(bytes, (size_t)stat_of.st_size);
    }
    if (descriptor >= 0)
        (void)close(descriptor);
    enum status status = error != 0 ? files_fail(why, "read", path, error) : STATUS_OK;
    free(path);
    return status;
}

enum status data_dir_log_scan(struct data_dir *dir, struct buf *why)
{
    enum status status = log_list(dir, why);
    uint8_t *block = malloc(READ_AHEAD_BYTES);
    dir->report = calloc(1, sizeof(*dir->report));
    if (block == NULL || dir->report == NULL)
        status = STATUS_OVERLOADED;
    for (size_t i = 0; i < dir->file_count && status == STATUS_OK; i++)
        status = log_map(dir, &dir->files[i], block, why);
    free(block);
    if (status != STATUS_OK)
        return status;
    struct log_recovery_options options = {.identity = dir->identity};
    status = log_recover(&options, dir->files, dir->file_count, dir->report);
    if (status == STATUS_WRONG_CLUSTER)
        buf_append_format(
            why,
            "the log in %s belongs to another cluster than %s/meta: put back the files that belong "
            "together",
            dir->log_path, dir->path);
    else if (status == STATUS_WRONG_PROTOCOL)
        buf_append_format(
            why,
            "the log in %s was written by another version of rondod: start that version once and "
            "stop it cleanly",
            dir->log_path);
    return status;
}

/* Makes a segment durable, at the end of the log (at_end) cut off at size. A mapping must not reach past the
 * end of its file, so the part that stays is mapped again. */
static enum status log_keep(const struct data_dir *dir, struct log_file *file, bool at_end, uint64_t size,
                            struct buf *why)
{
    char *path = log_segment_path(dir, file->number);
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    int error = descriptor < 0 ? errno : 0;
    if (error == 0 && at_end && size < file->bytes.size) {
        log_unmap(file);
        if (ftruncate(descriptor, (off_t)size) != 0)
            error = errno;
        void *bytes =
            size > 0 && error == 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, descriptor, 0) : NULL;
        if (bytes == MAP_FAILED)
            error = errno;
        else if (bytes != NULL)
            file->bytes = span_of(bytes, (size_t)size);
    }
    if (error == 0 && fsync(descriptor) != 0)
        error = errno;
    if (descriptor >= 0)
        (void)close(descriptor);
    enum status status = error != 0 ? files_fail(why, "sync", path, error) : STATUS_OK;
    free(path);
    return status;
}

static enum status log_remove(const struct data_dir *dir, uint64_t number, struct buf *why)
{
    char *path = log_segment_path(dir, number);
    enum status status = STATUS_OK;
    if (unlink(path) != 0 && errno != ENOENT)
        status = files_fail(why, "remove", path, errno);
    free(path);
    return status;
}

enum status data_dir_log_adopt(struct data_dir *dir, struct buf *why)
{
    dir->log = (struct log_resume){.segment_next = 1, .batch_next = 1};
    if (dir->report == NULL)
        return STATUS_OK;
    const struct log_recovery_report *report = dir->report;
    dir->bounds = report->bounds;
    dir->log.segment_next = report->segment_next;
    dir->log.batch_next = report->batch_next;
    dir->log.end = report->end;
    dir->log.bounds = report->bounds;
    dir->log.inherited = calloc(dir->file_count + 1, sizeof(uint64_t));
    if (dir->log.inherited == NULL)
        return STATUS_OVERLOADED;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < dir->file_count && status == STATUS_OK; i++) {
        uint64_t number = dir->files[i].number;
        if (number <= report->end.segment)
            dir->log.inherited[dir->log.inherited_count++] = number;
        if (dir->damaged)
            status = log_keep(dir, &dir->files[i], false, 0, why); /* synced only, until its rows are saved */
        else if (number <= report->end.segment)
            status = log_keep(dir, &dir->files[i], number == report->end.segment, report->end.offset, why);
        else
            status = log_remove(dir, number, why);
    }
    return status == STATUS_OK ? files_sync_directory(dir->log_path, why) : status;
}

void data_dir_log_close(struct data_dir *dir)
{
    for (size_t i = 0; i < dir->file_count; i++)
        log_unmap(&dir->files[i]);
    free(dir->files);
    free(dir->report);
    dir->files = NULL;
    dir->file_count = 0;
    dir->report = NULL;
}

/* ---- replay --------------------------------------------------------------------------------------------- */

struct replay {
    struct data_dir *dir;
    struct shard *const *shards;
    uint16_t shards_count;
    bool trees_kept; /* the cold tier has shown one */
    struct buf cold_key;
    struct buf cold_record;
    struct buf merged;
    struct buf *why;
};

static enum status replay_no_room(const struct replay *replay)
{
    if (replay->why != NULL)
        buf_append_text(replay->why, "--memory is too small for the rows in the log: give the node more");
    return STATUS_TOO_LARGE;
}

/* Writes dirty rows of the shard to the cold tier. NOT_FOUND when there are none; TOO_LARGE when there is no memory for
 * it. */
static enum status replay_flush(struct replay *replay, uint16_t shard)
{
    struct flush_job *job = NULL;
    enum status status = shard_recover_freeze(replay->shards[shard], &job);
    if (status != STATUS_OK)
        return status == STATUS_OVERLOADED ? replay_no_room(replay) : status;
    for (;;) {
        status = cold_ingest(replay->dir->cold, shard, job, replay->why);
        if (status == STATUS_OK)
            break;
        if (status != STATUS_OVERLOADED) {
            shard_recover_flush_failed(replay->shards[shard]);
            return status;
        }
        if (replay->why != NULL)
            buf_clear(replay->why);
        struct timespec pause = {.tv_nsec = COLD_RETRY_MS * 1000000L};
        (void)nanosleep(&pause, NULL);
    }
    shard_recover_flushed(replay->shards[shard]);
    return STATUS_OK;
}

/* Does to the shard what the entry says. */
static enum status replay_do(const struct replay *replay, uint16_t shard, const struct log_entry *entry)
{
    struct shard *to = replay->shards[shard];
    if (entry->type == LOG_ENTRY_RESERVED)
        return shard_recover_reserved(to, entry->slot, entry->key, entry->record);
    if (entry->type == LOG_ENTRY_ERASE)
        return shard_recover_erase(to, entry->slot, entry->key, entry->version);
    return shard_recover_row(to, entry->key, entry->record);
}

/* Does it, flushing where the memory is full. */
static enum status replay_entry(struct replay *replay, const struct log_entry *entry)
{
    uint16_t shard = slot_shard(entry->slot, replay->shards_count);
    enum status status = replay_do(replay, shard, entry);
    while (status == STATUS_OVERLOADED) {
        status = replay_flush(replay, shard);
        if (status == STATUS_NOT_FOUND)
            return replay_no_room(replay);
        if (status == STATUS_OK)
            status = replay_do(replay, shard, entry);
    }
    return status;
}

/* What the cold tier holds of a key, in cold_record: NOT_FOUND, or an error. */
static enum status replay_read_cold(struct replay *replay, uint16_t slot, struct span key)
{
    uint8_t prefix[COLD_KEY_PREFIX_BYTES];
    cold_key_prefix(key, slot, prefix);
    buf_clear(&replay->cold_key);
    buf_clear(&replay->cold_record);
    buf_append(&replay->cold_key, prefix, sizeof(prefix));
    buf_append_span(&replay->cold_key, key);
    if (replay->cold_key.failed)
        return STATUS_OVERLOADED;
    return cold_get(replay->dir->cold, buf_span(&replay->cold_key), &replay->cold_record);
}

static enum status replay_cannot_merge(struct replay *replay, enum status status)
{
    if (replay->why != NULL)
        buf_append_format(replay->why, "cannot merge a row of the log with the cold tier in %s: %s",
                          replay->dir->path, status_text(status));
    return status == STATUS_OVERLOADED ? STATUS_IO_ERROR : status;
}

/* The cold tier may hold a newer version than the log still does: a batch that is lost here was flushed. */
static enum status replay_merge_cold(struct replay *replay, struct log_entry *entry)
{
    enum status status = replay_read_cold(replay, entry->slot, entry->key);
    if (status == STATUS_NOT_FOUND)
        return STATUS_OK;
    struct record logged;
    struct record cold;
    if (status == STATUS_OK)
        status = record_parse(entry->record, &logged);
    if (status == STATUS_OK)
        status = record_parse(buf_span(&replay->cold_record), &cold);
    if (status != STATUS_OK)
        return status;
    struct record merged = record_merge(&logged, &cold);
    buf_clear(&replay->merged);
    record_put(&replay->merged, &merged);
    entry->record = buf_span(&replay->merged);
    return replay->merged.failed ? STATUS_OVERLOADED : STATUS_OK;
}

static enum status replay_row(void *context, uint16_t slot, struct span key, struct span record)
{
    struct replay *replay = context;
    struct log_entry entry = {.type = LOG_ENTRY_ROW, .slot = slot, .key = key, .record = record};
    if (replay->dir->merge_cold) {
        enum status status = replay_merge_cold(replay, &entry);
        if (status != STATUS_OK)
            return replay_cannot_merge(replay, status);
    }
    return replay_entry(replay, &entry);
}

static enum status replay_reserved(void *context, uint16_t slot, struct span key, struct span record)
{
    struct log_entry entry = {.type = LOG_ENTRY_RESERVED, .slot = slot, .key = key, .record = record};
    return replay_entry(context, &entry);
}

static enum status replay_erase(void *context, uint16_t slot, struct span key, struct version version)
{
    struct replay *replay = context;
    struct log_entry entry = {.type = LOG_ENTRY_ERASE, .slot = slot, .key = key, .version = version};
    if (replay->dir->merge_cold) {
        /* A newer version there must not be deleted: as a row it is compared with the one that was purged. */
        enum status status = replay_read_cold(replay, slot, key);
        if (status == STATUS_OK) {
            struct log_entry row = {
                .type = LOG_ENTRY_ROW, .slot = slot, .key = key, .record = buf_span(&replay->cold_record)};
            status = replay_entry(replay, &row);
            if (status != STATUS_OK)
                return status;
        } else if (status != STATUS_NOT_FOUND) {
            return replay_cannot_merge(replay, status);
        }
    }
    return replay_entry(replay, &entry);
}

/* Hands a reserved row of the cold tier to its shard. */
static enum status replay_cold(void *context, struct span key, struct span record)
{
    struct replay *replay = context;
    uint16_t slot = 0;
    enum status status = reserved_key_slot(key, &slot);
    if (status == STATUS_OK && reserved_key_prefix(key) == RESERVED_TREE && !replay->trees_kept) {
        replay->trees_kept = true;
        for (uint16_t i = 0; i < replay->shards_count; i++)
            shard_recover_trees_kept(replay->shards[i]);
    }
    if (status == STATUS_OK)
        status = shard_recover_cold(replay->shards[slot_shard(slot, replay->shards_count)], key, record);
    if (status != STATUS_MALFORMED && status != STATUS_CORRUPT)
        return status;
    if (replay->why != NULL)
        buf_append_format(replay->why,
                          "the cold tier in %s holds a row of rondod's own that this version does not "
                          "understand: start the version that wrote it, or put back a copy of %s",
                          replay->dir->path, replay->dir->path);
    return STATUS_CORRUPT;
}

/* Whether the report names a damage in this segment. */
static bool replay_damaged(const struct log_recovery_report *report, uint64_t number)
{
    /* More than are listed: then every file is kept. */
    if (report->damage_count > LOG_DAMAGES_MAX)
        return true;
    for (uint32_t i = 0; i < report->damage_count; i++) {
        if (report->damages[i].place.segment == number)
            return true;
    }
    return false;
}

/* Every row of the damaged log goes to the cold tier; then damaged segments move aside and the others go. */
static enum status replay_retire_log(struct replay *replay)
{
    struct data_dir *dir = replay->dir;
    struct buf *why = replay->why;
    enum status status = STATUS_OK;
    for (uint16_t shard = 0; shard < replay->shards_count && status == STATUS_OK; shard++) {
        while (status == STATUS_OK)
            status = replay_flush(replay, shard);
        if (status == STATUS_NOT_FOUND)
            status = STATUS_OK;
    }
    char *quarantine = files_join(dir->path, "quarantine");
    if (status == STATUS_OK)
        status = files_make_directory(quarantine, NULL, why);
    /* An empty log is no loss from here on. */
    dir->note.log = false;
    if (status == STATUS_OK)
        status = durability_note_write(&dir->note, dir->note_path, why);
    /* The rows are safe by now: a crash from here on only makes the next start tell of the damage once
     * more. */
    for (size_t i = 0; i < dir->file_count && status == STATUS_OK; i++) {
        uint64_t number = dir->files[i].number;
        if (!replay_damaged(dir->report, number))
            continue;
        char name[64];
        (void)snprintf(name, sizeof(name), "%012llu-%lld.log", (unsigned long long)number,
                       (long long)time(NULL));
        char *path = log_segment_path(dir, number);
        char *kept = files_join(quarantine, name);
        if (rename(path, kept) != 0)
            status = files_fail(why, "move a damaged segment to", kept, errno);
        free(path);
        free(kept);
    }
    if (status == STATUS_OK)
        status = files_sync_directory(quarantine, why);
    free(quarantine);
    for (size_t i = 0; i < dir->file_count && status == STATUS_OK; i++) {
        if (!replay_damaged(dir->report, dir->files[i].number))
            status = log_remove(dir, dir->files[i].number, why);
    }
    if (status == STATUS_OK)
        status = files_sync_directory(dir->log_path, why);
    dir->log.inherited_count = 0;
    dir->log.end = (struct log_place){0};
    return status;
}

enum status data_dir_recover(struct data_dir *dir, struct shard *const *shards, uint16_t shards_count,
                             struct buf *why)
{
    assert(shards_count == dir->shards);
    if (dir->report == NULL)
        return STATUS_OK;
    struct replay replay = {.dir = dir, .shards = shards, .shards_count = shards_count, .why = why};
    struct alloc alloc;
    alloc_init(&alloc, 4 * (size_t)FRAME_BYTES_MAX);
    buf_init(&replay.cold_key, &alloc);
    buf_init(&replay.cold_record, &alloc);
    buf_init(&replay.merged, &alloc);
    struct log_recovery_options options = {
        .identity = dir->identity,
        .row = replay_row,
        .reserved = replay_reserved,
        .erase = replay_erase,
        .context = &replay,
    };
    struct log_recovery_report *report = calloc(1, sizeof(*report));
    enum status status = STATUS_OVERLOADED;
    if (report != NULL)
        status = cold_reserved_rows(dir->cold, &replay, replay_cold, why);
    if (report != NULL && status == STATUS_OK)
        status = log_recover(&options, dir->files, dir->file_count, report);
    free(report);
    if (status == STATUS_OK && dir->damaged)
        status = replay_retire_log(&replay);
    if (status != STATUS_OK && why != NULL && why->size == 0)
        buf_append_format(why, "cannot read the log and the cold tier in %s back: %s", dir->path,
                          status_text(status));
    buf_free(&replay.cold_key);
    buf_free(&replay.cold_record);
    buf_free(&replay.merged);
    data_dir_log_close(dir);
    return status;
}
