#!/usr/bin/env python3
"""tok_diff.py: compares common/text with Hugging Face tokenizers on strings made at random.

For each committed family (tests/golden/tok): ids with and without special tokens, decodings of the ids and of
the ids in reverse order, and pairs. Kind "parts": tokenizers put together from normalisers and pre-tokenisers at
random, over a vocabulary that shows every byte.

Usage: python3 scripts/goldens/tok_diff.py [--count N] [--seconds S] [--seed K] [FAMILY | parts]...
  --count    strings per kind (200000), or until --seconds are over, whichever comes first
Ends with a line per kind; status 1 if any string differs. Needs tokenizers==0.23.3, sentencepiece==0.2.3 and cc.
"""
import argparse
import json
import random
import sys
import time

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import tok
import tok_lib

LONG = 300


def text_at_random(rng):
    parts = [rng.choice(MAKERS)(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    text = "".join(parts)
    if rng.random() < 0.02:
        text = text * rng.randint(2, 40)
    if rng.random() < 0.1:
        text = rng.choice(tok.SPACES) + text + rng.choice(tok.SPACES)
    return text


def show(kind, what, text, want, got):
    print(f"{kind}: {what} of {ascii(text)[:LONG]}\n  Hugging Face {ascii(want)[:LONG]}\n  Weir         {ascii(got)[:LONG]}")


def compare(kind, theirs, ours, text, before, i):
    """The number of differences."""
    n = 0
    want = theirs.encode(text, add_special_tokens=bool(i % 2)).ids
    got = ours.encode(text, bool(i % 2))
    if want != got:
        show(kind, "ids", text, want, got)
        n += 1
    for ids in (want, want[::-1]):
        shown, mine = theirs.decode(ids, skip_special_tokens=i % 4 == 1), ours.decode(ids, i % 4 == 1)
        if shown != mine:
            show(kind, f"decoding of {ids[:20]}", text, shown, mine)
            n += 1
    if i % 8 == 0:
        pair = theirs.encode(before, text)
        if (pair.ids, pair.type_ids) != ours.encode_pair(before, text):
            show(kind, "pair", text, pair.ids, ours.encode_pair(before, text)[0])
            n += 1
    return n


def family(name, args):
    path = tok.OUT / name / "tokenizer.json"
    theirs, ours = Tokenizer.from_file(str(path)), tok_lib.Tok(tokenizer_json=path.read_bytes())
    rng, before, n_bad, i = random.Random(f"{name} {args.seed}"), "", 0, 0
    end = time.monotonic() + args.seconds
    while i < args.count and time.monotonic() < end and n_bad < 20:
        text = text_at_random(rng)
        n_bad += compare(name, theirs, ours, text, before, i)
        before = text[:LONG]
        i += 1
    return i, n_bad


# ---- parts ----

NORMALIZERS = [
    normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD, normalizers.Lowercase, normalizers.StripAccents, normalizers.Nmt,
    lambda: normalizers.Strip(left=True, right=False), lambda: normalizers.Strip(left=False, right=True), normalizers.Strip,
    lambda: normalizers.Prepend("\u2581"), lambda: normalizers.Replace(" ", "\u2581"), lambda: normalizers.Replace(Regex(" {2,}"), " "),
    lambda: normalizers.Replace(Regex("\\s+"), " "), lambda: normalizers.Replace(Regex("(?<=e)r|x+(?=a)"), "<>"), lambda: normalizers.Replace("th", ""), lambda: normalizers.Replace("e", "\u00e9e"),
    normalizers.BertNormalizer, lambda: normalizers.BertNormalizer(lowercase=False), normalizers.ByteLevel,
    lambda: normalizers.BertNormalizer(clean_text=False, strip_accents=True), lambda: normalizers.BertNormalizer(handle_chinese_chars=False),
]
# Patterns of published models, and some that try one thing each.
PATTERNS = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{M}&&[^\p{Han}]]+|\p{N}{1,3}|\s+(?!\S)|\s+",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", r" ?[^(\s|[.,!?])]+", r"[0-9][0-9][0-9]", r"\w+|[^\w\s]+", r"(?<=\p{Ll})(?=\p{Lu})",
    r"\d{1,3}(?=(?:\d{3})*\b)", r".*?\n", r"(?<!\d)\d+(?!\d)", r"(?i:the|[a-f]+\b)", r"x*", r"\b", r"[[:punct:]]|[[:^alpha:]]+?$", r"(?>\p{M}|\p{S}+)\s?",
]
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]


