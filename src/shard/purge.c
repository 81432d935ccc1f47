/* Purge: dead rows (tombstones, expired values, expiries without a value) leave for good.
 *
 * A dead row of a slot goes when all of this holds (DESIGN section 6):
 *  - it is older than request_timeout_max + 2 * clock_skew_max: every write and write-back from before it has been
 *    applied, or is refused by its deadline;
 *  - every other replica was verified equal in an exchange that began after it was that old, and after the last old row
 *    came in here: all hold it;
 *  - no member has a hint for the slot, each asked after that time; one that cannot be asked blocks;
 *  - the slot serves here, and its replicas have not changed since.
 * What is left may come late all the same (a message in a stalled connection, a disk from the drawer): the purge floor
 * refuses it. */
#include <assert.h>

#include "shard/state.h"

/* Rows purged from one scan; the rest go with the next. */
#define PURGE_KEYS_BYTES_MAX (1u << 20)

/* Of them, erased in one turn: some hundred microseconds; and none while so many tasks wait for the cold tier, where
 * requests of clients must find room. */
#define PURGE_ERASES_PER_TURN 128u
#define PURGE_COLD_WAITING_MAX 256u

/* Slots looked at in one tick, and between two purges of a shard. */
#define PURGE_SLOTS_PER_TICK 4096u
#define PURGE_INTERVAL_US 1000u

/* A step of the clock, against the monotonic one, between two looks; and how long it takes until it has been compared
 * with those of all peers: two pings, and what was measured before is forgotten. */
#define CLOCK_STEP_MS 50
#define CLOCK_JUDGED_US 12000000u

/* Members are asked about hints while rows wait to be purged, this often. */
#define HINTS_ASK_INTERVAL_US 2000000u

void purge_free(struct shard *shard)
{
    buf_free(&shard->repairing.purge_keys);
}

/* ---- hints of others ------------------------------------------------------------------------------------ */

/* FRAME_HINTS_HELD: u64 the asker's clock (monotonic), as asked | a bit for each slot with a hint there. */
static void ask_hints(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    if (shard->now.mono_us < repairing->hints_ask_us)
        return;
    repairing->hints_ask_us = shard->now.mono_us + HINTS_ASK_INTERVAL_US;
    uint8_t asked[8];
    store_u64(asked, shard->now.mono_us);
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        struct peer *peer = &shard->peers[i];
        struct buf *out = peer_output(peer);
        for (uint16_t s = 0; out != NULL && s < peer->shards; s++) {
            /* With as many shards there as here, only one has slots of ours. */
            if (peer->shards == shard->options.shards && s != shard->options.shard)
                continue;
            frame_put_raw(out, FRAME_HINTS_ASK, frame_head_of(shard, (uint8_t)s, 0),
                          span_of(asked, sizeof asked));
            out->failed = false;
        }
    }
}

enum status purge_hints_asked(struct shard *shard, struct peer *peer, const struct frame *frame)
{
    struct reader reader = reader_of(frame->body);
    uint64_t asked_us = reader_u64(&reader);
    if (reader_finish(&reader) != STATUS_OK)
        return STATUS_MALFORMED;
    struct buf *out = peer_output(peer);
    if (out == NULL)
        return STATUS_OK;
    struct buf body;
    buf_init(&body, &shard->alloc);
    buf_put_u64(&body, asked_us);
    buf_put_u8(&body, (uint8_t)shard->options.shard);
    buf_put_u8(&body, (uint8_t)shard->options.shards);
    const struct hints *books = &shard->repairing.handoff.books;
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (hints_slot_held(books, (uint16_t)slot) || shard->repairing.handoff.unknown)
            buf_put_u16(&body, (uint16_t)slot);
    }
    if (!body.failed)
        frame_put_raw(out, FRAME_HINTS_HELD, frame_head_of(shard, frame->from_shard, 0), buf_span(&body));
    out->failed = false;
    buf_free(&body);
    return STATUS_OK;
}

