/* Texts of settings made into values. */
#include "server/config_text.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum status config_text_number(struct config_source source, uint64_t min, uint64_t max, uint64_t *number,
                               struct buf *why)
{
    enum status status = span_parse_u64(span_of_text(source.text), number);
    if (status == STATUS_OK && *number >= min && *number <= max)
        return STATUS_OK;
    buf_append_format(why, "%s: \"%s\" is not a number from %llu to %llu", source.where, source.text,
                      (unsigned long long)min, (unsigned long long)max);
    return STATUS_BAD_REQUEST;
}

/* The power of 1024 that a unit stands for, or -1. */
static int unit_power(struct span unit)
{
    static const struct {
        const char *name;
        int power;
    } units[] = {{"", 0},   {"B", 0},   {"K", 1}, {"KB", 1}, {"KIB", 1}, {"M", 2},
                 {"MB", 2}, {"MIB", 2}, {"G", 3}, {"GB", 3}, {"GIB", 3}};
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (span_is_nocase(unit, units[i].name))
            return units[i].power;
    }
    return -1;
}

/* A size as people write it. */
static void bytes_append(struct buf *text, uint64_t bytes)
{
    static const char *const units[] = {"", "K", "M", "G"};
    size_t unit = 0;
    while (unit < 3 && bytes > 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    buf_append_format(text, "%llu%s", (unsigned long long)bytes, units[unit]);
}

enum status config_text_bytes(struct config_source source, uint64_t min, uint64_t max, uint64_t *bytes,
                              struct buf *why)
{
    size_t digits = strspn(source.text, "0123456789");
    struct span unit = span_of_text(source.text + digits);
    while (unit.size > 0 && unit.data[0] == ' ')
        unit = span_of(unit.data + 1, unit.size - 1);
    int power = unit_power(unit);
    uint64_t number = 0;
    bool good =
        digits > 0 && power >= 0 && span_parse_u64(span_of(source.text, digits), &number) == STATUS_OK;
    for (int i = 0; good && i < power; i++) {
        good = number <= UINT64_MAX / 1024;
        number *= 1024;
    }
    if (good && number >= min && number <= max) {
        *bytes = number;
        return STATUS_OK;
    }
    buf_append_format(why, "%s: \"%s\" is not a size from ", source.where, source.text);
    bytes_append(why, min);
    buf_append_text(why, " to ");
    bytes_append(why, max);
    buf_append_text(why, "; write it in bytes or with K, M or G, for example 512M");
    return STATUS_BAD_REQUEST;
}

static const struct {
    const char *name;
    uint64_t ms;
} duration_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"min", 60000},
                      {"s", 1000},     {"ms", 1},      {"", 1}};

#define DURATION_UNITS_COUNT (sizeof(duration_units) / sizeof(duration_units[0]))

static void duration_append(struct buf *text, uint64_t ms)
{
    size_t unit = 0;
    while (ms % duration_units[unit].ms != 0)
        unit++;
    buf_append_format(text, "%llu%s", (unsigned long long)(ms / duration_units[unit].ms),
                      duration_units[unit].name);
}

enum status config_text_duration(struct config_source source, uint64_t min_ms, uint64_t max_ms, uint64_t *ms,
                                 struct buf *why)
{
    size_t digits = strspn(source.text, "0123456789");
    struct span unit = span_of_text(source.text + digits);
    while (unit.size > 0 && unit.data[0] == ' ')
        unit = span_of(unit.data + 1, unit.size - 1);
    size_t i = 0;
    while (i < DURATION_UNITS_COUNT && !span_is_nocase(unit, duration_units[i].name))
        i++;
    uint64_t number = 0;
    if (digits > 0 && i < DURATION_UNITS_COUNT &&
        span_parse_u64(span_of(source.text, digits), &number) == STATUS_OK &&
        number <= max_ms / duration_units[i].ms && number * duration_units[i].ms >= min_ms) {
        *ms = number * duration_units[i].ms;
        return STATUS_OK;
    }
    buf_append_format(why, "%s: \"%s\" is not a time from ", source.where, source.text);
    duration_append(why, min_ms);
    buf_append_text(why, " to ");
    duration_append(why, max_ms);
    buf_append_text(why, "; write it in milliseconds or with s, m, h or d, for example 10m");
    return STATUS_BAD_REQUEST;
}

