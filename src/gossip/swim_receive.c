/* What other nodes say: judging messages, merging their rumours, answering. */
#include <assert.h>

#include "gossip/swim_internal.h"

/* The sender's index if the message is one of ours to take; else SWIM_NO_MEMBER, and it is counted. */
static uint16_t judge(struct swim *swim, const struct swim_received *received, struct message *message)
{
    enum status status = message_decode(received->bytes, swim->cluster, message);
    if (status == STATUS_WRONG_CLUSTER || status == STATUS_WRONG_PROTOCOL) {
        swim->counters.foreign++;
        return SWIM_NO_MEMBER;
    }
    bool exchange = status == STATUS_OK &&
                    (message->type == MESSAGE_EXCHANGE || message->type == MESSAGE_EXCHANGE_ANSWER);
    bool too_large = received->bytes.size > MESSAGE_DATAGRAM_BYTES_MAX && !exchange;
    /* Anybody can send a datagram in another's name; who is at the end of a connection is known. */
    bool in_others_name = received->over_connection && status == STATUS_OK && message->from != received->node;
    if (status != STATUS_OK || too_large || in_others_name || (exchange && !received->over_connection)) {
        swim->counters.malformed++;
        return SWIM_NO_MEMBER;
    }
    uint16_t from = swim_find(swim, message->from);
    if (from == SWIM_NO_MEMBER || from == swim->self) {
        swim->counters.foreign++;
        return SWIM_NO_MEMBER;
    }
    swim->counters.received++;
    return from;
}

/* True if this node is accused. */
static bool merge(struct swim *swim, uint16_t from, const struct message *message)
{
    bool exchange = message->type == MESSAGE_EXCHANGE || message->type == MESSAGE_EXCHANGE_ANSWER;
    bool accused = false;
    for (uint16_t i = 0; i < message->rumour_count; i++) {
        struct rumour rumour = message_rumour(message, i);
        /* What the sender remembers may be old: the dead get a chance to refute (PROTOCOLS F). */
        if (exchange && rumour.state == SWIM_DEAD) {
            rumour.state = SWIM_SUSPECT;
            rumour.accuser = swim->members[from].node;
        }
        accused |= swim_apply(swim, &rumour);
    }
    return accused;
}

static void answer_ping(struct swim *swim, uint16_t from, const struct swim_received *received,
                        const struct message *ping, bool accused)
{
    struct swim_outgoing ack = {
        .message = {.type = MESSAGE_ACK, .target = swim->self_node, .sequence = ping->sequence},
        .to = from,
        .over_connection = received->over_connection,
        .answers_accusation = accused,
    };
    swim_send_message(swim, &ack);
}

/* A sign of life of a node that is held suspect or dead, or an accusation against this one: the other must know. At
 * most once in a gossip interval, so that two who disagree do not flood each other. */
static void set_right(struct swim *swim, uint16_t from, bool over_connection, bool accused)
{
    struct swim_member *member = &swim->members[from];
    bool told = member->told_ms != 0 && swim->now_ms - member->told_ms < swim->tuning.gossip_interval_ms;
    if (!accused && (member->state == SWIM_ALIVE || told))
        return;
    member->told_ms = swim->now_ms;
    struct swim_outgoing gossip = {
        .message = {.type = MESSAGE_GOSSIP},
        .to = from,
        .over_connection = over_connection,
        .answers_accusation = accused,
    };
    swim_send_message(swim, &gossip);
}

void swim_receive(struct swim *swim, const struct swim_received *received)
{
    struct message message;
    swim_advance(swim, received->now_ms);
    uint16_t from = judge(swim, received, &message);
    if (from == SWIM_NO_MEMBER)
        return;
    swim->members[from].heard_ms = swim->now_ms;
    bool accused = merge(swim, from, &message);
    bool answered = false;
    switch (message.type) {
    case MESSAGE_PING:
        /* Of a node that had this one's address before, or has it wrong. */
        if (message.target == swim->self_node) {
            answer_ping(swim, from, received, &message, accused);
            answered = true;
        }
        break;
    case MESSAGE_ACK:
        swim_take_ack(swim, &message);
        break;
    case MESSAGE_NACK:
        swim_take_nack(swim, &message);
        break;
    case MESSAGE_PING_ASK:
        swim_take_ping_ask(swim, from, &message);
        break;
    case MESSAGE_EXCHANGE:
        /* Says all that a correction would. */
        swim_send_exchange(swim, from, MESSAGE_EXCHANGE_ANSWER);
        answered = true;
        break;
    case MESSAGE_EXCHANGE_ANSWER:
    case MESSAGE_GOSSIP:
        break;
    }
    if (!answered)
        set_right(swim, from, received->over_connection, accused);
}

void swim_heard(struct swim *swim, uint64_t node, uint64_t now_ms)
{
    swim_advance(swim, now_ms);
    uint16_t index = swim_find(swim, node);
    if (index == SWIM_NO_MEMBER || index == swim->self)
        return;
    swim->members[index].heard_ms = now_ms;
    if (swim->probe.active && swim->probe.target == index)
        swim_probe_answered(swim);
    set_right(swim, index, true, false);
}
