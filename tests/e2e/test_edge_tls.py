"""TLS (api.md 19.3.4): certificates made here, the official client, versions, clients' certificates, what goes wrong."""
import contextlib
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import time

import httpx
import openai
import pytest

from conftest import BUILD, ROOT, SLOW, TINY, Server, wait_for
from test_worker_faults import one_line

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl program makes certificates here")
pytestmark = needs_openssl


class Pki:
    """An authority, a server's certificate and a client's, and files that are none of these."""

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.ca_key = self.make("ca", "-x509", "-subj", "/CN=weir test authority")
        self.cert, self.key = self.signed("server", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        self.client, self.client_key = self.signed("client")
        _, self.other_key = self.make("other", "-x509", "-subj", "/CN=another authority")
        self.both = folder / "both.pem"
        self.both.write_text(self.cert.read_text() + self.key.read_text())

    def make(self, name, *flags):
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", key, "-out", cert, *flags)
        return cert, key

    def signed(self, name, *flags):
        request, key = self.make(f"{name}-request", "-subj", f"/CN={name}", *flags)
        cert = self.folder / f"{name}.pem"
        self.openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial", "-days", "2", "-out", cert, "-copy_extensions", "copy")
        return cert, key

    def openssl(self, *args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)

    def context(self, client=False, **versions):
        c = ssl.create_default_context(cafile=self.ca)
        if client:
            c.load_cert_chain(self.client, self.client_key)
        for name, version in versions.items():
            setattr(c, name, version)
        return c


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def ready(server):
    """The fixtures' way of waiting speaks plain HTTP."""
    def answers():
        assert server.proc.poll() is None, server.output()
        return subprocess.run([BUILD / "weir", "--healthcheck", f"https://127.0.0.1:{server.port}"], cwd=ROOT, capture_output=True).returncode == 0
    wait_for(answers, 60, "a server with TLS")
    server.https = f"https://127.0.0.1:{server.port}"
    return server


@pytest.fixture(scope="module")
def tls(pki):
    s = ready(Server("--mock", "--ssl-certfile", pki.cert, "--ssl-keyfile", pki.key, "--max-connections", 100, "--body-timeout", 2, "--api-key", "sk-1", wait=False))
    yield s
    s.stop()


def get(server, context, path="/v1/models", key="sk-1"):
    c = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=20 * SLOW)
    c.request("GET", path, headers={"Authorization": f"Bearer {key}"})
    r = c.getresponse()
    answer = r.status, r.read()
    c.close()
    return answer


def gone(s):
    """Whether the server closes, with or without a word."""
    try:
        return s.recv(4096) == b"" or s.recv(4096) == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


def test_the_client_over_tls(tls, pki):
    assert f"https://127.0.0.1:{tls.port}/v1" in tls.output()
    c = openai.OpenAI(base_url=tls.https + "/v1", api_key="sk-1", max_retries=0, http_client=httpx.Client(verify=pki.context()))
    model = c.models.list().data[0].id
    assert c.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], max_tokens=4).usage.completion_tokens == 4
    chunks = list(c.completions.create(model=model, prompt="x", max_tokens=200, stream=True, extra_body={"ignore_eos": True}))
    assert len(chunks) >= 200 and chunks[-1].choices[0].finish_reason == "length"
    large = c.completions.create(model=model, prompt="word " * 100, max_tokens=1000, extra_body={"ignore_eos": True, "logprobs": 5})
    assert large.usage.completion_tokens == 1000
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=tls.https + "/v1", api_key="no", max_retries=0, http_client=httpx.Client(verify=pki.context())).models.list()
    with pytest.raises(openai.APIConnectionError):  # nobody vouches for this authority
        openai.OpenAI(base_url=tls.https + "/v1", api_key="sk-1", max_retries=0).models.list()


def test_versions_and_protocols(tls, pki):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = pki.context(minimum_version=version, maximum_version=version)
        assert get(tls, context)[0] == 200
        with context.wrap_socket(socket.create_connection(("127.0.0.1", tls.port)), server_hostname="localhost") as s:
            assert s.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
            assert "GCM" in s.cipher()[0] or "CHACHA20" in s.cipher()[0]
    for old in ("-tls1", "-tls1_1"):
        r = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{tls.port}", old, "-cipher", "ALL:@SECLEVEL=0"], input=b"", capture_output=True, timeout=20)
        assert b"Cipher is (NONE)" in r.stdout, old
    context = pki.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(socket.create_connection(("127.0.0.1", tls.port)), server_hostname="localhost") as s:
        assert s.selected_alpn_protocol() == "http/1.1"


def test_what_is_no_tls(tls, pki):
    """Plain HTTP, noise, a half handshake, too many connections: the next good request succeeds, soon."""
    for data in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 70000, bytes(range(256)) * 16):
        with socket.create_connection(("127.0.0.1", tls.port), 20) as s:
            with contextlib.suppress(ConnectionError):  # it may have heard enough before the end
                s.sendall(data)
            assert gone(s)
        assert get(tls, pki.context())[0] == 200
    half = [socket.create_connection(("127.0.0.1", tls.port), 20) for _ in range(90)]
    for s in half[:45]:
        s.sendall(b"\x16\x03\x01\x02\x00\x01")
    t = time.monotonic()
    assert get(tls, pki.context())[0] == 200 and time.monotonic() - t < 0.5 * SLOW
    half += [socket.create_connection(("127.0.0.1", tls.port), 20) for _ in range(20)]
    assert gone(half[-1])
    for s in half:
        s.close()

    def answers():
        try:
            return get(tls, pki.context())[0] == 200
        except OSError:  # the server has not seen all the ends yet, and has no room
            return False

    wait_for(answers, 20, "connections are free again")


