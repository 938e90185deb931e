"""Structured output and tools through the official client, judged by Python's jsonschema and re."""
import json
import random
import re
import string
import time
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import openai
import pytest
from conftest import SCALE, SLOW

MESSAGES = [{"role": "user", "content": "Answer."}]
WILD = {"temperature": 1.5, "max_tokens": 300}


def chat(server, extra=None, **kw):
    args = {**WILD, **kw}
    r = server.client().chat.completions.create(model="", messages=MESSAGES, extra_body=extra or {}, **args)
    return r.choices[0]


def complete(server, extra, **kw):
    r = server.client().completions.create(model="", prompt="x", extra_body=extra, **{**WILD, **kw})
    return r.choices[0]


# ---- what texts may begin like ------------------------------------------------------------------------------------------------

def json_prefix(text):
    """Whether text begins some JSON document: its brackets, strings and separators are in order so far."""
    stack, state, i = [], "value", 0
    while i < len(text):
        c = text[i]
        if c in " \t\n\r":
            i += 1
        elif state in ("value", "first") and c == "]" and state == "first":
            stack.pop()
            state, i = "after", i + 1
        elif state in ("value", "first") and c in "{[":
            stack.append(c)
            state, i = ("key1" if c == "{" else "first"), i + 1
        elif state in ("value", "first", "key", "key1") and c == '"':
            m = re.match(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*(?:("|\\(?:u[0-9a-fA-F]{0,3})?)?)', text[i:])
            if not m.group(1) == '"':
                return i + m.end() == len(text)
            i += m.end()
            state = "colon" if state in ("key", "key1") else "after"
        elif state == "key1" and c == "}" or state == "after" and c == "}" and stack and stack[-1] == "{":
            stack.pop()
            state, i = "after", i + 1
        elif state == "after" and c == "]" and stack and stack[-1] == "[":
            stack.pop()
            i += 1
        elif state == "after" and c == "," and stack:
            state, i = ("key" if stack[-1] == "{" else "value"), i + 1
        elif state == "colon" and c == ":":
            state, i = "value", i + 1
        elif state in ("value", "first"):
            rest = text[i:]
            m = re.match(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null", rest)
            if m and i + m.end() < len(text) and not re.match(r"[.eE]", text[i + m.end():]):
                i += m.end()
                state = "after"
                continue
            number = re.fullmatch(r"-?(?:0|[1-9]\d*)?(?:(?<=\d)\.\d*)?(?:(?<=\d)[eE][+-]?\d*)?", rest)
            return bool(number) or any(w.startswith(rest) for w in ("true", "false", "null"))
        else:
            return False
    return True


def test_json_prefix_knows():
    text = json.dumps({"a": [1, -2.5e3, True, None, "x\\\"\u00e9"], "b": {}, "c": []}, indent=1)
    assert all(json_prefix(text[:i]) for i in range(len(text) + 1))
    for bad in ("}", "[1,]", '{"a"}', '{"a":1,}', "tru1", "01 ", '"\x01"', "{1", "[1 2"):
        assert not json_prefix(bad), bad


# ---- random schemas -----------------------------------------------------------------------------------------------------------

def random_schema(rng, depth=0):
    kinds = ["integer", "number", "string", "boolean", "null", "enum", "const", "pattern", "format", "range"]
    if depth < 3:
        kinds += ["object", "object", "array", "anyOf", "tuple", "map"]
    kind = "object" if depth == 0 else rng.choice(kinds)
    name = lambda: "".join(rng.choice(string.ascii_letters + "_é ") for _ in range(rng.randint(1, 6)))
    if kind == "object":
        names = sorted({name() for _ in range(rng.randint(1, 4))})
        s = {"type": "object", "properties": {n: random_schema(rng, depth + 1) for n in names},
             "required": [n for n in names if rng.random() < 0.6]}
        if rng.random() < 0.5:
            s["additionalProperties"] = False
        return s
    if kind == "map":
        return {"type": "object", "additionalProperties": random_schema(rng, depth + 1), "maxProperties": 2}
    if kind == "array":
        return {"type": "array", "items": random_schema(rng, depth + 1), "minItems": rng.randint(0, 2), "maxItems": 3}
    if kind == "tuple":
        return {"type": "array", "prefixItems": [random_schema(rng, depth + 1), random_schema(rng, depth + 1)], "items": False, "minItems": 2}
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth + 1) for _ in range(2)]}
    if kind == "enum":
        return {"enum": [name(), rng.randint(-5, 5), None, [1, {"a": True}]]}
    if kind == "const":
        return {"const": rng.choice([name(), 3.5, {"k": [1]}, "a\"\\\n"])}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-f]{2,4}$", "^x+(-[0-9]{3})?$", "^(yes|no)$", "[0-9]", "^.{3}$"]), "maxLength": 12}
    if kind == "format":
        return {"type": "string", "format": rng.choice(["date", "uuid", "ipv4"])}
    if kind == "range":
        low = rng.randint(-300, 300)
        return {"type": "integer", "minimum": low, "maximum": low + rng.choice([0, 1, 9, 123])}
    if kind == "string":
        return {"type": "string", "maxLength": rng.randint(0, 8)}
    return {"type": kind}


