"""Prefill on some workers and decode on others, arranged by the router: clients notice nothing, whoever dies, and nothing is
computed twice that was moved."""
import json
import random
import signal
import socket
import threading
import time

import pytest
from conftest import SCALE, SLOW, Server, free_port, wait_for
from fleet import Fleet, percentiles
from test_fleet_replay import Clients, completion
from test_fleet_tls import pki  # noqa: F401, a fixture

FLAGS = ["--dtype", "float32", "--served-model-name", "m"]
LONG = "the house by the sea and a fox with a lantern " * 60


class Roles(Fleet):
    """Workers with a role each."""

    def __init__(self, roles, *router_flags, worker_flags=(), **kw):
        self.roles = roles
        self.ports = [free_port() for _ in roles]
        super().__init__(len(roles), "--remote-prefill-min-tokens", "32", "--enable-prompt-tokens-details", *router_flags,
                         worker_flags=[*FLAGS, *worker_flags], **kw)

    def start(self, i, *flags):
        kv = ["--kv-transfer-config", json.dumps({"kv_port": self.ports[i]})] if self.roles[i] == "prefill" else []
        return super().start(i, "--role", self.roles[i], *kv, *flags)

    def engine(self, i):
        return next(w["id"] for w in self.workers() if w["address"] == self.urls[i])

    def computed(self, i):
        return self.router.metric_of("weir_computed_tokens_total", engine=self.engine(i))

    def ok(self, outcome="ok"):
        return self.router.metric_of("weir_remote_prefills_total", outcome=outcome)

    def requests(self):
        return json.loads(self.router.get("/debug/requests"))["requests"]

    def quiet(self, seconds=10):
        """Nobody holds a block, and no lease is left."""
        wait_for(lambda: self.idle() and self.router.metric("weir_kv_leases") == 0, seconds, "no block held, no lease left")


@pytest.fixture
def roles():
    made = []

    def make(*a, **kw):
        made.append(Roles(*a, **kw))
        return made[-1]

    yield make
    for f in made:
        f.stop()


@pytest.fixture(scope="module")
def alone():
    s = Server(*FLAGS, "--enable-prompt-tokens-details")
    yield s
    s.stop()


def prompt_of(n, seed):
    r = random.Random(seed)
    return [r.randrange(5, 900) for _ in range(n)]


def ask(server, prompt, n=12, **kw):
    """A streamed completion, token by token: the tokens, and the usage."""
    body = {"ignore_eos": True, "return_tokens_as_token_ids": True, **kw.pop("extra_body", {})}
    tokens, usage = [], None
    for chunk in server.client().completions.create(model="m", prompt=prompt, max_tokens=n, logprobs=1, stream=True, extra_body=body,
                                                    stream_options={"include_usage": True}, **{"temperature": 0, **kw}):
        usage = chunk.usage or usage
        for c in chunk.choices:
            tokens += c.logprobs.tokens if c.logprobs else []
    return tokens, usage


def test_prompts_are_computed_elsewhere(roles, alone):
    fleet = roles(["prefill", "decode"])
    assert [w["role"] for w in sorted(fleet.workers(), key=lambda w: fleet.urls.index(w["address"]))] == ["prefill", "decode"]
    for i, n in enumerate((33, 64, 150, 700, 1500)):
        prompt = prompt_of(n, n)
        before = [fleet.computed(0), fleet.computed(1)]
        tokens, usage = ask(fleet.router, prompt)
        assert tokens == ask(alone, prompt)[0] and len(tokens) == 12
        # what another worker of the fleet has computed was not cached
        assert usage.prompt_tokens == n and usage.prompt_tokens_details.cached_tokens == 0
        moved = (n - 1) // 16 * 16
        wait_for(lambda: [fleet.computed(0) - before[0], fleet.computed(1) - before[1]] == [n, n - moved + 12 - 1], 10,
                 "the decoding worker computes the prompt less what was moved")
        wait_for(lambda: fleet.ok() == i + 1, 10, "counted")
    assert fleet.router.metric("vllm:nixl_bytes_transferred_sum") > 0
    assert fleet.router.metric("vllm:nixl_xfer_time_seconds_count") == 5
    # short prompts stay, as does what is cached at the decoding worker
    before = [fleet.computed(0), fleet.computed(1)]
    short = prompt_of(25, 1)
    assert ask(fleet.router, short)[0] == ask(alone, short)[0]
    tokens, usage = ask(fleet.router, prompt_of(700, 700))
    assert tokens == ask(alone, prompt_of(700, 700))[0] and usage.prompt_tokens_details.cached_tokens == 688
    wait_for(lambda: fleet.computed(1) == before[1] + 25 + 11 + 12 + 11, 10, "both computed where they are decoded")
    assert fleet.computed(0) == before[0] and fleet.ok() == 5 and fleet.ok("failed") == 0
    fleet.quiet()


