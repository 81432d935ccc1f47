/* The side of an exchange that serves: one request in, one answer out, nothing remembered.
 *
 * Branches are handled strictly in the message's order, so the answer grows as rows come in and memory is
 * bounded by the message, not by the rows. */
#include <assert.h>

#include "repair/exchange_internal.h"

struct serve_branch {
    struct branch branch;
    uint32_t list_first; /* LIST: its part of the digests */
    uint32_t list_count;
    uint16_t present; /* COMPARE: children of which the asker holds something */
    uint8_t step;     /* COMPARE */
    bool from_tree;   /* COMPARE: children came from the tree, no rows are needed */
    struct span key;  /* RECORDS: the key wanted; branch.slot is its slot */
};

struct exchange_serve {
    struct alloc *alloc;
    const struct merkle *merkle;
    struct exchange_head head;
    struct buf message;
    struct buf out;               /* the answer, from the first branch on */
    struct buf versions;          /* LIST: the current branch's rows that the asker lacks, in both forms */
    struct buf records;           /* RECORDS: only this one */
    uint64_t *digests;            /* LIST: the asker's rows; COMPARE: its children; ROOTS: its roots */
    uint8_t *seen;                /* LIST: we hold this one too */
    struct merkle_node *children; /* COMPARE: ours, CHILDREN_MAX for each branch */
    struct serve_branch *branches;
    uint32_t digest_capacity;
    uint32_t digest_count;
    uint32_t branch_capacity;
    uint32_t branch_count;
    uint32_t at;          /* the current branch */
    uint32_t answered;    /* LIST: branches in the answer; RECORDS: records in it */
    uint32_t rows_lacked; /* LIST: rows in versions */
    uint32_t records_lacked;
    struct reader merges; /* RECORDS: what is still to merge */
    uint32_t merges_left;
    bool versions_more; /* LIST: some of the branch's rows did not fit */
    bool records_more;  /* LIST: likewise; RECORDS: of the whole answer */
    bool full;
};

/* ---- taking requests apart ----------------------------------------------------------------------------- */

static enum status make_room(struct exchange_serve *serve, uint64_t branches, uint64_t digests)
{
    serve->branch_capacity = (uint32_t)branches;
    serve->digest_capacity = (uint32_t)digests;
    if (branches > 0) {
        serve->branches = alloc_get_zeroed(serve->alloc, branches * sizeof *serve->branches);
        if (serve->branches == NULL)
            return STATUS_OVERLOADED;
    }
    if (digests > 0) {
        serve->digests = alloc_get_zeroed(serve->alloc, digests * sizeof *serve->digests);
        if (serve->digests == NULL)
            return STATUS_OVERLOADED;
    }
    return STATUS_OK;
}

static void read_roots(struct exchange_serve *serve, struct reader *reader, uint32_t count)
{
    uint16_t before = SLOTS_COUNT;
    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        before = read_root(reader, before, &serve->digests[i]);
        serve->branches[i].branch.slot = before;
    }
    serve->digest_count = count;
}

static void read_compare(struct exchange_serve *serve, struct reader *reader, uint32_t count)
{
    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        struct serve_branch *at = &serve->branches[i];
        read_branch(reader, &at->branch);
        at->step = reader_u8(reader);
        at->present = reader_u16(reader);
        if (at->step < 1 || at->step > STEP_MAX || at->branch.level + at->step > POSITION_BITS ||
            (uint32_t)at->present >> (1u << at->step) != 0) {
            reader->failed = true;
            return;
        }
        for (uint32_t c = 0; c < CHILDREN_MAX; c++)
            serve->digests[i * CHILDREN_MAX + c] = (at->present >> c & 1) != 0 ? reader_u64(reader) : 0;
    }
    serve->digest_count = count * CHILDREN_MAX;
}

static void read_list(struct exchange_serve *serve, struct reader *reader, uint32_t count)
{
    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        struct serve_branch *at = &serve->branches[i];
        read_branch(reader, &at->branch);
        at->list_first = serve->digest_count;
        at->list_count = (uint32_t)read_varint(reader, serve->digest_capacity - serve->digest_count);
        for (uint32_t d = 0; d < at->list_count; d++) {
            uint64_t digest = reader_u64(reader);
            if (d > 0 && digest <= serve->digests[serve->digest_count - 1])
                reader->failed = true;
            serve->digests[serve->digest_count++] = digest;
        }
    }
}

/* The records are read over once, to validate them before anything is merged.
 * */
