"""One run from configuration to folder: the only place where executors, records, summary and report meet."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from raysoft.config import RunConfig
from raysoft.config.identity import EMBEDDED, revisions_of
from raysoft.errors import ConfigError, CoordinatorLostError, DiskHungError, RaysoftError, ResourceError
from raysoft.federation.content import content_of
from raysoft.federation.liveness import in_background
from raysoft.kernels import portable
from raysoft.planning.stage import planned
from raysoft.planning.table import plan_json
from raysoft.rundir.checks import is_lost
from raysoft.rundir.folder import REPORT, ROUNDS, START, SUMMARY, Position, RunFolder, record_row
from raysoft.rundir.summary import summarise
from raysoft.runs.checkpoint import CHECKPOINTS, Checkpoint
from raysoft.runs.checkpoint_writer import CheckpointWriter
from raysoft.runs.resuming import Salvaged, find_resumable, read_records, recorded_drops, salvage
from raysoft.runs.trackers.base import Beginning
from raysoft.runs.trackers.fanout import Trackers, trackers_of
from raysoft.types import RoundRecord, Tensors

if TYPE_CHECKING:
    from raysoft.federation.coordinator import Started
    from raysoft.federation.round import RunState

INLINE_START = 0.45  # of the start on Ray: what model and data take inline (measured)

log = logging.getLogger("raysoft")
ATTEMPTS = 3  # coordinators in a row that may die without finishing a round


class Events(Protocol):
    """What a caller may draw while a run goes on."""

    def preparing(self, fraction: float, text: str) -> None:
        """Something other than rounds is going on: the base, the start, the report."""
        ...

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """The run is ready to begin."""
        ...

    def round(self, record: RoundRecord) -> None:
        """A round (or the base, round 0) is on disk."""
        ...

    def checkpoint(self, tick: int, folder: Path) -> None:
        """The checkpoint after a round is on disk."""
        ...


class Silent:
    """Events of a caller that draws nothing."""

    def preparing(self, fraction: float, text: str) -> None:
        """Nothing."""

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """Nothing."""

    def round(self, record: RoundRecord) -> None:
        """Nothing."""

    def checkpoint(self, tick: int, folder: Path) -> None:
        """Nothing."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves: its folder, the contents of summary.json, the report (None: not drawn).

    `notes`: a line of each tracker that has one, such as where to look or how to upload.
    """

    folder: Path
    summary: Mapping[str, Any]
    report: Path | None
    notes: Mapping[str, str] = field(default_factory=dict)
    task: str = ""  # data.task


class Session(Protocol):
    """A coordinator, wherever it lives."""

    def start(self, state: RunState | None = None) -> Started:
        """Make ready, with the state of a checkpoint or from the beginning; raises ConfigError on bad input."""
        ...

    def baseline(self) -> RoundRecord:
        """Round 0, the untouched base."""
        ...

    def round(self, tick: int) -> RoundRecord:
        """The next round. Raises CoordinatorLostError where the coordinator's process has died."""
        ...

    def snapshot(self) -> RunState:
        """All that the rounds so far have changed."""
        ...

    def finish(self) -> tuple[Tensors, dict[str, Any]]:
        """The global values and run totals."""
        ...

    def fetch_base(self) -> Any:
        """The frozen base."""
        ...


Sessions = Callable[[RunConfig], AbstractContextManager[Session]]


def run(
    config: RunConfig,
    folder: Path | str,
    overwrite: bool = False,
    events: Events | None = None,
    report: bool = True,
    session: Sessions | None = None,
) -> RunResult:
    """Run a configuration and write its folder; `report` False leaves out figures and page, which take seconds.

    `session` puts the coordinator elsewhere than config.executor says (a trial of a sweep is one itself).
    Raises ConfigError (bad input, also found while reading data), ResourceError (does not fit this machine),
    RaysoftError (anything that ends a run). A run that ends early keeps its records, its checkpoints and a summary with
    its status; one that is refused before its first round leaves no folder.
    """
    folder = Path(folder)
    portable.require(config.actors.portable)
    with RunFolder(folder, overwrite=overwrite) as out:
        out.write_config(to_yaml(config))
        out.write_environment(threads=config.actors.threads)
        course = _Course(config, out, events or Silent(), session or _session, fresh=True)
        summary = course.conduct()
    return _closed(folder, config, summary, report, course.events, course.trackers)


