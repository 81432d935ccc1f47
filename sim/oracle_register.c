/* What a read may return, judged by real time alone (DESIGN sections 3 and 5, invariant 1).
 *
 * For each key, the acknowledged writes and the answered reads each stand for one version of the value: a write for
 * that of its last round, a read for the one it returned. What the design promises are lower bounds between them.
 * With N replicas, and "before" meaning answered before the other was asked:
 *
 *   held(a)   how many replicas durably hold a's version or a newer one once a is answered: W for a write;
 *             N - R + 1 for a read with 2R > N, because it writes back before it answers; else 1, the replica that it
 *             was read from.
 *   read      a before read b, R(b) + held(a) > N          =>  version(b) >= version(a)
 *   write     a before write b, W(b) + held(a) > N         =>  version(b) >  version(a)
 *             The first W answers include one that holds a's version, and the write is stamped anew above it. A disk
 *             that was lost takes one holder away (for reads it takes a countable answer away too, so nothing
 *             changes for them).
 *   value     read b returned the value of acknowledged a  =>  version(a) >= version(b)
 *             A restamped write has two versions while it runs; the last is the higher one. A write whose outcome is
 *             unknown may still get a version at any time, so nothing follows from having read it, and a read of it
 *             bounds only by its own version.
 *
 * What was sloppy, written or read, may have counted nodes that do not replicate the key: no bound follows from it,
 * only that its value was written.
 *
 * Versions of different values differ. A cycle of these bounds that holds a strict one, or two different values, is
 * a contradiction: some read went back in real time, or a later write lost against an earlier one.
 *
 * A write that was "not applied" is never read: nothing of it was sent, or every replica refused it.
 *
 * "Absent" is a version too, but deletes are not told apart, so a read that finds nothing is judged by itself: there
 * must be some delete, or some value that may have expired by then, that is not older than what it had to see. */
#include <assert.h>
#include <inttypes.h>

#include "sim/world.h"

struct check {
    struct world *world;
    uint32_t key;
    bool ttl;      /* the key's values may expire */
    uint32_t *ops; /* all operations on the key */
    uint32_t op_count;
    uint32_t *nodes; /* of these, those with a version: indices into the history */
    uint32_t count;
    uint32_t words;  /* of a row of the relation */
    uint64_t *reach; /* count rows: bit j of row i: version(j) >= version(i) is known */
};

static const struct history_op *op_at(const struct check *check, uint32_t node)
{
    return &check->world->history.ops[check->nodes[node]];
}

static void relate(struct check *check, uint32_t i, uint32_t j)
{
    check->reach[(size_t)i * check->words + j / 64] |= UINT64_C(1) << j % 64;
}

static bool related(const struct check *check, uint32_t i, uint32_t j)
{
    return (check->reach[(size_t)i * check->words + j / 64] >> j % 64 & 1) != 0;
}

static bool has_version(const struct history_op *op)
{
    bool versioned = op->kind == HISTORY_GET || op->kind == HISTORY_SET || op->kind == HISTORY_DEL;
    return versioned && op->outcome == HISTORY_DONE;
}

static bool is_write(const struct history_op *op)
{
    return op->kind != HISTORY_GET;
}

static uint32_t held_by(const struct check *check, const struct history_op *op)
{
    uint32_t n = check->world->ring->replicas;
    if (op->sloppy)
        return 0;
    if (is_write(op))
        return op->w;
    return 2u * op->r > n ? n - op->r + 1u : 1u;
}

/* Whether version(b) is bounded by version(a). */
static bool bounds(const struct check *check, const struct history_op *a, const struct history_op *b)
{
    if (a->answered_us >= b->asked_us || a->sloppy || b->sloppy)
        return false;
    uint32_t n = check->world->ring->replicas;
    uint32_t held = held_by(check, a);
    if (!is_write(b))
        return b->r + held > n;
    return b->w + held > n + b->wiped_at_answer;
}

static bool differ(const struct check *check, const struct history_op *a, const struct history_op *b)
{
    if (a->value == b->value)
        return false;
    return !check->ttl || (a->value != VALUE_ABSENT && b->value != VALUE_ABSENT);
}

