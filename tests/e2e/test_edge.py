"""The HTTP edge: keys (api.md 2.5; reliability.md rows A01 and A02), CORS (2.7), prefixes, Unix sockets, what flags add and take
away, and what the log says."""
import http.client
import json
import re
import signal
import socket

import openai
import pytest

from conftest import BUILD, SLOW, TINY, wait_for
from test_worker_faults import model_copy, one_line

KEY, OTHER = "sk-first-1", "sk-second-2"
OPEN = ["/health", "/livez", "/readyz", "/ping", "/version", "/load"]


def ask(server, path, method="GET", headers=(), body=None):
    """Status, headers and body over a connection of its own; `headers` may repeat a name."""
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20 * SLOW)
    c.putrequest(method, path)
    for name, value in headers:
        c.putheader(name, value)
    if body is not None:
        c.putheader("Content-Type", "application/json")
        c.putheader("Content-Length", str(len(body)))
    c.endheaders(body)
    r = c.getresponse()
    answer = r.status, r.headers, r.read()
    c.close()
    return answer


def bearer(key):
    return [("Authorization", "Bearer " + key)]


def refused(answer):
    status, headers, body = answer
    assert status == 401 and headers["WWW-Authenticate"] == "Bearer", answer
    error = json.loads(body)["error"]
    assert error["type"] == "AuthenticationError" and error["code"] == 401 and error["param"] is None
    return error["message"]


@pytest.fixture(scope="module")
def keyed(request):
    from conftest import Server
    s = Server("--mock", "--api-key", KEY, OTHER)
    yield s
    s.stop()


def test_the_client_with_keys(keyed):
    for key in (KEY, OTHER):
        c = openai.OpenAI(base_url=keyed.url + "/v1", api_key=key, max_retries=0)
        assert c.models.list().data
        text = "".join(x.choices[0].text for x in c.completions.create(model=c.models.list().data[0].id, prompt="x", max_tokens=3, stream=True))
        assert text
    for key in ("wrong", KEY[:-1], KEY + "x"):
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=keyed.url + "/v1", api_key=key, max_retries=0).models.list()


def test_what_a_header_may_say(keyed):
    good = bearer(KEY)
    assert ask(keyed, "/v1/models", headers=good)[0] == 200
    assert ask(keyed, "/v1/models", headers=[("authorization", "bearer " + KEY)])[0] == 200
    messages = {refused(ask(keyed, "/v1/models", headers=h)) for h in (
        [], [("Authorization", "")], [("Authorization", "Bearer")], [("Authorization", "Bearer ")], bearer("wrong"), bearer(KEY + " " + KEY), bearer(KEY.upper()),
        [("Authorization", "Basic " + KEY)], [("Authorization", KEY)], bearer("\xe9"), good + bearer("wrong"), bearer("wrong") + good, good + good,
        bearer("x" * 50000), [("X-Api-Key", KEY)], [("Proxy-Authorization", "Bearer " + KEY)])}
    assert len(messages) == 1 and KEY not in messages.pop()
    assert ask(keyed, "/v1/models", headers=bearer("x" * (1 << 20)))[0] in (400, 431)


def test_what_asks_for_a_key(keyed):
    for path in [*OPEN, "/metrics"]:
        assert ask(keyed, path)[0] == 200, path
    for path in ("/v1/models", "/v1/models/x", "/nowhere", "/v1/../health", "/health/", "//health", "/openapi.json", "/%68ealth", "/metrics/"):
        refused(ask(keyed, path))
        assert ask(keyed, path, headers=bearer(KEY))[0] in (200, 404, 501), path
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/v1/embeddings", "/health"):  # 401 goes before 404, 405 and the body
        for body in (b"{", b'{"prompt":"x"}'):
            if path != "/health":
                refused(ask(keyed, path, "POST", body=body))
    refused(ask(keyed, "/v1/models", "PUT"))
    assert ask(keyed, "/health", "PUT")[0] == 405
    assert ask(keyed, "/v1/models", "OPTIONS")[0] == 204
    for name, value in (("X-Forwarded-For", "127.0.0.1"), ("X-Original-URL", "/health"), ("X-Rewrite-URL", "/health"), ("X-HTTP-Method-Override", "OPTIONS")):
        refused(ask(keyed, "/v1/models", headers=[(name, value)]))
    assert refused(ask(keyed, "/v1/models?path=/health"))
    status, headers, _ = ask(keyed, "/v1/models", "HEAD")
    assert status == 401 and headers["WWW-Authenticate"] == "Bearer"


