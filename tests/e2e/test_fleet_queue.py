"""Who waits, for how long, and who is refused: two routers before scripted workers, with real processes.

The same in virtual time, with the figures as they are meant: tests/sim/test_fair_sim.c. Here other processes want the
cores, too, so bounds in time are wider."""
import asyncio
import concurrent.futures
import contextlib
import json
import pathlib
import random
import socket
import time
import urllib.error
import urllib.request

import pytest
from conftest import SLOW, wait_for
from fleet import percentiles

MOCK = ["--mock", "--mock-step-ms", "20", "--mock-prefill-us-per-token", "200"]


def post(router, body, headers=None, path="/v1/completions", timeout=60):
    """Status, headers, the body's object."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    req = urllib.request.Request(router.url + path, data=data, method="POST",
                                 headers={"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(req, timeout=timeout * SLOW) as r:
            return r.status, r.headers, json.loads(r.read())
    except urllib.error.HTTPError as e:
        return e.code, e.headers, json.loads(e.read())


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


class Load:
    """Requests of tenants at a rate each, Poisson, through all routers in turn; streams, so that the first token shows."""

    def __init__(self, routers, seconds, prompt="the house by the sea " * 5, max_tokens=(8, 24)):
        self.routers, self.seconds = routers, seconds
        self.body, self.max_tokens = {"prompt": prompt, "temperature": 0, "stream": True}, max_tokens
        self.rng = random.Random(3)
        self.ttft, self.refused, self.done, self.other = {}, [], {}, []
        self.idle = {r.port: [] for r in routers}

    async def one(self, name, router, headers):
        begin = time.monotonic()
        # Different lengths, so that the scripted workers' seats do not all become free at once.
        body = json.dumps({**self.body, "max_tokens": self.rng.randint(*self.max_tokens)})
        idle = self.idle[router.port]
        r, w = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", router.port)
        lines = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        w.write(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lines}"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        head = (await r.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split()[1])
        if status != 200:
            n = int(head.split("content-length: ")[1].split("\r")[0])
            await r.readexactly(n)
            after = time.monotonic() - begin
            retry = int(head.split("retry-after: ")[1].split("\r")[0]) if "retry-after: " in head else None
            (self.refused if status == 429 else self.other).append((name, after, retry, status))
        else:
            self.ttft.setdefault(name, []).append((begin, time.monotonic() - begin))
            await r.readuntil(b"0\r\n\r\n")
            self.done.setdefault(name, []).append(time.monotonic())
        idle.append((r, w))

    async def tenant(self, name, per_s, headers, seed):
        rng, i, tasks = random.Random(seed), 0, []
        begin = at = time.monotonic()
        while at < begin + self.seconds:
            await asyncio.sleep(max(0, at - time.monotonic()))
            tasks.append(asyncio.create_task(self.one(name, self.routers[i % len(self.routers)], headers)))
            i += 1
            at += rng.expovariate(per_s)
        await asyncio.gather(*tasks)

    async def all(self, tenants):
        self.begin = time.monotonic()
        await asyncio.gather(*(self.tenant(name, per_s, headers, k) for k, (name, per_s, headers) in enumerate(tenants)))
        for idle in self.idle.values():
            for _, w in idle:
                w.close()

    def run(self, *tenants):
        asyncio.run(self.all(tenants))
        return self

    def first_tokens(self, name, skip=1.5):
        return [t for at, t in self.ttft.get(name, []) if at > self.begin + skip]

    def rate(self, skip=1.5):
        """Requests done a second, over the time in which they came."""
        n = sum(1 for v in self.done.values() for t in v if self.begin + skip < t < self.begin + self.seconds)
        return n / (self.seconds - skip)


def p(values, q):
    return sorted(values)[min(int(q * len(values)), len(values) - 1)]


@pytest.mark.slow_sanitized
def test_flood(fleet, tmp_path):
    """A tenant at its share, and at ten times that: what the other one sees of it."""
    keys = tmp_path / "keys"
    keys.write_text("sk-calm\nsk-flood\n")
    f = fleet(2, "--api-key-file", keys, "--max-queued-requests", "64", n_routers=2, key="sk-calm",
              worker_flags=["--mock", "--mock-step-ms", "20", "--mock-prefill-us-per-token", "10000", "--max-num-seqs", "16"])
    share = 25  # requests a second: half of what the two do, in about 0.6 s each
    calm = Load(f.routers, 9).run(("calm", share / 2, bearer("sk-calm")), ("flood", share, bearer("sk-flood")))
    flood = Load(f.routers, 9).run(("calm", share / 2, bearer("sk-calm")), ("flood", 10 * share, bearer("sk-flood")))
    before, after = calm.first_tokens("calm"), flood.first_tokens("calm")
    percentiles("calm", before)
    percentiles("beside a flood", after)
    percentiles("the flood", flood.first_tokens("flood"))
    percentiles("its refusals", [t for n, t, _, _ in flood.refused])
    print(f"p99 {p(after, .99) / p(before, .99):.2f} times, p50 {p(after, .5) / p(before, .5):.2f} times; "
          f"{len(flood.refused)} refused, {flood.rate():.1f} done a second")
    assert not calm.other and not flood.other
    assert not [n for n, *_ in calm.refused + flood.refused if n == "calm"]
    assert len(flood.refused) > 200 and len(after) > 0.8 * len(before)
    assert p(after, .99) <= 2.5 * p(before, .99)
    # A router's own wait is its line over the rate, and the flood's is long.
    assert p(flood.first_tokens("flood"), .5) > 3 * p(after, .5)
    assert all(1 <= retry <= 60 for _, _, retry, _ in flood.refused)
    for r in f.routers:
        assert not [line for line in r.get("/metrics").splitlines() if "sk-" in line]


@pytest.mark.slow_sanitized
def test_overload(fleet):
    """Three times what the workers can do: as much is done as at their peak, and the rest is told at once."""
    f = fleet(2, "--max-queued-requests", "40", n_routers=2, worker_flags=[*MOCK, "--max-num-seqs", "8"])
    rates, waits = [], []
    pids = [r.proc.pid for r in f.routers]
    for per_s in (34, 50, 100):
        load = Load(f.routers, 7).run(("all", per_s, {}))
        rates.append(load.rate())
        waits = [t for _, t, _, _ in load.refused]
        print(f"{per_s} a second: {load.rate():.1f} done, {len(waits)} refused")
        percentiles("refusals", waits)
        assert not load.other
    assert len(waits) > 150
    assert rates[-1] >= 0.9 * max(rates)
    assert p(waits, .95) <= 0.1
    assert all(f.router.metric("weir_queue_depth") <= 40 for r in f.routers)
    for pid in pids:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        assert int(status.split("VmRSS:")[1].split()[0]) < 100 * 1024
    for r in f.routers:
        wait_for(lambda r=r: f.idle(r), 20, "idle")


def hold(f, n, router=None, headers=None, max_tokens=40):
    """n requests that take the worker's seats, in threads; returns their futures."""
    pool = concurrent.futures.ThreadPoolExecutor(n)
    body = {"prompt": "x", "max_tokens": max_tokens}
    return [pool.submit(post, router or f.router, body, headers) for _ in range(n)]


