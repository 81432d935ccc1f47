/* The bytes of a ring record, and how two records differ.
 *
 * Little endian: u8 format | u64 epoch | u64 u64 cluster id | u8 N | u8 voters, u64 each, ascending | u16 nodes,
 * by name: (short name, short peer address, short zone, u32 weight, u8 state) each | owners as (u16 count,
 * u16 node) pairs | changed epochs as (u16 count, u64 epoch) pairs | u64 XXH3 of all before. Pairs are as long
 * as can be, so that equal records have equal bytes. */
#include "ring/claim.h"
#include "ring/ring_internal.h"

#define RING_FORMAT 1
#define RING_CHECKSUM_BYTES 8

/* Where the cluster id is. */
#define RING_CLUSTER_AT 9
#define RING_CLUSTER_BYTES 16

static void put_owners(const struct ring *ring, struct buf *buf)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT;) {
        uint32_t end = slot + 1;
        while (end < SLOTS_COUNT && ring->owner[end] == ring->owner[slot])
            end++;
        buf_put_u16(buf, (uint16_t)(end - slot));
        buf_put_u16(buf, ring->owner[slot]);
        slot = end;
    }
}

static void put_changed_epochs(const struct ring *ring, struct buf *buf)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT;) {
        uint32_t end = slot + 1;
        while (end < SLOTS_COUNT && ring->changed_epoch[end] == ring->changed_epoch[slot])
            end++;
        buf_put_u16(buf, (uint16_t)(end - slot));
        buf_put_u64(buf, ring->changed_epoch[slot]);
        slot = end;
    }
}

static void put_body(const struct ring *ring, struct buf *buf)
{
    buf_put_u8(buf, RING_FORMAT);
    buf_put_u64(buf, ring->epoch);
    buf_put_u64(buf, ring->cluster_id.low);
    buf_put_u64(buf, ring->cluster_id.high);
    buf_put_u8(buf, ring->replicas_configured);
    buf_put_u8(buf, ring->voter_count);
    for (uint8_t i = 0; i < ring->voter_count; i++)
        buf_put_u64(buf, ring->voters[i]);
    buf_put_u16(buf, ring->node_count);
    for (uint16_t i = 0; i < ring->node_count; i++) {
        const struct ring_node *node = &ring->nodes[i];
        buf_put_short(buf, span_of_text(node->name));
        buf_put_short(buf, span_of_text(node->peer_address));
        buf_put_short(buf, span_of_text(node->zone));
        buf_put_u32(buf, node->weight);
        buf_put_u8(buf, node->state);
    }
    put_owners(ring, buf);
    put_changed_epochs(ring, buf);
}

void ring_encode(const struct ring *ring, struct buf *buf)
{
    size_t start = buf->size;
    put_body(ring, buf);
    if (!buf->failed)
        buf_put_u64(buf, hash_64(span_of(buf->data + start, buf->size - start), 0));
}

enum status ring_hash(const struct ring *ring, struct hash_128 *hash)
{
    struct buf buf;
    buf_init(&buf, ring->alloc);
    put_body(ring, &buf);
    if (buf.failed) {
        buf_free(&buf);
        return STATUS_OVERLOADED;
    }
    memset(buf.data + RING_CLUSTER_AT, 0, RING_CLUSTER_BYTES);
    *hash = hash_128_of(buf_span(&buf), 0);
    buf_free(&buf);
    return STATUS_OK;
}

/* ---- decoding ------------------------------------------------------------------------------------------- */

static bool read_text(struct reader *reader, bool (*allowed)(struct span), char *text)
{
    struct span span = reader_short(reader);
    if (reader->failed || !allowed(span))
        return false;
    if (span.size > 0)
        memcpy(text, span.data, span.size);
    text[span.size] = 0;
    return true;
}

static bool name_allowed(struct span text)
{
    return ring_name_allowed(text, false);
}

static bool zone_allowed(struct span text)
{
    return ring_name_allowed(text, true);
}