static enum status read_records(struct exchange_serve *serve, struct reader *reader)
{
    struct exchange_record record;
    serve->merges_left = (uint32_t)read_varint(reader, UINT32_MAX);
    serve->merges = *reader;
    for (uint32_t i = 0; i < serve->merges_left && !reader->failed; i++)
        read_record(reader, &record);
    uint64_t wants = read_varint(reader, reader_left(reader) / 3); /* a slot and a short key each */
    if (reader->failed)
        return STATUS_MALFORMED;
    enum status status = make_room(serve, wants, 0);
    if (status != STATUS_OK)
        return status;
    for (uint32_t i = 0; i < wants; i++)
        read_key(reader, &serve->branches[i].branch.slot, &serve->branches[i].key);
    serve->branch_count = (uint32_t)wants;
    return STATUS_OK;
}

static enum status read_request(struct exchange_serve *serve, struct reader *reader)
{
    if (serve->head.type == EXCHANGE_RECORDS)
        return read_records(serve, reader);
    uint32_t max = serve->head.type == EXCHANGE_COMPARE ? EXCHANGE_COMPARE_MAX : EXCHANGE_BRANCHES_MAX;
    uint32_t count = (uint32_t)read_varint(reader, max);
    if (reader->failed || count == 0)
        return STATUS_MALFORMED;
    uint64_t digests = serve->head.type == EXCHANGE_LIST      ? reader_left(reader) / 8
                       : serve->head.type == EXCHANGE_COMPARE ? count * CHILDREN_MAX
                                                              : count;
    enum status status = make_room(serve, count, digests);
    if (status != STATUS_OK)
        return status;
    serve->branch_count = count;
    if (serve->head.type == EXCHANGE_ROOTS)
        read_roots(serve, reader, count);
    else if (serve->head.type == EXCHANGE_COMPARE)
        read_compare(serve, reader, count);
    else
        read_list(serve, reader, count);
    return STATUS_OK;
}

/* What the answer needs besides the message. */
static enum status prepare(struct exchange_serve *serve)
{
    if (serve->head.type == EXCHANGE_LIST && serve->digest_capacity > 0) {
        serve->seen = alloc_get_zeroed(serve->alloc, serve->digest_capacity);
        return serve->seen == NULL ? STATUS_OVERLOADED : STATUS_OK;
    }
    if (serve->head.type != EXCHANGE_COMPARE)
        return STATUS_OK;
    size_t size = (size_t)serve->branch_count * CHILDREN_MAX * sizeof *serve->children;
    serve->children = alloc_get_zeroed(serve->alloc, size);
    if (serve->children == NULL)
        return STATUS_OVERLOADED;
    for (uint32_t i = 0; i < serve->branch_count; i++) {
        struct serve_branch *at = &serve->branches[i];
        at->from_tree = children_from_tree(serve->merkle, &at->branch, at->step,
                                           serve->children + (size_t)i * CHILDREN_MAX);
    }
    return STATUS_OK;
}

static void skip_ready(struct exchange_serve *serve);

enum status exchange_serve_begin(struct alloc *alloc, const struct merkle *merkle, struct span message,
                                 struct exchange_serve **out)
{
    struct exchange_head head;
    if (exchange_read_head(message, &head) != STATUS_OK ||
        (head.type != EXCHANGE_ROOTS && head.type != EXCHANGE_COMPARE && head.type != EXCHANGE_LIST &&
         head.type != EXCHANGE_RECORDS))
        return STATUS_MALFORMED;
    struct exchange_serve *serve = alloc_get_zeroed(alloc, sizeof *serve);
    if (serve == NULL)
        return STATUS_OVERLOADED;
    serve->alloc = alloc;
    serve->merkle = merkle;
    serve->head = head;
    buf_init(&serve->message, alloc);
    buf_init(&serve->out, alloc);
    buf_init(&serve->versions, alloc);
    buf_init(&serve->records, alloc);
    buf_append_span(&serve->message, message);
    enum status status = STATUS_OVERLOADED;
    if (!serve->message.failed) {
        struct reader reader = reader_of(buf_span(&serve->message));
        (void)reader_bytes(&reader, EXCHANGE_HEAD_BYTES);
        status = read_request(serve, &reader);
        if (status == STATUS_OK)
            status = reader_finish(&reader);
        if (status == STATUS_OK)
            status = prepare(serve);
    }
    if (status != STATUS_OK) {
        exchange_serve_free(serve);
        return status;
    }
    skip_ready(serve);
    *out = serve;
    return STATUS_OK;
}

void exchange_serve_free(struct exchange_serve *serve)
{
    if (serve == NULL)
        return;
    buf_free(&serve->message);
    buf_free(&serve->out);
    buf_free(&serve->versions);
    buf_free(&serve->records);
    alloc_put(serve->alloc, serve->digests, serve->digest_capacity * sizeof *serve->digests);
    alloc_put(serve->alloc, serve->seen, serve->digest_capacity);
    alloc_put(serve->alloc, serve->children,
              (size_t)serve->branch_count * CHILDREN_MAX * sizeof *serve->children);
    alloc_put(serve->alloc, serve->branches, serve->branch_capacity * sizeof *serve->branches);
    alloc_put(serve->alloc, serve, sizeof *serve);
}

