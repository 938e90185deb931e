"""More tiny models that pool, every task of a decoder among them, against goldens of transformers; weights are generated."""
import json
import shutil
import sys

import pytest
from conftest import ROOT, Server
from test_pooling import BOUND, TEXTS, ok, post, refused, worst

sys.path.insert(0, str(ROOT / "tests/support"))
import tiny_weights  # noqa: E402

GOLDEN = ROOT / "tests/golden/pooling"
MODELS = json.loads((GOLDEN / "generated/models.json").read_text())
EMBEDDERS = [m for m in MODELS if m.endswith("-embed")]
LABELS = [m for m in MODELS if m.endswith("-labels")]


def write_folder(folder, model):
    described = MODELS[model]
    (folder / "config.json").write_text(json.dumps(described["config"]))
    shapes = tiny_weights.unfolded(described["tensors"], described["config"]["num_hidden_layers"])
    tiny_weights.write_safetensors(folder / "model.safetensors", shapes)
    shutil.copy(GOLDEN / "llama-embed/tokenizer.json", folder)


@pytest.fixture
def serve(tmp_path):
    running = []

    def start(model, *flags):
        write_folder(tmp_path, model)
        running.append(Server("--served-model-name", model, *flags, model=tmp_path))
        return running[-1]

    yield start
    for s in running:
        s.stop()


def golden(model):
    return tiny_weights.unpack((GOLDEN / f"generated/{model}.i16").read_bytes(), len(TEXTS)).tolist()


def check_bits(server, path, key, batch):
    """Every twentieth text alone: the same bits as in the batch."""
    for i in range(0, len(TEXTS), 20):
        assert ok(server, path, {"input": TEXTS[i]})["data"][0][key] == batch["data"][i][key]


def test_there_is_every_family():
    for family in ("xlmr", "modernbert", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"):
        assert f"{family}-embed" in EMBEDDERS
    for family in ("roberta", "llama", "mistral", "qwen2", "gemma2", "gemma3"):
        assert f"{family}-labels" in LABELS


@pytest.mark.parametrize("model", EMBEDDERS)
def test_embeddings(serve, model):
    server = serve(model)
    batch = ok(server, "/v1/embeddings", {"input": TEXTS})
    for d, want in zip(batch["data"], golden(model), strict=True):
        assert worst(d["embedding"], want) <= BOUND, d["index"]
    check_bits(server, "/v1/embeddings", "embedding", batch)


@pytest.mark.parametrize("model", LABELS)
def test_classes(serve, model):
    server = serve(model)
    batch = ok(server, "/classify", {"input": TEXTS})
    for d, want in zip(batch["data"], golden(model), strict=True):
        assert worst(d["probs"], want) <= BOUND, d["index"]
    check_bits(server, "/classify", "probs", batch)


def test_roberta_cross_encoder(serve):
    server = serve("roberta-score")
    want = [row[0] for row in golden("roberta-score")]
    classes = ok(server, "/classify", {"input": TEXTS})
    assert worst([d["probs"][0] for d in classes["data"]], want) <= BOUND
    pair = ok(server, "/score", {"text_1": TEXTS[5], "text_2": TEXTS[9]})
    ids = [ok(server, "/tokenize", {"prompt": t, "add_special_tokens": False})["count"] for t in (TEXTS[5], TEXTS[9])]
    assert pair["usage"]["prompt_tokens"] == sum(ids) + 4  # <s> a </s></s> b </s>


def test_reward(serve):
    """--task reward serves pooling alone: every token's raw output, the last of which classification reads."""
    server = serve("llama-reward", "--task", "reward")
    want = [row[0] for row in golden("llama-reward")]
    answer = ok(server, "/pooling", {"input": TEXTS, "use_activation": True})
    assert worst([d["data"][-1][0] for d in answer["data"]], want) <= BOUND
    raw = ok(server, "/pooling", {"input": TEXTS[7]})["data"][0]["data"]
    assert len(raw) == len(answer["data"][7]["data"]) and len(raw[0]) == 1
    assert abs(raw[-1][0] - answer["data"][7]["data"][-1][0]) > 1e-3
    for path, body in (("/classify", {"input": "a"}), ("/v1/embeddings", {"input": "a"}),
                       ("/score", {"text_1": "a", "text_2": "b"}), ("/rerank", {"query": "a", "documents": ["b"]})):
        status, said = post(server, path, body)
        assert status == 404 and path in said["error"]["message"] and "llama-reward" in said["error"]["message"]


def test_one_label_scores_pairs(serve):
    """A decoder with one label scores and reranks, too (api.md 4.2)."""
    server = serve("llama-reward", "--task", "classify")
    assert 0 <= ok(server, "/score", {"text_1": "the cat", "text_2": "sat"})["data"][0]["score"] <= 1
    assert len(ok(server, "/rerank", {"query": "the cat", "documents": ["sat", "ran"]})["results"]) == 2


def test_a_body_has_no_head_to_classify_with(tmp_path):
    write_folder(tmp_path, "gemma2-embed")
    server = Server("--task", "classify", model=tmp_path, wait=False)
    assert server.proc.wait(60) != 0
    assert "score.weight" in server.output()


def test_a_gemma_pools_the_mean_on_demand(serve):
    server = serve("gemma3-embed", "--task", "embed", "--pooler-config", '{"pooling_type": "MEAN", "normalize": false}')
    rows = ok(server, "/pooling", {"input": TEXTS[60]})["data"][0]["data"]
    mean = [sum(c) / len(rows) for c in zip(*rows)]
    assert worst(ok(server, "/v1/embeddings", {"input": TEXTS[60]})["data"][0]["embedding"], mean) <= BOUND
    refused(server, "/pooling", {"input": "a", "task": "classify"}, "task")
