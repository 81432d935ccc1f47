/* Gossip messages from anybody. The input is a list of steps: time passes, a connection answers, or a message comes,
 * as raw bytes or with its checksum put right so that what is behind it is reached. What is read encodes to the same
 * bytes; the machine keeps its invariants: bounded sends, deadlines that it meets, and a state for each member that
 * never goes back in (incarnation, state). */
#include <stdint.h>
#include <stdlib.h>

#include "gossip/swim.h"

#define NODES 6u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct hash_128 cluster = {7, 8};

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void check_canonical(struct span bytes, struct alloc *alloc)
{
    struct message message;
    struct buf again;
    if (message_decode(bytes, cluster, &message) != STATUS_OK)
        return;
    buf_init(&again, alloc);
    message_begin(&again, cluster, &message);
    for (uint16_t i = 0; i < message.rumour_count; i++) {
        struct rumour rumour = message_rumour(&message, i);
        message_add_rumour(&again, &rumour);
    }
    message_seal(&again, 0, cluster);
    require(span_equal(buf_span(&again), bytes));
    buf_free(&again);
}

struct known {
    uint64_t incarnation;
    enum swim_state state;
};

static void check_machine(struct swim *swim, struct known known[NODES])
{
    struct swim_send send;
    struct swim_change change;
    uint16_t sends = 0;
    while (swim_next_send(swim, &send)) {
        struct message message;
        require(message_decode(send.bytes, cluster, &message) == STATUS_OK);
        require(send.over_connection || send.bytes.size <= MESSAGE_DATAGRAM_BYTES_MAX);
        require(send.node != swim->self_node);
        sends++;
    }
    require(sends <= SWIM_SENDS_MAX);
    while (swim_next_change(swim, &change))
        require(swim_member_of(swim, change.node)->state == change.state);
    uint16_t dead = 0;
    for (uint64_t i = 0; i < NODES; i++) {
        const struct swim_member *member = swim_member_of(swim, i + 1);
        require(member->incarnation > known[i].incarnation ||
                (member->incarnation == known[i].incarnation && member->state >= known[i].state));
        known[i] = (struct known){member->incarnation, member->state};
        dead = (uint16_t)(dead + (member->state == SWIM_DEAD));
    }
    require(swim_reachable(swim, swim->self_node));
    require(swim->dead == dead);
    require(swim_deadline_ms(swim) <= swim->now_ms + 100000);
}

/* A message of type, sender and the rest of the input; small numbers name members. */
static void make_message(struct reader *reader, struct buf *buf)
{
    struct message message = {.type = (enum message_type)(1 + reader_u8(reader) % MESSAGE_TYPE_MAX)};
    message.from = 1 + reader_u8(reader) % (NODES + 1);
    if (message.type <= MESSAGE_NACK) {
        message.target = 1 + reader_u8(reader) % (NODES + 1);
        message.sequence = reader_u8(reader);
    }
    message_begin(buf, cluster, &message);
    uint8_t rumours = reader_u8(reader) % 8;
    for (uint8_t i = 0; i < rumours; i++) {
        struct rumour rumour = {.node = 1 + reader_u8(reader) % (NODES + 1), .incarnation = 1};
        uint8_t choice = reader_u8(reader);
        rumour.incarnation = choice >= 0xf0 ? INCARNATION_MAX - choice % 2 : 1u + choice % 8u;
        rumour.state = (enum swim_state)(1 + reader_u8(reader) % 3);
        rumour.accuser = rumour.state == SWIM_ALIVE ? 0 : 1 + reader_u8(reader) % NODES;
        message_add_rumour(buf, &rumour);
    }
    message_seal(buf, 0, cluster);
}

static void step(struct reader *reader, struct swim *swim, struct alloc *alloc)
{
    struct buf buf;
    uint8_t choice = reader_u8(reader);
    struct swim_received received = {.now_ms = swim->now_ms, .over_connection = (choice & 8) != 0};
    buf_init(&buf, alloc);
    switch (choice & 7) {
    case 0:
    case 1:
        swim_tick(swim, swim->now_ms + reader_u8(reader) * 4u);
        break;
    case 2:
        swim_tick(swim, swim_deadline_ms(swim) > swim->now_ms ? swim_deadline_ms(swim) : swim->now_ms);
        break;
    case 3:
        swim_heard(swim, 1 + reader_u8(reader) % (NODES + 1), swim->now_ms);
        break;
    case 4: {
        struct span bytes = reader_bytes(reader, reader_u8(reader));
        buf_append_span(&buf, bytes);
        check_canonical(buf_span(&buf), alloc);
        received.node = 2;
        received.bytes = buf_span(&buf);
        swim_receive(swim, &received);
        break;
    }
    default:
        make_message(reader, &buf);
        check_canonical(buf_span(&buf), alloc);
        received.node = received.over_connection ? load_u64(buf.data + 32) : 0;
        /* An ack of the probe under way, sometimes. */
        if ((choice & 16) != 0) {
            store_u32(buf.data + 48, swim->probe.sequence);
            message_seal(&buf, 0, cluster);
        }
        received.bytes = buf_span(&buf);
        swim_receive(swim, &received);
        break;
    }
    buf_free(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t nodes[NODES] = {1, 2, 3, 4, 5, 6};
    struct reader reader = reader_of(span_of(data, size));
    struct known known[NODES] = {{0}};
    struct alloc alloc;
    struct swim swim;
    alloc_init(&alloc, 1u << 20);
    struct swim_options options = {
        .alloc = &alloc,
        .cluster = cluster,
        .self = 1,
        .incarnation = 1,
        .seed = reader_u8(&reader),
        .now_ms = 1000,
        .nodes = nodes,
        .node_count = NODES,
        .tuning = swim_tuning_default(),
    };
    require(swim_init(&swim, &options) == STATUS_OK);
    check_canonical(span_of(data, size), &alloc);
    while (reader_left(&reader) > 0 && !reader.failed) {
        step(&reader, &swim, &alloc);
        check_machine(&swim, known);
    }
    swim_free(&swim);
    require(alloc.used_bytes == 0);
    return 0;
}
