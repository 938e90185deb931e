"""The pooling family (api.md 12) over HTTP and the official client, on tiny models with goldens of transformers."""
import base64
import json
import struct
import sys
import urllib.error
import urllib.request

import pytest
from conftest import ROOT, SLOW, Server

sys.path.insert(0, str(ROOT / "tests/support"))
import tiny_weights  # noqa: E402

GOLDEN = ROOT / "tests/golden/pooling"
TEXTS = json.loads((GOLDEN / "texts.json").read_text())
BOUND = 1e-4


def golden(model, name="texts.f32", n=len(TEXTS)):
    packed = GOLDEN / model / "texts.i16"
    if name == "texts.f32" and packed.exists():
        return tiny_weights.unpack(packed.read_bytes(), n).tolist()
    data = (GOLDEN / model / name).read_bytes()
    v = struct.unpack(f"<{len(data) // 4}f", data)
    cols = len(v) // n
    return [list(v[i * cols:(i + 1) * cols]) for i in range(n)]


def worst(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))


@pytest.fixture(scope="module")
def servers():
    running = {}

    def get(model, *flags):
        key = (model, flags)
        if key not in running:
            running[key] = Server("--served-model-name", model, *flags, model=GOLDEN / model)
        return running[key]

    yield get
    for s in running.values():
        s.stop()


