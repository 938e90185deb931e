"""The rows J, P08 and P10 of reliability.md over the routes of the pooling family, as test_reliability_rows.py sends them over the
others. TEST_SCALE below 10 sends a seeded sample, and prompts of 4 MiB instead of 30."""
import json
import time

import pytest
from conftest import SCALE, SLOW, Server
from test_conformance import BASE, POOLED, E, L, P, R, S
from test_reliability_rows import MEBI, Client, Row, finish, j06_rows, j_rows, paths_of, run

LONG_MIB = 30 if SCALE >= 10 else 4
# "a" and "a " are words; a letter, blanks, emoji joined by ZWJ, combining marks, as P10 names them
LONG = ["a", " ", "a ", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d", "a" + "\u0301\u0323" * 40]


@pytest.fixture(scope="module", params=[("llama-embed", [E, P, S, R], 1500), ("bert-labels", [L, P], 700)], ids=["embeddings", "labels"])
def served(request):
    model, routes, least = request.param
    s = Server(model=POOLED / model)
    yield s, routes, least
    finish(s)


def test_every_field_every_value(served):
    s, routes, least = served
    run(Client(s, good=routes[0]), j06_rows(paths_of(s)[0], routes), least, 120)


def test_body_rows(served):
    s, routes, _ = served
    run(Client(s, good=routes[0]), j_rows(routes), 100 * len(routes), 80)


def p08_rows(vocab, routes):
    special = json.dumps("<|begin_of_text|> [CLS] </s> <s>").encode()
    for route in set(routes) & {E, P, L}:
        for value in ("", [], [[]], [""], [-1], [vocab], [2**31], [2**64], ["a", 5], [5, "a"], [[5], "a"], [[5], []], [None], [[None]], [1.5], [True],
                      ["a"] * 2049, [[[5]]], {"a": 1}):
            yield Row("P08", (400,), route=route, body=json.dumps({**BASE[route], "input": value}).encode())
        yield Row("P08", (200,), route=route, body=b'{"input":' + special + b"}")
        yield Row("P08", (200,), route=route, body=b'{"input":[5]}')
    for route, name in ((S, "text_2"), (R, "documents"), (R, "query"), (S, "text_1")):
        if route not in routes:
            continue
        for value in ("", [], [""], [5], [None], ["a"] * 2049, {}, {"content": []}, [[]], 5):
            yield Row("P08", (400,), route=route, body=json.dumps({**BASE[route], name: value}).encode())


def test_inputs(served):
    s, routes, _ = served
    vocab = json.loads((POOLED / ("llama-embed" if E in routes else "bert-labels") / "config.json").read_text())["vocab_size"]
    run(Client(s, good=routes[0]), p08_rows(vocab, routes), 20, 100)


@pytest.mark.parametrize("what", LONG, ids=["letter", "blanks", "words", "zwj", "marks"])
@pytest.mark.slow_sanitized
def test_long_inputs(served, what):
    """P10: settled within a second, of which a test allows five; then a good one is answered. Words are too many tokens; what has
    no blanks is one word to these tokenizers, which is unknown and so one token."""
    s, routes, _ = served
    client = Client(s, good=routes[0])
    text = what * (LONG_MIB * MEBI // len(what.encode()))
    body = json.dumps({"input": text}, ensure_ascii=False).encode()
    begin = time.monotonic()
    status, _, answer = client.post(routes[0], body)
    took = time.monotonic() - begin
    if status == 200 and what != "a ":
        assert json.loads(answer)["usage"]["prompt_tokens"] < 10, answer[:300]
    else:
        assert status == 400 and json.loads(answer)["error"]["param"] == "input", (status, answer[:300])
    assert took < 5 * SLOW, took
    client.good(what)
