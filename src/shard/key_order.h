/* A connection's commands on a key take effect in the order in which they were sent.
 *
 * Mostly they do by themselves: what leaves for the replicas first arrives first. Two kinds could be overtaken. One
 * that reads and then writes (EXPIRE, GETEX, SET KEEPTTL) leaves twice, and others could pass it between: it waits for
 * what the connection sent before it for the same slot, and what comes after it for that slot waits for it. A read may
 * ask one more replica later (a hedge), which then could hold what the connection wrote after it: a write waits for
 * the reads before it. A read never waits for a plain write.
 *
 * Slots stand for keys: a command has its slot in any case, and two keys of one rarely meet. Where only reads, or only
 * plain writes, are under way nothing is looked at. */
#ifndef RONDO_SHARD_KEY_ORDER_H
#define RONDO_SHARD_KEY_ORDER_H

#include "shard/state.h"

/* What a command does with its keys. */
enum key_access {
    KEY_ACCESS_NONE, /* it has none, or came by HTTP */
    KEY_ACCESS_READS,
    KEY_ACCESS_WRITES,
    KEY_ACCESS_READS_FIRST, /* and then writes */
};

/* A command goes to one more slot. */
static inline void key_order_slot(struct pending *pending, uint16_t slot)
{
    pending->slot = slot;
    pending->slot_mask |= UINT64_C(1) << slot % 64;
}

static inline enum key_access key_access_of(const struct command *command)
{
    if (command->operation == 0)
        return KEY_ACCESS_NONE;
    if (operation_reads_first(command->operation, command->flags))
        return KEY_ACCESS_READS_FIRST;
    return command->operation == OPERATION_GET ? KEY_ACCESS_READS : KEY_ACCESS_WRITES;
}

/* Notes the command. Whether it must be looked at here any further. */
static inline bool key_order_matters(struct pending *pending, const struct command *command)
{
    struct client *client = pending->client;
    enum key_access access = key_access_of(command);
    bool behind_reads = access == KEY_ACCESS_WRITES && client->reads > 0;
    pending->access = (uint8_t)access;
    client->reads += access == KEY_ACCESS_READS;
    return client->ordered > 0 || access == KEY_ACCESS_READS_FIRST || behind_reads;
}

/* The words of a command that waits for its turn. */
struct words {
    uint32_t argc;
    const struct span *argv;
};

/* True: it is not the command's turn. It waits (its words are copied), or was refused for want of memory. */
bool key_order_waits(struct shard *shard, struct pending *pending, const struct command *command,
                     struct words words);

/* A command of a client (which may have gone, but for commands that wait) has its answer. */
void key_order_finished_slowly(struct shard *shard, struct pending *pending);

static inline void key_order_finished(struct shard *shard, struct pending *pending)
{
    pending->client->reads -= pending->access == KEY_ACCESS_READS;
    if (pending->client->ordered > 0)
        key_order_finished_slowly(shard, pending);
}

/* The words that a pending command waits with, if it does. */
void key_order_free(struct shard *shard, struct pending *pending);

/* Begins those whose turn has come. */
void key_order_turn_end(struct shard *shard);

#endif
