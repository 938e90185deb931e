"""Every generation field end to end, through the official client and raw HTTP, against a forward pass in NumPy."""
import json
import math
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from conftest import BUILD, ROOT, TINY

sys.path.insert(0, str(ROOT / "tests/support"))
import llama_numpy  # noqa: E402
from llama_numpy import Llama, beam_search, greedy, log_softmax, ranked  # noqa: E402

PROMPT = "once there was a"
EOS = (1533, 1529)
MARGIN = 2e-4  # closer choices may go either way in float32
PLUGINS = [BUILD / "plugin/ban_list.so", BUILD / "plugin/repetition_breaker.so"]


@pytest.fixture(scope="module")
def model():
    return Llama(TINY)


@pytest.fixture(scope="module")
def server():
    from conftest import Server
    s = Server("--dtype", "float32", "--generation-config", "vllm", "--logits-processor-pattern", r"weir\.[a-z_]+",
               "--logits-processor-plugin", *PLUGINS)
    yield s
    s.stop()


def post(server, body, path="/v1/completions"):
    r = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(r, timeout=60) as x:
            return x.status, x.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def complete(server, **body):
    status, text = post(server, body)
    assert status == 200, text
    return json.loads(text)


def refused(server, path="/v1/completions", **body):
    status, text = post(server, body, path)
    assert status == 400, text
    return json.loads(text)["error"]


def events(server, path="/v1/completions", **body):
    status, text = post(server, {**body, "stream": True}, path)
    assert status == 200, text
    assert text.endswith("data: [DONE]\n\n")
    lines = [x[6:] for x in text.split("\n\n") if x]
    assert all(x.startswith("data: ") for x in text.split("\n\n") if x) and lines[-1] == "[DONE]"
    return [json.loads(x) for x in lines[:-1]]


def ids_of(choice):
    return [int(t.split(":")[1]) for t in choice["logprobs"]["tokens"]]


def tokens(server, **body):
    """The output ids of a request, by return_tokens_as_token_ids."""
    c = complete(server, **{"logprobs": 0, "return_tokens_as_token_ids": True, **body})
    return ids_of(c["choices"][0])


def close(a, b, eps=2e-3):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x is y is None or abs(x - y) < eps, (a, b)


# ---- what changes logits ------------------------------------------------------------------------------

@pytest.mark.parametrize("fields, reference", [
    ({}, {}),
    ({"logit_bias": {"300": 3.5, "41": -100}}, {"bias": {300: 3.5, 41: -100}}),
    ({"repetition_penalty": 1.7}, {"repetition": 1.7}),
    ({"frequency_penalty": 0.9, "presence_penalty": 0.6}, {"frequency": 0.9, "presence": 0.6}),
    ({"repetition_penalty": 1.2, "frequency_penalty": -0.5, "presence_penalty": 1.5, "logit_bias": {"77": 4}},
     {"repetition": 1.2, "frequency": -0.5, "presence": 1.5, "bias": {77: 4}}),
])
def test_penalties(server, model, fields, reference):
    prompt = model.encode(PROMPT)
    want, margin = greedy(model, prompt, 24, eos=EOS, **reference)
    assert margin > MARGIN
    assert tokens(server, prompt=PROMPT, temperature=0, max_tokens=24, **fields) == want


def test_allowed_token_ids(server, model):
    prompt, allowed = model.encode(PROMPT), [400, 17, 231, 900, 55]
    want, margin = greedy(model, prompt, 12, allowed=allowed)
    assert margin > MARGIN
    got = tokens(server, prompt=PROMPT, temperature=0, max_tokens=12, allowed_token_ids=allowed)
    assert got == want and set(got) <= set(allowed)
    many = tokens(server, prompt=PROMPT, temperature=2, seed=5, max_tokens=60, allowed_token_ids=allowed)
    assert set(many) == set(allowed)  # the end token is not listed: it does not come
    one = complete(server, prompt=PROMPT, temperature=1, max_tokens=5, allowed_token_ids=[EOS[1]])
    assert one["choices"][0]["finish_reason"] == "stop" and one["usage"]["completion_tokens"] == 1
    # min_tokens masks the only token there is
    e = refused(server, prompt=PROMPT, max_tokens=5, min_tokens=2, allowed_token_ids=[EOS[0]])
    assert "no token satisfies the constraints" in e["message"]


