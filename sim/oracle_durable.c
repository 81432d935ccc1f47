/* What was promised is on the disk.
 *
 * A replica never goes back: each row that it logs covers what it held of the key before. A row that was purged is no
 * row lost: from then on nothing is promised of it.
 *
 * Invariant 5: when an acknowledgement or a read's answer leaves a node, the node's disk holds a version at least as
 * new; and every recovery brings back at least what the node ever told anybody. Invariant 1, directly: when a client
 * hears that a write is done, W of the key's natural replicas have had it, or something newer, on their disks;
 * and N - R + 1 of them hold what a read with 2R > N answers.
 *
 * Below `always`, "on the disk" is "given to the operating system", and such worlds lose no machines. */
#include <assert.h>
#include <inttypes.h>

#include "base/hash.h"
#include "model/reserved.h"
#include "sim/world.h"

/* As the merge orders them: the value, then the override by the value it applies to and its own stamp. */
bool oracle_covers(struct world *world, uint32_t key, struct version held, struct version promised)
{
    int order = stamp_compare(held.value, promised.value);
    if (order != 0)
        return order > 0;
    order = stamp_compare(oracle_override_applies_to(world, key, held.override),
                          oracle_override_applies_to(world, key, promised.override));
    return order != 0 ? order > 0 : stamp_compare(held.override, promised.override) >= 0;
}

void oracle_version_raise(struct world *world, uint32_t key, struct version *version, struct version seen)
{
    if (oracle_covers(world, key, seen, *version))
        *version = seen;
}

static void format_versions(struct version promised, struct version held,
                            char text[2 * STAMP_TEXT_BYTES_MAX + 32])
{
    static const char between[] = ", held ";
    size_t size = stamp_format(promised.value, text);
    memcpy(text + size, between, sizeof between);
    (void)stamp_format(held.value, text + size + sizeof between - 1);
}

/* ---- the log -------------------------------------------------------------------------------------------- */

static struct oracle_row *row_add(struct oracles *oracles, uint16_t node)
{
    if (oracles->row_count[node] == oracles->row_capacity[node]) {
        uint32_t capacity = oracles->row_capacity[node] == 0 ? 64 : 2 * oracles->row_capacity[node];
        oracles->rows[node] = alloc_resize(oracles->alloc, oracles->rows[node],
                                           oracles->row_capacity[node] * sizeof(struct oracle_row),
                                           capacity * sizeof(struct oracle_row));
        assert(oracles->rows[node] != NULL);
        oracles->row_capacity[node] = capacity;
    }
    return &oracles->rows[node][oracles->row_count[node]++];
}

void oracle_log_append(struct world *world, struct sim_node *node, uint16_t shard, uint64_t sequence,
                       struct span payload)
{
    struct reader reader = reader_of(payload);
    struct log_entry entry;
    enum status status;
    while ((status = log_entry_next(&reader, &entry)) == STATUS_OK) {
        if (entry.type == LOG_ENTRY_ERASE) {
            oracle_purged(world, node, shard, &entry);
            *row_add(&world->oracles, node->index) = (struct oracle_row){.shard = shard,
                                                                         .purged = true,
                                                                         .key = history_key_of(entry.key),
                                                                         .sequence = sequence,
                                                                         .version = entry.version};
        } else if (entry.type == LOG_ENTRY_RESERVED) {
            struct oracle_row hint = {.shard = shard, .hint = true, .sequence = sequence};
            if (oracle_hint_logged(world, node, entry.key, entry.record, &hint))
                *row_add(&world->oracles, node->index) = hint;
        }
        if (entry.type != LOG_ENTRY_ROW)
            continue;
        uint32_t key = history_key_of(entry.key);
        oracle_record_seen(world, key, entry.record);
        struct record record;
        if (world->failed || record_parse(entry.record, &record) != STATUS_OK)
            return;
        struct oracle_replica *replica = &world->oracles.replica[node->index][key];
        struct version version = record_version(&record);
        if (!world->damage_expected && !oracle_covers(world, key, version, replica->held)) {
            char text[2 * STAMP_TEXT_BYTES_MAX + 32];
            format_versions(replica->held, version, text);
            world_fail(world, key, "went back: %s held key %u at %s", node->name, key, text);
        }
        oracle_came_back(world, node, shard, key, version);
        world->oracles.rows_logged++;
        replica->held = version;
        *row_add(&world->oracles, node->index) =
            (struct oracle_row){.shard = shard, .key = key, .sequence = sequence, .version = version};
        if (world_traces(world, key))
            world_say(world, key, "%s.%u logs key %u value %u, batch %" PRIu64, node->name, shard, key,
                      record.value.size > 0 ? history_value_of(record.value) : 0, sequence);
    }
    if (status != STATUS_NOT_FOUND)
        world_fail(world, HISTORY_KEY_NONE, "log: %s.%u appends a batch that does not parse", node->name,
                   shard);
}

