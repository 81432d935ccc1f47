/* Lines of a file. */
#include "cli/line_reader.h"

#include <errno.h>
#include <unistd.h>

#define READ_BYTES (1u << 20)

void line_reader_init(struct line_reader *reader, struct alloc *alloc, int fd, uint64_t offset, uint64_t line)
{
    *reader = (struct line_reader){.fd = fd, .offset = offset, .line = line};
    buf_init(&reader->bytes, alloc);
}

void line_reader_free(struct line_reader *reader)
{
    buf_free(&reader->bytes);
}

enum line_answer line_reader_next(struct line_reader *reader, struct span *line)
{
    size_t left = reader->bytes.size - reader->searched;
    const uint8_t *start = reader->bytes.data == NULL ? NULL : reader->bytes.data + reader->at;
    const uint8_t *end = left == 0 || reader->bytes.data == NULL
                             ? NULL
                             : memchr(reader->bytes.data + reader->searched, '\n', left);
    *line = span_of(start, reader->bytes.size - reader->at);
    if (end != NULL) {
        line->size = (size_t)(end - start);
        reader->searched = (size_t)(end - reader->bytes.data);
        return LINE_HERE;
    }
    reader->searched = reader->bytes.size;
    if (line->size > LINE_BYTES_MAX)
        return LINE_TOO_LONG;
    if (!reader->ended)
        return LINE_MORE;
    return line->size == 0 ? LINE_END : LINE_HERE;
}

void line_reader_consume(struct line_reader *reader, struct span line)
{
    size_t size = line.size;
    /* The last line may have no end. */
    size += reader->at + size < reader->bytes.size;
    reader->at += size;
    reader->searched = reader->at;
    reader->offset += size;
    reader->line++;
}

enum status line_reader_fill(struct line_reader *reader)
{
    if (reader->at > 0) {
        buf_drop(&reader->bytes, reader->at);
        reader->searched -= reader->at;
        reader->at = 0;
    }
    if (!buf_reserve(&reader->bytes, READ_BYTES))
        return STATUS_OVERLOADED;
    ssize_t got = read(reader->fd, reader->bytes.data + reader->bytes.size, READ_BYTES);
    if (got < 0)
        return errno == EINTR || errno == EAGAIN ? STATUS_OK : STATUS_IO_ERROR;
    reader->ended = got == 0;
    reader->bytes.size += (size_t)got;
    return STATUS_OK;
}
