"""Tensor parallelism over real processes: the same tokens on 1, 2 and 4 ranks, and what becomes of ranks that die."""
import json
import os
import signal
import subprocess
import time
import urllib.request

import pytest

from conftest import BUILD, ROOT, SANITIZED, SLOW, TINY, Server, wait_for
from test_faults import stream_request

MOE = ROOT / "tests/golden/moe"
QWEN3 = dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", vocab_size=1536, hidden_size=64, head_dim=32,
             num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3, intermediate_size=96,
             max_position_embeddings=256, eos_token_id=1533, tie_word_embeddings=True, torch_dtype="float32")
FLAGS = ["--dtype", "float32", "--served-model-name", "m", "--max-model-len", "256"]


def ranks_of(leader):
    out = subprocess.run(["pgrep", "-P", str(leader)], capture_output=True, text=True)
    return [int(p) for p in out.stdout.split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def folder_of(path, config):
    """A model without weights: --load-format dummy makes them of the tensors' names."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (path / name).symlink_to(TINY / name)
    return path


def greedy(server, prompt, n=32):
    body = json.dumps(dict(model="m", prompt=prompt, max_tokens=n, temperature=0, ignore_eos=True, logprobs=1,
                           return_tokens_as_token_ids=True)).encode()
    request = urllib.request.Request(server.url + "/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60 * SLOW) as r:
        choice = json.load(r)["choices"][0]
    return choice["logprobs"]["tokens"], choice["logprobs"]["token_logprobs"]


def models(tmp_path):
    yield "llama", TINY, [], None
    yield "qwen3", folder_of(tmp_path / "qwen3", QWEN3), ["--load-format", "dummy"], None
    for name in ("mixtral", "qwen3_moe"):
        golden = json.loads((MOE / f"{name}.json").read_text())
        yield name, folder_of(tmp_path / name, golden["config"]), ["--load-format", "dummy"], golden


@pytest.mark.parametrize("which", range(4), ids=["llama", "qwen3", "mixtral", "qwen3_moe"])
def test_same_tokens(tmp_path, which):
    name, folder, flags, golden = list(models(tmp_path))[which]
    prompts = [p["tokens"] for p in golden["prompts"]] if golden else [[7], list(range(20, 29)), list(range(100, 170))]
    before = sorted(os.listdir("/dev/shm"))
    want = None
    for tp in (1, 2, 4):
        server = Server(*FLAGS, *flags, "--tensor-parallel-size", tp, model=folder)
        try:
            leader, = server.worker_pids()
            ranks = ranks_of(leader)
            assert len(ranks) == tp - 1
            got = [greedy(server, p) for p in prompts]
            assert sorted(os.listdir("/dev/shm")) == before
        finally:
            server.stop()
        wait_for(lambda: not any(map(alive, ranks)), 5, "the ranks' end")
        want = want or got
        for (tokens, logprobs), (want_tokens, want_logprobs) in zip(got, want):
            assert tokens == want_tokens, (name, tp)
            assert max(abs(a - b) for a, b in zip(logprobs, want_logprobs)) < 1e-4
        for (tokens, _), p in zip(got, golden["prompts"] if golden else []):
            assert tokens == [f"token_id:{t}" for t in p["greedy"]], (name, tp)


@pytest.mark.parametrize("which", [0, 3], ids=["llama", "qwen3_moe"])
@pytest.mark.parametrize("pooling", ["LAST", "CLS", "MEAN"])
def test_same_vectors(tmp_path, which, pooling):
    """Embeddings: where one row of a text counts, every rank computes the last layer for that row alone."""
    _, folder, flags, _ = list(models(tmp_path))[which]
    texts = [[7], list(range(20, 29)), list(range(100, 170)), [9, 8, 7] * 50]
    want = None
    for tp in (1, 2):
        server = Server(*FLAGS, *flags, "--task", "embed", "--pooler-config", json.dumps({"pooling_type": pooling}),
                        "--max-num-batched-tokens", 64, "--tensor-parallel-size", tp, model=folder)
        try:
            got = [d.embedding for d in server.client().embeddings.create(model="m", input=texts).data]
            alone = [server.client().embeddings.create(model="m", input=t).data[0].embedding for t in texts]
        finally:
            server.stop()
        assert got == alone and all(abs(sum(x * x for x in v) - 1) < 1e-5 for v in got)
        want = want or got
        assert max(abs(a - b) for v, w in zip(got, want) for a, b in zip(v, w)) < 1e-5


def test_rank_killed(serve):
    """As a worker's death: streams end with an error, or go on at another worker. In a step, and while idle."""
    server = serve(*FLAGS, "--max-model-len", 2048, "-tp", 2)
    for busy in (True, False):
        leader, = server.worker_pids()
        rank, = ranks_of(leader)
        want = greedy(server, [5, 6, 7], 8)
        stream = stream_request(server.port) if busy else None
        if busy:
            assert b"200 OK" in stream.recv(400)
        os.kill(rank, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: not alive(leader), 2, "the leader's end")
        if not SANITIZED:
            assert time.monotonic() - killed < 2
        wait_for(lambda: server.worker_pids() and server.worker_pids() != [leader] and server.status("/health") == 200, 30,
                 "another worker")
        assert "rank 1 died by signal 9" in server.output()
        if busy:
            stream.settimeout(30 * SLOW)
            text = b""
            while part := stream.recv(65536):
                text += part
                if b"error" in text or b"[DONE]" in text:
                    break
            stream.close()
            assert b"error" in text or b"[DONE]" in text
        assert greedy(server, [5, 6, 7], 8) == want


def test_rank_stopped(serve):
    """A rank that hangs ends the group, too, and leaves no process behind."""
    server = serve(*FLAGS, "-tp", 4)
    leader, = server.worker_pids()
    ranks = ranks_of(leader)
    assert len(ranks) == 3
    os.kill(ranks[1], signal.SIGSTOP)
    stopped = time.monotonic()
    wait_for(lambda: not alive(leader), 20 if SANITIZED else 4, "the leader's end")
    if not SANITIZED:
        assert time.monotonic() - stopped < 3  # two seconds, and what a loaded machine adds
    wait_for(lambda: not any(map(alive, ranks)), 5, "the ranks' end")
    assert "did not answer" in server.output()
    wait_for(lambda: server.worker_pids() and server.worker_pids() != [leader] and server.status("/health") == 200, 30,
             "another worker")
    greedy(server, [5, 6, 7], 8)


def test_leader_killed(serve):
    server = serve(*FLAGS, "-tp", 2)
    leader, = server.worker_pids()
    ranks = ranks_of(leader)
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, ranks)), 2, "the ranks' end")
    wait_for(lambda: server.worker_pids() and server.status("/health") == 200, 30, "another worker")
    greedy(server, [5, 6, 7], 8)


@pytest.mark.parametrize("flags, words", [
    (["-tp", "3"], "cannot be shared by 3 ranks evenly"),
    (["-tp", "33"], "32"),
    (["-tp", "2", "--mock"], "--mock has no ranks"),
    (["-tp", "2", "--rank", "1"], "--rank is for the ranks that weir-worker starts itself"),
])
def test_refused(flags, words):
    r = subprocess.run([str(BUILD / "weir-worker"), str(TINY), *flags], cwd=ROOT, capture_output=True, text=True,
                       timeout=20 * SLOW)
    lines = [line for line in (r.stdout + r.stderr).splitlines() if not line.startswith("20")]
    assert r.returncode in (1, 2) and len(lines) == 1 and words in lines[0], lines
