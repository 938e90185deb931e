"""Llama's forward pass in NumPy, and what the API's generation semantics say about its logits: a plain second opinion."""
import json
import math
import struct

import numpy as np
import tokenizers


def read_safetensors(path):
    """Tensors as float32; bfloat16 ones are widened."""
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, t in json.loads(data[8:8 + n]).items():
        if name == "__metadata__":
            continue
        raw = data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]]
        if t["dtype"] == "BF16":
            x = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            x = np.frombuffer(raw, "<f4")
        out[name] = x.reshape(t["shape"])
    return out


class Llama:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.w = read_safetensors(folder / "model.safetensors")
        self.tok = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.cache = {}
        half = self.config["head_dim"] // 2
        theta = self.config["rope_parameters"]["rope_theta"]
        self.freq = 1 / theta ** (np.arange(half, dtype=np.float32) / half)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"]) * self.w[name]

    def turn(self, x):
        """x: [tokens][heads][dim]."""
        angle = np.arange(len(x), dtype=np.float32)[:, None] * self.freq
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        a, b = np.split(x, 2, -1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    def logits(self, ids):
        """[tokens][vocab]: row i is of what follows ids[:i + 1]."""
        c, n = self.config, len(ids)
        x = self.w["model.embed_tokens.weight"][np.array(ids)]
        heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
        mask = np.triu(np.full((n, n), -np.inf, np.float32), 1)
        for i in range(c["num_hidden_layers"]):
            at = f"model.layers.{i}."
            h = self.norm(x, at + "input_layernorm.weight")
            q, k, v = (( h @ self.w[at + f"self_attn.{p}_proj.weight"].T).reshape(n, m, -1)
                       for p, m in (("q", heads), ("k", kv), ("v", kv)))
            q, k = self.turn(q).swapaxes(0, 1), self.turn(k).swapaxes(0, 1).repeat(heads // kv, 0)
            v = v.swapaxes(0, 1).repeat(heads // kv, 0)
            s = q @ k.swapaxes(1, 2) / np.float32(math.sqrt(q.shape[-1])) + mask
            s = np.exp(s - s.max(-1, keepdims=True))
            y = (s / s.sum(-1, keepdims=True)) @ v
            x = x + y.swapaxes(0, 1).reshape(n, -1) @ self.w[at + "self_attn.o_proj.weight"].T
            h = self.norm(x, at + "post_attention_layernorm.weight")
            gate = h @ self.w[at + "mlp.gate_proj.weight"].T
            up = h @ self.w[at + "mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ self.w[at + "mlp.down_proj.weight"].T
        head = self.w.get("lm_head.weight", self.w["model.embed_tokens.weight"])
        return self.norm(x, "model.norm.weight") @ head.T

    def next(self, ids):
        """The logits of what follows ids, float64."""
        key = tuple(ids)
        if key not in self.cache:
            self.cache[key] = self.logits(ids)[-1].astype(np.float64)
        return self.cache[key]

    def text(self, ids, special=False):
        return self.tok.decode(list(ids), skip_special_tokens=not special)

    def encode(self, text, special=True):
        return self.tok.encode(text, add_special_tokens=special).ids


def log_softmax(x):
    m = x.max(-1, keepdims=True)
    return x - m - np.log(np.exp(x - m).sum(-1, keepdims=True))


def ranked(x):
    """Ids best first, the lower id first among equals."""
    return np.lexsort((np.arange(len(x)), -x))


def greedy(model, prompt, n, *, eos=(), bias=None, repetition=1.0, frequency=0.0, presence=0.0, allowed=None,
           bad_words=(), min_tokens=0, processor=None):
    """The output ids, and the margin of the closest choice: api.md 8.1 with temperature 0."""
    out, margin = [], math.inf
    while len(out) < n:
        x = model.next(prompt + out).copy()
        for i, b in (bias or {}).items():
            x[i] += b
        if processor:
            processor(out, x)
        for i in set(prompt + out):
            x[i] = x[i] / repetition if x[i] > 0 else x[i] * repetition
        for i in set(out):
            x[i] -= frequency * out.count(i) + presence
        banned = {w[-1] for w in bad_words if len(w) == 1 or out[-(len(w) - 1):] == list(w[:-1])}
        banned |= set(eos) if len(out) < min_tokens else set()
        if allowed is not None:
            banned |= set(range(len(x))) - set(allowed)
        x[list(banned)] = -np.inf
        best = ranked(x)
        if np.isfinite(x[best[1]]):
            margin = min(margin, x[best[0]] - x[best[1]])
        out.append(int(best[0]))
        if out[-1] in eos:
            break
    return out, margin


def beam_search(model, prompt, width, n_tokens, length_penalty=1.0, eos=()):
    """api.md 8.4: the best `width` as (tokens, end token or None, sum), and how far apart decisions were."""
    live, done, margin = [((), 0.0)], [], math.inf

    def score(tokens, total):
        return total / (len(prompt) + len(tokens)) ** length_penalty

    for _ in range(n_tokens):
        new = []
        for tokens, total in live:
            lp = log_softmax(model.next(prompt + list(tokens)))
            for i in ranked(lp)[:2 * width]:
                if int(i) in eos:
                    done.append((tokens, int(i), total + lp[i]))
                else:
                    new.append((tokens + (int(i),), total + lp[i]))
        new.sort(key=lambda b: -b[1])
        if len(new) > width:
            margin = min(margin, new[width - 1][1] - new[width][1])
        live = new[:width]
    result = sorted(done + [(t, None, s) for t, s in live], key=lambda h: -score(h[0], h[2]))
    scores = [score(h[0], h[2]) for h in result]
    margin = min([margin] + [a - b for a, b in zip(scores[:width], scores[1:width + 1])])
    return result[:width], margin
