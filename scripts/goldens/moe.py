#!/usr/bin/env python3
"""Makes tests/golden/moe: what Hugging Face transformers computes with mixtures of experts.

    python3 scripts/goldens/moe.py        (torch and transformers as pinned for the goldens)

No weights are stored. They are those of --load-format dummy, which depend on a tensor's name and shape alone
(worker/model/convert.c): made here and put into transformers' model. Each file has the config, and per prompt
greedy tokens, the five best log-probabilities at some positions, and every 96th logit there.
"""
import json
import math
import os

import numpy as np
import torch
import transformers

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "moe")
N_GREEDY, STRIDE = 32, 96
PROMPT_LENGTHS = [1, 9, 70]
MARGIN_MIN, DISTINCT_MIN = 1e-3, 8
MASK = (1 << 64) - 1

# The vocabulary is deploy/tiny-model's, so that its tokenizer serves them.
COMMON = dict(vocab_size=1536, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3,
              max_position_embeddings=256, bos_token_id=1528, eos_token_id=1533, pad_token_id=None,
              tie_word_embeddings=False)
MODELS = {
    "mixtral": dict(COMMON, cls="Mixtral", intermediate_size=72, num_local_experts=4, num_experts_per_tok=2),
    # One layer with an MLP; weights of the chosen experts add up to 1.
    "qwen3_moe": dict(COMMON, cls="Qwen3Moe", head_dim=32, intermediate_size=96, moe_intermediate_size=40, num_experts=6,
                      num_experts_per_tok=3, norm_topk_prob=True, mlp_only_layers=[1], use_sliding_window=False),
    # Every second layer has experts; weights are left as the softmax gives them; a window on all layers.
    "qwen3_moe_step": dict(COMMON, cls="Qwen3Moe", head_dim=16, intermediate_size=96, moe_intermediate_size=56,
                           num_experts=5, num_experts_per_tok=2, norm_topk_prob=False, decoder_sparse_step=2,
                           use_sliding_window=True, sliding_window=40),
}


def fold(a, b):
    m = a * b
    return (m & MASK) ^ (m >> 64)


def hash_fast(data, seed):
    """common/hash.c"""
    k0, k1 = 0x9e3779b97f4a7c15, 0xe7037ed1a0b428db
    h, n = seed ^ fold(len(data) ^ k0, k1), len(data)
    while n >= 8:
        h = fold(h ^ int.from_bytes(data[:8], "little") ^ k0, k1)
        data, n = data[8:], n - 8
    return fold(h ^ int.from_bytes(data, "little") ^ k1, k0 ^ n)


def dummy(name, shape):
    """weights.c, make_tensor: f32, uniform, variance 1 / n_in."""
    n = math.prod(shape)
    seed = np.uint64(hash_fast(name.encode(), 1))
    with np.errstate(over="ignore"):
        x = seed + (np.arange((n + 3) // 4, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        x = x ^ x >> np.uint64(31)
    picks = (x[:, None] >> (np.arange(4, dtype=np.uint64) * np.uint64(16)) & np.uint64(0xFFFF)).reshape(-1)[:n]
    limit = np.sqrt(np.float32(3) / np.float32(shape[-1]), dtype=np.float32)
    values = limit * ((picks.astype(np.float32) + np.float32(0.5)) / np.float32(32768) - np.float32(1))
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def fill(model, config):
    """Names are those of published checkpoints, which hold each expert's matrices apart."""
    mixtral = config.model_type == "mixtral"
    block, (gate, up, down) = ("block_sparse_moe", ("w1", "w3", "w2")) if mixtral else (
        "mlp", ("gate_proj", "up_proj", "down_proj"))
    with torch.no_grad():
        for name, p in model.named_parameters():
            before, _, after = name.partition(".mlp.")
            if name.endswith("norm.weight"):
                p.fill_(1)
            elif after == "gate.weight":
                p.copy_(dummy(f"{before}.{block}.gate.weight", tuple(p.shape)))
            elif after == "experts.gate_up_proj":
                half = (p.shape[1] // 2, p.shape[2])
                for e in range(p.shape[0]):
                    p[e].copy_(torch.cat([dummy(f"{before}.{block}.experts.{e}.{part}.weight", half)
                                          for part in (gate, up)]))
            elif after == "experts.down_proj":
                for e in range(p.shape[0]):
                    p[e].copy_(dummy(f"{before}.{block}.experts.{e}.{down}.weight", tuple(p.shape[1:])))
            else:
                p.copy_(dummy(name, tuple(p.shape)))


@torch.no_grad()
def logits_of(model, tokens):
    return model(torch.tensor([tokens])).logits[0].float()


def make_prompt(model, tokens):
    text, lead = list(tokens), math.inf
    for _ in range(N_GREEDY):
        best = torch.topk(logits_of(model, text)[-1], 2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        text.append(int(best.indices[0]))
    out = text[len(tokens):]
    at = sorted({0, len(tokens) - 1, len(text) - 2})
    kept = logits_of(model, text)[at]
    top = torch.topk(torch.log_softmax(kept, -1), 5)
    distinct = len(set(out))
    return lead, distinct, {
        "tokens": tokens, "greedy": out, "at": at, "top_ids": top.indices.tolist(),
        "top_logprobs": [[round(v, 6) for v in row] for row in top.values.tolist()],
        "logits": [[round(v, 5) for v in row[::STRIDE].tolist()] for row in kept]}


def make_model(name):
    spec = {k: v for k, v in MODELS[name].items() if k != "cls"}
    config = getattr(transformers, MODELS[name]["cls"] + "Config")(
        **spec, rope_parameters=dict(rope_type="default", rope_theta=10000.0))
    config.architectures = [MODELS[name]["cls"] + "ForCausalLM"]
    config._attn_implementation = "eager"
    model = getattr(transformers, config.architectures[0])(config).float().eval()
    fill(model, config)
    prompts = []
    for n in PROMPT_LENGTHS:
        for seed in range(1000):
            rng = np.random.default_rng([seed, n])
            lead, distinct, prompt = make_prompt(model, [int(t) for t in rng.integers(0, 1528, n)])
            if lead >= MARGIN_MIN and distinct >= DISTINCT_MIN:
                break
        else:
            raise SystemExit(f"{name}: no prompt of {n} gives a text with clear choices")
        prompts.append(prompt)
        print(f"{name}, prompt of {n}: seed {seed}, lead {lead:.2g}, {distinct} distinct")
    # As a checkpoint's config.json has it: rope_theta beside the sizes, no torch, no defaults of the day.
    kept = dict(spec, architectures=config.architectures, model_type=config.model_type, rope_theta=10000.0,
                torch_dtype="float32")
    head = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "stride": STRIDE}
    with open(os.path.join(OUT, name + ".json"), "w") as f:
        json.dump(dict(head, config=kept, prompts=prompts), f)
        f.write("\n")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    os.makedirs(OUT, exist_ok=True)
    for name in MODELS:
        make_model(name)


if __name__ == "__main__":
    main()