static bool read_nodes(struct reader *reader, struct ring *ring)
{
    for (uint16_t i = 0; i < ring->node_count; i++) {
        struct ring_node *node = &ring->nodes[i];
        if (!read_text(reader, name_allowed, node->name) ||
            !read_text(reader, ring_address_allowed, node->peer_address) ||
            !read_text(reader, zone_allowed, node->zone))
            return false;
        node->weight = reader_u32(reader);
        node->state = reader_u8(reader);
        if (node->state < RING_NODE_ACTIVE || node->state > RING_NODE_LEAVING ||
            node->weight > CLAIM_WEIGHT_MAX)
            return false;
        if (i > 0 && strcmp(ring->nodes[i - 1].name, node->name) >= 0)
            return false;
    }
    return !reader->failed;
}

static bool read_owners(struct reader *reader, struct ring *ring)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT;) {
        uint16_t count = reader_u16(reader);
        uint16_t node = reader_u16(reader);
        if (reader->failed || count == 0 || count > SLOTS_COUNT - slot || node >= ring->node_count)
            return false;
        if (slot > 0 && ring->owner[slot - 1] == node)
            return false;
        for (uint16_t i = 0; i < count; i++)
            ring->owner[slot++] = node;
    }
    return true;
}

static bool read_changed_epochs(struct reader *reader, struct ring *ring)
{
    for (uint32_t slot = 0; slot < SLOTS_COUNT;) {
        uint16_t count = reader_u16(reader);
        uint64_t epoch = reader_u64(reader);
        if (reader->failed || count == 0 || count > SLOTS_COUNT - slot || epoch == 0 || epoch > ring->epoch)
            return false;
        if (slot > 0 && ring->changed_epoch[slot - 1] == epoch)
            return false;
        for (uint16_t i = 0; i < count; i++)
            ring->changed_epoch[slot++] = epoch;
    }
    return true;
}

/* Voters are members, ascending, an odd number. */
static bool voters_allowed(const struct ring *ring)
{
    for (uint8_t i = 0; i < ring->voter_count; i++) {
        if (ring_node_index(ring, ring->voters[i]) == RING_NODE_NONE)
            return false;
        if (i > 0 && ring->voters[i - 1] >= ring->voters[i])
            return false;
    }
    return ring->voter_count % 2 == 1;
}

static enum status read_rest(struct reader *reader, struct ring *ring)
{
    if (!read_nodes(reader, ring) || !read_owners(reader, ring) || !read_changed_epochs(reader, ring))
        return STATUS_MALFORMED;
    if (reader_finish(reader) != STATUS_OK)
        return STATUS_MALFORMED;
    enum status status = ring_derive(ring);
    if (status != STATUS_OK)
        return status;
    if (!voters_allowed(ring))
        return STATUS_MALFORMED;
    if (ring->epoch > 1)
        return STATUS_OK;
    struct hash_128 hash;
    status = ring_hash(ring, &hash);
    if (status == STATUS_OK && (hash.low != ring->cluster_id.low || hash.high != ring->cluster_id.high))
        return STATUS_MALFORMED;
    return status;
}

enum status ring_decode(struct alloc *alloc, struct span bytes, struct ring **out)
{
    if (bytes.size < RING_CHECKSUM_BYTES)
        return STATUS_MALFORMED;
    struct span body = span_of(bytes.data, bytes.size - RING_CHECKSUM_BYTES);
    if (load_u64(bytes.data + body.size) != hash_64(body, 0))
        return STATUS_MALFORMED;
    struct reader reader = reader_of(body);
    uint8_t format = reader_u8(&reader);
    uint64_t epoch = reader_u64(&reader);
    struct hash_128 cluster_id = {.low = reader_u64(&reader)};
    cluster_id.high = reader_u64(&reader);
    uint8_t replicas = reader_u8(&reader);
    uint8_t voter_count = reader_u8(&reader);
    uint64_t voters[RING_VOTERS_MAX] = {0};
    if (format != RING_FORMAT || epoch == 0 || replicas < 1 || replicas > REPLICAS_MAX ||
        voter_count > RING_VOTERS_MAX)
        return STATUS_MALFORMED;
    for (uint8_t i = 0; i < voter_count; i++)
        voters[i] = reader_u64(&reader);
    uint16_t node_count = reader_u16(&reader);
    if (reader.failed || node_count < 1 || node_count > NODES_MAX)
        return STATUS_MALFORMED;
    struct ring *ring = ring_new(alloc, node_count);
    if (ring == NULL)
        return STATUS_OVERLOADED;
    ring->epoch = epoch;
    ring->cluster_id = cluster_id;
    ring->replicas_configured = replicas;
    ring->voter_count = voter_count;
    memcpy(ring->voters, voters, sizeof voters);
    enum status status = read_rest(&reader, ring);
    if (status != STATUS_OK) {
        ring_free(ring);
        return status;
    }
    *out = ring;
    return STATUS_OK;
}

