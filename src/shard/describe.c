/* The cluster as this node sees it: CLUSTER SLOTS, SHARDS, NODES and INFO, and the JSON of /ring and /status.
 *
 * Client maps list one node for each range, and only nodes that can be reached: cluster clients keep a node first
 * seen as a replica out of their fan-outs, and fail on ranges of dead nodes (PROTOCOLS I). */
#include <assert.h>
#include <inttypes.h>

#include "base/version.h"
#include "shard/state.h"

const struct client_map *describe_client_map(struct shard *shard)
{
    if (!shard->client_map_stale)
        return &shard->client_map;
    bool reachable[NODES_MAX];
    for (uint16_t i = 0; i < shard->ring->node_count; i++) {
        /* A node whose client address was never heard cannot be told to clients. */
        reachable[i] = i == shard->self ||
                       (peer_of_index(shard, i)->reachable && peer_of_index(shard, i)->resp_address[0] != 0);
    }
    client_map_free(&shard->client_map);
    if (client_map_build(&shard->alloc, shard->ring, reachable, &shard->client_map) == STATUS_OK)
        shard->client_map_stale = false;
    return &shard->client_map;
}

/* ---- nodes ---------------------------------------------------------------------------------------------- */

/* What clients want to know of one node. */
struct node_view {
    const struct ring_node *node;
    uint16_t index;
    bool self;
    bool reachable;
    enum swim_state liveness;
    uint64_t incarnation;
    uint64_t since_ms; /* of the liveness: wall clock */
    const char *resp;  /* "" when not known */
    const char *http;
};

static struct node_view view_node(struct shard *shard, uint16_t index)
{
    struct node_view view = {
        .node = &shard->ring->nodes[index], .index = index, .self = index == shard->self};
    if (view.self) {
        view.reachable = true;
        view.liveness = SWIM_ALIVE;
        view.incarnation = shard->liveness.incarnation;
        view.since_ms = shard->liveness.since_ms;
        view.resp = shard->resp_address;
        view.http = shard->http_address;
        return view;
    }
    const struct peer *peer = peer_of_index(shard, index);
    view.reachable = peer->reachable;
    view.liveness = peer->liveness;
    view.incarnation = peer->incarnation;
    view.since_ms = peer->since_ms;
    view.resp = peer->resp_address;
    view.http = peer->http_address;
    return view;
}

/* Redis's node ids are 40 hex digits; ours are 16, followed by what follows from them. */
static void append_node_id(struct buf *text, uint64_t id)
{
    buf_append_format(text, "%016" PRIx64 "%016" PRIx64 "%08" PRIx32, id, hash_mix_u64(id),
                      (uint32_t)hash_mix_u64(~id));
}

static void reply_node_id(struct buf *reply, uint64_t id)
{
    buf_append_text(reply, "$40\r\n");
    append_node_id(reply, id);
    buf_append_text(reply, "\r\n");
}

/* "host:port" cut in two; an IPv6 host without its brackets. */
struct host_port {
    struct span host;
    int64_t port;
};

static struct host_port split_address(const char *address)
{
    struct host_port split = {.host = span_of_text("")};
    const char *colon = strrchr(address, ':');
    if (colon == NULL)
        return split;
    struct span port = span_of_text(colon + 1);
    if (span_parse_i64(port, &split.port) != STATUS_OK)
        split.port = 0;
    split.host = span_of(address, (size_t)(colon - address));
    if (split.host.size >= 2 && split.host.data[0] == '[')
        split.host = span_of(split.host.data + 1, split.host.size - 2);
    return split;
}

/* ---- CLUSTER -------------------------------------------------------------------------------------------- */

static void reply_slots(struct shard *shard, struct buf *reply)
{
    const struct client_map *map = describe_client_map(shard);
    resp_reply_array(reply, map->count);
    for (uint32_t i = 0; i < map->count; i++) {
        const struct client_range *range = &map->ranges[i];
        struct node_view view = view_node(shard, range->node);
        struct host_port address = split_address(view.resp);
        resp_reply_array(reply, 3);
        resp_reply_integer(reply, range->start);
        resp_reply_integer(reply, range->end);
        resp_reply_array(reply, 4);
        resp_reply_bulk(reply, address.host);
        resp_reply_integer(reply, address.port);
        reply_node_id(reply, view.node->id);
        resp_reply_array(reply, 0);
    }
}

static uint32_t count_ranges(const struct client_map *map, uint16_t node)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < map->count; i++)
        count += map->ranges[i].node == node;
    return count;
}

