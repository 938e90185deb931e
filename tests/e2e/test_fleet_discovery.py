"""Workers that are found: by a file, by a name server, by a Kubernetes API; the last two are small fakes in this process."""
import http.server
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.parse

import pytest
from conftest import BUILD, ROOT, SLOW, TINY, free_port, wait_for


@pytest.fixture
def workers():
    """A factory of mock workers on TCP ports of this machine."""
    procs = []

    def start(n):
        ports = [free_port() for _ in range(n)]
        for p in ports:
            procs.append(subprocess.Popen([str(BUILD / "weir-worker"), str(TINY), "--mock", "--mock-step-ms", "2", "--listen",
                                           f"tcp://127.0.0.1:{p}"], stderr=subprocess.DEVNULL))
        return ports

    yield start
    for p in procs:
        p.kill()
        p.wait()


def ready(router):
    return sorted(int(w["address"].rsplit(":", 1)[1]) for w in json.loads(router.get("/weir/workers"))["workers"] if w["state"] == "ready")


def settles(router, ports, seconds=15):
    wait_for(lambda: ready(router) == sorted(ports), seconds, f"workers {ports}")


def ask(router):
    assert router.client().completions.create(model="", prompt="x", max_tokens=3).usage.completion_tokens == 3


def test_a_file(workers, serve, tmp_path):
    a, b, c = workers(3)
    path = tmp_path / "workers"
    line = "tcp://127.0.0.1:{}\n".format
    path.write_text("# two of them\n" + line(a) + "\n  " + line(b))
    r = serve("--worker-file", path, "--enable-admin-api", command="router")
    settles(r, [a, b])
    path.write_text(line(b) + line(c))
    settles(r, [b, c])
    path.write_text(line(a) + "nonsense\n")
    wait_for(lambda: "line 2" in r.output(), 5, "the complaint")
    assert ready(r) == sorted([b, c])
    new = tmp_path / "new"
    new.write_text(line(a))
    os.replace(new, path)
    settles(r, [a])
    path.unlink()
    time.sleep(.5)
    assert ready(r) == [a]
    ask(r)
    assert r.proc.poll() is None


def test_a_file_changes_under_load(workers, serve, tmp_path):
    """A worker that is taken from the file in mid-stream finishes, or hands over when its time is up; nobody notices."""
    a, b = workers(2)
    path = tmp_path / "workers"
    path.write_text(f"tcp://127.0.0.1:{a}\n")
    r = serve("--worker-file", path, "--worker-drain-timeout", "0.2", "--enable-admin-api", command="router")
    s = iter(r.client().completions.create(model="", prompt="x", max_tokens=1000, seed=1, stream=True))
    text = next(s).choices[0].text
    path.write_text(f"tcp://127.0.0.1:{a}\ntcp://127.0.0.1:{b}\n")
    settles(r, [a, b])
    path.write_text(f"tcp://127.0.0.1:{b}\n")
    text += "".join(chunk.choices[0].text for chunk in s)
    assert text == r.client().completions.create(model="", prompt="x", max_tokens=1000, seed=1).choices[0].text
    assert ready(r) == [b] and r.metric_of("weir_failovers_total", outcome="ok") == 1


def test_a_worker_that_is_no_longer_named_finishes(workers, serve, tmp_path):
    """Without replay, so that a request that were cut off would fail."""
    a, b = workers(2)
    path = tmp_path / "workers"
    path.write_text(f"tcp://127.0.0.1:{a}\n")
    r = serve("--worker-file", path, "--no-replay", "--enable-admin-api", command="router")
    s = iter(r.client().completions.create(model="", prompt="x", max_tokens=1500, seed=1, stream=True))
    text = next(s).choices[0].text
    path.write_text(f"tcp://127.0.0.1:{b}\n")
    settles(r, [b])
    (left,) = [w for w in json.loads(r.get("/weir/workers"))["workers"] if w["address"].endswith(f":{a}")]
    assert left["state"] == "draining" and len(json.loads(r.get("/debug/requests"))["requests"]) == 1
    ask(r)
    text += "".join(chunk.choices[0].text for chunk in s)
    assert text == r.client().completions.create(model="", prompt="x", max_tokens=1500, seed=1).choices[0].text
    wait_for(lambda: len(json.loads(r.get("/weir/workers"))["workers"]) == 1, 5, "its departure")
    assert r.metric("weir_failovers_total") == 0


