/* Named scenarios: the schedules that broke drafts of the design, step by step, each with what must come out. */
#ifndef RONDO_SIM_SCENARIO_H
#define RONDO_SIM_SCENARIO_H

#include "sim/world.h"

struct scenario {
    const char *name;
    const char *text;
    void (*prepare)(struct swarm *swarm); /* may be NULL: three calm nodes, N=3, one shard each */
    void (*run)(struct world *world);
};

extern const struct scenario scenarios[];
extern const uint32_t scenario_count;

/* By name, or NULL. */
const struct scenario *scenario_find(const char *name);

/* Runs one to its end, oracles included. */
void scenario_run(struct world *world, const struct scenario *scenario);

/* ---- for the scenarios' scripts ------------------------------------------------------------------------- */

/* Starts every node and waits until all are connected. */
void script_start(struct world *world);

/* What a command came to. */
struct script_result {
    enum history_outcome outcome;
    uint32_t value; /* read or written */
    bool found;
};

/* One command at a node, answered or given up after three seconds. */
struct script_result script_set(struct world *world, uint16_t node, uint32_t key, uint8_t w);
struct script_result script_set_ttl(struct world *world, uint16_t node, uint32_t key, uint8_t w,
                                    uint64_t ttl_ms);
struct script_result script_get(struct world *world, uint16_t node, uint32_t key, uint8_t r);
struct script_result script_expire(struct world *world, uint16_t node, uint32_t key, uint64_t seconds);
/* With R and W that are no quorum. */
struct script_result script_expire_of(struct world *world, uint16_t node, uint32_t key, uint64_t seconds,
                                      uint8_t replicas);
struct script_result script_delete(struct world *world, uint16_t node, uint32_t key, uint8_t w);

/* Sends a command whose answer is not waited for. */
uint32_t script_set_begin(struct world *world, uint16_t node, uint32_t key, uint8_t w, uint32_t timeout_ms);

/* A SET of a new value and a GET in one pipeline; the history's number of the SET, the GET's is the next. */
uint32_t script_set_get_begin(struct world *world, uint16_t node, uint32_t set_key, uint32_t get_key);

/* The raw reply to any command, terminated; valid until the next. */
const char *script_command(struct world *world, uint16_t node, const char *inline_command);

/* Fails the scenario unless the condition holds. */
void script_expect(struct world *world, bool condition, const char *text);

/* Cuts, or restores, everything between two nodes. */
void script_part(struct world *world, uint16_t a, uint16_t b, bool parted);

/* Which nodes (indices of the world) replicate a key, in the order of its preference list. */
uint16_t script_replica(struct world *world, uint32_t key, uint8_t place);

/* Waits until what is in flight has settled. */
void script_settle(struct world *world);

#endif
