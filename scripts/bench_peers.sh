#!/usr/bin/env bash
# bench_peers.sh FILE: other grammar engines over what bench_grammar wrote to FILE, in a virtual environment of their
# own (build/venv-grammar), which is made here. Without a network they are left out, and said so.
set -u
cd "$(dirname "$0")/.."
venv=build/venv-grammar wanted=tests/requirements-grammar.txt
if ! cmp -s "$wanted" "$venv/requirements.txt"; then
    rm -rf "$venv"
    if ! python3 -m venv "$venv" || ! "$venv/bin/pip" install -q --no-deps -r "$wanted"; then
        echo "bench: llguidance and xgrammar could not be installed: left out" >&2
        rm -rf "$venv"
        exit 0
    fi
    cp "$wanted" "$venv/requirements.txt"
fi
exec "$venv/bin/python" scripts/bench_grammar_peers.py "$1"
