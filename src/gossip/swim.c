/* The door of the machine: time, sends, changes, gossip rounds and full exchanges. */
#include "gossip/swim.h"

#include <assert.h>

#include "gossip/swim_internal.h"

/* Above this many nodes full exchanges are made less often. */
#define EXCHANGE_NODES_FULL_RATE 32u

struct swim_tuning swim_tuning_default(void)
{
    return (struct swim_tuning){
        .probe_interval_ms = 1000,
        .probe_timeout_ms = 500,
        .helpers = 3,
        .suspicion_factor = 4,
        .suspicion_max_factor = 6,
        .confirmations = 2,
        .gossip_interval_ms = 200,
        .gossip_fanout = 3,
        .transmit_factor = 4,
        .exchange_interval_ms = 30000,
        .health_max = 7,
        .sleep_min_ms = 500,
        .suspect_pings = 3,
        .dead_pings = 3,
    };
}

enum status swim_init(struct swim *swim, const struct swim_options *options)
{
    const struct swim_tuning *tuning = &options->tuning;
    assert(tuning->probe_timeout_ms < tuning->probe_interval_ms);
    assert(tuning->helpers <= SWIM_HELPERS_MAX && tuning->gossip_fanout <= SWIM_FANOUT_MAX);
    assert(tuning->confirmations <= SUSPICION_CONFIRMATIONS_MAX && tuning->suspicion_max_factor >= 1);
    assert(tuning->gossip_interval_ms > 0 && tuning->exchange_interval_ms > 0 &&
           tuning->health_max <= UINT8_MAX);
    assert(options->incarnation >= 1 && options->incarnation < INCARNATION_MAX);
    *swim = (struct swim){
        .alloc = options->alloc,
        .cluster = options->cluster,
        .tuning = *tuning,
        .now_ms = options->now_ms,
        .self_node = options->self,
        .suspicion_at_ms = UINT64_MAX,
    };
    prng_seed(&swim->prng, options->seed);
    awareness_init(&swim->awareness, (uint8_t)tuning->health_max);
    buf_init(&swim->send_bytes, options->alloc);
    enum status status = swim_set_members(swim, options->nodes, options->node_count);
    if (status != STATUS_OK)
        return status;
    struct swim_member *self = &swim->members[swim->self];
    self->incarnation = options->incarnation;
    struct rumour alive = swim_rumour_of(swim, swim->self);
    rumours_put(&swim->rumours, swim->self, &alive);
    swim->sequence_next = (uint32_t)prng_u64(&swim->prng);
    /* Nodes that start together do not probe in step. The first exchange comes soon: this node knows nothing yet. */
    swim->probe_at_ms = swim->now_ms + prng_below(&swim->prng, tuning->probe_interval_ms);
    swim->gossip_at_ms = swim->now_ms + prng_below(&swim->prng, tuning->gossip_interval_ms);
    swim->exchange_at_ms = swim->now_ms + prng_below(&swim->prng, tuning->probe_interval_ms);
    return STATUS_OK;
}

void swim_free(struct swim *swim)
{
    if (swim->members == NULL)
        return;
    rumours_free(&swim->rumours);
    alloc_put(swim->alloc, swim->changes, swim->member_count * sizeof *swim->changes);
    alloc_put(swim->alloc, swim->order, swim->member_count * sizeof *swim->order);
    alloc_put(swim->alloc, swim->nodes, swim->member_count * sizeof *swim->nodes);
    alloc_put(swim->alloc, swim->members, swim->member_count * sizeof *swim->members);
    buf_free(&swim->send_bytes);
    swim->members = NULL;
}

/* ---- sending -------------------------------------------------------------------------------------------- */

/* Starts a message; NULL if there is no room. swim_send_end follows. */
static struct swim_pending *send_begin(struct swim *swim, const struct message *message)
{
    if (swim->send_count == SWIM_SENDS_MAX || swim->send_bytes.failed) {
        swim->counters.dropped++;
        return NULL;
    }
    struct message complete = *message;
    complete.from = swim->self_node;
    struct swim_pending *pending = &swim->sends[swim->send_count];
    *pending = (struct swim_pending){.start = swim->send_bytes.size};
    message_begin(&swim->send_bytes, swim->cluster, &complete);
    return pending;
}

static void send_end(struct swim *swim, struct swim_pending *pending)
{
    message_seal(&swim->send_bytes, pending->start, swim->cluster);
    if (swim->send_bytes.failed) {
        /* As if the network had lost it. */
        swim->send_bytes.size = pending->start;
        swim->send_bytes.failed = false;
        swim->counters.dropped++;
        return;
    }
    pending->size = swim->send_bytes.size - pending->start;
    swim->send_count++;
    swim->counters.sent++;
    swim->counters.sent_bytes += pending->size;
}