@contextlib.contextmanager
def plug(f):
    """Somebody in a worker's only seat for as long as it takes; whoever comes meanwhile waits."""
    body = json.dumps({"prompt": "x", "max_tokens": 1500, "ignore_eos": True, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", f.router.port)) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        s.recv(1)
        wait_for(lambda: f.router.metric("vllm:num_requests_running") == 1, 10, "the seat is taken")
        yield


def test_refused_unread(fleet):
    """A full line answers before the body is read; who has nothing in it is let in."""
    f = fleet(1, "--tenant-header", "X-Team", "--max-queued-requests", "8",
              worker_flags=["--mock", "--mock-step-ms", "25", "--max-num-seqs", "2"])
    held = hold(f, 60, headers={"X-Team": "red"}, max_tokens=60)
    nonsense = b"{" * 50
    wait_for(lambda: post(f.router, nonsense, {"x-team": "red"})[0] == 429, 10, "a refusal")
    status, headers, answer = post(f.router, nonsense, {"X-Team": "red"})
    assert status == 429 and answer["error"]["type"] == "RateLimitError" and 1 <= int(headers["Retry-After"]) <= 60
    assert "--max-queued-requests" in answer["error"]["message"]
    assert post(f.router, nonsense, {"X-Team": "blue"})[0] == 400
    begin = time.monotonic()
    status, _, answer = post(f.router, {"prompt": "x", "max_tokens": 2}, {"X-Team": "blue"})
    mine = time.monotonic() - begin
    assert status == 200
    statuses = [h.result()[0] for h in held]
    assert set(statuses) == {200, 429} and statuses.count(429) > 10
    assert mine < 0.5 * (time.monotonic() - begin + 3)
    assert f.router.metric_of("weir_rejected_total", reason="queue_full", status="429") > 10


def test_limits_of_keys(fleet, tmp_path):
    """Requests and tokens a minute, and another file."""
    keys = tmp_path / "keys"
    keys.write_text("# keys\nsk-free\nsk-few rpm=3\nsk-short tpm=60\n")
    f = fleet(1, "--api-key-file", keys, worker_flags=["--mock", "--mock-step-ms", "1"], key="sk-free")
    body = {"prompt": "x", "max_tokens": 4}
    wait_for(lambda: post(f.router, body, bearer("sk-free"))[0] == 200, 10, "an answer")
    assert [post(f.router, body, bearer("sk-few"))[0] for _ in range(4)] == [200, 200, 200, 429]
    status, headers, answer = post(f.router, b"{", bearer("sk-few"))
    assert (status, answer["error"]["type"]) == (429, "RateLimitError")
    assert "3 requests a minute" in answer["error"]["message"] and 15 <= int(headers["Retry-After"]) <= 20
    assert [post(f.router, body, bearer("sk-free"))[0] for _ in range(5)] == [200] * 5
    # What is said counts: 50 tokens come, the next prompt finds some ten left.
    assert post(f.router, {"prompt": "x", "max_tokens": 50}, bearer("sk-short"))[0] == 200
    status, _, answer = post(f.router, {"prompt": "house " * 40, "max_tokens": 1}, bearer("sk-short"))
    assert status == 429 and "60 tokens a minute" in answer["error"]["message"]
    assert post(f.router, body, bearer("sk-other"))[0] == 401
    assert post(f.router, {"prompt": "x"}, bearer("sk-few"), path="/tokenize")[0] == 200  # no inference
    assert f.router.metric_of("weir_rejected_total", reason="limit", status="429") == 3

    keys.write_text("sk-few rpm=5\nsk-other\n")
    wait_for(lambda: post(f.router, body, bearer("sk-other"))[0] == 200, 10, "the new key")
    assert post(f.router, body, bearer("sk-free"))[0] == 401
    assert post(f.router, body, bearer("sk-few"))[0] == 429  # what was had stays had
    keys.write_text("sk-few rpm=none\n")
    wait_for(lambda: "the keys stay as they were" in f.router.output(), 10, "a word in the log")
    assert post(f.router, body, bearer("sk-other"))[0] == 200
    assert "sk-" not in f.router.output()


def test_priority(fleet):
    """Classes by the body's field and by the header, in a router's line and in the worker's."""
    f = fleet(1, "--priority-header", "X-Class", "--max-queued-requests", "1000",
              worker_flags=["--mock", "--mock-step-ms", 10 * SLOW, "--max-num-seqs", "1", "--scheduling-policy", "priority"])
    ends, pool = {}, concurrent.futures.ThreadPoolExecutor(170)

    def ask(name, priority=None, header=None):
        body = {"prompt": "x", "max_tokens": 4, **({} if priority is None else {"priority": priority})}
        status = post(f.router, body, {} if header is None else {"X-Class": header})[0]
        ends.setdefault(name, []).append(time.monotonic())
        return status

    def waiting():
        return f.router.metric("vllm:num_requests_waiting")

    with plug(f):
        many = [pool.submit(ask, "many") for _ in range(150)]
        wait_for(lambda: waiting() == 150 and f.router.metric("weir_queue_depth") > 5, 10, "a line")
        late = [pool.submit(ask, "last", 7), pool.submit(ask, "field", -1), pool.submit(ask, "header", 9, "-2")]
        wait_for(lambda: waiting() == 153, 5, "a longer line")
    assert all(x.result() == 200 for x in many + late)
    order = sorted((t, name) for name, v in ends.items() for t in v)
    at = {name: [i for i, (_, n) in enumerate(order) if n == name] for name in ends}
    assert max(at["field"] + at["header"]) < 20 and at["last"][0] > 145
    for bad in ("", "1.5", "x", "2147483648", "1 2"):
        status, _, answer = post(f.router, {"prompt": "x", "max_tokens": 1}, {"X-Class": bad})
        assert status == 400 and answer["error"]["param"] == "priority", bad


def test_priority_needs_the_policy(fleet):
    f = fleet(1, "--priority-header", "X-Class", worker_flags=["--mock", "--mock-step-ms", "1"])
    assert post(f.router, {"prompt": "x", "max_tokens": 1}, {"X-Class": "0"})[0] == 200
    status, _, answer = post(f.router, {"prompt": "x", "max_tokens": 1}, {"X-Class": "1"})
    assert status == 400 and answer["error"]["param"] == "priority"


def test_bounds_by_tokens_and_time(fleet):
    f = fleet(1, "--max-queued-tokens", "100", worker_flags=["--mock", "--mock-step-ms", 10 * SLOW, "--max-num-seqs", "1"])
    big = {"prompt": "house " * 200, "max_tokens": 1}
    with plug(f):
        held = hold(f, 140, max_tokens=3)
        wait_for(lambda: f.router.metric("weir_queue_tokens") > 0, 10, "a line")
        status, headers, answer = post(f.router, big)
    assert status == 429 and "--max-queued-tokens" in answer["error"]["message"] and headers["Retry-After"]
    assert {h.result()[0] for h in held} <= {200, 429}
    assert post(f.router, big)[0] == 200  # alone it may

    f = fleet(1, "--max-queue-wait", "0.5", worker_flags=["--mock", "--mock-step-ms", 20 * SLOW, "--max-num-seqs", "1"])
    held = hold(f, 60, max_tokens=5)
    wait_for(lambda: post(f.router, b"{")[0] == 429, 15, "a refusal")
    status, _, answer = post(f.router, b"{")
    assert status == 400 or "--max-queue-wait" in answer["error"]["message"]
    assert {h.result()[0] for h in held} <= {200, 429}
