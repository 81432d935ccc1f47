/* RESP answers: the ones that are not hot. */
#include "proto/resp_reply.h"

#include <assert.h>
#include <math.h>

size_t resp_reply_header_put(uint8_t *at, char type, int64_t number)
{
    uint8_t digits[20];
    size_t first = sizeof digits;
    size_t size = 0;
    uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        digits[--first] = (uint8_t)('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude != 0);
    at[size++] = (uint8_t)type;
    if (number < 0)
        at[size++] = '-';
    memcpy(at + size, digits + first, sizeof digits - first);
    size += sizeof digits - first;
    at[size++] = '\r';
    at[size++] = '\n';
    return size;
}

void resp_reply_map(struct buf *buf, uint8_t proto, size_t pairs)
{
    if (proto == RESP_PROTO_3)
        resp_reply_header(buf, '%', (int64_t)pairs);
    else
        resp_reply_header(buf, '*', (int64_t)pairs * 2);
}

void resp_reply_set(struct buf *buf, uint8_t proto, size_t count)
{
    resp_reply_header(buf, proto == RESP_PROTO_3 ? '~' : '*', (int64_t)count);
}

/* A type byte, one line and CRLF. A line end inside would put the client out of step. */
static void reply_line(struct buf *buf, uint8_t type, struct span text)
{
    if (!buf_reserve(buf, text.size + 3))
        return;
    uint8_t *at = buf->data + buf->size;
    *at++ = type;
    for (size_t i = 0; i < text.size; i++)
        *at++ = text.data[i] == '\r' || text.data[i] == '\n' ? ' ' : text.data[i];
    *at++ = '\r';
    *at = '\n';
    buf->size += text.size + 3;
}

void resp_reply_simple(struct buf *buf, struct span text)
{
    reply_line(buf, '+', text);
}

void resp_reply_error(struct buf *buf, struct span text)
{
    assert(text.size > 0);
    reply_line(buf, '-', text);
}

/* 17 digits always read back as the same number. */
static void double_put(struct buf *text, double number)
{
    if (isnan(number))
        buf_append_text(text, "nan");
    else if (isinf(number))
        buf_append_text(text, number > 0 ? "inf" : "-inf");
    else
        buf_append_format(text, "%.17g", number);
}

void resp_reply_double(struct buf *buf, uint8_t proto, double number)
{
    if (proto == RESP_PROTO_3) {
        size_t start = buf->size;
        buf_append(buf, ",", 1);
        double_put(buf, number);
        buf_append(buf, "\r\n", 2);
        if (buf->failed)
            buf->size = start;
        return;
    }
    struct buf text;
    buf_init(&text, buf->alloc);
    double_put(&text, number);
    if (text.failed)
        buf->failed = true;
    else
        resp_reply_bulk(buf, buf_span(&text));
    buf_free(&text);
}

void resp_reply_boolean(struct buf *buf, uint8_t proto, bool value)
{
    if (proto == RESP_PROTO_3)
        buf_append(buf, value ? "#t\r\n" : "#f\r\n", 4);
    else
        buf_append(buf, value ? ":1\r\n" : ":0\r\n", 4);
}

void resp_reply_verbatim(struct buf *buf, uint8_t proto, struct span text)
{
    if (proto != RESP_PROTO_3) {
        resp_reply_bulk(buf, text);
        return;
    }
    if (!buf_reserve(buf, text.size + 32))
        return;
    resp_reply_header(buf, '=', (int64_t)text.size + 4);
    buf_append(buf, "txt:", 4);
    buf_append_span(buf, text);
    buf_append(buf, "\r\n", 2);
}
