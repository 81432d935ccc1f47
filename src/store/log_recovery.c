/* Recovery of the log. */
#include "store/log_recovery.h"

#include <assert.h>

#include "model/key.h"

struct recovery {
    const struct log_recovery_options *options;
    struct log_file *files;
    size_t count;
    struct log_recovery_report *report;
    size_t at;               /* file of the next batch */
    uint64_t offset;         /* and its place there */
    uint64_t number;         /* of the next batch; 0 = not known: at the start, offset 0, without a header */
    bool searched;           /* proven is known */
    struct log_place proven; /* highest end that anything intact from the first bad place on names */
};

static struct log_place place_at(const struct recovery *recovery, size_t file, uint64_t offset)
{
    return (struct log_place){recovery->files[file].number, offset};
}

static uint64_t directory_id(const struct recovery *recovery)
{
    return recovery->options->identity.directory_id;
}

static void bounds_note(struct log_recovery_report *report, struct hlc_bounds bounds)
{
    if (bounds.bound > report->bounds.bound)
        report->bounds.bound = bounds.bound;
    if (bounds.future > report->bounds.future)
        report->bounds.future = bounds.future;
}

/* ---- headers -------------------------------------------------------------------------------------------- */

/* Reads every header, and learns from each where the segments before it end. */
static enum status read_headers(struct recovery *recovery)
{
    const struct log_identity *identity = &recovery->options->identity;
    for (size_t i = 0; i < recovery->count; i++) {
        struct log_file *file = &recovery->files[i];
        assert(i == 0 || recovery->files[i - 1].number < file->number);
        file->limit = file->bytes.size;
        file->next = 0;
        file->cut_off = false;
        enum status status =
            log_header_read(file->bytes, file->number, identity->directory_id, &file->header);
        if (status == STATUS_WRONG_PROTOCOL)
            return status;
        file->header_intact = status == STATUS_OK;
        if (!file->header_intact)
            continue;
        if (file->header.identity.cluster_id.low != identity->cluster_id.low ||
            file->header.identity.cluster_id.high != identity->cluster_id.high)
            return STATUS_WRONG_CLUSTER;
        /* Bounds count wherever they are found: too high does no harm, too low makes a stamp twice. */
        bounds_note(recovery->report, file->header.bounds);
        for (size_t j = i; j-- > 0;) {
            struct log_file *before = &recovery->files[j];
            struct log_place previous = file->header.previous_end;
            if (before->number < previous.segment)
                break;
            /* An earlier recovery cut off whatever lies between; a later cut overrides. */
            before->cut_off = before->number != previous.segment;
            before->limit = before->cut_off ? 0 : previous.offset;
            before->next = before->cut_off ? 0 : i;
            if (before->limit > before->bytes.size)
                before->limit = before->bytes.size;
        }
    }
    return STATUS_OK;
}

/* ---- searching ------------------------------------------------------------------------------------------ */

/* Finds the next intact batch at or after a place of one file and below its limit. */
static bool find_batch(const struct recovery *recovery, size_t file, uint64_t *offset,
                       struct log_batch *batch)
{
    const struct log_file *in = &recovery->files[file];
    if (*offset < LOG_HEADER_BYTES)
        *offset = LOG_HEADER_BYTES;
    for (; *offset < in->limit; *offset += LOG_ALIGNMENT) {
        struct log_place place = {in->number, *offset};
        if (log_batch_read(in->bytes, place, directory_id(recovery), batch) == LOG_BATCH_INTACT)
            return true;
    }
    return false;
}

static void proven_note(struct recovery *recovery, struct log_place place)
{
    if (log_place_compare(place, recovery->proven) > 0)
        recovery->proven = place;
}

/* What the rest of the log, from the first bad place on, proves to have been durable. */
static void search_proof(struct recovery *recovery)
{
    recovery->searched = true;
    uint64_t offset = recovery->offset;
    for (size_t i = recovery->at; i < recovery->count; i++, offset = 0) {
        if (i > recovery->at && recovery->files[i].header_intact && !recovery->files[i].cut_off)
            proven_note(recovery, recovery->files[i].header.previous_end);
        struct log_batch batch;
        while (find_batch(recovery, i, &offset, &batch)) {
            proven_note(recovery, batch.durable);
            offset += log_batch_bytes(batch.payload_size);
        }
    }
}

