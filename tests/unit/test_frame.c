/* Peer frames: what is encoded comes back, and whatever else arrives is refused or is a frame itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/prng.h"
#include "proto/frame.h"

static struct alloc test_alloc;

static const struct frame_head head = {.from_shard = 3, .to_shard = FRAME_BY_SLOT, .request = 0x1122334455667788, .epoch = 9};

static const struct stamp stamp_a = {.time = 5 << 16, .actor = 6};
static const struct stamp stamp_b = {.time = 7 << 16, .actor = 8};

/* ---- decoding and encoding again ------------------------------------------------------------------------ */

/* Reads the frame with its decoder and appends what was read; the encoders are the reference for what is canonical. */
static enum status again(const struct frame *frame, struct buf *out)
{
    struct frame_head same = {frame->from_shard, frame->to_shard, frame->request, frame->epoch};
    struct frame_hello hello;
    struct frame_welcome welcome;
    struct frame_refuse refuse;
    struct frame_ping ping;
    struct frame_put put;
    struct frame_put_ack ack;
    struct frame_get get;
    struct frame_get_answer answer;
    struct operation operation;
    struct result result;
    struct frame passed;
    uint64_t node;
    uint16_t slot;
    enum status status = STATUS_OK;
    switch (frame->type) {
    case FRAME_HELLO:
        if ((status = frame_read_hello(frame, &hello)) == STATUS_OK)
            frame_put_hello(out, same, &hello);
        return status;
    case FRAME_WELCOME:
        if ((status = frame_read_welcome(frame, &welcome)) == STATUS_OK)
            frame_put_welcome(out, same, &welcome);
        return status;
    case FRAME_REFUSE:
        if ((status = frame_read_refuse(frame, &refuse)) == STATUS_OK)
            frame_put_refuse(out, same, &refuse);
        return status;
    case FRAME_PING:
        if ((status = frame_read_ping(frame, &ping)) == STATUS_OK)
            frame_put_ping(out, same, &ping);
        return status;
    case FRAME_PONG:
        if ((status = frame_read_ping(frame, &ping)) == STATUS_OK)
            frame_put_pong(out, same, &ping);
        return status;
    case FRAME_PUT:
        if ((status = frame_read_put(frame, &put)) == STATUS_OK)
            frame_put_put(out, same, &put);
        return status;
    case FRAME_PUT_ACK:
        if ((status = frame_read_put_ack(frame, &ack)) == STATUS_OK)
            frame_put_put_ack(out, same, &ack);
        return status;
    case FRAME_GET:
        if ((status = frame_read_get(frame, &get)) == STATUS_OK)
            frame_put_get(out, same, &get);
        return status;
    case FRAME_GET_ANSWER:
        if ((status = frame_read_get_answer(frame, &answer)) == STATUS_OK)
            frame_put_get_answer(out, same, &answer);
        return status;
    case FRAME_EXEC:
        if ((status = frame_read_exec(frame, &slot, &operation)) == STATUS_OK)
            frame_put_exec(out, same, slot, &operation);
        return status;
    case FRAME_EXEC_DONE:
        if ((status = frame_read_exec_done(frame, &result)) == STATUS_OK)
            frame_put_exec_done(out, same, &result);
        return status;
    case FRAME_PASSED:
        if ((status = frame_read_passed(frame, &node, &passed)) == STATUS_OK)
            frame_put_passed(out, same, node, passed.whole);
        return status;
    default:
        frame_put_raw(out, frame->type, same, frame->body);
        return STATUS_OK;
    }
}

/* True if the bytes are one frame whose body its decoder takes; then it is canonical. */
static bool check_bytes(struct span bytes)
{
    struct frame frame;
    size_t need = 0;
    enum status status = frame_cut(bytes, &frame, &need);
    if (status == STATUS_MORE) {
        assert_true(need > bytes.size && need <= FRAME_BYTES_MAX);
        return false;
    }
    if (status != STATUS_OK) {
        assert_int_equal(status, STATUS_MALFORMED);
        return false;
    }
    assert_true(frame.whole.size <= bytes.size);
    struct buf out;
    buf_init(&out, &test_alloc);
    bool taken = again(&frame, &out) == STATUS_OK;
    if (taken)
        assert_true(span_equal(buf_span(&out), frame.whole));
    buf_free(&out);
    return taken;
}

/* ---- one of each ---------------------------------------------------------------------------------------- */

