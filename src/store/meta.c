/* The node's small durable state. */
#include "store/meta.h"

#include <assert.h>

#define META_MAGIC 0x4154454du /* "META" */
#define META_PREFIX_BYTES 16u  /* magic, version, checksum */

/* A ring record names every slot's owner and up to NODES_MAX nodes: well below this. */
#define META_RING_BYTES_MAX (1u << 20)

void meta_init(struct meta *meta, struct alloc *alloc)
{
    *meta = (struct meta){.alloc = alloc, .state = META_UNPROVEN};
    buf_init(&meta->ring, alloc);
}

void meta_free(struct meta *meta)
{
    buf_free(&meta->ring);
    alloc_put(meta->alloc, meta->members, meta->member_capacity * sizeof meta->members[0]);
    alloc_put(meta->alloc, meta->quarantine, META_QUARANTINE_BYTES);
    meta_init(meta, meta->alloc);
}

uint64_t meta_known_as(const struct meta *meta)
{
    return meta->known_as != 0 ? meta->known_as : meta->directory_id;
}

/* ---- members -------------------------------------------------------------------------------------------- */

struct meta_member *meta_member_find(struct meta *meta, uint64_t node_id)
{
    for (uint16_t i = 0; i < meta->member_count; i++) {
        if (meta->members[i].node_id == node_id)
            return &meta->members[i];
    }
    return NULL;
}

struct meta_member *meta_member_add(struct meta *meta, uint64_t node_id)
{
    struct meta_member *member = meta_member_find(meta, node_id);
    if (member != NULL || meta->member_count == NODES_MAX)
        return member;
    if (meta->member_count == meta->member_capacity) {
        uint16_t capacity = (uint16_t)(meta->member_capacity == 0 ? 4 : meta->member_capacity * 2);
        struct meta_member *members = alloc_resize(
            meta->alloc, meta->members, meta->member_capacity * sizeof *members, capacity * sizeof *members);
        if (members == NULL)
            return NULL;
        meta->members = members;
        meta->member_capacity = capacity;
    }
    member = &meta->members[meta->member_count++];
    *member = (struct meta_member){.node_id = node_id};
    return member;
}

bool meta_member_knows(const struct meta_member *member, uint64_t directory_id)
{
    for (uint8_t i = 0; i < member->directory_count; i++) {
        if (member->directories[i] == directory_id)
            return true;
    }
    return false;
}

bool meta_member_current(const struct meta_member *member, uint64_t directory_id,
                         const struct run_history *runs)
{
    if (!meta_member_knows(member, directory_id))
        return true;
    return member->directories[member->directory_count - 1] == directory_id && run_follows(runs, member->run);
}

static void note_directory(struct meta_member *member, uint64_t directory_id)
{
    if (member->directory_count == META_DIRECTORIES_MAX) {
        memmove(member->directories, member->directories + 1,
                (META_DIRECTORIES_MAX - 1) * sizeof *member->directories);
        member->directory_count--;
    }
    member->directories[member->directory_count++] = directory_id;
}

bool meta_member_saw(struct meta_member *member, uint64_t directory_id, const struct run_history *runs)
{
    if (!meta_member_current(member, directory_id, runs))
        return false;
    bool known = meta_member_knows(member, directory_id);
    /* Some greetings of a run say an earlier count of it. */
    if (known && runs->now.count <= member->run.count)
        return false;
    member->run = runs->now;
    if (!known)
        note_directory(member, directory_id);
    return true;
}

bool meta_member_ran_on(struct meta_member *member, uint64_t directory_id, struct run run)
{
    if (meta_member_knows(member, directory_id) &&
        (member->directories[member->directory_count - 1] != directory_id || member->run.id != run.id))
        return false;
    const struct run_history runs = {.now = run};
    return meta_member_saw(member, directory_id, &runs);
}

/* Copies a text without zero bytes into a terminated array of max + 1. */
static bool text_set(char *text, size_t max, struct span from)
{
    if (from.size > max || (from.size > 0 && memchr(from.data, 0, from.size) != NULL))
        return false;
    if (from.size > 0)
        memcpy(text, from.data, from.size);
    text[from.size] = 0;
    return true;
}

