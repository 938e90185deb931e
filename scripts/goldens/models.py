#!/usr/bin/env python3
"""Makes tests/golden/models: tiny random models, and what Hugging Face transformers computes with them.

    python3 scripts/goldens/models.py [NAME ...]        (torch and transformers as pinned for the goldens)

Each folder is a model as a user would have it (config.json, generation_config.json, safetensors) plus
  golden.json      prompts; per prompt 64 greedy tokens, the positions of the logits kept, and the five best
                   log-probabilities at each
  logits.f32       those logits, little-endian f32, row after row, prompts in order
and, for f16 and bf16 models, whose golden.json and logits.f32 come from the same weights widened to f32,
  logits.cache     as logits.f32, with K and V rounded to the model's type: what a cache in that type holds
  logits.native    computed by transformers in the model's type throughout
rope.json holds configs and the rotary frequencies that transformers computes for them.
"""
import contextlib
import json
import math
import os
import shutil
import sys

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "models")
N_GREEDY = 64
# Length 12: logits of all positions. 100: several blocks of 16, more than any window here.
PROMPT_LENGTHS = [1, 7, 12, 33, 100]
# Greedy choices must not hang on the last bits of a sum.
MARGIN_MIN = 2e-3
DISTINCT_MIN = 12
# The smallest models are duller: logits and greedy tokens prove the graph all the same.
SMALL_MARGIN_MIN, SMALL_DISTINCT_MIN = 5e-4, 3


COMMON = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
              intermediate_size=128, max_position_embeddings=256, bos_token_id=1, pad_token_id=None)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64)

SMALL = dict(vocab_size=160, eos_token_id=2, hidden_size=32, intermediate_size=48)

MODELS = {
    # Llama 3's shape: grouped queries, scaled rope, several ids that end a text.
    "llama": dict(cls="Llama", vocab_size=384, rope_parameters=LLAMA3, eos_token_id=[2, 5, 9],
                  rms_norm_eps=1e-5),
    # Two shards, YaRN, every bias that Llama's config knows, sizes that are no multiple of a vector.
    "llama-yarn": dict(cls="Llama", vocab_size=370, rope_parameters=YARN, eos_token_id=2, attention_bias=True,
                       mlp_bias=True, intermediate_size=120, shards=2),
    # Biases of q, k, v, and the embedding as the head.
    "qwen2": dict(cls="Qwen2", vocab_size=384, eos_token_id=2, tie_word_embeddings=True, rope_theta=1e6),
    # Norms of q and k, heads wider than hidden / heads, a full layer below two with a window: two groups.
    "qwen3": dict(cls="Qwen3", vocab_size=390, eos_token_id=2, head_dim=32, num_hidden_layers=3,
                  intermediate_size=96, rope_theta=1e6, tie_word_embeddings=True, use_sliding_window=True,
                  sliding_window=40, max_window_layers=1, hidden_size=40),
    # A window on every layer, shorter than the texts.
    "mistral": dict(cls="Mistral", vocab_size=200, eos_token_id=2, sliding_window=24, hidden_size=48),
    # Norms around attention and MLP, capped scores and logits, every second layer with a window.
    "gemma2": dict(SMALL, cls="Gemma2", head_dim=16, sliding_window=24, query_pre_attn_scalar=20, num_hidden_layers=2,
                   attn_logit_softcapping=4.0, final_logit_softcapping=12.0, tie_word_embeddings=True),
    # A rope for each kind of layer, the full one stretched; norms of q and k.
    "gemma3": dict(SMALL, cls="Gemma3", head_dim=16, sliding_window=24, query_pre_attn_scalar=20, num_hidden_layers=3,
                   layer_types=["sliding_attention", "sliding_attention", "full_attention"], tie_word_embeddings=True,
                   rope_parameters=dict(full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0),
                                        sliding_attention=dict(rope_type="default", rope_theta=1e4))),
    # q, k, v in one tensor, gate and up in another; half of each head turned, each pair at a rate of its own.
    "phi3": dict(SMALL, cls="Phi3", num_hidden_layers=2, pad_token_id=0, original_max_position_embeddings=256,
                 rope_parameters=dict(rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.5,
                                      attention_factor=1.3, short_factor=[3.0, 1.5], long_factor=[1.5, 4.0])),
    "gpt2": dict(cls="GPT2", vocab_size=160, eos_token_id=2, n_embd=32, n_layer=2, n_head=4, n_positions=192),
    "opt": dict(cls="OPT", vocab_size=160, eos_token_id=2, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                ffn_dim=64, max_position_embeddings=192, word_embed_proj_dim=32),
    "llama-bf16": dict(cls="Llama", vocab_size=384, rope_parameters=LLAMA3, eos_token_id=2,
                       dtype=torch.bfloat16),
    "qwen2-f16": dict(cls="Qwen2", vocab_size=384, eos_token_id=2, tie_word_embeddings=True,
                      dtype=torch.float16),
}


