/* Peer frames: cutting, encoding, decoding. */
#include "proto/frame.h"

#include <assert.h>

#define FRAME_SIZE_BYTES 4

const char *frame_type_name(enum frame_type type)
{
    static const char *const names[FRAME_TYPE_MAX + 1] = {
        "NONE",          "HELLO",     "WELCOME",     "REFUSE",     "PING",     "PONG",     "PUT",
        "PUT_ACK",       "GET",       "GET_ANSWER",  "RING_ASK",   "RING",     "EXEC",     "EXEC_DONE",
        "STATE",         "STATS_ASK", "STATS",       "PASSED",     "GOSSIP",   "LIVENESS", "REPAIR",
        "REPAIR_ANSWER", "HINTS_ASK", "HINTS_HELD",  "QUARANTINE", "ROWS_ASK", "ROWS",     "HEALING_ASK",
        "HEALING",       "RUN",       "REPAIR_DONE", "QUESTION",   "ANSWER",
    };
    return (unsigned)type <= FRAME_TYPE_MAX ? names[type] : "UNKNOWN";
}

enum status frame_cut(struct span bytes, struct frame *frame, size_t *need)
{
    *need = FRAME_HEADER_BYTES;
    if (bytes.size < FRAME_SIZE_BYTES)
        return STATUS_MORE;
    size_t size = load_u32(bytes.data) + (size_t)FRAME_SIZE_BYTES;
    if (size < FRAME_HEADER_BYTES || size > FRAME_BYTES_MAX)
        return STATUS_MALFORMED;
    *need = size;
    if (bytes.size < size)
        return STATUS_MORE;
    uint8_t type = bytes.data[4];
    if (type == 0 || type > FRAME_TYPE_MAX || bytes.data[7] != 0)
        return STATUS_MALFORMED;
    *frame = (struct frame){
        .type = (enum frame_type)type,
        .from_shard = bytes.data[5],
        .to_shard = bytes.data[6],
        .request = load_u64(bytes.data + 8),
        .epoch = load_u64(bytes.data + 16),
        .body = span_of(bytes.data + FRAME_HEADER_BYTES, size - FRAME_HEADER_BYTES),
        .whole = span_of(bytes.data, size),
    };
    return STATUS_OK;
}

enum status frame_slot(const struct frame *frame, uint16_t *slot)
{
    bool has_slot = frame->type == FRAME_PUT || frame->type == FRAME_GET || frame->type == FRAME_EXEC;
    if (!has_slot || frame->body.size < 2)
        return STATUS_MALFORMED;
    *slot = load_u16(frame->body.data);
    return *slot < SLOTS_COUNT ? STATUS_OK : STATUS_MALFORMED;
}

/* Starts a frame; returns where, for frame_end. The size is known only at the end. */
static size_t frame_begin(struct buf *buf, enum frame_type type, struct frame_head head)
{
    uint8_t header[FRAME_HEADER_BYTES] = {0};
    header[4] = (uint8_t)type;
    header[5] = head.from_shard;
    header[6] = head.to_shard;
    store_u64(header + 8, head.request);
    store_u64(header + 16, head.epoch);
    size_t start = buf->size;
    buf_append(buf, header, sizeof header);
    return start;
}

/* A frame that did not fit is taken back whole, so that the buf never holds half of one. */
static void frame_end(struct buf *buf, size_t start)
{
    if (buf->failed) {
        buf->size = start;
        return;
    }
    size_t size = buf->size - start;
    assert(size >= FRAME_HEADER_BYTES && size <= FRAME_BYTES_MAX);
    store_u32(buf->data + start, (uint32_t)(size - FRAME_SIZE_BYTES));
}

static struct reader body_reader(const struct frame *frame, enum frame_type type)
{
    assert(frame->type == type);
    (void)type;
    return reader_of(frame->body);
}

/* A byte that must be 0 or 1. */
static bool read_flag(struct reader *reader)
{
    uint8_t byte = reader_u8(reader);
    if (byte > 1)
        reader->failed = true;
    return byte == 1;
}

