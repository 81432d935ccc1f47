/* The configuration of rondod: defaults, a file, flags, in this order; the last one wins. */
#include "server/config.h"

#include <assert.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edge/files.h"
#include "edge/node.h"
#include "server/config_numbers.h"
#include "server/config_text.h"

#define CONFIG_FILE_BYTES_MAX ((size_t)1 << 20)

static const struct {
    const char *name;
    const char *fallback; /* NULL: none, or worked out */
    const char *example;
} config_keys[CONFIG_KEY_COUNT] = {
    [CONFIG_NAME] = {"name", NULL, "n1"},
    [CONFIG_DATA] = {"data", "./rondo-data", "/var/lib/rondo"},
    [CONFIG_INITIAL_CLUSTER] = {"initial-cluster", NULL,
                                "n1=127.0.0.1:7381,n2=127.0.0.1:7391,n3=127.0.0.1:7401"},
    [CONFIG_RESP] = {"resp", "127.0.0.1:7379", "127.0.0.1:7379"},
    [CONFIG_HTTP] = {"http", "127.0.0.1:7380", "127.0.0.1:7380"},
    [CONFIG_PEER] = {"peer", NULL, "127.0.0.1:7381"},
    [CONFIG_SHARDS] = {"shards", NULL, "4"},
    [CONFIG_DURABILITY] = {"durability", "always", "interval:100"},
    [CONFIG_MEMORY] = {"memory", "1G", "4G"},
    [CONFIG_CLOCK_SKEW_MAX] = {"clock-skew-max", "500", "500"},
    [CONFIG_KEY_BYTES_MAX] = {"key-bytes-max", "16K", "16K"},
    [CONFIG_VALUE_BYTES_MAX] = {"value-bytes-max", "16M", "16M"},
    [CONFIG_REQUEST_TIMEOUT] = {"request-timeout", "2000", "2000"},
    [CONFIG_REQUEST_TIMEOUT_MAX] = {"request-timeout-max", "60s", "60s"},
    [CONFIG_CLIENTS_MAX] = {"clients-max", "10000", "10000"},
    [CONFIG_CLIENT_OUTPUT_MAX] = {"client-output-max", "64M", "64M"},
    [CONFIG_CLIENT_OUTPUT_TIMEOUT] = {"client-output-timeout", "60s", "60s"},
    [CONFIG_CLIENT_REQUEST_TIMEOUT] = {"client-request-timeout", "30s", "30s"},
    [CONFIG_CLIENT_IDLE_TIMEOUT] = {"client-idle-timeout", "0", "1h"},
    [CONFIG_HTTP_IDLE_TIMEOUT] = {"http-idle-timeout", "75s", "75s"},
    [CONFIG_SLOWLOG_SLOWER] = {"slowlog-log-slower-than", "10000", "10000"},
    [CONFIG_SLOWLOG_MAX_LEN] = {"slowlog-max-len", "128", "128"},
    [CONFIG_LATENCY_THRESHOLD] = {"latency-monitor-threshold", "0", "100"},
    [CONFIG_LOG_LEVEL] = {"log-level", "info", "warning"},
    [CONFIG_LOG_FORMAT] = {"log-format", "logfmt", "json"},
    [CONFIG_HINTS] = {"hints", "on", "off"},
    [CONFIG_HINT_BYTES_MAX] = {"hint-bytes-max", "1G", "4G"},
    [CONFIG_HINT_BANDWIDTH] = {"hint-bandwidth", "16M", "64M"},
    [CONFIG_BLIND_WRITES] = {"blind-writes", "on", "off"},
    [CONFIG_REPAIR] = {"repair", "on", "off"},
    [CONFIG_REPAIR_INTERVAL] = {"repair-interval", "10m", "1h"},
    [CONFIG_REPAIR_BANDWIDTH] = {"repair-bandwidth", "32M", "64M"},
    [CONFIG_RESCAN_INTERVAL] = {"rescan-interval", "24h", "7d"},
    [CONFIG_INSECURE] = {"insecure", "no", "yes"},
};

/* Flags that are no settings. */
static const char *const config_flags_only[] = {"config", "print-config", "help", "version"};
#define CONFIG_FLAGS_ONLY_COUNT (sizeof(config_flags_only) / sizeof(config_flags_only[0]))

/* Memory at start-up is small and its lack fatal. */
static char *text_copy(const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        abort();
    return copy;
}

static void setting_set(struct config_setting *setting, const char *text, const char *origin)
{
    char *text_new = text_copy(text);
    char *origin_new = text_copy(origin);
    free(setting->text);
    free(setting->origin);
    setting->text = text_new;
    setting->origin = origin_new;
}

