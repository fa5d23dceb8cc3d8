"""What is shown while runs go on: a line for each step in a script, one display that moves in a notebook cell.

No control codes are printed, so that a log file stays readable. `raysoft` on the command line has displays of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol

from raysoft.config import RunConfig
from raysoft.quantities import number, percent, quantity
from raysoft.rundir.folder import PLAN
from raysoft.rundir.summary import accuracy_name
from raysoft.runs.events import Events
from raysoft.types import RoundRecord

GAP_S = 0.2  # between two changes of a notebook's display


class Board(Protocol):
    """Where progress is shown."""

    def say(self, text: str) -> None:
        """A line that stays."""
        ...

    def move(self, text: str, done: float, total: float | None) -> None:
        """What goes on now, and how much of it is done; `total` None: nobody knows how long it takes."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Silence:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def move(self, text: str, done: float, total: float | None) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """A line of plain text each, and what goes on now only when it is another thing."""

    def __init__(self) -> None:
        self._now = ""

    def say(self, text: str) -> None:
        """Printed, and there at once."""
        print(text, flush=True)

    def move(self, text: str, done: float, total: float | None) -> None:
        """A line where something of unknown length begins; rounds have lines of their own."""
        if total is None and text != self._now:
            self.say(text)
        self._now = text

    def close(self) -> None:
        """Nothing is left open."""


class Cell:
    """A display in a notebook cell: a bar, what goes on now, the newest lines; it is changed, not added to."""

    KEPT = 4  # lines

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._bar: tuple[str, float, float | None] = ("", 0.0, None)
        self._began = self._shown = time.perf_counter()
        self._handle: Any = None
        self._ended = False
        self._draw(now=True)

    def say(self, text: str) -> None:
        """The newest lines are kept in sight."""
        self._lines = [*self._lines, text][-self.KEPT :]
        self._draw()

    def move(self, text: str, done: float, total: float | None) -> None:
        """Move the bar."""
        self._bar = (text, done, total)
        self._draw()

    def close(self) -> None:
        """The last state, drawn whatever the clock says: the lines, and no bar that would go on moving."""
        self._ended = True
        self._draw(now=True)

    def bundle(self) -> dict[str, str]:
        """What is displayed, as HTML and as text."""
        text, done, total = ("", 0.0, None) if self._ended else self._bar
        known = "" if total is None else f' value="{done:g}" max="{total or 1:g}"'
        count = "" if total is None else f" {done:g} / {total:g}"
        seconds = f"{time.perf_counter() - self._began:.0f} s"
        head = f"{text}{count}, {seconds}" if text else f"ended after {seconds}" if self._ended else ""
        bar = f"<progress{known} style='width: 16em'></progress>" if text else ""
        lines = "\n".join(self._lines)
        page = f"<div>{bar} {escape(head)}</div><pre style='margin: 0.3em 0'>{escape(lines)}</pre>"
        return {"text/html": page, "text/plain": "\n".join([head, *self._lines])}

    def _draw(self, now: bool = False) -> None:
        from IPython import display

        show: Any = display.display
        if not now and time.perf_counter() - self._shown < GAP_S:
            return
        self._shown = time.perf_counter()
        if self._handle is None:
            self._handle = show(self.bundle(), raw=True, display_id=True)
        else:
            self._handle.update(self.bundle(), raw=True)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def board(progress: bool) -> Board:
    """Where progress is shown here; nowhere where it is not wanted."""
    if not progress:
        return Silence()
    return Cell() if in_notebook() else Lines()


class RunProgress(Events):
    """Events of a run on a board."""

    def __init__(self, shown: Board) -> None:
        self._board = shown
        self._rounds = 0
        self._accuracy = "accuracy"

    def preparing(self, fraction: float, text: str) -> None:
        """What goes on before the first round and after the last."""
        self._board.move(text, 100 * fraction, 100 if fraction else None)

    def rank_chosen(self, rank: int, ranks: Sequence[int]) -> None:
        """One line."""
        self._board.say(rank_line(rank, ranks))

    def started(self, config: RunConfig, description: Mapping[str, str]) -> None:
        """What the run is on."""
        for name, text in description.items():
            self._board.say(f"{name:>9}: {text}")
        self._rounds = config.rounds
        self._accuracy = accuracy_name(config.data.task, config.eval.split)
        self._board.move("round", 0, self._rounds)

    def round(self, record: RoundRecord) -> None:
        """One line."""
        self._board.say(round_line(record, self._accuracy))
        self._board.move("round", record.round, self._rounds)


def rank_line(rank: int, ranks: Sequence[int]) -> str:
    """Which rank the plan of a run has chosen."""
    return f"the plan chose rank {rank} of {', '.join(map(str, ranks))}; {PLAN} in the folder says why"


def round_line(record: RoundRecord, accuracy: str = "accuracy") -> str:
    """A round in one line; `accuracy`: what it is called (summary.accuracy_name)."""
    parts = [f"round {record.round:>4}"]
    if record.accuracy is not None:
        parts.append(f"{accuracy} {number(record.accuracy)}")
    if "bits_per_byte" in record.metrics:
        parts.append(f"bits/byte {quantity('bits_per_byte').text(record.metrics['bits_per_byte'])}")
    if record.round:
        parts.append(f"latency {quantity('round_latency_s').text(record.round_latency_s)} s")
        parts.append(f"up {quantity('uplink_bits').text(record.uplink_bits)} MB")
        if record.kept_fraction_mean is not None:
            parts.append(f"kept {percent(record.kept_fraction_mean)}")
        if record.queue_s is not None:
            parts.append(f"queue {quantity('queue_s').text(record.queue_s)} s")
        if record.dropped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in record.drop_reasons.items())
            parts.append(f"lost {reasons}")
    return "  ".join(parts)
