"""Where a run stands: its configuration as far as it is known, its rounds so far, its last checkpoint.

Rounds are kept twice: complete in the run folder, and as figures in memory, from which the summary is made.
"""

from __future__ import annotations

import time
from concurrent.futures import wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from raysoft.config import RunConfig
from raysoft.config.identity import revisions_of
from raysoft.errors import DiskHungError, RaysoftError
from raysoft.federation.content import content_of
from raysoft.federation.liveness import in_background
from raysoft.rundir.folder import ROUNDS, START, Position, RunFolder
from raysoft.rundir.summary import summarise, without_columns
from raysoft.runs.checkpoint import Checkpoint
from raysoft.runs.resuming import read_records, recorded_drops
from raysoft.types import RoundRecord

if TYPE_CHECKING:
    from raysoft.federation.parts import RunState


class Standing:
    """Where a run stands, in its folder and in memory. `at`: the last checkpoint, after which it goes on.

    `fresh`: nothing of this run was there before, so it leaves nothing where it is refused.
    """

    def __init__(self, config: RunConfig, out: RunFolder, fresh: bool, at: Checkpoint | None = None) -> None:
        self.config = config
        self.out = out
        self.fresh = fresh
        self.at = at
        self.records = [] if at is None else read_records(out.path)
        self._began = time.perf_counter() - (0.0 if at is None else at.wall_time_s)
        self._content: dict[str, str | None] = {}  # what the run is made of, see config/identity.py

    @property
    def after(self) -> int:
        """The round after which the run goes on where its coordinator is lost."""
        return 0 if self.at is None else self.at.round

    def settle(self, config: RunConfig) -> None:
        """What was `auto` or `plan` is a number from now on."""
        self.config = config
        self.out.write_config(to_yaml(config))

    def note_content(self) -> None:
        """Digests of the user's files, before they are read."""
        self._content = content_of(self.config)

    def check_content(self) -> None:
        """The files have been read by now: what was noted before must be what was read. Raises RaysoftError."""
        now = content_of(self.config)
        for key, value in self._content.items():
            if value is not None and now.get(key) != value:
                raise RaysoftError(f"{key}: its files were changed while the run was reading them; start it again")
        self._content = now  # what had to be downloaded first is known now

    def check_base(self, checksum: str) -> None:
        """Whether the base model is that of the rounds so far. Raises RaysoftError."""
        if self.at is not None and self.at.base_checksum != checksum:
            raise RaysoftError(
                f"the base model has changed since the checkpoint of round {self.at.round}: its checksum is "
                f"{checksum[:12]}, was {self.at.base_checksum[:12]}"
            )

    def add(self, record: RoundRecord) -> Position:
        """A round: in memory, and on disk before this returns. Raises DiskHungError, which ends the run."""
        self.records.append(replace(record, metrics=without_columns(record.metrics)))
        bound_s = self.config.actors.timeout_s
        writing = in_background(lambda: self.out.append(record), ROUNDS)
        if not wait([writing], bound_s).done:
            self.out.abandon()
            raise DiskHungError(
                f"{self.out.path / ROUNDS}: round {record.round} was not on disk within actors.timeout_s={bound_s:g} "
                "seconds; does the disk (a network file system?) answer?"
            )
        return writing.result()

    def go_back(self) -> None:
        """Forget the rounds after the last checkpoint; a lost coordinator takes them along."""
        self.out.rewind(START if self.at is None else self.at.records)
        self.records = self.records[: 0 if self.at is None else self.at.round + 1]

    def checkpoint(self, state: RunState, position: Position, base_checksum: str) -> Checkpoint:
        """The state after the newest round, with what a resumed run has to check and to go on counting."""
        return Checkpoint(
            round=self.records[-1].round,
            state=state,
            config=self.config.result_keys(),
            config_hash=self.config.config_hash(),
            base_checksum=base_checksum,
            records=position,
            wall_time_s=self._wall_time_s(),
            drops=recorded_drops(self.records),
            identity=self._identity(),
        )

    def summary(self, status: str, **extra: Any) -> dict[str, Any]:
        """The contents of summary.json, were the run to end now."""
        known = {"status": status, "wall_time_s": self._wall_time_s(), "identity": self._identity()}
        return summarise(self.records, self.config, {**known, **extra})

    def _wall_time_s(self) -> float:
        """Of the run so far, the time before an interruption included."""
        return time.perf_counter() - self._began

    def _identity(self) -> dict[str, str | None]:
        return revisions_of(self.config) | self._content


def to_yaml(config: RunConfig) -> str:
    """A configuration as YAML that `raysoft run` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)
