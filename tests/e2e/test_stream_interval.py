"""--stream-interval through the whole path: fewer events, and the same answers (api.md 2.9.3, 6.3, 7.5)."""
import json

import pytest
from conftest import wait_for
from test_first_light import post

CHAT = {"messages": [{"role": "user", "content": "Tell me of the lantern."}]}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"place": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}}, "required": ["place", "n"]}}}
BODIES = [
    ("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 23, "ignore_eos": True, "logprobs": 3}),
    ("/v1/completions", {"prompt": ["The lantern", "A harbour"], "n": 2, "seed": 4, "temperature": 0.9, "max_tokens": 17, "echo": True}),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 20, "ignore_eos": True, "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 60, "tools": [TOOL], "tool_choice": "required"}),
    ("/v1/chat/completions", {**CHAT, "max_tokens": 20, "stop": ["e "]}),
]


def events(server, path, body):
    status, text = post(server, path, {"temperature": 0, **body, "stream": True, "stream_options": {"include_usage": True}})
    assert status == 200, text
    lines = [line[6:] for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(chunks):
    """By choice: texts and log-probabilities one behind the other, and how it ended."""
    out = {}
    for chunk in chunks:
        for c in chunk["choices"]:
            a = out.setdefault(c["index"], {"text": "", "arguments": "", "calls": [], "logprobs": {}, "end": None, "events": 0})
            assert a["end"] is None, "nothing follows a finish"
            delta = c.get("delta", {})
            a["text"] += c.get("text", "") + (delta.get("content") or "")
            a["events"] += "role" not in delta
            for call in delta.get("tool_calls", []):
                a["calls"] += [call["function"]["name"]] if "id" in call else []
                a["arguments"] += call["function"]["arguments"]
            for key, values in (c["logprobs"] or {}).items():
                a["logprobs"].setdefault(key, []).extend(values or [])
            a["end"] = (c["finish_reason"], c.get("stop_reason")) if c["finish_reason"] else None
    return out


@pytest.mark.parametrize("interval", [3, 1000])
def test_fewer_events_say_the_same(serve, tiny, interval):
    s = serve("--stream-interval", interval)
    for path, body in BODIES:
        plain, batched = events(tiny, path, body), events(s, path, body)
        want, got = joined(plain), joined(batched)
        assert plain[-1]["usage"] == batched[-1]["usage"]
        for index, a in want.items():
            n = a.pop("events")
            assert got[index].pop("events") == 1 + -(-(n - 1) // interval), (path, body)
            assert got[index] == a, (path, body)


def test_statistics_count_tokens(serve):
    s = serve("--stream-interval", 10)
    chunks = events(s, "/v1/completions", {"prompt": [5, 6], "max_tokens": 12, "ignore_eos": True})
    assert len(chunks) == 4  # 1, 10, 1 tokens, and the usage
    assert s.metric("vllm:inter_token_latency_seconds_count") == 11
    wait_for(lambda: s.metric("vllm:generation_tokens_total") == 12, 10, "the worker's count")