def test_every_kind_of_request(roles, alone):
    """Sampling, penalties, several samples, stop strings, grammars, log-probabilities of the prompt: as on one worker."""
    fleet = roles(["prefill", "decode", "prefill", "decode"])
    on = {"ignore_eos": True}
    asks = [{"prompt": LONG[:900], "temperature": 1, "seed": 7, "logprobs": 3, "extra_body": on},
            {"prompt": LONG[:700], "temperature": .9, "seed": 11, "top_p": .9, "presence_penalty": .7, "frequency_penalty": .5,
             "extra_body": {**on, "repetition_penalty": 1.2, "top_k": 40, "min_p": .01}},
            {"prompt": LONG[:500], "temperature": 1, "seed": 5, "n": 3, "extra_body": on},
            {"prompt": [LONG[:400], LONG[100:800]], "temperature": 0, "extra_body": on},
            {"prompt": LONG[:800], "temperature": 0, "n": 2, "extra_body": {"use_beam_search": True}},
            {"prompt": LONG[:600], "temperature": 1, "seed": 8, "n": 2, "extra_body": {**on, "best_of": 4}},
            {"prompt": LONG[:600], "temperature": 0, "echo": True, "logprobs": 1, "extra_body": {**on, "prompt_logprobs": 1}},
            {"prompt": LONG[:650], "temperature": 1, "seed": 2, "extra_body": {"structured_outputs": {"regex": "([a-z]{3,9} ){5}end"}}}]
    for i, a in enumerate(asks):
        first = lambda p: f"{i} {p}"  # nothing of it is cached
        prompt = a["prompt"]
        a = {"model": "m", "max_tokens": 40, **a, "prompt": list(map(first, prompt)) if isinstance(prompt, list) else first(prompt)}
        want = completion(alone.client(), a, False)
        assert completion(fleet.router.client(), a, False) == want
        if not a.get("echo") and "best_of" not in a["extra_body"] and "use_beam_search" not in a["extra_body"]:
            assert completion(fleet.router.client(), a, True)[0] == want[0]
    assert fleet.ok() >= 7 and fleet.ok("failed") == 0
    fleet.quiet()


def test_the_last_one_decodes(roles, alone):
    """A worker that only prefills decodes when nobody else is left, and no longer than that."""
    fleet = roles(["prefill", "decode"])
    fleet.kill(1)
    fleet.wait_state(1, "gone")
    prompt = prompt_of(200, 5)
    assert ask(fleet.router, prompt)[0] == ask(alone, prompt)[0]
    fleet.start(1)
    fleet.wait_all()
    before = fleet.computed(0)
    prompt = prompt_of(300, 6)
    assert ask(fleet.router, prompt, 30)[0] == ask(alone, prompt, 30)[0]
    wait_for(lambda: fleet.computed(0) == before + 300, 10, "no token decoded there")
    fleet.quiet()


def phase_of(request, engine):
    if request["prefill_worker"] == engine:
        return "prefill or transfer"
    if request["worker"] == engine:
        return "transfer" if request["prefill_worker"] is not None else request["state"]
    return None


