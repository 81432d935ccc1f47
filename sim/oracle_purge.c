/* Invariant 6: what was deleted or has expired never comes back (DESIGN section 6, Purge; PROTOCOLS E).
 *
 * A row may leave a replica for good only when nothing older of its key is left anywhere: at that moment every other
 * replica has this version or a newer one on its disk, or has purged it too, or has lost its disk since; and nobody
 * keeps a hint with an older version. From then on the replica logs no older version of the key while it serves.
 * That no reader sees one is judged by the register oracle. */
#include <inttypes.h>

#include "repair/hints.h"
#include "sim/world.h"

static bool version_none(struct version version)
{
    return stamp_none(version.value) && stamp_none(version.override);
}

/* Purge goes by the real time that stamps carry: beyond the bound that the operator promised for the clocks it rests on
 * nothing. */
static bool clocks_keep_their_bound(const struct world *world)
{
    return 2 * world->clock_error_max_us <= UINT64_C(1000) * world->swarm.clock_skew_max_ms;
}

static void format_version(struct version version, char text[STAMP_TEXT_BYTES_MAX])
{
    (void)stamp_format(stamp_none(version.value) ? version.override : version.value, text);
}

/* ---- too early ------------------------------------------------------------------------------------------ */

/* A disk that was lost, or put back older, may hold anything: the node learns what was purged before it serves. */
static bool lost_its_disk(const struct world *world, uint16_t index, uint16_t slot)
{
    const struct sim_node *node = &world->nodes[index];
    return node->wiped &&
           !(node->running && shard_slot_serves(node->shard[slot_shard(slot, node->shards)].shard, slot));
}

/* A replica that holds nothing of the key, and has purged newer rows of its slot, refuses the version for good: what it
 * was offered late, by a hint or by repair, it never held. */
static bool refuses(struct world *world, uint16_t index, uint32_t key, struct version version)
{
    const struct sim_node *node = &world->nodes[index];
    uint16_t slot = oracle_key_slot(world, key);
    if (!node->running || !version_none(world->oracles.replica[index][key].durable))
        return false;
    struct stamp floor = shard_slot_floor(node->shard[slot_shard(slot, node->shards)].shard, slot);
    return stamp_compare(stamp_max(version.value, version.override), floor) <= 0;
}

static void check_replica(struct world *world, const struct sim_node *node, uint16_t other, uint32_t key,
                          struct version version)
{
    const struct oracle_replica *replica = &world->oracles.replica[other][key];
    if (lost_its_disk(world, other, oracle_key_slot(world, key)))
        return;
    bool gone = version_none(replica->durable) && oracle_covers(world, key, replica->ever, version);
    if (gone || oracle_covers(world, key, replica->durable, version) || refuses(world, other, key, version))
        return;
    char text[STAMP_TEXT_BYTES_MAX];
    format_version(version, text);
    world_fail(world, key, "purged too early: %s purges key %u at %s, which %s does not hold yet", node->name,
               key, text, world->nodes[other].name);
}

static void check_hints(struct world *world, const struct sim_node *node, uint32_t key,
                        struct version version)
{
    for (uint16_t holder = 0; holder < world->node_count; holder++) {
        for (uint16_t target = 0; target < world->node_count; target++) {
            struct version hint = world->oracles.hints[holder][target][key];
            if (version_none(hint) || oracle_covers(world, key, hint, version))
                continue;
            char text[STAMP_TEXT_BYTES_MAX];
            format_version(version, text);
            world_fail(world, key,
                       "purged too early: %s purges key %u at %s, and %s keeps an older hint for %s",
                       node->name, key, text, world->nodes[holder].name, world->nodes[target].name);
        }
    }
}

