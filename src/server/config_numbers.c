/* The numbers, sizes and times of the configuration: their ranges, and where each goes. */
#include "server/config_numbers.h"

enum config_unit {
    UNIT_NONE,
    UNIT_BYTES,
    UNIT_TIME,
};

static const struct {
    enum config_key key;
    enum config_unit unit;
    uint64_t min;
    uint64_t max;
} config_ranges[] = {
    {CONFIG_SHARDS, UNIT_NONE, 1, SHARDS_MAX},
    {CONFIG_MEMORY, UNIT_BYTES, MEMORY_BYTES_MIN, UINT64_C(1) << 44},
    {CONFIG_CLOCK_SKEW_MAX, UNIT_TIME, 10, CLOCK_SKEW_MS_MAX},
    {CONFIG_KEY_BYTES_MAX, UNIT_BYTES, 1, KEY_BYTES_MAX_HARD},
    {CONFIG_VALUE_BYTES_MAX, UNIT_BYTES, 1, VALUE_BYTES_MAX_HARD},
    {CONFIG_REQUEST_TIMEOUT, UNIT_TIME, 1, REQUEST_TIMEOUT_MS_MAX},
    {CONFIG_REQUEST_TIMEOUT_MAX, UNIT_TIME, 1, REQUEST_TIMEOUT_MS_MAX},
    {CONFIG_CLIENTS_MAX, UNIT_NONE, 1, 1000000},
    {CONFIG_CLIENT_OUTPUT_MAX, UNIT_BYTES, CLIENT_OUTPUT_BYTES_MIN, UINT64_C(1) << 40},
    {CONFIG_CLIENT_OUTPUT_TIMEOUT, UNIT_TIME, 0, CLIENT_TIMEOUT_MS_MAX},
    {CONFIG_CLIENT_REQUEST_TIMEOUT, UNIT_TIME, 0, CLIENT_TIMEOUT_MS_MAX},
    {CONFIG_CLIENT_IDLE_TIMEOUT, UNIT_TIME, 0, CLIENT_TIMEOUT_MS_MAX},
    {CONFIG_HTTP_IDLE_TIMEOUT, UNIT_TIME, 0, CLIENT_TIMEOUT_MS_MAX},
    {CONFIG_SLOWLOG_MAX_LEN, UNIT_NONE, 0, SLOWLOG_ENTRIES_MAX},
    {CONFIG_LATENCY_THRESHOLD, UNIT_TIME, 0, LATENCY_THRESHOLD_MS_MAX},
    {CONFIG_HINT_BYTES_MAX, UNIT_BYTES, 1u << 20, UINT64_C(1) << 44},
    {CONFIG_HINT_BANDWIDTH, UNIT_BYTES, 1u << 10, UINT64_C(1) << 40},
    {CONFIG_REPAIR_INTERVAL, UNIT_TIME, REPAIR_INTERVAL_MS_MIN, REPAIR_INTERVAL_MS_MAX},
    {CONFIG_REPAIR_BANDWIDTH, UNIT_BYTES, 1u << 10, UINT64_C(1) << 40},
    {CONFIG_RESCAN_INTERVAL, UNIT_TIME, RESCAN_INTERVAL_MS_MIN, RESCAN_INTERVAL_MS_MAX},
};

static enum status config_range(const struct config *config, size_t range, uint64_t *value, struct buf *why)
{
    char where[1024];
    struct config_source source = config_source_of(config, config_ranges[range].key, where, sizeof(where));
    uint64_t min = config_ranges[range].min;
    uint64_t max = config_ranges[range].max;
    switch (config_ranges[range].unit) {
    case UNIT_BYTES:
        return config_text_bytes(source, min, max, value, why);
    case UNIT_TIME:
        return config_text_duration(source, min, max, value, why);
    default:
        return config_text_number(source, min, max, value, why);
    }
}

/* Microseconds, as in Redis; -1 logs nothing. */
static enum status config_slower(struct config *config, struct buf *why)
{
    char where[1024];
    struct config_source source = config_source_of(config, CONFIG_SLOWLOG_SLOWER, where, sizeof(where));
    config->watch.log_off = span_is(span_of_text(source.text), "-1");
    if (config->watch.log_off)
        return STATUS_OK;
    return config_text_number(source, 0, SLOWLOG_SLOWER_US_MAX, &config->watch.slower_us, why);
}

enum status config_numbers(struct config *config, struct buf *why)
{
    uint64_t values[CONFIG_KEY_COUNT] = {0};
    for (size_t i = 0; i < sizeof(config_ranges) / sizeof(config_ranges[0]); i++) {
        enum status status = config_range(config, i, &values[config_ranges[i].key], why);
        if (status != STATUS_OK)
            return status;
    }
    config->shards = (uint16_t)values[CONFIG_SHARDS];
    config->memory_bytes = values[CONFIG_MEMORY];
    config->clock_skew_max_ms = (uint32_t)values[CONFIG_CLOCK_SKEW_MAX];
    config->key_bytes_max = (uint32_t)values[CONFIG_KEY_BYTES_MAX];
    config->value_bytes_max = (uint32_t)values[CONFIG_VALUE_BYTES_MAX];
    config->request_timeout_ms = (uint32_t)values[CONFIG_REQUEST_TIMEOUT];
    config->limits = (struct client_limits){
        .clients_max = (uint32_t)values[CONFIG_CLIENTS_MAX],
        .resp_idle_ms = (uint32_t)values[CONFIG_CLIENT_IDLE_TIMEOUT],
        .http_idle_ms = (uint32_t)values[CONFIG_HTTP_IDLE_TIMEOUT],
        .request_ms = (uint32_t)values[CONFIG_CLIENT_REQUEST_TIMEOUT],
        .output_ms = (uint32_t)values[CONFIG_CLIENT_OUTPUT_TIMEOUT],
        .output_bytes_max = values[CONFIG_CLIENT_OUTPUT_MAX],
    };
    config->watch = (struct watch_bounds){
        .entries_max = (uint32_t)values[CONFIG_SLOWLOG_MAX_LEN],
        .threshold_ms = values[CONFIG_LATENCY_THRESHOLD],
    };
    enum status status = config_slower(config, why);
    if (status != STATUS_OK)
        return status;
    config->healing = (struct shard_healing){
        .request_timeout_max_ms = (uint32_t)values[CONFIG_REQUEST_TIMEOUT_MAX],
        .repair_interval_ms = (uint32_t)values[CONFIG_REPAIR_INTERVAL],
        .rescan_interval_ms = (uint32_t)values[CONFIG_RESCAN_INTERVAL],
        .repair_bytes_per_s = values[CONFIG_REPAIR_BANDWIDTH],
        .hint_bytes_max = values[CONFIG_HINT_BYTES_MAX],
        .hint_bytes_per_s = values[CONFIG_HINT_BANDWIDTH],
    };
    if (config->request_timeout_ms <= config->healing.request_timeout_max_ms)
        return STATUS_OK;
    buf_append_format(
        why,
        "request-timeout, %u ms, is longer than request-timeout-max, %u ms: lower the one, or raise "
        "the other on all nodes",
        config->request_timeout_ms, config->healing.request_timeout_max_ms);
    return STATUS_BAD_REQUEST;
}