/* ---- differences ---------------------------------------------------------------------------------------- */

static void say_numbers(struct buf *text, const char *what, uint64_t here, uint64_t there)
{
    buf_append_text(text, what);
    buf_append_text(text, " is ");
    buf_append_u64(text, here);
    buf_append_text(text, " here, ");
    buf_append_u64(text, there);
    buf_append_text(text, " there");
}

static void say_texts(struct buf *text, const char *name, const char *what, const char *here,
                      const char *there)
{
    buf_append_text(text, name);
    buf_append_text(text, what);
    buf_append_text(text, here[0] == 0 ? "none" : here);
    buf_append_text(text, " here, ");
    buf_append_text(text, there[0] == 0 ? "none" : there);
    buf_append_text(text, " there");
}

static void say_member(struct buf *text, const char *name, const char *where)
{
    buf_append_text(text, name);
    buf_append_text(text, " is a member only ");
    buf_append_text(text, where);
}

static bool node_difference(const struct ring_node *here, const struct ring_node *there, struct buf *text)
{
    if (strcmp(here->peer_address, there->peer_address) != 0)
        say_texts(text, here->name, " is ", here->peer_address, there->peer_address);
    else if (strcmp(here->zone, there->zone) != 0)
        say_texts(text, here->name, "'s zone is ", here->zone, there->zone);
    else if (here->weight != there->weight || here->state != there->state) {
        buf_append_text(text, here->name);
        if (here->weight != there->weight)
            say_numbers(text, "'s weight", here->weight, there->weight);
        else
            say_numbers(text, "'s state", here->state, there->state);
    } else
        return false;
    return true;
}

/* Both are sorted by name: walks them side by side. */
static bool members_difference(const struct ring *a, const struct ring *b, struct buf *text)
{
    uint16_t i = 0;
    uint16_t j = 0;
    while (i < a->node_count || j < b->node_count) {
        int order = i == a->node_count   ? 1
                    : j == b->node_count ? -1
                                         : strcmp(a->nodes[i].name, b->nodes[j].name);
        if (order != 0) {
            say_member(text, order < 0 ? a->nodes[i].name : b->nodes[j].name, order < 0 ? "here" : "there");
            return true;
        }
        if (node_difference(&a->nodes[i++], &b->nodes[j++], text))
            return true;
    }
    return false;
}

bool ring_difference(const struct ring *a, const struct ring *b, struct buf *text)
{
    if (members_difference(a, b, text))
        return true;
    if (a->replicas_configured != b->replicas_configured) {
        say_numbers(text, "the number of replicas", a->replicas_configured, b->replicas_configured);
        return true;
    }
    for (uint32_t slot = 0; slot < SLOTS_COUNT; slot++) {
        if (a->owner[slot] != b->owner[slot]) {
            buf_append_text(text, "the owner of slot ");
            buf_append_u64(text, slot);
            say_texts(text, "", " is ", a->nodes[a->owner[slot]].name, b->nodes[b->owner[slot]].name);
            return true;
        }
    }
    if (a->epoch != b->epoch)
        say_numbers(text, "the epoch", a->epoch, b->epoch);
    else if (a->cluster_id.low != b->cluster_id.low || a->cluster_id.high != b->cluster_id.high)
        buf_append_text(text, "the cluster was formed by another first record");
    else if (a->voter_count != b->voter_count || memcmp(a->voters, b->voters, sizeof a->voters) != 0)
        buf_append_text(text, "the voters differ");
    else if (memcmp(a->changed_epoch, b->changed_epoch, sizeof a->changed_epoch) != 0)
        buf_append_text(text, "the epochs at which replica sets changed differ");
    else
        return false;
    return true;
}
