"""What the driver sees of its trials: it draws them, and notes in the journal what their run folders cannot tell."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from ray import tune

from raysoft.config import ActorsConfig
from raysoft.errors import ResourceError
from raysoft.sweep.folder import CHANGED, FAILED, STOPPED, SweepFolder
from raysoft.sweep.points import Sweep
from raysoft.sweep.reports import RUN, RUNNING, WORST
from raysoft.sweep.results import DONE
from raysoft.sweep.signs import Listener
from raysoft.sweep.work import Work

log = logging.getLogger("raysoft")


class Watch(tune.Callback):
    """Callback of Ray Tune, in the driver."""

    def __init__(self, sweep: Sweep, folder: SweepFolder, work: Work, events: Any, actors: ActorsConfig) -> None:
        self._sweep, self._folder, self._work, self._events = sweep, folder, work, events
        self._patience_s, self._idle_since = max(actors.wait_for_nodes_s, actors.timeout_s), time.monotonic()
        self._listener = Listener(actors.timeout_s)
        self._last: dict[str, dict[str, Any]] = {}
        self._values = {job["trial"]: job["values"] for job in work.jobs}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, although a sweep never reads that back."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        """Tune itself would wait for ever: for room, and for a process that hangs, which is ended here.

        Raises ResourceError where no trial has found room in time.
        """
        for name, verdict in self._listener.listen(trials).items():
            log.warning("%s: its process %s and was ended", name, verdict)
        now = time.monotonic()
        if any(trial.status == "RUNNING" for trial in trials) or all(trial.is_finished() for trial in trials):
            self._idle_since = now
        elif now - self._idle_since > self._patience_s:
            raise ResourceError(
                f"no trial has found room on the cluster for {self._patience_s:g} seconds; others may hold it, or set "
                "actors.wait_for_nodes_s to more where an autoscaler adds nodes"
            )

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """A round, or the last word of a trial."""
        job, name = trial.config["job"], str(trial)
        if self._values.setdefault(name, job["values"]) != job["values"]:
            self._values[name] = job["values"]
            what = {"values": job["values"], "copied_from": result.get("copied_from")}
            self._folder.note(CHANGED, trial=name, round=result["round"], **what)
        self._last[name] = result
        if name not in self._work.ended:
            self._events.round(name, result["round"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial has ended by itself, or the scheduler has stopped it."""
        name = str(trial)
        result = self._last.get(name, {"status": FAILED, "reason": "it ended without a word", "round": 0})
        if self._sweep.config.storage is not None:
            self._fetch(trial, name)
        if name in self._work.ended:
            return
        status, tick = result["status"], result["round"]
        if status == DONE:
            metric = self._sweep.config.metric
            value = result[metric]
            text = f"{metric} {value:.4g}" if abs(value) < WORST else f"done, but it has measured no {metric}"
            self._events.finished(name, DONE, text)
        elif status == RUNNING:
            reason = f"stopped early at round {tick} by {self._sweep.config.scheduler.name}"
            self._end(name, STOPPED, tick, reason)
        else:
            self._end(name, FAILED, tick, result.get("reason") or "no reason given")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """A trial's process has died too often."""
        name = str(trial)
        error = trial.pickled_error and trial.get_error()
        lines = str(error or "").strip().splitlines() or ["its process died"]
        tick = self._last.get(name, {}).get("round", 0)
        self._end(name, FAILED, tick, f"its process died {trial.num_failures} times, last: {lines[0][:300]}")

    def _end(self, name: str, event: str, tick: int, reason: str) -> None:
        self._folder.note(event, trial=name, round=tick, reason=reason)
        self._events.finished(name, event, reason)

    def _fetch(self, trial: Any, name: str) -> None:
        """Bring a run folder from storage to the sweep's own folder."""
        if trial.checkpoint is None:
            return
        target = self._folder.run(name)
        with trial.checkpoint.as_directory() as place:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(Path(place) / RUN, target)
