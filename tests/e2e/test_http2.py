"""HTTP/2 (--http2; reliability.md 1): real clients, and frames by hand: floods, slow readers, resets, drains."""
import asyncio
import http.client
import json
import os
import select
import socket
import ssl
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import openai
import pytest

from conftest import SLOW, Server, wait_for
from test_edge_tls import Pki, needs_openssl, ready

LIMIT = 200_000  # --max-body-bytes
FLAGS = ("--mock", "--mock-step-ms", 2, "--http2", "--max-body-bytes", LIMIT, "--max-header-bytes", 8000, "--enable-request-id-headers")


@pytest.fixture(scope="module")
def server():
    s = Server(*FLAGS)
    yield s
    s.stop()


@pytest.fixture(scope="module")
def strict():
    s = Server(*FLAGS, "--body-timeout", 2, "--write-timeout", 3)
    yield s
    s.stop()


class Raw:
    """One connection, frame by frame. What comes is kept by stream: headers, body, how it ended."""

    def __init__(self, server, window=None, context=None):
        self.sock = socket.create_connection(("127.0.0.1", server.port), timeout=10 * SLOW)
        if context:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False))
        self.headers, self.body, self.ended, self.reset, self.goaway, self.closed = {}, {}, set(), {}, None, False
        self.acknowledges = True
        self.port = server.port
        self.settled = False
        self.h2.initiate_connection()
        self.flush()
        if window is not None:
            self.until(lambda: self.settled)
            self.settled = False
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
            self.flush()
            self.until(lambda: self.settled)

    def flush(self):
        self.send(self.h2.data_to_send())

    def send(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True

    def fields(self, method, path, *more):
        return [(":method", method), (":scheme", "http"), (":authority", f"127.0.0.1:{self.port}"), (":path", path), *more]

    def get(self, path, *more, method="GET"):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.fields(method, path, *more), end_stream=True)
        self.flush()
        return stream

    def open(self, path="/v1/completions", *more):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, self.fields("POST", path, ("content-type", "application/json"), *more))
        self.flush()
        return stream

    def post(self, body, path="/v1/completions", *more):
        stream = self.open(path, *more)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        while True:
            room = min(self.h2.local_flow_control_window(stream), 16384)
            self.h2.send_data(stream, body[:room], end_stream=room >= len(body))
            self.flush()
            body = body[room:]
            if not body:
                return stream
            while self.h2.local_flow_control_window(stream) == 0:
                assert self.receive(), "no window for the body"

    def receive(self):
        """Waits for bytes; False: the server has closed, or is silent."""
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            return False
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            data = b""
        if not data:
            self.closed = True
            return False
        for e in self.h2.receive_data(data):
            if isinstance(e, h2.events.ResponseReceived):
                self.headers[e.stream_id] = dict(e.headers)
            elif isinstance(e, h2.events.DataReceived):
                self.body[e.stream_id] = self.body.get(e.stream_id, b"") + e.data
                if self.acknowledges and e.flow_controlled_length:
                    self.h2.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
            elif isinstance(e, h2.events.StreamEnded):
                self.ended.add(e.stream_id)
            elif isinstance(e, h2.events.StreamReset):
                self.reset[e.stream_id] = e.error_code
            elif isinstance(e, h2.events.SettingsAcknowledged):
                self.settled = True
            elif isinstance(e, h2.events.ConnectionTerminated):
                self.goaway = e
        self.flush()
        return True

    def until(self, condition, seconds=10):
        end = time.monotonic() + seconds * SLOW
        self.sock.settimeout(0.2)
        while not condition():
            assert time.monotonic() < end, f"{seconds * SLOW} s: {self.headers} {self.reset} {self.goaway} {self.closed}"
            if not self.receive() and self.closed:
                assert condition(), f"closed: {self.headers} {self.reset} {self.goaway}"

    def answer(self, stream, seconds=10):
        self.until(lambda: stream in self.ended or stream in self.reset, seconds)
        assert stream not in self.reset, self.reset
        body = self.body.get(stream, b"")
        return int(self.headers[stream][":status"]), json.loads(body) if body[:1] == b"{" else body

    def close(self):
        self.sock.close()


