/* Stamps and merges.
 *
 * Invariant 4: no stamp is made twice for one key. Every record that any node ever put on the wire or into its log is
 * looked at, over all restarts: a stamp seen before for the key, in either register, must stand for the same content.
 * Stricter than that: two runs from one disk make no time twice, although their stamps differ by the run anyway.
 *
 * Invariant 3: the merge is commutative, associative and idempotent, byte for byte, on records that this run made. */
#include <assert.h>

#include "base/hash.h"
#include "sim/world.h"

void oracles_init(struct oracles *oracles, struct alloc *alloc)
{
    *oracles = (struct oracles){.alloc = alloc};
    for (uint32_t key = 0; key < HISTORY_KEYS_MAX; key++) {
        for (uint32_t i = 0; i < ORACLE_SAMPLES; i++)
            buf_init(&oracles->samples[key][i], alloc);
    }
}

void oracles_free(struct oracles *oracles)
{
    for (uint32_t key = 0; key < HISTORY_KEYS_MAX; key++) {
        for (uint32_t i = 0; i < ORACLE_SAMPLES; i++)
            buf_free(&oracles->samples[key][i]);
    }
    for (uint32_t i = 0; i < ORACLE_NODES_MAX; i++)
        alloc_put(oracles->alloc, oracles->rows[i], oracles->row_capacity[i] * sizeof(struct oracle_row));
    alloc_put(oracles->alloc, oracles->stamps, oracles->stamp_capacity * sizeof *oracles->stamps);
    alloc_put(oracles->alloc, oracles->runs, oracles->run_capacity * sizeof *oracles->runs);
    alloc_put(oracles->alloc, oracles->exchanges, oracles->exchange_capacity * sizeof *oracles->exchanges);
    alloc_put(oracles->alloc, oracles->values, oracles->value_capacity * sizeof *oracles->values);
}

/* ---- stamps --------------------------------------------------------------------------------------------- */

static struct oracle_stamp *stamp_place(struct oracles *oracles, uint64_t key)
{
    uint32_t at = (uint32_t)key & (oracles->stamp_capacity - 1);
    while (oracles->stamps[at].key != 0 && oracles->stamps[at].key != key)
        at = (at + 1) & (oracles->stamp_capacity - 1);
    return &oracles->stamps[at];
}

static void stamps_grow(struct oracles *oracles)
{
    struct oracle_stamp *old = oracles->stamps;
    uint32_t capacity_old = oracles->stamp_capacity;
    oracles->stamp_capacity = capacity_old == 0 ? 1024 : 2 * capacity_old;
    oracles->stamps = alloc_get_zeroed(oracles->alloc, oracles->stamp_capacity * sizeof *old);
    assert(oracles->stamps != NULL);
    for (uint32_t i = 0; i < capacity_old; i++) {
        if (old[i].key != 0)
            *stamp_place(oracles, old[i].key) = old[i];
    }
    alloc_put(oracles->alloc, old, capacity_old * sizeof *old);
}

void oracle_run(struct world *world, uint64_t id, uint64_t origin)
{
    struct oracles *oracles = &world->oracles;
    if (oracles->run_count == oracles->run_capacity) {
        uint32_t capacity = oracles->run_capacity == 0 ? 16 : 2 * oracles->run_capacity;
        oracles->runs =
            alloc_resize(oracles->alloc, oracles->runs, oracles->run_capacity * sizeof *oracles->runs,
                         capacity * sizeof *oracles->runs);
        assert(oracles->runs != NULL);
        oracles->run_capacity = capacity;
    }
    oracles->runs[oracles->run_count++] = (struct oracle_run){.id = id, .origin = origin};
}

/* The newest runs make most stamps. */
static uint64_t origin_of(const struct oracles *oracles, uint64_t actor)
{
    for (uint32_t i = oracles->run_count; i > 0; i--) {
        if (oracles->runs[i - 1].id == actor)
            return oracles->runs[i - 1].origin;
    }
    return actor;
}

static uint64_t stamp_id(const struct oracles *oracles, uint32_t key, struct stamp stamp)
{
    return hash_mix_u64(stamp.time ^ hash_mix_u64(origin_of(oracles, stamp.actor) + key)) | 1;
}

struct stamp oracle_override_applies_to(struct world *world, uint32_t key, struct stamp override)
{
    struct oracles *oracles = &world->oracles;
    if (stamp_none(override) || oracles->stamp_capacity == 0)
        return (struct stamp){0};
    return stamp_place(oracles, stamp_id(oracles, key, override))->applies_to;
}

