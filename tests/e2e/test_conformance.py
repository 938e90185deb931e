"""Every field of every JSON route: absent, null, each legal kind, each bound and one beyond, each wrong kind (api.md 2.3, 3.5).

The table here says what the specification says; /openapi.json says what the server's own table says. Both must name the same
fields with the same bounds, words and defaults, and the server must do as they say: status, `param` and the words of the
message, plain and streaming, each refusal followed by a good request on the same connection. What the server accepts must be
valid by its schema, and what it answers, too. A field that the document calls refused must be refused by name.

TEST_SCALE below 10 sends a seeded sample.
"""
import http.client
import json
import random

import jsonschema
import pytest
from conftest import ROOT, SCALE, SLOW, TINY, Server
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

C, H, T, D = "/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"
E, P, L, S, R = "/v1/embeddings", "/pooling", "/classify", "/score", "/rerank"
ALL = [C, H, T, D, E, P, L, S, R]
GENERATE, INPUT, PAIRS = [C, H], [E, P, L], [S, R]
POOL = INPUT + PAIRS
POOLED = ROOT / "tests/golden/pooling"
VOCAB = json.loads((TINY / "config.json").read_text())["vocab_size"]
CONTEXT = json.loads((TINY / "config.json").read_text())["max_position_embeddings"]
TYPES = {400: "BadRequestError", 404: "NotFoundError"}
USER = {"role": "user", "content": "a"}
BASE = {C: {"prompt": "a", "max_tokens": 1}, H: {"messages": [USER], "max_tokens": 1}, T: {"prompt": "a"}, D: {"tokens": [5]},
        E: {"input": "a"}, P: {"input": "a"}, L: {"input": "a"}, S: {"text_1": "a", "text_2": "b"},
        R: {"query": "a", "documents": ["b", "c"]}}
INT_MAX, INT_MIN = 2**63 - 1, -2**63
WARM = {"temperature": 1}
UNSET = object()  # the field is left out of the body, whatever the base has


class Row:
    """A field: kind, bounds, words, default; values beyond what its kind brings: good ones, and bad ones with param and words.
    also: "own": these alone, without the neighbours of the bounds; "never": the specification refuses the field."""

    def __init__(self, kind, default=None, lo=None, hi=None, above=False, flag=None, words=None, required=False, good=(), bad=(),
                 given=None, also=None, most=None, effect=None, absent=(200, "")):
        self.kind, self.default, self.lo, self.hi, self.above, self.flag = kind, default, lo, hi, above, flag
        self.words, self.required, self.good, self.bad = words, required, list(good), list(bad)
        self.given, self.also, self.effect = given or {}, also, effect
        self.absent = absent  # status and words without the field
        self.most = most  # the largest that is legal here, where that is below what the field alone may be


def wrong(kind):
    """Values that no coercion makes one of this kind, and what the message says instead."""
    other = {"list": [[], [1]], "object": [{}, {"a": 1}], "number": [5, -1.5], "bool": [True, False], "text": ["x", ""]}
    takes = {"int": [], "float": [], "bool": [], "str": ["text"], "list": ["list"], "object": ["object"], "any": list(other)}[kind]
    if kind == "int":
        return [5.5, "5.5", "", "x", " 5", "0x5", "1e", [], {}, [5], {"a": 5}]
    if kind == "float":
        return ["", "x", "NaN", "Infinity", "-Infinity", "1e400", " 1", "1.", [], {}, [1]]
    if kind == "bool":
        return [2, -1, 0.5, "", "x", "2", "truee", " true", [], {}, [True]]
    return [v for k, values in other.items() if k not in takes for v in values]


def legal(row):
    """Values of the kind within the bounds, in every spelling."""
    if row.kind == "int":
        lo = row.lo if row.lo is not None else INT_MIN
        hi = row.most or (row.hi if row.hi is not None else INT_MAX)
        some = [v for v in {lo, lo + 1, hi, hi - 1, 1} if lo <= v <= hi]
        return some + [s for v in some if abs(v) < 2**53 for s in (str(v), float(v), f"{v}.0")] + ([True] if lo <= 1 <= hi else []) + \
            ([False] if lo <= 0 <= hi else [])
    if row.kind == "float":
        lo = row.lo if row.lo is not None else -1e3
        hi = row.hi if row.hi is not None else 1e3
        some = [v for v in (lo, hi, (lo + hi) / 2, lo + 1e-3) if lo < v <= hi or (v == lo and not row.above)]
        return some + [str(v) for v in some] + ([1, "1e0", True] if lo <= 1 <= hi else []) + ([0, False] if lo <= 0 and not row.above else [])
    if row.kind == "bool":
        return [True, False, 0, 1, 1.0, "true", "TRUE", "t", "Yes", "y", "ON", "1", "false", "F", "no", "N", "off", "0"]
    if row.kind == "str" and row.words:
        return list(row.words)
    return {"str": [], "list": [], "object": [], "any": []}[row.kind]


