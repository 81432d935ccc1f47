/* Hinted handoff: the writes that other nodes missed, kept until those nodes have them.
 *
 * A hint is a row in a reserved range of the store's keys, past every slot, so that it is logged, flushed and
 * scanned like any other; its bytes hold the record as it was written, original versions included, so that
 * replaying it twice, or late, does no harm. Two hints for one key and target are merged into one. This file
 * keeps the books, purely: how much each target is owed, what is under way to it, and when more may be sent.
 * They are rebuilt from the hints themselves after a restart.
 *
 * Hints are keyed by the target's node id, never its address. Past the bound of a target a write is not kept
 * as a hint: its slot is marked "sync slot with node" instead, and anti-entropy is asked to see to it. A hint
 * that counted towards a sloppy W is a promise: it is never turned into a mark; at the bound the fallback
 * refuses (DESIGN section 6).
 *
 * A hint is deleted only after every acknowledgement it waits for, and only if the row is still the version
 * that was sent: a newer one merged meanwhile stays.
 *
 * Method: Dynamo section 4.6; PROTOCOLS.md C. */
#ifndef RONDO_REPAIR_HINTS_H
#define RONDO_REPAIR_HINTS_H

#include "base/map.h"
#include "model/key.h"
#include "model/record.h"
#include "model/reserved.h"

/* ---- the reserved keys --------------------------------------------------------------------------------- */

#define HINT_PREFIX RESERVED_HINT
#define HINT_SYNC_PREFIX RESERVED_SYNC

/* A hint: prefix | target (8 bytes) | slot (2 bytes) | key; all numbers big endian, so that a target is one
 * contiguous range, ordered by slot. A sync mark: prefix | target | slot. */
#define HINT_KEY_HEAD_BYTES RESERVED_HINT_HEAD_BYTES

/* A longer key cannot be hinted, since keys carry 16 bits of size in the log: its slot is marked instead. */
#define HINTED_KEY_BYTES_MAX (KEY_BYTES_MAX_HARD - HINT_KEY_HEAD_BYTES)

struct hint_key {
    uint64_t target;
    uint16_t slot;
    bool sync;       /* a sync mark: key is empty */
    struct span key; /* view */
};

void hint_key_put(struct buf *buf, const struct hint_key *key);
/* MALFORMED for anything that hint_key_put would not have written. */
MUST_CHECK enum status hint_key_read(struct span bytes, struct hint_key *key);

/* The range of a target's hints: from the first bytes up to, not including, the second. */
void hint_range_put(struct buf *first, struct buf *end, uint64_t target);

/* A hint's row: u8 flags | record. */
enum hint_flags {
    HINT_COUNTED = 1, /* it counted towards a sloppy W */
};
void hint_row_put(struct buf *buf, uint8_t flags, struct span record);
MUST_CHECK enum status hint_row_read(struct span bytes, uint8_t *flags, struct span *record);

/* ---- the books ----------------------------------------------------------------------------------------- */

#define HINT_BYTES_MAX_DEFAULT (UINT64_C(1) << 30)

/* Hints under way to one target; at 1 KiB each a round trip of 10 ms moves 25 MB/s, more than any sensible
 * rate. */
#define HINT_WINDOW_MAX 1024u

struct hints_options {
    struct alloc *alloc;         /* must outlive the books */
    uint64_t bytes_max;          /* of each target: keys and rows */
    uint64_t replay_bytes_per_s; /* to each target; > 0 */
    uint64_t replay_burst_bytes; /* > 0 */
    uint64_t pass_pause_us;      /* between two passes over what is left of a target's hints */
};

struct hints {
    struct hints_options options;
    struct map targets;   /* struct hint_target by node id */
    uint32_t *slot_hints; /* hints of each slot, of all targets; allocated with the first */
    uint64_t bytes;
    uint64_t count;
    uint64_t converted; /* writes that became sync marks */
    uint64_t refused;
    uint64_t replayed; /* acknowledged and deleted */
};

void hints_init(struct hints *hints, const struct hints_options *options);
void hints_free(struct hints *hints);

struct hint_change {
    uint64_t target; /* > 0 */
    uint16_t slot;
    bool counted;          /* this write, or the hint it is merged into, counts towards a sloppy W */
    uint64_t bytes_before; /* of the hint's key and row in the store; 0 = there was none */
    uint64_t bytes_after;  /* of both once it is stored; 0 = deleted */
};

