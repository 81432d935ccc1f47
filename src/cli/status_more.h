/* status: the parts about healing (hints, repair, tombstones), for people. */
#ifndef RONDO_CLI_STATUS_MORE_H
#define RONDO_CLI_STATUS_MORE_H

#include "cli/cli.h"

/* "1.5 MiB" and "3 min 7 s" on standard output. */
void status_print_bytes(json_int_t bytes);
void status_print_duration(json_int_t ms);

/* One line each for hints, repair and tombstones; nothing for what the node does not tell. */
void status_print_healing(const json_t *status);

/* What --repair and --tombstones show. */
void status_print_repair(const json_t *status);
void status_print_tombstones(const json_t *status);

#endif
