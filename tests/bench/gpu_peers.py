#!/usr/bin/env python3
"""gpu_peers.py RESULTS [--dry]: the same work by others, on the same GPU, beside what bench_gpu wrote to RESULTS (JSON lines).

    gpu.peer_decode_ratio    Weir's tokens/s at batch 1 with 1,024 tokens of context over a plain PyTorch loop's: a Llama of
                             the same shape, static cache, one CUDA graph a step
    gpu.peer_offline_ratio   Weir's output tokens/s over those of transformers' continuous batching (generate_batch), with the
                             fastest attention it has there, on the first requests of offline_lengths.txt

Without torch, or without a GPU for it, it says so and ends with status 77. --dry: a small shape on the CPU, for tests.
"""
import json
import os
import pathlib
import signal
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    print("torch is not here")
    sys.exit(77)

DRY = "--dry" in sys.argv
DEVICE = "cpu" if DRY else "cuda"
if not DRY and not torch.cuda.is_available():
    print("torch has no GPU here")
    sys.exit(77)
LAYERS, HIDDEN, MLP, HEADS, KV_HEADS, DIM, VOCAB = (2, 64, 128, 4, 2, 16, 200) if DRY else (32, 4096, 14336, 32, 8, 128, 128256)
CONTEXT, STEPS, N_REQUESTS, LIMIT_S = (32, 5, 3, 20) if DRY else (1024, 100, 200, 80)


class Loop:
    """One sequence's decode steps over random weights; everything stays where it is, so that a graph holds it."""

    def __init__(self):
        def w(rows, cols):
            return torch.randn(rows, cols, device=DEVICE, dtype=torch.bfloat16) * cols**-0.5

        self.embed, self.head = w(VOCAB, HIDDEN), w(VOCAB, HIDDEN)
        q, kv = HEADS * DIM, KV_HEADS * DIM
        self.layers = [(w(q + 2 * kv, HIDDEN), w(HIDDEN, q), w(2 * MLP, HIDDEN), w(HIDDEN, MLP)) for _ in range(LAYERS)]
        self.cache = torch.randn(LAYERS, 2, 1, KV_HEADS, CONTEXT, DIM, device=DEVICE, dtype=torch.bfloat16)
        self.token = torch.zeros(1, dtype=torch.long, device=DEVICE)
        angle = CONTEXT * 500000.0 ** (-torch.arange(0, DIM, 2, device=DEVICE) / DIM)
        self.cos, self.sin = (torch.cat([f(angle), f(angle)]).to(torch.bfloat16) for f in (torch.cos, torch.sin))

    def turn(self, x):
        return x * self.cos + torch.cat([-x[..., DIM // 2:], x[..., : DIM // 2]], -1) * self.sin

    def step(self):
        x = self.embed[self.token]
        for i, (qkv, o, up, down) in enumerate(self.layers):
            h = F.linear(F.rms_norm(x, (HIDDEN,)), qkv)
            q, k, v = h.split([HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM], -1)
            q = self.turn(q.view(1, HEADS, 1, DIM))
            self.cache[i, 0, :, :, -1:] = self.turn(k.view(1, KV_HEADS, 1, DIM))
            self.cache[i, 1, :, :, -1:] = v.view(1, KV_HEADS, 1, DIM)
            a = F.scaled_dot_product_attention(q, self.cache[i, 0], self.cache[i, 1], enable_gqa=True)
            x = x + F.linear(a.reshape(1, HEADS * DIM), o)
            gate, wide = F.linear(F.rms_norm(x, (HIDDEN,)), up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * wide, down)
        self.token.copy_(F.linear(F.rms_norm(x, (HIDDEN,)), self.head).float().argmax(-1))

    @torch.inference_mode()
    def tokens_s(self):
        run = self.step
        for _ in range(3):
            run()
        if not DRY:
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.step()
            run = graph.replay
        start = time.perf_counter()
        for _ in range(STEPS):
            run()
            self.token.item()  # as a server does, every token comes to the host
        return STEPS / (time.perf_counter() - start)


def offline_tokens_s(lengths):
    """Output tokens a second of transformers' continuous batching; None where it does not run, or takes too long."""
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT_S)
    try:
        from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS,
                             num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=8192)
        for attention in ("paged|flash_attention_2", "sdpa_paged", "paged|sdpa"):
            try:
                with torch.device(DEVICE):
                    model = LlamaForCausalLM._from_config(config, attn_implementation=attention, dtype=torch.bfloat16).eval()
                break
            except (ImportError, ValueError):
                continue
        else:
            return None, "no paged attention"
        most = 8 if DRY else 195  # one length for all: the mean
        prompts = [[(i * 7919 + k) % VOCAB for k in range(n)] for i, (n, _) in enumerate(lengths)]
        settings = GenerationConfig(max_new_tokens=most, eos_token_id=-1, do_sample=False, use_cuda_graph=not DRY)
        model.generate_batch(inputs=prompts[:2], generation_config=settings)
        start = time.perf_counter()
        out = model.generate_batch(inputs=prompts, generation_config=settings)
        return sum(len(o.generated_tokens) for o in out.values()) / (time.perf_counter() - start), attention
    except Exception as e:  # a peer's versions and needs are its own
        return None, f"{type(e).__name__}: {e}"[:200].replace("\n", " ")


def too_long(*_):
    raise TimeoutError(f"not done in {LIMIT_S} s")


def ours(path, case, **params):
    """Weir's value of a case; None if it was not run."""
    for line in pathlib.Path(path).read_text().splitlines():
        row = json.loads(line)
        if row.get("case") == case and all(row["params"].get(k) == v for k, v in params.items()):
            return row["value"]
    return None


def tell(case, mine, peer, name):
    value = round(mine / peer, 3) if mine and peer else None
    print(json.dumps({"case": case, "value": value, "unit": "ratio", "params": {"weir": mine, "peer": peer, "name": name}}),
          flush=True)


def main():
    results = sys.argv[1]
    model = {} if DRY else {"model": "llama-8b", "dtype": "bfloat16"}
    tell("gpu.peer_decode_ratio", ours(results, "gpu.decode_tokens_s", **model, batch=1), Loop().tokens_s(),
         f"torch {torch.__version__}, CUDA graph")
    here = pathlib.Path(__file__).resolve().parent
    lengths = [tuple(map(int, line.split())) for line in (here / "offline_lengths.txt").read_text().splitlines()][:N_REQUESTS]
    peer, how = offline_tokens_s(lengths)
    tell("gpu.peer_offline_ratio", ours(results, "gpu.offline_tokens_s", **model), peer, f"transformers, {how}")
    os._exit(0)  # a thread of a peer that did not end waits for ever


if __name__ == "__main__":
    main()
