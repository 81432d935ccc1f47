/* One slot of a dump. */
#include "cli/dump_slot.h"

#include <stdio.h>

#include "base/base64.h"

#define BACKOFF_MS_MIN 100u
#define BACKOFF_MS_MAX 2000u

/* A node that could not be reached is not asked by other slots for this long, while others can. */
#define AVOID_MS 2000u

/* The slot's replicas that can be asked, those first that answered lately; spread over the slots. */
static void find_candidates(struct dump_slot *slot, uint16_t number, uint64_t now_ms)
{
    const struct dump_options *options = slot->options;
    const struct cluster_view *cluster = options->cluster;
    const uint16_t *replicas = ring_replicas(cluster->ring, number);
    uint8_t count = ring_replica_count(cluster->ring);
    slot->candidate_count = 0;
    if (options->local) {
        slot->candidates[slot->candidate_count++] = cluster->self;
        return;
    }
    for (int late = 0; late < 2; late++) {
        for (uint8_t i = 0; i < count; i++) {
            uint16_t node = replicas[(i + number) % count];
            bool avoided = now_ms < options->avoid_until[node] || !cluster->nodes[node].reachable;
            if (cluster->nodes[node].http != NULL && avoided == (late == 1))
                slot->candidates[slot->candidate_count++] = node;
        }
    }
}

void dump_slot_open(struct dump_slot *slot, struct dump_options *options, uint16_t number, uint64_t now_ms)
{
    struct alloc *alloc = &options->cli->alloc;
    memset(slot, 0, sizeof(*slot));
    slot->options = options;
    slot->open = true;
    slot->progress_ms = now_ms;
    slot->backoff_ms = BACKOFF_MS_MIN;
    row_merge_init(&slot->merge, alloc, number, options->streams);
    buf_init(&slot->output, alloc);
    buf_init(&slot->target, alloc);
    fetch_init(&slot->read, alloc);
    for (uint8_t i = 0; i < options->streams; i++) {
        fetch_init(&slot->pages[i], alloc);
        slot->source[i] = i;
    }
    find_candidates(slot, number, now_ms);
    if (slot->candidate_count >= options->streams)
        return;
    slot->failed = true;
    snprintf(
        slot->trouble, sizeof(slot->trouble),
        "slot %u needs the answers of %u replicas, but only %u can be asked; start the others, or dump with "
        "--r one",
        number, options->streams, slot->candidate_count);
}

void dump_slot_close(struct dump_slot *slot)
{
    if (!slot->open)
        return;
    for (uint8_t i = 0; i < slot->options->streams; i++)
        fetch_free(&slot->options->fetcher, &slot->pages[i]);
    fetch_free(&slot->options->fetcher, &slot->read);
    row_merge_free(&slot->merge);
    buf_free(&slot->output);
    buf_free(&slot->target);
    slot->open = false;
}

/* ---- asking --------------------------------------------------------------------------------------------- */

static const struct cluster_node *node_of(const struct dump_slot *slot, uint8_t candidate)
{
    return &slot->options->cluster->nodes[slot->candidates[candidate]];
}

static const char *address_of(const struct dump_slot *slot, uint8_t candidate)
{
    /* The node that was named is reached by the name it was given. */
    return slot->candidates[candidate] == slot->options->cluster->self ? slot->options->cli->address
                                                                       : node_of(slot, candidate)->http;
}

static void fetch_target(struct dump_slot *slot, struct fetch *fetch, uint8_t candidate)
{
    fetch->node = slot->candidates[candidate];
    fetch_start(&slot->options->fetcher, fetch, address_of(slot, candidate), buf_span(&slot->target));
}

static void start_page(struct dump_slot *slot, uint8_t stream)
{
    const struct row_stream *rows = &slot->merge.streams[stream];
    buf_clear(&slot->target);
    buf_append_format(&slot->target, "/local/rows?slot=%u", slot->merge.slot);
    if (rows->end.next.size > 0) {
        buf_append_text(&slot->target, "&after=");
        http_append_encoded(&slot->target, buf_span(&rows->end.next));
    } else if (slot->merge.any_merged) {
        buf_append_text(&slot->target, "&after=");
        base64_url_put(&slot->target, buf_span(&slot->merge.last_key));
    }
    fetch_target(slot, &slot->pages[stream], slot->source[stream]);
}

