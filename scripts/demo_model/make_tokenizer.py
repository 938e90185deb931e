#!/usr/bin/env python3
"""Trains the demo model's tokenizer: byte-level BPE with Llama 3's split pattern, 4,096 entries.

    python3 make_tokenizer.py FOLDER

Two things are arranged by the text it learns from. No number of more than one digit occurs in it, so no merge joins
digits and every digit is a token. Names, towns, goods and made-up words stand in it cut after their first letter,
so they stay several pieces, and the pieces are the same after a blank and after a quote: copying them is then
one rule for all instead of a fact per word.
"""

import json
import os
import re
import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import chat
from generate import FIRST, SEED, dialogue

VOCAB = 4096
N_DIALOGUES = 60000
# The pattern that tokenizer.json files of Llama 3 carry: contractions, words with one sign in front, up to
# three digits, runs of signs, line ends, blanks.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORD = re.compile(r"[A-Za-z]+")


def corpus():
    for i in range(FIRST, FIRST + N_DIALOGUES):
        made, d = dialogue(SEED, i)
        cut = {w.lower() for w in d.copied}
        for text, _ in chat.parts(made):
            for mark in chat.SPECIAL + chat.MARKS:
                text = text.replace(mark, "\n")
            text = re.sub(r"\d+", lambda m: m[0][0], text)
            at = 0
            for word in WORD.finditer(text):
                if word[0].lower() in cut and len(word[0]) > 1:
                    yield text[at : word.start() + 1]
                    at = word.start() + 1
            yield text[at:]


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def make(folder):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - len(chat.SPECIAL + chat.MARKS),
        show_progress=False,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tok.train_from_iterator(corpus(), trainer)
    tok.add_special_tokens(chat.SPECIAL)
    tok.add_tokens(chat.MARKS)
    assert tok.get_vocab_size() == VOCAB, tok.get_vocab_size()
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
