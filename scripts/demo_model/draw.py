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
    def __init__(self, seed, index, held=False, rich=False):
        self.rng = random.Random(f"{'held' if held else 'train'}:{seed}:{index}")
        self.held = held
        self.rich = rich  # of the second round: more.py
        self.copied = set()  # words that can only be copied; make_tokenizer.py cuts them

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
        if self.rich and table in more.PHRASES and self.chance(0.5):
            return self.pick(more.PHRASES[table])
        return self.pick((HELD if self.held else TRAIN)[table])

    def listed(self, share):
        """Whether the next name is one of a list, with the chance that it has in the first round."""
        return self.chance(0.2 if self.rich else share)

    def fitting(self, kind, make):
        """The first value of make() on this draw's side of the split."""
        while True:
            value = make()
            key = value if isinstance(value, tuple) else (value,)
            if is_held(kind, *key) == self.held:
                return value

    def made_up(self):
        """A word that does not exist, of one to three syllables, on this draw's side of the split."""
        while True:
            n = 2 if self.chance(0.7) else 1
            if self.rich and self.chance(0.6):
                text = more.spliced(self)
                if 4 <= len(text) <= 11 and self.fits_made_up(text):
                    return text
                continue
            text = "".join(self.pick(words.STARTS) + self.pick(words.VOWELS) for _ in range(n))
            text += self.pick(words.ENDS) if self.chance(0.8) else ""
            if self.held and (len(text) < 6 or text + "s" in more.MET):
                continue  # a short one may happen to be an English word that the training text uses
            if self.fits_made_up(text):
                self.copied |= {text, text + "s"}
                return text

    def fits_made_up(self, text):
        """Whether a made-up word is on this draw's side, and no word of the lists."""
        return is_held("made up", text) == self.held and not {text, text + "s"} & LISTED

    def name(self):
        name = self.fitting(
            "name", lambda: self.pick(words.NAMES) if self.listed(0.6) else self.made_up().capitalize()
        )
        self.copied.add(name)
        return name

    def city(self):
        def make():
            if self.chance(0.2) and not self.held:
                return self.pick(words.COUNTRIES)[1]
            town = self.pick(words.TOWNS) if self.listed(0.6) else self.made_up().capitalize()
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
            if self.held or self.chance(0.85):
                a, b = self.number(1, 98), self.number(1, 98)
            else:
                a, b = self.number(1, 20), self.number(1, 20)
            if a + b < 100 and is_held("sum", min(a, b), max(a, b)) == self.held:
                return a, b
