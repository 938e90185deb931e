"""Hostile and odd requests on the base form: reliability.md J01 to J07 and P01 to P16, each followed by a good one.

A row is sent plain and streaming; a refusal must have the error body of api.md 3.1 with the status, `param` and words given.
Time is wall clock, or the router's processor time where the machine is so loaded that the former says nothing.
"""
import http.client
import itertools
import json
import os
import subprocess

import pytest

from conftest import BUILD, SLOW, TINY, wait_for

VOCAB = json.loads((TINY / "config.json").read_text())["vocab_size"]
CONTEXT = json.loads((TINY / "config.json").read_text())["max_position_embeddings"]
C, H, T, D = "/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"
TYPES = {400: "BadRequestError", 404: "NotFoundError"}
MEBI = 1 << 20
USER = {"role": "user", "content": "a"}
BASE = {C: {"prompt": "a", "max_tokens": 1}, H: {"messages": [USER], "max_tokens": 1}, T: {"prompt": "a"}, D: {"tokens": [5]}}


class Api:
    def __init__(self, server):
        self.server = server
        self.conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60 * SLOW)

    def cpu_s(self):
        with open(f"/proc/{self.server.proc.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, path, body, within_s=1.0):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        wall, cpu = os.times().elapsed, self.cpu_s()
        self.conn.request("POST", path, data, {"Content-Type": "application/json"})
        response = self.conn.getresponse()
        text = response.read()
        took = min(os.times().elapsed - wall, self.cpu_s() - cpu + 0.05)
        assert took < within_s * SLOW, f"{path} {data[:80]}: {took:.2f} s"
        assert response.status < 500, (data[:200], text[:400])
        return response, text

    def good(self):
        response, text = self.send(C, {"prompt": "a", "max_tokens": 1}, 5)
        assert response.status == 200 and json.loads(text)["usage"]["completion_tokens"] == 1

    def expect(self, path, body, status, param=None, words="", within_s=1.0):
        response, text = self.send(path, body, within_s)
        shown = (path, str(body)[:200], text[:400])
        assert response.status == status, shown
        if status != 200:
            check_error(response, text, status, param, words, shown)
        self.good()
        return response, text


def check_error(response, text, status, param, words, shown):
    assert response.getheader("content-type") == "application/json", shown
    body = json.loads(text)
    assert list(body) == ["error"] and list(body["error"]) == ["message", "type", "param", "code"], shown
    error = body["error"]
    assert error["code"] == status and error["type"] == TYPES[status], shown
    assert error["param"] == param and words in error["message"], shown


@pytest.fixture(scope="module")
def api(tiny):
    a = Api(tiny)
    yield a
    a.conn.close()


# ---- J: the body ---------------------------------------------------------------------------------------------------------

DECODE = "JSON decode error"
GOOD = b'"prompt":"a","max_tokens":1}'
MALFORMED = [
    # structure and literals, as the n_ files of JSONTestSuite have them
    b"", b" ", b"{", b"[", b"}", b"]", b"{]", b"[}", b"[1", b"[1,", b"[1,]", b"[,1]", b"[1 2]", b"[1,,2]", b"[\"a\"", b"[\"a", b"[\"",
    b"{\"a\"", b"{\"a\":", b"{\"a\":1", b"{\"a\":1,", b"{\"a\":1,}", b"{,\"a\":1}", b"{\"a\" 1}", b"{\"a\"::1}", b"{\"a\",1}", b"{a:1}",
    b"{1:1}", b"{'a':1}", b"{\"a\":1}}", b"{\"a\":1}x", b"{\"a\":1}{}", b"{\"a\":1}#", b"{\"a\":1}//", b"{\"a\":/*x*/1}", b"{null:1}",
    b"[nul]", b"[nulll]", b"[tru]", b"[True]", b"[TRUE]", b"[fals]", b"[undefined]", b"nan", b"[NaN]", b"[-NaN]", b"[Infinity]",
    b"[-Infinity]", b"[Inf]", b"<a/>", b"\x00", b"{\"a\":1}\x00", b"\x00{\"a\":1}", b"[\x0c]", b"[\xc2\xa0]", b"[\xe2\x81\xa0]",
    # numbers
    b"[01]", b"[-01]", b"[00]", b"[-]", b"[+1]", b"[++1]", b"[--1]", b"[.5]", b"[-.5]", b"[1.]", b"[1.e1]", b"[1e]", b"[1e+]", b"[1e-]",
    b"[1eE2]", b"[1.5.5]", b"[0x10]", b"[1_000]", b"[1a]", b"[\xef\xbc\x91]", b"[1e400]", b"[-1e400]", b"[" + b"9" * 400 + b"]",
    b"{\"ignored\":1e400," + GOOD,
    # strings
    b"[\"\\x\"]", b"[\"\\\"]", b"[\"\\u\"]", b"[\"\\u12\"]", b"[\"\\u12G4\"]", b"[\"\\ud800\"]", b"[\"\\udc00\"]", b"[\"\\ud800\\n\"]",
    b"[\"\\ud800\\u0041\"]", b"[\"\\udbff\\ud800\"]", b"[\"\n\"]", b"[\"\t\"]", b"[\"\x00\"]", b"[\"\x1f\"]", b"['a']", b"[\"\xff\"]",
    b"[\"\xc0\xaf\"]", b"[\"\xe0\x80\x80\"]", b"[\"\xf0\x80\x80\x80\"]", b"[\"\xed\xa0\x80\"]", b"[\"\xf4\x90\x80\x80\"]", b"[\"\xf8\x88\"]",
    b"[\"\xe2\x82\"]", b"[\"\x80\"]", b"\xff\xfe{\x00}\x00", b"\xfe\xff\x00{\x00}", b"\xef\xbb", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf{}",
    # "\u0000" in a key has no place to go
    b"{\"a\\u0000b\":1," + GOOD,
]


@pytest.mark.parametrize("path", [C, H, T, D])
def test_malformed_json(api, path):
    for body in MALFORMED if path == C else MALFORMED[::7]:
        api.expect(path, body, 400, None, DECODE)


@pytest.mark.parametrize("path", [C, H, T, D])
def test_no_object(api, path):
    for body in [b"null", b"[]", b"\"x\"", b"1", b"-0", b"true", b"1.5", b"[{}]", b" [] "]:
        api.expect(path, body, 400, None, "object")


def nested(open_, close, n):
    return b"{\"x\":" + open_ * n + b"1" + close * n + b"," + GOOD


def test_depth_and_size(api):
    for open_, close in [(b"[", b"]"), (b"{\"a\":", b"}")]:
        api.expect(C, nested(open_, close, 63), 200)
        for n in [64, 2048]:
            api.expect(C, nested(open_, close, n), 400, None, "64 levels (--max-json-depth)")
        api.expect(C, open_ * 10**6, 400, None, "64 levels (--max-json-depth)")
    api.expect(C, b"{\"x\":[" + b"1," * (1 << 20) + b"1]," + GOOD, 400, None, "1048576 values (--max-json-nodes)")
    # Ignored, all of them: api.md 2.3.4.
    api.expect(C, b"{" + b"".join(b"\"k%d\":0," % i for i in range(131000)) + GOOD, 200)
    api.expect(C, b"{\"x\":{" + b"".join(b"\"k%d\":0," % i for i in range(10**6)) + b"\"k\":0}," + GOOD, 400, None, "131072 keys (--max-json-keys)")
    api.expect(C, b"{" + b"\"k\":0," * 100000 + GOOD, 200)
    api.expect(C, b"{\"" + b"k" * MEBI + b"\":0," + GOOD, 200)


def test_legal_oddities(api):
    for body in [b"\xef\xbb\xbf{" + GOOD, b" \t\r\n{" + GOOD + b"\r\n ", b"{\"x\":-0,\"y\":1E+2,\"z\":1e-400," + GOOD,
                 b"{\"x\":123456789012345678901234567890," + GOOD, b"{\"\":0," + GOOD,
                 b"{\"prompt\":\"\\u0000\\uffff\\ud83d\\ude00\",\"max_tokens\":1}", b"{\"prompt\":\"\xef\xbf\xbf\",\"max_tokens\":1}",
                 b"{\"prompt\":5,\"n\":0,\"n\":1," + GOOD, b"{\"model\":\"nope\",\"model\":null," + GOOD]:
        api.expect(C, body, 200)
    api.expect(C, b"{\"mod\\u0065l\":\"nope\"," + GOOD, 404, "model", "does not exist")
    api.expect(C, b"{\"model\":null,\"mod\\u0065l\":\"nope\"," + GOOD, 404, "model", "does not exist")


# ---- J06: every field, every kind of value ------------------------------------------------------------------------------------

RAW = {"null": "null", "empty": '""', "0": "0", "-1": "-1", "1e308": "1e308", "2^63": "9223372036854775808",
       "2^64": "18446744073709551616", "true": "true", "list": "[]", "object": "{}", "1.5": "1.5", "text": '"x"', "NaN": '"NaN"',
       "Infinity": '"-Infinity"', "nested": "[[1]]", "of null": "[null]"}
# What is legal beside null; every other value above must be refused. "" is the default model.
INT, FLOAT, BOOL, TEXT, ANY = {"true"}, {"true"}, {"0", "true"}, {"text", "NaN", "Infinity"}, set(RAW)
GENERATE = {
    "model": {"empty"}, "n": INT, "temperature": FLOAT | {"0", "1.5"}, "top_p": FLOAT, "top_k": INT | {"0", "-1"}, "min_p": FLOAT | {"0"},
    "presence_penalty": FLOAT | {"0", "-1", "1.5"}, "frequency_penalty": FLOAT | {"0", "-1", "1.5"},
    "repetition_penalty": FLOAT | {"1.5", "1e308", "2^63", "2^64"}, "logit_bias": {"object"}, "seed": INT | {"0", "-1"},
    "stop": TEXT | {"list"}, "stop_token_ids": {"list"}, "include_stop_str_in_output": BOOL, "ignore_eos": BOOL, "min_tokens": INT | {"0"},
    "skip_special_tokens": BOOL, "spaces_between_special_tokens": BOOL, "return_tokens_as_token_ids": BOOL, "stream_options": {"object"},
    "add_special_tokens": BOOL, "priority": {"0"}, "request_id": TEXT, "cache_salt": TEXT, "kv_transfer_params": {"object"},
    "max_tokens": INT, "user": ANY, "metadata": ANY, "store": ANY, "service_tier": ANY, "prediction": ANY, "no_such_field": ANY,
    "response_format": set(), "guided_json": {"object"}, "guided_regex": TEXT | {"empty"}, "guided_choice": set(), "guided_grammar": set(),
    "structural_tag": set(), "guided_decoding_backend": set(), "guided_whitespace_pattern": TEXT | {"empty"}, "structured_outputs": set(),
    "best_of": INT, "use_beam_search": BOOL, "length_penalty": FLOAT | {"0", "-1", "1.5", "1e308", "2^63", "2^64"},
    "allowed_token_ids": set(), "bad_words": {"list"}, "truncate_prompt_tokens": INT | {"-1"}, "truncation_side": set(),
    "prompt_logprobs": INT | {"0"}, "echo": BOOL, "vllm_xargs": {"object"}, "logits_processors": {"list"},
}
FIELDS = {
    C: {**GENERATE, "logprobs": INT | {"0"}, "stream": BOOL, "prompt": TEXT | {"nested"}, "prompt_embeds": set(), "suffix": set()},
    H: {**GENERATE, "logprobs": BOOL, "top_logprobs": {"0"}, "stream": BOOL, "max_completion_tokens": INT, "messages": set(), "tools": set(),
        "tool_choice": set(), "parallel_tool_calls": BOOL, "reasoning_effort": set(), "include_reasoning": BOOL,
        "add_generation_prompt": BOOL, "continue_final_message": BOOL, "documents": {"list"}, "chat_template": TEXT,
        "chat_template_kwargs": {"object"}, "mm_processor_kwargs": {"object"}, "functions": set(), "function_call": set(),
        "modalities": set(), "audio": set(), "web_search_options": set()},
    T: {"model": {"empty"}, "prompt": {"empty"} | TEXT, "add_special_tokens": BOOL, "return_token_strs": BOOL},
    D: {"model": {"empty"}, "tokens": {"list"}},
}
REQUIRED = {"prompt", "messages", "tokens"}


@pytest.mark.parametrize("path", [C, H, T, D])
def test_every_field_every_value(api, path):
    for (field, legal), (kind, value) in itertools.product(FIELDS[path].items(), RAW.items()):
        body = {k: v for k, v in BASE[path].items() if k != field}
        text = (json.dumps(body)[:-1] + ("," if body else "") + f'"{field}":{value}}}').encode()
        response, answer = api.send(path, text)
        accepted = kind in legal or (kind == "null" and field not in REQUIRED)
        shown = (path, field, value, answer[:300])
        if accepted:
            assert response.status == 200, shown
            continue
        status = 404 if field == "model" and kind in TEXT else 400
        assert response.status == status, shown
        param = json.loads(answer)["error"]["param"]
        assert param and param.split(".")[0] == field, shown
        check_error(response, answer, status, param, "", shown)
        if kind == "nested":
            api.good()
    api.good()


def test_a_field_that_is_too_long(api):
    long = "x" * MEBI
    for path, field, status in [(C, "model", 404), (C, "stop", 400), (C, "cache_salt", 400), (C, "request_id", 400), (H, "model", 404),
                                (H, "reasoning_effort", 400), (H, "cache_salt", 400), (H, "stop", 400), (H, "tool_choice", 400),
                                (C, "temperature", 400), (C, "n", 400), (C, "stream", 400), (T, "model", 404), (D, "tokens", 400)]:
        _, text = api.expect(path, {**BASE[path], field: long}, status, field)
        assert len(text) < 1000
    api.expect(C, {**BASE[C], "logit_bias": {long: 1}}, 400, "logit_bias", "no token id")
    api.expect(C, {**BASE[C], "user": long, "metadata": {long: long}}, 200)
    api.expect(H, {**BASE[H], "chat_template_kwargs": {"x": long}}, 200)


# ---- P: parameters -------------------------------------------------------------------------------------------------------------

WARM = {"temperature": 1}
ROWS = [
    # P01
    (C, {"n": 0}, 400, "n", "greater_than_equal 1"),
    (C, {"n": -1}, 400, "n", "greater_than_equal"),
    (C, {"n": 129}, 400, "n", "less_than_equal 128 (--max-n)"),
    (C, {"n": 10**9}, 400, "n", "less_than_equal"),
    (C, {"n": 1.5}, 400, "n", "integer"),
    (C, {"n": "3", **WARM}, 200, None, ""),
    (C, {"n": "3.0", **WARM}, 200, None, ""),
    (C, {"n": 128, **WARM}, 200, None, ""),
    (C, {"best_of": 129, **WARM}, 400, "best_of", "less_than_equal 128 (--max-n)"),
    (C, {"n": 2, "best_of": 1}, 400, "best_of", ""),
    (C, {"n": 2, "best_of": 2, **WARM}, 200, None, ""),
    (C, {"n": 128, "prompt": ["a"] * 33, **WARM}, 400, "n", "less_than_equal 4096 (--max-sequences)"),
    (C, {"n": 2, "temperature": 0}, 400, "n", "n must be 1 when using greedy sampling"),
    (H, {"n": 2, "temperature": 9e-6}, 400, "n", "n must be 1 when using greedy sampling"),
    (H, {"n": 2, "temperature": 1e-5}, 200, None, ""),
    # P02
    (C, {"max_tokens": 0}, 400, "max_tokens", "greater_than_equal 1"),
    (C, {"max_tokens": -1}, 400, "max_tokens", "greater_than_equal 0"),
    (C, {"max_tokens": 2**31}, 400, "max_tokens", "maximum context length"),
    (C, {"max_tokens": 2**32 + 1}, 400, "max_tokens", "maximum context length"),
    (C, {"max_tokens": 2**63 - 1}, 400, "max_tokens", "maximum context length"),
    (C, {"max_tokens": 2**63}, 400, "max_tokens", "less_than_equal"),
    (C, {"max_tokens": CONTEXT}, 400, "max_tokens", "maximum context length"),
    (C, {"prompt": [5] * (CONTEXT - 1), "max_tokens": 2}, 400, "max_tokens", "maximum context length"),
    (C, {"prompt": [5] * CONTEXT, "max_tokens": 1}, 400, "prompt", "maximum context length"),
    (C, {"prompt": [[5], [5] * CONTEXT]}, 400, "prompt", "maximum context length"),
    (H, {"max_tokens": 10**6, "max_completion_tokens": 1}, 200, None, ""),
    (H, {"max_completion_tokens": 10**6}, 400, "max_completion_tokens", "maximum context length"),
    (H, {"max_tokens": 0, "max_completion_tokens": 1}, 400, "max_tokens", "greater_than_equal 1"),
    (H, {"max_completion_tokens": None}, 200, None, ""),
    # P03
    (C, {"temperature": -0.1}, 400, "temperature", "greater_than_equal 0"),
    (C, {"temperature": 2.1}, 400, "temperature", "less_than_equal 2"),
    (C, {"temperature": 1e-300, "logprobs": 1}, 200, None, ""),
    (C, {"temperature": "NaN"}, 400, "temperature", "finite"),
    (C, {"temperature": "1e400"}, 400, "temperature", "finite"),
    (C, {"temperature": "0.5"}, 200, None, ""),
    (C, {"top_p": 0}, 400, "top_p", "greater_than 0"),
    (C, {"top_p": 1.1}, 400, "top_p", "less_than_equal 1"),
    (C, {"top_p": 1e-308}, 200, None, ""),
    (C, {"top_k": -2}, 400, "top_k", "greater_than_equal -1"),
    (C, {"top_k": 2**62}, 200, None, ""),
    (C, {"min_p": 2}, 400, "min_p", "less_than_equal 1"),
    (C, {"min_p": -0.5}, 400, "min_p", "greater_than_equal 0"),
    (C, {"presence_penalty": 2.1}, 400, "presence_penalty", "less_than_equal 2"),
    (C, {"presence_penalty": -2.1}, 400, "presence_penalty", "greater_than_equal -2"),
    (C, {"frequency_penalty": 2.1}, 400, "frequency_penalty", ""),
    (C, {"frequency_penalty": -2.1}, 400, "frequency_penalty", ""),
    (C, {"repetition_penalty": 0}, 400, "repetition_penalty", "greater_than 0"),
    (C, {"repetition_penalty": -1}, 400, "repetition_penalty", "greater_than 0"),
    (C, {"repetition_penalty": 1e-308, "logprobs": 1}, 200, None, ""),
    (C, {"repetition_penalty": 1e308, "logprobs": 1}, 200, None, ""),
    # P04
    (C, {"logprobs": 21}, 400, "logprobs", "less_than_equal 20 (--max-logprobs)"),
    (C, {"logprobs": -1}, 400, "logprobs", "greater_than_equal 0"),
    (C, {"logprobs": 20}, 200, None, ""),
    (H, {"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", "less_than_equal 20 (--max-logprobs)"),
    (H, {"top_logprobs": 1}, 400, "top_logprobs", "logprobs"),
    (H, {"logprobs": False, "top_logprobs": 1}, 400, "top_logprobs", "logprobs"),
    (H, {"top_logprobs": 0}, 200, None, ""),
    (H, {"logprobs": 5}, 400, "logprobs", "boolean"),
    # P05
    (C, {"logit_bias": {"abc": 1}}, 400, "logit_bias", "no token id"),
    (C, {"logit_bias": {"1.0": 1}}, 400, "logit_bias", "no token id"),
    (C, {"logit_bias": {"-1": 1}}, 400, "logit_bias", "out of vocabulary"),
    (C, {"logit_bias": {str(VOCAB): 1}}, 400, "logit_bias", "out of vocabulary"),
    (C, {"logit_bias": {"9" * 30: 1}}, 400, "logit_bias", ""),
    (C, {"logit_bias": {str(i): 1 for i in range(4097)}}, 400, "logit_bias", "less_than_equal 4096 (--max-logit-bias)"),
    (C, {"logit_bias": {"5": 101}}, 200, None, ""),
    (C, {"logit_bias": {"5": -1e308}}, 200, None, ""),
    (C, {"logit_bias": {"5": "NaN"}}, 400, "logit_bias.5", "finite"),
    (C, {"logit_bias": {"5": None}}, 400, "logit_bias.5", "null"),
    (C, {"logit_bias": {str(i): -100 for i in range(VOCAB)}, "logprobs": 1}, 200, None, ""),
    # P06
    (C, {"stop": ["a"] * 17}, 400, "stop", "less_than_equal 16 (--max-stop-strings)"),
    (C, {"stop": ["a"] * 10**5}, 400, "stop", "--max-stop-strings"),
    (C, {"stop": ""}, 400, "stop", "empty"),
    (C, {"stop": ["a", ""]}, 400, "stop.1", "empty"),
    (C, {"stop": "x" * 1024}, 200, None, ""),
    (C, {"stop": ["x" * 1025]}, 400, "stop.0", "less_than_equal 1024 (--max-stop-bytes)"),
    (C, {"stop": ["\0", "\uffff", "\U0001f600"]}, 200, None, ""),
    (C, {"stop_token_ids": list(range(257))}, 400, "stop_token_ids", "less_than_equal 256 (--max-stop-token-ids)"),
    (C, {"stop_token_ids": [VOCAB]}, 400, "stop_token_ids.0", "out of vocabulary"),
    (C, {"stop_token_ids": [5, -1]}, 400, "stop_token_ids.1", "out of vocabulary"),
    (C, {"min_tokens": 2}, 400, "min_tokens", "less_than_equal 1"),
    (C, {"min_tokens": 1, "stop": "a", "ignore_eos": True}, 200, None, ""),
    # P07
    (C, {"seed": 2**63}, 400, "seed", "less_than_equal 9223372036854775807"),
    (C, {"seed": 2**63 - 1}, 200, None, ""),
    (C, {"seed": -2**63}, 200, None, ""),
    (C, {"seed": -2**63 - 1}, 400, "seed", ""),
    (C, {"seed": 1.5}, 400, "seed", "integer"),
    (C, {"seed": -1}, 200, None, ""),
    # P08
    (C, {"prompt": ""}, 400, "prompt", "decoder prompt cannot be empty"),
    (C, {"prompt": []}, 400, "prompt", "decoder prompt cannot be empty"),
    (C, {"prompt": [[]]}, 400, "prompt.0", "decoder prompt cannot be empty"),
    (C, {"prompt": [""]}, 400, "prompt.0", "decoder prompt cannot be empty"),
    (C, {"prompt": [1]}, 200, None, ""),
    (C, {"prompt": [1.0]}, 200, None, ""),
    (C, {"prompt": [-1]}, 400, "prompt.0", "out of vocabulary"),
    (C, {"prompt": [VOCAB]}, 400, "prompt.0", "out of vocabulary"),
    (C, {"prompt": [1, 2**31]}, 400, "prompt.1", "out of vocabulary"),
    (C, {"prompt": [[1], [2**32 + 1]]}, 400, "prompt.1.0", "out of vocabulary"),
    (C, {"prompt": [1e308]}, 400, "prompt.0", ""),
    (C, {"prompt": [1, "a"]}, 400, "prompt.1", "integer"),
    (C, {"prompt": ["a", 1]}, 400, "prompt.1", "string"),
    (C, {"prompt": ["a", None]}, 400, "prompt.1", "null"),
    (C, {"prompt": [[1], "a"]}, 400, "prompt.1", "list"),
    (C, {"prompt": [[1], [[1]]]}, 400, "prompt.1.0", "integer"),
    (C, {"prompt": ["a"] * 10**5}, 400, "prompt", "less_than_equal 1024 (--max-prompts)"),
    (C, {"prompt": [5] * 10**5}, 400, "prompt", "maximum context length"),
    (C, {"prompt": "<|end|><|begin_of_text|>"}, 200, None, ""),
    # P09
    (H, {"messages": [{}]}, 400, "messages.0.role", ""),
    (H, {"messages": [None]}, 400, "messages.0", "object"),
    (H, {"messages": [USER, 5]}, 400, "messages.1", "object"),
    (H, {"messages": [{"role": "martian", "content": "a"}]}, 400, "messages", "chat template"),
    (H, {"messages": [{"role": 5, "content": "a"}]}, 400, "messages.0.role", "string"),
    (H, {"messages": [{"role": "", "content": "a"}]}, 400, "messages.0.role", "non-empty"),
    (H, {"messages": [{"role": "user"}]}, 400, "messages.0.content", "required"),
    (H, {"messages": [{"role": "user", "content": None}]}, 200, None, ""),
    (H, {"messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content", "integer"),
    (H, {"messages": [{"role": "user", "content": []}]}, 200, None, ""),
    (H, {"messages": [{"role": "user", "content": [5]}]}, 400, "messages.0.content.0", ""),
    (H, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages.0.content.0.text", "required"),
    (H, {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
     400, "messages.0.content.0", "unknown type"),
    (H, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
     400, "messages.0.content.0", "image"),
    (H, {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:,"}}]}]},
     400, "messages.0.content.0", "not supported"),
    (H, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
     400, "messages.0.tool_calls.0.function.arguments", DECODE),
    (H, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}]},
     400, "messages.0.tool_calls.0.function.arguments", ""),
    (H, {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}]},
     400, "messages.0.tool_calls.0.function.name", ""),
    (H, {"messages": [{"role": "tool", "content": "a"}]}, 400, "messages", "chat template"),
    (H, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 10**5}]},
     400, "messages", "maximum context length"),
    (H, {"messages": [USER] * 10**4}, 400, "messages", "less_than_equal 8192 (--max-messages)"),
    (H, {"documents": [5]}, 400, "documents.0", "object"),
    # P11
    (C, {"model": "nope"}, 404, "model", "does not exist"),
    (C, {"model": ""}, 200, None, ""),
    (C, {"model": "../../etc/passwd"}, 404, "model", "does not exist"),
    (H, {"model": "a\r\nb\x1b[31m\0"}, 404, "model", "does not exist"),
    (T, {"model": "nope"}, 404, "model", "does not exist"),
    (D, {"model": "nope"}, 404, "model", "does not exist"),
    # a range comes before the model's name, the name before what needs the model
    (C, {"model": "nope", "n": 0}, 400, "n", ""),
    (C, {"model": "nope", "stop_token_ids": [VOCAB]}, 404, "model", ""),
    (C, {"model": "nope", "max_tokens": 10**9}, 404, "model", ""),
    # P12
    (C, {"stream_options": {"include_usage": True}}, 400, "stream_options", "stream"),
    (C, {"stream_options": {"include_usage": None}}, 400, "stream_options", "stream"),
    (C, {"stream_options": {}}, 200, None, ""),
    (C, {"stream": "true", "stream_options": {"include_usage": None}}, 200, None, ""),
    (C, {"stream": True, "stream_options": {"include_usage": "perhaps"}},
     400, "stream_options.include_usage", "boolean"),
    (C, {"stream": True, "stream_options": {"continuous_usage_stats": []}},
     400, "stream_options.continuous_usage_stats", "boolean"),
    # P13
    (C, {"n_discard": -1, "best-of": 5, "__proto__": {}}, 200, None, ""),
    (C, {"prompt_embeds": "AAAA"}, 400, "prompt_embeds", "prompt_embeds is not supported"),
    (C, {"suffix": "a"}, 400, "suffix", "suffix is not currently supported"),
    (H, {"chat_template": "{{ 1 }}"}, 200, None, ""),
    (H, {"chat_template": "{{ 1 "}, 400, "chat_template", "(line 1)"),
    (H, {"chat_template": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"},
     400, "chat_template", "budget"),
    (H, {"continue_final_message": True, "add_generation_prompt": True}, 400, "continue_final_message", "exclude"),
    (C, {"kv_transfer_params": {"do_remote_decode": True}}, 200, None, ""),
    (C, {"best_of": 2, "stream": True, **WARM}, 400, "best_of", "best_of"),
    (H, {"functions": []}, 400, "functions", "use tools"),
    (H, {"tool_choice": "auto"}, 400, "tool_choice", "--enable-auto-tool-choice and --tool-call-parser"),
    (H, {"modalities": ["text", "audio"]}, 400, "modalities", "audio output is not supported"),
    (H, {"modalities": ["text"]}, 200, None, ""),
    (H, {"response_format": {"type": "json_object"}}, 200, None, ""),
    (H, {"response_format": {"type": "xml"}}, 400, "response_format.type", "must be one of"),
    (H, {"response_format": {"type": "text"}}, 200, None, ""),
    (C, {"priority": 1}, 400, "priority", "priority"),
    (C, {"priority": 2**40}, 400, "priority", "less_than_equal"),
    # P14
    (H, {"chat_template_kwargs": {"tokenize": True}}, 400, "chat_template_kwargs", "tokenize"),
    (H, {"chat_template_kwargs": {"messages": []}}, 400, "chat_template_kwargs", "messages"),
    (H, {"chat_template_kwargs": {"continue_final_message": None}},
     400, "chat_template_kwargs", "continue_final_message"),
    (H, {"chat_template_kwargs": {"bos_token": "<|end|>"}}, 200, None, ""),
    (H, {"chat_template_kwargs": {str(i): i for i in range(257)}}, 400, "chat_template_kwargs", "less_than_equal 256"),
    # P15, P16
    (C, {"request_id": "a" * 129}, 400, "request_id", ""),
    (C, {"request_id": "a\r\nb"}, 400, "request_id", ""),
    (C, {"request_id": "a b"}, 400, "request_id", ""),
    (C, {"request_id": "é"}, 400, "request_id", ""),
    (C, {"request_id": "a\"\\"}, 200, None, ""),
    (C, {"user": "a\r\nb: c"}, 200, None, ""),
    (C, {"cache_salt": ""}, 400, "cache_salt", ""),
    (C, {"cache_salt": 5}, 400, "cache_salt", "string"),
    (C, {"cache_salt": "x" * 257}, 400, "cache_salt", "256"),
    (C, {"cache_salt": "\0"}, 200, None, ""),
    # 14
    (T, {"prompt": ""}, 200, None, ""),
    (T, {"prompt": ["a"]}, 400, "prompt", "string"),
    (T, {"messages": [USER]}, 400, "prompt", "exclude"),
    (T, {"prompt": None}, 400, "prompt", "required"),
    (T, {"tools": []}, 400, "tools", "tools"),
    (D, {"tokens": []}, 200, None, ""),
    (D, {"tokens": [-1]}, 400, "tokens.0", "out of vocabulary"),
    (D, {"tokens": [5, 2**40]}, 400, "tokens.1", "out of vocabulary"),
    (D, {"tokens": [None]}, 400, "tokens.0", "null"),
    (D, {"tokens": ["x"]}, 400, "tokens.0", "integer"),
]


