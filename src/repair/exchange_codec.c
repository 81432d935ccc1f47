/* The parts that the messages of an exchange are made of. */
#include <assert.h>

#include "repair/exchange_internal.h"

_Static_assert(1u << STEP_MAX == CHILDREN_MAX, "a step opens at most that many children");
_Static_assert(EXCHANGE_MESSAGE_BYTES_MAX < FRAME_BYTES_MAX, "a message fits a frame");

/* ---- rows and branches --------------------------------------------------------------------------------- */

uint64_t position_of(struct span key, uint16_t tag)
{
    return (uint64_t)tag << 32 | (hash_64(key, 1) & UINT32_MAX);
}

bool fed_row_of(struct span key, struct span record, struct fed_row *row)
{
    struct record parsed;
    if (record_parse(record, &parsed) != STATUS_OK || record_empty(&parsed))
        return false;
    *row = (struct fed_row){.key = key, .record = record, .version = record_version(&parsed)};
    row->tag = merkle_tag(key);
    row->position = position_of(key, row->tag);
    row->hash = merkle_row_hash(key, row->version);
    return true;
}

bool branch_holds(const struct branch *branch, uint64_t position)
{
    return position >> (POSITION_BITS - branch->level) == branch->index;
}

void branch_need(const struct branch *branch, struct exchange_need *need)
{
    uint64_t first = branch->index << (POSITION_BITS - branch->level);
    uint64_t last = first + (UINT64_C(1) << (POSITION_BITS - branch->level)) - 1;
    *need = (struct exchange_need){
        .slot = branch->slot, .tag_first = (uint16_t)(first >> 32), .tag_last = (uint16_t)(last >> 32)};
}

uint64_t node_digest(const struct merkle_node *node, uint64_t salt)
{
    uint8_t bytes[20];
    store_u64(bytes, node->sum.low);
    store_u64(bytes + 8, node->sum.high);
    store_u32(bytes + 16, node->count);
    uint64_t digest = hash_64(span_of(bytes, sizeof bytes), salt);
    return digest == 0 ? 1 : digest;
}

uint64_t row_digest(const struct hash_128 *row, uint64_t salt)
{
    uint8_t bytes[16];
    store_u64(bytes, row->low);
    store_u64(bytes + 8, row->high);
    return hash_64(span_of(bytes, sizeof bytes), salt);
}

#define ROOT_DIGEST_BITS 48

uint64_t root_digest(const struct merkle_node *root, uint64_t salt)
{
    uint64_t digest = node_digest(root, salt) & ((UINT64_C(1) << ROOT_DIGEST_BITS) - 1);
    return digest == 0 ? 1 : digest;
}

bool children_from_tree(const struct merkle *merkle, const struct branch *branch, uint8_t step,
                        struct merkle_node *children)
{
    assert(step >= 1 && step <= STEP_MAX);
    uint8_t level = (uint8_t)(branch->level + step);
    uint32_t count = UINT32_C(1) << step;
    bool in_tree = level <= merkle_info(merkle, branch->slot).depth;
    for (uint32_t i = 0; i < count; i++) {
        children[i] = (struct merkle_node){.known = true};
        if (in_tree)
            children[i] = merkle_node(merkle, branch->slot, level, (uint32_t)(branch->index << step) + i);
    }
    return in_tree;
}

void children_add(const struct branch *branch, uint8_t step, struct merkle_node *children,
                  const struct fed_row *row)
{
    if (!branch_holds(branch, row->position))
        return;
    uint32_t below = (uint32_t)(POSITION_BITS - branch->level) - step;
    uint64_t at = (row->position >> below) & ((UINT64_C(1) << step) - 1);
    children[at].sum = merkle_sum_add(children[at].sum, row->hash);
    children[at].count++;
}

uint32_t node_count(const struct merkle_node *node)
{
    return node->known ? node->count : COUNT_UNKNOWN;
}

void sort_u64(uint64_t *numbers, uint32_t count)
{
    /* Shell's sort with Ciura's first gaps: lists are short. */
    static const uint32_t gaps[] = {701, 301, 132, 57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; g++) {
        for (uint32_t i = gaps[g]; i < count; i++) {
            uint64_t number = numbers[i];
            uint32_t at = i;
            for (; at >= gaps[g] && numbers[at - gaps[g]] > number; at -= gaps[g])
                numbers[at] = numbers[at - gaps[g]];
            numbers[at] = number;
        }
    }
}

