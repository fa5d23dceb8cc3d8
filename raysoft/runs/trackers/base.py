"""What a tracker is, and what it is told: the run's beginning, its rounds, its end.

The run folder is the truth; a tracker only repeats it. One that ends late is left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raysoft.config import RunConfig
from raysoft.rundir.checks import is_number

log = logging.getLogger("raysoft")
FINISH_S = 7.0  # what a tracker may take at the end of a run; after Ctrl-C Ray has had its seconds already
Row = Mapping[str, Any]  # one line of rounds.jsonl, see rundir/folder.py
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


def curves(row: Row) -> Iterator[tuple[str, float]]:
    """The numbers of one round under the names they are drawn with; what is null or not a number has none."""
    for key, value in row.items():
        if key not in _NOT_CURVES and is_number(value):
            yield f"round/{key}", float(value)
    for key, value in row.get("metrics", {}).items():
        if is_number(value):
            yield f"metrics/{key}", float(value)