void oracle_log_durable(struct world *world, struct sim_node *node, uint16_t shard, uint64_t sequence)
{
    struct oracles *oracles = &world->oracles;
    struct oracle_row *rows = oracles->rows[node->index];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < oracles->row_count[node->index]; i++) {
        if (rows[i].shard != shard || rows[i].sequence > sequence) {
            rows[kept++] = rows[i];
            continue;
        }
        struct oracle_replica *replica = &oracles->replica[node->index][rows[i].key];
        if (rows[i].hint) {
            oracle_version_raise(world, rows[i].key, &replica->hinted, rows[i].version);
            continue;
        }
        if (rows[i].purged) {
            replica->durable = (struct version){0};
            continue;
        }
        oracle_version_raise(world, rows[i].key, &replica->durable, rows[i].version);
        oracle_version_raise(world, rows[i].key, &replica->ever, rows[i].version);
    }
    oracles->row_count[node->index] = kept;
}

/* A write above a slot's high water wins without a look (DESIGN section 4): so no row in the cold tier may be above it,
 * neither while the process runs nor after it, when only the disk knows. */
static void check_high_water(struct world *world, const struct sim_node *node, struct span name,
                             struct span bytes)
{
    struct record record;
    uint32_t key = history_key_of(name);
    uint16_t slot = key_slot(name);
    const struct shard *shard = node->shard[slot_shard(slot, node->shards)].shard;
    if (record_parse(bytes, &record) == STATUS_OK && !world->failed &&
        record_stamp_max(&record).time > shard_slot_high_water(shard, slot))
        world_fail(world, key, "high water: %s has a row of key %u in the cold tier above its slot's",
                   node->name, key);
}

/* Nothing goes cold before the log has it: else, after a power loss, an older version from the log would stand in
 * memory and hide the newer one in the cold tier, which may have been answered from there. What recovery flushes came
 * from the log. A row that is taken out while its flush is under way still arrives; its deletion follows. */
void oracle_row_cold(struct world *world, struct sim_node *node, struct span name, struct span bytes)
{
    struct record record;
    uint32_t key = history_key_of(name);
    if (key == HISTORY_KEY_NONE || record_parse(bytes, &record) != STATUS_OK) {
        world_fail(world, key, "flush: %s writes a row that nobody wrote", node->name);
        return;
    }
    struct oracle_replica *replica = &world->oracles.replica[node->index][key];
    struct version version = record_version(&record);
    if (!node->recovering && !oracle_covers(world, key, replica->durable, version) &&
        !oracle_covers(world, key, replica->purged, version) &&
        !oracle_covers(world, key, replica->dropped, version)) {
        char text[2 * STAMP_TEXT_BYTES_MAX + 32];
        format_versions(version, replica->durable, text);
        world_fail(world, key, "flush: %s writes key %u at %s by its log", node->name, key, text);
    }
    check_high_water(world, node, name, bytes);
}

void oracle_node_gone(struct world *world, struct sim_node *node)
{
    world->oracles.row_count[node->index] = 0;
}

void oracle_node_wiped(struct world *world, struct sim_node *node)
{
    for (uint32_t key = 0; key < HISTORY_KEYS_MAX; key++) {
        struct oracle_replica *replica = &world->oracles.replica[node->index][key];
        *replica = (struct oracle_replica){.ever = replica->ever};
    }
}

/* ---- recovery ------------------------------------------------------------------------------------------- */

static void recovered_row(struct world *world, struct sim_node *node, struct span name, struct span bytes,
                          struct version *versions)
{
    struct record record;
    uint32_t key = history_key_of(name);
    if (key == HISTORY_KEY_NONE || record_parse(bytes, &record) != STATUS_OK) {
        world_fail(world, key, "recovery: %s holds a row that nobody wrote", node->name);
        return;
    }
    oracle_version_raise(world, key, &versions[key], record_version(&record));
}

