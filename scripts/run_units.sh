#!/usr/bin/env bash
# run_units.sh BINARY...: runs each cmocka program from the project's root, JOBS (cores) at a time; prints
# failures whole, successes in a line; ends with "N passed, N failed" over programs. The longest go first.
# TEST_WRAP, a command, is put before each.
set -u
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export logs
one() {
    local bin=$1 log
    log=$logs/$(echo "$bin" | tr / .)
    local from=$SECONDS
    # shellcheck disable=SC2086
    if ${TEST_WRAP:-} timeout "${UNIT_TIMEOUT_S:-600}" "$bin" >"$log" 2>&1; then
        echo "ok   $bin $(grep -aoE '[0-9]+ test\(s\) run' "$log" | tail -n 1) in $((SECONDS - from)) s"
    else
        printf 'FAIL %s\n%s\n' "$bin" "$(tail -n 60 "$log")"
        touch "$log.failed"
    fi
    rm -f "$log"
}
export -f one
slow='parity_attn|model_golden|engine_bits|/test_link$|router_faults|link_hostile|parity_'
{
    printf '%s\n' "$@" | grep -E "$slow"
    printf '%s\n' "$@" | grep -vE "$slow"
} | xargs -r -P "${JOBS:-$(nproc)}" -I{} bash -c 'one {}'
fail=$(find "$logs" -name '*.failed' | wc -l)
echo "units: $(($# - fail)) passed, $fail failed"
[ "$fail" -eq 0 ]
