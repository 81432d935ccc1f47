/* Merkle trees kept true: changes, rescans, and their way to the disk.
 *
 * A write whose old version is known updates its leaf in place. The trees of slots that changed go cold in the same
 * table as the rows of a flush, so the cold tier never holds rows without the tree that counts them; every change that
 * is in the log and not yet in the cold tier marks its leaf dirty when it is replayed. So a restart rebuilds only what
 * changed since (DESIGN section 4). A tree is given to the disk only once the log is durable up to every change in it:
 * else a power loss could leave a tree that counts a row which is gone. */
#include <assert.h>
#include <inttypes.h>

#include "shard/state.h"

/* Slots looked at for dirty leaves in one tick. */
#define RESCAN_SLOTS_PER_TICK 256u

/* Leaves rescanned at once: about so many times 50 rows. */
#define RESCAN_LEAVES_MAX 64u

/* A slot that is written to without a look (blind.c) is rescanned once that has ended for so long, in deciseconds, but
 * at most for this part of repair_interval; or else once in that interval. Meanwhile exchanges read the rows of its
 * dirty leaves (repair/exchange.h). */
#define BLIND_QUIET_MAX 50u
#define BLIND_QUIET_DIVISOR 8u

/* After such a rescan, until the next: about a twentieth of the time goes there. */
#define BLIND_PAUSE_US 2000u
#define BLIND_PAUSE_US_PER_ROW 20u

/* One of them is rescanned all the same, this often: by it the others are guessed (blind_rows). */
#define BLIND_SAMPLE_US 1000000u

/* Of the shard's memory, the part for trees: half a byte for each key of 16 bytes with 100 bytes would do. */
#define TREE_MEMORY_DIVISOR 16u

void trees_init(struct shard *shard)
{
    alloc_init(&shard->repairing.tree_alloc, shard->options.memory_bytes / TREE_MEMORY_DIVISOR);
    merkle_init(&shard->repairing.merkle, &shard->repairing.tree_alloc);
}

void trees_free(struct shard *shard)
{
    merkle_free(&shard->repairing.merkle);
}

/* ---- changes -------------------------------------------------------------------------------------------- */

void trees_row_changed(struct shard *shard, uint16_t slot, struct span key, const struct record *before,
                       const struct record *after)
{
    struct slot_state *state = slot_state_of(shard, slot);
    struct hash_128 key_hash = merkle_key_hash(key);
    struct merkle_change change = {
        .slot = slot,
        .tag = merkle_tag(key),
        .before_counted = !record_empty(before),
        .after_counted = !record_empty(after),
    };
    if (state == NULL)
        return;
    if (change.before_counted)
        change.before = merkle_version_hash(key_hash, record_version(before));
    if (change.after_counted)
        change.after = merkle_version_hash(key_hash, record_version(after));
    merkle_apply(&shard->repairing.merkle, &change);
    state->tree_changed = true;
}

/* ---- the disk ------------------------------------------------------------------------------------------- */

/* u64 purge_at | u32 dead | u32 tombstones | u64 high water, then what merkle_put writes. */
static bool put_tree(struct shard *shard, struct slot_state *state)
{
    uint8_t key[RESERVED_SLOT_KEY_BYTES];
    reserved_slot_key(RESERVED_TREE, state->slot, key);
    buf_clear(&shard->scratch);
    buf_put_u64(&shard->scratch, purge_at_work(shard, state->slot) ? 0 : state->purge_at_ms);
    buf_put_u32(&shard->scratch, state->dead);
    buf_put_u32(&shard->scratch, state->tombstones);
    buf_put_u64(&shard->scratch, blind_goes_cold(state));
    merkle_put(&shard->repairing.merkle, state->slot, &shard->scratch);
    if (shard->scratch.failed)
        return false;
    return memtable_job_add(&shard->memtable, &shard->flush.job, span_of(key, sizeof key),
                            buf_span(&shard->scratch)) == STATUS_OK;
}

static bool tree_empty(const struct shard *shard, uint16_t slot)
{
    struct merkle_info info = merkle_info(&shard->repairing.merkle, slot);
    return info.count == 0 && info.leaves_dirty == 0 && !info.lost;
}