def check_json(choice, text, schema):
    if choice.finish_reason == "length":
        assert json_prefix(text), text
        return 0
    assert choice.finish_reason == "stop", (choice, schema)
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(json.loads(text))
    return 1


def test_many_schemas(tiny):
    """200 requests, 16 at a time, each of another schema, pattern or choice, at a temperature that makes noise of words."""
    rng = random.Random(5)
    n = int(200 * SCALE)
    patterns = ["[a-z]{3}-\\d+", "(foo|bar)+", "[A-Z][a-z]*( [A-Z][a-z]*){1,3}", "\\w{5}", "-?\\d{1,4}(\\.\\d\\d)?", "[^\\n\"]{4,9}"]
    cases = []
    for i in range(n):
        if i % 5 == 4:
            cases.append(("regex", rng.choice(patterns) + rng.choice(["", "!", str(i)])))
        elif i % 25 == 3:
            cases.append(("choice", [f"{w}{i}" for w in ("yes", "no", "może")]))
        else:
            cases.append(("json", random_schema(rng)))

    def one(i):
        kind, what = cases[i]
        tight = {"disable_any_whitespace": True} if i % 2 else {}
        if i % 3 == 0:
            field = {"json": "guided_json", "regex": "guided_regex", "choice": "guided_choice"}[kind]
            extra = {field: what}
        else:
            extra = {"structured_outputs": {kind: what, **tight}}
        if i % 2:
            c = complete(tiny, extra, seed=i)
            text = c.text
        else:
            c = chat(tiny, extra, seed=i)
            text = c.message.content
        if kind == "json":
            return check_json(c, text, what)
        if kind == "choice":
            assert text in what and c.finish_reason == "stop"
        elif c.finish_reason == "stop":
            assert re.fullmatch(what, text), (what, text)
        return c.finish_reason == "stop"

    with ThreadPoolExecutor(16) as pool:
        done = sum(pool.map(one, range(n)))
    assert done > n // 2, f"only {done} of {n} ended by themselves"


# ---- the fields -----------------------------------------------------------------------------------------------------------------

def test_response_format(tiny):
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}
    rf = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    c = chat(tiny, response_format=rf)
    assert json.loads(c.message.content)["a"] in "xy" and c.finish_reason == "stop"
    assert json.loads(complete(tiny, {"response_format": rf}).text)["a"] in "xy"
    c = chat(tiny, response_format={"type": "json_object"}, seed=1)
    assert json_prefix(c.message.content) and c.message.content.lstrip().startswith("{")
    assert chat(tiny, response_format={"type": "text"}).finish_reason in ("stop", "length")


def test_grammars(tiny):
    gbnf = 'root ::= "(" root ")" | [0-9]{1,3}'
    lark = 'start: "<" WORD ">"\nWORD: /[a-z]{1,5}/\n'
    for seed in range(6):
        c = chat(tiny, {"guided_grammar": gbnf}, seed=seed, max_tokens=40)
        text = c.message.content
        if c.finish_reason == "stop":
            assert re.fullmatch(r"\(*[0-9]{1,3}\)*", text) and text.count("(") == text.count(")")
        assert re.fullmatch("<[a-z]{1,5}>", complete(tiny, {"guided_grammar": lark}, seed=seed).text)


