/* How a shard heals: range reads, Merkle trees, hints, anti-entropy, purge. For the files of this folder only.
 *
 *   scan.c      rows of a range, in order, from memtable and cold tier
 *   trees.c     Merkle trees kept true: changes, rescans, persistence
 *   blind.c     fresh writes that win without a look at the cold tier
 *   slots.c     what is known of each slot: purge floor, verified times, tombstones
 *   handoff.c   hints: kept for writes that replicas missed, replayed
 *   marks.c     slots to be compared where no hint was kept
 *   antientropy.c  anti-entropy begun here: which slots, with whom, when
 *   serve.c     anti-entropy begun elsewhere
 *   floors.c    purge floors between replicas, and what they decide
 *   heal.c      slots that do not serve (amnesia, quarantine) until they are merged from all other replicas
 *   purge.c     tombstones and expired rows, and what keeps them
 *   rows.c      a slot's rows, for /local/rows
 *   describe_healing.c  all of this in /status */
#ifndef RONDO_SHARD_HEALING_H
#define RONDO_SHARD_HEALING_H

#include "base/list.h"
#include "repair/exchange.h"
#include "repair/hints.h"
#include "repair/merkle.h"
#include "store/memtable.h"

/* Deciseconds of the monotonic clock since the shard started, from 1: fine enough for background work and small
 * enough to keep for every slot and replica. Rounded down: an exchange began no earlier than its number says. */
typedef uint32_t decisecond;
#define DECISECOND_MS 100u

/* ---- ranges of rows ------------------------------------------------------------------------------------- */

enum scan_kind {
    SCAN_RESCAN = 1, /* trees.c */
    SCAN_EXCHANGE,   /* exchange.c */
    SCAN_SERVE,      /* serve.c; owner: struct serving */
    SCAN_HINTS,      /* handoff.c */
    SCAN_PURGE,      /* purge.c */
    SCAN_ROWS,       /* rows.c; owner: struct rows_page */
};

/* Rows of a dirty overlay beyond which a scan ends early (and says so), if it may. */
#define SCAN_OVERLAY_ROWS 1024u

struct scan_entry {
    size_t key_at; /* in overlay */
    uint32_t key_size;
    uint32_t record_size;
};

/* One range being read. The rows are those of the moment it began: the memtable's dirty rows of the range are copied
 * then (the overlay), and the world takes its snapshot of the cold tier then. Rows come in the order of cold keys. */
struct scan {
    struct list_link ready; /* in shard->scans_ready: something can be done without the world */
    enum scan_kind kind;
    void *owner;
    uint64_t ticket;
    uint16_t slot; /* SLOTS_COUNT: reserved rows */
    bool may_end_early;
    bool reading; /* the world reads a page */
    bool opened;  /* the world has it open */
    bool truncated;
    bool finished; /* the cold tier has no more */
    enum status status;
    struct buf first; /* cold keys: from this one, */
    struct buf end;   /* up to, not including, this one */
    struct buf overlay;
    struct scan_entry *entries; /* sorted */
    uint32_t entry_count;
    uint32_t entry_capacity;
    uint32_t entry_at;
    struct buf page; /* the last page, while it is fed */
};

struct scan_options {
    enum scan_kind kind;
    void *owner;
    uint16_t slot;      /* SLOTS_COUNT: reserved rows, by first and end */
    uint16_t tag_first; /* of a slot: both included */
    uint16_t tag_last;
    struct span first; /* reserved rows: cold keys; of a slot: start after this cold key if not empty */
    struct span end;
    bool point; /* of a slot: only the row with this key (in `first`, without prefix) */
    bool may_end_early;
};

/* ---- slots ---------------------------------------------------------------------------------------------- */

/* A high water that is not known: nothing is above it. */
#define HIGH_WATER_UNKNOWN UINT64_MAX

