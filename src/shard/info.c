/* Statistics of the whole node, gathered from its shards by message; INFO.
 *
 * INFO has the sections and names of Redis where there is something to say under them, and rondo_ names beside. What
 * the process tells (memory, processor, connections refused) is up to two seconds old. */
#include <assert.h>
#include <inttypes.h>

#include "base/version.h"
#include "shard/admin.h"
#include "shard/state.h"

/* ---- gathering ------------------------------------------------------------------------------------------ */

void info_ask(struct shard *shard, struct pending *pending)
{
    pending->stats = alloc_get_zeroed(&shard->alloc, sizeof *pending->stats);
    if (pending->stats == NULL) {
        pending_overloaded(pending);
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
    INFO_PERSISTENCE = 8,
    INFO_STATS = 16,
    INFO_REPLICATION = 32,
    INFO_CPU = 64,
    INFO_MODULES = 128,
    INFO_COMMANDSTATS = 256,
    INFO_ERRORSTATS = 512,
    INFO_CLUSTER = 1024,
    INFO_KEYSPACE = 2048,
    INFO_EVERYTHING = 4095,
    INFO_ALL = INFO_EVERYTHING & ~INFO_MODULES,
    INFO_DEFAULT = INFO_EVERYTHING & ~INFO_COMMANDSTATS,
};

static const struct {
    const char *name;
    uint16_t sections;
} section_names[] = {
    {"server", INFO_SERVER},
    {"clients", INFO_CLIENTS},
    {"memory", INFO_MEMORY},
    {"persistence", INFO_PERSISTENCE},
    {"stats", INFO_STATS},
    {"replication", INFO_REPLICATION},
    {"cpu", INFO_CPU},
    {"modules", INFO_MODULES},
    {"commandstats", INFO_COMMANDSTATS},
    {"errorstats", INFO_ERRORSTATS},
    {"cluster", INFO_CLUSTER},
    {"keyspace", INFO_KEYSPACE},
    {"all", INFO_ALL},
    {"everything", INFO_EVERYTHING},
    {"default", INFO_DEFAULT},
};

uint16_t info_sections(const struct command *command)
{
    uint16_t sections = 0;
    if (command->id != COMMAND_INFO || command->argc < 2)
        return INFO_DEFAULT;
    for (uint32_t i = 1; i < command->argc; i++) {
        for (size_t k = 0; k < sizeof section_names / sizeof *section_names; k++) {
            if (span_is_nocase(command->argv[i], section_names[k].name))
                sections |= section_names[k].sections;
        }
    }
    return sections;
}

/* What INFO is made of. */
struct info {
    struct shard *shard;
    const struct stats_sum *stats;
    const struct watch_figures *figures;
    struct buf *text;
};

static void put_number(struct info *info, const char *name, uint64_t number)
{
    buf_append_format(info->text, "%s:%" PRIu64 "\r\n", name, number);
}

/* "1.50M", as Redis writes sizes for people. */
static void put_human(struct info *info, const char *name, uint64_t bytes)
{
    static const char units[] = "BKMGTP";
    double size = (double)bytes;
    size_t unit = 0;
    for (; size >= 1024 && unit + 2 < sizeof units; unit++)
        size /= 1024;
    buf_append_format(info->text, "%s:%.*f%c\r\n", name, unit == 0 ? 0 : 2, size, units[unit]);
}

static void put_sizes(struct info *info, const char *name, const char *name_human, uint64_t bytes)
{
    put_number(info, name, bytes);
    put_human(info, name_human, bytes);
}

static void put_server(struct info *info)
{
    const struct shard *shard = info->shard;
    const struct shard_options *options = &shard->options;
    uint64_t uptime_s = (shard->now.wall_ms - options->started_wall_ms) / 1000;
    const char *colon = strrchr(shard->resp_address, ':');
    const char *system = options->about.system == NULL ? "unknown" : options->about.system;
    buf_append_format(
        info->text,
        "redis_version:%s\r\nrondo_version:%s\r\nredis_mode:cluster\r\nos:%s\r\narch_bits:%zu\r\n"
        "process_id:%" PRIu32 "\r\nrun_id:%016" PRIx64 "%016" PRIx64 "%08" PRIx32 "\r\ntcp_port:%s\r\n",
        REDIS_VERSION_FOLLOWED, RONDO_VERSION, system, 8 * sizeof(void *), options->process_id,
        shard->self_id, hash_mix_u64(options->started_wall_ms), options->process_id,
        colon == NULL ? "0" : colon + 1);
    put_number(info, "server_time_usec", shard->now.wall_ms * 1000);
    put_number(info, "uptime_in_seconds", uptime_s);
    put_number(info, "uptime_in_days", uptime_s / 86400);
    put_number(info, "io_threads_active", options->shards > 1);
    buf_append_format(info->text, "rondo_node:%s\r\nrondo_shards:%u\r\nrondo_durability:%s\r\n",
                      shard->ring->nodes[shard->self].name, options->shards, shard->durability);
}

static void put_clients(struct info *info)
{
    put_number(info, "connected_clients", info->stats->clients);
    put_number(info, "cluster_connections", info->stats->connected_peers);
    put_number(info, "maxclients", info->shard->options.about.clients_max);
    put_number(info, "blocked_clients", 0);
    put_number(info, "tracking_clients", 0);
    put_number(info, "clients_in_timeout_table", 0);
    put_number(info, "rondo_requests_in_flight", info->stats->in_flight);
}

static void put_memory(struct info *info)
{
    const struct stats_sum *stats = info->stats;
    const struct node_about *about = &info->shard->options.about;
    uint64_t outside = stats->buffers + stats->cold_memory;
    uint64_t used = stats->memory_used + outside;
    uint64_t budget = about->memory_bytes != 0 ? about->memory_bytes : stats->memory_budget;
    put_sizes(info, "used_memory", "used_memory_human", used);
    put_sizes(info, "used_memory_rss", "used_memory_rss_human", stats->resident);
    put_sizes(info, "used_memory_peak", "used_memory_peak_human", stats->memory_peak + outside);
    put_sizes(info, "total_system_memory", "total_system_memory_human", about->system_memory_bytes);
    put_sizes(info, "maxmemory", "maxmemory_human", budget);
    buf_append_text(info->text, "maxmemory_policy:noeviction\r\n");
    buf_append_format(info->text, "mem_fragmentation_ratio:%.2f\r\nmem_allocator:libc\r\n",
                      used == 0 ? 0.0 : (double)stats->resident / (double)used);
    put_number(info, "mem_clients_normal", stats->buffers);
    put_number(info, "rondo_rows", stats->rows);
    put_number(info, "rondo_shards_memory", stats->memory_used);
    put_number(info, "rondo_shards_memory_max", stats->memory_budget);
    put_number(info, "rondo_cold_tier_memory", stats->cold_memory);
}

/* Clients wait for loading:0; a node listens only once it has recovered. */
static void put_persistence(struct info *info)
{
    const struct stats_sum *stats = info->stats;
    buf_append_format(info->text,
                      "loading:0\r\nasync_loading:0\r\nrdb_bgsave_in_progress:0\r\naof_enabled:1\r\n"
                      "aof_rewrite_in_progress:0\r\naof_last_write_status:%s\r\n",
                      info->shard->log.full ? "err" : "ok");
    put_number(info, "rondo_log_written_bytes", stats->log_written);
    put_number(info, "rondo_log_syncs", stats->log_syncs);
    put_number(info, "rondo_log_segments", stats->log_segments);
    put_number(info, "rondo_log_not_durable_bytes", stats->log_unsynced);
    put_number(info, "rondo_rows_dirty", stats->rows_dirty);
    put_number(info, "rondo_flushes", stats->flushes);
    put_number(info, "rondo_cold_tier_bytes", stats->cold_bytes);
    put_number(info, "rondo_disk_free_bytes", stats->disk_free);
}

static void put_kibps(struct info *info, const char *name, uint64_t bytes)
{
    buf_append_format(info->text, "%s:%.2f\r\n", name, (double)bytes / 1024);
}

static void put_stats(struct info *info)
{
    const struct stats_sum *stats = info->stats;
    const struct watch_figures *figures = info->figures;
    uint64_t errors = 0;
    for (uint32_t i = 0; i < WATCH_ERRORS_COUNT; i++)
        errors += figures->errors[i];
    put_number(info, "total_connections_received", figures->connections);
    put_number(info, "total_commands_processed", figures->commands);
    put_number(info, "instantaneous_ops_per_sec", figures->commands_rate);
    put_number(info, "total_net_input_bytes", figures->bytes_in);
    put_number(info, "total_net_output_bytes", figures->bytes_out);
    put_kibps(info, "instantaneous_input_kbps", figures->bytes_in_rate);
    put_kibps(info, "instantaneous_output_kbps", figures->bytes_out_rate);
    put_number(info, "rejected_connections", figures->refused_connections);
    put_number(info, "evicted_keys", 0);
    put_number(info, "keyspace_hits", figures->reads[1]);
    put_number(info, "keyspace_misses", figures->reads[0]);
    put_number(info, "total_error_replies", errors);
    put_number(info, "rondo_requests_done", stats->requests_done);
    put_number(info, "rondo_requests_not_applied", stats->requests_not_applied);
    put_number(info, "rondo_requests_unknown", stats->requests_unknown);
    put_number(info, "rondo_requests_forwarded", stats->requests_forwarded);
    put_number(info, "rondo_restamps", stats->restamps);
    put_number(info, "rondo_write_backs", stats->write_backs);
    put_number(info, "rondo_overwritten_concurrent", stats->overwritten_concurrent);
    put_number(info, "rondo_cold_reads", stats->cold_reads);
    put_number(info, "rondo_overloads", stats->overloads);
}

/* What clients read here decides whether they write here: every node takes writes. */
static void put_replication(struct info *info)
{
    buf_append_text(info->text, "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\n"
                                "master_repl_offset:0\r\nsecond_repl_offset:-1\r\nrepl_backlog_active:0\r\n");
    put_number(info, "rondo_replicas", ring_replica_count(info->shard->ring));
    put_number(info, "rondo_nodes", info->shard->ring->node_count);
    put_number(info, "rondo_hints", info->stats->hints);
}

static void put_seconds(struct info *info, const char *name, uint64_t us)
{
    buf_append_format(info->text, "%s:%" PRIu64 ".%06" PRIu64 "\r\n", name, us / 1000000, us % 1000000);
}

static void put_cpu(struct info *info)
{
    const struct stats_sum *stats = info->stats;
    put_seconds(info, "used_cpu_sys", stats->cpu_system);
    put_seconds(info, "used_cpu_user", stats->cpu - stats->cpu_system);
}

static void put_commandstats(struct info *info)
{
    struct buf name;
    buf_init(&name, info->text->alloc);
    for (uint32_t i = 0; i < WATCH_COMMANDS; i++) {
        const struct command_figures *command = &info->figures->command[i];
        uint64_t calls = watch_calls(command);
        buf_clear(&name);
        if ((calls == 0 && command->rejected == 0) || !watch_command_name(i, &name))
            continue;
        buf_append_format(info->text,
                          "cmdstat_%.*s:calls=%" PRIu64 ",usec=%" PRIu64
                          ",usec_per_call=%.2f,rejected_calls=%" PRIu64 ",failed_calls=%" PRIu64 "\r\n",
                          (int)name.size, (const char *)name.data, calls, command->us,
                          calls == 0 ? 0.0 : (double)command->us / (double)calls, command->rejected,
                          command->failed);
    }
    info->text->failed |= name.failed;
    buf_free(&name);
}

static void put_errorstats(struct info *info)
{
    for (uint32_t i = 0; i < WATCH_ERRORS_COUNT; i++) {
        if (info->figures->errors[i] > 0)
            buf_append_format(info->text, "errorstat_%s:count=%" PRIu64 "\r\n", watch_error_name(i),
                              info->figures->errors[i]);
    }
}

static void put_nothing(struct info *info)
{
    (void)info;
}

static void put_cluster(struct info *info)
{
    put_number(info, "cluster_enabled", 1);
}

static void put_keyspace(struct info *info)
{
    const struct stats_sum *stats = info->stats;
    uint64_t expiring = stats->keys_expiring < stats->keys ? stats->keys_expiring : stats->keys;
    if (stats->keys > 0)
        buf_append_format(info->text, "db0:keys=%" PRIu64 ",expires=%" PRIu64 ",avg_ttl=0\r\n", stats->keys,
                          expiring);
}

void info_text(struct shard *shard, struct pending *pending, struct buf *text)
{
    static const struct {
        enum info_section section;
        const char *title;
        void (*put)(struct info *info);
    } parts[] = {
        {INFO_SERVER, "Server", put_server},
        {INFO_CLIENTS, "Clients", put_clients},
        {INFO_MEMORY, "Memory", put_memory},
        {INFO_PERSISTENCE, "Persistence", put_persistence},
        {INFO_STATS, "Stats", put_stats},
        {INFO_REPLICATION, "Replication", put_replication},
        {INFO_CPU, "CPU", put_cpu},
        {INFO_MODULES, "Modules", put_nothing},
        {INFO_COMMANDSTATS, "Commandstats", put_commandstats},
        {INFO_ERRORSTATS, "Errorstats", put_errorstats},
        {INFO_CLUSTER, "Cluster", put_cluster},
        {INFO_KEYSPACE, "Keyspace", put_keyspace},
    };
    struct watch_figures *figures;
    if (!gather_figures(shard, pending, &figures)) {
        text->failed = true;
        return;
    }
    struct info info = {.shard = shard, .stats = pending->stats, .figures = figures, .text = text};
    bool first = true;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if ((pending->sections & parts[i].section) == 0)
            continue;
        buf_append_format(text, "%s# %s\r\n", first ? "" : "\r\n", parts[i].title);
        parts[i].put(&info);
        first = false;
    }
    alloc_put(&shard->alloc, figures, sizeof *figures);
}