uint32_t find_u64(const uint64_t *numbers, uint32_t count, uint64_t number)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (numbers[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && numbers[low] == number ? low : count;
}

/* ---- parts of messages --------------------------------------------------------------------------------- */

void put_head(struct buf *buf, enum exchange_type type, uint64_t session, uint32_t step)
{
    buf_put_u8(buf, (uint8_t)type);
    buf_put_u64(buf, session);
    buf_put_u32(buf, step);
}

enum status exchange_read_head(struct span message, struct exchange_head *head)
{
    struct reader reader = reader_of(message);
    uint8_t type = reader_u8(&reader);
    head->session = reader_u64(&reader);
    head->step = reader_u32(&reader);
    if (reader.failed || type < EXCHANGE_ROOTS || type > EXCHANGE_REFUSED)
        return STATUS_MALFORMED;
    head->type = (enum exchange_type)type;
    return STATUS_OK;
}

void put_varint(struct buf *buf, uint64_t number)
{
    uint8_t bytes[10];
    size_t size = 0;
    for (; number >= 0x80; number >>= 7)
        bytes[size++] = (uint8_t)(number | 0x80);
    bytes[size++] = (uint8_t)number;
    buf_append(buf, bytes, size);
}

uint64_t read_varint(struct reader *reader, uint64_t max)
{
    uint64_t number = 0;
    for (uint32_t shift = 0; shift < 64 && !reader->failed; shift += 7) {
        uint8_t byte = reader_u8(reader);
        number |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) != 0)
            continue;
        /* A last byte of 0 would be a longer form of the same number; the tenth byte has room for one bit. */
        if ((byte == 0 && shift > 0) || (shift == 63 && byte > 1) || number > max)
            break;
        return reader->failed ? 0 : number;
    }
    reader->failed = true;
    return 0;
}

void put_root(struct buf *buf, uint16_t before, uint16_t slot, uint64_t digest)
{
    assert(before == SLOTS_COUNT || slot > before);
    put_varint(buf, before == SLOTS_COUNT ? slot : (uint64_t)(slot - before - 1));
    buf_put_u32(buf, (uint32_t)digest);
    buf_put_u16(buf, (uint16_t)(digest >> 32));
}

uint16_t read_root(struct reader *reader, uint16_t before, uint64_t *digest)
{
    uint64_t first = before == SLOTS_COUNT ? 0 : before + UINT64_C(1);
    if (first >= SLOTS_COUNT) {
        reader->failed = true;
        return 0;
    }
    uint64_t slot = first + read_varint(reader, SLOTS_COUNT - 1 - first);
    *digest = reader_u32(reader);
    *digest |= (uint64_t)reader_u16(reader) << 32;
    return (uint16_t)slot;
}

void put_branch(struct buf *buf, const struct branch *branch)
{
    put_varint(buf, branch->slot);
    buf_put_u8(buf, branch->level);
    put_varint(buf, branch->index);
}

void read_branch(struct reader *reader, struct branch *branch)
{
    branch->slot = (uint16_t)read_varint(reader, SLOTS_COUNT - 1);
    branch->level = reader_u8(reader);
    if (branch->level > POSITION_BITS) {
        reader->failed = true;
        branch->level = 0;
    }
    branch->index = read_varint(reader, (UINT64_C(1) << branch->level) - 1);
}

/* Form, key size, record size or stamps: a little more than any of them needs.
 * */
size_t row_bytes_max(struct span key, struct span record)
{
    return key.size + record.size + 2 * VERSION_BYTES;
}

void put_row_version(struct buf *buf, struct span key, struct version version)
{
    bool overridden = !stamp_none(version.override);
    buf_put_u8(buf, overridden ? ROW_VERSIONS : ROW_VERSION);
    buf_put_short(buf, key);
    stamp_put(buf, version.value);
    if (overridden)
        stamp_put(buf, version.override);
}

void put_row_record(struct buf *buf, struct span key, struct span record)
{
    buf_put_u8(buf, ROW_RECORD);
    buf_put_short(buf, key);
    buf_put_long(buf, record);
}

static bool record_valid(struct span bytes, struct version *version)
{
    struct record record;
    if (record_parse(bytes, &record) != STATUS_OK || record_empty(&record))
        return false;
    *version = record_version(&record);
    return true;
}

void read_row(struct reader *reader, const struct branch *branch, struct message_row *row)
{
    *row = (struct message_row){0};
    uint8_t form = reader_u8(reader);
    row->key = reader_short(reader);
    row->form = (enum row_form)form;
    if (form == ROW_RECORD) {
        row->record = reader_long(reader);
        reader->failed = reader->failed || !record_valid(row->record, &row->version);
    } else {
        row->version.value = stamp_read(reader);
        if (form == ROW_VERSIONS)
            row->version.override = stamp_read(reader);
        reader->failed = reader->failed || form > ROW_RECORD ||
                         (form == ROW_VERSIONS && stamp_none(row->version.override));
    }
    if (!reader->failed && (key_slot(row->key) != branch->slot ||
                            !branch_holds(branch, position_of(row->key, merkle_tag(row->key)))))
        reader->failed = true;
}

void put_key(struct buf *buf, uint16_t slot, struct span key)
{
    put_varint(buf, slot);
    buf_put_short(buf, key);
}

void read_key(struct reader *reader, uint16_t *slot, struct span *key)
{
    *slot = (uint16_t)read_varint(reader, SLOTS_COUNT - 1);
    *key = reader_short(reader);
    if (!reader->failed && key_slot(*key) != *slot)
        reader->failed = true;
}

void put_record(struct buf *buf, uint16_t slot, struct span key, struct span record)
{
    put_key(buf, slot, key);
    buf_put_long(buf, record);
}

void read_record(struct reader *reader, struct exchange_record *record)
{
    struct version version;
    read_key(reader, &record->slot, &record->key);
    record->record = reader_long(reader);
    reader->failed = reader->failed || !record_valid(record->record, &version);
}
