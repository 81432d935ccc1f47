/* What hints.c (the books) and hints_replay.c share: one target's account. */
#ifndef RONDO_REPAIR_HINTS_INTERNAL_H
#define RONDO_REPAIR_HINTS_INTERNAL_H

#include "repair/hints.h"

#define SYNC_BITMAP_BYTES (SLOTS_COUNT / 8)

/* A hint under way. */
struct hint_flight {
    uint64_t id; /* 0 = a free place */
    struct version version;
    uint8_t *key;
    uint32_t key_size;
    uint8_t acks_left;
    bool failed;
};

struct hint_target {
    uint64_t node;
    uint64_t bytes;
    uint64_t count;
    uint8_t *marked;  /* bitmap of slots, or NULL: none ever was */
    uint8_t *syncing; /* likewise: an exchange is at work on it */
    uint32_t syncs;
    bool up;
    bool pass_done; /* the cursor reached the end; the next pass starts at pass_at_us */
    uint64_t pass_at_us;
    int64_t tokens; /* bytes that may be sent; below zero after a hint larger than what was left */
    uint64_t refilled_us;
    struct buf cursor;          /* the last key sent in this pass */
    struct buf done;            /* the key of the last answer's hint */
    struct hint_flight *window; /* HINT_WINDOW_MAX places, allocated with the first hint sent */
    uint32_t window_count;
    uint64_t id_next;
};

/* The target's account, or NULL. */
struct hint_target *hints_find(const struct hints *hints, uint64_t target);

/* Everything under way counts as lost. */
void hint_window_clear(struct hints *hints, struct hint_target *target);

#endif