def frame(kind, payload=b"", stream=0, flags=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# indexed: :method GET, :scheme http, :path /
GET = bytes([0x82, 0x86, 0x84])


def completion(**more):
    return {"model": "weir-mock", "prompt": "x", "max_tokens": 4, "ignore_eos": True, **more}


@pytest.fixture(scope="module")
def model(server):
    return json.loads(server.get("/v1/models"))["data"][0]["id"]


def running(server):
    return server.metric("vllm:num_requests_running") + json.loads(server.get("/load"))["server_load"]


def rss_mib(server):
    text = open(f"/proc/{server.proc.pid}/status").read()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def good(server):
    """Seconds that another client waits; the best of three, since whoever measures waits for the machine, too."""
    def once():
        t0 = time.monotonic()
        assert first_answer(server, b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 200")
        return time.monotonic() - t0

    return min(once() for _ in range(3))


# ---- clients


def test_the_client_over_http2(server, model):
    http = httpx.Client(http1=False, http2=True)
    c = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0, http_client=http)
    raw = c.chat.completions.with_raw_response.create(model=model, messages=[{"role": "user", "content": "x"}], max_tokens=4)
    assert raw.http_response.http_version == "HTTP/2" and raw.parse().usage.completion_tokens == 4
    whole = c.completions.create(model=model, prompt="abc", max_tokens=300, seed=1, temperature=0, extra_body={"ignore_eos": True})
    parts = list(c.completions.create(model=model, prompt="abc", max_tokens=300, seed=1, temperature=0, stream=True, extra_body={"ignore_eos": True}))
    assert "".join(p.choices[0].text for p in parts) == whole.choices[0].text and len(parts) >= 100
    chat = list(c.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], max_tokens=50, stream=True, stream_options={"include_usage": True}))
    assert chat[-1].usage.completion_tokens <= 50
    large = c.completions.create(model=model, prompt="word " * 500, max_tokens=900, extra_body={"ignore_eos": True, "logprobs": 5})
    assert large.usage.completion_tokens == 900
    with pytest.raises(openai.BadRequestError):
        c.completions.create(model=model, prompt="x", temperature=-1)
    with pytest.raises(openai.NotFoundError):
        c.completions.create(model="no", prompt="x")
    assert httpx.get(server.url + "/health").http_version == "HTTP/1.1"


def test_fifty_streams_on_one_connection(server, model):
    async def many():
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(http1=False, http2=True, limits=limits, timeout=60 * SLOW) as http:
            c = openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0, http_client=http)

            async def one(i):
                args = dict(model=model, prompt=f"p{i}", max_tokens=60, seed=i, extra_body={"ignore_eos": True})
                whole = (await c.completions.create(**args)).choices[0].text
                stream = await c.completions.create(**args, stream=True)
                return whole == "".join([p.choices[0].text async for p in stream if p.choices])

            return await asyncio.gather(*(one(i) for i in range(50)))

    assert asyncio.run(many()) == [True] * 50
    wait_for(lambda: running(server) == 0, what="gauges at zero")