def resume(
    folder: Path | str,
    overrides: Sequence[str] = (),
    events: Events | None = None,
    report: bool = True,
    session: Sessions | None = None,
    may_change: Collection[str] = (),
) -> RunResult:
    """Go on with a run where its newest sound checkpoint stands, or at round 0 where it has none.

    The result is that of a run that was never interrupted, bit for bit. `overrides` may change what has no influence on
    the result (executor, actors, tracking, checkpoint) and let `rounds` grow; a caller that wants another result from
    here on names further keys in `may_change`. A finished run is left alone, but for a report that is missing.
    Raises ConfigError naming every key that differs, RaysoftError where the folder or all checkpoints are damaged.
    """
    events, folder = events or Silent(), Path(folder)
    found = find_resumable(folder, overrides, may_change)
    for note in found.notes:
        log.warning(note)
    if found.done is not None:
        log.warning(
            f"This run has finished its {found.config.rounds} rounds, so nothing is left to do; "
            f"rounds={2 * found.config.rounds or 1}, say, lets it go on."
        )
        return _closed(folder, found.config, found.done, report and not (folder / REPORT).exists(), events)
    config, at = found.config, found.checkpoint
    portable.require(config.actors.portable)
    mended: list[Salvaged] = []

    def mend() -> Position:
        assert at is not None
        mended.append(salvage(folder, at.round))
        return mended[0].position

    position = START if at is None else at.records if at.records_intact else mend
    with RunFolder.reopen(folder, position) as out:
        if at is not None and mended:
            log.warning(mended[0].note(at.round))
            at = replace(at, records=mended[0].position, records_intact=True)
        out.write_config(to_yaml(config))
        if at is None:
            out.write_environment(threads=config.actors.threads)
        course = _Course(config, out, events, session or _session, fresh=False, at=at)
        summary = course.conduct()
    return _closed(folder, config, summary, report, events, course.trackers)


