/* Spans, buffers and cursors. */
#include "base/span.h"

#include <assert.h>
#include <stdio.h>

void span_copy_text(struct span from, char *text, size_t size)
{
    assert(size > 0);
    size_t copied = from.size < size - 1 ? from.size : size - 1;
    if (copied > 0)
        memcpy(text, from.data, copied);
    text[copied] = 0;
}

bool span_is_nocase(struct span a, const char *text)
{
    for (size_t i = 0; i < a.size; i++) {
        uint8_t x = a.data[i];
        uint8_t y = (uint8_t)text[i];
        if (y == 0)
            return false;
        if (x >= 'A' && x <= 'Z')
            x = (uint8_t)(x | 0x20);
        if (y >= 'A' && y <= 'Z')
            y = (uint8_t)(y | 0x20);
        if (x != y)
            return false;
    }
    return text[a.size] == 0;
}

int span_compare(struct span a, struct span b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);
    if (order != 0)
        return order;
    return (a.size > b.size) - (a.size < b.size);
}

enum status span_parse_u64(struct span text, uint64_t *number)
{
    uint64_t value = 0;
    if (text.size == 0 || text.size > 20)
        return STATUS_MALFORMED;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t digit = (uint8_t)(text.data[i] - '0');
        if (digit > 9 || value > (UINT64_MAX - digit) / 10)
            return STATUS_MALFORMED;
        value = value * 10 + digit;
    }
    *number = value;
    return STATUS_OK;
}

enum status span_parse_i64(struct span text, int64_t *number)
{
    bool negative = text.size > 0 && text.data[0] == '-';
    uint64_t magnitude = 0;
    struct span digits = negative ? span_of(text.data + 1, text.size - 1) : text;
    if (digits.size > 0 && digits.data[0] == '0' && (digits.size > 1 || negative))
        return STATUS_MALFORMED;
    if (span_parse_u64(digits, &magnitude) != STATUS_OK)
        return STATUS_MALFORMED;
    if (magnitude > (uint64_t)INT64_MAX + (negative ? 1 : 0))
        return STATUS_MALFORMED;
    *number = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return STATUS_OK;
}

void buf_free(struct buf *buf)
{
    alloc_put(buf->alloc, buf->data, buf->capacity);
    buf_init(buf, buf->alloc);
}

bool buf_reserve(struct buf *buf, size_t size)
{
    if (buf->failed)
        return false; /* what was lost must not be followed by what fits */
    if (size <= buf->capacity - buf->size)
        return true;
    if (size > SIZE_MAX / 2 - buf->size) {
        buf->failed = true;
        return false;
    }
    size_t capacity = buf->capacity < 64 ? 64 : buf->capacity * 2;
    if (capacity < buf->size + size)
        capacity = buf->size + size;
    uint8_t *data = alloc_resize(buf->alloc, buf->data, buf->capacity, capacity);
    if (data == NULL) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
    if (size == 0 || !buf_reserve(buf, size))
        return;
    memcpy(buf->data + buf->size, data, size);
    buf->size += size;
}

void buf_append_text(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_append_u64(struct buf *buf, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    buf_append(buf, digits + at, sizeof digits - at);
}

void buf_append_i64(struct buf *buf, int64_t number)
{
    if (number < 0)
        buf_append(buf, "-", 1);
    buf_append_u64(buf, number < 0 ? 0 - (uint64_t)number : (uint64_t)number);
}

void buf_append_arguments(struct buf *buf, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(NULL, 0, format, arguments);
    assert(size >= 0);
    if (buf_reserve(buf, (size_t)size + 1)) {
        (void)vsnprintf((char *)buf->data + buf->size, (size_t)size + 1, format, again);
        buf->size += (size_t)size;
    }
    va_end(again);
}

void buf_append_format(struct buf *buf, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    buf_append_arguments(buf, format, arguments);
    va_end(arguments);
}

void buf_drop(struct buf *buf, size_t size)
{
    assert(size <= buf->size);
    buf->size -= size;
    if (buf->size > 0 && size > 0)
        memmove(buf->data, buf->data + size, buf->size);
}

void buf_put_u8(struct buf *buf, uint8_t value)
{
    buf_append(buf, &value, 1);
}

void buf_put_u16(struct buf *buf, uint16_t value)
{
    uint8_t bytes[2];
    store_u16(bytes, value);
    buf_append(buf, bytes, sizeof bytes);
}

void buf_put_u32(struct buf *buf, uint32_t value)
{
    uint8_t bytes[4];
    store_u32(bytes, value);
    buf_append(buf, bytes, sizeof bytes);
}

void buf_put_u64(struct buf *buf, uint64_t value)
{
    uint8_t bytes[8];
    store_u64(bytes, value);
    buf_append(buf, bytes, sizeof bytes);
}

void buf_put_short(struct buf *buf, struct span span)
{
    assert(span.size <= UINT16_MAX);
    if (!buf_reserve(buf, span.size + 2))
        return;
    buf_put_u16(buf, (uint16_t)span.size);
    buf_append_span(buf, span);
}

void buf_put_long(struct buf *buf, struct span span)
{
    assert(span.size <= UINT32_MAX);
    if (!buf_reserve(buf, span.size + 4))
        return;
    buf_put_u32(buf, (uint32_t)span.size);
    buf_append_span(buf, span);
}

struct span reader_bytes(struct reader *reader, size_t size)
{
    if (reader->failed || size > reader_left(reader)) {
        reader->failed = true;
        return (struct span){0};
    }
    struct span bytes = span_of(reader->at, size);
    reader->at += size;
    return bytes;
}

uint8_t reader_u8(struct reader *reader)
{
    struct span bytes = reader_bytes(reader, 1);
    return bytes.data == NULL ? 0 : bytes.data[0];
}

uint16_t reader_u16(struct reader *reader)
{
    struct span bytes = reader_bytes(reader, 2);
    return bytes.data == NULL ? 0 : load_u16(bytes.data);
}

uint32_t reader_u32(struct reader *reader)
{
    struct span bytes = reader_bytes(reader, 4);
    return bytes.data == NULL ? 0 : load_u32(bytes.data);
}

uint64_t reader_u64(struct reader *reader)
{
    struct span bytes = reader_bytes(reader, 8);
    return bytes.data == NULL ? 0 : load_u64(bytes.data);
}

struct span reader_short(struct reader *reader)
{
    size_t size = reader_u16(reader);
    return reader_bytes(reader, size);
}

struct span reader_long(struct reader *reader)
{
    size_t size = reader_u32(reader);
    return reader_bytes(reader, size);
}

enum status reader_finish(const struct reader *reader)
{
    return reader->failed || reader->at != reader->end ? STATUS_MALFORMED : STATUS_OK;
}
