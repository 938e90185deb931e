"""Models without tokenizer.json, served end to end: the worker finds what stands in for it, the router gets it from there."""
import json
import shutil
import urllib.request

import pytest
from conftest import ROOT, TINY

GOLDEN = ROOT / "tests/golden/tok"
TEXTS = ["Hello world, it's 12345 o'clock!", "  several   spaces ", "naïve 😀 中文 ﬁ\n\n\tx", "return x[0] >= 2;", "<s></s>", ""]


def post(server, path, body):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as r:
        return json.load(r)


def tokens(server, text):
    return post(server, "/tokenize", {"prompt": text})["tokens"]


def check_works(server):
    """A chat, a constraint (which the worker reads with a tokenizer of its own), a stream: none fails."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "chat_template": template}
    assert post(server, "/v1/chat/completions", chat)["usage"]["completion_tokens"] > 0
    choice = {"prompt": "x", "max_tokens": 30, "guided_choice": ["yes", "no"]}
    assert post(server, "/v1/completions", choice)["choices"][0]["text"] in ("yes", "no")
    ids = post(server, "/tokenize", {"prompt": "Hello there", "add_special_tokens": False})["tokens"]
    assert post(server, "/detokenize", {"tokens": ids})["prompt"] == "Hello there"


def test_vocab_and_merges(serve, tiny, tmp_path):
    whole = json.loads((TINY / "tokenizer.json").read_text())
    config = json.loads((TINY / "tokenizer_config.json").read_text())
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        shutil.copy(TINY / name, tmp_path)
    # A class whose split pattern is not the tiny model's: words without digits and punctuation are cut alike.
    config["tokenizer_class"] = "GPT2Tokenizer"
    config["added_tokens_decoder"] = {str(t.pop("id")): t for t in whole["added_tokens"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in whole["model"]["merges"]))
    server = serve(model=tmp_path)
    for text in ("The lantern maker walked to the harbour", "naïve words", "a<|user|>b"):
        body = {"prompt": text, "add_special_tokens": False}
        assert post(server, "/tokenize", body)["tokens"] == post(tiny, "/tokenize", body)["tokens"], text
    check_works(server)


@pytest.mark.parametrize("family, file", [("llama2", "tokenizer.model"), ("xlmr", "sentencepiece.bpe.model")])
def test_sentencepiece(serve, tmp_path, family, file):
    tokenizers = pytest.importorskip("tokenizers", reason="the reference is Hugging Face tokenizers")
    reference = tokenizers.Tokenizer.from_file(str(GOLDEN / family / "tokenizer.json"))
    config = json.loads((TINY / "config.json").read_text())
    config.update(vocab_size=reference.get_vocab_size(), bos_token_id=0, eos_token_id=2)
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(GOLDEN / family / "tokenizer.model", tmp_path / file)
    shutil.copy(GOLDEN / family / "tokenizer_config.json", tmp_path)
    server = serve("--load-format", "dummy", model=tmp_path)
    for text in TEXTS:
        assert tokens(server, text) == reference.encode(text).ids, text
    check_works(server)


def test_no_tokenizer_at_all(serve, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(TINY / name, tmp_path)
    server = serve(model=tmp_path, wait=False)
    assert server.proc.wait(60) == 1
    assert "tokenizer.json is missing" in server.output() and "vocab.txt" in server.output()
