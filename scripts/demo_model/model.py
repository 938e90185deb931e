"""The demo model in PyTorch: a Llama (RMSNorm, grouped queries, rope, SwiGLU, tied embedding), as small as it can be."""

import math

import torch
import torch.nn.functional as F

COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "vocab_size": 4096,
    "head_dim": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
CONFIGS = {
    # 1.6 million parameters: what two cores train within the hour.
    "small": COMMON | {"hidden_size": 160, "intermediate_size": 384, "num_hidden_layers": 4,
                       "num_attention_heads": 4, "num_key_value_heads": 2},
    # 5.8 million: for a GPU.
    "full": COMMON | {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 6,
                      "num_attention_heads": 8, "num_key_value_heads": 4},
}


def init(seed, config):
    """Float32 tensors by their names in a Hugging Face folder."""
    gen = torch.Generator().manual_seed(seed)
    hidden, head_dim, mlp = config["hidden_size"], config["head_dim"], config["intermediate_size"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    n = config["num_hidden_layers"]

    def matrix(rows, cols, scale=1.0):
        return torch.randn(rows, cols, generator=gen) * scale / math.sqrt(cols)

    tensors = {"model.embed_tokens.weight": torch.randn(config["vocab_size"], hidden, generator=gen) * 0.02}
    for i in range(n):
        at = f"model.layers.{i}."
        for name, rows, cols, scale in [
            ("self_attn.q_proj", q, hidden, 1),
            ("self_attn.k_proj", kv, hidden, 1),
            ("self_attn.v_proj", kv, hidden, 1),
            ("self_attn.o_proj", hidden, q, 1 / math.sqrt(2 * n)),
            ("mlp.gate_proj", mlp, hidden, 1),
            ("mlp.up_proj", mlp, hidden, 1),
            ("mlp.down_proj", hidden, mlp, 1 / math.sqrt(2 * n)),
        ]:
            tensors[f"{at}{name}.weight"] = matrix(rows, cols, scale)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = torch.ones(hidden)
    tensors["model.norm.weight"] = torch.ones(hidden)
    return tensors


def rope(config, n):
    """cos, sin of every position and half a head's frequencies: [n, head_dim / 2]."""
    half = config["head_dim"] // 2
    frequency = config["rope_parameters"]["rope_theta"] ** (-torch.arange(half) / half)
    angle = torch.arange(n)[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """x [batch, heads, positions, head_dim]; the two halves of a head are the two coordinates, as in Llama."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def hidden_states(p, config, ids, cos, sin):
    """ids [batch, positions], padded on the right -> final hidden states [batch, positions, hidden]."""
    batch, n = ids.shape
    heads, kv_heads, head_dim = (
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
    )
    hidden, eps = config["hidden_size"], config["rms_norm_eps"]
    cos, sin = cos[:n], sin[:n]
    x = F.embedding(ids, p["model.embed_tokens.weight"])
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        h = F.rms_norm(x, (hidden,), p[at + "input_layernorm.weight"], eps)

        def project(name, count):
            return (
                F.linear(h, p[f"{at}self_attn.{name}.weight"]).view(batch, n, count, head_dim).transpose(1, 2)
            )

        q, k, v = (
            rotate(project("q_proj", heads), cos, sin),
            rotate(project("k_proj", kv_heads), cos, sin),
            project("v_proj", kv_heads),
        )
        k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + F.linear(
            a.transpose(1, 2).reshape(batch, n, heads * head_dim), p[at + "self_attn.o_proj.weight"]
        )
        h = F.rms_norm(x, (hidden,), p[at + "post_attention_layernorm.weight"], eps)
        gate, up = F.linear(h, p[at + "mlp.gate_proj.weight"]), F.linear(h, p[at + "mlp.up_proj.weight"])
        x = x + F.linear(F.silu(gate) * up, p[at + "mlp.down_proj.weight"])
    return F.rms_norm(x, (hidden,), p["model.norm.weight"], eps)


def logits(p, h):
    return F.linear(h, p["model.embed_tokens.weight"])
