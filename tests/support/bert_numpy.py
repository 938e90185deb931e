"""BERT's forward pass in NumPy, mean pooling and normalisation: a second opinion on embeddings, without PyTorch."""
import json
import math
import struct

import numpy as np
import tokenizers


def erf(x):
    """Abramowitz and Stegun, 7.1.26: within 1.5e-7."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - p * np.exp(-x * x))


def read_safetensors(path):
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    out = {}
    for name, t in head.items():
        if name != "__metadata__" and t["dtype"] == "F32":
            a, b = t["data_offsets"]
            out[name] = np.frombuffer(data, "<f4", (b - a) // 4, 8 + n + a).reshape(t["shape"])
    return out


class Bert:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        self.w = read_safetensors(folder / "model.safetensors")
        self.tok = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tok.no_padding()
        self.tok.no_truncation()

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, x, name):
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + self.config["layer_norm_eps"]) * self.w[name + ".weight"] + self.w[name + ".bias"]

    def hidden(self, ids):
        """ids: [texts][tokens], all of one length; hidden states [texts][tokens][hidden]."""
        e = "embeddings."
        n_texts, n = ids.shape
        x = (self.w[e + "word_embeddings.weight"][ids] + self.w[e + "position_embeddings.weight"][:n]
             + self.w[e + "token_type_embeddings.weight"][0])
        x = self.norm(x, e + "LayerNorm")
        heads = self.config["num_attention_heads"]
        for i in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{i}."
            q, k, v = (self.linear(x, at + "attention.self." + name).reshape(n_texts, n, heads, -1).swapaxes(1, 2)
                       for name in ("query", "key", "value"))
            s = q @ k.swapaxes(2, 3) / np.float32(math.sqrt(q.shape[-1]))
            s = np.exp(s - s.max(-1, keepdims=True))
            s /= s.sum(-1, keepdims=True)
            y = (s @ v).swapaxes(1, 2).reshape(n_texts, n, -1)
            x = self.norm(x + self.linear(y, at + "attention.output.dense"), at + "attention.output.LayerNorm")
            y = self.linear(x, at + "intermediate.dense")
            y = y * np.float32(0.5) * (1 + erf(y / np.float32(math.sqrt(2))))
            x = self.norm(x + self.linear(y, at + "output.dense"), at + "output.LayerNorm")
        return x

    def embed(self, texts):
        ids = [self.tok.encode(text).ids for text in texts]
        out = [None] * len(ids)
        for n in {len(x) for x in ids}:
            of = [i for i, x in enumerate(ids) if len(x) == n]
            for part in (of[i:i + 64] for i in range(0, len(of), 64)):
                v = self.hidden(np.array([ids[i] for i in part])).mean(1)
                for i, row in zip(part, v / np.linalg.norm(v, axis=1, keepdims=True)):
                    out[i] = row
        return np.stack(out)
