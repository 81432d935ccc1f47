/* load: JSON lines into the cluster.
 *
 * One thread reads lines and hands each row to a lane (cli/lane.h), chosen by the key: the lanes of the node that
 * owns its slot, so that no node forwards anything. Everything before the oldest row that a lane still holds is
 * acknowledged; that offset is what the progress file keeps. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "cli/cluster_view.h"
#include "cli/job.h"
#include "cli/lane.h"
#include "cli/line_reader.h"
#include "cli/progress.h"
#include "model/key.h"

/* Lanes of one node, and in all: more connections bring nothing once every shard is busy. */
#define LANES_PER_NODE 4u
#define LANES_MAX 64u

/* Rows handed out before answers are looked at again. */
#define ROWS_PER_TURN 4096u

/* Bad lines that are shown; the rest are only counted. */
#define BAD_LINES_SHOWN 10u

/* What is hashed of each end of a file, to tell another file of the same name and size. */
#define FINGERPRINT_BYTES (256u << 10)

#define POLL_MS 50

struct load {
    struct cli *cli;
    const char *file;
    const char *name; /* for people */
    int fd;
    bool regular;
    uint64_t size; /* of a regular file */
    struct cluster_view cluster;
    struct lane_options options;
    const char *targets[NODES_MAX];
    uint16_t target_of[NODES_MAX]; /* by node */
    struct buf preface;
    struct lane *lanes;
    uint32_t lane_count;
    struct pollfd polls[LANES_MAX + 1];
    struct line_reader reader;
    struct plain_row row;
    bool row_waits;   /* the row's lane is full */
    bool input_waits; /* the input has no whole line yet */
    bool input_ended;
    uint64_t row_offset;
    uint64_t row_line;
    uint64_t skipped;
    uint64_t started_line;
    uint64_t retry_ms;
    uint64_t started_ms;
    struct job_file job;
    struct progress progress;
    bool stopped;        /* a bad line: what was read before it is still acknowledged */
    enum cli_exit code;  /* then */
    char stop_text[512]; /* then */
};

/* ---- start ---------------------------------------------------------------------------------------------- */

static enum cli_exit out_of_memory(struct cli *cli)
{
    return cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
}

static enum cli_exit open_file(struct load *load)
{
    struct stat stat;
    if (strcmp(load->file, "-") == 0) {
        load->name = "standard input";
        load->fd = dup(STDIN_FILENO);
    } else {
        load->name = load->file;
        load->fd = open(load->file, O_RDONLY | O_CLOEXEC);
    }
    if (load->fd < 0 || fstat(load->fd, &stat) != 0)
        return cli_fail(load->cli, CLI_USAGE, "BAD_REQUEST", "cannot read %s: %s", load->name,
                        strerror(errno));
    if (S_ISDIR(stat.st_mode))
        return cli_fail(load->cli, CLI_USAGE, "BAD_REQUEST", "%s is a directory; name a file of JSON lines",
                        load->name);
    load->regular = S_ISREG(stat.st_mode) && strcmp(load->file, "-") != 0;
    load->size = load->regular ? (uint64_t)stat.st_size : 0;
    return CLI_OK;
}

/* A hash of the file's first and last bytes; false if it cannot be read. */
static bool file_fingerprint(struct load *load, char text[24])
{
    uint64_t hash = load->size;
    off_t starts[2] = {0, load->size > FINGERPRINT_BYTES ? (off_t)(load->size - FINGERPRINT_BYTES) : 0};
    uint8_t *bytes = alloc_get(&load->cli->alloc, FINGERPRINT_BYTES);
    bool good = bytes != NULL;
    for (size_t i = 0; good && i < 2; i++) {
        ssize_t got = pread(load->fd, bytes, FINGERPRINT_BYTES, starts[i]);
        good = got >= 0;
        hash = hash_64(span_of(bytes, good ? (size_t)got : 0), hash);
    }
    alloc_put(&load->cli->alloc, bytes, FINGERPRINT_BYTES);
    snprintf(text, 24, "%016" PRIx64, hash);
    return good;
}