static void reply_shard(struct shard *shard, uint8_t proto, const struct node_view *view, struct buf *reply)
{
    const struct client_map *map = describe_client_map(shard);
    struct host_port address = split_address(view->resp);
    resp_reply_map(reply, proto, 2);
    resp_reply_text(reply, "slots");
    resp_reply_array(reply, 2 * (size_t)count_ranges(map, view->index));
    for (uint32_t i = 0; i < map->count; i++) {
        if (map->ranges[i].node != view->index)
            continue;
        resp_reply_integer(reply, map->ranges[i].start);
        resp_reply_integer(reply, map->ranges[i].end);
    }
    resp_reply_text(reply, "nodes");
    resp_reply_array(reply, 1);
    resp_reply_map(reply, proto, 7);
    resp_reply_text(reply, "id");
    reply_node_id(reply, view->node->id);
    resp_reply_text(reply, "port");
    resp_reply_integer(reply, address.port);
    resp_reply_text(reply, "ip");
    resp_reply_bulk(reply, address.host);
    resp_reply_text(reply, "endpoint");
    resp_reply_bulk(reply, address.host);
    resp_reply_text(reply, "role");
    resp_reply_text(reply, "master");
    resp_reply_text(reply, "replication-offset");
    resp_reply_integer(reply, 0);
    resp_reply_text(reply, "health");
    resp_reply_text(reply, view->reachable ? "online" : "fail");
}

static void reply_shards(struct shard *shard, uint8_t proto, struct buf *reply)
{
    resp_reply_array(reply, shard->ring->node_count);
    for (uint16_t i = 0; i < shard->ring->node_count; i++) {
        struct node_view view = view_node(shard, i);
        reply_shard(shard, proto, &view, reply);
    }
}

/* One line of CLUSTER NODES. */
static void append_node_line(struct shard *shard, uint16_t index, struct buf *text)
{
    const struct client_map *map = describe_client_map(shard);
    struct node_view view = view_node(shard, index);
    struct host_port address = split_address(view.resp);
    struct host_port peer = split_address(view.node->peer_address);
    append_node_id(text, view.node->id);
    buf_append_format(text, " %.*s:%" PRId64 "@%" PRId64 " ", (int)address.host.size,
                      (const char *)address.host.data, address.port, peer.port);
    if (view.self)
        buf_append_text(text, "myself,");
    buf_append_text(text, view.reachable ? "master" : "master,fail");
    if (view.resp[0] == 0)
        buf_append_text(text, ",noaddr");
    buf_append_format(text, " - 0 0 %" PRIu64 " %s", shard->ring->epoch,
                      view.reachable ? "connected" : "disconnected");
    for (uint32_t i = 0; i < map->count; i++) {
        const struct client_range *range = &map->ranges[i];
        if (range->node != index)
            continue;
        buf_append_format(text, range->start == range->end ? " %u" : " %u-%u", range->start, range->end);
    }
    buf_append_text(text, "\n");
}

static void append_cluster_info(struct shard *shard, struct buf *text)
{
    buf_append_format(
        text,
        "cluster_enabled:1\r\ncluster_state:ok\r\ncluster_slots_assigned:%d\r\ncluster_slots_ok:%d\r\n"
        "cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:%u\r\ncluster_size:%u\r\n"
        "cluster_current_epoch:%" PRIu64 "\r\ncluster_my_epoch:%" PRIu64 "\r\n",
        SLOTS_COUNT, SLOTS_COUNT, shard->ring->node_count, shard->ring->node_count, shard->ring->epoch,
        shard->ring->epoch);
}

void describe_cluster(struct shard *shard, const struct command *command, uint8_t proto, struct buf *reply)
{
    struct buf text;
    buf_init(&text, &shard->alloc);
    switch (command->subcommand) {
    case SUBCOMMAND_CLUSTER_SLOTS:
        reply_slots(shard, reply);
        break;
    case SUBCOMMAND_CLUSTER_SHARDS:
        reply_shards(shard, proto, reply);
        break;
    case SUBCOMMAND_CLUSTER_NODES:
        for (uint16_t i = 0; i < shard->ring->node_count; i++)
            append_node_line(shard, i, &text);
        resp_reply_verbatim(reply, proto, buf_span(&text));
        break;
    case SUBCOMMAND_CLUSTER_INFO:
        append_cluster_info(shard, &text);
        resp_reply_verbatim(reply, proto, buf_span(&text));
        break;
    case SUBCOMMAND_CLUSTER_MYID:
        reply_node_id(reply, shard->self_id);
        break;
    case SUBCOMMAND_CLUSTER_KEYSLOT:
        resp_reply_integer(reply, key_slot(command->argv[2]));
        break;
    default:
        assert(0 && "a subcommand that CLUSTER has");
    }
    reply->failed |= text.failed;
    buf_free(&text);
}

