/* The log's bytes.
 *
 * The log is a chain of segments, files with rising numbers. A segment is a header block of LOG_HEADER_BYTES and
 * then batches, each at a multiple of 8. A batch is a fixed header and a payload padded with zeros to a multiple
 * of 8; its payload is a list of entries. After the last batch come 8 zero bytes (if there is room), then whatever
 * the file held before.
 *
 * Every checksum is an XXH3 of 64 bits seeded with the segment's number and the directory's id, so bytes left over
 * in a recycled file, or batches that a client stored as a value, never pass.
 *
 * Two things name an end that was durable when they were written: each batch, and each segment header, which names
 * where the segment before it ended (a segment's header is written only after the segment before it is synced to
 * its end). What lies before a named end and does not check is damage; what lies past every named end is a torn
 * tail. All integers are little endian.
 *
 * Segment header: u32 magic | u32 version | u64 segment | 16 bytes cluster id | u64 directory id | u64 previous
 *   segment | u64 previous end | u64 number of the first batch | u64 clock bound | u64 future bound | zeros |
 *   u64 checksum of all that, at LOG_HEADER_BYTES - 8.
 * Batch: u32 magic | u32 payload size | u64 segment | u64 batch number | u16 shard | u16 shards | u32 entries |
 *   u64 shard's sequence | u64 durable segment | u64 durable offset | u64 checksum of the padded payload |
 *   u64 checksum of the header before it | payload | zeros.
 * Entry: u8 type, then ROW: u16 slot | short key | long record; BOUNDS: u64 bound | u64 future; RESERVED: u16 slot |
 *   short key | long record (no bytes: the reserved row was erased); ERASE: u16 slot | short key | version (the row
 *   was purged when it was of this version). An unknown type is an error: the log was written by a newer version.
 * Entries take effect in the log's order: a ROW is merged with what is held of its key, a RESERVED replaces it, an
 *   ERASE removes the row unless that is newer. */
#ifndef RONDO_STORE_LOG_FORMAT_H
#define RONDO_STORE_LOG_FORMAT_H

#include "base/hash.h"
#include "base/limits.h"
#include "base/span.h"
#include "model/record.h"
#include "model/reserved.h"

#define LOG_VERSION 1u
#define LOG_HEADER_BYTES 4096u
#define LOG_BATCH_HEADER_BYTES 72u
#define LOG_ALIGNMENT 8u
#define LOG_END_BYTES 8u /* the zeros after the last batch */

/* A segment is this large unless a batch alone needs more: that batch gets a segment of its own size. */
#define LOG_SEGMENT_BYTES_DEFAULT ((uint64_t)64 << 20)

/* Most bytes of one payload: two of the largest rows. A shard with more to say makes several batches. */
#define LOG_PAYLOAD_BYTES_MAX (2u * FRAME_BYTES_MAX)

/* What an entry adds to its key and record. */
#define LOG_ROW_OVERHEAD_BYTES 9u
#define LOG_ERASE_OVERHEAD_BYTES (5u + VERSION_BYTES)

_Static_assert(LOG_BATCH_HEADER_BYTES % LOG_ALIGNMENT == 0, "batches stay aligned");
_Static_assert(LOG_HEADER_BYTES % LOG_ALIGNMENT == 0, "batches start aligned");

/* A place in the log. */
struct log_place {
    uint64_t segment;
    uint64_t offset;
};

static inline int log_place_compare(struct log_place a, struct log_place b)
{
    if (a.segment != b.segment)
        return a.segment < b.segment ? -1 : 1;
    return (a.offset > b.offset) - (a.offset < b.offset);
}

/* Whose log it is. */
struct log_identity {
    struct hash_128 cluster_id;
    uint64_t directory_id;
};

/* ---- entries -------------------------------------------------------------------------------------------- */

enum log_entry_type {
    LOG_ENTRY_ROW = 1,
    LOG_ENTRY_BOUNDS = 2,
    LOG_ENTRY_RESERVED = 3,
    LOG_ENTRY_ERASE = 4,
};

struct log_entry {
    enum log_entry_type type;
    uint16_t slot; /* of all but BOUNDS */
    struct span key;
    struct span record;       /* ROW; RESERVED: empty = erased */
    struct version version;   /* ERASE: at most one of its stamps is none */
    struct hlc_bounds bounds; /* BOUNDS */
};

/* Append one entry to a payload. */
void log_put_row(struct buf *payload, uint16_t slot, struct span key, struct span record);
void log_put_bounds(struct buf *payload, struct hlc_bounds bounds);
/* key: a reserved one, of this slot (LOG_ROW_OVERHEAD_BYTES); record: empty = it is erased. */
void log_put_reserved(struct buf *payload, uint16_t slot, struct span key, struct span record);
/* version: of the row that was purged (LOG_ERASE_OVERHEAD_BYTES). */
void log_put_erase(struct buf *payload, uint16_t slot, struct span key, struct version version);

/* The next entry of a payload; views borrow the payload. NOT_FOUND at the end, MALFORMED for anything that the
 * functions above would not have written. */
MUST_CHECK enum status log_entry_next(struct reader *payload, struct log_entry *entry);

/* ---- segments and batches ------------------------------------------------------------------------------- */

struct log_header {
    uint64_t segment;
    struct log_identity identity;
    struct log_place previous_end; /* where the segment before ended, durable; segment 0 = there was none */
    uint64_t batch_first;          /* number of the first batch here */
    struct hlc_bounds bounds;      /* the maximum of all that were logged before */
};

/* Appends the LOG_HEADER_BYTES of a segment's start. */
void log_header_put(struct buf *buf, const struct log_header *header);

/* Reads a segment's start. bytes: the file from its beginning. CORRUPT: not a header of this segment;
 * WRONG_PROTOCOL: intact, of another version. identity is not compared, except that the directory's id seeds the
 * checksum. */
MUST_CHECK enum status log_header_read(struct span bytes, uint64_t segment, uint64_t directory_id,
                                       struct log_header *header);

struct log_batch {
    uint32_t payload_size; /* without padding */
    uint64_t segment;
    uint64_t number; /* continuous over the whole log, from 1 */
    uint16_t shard;
    uint16_t shards;
    uint32_t entries;
    uint64_t sequence;
    struct log_place durable;
    struct span payload; /* view; set by log_batch_read */
};

/* All bytes that a batch with this payload takes. */
static inline uint64_t log_batch_bytes(uint64_t payload_size)
{
    return LOG_BATCH_HEADER_BYTES + (payload_size + LOG_ALIGNMENT - 1) / LOG_ALIGNMENT * LOG_ALIGNMENT;
}

/* Appends a batch with this payload (payload_size and payload of batch are not looked at). */
void log_batch_put(struct buf *buf, const struct log_batch *batch, struct span payload,
                   uint64_t directory_id);

enum log_batch_state {
    LOG_BATCH_INTACT,
    LOG_BATCH_PAYLOAD_BAD, /* the header is intact, so its shard and size are known; the payload is not */
    LOG_BATCH_NONE,        /* there is no batch here */
};

/* Reads the batch at offset of a segment's bytes, which must claim to be at that place. */
enum log_batch_state log_batch_read(struct span segment_bytes, struct log_place place, uint64_t directory_id,
                                    struct log_batch *batch);

#endif
