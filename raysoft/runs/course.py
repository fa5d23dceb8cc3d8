"""The way of a run from where it stands to its summary: prepared, computed round by round, closed, however it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from contextlib import nullcontext
from typing import Any

from raysoft.errors import ConfigError, CoordinatorLostError, RaysoftError, ResourceError
from raysoft.federation.liveness import in_background
from raysoft.planning.stage import planned
from raysoft.planning.table import plan_json
from raysoft.rundir.folder import ROUNDS, SUMMARY, Position, record_row
from raysoft.rundir.summary import DONE, FAILED, INTERRUPTED, STOPPED
from raysoft.runs.advice import warn_of_catch_up, warn_of_round, warn_of_slow_start
from raysoft.runs.bases import ensure_bases
from raysoft.runs.checkpoint import CHECKPOINTS
from raysoft.runs.checkpoint_writer import CheckpointWriter
from raysoft.runs.events import Events, Wish
from raysoft.runs.loading import LOADING
from raysoft.runs.outcome import export_adapter, with_shares
from raysoft.runs.session import Session, Sessions, own_session
from raysoft.runs.standing import Standing
from raysoft.runs.trackers.base import Beginning
from raysoft.runs.trackers.fanout import trackers_of
from raysoft.types import RoundRecord

log = logging.getLogger("raysoft")
ATTEMPTS = 3  # coordinators in a row that may die without finishing a round
Ending = tuple[Mapping[str, Any], str]  # totals of a run, and the fingerprint of its adapter


class Course:
    """Takes a run from where it stands to its summary. `session`: where its coordinators live (None: see own_session).

    In this order: `_prepare`, then for every coordinator (one, unless it dies) `_compute`, in which each round is
    computed, kept on disk, shown, and where it is due saved as a checkpoint.
    """

    def __init__(self, standing: Standing, events: Events, session: Sessions | None) -> None:
        self.standing = standing
        self.events = events
        self.trackers = trackers_of(standing.config)
        self._placed = session is not None
        self._session = session or own_session
        self._stopped = False

    def conduct(self) -> dict[str, Any]:
        """Run to the end; the summary."""
        standing = self.standing
        try:
            with LOADING:
                self._prepare()
            totals, digest = self._with_coordinators()
        except (KeyboardInterrupt, BrokenPipeError):  # the latter: nobody reads the output any more
            if standing.records:
                self._close_early(INTERRUPTED)
            elif standing.fresh:
                standing.out.discard()
            raise
        except SystemExit:  # Tune stops a trial this way; the sweep keeps the reason
            self._finish_trackers(standing.summary(STOPPED))
            raise
        except Exception as error:
            refused = isinstance(error, (ConfigError, ResourceError)) and not standing.records
            if refused and standing.fresh:
                standing.out.discard()  # before anything began
            else:
                self._close_early(FAILED, metrics={"error": str(error) or type(error).__name__})
            raise
        status = STOPPED if self._stopped else DONE
        return self._close(status, adapter_sha256=digest, metrics=with_shares(totals, standing.records))

    # ---------------------------------------------------------------------------------------------- before the rounds

    def _prepare(self) -> None:
        """What needs no coordinator: inputs, an embedded base, the rank where it is to be planned."""
        from raysoft.runs.inputs import check_inputs, check_tight_budget

        standing = self.standing
        check_inputs(standing.config)  # before Ray, which takes its time to start
        standing.note_content()
        ensure_bases([standing.config], self.events)
        config, plan = planned(standing.config, self.events)
        if plan is not None:
            standing.out.write_plan(plan_json(plan))
            standing.settle(config)  # model.lora.rank: plan is now a number
        if standing.fresh and config.executor == "ray":
            check_tight_budget(config)

    def _with_coordinators(self) -> Ending:
        """Compute with one coordinator, or with the next where it dies, from the last checkpoint."""
        standing = self.standing
        losses = 0
        while True:
            before = len(standing.records)
            try:
                return self._compute()
            except CoordinatorLostError as error:
                has_advanced = len(standing.records) > before
                losses = 1 if has_advanced else losses + 1
                if losses == ATTEMPTS:
                    raise RaysoftError(f"{error}, {ATTEMPTS} times in a row") from error
                log.warning(f"{error}; going on after round {standing.after}")
                standing.go_back()

    # ------------------------------------------------------------------------------------------------------ the rounds

    def _compute(self) -> Ending:
        """All rounds that are left, with one coordinator. Raises CoordinatorLostError where it dies."""
        standing, at = self.standing, self.standing.at
        self._say_that_it_starts()
        began = time.perf_counter()
        with self._checkpoint_writer() as writer, self._session(standing.config) as coordinator:
            with LOADING:
                started = coordinator.start(None if at is None else at.state)
            startup_s = time.perf_counter() - began
            info = started.info
            standing.check_base(info.base_checksum)
            standing.check_content()
            standing.settle(started.config)  # pack_size: auto is now a number
            self.events.started(standing.config, info.description)
            if standing.fresh and not standing.records:
                warn_of_catch_up(standing.config, info.space)
            if standing.records:
                self._begin_trackers(info.description, standing.records)
            first = len(standing.records)
            for tick in range(first, standing.config.rounds + 1):
                with LOADING if tick <= first + 1 else nullcontext():  # the first ones load what is left
                    record = coordinator.baseline() if tick == 0 else coordinator.round(tick)
                position = self._keep(record, info.description)
                wish = self.events.wish()
                if writer.due(tick, standing.config.rounds, ends=wish is not None):
                    self._save(writer, coordinator, position, info.base_checksum)
                if wish is not None:
                    self._end_early(writer, wish)
                    break
            model, totals, details = coordinator.finish()
            standing.out.write_evaluation(details, standing.records[-1].round)
            with LOADING:
                digest = export_adapter(coordinator.fetch_base(), info.space, model, standing.config, standing.out.path)
            self._tell(writer)
        if isinstance(wish := self.events.wish(), RaysoftError):  # it came with the last checkpoint
            raise wish
        if standing.fresh and standing.config.executor == "ray" and not self._placed:
            warn_of_slow_start(standing.config, startup_s, standing.records)
        return totals, digest

    def _say_that_it_starts(self) -> None:
        where = "starting Ray, " if self.standing.config.executor == "ray" else ""
        after = "" if self.standing.at is None else f", to go on after round {self.standing.after}"
        self.events.preparing(0.0, f"{where}loading model and data{after}")

    def _keep(self, record: RoundRecord, description: Mapping[str, str]) -> Position:
        """A round on disk first, then to everybody who looks on; where its line ends."""
        standing = self.standing
        position = standing.add(record)
        earlier = standing.records[:-1]
        self._begin_trackers(description, earlier)
        self.trackers.round(record_row(record))
        self.events.round(record)
        warn_of_round(standing.config, record, earlier)
        return position

    def _save(self, writer: CheckpointWriter, coordinator: Session, position: Position, base_checksum: str) -> None:
        """Begin to write a checkpoint; the one before is on disk by now, or has failed, which ends the run."""
        self._tell(writer)
        checkpoint = self.standing.checkpoint(coordinator.snapshot(), position, base_checksum)
        self.standing.at = checkpoint  # a coordinator that dies before it is on disk goes on from it all the same
        writer.put(checkpoint)

    def _end_early(self, writer: CheckpointWriter, wish: Wish) -> None:
        """The caller wants no more rounds. Raises what it wants the run to end with, once its state is on disk."""
        self._tell(writer)
        if isinstance(wish, RaysoftError):
            raise wish
        self._stopped = len(self.standing.records) <= self.standing.config.rounds

    def _tell(self, writer: CheckpointWriter) -> None:
        for tick, path in writer.written(wait=True):
            self.events.checkpoint(tick, path)

    def _checkpoint_writer(self) -> CheckpointWriter:
        folder, config = self.standing.out.path, self.standing.config
        return CheckpointWriter(folder / CHECKPOINTS, config.checkpoint, folder / ROUNDS, config.actors.timeout_s)

    def _begin_trackers(self, description: Mapping[str, str], earlier: Sequence[RoundRecord]) -> None:
        """With the first round, not before: a run that is refused leaves no trace there."""
        if not self.trackers.started:
            rows = [record_row(one) for one in earlier]
            self.trackers.start(Beginning(self.standing.config, self.standing.out.path, description, rows))

    # --------------------------------------------------------------------------------------------------------- the end

    def _close(self, status: str, **extra: Any) -> dict[str, Any]:
        summary = self.standing.summary(status, **extra)
        if not self.standing.out.is_gone():
            self.standing.out.write_summary(summary)
        return summary

    def _close_early(self, status: str, **extra: Any) -> None:
        """The summary of a run that has not reached its end; a disk that hangs may not keep it from ending."""
        closing = in_background(lambda: self._close(status, **extra), "summary")
        if wait([closing], self.standing.config.actors.timeout_s).done:
            self._finish_trackers(closing.result())
        else:
            log.error(f"{self.standing.out.path}: {SUMMARY} could not be written: the disk does not answer")

    def _finish_trackers(self, summary: Mapping[str, Any]) -> None:
        for name, note in self.trackers.finish(summary).items():
            log.warning("%s: %s", name, note)
