"""Flags seen through the whole path: what the model's files say and what the command line makes of it."""
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request

import pytest
from conftest import BUILD, ROOT, SLOW, TINY, wait_for
from test_first_light import post
from test_worker_faults import HEADER, config, model_copy, one_line

VOCAB = json.loads((TINY / "config.json").read_text())["vocab_size"]


def complete(server, **body):
    status, text = post(server, "/v1/completions", {"prompt": [5, 6, 7], "temperature": 0, **body})
    return status, json.loads(text)


def test_max_logprobs_of_the_vocabulary(serve):
    s = serve("--max-logprobs", -1)
    status, answer = complete(s, max_tokens=2, logprobs=-1, return_tokens_as_token_ids=True)
    assert status == 200, answer
    tops = answer["choices"][0]["logprobs"]["top_logprobs"]
    assert [len(t) for t in tops] == [VOCAB, VOCAB]
    status, answer = complete(s, max_tokens=1, logprobs=VOCAB + 1)
    assert status == 400 and f"less_than_equal {VOCAB}" in answer["error"]["message"]
    assert complete(s, max_tokens=1, logprobs=100)[0] == 200


def test_logprobs_of_an_answer_are_bounded(serve):
    s = serve("--max-logprob-entries", 60)
    assert complete(s, max_tokens=10, logprobs=5)[0] == 200
    status, answer = complete(s, max_tokens=11, logprobs=5)
    assert status == 400 and answer["error"]["param"] == "logprobs" and "--max-logprob-entries" in answer["error"]["message"]
    status, text = post(s, "/v1/completions", {"prompt": [5], "max_tokens": 11, "logprobs": 5, "stream": True})
    assert status == 200 and text.endswith("data: [DONE]\n\n")


def test_generation_config_vllm(serve, tmp_path):
    """The file's end tokens and defaults count, unless --generation-config vllm says that it does not exist (api.md 5.2.2)."""
    plain = serve("--generation-config", "vllm")
    _, answer = complete(plain, max_tokens=8, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True)
    ids = [int(t.split(":")[1]) for t in answer["choices"][0]["logprobs"]["tokens"]]
    end = next(i for i in range(1, 8) if ids[i] not in ids[:i])  # greedy: this id comes third, say
    folder = model_copy(tmp_path / "m", {"generation_config.json": {"eos_token_id": [ids[end]], "temperature": 0.0, "max_new_tokens": 2}})
    for flags, n in (([], end + 1), (["--generation-config", "vllm"], 8)):
        s = serve(*flags, model=folder)
        status, answer = complete(s, max_tokens=8)
        assert status == 200 and answer["usage"]["completion_tokens"] == n, (flags, answer)
    folder = model_copy(tmp_path / "none", {"config.json": config(eos_token_id="absent"), "generation_config.json": {"eos_token_id": 0}})
    status, line = one_line([BUILD / "weir-worker", folder, "--listen", f"ipc://{tmp_path}/s", "--generation-config", "vllm"])
    assert status == 1 and "eos_token_id" in line and "--generation-config vllm" in line


def test_the_configuration_line(serve):
    s = serve("--seed", 7)
    line = next(x for x in s.output().splitlines() if "configuration" in x)
    assert "seed=7" in line and "mock" not in line, line
    s = serve("--mock", "--mock-step-ms", 3)
    line = next(x for x in s.output().splitlines() if "configuration" in x)
    assert "mock-step-ms=3" in line, line