def class_name(spec):
    return "GPT2LMHeadModel" if spec["cls"] == "GPT2" else spec["cls"] + "ForCausalLM"


def make_config(spec):
    own = {k: v for k, v in spec.items() if k not in ("cls", "shards", "dtype")}
    kw = dict({} if spec["cls"] in ("GPT2", "OPT") else COMMON, **own)
    if spec["cls"] in ("GPT2", "OPT"):
        kw["bos_token_id"] = 1
    if "rope_theta" in kw:
        kw["rope_parameters"] = dict(rope_type="default", rope_theta=kw.pop("rope_theta"))
    name = "Gemma3Text" if spec["cls"] == "Gemma3" else spec["cls"]
    config = getattr(transformers, name + "Config")(**kw)
    config.architectures = [class_name(spec)]
    config.dtype = spec.get("dtype", torch.float32)
    config._attn_implementation = "eager"
    return config


def init_weights(model, seed):
    """Scales at which activations stay near 1, attention is uneven and logits differ by several units: the
    usual 0.02 would make every layer next to nothing and the greedy text one token."""
    gen = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=gen, dtype=torch.float32)
            if name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")) or (
                    "layernorm" in name and name.endswith("weight")):
                # Gemma adds 1 to it; what its layers add must outweigh the scaled embedding, or the text is one token.
                base = (2 if "post_" in name else 0) if gemma else 1
                p.copy_(base + 0.2 * noise)
            elif name.endswith(".bias"):
                p.copy_(0.3 * noise)
            elif "wpe" in name or "embed_positions" in name:
                p.copy_(0.5 * noise)
            elif "c_attn" in name or "c_proj" in name or "c_fc" in name:  # [in][out]
                p.copy_(noise * 1.6 / math.sqrt(p.shape[0]))
            elif "embed_tokens" in name and gemma:
                p.copy_(0.35 * noise)
            elif "embed_tokens" in name or "wte" in name:
                p.copy_(noise * (3.0 / math.sqrt(p.shape[1]) if model.config.tie_word_embeddings else 1.0))
            elif "lm_head" in name:
                p.copy_(noise * 3.0 / math.sqrt(p.shape[1]))
            else:
                p.copy_(noise * 1.6 / math.sqrt(p.shape[1]))


def logits_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].float()


@contextlib.contextmanager
def rounded_cache(model, dtype):
    """K (rotated) and V rounded to dtype and widened again; everything else stays f32."""
    module = sys.modules[type(model).__module__]
    rotate = module.apply_rotary_pos_emb

    def rotate_and_round(q, k, *args, **kwargs):
        q, k = rotate(q, k, *args, **kwargs)
        return q, k.to(dtype).float()
    hooks = [layer.self_attn.v_proj.register_forward_hook(lambda _m, _in, out: out.to(dtype).float())
             for layer in model.model.layers]
    module.apply_rotary_pos_emb = rotate_and_round
    yield
    module.apply_rotary_pos_emb = rotate
    for hook in hooks:
        hook.remove()


def greedy(model, prompt):
    """64 tokens; end-of-text ids count like any other. And the smallest lead of a best over a second."""
    tokens, lead = list(prompt), math.inf
    for _ in range(N_GREEDY):
        last = logits_of(model, tokens)[-1]
        top = torch.topk(last, 2).values
        lead = min(lead, float(top[0] - top[1]))
        tokens.append(int(torch.argmax(last)))
    return tokens[len(prompt):], lead


def make_golden(model, seed):
    """Prompts and what follows, or None where a choice was too close or the text too dull."""
    rng = np.random.default_rng(seed)
    prompts, rows = [], []
    for n in PROMPT_LENGTHS:
        prompt = [int(t) for t in rng.integers(0, model.config.vocab_size, n)]
        out, lead = greedy(model, prompt)
        small = model.config.hidden_size <= 32
        if lead < (SMALL_MARGIN_MIN if small else MARGIN_MIN) or len(set(out)) < (
                SMALL_DISTINCT_MIN if small else DISTINCT_MIN):
            return None
        at = list(range(n)) if n == 12 else [n - 1, n + 31, n + N_GREEDY - 2]
        all_logits = logits_of(model, prompt + out)
        kept = all_logits[at]
        top = torch.topk(torch.log_softmax(kept, -1), 5)
        prompts.append({
            "tokens": prompt, "greedy": out, "at": at,
            "top_ids": top.indices.tolist(),
            "top_logprobs": [[round(v, 7) for v in row] for row in top.values.tolist()],
        })
        rows.append(kept.numpy())
    return prompts, np.concatenate(rows)


