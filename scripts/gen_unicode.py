#!/usr/bin/env python3
"""gen_unicode.py: writes common/text/unicode_tab.[ch], the Unicode facts a tokenizer needs.

Why not from the Unicode database: tokens must equal those of the Hugging Face `tokenizers` library,
and that library mixes versions. As of 0.23.3 its regular expressions know Unicode 16, its
normaliser (NFC, NFD) Unicode 9, and Debian 12 ships Unicode 15. So each fact is asked of the library
itself, for every code point:

  letter, number, space   \\p{L}, \\p{N}, \\s of its regular expressions (Split, ByteLevel)
  word                    what a `single_word` added token takes for a word character
  decomposition           NFD of one character
  combining class         0 where NFD never reorders the character; else the class Unicode gives it
                          (a class never changes once given), taken from Python's unicodedata
  composition             pairs that NFC joins to one character
  compatibility           NFKD of one character where it differs from NFD
  numeric                 what Digits takes for a number: a later Unicode than \\p{N}
  lower case              Lowercase of one character
  punctuation             what Punctuation and BertPreTokenizer cut at
  dropped, mark, accent   what BertNormalizer's clean_text, StripAccents and BertNormalizer's strip_accents
                          take away
  grapheme classes        where Precompiled sees a grapheme end, asked with a character map that turns each
                          grapheme of less than six bytes into one "X" (a longer one into one for each
                          character)

Then an independent NFC over these tables is compared with the library's on random strings.

Usage: python3 scripts/gen_unicode.py   (needs tokenizers==0.23.3; takes about two minutes)
"""
import random
import struct
import sys
import unicodedata
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

PINNED = "0.23.3"
OUT = Path(__file__).resolve().parent.parent / "common" / "text"
CPS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xAC00 + 11172)
NFD = normalizers.NFD().normalize_str
NFC = normalizers.NFC().normalize_str


