/* The lww record: parsing, merging, visibility. */
#include "model/record.h"

#include <assert.h>

#define RECORD_KIND_BYTES 2
#define EXPIRY_BYTES 8
#define OVERRIDE_BYTES (2 * STAMP_BYTES + EXPIRY_BYTES)

struct stamp record_stamp_max(const struct record *record)
{
    return stamp_max(record->stamp, stamp_max(record->override_stamp, record->override_applies_to));
}

/* Flags that can stand together. */
static bool flags_valid(uint8_t flags)
{
    if ((flags & ~RECORD_FLAGS_ALL) != 0 || (flags & (RECORD_VALUE | RECORD_OVERRIDE)) == 0)
        return false;
    if ((flags & (RECORD_TOMBSTONE | RECORD_EXPIRY)) != 0 && (flags & RECORD_VALUE) == 0)
        return false;
    return (flags & RECORD_TOMBSTONE) == 0 || (flags & RECORD_EXPIRY) == 0;
}

static bool registers_valid(const struct record *record)
{
    bool has_value = (record->flags & RECORD_VALUE) != 0;
    bool has_override = (record->flags & RECORD_OVERRIDE) != 0;
    if (has_value && stamp_none(record->stamp))
        return false;
    if ((record->flags & RECORD_EXPIRY) != 0 && record->expiry_ms == 0)
        return false;
    if (has_override && (stamp_none(record->override_stamp) || stamp_none(record->override_applies_to)))
        return false;
    if (has_value && has_override && stamp_compare(record->override_applies_to, record->stamp) < 0)
        return false;
    return record_holds_value(record) || record->value.size == 0;
}

enum status record_parse(struct span bytes, struct record *record)
{
    *record = (struct record){0};
    if (bytes.size == 0)
        return STATUS_OK;
    struct reader reader = reader_of(bytes);
    uint8_t kind = reader_u8(&reader);
    uint8_t flags = reader_u8(&reader);
    if (reader.failed || kind != RECORD_KIND_LWW || !flags_valid(flags))
        return STATUS_MALFORMED;
    record->flags = flags;
    if ((flags & RECORD_VALUE) != 0)
        record->stamp = stamp_read(&reader);
    if ((flags & RECORD_EXPIRY) != 0)
        record->expiry_ms = reader_u64(&reader);
    if ((flags & RECORD_OVERRIDE) != 0) {
        record->override_applies_to = stamp_read(&reader);
        record->override_stamp = stamp_read(&reader);
        record->override_expiry_ms = reader_u64(&reader);
    }
    record->value = reader_bytes(&reader, reader_left(&reader));
    if (reader.failed || !registers_valid(record)) {
        *record = (struct record){0};
        return STATUS_MALFORMED;
    }
    return STATUS_OK;
}

size_t record_size(const struct record *record)
{
    if (record_empty(record))
        return 0;
    size_t size = RECORD_KIND_BYTES + record->value.size;
    if ((record->flags & RECORD_VALUE) != 0)
        size += STAMP_BYTES;
    if ((record->flags & RECORD_EXPIRY) != 0)
        size += EXPIRY_BYTES;
    if ((record->flags & RECORD_OVERRIDE) != 0)
        size += OVERRIDE_BYTES;
    return size;
}

void record_put(struct buf *buf, const struct record *record)
{
    if (record_empty(record))
        return;
    assert(flags_valid(record->flags) && registers_valid(record));
    if (!buf_reserve(buf, record_size(record)))
        return;
    buf_put_u8(buf, RECORD_KIND_LWW);
    buf_put_u8(buf, record->flags);
    if ((record->flags & RECORD_VALUE) != 0)
        stamp_put(buf, record->stamp);
    if ((record->flags & RECORD_EXPIRY) != 0)
        buf_put_u64(buf, record->expiry_ms);
    if ((record->flags & RECORD_OVERRIDE) != 0) {
        stamp_put(buf, record->override_applies_to);
        stamp_put(buf, record->override_stamp);
        buf_put_u64(buf, record->override_expiry_ms);
    }
    buf_append_span(buf, record->value);
}

/* Whether a's override beats b's: it is for a newer value, or a newer one for the same value. */
static bool override_wins(const struct record *a, const struct record *b)
{
    int order = stamp_compare(a->override_applies_to, b->override_applies_to);
    return order != 0 ? order > 0 : stamp_compare(a->override_stamp, b->override_stamp) >= 0;
}

struct record record_merge(const struct record *a, const struct record *b)
{
    const struct record *value = stamp_compare(a->stamp, b->stamp) >= 0 ? a : b;
    const struct record *override = override_wins(a, b) ? a : b;
    struct record merged = {
        .flags = value->flags & (RECORD_VALUE | RECORD_TOMBSTONE | RECORD_EXPIRY),
        .stamp = value->stamp,
        .expiry_ms = value->expiry_ms,
        .value = value->value,
    };
    /* Dropping an override for an older value keeps the merge associative: whatever it would have beaten is
     * for an older value still. */
    bool kept = (override->flags & RECORD_OVERRIDE) != 0 &&
                stamp_compare(override->override_applies_to, value->stamp) >= 0;
    if (kept) {
        merged.flags |= RECORD_OVERRIDE;
        merged.override_applies_to = override->override_applies_to;
        merged.override_stamp = override->override_stamp;
        merged.override_expiry_ms = override->override_expiry_ms;
    }
    return merged;
}

uint64_t record_expiry_ms(const struct record *record)
{
    bool overridden = (record->flags & RECORD_OVERRIDE) != 0 &&
                      stamp_compare(record->override_applies_to, record->stamp) == 0;
    return overridden ? record->override_expiry_ms : record->expiry_ms;
}

bool record_live(const struct record *record, uint64_t now_ms)
{
    if (!record_holds_value(record))
        return false;
    uint64_t expiry_ms = record_expiry_ms(record);
    return expiry_ms == 0 || expiry_ms > now_ms;
}

void version_put(struct buf *buf, struct version version)
{
    stamp_put(buf, version.value);
    stamp_put(buf, version.override);
}

struct version version_read(struct reader *reader)
{
    struct version version;
    version.value = stamp_read(reader);
    version.override = stamp_read(reader);
    return version;
}
