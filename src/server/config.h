/* The configuration of rondod: defaults, then a file (inih), then flags; what comes later wins.
 *
 * Every setting is kept as the text that was given and where it came from, so that --print-config and error
 * messages can say both; typed values are made from the texts at the end. */
#ifndef RONDO_SERVER_CONFIG_H
#define RONDO_SERVER_CONFIG_H

#include "base/limits.h"
#include "edge/client_watch.h"
#include "edge/log_thread.h"
#include "edge/say.h"
#include "ring/ring.h"
#include "shard/shard.h"

enum config_key {
    CONFIG_NAME,
    CONFIG_DATA,
    CONFIG_INITIAL_CLUSTER,
    CONFIG_RESP,
    CONFIG_HTTP,
    CONFIG_PEER,
    CONFIG_SHARDS,
    CONFIG_DURABILITY,
    CONFIG_MEMORY,
    CONFIG_CLOCK_SKEW_MAX,
    CONFIG_KEY_BYTES_MAX,
    CONFIG_VALUE_BYTES_MAX,
    CONFIG_REQUEST_TIMEOUT,
    CONFIG_REQUEST_TIMEOUT_MAX,
    CONFIG_CLIENTS_MAX,
    CONFIG_CLIENT_OUTPUT_MAX,
    CONFIG_CLIENT_OUTPUT_TIMEOUT,
    CONFIG_CLIENT_REQUEST_TIMEOUT,
    CONFIG_CLIENT_IDLE_TIMEOUT,
    CONFIG_HTTP_IDLE_TIMEOUT,
    CONFIG_SLOWLOG_SLOWER,
    CONFIG_SLOWLOG_MAX_LEN,
    CONFIG_LATENCY_THRESHOLD,
    CONFIG_LOG_LEVEL,
    CONFIG_LOG_FORMAT,
    CONFIG_HINTS,
    CONFIG_HINT_BYTES_MAX,
    CONFIG_HINT_BANDWIDTH,
    CONFIG_BLIND_WRITES,
    CONFIG_REPAIR,
    CONFIG_REPAIR_INTERVAL,
    CONFIG_REPAIR_BANDWIDTH,
    CONFIG_RESCAN_INTERVAL,
    CONFIG_INSECURE,
    CONFIG_KEY_COUNT,
};

enum config_action {
    CONFIG_RUN,
    CONFIG_PRINT,
    CONFIG_HELP,
    CONFIG_VERSION,
};

/* Least memory that a node is started with: tables of its shards, cold tier, queues. */
#define MEMORY_BYTES_MIN ((uint64_t)64 << 20)

/* Longest line of a configuration file (inih's bound); longer lists go on, indented, on the next line. */
#define CONFIG_LINE_BYTES_MAX 199

#define REQUEST_TIMEOUT_MS_MAX 600000u
#define CLOCK_SKEW_MS_MAX 60000u

/* Limits of clients; a day is as good as none. */
#define CLIENT_OUTPUT_BYTES_MIN (UINT64_C(1) << 20)
#define CLIENT_TIMEOUT_MS_MAX 86400000u

/* An hour is as good as never. */
#define SLOWLOG_SLOWER_US_MAX UINT64_C(3600000000)
#define LATENCY_THRESHOLD_MS_MAX 3600000u

/* A round of repair, and of rescans: a second is for tests. */
#define REPAIR_INTERVAL_MS_MIN 1000u
#define REPAIR_INTERVAL_MS_MAX 604800000u
#define RESCAN_INTERVAL_MS_MIN 60000u
#define RESCAN_INTERVAL_MS_MAX 2592000000u

struct config_setting {
    char *text;   /* NULL = not given and without a default */
    char *origin; /* "default", "FILE:LINE", "--flag" */
};

struct config {
    enum config_action action;
    struct config_setting settings[CONFIG_KEY_COUNT];

    /* Made from the texts; pointers go into them and live until config_free. */
    const char *name; /* NULL = not given */
    const char *data;
    const char *resp;
    const char *http;
    const char *peer;
    const char *resp_advertise; /* what clients are told: resp, or this node's host of --initial-cluster */
    const char *http_advertise;
    struct ring_member *members; /* of --initial-cluster; a single one without it */
    uint16_t member_count;
    bool initial_given;
    char *member_text; /* what members points into */
    char *advertise_text[2];
    uint16_t shards;
    enum durability_mode durability;
    uint32_t durability_interval_ms;
    uint64_t memory_bytes;
    uint32_t clock_skew_max_ms;
    uint32_t key_bytes_max;
    uint32_t value_bytes_max;
    uint32_t request_timeout_ms;
    struct client_limits limits;
    struct shard_healing healing;
    bool blind_writes;
    struct watch_bounds watch;
    struct say_sink say; /* without the node: that may be known only from the data directory */
    bool insecure;
};

/* Reads the flags (argv without the program's name) and the file they name. cores: the machine's, for the
 * default of --shards. On any error *why has one sentence that says what to do. config_free is due in every
 * case. */
MUST_CHECK enum status config_parse(struct config *config, int argc, const char *const *argv, unsigned cores,
                                    struct buf *why);
void config_free(struct config *config);

/* What is in force and from where: valid as a configuration file. */
void config_print(const struct config *config, struct buf *text);

/* The text of --help. */
void config_help(struct buf *text);

#endif
