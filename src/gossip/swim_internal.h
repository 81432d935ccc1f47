/* The parts of swim.h's state machine, for the files of this folder only.
 *
 *   swim.c          the door: time, sends, changes, gossip and exchanges
 *   swim_members.c  what is known of each node, and how news changes it
 *   swim_probe.c    probes, and pings for others
 *   swim_receive.c  what other nodes say */
#ifndef RONDO_GOSSIP_SWIM_INTERNAL_H
#define RONDO_GOSSIP_SWIM_INTERNAL_H

#include "gossip/swim.h"

#define SWIM_NO_MEMBER UINT16_MAX

/* ---- swim.c --------------------------------------------------------------------------------------------- */

/* Sends a message with as many rumours as fit, those first that are owed to the receiver: that it is held suspect or
 * dead; and, with `answers_accusation`, this node's own incarnation. */
struct swim_outgoing {
    struct message message; /* from is filled in */
    uint16_t to;            /* index */
    bool over_connection;
    bool answers_accusation;
};
void swim_send_message(struct swim *swim, const struct swim_outgoing *outgoing);

/* Sends all that is known, over the connection. */
void swim_send_exchange(struct swim *swim, uint16_t to, enum message_type type);

/* Up to max (<= NODES_MAX) members other than this node and `except`, not dead, uniformly at random. */
uint16_t swim_choose(struct swim *swim, uint16_t except, uint16_t max, uint16_t *chosen);

/* Notes the time, and whether this node slept. Before everything else in each call. */
void swim_advance(struct swim *swim, uint64_t now_ms);

/* ---- swim_members.c ------------------------------------------------------------------------------------- */

/* The index, or SWIM_NO_MEMBER. */
uint16_t swim_find(const struct swim *swim, uint64_t node);

/* Takes news in. True if it accuses this node. */
bool swim_apply(struct swim *swim, const struct rumour *rumour);

/* This node's own accusation. */
void swim_suspect(struct swim *swim, uint16_t index);

/* Declares those dead whose time is over. */
void swim_run_suspicions(struct swim *swim);
void swim_extend_suspicions(struct swim *swim, uint64_t duration_ms);

/* What this node would say of a member. */
struct rumour swim_rumour_of(const struct swim *swim, uint16_t index);

/* ---- swim_probe.c --------------------------------------------------------------------------------------- */

void swim_shuffle(struct swim *swim);
void swim_run_probe(struct swim *swim);

/* Pings one that is held to be in this state (SUSPECT or DEAD), so that it can refute: at random, so that all nodes
 * together do it as often as the tuning says. */
void swim_ping_doubted(struct swim *swim, enum swim_state state);
void swim_run_relays(struct swim *swim);
uint64_t swim_probe_deadline_ms(const struct swim *swim);

/* This node slept: what was under way gets the time back. */
void swim_extend_probes(struct swim *swim, uint64_t duration_ms);

/* The probe's target was heard. */
void swim_probe_answered(struct swim *swim);

void swim_take_ack(struct swim *swim, const struct message *message);
void swim_take_nack(struct swim *swim, const struct message *message);
void swim_take_ping_ask(struct swim *swim, uint16_t from, const struct message *message);

#endif
