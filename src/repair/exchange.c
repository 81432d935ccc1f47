/* The side of an exchange that starts: chooses branches, reads rows, makes requests. */
#include <assert.h>

#include "repair/exchange_start.h"

/* ---- life ---------------------------------------------------------------------------------------------- */

static void init_bufs(struct exchange *exchange)
{
    struct buf *bufs[] = {&exchange->digests, &exchange->lacked, &exchange->peer_rows, &exchange->pushes,
                          &exchange->wants,   &exchange->out,    &exchange->answer,    &exchange->merges};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        buf_init(bufs[i], exchange->alloc);
}

static void send_roots(struct exchange *exchange);

struct exchange *exchange_start(const struct exchange_options *options)
{
    assert(options->slot_count > 0 && options->slot_count <= EXCHANGE_SLOTS_MAX);
    struct exchange *exchange = alloc_get_zeroed(options->alloc, sizeof *exchange);
    if (exchange == NULL)
        return NULL;
    exchange->alloc = options->alloc;
    exchange->merkle = options->merkle;
    exchange->session = options->session;
    exchange->started_us = options->started_us;
    init_bufs(exchange);
    exchange->slot_count = options->slot_count;
    exchange->slots = alloc_get_zeroed(exchange->alloc, exchange->slot_count * sizeof *exchange->slots);
    if (exchange->slots == NULL) {
        exchange_free(exchange);
        return NULL;
    }
    for (uint32_t i = 0; i < options->slot_count; i++) {
        assert(options->slots[i] < SLOTS_COUNT);
        uint32_t at = i;
        for (; at > 0 && exchange->slots[at - 1].slot > options->slots[i]; at--)
            exchange->slots[at] = exchange->slots[at - 1];
        exchange->slots[at] = (struct slot_state){.slot = options->slots[i], .open = 1};
    }
    send_roots(exchange);
    return exchange;
}

void exchange_free(struct exchange *exchange)
{
    if (exchange == NULL)
        return;
    struct buf *bufs[] = {&exchange->digests, &exchange->lacked, &exchange->peer_rows, &exchange->pushes,
                          &exchange->wants,   &exchange->out,    &exchange->answer,    &exchange->merges};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        buf_free(bufs[i]);
    struct alloc *alloc = exchange->alloc;
    alloc_put(alloc, exchange->slots, exchange->slot_count * sizeof *exchange->slots);
    alloc_put(alloc, exchange->todo.items, exchange->todo.capacity * sizeof *exchange->todo.items);
    alloc_put(alloc, exchange->batch.items, exchange->batch.capacity * sizeof *exchange->batch.items);
    alloc_put(alloc, exchange->children, exchange->child_capacity * sizeof *exchange->children);
    alloc_put(alloc, exchange, sizeof *exchange);
}

void exchange_fail(struct exchange *exchange, enum status status)
{
    assert(status != STATUS_OK);
    exchange->state = EXCHANGE_FAILED;
    exchange->status = status;
}

enum exchange_state exchange_state(const struct exchange *exchange)
{
    return exchange->state;
}

enum status exchange_status(const struct exchange *exchange)
{
    return exchange->status;
}

const struct exchange_counters *exchange_counters(const struct exchange *exchange)
{
    return &exchange->counters;
}

uint64_t exchange_started_us(const struct exchange *exchange)
{
    return exchange->started_us;
}

uint32_t exchange_slot_count(const struct exchange *exchange)
{
    return exchange->slot_count;
}

struct exchange_slot_result exchange_slot_result(const struct exchange *exchange, uint32_t index)
{
    assert(index < exchange->slot_count);
    const struct slot_state *slot = &exchange->slots[index];
    return (struct exchange_slot_result){
        .slot = slot->slot, .verified = slot->open == 0 && !slot->gave_up, .differed = slot->differed};
}