static bool hint_free(const struct peer *peer, uint16_t slot)
{
    return peer->hints_held == NULL || (peer->hints_held[slot / 8] >> (slot % 8) & 1) == 0;
}

enum status purge_hints_held(struct shard *shard, struct peer *peer, const struct frame *frame)
{
    struct reader reader = reader_of(frame->body);
    uint64_t asked_us = reader_u64(&reader);
    uint8_t from = reader_u8(&reader);
    uint8_t shards = reader_u8(&reader);
    if (reader.failed || shards == 0 || shards > SHARDS_MAX || from >= shards ||
        reader_left(&reader) % 2 != 0)
        return STATUS_MALFORMED;
    if (peer->hints_held == NULL)
        peer->hints_held = alloc_get_zeroed(&shard->alloc, SLOTS_COUNT / 8);
    if (peer->hints_asked == NULL)
        peer->hints_asked = alloc_get_zeroed(&shard->alloc, SHARDS_MAX * sizeof *peer->hints_asked);
    bool now_known = peer->hints_held != NULL && peer->hints_asked != NULL && shards == peer->shards &&
                     asked_us <= shard->now.mono_us;
    for (uint32_t slot = 0; now_known && slot < SLOTS_COUNT; slot++) {
        if (slot_shard((uint16_t)slot, shards) == from)
            peer->hints_held[slot / 8] = (uint8_t)(peer->hints_held[slot / 8] & ~(1u << (slot % 8)));
    }
    while (reader_left(&reader) > 0) {
        uint16_t slot = reader_u16(&reader);
        if (slot >= SLOTS_COUNT)
            return STATUS_MALFORMED;
        if (now_known)
            peer->hints_held[slot / 8] = (uint8_t)(peer->hints_held[slot / 8] | 1u << (slot % 8));
    }
    if (now_known && asked_us >= shard->options.now.mono_us)
        peer->hints_asked[from] = slots_then(shard, asked_us);
    return STATUS_OK;
}

/* ---- what blocks ---------------------------------------------------------------------------------------- */

/* Whether rows that were old enough at `needed` may go; else which node blocks and why. */
enum purge_blocker purge_blocked(struct shard *shard, const struct slot_state *state, decisecond needed,
                                 uint64_t *node)
{
    *node = shard->self_id;
    if (!shard->clock_trusted)
        return PURGE_BLOCKED_CLOCK;
    if (!storage_slot_serves(shard, state->slot))
        return PURGE_BLOCKED_NOT_SERVING;
    /* A node that is away first: the hints are there because of it. */
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        *node = shard->peers[i].node;
        if (!node_reachable(shard, shard->peers[i].index))
            return PURGE_BLOCKED_UNREACHABLE;
    }
    *node = shard->self_id;
    if (shard->repairing.handoff.unknown || hints_slot_held(&shard->repairing.handoff.books, state->slot))
        return PURGE_BLOCKED_HINTS;
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        const struct peer *peer = &shard->peers[i];
        *node = peer->node;
        if (ring_replicates(shard->ring, state->slot, peer->index)) {
            decisecond verified = slot_verified(shard, state, peer->index);
            if (verified < needed || verified <= state->late)
                return PURGE_BLOCKED_NOT_VERIFIED;
        }
        uint16_t from = peer->shards == 0 ? 0 : slot_shard(state->slot, peer->shards);
        if (peer->hints_asked == NULL || peer->hints_asked[from] < needed)
            return PURGE_BLOCKED_NOT_ASKED;
        if (!hint_free(peer, state->slot))
            return PURGE_BLOCKED_HINTS;
    }
    *node = 0;
    return PURGE_FREE;
}

const char *purge_blocker_name(enum purge_blocker blocker)
{
    static const char *const names[] = {"nothing",     "clock not trusted", "slot does not serve here",
                                        "holds hints", "not verified yet",  "not asked yet",
                                        "unreachable"};
    return names[blocker];
}

/* The latest time such that everything that had to happen by then did, as of which rows may be purged: the earliest of
 * the exchanges and answers that the rule asks for. 0: blocked. */
