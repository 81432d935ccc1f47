/* One shard of a three-node cluster against arbitrary clients, an arbitrary peer and arbitrary datagrams.
 *
 * The input is a list of steps: a byte that says what happens, and for bytes of a connection a 16-bit size and the
 * bytes. A peer is admitted with a valid HELLO first; what it sends afterwards is the input's, and so is what it
 * answers on the shard's own connection to it. Frames from the input get valid sizes with one of the steps, so that
 * their bodies are reached, and datagrams valid headers and checksums. The log is durable at once, the cold tier holds
 * nothing. Besides no crash and no assertion: memory stays within the budget, and everything is given back at the
 * end. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "gossip/message.h"
#include "proto/frame.h"
#include "shard/shard.h"

#define MEMORY_BYTES ((size_t)16 << 20)
#define CLIENTS 3u
#define STEPS_MAX 400

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Numbers of connections are never used again; a client's number modulo CLIENTS is its place here. */
struct connection {
    uint64_t number;
    bool open;
    bool paused;
    struct buf input; /* given and not used yet */
};

struct world {
    struct alloc alloc; /* of the world: no budget */
    struct shard *shard;
    struct effects effects;
    struct now now;
    struct connection client[CLIENTS];
    struct connection link;
    struct connection peer;
    uint64_t peer_node;
    uint64_t cold[64]; /* reads to be answered */
    uint32_t cold_count;
    uint64_t scans[COLD_SCANS_MAX]; /* tickets of scans of the cold tier, which is empty */
    uint32_t scan_count;
    struct flush_job *flush;
};

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* The claim takes long: the ring is made once and shared by all runs. */
static const struct ring *shared_ring(void)
{
    static struct ring *ring;
    static struct alloc alloc;
    if (ring != NULL)
        return ring;
    struct ring_member members[3] = {
        ring_member_of(span_of_text("n1"), span_of_text("h:1")),
        ring_member_of(span_of_text("n2"), span_of_text("h:2")),
        ring_member_of(span_of_text("n3"), span_of_text("h:3")),
    };
    struct ring_options options = {.members = members, .member_count = 3, .replicas = 3};
    alloc_init(&alloc, SIZE_MAX);
    require(ring_initial(&alloc, &options, NULL, &ring) == STATUS_OK);
    return ring;
}

/* ---- effects -------------------------------------------------------------------------------------------- */

static void step(struct world *world, struct event *event);

static void close_connection(struct connection *connection)
{
    connection->open = false;
    connection->paused = false;
    buf_clear(&connection->input);
}

static void client_sent(struct world *world, const struct effect *effect)
{
    struct connection *client = &world->client[effect->client % CLIENTS];
    if (!effect->flag || !client->open || client->number != effect->client)
        return;
    close_connection(client);
    struct event closed = {.kind = EVENT_CLIENT_CLOSED, .client = effect->client};
    step(world, &closed);
}

static void link_closed(struct world *world)
{
    if (!world->link.open)
        return;
    close_connection(&world->link);
    struct event closed = {.kind = EVENT_LINK_CLOSED, .link = world->link.number};
    step(world, &closed);
}

static void forget_scan(struct world *world, uint64_t ticket)
{
    for (uint32_t i = 0; i < world->scan_count; i++) {
        if (world->scans[i] != ticket)
            continue;
        world->scans[i] = world->scans[--world->scan_count];
        return;
    }
}