def test_answers_are_those_of_http1(server, model):
    body = json.dumps(completion(model=model)).encode()
    origin = {"origin": "http://a.example"}
    cases = [("GET", "/v1/models", b"", origin), ("GET", "/nope", b"", origin), ("POST", "/health", b"", {}), ("GET", "/v1/completions", b"", {}),
             ("POST", "/v1/completions", b"{", {"content-type": "application/json"}), ("POST", "/v1/completions", body, {"content-type": "text/plain"}),
             ("POST", "/v1/completions", body, {"content-type": "application/json", "x-request-id": "a b"}),
             ("POST", "/v1/completions", b"", {"content-type": "application/json"}), ("FOO", "/v1/models", b"", {}),
             ("POST", "/v1/completions", body, {"content-type": "application/json", "content-encoding": "gzip"}),
             ("OPTIONS", "/v1/completions", b"", {**origin, "access-control-request-method": "POST", "access-control-request-headers": "x-a"}),
             ("POST", "/v1/completions", json.dumps(completion(model=model, n=0)).encode(), {"content-type": "application/json", "x-request-id": "abc-1"}),
             ("HEAD", "/health", b"", {}), ("GET", "/v1/../v1/models", b"", {}), ("GET", "/v1/models%00", b"", {}), ("GET", "/version", b"", {})]
    with httpx.Client(http1=False, http2=True) as two, httpx.Client() as one:
        for method, path, content, headers in cases:
            a, b = (c.send(httpx.Request(method, server.url + path, content=content, headers=headers)) for c in (one, two))
            assert b.http_version == "HTTP/2" and (a.status_code, a.content) == (b.status_code, b.content), (method, path)
            names = [{k: v for k, v in r.headers.items() if k not in ("date", "connection", "x-request-id")} for r in (a, b)]
            assert names[0] == names[1], (method, path)
            assert ("x-request-id" in a.headers) == ("x-request-id" in b.headers)
        assert two.get(server.url + "/v1/models", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


def test_keys(serve):
    s = serve("--mock", "--http2", "--api-key", "sk-1")
    c = Raw(s)
    for fields, status in (([], 401), ([("authorization", "Bearer no")], 401), ([("authorization", "Bearer sk-1")], 200),
                           ([("authorization", "Bearer sk-1"), ("authorization", "Bearer no")], 401), ([("x-forwarded-for", "127.0.0.1")], 401)):
        stream = c.get("/v1/models", *fields)
        assert c.answer(stream)[0] == status, fields
        assert status == 200 or c.headers[stream]["www-authenticate"] == "Bearer"
    c.close()


# ---- one stream among others


def test_a_cancelled_stream_ends_alone(server, model):
    aborted, done = (server.metric_of("vllm:request_success_total", finished_reason=w) for w in ("abort", "length"))
    c = Raw(server)
    streams = [c.post(completion(model=model, stream=True, max_tokens=400)) for _ in range(12)]
    waiting = [c.post(completion(model=model, max_tokens=400)) for _ in range(4)]
    c.until(lambda: all(s in c.body for s in streams))
    gone = streams[::3] + waiting[:2]
    for s in gone:
        c.h2.reset_stream(s, h2.errors.ErrorCodes.CANCEL)
    c.flush()
    for s in set(streams + waiting) - set(gone):
        c.until(lambda: s in c.ended, 30)
        assert c.headers[s][":status"] == "200" and (s in waiting or c.body[s].endswith(b"data: [DONE]\n\n"))
    wait_for(lambda: running(server) == 0, what="gauges at zero")
    assert server.metric_of("vllm:request_success_total", finished_reason="abort") - aborted == len(gone)
    assert server.metric_of("vllm:request_success_total", finished_reason="length") - done == 10
    assert c.answer(c.get("/health"))[0] == 200
    c.close()


@pytest.mark.parametrize("how", ["close", "shutdown", "reset"])
def test_a_client_that_leaves_ends_all_its_streams(server, model, how):
    c = Raw(server)
    streams = [c.post(completion(model=model, stream=i % 2 == 0, max_tokens=1900)) for i in range(10)]
    c.until(lambda: all(s in c.body for s in streams[::2]))
    assert all(c.headers[s][":status"] == "200" for s in streams[::2]) and json.loads(server.get("/load"))["server_load"] == 10
    if how == "reset":
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    if how == "shutdown":
        c.sock.shutdown(socket.SHUT_WR)
    else:
        c.close()
    wait_for(lambda: running(server) == 0, 3, "all ended")


def test_a_slow_reader_stalls_only_its_stream(strict, model):
    slow = strict.metric("weir_slow_client_aborts_total")
    c = Raw(strict, window=1000)
    stuck = c.post(completion(model=model, stream=True, max_tokens=1900))
    c.h2.increment_flow_control_window(1 << 20)  # the connection's
    c.flush()
    c.acknowledges = False
    c.until(lambda: len(c.body.get(stuck, b"")) >= 900)
    for _ in range(5):
        s = c.get("/version")
        assert c.answer(s, 2)[0] == 200
    c.until(lambda: stuck in c.reset, 3 + 5)
    assert strict.metric("weir_slow_client_aborts_total") == slow + 1
    assert c.answer(c.get("/version"))[0] == 200
    wait_for(lambda: running(strict) == 0, what="gauges at zero")
    c.close()


def test_a_client_that_never_reads(strict, model):
    c = Raw(strict, window=(1 << 31) - 1)
    c.h2.increment_flow_control_window((1 << 31) - 1 - 65535)
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(20):
        c.post(completion(model=model, stream=True, max_tokens=1900, logprobs=5))
    wait_for(lambda: running(strict) == 0, 30, "write timeout, or the end")
    c.close()


# ---- what does not come, or too much of it


def test_a_body_that_trickles(strict):
    c = Raw(strict)
    stream = c.open()
    t0 = time.monotonic()
    while stream not in c.reset:
        c.h2.send_data(stream, b" ")
        c.flush()
        c.sock.settimeout(0.3)
        c.receive()
        assert time.monotonic() - t0 < 10 * SLOW
    assert time.monotonic() - t0 > 1
    assert c.answer(c.get("/version"))[0] == 200
    c.close()


def test_headers_that_do_not_end(strict):
    c = Raw(strict)
    c.until(lambda: c.h2.remote_settings.max_concurrent_streams == 100)
    c.send(frame(HEADERS, GET, 1))
    t0 = time.monotonic()
    c.until(lambda: c.closed, 8)
    assert time.monotonic() - t0 > 1


def test_bodies_at_the_limit_and_over_it(server, model):
    def of(n, **more):
        body = json.dumps(completion(model=model, **more)).encode()
        return body + b" " * (n - len(body))

    c = Raw(server)
    with httpx.Client(http1=False, http2=True) as http:
        for n, status in ((LIMIT, 200), (LIMIT + 1, 413), (LIMIT * 2, 413), (5 << 20, 413)):
            got = c.answer(c.post(of(n)), 20)
            assert got[0] == status, n
            if status == 413:
                assert got[1]["error"]["type"] == "PayloadTooLargeError" and "--max-body-bytes" in got[1]["error"]["message"]
            # with Content-Length
            assert http.post(server.url + "/v1/completions", content=of(n), headers={"content-type": "application/json"}).status_code == status, n
    lying = c.open("/v1/completions", ("content-length", "5"))
    c.h2.send_data(lying, b"{}", end_stream=True)
    c.flush()
    c.until(lambda: lying in c.reset)
    assert c.answer(c.get("/version"))[0] == 200
    c.close()


def test_a_body_without_end_is_not_kept(server):
    before = rss_mib(server)
    c = Raw(server)
    stream = c.open()
    sent = 0
    while stream not in c.reset and sent < 200 << 20:
        n = min(c.h2.local_flow_control_window(stream), 16384)
        if n:
            c.h2.send_data(stream, bytes(n))
            c.flush()
            sent += n
        c.sock.settimeout(5)
        if not n or select.select([c.sock], [], [], 0)[0]:
            c.receive()
    assert stream in c.reset and sent > LIMIT
    assert rss_mib(server) - before < 60 * (8 if SLOW > 1 else 1)
    c.close()


def test_headers_over_the_limits(server):
    c = Raw(server)
    for more, status in (([("x-a", "b" * 9000)], 431), ([(f"x-{i}", "b") for i in range(150)], 431), ([("x-a", "b" * 3000)], 200)):
        assert c.answer(c.get("/v1/models", *more))[0] == status
    c.close()
    c = Raw(server)  # more than libh2o takes at all
    c.get("/v1/models", *((f"x-{i}", "b" * 4000) for i in range(150)))
    c.until(lambda: c.reset or c.goaway or c.closed)
    c.close()
    good(server)


def test_pseudo_headers(server):
    def ended(*fields):
        c = Raw(server)
        c.h2.send_headers(1, list(fields), end_stream=True)
        c.flush()
        c.until(lambda: c.closed or c.reset or c.ended or c.goaway)
        got = c.headers.get(1, {}).get(":status")
        c.close()
        return got

    m, s, a, p = (":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/v1/models")
    assert ended(m, s, a, p) == "200" and ended(m, s, p) == "200"
    for bad in ((m, m, s, a, p), (m, s, a, p, p), (m, s, s, a, p), (m, s, a, a, p), (m, s, a), (s, a, p), (m, a, p), (m, s, a, p, (":status", "200")),
                (m, s, a, p, ("x", "y"), (":path", "/")), (m, s, a, p, ("connection", "close")), (m, s, a, p, ("transfer-encoding", "chunked"))):
        assert ended(*bad) is None, bad
    for bad in ((m, s, (":authority", "a/v1?x"), p), (m, s, a, p, ("x", "a\rb")), (m, s, a, p, ("X-A", "b"))):
        assert ended(*bad) == "400", bad
    for path in ("", "*", "v1/models", "/v1/models /x", "http://a/v1/models"):
        assert ended(m, s, a, (":path", path)) == "404", path
    good(server)


# ---- floods


def flooded(server, chunk, n, seconds=20):
    """Sends a chunk n times, or until the server closes; reads all the while."""
    c = Raw(server)
    c.until(lambda: c.h2.remote_settings.max_concurrent_streams == 100)
    c.sock.settimeout(0.001)
    end = time.monotonic() + seconds * SLOW
    for i in range(n):
        c.send(chunk(i))
        if c.closed or time.monotonic() > end:
            break
        try:
            while c.sock.recv(65536):
                pass
            c.closed = True
        except TimeoutError:
            pass
        except OSError:
            c.closed = True
    c.close()
    return c.closed


def requests_seen(server):
    return sum(float(line.rsplit(" ", 1)[1]) for line in server.get("/metrics").splitlines() if line.startswith("weir_http_requests_total{"))


@pytest.mark.parametrize("how", ["reset", "made-you-reset", "data-after-end", "posts"])
def test_reset_floods(server, model, how):
    seen, aborts, before = requests_seen(server), server.metric_of("vllm:request_success_total", finished_reason="abort"), rss_mib(server)
    body = json.dumps(completion(model=model, max_tokens=1900)).encode()
    post = bytes([0x83, 0x86, 0x44, 15]) + b"/v1/completions" + b"\x00\x0ccontent-type\x10application/json"

    def pair(k):
        stream = 2 * k + 1
        if how == "reset":
            return frame(HEADERS, GET, stream, 5) + frame(RST_STREAM, b"\0\0\0\x08", stream)
        if how == "made-you-reset":
            return frame(HEADERS, GET, stream, 5) + frame(WINDOW_UPDATE, bytes(4), stream)
        if how == "posts":
            return frame(HEADERS, post, stream, 4) + frame(DATA, body, stream, 1) + frame(RST_STREAM, b"\0\0\0\x08", stream)
        # the server answers with a reset of its own
        return frame(HEADERS, post, stream, 4) + frame(DATA, body, stream, 1) + frame(DATA, b"12345678901234567890", stream)

    assert flooded(server, lambda i: b"".join(pair(k) for k in range(100 * i, 100 * i + 100)), 100)
    assert requests_seen(server) - seen < 500
    assert server.metric_of("vllm:request_success_total", finished_reason="abort") - aborts < 500
    wait_for(lambda: running(server) == 0, what="gauges at zero")
    assert rss_mib(server) - before < 30 * (8 if SLOW > 1 else 1)
    assert good(server) < 1 * SLOW


def test_others_do_not_feel_a_flood(server, model):
    other = Raw(server)
    stream = other.post(completion(model=model, stream=True, max_tokens=400))
    pair = lambda k: frame(HEADERS, GET, 2 * k + 1, 5) + frame(RST_STREAM, b"\0\0\0\x08", 2 * k + 1)
    for _ in range(6):
        assert flooded(server, lambda i: b"".join(pair(k) for k in range(500 * i, 500 * i + 500)), 20)
        assert good(server) < 1 * SLOW
    other.until(lambda: stream in other.ended, 30)
    assert other.body[stream].endswith(b"data: [DONE]\n\n")
    other.close()
    assert server.output().count("too many streams reset") < 30, "a log storm"


@pytest.mark.parametrize("kind", ["ping", "settings", "priority", "empty-data", "tiny-data", "continuation", "unknown"])
def test_frame_floods(server, kind):
    many = {"ping": frame(PING, bytes(8)) * 500, "settings": frame(SETTINGS) * 500, "priority": frame(PRIORITY, b"\0\0\0\0\x10", 1) * 1000,
            "empty-data": frame(DATA, b"", 1) * 1000, "tiny-data": frame(DATA, b"x", 1) * 1000, "continuation": frame(CONTINUATION, b"", 1) * 1000,
            "unknown": frame(200, b"abc", 1) * 1000}[kind]
    post = bytes([0x83, 0x86, 0x44, 15]) + b"/v1/completions"
    begin = {"continuation": frame(HEADERS, GET, 1), "priority": b""}.get(kind, frame(HEADERS, post, 1, 4))
    before = rss_mib(server)
    assert flooded(server, lambda i: begin if i == 0 else many, 200)
    assert rss_mib(server) - before < 30 * (8 if SLOW > 1 else 1)
    assert good(server) < 1 * SLOW
    assert "skipping frame" not in server.output()


def test_a_flood_is_told_goodbye(server):
    c = Raw(server)
    c.send(frame(PING, bytes(8)) * 1001)
    c.until(lambda: c.goaway or c.closed)
    assert c.goaway is None or c.goaway.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
    c.until(lambda: c.closed)


def test_what_is_no_flood(server, model):
    c = Raw(server)
    for i in range(50):
        c.send(frame(PING, bytes(8)) + frame(77, b"greased", 0) + frame(PRIORITY, b"\0\0\0\0\x10", 2 * (i % 10) + 1001))
    body = json.dumps(completion(model=model)).encode().ljust(3000)
    stream = c.open()
    for k in range(len(body)):
        c.h2.send_data(stream, body[k:k + 1], end_stream=k == len(body) - 1)
    c.flush()
    assert c.answer(stream)[0] == 200
    for _ in range(60):  # openai clients that stop reading early
        s = c.post(completion(model=model, stream=True, max_tokens=1000))
        c.until(lambda: s in c.body)
        c.h2.reset_stream(s)
        c.flush()
    assert c.answer(c.get("/version"))[0] == 200
    assert "skipping frame" not in server.output()
    c.close()


def test_more_streams_than_allowed(server):
    c = Raw(server)
    c.until(lambda: c.h2.remote_settings.max_concurrent_streams == 100)
    post = bytes([0x83, 0x86, 0x44, 15]) + b"/v1/completions"
    c.send(b"".join(frame(HEADERS, post, 2 * k + 1, 4) for k in range(300)))
    c.sock.settimeout(1)
    raw = b""
    try:
        while len(raw) < 200 * 13:
            raw += c.sock.recv(65536)
    except TimeoutError:
        pass
    assert raw.count(b"\0\0\0\x07") >= 200  # REFUSED_STREAM
    c.close()
    good(server)


# ---- how a connection begins


def first_answer(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5 * SLOW) as s:
        s.sendall(data)
        got = b""
        try:
            while part := s.recv(65536):
                got += part
                if b"\r\n\r\n" in got:
                    break
        except (TimeoutError, ConnectionResetError):
            pass
        return got


def test_beginnings(server):
    get = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n"
    assert first_answer(server, get).startswith(b"HTTP/1.1 200")
    upgrade = b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    assert first_answer(server, upgrade).startswith(b"HTTP/1.1 200")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for bad in (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRI * HTTP/1.1\r\n\r\n", b"P\r\n\r\n", b"PRI\r\n\r\n"):
        assert not first_answer(server, bad).startswith(b"HTTP/1.1 2"), bad
    for garbage in (os.urandom(1000), b"\xff" * 1000, b"GET / HTTP/1.1\r\n\r\n"):
        first_answer(server, preface + garbage)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5 * SLOW) as s:  # byte by byte
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(len(preface)):
            s.sendall(preface[i:i + 1])
            time.sleep(0.002)
        s.sendall(frame(SETTINGS) + frame(HEADERS, GET, 1, 5))
        assert s.recv(9)[3] == SETTINGS
    good(server)


def test_it_is_off_unless_asked_for(serve):
    s = serve("--mock")
    assert not first_answer(s, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS)).startswith(b"\0\0")
    with pytest.raises(httpx.HTTPError):
        httpx.Client(http1=False, http2=True).get(s.url + "/health")