static struct span record_into(struct buf *buf, const char *value)
{
    struct record record = {.flags = RECORD_VALUE | RECORD_OVERRIDE,
                            .stamp = stamp_a,
                            .override_applies_to = stamp_a,
                            .override_stamp = stamp_b,
                            .override_expiry_ms = 77,
                            .value = span_of_text(value)};
    record_put(buf, &record);
    return buf_span(buf);
}

static const struct version both = {.value = {.time = 5 << 16, .actor = 6}, .override = {.time = 7 << 16, .actor = 8}};

#define SAMPLES 21

static void sample_greeting(uint32_t number, struct buf *buf)
{
    struct frame_hello hello = {
        .cluster = {1, 2}, .node = 3, .directory = 4, .shards = 2, .shard = 1, .name = span_of_text("n1"),
        .resp_address = span_of_text("a:1"), .http_address = span_of_text("a:2"), .ring = span_of_text("ring")};
    struct frame_welcome welcome = {.node = 3, .directory = 4, .shards = 64, .knew_other_directory = true,
                                    .resp_address = span_of_text("b:1"), .http_address = span_of_text(""),
                                    .ring_epoch = 12};
    struct frame_refuse refuse = {.status = STATUS_WRONG_CLUSTER, .text = span_of_text("no")};
    struct frame_ping ping = {1, 2, 3};
    if (number == 0)
        frame_put_hello(buf, head, &hello);
    else if (number == 1)
        frame_put_welcome(buf, head, &welcome);
    else if (number == 2)
        frame_put_refuse(buf, head, &refuse);
    else if (number == 3)
        frame_put_ping(buf, head, &ping);
    else
        frame_put_pong(buf, head, &ping);
}

static void sample_replica(uint32_t number, struct buf *buf)
{
    struct buf record;
    buf_init(&record, &test_alloc);
    struct span bytes = record_into(&record, "value");
    struct frame_put put = {.slot = SLOTS_COUNT - 1, .deadline_ms = 5, .write_back = number == 6,
                            .key = span_of_text(number == 6 ? "" : "key"), .record = bytes};
    struct frame_put_ack ack = {.status = number == 7 ? STATUS_OK : STATUS_STALE_EPOCH, .was_live = number == 7,
                                .version = both};
    struct frame_get get = {.slot = 1, .deadline_ms = UINT64_MAX, .digest = true, .key = span_of_text("key")};
    struct frame_get_answer answer = {.status = STATUS_QUARANTINED, .version = both};
    if (number == 11) {
        answer.has_record = true;
        answer.record = bytes;
    } else if (number == 12) {
        answer = (struct frame_get_answer){.has_record = true};
    }
    if (number <= 6)
        frame_put_put(buf, head, &put);
    else if (number <= 8)
        frame_put_put_ack(buf, head, &ack);
    else if (number == 9)
        frame_put_get(buf, head, &get);
    else
        frame_put_get_answer(buf, head, &answer);
    buf_free(&record);
}

static void sample_internal(uint32_t number, struct buf *buf)
{
    struct operation operation = {.kind = OPERATION_EXPIRE, .r = COUNT_ALL, .w = 1, .timeout_ms = 9, .expiry_ms = 10,
                                  .key = span_of_text("k"), .value = span_of_text("")};
    struct result result = {.outcome = OUTCOME_UNKNOWN, .status = STATUS_OUTCOME_UNKNOWN, .needed = 2, .acks = 1,
                            .found = true, .version = both, .expiry_ms = 4, .value = span_of_text("v")};
    struct buf inner;
    buf_init(&inner, &test_alloc);
    sample_replica(9, &inner);
    if (number == 13)
        frame_put_exec(buf, head, 77, &operation);
    else if (number == 14)
        frame_put_exec_done(buf, head, &result);
    else if (number == 15)
        frame_put_ring_ask(buf, head);
    else if (number == 16)
        frame_put_ring(buf, head, span_of_text("a ring"));
    else if (number == 17)
        frame_put_passed(buf, head, 42, buf_span(&inner));
    else
        frame_put_raw(buf, number == 18 ? FRAME_STATE : number == 19 ? FRAME_STATS_ASK : FRAME_STATS, head,
                      span_of_text("raw"));
    buf_free(&inner);
}

static void sample(uint32_t number, struct buf *buf)
{
    if (number < 5)
        sample_greeting(number, buf);
    else if (number < 13)
        sample_replica(number, buf);
    else
        sample_internal(number, buf);
    assert_false(buf->failed);
}

