#!/usr/bin/env bash
# gpu_bundle.sh PARTS ARCH: packs what make gpu-bundle has built in PARTS into build/weir-gpu-ARCH.tar.gz: programs and backend
# without symbols, the libraries that are neither libc's nor CUDA's in lib/, the tiny model, scripts/gpu_check.sh and what
# it runs. At most 20 MB.
set -eu
cd "$(dirname "$0")/.."
parts=$1 name=weir-gpu-$2 most=20000000
out=build/gpu-bundle/$name
rm -rf "$out"
mkdir -p "$out/lib" "$out/models"
for f in weir weir-worker bench_gpu bench_gpu_parity backend-cuda.so; do strip -o "$out/$f" "$parts/$f"; done
# Those of libc are wherever a program runs at all; CUDA's come with the machine.
others='linux-vdso|ld-linux|/lib(c|m|dl|rt|pthread|resolv|gcc_s)\.so|libcu|libnv'
ldd "$out"/{weir,weir-worker,bench_gpu,bench_gpu_parity,backend-cuda.so} | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -vE "$others" | while read -r lib; do cp -L "$lib" "$out/lib/$(basename "$lib")"; done
strip "$out"/lib/*
cp -r deploy/tiny-model "$out/models/tiny-model"
cp scripts/gpu_check.sh tests/bench/gpu_ready.py tests/bench/gpu_peers.py tests/bench/offline_lengths.txt LICENSE "$out/"
cat >"$out/README.md" <<END
Weir $(sed -n 's/.*WEIR_VERSION "\(.*\)".*/\1/p' common/version.h), commit $(git rev-parse --short=12 HEAD), for GPUs of sm_$2.

    ./gpu_check.sh            self-test, parity, benchmark and sanitizers; at most ten minutes; gpu-results.jsonl
    ./weir serve MODEL        needs the driver and libcublasLt.so.13 (and libnccl.so.2 for several GPUs)
END
tar -C build/gpu-bundle -czf "build/$name.tar.gz" "$name"
size=$(stat -c %s "build/$name.tar.gz")
echo "build/$name.tar.gz: $size bytes"
[ "$size" -le "$most" ] || { echo "gpu_bundle: above $most bytes" >&2; exit 1; }