enum status meta_member_set_addresses(struct meta_member *member, struct span resp, struct span http)
{
    struct meta_member next = *member;
    if (resp.size > ADDRESS_BYTES_MAX || http.size > ADDRESS_BYTES_MAX)
        return STATUS_TOO_LARGE;
    if (!text_set(next.resp, ADDRESS_BYTES_MAX, resp) || !text_set(next.http, ADDRESS_BYTES_MAX, http))
        return STATUS_MALFORMED;
    *member = next;
    return STATUS_OK;
}

enum status meta_name_set(struct meta *meta, struct span name)
{
    if (name.size > NAME_BYTES_MAX)
        return STATUS_TOO_LARGE;
    return text_set(meta->name, NAME_BYTES_MAX, name) ? STATUS_OK : STATUS_MALFORMED;
}

enum status meta_ring_set(struct meta *meta, struct span ring)
{
    if (ring.size > META_RING_BYTES_MAX)
        return STATUS_TOO_LARGE;
    struct buf next;
    buf_init(&next, meta->alloc);
    buf_append_span(&next, ring);
    if (next.failed)
        return STATUS_OVERLOADED;
    buf_free(&meta->ring);
    meta->ring = next;
    return STATUS_OK;
}

/* ---- quarantine ----------------------------------------------------------------------------------------- */

enum status meta_quarantine_set(struct meta *meta, uint16_t slot)
{
    assert(slot < SLOTS_COUNT);
    if (meta->quarantine == NULL) {
        meta->quarantine = alloc_get_zeroed(meta->alloc, META_QUARANTINE_BYTES);
        if (meta->quarantine == NULL)
            return STATUS_OVERLOADED;
    }
    meta->quarantine[slot / 8] = (uint8_t)(meta->quarantine[slot / 8] | 1u << slot % 8);
    return STATUS_OK;
}

void meta_quarantine_clear(struct meta *meta, uint16_t slot)
{
    assert(slot < SLOTS_COUNT);
    if (meta->quarantine == NULL)
        return;
    meta->quarantine[slot / 8] = (uint8_t)(meta->quarantine[slot / 8] & ~(1u << slot % 8));
    if (!meta_quarantine_any(meta)) {
        alloc_put(meta->alloc, meta->quarantine, META_QUARANTINE_BYTES);
        meta->quarantine = NULL;
    }
}

bool meta_quarantine_test(const struct meta *meta, uint16_t slot)
{
    assert(slot < SLOTS_COUNT);
    return meta->quarantine != NULL && (meta->quarantine[slot / 8] >> slot % 8 & 1) != 0;
}

bool meta_quarantine_any(const struct meta *meta)
{
    for (size_t i = 0; meta->quarantine != NULL && i < META_QUARANTINE_BYTES; i++) {
        if (meta->quarantine[i] != 0)
            return true;
    }
    return false;
}

/* ---- the blob ------------------------------------------------------------------------------------------- */

static uint64_t checksum(struct span body)
{
    return hash_64(body, META_CHECKSUM_SEED);
}

void meta_encode(const struct meta *meta, struct buf *out)
{
    size_t start = out->size;
    buf_put_u32(out, META_MAGIC);
    buf_put_u32(out, META_VERSION);
    buf_put_u64(out, 0);
    buf_put_u64(out, meta->cluster_id.low);
    buf_put_u64(out, meta->cluster_id.high);
    buf_put_u64(out, meta->node_id);
    buf_put_u64(out, meta->directory_id);
    buf_put_u64(out, meta->actor_id);
    buf_put_u64(out, meta->known_as);
    run_history_put(out, &meta->runs);
    buf_put_u8(out, (uint8_t)meta->state);
    buf_put_u8(out, meta->clean_stop);
    buf_put_u16(out, meta->shards);
    buf_put_short(out, span_of_text(meta->name));
    buf_put_long(out, buf_span(&meta->ring));
    buf_put_u16(out, meta->member_count);
    for (uint16_t i = 0; i < meta->member_count; i++) {
        const struct meta_member *member = &meta->members[i];
        buf_put_u64(out, member->node_id);
        buf_put_u8(out, member->directory_count);
        for (uint8_t j = 0; j < member->directory_count; j++)
            buf_put_u64(out, member->directories[j]);
        buf_put_u64(out, member->run.count);
        buf_put_u64(out, member->run.id);
        buf_put_short(out, span_of_text(member->resp));
        buf_put_short(out, span_of_text(member->http));
    }
    bool quarantine = meta_quarantine_any(meta);
    buf_put_u8(out, quarantine);
    if (quarantine)
        buf_append(out, meta->quarantine, META_QUARANTINE_BYTES);
    if (out->failed)
        return;
    struct span body = span_of(out->data + start + META_PREFIX_BYTES, out->size - start - META_PREFIX_BYTES);
    store_u64(out->data + start + 8, checksum(body));
}