@needs_openssl
@pytest.mark.parametrize("on", [True, False])
def test_tls_chooses(serve, tmp_path, on):
    pki = Pki(tmp_path)
    s = ready(serve("--mock", *(["--http2"] if on else []), "--ssl-certfile", pki.cert, "--ssl-keyfile", pki.key, wait=False))
    for offered, chosen in ((["h2", "http/1.1"], "h2" if on else "http/1.1"), (["http/1.1"], "http/1.1"), (["http/1.1", "h2"], "h2" if on else "http/1.1"), ([], None), (["spdy/1"], None)):
        context = pki.context()
        if offered:
            context.set_alpn_protocols(offered)
        with context.wrap_socket(socket.create_connection(("127.0.0.1", s.port)), server_hostname="localhost") as sock:
            assert sock.selected_alpn_protocol() == chosen, offered
    context = pki.context()
    r = httpx.Client(http2=True, verify=context).get(s.https + "/version")
    assert (r.status_code, r.http_version) == (200, "HTTP/2" if on else "HTTP/1.1")
    conn = http.client.HTTPSConnection("127.0.0.1", s.port, context=pki.context())
    conn.request("GET", "/version")
    assert conn.getresponse().status == 200
    if on:
        c = openai.OpenAI(base_url=s.https + "/v1", api_key="x", max_retries=0, http_client=httpx.Client(http2=True, verify=context))
        m = c.models.list().data[0].id
        assert len(list(c.completions.create(model=m, prompt="x", max_tokens=500, stream=True, extra_body={"ignore_eos": True}))) >= 300
        context = pki.context()
        context.set_alpn_protocols(["h2"])
        raw = Raw(s, context=context)
        raw.send(frame(PING, bytes(8)) * 1001)
        raw.until(lambda: raw.closed)


