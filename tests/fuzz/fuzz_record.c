/* Records from arbitrary bytes: what parses is canonical (it serialises to the same bytes), and merging is
 * commutative, associative and idempotent (invariant 3). The first byte chooses: three records follow, each after its
 * 16-bit size; or three are built from a few small numbers, so that stamps often meet. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "model/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct span serialise(struct buf *buf, const struct record *record)
{
    buf_clear(buf);
    record_put(buf, record);
    assert(!buf->failed);
    assert(buf->size == record_size(record));
    return buf_span(buf);
}

/* Values only merge meaningfully when equal stamps mean equal values: no stamp is made twice for a key. */
static int contradict(const struct record *a, const struct record *b)
{
    bool same_value = !stamp_none(a->stamp) && stamp_compare(a->stamp, b->stamp) == 0;
    bool same_override =
        !stamp_none(a->override_stamp) && stamp_compare(a->override_stamp, b->override_stamp) == 0;
    if (same_value &&
        (a->expiry_ms != b->expiry_ms || !span_equal(a->value, b->value) ||
         (a->flags & (RECORD_TOMBSTONE | RECORD_EXPIRY)) != (b->flags & (RECORD_TOMBSTONE | RECORD_EXPIRY))))
        return 1;
    return same_override && (a->override_expiry_ms != b->override_expiry_ms ||
                             stamp_compare(a->override_applies_to, b->override_applies_to) != 0);
}

/* What a stamp stands for follows from the stamp, as in a cluster that makes none twice. */
static struct record build(struct reader *reader)
{
    static const uint8_t values[8] = "abcdefg";
    uint8_t choice = reader_u8(reader);
    uint8_t value = reader_u8(reader) % 16;
    uint8_t override = reader_u8(reader) % 16;
    struct record record = {0};
    if ((choice & 3) != 0) {
        record.flags = RECORD_VALUE;
        record.stamp = (struct stamp){1 + value / 2, 1 + value % 2};
        record.value = span_of(values, value % 3 == 0 ? 0 : value % 8);
        if (value % 5 == 0) {
            record.flags |= RECORD_TOMBSTONE;
            record.value.size = 0;
        } else if (value % 5 == 1) {
            record.flags |= RECORD_EXPIRY;
            record.expiry_ms = 1000u + value;
        }
    }
    struct stamp applies_to = {1 + (override * 7 % 16) / 2, 1 + override % 2};
    if ((choice & 12) != 0 && stamp_compare(applies_to, record.stamp) >= 0) {
        record.flags |= RECORD_OVERRIDE;
        record.override_applies_to = applies_to;
        record.override_stamp = (struct stamp){20 + override / 2, 1 + override % 2};
        record.override_expiry_ms = override % 3 == 0 ? 0 : 5000u + override;
    }
    return record;
}

static void check_equal(struct alloc *alloc, const struct record *a, const struct record *b)
{
    struct buf x;
    struct buf y;
    buf_init(&x, alloc);
    buf_init(&y, alloc);
    assert(span_equal(serialise(&x, a), serialise(&y, b)));
    buf_free(&x);
    buf_free(&y);
}

/* Fills three records; false when the input does not hold three. Built ones live in sources. */
static bool read_records(struct reader *reader, struct buf sources[3], struct record records[3])
{
    bool built = reader_u8(reader) % 2 == 0;
    for (size_t i = 0; i < 3; i++) {
        struct record made = built ? build(reader) : (struct record){0};
        struct span bytes = built ? serialise(&sources[i], &made) : reader_short(reader);
        enum status status = record_parse(bytes, &records[i]);
        assert(!built || status == STATUS_OK);
        if (reader->failed || status != STATUS_OK)
            return false;
        struct buf again;
        buf_init(&again, sources[i].alloc);
        assert(span_equal(serialise(&again, &records[i]), bytes));
        buf_free(&again);
    }
    for (size_t i = 0; i < 3; i++) {
        if (contradict(&records[i], &records[(i + 1) % 3]))
            return false;
    }
    return true;
}

static void check_merges(struct alloc *alloc, const struct record records[3])
{
    for (size_t i = 0; i < 3; i++) {
        struct record same = record_merge(&records[i], &records[i]);
        check_equal(alloc, &same, &records[i]);
    }
    struct record ab = record_merge(&records[0], &records[1]);
    struct record ba = record_merge(&records[1], &records[0]);
    struct record bc = record_merge(&records[1], &records[2]);
    check_equal(alloc, &ab, &ba);
    struct record left = record_merge(&ab, &records[2]);
    struct record right = record_merge(&records[0], &bc);
    check_equal(alloc, &left, &right);
    struct buf merged;
    struct record parsed;
    buf_init(&merged, alloc);
    enum status status = record_parse(serialise(&merged, &left), &parsed);
    assert(status == STATUS_OK);
    buf_free(&merged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct alloc alloc;
    struct buf sources[3];
    struct record records[3];
    struct reader reader = reader_of(span_of(data, size));
    alloc_init(&alloc, (size_t)16 << 20);
    for (size_t i = 0; i < 3; i++)
        buf_init(&sources[i], &alloc);
    if (read_records(&reader, sources, records))
        check_merges(&alloc, records);
    for (size_t i = 0; i < 3; i++)
        buf_free(&sources[i]);
    assert(alloc.used_bytes == 0);
    return 0;
}
