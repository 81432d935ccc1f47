/* The client's rows: JSON lines both ways, lines of a file, and the merge of replicas' pages against a naive one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/prng.h"
#include "cli/lane.h"
#include "cli/line_reader.h"
#include "cli/row_merge.h"
#include "model/key.h"

#define BUDGET ((size_t)64 << 20)

static void lines_become_rows(void **state)
{
    static const struct {
        const char *line;
        const char *key;
        const char *value;
        uint64_t ttl_ms;
    } good[] = {
        {"{\"key\":\"k\",\"value\":\"v\"}", "k", "v", 0},
        {" {\"value\":\"\",\"key\":\"\\u00e9\\n\"}\r", "\xc3\xa9\n", "", 0},
        {"{\"key_base64\":\"/w==\",\"value_base64\":\"gP8\"}", "\xff", "\x80\xff", 0},
        {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":60}", "k", "v", 60000},
        {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":1.0006}", "k", "v", 1001},
        {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":0.0001}", "k", "v", 1},
    };
    struct alloc alloc;
    struct plain_row row;
    char why[ROW_WHY_BYTES_MAX];
    (void)state;
    alloc_init(&alloc, BUDGET);
    plain_row_init(&row, &alloc);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(plain_row_parse(&row, span_of_text(good[i].line), why), STATUS_OK);
        assert_true(span_is(buf_span(&row.key), good[i].key));
        assert_true(span_is(buf_span(&row.value), good[i].value));
        assert_int_equal(row.ttl_ms, good[i].ttl_ms);
    }
    assert_int_equal(plain_row_parse(&row, span_of_text("{\"key\":\"a\\u0000b\",\"value\":\"\"}"), why),
                     STATUS_OK);
    assert_true(span_equal(buf_span(&row.key), span_of("a\0b", 3)));
    plain_row_free(&row);
    assert_int_equal(alloc.used_bytes, 0);
}

static void bad_lines_say_what_is_wrong(void **state)
{
    static const char *const bad[][2] = {
        {"nonsense", "no JSON"},
        {"[1]", "no JSON object"},
        {"{\"value\":\"v\"}", "no \"key\""},
        {"{\"key\":\"k\"}", "no \"value\""},
        {"{\"key\":1,\"value\":\"v\"}", "quotes"},
        {"{\"key\":\"k\",\"value\":2}", "quotes"},
        {"{\"key\":\"k\",\"key_base64\":\"aw==\",\"value\":\"v\"}", "both"},
        {"{\"key\":\"k\",\"value_base64\":\"***\"}", "base64"},
        {"{\"key\":\"k\",\"value\":\"v\",\"tttl\":1}", "besides"},
        {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":0}", "ttl"},
        {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":-1}", "ttl"},
        {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":\"1\"}", "ttl"},
        {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":1e300}", "ttl"},
        {"{\"key\":\"k\",\"key\":\"l\",\"value\":\"v\"}", "duplicate"},
        {"{\"key\":\"k\",\"value\":\"\xff\"}", "no JSON"},
        {"{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"1-0-1\"}", "--local"},
    };
    struct alloc alloc;
    struct plain_row row;
    char why[ROW_WHY_BYTES_MAX];
    (void)state;
    alloc_init(&alloc, BUDGET);
    plain_row_init(&row, &alloc);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(plain_row_parse(&row, span_of_text(bad[i][0]), why), STATUS_MALFORMED);
        assert_non_null(strstr(why, bad[i][1]));
    }
    plain_row_free(&row);
}

static void what_dump_writes_load_reads(void **state)
{
    struct alloc alloc;
    struct plain_row row;
    struct buf line;
    struct prng prng;
    char why[ROW_WHY_BYTES_MAX];
    (void)state;
    prng_seed(&prng, 7);
    alloc_init(&alloc, BUDGET);
    plain_row_init(&row, &alloc);
    buf_init(&line, &alloc);
    for (int round = 0; round < 3000; round++) {
        uint8_t bytes[40];
        size_t size = prng_below(&prng, sizeof(bytes));
        /* Half of the rows are ASCII with control characters, the others arbitrary bytes. */
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)prng_below(&prng, round % 2 == 0 ? 128 : 256);
        struct span key = span_of(bytes, size / 2);
        struct span value = span_of(bytes + size / 2, size - size / 2);
        uint64_t ttl_ms = prng_chance(&prng, 1, 2) ? 0 : 1 + prng_below(&prng, UINT64_C(1) << 40);
        buf_clear(&line);
        plain_row_put(&line, key, value, ttl_ms);
        assert_int_equal(line.data[line.size - 1], '\n');
        assert_int_equal(plain_row_parse(&row, span_of(line.data, line.size - 1), why), STATUS_OK);
        assert_true(span_equal(buf_span(&row.key), key));
        assert_true(span_equal(buf_span(&row.value), value));
        assert_int_equal(row.ttl_ms, ttl_ms);
    }
    buf_clear(&line);
    plain_row_put(&line, span_of_text("k"), span_of_text("\xff"), 61500);
    assert_true(span_is(buf_span(&line), "{\"key\":\"k\",\"value_base64\":\"/w==\",\"ttl\":61.500}\n"));
    plain_row_free(&row);
    buf_free(&line);
}