static size_t config_key_find(const char *name)
{
    size_t key = 0;
    while (key < CONFIG_KEY_COUNT && strcmp(config_keys[key].name, name) != 0)
        key++;
    return key;
}

/* Appends '; did you mean "X"?' if some name is near. */
static void config_suggest(const char *given, bool flags, struct buf *why)
{
    const char *names[CONFIG_KEY_COUNT + CONFIG_FLAGS_ONLY_COUNT];
    size_t count = 0;
    for (size_t i = 0; i < CONFIG_KEY_COUNT; i++)
        names[count++] = config_keys[i].name;
    for (size_t i = 0; flags && i < CONFIG_FLAGS_ONLY_COUNT; i++)
        names[count++] = config_flags_only[i];
    size_t nearest = config_text_nearest(given, names, count);
    if (nearest < count)
        buf_append_format(why, "; did you mean %s%s?", flags ? "--" : "", names[nearest]);
    else if (flags)
        buf_append_text(why, "; rondod --help lists them");
}

/* ---- the file ------------------------------------------------------------------------------------------- */

struct config_file {
    struct config *config;
    const char *path;
    const char *at; /* rest of the text */
    unsigned line;
    bool continued;                    /* the line is indented: it goes on with the value before */
    unsigned set_at[CONFIG_KEY_COUNT]; /* line of this file that set it; 0 = none */
    enum status status;
    struct buf *why;
};

static void file_fail(struct config_file *file)
{
    file->status = STATUS_BAD_REQUEST;
    buf_append_format(file->why, "%s:%u: ", file->path, file->line);
}

/* inih's reader, as fgets. */
static char *file_read_line(char *line, int size, void *context)
{
    struct config_file *file = context;
    if (*file->at == '\0' || file->status != STATUS_OK)
        return NULL;
    size_t length = strcspn(file->at, "\n");
    bool newline = file->at[length] == '\n';
    file->line++;
    if (length > CONFIG_LINE_BYTES_MAX || length + 2 > (size_t)size) {
        file_fail(file);
        buf_append_format(file->why,
                          "the line is longer than %d bytes; end it with a comma and go on, indented, on the "
                          "next line",
                          CONFIG_LINE_BYTES_MAX);
        return NULL;
    }
    memcpy(line, file->at, length + newline);
    line[length + newline] = '\0';
    file->continued = line[0] == ' ' || line[0] == '\t';
    file->at += length + newline;
    return line;
}

static int file_value(void *context, const char *section, const char *name, const char *value)
{
    struct config_file *file = context;
    if (file->status != STATUS_OK)
        return 0;
    if (section[0] != '\0') {
        file_fail(file);
        buf_append_format(file->why, "there are no sections; remove [%s]", section);
        return 0;
    }
    size_t key = config_key_find(name);
    if (key == CONFIG_KEY_COUNT) {
        file_fail(file);
        buf_append_format(file->why, "there is no setting \"%s\"", name);
        config_suggest(name, false, file->why);
        return 0;
    }
    struct config_setting *setting = &file->config->settings[key];
    if (file->set_at[key] != 0 && !file->continued) {
        file_fail(file);
        buf_append_format(file->why, "\"%s\" was set already, on line %u", name, file->set_at[key]);
        return 0;
    }
    char *joined = NULL;
    if (file->set_at[key] != 0) {
        const char *comment = strstr(value, " ;"); /* inih cuts comments off first lines only */
        int value_size = comment != NULL ? (int)(comment - value) : (int)strlen(value);
        size_t size = strlen(setting->text) + (size_t)value_size + 1;
        joined = malloc(size);
        if (joined == NULL)
            abort();
        (void)snprintf(joined, size, "%s%.*s", setting->text, value_size, value);
    } else {
        file->set_at[key] = file->line;
    }
    size_t origin_size = strlen(file->path) + 16;
    char *origin = malloc(origin_size);
    if (origin == NULL)
        abort();
    (void)snprintf(origin, origin_size, "%s:%u", file->path, file->set_at[key]);
    setting_set(setting, joined != NULL ? joined : value, origin);
    free(origin);
    free(joined);
    return 1;
}