def beyond(row):
    """The neighbours of the bounds outside, with the words of the message."""
    step = 1 if row.kind == "int" else 1e-6
    out = []
    if row.kind not in ("int", "float"):
        return [(v, None, "must be one of") for v in ("nowhere", "", (row.words or ["x"])[0].upper() + " ")] if row.words else []
    if row.lo is not None:
        low, word = (row.lo, "greater_than ") if row.above else (row.lo - step, "greater_than_equal ")
        out += [(v, None, f"{word}{row.lo:.17g}") for v in (low, str(low), -1e18 if row.kind == "float" else -10**18)]
    if row.hi is not None:
        word = f"less_than_equal {row.hi:.17g}"
        out += [(v, None, word) for v in (row.hi + step, str(row.hi + step), 10**18 if row.kind == "int" else 1e18)]
    if row.kind == "int":
        out += [(v, None, "greater_than_equal" if negative else "less_than_equal")
                for v, negative in ((2**63, False), (-2**63 - 1, True), (str(2**64), False), (1e300, False))]
    return out


def usage(answer):
    return answer["usage"]["completion_tokens"]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}
MESSAGES_BAD = [
    ([], None, ""), ([5], "messages.0", "object"), ([None], "messages.0", "object"), ([USER, "x"], "messages.1", "object"),
    ([{}], "messages.0.role", "non-empty"), ([{"role": "", "content": "a"}], "messages.0.role", "non-empty"),
    ([{"role": 5, "content": "a"}], "messages.0.role", "string"), ([{"role": None, "content": "a"}], "messages.0.role", ""),
    ([{"role": "user"}], "messages.0.content", "required"), ([{"role": "user", "content": 5}], "messages.0.content", "integer"),
    ([{"role": "user", "content": {}}], "messages.0.content", "object"), ([{"role": "user", "content": [5]}], "messages.0.content.0", ""),
    ([{"role": "user", "content": [{}]}], "messages.0.content.0", "type"),
    ([{"role": "user", "content": [{"type": 5}]}], "messages.0.content.0", "type"),
    ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0.text", "required"),
    ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages.0.content.0.text", "string"),
    ([{"role": "user", "content": ["a", {"type": "refusal", "text": "a"}]}], "messages.0.content.1.refusal", "required"),
    ([{"role": "user", "content": [{"type": "thinking", "thinking": []}]}], "messages.0.content.0.thinking", "string"),
    ([{"role": "user", "content": [{"type": "hologram"}]}], "messages.0.content.0", "unknown type"),
    ([{"role": "assistant", "tool_calls": 5}], "messages.0.tool_calls", "list"),
    ([{"role": "assistant", "tool_calls": []}], "messages.0.content", "required"),
    ([{"role": "assistant", "tool_calls": [5]}], "messages.0.tool_calls.0", "object"),
    ([{"role": "assistant", "tool_calls": [{}]}], "messages.0.tool_calls.0.function", "required"),
    ([{"role": "assistant", "tool_calls": [{"function": {}}]}], "messages.0.tool_calls.0.function.name", "non-empty"),
    ([{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}], "messages.0.tool_calls.0.function.name", "string"),
    ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}],
     "messages.0.tool_calls.0.function.arguments", "JSON"),
    ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}],
     "messages.0.tool_calls.0.function.arguments", "object"),
    ([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
     "messages.0.tool_calls.0.function.arguments", "JSON decode error"),
]
MESSAGES_GOOD = [[USER] * 2, [{"role": "user", "content": None}], [{"role": "user", "content": []}],
                 [{"role": "system", "content": "a"}, {"role": "user", "content": ["a", {"type": "text", "text": "b"}, {"text": "c"}]}],
                 [{"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "refusal", "refusal": "b"}]}],
                 [USER, {"role": "assistant", "content": "b", "tool_calls": None}, {"role": "user", "content": "c", "name": "d"}]]
TOOLS_BAD = [
    ([], None, "empty"), ([5], "tools.0", "object"), ([None], "tools.0", "object"), ([{}], "tools.0.function", "function"),
    ([{"type": "function"}], "tools.0.function", ""), ([{"type": "x", "function": {"name": "f"}}], "tools.0.type", "function"),
    ([{"type": "function", "function": {}}], "tools.0.function.name", ""),
    ([{"type": "function", "function": {"name": ""}}], "tools.0.function.name", ""),
    ([{"type": "function", "function": {"name": "a b"}}], "tools.0.function.name", ""),
    ([{"type": "function", "function": {"name": "a" * 65}}], "tools.0.function.name", "64"),
    ([{"type": "function", "function": {"name": "f", "description": 5}}], "tools.0.function.description", "string"),
    ([{"type": "function", "function": {"name": "f", "parameters": 5}}], "tools.0.function.parameters", "object"),
    ([TOOL, TOOL], None, "two functions"),
    ([{"type": "function", "function": {"name": f"f{i}"}} for i in range(257)], None, "less_than_equal 256 (--max-tools)"),
]
IDS_BAD = [([-1], "0", "out of vocabulary"), ([5, VOCAB], "1", "out of vocabulary"), ([2**40], "0", "out of vocabulary"),
           ([5, 1.5], "1", "integer"), (["x"], "0", "integer"), ([None], "0", "null"), ([[5]], "0", "integer"), ([5, {}], "1", "integer")]
PROMPT_BAD = [("", None, "prompt cannot be empty"), ([], None, "prompt cannot be empty"), ([""], "0", "prompt cannot be empty"),
              ([[]], "0", "prompt cannot be empty"), (["a", ""], "1", "prompt cannot be empty"), ([[5], []], "1", "prompt cannot be empty"),
              (5, None, "string"), (True, None, "string"), ({}, None, "string"), ([None], "0", ""), ([True], "0", ""), ([{}], "0", ""),
              ([5, "a"], "1", "integer"), (["a", 5], "1", "string"), ([[5], "a"], "1", "list"), ([[5], 5], "1", "list"),
              ([[5], ["a"]], "1.0", "integer"), ([1.5], "0", ""), ([-1], "0", "out of vocabulary"),
              ([2**31], "0", "out of vocabulary"), ([[5], [2**40]], "1.0", "out of vocabulary")]
PROMPT_GOOD = ["a b", [5, 6], [5.0], ["a", "b"], [[5], [6, 7]], "\0", "é\U0001f600"]
TEXT_BAD = [("", None, "empty"), (5, None, "text"), (True, None, "text"), ({}, None, "text"), ({"text": 5}, None, "text"),
            ({"content": []}, None, "text"), ({"content": [{"type": "image_url"}]}, None, "text"), ({"text": ""}, None, "empty")]
TEXT_GOOD = ["b c", {"text": "b"}, {"content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]}]
TEXTS_BAD = TEXT_BAD + [([], None, "empty"), ([""], "0", "empty"), ([5], "0", "text"), ([["a"]], "0", "text"), ([None], "0", "text")]
KWARGS = dict(good=[{}, {"x": [1, {"y": None}]}],
              bad=[({"messages": []}, None, "messages"), ({"chat_template": ""}, None, "chat_template"), ({"tokenize": True}, None, "tokenize"),
                   ({"continue_final_message": None}, None, "continue_final_message"),
                   ({str(i): i for i in range(257)}, None, "less_than_equal 256")])
SALT = dict(good=["x" * 256, "\0", "é"], bad=[("", None, "256"), ("x" * 257, None, "256"), ("é" * 129, None, "256")])
ID = dict(good=["a", "!~" * 64], bad=[("", None, "128"), ("a" * 129, None, "128"), ("a b", None, "visible"), ("é", None, "visible"),
                                      ("a\r\nb", None, "visible")])
OUT_OF_VOCABULARY = "out of vocabulary"


def schema_bad(name):
    return [(v, None, name) for v in ("", "{", "[]", "5", {"type": 5}, {"type": "strin"}, {"not": {}})]


def generation(chat):
    """api.md 5.1, 5.4, 9.1."""
    logprobs = dict(lo=0, hi=20, flag="--max-logprobs")
    rows = {
        "model": Row("str", good=[""], bad=[("nope", None, "does not exist"), ("../../etc/passwd", None, "does not exist")]),
        # Of completions 0 is legal with echo.
        "max_tokens": Row("int", None if chat else 16, lo=1 if chat else 0, most=20, given={} if chat else {"echo": True}, bad=[(CONTEXT, None, "maximum context length"), (2**40, None, "maximum context")],
                          effect=lambda v, a: usage(a) <= int(float(v))),
        "n": Row("int", 1, lo=1, hi=128, flag="--max-n", given=WARM, effect=lambda v, a: len(a["choices"]) == int(float(v))),
        "best_of": Row("int", UNSET, lo=1, hi=128, flag="--max-n", given=WARM),
        "use_beam_search": Row("bool", False),
        "length_penalty": Row("float", 1.0),
        "temperature": Row("float", lo=0, hi=2, good=[1e-300, 1e-6]),
        "top_p": Row("float", lo=0, hi=1, above=True, good=[1e-308]),
        "top_k": Row("int", lo=-1, good=[0, 2**40]),
        "min_p": Row("float", lo=0, hi=1),
        "presence_penalty": Row("float", 0, lo=-2, hi=2),
        "frequency_penalty": Row("float", 0, lo=-2, hi=2),
        "repetition_penalty": Row("float", lo=0, above=True, good=[1e-300, 1e300]),
        "logit_bias": Row("object", good=[{}, {"5": 1}, {"5": "1.5", "6": True}, {"5": -1e300}],
                          bad=[({"x": 1}, None, "no token id"), ({"1.0": 1}, None, "no token id"), ({"": 1}, None, "no token id"),
                               ({"-1": 1}, None, OUT_OF_VOCABULARY), ({str(VOCAB): 1}, None, OUT_OF_VOCABULARY),
                               ({"5": "x"}, "5", "finite"), ({"5": None}, "5", "null"), ({"5": []}, "5", "number"),
                               ({str(i): 0 for i in range(4097)}, None, "less_than_equal 4096 (--max-logit-bias)")]),
        "allowed_token_ids": Row("list", good=[[5], [5, 6.0, "7"]], bad=[([], None, "")] + IDS_BAD),
        "bad_words": Row("list", [], good=[[], ["a", "b c"]], bad=[([""], "0", ""), ([5], "0", "string"), ([None], "0", "null"),
                                                                  (["a"] * 129, None, "128 (--max-bad-words)")]),
        "seed": Row("int", good=[-1, 0]),
        "stop": Row("any", [], good=["x", [], ["x", "y"], ["\0"], "x" * 1024],
                    bad=[("", None, "empty"), ([""], "0", "empty"), ([5], "0", "string"), ([None], "0", "null"), (5, None, "string"),
                         (True, None, "string"), ({}, None, "string"), (["a"] * 17, None, "16 (--max-stop-strings)"),
                         ("x" * 1025, None, "1024 (--max-stop-bytes)"), (["x", "x" * 1025], "1", "1024 (--max-stop-bytes)")]),
        "stop_token_ids": Row("list", [], good=[[], [5], [5, "6", 7.0]],
                              bad=IDS_BAD + [([5] * 257, None, "256 (--max-stop-token-ids)")]),
        "include_stop_str_in_output": Row("bool", False),
        "ignore_eos": Row("bool", False),
        "min_tokens": Row("int", 0, lo=0, hi=4, given={"max_tokens": 4}, effect=lambda v, a: usage(a) >= int(float(v))),
        "skip_special_tokens": Row("bool", True),
        "spaces_between_special_tokens": Row("bool", True),
        "truncate_prompt_tokens": Row("int", good=[-1, 1, 5], bad=[(0, None, ""), (-2, None, ""), (CONTEXT + 1, None, "select a smaller")],
                                      also="own"),
        "truncation_side": Row("str", "left", words=["left", "right"]),
        "prompt_logprobs": Row("int", **logprobs),
        "return_tokens_as_token_ids": Row("bool"),
        "stream": Row("bool", False),
        "stream_options": Row("object", given={"stream": True}, good=[{}, {"include_usage": True}, {"include_usage": None}, {"x": 1},
                                                                      {"include_usage": "on", "continuous_usage_stats": 1}],
                              bad=[({"include_usage": "x"}, "include_usage", "boolean"), ({"include_usage": []}, "include_usage", "boolean"),
                                   ({"continuous_usage_stats": 5}, "continuous_usage_stats", "boolean")]),
        "echo": Row("bool", False),
        "add_special_tokens": Row("bool", not chat),
        "priority": Row("int", 0, lo=-2**31, hi=2**31 - 1),
        "request_id": Row("str", **ID),
        "cache_salt": Row("str", **SALT),
        "kv_transfer_params": Row("object", good=[{}, {"do_remote_decode": True}, {"do_remote_prefill": False}]),
        "vllm_xargs": Row("object", UNSET, good=[{}, {"a": "b", "c": [1, 2.5], "d": 1}],
                          bad=[({str(i): 1 for i in range(65)}, None, "64"), ({"a": {}}, "a", ""), ({"a": None}, "a", "")], also="own"),
        "logits_processors": Row("list", UNSET, good=[[]], bad=[(["x"], "*", ""), ([5], "*", "")], also="own"),
        "response_format": Row("object", {"type": "text"},
                               good=[{"type": "text"}, {"type": "json_object"},
                                     {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}],
                               bad=[({}, "type", "must be one of"), ({"type": "yaml"}, "type", "must be one of"), ({"type": 5}, "type", "string"),
                                    ({"type": "json_schema"}, "json_schema", "missing"),
                                    ({"type": "json_schema", "json_schema": 5}, "json_schema", "object"),
                                    ({"type": "json_schema", "json_schema": {"schema": {}}}, "json_schema.name", "missing"),
                                    ({"type": "json_schema", "json_schema": {"name": "a"}}, "json_schema.schema", ""),
                                    ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": 5}}}, "json_schema.schema", "type")]),
        "guided_json": Row("any", good=[{"type": "object"}, '{"type":"integer"}', {}],
                           bad=schema_bad("guided_json") + [(5, None, "object"), ([], None, "object"), (True, None, "object")]),
        "guided_regex": Row("str", good=["a+", "[0-9]{2}"], bad=[("(", None, "guided_regex"), ("a{2,1}", None, "guided_regex"),
                                                               ("(?=a)", None, "guided_regex")]),
        "guided_choice": Row("list", good=[["a"], ["a", "b"]], bad=[([], None, "empty"), ([5], "0", "string"), ([None], "0", "string"),
                                                                  (["a", "a"], None, "twice")]),
        "guided_grammar": Row("str", good=['root ::= "a" | "b"'], bad=[("", None, "guided_grammar"), ("root ::= x", None, "guided_grammar"),
                                                                      ("root ::= (", None, "guided_grammar")]),
        "structural_tag": Row("any", good=[{"type": "structural_tag", "format": {"type": "any_text"}}],
                              bad=[({}, None, "structural_tag"), ("", None, "structural_tag"), (5, None, "object"), ([], None, "object")]),
        "guided_decoding_backend": Row("str", "auto", words=["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"]),
        "guided_whitespace_pattern": Row("str", given={"guided_json": {"type": "object"}}, good=[" ?", "[ \\n]*"]),
        "structured_outputs": Row("object", good=[{"json": {"type": "object"}}, {"regex": "a"}, {"choice": ["a"]}, {"json_object": True},
                                                  {"json": {"type": "object"}, "regex": None, "disable_any_whitespace": 1,
                                                   "disable_fallback": True}],
                                  bad=[({}, None, "one of"), ({"x": 1}, None, "not known"), ({"json": 5}, "json", "object"),
                                       ({"regex": 5}, "regex", "string"), ({"choice": []}, "choice", ""), ({"json_object": "x"}, "json_object", "boolean"),
                                       ({"json_object": False}, None, "one of"), ({"regex": "a", "choice": ["a"]}, "*", "together"),
                                       ({"regex": "a", "disable_any_whitespace": "x"}, "disable_any_whitespace", "boolean")]),
    }
    for name in ("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prediction", "verbosity"):
        rows[name] = Row("any", good=["x", 5, True, {}, {"a": [1]}, []])
    return rows


def never(says, neutral=None):
    """Known keys that are refused (api.md 2.4)."""
    values = ["x", "", 5, True, [], {}]
    return Row("any", neutral, good=[] if neutral is None else [neutral], bad=[(v, None, says) for v in values if v != neutral], also="never")


def completions():
    rows = generation(False)
    rows.update({
        "prompt": Row("any", required=True, good=PROMPT_GOOD,
                      bad=PROMPT_BAD + [(["a"] * 1025, None, "1024 (--max-prompts)"), ([5] * CONTEXT, None, "maximum context length")]),
        "logprobs": Row("int", lo=0, hi=20, flag="--max-logprobs",
                        effect=lambda v, a: len(a["choices"][0]["logprobs"]["token_logprobs"]) == usage(a)),
        "prompt_embeds": never("prompt_embeds is not supported"),
        "suffix": never("suffix is not currently supported"),
    })
    return rows


def chat():
    rows = generation(True)
    rows.update({
        "messages": Row("list", required=True, good=MESSAGES_GOOD, bad=MESSAGES_BAD + [([USER] * 8193, None, "8192 (--max-messages)")]),
        "max_completion_tokens": Row("int", lo=1, most=20, bad=[(CONTEXT, None, "maximum context length")], effect=lambda v, a: usage(a) <= int(float(v))),
        "logprobs": Row("bool", False),
        "top_logprobs": Row("int", 0, lo=0, hi=20, flag="--max-logprobs", given={"logprobs": True},
                            effect=lambda v, a: all(len(t["top_logprobs"]) == int(float(v)) for t in a["choices"][0]["logprobs"]["content"])),
        "tools": Row("list", given={"tool_choice": "none"}, good=[[TOOL], [{"type": "function", "function": {"name": "f", "parameters": None}}]],
                     bad=TOOLS_BAD),
        "tool_choice": Row("any", "none", given={"tools": [TOOL], "max_tokens": 8}, absent=(400, "--enable-auto-tool-choice and --tool-call-parser"), good=["none", "required", {"type": "function", "function": {"name": "f"}}],
                           bad=[("auto", None, "--enable-auto-tool-choice and --tool-call-parser"),
                                ("x", None, "tool_choice"), ("", None, "tool_choice"), (5, None, "string or an object"), (True, None, "string or an object"),
                                ([], None, "string or an object"), ({}, None, "tool_choice"), ({"type": "x"}, None, "tool_choice"),
                                ({"type": "function"}, None, "tool_choice"), ({"type": 5, "function": {"name": "f"}}, "type", "string"),
                                ({"type": "function", "function": {"name": "g"}}, "function.name", "no tool"),
                                ({"type": "function", "function": {}}, "function.name", "no tool"),
                                ({"type": "function", "function": {"name": 5}}, "function.name", "string")]),
        "parallel_tool_calls": Row("bool", UNSET),
        "reasoning_effort": Row("str", words=["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
        "include_reasoning": Row("bool", True),
        "add_generation_prompt": Row("bool", True),
        "continue_final_message": Row("bool", False, given={"messages": [USER, {"role": "assistant", "content": "b"}]}),
        "documents": Row("list", good=[[], [{}], [{"text": "a"}]], bad=[([5], "0", "object"), ([None], "0", "object"), ([{}, "x"], "1", "object")]),
        "chat_template": Row("str", good=["{{ messages[0].content }}x"], bad=[("{% if %}", None, ""), ("{{ raise_exception('no') }}", None, "")], also="own"),
        "chat_template_kwargs": Row("object", **KWARGS),
        "mm_processor_kwargs": Row("object", UNSET, good=[{}], bad=[({"a": 1}, "*", "")], also="own"),
        "functions": never("use tools"), "function_call": never("use tools", "none"),
        "modalities": never("audio output is not supported", ["text"]), "audio": never("audio output is not supported"),
        "web_search_options": never("not supported"),
    })
    return rows


def tokenizer_routes():
    shared = chat()
    keep = ("model", "tools", "continue_final_message", "chat_template", "chat_template_kwargs", "mm_processor_kwargs", "documents",
            "reasoning_effort")
    rows = {name: shared[name] for name in keep}
    for name in keep[1:]:
        rows[name].given = {"prompt": UNSET, "messages": [USER, {"role": "assistant", "content": "b"}]}
    conversation = {"prompt": UNSET, "messages": [USER]}
    rows["messages"] = Row("list", given={"prompt": UNSET}, good=MESSAGES_GOOD, bad=MESSAGES_BAD)
    rows["add_generation_prompt"] = Row("bool", True, given=conversation)
    rows["prompt"] = Row("str", good=["", "a", "\0", "é"], effect=lambda v, a: a["count"] == len(a["tokens"]))
    rows["add_special_tokens"] = Row("bool", True)
    rows["return_token_strs"] = Row("bool", False, effect=lambda v, a: a["token_strs"] is None or len(a["token_strs"]) == a["count"])
    return rows, {"model": shared["model"], "tokens": Row("list", required=True, good=[[], [5], [5.0, "6"]], bad=IDS_BAD)}


def pooling(route):
    """api.md 12."""
    rows = {name: generation(False)[name] for name in ("model", "priority", "request_id", "cache_salt", "user", "store", "metadata",
            "service_tier", "safety_identifier", "prompt_cache_key", "prediction", "verbosity")}
    rows.update({
        "add_special_tokens": Row("bool"),
        "truncate_prompt_tokens": Row("int", lo=-1, hi=None, good=[-1, 1, 5], bad=[(0, None, "greater_than_equal 1"), (10**6, None, "select a smaller truncation size")],
                                      also="own"),
        "truncation_side": Row("str", "right", words=["left", "right"]),
        "use_activation": Row("bool"),
        "mm_processor_kwargs": Row("object", UNSET, good=[{}], bad=[({"a": 1}, "*", "")], also="own"),
        "normalize": never("use_activation"),
    })
    if route in (E, P):
        rows["encoding_format"] = Row("str", "float", words=["float", "base64"])
    else:
        rows["encoding_format"] = Row("str", good=["float", "x", ""])
    if route in INPUT:
        shared = chat()
        conversation = {"input": UNSET, "messages": [USER, {"role": "assistant", "content": "b"}]}
        rows["input"] = Row("any", good=PROMPT_GOOD, bad=[(v, p, w) for v, p, w in PROMPT_BAD] + [(["a"] * 2049, None, "2048 (--max-inputs)")],
                            effect=lambda v, a: len(a["data"]) == (len(v) if isinstance(v, list) and not isinstance(v[0], (int, float)) else 1))
        rows["messages"] = Row("list", given={"input": UNSET}, good=MESSAGES_GOOD, bad=MESSAGES_BAD)
        for name in ("continue_final_message", "chat_template", "chat_template_kwargs"):
            rows[name] = shared[name]
            rows[name].given = conversation
        rows["add_generation_prompt"] = Row("bool", False, given=conversation)
    if route == E:
        rows["dimensions"] = Row("int", lo=1, hi=2**31 - 1, also="own", good=[32], bad=[(33, None, "dimensions"), (5, None, "dimensions")])
    if route == P:
        rows["dimensions"] = never("dimensions")
        rows["task"] = Row("str", words=["embed", "classify", "token_embed", "token_classify"], also="own", good=["embed", "token_embed"],
                           bad=[("classify", None, "does not serve"), ("token_classify", None, "does not serve"), ("x", None, "must be one of")])
    if route == S:
        for left, right in (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")):
            for mine, twin in ((left, right), (right, left)):
                given = {"text_1": UNSET, "text_2": UNSET, twin: "a"}
                good = TEXT_GOOD + [["b"]] + ([["b", "c"]] if mine == right else [])
                rows[mine] = Row("any", given=given, good=good, bad=TEXTS_BAD)
    if route == R:
        rows["query"] = Row("any", required=True, good=TEXT_GOOD, bad=TEXT_BAD + [(["a"], None, "text")])
        rows["documents"] = Row("list", required=True, good=[["b"], ["b", {"text": "c"}]],
                                bad=[([], None, "empty"), ([""], "0", "empty"), ([5], "0", "text"), ([None], "0", "text")])
        rows["top_n"] = Row("int", 0, lo=0, effect=lambda v, a: len(a["results"]) == (min(2, int(float(v))) or 2))
        rows["return_documents"] = Row("bool", True)
        rows["max_tokens_per_doc"] = Row("int", lo=1)
    return rows


TOKENIZE, DETOKENIZE = tokenizer_routes()
TWINS = ("text_1", "text_2", "data_1", "data_2", "queries", "items", "documents")
TABLE = {C: completions(), H: chat(), T: TOKENIZE, D: DETOKENIZE, **{route: pooling(route) for route in POOL}}


# ---- the server and its document ------------------------------------------------------------------------------------------

class Api:
    def __init__(self, server):
        self.server = server
        self.conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60 * SLOW)
        self.doc = json.loads(server.get("/openapi.json"))
        resource = Resource(contents=self.doc, specification=DRAFT202012)
        self.registry = Registry().with_resource("urn:doc", resource)
        self.validators = {}
        self.sent = 0

    def valid(self, pointer, value):
        """The first reason why value is not what the schema at pointer says, or None."""
        if pointer not in self.validators:
            schema = {"$ref": "urn:doc#" + pointer}
            self.validators[pointer] = jsonschema.Draft202012Validator(schema, registry=self.registry)
        error = next(self.validators[pointer].iter_errors(value), None)
        return error and f"{error.json_path}: {error.message[:300]}"

    def body_schema(self, route):
        return operation(route) + "/requestBody/content/application~1json/schema"

    def fields(self, route):
        return self.doc["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]

    def send(self, route, body):
        self.conn.request("POST", route, json.dumps(body).encode(), {"Content-Type": "application/json"})
        response = self.conn.getresponse()
        self.sent += 1
        return response.status, response.getheader("content-type"), response.read()


def operation(route):
    return f"/paths/{route.replace('~', '~0').replace('/', '~1')}/post"


PRIORITY = ["--scheduling-policy", "priority"]
FLAGS = ["--chat-template", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}x: {% endif %}"]


@pytest.fixture(scope="module")
def apis():
    """Servers: of text, of embeddings, of classes; `priority`: of text with priority scheduling."""
    text = Server()
    running = {"text": text, "priority": Server(*PRIORITY),
               "embed": Server(*FLAGS, *PRIORITY, model=POOLED / "llama-embed"), "classes": Server(*FLAGS, *PRIORITY, model=POOLED / "bert-labels")}
    yield {name: Api(server) for name, server in running.items()}
    for server in running.values():
        server.stop()


def home(route):
    return "text" if route in (C, H, T, D) else "classes" if route == L else "embed"


# ---- the two tables -------------------------------------------------------------------------------------------------------

def refused(schema):
    return schema.get("x-weir-refused", False)


@pytest.mark.parametrize("route", ALL)
def test_the_document_says_what_the_table_says(apis, route):
    schema = apis[home(route)].fields(route)
    own, theirs = TABLE[route], schema["properties"]
    assert set(own) == set(theirs)
    assert set(schema["required"]) == {name for name, row in own.items() if row.required}
    for name, row in own.items():
        said = theirs[name]
        if row.default is not UNSET and not row.required:
            assert said["default"] == row.default, name
        if refused(said):
            continue
        if row.words:
            assert said["enum"] == [*row.words, None], name
        if row.kind in ("int", "float") and row.also is None:
            low = "exclusiveMinimum" if row.above else "minimum"
            assert said.get(low) == row.lo or (name == "min_tokens" and row.lo == 0), name
            assert said.get("maximum") == row.hi or name in ("min_tokens", "repetition_penalty"), name
        if row.flag:
            assert row.flag in said["description"], name


def test_every_schema_is_one(apis):
    for api in apis.values():
        for name, schema in api.doc["components"]["schemas"].items():
            jsonschema.Draft202012Validator.check_schema(schema)
        for route in ALL:
            jsonschema.Draft202012Validator.check_schema(api.fields(route))


# ---- the requests ---------------------------------------------------------------------------------------------------------

def body_of(route, name, row, value):
    body = {**BASE[route], **row.given}
    body[name] = value
    return {k: v for k, v in body.items() if v is not UNSET}


def dotted(name, param):
    """The path of what is wrong; NAME.* is any path into the field."""
    return name if param is None else param if param.startswith(name) else f"{name}.{param}"


def alone(route, name):
    """Whether the body has nothing without the field: one of several that a request must have one of."""
    return name in ("input", "prompt", "messages") or route == S and name in TWINS


def told(row, name, value):
    """Whether the schema can say that value is none of the field's (2.3.6): not what a number in a string is, nor int64."""
    if isinstance(value, str):
        return row.kind not in ("int", "float") or not value or value[0] not in "0123456789-"
    return name != "min_tokens" and (not isinstance(value, (int, float)) or abs(value) < 2**63)


def cases_of(route):
    """(field, body, status, param, words, effect, told): told: the schema must refuse it, too."""
    for name, row in TABLE[route].items():
        for value in (UNSET, None):
            body = body_of(route, name, row, value)
            if row.required:
                yield name, body, 400, name, "required", None, True
            elif not alone(route, name):
                yield name, body, row.absent[0], name, row.absent[1], None, False
        for value in row.good + (legal(row) if row.also is None else []):
            yield name, body_of(route, name, row, value), 200, None, "", row.effect and (lambda a, v=value, e=row.effect: e(v, a)), False
        if row.kind != "any":
            for value in wrong(row.kind):
                status = 404 if name == "model" and isinstance(value, str) else 400
                yield name, body_of(route, name, row, value), status, name, "", None, told(row, name, value)
        for value, _, words in beyond(row) if row.also is None else []:
            yield name, body_of(route, name, row, value), 400, name, words, None, told(row, name, value)
        for value, param, words in row.bad:
            status = 404 if name == "model" else 400
            yield name, body_of(route, name, row, value), status, dotted(name, param), words, None, False


def certainly_not_neutral(said, name, value):
    """Of a refused field: whether no coercion makes value what the build does anyway."""
    if isinstance(value, (list, dict)):
        return bool(value) and value != said["default"]
    return isinstance(value, (int, float)) and value not in (0, 1) and value != said.get("default")


def whole_only(name, value):
    """The param of the refusal when a legal value has no streamed answer; None: it has one."""
    on = str(value).lower() in ("true", "1", "1.0", "t", "yes", "y", "on")
    if name == "use_beam_search":
        return "stream" if on else None
    least = {"best_of": 1, "prompt_logprobs": 0}.get(name)
    return name if least is not None and value is not None and float(1 if on else value) > least else None


def all_cases(apis):
    """(server, route, field, body, status, param, words, effect, told): those of the table, as far as the build has the field."""
    for route in ALL:
        said = apis[home(route)].fields(route)["properties"]
        for name, body, status, param, words, effect, schema_too in cases_of(route):
            where = "priority" if name == "priority" and route in GENERATE else home(route)
            if refused(said[name]) and body.get(name) is not None and TABLE[route][name].also != "never":
                if status == 200 and not certainly_not_neutral(said[name], name, body[name]):
                    continue
                status, param, words, effect, schema_too = 400, name + ".*", "", None, False
            for stream in ((False, True) if route in GENERATE and name not in ("stream", "stream_options") else (False,)):
                if stream and status == 200 and (why := whole_only(name, body.get(name))):
                    yield where, route, name, {**body, "stream": True}, 400, why, "stream", None, False
                    continue
                yield where, route, name, {**body, "stream": True} if stream else body, status, param, words, effect, schema_too


GOOD = {"text": C, "priority": C, "embed": E, "classes": L}


def check_stream(api, route, text, shown):
    assert text.endswith(b"\n\ndata: [DONE]\n\n"), shown
    chunk = "/components/schemas/" + ("ChatCompletionChunk" if route == H else "CompletionChunk")
    for event in text.split(b"\n\n")[:-2]:
        assert event.startswith(b"data: "), shown
        assert (why := api.valid(chunk, json.loads(event[6:]))) is None, (why, shown)


def check(api, case):
    where, route, name, body, status, param, words, effect, schema_too = case
    got, kind, text = api.send(route, body)
    shown = (route, name, json.dumps(body)[:300], text[:500])
    assert got == status, shown
    documented = api.doc["paths"][route]["post"]["responses"]
    assert str(got) in documented, shown
    unlike = api.valid(api.body_schema(route), body)
    if got == 200:
        assert unlike is None, (unlike, shown)
    if got == 200 and kind.startswith("text/event-stream"):
        assert body.get("stream"), shown
        check_stream(api, route, text, shown)
        return
    assert kind == "application/json" and body.get("stream") is not True or got != 200, shown
    answer = json.loads(text)
    if got == 200:
        why = api.valid(operation(route) + "/responses/200/content/application~1json/schema", answer)
        assert why is None, (why, shown)
        assert not effect or effect(answer), shown
        return
    why = api.valid("/components/schemas/Error", answer)
    assert why is None, (why, shown)
    error = answer["error"]
    assert error["code"] == got and error["type"] == TYPES[got] and words in error["message"], shown
    assert error["param"] == param or param == name + ".*" and (error["param"] or "").split(".")[0] == name, (param, shown)
    assert unlike or not (schema_too or body.get(name) == []), ("the schema accepts it", shown)
    good = GOOD[where]
    got, _, text = api.send(good, BASE[good])
    assert got == 200, ("the good one after", shown, text[:300])


def test_every_field(apis):
    cases = list(all_cases(apis))
    n_refused = sum(case[4] != 200 for case in cases)
    assert len(cases) + n_refused >= 3000
    if SCALE < 10:
        dice = random.Random(1)
        dice.shuffle(cases)
        one_each = {case[1:3]: case for case in cases}.values()
        cases = [*one_each, *cases[:200]]
    failures = []
    for case in cases:
        try:
            check(apis[case[0]], case)
        except AssertionError as e:
            failures.append(str(e).split("\nassert")[0][:1500])
    assert not failures, f"{len(failures)} of {len(cases)}\n\n" + "\n\n".join(failures[:40])
    assert sum(api.sent for api in apis.values()) >= len(cases)
    print(f"{sum(api.sent for api in apis.values())} requests")


def test_nothing_is_left_behind(apis):
    for name, api in apis.items():
        assert json.loads(api.server.get("/load"))["server_load"] == 0
        assert "check failed" not in api.server.output() and "restart" not in api.server.output()