# ---- the end


def test_a_drain_says_goaway(serve):
    s = serve(*FLAGS, "--shutdown-timeout", 20)
    model = json.loads(s.get("/v1/models"))["data"][0]["id"]
    idle, busy = Raw(s), Raw(s)
    assert idle.answer(idle.get("/version"))[0] == 200
    stream = busy.post(completion(model=model, stream=True, max_tokens=2000))
    busy.until(lambda: stream in busy.body)
    s.proc.terminate()
    idle.until(lambda: idle.closed, 5)
    assert idle.goaway.error_code == 0
    refused = busy.post(completion(model=model))
    assert busy.answer(refused)[0] == 503 and busy.headers[refused]["retry-after"] == "5"
    busy.until(lambda: stream in busy.ended, 30)
    assert busy.body[stream].endswith(b"data: [DONE]\n\n")
    busy.until(lambda: busy.closed, 5)
    assert busy.goaway.error_code == 0 and s.proc.wait(10) == 0


def test_idle_connections_end(serve):
    s = serve("--mock", "--http2", "--http-keep-alive", 1)
    c = Raw(s)
    assert c.answer(c.get("/version"))[0] == 200
    c.until(lambda: c.closed, 6)
    assert c.goaway.error_code == 0
    silent = socket.create_connection(("127.0.0.1", s.port), timeout=10 * SLOW)
    assert silent.recv(1) == b""


def test_stopping_with_idle_clients(serve):
    s = serve("--mock", "--http2")
    c = Raw(s)
    assert c.answer(c.get("/version"))[0] == 200
    t0 = time.monotonic()
    s.proc.terminate()
    c.until(lambda: c.closed, 5)
    assert c.goaway is not None and c.goaway.error_code == 0
    assert s.proc.wait(10) == 0 and time.monotonic() - t0 < 3 * SLOW