def kill_in_phases(fleet, clients, n, rng):
    """Kills of whoever has a request, at a random moment of it. Returns how many in which phase of whose."""
    phases = {}
    while n and not clients.wrong:
        time.sleep(rng.random() * .1 * SLOW)
        if fleet.states().count("ready") < len(fleet.urls):
            continue
        found = [(i, p) for r in fleet.requests() for i in range(len(fleet.urls)) if (p := phase_of(r, fleet.engine(i)))]
        if not found:
            continue
        # those whose phase is rare first: decodes are long, transfers are not
        i, phase = min(found, key=lambda f: (phases.get((fleet.roles[f[0]], f[1]), 0), rng.random()))
        fleet.kill(i)
        key = (fleet.roles[i], phase)
        phases[key] = phases.get(key, 0) + 1
        fleet.start(i)
        n -= 1
    return phases


def test_kills_in_every_phase(roles, alone):
    """kill -9 of either side while a prompt is computed, moved, and gone on with: every answer is the one of one worker."""
    fleet = roles(["prefill", "decode", "prefill", "decode"], "--max-replays", 50, worker_flags=["--max-num-batched-tokens", "64"])
    on = {"ignore_eos": True}
    asks = [{"prompt": [prompt_of(900, k)], "temperature": 0, "max_tokens": 60, "extra_body": on} for k in range(4)]
    asks += [{"prompt": LONG[k * 37:], "temperature": 1, "seed": k, "logprobs": 2, "max_tokens": 60, "extra_body": on} for k in range(3)]
    asks += [{"prompt": LONG[50:1800], "temperature": 1, "seed": 3, "n": 2, "presence_penalty": .5, "max_tokens": 80, "extra_body": on}]
    cases = []
    for a in asks:
        a = {"model": "m", **a}
        cases += [(a, completion(alone.client(), a, False), s) for s in (False, True)]
    # what is cached is not moved: every request computes its prompt
    reset = threading.Event()

    def forget():
        while not reset.wait(.3):
            fleet.router.client()._client.post(fleet.router.url + "/reset_prefix_cache")

    forgetting = threading.Thread(target=forget)
    forgetting.start()
    clients = Clients(fleet, cases, 3)
    try:
        phases = kill_in_phases(fleet, clients, max(int(24 * SCALE), 8), random.Random(1))
    finally:
        reset.set()
        forgetting.join()
        clients.end()
    print("killed:", phases, "answers:", clients.n_done, "moved:", fleet.ok(), "not moved after all:", fleet.ok("failed"))
    assert {r for r, _ in phases} == {"prefill", "decode"} and len(phases) >= 3, phases
    fleet.wait_all()
    fleet.quiet()


def test_a_silent_prefill_worker(roles, alone):
    """SIGSTOP of the worker that computes the prompt: the other one computes it within two seconds."""
    fleet = roles(["prefill", "decode"], worker_flags=["--max-num-batched-tokens", "32"])
    prompt = prompt_of(1500, 9)
    want = ask(alone, prompt, 30)[0]
    got, times = [], []
    for _ in range(2):
        fleet.router.client()._client.post(fleet.router.url + "/reset_prefix_cache")
        t = threading.Thread(target=lambda: got.append(ask(fleet.router, prompt, 30)[0]))
        t.start()
        wait_for(lambda: any(r["prefill_worker"] is not None for r in fleet.requests()), 10, "a prefill elsewhere")
        began = time.monotonic()
        fleet.kill(0, signal.SIGSTOP)
        wait_for(lambda: all(r["prefill_worker"] is None for r in fleet.requests()), 10, "the prefill is given up")
        times.append(time.monotonic() - began)
        t.join()
        fleet.kill(0, signal.SIGCONT)
        fleet.wait_all()
    percentiles("frozen prefill given up", times)
    assert got == [want, want] and max(times) < 2 * 5 * SLOW
    fleet.quiet()


