/* The merge of one slot's rows. */
#include "cli/row_merge.h"

#include <stdio.h>

#include "model/key.h"

void row_merge_init(struct row_merge *merge, struct alloc *alloc, uint16_t slot, uint8_t stream_count)
{
    memset(merge, 0, sizeof(*merge));
    merge->slot = slot;
    merge->stream_count = stream_count;
    buf_init(&merge->last_key, alloc);
    for (uint8_t i = 0; i < stream_count; i++) {
        struct row_stream *stream = &merge->streams[i];
        buf_init(&stream->page, alloc);
        buf_init(&stream->end.next, alloc);
        local_row_init(&stream->row, alloc);
    }
}

void row_merge_free(struct row_merge *merge)
{
    buf_free(&merge->last_key);
    for (uint8_t i = 0; i < merge->stream_count; i++) {
        buf_free(&merge->streams[i].page);
        buf_free(&merge->streams[i].end.next);
        local_row_free(&merge->streams[i].row);
    }
}

enum status row_merge_page(struct row_merge *merge, uint8_t which, struct buf *body)
{
    struct row_stream *stream = &merge->streams[which];
    size_t end = body->size;
    if (end == 0 || body->data[end - 1] != '\n')
        return STATUS_MALFORMED;
    end--;
    size_t start = end;
    while (start > 0 && body->data[start - 1] != '\n')
        start--;
    enum status status = page_end_parse(&stream->end, span_of(body->data + start, end - start));
    if (status != STATUS_OK)
        return status;
    struct buf spent = stream->page;
    stream->page = *body;
    *body = spent;
    stream->at = 0;
    stream->rows_end = start;
    stream->paged = true;
    stream->has_row = false;
    return STATUS_OK;
}

void row_merge_replace(struct row_merge *merge, uint8_t which)
{
    struct row_stream *stream = &merge->streams[which];
    stream->paged = false;
    stream->has_row = false;
    buf_clear(&stream->end.next);
}

bool row_stream_wants_page(const struct row_stream *stream)
{
    return !stream->has_row && (!stream->paged || (stream->at >= stream->rows_end && stream->end.more));
}

/* The order of a slot's rows. */
static int compare_keys(struct span a, struct span b, uint16_t slot)
{
    uint8_t prefix_a[COLD_KEY_PREFIX_BYTES];
    uint8_t prefix_b[COLD_KEY_PREFIX_BYTES];
    cold_key_prefix(a, slot, prefix_a);
    cold_key_prefix(b, slot, prefix_b);
    int order = memcmp(prefix_a, prefix_b, COLD_KEY_PREFIX_BYTES);
    return order != 0 ? order : span_compare(a, b);
}

/* Reads the stream's next line if its last row is merged and one is there. */
static enum status read_row(const struct row_merge *merge, struct row_stream *stream,
                            char why[ROW_WHY_BYTES_MAX])
{
    if (stream->has_row || !stream->paged || stream->at >= stream->rows_end)
        return STATUS_OK;
    const uint8_t *line = stream->page.data + stream->at;
    const uint8_t *line_end = memchr(line, '\n', stream->rows_end - stream->at);
    stream->line = span_of(line, (size_t)(line_end - line));
    snprintf(why, ROW_WHY_BYTES_MAX, "does not fit into memory");
    enum status status = local_row_parse(&stream->row, stream->line, why);
    if (status != STATUS_OK)
        return status;
    struct span key = buf_span(&stream->row.key);
    if (key_slot(key) != merge->slot ||
        (merge->any_merged && compare_keys(key, buf_span(&merge->last_key), merge->slot) <= 0)) {
        snprintf(why, ROW_WHY_BYTES_MAX, "is of another slot, or not in order");
        return STATUS_MALFORMED;
    }
    stream->at += stream->line.size + 1;
    stream->has_row = true;
    return STATUS_OK;
}

enum merge_step row_merge_step(struct row_merge *merge, uint8_t *which, char why[ROW_WHY_BYTES_MAX])
{
    bool any = false;
    for (uint8_t i = 0; i < merge->stream_count; i++) {
        struct row_stream *stream = &merge->streams[i];
        *which = i;
        if (read_row(merge, stream, why) != STATUS_OK)
            return MERGE_MALFORMED;
        if (row_stream_wants_page(stream))
            return MERGE_PAGE;
    }
    for (uint8_t i = 0; i < merge->stream_count; i++) {
        if (!merge->streams[i].has_row)
            continue;
        struct span key = buf_span(&merge->streams[i].row.key);
        if (!any || compare_keys(key, buf_span(&merge->streams[*which].row.key), merge->slot) < 0)
            *which = i;
        any = true;
    }
    if (!any)
        return MERGE_END;
    const struct row_stream *first = &merge->streams[*which];
    for (uint8_t i = 0; i < merge->stream_count; i++) {
        const struct row_stream *stream = &merge->streams[i];
        if (!stream->has_row || !span_equal(buf_span(&stream->row.key), buf_span(&first->row.key)) ||
            !version_equal(stream->row.version, first->row.version))
            return MERGE_DIFFER;
    }
    return MERGE_SAME;
}

void row_merge_next(struct row_merge *merge, uint8_t which)
{
    buf_clear(&merge->last_key);
    buf_append_span(&merge->last_key, buf_span(&merge->streams[which].row.key));
    merge->any_merged = true;
    for (uint8_t i = 0; i < merge->stream_count; i++) {
        struct row_stream *stream = &merge->streams[i];
        if (stream->has_row && span_equal(buf_span(&stream->row.key), buf_span(&merge->last_key)))
            stream->has_row = false;
    }
}
