/* Borrowed bytes, growing buffers and bounded cursors.
 *
 * A struct span is a view: whoever made it says how long it stays valid. A struct buf owns its bytes. Readers
 * and writers are cursors over fixed bytes whose failure is sticky, so that a codec reads like the format and
 * is checked once at its end. All integers are little endian unless the name says otherwise. */
#ifndef RONDO_BASE_SPAN_H
#define RONDO_BASE_SPAN_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"

struct span {
    const uint8_t *data;
    size_t size;
};

static inline struct span span_of(const void *data, size_t size)
{
    return (struct span){.data = data, .size = size};
}

static inline struct span span_of_text(const char *text)
{
    return (struct span){.data = (const uint8_t *)text, .size = strlen(text)};
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool span_is(struct span a, const char *text)
{
    return span_equal(a, span_of_text(text));
}

/* Copies as much of the span as fits into a terminated text of `size` bytes (> 0). */
void span_copy_text(struct span from, char *text, size_t size);

/* ASCII case is ignored. */
bool span_is_nocase(struct span a, const char *text);

/* Bytewise order, as memcmp; a proper prefix comes first. */
int span_compare(struct span a, struct span b);

/* The whole span as a decimal number; MALFORMED for anything else or out of range. i64: with an optional '-', and in
 * one form only, as Redis wants it: no leading zeros, no "-0". */
MUST_CHECK enum status span_parse_i64(struct span text, int64_t *number);
MUST_CHECK enum status span_parse_u64(struct span text, uint64_t *number);

/* ---- struct buf: growing bytes -------------------------------------------------------------------------- */

struct buf {
    struct alloc *alloc;
    uint8_t *data;
    size_t size;
    size_t capacity;
    bool failed; /* an append did not fit the budget; nothing more is appended until buf_clear */
};

static inline void buf_init(struct buf *buf, struct alloc *alloc)
{
    *buf = (struct buf){.alloc = alloc};
}

/* Frees the bytes; the buf can be used again. */
void buf_free(struct buf *buf);

/* Empties without freeing. */
static inline void buf_clear(struct buf *buf)
{
    buf->size = 0;
    buf->failed = false;
}

/* Makes room for size more bytes; on failure sets failed and changes nothing else. */
bool buf_reserve(struct buf *buf, size_t size);

/* Appends; on failure sets failed and appends nothing. */
void buf_append(struct buf *buf, const void *data, size_t size);
void buf_append_text(struct buf *buf, const char *text);
void buf_append_i64(struct buf *buf, int64_t number); /* decimal digits */
void buf_append_u64(struct buf *buf, uint64_t number);
/* printf into the buf; for cold paths only. */
void buf_append_format(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_append_arguments(struct buf *buf, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

static inline void buf_append_span(struct buf *buf, struct span span)
{
    buf_append(buf, span.data, span.size);
}

/* Drops the first size bytes. */
void buf_drop(struct buf *buf, size_t size);

static inline struct span buf_span(const struct buf *buf)
{
    return (struct span){.data = buf->data, .size = buf->size};
}

void buf_put_u8(struct buf *buf, uint8_t value);
void buf_put_u16(struct buf *buf, uint16_t value);
void buf_put_u32(struct buf *buf, uint32_t value);
void buf_put_u64(struct buf *buf, uint64_t value);
/* u16 size, then the bytes. The span must be shorter than 64 KiB. */
void buf_put_short(struct buf *buf, struct span span);
/* u32 size, then the bytes. */
void buf_put_long(struct buf *buf, struct span span);

/* ---- fixed little-endian stores and loads --------------------------------------------------------------- */

static inline void store_u16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)v;
    at[1] = (uint8_t)(v >> 8);
}

static inline void store_u32(uint8_t *at, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static inline void store_u64(uint8_t *at, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)(v >> (8 * i));
}

static inline uint16_t load_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | (uint16_t)at[1] << 8);
}

static inline uint32_t load_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t load_u64(const uint8_t *at)
{
    return (uint64_t)load_u32(at) | (uint64_t)load_u32(at + 4) << 32;
}

/* ---- struct reader: bounded, sticky failure ------------------------------------------------------------- */

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed; /* a read went past the end; every later read gives zero */
};

static inline struct reader reader_of(struct span span)
{
    /* An empty span may have no address to add to. */
    const uint8_t *end = span.size == 0 ? span.data : span.data + span.size;
    return (struct reader){.at = span.data, .end = end, .failed = false};
}

static inline size_t reader_left(const struct reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* A view of the next size bytes; empty on failure. */
struct span reader_bytes(struct reader *reader, size_t size);
uint8_t reader_u8(struct reader *reader);
uint16_t reader_u16(struct reader *reader);
uint32_t reader_u32(struct reader *reader);
uint64_t reader_u64(struct reader *reader);
struct span reader_short(struct reader *reader); /* what buf_put_short wrote */
struct span reader_long(struct reader *reader);  /* what buf_put_long wrote */

/* OK when nothing failed and nothing is left; else MALFORMED. */
MUST_CHECK enum status reader_finish(const struct reader *reader);

#endif