/* ---- damage --------------------------------------------------------------------------------------------- */

static void damage_add(struct recovery *recovery, const struct log_damage *damage)
{
    struct log_recovery_report *report = recovery->report;
    if (report->damage_count < LOG_DAMAGES_MAX)
        report->damages[report->damage_count] = *damage;
    report->damage_count++;
    if (damage->kind == LOG_DAMAGE_HEADER)
        return;
    for (uint16_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (damage->shards == 0 || slot_shard(slot, damage->shards) == damage->shard)
            slot_bitmap_set(report->quarantined, slot);
    }
}

/* The next readable place after the bad one: another batch, or the start of a segment whose header is intact. */
static bool resume_place(const struct recovery *recovery, size_t *file, uint64_t *offset, uint64_t *number)
{
    uint64_t from = recovery->offset;
    for (size_t i = recovery->at; i < recovery->count; i++, from = 0) {
        const struct log_file *in = &recovery->files[i];
        if (in->cut_off)
            continue;
        if (i > recovery->at && in->header_intact && in->header.batch_first >= recovery->number) {
            *file = i;
            *offset = LOG_HEADER_BYTES;
            *number = in->header.batch_first;
            return true;
        }
        struct log_batch batch;
        while (find_batch(recovery, i, &from, &batch)) {
            if (batch.number >= recovery->number) {
                *file = i;
                *offset = from;
                *number = batch.number;
                return true;
            }
            from += LOG_ALIGNMENT;
        }
    }
    return false;
}

/* A file that a header names as the one before it, and that is not there. */
static uint64_t missing_before(const struct recovery *recovery, size_t file)
{
    if (file == 0 || !recovery->files[file].header_intact)
        return 0;
    uint64_t previous = recovery->files[file].header.previous_end.segment;
    return previous > recovery->files[file - 1].number ? previous : 0;
}

/* Reports the proven damage at the current place, and goes on after it. False: nothing readable comes after. */
static bool pass_damage(struct recovery *recovery)
{
    struct log_file *in = &recovery->files[recovery->at];
    struct log_damage damage = {.kind = LOG_DAMAGE_GAP,
                                .place = place_at(recovery, recovery->at, recovery->offset)};
    struct log_batch batch;
    enum log_batch_state state = LOG_BATCH_NONE;
    if (recovery->offset < in->limit)
        state = log_batch_read(in->bytes, damage.place, directory_id(recovery), &batch);
    if (state == LOG_BATCH_PAYLOAD_BAD && batch.number == recovery->number) {
        damage.kind = LOG_DAMAGE_BATCH;
        damage.shard = batch.shard;
        damage.shards = batch.shards;
        damage.batches_lost = 1;
        damage.length = log_batch_bytes(batch.payload_size);
        if (damage.length > in->limit - recovery->offset)
            damage.length = in->limit - recovery->offset;
        damage_add(recovery, &damage);
        recovery->offset += damage.length;
        recovery->number = batch.number + 1;
        return true;
    }
    size_t file = recovery->at;
    uint64_t offset = recovery->offset;
    uint64_t number = 0;
    bool found = resume_place(recovery, &file, &offset, &number);
    damage.length = (found && file == recovery->at ? offset : in->limit) - recovery->offset;
    if (found && file != recovery->at && missing_before(recovery, file) != 0) {
        damage.kind = LOG_DAMAGE_MISSING;
        damage.place = (struct log_place){missing_before(recovery, file), 0};
        damage.length = 0;
    }
    if (found && recovery->number != 0)
        damage.batches_lost = number - recovery->number;
    /* Continuous numbers mean that only a header is lost, as does a first batch right where it belongs. */
    bool nothing_lost = number == recovery->number;
    if (recovery->number == 0)
        nothing_lost = file == recovery->at && offset == LOG_HEADER_BYTES;
    if (found && nothing_lost) {
        damage.kind = LOG_DAMAGE_HEADER;
        damage.place = place_at(recovery, file, 0);
        damage.length = LOG_HEADER_BYTES;
    }
    damage_add(recovery, &damage);
    if (!found)
        return false;
    recovery->at = file;
    recovery->offset = offset;
    recovery->number = number;
    return true;
}

