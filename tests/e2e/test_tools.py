"""Tool calls and reasoning through the official client: a scripted engine says the text of a file, so every parser
sees the calls that models of its kind write."""
import json
import re
import subprocess

import pydantic
import pytest

from conftest import BUILD, ROOT, Server, TINY

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "now"}},
]
ASK = [{"role": "user", "content": "What is the weather?"}]
ARGS = {"city": "Z\u00fcrich \"x\"\n", "days": 2}
J = json.dumps(ARGS, ensure_ascii=False)
# How each kind of model writes: get_weather(ARGS), then now().
CALLS = {
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {J}}}\n</tool_call>\n'
              '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "llama3_json": f'{{"name": "get_weather", "parameters": {J}}}; {{"name": "now", "parameters": {{}}}}',
    "llama4_json": f'<|python_tag|>{{"name": "get_weather", "parameters": {J}}}; {{"name": "now", "parameters": {{}}}}',
    "pythonic": '[get_weather(city=\'Z\u00fcrich "x"\\n\', days=2), now()]',
    "llama4_pythonic": '<|python_start|>[get_weather(city="Z\u00fcrich \\"x\\"\\n", days=2), now()]<|python_end|>',
    "mistral": f"[TOOL_CALLS]get_weather[ARGS]{J}[TOOL_CALLS]now[ARGS]{{}}",
    "jamba": f'<tool_calls>[\n{{"name": "get_weather", "arguments": {J}}},\n{{"name": "now", "arguments": {{}}}}\n]</tool_calls>',
    "qwen3_coder": '<tool_call>\n<function=get_weather>\n<parameter=city>\nZ\u00fcrich "x"\n\n</parameter>\n<parameter=days>\n2\n'
                   "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
}


class Scripted(Server):
    def __init__(self, path, *flags):
        self.script = path
        path.write_text("")
        super().__init__("--mock", "--mock-text", path, "--mock-step-ms", "0.2", *flags)

    def says(self, text):
        self.script.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module", params=sorted(CALLS))
def scripted(request, tmp_path_factory):
    s = Scripted(tmp_path_factory.mktemp("script") / "text", "--enable-auto-tool-choice", "--tool-call-parser", request.param,
                 "--reasoning-parser", "qwen3")
    s.parser = request.param
    yield s
    s.stop()


def whole(server, **kw):
    """(content, reasoning, [(name, arguments)], finish_reason) of an answer that is not streamed."""
    choice = server.client().chat.completions.create(model="", messages=ASK, **kw).choices[0]
    m = choice.message
    assert m.reasoning == m.reasoning_content
    calls = [(c.function.name, c.function.arguments) for c in m.tool_calls or []]
    for c in m.tool_calls or []:
        assert c.type == "function"
        assert re.fullmatch("[0-9A-Za-z]{9}" if getattr(server, "parser", "") == "mistral" else "chatcmpl-tool-[0-9a-f]{32}", c.id)
    return m.content, m.reasoning, calls, choice.finish_reason


def streamed(server, **kw):
    """The same from a stream, put together; and how many pieces the arguments came in."""
    content, reasoning, calls, finish, pieces = "", "", [], None, 0
    for chunk in server.client().chat.completions.create(model="", messages=ASK, stream=True, **kw):
        choice = chunk.choices[0]
        assert finish is None
        finish = choice.finish_reason
        content += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning", None) or ""
        for c in choice.delta.tool_calls or []:
            if c.index == len(calls):
                assert c.id and c.type == "function" and c.function.name
                calls.append([c.function.name, ""])
            else:
                assert c.id is None and c.function.name is None and c.index == len(calls) - 1
            calls[c.index][1] += c.function.arguments
            pieces += bool(c.function.arguments)
    return (content, reasoning, [tuple(c) for c in calls], finish), pieces


def both(server, text, **kw):
    server.says(text)
    content, reasoning, calls, finish = whole(server, **kw)
    joined, pieces = streamed(server, **kw)
    assert joined == (content or "", reasoning or "", calls, finish)
    return content, reasoning, calls, finish, pieces


