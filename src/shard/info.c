/* Statistics of the whole node, gathered from its shards by message; INFO, CONFIG GET and CLIENT INFO. */
#include <assert.h>
#include <inttypes.h>

#include "base/version.h"
#include "proto/glob.h"
#include "shard/state.h"

/* ---- gathering ------------------------------------------------------------------------------------------ */

void info_ask(struct shard *shard, struct pending *pending)
{
    pending->stats = alloc_get_zeroed(&shard->alloc, sizeof *pending->stats);
    if (pending->stats == NULL) {
        pending->failed = true;
        pending->failure = (struct result){.outcome = OUTCOME_NOT_APPLIED, .status = STATUS_OVERLOADED};
        return;
    }
    uint64_t ticket = pending->id << TICKET_PART_BITS;
    pending->parts_left += shard->options.shards;
    for (uint16_t i = 0; i < shard->options.shards; i++) {
        if (i != shard->options.shard)
            frame_put_raw(&shard->locals[i], FRAME_STATS_ASK, frame_head_of(shard, (uint8_t)i, ticket),
                          (struct span){0});
    }
    struct stats_sum own;
    metrics_collect(shard, &own);
    client_stats_part(shard, ticket, &own);
}

void info_stats_ask(struct shard *shard, const struct frame *frame)
{
    struct stats_sum stats;
    metrics_collect(shard, &stats);
    struct buf body;
    buf_init(&body, &shard->local_alloc);
    metrics_put(&body, &stats);
    frame_put_raw(&shard->locals[frame->from_shard], FRAME_STATS,
                  frame_head_of(shard, frame->from_shard, frame->request), buf_span(&body));
    buf_free(&body);
}

void info_stats(struct shard *shard, const struct frame *frame)
{
    struct stats_sum stats;
    enum status status = metrics_read(frame->body, &stats);
    assert(status == STATUS_OK);
    client_stats_part(shard, frame->request, &stats);
}

/* ---- INFO ----------------------------------------------------------------------------------------------- */

enum info_section {
    INFO_SERVER = 1,
    INFO_CLIENTS = 2,
    INFO_MEMORY = 4,
    INFO_STATS = 8,
    INFO_REPLICATION = 16,
    INFO_CLUSTER = 32,
    INFO_KEYSPACE = 64,
    INFO_PERSISTENCE = 128,
    INFO_ALL = 255,
};

static const struct {
    const char *name;
    uint8_t sections;
} section_names[] = {
    {"server", INFO_SERVER},     {"clients", INFO_CLIENTS},         {"memory", INFO_MEMORY},
    {"stats", INFO_STATS},       {"replication", INFO_REPLICATION}, {"cluster", INFO_CLUSTER},
    {"keyspace", INFO_KEYSPACE}, {"persistence", INFO_PERSISTENCE}, {"all", INFO_ALL},
    {"default", INFO_ALL},       {"everything", INFO_ALL},
};

uint8_t info_sections(const struct command *command)
{
    uint8_t sections = 0;
    if (command->id != COMMAND_INFO || command->argc < 2)
        return INFO_ALL;
    for (uint32_t i = 1; i < command->argc; i++) {
        for (size_t k = 0; k < sizeof section_names / sizeof *section_names; k++) {
            if (span_is_nocase(command->argv[i], section_names[k].name))
                sections |= section_names[k].sections;
        }
    }
    return sections;
}

static void info_server(struct shard *shard, struct buf *text)
{
    uint64_t uptime_s = (shard->now.wall_ms - shard->options.started_wall_ms) / 1000;
    struct span port =
        span_of_text(strrchr(shard->resp_address, ':') == NULL ? ":0" : strrchr(shard->resp_address, ':'));
    buf_append_format(
        text,
        "# Server\r\nredis_version:%s\r\nrondo_version:%s\r\nredis_mode:cluster\r\nrun_id:%016" PRIx64
        "%016" PRIx64 "%08" PRIx32 "\r\nprocess_id:%" PRIu32 "\r\ntcp_port:%.*s\r\nuptime_in_seconds:%" PRIu64
        "\r\nuptime_in_days:%" PRIu64 "\r\nrondo_node:%s\r\nrondo_shards:%u\r\nrondo_durability:%s\r\n\r\n",
        REDIS_VERSION_FOLLOWED, RONDO_VERSION, shard->self_id, hash_mix_u64(shard->options.started_wall_ms),
        shard->options.process_id, shard->options.process_id, (int)port.size - 1, (const char *)port.data + 1,
        uptime_s, uptime_s / 86400, shard->ring->nodes[shard->self].name, shard->options.shards,
        shard->durability);
}

