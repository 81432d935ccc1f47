/* dump: all records of the cluster as JSON lines, in the order of the slots.
 *
 * Several slots are asked for at once and written one after the other, so the file and the progress file always
 * agree on a whole number of slots: an interrupted dump cuts the file there and goes on. The file gets its name when
 * it is complete. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/dump_slot.h"
#include "cli/job.h"
#include "cli/progress.h"

/* Slots asked for at once: enough to hide round trips, few enough for their pages to fit into memory. */
#define DUMP_SLOTS_MAX 24u

/* Output of the first slot is written once there is this much, or the slot is done. */
#define WRITE_BYTES (256u << 10)

#define WAIT_MS 50

struct dump {
    struct cli *cli;
    const char *file;
    char *partial; /* NULL for standard output */
    int fd;
    struct cluster_view cluster;
    struct dump_options options;
    struct dump_slot slots[DUMP_SLOTS_MAX]; /* slot s at s % DUMP_SLOTS_MAX */
    uint32_t first;                         /* every slot before it is written */
    uint32_t opened;                        /* every slot before it was opened */
    uint64_t offset;                        /* bytes written */
    uint64_t offset_first;                  /* bytes written before slot `first` */
    uint64_t rows;                          /* written */
    uint64_t rows_first;
    uint64_t rows_resumed;
    uint64_t started_ms;
    struct job_file job;
    struct progress progress;
};

/* ---- start ---------------------------------------------------------------------------------------------- */

static enum cli_exit cannot_write(struct dump *dump)
{
    progress_clear(&dump->progress);
    return cli_fail(dump->cli, CLI_NOT_APPLIED, "CANNOT_WRITE", "cannot write %s: %s",
                    dump->partial == NULL ? "standard output" : dump->partial, strerror(errno));
}

/* How many replicas are asked: --r, or a majority. */
static enum cli_exit choose_streams(struct dump *dump)
{
    uint64_t count = 0;
    uint8_t replicas = ring_replica_count(dump->cluster.ring);
    const char *r = dump->cli->r;
    dump->options.streams = (uint8_t)(replicas / 2 + 1);
    if (dump->options.local && r != NULL)
        return cli_fail(dump->cli, CLI_USAGE, "BAD_REQUEST",
                        "--local asks one node, so --r makes no sense with it; leave one of them out");
    if (dump->options.local || (r != NULL && strcmp(r, "one") == 0)) {
        dump->options.streams = 1;
    } else if (r != NULL && strcmp(r, "all") == 0) {
        dump->options.streams = replicas;
    } else if (r != NULL && strcmp(r, "quorum") != 0) {
        if (span_parse_u64(span_of_text(r), &count) != STATUS_OK || count == 0 || count > replicas)
            return cli_fail(
                dump->cli, CLI_USAGE, "BAD_REQUEST",
                "--r is one, quorum, all or a number up to %u, the replicas of a key; not '%.40s'", replicas,
                r);
        dump->options.streams = (uint8_t)count;
    }
    return CLI_OK;
}