def test_calls(scripted):
    content, reasoning, calls, finish, pieces = both(scripted, CALLS[scripted.parser], tools=TOOLS)
    assert (content, reasoning, finish) == (None, None, "tool_calls")
    assert [c[0] for c in calls] == ["get_weather", "now"]
    assert [json.loads(c[1]) for c in calls] == [ARGS, {}]
    assert pieces > 5  # as they come, not at the end


def test_text_and_reasoning_in_front(scripted):
    content, reasoning, calls, finish, _ = both(scripted, "<think>\nhm [1] {2} <b>\n</think>\n\nLet me see. " + CALLS[scripted.parser],
                                                tools=TOOLS)
    assert (content, reasoning, finish) == ("\n\nLet me see. ", "\nhm [1] {2} <b>\n", "tool_calls")
    assert [json.loads(c[1]) for c in calls] == [ARGS, {}]


def test_no_call(scripted):
    text = "Plain [text](u) with {\"json\": 1}, <b>tags</b> & [lists, f(x)]; <tool_call>x</tool_call> [TOOL_CALLS] <tool_calls>"
    assert both(scripted, text, tools=TOOLS)[:4] == (text, None, [], "stop")
    # nobody asked for calls: they are text
    assert both(scripted, CALLS[scripted.parser])[:4] == (CALLS[scripted.parser], None, [], "stop")
    assert both(scripted, CALLS[scripted.parser], tools=TOOLS, tool_choice="none")[:4] == (CALLS[scripted.parser], None, [], "stop")


def test_cut_anywhere(scripted):
    """A limit on tokens cuts the answer: what is there is the beginning of the whole, and finish_reason is length."""
    _, _, calls, _, _ = both(scripted, CALLS[scripted.parser], tools=TOOLS)
    for n in (1, 9, 20, 28):
        _, _, some, finish, _ = both(scripted, CALLS[scripted.parser], tools=TOOLS, max_completion_tokens=n)
        assert finish == "length"
        # half a character at the cut shows as U+FFFD
        assert all(c[0] == w[0] and w[1].startswith(c[1].rstrip("\ufffd")) for c, w in zip(some, calls))


