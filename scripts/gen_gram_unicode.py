#!/usr/bin/env python3
"""gen_gram_unicode.py: writes common/gram/regex_tab.[ch], the Unicode properties of \\p{...} and the cases of (?i).

Categories, scripts and the yes-or-no properties are asked of the `regex` module for every code point, so the
Unicode version is that module's; which letters (?i) takes for one is asked of Python's own `re`.

Usage: python3 scripts/gen_gram_unicode.py   (needs regex==2026.11.15; takes about a minute)
"""
import re
import sys
from importlib import import_module
from pathlib import Path

import regex

PINNED = "2026.11.15"
OUT = Path(__file__).resolve().parent.parent / "common" / "gram"
CPS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
TEXT = "".join(map(chr, CPS))
CATEGORIES = ["Cn", "Cc", "Cf", "Co", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No", "Pc", "Pd",
              "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs"]
GROUPS = {"C": "CC CF CO CN", "L": "LL LM LO LT LU", "LC": "LL LT LU", "M": "MC ME MN", "N": "ND NL NO",
          "P": "PC PD PE PF PI PO PS", "S": "SC SK SM SO", "Z": "ZL ZP ZS"}
BINARY = ["Alphabetic", "Lowercase", "Uppercase", "White_Space", "Emoji", "Emoji_Presentation",
          "Extended_Pictographic", "Ideographic", "Math", "Dash", "ID_Start", "ID_Continue", "XID_Start",
          "XID_Continue", "Hex_Digit", "ASCII_Hex_Digit"]


def plain(name):
    """Names are compared without case, spaces, '-' and '_'."""
    return re.sub(r"[ _&-]", "", name).upper()


def members(pattern):
    return [ord(c) for c in regex.findall(pattern, TEXT)]


def runs(value_of):
    """[(first code point, value)] where the value changes; surrogates take their neighbour's."""
    out, last = [], None
    for c in CPS:
        v = value_of[c]
        if v != last:
            out.append((c, v))
            last = v
    return out


def aliases(prop):
    """{value id: [names]} as the module knows them."""
    found = {}
    for name, value in import_module("regex._regex_core").PROPERTIES[prop][1].items():
        found.setdefault(value, []).append(plain(name))
    return found


def category_names():
    """[(name, mask of categories)]"""
    index = {c.upper(): i for i, c in enumerate(CATEGORIES)}
    names = {}
    for group in aliases("GENERALCATEGORY").values():
        short = [n for n in group if n in index or n in GROUPS]
        if not short:
            continue
        parts = GROUPS[short[0]].split() if short[0] in GROUPS else [short[0]]
        for n in group:
            names[n] = sum(1 << index[p] for p in parts)
    return sorted(names.items())


def orbits():
    """[(code point, the next one of its circle)], sorted."""
    cased = [c for c in CPS if chr(c).lower() != chr(c) or chr(c).upper() != chr(c) or chr(c).title() != chr(c)]
    text, parent = "".join(map(chr, cased)), {c: c for c in cased}

    def root(c):
        while parent[c] != c:
            c = parent[c]
        return c

    same = {}
    for c in cased:
        same[c] = set(map(ord, re.findall("(?i)" + re.escape(chr(c)), text)))
        for d in same[c]:
            parent[root(d)] = root(c)
    circles = {}
    for c in cased:
        circles.setdefault(root(c), []).append(c)
    out = []
    for circle in circles.values():
        assert all(same[c] == set(circle) for c in circle), [hex(c) for c in circle]
        if len(circle) > 1:
            out += list(zip(circle, circle[1:] + circle[:1]))
    return sorted(out)


def rows(cells):
    line, out = "   ", []
    for cell in cells:
        if len(line) + len(cell) + 2 > 110:
            out.append(line)
            line = "   "
        line += f" {cell},"
    return "\n".join(out + [line])


