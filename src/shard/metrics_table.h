/* The one list of what a node counts and shows at GET /metrics.
 *
 * To add a metric, add one line here; whatever is needed beside it (the member of struct shard_counters, gathering from
 * all shards, HELP and TYPE) follows from the line. Names and units are Prometheus's conventions: the prefix rondo_,
 * base units (seconds, bytes) at the end, then _total for what only grows. docs/operations.md explains each. */
#ifndef RONDO_SHARD_METRICS_TABLE_H
#define RONDO_SHARD_METRICS_TABLE_H

/* What a shard counts: `field` of struct shard_counters, a uint64_t. Without a name it is not shown by itself
 * (rondo_requests_total has the outcomes).
 * X(field, type, name, help) */
/* clang-format off */
#define METRICS_COUNTED(X)                                                                                            \
    X(commands, counter, "rondo_commands_total", "Commands read from clients.")                                       \
    X(requests_forwarded, counter, "rondo_requests_forwarded_total",                                                  \
      "Requests coordinated here for a key that this node does not replicate.")                                       \
    X(requests_done, counter, "", "")                                                                                 \
    X(requests_not_applied, counter, "", "")                                                                          \
    X(requests_unknown, counter, "", "")                                                                              \
    X(quorum_shortfalls, counter, "rondo_quorum_shortfalls_total",                                                    \
      "Requests refused because too few replicas were reachable.")                                                    \
    X(restamps, counter, "rondo_restamps_total", "Writes stamped anew above what replicas held, and sent once more.") \
    X(write_backs, counter, "rondo_write_backs_total", "Records that reads wrote back to replicas without them.")     \
    X(overwritten_concurrent, counter, "rondo_overwritten_concurrent_total",                                          \
      "Writes that lost to, or replaced, another node's of almost the same time.")                                    \
    X(stale_epochs, counter, "rondo_stale_epochs_total", "Messages refused because their sender's ring was too old.") \
    X(deadline_drops, counter, "rondo_deadline_drops_total", "Messages that came after their deadline.")              \
    X(cold_reads, counter, "rondo_cold_reads_total", "Reads of the cold tier.")                                       \
    X(cold_reads_spared, counter, "rondo_cold_reads_spared_total", "Keys known not to be in the cold tier.")          \
    X(blind_writes, counter, "rondo_blind_writes_total",                                                              \
      "Writes that were newer than all that the cold tier may hold, and did not read it.")                            \
    X(flushes, counter, "rondo_flushes_total", "Flushes of dirty rows to the cold tier that were begun.")             \
    X(overloads, counter, "rondo_overloads_total", "Times that a limit was reached and something was refused.")       \
    X(clients, gauge, "rondo_clients_connected", "Client connections that are open.")                                 \
    X(misdirected_frames, counter, "rondo_misdirected_frames_total",                                                  \
      "Messages of other nodes passed on to the shard that they are about.")                                          \
    X(hedges, counter, "rondo_hedges_total",                                                                          \
      "Further replicas read from, or written back to, because others were late.")                                    \
    X(hedges_won, counter, "rondo_hedges_won_total", "Hedges that ended a request before the late replica did.")      \
    X(hedges_refused, counter, "rondo_hedges_refused_total", "Hedges not made, or made later, for want of budget.")   \
    X(read_probes, counter, "rondo_read_probes_total", "Reads that nobody waited for, to measure a slow replica.")

/* What is read from a shard when somebody asks, and summed over the shards. `value` is an expression of `shard`, a
 * uint64_t; `decimals` says how many of its last digits stand behind the point. Without a name INFO alone shows it. A
 * name may have labels; lines that
 * differ only in these stand together, and only the first has a help.
 * X(field, type, decimals, name, help, value) */