def hostile(call):
    """Row G09 of reliability.md: what a model may write instead of a call."""
    yield from (call[:len(call) * i // 5] for i in range(1, 5))
    yield call.replace('"', "'")
    yield call.replace('"', "")
    yield call.replace("get_weather", "</tool_call>")
    yield call.replace("rich", "</tool_call></function></parameter>[TOOL_CALLS]<|python_end|></tool_calls>")
    yield call.replace("rich", "x" * 400)
    yield call.replace("rich", "\ufffd\u2028\x00\x7f")
    for opening in ("{", "[", '{"a":', "[f(a=", "<tool_call>", "("):
        yield call[:len(call) // 3] + opening * 100
    yield call[::-1]


def test_hostile_output(scripted):
    """Text or calls, the same streamed as not, and nothing else; then a good call is one."""
    for text in hostile(CALLS[scripted.parser]):
        content, _, calls, finish, _ = both(scripted, text, tools=TOOLS)
        assert finish in ("stop", "length", "tool_calls") and (content or calls), (text, finish)
        assert finish != "tool_calls" or calls, text
        assert finish != "stop" or not calls, text
        assert all(name for name, _ in calls), text
    assert len(both(scripted, CALLS[scripted.parser], tools=TOOLS)[2]) == 2


def test_include_reasoning_and_thinking_off(scripted):
    extra = {"extra_body": {"include_reasoning": False}}
    assert both(scripted, "<think>a</think>b", **extra)[:4] == ("b", None, [], "stop")
    extra = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
    assert both(scripted, "<think>a</think>b", **extra)[:4] == ("<think>a</think>b", None, [], "stop")


def test_stream_helper(tmp_path):
    """The client's own accumulation of streams, with arguments parsed into a model of the caller's."""
    import openai

    class GetWeather(pydantic.BaseModel):
        city: str
        days: int

    s = Scripted(tmp_path / "text", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    s.says(f'On it.<tool_call>{{"name": "GetWeather", "arguments": {J}}}</tool_call>')
    kinds = set()
    with s.client().chat.completions.stream(model="weir", messages=ASK, tools=[openai.pydantic_function_tool(GetWeather)],
                                            extra_body={"model": ""}) as stream:
        for event in stream:
            kinds.add(event.type)
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds and "tool_calls.function.arguments.done" in kinds
    assert final.finish_reason == "tool_calls" and final.message.content == "On it."
    assert final.message.tool_calls[0].function.parsed_arguments == GetWeather(**ARGS)
    s.stop()


def test_parallel_calls_off(tmp_path):
    s = Scripted(tmp_path / "text", "--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enforce-parallel-tool-calls",
                 "--exclude-tools-when-tool-choice-none", "--chat-template",
                 "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | tojson if tools else 'none' }}")
    assert len(both(s, CALLS["hermes"], tools=TOOLS)[2]) == 2
    assert len(both(s, CALLS["hermes"], tools=TOOLS, parallel_tool_calls=False)[2]) == 1
    usage = [s.client().chat.completions.create(model="", messages=ASK, tools=TOOLS, tool_choice=c).usage.prompt_tokens
             for c in ("auto", "none")]
    assert usage[0] > usage[1] + 20  # the template saw no tools
    s.stop()


def test_start_up_refusals():
    def run(*flags):
        r = subprocess.run([BUILD / "weir", "serve", TINY, "--port", "0", *flags], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert r.returncode == 2, r
        return r.stderr

    assert "--tool-call-parser" in run("--enable-auto-tool-choice")
    for names in CALLS:
        assert names in run("--enable-auto-tool-choice", "--tool-call-parser", "xlam")
    assert "deepseek_r1" in run("--reasoning-parser", "glm45")


def test_structured_choices():
    """A real model, of random weights: named and required calls, and structured output, with reasoning in front."""
    s = Server("--reasoning-parser", "qwen3", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    named = {"type": "function", "function": {"name": "get_weather"}}
    for seed in range(4):
        kw = {"seed": seed, "max_completion_tokens": 60}
        for choice in (named, "required"):
            content, reasoning, calls, finish = whole(s, tools=TOOLS, tool_choice=choice, **kw)
            assert streamed(s, tools=TOOLS, tool_choice=choice, **kw)[0] == (content or "", reasoning or "", calls, finish)
            assert reasoning or content == ""
            if finish != "length":
                assert finish == ("tool_calls" if choice == "required" else "stop")
                assert calls and all(isinstance(json.loads(c[1]), dict) for c in calls)
        extra = {"extra_body": {"guided_regex": "[0-9]{3}"}}
        content, reasoning, calls, finish = whole(s, **extra, **kw)
        assert reasoning or re.fullmatch("[0-9]{3}", content)
        # with tools of its own choice: a call, reasoning, or the content asked for
        content, reasoning, calls, finish = whole(s, tools=TOOLS, **extra, **kw)
        assert reasoning or calls or finish == "length" or re.fullmatch("[0-9]{3}", content)
    s.stop()


DEMO = ROOT / "deploy/demo-model"


@pytest.mark.skipif(not (DEMO / "config.json").exists(), reason="deploy/demo-model is not there")
def test_demo_model_calls():
    """A model that has learned to call: by its own choice, whole and streamed."""
    s = Server("--enable-auto-tool-choice", "--tool-call-parser", "hermes", model=DEMO)
    tools = [{"type": "function", "function": {"name": "get_weather", "description": "Look up the weather in a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    kw = {"model": "", "messages": ask, "tools": tools, "temperature": 0, "max_completion_tokens": 80}
    c = s.client().chat.completions.create(**kw).choices[0]
    name, args, finish = None, "", None
    for chunk in s.client().chat.completions.create(stream=True, **kw):
        for call in chunk.choices[0].delta.tool_calls or []:
            name = call.function.name or name
            args += call.function.arguments
        finish = chunk.choices[0].finish_reason or finish
    if c.message.tool_calls:
        assert c.finish_reason == "tool_calls" == finish
        assert (name, args) == (c.message.tool_calls[0].function.name, c.message.tool_calls[0].function.arguments)
        assert name == "get_weather" and json.loads(args) == {"city": "Paris"}
    else:
        assert name is None and finish == c.finish_reason
    s.stop()
