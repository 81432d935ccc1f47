/* DIR/durability: what a start must know about the run before it, beside the meta file.
 *
 * A few lines of text, replaced atomically:
 *
 *     always | interval | os      the mode whose promise holds for what that run acknowledged
 *     boot ID                     the machine's boot during which it ran
 *     log                         the log held a segment: a log without one has lost it
 *     cold                        the cold tier was made: without its CURRENT file it is lost
 *
 * Under "interval" and "os" what was acknowledged may be in the operating system's memory only: it survives the
 * death of the process, but not of the machine. Only the boot id tells these two apart. A line that is missing
 * (or a file that is) promises nothing. */
#ifndef RONDO_EDGE_DURABILITY_NOTE_H
#define RONDO_EDGE_DURABILITY_NOTE_H

#include "base/span.h"
#include "edge/log_thread.h"

/* The text of a boot id: 36 characters. */
#define BOOT_ID_BYTES_MAX 40

struct durability_note {
    enum durability_mode mode; /* 0 = not known */
    char boot[BOOT_ID_BYTES_MAX + 1];
    bool log;
    bool cold;
};

/* What the file says; all zero when it cannot be read. */
void durability_note_read(struct durability_note *note, const char *path);

/* Replaces the file, durably. Errors as of files_replace. */
MUST_CHECK enum status durability_note_write(const struct durability_note *note, const char *path,
                                             struct buf *why);

/* Notes the machine's present boot; empty where the system does not tell. */
void durability_note_boot(struct durability_note *note);

/* Whether both are of one boot, as far as is known. */
bool durability_note_same_boot(const struct durability_note *a, const struct durability_note *b);

#endif
