"""Flags seen through the whole path: what the model's files say and what the command line makes of it."""
import json
import os
import subprocess

from conftest import BUILD, ROOT, SLOW, TINY
from test_first_light import post
from test_worker_faults import config, model_copy, one_line

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


def test_keys_that_would_guard_nothing():
    for name in ("WEIR_API_KEY", "VLLM_API_KEY"):
        r = subprocess.run([str(BUILD / "weir"), "serve", str(TINY)], cwd=ROOT, env={**os.environ, name: "secret-1"}, capture_output=True, text=True, timeout=20 * SLOW)
        assert r.returncode == 2 and name in r.stderr and "secret-1" not in r.stderr, r.stderr
    assert one_line([BUILD / "weir", "serve", TINY, "--api-key", "secret-1"])[0] == 2


def test_the_configuration_line(serve):
    s = serve("--seed", 7)
    line = next(x for x in s.output().splitlines() if "configuration" in x)
    assert "seed=7" in line and "mock" not in line, line
    s = serve("--mock", "--mock-step-ms", 3)
    line = next(x for x in s.output().splitlines() if "configuration" in x)
    assert "mock-step-ms=3" in line, line
