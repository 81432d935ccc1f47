/* The recovery of the log in a data directory: the part of data_dir.c that reads segments. */
#ifndef RONDO_EDGE_DATA_DIR_LOG_H
#define RONDO_EDGE_DATA_DIR_LOG_H

#include "edge/data_dir.h"

/* Maps the segments and fills dir->report without replaying anything. Nothing is changed on the disk. */
MUST_CHECK enum status data_dir_log_scan(struct data_dir *dir, struct buf *why);

/* After the meta file says what the scan found: cuts the torn tail off, removes what lies past it, syncs what
 * stays, and sets dir->log and dir->bounds. A damaged log is left as it is until data_dir_recover has saved
 * its rows. */
MUST_CHECK enum status data_dir_log_adopt(struct data_dir *dir, struct buf *why);

/* Unmaps; harmless when there is nothing. */
void data_dir_log_close(struct data_dir *dir);

#endif
