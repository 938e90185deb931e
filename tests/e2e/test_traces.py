"""Traces: what a collector gets by OTLP over HTTP, decoded by OpenTelemetry's own messages; and the ids in the log."""
import http.server
import json
import os
import re
import subprocess
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from conftest import BUILD, ROOT, SLOW, free_port, wait_for
from test_edge import ask

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "20"}


class Collector:
    """Takes POST /v1/traces; `spans` are all it was given, `resources` and `headers` those of the last request."""

    def __init__(self, port=0):
        self.spans, self.resource, self.headers, self.bad = [], None, None, []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *a):
                pass

            def do_POST(self):
                collector.take(self)

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def take(self, h):
        body = h.rfile.read(int(h.headers["Content-Length"]))
        if h.path != "/v1/traces" or h.headers["Content-Type"] != "application/x-protobuf":
            self.bad.append(h.path)
        message = ExportTraceServiceRequest.FromString(body)
        (by_resource,) = message.resource_spans
        (by_scope,) = by_resource.scope_spans
        assert by_scope.scope.name == "weir" and by_scope.scope.version
        self.headers, self.resource = h.headers, attributes(by_resource.resource)
        self.spans += by_scope.spans
        h.send_response(200)
        h.send_header("Content-Length", "0")
        h.end_headers()

    def roots(self):
        return [s for s in self.spans if s.name == "llm_request"]

    def wait(self, n):
        wait_for(lambda: len(self.roots()) >= n, 10, f"{n} requests at the collector")
        return self.roots()

    def children(self, root):
        kids = [s for s in self.spans if s.parent_span_id == root.span_id]
        assert all(s.trace_id == root.trace_id and s.trace_state == root.trace_state and s.kind == 1 for s in kids)
        return {s.name: s for s in kids}

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def attributes(of):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in of.attributes}


@pytest.fixture
def collector():
    c = Collector()
    yield c
    assert not c.bad
    c.close()


def traced(serve, collector, *flags, **env):
    return serve("--mock", "--mock-step-ms", "2", "--otlp-traces-endpoint", collector.url, *flags, env={**SOON, **env})


def post(server, path, body, **headers):
    return ask(server, path, "POST", [(k.replace("_", "-"), v) for k, v in headers.items()], json.dumps(body).encode())


