/* top: every node's figures, live.
 *
 * The nodes are those that the node of -h knows when the command starts; from then on each is asked itself, all at
 * once, so that one that does not answer delays nothing and is shown as such. */
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/dump_fetch.h"
#include "cli/job.h"
#include "cli/top.h"

#define INTERVAL_S_DEFAULT 2.0
#define INTERVAL_S_MAX 3600.0

/* A node that takes longer for its metrics is shown as one that does not answer. */
#define ANSWER_MS_MAX 2000u

/* Ctrl-C is looked for this often. */
#define LOOK_MS 50u

struct top {
    struct cli *cli;
    struct fetcher fetcher;
    struct fetch *fetches;
    struct top_node *nodes;
    uint32_t count;
    uint64_t interval_ms;
};

static enum cli_exit read_interval(const struct cli *cli, uint64_t *ms)
{
    double seconds = INTERVAL_S_DEFAULT;
    if (cli->interval != NULL) {
        char *end;
        seconds = strtod(cli->interval, &end);
        if (end == cli->interval || *end != 0 || !isfinite(seconds) || seconds < 0.1 ||
            seconds > INTERVAL_S_MAX)
            return cli_fail(cli, CLI_USAGE, "BAD_REQUEST",
                            "--interval is a number of seconds from 0.1 to %.0f, not '%.40s'", INTERVAL_S_MAX,
                            cli->interval);
    }
    *ms = (uint64_t)(seconds * 1000);
    return CLI_OK;
}