static void relate_all(struct check *check)
{
    for (uint32_t i = 0; i < check->count; i++) {
        const struct history_op *a = op_at(check, i);
        for (uint32_t j = 0; j < check->count; j++) {
            const struct history_op *b = op_at(check, j);
            bool read_of = i != j && a->kind == HISTORY_GET && b->kind == HISTORY_SET && a->value == b->value;
            if (read_of || (i != j && bounds(check, a, b)))
                relate(check, i, j);
        }
    }
    /* The closure (Warshall). */
    for (uint32_t k = 0; k < check->count; k++) {
        for (uint32_t i = 0; i < check->count; i++) {
            if (!related(check, i, k))
                continue;
            for (uint32_t word = 0; word < check->words; word++)
                check->reach[(size_t)i * check->words + word] |=
                    check->reach[(size_t)k * check->words + word];
        }
    }
}

static void find_cycle(struct check *check)
{
    for (uint32_t i = 0; i < check->count; i++) {
        const struct history_op *a = op_at(check, i);
        for (uint32_t j = 0; j < check->count; j++) {
            const struct history_op *b = op_at(check, j);
            if (i == j || !related(check, i, j) || !related(check, j, i))
                continue;
            bool strict = is_write(b) && bounds(check, a, b);
            if (!strict && !differ(check, a, b))
                continue;
            world_fail(check->world, check->key,
                       "register: key %u went back in real time: #%u %s value %u and #%u %s value %u each "
                       "come after "
                       "the other",
                       check->key, check->nodes[i], history_kind_name(a->kind), a->value, check->nodes[j],
                       history_kind_name(b->kind), b->value);
            return;
        }
    }
}

/* ---- values and their expiry ---------------------------------------------------------------------------- */

/* The write of a value, or NULL. */
static const struct history_op *write_of(const struct check *check, uint32_t value)
{
    for (uint32_t i = 0; i < check->op_count; i++) {
        const struct history_op *op = &check->world->history.ops[check->ops[i]];
        if (op->kind == HISTORY_SET && op->value == value)
            return op;
    }
    return NULL;
}

/* EXPIRE and PERSIST name the value that they found: one that was answered before the write began is not for it. */
static bool may_apply(const struct history_op *change, const struct history_op *write)
{
    bool changes = change->kind == HISTORY_EXPIRE || change->kind == HISTORY_PERSIST;
    return changes && change->outcome != HISTORY_NOT_APPLIED && change->answered_us >= write->asked_us;
}

/* Expiries are wall-clock times made by one clock and judged by another. */
static uint64_t clock_slack_us(const struct check *check)
{
    return 2 * check->world->clock_error_max_us + 2000;
}

static bool may_be_expired(const struct check *check, const struct history_op *write,
                           const struct history_op *read)
{
    uint64_t latest_us = read->answered_us + clock_slack_us(check);
    if (write->ttl_ms != 0 && write->asked_us + write->ttl_ms * 1000 <= latest_us)
        return true;
    for (uint32_t i = 0; i < check->op_count; i++) {
        const struct history_op *op = &check->world->history.ops[check->ops[i]];
        if (op->kind == HISTORY_EXPIRE && may_apply(op, write) &&
            op->asked_us + op->ttl_ms * 1000 <= latest_us)
            return true;
    }
    return false;
}

static bool must_be_expired(const struct check *check, const struct history_op *write,
                            const struct history_op *read)
{
    if (write->ttl_ms == 0 || write->answered_us == HISTORY_NEVER)
        return false;
    for (uint32_t i = 0; i < check->op_count; i++) {
        const struct history_op *op = &check->world->history.ops[check->ops[i]];
        if (op->asked_us < read->answered_us && may_apply(op, write))
            return false;
    }
    return read->asked_us > write->answered_us + write->ttl_ms * 1000 + clock_slack_us(check);
}

static void check_value(const struct check *check, uint32_t index, const struct history_op *read)
{
    struct world *world = check->world;
    const struct history_op *write = write_of(check, read->value);
    if (write == NULL || write->asked_us > read->answered_us)
        world_fail(world, check->key,
                   "register: read #%u of key %u returned value %u, which was not written to it", index,
                   check->key, read->value);
    else if (write->outcome == HISTORY_NOT_APPLIED)
        world_fail(world, check->key,
                   "register: read #%u of key %u returned value %u, which was \"not applied\"", index,
                   check->key, read->value);
    else if (must_be_expired(check, write, read))
        world_fail(world, check->key, "register: read #%u of key %u returned value %u, which has expired",
                   index, check->key, read->value);
}

