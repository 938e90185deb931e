"""The rows H, A, J, P and T of reliability.md that concern the JSON routes, spread over routes, spellings and streams.

test_http_hostile.py, test_edge.py and test_api_bad_inputs.py say what each row means in detail; here every row is sent to every
route that it concerns: nothing is answered with a 5xx, each refusal has the error body and one of the statuses its row allows, a
good request follows each, and in the end nothing is left. Over 2,000 requests; TEST_SCALE below 10 sends a seeded sample.
"""
import http.client
import itertools
import json
import random
import time
import urllib.parse

import pytest
from conftest import SCALE, SLOW, Server, wait_for
from test_api_bad_inputs import CONTEXT, MALFORMED, RAW, ROWS, VOCAB
from test_conformance import BASE, C, D, H, T
from test_http_hostile import Conn

JSON_ROUTES = [C, H, T, D]
BODY = {route: json.dumps(body).encode() for route, body in BASE.items()}
KEY = "sk-reliability"
MEBI = 1 << 20


class Row:
    """One request as bytes for one connection of its own, or a body for a route; with the statuses it may have (None: the connection
    ends without an answer)."""

    def __init__(self, name, statuses, data=None, route=None, body=None, headers=None, stream=False):
        self.name, self.statuses, self.data, self.route, self.body, self.headers, self.stream = name, statuses, data, route, body, headers, stream


def raw(method, target, head="", body=b"", version="1.1", length=True):
    n = f"Content-Length: {len(body)}\r\n" if length and (body or method == "POST") else ""
    return f"{method} {target} HTTP/{version}\r\nHost: x\r\n{head}{n}\r\n".encode("latin-1") + body


def post(route, head="", body=None, kind="Content-Type: application/json\r\n", length=True):
    return raw("POST", route, kind + head, BODY[route] if body is None else body, length=length)


# ---- H: the HTTP layer ------------------------------------------------------------------------------------------------------

def right(path, head):
    """A request for path with the method that it has."""
    known = path in BODY or path in ("/v1/score", "/v1/rerank", "/v2/rerank")
    return post(path, head, b"{}") if known else raw("GET", path, head, length=False)