static decisecond horizon(struct shard *shard, const struct slot_state *state)
{
    uint64_t node;
    if (purge_blocked(shard, state, 1, &node) != PURGE_FREE)
        return 0;
    decisecond least =
        shard->repairing.slots.others == 0 ? slots_now(shard) : slot_verified_by_all(shard, state);
    for (uint16_t i = 0; i < shard->peer_count; i++) {
        const struct peer *peer = &shard->peers[i];
        decisecond asked = peer->hints_asked[slot_shard(state->slot, peer->shards)];
        least = asked < least ? asked : least;
    }
    return least;
}

/* ---- one slot ------------------------------------------------------------------------------------------- */

void purge_row(struct shard *shard, struct span key, struct span bytes)
{
    struct repairing *repairing = &shard->repairing;
    struct record record;
    if (record_parse(bytes, &record) != STATUS_OK || record_empty(&record))
        return;
    repairing->purge_tombstones += !record_holds_value(&record);
    uint64_t dead_ms = slot_dead_ms(shard, &record);
    if (dead_ms == UINT64_MAX)
        return;
    repairing->purge_dead++;
    bool room = repairing->purge_keys.size + key.size < PURGE_KEYS_BYTES_MAX;
    if (dead_ms <= repairing->purge_horizon_ms && room) {
        buf_put_short(&repairing->purge_keys, key);
        version_put(&repairing->purge_keys, record_version(&record));
    } else if (dead_ms < repairing->purge_earliest_ms) {
        repairing->purge_earliest_ms = dead_ms;
    }
}

void purge_scanned(struct shard *shard, enum status status)
{
    struct repairing *repairing = &shard->repairing;
    struct slot_state *state = slot_state_of(shard, repairing->purge_slot);
    repairing->purge_scan = NULL;
    if (status != STATUS_OK || repairing->purge_keys.failed || state == NULL) {
        buf_clear(&repairing->purge_keys);
        if (state != NULL)
            state->purge_at_ms = 0; /* nobody knows: it is looked at again */
        if (status == STATUS_CORRUPT)
            heal_scan_damaged(shard, repairing->purge_slot);
        return;
    }
    /* Changes since the scan began lowered purge_at by themselves; it was set to the end of time then. */
    state->dead = repairing->purge_dead;
    slot_tombstones_counted(state, repairing->purge_tombstones_before, repairing->purge_tombstones);
    if (repairing->purge_earliest_ms < state->purge_at_ms)
        state->purge_at_ms = repairing->purge_earliest_ms;
    state->tree_changed = true;
}

static bool erasing(const struct repairing *repairing)
{
    return repairing->purge_scan == NULL && repairing->purge_keys_at < repairing->purge_keys.size;
}

/* Whether there is more to erase at once. */
bool purge_runs(const struct shard *shard)
{
    return erasing(&shard->repairing) && shard->cold_waiting < PURGE_COLD_WAITING_MAX;
}

bool purge_at_work(const struct shard *shard, uint16_t slot)
{
    const struct repairing *repairing = &shard->repairing;
    return slot == repairing->purge_slot && (repairing->purge_scan != NULL || erasing(repairing));
}

/* The next rows that the last scan found. */
static void erase_found(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    struct slot_state *state = slot_state_of(shard, repairing->purge_slot);
    struct span found = buf_span(&repairing->purge_keys);
    struct reader keys =
        reader_of(span_of(found.data + repairing->purge_keys_at, found.size - repairing->purge_keys_at));
    bool serves = state != NULL && storage_slot_serves(shard, repairing->purge_slot);
    for (uint32_t i = 0; serves && i < PURGE_ERASES_PER_TURN && reader_left(&keys) > 0 && purge_runs(shard);
         i++) {
        struct task task = {.kind = TASK_ERASE, .origin = {.kind = ORIGIN_NOBODY}, .slot = state->slot};
        task.key = reader_short(&keys);
        task.version = version_read(&keys);
        storage_do(shard, &task);
    }
    repairing->purge_keys_at = serves ? found.size - reader_left(&keys) : found.size;
    /* What did not find room, or changed meanwhile, is found by the next scan. */
    if (!erasing(repairing) && state != NULL && state->dead > 0 && state->purge_at_ms == UINT64_MAX)
        state->purge_at_ms = 0;
}