/* Flags of a request to a replica: the caller's own bit, and whether the node of a hint follows. */
#define REPLICA_FLAG_OWN 1u
#define REPLICA_FLAG_HINT 2u

static void put_replica_flags(struct buf *buf, bool own, uint64_t hint_for)
{
    buf_put_u8(buf, (uint8_t)((own ? REPLICA_FLAG_OWN : 0) | (hint_for != 0 ? REPLICA_FLAG_HINT : 0)));
    if (hint_for != 0)
        buf_put_u64(buf, hint_for);
}

static bool read_replica_flags(struct reader *reader, uint64_t *hint_for)
{
    uint8_t flags = reader_u8(reader);
    bool hint = (flags & REPLICA_FLAG_HINT) != 0;
    *hint_for = hint ? reader_u64(reader) : 0;
    if (flags > (REPLICA_FLAG_OWN | REPLICA_FLAG_HINT) || (hint && *hint_for == 0))
        reader->failed = true;
    return (flags & REPLICA_FLAG_OWN) != 0;
}

static enum status read_status(struct reader *reader)
{
    uint8_t byte = reader_u8(reader);
    if (byte >= STATUS_COUNT)
        reader->failed = true;
    return byte >= STATUS_COUNT ? STATUS_MALFORMED : (enum status)byte;
}

static uint16_t read_slot(struct reader *reader)
{
    uint16_t slot = reader_u16(reader);
    if (slot >= SLOTS_COUNT) {
        reader->failed = true;
        return 0;
    }
    return slot;
}

/* A record inside a frame must be canonical: what is stored must be byte-identical everywhere. Its value is bounded,
 * so that every merge with it fits every frame. */
static struct span read_record(struct reader *reader, bool may_be_empty)
{
    struct span bytes = reader_long(reader);
    struct record record;
    if (record_parse(bytes, &record) != STATUS_OK || (bytes.size == 0 && !may_be_empty) ||
        record.value.size > VALUE_BYTES_MAX_HARD)
        reader->failed = true;
    return bytes;
}

void frame_put_hello(struct buf *buf, struct frame_head head, const struct frame_hello *hello)
{
    size_t start = frame_begin(buf, FRAME_HELLO, head);
    buf_put_u32(buf, FRAME_HELLO_MAGIC);
    buf_put_u16(buf, FRAME_PROTOCOL_VERSION);
    buf_put_u64(buf, hello->cluster.low);
    buf_put_u64(buf, hello->cluster.high);
    buf_put_u64(buf, hello->node);
    buf_put_u64(buf, hello->directory);
    run_history_put(buf, &hello->runs);
    buf_put_u16(buf, hello->shards);
    buf_put_u16(buf, hello->shard);
    buf_put_short(buf, hello->name);
    buf_put_short(buf, hello->resp_address);
    buf_put_short(buf, hello->http_address);
    buf_put_long(buf, hello->ring);
    frame_end(buf, start);
}

enum status frame_read_hello(const struct frame *frame, struct frame_hello *hello)
{
    struct reader reader = body_reader(frame, FRAME_HELLO);
    /* Magic and version first: what follows may differ in another version. */
    if (reader_u32(&reader) != FRAME_HELLO_MAGIC || reader_u16(&reader) != FRAME_PROTOCOL_VERSION)
        return STATUS_WRONG_PROTOCOL;
    hello->cluster.low = reader_u64(&reader);
    hello->cluster.high = reader_u64(&reader);
    hello->node = reader_u64(&reader);
    hello->directory = reader_u64(&reader);
    run_history_read(&reader, &hello->runs);
    hello->shards = reader_u16(&reader);
    hello->shard = reader_u16(&reader);
    hello->name = reader_short(&reader);
    hello->resp_address = reader_short(&reader);
    hello->http_address = reader_short(&reader);
    hello->ring = reader_long(&reader);
    bool sizes_fit = hello->shards > 0 && hello->shards <= SHARDS_MAX && hello->shard < hello->shards &&
                     hello->name.size <= NAME_BYTES_MAX && hello->resp_address.size <= ADDRESS_BYTES_MAX &&
                     hello->http_address.size <= ADDRESS_BYTES_MAX;
    return sizes_fit ? reader_finish(&reader) : STATUS_MALFORMED;
}

