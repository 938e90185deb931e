"""The path from the official client to logits and back."""
import json
import urllib.request

import openai
import pytest

MESSAGES = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Name a colour."}]


def model_of(server):
    return server.client().models.list().data[0].id


def test_models(tiny):
    card = tiny.client().models.list().data[0]
    assert card.object == "model" and card.owned_by == "weir"
    assert tiny.client().models.retrieve(card.id).id == card.id
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        tiny.client().models.retrieve("no-such-model")


def test_chat(tiny):
    c = tiny.client().chat.completions.create(model=model_of(tiny), messages=MESSAGES, max_tokens=12, temperature=0)
    assert c.id.startswith("chatcmpl-") and c.object == "chat.completion"
    assert c.choices[0].message.role == "assistant"
    assert c.usage.completion_tokens <= 12 and c.usage.prompt_tokens > 5
    assert c.usage.total_tokens == c.usage.prompt_tokens + c.usage.completion_tokens
    assert c.choices[0].finish_reason in ("stop", "length")


def test_chat_stream_equals_whole(tiny):
    args = dict(model=model_of(tiny), messages=MESSAGES, max_tokens=24, temperature=0.9, seed=7)
    whole = tiny.client().chat.completions.create(**args)
    chunks = list(tiny.client().chat.completions.create(**args, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    finish = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert finish == [whole.choices[0].finish_reason]


def test_completion_prompt_forms(tiny):
    client, model = tiny.client(), model_of(tiny)
    ids = json.loads(post(tiny, "/tokenize", {"prompt": "one two", "model": model})[1])["tokens"]
    args = dict(model=model, max_tokens=6, temperature=0)
    a = client.completions.create(prompt="one two", **args)
    b = client.completions.create(prompt=ids, **args)
    assert a.choices[0].text == b.choices[0].text
    c = client.completions.create(prompt=["one two", "three"], **args)
    d = client.completions.create(prompt=[ids, ids], **args)
    assert c.choices[0].text == a.choices[0].text and [x.index for x in c.choices] == [0, 1]
    assert [x.text for x in d.choices] == [a.choices[0].text] * 2


def test_n_choices_and_seed(tiny):
    args = dict(model=model_of(tiny), prompt="once", max_tokens=8, temperature=1.0, n=3, seed=3)
    a, b = (tiny.client().completions.create(**args) for _ in range(2))
    assert [c.text for c in a.choices] == [c.text for c in b.choices]
    assert len({c.text for c in a.choices}) > 1
    one = tiny.client().completions.create(**{**args, "n": 1, "seed": 5})
    assert one.choices[0].text == a.choices[2].text  # sample k uses seed + k


def test_logprobs(tiny):
    client, model = tiny.client(), model_of(tiny)
    c = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3)
    for entry in c.choices[0].logprobs.content:
        assert len(entry.top_logprobs) == 3 and entry.logprob == entry.top_logprobs[0].logprob <= 0
    p = client.completions.create(model=model, prompt="one", max_tokens=5, temperature=0, logprobs=2)
    lp = p.choices[0].logprobs
    assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset) == 5


def test_stop_string(tiny):
    client, model = tiny.client(), model_of(tiny)
    args = dict(model=model, prompt="one two three", max_tokens=40, temperature=0.7, seed=11)
    full = client.completions.create(**args).choices[0].text
    stop = full[len(full) // 2:][:3]
    cut = client.completions.create(**args, stop=stop)
    assert cut.choices[0].text == full[: full.index(stop)]
    assert cut.choices[0].finish_reason == "stop" and cut.choices[0].stop_reason == stop
    streamed = "".join(c.choices[0].text for c in client.completions.create(**args, stop=stop, stream=True))
    assert streamed == cut.choices[0].text


def post(server, path, body, headers=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    req = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(req, timeout=30) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def test_tokenize_round_trip(tiny):
    text = "Grüße, 世界! \U0001f600 def f(x):\n\treturn x"
    status, body = post(tiny, "/tokenize", {"prompt": text, "add_special_tokens": False})
    tokens = json.loads(body)["tokens"]
    assert status == 200 and json.loads(post(tiny, "/detokenize", {"tokens": tokens})[1])["prompt"] == text


@pytest.mark.parametrize("path", ["/health", "/ping", "/version", "/metrics", "/load", "/v1/models", "/livez", "/readyz"])
def test_plain_routes(tiny, path):
    assert tiny.status(path) == 200


BAD = [
    ("/v1/chat/completions", b"", 400, None, "JSON decode error"),
    ("/v1/chat/completions", b"[]", 400, None, ""),
    ("/v1/chat/completions", {"messages": []}, 400, "messages", ""),
    ("/v1/chat/completions", {"messages": MESSAGES, "model": "nope"}, 404, "model", "does not exist"),
    ("/v1/chat/completions", {"messages": MESSAGES, "temperature": 2.5}, 400, "temperature", "less_than_equal"),
    ("/v1/chat/completions", {"messages": MESSAGES, "n": 0}, 400, "n", "greater_than_equal"),
    ("/v1/chat/completions", {"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tool_choice",
     "--enable-auto-tool-choice"),
    ("/v1/chat/completions", {"messages": MESSAGES, "guided_json": 7}, 400, "guided_json", ""),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 10**6}, 400, "max_tokens", "maximum context length"),
    ("/v1/completions", {"prompt": ""}, 400, "prompt", "cannot be empty"),
    ("/v1/completions", {"prompt": [10**7]}, 400, "prompt.0", "out of vocabulary"),
    ("/v1/completions", {"prompt": "x", "suffix": "y"}, 400, "suffix", "not currently supported"),
    ("/v1/completions", {"prompt": "x", "best_of": 3, "n": 4}, 400, "best_of", ""),
    ("/nowhere", {}, 404, None, ""),
]


@pytest.mark.parametrize("path,body,status,param,words", BAD)
def test_bad_requests(tiny, path, body, status, param, words):
    got, text = post(tiny, path, body)
    error = json.loads(text)["error"]
    assert got == status and error["code"] == status and words in error["message"], text
    assert error["param"] == param, text
    assert post(tiny, "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200


def test_special_tokens_of_clients_stay_text(tiny):
    """A special token spelled in a message is plain text: more tokens than the real one."""
    special = json.loads((tiny_folder() / "tokenizer.json").read_text())["added_tokens"][0]["content"]
    plain = json.loads(post(tiny, "/tokenize", {"messages": [{"role": "user", "content": "x"}]})[1])["count"]
    spelled = json.loads(post(tiny, "/tokenize", {"messages": [{"role": "user", "content": "x" + special}]})[1])["count"]
    assert spelled > plain + 1


def tiny_folder():
    from conftest import TINY
    return TINY
