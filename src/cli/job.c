/* Long commands: interruption and the progress file. */
#include "cli/job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define RETRY_S_DEFAULT 60u
#define RETRY_S_MAX (86400u * 7u)

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t job_now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

uint64_t job_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

void job_catch_interrupts(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    /* Blocked signals stay pending, which needs no handler and no global flag. */
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool job_interrupted(void)
{
    sigset_t set;
    return sigpending(&set) == 0 && (sigismember(&set, SIGINT) == 1 || sigismember(&set, SIGTERM) == 1);
}

char *job_path(const char *path, const char *suffix)
{
    char *whole = NULL;
    return asprintf(&whole, "%s%s", path, suffix) < 0 ? NULL : whole;
}

bool job_file_init(struct job_file *job, const char *file, json_t *belongs, bool save)
{
    *job = (struct job_file){.belongs = belongs};
    if (!save)
        return belongs != NULL;
    job->path = job_path(file, ".rondo-progress");
    job->path_new = job_path(file, ".rondo-progress.new");
    return belongs != NULL && job->path != NULL && job->path_new != NULL;
}

void job_file_free(struct job_file *job)
{
    free(job->path);
    free(job->path_new);
    json_decref(job->belongs);
}

json_t *job_file_load(struct job_file *job, const char **other)
{
    const char *name;
    json_t *value;
    *other = NULL;
    if (job->path == NULL)
        return NULL;
    json_t *whole = json_load_file(job->path, 0, NULL);
    const json_t *belongs = json_object_get(whole, "work");
    json_t *state = json_object_get(whole, "state");
    if (!json_is_object(belongs) || !json_is_object(state)) {
        json_decref(whole);
        return NULL;
    }
    json_object_foreach(job->belongs, name, value)
    {
        if (*other == NULL && !json_equal(value, json_object_get(belongs, name)))
            *other = name;
    }
    state = *other == NULL ? json_incref(state) : NULL;
    json_decref(whole);
    return state;
}

bool job_file_due(const struct job_file *job, uint64_t now_ms)
{
    return job->path != NULL && now_ms >= job->saved_ms + JOB_SAVE_INTERVAL_MS;
}

/* Writes the file whole, to the disk, and puts it in the place of the last one. */
static bool replace_file(const struct job_file *job, const json_t *whole)
{
    FILE *file = fopen(job->path_new, "w");
    if (file == NULL)
        return false;
    bool good = json_dumpf(whole, file, JSON_INDENT(2)) == 0 && fputc('\n', file) != EOF &&
                fflush(file) == 0 && fdatasync(fileno(file)) == 0;
    return fclose(file) == 0 && good && rename(job->path_new, job->path) == 0;
}

void job_file_save(struct job_file *job, json_t *state, uint64_t now_ms)
{
    job->saved_ms = now_ms;
    json_t *whole = json_object();
    json_object_set(whole, "work", job->belongs);
    json_object_set_new(whole, "state", state);
    if (job->path != NULL && !replace_file(job, whole) && !job->failed) {
        job->failed = true;
        fprintf(
            stderr,
            "rondo: cannot save the progress in %s (%s); the work goes on, but starts over if interrupted\n",
            job->path, strerror(errno));
    }
    json_decref(whole);
}

void job_file_remove(struct job_file *job)
{
    if (job->path != NULL)
        (void)unlink(job->path);
}

enum cli_exit job_retry_ms(const struct cli *cli, uint64_t *retry_ms)
{
    uint64_t seconds = RETRY_S_DEFAULT;
    if (cli->retry_for != NULL &&
        (span_parse_u64(span_of_text(cli->retry_for), &seconds) != STATUS_OK || seconds > RETRY_S_MAX))
        return cli_fail(
            cli, CLI_USAGE, "BAD_REQUEST",
            "--retry-for is a number of seconds up to %u, not '%.40s'; write for example --retry-for 60",
            RETRY_S_MAX, cli->retry_for);
    *retry_ms = seconds * 1000;
    return CLI_OK;
}
