/* A node from start to clean stop. */
#include "edge/node.h"

#include <assert.h>
#include <inttypes.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "edge/clock.h"
#include "edge/loop.h"
#include "edge/say.h"

static const char *const listener_flags[LISTENER_KINDS] = {"--resp", "--http", "--peer"};

struct node {
    const struct node_options *options;
    struct buf *why;
    const char *addresses[LISTENER_KINDS];
    struct listener_sockets sockets[LISTENER_KINDS];
    struct shard *shards[SHARDS_MAX];
    size_t buffer_bytes; /* connection buffers of one loop */
    struct loop_shared shared;
    uint16_t loops_ready; /* loop_init was called for so many */
};

/* ---- the process ---------------------------------------------------------------------------------------- */

#ifdef __GLIBC__
/* Beside one for each shard: for the workers, the log and RocksDB's threads, which allocate in the turns between reads
 * and tables. */
#define ARENAS_MORE 1

/* Free memory at the top of an arena past this goes back, and blocks from this size on are mapped one by one. */
#define TRIM_BYTES (2 << 20)
#define MAP_BYTES (1 << 20)

/* The C library would give each thread its own arena, up to eight per core, and each keeps what its busiest moment
 * took; and it would raise both bounds with the largest block that was freed. What the operator has set stays. */
void node_bound_arenas(uint16_t shards)
{
    if (getenv("MALLOC_ARENA_MAX") == NULL)
        (void)mallopt(M_ARENA_MAX, shards + ARENAS_MORE);
    if (getenv("MALLOC_TRIM_THRESHOLD_") == NULL)
        (void)mallopt(M_TRIM_THRESHOLD, TRIM_BYTES);
    if (getenv("MALLOC_MMAP_THRESHOLD_") == NULL)
        (void)mallopt(M_MMAP_THRESHOLD, MAP_BYTES);
}
#else
void node_bound_arenas(uint16_t shards)
{
    (void)shards;
}
#endif

static void prepare_process(uint16_t shards)
{
    struct rlimit files;
    char threads[16];
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    /* libuv reads it when the first work is queued; one the operator has set stays. */
    (void)snprintf(threads, sizeof threads, "%u", work_threads(shards));
    setenv("UV_THREADPOOL_SIZE", threads, 0);
}

/* ---- shards --------------------------------------------------------------------------------------------- */

/* An eighth of the memory may be connection buffers, or what one value in and one out takes per shard, for clients and
 * for other nodes each, if that is more; but never over a quarter. The shards get the rest, and their rows what of it
 * is not in use. */
static size_t connection_bytes(const struct node_options *options)
{
    size_t bytes = options->memory_bytes / 8;
    size_t least = options->shards * ((size_t)4 * options->value_bytes_max + (2u << 20));
    if (bytes < least)
        bytes = least;
    return bytes < options->memory_bytes / 4 ? bytes : options->memory_bytes / 4;
}

/* As --durability takes it. */
static void describe_durability(const struct node_options *options, char *text, size_t size)
{
    if (options->durability == DURABILITY_INTERVAL)
        (void)snprintf(text, size, "interval:%" PRIu32, options->durability_interval_ms);
    else
        span_copy_text(span_of_text(options->durability == DURABILITY_ALWAYS ? "always" : "os"), text, size);
}