enum status config_text_bool(struct config_source source, bool *value, struct buf *why)
{
    static const char *const names[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (span_is_nocase(span_of_text(source.text), names[i])) {
            *value = i % 2 == 1;
            return STATUS_OK;
        }
    }
    buf_append_format(why, "%s: \"%s\" is neither yes nor no, neither on nor off", source.where, source.text);
    return STATUS_BAD_REQUEST;
}

enum status config_text_durability(struct config_source source, enum durability_mode *mode,
                                   uint32_t *interval_ms, struct buf *why)
{
    static const char prefix[] = "interval:";
    *interval_ms = 0;
    if (strcmp(source.text, "always") == 0) {
        *mode = DURABILITY_ALWAYS;
        return STATUS_OK;
    }
    if (strcmp(source.text, "os") == 0) {
        *mode = DURABILITY_OS;
        return STATUS_OK;
    }
    uint64_t number = 0;
    if (strncmp(source.text, prefix, sizeof(prefix) - 1) == 0 &&
        span_parse_u64(span_of_text(source.text + sizeof(prefix) - 1), &number) == STATUS_OK && number >= 1 &&
        number <= 60000) {
        *mode = DURABILITY_INTERVAL;
        *interval_ms = (uint32_t)number;
        return STATUS_OK;
    }
    buf_append_format(
        why,
        "%s: \"%s\" is not a durability; it is always (acknowledged means on disk), interval:MS (synced "
        "every MS milliseconds, 1 to 60000) or os (synced when the system likes)",
        source.where, source.text);
    return STATUS_BAD_REQUEST;
}

enum status config_text_level(struct config_source source, enum say_level *level, struct buf *why)
{
    static const char *const names[] = {
        [SAY_ERROR] = "error", [SAY_WARNING] = "warning", [SAY_INFO] = "info", [SAY_DEBUG] = "debug"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(source.text, names[i]) == 0) {
            *level = (enum say_level)i;
            return STATUS_OK;
        }
    }
    buf_append_format(why, "%s: \"%s\" is not a level; it is error, warning, info or debug", source.where,
                      source.text);
    return STATUS_BAD_REQUEST;
}

enum status config_text_shape(struct config_source source, enum say_shape *shape, struct buf *why)
{
    bool json = strcmp(source.text, "json") == 0;
    *shape = json ? SAY_JSON : SAY_LOGFMT;
    if (json || strcmp(source.text, "logfmt") == 0)
        return STATUS_OK;
    buf_append_format(why, "%s: \"%s\" is not a format of log lines; it is logfmt or json", source.where,
                      source.text);
    return STATUS_BAD_REQUEST;
}

/* ---- addresses ------------------------------------------------------------------------------------------ */

struct span config_address_port(const char *address)
{
    const char *colon = strrchr(address, ':');
    return span_of_text(colon != NULL ? colon + 1 : "");
}

struct span config_address_host(const char *address)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL)
        return span_of(address, 0);
    size_t size = (size_t)(colon - address);
    if (size >= 2 && address[0] == '[' && address[size - 1] == ']')
        return span_of(address + 1, size - 2);
    return span_of(address, size);
}

