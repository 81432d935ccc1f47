/* The data directory: who may use it, what it remembers, and how a node comes back from it.
 *
 * What this start learns about the past (a torn tail, damage, an unclean stop) is in the meta file, durably,
 * before anything is cut off, moved or served: a crash at any moment leaves a directory that says the same
 * again. */
#include "edge/data_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "edge/data_dir_log.h"
#include "edge/files.h"

/* The ring of the largest cluster takes about 1 MiB, the meta file about 2; several of each may live
 * at once. */
#define DATA_DIR_MEMORY_BYTES ((size_t)64 << 20)
#define META_FILE_BYTES_MAX ((size_t)16 << 20)

/* Table files that RocksDB keeps open. */
#define COLD_FILES_OPEN_MAX 512

static const char *const durability_names[] = {
    [DURABILITY_ALWAYS] = "always\n",
    [DURABILITY_INTERVAL] = "interval\n",
    [DURABILITY_OS] = "os\n",
};

static void data_dir_free(struct data_dir *dir)
{
    data_dir_log_close(dir);
    cold_close(dir->cold);
    if (dir->lock >= 0)
        (void)close(dir->lock);
    ring_free(dir->ring);
    meta_free(&dir->meta);
    buf_free(&dir->blob);
    free(dir->log.inherited);
    free(dir->log_path);
    free(dir->path);
    free(dir);
}

/* ---- identity ------------------------------------------------------------------------------------------- */

static enum status data_dir_lock(struct data_dir *dir, struct buf *why)
{
    char *path = files_join(dir->path, "lock");
    long holder = 0;
    enum status status = files_lock(path, &dir->lock, &holder, why);
    if (status == STATUS_BAD_REQUEST)
        buf_append_format(
            why, "another rondod (pid %ld) uses %s; stop it, or choose another directory with --data", holder,
            dir->path);
    free(path);
    return status;
}

/* A directory without a meta file must be empty: nothing that belongs to somebody else is built upon. */
static enum status data_dir_check_empty(struct data_dir *dir, struct buf *why)
{
    static const char *const allowed[] = {".", "..", "lock", "meta.tmp", "lost+found"};
    DIR *directory = opendir(dir->path);
    if (directory == NULL)
        return files_fail(why, "read", dir->path, errno);
    enum status status = STATUS_OK;
    struct dirent *entry;
    while (status == STATUS_OK && (entry = readdir(directory)) != NULL) {
        bool known = false;
        for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
            known = known || strcmp(entry->d_name, allowed[i]) == 0;
        if (known)
            continue;
        bool ours = strcmp(entry->d_name, "log") == 0 || strcmp(entry->d_name, "cold") == 0;
        status = ours ? STATUS_CORRUPT : STATUS_BAD_REQUEST;
        if (ours)
            buf_append_format(
                why,
                "%s/meta is missing although %s/%s is there: put the meta file back, or move %s aside "
                "and start with an empty directory",
                dir->path, dir->path, entry->d_name, dir->path);
        else
            buf_append_format(
                why,
                "%s holds \"%s\" and is no data directory of Rondo: choose an empty or new directory "
                "with --data",
                dir->path, entry->d_name);
    }
    (void)closedir(directory);
    return status;
}

static enum status data_dir_make_meta(struct data_dir *dir, const struct data_dir_options *options,
                                      struct buf *why)
{
    enum status status = data_dir_check_empty(dir, why);
    if (status != STATUS_OK)
        return status;
    struct meta *meta = &dir->meta;
    const char *name = options->name != NULL ? options->name : options->initial->nodes[0].name;
    meta->cluster_id = options->initial->cluster_id;
    meta->node_id = ring_node_id(span_of_text(name));
    meta->directory_id = files_random();
    meta->actor_id = files_random();
    meta->state = options->initial->node_count == 1 ? META_SERVING : META_UNPROVEN;
    struct buf ring;
    buf_init(&ring, &dir->alloc);
    ring_encode(options->initial, &ring);
    status = ring.failed ? STATUS_OVERLOADED : meta_name_set(meta, span_of_text(name));
    if (status == STATUS_OK)
        status = meta_ring_set(meta, buf_span(&ring));
    buf_free(&ring);
    dir->was_new = true;
    return status;
}

