"""Ranks of one worker on several hosts: processes that share nothing but a connection over loopback. The same tokens as
one rank, with and without TLS, and what becomes of the group when a side of it is gone, hangs, or is a stranger."""
import os
import pathlib
import signal
import socket
import subprocess
import time

import pytest

from conftest import BUILD, ROOT, SANITIZED, SLOW, TINY, Server, free_port, wait_for
from test_fleet_tls import certificate, pki  # noqa: F401
from test_tensor_parallel import FLAGS, alive, greedy, models, ranks_of

TOKEN = "correct horse battery staple"


class Group:
    """Rank 0 with `remote` of its ranks started by hand, and a router in front of it."""

    def __init__(self, folder, model, tp, remote, *flags, scheme="tcp", leader=(), rank=(), router=(), wait=True):
        self.dir, self.model, self.tp, self.remote = folder, model, tp, remote
        self.flags = [*map(str, FLAGS), "--threads", "2", "-tp", str(tp), *map(str, flags)]
        self.address = f"{scheme}://127.0.0.1:{free_port()}"
        self.socket = f"ipc://{folder}/w{len(list(folder.iterdir()))}"
        self.logs, self.procs = [], []
        self.leader = self.start("--listen", self.socket, "--remote-ranks", remote, "--rank-listen", self.address, *leader)
        self.ranks = [self.start("--rank", r, "--leader", self.address, *rank) for r in range(tp - remote, tp)]
        self.router = Server("--worker", self.socket, *router, command="router", wait=False)
        if wait:
            wait_for(self.ready, 60 * SLOW, "the group")

    def start(self, *flags):
        self.logs.append(self.dir / f"{time.monotonic_ns()}.log")
        with open(self.logs[-1], "w") as log:
            p = subprocess.Popen([str(BUILD / "weir-worker"), str(self.model), *self.flags, *map(str, flags)], cwd=ROOT,
                                 stdout=log, stderr=log)
        self.procs.append(p)
        return p

    def ready(self):
        assert all(p.poll() is None for p in self.procs), self.output()
        return self.router.status("/health") == 200

    def output(self):
        return "".join(pathlib.Path(p).read_text() for p in self.logs)

    def stop(self):
        self.router.stop(expect=None)
        for p in self.procs:
            if p.poll() is None:
                p.send_signal(signal.SIGCONT)
                p.kill()
            p.wait()
        assert "ERROR: " not in self.output() and "runtime error:" not in self.output(), self.output()


@pytest.fixture
def group(tmp_path):
    groups = []

    def make(*args, **kw):
        folder = tmp_path / f"group{len(groups)}"
        folder.mkdir()
        groups.append(Group(folder, *args, **kw))
        return groups[-1]
    yield make
    for g in groups:
        g.stop()


def token_file(tmp_path, name="token", text=TOKEN):
    (tmp_path / name).write_text(text + "\n")
    return ["--cluster-token-file", tmp_path / name]


def gone(p, seconds):
    begin = time.monotonic()
    wait_for(lambda: p.poll() is not None, seconds * (10 if SANITIZED else 5), "the end of a process")
    return time.monotonic() - begin


@pytest.mark.parametrize("which", [0, 2], ids=["llama", "mixtral"])
def test_same_tokens(tmp_path, group, which):
    """Ranks of rank 0's host among them, and none; the last of them ends the group by its end, in peace."""
    name, folder, flags, golden = list(models(tmp_path))[which]
    prompts = [p["tokens"] for p in golden["prompts"]] if golden else [[7], list(range(20, 29)), list(range(100, 170))]
    alone = Server(*FLAGS, *flags, model=folder)
    want = [greedy(alone, p) for p in prompts]
    alone.stop()
    for tp, remote in ((2, 1), (4, 2)):
        g = group(folder, tp, remote, *flags, leader=token_file(tmp_path), rank=token_file(tmp_path),
                  router=token_file(tmp_path))
        local = ranks_of(g.leader.pid)
        assert len(local) == tp - remote - 1
        for p, (tokens, logprobs) in zip(prompts, want):
            got, got_logprobs = greedy(g.router, p)
            assert got == tokens, (name, tp)
            assert max(abs(a - b) for a, b in zip(got_logprobs, logprobs)) < 1e-4
        g.leader.terminate()
        assert g.leader.wait(20 * SLOW) == 0, g.output()
        assert [r.wait(10 * SLOW) for r in g.ranks] == [0] * remote, g.output()
        assert not any(map(alive, local))


