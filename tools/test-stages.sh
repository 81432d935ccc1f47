# The stages of `./dev test`; read by ./dev, whose functions it uses. Not a program of its own.
#
# Every check, test case, fuzz target and batch of simulator seeds adds one line to build/test-logs/results
# ("pass NAME" or "fail NAME"). A failing stage stops no other. The last line of the run is the one count.

LOGS=build/test-logs
RESULTS=$LOGS/results
SIM_RUNS=300
SIM_RUNS_ASAN=30
FUZZ_SECONDS=5
TIDY_SECONDS=420
UNIT_SECONDS=180
INTEGRATION_SECONDS=600
ALL_STAGES="lint unit fuzz sim integration"

export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:allocator_may_return_null=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="halt_on_error=0:exitcode=66:suppressions=$PWD/tools/tsan.supp"
export PYTHONDONTWRITEBYTECODE=1

pass()
{
    echo "pass $*" >>"$RESULTS"
}

# fail_check NAME LOG: shows the end of the log, indented so that no line of it looks like our own count.
fail_check()
{
    echo "fail $1" >>"$RESULTS"
    say "    FAILED: $1 (all of it: $2)"
    tail -n 30 "$2" | sed 's/^/    | /'
}

# check NAME LOG COMMAND...: one check, passed when the command succeeds.
check()
{
    check_name=$1
    check_log=$2
    shift 2
    if "$@" >"$check_log" 2>&1 </dev/null; then
        pass "$check_name"
    else
        fail_check "$check_name" "$check_log"
    fi
}

# in_lanes COMMAND ITEM...: COMMAND LANE ITEM... for each core at the same time, with the items dealt among them.
in_lanes()
{
    lane_command=$1
    shift
    lanes=$(cores)
    [ "$lanes" -le 4 ] || lanes=4
    lane=0
    lane_pids=
    while [ $lane -lt "$lanes" ]; do
        lane_items=$(printf '%s\n' "$@" | awk -v lanes="$lanes" -v lane="$lane" 'NR % lanes == lane')
        if [ -n "$lane_items" ]; then
            # shellcheck disable=SC2086 # both are lists
            $lane_command $lane $lane_items &
            lane_pids="$lane_pids $!"
        fi
        lane=$((lane + 1))
    done
    for pid in $lane_pids; do
        wait "$pid" || true
    done
}

# build_for NAME DIR FLAGS...: a build is a check too; false when it fails.
build_for()
{
    build_name="build $1"
    build_log="$LOGS/build-$1.log"
    shift
    if (build "$@") >"$build_log" 2>&1 </dev/null; then
        pass "$build_name"
        return 0
    fi
    fail_check "$build_name" "$build_log"
    return 1
}

# Sanitizers make gcc's flow warnings guess; the release build is the one that treats warnings as errors
# (and clang-tidy treats clang's so).
build_release() { build_for release build; }
build_asan() { build_for asan build-asan -Db_sanitize=address,undefined -Dwerror=false; }
build_tsan() { build_for tsan build-tsan -Db_sanitize=thread -Dwerror=false; }

# ---- lint --------------------------------------------------------------------------------------------------

check_format()
{
    c_files | xargs clang-format --dry-run --Werror
}

# One process for each core; the whole is bounded.
check_tidy()
{
    tools/list-files 'src/*/*.c sim/*.c' |
        timeout "$TIDY_SECONDS" xargs -P "$(cores)" -n 1 clang-tidy --quiet -p build
}

stage_lint()
{
    check 'layers: self-test' "$LOGS/layers-self.log" "$PYTHON" tools/check-layers --self-test
    check 'layers' "$LOGS/layers.log" "$PYTHON" tools/check-layers
    check 'style: self-test' "$LOGS/style-self.log" "$PYTHON" tools/check-style --self-test
    check 'style' "$LOGS/style.log" "$PYTHON" tools/check-style
    if ! clang-format --version | grep -q 'version 14\.'; then
        say "    clang-format and clang-tidy skipped: their rules are for version 14 (Debian 12)"
        return 0
    fi
    check 'clang-format' "$LOGS/format.log" check_format
    ! build_release || check 'clang-tidy' "$LOGS/tidy.log" check_tidy
}

