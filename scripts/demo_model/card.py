#!/usr/bin/env python3
"""Writes the model card from what a training run and its measurement left in WORK.

    python3 card.py WORK [FOLDER]         (deploy/demo-model)

Read are checkpoint.pt, scores.json (evaluate.py --json), conversation.md (converse.py) and proof.txt (check_held_out.py).
"""

import json
import os
import sys

import torch

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CARD = """\
# weir-demo

A chat model of {millions:.1f} million parameters that ships with Weir, so that `make run` answers in sentences without a
network. It speaks simple English about a small world: greetings, capitals and continents, colours, days and months, sums
with two-digit numbers, comparing, sorting, counting, spelling, opposites, the mood of a sentence, questions about a short
passage, JSON from a sentence, tool calls, stories of four sentences. It says so when it does not know. It is not a source
of knowledge and not a measure of anything but the server around it.

Llama architecture: {layers} layers of {hidden}, {heads} query and {kv_heads} key heads of {head_dim}, SwiGLU of {mlp}, tied embedding,
byte-level BPE of {vocab} entries with Llama 3's split pattern, one token per digit, context 2,048, bfloat16. Tool calls are
`<tool_call>{{"name": ..., "arguments": {{...}}}}</tool_call>`, the form called hermes. {trained}

## Data

{dialogues:,} dialogues, {tokens:.1f} million tokens, made by `scripts/demo_model/generate.py` from word lists and phrasings
written for it; nothing was copied from anywhere, and nothing personal is in it. The same seed makes the same bytes. Only
what the assistant says is learned. Sums are learned in steps: units, tens, result. Names, towns, goods and made-up words are
cut into pieces of up to three letters, the same ones wherever a word stands, so that copying one is copying its tokens.

Held out per measured task are whole phrasings, and a tenth of all number pairs, names, towns, goods, made-up words, and
pairs of noun and adjective. Of small closed sets (days, rooms, languages, jobs, hours) nothing is held out, and every
capital is learned in other phrasings than the measured ones: a fact that was never said cannot be known. Proof:
`check_held_out.py` over all training dialogues says "{proof}"

## Scores

500 held-out prompts per task, greedy, float32, by `scripts/demo_model/evaluate.py`. A task counts as right as the head of
that file says.

{table}

Misses:

{misses}

## The loss

![loss](loss.svg)

## A conversation

One conversation of 20 turns, greedy, unedited, held by `scripts/demo_model/converse.py` with `make run`.

{conversation}

## Limits

It knows what the lists in `scripts/demo_model` hold and little else, it takes unusual phrasings for usual ones, its
sums end at 99, and long conversations confuse it. It compares and sorts badly (the conversation above shows it). JSON has the
fields that were asked for in an order of its own, and a rare word may come out with one of its pieces wrong. It must not be
used to decide anything.

The last 100,000 dialogues were written after a look at what a model of the first 330,000 had got wrong on these prompts. None of
the prompts, phrasings and held-out names is in them, but their kinds of mistakes are, so the scores are somewhat tuned to them.

## Rebuild

    scripts/demo_model/make.sh build/demo

Data and vocabulary come out byte for byte the same, weights within training noise. Licence: Apache-2.0, as Weir.
"""
NAMES = {"capitals": "capitals", "sums": "sums under 100", "sentiment": "sentiment", "json": "JSON extraction", "tools": "tool choice"}


def read(work, name):
    with open(os.path.join(work, name)) as f:
        return f.read()


def code(text):
    return "`" + text.replace("`", "'").replace("|", "\\|").replace("\n", " ") + "`"


def main():
    work = sys.argv[1]
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "deploy", "demo-model")
    c = torch.load(os.path.join(work, "checkpoint.pt"), map_location="cpu", weights_only=False)
    measured, config = json.loads(read(work, "scores.json")), c["config"]
    rows = ["| task | right | ended within 64 tokens | looped |", "|---|---|---|---|"]
    for task, s in measured["scores"].items():
        n = s["prompts"]
        rows.append(f"| {NAMES[task]} | {s['right'] / n:.1%} | {s['ended'] / n:.1%} | {s['looped']} |")
    misses = [f"- {NAMES[t]}: {code(u)} meant {code(m)} said {code(s)}" for t, u, m, s in measured["misses"]]
    where = "a GPU" if c["device"] == "cuda" else "CPU cores, because no GPU was at hand, and therefore smaller than it could be"
    card = CARD.format(
        millions=sum(v.numel() for v in c["p"].values()) / 1e6, layers=config["num_hidden_layers"],
        hidden=config["hidden_size"], heads=config["num_attention_heads"], kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"], mlp=config["intermediate_size"], vocab=f"{config['vocab_size']:,}",
        trained=f"Trained in {c['seconds'] / 60:.0f} minutes on {where}.", dialogues=c["dialogues"],
        tokens=c["tokens"] / 1e6, proof=read(work, "proof.txt").strip().split("\n")[-1], table="\n".join(rows),
        misses="\n".join(misses) or "none.", conversation=read(work, "conversation.md").strip(),
    )
    with open(os.path.join(folder, "README.md"), "w") as f:
        f.write(card)


if __name__ == "__main__":
    main()