def kept_logits(model, prompts):
    return np.concatenate([logits_of(model, p["tokens"] + p["greedy"])[p["at"]].numpy() for p in prompts])


def save(model, folder, shards):
    """save_pretrained, split by hand where shards are wanted: its limits are far above these sizes."""
    model.save_pretrained(folder)
    if shards > 1:
        path = os.path.join(folder, "model.safetensors")
        os.remove(path)
        tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
        names, weight_map = sorted(tensors), {}
        for i in range(shards):
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = names[i * len(names) // shards:(i + 1) * len(names) // shards]
            save_file({k: tensors[k] for k in part}, os.path.join(folder, file), metadata={"format": "pt"})
            weight_map.update({k: file for k in part})
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            json.dump(index, f, indent=2, sort_keys=True)
            f.write("\n")


def make_model(name):
    spec = MODELS[name]
    config = make_config(spec)
    cls = getattr(transformers, class_name(spec))
    dtype = spec.get("dtype", torch.float32)
    folder = os.path.join(OUT, name)
    for seed in range(1, 200):
        model = cls(config)
        init_weights(model, seed)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        save(model.to(dtype), folder, spec.get("shards", 1))
        # Read back: weights as they are stored, computed with in f32, rotary frequencies never rounded.
        wide = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        golden = make_golden(wide, seed)
        if golden:
            break
    else:
        raise SystemExit(f"{name}: no seed gives a text with clear choices")
    prompts, rows = golden
    head = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "seed": seed}
    with open(os.path.join(folder, "golden.json"), "w") as f:
        json.dump(dict(head, prompts=prompts), f)
        f.write("\n")
    rows.astype("<f4").tofile(os.path.join(folder, "logits.f32"))
    if dtype != torch.float32:
        with rounded_cache(wide, dtype):
            cache = kept_logits(wide, prompts)
        own = cls.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
        native = kept_logits(own, prompts)
        cache.astype("<f4").tofile(os.path.join(folder, "logits.cache"))
        native.astype("<f4").tofile(os.path.join(folder, "logits.native"))
        print(f"  largest difference from f32: cache {np.abs(cache - rows).max():.3g}, native "
              f"{np.abs(native - rows).max():.3g}; rms of logits {np.sqrt((rows ** 2).mean()):.3g}")
    generation = dict(bos_token_id=1, eos_token_id=config.eos_token_id, do_sample=True, temperature=0.6,
                      top_p=0.9)
    transformers.GenerationConfig(**generation).save_pretrained(folder)
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name}: seed {seed}, {size // 1024} KiB")


def make_rope():
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    llama3_1 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                    high_freq_factor=4.0, original_max_position_embeddings=8192)
    forms = [
        (128, 8192, dict(rope_type="default", rope_theta=500000.0)),
        (64, 131072, llama3_1),
        (128, 131072, dict(llama3_1, factor=32.0)),
        (128, 32768, dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
        (128, 4096, dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0)),
        (128, 131072, dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0,
                           original_max_position_embeddings=32768)),
        (64, 65536, dict(rope_type="yarn", rope_theta=10000.0, factor=16.0, beta_fast=16.0, beta_slow=2.0,
                         truncate=False, original_max_position_embeddings=4096)),
        (64, 163840, dict(rope_type="yarn", rope_theta=10000.0, factor=40.0, mscale=0.8, mscale_all_dim=1.0,
                          original_max_position_embeddings=4096)),
        (64, 8192, dict(rope_type="yarn", rope_theta=10000.0, factor=2.0, attention_factor=1.25,
                        original_max_position_embeddings=4096)),
        (16, 256, YARN), (16, 256, LLAMA3),
    ]
    cases = []
    for head_dim, positions, rope in forms:
        sizes = dict(hidden_size=head_dim * 2, num_attention_heads=2, head_dim=head_dim, num_hidden_layers=1,
                     intermediate_size=16, vocab_size=32, max_position_embeddings=positions)
        embedding = LlamaRotaryEmbedding(transformers.LlamaConfig(**sizes, rope_parameters=dict(rope)))
        text = dict(architectures=["LlamaForCausalLM"], **sizes, rope_parameters=rope)
        cases.append({"config": text, "scale": embedding.attention_scaling,
                      "inv_freq": [float(f"{v:.9g}") for v in embedding.inv_freq.tolist()]})
    with open(os.path.join(OUT, "rope.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
    print(f"rope.json: {len(cases)} cases")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    os.makedirs(OUT, exist_ok=True)
    names = sys.argv[1:] or list(MODELS)
    for name in names:
        make_model(name)
    if not sys.argv[1:]:
        make_rope()


if __name__ == "__main__":
    main()
