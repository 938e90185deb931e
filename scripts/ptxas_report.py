#!/usr/bin/env python3
"""ptxas_report.py FOLDER [-v]: what ptxas said of every kernel in FOLDER/*.ptxas (make cuda leaves it beside the objects).

Fails if a kernel spills registers, or keeps arrays in memory of its own (a stack: loops that were not unrolled), on any
architecture; -v prints every kernel, else the largest of each file.
"""
import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\w+)'")
SPILL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
STACK_MAY = {"rope_kernel": 64}  # bytes: sines and cosines of large angles


def kernels(path):
    """(mangled name, architecture, registers, static shared bytes, stack bytes, spilled bytes) of each kernel."""
    name = arch = None
    stack = spill = 0
    for line in path.read_text().splitlines():
        if found := ENTRY.search(line):
            name, arch = found.groups()
            stack = spill = 0
        elif (found := SPILL.search(line)) and name:
            stack, spill = int(found[1]), int(found[2]) + int(found[3])
        elif (found := USED.search(line)) and name:
            shared = SHARED.search(line)
            yield name, arch, int(found[1]), int(shared[1]) if shared else 0, stack, spill
            name = None


def readable(names):
    """C++ names without their arguments."""
    out = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return dict(zip(names, out.splitlines()))


def main():
    folder, wordy = pathlib.Path(sys.argv[1]), "-v" in sys.argv[2:]
    rows = [(p.stem, *k) for p in sorted(folder.glob("*.ptxas")) for k in kernels(p)]
    if not rows:
        sys.exit(f"ptxas: nothing in {folder}: make cuda first")
    names = readable(sorted({r[1] for r in rows}))
    largest = {(r[0], r[2]): max((x for x in rows if (x[0], x[2]) == (r[0], r[2])), key=lambda x: x[3]) for r in rows}
    bad = [r for r in rows if r[6] or r[5] > next((n for k, n in STACK_MAY.items() if k in r[1]), 0)]
    for r in rows if wordy else [*largest.values(), *(r for r in bad if r not in largest.values())]:
        print(f"{r[0]:10} {r[2]:7} {r[3]:3} registers {r[4]:6} shared {r[5]:4} stack {r[6]:4} spilled  {names[r[1]]}")
    print(f"ptxas: {len(rows)} kernels, {len(bad)} spill or have a stack")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
