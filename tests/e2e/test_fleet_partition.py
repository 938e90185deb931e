"""A network that is cut: a worker in a network namespace of its own, behind a cable that is pulled under its streams. Needs root and
iproute2; visibly skipped otherwise."""
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile
import threading
import time

import pytest
from conftest import BUILD, SLOW, TINY, Server, free_port, wait_for
from fleet import percentiles
from test_fleet_replay import PROMPTS

NAME = "weir" + secrets.token_hex(4)


def ip(*args):
    return subprocess.run(["ip", *args], capture_output=True, text=True)


def permitted():
    if os.geteuid() != 0 or not shutil.which("ip") or ip("netns", "add", NAME).returncode:
        return False
    ip("netns", "del", NAME)
    return True


pytestmark = pytest.mark.skipif(not permitted(), reason="network namespaces are not permitted here")


class Cabled:
    """Worker 0 lives at the far end of a cable, worker 1 here; a router in front of both, by TCP."""

    def __init__(self, *router_flags):
        self.name, port, here = NAME, free_port(), free_port()
        net = 1 + secrets.randbelow(250)
        self.far = f"10.213.{net}.2"
        for step in (["netns", "add", NAME], ["link", "add", NAME + "a", "type", "veth", "peer", "name", NAME + "b", "netns", NAME],
                     ["addr", "add", f"10.213.{net}.1/30", "dev", NAME + "a"], ["link", "set", NAME + "a", "up"],
                     ["-n", NAME, "addr", "add", self.far + "/30", "dev", NAME + "b"], ["-n", NAME, "link", "set", NAME + "b", "up"],
                     ["-n", NAME, "link", "set", "lo", "up"]):
            done = ip(*step)
            assert done.returncode == 0, (step, done.stderr)
        self.folder = tempfile.TemporaryDirectory(prefix="weir-partition-")
        token = pathlib.Path(self.folder.name) / "token"
        token.write_text("a secret of this test\n")
        token.chmod(0o600)
        self.urls = [f"tcp://{self.far}:{port}", f"tcp://127.0.0.1:{here}"]
        flags = [str(TINY), "--mock", "--mock-step-ms", "5", "--threads", "1", "--cluster-token-file", str(token)]
        self.log = open(pathlib.Path(self.folder.name) / "log", "w+")
        self.workers = [subprocess.Popen([*where, str(BUILD / "weir-worker"), *flags, "--listen", url], stdout=self.log, stderr=self.log)
                        for where, url in zip((["ip", "netns", "exec", NAME], []), self.urls)]
        self.router = Server("--worker", self.urls[0], "--worker", self.urls[1], "--cluster-token-file", token, "--enable-admin-api",
                             *router_flags, command="router")
        wait_for(lambda: self.states() == ["ready", "ready"], 20, "both workers")

    def states(self):
        by_url = {w["address"]: w["state"] for w in json.loads(self.router.get("/weir/workers"))["workers"]}
        return [by_url.get(u, "gone") for u in self.urls]

    def cable(self, state):
        assert ip("link", "set", self.name + "a", state).returncode == 0

    def stop(self):
        self.router.stop(expect=None)
        for w in self.workers:
            w.kill()
            w.wait()
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        self.folder.cleanup()
        ip("netns", "del", self.name)
        ip("link", "del", self.name + "a")
        assert "ERROR: " not in text and "runtime error:" not in text, text


@pytest.fixture
def cabled():
    try:
        c = Cabled()
    except BaseException:
        ip("netns", "del", NAME)
        raise
    yield c
    c.stop()


def test_partition(cabled):
    """Streams end as if nothing had happened, the longest silence is under two seconds and a half, and the worker is back when the
    cable is."""
    client = cabled.router.client()

    def stream(seed, silences):
        text, last = "", time.monotonic()
        for chunk in client.completions.create(model="", prompt=PROMPTS[seed], max_tokens=600, temperature=1, seed=seed, stream=True,
                                               extra_body={"ignore_eos": True}):
            text += chunk.choices[0].text
            silences.append(time.monotonic() - last)
            last = time.monotonic()
        return text

    want = [stream(seed, []) for seed in range(4)]
    for cut_s in (0.3, 5):
        got, silences = [None] * 4, [[] for _ in range(4)]
        threads = [threading.Thread(target=lambda k=k: got.__setitem__(k, stream(k, silences[k]))) for k in range(4)]
        for t in threads:
            t.start()
        wait_for(lambda: all(len(s) > 20 for s in silences), 20, "every stream under way")
        cabled.cable("down")
        time.sleep(cut_s)
        cabled.cable("up")
        for t in threads:
            t.join()
        assert got == want
        longest = max(max(s[20:]) for s in silences)
        percentiles(f"longest silences of streams, cable out for {cut_s} s", [max(s[20:]) for s in silences])
        assert longest < 2.5 * SLOW
        wait_for(lambda: cabled.states() == ["ready", "ready"], 30, "both workers again")
    assert cabled.router.metric_of("weir_failovers_total", outcome="failed") == 0
    assert cabled.router.metric_of("weir_failovers_total", outcome="ok") >= 1
    wait_for(lambda: cabled.router.metric("vllm:num_requests_running") == 0, 10, "nothing left behind")