/* Effects must be carried out before the next step, so what leads to events is noted first. */
static void perform(struct world *world)
{
    struct effect noted[256];
    uint32_t count = 0;
    for (uint32_t i = 0; i < world->effects.count; i++) {
        const struct effect *effect = &world->effects.items[i];
        switch (effect->kind) {
        case EFFECT_COLD_READ:
            require(world->cold_count < 64);
            world->cold[world->cold_count++] = effect->ticket;
            break;
        case EFFECT_COLD_SCAN:
            require(world->scan_count < COLD_SCANS_MAX);
            world->scans[world->scan_count++] = effect->ticket;
            break;
        case EFFECT_COLD_SCAN_STOP:
            forget_scan(world, effect->ticket);
            break;
        case EFFECT_FLUSH:
            require(world->flush == NULL);
            world->flush = effect->job;
            flush_sort(world->flush);
            break;
        case EFFECT_LOG_APPEND:
        case EFFECT_META_WRITE:
        case EFFECT_LINK_MOVE:
        case EFFECT_LINK_SEND:
        case EFFECT_CLIENT_SEND:
            require(count < 256);
            noted[count++] = *effect;
            break;
        case EFFECT_CLIENT_RESUME:
            world->client[effect->client % CLIENTS].paused = false;
            break;
        default:
            break;
        }
    }
    effects_clear(&world->effects);
    for (uint32_t i = 0; i < count; i++) {
        struct event event = {.sequence = noted[i].sequence, .link = noted[i].link, .node = noted[i].node};
        if (noted[i].kind == EFFECT_LOG_APPEND) {
            event.kind = EVENT_LOG_DURABLE;
            step(world, &event);
        } else if (noted[i].kind == EFFECT_META_WRITE) {
            event.kind = EVENT_META_DURABLE;
            step(world, &event);
        } else if (noted[i].kind == EFFECT_LINK_MOVE && world->link.open) {
            event.kind = EVENT_LINK_MOVED;
            step(world, &event);
        } else if (noted[i].kind == EFFECT_LINK_SEND && noted[i].flag) {
            link_closed(world);
        } else if (noted[i].kind == EFFECT_CLIENT_SEND) {
            client_sent(world, &noted[i]);
        }
    }
}

static void step(struct world *world, struct event *event)
{
    event->now = world->now;
    shard_step(world->shard, event, &world->effects);
    const struct alloc *alloc = shard_alloc(world->shard);
    require(alloc->used_bytes <= alloc->budget_bytes);
    require(event->consumed <= event->bytes.size);
    perform(world);
}

/* ---- what the input can do ------------------------------------------------------------------------------ */

static void give(struct world *world, struct connection *connection, struct event *event)
{
    if (!connection->open || connection->paused || connection->input.size == 0)
        return;
    /* A block of its own size, so that reads past its end are seen. */
    size_t size = connection->input.size;
    uint8_t *block = malloc(size);
    require(block != NULL);
    memcpy(block, connection->input.data, size);
    event->bytes = span_of(block, size);
    event->now = world->now;
    shard_step(world->shard, event, &world->effects);
    require(event->consumed <= size);
    connection->paused = event->paused;
    buf_drop(&connection->input, event->consumed);
    free(block);
    perform(world);
}

static void client_data(struct world *world, uint32_t number, struct span bytes)
{
    struct connection *client = &world->client[number];
    if (!client->open) {
        client->number += CLIENTS;
        struct event open = {.kind = EVENT_CLIENT_OPEN,
                             .client = client->number,
                             .protocol = number == 0 ? CLIENT_HTTP : CLIENT_RESP};
        client->open = true;
        step(world, &open);
    }
    buf_append_span(&client->input, bytes);
    struct event data = {.kind = EVENT_CLIENT_DATA, .client = client->number};
    give(world, client, &data);
}

static void client_closed(struct world *world, uint32_t number)
{
    if (!world->client[number].open)
        return;
    close_connection(&world->client[number]);
    struct event closed = {.kind = EVENT_CLIENT_CLOSED, .client = world->client[number].number};
    step(world, &closed);
}

static void link_data(struct world *world, struct span bytes)
{
    if (!world->link.open) {
        const struct ring *ring = shared_ring();
        world->link.number++;
        struct event open = {.kind = EVENT_LINK_OPEN, .link = world->link.number};
        struct frame_hello hello = {.cluster = ring->cluster_id,
                                    .node = world->peer_node,
                                    .directory = 22,
                                    .runs = {.now = {.count = 1, .id = 23}},
                                    .shards = 1,
                                    .name = span_of_text("n2"),
                                    .resp_address = span_of_text("h:5"),
                                    .http_address = span_of_text("h:6")};
        world->link.open = true;
        step(world, &open);
        frame_put_hello(&world->link.input, (struct frame_head){.epoch = 1}, &hello);
        struct event greeting = {.kind = EVENT_LINK_DATA, .link = world->link.number};
        give(world, &world->link, &greeting);
        struct event end = {.kind = EVENT_TURN_END};
        step(world, &end);
    }
    buf_append_span(&world->link.input, bytes);
    struct event data = {.kind = EVENT_LINK_DATA, .link = world->link.number};
    give(world, &world->link, &data);
}

