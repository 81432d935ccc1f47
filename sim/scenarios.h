/* The scenarios' functions, for the list. */
#ifndef RONDO_SIM_SCENARIOS_H
#define RONDO_SIM_SCENARIOS_H

#include "sim/scenario.h"

/* scenarios_clock.c */
void scenario_fast_clock_slow_clock(struct world *world);
void scenario_expire_of_an_old_value(struct world *world);
void scenario_expiry_is_not_a_write(struct world *world);
void scenario_persisted_clock_bound_ahead(struct world *world);
void scenario_stamps_after_a_restart(struct world *world);

/* scenarios_disk.c */
void prepare_little_memory(struct swarm *swarm);
void prepare_very_little_memory(struct swarm *swarm);
void prepare_torn(struct swarm *swarm);
void prepare_three_shards(struct swarm *swarm);
void scenario_empty_disk(struct world *world);
void scenario_row_updated_while_flushed(struct world *world);
void scenario_segments_out_of_order(struct world *world);
void scenario_flush_overtakes_the_log(struct world *world);
void scenario_torn_tail(struct world *world);
void scenario_damage(struct world *world);
void scenario_k_changes(struct world *world);

/* scenarios_quorum.c */
void prepare_five(struct swarm *swarm);
void prepare_five_of_three(struct swarm *swarm);
void scenario_partial_write_then_two_reads(struct world *world);
void scenario_late_write_back(struct world *world);
void scenario_client_map_with_dead_nodes(struct world *world);
void scenario_coordinator_counted_twice(struct world *world);
void scenario_stale_coordinator(struct world *world);

#endif