static enum status data_dir_read_meta(struct data_dir *dir, const char *path, struct buf *why)
{
    struct buf blob;
    buf_init(&blob, &dir->alloc);
    enum status status = files_read(path, META_FILE_BYTES_MAX, &blob, NULL);
    if (status == STATUS_NOT_FOUND) {
        buf_free(&blob);
        return status;
    }
    if (status == STATUS_IO_ERROR) {
        buf_clear(&blob);
        status = files_read(path, META_FILE_BYTES_MAX, &blob, why); /* for the text */
    } else if (status == STATUS_OK) {
        status = meta_decode(buf_span(&blob), &dir->meta);
        if (status == STATUS_OK)
            status = ring_decode(&dir->alloc, buf_span(&dir->meta.ring), &dir->ring);
        if (status == STATUS_WRONG_PROTOCOL)
            buf_append_format(
                why,
                "%s was written by another version of rondod: start that version, or upgrade as "
                "its release notes say",
                path);
        else if (status != STATUS_OK)
            status = STATUS_CORRUPT;
    }
    if (status == STATUS_CORRUPT || status == STATUS_TOO_LARGE) {
        status = STATUS_CORRUPT;
        buf_append_format(why,
                          "%s is damaged: put back a copy of it, or move %s aside and start with an empty "
                          "directory (the node then comes back as one that lost its data)",
                          path, dir->path);
    }
    buf_free(&blob);
    return status;
}

/* Whether the directory is what the flags say. */
static enum status data_dir_check_identity(const struct data_dir *dir, const struct data_dir_options *options,
                                           struct buf *why)
{
    if (options->name != NULL && strcmp(options->name, dir->meta.name) != 0) {
        buf_append_format(
            why,
            "%s belongs to node %s, and --name says %s: start it with --name %s, or choose another "
            "directory with --data",
            dir->path, dir->meta.name, options->name, dir->meta.name);
        return STATUS_BAD_REQUEST;
    }
    struct hash_128 wanted = options->initial->cluster_id;
    struct hash_128 held = dir->meta.cluster_id;
    if (!options->initial_given || (wanted.low == held.low && wanted.high == held.high))
        return STATUS_OK;
    buf_append_format(
        why,
        "%s belongs to another cluster than --initial-cluster describes (in the directory against "
        "the flag: ",
        dir->path);
    if (!ring_difference(dir->ring, options->initial, why))
        buf_append_text(why, "the members are the same, the cluster's id is not");
    buf_append_text(why, "): correct --initial-cluster, or choose another directory with --data");
    return STATUS_WRONG_CLUSTER;
}

static enum status data_dir_write_meta(struct data_dir *dir, struct buf *why)
{
    buf_clear(&dir->blob);
    meta_encode(&dir->meta, &dir->blob);
    if (dir->blob.failed)
        return STATUS_OVERLOADED;
    char *path = files_join(dir->path, "meta");
    enum status status = files_replace(path, buf_span(&dir->blob), why);
    free(path);
    return status;
}

/* ---- what the past means -------------------------------------------------------------------------------- */

static void data_dir_say(struct data_dir *dir, enum say_level level, struct buf *text)
{
    buf_put_u8(text, 0);
    if (dir->say != NULL && !text->failed)
        dir->say(dir->say_context, level, (const char *)text->data);
    buf_clear(text);
}

/* Whether the last run promised that what it acknowledged was on the disk. */
static bool data_dir_was_always(struct data_dir *dir, const char *path)
{
    struct buf text;
    buf_init(&text, &dir->alloc);
    bool always = files_read(path, 64, &text, NULL) == STATUS_OK &&
                  span_is(buf_span(&text), durability_names[DURABILITY_ALWAYS]);
    buf_free(&text);
    return always;
}

/* Draws a new actor where a dot or stamp could otherwise be made twice, and quarantines what may be lost
 * (DESIGN sections 3 and 6). */