void frame_put_welcome(struct buf *buf, struct frame_head head, const struct frame_welcome *welcome)
{
    size_t start = frame_begin(buf, FRAME_WELCOME, head);
    buf_put_u64(buf, welcome->node);
    buf_put_u64(buf, welcome->directory);
    buf_put_u16(buf, welcome->shards);
    buf_put_u8(buf, welcome->knew_other_directory);
    buf_put_u8(buf, welcome->superseded);
    buf_put_short(buf, welcome->resp_address);
    buf_put_short(buf, welcome->http_address);
    buf_put_u64(buf, welcome->ring_epoch);
    frame_end(buf, start);
}

enum status frame_read_welcome(const struct frame *frame, struct frame_welcome *welcome)
{
    struct reader reader = body_reader(frame, FRAME_WELCOME);
    welcome->node = reader_u64(&reader);
    welcome->directory = reader_u64(&reader);
    welcome->shards = reader_u16(&reader);
    welcome->knew_other_directory = read_flag(&reader);
    welcome->superseded = read_flag(&reader);
    welcome->resp_address = reader_short(&reader);
    welcome->http_address = reader_short(&reader);
    welcome->ring_epoch = reader_u64(&reader);
    bool sizes_fit = welcome->shards > 0 && welcome->shards <= SHARDS_MAX &&
                     welcome->resp_address.size <= ADDRESS_BYTES_MAX &&
                     welcome->http_address.size <= ADDRESS_BYTES_MAX;
    return sizes_fit ? reader_finish(&reader) : STATUS_MALFORMED;
}

void frame_put_refuse(struct buf *buf, struct frame_head head, const struct frame_refuse *refuse)
{
    size_t start = frame_begin(buf, FRAME_REFUSE, head);
    buf_put_u8(buf, (uint8_t)refuse->status);
    buf_put_short(buf, refuse->text);
    frame_end(buf, start);
}

enum status frame_read_refuse(const struct frame *frame, struct frame_refuse *refuse)
{
    struct reader reader = body_reader(frame, FRAME_REFUSE);
    refuse->status = read_status(&reader);
    refuse->text = reader_short(&reader);
    return reader_finish(&reader);
}

void frame_put_run(struct buf *buf, struct frame_head head, const struct frame_run *run)
{
    size_t start = frame_begin(buf, FRAME_RUN, head);
    buf_put_u64(buf, run->directory);
    buf_put_u64(buf, run->run.count);
    buf_put_u64(buf, run->run.id);
    frame_end(buf, start);
}

enum status frame_read_run(const struct frame *frame, struct frame_run *run)
{
    struct reader reader = body_reader(frame, FRAME_RUN);
    run->directory = reader_u64(&reader);
    run->run.count = reader_u64(&reader);
    run->run.id = reader_u64(&reader);
    return reader_finish(&reader);
}

static void put_clock_frame(struct buf *buf, enum frame_type type, struct frame_head head,
                            const struct frame_ping *ping)
{
    size_t start = frame_begin(buf, type, head);
    buf_put_u64(buf, ping->sent_mono_us);
    buf_put_u64(buf, ping->sent_wall_ms);
    buf_put_u64(buf, ping->answered_wall_ms);
    frame_end(buf, start);
}

void frame_put_ping(struct buf *buf, struct frame_head head, const struct frame_ping *ping)
{
    put_clock_frame(buf, FRAME_PING, head, ping);
}

void frame_put_pong(struct buf *buf, struct frame_head head, const struct frame_ping *pong)
{
    put_clock_frame(buf, FRAME_PONG, head, pong);
}

enum status frame_read_ping(const struct frame *frame, struct frame_ping *ping)
{
    assert(frame->type == FRAME_PING || frame->type == FRAME_PONG);
    struct reader reader = reader_of(frame->body);
    ping->sent_mono_us = reader_u64(&reader);
    ping->sent_wall_ms = reader_u64(&reader);
    ping->answered_wall_ms = reader_u64(&reader);
    return reader_finish(&reader);
}

