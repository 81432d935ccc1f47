/* Turns of a shard: what waits in its inbox goes through shard_step, then the turn ends, and every effect is carried
 * out before the next step. */
#include <assert.h>
#include <inttypes.h>

#include "base/hash.h"
#include "sim/world.h"

/* Even a shard that wants its next turn at once gets there only after this long. */
#define TURN_LEAST_US 5

struct event *shard_post(struct world *world, struct sim_node *node, uint16_t shard, enum event_kind kind,
                         struct span bytes)
{
    struct sim_shard *target = &node->shard[shard];
    if (target->inbox_count == target->inbox_capacity) {
        uint32_t capacity = target->inbox_capacity == 0 ? 16 : 2 * target->inbox_capacity;
        target->inbox =
            alloc_resize(&world->alloc, target->inbox, target->inbox_capacity * sizeof *target->inbox,
                         capacity * sizeof *target->inbox);
        assert(target->inbox != NULL);
        target->inbox_capacity = capacity;
    }
    struct sim_event *item = &target->inbox[target->inbox_count++];
    *item = (struct sim_event){.event = {.kind = kind}};
    buf_init(&item->bytes, &world->alloc);
    if (bytes.size > 0)
        buf_append_span(&item->bytes, bytes);
    shard_plan_turn(world, node, shard, world->now_us + world_draw(world, 1, world->swarm.turn_delay_us));
    return &item->event;
}

void shard_inbox_free(struct world *world, struct sim_shard *shard)
{
    for (uint32_t i = 0; i < shard->inbox_count; i++)
        buf_free(&shard->inbox[i].bytes);
    alloc_put(&world->alloc, shard->inbox, shard->inbox_capacity * sizeof *shard->inbox);
    shard->inbox = NULL;
    shard->inbox_count = shard->inbox_capacity = 0;
}

/* ---- effects -------------------------------------------------------------------------------------------- */

static void digest(struct world *world, uint64_t kind, uint64_t number, struct span bytes)
{
    world->digest = hash_mix_u64(world->digest ^ (kind << 56) ^ number);
    if (bytes.size > 0)
        world->digest = hash_64(bytes, world->digest);
}

static void say_line(struct world *world, struct sim_node *node, const struct effect *effect)
{
    if (world->trace && effect->level <= SAY_INFO)
        world_say(world, HISTORY_KEY_NONE, "%s says: %.*s", node->name, (int)effect->bytes.size,
                  (const char *)effect->bytes.data);
}

static void local_send(struct world *world, struct sim_node *node, const struct effect *effect)
{
    assert(effect->shard < node->shards);
    (void)shard_post(world, node, effect->shard, EVENT_LOCAL, effect->bytes);
}

static void perform(struct world *world, struct sim_node *node, uint16_t shard, const struct effect *effect)
{
    digest(world, 100u + (uint64_t)effect->kind,
           effect->sequence ^ effect->ticket ^ effect->client ^ effect->node, effect->bytes);
    if (effect->kind == EFFECT_COLD_SCAN)
        digest(world, 100u + (uint64_t)effect->kind, effect->ticket, effect->end);
    switch (effect->kind) {
    case EFFECT_CLIENT_SEND:
        client_from_server(world, effect);
        break;
    case EFFECT_CLIENT_DROP:
        assert(0 && "no client here ends another");
        break;
    case EFFECT_CLIENT_RESUME:
        client_resumed(world, effect->client);
        break;
    case EFFECT_PEER_CONNECT:
        network_want(world, node, shard, effect->node);
        break;
    case EFFECT_PEER_SEND:
        network_send(world, node, shard, effect);
        break;
    case EFFECT_PEER_DROP:
        network_drop(world, node, shard, effect->node);
        break;
    case EFFECT_LINK_SEND:
        network_link_send(world, node, effect);
        break;
    case EFFECT_LINK_MOVE:
        network_link_move(world, node, effect);
        break;
    case EFFECT_LOCAL_SEND:
        local_send(world, node, effect);
        break;
    case EFFECT_LOG_APPEND:
        logger_append(world, node, shard, effect);
        break;
    case EFFECT_COLD_READ:
        storage_cold_read(world, node, shard, effect);
        break;
    case EFFECT_COLD_SCAN:
        storage_scan_open(world, node, shard, effect);
        break;
    case EFFECT_COLD_SCAN_NEXT:
        storage_scan_next(world, node, shard, effect->ticket);
        break;
    case EFFECT_COLD_SCAN_STOP:
        storage_scan_stop(world, node, shard, effect->ticket);
        break;
    case EFFECT_FLUSH:
        storage_flush(world, node, shard, effect->job);
        break;
    case EFFECT_LOG_FLUSHED:
        logger_flushed(world, node, shard, effect->sequence);
        break;
    case EFFECT_META_WRITE:
        storage_meta_write(world, node, effect);
        break;
    case EFFECT_DATAGRAM_SEND:
        network_datagram(world, node, effect);
        break;
    case EFFECT_SAY:
        say_line(world, node, effect);
        break;
    }
}

void shard_perform(struct world *world, struct sim_node *node, uint16_t shard)
{
    struct effects *effects = &node->shard[shard].effects;
    for (uint32_t i = 0; i < effects->count && !node->doomed; i++)
        perform(world, node, shard, &effects->items[i]);
    effects_clear(effects);
}