static enum status config_read_file(struct config *config, const char *path, struct buf *why)
{
    struct alloc alloc;
    struct buf text;
    alloc_init(&alloc, 4 * CONFIG_FILE_BYTES_MAX);
    buf_init(&text, &alloc);
    enum status status = files_read(path, CONFIG_FILE_BYTES_MAX, &text, why);
    if (status == STATUS_OK) {
        buf_put_u8(&text, 0);
        struct config_file file = {
            .config = config, .path = path, .at = (const char *)text.data, .status = STATUS_OK, .why = why};
        if (strlen(file.at) + 1 < text.size) {
            buf_append_format(why, "%s is not a text file", path);
            status = STATUS_BAD_REQUEST;
        } else {
            int line = ini_parse_stream(file_read_line, &file, file_value, &file);
            status = file.status;
            if (status == STATUS_OK && line != 0) {
                buf_append_format(why,
                                  "%s:%d: this is not a setting; write NAME = VALUE, for example resp = "
                                  "127.0.0.1:7379",
                                  path, line);
                status = STATUS_BAD_REQUEST;
            }
        }
    }
    buf_free(&text);
    return status == STATUS_OK ? STATUS_OK : STATUS_BAD_REQUEST;
}

/* ---- flags ---------------------------------------------------------------------------------------------- */

struct config_flags {
    int argc;
    const char *const *argv;
    int at;
    const char *file; /* --config */
    struct config_setting given[CONFIG_KEY_COUNT];
};

/* The value of the flag at hand: after '=', or the next argument. */
static enum status flags_value(struct config_flags *flags, const char *name, const char *equals,
                               const char *example, const char **value, struct buf *why)
{
    if (equals != NULL) {
        *value = equals + 1;
        return STATUS_OK;
    }
    if (flags->at + 1 < flags->argc && strncmp(flags->argv[flags->at + 1], "--", 2) != 0) {
        *value = flags->argv[++flags->at];
        return STATUS_OK;
    }
    buf_append_format(why, "--%s needs a value, for example --%s %s", name, name, example);
    return STATUS_BAD_REQUEST;
}

static enum status flags_one(struct config *config, struct config_flags *flags, struct buf *why)
{
    const char *argument = flags->argv[flags->at];
    if (strcmp(argument, "-h") == 0)
        argument = "--help";
    if (strncmp(argument, "--", 2) != 0 || argument[2] == '\0') {
        buf_append_format(
            why, "unexpected \"%s\": every setting is a flag that begins with --; rondod --help lists them",
            argument);
        return STATUS_BAD_REQUEST;
    }
    const char *equals = strchr(argument, '=');
    size_t size = equals != NULL ? (size_t)(equals - argument) - 2 : strlen(argument) - 2;
    char name[64];
    if (size >= sizeof(name)) {
        buf_append_format(why, "there is no flag %s", argument);
        return STATUS_BAD_REQUEST;
    }
    memcpy(name, argument + 2, size);
    name[size] = '\0';

    if (strcmp(name, "help") == 0 || strcmp(name, "version") == 0 || strcmp(name, "print-config") == 0) {
        enum config_action action = name[0] == 'h'   ? CONFIG_HELP
                                    : name[0] == 'v' ? CONFIG_VERSION
                                                     : CONFIG_PRINT;
        if (config->action != CONFIG_HELP && config->action != CONFIG_VERSION)
            config->action = action;
        return STATUS_OK;
    }
    if (strcmp(name, "config") == 0)
        return flags_value(flags, name, equals, "/etc/rondod.ini", &flags->file, why);
    size_t key = config_key_find(name);
    if (key == CONFIG_KEY_COUNT) {
        buf_append_format(why, "there is no flag --%s", name);
        config_suggest(name, true, why);
        return STATUS_BAD_REQUEST;
    }
    const char *value = "yes";
    if (key != CONFIG_INSECURE || equals != NULL) {
        enum status status = flags_value(flags, name, equals, config_keys[key].example, &value, why);
        if (status != STATUS_OK)
            return status;
    }
    char origin[sizeof(name) + 2];
    (void)snprintf(origin, sizeof(origin), "--%s", name);
    setting_set(&flags->given[key], value, origin);
    return STATUS_OK;
}

/* ---- values --------------------------------------------------------------------------------------------- */

struct config_source config_source_of(const struct config *config, enum config_key key, char *where,
                                      size_t size)
{
    const struct config_setting *setting = &config->settings[key];
    bool flag = setting->origin[0] == '-';
    (void)snprintf(where, size, "%s%s%s", setting->origin, flag ? "" : ": ",
                   flag ? "" : config_keys[key].name);
    return (struct config_source){.where = where, .text = setting->text};
}