def test_clients_leave_in_every_phase(roles, alone):
    """Whatever phase a client leaves in, both workers free what they had for it at once, not when a lease ends."""
    fleet = roles(["prefill", "decode"], worker_flags=["--max-num-batched-tokens", "32", "--kv-lease-seconds", "300"])
    rng = random.Random(4)
    seen, times = {}, []

    def leave(k):
        ask = dict(model="m", prompt=prompt_of(600 + 10 * (k % 50), 100 + k), max_tokens=60, extra_body={"ignore_eos": True})
        client = fleet.router.client()
        try:
            if k % 3:
                client.with_options(timeout=.002 + rng.random() * .35 * SLOW).completions.create(**ask)
            else:  # not before it decodes
                with client.completions.create(stream=True, **ask) as s:
                    for _ in range(rng.randrange(1, 30)):
                        next(iter(s))
        except Exception:
            pass

    for i in range(max(int(6 * SCALE), 3)):
        threads = [threading.Thread(target=leave, args=(10 * i + k,)) for k in range(10)]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            for r in fleet.requests():
                phase = "prefill elsewhere" if r["prefill_worker"] is not None else r["state"]
                seen[phase] = seen.get(phase, 0) + 1
            time.sleep(.005)
        began = time.monotonic()
        fleet.quiet(5)
        times.append(time.monotonic() - began)
    percentiles("all freed, as reported five times a second", times)
    assert seen.get("prefill elsewhere") and seen.get("decode"), seen
    assert fleet.router.metric("vllm:nixl_num_kv_expired_reqs_total") == 0
    prompt = prompt_of(400, 77)
    assert ask(fleet.router, prompt)[0] == ask(alone, prompt)[0]


def test_a_prefill_worker_that_drains(roles, alone):
    """SIGTERM of the worker that computes prompts: what it refuses, and what it has, is computed by the other."""
    fleet = roles(["prefill", "decode"], worker_flags=["--max-num-batched-tokens", "64"])
    prompts = [prompt_of(500, 300 + k) for k in range(12)]
    want = [ask(alone, p)[0] for p in prompts]
    got = [None] * len(prompts)

    def one(k):
        time.sleep(.02 * k)
        got[k] = ask(fleet.router, prompts[k])[0]

    threads = [threading.Thread(target=one, args=(k,)) for k in range(len(prompts))]
    for t in threads:
        t.start()
    time.sleep(.1)
    fleet.kill(0, signal.SIGTERM)
    for t in threads:
        t.join()
    assert got == want
    fleet.procs[0].wait(40)
    fleet.start(0)
    fleet.wait_all()
    fleet.quiet()


def test_blocks_travel_under_tls(roles, alone, pki):  # noqa: F811
    """With certificates and authorities, and the cluster's token: blocks move, and nobody else hears a word."""
    token = pki / "token"
    token.write_text("secret\n")
    own = ["--cluster-tls-certfile", pki / "worker.pem", "--cluster-tls-keyfile", pki / "worker.key", "--cluster-tls-ca", pki / "ca.pem",
           "--cluster-token-file", token]
    fleet = roles(["prefill", "decode"], "--cluster-token-file", token, worker_flags=[*own, "--cluster-tls-name", "worker.weir"])
    prompt = prompt_of(300, 21)
    assert ask(fleet.router, prompt)[0] == ask(alone, prompt)[0]
    assert fleet.ok() == 1 and fleet.ok("failed") == 0
    with socket.create_connection(("127.0.0.1", fleet.ports[0]), timeout=5) as s:
        s.settimeout(1)
        try:
            heard = s.recv(8)
        except TimeoutError:
            heard = b""
        assert heard == b"", "a server in clear text says hello at once"
    # a worker that expects another name of its peers computes its prompts itself
    fleet.kill(1)
    fleet.wait_state(1, "gone")
    fleet.start(1, "--cluster-tls-name", "other.weir")
    fleet.wait_all()
    prompt = prompt_of(300, 22)
    assert ask(fleet.router, prompt)[0] == ask(alone, prompt)[0]
    assert fleet.ok() == 1 and fleet.ok("failed") == 1
    fleet.quiet()