void frame_put_put(struct buf *buf, struct frame_head head, const struct frame_put *put)
{
    size_t start = frame_begin(buf, FRAME_PUT, head);
    if (!buf_reserve(buf, 2 + 8 + 9 + 2 + put->key.size + 4 + put->record.size)) {
        frame_end(buf, start);
        return;
    }
    buf_put_u16(buf, put->slot);
    buf_put_u64(buf, put->deadline_ms);
    put_replica_flags(buf, put->write_back, put->hint_for);
    buf_put_short(buf, put->key);
    buf_put_long(buf, put->record);
    frame_end(buf, start);
}

enum status frame_read_put(const struct frame *frame, struct frame_put *put)
{
    struct reader reader = body_reader(frame, FRAME_PUT);
    put->slot = read_slot(&reader);
    put->deadline_ms = reader_u64(&reader);
    put->write_back = read_replica_flags(&reader, &put->hint_for);
    put->key = reader_short(&reader);
    put->record = read_record(&reader, false);
    return reader_finish(&reader);
}

void frame_put_put_ack(struct buf *buf, struct frame_head head, const struct frame_put_ack *ack)
{
    size_t start = frame_begin(buf, FRAME_PUT_ACK, head);
    buf_put_u8(buf, (uint8_t)ack->status);
    buf_put_u8(buf, ack->was_live);
    version_put(buf, ack->version);
    frame_end(buf, start);
}

enum status frame_read_put_ack(const struct frame *frame, struct frame_put_ack *ack)
{
    struct reader reader = body_reader(frame, FRAME_PUT_ACK);
    ack->status = read_status(&reader);
    ack->was_live = read_flag(&reader);
    ack->version = version_read(&reader);
    return reader_finish(&reader);
}

void frame_put_get(struct buf *buf, struct frame_head head, const struct frame_get *get)
{
    size_t start = frame_begin(buf, FRAME_GET, head);
    buf_put_u16(buf, get->slot);
    buf_put_u64(buf, get->deadline_ms);
    put_replica_flags(buf, get->digest, get->hint_for);
    buf_put_short(buf, get->key);
    frame_end(buf, start);
}

enum status frame_read_get(const struct frame *frame, struct frame_get *get)
{
    struct reader reader = body_reader(frame, FRAME_GET);
    get->slot = read_slot(&reader);
    get->deadline_ms = reader_u64(&reader);
    get->digest = read_replica_flags(&reader, &get->hint_for);
    get->key = reader_short(&reader);
    return reader_finish(&reader);
}

void frame_put_get_answer(struct buf *buf, struct frame_head head, const struct frame_get_answer *answer)
{
    size_t start = frame_begin(buf, FRAME_GET_ANSWER, head);
    buf_put_u8(buf, (uint8_t)answer->status);
    buf_put_u8(buf, answer->has_record);
    version_put(buf, answer->version);
    buf_put_long(buf, answer->record);
    frame_end(buf, start);
}

enum status frame_read_get_answer(const struct frame *frame, struct frame_get_answer *answer)
{
    struct reader reader = body_reader(frame, FRAME_GET_ANSWER);
    answer->status = read_status(&reader);
    answer->has_record = read_flag(&reader);
    answer->version = version_read(&reader);
    answer->record = read_record(&reader, true);
    struct record record;
    if (record_parse(answer->record, &record) != STATUS_OK ||
        (answer->has_record && !version_equal(record_version(&record), answer->version)) ||
        (!answer->has_record && answer->record.size > 0))
        return STATUS_MALFORMED;
    return reader_finish(&reader);
}

void frame_put_raw(struct buf *buf, enum frame_type type, struct frame_head head, struct span body)
{
    size_t start = frame_begin(buf, type, head);
    buf_append_span(buf, body);
    frame_end(buf, start);
}

void frame_put_ring_ask(struct buf *buf, struct frame_head head)
{
    frame_put_raw(buf, FRAME_RING_ASK, head, (struct span){0});
}

void frame_put_ring(struct buf *buf, struct frame_head head, struct span ring)
{
    frame_put_raw(buf, FRAME_RING, head, ring);
}