bool exchange_serve_begins(const struct exchange_serve *serve)
{
    return serve->head.type == EXCHANGE_ROOTS;
}

bool exchange_serve_slot(const struct exchange_serve *serve, uint32_t index, uint16_t *slot)
{
    if (index >= serve->branch_count)
        return false;
    *slot = serve->branches[index].branch.slot;
    return true;
}

bool exchange_serve_merge_next(struct exchange_serve *serve, struct exchange_record *record)
{
    if (serve->merges_left == 0)
        return false;
    serve->merges_left--;
    read_record(&serve->merges, record);
    assert(!serve->merges.failed); /* read once before */
    return true;
}

/* ---- answers ------------------------------------------------------------------------------------------- */

/* Whether two nodes differ; digest 0 of a child that is present stands for "unknown". */
static bool node_differs(const struct merkle_node *ours, bool present, uint64_t digest, uint64_t salt)
{
    if (!ours->known || (present && digest == 0))
        return true;
    if (!present || ours->count == 0)
        return present != (ours->count != 0);
    return node_digest(ours, salt) != digest;
}

static void answer_roots(struct exchange_serve *serve)
{
    for (uint32_t first = 0; first < serve->branch_count; first += 8) {
        uint8_t differs = 0;
        struct merkle_node roots[8];
        for (uint32_t i = first; i < first + 8 && i < serve->branch_count; i++) {
            struct merkle_node *root = &roots[i - first];
            *root = merkle_node(serve->merkle, serve->branches[i].branch.slot, 0, 0);
            bool equal = root->known && root_digest(root, serve->head.session) == serve->digests[i];
            differs = (uint8_t)(differs | (equal ? 0u : 1u) << (i - first));
        }
        buf_put_u8(&serve->out, differs);
        for (uint32_t i = 0; i < 8; i++) {
            if ((differs >> i & 1) != 0)
                put_varint(&serve->out, node_count(&roots[i]));
        }
    }
}

static void answer_compare(struct exchange_serve *serve)
{
    for (uint32_t i = 0; i < serve->branch_count; i++) {
        const struct serve_branch *at = &serve->branches[i];
        const struct merkle_node *children = serve->children + (size_t)i * CHILDREN_MAX;
        uint16_t differs = 0;
        for (uint32_t c = 0; c < 1u << at->step; c++) {
            bool present = (at->present >> c & 1) != 0;
            uint64_t digest = serve->digests[i * CHILDREN_MAX + c];
            if (node_differs(&children[c], present, digest, serve->head.session))
                differs = (uint16_t)(differs | 1u << c);
        }
        buf_put_u16(&serve->out, differs);
        for (uint32_t c = 0; c < 1u << at->step; c++) {
            if ((differs >> c & 1) != 0)
                put_varint(&serve->out, node_count(&children[c]));
        }
    }
}

static void list_row(struct exchange_serve *serve, const struct serve_branch *at, const struct fed_row *row)
{
    if (!branch_holds(&at->branch, row->position))
        return;
    uint64_t digest = row_digest(&row->hash, serve->head.session);
    uint32_t found = 0;
    if (at->list_count > 0)
        found = find_u64(serve->digests + at->list_first, at->list_count, digest);
    if (found < at->list_count) {
        serve->seen[at->list_first + found] = 1;
        return;
    }
    bool first_branch = serve->answered == 0;
    size_t room =
        EXCHANGE_MESSAGE_BYTES_MAX > serve->out.size ? EXCHANGE_MESSAGE_BYTES_MAX - serve->out.size : 0;
    if (serve->versions.size + row_bytes_max(row->key, (struct span){0}) <= room ||
        (first_branch && serve->rows_lacked == 0)) {
        put_row_version(&serve->versions, row->key, row->version);
        serve->rows_lacked++;
    } else {
        serve->versions_more = true;
    }
    if (serve->records.size + row_bytes_max(row->key, row->record) <= room ||
        (first_branch && serve->records_lacked == 0)) {
        put_row_record(&serve->records, row->key, row->record);
        serve->records_lacked++;
    } else {
        serve->records_more = true;
    }
}

/* A branch of a LIST is finished: its part of the answer. Only the first may be cut short; another that does
 * not fit is left for the next message. */
