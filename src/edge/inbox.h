/* The inbox of a shard: the only way in from other threads.
 *
 * Any thread pushes; the shard's loop takes everything at once by swapping two batches, so a push costs one short
 * lock and no allocation once the batches have grown. The receiver is woken at most once per batch. What the log
 * thread says is coalesced: the highest durable sequence and the latest "full" are all that matters.
 *
 * Nothing is ever lost, so the size is bounded by what others may have in flight: frames of other shards (each is
 * part of a request that its shard bounds, or an answer to one of ours), moved links (each a socket), and a
 * handful of notices. If the operating system has no memory for it the process ends: it could not keep its
 * promises. Messages of one sender are received in the order in which they were pushed. */
#ifndef RONDO_EDGE_INBOX_H
#define RONDO_EDGE_INBOX_H

#include <pthread.h>

#include "base/span.h"

/* A batch that grew past this is shrunk again once it was read. */
#define INBOX_KEPT_BYTES_MAX (256u << 10)

enum inbox_kind {
    INBOX_LOCAL = 1, /* bytes: frames of another shard */
    INBOX_LINK,  /* fd, link, node, bytes: a peer connection that is now this shard's, and its unread bytes */
    INBOX_STOP,  /* read and accept nothing more; answer with INBOX_IDLE (to shard 0) when nothing is left */
    INBOX_IDLE,  /* to shard 0: one shard has ended its requests */
    INBOX_CLOSE, /* close everything and leave the loop */
};

struct inbox_message {
    enum inbox_kind kind;
    int fd;
    uint64_t link;
    uint64_t node;
    struct span bytes; /* pushing: copied; taken: a view into the batch */
};

struct inbox_entry {
    struct inbox_message message; /* bytes.data is set when read: the batch's bytes may still move */
    size_t offset;
};

struct inbox_batch {
    struct alloc alloc;
    struct inbox_entry *entries;
    size_t count;
    size_t capacity;
    struct buf bytes;
    uint64_t durable_sequence; /* 0 = nothing new */
    bool full_changed;
    bool full;
};

struct inbox {
    pthread_mutex_t mutex;
    struct inbox_batch batches[2];
    unsigned filling; /* the batch that pushes go to; the other one is the receiver's */
    bool woken;       /* wake was called since the last take */
    void (*wake)(void *context);
    void *context;
};

/* wake(context) is called from pushing threads, outside the lock, and must cause one inbox_take soon. */
void inbox_init(struct inbox *inbox, void (*wake)(void *context), void *context);
void inbox_free(struct inbox *inbox);

void inbox_push(struct inbox *inbox, const struct inbox_message *message);
void inbox_push_durable(struct inbox *inbox, uint64_t sequence);
void inbox_push_full(struct inbox *inbox, bool full);

/* Receiver only: everything pushed so far; valid until the next take. */
struct inbox_batch *inbox_take(struct inbox *inbox);

/* The message at `index` of a taken batch. */
struct inbox_message inbox_message_at(const struct inbox_batch *batch, size_t index);

#endif
