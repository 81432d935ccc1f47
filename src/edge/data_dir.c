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

static void data_dir_free(struct data_dir *dir)
{
    data_dir_log_close(dir);
    cold_close(dir->cold);
    if (dir->lock >= 0)
        (void)close(dir->lock);
    cold_damage_free(&dir->cold_damage);
    ring_free(dir->ring);
    meta_free(&dir->meta);
    buf_free(&dir->blob);
    free(dir->log.inherited);
    free(dir->note_path);
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

static enum status data_dir_quarantine_all(struct data_dir *dir)
{
    enum status status = STATUS_OK;
    for (uint32_t slot = 0; slot < SLOTS_COUNT && status == STATUS_OK; slot++)
        status = meta_quarantine_set(&dir->meta, (uint16_t)slot);
    return status;
}

/* The last run was ended in the middle of its work and had not promised that its writes were on the disk. Those of a
 * process that died are still with the system; those of a machine that died may be gone. */
static enum status data_dir_judge_unsure(struct data_dir *dir, const struct durability_note *last,
                                         struct buf *text)
{
    struct durability_note now;
    durability_note_boot(&now);
    if (durability_note_same_boot(last, &now)) {
        buf_append_text(
            text, "the last run did not stop cleanly and its durability was not \"always\": what it was "
                  "about to write is lost here; this node gets a new actor id");
        data_dir_say(dir, SAY_WARNING, text);
        return STATUS_OK;
    }
    if (dir->ring->node_count == 1) {
        /* Nobody could repair it, and refusing every read for ever would help nobody. */
        buf_append_text(
            text, "the machine went down while rondod ran, and its durability was not \"always\": the newest "
                  "acknowledged writes may be LOST; this node gets a new actor id");
        data_dir_say(dir, SAY_ERROR, text);
        return STATUS_OK;
    }
    buf_append_text(
        text, "the machine went down while rondod ran, and its durability was not \"always\": acknowledged "
              "writes may be LOST here; all slots are quarantined (reads of their keys here are refused "
              "until they are repaired), this node gets a new actor id");
    data_dir_say(dir, SAY_ERROR, text);
    return data_dir_quarantine_all(dir);
}

/* Draws a new actor where a dot or stamp could otherwise be made twice, and quarantines what may be lost
 * (DESIGN sections 3 and 6). */
static enum status data_dir_judge(struct data_dir *dir, const struct durability_note *last)
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
    enum status status = STATUS_OK;
    bool unsure = !dir->meta.clean_stop && last->mode != DURABILITY_ALWAYS;
    if (unsure)
        status = data_dir_judge_unsure(dir, last, &text);
    /* Then a batch that is missing here may have been flushed before it was lost. */
    dir->merge_cold = dir->damaged || report->torn_bytes > 0 || unsure;
    if (dir->merge_cold)
        dir->meta.actor_id = files_random();
    buf_free(&text);
    return status;
}

/* Whether there is such a file or directory. Any doubt counts as yes: opening it will tell. */
static bool data_dir_has(const struct data_dir *dir, const char *name)
{
    char *path = files_join(dir->path, name);
    bool has = access(path, F_OK) == 0 || errno != ENOENT;
    free(path);
    return has;
}

/* RocksDB finds its files by CURRENT: without it, it makes a new database and removes what it finds of the old. */
static bool data_dir_cold_headless(const struct data_dir *dir)
{
    return dir->note.cold && data_dir_has(dir, "cold") && !data_dir_has(dir, "cold/CURRENT");
}

/* What an earlier run found damaged in the cold tier would be met again and again: the cold tier is given up, and built
 * anew from the other replicas. */
static enum status data_dir_judge_cold(struct data_dir *dir)
{
    struct buf text;
    if (!cold_damage_noted(&dir->cold_damage))
        return STATUS_OK;
    buf_init(&text, &dir->alloc);
    if (dir->cold_damage.alone)
        buf_append_format(
            &text,
            "%s/cold is DAMAGED, and it cannot be rebuilt: no other node has a replica; what can be read is "
            "served, the rest answers errors",
            dir->path);
    else
        buf_append_format(
            &text,
            "%s/cold is DAMAGED, as the last run found: it is deleted and rebuilt from the other replicas; "
            "all slots are quarantined until then, this node gets a new actor id",
            dir->path);
    data_dir_say(dir, SAY_ERROR, &text);
    buf_free(&text);
    if (dir->cold_damage.alone)
        return STATUS_OK;
    dir->discard_cold = true;
    dir->meta.actor_id = files_random();
    return data_dir_quarantine_all(dir);
}

/* A part of the directory that an earlier run made is gone: whatever it held is lost here, so no slot may answer
 * "not found" (DESIGN section 6). */
