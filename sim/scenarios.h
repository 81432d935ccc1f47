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
void scenario_damage_of_a_lone_replica(struct world *world);
void prepare_shards_that_become_one(struct swarm *swarm);
void scenario_shards_become_one(struct world *world);
void scenario_k_changes(struct world *world);

/* scenarios_amnesia.c */
void prepare_healing(struct swarm *swarm);
void prepare_healing_of_two_shards(struct swarm *swarm);
void scenario_amnesia_empty_disk(struct world *world);
void scenario_amnesia_older_disk(struct world *world);
void scenario_amnesia_restarted_copy(struct world *world);
void scenario_amnesia_restored_copy(struct world *world);
void scenario_amnesia_alone(struct world *world);

/* scenarios_purged.c */
void prepare_purging(struct swarm *swarm);
void scenario_old_disk_after_a_rebuilt_one(struct world *world);

/* scenarios_verified.c */
void prepare_verified(struct swarm *swarm);
void scenario_verified_before_the_log(struct world *world);
void scenario_verified_by_a_late_answer(struct world *world);
void scenario_expiries_that_cross(struct world *world);
void scenario_hint_renewed_while_replayed(struct world *world);

/* scenarios_healing.c */
struct shard_healing_state healing_of(const struct world *world, uint16_t node);
void prepare_hints(struct swarm *swarm);
void prepare_hints_many_keys(struct swarm *swarm);
void prepare_repair_many_keys(struct swarm *swarm);
void prepare_repair(struct swarm *swarm);
void prepare_slow_repair(struct swarm *swarm);
void prepare_sloppy(struct swarm *swarm);
void prepare_hints_and_repair(struct swarm *swarm);
void prepare_few_hints(struct swarm *swarm);
void prepare_slow_hints(struct swarm *swarm);
void prepare_repair_little_memory(struct swarm *swarm);
void prepare_repair_slow_log(struct swarm *swarm);
/* Flips a bit of the oldest value in the log, which was synced long ago. */
void damage_log(struct world *world, struct sim_node *node);
void scenario_hinted_handoff(struct world *world);
void scenario_every_hint_counts(struct world *world);
void scenario_anti_entropy_alone(struct world *world);
void scenario_hint_bound(struct world *world);
void scenario_throttled_replay(struct world *world);
void scenario_crash_during_replay(struct world *world);
void scenario_damage_heals(struct world *world);
void scenario_cold_damage_heals(struct world *world);
void scenario_dirty_marks(struct world *world);
void scenario_fallbacks_know_nothing(struct world *world);
void scenario_tree_ahead_of_the_log(struct world *world);

/* scenarios_blind.c */
void prepare_blind_hints(struct swarm *swarm);
void prepare_blind_repair(struct swarm *swarm);
void scenario_blind_write_after_a_crash(struct world *world);
void scenario_blind_override(struct world *world);
void scenario_blind_writes_differ(struct world *world);
void scenario_blind_write_purged(struct world *world);
void prepare_blind_slow_reads(struct swarm *swarm);
void prepare_resident(struct swarm *swarm);
void scenario_resident_slots(struct world *world);
void prepare_blind_purge(struct swarm *swarm);
void scenario_blind_write_during_a_cold_read(struct world *world);

/* scenarios_purge.c */
void prepare_lone_replica(struct swarm *swarm);
void scenario_lone_replica_reads_again(struct world *world);
void prepare_repair_shared_slot(struct swarm *swarm);
void scenario_purged_row_stays_out(struct world *world);
void prepare_slow_flushes(struct swarm *swarm);
void scenario_flush_failed_and_arrived(struct world *world);
void scenario_purge_waits(struct world *world);
void scenario_purge_waits_for_an_exchange(struct world *world);
void scenario_half_done_purge(struct world *world);
void scenario_expired_value(struct world *world);
void scenario_late_put_after_purge(struct world *world);
void scenario_late_repair_after_purge(struct world *world);
void scenario_old_hint_after_purge(struct world *world);
void scenario_stale_row_on_marked_slot(struct world *world);

/* scenarios_latency.c */
void scenario_slow_replica(struct world *world);

/* scenarios_gossip.c */
void scenario_gossip_quiet(struct world *world);
void scenario_gossip_dead_node_is_known(struct world *world);
void scenario_gossip_stopped_node(struct world *world);
void scenario_gossip_one_way_partition(struct world *world);
void scenario_gossip_old_incarnation(struct world *world);

/* scenarios_quorum.c */
void prepare_five(struct swarm *swarm);
void prepare_five_of_three(struct swarm *swarm);
void scenario_partial_write_then_two_reads(struct world *world);
void scenario_answer_to_an_earlier_process(struct world *world);
void scenario_late_write_back(struct world *world);
void prepare_single_replica(struct swarm *swarm);
void scenario_refused_once_of_twice(struct world *world);
void scenario_lone_replica_in_turn(struct world *world);
void scenario_client_map_with_dead_nodes(struct world *world);
void scenario_coordinator_counted_twice(struct world *world);
void scenario_stale_coordinator(struct world *world);

#endif