static enum status config_words(struct config *config, struct buf *why)
{
    char where[1024];
    enum status status =
        config_text_durability(config_source_of(config, CONFIG_DURABILITY, where, sizeof(where)),
                               &config->durability, &config->durability_interval_ms, why);
    if (status == STATUS_OK)
        status = config_text_level(config_source_of(config, CONFIG_LOG_LEVEL, where, sizeof(where)),
                                   &config->say.level_max, why);
    if (status == STATUS_OK)
        status = config_text_shape(config_source_of(config, CONFIG_LOG_FORMAT, where, sizeof(where)),
                                   &config->say.shape, why);
    if (status == STATUS_OK)
        status = config_text_bool(config_source_of(config, CONFIG_INSECURE, where, sizeof(where)),
                                  &config->insecure, why);
    if (status == STATUS_OK)
        status = config_text_bool(config_source_of(config, CONFIG_HINTS, where, sizeof(where)),
                                  &config->healing.hints, why);
    if (status == STATUS_OK)
        status = config_text_bool(config_source_of(config, CONFIG_REPAIR, where, sizeof(where)),
                                  &config->healing.repair, why);
    if (status == STATUS_OK)
        status = config_text_bool(config_source_of(config, CONFIG_BLIND_WRITES, where, sizeof(where)),
                                  &config->blind_writes, why);
    return status;
}

/* The members of --initial-cluster, and this node among them. */
static enum status config_members(struct config *config, struct ring_member *self, struct buf *why)
{
    const struct config_setting *setting = &config->settings[CONFIG_INITIAL_CLUSTER];
    config->initial_given = setting->text != NULL;
    if (!config->initial_given)
        return STATUS_OK;
    char where[1024];
    struct config_source source = config_source_of(config, CONFIG_INITIAL_CLUSTER, where, sizeof(where));
    config->member_text = text_copy(setting->text);
    enum status status =
        config_text_members(source, config->member_text, &config->members, &config->member_count, why);
    if (status != STATUS_OK)
        return status;
    if (config->name == NULL) {
        buf_append_format(why, "%s needs --name: which of its members is this node?", where);
        return STATUS_BAD_REQUEST;
    }
    for (uint16_t i = 0; i < config->member_count; i++) {
        if (span_is(config->members[i].name, config->name)) {
            *self = config->members[i];
            return STATUS_OK;
        }
    }
    buf_append_format(why, "%s does not name this node, \"%s\"; its members are", where, config->name);
    for (uint16_t i = 0; i < config->member_count; i++)
        buf_append_format(why, "%s %s", i > 0 ? "," : "", (const char *)config->members[i].name.data);
    return STATUS_BAD_REQUEST;
}

/* An address that clients can use: the bound one, or, bound to every interface, this node's host in the
 * cluster. */
static const char *config_advertise(const char *bound, const struct ring_member *self, char **kept)
{
    if (!config_address_any(bound) || self->name.size == 0)
        return bound;
    const char *peer = (const char *)self->peer_address.data;
    size_t host_size = (size_t)(strrchr(peer, ':') - peer);
    struct span port = config_address_port(bound);
    size_t size = host_size + 1 + port.size + 1;
    *kept = malloc(size);
    if (*kept == NULL)
        abort();
    (void)snprintf(*kept, size, "%.*s:%s", (int)host_size, peer, (const char *)port.data);
    return *kept;
}

static enum status config_addresses(struct config *config, const struct ring_member *self, struct buf *why)
{
    static const enum config_key keys[] = {CONFIG_RESP, CONFIG_HTTP, CONFIG_PEER};
    if (config->settings[CONFIG_PEER].text == NULL) {
        if (self->name.size > 0)
            setting_set(&config->settings[CONFIG_PEER], (const char *)self->peer_address.data,
                        "--initial-cluster");
        else
            setting_set(&config->settings[CONFIG_PEER], "127.0.0.1:7381", "default");
    }
    for (size_t i = 0; i < 3; i++) {
        char where[1024];
        struct config_source source = config_source_of(config, keys[i], where, sizeof(where));
        enum status status = config_text_address(source, why);
        if (status != STATUS_OK)
            return status;
        if (!config->insecure && !config_address_loopback(source.text)) {
            struct span host = config_address_host(source.text);
            buf_append_format(
                why,
                "%s would listen on %.*s where anybody on the network could read and write; Rondo has no "
                "authentication yet: bind a loopback address, or pass --insecure if the network is "
                "private",
                where, (int)host.size, (const char *)host.data);
            return STATUS_BAD_REQUEST;
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(source.text, config->settings[keys[j]].text) == 0) {
                buf_append_format(why, "--%s and --%s are both %s: give each its own port",
                                  config_keys[keys[j]].name, config_keys[keys[i]].name, source.text);
                return STATUS_BAD_REQUEST;
            }
        }
    }
    config->resp = config->settings[CONFIG_RESP].text;
    config->http = config->settings[CONFIG_HTTP].text;
    config->peer = config->settings[CONFIG_PEER].text;
    config->resp_advertise = config_advertise(config->resp, self, &config->advertise_text[0]);
    config->http_advertise = config_advertise(config->http, self, &config->advertise_text[1]);
    return STATUS_OK;
}