/* Finds where to start, and goes there. */
static enum cli_exit start_reading(struct load *load)
{
    char fingerprint[24] = "";
    uint64_t offset = 0;
    uint64_t line = 1;
    struct cli *cli = load->cli;
    if (load->regular && !file_fingerprint(load, fingerprint))
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "cannot read %s: %s", load->name, strerror(errno));
    json_t *belongs =
        json_pack("{s:s, s:s, s:I, s:s}", "command", "load", "cluster", load->cluster.cluster_id, "size",
                  (json_int_t)load->size, "fingerprint", fingerprint);
    if (!job_file_init(&load->job, load->file, belongs,
                       load->regular && (cli->options_given & CLI_OPTION_NO_RESUME) == 0))
        return out_of_memory(cli);
    const char *other = NULL;
    json_t *state = (cli->options_given & CLI_OPTION_RESTART) != 0 ? NULL : job_file_load(&load->job, &other);
    if (state != NULL) {
        offset = (uint64_t)cli_json_number(state, "offset");
        line = (uint64_t)cli_json_number(state, "line");
        json_decref(state);
        if (offset > load->size || line == 0) {
            offset = 0;
            line = 1;
        }
    }
    if (other != NULL && !cli->json)
        fprintf(stderr, "rondo: the progress saved in %s is of %s; starting at the first line\n",
                load->job.path,
                strcmp(other, "cluster") == 0 ? "another cluster" : "another file, or this one has changed");
    else if (offset > 0 && !cli->json)
        fprintf(stderr, "rondo: going on at line %" PRIu64 " of %s (--restart starts over)\n", line,
                load->name);
    if (load->regular && lseek(load->fd, (off_t)offset, SEEK_SET) < 0)
        return cli_fail(cli, CLI_USAGE, "BAD_REQUEST", "cannot read %s: %s", load->name, strerror(errno));
    load->started_line = line;
    line_reader_init(&load->reader, &cli->alloc, load->fd, offset, line);
    load->started_ms = job_now_ms();
    progress_start(&load->progress, "loading", offset, load->size, load->started_ms);
    return CLI_OK;
}

/* RONDO.CONSISTENCY W w TIMEOUT ms, if one of them was given. */
static void build_preface(struct load *load)
{
    const char *const words[][2] = {{"W", load->cli->w}, {"TIMEOUT", load->cli->timeout}};
    size_t count = 0;
    for (size_t i = 0; i < 2; i++)
        count += words[i][1] != NULL;
    if (count > 0) {
        buf_append_format(&load->preface, "*%zu\r\n$17\r\nRONDO.CONSISTENCY\r\n", 1 + 2 * count);
        for (size_t i = 0; i < 2; i++) {
            if (words[i][1] != NULL)
                buf_append_format(&load->preface, "$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(words[i][0]),
                                  words[i][0], strlen(words[i][1]), words[i][1]);
        }
    }
    load->options.preface = buf_span(&load->preface);
}

static enum cli_exit open_lanes(struct load *load)
{
    uint16_t count = load->cluster.ring->node_count;
    for (uint16_t i = 0; i < count; i++) {
        load->target_of[i] = load->options.target_count;
        if (load->cluster.nodes[i].resp != NULL && load->cluster.nodes[i].reachable)
            load->targets[load->options.target_count++] = load->cluster.nodes[i].resp;
    }
    if (count == 0 || load->options.target_count == 0)
        return cli_fail(load->cli, CLI_NO_NODE, "NO_NODE", "%s names no node that can be reached by RESP",
                        load->cli->address);
    load->options.targets = load->targets;
    build_preface(load);
    uint32_t per_node = LANES_MAX / count < LANES_PER_NODE ? LANES_MAX / count : LANES_PER_NODE;
    load->lane_count = per_node == 0 ? LANES_MAX : per_node * count;
    load->lanes = alloc_get_zeroed(&load->cli->alloc, load->lane_count * sizeof(*load->lanes));
    if (load->lanes == NULL || load->preface.failed)
        return out_of_memory(load->cli);
    for (uint32_t i = 0; i < load->lane_count; i++) {
        uint16_t target = load->target_of[per_node == 0 ? i % count : i / per_node];
        lane_init(&load->lanes[i], &load->cli->alloc, &load->options,
                  (uint16_t)(target % load->options.target_count));
    }
    return CLI_OK;
}

/* ---- rows ----------------------------------------------------------------------------------------------- */

