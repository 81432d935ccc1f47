/* The log writer. */
#include "store/log_writer.h"

#include <assert.h>

/* A group's memory above this is given back after its write. */
#define GROUP_BYTES_KEPT (4u << 20)

/* Oversized segments are whole file system blocks. */
#define SEGMENT_ROUNDING 4096u

static struct log_writer_group *group_in_flight(struct log_writer *writer)
{
    return &writer->groups[writer->group_writing];
}

static struct log_writer_group *group_appending(struct log_writer *writer)
{
    return &writer->groups[1 - writer->group_writing];
}

static struct log_place place_max(struct log_place a, struct log_place b)
{
    return log_place_compare(a, b) >= 0 ? a : b;
}

/* ---- segments ------------------------------------------------------------------------------------------- */

static bool segments_reserve(struct log_writer *writer)
{
    if (writer->segment_count < writer->segment_capacity)
        return true;
    uint32_t capacity = writer->segment_capacity == 0 ? 8 : writer->segment_capacity * 2;
    struct log_writer_segment *segments =
        alloc_resize(writer->alloc, writer->segments, writer->segment_capacity * sizeof *segments,
                     capacity * sizeof *segments);
    if (segments == NULL)
        return false;
    writer->segments = segments;
    writer->segment_capacity = capacity;
    return true;
}

static void segments_add(struct log_writer *writer, uint64_t number, uint64_t bytes, uint64_t sequence)
{
    assert(writer->segment_count < writer->segment_capacity);
    struct log_writer_segment *segment = &writer->segments[writer->segment_count++];
    *segment = (struct log_writer_segment){.number = number, .bytes = bytes};
    for (uint16_t i = 0; i < writer->shards; i++)
        segment->sequence[i] = sequence;
}

static void segments_drop_first(struct log_writer *writer)
{
    assert(writer->segment_count > 0);
    writer->segment_count--;
    memmove(writer->segments, writer->segments + 1, writer->segment_count * sizeof writer->segments[0]);
}

/* Nothing needs it any more: all of it is in the cold tier, and a later header repeats its clock bounds durably. */
static bool segment_released(const struct log_writer *writer, const struct log_writer_segment *segment)
{
    if (segment->number >= writer->durable.segment)
        return false;
    for (uint16_t i = 0; i < writer->shards; i++) {
        if (segment->sequence[i] > writer->sequence_flushed[i])
            return false;
    }
    return true;
}

/* How many of the oldest segments are released: strictly oldest first. */
static uint32_t segments_released(const struct log_writer *writer)
{
    uint32_t count = 0;
    while (count < writer->segment_count && segment_released(writer, &writer->segments[count]))
        count++;
    return count;
}

/* ---- life ----------------------------------------------------------------------------------------------- */

enum status log_writer_init(struct log_writer *writer, const struct log_writer_options *options)
{
    assert(options->shards >= 1 && options->shards <= SHARDS_MAX);
    assert(options->segment_bytes >= (uint64_t)2 * LOG_HEADER_BYTES);
    assert(options->segment_next > options->end.segment && options->batch_next > 0);
    *writer = (struct log_writer){
        .alloc = options->alloc,
        .identity = options->identity,
        .shards = options->shards,
        .segment_bytes = options->segment_bytes,
        .pending_bytes_max = options->pending_bytes_max,
        .spares_max = options->spares_max,
        .sync_always = options->sync_always,
        .segment_next = options->segment_next,
        .batch_next = options->batch_next,
        .end = options->end,
        .bounds = options->bounds,
        .created = options->segment_next - 1,
        .written = options->end,
        .written_batch = options->end,
        .durable = options->end,
        /* Nothing names options->end yet: an idle writer's marker brings the header that does. */
    };
    for (size_t i = 0; i < 2; i++)
        buf_init(&writer->groups[i].bytes, options->alloc);
    for (uint16_t i = 0; i < options->shards; i++) {
        writer->sequence_written[i] = LOG_SEQUENCE_INHERITED;
        writer->sequence_durable[i] = LOG_SEQUENCE_INHERITED;
    }
    for (size_t i = 0; i < options->inherited_count; i++) {
        if (!segments_reserve(writer)) {
            log_writer_free(writer);
            return STATUS_OVERLOADED;
        }
        segments_add(writer, options->inherited[i], 0, LOG_SEQUENCE_INHERITED);
    }
    return STATUS_OK;
}

