/* rondo bench: what its files share.
 *
 * A plan is read from the command line and never changes. Workers, one thread each, own a share of the connections, a
 * random generator and their own counts; while they run the main thread only reads their progress counters, draws the
 * line and says when to stop. What they found is added up once they have ended. */
#ifndef RONDO_CLI_BENCH_H
#define RONDO_CLI_BENCH_H

#include <netdb.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/limits.h"
#include "cli/bench_data.h"
#include "cli/cli.h"
#include "cli/latency.h"

#define BENCH_CONNECTIONS_MAX 20000u
#define BENCH_DEPTH_MAX 1024u
#define BENCH_THREADS_MAX 64u
#define BENCH_TARGETS_MAX 64u

/* Different errors that are told apart; the rest count as "other". */
#define BENCH_ERRORS_MAX 16u
#define BENCH_ERROR_BYTES_MAX 24u

struct bench_target {
    const char *text; /* "host:port" */
    struct sockaddr_storage address;
    socklen_t address_bytes;
};

struct bench_plan {
    struct bench_data data;
    struct bench_target targets[BENCH_TARGETS_MAX];
    uint32_t target_count;
    uint32_t connections;
    uint32_t depth;
    uint32_t threads;
    uint64_t requests;       /* 0 = until the time is over */
    uint64_t duration_ns;    /* 0 = until the requests are done */
    uint64_t rate;           /* commands per second of all connections; 0 = as fast as answers come */
    uint64_t reads_per_2_32; /* a command is a read with this probability */
    uint64_t seed;
    uint64_t retry_ms;                    /* give up after this time without an answer */
    struct span preface;                  /* RONDO.CONSISTENCY, or empty */
    bool fill;                            /* write every key once first */
    char node_address[ADDRESS_BYTES_MAX]; /* of the node that was asked, where no target was named */
};

struct bench_error {
    char code[BENCH_ERROR_BYTES_MAX]; /* "OVERLOADED" */
    uint64_t count;
};

/* What was found, of one worker or of all. */
struct bench_counts {
    struct latency reads; /* of answered ones: hits, misses and wrong values */
    struct latency writes;
    uint64_t misses;
    uint64_t damaged;
    uint64_t foreign;
    uint64_t read_errors;
    uint64_t write_errors;
    uint64_t unanswered; /* when the connection was lost, or at the end */
    uint64_t unsent;     /* open loop: due, but never sent */
    uint64_t lost_connections;
    uint64_t bytes_sent;
    uint64_t bytes_received;
    double cpu_s;
    struct bench_error errors[BENCH_ERRORS_MAX];
    uint32_t error_count;
    uint64_t errors_other;
    char refused[256]; /* why the run cannot go on: the first such text */
};

/* Counts one error answer by its first word. */
void bench_count_error(struct bench_counts *counts, struct span text, uint64_t times);

void bench_counts_merge(struct bench_counts *counts, const struct bench_counts *other);

/* Shared by the workers of a run. */
struct bench_run {
    const struct bench_plan *plan;
    uint64_t started_ns;
    atomic_uint_fast64_t taken;    /* commands begun, of plan->requests; also the sequential order */
    atomic_uint_fast64_t answered; /* of any kind but errors */
    atomic_uint_fast64_t failed;   /* errors, and wrong values */
    atomic_uint_fast64_t last_ns;  /* when the last answer came */
    atomic_uint connected;
    atomic_uint workers_left;
    atomic_bool stop; /* begin nothing more */
};

struct bench_result {
    struct bench_counts counts;
    uint64_t elapsed_ns; /* from the start to the last answer */
    bool interrupted;
    bool stalled; /* no answer for plan->retry_ms */
};

struct bench_worker;

/* Starts and ends a thread with its share of the connections; NULL without memory or thread. */
struct bench_worker *bench_worker_start(struct bench_run *run, uint32_t index);
void bench_worker_join(struct bench_worker *worker, struct bench_counts *counts);

/* Reads the plan from the options. The data's memory and the preface's are the cli's. */
enum cli_exit bench_plan_read(struct cli *cli, struct bench_plan *plan, struct buf *preface);

/* Prints the result. */
enum cli_exit bench_report(const struct cli *cli, const struct bench_plan *plan,
                           const struct bench_result *result);

/* Nanoseconds of a clock that never goes back. */
uint64_t bench_now_ns(void);

#endif