static enum status config_values(struct config *config, struct buf *why)
{
    struct ring_member self = {0};
    config->name = config->settings[CONFIG_NAME].text;
    config->data = config->settings[CONFIG_DATA].text;
    if (config->data[0] == '\0') {
        buf_append_text(why, "--data needs a directory, for example --data /var/lib/rondo");
        return STATUS_BAD_REQUEST;
    }
    enum status status = config_numbers(config, why);
    if (status == STATUS_OK)
        status = config_words(config, why);
    if (status == STATUS_OK)
        status = config_members(config, &self, why);
    if (status == STATUS_OK)
        status = config_addresses(config, &self, why);
    if (status == STATUS_OK && !config->initial_given) {
        config->members = calloc(1, sizeof(*config->members));
        if (config->members == NULL)
            return STATUS_OVERLOADED;
        config->members[0] = ring_member_of(span_of_text(config->name != NULL ? config->name : "n1"),
                                            span_of_text(config->peer));
        config->member_count = 1;
    }
    return status;
}

/* One core is left to what is not the shards': the log's syncs, flush and compaction, and the network's side of the
 * kernel. Beside a shard on each core they would take turns with all of them (docs/architecture.md has figures). */
static unsigned shards_default(unsigned cores)
{
    unsigned shards = cores > 1 ? cores - 1 : 1;
    return shards < SHARDS_MAX ? shards : SHARDS_MAX;
}

/* ---- the interface -------------------------------------------------------------------------------------- */

enum status config_parse(struct config *config, int argc, const char *const *argv, unsigned cores,
                         struct buf *why)
{
    *config = (struct config){.action = CONFIG_RUN};
    for (size_t key = 0; key < CONFIG_KEY_COUNT; key++) {
        if (config_keys[key].fallback != NULL)
            setting_set(&config->settings[key], config_keys[key].fallback, "default");
    }
    char shards[16];
    (void)snprintf(shards, sizeof(shards), "%u", shards_default(cores));
    setting_set(&config->settings[CONFIG_SHARDS], shards, "default");

    struct config_flags flags = {.argc = argc, .argv = argv};
    enum status status = STATUS_OK;
    for (; flags.at < argc && status == STATUS_OK; flags.at++)
        status = flags_one(config, &flags, why);
    bool done = config->action == CONFIG_HELP || config->action == CONFIG_VERSION;
    if (status == STATUS_OK && !done && flags.file != NULL)
        status = config_read_file(config, flags.file, why);
    for (size_t key = 0; key < CONFIG_KEY_COUNT; key++) {
        if (flags.given[key].text == NULL)
            continue;
        free(config->settings[key].text);
        free(config->settings[key].origin);
        config->settings[key] = flags.given[key];
    }
    return status == STATUS_OK && !done ? config_values(config, why) : status;
}

void config_free(struct config *config)
{
    for (size_t key = 0; key < CONFIG_KEY_COUNT; key++) {
        free(config->settings[key].text);
        free(config->settings[key].origin);
    }
    free(config->members);
    free(config->member_text);
    free(config->advertise_text[0]);
    free(config->advertise_text[1]);
    *config = (struct config){0};
}

/* A long list goes on, indented, after each comma, since lines are bounded. */
static void print_value(struct buf *text, const char *value)
{
    for (const char *at = value; *at != '\0'; at++) {
        buf_put_u8(text, (uint8_t)*at);
        if (*at == ',' && strlen(value) > CONFIG_LINE_BYTES_MAX / 2)
            buf_append_text(text, "\n    ");
    }
}

void config_print(const struct config *config, struct buf *text)
{
    for (size_t key = 0; key < CONFIG_KEY_COUNT; key++) {
        const struct config_setting *setting = &config->settings[key];
        if (setting->text == NULL) {
            const char *meaning = key == CONFIG_NAME ? "n1, or as the data directory says" : "not given";
            buf_append_format(text, "; %s: %s\n", config_keys[key].name, meaning);
            continue;
        }
        buf_append_format(text, "%-19s = ", config_keys[key].name);
        print_value(text, setting->text);
        buf_append_format(text, " ; %s\n", setting->origin);
    }
}