/* ---- round trips ---------------------------------------------------------------------------------------- */

static void frames_of_every_type_come_back_the_same(void **state)
{
    (void)state;
    uint32_t types_seen = 0;
    for (uint32_t number = 0; number < SAMPLES; number++) {
        struct buf buf;
        struct frame frame;
        size_t need;
        buf_init(&buf, &test_alloc);
        sample(number, &buf);
        assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
        assert_int_equal(frame.from_shard, head.from_shard);
        assert_int_equal(frame.to_shard, head.to_shard);
        assert_int_equal(frame.request, head.request);
        assert_int_equal(frame.epoch, head.epoch);
        assert_int_equal(frame.whole.size, buf.size);
        assert_true(check_bytes(buf_span(&buf)));
        types_seen |= 1u << frame.type;
        buf_free(&buf);
    }
    assert_int_equal(types_seen, (1u << (FRAME_TYPE_MAX + 1)) - 2);
}

static void put_and_answer_carry_what_was_given(void **state)
{
    (void)state;
    struct buf buf;
    struct frame frame;
    size_t need;
    struct frame_put put;
    struct frame_get_answer answer;
    struct record record;
    buf_init(&buf, &test_alloc);
    sample(6, &buf);
    assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
    assert_int_equal(frame_read_put(&frame, &put), STATUS_OK);
    assert_int_equal(put.slot, SLOTS_COUNT - 1);
    assert_int_equal(put.deadline_ms, 5);
    assert_true(put.write_back);
    assert_int_equal(put.key.size, 0);
    assert_int_equal(record_parse(put.record, &record), STATUS_OK);
    assert_true(span_is(record.value, "value"));
    buf_clear(&buf);
    sample(12, &buf);
    assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
    assert_int_equal(frame_read_get_answer(&frame, &answer), STATUS_OK);
    assert_true(answer.has_record);
    assert_int_equal(answer.record.size, 0);
    buf_free(&buf);
}

static void slot_is_found_in_the_frames_that_have_one(void **state)
{
    (void)state;
    static const int expected[SAMPLES] = {-1, -1, -1, -1, -1, SLOTS_COUNT - 1, SLOTS_COUNT - 1, -1, -1, 1, -1,
                                          -1, -1, 77, -1, -1, -1, -1, -1, -1, -1};
    for (uint32_t number = 0; number < SAMPLES; number++) {
        struct buf buf;
        struct frame frame;
        size_t need;
        uint16_t slot;
        buf_init(&buf, &test_alloc);
        sample(number, &buf);
        assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
        enum status status = frame_slot(&frame, &slot);
        assert_int_equal(status, expected[number] < 0 ? STATUS_MALFORMED : STATUS_OK);
        if (expected[number] >= 0)
            assert_int_equal(slot, expected[number]);
        buf_free(&buf);
    }
}

/* ---- cutting -------------------------------------------------------------------------------------------- */

static void stream_fed_byte_by_byte_gives_the_same_frames(void **state)
{
    (void)state;
    struct buf stream;
    buf_init(&stream, &test_alloc);
    for (uint32_t number = 0; number < SAMPLES; number++)
        sample(number, &stream);
    size_t start = 0;
    uint32_t frames = 0;
    for (size_t end = 0; end <= stream.size; end++) {
        struct frame frame;
        size_t need = 0;
        enum status status = frame_cut(span_of(stream.data + start, end - start), &frame, &need);
        if (status == STATUS_MORE) {
            assert_true(need > end - start);
            continue;
        }
        assert_int_equal(status, STATUS_OK);
        assert_int_equal(frame.whole.size, end - start);
        assert_ptr_equal(frame.whole.data, stream.data + start);
        start = end;
        frames++;
    }
    assert_int_equal(frames, SAMPLES);
    assert_int_equal(start, stream.size);
    buf_free(&stream);
}

