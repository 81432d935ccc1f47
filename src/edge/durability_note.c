/* DIR/durability. */
#include "edge/durability_note.h"

#include <string.h>

#include "edge/files.h"

#define NOTE_BYTES_MAX 256
#define NOTE_MEMORY_BYTES ((size_t)4 << 10)

static const char *const mode_names[] = {
    [DURABILITY_ALWAYS] = "always",
    [DURABILITY_INTERVAL] = "interval",
    [DURABILITY_OS] = "os",
};
static const char boot_word[] = "boot ";

/* Takes the next line off the text. */
static struct span next_line(struct span *text)
{
    size_t size = 0;
    while (size < text->size && text->data[size] != '\n')
        size++;
    struct span line = span_of(text->data, size);
    size_t used = size < text->size ? size + 1 : size;
    *text = span_of(text->data + used, text->size - used);
    return line;
}

static void note_line(struct durability_note *note, struct span line)
{
    size_t word = strlen(boot_word);
    for (int mode = DURABILITY_ALWAYS; mode <= DURABILITY_OS; mode++) {
        if (span_is(line, mode_names[mode]))
            note->mode = (enum durability_mode)mode;
    }
    if (span_is(line, "log"))
        note->log = true;
    else if (span_is(line, "cold"))
        note->cold = true;
    else if (line.size > word && line.size - word <= BOOT_ID_BYTES_MAX &&
             memcmp(line.data, boot_word, word) == 0)
        span_copy_text(span_of(line.data + word, line.size - word), note->boot, sizeof(note->boot));
}

void durability_note_read(struct durability_note *note, const char *path)
{
    struct alloc alloc;
    struct buf text;
    *note = (struct durability_note){0};
    alloc_init(&alloc, NOTE_MEMORY_BYTES);
    buf_init(&text, &alloc);
    if (files_read(path, NOTE_BYTES_MAX, &text, NULL) == STATUS_OK) {
        struct span rest = buf_span(&text);
        while (rest.size > 0)
            note_line(note, next_line(&rest));
    }
    buf_free(&text);
}

enum status durability_note_write(const struct durability_note *note, const char *path, struct buf *why)
{
    struct alloc alloc;
    struct buf text;
    alloc_init(&alloc, NOTE_MEMORY_BYTES);
    buf_init(&text, &alloc);
    if (note->mode != 0)
        buf_append_format(&text, "%s\n", mode_names[note->mode]);
    if (note->boot[0] != '\0')
        buf_append_format(&text, "%s%s\n", boot_word, note->boot);
    buf_append_text(&text, note->log ? "log\n" : "");
    buf_append_text(&text, note->cold ? "cold\n" : "");
    enum status status = text.failed ? STATUS_OVERLOADED : files_replace(path, buf_span(&text), why);
    buf_free(&text);
    return status;
}

void durability_note_boot(struct durability_note *note)
{
    struct alloc alloc;
    struct buf text;
    note->boot[0] = '\0';
    alloc_init(&alloc, NOTE_MEMORY_BYTES);
    buf_init(&text, &alloc);
    if (files_read("/proc/sys/kernel/random/boot_id", NOTE_BYTES_MAX, &text, NULL) == STATUS_OK) {
        struct span rest = buf_span(&text);
        struct span line = next_line(&rest);
        if (line.size <= BOOT_ID_BYTES_MAX)
            span_copy_text(line, note->boot, sizeof(note->boot));
    }
    buf_free(&text);
}

bool durability_note_same_boot(const struct durability_note *a, const struct durability_note *b)
{
    return a->boot[0] != '\0' && strcmp(a->boot, b->boot) == 0;
}
