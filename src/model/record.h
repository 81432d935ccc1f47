/* The record of a key: what a replica stores and ships.
 *
 * An lww record is two registers. The value register holds the newest value (or tombstone) with its own expiry.
 * The override register holds an expiry set later by EXPIRE or PERSIST; it names the stamp of the value it
 * applies to and counts only for that value. Merging takes the higher value by stamp and the higher override
 * by (applies_to, stamp), then drops an override for an older value: commutative, associative, idempotent
 * (invariant 3), and an EXPIRE can neither undo nor outlive a concurrent SET. An override whose value is not
 * known here yet (applies_to above the value's stamp) is kept.
 *
 * A struct record is a parsed view into serialised bytes. Serialised, little endian:
 *   u8 kind (1 = lww) | u8 flags | [stamp value | u64 expiry if RECORD_EXPIRY] |
 *   [stamp applies_to | stamp override | u64 expiry] | value bytes to the end
 * The form is canonical: equal records have equal bytes (invariant 2). */
#ifndef RONDO_MODEL_RECORD_H
#define RONDO_MODEL_RECORD_H

#include "model/stamp.h"

#define RECORD_KIND_LWW 1

enum record_flags {
    RECORD_VALUE = 1,     /* the value register is present */
    RECORD_TOMBSTONE = 2, /* the value register is a delete; no bytes follow, no expiry */
    RECORD_EXPIRY = 4,    /* the value has an expiry of its own */
    RECORD_OVERRIDE = 8,  /* the override register is present */
};
#define RECORD_FLAGS_ALL 15

struct record {
    uint8_t flags;
    struct stamp stamp; /* of the value; none when absent */
    uint64_t expiry_ms; /* wall clock; 0 = never */
    struct stamp override_applies_to;
    struct stamp override_stamp; /* none when absent */
    uint64_t override_expiry_ms; /* 0 = never (PERSIST) */
    struct span value;           /* view; empty for a tombstone */
};

/* The version of a record: equal versions mean equal records, because no stamp is made twice for a key. */
struct version {
    struct stamp value;
    struct stamp override; /* none when the record has no override */
};
#define VERSION_BYTES (2 * STAMP_BYTES)

static inline struct version record_version(const struct record *record)
{
    return (struct version){.value = record->stamp, .override = record->override_stamp};
}

static inline bool version_equal(struct version a, struct version b)
{
    return stamp_compare(a.value, b.value) == 0 && stamp_compare(a.override, b.override) == 0;
}

/* No value and no override: the key was never heard of. */
static inline bool record_empty(const struct record *record)
{
    return (record->flags & (RECORD_VALUE | RECORD_OVERRIDE)) == 0;
}

/* The highest stamp anywhere in it. */
struct stamp record_stamp_max(const struct record *record);

/* Parses serialised bytes (an empty span gives the empty record); the view borrows them. MALFORMED for anything
 * that record_put would not have written. */
MUST_CHECK enum status record_parse(struct span bytes, struct record *record);

/* Serialises; the empty record is no bytes. record_size is its exact size. */
void record_put(struct buf *buf, const struct record *record);
size_t record_size(const struct record *record);

/* The merge; the result's value borrows from a or b. */
struct record record_merge(const struct record *a, const struct record *b);

/* When it stops being visible: the override's expiry if it applies, else the value's; 0 = never. */
uint64_t record_expiry_ms(const struct record *record);

/* Whether it holds a value and not a tombstone; expiry is not looked at. */
static inline bool record_holds_value(const struct record *record)
{
    return (record->flags & (RECORD_VALUE | RECORD_TOMBSTONE)) == RECORD_VALUE;
}

/* Whether a reader sees a value at this wall-clock time. */
bool record_live(const struct record *record, uint64_t now_ms);

void version_put(struct buf *buf, struct version version);
struct version version_read(struct reader *reader);

#endif