#define METRICS_READ(X)                                                                                               \
    X(keys, gauge, 0, "rondo_keys", "Keys that this node holds.",                                                     \
      slots_keys(shard))                                                                                              \
    X(rows, gauge, 0, "rondo_rows", "Rows in memory.", memtable_counters(&shard->memtable)->rows)                     \
    X(rows_dirty, gauge, 0, "rondo_rows_dirty", "Rows in memory that are not in the cold tier yet.",                  \
      memtable_counters(&shard->memtable)->rows_dirty)                                                                \
    X(memory_used, gauge, 0, "rondo_memory_used_bytes", "Memory that the shards use of their budget.",                \
      shard->alloc.used_bytes + shard->row_alloc.used_bytes + shard->repairing.tree_alloc.used_bytes)                 \
    X(memory_budget, gauge, 0, "rondo_memory_budget_bytes", "Memory that the shards may use.",                        \
      shard->options.memory_bytes + shard->options.buffer_bytes)                                                      \
    X(in_flight, gauge, 0, "rondo_requests_in_flight", "Requests begun here and not answered yet.",                   \
      shard->requests.count - shard->lingering)                                                                       \
    X(cold_waiting, gauge, 0, "rondo_cold_reads_waiting", "Messages that wait for a read of the cold tier.",          \
      shard->cold_waiting)                                                                                            \
    X(log_unsynced, gauge, 0, "rondo_log_not_durable_bytes", "Bytes given to the log that are not durable yet.",      \
      shard->log.unsynced_bytes)                                                                                      \
    X(gossip_sent, counter, 0, "rondo_gossip_messages_sent_total", "Gossip messages sent.",                           \
      liveness_counters(shard)->sent)                                                                                 \
    X(gossip_received, counter, 0, "rondo_gossip_messages_received_total", "Valid gossip messages received.",         \
      liveness_counters(shard)->received)                                                                             \
    X(gossip_bytes_sent, counter, 0, "rondo_gossip_sent_bytes_total", "Bytes of the gossip messages sent.",           \
      liveness_counters(shard)->sent_bytes)                                                                           \
    X(gossip_suspicions, counter, 0, "rondo_gossip_suspicions_total", "Times that a node was suspected.",             \
      liveness_counters(shard)->suspicions)                                                                           \
    X(gossip_deaths, counter, 0, "rondo_gossip_deaths_total", "Times that this node declared another dead.",          \
      liveness_counters(shard)->deaths)                                                                               \
    X(gossip_refutations, counter, 0, "rondo_gossip_refutations_total",                                               \
      "Times that this node was suspected or declared dead, and objected.", liveness_counters(shard)->refutations)    \
    X(gossip_health, gauge, 0, "rondo_gossip_health",                                                                 \
      "Above 0 where this node is slow or cut off, and slower to judge others.", liveness_health(shard))              \
    X(nodes_alive, gauge, 0, "rondo_nodes{state=\"alive\"}", "Nodes by what gossip says of them, this one included.", \
      liveness_nodes(shard, SWIM_ALIVE))                                                                              \
    X(nodes_suspect, gauge, 0, "rondo_nodes{state=\"suspect\"}", "", liveness_nodes(shard, SWIM_SUSPECT))             \
    X(nodes_dead, gauge, 0, "rondo_nodes{state=\"dead\"}", "", liveness_nodes(shard, SWIM_DEAD))                      \
    X(hints, gauge, 0, "rondo_hints", "Writes kept for nodes that missed them.",                                      \
      shard->repairing.handoff.books.count)                                                                           \
    X(hint_bytes, gauge, 0, "rondo_hint_bytes", "Bytes of the hints kept.", shard->repairing.handoff.books.bytes)     \
    X(hint_syncs, gauge, 0, "rondo_hint_sync_slots",                                                                  \
      "Slots to be compared with a node instead of a hint for each write.", marks_count(shard))                     \
    X(hints_stored, counter, 0, "rondo_hints_stored_total", "Hints written.", shard->repairing.handoff.stored)        \
    X(hints_replayed, counter, 0, "rondo_hints_replayed_total", "Hints that reached their nodes and were deleted.",   \
      shard->repairing.handoff.books.replayed)                                                                        \
    X(hints_converted, counter, 0, "rondo_hints_converted_total",                                                     \
      "Writes for which a slot was marked, as no hint had room.", shard->repairing.handoff.books.converted)           \
    X(hints_refused, counter, 0, "rondo_hints_refused_total", "Hints refused for want of room.",                      \
      shard->repairing.handoff.books.refused)                                                                         \
    X(hints_discarded, counter, 0, "rondo_hints_discarded_total",                                                     \
      "Hints not kept as their write was too old, or hints were being counted.", shard->repairing.handoff.discarded)  \
    X(repair_exchanges, counter, 0, "rondo_repair_exchanges_total", "Exchanges of anti-entropy begun here.",          \
      shard->repairing.counters.exchanges)                                                                            \
    X(repair_failed, counter, 0, "rondo_repair_exchanges_failed_total",                                               \
      "Exchanges begun here that did not get to their end.", shard->repairing.counters.exchanges_failed)              \
    X(repair_slots, counter, 0, "rondo_repair_slots_compared_total", "Slots in the exchanges begun here.",            \
      shard->repairing.counters.exchange_slots)                                                                       \
    X(repair_differed, counter, 0, "rondo_repair_slots_differed_total",                                               \
      "Slots in which an exchange found a difference.", shard->repairing.counters.slots_differed)                     \
    X(repair_sent, counter, 0, "rondo_repair_sent_bytes_total", "Bytes sent in exchanges begun here.",                \
      shard->repairing.counters.bytes_sent)                                                                           \
    X(repair_received, counter, 0, "rondo_repair_received_bytes_total", "Bytes received in exchanges begun here.",    \
      shard->repairing.counters.bytes_received)                                                                       \
    X(repair_records_sent, counter, 0, "rondo_repair_records_sent_total", "Records sent in exchanges begun here.",    \
      shard->repairing.counters.records_sent)                                                                         \
    X(repair_records_received, counter, 0, "rondo_repair_records_received_total",                                     \
      "Records received in exchanges of either side.", shard->repairing.counters.records_received)                    \
    X(repair_rows, counter, 0, "rondo_repair_rows_read_total", "Rows read for exchanges begun here.",                 \
      shard->repairing.counters.rows_read)                                                                            \
    X(repair_rounds, counter, 0, "rondo_repair_rounds_total", "Rounds over all slots and nodes, by each shard.",      \
      shard->repairing.rounds)                                                                                        \
    X(rescans, counter, 0, "rondo_repair_rescans_total",                                                              \
      "Ranges of rows read to prove Merkle trees, or to make them.", shard->repairing.counters.rescans)               \
    X(leaves_wrong, counter, 0, "rondo_repair_leaves_wrong_total",                                                    \
      "Leaves of Merkle trees that did not fit their rows.", shard->repairing.counters.leaves_wrong)                  \
    X(not_serving, gauge, 0, "rondo_slots_not_serving", "Slots of this node whose answers do not count towards R.",   \
      slots_not_serving(shard))                                                                                       \
    X(quarantined, gauge, 0, "rondo_quarantined_slots",                                                               \
      "Slots whose data may be damaged here and is not repaired yet.", heal_slots_left(shard))                        \
    X(slots_healed, counter, 0, "rondo_slots_healed_total", "Slots that serve again.",                                \
      shard->repairing.counters.slots_healed)                                                                         \
    X(dead, gauge, 0, "rondo_dead_rows", "Tombstones and rows with an expiry: an estimate.", slots_dead(shard))       \
    X(purged, counter, 0, "rondo_rows_purged_total", "Dead rows that were purged.", shard->repairing.counters.purged) \
    X(floor_refusals, counter, 0, "rondo_purge_floor_refusals_total",                                                 \
      "Writes refused because they are older than what was purged.", shard->repairing.counters.floor_refusals)        \
    X(log_syncs, counter, 0, "rondo_log_syncs_total", "Syncs of the log.", shard->facts.log_syncs)                    \
    X(log_written, counter, 0, "rondo_log_written_bytes_total", "Bytes written to the log.", shard->facts.log_bytes)  \
    X(log_segments, gauge, 0, "rondo_log_segments", "Files of the log, with those kept for recycling.",               \
      shard->facts.log_segments)                                                                                      \
    X(cold_bytes, gauge, 0, "rondo_cold_tier_bytes", "Bytes of the cold tier's tables on disk.",                      \
      shard->facts.cold_bytes)                                                                                        \
    X(cold_level0_files, gauge, 0, "rondo_cold_tier_level0_files",                                                    \
      "Tables of the cold tier that wait for compaction.", shard->facts.cold_level0_files)                            \
    X(cold_memory, gauge, 0, "rondo_cold_tier_memory_bytes", "Memory that the cold tier uses.",                       \
      shard->facts.cold_memory_bytes)                                                                                 \
    X(disk_free, gauge, 0, "rondo_disk_free_bytes", "Room on the data directory's file system.",                      \
      shard->facts.disk_free_bytes)                                                                                   \
    X(clients_cut_output, counter, 0, "rondo_clients_cut_total{reason=\"output\"}",                                   \
      "Clients cut off: for answers not taken, a request half sent, or idleness.", shard->facts.clients_cut_output)   \
    X(clients_cut_request, counter, 0, "rondo_clients_cut_total{reason=\"request\"}", "",                             \
      shard->facts.clients_cut_request)                                                                               \
    X(clients_cut_idle, counter, 0, "rondo_clients_cut_total{reason=\"idle\"}", "", shard->facts.clients_cut_idle)    \
    X(clients_refused, counter, 0, "rondo_clients_refused_total",                                                     \
      "Connections of clients that were not accepted.", shard->facts.clients_refused)                                 \
    X(buffers, gauge, 0, "rondo_connection_buffer_bytes",                                                             \
      "Memory for input and output of connections that waits.", shard->facts.buffer_bytes)                            \
    X(buffers_budget, gauge, 0, "rondo_connection_buffer_budget_bytes",                                               \
      "Memory that connections may use.", shard->facts.buffer_bytes_max)                                              \
    X(resident, gauge, 0, "process_resident_memory_bytes", "Resident memory of the process.",                         \
      shard->facts.resident_bytes)                                                                                    \
    X(cpu_system, counter, 6, "", "", shard->facts.cpu_system_us)                                                     \
    X(memory_peak, gauge, 0, "", "", shard->alloc.peak_bytes + shard->row_alloc.peak_bytes)                           \
    X(keys_expiring, gauge, 0, "", "", slots_expiring(shard))                                                         \
    X(connected_peers, gauge, 0, "", "", peers_connected(shard))                                                      \
    X(cpu, counter, 6, "process_cpu_seconds_total", "Processor time of the process, user and system.",                \
      shard->facts.cpu_us)

