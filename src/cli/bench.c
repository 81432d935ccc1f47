/* bench: loads a node, or anything that speaks the Redis protocol, and checks what it reads. */
#include "cli/bench.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "cli/job.h"
#include "cli/progress.h"

#define NS_PER_MS UINT64_C(1000000)
#define LOOK_MS 20

/* Open loop: the connections are made before the first command is due. */
#define HEAD_START_NS (100u * NS_PER_MS)

/* Filling is no measurement: small values go in batches even where the run's depth is 1. */
#define FILL_DEPTH 16u
#define FILL_DEEP_BYTES_MAX 4096u

static void pause_ms(long ms)
{
    struct timespec time = {.tv_sec = 0, .tv_nsec = ms * 1000000};
    (void)nanosleep(&time, NULL);
}

static void show(struct bench_run *run, struct progress *progress, uint64_t now_ns)
{
    const struct bench_plan *plan = run->plan;
    char trouble[96] = "";
    uint64_t answered = atomic_load(&run->answered);
    uint64_t failed = atomic_load(&run->failed);
    uint64_t elapsed_ms = now_ns > run->started_ns ? (now_ns - run->started_ns) / NS_PER_MS : 0;
    if (atomic_load(&run->connected) == 0)
        snprintf(trouble, sizeof(trouble), "no connection");
    else if (failed > 0)
        snprintf(trouble, sizeof(trouble), "%llu failed", (unsigned long long)failed);
    progress_show(progress, plan->requests > 0 ? answered : elapsed_ms, answered, now_ns / NS_PER_MS,
                  trouble[0] == 0 ? NULL : trouble);
}

/* Until all workers have ended. */
static void watch_run(struct bench_run *run, struct bench_result *result, const char *verb)
{
    const struct bench_plan *plan = run->plan;
    struct progress progress;
    uint64_t total = plan->requests > 0 ? plan->requests : plan->duration_ns / NS_PER_MS;
    progress_start(&progress, verb, 0, total, run->started_ns / NS_PER_MS);
    progress.unit = "commands";
    while (atomic_load(&run->workers_left) > 0) {
        uint64_t now_ns = bench_now_ns();
        uint64_t last_ns = atomic_load(&run->last_ns);
        bool silent = now_ns > last_ns && now_ns - last_ns > plan->retry_ms * NS_PER_MS;
        /* At a low rate there is nothing to answer for a while. */
        bool idle = plan->rate > 0 && now_ns - last_ns < 2 * UINT64_C(1000000000) / plan->rate;
        if (!result->interrupted && !result->stalled) {
            result->interrupted = job_interrupted();
            result->stalled = silent && !idle;
        }
        if (result->interrupted || result->stalled)
            atomic_store(&run->stop, true);
        show(run, &progress, now_ns);
        pause_ms(LOOK_MS);
    }
    progress_clear(&progress);
}

static enum cli_exit run_plan(const struct cli *cli, const struct bench_plan *plan, const char *verb,
                              struct bench_result *result)
{
    struct bench_worker *workers[BENCH_THREADS_MAX];
    struct bench_run run = {.plan = plan};
    uint32_t started = 0;
    run.started_ns = bench_now_ns() + (plan->rate > 0 ? HEAD_START_NS : 0);
    atomic_store(&run.last_ns, run.started_ns);
    atomic_store(&run.workers_left, plan->threads);
    for (; started < plan->threads; started++) {
        workers[started] = bench_worker_start(&run, started);
        if (workers[started] == NULL)
            break;
    }
    if (started < plan->threads) {
        atomic_fetch_sub(&run.workers_left, plan->threads - started);
        atomic_store(&run.stop, true);
    }
    watch_run(&run, result, verb);
    for (uint32_t i = 0; i < started; i++)
        bench_worker_join(workers[i], &result->counts);
    result->elapsed_ns = atomic_load(&run.last_ns) - run.started_ns;
    if (started < plan->threads)
        return cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED",
                        "no memory or no thread for %u connections on %u threads", plan->connections,
                        plan->threads);
    if (result->counts.refused[0] != 0)
        return cli_fail(cli, CLI_NOT_APPLIED, "BAD_ANSWER", "%s", result->counts.refused);
    if (result->interrupted && result->counts.reads.count + result->counts.writes.count == 0)
        return CLI_INTERRUPTED;
    if (result->stalled)
        return cli_fail(cli, CLI_NOT_APPLIED, "TIMEOUT",
                        "no answer for %" PRIu64 " s (--retry-for); %" PRIu64 " came before",
                        plan->retry_ms / 1000, result->counts.reads.count + result->counts.writes.count);
    return CLI_OK;
}

/* Writes every key once; what fails there would later count as misses. */
static enum cli_exit fill(const struct cli *cli, const struct bench_plan *plan, struct bench_result *result)
{
    struct bench_plan filling = *plan;
    filling.data.order = BENCH_ORDER_SEQUENTIAL;
    filling.requests = plan->data.keys;
    filling.duration_ns = 0;
    filling.rate = 0;
    filling.reads_per_2_32 = 0;
    if (filling.depth < FILL_DEPTH && plan->data.value_bytes_max <= FILL_DEEP_BYTES_MAX)
        filling.depth = FILL_DEPTH;
    enum cli_exit code = run_plan(cli, &filling, "filling", result);
    uint64_t failed = result->counts.write_errors + result->counts.unanswered;
    if (code != CLI_OK || result->interrupted || failed == 0)
        return code;
    return cli_fail(cli, CLI_NOT_APPLIED, "NOT_APPLIED",
                    "%llu of %llu writes of --fill failed (%s); lower the load with --depth or --connections",
                    (unsigned long long)failed, (unsigned long long)plan->data.keys,
                    result->counts.error_count > 0 ? result->counts.errors[0].code : "connection lost");
}

static enum cli_exit run_all(const struct cli *cli, struct bench_plan *plan, struct bench_result *result)
{
    enum cli_exit code = CLI_OK;
    bool fill_only = plan->requests == 0 && plan->duration_ns == 0;
    if (plan->fill)
        code = fill(cli, plan, result);
    if (code == CLI_OK && !result->interrupted && !fill_only) {
        *result = (struct bench_result){.interrupted = false};
        plan->seed += BENCH_THREADS_MAX; /* other values than those of the filling */
        code = run_plan(cli, plan, "loading", result);
    }
    if (code != CLI_OK)
        return code;
    code = bench_report(cli, plan, result);
    return result->interrupted ? CLI_INTERRUPTED : code;
}

enum cli_exit cli_bench(struct cli *cli)
{
    struct buf preface;
    struct bench_plan *plan = alloc_get_zeroed(&cli->alloc, sizeof(*plan));
    struct bench_result *result = alloc_get_zeroed(&cli->alloc, sizeof(*result));
    buf_init(&preface, &cli->alloc);
    if (plan == NULL || result == NULL) {
        alloc_put(&cli->alloc, plan, sizeof(*plan));
        alloc_put(&cli->alloc, result, sizeof(*result));
        return cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    }
    enum cli_exit code = bench_plan_read(cli, plan, &preface);
    if (code == CLI_OK && !bench_data_init(&plan->data, &cli->alloc))
        code = cli_fail(cli, CLI_NOT_APPLIED, "OVERLOADED", "out of memory");
    if (code == CLI_OK) {
        job_catch_interrupts();
        code = run_all(cli, plan, result);
    }
    bench_data_free(&plan->data, &cli->alloc);
    alloc_put(&cli->alloc, plan, sizeof(*plan));
    alloc_put(&cli->alloc, result, sizeof(*result));
    buf_free(&preface);
    return code;
}
