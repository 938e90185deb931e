#!/usr/bin/env bash
# fuzz.sh SECONDS: runs each fuzz target of build/fuzz for that long, from its committed corpus; new inputs go to build/fuzz/corpus.
# Ends with "N passed, N failed".
set -u
cd "$(dirname "$0")/.."
seconds=${1:-60}
pass=0 fail=0
for bin in build/fuzz/tests/fuzz/fuzz_*; do
    case $bin in *.o | *.d) continue ;; esac
    name=$(basename "$bin" | sed 's/^fuzz_//')
    mkdir -p "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name"
    # shellcheck disable=SC2086
    if ${TEST_WRAP:-} "$bin" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="build/fuzz/crash-$name-" \
        "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"build/fuzz/$name.log" 2>&1; then
        pass=$((pass + 1))
        echo "ok   fuzz $name: $(grep -o 'number_of_executed_units: *[0-9]*' "build/fuzz/$name.log" | grep -o '[0-9]*$') runs in ${seconds} s"
    else
        fail=$((fail + 1))
        echo "FAIL fuzz $name"
        tail -n 40 "build/fuzz/$name.log"
    fi
done
echo "fuzz: $pass passed, $fail failed"
[ "$fail" -eq 0 ]
