/* Runs of a data directory. */
#include "model/run.h"

#include <assert.h>
#include <string.h>

void run_begin(struct run_history *history, uint64_t id)
{
    assert(id != 0);
    if (history->now.id != 0) {
        uint8_t kept = history->past_count;
        if (kept == RUNS_PAST_MAX)
            history->forgotten = history->past[--kept].count;
        memmove(history->past + 1, history->past, kept * sizeof history->past[0]);
        history->past[0] = history->now;
        history->past_count = (uint8_t)(kept + 1);
    }
    history->now.count++;
    history->now.id = id;
}

bool run_follows(const struct run_history *history, struct run seen)
{
    if (seen.id == history->now.id)
        return true;
    for (uint8_t i = 0; i < history->past_count; i++) {
        /* It may have run on after this copy was made. */
        if (history->past[i].id == seen.id)
            return seen.count <= history->past[i].count;
    }
    return seen.count <= history->forgotten;
}

void run_history_put(struct buf *buf, const struct run_history *history)
{
    buf_put_u64(buf, history->now.count);
    buf_put_u64(buf, history->now.id);
    buf_put_u64(buf, history->forgotten);
    buf_put_u8(buf, history->past_count);
    for (uint8_t i = 0; i < history->past_count; i++) {
        buf_put_u64(buf, history->past[i].count);
        buf_put_u64(buf, history->past[i].id);
    }
}

void run_history_read(struct reader *reader, struct run_history *history)
{
    history->now.count = reader_u64(reader);
    history->now.id = reader_u64(reader);
    history->forgotten = reader_u64(reader);
    uint8_t past_count = reader_u8(reader);
    if (past_count > RUNS_PAST_MAX) {
        reader->failed = true;
        past_count = 0;
    }
    history->past_count = past_count;
    for (uint8_t i = 0; i < past_count; i++) {
        history->past[i].count = reader_u64(reader);
        history->past[i].id = reader_u64(reader);
    }
}