/* The same, but of the shards' values the greatest counts. */
#define METRICS_MOST(X)                                                                                               \
    X(repair_age, gauge, 1, "rondo_repair_verified_age_seconds",                                                      \
      "Time since the slot compared longest ago was last found equal everywhere, or the start.", slots_age(shard))

/* What the shard that is asked knows for the whole node. `value` is an expression of `shard`, an int64_t.
 * X(type, decimals, name, help, value) */
#define METRICS_NODE(X)                                                                                               \
    X(gauge, 3, "process_start_time_seconds", "When the process started, in seconds since 1970.",                     \
      (int64_t)shard->options.started_wall_ms)                                                                        \
    X(gauge, 0, "rondo_shards", "Shards of this node.", shard->options.shards)                                        \
    X(gauge, 0, "rondo_ring_epoch", "Epoch of the ring record in force.", (int64_t)shard->ring->epoch)                \
    X(gauge, 0, "rondo_ring_nodes", "Nodes of the ring record in force.", shard->ring->node_count)                    \
    X(gauge, 0, "rondo_serving", "1 if this node's answers count towards R.", shard->serving)                         \
    X(gauge, 0, "rondo_disk_full", "1 if writes are refused because the disk is full.", shard->log.full)              \
    X(gauge, 0, "rondo_clock_trusted", "1 if the clock is near enough to those of the peers to stamp writes.",        \
      shard->clock_trusted)                                                                                           \
    X(gauge, 3, "rondo_clock_offset_seconds", "This node's clock minus the median of its peers'.",                    \
      -shard->clock_offset_ms)

/* Histograms of times, in microseconds. Lines of one name stand together and differ in their label ("" for none).
 * X(id, name, label, help) */
#define METRICS_TIMES(X)                                                                                              \
    X(READ, "rondo_request_duration_seconds", "operation=\"read\"",                                                   \
      "From the coordinator's first look at a request to its result.")                                                \
    X(WRITE, "rondo_request_duration_seconds", "operation=\"write\"", "")                                             \
    X(READ_REPLICAS, "rondo_replica_wait_seconds", "operation=\"read\"",                                              \
      "From a request's first message to a replica to its result.")                                                   \
    X(WRITE_REPLICAS, "rondo_replica_wait_seconds", "operation=\"write\"", "")                                        \
    X(STAMP, "rondo_stamp_wait_seconds", "", "How long writes waited for a stamp, of those that had to wait.")        \
    X(LOG, "rondo_log_durable_seconds", "", "From giving a batch to the log until it is durable.")                    \
    X(COLD, "rondo_cold_read_seconds", "", "From asking the cold tier for a record to its answer.")
/* clang-format on */

#endif
