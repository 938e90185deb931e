#!/usr/bin/env bash
# bench.sh [WORD]: runs the benchmark programs whose name contains WORD (all without one); one JSON line per case.
set -u
cd "$(dirname "$0")/.."
bad=0
for bin in build/plain/tests/bench/bench_*"${1:-}"*; do
    case $bin in *.o | *.d) continue ;; esac
    "$bin" || { echo "bench: $bin failed" >&2; bad=1; }
done
exit $bad
