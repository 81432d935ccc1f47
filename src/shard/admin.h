/* Commands that look after a node, for the files of this folder only: those of all its shards, CLIENT and CONFIG. */
#ifndef RONDO_SHARD_ADMIN_H
#define RONDO_SHARD_ADMIN_H

#include "shard/state.h"

/* gather.c */
/* Whether the command is one of all shards. */
bool gather_wanted(const struct command *command);
/* Asks all shards; the pending fails without the memory for it, or if its arguments are past their bounds. */
void gather_ask(struct shard *shard, const struct client *client, struct pending *pending,
                const struct command *command);
void gather_asked(struct shard *shard, const struct frame *frame);
void gather_answered(struct shard *shard, const struct frame *frame);
/* Makes the reply of what the shards said; but for INFO, which info_text() makes. */
void gather_reply(struct shard *shard, struct pending *pending);
/* The sum of what the shards counted, which the caller gives back to shard->alloc; false without memory. */
bool gather_figures(struct shard *shard, const struct pending *pending, struct watch_figures **sum);
void gathering_free(struct shard *shard, struct gathering *gathering);

/* clients.c */
void client_line(const struct shard *shard, const struct client *client, struct buf *text);
void client_set_name(struct client *client, struct span name);
void client_command(struct shard *shard, struct client *client, struct pending *pending,
                    const struct command *command);
void client_reset(struct client *client, struct pending *pending);
void clients_answer(struct shard *shard, const struct command *command, uint64_t asker, struct buf *body);
void clients_reply(struct pending *pending, const struct command *command);

/* settings.c */
void settings_get(const struct shard *shard, const struct command *command, uint8_t proto, struct buf *reply);
/* Whether a CONFIG SET can be carried out; if not, why is appended. */
bool settings_check(const struct shard *shard, const struct command *command, struct buf *error);
void settings_answer(struct shard *shard, const struct command *command);

#endif
