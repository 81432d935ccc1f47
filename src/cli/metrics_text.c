/* One line of Prometheus's text format after the other. */
#include "cli/metrics_text.h"

#include <stdlib.h>

#define VALUE_BYTES_MAX 64u

static struct span cut_line(struct span *text)
{
    const uint8_t *end = memchr(text->data, '\n', text->size);
    size_t size = end == NULL ? text->size : (size_t)(end - text->data);
    struct span line = span_of(text->data, size);
    size_t taken = end == NULL ? size : size + 1;
    *text = span_of(text->data + taken, text->size - taken);
    return line;
}

/* The offset of the brace that closes the labels; quoted braces do not. */
static size_t labels_end(struct span line, size_t at)
{
    bool quoted = false;
    for (; at < line.size; at++) {
        if (quoted && line.data[at] == '\\')
            at++;
        else if (line.data[at] == '"')
            quoted = !quoted;
        else if (!quoted && line.data[at] == '}')
            return at;
    }
    return line.size;
}

static bool read_line(struct span line, struct metric *metric)
{
    char value[VALUE_BYTES_MAX];
    size_t at = 0;
    while (at < line.size && line.data[at] != '{' && line.data[at] != ' ')
        at++;
    if (at == 0 || at == line.size || line.data[0] == '#')
        return false;
    metric->name = span_of(line.data, at);
    metric->labels = span_of(line.data, 0);
    if (line.data[at] == '{') {
        size_t end = labels_end(line, at + 1);
        if (end == line.size)
            return false;
        metric->labels = span_of(line.data + at + 1, end - at - 1);
        at = end + 1;
    }
    while (at < line.size && line.data[at] == ' ')
        at++;
    span_copy_text(span_of(line.data + at, line.size - at), value, sizeof(value));
    char *end;
    metric->value = strtod(value, &end);
    return end != value && (*end == 0 || *end == ' ');
}

bool metrics_next(struct span *text, struct metric *metric)
{
    while (text->size > 0) {
        if (read_line(cut_line(text), metric))
            return true;
    }
    return false;
}

struct span metric_label(const struct metric *metric, const char *name)
{
    struct span labels = metric->labels;
    size_t at = 0;
    while (at < labels.size) {
        size_t from = at;
        while (at < labels.size && labels.data[at] != '=')
            at++;
        struct span found = span_of(labels.data + from, at - from);
        at += 2; /* = and the quote */
        size_t value = at;
        while (at < labels.size && labels.data[at] != '"')
            at += labels.data[at] == '\\' ? 2 : 1;
        if (at >= labels.size)
            break;
        if (span_is(found, name))
            return span_of(labels.data + value, at - value);
        at += 2; /* the quote and a comma */
    }
    return span_of(labels.data, 0);
}
