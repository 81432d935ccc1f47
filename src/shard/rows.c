/* The rows that this node holds of a slot, a page at a time (GET /local/rows), and how many they are (CLUSTER
 * COUNTKEYSINSLOT). keys.c asks the same way for keys alone.
 *
 * The shard that has the client asks the one that has the slot, which reads a page in the order of cold keys and sends
 * it back as bytes; the first one makes text of it. A page leaves only once all that it may show is durable, as every
 * read answer does (invariant 5). A slot that does not count towards R here gives out no rows: who merges the pages of
 * R replicas must be able to believe that a key which is in none of them does not exist.
 *
 * FRAME_ROWS_ASK: u16 slot, SLOTS_COUNT for any | u32 bytes | u32 keys: > 0 for so many keys; both 0 for the count
 * alone | key after which to start.
 * FRAME_ROWS: u8 status | u64 keys of the slot | u8 enum page_end | the key to go on after, if PAGE_NEXT (short) |
 * rows: key (short), record (long). */
#include <assert.h>
#include <inttypes.h>

#include "base/base64.h"
#include "shard/state.h"

/* A page holds rows up to this many bytes, unless the request says otherwise; its first row may be larger. */
#define ROWS_BYTES_DEFAULT (1u << 20)

/* Bytes of a row around its key and record, in the answer: names of members, versions. */
#define ROW_TEXT_BYTES 128u

enum page_end {
    PAGE_LAST = 0, /* no row follows */
    PAGE_MORE = 1, /* go on after the last row of the page */
    PAGE_NEXT = 2, /* it has no rows; go on after this key */
};

/* ---- the slot's shard ----------------------------------------------------------------------------------- */

static void answer(struct shard *shard, uint8_t to_shard, uint64_t ticket, struct span body)
{
    if (to_shard == shard->options.shard)
        rows_answered(shard, ticket, body);
    else
        frame_put_raw(&shard->locals[to_shard], FRAME_ROWS, frame_head_of(shard, to_shard, ticket), body);
}

/* The answer without rows. */
void rows_answer_short(struct shard *shard, const struct rows_page *page, enum status status, uint64_t keys)
{
    struct buf body;
    buf_init(&body, &shard->local_alloc);
    buf_put_u8(&body, (uint8_t)status);
    buf_put_u64(&body, keys);
    buf_put_u8(&body, PAGE_LAST);
    answer(shard, page->to_shard, page->ticket, buf_span(&body));
    buf_free(&body);
}

void rows_page_free(struct rows_page *page)
{
    buf_free(&page->rows);
    buf_free(&page->next);
    page->used = false;
}

/* The last batch that may hold one of the rows that a scan begun now sees. */
static uint64_t newest_batch(const struct shard *shard)
{
    return shard->log.payload.size > 0 && !shard->log.emitted ? shard->log.open : shard->log.open - 1;
}

struct rows_page *rows_page_new(struct shard *shard, const struct rows_page *wanted, uint16_t slot)
{
    for (uint32_t i = 0; i < ROWS_PAGES_MAX; i++) {
        struct rows_page *page = &shard->rows_pages[i];
        if (page->used)
            continue;
        *page = *wanted;
        page->used = true;
        page->slot = slot;
        buf_init(&page->rows, &shard->alloc);
        buf_init(&page->next, &shard->alloc);
        return page;
    }
    return NULL;
}

enum status rows_scan(struct shard *shard, struct rows_page *page, struct span first)
{
    struct scan_options options = {
        .kind = SCAN_ROWS,
        .owner = page,
        .slot = page->slot,
        .tag_first = page->tag_first,
        .tag_last = UINT16_MAX,
        .first = first,
        .may_end_early = page->keys_max == 0,
    };
    page->sequence = newest_batch(shard);
    return scan_start(shard, &options) == NULL ? STATUS_OVERLOADED : STATUS_OK;
}

