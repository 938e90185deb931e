"""Hostile HTTP over raw sockets: reliability.md rows H01 to H07, H09 to H13 and H16 to H18, and what goes with them: connection
limits, descriptors, drain. Where a row and api.md differ, api.md is what is asserted. Every bad thing is followed by a good one."""
import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import struct
import threading
import time

import pytest

from conftest import SANITIZED, SLOW, Server, wait_for

BODY_MAX = 1 << 20
BODY_TIMEOUT_S = 2
ANSWER_S = 1 * SLOW  # to any bad thing that is not about time
GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
GOOD = json.dumps({"prompt": "x", "max_tokens": 2}).encode()


@pytest.fixture(scope="module")
def mock():
    s = Server("--mock", "--mock-step-ms", 1, "--max-body-bytes", BODY_MAX, "--body-timeout", BODY_TIMEOUT_S, "--max-num-seqs", 64)
    yield s
    at_rest(s)
    s.stop()


@pytest.fixture
def server(mock):
    """The shared server; the test is followed by a good request."""
    yield mock
    assert Conn(mock).good()


def at_rest(s):
    wait_for(lambda: [s.metric("vllm:" + g) for g in GAUGES] == [0, 0, 0], 10, "gauges back at zero")
    assert json.loads(s.get("/load"))["server_load"] == 0


def post(body=GOOD, path="/v1/completions", headers="", length=None):
    n = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}Content-Length: {n}\r\n\r\n".encode() + body


def stream(max_tokens=1500, **fields):
    return post(json.dumps({"prompt": "x", "max_tokens": max_tokens, "stream": True, "ignore_eos": True, **fields}).encode())