/* What is known of a slot that this shard replicates. */
struct slot_state {
    struct stamp floor; /* purge floor: the highest stamp purged */
    uint64_t newest; /* the highest time of a stamp stored in any of its rows, as far as is known (blind.c) */
    uint64_t high_water; /* no row of it in the cold tier has a stamp of a higher time */
    uint64_t
        purge_at_ms; /* wall clock: no dead row is old enough before; 0 = not known, UINT64_MAX = no dead row */
    decisecond late;    /* a row that was old already came in then */
    decisecond tainted; /* rows came from a replica that did not serve */
    decisecond
        blind_first;       /* the first and the last write since its tree was known that was not looked at; */
    decisecond blind_last; /* 0: there was none */
    decisecond cold_damaged; /* a scan of it met damage in the cold tier then; 0: none, or it is gone */
    uint32_t
        dead; /* rows that are dead or mortal: tombstones, rows with an expiry, overrides without a value: about */
    uint32_t tombstones; /* of them, those without a value */
    uint32_t blind;      /* writes that nobody looked at, and no rescan has counted: some are of new keys */
    uint16_t slot;
    bool tree_changed;  /* since it was last put into a flush */
    bool tree_in_flush; /* in the flush under way */
    bool tree_in_cold;  /* the cold tier may hold one */
    bool
        began_empty; /* the cold tier had no row of it when this process began to keep it; false = not known */
};

struct slots {
    struct slot_state *states; /* of the slots replicated by this node in this shard, ascending */
    uint16_t *index;           /* slot to place in states; UINT16_MAX = not ours */
    uint32_t count;
    uint8_t others;       /* replicas besides this one */
    decisecond *verified; /* [place][which of the slot's other replicas, in ring order] */
};

/* ---- hints ---------------------------------------------------------------------------------------------- */

struct handoff {
    struct hints books;
    struct scan *scan;   /* of the target being replayed, or NULL */
    uint64_t target;     /* of that scan */
    uint64_t bytes_left; /* of the turn */
    uint32_t hints_left;
    uint64_t again_us;    /* nothing to do before */
    uint64_t scan_us;     /* hints are not looked for before */
    uint64_t sent_us;     /* a hint was last sent or answered */
    uint64_t number_base; /* of the numbers in frames */
    uint64_t stored;      /* hints written */
    uint64_t discarded;   /* not written: their record was past every deadline */
    bool unknown; /* after a start, until all hints have been counted: none is kept or replayed before */
    struct buf counted; /* the last one counted */
};

/* ---- anti-entropy --------------------------------------------------------------------------------------- */

/* An exchange begun here. One at a time. */
struct initiating {
    struct exchange *exchange; /* or NULL */
    struct scan *scan;
    uint64_t node;
    uint8_t peer_shard;
    uint64_t session;
    decisecond started;
    bool sent; /* the message under way */
    uint64_t sent_us;
    uint8_t tries;
    bool merges_given;
    bool merge_failed;
    bool given_up;
    bool ending;            /* all is compared; it ends once the log has all of it */
    uint32_t merging;       /* merges that are not durable yet */
    uint32_t settling;      /* rows dropped, floors taken over and rows compared that are not durable yet */
    struct buf floors;      /* purge floors at its start: they go with records */
    struct buf peer_floors; /* those that came with the last answer */
};

/* One served for another node. */
#define SERVINGS_MAX 8u
struct serving {
    struct exchange_serve *serve; /* NULL = free */
    struct buf merges;            /* struct exchange_record: what the request brought; views into it */
    struct scan *scan;
    uint64_t node;
    uint64_t request;
    uint64_t number; /* tells late merges of an earlier one in this place apart */
    uint8_t shard;
    bool given;    /* all its merges */
    bool answered; /* the answer waits until the log is durable */
    bool merge_failed;
    uint32_t merging;
    uint64_t began_us;
    struct buf floors;  /* of the slots concerned, as they were when the request came */
    struct buf refused; /* keys of the records that were purged here */
    uint32_t refused_count;
    struct buf answer;
};

/* Slots of one exchange: their roots fit a small message, and a broken exchange loses little. */
#define EXCHANGE_SLOTS 256u

/* An exchange that another node began: what its end will say is equal. */
struct begun {
    uint64_t session;
    decisecond when; /* its roots were compared with ours */
    uint32_t count;
    uint16_t slots[EXCHANGE_SLOTS];
};

struct repair_counters {
    uint64_t exchanges;
    uint64_t exchanges_failed;
    uint64_t exchange_slots;
    uint64_t slots_differed;
    uint64_t bytes_sent;
    uint64_t bytes_received;
    uint64_t records_sent;
    uint64_t records_received;
    uint64_t rows_read;
    uint64_t rescans;
    uint64_t leaves_wrong;
    uint64_t purged;
    uint64_t floor_refusals;
    uint64_t slots_healed;
};

struct repairing {
    struct merkle merkle;
    struct alloc tree_alloc;
    struct slots slots;
    struct handoff handoff;
    struct initiating initiating;
    struct serving servings[SERVINGS_MAX];
    struct repair_counters counters;

