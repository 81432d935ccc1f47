/* How far a data directory has come, so that an older copy of it is told from its restart (DESIGN section 6, amnesia).
 *
 * A run is one life of a node's process on a directory. It has an id, drawn at the start, and a count, which is raised,
 * durably, at every start before anything is sent, and every minute of the run. The other nodes remember the newest
 * run that they saw of the directory. The directory itself remembers its last runs and the counts they ended with: what
 * the others saw is among them, or it is of a newer state, and the directory is an older copy. A count alone could not
 * say that: an older copy that was started several times, or ran for long, has a high one too. */
#ifndef RONDO_MODEL_RUN_H
#define RONDO_MODEL_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

/* A copy that is started oftener than this before anybody judges it may be taken for current. */
#define RUNS_PAST_MAX 16

/* A run as far as it had come; id 0: none was seen. */
struct run {
    uint64_t count;
    uint64_t id;
};

struct run_history {
    struct run now;
    uint64_t forgotten; /* the count that the newest run ended with that is not remembered; 0: all are */
    uint8_t past_count;
    struct run past[RUNS_PAST_MAX]; /* those before, newest first */
};

/* A start. id: random, not 0. */
void run_begin(struct run_history *history, uint64_t id);

/* Whether `seen` is the present run, or a state that the present run came from. Up to the
 * count `forgotten` there is only the count to tell, and it is taken for one. */
bool run_follows(const struct run_history *history, struct run seen);

/* u64 count | u64 id | u64 forgotten | u8 past, each u64 count | u64 id. */
void run_history_put(struct buf *buf, const struct run_history *history);

/* Sets reader->failed if there are more than RUNS_PAST_MAX. */
void run_history_read(struct reader *reader, struct run_history *history);

#endif
