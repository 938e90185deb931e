"""Every documented call shape of the official openai client (pinned in requirements.txt) for models, completions, chat, streaming
helpers, structured output, tool calls and embeddings, blocking and asynchronous, against a tiny model.

What the model says is nonsense; that the client's types can be made of the answers, and that streams and wholes agree, is not.
"""
import asyncio
import base64
import enum
import json
import struct

import openai
import pydantic
import pytest
from conftest import ROOT, SLOW, Server

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}]
ARGS = {"model": "tiny", "max_tokens": 24, "temperature": 1.0, "seed": 11}
CHAT = {**ARGS, "messages": MESSAGES}
TEXT = {**ARGS, "prompt": "once upon"}


@pytest.fixture(scope="module")
def server():
    s = Server("--served-model-name", "tiny", "small/alias", "--enable-request-id-headers", "--enable-prompt-tokens-details")
    yield s
    s.stop()


@pytest.fixture(scope="module")
def client(server):
    return server.client()


def run_async(server, call):
    """call(client) on an event loop of its own."""
    async def main():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60 * SLOW) as c:
            return await call(c)
    return asyncio.run(main())


# ---- models -----------------------------------------------------------------------------------------------------------------

def test_models(server, client):
    page = client.models.list()
    assert [m.id for m in page] == [m.id for m in page.data] == ["tiny", "small/alias"]
    for name in ("tiny", "small/alias"):
        card = client.models.retrieve(name)
        assert card.id == name and card.object == "model" and card.owned_by == "weir" and card.created > 10**9
    assert run_async(server, lambda c: c.models.retrieve("tiny")).id == "tiny"

    async def names(c):
        return [m.id async for m in c.models.list()]
    assert run_async(server, names) == ["tiny", "small/alias"]
    with pytest.raises(openai.NotFoundError) as e:
        client.models.retrieve("nope")
    assert e.value.param == "model" and e.value.status_code == 404 and e.value.type == "NotFoundError"


# ---- completions ------------------------------------------------------------------------------------------------------------

def same_choices(chunks, whole):
    """Chunks of completions joined by choice are the whole."""
    texts, finish = {}, {}
    for chunk in chunks:
        assert chunk.id == chunks[0].id and chunk.model == whole.model and chunk.object == "text_completion"
        for choice in chunk.choices:
            assert choice.index not in finish
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason:
                finish[choice.index] = choice.finish_reason
    assert [texts[c.index] for c in whole.choices] == [c.text for c in whole.choices]
    assert [finish[c.index] for c in whole.choices] == [c.finish_reason for c in whole.choices]


