/* The log thread with real files: what it says is durable is found again, also after a kill; segments are
 * recycled; a full disk is told and survived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/prng.h"
#include "edge/files.h"
#include "edge/log_thread.h"
#include "model/key.h"
#include "store/log_recovery.h"

#define SHARDS 3
#define WAIT_MS_MAX 20000

static const struct log_identity identity = {.cluster_id = {.low = 7, .high = 9}, .directory_id = 42};

/* ---- a listener ----------------------------------------------------------------------------------------- */

struct world {
    char directory[64];
    pthread_mutex_t lock;
    uint64_t durable[SHARDS];
    bool backwards;
    unsigned full_count;
    unsigned room_count;
    char fatal[256];
    int pipe; /* when > 0: durable sequences are written here, for a parent that survives us */
    struct log_thread *log;
};

static void on_durable(void *context, uint16_t shard, uint64_t sequence)
{
    struct world *world = context;
    pthread_mutex_lock(&world->lock);
    world->backwards = world->backwards || sequence <= world->durable[shard];
    world->durable[shard] = sequence;
    pthread_mutex_unlock(&world->lock);
    if (world->pipe > 0) {
        uint64_t message[2] = {shard, sequence};
        if (write(world->pipe, message, sizeof(message)) != (ssize_t)sizeof(message))
            abort();
    }
}

static void on_full(void *context, bool full)
{
    struct world *world = context;
    pthread_mutex_lock(&world->lock);
    world->full_count += full;
    world->room_count += !full;
    pthread_mutex_unlock(&world->lock);
}

static void on_fatal(void *context, const char *text)
{
    struct world *world = context;
    pthread_mutex_lock(&world->lock);
    (void)snprintf(world->fatal, sizeof(world->fatal), "%s", text);
    pthread_mutex_unlock(&world->lock);
}

static void world_open(struct world *world)
{
    *world = (struct world){0};
    (void)snprintf(world->directory, sizeof(world->directory), "/tmp/rondo-test-log-XXXXXX");
    assert_non_null(mkdtemp(world->directory));
    pthread_mutex_init(&world->lock, NULL);
}

static void world_close(struct world *world)
{
    assert_int_equal(files_empty_directory(world->directory, NULL), STATUS_OK);
    (void)rmdir(world->directory);
    pthread_mutex_destroy(&world->lock);
}

static void world_start(struct world *world, enum durability_mode mode, uint64_t segment_bytes,
                        const struct log_resume *resume)
{
    struct log_thread_options options = {
        .directory = world->directory,
        .identity = identity,
        .resume = resume,
        .mode = mode,
        .interval_ms = 30,
        .shards = SHARDS,
        .segment_bytes = segment_bytes,
        .context = world,
        .durable = on_durable,
        .full = on_full,
        .fatal = on_fatal,
    };
    memset(world->durable, 0, sizeof(world->durable));
    assert_int_equal(log_thread_start(&options, &world->log, NULL), STATUS_OK);
}

/* Waits until the condition holds; the log thread has no other way to be watched. */
#define WAIT_FOR(world, condition)                                             \
    do {                                                                       \
        bool met_ = false;                                                     \
        for (unsigned ms_ = 0; ms_ < WAIT_MS_MAX && !met_; ms_++) {            \
            pthread_mutex_lock(&(world)->lock);                                \
            met_ = (condition);                                                \
            pthread_mutex_unlock(&(world)->lock);                              \
            if (!met_)                                                         \
                (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); \
        }                                                                      \
        assert_true(met_);                                                     \
    } while (0)

/* ---- batches of one row: key "{TAG} SHARD SEQUENCE", whose tag puts it into the shard --------------------- */

static int row_key_format(char *key, size_t size, uint16_t shard, uint64_t sequence)
{
    for (unsigned tag = 0;; tag++) {
        int length = snprintf(key, size, "{%u} %u %llu", tag, shard, (unsigned long long)sequence);
        if (slot_shard(key_slot(span_of(key, (size_t)length)), SHARDS) == shard)
            return length;
    }
}