def regex_class(pattern):
    """The code points that a one-character pattern matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for at in range(0, len(CPS), 1 << 16):
        for piece, _ in split.pre_tokenize_str("".join(map(chr, CPS[at : at + (1 << 16)]))):
            found.update(map(ord, piece))
    return found


def added_token_probe(token, make):
    """Offsets of the occurrences of an added token in make(c), for each code point: {c: (begin, end)}."""
    tok = Tokenizer(models.WordLevel({"u": 0}, unk_token="u"))
    tok.add_tokens([token])
    want = tok.token_to_id(token.content)
    found = {}
    for at in range(0, len(CPS), 4096):
        chunk = CPS[at : at + 4096]
        encodings = tok.encode_batch([make(chr(c)) for c in chunk])
        for c, enc in zip(chunk, encodings):
            for i, offset in zip(enc.ids, enc.offsets):
                if i == want:
                    found[c] = offset
    return found


def word_class():
    found = added_token_probe(AddedToken("|t|", single_word=True), lambda ch: ch + "|t|")
    return {c for c in CPS if c not in found}


def strip_class():
    found = added_token_probe(AddedToken("|t|", rstrip=True), lambda ch: "|t|" + ch)
    return {c for c in CPS if found[c][1] == 4}


def decompositions():
    return {c: [ord(x) for x in NFD(chr(c))] for c in CPS if c not in HANGUL and NFD(chr(c)) != chr(c)}


def combining_classes(decomp):
    ccc = {}
    for c in CPS:
        ch = chr(c)
        after_240, before_1 = "a\u0345" + ch, "a" + ch + "\u0334"
        if c not in decomp and c not in HANGUL and (NFD(after_240) != after_240 or NFD(before_1) != before_1):
            ccc[c] = unicodedata.combining(ch)
            assert ccc[c] > 0, hex(c)
    return ccc


def compositions(decomp):
    pairs = {}
    for c, parts in decomp.items():
        if len(parts) < 2 or NFC(chr(c)) != chr(c):
            continue
        first = NFC("".join(map(chr, parts[:-1])))
        assert len(first) == 1 and NFC(first + chr(parts[-1])) == chr(c), hex(c)
        pairs[ord(first), parts[-1]] = c
    return pairs


def nfc_model(text, decomp, ccc, pairs):
    """NFC by the tables, as the C code does it."""
    seq = []
    for c in map(ord, text):
        if c in HANGUL:
            s = c - 0xAC00
            seq += [0x1100 + s // 588, 0x1161 + s % 588 // 28] + ([0x11A7 + s % 28] if s % 28 else [])
        else:
            seq += decomp.get(c, [c])
    i = 0
    while i < len(seq):
        j = i
        while j < len(seq) and ccc.get(seq[j], 0):
            j += 1
        seq[i:j] = sorted(seq[i:j], key=lambda x: ccc[x])
        i = j + 1
    out, starter, last = [], None, 0
    for c in seq:
        cls = ccc.get(c, 0)
        joined = None
        if starter is not None and (last < cls or (last == 0 and starter == len(out) - 1)):
            a = out[starter]
            if 0x1100 <= a < 0x1113 and 0x1161 <= c < 0x1176:
                joined = 0xAC00 + ((a - 0x1100) * 21 + c - 0x1161) * 28
            elif a in HANGUL and (a - 0xAC00) % 28 == 0 and 0x11A7 < c < 0x11C3:
                joined = a + c - 0x11A7
            else:
                joined = pairs.get((a, c))
        if joined is not None:
            out[starter] = joined
            continue
        if cls == 0:
            starter = len(out)
        last = cls
        out.append(c)
    return "".join(map(chr, out))


def check_nfc(decomp, ccc, pairs):
    rng = random.Random(7)
    pool = list(decomp) + list(ccc) * 3 + [a for a, _ in pairs] + [b for _, b in pairs]
    pool += list(range(0x1100, 0x1113)) + list(range(0x1161, 0x1176)) + list(range(0x11A7, 0x11C3))
    pool += [0xAC00 + 28 * k for k in range(40)] + [0xAC01, 0x61, 0x20, 0x1F600, 0x10FFFF]
    for _ in range(200000):
        text = "".join(chr(rng.choice(pool)) for _ in range(rng.randint(1, 9)))
        assert nfc_model(text, decomp, ccc, pairs) == NFC(text), ascii(text)


# ---- what the parts for BERT and SentencePiece models know ----


def pieces_of(pre_tokenizer, between):
    """Each code point with `between` on both sides, cut by a pre-tokeniser: the pieces of one character."""
    found = set()
    for at in range(0, len(CPS), 1 << 14):
        text = between + between.join(map(chr, CPS[at : at + (1 << 14)])) + between
        found.update(ord(p) for p, _ in pre_tokenizer.pre_tokenize_str(text) if len(p) == 1 and p != between)
    return found


def kept_by(pre_tokenizer):
    kept = set()
    for at in range(0, len(CPS), 1 << 14):
        text = "".join(map(chr, CPS[at : at + (1 << 14)]))
        for piece, _ in pre_tokenizer.pre_tokenize_str(text):
            kept.update(map(ord, piece))
    return kept


def check_other_spellings(space, word):
    """Parts that name the same classes in another way must agree with the regular expressions."""
    assert set(CPS) - kept_by(pre_tokenizers.WhitespaceSplit()) == space, "WhitespaceSplit and \\s differ"
    not_word = pieces_of(pre_tokenizers.Whitespace(), "a")
    assert set(CPS) - kept_by(pre_tokenizers.Whitespace()) == space and not_word == set(CPS) - word - space, "\\w"
    bert = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    spaced = {c for c in CPS if c != 0x20 and bert.normalize_str(chr(c)) == " "}
    assert spaced <= space, "clean_text knows other spaces"
    assert all(bert.normalize_str(chr(c)) in ("", " ") for c in space)


def bert_sets(decomp):
    def norm(**on):
        off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
        return normalizers.BertNormalizer(**{**off, **on}).normalize_str
    clean, accents, marks = norm(clean_text=True), norm(strip_accents=True), normalizers.StripAccents().normalize_str
    dropped = {c for c in CPS if clean(chr(c)) == ""}
    accent = {c for c in CPS if c not in decomp and c not in HANGUL and accents(chr(c)) == ""}
    mark = {c for c in CPS if marks(chr(c)) == ""}
    return dropped, accent, mark


def lower_map():
    lower = normalizers.Lowercase().normalize_str
    found = {c: [ord(x) for x in lower(chr(c))] for c in CPS if lower(chr(c)) != chr(c)}
    assert all(len(v) <= 2 for v in found.values())
    assert all(found[c] == [c + 32] for c in range(65, 91))
    return found


GRAPHEME = ["OTHER", "CONTROL", "EXTEND", "EXTEND_INDIC", "LINKER", "ZWJ", "SPACING", "PREPEND", "REGIONAL",
            "L", "V", "T", "LV", "LVT", "PICTURE", "CONSONANT"]


def grapheme_probe():
    """The library's Precompiled normaliser over a map with an entry for each single byte."""
    unit = [0] * 1024
    unit[0] = 256 << 10
    for byte in range(1, 256):
        unit[256 ^ byte] = byte | 1 << 8 | 768 << 10
        unit[512 ^ byte] = 1 << 31
    blob = struct.pack("<I", 4096) + struct.pack("<1024I", *unit) + b"X\0"
    normalize = normalizers.Precompiled(blob).normalize_str
    return lambda text: len(normalize(text))