/* The lane of a key: always the same one. */
static struct lane *lane_of(struct load *load, struct span key)
{
    uint32_t count = load->cluster.ring->node_count;
    assert(count > 0 && load->lane_count > 0);
    uint32_t owner = load->cluster.ring->owner[key_slot(key)];
    uint32_t per_node = load->lane_count / count;
    if (per_node == 0)
        return &load->lanes[owner % load->lane_count];
    return &load->lanes[owner * per_node + (uint32_t)(hash_64(key, 0) % per_node)];
}

/* A line that cannot be loaded: skipped, or the end. */
static void bad_line(struct load *load, enum cli_exit code, uint64_t line, const char *text)
{
    if ((load->cli->options_given & CLI_OPTION_SKIP_BAD) != 0) {
        load->skipped++;
        if (load->skipped <= BAD_LINES_SHOWN) {
            progress_clear(&load->progress);
            fprintf(stderr, "rondo: skipped: line %" PRIu64 " of %s %s%s\n", line, load->name, text,
                    load->skipped == BAD_LINES_SHOWN ? "; further ones are only counted" : "");
        }
        return;
    }
    if (load->stopped)
        return;
    load->stopped = true;
    load->code = code;
    snprintf(load->stop_text, sizeof(load->stop_text),
             "line %" PRIu64
             " of %.200s %.200s; mend it and load again, or leave bad lines out with --skip-bad",
             line, load->name, text);
}

/* Hands the parsed row to its lane; false if that is full. */
static bool hand_out(struct load *load, uint64_t now_ms)
{
    struct lane *lane = lane_of(load, buf_span(&load->row.key));
    if (lane_add(lane, &load->row, load->row_offset, load->row_line, now_ms) == STATUS_OK) {
        load->row_waits = false;
        return true;
    }
    load->row_waits = true;
    if (lane->count == 0) {
        load->row_waits = false;
        bad_line(load, CLI_NOT_APPLIED, load->row_line, "does not fit into memory");
        return true;
    }
    return false;
}

/* Parses the next line. Blank lines are no rows; true if there is one. */
static bool take_line(struct load *load, struct span line)
{
    char why[ROW_WHY_BYTES_MAX] = "does not fit into memory";
    bool blank = true;
    for (size_t i = 0; blank && i < line.size; i++)
        blank = strchr(" \t\r", line.data[i]) != NULL && line.data[i] != 0;
    load->row_offset = load->reader.offset;
    load->row_line = load->reader.line;
    bool good = !blank && plain_row_parse(&load->row, line, why) == STATUS_OK;
    line_reader_consume(&load->reader, line);
    if (!blank && !good)
        bad_line(load, CLI_USAGE, load->row_line, why);
    return good;
}

/* Reads once if that cannot wait for anybody. */
static void read_input(struct load *load, bool ready)
{
    load->input_waits = !load->regular && !ready;
    if (load->input_waits)
        return;
    enum status status = line_reader_fill(&load->reader);
    if (status == STATUS_OK)
        return;
    load->stopped = true;
    load->code = CLI_NOT_APPLIED;
    snprintf(load->stop_text, sizeof(load->stop_text), "cannot read %.200s after line %" PRIu64 ": %s",
             load->name, load->reader.line - 1,
             status == STATUS_IO_ERROR ? strerror(errno) : "out of memory");
}

static void hand_out_rows(struct load *load, bool input_ready, uint64_t now_ms)
{
    struct span line;
    if (load->row_waits && !hand_out(load, now_ms))
        return;
    for (uint32_t i = 0; i < ROWS_PER_TURN && !load->stopped && !load->input_ended; i++) {
        switch (line_reader_next(&load->reader, &line)) {
        case LINE_HERE:
            if (take_line(load, line) && !hand_out(load, now_ms))
                return;
            break;
        case LINE_MORE:
            read_input(load, input_ready);
            input_ready = false;
            if (load->input_waits)
                return;
            break;
        case LINE_END:
            load->input_ended = true;
            break;
        case LINE_TOO_LONG:
            load->stopped = true;
            load->code = CLI_USAGE;
            snprintf(load->stop_text, sizeof(load->stop_text),
                     "line %" PRIu64
                     " of %.200s is over %u MiB, more than any value needs; is it a file of JSON "
                     "lines?",
                     load->reader.line, load->name, LINE_BYTES_MAX >> 20);
            break;
        }
    }
}

