"""Fleets that are restarted, piece by piece, while clients use them."""
import os
import signal
import subprocess
import threading
import time

import openai
import pytest
from conftest import BUILD, SLOW, TINY, Server, wait_for
from test_fleet_replay import PROMPTS, Clients, completion

MOCK = ["--mock", "--mock-step-ms", 4]


def mock_cases(client):
    asks = [{"prompt": p, "seed": s, "max_tokens": 80, "n": n} for s, (p, n) in enumerate([(PROMPTS[0], 1), (PROMPTS[1], 2)])]
    return [(a, completion(client, a, False), s) for a in asks for s in (False, True)]


def test_workers_restarted_one_by_one(fleet):
    """SIGTERM, end, start again: worker after worker, under load; half of them have no time to drain and hand over."""
    f = fleet(3, worker_flags=MOCK)
    clients = Clients(f, mock_cases(f.router.client()), 6)
    for i in range(3):
        f.procs[i].send_signal(signal.SIGTERM)
        assert f.procs[i].wait(20 * SLOW) == 0
        f.start(i, "--drain-timeout", 0.1 if i else 30)
        f.wait_state(i, "ready")
    for i in (1, 2):
        f.procs[i].send_signal(signal.SIGTERM)
        begin = time.monotonic()
        assert f.procs[i].wait(20 * SLOW) == 0
        assert time.monotonic() - begin < 1.5 * SLOW
        f.start(i)
        f.wait_state(i, "ready")
    clients.end()
    assert f.router.metric_of("weir_failovers_total", outcome="failed") == 0
    wait_for(f.idle, 10, "nothing left behind")


def test_drain_hands_over(fleet):
    """What outlasts --drain-timeout goes on at another worker, in the middle of a stream."""
    f = fleet(2, worker_flags=["--mock", "--mock-step-ms", 10, "--drain-timeout", 0.5])
    ask = {"prompt": PROMPTS[0], "seed": 1, "max_tokens": 300}
    want = completion(f.router.client(), ask, False)
    got = []
    t = threading.Thread(target=lambda: got.append(completion(f.router.client(), ask, True)))
    t.start()
    wait_for(f.serving, 5, "the stream")
    (i,) = f.serving()
    begin = time.monotonic()
    f.procs[i].send_signal(signal.SIGTERM)
    f.wait_state(i, "draining", 1)
    assert f.procs[i].wait(10 * SLOW) == 0 and .4 < time.monotonic() - begin < 1.5 * SLOW
    t.join()
    assert got == [want] and f.router.metric_of("weir_failovers_total", outcome="ok") == 1


def test_one_of_two_routers_restarted(fleet):
    """A client with two addresses, as behind a balancer: a router that drains finishes what it has and takes nothing new."""
    f = fleet(2, worker_flags=MOCK, n_routers=2)
    want = completion(f.router.client(), {"prompt": PROMPTS[0], "seed": 1, "max_tokens": 60}, False)
    wrong, over, refused = [], [], []

    def run(k):
        while not over and not wrong:
            for r in (f.routers[k % 2], f.routers[1 - k % 2]):
                try:
                    got = completion(r.client(), {"prompt": PROMPTS[0], "seed": 1, "max_tokens": 60}, k % 3 == 0)
                except (openai.APIConnectionError, openai.InternalServerError) as e:  # refused at once: the other one has it
                    if isinstance(e, openai.InternalServerError) and "shutting down" not in str(e):
                        wrong.append(repr(e))
                    refused.append(1)
                    continue
                if got != want:
                    wrong.append(got)
                break
            else:
                wrong.append("both refused")

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    time.sleep(.5)
    old = f.routers[1]
    begin = time.monotonic()
    old.stop()
    assert time.monotonic() - begin < 5 * SLOW
    f.routers[1] = f.new_router()
    time.sleep(.5)
    over.append(1)
    for t in threads:
        t.join()
    assert not wrong, wrong[0]


def test_serve_restarts_its_workers_one_by_one(serve):
    """`weir serve --workers 3`: SIGUSR1 restarts them in turn, a killed one comes back alone, and no stream notices."""
    s = serve("--workers", 3, *MOCK, "--enable-admin-api")

    class One:
        router = s

    clients = Clients(One, mock_cases(s.client()), 4)
    first = set(s.worker_pids())
    s.proc.send_signal(signal.SIGUSR1)
    wait_for(lambda: len(s.worker_pids()) == 3 and not first & set(s.worker_pids()), 30, "three other workers")
    wait_for(lambda: "the workers are restarted" in s.output(), 10, "the end of it")
    os.kill(s.worker_pids()[0], signal.SIGKILL)
    wait_for(lambda: len(s.worker_pids()) == 3, 20, "the third worker")
    clients.end()
    assert s.metric_of("weir_failovers_total", outcome="failed") == 0


def test_model_without_workers(fleet):
    """A model whose workers are gone stays listed for --model-retention; a request waits for --model-wait, and is served by a
    worker that comes in that time."""
    f = fleet(1, "--model-wait", 3 * SLOW, "--model-retention", 5 * SLOW, worker_flags=MOCK)
    client = f.router.client()
    want = completion(client, {"prompt": "x", "seed": 1, "max_tokens": 5}, False)
    f.kill(0)
    f.wait_state(0, "gone")
    got = []
    t = threading.Thread(target=lambda: got.append(completion(client, {"prompt": "x", "seed": 1, "max_tokens": 5}, False)))
    t.start()
    time.sleep(.5)
    assert f.router.status("/readyz") == 503 and f.router.status("/livez") == 200
    f.start(0)
    t.join()
    assert got == [want]
    f.kill(0)
    f.wait_state(0, "gone")  # else the request may be of those that were lost with it
    begin = time.monotonic()
    with pytest.raises(openai.InternalServerError) as e:
        completion(client, {"prompt": "x", "max_tokens": 5}, False)
    assert e.value.status_code == 503 and int(e.value.response.headers["Retry-After"]) >= 1
    assert 2 * SLOW < time.monotonic() - begin < 4.5 * SLOW
    assert [m.id for m in client.models.list()] == [str(TINY)]
    wait_for(lambda: not list(client.models.list()), 10, "the model to be forgotten")
    f.start(0)
    wait_for(lambda: [m.id for m in client.models.list()] == [str(TINY)], 20, "the model to be back")


def test_two_models(tmp_path):
    """Two models by name behind one router: the list is the union; one of them dying harms the other in nothing."""
    urls = [f"ipc://{tmp_path}/{n}" for n in "ab"]
    procs = [subprocess.Popen([str(BUILD / "weir-worker"), str(TINY), "--served-model-name", n, "--listen", u, "--mock", "--mock-step-ms", "2"],
                              stderr=subprocess.DEVNULL) for n, u in zip("ab", urls)]
    r = Server("--worker", urls[0], "--worker", urls[1], command="router")
    try:
        client = r.client()
        wait_for(lambda: {m.id for m in client.models.list()} == {"a", "b"}, 20, "both models")
        for n in "ab":
            assert client.completions.create(model=n, prompt="x", max_tokens=3).model == n
        procs[0].kill()
        procs[0].wait()
        assert {m.id for m in client.models.list()} == {"a", "b"}
        assert client.completions.create(model="b", prompt="x", max_tokens=3).usage.completion_tokens == 3
        with pytest.raises(openai.InternalServerError) as e:
            client.completions.create(model="a", prompt="x", max_tokens=3)
        assert e.value.status_code == 503 and e.value.response.headers["Retry-After"]
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="c", prompt="x", max_tokens=3)
    finally:
        for p in procs:
            p.kill()
        r.stop()
