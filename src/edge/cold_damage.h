/* DIR/cold-damaged: that a run of this node found damage in the tables of its cold tier.
 *
 * Damage stays in the table: scans and compactions meet it again and again. The run that finds it notes it once, and
 * its shards repair what they can from the other replicas; the next start gives the cold tier up and rebuilds it. */
#ifndef RONDO_EDGE_COLD_DAMAGE_H
#define RONDO_EDGE_COLD_DAMAGE_H

#include <pthread.h>

#include "base/span.h"
#include "shard/shard.h"

struct cold_damage {
    char *directory; /* DIR */
    char *path;      /* DIR/cold-damaged */
    bool alone;      /* nobody else has a replica: nothing is ever noted or given up */
    void *context;
    void (*say)(void *context, enum say_level level, const char *text); /* or NULL; from any thread */
    pthread_mutex_t lock;                                               /* guards what follows */
    bool told;
    bool noted;
};

/* Copies the directory's path. */
void cold_damage_init(struct cold_damage *damage, const char *directory);
void cold_damage_free(struct cold_damage *damage);

/* context: the struct cold_damage, as cold_options want it. Says once what it means, and makes the note durable: where
 * that does not work it is tried again at the next call. Takes disk time the first time. */
void cold_damage_found(void *context);

/* Whether there is a note. */
bool cold_damage_noted(const struct cold_damage *damage);

/* Empties DIR/cold, then takes the note away; the cold tier is not open, and what it means to lose it is durable. After
 * an error the note is still there. Errors as of files_empty_directory. */
MUST_CHECK enum status cold_damage_discard(struct cold_damage *damage, struct buf *why);

/* Moves DIR/cold to DIR/quarantine, for people. */
MUST_CHECK enum status cold_damage_retire(const struct cold_damage *damage, struct buf *why);

#endif
