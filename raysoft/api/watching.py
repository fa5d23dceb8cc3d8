"""Events of runs on their way to whoever looks on: a display, and the callbacks of a caller."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raysoft.api.callbacks import CallbackError, Calls, Running
from raysoft.comparison.batch import BatchEvents, Job, JobOutcome
from raysoft.config import RunConfig
from raysoft.rundir.folder import SUMMARY
from raysoft.rundir.reading import read_advisory
from raysoft.rundir.summary import FAILED, INTERRUPTED
from raysoft.runs.events import Events, Wish
from raysoft.types import RoundRecord

log = logging.getLogger("raysoft")


class Watching(Events):
    """Events of one run: shown, then told to the callbacks. `changed`: called when its folder holds something new."""

    def __init__(
        self, name: str, folder: Path, calls: Calls, shown: Events, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._name, self._folder, self._calls = name, folder, calls
        self._shown, self._changed = shown, changed
        self._run: Running | None = None

    def preparing(self, fraction: float, text: str) -> None:
        """Shown only."""
        self._shown.preparing(fraction, text)

    def rank_chosen(self, rank: int, ranks: Sequence[int]) -> None:
        """Shown only."""
        self._shown.rank_chosen(rank, ranks)

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """Told once: a lost coordinator starts again, and the run goes on."""
        self._shown.started(config, description)
        if self._run is None:
            self._run = Running(self._name, self._folder, config, dict(description))
            self._calls.tell("on_start", self._run)

    def round(self, record: RoundRecord) -> None:
        """Shown and told."""
        self._shown.round(record)
        self._changed()
        assert self._run is not None
        self._calls.tell("on_round", self._run, record)

    def checkpoint(self, tick: int, folder: Path) -> None:
        """Shown and told."""
        self._shown.checkpoint(tick, folder)
        self._changed()
        assert self._run is not None
        self._calls.tell("on_checkpoint", self._run, folder)

    def wish(self) -> Wish:
        """What the callbacks want, or whoever shows."""
        return self._calls.wish or self._shown.wish()

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """However the run in this block ends, the callbacks that were told of its start are told of its end."""
        try:
            yield
        except BaseException:
            failed = self._tell_end()
            if failed is not None:
                log.warning(f"{failed}")  # the run has ended for another reason, which the caller is told
            raise
        failed = self._tell_end()
        if failed is not None:
            raise failed

    def _tell_end(self) -> CallbackError | None:
        if self._run is None:
            return None
        summary, _ = read_advisory(self._folder / SUMMARY)
        return self._calls.tell_end(self._run, summary or {"status": FAILED, "metrics": {}})


class StopBatch(Exception):  # noqa: N818 - a wish, no error
    """A callback wants no more runs."""


class BatchWatching(BatchEvents):
    """Events of many runs: shown, then told to the callbacks. What these want ends the batch by an exception."""

    def __init__(self, store: Path, calls: Calls, shown: BatchEvents) -> None:
        self._store, self._calls, self._shown = store, calls, shown
        self._runs: dict[int, Running] = {}
        self.failed: list[JobOutcome] = []

    def preparing(self, fraction: float, text: str) -> None:
        """Shown only."""
        self._shown.preparing(fraction, text)

    def planned(self, total: int, reused: int, rounds: int) -> None:
        """Shown only."""
        self._shown.planned(total, reused, rounds)

    def begun(self, job: Job) -> None:
        """Told as the start of a run."""
        from raysoft.comparison.store import run_name

        self._shown.begun(job)
        self._runs[id(job)] = Running(job.label, self._store / run_name(job.label, job.config), job.config)
        self._tell("on_start", job)

    def record(self, job: Job, record: RoundRecord) -> None:
        """Told; `round` is what is shown."""
        self._shown.record(job, record)
        self._tell("on_round", job, record)

    def round(self, job: Job, tick: int) -> None:
        """Shown only."""
        self._shown.round(job, tick)

    def finished(self, outcome: JobOutcome) -> None:
        """Told where the run was begun here, not where it was found."""
        self._shown.finished(outcome)
        if outcome.error is not None:
            self.failed.append(outcome)
        run = self._runs.pop(id(outcome.job), None)
        if run is None:
            return
        if outcome.folder is not None:
            summary, _ = read_advisory(outcome.folder / SUMMARY)
        else:
            summary = {"status": FAILED, "metrics": {"error": outcome.error}}
        if (failed := self._calls.tell_end(run, summary)) is not None:
            raise failed

    def waiting(self, runs: int) -> None:
        """Shown only."""
        self._shown.waiting(runs)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """However the batch in this block ends, callbacks are told of the end of every run that they saw begin."""
        try:
            yield
        finally:
            for run in self._runs.values():
                failed = self._calls.tell_end(run, {"status": INTERRUPTED, "metrics": {}})
                if failed is not None:
                    log.warning(f"{failed}")  # the batch has ended for another reason, which the caller is told
            self._runs.clear()

    def _tell(self, hook: str, job: Job, *more: Any) -> None:
        self._calls.tell(hook, self._runs[id(job)], *more)
        if self._calls.wish == "stop":
            raise StopBatch
        if self._calls.wish is not None:
            raise self._calls.wish
