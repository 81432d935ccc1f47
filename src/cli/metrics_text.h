/* Reads what GET /metrics answers: Prometheus's text format 0.0.4, as far as nodes write it. */
#ifndef RONDO_CLI_METRICS_TEXT_H
#define RONDO_CLI_METRICS_TEXT_H

#include "base/span.h"

struct metric {
    struct span name;
    struct span labels; /* between the braces; empty without any */
    double value;
};

/* Takes the next sample off the front of text (comments and lines that make no sense are passed over); false at its
 * end. What metric holds are views of the text. */
bool metrics_next(struct span *text, struct metric *metric);

/* The value of a label as it is written (escapes and all); empty if there is none. */
struct span metric_label(const struct metric *metric, const char *name);

#endif
