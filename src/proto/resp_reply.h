/* RESP answers, appended to a struct buf. `proto` is the connection's protocol: 2 or 3 (HELLO). Failure to grow
 * is sticky in the buf; whoever sends it looks once. */
#ifndef RONDO_PROTO_RESP_REPLY_H
#define RONDO_PROTO_RESP_REPLY_H

#include "base/span.h"

#define RESP_PROTO_2 2
#define RESP_PROTO_3 3

/* A type byte, a decimal number and CRLF; the number of bytes written (at most 23). */
size_t resp_reply_header_put(uint8_t *at, char type, int64_t number);

static inline void resp_reply_header(struct buf *buf, char type, int64_t number)
{
    if (buf_reserve(buf, 24))
        buf->size += resp_reply_header_put(buf->data + buf->size, type, number);
}

static inline void resp_reply_ok(struct buf *buf)
{
    buf_append(buf, "+OK\r\n", 5);
}

static inline void resp_reply_integer(struct buf *buf, int64_t number)
{
    resp_reply_header(buf, ':', number);
}

#define RESP_BULK_BYTES_MAX(size) ((size) + 26)

static inline void resp_reply_bulk(struct buf *buf, struct span bytes)
{
    if (!buf_reserve(buf, RESP_BULK_BYTES_MAX(bytes.size)))
        return;
    buf->size += resp_reply_header_put(buf->data + buf->size, '$', (int64_t)bytes.size);
    if (bytes.size > 0)
        memcpy(buf->data + buf->size, bytes.data, bytes.size);
    buf->size += bytes.size;
    buf->data[buf->size++] = '\r';
    buf->data[buf->size++] = '\n';
}

static inline void resp_reply_text(struct buf *buf, const char *text)
{
    resp_reply_bulk(buf, span_of_text(text));
}

/* An absent value: `$-1` or `_`. */
static inline void resp_reply_null(struct buf *buf, uint8_t proto)
{
    if (proto == RESP_PROTO_3)
        buf_append(buf, "_\r\n", 3);
    else
        buf_append(buf, "$-1\r\n", 5);
}

/* An absent array: `*-1` or `_`. */
static inline void resp_reply_null_array(struct buf *buf, uint8_t proto)
{
    if (proto == RESP_PROTO_3)
        buf_append(buf, "_\r\n", 3);
    else
        buf_append(buf, "*-1\r\n", 5);
}

/* The next count replies are its elements. */
static inline void resp_reply_array(struct buf *buf, size_t count)
{
    resp_reply_header(buf, '*', (int64_t)count);
}

/* The next 2 * pairs replies are its keys and values: `%n`, or an array in RESP2. */
void resp_reply_map(struct buf *buf, uint8_t proto, size_t pairs);

/* The next count replies are its members: `~n`, or an array in RESP2. */
void resp_reply_set(struct buf *buf, uint8_t proto, size_t count);

/* `+text`; line ends in it become spaces. */
void resp_reply_simple(struct buf *buf, struct span text);

/* `-text`; the text starts with its code ("ERR …"); line ends in it become spaces. */
void resp_reply_error(struct buf *buf, struct span text);

/* `,number`, or a bulk string in RESP2; 17 digits, so that it reads back the same. */
void resp_reply_double(struct buf *buf, uint8_t proto, double number);

/* `#t` or `#f`, or 1 and 0 in RESP2. */
void resp_reply_boolean(struct buf *buf, uint8_t proto, bool value);

/* `=size\r\ntxt:…`, or a bulk string in RESP2. */
void resp_reply_verbatim(struct buf *buf, uint8_t proto, struct span text);

#endif