static void append_row(struct log_thread *log, struct alloc *alloc, uint16_t shard, uint64_t sequence,
                       size_t size)
{
    char key[64];
    int key_size = row_key_format(key, sizeof(key), shard, sequence);
    struct span key_span = span_of(key, (size_t)key_size);
    struct buf payload;
    buf_init(&payload, alloc);
    uint8_t *record = calloc(1, size);
    assert_non_null(record);
    memset(record, 'a' + (int)(sequence % 26), size);
    log_put_row(&payload, key_slot(key_span), key_span, span_of(record, size));
    if (sequence % 10 == 0)
        log_put_bounds(&payload, (struct hlc_bounds){.bound = sequence, .future = 0});
    assert_false(payload.failed);
    log_thread_append(log, shard, sequence, 1 + (sequence % 10 == 0), sequence % 10 == 0, buf_span(&payload));
    free(record);
    buf_free(&payload);
}

struct found {
    struct log_recovery_report report;
    uint64_t highest[SHARDS];
    uint64_t rows;
    bool gap;
};

static enum status found_row(void *context, uint16_t slot, struct span key, struct span record)
{
    struct found *found = context;
    char text[64] = "";
    unsigned shard = 0;
    unsigned long long sequence = 0;
    assert_true(key.size < sizeof(text));
    memcpy(text, key.data, key.size);
    assert_int_equal(sscanf(text, "{%*u} %u %llu", &shard, &sequence), 2);
    assert_int_equal(slot, key_slot(key));
    assert_true(shard < SHARDS);
    for (size_t i = 0; i < record.size; i++)
        assert_int_equal(record.data[i], 'a' + (int)(sequence % 26));
    if (found->highest[shard] != 0 && sequence != found->highest[shard] + 1)
        found->gap = true;
    found->highest[shard] = sequence;
    found->rows++;
    return STATUS_OK;
}

/* Reads the directory back. *resume (may be NULL) gets what a next log thread needs; free its `inherited`. */
static void read_back(const char *directory, struct found *found, struct log_resume *resume)
{
    struct alloc alloc;
    alloc_init(&alloc, (size_t)1 << 30);
    struct log_file files[256] = {0};
    struct buf bytes[256];
    size_t count = 0;
    /* Numbers are contiguous and small here. */
    for (uint64_t number = 1; number < 4000 && count < 256; number++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%012llu.log", directory, (unsigned long long)number);
        buf_init(&bytes[count], &alloc);
        enum status status = files_read(path, (size_t)1 << 28, &bytes[count], NULL);
        if (status == STATUS_NOT_FOUND)
            continue;
        assert_int_equal(status, STATUS_OK);
        files[count].number = number;
        files[count].bytes = buf_span(&bytes[count]);
        count++;
    }
    memset(found, 0, sizeof(*found));
    struct log_recovery_options options = {.identity = identity, .row = found_row, .context = found};
    assert_int_equal(log_recover(&options, files, count, &found->report), STATUS_OK);
    assert_int_equal(found->report.damage_count, 0);
    if (resume != NULL) {
        *resume = (struct log_resume){
            .segment_next = found->report.segment_next,
            .batch_next = found->report.batch_next,
            .end = found->report.end,
            .bounds = found->report.bounds,
            .inherited = calloc(count + 1, sizeof(uint64_t)),
        };
        for (size_t i = 0; i < count; i++)
            resume->inherited[resume->inherited_count++] = files[i].number;
    }
    for (size_t i = 0; i < count; i++)
        buf_free(&bytes[i]);
}

static size_t count_files(const char *directory)
{
    DIR *opened = opendir(directory);
    assert_non_null(opened);
    size_t count = 0;
    struct dirent *entry;
    while ((entry = readdir(opened)) != NULL)
        count += entry->d_name[0] != '.';
    (void)closedir(opened);
    return count;
}