static bool purge_slot(struct shard *shard, struct slot_state *state, decisecond when)
{
    struct repairing *repairing = &shard->repairing;
    struct scan_options options = {
        .kind = SCAN_PURGE, .slot = state->slot, .tag_first = 0, .tag_last = UINT16_MAX};
    repairing->purge_scan = scan_start(shard, &options);
    if (repairing->purge_scan == NULL)
        return false;
    repairing->purge_slot = state->slot;
    repairing->purge_horizon_ms = when == 0 ? 0 : slots_wall_ms(shard, when);
    repairing->purge_dead = 0;
    repairing->purge_tombstones = 0;
    repairing->purge_tombstones_before = state->tombstones;
    repairing->purge_earliest_ms = UINT64_MAX;
    buf_clear(&repairing->purge_keys);
    repairing->purge_keys_at = 0;
    state->purge_at_ms = UINT64_MAX;
    return true;
}

/* After the clock was stepped nothing is purged by it until the other nodes have judged it (membership.c). */
static bool clock_stepped(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    int64_t ahead_ms = (int64_t)shard->now.wall_ms - (int64_t)(shard->now.mono_us / 1000);
    int64_t stepped_ms = ahead_ms - repairing->purge_wall_ahead_ms;
    repairing->purge_wall_ahead_ms = ahead_ms;
    if (stepped_ms > -CLOCK_STEP_MS && stepped_ms < CLOCK_STEP_MS)
        return false;
    repairing->purge_next_us = shard->now.mono_us + CLOCK_JUDGED_US;
    return true;
}

void purge_turn_end(struct shard *shard)
{
    struct repairing *repairing = &shard->repairing;
    struct slots *slots = &repairing->slots;
    bool waiting = false;
    if (erasing(repairing)) {
        erase_found(shard);
        return;
    }
    if (repairing->purge_scan != NULL || shard->now.mono_us < repairing->purge_next_us ||
        !shard->options.healing.repair || clock_stepped(shard))
        return;
    repairing->purge_next_us = shard->now.mono_us + (shard->log.full ? TICK_INTERVAL_US : PURGE_INTERVAL_US);
    if (shard->log.full)
        return; /* nothing can be erased, and what was tried in vain would be scanned over and over */
    for (uint32_t i = 0; i < slots->count && i < PURGE_SLOTS_PER_TICK; i++) {
        if (repairing->purge_place >= slots->count)
            repairing->purge_place = 0;
        struct slot_state *state = &slots->states[repairing->purge_place++];
        if (state->cold_damaged != 0)
            continue;
        bool unknown = state->purge_at_ms == 0;
        struct merkle_info tree = {.lost = true};
        if (unknown)
            tree = merkle_info(&repairing->merkle, state->slot);
        /* Where the tree counts no row there is none to look at. */
        if (unknown && !tree.lost && tree.count == 0 && tree.leaves_dirty == 0) {
            state->purge_at_ms = UINT64_MAX;
            continue;
        }
        if (state->purge_at_ms > shard->now.wall_ms)
            continue;
        waiting = true;
        decisecond when = horizon(shard, state);
        /* A slot of which nothing is known is looked at once in any case, to know. */
        if (unknown || (when != 0 && slots_wall_ms(shard, when) >= state->purge_at_ms)) {
            (void)purge_slot(shard, state, when); /* without room for its scan it is looked at again */
            break;
        }
    }
    if (repairing->purge_scan == NULL)
        repairing->purge_next_us = shard->now.mono_us + TICK_INTERVAL_US;
    if (waiting)
        ask_hints(shard);
}

uint64_t purge_due_us(const struct shard *shard)
{
    const struct repairing *repairing = &shard->repairing;
    bool waits = repairing->purge_scan != NULL || erasing(repairing) || !shard->options.healing.repair;
    return waits ? UINT64_MAX : repairing->purge_next_us;
}
