/* Facts of disk, log and process. */
#include "edge/facts.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdio.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "edge/loop.h"

static uint64_t time_us(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * 1000000u + (uint64_t)time->tv_usec;
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    /* Size of the address space first, then what is resident. */
    if (fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    (void)fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Rows give up at most this part of what the process should take. */
#define RESIDENT_OVER_DIVISOR 4u

/* How often the C library gives back what it keeps of whole pages anyway: a thread that wants memory meanwhile may wait
 * some milliseconds. */
#define TRIM_FACTS (30000u / FACTS_INTERVAL_MS)

static void give_back_memory(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

/* Half of what the process is over is taken off the rows' memory each time; once it is below, a quarter of that comes
 * back: with large values of all sizes the C library keeps free memory between blocks, and nobody counts that. What is
 * whole pages of it is given back at once. */
static void watch_resident(struct loop_shared *shared, struct facts *facts, size_t resident)
{
    size_t max = shared->resident_max;
    size_t over = atomic_load_explicit(&shared->resident_over, memory_order_relaxed);
    if (max == 0)
        return;
    if (resident > max) {
        over += (resident - max) / 2;
        over = over < max / RESIDENT_OVER_DIVISOR ? over : max / RESIDENT_OVER_DIVISOR;
        facts->untrimmed = TRIM_FACTS;
    } else {
        over -= (max - resident) / 4 < over ? (max - resident) / 4 : over;
    }
    atomic_store_explicit(&shared->resident_over, over, memory_order_relaxed);
    if (++facts->untrimmed < TRIM_FACTS)
        return;
    facts->untrimmed = 0;
    give_back_memory();
}

static void find_facts(uv_work_t *work)
{
    struct loop *loop = work->data;
    struct loop_shared *shared = loop->shared;
    struct cold_stats cold;
    struct log_thread_stats log;
    struct statvfs disk = {0};
    cold_stats(shared->dir->cold, &cold);
    log_thread_stats(shared->log, &log);
    uint64_t buffers = 0;
    for (uint16_t i = 0; i < shared->shards; i++)
        buffers += atomic_load_explicit(&shared->loops[i].buffer_bytes, memory_order_relaxed);
    struct rusage usage = {0};
    (void)getrusage(RUSAGE_SELF, &usage);
    uint64_t resident = resident_bytes();
    watch_resident(shared, &loop->facts, resident);
    bool sized = statvfs(shared->dir->path, &disk) == 0;
    loop->facts.found = (struct node_facts){
        .cold_bytes = cold.table_bytes,
        .cold_level0_files = cold.level0_files,
        .cold_memory_bytes = cold.memory_bytes,
        .log_bytes = log.bytes,
        .log_syncs = log.syncs,
        .log_segments = log.segments,
        .disk_free_bytes = sized ? (uint64_t)disk.f_bavail * disk.f_frsize : 0,
        .clients_cut_output = atomic_load_explicit(&shared->cuts.cut[CUT_OUTPUT], memory_order_relaxed),
        .clients_cut_request = atomic_load_explicit(&shared->cuts.cut[CUT_REQUEST], memory_order_relaxed),
        .clients_cut_idle = atomic_load_explicit(&shared->cuts.cut[CUT_IDLE], memory_order_relaxed),
        .clients_refused = atomic_load_explicit(&shared->cuts.refused, memory_order_relaxed),
        .buffer_bytes = buffers,
        .buffer_bytes_max = loop->pool.alloc.budget_bytes * shared->shards,
        .resident_bytes = resident,
        .cpu_us = time_us(&usage.ru_utime) + time_us(&usage.ru_stime),
        .cpu_system_us = time_us(&usage.ru_stime),
    };
}

static void on_found(uv_work_t *work, int status)
{
    struct loop *loop = work->data;
    (void)status;
    if (loop->closing)
        return;
    struct event event = {.kind = EVENT_FACTS, .facts = &loop->facts.found};
    loop_step(loop, &event);
    /* Without memory for the timer there are no more; nothing rests on them. */
    (void)loop_arm(loop, &loop->facts.timer, LOOP_TIMER_FACTS, FACTS_INTERVAL_MS);
}

void facts_gather(struct loop *loop)
{
    loop->facts.work.data = loop;
    (void)uv_queue_work(&loop->uv, &loop->facts.work, find_facts, on_found);
}