static void header_out_of_range_is_malformed(void **state)
{
    (void)state;
    struct frame frame;
    size_t need;
    uint8_t header[FRAME_HEADER_BYTES] = {0};
    struct span bytes = span_of(header, sizeof header);
    header[4] = FRAME_RING_ASK;
    store_u32(header, FRAME_HEADER_BYTES - 4);
    assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_OK);
    header[7] = 1;
    assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_MALFORMED);
    header[7] = 0;
    header[4] = 0;
    assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_MALFORMED);
    header[4] = FRAME_TYPE_MAX + 1;
    assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_MALFORMED);
    header[4] = FRAME_PUT;
    store_u32(header, FRAME_HEADER_BYTES - 5);
    assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_MALFORMED);
    /* The largest is waited for; one more byte is refused at once, before it is gathered. */
    store_u32(header, FRAME_BYTES_MAX - 4);
    assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_MORE);
    assert_int_equal(need, FRAME_BYTES_MAX);
    store_u32(header, FRAME_BYTES_MAX - 3);
    assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_MALFORMED);
    store_u32(header, UINT32_MAX);
    assert_int_equal(frame_cut(bytes, &frame, &need), STATUS_MALFORMED);
}

static void bodies_cut_anywhere_are_refused_or_another_frame(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < SAMPLES; number++) {
        struct buf buf;
        buf_init(&buf, &test_alloc);
        sample(number, &buf);
        struct frame frame;
        size_t need;
        assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
        uint32_t taken = 0;
        for (size_t size = FRAME_HEADER_BYTES; size < buf.size; size++) {
            struct buf shorter;
            buf_init(&shorter, &test_alloc);
            buf_append(&shorter, buf.data, size);
            store_u32(shorter.data, (uint32_t)size - 4);
            taken += check_bytes(buf_span(&shorter));
            buf_free(&shorter);
        }
        bool is_raw = frame.type == FRAME_RING || frame.type == FRAME_STATE || frame.type == FRAME_STATS_ASK ||
                      frame.type == FRAME_STATS;
        if (!is_raw)
            assert_int_equal(taken, 0);
        buf_free(&buf);
    }
}

static void bodies_with_something_behind_are_refused(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < 15; number++) {
        struct buf buf;
        buf_init(&buf, &test_alloc);
        sample(number, &buf);
        buf_put_u8(&buf, 0);
        store_u32(buf.data, (uint32_t)buf.size - 4);
        assert_false(check_bytes(buf_span(&buf)));
        buf_free(&buf);
    }
}

static void frames_with_any_bit_flipped_are_refused_or_canonical(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < SAMPLES; number++) {
        struct buf buf;
        buf_init(&buf, &test_alloc);
        sample(number, &buf);
        for (size_t bit = 0; bit < 8 * buf.size; bit++) {
            buf.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            (void)check_bytes(buf_span(&buf));
            buf.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_true(check_bytes(buf_span(&buf)));
        buf_free(&buf);
    }
}

/* ---- what decoders refuse ------------------------------------------------------------------------------- */

static enum status read_put_of(struct span record, uint16_t slot)
{
    struct frame_put put = {.slot = slot, .key = span_of_text("k"), .record = record};
    struct frame frame;
    struct buf buf;
    size_t need;
    buf_init(&buf, &test_alloc);
    frame_put_put(&buf, head, &put);
    assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
    enum status status = frame_read_put(&frame, &put);
    buf_free(&buf);
    return status;
}

static void put_without_a_canonical_record_is_refused(void **state)
{
    (void)state;
    struct buf record;
    buf_init(&record, &test_alloc);
    struct span bytes = record_into(&record, "value");
    assert_int_equal(read_put_of(bytes, 1), STATUS_OK);
    assert_int_equal(read_put_of(bytes, SLOTS_COUNT), STATUS_MALFORMED);
    assert_int_equal(read_put_of((struct span){0}, 1), STATUS_MALFORMED);
    /* An override for an older value: a merge would have dropped it. */
    struct stamp older = {.time = 1, .actor = 1};
    store_u64(record.data + 18, older.time);
    assert_int_equal(read_put_of(bytes, 1), STATUS_MALFORMED);
    buf_free(&record);
}

static void put_with_a_value_past_the_hard_limit_is_refused(void **state)
{
    (void)state;
    struct buf record;
    uint8_t *value = alloc_get_zeroed(&test_alloc, VALUE_BYTES_MAX_HARD + 1);
    assert_non_null(value);
    for (size_t over = 0; over <= 1; over++) {
        struct record large = {
            .flags = RECORD_VALUE, .stamp = stamp_a, .value = span_of(value, VALUE_BYTES_MAX_HARD + over)};
        buf_init(&record, &test_alloc);
        record_put(&record, &large);
        assert_int_equal(read_put_of(buf_span(&record), 1), over == 0 ? STATUS_OK : STATUS_MALFORMED);
        buf_free(&record);
    }
    alloc_put(&test_alloc, value, VALUE_BYTES_MAX_HARD + 1);
}

