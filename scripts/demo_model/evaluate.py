#!/usr/bin/env python3
"""Scores a model folder on held-out prompts, greedily and in float32.

    python3 evaluate.py FOLDER [--n 500] [--json FILE]

Per task: how many answers are right, how many end by themselves within 64 tokens, how many repeat themselves; then the
misses. An answer is right when it says what was meant and nothing else that could be taken for it:
- capitals: the country's capital, and no other capital of the list;
- sums: the last number is the sum;
- sentiment: the one word of the two that is right;
- json: parses, and equals the object that was asked for;
- tools: one call that parses, of the right tool, with equal arguments.
"""

import argparse
import json
import re

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import words
from generate import MEASURED, SEED, held_set

LIMIT = 64
CAPITALS = [c[1] for c in words.COUNTRIES]
CALL = re.compile(r"\s*<tool_call>(.*)</tool_call>\s*", re.DOTALL)


def value_of(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def is_right(task, meant, said):
    if task == "capitals":

        def named(text):
            return {c for c in CAPITALS if re.search(rf"\b{re.escape(c)}\b", text)}

        return named(said) == named(meant)
    if task == "sums":
        return re.findall(r"\d+", said)[-1:] == re.findall(r"\d+", meant)[-1:]
    if task == "sentiment":
        return re.findall(r"positive|negative", said.lower()) == [meant[:-1].lower()]
    if task == "json":
        return value_of(said) == value_of(meant)
    a, b = CALL.fullmatch(said), CALL.fullmatch(meant)
    return bool(a) and value_of(a[1]) == value_of(b[1])


def loops(ids):
    """Whether the last 12 tokens or more are one piece of at most 8 tokens said three times or more."""
    for n in range(1, 9):
        times = 1
        while len(ids) >= n * (times + 1) and ids[-n * (times + 1) :][:n] == ids[-n:]:
            times += 1
        if times >= 3 and times * n >= 12:
            return True
    return False


def answers(model, tok, prompts, limit=LIMIT, batch=50):
    """(text, tokens, ended) per prompt, in order."""
    ids = [
        tok.apply_chat_template(
            p["messages"], tools=p.get("tools"), add_generation_prompt=True, return_dict=False
        )
        for p in prompts
    ]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    out = [None] * len(ids)
    ends = set(model.generation_config.eos_token_id)
    at = 0
    while at < len(order):  # rows of one length together, so that nothing is padded
        rows = [i for i in order[at : at + batch] if len(ids[i]) == len(ids[order[at]])]
        at += len(rows)
        x = torch.tensor([ids[i] for i in rows])
        with torch.inference_mode():
            y = model.generate(
                input_ids=x,
                attention_mask=torch.ones_like(x),
                max_new_tokens=limit,
                do_sample=False,
                pad_token_id=0,
            )
        for i, row in zip(rows, y[:, x.shape[1] :].tolist()):
            end = next((k for k, t in enumerate(row) if t in ends), None)
            row = row if end is None else row[:end]
            out[i] = (tok.decode(row, skip_special_tokens=False), row, end is not None)
    return out


def load(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--json")
    args = parser.parse_args()
    model, tok = load(args.folder)
    table, misses = {}, []
    for task, _ in MEASURED:
        prompts = held_set(SEED, task, args.n)
        got = answers(model, tok, prompts)
        right = [is_right(task, p["answer"], text) for p, (text, _, _) in zip(prompts, got)]
        table[task] = {
            "prompts": args.n,
            "right": sum(right),
            "ended": sum(e for _, _, e in got),
            "looped": sum(loops(r) for _, r, _ in got),
        }
        print(f"{task}: {table[task]}", flush=True)
        misses += [
            (task, p["messages"][-1]["content"], p["answer"], text)
            for p, (text, _, _), ok in zip(prompts, got, right)
            if not ok
        ]
    for task, user, meant, said in misses:
        print(f"{task} | {user} | meant {meant} | said {said}")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"scores": table, "misses": misses}, f, indent=1)


if __name__ == "__main__":
    main()
