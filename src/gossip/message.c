/* The codec of gossip messages. */
#include "gossip/message.h"

#include <assert.h>

#define MAGIC 0x47444e52u /* "RNDG" */
#define COUNT_AT 6u
#define CHECKSUM_AT 8u
#define CHECKED_AT 16u

_Static_assert(MESSAGE_HEADER_BYTES + MESSAGE_RUMOUR_BYTES * 2 <= MESSAGE_DATAGRAM_BYTES_MAX,
               "an accusation and its refutation fit every datagram");
_Static_assert(NODES_MAX <= UINT16_MAX, "rumours are counted in 16 bits");

static uint64_t checksum(const uint8_t *message, size_t size, struct hash_128 cluster)
{
    /* What stands before the checksum is covered too. */
    uint64_t seed = cluster.low ^ hash_mix_u64(cluster.high ^ hash_mix_u64(load_u64(message)));
    return hash_64(span_of(message + CHECKED_AT, size - CHECKED_AT), seed);
}

void message_begin(struct buf *buf, struct hash_128 cluster, const struct message *message)
{
    buf_put_u32(buf, MAGIC);
    buf_put_u8(buf, MESSAGE_VERSION);
    buf_put_u8(buf, (uint8_t)message->type);
    buf_put_u16(buf, 0);
    buf_put_u64(buf, 0);
    buf_put_u64(buf, cluster.low);
    buf_put_u64(buf, cluster.high);
    buf_put_u64(buf, message->from);
    buf_put_u64(buf, message->target);
    buf_put_u32(buf, message->sequence);
}

void message_add_rumour(struct buf *buf, const struct rumour *rumour)
{
    buf_put_u64(buf, rumour->node);
    buf_put_u64(buf, rumour->incarnation);
    buf_put_u64(buf, rumour->accuser);
    buf_put_u8(buf, (uint8_t)rumour->state);
}

void message_seal(struct buf *buf, size_t start, struct hash_128 cluster)
{
    if (buf->failed)
        return;
    size_t size = buf->size - start;
    assert(size >= MESSAGE_HEADER_BYTES);
    assert((size - MESSAGE_HEADER_BYTES) % MESSAGE_RUMOUR_BYTES == 0);
    uint8_t *message = buf->data + start;
    store_u16(message + COUNT_AT, (uint16_t)((size - MESSAGE_HEADER_BYTES) / MESSAGE_RUMOUR_BYTES));
    store_u64(message + CHECKSUM_AT, checksum(message, size, cluster));
}

static bool is_exchange(enum message_type type)
{
    return type == MESSAGE_EXCHANGE || type == MESSAGE_EXCHANGE_ANSWER;
}

static bool has_target(enum message_type type)
{
    return type != MESSAGE_GOSSIP && !is_exchange(type);
}

static bool rumour_valid(const struct rumour *rumour)
{
    if (rumour->node == 0 || rumour->incarnation > INCARNATION_MAX)
        return false;
    if (rumour->state == SWIM_ALIVE)
        return rumour->accuser == 0 && rumour->incarnation > 0;
    return (rumour->state == SWIM_SUSPECT || rumour->state == SWIM_DEAD) && rumour->accuser != 0;
}

static struct rumour read_rumour(struct reader *reader)
{
    struct rumour rumour = {0};
    rumour.node = reader_u64(reader);
    rumour.incarnation = reader_u64(reader);
    rumour.accuser = reader_u64(reader);
    rumour.state = (enum swim_state)reader_u8(reader);
    return rumour;
}

struct rumour message_rumour(const struct message *message, uint16_t at)
{
    assert(at < message->rumour_count);
    struct reader reader =
        reader_of(span_of(message->rumours.data + (size_t)at * MESSAGE_RUMOUR_BYTES, MESSAGE_RUMOUR_BYTES));
    return read_rumour(&reader);
}

static enum status check_fields(const struct message *message, uint8_t type)
{
    if (type < 1 || type > MESSAGE_TYPE_MAX || message->from == 0)
        return STATUS_MALFORMED;
    if (has_target(message->type) != (message->target != 0))
        return STATUS_MALFORMED;
    if (!has_target(message->type) && message->sequence != 0)
        return STATUS_MALFORMED;
    uint32_t rumours_max = is_exchange(message->type) ? NODES_MAX : MESSAGE_DATAGRAM_RUMOURS_MAX;
    if (message->rumour_count > rumours_max)
        return STATUS_MALFORMED;
    if (message->rumours.size != (size_t)message->rumour_count * MESSAGE_RUMOUR_BYTES)
        return STATUS_MALFORMED;
    for (uint16_t i = 0; i < message->rumour_count; i++) {
        struct rumour rumour = message_rumour(message, i);
        if (!rumour_valid(&rumour))
            return STATUS_MALFORMED;
    }
    return STATUS_OK;
}

enum status message_decode(struct span bytes, struct hash_128 cluster, struct message *message)
{
    if (bytes.size < MESSAGE_HEADER_BYTES || bytes.size > MESSAGE_BYTES_MAX)
        return STATUS_MALFORMED;
    struct reader reader = reader_of(bytes);
    if (reader_u32(&reader) != MAGIC)
        return STATUS_MALFORMED;
    if (reader_u8(&reader) != MESSAGE_VERSION)
        return STATUS_WRONG_PROTOCOL;
    *message = (struct message){0};
    uint8_t type = reader_u8(&reader);
    message->rumour_count = reader_u16(&reader);
    uint64_t sum = reader_u64(&reader);
    uint64_t cluster_low = reader_u64(&reader);
    uint64_t cluster_high = reader_u64(&reader);
    if (cluster_low != cluster.low || cluster_high != cluster.high)
        return STATUS_WRONG_CLUSTER;
    if (sum != checksum(bytes.data, bytes.size, cluster))
        return STATUS_CORRUPT;
    message->type = (enum message_type)type;
    message->from = reader_u64(&reader);
    message->target = reader_u64(&reader);
    message->sequence = reader_u32(&reader);
    message->rumours = reader_bytes(&reader, reader_left(&reader));
    return check_fields(message, type);
}

const char *message_type_name(enum message_type type)
{
    static const char *const names[MESSAGE_TYPE_MAX + 1] = {"?",    "PING",   "ACK",      "PING_ASK",
                                                            "NACK", "GOSSIP", "EXCHANGE", "EXCHANGE_ANSWER"};
    return type <= MESSAGE_TYPE_MAX ? names[type] : names[0];
}