/* Host characters: names, IPv4, and between brackets IPv6. */
static bool host_valid(struct span host, bool bracketed)
{
    if (host.size == 0)
        return false;
    for (size_t i = 0; i < host.size; i++) {
        uint8_t c = host.data[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                     c == '-' || c == '_';
        if (!plain && !(bracketed && (c == ':' || c == '%')))
            return false;
    }
    return true;
}

enum status config_text_address(struct config_source source, struct buf *why)
{
    struct span host = config_address_host(source.text);
    uint64_t port = 0;
    bool good = strlen(source.text) < ADDRESS_BYTES_MAX && host_valid(host, source.text[0] == '[') &&
                span_parse_u64(config_address_port(source.text), &port) == STATUS_OK && port >= 1 &&
                port <= 65535;
    if (good)
        return STATUS_OK;
    buf_append_format(
        why,
        "%s: \"%s\" is not an address; write HOST:PORT with a port from 1 to 65535, for example "
        "127.0.0.1:7379 or [::1]:7379",
        source.where, source.text);
    return STATUS_BAD_REQUEST;
}

/* The host as text; false when it is too long to be a number. */
static bool host_text(const char *address, char text[INET6_ADDRSTRLEN + 1])
{
    struct span host = config_address_host(address);
    if (host.size > INET6_ADDRSTRLEN)
        return false;
    memcpy(text, host.data, host.size);
    text[host.size] = '\0';
    return true;
}

bool config_address_loopback(const char *address)
{
    char text[INET6_ADDRSTRLEN + 1];
    struct in_addr ipv4;
    struct in6_addr ipv6;
    if (!host_text(address, text))
        return false;
    if (strcmp(text, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, text, &ipv4) == 1)
        return ntohl(ipv4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, text, &ipv6) == 1 && memcmp(&ipv6, &in6addr_loopback, sizeof(ipv6)) == 0;
}

bool config_address_any(const char *address)
{
    char text[INET6_ADDRSTRLEN + 1];
    struct in_addr ipv4;
    struct in6_addr ipv6;
    if (!host_text(address, text))
        return false;
    if (inet_pton(AF_INET, text, &ipv4) == 1)
        return ipv4.s_addr == htonl(INADDR_ANY);
    return inet_pton(AF_INET6, text, &ipv6) == 1 && memcmp(&ipv6, &in6addr_any, sizeof(ipv6)) == 0;
}

/* ---- lists ---------------------------------------------------------------------------------------------- */

enum status config_text_members(struct config_source source, char *list, struct ring_member **members,
                                uint16_t *count, struct buf *why)
{
    struct ring_member *found = calloc(NODES_MAX, sizeof(*found));
    uint16_t found_count = 0;
    if (found == NULL)
        return STATUS_OVERLOADED;
    enum status status = STATUS_OK;
    for (char *at = list; at != NULL && status == STATUS_OK;) {
        char *part = at + strspn(at, " \t");
        char *comma = strchr(part, ',');
        at = comma != NULL ? comma + 1 : NULL;
        if (comma != NULL)
            *comma = '\0';
        for (size_t size = strlen(part); size > 0 && (part[size - 1] == ' ' || part[size - 1] == '\t');
             size--)
            part[size - 1] = '\0';
        char *equals = strchr(part, '=');
        if (equals == NULL || equals == part || found_count == NODES_MAX) {
            if (found_count == NODES_MAX)
                buf_append_format(why, "%s: more than %u members", source.where, NODES_MAX);
            else
                buf_append_format(
                    why,
                    "%s: \"%s\" is not a member; write NAME=HOST:PEERPORT,NAME=HOST:PEERPORT, for "
                    "example n1=127.0.0.1:7381,n2=127.0.0.1:7391,n3=127.0.0.1:7401",
                    source.where, part);
            status = STATUS_BAD_REQUEST;
            break;
        }
        *equals = '\0';
        status = config_text_address((struct config_source){.where = source.where, .text = equals + 1}, why);
        found[found_count++] = ring_member_of(span_of_text(part), span_of_text(equals + 1));
    }
    if (status != STATUS_OK) {
        free(found);
        return status;
    }
    *members = found;
    *count = found_count;
    return STATUS_OK;
}

/* Levenshtein's distance of two short texts. */
static size_t text_distance(const char *a, const char *b)
{
    size_t row[64];
    size_t a_size = strlen(a);
    size_t b_size = strlen(b);
    if (b_size >= sizeof(row) / sizeof(row[0]) || a_size > 2 * sizeof(row) / sizeof(row[0]))
        return SIZE_MAX;
    for (size_t j = 0; j <= b_size; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[b_size];
}

/* How many bytes two texts have in common at their beginnings. */
static size_t text_common(const char *a, const char *b)
{
    size_t size = 0;
    while (a[size] != '\0' && a[size] == b[size])
        size++;
    return size;
}

size_t config_text_nearest(const char *given, const char *const *names, size_t count)
{
    size_t nearest = count;
    size_t nearest_distance = strlen(given) / 3 + 2;
    for (size_t i = 0; i < count; i++) {
        size_t distance = text_distance(given, names[i]);
        /* A beginning of a name, as "mem" of "memory", is near too; so is "durable" to "durability". */
        size_t common = text_common(given, names[i]);
        if (common >= 3 && given[common] == '\0')
            distance = 1;
        else if (common >= 4 && 2 * common >= strlen(given) && distance > 2)
            distance = 2;
        if (distance < nearest_distance) {
            nearest = i;
            nearest_distance = distance;
        }
    }
    return nearest;
}