# ---- unit --------------------------------------------------------------------------------------------------

# repeat COUNT LINE
repeat()
{
    awk -v count="$1" -v line="$2" 'BEGIN { while (count-- > 0) print line }'
}

# Counts the cases of one cmocka program. A crash counts as a failure of the case that ran.
unit_program()
{
    unit_name="$2 $(basename "$1")"
    unit_log="$LOGS/unit-$2-$(basename "$1").log"
    unit_code=0
    timeout "$UNIT_SECONDS" "$1" >"$unit_log" 2>&1 </dev/null || unit_code=$?
    unit_begun=$(grep -c '^\[ RUN  ' "$unit_log" || true)
    unit_good=$(grep -c '^\[       OK ' "$unit_log" || true)
    unit_skipped=$(grep -c '^\[  SKIPPED \] [^0-9]' "$unit_log" || true)
    unit_bad=$((unit_begun - unit_good - unit_skipped))
    if [ "$unit_bad" -le 0 ]; then
        unit_bad=0
        [ $unit_code -eq 0 ] && [ "$unit_good" -gt 0 ] || unit_bad=1
    fi
    repeat "$unit_good" "pass $unit_name" >>"$RESULTS"
    if [ $unit_bad -gt 0 ]; then
        repeat $((unit_bad - 1)) "fail $unit_name" >>"$RESULTS"
        fail_check "$unit_name (exit code $unit_code)" "$unit_log"
    fi
}

# unit_lane DIR NAME LANE FILE...
unit_lane()
{
    lane_dir=$1
    lane_name=$2
    shift 3
    for file in "$@"; do
        program="$lane_dir/tests/unit/$(basename "$file" .c)"
        if [ -x "$program" ]; then
            unit_program "$program" "$lane_name"
        else
            missing_log="$LOGS/unit-$lane_name-$(basename "$file").log"
            echo "there is no $program" >"$missing_log"
            fail_check "$lane_name $(basename "$file" .c)" "$missing_log"
        fi
    done
}

# unit_programs DIR NAME PATTERN
unit_programs()
{
    # shellcheck disable=SC2046 # a list
    in_lanes "unit_lane $1 $2" $(tools/list-files "tests/unit/$3")
}

stage_unit()
{
    ! build_release || unit_programs build release 'test_*.c'
    ! build_asan || unit_programs build-asan asan 'test_*.c'
    # Only the edge has threads.
    ! build_tsan || unit_programs build-tsan tsan 'test_edge*.c'
}

# ---- fuzz --------------------------------------------------------------------------------------------------

# fuzz_lane LANE FILE...
fuzz_lane()
{
    shift
    for file in "$@"; do
        target=$(basename "$file" .c | sed 's/^fuzz_//')
        check "fuzz $target" "$LOGS/fuzz-$target.log" fuzz_run "$target" "$FUZZ_SECONDS"
    done
}

stage_fuzz()
{
    (export CC=clang && build_for fuzz "$FUZZ_DIR" -Dfuzz=true -Dwerror=false) || return 0
    # shellcheck disable=SC2046 # a list
    in_lanes fuzz_lane $(tools/list-files 'tests/fuzz/fuzz_*.c')
}

# ---- sim ---------------------------------------------------------------------------------------------------

