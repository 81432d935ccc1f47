/* Repair from arbitrary bytes: a serialised tree, a hint's key and row, a request to serve and an answer to
 * take. The first byte says which. Whatever is taken is canonical or at least harmless: all memory comes
 * back. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "repair/exchange.h"
#include "repair/hints.h"

#define BUDGET_BYTES ((size_t)64 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void try_tree(struct alloc *alloc, struct span bytes)
{
    struct merkle merkle;
    struct buf out;
    uint16_t slot = 0;
    merkle_init(&merkle, alloc);
    buf_init(&out, alloc);
    if (merkle_read(&merkle, bytes, &slot) == STATUS_OK) {
        merkle_put(&merkle, slot, &out);
        /* A tree without rows or marks is not kept, whatever its depth was. */
        bool empty = merkle_info(&merkle, slot).count == 0 && merkle_info(&merkle, slot).leaves_dirty == 0;
        require(empty || span_equal(buf_span(&out), bytes));
        (void)merkle_node(&merkle, slot, 0, 0);
    }
    buf_free(&out);
    merkle_free(&merkle);
}

static void try_hint(struct alloc *alloc, struct span bytes)
{
    struct buf out;
    struct hint_key key;
    struct span record;
    uint8_t flags;
    buf_init(&out, alloc);
    if (hint_key_read(bytes, &key) == STATUS_OK) {
        hint_key_put(&out, &key);
        require(span_equal(buf_span(&out), bytes));
    }
    buf_clear(&out);
    if (hint_row_read(bytes, &flags, &record) == STATUS_OK) {
        hint_row_put(&out, flags, record);
        require(span_equal(buf_span(&out), bytes));
    }
    buf_free(&out);
}

/* ---- a small replica ----------------------------------------------------------------------------------- */

static const uint16_t slots[] = {12182, 5061}; /* of "foo" and "bar" */

static void fill(struct merkle *merkle)
{
    struct span keys[] = {span_of_text("foo"), span_of_text("{foo}1"), span_of_text("bar")};
    for (size_t i = 0; i < 3; i++) {
        struct merkle_change change = {.slot = key_slot(keys[i]), .tag = merkle_tag(keys[i])};
        change.after_counted = true;
        change.after = merkle_row_hash(keys[i], (struct version){.value = {1 + i, 1}});
        merkle_apply(merkle, &change);
    }
}

static void put_record(struct buf *buf, uint64_t time)
{
    struct record record = {.flags = RECORD_VALUE, .stamp = {time, 1}, .value = span_of_text("value")};
    record_put(buf, &record);
}

static void try_serve(struct alloc *alloc, struct span bytes)
{
    struct merkle merkle;
    struct exchange_serve *serve = NULL;
    struct buf out;
    struct buf row;
    merkle_init(&merkle, alloc);
    fill(&merkle);
    buf_init(&out, alloc);
    buf_init(&row, alloc);
    put_record(&row, 1);
    if (exchange_serve_begin(alloc, &merkle, bytes, &serve) == STATUS_OK) {
        struct exchange_record record;
        struct exchange_need need;
        uint16_t slot;
        for (uint32_t i = 0; exchange_serve_slot(serve, i, &slot); i++)
            require(slot < SLOTS_COUNT);
        while (exchange_serve_merge_next(serve, &record))
            require(key_slot(record.key) == record.slot && record.record.size > 0);
        while (exchange_serve_need(serve, 0, &need)) {
            require(need.tag_first <= need.tag_last);
            exchange_serve_row(serve, span_of_text("foo"), buf_span(&row));
            exchange_serve_row(serve, span_of_text("{foo}1"), buf_span(&row));
            exchange_serve_row(serve, span_of_text("bar"), buf_span(&row));
            exchange_serve_need_done(serve);
        }
        (void)exchange_serve_finish(serve, &out);
        exchange_serve_free(serve);
    } else {
        exchange_serve_refuse(bytes, STATUS_MALFORMED, &out);
    }
    buf_free(&out);
    buf_free(&row);
    merkle_free(&merkle);
}

/* The bytes are cut into answers by a size before each; heads are put right, so that what follows is reached. */
static void try_answers(struct alloc *alloc, struct span bytes)
{
    struct merkle merkle;
    struct buf row;
    merkle_init(&merkle, alloc);
    fill(&merkle);
    buf_init(&row, alloc);
    put_record(&row, 2);
    struct exchange_options options = {
        .alloc = alloc, .merkle = &merkle, .session = 7, .slots = slots, .slot_count = 2};
    struct exchange *exchange = exchange_start(&options);
    require(exchange != NULL);
    struct reader reader = reader_of(bytes);
    struct exchange_record record;
    while (!reader.failed && exchange_state(exchange) != EXCHANGE_DONE &&
           exchange_state(exchange) != EXCHANGE_FAILED) {
        if (exchange_state(exchange) == EXCHANGE_READING) {
            exchange_row(exchange, span_of_text("foo"), buf_span(&row));
            exchange_row(exchange, span_of_text("bar"), buf_span(&row));
            exchange_need_done(exchange);
        } else if (exchange_state(exchange) == EXCHANGE_MERGING) {
            while (exchange_merge_next(exchange, &record))
                require(key_slot(record.key) == record.slot);
            exchange_merged(exchange);
        } else {
            struct span message = exchange_message(exchange);
            struct buf answer;
            buf_init(&answer, alloc);
            buf_append_span(&answer, span_of(message.data, EXCHANGE_HEAD_BYTES));
            answer.data[0]++;
            buf_append_span(&answer, reader_bytes(&reader, reader_u8(&reader)));
            enum status status = exchange_answer(exchange, buf_span(&answer));
            require(status == STATUS_OK || status == STATUS_MALFORMED || status == STATUS_OVERLOADED);
            buf_free(&answer);
        }
    }
    exchange_free(exchange);
    buf_free(&row);
    merkle_free(&merkle);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct alloc alloc;
    if (size == 0)
        return 0;
    alloc_init(&alloc, BUDGET_BYTES);
    struct span bytes = span_of(data + 1, size - 1);
    if (data[0] % 8 == 0)
        try_tree(&alloc, bytes);
    else if (data[0] % 8 == 1)
        try_hint(&alloc, bytes);
    else if (data[0] % 8 < 5)
        try_serve(&alloc, bytes);
    else
        try_answers(&alloc, bytes);
    require(alloc.used_bytes == 0);
    return 0;
}