    /* Which exchange comes next: position in the round over (peer, slots). */
    uint16_t round_peer;
    uint16_t round_shard;   /* of the peer */
    uint32_t round_slot;    /* place in slots */
    uint64_t round_next_us; /* the next regular exchange */
    uint64_t rounds;
    uint64_t round_began_us; /* 0 = the first, at the start */
    uint64_t look_us;        /* nothing to begin before */
    int64_t budget_bytes;
    uint64_t budget_us;

    /* Rescans: dirty leaves, lost slots, and the slow round over everything. */
    struct scan *rescan;
    uint16_t rescan_slot;
    uint32_t rescan_place; /* where to look for dirty leaves next */
    uint32_t verify_place; /* the slow round */
    uint64_t verify_next_us;
    uint32_t rescan_leaf;      /* in that slot: from this one on */
    bool rescan_whole;         /* it covers the whole slot */
    bool rescan_waits;         /* for its turn, in which nothing else need happen */
    uint64_t rescan_newest;    /* the highest time of a stamp that it has seen */
    uint64_t rescan_rows;      /* that it has seen */
    uint64_t rescan_lazy_us;   /* no slot with blind writes is rescanned before */
    uint64_t rescan_sample_us; /* then one is, though it is being written to */
    uint64_t rescan_count; /* rows of the slot at rescan_place, and its blind writes, when its turn began */
    uint32_t rescan_blind;
    uint64_t blind_counted;     /* blind writes that rescans counted lately, */
    uint64_t blind_new;         /* and those of them that were of new keys */
    uint32_t rescan_tombstones; /* that it has seen */
    uint32_t rescan_tombstones_before;
    uint64_t rescan_not_before_us;
    bool trees_kept;     /* the cold tier holds trees, at start: all that there are */
    bool trees_complete; /* no more are to be found */

    /* Purge. */
    struct scan *purge_scan;
    struct buf purge_keys; /* candidates of the slot being scanned: packed key and version */
    size_t purge_keys_at;  /* of them, erased */
    uint16_t purge_slot;
    uint32_t purge_place;
    uint64_t hints_ask_us;
    uint64_t heal_us;
    uint64_t purge_horizon_ms;
    int64_t purge_wall_ahead_ms; /* real minus monotonic time, at the last look */
    uint64_t purge_next_us;
    uint32_t purge_dead;
    uint32_t purge_tombstones;
    uint32_t purge_tombstones_before;
    uint64_t purge_earliest_ms;
};

/* ---- pages of rows -------------------------------------------------------------------------------------- */

/* Pages that a shard reads at once: enough for two dumps; each may hold the largest row. */
#define ROWS_PAGES_MAX 8u

struct rows_page {
    bool used;
    uint8_t to_shard; /* who asked */
    uint64_t ticket;
    uint16_t slot;
    uint8_t end;         /* enum page_end */
    uint32_t bytes_max;  /* 0: only the number of keys is asked for */
    uint32_t keys_max;   /* > 0: only keys with a live value, and no more of them (keys.c) */
    uint16_t slots_left; /* some key of any slot: these follow, while none was found */
    uint16_t tag_first;  /* the scan begins here in the slot */
    uint64_t keys;       /* of the shard: how much its answer counts among those of others */
    uint32_t count;
    size_t bytes;
    uint64_t sequence; /* the answer waits until the log is durable up to this batch */
    struct buf rows;
    struct buf next;
};

/* ---- between the files ---------------------------------------------------------------------------------- */

struct event;
struct command;
struct frame;
struct held;
struct peer;
struct pending;
struct replica_origin;
struct shard;
struct task;

/* scan.c: the owner's *_row is called for each row and its *_read (or *_done) once, at the end of a later turn, unless
 * the scan was stopped. NULL: no memory. */
struct scan *scan_start(struct shard *shard, const struct scan_options *options);
struct scan *scan_need(struct shard *shard, enum scan_kind kind, void *owner,
                       const struct exchange_need *need);
void scan_stop(struct shard *shard, struct scan *scan);
void scan_page(struct shard *shard, const struct event *event);
void scans_turn_begin(struct shard *shard);
void scans_turn_end(struct shard *shard);
void scans_free(struct shard *shard);