def test_bad_words(server, model):
    prompt = model.encode(PROMPT)
    plain, _ = greedy(model, prompt, 16, eos=EOS)
    # words of one, two and three tokens of what would have come
    words = [model.text(plain[i:j]) for i, j in ((0, 1), (2, 4), (5, 8))]
    forms = []
    for w in words:
        a, b = model.encode(w, special=False), model.encode(" " + w, special=False)
        forms.append(a)
        if b[0] != a[0] and len(a) == len(b):
            forms.append(b)
    want, margin = greedy(model, prompt, 16, eos=EOS, bad_words=forms)
    assert margin > MARGIN and want != plain
    assert tokens(server, prompt=PROMPT, temperature=0, max_tokens=16, bad_words=words) == want
    # a word of the prompt may go on: prompt tokens do not count
    assert tokens(server, prompt=PROMPT, temperature=0, max_tokens=16, bad_words=[PROMPT]) == plain
    # with min_tokens both bans hold
    both, margin = greedy(model, prompt, 16, eos=EOS, bad_words=forms, min_tokens=16)
    assert margin > MARGIN
    assert tokens(server, prompt=PROMPT, temperature=0, max_tokens=16, min_tokens=16, bad_words=words) == both


# ---- log-probabilities --------------------------------------------------------------------------------

def test_logprobs(server, model):
    """Both shapes against the reference, whatever changed the logits that were sampled from."""
    ids = model.encode(PROMPT)
    args = dict(max_tokens=8, temperature=1.3, seed=6, presence_penalty=1.5, logit_bias={"9": 5}, ignore_eos=True)
    x = complete(server, prompt=PROMPT, logprobs=3, return_tokens_as_token_ids=True, **args)["choices"][0]
    known = list(ids)
    for token, lp, top in zip(ids_of(x), x["logprobs"]["token_logprobs"], x["logprobs"]["top_logprobs"]):
        want = log_softmax(model.next(known))
        best = [int(i) for i in ranked(want)[:3]]
        assert abs(lp - want[token]) < 2e-3
        assert list(top) == [f"token_id:{i}" for i in best + ([] if token in best else [token])]
        for name, value in top.items():
            assert abs(value - want[int(name.split(":")[1])]) < 2e-3
        known.append(token)
    plain = complete(server, prompt=PROMPT, logprobs=3, **args)["choices"][0]
    assert "".join(plain["logprobs"]["tokens"]) == plain["text"]
    at = 0
    for piece, offset in zip(plain["logprobs"]["tokens"], plain["logprobs"]["text_offset"]):
        assert offset == at
        at += len(piece)
    client, name = server.client(), server.client().models.list().data[0].id
    c = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hi"}], logprobs=True, top_logprobs=2,
                                       max_tokens=6, seed=2, temperature=1, extra_body={"return_tokens_as_token_ids": True})
    prompt = model.encode("<|begin_of_text|><|user|>\nhi<|end|>\n<|assistant|>\n", special=False)
    text, known = b"", list(prompt)
    for entry in c.choices[0].logprobs.content:
        want = log_softmax(model.next(known))
        assert [t.token for t in entry.top_logprobs] == [f"token_id:{i}" for i in ranked(want)[:2]]
        token = int(entry.token.split(":")[1])
        assert abs(entry.logprob - want[token]) < 2e-3
        text += bytes(entry.bytes)
        known.append(token)
    ended = c.choices[0].finish_reason == "stop"
    assert text.decode(errors="replace") == c.choices[0].message.content + ("<|end|>" if ended else "")


# ---- truncation ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("k", [1, 2, 5, 400])
def test_truncation(server, model, k, side):
    text = "one two three four five six seven eight nine ten"
    plain = model.encode(text, special=False)
    body = plain[-(k - 1):] if side == "left" else plain[:k - 1]
    kept = [1528] + body if k > 1 else (plain[-1:] if side == "left" else [1528])
    want, _ = greedy(model, kept, 6)
    args = dict(temperature=0, max_tokens=6, ignore_eos=True, truncate_prompt_tokens=k, truncation_side=side,
                logprobs=0, return_tokens_as_token_ids=True)
    c = complete(server, prompt=text, **args)
    assert c["usage"]["prompt_tokens"] == len(kept) == min(k, len(plain) + 1)
    assert ids_of(c["choices"][0]) == want
    # ids are plain slices
    c = complete(server, prompt=plain, **args)
    kept = plain[-k:] if side == "left" else plain[:k]
    assert c["usage"]["prompt_tokens"] == len(kept)
    assert ids_of(c["choices"][0]) == greedy(model, kept, 6)[0]


def test_truncation_to_what_fits(server):
    long = [9] * 5000
    c = complete(server, prompt=long, max_tokens=48, truncate_prompt_tokens=-1, ignore_eos=True)
    assert c["usage"]["prompt_tokens"] == 2000 and c["usage"]["completion_tokens"] == 48
    assert complete(server, prompt=long, truncate_prompt_tokens=-1)["usage"]["prompt_tokens"] == 2047
    chat = {"messages": [{"role": "user", "content": "word " * 200}], "max_tokens": 1}
    status, text = post(server, {**chat, "truncate_prompt_tokens": 7}, "/v1/chat/completions")
    assert status == 200 and json.loads(text)["usage"]["prompt_tokens"] == 7
    assert "maximum context length" in refused(server, prompt=long, truncate_prompt_tokens=2048)["message"]
    e = refused(server, prompt=long, truncate_prompt_tokens=2049)
    assert e["param"] == "truncate_prompt_tokens" and "select a smaller truncation size" in e["message"]


