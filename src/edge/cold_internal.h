/* What the files of the cold tier share: the open database and the rules for using it.
 *
 * Whoever uses `database`, an iterator or a snapshot of it holds `lock` for reading. It is held for writing while the
 * database is opened anew. */
#ifndef RONDO_EDGE_COLD_INTERNAL_H
#define RONDO_EDGE_COLD_INTERNAL_H

#include <pthread.h>
#include <rocksdb/c.h>
#include <time.h>

#include "base/list.h"
#include "edge/cold.h"

struct cold {
    char *path;
    char *temporary_path;
    rocksdb_cache_t *cache;
    rocksdb_block_based_table_options_t *table_options; /* owned by options once set */
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read_options;
    rocksdb_ingestexternalfileoptions_t *ingest_options;
    rocksdb_envoptions_t *environment;
    bool opened; /* cold_open has done its work */
    void *context;
    void (*damaged)(void *context); /* or NULL */

    pthread_rwlock_t lock;
    rocksdb_t *database; /* NULL while opening it anew did not work */

    pthread_mutex_t state_lock; /* guards what follows; taken after `lock` */
    uint64_t table_next;        /* number of the next temporary table */
    bool failed;                /* an ingestion failed: open anew before the next */
    time_t reopened_at;
    struct list_link scans; /* struct cold_scan: all that are open */
};

/* The cache and all options; nothing is opened yet. */
void cold_options_make(struct cold *cold, const struct cold_options *wanted);

/* The status of an error text of RocksDB, which it frees; `why`, if not NULL, gets a sentence with it.
 * Damage is told. */
enum status cold_error(struct cold *cold, char *error, struct buf *why, const char *action);

/* Before the database is closed, with `lock` held for writing: the scans that are open can only be closed now. */
void cold_scans_lose(struct cold *cold);

#endif