def pre_tokenizer(rng):
    behavior, flag = rng.choice(BEHAVIORS), rng.random() < 0.5
    return rng.choice([
        lambda: pre_tokenizers.Whitespace(), lambda: pre_tokenizers.WhitespaceSplit(), lambda: pre_tokenizers.BertPreTokenizer(),
        lambda: pre_tokenizers.Punctuation(behavior), lambda: pre_tokenizers.Digits(flag),
        lambda: pre_tokenizers.CharDelimiterSplit(rng.choice("ea \u00e9")), lambda: pre_tokenizers.FixedLength(rng.randint(1, 7)),
        lambda: pre_tokenizers.Split(rng.choice([" ", "e", "th", "\u2581", "\u00e9", "  "]), behavior, flag),
        lambda: pre_tokenizers.Metaspace(prepend_scheme=rng.choice(["always", "first", "never"]), split=flag),
        lambda: pre_tokenizers.Split(Regex(rng.choice([tok.GPT2, tok.LLAMA3, tok.QWEN2])), "isolated", flag),
        lambda: pre_tokenizers.Split(Regex(rng.choice(PATTERNS)), behavior, flag), lambda: pre_tokenizers.Split(Regex(rng.choice(PATTERNS)), behavior, flag),
        lambda: pre_tokenizers.UnicodeScripts(), lambda: pre_tokenizers.ByteLevel(add_prefix_space=flag, use_regex=rng.random() < 0.5),
    ])()


def parts(args):
    vocab = {f"<0x{b:02X}>": b for b in range(256)}
    vocab |= {"the": 256, "t": 257, "h": 258, "e": 259, "th": 260, "he": 261, "\u2581": 262, "\u2581\u2581": 263}
    merges = [("t", "h"), ("th", "e"), ("h", "e"), ("\u2581", "\u2581")]
    rng, n_bad, i = random.Random(f"parts {args.seed}"), 0, 0
    end = time.monotonic() + args.seconds
    while i < args.count and time.monotonic() < end and n_bad < 20:
        theirs = Tokenizer(models.BPE(vocab, merges, byte_fallback=True))
        theirs.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
        theirs.normalizer = normalizers.Sequence([rng.choice(NORMALIZERS)() for _ in range(rng.randint(0, 3))])
        theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizer(rng) for _ in range(rng.randint(0, 3))])
        theirs.add_tokens([tok.AddedToken("The e", normalized=True), tok.AddedToken("[x]", single_word=True, rstrip=True, normalized=False)])
        state = theirs.to_str()
        ours, before = tok_lib.Tok(tokenizer_json=state.encode()), ""
        for _ in range(50):
            text = text_at_random(rng)
            bad = compare("parts", theirs, ours, text, before, i)
            if bad:
                print(" ", json.dumps({k: json.loads(state)[k] for k in ("normalizer", "pre_tokenizer")}))
            n_bad, before, i = n_bad + bad, text[:LONG], i + 1
    return i, n_bad


MAKERS = tok.all_makers()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--count", type=int, default=200000)
    args.add_argument("--seconds", type=float, default=float("inf"))
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("kinds", nargs="*")
    args = args.parse_args()
    failed = False
    for kind in args.kinds or [p.parent.name for p in sorted(tok.OUT.glob("*/tokenizer.json"))] + ["parts"]:
        n, n_bad = parts(args) if kind == "parts" else family(kind, args)
        print(f"{kind}: {n} strings, {n_bad} differences", flush=True)
        failed |= n_bad > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