/* ---- tests ---------------------------------------------------------------------------------------------- */

static void test_log_everything_is_found_again_after_a_clean_stop(void **state)
{
    static const enum durability_mode modes[] = {DURABILITY_ALWAYS, DURABILITY_INTERVAL, DURABILITY_OS};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct world world;
        struct alloc alloc;
        struct found found;
        world_open(&world);
        alloc_init(&alloc, (size_t)16 << 20);
        world_start(&world, modes[i], (uint64_t)1 << 20, NULL);
        for (uint64_t sequence = 2; sequence <= 400; sequence++)
            append_row(world.log, &alloc, (uint16_t)(i % SHARDS), sequence, 1000);
        assert_int_equal(log_thread_stop(world.log), STATUS_OK);
        assert_int_equal(world.durable[i % SHARDS], 400);
        assert_false(world.backwards);
        assert_string_equal(world.fatal, "");
        read_back(world.directory, &found, NULL);
        assert_int_equal(found.rows, 399);
        assert_false(found.gap);
        assert_int_equal(found.report.bounds.bound, 400);
        assert_int_equal(found.report.torn_bytes, 0);
        world_close(&world);
    }
}

static void test_log_batch_is_durable_without_anything_that_follows_it(void **state)
{
    static const enum durability_mode modes[] = {DURABILITY_ALWAYS, DURABILITY_INTERVAL, DURABILITY_OS};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct world world;
        struct alloc alloc;
        world_open(&world);
        alloc_init(&alloc, (size_t)16 << 20);
        world_start(&world, modes[i], 0, NULL);
        for (uint64_t sequence = 2; sequence < 12; sequence++) {
            append_row(world.log, &alloc, 1, sequence, 10);
            WAIT_FOR(&world, world.durable[1] == sequence);
        }
        assert_int_equal(log_thread_stop(world.log), STATUS_OK);
        world_close(&world);
    }
}

