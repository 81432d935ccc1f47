/* Stamps and the hybrid logical clock. */
#include "model/stamp.h"

#include <assert.h>

void stamp_put(struct buf *buf, struct stamp stamp)
{
    buf_put_u64(buf, stamp.time);
    buf_put_u64(buf, stamp.actor);
}

struct stamp stamp_read(struct reader *reader)
{
    struct stamp stamp;
    stamp.time = reader_u64(reader);
    stamp.actor = reader_u64(reader);
    return stamp;
}

static size_t format_decimal(uint64_t number, char *text)
{
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    for (size_t i = 0; i < count; i++)
        text[i] = digits[count - 1 - i];
    return count;
}

size_t stamp_format(struct stamp stamp, char text[STAMP_TEXT_BYTES_MAX])
{
    static const char hex[] = "0123456789abcdef";
    size_t size = format_decimal(stamp_ms(stamp), text);
    text[size++] = '-';
    size += format_decimal(stamp.time & 0xffff, text + size);
    text[size++] = '-';
    for (int shift = 60; shift >= 0; shift -= 4)
        text[size++] = hex[stamp.actor >> shift & 15];
    text[size] = 0;
    assert(size < STAMP_TEXT_BYTES_MAX);
    return size;
}

static enum status parse_hex_u64(struct span text, uint64_t *number)
{
    uint64_t value = 0;
    if (text.size != 16)
        return STATUS_MALFORMED;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        else
            return STATUS_MALFORMED;
    }
    *number = value;
    return STATUS_OK;
}

/* Cuts the part before the next '-' off text. */
static bool cut_field(struct span *text, struct span *field)
{
    for (size_t i = 0; i < text->size; i++) {
        if (text->data[i] != '-')
            continue;
        *field = span_of(text->data, i);
        *text = span_of(text->data + i + 1, text->size - i - 1);
        return true;
    }
    return false;
}

enum status stamp_parse(struct span text, struct stamp *stamp)
{
    struct span field;
    uint64_t ms;
    uint64_t counter;
    uint64_t actor;
    if (!cut_field(&text, &field) || span_parse_u64(field, &ms) != STATUS_OK || ms > STAMP_MS_MAX)
        return STATUS_MALFORMED;
    if (!cut_field(&text, &field) || span_parse_u64(field, &counter) != STATUS_OK || counter > 0xffff)
        return STATUS_MALFORMED;
    if (parse_hex_u64(text, &actor) != STATUS_OK)
        return STATUS_MALFORMED;
    *stamp = (struct stamp){.time = ms << 16 | counter, .actor = actor};
    return STATUS_OK;
}

/* ---- the clock ------------------------------------------------------------------------------------------ */

/* How far a far-future bound is persisted ahead of the stamp that asked for it. Such stamps are rare; the lead
 * only saves a sync for each of a series of them. */
#define FUTURE_LEAD_MS 1000u

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void hlc_init(struct hlc *hlc, uint64_t actor, uint64_t skew_max_ms, struct hlc_bounds recovered)
{
    *hlc = (struct hlc){
        .actor = actor,
        .skew_max_ms = skew_max_ms,
        .last = recovered.bound,
        .future_last = recovered.future,
        .durable = recovered,
        .requested = recovered,
        .wanted = recovered,
        .start_ms = recovered.bound >> 16,
    };
}

/* The two registers never make the same time, whichever way real time and they move: an ordinary time is even, a
 * far-future one is odd. */
#define FUTURE_BIT 1u

/* Past this there is no room left for bounds ahead of a stamp. */
#define FUTURE_TIME_MAX ((STAMP_MS_MAX - 2 * FUTURE_LEAD_MS) << 16)

static enum status stamp_far_future(struct hlc *hlc, uint64_t above, uint64_t *time)
{
    uint64_t highest = max_u64(above, hlc->future_last);
    if (highest >= FUTURE_TIME_MAX)
        return STATUS_CLOCK_SKEW;
    uint64_t candidate = (highest + 1) | FUTURE_BIT;
    if (candidate > hlc->durable.future) {
        hlc->wanted.future = max_u64(hlc->wanted.future, candidate);
        return STATUS_WAIT;
    }
    hlc->future_last = candidate;
    *time = candidate;
    return STATUS_OK;
}

enum status hlc_stamp(struct hlc *hlc, uint64_t now_ms, struct stamp above, struct stamp *stamp)
{
    if (now_ms <= hlc->start_ms)
        return STATUS_WAIT;
    hlc->start_ms = 0;
    uint64_t near_max = (now_ms + hlc->skew_max_ms) << 16 | 0xffff;
    stamp->actor = hlc->actor;
    if (above.time > near_max && above.time > hlc->last)
        return stamp_far_future(hlc, above.time, &stamp->time);
    uint64_t candidate = max_u64(now_ms << 16, max_u64(hlc->last, above.time) + 1);
    candidate += candidate & FUTURE_BIT;
    if (candidate > hlc->durable.bound) {
        hlc->wanted.bound = max_u64(hlc->wanted.bound, candidate);
        return STATUS_WAIT;
    }
    hlc->last = candidate;
    stamp->time = candidate;
    return STATUS_OK;
}

void hlc_observe(struct hlc *hlc, uint64_t now_ms, struct stamp seen)
{
    uint64_t near_max = (now_ms + hlc->skew_max_ms) << 16 | 0xffff;
    if (seen.time <= near_max)
        hlc->last = max_u64(hlc->last, seen.time);
}

bool hlc_wants_bounds(struct hlc *hlc, uint64_t now_ms, bool stamping, struct hlc_bounds *bounds)
{
    uint64_t lead_ms = hlc->skew_max_ms / 2;
    uint64_t reached_ms = max_u64(now_ms, max_u64(hlc->last, hlc->wanted.bound) >> 16);
    /* While nothing can be stamped the recovered bound is not reached: a lead on top of it would grow with each of
     * many quick restarts, until the node could not stamp for seconds. */
    if (now_ms <= hlc->start_ms)
        reached_ms = now_ms;
    bool low = stamping && hlc->requested.bound >> 16 < reached_ms + lead_ms / 2;
    bool waiting = hlc->wanted.bound > hlc->requested.bound;
    bool future = hlc->wanted.future > hlc->requested.future;
    if (!low && !waiting && !future)
        return false;
    if (low || waiting)
        hlc->requested.bound = max_u64(hlc->requested.bound, (reached_ms + lead_ms) << 16 | 0xffff);
    if (future)
        hlc->requested.future = hlc->wanted.future + ((uint64_t)FUTURE_LEAD_MS << 16);
    *bounds = hlc->requested;
    return true;
}

void hlc_bounds_durable(struct hlc *hlc, struct hlc_bounds bounds)
{
    hlc->durable.bound = max_u64(hlc->durable.bound, bounds.bound);
    hlc->durable.future = max_u64(hlc->durable.future, bounds.future);
}