static enum status make_shards(struct node *node)
{
    const struct node_options *options = node->options;
    size_t connections = connection_bytes(options);
    node->buffer_bytes = connections / options->shards;
    char durability[32];
    describe_durability(options, durability, sizeof durability);
    for (uint16_t i = 0; i < options->shards; i++) {
        const struct shard_options shard_options = {
            .shard = i,
            .shards = options->shards,
            .ring = options->dir->ring,
            .meta = &options->dir->meta,
            .bounds = options->dir->bounds,
            .resp_address = span_of_text(options->resp_advertise),
            .http_address = span_of_text(options->http_advertise),
            .memory_bytes = (options->memory_bytes - connections) / options->shards,
            .buffer_bytes = node->buffer_bytes,
            .key_bytes_max = options->key_bytes_max,
            .value_bytes_max = options->value_bytes_max,
            .clock_skew_max_ms = options->clock_skew_max_ms,
            .request_timeout_ms = options->request_timeout_ms,
            .healing = options->healing,
            .blind_writes = options->blind_writes,
            .cold_empty = cold_empty(options->dir->cold),
            .durability_always = options->durability == DURABILITY_ALWAYS,
            .durability = span_of_text(durability),
            .seed = hash_mix_u64(options->seed + i),
            .now = clock_read(),
            .started_wall_ms = options->started_wall_ms,
            .process_id = (uint32_t)getpid(),
            .about = options->about,
            .watch = options->watch,
        };
        node->shards[i] = shard_new(&shard_options);
        if (node->shards[i] == NULL) {
            buf_append_format(node->why,
                              "%zu bytes of memory are too few for %u shards; give more (--memory) or use "
                              "fewer shards (--shards)",
                              options->memory_bytes, options->shards);
            return STATUS_OVERLOADED;
        }
    }
    return data_dir_recover(options->dir, node->shards, options->shards, node->why);
}

/* ---- the log -------------------------------------------------------------------------------------------- */

static void on_durable(void *context, uint16_t shard, uint64_t sequence)
{
    struct node *node = context;
    inbox_push_durable(&node->shared.loops[shard].inbox, sequence);
}

static void on_full(void *context, bool full)
{
    struct node *node = context;
    for (uint16_t i = 0; i < node->options->shards; i++)
        inbox_push_full(&node->shared.loops[i].inbox, full);
}

static void on_fatal(void *context, const char *text)
{
    const struct node *node = context;
    say_and_exit(&node->options->say, 0, span_of_text(text));
}

static enum status on_begun(void *context, struct buf *why)
{
    struct node *node = context;
    return data_dir_log_begun(node->options->dir, why);
}

static enum status start_log(struct node *node)
{
    const struct node_options *options = node->options;
    const struct log_thread_options log_options = {
        .directory = options->dir->log_path,
        .identity = options->dir->identity,
        .resume = &options->dir->log,
        .mode = options->durability,
        .interval_ms = options->durability_interval_ms,
        .shards = options->shards,
        .context = node,
        .begun = on_begun,
        .durable = on_durable,
        .full = on_full,
        .fatal = on_fatal,
    };
    enum status status = log_thread_start(&log_options, &node->shared.log, node->why);
    if (status != STATUS_OK)
        return status;
    struct log_thread_stats stats;
    log_thread_stats(node->shared.log, &stats);
    if (stats.full)
        say_format(&options->say, SAY_WARNING, 0,
                   "there is no room for the log in %s: writes are refused until there is",
                   options->dir->log_path);
    return STATUS_OK;
}

/* ---- loops ---------------------------------------------------------------------------------------------- */

