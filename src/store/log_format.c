/* The log's bytes, written and read. */
#include "store/log_format.h"

#include <assert.h>

#define LOG_HEADER_MAGIC 0x31474c52u /* "RLG1" */
#define LOG_BATCH_MAGIC 0x48425452u  /* "RTBH" */

/* Where the checksums stand. */
#define HEADER_CHECKSUM_AT (LOG_HEADER_BYTES - 8)
#define BATCH_CHECKSUM_AT (LOG_BATCH_HEADER_BYTES - 8)

static uint64_t checksum_seed(uint64_t segment, uint64_t directory_id)
{
    return hash_mix_u64(segment) ^ directory_id;
}

static void put_zeros(struct buf *buf, size_t size)
{
    static const uint8_t zeros[64];
    while (size > 0) {
        size_t part = size < sizeof zeros ? size : sizeof zeros;
        buf_append(buf, zeros, part);
        size -= part;
    }
}

/* ---- entries -------------------------------------------------------------------------------------------- */

static void put_row(struct buf *payload, enum log_entry_type type, const struct log_entry *row)
{
    assert(row->slot < SLOTS_COUNT);
    if (!buf_reserve(payload, LOG_ROW_OVERHEAD_BYTES + row->key.size + row->record.size))
        return;
    buf_put_u8(payload, (uint8_t)type);
    buf_put_u16(payload, row->slot);
    buf_put_short(payload, row->key);
    buf_put_long(payload, row->record);
}

void log_put_row(struct buf *payload, uint16_t slot, struct span key, struct span record)
{
    put_row(payload, LOG_ENTRY_ROW, &(struct log_entry){.slot = slot, .key = key, .record = record});
}

static bool reserved_key_fits(struct span key, uint16_t slot)
{
    uint16_t named;
    return reserved_key_slot(key, &named) == STATUS_OK && named == slot;
}

void log_put_reserved(struct buf *payload, uint16_t slot, struct span key, struct span record)
{
    assert(reserved_key_fits(key, slot));
    put_row(payload, LOG_ENTRY_RESERVED, &(struct log_entry){.slot = slot, .key = key, .record = record});
}

void log_put_erase(struct buf *payload, uint16_t slot, struct span key, struct version version)
{
    assert(slot < SLOTS_COUNT);
    assert(!stamp_none(version.value) || !stamp_none(version.override));
    if (!buf_reserve(payload, LOG_ERASE_OVERHEAD_BYTES + key.size))
        return;
    buf_put_u8(payload, LOG_ENTRY_ERASE);
    buf_put_u16(payload, slot);
    buf_put_short(payload, key);
    version_put(payload, version);
}

void log_put_bounds(struct buf *payload, struct hlc_bounds bounds)
{
    if (!buf_reserve(payload, 17))
        return;
    buf_put_u8(payload, LOG_ENTRY_BOUNDS);
    buf_put_u64(payload, bounds.bound);
    buf_put_u64(payload, bounds.future);
}

/* What the functions above assert. */
static bool entry_sensible(const struct log_entry *entry)
{
    if (entry->slot >= SLOTS_COUNT)
        return false;
    if (entry->type == LOG_ENTRY_RESERVED)
        return reserved_key_fits(entry->key, entry->slot);
    if (entry->type == LOG_ENTRY_ERASE)
        return !stamp_none(entry->version.value) || !stamp_none(entry->version.override);
    return true;
}

enum status log_entry_next(struct reader *payload, struct log_entry *entry)
{
    if (reader_left(payload) == 0)
        return payload->failed ? STATUS_MALFORMED : STATUS_NOT_FOUND;
    *entry = (struct log_entry){0};
    uint8_t type = reader_u8(payload);
    switch (type) {
    case LOG_ENTRY_ROW:
    case LOG_ENTRY_RESERVED:
        entry->slot = reader_u16(payload);
        entry->key = reader_short(payload);
        entry->record = reader_long(payload);
        break;
    case LOG_ENTRY_BOUNDS:
        entry->bounds.bound = reader_u64(payload);
        entry->bounds.future = reader_u64(payload);
        break;
    case LOG_ENTRY_ERASE:
        entry->slot = reader_u16(payload);
        entry->key = reader_short(payload);
        entry->version = version_read(payload);
        break;
    default:
        payload->failed = true;
        break;
    }
    if (payload->failed)
        return STATUS_MALFORMED;
    entry->type = (enum log_entry_type)type;
    return entry_sensible(entry) ? STATUS_OK : STATUS_MALFORMED;
}

/* ---- segments ------------------------------------------------------------------------------------------- */

void log_header_put(struct buf *buf, const struct log_header *header)
{
    if (!buf_reserve(buf, LOG_HEADER_BYTES))
        return;
    size_t start = buf->size;
    buf_put_u32(buf, LOG_HEADER_MAGIC);
    buf_put_u32(buf, LOG_VERSION);
    buf_put_u64(buf, header->segment);
    buf_put_u64(buf, header->identity.cluster_id.low);
    buf_put_u64(buf, header->identity.cluster_id.high);
    buf_put_u64(buf, header->identity.directory_id);
    buf_put_u64(buf, header->previous_end.segment);
    buf_put_u64(buf, header->previous_end.offset);
    buf_put_u64(buf, header->batch_first);
    buf_put_u64(buf, header->bounds.bound);
    buf_put_u64(buf, header->bounds.future);
    put_zeros(buf, start + HEADER_CHECKSUM_AT - buf->size);
    uint64_t seed = checksum_seed(header->segment, header->identity.directory_id);
    buf_put_u64(buf, hash_64(span_of(buf->data + start, HEADER_CHECKSUM_AT), seed));
    assert(buf->size - start == LOG_HEADER_BYTES);
}

