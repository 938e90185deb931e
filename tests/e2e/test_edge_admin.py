"""The admin routes (api.md 15.4): there with their flag only, and what they do to requests of every kind."""
import json
import re
import resource
import socket
import threading
import time

import pytest

from conftest import SLOW, TINY, Server, wait_for
from test_edge import ask

KEY = [("Authorization", "Bearer sk-1")]
ROUTES = [("POST", "/abort_requests"), ("POST", "/reset_prefix_cache"), ("GET", "/debug/requests"), ("GET", "/weir/workers")]


@pytest.fixture(scope="module")
def admin():
    s = Server("--mock", "--mock-step-ms", 5, "--max-num-seqs", 4, "--enable-admin-api", "--api-key", "sk-1", "--workers", 1, "--threads", 3)
    yield s
    s.stop()


def call(server, path, body=None, method="POST"):
    status, _, answer = ask(server, path, method, KEY, None if body is None else json.dumps(body).encode())
    return status, json.loads(answer)


def live(server):
    return call(server, "/debug/requests", method="GET")[1]["requests"]


class Request(threading.Thread):
    """A long request on a connection of its own, whose answer is looked at after it was aborted."""

    def __init__(self, server, path="/v1/completions", request_id=None, **fields):
        super().__init__()
        what = {"prompt": "secret words"} if "chat" not in path else {"messages": [{"role": "user", "content": "secret words"}]}
        self.server, self.path, self.answer = server, path, None
        self.body = json.dumps({**what, "max_tokens": 1500, "ignore_eos": True, **fields}).encode()
        self.headers = KEY + ([("X-Request-Id", request_id)] if request_id else [])
        self.start()

    def run(self):
        self.answer = ask(self.server, self.path, "POST", self.headers, self.body)

    def reasons(self):
        self.join(20 * SLOW)
        status, _, body = self.answer
        assert status == 200, body
        if body.startswith(b"data: "):
            events = [e[6:] for e in body.decode().strip().split("\n\n")]
            assert events[-1] == "[DONE]"
            choices = [c for e in events[:-1] for c in json.loads(e)["choices"]]
        else:
            choices = json.loads(body)["choices"]
        return sorted(c["finish_reason"] for c in choices if c["finish_reason"])


def at_rest(server):
    wait_for(lambda: server.metric("vllm:num_requests_running") == 0 and server.metric("vllm:kv_cache_usage_perc") == 0, 10, "an idle worker")
    assert live(server) == []


def test_only_with_their_flag_and_a_key(admin, serve):
    plain = serve("--mock")
    for method, path in ROUTES:
        assert ask(plain, path, method)[0] == 404
        assert ask(admin, path, method)[0] == 401
        status, headers, _ = ask(admin, path, "PUT", KEY)
        assert status == 405 and method in headers["Allow"]


def test_requests_are_listed(admin):
    assert live(admin) == []
    threads = [Request(admin, request_id="list-1"), Request(admin, "/v1/chat/completions", n=2, temperature=1, stream=True), Request(admin, n=3, temperature=1)]
    wait_for(lambda: len(live(admin)) == 3 and any(r["output_tokens"] > 5 for r in live(admin)), 10, "three requests")
    assert call(admin, "/debug/requests", method="GET")[1]["total"] == 3
    rows = live(admin)
    assert all(set(r) == {"id", "internal_id", "route", "model", "state", "client_gone", "worker", "prefill_worker", "age_s", "prompt_tokens", "output_tokens"} for r in rows)
    first = next(r for r in rows if r["id"] == "cmpl-list-1")
    assert first["route"] == "completions" and first["state"] in ("prefill", "decode") and not first["client_gone"] and first["worker"] == 0 and re.fullmatch("[0-9a-f]{32}", first["internal_id"])
    assert 0 < first["age_s"] < 30 * SLOW and first["prompt_tokens"] >= 2
    assert {r["route"] for r in rows} == {"completions", "chat"} and len({r["internal_id"] for r in rows if r["internal_id"]}) == len([r for r in rows if r["internal_id"]])
    assert "secret" not in json.dumps(rows)
    assert call(admin, "/abort_requests") == (200, {"status": "aborted", "aborted": 3})
    assert [t.reasons() for t in threads] == [["abort"], ["abort"] * 2, ["abort"] * 3]
    at_rest(admin)


