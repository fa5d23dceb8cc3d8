"""What the displays of many runs share: a console, a bar for a terminal, lines that are printed once."""

from __future__ import annotations

from typing import Any, Self

from rich.console import Console
from rich.progress import Progress

from raysoft.planning.events import Preparing


class Display(Preparing):
    """A context manager that shows the bar; without a terminal only the lines are printed."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console = console
        self.progress = progress
        self._task: Any = None
        self._text = ""

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def preparing(self, fraction: float, text: str) -> None:
        """Something other than runs is going on: said when it changes."""
        if text != self._text:
            self._text = text
            self._say(text)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)
