"""What a damaged or deleted rounds.jsonl leaves: its readable lines, and a line for every round that is lost.

A checkpoint's state does not need the records of the rounds before it, so a run goes on from it all the same. The file
as it was is kept beside the new one. A line of a lost round holds its number and `metrics.lost`; totals that such a
round belongs to are not known any more, and stand as null in the summary.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysoft.folder_checks import row_problem
from raysoft.tracking import ROUNDS, Position, write_atomic

LOST = "lost"


@dataclass(frozen=True)
class Salvaged:
    """The records that go on: where they end, and the rounds that are lost. `aside`: the damaged file, if there was."""

    position: Position
    lost: tuple[int, ...]
    aside: Path | None

    def note(self, at_round: int) -> str:
        """One sentence for the user."""
        kept = "" if self.aside is None else f" (kept as {self.aside.name})"
        what = f"the records of rounds {_spans(self.lost)} are lost, and totals over them stay unknown"
        if not self.lost:
            what = "every line can be read and is taken as it is"
        return (
            f"{ROUNDS} is not what was written up to round {at_round}{kept}: {what}. The state after round {at_round} "
            "is intact, and the run goes on from it."
        )


def salvage(folder: Path, at_round: int) -> Salvaged:
    """Make rounds.jsonl one line a round up to `at_round` again. Only for who holds the folder's lock."""
    path = folder / ROUNDS
    rows: dict[int, str] = {}
    aside = None
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            row = _row(line)
            if row is not None and 0 <= row["round"] <= at_round:
                rows.setdefault(row["round"], line)
        aside = _unused(path)
        os.replace(path, aside)
    lines = [rows.get(tick) or json.dumps(lost_row(tick)) for tick in range(at_round + 1)]
    text = "".join(line + "\n" for line in lines)
    write_atomic(path, text)
    lost = tuple(tick for tick, line in enumerate(lines) if is_lost(json.loads(line)))
    return Salvaged(Position.of(text.encode("utf-8")), lost, aside)


def lost_row(tick: int) -> dict[str, Any]:
    """The line of a round whose record is lost."""
    return {"round": tick, "metrics": {LOST: True}, "drop_reasons": {}}


def is_lost(row: Mapping[str, Any]) -> bool:
    """Whether a record says no more than that it is lost."""
    return row.get("metrics", {}).get(LOST) is True


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if row_problem(row) is None else None


def _unused(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in range(10_000))
    return next(name for name in names if not name.exists())


def _spans(ticks: tuple[int, ...]) -> str:
    """
    >>> _spans((0, 1, 2, 5))
    '0-2, 5'
    """
    spans: list[list[int]] = []
    for tick in ticks:
        if spans and tick == spans[-1][1] + 1:
            spans[-1][1] = tick
        else:
            spans.append([tick, tick])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)