def test_a_client_that_left_is_listed_until_its_work_is_back(admin):
    """A template that takes the pool a while; its client does not wait. The row goes with the job, and nothing is left."""
    loops = "{% for a in range(1500) %}{% for b in range(1500) %}{% endfor %}{% endfor %}x"
    body = json.dumps({"messages": [{"role": "user", "content": "secret words"}], "chat_template": loops}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    seen = []
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", admin.port)) as c:
            c.sendall(head.encode() + body)
            end = time.monotonic() + 1
            while not live(admin) and time.monotonic() < end:  # one that was too quick to be seen is no loss
                pass
        wait_for(lambda: seen.extend(live(admin)) or not live(admin), 20, "its end")
        if any(r["client_gone"] for r in seen):
            break
    gone = [r for r in seen if r["client_gone"]]
    assert gone and all(r["state"] == "ending" and r["worker"] is None and r["id"].startswith("chatcmpl-") for r in gone)
    assert {r["state"] for r in seen} <= {"preparing", "ending", "queue", "prefill", "decode"}
    at_rest(admin)


def test_the_list_has_an_end(admin):
    """A thousand rows, and how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2500:
        pytest.skip(f"{hard} descriptors are too few")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2500), hard))
    body = b'{"prompt": "x", "max_tokens": 1500, "ignore_eos": true}'
    text = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    clients = []
    try:
        for _ in range(1100):
            clients.append(socket.create_connection(("127.0.0.1", admin.port)))
            clients[-1].sendall(text + body)
        wait_for(lambda: call(admin, "/debug/requests", method="GET")[1]["total"] == 1100, 20, "all of them")
        assert len(live(admin)) == 1000
        assert {r["state"] for r in live(admin)} <= {"preparing", "queue", "prefill", "decode"}
    finally:
        for c in clients:
            c.close()
    at_rest(admin)


def test_abort_by_id(admin):
    threads = [Request(admin, request_id=i, stream=s) for i, s in (("a", False), ("a", True), ("b", False))]
    wait_for(lambda: len(live(admin)) == 3, 10, "three requests")
    assert call(admin, "/abort_requests", {"request_ids": ["a", "cmpl-", "chatcmpl-a", "cmpl-c", ""]})[1]["aborted"] == 0
    assert call(admin, "/abort_requests", {"request_ids": ["cmpl-c", "cmpl-a"]})[1]["aborted"] == 2
    assert [t.reasons() for t in threads[:2]] == [["abort"], ["abort"]]
    assert [r["id"] for r in live(admin)] == ["cmpl-b"]
    assert call(admin, "/abort_requests", {"request_ids": []})[1]["aborted"] == 1
    assert threads[2].reasons() == ["abort"]
    at_rest(admin)


def test_abort_of_many_in_every_state(admin):
    """More than run at a time, so that some wait at the worker and some here; while they come and go."""
    threads = [Request(admin, request_id=f"m{i}", stream=i % 2 == 0, prompt=["x"] * (1 + i % 3)) for i in range(60)]
    total = 0
    end = time.monotonic() + 30 * SLOW
    while any(t.is_alive() for t in threads) and time.monotonic() < end:
        total += call(admin, "/abort_requests")[1]["aborted"]
    assert total == 60
    for i, t in enumerate(threads):
        assert t.reasons() == ["abort"] * (1 + i % 3)
    at_rest(admin)


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b'{"request_ids": "a"}', b'{"request_ids": [7]}', b'{"request_ids": [null]}', b'{"request_ids": {}}'])
def test_bad_bodies(admin, body):
    status, _, answer = ask(admin, "/abort_requests", "POST", KEY, body)
    assert status == 400 and json.loads(answer)["error"]["type"] == "BadRequestError"
    assert ask(admin, "/abort_requests", "POST", KEY, json.dumps({"request_ids": ["x" * 300000]}).encode())[0] == 413


def test_workers(admin):
    status, answer = call(admin, "/weir/workers", method="GET")
    (w,) = answer["workers"]
    assert status == 200 and set(w) == {"id", "address", "models", "tasks", "role", "state", "running", "waiting", "kv_usage", "version"}
    assert w["state"] == "ready" and w["models"] == [str(TINY)] and w["tasks"] == ["generate"] and w["address"].startswith("ipc://") and w["role"] == "both"
    assert (w["running"], w["waiting"], w["kv_usage"], w["id"]) == (0, 0, 0, 0) and re.fullmatch(r"\d+\.\d+\.\d+", w["version"])


def test_reset_of_the_prefix_cache(serve):
    s = serve("--enable-admin-api", "--enable-prompt-tokens-details", "--workers", 2)

    def cached():
        body = json.dumps({"prompt": list(range(5, 105)), "max_tokens": 1}).encode()
        return json.loads(ask(s, "/v1/completions", "POST", body=body)[2])["usage"]["prompt_tokens_details"]["cached_tokens"]

    wait_for(lambda: cached() and cached() and cached(), 20, "a cache that is hit")
    assert call(s, "/reset_prefix_cache") == (200, {"success": True})
    assert cached() == 0
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(call(s, "/reset_prefix_cache"))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(answers) == 8 and all(a in ((200, {"success": True}),) or a[0] == 503 for a in answers) and any(a[0] == 200 for a in answers)
    assert call(s, "/reset_prefix_cache") == (200, {"success": True})