void info_text(struct shard *shard, const struct pending *pending, struct buf *text)
{
    const struct stats_sum *stats = pending->stats;
    uint8_t sections = pending->section;
    if ((sections & INFO_SERVER) != 0)
        info_server(shard, text);
    if ((sections & INFO_CLIENTS) != 0)
        buf_append_format(text, "# Clients\r\nconnected_clients:%" PRIu64 "\r\nblocked_clients:0\r\n\r\n",
                          stats->clients);
    if ((sections & INFO_MEMORY) != 0)
        buf_append_format(text,
                          "# Memory\r\nused_memory:%" PRIu64 "\r\nmaxmemory:%" PRIu64
                          "\r\nmaxmemory_policy:noeviction\r\n\r\n",
                          stats->memory_used, stats->memory_budget);
    /* Clients wait for loading:0; a node listens only once it has recovered. */
    if ((sections & INFO_PERSISTENCE) != 0)
        buf_append_format(text, "# Persistence\r\nloading:0\r\nasync_loading:0\r\naof_enabled:1\r\n\r\n");
    if ((sections & INFO_STATS) != 0)
        buf_append_format(text,
                          "# Stats\r\ntotal_commands_processed:%" PRIu64 "\r\nrondo_requests_done:%" PRIu64
                          "\r\nrondo_requests_not_applied:%" PRIu64 "\r\nrondo_requests_unknown:%" PRIu64
                          "\r\nrondo_requests_forwarded:%" PRIu64 "\r\nrondo_restamps:%" PRIu64
                          "\r\nrondo_write_backs:%" PRIu64 "\r\nrondo_overwritten_concurrent:%" PRIu64
                          "\r\nrondo_cold_reads:%" PRIu64 "\r\nrondo_overloads:%" PRIu64 "\r\n\r\n",
                          stats->commands, stats->requests_done, stats->requests_not_applied,
                          stats->requests_unknown, stats->requests_forwarded, stats->restamps,
                          stats->write_backs, stats->overwritten_concurrent, stats->cold_reads,
                          stats->overloads);
    /* What clients read here decides whether they write here: every node takes writes. */
    if ((sections & INFO_REPLICATION) != 0)
        buf_append_text(text,
                        "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_repl_offset:0\r\n\r\n");
    if ((sections & INFO_CLUSTER) != 0)
        buf_append_text(text, "# Cluster\r\ncluster_enabled:1\r\n\r\n");
    if ((sections & INFO_KEYSPACE) != 0) {
        buf_append_text(text, "# Keyspace\r\n");
        if (stats->keys > 0)
            buf_append_format(text, "db0:keys=%" PRIu64 ",expires=0,avg_ttl=0\r\n", stats->keys);
    }
}

/* ---- CONFIG GET ----------------------------------------------------------------------------------------- */

struct setting {
    const char *name;
    char value[32];
};

#define SETTINGS_MAX 16

static void setting_add(struct setting *settings, uint32_t *count, const char *name, struct buf *value)
{
    assert(*count < SETTINGS_MAX);
    struct setting *setting = &settings[(*count)++];
    setting->name = name;
    span_copy_text(buf_span(value), setting->value, sizeof setting->value);
    buf_clear(value);
}

/* The settings that tools ask for, under Redis's names where Redis has them. */
static uint32_t list_settings(struct shard *shard, struct setting *settings)
{
    uint32_t count = 0;
    struct buf value;
    buf_init(&value, &shard->alloc);
    buf_append_text(&value, "yes");
    setting_add(settings, &count, "cluster-enabled", &value);
    buf_append_text(&value, "");
    setting_add(settings, &count, "save", &value);
    buf_append_text(&value, "yes");
    setting_add(settings, &count, "appendonly", &value);
    buf_append_text(&value, shard->options.durability_always ? "always" : "everysec");
    setting_add(settings, &count, "appendfsync", &value);
    buf_append_u64(&value,
                   (shard->options.memory_bytes + shard->options.buffer_bytes) * shard->options.shards);
    setting_add(settings, &count, "maxmemory", &value);
    buf_append_text(&value, "noeviction");
    setting_add(settings, &count, "maxmemory-policy", &value);
    buf_append_text(&value, "1");
    setting_add(settings, &count, "databases", &value);
    buf_append_u64(&value, shard->options.value_bytes_max);
    setting_add(settings, &count, "proto-max-bulk-len", &value);
    buf_append_text(&value, shard->durability);
    setting_add(settings, &count, "durability", &value);
    buf_append_u64(&value, shard->options.shards);
    setting_add(settings, &count, "shards", &value);
    buf_append_u64(&value, shard->options.key_bytes_max);
    setting_add(settings, &count, "key-bytes-max", &value);
    buf_append_u64(&value, shard->options.value_bytes_max);
    setting_add(settings, &count, "value-bytes-max", &value);
    buf_append_u64(&value, shard->options.clock_skew_max_ms);
    setting_add(settings, &count, "clock-skew-max", &value);
    buf_append_u64(&value, shard->options.request_timeout_ms);
    setting_add(settings, &count, "request-timeout", &value);
    buf_free(&value);
    return count;
}

static bool matches_any(const struct command *command, const char *name)
{
    for (uint32_t i = 2; i < command->argc; i++) {
        if (glob_match(command->argv[i], span_of_text(name)))
            return true;
    }
    return false;
}

void info_config_get(struct shard *shard, const struct command *command, uint8_t proto, struct buf *reply)
{
    struct setting settings[SETTINGS_MAX];
    uint32_t count = list_settings(shard, settings);
    uint32_t matching = 0;
    for (uint32_t i = 0; i < count; i++)
        matching += matches_any(command, settings[i].name);
    resp_reply_map(reply, proto, matching);
    for (uint32_t i = 0; i < count; i++) {
        if (!matches_any(command, settings[i].name))
            continue;
        resp_reply_text(reply, settings[i].name);
        resp_reply_text(reply, settings[i].value);
    }
}

/* ---- CLIENT INFO ---------------------------------------------------------------------------------------- */

void info_client(struct shard *shard, const struct client *client, struct buf *text)
{
    uint64_t age_s = (shard->now.wall_ms - client->opened_ms) / 1000;
    buf_append_format(
        text,
        "id=%" PRIu64 " addr=?:0 laddr=%s fd=0 name=%.*s age=%" PRIu64
        " idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 "
        "rbs=0 rbp=0 obl=%zu oll=0 omem=%zu tot-mem=%zu events=r cmd=client|info user=default redir=-1",
        client->id, shard->resp_address, client->name_size, client->name, age_s, client->out.size,
        client->out.capacity, sizeof *client + client->out.capacity);
    buf_append_format(text, " resp=%u lib-name=%.*s lib-ver=%.*s\n", client->proto, client->lib_name_size,
                      client->lib_name, client->lib_version_size, client->lib_version);
}
