#!/usr/bin/env python3
"""gen_class_tab.py: writes common/text/class_tab.[ch], the character classes that patterns of tokenizers name.

As gen_unicode.py does, and for its reason, the facts are asked of the Hugging Face `tokenizers` library, whose
regular expressions (Oniguruma) know another Unicode than Debian does:

  general category, and what [:alpha:], [:lower:], [:upper:] and \\p{Script} match
  case               what (?i:c) matches for each character c that has another case
  scripts            which characters the pre-tokenizer UnicodeScripts holds for one script

Names, and guesses that are then asked, come from Debian's package unicode-data.

Usage: python3 scripts/gen_class_tab.py   (needs tokenizers==0.23.3 and /usr/share/unicode; takes some minutes)
"""
import sys
from pathlib import Path

import tokenizers
from tokenizers import Regex, pre_tokenizers

PINNED = "0.23.3"
OUT = Path(__file__).resolve().parent.parent / "common" / "text"
UCD = Path("/usr/share/unicode")
CPS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cs Cn".split()
BITS = ["alpha", "lower", "upper"]
# Scripts that Unicode 16 has and unicode-data 15 does not.
LATER = [("Gara", "Garay"), ("Gukh", "Gurung_Khema"), ("Krai", "Kirat_Rai"), ("Onao", "Ol_Onal"), ("Sunu", "Sunuwar"),
         ("Todr", "Todhri"), ("Tutg", "Tulu_Tigalari")]


CHUNKS = ["".join(map(chr, CPS[at : at + (1 << 16)])) for at in range(0, len(CPS), 1 << 16)]


def matches(pattern, chunks=CHUNKS):
    """The code points that a pattern of one character matches."""
    split, found = pre_tokenizers.Split(Regex(pattern), "removed", invert=True), set()
    for chunk in chunks:
        for piece, _ in split.pre_tokenize_str(chunk):
            found.update(map(ord, piece))
    return found


def classes():
    value = [CATEGORIES.index("Cs")] * 0x110000
    seen = 0
    for i, name in enumerate(CATEGORIES):
        for c in matches(rf"\p{{{name}}}+") if name != "Cs" else ():
            value[c] = i
            seen += 1
    assert seen == len(CPS)
    cat = lambda *names: {c for c in CPS if CATEGORIES[value[c]].startswith(names)}
    sets = {b: matches(f"[[:{b}:]]+") for b in BITS}
    space, nd, marks = matches(r"\s+"), cat("Nd"), cat("M")
    graph = set(CPS) - space - cat("Cc", "Cn")
    # What the pattern compiler builds from these.
    assert matches("[[:graph:]]+") == graph and matches("[[:print:]]+") == graph | cat("Zs")
    assert matches("[[:punct:]]+") == cat("P", "S") and matches(r"\p{Punct}+") == cat("P")
    assert matches("[[:alnum:]]+") == sets["alpha"] | nd and matches(r"\d+") == matches("[[:digit:]]+") == nd
    assert matches("[[:cntrl:]]+") == cat("Cc") and matches("[[:blank:]]+") == cat("Zs") | {9}
    assert space == cat("Z") | set(range(9, 14)) | {0x85} and matches("[[:space:]]+") == space
    word = sets["alpha"] | marks | nd | cat("Pc")
    assert matches("[[:word:]]+") == matches(r"[\w]+") == word
    assert matches(r"\w+") == matches(r"\p{Word}+") == word | {0xB2, 0xB3, 0xB9, 0xBC, 0xBD, 0xBE}
    assert matches("[[:xdigit:]]+") == matches(r"\h+") == set(map(ord, "0123456789abcdefABCDEF"))
    assert matches(r"\p{LC}+") == cat("Lu", "Ll", "Lt") and matches(".+") == set(CPS) - {10}
    for i, b in enumerate(BITS):
        for c in sets[b]:
            value[c] |= 32 << i
    return value


def script_names():
    names = LATER[:]
    for line in (UCD / "PropertyValueAliases.txt").read_text().splitlines():
        parts = [p.strip() for p in line.split("#")[0].split(";")]
        if parts[0] == "sc" and parts[2] not in ("Katakana_Or_Hiragana", "Unknown"):
            names.append((parts[1], parts[2]))
    return [("Zzzz", "Unknown")] + sorted(names, key=lambda n: n[1])


