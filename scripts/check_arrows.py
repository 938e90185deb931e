#!/usr/bin/env python3
"""check_arrows.py: fails on an include that goes against an arrow of ARCHITECTURE.md section 3, and on a file that is too long."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES_MAX = 1000

# What a folder may include, longest prefix first. Entries are prefixes of the included path.
ALLOWED = [
    ("worker/cpu/", ["worker/cpu/", "worker/backend.h", "common/base.h"]),
    ("worker/cuda/", ["worker/cuda/", "worker/backend.h", "common/base.h"]),
    ("worker/model/", ["worker/model/", "worker/backend.h", "common/"]),
    ("worker/", ["worker/", "common/", "proto/"]),
    ("router/", ["router/", "common/", "proto/"]),
    ("common/link/", ["common/", "proto/"]),
    ("common/text/", ["common/text/"]),
    ("common/", ["common/"]),
    ("tests/", ["tests/", "router/", "worker/", "common/", "proto/"]),
]
# The scheduler's modules run in a simulator: no device there.
NO_BACKEND = re.compile(r"worker/(sched|kv|prefix|batch)[a-z_]*\.[ch]$")
# Everything in common/ may use its plain modules; text and gram keep to these.
COMMON_PLAIN = re.compile(r"common/[a-z0-9_]+\.h$")


def main() -> int:
    problems = []
    for path in sorted(p for p in ROOT.glob("**/*") if p.suffix in {".c", ".h", ".cu", ".cuh", ".cc"}):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("build/"):
            continue
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) > LINES_MAX and not re.search(r"_(tab|data)\.[ch]$", name):
            problems.append(f"{name}: {len(lines)} lines, at most {LINES_MAX}")
        allowed = next((a for prefix, a in ALLOWED if name.startswith(prefix)), None)
        if allowed is None:
            problems.append(f"{name}: in no known folder")
            continue
        for number, line in enumerate(lines, 1):
            m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not m:
                continue
            target = m.group(1)
            ok = any(target.startswith(a) for a in allowed)
            if name.startswith("common/") and COMMON_PLAIN.match(target):
                ok = True
            if name.startswith("common/gram/") and target.startswith("common/text/"):
                ok = True
            if NO_BACKEND.search(name) and target in ("worker/backend.h", "worker/model/model.h"):
                ok = False
            if not ok:
                problems.append(f"{name}:{number}: may not include {target}")
    for p in problems:
        print(p)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
