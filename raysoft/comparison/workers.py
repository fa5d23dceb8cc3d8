"""Worker processes of a batch: each takes one run at a time over a pipe and reports back.

Replies: `begun`, `round` (tick), then one of `done` (folder), `found` (folder; another process was faster), `failed`
(reason), `claimed_elsewhere`. A worker that dies fails its run, with the signal in the reason, and is replaced; so does
one that gives no sign of life, which it sends every second from a thread of its own, or that gets no further.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from raysoft.comparison.store import claim, find_claimed
from raysoft.config import RunConfig
from raysoft.errors import RaysoftError
from raysoft.federation.liveness import BEAT_S, Pulse, Steps, Vitals
from raysoft.rundir.summary import without_columns
from raysoft.runs.events import Events
from raysoft.types import RoundRecord

GRACE_S = 20.0  # an interrupted worker closes its run within a round's stage


@dataclass(frozen=True)
class Reply:
    """What a worker says about the run it holds."""

    key: str
    kind: str
    text: str = ""
    tick: int = 0
    steps: int = 0  # done by its process so far
    record: RoundRecord | None = None  # of a round


class Pool:
    """At most `size` spawned workers, started when first needed; a context manager that ends them."""

    def __init__(self, size: int, store: Path) -> None:
        self._size = size
        self._store = store
        self._workers: list[_RunProcess] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        for worker in self._workers:
            worker.ask_to_end(now=kind is not None)
        for worker in self._workers:
            worker.end()

    @property
    def busy(self) -> int:
        """Workers that hold a run."""
        return sum(worker.key is not None for worker in self._workers)

    @property
    def free(self) -> bool:
        """Whether a run can be given away."""
        return self.busy < self._size

    def give(self, key: str, config: RunConfig, name: str) -> None:
        """Hand a run to a free worker."""
        self._workers = [worker for worker in self._workers if worker.key is not None or worker.process.is_alive()]
        worker = next((worker for worker in self._workers if worker.key is None), None)
        if worker is None:
            worker = _RunProcess(self._store)
            self._workers.append(worker)
        worker.take(key, config.actors.timeout_s)
        with contextlib.suppress(BrokenPipeError):  # it has died meanwhile: `replies` says so
            worker.pipe.send((key, config, name))

    def replies(self) -> Iterator[Reply]:
        """What workers have to say now; waits a second at most. Ends workers that hang."""
        ready = wait([worker.pipe for worker in self._workers if worker.key is not None], BEAT_S)
        for worker in [worker for worker in self._workers if worker.key is not None]:
            reply = self._said(worker) if worker.pipe in ready else None
            if reply is None or reply.kind == "alive":
                verdict = worker.vitals.verdict()
                if verdict is None:
                    continue
                reply = self._put_down(worker, verdict)
            if reply.kind not in ("begun", "round"):
                worker.key = None
            yield reply

    def _said(self, worker: _RunProcess) -> Reply:
        try:
            reply: Reply = worker.pipe.recv()
        except (EOFError, OSError):
            self._workers.remove(worker)
            return Reply(str(worker.key), "failed", worker.epitaph())
        worker.vitals.heard(reply.steps)
        return reply

    def _put_down(self, worker: _RunProcess, verdict: str) -> Reply:
        """End a process that hangs."""
        self._workers.remove(worker)
        worker.put_down()
        return Reply(str(worker.key), "failed", f"its process {verdict} and was ended")


class _RunProcess:
    """The pool's side of one worker process."""

    def __init__(self, store: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, store), daemon=True)
        self.key: str | None = None
        self.vitals = Vitals()
        with _interrupts_ignored():  # inherited: Ctrl-C in a terminal reaches every process, but ends the pool's only
            self.process.start()
        theirs.close()

    def take(self, key: str, timeout_s: float) -> None:
        """It is busy with a run from now on, which bounds its silence."""
        self.key = key
        self.vitals.begin(timeout_s)

    def put_down(self) -> None:
        """End it, whatever holds it."""
        self.process.kill()
        self.process.join(GRACE_S)

    def ask_to_end(self, now: bool) -> None:
        """`now`: in the middle of a run, too."""
        if now and self.process.is_alive():
            self.process.terminate()  # becomes KeyboardInterrupt there
        self.pipe.close()

    def end(self) -> None:
        """Wait for the process; it is killed where it does not end."""
        try:
            self.process.join(GRACE_S)
        finally:  # a second Ctrl-C ends the waiting
            if self.process.is_alive():
                self.process.kill()
                self.process.join(GRACE_S)

    def epitaph(self) -> str:
        """Why a run ended with its process."""
        self.process.join(GRACE_S)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            more = "; was the memory exhausted? use fewer --workers" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{more}"
        return f"its process ended with exit code {code}"


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------------------------------------- in the worker process


class _Telling(Events):
    """Events of a run, told over the pipe. A pool that is gone ends the run: its pipe is broken."""

    def __init__(self, pipe: Connection, key: str) -> None:
        self._pipe, self._key = pipe, key
        self._turn = threading.Lock()  # the pulse talks, too

    def say(self, kind: str, text: str = "", tick: int = 0, record: RoundRecord | None = None) -> None:
        """One reply."""
        with self._turn:
            self._pipe.send(Reply(self._key, kind, text, tick, Steps.done, record))

    def alive(self) -> None:
        """A sign of life."""
        self.say("alive")

    def preparing(self, fraction: float, text: str) -> None:
        """Nothing."""

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """The run has begun."""
        self.say("begun")

    def round(self, record: RoundRecord) -> None:
        """A round is on disk."""
        self.say("round", tick=record.round, record=replace(record, metrics=without_columns(record.metrics)))

    def checkpoint(self, tick: int, folder: Path) -> None:
        """Nothing."""


def _serve(pipe: Connection, store: Path) -> None:
    """Run what comes over the pipe until it is closed."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the numerical libraries start their threads
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError):
        while True:
            key, config, name = pipe.recv()
            telling = _Telling(pipe, key)
            with Pulse(telling.alive):
                kind, text = _answer(telling, store, key, config, name)
            telling.say(kind, text)


def _answer(telling: _Telling, store: Path, key: str, config: RunConfig, name: str) -> tuple[str, str]:
    """Do one run, unless another process does it or has done it; kind and text of the last reply."""
    with claim(store, key) as mine:
        if not mine:
            return "claimed_elsewhere", ""
        done = find_claimed(store, key, config)
        if done is not None:
            return "found", str(done)
        from raysoft.runs.run import run

        try:
            run(config, store / name, overwrite=True, events=telling, report=False)
        except BrokenPipeError:
            raise  # nobody listens any more
        except Exception as error:  # whatever ends one run must not end the others
            expected = isinstance(error, RaysoftError)
            return "failed", str(error) if expected else f"{type(error).__name__}: {error}"
        return "done", str(store / name)