static enum status bind_listeners(struct node *node)
{
    for (unsigned kind = 0; kind < LISTENER_KINDS; kind++) {
        uint16_t copies = kind == LISTENER_PEER ? 1 : node->options->shards;
        enum status status = listener_bind(&node->sockets[kind], node->addresses[kind], listener_flags[kind],
                                           copies, node->why);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status init_loops(struct node *node)
{
    struct loop_shared *shared = &node->shared;
    const struct node_options *options = node->options;
    shared->loops = calloc(options->shards, sizeof *shared->loops);
    if (shared->loops == NULL) {
        buf_append_text(node->why, "no memory for the shards' loops");
        return STATUS_OVERLOADED;
    }
    shared->shards = options->shards;
    shared->dir = options->dir;
    shared->say = options->say;
    shared->limits = options->limits;
    shared->resident_max = options->resident_max;
    shared->key_bytes_max = options->key_bytes_max;
    shared->value_bytes_max = options->value_bytes_max;
    shared->request_timeout_ms = options->request_timeout_ms;
    for (uint16_t i = 0; i < options->shards; i++) {
        shared->loops[i].shard = node->shards[i];
        int error = loop_init(&shared->loops[i], shared, i, node->buffer_bytes);
        if (error != 0) {
            buf_append_format(node->why, "cannot start the loop of shard %u: %s", i, uv_strerror(error));
            return STATUS_IO_ERROR;
        }
        node->loops_ready++;
    }
    return STATUS_OK;
}

static enum status listen_for_datagrams(struct node *node)
{
    int error = datagrams_open(&node->shared.loops[0], &node->sockets[LISTENER_PEER]);
    if (error == 0)
        return STATUS_OK;
    listener_describe(node->addresses[LISTENER_PEER], "--peer, UDP", error, node->why);
    return STATUS_IO_ERROR;
}

static enum status listen_all(struct node *node)
{
    for (uint16_t i = 0; i < node->options->shards; i++) {
        for (unsigned kind = 0; kind < LISTENER_KINDS; kind++) {
            if (kind == LISTENER_PEER && i > 0)
                continue;
            int error = loop_listen(&node->shared.loops[i], (enum loop_listener)kind, &node->sockets[kind]);
            if (error != 0) {
                listener_describe(node->addresses[kind], listener_flags[kind], error, node->why);
                return STATUS_IO_ERROR;
            }
        }
    }
    return STATUS_OK;
}

static void *run_thread(void *context)
{
    loop_run(context);
    return NULL;
}

/* Signals are the first thread's: its loop handles them. */
static void start_threads(struct node *node)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    for (uint16_t i = 1; i < node->options->shards; i++) {
        struct loop *loop = &node->shared.loops[i];
        char name[16];
        (void)snprintf(name, sizeof name, "shard-%u", i);
        if (pthread_create(&loop->thread, NULL, run_thread, loop) != 0)
            say_and_exit(
                &node->options->say, i,
                span_of_text("cannot start the shard's thread; allow more threads or use fewer shards"));
        pthread_setname_np(loop->thread, name);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static enum status run_loops(struct node *node)
{
    const struct node_options *options = node->options;
    say_format(&options->say, SAY_INFO, 0, "listening: resp %s, http %s, peers %s; %u shard%s",
               options->resp_address, options->http_address, options->peer_address, options->shards,
               options->shards == 1 ? "" : "s");
    start_threads(node);
    loop_run(&node->shared.loops[0]);
    for (uint16_t i = 1; i < options->shards; i++)
        pthread_join(node->shared.loops[i].thread, NULL);
    return STATUS_OK;
}

/* ---- start and stop ------------------------------------------------------------------------------------- */

static enum status stop_log(struct node *node)
{
    enum status status = node->shared.log == NULL ? STATUS_OK : log_thread_stop(node->shared.log);
    if (status != STATUS_OK)
        buf_append_text(node->why, "the log could not be written to its end");
    return status;
}

static void free_node(struct node *node)
{
    for (uint16_t i = 0; i < node->loops_ready; i++)
        loop_free(&node->shared.loops[i]);
    free(node->shared.loops);
    for (uint16_t i = 0; i < node->options->shards; i++) {
        if (node->shards[i] != NULL)
            shard_free(node->shards[i]);
    }
    for (unsigned kind = 0; kind < LISTENER_KINDS; kind++)
        listener_close(&node->sockets[kind]);
}

enum status node_run(const struct node_options *options, struct buf *why)
{
    struct node *node = calloc(1, sizeof *node);
    assert(options->shards >= 1 && options->shards <= SHARDS_MAX);
    if (node == NULL)
        return STATUS_OVERLOADED;
    node->options = options;
    node->why = why;
    node->addresses[LISTENER_RESP] = options->resp_address;
    node->addresses[LISTENER_HTTP] = options->http_address;
    node->addresses[LISTENER_PEER] = options->peer_address;
    prepare_process(options->shards);
    enum status (*const steps[])(struct node *) = {bind_listeners,       make_shards, init_loops, start_log,
                                                   listen_for_datagrams, listen_all,  run_loops};
    enum status status = STATUS_OK;
    for (unsigned i = 0; i < sizeof steps / sizeof *steps && status == STATUS_OK; i++)
        status = steps[i](node);
    enum status stopped = stop_log(node);
    free_node(node);
    free(node);
    return status != STATUS_OK ? status : stopped;
}
