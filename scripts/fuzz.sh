#!/usr/bin/env bash
# fuzz.sh SECONDS: runs each fuzz target of build/fuzz for that long, from its committed corpus, JOBS (cores) at a
# time; new inputs go to build/fuzz/corpus. Ends with "N passed, N failed". TEST_WRAP, a command, is put before each.
set -u
cd "$(dirname "$0")/.." || exit 1
export seconds=${1:-60}
one() {
    local bin=$1 name log
    name=$(basename "$bin" | sed 's/^fuzz_//')
    log=build/fuzz/$name.log
    mkdir -p "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name"
    # shellcheck disable=SC2086
    if ${TEST_WRAP:-} "$bin" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/crash-$name-" "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
        echo "ok   fuzz $name: $(grep -o 'number_of_executed_units: *[0-9]*' "$log" | grep -o '[0-9]*$') runs in $seconds s"
    else
        printf 'FAIL fuzz %s\n%s\n' "$name" "$(tail -n 40 "$log")"
    fi
}
export -f one
out=$(mktemp)
trap 'rm -f "$out"' EXIT
find build/fuzz/tests/fuzz -type f -name 'fuzz_*' ! -name '*.[od]' | sort |
    xargs -r -P "${JOBS:-$(nproc)}" -I{} bash -c 'one {}' | tee "$out"
pass=$(grep -c '^ok   fuzz' "$out") fail=$(grep -c '^FAIL fuzz' "$out")
echo "fuzz: $pass passed, $fail failed"
[ "$fail" -eq 0 ] && [ "$pass" -gt 0 ]
