"""How soon a fleet notices: a worker that is gone within a second, a frozen one settled within two. Bounds are five times the
figure; the distributions are printed."""
import signal
import time

import pytest
from conftest import SCALE, SLOW, wait_for
from fleet import Fleet, percentiles
from test_fleet_replay import stream_of


@pytest.fixture(scope="module")
def fleet():
    f = Fleet(3, "--max-replays", 50, worker_flags=["--mock", "--mock-step-ms", 5])
    yield f
    f.stop()


def test_failure_seen(fleet):
    """kill -9 of the worker that a stream is at: the router says that it is gone, and the stream goes on."""
    seen, silences = [], []
    for _ in range(max(int(8 * SCALE), 4)):
        fleet.wait_all()
        _, s = stream_of(fleet)
        (i,) = fleet.serving()
        began = last = time.monotonic()
        fleet.kill(i)
        wait_for(lambda: fleet.states()[i] == "gone", 10, "gone")
        seen.append(time.monotonic() - began)
        longest = 0
        for _ in s:
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        silences.append(longest)
        fleet.start(i)
    percentiles("failure seen (kill -9 to the list of workers, asked every 20 ms)", seen)
    percentiles("the stream's longest silence", silences)
    assert max(seen) < 5 * SLOW and max(silences) < 5 * SLOW


def test_frozen_settled(fleet):
    """SIGSTOP of the worker that a stream is at, until the stream goes on at another one."""
    settled = []
    for _ in range(max(int(3 * SCALE), 2)):
        fleet.wait_all()
        _, s = stream_of(fleet, 300)
        (i,) = fleet.serving()
        fleet.kill(i, signal.SIGSTOP)
        last, longest = time.monotonic(), 0
        for _ in s:
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        settled.append(longest)
        fleet.kill(i, signal.SIGCONT)
    percentiles("frozen worker settled (SIGSTOP to the next token)", settled)
    assert 1 < max(settled) < 2 * 5 * SLOW
