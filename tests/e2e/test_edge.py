"""The HTTP edge: keys (api.md 2.5; reliability.md rows A01 and A02)."""
import http.client
import json
import signal

import openai
import pytest

from conftest import BUILD, SLOW, TINY, wait_for
from test_worker_faults import one_line

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
