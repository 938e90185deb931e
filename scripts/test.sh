#!/usr/bin/env bash
# test.sh [long]: every stage of `make test`, each with its own count; ends with "N passed, N failed".
# TEST_SCALE multiplies the counts of randomised tests. Stages go on after a failure; a failed build ends the run.
# TEST_WRAP, a command, is put before every test program and build: nice, or what shares a machine out.
# long: also UBSan alone and FUZZ_SECONDS of every fuzz target; leaves what came out, a line a stage with date and
# commit, in tests/results/test-long.txt. TEST_STAGES, some of "lint plain e2e asan e2e-asan tsan ubsan fuzz", runs
# a part, as a machine that others share wants it; the lines of the rest stay as they are.
set -u
cd "$(dirname "$0")/.."
export JOBS=${JOBS:-$(nproc)} TEST_SCALE=${TEST_SCALE:-1} TEST_WRAP=${TEST_WRAP:-}
mode=${1:-short}
pass=0 fail=0
started=$SECONDS
work=$(mktemp -d)
commit=$(git rev-parse --short=12 HEAD)$(git diff --quiet HEAD -- ':!tests/results' || echo ' with changes')
declare -A pid
# Nothing that was started outlives the run: background jobs have process groups of their own.
trap 'for p in $(jobs -p); do kill -- "-$p" 2>/dev/null; done; rm -rf "$work"' EXIT

note() { # stage, outcome: a line of the results of a long run
    echo "$1: $2; TEST_SCALE $TEST_SCALE, $(date -u +%Y-%m-%dT%H:%MZ), commit $commit" >>"$work/summary"
}
count() { # stage, log: adds the last "N passed, N failed" of the log
    local line
    line=$(grep -aoE '[0-9]+ passed(, [0-9]+ failed)?' "$2" | tail -n 1)
    local p f
    note "$1" "${line:-no count}"
    grep -aE '^(ok  |FAIL) fuzz' "$2" | while read -r how _ target rest; do note "fuzz ${target%:}" "$how, $rest"; done
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
grammars() { WEIR_BUILD="build/$1" build/venv/bin/python -m pytest -q -p no:cacheprovider tests/gram; }

lint() { scripts/lint.sh && echo "1 passed, 0 failed"; }
tsan() { scripts/run_units.sh $(scripts/threaded_tests.sh build/tsan); }
# The CUDA backend is compiled where nvcc is; without a GPU the worker must say so in one line.
have_nvcc() { command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; }
cuda() {
    local said
    said=$(build/plain/weir-worker --selftest --device cuda 2>&1)
    echo "$said"
    make --no-print-directory -s CUDA_ARCHS=90a cuda-report || { echo "0 passed, 1 failed"; return; }
    if echo "$said" | grep -q '^ok ' && ! echo "$said" | grep -q '^FAIL'; then echo "1 passed, 0 failed"
    elif [ "$(echo "$said" | wc -l)" -eq 1 ] && echo "$said" | grep -q 'no GPU'; then echo "1 passed, 0 failed"
    else echo "0 passed, 1 failed"; fi
}
want() { case " $stages " in *" $1 "*) true ;; *) false ;; esac }

all="lint plain e2e asan e2e-asan tsan"
[ "$mode" = short ] || all+=" ubsan fuzz"
stages=${TEST_STAGES:-$all}
! want e2e && ! want e2e-asan || later venv scripts/setup.sh "$([ "$mode" = long ] && echo venv-long || echo venv)"
! want lint || stage lint lint
if want plain || want e2e; then
    build "build plain" "plain all tests-bin bench-bin emu-backend"
    ready "build plain"
fi
if want asan || want e2e-asan; then build "build asan" "asan programs tests-bin"; fi
! want plain || stage "units, plain" units plain
! want e2e && ! want e2e-asan || ready venv
! want e2e || stage "grammars, plain" grammars plain
! want e2e || stage "end to end, plain" e2e plain
# Behind the tests that look at the clock.
if want plain && have_nvcc; then build "build cuda" "plain CUDA_ARCHS=90a cuda"; elif want plain; then echo "== CUDA is not compiled: no nvcc"; fi
if want asan || want e2e-asan; then ready "build asan"; fi
if want plain && have_nvcc; then
    ready "build cuda"
    stage "CUDA backend" cuda
fi
! want plain || stage "GPU tools, emulated" scripts/test_gpu_tools.sh
! want tsan || build "build tsan" "tsan $(scripts/threaded_tests.sh build/tsan | tr '\n' ' ')"
! want asan || stage "units, ASan and UBSan" units asan
! want e2e-asan || stage "grammars, ASan and UBSan" grammars asan
! want e2e-asan || stage "end to end, ASan and UBSan" e2e asan -m "not slow_sanitized"
! want tsan || ready "build tsan"
! want ubsan || build "build ubsan" "ubsan tests-bin"
! want tsan || stage "threaded units, TSan" tsan
! want ubsan || ready "build ubsan"
! want fuzz || build "build fuzz" "fuzz fuzz-bin"
! want ubsan || stage "units, UBSan alone" units ubsan
if want fuzz; then
    ready "build fuzz"
    stage fuzz scripts/fuzz.sh "${FUZZ_SECONDS:-60}"
fi
if [ "$mode" = long ]; then
    mkdir -p tests/results
    results=tests/results/test-long.txt
    {
        grep -s '^#' $results || echo "# make test-long: each stage with what its last run came to"
        while IFS= read -r line; do # what ran now replaces what is there of the same stage
            echo "$line"
        done <"$work/summary"
    } >"$work/new"
    { grep -sv '^#' $results | grep -vFf <(sed 's/: .*/: /' "$work/summary") ; } >"$work/old" || true
    { grep '^#' "$work/new"; cat "$work/old"; grep -v '^#' "$work/new"; } >$results
fi
echo "time: $((SECONDS - started)) s"
echo "$pass passed, $fail failed"
[ "$fail" -eq 0 ]
