/* The side of an exchange that starts: what answers say.
 *
 * An answer is read over once to validate it, before anything changes. */
#include <assert.h>

#include "repair/exchange_start.h"

/* ---- roots and comparisons ----------------------------------------------------------------------------- */

static bool push_branch(struct exchange *exchange, const struct branch *branch, uint32_t count,
                        uint32_t count_peer, uint8_t tries)
{
    struct work work = {.branch = *branch, .count = count, .count_peer = count_peer, .tries = tries};
    work.phase = exchange_phase(branch, count, count_peer);
    exchange_slot(exchange, branch->slot)->differed = true;
    return work_push(exchange, &exchange->todo, &work);
}

/* Both passes: validating (apply false) and applying. */
static void take_roots(struct exchange *exchange, struct reader *reader, bool apply)
{
    uint8_t differs = 0;
    for (uint32_t i = 0; i < exchange->slot_count && !reader->failed; i++) {
        if (i % 8 == 0) {
            differs = reader_u8(reader);
            if (exchange->slot_count - i < 8 && differs >> (exchange->slot_count - i) != 0)
                reader->failed = true;
        }
        bool differ = (differs >> (i % 8) & 1) != 0;
        if (differ) {
            /* Counts of this group of eight follow its bits. */
            uint32_t count_peer = (uint32_t)read_varint(reader, UINT32_MAX);
            struct branch branch = {.slot = exchange->slots[i].slot};
            struct merkle_node root = merkle_node(exchange->merkle, branch.slot, 0, 0);
            if (apply && !push_branch(exchange, &branch, node_count(&root), count_peer, 0))
                return;
        } else if (apply) {
            exchange->slots[i].open = 0;
        }
    }
    if (apply)
        exchange_batch_done(exchange);
}

static void take_compare(struct exchange *exchange, struct reader *reader, bool apply)
{
    for (uint32_t i = 0; i < exchange->batch.count && !reader->failed; i++) {
        const struct work *work = &exchange->batch.items[i];
        const struct merkle_node *children = exchange->children + (size_t)i * CHILDREN_MAX;
        uint16_t differs = reader_u16(reader);
        uint32_t opened = 0;
        if ((uint32_t)differs >> (1u << work->step) != 0)
            reader->failed = true;
        for (uint32_t c = 0; c < 1u << work->step; c++) {
            if ((differs >> c & 1) == 0)
                continue;
            uint32_t count_peer = (uint32_t)read_varint(reader, UINT32_MAX);
            struct branch child = {.slot = work->branch.slot,
                                   .level = (uint8_t)(work->branch.level + work->step),
                                   .index = work->branch.index << work->step | c};
            opened++;
            if (apply && !push_branch(exchange, &child, node_count(&children[c]), count_peer, work->tries))
                return;
        }
        if (apply) {
            struct slot_state *slot = exchange_slot(exchange, work->branch.slot);
            slot->open = slot->open - 1 + opened;
        }
    }
    if (apply)
        exchange_batch_done(exchange);
}

/* ---- lists --------------------------------------------------------------------------------------------- */

/* The bare form of a branch in a LIST_ANSWER. */
struct list_head {
    uint32_t lacked;
    bool more;
};

static void read_list_head(struct exchange *exchange, struct reader *reader, const struct work *work,
                           bool apply, struct list_head *head)
{
    uint8_t more = reader_u8(reader);
    head->more = more != 0;
    head->lacked = (uint32_t)read_varint(reader, work->list_count);
    uint64_t next = 0;
    for (uint32_t i = 0; i < head->lacked && !reader->failed; i++) {
        uint64_t index = read_varint(reader, UINT32_MAX);
        if (index < next || index >= work->list_count)
            reader->failed = true;
        else if (apply)
            exchange->lacked.data[work->list_first + index] = 1;
        next = index + 1;
    }
    reader->failed = reader->failed || more > 1;
}

/* The branches past those that were answered wait for the next batch; they were not tried. */
static bool postpone(struct exchange *exchange, uint32_t answered)
{
    for (uint32_t i = answered; i < exchange->batch.count; i++) {
        if (!work_push(exchange, &exchange->todo, &exchange->batch.items[i]))
            return false;
    }
    exchange->batch.count = answered;
    return true;
}

static void note_merge(struct exchange *exchange, uint16_t slot, struct span key, struct span record)
{
    struct exchange_record merge = {.slot = slot, .key = key, .record = record};
    buf_append(&exchange->merges, &merge, sizeof merge);
}

static void note_peer_row(struct exchange *exchange, const struct message_row *row)
{
    struct peer_row peer_row = {.key = row->key, .version = row->version, .wanted = true};
    buf_append(&exchange->peer_rows, &peer_row, sizeof peer_row);
}