enum hint_verdict {
    HINT_STORE,   /* booked: write the row (if that fails, book it back with hints_book) */
    HINT_SYNC,    /* the slot is marked: make the mark durable unless it already was */
    HINT_REFUSED, /* nothing is kept: a counted write gets OVERLOADED; another one is left to anti-entropy */
};

/* A write that the target missed. What is stored already is only ever replaced by its merge, never converted. */
enum hint_verdict hints_add(struct hints *hints, const struct hint_change *change);

/* A hint was deleted, changed or found by the scan after a restart: books it without asking. OVERLOADED: no
 * memory for the books of a new target; nothing changed. */
MUST_CHECK enum status hints_book(struct hints *hints, const struct hint_change *change);

/* A sync mark was found by the scan after a restart. OVERLOADED as above. */
MUST_CHECK enum status hints_mark(struct hints *hints, uint64_t target, uint16_t slot);

/* An exchange of this slot with the target begins: the mark, if there is one, waits for its end. Writes that
 * are converted from now on mark the slot anew. True if it was marked. */
bool hints_sync_begin(struct hints *hints, uint64_t target, uint16_t slot);
/* It ended. True: the slot has no mark any more, so the durable one is to be deleted. */
bool hints_sync_end(struct hints *hints, uint64_t target, uint16_t slot, bool verified);
/* The first marked slot at or after `from` that no exchange is at work on; SLOTS_COUNT when there is none. */
uint16_t hints_sync_next(const struct hints *hints, uint64_t node, uint16_t from);

/* Whether any hint of the slot is held for any target: it blocks the purge of the slot's tombstones. */
bool hints_slot_held(const struct hints *hints, uint16_t slot);

struct hint_target_info {
    uint64_t bytes;
    uint64_t count;
    uint32_t syncs; /* slots marked, those being exchanged included */
    uint32_t window;
    bool up;
};

struct hint_target_info hints_target(const struct hints *hints, uint64_t node);

/* The target with the next higher id after `after` (0 to begin); 0 after the last. */
uint64_t hints_target_next(const struct hints *hints, uint64_t after);

/* Nothing is owed to the target any more (it was removed, and its hints deleted). */
void hints_drop_target(struct hints *hints, uint64_t node);

/* ---- replay -------------------------------------------------------------------------------------------- */

/* The target became reachable or not. What was under way when it went away counts as failed. */
void hints_target_up(struct hints *hints, uint64_t node, bool up, uint64_t now_us);

struct hint_turn {
    bool send;      /* read hints after `after` and send them, up to about bytes */
    uint64_t bytes; /* what the rate allows now; the last hint of a turn may exceed it */
    uint32_t hints; /* room in the window */
    uint64_t
        again_at_us;   /* !send: when to ask again; UINT64_MAX: after an acknowledgement, a change, or up */
    struct span after; /* the last key sent in this pass; empty: from the target's first */
};

/* What may be sent to the target now. The view is valid until the next call with these books. */
struct hint_turn hints_turn(struct hints *hints, uint64_t node, uint64_t now_us);

struct hint_send {
    uint64_t target;
    struct span hint_key; /* as hint_key_put wrote it; copied */
    struct version version;
    uint64_t bytes;
    uint8_t acks; /* replicas it is sent to: 1, or all current ones if the target no longer holds the slot */
};

/* A hint is sent. *id names it in the answers. OVERLOADED: no memory, do not send it; the cursor did not
 * move. */
MUST_CHECK enum status hints_sent(struct hints *hints, const struct hint_send *send, uint64_t now_us,
                                  uint64_t *id);

/* The pass has reached the end of the target's hints. */
void hints_pass_done(struct hints *hints, uint64_t node, uint64_t now_us);

struct hint_done {
    bool erase; /* delete the hint if its row is still of this version, and book that */
    struct version version;
    struct span hint_key; /* valid until the next call with these books */
};

/* One of its replicas answered: durable there, or not. NOT_FOUND: an answer to something older (harmless). */
MUST_CHECK enum status hints_answered(struct hints *hints, uint64_t target, uint64_t id, bool durable,
                                      struct hint_done *done);

#endif
