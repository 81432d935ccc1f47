/* Batches on their way to the log thread: heads and payloads, one after the other, in one block of memory.
 *
 * Two of these change places under the log's lock: appending is one copy, taking everything is none. It never leaves
 * memory, so heads are plain structs. */
#ifndef RONDO_EDGE_LOG_QUEUE_H
#define RONDO_EDGE_LOG_QUEUE_H

#include "base/span.h"

/* A batch; its payload follows. */
struct log_queued {
    uint64_t sequence;
    uint64_t size;
    uint32_t entries;
    uint16_t shard;
    bool has_bounds;
};

struct log_queue {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

/* Appends one batch; its bytes with the head, or 0 when there is no memory. */
size_t log_queue_append(struct log_queue *queue, const struct log_queued *head, struct span payload);

/* The batch at an offset below queue->size; *at becomes that of the next. The payload is a view. */
struct log_queued log_queue_next(const struct log_queue *queue, size_t *at, struct span *payload);

/* Moves what waits to `taken`, of which everything is used; memory past a bound is given back. */
void log_queue_take(struct log_queue *queue, struct log_queue *taken);

void log_queue_free(struct log_queue *queue);

#endif