static enum status decode_member(struct reader *reader, uint32_t version, struct meta *meta)
{
    uint64_t node_id = reader_u64(reader);
    uint8_t directories = reader_u8(reader);
    if (reader->failed || directories > META_DIRECTORIES_MAX || meta_member_find(meta, node_id) != NULL)
        return STATUS_CORRUPT;
    struct meta_member *member = meta_member_add(meta, node_id);
    if (member == NULL)
        return STATUS_OVERLOADED;
    for (uint8_t i = 0; i < directories; i++)
        member->directories[i] = reader_u64(reader);
    member->directory_count = directories;
    if (version > 1) {
        member->run.count = reader_u64(reader);
        member->run.id = reader_u64(reader);
    }
    struct span resp = reader_short(reader);
    struct span http = reader_short(reader);
    return meta_member_set_addresses(member, resp, http) == STATUS_OK ? STATUS_OK : STATUS_CORRUPT;
}

static void read_runs(struct reader *reader, uint32_t version, struct run_history *runs)
{
    if (version > 2) {
        run_history_read(reader, runs);
        return;
    }
    runs->now.count = reader_u64(reader);
    runs->now.id = reader_u64(reader);
    runs->forgotten = runs->now.count;
}

/* The checksum fits: what is wrong now was written wrong. */
static enum status decode_body(struct reader *reader, uint32_t version, struct meta *meta)
{
    meta->cluster_id.low = reader_u64(reader);
    meta->cluster_id.high = reader_u64(reader);
    meta->node_id = reader_u64(reader);
    meta->directory_id = reader_u64(reader);
    meta->actor_id = reader_u64(reader);
    if (version > 1) {
        meta->known_as = reader_u64(reader);
        read_runs(reader, version, &meta->runs);
    }
    uint8_t state = reader_u8(reader);
    uint8_t clean_stop = reader_u8(reader);
    meta->shards = reader_u16(reader);
    if (state < META_UNPROVEN || state > META_AMNESIAC || clean_stop > 1 || meta->shards > SHARDS_MAX)
        return STATUS_CORRUPT;
    meta->state = (enum meta_state)state;
    meta->clean_stop = clean_stop == 1;
    if (meta_name_set(meta, reader_short(reader)) != STATUS_OK)
        return STATUS_CORRUPT;
    enum status status = meta_ring_set(meta, reader_long(reader));
    if (status != STATUS_OK)
        return status == STATUS_OVERLOADED ? status : STATUS_CORRUPT;
    uint16_t members = reader_u16(reader);
    if (members > NODES_MAX)
        return STATUS_CORRUPT;
    for (uint16_t i = 0; i < members; i++) {
        status = decode_member(reader, version, meta);
        if (status != STATUS_OK)
            return status;
    }
    uint8_t quarantine = reader_u8(reader);
    struct span bitmap = reader_bytes(reader, quarantine == 1 ? META_QUARANTINE_BYTES : 0);
    if (quarantine > 1 || reader_finish(reader) != STATUS_OK)
        return STATUS_CORRUPT;
    if (quarantine == 0)
        return STATUS_OK;
    meta->quarantine = alloc_get(meta->alloc, META_QUARANTINE_BYTES);
    if (meta->quarantine == NULL)
        return STATUS_OVERLOADED;
    memcpy(meta->quarantine, bitmap.data, META_QUARANTINE_BYTES);
    return STATUS_OK;
}

enum status meta_decode(struct span blob, struct meta *meta)
{
    meta_free(meta);
    struct reader reader = reader_of(blob);
    uint32_t magic = reader_u32(&reader);
    uint32_t version = reader_u32(&reader);
    uint64_t sum = reader_u64(&reader);
    if (reader.failed || magic != META_MAGIC)
        return STATUS_MALFORMED;
    if (version < 1 || version > META_VERSION)
        return STATUS_WRONG_PROTOCOL;
    if (checksum(span_of(reader.at, reader_left(&reader))) != sum)
        return STATUS_CORRUPT;
    enum status status = decode_body(&reader, version, meta);
    if (status != STATUS_OK)
        meta_free(meta);
    return status;
}