/* The rows of one branch; answers how many of them are versions only. */
static uint32_t read_list_rows(struct exchange *exchange, struct reader *reader, const struct work *work,
                               bool apply)
{
    uint32_t rows = (uint32_t)read_varint(reader, UINT32_MAX);
    uint32_t versions = 0;
    for (uint32_t r = 0; r < rows && !reader->failed; r++) {
        struct message_row row;
        read_row(reader, &work->branch, &row);
        versions += row.form != ROW_RECORD;
        if (apply && row.form == ROW_RECORD)
            note_merge(exchange, work->branch.slot, row.key, row.record);
        else if (apply)
            note_peer_row(exchange, &row);
    }
    return versions;
}

/* What was noted of an answer: the records are merged first, if there are any.
 * */
static void merge_or(struct exchange *exchange, bool ends_batch)
{
    exchange->merge_at = 0;
    exchange->merges_end_batch = ends_batch;
    if (exchange->merges.failed || exchange->peer_rows.failed)
        exchange_fail(exchange, STATUS_OVERLOADED);
    else if (exchange->merges.size > 0)
        exchange->state = EXCHANGE_MERGING;
    else if (ends_batch)
        exchange_batch_done(exchange);
    else
        exchange_read(exchange, READING_RECORDS);
}

static void take_list(struct exchange *exchange, struct reader *reader, bool apply)
{
    uint32_t answered = (uint32_t)read_varint(reader, exchange->batch.count);
    reader->failed = reader->failed || answered == 0;
    for (uint32_t i = 0; i < answered && !reader->failed; i++) {
        struct work *work = &exchange->batch.items[i];
        struct list_head head;
        uint32_t rows_first = (uint32_t)(exchange->peer_rows.size / sizeof(struct peer_row));
        read_list_head(exchange, reader, work, apply, &head);
        uint32_t versions = read_list_rows(exchange, reader, work, apply);
        if (!apply)
            continue;
        work->again = head.more;
        work->moved = head.more;
        work->rows_first = rows_first;
        work->rows_count = versions;
        work->ready = versions == 0 && head.lacked == 0;
    }
    if (apply && postpone(exchange, answered))
        merge_or(exchange, false);
}

/* ---- records ------------------------------------------------------------------------------------------- */

static bool stamp_newer(struct stamp a, struct stamp b)
{
    return stamp_compare(a, b) > 0;
}

/* Whether a merge with a could change b. Of two overrides the one for the newer value wins, and a version does not say
 * which value an override is for. */
static bool version_adds(struct version a, struct version b)
{
    bool other_override = !stamp_none(a.override) && stamp_compare(a.override, b.override) != 0;
    return stamp_newer(a.value, b.value) || other_override;
}

static struct peer_row *find_peer_row(struct exchange *exchange, const struct work *work, struct span key)
{
    struct peer_row *rows = exchange_peer_rows(exchange);
    for (uint32_t i = work->rows_first; i < work->rows_first + work->rows_count; i++) {
        if (span_equal(rows[i].key, key))
            return &rows[i];
    }
    return NULL;
}

void exchange_push_row(struct exchange *exchange, struct work *work, const struct fed_row *row)
{
    if (work->list_count > 0) {
        uint64_t digest = row_digest(&row->hash, exchange->session);
        uint32_t at = find_u64(exchange_digests(exchange) + work->list_first, work->list_count, digest);
        if (at < work->list_count && exchange->lacked.data[work->list_first + at] == 0)
            return;
    }
    /* Either the other side lacks it, or it is newer than our list, which it then must not be compared with. */
    struct peer_row *peer_row = find_peer_row(exchange, work, row->key);
    if (peer_row != NULL) {
        peer_row->wanted = version_adds(peer_row->version, row->version);
        if (!version_adds(row->version, peer_row->version))
            return;
    }
    size_t size = row_bytes_max(row->key, row->record);
    if (exchange->push_count > 0 && exchange->pushes.size + size > EXCHANGE_MESSAGE_BYTES_MAX) {
        work->again = true;
        return;
    }
    put_record(&exchange->pushes, work->branch.slot, row->key, row->record);
    exchange->push_count++;
    work->moved = true;
    exchange->counters.records_sent++;
}

/* Once its rows are read, what is still wanted of each branch. */
static void gather_wants(struct exchange *exchange)
{
    const struct peer_row *rows = exchange_peer_rows(exchange);
    for (uint32_t i = 0; i < exchange->batch.count; i++) {
        struct work *work = &exchange->batch.items[i];
        for (uint32_t r = work->rows_first; r < work->rows_first + work->rows_count; r++) {
            size_t size = exchange->pushes.size + exchange->wants.size + rows[r].key.size;
            if (!rows[r].wanted)
                continue;
            if (exchange->push_count + exchange->want_count > 0 && size > EXCHANGE_MESSAGE_BYTES_MAX) {
                work->again = true;
                continue;
            }
            put_key(&exchange->wants, work->branch.slot, rows[r].key);
            exchange->want_count++;
            work->wants = true;
            work->moved = true;
        }
    }
}

