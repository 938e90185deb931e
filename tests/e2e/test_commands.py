"""weir chat and weir bench serve: against a real server, and against hostile ones."""
import json
import os
import pty
import select
import socket
import ssl
import subprocess
import threading
import time

import pytest

from conftest import BUILD, SLOW, wait_for

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def weir(*args, text="", env=None, seconds=60):
    return subprocess.run([str(BUILD / "weir"), *map(str, args)], input=text.encode(), capture_output=True,
                          timeout=seconds * SLOW, env={**os.environ, **(env or {})})


def chat(server, *flags, text):
    return weir("chat", server.url + "/v1", "--temperature", 0, "--max-tokens", 8, *flags, text=text)


def bench(server, *flags, status=0):
    r = weir("bench", "serve", server.url + "/v1", "--json", *flags, seconds=120)
    assert r.returncode == status, r.stderr
    return json.loads(r.stdout)


class Fake:
    """A server that answers every connection with these bytes, after it has read some of the request."""

    def __init__(self, answer, hold=0, tls=None):
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.sock.getsockname()[1]}/v1"
        self.answer, self.hold, self.tls, self.requests, self.left = answer, hold, tls, [], 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                c = self.sock.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.one, args=(c,), daemon=True).start()

    def one(self, c):
        try:
            c = self.tls.wrap_socket(c, server_side=True) if self.tls else c
            c.settimeout(20)
            request = c.recv(65536)
            if not request:
                return
            self.requests.append(request)
            answer = self.answer() if callable(self.answer) else self.answer
            for piece in answer if isinstance(answer, list) else [answer]:
                c.sendall(piece)
            if self.hold:
                c.settimeout(self.hold)
                while c.recv(65536):
                    pass
                self.left += 1
        except OSError:
            pass
        finally:
            c.close()

    def close(self):
        self.sock.close()


@pytest.fixture
def fake():
    made = []

    def make(*args, **kw):
        made.append(Fake(*args, **kw))
        return made[-1]

    yield make
    for f in made:
        f.close()