/* slots.c */
/* The table for the ring in force; slots_adopt puts it in place of the old one. */
MUST_CHECK enum status slots_make(struct shard *shard, struct slots *slots);
void slots_adopt(struct shard *shard, struct slots *slots);
void slots_drop(struct shard *shard, struct slots *slots);
void slots_free(struct shard *shard);
decisecond slots_now(const struct shard *shard);
decisecond slots_then(const struct shard *shard, uint64_t mono_us);
uint64_t slots_wall_ms(const struct shard *shard, decisecond then);
/* The first decisecond that began less than so long ago; of all of those since the start, if it is longer ago. */
decisecond slots_since(const struct shard *shard, uint64_t ago_ms);
struct slot_state *slot_state_of(const struct shard *shard, uint16_t slot);
/* Whether every row of the slot is in memory: the cold tier had none when this process began to keep it, and none was
 * evicted since. What comes to be known by a damaged, foreign or older cold tier, or with a new ring, is not. */
bool slot_resident(const struct shard *shard, uint16_t slot);

/* A write to the slot follows: what it counts in comes into the processor's cache while the row is looked up. */
void slot_prefetch(const struct shard *shard, uint16_t slot);
decisecond slot_verified(const struct shard *shard, const struct slot_state *state, uint16_t node);
decisecond slot_verified_by_all(const struct shard *shard, const struct slot_state *state);
void slot_note_verified(struct shard *shard, uint16_t slot, uint16_t node, decisecond started);
/* How old a dead row must be to be purged. */
uint64_t slot_dead_age_ms(const struct shard *shard);
/* When a row may be purged by its age (wall clock); UINT64_MAX: it lives. */
uint64_t slot_dead_ms(const struct shard *shard, const struct record *record);
/* Keys that the slot holds here: rows without tombstones. Exact once its tree is. */
uint64_t slot_keys(const struct shard *shard, const struct slot_state *state);
/* The same of all slots of the shard. */
uint64_t slots_keys(const struct shard *shard);
/* A scan of the whole slot has counted the tombstones that it had when there were `before` of them. */
void slot_tombstones_counted(struct slot_state *state, uint32_t before, uint32_t counted);
void slot_row_changed(struct shard *shard, uint16_t slot, const struct record *before,
                      const struct record *after);
/* A row was written: noted if it is one that should have come long ago. */
void slot_row_came(struct shard *shard, uint16_t slot, const struct record *record);
/* For those who look: dead rows, and about how many of them are no tombstones; slots that do not serve; how long ago
 * the slot was compared that was compared longest ago, with the replica with which it was. */
uint64_t slots_dead(const struct shard *shard);
uint64_t slots_expiring(const struct shard *shard);
uint32_t slots_not_serving(const struct shard *shard);
decisecond slots_age(const struct shard *shard);
bool slot_raise_floor(struct shard *shard, struct slot_state *state, struct stamp stamp);
enum status slot_floor_found(struct shard *shard, uint16_t slot, struct span record);

/* trees.c */
void trees_init(struct shard *shard);
void trees_free(struct shard *shard);
void trees_row_changed(struct shard *shard, uint16_t slot, struct span key, const struct record *before,
                       const struct record *after);
void trees_row_replayed(struct shard *shard, uint16_t slot, struct span key);
/* Trees serialised in one turn: some hundred microseconds. */
#define TREES_PER_TURN 256u
/* Adds the trees of the next slots to the flush job; false: no memory, the job must be given up. */
bool trees_flush_slice(struct shard *shard, uint32_t trees_max);
void trees_flush_over(struct shard *shard, bool done);
void trees_found(struct shard *shard, uint16_t slot, struct span bytes);
void trees_start(struct shard *shard);
void trees_rescan_row(struct shard *shard, struct span key, struct span bytes);
void trees_rescan_done(struct shard *shard, enum status status);
void trees_turn_end(struct shard *shard);
uint64_t trees_due_us(const struct shard *shard);

/* blind.c */
/* A row was stored, or replayed. */
void blind_stored(struct shard *shard, uint16_t slot, const struct record *record);
/* The slot's tree goes cold, and with it rows that were stored before: its high water from now on. */
uint64_t blind_goes_cold(struct slot_state *state);
/* That the disk says so, or that it holds no row of the slot (0). */
void blind_found(struct slot_state *state, uint64_t high_water);
/* A scan of the whole slot has seen no stamp of a higher time. */
void blind_scanned(struct slot_state *state, uint64_t newest);
/* Whether the task, about a key that is not resident, writes what wins over anything that the cold tier may hold. */
bool blind_wins(const struct shard *shard, const struct task *task);
/* Such a write was stored. */
void blind_written(struct shard *shard, uint16_t slot, struct span key);
/* A rescan has found out what so many of them were: so many rows more. */
void blind_counted(struct shard *shard, struct slot_state *state, uint32_t writes, int64_t rows_more);
/* How many rows the slot has that its tree does not count: a guess. */
uint64_t blind_rows(const struct shard *shard, const struct slot_state *state);

