/* RESP replies: whole and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/resp_read.h"

struct sample {
    const char *bytes;
    char type;
    bool null;
    int64_t number;
    const char *text;
};

static const struct sample samples[] = {
    {"+OK\r\n", '+', false, 0, "OK"},
    {"-OVERLOADED a limit\r\n", '-', false, 0, "OVERLOADED a limit"},
    {":-42\r\n", ':', false, -42, "-42"},
    {"$5\r\nhello\r\n", '$', false, 5, "hello"},
    {"$4\r\na\r\nb\r\n", '$', false, 4, "a\r\nb"},
    {"$0\r\n\r\n", '$', false, 0, ""},
    {"$-1\r\n", '$', true, -1, ""},
    {"*-1\r\n", '*', true, -1, ""},
    {"_\r\n", '_', true, 0, ""},
    {"*0\r\n", '*', false, 0, ""},
    {"*2\r\n$1\r\na\r\n:7\r\n", '*', false, 2, "$1\r\na\r\n:7\r\n"},
    {"*2\r\n*2\r\n+a\r\n*0\r\n$1\r\nb\r\n", '*', false, 2, "*2\r\n+a\r\n*0\r\n$1\r\nb\r\n"},
    {"%1\r\n+k\r\n~2\r\n:1\r\n:2\r\n", '%', false, 2, "+k\r\n~2\r\n:1\r\n:2\r\n"},
    {"#t\r\n", '#', false, 1, "t"},
    {",1.5\r\n", ',', false, 0, "1.5"},
    {"=7\r\ntxt:abc\r\n", '=', false, 7, "txt:abc"},
    {">1\r\n+x\r\n", '>', false, 1, "+x\r\n"},
};

static void check(const struct resp_answer *answer, const struct sample *sample)
{
    assert_int_equal(answer->type, sample->type);
    assert_int_equal(answer->null, sample->null);
    assert_int_equal(answer->number, sample->number);
    assert_true(span_is(answer->text, sample->text));
    assert_int_equal(answer->consumed, strlen(sample->bytes));
}

static void whole_replies_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        struct resp_reader reader = {0};
        struct resp_answer answer;
        assert_int_equal(resp_read(&reader, span_of_text(samples[i].bytes), &answer), STATUS_OK);
        check(&answer, &samples[i]);
    }
}

static void replies_are_read_byte_by_byte_though_they_move(void **state)
{
    (void)state;
    struct resp_reader reader = {0};
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
        size_t size = strlen(samples[i].bytes);
        for (size_t end = 1; end <= size; end++) {
            static uint8_t blocks[2][256];
            struct resp_answer answer;
            memset(blocks[(end + 1) % 2], 0xff, sizeof(blocks[0])); /* where the bytes were */
            memcpy(blocks[end % 2], samples[i].bytes, end);
            enum status status = resp_read(&reader, span_of(blocks[end % 2], end), &answer);
            assert_int_equal(status, end < size ? STATUS_MORE : STATUS_OK);
            if (end == size)
                check(&answer, &samples[i]);
        }
    }
}

static void one_after_the_other_is_read(void **state)
{
    (void)state;
    static const char stream[] = "+OK\r\n$3\r\nabc\r\n*1\r\n:1\r\n";
    struct resp_reader reader = {0};
    struct resp_answer answer;
    static const char types[] = "+$*";
    size_t at = 0;
    for (size_t i = 0; i < 3; i++) {
        struct span rest = span_of((const uint8_t *)stream + at, sizeof(stream) - 1 - at);
        assert_int_equal(resp_read(&reader, rest, &answer), STATUS_OK);
        assert_int_equal(answer.type, types[i]);
        at += answer.consumed;
    }
    assert_int_equal(at, sizeof(stream) - 1);
}

static void what_is_no_reply_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\r\n",   "hello\r\n", "$x\r\n",      ":\r\n",   "$-2\r\n", "$3\r\nabcde\r\n", "+a\rb\r\n",
        "#x\r\n", "_x\r\n",    "*1\r\n?\r\n", "*-2\r\n", ":1 \r\n", "$1\r\nab\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct resp_reader reader = {0};
        struct resp_answer answer;
        assert_int_equal(resp_read(&reader, span_of_text(bad[i]), &answer), STATUS_MALFORMED);
    }
}

static void what_is_too_large_is_refused_before_it_comes(void **state)
{
    (void)state;
    static const char *const large[] = {"$11\r\n", "*4294967297\r\n", "*1\r\n$11\r\n",
                                        "*4294967295\r\n*2\r\n"};
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
        struct resp_reader reader = {.bulk_bytes_max = 10};
        struct resp_answer answer;
        assert_int_equal(resp_read(&reader, span_of_text(large[i]), &answer), STATUS_TOO_LARGE);
    }
    static uint8_t line[RESP_READ_LINE_BYTES_MAX + 3];
    memset(line, '+', sizeof(line));
    struct resp_reader reader = {0};
    struct resp_answer answer;
    assert_int_equal(resp_read(&reader, span_of(line, sizeof(line)), &answer), STATUS_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_replies_are_read),
        cmocka_unit_test(replies_are_read_byte_by_byte_though_they_move),
        cmocka_unit_test(one_after_the_other_is_read),
        cmocka_unit_test(what_is_no_reply_is_refused),
        cmocka_unit_test(what_is_too_large_is_refused_before_it_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