static void stamp_seen(struct world *world, uint32_t key, struct stamp stamp, uint64_t content,
                       struct stamp applies_to)
{
    struct oracles *oracles = &world->oracles;
    if (2 * (oracles->stamp_count + 1) > oracles->stamp_capacity)
        stamps_grow(oracles);
    uint64_t id = stamp_id(oracles, key, stamp);
    struct oracle_stamp *place = stamp_place(oracles, id);
    if (place->key == 0) {
        *place = (struct oracle_stamp){.key = id, .content = content, .applies_to = applies_to};
        oracles->stamp_count++;
    } else if (place->content != content) {
        char text[STAMP_TEXT_BYTES_MAX];
        (void)stamp_format(stamp, text);
        world_fail(world, key, "stamps: %s was made twice for key %u", text, key);
    }
}

static void value_seen(struct world *world, const struct record *record)
{
    struct oracles *oracles = &world->oracles;
    uint32_t value = history_value_of(record->value);
    if ((record->flags & RECORD_TOMBSTONE) != 0 || value == VALUE_UNREAD)
        return;
    if (value >= oracles->value_capacity) {
        uint32_t capacity = 2 * value + 256;
        size_t size_old = oracles->value_capacity * sizeof *oracles->values;
        size_t size = capacity * sizeof *oracles->values;
        oracles->values = alloc_resize(oracles->alloc, oracles->values, size_old, size);
        assert(oracles->values != NULL);
        memset(oracles->values + oracles->value_capacity, 0, size - size_old);
        oracles->value_capacity = capacity;
    }
    struct oracle_value *seen = &oracles->values[value];
    if (stamp_none(seen->lowest) || stamp_compare(record->stamp, seen->lowest) < 0)
        seen->lowest = record->stamp;
    seen->highest = stamp_max(seen->highest, record->stamp);
}

void oracle_record_seen(struct world *world, uint32_t key, struct span bytes)
{
    struct record record;
    if (key == HISTORY_KEY_NONE || record_parse(bytes, &record) != STATUS_OK) {
        world_fail(world, key, "stamps: a record that does not parse, or of a key that nobody wrote");
        return;
    }
    if ((record.flags & RECORD_VALUE) != 0) {
        uint64_t flags = record.flags & (RECORD_TOMBSTONE | RECORD_EXPIRY);
        stamp_seen(world, key, record.stamp,
                   hash_64(record.value, 1 + flags) ^ hash_mix_u64(record.expiry_ms + 1), (struct stamp){0});
        value_seen(world, &record);
    }
    if ((record.flags & RECORD_OVERRIDE) != 0)
        stamp_seen(world, key, record.override_stamp,
                   hash_mix_u64(record.override_applies_to.time ^ record.override_applies_to.actor) ^
                       record.override_expiry_ms,
                   record.override_applies_to);
    struct oracles *oracles = &world->oracles;
    uint32_t at = oracles->sample_next[key] % ORACLE_SAMPLES;
    struct buf *last = &oracles->samples[key][(at + ORACLE_SAMPLES - 1) % ORACLE_SAMPLES];
    if (last->size == bytes.size && span_equal(buf_span(last), bytes))
        return;
    oracles->sample_next[key]++;
    buf_clear(&oracles->samples[key][at]);
    buf_append_span(&oracles->samples[key][at], bytes);
}

/* ---- merge laws ----------------------------------------------------------------------------------------- */

static bool same(struct world *world, const struct record *a, const struct record *b)
{
    struct buf left;
    struct buf right;
    buf_init(&left, &world->alloc);
    buf_init(&right, &world->alloc);
    record_put(&left, a);
    record_put(&right, b);
    bool equal = span_equal(buf_span(&left), buf_span(&right));
    buf_free(&left);
    buf_free(&right);
    return equal;
}

static void check_three(struct world *world, uint32_t key, const struct record *a, const struct record *b,
                        const struct record *c)
{
    struct record ab = record_merge(a, b);
    struct record ba = record_merge(b, a);
    struct record bc = record_merge(b, c);
    struct record left = record_merge(&ab, c);
    struct record right = record_merge(a, &bc);
    struct record twice = record_merge(&ab, b);
    if (!same(world, &ab, &ba))
        world_fail(world, key, "merge: not commutative for key %u", key);
    if (!same(world, &left, &right))
        world_fail(world, key, "merge: not associative for key %u", key);
    if (!same(world, &twice, &ab))
        world_fail(world, key, "merge: not idempotent for key %u", key);
}

void oracle_merge_laws(struct world *world)
{
    for (uint32_t key = 0; key < world->swarm.keys; key++) {
        struct record records[ORACLE_SAMPLES];
        for (uint32_t i = 0; i < ORACLE_SAMPLES; i++) {
            enum status status = record_parse(buf_span(&world->oracles.samples[key][i]), &records[i]);
            assert(status == STATUS_OK);
            (void)status;
        }
        for (uint32_t i = 0; i < ORACLE_SAMPLES * ORACLE_SAMPLES * ORACLE_SAMPLES; i++)
            check_three(world, key, &records[i % ORACLE_SAMPLES],
                        &records[i / ORACLE_SAMPLES % ORACLE_SAMPLES],
                        &records[i / ORACLE_SAMPLES / ORACLE_SAMPLES]);
    }
}
