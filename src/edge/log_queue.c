/* Batches on their way to the log thread. */
#include "edge/log_queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A queue larger than this is given back to the system once it is empty. */
#define LOG_QUEUE_KEEP_BYTES ((size_t)1 << 20)

static bool log_queue_reserve(struct log_queue *queue, size_t size)
{
    if (queue->capacity - queue->size >= size)
        return true;
    size_t capacity = queue->capacity > 0 ? queue->capacity : (size_t)64 << 10;
    while (capacity - queue->size < size)
        capacity *= 2;
    uint8_t *data = realloc(queue->data, capacity);
    if (data == NULL)
        return false;
    queue->data = data;
    queue->capacity = capacity;
    return true;
}

size_t log_queue_append(struct log_queue *queue, const struct log_queued *head, struct span payload)
{
    assert(head->size == payload.size);
    size_t size = sizeof(*head) + payload.size;
    if (!log_queue_reserve(queue, size))
        return 0;
    memcpy(queue->data + queue->size, head, sizeof(*head));
    if (payload.size > 0)
        memcpy(queue->data + queue->size + sizeof(*head), payload.data, payload.size);
    queue->size += size;
    return size;
}

struct log_queued log_queue_next(const struct log_queue *queue, size_t *at, struct span *payload)
{
    struct log_queued head;
    assert(*at + sizeof(head) <= queue->size);
    memcpy(&head, queue->data + *at, sizeof(head));
    *payload = span_of(queue->data + *at + sizeof(head), (size_t)head.size);
    *at += sizeof(head) + (size_t)head.size;
    return head;
}

void log_queue_take(struct log_queue *queue, struct log_queue *taken)
{
    struct log_queue empty = *taken;
    empty.size = 0;
    *taken = *queue;
    if (empty.capacity > LOG_QUEUE_KEEP_BYTES)
        log_queue_free(&empty);
    *queue = empty;
}

void log_queue_free(struct log_queue *queue)
{
    free(queue->data);
    *queue = (struct log_queue){0};
}
