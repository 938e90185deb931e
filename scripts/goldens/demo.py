#!/usr/bin/env python3
"""Makes tests/golden/demo: what transformers says with deploy/demo-model, greedily, in float32.

    python3 scripts/goldens/demo.py         (torch and transformers as in scripts/demo_model/requirements.txt)

greedy.json holds 50 conversations: ten held-out prompts of each measured task. Per conversation the messages, the
tools, the tokens of the prompt as the chat template makes them, the tokens of the answer with the one that ends it,
and its text. Left out are prompts where the best token leads the second by less than MARGIN: sums in another order
may turn those.
"""

import json
import os
import sys

import torch

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "scripts", "demo_model"))

from evaluate import LIMIT, load  # noqa: E402
from generate import MEASURED, SEED, held_set  # noqa: E402

OUT = os.path.join(ROOT, "tests", "golden", "demo")
PER_TASK = 10
MARGIN = 1e-3


def greedy(model, ids):
    """Tokens until one that ends the text, and the smallest lead of a best logit."""
    lead, out, ends = float("inf"), [], set(model.generation_config.eos_token_id)
    with torch.inference_mode():
        while len(out) < LIMIT and not (out and out[-1] in ends):
            best = model(torch.tensor([ids + out])).logits[0, -1].topk(2)
            lead = min(lead, float(best.values[0] - best.values[1]))
            out.append(int(best.indices[0]))
    return out, lead


def main():
    model, tok = load(os.path.join(ROOT, "deploy", "demo-model"))
    ends = set(model.generation_config.eos_token_id)
    made = []
    for task, _ in MEASURED:
        kept = 0
        for p in held_set(SEED, task, 4 * PER_TASK):
            ids = tok.apply_chat_template(
                p["messages"], tools=p.get("tools"), add_generation_prompt=True, return_dict=False
            )
            out, lead = greedy(model, ids)
            if lead < MARGIN:
                continue
            text = tok.decode([t for t in out if t not in ends], skip_special_tokens=False)
            made.append(
                {
                    "task": task,
                    "messages": p["messages"],
                    "tools": p.get("tools"),
                    "prompt_ids": ids,
                    "output_ids": out,
                    "text": text,
                }
            )
            kept += 1
            if kept == PER_TASK:
                break
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, "greedy.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(m) for m in made) + "\n]\n")
    print(f"{len(made)} conversations")


if __name__ == "__main__":
    main()
