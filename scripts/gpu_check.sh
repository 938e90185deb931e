#!/usr/bin/env bash
# gpu_check.sh [--dry] [FOLDER [RESULTS]]: all that a machine with a GPU is asked for, within ten minutes: self-test, tiny models
# against the CPU, a served answer, the benchmark with its peers, compute-sanitizer. FOLDER holds what make gpu-bundle packs
# [where this script lies]. RESULTS [gpu-results.jsonl] gets a JSON line a check, and the benchmark's own lines. Exit status 0:
# nothing that ran has failed. --dry: sizes for an emulated device, and no peers; LIMIT_S [600]: seconds for all of it.
set -u
dry=
[ "${1:-}" = --dry ] && { dry=1; shift; }
here=$(cd "${1:-$(dirname "$0")}" && pwd) || exit 2
results=$(realpath -m "${2:-gpu-results.jsonl}")
[ -x "$here/weir-worker" ] || { echo "gpu_check: $here holds no weir-worker: it wants an unpacked bundle" >&2; exit 2; }
end=$((SECONDS + ${LIMIT_S:-600})) failed=0 work=$(mktemp -d)
[ -z "$dry" ] || export WEIR_BENCH_SCALE=${WEIR_BENCH_SCALE:-0.01}
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
cd "$here" || exit 2
: >"$results"

line() { # check, outcome, seconds, detail: printable ASCII without quotes and backslashes
    printf '{"check":"%s","outcome":"%s","seconds":%s,"detail":"%s"}\n' "$1" "$2" "$3" \
        "$(printf '%s' "$4" | tr -c ' -~' ' ' | tr -d '"\\' | cut -c -300)" | tee -a "$results"
}
# check NAME SECONDS COMMAND...: COMMAND gets SECONDS, or what is left of the ten minutes. Lines of it that are JSON go to the
# results, its last other line into the check's.
check() {
    local name=$1 most=$2 from=$SECONDS left=$((end - SECONDS)) rc
    shift 2
    if [ "$left" -lt 5 ]; then line "$name" skipped 0 "no time is left"; return; fi
    timeout -k 5 $((left < most ? left : most)) "$@" >"$work/out" 2>&1
    rc=$?
    grep '^{' "$work/out" | tee -a "$results"
    local said
    said=$(grep -v '^{' "$work/out" | tail -n 1)
    case $rc in
    0) line "$name" ok $((SECONDS - from)) "$said" ;;
    77) line "$name" skipped $((SECONDS - from)) "$said" ;;
    124 | 137) line "$name" failed $((SECONDS - from)) "out of time; $said"; failed=1 ;;
    *) line "$name" failed $((SECONDS - from)) "status $rc; $said"; failed=1; grep -v '^{' "$work/out" | tail -n 15 >&2 ;;
    esac
}
selftest() {
    ./weir-worker --selftest --device cuda >"$work/selftest" 2>&1
    local rc=$?
    cat "$work/selftest"
    [ $rc = 0 ] && ! grep -q '^FAIL' "$work/selftest" && grep -q '^ok' "$work/selftest"
}
# served: an answer over HTTP from the tiny model on the GPU, twice the same. weir chat asks: no other client is needed.
served() {
    local port=$((20000 + RANDOM % 10000)) i one two
    ./weir serve models/tiny-model --device cuda --port $port --max-model-len 256 --max-num-batched-tokens 64 --max-num-seqs 4 \
        >"$work/serve" 2>&1 &
    local pid=$!
    echo $pid >"$work/pid"
    for ((i = 0; i < 600; i++)); do
        grep -q 'weir: ready' "$work/serve" && break
        kill -0 $pid 2>/dev/null || { tail -n 1 "$work/serve"; return 1; }
        sleep 0.1
    done
    one=$(echo hello | ./weir chat "http://127.0.0.1:$port/v1" --temperature 0 --max-tokens 8)
    two=$(echo hello | ./weir chat "http://127.0.0.1:$port/v1" --temperature 0 --max-tokens 8)
    kill $pid
    wait $pid
    [ -n "$one" ] && [ "$one" = "$two" ] && grep -o 'kv_tokens=[0-9]*' "$work/serve" | tail -n 1
}
sanitized() { # tool
    command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not here"; return 77; }
    compute-sanitizer --tool "$1" --error-exitcode 3 ./weir-worker --selftest --device cuda >"$work/san" 2>&1
    local rc=$?
    tail -n 3 "$work/san"
    grep -q 'not supported' "$work/san" && return 77
    return $rc
}
python() { # script, arguments
    command -v python3 >/dev/null || { echo "python3 is not here"; return 77; }
    python3 "$@"
}
export here work results
export -f selftest served sanitized python

what=$( (command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | head -n 1) ||
    echo "no nvidia-smi")
line machine ok 0 "$(date -u +%Y-%m-%dT%H:%MZ) $what"
check selftest 60 bash -c selftest
check parity 90 ./bench_gpu_parity models/tiny-model
check served 60 bash -c served
[ ! -s "$work/pid" ] || kill "$(cat "$work/pid")" 2>/dev/null
if [ -n "$dry" ]; then
    check bench 300 ./bench_gpu tiny bfloat16
else
    check bench.llama-8b 150 ./bench_gpu llama-8b bfloat16
    check bench.llama-8b.fp8 120 ./bench_gpu llama-8b fp8 steps
    check bench.qwen3-0.6b 60 ./bench_gpu qwen3-0.6b bfloat16
    check ready 90 bash -c "python gpu_ready.py ./weir-worker"
    check peers 120 bash -c "python gpu_peers.py '$results' || exit 77" # what is wrong with a peer is not ours
fi
for tool in memcheck racecheck; do check "sanitizer.$tool" 90 bash -c "sanitized $tool"; done
[ $failed = 0 ]