/* The longest key with the largest record, whatever frame carries them. */
static void largest_key_and_record_fit_every_frame(void **state)
{
    (void)state;
    size_t record_bytes = 2 + STAMP_BYTES + 8 + 2 * STAMP_BYTES + 8 + (size_t)VALUE_BYTES_MAX_HARD;
    size_t put_bytes = FRAME_HEADER_BYTES + 2 + 8 + 1 + 2 + KEY_BYTES_MAX_HARD + 4 + record_bytes;
    size_t answer_bytes = FRAME_HEADER_BYTES + 2 + VERSION_BYTES + 4 + record_bytes;
    size_t exec_bytes = FRAME_HEADER_BYTES + 17 + 2 + KEY_BYTES_MAX_HARD + 4 + VALUE_BYTES_MAX_HARD;
    size_t done_bytes = FRAME_HEADER_BYTES + 5 + VERSION_BYTES + 8 + 4 + VALUE_BYTES_MAX_HARD;
    assert_true(put_bytes <= FRAME_PASSED_BYTES_MAX);
    assert_true(answer_bytes <= FRAME_PASSED_BYTES_MAX);
    assert_true(exec_bytes <= FRAME_BYTES_MAX);
    assert_true(done_bytes <= FRAME_BYTES_MAX);
}

static void largest_frame_that_may_be_passed_on_fits_the_largest_frame(void **state)
{
    (void)state;
    struct buf inner;
    struct buf outer;
    struct frame frame;
    struct frame passed;
    uint64_t node;
    size_t need;
    size_t body_size = FRAME_PASSED_BYTES_MAX - FRAME_HEADER_BYTES;
    uint8_t *body = alloc_get_zeroed(&test_alloc, body_size);
    assert_non_null(body);
    buf_init(&inner, &test_alloc);
    buf_init(&outer, &test_alloc);
    frame_put_raw(&inner, FRAME_RING, head, span_of(body, body_size));
    frame_put_passed(&outer, head, 5, buf_span(&inner));
    assert_int_equal(outer.size, FRAME_BYTES_MAX);
    assert_int_equal(frame_cut(buf_span(&outer), &frame, &need), STATUS_OK);
    assert_int_equal(frame_read_passed(&frame, &node, &passed), STATUS_OK);
    assert_int_equal(node, 5);
    assert_int_equal(passed.body.size, body_size);
    buf_free(&outer);
    buf_free(&inner);
    alloc_put(&test_alloc, body, body_size);
}

static void answer_whose_version_is_not_its_records_is_refused(void **state)
{
    (void)state;
    struct buf record;
    struct buf buf;
    struct frame frame;
    size_t need;
    buf_init(&record, &test_alloc);
    buf_init(&buf, &test_alloc);
    struct frame_get_answer answers[3] = {
        {.has_record = true, .version = {.value = stamp_a}, .record = record_into(&record, "v")},
        {.has_record = true, .version = both},
        {.has_record = false, .version = both, .record = buf_span(&record)},
    };
    for (int i = 0; i < 3; i++) {
        struct frame_get_answer back;
        buf_clear(&buf);
        frame_put_get_answer(&buf, head, &answers[i]);
        assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
        assert_int_equal(frame_read_get_answer(&frame, &back), STATUS_MALFORMED);
    }
    buf_free(&record);
    buf_free(&buf);
}

static void hello_of_another_protocol_or_version_says_so(void **state)
{
    (void)state;
    struct buf buf;
    struct frame frame;
    struct frame_hello hello;
    size_t need;
    buf_init(&buf, &test_alloc);
    sample(0, &buf);
    assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
    buf.data[FRAME_HEADER_BYTES] ^= 1;
    assert_int_equal(frame_read_hello(&frame, &hello), STATUS_WRONG_PROTOCOL);
    buf.data[FRAME_HEADER_BYTES] ^= 1;
    buf.data[FRAME_HEADER_BYTES + 4]++;
    assert_int_equal(frame_read_hello(&frame, &hello), STATUS_WRONG_PROTOCOL);
    buf.data[FRAME_HEADER_BYTES + 4]--;
    assert_int_equal(frame_read_hello(&frame, &hello), STATUS_OK);
    /* shards, shard: at 4 + 2 + 16 + 8 + 8 into the body. */
    store_u16(buf.data + FRAME_HEADER_BYTES + 38, 0);
    assert_int_equal(frame_read_hello(&frame, &hello), STATUS_MALFORMED);
    store_u16(buf.data + FRAME_HEADER_BYTES + 38, SHARDS_MAX + 1);
    assert_int_equal(frame_read_hello(&frame, &hello), STATUS_MALFORMED);
    store_u16(buf.data + FRAME_HEADER_BYTES + 38, 1);
    assert_int_equal(frame_read_hello(&frame, &hello), STATUS_MALFORMED);
    buf_free(&buf);
}

