#!/usr/bin/env python3
"""Counts the held-out answers with a token that training hardly taught to say; exit status 1 if they are more than 1 %.

    python3 check_tokens.py WORK        (the run's checkpoint.pt, tokenizer.json and encoded text)

What is held out is cut into pieces (make_tokenizer.py), and a piece must be known from other words: the embedding of a token
that was never learned is noise.
"""

import os
import sys

import numpy as np
import torch
from tokenizers import Tokenizer

from generate import MEASURED, ROUND, SEED, held_set
from train import encode

LEAST = 20  # times that a token is learned
N_PROMPTS = 500


def main():
    work = sys.argv[1]
    tok = Tokenizer.from_file(os.path.join(work, "tokenizer.json"))
    checkpoint = torch.load(os.path.join(work, "checkpoint.pt"), map_location="cpu", weights_only=False)
    counts = np.zeros(tok.get_vocab_size(), np.int64)
    for first, end in ((0, ROUND), (ROUND, checkpoint["dialogues"])):
        ids, learned, _ = encode(work, first, end)
        counts += np.bincount(ids[learned], minlength=len(counts))
    n_rare = n = 0
    for task, _ in MEASURED:
        for p in held_set(SEED, task, N_PROMPTS):
            answer = tok.encode(p["answer"], add_special_tokens=False)
            rare = [t for t, i in zip(answer.tokens, answer.ids) if counts[i] < LEAST]
            n, n_rare = n + 1, n_rare + bool(rare)
            if rare:
                print(f"{task}: {p['answer']}: {rare}")
    print(f"{n} held-out answers, {n_rare} with a token that was learned fewer than {LEAST} times")
    return 1 if n_rare > n // 100 else 0


if __name__ == "__main__":
    sys.exit(main())
