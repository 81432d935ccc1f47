/* Rows of plain text, for tests of the memtable. */
#ifndef RONDO_TESTS_MEMTABLE_ROWS_H
#define RONDO_TESTS_MEMTABLE_ROWS_H

#include "store/memtable.h"

static inline struct memtable_put plain_put(struct memtable *memtable, const char *key, const char *record,
                                            uint64_t sequence)
{
    struct span span = span_of_text(key);
    return (struct memtable_put){.key = span,
                                 .record = span_of_text(record),
                                 .hash = memtable_hash(memtable, span),
                                 .sequence = sequence,
                                 .live = true};
}

static inline struct row *plain_find(struct memtable *memtable, const char *key)
{
    return memtable_find(memtable, span_of_text(key), memtable_hash(memtable, span_of_text(key)));
}

#endif