static void local_rows_say_who_is_alive(void **state)
{
    static const struct {
        const char *line;
        bool live;
        uint64_t ttl_ms;
    } rows[] = {
        {"{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\",\"live\":true}", true, 0},
        {"{\"key\":\"k\",\"tombstone\":true,\"stamp\":\"5-0-00000000000000aa\",\"live\":false}", false, 0},
        {"{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\",\"expiry_ms\":1500}", true, 500},
        {"{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\",\"expiry_ms\":1000}", false, 0},
        {"{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\",\"expiry_ms\":900,"
         "\"override\":{\"stamp\":\"6-0-00000000000000aa\",\"expiry_ms\":0}}",
         true, 0},
        {"{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\","
         "\"override\":{\"stamp\":\"6-0-00000000000000aa\",\"expiry_ms\":1001}}",
         true, 1},
        /* An override for another value does not count. */
        {"{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\",\"override\":{\"stamp\":"
         "\"6-0-00000000000000aa\",\"expiry_ms\":900,\"applies_to\":\"7-0-00000000000000aa\"}}",
         true, 0},
        /* An override whose value is not known here. */
        {"{\"key\":\"k\",\"override\":{\"stamp\":\"6-0-00000000000000aa\",\"expiry_ms\":0}}", false, 0},
    };
    static const char *const bad[] = {
        "{\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\"}",
        "{\"key\":\"k\",\"value\":\"v\"}",
        "{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"yesterday\"}",
        "{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\",\"tombstone\":true}",
        "{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\",\"expiry_ms\":-1}",
        "{\"key\":\"k\",\"value\":\"v\",\"stamp\":\"5-0-00000000000000aa\",\"override\":1}",
        "{\"next\":\"aw\"}",
    };
    struct alloc alloc;
    struct local_row row;
    uint64_t ttl_ms;
    char why[ROW_WHY_BYTES_MAX];
    (void)state;
    alloc_init(&alloc, BUDGET);
    local_row_init(&row, &alloc);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(local_row_parse(&row, span_of_text(rows[i].line), why), STATUS_OK);
        assert_int_equal(local_row_live(&row, 1000, &ttl_ms), rows[i].live);
        assert_int_equal(ttl_ms, rows[i].ttl_ms);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(local_row_parse(&row, span_of_text(bad[i]), why), STATUS_MALFORMED);
    local_row_free(&row);
}

/* ---- the merge ------------------------------------------------------------------------------------------ */

#define TAG_SLOT_KEYS 40 /* keys "{t}NN" share a tag, so they share a slot and are ordered by themselves */

struct replica {
    int stamp[TAG_SLOT_KEYS]; /* of key i; 0 = not held */
};

/* The page of at most `rows` rows after key `after` (-1: from the start). */
static void put_page(struct buf *page, const struct replica *replica, int after, int rows)
{
    int last = after;
    buf_clear(page);
    for (int i = after + 1; i < TAG_SLOT_KEYS; i++) {
        if (replica->stamp[i] == 0)
            continue;
        if (rows-- == 0) {
            /* The cursor is whatever the server likes; here the number of the key. */
            buf_append_format(page, "{\"next\":\"%d\"}\n", last);
            return;
        }
        buf_append_format(page, "{\"key\":\"{t}%02d\",\"value\":\"v\",\"stamp\":\"%d-0-00000000000000aa\"}\n",
                          i, replica->stamp[i]);
        last = i;
    }
    buf_append_text(page, "{\"end\":true}\n");
}

