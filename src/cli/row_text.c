/* Rows as JSON lines. Jansson parses; writing is done by hand, because that is faster and the form is small. */
#include "cli/row_text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "base/base64.h"
#include "proto/json.h"

#define PARSE_FLAGS (JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL)

/* Milliseconds that a double holds exactly. */
#define TTL_MS_MAX (UINT64_C(1) << 53)

void plain_row_init(struct plain_row *row, struct alloc *alloc)
{
    *row = (struct plain_row){.ttl_ms = 0};
    buf_init(&row->key, alloc);
    buf_init(&row->value, alloc);
}

void plain_row_free(struct plain_row *row)
{
    buf_free(&row->key);
    buf_free(&row->value);
}

static enum status wrong(char why[ROW_WHY_BYTES_MAX], const char *format, const char *detail)
{
    snprintf(why, ROW_WHY_BYTES_MAX, format, detail);
    return STATUS_MALFORMED;
}

/* The object of a line, or NULL and why. */
static json_t *parse_object(struct span line, char why[ROW_WHY_BYTES_MAX])
{
    json_error_t error;
    json_t *json = json_loadb((const char *)line.data, line.size, PARSE_FLAGS, &error);
    if (json == NULL)
        (void)wrong(why, "is no JSON: %s", error.text);
    else if (!json_is_object(json))
        (void)wrong(why, "is no JSON object%s; write {\"key\":\"…\",\"value\":\"…\"}", "");
    if (json_is_object(json))
        return json;
    json_decref(json);
    return NULL;
}

/* Bytes that stand as text in member `name` or as base64 in `base64_name`. NOT_FOUND: in neither. */
static enum status take_bytes(const json_t *object, const char *name, const char *base64_name,
                              struct buf *bytes, char why[ROW_WHY_BYTES_MAX])
{
    const json_t *text = json_object_get(object, name);
    const json_t *base64 = json_object_get(object, base64_name);
    const json_t *given = text != NULL ? text : base64;
    buf_clear(bytes);
    if (given == NULL)
        return STATUS_NOT_FOUND;
    if (text != NULL && base64 != NULL)
        return wrong(why, "has both \"%s\" and its base64; keep one", name);
    if (!json_is_string(given))
        return wrong(why, "has a \"%s\" that is no text; put it into quotes",
                     text != NULL ? name : base64_name);
    struct span span = span_of(json_string_value(given), json_string_length(given));
    if (text != NULL)
        buf_append_span(bytes, span);
    else if (base64_decode(bytes, span) == STATUS_MALFORMED)
        return wrong(why, "has a \"%s\" that is not base64 (RFC 4648)", base64_name);
    return bytes->failed ? STATUS_OVERLOADED : STATUS_OK;
}

/* "ttl": seconds, to the nearest millisecond, never to 0. */
static enum status take_ttl(const json_t *ttl, uint64_t *ttl_ms, char why[ROW_WHY_BYTES_MAX])
{
    *ttl_ms = 0;
    if (ttl == NULL)
        return STATUS_OK;
    double ms = json_number_value(ttl) * 1000;
    if (!json_is_number(ttl) || !(ms > 0) || ms > (double)TTL_MS_MAX)
        return wrong(why,
                     "has a \"ttl\" that is no number of seconds above 0%s; leave it out for a value that "
                     "never expires",
                     "");
    *ttl_ms = (uint64_t)(ms + 0.5);
    *ttl_ms += *ttl_ms == 0;
    return STATUS_OK;
}

/* A slip like "tttl" must not store a value for ever. */
static enum status check_members(const json_t *object, char why[ROW_WHY_BYTES_MAX])
{
    static const char *const members[] = {"key", "key_base64", "value", "value_base64", "ttl"};
    size_t known = 0;
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        known += json_object_get(object, members[i]) != NULL;
    if (known == json_object_size(object))
        return STATUS_OK;
    if (json_object_get(object, "stamp") != NULL)
        return wrong(why,
                     "has a version: it is of 'rondo dump --local%s', which is for comparing nodes; load "
                     "what 'rondo dump' writes",
                     "");
    return wrong(why, "has a member besides key, value, their base64 and ttl%s", "");
}

enum status plain_row_parse(struct plain_row *row, struct span line, char why[ROW_WHY_BYTES_MAX])
{
    json_t *object = parse_object(line, why);
    if (object == NULL)
        return STATUS_MALFORMED;
    enum status status = take_bytes(object, "key", "key_base64", &row->key, why);
    if (status == STATUS_NOT_FOUND)
        status = wrong(why, "has no \"key\"%s", "");
    if (status == STATUS_OK)
        status = check_members(object, why);
    if (status == STATUS_OK)
        status = take_bytes(object, "value", "value_base64", &row->value, why);
    if (status == STATUS_NOT_FOUND)
        status = wrong(why, "has no \"value\"%s", "");
    if (status == STATUS_OK)
        status = take_ttl(json_object_get(object, "ttl"), &row->ttl_ms, why);
    json_decref(object);
    return status;
}

static void put_bytes(struct buf *buf, const char *name, struct span bytes)
{
    bool text = json_is_text(bytes);
    buf_append_text(buf, "\"");
    buf_append_text(buf, name);
    if (text) {
        buf_append_text(buf, "\":\"");
        json_put_escaped(buf, bytes);
    } else {
        buf_append_text(buf, "_base64\":\"");
        base64_put(buf, bytes);
    }
    buf_append_text(buf, "\"");
}

