/* What a log found on disk means: which batches to replay, what is a torn tail, what is damage.
 *
 * Method: batches are taken in order while they check and their numbers are continuous. At the first place p that
 * does not hold the expected batch, the rest is searched at 8-byte steps for intact batches and segment headers; each
 * names an end that was durable when it was written. If one names an end past p, p was durable once: that is DAMAGE.
 * It is reported, the slots it may have touched are quarantined (an intact batch header tells the shard; else all
 * slots), and replay goes on with every later intact batch. If none does, p is the end: what follows was never
 * acknowledged and is cut off, even where single batches in it are intact (disks reorder unsynced writes).
 * A segment that a later header's "previous end" steps over was cut off by an earlier recovery and is not read. */
#ifndef RONDO_STORE_LOG_RECOVERY_H
#define RONDO_STORE_LOG_RECOVERY_H

#include "store/log_format.h"

#define SLOT_BITMAP_BYTES (SLOTS_COUNT / 8)

static inline void slot_bitmap_set(uint8_t bitmap[SLOT_BITMAP_BYTES], uint16_t slot)
{
    bitmap[slot / 8] = (uint8_t)(bitmap[slot / 8] | 1u << slot % 8);
}

static inline bool slot_bitmap_test(const uint8_t bitmap[SLOT_BITMAP_BYTES], uint16_t slot)
{
    return (bitmap[slot / 8] >> slot % 8 & 1) != 0;
}

/* One segment file. The caller sets number and bytes (the whole file; may be a mapping); the rest is the
 * recovery's. */
struct log_file {
    uint64_t number;
    struct span bytes;
    struct log_header header;
    bool header_intact;
    uint64_t limit; /* no batch of the log is at or past this offset */
    size_t next;    /* index of the file whose header continues this one; 0 = unknown */
    bool cut_off;   /* an earlier recovery cut the whole file off */
};

enum log_damage_kind {
    LOG_DAMAGE_BATCH = 1,   /* a payload does not match its checksum */
    LOG_DAMAGE_GAP = 2,     /* one or more batches are unreadable */
    LOG_DAMAGE_MISSING = 3, /* a segment file is missing */
    LOG_DAMAGE_HEADER = 4, /* a segment's header is unreadable, but no batch is missing: no slot is touched */
    LOG_DAMAGE_ENTRY = 5,  /* an intact batch holds entries that this version does not know */
};

struct log_damage {
    enum log_damage_kind kind;
    struct log_place place; /* where it begins; MISSING: offset 0 of the missing file */
    uint64_t length;        /* bytes in that file, as far as is known */
    uint16_t shard;         /* of these many shards; shards 0 = every slot is touched (HEADER: none) */
    uint16_t shards;
    uint64_t batches_lost; /* 0 = not known (or none, for HEADER) */
};

/* Damages listed one by one; more are counted. */
#define LOG_DAMAGES_MAX 64

struct log_recovery_report {
    struct hlc_bounds bounds; /* the maximum over everything read */
    uint64_t batches;
    uint64_t rows;         /* with the reserved and the erased ones */
    struct log_place end;  /* of the log: cut end.segment off here, delete later files */
    uint64_t segment_next; /* above every number seen */
    uint64_t batch_next;
    uint64_t torn_bytes; /* bytes past the end that once were, or may have been, batches; 0 = a clean end */
    uint32_t damage_count;
    struct log_damage damages[LOG_DAMAGES_MAX];
    uint8_t quarantined[SLOT_BITMAP_BYTES]; /* a bit per slot that may have lost acknowledged data */
};

struct log_recovery_options {
    struct log_identity identity;
    /* Called for each row, reserved row (no record: erased) and erased row, in the order of the log; views of the
     * file's bytes. A status other than OK stops. NULL: not wanted. */
    enum status (*row)(void *context, uint16_t slot, struct span key, struct span record);
    enum status (*reserved)(void *context, uint16_t slot, struct span key, struct span record);
    enum status (*erase)(void *context, uint16_t slot, struct span key, struct version version);
    void *context;
};

/* files: every segment file there is, ascending by number. Fills report. WRONG_CLUSTER: an intact header names
 * another cluster; WRONG_PROTOCOL: an intact header is of another version; else what a callback said. */
MUST_CHECK enum status log_recover(const struct log_recovery_options *options, struct log_file *files,
                                   size_t count, struct log_recovery_report *report);

/* A sentence about a damage, for people. */
void log_damage_format(const struct log_damage *damage, struct buf *text);

#endif
