"""Workers that die under their requests: what clients get is what they would have got."""
import json
import random
import re
import signal
import threading
import time

import pytest
from conftest import SCALE, SLOW, wait_for
from fleet import percentiles
from test_faults import stream_request

N = 4
PROMPTS = ["tell me a story about", "the house by the sea " * 12, "once", "a b c d e f g " * 30]


def completion(client, kw, stream):
    """What a client sees: of each choice its text, why it ended, its log-probabilities; and the usage."""
    kw = {"model": "", "max_tokens": 200, **kw}
    if not stream:
        r = client.completions.create(**kw)
        lp = {c.index: (c.logprobs.tokens, c.logprobs.token_logprobs, c.logprobs.top_logprobs) for c in r.choices if c.logprobs}
        return ({c.index: c.text for c in r.choices}, {c.index: c.finish_reason for c in r.choices}, lp,
                (r.usage.prompt_tokens, r.usage.completion_tokens))
    texts, ends, lps, usage = {}, {}, {}, None
    for chunk in client.completions.create(stream=True, stream_options={"include_usage": True}, **kw):
        usage = chunk.usage or usage
        for c in chunk.choices:
            texts[c.index] = texts.get(c.index, "") + c.text
            if c.finish_reason:
                assert c.index not in ends, "a choice that ended twice"
                ends[c.index] = c.finish_reason
            if c.logprobs:
                t, p, top = lps.setdefault(c.index, ([], [], []))
                t += c.logprobs.tokens
                p += c.logprobs.token_logprobs
                top += c.logprobs.top_logprobs
    return texts, ends, lps, (usage.prompt_tokens, usage.completion_tokens)