static void page_start(struct shard *shard, const struct rows_page *wanted, uint16_t slot, struct span after)
{
    struct rows_page *page = rows_page_new(shard, wanted, slot);
    if (page == NULL) {
        rows_answer_short(shard, wanted, STATUS_OVERLOADED, 0);
        return;
    }
    struct buf first;
    buf_init(&first, &shard->alloc);
    if (after.size > 0) {
        uint8_t prefix[COLD_KEY_PREFIX_BYTES];
        cold_key_prefix(after, slot, prefix);
        buf_append(&first, prefix, sizeof prefix);
        buf_append_span(&first, after);
    }
    enum status status = first.failed ? STATUS_OVERLOADED : rows_scan(shard, page, buf_span(&first));
    buf_free(&first);
    if (status == STATUS_OK)
        return;
    rows_page_free(page);
    rows_answer_short(shard, wanted, status, 0);
}

static void asked(struct shard *shard, const struct rows_page *wanted, uint16_t slot, struct span after)
{
    const struct slot_state *state = slot < SLOTS_COUNT ? slot_state_of(shard, slot) : NULL;
    if (slot == SLOTS_COUNT)
        keys_any_asked(shard, wanted);
    else if (wanted->bytes_max == 0 && (wanted->keys_max == 0 || state == NULL))
        rows_answer_short(shard, wanted, STATUS_OK, state == NULL ? 0 : slot_keys(shard, state));
    else if (state == NULL)
        rows_answer_short(shard, wanted, STATUS_STALE_EPOCH, 0);
    else if (!storage_slot_serves(shard, slot))
        rows_answer_short(shard, wanted, STATUS_QUARANTINED, 0);
    else
        page_start(shard, wanted, slot, after);
}

void rows_asked(struct shard *shard, const struct frame *frame)
{
    struct reader reader = reader_of(frame->body);
    uint16_t slot = reader_u16(&reader);
    struct rows_page wanted = {.to_shard = frame->from_shard, .ticket = frame->request};
    wanted.bytes_max = reader_u32(&reader);
    wanted.keys_max = reader_u32(&reader);
    struct span after = reader_bytes(&reader, reader_left(&reader));
    asked(shard, &wanted, slot, after);
}

bool rows_row(struct shard *shard, struct rows_page *page, struct span key, struct span record)
{
    if (page->keys_max > 0)
        return keys_row(shard, page, key, record);
    size_t bytes = key.size + record.size + ROW_TEXT_BYTES;
    if (page->count > 0 && page->bytes + bytes > page->bytes_max)
        return false;
    page->bytes += bytes;
    page->count++;
    buf_put_short(&page->rows, key);
    buf_put_long(&page->rows, record);
    return !page->rows.failed;
}

/* `reached`: a page without rows got that far. */
void rows_read(struct shard *shard, struct rows_page *page, enum status status, bool truncated,
               struct span reached)
{
    assert(page->used);
    if (status == STATUS_CORRUPT) {
        heal_scan_damaged(shard, page->slot);
        status = STATUS_QUARANTINED;
    }
    if (status == STATUS_OK && page->keys_max > 0 && page->count == 0 && !page->rows.failed) {
        status = keys_go_on(shard, page);
        if (status == STATUS_WAIT)
            return;
    }
    page->end = PAGE_LAST;
    if (truncated && page->count > 0) {
        page->end = PAGE_MORE;
    } else if (truncated) {
        page->end = PAGE_NEXT;
        buf_append(&page->next, reached.data + COLD_KEY_PREFIX_BYTES, reached.size - COLD_KEY_PREFIX_BYTES);
    }
    if (page->rows.failed || page->next.failed)
        status = STATUS_OVERLOADED;
    struct replica_origin origin = {.kind = ORIGIN_ROWS, .request = (uint64_t)(page - shard->rows_pages)};
    struct replica_answer durable = {.kind = TASK_GET, .status = status};
    wait_durable(shard, page->sequence, &origin, &durable);
}