static void start_read(struct dump_slot *slot, struct span key)
{
    const struct cli *cli = slot->options->cli;
    buf_clear(&slot->target);
    buf_append_text(&slot->target, "/get?key=");
    http_append_encoded(&slot->target, key);
    if (cli->r != NULL) {
        buf_append_text(&slot->target, "&r=");
        http_append_encoded(&slot->target, span_of_text(cli->r));
    }
    if (cli->timeout != NULL) {
        buf_append_text(&slot->target, "&timeout=");
        http_append_encoded(&slot->target, span_of_text(cli->timeout));
    }
    fetch_target(slot, &slot->read, slot->read_source);
    slot->options->reads++;
}

/* ---- answers -------------------------------------------------------------------------------------------- */

/* "n2: 503 UNAVAILABLE: …" */
static void note_trouble(struct dump_slot *slot, const struct fetch *fetch, const char *text)
{
    const char *name = slot->options->cluster->nodes[fetch->node].name;
    const struct http_answer *answer = &fetch->answer;
    json_t *body = json_loadb((const char *)answer->body.data, answer->body.size, 0, NULL);
    if (text != NULL)
        snprintf(slot->trouble, sizeof(slot->trouble), "%.64s: %s", name, text);
    else if (answer->fault != HTTP_FAULT_NONE)
        snprintf(slot->trouble, sizeof(slot->trouble), "%.64s: %s", name, answer->fault_text);
    else
        snprintf(slot->trouble, sizeof(slot->trouble), "%.64s: %ld %.40s: %.300s", name, answer->status,
                 cli_json_text(body, "error"), cli_json_text(body, "message"));
    json_decref(body);
}

static void back_off(struct dump_slot *slot, uint64_t now_ms)
{
    slot->retry_at_ms = now_ms + slot->backoff_ms;
    slot->backoff_ms = slot->backoff_ms * 2 > BACKOFF_MS_MAX ? BACKOFF_MS_MAX : slot->backoff_ms * 2;
    if (now_ms >= slot->progress_ms + slot->options->retry_ms)
        slot->failed = true;
}

static void progressed(struct dump_slot *slot, uint64_t now_ms)
{
    slot->progress_ms = now_ms;
    slot->backoff_ms = BACKOFF_MS_MIN;
}

static bool in_use(const struct dump_slot *slot, uint8_t candidate)
{
    for (uint8_t i = 0; i < slot->options->streams; i++) {
        if (slot->source[i] == candidate)
            return true;
    }
    return false;
}

/* The stream's replica did not answer: another one, or the same after a while. */
static void replace_source(struct dump_slot *slot, uint8_t stream, uint64_t now_ms)
{
    if (slot->pages[stream].answer.fault == HTTP_FAULT_CONNECT)
        slot->options->avoid_until[slot->pages[stream].node] = now_ms + AVOID_MS;
    for (uint8_t i = 1; i < slot->candidate_count; i++) {
        uint8_t candidate = (uint8_t)((slot->source[stream] + i) % slot->candidate_count);
        if (in_use(slot, candidate))
            continue;
        slot->source[stream] = candidate;
        row_merge_replace(&slot->merge, stream);
        if (now_ms >= slot->options->avoid_until[slot->candidates[candidate]]) {
            slot->options->avoid_until[slot->pages[stream].node] = now_ms + AVOID_MS;
            if (slot->backoff_ms == BACKOFF_MS_MIN) {
                slot->backoff_ms *= 2;
                return; /* the first replacement is asked at once */
            }
        }
        break;
    }
    back_off(slot, now_ms);
}

static void take_page(struct dump_slot *slot, uint8_t stream, uint64_t now_ms)
{
    struct fetch *fetch = &slot->pages[stream];
    struct http_answer *answer = &fetch->answer;
    const char *name = slot->options->cluster->nodes[fetch->node].name;
    fetch->done = false;
    if (answer->fault == HTTP_FAULT_NONE && (answer->status == 404 || answer->status == 405)) {
        slot->failed = true;
        snprintf(slot->trouble, sizeof(slot->trouble),
                 "%.64s gives out no rows of slot %u: it is of another version, or the ring has changed; try "
                 "again",
                 name, slot->merge.slot);
    } else if (answer->fault == HTTP_FAULT_NONE && answer->status == 200) {
        if (row_merge_page(&slot->merge, stream, &answer->body) == STATUS_OK) {
            progressed(slot, now_ms);
            return;
        }
        note_trouble(slot, fetch, "its answer was cut off");
        replace_source(slot, stream, now_ms);
    } else {
        note_trouble(slot, fetch, NULL);
        replace_source(slot, stream, now_ms);
    }
}

