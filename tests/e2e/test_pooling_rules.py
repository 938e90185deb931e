"""Rules of api.md 12 that test_pooling leaves: Matryoshka, activations, messages, pairs, truncation, ties, error paths."""
import base64
import json
import math
import shutil
import struct

import pytest
from conftest import Server
from test_pooling import GOLDEN, TEXTS, ok, refused, servers, worst  # noqa: F401  (servers is a fixture)

TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}said {% endif %}"
LONG = " ".join(["cat"] * 300)


@pytest.fixture
def changed(tmp_path):
    """A golden model with other keys in its config.json."""
    running = []

    def start(model, config, *flags):
        shutil.copytree(GOLDEN / model, tmp_path, dirs_exist_ok=True)
        old = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(old | config))
        running.append(Server("--served-model-name", model, *flags, model=tmp_path))
        return running[-1]

    yield start
    for s in running:
        s.stop()


def normal(v):
    n = math.sqrt(sum(x * x for x in v))
    return [x / n for x in v]


@pytest.mark.parametrize("config,good,bad", [
    ({"matryoshka_dimensions": [8, 16]}, [8, 16, 40], [7, 12, 41]),
    ({"is_matryoshka": True}, [1, 12, 39, 40], [41, 2 ** 31]),
])
def test_matryoshka(changed, config, good, bad):
    server = changed("bert-embed", config)
    whole = ok(server, "/v1/embeddings", {"input": TEXTS[30]})["data"][0]["embedding"]
    for k in good:
        cut = ok(server, "/v1/embeddings", {"input": TEXTS[30], "dimensions": k})["data"][0]["embedding"]
        assert len(cut) == k and worst(cut, normal(whole[:k])) < 1e-6
    for k in bad:
        refused(server, "/v1/embeddings", {"input": "a", "dimensions": k}, "dimensions")


def test_the_full_size_is_always_allowed(servers):  # noqa: F811
    server = servers("bert-embed")
    assert ok(server, "/v1/embeddings", {"input": "a", "dimensions": 40})["data"] == \
        ok(server, "/v1/embeddings", {"input": "a"})["data"]


def test_use_activation_of_embeddings(servers):  # noqa: F811
    on, off = servers("bert-embed"), servers("roberta-embed")  # modules.json with and without Normalize
    raw = ok(on, "/v1/embeddings", {"input": TEXTS[9], "use_activation": False})["data"][0]["embedding"]
    unit = ok(on, "/v1/embeddings", {"input": TEXTS[9]})["data"][0]["embedding"]
    assert abs(math.hypot(*raw) - 1) > 1e-3 and worst(normal(raw), unit) < 1e-6
    raw = ok(off, "/v1/embeddings", {"input": TEXTS[9]})["data"][0]["embedding"]
    unit = ok(off, "/v1/embeddings", {"input": TEXTS[9], "use_activation": True})["data"][0]["embedding"]
    assert abs(math.hypot(*raw) - 1) > 1e-3 and worst(normal(raw), unit) < 1e-6


def test_a_config_turns_the_activation_off(changed, servers):  # noqa: F811
    pair = {"text_1": TEXTS[3], "text_2": TEXTS[4]}
    raw = ok(servers("xlmr-score"), "/score", pair | {"use_activation": False})["data"]
    off = changed("xlmr-score", {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}})
    assert ok(off, "/score", pair)["data"] == raw
    assert ok(off, "/classify", {"input": "a"})["data"] == ok(off, "/classify", {"input": "a", "use_activation": False})["data"]


def test_usage_and_body(servers):  # noqa: F811
    server = servers("bert-embed")
    answer = ok(server, "/v1/embeddings", {"input": ["the cat", "sat on it"], "request_id": "mine"})
    n = sum(ok(server, "/tokenize", {"prompt": t})["count"] for t in ("the cat", "sat on it"))
    assert answer["usage"] == {"prompt_tokens": n, "total_tokens": n, "completion_tokens": 0, "prompt_tokens_details": None}
    assert set(answer) == {"id", "object", "created", "model", "data", "usage"} and answer["id"] == "embd-mine"
    ranked = ok(server, "/rerank", {"query": "the cat", "documents": ["sat on it"]})
    assert ranked["usage"] == {"prompt_tokens": n, "total_tokens": n} and set(ranked) == {"id", "model", "usage", "results"}


def test_messages(servers):  # noqa: F811
    server = servers("llama-embed", "--chat-template", TEMPLATE)
    said = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]

    def vector(path="/v1/embeddings", **body):
        return ok(server, path, body)["data"]

    def text(t):
        return vector(input=t, add_special_tokens=False)

    assert vector(messages=said) == text("the cat sat ")
    assert vector(messages=said[:1], add_generation_prompt=True) == text("the cat said ")
    assert vector(messages=said, add_special_tokens=True) == vector(input="the cat sat ")
    assert vector(messages=said, continue_final_message=True) == text("the cat sat")
    assert vector(messages=said, chat_template="{{ messages[0].content }}") == text("the cat")
    assert vector("/pooling", messages=said, task="embed")[0]["data"] == text("the cat sat ")[0]["embedding"]
    labels = servers("qwen3-labels", "--chat-template", TEMPLATE)
    assert ok(labels, "/classify", {"messages": said})["data"] == \
        ok(labels, "/classify", {"input": "the cat sat ", "add_special_tokens": False})["data"]
    for path in ("/v1/embeddings", "/pooling"):
        refused(server, path, {"messages": said, "input": "a"}, "input", "exclude")
        refused(server, path, {"messages": []}, "messages")
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        refused(server, path, {"messages": [{"role": "user", "content": [image]}]}, "messages.0.content.0")