static int key_number(struct span key)
{
    assert_int_equal(key.size, 5);
    return (key.data[3] - '0') * 10 + key.data[4] - '0';
}

/* Gives the stream the page it wants; sometimes its replica is another one with other rows. */
static void give_page(struct row_merge *merge, uint8_t which, struct replica *replicas, struct prng *prng,
                      struct alloc *alloc)
{
    const struct row_stream *stream = &merge->streams[which];
    struct buf page;
    int after = -1;
    buf_init(&page, alloc);
    if (prng_chance(prng, 1, 8))
        row_merge_replace(merge, which);
    if (stream->end.next.size > 0) {
        char text[8];
        span_copy_text(buf_span(&stream->end.next), text, sizeof(text));
        after = atoi(text);
    } else if (merge->any_merged) {
        after = key_number(buf_span(&merge->last_key));
    }
    put_page(&page, &replicas[which], after, 1 + (int)prng_below(prng, 7));
    assert_int_equal(row_merge_page(merge, which, &page), STATUS_OK);
    buf_free(&page);
}

static void pages_of_replicas_merge_like_whole_slots(void **state)
{
    struct alloc alloc;
    struct prng prng;
    char why[ROW_WHY_BYTES_MAX];
    (void)state;
    prng_seed(&prng, 11);
    alloc_init(&alloc, BUDGET);
    for (int round = 0; round < 300; round++) {
        struct replica replicas[3];
        uint8_t count = (uint8_t)(1 + prng_below(&prng, 3));
        for (int i = 0; i < TAG_SLOT_KEYS; i++) {
            int stamp = prng_chance(&prng, 1, 3) ? 0 : 5;
            for (uint8_t r = 0; r < count; r++)
                replicas[r].stamp[i] = prng_chance(&prng, 1, 10) ? (int)prng_below(&prng, 3) : stamp;
        }
        struct row_merge merge;
        row_merge_init(&merge, &alloc, key_slot(span_of_text("{t}")), count);
        int expected = 0;
        uint8_t which;
        for (;;) {
            enum merge_step step = row_merge_step(&merge, &which, why);
            if (step == MERGE_PAGE) {
                give_page(&merge, which, replicas, &prng, &alloc);
                continue;
            }
            bool held = false;
            bool same = true;
            for (; expected < TAG_SLOT_KEYS && !held; expected++) {
                same = true;
                for (uint8_t r = 0; r < count; r++) {
                    held = held || replicas[r].stamp[expected] != 0;
                    same = same && replicas[r].stamp[expected] == replicas[0].stamp[expected];
                }
            }
            if (!held) {
                assert_int_equal(step, MERGE_END);
                break;
            }
            assert_int_equal(step, same ? MERGE_SAME : MERGE_DIFFER);
            assert_int_equal(key_number(buf_span(&merge.streams[which].row.key)), expected - 1);
            row_merge_next(&merge, which);
        }
        row_merge_free(&merge);
    }
    assert_int_equal(alloc.used_bytes, 0);
}

