/* Peer frames: what is encoded comes back, and whatever else arrives is refused or is a frame itself. */
#include "frame_samples.h"

/* ---- decoding and encoding again ------------------------------------------------------------------------ */

/* Reads the frame with its decoder and appends what was read; the encoders are the reference for what is canonical. */
static enum status again(const struct frame *frame, struct buf *out)
{
    struct frame_head same = {frame->from_shard, frame->to_shard, frame->request, frame->epoch};
    struct frame_hello hello;
    struct frame_welcome welcome;
    struct frame_refuse refuse;
    struct frame_run run;
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
    case FRAME_RUN:
        if ((status = frame_read_run(frame, &run)) == STATUS_OK)
            frame_put_run(out, same, &run);
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

/* ---- round trips ---------------------------------------------------------------------------------------- */

static void frames_of_every_type_come_back_the_same(void **state)
{
    (void)state;
    uint64_t types_seen = 0;
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
        types_seen |= UINT64_C(1) << frame.type;
        buf_free(&buf);
    }
    assert_int_equal(types_seen, (UINT64_C(1) << (FRAME_TYPE_MAX + 1)) - 2);
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
    static const int expected[SAMPLES] = {-1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          SLOTS_COUNT - 1,
                                          SLOTS_COUNT - 1,
                                          -1,
                                          -1,
                                          1,
                                          -1,
                                          -1,
                                          -1,
                                          77,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          77,
                                          SLOTS_COUNT - 1,
                                          1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1,
                                          -1};
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
        bool is_raw = frame.type == FRAME_RING;
        for (size_t i = 0; i < sizeof raw_types / sizeof *raw_types; i++)
            is_raw |= frame.type == raw_types[i];
        if (!is_raw)
            assert_int_equal(taken, 0);
        buf_free(&buf);
    }
}

static void bodies_with_something_behind_are_refused(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < SAMPLES; number++) {
        if ((number >= 15 && number <= 27) || (number > 30 && number != 36))
            continue; /* of these any bytes are the body */
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
            sample_into(number, &buf);
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
    assert_string_equal(frame_type_name(FRAME_HEALING), "HEALING");
    for (int type = 0; type <= FRAME_TYPE_MAX; type++)
        assert_non_null(frame_type_name((enum frame_type)type));
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
        cmocka_unit_test(encoder_without_memory_leaves_no_half_frame),
        cmocka_unit_test(type_names_are_known_for_all_types),
    };
    alloc_init(&test_alloc, SIZE_MAX);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
