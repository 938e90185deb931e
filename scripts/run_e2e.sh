#!/usr/bin/env bash
# run_e2e.sh BUILD [pytest arguments]: the end-to-end tests on the programs of build/BUILD, JOBS (cores) files at
# a time, since most of them wait; prints each file's report when it is done, and ends with "N passed, N failed".
set -u
cd "$(dirname "$0")/.." || exit 1
export WEIR_BUILD="build/$1"
shift
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export logs args="${*@Q}"
one() {
    local file=$1 log rc from=$SECONDS
    log=$logs/$(basename "$file")
    eval "${TEST_WRAP:-} build/venv/bin/python -m pytest -q -p no:cacheprovider $file $args" >"$log" 2>&1
    rc=$?
    if [ $rc -eq 0 ] || [ $rc -eq 5 ]; then # 5: every test of the file was left out
        echo "ok   $file $(tail -n 1 "$log")"
    else
        printf 'FAIL %s after %s s\n%s\n' "$file" "$((SECONDS - from))" "$(tail -n 200 "$log")"
        touch "$log.failed"
    fi
}
export -f one
# the longest first
ls -S tests/e2e/test_*.py | xargs -r -P "${JOBS:-$(nproc)}" -I{} bash -c 'one {}'
sum() { cat "$logs"/*.py | grep -E '^[0-9]+ (passed|failed|skipped|deselected|error).* in [0-9.]+s' | grep -oE "[0-9]+ $1" | awk '{n += $1} END {print n + 0}'; }
broken=$(find "$logs" -name '*.failed' | wc -l)
fail=$(($(sum failed) + $(sum error)))
[ "$fail" -ge "$broken" ] || fail=$broken
echo "end to end: $(sum skipped) skipped, $(sum passed) passed, $fail failed"
[ "$broken" -eq 0 ]
