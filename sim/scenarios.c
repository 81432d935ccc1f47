/* The list of scenarios. */
#include "sim/scenarios.h"

const struct scenario scenarios[] = {
    {"fast-clock-slow-clock", "a later write at a slower clock wins", NULL, scenario_fast_clock_slow_clock},
    {"expire-of-an-old-value", "an EXPIRE never expires the value of a later SET", NULL,
     scenario_expire_of_an_old_value},
    {"expiry-is-not-a-write", "an expired row stays as it is and loses to any write", NULL,
     scenario_expiry_is_not_a_write},
    {"persisted-clock-bound-ahead", "a restarted node stamps again soon, and its peers take it", NULL,
     scenario_persisted_clock_bound_ahead},
    {"empty-disk-that-believes-it-is-new", "a wiped node's \"not found\" never counts towards R", NULL,
     scenario_empty_disk},
    {"row-updated-while-flushed", "a row that changes while it is flushed stays dirty", prepare_little_memory,
     scenario_row_updated_while_flushed},
    {"segments-out-of-order", "log segments go oldest first, each once it is in the cold tier", prepare_little_memory,
     scenario_segments_out_of_order},
    {"torn-tail", "what a power loss tears off the log was never acknowledged", prepare_torn, scenario_torn_tail},
    {"damage-before-the-durable-end", "damage in the log is found, and its keys answer an error", NULL,
     scenario_damage},
    {"k-changes-over-a-restart", "a data directory opens with any number of shards", prepare_three_shards,
     scenario_k_changes},
    {"partial-write-then-two-reads", "a value once read by R stays read, whoever of the holders dies", prepare_five,
     scenario_partial_write_then_two_reads},
    {"late-write-back", "a put that arrives after its deadline changes nothing", NULL, scenario_late_write_back},
    {"client-map-with-dead-nodes", "CLUSTER SLOTS leaves unreachable nodes out", NULL,
     scenario_client_map_with_dead_nodes},
    {"coordinator-counted-twice", "the coordinator's own copy is one of W", NULL, scenario_coordinator_counted_twice},
    {"stale-coordinator", "replicas refuse a coordinator whose ring is older than the slot", prepare_five_of_three,
     scenario_stale_coordinator},
};
const uint32_t scenario_count = sizeof scenarios / sizeof *scenarios;
