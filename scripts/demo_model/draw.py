"""Seeded choices. A Draw is either for training or for measurement, and never gives one what belongs to the other."""

import functools
import hashlib
import random

import more
import words
from phrases import HELD, TRAIN


@functools.lru_cache(maxsize=1 << 16)
def is_held(kind, *key):
    """True for a tenth of all keys of a kind: those that training never sees."""
    text = "|".join([kind, *map(str, key)])
    return hashlib.sha256(text.encode()).digest()[0] < 26


LISTED = {w.lower() for w in words.NAMES + words.TOWNS + words.ITEMS + words.SPELL}


class Draw:
    def __init__(self, seed, index, held=False, later=False, last=False):
        self.rng = random.Random(f"{'held' if held else 'train'}:{seed}:{index}")
        self.held = held
        self.later = later  # of the later part of the text: generate.py
        self.last = last  # of its second round
        self.copied = set()  # words that can only be copied; make_tokenizer.py cuts them into pieces

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, values):
        return values[int(self.rng.random() * len(values))]

    def say(self, text):
        """One of the variants in a text separated by bars."""
        return self.pick(text.split("|"))

    def ask(self, variants, **slots):
        """One of the variants with its slots filled."""
        return self.pick(variants).format(**slots)

    def some(self, values, n):
        return self.rng.sample(values, n)

    def number(self, low, high):
        return low + int(self.rng.random() * (high - low + 1))

    def phrase(self, table):
        if not self.held and table in more.PHRASES and self.chance(0.5):
            return self.pick(more.PHRASES[table])
        return self.pick((HELD if self.held else TRAIN)[table])

    def listed(self, share):
        """Whether the next name is one of a list: seldom in training, so that words are read and not guessed."""
        return self.chance(share if self.held else 0.3)

    def fitting(self, kind, make):
        """The first value of make() on this draw's side of the split."""
        while True:
            value = make()
            key = value if isinstance(value, tuple) else (value,)
            if is_held(kind, *key) == self.held:
                return value

    def made_up(self, capital=False):
        """A word that does not exist, on this draw's side of the split: one to three syllables, or, in training, parts of two
        words of the lists. capital: it will have one."""
        while True:
            if not self.held and self.chance(0.8 if self.last else 0.5):
                text = more.spliced(self)
                # A small vowel in front would keep the tokenizer from joining " a" and " is".
                fits = 4 <= len(text) <= 11 and (text[0] not in "aeiou" or (capital and self.last))
                # A held-out one may stand in the plural.
                fits = fits and (text[-1] != "s" or self.fits_made_up(text[:-1]))
            else:
                n = 2 if self.chance(0.7) else 1
                text = "".join(self.pick(words.STARTS) + self.pick(words.VOWELS) for _ in range(n))
                text += self.pick(words.ENDS) if self.chance(0.8) else ""
                fits = not self.held or len(text) > 5  # a short one may happen to be an English word
            if fits and self.fits_made_up(text):
                self.copied |= {text, text + "s"}
                return text

    def fits_made_up(self, text):
        """Whether a made-up word is on this draw's side, and no word of the lists."""
        return is_held("made up", text) == self.held and not {text, text + "s"} & LISTED

    def name(self):
        name = self.fitting(
            "name", lambda: self.pick(words.NAMES) if self.listed(0.6) else self.made_up(True).capitalize()
        )
        self.copied.add(name)
        return name

    def city(self):
        def make():
            if self.chance(0.2) and not self.held:
                return self.pick(words.COUNTRIES)[1]
            town = self.pick(words.TOWNS) if self.listed(0.6) else self.made_up(True).capitalize()
            self.copied.add(town)
            return town

        return self.fitting("city", make)

    def item(self):
        item = self.fitting(
            "item", lambda: self.pick(words.ITEMS) if self.listed(0.7) else self.made_up() + "s"
        )
        self.copied.add(item)
        return item

    def amount(self, kind, low, high):
        return self.fitting(kind, lambda: self.number(low, high))

    def sum_pair(self):
        """Two numbers with a sum under 100. The two orders of a pair are on the same side of the split."""
        while True:
            kind = 0 if self.held else self.number(0, 7)
            if kind < 6:
                a, b = self.number(1, 98), self.number(1, 98)
            elif kind == 6:
                a, b = self.number(1, 20), self.number(1, 20)
            else:  # one digit, which is easily taken for two
                a, b = self.number(1, 9), self.number(1, 98)
                if self.chance(0.5):
                    a, b = b, a
            if a + b < 100 and is_held("sum", min(a, b), max(a, b)) == self.held:
                return a, b