void rows_durable(struct shard *shard, uint64_t number, enum status status)
{
    struct rows_page *page = &shard->rows_pages[number];
    struct buf body;
    assert(number < ROWS_PAGES_MAX && page->used);
    if (status != STATUS_OK) {
        rows_answer_short(shard, page, status, 0);
        rows_page_free(page);
        return;
    }
    buf_init(&body, &shard->local_alloc);
    buf_put_u8(&body, STATUS_OK);
    buf_put_u64(&body, page->keys);
    buf_put_u8(&body, page->end);
    if (page->end == PAGE_NEXT)
        buf_put_short(&body, buf_span(&page->next));
    buf_append_span(&body, buf_span(&page->rows));
    answer(shard, page->to_shard, page->ticket, buf_span(&body));
    buf_free(&body);
    rows_page_free(page);
}

void rows_free(struct shard *shard)
{
    for (uint32_t i = 0; i < ROWS_PAGES_MAX; i++) {
        if (shard->rows_pages[i].used)
            rows_page_free(&shard->rows_pages[i]);
    }
}

/* ---- text ----------------------------------------------------------------------------------------------- */

/* Whether bytes are shorter as a JSON string than as base64: text that is not mostly control bytes. */
static bool as_text(struct span bytes)
{
    size_t escaped = 0;
    for (size_t i = 0; i < bytes.size; i++)
        escaped += bytes.data[i] < ' ';
    return escaped <= bytes.size / 16 && json_is_text(bytes);
}

static void put_bytes(struct buf *json, const char *name, struct span bytes)
{
    bool text = as_text(bytes);
    buf_append_format(json, "\"%s%s\":", name, text ? "" : "_base64");
    if (text) {
        json_put_string(json, bytes);
        return;
    }
    buf_append_text(json, "\"");
    base64_put(json, bytes);
    buf_append_text(json, "\"");
}

static void put_stamp(struct buf *json, const char *name, struct stamp stamp)
{
    char text[STAMP_TEXT_BYTES_MAX];
    (void)stamp_format(stamp, text);
    buf_append_format(json, "\"%s\":\"%s\"", name, text);
}

static void put_row(struct buf *json, struct span key, const struct record *record, uint64_t now_ms)
{
    buf_append_text(json, "{");
    put_bytes(json, "key", key);
    if (record_holds_value(record)) {
        buf_append_text(json, ",");
        put_bytes(json, "value", record->value);
    } else if ((record->flags & RECORD_TOMBSTONE) != 0) {
        buf_append_text(json, ",\"tombstone\":true");
    }
    if ((record->flags & RECORD_VALUE) != 0) {
        buf_append_text(json, ",");
        put_stamp(json, "stamp", record->stamp);
    }
    if (record->expiry_ms != 0)
        buf_append_format(json, ",\"expiry_ms\":%" PRIu64, record->expiry_ms);
    if ((record->flags & RECORD_OVERRIDE) != 0) {
        buf_append_text(json, ",\"override\":{");
        put_stamp(json, "stamp", record->override_stamp);
        buf_append_text(json, ",");
        put_stamp(json, "applies_to", record->override_applies_to);
        if (record->override_expiry_ms != 0)
            buf_append_format(json, ",\"expiry_ms\":%" PRIu64, record->override_expiry_ms);
        buf_append_text(json, "}");
    }
    buf_append_format(json, ",\"live\":%s}\n", record_live(record, now_ms) ? "true" : "false");
}

static void put_page(struct buf *json, enum page_end end, struct reader *body, uint64_t now_ms)
{
    struct span key = {0};
    if (end == PAGE_NEXT)
        key = reader_short(body);
    while (reader_left(body) > 0) {
        key = reader_short(body);
        struct record record;
        enum status status = record_parse(reader_long(body), &record);
        assert(status == STATUS_OK && !body->failed); /* a sibling checked it */
        put_row(json, key, &record, now_ms);
    }
    if (end == PAGE_LAST) {
        buf_append_text(json, "{\"end\":true}\n");
        return;
    }
    buf_append_text(json, "{\"next\":\"");
    base64_url_put(json, key);
    buf_append_text(json, "\"}\n");
}

/* ---- the client's shard --------------------------------------------------------------------------------- */

static void refuse(struct pending *pending, enum status status, const char *message)
{
    struct http_refusal refusal = {.http_status = http_status_of(status)};
    reply_http_refusal(pending, &refusal, status, span_of_text(message));
}

