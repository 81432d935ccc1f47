/* One slot of a dump: R of its replicas are asked for their rows, the rows are merged, and what they disagree about
 * is read once by a quorum. A replica that cannot answer is replaced by another one of the slot. */
#ifndef RONDO_CLI_DUMP_SLOT_H
#define RONDO_CLI_DUMP_SLOT_H

#include "cli/cluster_view.h"
#include "cli/dump_fetch.h"
#include "cli/row_merge.h"

/* What one slot keeps until the slots before it are written; past it, it asks for no more. */
#define DUMP_OUTPUT_BYTES_MAX (4u << 20)

#define DUMP_TEXT_BYTES_MAX 512

/* What all slots share. */
struct dump_options {
    struct cli *cli;
    const struct cluster_view *cluster;
    struct fetcher fetcher;
    bool local;                      /* one node's rows, as they are */
    uint8_t streams;                 /* replicas asked for each slot: R, or 1 */
    uint64_t retry_ms;               /* without progress for this long a slot fails */
    uint64_t avoid_until[NODES_MAX]; /* nodes that did not answer lately are asked last */
    uint64_t reads;                  /* rows that replicas disagreed about */
};

struct dump_slot {
    struct dump_options *options;
    bool open;
    bool done;   /* everything is in output */
    bool failed; /* for good: trouble says why */
    struct row_merge merge;
    uint8_t candidate_count;
    uint16_t candidates[REPLICAS_MAX]; /* nodes that hold the slot and can be asked */
    uint8_t source[REPLICAS_MAX];      /* by stream: which candidate it asks */
    struct fetch pages[REPLICAS_MAX];  /* by stream */
    struct fetch read;
    uint8_t read_source;
    uint64_t retry_at_ms;
    uint64_t backoff_ms;
    uint64_t progress_ms;
    struct buf target;
    struct buf output;
    uint64_t rows; /* in output since it was last taken */
    char trouble[DUMP_TEXT_BYTES_MAX];
};

/* Starts a slot; the caller later calls dump_slot_close. It may have failed at once. */
void dump_slot_open(struct dump_slot *slot, struct dump_options *options, uint16_t number, uint64_t now_ms);
void dump_slot_close(struct dump_slot *slot);

/* Does what can be done now; while output holds more than DUMP_OUTPUT_BYTES_MAX, that is nothing. */
void dump_slot_turn(struct dump_slot *slot, uint64_t now_ms, uint64_t wall_ms);

#endif