def h_rows(paths):
    for route in JSON_ROUTES:
        n = len(BODY[route])
        for value in ("-1", "+5", "0x5", str(2**64 + n), "5, 5", f"{n}, {n}", "", "1 2", "1e2", "NaN"):
            yield Row("H03", (400,), post(route, f"Content-Length: {value}\r\n", length=False))
        for first, second in ((n, n), (n, 0), (0, n), (n, n + 1), (n, -1)):
            yield Row("H03", (400,), post(route, f"Content-Length: {first}\r\nContent-Length: {second}\r\n", length=False))
        chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (n, BODY[route])
        for value in ("gzip, chunked", "xchunked", "chunked, identity", "", "\x0bchunked", "chunked\r\n x"):
            yield Row("H04", (400, 501), post(route, f"Transfer-Encoding: {value}\r\n", chunks, length=False))
        for value in ("chunked", "ChUnKeD", "chunked ", "identity"):
            yield Row("H04", (200, 400), post(route, f"Transfer-Encoding: {value}\r\n", chunks, length=False))
            yield Row("H04", (400,), post(route, f"Transfer-Encoding: {value}\r\nContent-Length: {n}\r\n", chunks, length=False))
        for size in (b"0_2e", b"0x3", b"f" * 17, b"-1", b"", b";", b" ", b"g", b"1 1", b"+1"):
            yield Row("H05", (400, 413, None), post(route, "Transfer-Encoding: chunked\r\n", size + b"\r\nabc\r\n0\r\n\r\n", length=False))
        for kind in ("", "Content-Type: text/plain\r\n", "Content-Type:\r\n", "Content-Type: application/jsonx\r\n", "Content-Type: application\r\n",
                     "Content-Type: multipart/form-data; boundary=x\r\n", "Content-Type: application/x-www-form-urlencoded\r\n",
                     "Content-Type: application/json, text/plain\r\n", "Content-Type: ;application/json\r\n"):
            yield Row("H11", (400,), post(route, kind=kind))
        for kind in ("application/json; charset=utf-16", "APPLICATION/JSON", "application/json;", " application/json ; a=b"):
            yield Row("H11", (200,), post(route, kind=f"Content-Type: {kind}\r\n"))
        for coding in ("gzip", "br", "deflate", "identity, gzip", "gzip, identity", "x", "\"identity\""):
            yield Row("H12", (400,), post(route, f"Content-Encoding: {coding}\r\n", b"\x1f\x8b\x08\x00" + bytes(64)))
        yield Row("H12", (200,), post(route, "Content-Encoding: identity\r\n"))
        for what in ("banana", "100-continue, banana", ""):
            yield Row("H13", (417, 400, 200), post(route, f"Expect: {what}\r\n"))
    for path, method in itertools.product(paths, ("FOO", "TRACE", "PUT", "DELETE", "PATCH", "a" * 40, "get", "Post")):
        yield Row("H09", (405,), raw(method, path, length=False))
    for path in paths:
        for odd in (path + "/", path + "//", "/" + path, path + "%00", path + "%2f", path.replace("/", "%2f", 1), "/x/.." + path,
                    path + "/..", path + ";a=b", path + "\\", path.upper() if path != path.upper() else path + "A", path[:-1], "/v9" + path,
                    path + "%", path + "%zz"):
            name = odd.startswith("/v1/models/") and len(odd) > 11  # any name may be asked for
            known = odd in paths or odd == "/"
            if not known:
                yield Row("H10", (404,) if not name else (404, 405), raw("GET", odd, length=False))
        yield Row("H02", (431,), raw("GET", path, "X: " + "a" * 70000 + "\r\n", length=False))
        yield Row("H02", (400,), raw("GET", path, "".join(f"X{i}: 1\r\n" for i in range(101)), length=False))
        for host in ("a/v1?x", "a b", "\"", "a\x01"):
            yield Row("H02", (400,), raw("GET", path, length=False).replace(b"Host: x", b"Host: " + host.encode()))
        yield Row("H02", (400,), raw("GET", path, "Host: y\r\n", length=False))
        for bad in ("a b", "a" * 129, "\xe9", "a\tb"):
            yield Row("P15", (400,), right(path, f"X-Request-Id: {bad}\r\n"))


# ---- A: keys ----------------------------------------------------------------------------------------------------------------

def a_rows(paths, open_paths):
    wrong = ["", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {KEY} {KEY}", f"Bearer {KEY.upper()}", f"Basic {KEY}", KEY, f"Bearer{KEY}",
             f"Bearer \"{KEY}\"", "Bearer \xe9", f"Bearer {KEY}\xa0", "Bearer " + "x" * 20000, f"Token {KEY}", f"Bearer,{KEY}",
             *(f"Bearer {KEY[:i]}" for i in range(1, len(KEY), 3))]
    for path in paths:
        if path in open_paths:
            yield Row("A02", (200, 405), raw("GET", path, length=False))
            continue
        method = "POST" if path in BODY else "GET"
        for value in wrong:
            yield Row("A01", (401,), raw(method, path, f"Authorization: {value}\r\n", length=False))
        good = f"Authorization: Bearer {KEY}\r\n"
        yield Row("A01", (401,), raw(method, path, good + "Authorization: Bearer wrong\r\n", length=False))
        yield Row("A01", (401,), raw(method, path, "Authorization: Bearer wrong\r\n" + good, length=False))
        for trick in ("", "X-Forwarded-For: 127.0.0.1\r\n", "X-Original-URL: /health\r\n", "X-Rewrite-URL: /health\r\n", "X-Api-Key: " + KEY + "\r\n",
                      "Forwarded: for=127.0.0.1\r\n", "Cookie: key=" + KEY + "\r\n"):
            yield Row("A02", (401,), raw(method, path, trick, length=False))
        for odd in (path + "?key=" + KEY, path + "/", "//health", path + "/../health", "/health/" + path):
            yield Row("A02", (401,), raw(method, odd, length=False))
    yield Row("A01", (200,), raw("GET", "/v1/models", f"Authorization: bearer {KEY}\r\n", length=False))
    yield Row("A01", (200,), raw("GET", "/v1/models", f"AUTHORIZATION: BEARER {KEY}\r\n", length=False))


