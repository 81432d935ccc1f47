/* rondo-sim: runs seeds or scenarios, and shows what went wrong in a way that can be repeated. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime and write; nothing else of the world is in here */

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sim/scenario.h"
#include "sim/world.h"

struct settings {
    uint64_t seed;
    uint64_t runs;
    const struct scenario *scenario;
    bool seed_given;
    bool list;
    bool verbose;
    bool no_blind_writes;
    bool check_determinism;
    bool scenarios_all;
};

/* One seed in so many is run twice and compared, unless all are asked for. */
#define DETERMINISM_EVERY 16

/* For the handler of a failed assertion: what to run again. */
static char repeat_command[128];

static void on_abort(int number)
{
    (void)number;
    static const char text[] = "\nan assertion failed; repeat with: ";
    ssize_t written = write(STDOUT_FILENO, text, sizeof text - 1);
    written += write(STDOUT_FILENO, repeat_command, strlen(repeat_command));
    written += write(STDOUT_FILENO, "\n", 1);
    _exit(written > 0 ? 134 : 135);
}

static void usage(void)
{
    (void)puts(
        "Usage: rondo-sim [--seed S] [--runs N] [--scenario NAME|all] [--list] [--verbose]\n"
        "                 [--check-determinism] [--no-blind-writes]\n"
        "\n"
        "Runs whole clusters in one thread against every fault that a seed draws, and checks DESIGN's\n"
        "invariants. Same seed, same run.\n"
        "\n"
        "    rondo-sim --seed 42                 one seed\n"
        "    rondo-sim --seed 1 --runs 1000      seeds 1 to 1000, then every named scenario\n"
        "    rondo-sim --scenario torn-tail      one scenario\n"
        "    rondo-sim --seed 42 --verbose       one seed with its whole timeline\n"
        "    rondo-sim --check-determinism ...   runs every seed twice and compares the runs\n"
        "    rondo-sim --no-blind-writes ...     seeds run without blind writes, whatever they draw");
}

static bool parse_number(const char *text, uint64_t *number)
{
    return text != NULL && span_parse_u64(span_of_text(text), number) == STATUS_OK;
}

/* False: the arguments make no sense, and it has been said why. */
static bool parse_settings(int argc, char **argv, struct settings *settings)
{
    *settings = (struct settings){.runs = 1};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        assert(name != NULL);
        if (strcmp(name, "--seed") == 0 && value != NULL && parse_number(value, &settings->seed)) {
            settings->seed_given = true;
            i++;
        } else if (strcmp(name, "--runs") == 0 && value != NULL && parse_number(value, &settings->runs)) {
            i++;
        } else if (strcmp(name, "--scenario") == 0 && value != NULL) {
            settings->scenarios_all = strcmp(value, "all") == 0;
            settings->scenario = scenario_find(value);
            if (settings->scenario == NULL && !settings->scenarios_all) {
                (void)fprintf(stderr, "rondo-sim: there is no scenario '%s'; --list shows them\n", value);
                return false;
            }
            i++;
        } else if (strcmp(name, "--list") == 0) {
            settings->list = true;
        } else if (strcmp(name, "--verbose") == 0) {
            settings->verbose = true;
        } else if (strcmp(name, "--no-blind-writes") == 0) {
            settings->no_blind_writes = true;
        } else if (strcmp(name, "--check-determinism") == 0) {
            settings->check_determinism = true;
        } else if (strcmp(name, "--help") == 0) {
            usage();
            exit(0);
        } else {
            (void)fprintf(stderr, "rondo-sim: cannot read '%s'; --help explains the arguments\n", name);
            return false;
        }
    }
    return true;
}

/* ---- one run -------------------------------------------------------------------------------------------- */

struct outcome_of_run {
    bool failed;
    uint32_t key;
    uint64_t digest;
    char failure[512];
    struct totals totals;
};

struct seed_run {
    struct ring_shelf *shelf;
    uint64_t seed;
    const struct scenario *scenario; /* or NULL */
    bool no_blind_writes;
    bool trace;
    uint32_t trace_key;
};

static void run_once(const struct seed_run *run, struct outcome_of_run *outcome)
{
    static struct world world; /* large; one at a time */
    struct swarm swarm;
    struct prng prng;
    prng_seed(&prng, run->seed ^ UINT64_C(0x5eed));
    if (run->scenario == NULL)
        swarm_draw(&swarm, &prng);
    else
        swarm_calm(&swarm, 3, 3, 1);
    if (run->scenario == NULL && run->no_blind_writes)
        swarm.blind_writes = false;
    if (run->scenario != NULL && run->scenario->prepare != NULL)
        run->scenario->prepare(&swarm);
    world_init(&world, run->seed, &swarm, run->shelf);
    world.trace = run->trace;
    world.trace_key = run->trace_key;
    if (run->trace) {
        struct buf text;
        buf_init(&text, &world.alloc);
        swarm_format(&swarm, &text);
        (void)printf("    %.*s\n", (int)text.size, (const char *)text.data);
        buf_free(&text);
    }
    if (run->scenario == NULL)
        world_run_swarm(&world);
    else
        scenario_run(&world, run->scenario);
    *outcome = (struct outcome_of_run){
        .failed = world.failed, .key = world.failure_key, .digest = world.digest, .totals = world.totals};
    memcpy(outcome->failure, world.failure, sizeof outcome->failure);
    outcome->totals.seeds = run->scenario == NULL;
    world_free(&world);
}