void log_writer_free(struct log_writer *writer)
{
    for (size_t i = 0; i < 2; i++)
        buf_free(&writer->groups[i].bytes);
    alloc_put(writer->alloc, writer->segments, writer->segment_capacity * sizeof writer->segments[0]);
    writer->segments = NULL;
    writer->segment_count = 0;
    writer->segment_capacity = 0;
}

/* ---- appending ------------------------------------------------------------------------------------------ */

/* Remembers the highest bounds in a payload of ours, for the headers of later segments. */
static void note_bounds(struct log_writer *writer, struct span payload)
{
    struct reader reader = reader_of(payload);
    struct log_entry entry;
    while (log_entry_next(&reader, &entry) == STATUS_OK) {
        if (entry.type != LOG_ENTRY_BOUNDS)
            continue;
        if (entry.bounds.bound > writer->bounds.bound)
            writer->bounds.bound = entry.bounds.bound;
        if (entry.bounds.future > writer->bounds.future)
            writer->bounds.future = entry.bounds.future;
    }
    assert(!reader.failed);
}

/* The header of the next segment, and the stretch that it begins. Memory is reserved. */
static void begin_segment(struct log_writer *writer, struct log_writer_group *group, uint64_t batch_bytes)
{
    uint64_t needed = LOG_HEADER_BYTES + batch_bytes + LOG_END_BYTES;
    uint64_t number = writer->segment_next++;
    writer->append_capacity = writer->segment_bytes;
    if (needed > writer->segment_bytes)
        writer->append_capacity = (needed + SEGMENT_ROUNDING - 1) / SEGMENT_ROUNDING * SEGMENT_ROUNDING;
    struct log_header header = {
        .segment = number,
        .identity = writer->identity,
        .previous_end = writer->end,
        .batch_first = writer->batch_next,
        .bounds = writer->bounds,
    };
    group->stretches[group->stretch_count++] =
        (struct log_writer_stretch){.segment = number, .begin = group->bytes.size, .size = LOG_HEADER_BYTES};
    log_header_put(&group->bytes, &header);
    segments_add(writer, number, writer->append_capacity, 0);
    writer->append_at = (struct log_place){number, LOG_HEADER_BYTES};
    /* The header is written only once its previous end is durable, so it names it truly. */
    writer->named = place_max(writer->named, header.previous_end);
}

/* entries 0 with no sequence is a marker. */
static enum status frame(struct log_writer *writer, const struct log_append *append)
{
    struct log_writer_group *group = group_appending(writer);
    uint64_t bytes = log_batch_bytes(append->payload.size);
    bool new_segment = writer->append_at.segment == 0 ||
                       writer->append_at.offset + bytes + LOG_END_BYTES > writer->append_capacity;
    bool new_stretch = new_segment || group->stretch_count == 0;
    if ((new_stretch && group->stretch_count == LOG_STRETCHES_MAX) ||
        (new_segment && !segments_reserve(writer)) ||
        !buf_reserve(&group->bytes, bytes + LOG_END_BYTES + (new_segment ? LOG_HEADER_BYTES : 0))) {
        group->bytes.failed = false;
        return STATUS_OVERLOADED;
    }
    if (append->has_bounds)
        note_bounds(writer, append->payload);
    if (new_segment)
        begin_segment(writer, group, bytes);
    else if (new_stretch)
        group->stretches[group->stretch_count++] =
            (struct log_writer_stretch){.segment = writer->append_at.segment,
                                        .offset = writer->append_at.offset,
                                        .begin = group->bytes.size};
    struct log_batch batch = {
        .segment = writer->append_at.segment,
        .number = writer->batch_next++,
        .shard = append->shard,
        .shards = writer->shards,
        .entries = append->entries,
        .sequence = append->sequence,
        .durable = writer->durable,
    };
    log_batch_put(&group->bytes, &batch, append->payload, writer->identity.directory_id);
    writer->named = place_max(writer->named, writer->durable);
    writer->append_at.offset += bytes;
    writer->end = writer->append_at;
    struct log_writer_stretch *stretch = &group->stretches[group->stretch_count - 1];
    assert(stretch->segment == writer->append_at.segment);
    stretch->size += bytes;
    if (append->sequence > 0) {
        stretch->end_of_batches = writer->end;
        stretch->sequence[append->shard] = append->sequence;
        writer->segments[writer->segment_count - 1].sequence[append->shard] = append->sequence;
    }
    assert(!group->bytes.failed);
    return STATUS_OK;
}

