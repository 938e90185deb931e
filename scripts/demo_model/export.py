#!/usr/bin/env python3
"""Makes the model folder from a training run: bf16 safetensors in shards, configs, tokenizer, licence, loss.svg.

    python3 export.py WORK [FOLDER]         (deploy/demo-model)

README.md, the model card, is made by card.py.
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

import chat

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SHARD_BYTES = 15_000_000


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def write_weights(folder, tensors):
    shards, size = [{}], 0
    for name, t in tensors.items():
        n_bytes = t.numel() * 2
        if shards[-1] and size + n_bytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = t.detach().to(torch.bfloat16).contiguous()
        size += n_bytes
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
        write_json(
            folder,
            "model.safetensors.index.json",
            {
                "metadata": {"total_size": sum(t.numel() * 2 for t in tensors.values())},
                "weight_map": {k: n for n, s in zip(names, shards) for k in s},
            },
        )
    for name, shard in zip(names, shards):
        path = os.path.join(folder, name)
        save_file(shard, path, metadata={"format": "pt"})
        os.chmod(path, 0o644)


def loss_svg(log):
    """The loss over the tokens seen, logarithmic upwards."""
    import math

    width, height, left, bottom = 720, 320, 56, 36
    points = [(tokens / 1e6, loss) for _, tokens, loss in log["loss"]]
    x_max = points[-1][0]
    low, high = math.log10(min(p[1] for p in points) * 0.9), math.log10(max(p[1] for p in points) * 1.1)

    def x(v):
        return left + v / x_max * (width - left - 12)

    def y(v):
        return 12 + (high - math.log10(v)) / (high - low) * (height - bottom - 12)

    out = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            ' font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for v in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5):
        if low <= math.log10(v) <= high:
            out.append(
                f'<path d="M{left} {y(v):.1f}H{width - 12}" stroke="#ddd"/><text x="{left - 8}"'
                f' y="{y(v) + 4:.1f}" text-anchor="end">{v}</text>'
            )
    step = max(1, round(x_max / 6))
    for v in range(0, int(x_max) + 1, step):
        out.append(f'<text x="{x(v):.1f}" y="{height - 18}" text-anchor="middle">{v}</text>')
    out.append(
        f'<text x="{width - 12}" y="{height - 4}" text-anchor="end">million tokens; loss in nats per learned'
        " token</text>"
    )
    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    out.append(f'<polyline points="{line}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/></svg>')
    return "\n".join(out) + "\n"


def main():
    work = sys.argv[1]
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "deploy", "demo-model")
    os.makedirs(folder, exist_ok=True)
    c = torch.load(os.path.join(work, "checkpoint.pt"), map_location="cpu", weights_only=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(work, name), os.path.join(folder, name))
    with open(os.path.join(folder, "chat_template.jinja"), "w") as f:
        f.write(chat.TEMPLATE)
    tok = Tokenizer.from_file(os.path.join(work, "tokenizer.json"))
    ids = {
        "bos_token_id": tok.token_to_id(chat.BOS),
        "eos_token_id": [tok.token_to_id(chat.END), tok.token_to_id(chat.EOT)],
    }
    write_json(folder, "config.json", c["config"] | ids)
    write_json(folder, "generation_config.json", {**ids, "do_sample": False, "temperature": 0.0, "max_new_tokens": 256})
    write_weights(folder, c["p"])
    shutil.copy(os.path.join(ROOT, "LICENSE"), os.path.join(folder, "LICENSE"))
    if c["log"]:
        with open(os.path.join(folder, "loss.svg"), "w") as f:
            f.write(loss_svg({"loss": c["log"]}))
    total = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    print(f"{folder}: step {c['step']}, {c['tokens']} tokens, {c['seconds']:.0f} s, {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