static enum status data_dir_judge_parts(struct data_dir *dir)
{
    const struct {
        const char *name;
        const char *what;
        bool lost;
    } parts[] = {
        {"log", "is MISSING", !data_dir_has(dir, "log")},
        {"log", "has LOST its segments", data_dir_has(dir, "log") && dir->note.log && dir->file_count == 0},
        {"cold", "is MISSING", !data_dir_has(dir, "cold")},
        {"cold", "has LOST its file CURRENT (what is left of it goes to quarantine/)",
         data_dir_cold_headless(dir)},
    };
    enum status status = STATUS_OK;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]) && status == STATUS_OK; i++) {
        if (!parts[i].lost)
            continue;
        struct buf text;
        buf_init(&text, &dir->alloc);
        buf_append_format(
            &text,
            "%s/%s %s: all slots are quarantined (reads of their keys here are refused until they are "
            "repaired), this node gets a new actor id; put it back if you still have it",
            dir->path, parts[i].name, parts[i].what);
        data_dir_say(dir, SAY_ERROR, &text);
        buf_free(&text);
        dir->meta.actor_id = files_random();
        status = data_dir_quarantine_all(dir);
    }
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

static enum status data_dir_write_note(struct data_dir *dir, struct buf *why)
{
    return durability_note_write(&dir->note, dir->note_path, why);
}

/* A directory in which nothing has run. Meta comes first, so that a crash does not leave parts without it, and
 * says "ran" (its count of shards) last. */
static enum status data_dir_begin_first(struct data_dir *dir, struct buf *why)
{
    enum status status = data_dir_write_meta(dir, why);
    if (status == STATUS_OK)
        status = data_dir_make_parts(dir, why);
    if (status == STATUS_OK)
        status = data_dir_write_note(dir, why);
    return status;
}

/* Reads, judges and persists; afterwards the directory is this run's. */
static enum status data_dir_begin(struct data_dir *dir, const struct data_dir_options *options,
                                  struct buf *why)
{
    dir->identity.cluster_id = dir->meta.cluster_id;
    dir->identity.directory_id = dir->meta.directory_id;
    dir->mode = options->durability;
    dir->cold_damage.alone = ring_replica_count(dir->ring) == 1;
    bool headless = false;
    enum status status = STATUS_OK;
    if (dir->meta.shards == 0) {
        dir->note.mode = DURABILITY_ALWAYS;
        status = data_dir_begin_first(dir, why);
    } else {
        durability_note_read(&dir->note, dir->note_path);
        headless = data_dir_cold_headless(dir);
        status = data_dir_log_scan(dir, why);
        if (status == STATUS_OK)
            status = data_dir_judge(dir, &dir->note);
        if (status == STATUS_OK)
            status = data_dir_judge_parts(dir);
        if (status == STATUS_OK)
            status = data_dir_judge_cold(dir);
    }
    /* What is missing is put back only once meta tells of it, or the next start would not see it. */
    dir->meta.clean_stop = false;
    dir->meta.shards = options->shards;
    run_begin(&dir->meta.runs, files_random());
    if (status == STATUS_OK)
        status = data_dir_write_meta(dir, why);
    if (status == STATUS_OK && dir->discard_cold)
        status = cold_damage_discard(&dir->cold_damage, why);
    else if (status == STATUS_OK && headless)
        status = cold_damage_retire(&dir->cold_damage, why);
    if (status == STATUS_OK)
        status = data_dir_make_parts(dir, why);
    if (status == STATUS_OK)
        status = data_dir_log_adopt(dir, why);
    return status;
}

/* All that is here is on the disk now, so until the log goes on the strongest promise holds. */
static enum status data_dir_note_start(struct data_dir *dir, struct buf *why)
{
    dir->note.mode = DURABILITY_ALWAYS;
    dir->note.log = dir->log.inherited_count > 0;
    dir->note.cold = true;
    durability_note_boot(&dir->note);
    return data_dir_write_note(dir, why);
}

enum status data_dir_log_begun(struct data_dir *dir, struct buf *why)
{
    struct durability_note before = dir->note;
    if (before.log && before.mode == dir->mode)
        return STATUS_OK;
    dir->note.log = true;
    dir->note.mode = dir->mode;
    enum status status = data_dir_write_note(dir, why);
    if (status != STATUS_OK)
        dir->note = before;
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
        .context = &dir->cold_damage,
        .damaged = cold_damage_found,
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
    dir->note_path = files_join(options->path, "durability");
    cold_damage_init(&dir->cold_damage, options->path);
    dir->cold_damage.say = options->say;
    dir->cold_damage.context = options->context;

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
    if (status == STATUS_OK)
        status = data_dir_note_start(dir, why);
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

/* The newest meta again, now with a clean stop. The log's last sync covers every mode: a crash between the two files
 * leaves a run that has lost nothing. */
static void data_dir_note_clean_stop(struct data_dir *dir)
{
    struct buf why;
    buf_init(&why, &dir->alloc);
    enum status status = meta_decode(buf_span(&dir->blob), &dir->meta);
    dir->note.mode = DURABILITY_ALWAYS;
    if (status == STATUS_OK)
        status = data_dir_write_note(dir, &why);
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