/* ---- replay --------------------------------------------------------------------------------------------- */

/* Whether every entry is one that this version writes, for a slot of the batch's shard. */
static bool entries_sensible(const struct log_batch *batch)
{
    struct reader reader = reader_of(batch->payload);
    struct log_entry entry;
    uint32_t entries = 0;
    enum status status;
    while ((status = log_entry_next(&reader, &entry)) == STATUS_OK) {
        entries++;
        if (entry.type != LOG_ENTRY_BOUNDS && slot_shard(entry.slot, batch->shards) != batch->shard)
            return false;
    }
    return status == STATUS_NOT_FOUND && entries == batch->entries;
}

static enum status replay_entry(const struct log_recovery_options *options, const struct log_entry *entry)
{
    switch (entry->type) {
    case LOG_ENTRY_ROW:
        return options->row == NULL ? STATUS_OK
                                    : options->row(options->context, entry->slot, entry->key, entry->record);
    case LOG_ENTRY_RESERVED:
        return options->reserved == NULL
                   ? STATUS_OK
                   : options->reserved(options->context, entry->slot, entry->key, entry->record);
    case LOG_ENTRY_ERASE:
        return options->erase == NULL
                   ? STATUS_OK
                   : options->erase(options->context, entry->slot, entry->key, entry->version);
    case LOG_ENTRY_BOUNDS:
        break;
    }
    return STATUS_OK;
}

static enum status replay(struct recovery *recovery, const struct log_batch *batch)
{
    struct log_recovery_report *report = recovery->report;
    struct reader reader = reader_of(batch->payload);
    struct log_entry entry;
    while (log_entry_next(&reader, &entry) == STATUS_OK) {
        if (entry.type == LOG_ENTRY_BOUNDS) {
            bounds_note(report, entry.bounds);
            continue;
        }
        enum status status = replay_entry(recovery->options, &entry);
        if (status != STATUS_OK)
            return status;
        report->rows++;
    }
    report->batches++;
    return STATUS_OK;
}

/* Takes the batch at the current place if it is the expected one. */
static enum status take_batch(struct recovery *recovery, bool *taken)
{
    const struct log_file *in = &recovery->files[recovery->at];
    struct log_batch batch;
    *taken = false;
    if (recovery->number == 0 || recovery->offset >= in->limit)
        return STATUS_OK;
    struct log_place place = place_at(recovery, recovery->at, recovery->offset);
    if (log_batch_read(in->bytes, place, directory_id(recovery), &batch) != LOG_BATCH_INTACT)
        return STATUS_OK;
    if (batch.number != recovery->number)
        return STATUS_OK;
    *taken = true;
    uint64_t bytes = log_batch_bytes(batch.payload_size);
    recovery->offset += bytes;
    recovery->number = batch.number + 1;
    if (!entries_sensible(&batch)) {
        /* It was written like this, so no proof is needed that it was meant. */
        struct log_damage damage = {.kind = LOG_DAMAGE_ENTRY,
                                    .place = place,
                                    .length = bytes,
                                    .shard = batch.shard,
                                    .shards = batch.shards,
                                    .batches_lost = 1};
        damage_add(recovery, &damage);
        return STATUS_OK;
    }
    return replay(recovery, &batch);
}

/* Goes on to the segment that continues this one, if this is where it says that this one ended. */
static bool follow_chain(struct recovery *recovery)
{
    const struct log_file *in = &recovery->files[recovery->at];
    if (in->next == 0)
        return false;
    const struct log_header *header = &recovery->files[in->next].header;
    if (header->previous_end.offset != recovery->offset)
        return false;
    if (recovery->number != 0 && header->batch_first != recovery->number)
        return false;
    recovery->at = in->next;
    recovery->offset = LOG_HEADER_BYTES;
    recovery->number = header->batch_first;
    return true;
}