/* The bytes as one frame: the header's fixed parts are put right. PUT and GET get the slot of their key. */
static void link_frame(struct world *world, struct span bytes)
{
    uint8_t frame[512] = {0};
    size_t size = bytes.size < sizeof frame ? bytes.size : sizeof frame;
    if (size > 0)
        memcpy(frame, bytes.data, size);
    if (size < FRAME_HEADER_BYTES)
        size = FRAME_HEADER_BYTES;
    store_u32(frame, (uint32_t)size - 4);
    frame[4] = (uint8_t)(1 + frame[4] % FRAME_TYPE_MAX);
    frame[6] = (uint8_t)(frame[6] % 2 == 0 ? 0 : FRAME_BY_SLOT);
    frame[7] = 0;
    store_u64(frame + 16, frame[16] % 3);
    uint8_t *body = frame + FRAME_HEADER_BYTES;
    bool is_put = frame[4] == FRAME_PUT;
    size_t key_at = is_put || frame[4] == FRAME_GET ? 11u : 0u;
    if (key_at != 0 && size >= FRAME_HEADER_BYTES + key_at + 2) {
        size_t key_size = load_u16(body + key_at);
        if (key_size <= size - FRAME_HEADER_BYTES - key_at - 2)
            store_u16(body, key_slot(span_of(body + key_at + 2, key_size)));
    }
    link_data(world, span_of(frame, size));
}

static void datagram(struct world *world, struct span bytes)
{
    uint8_t *block = malloc(bytes.size + 1);
    require(block != NULL);
    if (bytes.size > 0)
        memcpy(block, bytes.data, bytes.size);
    struct event event = {.kind = EVENT_DATAGRAM, .bytes = span_of(block, bytes.size)};
    event.now = world->now;
    shard_step(world->shard, &event, &world->effects);
    free(block);
    perform(world);
}

/* The bytes as a message of the peer: type, node asked about, sequence, then rumours of a byte for each field. */
static void sealed_datagram(struct world *world, struct span bytes)
{
    const struct ring *ring = shared_ring();
    struct reader input = reader_of(bytes);
    struct message message = {.type = (enum message_type)(1 + reader_u8(&input) % MESSAGE_TYPE_MAX),
                              .from = world->peer_node,
                              .target = ring->nodes[reader_u8(&input) % 3].id,
                              .sequence = reader_u8(&input)};
    if (message.type >= MESSAGE_GOSSIP)
        message.target = message.sequence = 0;
    struct buf made;
    buf_init(&made, &world->alloc);
    message_begin(&made, ring->cluster_id, &message);
    while (reader_left(&input) >= 4 && made.size + MESSAGE_RUMOUR_BYTES <= MESSAGE_DATAGRAM_BYTES_MAX) {
        struct rumour rumour = {.node = ring->nodes[reader_u8(&input) % 3].id,
                                .incarnation = world->now.wall_ms + reader_u8(&input) - 128,
                                .accuser = ring->nodes[reader_u8(&input) % 3].id,
                                .state = (enum swim_state)(1 + reader_u8(&input) % 3)};
        if (rumour.state == SWIM_ALIVE)
            rumour.accuser = 0;
        message_add_rumour(&made, &rumour);
    }
    message_seal(&made, 0, ring->cluster_id);
    datagram(world, buf_span(&made));
    buf_free(&made);
}

static void peer_data(struct world *world, struct span bytes)
{
    if (!world->peer.open) {
        struct frame_welcome welcome = {
            .node = world->peer_node, .directory = 22, .shards = 1, .ring_epoch = 1};
        struct event up = {.kind = EVENT_PEER_UP, .node = world->peer_node};
        world->peer.open = true;
        step(world, &up);
        frame_put_welcome(&world->peer.input, (struct frame_head){.epoch = 1}, &welcome);
    }
    buf_append_span(&world->peer.input, bytes);
    struct event data = {.kind = EVENT_PEER_DATA, .node = world->peer_node};
    give(world, &world->peer, &data);
}

static void turn_end(struct world *world)
{
    struct event end = {.kind = EVENT_TURN_END};
    step(world, &end);
    while (world->cold_count > 0) {
        struct event result = {.kind = EVENT_COLD_RESULT,
                               .status = STATUS_NOT_FOUND,
                               .ticket = world->cold[--world->cold_count]};
        step(world, &result);
    }
    for (uint32_t left = world->scan_count; left > 0 && world->scan_count > 0; left--) {
        struct event page = {.kind = EVENT_COLD_SCAN, .ticket = world->scans[--world->scan_count]};
        step(world, &page);
    }
    if (world->flush != NULL) {
        struct event done = {.kind = EVENT_FLUSH_DONE, .status = STATUS_OK};
        world->flush = NULL;
        step(world, &done);
    }
}