void swim_send_message(struct swim *swim, const struct swim_outgoing *outgoing)
{
    struct swim_pending *pending = send_begin(swim, &outgoing->message);
    if (pending == NULL)
        return;
    struct rumour taken[MESSAGE_DATAGRAM_RUMOURS_MAX];
    uint16_t room = MESSAGE_DATAGRAM_RUMOURS_MAX;
    const struct swim_member *to = &swim->members[outgoing->to];
    bool accused = to->state != SWIM_ALIVE;
    pending->node = to->node;
    pending->over_connection = outgoing->over_connection;
    if (accused) {
        struct rumour accusation = swim_rumour_of(swim, outgoing->to);
        message_add_rumour(&swim->send_bytes, &accusation);
        room--;
    }
    if (outgoing->answers_accusation) {
        struct rumour alive = swim_rumour_of(swim, swim->self);
        message_add_rumour(&swim->send_bytes, &alive);
        room--;
    }
    uint16_t count = rumours_take(&swim->rumours, taken, room);
    for (uint16_t i = 0; i < count; i++) {
        bool said = (accused && taken[i].node == to->node) ||
                    (outgoing->answers_accusation && taken[i].node == swim->self_node);
        if (!said)
            message_add_rumour(&swim->send_bytes, &taken[i]);
    }
    send_end(swim, pending);
}

void swim_send_exchange(struct swim *swim, uint16_t to, enum message_type type)
{
    struct message message = {.type = type};
    struct swim_pending *pending = send_begin(swim, &message);
    if (pending == NULL)
        return;
    pending->node = swim->members[to].node;
    pending->over_connection = true;
    pending->large = true;
    for (uint16_t i = 0; i < swim->member_count; i++) {
        struct rumour rumour = swim_rumour_of(swim, i);
        if (rumour.state == SWIM_ALIVE && rumour.incarnation == 0)
            continue; /* nothing was ever heard of it */
        message_add_rumour(&swim->send_bytes, &rumour);
    }
    send_end(swim, pending);
}

bool swim_next_send(struct swim *swim, struct swim_send *send)
{
    if (swim->send_at == swim->send_count) {
        swim->send_at = 0;
        swim->send_count = 0;
        buf_clear(&swim->send_bytes);
        return false;
    }
    const struct swim_pending *pending = &swim->sends[swim->send_at++];
    *send = (struct swim_send){
        .node = pending->node,
        .over_connection = pending->over_connection,
        .large = pending->large,
        .bytes = span_of(swim->send_bytes.data + pending->start, pending->size),
    };
    return true;
}

bool swim_next_change(struct swim *swim, struct swim_change *change)
{
    if (swim->change_count == 0)
        return false;
    struct swim_member *member = &swim->members[swim->changes[swim->change_at]];
    assert(member->changed);
    member->changed = false;
    swim->change_at = (uint16_t)((swim->change_at + 1) % swim->member_count);
    swim->change_count--;
    *change = (struct swim_change){member->node, member->incarnation, member->state};
    return true;
}

/* ---- time ----------------------------------------------------------------------------------------------- */

static bool eligible(const struct swim *swim, uint16_t index, uint16_t except)
{
    return index != swim->self && index != except && swim->members[index].state != SWIM_DEAD;
}

static bool contains(const uint16_t *indices, uint16_t count, uint16_t index)
{
    for (uint16_t i = 0; i < count; i++) {
        if (indices[i] == index)
            return true;
    }
    return false;
}

/* One pass over all: for small clusters, and those where few are eligible. */
static uint16_t choose_from_all(struct swim *swim, uint16_t except, uint16_t max, uint16_t *chosen)
{
    uint16_t seen = 0;
    for (uint16_t i = 0; i < swim->member_count; i++) {
        if (!eligible(swim, i, except))
            continue;
        uint64_t place = seen < max ? seen : prng_below(&swim->prng, seen + 1u);
        if (place < max)
            chosen[place] = i;
        seen++;
    }
    return seen < max ? seen : max;
}

uint16_t swim_choose(struct swim *swim, uint16_t except, uint16_t max, uint16_t *chosen)
{
    uint16_t count = 0;
    if (max == 0)
        return 0;
    for (uint16_t tries = 0; tries < 4 * max && count < max; tries++) {
        uint16_t index = (uint16_t)prng_below(&swim->prng, swim->member_count);
        if (eligible(swim, index, except) && !contains(chosen, count, index))
            chosen[count++] = index;
    }
    return count == max ? count : choose_from_all(swim, except, max, chosen);
}

