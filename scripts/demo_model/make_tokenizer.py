#!/usr/bin/env python3
"""Makes the demo model's tokenizer: byte-level BPE with Llama 3's split pattern, 4,096 entries.

    python3 make_tokenizer.py FOLDER

Its merges are not learned from running text, because a word would then be cut differently after a blank than after a
quote, and copying it would be a fact per word. They come in four parts, each with higher ranks than the one before:
1. pieces of two or three letters, learned from the words that are copied (names, towns, goods, made-up words);
2. common words as a whole, where no copied word is cut otherwise thereby;
3. runs of signs;
4. a blank or an underscore with a common word, where no copied word (or field that is asked for) begins with that word's token.
So a copied word has the same tokens wherever it stands: encode(" " + word) is the blank and encode(word). check() proves it
for every word of the lists, held-out ones included. Digits and letters of other scripts have no merges.
"""

import collections
import json
import os
import re
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

import chat
import more
import tools
import words
from draw import Draw
from generate import FIRST, SEED, dialogue

VOCAB = 4096
N_DIALOGUES = 30000
N_PIECES, PIECE_LETTERS = 1000, 3
N_SIGNS = 60
LEAST = 12  # how often a word stands in the text to be made whole
# Fields that are asked for, and then written between quotes: whole in any case.
KEYS = {"name", "age", "city", "job", "quantity", "item", "day", "price", "event", "hour"}
N_MADE_UP = 40000  # made-up words of both sides of the split that parts 2 and 4 are kept from
RARE = N_MADE_UP // 5000  # so many of those may be cut otherwise by a merge of part 2
# The pattern that tokenizer.json files of Llama 3 carry: contractions, words with one sign in front, up to
# three digits, runs of signs, line ends, blanks.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORD = re.compile(r"[ _]?[A-Za-z]+")
SIGNS = re.compile(r" ?[^\s\w]+")
BLANK = "\u0120"  # how byte-level BPE writes a blank