def main():
    if regex.__version__ != PINNED:
        sys.exit(f"gen_gram_unicode.py: regex {regex.__version__} is here; the tables are of {PINNED}")
    category = dict.fromkeys(CPS, 0)
    for i, name in enumerate(CATEGORIES[1:], 1):
        for c in members(rf"\p{{gc={name}}}"):
            category[c] = i
    script, scripts = dict.fromkeys(CPS, 0), []
    for value, names in sorted(aliases("SCRIPT").items()):
        scripts += [(n, value) for n in names]
        if value:
            for c in members(rf"\p{{Script={names[0]}}}"):
                script[c] = value
    binary = []
    for name in BINARY:
        on = set(members(rf"\p{{{name}}}"))
        edges = [c for c, _ in runs({c: c in on for c in CPS})][0 if 0 in on else 1:]
        binary.append((name, edges))
    edges_all = [e for _, edges in binary for e in edges]
    circle = orbits()
    cat_runs, script_runs, cat_names = runs(category), runs(script), category_names()
    scripts.sort()
    n = {"CATEGORY_RUNS": len(cat_runs), "SCRIPT_RUNS": len(script_runs), "EDGES": len(edges_all), "ORBITS": len(circle),
         "CATEGORY_NAMES": len(cat_names), "SCRIPT_NAMES": len(scripts), "BINARY": len(binary)}
    by = f"Written by scripts/gen_gram_unicode.py from regex {PINNED}; do not edit. */\n"
    (OUT / "regex_tab.h").write_text(
        "/* regex_tab.h: Unicode properties for regular expressions; read through regex_uni.c.\n * " + by +
        "#ifndef WEIR_COMMON_GRAM_REGEX_TAB_H\n#define WEIR_COMMON_GRAM_REGEX_TAB_H\n\n#include <stdint.h>\n\nenum {\n" +
        "".join(f"    RXT_N_{k} = {v},\n" for k, v in n.items()) + "};\n\n"
        "/* Runs of equal value: first code point << 8 | value, sorted. */\n"
        "extern const uint32_t rxt_category_runs[RXT_N_CATEGORY_RUNS], rxt_script_runs[RXT_N_SCRIPT_RUNS];\n"
        "/* Names in capitals without '_', sorted. A category's value is a mask of values of runs. */\n"
        "struct rxt_name {\n    const char *name;\n    uint32_t value;\n};\n"
        "extern const struct rxt_name rxt_category_names[RXT_N_CATEGORY_NAMES], rxt_script_names[RXT_N_SCRIPT_NAMES];\n"
        "/* Yes-or-no properties: edges[at .. at + n) are the code points where it becomes true, false, true ... */\n"
        "struct rxt_binary {\n    const char *name;\n    uint32_t at, n;\n};\n"
        "extern const struct rxt_binary rxt_binary[RXT_N_BINARY];\nextern const uint32_t rxt_edges[RXT_N_EDGES];\n"
        "/* Letters that differ in case only form circles; sorted by cp. */\n"
        "struct rxt_orbit {\n    uint32_t cp, next;\n};\nextern const struct rxt_orbit rxt_orbits[RXT_N_ORBITS];\n\n#endif\n")
    at, binary_cells = 0, []
    for name, edges in binary:
        binary_cells.append(f'{{"{plain(name)}", {at}, {len(edges)}}}')
        at += len(edges)
    tables = [("uint32_t rxt_category_runs[RXT_N_CATEGORY_RUNS]", [str(c << 8 | v) for c, v in cat_runs]),
              ("uint32_t rxt_script_runs[RXT_N_SCRIPT_RUNS]", [str(c << 8 | v) for c, v in script_runs]),
              ("struct rxt_name rxt_category_names[RXT_N_CATEGORY_NAMES]", [f'{{"{a}", {b}}}' for a, b in cat_names]),
              ("struct rxt_name rxt_script_names[RXT_N_SCRIPT_NAMES]", [f'{{"{a}", {b}}}' for a, b in scripts]),
              ("struct rxt_binary rxt_binary[RXT_N_BINARY]", binary_cells),
              ("uint32_t rxt_edges[RXT_N_EDGES]", [str(e) for e in edges_all]),
              ("struct rxt_orbit rxt_orbits[RXT_N_ORBITS]", [f"{{{a}, {b}}}" for a, b in circle])]
    (OUT / "regex_tab.c").write_text("/* regex_tab.c: " + by + '#include "common/gram/regex_tab.h"\n\n' +
                                     "\n".join(f"const {d} = {{\n{rows(cells)}\n}};\n" for d, cells in tables))
    print(n)


if __name__ == "__main__":
    main()