# sim_batches DIR NAME SEED RUNS: one batch for each core, at the same time.
sim_batches()
{
    batches=$(cores)
    [ "$batches" -le 8 ] || batches=8
    runs=$((($4 + batches - 1) / batches))
    pids=
    batch=0
    while [ $batch -lt "$batches" ]; do
        first=$(($3 + batch * runs))
        check "sim $2, seeds from $first, $runs runs" "$LOGS/sim-$2-$batch.log" \
            timeout 300 "$1/rondo-sim" --seed "$first" --runs "$runs" &
        pids="$pids $!"
        batch=$((batch + 1))
    done
    for pid in $pids; do
        wait "$pid" || true
    done
}

# The same seeds each time, so that a change is judged by what it changed; RONDO_SEED chooses others.
stage_sim()
{
    seed=${RONDO_SEED:-1}
    say "    first seed $seed (RONDO_SEED=N chooses another)"
    ! build_release || sim_batches build release "$seed" "$SIM_RUNS"
    ! build_asan || sim_batches build-asan asan "$((seed + SIM_RUNS))" "$SIM_RUNS_ASAN"
}

# ---- integration -------------------------------------------------------------------------------------------

# integration_run NAME DIR LANE FILE...: pytest against the programs in DIR; adds its counts. Each lane has ports of its
# own.
integration_run()
{
    py_name=$1-$3
    py_build="$PWD/$2"
    py_log="$LOGS/integration-$py_name.log"
    py_xml="$LOGS/integration-$py_name.xml"
    py_code=0
    rm -f "$py_xml"
    export RONDO_PORT_LANE="$3"
    shift 3
    RONDO_BUILD="$py_build" timeout -k 20 "$INTEGRATION_SECONDS" "$PYTHON" -m pytest -p no:cacheprovider -ra \
        --durations=10 --junitxml="$py_xml" "$@" >"$py_log" 2>&1 </dev/null || py_code=$?
    "$PYTHON" tools/junit-results "$py_xml" "$py_name" >>"$RESULTS" 2>>"$py_log" || py_code=1
    if [ "$py_code" -ne 0 ]; then
        # Failed cases are already counted; what ended without a report (a timeout, a crash) is one more.
        if [ -s "$py_xml" ] && grep -q "^fail integration $py_name: " "$RESULTS"; then
            say "    FAILED: integration $py_name (all of it: $py_log)"
            tail -n 40 "$py_log" | sed 's/^/    | /'
        else
            fail_check "integration $py_name" "$py_log"
        fi
    fi
}

stage_integration()
{
    # shellcheck disable=SC2046 # a list
    ! build_release || in_lanes "integration_run release build" $(tools/list-files 'tests/integration/test_*.py')
    if [ -f tests/integration/test_smoke.py ]; then
        ! build_asan || integration_run asan build-asan 0 tests/integration/test_smoke.py
        ! build_tsan || integration_run tsan build-tsan 0 tests/integration/test_smoke.py
    fi
}

# ---- all of it ---------------------------------------------------------------------------------------------

run_stages()
{
    stages=${*:-$ALL_STAGES}
    for stage in $stages; do
        case " $ALL_STAGES " in
        *" $stage "*) ;;
        *) fail "there is no stage '$stage'; stages: $ALL_STAGES" ;;
        esac
    done
    exec </dev/null
    began=$(date +%s)
    setup test
    rm -rf "$LOGS"
    mkdir -p "$LOGS"
    : >"$RESULTS"
    say "packages: $(($(date +%s) - began)) s"
    for stage in $stages; do
        stage_began=$(date +%s)
        say "== $stage"
        "stage_$stage"
        say "== $stage: $(($(date +%s) - stage_began)) s"
    done
    passed=$(grep -c '^pass ' "$RESULTS" || true)
    failed=$(grep -c '^fail ' "$RESULTS" || true)
    if [ "$failed" -gt 0 ]; then
        say "Failed:"
        sed -n 's/^fail /    /p' "$RESULTS" | sort | uniq -c | sed 's/^ *\([0-9]*\) /    \1 x /'
    fi
    say "All stages took $(($(date +%s) - began)) s; logs are in $LOGS/"
    say "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