/* ---- JSON ----------------------------------------------------------------------------------------------- */

static void append_field(struct buf *json, const char *name, const char *text)
{
    buf_append_format(json, "\"%s\":", name);
    json_put_string(json, span_of_text(text));
    buf_append_text(json, ",");
}

static void append_node_json(const struct node_view *view, struct buf *json)
{
    buf_append_text(json, "{");
    append_field(json, "name", view->node->name);
    buf_append_format(json, "\"id\":\"%016" PRIx64 "\",", view->node->id);
    append_field(json, "peer", view->node->peer_address);
    append_field(json, "resp", view->resp);
    append_field(json, "http", view->http);
    append_field(json, "zone", view->node->zone);
    buf_append_format(json, "\"weight\":%" PRIu32 ",\"self\":%s,\"reachable\":%s", view->node->weight,
                      view->self ? "true" : "false", view->reachable ? "true" : "false");
}

static void append_identity(const struct shard *shard, struct buf *json)
{
    buf_append_format(json, "\"cluster\":\"%016" PRIx64 "%016" PRIx64 "\",\"epoch\":%" PRIu64 ",\"n\":%u,",
                      shard->ring->cluster_id.high, shard->ring->cluster_id.low, shard->ring->epoch,
                      ring_replica_count(shard->ring));
}

static void append_range(struct shard *shard, uint32_t start, uint32_t end, uint16_t node, struct buf *json)
{
    buf_append_format(json, "%s[%" PRIu32 ",%" PRIu32 ",", start == 0 ? "" : ",", start, end);
    json_put_string(json, span_of_text(shard->ring->nodes[node].name));
    buf_append_text(json, "]");
}

static void append_owners(struct shard *shard, struct buf *json)
{
    uint32_t start = 0;
    for (uint32_t slot = 1; slot <= SLOTS_COUNT; slot++) {
        if (slot < SLOTS_COUNT && shard->ring->owner[slot] == shard->ring->owner[start])
            continue;
        append_range(shard, start, slot - 1, shard->ring->owner[start], json);
        start = slot;
    }
}

void describe_ring_json(struct shard *shard, struct buf *json)
{
    const struct client_map *map = describe_client_map(shard);
    uint32_t owned[NODES_MAX] = {0};
    uint32_t replicated[NODES_MAX] = {0};
    for (uint16_t slot = 0; slot < SLOTS_COUNT; slot++) {
        const uint16_t *replicas = ring_replicas(shard->ring, slot);
        owned[shard->ring->owner[slot]]++;
        for (uint8_t i = 0; i < ring_replica_count(shard->ring); i++)
            replicated[replicas[i]]++;
    }
    buf_append_text(json, "{");
    append_identity(shard, json);
    buf_append_text(json, "\"nodes\":[");
    for (uint16_t i = 0; i < shard->ring->node_count; i++) {
        struct node_view view = view_node(shard, i);
        buf_append_text(json, i == 0 ? "" : ",");
        append_node_json(&view, json);
        buf_append_format(json, ",\"slots\":%" PRIu32 ",\"replicates\":%" PRIu32 "}", owned[i],
                          replicated[i]);
    }
    buf_append_text(json, "],\"owners\":[");
    append_owners(shard, json);
    buf_append_text(json, "],\"client_map\":[");
    for (uint32_t i = 0; i < map->count; i++)
        append_range(shard, map->ranges[i].start, map->ranges[i].end, map->ranges[i].node, json);
    buf_append_text(json, "]}\n");
}

static const char *state_name(enum meta_state state)
{
    switch (state) {
    case META_UNPROVEN:
        return "unproven";
    case META_SERVING:
        return "serving";
    case META_AMNESIAC:
        return "amnesiac";
    }
    return "unknown";
}

/* Quantiles of whole requests since the start. */
static void append_times(const struct metrics *metrics, struct buf *json)
{
    static const char *const names[] = {"read", "write"};
    static const enum metrics_time times[] = {METRICS_TIME_READ, METRICS_TIME_WRITE};
    buf_append_text(json, ",\"times_us\":{");
    for (uint32_t i = 0; i < 2; i++) {
        const struct histogram *time = &metrics->times[times[i]];
        buf_append_format(json, "%s\"%s\":{\"p50\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"p999\":%" PRIu64 "}",
                          i == 0 ? "" : ",", names[i], histogram_quantile(time, 500000),
                          histogram_quantile(time, 990000), histogram_quantile(time, 999000));
    }
    buf_append_text(json, "}");
}

