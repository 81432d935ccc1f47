/* Base64: groups of three bytes as four letters of six bits. */
#include "base/base64.h"

static const char letters_plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char letters_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void put_groups(struct buf *buf, struct span bytes, const char *letters, bool padded)
{
    if (!buf_reserve(buf, (bytes.size / 3 + 1) * 4))
        return;
    for (size_t at = 0; at < bytes.size; at += 3) {
        size_t left = bytes.size - at;
        uint32_t group = (uint32_t)bytes.data[at] << 16;
        group |= left > 1 ? (uint32_t)bytes.data[at + 1] << 8 : 0;
        group |= left > 2 ? (uint32_t)bytes.data[at + 2] : 0;
        char encoded[4] = {letters[group >> 18], letters[group >> 12 & 63],
                           left > 1 ? letters[group >> 6 & 63] : '=', left > 2 ? letters[group & 63] : '='};
        buf_append(buf, encoded, padded || left > 2 ? 4 : left + 1);
    }
}

void base64_put(struct buf *buf, struct span bytes)
{
    put_groups(buf, bytes, letters_plain, true);
}

void base64_url_put(struct buf *buf, struct span bytes)
{
    put_groups(buf, bytes, letters_url, false);
}

/* The six bits of a letter, or 64. */
static uint32_t bits_of(uint8_t letter, const char *letters)
{
    if (letter >= 'A' && letter <= 'Z')
        return (uint32_t)letter - 'A';
    if (letter >= 'a' && letter <= 'z')
        return (uint32_t)letter - 'a' + 26;
    if (letter >= '0' && letter <= '9')
        return (uint32_t)letter - '0' + 52;
    if (letter == (uint8_t)letters[62])
        return 62;
    return letter == (uint8_t)letters[63] ? 63 : 64;
}

static enum status decode(struct buf *buf, struct span text, const char *letters)
{
    size_t size = text.size;
    if (size % 4 == 0) {
        for (int i = 0; i < 2 && size > 0 && text.data[size - 1] == '='; i++)
            size--;
    }
    if (size % 4 == 1)
        return STATUS_MALFORMED;
    size_t size_before = buf->size;
    if (!buf_reserve(buf, size / 4 * 3 + 3))
        return STATUS_OVERLOADED;
    uint32_t group = 0;
    uint32_t group_bits = 0;
    for (size_t i = 0; i < size; i++) {
        uint32_t bits = bits_of(text.data[i], letters);
        if (bits > 63) {
            buf->size = size_before;
            return STATUS_MALFORMED;
        }
        group = group << 6 | bits;
        group_bits += 6;
        if (group_bits >= 8) {
            group_bits -= 8;
            buf_put_u8(buf, (uint8_t)(group >> group_bits));
            group &= (1u << group_bits) - 1;
        }
    }
    /* Bits that belong to no byte are zero, so that equal bytes have one text. */
    if (group != 0) {
        buf->size = size_before;
        return STATUS_MALFORMED;
    }
    return STATUS_OK;
}

enum status base64_decode(struct buf *buf, struct span text)
{
    return decode(buf, text, letters_plain);
}

enum status base64_url_decode(struct buf *buf, struct span text)
{
    return decode(buf, text, letters_url);
}
