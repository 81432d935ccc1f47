/* rondod: reads the configuration, opens the data directory, runs the node.
 *
 * Exit status: 0 after a clean stop, 1 when the node cannot start or go on, 2 when it was called wrongly.
 * What went wrong is one line on standard error that begins with "rondod: ". */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "edge/clock.h"
#include "edge/data_dir.h"
#include "edge/files.h"
#include "edge/node.h"
#include "edge/say.h"
#include "server/config.h"
#include "server/settings.h"

#define RONDOD_VERSION "0.1.0"

/* The ring of the largest cluster, twice, and texts. */
#define MAIN_MEMORY_BYTES ((size_t)32 << 20)

/* Replicas of a new cluster; one of fewer nodes has as many as it has nodes. */
#define REPLICAS_DEFAULT 3

/* Shares of --memory: a sixteenth, or the least that is of use if that is more, caches the cold tier's blocks; a
 * thirty-second is left for the log's buffers and RocksDB's own work; the rest is the shards'. */
#define COLD_SHARE 16
#define COLD_BYTES_MIN ((size_t)8 << 20)
#define REST_SHARE 32

/* Beside it: code, libraries, stacks, and what the C library keeps. Past it rows give up memory. */
#define PROCESS_BYTES ((size_t)24 << 20)

enum exit_status {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
};

static void print(FILE *stream, const char *prefix, struct span text)
{
    (void)fprintf(stream, "%s%.*s%s", prefix, (int)text.size, (const char *)text.data,
                  prefix[0] != '\0' ? "\n" : "");
}

static void say(void *context, enum say_level level, const char *text)
{
    const struct config *config = context;
    say_line(&config->say, level, 0, span_of_text(text));
}

/* What the node's clients may ask of the process; `system` is room for its name. */
static struct node_about about_of(const struct config *config, const struct settings *settings, char *system,
                                  size_t size)
{
    struct utsname name;
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_bytes = sysconf(_SC_PAGESIZE);
    (void)snprintf(system, size, "unknown");
    if (uname(&name) == 0)
        (void)snprintf(system, size, "%s %s %s", name.sysname, name.release, name.machine);
    return (struct node_about){
        .system = system,
        .memory_bytes = config->memory_bytes,
        .system_memory_bytes = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0,
        .clients_max = config->limits.clients_max,
        .settings = settings->list,
        .settings_count = settings->count,
    };
}

static enum status run(struct config *config, const struct ring *initial, struct buf *why)
{
    size_t memory_bytes = (size_t)config->memory_bytes;
    size_t cold_bytes =
        memory_bytes / COLD_SHARE > COLD_BYTES_MIN ? memory_bytes / COLD_SHARE : COLD_BYTES_MIN;
    struct data_dir_options dir_options = {
        .path = config->data,
        .name = config->name,
        .initial = initial,
        .initial_given = config->initial_given,
        .shards = config->shards,
        .durability = config->durability,
        .cold_memory_bytes = cold_bytes,
        .context = config,
        .say = say,
    };
    struct data_dir *dir = NULL;
    node_bound_arenas(config->shards);
    if (config->name != NULL)
        span_copy_text(span_of_text(config->name), config->say.node, sizeof config->say.node);
    struct now now = clock_read();
    enum status status = data_dir_open(&dir_options, &dir, why);
    if (status != STATUS_OK)
        return status;
    /* The directory may know a name that was not given. */
    uint16_t self = ring_node_index(dir->ring, dir->meta.node_id);
    if (self != RING_NODE_NONE)
        span_copy_text(span_of_text(dir->ring->nodes[self].name), config->say.node, sizeof config->say.node);
    struct settings settings;
    char system[256];
    settings_make(&settings, config);
    struct node_options options = {
        .resp_address = config->resp,
        .http_address = config->http,
        .resp_advertise = config->resp_advertise,
        .http_advertise = config->http_advertise,
        .peer_address = config->peer,
        .shards = config->shards,
        .memory_bytes = memory_bytes - cold_bytes - memory_bytes / REST_SHARE,
        .resident_max = memory_bytes + PROCESS_BYTES,
        .limits = config->limits,
        .durability = config->durability,
        .durability_interval_ms = config->durability_interval_ms,
        .key_bytes_max = config->key_bytes_max,
        .value_bytes_max = config->value_bytes_max,
        .clock_skew_max_ms = config->clock_skew_max_ms,
        .request_timeout_ms = config->request_timeout_ms,
        .healing = config->healing,
        .blind_writes = config->blind_writes,
        .say = config->say,
        .started_wall_ms = now.wall_ms,
        .seed = files_random(),
        .about = about_of(config, &settings, system, sizeof system),
        .watch = config->watch,
        .dir = dir,
    };
    status = node_run(&options, why);
    data_dir_close(dir, status == STATUS_OK);
    return status;
}

/* Makes the first ring from the members and runs the node. */
static enum exit_status start(struct config *config, struct alloc *alloc, struct buf *why)
{
    struct ring_options options = {
        .members = config->members,
        .member_count = config->member_count,
        .replicas = REPLICAS_DEFAULT,
    };
    struct ring *initial = NULL;
    enum status status = ring_initial(alloc, &options, why, &initial);
    if (status != STATUS_OK)
        return status == STATUS_BAD_REQUEST ? EXIT_USAGE : EXIT_FAILED;
    status = run(config, initial, why);
    ring_free(initial);
    return status == STATUS_OK ? EXIT_DONE : EXIT_FAILED;
}

int main(int argc, char **argv)
{
    struct alloc alloc;
    struct buf text;
    struct config config;
    alloc_init(&alloc, MAIN_MEMORY_BYTES);
    buf_init(&text, &alloc);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int arguments = argc > 0 ? argc - 1 : 0;
    enum status status = config_parse(&config, arguments, (const char *const *)(argv + (argc > 0)),
                                      cores > 0 ? (unsigned)cores : 1, &text);
    enum exit_status result = EXIT_DONE;
    if (status != STATUS_OK) {
        result = EXIT_USAGE;
    } else if (config.action == CONFIG_RUN) {
        result = start(&config, &alloc, &text);
    } else {
        if (config.action == CONFIG_HELP)
            config_help(&text);
        else if (config.action == CONFIG_PRINT)
            config_print(&config, &text);
        else
            buf_append_text(&text, "rondod " RONDOD_VERSION "\n");
        print(stdout, "", buf_span(&text));
    }
    if (result != EXIT_DONE) {
        if (text.size == 0)
            buf_append_text(&text, status_text(status));
        print(stderr, "rondod: ", buf_span(&text));
    }
    config_free(&config);
    buf_free(&text);
    return (int)result;
}