def scripts():
    """Most characters are asked only whether they are what Scripts.txt says; the others, of every script."""
    names, guess, value = script_names(), {}, [0] * 0x110000
    for line in (UCD / "Scripts.txt").read_text().splitlines():
        parts = [p.strip() for p in line.split("#")[0].split(";")]
        if len(parts) == 2:
            ends = [int(x, 16) for x in parts[0].split("..")]
            guess.setdefault(parts[1], []).extend(range(ends[0], ends[-1] + 1))
    for i, (short, name) in enumerate(names[1:], 1):
        for c in matches(rf"\p{{{name}}}+", ["".join(map(chr, guess.get(name, [])))]):
            value[c] = i
    left = ["".join(chr(c) for c in CPS if not value[c])]
    unknown = matches(r"\p{Unknown}+", left)
    left = ["".join(c for c in left[0] if ord(c) not in unknown)]
    for i, (short, name) in enumerate(names[1:], 1):
        found = matches(rf"\p{{{name}}}+", left)
        assert found == matches(rf"\p{{{short}}}+", left)
        for c in found:
            assert not value[c]
            value[c] = i
    assert {c for c in CPS if not value[c]} == unknown
    return names, value


def cut_scripts():
    """0 for what UnicodeScripts joins to either side, else one number for each script."""
    cut = lambda text: [p for p, _ in pre_tokenizers.UnicodeScripts().pre_tokenize_str(text)]
    either, value, heads = set(), [0] * 0x110000, []
    for at in range(0, len(CPS), 1 << 14):
        chunk = CPS[at : at + (1 << 14)]
        pieces = cut("".join("a" + chr(c) + "a\u03b1" + chr(c) + "\u03b1" for c in chunk))
        joined, at_text = "".join(pieces), 0
        ends = set()
        for p in pieces:
            at_text += len(p)
            ends.add(at_text)
        assert len(joined) == 6 * len(chunk)
        either.update(c for k, c in enumerate(chunk) if not ends & {6 * k + 1, 6 * k + 2, 6 * k + 4, 6 * k + 5})
    last, of_last = None, 0
    for c in CPS:
        if c in either:
            continue
        if last is None or len(cut(chr(last) + chr(c))) > 1:
            same = [i for i, head in enumerate(heads) if len(cut(chr(head) + chr(c))) == 1]
            assert len(same) <= 1
            if not same:
                heads.append(c)
            of_last = same[0] + 1 if same else len(heads)
        value[c] = of_last
        last = c
    assert len(heads) < 256
    return value


def folds(value):
    """{c: all others that (?i:c) matches}"""
    cased = [c for c in CPS if CATEGORIES[value[c] & 31] in ("Lu", "Ll", "Lt") or len({f(chr(c)) for f in (str.lower, str.upper, str.title)}) > 1]
    text = ["\n".join(map(chr, cased))]  # apart, so that none match together
    marks = ".^$|()[]{}*+?\\"
    out = {}
    for c in cased:
        found = matches(f"(?i:{chr(c)})", text) - {c, 10}
        if found:
            out[c] = sorted(found)
    assert all(len(v) <= 3 for v in out.values()) and not any(chr(c) in marks for c in out)
    return out


def long_folds():
    """[(character, the several it folds to)]"""
    out = []
    for line in (UCD / "CaseFolding.txt").read_text().splitlines():
        parts = [p.strip() for p in line.split("#")[0].split(";")]
        if len(parts) > 2 and parts[1] == "F":
            c, to = int(parts[0], 16), [int(x, 16) for x in parts[2].split()]
            probe = pre_tokenizers.Split(Regex("(?i:%s)" % "".join(map(chr, to))), "removed", invert=True)
            assert probe.pre_tokenize_str(chr(c)), hex(c)
            out.append((c, to))
    return out


def runs(values, shift):
    """first << shift | value of each run of equal values"""
    out = []
    for c, v in enumerate(values):
        if c == 0 or v != values[c - 1]:
            out.append(c << shift | v)
    return out


def array(kind, name, values, per):
    rows = [", ".join(str(v) for v in values[i : i + per]) for i in range(0, len(values), per)]
    return f"const {kind} {name}[{len(values)}] = {{\n    " + ",\n    ".join(rows) + "};\n"


