"""Signs of life: silence as it is counted, work that hangs, a pulse beside work."""

import threading
import time

import pytest

from raysoft.liveness import STARTUP_S, Pulse, Silence, in_background, startup_s


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
    monkeypatch.setattr("raysoft.liveness.BEAT_S", 0.01)
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