static void take_records(struct exchange *exchange, struct reader *reader, bool apply)
{
    uint8_t more = reader_u8(reader);
    uint32_t count = (uint32_t)read_varint(reader, exchange->want_count);
    reader->failed = reader->failed || more > 1;
    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        struct exchange_record record;
        read_record(reader, &record);
        if (apply)
            note_merge(exchange, record.slot, record.key, record.record);
    }
    if (!apply)
        return;
    for (uint32_t i = 0; i < exchange->batch.count; i++) {
        struct work *work = &exchange->batch.items[i];
        if (more != 0 && work->wants) {
            work->again = true;
            work->moved = work->moved && count == 0; /* records came, if not all: no try is counted */
        }
    }
    merge_or(exchange, true);
}

bool exchange_send_records(struct exchange *exchange)
{
    gather_wants(exchange);
    if (exchange->pushes.failed || exchange->wants.failed) {
        exchange_fail(exchange, STATUS_OVERLOADED);
        return true;
    }
    if (exchange->push_count == 0 && exchange->want_count == 0)
        return false;
    exchange_start_message(exchange, EXCHANGE_RECORDS);
    put_varint(&exchange->out, exchange->push_count);
    buf_append_span(&exchange->out, buf_span(&exchange->pushes));
    put_varint(&exchange->out, exchange->want_count);
    buf_append_span(&exchange->out, buf_span(&exchange->wants));
    exchange_end_message(exchange);
    return true;
}

bool exchange_merge_next(struct exchange *exchange, struct exchange_record *record)
{
    assert(exchange->state == EXCHANGE_MERGING);
    if (exchange->merge_at == exchange->merges.size / sizeof *record)
        return false;
    memcpy(record, exchange->merges.data + exchange->merge_at * sizeof *record, sizeof *record);
    exchange->merge_at++;
    exchange->counters.records_received++;
    return true;
}

void exchange_merged(struct exchange *exchange)
{
    assert(exchange->state == EXCHANGE_MERGING);
    assert(exchange->merge_at == exchange->merges.size / sizeof(struct exchange_record));
    if (exchange->merges_end_batch)
        exchange_batch_done(exchange);
    else
        exchange_read(exchange, READING_RECORDS);
    exchange_go_on(exchange);
}

/* ---- any answer ---------------------------------------------------------------------------------------- */

static void take(struct exchange *exchange, struct reader *reader, bool apply)
{
    switch (exchange->awaited) {
    case EXCHANGE_ROOTS:
        take_roots(exchange, reader, apply);
        break;
    case EXCHANGE_COMPARE:
        take_compare(exchange, reader, apply);
        break;
    case EXCHANGE_LIST:
        take_list(exchange, reader, apply);
        break;
    default:
        take_records(exchange, reader, apply);
        break;
    }
}

enum status exchange_answer(struct exchange *exchange, struct span answer)
{
    struct exchange_head head;
    enum status status = exchange_read_head(answer, &head);
    if (status != STATUS_OK)
        return status;
    if (exchange->state != EXCHANGE_SENDING || head.session != exchange->session ||
        head.step != exchange->step)
        return STATUS_NOT_FOUND;
    struct reader reader = reader_of(answer);
    (void)reader_bytes(&reader, EXCHANGE_HEAD_BYTES);
    if (head.type == EXCHANGE_REFUSED) {
        uint8_t refusal = reader_u8(&reader);
        if (reader_finish(&reader) != STATUS_OK || refusal == STATUS_OK || refusal >= STATUS_COUNT)
            return STATUS_MALFORMED;
        exchange_fail(exchange, (enum status)refusal);
        return exchange->status;
    }
    if (head.type != exchange->awaited + 1)
        return STATUS_MALFORMED;
    struct reader again = reader;
    take(exchange, &reader, false);
    if (reader_finish(&reader) != STATUS_OK)
        return STATUS_MALFORMED;
    size_t used = (size_t)(again.at - answer.data);
    buf_clear(&exchange->answer);
    buf_append_span(&exchange->answer, answer);
    if (exchange->answer.failed) {
        exchange_fail(exchange, STATUS_OVERLOADED);
        return exchange->status;
    }
    exchange->counters.messages++;
    exchange->counters.bytes_sent += exchange->out.size;
    exchange->counters.bytes_received += answer.size;
    buf_clear(&exchange->merges);
    again = reader_of(buf_span(&exchange->answer));
    (void)reader_bytes(&again, used);
    take(exchange, &again, true);
    exchange_go_on(exchange);
    return exchange->status;
}
