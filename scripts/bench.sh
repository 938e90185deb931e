#!/usr/bin/env bash
# bench.sh [WORD]: runs the benchmark programs whose name contains WORD (all without one); one JSON line per case. pool also
# measures the server beside its peers, which it installs in a virtual environment of their own.
set -u
cd "$(dirname "$0")/.."
bad=0
for bin in build/plain/tests/bench/bench_*"${1:-}"*; do
    case $bin in *.o | *.d) continue ;; esac
    if [ "${bin##*/}" = bench_grammar ]; then # the same schemas for other engines
        "$bin" 200 build/bench-grammar.jsonl && scripts/bench_peers.sh build/bench-grammar.jsonl
    else
        "$bin"
    fi || [ $? = 77 ] || { echo "bench: $bin failed" >&2; bad=1; } # 77: left out, for want of a GPU
done
if [[ pool == *"${1:-}"* ]]; then
    { scripts/setup.sh venv-bench >&2 && build/venv-bench/bin/python tests/bench/pool.py; } ||
        { echo "bench: tests/bench/pool.py failed" >&2; bad=1; }
fi
exit $bad