enum status log_header_read(struct span bytes, uint64_t segment, uint64_t directory_id,
                            struct log_header *header)
{
    if (bytes.size < LOG_HEADER_BYTES)
        return STATUS_CORRUPT;
    struct span head = span_of(bytes.data, HEADER_CHECKSUM_AT);
    struct reader reader = reader_of(head);
    if (reader_u32(&reader) != LOG_HEADER_MAGIC)
        return STATUS_CORRUPT;
    if (load_u64(bytes.data + HEADER_CHECKSUM_AT) != hash_64(head, checksum_seed(segment, directory_id)))
        return STATUS_CORRUPT;
    if (reader_u32(&reader) != LOG_VERSION)
        return STATUS_WRONG_PROTOCOL;
    header->segment = reader_u64(&reader);
    header->identity.cluster_id.low = reader_u64(&reader);
    header->identity.cluster_id.high = reader_u64(&reader);
    header->identity.directory_id = reader_u64(&reader);
    header->previous_end.segment = reader_u64(&reader);
    header->previous_end.offset = reader_u64(&reader);
    header->batch_first = reader_u64(&reader);
    header->bounds.bound = reader_u64(&reader);
    header->bounds.future = reader_u64(&reader);
    if (header->segment != segment || header->previous_end.segment >= segment || header->batch_first == 0)
        return STATUS_CORRUPT;
    return STATUS_OK;
}

/* ---- batches -------------------------------------------------------------------------------------------- */

void log_batch_put(struct buf *buf, const struct log_batch *batch, struct span payload, uint64_t directory_id)
{
    assert(payload.size <= LOG_PAYLOAD_BYTES_MAX);
    uint64_t size = log_batch_bytes(payload.size);
    if (!buf_reserve(buf, size))
        return;
    uint64_t seed = checksum_seed(batch->segment, directory_id);
    size_t start = buf->size;
    /* The payload first: its checksum stands in the header, which is filled in afterwards. */
    put_zeros(buf, LOG_BATCH_HEADER_BYTES);
    buf_append_span(buf, payload);
    put_zeros(buf, start + size - buf->size);
    uint8_t *at = buf->data + start;
    struct span padded = span_of(at + LOG_BATCH_HEADER_BYTES, size - LOG_BATCH_HEADER_BYTES);
    store_u32(at, LOG_BATCH_MAGIC);
    store_u32(at + 4, (uint32_t)payload.size);
    store_u64(at + 8, batch->segment);
    store_u64(at + 16, batch->number);
    store_u16(at + 24, batch->shard);
    store_u16(at + 26, batch->shards);
    store_u32(at + 28, batch->entries);
    store_u64(at + 32, batch->sequence);
    store_u64(at + 40, batch->durable.segment);
    store_u64(at + 48, batch->durable.offset);
    store_u64(at + 56, hash_64(padded, seed));
    store_u64(at + BATCH_CHECKSUM_AT, hash_64(span_of(at, BATCH_CHECKSUM_AT), seed));
}

/* What an honest writer never breaks, although the checksum fits. */
static bool batch_sensible(const struct log_batch *batch, struct log_place place)
{
    return batch->segment == place.segment && batch->number != 0 && batch->shards >= 1 &&
           batch->shards <= SHARDS_MAX && batch->shard < batch->shards &&
           batch->payload_size <= LOG_PAYLOAD_BYTES_MAX && log_place_compare(batch->durable, place) <= 0;
}

enum log_batch_state log_batch_read(struct span segment_bytes, struct log_place place, uint64_t directory_id,
                                    struct log_batch *batch)
{
    if (place.offset > segment_bytes.size || segment_bytes.size - place.offset < LOG_BATCH_HEADER_BYTES)
        return LOG_BATCH_NONE;
    uint64_t left = segment_bytes.size - place.offset;
    const uint8_t *at = segment_bytes.data + place.offset;
    if (load_u32(at) != LOG_BATCH_MAGIC)
        return LOG_BATCH_NONE;
    uint64_t seed = checksum_seed(place.segment, directory_id);
    if (load_u64(at + BATCH_CHECKSUM_AT) != hash_64(span_of(at, BATCH_CHECKSUM_AT), seed))
        return LOG_BATCH_NONE;
    batch->payload_size = load_u32(at + 4);
    batch->segment = load_u64(at + 8);
    batch->number = load_u64(at + 16);
    batch->shard = load_u16(at + 24);
    batch->shards = load_u16(at + 26);
    batch->entries = load_u32(at + 28);
    batch->sequence = load_u64(at + 32);
    batch->durable = (struct log_place){load_u64(at + 40), load_u64(at + 48)};
    if (!batch_sensible(batch, place))
        return LOG_BATCH_NONE;
    batch->payload = (struct span){0};
    if (log_batch_bytes(batch->payload_size) > left)
        return LOG_BATCH_PAYLOAD_BAD;
    struct span padded =
        span_of(at + LOG_BATCH_HEADER_BYTES, log_batch_bytes(batch->payload_size) - LOG_BATCH_HEADER_BYTES);
    if (load_u64(at + 56) != hash_64(padded, seed))
        return LOG_BATCH_PAYLOAD_BAD;
    batch->payload = span_of(padded.data, batch->payload_size);
    return LOG_BATCH_INTACT;
}
