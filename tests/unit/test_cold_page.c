/* Pages of a scan: what was put comes out, cut pages are told from short ones, memory may run out at any row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/cold_page.h"

#define ROWS 40

/* Row `number` of a page: sizes from 0 on, bytes that tell rows apart. */
static struct span row_part(uint8_t block[256], unsigned number, unsigned part)
{
    memset(block, (int)(number * 2 + part), 256);
    return span_of(block, (number * 7 + part * 31) % 100);
}

static void put_rows(struct buf *page, unsigned count)
{
    uint8_t key[256];
    uint8_t record[256];
    for (unsigned i = 0; i < count; i++)
        cold_page_put(page, row_part(key, i, 0), row_part(record, i, 1));
}

static void test_rows_come_out_as_they_were_put(void **state)
{
    struct alloc alloc;
    struct buf page;
    struct span key;
    struct span record;
    uint8_t block[256];
    size_t bytes = 0;
    (void)state;
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&page, &alloc);
    put_rows(&page, ROWS);
    struct reader reader = reader_of(buf_span(&page));
    for (unsigned i = 0; i < ROWS; i++) {
        assert_int_equal(cold_page_next(&reader, &key, &record), STATUS_OK);
        assert_true(span_equal(key, row_part(block, i, 0)));
        assert_true(span_equal(record, row_part(block, i, 1)));
        bytes += cold_page_row_bytes(key, record);
        assert_int_equal(page.size - reader_left(&reader), bytes);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cold_page_next(&reader, &key, &record), STATUS_NOT_FOUND);
        assert_int_equal(key.size + record.size, 0);
    }
    buf_free(&page);
}

static void test_layout_is_two_sizes_then_key_and_record(void **state)
{
    static const uint8_t expected[] = {2, 0, 0, 0, 3, 0, 0, 0, 'k', 'y', 'r', 'e', 'c'};
    struct alloc alloc;
    struct buf page;
    (void)state;
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&page, &alloc);
    cold_page_put(&page, span_of_text("ky"), span_of_text("rec"));
    assert_true(span_equal(buf_span(&page), span_of(expected, sizeof expected)));
    buf_free(&page);
}

static void test_page_without_rows_is_at_its_end(void **state)
{
    struct reader reader = reader_of((struct span){0});
    struct span key;
    struct span record;
    (void)state;
    assert_int_equal(cold_page_next(&reader, &key, &record), STATUS_NOT_FOUND);
}

static void test_page_cut_anywhere_but_between_rows_is_malformed(void **state)
{
    struct alloc alloc;
    struct buf page;
    (void)state;
    alloc_init(&alloc, SIZE_MAX);
    buf_init(&page, &alloc);
    put_rows(&page, 5);
    for (size_t cut = 0; cut < page.size; cut++) {
        struct reader reader = reader_of(span_of(page.data, cut));
        struct span key;
        struct span record;
        enum status status = STATUS_OK;
        size_t whole = 0;
        while ((status = cold_page_next(&reader, &key, &record)) == STATUS_OK)
            whole += cold_page_row_bytes(key, record);
        assert_int_equal(status, whole == cut ? STATUS_NOT_FOUND : STATUS_MALFORMED);
        assert_int_equal(key.size + record.size, 0);
        assert_int_equal(cold_page_next(&reader, &key, &record), status);
    }
    buf_free(&page);
}

static void test_row_without_memory_leaves_whole_rows(void **state)
{
    (void)state;
    for (uint64_t call = 1; call < 8; call++) {
        struct alloc alloc;
        struct buf page;
        struct span key;
        struct span record;
        alloc_init(&alloc, SIZE_MAX);
        alloc.fail_at_call = call;
        buf_init(&page, &alloc);
        put_rows(&page, ROWS);
        struct reader reader = reader_of(buf_span(&page));
        enum status status = STATUS_OK;
        while (status == STATUS_OK)
            status = cold_page_next(&reader, &key, &record);
        assert_int_equal(status, STATUS_NOT_FOUND);
        assert_true(page.failed || alloc.calls < call);
        buf_free(&page);
        assert_int_equal(alloc.used_bytes, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_come_out_as_they_were_put),
        cmocka_unit_test(test_layout_is_two_sizes_then_key_and_record),
        cmocka_unit_test(test_page_without_rows_is_at_its_end),
        cmocka_unit_test(test_page_cut_anywhere_but_between_rows_is_malformed),
        cmocka_unit_test(test_row_without_memory_leaves_whole_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
