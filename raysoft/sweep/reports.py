"""What a trial tells Ray Tune: a result a round, and with it what the trial would need to go on elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ray import tune

from raysoft.config import RunConfig
from raysoft.errors import RaysoftError
from raysoft.rundir.folder import FIGURES, REPORT, RUN_ID, WANDB, record_row
from raysoft.rundir.reading import read_run
from raysoft.rundir.summary import without_columns
from raysoft.runs.events import Events
from raysoft.sweep.metrics import reading, values_so_far
from raysoft.types import RoundRecord

WORST = 1e30  # what a trial without the metric reports, on the wrong side
RUN, MARKER = "run", "trial.json"  # in a checkpoint of Tune
RUNNING = "running"
Carried = Literal["nothing", "round", "run"]


class Tune(Protocol):
    """What a trial needs of Ray Tune: the module `ray.tune`, or a stand-in that needs no Ray."""

    def report(self, metrics: dict[str, Any], *, checkpoint: tune.Checkpoint | None = None) -> None:
        """A result of this trial, and with it what it would need to go on elsewhere."""

    def get_checkpoint(self) -> tune.Checkpoint | None:
        """What this trial begins with: its own newest checkpoint, or that of the trial it goes on from."""

    def get_context(self) -> Any:
        """Knows the name of this trial."""


class Reports(Events):
    """Events of a run, told as results of a trial by `report`. `told` is the last round that Tune has heard of.

    The last round is told by `end` only: a scheduler that stops a trial there would cut off its closing figures.
    """

    def __init__(
        self,
        trial: str,
        metric: str,
        mode: str,
        carries: Carried,
        scratch: Path,
        report: Callable[..., None] = tune.report,
    ) -> None:
        self.trial, self.metric, self.mode, self.carries, self.scratch = trial, metric, mode, carries, scratch
        self.report = report
        self.told = 0
        self.copied_from: str | None = None
        self.folder: Path | None = None
        self.config: RunConfig | None = None
        self.rows: dict[int, dict[str, Any]] = {}

    def begin(self, config: RunConfig, folder: Path, replay_to: int = 0) -> None:
        """Take up what is on disk already; its rounds up to `replay_to` are told again."""
        self.config, self.folder = config, folder
        try:
            self.rows = {
                row["round"]: {**row, "metrics": without_columns(row["metrics"])} for row in read_run(folder).records
            }
        except RaysoftError:
            return  # nothing yet
        for tick in sorted(self.rows):
            if tick <= replay_to:
                self._tell(tick)

    def preparing(self, fraction: float, text: str) -> None:
        """Nothing."""

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """Nothing."""

    def round(self, record: RoundRecord) -> None:
        """A round is on disk."""
        row = record_row(record)
        self.rows[record.round] = {**row, "metrics": without_columns(row["metrics"])}
        if self.carries != RUN:
            self._tell(record.round)

    def checkpoint(self, tick: int, folder: Path) -> None:
        """A checkpoint is on disk, and no other is being written."""
        if self.carries == RUN:
            self._tell(tick)

    def end(self, status: str, reason: str | None = None) -> None:
        """The last word about the trial."""
        tick = max(self.rows, default=0)
        whole = self.carries == RUN and self.folder is not None and self.folder.is_dir()
        self._report(tick, status, tick if whole else None, reason=reason, done=True)

    def _tell(self, tick: int) -> None:
        assert self.config is not None
        if self.told < tick < self.config.rounds:
            self._report(tick, RUNNING, None if self.carries == "nothing" else tick)
            self.told = tick

    def _report(self, tick: int, status: str, carried: int | None, **more: Any) -> None:
        values = self._values(tick)
        metric = None if status == "failed" else reading(self.metric, values)
        worst = -WORST if self.mode == "max" else WORST
        result = {"trial": self.trial, "round": tick, "status": status, "copied_from": self.copied_from, **more}
        result[self.metric] = worst if metric is None else metric
        if carried is None:
            self.report(result)
            return
        packed = self._pack(carried, closed=status != RUNNING)
        try:
            self.report(result, checkpoint=tune.Checkpoint.from_directory(str(packed)))
        finally:
            shutil.rmtree(packed, ignore_errors=True)

    def _values(self, tick: int) -> dict[str, float]:
        rows = [self.rows[number] for number in sorted(self.rows) if number <= tick]
        return values_so_far(rows, self.config) if rows and self.config is not None else {}

    def _pack(self, tick: int, closed: bool) -> Path:
        packed = self.scratch / f"checkpoint-{tick}"
        packed.mkdir()
        (packed / MARKER).write_text(json.dumps({"trial": self.trial, "round": tick}))
        if self.carries == RUN:
            assert self.folder is not None
            shutil.copytree(self.folder, packed / RUN, ignore=_left_out if closed else _left_out_of_a_running_one)
        return packed


_left_out = shutil.ignore_patterns(FIGURES, REPORT, "latest-run", "debug*.log")


def _left_out_of_a_running_one(folder: str, names: list[str]) -> set[str]:
    """W&B is writing to its files: what tells of the same run later has to do."""
    if Path(folder).name == WANDB:
        return {name for name in names if name != RUN_ID}
    return _left_out(folder, names)


def read_marker(packed: Path) -> tuple[str, int]:
    """Whose checkpoint of Tune this is, and the last round that Tune has heard of."""
    data = json.loads((packed / MARKER).read_text())
    return data["trial"], data["round"]
