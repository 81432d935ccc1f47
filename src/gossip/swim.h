/* Which nodes are reachable: SWIM with Lifeguard (Das, Gupta, Motivala, "SWIM: Scalable Weakly-consistent
 * Infection-style Process Group Membership Protocol", DSN 2002; Dadgar, Phillips, Currey, "Lifeguard", 2017).
 *
 * One struct swim for each node, a pure state machine: messages, ticks and answers heard elsewhere go in, with the
 * time; messages to send and changes of state come out (swim_next_send, swim_next_change). It says who is reachable
 * and never who owns what: members are the nodes of the ring record in force, given by the caller.
 *
 * Every probe interval one other node is pinged, in a shuffled order that is drawn anew after each round. No answer
 * within the probe timeout: some others are asked to ping it, and it is asked over the peer connection, where a
 * datagram that is filtered or lost still gets through. No answer by the end of the interval, which is longer the less
 * this node trusts itself (awareness.h): the node is suspect, and has a while to refute (suspicion.h) before it is
 * dead. It refutes with a greater incarnation. News travels as rumours (rumours.h), behind every ping and ack, and by
 * itself to a few nodes each gossip interval; and once in a while two nodes exchange all they know.
 *
 * What is known of a node is ordered: a greater incarnation wins; of equal ones dead over suspect over alive. Applying
 * news takes the greater, so all nodes come to agree, whatever the order in which they hear.
 *
 * Beyond the papers, because members are fixed and a coordinator wants a node back at once:
 *  - a suspect node is pinged about 15 times a second by all the others together, with the accusation: where datagrams
 *    are lost it hears of it in time, and its answer refutes. Load stays constant: each node pings one suspect in a
 *    gossip interval at most;
 *  - a dead node is still pinged about three times a second by all together, and whoever hears anything from a node
 *    that it holds suspect or dead tells it so at once: a node that is back refutes within one round trip;
 *  - a node that finds it slept (its tick comes late) judges nobody by that time: its probe starts over, and every
 *    suspicion is extended by it.
 *
 * A suspect node is still reachable: it is usually well, so it is asked, but only if no other replica can answer; most
 * suspicions end in a refutation. A dead one is not waited for.
 *
 * Memory: about 200 bytes for each of at most NODES_MAX members, and the sends of one call. */
#ifndef RONDO_GOSSIP_SWIM_H
#define RONDO_GOSSIP_SWIM_H

#include "base/hash.h"
#include "base/limits.h"
#include "base/prng.h"
#include "base/span.h"
#include "gossip/awareness.h"
#include "gossip/message.h"
#include "gossip/rumours.h"
#include "gossip/suspicion.h"

/* Helpers that one failed probe asks. */
#define SWIM_HELPERS_MAX 8

/* Nodes that one gossip round tells. */
#define SWIM_FANOUT_MAX 8

/* Pings for others that are under way. Each node is asked for as many as it asks: a few each second at worst. */
#define SWIM_RELAYS_MAX 64

/* Messages between two drains of swim_next_send; a tick makes at most 16. Past it they are dropped, as the network
 * might. */
#define SWIM_SENDS_MAX 64

/* Every constant of the protocol. Defaults by formula: a probe timeout is several round trips of a slow network; the
 * interval leaves as much again for the detour; the suspicion factors give an accused node 4 to 24 intervals (times
 * log10 of the cluster's size) to refute. */
struct swim_tuning {
    uint32_t probe_interval_ms;    /* 1000 */
    uint32_t probe_timeout_ms;     /* 500; less than the interval */
    uint32_t helpers;              /* 3: indirect probes */
    uint32_t suspicion_factor;     /* 4: min = factor * max(1, log10 n) * interval */
    uint32_t suspicion_max_factor; /* 6: max = 6 * min */
    uint32_t confirmations;        /* 2: with so many the timeout is min */
    uint32_t gossip_interval_ms;   /* 200 */
    uint32_t gossip_fanout;        /* 3 */
    uint32_t transmit_factor;      /* 4: each rumour is sent factor * ceil(log10(n + 1)) times */
    uint32_t exchange_interval_ms; /* 30000, times 1 + ceil(log2(n / 32)) above 32 nodes */
    uint32_t health_max;           /* 7; 0: plain SWIM */
    uint32_t sleep_min_ms;         /* 500: a tick later than this means that this node slept; 0: never */
    uint32_t suspect_pings;        /* 3: in a gossip interval, to each suspect node, of all nodes together */
    uint32_t dead_pings;           /* 3: in a probe interval, to each dead node, likewise */
};

struct swim_tuning swim_tuning_default(void);

struct swim_options {
    struct alloc *alloc;
    struct hash_128 cluster;
    uint64_t self; /* node id */
    uint64_t
        incarnation; /* to start with, from 1; the wall clock in ms makes a restart greater than the run before,
                           * which saves a refutation; nothing depends on it */
    uint64_t seed;
    uint64_t now_ms;       /* monotonic */
    const uint64_t *nodes; /* ids of all members, this node among them; copied */
    uint16_t node_count;   /* 1 .. NODES_MAX */
    struct swim_tuning tuning;
};

struct swim_counters {
    uint64_t sent; /* datagrams and messages over connections */
    uint64_t sent_bytes;
    uint64_t received;  /* valid ones of members */
    uint64_t malformed; /* or with a wrong checksum */
    uint64_t foreign;   /* of another cluster, protocol version, or of nobody in the ring */
    uint64_t dropped; /* sends past SWIM_SENDS_MAX or without memory, pings for others past SWIM_RELAYS_MAX */
    uint64_t probes;
    uint64_t probes_failed;
    uint64_t suspicions;  /* begun here, whoever accused */
    uint64_t deaths;      /* declared by this node, by its own timer */
    uint64_t refutations; /* of accusations against this node */
    uint64_t sleeps;
};