/* False: no memory; the flush must be given up. */
bool trees_flush_slice(struct shard *shard, uint32_t trees_max)
{
    struct slots *slots = &shard->repairing.slots;
    struct flush_state *flush = &shard->flush;
    for (uint32_t done = 0; flush->trees_at < slots->count && done < trees_max; flush->trees_at++) {
        struct slot_state *state = &slots->states[flush->trees_at];
        if (!state->tree_changed)
            continue;
        /* Where none is found the slot is empty: thousands of empty slots, looked at after a start, are not written. */
        if (!state->tree_in_cold && state->newest == 0 && tree_empty(shard, state->slot)) {
            state->tree_changed = false;
            continue;
        }
        if (!put_tree(shard, state))
            return false;
        state->tree_changed = false;
        state->tree_in_flush = true;
        done++;
    }
    return true;
}

void trees_flush_over(struct shard *shard, bool done)
{
    struct slots *slots = &shard->repairing.slots;
    for (uint32_t i = 0; i < slots->count; i++) {
        struct slot_state *state = &slots->states[i];
        state->tree_changed |= state->tree_in_flush && !done;
        state->tree_in_cold |= state->tree_in_flush; /* what failed may have come there all the same */
        state->tree_in_flush = false;
    }
}

void trees_found(struct shard *shard, uint16_t slot, struct span bytes)
{
    struct slot_state *state = slot_state_of(shard, slot);
    struct reader reader = reader_of(bytes);
    uint64_t purge_at_ms = reader_u64(&reader);
    uint32_t dead = reader_u32(&reader);
    uint32_t tombstones = reader_u32(&reader);
    uint64_t high_water = reader_u64(&reader);
    uint16_t of_slot = SLOTS_COUNT;
    struct span tree = reader_bytes(&reader, reader_left(&reader));
    if (state == NULL)
        return;
    shard->repairing.trees_kept = true;
    state->tree_in_cold = true;
    if (reader.failed || storage_slot_quarantined(shard, slot) ||
        merkle_read(&shard->repairing.merkle, tree, &of_slot) != STATUS_OK || of_slot != slot) {
        merkle_forget(&shard->repairing.merkle, slot);
        return;
    }
    state->purge_at_ms = purge_at_ms;
    state->dead = dead;
    state->tombstones = tombstones;
    blind_found(state, high_water);
}

/* Once what the cold tier holds is known, before the first row of the log. A cold tier with rows and without any tree
 * says nothing of its slots; nor does damage. */
static void all_found(struct shard *shard)
{
    struct slots *slots = &shard->repairing.slots;
    if (shard->repairing.trees_complete)
        return;
    shard->repairing.trees_complete = true;
    bool none = !shard->repairing.trees_kept && !shard->cold_empty;
    for (uint32_t i = 0; i < slots->count; i++) {
        struct slot_state *state = &slots->states[i];
        if (none || storage_slot_quarantined(shard, state->slot)) {
            merkle_forget(&shard->repairing.merkle, state->slot);
            /* Or a slot that is not rescanned before the next start would look empty then, beside those that were. */
            state->tree_changed |= none;
        } else if (!state->tree_in_cold) {
            state->purge_at_ms = UINT64_MAX; /* nor is there a dead row */
            blind_found(state, 0);
        }
    }
}

void trees_row_replayed(struct shard *shard, uint16_t slot, struct span key)
{
    struct slot_state *state = slot_state_of(shard, slot);
    all_found(shard);
    if (state == NULL)
        return;
    merkle_mark_dirty(&shard->repairing.merkle, slot, merkle_tag(key));
    state->tree_changed = true;
    state->purge_at_ms = 0;
}

void trees_start(struct shard *shard)
{
    all_found(shard);
}

/* ---- rescans -------------------------------------------------------------------------------------------- */