# ---- J: bodies --------------------------------------------------------------------------------------------------------------

def nested(open_, close, n, rest):
    return b'{"x":' + open_ * n + b"1" + close * n + b"," + rest[1:]


def j_rows(routes=JSON_ROUTES):
    for route in routes:
        good = BODY[route]
        for body in (b"null", b"[]", b'"x"', b"1", b"true", b"false", b"-0", b"1.5", b" [] ", b"[{}]"):
            yield Row("J01", (400,), route=route, body=body)
        for body in MALFORMED:
            yield Row("J02", (400,), route=route, body=body)
        for i in range(1, len(good)):
            yield Row("J05", (400,), route=route, body=good[:i])
        for open_, close in ((b"[", b"]"), (b'{"a":', b"}")):
            yield Row("J03", (200,), route=route, body=nested(open_, close, 62, good))
            for n in (65, 2049):
                yield Row("J03", (400,), route=route, body=nested(open_, close, n, good))
            yield Row("J03", (400,), route=route, body=open_ * 10**5)
        yield Row("J04", (200,), route=route, body=b"{" + b'"k":0,' * 10**4 + good[1:])
        yield Row("J04", (200,), route=route, body=b'{"' + b"k" * 10**5 + b'":0,' + good[1:])
        for junk in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\\ud800", b"\x00", b"\x1f", b"\\x"):
            yield Row("J05", (400,), route=route, body=b'{"x":"' + junk + b'",' + good[1:])
        for fine in (b"\\u0000", b"\xef\xbf\xbf", b"\\uffff", b"\\ud83d\\ude00"):
            yield Row("J05", (200,), route=route, body=b'{"x":"' + fine + b'",' + good[1:])
        for body in (good + b"x", good + b"{}", b"\xef\xbb\xbf\xef\xbb\xbf" + good, good.decode().encode("utf-16"), good + b"\x00", b"\x00" + good):
            yield Row("J05", (400,), route=route, body=body)
        yield Row("J05", (200,), route=route, body=b"\xef\xbb\xbf" + good)
        yield Row("J07", (404,), route=route, body=b'{"mod\\u0065l":"nope",' + good[1:])
        yield Row("J07", (200,), route=route, body=b'{"model":"nope","mod\\u0065l":"",' + good[1:])
        yield Row("J07", (404,), route=route, body=b'{"model":"","mod\\u0065l":"nope",' + good[1:])


