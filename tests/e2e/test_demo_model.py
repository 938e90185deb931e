"""deploy/demo-model: what it says through Weir is what transformers says, token for token."""

import json

import pytest
from conftest import ROOT, Server

DEMO = ROOT / "deploy/demo-model"
if not DEMO.exists():
    pytest.skip("deploy/demo-model is not made yet: scripts/demo_model/make.sh", allow_module_level=True)
GOLDEN = json.loads((ROOT / "tests/golden/demo/greedy.json").read_text())


@pytest.fixture(scope="module")
def demo():
    s = Server("--dtype", "float32", "--served-model-name", "weir-demo", model=DEMO)
    yield s
    s.stop()


def test_greedy_tokens_equal_transformers(demo):
    assert len(GOLDEN) == 50
    for g in GOLDEN:
        c = demo.client().completions.create(
            model="weir-demo",
            prompt=g["prompt_ids"],
            max_tokens=64,
            temperature=0,
            logprobs=0,
            extra_body={"return_tokens_as_token_ids": True},
        )
        ids = [int(t.removeprefix("token_id:")) for t in c.choices[0].logprobs.tokens]
        ended = c.choices[0].finish_reason == "stop"
        want = g["output_ids"]
        assert ended == (len(want) < 64 or want[-1] in eos_ids()), g["messages"]
        without_end = want[:-1] if want[-1] in eos_ids() else want
        assert ids in (want, without_end), g["messages"]


def eos_ids():
    return json.loads((DEMO / "config.json").read_text())["eos_token_id"]


def test_chat_equals_transformers(demo):
    """The template and the text: through the chat endpoint, where no tools are needed."""
    for g in GOLDEN:
        if g["tools"]:
            continue
        c = demo.client().chat.completions.create(
            model="weir-demo", messages=g["messages"], max_tokens=64, temperature=0
        )
        assert c.usage.prompt_tokens == len(g["prompt_ids"]), g["messages"]
        assert c.choices[0].message.content == g["text"], g["messages"]


def test_default_sampling_is_greedy(demo):
    """generation_config.json has temperature 0, so a client that sets nothing gets the scored answers."""
    g = next(g for g in GOLDEN if not g["tools"])
    c = demo.client().chat.completions.create(model="weir-demo", messages=g["messages"], max_tokens=64)
    assert c.choices[0].message.content == g["text"]


def test_folder_is_small():
    sizes = {p.name: p.stat().st_size for p in DEMO.iterdir()}
    assert sum(sizes.values()) <= 24_000_000
    assert all(n <= 15_000_000 for name, n in sizes.items() if name.endswith(".safetensors"))
    files = "README.md LICENSE config.json generation_config.json tokenizer.json tokenizer_config.json chat_template.jinja loss.svg"
    assert set(files.split()) <= set(sizes)
