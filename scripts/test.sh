#!/usr/bin/env bash
# test.sh [long]: every stage of `make test`, each with its own count; ends with "N passed, N failed".
# TEST_SCALE multiplies the counts of randomised tests. Stages go on after a failure; a failed build ends the run.
# TEST_WRAP, a command, is put before every test program and build: nice, or what shares a machine out.
# long: also UBSan alone and FUZZ_SECONDS of every fuzz target; leaves what came out in tests/results/test-long.txt.
set -u
cd "$(dirname "$0")/.."
export JOBS=${JOBS:-$(nproc)} TEST_SCALE=${TEST_SCALE:-1} TEST_WRAP=${TEST_WRAP:-}
mode=${1:-short}
pass=0 fail=0
started=$SECONDS
work=$(mktemp -d)
declare -A pid
# Nothing that was started outlives the run: background jobs have process groups of their own.
trap 'for p in $(jobs -p); do kill -- "-$p" 2>/dev/null; done; rm -rf "$work"' EXIT

count() { # stage, log: adds the last "N passed, N failed" of the log
    local line
    line=$(grep -aoE '[0-9]+ passed(, [0-9]+ failed)?' "$2" | tail -n 1)
    local p f
    echo "$1: ${line:-no count}" >>"$work/summary"
    grep -aE '^(ok  |FAIL) fuzz' "$2" >>"$work/summary"
    p=$(echo "$line" | grep -oE '^[0-9]+')
    f=$(echo "$line" | grep -oE '[0-9]+ failed' | grep -oE '[0-9]+')
    pass=$((pass + ${p:-0}))
    fail=$((fail + ${f:-0}))
}
stage() { # name, command...: one that fails without a count of its own counts as one failure
    local name=$1 log rc before=$fail
    shift
    log=$(mktemp)
    echo "== $name"
    "$@" 2>&1 | tee "$log"
    rc=${PIPESTATUS[0]}
    count "$name" "$log"
    if [ "$rc" -ne 0 ] && [ "$fail" -eq "$before" ]; then fail=$((fail + 1)); fi
    rm -f "$log"
    echo "== $name: $((SECONDS - started)) s since the start"
}
# What is needed later is made in the background, at low priority, while tests that mostly wait run.
later() { # name, command...
    local name=$1
    shift
    set -m
    nice -n 10 "$@" >"$work/$name.log" 2>&1 &
    pid[$name]=$!
    set +m
}
ready() { # name: waits for it; a failure ends the run
    echo "== $1"
    if ! wait "${pid[$1]}"; then
        cat "$work/$1.log"
        echo "$1 failed"
        echo "$pass passed, $((fail + 1)) failed"
        exit 1
    fi
    echo "== $1: $((SECONDS - started)) s since the start"
}
builds() { # "MODE TARGETS"...: one after the other
    local b
    for b in "$@"; do
        # shellcheck disable=SC2086
        set -- $b
        # shellcheck disable=SC2086
        $TEST_WRAP make --no-print-directory -s -j"$JOBS" MODE="$1" "${@:2}" || return 1
    done
}
export -f builds
build() { # name, "MODE TARGETS"...
    local name=$1
    shift
    later "$name" bash -c 'builds "$@"' - "$@"
}
units() { make --no-print-directory -s MODE="$1" unit; }
e2e() { scripts/run_e2e.sh "$@"; }

lint() { scripts/lint.sh && echo "1 passed, 0 failed"; }
later venv scripts/setup.sh venv
stage lint lint
build "build plain" "plain all tests-bin bench-bin"
ready "build plain"
build "build asan" "asan programs tests-bin"
stage "units, plain" units plain
ready venv
stage "end to end, plain" e2e plain
ready "build asan"
build "build tsan" "tsan $(scripts/threaded_tests.sh build/tsan | tr '\n' ' ')"
stage "units, ASan and UBSan" units asan
stage "end to end, ASan and UBSan" e2e asan -m "not slow_sanitized"
ready "build tsan"
[ "$mode" != long ] || build "build ubsan and fuzz" "ubsan programs tests-bin" "fuzz fuzz-bin"
stage "threaded units, TSan" scripts/run_units.sh $(scripts/threaded_tests.sh build/tsan)
if [ "$mode" = long ]; then
    ready "build ubsan and fuzz"
    stage "units, UBSan alone" units ubsan
    stage fuzz scripts/fuzz.sh "${FUZZ_SECONDS:-60}"
    mkdir -p tests/results
    {
        echo "make test-long, TEST_SCALE=$TEST_SCALE, $(nproc) cores"
        echo "date: $(date -u +%Y-%m-%dT%H:%MZ)"
        echo "commit: $(git rev-parse HEAD)$(git diff --quiet HEAD -- ':!tests/results' || echo ', with changes')"
        cat "$work/summary"
        echo "time: $((SECONDS - started)) s"
        echo "$pass passed, $fail failed"
    } >tests/results/test-long.txt
fi
echo "time: $((SECONDS - started)) s"
echo "$pass passed, $fail failed"
[ "$fail" -eq 0 ]