def j06_rows(doc, routes=JSON_ROUTES):
    """Every field that the document names with every value; what is legal is test_conformance.py's matter."""
    for route in routes:
        schema = doc["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for field, value in itertools.product(schema["properties"], [*RAW.values(), '"' + "x" * 10**5 + '"', "1e400", "[[[[]]]]"]):
            body = {k: v for k, v in BASE[route].items() if k != field}
            text = (json.dumps(body)[:-1] + ("," if body else "") + f'"{field}":{value}}}').encode()
            for stream in ((False, True) if route in (C, H) and field != "stream" else (False,)):
                yield Row("J06 " + field, (200, 400, 404) if field == "model" else (200, 400), route=route,
                          body=text[:-1] + b',"stream":true}' if stream else text, stream=stream)


# ---- P: parameters ----------------------------------------------------------------------------------------------------------

def p_rows(doc):
    """The rows of test_api_bad_inputs.py, plain and streaming; a field that the build has gained since may be accepted."""
    for (route, change, status, _, _), stream in itertools.product(ROWS, (False, True)):
        if stream and (route in (T, D) or "stream" in change):
            continue
        body = {**BASE[route], **change, **({"stream": True} if stream else {})}
        if status != 200 and len(json.dumps(body)) > MEBI // 4:
            continue  # sent once, there
        if "stream_options" in change and stream:
            continue
        yield Row("P", (status,), route=route, body=json.dumps(body).encode(), stream=stream)
    for text in ("\r\n", "\x1b[31m", "\0", "a\"b", "../../etc/passwd", "x" * 10**5, "\u2028", "%s%n", "${jndi:x}", "<script>"):
        for route in JSON_ROUTES:
            yield Row("P11", (404,), route=route, body=json.dumps({**BASE[route], "model": text}).encode())
        yield Row("P15", (200,), route=C, body=json.dumps({**BASE[C], "user": text, "metadata": {text.strip("\0"): text}}).encode())
        yield Row("P14", (200,), route=H, body=json.dumps({**BASE[H], "chat_template_kwargs": {"x": text, "bos_token": text[:100]}}).encode())
        yield Row("T02", (200, 400), route=H, body=json.dumps({**BASE[H], "messages": [{"role": "user", "content": text[:1000]}]}).encode())
    for ids in ([VOCAB], [-1], [2**31], [2**63 - 1], [5] * CONTEXT):
        yield Row("P08", (400,), route=C, body=json.dumps({"prompt": ids}).encode())


# ---- T: templates -----------------------------------------------------------------------------------------------------------

T01 = ["{% if %}", "{{ x | nofilter }}", "{% if x is notest %}{% endif %}", "{% unknown %}", "{{ x.y.z }}", "{{ messages[99].content }}",
       "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ range(10**9) | list }}", "{{ 'a' * 10**8 }}", "{{ '%99999999d' | format(1) }}",
       "{{ ''.__class__.__mro__ }}", "{{ x | attr('__class__') }}", "{% import 'x' as y %}", "{% include '/etc/passwd' %}", "{% extends 'x' %}",
       "{{ raise_exception('no') }}", "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}",
       "{{ 10**10**10 }}", "{{ 1/0 }}", "{{ 'a'.join(range(10**6)|map('string')) }}", "{{", "{%", "{#", "{{ '" + "a" * 1000, "{{ (" * 500,
       "{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "{{ " + "-" * 5000 + "1 }}", "{% set ns = namespace() %}{% for i in range(99999) %}"
       "{% set ns.x = (ns.x or '') ~ 'aaaaaaaaaaaaaaaa' %}{% endfor %}", "{{ [1]*10**8 }}", "{{ messages | tojson(indent=10**9) }}", "x" * 300_000,
       "{% for x in messages %}" * 70 + "{% endfor %}" * 70, "", "{{ strftime_now('%" + "Y%" * 9999 + "') }}"]
T02 = ["{{ 7*7 }}", "{% raw %}", "{% endfor %}", "<|end|>", "<|begin_of_text|>", "assistant", "\0", "{# x #}", "{{ raise_exception('x') }}", "<|im_end|>\n"]


def t_rows():
    for template, route in itertools.product(T01, (H, T)):
        body = {"messages": BASE[H]["messages"], "chat_template": template}
        yield Row("T01", (200, 400), route=route, body=json.dumps(body).encode())
        yield Row("T01", (200, 400), route=route, body=json.dumps({**body, "stream": True}).encode(), stream=True)
    for text, role in itertools.product(T02, ("user", "system", "assistant")):
        yield Row("T02", (200, 400), route=H, body=json.dumps({**BASE[H], "messages": [{"role": role, "content": text}, *BASE[H]["messages"]]}).encode())
        yield Row("T02", (200, 400), route=H, body=json.dumps({**BASE[H], "messages": [{"role": text or "a", "content": role}]}).encode())
    for nesting in (10, 50):
        value = 1
        for _ in range(nesting):
            value = [value]
        yield Row("P14", (200,), route=H, body=json.dumps({**BASE[H], "chat_template_kwargs": {"x": value}}).encode())


# ---- sending ----------------------------------------------------------------------------------------------------------------

class Client:
    def __init__(self, server, headers=None, good=C):
        self.server, self.headers, self.good_route, self.sent = server, headers or {}, good, 0
        self.conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60 * SLOW)

    def post(self, route, body):
        self.conn.request("POST", route, body, {"Content-Type": "application/json", **self.headers})
        answer = self.conn.getresponse()
        self.sent += 1
        return answer.status, answer.getheader("content-type") or "", answer.read()

    def good(self, shown):
        status, _, text = self.post(self.good_route, BODY[self.good_route])
        assert status == 200, ("the good one after", shown, text[:300])

    def send(self, row):
        shown = (row.name, row.route, (row.data or row.body)[:200])
        begin = time.monotonic()
        if row.data is None:
            status, kind, text = self.post(row.route, row.body)
        else:
            conn = Conn(self.server).send(row.data)
            self.sent += 1
            answer = conn.answer()
            conn.s.close()
            status, kind, text = (answer.status, answer.header("content-type") or "", answer.body) if answer else (None, "", b"")
        took = time.monotonic() - begin
        assert took < 5 * SLOW, (shown, took)
        assert status in row.statuses, (shown, status, text[:300])
        assert status is None or status < 500 or 501 in row.statuses, (shown, status)
        if status is not None and status >= 400 and text and not kind.startswith("text/plain"):
            error = json.loads(text)["error"]
            assert sorted(json.loads(text)) == ["error"] and sorted(error) == ["code", "message", "param", "type"], (shown, text[:300])
            assert error["code"] == status and len(text) < 2000, (shown, text[:300])
        if status == 200 and row.stream and kind.startswith("text/event-stream"):
            assert text.endswith(b"data: [DONE]\n\n"), (shown, text[-300:])
        self.good(shown)


