/* Inboxes: two batches that are swapped under a lock. */
#include "edge/inbox.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

static _Noreturn void out_of_memory(void)
{
    static const char text[] = "level=error msg=\"out of memory for messages between shards; ending\"\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    _exit(1);
}

static void batch_init(struct inbox_batch *batch)
{
    *batch = (struct inbox_batch){0};
    alloc_init(&batch->alloc, SIZE_MAX);
    buf_init(&batch->bytes, &batch->alloc);
}

static void batch_free(struct inbox_batch *batch)
{
    buf_free(&batch->bytes);
    alloc_put(&batch->alloc, batch->entries, batch->capacity * sizeof *batch->entries);
    batch->entries = NULL;
    batch->capacity = 0;
    batch->count = 0;
}

/* Empties a batch that was read; gives back what a burst made it grow to. */
static void batch_reset(struct inbox_batch *batch)
{
    if (batch->alloc.used_bytes > INBOX_KEPT_BYTES_MAX)
        batch_free(batch);
    batch->count = 0;
    buf_clear(&batch->bytes);
    batch->durable_sequence = 0;
    batch->full_changed = false;
}

void inbox_init(struct inbox *inbox, void (*wake)(void *context), void *context)
{
    *inbox = (struct inbox){.wake = wake, .context = context};
    int failed = pthread_mutex_init(&inbox->mutex, NULL);
    assert(failed == 0);
    batch_init(&inbox->batches[0]);
    batch_init(&inbox->batches[1]);
}

void inbox_free(struct inbox *inbox)
{
    batch_free(&inbox->batches[0]);
    batch_free(&inbox->batches[1]);
    pthread_mutex_destroy(&inbox->mutex);
}

static struct inbox_batch *lock_filling(struct inbox *inbox)
{
    pthread_mutex_lock(&inbox->mutex);
    return &inbox->batches[inbox->filling];
}

static void unlock_and_wake(struct inbox *inbox)
{
    bool wake = !inbox->woken;
    inbox->woken = true;
    pthread_mutex_unlock(&inbox->mutex);
    if (wake)
        inbox->wake(inbox->context);
}

void inbox_push(struct inbox *inbox, const struct inbox_message *message)
{
    struct inbox_batch *batch = lock_filling(inbox);
    if (batch->count == batch->capacity) {
        size_t capacity = batch->capacity == 0 ? 16 : batch->capacity * 2;
        struct inbox_entry *entries = alloc_resize(
            &batch->alloc, batch->entries, batch->capacity * sizeof *entries, capacity * sizeof *entries);
        if (entries == NULL)
            out_of_memory();
        batch->entries = entries;
        batch->capacity = capacity;
    }
    struct inbox_entry *entry = &batch->entries[batch->count++];
    entry->message = *message;
    entry->offset = batch->bytes.size;
    buf_append_span(&batch->bytes, message->bytes);
    if (batch->bytes.failed)
        out_of_memory();
    unlock_and_wake(inbox);
}

void inbox_push_durable(struct inbox *inbox, uint64_t sequence)
{
    struct inbox_batch *batch = lock_filling(inbox);
    if (batch->durable_sequence < sequence)
        batch->durable_sequence = sequence;
    unlock_and_wake(inbox);
}

void inbox_push_full(struct inbox *inbox, bool full)
{
    struct inbox_batch *batch = lock_filling(inbox);
    batch->full_changed = true;
    batch->full = full;
    unlock_and_wake(inbox);
}

struct inbox_batch *inbox_take(struct inbox *inbox)
{
    /* The batch that is not filling is the receiver's alone: it is emptied outside the lock. */
    batch_reset(&inbox->batches[inbox->filling ^ 1]);
    struct inbox_batch *taken = lock_filling(inbox);
    inbox->filling ^= 1;
    inbox->woken = false;
    pthread_mutex_unlock(&inbox->mutex);
    return taken;
}

struct inbox_message inbox_message_at(const struct inbox_batch *batch, size_t index)
{
    assert(index < batch->count);
    struct inbox_message message = batch->entries[index].message;
    if (message.bytes.size > 0)
        message.bytes.data = batch->bytes.data + batch->entries[index].offset;
    return message;
}