def test_request_ids_of_refused_bodies(serve):
    """api.md 2.6.3: the header's value, else the suffix in use, which may be the body's, else a fresh one."""
    s = serve("--mock", "--enable-request-id-headers")

    def id_of(body, headers=None):
        req = urllib.request.Request(s.url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(req, timeout=30) as r:
                return r.status, r.headers["X-Request-Id"]
        except urllib.error.HTTPError as e:
            return e.code, e.headers["X-Request-Id"]

    good, bad = {"prompt": "x", "max_tokens": 1, "request_id": "mine-1"}, {"prompt": "x", "temperature": 9, "request_id": "mine-2"}
    assert id_of(good) == (200, "mine-1")
    assert id_of(bad) == (400, "mine-2")
    assert id_of(bad, {"X-Request-Id": "header-3"}) == (400, "header-3")
    for unusable in ("", "a b", 5, None, "x" * 129):
        status, got = id_of({**bad, "request_id": unusable})
        assert status == 400 and re.fullmatch("[0-9a-f]{32}", got), (unusable, got)


def start_worker(*flags, env=None):
    return subprocess.Popen([str(BUILD / "weir-worker"), str(TINY), *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})


def address_of(worker):
    for line in worker.stderr:
        found = re.search("listening address=\\S+", line)
        if found:
            return found.group().split("=")[1]
    raise AssertionError("the worker ended without an address")


def test_workers_have_sockets_of_their_own(serve, tmp_path):
    workers = [start_worker("--mock", env={"XDG_RUNTIME_DIR": str(tmp_path)}) for _ in range(2)]
    try:
        urls = [address_of(w) for w in workers]
        assert urls[0] != urls[1] and all(u.startswith(f"ipc://{tmp_path}/weir/worker-") for u in urls)
        assert (tmp_path / "weir").stat().st_mode & 0o777 == 0o700
        assert complete(serve("--worker", *urls, command="router"), max_tokens=1)[0] == 200
    finally:
        for w in workers:
            w.send_signal(signal.SIGTERM)
        assert [w.wait(20 * SLOW) for w in workers] == [0, 0]
        for w in workers:
            w.stderr.close()
    assert not list((tmp_path / "weir").iterdir())
    (tmp_path / "weir").chmod(0o755)  # somebody else could have made it
    r = subprocess.run([str(BUILD / "weir-worker"), str(TINY)], cwd=ROOT, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=20 * SLOW)
    assert r.returncode == 1 and "only this user" in r.stderr


def test_a_port_of_its_own_is_told(serve):
    worker = start_worker("--mock", "--listen", "tcp://127.0.0.1:0")
    try:
        url = address_of(worker)
        assert re.fullmatch("tcp://127.0.0.1:[1-9][0-9]*", url), url
        assert complete(serve("--worker", url, command="router"), max_tokens=1)[0] == 200
    finally:
        worker.kill()
        worker.wait()
        worker.stderr.close()


def test_workers_share_memory(serve):
    """Each of N workers takes its part of a quarter of the free memory, not a quarter. A long context makes that the bound."""
    def kv_tokens(*flags):
        s = serve("--hf-overrides", json.dumps({"max_position_embeddings": 400000}), "--max-num-seqs", 64, *flags)
        wait_for(lambda: "weir: ready" in s.output(), 30, "all workers")
        found = [int(n) for n in re.findall("kv_tokens=([0-9]+)", s.output())]
        s.proc.terminate()
        s.proc.wait(40)
        return found

    one, two = kv_tokens(), kv_tokens("--workers", 2)
    assert len(one) == 1 and len(two) == 2
    assert all(0.3 < n / one[0] < 0.7 for n in two), (one, two)


@pytest.mark.parametrize("visible, want", [(None, ["0", "1"]), ("3,GPU-8f2e,5", ["3", "GPU-8f2e"])])
def test_workers_have_their_own_gpus(serve, monkeypatch, visible, want):
    """Workers on one machine see different GPUs, whether there are any or not; too few are one line."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    s = serve("--workers", 2, "--mock", env={"CUDA_VISIBLE_DEVICES": visible} if visible else None)
    seen = []
    for pid in s.worker_pids():
        with open(f"/proc/{pid}/environ") as f:
            seen += [v.split("=")[1] for v in f.read().split("\0") if v.startswith("CUDA_VISIBLE_DEVICES=")]
    assert sorted(seen) == want


def test_too_few_gpus_for_the_workers():
    status, line = one_line([BUILD / "weir", "serve", TINY, "--workers", "2", "--port", "0"], env={"CUDA_VISIBLE_DEVICES": "0"})
    assert status == 1 and 'CUDA_VISIBLE_DEVICES is "0": worker 1 needs 1 GPU of its own' in line


def test_weights_of_more_layers_than_the_config(tmp_path):
    last = max(int(m.group(1)) for m in (re.match(r"model\.layers\.([0-9]+)\.", name) for name in HEADER) if m)
    folder = model_copy(tmp_path / "m", {"config.json": config(num_hidden_layers=last)})
    status, line = one_line([BUILD / "weir-worker", folder, "--listen", f"ipc://{tmp_path}/s"])
    assert status == 1 and "num_hidden_layers" in line and f"layers.{last}." in line
