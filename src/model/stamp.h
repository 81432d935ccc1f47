/* Stamps and the hybrid logical clock.
 *
 * A stamp is 48 bits of milliseconds, 16 bits of counter, then the actor (the id of a data directory); their
 * order is total and the same everywhere. A struct hlc makes stamps for one shard:
 *  - never twice, also over restarts: a stamp is handed out only at or below an upper bound that is already
 *    durable, and after a start nothing is stamped until real time has passed the last such bound;
 *  - never far from real time: the bound is raised to at most ahead_ms past the clock, and stamps seen in
 *    records advance it only within skew_max_ms of the local clock;
 *  - above every stamp seen for the key, even one from the far future (a clock that was wrong for a while):
 *    those use a second, separately persisted register, so that the ordinary clock stays near real time. The
 *    lowest bit of the counter says which register made a stamp (1 = the second), so the two never meet.
 * Method: Kulkarni et al., "Logical Physical Clocks", 2014. */
#ifndef RONDO_MODEL_STAMP_H
#define RONDO_MODEL_STAMP_H

#include "base/span.h"

struct stamp {
    uint64_t time; /* milliseconds << 16 | counter; 0 = no stamp */
    uint64_t actor;
};

#define STAMP_BYTES 16
#define STAMP_TEXT_BYTES_MAX 40
#define STAMP_MS_MAX ((UINT64_C(1) << 48) - 1)

static inline uint64_t stamp_ms(struct stamp stamp)
{
    return stamp.time >> 16;
}

static inline bool stamp_none(struct stamp stamp)
{
    return stamp.time == 0;
}

static inline int stamp_compare(struct stamp a, struct stamp b)
{
    if (a.time != b.time)
        return a.time < b.time ? -1 : 1;
    return (a.actor > b.actor) - (a.actor < b.actor);
}

static inline struct stamp stamp_max(struct stamp a, struct stamp b)
{
    return stamp_compare(a, b) >= 0 ? a : b;
}

void stamp_put(struct buf *buf, struct stamp stamp);
struct stamp stamp_read(struct reader *reader);

/* Text form "MILLISECONDS-COUNTER-ACTOR" (decimal, decimal, 16 hex digits), terminated; returns its length. */
size_t stamp_format(struct stamp stamp, char text[STAMP_TEXT_BYTES_MAX]);
MUST_CHECK enum status stamp_parse(struct span text, struct stamp *stamp);

/* What must survive a restart; the node keeps the maximum over its shards. */
struct hlc_bounds {
    uint64_t bound;  /* ordinary stamps handed out are at or below this time */
    uint64_t future; /* likewise for the far-future register; 0 = never used */
};

struct hlc {
    uint64_t actor;
    uint64_t skew_max_ms;
    uint64_t last;               /* highest ordinary time handed out or seen */
    uint64_t future_last;        /* highest far-future time handed out */
    struct hlc_bounds durable;   /* known to survive a restart */
    struct hlc_bounds requested; /* on its way to the disk; >= durable */
    struct hlc_bounds wanted;    /* what the stamps refused with WAIT would have needed */
    uint64_t start_ms;           /* nothing is stamped while the clock is at or below this */
};

/* recovered: the maximum of all bounds found on disk (zeros for a new directory). */
void hlc_init(struct hlc *hlc, uint64_t actor, uint64_t skew_max_ms, struct hlc_bounds recovered);

/* A stamp above `above` (a stamp_none stamp for no constraint) and above all handed out before. WAIT: a higher
 * bound must be persisted first (hlc_wants_bounds then says which), or real time must pass start_ms. CLOCK_SKEW:
 * `above` is so close to the end of time that nothing can be stamped above it. */
MUST_CHECK enum status hlc_stamp(struct hlc *hlc, uint64_t now_ms, struct stamp above, struct stamp *stamp);

/* A stamp was seen in a record or answer: advances the clock, within skew_max_ms of now_ms only. */
void hlc_observe(struct hlc *hlc, uint64_t now_ms, struct stamp seen);

/* Bounds to persist now, if any: renewed when less than half of the lead is left, so that a shard under
 * load never waits. `stamping` says whether stamps were wanted lately (an idle shard persists nothing).
 * On true the caller persists *bounds and calls hlc_bounds_durable afterwards. */
bool hlc_wants_bounds(struct hlc *hlc, uint64_t now_ms, bool stamping, struct hlc_bounds *bounds);
void hlc_bounds_durable(struct hlc *hlc, struct hlc_bounds bounds);

#endif
