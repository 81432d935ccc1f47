/* The cold tier: RocksDB through its C interface, used as a sorted store that only ever ingests (DESIGN
 * section 4).
 *
 * Its write-ahead log is never used: rows arrive as finished tables, and the node's own log keeps them until
 * then. All functions may be called from any thread, except cold_open and cold_close. */
#ifndef RONDO_EDGE_COLD_H
#define RONDO_EDGE_COLD_H

#include "base/span.h"

struct cold;
struct flush_job;

/* An ingestion is refused with OVERLOADED until compaction has caught up: at COLD_LEVEL0_FILES_MAX tables of level 0,
 * which every read may have to look into; and, from COLD_LEVEL0_COMPACT on, where RocksDB starts to compact, once they
 * are larger than all other levels and than COLD_LEVEL0_BYTES, which a burst may take: as much of them is garbage. */
#define COLD_LEVEL0_COMPACT 4
#define COLD_LEVEL0_FILES_MAX 24
#define COLD_LEVEL0_BYTES ((uint64_t)2 << 30)

struct cold_options {
    const char *path;           /* the database's directory; made when missing */
    const char *temporary_path; /* where tables are written; on the same file system; emptied by cold_open */
    size_t memory_bytes;        /* block cache with index and filter blocks; at least 1 MiB */
    uint32_t files_open_max;    /* at least 64 */
    void *context;
    void (*damaged)(
        void *context); /* or NULL; at every error that is CORRUPT once it is open, from whatever thread */
};

/* CORRUPT, DISK_FULL, IO_ERROR with a sentence in `why`; *cold is set on OK only. */
MUST_CHECK enum status cold_open(const struct cold_options *options, struct cold **cold, struct buf *why);
void cold_close(struct cold *cold);

/* Appends the record of a cold key to `record`. NOT_FOUND; CORRUPT (a checksum does not match); IO_ERROR;
 * OVERLOADED when `record` cannot grow. */
MUST_CHECK enum status cold_get(struct cold *cold, struct span key, struct buf *record);

/* Sorts the job's rows, writes them as one table, syncs and ingests it. On any error nothing was ingested,
 * the table is removed, and the same job may be passed again: OVERLOADED (level 0 is full: try again in
 * COLD_RETRY_MS), DISK_FULL, CORRUPT, IO_ERROR. `why` may be NULL. Takes disk time: never on a shard's
 * thread. */
#define COLD_RETRY_MS 50
MUST_CHECK enum status cold_ingest(struct cold *cold, uint16_t shard, struct flush_job *job, struct buf *why);

/* ---- range scans ---------------------------------------------------------------------------------------- */

struct cold_scan;

/* A scan of [first, end) of cold keys as they are at this moment. It waits for no disk, so a shard's thread may call
 * it. *scan is set on OK only, and is the caller's until cold_scan_close, before cold_close; one thread uses it at a
 * time. OVERLOADED: the database is just being opened anew, or no memory; IO_ERROR: that did not work. */
MUST_CHECK enum status cold_scan_open(struct cold *cold, struct span first, struct span end,
                                      struct cold_scan **scan);

/* Appends the next rows (store/cold_page.h) to an empty page: up to page_bytes, but at least one if there is one;
 * *more says whether others follow. After an error the page is of no use, and so is the scan: CORRUPT; IO_ERROR (also
 * when the database was opened anew since cold_scan_open); OVERLOADED when the page cannot grow. Takes disk time. */
MUST_CHECK enum status cold_scan_next(struct cold_scan *scan, size_t page_bytes, struct buf *page,
                                      bool *more);

/* Takes disk time where it was the last to hold tables that were merged away. NULL is ignored. */
void cold_scan_close(struct cold_scan *scan);

/* ---- state ---------------------------------------------------------------------------------------------- */

/* Whether level 0 is so full that cold_ingest would answer OVERLOADED. */
bool cold_pressure(struct cold *cold);

/* Calls row for each reserved row (model/reserved.h), in the order of their keys; the views are valid during the call.
 * Stops at a status other than OK, which it answers. CORRUPT, IO_ERROR with a sentence in `why` (may be NULL). */
MUST_CHECK enum status cold_reserved_rows(struct cold *cold, void *context,
                                          enum status (*row)(void *context, struct span key,
                                                             struct span record),
                                          struct buf *why);

/* Whether it holds no row at all. */
bool cold_empty(struct cold *cold);

struct cold_stats {
    uint64_t table_bytes; /* live tables on disk */
    uint64_t level0_files;
    uint64_t keys_estimate;
    uint64_t memory_bytes; /* block cache in use and table readers */
};
void cold_stats(struct cold *cold, struct cold_stats *stats);

#endif
