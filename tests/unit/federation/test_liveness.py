"""Signs of life: silence as it is counted, work that hangs, a pulse beside work."""

import itertools
import threading
import time
from functools import partial

import pytest

from raysoft.comparison.workers import Pool
from raysoft.config.presets import load_config
from raysoft.federation.liveness import (
    ATTEMPTS,
    STARTUP_S,
    Pulse,
    Silence,
    Steps,
    Vitals,
    in_background,
    standstill_s,
    startup_s,
)
from raysoft.runs.run import run
from tests.conftest import SMALL_RUN
from tests.plug_in_packages import make_package


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_pause_of_the_listener_is_not_a_silence_of_the_other():
    clock = Clock()
    silence = Silence(clock)
    for _ in range(3):
        clock.now += 1
        seconds = silence.look()
    assert seconds == 3
    clock.now += 10_000  # Ctrl-Z
    assert silence.look() == 3 + Silence.STEP_S
    silence.heard()
    clock.now += 1
    assert silence.look() == 1


def test_work_in_the_background_gives_its_value_or_its_error():
    assert in_background(lambda: 7, "test").result(5) == 7
    with pytest.raises(OSError, match="disk"):
        in_background(lambda: (_ for _ in ()).throw(OSError("disk")), "test").result(5)


def test_work_that_hangs_keeps_nobody():
    never = threading.Event()
    future = in_background(never.wait, "test")
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert all(one.daemon for one in threading.enumerate() if one.name == "test"), "the interpreter waits for others"
    never.set()


def test_a_pulse_beats_while_its_block_runs_and_not_after(monkeypatch):
    monkeypatch.setattr("raysoft.federation.liveness.BEAT_S", 0.01)
    beats = []
    with Pulse(lambda: beats.append(1)):
        deadline = time.monotonic() + 5
        while len(beats) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    count = len(beats)
    assert count >= 3
    time.sleep(0.1)
    assert len(beats) == count


def test_a_start_has_a_bound_of_its_own():
    assert startup_s(5) == STARTUP_S
    assert startup_s(10 * STARTUP_S) == 10 * STARTUP_S
    assert standstill_s(10) == STARTUP_S + 2 * ATTEMPTS * 10


@pytest.fixture
def watched():
    """A process with a bound of 10 seconds, and a start of 100, on a clock of its own."""
    clock = Clock()
    vitals = Vitals(clock, startup_s=100.0)
    vitals.begin(10.0)

    def later(seconds, heard=None):
        for _ in range(seconds):
            clock.now += 1
            if heard is not None:
                vitals.heard(heard() if callable(heard) else heard)
            if (verdict := vitals.verdict()) is not None:
                return verdict
        return None

    return later


def test_a_process_that_says_nothing_has_the_bound_of_its_start_first(watched):
    assert watched(100) is None
    assert watched(1) == "gave no sign of life within 100 seconds of its start"


def test_a_process_that_falls_silent_has_the_bound_of_a_call(watched):
    assert watched(1, heard=0) is None
    assert watched(10) is None
    assert watched(1) == "gave no sign of life within actors.timeout_s=10 seconds"


def test_a_process_that_lives_and_gets_no_further_is_hung_too(watched):
    steps = itertools.count()
    assert watched(1000, heard=lambda: next(steps)) is None
    bound_s = 100 + 2 * ATTEMPTS * 10
    assert watched(1 + bound_s, heard=7) is None, "the first 7 was a step"
    assert watched(1, heard=7).startswith(f"has got no further for {bound_s} seconds")


def test_every_pack_of_a_run_is_a_step(tmp_path):
    before = Steps.done
    config = load_config("soft", [*SMALL_RUN, "executor=inline", "actors.pack_size=1"])
    run(config, tmp_path / "run")
    assert Steps.done - before > config.rounds * config.cohort.size


@pytest.mark.slow
@pytest.mark.alone
def test_a_worker_in_a_loop_without_end_is_ended(tmp_path, monkeypatch):
    """It beats from its second thread all the while."""
    source = """
from raysoft.wireless.static import Config, build as build_static


class Endless:
    def __init__(self, inner):
        self.inner = inner

    def state(self, clients_K, block):
        while block >= 1:
            pass
        return self.inner.state(clients_K, block)


def build(config, rng):
    return Endless(build_static(config, rng))
"""
    monkeypatch.syspath_prepend(make_package(tmp_path / "site", "channels", "endless", source))
    monkeypatch.setattr("raysoft.comparison.workers.Vitals", partial(Vitals, startup_s=10.0))
    config = load_config("soft", [*SMALL_RUN, "channel.name=endless", "executor=inline", "actors.timeout_s=4"])
    with Pool(1, tmp_path) as pool:
        pool.give("key", config, "run")
        last = next(reply for _ in range(200) for reply in pool.replies() if reply.kind not in ("begun", "round"))
    assert last.kind == "failed"
    assert last.text.startswith("its process has got no further for 34 seconds"), last.text