def test_keys_are_nowhere(keyed):
    """Not in the log, the metrics, or what the workers are started with and inherit."""
    ask(keyed, "/v1/models", headers=bearer("sk-presented-3"))
    for key in (KEY, OTHER, "sk-presented-3"):
        assert key not in keyed.output() and key not in keyed.get("/metrics")
        for pid in keyed.worker_pids():
            for what in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{what}", "rb") as f:
                    assert key.encode() not in f.read()


def test_keys_of_the_environment(serve):
    s = serve("--mock", env={"WEIR_API_KEY": KEY, "VLLM_API_KEY": OTHER})
    assert ask(s, "/v1/models", headers=bearer(KEY))[0] == 200
    refused(ask(s, "/v1/models", headers=bearer(OTHER)))
    for pid in s.worker_pids():
        with open(f"/proc/{pid}/environ", "rb") as f:
            assert b"sk-" not in f.read()
    s = serve("--mock", env={"WEIR_API_KEY": "", "VLLM_API_KEY": OTHER})
    assert ask(s, "/v1/models", headers=bearer(OTHER))[0] == 200
    refused(ask(s, "/v1/models"))
    s = serve("--mock", "--api-key", "sk-flag", "--metrics-auth", env={"WEIR_API_KEY": KEY})
    assert ask(s, "/v1/models", headers=bearer("sk-flag"))[0] == 200
    refused(ask(s, "/v1/models", headers=bearer(KEY)))
    refused(ask(s, "/metrics"))
    assert ask(s, "/metrics", headers=bearer("sk-flag"))[0] == 200


