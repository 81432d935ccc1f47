/* Settings for CONFIG GET: Redis's names for what tools ask, each with what is true of this node; then rondod's own.
 * Sizes are in bytes and times in milliseconds, but where Redis has another unit. */
#include "server/settings.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/config_text.h"

/* What the loops ask of the sockets of clients. */
#define TCP_KEEPALIVE_S 60

static void add(struct settings *settings, const char *name, const char *value)
{
    assert(settings->count < SETTINGS_MAX);
    settings->list[settings->count++] =
        (struct node_setting){.name = name, .value = value == NULL ? "" : value};
}

static void add_format(struct settings *settings, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add_format(struct settings *settings, const char *name, const char *format, ...)
{
    char *at = settings->text + settings->text_size;
    size_t room = sizeof settings->text - settings->text_size;
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(at, room, format, arguments);
    va_end(arguments);
    assert(size >= 0 && (size_t)size < room); /* numbers and addresses, all of them bounded */
    settings->text_size += (size_t)size + 1;
    add(settings, name, at);
}

static void add_number(struct settings *settings, const char *name, uint64_t number)
{
    add_format(settings, name, "%" PRIu64, number);
}

static const char *yes_no(bool value)
{
    return value ? "yes" : "no";
}

static const char *on_off(bool value)
{
    return value ? "on" : "off";
}

static void add_redis(struct settings *settings, const struct config *config)
{
    const struct client_limits *limits = &config->limits;
    struct span host = config_address_host(config->resp);
    struct span port = config_address_port(config->resp);
    add_format(settings, "bind", "%.*s", (int)host.size, (const char *)host.data);
    add_format(settings, "port", "%.*s", (int)port.size, (const char *)port.data);
    add(settings, "unixsocket", "");
    add(settings, "tls-port", "0");
    add(settings, "protected-mode", yes_no(!config->insecure));
    add(settings, "requirepass", "");
    add(settings, "dir", config->data);
    add(settings, "daemonize", "no");
    add(settings, "loglevel", config->settings[CONFIG_LOG_LEVEL].text);
    add(settings, "logfile", "");
    add(settings, "databases", "1");
    add(settings, "save", "");
    add(settings, "appendonly", "yes");
    add(settings, "appendfsync",
        config->durability == DURABILITY_ALWAYS     ? "always"
        : config->durability == DURABILITY_INTERVAL ? "everysec"
                                                    : "no");
    add_number(settings, "maxmemory", config->memory_bytes);
    add(settings, "maxmemory-policy", "noeviction");
    add_number(settings, "maxclients", limits->clients_max);
    add_number(settings, "timeout", (limits->resp_idle_ms + 999u) / 1000u);
    add_number(settings, "tcp-keepalive", TCP_KEEPALIVE_S);
    add_number(settings, "proto-max-bulk-len", config->value_bytes_max);
    add_format(settings, "client-output-buffer-limit", "normal %" PRIu64 " 0 0 slave 0 0 0 pubsub 0 0 0",
               limits->output_bytes_max);
    add(settings, "cluster-enabled", "yes");
    add(settings, "replicaof", "");
    add(settings, "notify-keyspace-events", "");
    add_number(settings, "io-threads", config->shards);
    add(settings, "latency-tracking", "yes");
}

static void add_rondo(struct settings *settings, const struct config *config)
{
    const struct client_limits *limits = &config->limits;
    const struct shard_healing *healing = &config->healing;
    add(settings, "name", config->name);
    add(settings, "data", config->data);
    add(settings, "initial-cluster", config->settings[CONFIG_INITIAL_CLUSTER].text);
    add(settings, "resp", config->resp);
    add(settings, "http", config->http);
    add(settings, "peer", config->peer);
    add_number(settings, "shards", config->shards);
    add(settings, "durability", config->settings[CONFIG_DURABILITY].text);
    add_number(settings, "memory", config->memory_bytes);
    add_number(settings, "clock-skew-max", config->clock_skew_max_ms);
    add_number(settings, "key-bytes-max", config->key_bytes_max);
    add_number(settings, "value-bytes-max", config->value_bytes_max);
    add_number(settings, "request-timeout", config->request_timeout_ms);
    add_number(settings, "request-timeout-max", healing->request_timeout_max_ms);
    add_number(settings, "clients-max", limits->clients_max);
    add_number(settings, "client-output-max", limits->output_bytes_max);
    add_number(settings, "client-output-timeout", limits->output_ms);
    add_number(settings, "client-request-timeout", limits->request_ms);
    add_number(settings, "client-idle-timeout", limits->resp_idle_ms);
    add_number(settings, "http-idle-timeout", limits->http_idle_ms);
    add(settings, "log-level", config->settings[CONFIG_LOG_LEVEL].text);
    add(settings, "log-format", config->settings[CONFIG_LOG_FORMAT].text);
    add(settings, "hints", on_off(healing->hints));
    add_number(settings, "hint-bytes-max", healing->hint_bytes_max);
    add_number(settings, "hint-bandwidth", healing->hint_bytes_per_s);
    add(settings, "blind-writes", on_off(config->blind_writes));
    add(settings, "repair", on_off(healing->repair));
    add_number(settings, "repair-interval", healing->repair_interval_ms);
    add_number(settings, "repair-bandwidth", healing->repair_bytes_per_s);
    add_number(settings, "rescan-interval", healing->rescan_interval_ms);
    add(settings, "insecure", yes_no(config->insecure));
}

void settings_make(struct settings *settings, const struct config *config)
{
    settings->count = 0;
    settings->text_size = 0;
    add_redis(settings, config);
    add_rondo(settings, config);
}