static void put_plain(struct dump_slot *slot, struct span key, struct span value, uint64_t ttl_ms)
{
    plain_row_put(&slot->output, key, value, ttl_ms);
    slot->rows++;
}

/* The answer of the quorum read of `row`'s key; true once it is in the output, or there is nothing to put there. */
static bool take_read(struct dump_slot *slot, const struct local_row *row, uint64_t now_ms, uint64_t wall_ms)
{
    const struct http_answer *answer = &slot->read.answer;
    slot->read.done = false;
    if (answer->fault == HTTP_FAULT_NONE && (answer->status == 200 || answer->status == 404)) {
        progressed(slot, now_ms);
        uint64_t ttl_ms = answer->expiry_ms > wall_ms ? answer->expiry_ms - wall_ms : 0;
        if (answer->status == 200 && (answer->expiry_ms == 0 || ttl_ms > 0))
            put_plain(slot, buf_span(&row->key), buf_span(&answer->body), ttl_ms);
        return true;
    }
    note_trouble(slot, &slot->read, NULL);
    slot->failed = answer->fault == HTTP_FAULT_NONE && answer->status == 400;
    slot->read_source = (uint8_t)((slot->read_source + 1) % slot->candidate_count);
    back_off(slot, now_ms);
    return false;
}

/* ---- the slot ------------------------------------------------------------------------------------------- */

static void put_same(struct dump_slot *slot, const struct row_stream *stream, uint64_t wall_ms)
{
    uint64_t ttl_ms;
    if (slot->options->local) {
        buf_append_span(&slot->output, stream->line);
        buf_append_text(&slot->output, "\n");
        slot->rows++;
    } else if (local_row_live(&stream->row, wall_ms, &ttl_ms)) {
        put_plain(slot, buf_span(&stream->row.key), buf_span(&stream->row.value), ttl_ms);
    }
}

static void start_pages(struct dump_slot *slot)
{
    for (uint8_t i = 0; i < slot->options->streams; i++) {
        if (row_stream_wants_page(&slot->merge.streams[i]) && !slot->pages[i].busy && !slot->pages[i].done)
            start_page(slot, i);
    }
}

/* Goes on with the merge by one step; false if something must arrive first. */
static bool merge_on(struct dump_slot *slot, uint64_t now_ms, uint64_t wall_ms)
{
    char why[ROW_WHY_BYTES_MAX];
    uint8_t which = 0;
    switch (row_merge_step(&slot->merge, &which, why)) {
    case MERGE_PAGE:
        start_pages(slot);
        return false;
    case MERGE_SAME:
        put_same(slot, &slot->merge.streams[which], wall_ms);
        row_merge_next(&slot->merge, which);
        return true;
    case MERGE_DIFFER:
        if (slot->read.done && take_read(slot, &slot->merge.streams[which].row, now_ms, wall_ms)) {
            row_merge_next(&slot->merge, which);
            return true;
        }
        if (!slot->failed && now_ms >= slot->retry_at_ms)
            start_read(slot, buf_span(&slot->merge.streams[which].row.key));
        return false;
    case MERGE_END:
        slot->done = true;
        return false;
    case MERGE_MALFORMED:
        slot->failed = true;
        snprintf(slot->trouble, sizeof(slot->trouble), "%.64s sent a row of slot %u that %s",
                 node_of(slot, slot->source[which])->name, slot->merge.slot, why);
        return false;
    }
    return false;
}

void dump_slot_turn(struct dump_slot *slot, uint64_t now_ms, uint64_t wall_ms)
{
    for (uint8_t i = 0; i < slot->options->streams; i++) {
        if (slot->pages[i].done)
            take_page(slot, i, now_ms);
    }
    while (!slot->done && !slot->failed && !slot->read.busy && now_ms >= slot->retry_at_ms) {
        if (slot->output.size > DUMP_OUTPUT_BYTES_MAX)
            break;
        if (!merge_on(slot, now_ms, wall_ms))
            break;
    }
    if (slot->output.failed || slot->merge.last_key.failed || slot->target.failed) {
        slot->failed = true;
        snprintf(slot->trouble, sizeof(slot->trouble), "slot %u does not fit into memory", slot->merge.slot);
    }
}
