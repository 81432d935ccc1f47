/* The slow log: commands that took long, from when they were read to when their answers were ready.
 *
 * The arguments of a command are gone once it was begun, so of one that waits for replicas, the log or the disk what an
 * entry would show is kept with it, and becomes the entry if it took long; but for a plain GET or SET that this shard
 * coordinates, which has key and value for itself. Each shard keeps the entries of its own clients; the node's are the
 * newest of them all.
 *
 * Arguments as they are kept: u32 how many there were | of each of the first: u32 its size | its first bytes.
 * Answers: SLOWLOG GET: entries, newest first: u64 id | u64 milliseconds since 1970 | u64 microseconds | address,
 * name, arguments (short each). SLOWLOG LEN: u64. */
#include <assert.h>
#include <inttypes.h>

#include "proto/command_admin.h"
#include "shard/state.h"

struct slow_entry {
    struct list_link in_order;
    uint64_t id;
    uint64_t at_ms;
    uint64_t took_us;
    uint32_t size; /* of the arguments, behind the entry */
    uint8_t name_size;
    uint8_t address_size;
    char name[NAME_BYTES_MAX];
    char address[CLIENT_ADDRESS_BYTES_MAX];
    uint8_t arguments[];
};

/* ---- keeping -------------------------------------------------------------------------------------------- */

static size_t bytes_shown(struct span argument)
{
    return argument.size < SLOWLOG_ARGUMENT_BYTES_MAX ? argument.size : SLOWLOG_ARGUMENT_BYTES_MAX;
}

void slowlog_keep(struct shard *shard, struct pending *pending, uint32_t argc, const struct span *argv)
{
    uint32_t shown = argc < SLOWLOG_ARGUMENTS_MAX ? argc : SLOWLOG_ARGUMENTS_MAX;
    size_t size = 4 + 4 * (size_t)shown;
    for (uint32_t i = 0; i < shown; i++)
        size += bytes_shown(argv[i]);
    assert(size <= SLOWLOG_BYTES_MAX);
    uint8_t *at = alloc_get(&shard->alloc, size);
    if (at == NULL)
        return;
    pending->arguments = at;
    pending->arguments_size = (uint32_t)size;
    store_u32(at, argc);
    at += 4;
    for (uint32_t i = 0; i < shown; i++) {
        size_t bytes = bytes_shown(argv[i]);
        store_u32(at, (uint32_t)argv[i].size);
        if (bytes > 0)
            memcpy(at + 4, argv[i].data, bytes);
        at += 4 + bytes;
    }
}

void slowlog_request(struct shard *shard, const struct request *request)
{
    if (request->origin.sibling)
        return;
    struct pending *pending = map_get(&shard->pendings, request->origin.ticket >> TICKET_PART_BITS);
    uint32_t argc = request->kind == OPERATION_PUT ? 3 : 2;
    assert(pending != NULL); /* it outlives its parts */
    if (pending->arguments != NULL || !slowlog_plain(pending, argc))
        return;
    const struct span argv[] = {span_of_text(argc == 3 ? "SET" : "GET"), request->key, request->value};
    slowlog_keep(shard, pending, argc, argv);
}

static size_t entry_bytes(const struct slow_entry *entry)
{
    return sizeof *entry + entry->size;
}

static void entry_drop(struct shard *shard, struct slow_entry *entry)
{
    list_remove(&entry->in_order);
    shard->watch.slow_count--;
    shard->watch.slow_bytes -= entry_bytes(entry);
    alloc_put(&shard->alloc, entry, entry_bytes(entry));
}

void slowlog_reset(struct shard *shard)
{
    struct watch *watch = &shard->watch;
    while (!list_empty(&watch->slow))
        entry_drop(shard, LIST_ENTRY(list_first(&watch->slow), struct slow_entry, in_order));
}

void slowlog_trim(struct shard *shard)
{
    struct watch *watch = &shard->watch;
    size_t bytes_max = shard->alloc.budget_bytes / SLOWLOG_DIVISOR;
    while (watch->slow_count > watch->bounds.entries_max || watch->slow_bytes > bytes_max)
        entry_drop(shard, LIST_ENTRY(list_first(&watch->slow), struct slow_entry, in_order));
}

void slowlog_add(struct shard *shard, const struct pending *pending, uint64_t took_us)
{
    struct watch *watch = &shard->watch;
    if (pending->arguments == NULL)
        return;
    struct slow_entry *entry = alloc_get(&shard->alloc, sizeof *entry + pending->arguments_size);
    if (entry == NULL)
        return;
    *entry = (struct slow_entry){
        .id = watch->slow_serial++ * shard->options.shards + shard->options.shard,
        .at_ms = shard->now.wall_ms,
        .took_us = took_us,
        .size = pending->arguments_size,
    };
    memcpy(entry->arguments, pending->arguments, entry->size);
    const struct client *client = pending->client;
    if (client != NULL) {
        entry->name_size = client->name_size;
        memcpy(entry->name, client->name, sizeof entry->name);
        entry->address_size = (uint8_t)strlen(client->address);
        memcpy(entry->address, client->address, entry->address_size);
    }
    list_push_back(&watch->slow, &entry->in_order);
    watch->slow_count++;
    watch->slow_bytes += entry_bytes(entry);
    slowlog_trim(shard);
}

/* ---- answering ------------------------------------------------------------------------------------------ */

