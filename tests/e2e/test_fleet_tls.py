"""The link between router and worker over TLS, with real processes and certificates made on the spot."""
import json
import subprocess

import pytest
from conftest import BUILD, ROOT, SLOW, TINY, free_port, wait_for
from test_fleet_discovery import NameServer


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A folder with ca.pem, and NAME.pem and NAME.key signed by it; stranger.* are signed by nobody that is known."""
    d = tmp_path_factory.mktemp("pki")

    def openssl(*args):
        subprocess.run(["openssl", *map(str, args)], cwd=d, check=True, capture_output=True)

    def key(name):
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")

    for ca in ("ca", "other"):
        key(ca)
        openssl("req", "-x509", "-new", "-key", f"{ca}.key", "-days", 2, "-subj", f"/CN={ca}", "-out", f"{ca}.pem")
    for name, ca in (("worker", "ca"), ("router", "ca"), ("stranger", "other")):
        key(name)
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}.weir", "-out", f"{name}.csr")
        (d / "ext").write_text(f"subjectAltName=DNS:{name}.weir")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", 2,
                "-extfile", "ext", "-out", f"{name}.pem")
    return d


@pytest.fixture
def worker():
    """A factory of mock workers; its answer is the port."""
    procs = []

    def start(*flags):
        port = free_port()
        procs.append(subprocess.Popen([str(BUILD / "weir-worker"), str(TINY), "--mock", "--listen", f"tls+tcp://127.0.0.1:{port}",
                                       *map(str, flags)], stderr=subprocess.DEVNULL))
        return port

    yield start
    for p in procs:
        p.terminate()
        assert p.wait(20 * SLOW) == 0


def certificate(pki, name):
    return ["--cluster-tls-certfile", pki / f"{name}.pem", "--cluster-tls-keyfile", pki / f"{name}.key"]


def states(router):
    return [w["state"] for w in json.loads(router.get("/weir/workers"))["workers"]]


def route(serve, pki, port, *flags, wait=False):
    ca = [] if "--cluster-tls-ca" in flags else ["--cluster-tls-ca", pki / "ca.pem"]
    return serve("--worker", f"tls+tcp://127.0.0.1:{port}", "--enable-admin-api", *ca, *flags, command="router", wait=wait)


def test_mutual(worker, serve, pki, tmp_path):
    """With certificates on both sides and a token beside them; and everybody who lacks one of these stays outside."""
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "wrong").write_text("guess\n")
    port = worker(*certificate(pki, "worker"), "--cluster-tls-ca", pki / "ca.pem", "--cluster-token-file", tmp_path / "token")
    name, token = ["--cluster-tls-name", "worker.weir"], ["--cluster-token-file", tmp_path / "token"]
    good = [*certificate(pki, "router"), *name, *token]
    r = route(serve, pki, port, *good, wait=True)
    assert states(r) == ["ready"]
    strangers = [
        [*name, *token],                                                    # no certificate
        [*certificate(pki, "stranger"), *name, *token],                     # of another authority
        [*certificate(pki, "router"), *token],                              # 127.0.0.1 is not what the worker's says
        [*certificate(pki, "router"), "--cluster-tls-name", "router.weir", *token],
        ["--cluster-tls-ca", pki / "other.pem", *certificate(pki, "router"), *name, *token],
        [*certificate(pki, "router"), *name, "--cluster-token-file", tmp_path / "wrong"],
        [*certificate(pki, "router"), *name],
    ]
    routers = [route(serve, pki, port, *flags) for flags in strangers]
    routers.append(serve("--worker", f"tcp://127.0.0.1:{port}", "--enable-admin-api", *token, command="router", wait=False))  # in clear text
    for x in routers:
        wait_for(lambda: "worker cannot be reached yet" in x.output(), 20, "the refusal")
        assert states(x) == ["gone"] and x.status("/health") == 503
    text = r.client().completions.create(model="", prompt="x " * 800, max_tokens=50, extra_body={"ignore_eos": True})
    assert text.usage.completion_tokens == 50 and states(r) == ["ready"]


def test_found_by_name(worker, serve, pki):
    """What DNS names is dialled over TLS when there are authorities to hold it against."""
    port = worker(*certificate(pki, "worker"))
    ns = NameServer()
    ns.zone["workers.test", 1] = ["127.0.0.1"]
    r = serve("--worker-dns", f"workers.test:{port}@127.0.0.1:{ns.port}", "--cluster-tls-ca", pki / "ca.pem", "--cluster-tls-name", "worker.weir",
              "--enable-admin-api", command="router")
    (w,) = json.loads(r.get("/weir/workers"))["workers"]
    assert w["address"] == f"tls+tcp://127.0.0.1:{port}" and w["state"] == "ready"


@pytest.mark.parametrize("program, flags, status, words", [
    ("weir-worker", ["--listen", "tcp://0.0.0.0:0"], 2, "--cluster-token-file"),
    ("weir-worker", ["--listen", "tls+tcp://127.0.0.1:0"], 2, "--cluster-tls-certfile"),
    ("weir-worker", ["--listen", "tls+tcp://0.0.0.0:0", "--cluster-tls-certfile", "worker.pem"], 2, "--cluster-token-file"),
    ("weir-worker", ["--listen", "tls+tcp://127.0.0.1:0", "--cluster-tls-certfile", "worker.pem"], 1, "its key"),
    ("weir-worker", ["--listen", "tls+tcp://127.0.0.1:0", "--cluster-tls-certfile", "none.pem"], 1, "No such file"),
    ("weir", ["--worker", "tls+tcp://127.0.0.1:1"], 2, "--cluster-tls-ca"),
    ("weir", ["--worker", "tls+tcp://127.0.0.1:1", "--cluster-tls-ca", "ca.key"], 1, "--cluster-tls-ca"),
])
def test_what_cannot_be(pki, program, flags, status, words):
    args = [str(pki / f) if f.endswith((".pem", ".key")) else f for f in flags]
    what = [str(TINY), "--mock"] if program == "weir-worker" else ["router", "--port", "0"]
    p = subprocess.run([str(BUILD / program), *what, *args], cwd=ROOT, capture_output=True, text=True, timeout=20 * SLOW)
    assert p.returncode == status and words in p.stderr, p.stderr