def chunked(chunks, extra=b""):
    return (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" + extra + b"\r\n" + chunks)


class Answer:
    def __init__(self, status, head, body):
        self.status, self.head, self.body = status, head, body

    def header(self, name):
        m = re.search(rb"(?im)^" + name.encode() + rb":[ \t]*(.*?)\r?$", self.head)
        return m and m[1].decode()

    def error(self):
        e = json.loads(self.body)
        assert list(e) == ["error"] and set(e["error"]) == {"message", "type", "param", "code"}, self.body
        assert e["error"]["code"] == self.status
        return e["error"]


class Conn:
    """One connection. `rest` holds what came beyond the last answer."""

    def __init__(self, server, rcvbuf=None):
        self.s = socket.socket()
        if rcvbuf:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.s.settimeout(10 * SLOW)
        self.s.connect(("127.0.0.1", server.port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def send(self, data):
        """All of it, unless the server stops listening."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.s.sendall(data)
        return self

    def more(self):
        try:
            part = self.s.recv(1 << 16)
        except ConnectionResetError:
            part = b""
        self.rest += part
        return part

    def until(self, mark):
        while mark not in self.rest:
            assert self.more(), self.rest[-300:]
        i = self.rest.index(mark) + len(mark)
        part, self.rest = self.rest[:i], self.rest[i:]
        return part

    def answer(self, head_only=False):
        """The next whole answer; None if the connection ends without one."""
        while b"\r\n\r\n" not in self.rest:
            if not self.more():
                assert not self.rest, self.rest
                return None
        head = self.until(b"\r\n\r\n")
        a = Answer(int(head.split()[1]), head, b"")
        if head_only or a.status in (204, 304) or a.status < 200:
            return a
        if a.header("transfer-encoding"):
            while True:
                n = int(self.until(b"\r\n").strip(), 16)
                part = self.take(n + 2)
                if n == 0:
                    return a
                a.body += part[:-2]
        if a.header("content-length") is not None:
            a.body = self.take(int(a.header("content-length")))
            return a
        while self.more():
            pass
        a.body, self.rest = self.rest, b""
        return a

    def take(self, n):
        while len(self.rest) < n:
            assert self.more(), self.rest[-300:]
        part, self.rest = self.rest[:n], self.rest[n:]
        return part

    def ended(self, seconds=ANSWER_S):
        """Whether the server closes within the time, saying nothing more."""
        self.s.settimeout(seconds)
        try:
            return not self.rest and not self.more()
        except TimeoutError:
            return False
        finally:
            self.s.settimeout(10 * SLOW)

    def good(self):
        a = self.send(post()).answer()
        return a is not None and a.status == 200 and json.loads(a.body)["usage"]["completion_tokens"] == 2

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()


def ask(server, data, statuses, closed=None):
    """Sends, and gets one answer in time, of one of the statuses (None: the connection ends without one). closed: whether it must, or
    must not, end after the answer. Returns the answer."""
    t0 = time.monotonic()
    c = Conn(server).send(data)
    a = c.answer()
    took = time.monotonic() - t0
    assert (a and a.status) in statuses, (data[:200], a and a.head)
    assert took < ANSWER_S, (data[:200], took)
    if a and a.status >= 400 and not (a.status == 400 and a.header("content-type").startswith("text/plain")):
        a.error()  # but for the library's bare 400 of a malformed head (api.md 2.1.7)
    if closed is None or not a:
        pass
    elif closed:
        assert c.ended(), (data[:200], c.rest[:300])
    else:
        assert c.good(), data[:200]
    return a


def rss(server):
    with open(f"/proc/{server.proc.pid}/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def grown(server, before):
    """Bytes; 0 under a sanitizer, which keeps what was freed."""
    return 0 if SANITIZED else rss(server) - before


def slow_clients(server):
    return server.metric("weir_slow_client_aborts_total")


# ---- H01 to H06: heads and bodies -----------------------------------------------------------------------


def test_h01_no_http_at_all(server):
    said = len(server.output())
    hello = bytes.fromhex("1603010200010001fc0303") + random.Random(1).randbytes(500)
    for _ in range(30):
        Conn(server).s.close()
        Conn(server).reset()
        for junk in (random.Random(2).randbytes(65536), hello, b"\x00" * 100, b"\n" * 2000 + b"x y z\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            c = Conn(server).send(junk)
            with contextlib.suppress(OSError):
                c.s.shutdown(socket.SHUT_WR)
            a = c.answer()
            assert a is None or a.status == 400, a.head
    c = Conn(server).send(b"\r\n")
    assert c.send(post()).answer().status == 200  # one empty line before a request is legal
    assert len(server.output()) - said < 2000  # no storm


def test_h01_upgrades_are_not_taken(server):
    a = ask(server, b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", (200,))
    assert json.loads(a.body)["version"]


def test_h02_large_heads(server):
    get = b"GET /version HTTP/1.1\r\nHost: x\r\n"
    ask(server, get + b"X: " + b"a" * 450000 + b"\r\n\r\n", (400, 431, None), closed=True)
    ask(server, get + b"".join(b"X%d: 1\r\n" % i for i in range(101)) + b"\r\n", (400,), closed=True)
    ask(server, b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n", (400, None), closed=True)
    a = ask(server, get + b"X: " + b"a" * 70000 + b"\r\n\r\n", (431,), closed=True)
    assert "--max-header-bytes" in a.error()["message"] and "65536" in a.error()["message"]
    ask(server, get + b"X: " + b"a" * 60000 + b"\r\n\r\n", (200,), closed=False)


def length_lines(*values):
    head = "".join(f"Content-Length: {v}\r\n" for v in values)
    return f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n".encode()


SMUGGLED = b"GET /v1/models/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("values", [("-1",), ("+5",), ("0x5",), (str(2**64 + len(GOOD)),), ("5, 5",), (len(GOOD), len(GOOD)),
                                    (len(GOOD), 0), (0, len(GOOD)), ("",), ("1 2",), ("٣",)])
def test_h03_content_length(server, values):
    ask(server, length_lines(*values) + GOOD + SMUGGLED, (400,), closed=True)


def te(*values, length=None, version="1.1"):
    head = "".join(f"Transfer-Encoding: {v}\r\n" for v in values) + (f"Content-Length: {length}\r\n" if length is not None else "")
    return f"POST /v1/completions HTTP/{version}\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n".encode()


CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)


@pytest.mark.parametrize("head", [te("chunked", length=len(GOOD)), te("chunked", length=0), te("gzip, chunked"), te("xchunked"),
                                  te("chunked", "chunked"), te("chunked", "identity"), te("\x0bchunked"), te("chunked\r\n x"),
                                  te("chunked, identity"), te("")])
def test_h04_transfer_encoding(server, head):
    ask(server, head + CHUNKS + SMUGGLED, (400, 501), closed=True)


def test_h04_recorded(server):
    """What the HTTP library takes: case, blanks, `identity` before `chunked`, chunks on HTTP/1.0; nothing after it is parsed."""
    for head in (te("ChUnKeD"), te("chunked "), te("chunked", version="1.0"), te("identity"), te("identity", "chunked")):
        ask(server, head + CHUNKS + SMUGGLED, (200, 400), closed=True)


@pytest.mark.parametrize("chunks", [b"0_2e\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"fffffffffffffffff\r\nx", b"-1\r\nx\r\n0\r\n\r\n",
                                    b"\r\n\r\n", b";\r\n\r\n", b"5\r\nabcdeX\r\n0\r\n\r\n",
                                    b"%x\r\n%s0\r\n\r\n" % (len(GOOD), GOOD)])
def test_h05_chunks(server, chunks):
    ask(server, chunked(chunks) + SMUGGLED, (400, 413, None), closed=True)


def test_h05_many_small_chunks(server):
    before = rss(server)
    body = b" " * 300_000 + GOOD
    ask(server, chunked(b"".join(b"1\r\n%c\r\n" % b for b in body) + b"0\r\n\r\n") + SMUGGLED, (200,), closed=True)
    ask(server, chunked(b"1\r\n \r\n" * (BODY_MAX + 100) + b"0\r\n\r\n"), (413,), closed=True)
    junk = b"1;" + b"e" * 60000 + b"\r\n \r\n"  # extensions are not counted as body
    ask(server, chunked(junk * 200 + b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)) + SMUGGLED, (200, 400, None), closed=True)
    assert grown(server, before) < 64 << 20


def test_h06_body_over_the_limit(server):
    fits = GOOD + b" " * (BODY_MAX - len(GOOD))
    ask(server, post(fits), (200,), closed=False)
    for data in (post(fits + b" "), post(b"", length=BODY_MAX + 1), post(b"", length=2**62),
                 chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (BODY_MAX + 1, fits + b" ")), chunked(b"%x\r\n%s" % (1 << 30, fits + b"  "))):
        a = ask(server, data + SMUGGLED, (413,), closed=True)
        assert "--max-body-bytes" in a.error()["message"] and str(BODY_MAX) in a.error()["message"]
        assert a.error()["type"] == "PayloadTooLargeError"


# ---- H07: bodies that do not come -----------------------------------------------------------------------


def requests_seen(server):
    return sum(float(line.rsplit(" ", 1)[1]) for line in server.get("/metrics").splitlines()
               if line.startswith("http_requests_total{") and "completions" in line)


def test_h07_bodies_that_never_end(server):
    seen = requests_seen(server)
    never = Conn(server).send(post(b"", length=100))
    part = Conn(server).send(post(GOOD[:5], length=len(GOOD)))
    drip = Conn(server).send(post(b"", length=100))
    head = Conn(server).send(b"POST /v1/comple")
    lines = Conn(server).send(b"\r\n")
    chunks = Conn(server).send(chunked(b"5\r\nab"))
    huge = Conn(server).send(chunked(b"ffffffffffffffff\r\nx"))  # H05: a size that fits 64 bits is believed, up to the body's limit
    half = Conn(server).send(post(GOOD[:9], length=len(GOOD)))
    half.s.shutdown(socket.SHUT_WR)
    assert half.ended()
    conns = [never, part, drip, head, lines, chunks, huge]
    t0 = time.monotonic()
    end = t0 + BODY_TIMEOUT_S + 2.5 * SLOW
    waiting = set(conns)
    while waiting and time.monotonic() < end:
        for c in (drip, head):  # a byte now and then does not help: the time is for the whole
            with contextlib.suppress(OSError):
                c.s.send(b" ")
        waiting -= {c for c in waiting if c.ended(0.05)}
    assert not waiting
    assert time.monotonic() - t0 > BODY_TIMEOUT_S - 1
    assert requests_seen(server) == seen  # no handler ran


# ---- H09 to H13: methods, paths, media types ------------------------------------------------------------

ROUTES = {"/v1/chat/completions": "POST", "/v1/completions": "POST", "/tokenize": "POST", "/detokenize": "POST", "/v1/models": "GET",
          "/v1/models/x": "GET", "/health": "GET", "/readyz": "GET", "/livez": "GET", "/version": "GET", "/metrics": "GET", "/load": "GET"}


def test_h09_methods(server):
    c = Conn(server)
    for path, method in ROUTES.items():
        for wrong in ("FOO", "TRACE", "PUT", "DELETE", "PATCH", "get", "a" * 40, "POST" if method == "GET" else "GET"):
            a = c.send(f"{wrong} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()).answer()
            assert a.status == 405 and method in a.header("allow").split(", "), (wrong, path, a.head)
            assert a.error()["type"] == "MethodNotAllowedError"
        a = c.send(f"OPTIONS {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).answer()
        assert a.status == 204 and method in a.header("allow").split(", ") and a.header("content-length") is None, a.head
        a = c.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).answer(head_only=True)
        if method == "POST":
            assert a.status == 405
        elif path != "/v1/models/x":
            b = c.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).answer()
            assert a.status == b.status == 200
            if path not in ("/metrics", "/load"):
                assert a.header("content-length") == b.header("content-length") == str(len(b.body))
            assert a.header("content-type") == b.header("content-type")
        assert not c.rest
    for method in ("GET", "POST"):
        a = c.send(f"{method} /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()).answer()
        assert a.status == 200 and not a.body
    ask(server, b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", (400, 404, 405), closed=None)


PATHS = ["/nowhere", "/v1/../v1/models", "//v1/models", "/v1/models/", "%2fv1/models", "/%2fv1", "/v1%2fmodels", "/v1/models%00",
         "/v1/./models", "/V1/models", "/v1/models;x", "/v1", "v1/models", "*", "/health/", "/metrics%20", "http://x/v1/models",
         "http://127.0.0.1/health", "https://evil/v1/completions", "/v1/models/%00", "/v1/models/x%"]


def test_h10_paths(server):
    c = Conn(server)
    for path in PATHS:
        a = c.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).answer()
        assert a and a.status in (400, 404), (path, a and a.head)
        if a.status == 400:  # the library's: no path at all
            assert not path.startswith("/"), path
            c = Conn(server)
        else:
            assert a.error()["type"] == "NotFoundError"
    assert c.send(b"GET /v1/models?x=/../y HTTP/1.1\r\n\r\n").answer().status == 200  # a query is no path, and Host is optional
    for host in ("a/b", "a b", "a?x", "a\x01", "a@b"):
        ask(server, f"GET /version HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin1"), (400,), closed=True)
    ask(server, b"GET /version HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", (400,), closed=True)


def typed(kind, extra=""):
    line = f"Content-Type: {kind}\r\n" if kind is not None else ""
    return f"POST /v1/completions HTTP/1.1\r\nHost: x\r\n{line}{extra}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD


def test_h11_media_types(server):
    c = Conn(server)
    for kind in (None, "", "text/plain", "multipart/form-data; boundary=x", "application/jsonx", "xapplication/json", "application/json/x"):
        a = c.send(typed(kind)).answer()
        assert a.status == 400 and "Unsupported Media Type" in a.error()["message"], kind
    for kind in ("application/json", "Application/JSON", "application/json; charset=utf-16", "application/json ;x=y"):
        assert c.send(typed(kind)).answer().status == 200, kind
    assert c.good()


def test_h12_content_encoding(server):
    c = Conn(server)
    for coding in ("gzip", "br", "deflate", "identity, gzip", "x"):
        a = c.send(typed("application/json", f"Content-Encoding: {coding}\r\n")).answer()
        assert a.status == 400 and "Content-Encoding" in a.error()["message"], coding
    for hidden in ("Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", "Content-Encoding: identity, gzip\r\n"):
        assert c.send(typed("application/json", hidden)).answer().status == 400, hidden
    assert c.send(typed("application/json", "Content-Encoding: Identity\r\n")).answer().status == 200
    assert c.send(typed("application/json", "Content-Encoding: identity , identity\r\nContent-Encoding: identity\r\n")).answer().status == 200


def test_h13_expect(server):
    a = ask(server, post(headers="Expect: banana\r\n"), (417,), closed=True)
    assert a.header("content-type") == "application/json"
    c = Conn(server).send(post(b"", headers="Expect: 100-continue\r\n", length=len(GOOD)))
    assert c.answer().status == 100
    assert c.send(GOOD).answer().status == 200 and c.good()


# ---- keep-alive and pipelining --------------------------------------------------------------------------


def test_keep_alive_after_errors(server):
    c = Conn(server)
    for bad in (post(b"{"), post(b""), post(b'{"prompt": 5}'), post(path="/nowhere"), post(b"[" * 100000), post(headers="X-Request-Id: a b\r\n"),
                b"GET /v1/models/none HTTP/1.1\r\n\r\n", b"HEAD /nowhere HTTP/1.1\r\n\r\n"):
        a = c.send(bad).answer(head_only=bad.startswith(b"HEAD"))
        assert a.status in (400, 404), bad[:100]
        assert c.good(), bad[:100]
    c.send(post(b"{") + post() + post(path="/nowhere") + post())
    assert [c.answer().status for _ in range(4)] == [400, 200, 404, 200]


def test_h18_thousand_pipelined(server):
    before = rss(server)
    c = Conn(server)
    parts, want = [], []
    for i in range(1000):
        if i % 20 == 7:
            parts.append(post())
            want.append(200)
        else:
            parts.append(f"GET /v1/models/m{i} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            want.append(f"'m{i}'")
    t = threading.Thread(target=c.send, args=(b"".join(parts),))
    t.start()
    for w in want:
        a = c.answer()
        assert a and (a.status == w if isinstance(w, int) else a.status == 404 and w in a.error()["message"]), (w, a and a.body)
    t.join()
    assert not c.rest and c.good()
    assert grown(server, before) < 16 << 20


def test_h18_pipelined_and_never_read(server):
    """Nobody reads the answers: the requests behind them stay unread, and cost nothing."""
    before = rss(server)
    conns = [Conn(server, rcvbuf=4096) for _ in range(10)]
    line = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    for c in conns:
        c.s.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while c.s.send(line * 1000):
                pass
    time.sleep(0.3)
    assert server.status("/health") == 200
    assert grown(server, before) < 64 << 20
    for c in conns:
        c.reset()


# ---- H16: clients that do not read, H17: clients that leave ----------------------------------------------


@pytest.fixture(scope="module")
def tight():
    s = Server("--mock", "--mock-step-ms", 1, "--write-timeout", 1, "--max-stream-buffer", 256 << 10, "--http-keep-alive", 2,
               "--max-num-seqs", 32, "--mock-prefill-us-per-token", 50)
    yield s
    at_rest(s)
    s.stop()


def crawl(c, end):
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            c.s.recv(1)
        time.sleep(0.02)


def test_h16_clients_that_do_not_read(tight):
    before, aborts = rss(tight), slow_clients(tight)
    conns = [Conn(tight, rcvbuf=2048) for _ in range(12)]
    for c in conns:
        c.send(stream(n=8, logprobs=5, temperature=1.0))
    for c in conns[8:]:
        c.until(b"data: ")  # stops half way
    t = threading.Thread(target=crawl, args=(conns[4], time.monotonic() + 3))
    t.start()
    peak = 0

    def over():
        nonlocal peak
        peak = max(peak, grown(tight, before))
        return slow_clients(tight) - aborts == len(conns)

    wait_for(over, 10, "the slow clients' end")
    at_rest(tight)
    assert peak < len(conns) * (1 << 20) + (8 << 20)
    t.join()
    assert Conn(tight).good()


def test_h16_write_stall(tight):
    """Too little to overflow the buffer, but the client reads nothing: its time runs out."""
    aborts = slow_clients(tight)
    conns = [Conn(tight, rcvbuf=2048) for _ in range(4)]
    for c in conns:
        c.send(b"GET /metrics HTTP/1.1\r\n\r\n" * 400)
    wait_for(lambda: slow_clients(tight) - aborts == len(conns), 10, "the write timeout")
    assert Conn(tight).good()


def test_slow_but_steady_reader_is_served(tight):
    """A client that reads all, in small sips with pauses below the limit, gets everything."""
    c = Conn(tight, rcvbuf=16384).send(stream(max_tokens=600))
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        c.rest += c.s.recv(2000)
        time.sleep(0.02)
    a = c.answer()
    assert a.body.endswith(b"data: [DONE]\n\n") and a.body.count(b'"text"') == 600


def disconnects(server):
    return server.metric("weir_client_disconnects_total")


def leave_at_once(server, rng):
    Conn(server).send(stream()).reset()


def leave_in_body(server, rng):
    Conn(server).send(stream()[:-5]).reset()


def leave_in_queue(server, rng):
    c = Conn(server).send(stream(n=16, temperature=1.0))
    time.sleep(rng.random() * 0.02)
    c.s.close()


def leave_in_prefill(server, rng):
    c = Conn(server).send(post(json.dumps({"prompt": "word " * 900, "max_tokens": 5}).encode()))
    time.sleep(0.005 + rng.random() * 0.02)
    c.s.close()


def leave_between_tokens(server, rng):
    c = Conn(server).send(stream())
    c.until(b"data: ")
    time.sleep(rng.random() * 0.01)
    rng.choice([c.reset, c.s.close])()


def leave_before_done(server, rng):
    c = Conn(server).send(stream(max_tokens=3))
    c.until(b'"finish_reason":"length"')
    c.reset()


def leave_while_waiting_pipelined(server, rng):
    """Bytes behind the request do not hide the departure."""
    c = Conn(server).send(post(json.dumps({"prompt": "x", "max_tokens": 1500, "ignore_eos": True}).encode()) + SMUGGLED * 3)
    time.sleep(rng.random() * 0.02)
    c.s.close()


@pytest.mark.parametrize("leave", [leave_at_once, leave_in_body, leave_in_queue, leave_in_prefill, leave_between_tokens, leave_before_done,
                                   leave_while_waiting_pipelined])
def test_h17_clients_that_leave(tight, leave):
    """Also behind a queue: 32 sequences run at most. What they held is free long before it would have ended by itself (1.5 s)."""
    rng = random.Random(leave.__name__)
    threads = [threading.Thread(target=leave, args=(tight, rng)) for _ in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    t0 = time.monotonic()
    at_rest(tight)
    assert time.monotonic() - t0 < 1.2 * SLOW
    assert Conn(tight).good()


def test_waiting_client_is_watched(tight):
    """A client that waits for a whole answer and leaves is noticed at once, not when the answer is ready."""
    before = disconnects(tight)
    c = Conn(tight).send(post(json.dumps({"prompt": "x", "max_tokens": 1900, "ignore_eos": True}).encode()))
    wait_for(lambda: tight.metric("vllm:num_requests_running") == 1, 2, "the request to run")
    t0 = time.monotonic()
    c.s.close()
    wait_for(lambda: tight.metric("vllm:num_requests_running") == 0, 2, "the request's end")
    assert time.monotonic() - t0 < 0.6 * SLOW  # a report of the worker comes every 200 ms or so
    assert disconnects(tight) == before + 1


def test_idle_connections_close(tight):
    c, fresh = Conn(tight), Conn(tight)
    assert c.good()
    t0 = time.monotonic()
    assert c.ended(5 * SLOW) and time.monotonic() - t0 > 1.5
    assert fresh.ended(2 * SLOW)


# ---- H08, lightly: connections and descriptors ------------------------------------------------------------


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_h08_connection_limit(serve):
    s = serve("--mock", "--max-connections", 20)
    held = []

    def room():  # who asked whether the server is ready may not be gone yet
        held[:] = [Conn(s) for _ in range(20)]
        if held[0].good() and held[19].good():
            return True
        for c in held:
            c.reset()
        return False

    wait_for(room, 5, "room for 20")
    for _ in range(5):
        t0 = time.monotonic()
        c = Conn(s).send(post())
        a = c.answer()
        assert a.status == 503 and a.header("retry-after") and a.header("connection") == "close"
        assert "--max-connections" in a.error()["message"] and c.ended()
        assert time.monotonic() - t0 < ANSWER_S
    assert held[3].good()
    for c in held[5:]:
        c.s.close()
    wait_for(lambda: Conn(s).good() if s.status("/health") == 200 else False, 5, "room again")


def test_h08_no_descriptors_left(serve):
    s = serve("--mock")
    first = Conn(s)
    assert first.good()
    n = len(os.listdir(f"/proc/{s.proc.pid}/fd"))
    resource.prlimit(s.proc.pid, resource.RLIMIT_NOFILE, (n + 10, n + 10))
    held = [Conn(s) for _ in range(40)]  # the kernel accepts them; the server cannot
    before, t0 = cpu_s(s.proc.pid), time.monotonic()
    time.sleep(1)
    assert first.good()
    assert (cpu_s(s.proc.pid) - before) / (time.monotonic() - t0) < 0.3  # it does not spin
    assert s.output().count("no descriptor") < 40
    for c in held[:30]:
        c.reset()
    assert all(c.good() for c in held[30:35])


def test_the_line_has_its_length(serve):
    """One request runs, four wait, wherever they do; the fifth that would wait is refused, at once and whole."""
    s = serve("--mock", "--mock-step-ms", 100, "--max-num-seqs", 1, "--max-queued-requests", 4)
    held = [Conn(s).send(stream(max_tokens=500))]
    held[0].until(b"data: ")
    for i in range(1, 12):
        c = Conn(s).send(stream(max_tokens=500))
        c.s.settimeout(0.15 * SLOW)
        try:
            a = c.answer()
            assert i > 4 and a.status == 429 and "--max-queued-requests" in a.error()["message"], (i, a.head)
        except TimeoutError:
            assert i <= 4
            held.append(c)
    wait_for(lambda: s.metric("vllm:num_requests_waiting") == 4 and s.metric("vllm:num_requests_running") == 1, 2, "four to wait")
    held[1].reset()  # makes room for one
    wait_for(lambda: s.metric("vllm:num_requests_waiting") == 3, 2, "one to leave")
    more = Conn(s).send(stream(max_tokens=500))
    wait_for(lambda: s.metric("vllm:num_requests_waiting") == 4, 2, "another to come")
    assert Conn(s).send(post()).answer().status == 429
    more.s.close()
    s.proc.kill()


def test_retry_after_counts_answers_not_refusals(serve):
    """Refusing is quick; what the next client should wait for is the line, which does not move here."""
    s = serve("--mock", "--mock-step-ms", 100, "--max-num-seqs", 1, "--max-queued-requests", 4)
    held = [Conn(s).send(stream(max_tokens=500)) for _ in range(200)]
    assert held[-1].answer().status == 429
    c, end, codes = Conn(s), time.monotonic() + 2.5, []
    while time.monotonic() < end:
        a = c.send(post()).answer()
        codes.append((a.status, int(a.header("retry-after") or 0)))
        time.sleep(0.01)
    assert len(codes) > 20 and codes[-1][0] == 429 and codes[-1][1] >= 30, codes[-1]
    for h in held:
        h.s.close()
    at_rest(s)


# ---- drain ----------------------------------------------------------------------------------------------


def test_drain(serve):
    s = serve("--mock", "--mock-step-ms", 5)
    idle, busy = Conn(s), Conn(s)
    assert idle.good()
    running = Conn(s).send(stream(max_tokens=250))
    running.until(b"data: ")
    s.proc.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    a = busy.send(b"GET /health HTTP/1.1\r\n\r\n").answer()
    assert a.status == 503 and a.header("retry-after") == "5" and a.header("connection") == "close"
    for c in (idle, Conn(s)):
        a = c.send(post()).answer()
        assert a.status == 503 and a.header("retry-after") == "5" and a.header("connection") == "close" and c.ended()
    assert Conn(s).send(b"GET /livez HTTP/1.1\r\n\r\n").answer().status == 200
    waiting = Conn(s)  # idle connections hold nothing up
    text = running.until(b"data: [DONE]\n\n")
    assert b'data: {"error"' not in text and text.count(b'"text"') >= 248
    t0 = time.monotonic()
    assert s.proc.wait(5 * SLOW) == 0
    assert time.monotonic() - t0 < 1.2 * SLOW
    waiting.s.close()


def test_drain_that_runs_out(serve):
    s = serve("--mock", "--mock-step-ms", 20, "--shutdown-timeout", 1)
    streaming = Conn(s).send(stream())
    streaming.until(b"data: ")
    whole = Conn(s).send(post(json.dumps({"prompt": "x", "max_tokens": 1500, "ignore_eos": True}).encode()))
    stuck = Conn(s, rcvbuf=2048).send(stream(n=16, logprobs=5, temperature=1.0))
    wait_for(lambda: s.metric("vllm:num_requests_running") == 18, 5, "all to run")
    t0 = time.monotonic()
    s.proc.send_signal(signal.SIGTERM)
    assert whole.answer().status == 503
    text = streaming.until(b"data: [DONE]\n\n")
    assert json.loads(text.split(b"data: ")[-2])["error"]["code"] == 503
    assert 0.9 < time.monotonic() - t0 < 1 + 0.5 * SLOW
    assert s.proc.wait(5 * SLOW) == 0
    assert time.monotonic() - t0 < 1 + 1.3 * SLOW
    stuck.s.close()


# ---- metrics --------------------------------------------------------------------------------------------


def test_metrics_are_exact(serve):
    """The check values of api.md 20.2: R requests of P and G tokens."""
    s = serve("--no-enable-prefix-caching")
    R, G = 9, 11
    prompt = "one two three four five six"
    P = json.loads(Conn(s).send(post(json.dumps({"prompt": prompt}).encode(), path="/tokenize")).answer().body)["count"]
    fields = {"prompt": prompt, "max_tokens": G, "ignore_eos": True}
    for i in range(R):
        c = Conn(s).send(post(json.dumps({**fields, "stream": i % 2 == 0}).encode()))
        assert c.answer().status == 200
    wait_for(lambda: s.metric("vllm:generation_tokens_total") >= R * G, 5, "the worker's last report")
    at_rest(s)
    for name, value in {
            "vllm:prompt_tokens_total": R * P, "vllm:generation_tokens_total": R * G, "vllm:iteration_tokens_total_sum": R * (P + G),
            "vllm:inter_token_latency_seconds_count": R * (G - 1), "vllm:time_per_output_token_seconds_count": R * (G - 1),
            "vllm:time_to_first_token_seconds_count": R, "vllm:e2e_request_latency_seconds_count": R,
            "vllm:request_prompt_tokens_sum": R * P, "vllm:request_generation_tokens_sum": R * G, "vllm:request_prompt_tokens_count": R,
            "vllm:request_params_max_tokens_sum": R * G, "vllm:request_params_n_sum": R, "vllm:request_success_total": R,
            "vllm:request_queue_time_seconds_count": R, "vllm:request_decode_time_seconds_count": R, "vllm:num_preemptions_total": 0,
            "vllm:prefix_cache_hits_total": 0, "weir_client_disconnects_total": 0, "weir_dropped_outputs_total": 0}.items():
        assert s.metric(name) == value, (name, s.metric(name), value)
    text = s.get("/metrics")
    assert f'vllm:request_success_total{{model_name="{s_model(s)}",engine="0",finished_reason="length"}} {R}\n' in text
    assert f'http_requests_total{{method="POST",handler="/v1/completions",status="2xx"}} {R}\n' in text
    series = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line and line[0] != "#"]
    assert len(series) == len(set(series))


def s_model(s):
    return json.loads(s.get("/v1/models"))["data"][0]["id"]