def test_chat_pipe(tiny, tmp_path):
    saved = tmp_path / "talk.json"
    r = chat(tiny, text=f"/system Be brief.\nName a colour.\n\nAnother?\n/save {saved}\n/reset\n/save {saved}.2\n/help\n")
    assert r.returncode == 0, r.stderr
    talk = json.loads(saved.read_text())
    assert [m["role"] for m in talk["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    # what was said is what a client gets for the same messages
    for i in (2, 4):
        want = tiny.client().chat.completions.create(model=talk["model"], messages=talk["messages"][:i], max_tokens=8,
                                                     temperature=0).choices[0].message.content
        assert talk["messages"][i]["content"] == want
    assert json.loads((tmp_path / "talk.json.2").read_text())["messages"] == talk["messages"][:1]
    assert (saved.stat().st_mode & 0o777) == 0o600 and b"/save FILE" in r.stdout


def test_chat_failures(tiny):
    r = weir("chat", tiny.url + "/v1", "--model", "nobody", text="Hello\n")
    assert r.returncode == 1 and b"HTTP 404" in r.stderr and b"does not exist" in r.stderr
    assert weir("chat", tiny.url + "/v1", text="/nonsense\n").returncode == 1
    r = weir("chat", tiny.url + "/nowhere", text="Hello\n")
    assert r.returncode == 1 and b"HTTP 404" in r.stderr
    assert weir("chat", "localhost", text="").returncode == 1
    assert weir("chat", "--nonsense", text="").returncode == 2
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    r = weir("chat", f"http://127.0.0.1:{port}", text="")
    assert r.returncode == 1 and b"Connection refused" in r.stderr


def test_keys(serve):
    s = serve("--api-key", "sesame")
    env = {"WEIR_API_KEY": "sesame"}
    assert b"HTTP 401" in chat(s, text="Hello\n").stderr
    assert chat(s, "--api-key", "sesame", text="Hello\n").returncode == 0
    assert weir("chat", s.url, "--max-tokens", 2, text="Hello\n", env=env).returncode == 0
    r = weir("chat", s.url, "--api-key", "a\r\nX: y", text="Hello\n")
    assert r.returncode == 1 and b"API key" in r.stderr


def read_until(fd, what, seconds=20):
    got = b""
    end = time.monotonic() + seconds * SLOW
    while what not in got:
        assert time.monotonic() < end, got
        if select.select([fd], [], [], 0.1)[0]:
            got += os.read(fd, 4096)
    return got


def test_chat_terminal(fake, tmp_path):
    """Ctrl-C stops a running answer and closes its stream; what came is kept; then Ctrl-C ends."""
    f = fake(HEAD + b'data: {"choices":[{"delta":{"content":"red \\u001b[2J"}}]}\n\n', hold=20)
    pid, fd = pty.fork()
    if pid == 0:
        os.execv(str(BUILD / "weir"), ["weir", "chat", f.url, "--model", "m"])
    read_until(fd, b"> ")
    os.write(fd, b"Name a colour.\n")
    assert b"\x1b[2J" not in read_until(fd, b"red ?[2J")
    os.write(fd, b"\x03")
    read_until(fd, b"weir: stopped\r\n> ")
    wait_for(lambda: f.left == 1, what="the stream's end")
    os.write(fd, f"/save {tmp_path}/t\n".encode())
    wait_for(lambda: (tmp_path / "t").exists() and (tmp_path / "t").read_text().endswith("}\n"), what="the file")
    assert json.loads((tmp_path / "t").read_text())["messages"][1]["content"] == "red \x1b[2J"
    os.write(fd, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(fd)


@pytest.mark.parametrize("answer, says", [
    (b"SSH-2.0-x\r\n", b"not valid HTTP/1.1"),
    (b"", b"without an answer"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200, b"too many headers"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20000, b"too long"),
    (HEAD, b"ended before"),
    (HEAD + b"data: {\n\n", b"no JSON"),
    (HEAD + b'data: {"error":{"message":"out of luck"}}\n\n', b"out of luck"),
    (HEAD + b"data: " + b"x" * (2 << 20), b"event of more than"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"no event stream"),
    (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (5 << 20), b"longer than"),
    (b'HTTP/1.1 503 No\r\n\r\n{"error":{"message":"later \\u001b[1m"}}', b"HTTP 503: later ?[1m"),
    (b"HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", b"HTTP 301"),
])
def test_chat_hostile(fake, answer, says):
    r = weir("chat", fake(answer).url, "--model", "m", text="Hello\n")
    assert r.returncode == 1 and says in r.stderr, r.stderr


def test_chat_timeout(fake):
    r = weir("chat", fake(HEAD, hold=20).url, "--model", "m", "--timeout", 0.3, text="Hello\n")
    assert r.returncode == 1 and b"did not answer within" in r.stderr


def test_tls(fake, tmp_path):
    key, crt = tmp_path / "k.pem", tmp_path / "c.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", crt, "-days", "2",
                    "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(crt, key)
    body = b'data: {"choices":[{"delta":{"content":"blue"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    f = fake([HEAD, body], tls=ctx)
    trusted = {"SSL_CERT_FILE": str(crt)}
    r = weir("chat", f.url, "--model", "m", text="Hello\n")
    assert r.returncode == 1 and b"TLS handshake: self-signed certificate" in r.stderr
    assert b"blue" in weir("chat", f.url, "--model", "m", "--insecure", text="Hello\n").stdout
    assert b"blue" in weir("chat", f.url, "--model", "m", text="Hello\n", env=trusted).stdout
    named = f.url.replace("127.0.0.1", "127.1")  # a name to TLS; resolved without /etc/hosts
    r = weir("chat", named, "--model", "m", text="Hello\n", env=trusted)
    assert r.returncode == 1 and b"ostname mismatch" in r.stderr


def check_figures(r, n):
    assert r["completed"] == n and r["failed"] == 0 and r["failures"] == {} and r["without_usage"] == 0
    for name in ("ttft_ms", "itl_ms", "e2e_ms"):
        t = r[name]
        assert 0 < t["p50"] <= t["p90"] <= t["p99"] <= t["max"], t
    assert r["ttft_ms"]["n"] == r["e2e_ms"]["n"] == n
    assert r["ttft_ms"]["mean"] < r["e2e_ms"]["mean"] and r["e2e_ms"]["max"] <= r["duration_s"] * 1000
    assert r["requests_per_s"] == pytest.approx(n / r["duration_s"], rel=1e-3)
    assert r["output_tokens_per_s"] == pytest.approx(r["output_tokens"] / r["duration_s"], rel=1e-3)


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_bench_closed(tiny, endpoint):
    r = bench(tiny, "--endpoint", endpoint, "--num-prompts", 12, "--concurrency", 4, "--input-len", 200,
              "--output-len", 8, "--ignore-eos", "--goodput", "ttft:100000,e2e:0.001")
    check_figures(r, 12)
    assert r["output_tokens"] == 12 * 8 and r["connections_max"] == 4
    assert abs(r["input_tokens"] - 12 * 200) < 0.15 * 12 * 200  # words are fitted, not counted
    assert r["goodput"]["requests"] == 0 and r["goodput"]["goals_ms"] == {"ttft": 100000, "e2e": 0.001}


def test_bench_open(tiny):
    r = bench(tiny, "--num-prompts", 20, "--request-rate", 20, "--input-len", 16, "--output-len", 4, "--ignore-eos",
              "--goodput", "tpot:100000")
    check_figures(r, 20)
    assert r["request_rate"] == 20 and 0.3 < r["duration_s"] < 10 * SLOW
    assert r["goodput"]["requests"] == 20


def test_bench_shapes(tiny):
    a, b, other = (bench(tiny, "--shape", "sharegpt", "--num-prompts", 6, "--max-total-len", 200, "--ignore-eos",
                         "--seed", seed) for seed in (1, 1, 2))
    check_figures(a, 6)
    same = ("input_tokens", "output_tokens")
    assert [a[k] for k in same] == [b[k] for k in same] != [other[k] for k in same]
    time.sleep(SLOW)  # the worker reports its counts now and then
    hits = tiny.metric("vllm:prefix_cache_hits_total")
    r = bench(tiny, "--shape", "prefix", "--prefix-len", 256, "--n-prefixes", 2, "--num-prompts", 8, "--input-len", 16,
              "--output-len", 4, "--concurrency", 1, "--seed", 77)
    check_figures(r, 8)
    wait_for(lambda: tiny.metric("vllm:prefix_cache_hits_total") - hits >= 6 * 224, what="the prefixes' reuse")
    assert tiny.metric("vllm:prefix_cache_hits_total") - hits < 6 * 272  # nor were the prompts the same


def test_bench_table(tiny):
    r = weir("bench", "serve", tiny.url, "--num-prompts", 3, "--output-len", 4, "--input-len", 8)
    assert r.returncode == 0 and b"3 completed, 0 failed" in r.stdout
    for row in (b"time to first token", b"inter-token latency", b"end to end", b"throughput per second"):
        assert row in r.stdout


def test_bench_failures(tiny, fake):
    r = bench(tiny, "--num-prompts", 5, "--input-len", 100, "--output-len", 5000, status=1)
    assert r["failed"] == 5 and sum(r["failures"].values()) == 5 and all("HTTP 400" in k for k in r["failures"])
    r = weir("bench", "serve", fake(b"").url, "--model", "m")
    assert r.returncode == 1 and b"without an answer" in r.stderr
    for flags in (["--goodput", "ttft"], ["--goodput", "ttft:-1"], ["--goodput", "x:1"], ["--goodput", "ttft:1,ttft:2"],
                  ["--request-rate", "1", "--concurrency", "1"], ["--concurrency", "1025"], ["--shape", "round"]):
        assert weir("bench", "serve", tiny.url, *flags).returncode == 2
    assert weir("bench").returncode == 2 and weir("bench", "serve", "--help").returncode == 0


def test_bench_counts_reasons(fake):
    """One server, three kinds of answers: each failure is counted under its reason."""
    usage = b'{"choices":[{"text":"x","finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1}}'
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(usage) + usage
    f = fake(None)

    bad = [HEAD, HEAD + b"data: {\n\n", b"HTTP/1.1 429 x\r\n\r\nslow down"]
    f.answer = lambda: whole if len(f.requests) <= 2 else bad[len(f.requests) % 3]
    r = weir("bench", "serve", f.url, "--model", "m", "--json", "--num-prompts", 9, "--concurrency", 1)
    assert r.returncode == 1
    assert sorted(json.loads(r.stdout)["failures"].values()) == [3, 3, 3]