def grapheme_classes():
    n = grapheme_probe()
    ka, virama, acute, zwj, copyright = "\u0915", "\u094d", "\u0301", "\u200d", "\u00a9"
    cls = {}
    for c in CPS:
        ch = chr(c)
        if c == 0:  # the map cannot hold it; alone or not, it stays as it is
            cls[c] = "CONTROL"
        elif c == 0x200D:
            cls[c] = "ZWJ"
        elif n("a" + ch) == 1:
            if n(copyright + ch + zwj + copyright + acute) != 5:
                cls[c] = "SPACING"
            elif n(ka + ch + ka + acute) == 4:
                cls[c] = "LINKER"
            else:
                cls[c] = "EXTEND_INDIC" if n(ka + ch + virama + ka + acute) == 5 else "EXTEND"
        elif n(ch + "a") == 1:
            cls[c] = "PREPEND"
        elif 0x1F1E6 <= c <= 0x1F1FF:
            cls[c] = "REGIONAL"
        elif c in HANGUL:
            cls[c] = "LV" if (c - 0xAC00) % 28 == 0 else "LVT"
        elif 0x1100 <= c <= 0x115F or 0xA960 <= c <= 0xA97C:
            cls[c] = "L"
        elif 0x1160 <= c <= 0x11A7 or 0xD7B0 <= c <= 0xD7C6:
            cls[c] = "V"
        elif 0x11A8 <= c <= 0x11FF or 0xD7CB <= c <= 0xD7FB:
            cls[c] = "T"
        elif c < 0x10000 and n(ch + acute) != 1:
            cls[c] = "CONTROL"  # above U+FFFF it makes no difference: the pair has six bytes
        elif n(copyright + zwj + ch + acute) == 4:
            cls[c] = "PICTURE"
        elif n(ch + virama + ka + acute) == 4:
            cls[c] = "CONSONANT"
    return {c: GRAPHEME.index(k) for c, k in cls.items()}


def two_stage(values, block):
    """Values of all code points -> (index of blocks, the distinct blocks one after another)."""
    seen, index, flat = {}, [], []
    for at in range(0, 0x110000, block):
        key = tuple(values[at : at + block])
        if key not in seen:
            seen[key] = len(seen)
            flat += key
        index.append(seen[key])
    assert len(seen) < 65536
    return index, flat


def array(kind, name, values, per=24):
    rows = [", ".join(str(v) for v in values[i : i + per]) for i in range(0, len(values), per)]
    return f"const {kind} {name}[{len(values)}] = {{\n    " + ",\n    ".join(rows) + "};\n"


def hashed(entries, size, key, render, empty):
    """Open addressing with linear probing, as uni_decomp_find and uni_compose look it up."""
    slots = [None] * size
    for e in entries:
        at = key(e)
        while slots[at] is not None:
            at = (at + 1) % size
        slots[at] = e
    return [empty if e is None else render(e) for e in slots]