def letters(texts):
    return sorted({w for text in texts for w in re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", " ", text))})


def open_words():
    """Words of the lists that are cut into pieces: some of each are held out."""
    return letters(words.NAMES + words.TOWNS + words.ITEMS)


def closed_words():
    """Words that are copied as well, of which none is held out."""
    first = [m.split()[0] for m in tools.MESSAGES + more.SAID]
    return letters(sorted(KEYS) + words.SPELL + more.CLOSED + [c[1] for c in words.COUNTRIES] + first)


def made_up_words():
    """Some of both sides, with a capital too."""
    out = []
    for i in range(N_MADE_UP // 2):
        word = Draw("tokenizer", i, held=i % 2 == 0).made_up()
        out += [word, word.capitalize()]
    return sorted(set(out))


def seen():
    """How often words (with a blank or an underscore in front, if there is one) and runs of signs stand in the training text,
    and the words that are copied there."""
    counts, signs, copied = collections.Counter(), collections.Counter(), collections.Counter()
    for i in range(FIRST, FIRST + N_DIALOGUES):
        made, d = dialogue(SEED, i)
        for text, _ in chat.parts(made):
            for mark in chat.SPECIAL + chat.MARKS:
                text = text.replace(mark, "\n")
            counts.update(WORD.findall(text))
            signs.update(s.replace(" ", BLANK) for s in SIGNS.findall(text))
        copied.update(w for w in d.copied if w.isalpha())
    return counts, signs, copied


class Cut:
    """Words as tokens, and what a merge does to them."""

    def __init__(self, counts, merges=()):
        self.counts = counts
        self.tokens = {w: list(w) for w in counts}
        self.where = collections.defaultdict(set)  # pair -> words that may hold it
        self.pairs = collections.Counter()
        for w in counts:
            self.enter(w, 1)
        for pair in merges:
            self.merge(pair)

    def enter(self, word, sign):
        t = self.tokens[word]
        for pair in zip(t, t[1:]):
            self.pairs[pair] += sign * self.counts[word]
            if sign > 0:
                self.where[pair].add(word)

    def merge(self, pair):
        for w in self.where.pop(pair, ()):
            self.enter(w, -1)
            old, new, i = self.tokens[w], [], 0
            while i < len(old):
                both = tuple(old[i : i + 2]) == pair
                new.append(old[i] + old[i + 1] if both else old[i])
                i += 2 if both else 1
            self.tokens[w] = new
            self.enter(w, 1)
        self.pairs.pop(pair, None)


def most_frequent(cut, n, longest):
    """n merges, each of the pair that stands there most often."""
    out = []
    for _ in range(n):
        fit = ((c, p) for p, c in cut.pairs.items() if c > 1 and len(p[0]) + len(p[1]) <= longest)
        best = max(fit, default=None)
        if best is None:
            break
        out.append(best[1])
        cut.merge(best[1])
    return out


def whole(tokens, cost, most):
    """Merges that make a word of its tokens: first the cheapest neighbours, then what stands right and left of them. None if
    that costs too much."""
    at = min(range(len(tokens) - 1), key=lambda i: (cost((tokens[i], tokens[i + 1])), i))
    if cost((tokens[at], tokens[at + 1])) > most:
        return []
    out, now = [(tokens[at], tokens[at + 1])], tokens[at] + tokens[at + 1]
    for t in tokens[at + 2 :]:
        out.append((now, t))
        now += t
    for t in reversed(tokens[:at]):
        out.append((t, now))
        now = t + now
    return out


def merges():
    counts, signs, copied = seen()
    pieces = most_frequent(Cut(copied), N_PIECES, PIECE_LETTERS)
    listed = Cut(dict.fromkeys(open_words() + [w.lower() for w in open_words()], 1), pieces)
    guards = Cut(dict.fromkeys(made_up_words(), 1), pieces)
    bare = collections.Counter()
    for w, n in counts.items():
        bare[w.lstrip(" _")] += n
    text = Cut(bare, pieces)

    def cost(pair):
        return N_MADE_UP if listed.pairs[pair] > 0 else guards.pairs[pair]

    wholes = []
    for w, n in bare.most_common():
        if n < LEAST:
            break
        if len(text.tokens[w]) > 1:
            for pair in whole(text.tokens[w], cost, N_MADE_UP if w in KEYS else RARE):
                wholes.append(pair)
                for cut in (text, listed, guards):
                    cut.merge(pair)
    runs = most_frequent(Cut(signs), N_SIGNS, 8)
    first = {t[0] for cut in (listed, guards) for t in cut.tokens.values()} | set(closed_words())
    glued = []
    for w, _ in counts.most_common():
        if w[0] in " _" and w[1:] not in first and len(text.tokens[w[1:]]) == 1:
            glued.append((BLANK if w[0] == " " else "_", w[1:]))
    used = {a + b for a, b in pieces + wholes + runs}
    n_free = VOCAB - 256 - len(chat.SPECIAL + chat.MARKS) - len(used)
    assert len(glued) >= n_free, (len(glued), n_free)
    print(f"{len(pieces)} pieces, {len(wholes)} merges of words, {len(runs)} of signs, {n_free} of {len(glued)} with a sign")
    return pieces + wholes + runs + glued[:n_free]


def check(tok):
    """A word of the lists has the same tokens at the start of a text, after a blank, a quote and a bracket."""
    for w in open_words() + closed_words() + made_up_words():
        alone = tok.encode(w, add_special_tokens=False).tokens
        for sign, token in ((" ", BLANK), ('"', '"'), ("_", "_"), ("(", "("), (": ", ":|" + BLANK), (' "', BLANK + '"')):
            got = tok.encode(sign + w, add_special_tokens=False).tokens
            assert got == token.split("|") + alone, (sign + w, got, alone)


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def make(folder):
    rules = merges()
    vocab = {t: i for i, t in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for a, b in rules:
        vocab.setdefault(a + b, len(vocab))
    tok = Tokenizer(models.BPE(vocab=vocab, merges=rules))
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(chat.SPECIAL)
    tok.add_tokens(chat.MARKS)
    assert tok.get_vocab_size() == VOCAB, tok.get_vocab_size()
    check(tok)
    bos = tok.token_to_id(chat.BOS)
    tok.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{chat.BOS} $A",
                pair=f"{chat.BOS} $A {chat.BOS}:1 $B:1",
                special_tokens=[(chat.BOS, bos)],
            ),
        ]
    )
    os.makedirs(folder, exist_ok=True)
    tok.save(os.path.join(folder, "tokenizer.json"))
    write_json(
        folder,
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": chat.BOS,
            "eos_token": chat.END,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 2048,
            "model_input_names": ["input_ids", "attention_mask"],
        },
    )
    with open(os.path.join(folder, "chat_template.jinja"), "w") as f:
        f.write(chat.TEMPLATE)


if __name__ == "__main__":
    make(sys.argv[1])