@pytest.mark.parametrize("prompt", ["once upon", ["once", "upon"], [5, 6, 7], [[5, 6], [7]]])
def test_completions(client, prompt):
    whole = client.completions.create(**{**TEXT, "prompt": prompt, "n": 2})
    n = 2 * (len(prompt) if not isinstance(prompt, str) and not isinstance(prompt[0], int) else 1)
    assert whole.id.startswith("cmpl-") and [c.index for c in whole.choices] == list(range(n))
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.usage.prompt_tokens_details.cached_tokens >= 0 and whole.system_fingerprint.startswith("weir-")
    chunks = list(client.completions.create(**{**TEXT, "prompt": prompt, "n": 2}, stream=True, stream_options={"include_usage": True}))
    same_choices(chunks, whole)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_completion_parameters(client):
    whole = client.completions.create(
        model="tiny", prompt="once", max_tokens=6, temperature=0.7, top_p=0.9, presence_penalty=0.5, frequency_penalty=-0.5, logit_bias={"5": 2},
        stop=["\0", "xyzzy"], seed=3, user="me", logprobs=3, n=1, extra_body={"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1, "ignore_eos": True})
    lp = whole.choices[0].logprobs
    assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.text_offset) == len(lp.top_logprobs) == whole.usage.completion_tokens == 6
    assert all(len(top) in (3, 4) for top in lp.top_logprobs) and lp.text_offset[0] == 0
    assert all(x <= 0 for x in lp.token_logprobs) and "".join(lp.tokens) == whole.choices[0].text
    token_ids = client.completions.create(**TEXT, logprobs=0, extra_body={"return_tokens_as_token_ids": True}).choices[0].logprobs.tokens
    assert all(t.startswith("token_id:") for t in token_ids)


# ---- chat -------------------------------------------------------------------------------------------------------------------

def test_chat(client):
    c = client.chat.completions.create(**CHAT, n=2)
    assert c.id.startswith("chatcmpl-") and c.object == "chat.completion" and [x.index for x in c.choices] == [0, 1]
    for choice in c.choices:
        assert choice.message.role == "assistant" and choice.message.content is not None and choice.message.tool_calls is None
        assert choice.message.refusal is None and choice.message.audio is None and choice.message.annotations is None
    parts = [{"role": "user", "content": [{"type": "text", "text": "Name"}, {"type": "text", "text": "a colour."}]}]
    assert client.chat.completions.create(**{**CHAT, "messages": parts}).choices[0].finish_reason in ("stop", "length")
    turns = [*MESSAGES, {"role": "assistant", "content": "Red."}, {"role": "user", "content": "Another."}]
    assert client.chat.completions.create(**{**CHAT, "messages": turns}).usage.prompt_tokens > c.usage.prompt_tokens
    developer = [{"role": "developer", "content": "Be brief."}, MESSAGES[1]]
    assert client.chat.completions.create(**{**CHAT, "messages": developer}).choices[0].message.content == c.choices[0].message.content


def test_chat_parameters(client):
    c = client.chat.completions.create(
        **{**CHAT, "max_tokens": openai.NOT_GIVEN}, max_completion_tokens=5, top_p=0.9, presence_penalty=0.1, frequency_penalty=0.1,
        logit_bias={"5": -1}, stop="xyzzy", logprobs=True, top_logprobs=2, user="me", metadata={"a": "b"}, store=False, service_tier="auto",
        response_format={"type": "text"}, reasoning_effort="low", safety_identifier="x", prompt_cache_key="y",
        extra_body={"top_k": 10, "ignore_eos": True})
    assert c.usage.completion_tokens == 5 and c.choices[0].finish_reason == "length"
    content = c.choices[0].logprobs.content
    assert len(content) == 5 and all(len(t.top_logprobs) == 2 for t in content)
    assert b"".join(bytes(t.bytes) for t in content).decode(errors="replace") == c.choices[0].message.content


def test_chat_stream(client):
    whole = client.chat.completions.create(**CHAT, n=2, logprobs=True, top_logprobs=1)
    stream = client.chat.completions.create(**CHAT, n=2, logprobs=True, top_logprobs=1, stream=True, stream_options={"include_usage": True})
    assert isinstance(stream, openai.Stream)
    with stream:
        chunks = list(stream)
    assert [c.choices[0].delta.role for c in chunks[:2]] == ["assistant"] * 2 and chunks[-1].choices == []
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert mine[-1].finish_reason == choice.finish_reason and all(c.finish_reason is None for c in mine[:-1])
        logprobs = [t for c in mine if c.logprobs for t in c.logprobs.content]
        assert [t.token for t in logprobs] == [t.token for t in choice.logprobs.content]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_stream_left_early(server, client):
    with client.chat.completions.create(**{**CHAT, "max_tokens": 500}, stream=True) as stream:
        assert next(iter(stream)).choices[0].delta.role == "assistant"
    assert client.chat.completions.create(**CHAT).choices


# ---- the streaming helper ---------------------------------------------------------------------------------------------------

# Ends by itself: the client makes no final completion of one that the token limit cut.
SHORT = {**CHAT, "max_tokens": 500, "stop": ["e", "a", "o", " "]}


def test_stream_helper(client):
    whole = client.chat.completions.create(**SHORT)
    assert whole.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(**SHORT, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    kinds = {e.type for e in events}
    assert {"chunk", "content.delta", "content.done"} <= kinds
    deltas = [e for e in events if e.type == "content.delta"]
    assert "".join(e.delta for e in deltas) == deltas[-1].snapshot == whole.choices[0].message.content
    assert next(e for e in events if e.type == "content.done").content == whole.choices[0].message.content
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason and final.usage.completion_tokens == whole.usage.completion_tokens


def test_stream_helper_with_logprobs(client):
    with client.chat.completions.stream(**CHAT, logprobs=True, top_logprobs=1) as stream:
        events = list(stream)
    done = next(e for e in events if e.type == "logprobs.content.done")
    assert len(done.content) == sum(len(e.content) for e in events if e.type == "logprobs.content.delta") > 0


def test_stream_helper_asynchronous(server, client):
    whole = client.chat.completions.create(**SHORT)

    async def call(c):
        async with c.chat.completions.stream(**SHORT) as stream:
            async for _ in stream:
                pass
            return await stream.get_final_completion()
    assert run_async(server, call).choices[0].message.content == whole.choices[0].message.content


# ---- structured output ------------------------------------------------------------------------------------------------------

class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Paint(pydantic.BaseModel):
    colour: Colour
    litres: int
    note: str | None


WILD = {**CHAT, "temperature": 1.3, "max_tokens": 400}


def parsed(call):
    """The first of some seeds whose output ends before the limit: the client refuses to parse a cut one."""
    for seed in range(20):
        try:
            return call(seed)
        except openai.LengthFinishReasonError:
            continue
    raise AssertionError("no output ended")


def test_parse(server, client):
    c = parsed(lambda seed: client.chat.completions.parse(**{**WILD, "seed": seed}, response_format=Paint))
    paint = c.choices[0].message.parsed
    assert isinstance(paint, Paint) and paint == Paint.model_validate_json(c.choices[0].message.content)
    seed = parsed(lambda s: (client.chat.completions.parse(**{**WILD, "seed": s}, response_format=Paint), s)[1])
    again = run_async(server, lambda c: c.chat.completions.parse(**{**WILD, "seed": seed}, response_format=Paint))
    assert isinstance(again.choices[0].message.parsed, Paint)

    def streamed(s):
        with client.chat.completions.stream(**{**WILD, "seed": s}, response_format=Paint) as stream:
            for event in stream:
                if event.type == "content.done":
                    assert isinstance(event.parsed, Paint)
            return stream.get_final_completion()
    assert streamed(seed).choices[0].message.parsed == again.choices[0].message.parsed


def test_json_schema_and_json_object(client):
    schema = {"name": "paint", "strict": True, "schema": {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
                                                          "additionalProperties": False}}
    c = client.chat.completions.create(**WILD, response_format={"type": "json_schema", "json_schema": schema})
    assert json.loads(c.choices[0].message.content)["a"] in (1, 2)
    for seed in range(20):
        c = client.chat.completions.create(**{**WILD, "seed": seed}, response_format={"type": "json_object"})
        if c.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(c.choices[0].message.content), dict)
            return
    raise AssertionError("no output ended")


# ---- tools ------------------------------------------------------------------------------------------------------------------

class Mix(pydantic.BaseModel):
    colour: Colour
    parts: bool


TOOL = {"type": "function", "function": {"name": "mix", "description": "Mixes.", "parameters": {
    "type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}}}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "mix"}}])
def test_tool_calls(client, choice):
    c = client.chat.completions.create(**WILD, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    calls = c.choices[0].message.tool_calls
    assert c.choices[0].message.content == "" and c.choices[0].finish_reason in ("tool_calls", "stop", "length")
    assert all(x.type == "function" and x.function.name == "mix" and x.id.startswith("chatcmpl-tool-") for x in calls)
    assert json.loads(calls[0].function.arguments)["colour"] in ("red", "blue")
    chunks = list(client.chat.completions.create(**WILD, tools=[TOOL], tool_choice=choice, stream=True))
    joined = {}
    for chunk in chunks:
        for delta in chunk.choices[0].delta.tool_calls or []:
            joined[delta.index] = joined.get(delta.index, "") + (delta.function.arguments or "")
    assert [joined[i] for i in range(len(calls))] == [x.function.arguments for x in calls]


def test_tool_results_go_back(client):
    calls = client.chat.completions.create(**WILD, tools=[TOOL], tool_choice=TOOL | {"function": {"name": "mix"}}).choices[0].message
    turn = [*MESSAGES, {"role": "assistant", "content": "Mixing.", "tool_calls": [x.model_dump() for x in calls.tool_calls]},
            {"role": "user", "content": "And?"}]
    assert client.chat.completions.create(**{**CHAT, "messages": turn}, tools=[TOOL], tool_choice="none").choices[0].message.content is not None


def test_tools_of_pydantic(client):
    tool = openai.pydantic_function_tool(Mix, name="mix")
    choice = {"type": "function", "function": {"name": "mix"}}
    c = parsed(lambda seed: client.chat.completions.parse(**{**WILD, "seed": seed}, tools=[tool], tool_choice=choice))
    assert isinstance(c.choices[0].message.tool_calls[0].function.parsed_arguments, Mix)

    def streamed(seed):
        with client.chat.completions.stream(**{**WILD, "seed": seed}, tools=[tool], tool_choice=choice) as stream:
            events = list(stream)
            return events, stream.get_final_completion()
    events, final = parsed(streamed)
    done = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    assert len(done) == 1 and done[0].name == "mix" and isinstance(done[0].parsed_arguments, Mix)
    deltas = [e.arguments_delta for e in events if e.type == "tool_calls.function.arguments.delta"]
    assert "".join(deltas) == done[0].arguments == final.choices[0].message.tool_calls[0].function.arguments


# ---- raw and streaming responses, options, errors ----------------------------------------------------------------------------

def test_raw_responses(client):
    raw = client.chat.completions.with_raw_response.create(**CHAT)
    assert raw.status_code == 200 and raw.headers["content-type"] == "application/json"
    assert raw.parse().id == json.loads(raw.text)["id"] == "chatcmpl-" + raw.headers["x-request-id"]
    assert client.models.with_raw_response.list().parse().data[0].id == "tiny"
    raw = client.completions.with_raw_response.create(**TEXT, stream=True)
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert "".join(c.choices[0].text for c in raw.parse()) == client.completions.create(**TEXT).choices[0].text


def test_streaming_responses(client):
    with client.chat.completions.with_streaming_response.create(**CHAT, stream=True) as response:
        assert response.status_code == 200
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and all(json.loads(line[6:])["object"] == "chat.completion.chunk" for line in lines[:-1])
    with client.completions.with_streaming_response.create(**TEXT) as response:
        assert response.parse().choices[0].text == client.completions.create(**TEXT).choices[0].text


def test_asynchronous(server, client):
    whole = client.chat.completions.create(**CHAT)

    async def both(c):
        stream = await c.chat.completions.create(**CHAT, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        alone, several = await asyncio.gather(c.chat.completions.create(**CHAT), asyncio.gather(*(c.completions.create(**TEXT) for _ in range(8))))
        raw = await c.chat.completions.with_raw_response.create(**CHAT)
        async with c.completions.with_streaming_response.create(**TEXT, stream=True) as response:
            n_lines = len([line async for line in response.iter_lines() if line])
        return text, alone, several, raw.parse(), n_lines
    text, alone, several, raw, n_lines = run_async(server, both)
    assert text == alone.choices[0].message.content == raw.choices[0].message.content == whole.choices[0].message.content
    assert len({c.choices[0].text for c in several}) == 1 and n_lines == several[0].usage.completion_tokens + 1


def test_request_ids_and_options(server, client):
    c = client.with_options(default_headers={"X-Request-Id": "mine-1"}).chat.completions.create(**CHAT)
    assert c.id == "chatcmpl-mine-1" and c._request_id == "mine-1"
    assert client.completions.create(**TEXT, extra_headers={"X-Request-Id": "mine-2"}).id == "cmpl-mine-2"
    assert client.completions.create(**TEXT, extra_body={"request_id": "mine-3"}).id == "cmpl-mine-3"
    assert client.completions.create(**TEXT, extra_query={"x": "y"}).choices
    assert client.with_options(timeout=50, max_retries=1).completions.create(**TEXT, timeout=40).choices
    with pytest.raises(openai.APITimeoutError):
        client.completions.create(**{**TEXT, "max_tokens": 2000}, timeout=0.001)
    assert client.completions.create(**TEXT).choices


@pytest.mark.parametrize("kind,change,param", [
    (openai.BadRequestError, {"temperature": 9}, "temperature"), (openai.NotFoundError, {"model": "nope"}, "model"),
    (openai.BadRequestError, {"messages": []}, "messages"), (openai.BadRequestError, {"n": 0}, "n"),
    (openai.BadRequestError, {"response_format": {"type": "x"}}, "response_format.type")])
def test_errors(server, client, kind, change, param):
    for stream in (False, True):
        with pytest.raises(kind) as e:
            client.chat.completions.create(**{**CHAT, **change}, stream=stream)
        assert e.value.param == param and e.value.body["message"] and e.value.request_id and e.value.status_code in (400, 404)
        assert str(e.value.code) == str(e.value.status_code)
    with pytest.raises(kind):
        run_async(server, lambda c: c.chat.completions.create(**{**CHAT, **change}))
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="tiny", input="a")


# ---- embeddings -------------------------------------------------------------------------------------------------------------

def test_embeddings():
    server = Server("--served-model-name", "bert", model=ROOT / "tests/golden/pooling/bert-embed")
    client = server.client()
    default = client.embeddings.create(model="bert", input="the cat")  # base64 on the wire
    assert default.object == "list" and default.data[0].object == "embedding" and default.usage.prompt_tokens == default.usage.total_tokens > 0
    vector = default.data[0].embedding
    assert isinstance(vector, list) and abs(sum(x * x for x in vector) - 1) < 1e-3
    plain = client.embeddings.create(model="bert", input="the cat", encoding_format="float").data[0].embedding
    coded = client.embeddings.create(model="bert", input="the cat", encoding_format="base64").data[0].embedding
    assert plain == pytest.approx(vector, abs=1e-7)
    if isinstance(coded, str):
        coded = list(struct.unpack(f"<{len(vector)}f", base64.b64decode(coded)))
    assert coded == pytest.approx(vector, abs=1e-7)
    many = client.embeddings.create(model="bert", input=["the cat", "a dog"], user="me", dimensions=len(vector))
    assert [d.index for d in many.data] == [0, 1] and many.data[0].embedding == vector
    assert client.embeddings.with_raw_response.create(model="bert", input="the cat").parse().data[0].embedding == vector
    assert run_async(server, lambda c: c.embeddings.create(model="bert", input="the cat")).data[0].embedding == vector
    with pytest.raises(openai.BadRequestError) as e:
        client.embeddings.create(model="bert", input="")
    assert e.value.param == "input"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="bert", input="a", dimensions=len(vector) - 1)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="bert", messages=MESSAGES)
    server.stop()
