"""Servers for the end-to-end tests: real processes from WEIR_BUILD (build/plain unless set), one folder of logs."""
import os
import pathlib
import random
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("WEIR_BUILD", "build/plain")
SANITIZED = BUILD.name != "plain"
SLOW = 4 if SANITIZED else 1
TINY = ROOT / "deploy/tiny-model"
SCALE = float(os.environ.get("TEST_SCALE", "1"))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow_sanitized: too slow, or about speed, under a sanitizer")


def free_port():
    """Below the ports that the kernel hands out, so that nobody else is given it before the server binds it."""
    while True:
        port = random.SystemRandom().randrange(10000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Server:
    """`weir serve` on a free port. Its standard error goes to a file; `stop` checks that it ended in peace."""

    def __init__(self, *flags, model=TINY, command="serve", wait=True, env=None):
        self.log = tempfile.NamedTemporaryFile(prefix="weir-e2e-", suffix=".log", delete=False)
        self.port = free_port()
        args = [str(BUILD / "weir"), command]
        if command == "serve":
            args.append(str(model))
        args += ["--port", str(self.port), *map(str, flags)]
        self.proc = subprocess.Popen(args, cwd=ROOT, stderr=self.log, stdout=self.log, env={**os.environ, **(env or {})})
        self.url = f"http://127.0.0.1:{self.port}"
        if wait:
            self.wait_ready()

    def output(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def wait_ready(self, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.proc.poll() is not None:
                raise RuntimeError(f"weir ended with {self.proc.returncode}:\n{self.output()}")
            if self.status("/health") == 200:
                return
            time.sleep(0.02)
        raise RuntimeError(f"not ready after {seconds} s:\n{self.output()}")

    def status(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as r:
                return r.status
        except urllib.error.HTTPError as e:
            return e.code
        except OSError:
            return None

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as r:
            return r.read().decode()

    def metric(self, name):
        """The sum over a family's series in /metrics."""
        values = [float(line.rsplit(" ", 1)[1]) for line in self.get("/metrics").splitlines()
                  if line.split("{")[0].split(" ")[0] == name]
        assert values, f"no series {name}"
        return sum(values)

    def metric_of(self, name, **labels):
        """One series in /metrics, by some of its labels."""
        values = [float(line.rsplit(" ", 1)[1]) for line in self.get("/metrics").splitlines()
                  if line.split("{")[0] == name and all(f'{k}="{v}"' in line for k, v in labels.items())]
        assert len(values) == 1, f"{len(values)} series {name} {labels}"
        return values[0]

    def client(self, **kw):
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=60 * SLOW, **kw)

    def worker_pids(self):
        out = subprocess.run(["pgrep", "-P", str(self.proc.pid), "-f", "weir-worker"], capture_output=True, text=True)
        return [int(p) for p in out.stdout.split()]

    def stop(self, expect=0):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(40)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                raise RuntimeError(f"did not stop:\n{self.output()}")
        text = self.output()
        assert "ERROR: " not in text and "runtime error:" not in text and "WARNING: ThreadSanitizer" not in text, text
        if expect is not None:
            assert self.proc.returncode == expect, text
        os.unlink(self.log.name)


@pytest.fixture(scope="session")
def tiny():
    s = Server()
    yield s
    s.stop()


@pytest.fixture
def serve():
    """A factory of servers that end with the test."""
    running = []

    def start(*flags, **kw):
        s = Server(*flags, **kw)
        running.append(s)
        return s

    yield start
    for s in running:
        s.stop(expect=None)


@pytest.fixture
def fleet():
    """A factory of fleets (fleet.py) that end with the test."""
    from fleet import Fleet  # which needs this file
    made = []

    def make(*args, **kw):
        made.append(Fleet(*args, **kw))
        return made[-1]

    yield make
    for f in made:
        f.stop()


def wait_for(condition, seconds=10, what="condition"):
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true in {seconds * SLOW} s")