class _Course:
    """One run from where it stands to its summary: the configuration as far as it is known, the records so far."""

    def __init__(
        self,
        config: RunConfig,
        out: RunFolder,
        events: Events,
        session: Sessions,
        fresh: bool,
        at: Checkpoint | None = None,
    ) -> None:
        self.fresh = fresh  # nothing of this run was there before
        self.config = config
        self.out = out
        self.events = events
        self.session = session
        self.trackers = trackers_of(config)
        self.at = at  # the last checkpoint
        self.records = [] if at is None else read_records(out.path)
        self.began = time.perf_counter() - (0.0 if at is None else at.wall_time_s)
        self.content: dict[str, str | None] = {}  # what the run is made of, see config/identity.py

    def conduct(self) -> dict[str, Any]:
        """Run to the end; the summary."""
        try:
            totals, digest = self._advance()
        except (KeyboardInterrupt, BrokenPipeError):  # the latter: nobody reads the output any more
            if self.records:
                self._close_early("interrupted")
            elif self.fresh:
                self.out.discard()
            raise
        except SystemExit:  # Tune stops a trial this way; the sweep keeps the reason
            self._finish_trackers(self._summary("stopped"))
            raise
        except Exception as error:
            if isinstance(error, (ConfigError, ResourceError)) and not self.records and self.fresh:
                self.out.discard()  # refused before anything began
            else:
                self._close_early("failed", metrics={"error": str(error) or type(error).__name__})
            raise
        return self._close("done", adapter_sha256=digest, metrics=_totals(totals, self.records))

    def _summary(self, status: str, **extra: Any) -> dict[str, Any]:
        wall_s = time.perf_counter() - self.began
        known = {"status": status, "wall_time_s": wall_s, "identity": self._identity()}
        return summarise(self.records, self.config, {**known, **extra})

    def _identity(self) -> dict[str, str | None]:
        return self.content | revisions_of(self.config)

    def _close(self, status: str, **extra: Any) -> dict[str, Any]:
        summary = self._summary(status, **extra)
        if not self.out.is_gone():
            self.out.write_summary(summary)
        return summary

    def _close_early(self, status: str, **extra: Any) -> None:
        """The summary of a run that has not reached its end; a disk that hangs may not keep it from ending."""
        closing = in_background(lambda: self._close(status, **extra), "summary")
        if wait([closing], self.config.actors.timeout_s).done:
            self._finish_trackers(closing.result())
        else:
            log.error(f"{self.out.path}: {SUMMARY} could not be written: the disk does not answer")

    def _finish_trackers(self, summary: Mapping[str, Any]) -> None:
        for name, note in self.trackers.finish(summary).items():
            log.warning("%s: %s", name, note)

    def _advance(self) -> tuple[Mapping[str, Any], str]:
        """Totals and fingerprint of the adapter."""
        from raysoft.runs.inputs import check_inputs, check_tight_budget

        check_inputs(self.config)  # before Ray, which takes its time to start
        self.content = content_of(self.config)
        _ensure_base(self.config, self.events)
        self.config, plan = planned(self.config, self.events)  # model.lora.rank: plan is now a number
        if plan is not None:
            self.out.write_plan(plan_json(plan))
            self.out.write_config(to_yaml(self.config))
        if self.fresh and self.config.executor == "ray":
            check_tight_budget(self.config)
        losses = 0
        while True:
            before = len(self.records)
            try:
                return self._with_coordinator()
            except CoordinatorLostError as error:
                losses = 1 if len(self.records) > before else losses + 1
                if losses == ATTEMPTS:
                    raise RaysoftError(f"{error}, {ATTEMPTS} times in a row") from error
                log.warning(f"{error}; going on after round {0 if self.at is None else self.at.round}")
                self.out.rewind(START if self.at is None else self.at.records)
                self.records = self.records[: 0 if self.at is None else self.at.round + 1]

    def _with_coordinator(self) -> tuple[Mapping[str, Any], str]:
        where = "starting Ray, " if self.config.executor == "ray" else ""
        folder, at = self.out.path, self.at
        after = "" if at is None else f", to go on after round {at.round}"
        self.events.preparing(0.0, f"{where}loading model and data{after}")
        began = time.perf_counter()
        with self._checkpoint_writer() as writer, self.session(self.config) as coordinator:
            started = coordinator.start(None if at is None else at.state)
            startup_s = time.perf_counter() - began
            if at is not None and at.base_checksum != started.info.base_checksum:
                raise RaysoftError(
                    f"the base model has changed since the checkpoint of round {at.round}: its checksum is "
                    f"{started.info.base_checksum[:12]}, was {at.base_checksum[:12]}"
                )
            self._check_content()
            self.config = started.config  # pack_size: auto is now a number
            self.out.write_config(to_yaml(self.config))
            self.events.started(self.config, started.info.description)
            self._show(started.info.description)
            for tick in range(len(self.records), self.config.rounds + 1):
                record = coordinator.baseline() if tick == 0 else coordinator.round(tick)
                self.records.append(_scalars_only(record))
                position = self._append(record)
                self._show(started.info.description, record)
                self.events.round(record)
                self._warn(record)
                if writer.due(tick, self.config.rounds):
                    self._tell(writer)
                    self.at = self._checkpoint(tick, coordinator.snapshot(), position, started.info.base_checksum)
                    writer.put(self.at)
            theta, totals = coordinator.finish()
            digest = _export(coordinator.fetch_base(), started.info.space, theta, self.config, folder)
            self._tell(writer)
        if self.fresh and self.config.executor == "ray" and self.session is _session:
            self._compare_with_inline(startup_s)
        return totals, digest

    def _compare_with_inline(self, startup_s: float) -> None:
        """Say it where one process would have been faster; a cluster has more cores than this machine."""
        from raysoft.distributed.session import joins_cluster

        packs = math.ceil(self.config.cohort.size / int(self.config.actors.pack_size))
        at_once = min(packs, os.cpu_count() or 1)
        inline_s = sooner_inline(startup_s, sum(record.wall_time_s for record in self.records), at_once)
        if inline_s is not None and not joins_cluster():
            log.warning(
                f"Starting on Ray took {startup_s:.0f} s of this run; executor=inline would be over sooner, after "
                f"about {inline_s:.0f} s, with the same result."
            )

    def _append(self, record: RoundRecord) -> Position:
        """The record on disk; a disk that does not take it in time ends the run."""
        bound_s = self.config.actors.timeout_s
        writing = in_background(lambda: self.out.append(record), ROUNDS)
        if not wait([writing], bound_s).done:
            self.out.abandon()
            raise DiskHungError(
                f"{self.out.path / ROUNDS}: round {record.round} was not on disk within actors.timeout_s={bound_s:g} "
                "seconds; does the disk (a network file system?) answer?"
            )
        return writing.result()

    def _check_content(self) -> None:
        """The files have been read by now: what was noted before must be what was read."""
        now = content_of(self.config)
        for key, value in self.content.items():
            if value is not None and now.get(key) != value:
                raise RaysoftError(f"{key}: its files were changed while the run was reading them; start it again")
        self.content = now  # what had to be downloaded first is known now

    def _show(self, description: Mapping[str, str], record: RoundRecord | None = None) -> None:
        """A round to the trackers, which begin with the first one: a run that is refused leaves no trace there."""
        if self.records and not self.trackers.started:
            earlier = self.records if record is None else self.records[:-1]
            rows = [record_row(one) for one in earlier]
            self.trackers.start(Beginning(self.config, self.out.path, description, rows))
        if record is not None:
            self.trackers.round(record_row(record))

    def _warn(self, record: RoundRecord) -> None:
        """Say it when a client is left out for what its plug-ins raised, and the first time that nothing is learnt."""
        if "failed" in record.metrics:
            count = record.drop_reasons.get("client_failed", 1)
            log.warning(f"{count} client(s) left out (actors.on_failure=drop_client); {record.metrics['failed']}")
        if not record.metrics.get("unmoved") or any(row.metrics.get("unmoved") for row in self.records[:-1]):
            return
        config = self.config
        log.warning(
            f"round {record.round}: {record.participants} updates arrived and left the model as it was; what came of "
            f"them is for method.name={config.method.name}, codec.name={config.codec.name} and "
            f"uplink.name={config.uplink.name} to say"
        )

    def _checkpoint_writer(self) -> CheckpointWriter:
        folder, config = self.out.path, self.config
        return CheckpointWriter(folder / CHECKPOINTS, config.checkpoint, folder / ROUNDS, config.actors.timeout_s)

    def _tell(self, writer: CheckpointWriter) -> None:
        for tick, path in writer.written(wait=True):
            self.events.checkpoint(tick, path)

    def _checkpoint(self, tick: int, state: RunState, position: Position, base_checksum: str) -> Checkpoint:
        return Checkpoint(
            round=tick,
            state=state,
            config=self.config.result_keys(),
            config_hash=self.config.config_hash(),
            base_checksum=base_checksum,
            records=position,
            wall_time_s=time.perf_counter() - self.began,
            drops=recorded_drops(self.records),
            identity=self._identity(),
        )