static bool rescan_start(struct shard *shard, uint16_t slot, struct merkle_range range)
{
    struct repairing *repairing = &shard->repairing;
    if (merkle_rescan_begin(&repairing->merkle, slot, range) != STATUS_OK)
        return false;
    struct scan_options options = {
        .kind = SCAN_RESCAN,
        .slot = slot,
        .tag_first = merkle_range_tag_first(range),
        .tag_last = merkle_range_tag_last(range),
    };
    repairing->rescan = scan_start(shard, &options);
    if (repairing->rescan == NULL) {
        merkle_rescan_abort(&repairing->merkle, slot);
        return false;
    }
    repairing->rescan_slot = slot;
    const struct slot_state *state = slot_state_of(shard, slot);
    repairing->rescan_whole = state != NULL && range.count == UINT32_C(1) << range.depth;
    repairing->rescan_rows = 0;
    repairing->rescan_newest = 0;
    repairing->rescan_tombstones = 0;
    repairing->rescan_tombstones_before = state == NULL ? 0 : state->tombstones;
    return true;
}

void trees_rescan_row(struct shard *shard, struct span key, struct span bytes)
{
    struct record record;
    struct repairing *repairing = &shard->repairing;
    if (record_parse(bytes, &record) != STATUS_OK || record_empty(&record))
        return; /* it never was in a tree */
    uint64_t time = record_stamp_max(&record).time;
    if (time > repairing->rescan_newest)
        repairing->rescan_newest = time;
    repairing->rescan_rows++;
    repairing->rescan_tombstones += !record_holds_value(&record);
    merkle_rescan_add(&repairing->merkle, repairing->rescan_slot, merkle_tag(key),
                      merkle_row_hash(key, record_version(&record)));
}

void trees_rescan_done(struct shard *shard, enum status status)
{
    struct repairing *repairing = &shard->repairing;
    struct slot_state *state = slot_state_of(shard, repairing->rescan_slot);
    repairing->rescan = NULL;
    if (status != STATUS_OK) {
        merkle_rescan_abort(&repairing->merkle, repairing->rescan_slot);
        if (status == STATUS_CORRUPT)
            heal_scan_damaged(shard, repairing->rescan_slot);
        repairing->rescan_not_before_us = shard->now.mono_us + TICK_INTERVAL_US;
        return;
    }
    struct merkle_rescan_result result = merkle_rescan_finish(&repairing->merkle, repairing->rescan_slot);
    if (state != NULL)
        state->tree_changed = true;
    if (state != NULL && repairing->rescan_whole)
        state->cold_damaged = 0;
    if (state != NULL && repairing->rescan_whole)
        slot_tombstones_counted(state, repairing->rescan_tombstones_before, repairing->rescan_tombstones);
    if (state != NULL && repairing->rescan_whole && result.finished)
        blind_scanned(state, repairing->rescan_newest);
    if (state != NULL && merkle_info(&repairing->merkle, state->slot).leaves_dirty == 0)
        state->blind_first = state->blind_last = state->blind = 0;
    repairing->counters.rescans++;
    repairing->rescan_lazy_us =
        shard->now.mono_us + BLIND_PAUSE_US + repairing->rescan_rows * BLIND_PAUSE_US_PER_ROW;
    repairing->counters.leaves_wrong += result.leaves_wrong;
    if (result.finished && result.leaves_wrong > 0)
        heal_damaged(shard, repairing->rescan_slot, "its rows are not those that its tree counts");
}

/* Whether the slot's dirty leaves are rescanned now: under writes that go on they would be dirty again at once. */
static bool rescan_due(const struct shard *shard, const struct slot_state *state)
{
    decisecond interval = shard->options.healing.repair_interval_ms / DECISECOND_MS;
    decisecond quiet = interval / BLIND_QUIET_DIVISOR;
    decisecond now = slots_now(shard);
    if (state->blind_first == 0 || shard->now.mono_us >= shard->repairing.rescan_sample_us)
        return true;
    quiet = quiet > BLIND_QUIET_MAX ? BLIND_QUIET_MAX : quiet;
    return now - state->blind_last > quiet || now - state->blind_first > interval;
}

/* What is to be rescanned of the slot next, if anything: all of it, to grow; else dirty leaves from rescan_leaf on. */
static bool rescan_wanted(const struct shard *shard, const struct slot_state *state,
                          struct merkle_range *range)
{
    const struct repairing *repairing = &shard->repairing;
    struct merkle_info info = merkle_info(&repairing->merkle, state->slot);
    if (info.depth_wanted <= info.depth || info.lost)
        return merkle_dirty_next(&repairing->merkle, state->slot, repairing->rescan_leaf, RESCAN_LEAVES_MAX,
                                 range);
    *range = (struct merkle_range){.count = UINT32_C(1) << info.depth_wanted, .depth = info.depth_wanted};
    return true;
}

