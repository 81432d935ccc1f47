/* Files: the few operations that the node needs, each with its error put into words.
 *
 * What fails answers a status and appends one sentence to `why` (which may be NULL) that names the path and
 * what the operating system said. Nothing here retries. */
#ifndef RONDO_EDGE_FILES_H
#define RONDO_EDGE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/span.h"

/* DISK_FULL for ENOSPC and EDQUOT, NOT_FOUND for ENOENT, OVERLOADED for ENOMEM, IO_ERROR for the rest. */
enum status files_status(int error);

/* Appends "cannot ACTION PATH: REASON (advice)". `why` may be NULL. Returns files_status(error). */
enum status files_fail(struct buf *why, const char *action, const char *path, int error);

/* "DIRECTORY/NAME" in memory of malloc; the process ends when there is none (start-up only). */
char *files_join(const char *directory, const char *name);

/* mkdir -p: OK also when it exists and is a directory. *created (may be NULL) says whether the last part was
 * made; its parent is then synced. */
MUST_CHECK enum status files_make_directory(const char *path, bool *created, struct buf *why);

/* Syncs a directory, so that names made or removed in it survive a power loss. */
MUST_CHECK enum status files_sync_directory(const char *path, struct buf *why);

/* Appends the whole file to `bytes`. NOT_FOUND when there is none; TOO_LARGE past max. */
MUST_CHECK enum status files_read(const char *path, size_t max, struct buf *bytes, struct buf *why);

/* Replaces the file atomically and durably: PATH.tmp, fsync, rename, fsync of the directory. After an error
 * the old contents are still there, or (when only the last sync failed) either. */
MUST_CHECK enum status files_replace(const char *path, struct span bytes, struct buf *why);

/* Takes an exclusive lock on the file (made when missing) and writes this process's id into it. The lock
 * lasts until the descriptor is closed or the process ends. BAD_REQUEST: another process holds it; *holder
 * (may be NULL) is then its id, 0 when unknown. */
MUST_CHECK enum status files_lock(const char *path, int *descriptor, long *holder, struct buf *why);

/* Writes all of size bytes at an offset. Returns 0 or an errno. */
int files_write_at(int descriptor, const void *data, size_t size, off_t offset);

/* Removes the plain files of a directory (not its folders). OK when the directory is missing. */
MUST_CHECK enum status files_empty_directory(const char *path, struct buf *why);

/* ---- numbered segment files: DIRECTORY/000000000001.log -------------------------------------------------- */

/* Segments held open: the one written to, the one before it, the next, and one to spare. */
#define SEGMENT_FILES_OPEN_MAX 4

struct segment_files {
    const char *directory; /* the caller's */
    struct {
        uint64_t number; /* 0 = free */
        int descriptor;
    } open[SEGMENT_FILES_OPEN_MAX];
};

/* The path of a segment, in memory of malloc. */
char *segment_file_path(const char *directory, uint64_t number);

/* The number in a name such as "000000000001.log"; 0 for any other name. */
uint64_t segment_file_number(const char *name);

/* These return 0 or an errno; their names are durable when they return 0. A segment that could not be created
 * is gone again; to remove one that is not there is no error. */
int segment_files_create(struct segment_files *files, uint64_t number, uint64_t size); /* preallocated */
int segment_files_rename(struct segment_files *files, uint64_t number_old, uint64_t number);
int segment_files_remove(struct segment_files *files, uint64_t number);

/* A descriptor to write the segment with, valid until the next call; -1 with errno. */
int segment_files_get(struct segment_files *files, uint64_t number);

/* Closes every descriptor. */
void segment_files_close(struct segment_files *files);

/* A random number that is not 0, from the operating system; the process ends when it gives none. */
uint64_t files_random(void);

#endif