enum status log_writer_append(struct log_writer *writer, const struct log_append *append)
{
    assert(append->shard < writer->shards);
    assert(append->sequence > LOG_SEQUENCE_INHERITED);
    if (append->payload.size > LOG_PAYLOAD_BYTES_MAX)
        return STATUS_TOO_LARGE;
    uint64_t pending = group_appending(writer)->bytes.size;
    if (pending > 0 && pending + log_batch_bytes(append->payload.size) > writer->pending_bytes_max)
        return STATUS_OVERLOADED;
    return frame(writer, append);
}

enum status log_writer_mark(struct log_writer *writer)
{
    if (!log_writer_idle(writer) || log_place_compare(writer->named, writer->durable) >= 0)
        return STATUS_OK;
    struct log_append marker = {0};
    return frame(writer, &marker);
}

/* ---- what the world must do ----------------------------------------------------------------------------- */

/* Hands what was appended over to be written; the zeros after it were reserved by each append. */
static void groups_swap(struct log_writer *writer)
{
    static const uint8_t zeros[LOG_END_BYTES];
    struct log_writer_group *group = group_appending(writer);
    assert(group->stretch_count > 0 && group->stretch_at == 0);
    buf_append(&group->bytes, zeros, sizeof zeros);
    group->stretches[group->stretch_count - 1].size += LOG_END_BYTES;
    assert(!group->bytes.failed);
    writer->group_writing = (uint8_t)(1 - writer->group_writing);
}

static bool unsynced(const struct log_writer *writer)
{
    return log_place_compare(writer->durable, writer->written) < 0;
}

static bool sync_wanted(const struct log_writer *writer)
{
    if (writer->sync_always && log_place_compare(writer->durable, writer->written_batch) < 0)
        return true;
    return log_place_compare(writer->durable, writer->sync_target) < 0 &&
           log_place_compare(writer->sync_target, writer->written) <= 0;
}

static struct log_io io_create(const struct log_writer *writer, uint64_t segment)
{
    uint64_t bytes = writer->segment_bytes;
    for (uint32_t i = 0; i < writer->segment_count; i++) {
        if (writer->segments[i].number == segment)
            bytes = writer->segments[i].bytes;
    }
    struct log_io io = {.kind = LOG_IO_CREATE, .segment = segment, .size = bytes};
    if (bytes == writer->segment_bytes && segments_released(writer) > 0 &&
        writer->segments[0].bytes == bytes) {
        io.kind = LOG_IO_RECYCLE;
        io.segment_old = writer->segments[0].number;
    }
    return io;
}

/* The step that the group in flight needs; false when a full disk is in its way. */
static bool group_io(struct log_writer *writer, struct log_io *io)
{
    struct log_writer_group *group = group_in_flight(writer);
    const struct log_writer_stretch *stretch = &group->stretches[group->stretch_at];
    if (writer->written.segment != stretch->segment && unsynced(writer)) {
        *io = (struct log_io){.kind = LOG_IO_SYNC, .segment = writer->written.segment};
        return true;
    }
    if (writer->disk_full)
        return false;
    if (writer->created < stretch->segment)
        *io = io_create(writer, stretch->segment);
    else
        *io = (struct log_io){.kind = LOG_IO_WRITE,
                              .segment = stretch->segment,
                              .offset = stretch->offset,
                              .bytes = span_of(group->bytes.data + stretch->begin, stretch->size)};
    return true;
}

static bool delete_io(const struct log_writer *writer, struct log_io *io)
{
    uint32_t released = segments_released(writer);
    if (released == 0)
        return false;
    bool spare = writer->segments[0].bytes == writer->segment_bytes;
    if (spare && released <= (writer->disk_full ? 0 : writer->spares_max))
        return false;
    *io = (struct log_io){.kind = LOG_IO_DELETE, .segment = writer->segments[0].number};
    return true;
}

bool log_writer_next_io(struct log_writer *writer, struct log_io *io)
{
    if (writer->io_busy)
        return false;
    bool some = false;
    if (group_in_flight(writer)->stretch_count == 0) {
        if (sync_wanted(writer)) {
            *io = (struct log_io){.kind = LOG_IO_SYNC, .segment = writer->written.segment};
            some = true;
        } else if (group_appending(writer)->stretch_count > 0) {
            groups_swap(writer);
        }
    }
    if (!some && group_in_flight(writer)->stretch_count > 0)
        some = group_io(writer, io);
    if (!some)
        some = delete_io(writer, io);
    if (some)
        writer->io = *io;
    writer->io_busy = some;
    return some;
}

