"""Workers that stop without dying: requests go on elsewhere before the worker counts as gone, and what it says later is dropped."""
import signal
import threading
import time

import pytest
from conftest import SCALE, wait_for
from fleet import Fleet
from test_fleet_replay import Clients, variants

ASK = {"model": "", "prompt": "tell me", "max_tokens": 400, "temperature": 1, "seed": 7, "extra_body": {"ignore_eos": True}}
MOCK = ["--mock", "--mock-step-ms", "5"]


@pytest.fixture
def fleet(fleet):
    return fleet(2, "--hedge-after", "0.5", "--policy", "round-robin", worker_flags=MOCK)


class Stream(threading.Thread):
    def __init__(self, router, **kw):
        super().__init__()
        self.router, self.kw, self.text, self.error = router, kw, "", None
        self.start()

    def run(self):
        try:
            for chunk in self.router.client().completions.create(stream=True, **ASK, **self.kw):
                self.text += chunk.choices[0].text
        except Exception as e:  # whatever a client can run into is what must not be
            self.error = repr(e)

    def end(self, want):
        self.join(60)
        assert not self.is_alive() and self.error is None and self.text == want, (self.error, len(self.text), len(want))


def test_an_engine_that_freezes(fleet):
    """For good, while its link goes on: without a hedge the requests there would wait for ever."""
    want = fleet.router.client().completions.create(**ASK).choices[0].text
    fleet.kill(0)
    fleet.start(0, "--mock-faults", "freeze@100")
    fleet.wait_state(0, "ready")
    streams = [Stream(fleet.router) for _ in range(4)]
    fleet.wait_state(0, "suspect")
    for s in streams:
        s.end(want)
    assert fleet.router.metric("weir_hedges_total") >= 1
    assert fleet.router.metric("weir_failovers_total") == 0 and fleet.states() == ["suspect", "ready"]
    for s in [Stream(fleet.router) for _ in range(2)]:  # a worker in doubt is a last resort
        s.end(want)


def test_a_process_that_stops_and_comes_back(fleet):
    want = fleet.router.client().completions.create(**ASK).choices[0].text
    before = fleet.router.metric("weir_hedges_total")
    streams = [Stream(fleet.router) for _ in range(4)]
    wait_for(lambda: set(fleet.serving()) == {0, 1} and all(s.text for s in streams), 10, "streams at both")
    fleet.kill(0, signal.SIGSTOP)
    wait_for(lambda: fleet.router.metric("weir_hedges_total") > before, 10, "a hedge")
    fleet.kill(0, signal.SIGCONT)
    for s in streams:
        s.end(want)
    assert fleet.router.metric("weir_failovers_total") == 0
    fleet.wait_all()
    wait_for(fleet.idle, 10, "nothing left at any worker")


def test_requests_of_every_kind_on_real_engines():
    """Workers that stop for a while, one after the other, under requests with everything that a move must carry over. Long enough to
    be hedged off, mostly too short to be cut off; whichever comes, clients get what they would have got."""
    f = Fleet(3, "--hedge-after", "0.5", "--max-replays", 20, worker_flags=["--max-num-seqs", 16])
    try:
        clients = Clients(f, variants(f.router.client()), 4)
        for _ in range(int(6 * SCALE) + 1):
            busy = []
            wait_for(lambda: clients.wrong or busy.extend(f.serving()) or busy, 20, "a worker with a request")
            if clients.wrong:
                break
            before = f.router.metric("weir_hedges_total")
            f.kill(busy[0], signal.SIGSTOP)
            end = time.monotonic() + 1.2
            while time.monotonic() < end and f.router.metric("weir_hedges_total") == before:
                time.sleep(.02)
            f.kill(busy[0], signal.SIGCONT)
            wait_for(lambda: clients.wrong or f.states() == ["ready"] * 3, 20, "three workers again")
        clients.end()
        assert f.router.metric("weir_hedges_total") >= 3 * SCALE
        assert f.router.metric_of("weir_failovers_total", outcome="failed") == 0
        wait_for(f.idle, 10, "nothing left behind")
    finally:
        f.stop()