void slowlog_answer(struct shard *shard, const struct command *command, struct buf *body)
{
    struct watch *watch = &shard->watch;
    if (command->subcommand == SUBCOMMAND_SLOWLOG_RESET) {
        slowlog_reset(shard);
        return;
    }
    if (command->subcommand == SUBCOMMAND_SLOWLOG_LEN) {
        buf_put_u64(body, watch->slow_count);
        return;
    }
    uint64_t count = command_slowlog_count(command);
    for (struct list_link *link = watch->slow.prev; link != &watch->slow && count > 0;
         link = link->prev, count--) {
        const struct slow_entry *entry = LIST_ENTRY(link, struct slow_entry, in_order);
        buf_put_u64(body, entry->id);
        buf_put_u64(body, entry->at_ms);
        buf_put_u64(body, entry->took_us);
        buf_put_short(body, span_of(entry->address, entry->address_size));
        buf_put_short(body, span_of(entry->name, entry->name_size));
        buf_put_short(body, span_of(entry->arguments, entry->size));
    }
}

/* As Redis trims them: of many arguments the last shown says how many more there are; of a long one its end. */
static void reply_arguments(struct buf *reply, struct span kept)
{
    struct reader reader = reader_of(kept);
    uint32_t argc = reader_u32(&reader);
    uint32_t shown = argc < SLOWLOG_ARGUMENTS_MAX ? argc : SLOWLOG_ARGUMENTS_MAX;
    struct buf text;
    buf_init(&text, reply->alloc);
    resp_reply_array(reply, shown);
    for (uint32_t i = 0; i < shown; i++) {
        uint32_t size = reader_u32(&reader);
        size_t had = size < SLOWLOG_ARGUMENT_BYTES_MAX ? size : SLOWLOG_ARGUMENT_BYTES_MAX;
        buf_clear(&text);
        buf_append_span(&text, reader_bytes(&reader, had));
        if (size > had)
            buf_append_format(&text, "... (%zu more bytes)", size - had);
        if (argc > shown && i + 1 == shown) {
            buf_clear(&text);
            buf_append_format(&text, "... (%" PRIu32 " more arguments)", argc - shown + 1);
        }
        resp_reply_bulk(reply, buf_span(&text));
        reply->failed |= text.failed;
    }
    assert(!reader.failed);
    buf_free(&text);
}

/* An entry on its way, and those behind it. */
struct stream {
    struct reader reader;
    uint64_t id;
    uint64_t at_ms;
    uint64_t took_us;
    struct span address;
    struct span name;
    struct span arguments;
    bool over;
};

static void stream_next(struct stream *stream)
{
    struct reader *reader = &stream->reader;
    stream->over = reader_left(reader) == 0;
    if (stream->over)
        return;
    stream->id = reader_u64(reader);
    stream->at_ms = reader_u64(reader);
    stream->took_us = reader_u64(reader);
    stream->address = reader_short(reader);
    stream->name = reader_short(reader);
    stream->arguments = reader_short(reader);
    assert(!reader->failed); /* a sibling wrote it */
}

/* The stream whose entry is the newest, or NULL. */
static struct stream *stream_newest(struct stream *streams, uint32_t count)
{
    struct stream *newest = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct stream *stream = &streams[i];
        if (!stream->over && (newest == NULL || stream->at_ms > newest->at_ms ||
                              (stream->at_ms == newest->at_ms && stream->id > newest->id)))
            newest = stream;
    }
    return newest;
}

static void reply_entries(const struct shard *shard, struct pending *pending, uint64_t count)
{
    struct stream streams[SHARDS_MAX];
    struct reader answers = reader_of(buf_span(&pending->gathering->answers));
    uint32_t streams_count = 0;
    struct buf entries;
    buf_init(&entries, pending->reply.alloc);
    while (reader_left(&answers) > 0) {
        streams[streams_count].reader = reader_of(reader_long(&answers));
        stream_next(&streams[streams_count++]);
    }
    if (count > shard->watch.bounds.entries_max)
        count = shard->watch.bounds.entries_max;
    uint64_t shown = 0;
    struct stream *newest;
    while (shown < count && (newest = stream_newest(streams, streams_count)) != NULL) {
        resp_reply_array(&entries, 6);
        resp_reply_integer(&entries, (int64_t)newest->id);
        resp_reply_integer(&entries, (int64_t)(newest->at_ms / 1000));
        resp_reply_integer(&entries, (int64_t)newest->took_us);
        reply_arguments(&entries, newest->arguments);
        resp_reply_bulk(&entries, newest->address);
        resp_reply_bulk(&entries, newest->name);
        stream_next(newest);
        shown++;
    }
    resp_reply_array(&pending->reply, shown);
    buf_append_span(&pending->reply, buf_span(&entries));
    pending->reply.failed |= entries.failed;
    buf_free(&entries);
}

void slowlog_reply(struct shard *shard, struct pending *pending, const struct command *command)
{
    if (command->subcommand == SUBCOMMAND_SLOWLOG_GET) {
        reply_entries(shard, pending, command_slowlog_count(command));
        return;
    }
    if (command->subcommand == SUBCOMMAND_SLOWLOG_RESET) {
        resp_reply_ok(&pending->reply);
        return;
    }
    struct reader answers = reader_of(buf_span(&pending->gathering->answers));
    uint64_t count = 0;
    while (reader_left(&answers) > 0) {
        struct reader answer = reader_of(reader_long(&answers));
        count += reader_u64(&answer);
    }
    if (count > shard->watch.bounds.entries_max)
        count = shard->watch.bounds.entries_max;
    resp_reply_integer(&pending->reply, (int64_t)count);
}