def variants(client):
    """Requests of every kind that a replay must carry over, and what each comes to when nothing happens."""
    on = {"ignore_eos": True}
    plain = {"prompt": PROMPTS[0], "temperature": 0, "extra_body": on}
    text = completion(client, plain, False)[0][0]
    stop = text[len(text) * 2 // 3:][:6]
    asks = [
        plain,
        {"prompt": PROMPTS[1], "temperature": 1, "seed": 7, "extra_body": on},
        {"prompt": PROMPTS[0], "temperature": .9, "seed": 11, "top_p": .9, "presence_penalty": .7, "frequency_penalty": .5,
         "extra_body": {**on, "repetition_penalty": 1.2, "top_k": 40, "min_p": .01}},
        {"prompt": PROMPTS[0], "temperature": 0, "stop": [stop], "extra_body": on},
        {"prompt": PROMPTS[2], "temperature": 1, "seed": 3, "logprobs": 3, "extra_body": on},
        {"prompt": PROMPTS[2], "temperature": 1, "seed": 5, "n": 2, "extra_body": on},
        {"prompt": PROMPTS[0], "temperature": 1, "seed": 9, "n": 3, "extra_body": {}},
        {"prompt": [PROMPTS[0], PROMPTS[3]], "temperature": 0, "extra_body": on},
        {"prompt": PROMPTS[0], "temperature": 1, "seed": 2, "extra_body": {"structured_outputs": {"regex": "([a-z]{3,9} ){40}end"}}},
        {"prompt": PROMPTS[0], "temperature": 1, "seed": 4, "max_tokens": 150,
         "extra_body": {"structured_outputs": {"json": {"type": "array", "items": {"type": "integer"}, "minItems": 20, "maxItems": 25}}}},
        {"prompt": PROMPTS[0], "temperature": .8, "seed": 6, "extra_body": {"min_tokens": 150, "bad_words": ["a"]}},
    ]
    whole = [{"prompt": PROMPTS[0], "temperature": 0, "echo": True, "logprobs": 1, "extra_body": {**on, "prompt_logprobs": 1}},
             {"prompt": PROMPTS[0], "temperature": 1, "seed": 8, "n": 2, "extra_body": {**on, "best_of": 4}},
             {"prompt": PROMPTS[0], "temperature": 0, "n": 2, "max_tokens": 40, "extra_body": {"use_beam_search": True}}]
    return [(a, completion(client, a, False), s) for a in asks for s in (False, True)] + [(a, completion(client, a, False), False) for a in whole]


class Clients:
    """Threads that ask at random and compare; the first thing that is wrong ends them all."""

    def __init__(self, fleet, cases, n, same=None):
        self.fleet, self.cases, self.same = fleet, cases, same or (lambda got, want: got == want)
        self.wrong, self.n_done, self.over = [], 0, False
        self.threads = [threading.Thread(target=self.run, args=(k,)) for k in range(n)]
        for t in self.threads:
            t.start()

    def run(self, k):
        rng, client = random.Random(k), self.fleet.router.client()
        while not self.over and not self.wrong:
            ask, want, stream = rng.choice(self.cases)
            try:
                got = completion(client, ask, stream)
            except Exception as e:  # whatever a client can run into is what must not be
                got = repr(e)
            if not self.same(got, want):
                self.wrong.append((ask, stream, want, got))
            self.n_done += 1

    def end(self):
        self.over = True
        for t in self.threads:
            t.join()
        assert not self.wrong, self.wrong[0]


def kill_at_random(fleet, clients, n_kills, rng):
    """Each kill at a random moment, of a worker that has a request; it is started again at once, and never are fewer than two
    there to go on."""
    while n_kills and not clients.wrong:
        time.sleep(rng.random() * .12 * SLOW)
        busy = fleet.serving()
        if not busy or fleet.states().count("ready") < 3:
            continue
        i = rng.choice(busy)
        fleet.kill(i)
        fleet.start(i)
        n_kills -= 1


def test_kills_on_real_engines(fleet):
    f = fleet(N, "--max-replays", 20, worker_flags=["--max-num-seqs", 16])
    cases = variants(f.router.client())
    clients = Clients(f, cases, 4)
    kill_at_random(f, clients, int(12 * SCALE), random.Random(1))
    clients.end()
    moved = f.router.metric_of("weir_failovers_total", outcome="ok") + f.router.metric_of("weir_retries_total", outcome="ok")
    print(f"{clients.n_done} requests, {moved:.0f} moved")
    assert moved >= 8 * SCALE and f.router.metric_of("weir_failovers_total", outcome="failed") == 0
    f.wait_all()
    wait_for(f.idle, 10, "nothing left behind")


def test_kills_on_mock_engines(fleet):
    """Many more streams at a time, through a router alone: tokens by a clock."""
    f = fleet(N, "--max-replays", 50, worker_flags=["--mock", "--mock-step-ms", 4])
    client = f.router.client()
    asks = [{"prompt": p, "seed": s, "max_tokens": 60, "n": n} for s, (p, n) in enumerate([(PROMPTS[0], 1), (PROMPTS[1], 2), (PROMPTS[2], 1)])]
    clients = Clients(f, [(a, completion(client, a, False), s) for a in asks for s in (False, True)], 8)
    kill_at_random(f, clients, int(18 * SCALE), random.Random(2))
    clients.end()
    assert f.router.metric_of("weir_failovers_total", outcome="ok") >= 10 * SCALE
    wait_for(f.idle, 10, "nothing left behind")


def test_clients_leave_while_workers_die(fleet):
    """Streams that are given up at any phase, some of them on their second worker: nothing of them stays anywhere."""
    f = fleet(3, "--max-replays", 50, worker_flags=["--max-num-seqs", 8])
    n_threads, each, over = 8, int(20 * SCALE), []

    def leave(k):
        rng = random.Random(k)
        for _ in range(each):
            s = stream_request(f.router.port, max_tokens=rng.choice([1, 30, 300]), prompt="word " * rng.choice([1, 30, 300]), n=rng.choice([1, 1, 3]))
            time.sleep(rng.random() * .1)
            if rng.random() < .5:
                s.recv(rng.choice([1, 200, 20000]))
            s.close()
        over.append(k)

    threads = [threading.Thread(target=leave, args=(k,)) for k in range(n_threads)]
    for t in threads:
        t.start()
    rng = random.Random(3)
    while len(over) < n_threads:
        time.sleep(rng.random() * .3 * SLOW)
        if f.states().count("ready") == 3:
            i = rng.randrange(3)
            f.kill(i)
            f.start(i)
    for t in threads:
        t.join()
    f.wait_all()
    wait_for(f.idle, 10, "nothing left behind")
    assert json.loads(f.router.get("/load"))["server_load"] == 0
    assert f.router.client().completions.create(model="", prompt="x", max_tokens=2).usage.completion_tokens == 2


def stream_of(f, n_tokens=400, **kw):
    """A greedy stream that has begun: its pieces, and a function that reads the rest."""
    s = iter(f.router.client().completions.create(model="", prompt=PROMPTS[0], max_tokens=n_tokens, temperature=0, stream=True,
                                                  extra_body={"ignore_eos": True}, **kw))
    return next(s).choices[0].text, s


def test_frozen_worker_hands_over(fleet):
    """SIGSTOP: suspect after a second, and the stream goes on elsewhere within two; SIGCONT: late words change nothing."""
    f = fleet(2, worker_flags=["--mock", "--mock-step-ms", 5])
    want = f.router.client().completions.create(model="", prompt=PROMPTS[0], max_tokens=400, temperature=0, seed=0).choices[0].text
    seconds = [1] + [5] * (SCALE >= 1) + [30] * (SCALE >= 10)
    gaps, seen = [], []
    for stop_s in seconds:
        f.wait_all()
        text, s = stream_of(f, seed=0)
        (i,) = f.serving()
        f.kill(i, signal.SIGSTOP)
        begin, longest, last = time.monotonic(), 0, time.monotonic()
        timer = threading.Timer(stop_s, f.kill, (i, signal.SIGCONT))
        timer.start()
        for chunk in s:
            text += chunk.choices[0].text
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            if not seen and last - begin > .9:
                seen = [f.states()[i]]
        assert text == want
        timer.join()
        gaps.append(longest)
    percentiles("the longest silence of a stream", gaps)
    assert max(gaps) < 2.5 * SLOW
    wait_for(f.idle, 10, "nothing left behind")


def test_limits_of_replay(fleet):
    """--no-replay and --max-replays: an error event, as without a second worker."""
    f = fleet(2, "--no-replay", worker_flags=["--mock", "--mock-step-ms", 5])
    s = stream_of(f)[1]
    f.kill(f.serving()[0])
    with pytest.raises(Exception, match="lost"):
        list(s)
    assert f.router.metric_of("weir_failovers_total", outcome="failed") == 1


def test_nobody_left(fleet):
    """Both workers die: an error event after --replay-timeout; if one comes back before, the stream goes on there."""
    f = fleet(2, "--replay-timeout", 3 * SLOW, worker_flags=["--mock", "--mock-step-ms", 5])
    want = f.router.client().completions.create(model="", prompt=PROMPTS[0], max_tokens=400, temperature=0, seed=0).choices[0].text
    first, s = stream_of(f, seed=0)
    for i in range(2):
        f.kill(i)
    time.sleep(.3)
    f.start(0)
    assert first + "".join(c.choices[0].text for c in s) == want
    s = stream_of(f)[1]
    begin = time.monotonic()
    f.kill(0)
    with pytest.raises(Exception, match="lost"):
        list(s)
    assert 2.5 * SLOW < time.monotonic() - begin < 5 * SLOW
    assert json.loads(f.router.get("/health?probe=live") or "{}") == {} and f.router.status("/health") == 503


def test_scripted_faults(fleet):
    """One of two workers goes wrong by its script, in each way that there is; no client notices."""
    f = fleet(2, worker_flags=["--mock", "--mock-step-ms", 2])
    client = f.router.client()
    want = client.completions.create(model="", prompt=PROMPTS[0], max_tokens=100, seed=1).choices[0].text
    for fault in ["die@30", "garbage@30", "refuse@0", "slow@20:8", "stop@30"]:
        f.kill(0)
        f.start(0, "--mock-faults", fault)
        f.wait_state(0, "ready")
        texts = [client.completions.create(model="", prompt=PROMPTS[0], max_tokens=100, seed=1).choices[0].text for _ in range(4)]
        assert texts == [want] * 4, fault
        f.procs[0].send_signal(signal.SIGCONT)
    assert re.search("refused|refuses", f.logs()) is None  # no mark against a worker that had no room
