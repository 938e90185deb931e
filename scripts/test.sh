#!/usr/bin/env bash
# test.sh [long]: every stage of `make test`, each with its own count; ends with "N passed, N failed".
# TEST_SCALE multiplies the counts of randomised tests. Stages go on after a failure; a failed build ends the run.
set -u
cd "$(dirname "$0")/.."
JOBS=${JOBS:-2}
mode=${1:-short}
pass=0 fail=0
started=$SECONDS

count() { # stage, log: adds the last "N passed, N failed" of the log
    local line
    line=$(grep -aoE '[0-9]+ passed(, [0-9]+ failed)?' "$2" | tail -n 1)
    local p f
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
build() { # mode, targets
    local m=$1
    shift
    echo "== build $m"
    if ! make --no-print-directory -s -j"$JOBS" MODE="$m" "$@"; then
        echo "build $m failed"
        echo "$pass passed, $((fail + 1)) failed"
        exit 1
    fi
}
units() { make --no-print-directory -s MODE="$1" unit; }
e2e() { WEIR_BUILD="build/$1" build/venv/bin/python -m pytest -q -p no:cacheprovider tests/e2e "${@:2}"; }

lint() { scripts/lint.sh && echo "1 passed, 0 failed"; }
stage lint lint
build plain all tests-bin bench-bin
stage "units, plain" units plain
stage "end to end, plain" e2e plain
build asan programs tests-bin
stage "units, ASan and UBSan" units asan
stage "end to end, ASan and UBSan" e2e asan -m "not slow_sanitized"
build tsan programs $(scripts/threaded_tests.sh build/tsan)
stage "threaded units, TSan" scripts/run_units.sh $(scripts/threaded_tests.sh build/tsan)
if [ "$mode" = long ]; then
    build ubsan programs tests-bin
    stage "units, UBSan alone" units ubsan
    build fuzz fuzz-bin
    stage fuzz scripts/fuzz.sh 60
fi
echo "time: $((SECONDS - started)) s"
echo "$pass passed, $fail failed"
[ "$fail" -eq 0 ]