def sooner_inline(startup_s: float, rounds_s: float, at_once: int) -> float | None:
    """Seconds that a run on Ray would take inline, where these are fewer; packs that ran `at_once` come one by one.

    >>> sooner_inline(20.0, 3.0, at_once=2)
    15.0
    >>> sooner_inline(20.0, 60.0, at_once=2)
    """
    inline_s = INLINE_START * startup_s + at_once * rounds_s
    return inline_s if inline_s < startup_s + rounds_s else None


def _closed(
    folder: Path,
    config: RunConfig,
    summary: Mapping[str, Any],
    report: bool,
    events: Events,
    trackers: Trackers | None = None,
) -> RunResult:
    page, notes = folder / REPORT, {}
    try:
        if report:
            from raysoft.report import write_report

            events.preparing(0.0, "drawing the report")
            page = write_report(folder)
    finally:  # after the report: its figures may be among what is uploaded
        if trackers is not None:
            notes = trackers.finish(summary)
    return RunResult(folder, summary, page if page.exists() else None, notes, config.data.task)


def to_yaml(config: RunConfig) -> str:
    """A configuration as YAML that `raysoft run` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)


def _scalars_only(record: RoundRecord) -> RoundRecord:
    """What the summary needs of a round; columns over clients are on disk, and would fill memory in the long run."""
    metrics = {name: value for name, value in record.metrics.items() if isinstance(value, (int, float))}
    return replace(record, metrics=metrics)


def _totals(totals: Mapping[str, Any], records: list[RoundRecord]) -> dict[str, Any]:
    """Shares of the dense uplink: at 32 bits a value, and at the value bits that were used, where they are known."""
    dense = totals["dense_bits_total"]
    sent = None if any(map(is_lost, map(record_row, records))) else sum(record.uplink_bits for record in records)
    evaluated = [record.accuracy for record in records if record.accuracy is not None]
    bits = totals["value_bits"]
    same = None if bits is None else dense * bits / 32
    return {
        **totals,
        "last_accuracy": evaluated[-1] if evaluated else None,  # that of the saved adapter
        "uplink_share_of_dense32": sent / dense if dense and sent is not None else None,
        "uplink_share_of_dense_same_bits": sent / same if same and sent is not None else None,
    }


def _ensure_base(config: RunConfig, events: Events) -> None:
    """Pretrain an embedded model here, where progress can be seen, unless the cache has it."""
    if config.model.name.startswith(EMBEDDED):
        from raysoft.models.embedded import ensure

        ensure(config.model.name, threads=config.actors.threads, on_progress=events.preparing)


def _export(base: Any, space: Any, theta: Tensors, config: RunConfig, folder: Path) -> str:
    from raysoft.models.adapter import export_peft
    from raysoft.models.digest import adapter_sha256

    export_peft(theta, base, space, config.model.lora, folder / "adapter")
    return adapter_sha256(theta)


@contextmanager
def _session(config: RunConfig) -> Iterator[Session]:
    """A coordinator in this process, or in an actor of a Ray that this call starts and stops."""
    if config.executor == "inline":
        from raysoft.federation.coordinator import Coordinator
        from raysoft.federation.executor import InlineExecutor, pin_threads

        with pin_threads(config.actors.threads):  # the caller's own thread counts come back afterwards
            yield Coordinator(config, InlineExecutor(config))
    else:
        from raysoft.distributed.session import ray_session

        with ray_session(config) as coordinator:
            yield coordinator
