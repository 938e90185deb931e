#!/usr/bin/env python3
"""gpu_ready.py WORKER: time to ready of a model in the shape of Llama-3-8B from files that are in the page cache.

Standard library only. The weights are zeros in a file with holes, which costs no disk; the first start brings its pages in, and
the second counts. One JSON line: gpu.ready_ms, as the worker tells it, from its start to its first readiness.

    GPU_READY_LAYERS [32], GPU_READY_FLAGS: for tests without a GPU
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

LAYERS = int(os.environ.get("GPU_READY_LAYERS", "32"))
HIDDEN, MLP, KV, VOCAB = (4096, 14336, 1024, 128256) if LAYERS == 32 else (128, 256, 64, 1600)
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": VOCAB,
          "hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HIDDEN // 64 // 2,
          "num_key_value_heads": KV // 64 // 2 or 1, "head_dim": 128 if LAYERS == 32 else 64, "hidden_act": "silu",
          "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False,
          "bos_token_id": 1, "eos_token_id": 2}


def tensors():
    q, kv = CONFIG["num_attention_heads"] * CONFIG["head_dim"], CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    yield "model.embed_tokens.weight", [VOCAB, HIDDEN]
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", [HIDDEN]
        yield p + "self_attn.q_proj.weight", [q, HIDDEN]
        yield p + "self_attn.k_proj.weight", [kv, HIDDEN]
        yield p + "self_attn.v_proj.weight", [kv, HIDDEN]
        yield p + "self_attn.o_proj.weight", [HIDDEN, q]
        yield p + "post_attention_layernorm.weight", [HIDDEN]
        yield p + "mlp.gate_proj.weight", [MLP, HIDDEN]
        yield p + "mlp.up_proj.weight", [MLP, HIDDEN]
        yield p + "mlp.down_proj.weight", [HIDDEN, MLP]
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCAB, HIDDEN]


def make(folder):
    header, at = {}, 0
    for name, shape in tensors():
        n = 2
        for d in shape:
            n *= d
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.truncate(8 + len(text) + at)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text('{"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}')
    return at


def start(worker, folder):
    """Milliseconds to ready, and the device."""
    flags = os.environ.get("GPU_READY_FLAGS", "--device cuda").split()
    proc = subprocess.Popen([worker, str(folder), f"--listen=ipc://{folder}/socket", *flags], stderr=subprocess.PIPE, text=True)
    said = []
    try:
        for line in proc.stderr:
            said.append(line)
            if found := re.search(r"worker ready .*\bms=(\d+) device=(\"[^\"]*\"|\S+)", line):
                return int(found[1]), found[2].strip('"')
    finally:
        proc.kill()
        proc.wait()
    sys.exit("gpu_ready: the worker ended: " + "".join(said[-3:]))


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-ready-"))
    try:
        n_bytes = make(folder)
        first, _ = start(sys.argv[1], folder)
        ms, device = start(sys.argv[1], folder)
    finally:
        shutil.rmtree(folder)
    print(json.dumps({"case": "gpu.ready_ms", "value": ms, "unit": "ms",
                      "params": {"layers": LAYERS, "bytes": n_bytes, "first_ms": first, "device": device}}))


if __name__ == "__main__":
    main()