static void note_repeat(const struct seed_run *run)
{
    if (run->scenario != NULL)
        (void)snprintf(repeat_command, sizeof repeat_command, "build/rondo-sim --scenario %s --seed %" PRIu64,
                       run->scenario->name, run->seed);
    else
        (void)snprintf(repeat_command, sizeof repeat_command, "build/rondo-sim --seed %" PRIu64 "%s",
                       run->seed, run->no_blind_writes ? " --no-blind-writes" : "");
}

/* False if there was a finding; its timeline is then printed by running it again. */
static bool run_checked(const struct settings *settings, struct seed_run *run, struct totals *totals)
{
    struct outcome_of_run outcome;
    note_repeat(run);
    run->trace = settings->verbose;
    run->trace_key = HISTORY_KEY_NONE;
    run_once(run, &outcome);
    totals_add(totals, &outcome.totals);
    bool twice = settings->check_determinism || run->seed % DETERMINISM_EVERY == 0;
    if (twice && !outcome.failed) {
        struct outcome_of_run again;
        run->trace = false;
        run_once(run, &again);
        outcome.failed = again.digest != outcome.digest;
        (void)snprintf(outcome.failure, sizeof outcome.failure,
                       "determinism: the same seed gave another run (%016" PRIx64 ", %016" PRIx64 ")",
                       outcome.digest, again.digest);
    } else if (outcome.failed && !settings->verbose) {
        struct outcome_of_run again;
        run->trace = true;
        run->trace_key = outcome.key;
        run_once(run, &again);
    }
    if (!outcome.failed)
        return true;
    (void)printf("FAILED %s%s%" PRIu64 ": %s\nrepeat with: %s --verbose\n",
                 run->scenario != NULL ? run->scenario->name : "",
                 run->scenario != NULL ? ", seed " : "seed ", run->seed, outcome.failure, repeat_command);
    return false;
}

/* ---- all ------------------------------------------------------------------------------------------------ */

static double seconds_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void print_totals(const struct totals *totals, double seconds)
{
    (void)printf("%" PRIu64 " seeds in %.1f s (%.0f seeds/s), %.0f simulated seconds, %" PRIu64
                 " happenings\n",
                 totals->seeds, seconds, seconds > 0 ? (double)totals->seeds / seconds : 0,
                 (double)totals->simulated_us / 1e6, totals->happenings);
#define TOTAL(name) (void)printf("  %-16s %" PRIu64 "\n", #name, totals->name);
    TOTALS_MAP(TOTAL)
#undef TOTAL
}

static bool run_scenarios(const struct settings *settings, struct seed_run *run, struct totals *totals)
{
    bool good = true;
    for (uint32_t i = 0; i < scenario_count; i++) {
        run->scenario = &scenarios[i];
        bool passed = run_checked(settings, run, totals);
        (void)printf("scenario %-34s %s\n", scenarios[i].name, passed ? "ok" : "FAILED");
        good &= passed;
    }
    run->scenario = NULL;
    return good;
}

int main(int argc, char **argv)
{
    struct settings settings;
    if (!parse_settings(argc, argv, &settings))
        return 2;
    if (settings.list) {
        for (uint32_t i = 0; i < scenario_count; i++)
            (void)printf("%-34s %s\n", scenarios[i].name, scenarios[i].text);
        return 0;
    }
    if (!settings.seed_given && settings.scenario == NULL && !settings.scenarios_all)
        settings.seed = (uint64_t)time(NULL);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    (void)printf("seed %" PRIu64 "\n", settings.seed);
    (void)signal(SIGABRT, on_abort);
    struct ring_shelf shelf;
    ring_shelf_init(&shelf);
    struct totals totals = {0};
    struct seed_run run = {.shelf = &shelf,
                           .seed = settings.seed,
                           .scenario = settings.scenario,
                           .no_blind_writes = settings.no_blind_writes};
    double start = seconds_now();
    bool good = true;
    if (settings.scenarios_all)
        good = run_scenarios(&settings, &run, &totals);
    for (uint64_t i = 0; i < settings.runs && good && !settings.scenarios_all; i++) {
        run.seed = settings.seed + i;
        good = run_checked(&settings, &run, &totals);
    }
    double seconds = seconds_now() - start;
    if (good && settings.runs > 1 && settings.scenario == NULL && !settings.scenarios_all)
        good = run_scenarios(&settings, &run, &totals);
    if (!settings.scenarios_all)
        print_totals(&totals, seconds);
    ring_shelf_free(&shelf);
    (void)puts(good ? "no finding" : "there was a finding");
    return good ? 0 : 1;
}