bool log_writer_wants_write(const struct log_writer *writer)
{
    const struct log_writer_group *in_flight = &writer->groups[writer->group_writing];
    const struct log_writer_group *appending = &writer->groups[1 - writer->group_writing];
    bool resumes = in_flight->stretch_count > 0;
    if (writer->io_busy || writer->disk_full ||
        (!resumes && (appending->stretch_count == 0 || sync_wanted(writer))))
        return false;
    const struct log_writer_stretch *stretch =
        resumes ? &in_flight->stretches[in_flight->stretch_at] : &appending->stretches[0];
    bool ends_segment = writer->written.segment != stretch->segment && unsynced(writer);
    return !ends_segment && writer->created >= stretch->segment;
}

static void write_done(struct log_writer *writer)
{
    struct log_writer_group *group = group_in_flight(writer);
    const struct log_writer_stretch *stretch = &group->stretches[group->stretch_at++];
    bool last = group->stretch_at == group->stretch_count;
    uint64_t end = stretch->offset + stretch->size - (last ? LOG_END_BYTES : 0);
    writer->written = (struct log_place){stretch->segment, end};
    writer->written_batch = place_max(writer->written_batch, stretch->end_of_batches);
    for (uint16_t i = 0; i < writer->shards; i++) {
        if (stretch->sequence[i] > writer->sequence_written[i])
            writer->sequence_written[i] = stretch->sequence[i];
    }
    if (!last)
        return;
    group->stretch_at = 0;
    group->stretch_count = 0;
    buf_clear(&group->bytes);
    if (group->bytes.capacity > GROUP_BYTES_KEPT)
        buf_free(&group->bytes);
}

static void sync_done(struct log_writer *writer)
{
    /* One thing at a time: nothing was written since the sync began (invariant 5). */
    writer->durable = writer->written;
    for (uint16_t i = 0; i < writer->shards; i++)
        writer->sequence_durable[i] = writer->sequence_written[i];
}

enum status log_writer_io_done(struct log_writer *writer, enum status status)
{
    assert(writer->io_busy);
    enum log_io_kind kind = writer->io.kind;
    writer->io_busy = false;
    if (status == STATUS_DISK_FULL && kind != LOG_IO_SYNC && kind != LOG_IO_DELETE) {
        writer->disk_full = true;
        return STATUS_DISK_FULL;
    }
    if (status != STATUS_OK)
        return STATUS_IO_ERROR;
    if (kind == LOG_IO_WRITE)
        write_done(writer);
    else if (kind == LOG_IO_SYNC)
        sync_done(writer);
    else
        assert(kind == LOG_IO_DELETE || kind == LOG_IO_CREATE || kind == LOG_IO_RECYCLE);
    if (kind == LOG_IO_CREATE || kind == LOG_IO_RECYCLE)
        writer->created = writer->io.segment;
    if (kind == LOG_IO_DELETE || kind == LOG_IO_RECYCLE)
        segments_drop_first(writer);
    return STATUS_OK;
}

/* ---- asking and telling --------------------------------------------------------------------------------- */

uint64_t log_writer_written(const struct log_writer *writer, uint16_t shard)
{
    assert(shard < writer->shards);
    return writer->sequence_written[shard];
}

uint64_t log_writer_durable(const struct log_writer *writer, uint16_t shard)
{
    assert(shard < writer->shards);
    return writer->sequence_durable[shard];
}

bool log_writer_idle(const struct log_writer *writer)
{
    return !writer->io_busy && writer->groups[0].stretch_count == 0 && writer->groups[1].stretch_count == 0 &&
           !sync_wanted(writer);
}

bool log_writer_disk_full(const struct log_writer *writer)
{
    return writer->disk_full;
}

void log_writer_retry(struct log_writer *writer)
{
    writer->disk_full = false;
}

void log_writer_sync(struct log_writer *writer)
{
    writer->sync_target = writer->end;
}

void log_writer_flushed(struct log_writer *writer, uint16_t shard, uint64_t sequence)
{
    assert(shard < writer->shards);
    if (sequence > writer->sequence_flushed[shard])
        writer->sequence_flushed[shard] = sequence;
}