static void list_branch_done(struct exchange_serve *serve, const struct serve_branch *at)
{
    uint32_t lacked = 0;
    for (uint32_t i = 0; i < at->list_count; i++)
        lacked += serve->seen[at->list_first + i] == 0;
    /* The asker's rows that we hold say nothing of these keys, so it has nothing to weigh our records
     * against. */
    bool whole = lacked == 0;
    bool more = whole ? serve->records_more : serve->versions_more;
    struct buf *rows = whole ? &serve->records : &serve->versions;
    if (more && serve->answered > 0) {
        serve->full = true;
    } else {
        buf_put_u8(&serve->out, more ? 1 : 0);
        put_varint(&serve->out, lacked);
        for (uint32_t i = 0; i < at->list_count; i++) {
            if (serve->seen[at->list_first + i] == 0)
                put_varint(&serve->out, i);
        }
        put_varint(&serve->out, whole ? serve->records_lacked : serve->rows_lacked);
        buf_append_span(&serve->out, buf_span(rows));
        serve->out.failed = serve->out.failed || rows->failed;
        serve->answered++;
        serve->full = serve->out.size >= EXCHANGE_MESSAGE_BYTES_MAX;
    }
    /* A form that was not used may have failed without harm. */
    buf_clear(&serve->versions);
    buf_clear(&serve->records);
    serve->rows_lacked = serve->records_lacked = 0;
    serve->versions_more = serve->records_more = false;
}

static void want_row(struct exchange_serve *serve, const struct serve_branch *at, const struct fed_row *row)
{
    if (!span_equal(at->key, row->key))
        return;
    size_t size = row_bytes_max(row->key, row->record);
    if (serve->answered > 0 && serve->out.size + size > EXCHANGE_MESSAGE_BYTES_MAX) {
        serve->records_more = true;
        serve->full = true;
        return;
    }
    put_record(&serve->out, at->branch.slot, row->key, row->record);
    serve->answered++;
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

static bool wants_rows(const struct exchange_serve *serve, uint32_t index)
{
    if (serve->head.type == EXCHANGE_COMPARE)
        return !serve->branches[index].from_tree;
    return serve->head.type == EXCHANGE_LIST || serve->head.type == EXCHANGE_RECORDS;
}

static void skip_ready(struct exchange_serve *serve)
{
    if (serve->full)
        serve->at = serve->branch_count;
    while (serve->at < serve->branch_count && !wants_rows(serve, serve->at))
        serve->at++;
}

bool exchange_serve_need(const struct exchange_serve *serve, uint32_t ahead, struct exchange_need *need)
{
    for (uint32_t i = serve->at; i < serve->branch_count; i++) {
        const struct serve_branch *at = &serve->branches[i];
        if (!wants_rows(serve, i) || ahead-- > 0)
            continue;
        branch_need(&at->branch, need);
        if (serve->head.type == EXCHANGE_RECORDS) {
            need->key = at->key;
            need->point = true;
            need->tag_first = need->tag_last = merkle_tag(at->key);
        }
        return true;
    }
    return false;
}

void exchange_serve_row(struct exchange_serve *serve, struct span key, struct span record)
{
    assert(serve->at < serve->branch_count);
    const struct serve_branch *at = &serve->branches[serve->at];
    struct fed_row row;
    if (serve->full || !fed_row_of(key, record, &row))
        return;
    if (serve->head.type == EXCHANGE_COMPARE)
        children_add(&at->branch, at->step, serve->children + (size_t)serve->at * CHILDREN_MAX, &row);
    else if (serve->head.type == EXCHANGE_LIST)
        list_row(serve, at, &row);
    else
        want_row(serve, at, &row);
}

void exchange_serve_need_done(struct exchange_serve *serve)
{
    assert(serve->at < serve->branch_count);
    if (serve->head.type == EXCHANGE_LIST)
        list_branch_done(serve, &serve->branches[serve->at]);
    serve->at++;
    skip_ready(serve);
}

enum status exchange_serve_finish(struct exchange_serve *serve, struct buf *out)
{
    assert(serve->at == serve->branch_count);
    size_t size_before = out->size;
    put_head(out, (enum exchange_type)(serve->head.type + 1), serve->head.session, serve->head.step);
    if (serve->head.type == EXCHANGE_ROOTS)
        answer_roots(serve);
    else if (serve->head.type == EXCHANGE_COMPARE)
        answer_compare(serve);
    if (serve->head.type == EXCHANGE_RECORDS)
        buf_put_u8(out, serve->records_more ? 1 : 0);
    if (serve->head.type == EXCHANGE_LIST || serve->head.type == EXCHANGE_RECORDS)
        put_varint(out, serve->answered);
    buf_append_span(out, buf_span(&serve->out));
    if (!out->failed && !serve->out.failed)
        return STATUS_OK;
    out->size = size_before;
    out->failed = false;
    return STATUS_OVERLOADED;
}

void exchange_serve_refuse(struct span message, enum status status, struct buf *out)
{
    assert(status != STATUS_OK);
    struct exchange_head head;
    if (exchange_read_head(message, &head) != STATUS_OK)
        return;
    put_head(out, EXCHANGE_REFUSED, head.session, head.step);
    buf_put_u8(out, (uint8_t)status);
}
