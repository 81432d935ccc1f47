/* Peer frames that decoders refuse, one by one, and the sizes that frames can have. */
#include "frame_samples.h"

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
    size_t exec_bytes = FRAME_HEADER_BYTES + 19 + 2 + KEY_BYTES_MAX_HARD + 4 + VALUE_BYTES_MAX_HARD;
    size_t done_bytes =
        FRAME_HEADER_BYTES + 5 + VERSION_BYTES + 8 + 2 + TRACE_BYTES_MAX + 4 + VALUE_BYTES_MAX_HARD;
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
    buf_free(&buf);
}

static void hello_with_impossible_shards_is_refused(void **state)
{
    (void)state;
    static const struct {
        uint16_t shards, shard;
    } impossible[] = {{0, 0}, {SHARDS_MAX + 1, 0}, {1, 1}};
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        struct buf buf;
        struct frame frame;
        struct frame_hello hello;
        size_t need;
        buf_init(&buf, &test_alloc);
        sample(0, &buf);
        assert_int_equal(frame_cut(buf_span(&buf), &frame, &need), STATUS_OK);
        assert_int_equal(frame_read_hello(&frame, &hello), STATUS_OK);
        struct buf changed;
        buf_init(&changed, &test_alloc);
        hello.shards = impossible[i].shards;
        hello.shard = impossible[i].shard;
        frame_put_hello(&changed, head, &hello);
        assert_int_equal(frame_cut(buf_span(&changed), &frame, &need), STATUS_OK);
        assert_int_equal(frame_read_hello(&frame, &hello), STATUS_MALFORMED);
        buf_free(&changed);
        buf_free(&buf);
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_without_a_canonical_record_is_refused),
        cmocka_unit_test(put_with_a_value_past_the_hard_limit_is_refused),
        cmocka_unit_test(largest_key_and_record_fit_every_frame),
        cmocka_unit_test(largest_frame_that_may_be_passed_on_fits_the_largest_frame),
        cmocka_unit_test(answer_whose_version_is_not_its_records_is_refused),
        cmocka_unit_test(hello_of_another_protocol_or_version_says_so),
        cmocka_unit_test(hello_with_impossible_shards_is_refused),
        cmocka_unit_test(frame_passed_on_twice_or_with_more_behind_is_refused),
    };
    alloc_init(&test_alloc, SIZE_MAX);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