# ---- echo and the prompt's log-probabilities ----------------------------------------------------------

def reference_prompt(model, ids):
    lp = log_softmax(model.logits(ids).astype("float64"))
    order = [ranked(row) for row in lp]
    actual = [None] + [lp[i - 1][ids[i]] for i in range(1, len(ids))]
    ranks = [None] + [int((order[i - 1] == ids[i]).argmax()) + 1 for i in range(1, len(ids))]
    return lp, order, actual, ranks


def test_prompt_logprobs(server, model):
    text = "the river ran under the old bridge and on"
    ids = model.encode(text)
    lp, order, actual, ranks = reference_prompt(model, ids)
    for again in range(2):  # the second time the prefix is cached, which shortens nothing
        c = complete(server, prompt=text, max_tokens=1, prompt_logprobs=3)
        got = c["choices"][0]["prompt_logprobs"]
        assert len(got) == len(ids) and got[0] is None
        for i in range(1, len(ids)):
            want = [int(t) for t in order[i - 1][:3]]
            assert list(got[i])[:3] == [str(t) for t in want]
            assert set(got[i]) == {str(t) for t in want} | {str(ids[i])}
            assert got[i][str(ids[i])]["rank"] == ranks[i]
            for t, x in got[i].items():
                assert abs(x["logprob"] - lp[i - 1][int(t)]) < 2e-3
                assert x["decoded_token"] == model.text([int(t)], special=True)
    only = complete(server, prompt=text, max_tokens=1, prompt_logprobs=0)["choices"][0]["prompt_logprobs"]
    assert [list(x) for x in only[1:]] == [[str(i)] for i in ids[1:]]
    named = complete(server, prompt=text, max_tokens=1, prompt_logprobs=0, return_tokens_as_token_ids=True)
    assert list(named["choices"][0]["prompt_logprobs"][1]) == [f"token_id:{ids[1]}"]
    status, chat = post(server, {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1,
                                 "prompt_logprobs": 1}, "/v1/chat/completions")
    chat = json.loads(chat)
    assert len(chat["prompt_logprobs"]) == chat["usage"]["prompt_tokens"]
    assert "prompt_logprobs" not in chat["choices"][0]


def test_echo_alone(server, model):
    ids = model.encode(PROMPT)
    _, _, actual, _ = reference_prompt(model, ids)
    c = complete(server, prompt=PROMPT, max_tokens=0, echo=True, logprobs=2)
    x = c["choices"][0]
    assert x["text"] == PROMPT and x["finish_reason"] == "length" and x["stop_reason"] is None
    assert c["usage"]["completion_tokens"] == 0 and c["usage"]["prompt_tokens"] == len(ids)
    lp = x["logprobs"]
    assert lp["tokens"] == [model.text([i], special=True) for i in ids]
    close(lp["token_logprobs"], actual)
    assert lp["top_logprobs"][0] is None and all(2 <= len(m) <= 3 for m in lp["top_logprobs"][1:])
    assert len(x["prompt_logprobs"]) == len(ids)  # defaults to logprobs
    # offsets: where each token's text begins; the token in front is not of the text
    at, want = 0, [0]
    for i in ids[1:]:
        want.append(at)
        at += len(model.text([i], special=True))
    assert lp["text_offset"] == want
    # ids are shown as decoded, special tokens too
    x = complete(server, prompt=ids, max_tokens=0, echo=True)["choices"][0]
    assert x["text"] == "<|begin_of_text|>" + PROMPT and x["logprobs"] is None
    x = complete(server, prompt=PROMPT, max_tokens=0, echo=True, truncate_prompt_tokens=3)["choices"][0]
    assert x["text"] == model.text([1528] + ids[-2:], special=True)
    whole = complete(server, prompt=[5] * 2048, max_tokens=0, echo=True)  # no room is needed
    assert whole["usage"] == {"prompt_tokens": 2048, "completion_tokens": 0, "total_tokens": 2048,
                              "prompt_tokens_details": None, "completion_tokens_details": None}
    # the stream has one event of it
    (only,) = events(server, prompt=PROMPT, max_tokens=0, echo=True, logprobs=2)
    assert only["choices"][0]["text"] == PROMPT and only["choices"][0]["finish_reason"] == "length"
    assert only["choices"][0]["logprobs"] == lp