/* ---- progress ------------------------------------------------------------------------------------------- */

/* Everything before this place of the file is acknowledged. */
static void acked_place(const struct load *load, uint64_t *offset, uint64_t *line)
{
    *offset = load->row_waits ? load->row_offset : load->reader.offset;
    *line = load->row_waits ? load->row_line : load->reader.line;
    for (uint32_t i = 0; i < load->lane_count; i++) {
        const struct lane_command *head = lane_head(&load->lanes[i]);
        if (head != NULL && head->offset < *offset) {
            *offset = head->offset;
            *line = head->line;
        }
    }
}

static uint64_t acked_rows(const struct load *load)
{
    uint64_t acked = 0;
    for (uint32_t i = 0; i < load->lane_count; i++)
        acked += load->lanes[i].acked;
    return acked;
}

static void save_progress(struct load *load, uint64_t now_ms)
{
    uint64_t offset;
    uint64_t line;
    acked_place(load, &offset, &line);
    job_file_save(&load->job, json_pack("{s:I, s:I}", "offset", (json_int_t)offset, "line", (json_int_t)line),
                  now_ms);
}

static void show_progress(struct load *load, uint64_t now_ms)
{
    uint64_t offset;
    uint64_t line;
    const char *trouble = NULL;
    if (job_file_due(&load->job, now_ms))
        save_progress(load, now_ms);
    if (!load->progress.shown)
        return;
    acked_place(load, &offset, &line);
    for (uint32_t i = 0; i < load->lane_count; i++)
        trouble = load->lanes[i].trouble[0] != 0 ? load->lanes[i].trouble : trouble;
    progress_show(&load->progress, offset, acked_rows(load), now_ms, trouble);
}

/* The end before the end: what is acknowledged stays so. */
static enum cli_exit break_off(struct load *load, enum cli_exit code, const char *error, const char *text)
{
    uint64_t offset;
    uint64_t line;
    acked_place(load, &offset, &line);
    if (load->job.path != NULL)
        save_progress(load, job_now_ms());
    progress_clear(&load->progress);
    return cli_fail(load->cli, code, error, "%s (acknowledged: everything before line %" PRIu64 "%s)", text,
                    line,
                    load->job.path != NULL && !load->job.failed ? "; the same command goes on there" : "");
}

static enum cli_exit summarise(struct load *load)
{
    char rows[CLI_NUMBER_BYTES_MAX];
    char rate[CLI_NUMBER_BYTES_MAX];
    char skipped[64] = "";
    uint64_t acked = acked_rows(load);
    uint64_t elapsed_ms = job_now_ms() - load->started_ms;
    job_file_remove(&load->job);
    progress_clear(&load->progress);
    if (load->cli->json) {
        json_t *json = json_pack("{s:I, s:I, s:I, s:f}", "loaded", (json_int_t)acked, "skipped",
                                 (json_int_t)load->skipped, "first_line", (json_int_t)load->started_line,
                                 "seconds", (double)elapsed_ms / 1000);
        enum cli_exit code = cli_print_json(json);
        json_decref(json);
        return code;
    }
    if (load->skipped > 0)
        snprintf(skipped, sizeof(skipped), ", %" PRIu64 " bad line%s skipped", load->skipped,
                 load->skipped == 1 ? "" : "s");
    printf("loaded %s record%s in %.1f s (%s per second)%s\n", cli_number((json_int_t)acked, rows),
           acked == 1 ? "" : "s", (double)elapsed_ms / 1000,
           cli_number((json_int_t)progress_rate(acked, elapsed_ms), rate), skipped);
    return CLI_OK;
}

/* ---- the loop ------------------------------------------------------------------------------------------- */

/* Waits for answers, room or input; true if the input can be read. */
static bool wait_for_events(struct load *load)
{
    nfds_t count = load->lane_count;
    for (uint32_t i = 0; i < load->lane_count; i++) {
        short events = lane_events(&load->lanes[i]);
        load->polls[i] = (struct pollfd){.fd = events == 0 ? -1 : load->lanes[i].fd, .events = events};
    }
    if (load->input_waits)
        load->polls[count++] = (struct pollfd){.fd = load->fd, .events = POLLIN};
    bool can_go_on = !load->row_waits && !load->input_waits && !load->input_ended && !load->stopped;
    if (poll(load->polls, count, can_go_on ? 0 : POLL_MS) < 0) {
        for (uint32_t i = 0; i < count; i++)
            load->polls[i].revents = 0;
    }
    return load->input_waits && load->polls[load->lane_count].revents != 0;
}

