/* Probes (SWIM, section 3.1; Lifeguard, section IV-A), and pings for others. */
#include <assert.h>

#include "gossip/swim_internal.h"

/* A helper says NACK when this part of the time between the probe's timeout and its end is over, so that the NACK is
 * there before the end. */
#define NACK_PART_PERCENT 80u

void swim_shuffle(struct swim *swim)
{
    for (uint16_t i = swim->member_count; i > 1; i--) {
        uint16_t other = (uint16_t)prng_below(&swim->prng, i);
        uint16_t moved = swim->order[i - 1];
        swim->order[i - 1] = swim->order[other];
        swim->order[other] = moved;
    }
    swim->order_at = 0;
}

static uint32_t next_sequence(struct swim *swim)
{
    return swim->sequence_next++;
}

static void send_ping(struct swim *swim, uint16_t to, uint32_t sequence, bool over_connection)
{
    struct swim_outgoing ping = {
        .message = {.type = MESSAGE_PING, .target = swim->members[to].node, .sequence = sequence},
        .to = to,
        .over_connection = over_connection,
    };
    swim_send_message(swim, &ping);
}

/* ---- the probe ------------------------------------------------------------------------------------------ */

/* The next one in the shuffled order that is not dead; SWIM_NO_MEMBER if all others are. */
static uint16_t next_target(struct swim *swim)
{
    for (uint32_t tries = 0; tries < 2u * swim->member_count; tries++) {
        if (swim->order_at == swim->member_count)
            swim_shuffle(swim);
        uint16_t index = swim->order[swim->order_at++];
        if (index != swim->self && swim->members[index].state != SWIM_DEAD)
            return index;
    }
    return SWIM_NO_MEMBER;
}

void swim_ping_doubted(struct swim *swim, enum swim_state state)
{
    bool dead = state == SWIM_DEAD;
    uint64_t doubted = dead ? swim->dead : swim->suspects;
    uint64_t pings = dead ? swim->tuning.dead_pings : swim->tuning.suspect_pings;
    uint64_t living = (uint64_t)(swim->member_count - swim->dead);
    if (doubted == 0 || !prng_chance(&swim->prng, pings * doubted, living))
        return;
    uint64_t skip = prng_below(&swim->prng, doubted);
    for (uint16_t i = 0; i < swim->member_count; i++) {
        if (swim->members[i].state == state && skip-- == 0) {
            send_ping(swim, i, next_sequence(swim), false);
            return;
        }
    }
}

static void begin_probe(struct swim *swim)
{
    const struct swim_tuning *tuning = &swim->tuning;
    uint64_t end_ms = swim->now_ms + awareness_scale_ms(&swim->awareness, tuning->probe_interval_ms);
    swim->probe_at_ms = swim->now_ms + tuning->probe_interval_ms;
    swim_ping_doubted(swim, SWIM_DEAD);
    uint16_t target = next_target(swim);
    if (target == SWIM_NO_MEMBER)
        return;
    swim->counters.probes++;
    swim->probe = (struct swim_probe){
        .active = true,
        .target = target,
        .sequence = next_sequence(swim),
        .started_ms = swim->now_ms,
        .timeout_ms = swim->now_ms + tuning->probe_timeout_ms,
        .end_ms = end_ms,
    };
    send_ping(swim, target, swim->probe.sequence, false);
}

/* The direct ping was not answered: others are asked to try, and the peer connection is used. */
static void ask_helpers(struct swim *swim)
{
    struct swim_probe *probe = &swim->probe;
    uint16_t helpers[SWIM_HELPERS_MAX];
    uint16_t count = swim_choose(swim, probe->target, (uint16_t)swim->tuning.helpers, helpers);
    probe->helped = true;
    for (uint16_t i = 0; i < count; i++) {
        struct swim_outgoing ask = {
            .message = {.type = MESSAGE_PING_ASK,
                        .target = swim->members[probe->target].node,
                        .sequence = probe->sequence},
            .to = helpers[i],
        };
        probe->helpers[probe->helper_count++] = swim->members[helpers[i]].node;
        swim_send_message(swim, &ask);
    }
    send_ping(swim, probe->target, probe->sequence, true);
}

static void fail_probe(struct swim *swim)
{
    struct swim_probe *probe = &swim->probe;
    int missing = 0;
    for (uint32_t i = 0; i < probe->helper_count; i++)
        missing += !probe->nacked[i];
    /* Helpers that did not even say NACK are as silent as the target: perhaps it is this node that hears nothing. */
    awareness_add(&swim->awareness, probe->helper_count > 0 ? missing : 1);
    swim->counters.probes_failed++;
    probe->active = false;
    swim_suspect(swim, probe->target);
}

void swim_probe_answered(struct swim *swim)
{
    if (!swim->probe.active || swim->probe.answered)
        return;
    swim->probe.answered = true;
    swim->probe.active = false;
    awareness_add(&swim->awareness, -1);
}

