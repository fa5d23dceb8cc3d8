"""Where a run is shown while it goes on, besides its own folder: TensorBoard, W&B, Prometheus.

The run folder is the truth; a tracker only repeats it. One that fails is switched off with a warning and the run goes
on; one that ends late is left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from raysoft.config import RunConfig
from raysoft.folder_checks import is_number

log = logging.getLogger("raysoft")
FINISH_S = 7.0  # what a tracker may take at the end of a run; after Ctrl-C Ray has had its seconds already
Row = Mapping[str, Any]  # one line of rounds.jsonl, see tracking.record_row
_NOT_CURVES = frozenset({"round", "metrics", "drop_reasons", "model"})


@dataclass(frozen=True)
class Beginning:
    """What a tracker knows at the start: `earlier` are the rounds that a resumed run has behind it."""

    config: RunConfig
    folder: Path
    description: Mapping[str, str]
    earlier: Sequence[Row] = ()

    @property
    def name(self) -> str:
        """The run's own name, that of its folder."""
        return self.folder.resolve().name


class Tracker(Protocol):
    """One place where a run is shown. Any method may raise: the tracker is then dropped, never the run.

    A round may come twice, with the same numbers: a lost coordinator goes back to its last checkpoint.
    """

    name: str

    def start(self, begin: Beginning) -> None:
        """The first round is on disk."""
        ...

    def round(self, row: Row) -> None:
        """A round is on disk; returns at once."""
        ...

    def finish(self, summary: Mapping[str, Any], within_s: float) -> str | None:
        """The run has ended, `summary` is that of summary.json; a line for the reader where there is something to do
        or to open."""
        ...

    def drop(self) -> None:
        """Leave everything behind at once."""
        ...


class Trackers:
    """All trackers of a run. Nothing here raises but KeyboardInterrupt."""

    def __init__(self, members: Iterable[Tracker]) -> None:
        self._members = list(members)
        self.started = False

    def start(self, begin: Beginning) -> None:
        """Begin, once the run has something to show."""
        self.started = True
        for tracker in list(self._members):
            self._guarded(tracker, partial(tracker.start, begin))

    def round(self, row: Row) -> None:
        """Show one round."""
        for tracker in list(self._members):
            self._guarded(tracker, partial(tracker.round, row))

    def finish(self, summary: Mapping[str, Any], within_s: float = FINISH_S) -> dict[str, str]:
        """Close every tracker within `within_s` seconds; {tracker: line for the reader}."""
        notes: dict[str, str] = {}
        members, self._members = (self._members if self.started else []), []
        for tracker in members:
            note = self._guarded(tracker, partial(tracker.finish, summary, within_s))
            if note:
                notes[tracker.name] = note
        return notes

    def _guarded(self, tracker: Tracker, call: Callable[[], str | None]) -> str | None:
        try:
            return call()
        except Exception as error:
            reason = " ".join((str(error) or type(error).__name__).split())[:300]
            log.warning("%s is switched off for the rest of this run: %s", tracker.name, reason)
            self._drop(tracker)
        except BaseException:  # Ctrl-C while a tracker ends
            self._drop(tracker)
            raise
        return None

    def _drop(self, tracker: Tracker) -> None:
        with suppress(Exception):
            tracker.drop()
        with suppress(ValueError):
            self._members.remove(tracker)


def trackers_of(config: RunConfig) -> Trackers:
    """The trackers that a configuration asks for; no library is loaded before the run has begun."""
    from raysoft.trackers.prometheus import Prometheus
    from raysoft.trackers.tensorboard import TensorBoard
    from raysoft.trackers.wandb_tracker import Wandb, allowed

    asked = config.tracking
    members: list[Tracker] = []
    if asked.tensorboard:
        members.append(TensorBoard())
    if asked.prometheus:
        members.append(Prometheus())
    if allowed(asked.wandb):
        members.append(Wandb(asked.wandb))
    return Trackers(members)


def in_sweep(config: RunConfig, sweep: str, trial: str) -> RunConfig:
    """A trial's configuration: W&B groups it under the sweep, by its own name, unless the user has chosen others."""
    wandb = config.tracking.wandb
    wandb = wandb.model_copy(update={"group": wandb.group or sweep, "name": wandb.name or trial})
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"wandb": wandb})})


def curves(row: Row) -> Iterator[tuple[str, float]]:
    """The numbers of one round under the names they are drawn with; what is null or not a number has none."""
    for key, value in row.items():
        if key not in _NOT_CURVES and is_number(value):
            yield f"round/{key}", float(value)
    for key, value in row.get("metrics", {}).items():
        if is_number(value):
            yield f"metrics/{key}", float(value)
