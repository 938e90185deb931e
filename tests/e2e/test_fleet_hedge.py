"""Workers that stop without dying: requests go on elsewhere before the worker counts as gone, and what it says later is dropped."""
import signal
import threading

import pytest
from conftest import wait_for
from fleet import Fleet

ASK = {"model": "", "prompt": "tell me", "max_tokens": 400, "temperature": 1, "seed": 7, "extra_body": {"ignore_eos": True}}
MOCK = ["--mock", "--mock-step-ms", "5"]


@pytest.fixture
def fleet():
    f = Fleet(2, "--hedge-after", "0.5", "--policy", "round-robin", worker_flags=MOCK)
    yield f
    f.stop()


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