def sample(rows, n):
    rows = list(rows)
    if SCALE >= 10:
        return rows
    random.Random(4).shuffle(rows)
    return rows[:n]


def finish(s):
    """Nothing is left of what was sent, and the worker is the first one."""
    for gauge in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        wait_for(lambda name=gauge: s.metric(name) == 0, what=gauge)
    assert len(s.worker_pids()) == 1 and json.loads(s.get("/load"))["server_load"] == 0
    assert "check failed" not in s.output() and "restart" not in s.output()
    s.stop()


@pytest.fixture(scope="module")
def text():
    s = Server()
    yield s
    finish(s)


def paths_of(server):
    doc = json.loads(server.get("/openapi.json"))
    return doc, [p.replace("{name}", urllib.parse.quote("x")) for p in doc["paths"]]


def run(client, rows, least, n):
    everything = list(rows)
    assert len(everything) >= least, len(everything)
    failures = []
    for row in sample(everything, n):
        try:
            client.send(row)
        except AssertionError as e:
            failures.append(str(e)[:700])
    assert not failures, f"{len(failures)}\n" + "\n".join(failures[:30])
    return client.sent


def test_http_rows(text):
    _, paths = paths_of(text)
    run(Client(text), h_rows(paths), 600, 150)


def test_key_rows():
    server = Server("--api-key", KEY)
    headers = {"Authorization": "Bearer " + KEY}
    conn = Client(server, headers)
    conn.conn.request("GET", "/openapi.json", headers=headers)
    doc = json.loads(conn.conn.getresponse().read())
    paths = [p.replace("{name}", "x") for p in doc["paths"]]
    open_paths = [p for p, item in doc["paths"].items() if any(op.get("security") == [] for op in item.values())]
    assert {"/health", "/livez", "/readyz", "/ping", "/version", "/metrics", "/load"} <= set(open_paths)
    run(conn, a_rows(paths, open_paths), 300, 60)
    assert KEY not in server.output()
    server.stop()


def test_body_rows(text):
    run(Client(text), j_rows(), 500, 120)


def test_every_field_every_value(text):
    doc, _ = paths_of(text)
    run(Client(text), j06_rows(doc), 2000, 150)


def test_parameter_rows(text):
    doc, _ = paths_of(text)
    run(Client(text), p_rows(doc), 300, 100)


@pytest.mark.slow_sanitized
def test_template_rows(text):
    run(Client(text), t_rows(), 150, 40)