/* ---- absence -------------------------------------------------------------------------------------------- */

/* Whether what op (an index into ops) wrote is older than something that read (a node) had to see. */
static bool outdated(const struct check *check, uint32_t index, uint32_t read)
{
    const struct history_op *write = &check->world->history.ops[index];
    if (write->outcome != HISTORY_DONE)
        return false;
    uint32_t node = 0;
    while (node < check->count && check->nodes[node] != index)
        node++;
    assert(node < check->count);
    for (uint32_t i = 0; i < check->count; i++) {
        const struct history_op *seen = op_at(check, i);
        bool newer = seen->value != VALUE_ABSENT && seen->value != write->value && related(check, node, i);
        if (newer && related(check, i, read))
            return true;
    }
    return false;
}

static void check_absent(const struct check *check, uint32_t node)
{
    const struct history_op *read = op_at(check, node);
    uint32_t bound = UINT32_MAX;
    for (uint32_t i = 0; i < check->count; i++) {
        if (op_at(check, i)->value != VALUE_ABSENT && related(check, i, node))
            bound = check->nodes[i];
    }
    if (bound == UINT32_MAX)
        return;
    for (uint32_t i = 0; i < check->op_count; i++) {
        const struct history_op *op = &check->world->history.ops[check->ops[i]];
        bool removes =
            op->kind == HISTORY_DEL || (op->kind == HISTORY_SET && may_be_expired(check, op, read));
        bool possible = removes && op->outcome != HISTORY_NOT_APPLIED && op->asked_us < read->answered_us;
        if (possible && !outdated(check, check->ops[i], node))
            return;
    }
    world_fail(check->world, check->key,
               "register: read #%u of key %u found nothing, but had to see #%u or later", check->nodes[node],
               check->key, bound);
}

/* ---- one key -------------------------------------------------------------------------------------------- */

static void gather(struct check *check)
{
    const struct history *history = &check->world->history;
    check->ttl = check->world->swarm.ttl;
    for (uint32_t i = 0; i < history->count; i++) {
        if (history->ops[i].key != check->key)
            continue;
        check->ops[check->op_count++] = i;
        if (has_version(&history->ops[i]))
            check->nodes[check->count++] = i;
    }
    bool expires = false;
    for (uint32_t i = 0; i < check->op_count; i++)
        expires |= history->ops[check->ops[i]].ttl_ms != 0;
    check->ttl = expires;
    check->words = (check->count + 63) / 64;
}

static void check_key(struct check *check)
{
    size_t reach_bytes = ((size_t)check->count * check->words + 1) * sizeof *check->reach;
    check->reach = alloc_get_zeroed(&check->world->alloc, reach_bytes);
    assert(check->reach != NULL);
    relate_all(check);
    find_cycle(check);
    for (uint32_t node = 0; node < check->count; node++) {
        const struct history_op *read = op_at(check, node);
        if (read->kind == HISTORY_GET && read->value != VALUE_ABSENT)
            check_value(check, check->nodes[node], read);
        else if (read->kind == HISTORY_GET)
            check_absent(check, node);
    }
    alloc_put(&check->world->alloc, check->reach, reach_bytes);
}

void oracle_register_check(struct world *world)
{
    size_t bytes = (world->history.count + 1) * sizeof(uint32_t);
    uint32_t *ops = alloc_get(&world->alloc, bytes);
    uint32_t *nodes = alloc_get(&world->alloc, bytes);
    assert(ops != NULL && nodes != NULL);
    for (uint32_t key = 0; key < HISTORY_KEYS_MAX && !world->failed; key++) {
        struct check check = {.world = world, .key = key, .ops = ops, .nodes = nodes};
        gather(&check);
        check_key(&check);
    }
    alloc_put(&world->alloc, ops, bytes);
    alloc_put(&world->alloc, nodes, bytes);
}
