#!/usr/bin/env bash
# run_units.sh BINARY...: runs each cmocka program from the project's root; prints failures whole,
# successes in a line; ends with "N passed, N failed" over programs.
set -u
pass=0 fail=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for bin in "$@"; do
    if timeout "${UNIT_TIMEOUT_S:-600}" "$bin" >"$log" 2>&1; then
        pass=$((pass + 1))
        echo "ok   $bin $(grep -aoE '[0-9]+ test\(s\) run' "$log" | tail -n 1)"
    else
        fail=$((fail + 1))
        echo "FAIL $bin"
        tail -n 60 "$log"
    fi
done
echo "units: $pass passed, $fail failed"
[ "$fail" -eq 0 ]