@pytest.mark.parametrize("streaming", [False, True])
def test_parameters(api, streaming):
    for path, change, status, param, words in ROWS:
        if streaming and (path in (T, D) or "stream" in change or "stream_options" in change):
            continue
        body = {**BASE[path], **change, **({"stream": True} if streaming else {})}
        response, text = api.expect(path, body, status, param, words)
        if streaming and status == 200:
            assert response.getheader("content-type").startswith("text/event-stream"), change
            assert text.endswith(b"data: [DONE]\n\n") and b"\"error\"" not in text, change
            assert all(line.startswith(b"data: ") for line in text.split(b"\n\n")[:-1])
        elif status == 200:
            assert b"NaN" not in text and b"Infinity" not in text and b"\"error\"" not in text, change


@pytest.mark.parametrize("times", [3, 100])
def test_bad_requests_in_a_row(api, times):
    for path, change, status, param, words in [ROWS[0], ROWS[20], (C, {"prompt": []}, 400, "prompt", "empty")]:
        for _ in range(times):
            response, text = api.send(path, {**BASE[path], **change})
            check_error(response, text, status, param, words, change)
    api.good()


LONG = [("a", 4), (" ", 4), ("👨‍👩‍👧", 1), ("a\u0301\u0323", 1), ("\\n", 2), ("<|end|>", 1), ("9", 2), ("日", 2)]