void plain_row_put(struct buf *buf, struct span key, struct span value, uint64_t ttl_ms)
{
    buf_append_text(buf, "{");
    put_bytes(buf, "key", key);
    buf_append_text(buf, ",");
    put_bytes(buf, "value", value);
    if (ttl_ms > 0) {
        buf_append_text(buf, ",\"ttl\":");
        buf_append_u64(buf, ttl_ms / 1000);
        if (ttl_ms % 1000 != 0)
            buf_append_format(buf, ".%03" PRIu64, ttl_ms % 1000);
    }
    buf_append_text(buf, "}\n");
}

/* ---- rows of one node ----------------------------------------------------------------------------------- */

void local_row_init(struct local_row *row, struct alloc *alloc)
{
    *row = (struct local_row){.has_value = false};
    buf_init(&row->key, alloc);
    buf_init(&row->value, alloc);
}

void local_row_free(struct local_row *row)
{
    buf_free(&row->key);
    buf_free(&row->value);
}

/* A stamp's text in member `name`; no stamp where there is no such member. */
static enum status take_stamp(const json_t *object, const char *name, struct stamp *stamp)
{
    const json_t *text = json_object_get(object, name);
    *stamp = (struct stamp){.time = 0};
    if (text == NULL)
        return STATUS_OK;
    if (!json_is_string(text))
        return STATUS_MALFORMED;
    return stamp_parse(span_of_text(json_string_value(text)), stamp);
}

static enum status take_expiry(const json_t *object, uint64_t *expiry_ms)
{
    const json_t *number = json_object_get(object, "expiry_ms");
    *expiry_ms = 0;
    if (number == NULL)
        return STATUS_OK;
    if (!json_is_integer(number) || json_integer_value(number) < 0)
        return STATUS_MALFORMED;
    *expiry_ms = (uint64_t)json_integer_value(number);
    return STATUS_OK;
}

static enum status take_versions(const json_t *object, struct local_row *row)
{
    const json_t *override = json_object_get(object, "override");
    struct stamp applies_to;
    row->has_override = override != NULL;
    row->override_applies = false;
    row->override_expiry_ms = 0;
    row->version.override = (struct stamp){.time = 0};
    enum status status = take_stamp(object, "stamp", &row->version.value);
    if (status == STATUS_OK)
        status = take_expiry(object, &row->expiry_ms);
    if (status != STATUS_OK || override == NULL)
        return status;
    if (!json_is_object(override))
        return STATUS_MALFORMED;
    status = take_stamp(override, "stamp", &row->version.override);
    if (status == STATUS_OK)
        status = take_expiry(override, &row->override_expiry_ms);
    if (status == STATUS_OK)
        status = take_stamp(override, "applies_to", &applies_to);
    if (status == STATUS_OK)
        row->override_applies = stamp_none(applies_to) || stamp_compare(applies_to, row->version.value) == 0;
    return status;
}

enum status local_row_parse(struct local_row *row, struct span line, char why[ROW_WHY_BYTES_MAX])
{
    json_t *object = parse_object(line, why);
    if (object == NULL)
        return STATUS_MALFORMED;
    enum status status = take_bytes(object, "key", "key_base64", &row->key, why);
    if (status == STATUS_NOT_FOUND)
        status = wrong(why, "has no \"key\"%s", "");
    row->has_value = false;
    row->tombstone = json_is_true(json_object_get(object, "tombstone"));
    if (status == STATUS_OK) {
        status = take_bytes(object, "value", "value_base64", &row->value, why);
        row->has_value = status == STATUS_OK;
        if (status == STATUS_NOT_FOUND)
            status = STATUS_OK;
    }
    if (status == STATUS_OK && take_versions(object, row) != STATUS_OK)
        status = wrong(why, "has a stamp or expiry that is none%s", "");
    if (status == STATUS_OK && row->has_value && (row->tombstone || stamp_none(row->version.value)))
        status = wrong(why, "has a value that %s", row->tombstone ? "is a tombstone" : "has no stamp");
    json_decref(object);
    return status;
}

bool local_row_live(const struct local_row *row, uint64_t now_ms, uint64_t *ttl_ms)
{
    uint64_t expiry_ms = row->override_applies ? row->override_expiry_ms : row->expiry_ms;
    *ttl_ms = 0;
    if (!row->has_value || (expiry_ms != 0 && expiry_ms <= now_ms))
        return false;
    if (expiry_ms != 0)
        *ttl_ms = expiry_ms - now_ms;
    return true;
}

enum status page_end_parse(struct page_end *end, struct span line)
{
    json_t *object = json_loadb((const char *)line.data, line.size, PARSE_FLAGS, NULL);
    const json_t *next = json_object_get(object, "next");
    enum status status = STATUS_MALFORMED;
    buf_clear(&end->next);
    end->more = json_is_string(next);
    if (end->more) {
        buf_append(&end->next, json_string_value(next), json_string_length(next));
        status = end->next.failed ? STATUS_OVERLOADED : STATUS_OK;
    } else if (json_is_true(json_object_get(object, "end"))) {
        status = STATUS_OK;
    }
    json_decref(object);
    return status;
}