def main():
    if tokenizers.__version__ != PINNED:
        sys.exit(f"gen_class_tab.py: tokenizers {tokenizers.__version__} is here; the tables are of {PINNED}")
    value = classes()
    names, script = scripts()
    class_runs, script_runs, cut_runs = runs(value, 8), runs(script, 8), runs(cut_scripts(), 8)
    fold, long_fold = folds(value), long_folds()
    fold_rows = ["{%d, {%s}}" % (c, ", ".join(map(str, v + [0] * (3 - len(v))))) for c, v in sorted(fold.items())]
    long_rows = ["{%d, {%s}}" % (c, ", ".join(map(str, v + [0] * (3 - len(v))))) for c, v in sorted(long_fold)]
    head = f"scripts/gen_class_tab.py from tokenizers {PINNED}; do not edit. */\n"
    (OUT / "class_tab.h").write_text(
        "/* class_tab.h: the character classes that patterns of tokenizers name. Written by\n * " + head +
        "#ifndef WEIR_COMMON_TEXT_CLASS_TAB_H\n#define WEIR_COMMON_TEXT_CLASS_TAB_H\n\n#include <stdint.h>\n\n"
        "/* Runs of equal characters, in order, from U+0000 on: the first character << 8 | value. */\n"
        f"enum {{ CLASS_N_RUNS = {len(class_runs)}, CLASS_N_SCRIPT_RUNS = {len(script_runs)}, CLASS_N_CUT_RUNS = {len(cut_runs)} }};\n"
        "/* Value: the category's place in class_category_names, and CLASS_IS_*. */\n"
        "extern const uint32_t class_runs[CLASS_N_RUNS];\n"
        "enum { CLASS_CATEGORY_MASK = 31, " + ", ".join(f"CLASS_IS_{b.upper()} = {32 << i}" for i, b in enumerate(BITS)) + " };\n"
        f"enum {{ CLASS_N_CATEGORIES = {len(CATEGORIES)}, CLASS_N_SCRIPTS = {len(names)} }};\n"
        "extern const char *const class_category_names[CLASS_N_CATEGORIES];\n"
        "/* Value: the script's place in class_script_names. */\n"
        "extern const uint32_t class_script_runs[CLASS_N_SCRIPT_RUNS];\n"
        "extern const char *const class_script_names[CLASS_N_SCRIPTS][2]; /* Latn, Latin */\n"
        "/* Value: a number for each script that UnicodeScripts tells apart; 0: joins either side. */\n"
        "extern const uint32_t class_cut_runs[CLASS_N_CUT_RUNS];\n"
        "/* What else a character matches where case does not count, in order of cp; 0 ends to. */\n"
        "struct class_fold {\n    uint32_t cp, to[3];\n};\n"
        f"enum {{ CLASS_N_FOLDS = {len(fold_rows)}, CLASS_N_LONG_FOLDS = {len(long_rows)} }};\n"
        "extern const struct class_fold class_folds[CLASS_N_FOLDS];\n"
        "/* Characters that match several in a row, then. */\n"
        "extern const struct class_fold class_long_folds[CLASS_N_LONG_FOLDS];\n\n#endif\n")
    quoted = [f'"{n}"' for n in CATEGORIES]
    named = [f'{{"{a}", "{b}"}}' for a, b in names]
    (OUT / "class_tab.c").write_text(
        "/* class_tab.c: written by " + head + '#include "common/text/class_tab.h"\n\n' +
        "\n".join([array("uint32_t", "class_runs", class_runs, 10), array("char *const", "class_category_names", quoted, 15),
                   array("uint32_t", "class_script_runs", script_runs, 10),
                   array("char *const", "class_script_names", named, 4).replace(f"[{len(named)}]", f"[{len(named)}][2]"),
                   array("uint32_t", "class_cut_runs", cut_runs, 10), array("struct class_fold", "class_folds", fold_rows, 4),
                   array("struct class_fold", "class_long_folds", long_rows, 4)]))
    print(f"class runs {len(class_runs)}, script runs {len(script_runs)}, cut runs {len(cut_runs)}, folds {len(fold_rows)}, long folds {len(long_rows)}")


if __name__ == "__main__":
    main()