/* Rescans what the slot at rescan_place wants. False: nothing now; the next one's turn. */
static bool rescan_slot(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    struct slot_state *state = &repairing->slots.states[repairing->rescan_place];
    struct merkle_range range;
    bool begins = repairing->rescan_leaf == 0;
    bool lazy = state->blind_first != 0;
    if (begins) {
        repairing->rescan_count = merkle_info(&repairing->merkle, state->slot).count;
        repairing->rescan_blind = state->blind;
    }
    if (heal_scan_hopeless(shard, state) || (begins && !rescan_due(shard, state)) ||
        !rescan_wanted(shard, state, &range))
        return false;
    if (lazy && shard->now.mono_us < repairing->rescan_lazy_us) {
        repairing->rescan_not_before_us = repairing->rescan_lazy_us;
        repairing->rescan_waits = true;
        return true;
    }
    if (!rescan_start(shard, state->slot, range))
        return false;
    if (lazy && begins) {
        /* What is written to from now on has its own time. */
        state->blind_first = slots_now(shard);
        repairing->rescan_sample_us = shard->now.mono_us + BLIND_SAMPLE_US;
    }
    repairing->rescan_leaf = range.first + range.count;
    return true;
}

/* Each dirty leaf of the slot has been rescanned once. */
static void turn_over(struct shard *shard, struct slot_state *state)
{
    const struct repairing *repairing = &shard->repairing;
    uint64_t count = merkle_info(&repairing->merkle, state->slot).count;
    blind_counted(shard, state, repairing->rescan_blind, (int64_t)(count - repairing->rescan_count));
}

/* The next slot, from a place on, whose tree wants a rescan: each dirty leaf once, then the next slot. */
static bool rescan_dirty(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    struct slots *slots = &repairing->slots;
    for (uint32_t i = 0; i < slots->count && i < RESCAN_SLOTS_PER_TICK; i++) {
        if (repairing->rescan_place >= slots->count)
            repairing->rescan_place = 0;
        if (rescan_slot(shard))
            return true; /* and look here again afterwards */
        if (repairing->rescan_leaf > 0 && repairing->rescan_blind > 0)
            turn_over(shard, &slots->states[repairing->rescan_place]);
        repairing->rescan_place++;
        repairing->rescan_leaf = 0;
    }
    return false;
}

/* The slow round: each slot's tree is compared with its rows once in rescan_interval. */
static void rescan_next(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    const struct slots *slots = &repairing->slots;
    if (shard->now.mono_us < repairing->verify_next_us || slots->count == 0)
        return;
    repairing->verify_next_us =
        shard->now.mono_us + (uint64_t)shard->options.healing.rescan_interval_ms * 1000 / slots->count;
    if (repairing->verify_place >= slots->count)
        repairing->verify_place = 0;
    const struct slot_state *state = &slots->states[repairing->verify_place++];
    uint16_t slot = state->slot;
    if (heal_scan_hopeless(shard, state))
        return;
    uint8_t depth = merkle_info(&repairing->merkle, slot).depth;
    struct merkle_range range = {.count = UINT32_C(1) << depth, .depth = depth};
    (void)rescan_start(shard, slot, range); /* what finds no memory is looked at in the next round */
}

void trees_turn_end(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    if (repairing->rescan != NULL || shard->now.mono_us < repairing->rescan_not_before_us ||
        !shard->options.healing.repair)
        return;
    repairing->rescan_waits = false;
    if (rescan_dirty(shard))
        return;
    rescan_next(shard);
    /* A busy shard ends many turns: the next look is a tick away. */
    repairing->rescan_not_before_us = shard->now.mono_us + TICK_INTERVAL_US;
}

uint64_t trees_due_us(const struct shard *shard)
{
    const struct repairing *repairing = &shard->repairing;
    return repairing->rescan == NULL && repairing->rescan_waits ? repairing->rescan_not_before_us
                                                                : UINT64_MAX;
}