def test_structural_tags(tiny):
    tag = {"format": {"type": "tag", "begin": "<a>", "content": {"type": "json_schema", "json_schema": {"enum": [1, 2]}}, "end": "</a>"}}
    for extra in ({"structural_tag": tag}, {"structural_tag": json.dumps(tag)}, {"structured_outputs": {"structural_tag": tag}},
                  {"response_format": {"type": "structural_tag", **tag}}):
        assert chat(tiny, extra).message.content in ("<a>1</a>", "<a>2</a>")


def test_samples_stream_and_logprobs(tiny):
    extra = {"guided_regex": "[a-z]{12}"}
    args = dict(model="", prompt="x", extra_body=extra, temperature=1.5, max_tokens=64, seed=3)
    whole = tiny.client().completions.create(n=4, **args)
    assert all(re.fullmatch("[a-z]{12}", c.text) and c.finish_reason == "stop" for c in whole.choices)
    assert len({c.text for c in whole.choices}) > 1
    parts = ["", "", "", ""]
    for chunk in tiny.client().completions.create(n=4, stream=True, **args):
        for c in chunk.choices:
            parts[c.index] += c.text
            assert c.stop_reason is None
    assert parts == [c.text for c in whole.choices]
    # With log-probabilities every token has its step; the text is the same.
    logged = tiny.client().completions.create(logprobs=2, **args)
    assert logged.choices[0].text == whole.choices[0].text
    assert len(logged.choices[0].logprobs.tokens) == logged.usage.completion_tokens


def test_masks_are_timed(tiny):
    def series(kind, what):
        return tiny.metric_of("weir_grammar_mask_seconds_" + what, kind=kind)

    time.sleep(SLOW)  # a worker reports five times a second: those of tests before are counted
    before = series("regex", "count")
    complete(tiny, {"guided_regex": "[a-z]{6}"})
    until = time.monotonic() + 20
    while series("regex", "count") == before and time.monotonic() < until:
        time.sleep(0.05)
    assert before < series("regex", "count") <= before + 7
    assert series("regex", "sum") > 0


def test_forced_text_needs_few_steps(tiny):
    before = tiny.metric("vllm:iteration_tokens_total_count")
    text = complete(tiny, {"guided_choice": ["The one and only answer to the question."]}).text
    assert text == "The one and only answer to the question."
    assert tiny.metric("vllm:iteration_tokens_total_count") - before < len(text)


@pytest.mark.parametrize("extra, says", [
    ({"guided_json": {"type": "strin"}}, "/type"),
    ({"guided_json": {"properties": {"a": {"minimum": "x"}}}}, "/properties/a/minimum"),
    ({"guided_json": {"$ref": "http://x/y"}}, "$ref"),
    ({"guided_json": {"type": "string", "minLength": 5, "maxLength": 3}}, "guided_json"),
    ({"guided_regex": "(a"}, "pattern offset 0"),
    ({"guided_regex": "a{1000000}"}, "--max-regex-repeat"),
    ({"guided_regex": "(.{1,1000}){1,1000}"}, "--max-regex-states"),
    ({"guided_regex": "a" * 20000}, "--max-regex-bytes"),
    ({"guided_grammar": "root ::= a"}, "line 1"),
    ({"guided_choice": ["a", "a"]}, "twice"),
    ({"guided_choice": ["a"], "guided_regex": "a"}, "guided_regex and guided_choice"),
    ({"structured_outputs": {}}, "must have one of"),
    ({"response_format": {"type": "json_schema"}}, "json_schema"),
    ({"guided_decoding_backend": "none"}, "must be one of"),
])
def test_refused_before_anything_is_sent(tiny, extra, says):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=re.escape(says)):
            tiny.client().chat.completions.create(model="", messages=MESSAGES, stream=stream, extra_body=extra)