static enum status data_dir_judge(struct data_dir *dir, bool was_always)
{
    const struct log_recovery_report *report = dir->report;
    struct buf text;
    buf_init(&text, &dir->alloc);
    uint32_t slots = 0;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (!slot_bitmap_test(report->quarantined, (uint16_t)slot))
            continue;
        slots++;
        enum status status = meta_quarantine_set(&dir->meta, (uint16_t)slot);
        if (status != STATUS_OK)
            return status;
    }
    uint32_t listed = report->damage_count < LOG_DAMAGES_MAX ? report->damage_count : LOG_DAMAGES_MAX;
    for (uint32_t i = 0; i < listed; i++) {
        const struct log_damage *damage = &report->damages[i];
        buf_append_format(&text, "the log is DAMAGED in %s/%012llu.log: ", dir->log_path,
                          (unsigned long long)damage->place.segment);
        log_damage_format(damage, &text);
        data_dir_say(dir, SAY_ERROR, &text);
    }
    dir->damaged = report->damage_count > 0;
    if (dir->damaged) {
        buf_append_format(
            &text,
            "%u damage(s): %u of %u slots are quarantined (reads of their keys here are refused until "
            "they are repaired), the damaged files go to %s/quarantine, this node gets a new actor id",
            report->damage_count, slots, SLOTS_COUNT, dir->path);
        data_dir_say(dir, SAY_ERROR, &text);
    }
    if (report->torn_bytes > 0) {
        buf_append_format(
            &text,
            "cutting off the end of the log at %s/%012llu.log, offset %llu: %llu bytes past it were "
            "never acknowledged",
            dir->log_path, (unsigned long long)report->end.segment, (unsigned long long)report->end.offset,
            (unsigned long long)report->torn_bytes);
        data_dir_say(dir, SAY_INFO, &text);
    }
    bool unsure = !dir->meta.clean_stop && !was_always;
    if (unsure) {
        buf_append_text(&text,
                        "the last run did not stop cleanly and its durability was not \"always\": its newest "
                        "writes may be lost here; this node gets a new actor id");
        data_dir_say(dir, SAY_WARNING, &text);
    }
    if (dir->damaged || report->torn_bytes > 0 || unsure)
        dir->meta.actor_id = files_random();
    buf_free(&text);
    return STATUS_OK;
}

/* A part of the directory that an earlier run made is gone: whatever it held is lost here, so no slot may answer
 * "not found" (DESIGN section 6). */
static enum status data_dir_miss_part(struct data_dir *dir, const char *name)
{
    char *path = files_join(dir->path, name);
    bool missing = access(path, F_OK) != 0 && errno == ENOENT;
    enum status status = STATUS_OK;
    for (uint32_t slot = 0; missing && slot < SLOTS_COUNT && status == STATUS_OK; slot++)
        status = meta_quarantine_set(&dir->meta, (uint16_t)slot);
    if (missing) {
        struct buf text;
        buf_init(&text, &dir->alloc);
        dir->meta.actor_id = files_random();
        buf_append_format(
            &text,
            "%s is MISSING: all slots are quarantined (reads of their keys here are refused until they "
            "are repaired), this node gets a new actor id; put it back if you still have it",
            path);
        data_dir_say(dir, SAY_ERROR, &text);
        buf_free(&text);
    }
    free(path);
    return status;
}

/* The parts that every run leaves behind; made before meta says that there was a run. */
static enum status data_dir_make_parts(struct data_dir *dir, struct buf *why)
{
    char *cold = files_join(dir->path, "cold");
    enum status status = files_make_directory(dir->log_path, NULL, why);
    if (status == STATUS_OK)
        status = files_make_directory(cold, NULL, why);
    if (status == STATUS_OK)
        status = files_sync_directory(dir->path, why);
    free(cold);
    return status;
}

/* Reads, judges and persists; afterwards the directory is this run's. */
static enum status data_dir_begin(struct data_dir *dir, const struct data_dir_options *options,
                                  struct buf *why)
{
    dir->identity.cluster_id = dir->meta.cluster_id;
    dir->identity.directory_id = dir->meta.directory_id;
    char *durability = files_join(dir->path, "durability");
    enum status status = STATUS_OK;
    if (!dir->was_new) {
        status = data_dir_log_scan(dir, why);
        if (status == STATUS_OK)
            status = data_dir_judge(dir, data_dir_was_always(dir, durability));
        if (status == STATUS_OK && dir->meta.shards > 0)
            status = data_dir_miss_part(dir, "log");
        if (status == STATUS_OK && dir->meta.shards > 0)
            status = data_dir_miss_part(dir, "cold");
    }
    /* What is missing is put back only once meta tells of it, or the next start would not see it. */
    bool fresh = dir->meta.shards == 0;
    if (status == STATUS_OK && fresh)
        status = data_dir_make_parts(dir, why);
    dir->meta.clean_stop = false;
    dir->meta.shards = options->shards;
    if (status == STATUS_OK)
        status = data_dir_write_meta(dir, why);
    if (status == STATUS_OK)
        status = files_replace(durability, span_of_text(durability_names[options->durability]), why);
    free(durability);
    if (status == STATUS_OK)
        status = data_dir_make_parts(dir, why);
    if (status == STATUS_OK)
        status = data_dir_log_adopt(dir, why);
    return status;
}