def test_files_that_cannot_be(tmp_path):
    (tmp_path / "bad").write_text("tcp://127.0.0.1:1\nhttp://x\n")
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path / "bad", "line 2")):
        p = subprocess.run([str(BUILD / "weir"), "router", "--port", "0", "--worker-file", str(path)], cwd=ROOT, capture_output=True,
                           text=True, timeout=20 * SLOW)
        assert p.returncode == 1 and words in p.stderr, p.stderr
    for flags in (["--worker-dns", "noport"], ["--worker-dns", "a..b:1"], ["--worker-endpoints", "Bad/Name"], []):
        p = subprocess.run([str(BUILD / "weir"), "router", "--port", "0", *flags], cwd=ROOT, capture_output=True, text=True, timeout=20 * SLOW)
        assert p.returncode == 2, (flags, p.stderr)


def test_flags_again(workers, serve, tmp_path):
    """SIGHUP: the list of workers and the log's level of --config take effect; what cannot be changed is named."""
    a, b = workers(2)
    path = tmp_path / "config.yaml"
    config = "enable-admin-api: true\nlog-level: {}\nmax-replays: {}\nworker: [tcp://127.0.0.1:{}]\n".format
    path.write_text(config("info", 3, a))
    r = serve("--config", path, command="router")
    settles(r, [a])
    path.write_text(config("debug", 5, b))
    r.proc.send_signal(signal.SIGHUP)
    settles(r, [b])
    wait_for(lambda: "next start flag=max-replays" in r.output(), 5, "the warning")
    path.write_text("nonsense: 1\n")
    r.proc.send_signal(signal.SIGHUP)
    wait_for(lambda: "the flags stay as they were" in r.output(), 5, "the complaint")
    ask(r)


# ---- DNS ------------------------------------------------------------------------------------------------------------------------

class NameServer:
    """One zone in a dict: (name, type) to a list of addresses or (target, port); over UDP, and TCP for what does not fit."""

    def __init__(self):
        self.zone, self.rcode, self.n_udp, self.n_tcp, self.cut = {}, 0, 0, 0, False
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        for run in (self.run_udp, self.run_tcp):
            threading.Thread(target=run, daemon=True).start()

    @staticmethod
    def pack_name(name):
        return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"

    def answer(self, q, tcp):
        at, labels = 12, []
        while q[at]:
            labels.append(q[at + 1:at + 1 + q[at]].decode())
            at += 1 + q[at]
        (kind,) = struct.unpack("!H", q[at + 1:at + 3])
        question, records = q[12:at + 5], []
        for r in self.zone.get((".".join(labels), kind), []):
            data = {1: lambda: socket.inet_aton(r), 28: lambda: socket.inet_pton(socket.AF_INET6, r),
                    33: lambda: struct.pack("!HHH", 0, 0, r[1]) + self.pack_name(r[0])}[kind]()
            records.append(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(data)) + data)
        cut = self.cut and not tcp
        head = q[:2] + struct.pack("!HHHHH", 0x8180 | self.rcode | (0x200 if cut else 0), 1, 0 if cut else len(records), 0, 0)
        return head + question + (b"" if cut else b"".join(records))

    def run_udp(self):
        while True:
            q, peer = self.udp.recvfrom(4096)
            self.n_udp += 1
            self.udp.sendto(b"\0\0garbage", peer)  # what is no answer is passed over
            self.udp.sendto(self.answer(q, False), peer)

    def run_tcp(self):
        while True:
            c, _ = self.tcp.accept()
            n = struct.unpack("!H", c.recv(2))[0]
            a = self.answer(c.recv(n), True)
            self.n_tcp += 1
            c.sendall(struct.pack("!H", len(a)) + a)
            c.close()


def test_address_records(workers, serve):
    (port,) = workers(1)
    ns = NameServer()
    name = "workers.default.svc.cluster.local"
    ns.zone[name, 1] = ["127.0.0.1"]
    r = serve("--worker-dns", f"{name}:{port}@127.0.0.1:{ns.port}", "--enable-admin-api", command="router")
    settles(r, [port])
    ns.rcode = 2
    wait_for(lambda: "code 2" in r.output(), 10, "a word in the log")
    assert ready(r) == [port]  # the server's trouble is not the workers'
    ns.rcode, ns.cut = 0, True
    wait_for(lambda: ns.n_tcp, 10, "a question over TCP")
    ask(r)
    ns.zone.clear()
    settles(r, [])


HERE = "127.1"  # a name that every resolver knows, /etc/hosts or not


