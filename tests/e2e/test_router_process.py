"""The router as a process of its machine: memory that goes back, dead peers, frozen workers."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import socket
import time

import pytest

from conftest import SLOW, wait_for


def rss_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def post(port, body):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60 * SLOW)
    c.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    r = c.getresponse()
    r.read()
    c.close()
    return r.status


@pytest.mark.slow_sanitized
def test_memory_of_large_bodies_goes_back(serve):
    """Bodies of 30 MiB, text and JSON in small pieces, two at a time: refused, and nothing of them stays."""
    server = serve()
    assert post(server.port, json.dumps({"prompt": "hello", "max_tokens": 4})) == 200
    idle = rss_mib(server.proc.pid)
    bodies = [json.dumps({"prompt": "a" * (30 << 20)}),
              json.dumps({"prompt": "ab " * (10 << 20)}),
              '{"prompt":[' + ",".join(["[1,2,3]"] * 120000) + '],"model":"' + "m" * (20 << 20) + '"}']
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda b: post(server.port, b), bodies * 2)) <= {400, 404}
    wait_for(lambda: rss_mib(server.proc.pid) < idle + 24, 10, "memory going back")
    assert post(server.port, json.dumps({"prompt": "hello", "max_tokens": 4})) == 200


def keepalive_timers(port):
    """How many of the server's connections have the kernel's keep-alive timer (proc(5), net/tcp: tr 02)."""
    n = 0
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        f = line.split()
        n += f[1].endswith(f":{port:04X}") and f[3] == "01" and f[5].startswith("02:")
    return n


def test_silent_peers_are_asked(serve):
    """A connection that says nothing is watched by TCP keep-alive."""
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port)):
        wait_for(lambda: keepalive_timers(server.port) == 1, 5, "the keep-alive timer")


def test_frozen_worker_is_replaced(serve):
    """SIGSTOP for good: after ten seconds without an answer `weir serve` kills the worker, starts another."""
    server = serve()
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    begin = time.monotonic()
    wait_for(lambda: server.worker_pids() not in ([worker], []), 30, "another worker")
    assert time.monotonic() - begin > 9
    wait_for(lambda: server.status("/health") == 200, 20, "the new worker")
    assert "did not answer for 10 s" in server.output()
    assert post(server.port, json.dumps({"prompt": "hello", "max_tokens": 4})) == 200