void oracle_purged(struct world *world, struct sim_node *node, uint16_t shard, const struct log_entry *entry)
{
    uint32_t key = history_key_of(entry->key);
    if (key == HISTORY_KEY_NONE) {
        world_fail(world, key, "purge: %s erases a row that nobody wrote", node->name);
        return;
    }
    struct oracle_replica *replica = &world->oracles.replica[node->index][key];
    if (world_traces(world, key))
        world_say(world, key, "%s.%u purges key %u", node->name, shard, key);
    if (!oracle_covers(world, key, entry->version, replica->held))
        world_fail(world, key, "purge: %s erases key %u, and holds a newer version", node->name, key);
    replica->held = replica->promised = (struct version){0};
    /* A slot that is being rebuilt drops what the others refuse. */
    if (!shard_slot_serves(node->shard[shard].shard, entry->slot)) {
        oracle_version_raise(world, key, &replica->dropped, entry->version);
        return;
    }
    oracle_version_raise(world, key, &replica->purged, entry->version);
    if (world->damage_expected || !clocks_keep_their_bound(world))
        return;
    for (uint16_t i = 0; i < world->node_count; i++) {
        uint16_t index = ring_node_index(world->ring, world->nodes[i].id);
        if (i != node->index && ring_replicates(world->ring, entry->slot, index))
            check_replica(world, node, i, key, entry->version);
    }
    check_hints(world, node, key, entry->version);
}

void oracle_came_back(struct world *world, struct sim_node *node, uint16_t shard, uint32_t key,
                      struct version version)
{
    const struct oracle_replica *replica = &world->oracles.replica[node->index][key];
    if (oracle_covers(world, key, version, replica->purged) || !clocks_keep_their_bound(world) ||
        !shard_slot_serves(node->shard[shard].shard, oracle_key_slot(world, key)))
        return;
    char text[STAMP_TEXT_BYTES_MAX];
    format_version(version, text);
    world_fail(world, key, "came back: %s takes key %u at %s, and had purged a newer version", node->name,
               key, text);
}

/* ---- hints ---------------------------------------------------------------------------------------------- */

/* False: it is none. logged gets its key and version. */
bool oracle_hint_logged(struct world *world, struct sim_node *node, struct span hint_key, struct span row,
                        struct oracle_row *logged)
{
    struct hint_key hint;
    struct record record = {0};
    struct span bytes;
    uint8_t flags;
    if (hint_key_read(hint_key, &hint) != STATUS_OK || hint.sync)
        return false;
    uint32_t key = history_key_of(hint.key);
    uint16_t target = world_node_index(world, hint.target);
    bool good = key != HISTORY_KEY_NONE && target < world->node_count && target != node->index;
    if (good && row.size > 0)
        good = hint_row_read(row, &flags, &bytes) == STATUS_OK && record_parse(bytes, &record) == STATUS_OK;
    if (!good) {
        world_fail(world, key, "hints: %s keeps one that nobody can read", node->name);
        return false;
    }
    world->oracles.hints[node->index][target][key] = record_version(&record);
    if (world_traces(world, key))
        world_say(world, key, "%s %s a hint of key %u for %s", node->name, row.size > 0 ? "keeps" : "drops",
                  key, world->nodes[target].name);
    logged->key = key;
    logged->version = record_version(&record);
    return true;
}

static void hint_recovered(struct world *world, struct sim_node *node, struct span hint_key, struct span row)
{
    struct oracle_row found;
    if (oracle_hint_logged(world, node, hint_key, row, &found))
        oracle_version_raise(world, found.key, &world->oracles.replica[node->index][found.key].hinted,
                             found.version);
}

/* The newest is what memory says; the cold tier says the rest. */
void oracle_hints_recovered(struct world *world, struct sim_node *node)
{
    memset(world->oracles.hints[node->index], 0, sizeof world->oracles.hints[node->index]);
    for (uint32_t i = 0; i < node->disk.cold_count; i++)
        hint_recovered(world, node, buf_span(&node->disk.cold[i].key), buf_span(&node->disk.cold[i].record));
    for (uint16_t shard = 0; shard < node->shards; shard++) {
        struct memtable_cursor cursor = {0};
        const struct row *row;
        while ((row = memtable_scan(shard_memtable(node->shard[shard].shard), &cursor)) != NULL) {
            if (row_reserved(row))
                hint_recovered(world, node, row_key(row), row_record(row));
        }
    }
}