static void test_log_idle_thread_writes_one_marker_and_then_nothing(void **state)
{
    struct world world;
    struct alloc alloc;
    struct log_thread_stats before;
    struct log_thread_stats after;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    world_start(&world, DURABILITY_ALWAYS, 0, NULL);
    append_row(world.log, &alloc, 0, 2, 10);
    WAIT_FOR(&world, world.durable[0] == 2);
    do {
        (void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
        log_thread_stats(world.log, &before);
    } while (before.writes < 2);
    (void)nanosleep(&(struct timespec){.tv_nsec = 10 * LOG_IDLE_MS * 1000000L}, NULL);
    log_thread_stats(world.log, &after);
    assert_int_equal(after.writes, 2);
    assert_int_equal(after.batches, 1);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    world_close(&world);
}

struct producer {
    struct world *world;
    uint16_t shard;
    uint64_t count;
    size_t size;
};

static void *produce(void *argument)
{
    struct producer *producer = argument;
    struct alloc alloc;
    struct prng prng;
    alloc_init(&alloc, (size_t)16 << 20);
    prng_seed(&prng, producer->shard);
    for (uint64_t sequence = 2; sequence < producer->count + 2; sequence++) {
        append_row(producer->world->log, &alloc, producer->shard, sequence,
                   1 + (size_t)prng_below(&prng, producer->size));
        pthread_mutex_lock(&producer->world->lock);
        uint64_t durable = producer->world->durable[producer->shard];
        pthread_mutex_unlock(&producer->world->lock);
        /* No further ahead than a shard's requests in flight would be. */
        if (sequence > durable + 500)
            WAIT_FOR(producer->world, producer->world->durable[producer->shard] + 500 >= sequence);
        if (sequence % 16 == 0 && durable > 100)
            log_thread_flushed(producer->world->log, producer->shard, durable - 100);
    }
    return NULL;
}

static void run_producers(struct world *world, uint64_t count, size_t size)
{
    pthread_t threads[SHARDS];
    struct producer producers[SHARDS];
    for (uint16_t shard = 0; shard < SHARDS; shard++) {
        producers[shard] = (struct producer){.world = world, .shard = shard, .count = count, .size = size};
        assert_int_equal(pthread_create(&threads[shard], NULL, produce, &producers[shard]), 0);
    }
    for (uint16_t shard = 0; shard < SHARDS; shard++)
        (void)pthread_join(threads[shard], NULL);
}

static void test_log_shards_share_syncs_and_segments_are_recycled(void **state)
{
    struct world world;
    struct log_thread_stats stats;
    struct found found;
    (void)state;
    world_open(&world);
    world_start(&world, DURABILITY_ALWAYS, (uint64_t)256 << 10, NULL);
    run_producers(&world, 4000, 600);
    WAIT_FOR(&world, world.durable[0] == 4001 && world.durable[1] == 4001 && world.durable[2] == 4001);
    log_thread_stats(world.log, &stats);
    assert_int_equal(stats.batches, 3 * 4000);
    assert_true(stats.syncs < stats.batches / 2);
    assert_int_equal(stats.queued_bytes, 0);
    for (uint16_t shard = 0; shard < SHARDS; shard++)
        log_thread_flushed(world.log, shard, 4001);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    assert_false(world.backwards);
    /* About 4 MB were written in segments of 256 KiB; what was flushed is gone or waits to be recycled. */
    assert_in_range(count_files(world.directory), 1, 3);
    read_back(world.directory, &found, NULL);
    assert_int_equal(found.report.bounds.bound, 4000); /* known although its batch may be gone */
    world_close(&world);
}

static void test_log_batch_larger_than_a_segment_gets_its_own(void **state)
{
    struct world world;
    struct alloc alloc;
    struct found found;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)64 << 20);
    world_start(&world, DURABILITY_ALWAYS, (uint64_t)64 << 10, NULL);
    append_row(world.log, &alloc, 0, 2, 100);
    append_row(world.log, &alloc, 0, 3, (size_t)12 << 20);
    append_row(world.log, &alloc, 0, 4, (size_t)9 << 20);
    append_row(world.log, &alloc, 0, 5, 100);
    WAIT_FOR(&world, world.durable[0] == 5);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    read_back(world.directory, &found, NULL);
    assert_int_equal(found.rows, 4);
    world_close(&world);
}

static void test_log_goes_on_where_the_last_run_stopped(void **state)
{
    struct world world;
    struct alloc alloc;
    struct found found;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)16 << 20);
    for (uint64_t run = 1; run <= 5; run++) {
        struct log_resume resume;
        read_back(world.directory, &found, &resume);
        assert_int_equal(found.rows, (run - 1) * 100);
        world_start(&world, DURABILITY_ALWAYS, (uint64_t)64 << 10, &resume);
        free(resume.inherited);
        for (uint64_t sequence = 2; sequence < 102; sequence++)
            append_row(world.log, &alloc, 2, sequence, 200);
        assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    }
    read_back(world.directory, &found, NULL);
    assert_int_equal(found.rows, 500);
    world_close(&world);
}

/* The child appends until it is killed; what it reported durable must be there. */
static void test_log_killed_process_loses_nothing_that_it_acknowledged(void **state)
{
    (void)state;
    struct prng prng;
    prng_seed(&prng, 5);
    for (unsigned round = 0; round < 8; round++) {
        struct world world;
        int ends[2];
        world_open(&world);
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)close(ends[0]);
            world.pipe = ends[1];
            world_start(&world, DURABILITY_ALWAYS, (uint64_t)128 << 10, NULL);
            run_producers(&world, 1000000, 300);
            _exit(0);
        }
        (void)close(ends[1]);
        uint64_t acknowledged[SHARDS] = {0};
        uint64_t message[2];
        uint64_t until = 50 + prng_below(&prng, 400);
        for (uint64_t count = 0; read(ends[0], message, sizeof(message)) == (ssize_t)sizeof(message);
             count++) {
            acknowledged[message[0]] = message[1];
            if (count == until)
                (void)kill(child, SIGKILL);
        }
        (void)close(ends[0]);
        (void)waitpid(child, NULL, 0);
        struct found found;
        read_back(world.directory, &found, NULL);
        assert_false(found.gap);
        for (uint16_t shard = 0; shard < SHARDS; shard++)
            assert_true(found.highest[shard] >= acknowledged[shard]);
        world_close(&world);
    }
}

