#!/usr/bin/env python3
"""Proves that nothing held out occurs in the training text; exit status 1 and the places if something does.

    python3 check_held_out.py [DIALOGUES | FROM TO]       (all that the released model was trained on)

Looked for in every message of every training dialogue, without regard to capitals:
- every held-out phrasing, with anything that could stand in its slots;
- the sum of every held-out pair of numbers, in either order, and its subtraction;
- every held-out name, town and good of the lists, and every made-up word of the measured prompts, as a whole word;
- every held-out pair of noun and adjective in one opinion.
"""

import re
import sys

import tools
import words
from draw import LISTED, is_held
from generate import MEASURED, SEED, dialogue, held_prompt
from phrases import HELD

N_DIALOGUES = 430000
N_PROMPTS = 500
SLOTS = {
    "c": "|".join(re.escape(c[0]) for c in words.COUNTRIES),
    "v": "|".join(words.LOVED + words.HATED),
    "n": r"[\w'-]+",
    "m": r"[\w'-]+",
    "a": r"[\w-]+",
    "b": r"[\w-]+",
    "i": r"[\w-]+",
    "age": r"\d+",
    "quantity": r"\d+",
    "price": r"\d+",
    "hour": r"\d+",
    "minutes": r"\d+",
    "people": r"\d+",
    "name": r"[\w'-]+",
    "city": r"[\w' -]{1,30}?",
    "item": r"[\w-]+",
    "job": r"\w+",
    "event": r"\w+",
    "day": r"\w+",
    "room": r"\w+(?: room)?",
    "kind": r"\w+",
    "word": r"\w+",
    "language": r"\w+",
    "s": r"[^\n]{1,120}?",
    "f": r"[\w, ]{1,60}?",
    "message": r"[^\n]{1,60}?",
}


def pattern(phrase):
    """A regular expression for a phrase with anything in its slots; a slot at either end takes nothing away."""
    parts = re.split(r"\{(\w+)\}", phrase)
    return "".join(re.escape(p) if i % 2 == 0 else f"(?:{SLOTS[p]})" for i, p in enumerate(parts))


def closed_held():
    """Held-out members of the written lists."""
    for kind, values in (
        ("name", words.NAMES),
        ("city", words.TOWNS),
        ("item", words.ITEMS),
        ("word", words.SPELL),
    ):
        for v in values:
            if is_held(kind, v):
                yield kind, v


def main():
    first, end = (int(a) for a in sys.argv[1:3]) if len(sys.argv) == 3 else (0, int([*sys.argv, N_DIALOGUES][1]))
    phrases = [(k, p) for k, ps in HELD.items() for p in ps] + [
        ("tools", p) for t in tools.TOOLS for p in t[4]
    ]
    compiled = [(k, p, re.compile(pattern(p), re.IGNORECASE)) for k, p in phrases]
    # The longest run of letters of a phrase is looked for first: most messages lack it.
    rare = [max(re.split(r"\{\w+\}", p), key=len).lower() for _, p in phrases]
    sums = re.compile(r"(\d+)(?: ?\+ ?| plus | and )(\d+)")
    minus = re.compile(r"(\d+) ?- ?(\d+) = (\d+)")
    added = re.compile(r"(\d+) \+ (\d+)(?: =|:)")
    held_words = {v.lower(): k for k, v in closed_held() if k in ("name", "city", "item")}
    for task, _ in MEASURED:
        for k in range(N_PROMPTS * 2):
            held_words.update(
                {
                    w: "made-up word"
                    for w in held_prompt(SEED, task, k)[1].copied
                    if w not in LISTED and w == w.lower()
                }
            )
    opinion = re.compile(r"[a-z]+")
    nouns, adjectives = set(words.REVIEWED), set(words.GOOD + words.BAD)
    found = []
    for i in range(first, end):
        for m in dialogue(SEED, i)[0]["messages"]:
            text = m["content"]
            low = text.lower()
            for (k, p, r), word in zip(compiled, rare):
                if word in low and r.search(text):
                    found.append((i, f"phrasing of {k}: {p}", text))
            pairs = [
                tuple(map(int, x.groups())) for x in (sums if m["role"] == "user" else added).finditer(text)
            ]
            pairs += [(int(b), int(c)) for _, b, c in minus.findall(text)]
            for a, b in pairs:
                if a + b < 100 and is_held("sum", min(a, b), max(a, b)):
                    found.append((i, f"pair {a}, {b}", text))
            tokens = opinion.findall(low)
            for w in tokens:
                if w in held_words:
                    found.append((i, f"{held_words[w]} {w}", text))
            if m["role"] == "user" and adjectives.intersection(tokens):
                for x, y in re.findall(
                    r"(?:the|this|so|a|an) (\w+) (?:was|is|seemed)(?: not| really| quite| so| very)? (\w+)",
                    low,
                ):
                    if x in nouns and y in adjectives and is_held("sentiment", x, y):
                        found.append((i, f"opinion {x}, {y}", text))
    for i, what, text in found[:40]:
        print(f"dialogue {i}: {what}: {text}")
    print(
        f"{end - first} dialogues, {len(phrases)} held-out phrasings, {len(held_words)} held-out names, towns and"
        f" goods: {len(found)} found"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