def test_a_chat(serve, collector):
    s = traced(serve, collector, "--enable-log-requests", OTEL_SERVICE_NAME="chats", OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
               OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20abc")
    body = {"messages": [{"role": "user", "content": "secret words"}], "max_tokens": 20, "temperature": .5, "n": 2, "ignore_eos": True}
    status, _, answer = post(s, "/v1/chat/completions", body, traceparent=f"00-{TRACE}-{CALLER}-01", tracestate="rojo=1,congo=2")
    answer = json.loads(answer)
    (root,) = collector.wait(1)
    assert status == 200 and collector.resource["service.name"] == "chats" and collector.resource["deployment.environment"] == "test"
    assert collector.headers["authorization"] == "Bearer abc" and collector.resource["service.version"]
    assert root.trace_id.hex() == TRACE and root.parent_span_id.hex() == CALLER and root.trace_state == "rojo=1,congo=2"
    assert root.kind == 2 and root.flags == 0x301 and len(root.span_id) == 8
    a = attributes(root)
    assert a["gen_ai.operation.name"] == "chat" and a["http.route"] == "/v1/chat/completions" and a["http.response.status_code"] == 200
    assert a["gen_ai.request.id"] == a["gen_ai.response.id"] == answer["id"] and a["gen_ai.response.model"] == answer["model"]
    assert a["gen_ai.usage.prompt_tokens"] == a["gen_ai.usage.input_tokens"] == answer["usage"]["prompt_tokens"]
    assert a["gen_ai.usage.completion_tokens"] == a["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"] == 40
    assert (a["gen_ai.request.max_tokens"], a["gen_ai.request.temperature"], a["gen_ai.request.n"], a["gen_ai.usage.num_sequences"]) == (20, .5, 2, 2)
    kids = collector.children(root)
    order = ["template", "tokenise", "queue", "prefill", "decode", "send"]
    assert list(kids) == order and len({k.span_id for k in kids.values()}) == 6
    for name, k in kids.items():
        assert root.start_time_unix_nano <= k.start_time_unix_nano <= k.end_time_unix_nano <= root.end_time_unix_nano, name
    for one, next_ in zip(order, order[1:]):
        assert kids[one].end_time_unix_nano <= kids[next_].end_time_unix_nano and kids[one].start_time_unix_nano <= kids[next_].start_time_unix_nano
    decode = kids["decode"].end_time_unix_nano - kids["decode"].start_time_unix_nano
    assert decode >= 19 * 2e6 * .5 and abs(decode * 1e-9 - a["gen_ai.latency.time_in_model_decode"]) < 1e-6
    assert 0 < a["gen_ai.latency.time_to_first_token"] < a["gen_ai.latency.e2e"]
    assert "secret" not in str(collector.spans)
    (line,) = [x for x in s.output().splitlines() if " request id=" in x]
    assert f"trace={TRACE}" in line and f"internal={a['weir.internal_id']}" in line


def test_what_is_sampled(serve, collector):
    s = traced(serve, collector, "--enable-log-requests")
    ask_ = {"prompt": "x", "max_tokens": 2}
    assert post(s, "/v1/completions", ask_, traceparent=f"00-{TRACE}-{CALLER}-00")[0] == 200
    assert post(s, "/v1/completions", ask_, traceparent="00-nonsense", tracestate="a=b")[0] == 200
    assert ask(s, "/v1/completions", "POST", [("traceparent", f"00-{TRACE}-{CALLER}-01")] * 2, json.dumps(ask_).encode())[0] == 200
    assert post(s, "/v1/completions", ask_)[0] == 200
    roots = collector.wait(3)  # the last request's is among them: they come in order
    assert len(roots) == 3 == len({r.trace_id for r in roots}) and TRACE not in [r.trace_id.hex() for r in roots]
    assert all(not r.parent_span_id and not r.trace_state and r.flags == 0x101 for r in roots)
    assert not any("template" in collector.children(r) for r in roots)


def test_sampled_by_ratio(serve, collector):
    s = traced(serve, collector, OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0.5")
    for low, taken in (("7" * 16, True), ("8" * 16, False), ("1" * 16, True)):
        post(s, "/v1/completions", {"prompt": low, "max_tokens": 1}, traceparent=f"00-{'1' * 16}{low}-{CALLER}-{0 if taken else 1:02}")
    assert [r.trace_id.hex()[16:] for r in collector.wait(2)] == ["7" * 16, "1" * 16]


def test_requests_that_do_not_end_well(serve, collector):
    s = traced(serve, collector, "--request-timeout", .5 * SLOW)
    assert post(s, "/v1/completions", {"prompt": "x", "temperature": -1})[0] == 400
    (bad,) = collector.wait(1)
    assert bad.status.code == 0 and attributes(bad)["error.type"] == "400" and "prefill" not in collector.children(bad)
    assert post(s, "/v1/completions", {"prompt": "x", "max_tokens": 1000, "ignore_eos": True})[0] == 504
    late = collector.wait(2)[1]
    assert late.status.code == 2 and attributes(late)["error.type"] == "504" and attributes(late)["gen_ai.usage.output_tokens"] > 1
    status, _, events = post(s, "/v1/completions", {"prompt": "x", "max_tokens": 1000, "ignore_eos": True, "stream": True})
    assert status == 200 and b'"error"' in events
    a = attributes(collector.wait(3)[2])
    assert (a["http.response.status_code"], a["error.type"], a["weir.end"]) == (200, "504", "error")
    stream = s.client().completions.create(model="", prompt="x", max_tokens=1000, stream=True)
    next(iter(stream))
    stream.close()
    left = collector.wait(4)[3]
    assert attributes(left)["weir.end"] == "client left" and "send" not in collector.children(left)


def test_embeddings(serve, collector):
    s = serve("--task", "embed", "--otlp-traces-endpoint", collector.url, env=SOON)
    assert post(s, "/v1/embeddings", {"input": ["a", "b"]})[0] == 200
    (root,) = collector.wait(1)
    a = attributes(root)
    assert a["gen_ai.operation.name"] == "embeddings" and a["gen_ai.usage.num_sequences"] == 2 and "gen_ai.request.temperature" not in a
    assert list(collector.children(root)) == ["tokenise", "queue", "prefill", "send"]


def test_a_collector_that_comes_late(serve):
    """Requests do not wait for one; what the bounds allow arrives once it is there, the rest is counted."""
    port = free_port()
    s = serve("--mock", "--mock-step-ms", "0", "--otlp-traces-endpoint", f"http://127.0.0.1:{port}/v1/traces", env={
        "OTEL_BSP_SCHEDULE_DELAY": "0", "OTEL_BSP_MAX_QUEUE_SIZE": "50", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50"})
    for _ in range(40):
        assert post(s, "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200
    assert s.metric_of("weir_otlp_spans_total", outcome="dropped") > 50
    assert s.output().count("traces cannot be sent") <= 1
    c = Collector(port)
    wait_for(lambda: post(s, "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200 and c.roots(), 30, "spans at last")
    wait_for(lambda: s.metric_of("weir_otlp_spans_total", outcome="sent") == len(c.spans) > 0, 10, "what was sent is counted")
    c.close()


@pytest.mark.parametrize("endpoint, env, words", [
    ("grpc://localhost:4317", {}, "http://"), ("http://c:4318", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
    ("http://c:4318", {"OTEL_EXPORTER_OTLP_HEADERS": "a"}, "no list of headers")])
def test_what_cannot_be(endpoint, env, words):
    p = subprocess.run([str(BUILD / "weir"), "router", "--worker", "ipc:///x", "--port", "0", "--otlp-traces-endpoint", endpoint], cwd=ROOT,
                       capture_output=True, text=True, timeout=20 * SLOW, env={**os.environ, **env})
    assert p.returncode == 2 and re.search("--otlp-traces-endpoint: .*" + words, p.stderr), p.stderr