/* handoff.c */
void handoff_init(struct shard *shard);
void handoff_start(struct shard *shard);
void handoff_free(struct shard *shard);
/* A replica missed this write. */
void handoff_keep(struct shard *shard, uint64_t target, uint16_t slot, struct span key, struct span record);
/* The same, and it is not even worth a hint: the slot is to be compared with the target. */
void handoff_flag(struct shard *shard, uint64_t target, uint16_t slot);
/* Makes a task about a key one about the hint for it; the hint's key is put into `hint`. False: it cannot be. */
bool handoff_task(struct buf *hint, uint64_t target, struct task *task);
void handoff_put(struct shard *shard, const struct task *task, const struct held *held);
void handoff_get(struct shard *shard, const struct task *task, const struct held *held);
void handoff_erase(struct shard *shard, const struct task *task, const struct held *held);
bool handoff_row(struct shard *shard, struct span hint_key, struct span row);
void handoff_read(struct shard *shard, enum status status, bool truncated);
bool handoff_answered(struct shard *shard, uint64_t number, enum status status);
void handoff_turn_end(struct shard *shard);
uint64_t handoff_due_us(const struct shard *shard);
void handoff_node_changed(struct shard *shard, uint64_t node, bool up);
void handoff_ring_changed(struct shard *shard);

/* marks.c */
/* The slot is to be compared with the target. */
void marks_set(struct shard *shard, uint64_t target, uint16_t slot);
/* The books have marked it in place of a hint; before, the target had so many marks. */
void marks_converted(struct shard *shard, uint64_t target, uint16_t slot, uint32_t before);
/* Recovery: a sync mark, or (without a record) its end. */
enum status marks_found(struct shard *shard, struct span key, struct span record);
/* Drops those that nobody can do anything about since the ring changed. */
void marks_sweep(struct shard *shard);
/* An exchange of the slot with the target has ended. */
void marks_compared(struct shard *shard, uint64_t target, uint16_t slot, bool verified);
/* Slots that are marked to be compared, of all targets. */
uint32_t marks_count(const struct shard *shard);

/* antientropy.c */
void antientropy_init(struct shard *shard);
void antientropy_free(struct shard *shard);
void antientropy_turn_end(struct shard *shard);
bool antientropy_runs(const struct shard *shard);
/* When the next exchange may begin. */
uint64_t antientropy_due_us(const struct shard *shard);
void antientropy_ring_changed(struct shard *shard);
void antientropy_node_down(struct shard *shard, uint64_t node);
void antientropy_node_up(struct shard *shard, uint64_t node);
void initiating_row(struct shard *shard, struct span key, struct span record);
void initiating_read(struct shard *shard, enum status status);
void initiating_merged(struct shard *shard, uint64_t session, enum status status);
enum status initiating_answer(struct shard *shard, uint64_t node, const struct frame *frame);
/* In the number of what is counted in `settling`; without it, a merge. */
#define INITIATING_SETTLES_BIT (UINT64_C(1) << 63)
struct replica_origin initiating_settles(struct initiating *initiating);

/* floors.c */
#define FLOOR_BYTES 19u /* of a slot in a list of floors */
void floors_put(const struct shard *shard, struct buf *buf, uint16_t slot);
void floors_put_list(struct buf *buf, struct span floors);
enum status floors_read(struct reader *reader, struct span *floors);
struct stamp floors_of(struct span floors, uint16_t slot, bool *serves);
void repair_merge(struct shard *shard, const struct exchange_record *record, struct span floors,
                  const struct replica_origin *origin);
void floors_adopt(struct shard *shard);
/* Takes the list of refused rows off the front of an answer. */
enum status floors_drop_refused(struct shard *shard, struct reader *reader);

/* serve.c */
void servings_free(struct shard *shard);
/* Their askers ask again. */
void servings_stop(struct shard *shard);
enum status serve_request(struct shard *shard, uint64_t node, const struct frame *frame);
enum status serve_done(struct shard *shard, struct peer *peer, const struct frame *frame);
void serving_row(struct serving *serving, struct span key, struct span record);
void serving_read(struct shard *shard, struct serving *serving, enum status status);
void serving_merged(struct shard *shard, uint64_t request, enum status status);