/* Rows in lanes that still move; looks after refused ones. */
static bool look_after_lanes(struct load *load, uint64_t now_ms, struct lane **stuck)
{
    bool busy = false;
    *stuck = NULL;
    for (uint32_t i = 0; i < load->lane_count; i++) {
        struct lane *lane = &load->lanes[i];
        lane_turn(lane, load->polls[i].revents, now_ms);
        load->polls[i].revents = 0;
        if (lane->refused) {
            const struct lane_command *head = lane_head(lane);
            char text[LANE_TEXT_BYTES_MAX + 32];
            snprintf(text, sizeof(text), "is refused by %s", lane->trouble);
            if (!lane->preface_answered || head == NULL) {
                load->stopped = true;
                load->code = CLI_USAGE;
                snprintf(load->stop_text, sizeof(load->stop_text), "--w or --timeout %s", text);
                continue;
            }
            bad_line(load, CLI_NOT_APPLIED, head->line, text);
            if (load->stopped)
                continue;
            lane_skip(lane);
        }
        busy = busy || lane->count > 0;
        if (lane->count > 0 && now_ms > lane->progress_ms + load->retry_ms)
            *stuck = lane;
    }
    return busy;
}

static enum cli_exit run_load(struct load *load)
{
    bool input_ready = false;
    for (;;) {
        uint64_t now_ms = job_now_ms();
        struct lane *stuck;
        if (job_interrupted())
            return break_off(load, CLI_INTERRUPTED, "INTERRUPTED", "interrupted");
        hand_out_rows(load, input_ready, now_ms);
        bool busy = look_after_lanes(load, now_ms, &stuck);
        if (stuck != NULL) {
            char text[LANE_TEXT_BYTES_MAX + 96];
            snprintf(text, sizeof(text), "nothing was acknowledged for %" PRIu64 " s; the last trouble: %s",
                     load->retry_ms / 1000, stuck->trouble[0] == 0 ? "no answer" : stuck->trouble);
            return break_off(load, CLI_NOT_APPLIED, "UNAVAILABLE", text);
        }
        if (load->stopped && !busy)
            return break_off(load, load->code, "BAD_LINE", load->stop_text);
        if (load->input_ended && !load->row_waits && !busy)
            return load->stopped ? break_off(load, load->code, "BAD_LINE", load->stop_text) : summarise(load);
        show_progress(load, now_ms);
        input_ready = wait_for_events(load);
    }
}

enum cli_exit cli_load(struct cli *cli)
{
    struct load *load = alloc_get_zeroed(&cli->alloc, sizeof(*load));
    if (load == NULL)
        return out_of_memory(cli);
    load->cli = cli;
    load->file = cli->arguments[0];
    load->fd = -1;
    plain_row_init(&load->row, &cli->alloc);
    buf_init(&load->preface, &cli->alloc);
    line_reader_init(&load->reader, &cli->alloc, -1, 0, 1);
    enum cli_exit code = job_retry_ms(cli, &load->retry_ms);
    if (code == CLI_OK)
        code = open_file(load);
    bool cluster_known = code == CLI_OK && (code = cluster_view_get(cli, &load->cluster)) == CLI_OK;
    if (code == CLI_OK)
        code = open_lanes(load);
    if (code == CLI_OK)
        code = start_reading(load);
    if (code == CLI_OK) {
        job_catch_interrupts();
        code = run_load(load);
    }
    for (uint32_t i = 0; load->lanes != NULL && i < load->lane_count; i++)
        lane_free(&load->lanes[i]);
    alloc_put(&cli->alloc, load->lanes, load->lane_count * sizeof(*load->lanes));
    line_reader_free(&load->reader);
    plain_row_free(&load->row);
    buf_free(&load->preface);
    job_file_free(&load->job);
    if (cluster_known)
        cluster_view_free(&load->cluster);
    if (load->fd >= 0)
        close(load->fd);
    alloc_put(&cli->alloc, load, sizeof(*load));
    return code;
}