@pytest.mark.parametrize("what,mebi", LONG)
@pytest.mark.slow_sanitized
def test_long_prompts(api, what, mebi):
    """P10: the tokenizer is linear, so that a few MiB tell what 30 do."""
    text = what.encode() * (mebi * MEBI // len(what.encode()))
    api.expect(C, b'{"max_tokens":1,"prompt":"' + text + b'"}', 400, "prompt", "maximum context length", 5)


@pytest.mark.parametrize("flag,most", [("--max-n", 128), ("--max-stop-token-ids", 512), ("--max-logit-bias", 4096)])
def test_limits_end_at_what_a_worker_takes(flag, most):
    args = [BUILD / "weir", "serve", TINY, "--port", "0", flag, str(most + 1)]
    done = subprocess.run(args, capture_output=True, text=True, timeout=30 * SLOW)
    assert done.returncode == 2 and flag in done.stderr and str(most) in done.stderr, done


def test_nothing_is_left_behind(api, tiny):
    """Gauges are the worker's last report, so they may be a moment late."""
    api.good()
    for gauge in ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"]:
        wait_for(lambda name=gauge: tiny.metric(name) == 0, what=gauge)
    assert len(tiny.worker_pids()) == 1 and json.loads(tiny.get("/load"))["server_load"] == 0
    assert "check failed" not in tiny.output() and "restart" not in tiny.output()
