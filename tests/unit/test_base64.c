/* Base64 against the vectors of RFC 4648, and both ways for random bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/prng.h"

#define BUDGET ((size_t)1 << 20)

static void the_vectors_of_the_rfc_hold(void **state)
{
    static const char *const vectors[][2] = {{"", ""},
                                             {"f", "Zg=="},
                                             {"fo", "Zm8="},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="},
                                             {"foobar", "Zm9vYmFy"}};
    struct alloc alloc;
    struct buf text;
    struct buf bytes;
    (void)state;
    alloc_init(&alloc, BUDGET);
    buf_init(&text, &alloc);
    buf_init(&bytes, &alloc);
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        buf_clear(&text);
        buf_clear(&bytes);
        base64_put(&text, span_of_text(vectors[i][0]));
        assert_true(span_is(buf_span(&text), vectors[i][1]));
        assert_int_equal(base64_decode(&bytes, buf_span(&text)), STATUS_OK);
        assert_true(span_is(buf_span(&bytes), vectors[i][0]));
    }
    buf_clear(&text);
    base64_put(&text, span_of("\xfb\xff\xfe", 3));
    base64_url_put(&text, span_of("\xfb\xff\xfe\x01", 4));
    assert_true(span_is(buf_span(&text), "+//+-__-AQ"));
    buf_free(&text);
    buf_free(&bytes);
    assert_int_equal(alloc.used_bytes, 0);
}

static void what_is_written_reads_back(void **state)
{
    struct alloc alloc;
    struct buf text;
    struct buf bytes;
    struct prng prng;
    (void)state;
    prng_seed(&prng, 64);
    alloc_init(&alloc, BUDGET);
    buf_init(&text, &alloc);
    buf_init(&bytes, &alloc);
    for (int round = 0; round < 2000; round++) {
        uint8_t random[64];
        size_t size = prng_below(&prng, sizeof(random));
        for (size_t i = 0; i < size; i++)
            random[i] = (uint8_t)prng_below(&prng, 256);
        bool url = round % 2 == 0;
        buf_clear(&text);
        buf_clear(&bytes);
        if (url)
            base64_url_put(&text, span_of(random, size));
        else
            base64_put(&text, span_of(random, size));
        assert_int_equal((url ? base64_url_decode : base64_decode)(&bytes, buf_span(&text)), STATUS_OK);
        assert_true(span_equal(buf_span(&bytes), span_of(random, size)));
    }
    buf_free(&text);
    buf_free(&bytes);
}

static void other_texts_are_malformed_and_append_nothing(void **state)
{
    static const char *const wrong[] = {"A",     "AAAAA",   "AB==CD==", "A===", "====", "Zm9v\n",
                                        "Zm 9v", "Zm9v!AA", "-_-_",     "Zh==", "Zm9="};
    struct alloc alloc;
    struct buf bytes;
    (void)state;
    alloc_init(&alloc, BUDGET);
    buf_init(&bytes, &alloc);
    buf_append_text(&bytes, "kept");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(base64_decode(&bytes, span_of_text(wrong[i])), STATUS_MALFORMED);
        assert_true(span_is(buf_span(&bytes), "kept"));
    }
    assert_int_equal(base64_url_decode(&bytes, span_of_text("+/+/")), STATUS_MALFORMED);
    assert_int_equal(base64_decode(&bytes, span_of_text("Zg")), STATUS_OK);
    assert_true(span_is(buf_span(&bytes), "keptf"));
    buf_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_the_rfc_hold),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(other_texts_are_malformed_and_append_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
