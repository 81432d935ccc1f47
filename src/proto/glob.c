/* Glob patterns, matched without recursion: on a mismatch only the last '*' needs to take one byte more, since
 * what the stars before it took can stay as it is. */
#include "proto/glob.h"

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte | 0x20) : byte;
}

/* Whether the set behind '[' holds the byte; at moves behind its ']'. A set that is never closed ends with the
 * pattern. */
static bool set_match(struct span pattern, size_t *at, uint8_t byte)
{
    size_t i = *at;
    bool held = false;
    bool negated = i < pattern.size && pattern.data[i] == '^';
    if (negated)
        i++;
    while (i < pattern.size && pattern.data[i] != ']') {
        if (pattern.data[i] == '\\' && i + 1 < pattern.size)
            i++;
        uint8_t low = lower(pattern.data[i++]);
        uint8_t high = low;
        if (i + 1 < pattern.size && pattern.data[i] == '-' && pattern.data[i + 1] != ']') {
            high = lower(pattern.data[i + 1]);
            i += 2;
        }
        if (low > high) {
            uint8_t swap = low;
            low = high;
            high = swap;
        }
        held = held || (byte >= low && byte <= high);
    }
    *at = i < pattern.size ? i + 1 : i;
    return held != negated;
}

/* Whether the element of the pattern at *at, which is no star, matches a byte; moves behind it. */
static bool element_match(struct span pattern, size_t *at, uint8_t byte)
{
    uint8_t element = pattern.data[(*at)++];
    if (element == '?')
        return true;
    if (element == '[')
        return set_match(pattern, at, lower(byte));
    if (element == '\\' && *at < pattern.size)
        element = pattern.data[(*at)++];
    return lower(element) == lower(byte);
}

bool glob_match(struct span pattern, struct span text)
{
    size_t in_pattern = 0;
    size_t in_text = 0;
    size_t star = SIZE_MAX; /* behind the last star */
    size_t star_text = 0;   /* where its bytes end for now */
    while (in_text < text.size) {
        if (in_pattern < pattern.size && pattern.data[in_pattern] == '*') {
            star = ++in_pattern;
            star_text = in_text;
            continue;
        }
        if (in_pattern < pattern.size && element_match(pattern, &in_pattern, text.data[in_text])) {
            in_text++;
            continue;
        }
        if (star == SIZE_MAX)
            return false;
        in_pattern = star;
        in_text = ++star_text;
    }
    while (in_pattern < pattern.size && pattern.data[in_pattern] == '*')
        in_pattern++;
    return in_pattern == pattern.size;
}
