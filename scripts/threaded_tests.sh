#!/usr/bin/env bash
# threaded_tests.sh BUILD: the unit and parity programs that use threads: their source says "threads: tsan".
cd "$(dirname "$0")/.." || exit 1
grep -l 'threads: tsan' tests/unit/test_*.c tests/parity/test_*.c 2>/dev/null | sed "s|^|$1/|; s|\.c$||"