/* ---- events --------------------------------------------------------------------------------------------- */

static void step(struct world *world, struct sim_node *node, uint16_t shard, struct event *event)
{
    event->now = node_now(world, node);
    digest(world, event->kind,
           event->sequence ^ event->ticket ^ event->client ^ event->link ^ event->now.wall_ms, event->bytes);
    shard_step(node->shard[shard].shard, event, &node->shard[shard].effects);
    shard_perform(world, node, shard);
}

/* Client bytes are kept with the client until the shard has used them. */
static void pass_client(struct world *world, struct sim_node *node, uint16_t shard, struct event *event)
{
    struct sim_client *client = client_by_number(world, event->client);
    if (client == NULL || client->node != node->index || client->shard != shard || client->paused ||
        client->to_server.size == 0)
        return;
    /* Sometimes only a part has arrived, but never less than before. */
    size_t part = client->to_server.size;
    if (client->shown < part && world_chance(world, 20000))
        part = world_draw(world, client->shown + 1, part);
    bool more = part < client->to_server.size;
    event->bytes = span_of(client->to_server.data, part);
    step(world, node, shard, event);
    client = client_by_number(world, event->client);
    if (client == NULL)
        return;
    assert(event->consumed <= part);
    buf_drop(&client->to_server, event->consumed);
    client->shown = part - event->consumed;
    client->paused = event->paused;
    if (more && !client->paused)
        shard_post(world, node, shard, EVENT_CLIENT_DATA, (struct span){0})->client = client->number;
}

static void pass_link(struct world *world, struct sim_node *node, uint16_t shard, struct event *event)
{
    event->bytes = network_link_bytes(world, event->link);
    if (event->bytes.size == 0)
        return;
    step(world, node, shard, event);
    network_link_used(world, event->link, event->consumed);
}

static void pass_peer(struct world *world, struct sim_node *node, uint16_t shard, struct event *event)
{
    struct buf *input = network_peer_input(world, node, shard, event->node);
    if (input == NULL || input->size == 0)
        return;
    event->bytes = buf_span(input);
    step(world, node, shard, event);
    input = network_peer_input(world, node, shard, event->node);
    if (input != NULL && event->consumed <= input->size)
        buf_drop(input, event->consumed);
}

static void pass(struct world *world, struct sim_node *node, uint16_t shard, struct sim_event *item)
{
    struct event event = item->event;
    switch (event.kind) {
    case EVENT_CLIENT_DATA:
        pass_client(world, node, shard, &event);
        break;
    case EVENT_LINK_DATA:
        pass_link(world, node, shard, &event);
        break;
    case EVENT_PEER_DATA:
        pass_peer(world, node, shard, &event);
        break;
    default:
        event.bytes = buf_span(&item->bytes);
        step(world, node, shard, &event);
        break;
    }
    buf_free(&item->bytes);
}

/* ---- turns ---------------------------------------------------------------------------------------------- */

static void turn(struct world *world, struct sim_node *node, uint16_t number)
{
    struct sim_shard *shard = &node->shard[number];
    /* What comes while the turn runs belongs to the next one. */
    struct sim_event *inbox = shard->inbox;
    uint32_t count = shard->inbox_count;
    uint32_t capacity = shard->inbox_capacity;
    shard->inbox = NULL;
    shard->inbox_count = shard->inbox_capacity = 0;
    uint32_t at = 0;
    for (; at < count && !node->doomed; at++)
        pass(world, node, number, &inbox[at]);
    for (; at < count; at++)
        buf_free(&inbox[at].bytes);
    alloc_put(&world->alloc, inbox, capacity * sizeof *inbox);
    if (!node->doomed) {
        struct event end = {.kind = EVENT_TURN_END};
        step(world, node, number, &end);
    }
    if (node->doomed) {
        node_crash(world, node, node->doomed_power);
        return;
    }
    oracle_turn(world, node, number);
    node->served |= shard_slot_serves(shard->shard, 0);
    if (number == 0)
        oracle_liveness_turn(world, node);
    uint64_t deadline_us = shard_next_deadline_us(shard->shard);
    if (deadline_us == UINT64_MAX)
        return;
    uint64_t at_us = deadline_us > node->mono_base_us ? deadline_us - node->mono_base_us : 0;
    shard_plan_turn(world, node, number,
                    at_us > world->now_us + TURN_LEAST_US ? at_us : world->now_us + TURN_LEAST_US);
}

static void turn_due(struct world *world, struct happening *happening)
{
    struct sim_node *node = happening->object;
    uint16_t number = (uint16_t)happening->index;
    struct sim_shard *shard = &node->shard[number];
    if (happening->number != node->life || happening->number2 != shard->turn_serial)
        return;
    shard->turn_at_us = UINT64_MAX;
    if (node->paused_until_us > world->now_us)
        shard_plan_turn(world, node, number, node->paused_until_us);
    else
        turn(world, node, number);
}

void shard_plan_turn(struct world *world, struct sim_node *node, uint16_t number, uint64_t at_us)
{
    struct sim_shard *shard = &node->shard[number];
    if (shard->turn_at_us <= at_us)
        return;
    shard->turn_at_us = at_us;
    struct happening *happening = world_plan(world, at_us, turn_due);
    happening->object = node;
    happening->index = number;
    happening->number = node->life;
    happening->number2 = ++shard->turn_serial;
}