/* heal.c */
void heal_damaged(struct shard *shard, uint16_t slot, const char *why);
/* A scan of the slot ended at damage in the cold tier. */
void heal_scan_damaged(struct shard *shard, uint16_t slot);
/* Whether a scan of the slot would only meet that damage again. */
bool heal_scan_hopeless(const struct shard *shard, const struct slot_state *state);
void heal_start(struct shard *shard);
void heal_everything(struct shard *shard);
void heal_recount(struct shard *shard);
uint32_t heal_slots_left(const struct shard *shard);
enum status heal_marks(struct shard *shard, const struct frame *frame);
void heal_turn_end(struct shard *shard);

/* purge.c */
enum purge_blocker {
    PURGE_FREE,
    PURGE_BLOCKED_CLOCK,
    PURGE_BLOCKED_NOT_SERVING,
    PURGE_BLOCKED_HINTS,
    PURGE_BLOCKED_NOT_VERIFIED,
    PURGE_BLOCKED_NOT_ASKED,
    PURGE_BLOCKED_UNREACHABLE,
};
#define PURGE_BLOCKERS (PURGE_BLOCKED_UNREACHABLE + 1)
enum purge_blocker purge_blocked(struct shard *shard, const struct slot_state *state, decisecond needed,
                                 uint64_t *node);
const char *purge_blocker_name(enum purge_blocker blocker);
void purge_free(struct shard *shard);
void purge_row(struct shard *shard, struct span key, struct span bytes);
void purge_scanned(struct shard *shard, enum status status);
bool purge_runs(const struct shard *shard);
/* Whether dead rows of the slot are being looked for or erased: its purge_at says nothing yet. */
bool purge_at_work(const struct shard *shard, uint16_t slot);
void purge_turn_end(struct shard *shard);
uint64_t purge_due_us(const struct shard *shard);
enum status purge_hints_asked(struct shard *shard, struct peer *peer, const struct frame *frame);
enum status purge_hints_held(struct shard *shard, struct peer *peer, const struct frame *frame);

/* describe_healing.c */
struct healing_sum;
void healing_ask(struct shard *shard, struct pending *pending);
void healing_asked(struct shard *shard, const struct frame *frame);
void healing_answered(struct shard *shard, const struct frame *frame);
/* Members of an object, each after a comma. */
void healing_json(const struct shard *shard, const struct healing_sum *sum, struct buf *json);
void healing_free(struct shard *shard, struct healing_sum *sum);

/* rows.c */
void rows_page_ask(struct shard *shard, struct pending *pending, const struct command *command);
void rows_count_ask(struct shard *shard, struct pending *pending, const struct command *command);
void rows_asked(struct shard *shard, const struct frame *frame);
void rows_answered(struct shard *shard, uint64_t ticket, struct span bytes);
bool rows_row(struct shard *shard, struct rows_page *page, struct span key, struct span record);
/* A page's next scan, behind the cold key `first` or from page->tag_first on. */
MUST_CHECK enum status rows_scan(struct shard *shard, struct rows_page *page, struct span first);
/* The page is free for another question; NULL: there is none. */
struct rows_page *rows_page_new(struct shard *shard, const struct rows_page *wanted, uint16_t slot);
void rows_page_free(struct rows_page *page);
/* The answer without rows. */
void rows_answer_short(struct shard *shard, const struct rows_page *page, enum status status, uint64_t keys);
/* Asks the shard `target`; slot SLOTS_COUNT: any. */
void rows_ask(struct shard *shard, struct pending *pending, uint16_t target, uint16_t slot,
              const struct rows_page *wanted, struct span after);

/* keys.c: keys of this node (CLUSTER GETKEYSINSLOT, RANDOMKEY). */
void keys_slot_ask(struct shard *shard, struct pending *pending, const struct command *command);
void keys_random_ask(struct shard *shard, struct pending *pending);
/* The shard is asked for some key of any of its slots. */
void keys_any_asked(struct shard *shard, const struct rows_page *wanted);
bool keys_row(struct shard *shard, struct rows_page *page, struct span key, struct span record);
/* Nothing was found so far. WAIT: the next scan is under way; else the page ends with this status. */
MUST_CHECK enum status keys_go_on(struct shard *shard, struct rows_page *page);
void keys_answered(struct shard *shard, struct pending *pending, uint64_t keys, struct reader *rows);
void rows_read(struct shard *shard, struct rows_page *page, enum status status, bool truncated,
               struct span reached);
void rows_durable(struct shard *shard, uint64_t number, enum status status);
void rows_free(struct shard *shard);

#endif