static enum cli_exit find_nodes(struct top *top)
{
    json_t *status;
    size_t index;
    json_t *json;
    enum cli_exit code = cli_request_json(top->cli, "/status", &status);
    if (code != CLI_OK)
        return code;
    const json_t *nodes = json_object_get(status, "nodes");
    size_t count = json_array_size(nodes);
    if (count == 0 || count > NODES_MAX) {
        json_decref(status);
        return cli_fail(top->cli, CLI_NOT_APPLIED, "BAD_ANSWER",
                        "%s does not name its nodes; use the rondo of its version", top->cli->address);
    }
    top->nodes = alloc_get_zeroed(&top->cli->alloc, count * sizeof(*top->nodes));
    top->fetches = alloc_get_zeroed(&top->cli->alloc, count * sizeof(*top->fetches));
    top->count = (uint32_t)count;
    if (top->nodes == NULL || top->fetches == NULL)
        code = cli_fail(top->cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    json_array_foreach(nodes, index, json)
    {
        if (code != CLI_OK)
            break;
        struct top_node *node = &top->nodes[index];
        /* Itself it is asked where it was asked: its own address may be one that only its neighbours reach. */
        bool self = json_is_true(json_object_get(json, "self"));
        span_copy_text(span_of_text(cli_json_text(json, "name")), node->name, sizeof(node->name));
        span_copy_text(span_of_text(self ? top->cli->address : cli_json_text(json, "http")), node->http,
                       sizeof(node->http));
        fetch_init(&top->fetches[index], &top->cli->alloc);
    }
    json_decref(status);
    return code;
}

static void take_answer(struct top_node *node, const struct fetch *fetch, uint64_t now_ms)
{
    const struct http_answer *answer = &fetch->answer;
    struct top_sample sample;
    bool had = node->answered;
    node->answered = false;
    if (!fetch->done)
        snprintf(node->fault, sizeof(node->fault), "nothing within %u ms", ANSWER_MS_MAX);
    else if (answer->fault != HTTP_FAULT_NONE)
        snprintf(node->fault, sizeof(node->fault), "%s", answer->fault_text);
    else if (answer->status != 200 || !top_sample_read(buf_span(&answer->body), &sample))
        snprintf(node->fault, sizeof(node->fault), "HTTP %ld, not metrics of a node", answer->status);
    else
        node->answered = true;
    if (!node->answered)
        return;
    sample.at_ms = now_ms;
    node->before = node->now;
    node->now = sample;
    node->has_before = had && node->before.figures[TOP_STARTED] == sample.figures[TOP_STARTED];
    if (!node->has_before)
        node->before = sample;
}

/* Asks every node once. */
static void sample_nodes(struct top *top)
{
    uint64_t started_ms = job_now_ms();
    uint32_t waiting = top->count;
    for (uint32_t i = 0; i < top->count; i++)
        fetch_start(&top->fetcher, &top->fetches[i], top->nodes[i].http, span_of_text("/metrics"));
    while (waiting > 0 && job_now_ms() < started_ms + ANSWER_MS_MAX && !job_interrupted()) {
        fetcher_turn(&top->fetcher, LOOK_MS);
        waiting = 0;
        for (uint32_t i = 0; i < top->count; i++)
            waiting += top->fetches[i].busy;
    }
    uint64_t now_ms = job_now_ms();
    for (uint32_t i = 0; i < top->count; i++) {
        take_answer(&top->nodes[i], &top->fetches[i], now_ms);
        if (top->fetches[i].busy) {
            fetch_free(&top->fetcher, &top->fetches[i]);
            fetch_init(&top->fetches[i], &top->cli->alloc);
        }
    }
}

/* Sleeps until the interval is over; false after Ctrl-C. */
static bool wait_until(uint64_t until_ms)
{
    while (!job_interrupted()) {
        uint64_t now_ms = job_now_ms();
        if (now_ms >= until_ms)
            return true;
        uint64_t left_ms = until_ms - now_ms;
        (void)poll(NULL, 0, (int)(left_ms < LOOK_MS ? left_ms : LOOK_MS));
    }
    return false;
}

/* Draws over what was there, from the top left corner, each line cut to the terminal's width. */
static void redraw(struct span text)
{
    size_t width = (size_t)cli_width();
    fputs("\033[H", stdout);
    while (text.size > 0) {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        size_t size = end == NULL ? text.size : (size_t)(end - text.data);
        fwrite(text.data, 1, size < width ? size : width, stdout);
        fputs("\033[K\r\n", stdout);
        size += end != NULL;
        text = span_of(text.data + size, text.size - size);
    }
    fputs("\033[J", stdout);
    fflush(stdout);
}

static enum cli_exit show(struct top *top, bool live)
{
    struct buf text;
    enum cli_exit code = CLI_OK;
    if (top->cli->json) {
        json_t *json = top_view_json(top->nodes, top->count);
        code = cli_print_json(json);
        json_decref(json);
        return code;
    }
    buf_init(&text, &top->cli->alloc);
    if (live)
        buf_append_format(&text, "every %.1f s, from %s; Ctrl-C ends it\n\n", (double)top->interval_ms / 1000,
                          top->cli->address);
    top_view_text(&text, top->nodes, top->count);
    if (text.failed)
        code = cli_fail(top->cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    else if (live)
        redraw(buf_span(&text));
    else if (!cli_write(buf_span(&text)))
        code = CLI_NOT_APPLIED;
    buf_free(&text);
    return code;
}

static enum cli_exit run(struct top *top)
{
    bool live = isatty(STDOUT_FILENO) && !top->cli->json && (top->cli->options_given & CLI_OPTION_ONCE) == 0;
    enum cli_exit code = CLI_OK;
    uint64_t next_ms = job_now_ms();
    sample_nodes(top);
    if (live)
        fputs("\033[2J\033[?25l", stdout);
    do {
        next_ms += top->interval_ms;
        if (!wait_until(next_ms)) {
            code = live ? CLI_OK : CLI_INTERRUPTED;
            break;
        }
        sample_nodes(top);
        code = show(top, live);
    } while (live && code == CLI_OK);
    if (live)
        fputs("\033[?25h", stdout);
    return code;
}

enum cli_exit cli_top(struct cli *cli)
{
    struct top top = {.cli = cli};
    enum cli_exit code = read_interval(cli, &top.interval_ms);
    if (code != CLI_OK)
        return code;
    if (!fetcher_init(&top.fetcher))
        code = cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    if (code == CLI_OK)
        code = find_nodes(&top);
    if (code == CLI_OK) {
        job_catch_interrupts();
        code = run(&top);
    }
    for (uint32_t i = 0; top.fetches != NULL && i < top.count; i++)
        fetch_free(&top.fetcher, &top.fetches[i]);
    alloc_put(&cli->alloc, top.fetches, top.count * sizeof(*top.fetches));
    alloc_put(&cli->alloc, top.nodes, top.count * sizeof(*top.nodes));
    fetcher_free(&top.fetcher);
    return code;
}