static enum cli_exit open_partial(struct dump *dump)
{
    struct stat stat_file;
    if (strcmp(dump->file, "-") == 0) {
        dump->fd = STDOUT_FILENO;
        return CLI_OK;
    }
    if (stat(dump->file, &stat_file) == 0 && !S_ISREG(stat_file.st_mode))
        return cli_fail(dump->cli, CLI_USAGE, "BAD_REQUEST",
                        "%s is no plain file; name one, or write '-' for standard output", dump->file);
    dump->partial = job_path(dump->file, ".partial");
    dump->fd = dump->partial == NULL ? -1 : open(dump->partial, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (dump->fd < 0)
        return cannot_write(dump);
    if (flock(dump->fd, LOCK_EX | LOCK_NB) != 0)
        return cli_fail(dump->cli, CLI_USAGE, "BAD_REQUEST", "another rondo dump is writing %s",
                        dump->partial);
    return CLI_OK;
}

/* Finds where an earlier run was interrupted, and cuts the partial file there. */
static enum cli_exit resume(struct dump *dump)
{
    struct cli *cli = dump->cli;
    struct stat stat_partial;
    const char *other = NULL;
    const char *node = dump->options.local ? dump->cluster.nodes[dump->cluster.self].name : "";
    json_t *belongs =
        json_pack("{s:s, s:s, s:s}", "command", "dump", "cluster", dump->cluster.cluster_id, "node", node);
    if (!job_file_init(&dump->job, dump->file, belongs,
                       dump->partial != NULL && (cli->options_given & CLI_OPTION_NO_RESUME) == 0))
        return cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    json_t *state = (cli->options_given & CLI_OPTION_RESTART) != 0 ? NULL : job_file_load(&dump->job, &other);
    json_int_t slot = cli_json_number(state, "slot");
    json_int_t offset = cli_json_number(state, "offset");
    json_int_t rows = cli_json_number(state, "rows");
    json_decref(state);
    if (dump->partial == NULL)
        return CLI_OK;
    if (fstat(dump->fd, &stat_partial) != 0)
        return cannot_write(dump);
    if (slot > 0 && slot <= SLOTS_COUNT && offset >= 0 && offset <= stat_partial.st_size && rows >= 0) {
        dump->first = (uint32_t)slot;
        dump->offset = (uint64_t)offset;
        dump->rows = (uint64_t)rows;
    }
    if (other != NULL && !cli->json)
        fprintf(stderr, "rondo: the progress saved in %s is of another %s; starting over\n", dump->job.path,
                strcmp(other, "node") == 0      ? "kind of dump"
                : strcmp(other, "command") == 0 ? "command"
                                                : other);
    else if (dump->first > 0 && !cli->json)
        fprintf(stderr, "rondo: going on at slot %u of %d (--restart starts over)\n", dump->first,
                SLOTS_COUNT);
    if (ftruncate(dump->fd, (off_t)dump->offset) != 0 || lseek(dump->fd, (off_t)dump->offset, SEEK_SET) < 0)
        return cannot_write(dump);
    return CLI_OK;
}

/* ---- progress ------------------------------------------------------------------------------------------- */

static void save_progress(struct dump *dump, uint64_t now_ms)
{
    /* The file must be on the disk before anything says so. */
    if (dump->job.path == NULL || fdatasync(dump->fd) != 0)
        return;
    job_file_save(&dump->job,
                  json_pack("{s:I, s:I, s:I}", "slot", (json_int_t)dump->first, "offset",
                            (json_int_t)dump->offset_first, "rows", (json_int_t)dump->rows_first),
                  now_ms);
}

static void show_progress(struct dump *dump, uint64_t now_ms)
{
    const struct dump_slot *first = &dump->slots[dump->first % DUMP_SLOTS_MAX];
    if (job_file_due(&dump->job, now_ms))
        save_progress(dump, now_ms);
    progress_show(&dump->progress, dump->first, dump->rows - dump->rows_resumed, now_ms,
                  first->open && now_ms < first->retry_at_ms ? first->trouble : NULL);
}

static enum cli_exit break_off(struct dump *dump, enum cli_exit code, const char *error, const char *text)
{
    bool saved = dump->job.path != NULL;
    if (saved)
        save_progress(dump, job_now_ms());
    progress_clear(&dump->progress);
    return cli_fail(dump->cli, code, error, "%s (%u of %d slots are done%s)", text, dump->first, SLOTS_COUNT,
                    saved && !dump->job.failed ? "; the same command goes on there" : "");
}

/* ---- the loop ------------------------------------------------------------------------------------------- */

static bool write_all(int fd, struct span bytes)
{
    while (bytes.size > 0) {
        ssize_t done = write(fd, bytes.data, bytes.size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        bytes = span_of(bytes.data + done, bytes.size - (size_t)done);
    }
    return true;
}

static bool take_output(struct dump *dump, struct dump_slot *slot)
{
    if (!write_all(dump->fd, buf_span(&slot->output)))
        return false;
    dump->offset += slot->output.size;
    dump->rows += slot->rows;
    slot->rows = 0;
    buf_clear(&slot->output);
    return true;
}

static bool wanted(const struct dump *dump, uint32_t slot)
{
    return !dump->options.local || ring_replicates(dump->cluster.ring, (uint16_t)slot, dump->cluster.self);
}

/* Opens slots as far as the window reaches, and goes on with all that are open. */
static void turn_slots(struct dump *dump, uint64_t now_ms)
{
    uint64_t wall_ms = job_wall_ms();
    while (dump->opened < SLOTS_COUNT && dump->opened < dump->first + DUMP_SLOTS_MAX) {
        if (wanted(dump, dump->opened))
            dump_slot_open(&dump->slots[dump->opened % DUMP_SLOTS_MAX], &dump->options,
                           (uint16_t)dump->opened, now_ms);
        dump->opened++;
    }
    for (uint32_t i = dump->first; i < dump->opened; i++) {
        struct dump_slot *slot = &dump->slots[i % DUMP_SLOTS_MAX];
        if (slot->open && !slot->failed)
            dump_slot_turn(slot, now_ms, wall_ms);
    }
}

/* Writes what the first slots have; *moved says whether anything became possible by that. */
static bool write_first(struct dump *dump, bool *moved)
{
    *moved = false;
    while (dump->first < dump->opened) {
        struct dump_slot *slot = &dump->slots[dump->first % DUMP_SLOTS_MAX];
        if (slot->open && (slot->done || slot->output.size >= WRITE_BYTES)) {
            *moved = *moved || slot->output.size > DUMP_OUTPUT_BYTES_MAX;
            if (!take_output(dump, slot))
                return false;
        }
        if (slot->open && !slot->done)
            return true;
        dump_slot_close(slot);
        dump->first++;
        dump->offset_first = dump->offset;
        dump->rows_first = dump->rows;
        *moved = true;
    }
    return true;
}

static enum cli_exit summarise(struct dump *dump)
{
    char rows[CLI_NUMBER_BYTES_MAX];
    char reads[CLI_NUMBER_BYTES_MAX];
    uint64_t elapsed_ms = job_now_ms() - dump->started_ms;
    FILE *out = dump->partial == NULL ? stderr : stdout;
    progress_clear(&dump->progress);
    if (dump->partial != NULL && (fsync(dump->fd) != 0 || rename(dump->partial, dump->file) != 0))
        return cannot_write(dump);
    job_file_remove(&dump->job);
    if (dump->cli->json && dump->partial != NULL) {
        json_t *json = json_pack("{s:I, s:I, s:I, s:f}", "records", (json_int_t)dump->rows, "bytes",
                                 (json_int_t)dump->offset, "differing", (json_int_t)dump->options.reads,
                                 "seconds", (double)elapsed_ms / 1000);
        enum cli_exit code = cli_print_json(json);
        json_decref(json);
        return code;
    }
    fprintf(out, "dumped %s record%s in %.1f s", cli_number((json_int_t)dump->rows, rows),
            dump->rows == 1 ? "" : "s", (double)elapsed_ms / 1000);
    if (dump->options.reads > 0)
        fprintf(out, "; replicas disagreed about %s, which a quorum decided",
                cli_number((json_int_t)dump->options.reads, reads));
    fprintf(out, "\n");
    return CLI_OK;
}

static enum cli_exit run_dump(struct dump *dump)
{
    for (;;) {
        uint64_t now_ms = job_now_ms();
        bool moved;
        if (job_interrupted())
            return break_off(dump, CLI_INTERRUPTED, "INTERRUPTED", "interrupted");
        turn_slots(dump, now_ms);
        if (!write_first(dump, &moved))
            return cannot_write(dump);
        if (dump->first == SLOTS_COUNT)
            return summarise(dump);
        const struct dump_slot *first = &dump->slots[dump->first % DUMP_SLOTS_MAX];
        if (first->open && first->failed)
            return break_off(dump, CLI_NOT_APPLIED, "UNAVAILABLE", first->trouble);
        show_progress(dump, now_ms);
        fetcher_turn(&dump->options.fetcher, moved ? 0 : WAIT_MS);
    }
}

static enum cli_exit start(struct dump *dump)
{
    enum cli_exit code = choose_streams(dump);
    if (code == CLI_OK)
        code = open_partial(dump);
    if (code == CLI_OK)
        code = resume(dump);
    if (code == CLI_OK && !fetcher_init(&dump->options.fetcher))
        code = cli_fail(dump->cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    dump->opened = dump->first;
    dump->offset_first = dump->offset;
    dump->rows_first = dump->rows;
    dump->rows_resumed = dump->rows;
    dump->started_ms = job_now_ms();
    progress_start(&dump->progress, "dumping", dump->first, SLOTS_COUNT, dump->started_ms);
    return code;
}

enum cli_exit cli_dump(struct cli *cli)
{
    struct dump *dump = alloc_get_zeroed(&cli->alloc, sizeof(*dump));
    if (dump == NULL)
        return cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    dump->cli = cli;
    dump->file = cli->arguments[0];
    dump->fd = -1;
    dump->options.cli = cli;
    dump->options.cluster = &dump->cluster;
    dump->options.local = (cli->options_given & CLI_OPTION_LOCAL) != 0;
    enum cli_exit code = job_retry_ms(cli, &dump->options.retry_ms);
    bool cluster_known = code == CLI_OK && (code = cluster_view_get(cli, &dump->cluster)) == CLI_OK;
    if (code == CLI_OK)
        code = start(dump);
    if (code == CLI_OK) {
        job_catch_interrupts();
        code = run_dump(dump);
    }
    for (uint32_t i = 0; i < DUMP_SLOTS_MAX; i++)
        dump_slot_close(&dump->slots[i]);
    fetcher_free(&dump->options.fetcher);
    job_file_free(&dump->job);
    if (cluster_known)
        cluster_view_free(&dump->cluster);
    if (dump->partial != NULL && dump->fd >= 0)
        close(dump->fd);
    free(dump->partial);
    alloc_put(&cli->alloc, dump, sizeof(*dump));
    return code;
}