void describe_status_json(struct shard *shard, const struct pending *pending, struct buf *json)
{
    const struct stats_sum *stats = pending->stats;
    buf_append_text(json, "{");
    append_field(json, "node", shard->ring->nodes[shard->self].name);
    buf_append_format(json, "\"id\":\"%016" PRIx64 "\",", shard->self_id);
    append_field(json, "version", RONDO_VERSION);
    append_identity(shard, json);
    append_field(json, "state", state_name(shard->meta.state));
    append_field(json, "durability", shard->durability);
    buf_append_format(json,
                      "\"uptime_s\":%" PRIu64 ",\"shards\":%u,\"clock_trusted\":%s,\"clock_skew_ms\":%" PRId64
                      ",\"disk_full\":%s,\"quarantined_slots\":%" PRIu64 ",\"nodes\":[",
                      (shard->now.wall_ms - shard->options.started_wall_ms) / 1000, shard->options.shards,
                      shard->clock_trusted ? "true" : "false", -shard->clock_offset_ms,
                      shard->log.full ? "true" : "false", stats->quarantined);
    for (uint16_t i = 0; i < shard->ring->node_count; i++) {
        struct node_view view = view_node(shard, i);
        buf_append_text(json, i == 0 ? "" : ",");
        append_node_json(&view, json);
        buf_append_format(json, ",\"liveness\":\"%s\",\"incarnation\":%" PRIu64 ",\"since_ms\":%" PRIu64,
                          swim_state_name(view.liveness), view.incarnation, view.since_ms);
        uint64_t since_ms = shard->now.wall_ms > view.since_ms ? shard->now.wall_ms - view.since_ms : 0;
        buf_append_format(
            json, ",\"gossip\":{\"state\":\"%s\",\"incarnation\":%" PRIu64 ",\"since_ms_ago\":%" PRIu64 "}}",
            swim_state_name(view.liveness), view.incarnation, since_ms);
    }
    buf_append_format(json,
                      "],\"keys\":%" PRIu64 ",\"rows\":%" PRIu64 ",\"dirty_rows\":%" PRIu64
                      ",\"memory_used_bytes\":%" PRIu64 ",\"memory_budget_bytes\":%" PRIu64 ",",
                      stats->keys, stats->rows, stats->rows_dirty, stats->memory_used, stats->memory_budget);
    buf_append_format(json,
                      "\"clients\":%" PRIu64 ",\"cold_reads\":%" PRIu64 ",\"flushes\":%" PRIu64
                      ",\"requests\":{\"commands\":%" PRIu64 ",\"done\":%" PRIu64 ",\"not_applied\":%" PRIu64
                      ",\"unknown\":%" PRIu64 ",\"forwarded\":%" PRIu64 ",\"in_flight\":%" PRIu64,
                      stats->clients, stats->cold_reads, stats->flushes, stats->commands,
                      stats->requests_done, stats->requests_not_applied, stats->requests_unknown,
                      stats->requests_forwarded, stats->in_flight);
    buf_append_format(
        json,
        ",\"restamps\":%" PRIu64 ",\"write_backs\":%" PRIu64 ",\"hedges\":%" PRIu64 ",\"hedges_won\":%" PRIu64
        ",\"hedges_refused\":%" PRIu64 ",\"read_probes\":%" PRIu64 ",\"overwritten_concurrent\":%" PRIu64
        ",\"stale_epochs\":%" PRIu64 ",\"deadline_drops\":%" PRIu64 ",\"overloads\":%" PRIu64
        ",\"misdirected_frames\":%" PRIu64 "}",
        stats->restamps, stats->write_backs, stats->hedges, stats->hedges_won, stats->hedges_refused,
        stats->read_probes, stats->overwritten_concurrent, stats->stale_epochs, stats->deadline_drops,
        stats->overloads, stats->misdirected_frames);
    append_times(&stats->metrics, json);
    buf_append_format(json,
                      ",\"gossip\":{\"sent\":%" PRIu64 ",\"bytes_sent\":%" PRIu64 ",\"received\":%" PRIu64
                      ",\"suspicions\":%" PRIu64 ",\"deaths\":%" PRIu64 ",\"refutations\":%" PRIu64
                      ",\"health\":%" PRIu64 "}",
                      stats->gossip_sent, stats->gossip_bytes_sent, stats->gossip_received,
                      stats->gossip_suspicions, stats->gossip_deaths, stats->gossip_refutations,
                      stats->gossip_health);
    healing_json(shard, pending->healing, json);
    buf_append_text(json, "}\n");
}
