"""Prefill on one `weir serve`, decode on another, driven over HTTP by a proxy as those for vLLM are (tests/e2e/kv_proxy.py)."""
import json
import random
import threading
import time
import urllib.error
import urllib.request

import pytest

from conftest import SLOW, Server, wait_for
from kv_proxy import Proxy

KV = ["--dtype", "float32", "--served-model-name", "m", "--enable-prompt-tokens-details", "--kv-transfer-config",
      json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"})]
ALLOW = ["--kv-peer-allow", "127.0.0.0/8"]


def post(url, path, body, timeout=60):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout * SLOW) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def complete(url, prompt, n=12, **more):
    status, text = post(url, "/v1/completions", dict(model="m", prompt=prompt, max_tokens=n, temperature=0, ignore_eos=True,
                                                     logprobs=1, return_tokens_as_token_ids=True, **more))
    assert status == 200, text
    return json.loads(text)


def prompt_of(n, seed):
    r = random.Random(seed)
    return [r.randrange(5, 900) for _ in range(n)]


def settled(server, name, value, **labels):
    """Workers report five times a second."""
    wait_for(lambda: (server.metric_of(name, **labels) if labels else server.metric(name)) == value, 10, f"{name} = {value}")


@pytest.fixture(scope="module")
def pair():
    servers = [Server(*KV), Server(*KV, *ALLOW), Server(*KV[:5])]
    proxy = Proxy(servers[0].url, servers[1].url)
    yield (*servers, proxy)
    proxy.stop()
    for s in servers:
        s.stop()


def test_two_legs_say_what_one_server_says(pair):
    prefill, decode, alone, proxy = pair
    for n in (20, 33, 64, 150):
        prompt = prompt_of(n, n)
        before = decode.metric("weir_computed_tokens_total")
        got, want = complete(proxy.url, prompt), complete(alone.url, prompt)
        assert got["choices"][0]["logprobs"] == want["choices"][0]["logprobs"]
        assert got["choices"][0]["text"] == want["choices"][0]["text"] and got["kv_transfer_params"] is None
        moved = (n - 1) // 16 * 16
        assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == moved
        # the decode side computes the prompt less what was transferred, and its own tokens
        settled(decode, "weir_computed_tokens_total", before + n - moved + 12 - 1)
        p = proxy.params[-1]
        assert p["do_remote_prefill"] is True and p["do_remote_decode"] is False and p["tp_size"] == 1
        assert p["remote_num_tokens"] == n // 16 * 16 and len(p["remote_block_ids"]) == n // 16
        assert len(p["transfer_id"]) == len(p["remote_engine_id"]) == len(p["remote_request_id"]) == 32
        assert p["remote_host"] == "127.0.0.1" and p["remote_blocks_expiry_time"] > time.time()
    settled(prefill, "weir_kv_leases", 0)
    assert decode.metric("vllm:nixl_num_failed_transfers_total") == 0
    assert decode.metric("vllm:nixl_bytes_transferred_sum") > 0 and decode.metric("vllm:nixl_xfer_time_seconds_count") == 4
    assert "kv_transfer_params" not in prefill.output() and proxy.params[-1]["transfer_id"] not in prefill.output() + decode.output()