/* The first file that counts. Without its header nothing in it is expected, but later batches may prove it. */
static void begin(struct recovery *recovery)
{
    while (recovery->at + 1 < recovery->count && recovery->files[recovery->at].cut_off)
        recovery->at++;
    const struct log_file *first = &recovery->files[recovery->at];
    recovery->offset = first->header_intact ? LOG_HEADER_BYTES : 0;
    recovery->number = first->header_intact ? first->header.batch_first : 0;
}

/* Bytes after the end that are, or once were, more than a clean end. */
static uint64_t torn_bytes(const struct recovery *recovery, struct log_place end)
{
    static const uint8_t zeros[LOG_END_BYTES];
    uint64_t torn = 0;
    struct span bytes = recovery->files[recovery->at].bytes;
    uint64_t left = end.offset < bytes.size ? bytes.size - end.offset : 0;
    uint64_t marker = left < LOG_END_BYTES ? left : LOG_END_BYTES;
    struct log_batch batch;
    uint64_t offset = end.offset;
    bool clean = marker == 0 || memcmp(bytes.data + end.offset, zeros, marker) == 0;
    if (!clean || find_batch(recovery, recovery->at, &offset, &batch)) {
        torn = left;
        while (torn > 1 && bytes.data[end.offset + torn - 1] == 0)
            torn--;
    }
    for (size_t i = recovery->at + 1; i < recovery->count; i++) {
        offset = 0;
        if (recovery->files[i].header_intact || find_batch(recovery, i, &offset, &batch))
            torn += recovery->files[i].bytes.size;
    }
    return torn;
}

static void report_end(struct recovery *recovery)
{
    struct log_recovery_report *report = recovery->report;
    report->segment_next = recovery->files[recovery->count - 1].number + 1;
    report->batch_next = recovery->number == 0 ? 1 : recovery->number;
    report->end = place_at(recovery, recovery->at, recovery->offset);
    report->torn_bytes = torn_bytes(recovery, report->end);
}

enum status log_recover(const struct log_recovery_options *options, struct log_file *files, size_t count,
                        struct log_recovery_report *report)
{
    struct recovery recovery = {.options = options, .files = files, .count = count, .report = report};
    *report = (struct log_recovery_report){.segment_next = 1, .batch_next = 1};
    if (count == 0)
        return STATUS_OK;
    enum status status = read_headers(&recovery);
    if (status != STATUS_OK)
        return status;
    begin(&recovery);
    for (;;) {
        bool taken;
        status = take_batch(&recovery, &taken);
        if (status != STATUS_OK)
            return status;
        if (taken)
            continue;
        if (follow_chain(&recovery))
            continue;
        if (!recovery.searched)
            search_proof(&recovery);
        struct log_place here = place_at(&recovery, recovery.at, recovery.offset);
        if (log_place_compare(recovery.proven, here) <= 0 || !pass_damage(&recovery))
            break;
    }
    report_end(&recovery);
    return STATUS_OK;
}

void log_damage_format(const struct log_damage *damage, struct buf *text)
{
    const char *what = "damage";
    switch (damage->kind) {
    case LOG_DAMAGE_BATCH:
        what = "a batch does not match its checksum";
        break;
    case LOG_DAMAGE_GAP:
        what = "batches are unreadable";
        break;
    case LOG_DAMAGE_MISSING:
        what = "the segment file is missing";
        break;
    case LOG_DAMAGE_HEADER:
        what = "the segment's header is unreadable (no batch is lost)";
        break;
    case LOG_DAMAGE_ENTRY:
        what = "a batch has entries that this version does not understand";
        break;
    }
    buf_append_format(text, "log segment %llu, offset %llu, %llu bytes: %s",
                      (unsigned long long)damage->place.segment, (unsigned long long)damage->place.offset,
                      (unsigned long long)damage->length, what);
    if (damage->kind == LOG_DAMAGE_HEADER)
        return;
    if (damage->shards == 0)
        buf_append_text(text, "; every slot may have lost data");
    else
        buf_append_format(text, "; slots of shard %u of %u may have lost data", damage->shard,
                          damage->shards);
}