static void happen(struct world *world, struct reader *input)
{
    uint8_t what = reader_u8(input);
    uint32_t number = what / 16u % CLIENTS;
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        client_data(world, number, reader_short(input));
        break;
    case 3:
        if (number == 0)
            datagram(world, reader_short(input));
        else
            sealed_datagram(world, reader_short(input));
        break;
    case 4:
        link_data(world, reader_short(input));
        break;
    case 5:
    case 6:
    case 7:
        link_frame(world, reader_short(input));
        break;
    case 8:
        peer_data(world, reader_short(input));
        break;
    case 9:
        close_connection(&world->peer);
        step(world, &(struct event){.kind = EVENT_PEER_DOWN, .node = world->peer_node});
        break;
    case 10:
        client_closed(world, number);
        break;
    case 11:
        link_closed(world);
        break;
    case 12:
        world->now.mono_us += 1000u * (1u + what / 16u) * (1u + what / 16u) * 50u;
        world->now.wall_ms += (1u + what / 16u) * (1u + what / 16u) * 50u;
        turn_end(world);
        break;
    case 13:
        step(world, &(struct event){.kind = EVENT_LOG_FULL, .flag = what / 16 % 2 == 1});
        break;
    case 14:
        peer_data(world, (struct span){0});
        break;
    default:
        world->now.mono_us += 1000;
        world->now.wall_ms += 1;
        turn_end(world);
        break;
    }
}

/* ---- one run -------------------------------------------------------------------------------------------- */

static void world_init(struct world *world)
{
    const struct ring *ring = shared_ring();
    struct meta meta;
    *world = (struct world){.now = {.wall_ms = UINT64_C(1700000000000), .mono_us = 5000000}};
    alloc_init(&world->alloc, SIZE_MAX);
    effects_init(&world->effects, &world->alloc);
    meta_init(&meta, &world->alloc);
    meta.cluster_id = ring->cluster_id;
    meta.node_id = ring->nodes[0].id;
    meta.directory_id = 11;
    meta.actor_id = 12;
    meta.runs.now = (struct run){.count = 1, .id = 12};
    meta.state = META_SERVING;
    meta.shards = 1;
    require(meta_name_set(&meta, span_of_text("n1")) == STATUS_OK);
    world->peer_node = ring->nodes[1].id;
    struct shard_options options = {
        .shards = 1,
        .ring = ring,
        .meta = &meta,
        .resp_address = span_of_text("h:7"),
        .http_address = span_of_text("h:8"),
        .memory_bytes = MEMORY_BYTES,
        .key_bytes_max = 64,
        .value_bytes_max = 4096,
        .clock_skew_max_ms = 500,
        .request_timeout_ms = 1000,
        .durability_always = true,
        .durability = span_of_text("always"),
        .seed = 7,
        .now = world->now,
        .started_wall_ms = world->now.wall_ms,
    };
    world->shard = shard_new(&options);
    require(world->shard != NULL);
    meta_free(&meta);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        buf_init(&world->client[i].input, &world->alloc);
        world->client[i].number = i;
    }
    buf_init(&world->link.input, &world->alloc);
    buf_init(&world->peer.input, &world->alloc);
    shard_start(world->shard, world->now, &world->effects);
    perform(world);
}

static void world_free(struct world *world)
{
    shard_free(world->shard);
    effects_free(&world->effects);
    for (uint32_t i = 0; i < CLIENTS; i++)
        buf_free(&world->client[i].input);
    buf_free(&world->link.input);
    buf_free(&world->peer.input);
    require(world->alloc.used_bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world world;
    struct reader input = reader_of(span_of(data, size));
    world_init(&world);
    for (int i = 0; i < STEPS_MAX && reader_left(&input) > 0 && !input.failed; i++)
        happen(&world, &input);
    /* Past every deadline all requests have ended (invariant 9). */
    world.now.mono_us += UINT64_C(3700000000);
    world.now.wall_ms += 3700000;
    turn_end(&world);
    turn_end(&world);
    require(shard_requests_in_flight(world.shard) == 0);
    world_free(&world);
    return 0;
}