void rows_answered(struct shard *shard, uint64_t ticket, struct span bytes)
{
    struct pending *pending = map_get(&shard->pendings, ticket >> TICKET_PART_BITS);
    struct reader body = reader_of(bytes);
    enum status status = (enum status)reader_u8(&body);
    uint64_t keys = reader_u64(&body);
    enum page_end end = (enum page_end)reader_u8(&body);
    assert(pending != NULL && !body.failed);
    if (status != STATUS_OK) {
        pending->failed = true;
        pending->failure = (struct result){.outcome = OUTCOME_NOT_APPLIED, .status = status};
    } else if (pending->client != NULL && pending->http) {
        struct buf json;
        buf_init(&json, &shard->alloc);
        put_page(&json, end, &body, shard->now.wall_ms);
        struct http_reply reply = {
            .http_status = 200,
            .version_minor = pending->http_minor,
            .keep_alive = pending->http_keep_alive,
            .head = pending->http_head,
            .content_type = "application/x-ndjson",
            .body = buf_span(&json),
        };
        http_reply(&pending->reply, &reply);
        pending->reply.failed |= json.failed;
        buf_free(&json);
    } else if (pending->client != NULL && pending->subcommand != SUBCOMMAND_CLUSTER_COUNTKEYSINSLOT) {
        keys_answered(shard, pending, keys, &body);
    } else if (pending->client != NULL) {
        resp_reply_integer(&pending->reply, (int64_t)keys);
    }
    pending_part_over(shard, pending);
}

void rows_ask(struct shard *shard, struct pending *pending, uint16_t target, uint16_t slot,
              const struct rows_page *wanted, struct span after)
{
    struct rows_page own = *wanted;
    own.to_shard = (uint8_t)shard->options.shard;
    own.ticket = pending->id << TICKET_PART_BITS;
    pending->parts_left++;
    if (target == shard->options.shard) {
        asked(shard, &own, slot, after);
        return;
    }
    struct buf body;
    buf_init(&body, &shard->local_alloc);
    buf_put_u16(&body, slot);
    buf_put_u32(&body, own.bytes_max);
    buf_put_u32(&body, own.keys_max);
    buf_append_span(&body, after);
    frame_put_raw(&shard->locals[target], FRAME_ROWS_ASK, frame_head_of(shard, (uint8_t)target, own.ticket),
                  buf_span(&body));
    buf_free(&body);
}

static void ask(struct shard *shard, struct pending *pending, const struct command *command,
                uint32_t bytes_max, struct span after)
{
    struct rows_page wanted = {.bytes_max = bytes_max};
    rows_ask(shard, pending, slot_shard(command->slot, shard->options.shards), command->slot, &wanted, after);
}

void rows_page_ask(struct shard *shard, struct pending *pending, const struct command *command)
{
    struct buf after;
    buf_init(&after, &shard->alloc);
    enum status status = base64_url_decode(&after, command->after);
    bool of_slot =
        after.size <= KEY_BYTES_MAX_HARD && (after.size == 0 || key_slot(buf_span(&after)) == command->slot);
    if (status == STATUS_OVERLOADED)
        pending->reply.failed = true;
    else if (status != STATUS_OK)
        refuse(pending, STATUS_BAD_REQUEST,
               "after must be a key in base64url (RFC 4648, section 5), as \"next\" gave it");
    else if (!of_slot)
        refuse(pending, STATUS_BAD_REQUEST, "after must be a key of the slot that is asked for");
    else if (!ring_replicates(shard->ring, command->slot, shard->self))
        refuse(pending, STATUS_NOT_FOUND,
               "this node does not replicate that slot; /ring says which nodes do");
    else
        ask(shard, pending, command, command->bytes != 0 ? command->bytes : ROWS_BYTES_DEFAULT,
            buf_span(&after));
    buf_free(&after);
}

void rows_count_ask(struct shard *shard, struct pending *pending, const struct command *command)
{
    ask(shard, pending, command, 0, (struct span){0});
}