def test_pipelined_and_hostile_heads(tls, pki):
    with pki.context().wrap_socket(socket.create_connection(("127.0.0.1", tls.port), 20), server_hostname="localhost") as s:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50 + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        while part := s.recv(65536):
            data += part
        assert data.count(b"HTTP/1.1 200 OK") == 51
    with pki.context().wrap_socket(socket.create_connection(("127.0.0.1", tls.port), 20), server_hostname="localhost") as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello")
        assert b"400" in s.recv(4096).split(b"\r\n")[0]


def test_a_client_that_leaves(tls, pki):
    def load():
        return json.loads(get(tls, pki.context(), "/load")[1])["server_load"]

    body = json.dumps({"prompt": "x", "max_tokens": 1500, "ignore_eos": True, "stream": True})
    for abrupt in (False, True):
        s = pki.context().wrap_socket(socket.create_connection(("127.0.0.1", tls.port), 20), server_hostname="localhost")
        s.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        assert b"200 OK" in s.recv(4096)
        assert load() == 1
        if not abrupt:
            with contextlib.suppress(ssl.SSLError):  # events are still on their way
                s.unwrap()
        s.close()
        wait_for(lambda: load() == 0, 10, "the request ends with its client")


def test_clients_certificates(pki):
    for level, without in ((1, True), (2, False)):
        s = Server("--mock", "--ssl-certfile", pki.both, "--ssl-ca-certs", pki.ca, "--ssl-cert-reqs", level, wait=False)
        s.https = f"https://127.0.0.1:{s.port}"

        def answers(context):
            try:
                return get(s, context, "/health")[0] == 200
            except (ssl.SSLError, ConnectionError):
                return False

        wait_for(lambda: answers(pki.context(client=True)), 30, "a server that wants certificates")
        assert answers(pki.context()) == without
        stranger = pki.context()
        stranger.load_cert_chain(pki.folder / "other.pem", pki.other_key)
        assert not answers(stranger)
        s.stop()


def test_files_that_cannot_be(pki, tmp_path):
    locked = tmp_path / "locked.key"
    pki.openssl("ec", "-in", pki.key, "-aes256", "-passout", "pass:x", "-out", locked)
    for flags, word in ((["--ssl-certfile", tmp_path / "absent"], "absent"), (["--ssl-certfile", pki.cert], "--ssl-certfile"),
                        (["--ssl-certfile", pki.cert, "--ssl-keyfile", pki.other_key], "--ssl-keyfile"), (["--ssl-certfile", pki.cert, "--ssl-keyfile", locked], "--ssl-keyfile"),
                        (["--ssl-keyfile", pki.key], "--ssl-certfile"), (["--ssl-certfile", pki.both, "--ssl-cert-reqs", 2], "--ssl-ca-certs"),
                        (["--ssl-certfile", pki.both, "--ssl-ca-certs", pki.key], "--ssl-ca-certs")):
        status, line = one_line([BUILD / "weir", "serve", TINY, "--port", 0, *flags])
        assert status == 1 and word in line and "PRIVATE" not in line, (flags, line)


def test_certificates_are_read_again(serve, pki, tmp_path):
    """On SIGHUP, and when the files change: new connections get the new ones, open ones go on; bad files change nothing."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(name):
        a, b = pki.signed(name, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        shutil.copy(a, cert)
        shutil.copy(b, key)
        return ssl.PEM_cert_to_DER_cert(a.read_text())

    def shown():
        with pki.context().wrap_socket(socket.create_connection(("127.0.0.1", s.port), timeout=10 * SLOW), server_hostname="localhost") as c:
            return c.getpeercert(True)

    first = put("first")
    s = ready(serve("--mock", "--ssl-certfile", cert, "--ssl-keyfile", key, wait=False))
    assert shown() == first
    kept = http.client.HTTPSConnection("127.0.0.1", s.port, context=pki.context(), timeout=20 * SLOW)
    kept.request("GET", "/version")
    assert kept.getresponse().read()
    second = put("second")
    wait_for(lambda: shown() == second, 10, "the second certificate")
    n = s.output().count("certificates read again")
    s.proc.send_signal(signal.SIGHUP)
    wait_for(lambda: s.output().count("certificates read again") > n, 10, "read again on SIGHUP")
    assert shown() == second
    shutil.copy(pki.other_key, key)
    wait_for(lambda: "certificates stay as they were" in s.output(), 10, "the refusal")
    assert shown() == second
    key.unlink()
    s.proc.send_signal(signal.SIGHUP)
    wait_for(lambda: s.output().count("certificates stay as they were") >= 2, 10, "the refusal")
    assert shown() == second and "PRIVATE" not in s.output()
    third = put("third")
    wait_for(lambda: shown() == third, 10, "the third certificate")
    kept.request("GET", "/version")
    assert kept.getresponse().status == 200
    kept.close()