def test_a_key_file_is_read_again(serve, tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# team\n\n{KEY}\n")
    s = serve("--mock", "--api-key-file", file)
    assert ask(s, "/v1/models", headers=bearer(KEY))[0] == 200

    def reread(text, line):
        file.write_text(text)
        n = s.output().count(line)
        s.proc.send_signal(signal.SIGHUP)
        wait_for(lambda: s.output().count(line) > n, 10, line)

    reread(f"{OTHER}\n", "keys read again")
    refused(ask(s, "/v1/models", headers=bearer(KEY)))
    assert ask(s, "/v1/models", headers=bearer(OTHER))[0] == 200
    reread("", "keys stay as they were")
    assert ask(s, "/v1/models", headers=bearer(OTHER))[0] == 200
    refused(ask(s, "/v1/models"))
    assert OTHER not in s.output()


def test_keys_that_cannot_be(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    for flags, word in ((["--api-key", ""], "--api-key"), (["--api-key", "two words"], "--api-key"), (["--api-key-file", empty], "no key"),
                        (["--api-key-file", tmp_path / "absent"], "absent")):
        status, line = one_line([BUILD / "weir", "serve", TINY, "--port", 0, *flags])
        assert status == 1 and word in line and "two words" not in line, (flags, line)


def test_the_warning_of_an_open_server(serve):
    assert "nobody has to show a key" in serve("--mock", "--host", "0.0.0.0").output()
    assert "nobody has to show a key" not in serve("--mock", "--host", "0.0.0.0", "--api-key", KEY).output()


ORIGIN = [("Origin", "https://pages.example")]
PREFLIGHT = ORIGIN + [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "authorization, content-type")]


def cors(headers):
    return {k.lower()[15:]: v for k, v in headers.items() if k.lower().startswith("access-control-")}


def test_cors(keyed):
    """Defaults, on a server with keys: every response may be read, the refusals too; a preflight needs no key."""
    status, headers, body = ask(keyed, "/v1/models", "OPTIONS", PREFLIGHT)
    assert status == 200 and body == b"" and cors(headers) == {
        "allow-origin": "*", "allow-methods": "GET, HEAD, POST, OPTIONS", "allow-headers": "authorization, content-type", "max-age": "600"}
    assert ask(keyed, "/nowhere", "OPTIONS", PREFLIGHT)[0] == 200
    status, headers, _ = ask(keyed, "/v1/models", "OPTIONS", ORIGIN)
    assert status == 204 and headers["Allow"] == "GET, HEAD, OPTIONS" and cors(headers) == {"allow-origin": "*"}
    assert ask(keyed, "/nowhere", "OPTIONS", ORIGIN)[0] == 404
    answers = [ask(keyed, "/v1/models", headers=ORIGIN), ask(keyed, "/v1/models", headers=ORIGIN + bearer(KEY)), ask(keyed, "/no", headers=ORIGIN + bearer(KEY)),
               ask(keyed, "/v1/completions", "POST", ORIGIN + bearer(KEY), b"{"),
               ask(keyed, "/v1/completions", "POST", ORIGIN + bearer(KEY), b'{"prompt":"x","max_tokens":2,"stream":true}')]
    assert [a[0] for a in answers] == [401, 200, 404, 400, 200]
    assert all(cors(a[1]) == {"allow-origin": "*"} and a[1]["Vary"] is None for a in answers)
    assert cors(ask(keyed, "/health")[1]) == {}
    assert "evil" not in str(ask(keyed, "/v1/models", "OPTIONS", ORIGIN + [("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "a: evil")])[1])


def test_cors_of_flags(serve):
    s = serve("--mock", "--allowed-origins", '["https://pages.example"]', "--allowed-methods", '["POST"]', "--allowed-headers", '["X-One","X-Two"]',
              "--allow-credentials", "--max-body-bytes", 1000)
    status, headers, _ = ask(s, "/v1/models", "OPTIONS", PREFLIGHT)
    assert status == 200 and headers["Vary"] == "Origin" and cors(headers) == {
        "allow-origin": "https://pages.example", "allow-methods": "POST", "allow-headers": "X-One, X-Two", "max-age": "600", "allow-credentials": "true"}
    status, headers, _ = ask(s, "/v1/models", "OPTIONS", [("Origin", "https://other.example"), *PREFLIGHT[1:]])
    assert status == 200 and headers["Vary"] == "Origin" and "allow-origin" not in cors(headers)
    assert cors(ask(s, "/v1/models", headers=[("Origin", "https://other.example")])[1]) == {}
    assert cors(ask(s, "/v1/completions", "POST", ORIGIN, b"x" * 2000)[1])["allow-origin"] == "https://pages.example"  # h2o's own 413
    for flag in ("--allowed-origins", "--allowed-methods", "--allowed-headers"):
        status, line = one_line([BUILD / "weir", "serve", TINY, "--port", 0, flag, "[7]"])
        assert status == 1 and flag in line


def test_a_root_path(serve):
    s = serve("--mock", "--root-path", "api/v0/", "--api-key", KEY)
    for prefix in ("", "/api/v0"):
        assert ask(s, prefix + "/health")[0] == 200
        assert ask(s, prefix + "/v1/models", headers=bearer(KEY))[0] == 200
        refused(ask(s, prefix + "/v1/models"))
        assert openai.OpenAI(base_url=s.url + prefix + "/v1", api_key=KEY, max_retries=0).models.list().data
    for path in ("/api/v0", "/api/v0health", "/api/v0/api/v0/health", "/api/health"):
        assert ask(s, path, headers=bearer(KEY))[0] == 404, path
    assert 'handler="/v1/models"' in s.get("/metrics") and "/api/v0/v1" not in s.get("/metrics")
    status, line = one_line([BUILD / "weir", "serve", TINY, "--port", 0, "--root-path", "a b"])
    assert status == 1 and "--root-path" in line


def test_a_unix_socket(serve, tmp_path):
    path = tmp_path / "s"

    def get(what):
        c = http.client.HTTPConnection("localhost", timeout=20 * SLOW)
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.connect(str(path))
        c.request("GET", what)
        r = c.getresponse()
        return r.status, r.read()

    def ready():
        try:
            return get("/health")[0] == 200
        except OSError:
            return False

    s = serve("--mock", "--uds", path, wait=False)
    wait_for(ready, 30, "a server on a socket")
    wait_for(lambda: f"unix:{path}" in s.output(), 30, "the line that says where")
    assert get("/v1/models")[0] == 200
    status, line = one_line([BUILD / "weir", "serve", TINY, "--uds", path])
    assert status == 1 and str(path) in line and ready()
    s.proc.kill()  # leaves its socket behind
    s.proc.wait()
    assert path.exists()
    s = serve("--mock", "--uds", path, wait=False)
    wait_for(ready, 30, "a server on the same socket")
    s.proc.send_signal(signal.SIGTERM)
    assert s.proc.wait(30) == 0 and not path.exists()
    path.write_text("a file of somebody's")
    assert one_line([BUILD / "weir", "serve", TINY, "--uds", path])[0] == 1 and path.read_text() == "a file of somebody's"
    assert one_line([BUILD / "weir", "serve", TINY, "--uds", "x" * 200])[0] == 1


def test_what_flags_add_and_take_away(serve, tmp_path):
    plain = serve("--mock")
    for path, off in (("/tokenizer_info", 404), ("/openapi.json", None)):
        assert off is None or ask(plain, path)[0] == off
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}")
    s = serve("--mock", "--enable-tokenizer-info-endpoint", "--disable-fastapi-docs", "--chat-template", template)
    assert ask(s, "/openapi.json")[0] == 404
    status, headers, body = ask(s, "/tokenizer_info")
    info, file = json.loads(body), json.loads((TINY / "tokenizer_config.json").read_text())
    assert status == 200 and headers["Content-Type"] == "application/json" and info["chat_template"] == template.read_text()
    assert info["tokenizer_class"] == file.get("tokenizer_class", "PreTrainedTokenizerFast")
    assert {k: v for k, v in info.items() if k not in ("chat_template", "tokenizer_class")} == {k: v for k, v in file.items() if k not in ("chat_template", "tokenizer_class")}
    folder = model_copy(tmp_path / "m", {"tokenizer_config.json": {**file, "vocab_file": "/home/x/vocab", "name_or_path": "/home/x", "tokenizer_file": None}})
    s = serve("--mock", "--enable-tokenizer-info-endpoint", model=folder)
    info = json.loads(s.get("/tokenizer_info"))
    assert "/home/x" not in json.dumps(info) and info["chat_template"]


def test_what_the_log_says(serve):
    secret = "the prompt\nERROR forged"
    body = json.dumps({"prompt": secret, "max_tokens": 8, "cache_salt": "salt-1", "stop": ["never"], "skip_special_tokens": False, "ignore_eos": True}).encode()
    quiet = serve("--mock")
    assert ask(quiet, "/v1/completions", "POST", body=body)[0] == 200
    assert "the prompt" not in quiet.output() and "output id=" not in quiet.output()
    s = serve("--mock", "--enable-log-requests", "--enable-log-outputs", "--api-key", KEY)
    for stream in (False, True):
        sent = json.dumps({**json.loads(body), "stream": stream, "n": 2, "temperature": 1}).encode()
        status, _, answer = ask(s, "/v1/completions", "POST", bearer(KEY), sent)
        assert status == 200
    texts = [c["text"] for c in json.loads(ask(s, "/v1/completions", "POST", bearer(KEY), body)[2])["choices"]]
    lines = s.output().splitlines()
    assert len([x for x in lines if " prompt id=" in x and "the prompt" in x]) == 3
    assert len([x for x in lines if " output id=" in x]) == 5
    assert not any(x.startswith("ERROR forged") for x in lines) and "salt-1" not in s.output() and KEY not in s.output()
    last, words = [x for x in lines if " output id=" in x][-1], re.findall("[A-Za-z0-9]{2,}", texts[0])
    assert words and all(w in last for w in words), (texts, last)
    s = serve("--mock", "--enable-log-requests", "--max-log-len", 5)
    assert ask(s, "/v1/completions", "POST", body=body)[0] == 200
    shown = re.search(' prompt id=.* text=("?)(.*)\\1$', s.output(), re.M)[2]
    assert len(shown) == 5 and "the prompt" not in s.output() and " output id=" not in s.output(), shown
