"""Which worker gets a request: policies, and what the router knows of prefix caches, with real processes."""
import concurrent.futures
import json
import random
import time

import pytest
from conftest import wait_for

WORDS = "the house by the sea and a story about a dog who went to the end of the world to see what was there".split()


def text(seed, n_words):
    r = random.Random(seed)
    return " ".join(r.choice(WORDS) for _ in range(n_words))


def ask(client, prompt, **kw):
    return client.completions.create(model="", prompt=prompt, max_tokens=kw.pop("max_tokens", 4), temperature=0, **kw)


def cached(answer):
    return answer.usage.prompt_tokens_details.cached_tokens


def drift(router):
    return [router.metric(f"weir_prefix_{n}_tokens_total") for n in ("predicted", "actual", "drift")]


def settled(router):
    """The index holds what has been told so far; it is counted once a second."""
    seen = []
    wait_for(lambda: seen.append(router.metric("weir_prefix_index_blocks")) or len(seen) > 15 and len(set(seen[-12:])) == 1,
             20, "the index does not change")
    return seen[-1]


def test_prefix_and_drift(fleet):
    """Real engines: what the router expects is what workers report, through a new worker and a reset."""
    f = fleet(2, "--enable-prompt-tokens-details")
    client = f.router.client()
    prompts = [text(i, 120) for i in range(6)]
    first = [ask(client, p) for p in prompts]
    assert [cached(a) for a in first] == [0] * 6
    settled(f.router)
    again = [ask(client, p) for p in prompts]
    assert [a.choices[0].text for a in again] == [a.choices[0].text for a in first]
    n = first[0].usage.prompt_tokens
    assert all(cached(a) == (a.usage.prompt_tokens - 1) // 16 * 16 for a in again) and n > 64
    predicted, actual, off = drift(f.router)
    assert predicted == actual == sum(map(cached, again)) and off == 0
    assert f.router.metric_of("weir_route_decisions_total", policy="prefix", reason="prefix") == 6

    # A worker that returns has an empty cache; the other one's prefixes stay where they are.
    f.kill(0)
    f.wait_state(0, "gone")
    f.start(0)
    f.wait_all()
    settled(f.router)
    for p in prompts:
        ask(client, p)
    predicted, actual, off = drift(f.router)
    assert predicted == actual and off == 0

    req = f.router.url + "/reset_prefix_cache"
    import urllib.request
    with urllib.request.urlopen(urllib.request.Request(req, data=b"{}", method="POST",
                                                       headers={"Content-Type": "application/json"}), timeout=10) as r:
        assert json.loads(r.read())["success"]
    wait_for(lambda: f.router.metric("weir_prefix_index_blocks") == 0, 10, "an empty index")
    assert cached(ask(client, prompts[0])) == 0
    assert drift(f.router)[2] == 0


def shared_load(f, n_groups, n_requests):
    """Prefixes of some 320 tokens, one after the other in an order that returns to each; counts what was found."""
    client = f.router.client()
    prefixes = [text(100 + g, 250) for g in range(n_groups)]
    order = list(range(n_groups)) * (n_requests // n_groups)
    random.Random(5).shuffle(order)
    begin = time.monotonic()

    def one(i):
        return ask(client, prefixes[order[i]] + f" {i}", max_tokens=8).usage

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        list(pool.map(one, range(len(order))))
    hits = sum(f.router.metric_of("vllm:prefix_cache_hits_total", engine=str(e)) for e in range(4))
    return hits, len(order) / (time.monotonic() - begin)


def test_shared_prefixes(fleet):
    """Four mock workers whose caches hold a quarter of the prefixes each: in turn they thrash, by prefix they do not."""
    found = {}
    for policy in ("round-robin", "prefix"):
        f = fleet(4, "--policy", policy,
                  worker_flags=["--mock", "--mock-step-ms", "1", "--mock-prefill-us-per-token", "100",
                                "--mock-cache-blocks", "150"])
        found[policy] = shared_load(f, 24, 480)
    print({k: f"{hits:.0f} tokens found, {rate:.0f} requests/s" for k, (hits, rate) in found.items()})
    assert found["prefix"][0] > 1.5 * found["round-robin"][0]


def counts(f):
    return [f.router.metric_of("vllm:request_success_total", engine=str(e), finished_reason="length") for e in range(4)]


@pytest.mark.parametrize("policy", ["round-robin", "least-load", "power-of-two"])
def test_spread(fleet, policy):
    f = fleet(4, "--policy", policy, worker_flags=["--mock", "--mock-step-ms", "1"])
    client = f.router.client()
    for i in range(40):
        ask(client, text(i, 5))
    n = counts(f)
    assert sum(n) == 40 and min(n) >= (10 if policy == "round-robin" else 2)
    assert f.router.metric("weir_prefix_index_blocks") == 0


def test_consistent_hash(fleet):
    """A key, by header or by the conversation's beginning, stays with its worker, and goes elsewhere when that is gone."""
    f = fleet(4, "--policy", "consistent-hash", "--hash-header", "X-Chat", worker_flags=["--mock", "--mock-step-ms", "1"])
    client = f.router.client()
    for key in ("a", "b", "c"):
        before = counts(f)
        for i in range(5):
            ask(client, text(i, 5), extra_headers={"x-chat": key})
        assert sorted(a - b for a, b in zip(counts(f), before)) == [0, 0, 0, 5]
    before, turns = counts(f), [{"role": "user", "content": "who are you"}]
    for i in range(4):
        client.chat.completions.create(model="", messages=turns, max_tokens=4)
        turns += [{"role": "assistant", "content": "me"}, {"role": "user", "content": f"really {i}"}]
    moved = [a - b for a, b in zip(counts(f), before)]
    assert sorted(moved) == [0, 0, 0, 4]
    engine = moved.index(4)
    url = next(w["address"] for w in f.workers() if w["id"] == engine)
    f.kill(f.urls.index(url))
    client.chat.completions.create(model="", messages=turns, max_tokens=4)
    assert f.router.metric_of("weir_route_decisions_total", policy="consistent-hash", reason="hash") >= 20