def test_tls(tmp_path, group, pki):  # noqa: F811
    """Certificates on both sides and the token; a name that is another ends a rank."""
    ca, name = ["--cluster-tls-ca", pki / "ca.pem"], ["--cluster-tls-name", "worker.weir"]
    g = group(TINY, 2, 1, scheme="tls+tcp", leader=[*certificate(pki, "worker"), *ca, *token_file(tmp_path)],
              rank=[*certificate(pki, "router"), *ca, *name, *token_file(tmp_path)], router=token_file(tmp_path))
    assert len(greedy(g.router, [5, 6, 7], 8)[0]) == 8


@pytest.mark.parametrize("who, how, words", [
    ("rank", signal.SIGKILL, "rank 1, on another host: the connection ended"),
    ("rank", signal.SIGSTOP, "rank 1 did not answer"),
    ("leader", signal.SIGKILL, "the connection ended"),
    ("leader", signal.SIGSTOP, "rank 0 did not answer"),
])
def test_gone(group, who, how, words):
    """Within two seconds, with the reason; and the same processes, started again, are a group again."""
    g = group(TINY, 2, 1)
    want = greedy(g.router, [5, 6, 7], 8)
    victim, other = (g.ranks[0], g.leader) if who == "rank" else (g.leader, g.ranks[0])
    victim.send_signal(how)
    took = gone(other, 2)
    assert SANITIZED or took < 10, took
    assert other.returncode == 1 and words in g.output(), g.output()
    print(f"{who} {how.name}: {took:.2f} s")
    if how == signal.SIGKILL:
        again = group(TINY, 2, 1)
        assert greedy(again.router, [5, 6, 7], 8) == want


def test_strangers(tmp_path, group):
    """Who does not know the token, or is started otherwise, is refused by name, and the group that waits takes the next."""
    g = group(TINY, 2, 1, leader=token_file(tmp_path), rank=token_file(tmp_path, "wrong", "guess"),
              router=token_file(tmp_path), wait=False)
    assert gone(g.ranks[0], 10) and "no proof of the cluster token" in g.output()
    for flags, words in [
        (["--rank", "1"], "asks for the cluster's token"),
        (["--rank", "3", *token_file(tmp_path)], "--rank 3: there are 2"),
        (["--rank", "1", "--max-model-len", "128", *token_file(tmp_path)], "--max-model-len is another than rank 0's"),
    ]:
        p = g.start("--leader", g.address, *flags)
        assert gone(p, 10) and p.returncode == 1 and words in g.output(), g.output()
    host, port = g.address.rsplit("/", 1)[1].split(":")
    with socket.create_connection((host, int(port))) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + os.urandom(4096))
        s.settimeout(10)
        try:
            while s.recv(4096):
                pass
        except ConnectionResetError:
            pass
    g.procs = [g.leader, g.start("--rank", 1, "--leader", g.address, *token_file(tmp_path))]
    wait_for(g.ready, 60 * SLOW, "the group")
    late = g.start("--rank", 1, "--leader", g.address, *token_file(tmp_path))  # it is not let in any more, and waits
    assert len(greedy(g.router, [5, 6, 7], 8)[0]) == 8
    assert late.poll() is None


@pytest.mark.parametrize("flags, words", [
    (["--leader", "tcp://127.0.0.1:9"], "--leader takes --rank"),
    (["-tp", "2", "--remote-ranks", "1"], "go together"),
    (["-tp", "2", "--remote-ranks", "2", "--rank-listen", "tcp://127.0.0.1:0"], "the first is on this host"),
    (["-tp", "2", "--remote-ranks", "1", "--rank-listen", "tcp://0.0.0.0:0"], "--cluster-token-file"),
    (["-tp", "2", "--rank", "1", "--leader", "tls+tcp://127.0.0.1:9"], "--cluster-tls-ca"),
    (["-tp", "2", "--rank", "1", "--leader", "ipc:///tmp/x"], "tcp://HOST:PORT"),
])
def test_refused(flags, words):
    r = subprocess.run([str(BUILD / "weir-worker"), str(TINY), *flags], cwd=ROOT, capture_output=True, text=True,
                       timeout=20 * SLOW)
    lines = [line for line in (r.stdout + r.stderr).splitlines() if not line.startswith("20")]
    assert r.returncode in (1, 2) and len(lines) == 1 and words in lines[0], lines
