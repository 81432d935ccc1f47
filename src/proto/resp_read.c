/* RESP replies. Strict where Redis's clients are lax: a stream out of step is better refused than guessed at. */
#include "proto/resp_read.h"

/* Elements that one reply may hold in all: no reply of ours, nor of Redis to what we send, has nearly as many, and the
 * sum cannot overflow. */
#define ITEMS_MAX (UINT64_C(1) << 32)

struct line {
    char type;
    struct span text;
    size_t end; /* behind its CRLF */
};

/* The line at the reader's offset. */
static enum status read_line(struct resp_reader *reader, struct span input, struct line *line)
{
    size_t from = reader->line_scanned > reader->offset ? reader->line_scanned : reader->offset;
    const uint8_t *cr = from < input.size ? memchr(input.data + from, '\r', input.size - from) : NULL;
    size_t at = cr == NULL ? input.size : (size_t)(cr - input.data);
    if (at - reader->offset > RESP_READ_LINE_BYTES_MAX)
        return STATUS_TOO_LARGE;
    if (at + 1 >= input.size) {
        reader->line_scanned = at;
        return STATUS_MORE;
    }
    if (at == reader->offset || input.data[at + 1] != '\n')
        return STATUS_MALFORMED;
    line->type = (char)input.data[reader->offset];
    line->text = span_of(input.data + reader->offset + 1, at - reader->offset - 1);
    line->end = at + 2;
    return STATUS_OK;
}

static bool is_bulk(char type)
{
    return type == '$' || type == '=' || type == '!';
}

static bool is_aggregate(char type)
{
    return type == '*' || type == '%' || type == '~' || type == '>';
}

/* Whether the line's text fits its type; its number, if it has one. */
static bool line_value(const struct line *line, int64_t *number)
{
    switch (line->type) {
    case '+':
    case '-':
    case ',':
    case '(':
        return true;
    case '_':
        return line->text.size == 0;
    case '#':
        *number = span_is(line->text, "t");
        return *number == 1 || span_is(line->text, "f");
    default:
        return span_parse_i64(line->text, number) == STATUS_OK;
    }
}

static void note_first(struct resp_reader *reader, const struct line *line, int64_t number)
{
    if (reader->begun)
        return;
    reader->begun = true;
    reader->type = line->type;
    reader->number = number;
    reader->null = line->type == '_' || ((is_bulk(line->type) || is_aggregate(line->type)) && number < 0);
    /* Of a bulk or an aggregate it is what follows the line. */
    bool follows = is_bulk(line->type) || is_aggregate(line->type);
    reader->text_at = follows ? line->end : reader->offset + 1;
    reader->text_size = follows ? 0 : line->text.size;
}

/* Takes the header of one element: what it opens is still to come. */
static enum status read_header(struct resp_reader *reader, struct span input)
{
    struct line line;
    int64_t number = 0;
    enum status status = read_line(reader, input, &line);
    if (status != STATUS_OK)
        return status;
    if (strchr("+-:$*_#,(=!%~>", line.type) == NULL || line.type == 0 || !line_value(&line, &number))
        return STATUS_MALFORMED;
    bool bulk = is_bulk(line.type);
    bool aggregate = is_aggregate(line.type);
    if (line.type == '%' && number > 0 && number <= (int64_t)ITEMS_MAX)
        number *= 2;
    if ((bulk || aggregate) && number < -1)
        return STATUS_MALFORMED;
    if (bulk && reader->bulk_bytes_max > 0 && number > (int64_t)reader->bulk_bytes_max)
        return STATUS_TOO_LARGE;
    if (aggregate && number > 0 && reader->items_left + (uint64_t)number > ITEMS_MAX)
        return STATUS_TOO_LARGE;
    note_first(reader, &line, number);
    reader->offset = line.end;
    if (bulk && number >= 0) {
        reader->bulk_open = true;
        reader->bulk_size = (size_t)number;
    } else if (aggregate && number > 0) {
        reader->items_left += (uint64_t)number;
    }
    return STATUS_OK;
}

/* Takes the bytes of an open bulk and their CRLF. */
static enum status read_bulk(struct resp_reader *reader, struct span input)
{
    size_t left = input.size > reader->offset ? input.size - reader->offset : 0;
    if (left < reader->bulk_size || left - reader->bulk_size < 2)
        return STATUS_MORE;
    const uint8_t *end = input.data + reader->offset + reader->bulk_size;
    if (end[0] != '\r' || end[1] != '\n')
        return STATUS_MALFORMED;
    if (is_bulk(reader->type))
        reader->text_size = reader->bulk_size;
    reader->offset += reader->bulk_size + 2;
    reader->bulk_open = false;
    return STATUS_OK;
}

enum status resp_read(struct resp_reader *reader, struct span input, struct resp_answer *answer)
{
    bool whole = false;
    while (!whole) {
        enum status status = STATUS_OK;
        if (!reader->bulk_open) {
            bool element = reader->begun;
            status = read_header(reader, input);
            if (status == STATUS_OK && element)
                reader->items_left--;
        }
        if (status == STATUS_OK && reader->bulk_open)
            status = read_bulk(reader, input);
        if (status != STATUS_OK)
            return status;
        whole = reader->items_left == 0;
    }
    if (is_aggregate(reader->type))
        reader->text_size = reader->offset - reader->text_at;
    *answer = (struct resp_answer){.type = reader->type,
                                   .null = reader->null,
                                   .number = reader->number,
                                   .text = span_of(input.data + reader->text_at, reader->text_size),
                                   .consumed = reader->offset};
    *reader = (struct resp_reader){.bulk_bytes_max = reader->bulk_bytes_max};
    return STATUS_OK;
}