static void test_log_full_disk_is_told_and_survived(void **state)
{
    struct world world;
    struct alloc alloc;
    struct found found;
    (void)state;
    world_open(&world);
    if (mount("tmpfs", world.directory, "tmpfs", 0, "size=1m") != 0) {
        world_close(&world);
        skip(); /* only root may mount */
    }
    alloc_init(&alloc, (size_t)16 << 20);
    char ballast[128];
    (void)snprintf(ballast, sizeof(ballast), "%s/ballast", world.directory);
    int descriptor = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(posix_fallocate(descriptor, 0, 700 << 10), 0);
    (void)close(descriptor);

    world_start(&world, DURABILITY_ALWAYS, (uint64_t)128 << 10, NULL);
    for (uint64_t sequence = 2; sequence < 502; sequence++)
        append_row(world.log, &alloc, 0, sequence, 1000);
    WAIT_FOR(&world, world.full_count == 1);
    pthread_mutex_lock(&world.lock);
    assert_true(world.durable[0] > 2 && world.durable[0] < 400);
    assert_int_equal(world.room_count, 0);
    pthread_mutex_unlock(&world.lock);
    assert_int_equal(unlink(ballast), 0);
    WAIT_FOR(&world, world.durable[0] == 501);
    assert_int_equal(world.room_count, 1);
    assert_int_equal(world.full_count, 1);
    assert_int_equal(log_thread_stop(world.log), STATUS_OK);
    assert_string_equal(world.fatal, "");
    read_back(world.directory, &found, NULL);
    assert_int_equal(found.rows, 500);
    assert_int_equal(umount(world.directory), 0);
    world_close(&world);
}

static void test_log_missing_directory_is_fatal_and_acknowledges_nothing(void **state)
{
    struct world world;
    struct alloc alloc;
    (void)state;
    world_open(&world);
    alloc_init(&alloc, (size_t)1 << 20);
    assert_int_equal(rmdir(world.directory), 0);
    world_start(&world, DURABILITY_ALWAYS, 0, NULL);
    append_row(world.log, &alloc, 0, 2, 10);
    WAIT_FOR(&world, world.fatal[0] != '\0');
    append_row(world.log, &alloc, 0, 3, 10);
    assert_int_equal(log_thread_stop(world.log), STATUS_IO_ERROR);
    assert_int_equal(world.durable[0], 0);
    assert_non_null(strstr(world.fatal, world.directory));
    assert_int_equal(mkdir(world.directory, 0700), 0);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_everything_is_found_again_after_a_clean_stop),
        cmocka_unit_test(test_log_batch_is_durable_without_anything_that_follows_it),
        cmocka_unit_test(test_log_idle_thread_writes_one_marker_and_then_nothing),
        cmocka_unit_test(test_log_shards_share_syncs_and_segments_are_recycled),
        cmocka_unit_test(test_log_batch_larger_than_a_segment_gets_its_own),
        cmocka_unit_test(test_log_goes_on_where_the_last_run_stopped),
        cmocka_unit_test(test_log_killed_process_loses_nothing_that_it_acknowledged),
        cmocka_unit_test(test_log_full_disk_is_told_and_survived),
        cmocka_unit_test(test_log_missing_directory_is_fatal_and_acknowledges_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
