"""Signs of life: how a process that hangs is told from one that works, and how a wait on something hung ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

R = TypeVar("R")
BEAT_S = 1.0  # how often a sign of life is given, and looked for
STARTUP_S = 600.0  # a process that starts imports for seconds, and reads model and data for minutes
ATTEMPTS = 3  # to get one call done


def startup_s(timeout_s: float, least_s: float = STARTUP_S) -> float:
    """The bound of a start: its own, because a short actors.timeout_s is meant for rounds; a long one lengthens it."""
    return max(least_s, timeout_s)


def standstill_s(timeout_s: float, least_s: float = STARTUP_S) -> float:
    """The longest time between two steps of a run: one that starts, then as many attempts as there may be."""
    return startup_s(timeout_s, least_s) + 2 * ATTEMPTS * timeout_s


class Steps:
    """How many pieces of work this process has done: what tells a loop without end from work that takes long.

    A piece is what `actors.timeout_s` bounds, e.g. one stage on one pack of clients.
    """

    done = 0

    @classmethod
    def one(cls) -> None:
        """One more."""
        cls.done += 1


class Silence:
    """Seconds without a sign of life, as far as this process was awake to hear one.

    A pause of its own (Ctrl-Z, a debugger, a laptop that slept) does not count: a look adds at most STEP_S.

    >>> times = iter([0.0, 1.0, 2.0, 1000.0, 1001.0])
    >>> silence = Silence(clock=lambda: next(times))
    >>> silence.look(), silence.look(), silence.look()
    (1.0, 2.0, 7.0)
    """

    STEP_S = 5 * BEAT_S

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._looked = clock()

    def look(self) -> float:
        """The length of the silence; to be called every BEAT_S or so while one waits."""
        now = self._clock()
        self._seconds += min(now - self._looked, self.STEP_S)
        self._looked = now
        return self._seconds

    def heard(self) -> None:
        """A sign of life: the silence begins anew."""
        self._seconds = 0.0
        self._looked = self._clock()


class Vitals:
    """What is heard of another process that works on a run: whether it lives, and whether it gets any further.

    It gives signs of life from a second thread, which goes on while the first one is in a loop without end; so a sign
    also tells how many steps are done. `startup_s` bounds its start, unless `timeout_s` is longer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, startup_s: float = STARTUP_S) -> None:
        self._clock = clock
        self._startup_s = startup_s
        self._up = False  # it has given a sign of life
        self._steps = -1

    def begin(self, timeout_s: float) -> None:
        """It gets something to do, which bounds it; what was heard before counts no more, except that it is up."""
        self._timeout_s = timeout_s
        self._silence, self._standstill = Silence(self._clock), Silence(self._clock)

    def heard(self, steps: int) -> bool:
        """A sign of life, with the number of steps so far; whether that has changed."""
        self._up = True
        self._silence.heard()
        further = steps != self._steps
        if further:
            self._steps = steps
            self._standstill.heard()
        return further

    def verdict(self) -> str | None:
        """What is wrong with it, for a sentence that begins with its name; to be asked every BEAT_S or so."""
        silent, still = self._silence.look(), self._standstill.look()
        bound_s = self._timeout_s if self._up else startup_s(self._timeout_s, self._startup_s)
        if silent > bound_s:
            what = f"actors.timeout_s={bound_s:g} seconds" if self._up else f"{bound_s:g} seconds of its start"
            return f"gave no sign of life within {what}"
        still_s = standstill_s(self._timeout_s, self._startup_s)
        if still > still_s:
            return (
                f"has got no further for {still_s:g} seconds, the bound that actors.timeout_s={self._timeout_s:g} gives"
            )
        return None


def in_background(work: Callable[[], R], name: str) -> Future[R]:
    """What `work` returns or raises, later. Where it hangs for ever, it keeps no process from ending."""
    future: Future[R] = Future()

    def do() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, name=name, daemon=True).start()
    return future


class Pulse:
    """Calls `beat` every BEAT_S from a thread of its own while the block runs; ends quietly where that fails."""

    def __init__(self, beat: Callable[[], object]) -> None:
        self._beat = beat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(BEAT_S)

    def _go_on(self) -> None:
        try:
            while not self._over.wait(BEAT_S):
                self._beat()
        except Exception:  # nobody listens any more, and the work itself will notice
            return