void oracle_node_recovered(struct world *world, struct sim_node *node)
{
    struct version versions[HISTORY_KEYS_MAX];
    struct version rows[HISTORY_KEYS_MAX];
    memset(versions, 0, sizeof versions);
    memset(rows, 0, sizeof rows);
    for (uint32_t i = 0; i < node->disk.cold_count; i++) {
        struct span cold_key = buf_span(&node->disk.cold[i].key);
        if (key_reserved(cold_key))
            continue;
        struct span name =
            span_of(cold_key.data + COLD_KEY_PREFIX_BYTES, cold_key.size - COLD_KEY_PREFIX_BYTES);
        recovered_row(world, node, name, buf_span(&node->disk.cold[i].record), versions);
        check_high_water(world, node, name, buf_span(&node->disk.cold[i].record));
    }
    for (uint16_t shard = 0; shard < node->shards; shard++) {
        struct memtable_cursor cursor = {0};
        const struct memtable *memtable = shard_memtable(node->shard[shard].shard);
        const struct row *row;
        while ((row = memtable_scan(memtable, &cursor)) != NULL) {
            uint32_t key = history_key_of(row_key(row));
            if (row_reserved(row))
                continue;
            if (row_erased(row) && key != HISTORY_KEY_NONE)
                versions[key] = (struct version){0};
            else
                recovered_row(world, node, row_key(row), row_record(row), rows);
        }
    }
    /* A row in memory hides its cold version: what it says is what the node will say. */
    for (uint32_t key = 0; key < HISTORY_KEYS_MAX; key++) {
        if (!stamp_none(rows[key].value) || !stamp_none(rows[key].override))
            versions[key] = rows[key];
    }
    for (uint32_t key = 0; key < HISTORY_KEYS_MAX; key++) {
        struct oracle_replica *replica = &world->oracles.replica[node->index][key];
        if (!world->damage_expected && !oracle_covers(world, key, versions[key], replica->promised)) {
            char text[2 * STAMP_TEXT_BYTES_MAX + 32];
            format_versions(replica->promised, versions[key], text);
            world_fail(world, key, "recovery: %s had promised key %u at %s", node->name, key, text);
        }
        replica->durable = replica->held = versions[key];
        oracle_version_raise(world, key, &replica->ever, versions[key]);
    }
    oracle_hints_recovered(world, node);
}

/* ---- frames --------------------------------------------------------------------------------------------- */

static uint64_t exchange_id(uint16_t asker, uint8_t shard, uint64_t request, uint16_t answerer)
{
    uint64_t parties = (uint64_t)asker << 32 | (uint64_t)shard << 16 | answerer;
    return hash_mix_u64(request ^ hash_mix_u64(parties + 1)) | 1;
}

static struct oracle_exchange *exchange_place(struct oracles *oracles, uint64_t id)
{
    uint32_t at = (uint32_t)id & (oracles->exchange_capacity - 1);
    while (oracles->exchanges[at].id != 0 && oracles->exchanges[at].id != id)
        at = (at + 1) & (oracles->exchange_capacity - 1);
    return &oracles->exchanges[at];
}

static void exchange_note(struct oracles *oracles, uint64_t id, uint32_t key)
{
    if (2 * (oracles->exchange_count + 1) > oracles->exchange_capacity) {
        struct oracle_exchange *old = oracles->exchanges;
        uint32_t capacity_old = oracles->exchange_capacity;
        oracles->exchange_capacity = capacity_old == 0 ? 1024 : 2 * capacity_old;
        oracles->exchanges = alloc_get_zeroed(oracles->alloc, oracles->exchange_capacity * sizeof *old);
        assert(oracles->exchanges != NULL);
        for (uint32_t i = 0; i < capacity_old; i++) {
            if (old[i].id != 0)
                *exchange_place(oracles, old[i].id) = old[i];
        }
        alloc_put(oracles->alloc, old, capacity_old * sizeof *old);
    }
    struct oracle_exchange *place = exchange_place(oracles, id);
    oracles->exchange_count += place->id == 0;
    *place = (struct oracle_exchange){.id = id, .key = key};
}

static uint32_t exchange_key(struct oracles *oracles, uint64_t id)
{
    if (oracles->exchange_capacity == 0)
        return HISTORY_KEY_NONE;
    const struct oracle_exchange *place = exchange_place(oracles, id);
    return place->id == 0 ? HISTORY_KEY_NONE : place->key;
}

static void asked(struct world *world, struct sim_node *from, struct sim_node *to, const struct frame *frame,
                  struct span name)
{
    uint32_t key = history_key_of(name);
    uint64_t id = exchange_id(from->index, frame->from_shard, frame->request, to->index);
    exchange_note(&world->oracles, id, key);
    if (world_traces(world, key))
        world_say(world, key, "%s.%u -> %s  %s key %u request %" PRIx64, from->name, frame->from_shard,
                  to->name, frame_type_name(frame->type), key, frame->request);
}