void swim_run_probe(struct swim *swim)
{
    struct swim_probe *probe = &swim->probe;
    if (probe->active && !probe->helped && swim->now_ms >= probe->timeout_ms)
        ask_helpers(swim);
    if (probe->active && swim->now_ms >= probe->end_ms)
        fail_probe(swim);
    if (!probe->active && swim->now_ms >= swim->probe_at_ms)
        begin_probe(swim);
}

/* ---- pings for others ----------------------------------------------------------------------------------- */

void swim_take_ping_ask(struct swim *swim, uint16_t from, const struct message *message)
{
    uint16_t target = swim_find(swim, message->target);
    if (target == SWIM_NO_MEMBER || target == swim->self)
        return;
    if (swim->relay_count == SWIM_RELAYS_MAX) {
        swim->counters.dropped++;
        return;
    }
    uint64_t left_ms = swim->tuning.probe_interval_ms - swim->tuning.probe_timeout_ms;
    struct swim_relay *relay = &swim->relays[swim->relay_count++];
    *relay = (struct swim_relay){
        .sequence = next_sequence(swim),
        .origin_sequence = message->sequence,
        .origin = swim->members[from].node,
        .target = message->target,
        .nack_ms = swim->now_ms + left_ms * NACK_PART_PERCENT / 100,
        /* A late answer still helps an asker whose health stretches its probe. */
        .end_ms = swim->now_ms + 2ull * swim->tuning.probe_interval_ms,
    };
    send_ping(swim, target, relay->sequence, false);
}

static void answer_relay(struct swim *swim, const struct swim_relay *relay, enum message_type type)
{
    uint16_t origin = swim_find(swim, relay->origin);
    if (origin == SWIM_NO_MEMBER)
        return;
    struct swim_outgoing answer = {
        .message = {.type = type, .target = relay->target, .sequence = relay->origin_sequence},
        .to = origin,
    };
    swim_send_message(swim, &answer);
}

void swim_run_relays(struct swim *swim)
{
    uint16_t kept = 0;
    for (uint16_t i = 0; i < swim->relay_count; i++) {
        struct swim_relay *relay = &swim->relays[i];
        if (!relay->nacked && swim->now_ms >= relay->nack_ms) {
            relay->nacked = true;
            answer_relay(swim, relay, MESSAGE_NACK);
        }
        if (swim->now_ms < relay->end_ms)
            swim->relays[kept++] = *relay;
    }
    swim->relay_count = kept;
}

/* ---- answers -------------------------------------------------------------------------------------------- */

static bool is_helper(const struct swim_probe *probe, uint64_t node, uint32_t *at)
{
    for (*at = 0; *at < probe->helper_count; ++*at) {
        if (probe->helpers[*at] == node)
            return true;
    }
    return false;
}

void swim_take_ack(struct swim *swim, const struct message *message)
{
    const struct swim_probe *probe = &swim->probe;
    uint32_t helper;
    if (probe->active && message->sequence == probe->sequence &&
        message->target == swim->members[probe->target].node &&
        (message->from == message->target || is_helper(probe, message->from, &helper))) {
        swim_probe_answered(swim);
        return;
    }
    for (uint16_t i = 0; i < swim->relay_count; i++) {
        struct swim_relay relay = swim->relays[i];
        if (relay.sequence != message->sequence || relay.target != message->from ||
            message->target != message->from)
            continue;
        swim->relays[i] = swim->relays[--swim->relay_count];
        answer_relay(swim, &relay, MESSAGE_ACK);
        return;
    }
}

void swim_take_nack(struct swim *swim, const struct message *message)
{
    struct swim_probe *probe = &swim->probe;
    uint32_t helper;
    if (probe->active && message->sequence == probe->sequence &&
        message->target == swim->members[probe->target].node && is_helper(probe, message->from, &helper))
        probe->nacked[helper] = true;
}

/* ---- time ----------------------------------------------------------------------------------------------- */

uint64_t swim_probe_deadline_ms(const struct swim *swim)
{
    const struct swim_probe *probe = &swim->probe;
    uint64_t deadline_ms = swim->probe_at_ms;
    if (probe->active)
        deadline_ms = probe->helped ? probe->end_ms : probe->timeout_ms;
    for (uint16_t i = 0; i < swim->relay_count; i++) {
        const struct swim_relay *relay = &swim->relays[i];
        uint64_t relay_ms = relay->nacked ? relay->end_ms : relay->nack_ms;
        if (relay_ms < deadline_ms)
            deadline_ms = relay_ms;
    }
    return deadline_ms;
}

void swim_extend_probes(struct swim *swim, uint64_t duration_ms)
{
    struct swim_probe *probe = &swim->probe;
    if (probe->active) {
        /* Whatever was answered meanwhile is about to be read; what was not gets the whole time again. */
        uint64_t length_ms = probe->end_ms - probe->started_ms;
        probe->started_ms = swim->now_ms;
        probe->timeout_ms = swim->now_ms + swim->tuning.probe_timeout_ms;
        probe->end_ms = swim->now_ms + length_ms;
        probe->helped = false;
        probe->helper_count = 0;
    }
    for (uint16_t i = 0; i < swim->relay_count; i++) {
        swim->relays[i].nack_ms += duration_ms;
        swim->relays[i].end_ms += duration_ms;
    }
}
