"""What happens when a worker dies, a client leaves, or the server is told to stop."""
import http.client
import json
import os
import random
import signal
import socket
import threading
import time

import pytest

from conftest import SANITIZED, SCALE, SLOW, wait_for


def stream_request(port, **body):
    body = {"prompt": "tell me", "max_tokens": 1500, "stream": True, "ignore_eos": True, **body}
    data = json.dumps(body).encode()
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n")
    s = socket.create_connection(("127.0.0.1", port), timeout=30 * SLOW)
    s.sendall(head.encode() + data)
    return s


def gauges(server):
    return [server.metric(f"vllm:{name}") for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")]


def test_clients_that_leave(serve):
    """200 clients leave before, during and after their streams; nothing is left behind."""
    server = serve("--max-num-seqs", 16)
    rng = random.Random(1)

    def leave():
        s = stream_request(server.port, max_tokens=rng.choice([1, 4, 200]), prompt="word " * rng.choice([1, 30, 300]))
        phase = rng.random()
        if phase < 0.3:
            time.sleep(rng.random() * 0.05)
        elif phase < 0.8:
            s.recv(rng.choice([1, 200, 2000]))
        s.close()

    threads = []
    for _ in range(int(200 * SCALE)):
        t = threading.Thread(target=leave)
        t.start()
        threads.append(t)
        if len(threads) % 20 == 0:
            time.sleep(0.05)
    for t in threads:
        t.join()
    wait_for(lambda: gauges(server) == [0, 0, 0], 10, "gauges back at zero")
    assert json.loads(server.get("/load"))["server_load"] == 0
    assert server.client().completions.create(model="", prompt="x", max_tokens=2).usage.completion_tokens == 2


def test_worker_killed_in_mid_stream(serve):
    server = serve()
    s = stream_request(server.port)
    got = s.recv(4096)
    assert got.startswith(b"HTTP/1.1 200")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    while not got.endswith(b"0\r\n\r\n"):
        part = s.recv(65536)
        assert part, got[-300:]
        got += part
    assert b'data: {"error"' in got and b"data: [DONE]" in got
    error = json.loads(got.split(b'data: {"error"')[1].split(b"\n")[0].join([b'{"error"', b""]))
    assert error["error"]["code"] == 503

    conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    conn.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 1}), {"Content-Type": "application/json"})
    r = conn.getresponse()
    if r.status != 200:  # the restart may have won the race
        assert r.status == 503 and int(r.headers["Retry-After"]) >= 1
    wait_for(lambda: server.status("/health") == 200, 20, "restart")
    assert server.client().completions.create(model="", prompt="x", max_tokens=2).usage.completion_tokens == 2
    assert "signal 9" in server.output()


def test_sigterm_lets_requests_finish(serve):
    server = serve()
    s = stream_request(server.port, max_tokens=300)
    got = s.recv(4096)
    server.proc.send_signal(signal.SIGTERM)
    while not got.endswith(b"0\r\n\r\n"):
        part = s.recv(65536)
        assert part, got[-300:]
        got += part
    assert b'data: {"error"' not in got and b"data: [DONE]" in got
    assert server.proc.wait(20 * SLOW) == 0
    assert not server.worker_pids()


def test_second_signal_ends_at_once(serve):
    server = serve()
    stream_request(server.port)
    worker = server.worker_pids()[0]
    server.proc.send_signal(signal.SIGINT)
    time.sleep(0.3)
    server.proc.send_signal(signal.SIGINT)
    server.proc.wait(5 * SLOW)
    wait_for(lambda: not os.path.exists(f"/proc/{worker}"), 5, "the worker's end")


def test_refusals_are_one_line(serve, tmp_path):
    from conftest import TINY, Server
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    cases = [
        (dict(model=tmp_path / "none"), "no model folder", 1),
        (dict(model=tmp_path), "config.json is missing", 1),
        (dict(), "cannot listen", 1, "--port", taken.getsockname()[1]),
        (dict(), "unknown flag", 2, "--max-num-sequences", 3),
        (dict(), "--max-model-len", 1, "--max-model-len", 10**7),
        (dict(), "kv", 1, "--kv-cache-memory-bytes", 1000),
    ]
    for kw, words, status, *flags in cases:
        s = Server(*flags, wait=False, **kw)
        assert s.proc.wait(20 * SLOW) == status, (words, s.output())
        lines = [l for l in s.output().splitlines() if not l.startswith("20")]
        assert any(words.lower() in l.lower() for l in lines), s.output()
        assert len(lines) == 1, s.output()


def test_overload_is_refused_quickly(serve):
    server = serve("--max-num-seqs", 1, "--max-queued-requests", 4)
    streams = [stream_request(server.port, max_tokens=1000) for _ in range(200)]
    time.sleep(0.5 * SLOW)
    codes = []
    for s in streams:
        s.setblocking(False)
        try:
            codes.append(s.recv(12))
        except BlockingIOError:
            codes.append(b"")
    assert any(c.endswith(b"429") for c in codes), codes
    for s in streams:
        s.close()
    wait_for(lambda: gauges(server) == [0, 0, 0], 10, "gauges back at zero")