def test_service_records(workers, serve):
    a, b = workers(2)
    ns = NameServer()
    name = "_weir._tcp.workers.example.org"
    ns.zone[name, 33] = [(HERE, a)]
    r = serve("--worker-dns", f"{name}@127.0.0.1:{ns.port}", "--enable-admin-api", command="router")
    settles(r, [a])
    ns.zone[name, 33] = [(HERE, b), (HERE, a)]
    settles(r, [a, b])
    ns.zone[name, 33] = [(HERE, b)]
    settles(r, [b])
    ask(r)


# ---- Kubernetes -----------------------------------------------------------------------------------------------------------------

class Api:
    """As much of a Kubernetes API as EndpointSlices take: list, watch, and "too old" at will."""

    def __init__(self, token):
        self.slices, self.version, self.token = {}, 100, token
        self.events, self.lock, self.n_lists, self.n_watches, self.oldest, self.bad = [], threading.Condition(), 0, 0, 0, []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def do_GET(self):
                api.get(self)

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def set(self, name, slice_):
        with self.lock:
            self.version += 1
            kind = "DELETED" if slice_ is None else "MODIFIED" if name in self.slices else "ADDED"
            object_ = {"metadata": {"name": name, "resourceVersion": str(self.version)}, **(slice_ or self.slices[name])}
            if slice_ is None:
                del self.slices[name]
            else:
                self.slices[name] = slice_
            self.events.append((self.version, {"type": kind, "object": object_}))
            self.lock.notify_all()

    def get(self, h):
        url = urllib.parse.urlparse(h.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if (url.path != "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices" or h.headers["Authorization"] != f"Bearer {self.token}"
                or query["labelSelector"] != "kubernetes.io/service-name=weir"):
            self.bad.append(h.path)
            h.send_response(403)
            h.send_header("Content-Length", "0")
            h.end_headers()
        elif "watch" not in query:
            with self.lock:
                self.n_lists += 1
                items = [{"metadata": {"name": n}, **s} for n, s in self.slices.items()]
                body = json.dumps({"metadata": {"resourceVersion": str(self.version)}, "items": items}).encode()
            h.send_response(200)
            h.send_header("Content-Length", str(len(body)))
            h.end_headers()
            h.wfile.write(body)
        else:
            self.watch(h, int(query["resourceVersion"]))

    def watch(self, h, version):
        self.n_watches += 1
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()

        def say(event):
            line = json.dumps(event).encode() + b"\n"
            for piece in (line[:7], line[7:]):  # lines come in any pieces
                h.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                h.wfile.flush()

        try:
            if version < self.oldest:
                say({"type": "ERROR", "object": {"kind": "Status", "code": 410}})
            while version >= self.oldest:
                with self.lock:
                    self.lock.wait(.2)
                    if version < self.oldest:
                        break
                    new = [(v, e) for v, e in self.events if v > version]
                for version, e in new:
                    say(e)
            h.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass


def endpoint_slice(*ports, **conditions):
    """All workers of the test live at one address, so each has a slice with a port of its own."""
    return {"addressType": "IPv4", "ports": [{"name": "other", "port": 1}, {"name": "weir", "port": ports[0]}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": conditions}]}


def test_endpoint_slices(workers, serve, tmp_path):
    a, b, c = workers(3)
    (tmp_path / "token").write_text("secret-token\n")
    (tmp_path / "namespace").write_text("prod")
    api = Api("secret-token")
    api.set("s-a", endpoint_slice(a, ready=True))
    api.set("s-b", endpoint_slice(b, ready=False, serving=False))
    r = serve("--worker-endpoints", "weir:weir", "--kubernetes-api", api.url, "--kubernetes-account", tmp_path, "--enable-admin-api", command="router")
    settles(r, [a])
    api.set("s-b", endpoint_slice(b, ready=True))
    settles(r, [a, b])
    api.set("s-c", endpoint_slice(c))
    settles(r, [a, b, c])
    api.set("s-a", endpoint_slice(a, ready=False, serving=True, terminating=True))
    time.sleep(.5)
    assert ready(r) == sorted([a, b, c])  # it is ending, and may finish what it has
    api.set("s-a", None)
    settles(r, [b, c])
    n_lists = api.n_lists
    api.oldest = api.version + 1
    api.set("s-b", None)  # the version that was watched is too old by now: a new list tells
    settles(r, [c])
    assert api.n_lists > n_lists and not api.bad
    (tmp_path / "token").write_text("another")
    api.token = "another"
    api.oldest = api.version + 1
    api.set("s-b", endpoint_slice(b))
    settles(r, [b, c])
    ask(r)
