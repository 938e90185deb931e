#!/usr/bin/env bash
# test_gpu_tools.sh: what is meant for a GPU machine, here. gpu_check.sh with the benchmark on an emulated device, gpu_ready.py on
# the CPU; and, where nvcc is, the bundle: unpacked in an empty folder, its libraries, its self-test on the CPU, and an answer.
set -u
cd "$(dirname "$0")/.."
B=build/plain pass=0 fail=0 work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
expect() { # what, command...
    local what=$1
    shift
    if "$@" >"$work/said" 2>&1; then pass=$((pass + 1)); echo "ok   $what"
    else fail=$((fail + 1)); echo "FAIL $what"; tail -n 30 "$work/said"; fi
}

make --no-print-directory -s emu-backend $B/tests/bench/bench_gpu $B/tests/bench/bench_gpu_parity $B/weir $B/weir-worker || exit 1
dry=$work/dry
mkdir -p "$dry/models"
cp $B/weir $B/weir-worker $B/tests/bench/bench_gpu $B/tests/bench/bench_gpu_parity $B/emu/backend-cuda.so scripts/gpu_check.sh \
    tests/bench/offline_lengths.txt "$dry/"
cp -r deploy/tiny-model "$dry/models/"
checked() {
    LIMIT_S=${LIMIT_S:-500} "$dry/gpu_check.sh" --dry "$dry" "$work/results" || { cat "$work/results"; return 1; }
    local name
    for name in machine selftest parity served bench; do
        grep -q "\"check\":\"$name\",\"outcome\":\"ok\"" "$work/results" || { cat "$work/results"; return 1; }
    done
    for name in copy_gb_s gemm_tflop_s decode_tokens_s prefill_tokens_s attention_prefill_tflop_s attention_decode_gb_s \
        offline_tokens_s parity_tokens; do
        grep -q "\"case\":\"gpu.$name\"" "$work/results" || { echo "no gpu.$name"; return 1; }
    done
    python3 -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' "$work/results"
}
expect "gpu_check.sh on the emulated device" checked
# A check that fails must show: a backend of another kind beside the same programs.
fails() {
    echo nonsense >"$dry/backend-cuda.so"
    ! LIMIT_S=60 "$dry/gpu_check.sh" --dry "$dry" "$work/bad" && grep -q '"check":"selftest","outcome":"failed"' "$work/bad"
}
expect "gpu_check.sh sees a broken backend" fails
ready() {
    GPU_READY_LAYERS=2 GPU_READY_FLAGS="--device cpu --max-model-len 64" python3 tests/bench/gpu_ready.py $B/weir-worker | tee "$work/ready" &&
        grep -q '"case": "gpu.ready_ms"' "$work/ready"
}
expect "gpu_ready.py on the CPU" ready

peers() { # without torch it says so
    python3 tests/bench/gpu_peers.py /dev/null --dry | tee "$work/peers"
    grep -qE 'torch is not here|gpu.peer_decode_ratio' "$work/peers"
}
expect "gpu_peers.py" peers

# Only from lib/, libc's, and CUDA's, whether they are here or not.
own_libraries() {
    ldd "$PWD"/{weir,weir-worker,bench_gpu,bench_gpu_parity,backend-cuda.so} | grep -E '=>' | grep -v "=> $PWD/lib/" |
        grep -vE 'lib(c|m|dl|rt|pthread|resolv|gcc_s)\.so|libcu[a-zA-Z]*\.so|libnv' >../foreign
    cat ../foreign
    [ ! -s ../foreign ]
}
answers() {
    local port=$((32100 + RANDOM % 500)) i
    ./weir serve models/tiny-model --device cpu --port $port >../serve 2>&1 &
    server=$!
    for ((i = 0; i < 300; i++)); do grep -q 'weir: ready' ../serve && break; sleep 0.1; done
    curl -sf "http://127.0.0.1:$port/v1/completions" -H 'Content-Type: application/json' \
        -d '{"model":"models/tiny-model","prompt":"hello","max_tokens":4,"ignore_eos":true,"temperature":0}' | tee ../answer
    kill $server
    wait $server 2>/dev/null
    server=
    grep -q '"completion_tokens":4' ../answer
}
selftest() { ./weir-worker --selftest --device cpu && ! ./weir-worker --selftest --device cpu | grep -q '^FAIL'; }
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
    expect "make gpu-bundle" make --no-print-directory -s gpu-bundle
    mkdir "$work/empty"
    tar -C "$work/empty" -xzf build/weir-gpu-90a.tar.gz
    cd "$work"/empty/weir-gpu-90a || exit 1
    expect "the bundle brings its libraries along" own_libraries
    expect "the bundle's self-test on the CPU" selftest
    expect "the bundle answers over HTTP" answers
else
    echo "the bundle is not packed: no nvcc"
fi
echo "$pass passed, $fail failed"
[ $fail -eq 0 ]
