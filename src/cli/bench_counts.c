/* Adding up what the workers of rondo bench found. */
#include <ctype.h>

#include "cli/bench.h"

static struct bench_error *find_error(struct bench_counts *counts, const char *code)
{
    for (uint32_t i = 0; i < counts->error_count; i++) {
        if (strcmp(counts->errors[i].code, code) == 0)
            return &counts->errors[i];
    }
    if (counts->error_count == BENCH_ERRORS_MAX)
        return NULL;
    struct bench_error *error = &counts->errors[counts->error_count++];
    *error = (struct bench_error){.count = 0};
    memcpy(error->code, code, strlen(code));
    return error;
}

void bench_count_error(struct bench_counts *counts, struct span text, uint64_t times)
{
    char code[BENCH_ERROR_BYTES_MAX];
    size_t size = 0;
    /* Codes are capital letters, digits and '_'; what does not look like one is not shown as one. */
    while (size < text.size && size < sizeof(code) - 1 &&
           (isupper(text.data[size]) || isdigit(text.data[size]) || text.data[size] == '_'))
        size++;
    span_copy_text(span_of(text.data, size), code, sizeof(code));
    struct bench_error *error = size == 0 ? NULL : find_error(counts, code);
    if (error == NULL)
        counts->errors_other += times;
    else
        error->count += times;
}

void bench_counts_merge(struct bench_counts *counts, const struct bench_counts *other)
{
    latency_merge(&counts->reads, &other->reads);
    latency_merge(&counts->writes, &other->writes);
    counts->misses += other->misses;
    counts->damaged += other->damaged;
    counts->foreign += other->foreign;
    counts->read_errors += other->read_errors;
    counts->write_errors += other->write_errors;
    counts->unanswered += other->unanswered;
    counts->unsent += other->unsent;
    counts->lost_connections += other->lost_connections;
    counts->bytes_sent += other->bytes_sent;
    counts->bytes_received += other->bytes_received;
    counts->cpu_s += other->cpu_s;
    for (uint32_t i = 0; i < other->error_count; i++)
        bench_count_error(counts, span_of_text(other->errors[i].code), other->errors[i].count);
    counts->errors_other += other->errors_other;
    if (counts->refused[0] == 0)
        memcpy(counts->refused, other->refused, sizeof(counts->refused));
}