struct slot_state *exchange_slot(struct exchange *exchange, uint16_t slot)
{
    uint32_t low = 0;
    uint32_t high = exchange->slot_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (exchange->slots[middle].slot <= slot)
            low = middle;
        else
            high = middle;
    }
    assert(exchange->slots[low].slot == slot);
    return &exchange->slots[low];
}

bool work_push(struct exchange *exchange, struct work_list *list, const struct work *work)
{
    if (list->count == list->capacity) {
        uint32_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        struct work *items = alloc_resize(exchange->alloc, list->items, list->capacity * sizeof *items,
                                          capacity * sizeof *items);
        if (items == NULL) {
            exchange_fail(exchange, STATUS_OVERLOADED);
            return false;
        }
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = *work;
    return true;
}

/* ---- choosing what to do ------------------------------------------------------------------------------- */

enum phase exchange_phase(const struct branch *branch, uint32_t count, uint32_t count_peer)
{
    if (count_peer == 0 && count <= FILL_ROWS_MAX)
        return PHASE_PUSH;
    if (count == 0 && count_peer <= FILL_ROWS_MAX)
        return PHASE_LIST;
    if (count <= LIST_ROWS_MAX && count_peer <= LIST_PEER_ROWS_MAX)
        return PHASE_LIST;
    return branch->level == POSITION_BITS ? PHASE_LIST : PHASE_COMPARE;
}

/* Into how many children to divide a branch of n rows: about the root of n, where the digests of the children
 * and those of the rows of one child together are fewest; never past the tree's depth in one step from above
 * it, so that rows are read of leaves only. */
static uint8_t choose_step(const struct exchange *exchange, const struct work *work)
{
    uint32_t count = work->count > work->count_peer ? work->count : work->count_peer;
    uint8_t bits = 0;
    while (bits < 32 && count >> bits != 0)
        bits++;
    uint8_t step = (uint8_t)((bits + 1) / 2);
    step = step > STEP_MAX ? STEP_MAX : step < 1 ? 1 : step;
    uint8_t depth = merkle_info(exchange->merkle, work->branch.slot).depth;
    uint8_t left = work->branch.level < depth ? (uint8_t)(depth - work->branch.level)
                                              : (uint8_t)(POSITION_BITS - work->branch.level);
    return step < left ? step : left;
}

static bool prepare_compare(struct exchange *exchange)
{
    uint32_t wanted = exchange->batch.count * CHILDREN_MAX;
    if (wanted > exchange->child_capacity) {
        struct merkle_node *children =
            alloc_resize(exchange->alloc, exchange->children, exchange->child_capacity * sizeof *children,
                         wanted * sizeof *children);
        if (children == NULL) {
            exchange_fail(exchange, STATUS_OVERLOADED);
            return false;
        }
        exchange->children = children;
        exchange->child_capacity = wanted;
    }
    for (uint32_t i = 0; i < exchange->batch.count; i++) {
        struct work *work = &exchange->batch.items[i];
        work->step = choose_step(exchange, work);
        work->ready = children_from_tree(exchange->merkle, &work->branch, work->step,
                                         exchange->children + (size_t)i * CHILDREN_MAX);
    }
    return true;
}

static uint32_t batch_max(enum phase phase)
{
    return phase == PHASE_COMPARE ? EXCHANGE_COMPARE_MAX : EXCHANGE_BRANCHES_MAX;
}

/* Takes branches that want the same thing off the stack. */
static void next_batch(struct exchange *exchange)
{
    struct work_list *todo = &exchange->todo;
    exchange->batch.count = 0;
    if (todo->count == 0) {
        exchange->state = EXCHANGE_DONE;
        return;
    }
    enum phase phase = todo->items[todo->count - 1].phase;
    while (todo->count > 0 && todo->items[todo->count - 1].phase == phase &&
           exchange->batch.count < batch_max(phase)) {
        struct work work = todo->items[--todo->count];
        work.again = work.moved = work.wants = work.ready = false;
        work.list_first = work.list_count = work.rows_first = work.rows_count = 0;
        if (!work_push(exchange, &exchange->batch, &work))
            return;
    }
    buf_clear(&exchange->digests);
    buf_clear(&exchange->lacked);
    buf_clear(&exchange->peer_rows);
    exchange->counters.branches += exchange->batch.count;
    if (phase == PHASE_COMPARE && !prepare_compare(exchange))
        return;
    exchange_read(exchange, phase == PHASE_PUSH ? READING_RECORDS : READING_REQUEST);
}

void exchange_batch_done(struct exchange *exchange)
{
    for (uint32_t i = 0; i < exchange->batch.count; i++) {
        struct work work = exchange->batch.items[i];
        struct slot_state *slot = exchange_slot(exchange, work.branch.slot);
        bool divided = work.phase == PHASE_COMPARE;
        /* One that others left no room for waits its turn; in each message at least one moves. */
        work.tries = (uint8_t)(work.tries + (work.moved ? 1 : 0));
        if (work.again && work.tries <= TRIES_MAX) {
            if (work.moved) {
                work.count = work.count_peer = COUNT_UNKNOWN;
                work.phase = exchange_phase(&work.branch, work.count, work.count_peer);
            }
            if (!work_push(exchange, &exchange->todo, &work))
                return;
            continue;
        }
        slot->gave_up = slot->gave_up || work.again;
        slot->open -= divided ? 0 : 1; /* a divided one left its place to its children */
    }
    next_batch(exchange);
}

/* ---- reading rows -------------------------------------------------------------------------------------- */

void exchange_read(struct exchange *exchange, enum reading reading)
{
    exchange->state = EXCHANGE_READING;
    exchange->reading = reading;
    exchange->at = 0;
    if (reading == READING_RECORDS) {
        buf_clear(&exchange->pushes);
        buf_clear(&exchange->wants);
        exchange->push_count = exchange->want_count = 0;
    }
}

bool exchange_need(const struct exchange *exchange, uint32_t ahead, struct exchange_need *need)
{
    if (exchange->state != EXCHANGE_READING)
        return false;
    for (uint32_t i = exchange->at; i < exchange->batch.count; i++) {
        if (exchange->batch.items[i].ready || ahead-- > 0)
            continue;
        branch_need(&exchange->batch.items[i].branch, need);
        return true;
    }
    return false;
}

void exchange_row(struct exchange *exchange, struct span key, struct span record)
{
    assert(exchange->state == EXCHANGE_READING);
    struct work *work = &exchange->batch.items[exchange->at];
    struct fed_row row;
    exchange->counters.rows_read++;
    if (!fed_row_of(key, record, &row) || !branch_holds(&work->branch, row.position))
        return;
    if (exchange->reading == READING_RECORDS) {
        exchange_push_row(exchange, work, &row);
    } else if (work->phase == PHASE_COMPARE) {
        children_add(&work->branch, work->step, exchange->children + (size_t)exchange->at * CHILDREN_MAX,
                     &row);
    } else {
        uint64_t digest = row_digest(&row.hash, exchange->session);
        buf_append(&exchange->digests, &digest, sizeof digest);
        work->list_count++;
    }
}

void exchange_need_done(struct exchange *exchange)
{
    assert(exchange->state == EXCHANGE_READING);
    struct work *work = &exchange->batch.items[exchange->at];
    if (exchange->digests.failed || exchange->pushes.failed) {
        exchange_fail(exchange, STATUS_OVERLOADED);
        return;
    }
    if (exchange->reading == READING_REQUEST && work->phase == PHASE_LIST && work->list_count > 0)
        sort_u64(exchange_digests(exchange) + work->list_first, work->list_count);
    exchange->at++;
    exchange_go_on(exchange);
}

/* ---- requests ------------------------------------------------------------------------------------------ */

void exchange_start_message(struct exchange *exchange, enum exchange_type type)
{
    buf_clear(&exchange->out);
    exchange->step++;
    exchange->awaited = type;
    put_head(&exchange->out, type, exchange->session, exchange->step);
}

void exchange_end_message(struct exchange *exchange)
{
    if (exchange->out.failed)
        exchange_fail(exchange, STATUS_OVERLOADED);
    else
        exchange->state = EXCHANGE_SENDING;
}

static void send_roots(struct exchange *exchange)
{
    exchange_start_message(exchange, EXCHANGE_ROOTS);
    put_varint(&exchange->out, exchange->slot_count);
    uint16_t before = SLOTS_COUNT;
    for (uint32_t i = 0; i < exchange->slot_count; i++) {
        struct merkle_node root = merkle_node(exchange->merkle, exchange->slots[i].slot, 0, 0);
        put_root(&exchange->out, before, exchange->slots[i].slot,
                 root.known ? root_digest(&root, exchange->session) : 0);
        before = exchange->slots[i].slot;
    }
    exchange_end_message(exchange);
}

static void send_compare(struct exchange *exchange)
{
    exchange_start_message(exchange, EXCHANGE_COMPARE);
    put_varint(&exchange->out, exchange->batch.count);
    for (uint32_t i = 0; i < exchange->batch.count; i++) {
        const struct work *work = &exchange->batch.items[i];
        const struct merkle_node *children = exchange->children + (size_t)i * CHILDREN_MAX;
        uint16_t present = 0;
        for (uint32_t c = 0; c < 1u << work->step; c++) {
            if (!children[c].known || children[c].count > 0)
                present = (uint16_t)(present | 1u << c);
        }
        put_branch(&exchange->out, &work->branch);
        buf_put_u8(&exchange->out, work->step);
        buf_put_u16(&exchange->out, present);
        for (uint32_t c = 0; c < 1u << work->step; c++) {
            if ((present >> c & 1) != 0)
                buf_put_u64(&exchange->out,
                            children[c].known ? node_digest(&children[c], exchange->session) : 0);
        }
    }
    exchange_end_message(exchange);
}

static void send_list(struct exchange *exchange)
{
    size_t digest_count = exchange->digests.size / 8;
    if (!buf_reserve(&exchange->lacked, digest_count + 1)) {
        exchange_fail(exchange, STATUS_OVERLOADED);
        return;
    }
    memset(exchange->lacked.data, 0, digest_count);
    exchange_start_message(exchange, EXCHANGE_LIST);
    put_varint(&exchange->out, exchange->batch.count);
    for (uint32_t i = 0; i < exchange->batch.count; i++) {
        struct work *work = &exchange->batch.items[i];
        uint64_t *digests = work->list_count == 0 ? NULL : exchange_digests(exchange) + work->list_first;
        /* Two rows with one digest are told apart by another session's salt. */
        uint32_t kept = 0;
        for (uint32_t d = 0; d < work->list_count; d++) {
            if (kept == 0 || digests[d] != digests[kept - 1])
                digests[kept++] = digests[d];
        }
        work->list_count = kept;
        put_branch(&exchange->out, &work->branch);
        put_varint(&exchange->out, kept);
        for (uint32_t d = 0; d < kept; d++)
            buf_put_u64(&exchange->out, digests[d]);
    }
    exchange_end_message(exchange);
}

void exchange_go_on(struct exchange *exchange)
{
    while (exchange->state == EXCHANGE_READING) {
        struct work_list *batch = &exchange->batch;
        while (exchange->at < batch->count && batch->items[exchange->at].ready)
            exchange->at++;
        bool request = exchange->reading == READING_REQUEST;
        if (exchange->at < batch->count) {
            if (request)
                batch->items[exchange->at].list_first = (uint32_t)(exchange->digests.size / 8);
            return;
        }
        if (request && batch->items[0].phase == PHASE_COMPARE)
            send_compare(exchange);
        else if (request)
            send_list(exchange);
        else if (!exchange_send_records(exchange))
            exchange_batch_done(exchange);
    }
}

struct span exchange_message(const struct exchange *exchange)
{
    assert(exchange->state == EXCHANGE_SENDING);
    return buf_span(&exchange->out);
}