static enum status data_dir_open_cold(struct data_dir *dir, size_t memory_bytes, struct buf *why)
{
    char *path = files_join(dir->path, "cold");
    char *temporary_path = files_join(dir->path, "cold-tmp");
    struct cold_options options = {
        .path = path,
        .temporary_path = temporary_path,
        .memory_bytes = memory_bytes,
        .files_open_max = COLD_FILES_OPEN_MAX,
    };
    enum status status = cold_open(&options, &dir->cold, why);
    if (status == STATUS_CORRUPT)
        buf_append_format(
            why,
            "; put back a copy of %s, or move %s aside and start with an empty directory (the node "
            "then comes back as one that lost its data)",
            dir->path, dir->path);
    else if (status == STATUS_DISK_FULL)
        buf_append_text(why, "; make room there, or choose another directory with --data");
    free(path);
    free(temporary_path);
    return status;
}

enum status data_dir_open(const struct data_dir_options *options, struct data_dir **out, struct buf *why)
{
    struct data_dir *dir = calloc(1, sizeof(*dir));
    if (dir == NULL)
        return STATUS_OVERLOADED;
    alloc_init(&dir->alloc, DATA_DIR_MEMORY_BYTES);
    meta_init(&dir->meta, &dir->alloc);
    buf_init(&dir->blob, &dir->alloc);
    dir->lock = -1;
    dir->say = options->say;
    dir->say_context = options->context;
    dir->shards = options->shards;
    dir->path = files_join(options->path, "");
    dir->path[strlen(options->path)] = '\0';
    dir->log_path = files_join(options->path, "log");

    char *meta_path = files_join(dir->path, "meta");
    enum status status = files_make_directory(dir->path, NULL, why);
    /* Before the lock file is made: a directory of somebody else is left as it is. */
    if (status == STATUS_OK && access(meta_path, F_OK) != 0 && errno == ENOENT)
        status = data_dir_check_empty(dir, why);
    if (status == STATUS_OK)
        status = data_dir_lock(dir, why);
    if (status == STATUS_OK) {
        status = data_dir_read_meta(dir, meta_path, why);
        if (status == STATUS_OK)
            status = data_dir_check_identity(dir, options, why);
        else if (status == STATUS_NOT_FOUND)
            status = data_dir_make_meta(dir, options, why);
    }
    free(meta_path);
    if (status == STATUS_OK && dir->ring == NULL)
        status = ring_decode(&dir->alloc, buf_span(&dir->meta.ring), &dir->ring);
    if (status == STATUS_OK)
        status = data_dir_begin(dir, options, why);
    if (status == STATUS_OK)
        status = data_dir_open_cold(dir, options->cold_memory_bytes, why);
    if (status != STATUS_OK) {
        if (why != NULL && why->size == 0)
            buf_append_format(why, "cannot open the data directory %s: %s", dir->path, status_text(status));
        data_dir_free(dir);
        return status;
    }
    *out = dir;
    return STATUS_OK;
}

enum status data_dir_meta_write(struct data_dir *dir, struct span bytes, struct buf *why)
{
    char *path = files_join(dir->path, "meta");
    enum status status = files_replace(path, bytes, why);
    free(path);
    if (status != STATUS_OK)
        return status;
    buf_clear(&dir->blob);
    buf_append_span(&dir->blob, bytes);
    return dir->blob.failed ? STATUS_OVERLOADED : STATUS_OK;
}

/* The newest meta again, now with a clean stop. */
static void data_dir_note_clean_stop(struct data_dir *dir)
{
    struct buf why;
    buf_init(&why, &dir->alloc);
    enum status status = meta_decode(buf_span(&dir->blob), &dir->meta);
    if (status == STATUS_OK) {
        dir->meta.clean_stop = true;
        status = data_dir_write_meta(dir, &why);
    }
    if (status != STATUS_OK)
        data_dir_say(dir, SAY_WARNING, &why);
    buf_free(&why);
}

void data_dir_close(struct data_dir *dir, bool clean)
{
    if (dir == NULL)
        return;
    if (clean)
        data_dir_note_clean_stop(dir);
    data_dir_free(dir);
}