def main():
    if tokenizers.__version__ != PINNED:
        sys.exit(f"gen_unicode.py: tokenizers {tokenizers.__version__} is here; the tables are of {PINNED}")
    letter, number, space = regex_class(r"\p{L}"), regex_class(r"\p{N}"), regex_class(r"\s")
    assert not (letter & number or letter & space or number & space)
    assert strip_class() == space, "lstrip and rstrip take other spaces than the splitters"
    word = word_class()
    decomp = decompositions()
    ccc = combining_classes(decomp)
    pairs = compositions(decomp)
    check_nfc(decomp, ccc, pairs)
    check_other_spellings(space, word)
    numeric = pieces_of(pre_tokenizers.Digits(individual_digits=True), "a")
    punct = pieces_of(pre_tokenizers.Punctuation("isolated"), "a")
    dropped, accent, mark = bert_sets(decomp)
    lower = lower_map()
    nfkd = normalizers.NFKD().normalize_str
    compat = {c: [ord(x) for x in nfkd(chr(c))] for c in CPS if c not in HANGUL and nfkd(chr(c)) != NFD(chr(c))}
    grapheme = grapheme_classes()
    unsafe = {c for c in decomp if NFC(chr(c)) != chr(c)} | set(ccc) | {b for _, b in pairs}
    unsafe |= set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))

    nibble = [0] * 0x110000
    for c in CPS:
        nibble[c] = (1 if c in letter else 2 if c in number else 3 if c in space else 0)
        nibble[c] |= (4 if c in word else 0) | (8 if c in unsafe else 0)
    packed = [nibble[i] | nibble[i + 1] << 4 for i in range(0, 0x110000, 2)]
    seen, class_index, class_flat = {}, [], []
    for at in range(0, len(packed), 64):
        block = tuple(packed[at : at + 64])
        if block not in seen:
            seen[block] = len(seen)
            class_flat += block
        class_index.append(seen[block])
    ccc_index, ccc_flat = two_stage([ccc.get(c, 0) for c in range(0x110000)], 128)

    pool, entries = [], []
    for c, parts in sorted(decomp.items()):
        entries.append((c, len(pool), len(parts)))
        pool += parts
    n_decomp, n_comp = 4096, 2048
    assert len(entries) < n_decomp * 3 // 4 and len(pairs) < n_comp * 3 // 4
    compat_entries = []
    for c, parts in sorted(compat.items()):
        compat_entries.append((c, len(pool), len(parts)))
        pool += parts
    assert len(pool) < 65536
    n_compat, n_lower = 8192, 4096
    assert len(compat_entries) < n_compat * 3 // 4 and len(lower) < n_lower * 3 // 4
    k_rows = hashed(compat_entries, n_compat, lambda e: (e[0] * 2654435761 & 0xFFFFFFFF) >> 19,
                    lambda e: "{%d, %d, %d}" % e, "{0, 0, 0}")
    l_rows = hashed(sorted((c, v[0], v[1] if len(v) > 1 else 0) for c, v in lower.items()), n_lower,
                    lambda e: (e[0] * 2654435761 & 0xFFFFFFFF) >> 20,
                    lambda e: "{%d, %d, %d}" % e, "{0, 0, 0}")
    props = [0] * 0x110000
    for c in CPS:
        bits = (c in punct, c in dropped, c in accent, c in mark, c in lower, c in compat,
                c in decomp or c in ccc or c in HANGUL, c in numeric)
        props[c] = sum(1 << i for i, on in enumerate(bits) if on) | grapheme.get(c, 0) << 8
    props_index, props_flat = two_stage(props, 128)
    d_rows = hashed(entries, n_decomp, lambda e: (e[0] * 2654435761 & 0xFFFFFFFF) >> 20,
                    lambda e: "{%d, %d, %d}" % e, "{0, 0, 0}")
    c_rows = hashed(sorted((a, b, c) for (a, b), c in pairs.items()), n_comp,
                    lambda e: ((e[0] * 31 + e[1]) * 2654435761 & 0xFFFFFFFF) >> 21,
                    lambda e: "{%d, %d, %d}" % e, "{0, 0, 0}")

    head = f"scripts/gen_unicode.py from tokenizers {PINNED}; do not edit. */\n"
    (OUT / "unicode_tab.h").write_text(
        "/* unicode_tab.h: Unicode facts as tables; read through common/text/uni.h. Written by\n * " + head +
        "#ifndef WEIR_COMMON_TEXT_UNICODE_TAB_H\n#define WEIR_COMMON_TEXT_UNICODE_TAB_H\n\n#include <stdint.h>\n\n"
        "/* Four bits a code point, two code points a byte (the even one low), 128 code points a block. */\n"
        f"extern const uint16_t uni_class_index[{len(class_index)}];\n"
        f"extern const uint8_t uni_class_block[{len(class_flat)}];\n"
        "/* Canonical combining class, 128 code points a block. */\n"
        f"extern const uint16_t uni_ccc_index[{len(ccc_index)}];\n"
        f"extern const uint8_t uni_ccc_block[{len(ccc_flat)}];\n"
        "/* Full canonical decompositions but Hangul: a hash table; cp 0 is an empty slot. */\n"
        f"enum {{ UNI_N_DECOMP = {n_decomp}, UNI_DECOMP_SHIFT = 20, UNI_N_COMP = {n_comp}, UNI_COMP_SHIFT = 21 }};\n"
        f"struct uni_decomp_entry {{\n    uint32_t cp;\n    uint16_t at, n; /* uni_decomp_pool[at .. at + n) */\n}};\n"
        "extern const struct uni_decomp_entry uni_decomp[UNI_N_DECOMP];\n"
        f"extern const uint32_t uni_decomp_pool[{len(pool)}];\n"
        "/* Primary composites: first + second = joined; a hash table; first 0 is an empty slot. */\n"
        "struct uni_comp_entry {\n    uint32_t first, second, joined;\n};\n"
        "extern const struct uni_comp_entry uni_comp[UNI_N_COMP];\n"
        "/* Full compatibility decompositions where they differ from the canonical ones; the same form. */\n"
        f"enum {{ UNI_N_COMPAT = {n_compat}, UNI_COMPAT_SHIFT = 19, UNI_N_LOWER = {n_lower}, UNI_LOWER_SHIFT = 20 }};\n"
        "extern const struct uni_decomp_entry uni_compat[UNI_N_COMPAT];\n"
        "/* Lower case where it differs: one or two characters. */\n"
        "struct uni_lower_entry {\n    uint32_t cp, first, second;\n};\n"
        "extern const struct uni_lower_entry uni_lower[UNI_N_LOWER];\n"
        "/* UNI_IS_* in the low byte, enum uni_grapheme in the high one; 128 code points a block. */\n"
        f"extern const uint16_t uni_props_index[{len(props_index)}];\n"
        f"extern const uint16_t uni_props_block[{len(props_flat)}];\n"
        "enum uni_grapheme {\n" + "".join(f"    UNI_GRAPHEME_{name},\n" for name in GRAPHEME) + "};\n\n#endif\n")
    (OUT / "unicode_tab.c").write_text(
        "/* unicode_tab.c: written by " + head + '#include "common/text/unicode_tab.h"\n\n' +
        "\n".join([array("uint16_t", "uni_class_index", class_index), array("uint8_t", "uni_class_block", class_flat),
                   array("uint16_t", "uni_ccc_index", ccc_index), array("uint8_t", "uni_ccc_block", ccc_flat),
                   array("struct uni_decomp_entry", "uni_decomp", d_rows, 6),
                   array("uint32_t", "uni_decomp_pool", pool, 14),
                   array("struct uni_comp_entry", "uni_comp", c_rows, 5),
                   array("struct uni_decomp_entry", "uni_compat", k_rows, 6),
                   array("struct uni_lower_entry", "uni_lower", l_rows, 5),
                   array("uint16_t", "uni_props_index", props_index),
                   array("uint16_t", "uni_props_block", props_flat)]))
    print(f"letters {len(letter)}, numbers {len(number)}, spaces {len(space)}, word {len(word)}, "
          f"decompositions {len(decomp)}, classes {len(ccc)}, pairs {len(pairs)}, "
          f"compatibility {len(compat)}, lower {len(lower)}, punctuation {len(punct)}, dropped {len(dropped)}, "
          f"accents {len(accent)}, marks {len(mark)}, "
          f"class blocks {len(seen)}, ccc blocks {len(ccc_flat) // 128}, props blocks {len(props_flat) // 128}")


if __name__ == "__main__":
    main()