/* With every other node dead there is nobody to tell. */
static bool gossip_wanted(const struct swim *swim)
{
    bool somebody = swim->member_count - swim->dead > 1;
    return somebody && (swim->rumours.count > 0 || swim->suspects > 0);
}

static void run_gossip(struct swim *swim)
{
    if (!gossip_wanted(swim) || swim->now_ms < swim->gossip_at_ms)
        return;
    swim_ping_doubted(swim, SWIM_SUSPECT);
    uint16_t chosen[SWIM_FANOUT_MAX];
    uint16_t count = swim_choose(swim, SWIM_NO_MEMBER, (uint16_t)swim->tuning.gossip_fanout, chosen);
    swim->gossip_at_ms = swim->now_ms + swim->tuning.gossip_interval_ms;
    for (uint16_t i = 0; i < count && swim->rumours.count > 0; i++) {
        struct swim_outgoing gossip = {.message = {.type = MESSAGE_GOSSIP}, .to = chosen[i]};
        swim_send_message(swim, &gossip);
    }
}

uint64_t swim_exchange_interval_ms(const struct swim *swim)
{
    uint64_t factor = 1;
    for (uint32_t nodes = EXCHANGE_NODES_FULL_RATE; nodes < swim->member_count; nodes *= 2)
        factor++;
    return swim->tuning.exchange_interval_ms * factor;
}

static void run_exchange(struct swim *swim)
{
    if (swim->now_ms < swim->exchange_at_ms)
        return;
    uint16_t chosen;
    swim->exchange_at_ms = swim->now_ms + swim_exchange_interval_ms(swim);
    if (swim_choose(swim, SWIM_NO_MEMBER, 1, &chosen) == 1)
        swim_send_exchange(swim, chosen, MESSAGE_EXCHANGE);
}

uint64_t swim_deadline_ms(const struct swim *swim)
{
    uint64_t deadline_ms = swim_probe_deadline_ms(swim);
    if (swim->suspicion_at_ms < deadline_ms)
        deadline_ms = swim->suspicion_at_ms;
    if (swim->exchange_at_ms < deadline_ms)
        deadline_ms = swim->exchange_at_ms;
    /* Looked at often enough, a sleep is noticed whatever else is due. */
    uint64_t sleep_min_ms = swim->tuning.sleep_min_ms;
    if (sleep_min_ms != 0 && swim->now_ms + sleep_min_ms < deadline_ms)
        deadline_ms = swim->now_ms + sleep_min_ms;
    if (gossip_wanted(swim) && swim->gossip_at_ms < deadline_ms)
        deadline_ms = swim->gossip_at_ms;
    return deadline_ms;
}

void swim_advance(struct swim *swim, uint64_t now_ms)
{
    assert(now_ms >= swim->now_ms);
    uint64_t due_ms = swim_deadline_ms(swim);
    if (due_ms < swim->now_ms)
        due_ms = swim->now_ms; /* it is being worked on since then */
    swim->now_ms = now_ms;
    if (swim->tuning.sleep_min_ms == 0 || now_ms < due_ms + swim->tuning.sleep_min_ms)
        return;
    swim->counters.sleeps++;
    awareness_add(&swim->awareness, 1);
    swim_extend_suspicions(swim, now_ms - due_ms);
    swim_extend_probes(swim, now_ms - due_ms);
}

void swim_tick(struct swim *swim, uint64_t now_ms)
{
    swim_advance(swim, now_ms);
    swim_run_relays(swim);
    swim_run_suspicions(swim);
    swim_run_probe(swim);
    run_gossip(swim);
    run_exchange(swim);
}

/* ---- questions ------------------------------------------------------------------------------------------ */

const struct swim_member *swim_member_of(const struct swim *swim, uint64_t node)
{
    uint16_t index = swim_find(swim, node);
    return index == SWIM_NO_MEMBER ? NULL : &swim->members[index];
}

bool swim_reachable(const struct swim *swim, uint64_t node)
{
    const struct swim_member *member = swim_member_of(swim, node);
    return member != NULL && member->state != SWIM_DEAD;
}

uint64_t swim_incarnation(const struct swim *swim)
{
    return swim->members[swim->self].incarnation;
}

uint8_t swim_health(const struct swim *swim)
{
    return swim->awareness.health;
}

const char *swim_state_name(enum swim_state state)
{
    switch (state) {
    case SWIM_ALIVE:
        return "alive";
    case SWIM_SUSPECT:
        return "suspect";
    case SWIM_DEAD:
        return "dead";
    }
    return "?";
}
