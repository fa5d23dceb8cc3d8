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


def startup_s(timeout_s: float) -> float:
    """The bound of a start: its own, because a short actors.timeout_s is meant for rounds; a long one lengthens it."""
    return max(STARTUP_S, timeout_s)


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
