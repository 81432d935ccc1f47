/* JSON strings. */
#include "proto/json.h"

struct utf8_sequence {
    size_t size; /* bytes it has, or that a replacement stands for */
    bool valid;
};

/* The sequence at the start of bytes (not empty): well-formed UTF-8 by table 3-7 of the Unicode standard, or the
 * maximal part of one that was broken off. */
static struct utf8_sequence utf8_sequence_at(struct span bytes)
{
    uint8_t lead = bytes.data[0];
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t size = 0;
    if (lead < 0x80)
        return (struct utf8_sequence){.size = 1, .valid = true};
    if (lead >= 0xc2 && lead <= 0xdf)
        size = 2;
    else if (lead >= 0xe0 && lead <= 0xef)
        size = 3;
    else if (lead >= 0xf0 && lead <= 0xf4)
        size = 4;
    else
        return (struct utf8_sequence){.size = 1, .valid = false};

    /* The second byte's range keeps out overlong forms, surrogates and what is past U+10FFFF. */
    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < size; i++) {
        if (i == bytes.size || bytes.data[i] < low || bytes.data[i] > high)
            return (struct utf8_sequence){.size = i, .valid = false};
        low = 0x80;
        high = 0xbf;
    }
    return (struct utf8_sequence){.size = size, .valid = true};
}

bool json_is_text(struct span bytes)
{
    while (bytes.size > 0) {
        struct utf8_sequence sequence = utf8_sequence_at(bytes);
        if (!sequence.valid)
            return false;
        bytes = span_of(bytes.data + sequence.size, bytes.size - sequence.size);
    }
    return true;
}

/* The escape of an ASCII byte that may not stand for itself, or NULL. */
static const char *short_escape(uint8_t byte)
{
    switch (byte) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\b':
        return "\\b";
    case '\f':
        return "\\f";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        return NULL;
    }
}

static void control_escape(struct buf *buf, uint8_t byte)
{
    static const char hex[] = "0123456789abcdef";
    char escape[] = "\\u0000";
    escape[4] = hex[byte >> 4];
    escape[5] = hex[byte & 15];
    buf_append(buf, escape, 6);
}

void json_put_escaped(struct buf *buf, struct span bytes)
{
    while (bytes.size > 0) {
        uint8_t byte = bytes.data[0];
        struct utf8_sequence sequence = utf8_sequence_at(bytes);
        const char *escape = short_escape(byte);
        if (!sequence.valid)
            buf_append(buf, "\xef\xbf\xbd", 3);
        else if (escape != NULL)
            buf_append(buf, escape, 2);
        else if (byte < 0x20 || byte == 0x7f)
            control_escape(buf, byte);
        else
            buf_append(buf, bytes.data, sequence.size);
        bytes = span_of(bytes.data + sequence.size, bytes.size - sequence.size);
    }
}

void json_put_string(struct buf *buf, struct span bytes)
{
    buf_append(buf, "\"", 1);
    json_put_escaped(buf, bytes);
    buf_append(buf, "\"", 1);
}