static void frame_passed_on_twice_or_with_more_behind_is_refused(void **state)
{
    (void)state;
    struct buf inner;
    struct buf buf;
    struct frame frame;
    struct frame passed;
    uint64_t node;
    size_t need;
    buf_init(&inner, &test_alloc);
    buf_init(&buf, &test_alloc);
    sample(17, &inner);
    frame_put_passed(&buf, head, 1, buf_span(&inner));
    assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
    assert_int_equal(frame_read_passed(&frame, &node, &passed), STATUS_MALFORMED);
    buf_clear(&inner);
    buf_clear(&buf);
    sample(9, &inner);
    sample(9, &inner);
    frame_put_passed(&buf, head, 1, buf_span(&inner));
    assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
    assert_int_equal(frame_read_passed(&frame, &node, &passed), STATUS_MALFORMED);
    buf_free(&inner);
    buf_free(&buf);
}

/* ---- encoding ------------------------------------------------------------------------------------------- */

static void encoder_without_memory_leaves_no_half_frame(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < SAMPLES; number++) {
        for (size_t room = 0; room < 400; room += 7) {
            struct alloc small;
            struct buf buf;
            struct buf whole;
            buf_init(&whole, &test_alloc);
            sample(3, &whole);
            size_t first = whole.size;
            alloc_init(&small, 500 + room);
            buf_init(&buf, &small);
            sample(3, &buf);
            assert_int_equal(buf.size, first);
            small.budget_bytes = small.used_bytes + room;
            if (number < 5)
                sample_greeting(number, &buf);
            else if (number < 13)
                sample_replica(number, &buf);
            else
                sample_internal(number, &buf);
            assert_true(buf.failed ? buf.size == first : buf.size > first);
            assert_memory_equal(buf.data, whole.data, first);
            buf_free(&buf);
            buf_free(&whole);
            assert_int_equal(small.used_bytes, 0);
        }
    }
}

static void type_names_are_known_for_all_types(void **state)
{
    (void)state;
    assert_string_equal(frame_type_name(FRAME_HELLO), "HELLO");
    assert_string_equal(frame_type_name(FRAME_PUT_ACK), "PUT_ACK");
    assert_string_equal(frame_type_name(FRAME_RING_ASK), "RING_ASK");
    assert_string_equal(frame_type_name(FRAME_PASSED), "PASSED");
    assert_string_equal(frame_type_name((enum frame_type)(FRAME_TYPE_MAX + 1)), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_of_every_type_come_back_the_same),
        cmocka_unit_test(put_and_answer_carry_what_was_given),
        cmocka_unit_test(slot_is_found_in_the_frames_that_have_one),
        cmocka_unit_test(stream_fed_byte_by_byte_gives_the_same_frames),
        cmocka_unit_test(header_out_of_range_is_malformed),
        cmocka_unit_test(bodies_cut_anywhere_are_refused_or_another_frame),
        cmocka_unit_test(bodies_with_something_behind_are_refused),
        cmocka_unit_test(frames_with_any_bit_flipped_are_refused_or_canonical),
        cmocka_unit_test(put_without_a_canonical_record_is_refused),
        cmocka_unit_test(put_with_a_value_past_the_hard_limit_is_refused),
        cmocka_unit_test(largest_key_and_record_fit_every_frame),
        cmocka_unit_test(largest_frame_that_may_be_passed_on_fits_the_largest_frame),
        cmocka_unit_test(answer_whose_version_is_not_its_records_is_refused),
        cmocka_unit_test(hello_of_another_protocol_or_version_says_so),
        cmocka_unit_test(frame_passed_on_twice_or_with_more_behind_is_refused),
        cmocka_unit_test(encoder_without_memory_leaves_no_half_frame),
        cmocka_unit_test(type_names_are_known_for_all_types),
    };
    alloc_init(&test_alloc, SIZE_MAX);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