void frame_put_exec(struct buf *buf, struct frame_head head, uint16_t slot, const struct operation *operation)
{
    size_t start = frame_begin(buf, FRAME_EXEC, head);
    buf_put_u16(buf, slot);
    buf_put_u8(buf, (uint8_t)operation->kind);
    buf_put_u8(buf, operation->flags);
    buf_put_u8(buf, operation->r);
    buf_put_u8(buf, operation->w);
    buf_put_u8(buf, operation->sloppy);
    buf_put_u8(buf, operation->trace);
    buf_put_u32(buf, operation->timeout_ms);
    buf_put_u64(buf, operation->expiry_ms);
    buf_put_short(buf, operation->key);
    buf_put_long(buf, operation->value);
    frame_end(buf, start);
}

enum status frame_read_exec(const struct frame *frame, uint16_t *slot, struct operation *operation)
{
    struct reader reader = body_reader(frame, FRAME_EXEC);
    *slot = read_slot(&reader);
    uint8_t kind = reader_u8(&reader);
    if (kind < OPERATION_GET || kind > OPERATION_EXPIRE)
        return STATUS_MALFORMED;
    operation->kind = (enum operation_kind)kind;
    operation->flags = reader_u8(&reader);
    if ((operation->flags & ~OPERATION_FLAGS_ALL) != 0)
        return STATUS_MALFORMED;
    operation->r = reader_u8(&reader);
    operation->w = reader_u8(&reader);
    operation->sloppy = read_flag(&reader);
    operation->trace = read_flag(&reader);
    operation->timeout_ms = reader_u32(&reader);
    operation->expiry_ms = reader_u64(&reader);
    operation->key = reader_short(&reader);
    operation->value = reader_long(&reader);
    return reader_finish(&reader);
}

void frame_put_exec_done(struct buf *buf, struct frame_head head, const struct result *result)
{
    size_t start = frame_begin(buf, FRAME_EXEC_DONE, head);
    buf_put_u8(buf, (uint8_t)result->outcome);
    buf_put_u8(buf, (uint8_t)result->status);
    buf_put_u8(buf, result->needed);
    buf_put_u8(buf, result->acks);
    buf_put_u8(buf, result->found);
    version_put(buf, result->version);
    buf_put_u64(buf, result->expiry_ms);
    buf_put_short(buf, result->trace);
    buf_put_long(buf, result->value);
    frame_end(buf, start);
}

enum status frame_read_exec_done(const struct frame *frame, struct result *result)
{
    struct reader reader = body_reader(frame, FRAME_EXEC_DONE);
    uint8_t outcome = reader_u8(&reader);
    if (outcome < OUTCOME_DONE || outcome > OUTCOME_UNKNOWN)
        return STATUS_MALFORMED;
    result->outcome = (enum outcome)outcome;
    result->status = read_status(&reader);
    result->needed = reader_u8(&reader);
    result->acks = reader_u8(&reader);
    result->found = read_flag(&reader);
    result->version = version_read(&reader);
    result->expiry_ms = reader_u64(&reader);
    result->trace = reader_short(&reader);
    result->value = reader_long(&reader);
    return reader_finish(&reader);
}

void frame_put_passed(struct buf *buf, struct frame_head head, uint64_t node, struct span frame)
{
    size_t start = frame_begin(buf, FRAME_PASSED, head);
    buf_put_u64(buf, node);
    buf_append_span(buf, frame);
    frame_end(buf, start);
}

enum status frame_read_passed(const struct frame *frame, uint64_t *node, struct frame *passed)
{
    struct reader reader = body_reader(frame, FRAME_PASSED);
    size_t need;
    *node = reader_u64(&reader);
    struct span inner = reader_bytes(&reader, reader_left(&reader));
    if (reader.failed || frame_cut(inner, passed, &need) != STATUS_OK || passed->whole.size != inner.size)
        return STATUS_MALFORMED;
    /* One that was passed on is where it belongs. */
    return passed->type == FRAME_PASSED ? STATUS_MALFORMED : STATUS_OK;
}
