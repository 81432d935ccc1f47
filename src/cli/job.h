/* What the long commands share: a clock, Ctrl-C, and the file that lets an interrupted one go on.
 *
 * The progress file (FILE.rondo-progress, JSON) says which work it belongs to and how far it got; it is replaced
 * atomically about once a second, and removed when the work is done. */
#ifndef RONDO_CLI_JOB_H
#define RONDO_CLI_JOB_H

#include "cli/cli.h"

#define JOB_SAVE_INTERVAL_MS 1000

/* Milliseconds of a clock that never goes back, and of the wall clock. */
uint64_t job_now_ms(void);
uint64_t job_wall_ms(void);

/* From here on SIGINT and SIGTERM end nothing by themselves: job_interrupted says that one came. */
void job_catch_interrupts(void);
bool job_interrupted(void);

struct job_file {
    char *path;      /* of the progress file; NULL: nothing is saved */
    char *path_new;  /* written, then renamed to path */
    json_t *belongs; /* what the work is: compared member by member */
    uint64_t saved_ms;
    bool failed; /* a save failed and was reported */
};

/* Starts for work on `file`. `belongs` says which work it is (its reference is taken over). With save false nothing
 * is ever written. False: out of memory. */
bool job_file_init(struct job_file *job, const char *file, json_t *belongs, bool save);
void job_file_free(struct job_file *job);

/* The state saved by an earlier run of the same work (the caller decrefs it), or NULL. Where a saved state belongs to
 * other work, *other says in which member it differs (static storage of the caller's json), else NULL. */
json_t *job_file_load(struct job_file *job, const char **other);

/* Saves a state (takes over its reference) if a second has passed since the last time, or at once with `now`. A save
 * that fails is reported once; the work goes on. */
bool job_file_due(const struct job_file *job, uint64_t now_ms);
void job_file_save(struct job_file *job, json_t *state, uint64_t now_ms);

/* The work is done. */
void job_file_remove(struct job_file *job);

/* "PATH.suffix" in malloc's memory, or NULL. */
char *job_path(const char *path, const char *suffix);

/* Seconds without any progress before a long command gives up: --retry-for, or its default. */
enum cli_exit job_retry_ms(const struct cli *cli, uint64_t *retry_ms);

#endif