def test_echo_goes_before_the_text(server, model):
    args = dict(prompt=[PROMPT, "and"], max_tokens=4, seed=3, temperature=1, n=2, logprobs=1)
    plain, echo = complete(server, **args), complete(server, **args, echo=True)
    for a, b, prompt in zip(plain["choices"], echo["choices"], [PROMPT, PROMPT, "and", "and"]):
        n = len(model.encode(prompt))
        assert b["text"] == prompt + a["text"]
        assert b["logprobs"]["tokens"][n:] == a["logprobs"]["tokens"]
        close(b["logprobs"]["token_logprobs"][n:], a["logprobs"]["token_logprobs"])
        assert b["logprobs"]["text_offset"][n:] == [x + len(prompt) for x in a["logprobs"]["text_offset"]]
    assert echo["usage"] == plain["usage"]
    for i, c in enumerate(echo["choices"]):
        mine = [e["choices"][0] for e in events(server, **args, echo=True) if e["choices"][0]["index"] == i]
        assert "".join(e["text"] for e in mine) == c["text"]
        assert mine[0]["text"].startswith(args["prompt"][i // 2])
        joined = {k: sum((e["logprobs"][k] for e in mine), []) for k in c["logprobs"]}
        close(joined.pop("token_logprobs"), c["logprobs"]["token_logprobs"])
        assert joined["tokens"] == c["logprobs"]["tokens"] and joined["text_offset"] == c["logprobs"]["text_offset"]


def test_chat_echo(server):
    messages = [{"role": "user", "content": "go on"}, {"role": "assistant", "content": "I"}]
    client, name = server.client(), server.client().models.list().data[0].id
    args = dict(model=name, messages=messages, max_tokens=3, temperature=0)
    plain = client.chat.completions.create(**args).choices[0].message.content
    echo = client.chat.completions.create(**args, extra_body={"echo": True}).choices[0].message.content
    assert echo == "I" + plain
    chunks = list(client.chat.completions.create(**args, stream=True, extra_body={"echo": True}))
    assert [c.choices[0].delta.content for c in chunks[:2]] == ["", "I"]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == echo
    other = dict(args, messages=messages[:1])  # the last message is not the answer's role: no echo
    a = client.chat.completions.create(**other).choices[0].message.content
    assert client.chat.completions.create(**other, extra_body={"echo": True}).choices[0].message.content == a


# ---- several samples ----------------------------------------------------------------------------------

def test_best_of(server):
    args = dict(prompt=PROMPT, max_tokens=8, temperature=1, seed=21, logprobs=0)
    every = complete(server, **args, n=6)["choices"]
    sums = [math.fsum(c["logprobs"]["token_logprobs"]) for c in every]
    order = sorted(range(6), key=lambda k: -sums[k])
    for n in (1, 3, 6):
        best = complete(server, **args, n=n, best_of=6)
        want = [every[k]["text"] for k in (order[:n] if n < 6 else range(6))]
        assert [c["text"] for c in best["choices"]] == want
        assert [c["index"] for c in best["choices"]] == list(range(n))
        assert best["usage"]["completion_tokens"] == sum(len(c["logprobs"]["tokens"]) for c in every)
    # without logprobs, and with a stop string, whose token still counts
    stop = every[order[0]]["text"][3:6]
    plain = [complete(server, **args, n=6, stop=stop)["choices"], complete(server, prompt=PROMPT, max_tokens=8, temperature=1, seed=21, best_of=6, n=2, stop=stop)]
    sums = [math.fsum(c["logprobs"]["token_logprobs"]) for c in plain[0]]
    order = sorted(range(6), key=lambda k: -sums[k])
    assert [c["text"] for c in plain[1]["choices"]] == [plain[0][k]["text"] for k in order[:2]]
    assert plain[1]["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("mode", ["processed_logprobs", "raw_logits"])
def test_best_of_ranks_by_raw_values(serve, server, mode):
    """Whatever --logprobs-mode shows."""
    other = serve("--dtype", "float32", "--generation-config", "vllm", "--logprobs-mode", mode)
    args = dict(prompt=PROMPT, max_tokens=6, temperature=1.5, seed=8, n=2, best_of=5)
    a, b = complete(server, **args), complete(other, **args, logprobs=0)
    assert [c["text"] for c in a["choices"]] == [c["text"] for c in b["choices"]]


@pytest.mark.parametrize("width, n, n_tokens, penalty", [(1, 1, 6, 1), (2, 2, 5, 1), (3, 2, 8, 0), (4, 4, 6, 2.5), (6, 1, 4, -1)])
def test_beam_search(server, model, width, n, n_tokens, penalty):
    prompt = model.encode("the")
    want, margin = beam_search(model, prompt, width, n_tokens, penalty, eos=EOS)
    assert margin > MARGIN / 10
    c = complete(server, prompt="the", use_beam_search=True, n=n, best_of=width, max_tokens=n_tokens, temperature=0,
                 length_penalty=penalty, logprobs=0, return_tokens_as_token_ids=True)
    for x, (ids, end, total) in zip(c["choices"], want, strict=False):
        assert ids_of(x) == list(ids)
        assert x["text"] == model.text(ids)
        assert (x["finish_reason"], x["stop_reason"]) == (("stop", end) if end else ("length", None))
        if not end:
            assert abs(math.fsum(x["logprobs"]["token_logprobs"]) - total) < 5e-3
    assert len(c["choices"]) == n and c["usage"]["completion_tokens"] == sum(len(ids) for ids, _, _ in want)


def test_beam_search_that_ends(server, model):
    """With the end tokens made likely by what is made of them: hypotheses of several lengths."""
    eos = (1533, 1529)
    prompt = [1528, 1531, 9, 1533, 1532]
    want, margin = beam_search(model, prompt, 4, 7, 1.0, eos=eos)
    assert margin > MARGIN / 10
    args = dict(prompt=prompt, use_beam_search=True, n=4, max_tokens=7, logprobs=2, return_tokens_as_token_ids=True)
    c = complete(server, **args)
    assert [ids_of(x) for x in c["choices"]] == [list(ids) for ids, _, _ in want]
    shown = complete(server, **args, include_stop_str_in_output=True)
    for x, (ids, end, _) in zip(shown["choices"], want):
        assert ids_of(x) == list(ids) + ([end] if end else [])
        assert all(2 <= len(m) <= 3 for m in x["logprobs"]["top_logprobs"])
    ignored, margin = beam_search(model, prompt, 4, 7, 1.0)
    if margin > MARGIN / 10:
        c = complete(server, **args, ignore_eos=True)
        assert [ids_of(x) for x in c["choices"]] == [list(ids) for ids, _, _ in ignored]


def test_beam_search_in_chat_and_with_echo(server):
    client, name = server.client(), server.client().models.list().data[0].id
    args = dict(model=name, messages=[{"role": "user", "content": "hi"}], max_tokens=5, n=3)
    a = client.chat.completions.create(**args, extra_body={"use_beam_search": True, "best_of": 4})
    assert len(a.choices) == 3 and len({c.message.content for c in a.choices}) == 3
    b = complete(server, prompt=PROMPT, use_beam_search=True, n=2, max_tokens=4, echo=True, logprobs=1)
    assert all(c["text"].startswith(PROMPT) and c["logprobs"]["token_logprobs"][0] is None for c in b["choices"])


@pytest.mark.parametrize("mode", ["raw_logits", "processed_logprobs"])
def test_beam_search_in_other_logprobs_modes(serve, server, model, mode):
    """The search is the same; what is reported follows the mode."""
    other = serve("--dtype", "float32", "--generation-config", "vllm", "--logprobs-mode", mode)
    args = dict(prompt=PROMPT, use_beam_search=True, n=2, max_tokens=4, logprobs=1, return_tokens_as_token_ids=True)
    a, b = complete(server, **args)["choices"], complete(other, **args)["choices"]
    assert [ids_of(x) for x in a] == [ids_of(x) for x in b]
    for x in b:
        known = model.encode(PROMPT)
        for i, shown in zip(ids_of(x), x["logprobs"]["token_logprobs"]):
            logits = model.next(known)
            assert abs(shown - (logits if mode == "raw_logits" else log_softmax(logits))[i]) < 5e-3
            known.append(i)


def test_many_beams_on_few_seats(serve, server):
    """More beams than sequences that run at once, in a cache that holds few of them."""
    small = serve("--dtype", "float32", "--generation-config", "vllm", "--max-num-seqs", "3", "--max-model-len", "256",
                  "--num-gpu-blocks-override", "20")
    args = dict(prompt=PROMPT + " very long story about", use_beam_search=True, n=8, max_tokens=20, logprobs=0)
    a, b = complete(server, **args), complete(small, **args)
    assert [c["text"] for c in a["choices"]] == [c["text"] for c in b["choices"]]


# ---- logits processors --------------------------------------------------------------------------------

def test_ban_list(server, model):
    prompt = model.encode(PROMPT)
    plain, _ = greedy(model, prompt, 10)
    ban = sorted(set(plain[:4]))

    def processor(out, x):
        x[ban] = -math.inf

    want, margin = greedy(model, prompt, 10, processor=processor, repetition=1.3, bias={ban[0]: 50})
    assert margin > MARGIN
    for item in ({"qualname": "weir.ban_list", "args": [ban]}, {"qualname": "weir.ban_list", "kwargs": {"token_ids": ban}}):
        got = complete(server, prompt=PROMPT, temperature=0, max_tokens=10, ignore_eos=True, repetition_penalty=1.3,
                       logit_bias={str(ban[0]): 50}, logits_processors=[item], logprobs=2, return_tokens_as_token_ids=True)
        x = got["choices"][0]
        assert ids_of(x) == want
        # what is reported are the model's own values
        out = []
        for i, lp in zip(want, x["logprobs"]["token_logprobs"]):
            assert abs(lp - log_softmax(model.next(prompt + out))[i]) < 2e-3
            out.append(i)
        assert f"token_id:{plain[0]}" in x["logprobs"]["top_logprobs"][0]


def test_repetition_breaker(server):
    args = dict(prompt=PROMPT, temperature=0, max_tokens=60, ignore_eos=True)
    item = {"qualname": "weir.repetition_breaker", "kwargs": {"ngram": 2, "times": 2}}

    def most(ids):
        pairs = list(zip(ids, ids[1:]))
        return max(pairs.count(p) for p in pairs)

    assert most(tokens(server, **args, allowed_token_ids=list(range(40, 46)))) > 2
    assert most(tokens(server, **args, allowed_token_ids=list(range(40, 52)), logits_processors=[item])) == 2
    once = tokens(server, **args, allowed_token_ids=list(range(40, 52)), logits_processors=[item], vllm_xargs={"repetition_times": 1})
    assert most(once) == 1


def test_processor_errors(server, serve):
    def error(item, **more):
        return refused(server, prompt=PROMPT, max_tokens=4, logits_processors=[item], **more)

    e = error("os.system")
    assert e["param"] == "logits_processors.0" and "--logits-processor-pattern" in e["message"]
    assert "no logits processor has the name weir.other" in error("weir.other")["message"]
    assert "token id below 1536" in error({"qualname": "weir.ban_list", "args": [[1536]]})["message"]
    assert "must be a list" in error("weir.ban_list")["message"]
    assert error({"qualname": "weir.ban_list", "x": 1})["param"] == "logits_processors.0"
    assert error({"qualname": "weir.ban_list", "args": {}})["param"] == "logits_processors.0.args"
    assert error(5)["param"] == "logits_processors.0"
    many = refused(server, prompt=PROMPT, logits_processors=["weir.ban_list"] * 17)
    assert "less_than_equal 16" in many["message"]
    assert complete(server, prompt=PROMPT, max_tokens=1, logits_processors=[])
    none = serve()
    assert "--logits-processor-pattern" in refused(none, prompt=PROMPT, logits_processors=["weir.ban_list"])["message"]


def test_bad_plugins_stop_the_start(serve):
    for flags in (["--logits-processor-plugin", "/no/such.so"],
                  ["--logits-processor-plugin", PLUGINS[0], PLUGINS[0]],
                  ["--logits-processor-plugin", BUILD / "weir"],
                  ["--logits-processor-pattern", "["]):
        s = serve(*flags, wait=False)
        assert s.proc.wait(20) == 1, s.output()
        assert "--logits-processor-p" in s.output()


# ---- sampling defaults --------------------------------------------------------------------------------

def test_generation_config(serve, tmp_path):
    chat = {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True}

    def tokens_of(server, **more):
        status, text = post(server, {**chat, **more}, "/v1/chat/completions")
        assert status == 200, text
        return json.loads(text)["usage"]["completion_tokens"]

    own = serve()
    assert tokens_of(own) == 256 and tokens_of(own, max_tokens=300) == 300  # the model's own is a default
    over = serve("--override-generation-config", '{"max_new_tokens": 7, "temperature": 0}')
    assert tokens_of(over) == 7 and tokens_of(over, max_tokens=300) == 7 and tokens_of(over, max_tokens=3) == 3
    assert tokens_of(over, min_tokens=7) == 7
    assert complete(over, prompt=PROMPT)["usage"]["completion_tokens"] <= 7
    a, b = (complete(over, prompt=PROMPT)["choices"][0]["text"] for _ in range(2))
    assert a == b  # greedy
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 9, "eos_token_id": [1533, 41]}')
    folder = serve("--generation-config", tmp_path)
    assert tokens_of(folder) == 9 and tokens_of(folder, max_tokens=300) == 9
    one = complete(folder, prompt=PROMPT, allowed_token_ids=[41])["choices"][0]
    assert one["finish_reason"] == "stop" and one["stop_reason"] == 41
    both = serve("--generation-config", "vllm", "--override-generation-config.max_new_tokens", "5")
    assert tokens_of(both, max_tokens=20) == 5


# ---- transcripts --------------------------------------------------------------------------------------

def test_transcript_of_three_choices(server):
    args = dict(prompt=PROMPT, n=3, max_tokens=5, seed=2, temperature=1)
    whole = complete(server, **args)
    got = events(server, **args, stream_options={"include_usage": True})
    usage = got.pop()
    assert usage["choices"] == [] and usage["usage"] == whole["usage"] and "system_fingerprint" in usage
    for i, c in enumerate(whole["choices"]):
        mine = [e for e in got if e["choices"][0]["index"] == i]
        assert all(len(e["choices"]) == 1 and e["object"] == "text_completion" and "usage" not in e for e in mine)
        assert "".join(e["choices"][0]["text"] for e in mine) == c["text"]
        assert [e["choices"][0]["finish_reason"] for e in mine] == [None] * (len(mine) - 1) + [c["finish_reason"]]
        assert ["system_fingerprint" in e for e in mine] == [False] * (len(mine) - 1) + [True]
    chat = dict(messages=[{"role": "user", "content": "hi"}], n=3, max_tokens=4, seed=2)
    got = events(server, "/v1/chat/completions", **chat)
    assert [e["choices"][0]["index"] for e in got[:3]] == [0, 1, 2]
    assert all(e["choices"][0]["delta"] == {"role": "assistant", "content": ""} for e in got[:3])


@pytest.mark.parametrize("include", [False, True])
def test_transcript_of_stop_strings(server, include):
    """A stop string that begins within one token and ends within another."""
    args = dict(prompt=PROMPT, max_tokens=20, temperature=0, ignore_eos=True)
    full = complete(server, **args, logprobs=0)["choices"][0]
    pieces = full["logprobs"]["tokens"]
    at = next(i for i in range(3, 18) if len(pieces[i]) > 1 and len(pieces[i + 1]) > 1)
    stop = pieces[at][-1] + pieces[at + 1][:-1]
    begin = full["text"].find(stop)
    cut = full["text"][:begin + (len(stop) if include else 0)]
    whole = complete(server, **args, stop=["never comes", stop], include_stop_str_in_output=include)
    x = whole["choices"][0]
    assert (x["text"], x["finish_reason"], x["stop_reason"]) == (cut, "stop", stop)
    got = events(server, **args, stop=["never comes", stop], include_stop_str_in_output=include)
    assert "".join(e["choices"][0]["text"] for e in got) == cut
    assert got[-1]["choices"][0]["stop_reason"] == stop
    assert len(got) == whole["usage"]["completion_tokens"] <= at + 2
    # min_tokens: a match counts only if it ends in a later token
    later = complete(server, **args, stop=stop, min_tokens=whole["usage"]["completion_tokens"])
    assert later["usage"]["completion_tokens"] > whole["usage"]["completion_tokens"]
    assert later["choices"][0]["text"].startswith(full["text"][:begin + len(stop)])


def test_transcript_of_stop_within_a_character(server, model):
    """Bytes of a character in tokens of their own; the stop string is the character."""
    ids = model.encode("ß", special=False)
    assert len(ids) >= 2
    allowed = dict(prompt=PROMPT, max_tokens=40, temperature=2, seed=4, allowed_token_ids=ids + [65])
    full = complete(server, **allowed)["choices"][0]["text"]
    assert "ß" in full
    x = complete(server, **allowed, stop="ß")["choices"][0]
    assert x["text"] == full[:full.index("ß")] and x["stop_reason"] == "ß"
    assert "".join(e["choices"][0]["text"] for e in events(server, **allowed, stop="ß")) == x["text"]


def test_transcript_of_the_end_token_in_the_last_place(server):
    """The end token is tested before the limit."""
    args = dict(prompt=PROMPT, max_tokens=1, allowed_token_ids=[EOS[0]])
    c = complete(server, **args)
    assert c["choices"][0]["finish_reason"] == "stop" and c["choices"][0]["stop_reason"] is None
    assert c["choices"][0]["text"] == "" and c["usage"]["completion_tokens"] == 1
    (e,) = events(server, **args)
    assert e["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    named = complete(server, **args, stop_token_ids=[EOS[0]], ignore_eos=True)["choices"][0]
    assert named["finish_reason"] == "stop" and named["stop_reason"] == EOS[0]
    shown = complete(server, **args, include_stop_str_in_output=True, skip_special_tokens=False)["choices"][0]
    assert shown["text"] == "<|end|>"


@pytest.mark.parametrize("path, body", [
    ("/v1/completions", {"prompt": ["a", "b c"]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
])
def test_transcript_of_usage(server, path, body):
    args = {**body, "max_tokens": 3, "n": 2, "seed": 1, "temperature": 1, "ignore_eos": True}
    whole = json.loads(post(server, args, path)[1])["usage"]
    n_prompts = len(body.get("prompt", [1]))
    assert whole["completion_tokens"] == 6 * n_prompts
    assert whole["total_tokens"] == whole["prompt_tokens"] + whole["completion_tokens"]
    for include in (None, False, True):
        for continuous in (None, False, True):
            options = {k: v for k, v in (("include_usage", include), ("continuous_usage_stats", continuous)) if v is not None}
            got = events(server, path, **args, stream_options=options)
            last = [e for e in got if not e["choices"]]
            assert len(last) == bool(include)
            if include:
                assert got[-1]["usage"] == whole
            steps = [e for e in got if e["choices"]]
            if not (include and continuous):
                assert all("usage" not in e for e in steps)
                continue
            done = {}
            for e in steps:
                i, u = e["choices"][0]["index"], e["usage"]
                done[i] = u["completion_tokens"]
                assert u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"]
            assert set(done.values()) == {3}


def test_fields_through_the_client(server):
    """The official client sends what it has names for, and the rest by extra_body."""
    client, name = server.client(), server.client().models.list().data[0].id
    c = client.completions.create(model=name, prompt=PROMPT, max_tokens=2, echo=True, best_of=2, n=1, logprobs=1, seed=1,
                                  temperature=1, extra_body={"bad_words": ["x"], "min_tokens": 1, "prompt_logprobs": 0})
    assert c.choices[0].text.startswith(PROMPT) and c.choices[0].logprobs.token_logprobs[0] is None
    assert len(c.choices[0].prompt_logprobs) == c.usage.prompt_tokens
    assert c.usage.completion_tokens == 4


# ---- more of the edges --------------------------------------------------------------------------------

def test_all_of_the_vocabulary(serve, model):
    """--max-logprobs -1: -1 asks for everything."""
    wide = serve("--dtype", "float32", "--generation-config", "vllm", "--max-logprobs", "-1")
    c = complete(wide, prompt="one two", max_tokens=1, temperature=0, logprobs=-1, prompt_logprobs=-1,
                 return_tokens_as_token_ids=True)["choices"][0]
    n = model.config["vocab_size"]
    assert len(c["logprobs"]["top_logprobs"][0]) == n
    assert all(len(x) == n for x in c["prompt_logprobs"][1:])
    ranks = [x["rank"] for x in c["prompt_logprobs"][1].values()]
    assert ranks == list(range(1, n + 1))
    assert abs(sum(math.exp(x["logprob"]) for x in c["prompt_logprobs"][1].values()) - 1) < 1e-4


FAULTY = """
#include "worker/plugin/weir_plugin.h"
#include <math.h>
#include <unistd.h>
static void let_out(unsigned n) { if (n == 1 || n == 2) usleep(100000); } /* each token is out before the next, and before the fault */
static int create(const struct weir_lp_args *a, void **s, char *err, size_t n) { (void)a, (void)err, (void)n; *s = NULL; return 0; }
static int fail(void *s, const struct weir_lp_view *v, float *l) { (void)s, (void)l; let_out((unsigned)v->output_len); return v->output_len == 2; }
static int nan_at(void *s, const struct weir_lp_view *v, float *l) { (void)s; let_out((unsigned)v->output_len); if (v->output_len == 2) l[7] = NAN; return 0; }
static void destroy(void *s) { (void)s; }
static const struct weir_lp a = {"t.fail", create, fail, destroy}, b = {"t.nan", create, nan_at, destroy};
static const struct weir_lp *const list[] = {&a, &b, NULL};
const struct weir_lp *const *weir_plugin_list(uint32_t abi) { return abi == WEIR_PLUGIN_ABI + PLUS ? list : NULL; }
"""


def build_plugin(folder, plus):
    source, out = folder / "faulty.c", folder / f"faulty{plus}.so"
    source.write_text(FAULTY)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DPLUS={plus}", "-I", str(ROOT), "-o", str(out), str(source), "-lm"], check=True)
    return out


def test_a_plugin_that_fails(serve, tmp_path):
    """Its own fault is 500, in a stream an error event; other requests go on."""
    s = serve("--logits-processor-pattern", r"t\..*", "--logits-processor-plugin", build_plugin(tmp_path, 0))
    for name, words in (("t.fail", "t.fail failed"), ("t.nan", "t.nan wrote a value that is not finite")):
        body = dict(prompt=PROMPT, max_tokens=6, ignore_eos=True, logits_processors=[name])
        status, text = post(s, body)
        error = json.loads(text)["error"]
        assert status == 500 and error["type"] == "InternalServerError" and words in error["message"]
        status, text = post(s, {**body, "stream": True})
        lines = [x[6:] for x in text.split("\n\n") if x]
        assert status == 200 and len(lines) == 4 and lines[-1] == "[DONE]"
        assert words in json.loads(lines[2])["error"]["message"]
        assert complete(s, **{**body, "max_tokens": 2})["usage"]["completion_tokens"] == 2
        assert complete(s, prompt=PROMPT, max_tokens=3)
    other = serve("--logits-processor-plugin", build_plugin(tmp_path, 1), wait=False)
    assert other.proc.wait(20) == 1 and "another version of the ABI" in other.output()