def test_stop_and_limit_cut(tiny):
    c = complete(tiny, {"guided_regex": "[ab]{40}"}, max_tokens=5)
    assert c.finish_reason == "length" and re.fullmatch("[ab]+", c.text)
    c = complete(tiny, {"guided_regex": "[ab]{40}END"}, max_tokens=200, stop=["END"])
    assert c.finish_reason == "stop" and re.fullmatch("[ab]{40}", c.text) and c.stop_reason == "END"


# ---- tools ------------------------------------------------------------------------------------------------------------------------

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {
            "type": "object", "properties": {"city": {"$ref": "#/$defs/t"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"], "$defs": {"t": {"enum": ["Oslo", "Łódź"]}}}}},
         {"type": "function", "function": {"name": "stop_all"}},
         {"type": "function", "function": {"name": "set", "parameters": {
             "type": "object", "properties": {"on": {"$ref": "#/$defs/t"}}, "required": ["on"], "$defs": {"t": {"type": "boolean"}}}}}]
SCHEMAS = {t["function"]["name"]: t["function"].get("parameters", {"type": "object", "maxProperties": 0}) for t in TOOLS}


def calls_of(stream):
    calls, finish = [], None
    for chunk in stream:
        for c in chunk.choices:
            finish = c.finish_reason or finish
            for d in c.delta.tool_calls or []:
                if d.index == len(calls):
                    assert d.id and d.type == "function"
                    calls.append([d.function.name, ""])
                else:
                    assert d.index == len(calls) - 1 and not d.id
                calls[-1][1] += d.function.arguments or ""
    return calls, finish


def test_required_tools(tiny):
    names = set()
    for seed in range(12):
        args = dict(model="", messages=MESSAGES, tools=TOOLS, tool_choice="required", temperature=1.5, max_tokens=400, seed=seed)
        whole = tiny.client().chat.completions.create(**args).choices[0]
        streamed, finish = calls_of(tiny.client().chat.completions.create(stream=True, **args))
        calls = [[c.function.name, c.function.arguments] for c in whole.message.tool_calls]
        assert streamed == calls and finish == whole.finish_reason and whole.message.content == ""
        assert whole.finish_reason in ("tool_calls", "length")
        for c in whole.message.tool_calls[:-1] if finish == "length" else whole.message.tool_calls:
            jsonschema.validate(json.loads(c.function.arguments), SCHEMAS[c.function.name])
            assert re.fullmatch("chatcmpl-tool-[0-9a-f]{32}", c.id)
            names.add(c.function.name)
    assert len(names) > 1


def test_named_tool(tiny):
    for name, schema in SCHEMAS.items():
        args = dict(model="", messages=MESSAGES, tools=TOOLS, tool_choice={"type": "function", "function": {"name": name}},
                    temperature=1.5, max_tokens=400, seed=4)
        whole = tiny.client().chat.completions.create(**args).choices[0]
        call, = whole.message.tool_calls
        assert call.function.name == name and whole.finish_reason == "stop"
        jsonschema.validate(json.loads(call.function.arguments), schema)
        assert calls_of(tiny.client().chat.completions.create(stream=True, **args)) == ([[name, call.function.arguments]], "stop")


def test_tools_that_are_not_called(tiny):
    c = chat(tiny, tools=TOOLS, tool_choice="none", max_tokens=8)
    assert c.message.tool_calls is None and c.finish_reason in ("stop", "length")
    for bad in ({"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "auto"}, {"tool_choice": "required"}, {"tools": [], "tool_choice": "none"},
                {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}},
                {"tools": TOOLS + TOOLS[:1], "tool_choice": "required"}):
        with pytest.raises(openai.BadRequestError):
            chat(tiny, bad)
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        chat(tiny, {"guided_regex": "a"}, tools=TOOLS, tool_choice="required")


def test_compile_time_is_counted(tiny):
    def count(kind):
        return sum(float(line.rsplit(" ", 1)[1]) for line in tiny.get("/metrics").splitlines()
                   if line.startswith("weir_grammar_compile_seconds_count") and f'kind="{kind}"' in line)

    before = count("regex")
    for _ in range(2):  # the second time it is known to be good
        complete(tiny, {"guided_regex": "counted?"})
    assert count("regex") == before + 1