static void promised(struct world *world, struct sim_node *from, struct sim_node *to,
                     const struct frame *frame, enum status status, struct version version)
{
    uint64_t id = exchange_id(to->index, frame->to_shard, frame->request, from->index);
    uint32_t key = exchange_key(&world->oracles, id);
    if (key == HISTORY_KEY_NONE)
        return;
    if (world_traces(world, key)) {
        char text[STAMP_TEXT_BYTES_MAX];
        (void)stamp_format(version.value, text);
        world_say(world, key, "%s.%u -> %s  %s key %u request %" PRIx64 " %s %s", from->name,
                  frame->from_shard, to->name, frame_type_name(frame->type), key, frame->request,
                  status_name(status), text);
    }
    if (status != STATUS_OK && status != STATUS_QUARANTINED)
        return;
    struct oracle_replica *replica = &world->oracles.replica[from->index][key];
    /* A fallback promises what it keeps for another. */
    bool replicates =
        ring_replicates(world->ring, oracle_key_slot(world, key), ring_node_index(world->ring, from->id));
    if (!replicates && oracle_covers(world, key, replica->hinted, version))
        return;
    /* What it has purged since is promised no more. */
    if (oracle_covers(world, key, replica->purged, version))
        return;
    char text[2 * STAMP_TEXT_BYTES_MAX + 32];
    oracle_version_raise(world, key, &replica->promised, version);
    if (oracle_covers(world, key, replica->durable, version))
        return;
    format_versions(version, replica->durable, text);
    world_fail(world, key, "durability: %s tells %s in %s of key %u at %s on its disk", from->name, to->name,
               frame_type_name(frame->type), key, text);
}

void oracle_frame_sent(struct world *world, struct sim_node *from, struct sim_node *to,
                       const struct frame *frame)
{
    struct frame_put put;
    struct frame_get get;
    struct frame_put_ack ack;
    struct frame_get_answer answer;
    enum status status = STATUS_OK;
    if (frame->type == FRAME_PUT) {
        status = frame_read_put(frame, &put);
        if (status == STATUS_OK) {
            oracle_record_seen(world, history_key_of(put.key), put.record);
            asked(world, from, to, frame, put.key);
        }
    } else if (frame->type == FRAME_GET) {
        status = frame_read_get(frame, &get);
        if (status == STATUS_OK)
            asked(world, from, to, frame, get.key);
    } else if (frame->type == FRAME_PUT_ACK) {
        status = frame_read_put_ack(frame, &ack);
        if (status == STATUS_OK) {
            world->totals.puts_refused += ack.status != STATUS_OK;
            promised(world, from, to, frame, ack.status, ack.version);
        }
    } else if (frame->type == FRAME_GET_ANSWER) {
        status = frame_read_get_answer(frame, &answer);
        if (status == STATUS_OK)
            promised(world, from, to, frame, answer.status, answer.version);
    }
    if (status != STATUS_OK)
        world_fail(world, HISTORY_KEY_NONE, "frames: %s sends a %s that does not parse", from->name,
                   frame_type_name(frame->type));
}

/* ---- acknowledged writes -------------------------------------------------------------------------------- */

uint16_t oracle_key_slot(struct world *world, uint32_t key)
{
    struct buf name;
    buf_init(&name, &world->alloc);
    history_key_name(key, &name);
    uint16_t slot = key_slot(buf_span(&name));
    buf_free(&name);
    return slot;
}

/* How many natural replicas of the key have had this version of its value, or a newer one, on their disks. */
static uint32_t count_holders(struct world *world, uint32_t key, struct stamp stamp)
{
    uint16_t slot = oracle_key_slot(world, key);
    uint32_t holders = 0;
    for (uint16_t i = 0; i < world->node_count && !stamp_none(stamp); i++) {
        uint16_t index = ring_node_index(world->ring, world->nodes[i].id);
        bool replicates = ring_replicates(world->ring, slot, index);
        holders += replicates && stamp_compare(world->oracles.replica[i][key].ever.value, stamp) >= 0;
    }
    return holders;
}

void oracle_write_acked(struct world *world, const struct history_op *op)
{
    struct oracles *oracles = &world->oracles;
    if (op->kind != HISTORY_SET || op->sloppy)
        return;
    struct stamp stamp = {0};
    if (op->value < oracles->value_capacity)
        stamp = oracles->values[op->value].highest;
    uint32_t holders = count_holders(world, op->key, stamp);
    if (holders < op->w)
        world_fail(world, op->key, "acknowledged: value %u of key %u is on %u disks, W is %u", op->value,
                   op->key, holders, op->w);
}

/* N - R + 1 replicas hold what a read returns; of the stamps that a restamped value has, the read may mean either. */
void oracle_read_answered(struct world *world, const struct history_op *op)
{
    struct oracles *oracles = &world->oracles;
    uint32_t n = world->ring->replicas;
    if (op->sloppy || op->value == VALUE_ABSENT || op->value >= oracles->value_capacity || 2u * op->r <= n)
        return;
    uint32_t holders = count_holders(world, op->key, oracles->values[op->value].lowest);
    if (holders < n - op->r + 1)
        world_fail(world, op->key, "read: value %u of key %u was answered with %u holders, N - R + 1 is %u",
                   op->value, op->key, holders, n - op->r + 1);
}