static void pages_that_are_none_are_told(void **state)
{
    static const char *const cut[] = {"",
                                      "{\"end\":true}",
                                      "{\"key\":\"{t}01\"",
                                      "{\"key\":\"{t}01\"}\n",
                                      "{\"end\":false}\n",
                                      "{\"next\":1}\n"};
    static const char *const rows[] = {
        "nonsense\n", "{\"key\":\"another slot\",\"value\":\"\",\"stamp\":\"5-0-00000000000000aa\"}\n",
        "{\"key\":\"{t}02\",\"value\":\"\",\"stamp\":\"5-0-00000000000000aa\"}\n"
        "{\"key\":\"{t}01\",\"value\":\"\",\"stamp\":\"5-0-00000000000000aa\"}\n"};
    struct alloc alloc;
    struct row_merge merge;
    struct buf page;
    uint8_t which;
    char why[ROW_WHY_BYTES_MAX];
    (void)state;
    alloc_init(&alloc, BUDGET);
    buf_init(&page, &alloc);
    for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
        row_merge_init(&merge, &alloc, key_slot(span_of_text("{t}")), 1);
        buf_clear(&page);
        buf_append_text(&page, cut[i]);
        assert_int_equal(row_merge_page(&merge, 0, &page), STATUS_MALFORMED);
        assert_int_equal(row_merge_step(&merge, &which, why), MERGE_PAGE);
        row_merge_free(&merge);
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        row_merge_init(&merge, &alloc, key_slot(span_of_text("{t}")), 1);
        buf_clear(&page);
        buf_append_text(&page, rows[i]);
        buf_append_text(&page, "{\"end\":true}\n");
        assert_int_equal(row_merge_page(&merge, 0, &page), STATUS_OK);
        enum merge_step step = row_merge_step(&merge, &which, why);
        if (step == MERGE_SAME) {
            row_merge_next(&merge, which);
            step = row_merge_step(&merge, &which, why);
        }
        assert_int_equal(step, MERGE_MALFORMED);
        row_merge_free(&merge);
    }
    buf_free(&page);
    assert_int_equal(alloc.used_bytes, 0);
}

/* ---- lines and errors ----------------------------------------------------------------------------------- */

static void lines_have_offsets_and_numbers(void **state)
{
    int ends[2];
    struct alloc alloc;
    struct line_reader reader;
    struct span line;
    (void)state;
    alloc_init(&alloc, BUDGET);
    assert_int_equal(pipe(ends), 0);
    line_reader_init(&reader, &alloc, ends[0], 100, 7);
    assert_int_equal(line_reader_next(&reader, &line), LINE_MORE);
    assert_int_equal(write(ends[1], "one\n\ntw", 7), 7);
    assert_int_equal(line_reader_fill(&reader), STATUS_OK);
    assert_int_equal(line_reader_next(&reader, &line), LINE_HERE);
    assert_true(span_is(line, "one"));
    assert_int_equal(line_reader_next(&reader, &line), LINE_HERE);
    line_reader_consume(&reader, line);
    assert_int_equal(reader.offset, 104);
    assert_int_equal(line_reader_next(&reader, &line), LINE_HERE);
    assert_int_equal(line.size, 0);
    line_reader_consume(&reader, line);
    assert_int_equal(line_reader_next(&reader, &line), LINE_MORE);
    assert_int_equal(write(ends[1], "o", 1), 1);
    close(ends[1]);
    assert_int_equal(line_reader_fill(&reader), STATUS_OK);
    assert_int_equal(line_reader_next(&reader, &line), LINE_MORE);
    assert_int_equal(line_reader_fill(&reader), STATUS_OK);
    assert_int_equal(line_reader_next(&reader, &line), LINE_HERE);
    assert_true(span_is(line, "two"));
    assert_int_equal(reader.line, 9);
    line_reader_consume(&reader, line);
    assert_int_equal(line_reader_next(&reader, &line), LINE_END);
    assert_int_equal(reader.offset, 108);
    line_reader_free(&reader);
    close(ends[0]);
}

static void errors_that_pass_are_told_from_those_that_stay(void **state)
{
    (void)state;
    assert_true(lane_error_passes(span_of_text("OVERLOADED a limit is reached")));
    assert_true(lane_error_passes(span_of_text("TRYAGAIN x")));
    assert_true(lane_error_passes(span_of_text("CLUSTERDOWN x")));
    assert_true(lane_error_passes(span_of_text("UNKNOWN x")));
    assert_false(lane_error_passes(span_of_text("ERR wrong")));
    assert_false(lane_error_passes(span_of_text("TOO_LARGE x")));
    assert_false(lane_error_passes(span_of_text("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_become_rows),
        cmocka_unit_test(bad_lines_say_what_is_wrong),
        cmocka_unit_test(what_dump_writes_load_reads),
        cmocka_unit_test(local_rows_say_who_is_alive),
        cmocka_unit_test(pages_of_replicas_merge_like_whole_slots),
        cmocka_unit_test(pages_that_are_none_are_told),
        cmocka_unit_test(lines_have_offsets_and_numbers),
        cmocka_unit_test(errors_that_pass_are_told_from_those_that_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