def post(server, path, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    req = urllib.request.Request(server.url + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(req, timeout=60 * SLOW) as r:
            return r.status, json.load(r)
    except urllib.error.HTTPError as e:
        return e.code, json.load(e)


def ok(server, path, body):
    status, answer = post(server, path, body)
    assert status == 200, answer
    return answer


def refused(server, path, body, param, says="", status=400):
    got, answer = post(server, path, body)
    assert got == status, answer
    assert answer["error"]["param"] == param, answer
    assert says in answer["error"]["message"], answer


EMBEDDERS = ["bert-embed", "roberta-embed", "mpnet-embed", "llama-embed"]


@pytest.mark.parametrize("model", EMBEDDERS)
def test_embeddings_equal_transformers_alone_and_in_batches(servers, model):
    server = servers(model)
    want = golden(model)
    batch = ok(server, "/v1/embeddings", {"input": TEXTS})
    assert [d["index"] for d in batch["data"]] == list(range(len(TEXTS)))
    assert batch["object"] == "list" and batch["model"] == model and batch["id"].startswith("embd-")
    for i, d in enumerate(batch["data"]):
        assert worst(d["embedding"], want[i]) <= BOUND, i
    for i in range(0, len(TEXTS), 9):
        alone = ok(server, "/v1/embeddings", {"input": TEXTS[i]})
        assert alone["data"][0]["embedding"] == batch["data"][i]["embedding"], "bits differ between batch and alone"


@pytest.mark.parametrize("model", ["bert-labels", "modernbert-labels", "qwen3-labels"])
def test_classes_equal_transformers(servers, model):
    server = servers(model)
    want = golden(model)
    batch = ok(server, "/classify", {"input": TEXTS})
    for i, d in enumerate(batch["data"]):
        assert worst(d["probs"], want[i]) <= BOUND, i
        assert d["num_classes"] == len(want[i])
    alone = ok(server, "/classify", {"input": [TEXTS[150]]})
    assert alone["data"][0]["probs"] == batch["data"][150]["probs"]


def test_label_names(servers):
    answer = ok(servers("bert-labels"), "/classify", {"input": TEXTS[:5]})
    for d in answer["data"]:
        assert d["label"] == f"LABEL_{d['probs'].index(max(d['probs']))}"
    raw = ok(servers("bert-labels"), "/classify", {"input": TEXTS[:5], "use_activation": False})
    assert abs(sum(raw["data"][0]["probs"]) - 1) > 1e-3
    assert ok(servers("qwen3-labels"), "/classify", {"input": "the cat"})["data"][0]["label"] is None


def test_openai_client(servers):
    server = servers("bert-embed")
    client = server.client()
    want = golden("bert-embed")
    default = client.embeddings.create(model="bert-embed", input=TEXTS[10:14])  # base64 on the wire
    plain = client.embeddings.create(model="bert-embed", input=TEXTS[10:14], encoding_format="float")
    for i in range(4):
        assert worst(default.data[i].embedding, want[10 + i]) <= BOUND
        assert worst(plain.data[i].embedding, default.data[i].embedding) <= 1e-7
    ids = ok(server, "/tokenize", {"prompt": TEXTS[10]})["tokens"]
    of_ids = client.embeddings.create(model="bert-embed", input=[ids])
    assert of_ids.data[0].embedding == default.data[0].embedding
    one = client.embeddings.create(model="bert-embed", input=ids)
    assert one.data[0].embedding == default.data[0].embedding
    assert one.usage.prompt_tokens == one.usage.total_tokens == len(ids)


def test_base64_is_little_endian_float32(servers):
    server = servers("bert-embed")
    a = ok(server, "/v1/embeddings", {"input": "the cat", "encoding_format": "base64"})["data"][0]["embedding"]
    b = ok(server, "/v1/embeddings", {"input": "the cat"})["data"][0]["embedding"]
    raw = base64.b64decode(a)
    assert worst(struct.unpack(f"<{len(raw) // 4}f", raw), b) <= 1e-7


def test_pooling_tasks(servers):
    server = servers("bert-embed")
    rows = ok(server, "/pooling", {"input": "the cat sat"})["data"][0]["data"]
    n = ok(server, "/tokenize", {"prompt": "the cat sat"})["count"]
    assert len(rows) == n and len(rows[0]) == 36
    normal = ok(server, "/pooling", {"input": "the cat sat", "use_activation": True})["data"][0]["data"]
    assert all(abs(sum(x * x for x in row) - 1) < 1e-5 for row in normal)
    vector = ok(server, "/pooling", {"input": "the cat sat", "task": "embed"})["data"][0]["data"]
    assert vector == ok(server, "/v1/embeddings", {"input": "the cat sat"})["data"][0]["embedding"]
    flat = ok(server, "/pooling", {"input": "the cat sat", "encoding_format": "base64"})["data"][0]["data"]
    assert len(base64.b64decode(flat)) == n * 36 * 4
    labels = servers("bert-labels")
    per_token = ok(labels, "/pooling", {"input": "the cat sat"})["data"][0]["data"]
    assert len(per_token) == n and len(per_token[0]) == 3
    probs = ok(labels, "/pooling", {"input": "the cat sat", "task": "classify"})["data"][0]["data"]
    assert probs == ok(labels, "/classify", {"input": "the cat sat"})["data"][0]["probs"]


def test_scores_of_a_cross_encoder(servers):
    server = servers("xlmr-score")
    want = [v[0] for v in golden("xlmr-score", "pairs.f32", 59)]
    both = ok(server, "/score", {"text_1": TEXTS[:59], "text_2": TEXTS[1:60]})
    assert worst([d["score"] for d in both["data"]], want) <= BOUND
    for names in (("queries", "documents"), ("queries", "items"), ("data_1", "data_2")):
        again = ok(server, "/v1/score", {names[0]: TEXTS[:59], names[1]: TEXTS[1:60]})
        assert again["data"] == both["data"]
    many = ok(server, "/score", {"text_1": TEXTS[3], "text_2": TEXTS[4:20]})
    assert len(many["data"]) == 16 and worst([many["data"][0]["score"]], [want[3]]) <= BOUND
    raw = ok(server, "/score", {"text_1": TEXTS[3], "text_2": TEXTS[4], "use_activation": False})
    assert not 0 <= raw["data"][0]["score"] <= 1 or abs(raw["data"][0]["score"] - want[3]) > 1e-3


def test_rerank(servers):
    server = servers("xlmr-score")
    docs = TEXTS[4:20]
    scores = [d["score"] for d in ok(server, "/score", {"text_1": TEXTS[3], "text_2": docs})["data"]]
    answers = [ok(server, path, {"query": TEXTS[3], "documents": docs}) for path in ("/rerank", "/v1/rerank", "/v2/rerank")]
    for a in answers:
        assert a["id"].startswith("rerank-")
        order = [r["index"] for r in a["results"]]
        assert order == sorted(range(16), key=lambda i: (-scores[i], i))
        assert [r["relevance_score"] for r in a["results"]] == [scores[i] for i in order]
        assert [r["document"]["text"] for r in a["results"]] == [docs[i] for i in order]
    top = ok(server, "/rerank", {"query": TEXTS[3], "documents": [{"text": d} for d in docs], "top_n": 3,
                                 "return_documents": False})
    assert top["results"] == [{k: v for k, v in r.items() if k != "document"} for r in answers[0]["results"][:3]]
    everything = ok(server, "/rerank", {"query": TEXTS[3], "documents": docs, "top_n": 99})
    assert len(everything["results"]) == 16
    cut = ok(server, "/rerank", {"query": TEXTS[3], "documents": docs, "max_tokens_per_doc": 2})
    assert cut["usage"]["prompt_tokens"] < answers[0]["usage"]["prompt_tokens"]


def test_cosine_of_embeddings(servers):
    server = servers("bert-embed")
    v = [d["embedding"] for d in ok(server, "/v1/embeddings", {"input": TEXTS[:6]})["data"]]
    scores = ok(server, "/score", {"text_1": TEXTS[0], "text_2": TEXTS[1:6]})["data"]
    for i, d in enumerate(scores):
        assert abs(d["score"] - sum(a * b for a, b in zip(v[0], v[1 + i]))) < 1e-5
    ranked = ok(server, "/rerank", {"query": TEXTS[0], "documents": TEXTS[1:6]})["results"]
    assert [r["relevance_score"] for r in ranked] == sorted((d["score"] for d in scores), reverse=True)


def test_truncation(servers):
    server = servers("bert-embed")
    long = " ".join(["cat"] * 300)
    refused(server, "/v1/embeddings", {"input": long}, "input", "reduce the length of the input")
    refused(server, "/v1/embeddings", {"input": [[5] * 97]}, "input.0", "maximum context length")
    whole = ok(server, "/v1/embeddings", {"input": long, "truncate_prompt_tokens": -1})
    assert whole["usage"]["prompt_tokens"] == 96
    ids = ok(server, "/tokenize", {"prompt": "the cat sat on it"})["tokens"]
    right = ok(server, "/v1/embeddings", {"input": "the cat sat on it", "truncate_prompt_tokens": 5})
    assert right["data"] == ok(server, "/v1/embeddings", {"input": [ids[:4] + ids[-1:]]})["data"]
    left = ok(server, "/v1/embeddings", {"input": "the cat sat on it", "truncate_prompt_tokens": 5,
                                         "truncation_side": "left"})
    assert left["data"] == ok(server, "/v1/embeddings", {"input": [ids[:1] + ids[-4:]]})["data"]
    refused(server, "/v1/embeddings", {"input": "a", "truncate_prompt_tokens": 97}, "truncate_prompt_tokens",
            "select a smaller truncation size")
    refused(server, "/v1/embeddings", {"input": "a", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens")
    refused(server, "/v1/embeddings", {"input": "a", "truncation_side": "up"}, "truncation_side")
    pair = servers("xlmr-score")
    short = ok(pair, "/score", {"text_1": "the cat", "text_2": long, "truncate_prompt_tokens": 20})
    assert short["usage"]["prompt_tokens"] == 20
    refused(pair, "/score", {"text_1": "the cat", "text_2": long}, "text_2", "maximum context length")


@pytest.mark.parametrize("body,param", [
    ({}, "input"), ({"input": None}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"),
    ({"input": ["a", ""]}, "input.1"), ({"input": [[]]}, "input.0"), ({"input": [[1], "a"]}, "input.1"),
    ({"input": [-1]}, "input.0"), ({"input": [120]}, "input.0"), ({"input": [2 ** 31]}, "input.0"),
    ({"input": {"a": 1}}, "input"), ({"input": 1.5}, "input"), ({"input": ["a"] * 2049}, "input"),
    ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, "input"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"), ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": 7}, "dimensions"), ({"input": "a", "dimensions": 1e308}, "dimensions"),
    ({"input": "a", "priority": 1}, "priority"), ({"input": "a", "request_id": ""}, "request_id"),
    ({"input": "a", "cache_salt": ""}, "cache_salt"), ({"input": "a", "use_activation": []}, "use_activation"),
    ({"input": "a", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
    ({"input": "a", "add_special_tokens": {}}, "add_special_tokens"), ({"input": "a", "model": 5}, "model"),
])
def test_bad_embeddings(servers, body, param):
    server = servers("bert-embed")
    refused(server, "/v1/embeddings", body, param)
    ok(server, "/v1/embeddings", {"input": "a"})


@pytest.mark.parametrize("path,body,param", [
    ("/score", {}, "text_1"), ("/score", {"text_1": "a"}, "text_2"), ("/score", {"data_2": "a"}, "data_1"),
    ("/score", {"text_1": [], "text_2": "a"}, "text_1"), ("/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_1"),
    ("/score", {"text_1": "a", "text_2": ["b", ""]}, "text_2.1"), ("/score", {"text_1": 1, "text_2": "a"}, "text_1"),
    ("/score", {"text_1": "a", "text_2": "b", "queries": "c"}, "text_1"),
    ("/score", {"text_1": "a", "text_2": ["b"] * 2049}, "text_2"),
    ("/rerank", {"documents": ["a"]}, "query"), ("/rerank", {"query": "a"}, "documents"),
    ("/rerank", {"query": "a", "documents": []}, "documents"), ("/rerank", {"query": "", "documents": ["a"]}, "query"),
    ("/rerank", {"query": "a", "documents": ["a", {}]}, "documents.1"),
    ("/rerank", {"query": "a", "documents": ["a"], "top_n": -1}, "top_n"),
    ("/rerank", {"query": "a", "documents": ["a"], "max_tokens_per_doc": 0}, "max_tokens_per_doc"),
    ("/rerank", {"query": "a", "documents": "a"}, "documents"),
])
def test_bad_pairs(servers, path, body, param):
    server = servers("xlmr-score")
    refused(server, path, body, param)
    ok(server, "/score", {"text_1": "a", "text_2": "b"})


def test_routes_and_tasks(servers, tiny):
    embed, labels, score = servers("bert-embed"), servers("bert-labels"), servers("xlmr-score")
    for server, paths in ((embed, ["/classify"]), (labels, ["/v1/embeddings", "/score", "/rerank"]),
                          (score, ["/v1/embeddings"])):
        for path in paths:
            body = {"input": "a", "text_1": "a", "text_2": "b", "query": "a", "documents": ["b"]}
            status, answer = post(server, path, {k: v for k, v in body.items() if k in {
                "/classify": ["input"], "/v1/embeddings": ["input"], "/score": ["text_1", "text_2"],
                "/rerank": ["query", "documents"]}[path]})
            assert status == 404 and answer["error"]["type"] == "NotFoundError"
            assert path in answer["error"]["message"] and "task" in answer["error"]["message"]
        for path, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
                           ("/v1/completions", {"prompt": "a"})):
            status, answer = post(server, path, body)
            assert status == 404 and path in answer["error"]["message"]
    for path in ("/v1/embeddings", "/pooling", "/classify"):
        assert post(tiny, path, {"input": "a"})[0] == 404
    ok(score, "/classify", {"input": "a"})
    refused(embed, "/pooling", {"input": "a", "task": "classify"}, "task")
    refused(embed, "/pooling", {"input": "a", "task": "nonsense"}, "task")
    refused(embed, "/pooling", {"input": "a", "dimensions": 8}, "dimensions")


def test_messages_are_one_prompt(servers):
    server = servers("llama-embed", "--chat-template", "{% for m in messages %}{{ m.content }} {% endfor %}")
    chat = ok(server, "/v1/embeddings", {"messages": [{"role": "user", "content": "the cat"}]})
    text = ok(server, "/v1/embeddings", {"input": "the cat ", "add_special_tokens": False})
    assert chat["data"] == text["data"] and chat["usage"] == text["usage"]


def test_decoder_to_embeddings(servers):
    server = servers("llama-embed", "--task", "embed", "--pooler-config", '{"pooling_type": "MEAN", "normalize": false}')
    rows = ok(server, "/pooling", {"input": TEXTS[120]})["data"][0]["data"]
    mean = [sum(c) / len(rows) for c in zip(*rows)]
    assert worst(ok(server, "/v1/embeddings", {"input": TEXTS[120]})["data"][0]["embedding"], mean) <= BOUND


def test_two_thousand_inputs_keep_their_order(servers):
    server = servers("bert-embed")
    texts = [TEXTS[i % 60] for i in range(2048)]
    answer = ok(server, "/v1/embeddings", {"input": texts})
    assert [d["index"] for d in answer["data"]] == list(range(2048))
    for i in range(60, 2048):
        assert answer["data"][i]["embedding"] == answer["data"][i % 60]["embedding"]