def test_chat_and_streams(pair):
    prefill, decode, alone, proxy = pair
    body = dict(model="m", temperature=0, max_completion_tokens=8, ignore_eos=True,
                messages=[{"role": "user", "content": "Tell me a long story about a weir. " * 3}])
    status, text = post(proxy.url, "/v1/chat/completions", body)
    want = json.loads(post(alone.url, "/v1/chat/completions", body)[1])
    assert status == 200 and json.loads(text)["choices"] == want["choices"]
    assert json.loads(text)["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    body["messages"][0]["content"] += "Go on."
    status, text = post(proxy.url, "/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}})
    chunks = [json.loads(l[6:]) for l in text.splitlines() if l.startswith("data: {")]
    assert status == 200 and text.endswith("data: [DONE]\n\n") and not any("kv_transfer_params" in c for c in chunks)
    said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert said == json.loads(post(alone.url, "/v1/chat/completions", body)[1])["choices"][0]["message"]["content"]
    # a stream of a prefill leg has them on its last chunk
    for usage in ({}, {"stream_options": {"include_usage": True}}):
        status, text = post(prefill.url, "/v1/completions", dict(model="m", prompt=prompt_of(40, 1), max_tokens=1, stream=True,
                            ignore_eos=True, kv_transfer_params={"do_remote_decode": True}, **usage))
        chunks = [json.loads(l[6:]) for l in text.splitlines() if l.startswith("data: {")]
        assert [("kv_transfer_params" in c) for c in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1]["kv_transfer_params"]["remote_num_tokens"] == 32
    settled(prefill, "weir_kv_leases", 2)


def test_other_samplings_fork_behind_the_pull(pair):
    prefill, decode, alone, _ = pair
    body = dict(model="m", prompt=prompt_of(70, 9), max_tokens=8, temperature=1, seed=5, n=3, ignore_eos=True)
    # the client's n is for the decode leg: such a proxy asks the prefill leg for one
    leg = dict(body, n=1, max_tokens=1, kv_transfer_params={"do_remote_decode": True})
    params = json.loads(post(prefill.url, "/v1/completions", leg)[1])["kv_transfer_params"]
    status, text = post(decode.url, "/v1/completions", dict(body, kv_transfer_params=params))
    assert status == 200 and json.loads(text)["usage"]["prompt_tokens_details"]["cached_tokens"] == 64
    want = json.loads(post(alone.url, "/v1/completions", body)[1])
    assert [c["text"] for c in json.loads(text)["choices"]] == [c["text"] for c in want["choices"]]


def test_null_and_refusals(pair):
    prefill, decode, alone, proxy = pair
    offer = {"do_remote_decode": True}
    one = lambda **kw: json.loads(post(prefill.url, "/v1/completions", dict(dict(model="m", max_tokens=1, ignore_eos=True,
                                  kv_transfer_params=offer), **kw))[1])["kv_transfer_params"]
    assert one(prompt=prompt_of(15, 2)) is None  # no whole block
    full = one(prompt=prompt_of(80, 3), max_tokens=2)
    assert full["remote_num_tokens"] == 80
    stop = complete(alone.url, prompt_of(48, 4), 1)["choices"][0]["logprobs"]["tokens"][0]
    assert one(prompt=prompt_of(48, 4), temperature=0, stop_token_ids=[int(stop.split(":")[1])]) is None  # not by length
    for bad in (dict(n=2), dict(best_of=2), dict(best_of=2, use_beam_search=True)):
        status, text = post(prefill.url, "/v1/completions", dict(model="m", prompt=prompt_of(40, 5), max_tokens=1,
                                                                 kv_transfer_params=offer, **bad))
        assert status == 400, (bad, text)
    pull = dict(full, do_remote_prefill=True)
    for bad, param in ((dict(remote_host="10.1.2.3"), "kv_transfer_params"), (dict(remote_host="example.org"), "kv_transfer_params"),
                       (dict(remote_port="x"), "kv_transfer_params.remote_port"), (dict(remote_block_ids=[-1]), "kv_transfer_params.remote_block_ids"),
                       (dict(do_remote_prefill=3), "kv_transfer_params.do_remote_prefill")):
        status, text = post(decode.url, "/v1/completions", dict(model="m", prompt=prompt_of(80, 3), max_tokens=1,
                                                                kv_transfer_params={**pull, **bad}))
        assert status == 400 and json.loads(text)["error"]["param"] == param, (bad, text)
    # without --kv-transfer-config: accepted, ignored, null
    assert complete(alone.url, prompt_of(40, 6), kv_transfer_params=offer)["kv_transfer_params"] is None
    assert complete(alone.url, prompt_of(40, 6), kv_transfer_params={"do_remote_prefill": "?"})["choices"]


@pytest.mark.parametrize("what, reason", [("transfer_id", "refused"), ("remote_engine_id", "refused"), ("remote_block_ids", "mismatch"),
                                          ("remote_port", "network"), ("nothing", "params"), ("prompt", "mismatch")])
def test_a_failed_pull_is_computed(pair, what, reason):
    prefill, decode, alone, _ = pair
    prompt = prompt_of(100, what)

    def spoil(p):
        if what == "nothing":
            return {"do_remote_prefill": True}
        if what == "prompt":
            return p
        if what == "remote_block_ids":
            return {**p, what: p[what][::-1]}
        return {**p, what: 1 if what == "remote_port" else "0" * 31 + "1"}

    before = decode.metric_of("weir_kv_transfer_fallbacks_total", reason=reason)
    proxy = Proxy(prefill.url, decode.url, between=spoil)
    try:
        if what == "prompt":  # another prompt under the same transfer
            leg = json.loads(post(prefill.url, "/v1/completions", dict(model="m", prompt=prompt, max_tokens=1, ignore_eos=True,
                                                                       kv_transfer_params={"do_remote_decode": True}))[1])
            other = prompt[:50] + [7] + prompt[51:]
            got = complete(decode.url, other, kv_transfer_params=leg["kv_transfer_params"])
            want = complete(alone.url, other)
        else:
            got, want = complete(proxy.url, prompt), complete(alone.url, prompt)
    finally:
        proxy.stop()
    assert got["choices"] == want["choices"]
    assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    settled(decode, "weir_kv_transfer_fallbacks_total", before + 1, reason=reason)


def test_fail_policy_and_lease(serve):
    prefill = serve(*KV, "--kv-lease-seconds", "0.3")
    decode = serve(*KV, *ALLOW, "--kv-load-failure-policy", "fail")
    prompt = prompt_of(60, 77)
    leg = dict(model="m", prompt=prompt, max_tokens=1, ignore_eos=True, kv_transfer_params={"do_remote_decode": True})
    params = json.loads(post(prefill.url, "/v1/completions", leg)[1])["kv_transfer_params"]
    settled(prefill, "vllm:nixl_num_kv_expired_reqs_total", 1)
    settled(prefill, "weir_kv_leases", 0)
    wait_for(lambda: prefill.metric("vllm:kv_cache_usage_perc") == 0, 10, "no block held")
    status, text = post(decode.url, "/v1/completions", dict(model="m", prompt=prompt, max_tokens=4, kv_transfer_params=params))
    assert status == 503, text
    assert prefill.status("/health") == decode.status("/health") == 200


def test_clients_that_leave(pair):
    """Connections end in the middle of either leg; nothing stays behind, and later requests are served."""
    prefill, decode, alone, proxy = pair
    expired = prefill.metric("vllm:nixl_num_kv_expired_reqs_total")

    def leave(url, body, after):
        try:
            request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=after).read()
        except (OSError, urllib.error.URLError):
            pass

    threads = []
    for i in range(20):
        body = dict(model="m", prompt=prompt_of(200, 1000 + i), max_tokens=30, ignore_eos=True)
        if i % 2:
            body["kv_transfer_params"] = {"do_remote_decode": True}
            threads.append(threading.Thread(target=leave, args=(prefill.url, body, 0.01 + 0.002 * i)))
        else:
            leg = dict(body, max_tokens=1, kv_transfer_params={"do_remote_decode": True})
            body["kv_transfer_params"] = json.loads(post(prefill.url, "/v1/completions", leg)[1])["kv_transfer_params"]
            threads.append(threading.Thread(target=leave, args=(decode.url, body, 0.005 + 0.002 * i)))
        threads[-1].start()
    for t in threads:
        t.join()
    wait_for(lambda: decode.metric("vllm:kv_cache_usage_perc") == 0, 20, "the decode side holds nothing")
    prompt = prompt_of(90, 4242)
    assert complete(proxy.url, prompt)["choices"] == complete(alone.url, prompt)["choices"]
    assert prefill.metric("vllm:nixl_num_kv_expired_reqs_total") >= expired


def test_refused_by_the_decode_side(pair):
    """What the decode server answers with 4xx it tells the prefill server, whose lease ends at once, not after 30 s."""
    prefill, decode, alone, _ = pair
    prompt = prompt_of(120, 555)
    leg = dict(model="m", prompt=prompt, max_tokens=1, ignore_eos=True, kv_transfer_params={"do_remote_decode": True})
    wait_for(lambda: prefill.metric("weir_kv_leases") == 0, 40, "leases of other tests are over")
    expired, times = prefill.metric("vllm:nixl_num_kv_expired_reqs_total"), []
    for bad in (dict(temperature=-1), dict(max_tokens="x"), dict(model="no such model"), dict(max_tokens=100000), dict(stop=5)):
        params = json.loads(post(prefill.url, "/v1/completions", leg)[1])["kv_transfer_params"]
        settled(prefill, "weir_kv_leases", 1)
        status, text = post(decode.url, "/v1/completions", {**leg, "kv_transfer_params": params, **bad})
        began = time.monotonic()
        assert 400 <= status < 500, (bad, status, text)
        settled(prefill, "weir_kv_leases", 0)
        times.append(time.monotonic() - began)
    print("lease gone after a 4xx, as reported five times a second:", [f"{t * 1e3:.0f} ms" for t in times])
    assert prefill.metric("vllm:nixl_num_kv_expired_reqs_total") == expired
    # who does not name the transfer ends nothing
    params = json.loads(post(prefill.url, "/v1/completions", leg)[1])["kv_transfer_params"]
    other = {**params, "transfer_id": "0" * 31 + "1"}
    assert post(decode.url, "/v1/completions", {**leg, "kv_transfer_params": other, "temperature": -1})[0] == 400
    time.sleep(.5 * SLOW)
    assert prefill.metric("weir_kv_leases") == 1
    got = json.loads(post(decode.url, "/v1/completions", {**leg, "max_tokens": 6, "kv_transfer_params": params})[1])
    assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == 112
    settled(prefill, "weir_kv_leases", 0)


@pytest.mark.parametrize("tp", [(2, 1), (1, 2), (2, 2)], ids=lambda tp: f"{tp[0]} to {tp[1]} ranks")
def test_different_tensor_parallel_sizes(pair, serve, tp):
    alone = pair[2]
    prefill = serve(*KV, "-tp", tp[0])
    decode = serve(*KV, *ALLOW, "-tp", tp[1])
    proxy = Proxy(prefill.url, decode.url)
    try:
        for n in (40, 145):
            prompt = prompt_of(n, 31 * n)
            got, want = complete(proxy.url, prompt), complete(alone.url, prompt)
            assert got["choices"][0]["logprobs"]["tokens"] == want["choices"][0]["logprobs"]["tokens"]
            assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == (n - 1) // 16 * 16
            assert proxy.params[-1]["tp_size"] == tp[0]
        assert decode.metric("vllm:nixl_num_failed_transfers_total") == 0
        settled(prefill, "weir_kv_leases", 0)
    finally:
        proxy.stop()
