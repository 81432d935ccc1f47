/* A simulated disk: what a machine keeps when a process, or the machine, stops.
 *
 * Log files are byte arrays twice over: as the process sees them, and as they are known to be on the platter. Writes
 * since the last sync are kept one by one: when the machine stops, each of them is, independently, there, missing,
 * there in part, or noise. The meta file is replaced atomically. The cold tier takes whole tables atomically and
 * durably. After a process alone was killed everything it wrote is there. */
#ifndef RONDO_SIM_DISK_H
#define RONDO_SIM_DISK_H

#include "base/prng.h"
#include "base/span.h"
#include "store/log_recovery.h"

struct disk_write {
    uint64_t offset;
    struct buf bytes;
};

struct disk_file {
    uint64_t number;           /* of the segment */
    struct buf now;            /* as read by a process */
    struct buf synced;         /* as it surely is on the platter */
    struct disk_write *writes; /* not synced, in order */
    uint32_t write_count;
    uint32_t write_capacity;
};

struct cold_row {
    struct buf key;
    struct buf record;
    bool damaged; /* its block: every scan ends here until the cold tier is given up */
    bool lost;    /* and no newer table has the row */
};

struct sim_disk {
    struct alloc *alloc;
    struct disk_file **files; /* ascending */
    uint32_t file_count;
    uint32_t file_capacity;
    struct buf meta;       /* empty = no file */
    struct cold_row *cold; /* ascending by cold key */
    uint32_t cold_count;
    uint32_t cold_capacity;
    bool cold_noted; /* a process found damage: the next one gives the cold tier up */
};

void disk_init(struct sim_disk *disk, struct alloc *alloc);
void disk_free(struct sim_disk *disk);
void disk_wipe(struct sim_disk *disk);
/* Makes one disk what the other is now; unsynced writes reach the platter in the copy. */
void disk_copy(struct sim_disk *disk, const struct sim_disk *from);

/* The file of a segment, or NULL. */
struct disk_file *disk_file(struct sim_disk *disk, uint64_t number);
void disk_create(struct sim_disk *disk, uint64_t number, uint64_t size);
void disk_rename(struct sim_disk *disk, uint64_t number_old, uint64_t number);
void disk_delete(struct sim_disk *disk, uint64_t number);
void disk_write(struct sim_disk *disk, uint64_t number, uint64_t offset, struct span bytes);
void disk_sync(struct sim_disk *disk, uint64_t number);
void disk_sync_all(struct sim_disk *disk);
void disk_truncate(struct sim_disk *disk, uint64_t number, uint64_t size);

/* The machine stops. Chances are per million, for each unsynced write. */
struct disk_crash {
    uint32_t lost;
    uint32_t partial;
    uint32_t garbled;
};
void disk_power_loss(struct sim_disk *disk, const struct disk_crash *crash, struct prng *prng);

/* The record of a cold key, NOT_FOUND, or CORRUPT. */
enum status disk_cold_get(const struct sim_disk *disk, struct span key, struct span *record);
/* Packs the rows of the cold keys in [first, end) as store/cold_page.h does; false: up to damage. */
bool disk_cold_pack(const struct sim_disk *disk, struct span first, struct span end, struct buf *rows);
void disk_cold_discard(struct sim_disk *disk);
void disk_cold_put(struct sim_disk *disk, struct span prefix, struct span key, struct span record);
void disk_cold_delete(struct sim_disk *disk, struct span prefix, struct span key);

#endif