def test_pooled_classes_in_base64(servers):  # noqa: F811
    server = servers("bert-labels")
    plain = ok(server, "/pooling", {"input": "the cat", "task": "classify"})["data"][0]["data"]
    packed = ok(server, "/pooling", {"input": "the cat", "task": "classify", "encoding_format": "base64"})["data"][0]["data"]
    assert worst(struct.unpack("<3f", base64.b64decode(packed)), plain) < 1e-7
    tokens = ok(server, "/pooling", {"input": "the cat", "use_activation": True})["data"][0]["data"]
    assert all(abs(sum(row) - 1) < 1e-5 for row in tokens)


def test_parts_as_texts(servers):  # noqa: F811
    server = servers("xlmr-score")

    def parts(t):
        return {"content": [{"type": "text", "text": t}]}

    want = ok(server, "/rerank", {"query": "the cat", "documents": ["sat", "on it"]})["results"]
    got = ok(server, "/rerank", {"query": parts("the cat"), "documents": [parts("sat"), {"text": "on it"}]})["results"]
    assert got == want
    image = {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
    refused(server, "/score", {"text_1": image, "text_2": "a"}, "text_1", "takes no media")
    refused(server, "/rerank", {"query": "a", "documents": ["a", image]}, "documents.1", "takes no media")


def test_score_ignores_encoding_format(servers):  # noqa: F811
    pair = {"text_1": "the cat", "text_2": "sat"}
    server = servers("xlmr-score")
    assert ok(server, "/score", pair | {"encoding_format": "base64"})["data"] == ok(server, "/score", pair)["data"]


@pytest.mark.parametrize("model", ["xlmr-score", "bert-embed"])
def test_ties_stand_in_the_order_of_the_list(servers, model):  # noqa: F811
    docs = ["sat", "the cat", "sat", "the cat", "sat"]
    for body in ({}, {"top_n": 0}):
        results = ok(servers(model), "/rerank", {"query": "the cat", "documents": docs} | body)["results"]
        assert [docs[r["index"]] for r in results] in (["sat"] * 3 + ["the cat"] * 2, ["the cat"] * 2 + ["sat"] * 3)
        assert sorted(r["index"] for r in results[:3]) == [r["index"] for r in results[:3]] or len({
            r["relevance_score"] for r in results[:3]}) > 1
        for a, b in zip(results, results[1:]):
            assert a["relevance_score"] > b["relevance_score"] or a["index"] < b["index"]


def test_max_tokens_per_doc_cuts_documents_only(servers):  # noqa: F811
    server = servers("bert-embed")
    query, doc = TEXTS[90], TEXTS[95]
    n = [ok(server, "/tokenize", {"prompt": t})["count"] for t in (query, doc)]
    assert min(n) > 9
    cut = ok(server, "/rerank", {"query": query, "documents": [doc], "max_tokens_per_doc": 9})
    assert cut["usage"]["prompt_tokens"] == n[0] + 9
    a = ok(server, "/v1/embeddings", {"input": query})["data"][0]["embedding"]
    b = ok(server, "/v1/embeddings", {"input": doc, "truncate_prompt_tokens": 9})["data"][0]["embedding"]
    assert abs(cut["results"][0]["relevance_score"] - sum(x * y for x, y in zip(a, b))) < 1e-6


def test_pairs_lose_the_second_text_first(servers):  # noqa: F811
    server = servers("xlmr-score")
    a, b = "the cat sat on it", "and this was not that"

    def ids(t):
        return ok(server, "/tokenize", {"prompt": t, "add_special_tokens": False})["tokens"]

    def score(**body):
        return ok(server, "/score", body)

    n = len(ids(a)) + 4
    cut = score(text_1=a, text_2=b, truncate_prompt_tokens=n + 2)
    assert cut["usage"]["prompt_tokens"] == n + 2
    assert cut["data"] == score(text_1=a, text_2="and this")["data"]
    left = score(text_1=a, text_2=b, truncate_prompt_tokens=n + 2, truncation_side="left")
    assert left["data"] == score(text_1=a, text_2="not that")["data"]
    assert score(text_1=a, text_2=b, truncate_prompt_tokens=7)["usage"]["prompt_tokens"] == 7


def test_pairs_without_special_tokens(servers):  # noqa: F811
    server = servers("xlmr-score")
    pair = {"text_1": "the cat", "text_2": "sat on it"}
    whole, plain = ok(server, "/score", pair), ok(server, "/score", pair | {"add_special_tokens": False})
    assert plain["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"] - 4
    joined = ok(server, "/classify", {"input": "the cat sat on it", "add_special_tokens": False})
    assert plain["data"][0]["score"] == joined["data"][0]["probs"][0]


@pytest.mark.parametrize("model", ["xlmr-score", "bert-embed"])
def test_errors_name_the_text_as_it_was_sent(servers, model):  # noqa: F811
    server = servers(model)
    refused(server, "/score", {"text_1": "a", "text_2": ["b", LONG]}, "text_2.1", "maximum context length")
    refused(server, "/score", {"queries": "a", "documents": ["b", LONG]}, "documents.1", "maximum context length")
    refused(server, "/score", {"queries": "a", "items": LONG}, "items", "maximum context length")
    refused(server, "/rerank", {"query": "a", "documents": ["b", "c", LONG]}, "documents.2", "maximum context length")
