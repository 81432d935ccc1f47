/* How RocksDB is set up: chosen by measurement, and bounded in memory (docs/architecture.md has the figures).
 *
 * What it keeps in memory is the block cache, in which indexes and filters live too, and what work under way holds:
 * for each of COLD_BACKGROUND_JOBS a window of readahead for each table it merges and the table it writes; for each
 * flush the table it writes. Its own write buffer and log are never used. */
#include "edge/cold_internal.h"

/* Filters of 10 bits per key miss 1 in 100. */
#define COLD_FILTER_BITS 10.0

/* Indexes and filters are cut into parts of this size, each a block of the cache by itself: that of a whole table, a
 * megabyte, would push everything else out, or not fit at all and be read anew for every key. */
#define COLD_METADATA_BLOCK_BYTES ((uint64_t)4 << 10)

/* The cache is cut into shards, each with a lock, of at least this size: a shard has room for the largest things that
 * are common, and one lock is enough for the few threads there are. */
#define COLD_CACHE_SHARD_BYTES ((size_t)8 << 20)
#define COLD_CACHE_SHARD_BITS_MAX 4

#define COLD_BLOCK_BYTES (8u << 10)
#define COLD_TABLE_BYTES ((uint64_t)64 << 20)
#define COLD_LEVEL1_BYTES ((uint64_t)256 << 20)
#define COLD_INFO_LOG_BYTES ((size_t)1 << 20)
#define COLD_INFO_LOGS_MAX 2
#define COLD_BACKGROUND_JOBS 2
#define COLD_COMPACTION_READAHEAD_BYTES ((size_t)256 << 10)

/* Nothing is ever put into RocksDB's own memory; the least that it takes. */
#define COLD_WRITE_BUFFER_BYTES ((size_t)64 << 10)
#define COLD_MEMORY_BYTES_MIN ((size_t)1 << 20)

/* Not of the kind that refuses what does not fit: a read would then fail instead of being a little over. What is in
 * use at one moment, a block or two for each thread that reads, is all that can be over. */
static rocksdb_cache_t *make_cache(size_t bytes)
{
    if (bytes < COLD_MEMORY_BYTES_MIN)
        bytes = COLD_MEMORY_BYTES_MIN;
    int bits = 0;
    while (bits < COLD_CACHE_SHARD_BITS_MAX && bytes >> (bits + 1) >= COLD_CACHE_SHARD_BYTES)
        bits++;
    rocksdb_lru_cache_options_t *options = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(options, bytes);
    rocksdb_lru_cache_options_set_num_shard_bits(options, bits);
    rocksdb_cache_t *cache = rocksdb_cache_create_lru_opts(options);
    rocksdb_lru_cache_options_destroy(options);
    return cache;
}

static rocksdb_block_based_table_options_t *make_table_options(rocksdb_cache_t *cache)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_block_size(table, COLD_BLOCK_BYTES);
    rocksdb_block_based_options_set_format_version(table, 5);
    rocksdb_block_based_options_set_filter_policy(table,
                                                  rocksdb_filterpolicy_create_bloom_full(COLD_FILTER_BITS));
    rocksdb_block_based_options_set_index_type(table,
                                               rocksdb_block_based_table_index_type_two_level_index_search);
    rocksdb_block_based_options_set_partition_filters(table, 1);
    rocksdb_block_based_options_set_metadata_block_size(table, COLD_METADATA_BLOCK_BYTES);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
    rocksdb_block_based_options_set_pin_top_level_index_and_filter(table, 1);
    return table;
}

void cold_options_make(struct cold *cold, const struct cold_options *wanted)
{
    cold->cache = make_cache(wanted->memory_bytes);
    cold->table_options = make_table_options(cold->cache);

    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_block_based_table_factory(options, cold->table_options);
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_paranoid_checks(options, 1);
    rocksdb_options_set_compression(options, rocksdb_lz4_compression);
    rocksdb_options_set_write_buffer_size(options, COLD_WRITE_BUFFER_BYTES);
    rocksdb_options_set_max_write_buffer_number(options, 2);
    rocksdb_options_set_target_file_size_base(options, COLD_TABLE_BYTES);
    rocksdb_options_set_max_bytes_for_level_base(options, COLD_LEVEL1_BYTES);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_level0_file_num_compaction_trigger(options, COLD_LEVEL0_COMPACT);
    rocksdb_options_set_level0_slowdown_writes_trigger(options, COLD_LEVEL0_FILES_MAX * 2);
    rocksdb_options_set_level0_stop_writes_trigger(options, COLD_LEVEL0_FILES_MAX * 2);
    rocksdb_options_set_max_open_files(options,
                                       wanted->files_open_max > 64 ? (int)wanted->files_open_max : 64);
    rocksdb_options_set_max_background_jobs(options, COLD_BACKGROUND_JOBS);
    rocksdb_options_compaction_readahead_size(options, COLD_COMPACTION_READAHEAD_BYTES);
    rocksdb_options_set_bytes_per_sync(options, 1 << 20);
    rocksdb_options_set_info_log_level(options, 2); /* warnings */
    rocksdb_options_set_max_log_file_size(options, COLD_INFO_LOG_BYTES);
    rocksdb_options_set_keep_log_file_num(options, COLD_INFO_LOGS_MAX);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_stats_persist_period_sec(options, 0);
    cold->options = options;

    cold->read_options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(cold->read_options, 1);
    cold->ingest_options = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(cold->ingest_options, 1);
    cold->environment = rocksdb_envoptions_create();
}