/* A message to be sent. A datagram goes to the node's address in the ring record; a message over the connection is
 * carried by the peer connection. Where there is none it may go as a datagram, unless it is `large`: then it is
 * dropped. */
struct swim_send {
    uint64_t node;
    bool over_connection;
    bool large;        /* an exchange: refused as a datagram, whatever its size */
    struct span bytes; /* valid until the next call other than swim_next_send and swim_next_change */
};

struct swim_change {
    uint64_t node;
    uint64_t incarnation;
    enum swim_state state;
};

struct swim_member {
    uint64_t node;
    uint64_t incarnation; /* 0: never heard of */
    enum swim_state state;
    bool changed;               /* waits in the queue of changes */
    uint64_t since_ms;          /* of the state */
    uint64_t heard_ms;          /* last direct sign of life; 0 = none */
    uint64_t told_ms;           /* when it was last set right, by itself */
    struct suspicion suspicion; /* while SUSPECT */
};

/* The probe under way. */
struct swim_probe {
    bool active;
    bool answered;
    bool helped; /* the helpers were asked */
    uint16_t target;
    uint32_t sequence;
    uint32_t helper_count;
    uint64_t helpers[SWIM_HELPERS_MAX];
    bool nacked[SWIM_HELPERS_MAX];
    uint64_t started_ms;
    uint64_t timeout_ms; /* when the helpers are asked */
    uint64_t end_ms;
};

/* A ping on behalf of another. */
struct swim_relay {
    uint32_t sequence; /* ours */
    uint32_t origin_sequence;
    uint64_t origin;
    uint64_t target;
    uint64_t nack_ms;
    uint64_t end_ms;
    bool nacked;
};

struct swim_pending {
    uint64_t node;
    bool over_connection;
    bool large;
    size_t start;
    size_t size;
};

struct swim {
    struct alloc *alloc;
    struct hash_128 cluster;
    struct swim_tuning tuning;
    struct prng prng;
    uint64_t now_ms;
    uint64_t self_node;
    uint16_t self;               /* its index */
    uint64_t *nodes;             /* ids, ascending: what is searched, in little memory */
    struct swim_member *members; /* in the same order */
    uint16_t member_count;
    uint16_t suspects;
    uint16_t dead;
    uint16_t *order; /* of probing: a permutation of the indices */
    uint16_t order_at;
    uint16_t *changes; /* indices, oldest first */
    uint16_t change_count;
    uint16_t change_at;
    struct rumours rumours;
    struct awareness awareness;
    struct swim_probe probe;
    struct swim_relay relays[SWIM_RELAYS_MAX];
    uint16_t relay_count;
    uint32_t sequence_next;
    uint64_t probe_at_ms; /* the next probe begins */
    uint64_t gossip_at_ms;
    uint64_t exchange_at_ms;
    uint64_t suspicion_at_ms; /* no suspicion ends before; UINT64_MAX = never */
    struct swim_pending sends[SWIM_SENDS_MAX];
    uint16_t send_count;
    uint16_t send_at;
    struct buf send_bytes;
    struct swim_counters counters;
};

/* Everybody is taken for alive until heard otherwise. OVERLOADED: no memory; nothing is kept then. */
MUST_CHECK enum status swim_init(struct swim *swim, const struct swim_options *options);
void swim_free(struct swim *swim);

/* The ring record in force names these members (this node among them); what is known of those that stay is kept.
 * OVERLOADED: no memory; the old ones stay. */
MUST_CHECK enum status swim_set_members(struct swim *swim, const uint64_t *nodes, uint16_t node_count);

/* The time has passed. To be called no later than swim_deadline_ms; harmless at any time. */
void swim_tick(struct swim *swim, uint64_t now_ms);
uint64_t swim_deadline_ms(const struct swim *swim);

struct swim_received {
    uint64_t now_ms;
    uint64_t node; /* over a connection: the node at its other end; a datagram: 0 */
    bool over_connection;
    struct span bytes; /* one whole message; not kept */
};

/* A message came. What is malformed or foreign is counted and ignored. */
void swim_receive(struct swim *swim, const struct swim_received *received);

/* The node answered something over a live peer connection, or a connection with it was just established. Counts as
 * an answer to a probe, and if the node is held suspect or dead it is told so, to refute. Cheap. */
void swim_heard(struct swim *swim, uint64_t node, uint64_t now_ms);

/* Takes the next message to send, or the next change of another node's state (only the latest of each node); false
 * when there is none. Both are to be drained after every call above. */
bool swim_next_send(struct swim *swim, struct swim_send *send);
bool swim_next_change(struct swim *swim, struct swim_change *change);

/* Alive or suspect; this node itself always is. A node that is no member is not. */
bool swim_reachable(const struct swim *swim, uint64_t node);

/* What is known of a node, or NULL; for rankings and observation. Valid until the next call. */
const struct swim_member *swim_member_of(const struct swim *swim, uint64_t node);

/* This node's own incarnation and health. */
uint64_t swim_incarnation(const struct swim *swim);
uint8_t swim_health(const struct swim *swim);

/* The time between two full exchanges that this node begins. */
uint64_t swim_exchange_interval_ms(const struct swim *swim);

/* "alive", "suspect", "dead"; static storage. */
const char *swim_state_name(enum swim_state state);

#endif
